//! Deletion of offsets by an operator, with a group or with a topic (section 7.4, GR-93, GR-103).
//!
//! A tombstone takes pending offsets along; partitions that have only pending ones get one, too (O-11).

use super::fetch::is_other_topic;
use super::{PartitionOffsets, StoredGroup, tombstone};
use crate::command::{DeleteOffsetsRequest, DeleteOffsetsResponse, ReplyTo, Response};
use crate::groups::{GroupState, Groups, Turn};
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::{ErrorCode, TopicId};

/// Which topics a live group holds on to.
pub(crate) enum Subscriptions {
    /// These.
    Topics(BTreeSet<Arc<str>>),
    /// Not known: all of them.
    All,
}

impl Subscriptions {
    pub(crate) fn hold(&self, topic: &str) -> bool {
        match self {
            Subscriptions::Topics(topics) => topics.contains(topic),
            Subscriptions::All => true,
        }
    }
}

impl Groups {
    pub(crate) fn delete_offsets(
        &self,
        turn: &mut Turn,
        request: &DeleteOffsetsRequest,
        to: ReplyTo,
    ) {
        let response = match self.subscriptions_of(&request.group) {
            Err(error) => DeleteOffsetsResponse {
                error,
                partitions: Vec::new(),
            },
            Ok(subscriptions) => DeleteOffsetsResponse {
                error: ErrorCode::None,
                partitions: self.delete_unsubscribed(turn, request, &subscriptions),
            },
        };
        turn.reply(to, Response::DeleteOffsets(response));
    }

    /// What of the group can't be deleted; 69 or 68 if nothing may be.
    fn subscriptions_of(&self, group: &str) -> Result<Subscriptions, ErrorCode> {
        if group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if !self.exists(group) {
            return Err(ErrorCode::GroupIdNotFound);
        }
        if let Some(consumer) = self.stored().consumer(group) {
            return Ok(Subscriptions::Topics(consumer.subscribed_topics()));
        }
        match self.live(group) {
            Some(live) if live.state() != GroupState::Empty => {
                if live.is_consumer() {
                    Ok(live.subscriptions())
                } else {
                    Err(ErrorCode::NonEmptyGroup)
                }
            }
            Some(_) | None => Ok(Subscriptions::Topics(BTreeSet::new())),
        }
    }

    fn delete_unsubscribed(
        &self,
        turn: &mut Turn,
        request: &DeleteOffsetsRequest,
        subscriptions: &Subscriptions,
    ) -> Vec<ErrorCode> {
        let stored = self.stored().group(&request.group);
        let delete = |(topic, partition): &(Arc<str>, i32)| {
            if subscriptions.hold(topic) {
                return ErrorCode::GroupSubscribedToTopic;
            }
            let entry = stored.and_then(|stored| stored.topics.get(topic)?.get(partition));
            if entry.is_some() {
                turn.records
                    .push(tombstone(&request.group, topic, *partition));
            }
            ErrorCode::None
        };
        request.partitions.iter().map(delete).collect()
    }

    pub(crate) fn delete_group(&mut self, turn: &mut Turn, group: &Arc<str>, to: ReplyTo) {
        // The empty id is one like all others here: offsets may be committed under it (GR-60).
        let code = if !self.exists(group) {
            ErrorCode::GroupIdNotFound
        } else if self.state(group) != GroupState::Empty {
            ErrorCode::NonEmptyGroup
        } else {
            if let Some(stored) = self.stored().group(group) {
                push_tombstones(turn, group, stored);
            }
            self.drop_live(group);
            self.drop_consumer_live(group);
            ErrorCode::None
        };
        turn.reply(to, Response::DeleteGroup(code));
    }

    pub(crate) fn topic_deleted(
        &self,
        turn: &mut Turn,
        (topic, topic_id): (&Arc<str>, TopicId),
        to: ReplyTo,
    ) {
        for (group, stored) in self.stored().groups() {
            let partitions = stored.topics.get(topic).into_iter().flatten();
            for (&partition, entry) in partitions {
                if !has_offset_of_other_topic(entry, topic_id) {
                    turn.records.push(tombstone(group, topic, partition));
                }
            }
        }
        turn.reply(to, Response::TopicDeleted);
    }
}

/// A topic of the same name that was made since may have a transaction open: its offsets must not go (GR-93).
fn has_offset_of_other_topic(entry: &PartitionOffsets, topic_id: TopicId) -> bool {
    let mut offsets = entry.committed.iter().chain(entry.pending.values());
    offsets.any(|offset| is_other_topic(topic_id, offset.value.topic_id))
}

fn push_tombstones(turn: &mut Turn, group: &Arc<str>, stored: &StoredGroup) {
    for (topic, partition, _) in stored.offsets() {
        turn.records.push(tombstone(group, topic, partition));
    }
    for record in stored.consumer.iter().flat_map(|group| group.tombstones()) {
        turn.records.push(OffsetsRecord::Consumer {
            group: group.clone(),
            record,
        });
    }
    if stored.record.is_some() {
        turn.records.push(OffsetsRecord::Group {
            group: group.clone(),
            value: None,
        });
    }
}
