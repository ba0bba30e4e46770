//! The moves of one transactional id: from a stored value to the next one (2.1, S-3 to S-5, S-13, S-14, E-1, E-2).
//!
//! Pure functions. Which move is due is decided elsewhere; here stands what a move does to pid, epochs, partitions and
//! times, and which moves are legal.

use std::collections::BTreeMap;
use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionState, TransactionValue};
use tally_protocol::{Now, ProducerEpoch, ProducerId};

use crate::command::{Flow, ProducerIdBlock, TopicPartition};

/// Transactions with this timeout never time out: two-phase commit (I-24, S-11).
pub(crate) const NEVER_TIMES_OUT_MS: i32 = i32::MAX;

/// The states as the rules tell them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// No transaction since InitProducerId.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// Its outcome is decided, markers are missing.
    Ending,
    /// It is over: true for committed, false for aborted.
    Ended { commit: bool },
}

impl Phase {
    pub(crate) fn of(value: &TransactionValue) -> Phase {
        match value.state {
            // Dead is never stored (2.1): a log that says so all the same names an id without a transaction.
            TransactionState::Empty | TransactionState::Dead => Phase::Empty,
            TransactionState::Ongoing => Phase::Ongoing,
            // PrepareEpochFence is never stored either: it can only end as an abort.
            TransactionState::PrepareCommit
            | TransactionState::PrepareAbort
            | TransactionState::PrepareEpochFence => Phase::Ending,
            TransactionState::CompleteCommit => Phase::Ended { commit: true },
            TransactionState::CompleteAbort => Phase::Ended { commit: false },
        }
    }
}

/// What the end of a transaction does to its producer's pid and epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EpochChange {
    /// TV1 EndTxn: nothing.
    Keep,
    /// TV2 EndTxn and fence: the epoch rises, the old one is remembered (E-1, S-14).
    Raise,
    /// A fence below transaction.version 2: the epoch rises, the old one is forgotten (S-13).
    RaiseAndForget,
    /// The epoch is used up: markers carry 32767, then the new pid begins at 0 (E-2, S-14).
    Rotate(ProducerId),
}

impl EpochChange {
    /// The change of TV2: a raise, or a rotation when the epoch is used up; `None` while there is no pid for that.
    pub(crate) fn tv2(value: &TransactionValue, ids: &mut ProducerIdBlock) -> Option<EpochChange> {
        if is_exhausted(client_pair(value).1) {
            ids.take().map(EpochChange::Rotate)
        } else {
            Some(EpochChange::Raise)
        }
    }
}

/// The end of a transaction, as decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ending {
    pub(crate) commit: bool,
    pub(crate) epoch: EpochChange,
    pub(crate) client_transaction_version: i16,
}

/// Whether a client that holds this epoch can only go on with another pid (I-17, I-21).
pub(crate) fn is_exhausted(epoch: ProducerEpoch) -> bool {
    epoch >= ProducerEpoch::LAST_FOR_CLIENTS
}

/// Whether `from` may become `to` (2.1). The log after compaction holds fewer moves, so this is for live moves only.
pub(crate) fn is_legal(from: Option<&TransactionValue>, to: &TransactionValue) -> bool {
    let Some(from) = from else {
        return Phase::of(to) == Phase::Empty;
    };
    match (Phase::of(from), Phase::of(to)) {
        (Phase::Empty | Phase::Ended { .. }, Phase::Empty | Phase::Ongoing)
        | (Phase::Ongoing, Phase::Ongoing) => true,
        (Phase::Ongoing, Phase::Ending) => true,
        // E-3: the empty abort is the only end without a beginning.
        (Phase::Empty | Phase::Ended { .. }, Phase::Ending) => {
            to.state == TransactionState::PrepareAbort
        }
        // E-6: a decided outcome stays.
        (Phase::Ending, Phase::Ended { commit }) => commits(from) == commit,
        (Phase::Ending, Phase::Empty | Phase::Ongoing | Phase::Ending)
        | (Phase::Empty | Phase::Ongoing | Phase::Ended { .. }, Phase::Ended { .. })
        | (Phase::Ongoing, Phase::Empty) => false,
    }
}

