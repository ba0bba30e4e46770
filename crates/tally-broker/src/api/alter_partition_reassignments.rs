//! AlterPartitionReassignments (log-and-fetch.md 11.6): a partition may be where it is, and nowhere else.

use crate::api::Node;
use crate::api::topics::text;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};
use tally_protocol::ErrorCode;

pub(crate) fn handle(
    node: &Node,
    version: i16,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let mut response = AlterPartitionReassignmentsResponse::default().with_error_message(None);
    if version >= 1 {
        response.allow_replication_factor_change = request.allow_replication_factor_change;
    }
    for topic in &request.topics {
        let rows = topic.partitions.iter().map(|partition| {
            let mut row = ReassignablePartitionResponse::default();
            row.partition_index = partition.partition_index;
            row.error_message = None;
            if let Err((code, message)) = check(node, &topic.name, partition) {
                row.error_code = code.code();
                row.error_message = Some(text(&message));
            }
            row
        });
        let result = ReassignableTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(rows.collect());
        response.responses.push(result);
    }
    response
}

/// A factor other than 1 (38) can't come up: it needs a second broker, which is unknown (39).
fn check(
    node: &Node,
    topic: &str,
    wanted: &ReassignablePartition,
) -> Result<(), (ErrorCode, String)> {
    // The row says of which partition; a name in each sentence would make a small request a large answer.
    let index = wanted.partition_index;
    if node.metadata.partition_id(topic, index).is_none() {
        let message = "there is no such partition".to_owned();
        return Err((ErrorCode::UnknownTopicOrPartition, message));
    }
    match wanted.replicas.as_deref() {
        None => {
            let message = "it is not being reassigned: there is nothing to cancel".to_owned();
            Err((ErrorCode::NoReassignmentInProgress, message))
        }
        Some([id]) if id.0 == node.config.node_id => Ok(()),
        Some(_) => {
            let message = format!(
                "the replicas must be broker {} alone, the only one there is",
                node.config.node_id
            );
            Err((ErrorCode::InvalidReplicaAssignment, message))
        }
    }
}
