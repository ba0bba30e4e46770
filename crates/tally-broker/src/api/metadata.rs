//! Metadata (log-and-fetch.md section 10): this broker, its topics, and automatic creation.

use crate::api::Node;
use crate::api::topics::{
    self, CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS, text, topic_name,
};
use crate::metadata::{CreateTopicError, NewTopic, Topic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_protocol::{ErrorCode, TopicId};
use uuid::Uuid;

/// Topics that one request may make: each is a change of the metadata, synced. For the others the client asks again, as it
/// does for a topic that Kafka is still making (5).
const CREATED_MAX: usize = 100;

pub(crate) fn handle(node: &Node, version: i16, request: MetadataRequest) -> MetadataResponse {
    let mut response = MetadataResponse::default();
    response.brokers = vec![
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(node.config.node_id))
            .with_host(text(&node.advertised.host))
            .with_port(i32::from(node.advertised.port)),
    ];
    response.cluster_id = Some(text(node.metadata.cluster_id()));
    response.controller_id = BrokerId(node.config.node_id);
    response.cluster_authorized_operations =
        if (8..=10).contains(&version) && request.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            OPERATIONS_NOT_ASKED
        };
    let operations = if version >= 8 && request.include_topic_authorized_operations {
        TOPIC_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    let describe =
        |topic: &Topic| described(node, topic).with_topic_authorized_operations(operations);
    response.topics = match request.topics {
        // LR-130: null means all; in version 0 so does an empty list.
        None => node
            .metadata
            .topics()
            .iter()
            .map(|topic| describe(topic))
            .collect(),
        Some(topics) if topics.is_empty() && version == 0 => node
            .metadata
            .topics()
            .iter()
            .map(|topic| describe(topic))
            .collect(),
        Some(topics) if version < 12 && topics.iter().any(asks_by_id) => topics
            .iter()
            .map(|topic| refused(topic, ErrorCode::InvalidRequest))
            .collect(),
        Some(topics) => {
            let may_create = node.config.auto_create_topics_enable
                && (version < 4 || request.allow_auto_topic_creation);
            // A topic that is named twice is answered once: a few bytes must not ask for megabytes again and again.
            let mut seen = BTreeSet::new();
            let mut may_create = may_create.then_some(CREATED_MAX);
            topics
                .iter()
                .filter(|topic| seen.insert(mentioned(topic)))
                .map(|topic| match find(node, topic, &mut may_create) {
                    Ok(found) => describe(&found),
                    Err(code) => {
                        refused(topic, code).with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
                    }
                })
                .collect()
        }
    };
    response
}

/// What a topic is found by: an id is enough, whatever name stands beside it.
fn mentioned(topic: &MetadataRequestTopic) -> (Option<&str>, Uuid) {
    let name = topic.name.as_deref().map(|name| name.as_str());
    (name.filter(|_| topic.topic_id.is_nil()), topic.topic_id)
}

fn asks_by_id(topic: &MetadataRequestTopic) -> bool {
    topic.name.is_none() || !topic.topic_id.is_nil()
}

/// The topic asked for, made if that is allowed (LN-7: at once, not in the background).
fn find(
    node: &Node,
    wanted: &MetadataRequestTopic,
    may_create: &mut Option<usize>,
) -> Result<Arc<Topic>, ErrorCode> {
    // Java's consumers send an empty name with an id, others none.
    let name = match &wanted.name {
        Some(name) if wanted.topic_id.is_nil() => name.as_str(),
        Some(_) | None => {
            return node
                .metadata
                .topic_by_id(TopicId(wanted.topic_id.into_bytes()))
                .ok_or(ErrorCode::UnknownTopicId);
        }
    };
    if let Some(topic) = node.metadata.topic(name) {
        return Ok(topic);
    }
    if let Err(CreateTopicError::Name(_)) = node.metadata.check_new_name(name) {
        return Err(ErrorCode::InvalidTopicException);
    }
    match may_create {
        None => return Err(ErrorCode::UnknownTopicOrPartition),
        Some(0) => return Err(ErrorCode::LeaderNotAvailable),
        Some(left) => *left -= 1,
    }
    let new = NewTopic {
        name: name.to_owned(),
        partition_count: node.config.num_partitions,
        overrides: Default::default(),
    };
    match topics::create(node, new) {
        Ok(topic) => Ok(topic),
        Err(CreateTopicError::Exists(_)) => node
            .metadata
            .topic(name)
            .ok_or(ErrorCode::UnknownTopicOrPartition),
        Err(error) => {
            tracing::warn!(topic = name, %error, "topic not created automatically");
            Err(error.code())
        }
    }
}

fn described(node: &Node, topic: &Topic) -> MetadataResponseTopic {
    let me = BrokerId(node.config.node_id);
    let partitions = (0..topic.partition_count)
        .map(|index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(me)
                .with_leader_epoch(topic.leader_epoch().0)
                .with_replica_nodes(vec![me])
                .with_isr_nodes(vec![me])
        })
        .collect();
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(Uuid::from_bytes(topic.id.0))
        .with_is_internal(topic.internal)
        .with_partitions(partitions)
}

fn refused(wanted: &MetadataRequestTopic, code: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(
            wanted
                .name
                .clone()
                .filter(|_| wanted.topic_id.is_nil() || code == ErrorCode::InvalidRequest),
        )
        .with_topic_id(wanted.topic_id)
        .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
}
