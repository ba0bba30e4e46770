//! OffsetCommit (groups.md section 7.1).
//!
//! Partitions that are not there are answered here and the rest asks the group; with nothing left the group is not asked
//! at all. Topics keep the request's order (GR-68).

use crate::api::Node;
use crate::metadata::Topic;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use std::sync::Arc;
use tally_groups::{AbsentGroup, Command, CommitRequest, OffsetToCommit, Response};
use tally_protocol::{ErrorCode, TopicId};

/// The first version that tells an absent group from a wrong generation.
const WITH_GROUP_NOT_FOUND: i16 = 9;
/// The first version with topic ids in place of names.
const WITH_TOPIC_IDS: i16 = 10;
/// Versions up to this one carry a retention time.
const LAST_WITH_RETENTION: i16 = 4;

/// Bytes that one offset's record takes besides its strings, at most.
const RECORD_BYTES_MAX: usize = 128;

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let topics: Vec<Option<Arc<Topic>>> = request
        .topics
        .iter()
        .map(|topic| find_topic(node, version, topic))
        .collect();
    let offsets = offsets(&request, &topics);
    let count = offsets.len();
    let codes = if offsets.is_empty() {
        Vec::new()
    } else {
        commit(node, version, &request, offsets)
            .await
            .unwrap_or_else(|code| vec![code; count])
    };
    let mut codes = codes.into_iter();
    let unknown = if version >= WITH_TOPIC_IDS {
        ErrorCode::UnknownTopicId
    } else {
        ErrorCode::UnknownTopicOrPartition
    };
    let mut answered = Vec::with_capacity(request.topics.len());
    for (topic, found) in request.topics.into_iter().zip(&topics) {
        let partitions = topic.partitions.iter().map(|partition| {
            let code = match found {
                None => unknown,
                Some(found) if !has_partition(found, partition.partition_index) => {
                    ErrorCode::UnknownTopicOrPartition
                }
                Some(_) => codes.next().unwrap_or(ErrorCode::UnknownServerError),
            };
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code.code())
        });
        let result = OffsetCommitResponseTopic::default().with_partitions(partitions.collect());
        answered.push(result.with_topic_id(topic.topic_id).with_name(topic.name));
    }
    OffsetCommitResponse::default().with_topics(answered)
}

fn find_topic(node: &Node, version: i16, topic: &OffsetCommitRequestTopic) -> Option<Arc<Topic>> {
    if version >= WITH_TOPIC_IDS {
        node.metadata
            .topic_by_id(TopicId(topic.topic_id.into_bytes()))
    } else {
        node.metadata.topic(topic.name.as_str())
    }
}

fn has_partition(topic: &Topic, partition: i32) -> bool {
    (0..topic.partition_count).contains(&partition)
}

/// What of the request is to be committed, in its order.
fn offsets(request: &OffsetCommitRequest, topics: &[Option<Arc<Topic>>]) -> Vec<OffsetToCommit> {
    let mut offsets = Vec::new();
    for (asked, found) in request.topics.iter().zip(topics) {
        let Some(found) = found else { continue };
        for partition in asked
            .partitions
            .iter()
            .filter(|partition| has_partition(found, partition.partition_index))
        {
            offsets.push(OffsetToCommit {
                topic: Arc::clone(&found.name),
                topic_id: found.id,
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition
                    .committed_metadata
                    .as_deref()
                    .map_or_else(Arc::default, Arc::from),
            });
        }
    }
    offsets
}

async fn commit(
    node: &Node,
    version: i16,
    request: &OffsetCommitRequest,
    offsets: Vec<OffsetToCommit>,
) -> Result<Vec<ErrorCode>, ErrorCode> {
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    node.secure_input(
        offsets
            .iter()
            .map(|offset| (&*offset.topic, offset.partition, offset.offset)),
    );
    let size_bytes = offsets
        .iter()
        .map(|offset| RECORD_BYTES_MAX + group.len() + offset.topic.len() + offset.metadata.len())
        .sum();
    let command = Command::CommitOffsets(CommitRequest {
        group: Arc::clone(&group),
        member_id: Arc::from(request.member_id.as_str()),
        instance_id: request.group_instance_id.as_deref().map(Arc::from),
        generation: request.generation_id_or_member_epoch,
        on_absent_group: if version >= WITH_GROUP_NOT_FOUND {
            AbsentGroup::GroupIdNotFound
        } else {
            AbsentGroup::IllegalGeneration
        },
        // GR-66: -1 is the broker's retention.
        retention_ms: Some(request.retention_time_ms)
            .filter(|&retention_ms| version <= LAST_WITH_RETENTION && retention_ms != -1),
        offsets,
    });
    match node.group(&group, command, size_bytes).await? {
        Response::CommitOffsets(codes) => Ok(codes),
        _ => Err(ErrorCode::UnknownServerError),
    }
}
