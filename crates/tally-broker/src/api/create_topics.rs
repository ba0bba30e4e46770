//! CreateTopics (log-and-fetch.md 11.2): each topic stands for itself, and all are written down at once.

use crate::api::Node;
use crate::api::altering::warn_of_what_does_nothing;
use crate::api::topics::{self, text};
use crate::config::{Overrides, TopicConfig, describe_topic};
use crate::metadata::{CreateTopicError, NewTopic, Topic};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_protocol::ErrorCode;
use uuid::Uuid;

/// New partitions of one request, at most.
const NEW_PARTITIONS_MAX: i64 = 10_000;

/// What goes wrong, with the sentence that says so.
type Refusal = (ErrorCode, String);

/// What a topic was or would be made as.
struct Made {
    partition_count: i32,
    overrides: Overrides,
    topic: Option<Arc<Topic>>,
}

pub(crate) fn handle(
    node: &Node,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&str> = request
        .topics
        .iter()
        .map(|topic| topic.name.as_str())
        .filter(|name| !seen.insert(*name))
        .collect();
    let partitions: i64 = request
        .topics
        .iter()
        .map(|topic| i64::from(partition_count(node, topic).max(0)))
        .sum();
    // A name is answered once, however often it was asked for: clients take the answers for a map.
    let mut answered = BTreeSet::new();
    let planned: Vec<(&CreatableTopic, Result<NewTopic, Refusal>)> = request
        .topics
        .iter()
        .filter(|topic| answered.insert(topic.name.as_str()))
        .map(|topic| {
            let outcome = if twice.contains(topic.name.as_str()) {
                Err((ErrorCode::InvalidRequest, topics::named_twice(&topic.name)))
            } else if partitions > NEW_PARTITIONS_MAX {
                let message = format!(
                    "{partitions} new partitions in one request, allowed are {NEW_PARTITIONS_MAX}: create fewer at a time"
                );
                Err((ErrorCode::PolicyViolation, message))
            } else {
                plan(node, topic)
            };
            (topic, outcome)
        })
        .collect();
    let mut made = Vec::new();
    if !request.validate_only {
        let new = planned.iter().filter_map(|(_, plan)| plan.as_ref().ok());
        made = topics::create_all(node, new.cloned().collect());
        made.iter()
            .flatten()
            .for_each(|topic| warn_of_what_does_nothing(topic));
    }
    let mut made = made.into_iter();
    let results = planned
        .into_iter()
        .map(|(topic, plan)| {
            let outcome = plan.and_then(|new| Made::of(new, made.next()));
            result(node, version, topic, outcome)
        })
        .collect();
    CreateTopicsResponse::default().with_topics(results)
}

impl Made {
    /// `created`: nothing if the topic was only to be looked at.
    fn of(
        new: NewTopic,
        created: Option<Result<Arc<Topic>, CreateTopicError>>,
    ) -> Result<Made, Refusal> {
        let topic = created.transpose();
        Ok(Made {
            partition_count: new.partition_count,
            overrides: new.overrides,
            topic: topic.map_err(|error| (error.code(), error.to_string()))?,
        })
    }
}

/// How many partitions the topic gets: its own number, its assignments', or the broker's default (LR-140).
fn partition_count(node: &Node, topic: &CreatableTopic) -> i32 {
    if !topic.assignments.is_empty() {
        i32::try_from(topic.assignments.len()).unwrap_or(i32::MAX)
    } else if topic.num_partitions == -1 {
        node.config.num_partitions
    } else {
        topic.num_partitions
    }
}

