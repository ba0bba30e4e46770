//! DescribeTopicPartitions (LR-138): topics by name, in pages.

use crate::api::Node;
use crate::api::topics::{TOPIC_OPERATIONS, topic_name};
use crate::metadata::{Topic, check_topic_name};
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_protocol::ErrorCode;
use uuid::Uuid;

/// Most partitions in one answer: the default of `max.request.partition.size.limit`.
const PARTITIONS_MAX: i32 = 2000;

pub(crate) fn handle(
    node: &Node,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let mut response = DescribeTopicPartitionsResponse::default().with_next_cursor(None);
    let asked: BTreeSet<Arc<str>> = request
        .topics
        .iter()
        .map(|topic| Arc::from(topic.name.as_str()))
        .collect();
    let cursor = request.cursor.as_ref();
    let (from, first) = cursor.map_or(("", 0), |cursor| {
        (cursor.topic_name.as_str(), cursor.partition_index)
    });
    let is_listed = cursor.is_none() || asked.is_empty() || asked.contains(from);
    if first < 0 || !is_listed {
        let rows = asked.iter();
        response.topics = rows
            .map(|name| refused(name, ErrorCode::InvalidRequest))
            .collect();
        return response;
    }
    let names = if asked.is_empty() {
        let topics = node.metadata.topics();
        topics.iter().map(|topic| Arc::clone(&topic.name)).collect()
    } else {
        asked
    };
    let mut left = request.response_partition_limit.clamp(1, PARTITIONS_MAX);
    for name in names.iter().filter(|name| &***name >= from) {
        let first = if &**name == from { first } else { 0 };
        if left == 0 {
            response.next_cursor = Some(cursor_at(name, first));
            break;
        }
        let Some(topic) = node.metadata.topic(name) else {
            // Of a list of all, one that has gone since is not there.
            if !request.topics.is_empty() {
                let row = refused(name, unknown(name));
                let row = row.with_topic_authorized_operations(TOPIC_OPERATIONS);
                response.topics.push(row);
            }
            continue;
        };
        let end = topic.partition_count.min(first.saturating_add(left));
        response.topics.push(described(node, &topic, first..end));
        left -= (end - first).max(0);
        if end < topic.partition_count {
            response.next_cursor = Some(cursor_at(name, end));
            break;
        }
    }
    response
}

fn cursor_at(name: &str, partition: i32) -> Cursor {
    Cursor::default()
        .with_topic_name(topic_name(name))
        .with_partition_index(partition)
}

fn unknown(name: &str) -> ErrorCode {
    match check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    }
}

fn refused(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_error_code(code.code())
}

fn described(
    node: &Node,
    topic: &Topic,
    partitions: std::ops::Range<i32>,
) -> DescribeTopicPartitionsResponseTopic {
    let me = BrokerId(node.config.node_id);
    let rows = partitions.map(|index| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(me)
            .with_leader_epoch(topic.leader_epoch().0)
            .with_replica_nodes(vec![me])
            .with_isr_nodes(vec![me])
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(Uuid::from_bytes(topic.id.0))
        .with_is_internal(topic.internal)
        .with_partitions(rows.collect())
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}
