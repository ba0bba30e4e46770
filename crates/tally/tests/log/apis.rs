//! The API table as clients see it: ApiVersions byte for byte, and an answer for every listed version.

use crate::corner::{Corner, PROGRAM};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::protocol::{Encodable, Request};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, group_id, text, topic_name, transactional_id};
use tally_testkit::wire::{Connection, decode_response, frame_of};

/// Key, lowest and highest listed version: api-matrix.md section 2, rows T1 and T1s, and those of T2 that are
/// complete.
const LISTED: &[(i16, i16, i16)] = &[
    (0, 0, 13),
    (1, 4, 18),
    (2, 1, 11),
    (3, 0, 13),
    (8, 2, 10),
    (9, 1, 10),
    (10, 0, 6),
    (11, 0, 9),
    (12, 0, 4),
    (13, 0, 5),
    (14, 0, 5),
    (15, 0, 6),
    (16, 0, 5),
    (17, 0, 1),
    (18, 0, 5),
    (19, 2, 7),
    (20, 1, 6),
    (21, 0, 2),
    (22, 0, 5),
    (23, 2, 4),
    (24, 0, 5),
    (25, 0, 4),
    (26, 0, 5),
    (27, 1, 2),
    (28, 0, 5),
    (29, 1, 3),
    (30, 1, 3),
    (31, 1, 3),
    (32, 1, 4),
    (33, 0, 2),
    (34, 1, 2),
    (35, 1, 5),
    (36, 0, 2),
    (37, 0, 3),
    (38, 1, 3),
    (39, 1, 2),
    (40, 1, 2),
    (41, 1, 3),
    (42, 0, 2),
    (43, 0, 2),
    (44, 0, 1),
    (45, 0, 1),
    (46, 0, 0),
    (47, 0, 0),
    (48, 0, 1),
    (49, 0, 1),
    (50, 0, 0),
    (51, 0, 0),
    (55, 0, 2),
    (57, 0, 2),
    (60, 0, 2),
    (61, 0, 0),
    (65, 0, 0),
    (66, 0, 2),
    (68, 0, 1),
    (69, 0, 1),
    (74, 0, 1),
    (75, 0, 0),
];

#[track_caller]
fn answer(frame: &[u8]) -> Bytes {
    let mut connection = Connection::open(Broker::shared(PROGRAM));
    connection.send_bytes(frame);
    connection.receive_frame().expect("an answer")
}

/// The body of an ApiVersions request from version 3 on.
fn software(name: &str, version: i16) -> BytesMut {
    let mut body = BytesMut::new();
    for word in [name, "1.0"] {
        body.put_u8(u8::try_from(word.len() + 1).expect("short"));
        body.put_slice(word.as_bytes());
    }
    if version >= 5 {
        body.put_u8(0); // no cluster id
        body.put_i32(-1); // no node id
    }
    body.put_u8(0);
    body
}

#[test]
fn api1_the_rows_byte_for_byte() {
    let mut corner = Corner::new();
    if corner.is_kafka {
        return;
    }
    let listed: Vec<_> = corner
        .api_versions(4)
        .api_keys
        .iter()
        .map(|row| (row.api_key, row.min_version, row.max_version))
        .collect();
    assert_eq!(listed, LISTED, "a new row belongs into this table too");
    for version in 0..=2 {
        let mut expected = BytesMut::new();
        expected.put_i32(7);
        expected.put_i16(0);
        expected.put_u32(u32::try_from(LISTED.len()).expect("few"));
        for &(key, min, max) in LISTED {
            expected.put_i16(key);
            expected.put_i16(min);
            expected.put_i16(max);
        }
        if version >= 1 {
            expected.put_i32(0);
        }
        assert_eq!(
            answer(&frame_of(18, version, 1, 7, &[])),
            expected,
            "v{version}"
        );
    }
    for version in 3..=5 {
        let mut expected = BytesMut::new();
        expected.put_i32(7);
        expected.put_i16(0);
        expected.put_u8(u8::try_from(LISTED.len() + 1).expect("few"));
        for &(key, min, max) in LISTED {
            expected.put_i16(key);
            expected.put_i16(min);
            expected.put_i16(max);
            expected.put_u8(0);
        }
        expected.put_i32(0);
        let frame = frame_of(18, version, 2, 7, &software("tally-testkit", version));
        let got = answer(&frame);
        assert_eq!(got[..expected.len()], expected, "v{version}");
    }
}

