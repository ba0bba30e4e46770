//! Syncing by time: flush.ms and log.flush.scheduler.interval.ms (LR-55).
//!
//! A partition with a limit has a deadline from its first append on that nobody has asked to be synced; then its log is handed
//! over to be synced, and nobody waits for that. Where durability syncs by itself, there is nothing left to hand over.
//! The other limit, flush.messages, is the journal's: it counts.

use super::Shard;
use std::collections::BTreeSet;
use tally_protocol::{Now, PartitionId};

/// The partitions that are to be synced, by time.
#[derive(Debug, Default)]
pub(super) struct Flushes(BTreeSet<(u64, PartitionId)>);

impl Flushes {
    /// When the first is due, milliseconds of the monotonic clock.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.0.first().map(|(due_ms, _)| *due_ms)
    }

    /// Forgets a partition.
    pub(super) fn forget(&mut self, id: PartitionId) {
        self.0.retain(|(_, other)| *other != id);
    }
}

impl Shard {
    /// Gives a partition that was appended to its deadline, if it has none and wants one.
    pub(super) fn schedule_flush(&mut self, now: Now, id: PartitionId) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        if partition.flush_due_ms.is_some()
            || !partition.is_flushed_by_time()
            || partition.syncs_each_append(self.journal.durability())
        {
            return;
        }
        let wanted_ms = now
            .monotonic_ms
            .saturating_add(partition.settings.log.flush_ms);
        let due_ms = match self.settings.flush_check_ms {
            0 | u64::MAX => wanted_ms,
            every_ms => wanted_ms.div_ceil(every_ms).saturating_mul(every_ms),
        };
        partition.flush_due_ms = Some(due_ms);
        self.flushes.0.insert((due_ms, id));
    }

    /// The same when its settings have changed: what waits under the old ones waits under the new ones.
    pub(super) fn reschedule_flush(&mut self, now: Now, id: PartitionId) {
        if let Some(partition) = self.partitions.get_mut(&id)
            && let Some(due_ms) = partition.flush_due_ms.take()
        {
            self.flushes.0.remove(&(due_ms, id));
        }
        self.schedule_flush(now, id);
    }

    /// Hands over what is due.
    pub(super) fn flush_due(&mut self, now: Now) {
        while let Some((due_ms, id)) = self.flushes.0.first().copied() {
            if due_ms > now.monotonic_ms {
                return;
            }
            self.flushes.0.pop_first();
            if let Some(partition) = self.partitions.get_mut(&id) {
                partition.flush_due_ms = None;
                self.journal.hand_over(id, None);
            }
        }
    }
}