/// Whether no epoch falls from `from` to `to`: a fenced producer must stay fenced.
pub(crate) fn keeps_epochs_rising(from: Option<&TransactionValue>, to: &TransactionValue) -> bool {
    from.is_none_or(|from| {
        from.producer_id != to.producer_id || from.producer_epoch <= to.producer_epoch
    })
}

/// The outcome of a value in a Prepare state.
pub(crate) fn commits(value: &TransactionValue) -> bool {
    value.state == TransactionState::PrepareCommit
}

/// The value of an id that InitProducerId names for the first time (I-8).
pub(crate) fn first(producer_id: ProducerId, timeout_ms: i32, now: Now) -> TransactionValue {
    TransactionValue {
        producer_id,
        previous_producer_id: ProducerId::NONE,
        next_producer_id: ProducerId::NONE,
        next_producer_epoch: ProducerEpoch::NONE,
        producer_epoch: ProducerEpoch(0),
        last_producer_epoch: ProducerEpoch::NONE,
        timeout_ms,
        state: TransactionState::Empty,
        partitions: BTreeMap::new(),
        last_update_ms: now.wall_ms,
        start_ms: -1,
        client_transaction_version: 0,
    }
}

/// InitProducerId: back to Empty with the pair that is answered (I-10, I-14, I-15).
pub(crate) fn empty(
    value: &TransactionValue,
    producer_epoch: ProducerEpoch,
    last_producer_epoch: ProducerEpoch,
    now: Now,
) -> TransactionValue {
    TransactionValue {
        producer_epoch,
        last_producer_epoch,
        state: TransactionState::Empty,
        partitions: BTreeMap::new(),
        last_update_ms: now.wall_ms,
        start_ms: -1,
        ..value.clone()
    }
}

/// InitProducerId with a used-up epoch: Empty with another pid at epoch 0 (I-17).
pub(crate) fn rotated(
    value: &TransactionValue,
    producer_id: ProducerId,
    last_producer_epoch: ProducerEpoch,
    now: Now,
) -> TransactionValue {
    TransactionValue {
        producer_id,
        previous_producer_id: value.producer_id,
        ..empty(value, ProducerEpoch(0), last_producer_epoch, now)
    }
}

/// Partitions join; the transaction starts now unless it is open already (A-4, A-5, S-4, S-12).
pub(crate) fn ongoing(
    value: &TransactionValue,
    partitions: &[TopicPartition],
    flow: Flow,
    now: Now,
) -> TransactionValue {
    let is_open = Phase::of(value) == Phase::Ongoing;
    let mut next = TransactionValue {
        state: TransactionState::Ongoing,
        last_update_ms: now.wall_ms,
        start_ms: if is_open { value.start_ms } else { now.wall_ms },
        client_transaction_version: flow.client_transaction_version(),
        ..value.clone()
    };
    for added in partitions {
        let indexes = match next.partitions.get_mut(&added.topic) {
            Some(indexes) => indexes,
            None => next.partitions.entry(Arc::clone(&added.topic)).or_default(),
        };
        if let Err(place) = indexes.binary_search(&added.partition) {
            indexes.insert(place, added.partition);
        }
    }
    next
}

/// The pair that speaks for the id: another one than the transaction's if that is prepared (KIP-939).
pub(crate) fn client_pair(value: &TransactionValue) -> (ProducerId, ProducerEpoch) {
    if is_prepared(value) {
        (value.next_producer_id, value.next_producer_epoch)
    } else {
        (value.producer_id, value.producer_epoch)
    }
}

/// Whether an open transaction was handed to a new producer that may only end it (KIP-939).
pub(crate) fn is_prepared(value: &TransactionValue) -> bool {
    Phase::of(value) == Phase::Ongoing && value.next_producer_id != ProducerId::NONE
}