/// The codec knows DescribeLogDirs up to 4: 5 ends the one directory with whether it is cordoned (KIP-1066).
#[test]
fn api1_log_directories_say_that_they_are_not_cordoned() {
    // One topic that is not there, so that the answer does not change meanwhile.
    let body = [2, 5, b'g', b'o', b'n', b'e', 2, 0, 0, 0, 0, 0, 0];
    let mut five = answer(&frame_of(35, 5, 2, 7, &body));
    let behind_the_sizes = five.len() - 3;
    assert_eq!(five[behind_the_sizes..], [0, 0, 0]);
    five.truncate(five.len() - 1);
    let response = decode_response::<m::DescribeLogDirsRequest>(4, 7, five);
    assert_eq!(response.results.len(), 1);
    assert!(response.results[0].topics.is_empty());
    assert!(response.results[0].total_bytes > response.results[0].usable_bytes);
}

#[test]
fn api1_a_version_from_the_future_gets_one_row() {
    let is_kafka = Corner::new().is_kafka;
    let highest = if is_kafka { 4 } else { 5 };
    for version in [9, i16::MAX, -1] {
        let got = answer(&frame_of(18, version, 2, 9, &software("x", 5)));
        let mut expected = BytesMut::new();
        expected.put_i32(9);
        expected.put_i16(35);
        expected.put_u32(1);
        for number in [18, 0, highest] {
            expected.put_i16(number);
        }
        assert_eq!(got, expected, "v{version}");
    }
}

#[test]
fn api1_a_bad_software_name_is_refused_in_its_version() {
    let mut corner = Corner::new();
    for name in ["", "-a", "a b", "a-", "ä"] {
        let request = m::ApiVersionsRequest::default()
            .with_client_software_name(text(name))
            .with_client_software_version(text("1"));
        let response = corner.call(3, &request);
        assert_eq!(response.error_code, 42, "{name:?}");
        assert!(response.api_keys.is_empty());
    }
}

#[test]
fn api1_features() {
    let mut corner = Corner::new();
    let three = corner.api_versions(3);
    let supported = &three.supported_features;
    assert!(supported.iter().all(|feature| feature.min_version > 0));
    let four = corner.api_versions(4);
    let find = |name: &str| {
        let mut features = four.supported_features.iter();
        features.find(|feature| &*feature.name == name)
    };
    let transactions = find("transaction.version").expect("supported");
    assert_eq!((transactions.min_version, transactions.max_version), (0, 2));
    let groups = find("group.version").expect("supported");
    assert_eq!((groups.min_version, groups.max_version), (0, 1));
    let mut finalized = four.finalized_features.iter();
    let groups = finalized.find(|feature| &*feature.name == "group.version");
    assert_eq!(groups.map(|feature| feature.max_version_level), Some(1));
    assert!(four.finalized_features_epoch >= 0);
    for feature in &four.finalized_features {
        assert_eq!(feature.max_version_level, feature.min_version_level);
    }
}

/// Asks for every version of an API and decodes the answer, header and all.
#[track_caller]
fn ask<R: Request>(versions: std::ops::RangeInclusive<i16>, make: impl Fn(i16) -> R) {
    let mut client = Client::connect(Broker::shared(PROGRAM));
    for version in versions {
        let response = client.try_call(version, &make(version));
        assert!(response.is_some(), "key {} version {version}", R::KEY);
    }
}

