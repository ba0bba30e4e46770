//! DeleteRecords (log-and-fetch.md section 5, C-1).

use crate::api::{INTERNAL_TOPICS, Node};
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use tally_protocol::{ErrorCode, Offset};
use tally_shard::{ShardMessage, ShardReply};

pub(crate) async fn handle(node: &Node, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut response = DeleteRecordsResponse::default();
    for topic in &request.topics {
        let mut result = DeleteRecordsTopicResult::default();
        result.name = topic.name.clone();
        for partition in &topic.partitions {
            let mut row = DeleteRecordsPartitionResult::default();
            row.partition_index = partition.partition_index;
            row.low_watermark = -1;
            match one(node, topic.name.as_str(), partition).await {
                Ok(low_watermark) => row.low_watermark = low_watermark.0,
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
    name: &str,
    partition: &DeleteRecordsPartition,
) -> Result<Offset, ErrorCode> {
    let topic = node
        .metadata
        .topic(name)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let id = topic
        .partition_id(partition.partition_index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if INTERNAL_TOPICS.contains(&name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let policy = topic.configs.cleanup_policy;
    if policy.compact && !policy.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let before = match partition.offset {
        -1 => None,
        offset => Some(Offset(offset)),
    };
    match node
        .ask(id, |to| ShardMessage::DeleteRecords { before, to })
        .await
    {
        Some(ShardReply::Deleted(log_start)) => log_start,
        _ => Err(ErrorCode::NotLeaderOrFollower),
    }
}
