//! Produce, versions 3 to 13.

use crate::{body_of, text, unknown_tags};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_request as theirs;
use kafka_protocol::messages::produce_response as their_answers;
use kafka_protocol::messages::{TopicName, TransactionalId};
use kafka_protocol::protocol::{Decodable, Encodable};
use std::borrow::Cow;
use std::sync::Arc;
use tally_protocol::request::{ProducePartition, ProduceRequest, ProduceTopic};
use tally_protocol::response::{
    CurrentLeader, NodeEndpoint, ProducePartitionResponse, ProduceResponse, ProduceTopicResponse,
    encode_produce,
};
use tally_protocol::{ErrorCode, LeaderEpoch, Offset, TopicId};

const ID: [u8; 16] = [7; 16];

fn their_request(version: i16) -> theirs::ProduceRequest {
    let mut request = theirs::ProduceRequest::default();
    request.transactional_id = Some(TransactionalId(text("pay")));
    request.acks = -1;
    request.timeout_ms = 1234;
    for (name, count) in [("first", 3), ("second", 0), ("third", 1)] {
        let mut topic = theirs::TopicProduceData::default();
        if version >= 13 {
            topic.topic_id = uuid::Uuid::from_bytes(ID);
        } else {
            topic.name = TopicName(text(name));
        }
        for index in 0..count {
            let mut partition = theirs::PartitionProduceData::default();
            partition.index = index;
            partition.records = match index {
                0 => Some(Bytes::from_static(&[5; 300])),
                1 => None,
                _ => Some(Bytes::new()),
            };
            if version >= 9 {
                partition.unknown_tagged_fields = unknown_tags();
            }
            topic.partition_data.push(partition);
        }
        if version >= 9 {
            topic.unknown_tagged_fields = unknown_tags();
        }
        request.topic_data.push(topic);
    }
    if version >= 9 {
        request.unknown_tagged_fields = unknown_tags();
    }
    request
}

/// What `request` says, in our words.
fn expected(version: i16, request: &theirs::ProduceRequest) -> ProduceRequest {
    let topics = request.topic_data.iter().map(|topic| ProduceTopic {
        name: (version < 13).then(|| Arc::from(topic.name.0.as_str())),
        id: TopicId(topic.topic_id.into_bytes()),
        partitions: topic
            .partition_data
            .iter()
            .map(|partition| ProducePartition {
                index: partition.index,
                records: partition.records.as_ref().map(|r| BytesMut::from(&r[..])),
            })
            .collect(),
    });
    ProduceRequest {
        transactional_id: request
            .transactional_id
            .as_ref()
            .map(|id| Arc::from(id.0.as_str())),
        acks: request.acks,
        timeout_ms: request.timeout_ms,
        topics: topics.collect(),
    }
}

#[track_caller]
fn reads(version: i16, request: &theirs::ProduceRequest) {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("a legal request");
    let parsed = ProduceRequest::parse(version, body.clone());
    assert_eq!(parsed, Ok(expected(version, request)), "version {version}");
    for end in 0..body.len() {
        let cut = ProduceRequest::parse(version, BytesMut::from(&body[..end]));
        assert!(cut.is_err(), "version {version} cut at {end}");
    }
    body.extend_from_slice(b"trailing");
    assert!(ProduceRequest::parse(version, body).is_ok());
}

#[test]
fn requests_of_every_version_are_read() {
    for version in 3..=13 {
        reads(version, &their_request(version));
        let mut none = theirs::ProduceRequest::default();
        none.transactional_id = None;
        reads(version, &none);
    }
}

/// A response, and what it borrows.
#[derive(Default)]
struct Answers {
    partitions: Vec<ProducePartitionResponse>,
    throttle_time_ms: i32,
    node_endpoints: Vec<NodeEndpoint>,
}

