//! OffsetForLeaderEpoch (LR-82, LR-83).

use crate::api::Node;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use tally_protocol::{ErrorCode, LeaderEpoch};
use tally_shard::{EpochEnd, ShardMessage, ShardReply};

pub(crate) async fn handle(
    node: &Node,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in &request.topics {
        let mut result = OffsetForLeaderTopicResult::default();
        result.topic = topic.topic.clone();
        for partition in &topic.partitions {
            let mut row = EpochEndOffset::default();
            row.partition = partition.partition;
            row.leader_epoch = -1;
            row.end_offset = -1;
            match one(node, topic.topic.as_str(), partition).await {
                Ok(end) => {
                    row.leader_epoch = end.epoch.0;
                    row.end_offset = end.end.0;
                }
                Err(code) => row.error_code = code.code(),
            }
            result.partitions.push(row);
        }
        response.topics.push(result);
    }
    response
}

async fn one(
    node: &Node,
    topic: &str,
    partition: &OffsetForLeaderPartition,
) -> Result<EpochEnd, ErrorCode> {
    let id = node
        .metadata
        .partition_id(topic, partition.partition)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let message = |to| ShardMessage::FindEpochEnd {
        epoch: LeaderEpoch(partition.leader_epoch),
        current_leader_epoch: LeaderEpoch(partition.current_leader_epoch),
        to,
    };
    match node.ask(id, message).await {
        Some(ShardReply::EpochEnd(end)) => end,
        _ => Err(ErrorCode::NotLeaderOrFollower),
    }
}
