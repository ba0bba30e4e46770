//! X-294 (B-26): requests of transactions with bytes cut off or turned. The broker lives, what it refuses changes nothing, and others
//! go on.

use crate::world::Answer::At;
use crate::world::{PROGRAM, World};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiVersionsRequest,
    DescribeProducersRequest, DescribeTransactionsRequest, EndTxnRequest, ListTransactionsRequest,
    WriteTxnMarkersRequest,
};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{
    Client, ProduceCall, Producer, group_id, topic_name, transactional_id, unique,
};
use tally_testkit::seed::Seed;
use tally_testkit::waiting::wait_until;
use tally_testkit::wire::{Connection, frame};

/// Frames with turned bytes.
const TURNED: u64 = 400;
/// Of the request under test, and of the question behind it.
const MUTATED: i32 = 77;
const AFTER: i32 = 78;
const WRITE_MARKERS: [u8; 2] = [0, 27];
/// Length, key, version, correlation id: turned, it would be another request.
const HEAD: usize = 12;

/// All requests of a transaction, of both flows, and those of operators.
fn requests(world: &mut World, a: Producer, group: &str) -> Vec<Vec<u8>> {
    let (id, topic) = (world.id.clone(), world.topic.clone());
    let mut all = Vec::new();
    all.push(frame(0, MUTATED, &world.ipi_request(None)));
    for version in [3, 4] {
        all.push(frame(version, MUTATED, &world.ipi_request(Some(a))));
    }
    let added = AddPartitionsToTxnTopic::default()
        .with_name(topic_name(&topic))
        .with_partitions(vec![0]);
    let add = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id(&id))
        .with_v3_and_below_producer_id(a.id.into())
        .with_v3_and_below_producer_epoch(a.epoch)
        .with_v3_and_below_topics(vec![added]);
    let offsets = AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id(&id))
        .with_producer_id(a.id.into())
        .with_producer_epoch(a.epoch)
        .with_group_id(group_id(group));
    let end = EndTxnRequest::default()
        .with_transactional_id(transactional_id(&id))
        .with_producer_id(a.id.into())
        .with_producer_epoch(a.epoch)
        .with_committed(true);
    let commit = Client::txn_offset_commit_request(&id, a, group, &[(&topic, 0, 7)]);
    for version in [0, 3] {
        all.push(frame(version, MUTATED, &add));
        all.push(frame(version, MUTATED, &offsets));
        all.push(frame(version, MUTATED, &end));
        all.push(frame(version, MUTATED, &commit));
    }
    all.push(frame(5, MUTATED, &end));
    all.push(frame(5, MUTATED, &commit));
    for version in [9, 12] {
        let batch = Batch::transactional(a.id, a.epoch, 1, 2).encode();
        let call = ProduceCall {
            version,
            acks: -1,
            transactional_id: Some(&id),
            parts: vec![(&topic, 0, Some(batch))],
        };
        all.push(frame(
            version,
            MUTATED,
            &world.client.produce_request(&call),
        ));
    }
    let marked = WritableTxnMarkerTopic::default()
        .with_name(topic_name(&topic))
        .with_partition_indexes(vec![0]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(a.id.into())
        .with_producer_epoch(a.epoch)
        .with_coordinator_epoch(1000)
        .with_topics(vec![marked]);
    let markers = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    all.push(frame(1, MUTATED, &markers));
    let described =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id(&id)]);
    all.push(frame(0, MUTATED, &described));
    let list = ListTransactionsRequest::default().with_producer_id_filters(vec![a.id.into()]);
    all.push(frame(1, MUTATED, &list));
    all
}

/// Whether the broker goes on with this connection after the frame. What it answers to it is not looked at.
#[track_caller]
fn is_taken(address: &str, bytes: &[u8]) -> bool {
    let mut connection = Connection::open(address);
    connection.send_bytes(bytes);
    connection.send_bytes(&frame(0, AFTER, &ApiVersionsRequest::default()));
    loop {
        let Some(frame) = connection.receive_frame() else {
            return false;
        };
        if frame.starts_with(&AFTER.to_be_bytes()) {
            return true;
        }
    }
}

/// Everything that a request of these could change.
#[track_caller]
fn state(world: &mut World, group: &str) -> String {
    let (id, topic) = (world.id.clone(), world.topic.clone());
    let of_id =
        DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id(&id)]);
    let of_topic = TopicRequest::default()
        .with_name(topic_name(&topic))
        .with_partition_indexes(vec![0]);
    let of_topic = DescribeProducersRequest::default().with_topics(vec![of_topic]);
    let client = &mut world.client;
    let transaction = client.call(0, &of_id).transaction_states;
    let producers = client.call(0, &of_topic).topics;
    let ends = (client.latest(&topic, 0), client.stable(&topic, 0));
    let offset = client.committed_offset(group, &topic, 0, false);
    format!("{transaction:?} {producers:?} {ends:?} {offset:?}")
}

#[test]
fn x294_what_is_refused_changes_nothing() {
    let mut world = World::new();
    let group = unique("g");
    world.client.wait_for_group(&group);
    let topic = world.topic.clone();
    assert_eq!(world.client.commit_offset(&group, &topic, 0, 5), 0);
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    let before = state(&mut world, &group);
    for whole in requests(&mut world, a, &group) {
        let step = 1 + whole.len() / 30;
        for length in (HEAD..whole.len()).step_by(step) {
            let mut cut = whole[..length].to_vec();
            let rest = i32::try_from(length - 4).expect("a short frame");
            cut[..4].copy_from_slice(&rest.to_be_bytes());
            let key = &whole[4..8];
            if !is_taken(&world.address, &cut) {
                assert_eq!(state(&mut world, &group), before, "{key:?} cut to {length}");
            }
        }
    }
    assert_eq!(state(&mut world, &group), before, "nothing of it was whole");
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(2);
}

#[test]
fn x294_turned_bytes_hurt_nobody() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    let mut other = World::on(&broker);
    let pid = broker.pid();
    let b = other.ipi();
    assert_eq!(other.apt(b), 0);
    let group = unique("g");
    world.client.wait_for_group(&group);
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    let mut whole = requests(&mut world, a, &group);
    // An operator's marker that is taken may claim any epoch of a coordinator, and ours is refused from then on (M-5).
    whole.retain(|frame| frame[4..6] != WRITE_MARKERS);
    let mut seed = Seed::new(294);
    let mut next = 0;
    for round in 0..TURNED {
        let mut bytes = whole[seed.index(whole.len())].clone();
        for _ in 0..=seed.below(3) {
            let at = HEAD + seed.index(bytes.len() - HEAD);
            bytes[at] ^= u8::try_from(1 + seed.below(255)).expect("a byte");
        }
        is_taken(&world.address, &bytes);
        if round % 20 == 0 {
            assert_eq!(other.td9(b, next, 1), At(next.into()), "round {round}");
            next += 1;
        }
    }
    assert_eq!(broker.pid(), pid, "it lives");
    assert_eq!(other.commit4(b), 0);
    other.expect_lso(i64::from(next) + 1);
    // Whatever has become of the one under fire, it can begin anew.
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    let at = world.leo();
    assert_eq!(world.td9(a, 0, 1), At(at));
    assert_eq!(world.commit4(a), 0);
    wait_until("nothing is open", || world.lso() == world.leo());
}