fn answers() -> Answers {
    let success = ProducePartitionResponse {
        base_offset: Offset(40),
        log_append_time_ms: 50,
        log_start_offset: Offset(3),
        ..ProducePartitionResponse::refusal(0, ErrorCode::None)
    };
    let bad_records = ProducePartitionResponse {
        record_errors: vec![(0, "no key".to_owned()), (4, String::new())],
        error_message: Some(Cow::Borrowed("records refused")),
        ..ProducePartitionResponse::refusal(1, ErrorCode::InvalidRecord)
    };
    let moved = ProducePartitionResponse {
        current_leader: Some(CurrentLeader {
            leader_id: 2,
            leader_epoch: LeaderEpoch(9),
        }),
        ..ProducePartitionResponse::refusal(2, ErrorCode::NotLeaderOrFollower)
    };
    Answers {
        partitions: vec![success, bad_records, moved],
        throttle_time_ms: 11,
        node_endpoints: vec![NodeEndpoint {
            node_id: 2,
            host: Arc::from("host"),
            port: 9092,
            rack: Some(Arc::from("rack")),
        }],
    }
}

fn same_partition(
    version: i16,
    ours: &ProducePartitionResponse,
    theirs: &their_answers::PartitionProduceResponse,
) {
    assert_eq!(theirs.index, ours.index);
    assert_eq!(theirs.error_code, ours.error_code.code());
    assert_eq!(theirs.base_offset, ours.base_offset.0);
    assert_eq!(theirs.log_append_time_ms, ours.log_append_time_ms);
    let start = if version >= 5 {
        ours.log_start_offset.0
    } else {
        -1
    };
    assert_eq!(theirs.log_start_offset, start);
    if version >= 8 {
        assert_eq!(
            theirs.error_message.as_deref(),
            ours.error_message.as_deref()
        );
        assert_eq!(theirs.record_errors.len(), ours.record_errors.len());
        for (error, (index, message)) in theirs.record_errors.iter().zip(&ours.record_errors) {
            assert_eq!(error.batch_index, *index);
            assert_eq!(
                error.batch_index_error_message.as_deref(),
                Some(message.as_str())
            );
        }
    }
    let leader = ours.current_leader.filter(|_| version >= 10);
    let leader = leader.map_or((-1, -1), |leader| (leader.leader_id, leader.leader_epoch.0));
    assert_eq!(theirs.current_leader.leader_id.0, leader.0);
    assert_eq!(theirs.current_leader.leader_epoch, leader.1);
}

#[track_caller]
fn answer_reads_back(version: i16, ours: &Answers) {
    let has_topic = !ours.partitions.is_empty();
    let topics = [ProduceTopicResponse {
        name: Some("first"),
        id: TopicId(ID),
        partitions: ours.partitions.iter(),
    }];
    let topics = topics.into_iter().take(usize::from(has_topic));
    let response = ProduceResponse {
        topics: topics.clone(),
        throttle_time_ms: ours.throttle_time_ms,
        node_endpoints: &ours.node_endpoints,
    };
    let frame = encode_produce(version, 77, response);
    let mut body = body_of(&frame, 77, version >= 9);
    let theirs = their_answers::ProduceResponse::decode(&mut body, version).expect("a response");
    assert!(body.is_empty(), "version {version}: bytes left");
    assert_eq!(theirs.throttle_time_ms, ours.throttle_time_ms);
    assert_eq!(theirs.responses.len(), topics.len());
    for (topic, our_topic) in theirs.responses.iter().zip(topics) {
        if version >= 13 {
            assert_eq!(topic.topic_id.into_bytes(), our_topic.id.0);
        } else {
            assert_eq!(Some(topic.name.0.as_str()), our_topic.name);
        }
        assert_eq!(topic.partition_responses.len(), our_topic.partitions.len());
        for (theirs, ours) in topic.partition_responses.iter().zip(our_topic.partitions) {
            same_partition(version, ours, theirs);
        }
    }
    let endpoints: &[NodeEndpoint] = if version >= 10 {
        &ours.node_endpoints
    } else {
        &[]
    };
    assert_eq!(theirs.node_endpoints.len(), endpoints.len());
    for (theirs, ours) in theirs.node_endpoints.iter().zip(endpoints) {
        assert_eq!((theirs.node_id.0, theirs.port), (ours.node_id, ours.port));
        assert_eq!(theirs.host.as_str(), &*ours.host);
        assert_eq!(theirs.rack.as_deref(), ours.rack.as_deref());
    }
}

#[test]
fn responses_of_every_version_read_back() {
    for version in 3..=13 {
        answer_reads_back(version, &answers());
        answer_reads_back(version, &Answers::default());
    }
}
