//! ElectLeaders (log-and-fetch.md 11.6): every partition has its only replica as leader already.

use crate::api::Node;
use crate::api::topics::{text, topic_name};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use tally_protocol::ErrorCode;

/// Elections of the preferred replica (0) and of any replica (1).
const ELECTION_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

pub(crate) fn handle(
    node: &Node,
    version: i16,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let mut response = ElectLeadersResponse::default();
    // Version 0 knows the preferred replica only.
    let is_type = version == 0 || ELECTION_TYPES.contains(&request.election_type);
    if !is_type {
        response.error_code = ErrorCode::InvalidRequest.code();
    }
    // Null asks for the partitions whose leader is not right: there is none in any topic.
    if is_type && request.topic_partitions.is_none() {
        let topics = node.metadata.topics();
        let none = topics
            .iter()
            .map(|topic| ReplicaElectionResult::default().with_topic(topic_name(&topic.name)));
        response.replica_election_results = none.collect();
    }
    for topic in request.topic_partitions.iter().flatten() {
        let rows = topic.partitions.iter().map(|&index| {
            // The row says of which partition; a name in each sentence would make a small request a large answer.
            let (code, message) = match node.metadata.partition_id(&topic.topic, index) {
                _ if !is_type => (
                    ErrorCode::InvalidRequest,
                    format!(
                        "election type {} asked; there are 0 (the preferred replica) and 1 (any)",
                        request.election_type
                    ),
                ),
                Some(_) => (
                    ErrorCode::ElectionNotNeeded,
                    "the only replica is the leader already".to_owned(),
                ),
                None => (
                    ErrorCode::UnknownTopicOrPartition,
                    "there is no such partition".to_owned(),
                ),
            };
            PartitionResult::default()
                .with_partition_id(index)
                .with_error_code(code.code())
                .with_error_message(Some(text(&message)))
        });
        let result = ReplicaElectionResult::default()
            .with_topic(topic.topic.clone())
            .with_partition_result(rows.collect());
        response.replica_election_results.push(result);
    }
    response
}