#[test]
fn api2_every_listed_version_gets_an_answer() {
    let topic = Corner::new().topic.clone();
    ask(3..=13, |_| {
        m::ProduceRequest::default()
            .with_transactional_id(None)
            .with_acks(-1)
    });
    ask(4..=18, |_| {
        m::FetchRequest::default().with_session_epoch(-1)
    });
    ask(1..=10, |_| {
        m::ListOffsetsRequest::default().with_replica_id(m::BrokerId(-1))
    });
    ask(0..=13, |_| {
        m::MetadataRequest::default().with_topics(Some(vec![]))
    });
    ask(2..=9, |_| {
        m::OffsetCommitRequest::default().with_group_id(group_id("g-api"))
    });
    ask(1..=7, |_| {
        m::OffsetFetchRequest::default()
            .with_group_id(group_id("g-api"))
            .with_topics(Some(vec![]))
    });
    ask(8..=9, |_| m::OffsetFetchRequest::default());
    ask(0..=3, |_| {
        m::FindCoordinatorRequest::default().with_key(text("g-api"))
    });
    ask(4..=6, |_| {
        m::FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g-api")])
    });
    ask(0..=9, |version| {
        let request = m::JoinGroupRequest::default()
            .with_group_id(group_id(""))
            .with_session_timeout_ms(10_000);
        if version >= 5 {
            request.with_group_instance_id(None)
        } else {
            request
        }
    });
    ask(0..=4, |_| {
        m::HeartbeatRequest::default().with_group_id(group_id("g-api"))
    });
    ask(0..=5, |_| {
        m::LeaveGroupRequest::default().with_group_id(group_id("g-api"))
    });
    ask(0..=5, |_| {
        m::SyncGroupRequest::default().with_group_id(group_id("g-api"))
    });
    ask(0..=1, |_| {
        m::SaslHandshakeRequest::default().with_mechanism(text("PLAIN"))
    });
    ask(2..=7, |_| m::CreateTopicsRequest::default());
    ask(1..=6, |_| m::DeleteTopicsRequest::default());
    ask(0..=2, |_| m::DeleteRecordsRequest::default());
    ask(2..=4, |_| {
        m::OffsetForLeaderEpochRequest::default().with_replica_id(m::BrokerId(-1))
    });
    ask(1..=4, |_| m::DescribeConfigsRequest::default());
    ask(0..=2, |_| m::DescribeClusterRequest::default());
    ask_transactions(&topic);
    ask_operators();
}

fn ask_transactions(topic: &str) {
    let id = || transactional_id("x-api");
    ask(0..=5, |_| {
        m::InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(1000)
    });
    ask(0..=3, |_| {
        let topic = m::add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![0]);
        m::AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id())
            .with_v3_and_below_topics(vec![topic])
    });
    ask(4..=5, |_| {
        // Apache Kafka never answers an empty list.
        let transaction =
            m::add_partitions_to_txn_request::AddPartitionsToTxnTransaction::default()
                .with_transactional_id(id());
        m::AddPartitionsToTxnRequest::default().with_transactions(vec![transaction])
    });
    ask(0..=4, |_| {
        m::AddOffsetsToTxnRequest::default()
            .with_transactional_id(id())
            .with_group_id(group_id("g-api"))
    });
    ask(0..=5, |_| {
        m::EndTxnRequest::default().with_transactional_id(id())
    });
    ask(0..=5, |_| {
        m::TxnOffsetCommitRequest::default()
            .with_transactional_id(id())
            .with_group_id(group_id("g-api"))
    });
}

