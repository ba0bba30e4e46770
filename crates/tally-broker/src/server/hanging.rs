//! The monitor of transactions (B-17): counts and logs those that are open for too long, and ends those that nobody else will.
//!
//! A transaction is *late* when it has been seen open for longer than `transaction.max.timeout.ms`, more than which no client can
//! ask for, and a while (`tally.transaction.monitor.late.ms`). It *hangs* when no coordinator holds its producer, epoch and partition. The rules leave no way to
//! that (V-5), so it is the trace of a fault: it is logged as an error and aborted, because until then no reader of
//! read_committed gets past it.
//!
//! Partitions and coordinators are looked at one after the other while both go on. So nothing is aborted at first sight: what was
//! open before the coordinators were looked at, and is the same after that, was open in between.

use crate::config::BrokerConfig;
use crate::server::shards::Shards;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tally_shard::{OpenTransaction, Owed};

/// What the monitor is run with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchSettings {
    /// How often it looks.
    interval: Duration,
    /// From when on a transaction is late.
    late_after_ms: u64,
}

impl WatchSettings {
    /// As the broker's properties say.
    pub(crate) fn of(config: &BrokerConfig) -> WatchSettings {
        let timeout_ms = u64::try_from(config.transaction_max_timeout_ms).unwrap_or(0);
        WatchSettings {
            interval: Duration::from_millis(config.monitor_interval_ms),
            late_after_ms: timeout_ms.saturating_add(config.monitor_late_ms),
        }
    }
}

/// What is known of an open transaction.
#[derive(Clone, Copy, Debug)]
struct Seen {
    since_ms: u64,
    /// No coordinator held it when that was looked at last.
    has_no_owner: bool,
    was_called_late: bool,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Watch {
    open: BTreeMap<OpenTransaction, Seen>,
}

/// Looks at all transactions again and again, as long as the broker runs.
pub(crate) async fn run(shards: Arc<Shards>, settings: WatchSettings) {
    let mut watch = Watch::default();
    while !shards.is_stopping() {
        tokio::time::sleep(settings.interval).await;
        let now_ms = shards.now().monotonic_ms;
        let open = shards.open_transactions();
        // In this order: what is open before and after the coordinators are looked at was open in between.
        for hanging in watch.look(now_ms, open, || shards.held_transactions()) {
            end(&shards, &hanging);
        }
        for late in watch.newly_late(now_ms, settings.late_after_ms) {
            tell_of_late(&late);
        }
    }
}

fn end(shards: &Shards, hanging: &OpenTransaction) {
    let (producer, epoch) = (hanging.producer_id.0, hanging.producer_epoch.0);
    let (partition, at) = (hanging.partition, hanging.first_offset);
    match shards.abort_hanging(hanging) {
        Ok(true) => {
            tracing::error!(%partition, producer, epoch, %at, "E2107 txn.hanging: transaction that no coordinator knows aborted");
        }
        Ok(false) => {}
        Err(code) => {
            tracing::error!(%partition, producer, epoch, %at, ?code, "E2107 txn.hanging: transaction that no coordinator knows can't be aborted yet");
        }
    }
}

impl Watch {
    /// One look at what is open, then at what the coordinators hold; returns what hangs for certain. `None`: a coordinator
    /// can't be read, and may hold any of them.
    fn look(
        &mut self,
        now_ms: u64,
        open: Vec<OpenTransaction>,
        held: impl FnOnce() -> Option<Owed>,
    ) -> Vec<OpenTransaction> {
        let mut hanging = Vec::new();
        let mut seen = BTreeMap::new();
        for transaction in open {
            let before = self.open.get(&transaction).copied();
            if before.is_some_and(|before| before.has_no_owner) {
                hanging.push(transaction);
            }
            let fresh = Seen {
                since_ms: now_ms,
                has_no_owner: false,
                was_called_late: false,
            };
            seen.insert(transaction, before.unwrap_or(fresh));
        }
        self.open = seen;
        if self.open.is_empty() {
            return hanging;
        }
        let held = held();
        for (transaction, seen) in &mut self.open {
            let place = (transaction.partition, transaction.producer_id);
            seen.has_no_owner = held.as_ref().is_some_and(|held| {
                held.get(&place)
                    .is_none_or(|epoch| *epoch < transaction.producer_epoch)
            });
        }
        hanging
    }

    /// What has become late since this was asked last.
    fn newly_late(&mut self, now_ms: u64, late_after_ms: u64) -> Vec<OpenTransaction> {
        let mut late = Vec::new();
        for (transaction, seen) in &mut self.open {
            let is_late = now_ms.saturating_sub(seen.since_ms) > late_after_ms;
            if is_late && !std::mem::replace(&mut seen.was_called_late, true) {
                late.push(*transaction);
            }
        }
        late
    }
}

fn tell_of_late(late: &OpenTransaction) {
    let (producer, epoch) = (late.producer_id.0, late.producer_epoch.0);
    let (partition, at) = (late.partition, late.first_offset);
    tracing::warn!(%partition, producer, epoch, %at, "W2108 txn.late: transaction open for longer than any timeout");
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::{Offset, PartitionId, ProducerEpoch, ProducerId, TopicId};

    fn open_at(first_offset: i64) -> OpenTransaction {
        OpenTransaction {
            partition: PartitionId {
                topic: TopicId([1; 16]),
                index: 0,
            },
            producer_id: ProducerId(7),
            producer_epoch: ProducerEpoch(3),
            first_offset: Offset(first_offset),
        }
    }

    fn held_with(epoch: i16) -> Option<Owed> {
        let open = open_at(0);
        let owed = ((open.partition, open.producer_id), ProducerEpoch(epoch));
        Some(Owed::from([owed]))
    }

    #[test]
    fn b17_nothing_is_aborted_at_first_sight() {
        let mut watch = Watch::default();
        let nobody = || Some(Owed::new());
        assert_eq!(watch.look(0, vec![open_at(0)], nobody), []);
        // The next transaction of the same producer is another one.
        assert_eq!(watch.look(1, vec![open_at(5)], nobody), []);
        assert_eq!(watch.look(2, vec![open_at(5)], nobody), [open_at(5)]);
        assert_eq!(watch.look(3, vec![], nobody), []);
    }

    #[test]
    fn b17_what_a_coordinator_may_hold_is_left_alone() {
        // With a marker at the epoch of the data or above it; or none of them can be read.
        for held in [held_with(3), held_with(4), None] {
            let mut watch = Watch::default();
            for look in 0..3 {
                assert_eq!(watch.look(look, vec![open_at(0)], || held.clone()), []);
            }
        }
        // A marker below it would be refused, and taken for written (D-7).
        let mut watch = Watch::default();
        assert_eq!(watch.look(0, vec![open_at(0)], || held_with(2)), []);
        assert_eq!(
            watch.look(1, vec![open_at(0)], || held_with(2)),
            [open_at(0)]
        );
    }

    #[test]
    fn b17_what_is_open_for_too_long_is_told_once() {
        let mut watch = Watch::default();
        for now_ms in [10, 110, 111, 112] {
            watch.look(now_ms, vec![open_at(0)], || held_with(3));
            let late = watch.newly_late(now_ms, 100);
            assert_eq!(late.len(), usize::from(now_ms == 111), "at {now_ms}");
        }
    }
}
