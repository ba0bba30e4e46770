//! Fetch, versions 4 to 18.

use crate::{body_of, text, unknown_tags};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request as theirs;
use kafka_protocol::messages::fetch_response as their_answers;
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable};
use std::sync::Arc;
use tally_protocol::request::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use tally_protocol::response::{
    CurrentLeader, FetchPartitionResponse, FetchResponse, FetchTopicResponse, NodeEndpoint,
    encode_fetch,
};
use tally_protocol::{ErrorCode, LeaderEpoch, Offset, ProducerId, TopicId};

const ID: [u8; 16] = [7; 16];

fn their_topic(version: i16, name: &'static str, count: i32) -> theirs::FetchTopic {
    let mut topic = theirs::FetchTopic::default();
    if version >= 13 {
        topic.topic_id = uuid::Uuid::from_bytes(ID);
    } else {
        topic.topic = TopicName(text(name));
    }
    for index in 0..count {
        let mut partition = theirs::FetchPartition::default();
        partition.partition = index;
        partition.fetch_offset = 1 << 40;
        partition.partition_max_bytes = 1 << 20;
        if version >= 5 {
            partition.log_start_offset = 3;
        }
        if version >= 9 {
            partition.current_leader_epoch = 5;
        }
        if version >= 12 {
            partition.last_fetched_epoch = 4;
            partition.unknown_tagged_fields = unknown_tags();
        }
        if version >= 17 {
            partition.replica_directory_id = uuid::Uuid::from_bytes([3; 16]);
        }
        if version >= 18 {
            partition.high_watermark = 99;
        }
        topic.partitions.push(partition);
    }
    if version >= 12 {
        topic.unknown_tagged_fields = unknown_tags();
    }
    topic
}

fn their_request(version: i16) -> theirs::FetchRequest {
    let mut request = theirs::FetchRequest::default();
    request.max_wait_ms = 500;
    request.min_bytes = 1;
    request.max_bytes = 55 << 20;
    request.isolation_level = 1;
    request.topics = vec![
        their_topic(version, "first", 2),
        their_topic(version, "second", 0),
    ];
    if version < 15 {
        request.replica_id = BrokerId(-2);
    } else {
        request.replica_state.replica_id = BrokerId(6);
        request.replica_state.replica_epoch = 8;
        request.replica_state.unknown_tagged_fields = unknown_tags();
    }
    if version >= 7 {
        request.session_id = 12;
        request.session_epoch = 13;
        let mut forgotten = theirs::ForgottenTopic::default();
        if version >= 13 {
            forgotten.topic_id = uuid::Uuid::from_bytes(ID);
        } else {
            forgotten.topic = TopicName(text("old"));
        }
        forgotten.partitions = vec![1, 5, 9];
        if version >= 12 {
            forgotten.unknown_tagged_fields = unknown_tags();
        }
        request.forgotten_topics_data = vec![forgotten];
    }
    if version >= 11 {
        request.rack_id = text("rack");
    }
    if version >= 12 {
        request.cluster_id = Some(text("cluster"));
        request.unknown_tagged_fields = unknown_tags();
    }
    request
}