fn ask_operators() {
    ask(0..=6, |_| {
        m::DescribeGroupsRequest::default().with_groups(vec![group_id("g-api")])
    });
    ask(0..=5, |_| m::ListGroupsRequest::default());
    ask(0..=1, |_| m::ConsumerGroupHeartbeatRequest::default());
    ask(0..=1, |_| {
        m::ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id("g-api")])
    });
    ask(1..=1, |_| m::WriteTxnMarkersRequest::default());
    ask(1..=4, |_| {
        m::DescribeLogDirsRequest::default().with_topics(None)
    });
    ask(1..=3, |_| {
        m::DescribeAclsRequest::default()
            .with_resource_type_filter(1)
            .with_pattern_type_filter(1)
            .with_operation(1)
            .with_permission_type(1)
    });
    ask(1..=2, |_| m::AlterReplicaLogDirsRequest::default());
    ask(0..=2, |_| m::DescribeQuorumRequest::default());
    ask(0..=2, |_| m::UpdateFeaturesRequest::default());
    ask(1..=3, |_| m::CreateAclsRequest::default());
    ask(1..=3, |_| m::DeleteAclsRequest::default());
    ask(1..=3, |_| m::CreateDelegationTokenRequest::default());
    ask(1..=2, |_| m::RenewDelegationTokenRequest::default());
    ask(1..=2, |_| m::ExpireDelegationTokenRequest::default());
    ask(1..=3, |_| m::DescribeDelegationTokenRequest::default());
    ask(0..=1, |_| m::DescribeClientQuotasRequest::default());
    ask(0..=1, |_| m::AlterClientQuotasRequest::default());
    ask(0..=0, |_| m::DescribeUserScramCredentialsRequest::default());
    ask(0..=0, |_| m::AlterUserScramCredentialsRequest::default());
    ask(0..=2, |_| m::AlterConfigsRequest::default());
    ask(0..=1, |_| m::IncrementalAlterConfigsRequest::default());
    ask(0..=3, |_| m::CreatePartitionsRequest::default());
    ask(0..=2, |_| m::DeleteGroupsRequest::default());
    ask(0..=2, |_| m::ElectLeadersRequest::default());
    ask(0..=1, |_| m::AlterPartitionReassignmentsRequest::default());
    ask(0..=0, |_| {
        m::ListPartitionReassignmentsRequest::default().with_topics(None)
    });
    ask(0..=0, |_| {
        m::OffsetDeleteRequest::default().with_group_id(group_id("g-api"))
    });
    ask(0..=0, |_| m::DescribeProducersRequest::default());
    ask(0..=0, |_| m::DescribeTransactionsRequest::default());
    ask(0..=2, |_| m::ListTransactionsRequest::default());
    ask(0..=1, |_| m::ListConfigResourcesRequest::default());
    ask(0..=0, |_| {
        m::DescribeTopicPartitionsRequest::default().with_cursor(None)
    });
}

#[test]
fn api2_the_versions_that_the_codec_crate_lacks_without_topics_are_those_before() {
    let commit = m::OffsetCommitRequest::default().with_group_id(group_id("g-api"));
    let mut body = BytesMut::new();
    commit.encode(&mut body, 9).expect("encodes");
    let frame = answer(&frame_of(8, 10, 2, 3, &body));
    decode_response::<m::OffsetCommitRequest>(9, 3, frame);
    let mut body = BytesMut::new();
    let fetch = m::OffsetFetchRequest::default();
    fetch.encode(&mut body, 9).expect("encodes");
    let frame = answer(&frame_of(9, 10, 2, 3, &body));
    decode_response::<m::OffsetFetchRequest>(9, 3, frame);
}

#[test]
fn api2_list_offsets_eleven_has_the_layout_of_ten() {
    let request = m::ListOffsetsRequest::default().with_replica_id(m::BrokerId(-1));
    let mut body = BytesMut::new();
    request.encode(&mut body, 10).expect("encodes");
    let frame = answer(&frame_of(2, 11, 2, 3, &body));
    decode_response::<m::ListOffsetsRequest>(10, 3, frame);
}

#[test]
fn api2_sasl_on_a_plain_listener() {
    let mut corner = Corner::new();
    let handshake = m::SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
    let response = corner.call(1, &handshake);
    assert_eq!(response.error_code, 34);
    assert!(response.mechanisms.is_empty());
    for version in 0..=2 {
        let token = m::SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"x"));
        assert_eq!(corner.call(version, &token).error_code, 34);
    }
}
