//! 12.9 What operators see and do.

use crate::admin::describe;
use crate::world::{Answer::*, World, bumped};
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::ProducerState;
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, ListTransactionsRequest,
    ListTransactionsResponse, WriteTxnMarkersRequest,
};
use tally_testkit::client::{Client, Producer, text, topic_name, transactional_id, unique};
use tally_testkit::waiting::wait_until;
use tally_testkit::wire::{decode_response, frame_of};

#[test]
fn x250_each_id_gets_its_own_answer() {
    let mut world = World::with_topic(2, &[]);
    let a = world.ipi();
    let (topic, id) = (world.topic.clone(), world.id.clone());
    assert_eq!(world.apt_to(3, a, &[(&topic, 0), (&topic, 1)]), [0, 0]);
    let missing = unique("nope");
    wait_until("the coordinator of the missing id", || {
        world.client.find_coordinator(&missing, 1) == 0
    });
    let ids = [id.as_str(), "", &missing];
    let request = DescribeTransactionsRequest::default()
        .with_transactional_ids(ids.map(transactional_id).to_vec());
    let response = world.client.call(0, &request);
    let by_id = |id: &str| {
        let mut states = response.transaction_states.iter();
        let state = states.find(|state| &*state.transactional_id.0 == id);
        state.expect("described")
    };
    let state = by_id(&id);
    assert_eq!(state.error_code, 0);
    assert_eq!(&*state.transaction_state, "Ongoing");
    assert_eq!((state.producer_id.0, state.producer_epoch), (a.id, a.epoch));
    assert_eq!(state.transaction_timeout_ms, 60_000);
    assert!(state.transaction_start_time_ms > 0);
    assert_eq!(state.topics.len(), 1);
    let mut partitions = state.topics[0].partitions.clone();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1]);
    assert_eq!(by_id("").error_code, 42);
    let unknown = by_id(&missing);
    assert_eq!(unknown.error_code, 105);
    assert_eq!(
        (unknown.producer_id.0, unknown.producer_epoch),
        (0, 0),
        "L-6"
    );
    assert_eq!(world.abort4(a), 0);
}

/// ListTransactions v2, of the ids that begin with `prefix`.
#[track_caller]
fn list(
    client: &mut Client,
    prefix: &str,
    request: &ListTransactionsRequest,
) -> (Vec<(String, String)>, ListTransactionsResponse) {
    let mut response = client.call(2, request);
    while response.error_code == 14 {
        response = client.call(2, request);
    }
    let mut listed: Vec<_> = response
        .transaction_states
        .iter()
        .map(|state| {
            let id = state.transactional_id.0.to_string();
            (id, state.transaction_state.to_string())
        })
        .filter(|(id, _)| id.starts_with(prefix))
        .collect();
    listed.sort();
    (listed, response)
}

#[test]
fn x252_x253_transactions_are_listed_and_filtered() {
    let mut world = World::new();
    let prefix = unique("list");
    let mut producer = |name: &str| {
        world.id = format!("{prefix}-{name}");
        world.ipi()
    };
    producer("empty");
    let ongoing = producer("ongoing");
    assert_eq!(world.apt(ongoing), 0);
    world.id = format!("{prefix}-done");
    let done = world.ipi();
    assert_eq!(world.apt(done), 0);
    assert_eq!(world.commit4(done), 0);
    if world.is_kafka {
        // It writes that after the markers, which come after the answer (D-6).
        let id = world.id.clone();
        wait_until("the transaction is complete", || {
            &*describe(&mut world, &[&id])[0].transaction_state == "CompleteCommit"
        });
    }
    let row = |name: &str, state: &str| (format!("{prefix}-{name}"), state.to_owned());
    let all = || ListTransactionsRequest::default().with_transactional_id_pattern(None);
    let states = |names: &[&str]| all().with_state_filters(names.iter().map(|n| text(n)).collect());
    let client = &mut world.client;

    let (listed, _) = list(client, &prefix, &all());
    let everything = [
        row("done", "CompleteCommit"),
        row("empty", "Empty"),
        row("ongoing", "Ongoing"),
    ];
    assert_eq!(listed, everything);
    let (listed, response) = list(client, &prefix, &states(&["Ongoing", "Foo"]));
    assert_eq!(listed, [row("ongoing", "Ongoing")]);
    assert_eq!(response.unknown_state_filters, [text("Foo")]);
    let (_, response) = list(client, "", &states(&["Foo"]));
    assert!(response.transaction_states.is_empty());
    let by_pid = all().with_producer_id_filters(vec![done.id.into()]);
    let (listed, _) = list(client, "", &by_pid);
    assert_eq!(listed, [row("done", "CompleteCommit")]);
    let (listed, _) = list(client, &prefix, &all().with_duration_filter(3_600_000));
    assert_eq!(
        listed,
        [row("empty", "Empty")],
        "a start of -1 counts as long ago"
    );
    let pattern = |pattern: &str| all().with_transactional_id_pattern(Some(text(pattern)));
    let (listed, _) = list(client, "", &pattern(&format!("{prefix}-.n.*")));
    assert_eq!(listed, [row("ongoing", "Ongoing")]);
    let (_, response) = list(client, "", &pattern("("));
    assert_eq!(response.error_code, 128);
    world.id = format!("{prefix}-ongoing");
    assert_eq!(world.abort4(ongoing), 0);
}