/// What `request` says, in our words.
fn expected(version: i16, request: &theirs::FetchRequest) -> FetchRequest {
    let topics = request.topics.iter().map(|topic| FetchTopic {
        name: (version < 13).then(|| topic.topic.0.clone()),
        id: TopicId(topic.topic_id.into_bytes()),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| FetchPartition {
                index: partition.partition,
                current_leader_epoch: LeaderEpoch(partition.current_leader_epoch),
                fetch_offset: Offset(partition.fetch_offset),
                last_fetched_epoch: LeaderEpoch(partition.last_fetched_epoch),
                log_start_offset: Offset(partition.log_start_offset),
                max_bytes: partition.partition_max_bytes,
            })
            .collect(),
    });
    let forgotten = request
        .forgotten_topics_data
        .iter()
        .map(|topic| ForgottenTopic {
            name: (version < 13).then(|| topic.topic.0.clone()),
            id: TopicId(topic.topic_id.into_bytes()),
            partitions: topic.partitions.clone(),
        });
    FetchRequest {
        replica_id: if version < 15 {
            request.replica_id.0
        } else {
            request.replica_state.replica_id.0
        },
        replica_epoch: request.replica_state.replica_epoch,
        cluster_id: request.cluster_id.clone(),
        max_wait_ms: request.max_wait_ms,
        min_bytes: request.min_bytes,
        max_bytes: request.max_bytes,
        isolation_level: request.isolation_level,
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        topics: topics.collect(),
        forgotten: forgotten.collect(),
        rack_id: request.rack_id.clone(),
    }
}

#[track_caller]
fn reads(version: i16, request: &theirs::FetchRequest) {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("a legal request");
    let whole = body.clone().freeze();
    let parsed = FetchRequest::parse(version, &whole);
    assert_eq!(parsed, Ok(expected(version, request)), "version {version}");
    for end in 0..whole.len() {
        let cut = FetchRequest::parse(version, &whole.slice(..end));
        assert!(cut.is_err(), "version {version} cut at {end}");
    }
    body.extend_from_slice(b"trailing");
    assert!(FetchRequest::parse(version, &body.freeze()).is_ok());
}

#[test]
fn requests_of_every_version_are_read() {
    for version in 4..=18 {
        reads(version, &their_request(version));
        let mut none = theirs::FetchRequest::default();
        none.replica_id = BrokerId(-1);
        reads(version, &none);
    }
}

fn partitions() -> Vec<FetchPartitionResponse<Bytes>> {
    let data = FetchPartitionResponse {
        high_watermark: Offset(20),
        last_stable_offset: Offset(19),
        log_start_offset: Offset(1),
        aborted_transactions: Some(vec![(ProducerId(8), Offset(2)), (ProducerId(9), Offset(4))]),
        preferred_read_replica: 3,
        records: vec![Bytes::from_static(&[1; 200]), Bytes::from_static(&[2; 3])],
        ..FetchPartitionResponse::refusal(0, ErrorCode::None)
    };
    let empty = FetchPartitionResponse {
        high_watermark: Offset(0),
        aborted_transactions: Some(Vec::new()),
        ..FetchPartitionResponse::refusal(1, ErrorCode::None)
    };
    let diverging = FetchPartitionResponse {
        diverging_epoch: Some((LeaderEpoch(4), Offset(44))),
        ..FetchPartitionResponse::refusal(2, ErrorCode::None)
    };
    let moved = FetchPartitionResponse {
        diverging_epoch: Some((LeaderEpoch(4), Offset(44))),
        current_leader: Some(CurrentLeader {
            leader_id: 2,
            leader_epoch: LeaderEpoch(9),
        }),
        ..FetchPartitionResponse::refusal(3, ErrorCode::NotLeaderOrFollower)
    };
    vec![data, empty, diverging, moved]
}

fn answers() -> FetchResponse<Bytes> {
    let topic = |name, partitions| FetchTopicResponse {
        name: Some(Arc::from(name)),
        id: TopicId(ID),
        partitions,
    };
    FetchResponse {
        throttle_time_ms: 11,
        error_code: ErrorCode::InvalidFetchSessionEpoch,
        session_id: 12,
        topics: vec![
            topic("first", partitions()),
            topic("second", Vec::new()),
            topic("third", partitions()),
        ],
        node_endpoints: vec![NodeEndpoint {
            node_id: 2,
            host: Arc::from("host"),
            port: 9092,
            rack: None,
        }],
    }
}

