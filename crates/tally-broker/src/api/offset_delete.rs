//! OffsetDelete (groups.md section 7.4).

use crate::api::Node;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use std::collections::BTreeMap;
use std::sync::Arc;
use tally_groups::{Command, DeleteOffsetsRequest, Response};
use tally_protocol::ErrorCode;

/// Bytes of a tombstone besides the names of group and topic, generously.
const TOMBSTONE_BYTES: usize = 64;

/// A partition by its topic's name.
type Named = (Arc<str>, i32);

pub(crate) async fn handle(node: &Node, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut response = OffsetDeleteResponse::default();
    let codes = match delete(node, &request).await {
        Ok(codes) => codes,
        Err(code) => {
            response.error_code = code.code();
            return response;
        }
    };
    for topic in &request.topics {
        let mut result = OffsetDeleteResponseTopic::default();
        result.name = topic.name.clone();
        let name: Arc<str> = Arc::from(topic.name.as_str());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let code = codes.get(&(Arc::clone(&name), index)).copied();
            let row = OffsetDeleteResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code.unwrap_or(ErrorCode::UnknownTopicOrPartition).code());
            result.partitions.push(row);
        }
        response.topics.push(result);
    }
    response
}

/// What became of each partition that exists. The group is asked even if none does: its refusal comes first.
async fn delete(
    node: &Node,
    request: &OffsetDeleteRequest,
) -> Result<BTreeMap<Named, ErrorCode>, ErrorCode> {
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    let mut partitions: Vec<Named> = Vec::new();
    for topic in &request.topics {
        let Some(known) = node.metadata.topic(&topic.name) else {
            continue;
        };
        let indexes = topic.partitions.iter().map(|one| one.partition_index);
        let existing = indexes.filter(|index| known.partition_id(*index).is_some());
        partitions.extend(existing.map(|index| (Arc::clone(&known.name), index)));
    }
    partitions.sort_unstable();
    partitions.dedup();
    let size_bytes = partitions
        .iter()
        .map(|(topic, _)| TOMBSTONE_BYTES + group.len() + topic.len())
        .sum();
    let command = Command::DeleteOffsets(DeleteOffsetsRequest {
        group: Arc::clone(&group),
        partitions: partitions.clone(),
    });
    match node.group(&group, command, size_bytes).await? {
        Response::DeleteOffsets(deleted) if deleted.error.is_none() => {
            Ok(partitions.into_iter().zip(deleted.partitions).collect())
        }
        Response::DeleteOffsets(deleted) => Err(deleted.error),
        _ => Err(ErrorCode::UnknownServerError),
    }
}
