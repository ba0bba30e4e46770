//! Rules that no case of the catalogue looks at by itself (docs/log-and-fetch.md): acks of idempotent producers, codes and
//! fields of refusals, limits of a fetch, what Metadata says beside the partitions.

use crate::compaction::transactional;
use crate::corner::{Corner, PROGRAM};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DescribeClusterRequest, FetchRequest, FetchResponse,
    ListOffsetsRequest, MetadataRequest, MetadataResponse,
};
use std::time::{Duration, Instant};
use tally_testkit::batches::{Batch, Codec};
use tally_testkit::broker::Broker;
use tally_testkit::client::{FetchCall, ProduceCall, topic_name, unique};
use tally_testkit::waiting::wait_until;
use tally_testkit::wire::{Connection, frame_of};

#[test]
fn lr31_an_idempotent_producer_may_ask_for_any_acknowledgement() {
    let mut corner = Corner::new();
    let a = corner.idempotent_producer();
    let topic = corner.topic.clone();
    let call = |acks, sequence| ProduceCall {
        version: 9,
        acks,
        transactional_id: None,
        parts: vec![(
            topic.as_str(),
            0,
            Some(Batch::idempotent(a.id, 0, sequence, 1).encode()),
        )],
    };
    for _ in 0..2 {
        let produced = corner.produce(&call(1, 0)).remove(0);
        assert_eq!((produced.error, produced.base_offset), (0, 0));
    }
    for _ in 0..2 {
        let silent = corner.produce_request(&call(0, 1));
        (*corner.client).send(9, &silent);
    }
    // Its sequence shows that the one before was taken, once.
    let produced = corner.produce(&call(-1, 2)).remove(0);
    assert_eq!((produced.error, produced.base_offset), (0, 2));
}

#[test]
fn lr45_compressed_batches_go_out_as_they_came() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let codecs = [Codec::Gzip, Codec::SnappyRaw, Codec::Lz4, Codec::Zstd];
    for (at, codec) in (0..).zip(codecs) {
        let sent = Batch::plain(1).compressed(codec).encode();
        assert_eq!(corner.send(9, sent.clone()).error, 0);
        // Versions below 10 too, whose clients can't read zstd: nobody unpacks it for them.
        for version in [4, 9, 10, 18] {
            let mut call = FetchCall::of(&topic, 0, at, 0);
            call.version = version;
            let read = corner.fetch(&call).remove(0);
            assert_eq!(read.error, 0, "v{version} {codec:?}");
            assert_eq!(read.batches[0].bytes[16..], sent[16..], "v{version}");
        }
    }
}

/// Code, offset, timestamp and leader epoch.
#[track_caller]
fn list(corner: &mut Corner, version: i16, replica: i32, part: ListOffsetsPartition) -> (i16, i64) {
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(&corner.topic))
        .with_partitions(vec![part]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(replica))
        .with_isolation_level(1)
        .with_topics(vec![topic]);
    let response = corner.call(version, &request);
    let part = &response.topics[0].partitions[0];
    (part.error_code, part.offset)
}

fn latest(current_leader_epoch: i32) -> ListOffsetsPartition {
    ListOffsetsPartition::default()
        .with_current_leader_epoch(current_leader_epoch)
        .with_timestamp(-1)
}

/// A corner whose broker has started again, so that there are two leader epochs; the earlier and the later.
#[track_caller]
fn two_epochs(broker: &mut Broker) -> (Corner, i32, i32) {
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let topic = corner.topic.clone();
    let first = corner.topic(&topic).partitions[0].leader_epoch;
    broker.kill_and_start();
    corner.reconnect(broker);
    let second = corner.topic(&topic).partitions[0].leader_epoch;
    (corner, first, second)
}

#[test]
fn lr82_lr91_a_wrong_leader_epoch_is_74_or_75() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let (mut corner, first, second) = two_epochs(&mut broker);
    if corner.is_kafka {
        return; // Whether it raises the epoch here is its own business (LR-80).
    }
    corner.fill(2);
    for version in 4..=10 {
        for (current, expected) in [
            (-1, (0, 2)),
            (second, (0, 2)),
            (first, (74, -1)),
            (second + 1, (75, -1)),
        ] {
            let got = list(&mut corner, version, -1, latest(current));
            assert_eq!(got, expected, "v{version}, {current}");
        }
    }
}

#[test]
fn lr93_whoever_is_no_consumer_sees_past_open_transactions() {
    let mut corner = Corner::new();
    let id = unique("x");
    let a = transactional(&mut corner, &id);
    let topic = corner.topic.clone();
    assert_eq!(corner.add_partitions(3, &id, a, &[(&topic, 0)]), [0]);
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some(&id),
        parts: vec![(
            &topic,
            0,
            Some(Batch::transactional(a.id, 0, 0, 2).encode()),
        )],
    };
    wait_until("it is taken", || corner.produce(&call)[0].error == 0);
    assert_eq!(list(&mut corner, 7, -1, latest(-1)), (0, 0), "a consumer");
    assert_eq!(list(&mut corner, 7, -2, latest(-1)), (0, 2), "a tool");
    assert_eq!(corner.end_txn(4, &id, a, false).0, 0);
}

