//! The start after a power cut that may have taken what was answered from the page cache: nothing begun before it may
//! be committed after it.
//!
//! Every id that is known then is fenced before it answers anything but 14: its decided transaction is completed (D-13), its
//! open one aborted with fence (2.4), and then it goes to Empty with a pair that nobody can hold. Which pair that is depends on
//! what may be lost ([`Fence`]). Those whose transaction had been decided are fenced as well: the client may have begun the next one,
//! of which nothing is left.
//!
//! Not here: transactions that are open on a partition and in no coordinator's log; the shard aborts them.

use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionRecord, TransactionValue};
use tally_protocol::{Now, ProducerEpoch, ProducerId};

use crate::command::{Decision, ProducerIdBlock, TopicPartition};
use crate::coordinator::TransactionCoordinator;
use crate::state::{Cause, Reason};
use crate::transitions::{self, Phase, is_exhausted};

/// How many ids one `expire` fences: one decision must not hold up the shard; the rest is due at once.
const IDS_PER_STEP_MAX: usize = 100;
/// The wait before an id is looked at again for which there was no producer id.
const AGAIN_MS: u64 = 50;

/// What makes the pairs from before a power cut stale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fence {
    /// A higher epoch: every epoch that was handed out had been synced (`commit`).
    Epoch,
    /// Another producer id: of the epochs handed out last nothing may be left, and how many they were nobody knows (`os`).
    ProducerId,
}

/// The markers that a coordinator will write when it is fenced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwedMarkers {
    /// The transaction's producer.
    pub producer_id: ProducerId,
    /// The epoch that the markers carry.
    pub producer_epoch: ProducerEpoch,
    /// The highest epoch of data that they end: one of the second version ends only what is below its own (M-4).
    pub ends_upto: ProducerEpoch,
    /// The partitions that get one.
    pub partitions: Vec<TopicPartition>,
}

impl TransactionCoordinator {
    /// Has every id fenced that is known by now. Called before [`TransactionCoordinator::recovered`].
    pub fn power_was_cut(&mut self, fence: Fence) {
        self.soft.fence.ids = self.hard.ids.keys().map(Arc::clone).collect();
        self.soft.fence.by = fence;
        self.soft.fence.next_ms = Some(0);
    }

    /// Whether ids are left that [`TransactionCoordinator::power_was_cut`] wants fenced.
    #[must_use]
    pub fn is_fencing(&self) -> bool {
        !self.soft.fence.ids.is_empty()
    }

    /// The transactions whose end the log of this coordinator implies: what is open elsewhere has no owner.
    #[must_use]
    pub fn owed_markers(&self) -> Vec<OwedMarkers> {
        let owed = |value: &TransactionValue| {
            let (producer_epoch, version) = match Phase::of(value) {
                Phase::Empty | Phase::Ended { .. } => return None,
                Phase::Ending => (value.producer_epoch, value.client_transaction_version),
                // An abort with fence (S-3).
                Phase::Ongoing => (
                    value.producer_epoch.next(),
                    self.settings.transaction_version,
                ),
            };
            let is_strict = version >= 2 && producer_epoch != ProducerEpoch(i16::MAX);
            Some(OwedMarkers {
                producer_id: value.producer_id,
                producer_epoch,
                ends_upto: ProducerEpoch(producer_epoch.0 - i16::from(is_strict)),
                partitions: transitions::partitions_of(value).collect(),
            })
        };
        self.hard.ids.values().filter_map(owed).collect()
    }

    /// Fences some of the ids that are left. Each stays until its record is applied, so what finds no room, or no producer
    /// id (I-22), is decided again.
    pub(crate) fn fence_some(&mut self, now: Now, ids: &mut ProducerIdBlock) -> Decision {
        let mut decision = Decision::nothing();
        let is_at_rest = |id: &&Arc<str>| Phase::of(&self.hard.ids[*id]) != Phase::Ending;
        let some = self.soft.fence.ids.iter().filter(is_at_rest);
        let some: Vec<Arc<str>> = some.take(IDS_PER_STEP_MAX).map(Arc::clone).collect();
        // What waits for its markers is looked at when they are written.
        self.soft.fence.next_ms = some.first().map(|_| now.monotonic_ms);
        let cause = Cause::Broker(Reason::PowerCut);
        for id in some {
            let value = &self.hard.ids[&id];
            let more = match Phase::of(value) {
                Phase::Ending => None,
                Phase::Ongoing => self.abort_with_fence(now, &id, cause, ids),
                Phase::Empty | Phase::Ended { .. } => self.fenced(value, now, ids).map(|value| {
                    let record = TransactionRecord {
                        transactional_id: id,
                        value: Some(value),
                    };
                    Decision {
                        records: vec![record],
                        effects: Vec::new(),
                    }
                }),
            };
            let Some(more) = more else {
                self.soft.fence.next_ms = Some(now.monotonic_ms.saturating_add(AGAIN_MS));
                break;
            };
            decision.records.extend(more.records);
            decision.effects.extend(more.effects);
        }
        self.stage(now, cause);
        decision
    }

    /// Empty with a pair that nobody holds; `None` while that takes a pid and there is none.
    fn fenced(
        &self,
        value: &TransactionValue,
        now: Now,
        ids: &mut ProducerIdBlock,
    ) -> Option<TransactionValue> {
        let last = value.producer_epoch;
        Some(match self.soft.fence.by {
            Fence::ProducerId => transitions::rotated(value, ids.take()?, ProducerEpoch::NONE, now),
            Fence::Epoch if is_exhausted(last) => {
                transitions::rotated(value, ids.take()?, last, now) // I-17
            }
            Fence::Epoch => transitions::empty(value, last.next(), last, now),
        })
    }
}
