//! The hard state: stored group records, committed offsets and offsets pending in transactions.
//!
//! Invariants:
//! - A pending offset is in its partition's entry and its place is in the producer's set, or in neither.
//! - No entry is empty: a group without a record and without offsets is not there, which is what "absent" means.
//! - A partition's committed offset carries the log offset of its record; only a record with a higher one replaces it
//!   (GR-84), which is the order in which compaction keeps records, too (GR-123).
//!
//! Rules: section 7 of docs/groups.md, section 6.2 of docs/exactly-once.md.

mod commit;
mod delete;
mod fetch;
mod retention;

use crate::consumer::ConsumerGroup;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::records::offsets_log::{GroupValue, OffsetValue, OffsetsRecord};
use tally_protocol::{Offset, ProducerId, planted};

pub(crate) use delete::Subscriptions;
pub(crate) use retention::Sweep;

/// What the log says: equal to the replay of the partition's records and markers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    groups: BTreeMap<Arc<str>, StoredGroup>,
    /// Where each producer's pending offsets are.
    pending: BTreeMap<ProducerId, BTreeSet<Place>>,
}

/// Group, topic, partition.
type Place = (Arc<str>, Arc<str>, i32);

/// One group as the log knows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct StoredGroup {
    pub(crate) record: Option<GroupValue>,
    /// A group of the `consumer` protocol.
    pub(crate) consumer: Option<Box<ConsumerGroup>>,
    pub(crate) topics: BTreeMap<Arc<str>, BTreeMap<i32, PartitionOffsets>>,
}

/// The offsets of one partition in one group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct PartitionOffsets {
    pub(crate) committed: Option<StoredOffset>,
    pub(crate) pending: BTreeMap<ProducerId, StoredOffset>,
}

/// An offset and the place of its record in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StoredOffset {
    pub(crate) value: OffsetValue,
    at: Offset,
}

impl Stored {
    pub(crate) fn group(&self, group: &str) -> Option<&StoredGroup> {
        self.groups.get(group)
    }

    pub(crate) fn consumer(&self, group: &str) -> Option<&ConsumerGroup> {
        self.groups.get(group)?.consumer.as_deref()
    }

    pub(crate) fn groups(&self) -> &BTreeMap<Arc<str>, StoredGroup> {
        &self.groups
    }

    pub(crate) fn has_pending(&self, producer_id: ProducerId) -> bool {
        self.pending.contains_key(&producer_id)
    }

    /// Takes in one record; `producer` is set if its batch is transactional.
    pub(crate) fn apply(
        &mut self,
        at: Offset,
        record: &OffsetsRecord,
        producer: Option<ProducerId>,
    ) {
        match record {
            OffsetsRecord::Offset {
                group,
                topic,
                partition,
                value: Some(value),
            } => {
                let stored = StoredOffset {
                    value: value.clone(),
                    at,
                };
                self.store((group, topic, *partition), stored, producer);
            }
            OffsetsRecord::Offset {
                group,
                topic,
                partition,
                value: None,
            } => self.remove(group, topic, *partition),
            OffsetsRecord::Group {
                group,
                value: Some(value),
            } => self.groups.entry(group.clone()).or_default().record = Some(value.clone()),
            OffsetsRecord::Group { group, value: None } => {
                if let Some(stored) = self.groups.get_mut(group) {
                    stored.record = None;
                }
                self.drop_if_empty(group);
            }
            OffsetsRecord::Consumer { group, record } => {
                let stored = self.groups.entry(group.clone()).or_default();
                let consumer = stored.consumer.get_or_insert_default();
                consumer.apply(record);
                if consumer.is_absent() {
                    stored.consumer = None;
                }
                self.drop_if_empty(group);
            }
        }
    }

    fn store(
        &mut self,
        (group, topic, partition): (&Arc<str>, &Arc<str>, i32),
        offset: StoredOffset,
        producer: Option<ProducerId>,
    ) {
        let topics = &mut self.groups.entry(group.clone()).or_default().topics;
        let entry = topics
            .entry(topic.clone())
            .or_default()
            .entry(partition)
            .or_default();
        match producer {
            // O-10: pending offsets of others stay; the order of the log decides when their marker comes.
            None => entry.committed = Some(offset),
            Some(producer_id) => {
                if planted::is("o6") {
                    entry.committed = Some(offset.clone());
                }
                entry.pending.insert(producer_id, offset);
                self.pending.entry(producer_id).or_default().insert((
                    group.clone(),
                    topic.clone(),
                    partition,
                ));
            }
        }
    }

