//! OffsetFetch (groups.md section 7.2): one group up to version 7, several from version 8 on, topic ids in version 10.

use crate::api::Node;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_groups::{Command, FetchRequest, FetchedOffset, FetchedTopic, Response, TopicToFetch};
use tally_protocol::{ErrorCode, TopicId};
use uuid::Uuid;

/// The first version with a code at the top (GR-70) and with "all topics".
const WITH_TOP_LEVEL_ERROR: i16 = 2;
/// The first version that asks for stable offsets (KIP-447).
const WITH_REQUIRE_STABLE: i16 = 7;
/// The first version with several groups (KIP-709).
const BATCH: i16 = 8;
/// The first version in which a member may name itself (GR-72).
const WITH_MEMBER: i16 = 9;
/// The first version with topic ids in place of names.
const WITH_TOPIC_IDS: i16 = 10;

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let require_stable = version >= WITH_REQUIRE_STABLE && request.require_stable;
    if version < BATCH {
        return fetch_one(node, version, request, require_stable).await;
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    let mut seen = BTreeSet::new();
    for group in request.groups {
        // Named twice, answered once: a few bytes must not ask for all offsets of a group again and again.
        if seen.insert(group.group_id.clone()) {
            groups.push(fetch_group(node, version, group, require_stable).await);
        }
    }
    OffsetFetchResponse::default().with_groups(groups)
}

async fn fetch_one(
    node: &Node,
    version: i16,
    request: OffsetFetchRequest,
    require_stable: bool,
) -> OffsetFetchResponse {
    let topics = request.topics.map(|topics| {
        let wanted = topics.into_iter().map(|topic| TopicToFetch {
            topic: Arc::from(topic.name.as_str()),
            topic_id: TopicId::ZERO,
            partitions: topic.partition_indexes,
        });
        wanted.collect::<Vec<_>>()
    });
    let refused_topics = topics.clone().unwrap_or_default();
    match fetch(
        node,
        request.group_id.as_str(),
        topics,
        (require_stable, None),
    )
    .await
    {
        Ok(topics) => OffsetFetchResponse::default()
            .with_topics(topics.into_iter().map(answer_topic).collect()),
        Err(code) if version >= WITH_TOP_LEVEL_ERROR => {
            OffsetFetchResponse::default().with_error_code(code.code())
        }
        Err(code) => {
            let refused = refused_topics
                .into_iter()
                .map(|topic| answer_topic(refuse_topic(topic, code)));
            OffsetFetchResponse::default().with_topics(refused.collect())
        }
    }
}

async fn fetch_group(
    node: &Node,
    version: i16,
    request: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default();
    let mut unknown = Vec::new();
    let topics = request.topics.map(|topics| {
        let mut wanted = Vec::with_capacity(topics.len());
        for topic in topics {
            let topic_id = TopicId(topic.topic_id.into_bytes());
            let name = if version >= WITH_TOPIC_IDS {
                node.metadata
                    .topic_by_id(topic_id)
                    .map(|topic| Arc::clone(&topic.name))
            } else {
                Some(Arc::from(topic.name.as_str()))
            };
            let found = name.is_some();
            let topic = TopicToFetch {
                topic: name.unwrap_or_default(),
                topic_id,
                partitions: topic.partition_indexes,
            };
            if found {
                wanted.push(topic);
            } else {
                unknown.push(refuse_topic(topic, ErrorCode::UnknownTopicId));
            }
        }
        wanted
    });
    let everything = topics.is_none();
    let is_named =
        version >= WITH_MEMBER && (request.member_id.is_some() || request.member_epoch >= 0);
    let member = is_named.then(|| {
        let id = request.member_id.as_deref().unwrap_or_default();
        (Arc::from(id), request.member_epoch)
    });
    let group = request.group_id.clone();
    match fetch(node, group.as_str(), topics, (require_stable, member)).await {
        Ok(mut topics) => {
            if everything && version >= WITH_TOPIC_IDS {
                topics.retain_mut(|topic| find_id(node, topic)); // GR-77
            }
            topics.append(&mut unknown);
            let topics = topics.into_iter().map(answer_topic_of_group).collect();
            response.with_group_id(group).with_topics(topics)
        }
        Err(code) => response.with_group_id(group).with_error_code(code.code()),
    }
}

/// Gives a topic that was fetched by name its id; false if there is no such topic any more.
fn find_id(node: &Node, topic: &mut FetchedTopic) -> bool {
    match node.metadata.topic(&topic.topic) {
        Some(found) => {
            topic.topic_id = found.id;
            true
        }
        None => false,
    }
}

async fn fetch(
    node: &Node,
    group: &str,
    topics: Option<Vec<TopicToFetch>>,
    (require_stable, member): (bool, Option<(Arc<str>, i32)>),
) -> Result<Vec<FetchedTopic>, ErrorCode> {
    let request = FetchRequest {
        group: Arc::from(group),
        topics: topics.map(each_once),
        require_stable,
        member,
    };
    match node.group(group, Command::FetchOffsets(request), 0).await {
        Ok(Response::FetchOffsets(response)) if response.error.is_none() => Ok(response.topics),
        Ok(Response::FetchOffsets(response)) => Err(response.error),
        Ok(_) => Err(ErrorCode::UnknownServerError),
        // GR-10: consumers before 3.9 do not look for the coordinator again on 15 here.
        Err(ErrorCode::CoordinatorNotAvailable) => Err(ErrorCode::NotCoordinator),
        Err(code) => Err(code),
    }
}

/// Every partition once: each mention could bring 4 KiB of metadata.
fn each_once(mut topics: Vec<TopicToFetch>) -> Vec<TopicToFetch> {
    let mut seen = BTreeSet::new();
    for topic in &mut topics {
        let name = Arc::clone(&topic.topic);
        topic
            .partitions
            .retain(|partition| seen.insert((Arc::clone(&name), *partition)));
    }
    topics
}

fn refuse_topic(topic: TopicToFetch, error: ErrorCode) -> FetchedTopic {
    let refused = topic.partitions.into_iter().map(|partition| FetchedOffset {
        partition,
        offset: -1,
        leader_epoch: -1,
        metadata: Arc::default(),
        error,
    });
    FetchedTopic {
        topic: topic.topic,
        topic_id: topic.topic_id,
        partitions: refused.collect(),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn answer_topic(topic: FetchedTopic) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.iter().map(|offset| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(offset.partition)
            .with_committed_offset(offset.offset)
            .with_committed_leader_epoch(offset.leader_epoch)
            .with_metadata(Some(text(&offset.metadata)))
            .with_error_code(offset.error.code())
    });
    OffsetFetchResponseTopic::default()
        .with_name(TopicName(text(&topic.topic)))
        .with_partitions(partitions.collect())
}

fn answer_topic_of_group(topic: FetchedTopic) -> OffsetFetchResponseTopics {
    let partitions = topic.partitions.iter().map(|offset| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(offset.partition)
            .with_committed_offset(offset.offset)
            .with_committed_leader_epoch(offset.leader_epoch)
            .with_metadata(Some(text(&offset.metadata)))
            .with_error_code(offset.error.code())
    });
    OffsetFetchResponseTopics::default()
        .with_name(TopicName(text(&topic.topic)))
        .with_topic_id(Uuid::from_bytes(topic.topic_id.0))
        .with_partitions(partitions.collect())
}