/// The topic that was asked for, if it may be.
fn plan(node: &Node, wanted: &CreatableTopic) -> Result<NewTopic, Refusal> {
    let name = wanted.name.as_str();
    if name == "__cluster_metadata" {
        return Err((
            ErrorCode::InvalidRequest,
            format!("the name {name} is reserved; choose another name"),
        ));
    }
    node.metadata
        .check_new_name(name)
        .map_err(|error| (error.code(), error.to_string()))?;
    let settings = wanted
        .configs
        .iter()
        .map(|config| (config.name.as_str(), config.value.as_deref()));
    let (_, overrides) = TopicConfig::parse(&node.metadata.config().values, settings)
        .map_err(|error| (ErrorCode::InvalidConfig, error.to_string()))?;
    let partition_count = partition_count(node, wanted);
    if wanted.assignments.is_empty() {
        check_counts(node, wanted, partition_count)?;
    } else {
        check_assignments(node, wanted)?;
    }
    Ok(NewTopic {
        name: name.to_owned(),
        partition_count,
        overrides,
    })
}

/// In Kafka's order: a factor that is none, a count that is none, a factor that there are too few brokers for.
fn check_counts(node: &Node, wanted: &CreatableTopic, partition_count: i32) -> Result<(), Refusal> {
    let (name, replicas) = (wanted.name.as_str(), wanted.replication_factor);
    let too_many = replicas > 1 && !node.config.clamp_replication_factor;
    let is_factor = replicas == -1 || replicas >= 1;
    if is_factor && partition_count < 1 {
        let message = format!(
            "topic {name}: {} partitions asked; give 1 or more, or -1 for the broker's default",
            wanted.num_partitions
        );
        return Err((ErrorCode::InvalidPartitions, message));
    }
    if !is_factor || too_many {
        let message = format!(
            "topic {name}: replication factor {replicas} asked, and there is 1 broker; give 1, or -1 for the broker's default"
        );
        return Err((ErrorCode::InvalidReplicationFactor, message));
    }
    Ok(())
}

fn check_assignments(node: &Node, wanted: &CreatableTopic) -> Result<(), Refusal> {
    if wanted.num_partitions != -1 || wanted.replication_factor != -1 {
        let message = format!(
            "topic {}: with assignments the number of partitions and the replication factor must be -1",
            wanted.name.as_str()
        );
        return Err((ErrorCode::InvalidRequest, message));
    }
    let mut indexes: Vec<i32> = wanted
        .assignments
        .iter()
        .map(|assignment| assignment.partition_index)
        .collect();
    indexes.sort_unstable();
    let contiguous = indexes
        .iter()
        .zip(0..)
        .all(|(index, expected)| *index == expected);
    let on_me = wanted
        .assignments
        .iter()
        .all(|assignment| matches!(assignment.broker_ids.as_slice(), [id] if id.0 == node.config.node_id));
    if contiguous && on_me {
        return Ok(());
    }
    let message = format!(
        "topic {}: assignments must name partitions 0, 1, ... once each, on broker {}",
        wanted.name.as_str(),
        node.config.node_id
    );
    Err((ErrorCode::InvalidReplicaAssignment, message))
}

fn result(
    node: &Node,
    version: i16,
    wanted: &CreatableTopic,
    outcome: Result<Made, Refusal>,
) -> CreatableTopicResult {
    let mut result = CreatableTopicResult::default();
    result.name = wanted.name.clone();
    result.error_message = None;
    match outcome {
        Ok(made) => {
            result.topic_id = made
                .topic
                .map_or(Uuid::nil(), |topic| Uuid::from_bytes(topic.id.0));
            if version >= 5 {
                result.num_partitions = made.partition_count;
                result.replication_factor = 1;
                result.configs = Some(configs(node, &made.overrides));
            }
        }
        Err((code, message)) => {
            result.error_code = code.code();
            result.error_message = Some(text(&message));
            if version >= 5 {
                result.num_partitions = -1;
                result.replication_factor = -1;
                result.configs = None;
            }
        }
    }
    result
}

/// All effective settings, by name (LR-141).
fn configs(node: &Node, overrides: &Overrides) -> Vec<CreatableTopicConfigs> {
    describe_topic(&node.metadata.config(), overrides)
        .into_iter()
        .map(|entry| {
            CreatableTopicConfigs::default()
                .with_name(text(&entry.name))
                .with_value(entry.value.as_deref().map(text))
                .with_read_only(entry.read_only)
                .with_config_source(entry.source.code())
                .with_is_sensitive(entry.sensitive)
        })
        .collect()
}