/// The open transaction stays as it is, and another pair speaks for it from now on (KIP-939); `None` while that takes a
/// pid and there is none.
pub(crate) fn hand_over(
    value: &TransactionValue,
    ids: &mut ProducerIdBlock,
    now: Now,
) -> Option<TransactionValue> {
    let (producer_id, epoch) = client_pair(value);
    let (next_producer_id, next_producer_epoch) = if is_exhausted(epoch) {
        (ids.take()?, ProducerEpoch(0))
    } else {
        (producer_id, epoch.next())
    };
    Some(TransactionValue {
        next_producer_id,
        next_producer_epoch,
        last_update_ms: now.wall_ms,
        ..value.clone()
    })
}

/// What [`prepare`] makes of the pairs of a prepared transaction: its markers fence the producer that wrote it, and the one
/// that ends it goes on from its own pair.
fn end_prepared(value: &TransactionValue, change: EpochChange) -> TransactionValue {
    let (producer_id, epoch) = client_pair(value);
    let (next_producer_id, next_producer_epoch) = match change {
        EpochChange::Keep => (producer_id, epoch),
        EpochChange::Raise | EpochChange::RaiseAndForget => (producer_id, epoch.next()),
        EpochChange::Rotate(next) => (next, ProducerEpoch(0)),
    };
    let last_producer_epoch = match change {
        EpochChange::Raise | EpochChange::Rotate(_) => epoch,
        // The last epoch of the writer must not get its holder the pair of who has ended it (I-15).
        EpochChange::Keep | EpochChange::RaiseAndForget => ProducerEpoch::NONE,
    };
    TransactionValue {
        producer_epoch: value.producer_epoch.next(),
        last_producer_epoch,
        next_producer_id,
        next_producer_epoch,
        // Of a rotation the retry is told by the pid before it (I-19).
        previous_producer_id: match change {
            EpochChange::Rotate(_) => producer_id,
            EpochChange::Keep | EpochChange::Raise | EpochChange::RaiseAndForget => {
                value.previous_producer_id
            }
        },
        ..value.clone()
    }
}

/// The outcome is decided (E-1, E-2, S-13, S-14). From Empty or Complete: the empty abort, which starts and ends now (E-3, S-4).
pub(crate) fn prepare(value: &TransactionValue, ending: Ending, now: Now) -> TransactionValue {
    let is_open = Phase::of(value) == Phase::Ongoing;
    let pairs = if is_prepared(value) {
        end_prepared(value, ending.epoch)
    } else {
        end_own(value, ending.epoch)
    };
    TransactionValue {
        state: if ending.commit {
            TransactionState::PrepareCommit
        } else {
            TransactionState::PrepareAbort
        },
        last_update_ms: now.wall_ms,
        start_ms: if is_open { value.start_ms } else { now.wall_ms },
        client_transaction_version: ending.client_transaction_version,
        ..pairs
    }
}

/// What [`prepare`] makes of the pair of a transaction that its own producer ends.
fn end_own(value: &TransactionValue, change: EpochChange) -> TransactionValue {
    let (producer_epoch, last_producer_epoch, next_producer_id) = match change {
        EpochChange::Keep => (
            value.producer_epoch,
            value.last_producer_epoch,
            ProducerId::NONE,
        ),
        EpochChange::Raise => (
            value.producer_epoch.next(),
            value.producer_epoch,
            ProducerId::NONE,
        ),
        EpochChange::RaiseAndForget => (
            value.producer_epoch.next(),
            ProducerEpoch::NONE,
            ProducerId::NONE,
        ),
        EpochChange::Rotate(next) => (ProducerEpoch(i16::MAX), value.producer_epoch, next),
    };
    TransactionValue {
        producer_epoch,
        last_producer_epoch,
        next_producer_id,
        ..value.clone()
    }
}

