//! What the coordinators of transactions decided, and the records of both coordinators.
//!
//! A marker must not contradict a decision: with the second protocol every transaction has a (producer id, epoch) of its
//! own, with the first one that pair may have had both outcomes, and then nothing is concluded; nor is it where compaction
//! may have removed the other one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tally_protocol::ids::coordinator_partition;
use tally_protocol::record::RecordView;
use tally_protocol::records::RecordError;
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::records::transaction_log::{
    TransactionRecord, TransactionState, TransactionValue,
};
use tally_protocol::{ProducerEpoch, ProducerId};

use crate::offline::Role;

/// Decisions that are kept: about 400 MB of memory. Those that come later are not compared with.
const DECISIONS_MAX: usize = 4_000_000;

const COMMIT: u8 = 1;
const ABORT: u8 = 2;
/// The pair may have had more transactions than this one.
const SHARED: u8 = 4;

/// What is known of all transactional ids.
pub(super) struct Decisions {
    /// All partitions of the transaction log are looked at, and so far none of them was damaged.
    is_whole: bool,
    /// Compaction has removed records: what there is of a pair may not be all that was decided.
    is_thinned: bool,
    outcomes: BTreeMap<(ProducerId, ProducerEpoch), u8>,
    /// The last state of each id.
    ids: BTreeMap<Arc<str>, TransactionValue>,
    /// Producer ids to the transactional ids that have or had them.
    owners: BTreeMap<ProducerId, Arc<str>>,
}

/// Who an open transaction belongs to.
pub(super) enum Owner {
    /// Nothing can be said: the transaction log was not looked at, or is damaged.
    Unknown,
    /// This id, which knows of it.
    Known(String, &'static str),
    /// Nobody will ever end it.
    Hanging(Option<(String, &'static str)>),
}

impl Decisions {
    pub(super) fn new(is_whole: bool) -> Decisions {
        Decisions {
            is_whole,
            is_thinned: false,
            outcomes: BTreeMap::new(),
            ids: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    /// A partition of the transaction log is damaged: what is missing may have said anything.
    pub(super) fn distrust(&mut self) {
        self.is_whole = false;
    }

    /// Records of the transaction log are missing where compaction may have removed them.
    pub(super) fn thin(&mut self) {
        self.is_thinned = true;
    }

    /// Takes in a record of the transaction log.
    fn learn(&mut self, record: TransactionRecord) {
        let Some(value) = record.value else {
            self.ids.remove(&record.transactional_id);
            return;
        };
        let outcome = match value.state {
            TransactionState::PrepareCommit | TransactionState::CompleteCommit => COMMIT,
            TransactionState::PrepareAbort | TransactionState::CompleteAbort => ABORT,
            _ => 0,
        };
        let shared = match value.client_transaction_version {
            2.. => 0,
            _ => SHARED,
        };
        let producer = (value.producer_id, value.producer_epoch);
        // Complete may carry the epoch that the next transaction gets, so that only Prepare names the one that ends.
        let decides = matches!(
            value.state,
            TransactionState::PrepareCommit | TransactionState::PrepareAbort
        );
        if decides && (self.outcomes.len() < DECISIONS_MAX || self.outcomes.contains_key(&producer))
        {
            *self.outcomes.entry(producer).or_default() |= outcome | shared;
        }
        for id in [
            value.producer_id,
            value.previous_producer_id,
            value.next_producer_id,
        ] {
            if id != ProducerId::NONE {
                self.owners.insert(id, Arc::clone(&record.transactional_id));
            }
        }
        self.ids.insert(record.transactional_id, value);
    }

    /// Whether the coordinator decided otherwise than this marker says.
    pub(super) fn contradicts(&self, id: ProducerId, epoch: ProducerEpoch, commit: bool) -> bool {
        let outcome = if commit { COMMIT } else { ABORT };
        let Some(decided) = self.outcomes.get(&(id, epoch)) else {
            return false;
        };
        let is_all = decided & SHARED == 0 || !self.is_thinned;
        self.is_whole && is_all && decided & outcome == 0
    }

    /// Who the open transaction of a producer on a partition belongs to.
    pub(super) fn owner(&self, producer: ProducerId, topic: &str, index: i32) -> Owner {
        if !self.is_whole {
            return Owner::Unknown;
        }
        let Some(id) = self.owners.get(&producer) else {
            return Owner::Hanging(None);
        };
        let Some(value) = self.ids.get(id) else {
            return Owner::Hanging(None);
        };
        let known = (id.to_string(), value.state.name());
        let is_under_way = matches!(
            value.state,
            TransactionState::Ongoing
                | TransactionState::PrepareCommit
                | TransactionState::PrepareAbort
        );
        let is_listed = value
            .partitions
            .get(topic)
            .is_some_and(|indexes| indexes.contains(&index));
        if is_under_way && is_listed {
            Owner::Known(known.0, known.1)
        } else {
            Owner::Hanging(Some(known))
        }
    }

    /// Reads a record of a coordinator's log and learns from it; returns what is wrong with it.
    pub(super) fn record(
        &mut self,
        role: Role,
        record: &RecordView<'_>,
        place: (i32, i32),
    ) -> Result<(), String> {
        let key = record.key.unwrap_or_default();
        let damaged = |error: RecordError| format!("a coordinator's {error}");
        let name: Arc<str> = match role {
            Role::Data => return Ok(()),
            Role::Transactions => {
                let decoded = TransactionRecord::decode(key, record.value).map_err(damaged)?;
                let Some(decoded) = decoded else {
                    return Ok(());
                };
                let id = Arc::clone(&decoded.transactional_id);
                self.learn(decoded);
                id
            }
            Role::Offsets => match OffsetsRecord::decode(key, record.value).map_err(damaged)? {
                Some(record) => Arc::clone(record.group()),
                None => return Ok(()),
            },
        };
        let (index, count) = place;
        let belongs = coordinator_partition(&name, count);
        if belongs != index {
            return Err(format!(
                "the record of {name} belongs into partition {belongs}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(client_transaction_version: i16) -> Decisions {
        let value = TransactionValue {
            producer_id: ProducerId(7),
            previous_producer_id: ProducerId::NONE,
            next_producer_id: ProducerId::NONE,
            next_producer_epoch: ProducerEpoch::NONE,
            producer_epoch: ProducerEpoch(3),
            last_producer_epoch: ProducerEpoch::NONE,
            timeout_ms: 1000,
            state: TransactionState::PrepareCommit,
            partitions: BTreeMap::new(),
            last_update_ms: 0,
            start_ms: 0,
            client_transaction_version,
        };
        let mut decisions = Decisions::new(true);
        decisions.learn(TransactionRecord {
            transactional_id: Arc::from("a"),
            value: Some(value),
        });
        decisions
    }

    #[test]
    fn a_marker_contradicts_what_its_coordinator_is_known_to_have_decided_alone() {
        for version in [1, 2] {
            let mut decisions = decided(version);
            let contradicts = |decisions: &Decisions, epoch, commit| {
                decisions.contradicts(ProducerId(7), ProducerEpoch(epoch), commit)
            };
            assert!(contradicts(&decisions, 3, false), "version {version}");
            assert!(!contradicts(&decisions, 3, true), "version {version}");
            assert!(!contradicts(&decisions, 4, false), "version {version}");
            // An abort of the old flow may be what compaction has removed.
            decisions.thin();
            assert_eq!(contradicts(&decisions, 3, false), version == 2);
            decisions.distrust();
            assert!(!contradicts(&decisions, 3, false), "version {version}");
        }
    }
}