#[test]
fn lr103_the_brokers_own_limit_holds_whatever_is_asked_for() {
    let broker = Broker::start(PROGRAM, &["fetch.max.bytes=1024"]);
    let mut corner = Corner::at(broker.address(), 2, &[]);
    let topic = corner.topic.clone();
    let batch = Batch::plain(1).with_values(&"v".repeat(400)).encode();
    for _ in 0..5 {
        for partition in [0, 1] {
            let produced = corner.produce_one(&topic, partition, batch.clone());
            assert_eq!(produced.error, 0);
        }
    }
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    call.parts = vec![(&topic, 0, 0), (&topic, 1, 0)];
    let read = corner.fetch(&call);
    let sizes = read
        .iter()
        .map(|part| part.batches.iter().map(|batch| batch.bytes.len()).sum());
    let sizes: Vec<usize> = sizes.collect();
    assert!(
        sizes[0] > 0 && sizes.iter().sum::<usize>() <= 1024,
        "{sizes:?}"
    );
}

#[test]
fn lr104_nobody_waits_for_more_than_may_be_returned() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    corner.fill(20);
    corner.fill(20);
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    (call.max_wait_ms, call.min_bytes, call.max_bytes) = (20_000, 1 << 20, 100);
    let start = Instant::now();
    let read = corner.fetch(&call).remove(0);
    assert_eq!(read.batches.len(), 1);
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn lr105_when_it_is_enough_all_partitions_are_read() {
    let mut corner = Corner::with_topic(2, &[]);
    let topic = corner.topic.clone();
    let batch = Batch::plain(1).with_values(&"v".repeat(400)).encode();
    let mut reader = corner.another_client();
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    (call.max_wait_ms, call.min_bytes) = (20_000, 800);
    call.parts = vec![(&topic, 0, 0), (&topic, 1, 0)];
    let request = reader.fetch_request(&call);
    let start = Instant::now();
    let correlation_id = (*reader).send(12, &request);
    for partition in [1, 0] {
        let produced = corner.produce_one(&topic, partition, batch.clone());
        assert_eq!(produced.error, 0);
    }
    let response = reader.receive::<FetchRequest>(12, correlation_id);
    for partition in [0, 1] {
        let read = reader.fetched(12, &response, &topic, partition);
        assert_eq!(read.data_offsets(), [0], "partition {partition}");
    }
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// One Fetch of partitions 0 and 7, by a consumer or by somebody who calls himself a replica.
#[track_caller]
fn fetch(corner: &mut Corner, version: i16, replica: i32, epoch: i32) -> FetchResponse {
    let topic = corner.topic.clone();
    let mut call = FetchCall::of(&topic, 0, 0, 1);
    call.version = version;
    call.parts = vec![(&topic, 0, 0), (&topic, 7, 0)];
    let mut request = corner.fetch_request(&call);
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    if version < 15 {
        request.replica_id = BrokerId(replica);
    } else {
        request.replica_state.replica_id = BrokerId(replica);
    }
    corner.call(version, &request)
}

#[test]
fn lr106_lr111_a_refusal_has_its_code_and_nothing_else() {
    let mut corner = Corner::new();
    corner.fill(1);
    for version in [5, 11, 12, 13, 18] {
        let response = fetch(&mut corner, version, -1, -1);
        let parts = &response.responses[0].partitions;
        assert_eq!((parts[0].error_code, parts[1].error_code), (0, 3));
        assert_eq!(parts[1].high_watermark, -1, "v{version}");
        assert_eq!(parts[1].last_stable_offset, -1);
        assert_eq!(parts[1].log_start_offset, -1);
        let records = parts[1].records.as_ref();
        assert!(records.is_none_or(|records| records.is_empty()));
        assert!(
            parts[1]
                .aborted_transactions
                .as_ref()
                .is_none_or(Vec::is_empty)
        );
        for part in parts {
            assert_eq!(part.preferred_read_replica, BrokerId(-1));
        }
    }
}

#[test]
fn lr110_a_leader_that_has_changed_is_named_with_its_address() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let (mut corner, first, second) = two_epochs(&mut broker);
    if corner.is_kafka {
        return; // Whether it raises the epoch here is its own business (LR-80).
    }
    for version in [15, 16, 18] {
        for (epoch, code) in [(first, 74), (second, 0), (second + 1, 75)] {
            let response = fetch(&mut corner, version, -1, epoch);
            let part = &response.responses[0].partitions[0];
            assert_eq!(part.error_code, code, "v{version}");
            if version < 16 || code != 74 {
                assert!(response.node_endpoints.is_empty(), "v{version} {code}");
                continue;
            }
            let leader = &part.current_leader;
            assert_eq!(leader.leader_epoch, second);
            assert_eq!(response.node_endpoints.len(), 1);
            let node = &response.node_endpoints[0];
            assert_eq!(node.node_id, leader.leader_id);
            let told = format!("{}:{}", &*node.host, node.port);
            assert_eq!(told, corner.address);
        }
    }
}