/// All markers are written: the transaction is over; a pid that was reserved takes the place of the used-up one (E-2).
pub(crate) fn complete(value: &TransactionValue, now: Now) -> TransactionValue {
    let (producer_id, producer_epoch) = pair_after(value);
    // A prepared transaction has said in Prepare what comes before what.
    let rotates = value.next_producer_id != ProducerId::NONE
        && value.next_producer_epoch == ProducerEpoch::NONE;
    TransactionValue {
        producer_id,
        producer_epoch,
        previous_producer_id: if rotates {
            value.producer_id
        } else {
            value.previous_producer_id
        },
        next_producer_id: ProducerId::NONE,
        next_producer_epoch: ProducerEpoch::NONE,
        state: if commits(value) {
            TransactionState::CompleteCommit
        } else {
            TransactionState::CompleteAbort
        },
        partitions: BTreeMap::new(),
        last_update_ms: now.wall_ms,
        ..value.clone()
    }
}

/// The pair a client goes on with after the transaction that `value` prepares (E-1, E-2).
pub(crate) fn pair_after(value: &TransactionValue) -> (ProducerId, ProducerEpoch) {
    if value.next_producer_id == ProducerId::NONE {
        (value.producer_id, value.producer_epoch)
    } else {
        let epoch = value.next_producer_epoch.max(ProducerEpoch(0));
        (value.next_producer_id, epoch)
    }
}

/// Whether all of `partitions` are in the transaction.
pub(crate) fn contains_all(value: &TransactionValue, partitions: &[TopicPartition]) -> bool {
    partitions
        .iter()
        .all(|partition| contains(value, partition))
}

/// Whether `partition` is in the transaction.
pub(crate) fn contains(value: &TransactionValue, partition: &TopicPartition) -> bool {
    value
        .partitions
        .get(&partition.topic)
        .is_some_and(|indexes| indexes.contains(&partition.partition))
}

/// The partitions of a value, by topic and number.
pub(crate) fn partitions_of(value: &TransactionValue) -> impl Iterator<Item = TopicPartition> {
    value.partitions.iter().flat_map(|(topic, indexes)| {
        indexes.iter().map(|&partition| TopicPartition {
            topic: Arc::clone(topic),
            partition,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        monotonic_ms: 0,
        wall_ms: 5,
    };

    fn value(state: TransactionState) -> TransactionValue {
        TransactionValue {
            state,
            ..first(ProducerId(1), 1000, NOW)
        }
    }

    #[test]
    fn table_2_1_legal_moves() {
        use TransactionState::{
            CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit,
        };
        let all = [
            Empty,
            Ongoing,
            PrepareCommit,
            PrepareAbort,
            CompleteCommit,
            CompleteAbort,
        ];
        let legal = |to| match to {
            Empty => vec![Empty, CompleteCommit, CompleteAbort],
            Ongoing => vec![Empty, Ongoing, CompleteCommit, CompleteAbort],
            PrepareCommit => vec![Ongoing],
            PrepareAbort => vec![Empty, Ongoing, CompleteCommit, CompleteAbort],
            CompleteCommit => vec![PrepareCommit],
            CompleteAbort => vec![PrepareAbort],
            TransactionState::Dead | TransactionState::PrepareEpochFence => vec![],
        };
        for to in all {
            for from in all {
                assert_eq!(
                    is_legal(Some(&value(from)), &value(to)),
                    legal(to).contains(&from),
                    "{from:?} -> {to:?}"
                );
            }
            assert_eq!(is_legal(None, &value(to)), to == Empty, "new -> {to:?}");
        }
    }

    #[test]
    fn a4_joining_keeps_partitions_sorted_and_single() {
        let partition = |topic: &str, partition| TopicPartition {
            topic: Arc::from(topic),
            partition,
        };
        let one = ongoing(
            &value(TransactionState::Empty),
            &[partition("t", 2), partition("t", 0), partition("t", 2)],
            Flow::Tv1,
            NOW,
        );
        let two = ongoing(
            &one,
            &[partition("s", 1), partition("t", 1)],
            Flow::Tv2,
            NOW,
        );
        let names: Vec<_> = partitions_of(&two)
            .map(|p| format!("{}-{}", p.topic, p.partition))
            .collect();
        assert_eq!(names, ["s-1", "t-0", "t-1", "t-2"]);
        assert_eq!(two.client_transaction_version, 2);
    }
}
