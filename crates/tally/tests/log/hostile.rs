//! Frames that lie (api-matrix.md section 10, item 4; L91): the process lives, and does not swell.

use crate::corner::{Corner, PROGRAM};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as m;
use kafka_protocol::protocol::Request;
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{FetchCall, ProduceCall, group_id, text, topic_name, transactional_id};
use tally_testkit::wire::{Connection, frame_of};

/// A request as key, version, header version and body.
struct Whole {
    key: i16,
    version: i16,
    header_version: i16,
    body: Bytes,
}

fn whole<R: Request>(version: i16, request: &R) -> Whole {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("encodes");
    Whole {
        key: R::KEY,
        version,
        header_version: R::header_version(version),
        body: body.freeze(),
    }
}

/// Requests with something in every array, old and flexible.
fn requests(corner: &mut Corner) -> Vec<Whole> {
    let topic = corner.topic.clone();
    let mut all = Vec::new();
    for version in [3, 9, 13] {
        let produce = ProduceCall {
            version,
            acks: -1,
            transactional_id: None,
            parts: vec![(&topic, 0, Some(Batch::plain(2).encode()))],
        };
        all.push(whole(version, &corner.produce_request(&produce)));
    }
    for version in [4, 12, 17] {
        let mut fetch = FetchCall::of(&topic, 0, 0, 1);
        fetch.version = version;
        all.push(whole(version, &corner.fetch_request(&fetch)));
    }
    let metadata_topic =
        m::metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name(&topic)));
    let metadata = m::MetadataRequest::default().with_topics(Some(vec![metadata_topic]));
    for version in [1, 9, 13] {
        all.push(whole(version, &metadata));
    }
    let listed = m::list_offsets_request::ListOffsetsTopic::default()
        .with_name(topic_name(&topic))
        .with_partitions(vec![
            m::list_offsets_request::ListOffsetsPartition::default(),
        ]);
    let list = m::ListOffsetsRequest::default().with_topics(vec![listed]);
    for version in [1, 7] {
        all.push(whole(version, &list));
    }
    let created = m::create_topics_request::CreatableTopic::default()
        .with_name(topic_name("hostile"))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let create = m::CreateTopicsRequest::default().with_topics(vec![created]);
    for version in [2, 7] {
        all.push(whole(version, &create));
    }
    all.push(whole(
        1,
        &m::DeleteTopicsRequest::default().with_topic_names(vec![topic_name("hostile")]),
    ));
    all.extend(group_requests(&topic));
    all.extend(transaction_requests(&topic));
    all
}

fn group_requests(topic: &str) -> Vec<Whole> {
    let committed = m::offset_commit_request::OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![
            m::offset_commit_request::OffsetCommitRequestPartition::default(),
        ]);
    let commit = m::OffsetCommitRequest::default()
        .with_group_id(group_id("hostile"))
        .with_topics(vec![committed]);
    let fetched = m::offset_fetch_request::OffsetFetchRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partition_indexes(vec![0]);
    let fetch = m::OffsetFetchRequest::default()
        .with_group_id(group_id("hostile"))
        .with_topics(Some(vec![fetched]));
    let protocol = m::join_group_request::JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"metadata"));
    let join = m::JoinGroupRequest::default()
        .with_group_id(group_id(""))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let assignment = m::sync_group_request::SyncGroupRequestAssignment::default()
        .with_member_id(text("m"))
        .with_assignment(Bytes::from_static(b"assignment"));
    let sync = m::SyncGroupRequest::default()
        .with_group_id(group_id("hostile"))
        .with_assignments(vec![assignment]);
    vec![
        whole(2, &commit),
        whole(8, &commit),
        whole(1, &fetch),
        whole(7, &fetch),
        whole(0, &join),
        whole(7, &join),
        whole(0, &sync),
        whole(5, &sync),
        whole(
            4,
            &m::FindCoordinatorRequest::default().with_coordinator_keys(vec![text("hostile")]),
        ),
    ]
}

fn transaction_requests(topic: &str) -> Vec<Whole> {
    let added = m::add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![0]);
    let add = m::AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id("hostile"))
        .with_v3_and_below_topics(vec![added]);
    let committed = m::txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![
            m::txn_offset_commit_request::TxnOffsetCommitRequestPartition::default(),
        ]);
    let commit = m::TxnOffsetCommitRequest::default()
        .with_transactional_id(transactional_id("hostile"))
        .with_group_id(group_id("hostile"))
        .with_topics(vec![committed]);
    let init = m::InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id("hostile")))
        .with_transaction_timeout_ms(1000);
    vec![
        whole(0, &add),
        whole(3, &add),
        whole(0, &commit),
        whole(3, &commit),
        whole(0, &init),
        whole(4, &init),
        whole(
            5,
            &m::EndTxnRequest::default().with_transactional_id(transactional_id("hostile")),
        ),
    ]
}

/// Bodies that lie: huge lengths at every place, cut at every place, bits turned.
fn lies(body: &Bytes) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let huge: [&[u8]; 4] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x7f, 0xff],
        &[0xff],
    ];
    for at in 0..body.len() {
        for length in huge {
            let mut lie = body.to_vec();
            let end = lie.len().min(at + length.len());
            lie[at..end].copy_from_slice(&length[..end - at]);
            all.push(lie);
        }
        all.push(body[..at].to_vec());
        let mut lie = body.to_vec();
        lie[at] ^= 1 << (at % 8);
        all.push(lie);
    }
    all
}

/// The most memory the process ever held, in MiB.
fn peak_mib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()));
    let status = status.expect("the process lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        / 1024
}

#[test]
fn api4_lying_frames_do_not_harm_the_process() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let requests = requests(&mut corner);
    let before = peak_mib(&broker);
    let mut open = Vec::new();
    for request in &requests {
        for lie in lies(&request.body) {
            let mut connection = Connection::open(broker.address());
            let (version, header) = (request.version, request.header_version);
            connection.send_bytes(&frame_of(request.key, version, header, 1, &lie));
            open.push(connection);
            if open.len() == 100 {
                // Answers are not waited for: some of the lies are requests to wait. The process answers another.
                assert_eq!(corner.api_versions(0).error_code, 0);
                open.clear();
            }
        }
        assert_eq!(
            corner.api_versions(0).error_code,
            0,
            "after key {}",
            request.key
        );
    }
    let grown = peak_mib(&broker).saturating_sub(before);
    assert!(corner.is_kafka || grown < 256, "grown by {grown} MiB");
    corner.fill(1);
}

#[test]
fn l91_noise_does_not_harm_the_process() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    for round in 0..300u32 {
        let mut connection = Connection::open(broker.address());
        let noise: Vec<u8> = (0..round % 40).flat_map(|_| next()).collect();
        if round % 2 == 0 {
            connection.send_bytes(&u32::try_from(noise.len()).expect("short").to_be_bytes());
        }
        connection.send_bytes(&noise);
    }
    assert_eq!(corner.api_versions(0).error_code, 0);
    corner.fill(1);
}
