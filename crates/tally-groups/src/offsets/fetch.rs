//! OffsetFetch (section 7.2). Never an error for what is not there (GR-71).

use super::{PartitionOffsets, StoredGroup};
use crate::command::{
    FetchRequest, FetchResponse, FetchedOffset, FetchedTopic, ReplyTo, Response, TopicToFetch,
};
use crate::groups::{Groups, Turn};
use std::sync::Arc;
use tally_protocol::{ErrorCode, TopicId, planted};

impl Groups {
    pub(crate) fn fetch_offsets(&self, turn: &mut Turn, request: FetchRequest, to: ReplyTo) {
        let stored = self.stored().group(&request.group);
        let consumer = stored.and_then(|stored| stored.consumer.as_ref());
        if let (Some(consumer), Some((member_id, epoch))) = (consumer, &request.member)
            && let Err(error) = consumer.check_fetch(member_id, *epoch)
        {
            let topics = Vec::new();
            return turn.reply(to, Response::FetchOffsets(FetchResponse { error, topics }));
        }
        let topics = match request.topics {
            Some(topics) => topics
                .into_iter()
                .map(|topic| fetch_topic(stored, topic, request.require_stable))
                .collect(),
            None => stored.map_or_else(Vec::new, |stored| {
                fetch_everything(stored, request.require_stable)
            }),
        };
        let response = FetchResponse {
            error: ErrorCode::None,
            topics,
        };
        turn.reply(to, Response::FetchOffsets(response));
    }
}

fn fetch_topic(
    stored: Option<&StoredGroup>,
    topic: TopicToFetch,
    require_stable: bool,
) -> FetchedTopic {
    let stored = stored.and_then(|stored| stored.topics.get(&topic.topic));
    let partitions = topic.partitions.iter().map(|&partition| {
        match stored.and_then(|partitions| partitions.get(&partition)) {
            Some(entry) => fetch_partition(partition, entry, topic.topic_id, require_stable),
            None => no_offset(partition, ErrorCode::None),
        }
    });
    FetchedTopic {
        partitions: partitions.collect(),
        topic_id: topic.topic_id,
        topic: topic.topic,
    }
}

/// Partitions with only a pending offset are listed if the answer has to be stable: with 88 the client asks again,
/// without a line it would start from nowhere (GR-73, GN-3).
fn fetch_everything(stored: &StoredGroup, require_stable: bool) -> Vec<FetchedTopic> {
    let topics = stored.topics.iter().map(|(topic, partitions)| {
        let partitions = partitions
            .iter()
            .filter(|(_, entry)| entry.committed.is_some() || require_stable)
            .map(|(&partition, entry)| {
                fetch_partition(partition, entry, TopicId::ZERO, require_stable)
            });
        FetchedTopic {
            topic: topic.clone(),
            topic_id: TopicId::ZERO,
            partitions: partitions.collect(),
        }
    });
    topics
        .filter(|topic| !topic.partitions.is_empty())
        .collect()
}

fn fetch_partition(
    partition: i32,
    entry: &PartitionOffsets,
    asked: TopicId,
    require_stable: bool,
) -> FetchedOffset {
    if require_stable && !entry.pending.is_empty() && !planted::is("o9") {
        return no_offset(partition, ErrorCode::UnstableOffsetCommit); // O-9, O-15
    }
    match &entry.committed {
        Some(committed) if !is_other_topic(asked, committed.value.topic_id) => FetchedOffset {
            partition,
            offset: committed.value.offset,
            leader_epoch: committed.value.leader_epoch,
            metadata: committed.value.metadata.clone(),
            error: ErrorCode::None,
        },
        Some(_) | None => no_offset(partition, ErrorCode::None),
    }
}

/// GR-75: the topic was deleted and made again since the commit.
pub(super) fn is_other_topic(asked: TopicId, stored: TopicId) -> bool {
    asked != TopicId::ZERO && stored != TopicId::ZERO && asked != stored
}

fn no_offset(partition: i32, error: ErrorCode) -> FetchedOffset {
    FetchedOffset {
        partition,
        offset: -1,
        leader_epoch: -1,
        metadata: Arc::default(),
        error,
    }
}