    /// A tombstone: the committed offset and every pending one go (GR-86, O-11).
    fn remove(&mut self, group: &Arc<str>, topic: &Arc<str>, partition: i32) {
        let Some(partitions) = self
            .groups
            .get_mut(group)
            .and_then(|stored| stored.topics.get_mut(topic))
        else {
            return;
        };
        let Some(entry) = partitions.remove(&partition) else {
            return;
        };
        let place = (group.clone(), topic.clone(), partition);
        for producer_id in entry.pending.keys() {
            if let Some(places) = self.pending.get_mut(producer_id) {
                places.remove(&place);
                if places.is_empty() {
                    self.pending.remove(producer_id);
                }
            }
        }
        self.drop_topic_if_empty(group, topic);
    }

    /// The end of a producer's transaction on this partition of the log (GR-84, O-7, O-8).
    pub(crate) fn apply_marker(&mut self, producer_id: ProducerId, outcome: Outcome) {
        for (group, topic, partition) in self.pending.remove(&producer_id).unwrap_or_default() {
            let Some(entry) = self
                .groups
                .get_mut(&group)
                .and_then(|stored| stored.topics.get_mut(&topic)?.get_mut(&partition))
            else {
                continue;
            };
            let pending = entry.pending.remove(&producer_id);
            let outcome = if planted::is("o8 abort") {
                Outcome::Commit
            } else {
                outcome
            };
            if let (Outcome::Commit, Some(pending)) = (outcome, pending)
                && !planted::is("o8 commit")
            {
                let is_later = |committed: &StoredOffset| pending.at > committed.at;
                if entry.committed.as_ref().is_none_or(is_later) {
                    entry.committed = Some(pending);
                }
            }
            if entry.committed.is_none() && entry.pending.is_empty() {
                if let Some(partitions) = self
                    .groups
                    .get_mut(&group)
                    .and_then(|stored| stored.topics.get_mut(&topic))
                {
                    partitions.remove(&partition);
                }
                self.drop_topic_if_empty(&group, &topic);
            }
        }
    }

    fn drop_topic_if_empty(&mut self, group: &Arc<str>, topic: &Arc<str>) {
        if let Some(stored) = self.groups.get_mut(group)
            && stored.topics.get(topic).is_some_and(BTreeMap::is_empty)
        {
            stored.topics.remove(topic);
        }
        self.drop_if_empty(group);
    }

    fn drop_if_empty(&mut self, group: &Arc<str>) {
        if self.groups.get(group).is_some_and(StoredGroup::is_empty) {
            self.groups.remove(group);
        }
    }

    /// Panics if an invariant of this module does not hold. For tests.
    pub(crate) fn check_invariants(&self) {
        let mut pending: BTreeMap<ProducerId, BTreeSet<Place>> = BTreeMap::new();
        for (group, stored) in &self.groups {
            assert!(!stored.is_empty(), "group {group} is empty");
            if let Some(consumer) = &stored.consumer {
                assert!(stored.record.is_none(), "{group} is of two kinds");
                consumer.check_invariants();
            }
            for (topic, partitions) in &stored.topics {
                assert!(!partitions.is_empty(), "topic {topic} of {group} is empty");
                for (&partition, entry) in partitions {
                    assert!(
                        entry.committed.is_some() || !entry.pending.is_empty(),
                        "{topic}-{partition} of {group} is empty"
                    );
                    for &producer_id in entry.pending.keys() {
                        let place = (group.clone(), topic.clone(), partition);
                        pending.entry(producer_id).or_default().insert(place);
                    }
                }
            }
        }
        assert_eq!(pending, self.pending, "pending offsets and their index");
    }
}

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Commit,
    Abort,
}

impl StoredGroup {
    fn is_empty(&self) -> bool {
        self.record.is_none() && self.consumer.is_none() && self.topics.is_empty()
    }

    /// Every partition with a committed or pending offset.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = (&Arc<str>, i32, &PartitionOffsets)> {
        self.topics.iter().flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(&partition, entry)| (topic, partition, entry))
        })
    }
}

/// The record that deletes an offset.
fn tombstone(group: &Arc<str>, topic: &Arc<str>, partition: i32) -> OffsetsRecord {
    OffsetsRecord::Offset {
        group: group.clone(),
        topic: topic.clone(),
        partition,
        value: None,
    }
}