#[test]
fn lr112_nobody_is_a_replica() {
    let mut corner = Corner::new();
    corner.fill(1);
    if corner.is_kafka {
        return; // It has no authorizer here, and lets everybody be one.
    }
    for version in [4, 12, 15, 18] {
        let response = fetch(&mut corner, version, 1, -1);
        assert_eq!(response.session_id, 0);
        for part in &response.responses[0].partitions {
            assert_eq!(part.error_code, 29, "v{version}");
        }
    }
}

/// Metadata of one topic, with what may be done to it and to the cluster if that is asked.
#[track_caller]
fn metadata(corner: &mut Corner, version: i16, name: &str, asks: bool) -> MetadataResponse {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let mut request = MetadataRequest::default().with_topics(Some(vec![topic]));
    request.include_topic_authorized_operations = asks && version >= 8;
    request.include_cluster_authorized_operations = asks && (8..=10).contains(&version);
    corner.call(version, &request)
}

#[test]
fn lr136_what_may_be_done_is_said_when_it_is_asked() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    for version in [7, 8, 10, 11, 13] {
        for asks in [true, false] {
            let response = metadata(&mut corner, version, &topic, asks);
            let of_the_topic = if asks && version >= 8 { 3576 } else { i32::MIN };
            let row = &response.topics[0];
            assert_eq!(row.topic_authorized_operations, of_the_topic, "v{version}");
            let of_the_cluster = if asks && (8..=10).contains(&version) {
                8096
            } else {
                i32::MIN
            };
            assert_eq!(response.cluster_authorized_operations, of_the_cluster);
        }
    }
    for (asks, expected) in [(true, 8096), (false, i32::MIN)] {
        let request = DescribeClusterRequest::default()
            .with_endpoint_type(1)
            .with_include_cluster_authorized_operations(asks);
        let response = corner.call(1, &request);
        assert_eq!(response.cluster_authorized_operations, expected);
    }
}

#[test]
fn lr132_lr133_topics_come_by_themselves_where_that_is_allowed() {
    let settings = [
        "auto.create.topics.enable=false",
        "offsets.topic.num.partitions=7",
    ];
    let broker = Broker::start(PROGRAM, &settings);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let (own, absent) = (corner.topic.clone(), unique("auto"));
    for version in [0, 4, 13] {
        let response = metadata(&mut corner, version, &absent, false);
        assert_eq!(response.topics[0].error_code, 3, "v{version}");
    }
    let group = unique("g");
    corner.wait_for_group(&group);
    let response = metadata(&mut corner, 9, "__consumer_offsets", false);
    assert!(response.topics[0].is_internal);
    assert_eq!(response.topics[0].partitions.len(), 7);
    assert!(!metadata(&mut corner, 9, &own, false).topics[0].is_internal);
}

#[test]
fn lr137_what_is_no_broker_is_not_described() {
    let mut corner = Corner::new();
    let mut describe = |version, kind| {
        let request = DescribeClusterRequest::default().with_endpoint_type(kind);
        corner.call(version, &request).error_code
    };
    assert_eq!((describe(1, 1), describe(0, 1)), (0, 0));
    assert_eq!((describe(1, 2), describe(2, 2)), (114, 114));
    assert_eq!((describe(1, 3), describe(1, 0)), (115, 115));
}

#[test]
fn lr142_a_topic_can_be_used_when_its_creation_is_answered() {
    let mut corner = Corner::new();
    for _ in 0..10 {
        let name = unique("new");
        let topic = CreatableTopic::default()
            .with_name(topic_name(&name))
            .with_num_partitions(2)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000);
        assert_eq!(corner.call(7, &request).topics[0].error_code, 0);
        if corner.is_kafka {
            return; // Its partitions may be without a leader for a moment.
        }
        let mut other = corner.another_client();
        let batch = Batch::plain(1).encode();
        assert_eq!(other.produce_one(&name, 1, batch).error, 0);
        assert_eq!(other.topic(&name).partitions.len(), 2);
    }
}

#[test]
fn lr155_any_correlation_id_comes_back() {
    let corner = Corner::new();
    let mut connection = Connection::open(&corner.address);
    for id in [0, 7, 7, -1, i32::MAX, i32::MIN] {
        connection.send_bytes(&frame_of(18, 0, 1, id, &[]));
        let frame = connection.receive_frame().expect("an answer");
        assert_eq!(frame[..4], id.to_be_bytes());
    }
}
