//! CreatePartitions (log-and-fetch.md 11.3, LN-9): each topic stands for itself.

use crate::api::Node;
use crate::api::topics::{self, text};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use std::collections::BTreeSet;
use tally_protocol::ErrorCode;

/// What goes wrong, with the sentence that says so.
type Refusal = (ErrorCode, String);

pub(crate) fn handle(node: &Node, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut seen = BTreeSet::new();
    let names = request.topics.iter().map(|topic| topic.name.as_str());
    let twice: BTreeSet<&str> = names.filter(|name| !seen.insert(*name)).collect();
    // A name is answered once, however often it was asked for: clients take the answers for a map.
    let mut answered = BTreeSet::new();
    let topics = request.topics.iter();
    let topics = topics.filter(|topic| answered.insert(topic.name.as_str()));
    let results = topics.map(|topic| {
        let outcome = if twice.contains(topic.name.as_str()) {
            Err((ErrorCode::InvalidRequest, topics::named_twice(&topic.name)))
        } else {
            one(node, topic, request.validate_only)
        };
        let mut result = CreatePartitionsTopicResult::default();
        result.name = topic.name.clone();
        result.error_message = None;
        if let Err((code, message)) = outcome {
            result.error_code = code.code();
            result.error_message = Some(text(&message));
        }
        result
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}

fn one(node: &Node, wanted: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refusal> {
    let count_before = node
        .metadata
        .check_growth(&wanted.name, wanted.count)
        .map_err(|error| (error.code(), error.to_string()))?;
    if let Some(assignments) = &wanted.assignments {
        let replicas = assignments.iter().map(|one| one.broker_ids.as_slice());
        let added = i64::from(wanted.count) - i64::from(count_before);
        let sound = i64::try_from(assignments.len()) == Ok(added)
            && replicas
                .into_iter()
                .all(|ids| matches!(ids, [id] if id.0 == node.config.node_id));
        if !sound {
            let message = format!(
                "topic {}: {added} assignments are needed, one for each new partition, each broker {} alone",
                wanted.name.as_str(),
                node.config.node_id
            );
            return Err((ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    if validate_only {
        return Ok(());
    }
    topics::grow(node, &wanted.name, wanted.count)
        .map_err(|error| (error.code(), error.to_string()))
}