/// DescribeProducers of t-0.
#[track_caller]
fn producers(world: &mut World) -> Vec<ProducerState> {
    let topic = TopicRequest::default()
        .with_name(topic_name(&world.topic))
        .with_partition_indexes(vec![0]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let response = world.client.call(0, &request);
    let part = &response.topics[0].partitions[0];
    assert_eq!(part.error_code, 0);
    part.active_producers.clone()
}

#[test]
fn x254_producers_before_and_after_a_commit() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.td12(a, 0, 2), At(0));
    let open = producers(&mut world).remove(0);
    assert_eq!(open.producer_id.0, a.id);
    assert_eq!((open.producer_epoch, open.last_sequence), (0, 1));
    assert_eq!(open.current_txn_start_offset, 0);
    assert_eq!(open.coordinator_epoch, -1);
    assert!(open.last_timestamp > 0);
    assert_eq!(world.commit5(a), (0, bumped(a)));
    world.expect_lso(3);
    let ended = producers(&mut world).remove(0);
    assert_eq!((ended.producer_epoch, ended.last_sequence), (1, -1));
    assert_eq!(ended.current_txn_start_offset, -1);
    assert!(ended.coordinator_epoch >= 0);
}

/// WriteTxnMarkers v2, which the codec crate lacks: one COMMIT marker for t-0, its code.
#[track_caller]
fn write_marker_v2(world: &mut World, producer: Producer, transaction_version: i8) -> i16 {
    let coordinator_epoch = producers(world)[0].coordinator_epoch.max(0);
    let mut body = BytesMut::new();
    body.put_u8(2);
    body.put_i64(producer.id);
    body.put_i16(producer.epoch);
    body.put_u8(1);
    body.put_u8(2);
    body.put_u8(u8::try_from(world.topic.len() + 1).expect("short"));
    body.put_slice(world.topic.as_bytes());
    body.put_u8(2);
    body.put_i32(0);
    body.put_u8(0);
    body.put_i32(coordinator_epoch);
    body.put_i8(transaction_version);
    body.put_u8(0);
    body.put_u8(0);
    world.client.send_bytes(&frame_of(27, 2, 2, 99, &body));
    let frame = world.client.receive_frame().expect("an answer");
    let response = decode_response::<WriteTxnMarkersRequest>(1, 99, frame);
    response.markers[0].topics[0].partitions[0].error_code
}

#[test]
fn x182_markers_of_version_two() {
    let mut world = World::new();
    for _ in 0..3 {
        world.ipi();
    }
    let three = world.ipi();
    assert_eq!(world.apt(three), 0);
    assert_eq!(world.td9(three, 0, 1), At(0));
    assert_eq!(
        write_marker_v2(&mut world, three, 2),
        47,
        "its data has that epoch"
    );
    assert_eq!(world.commit4(three), 0);
    world.expect_lso(2);
    assert_eq!(write_marker_v2(&mut world, three, 2), 0, "repeated");
    let older = Producer {
        id: three.id,
        epoch: 2,
    };
    assert_eq!(write_marker_v2(&mut world, older, 2), 47);
}

#[test]
fn x185_an_operator_ends_a_transaction_on_a_partition() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    let hanging = producers(&mut world).remove(0);
    assert_eq!(hanging.current_txn_start_offset, 0);
    let producer = Producer {
        id: hanging.producer_id.0,
        epoch: i16::try_from(hanging.producer_epoch).expect("an epoch"),
    };
    let coordinator = hanging.coordinator_epoch;
    assert_eq!(
        crate::log::write_marker(&mut world, producer, coordinator, false),
        0
    );
    assert_eq!(world.lso(), 2);
    assert_eq!(world.rc(0).aborted, Some(vec![(a.id, 0)]));
}