fn same_partition(
    version: i16,
    ours: &FetchPartitionResponse<Bytes>,
    theirs: &their_answers::PartitionData,
) {
    assert_eq!(theirs.partition_index, ours.index);
    assert_eq!(theirs.error_code, ours.error_code.code());
    assert_eq!(theirs.high_watermark, ours.high_watermark.0);
    assert_eq!(theirs.last_stable_offset, ours.last_stable_offset.0);
    let start = if version >= 5 {
        ours.log_start_offset.0
    } else {
        -1
    };
    assert_eq!(theirs.log_start_offset, start);
    let replica = if version >= 11 {
        ours.preferred_read_replica
    } else {
        -1
    };
    assert_eq!(theirs.preferred_read_replica.0, replica);
    let rows = theirs.aborted_transactions.as_ref().map(|rows| {
        rows.iter()
            .map(|row| (ProducerId(row.producer_id.0), Offset(row.first_offset)))
            .collect::<Vec<_>>()
    });
    assert_eq!(rows, ours.aborted_transactions);
    assert_eq!(theirs.records.as_deref(), Some(&ours.records.concat()[..]));
    let diverging = ours.diverging_epoch.filter(|_| version >= 12);
    let diverging = diverging.map_or((-1, -1), |(epoch, end)| (epoch.0, end.0));
    assert_eq!(theirs.diverging_epoch.epoch, diverging.0);
    assert_eq!(theirs.diverging_epoch.end_offset, diverging.1);
    let leader = ours.current_leader.filter(|_| version >= 12);
    let leader = leader.map_or((-1, -1), |leader| (leader.leader_id, leader.leader_epoch.0));
    assert_eq!(theirs.current_leader.leader_id.0, leader.0);
    assert_eq!(theirs.current_leader.leader_epoch, leader.1);
}

#[track_caller]
fn answer_reads_back(version: i16, ours: &FetchResponse<Bytes>) {
    let pieces = encode_fetch(version, 77, ours.clone());
    assert!(pieces.iter().all(|piece| !piece.bytes().is_empty()));
    let frame: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece.bytes())
        .copied()
        .collect();
    let mut body = body_of(&frame, 77, version >= 12);
    let theirs = their_answers::FetchResponse::decode(&mut body, version).expect("a response");
    assert!(body.is_empty(), "version {version}: bytes left");
    assert_eq!(theirs.throttle_time_ms, ours.throttle_time_ms);
    if version >= 7 {
        assert_eq!(theirs.error_code, ours.error_code.code());
        assert_eq!(theirs.session_id, ours.session_id);
    }
    assert_eq!(theirs.responses.len(), ours.topics.len());
    for (topic, our_topic) in theirs.responses.iter().zip(&ours.topics) {
        if version >= 13 {
            assert_eq!(topic.topic_id.into_bytes(), our_topic.id.0);
        } else {
            assert_eq!(Some(topic.topic.0.as_str()), our_topic.name.as_deref());
        }
        assert_eq!(topic.partitions.len(), our_topic.partitions.len());
        for (theirs, ours) in topic.partitions.iter().zip(&our_topic.partitions) {
            same_partition(version, ours, theirs);
        }
    }
    let endpoints: &[NodeEndpoint] = if version >= 16 {
        &ours.node_endpoints
    } else {
        &[]
    };
    assert_eq!(theirs.node_endpoints.len(), endpoints.len());
    for (theirs, ours) in theirs.node_endpoints.iter().zip(endpoints) {
        assert_eq!((theirs.node_id.0, theirs.port), (ours.node_id, ours.port));
        assert_eq!(
            (theirs.host.as_str(), theirs.rack.as_deref()),
            (&*ours.host, None)
        );
    }
}

#[test]
fn responses_of_every_version_read_back() {
    let empty = FetchResponse {
        throttle_time_ms: 0,
        error_code: ErrorCode::None,
        session_id: 0,
        topics: Vec::new(),
        node_endpoints: Vec::new(),
    };
    for version in 4..=18 {
        answer_reads_back(version, &answers());
        answer_reads_back(version, &empty);
    }
}
