//! What a command is about to write: each record is taken in by a copy of the group at once, so that the next step sees it.
//! The copy is made by the first record; a heartbeat that changes nothing copies nothing.

use super::ConsumerGroup;
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use tally_protocol::records::consumer_group::{ConsumerGroupRecord, EpochValue};
use tally_protocol::records::offsets_log::OffsetsRecord;

use crate::topics::Topics;

/// A group as it will be, and the records that make it so.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    name: Arc<str>,
    group: Cow<'a, ConsumerGroup>,
    records: Vec<OffsetsRecord>,
}

impl Deref for Draft<'_> {
    type Target = ConsumerGroup;

    fn deref(&self) -> &ConsumerGroup {
        &self.group
    }
}

impl<'a> Draft<'a> {
    /// The group as it is, or a new one.
    pub(crate) fn new(name: Arc<str>, group: Option<&'a ConsumerGroup>) -> Draft<'a> {
        let group = match group {
            Some(group) => Cow::Borrowed(group),
            None => Cow::Owned(ConsumerGroup::default()),
        };
        Draft {
            name,
            group,
            records: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn write(&mut self, record: ConsumerGroupRecord) {
        self.group.to_mut().apply(&record);
        self.records.push(OffsetsRecord::Consumer {
            group: self.name.clone(),
            record,
        });
    }

    /// A record of the classic group that this one takes the place of.
    pub(super) fn write_classic(&mut self, record: OffsetsRecord) {
        self.records.push(record);
    }

    /// The assignment has to be made anew (section 9.2).
    pub(super) fn bump(&mut self, topics: &Topics) {
        let metadata_hash = topics.hash(self.subscribed_topics().iter());
        self.write(ConsumerGroupRecord::Epoch(Some(EpochValue {
            // Two thousand million changes are not reached.
            epoch: self.epoch().saturating_add(1),
            metadata_hash,
        })));
    }

    pub(crate) fn into_records(self) -> Vec<OffsetsRecord> {
        self.records
    }
}
