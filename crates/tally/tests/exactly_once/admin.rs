//! What operators see of producers and transactions, and how they end one that hangs.

use crate::world::{Answer, PROGRAM, World, at_epoch};
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::PartitionResponse;
use kafka_protocol::messages::describe_transactions_response::TransactionState;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, ListTransactionsRequest,
    ListTransactionsResponse, WriteTxnMarkersRequest,
};
use kafka_protocol::protocol::Encodable;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Producer, text, topic_name, transactional_id, unique};
use tally_testkit::waiting::wait_until;
use tally_testkit::wire::{decode_response, frame_of};

#[track_caller]
pub(crate) fn describe(world: &mut World, ids: &[&str]) -> Vec<TransactionState> {
    let ids = ids.iter().map(|id| transactional_id(id)).collect();
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    world.client.call(0, &request).transaction_states
}

#[track_caller]
fn producers(world: &mut World, topic: &str, partition: i32) -> PartitionResponse {
    let topic = TopicRequest::default()
        .with_name(topic_name(topic))
        .with_partition_indexes(vec![partition]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let mut response = world.client.call(0, &request);
    response.topics.remove(0).partitions.remove(0)
}

fn ids(response: &ListTransactionsResponse) -> Vec<String> {
    assert_eq!(response.error_code, 0);
    let rows = response.transaction_states.iter();
    rows.map(|row| row.transactional_id.to_string()).collect()
}

/// A marker for partition 0 of the test's topic.
pub(crate) fn marker(world: &World, producer: Producer, commit: bool) -> WritableTxnMarker {
    let topic = WritableTxnMarkerTopic::default()
        .with_name(topic_name(&world.topic))
        .with_partition_indexes(vec![0]);
    WritableTxnMarker::default()
        .with_producer_id(producer.id.into())
        .with_producer_epoch(producer.epoch)
        .with_transaction_result(commit)
        .with_coordinator_epoch(i32::MAX)
        .with_topics(vec![topic])
}

/// WriteTxnMarkers of one marker for one partition; the partition's code.
#[track_caller]
pub(crate) fn write(world: &mut World, version: i16, marker: WritableTxnMarker, rule: u8) -> i16 {
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let mut body = BytesMut::new();
    request.encode(&mut body, 1).expect("encodes");
    if version >= 2 {
        // The codec crate has no version 2: the rule stands in front of the marker's tags.
        body.truncate(body.len() - 2);
        body.put_slice(&[rule, 0, 0]);
    }
    world
        .client
        .send_bytes(&frame_of(27, version, 2, 77, &body));
    let frame = world.client.receive_frame().expect("an answer");
    let response = decode_response::<WriteTxnMarkersRequest>(1, 77, frame);
    assert_eq!(response.markers.len(), 1);
    response.markers[0].topics[0].partitions[0].error_code
}

#[test]
fn x250_an_open_transaction_is_described() {
    let mut world = World::with_topic(2, &[]);
    let producer = world.ipi();
    let topic = world.topic.clone();
    assert_eq!(
        world.apt_to(3, producer, &[(&topic, 0), (&topic, 1)]),
        [0, 0]
    );
    let (id, unknown) = (world.id.clone(), unique("x"));
    let mut rows = describe(&mut world, &[&id, "", &unknown]);
    rows[0].topics[0].partitions.sort_unstable();
    let open = &rows[0];
    assert_eq!((open.error_code, &*open.transaction_state), (0, "Ongoing"));
    assert_eq!(*open.transactional_id, *id);
    assert_eq!(
        (open.producer_id.0, open.producer_epoch),
        (producer.id, producer.epoch)
    );
    assert_eq!(open.transaction_timeout_ms, 60_000);
    assert!(open.transaction_start_time_ms > 0);
    assert_eq!(open.topics.len(), 1);
    assert_eq!(*open.topics[0].topic, *topic);
    assert_eq!(open.topics[0].partitions, [0, 1]);
    for (row, code) in rows[1..].iter().zip([42, 105]) {
        assert_eq!(row.error_code, code);
        assert_eq!(&*row.transaction_state, "");
        assert_eq!((row.producer_id.0, row.producer_epoch), (0, 0), "L-6");
    }
    assert_eq!(world.commit4(producer), 0);
    let rows = describe(&mut world, &[&id]);
    if !world.is_kafka {
        assert_eq!(&*rows[0].transaction_state, "CompleteCommit");
        assert!(rows[0].topics.is_empty());
    }
}

#[test]
fn x252_transactions_are_listed_by_state() {
    // Another broker, so that no other test's ids are in the way.
    let broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    world.client.wait_for_coordinators();
    let mut with_state = Vec::new();
    for open_and_commit in [(false, false), (true, false), (true, true)] {
        world.id = unique("x");
        let producer = world.ipi();
        if open_and_commit.0 {
            assert_eq!(world.apt(producer), 0);
        }
        if open_and_commit.1 {
            assert_eq!(world.commit4(producer), 0);
        }
        with_state.push((world.id.clone(), producer.id));
    }
    let [empty, ongoing, complete] = &with_state[..] else {
        panic!("three ids")
    };
    let all = ListTransactionsRequest::default().with_transactional_id_pattern(None);
    let by_state = |states: &[&str]| {
        let states = states.iter().map(|state| text(state)).collect();
        all.clone().with_state_filters(states)
    };
    let response = world.client.call(0, &by_state(&["Ongoing", "Foo"]));
    assert_eq!(ids(&response), std::slice::from_ref(&ongoing.0));
    assert_eq!(response.unknown_state_filters, [text("Foo")]);
    assert_eq!(
        &*response.transaction_states[0].transaction_state,
        "Ongoing"
    );
    assert_eq!(response.transaction_states[0].producer_id.0, ongoing.1);
    //
    let response = world.client.call(0, &by_state(&["Foo"]));
    assert_eq!(ids(&response), [""; 0]);
    assert_eq!(response.unknown_state_filters, [text("Foo")]);
    let by_producer = all
        .clone()
        .with_producer_id_filters(vec![complete.1.into()]);
    let response = world.client.call(0, &by_producer);
    assert_eq!(ids(&response), std::slice::from_ref(&complete.0));
    let old = all.clone().with_duration_filter(3_600_000);
    let response = world.client.call(1, &old);
    assert_eq!(
        ids(&response),
        std::slice::from_ref(&empty.0),
        "start is -1"
    );
    for (pattern, count) in [("x.*", 3), ("", 3), ("x", 0), (&*empty.0, 1)] {
        let request = all
            .clone()
            .with_transactional_id_pattern(Some(text(pattern)));
        let listed = ids(&world.client.call(2, &request));
        assert_eq!(listed.len(), count, "{pattern:?}");
    }
    let bad = all.with_transactional_id_pattern(Some(text("(")));
    assert_eq!(world.client.call(2, &bad).error_code, 128);
}

#[test]
fn x254_producers_of_a_partition_are_described() {
    let mut world = World::new();
    let producer = world.ipi();
    let topic = world.topic.clone();
    assert_eq!(world.td12(producer, 0, 3), Answer::At(0));
    let open = producers(&mut world, &topic, 0);
    assert_eq!((open.error_code, open.active_producers.len()), (0, 1));
    let row = &open.active_producers[0];
    assert_eq!(row.producer_id.0, producer.id);
    assert_eq!(row.producer_epoch, i32::from(producer.epoch));
    assert_eq!((row.last_sequence, row.current_txn_start_offset), (2, 0));
    assert_eq!(row.coordinator_epoch, -1);
    assert!(row.last_timestamp > 0);
    let (code, next) = world.commit5(producer);
    assert_eq!(code, 0);
    wait_until("the marker", || {
        let part = producers(&mut world, &topic, 0);
        part.active_producers[0].current_txn_start_offset == -1
    });
    let ended = producers(&mut world, &topic, 0);
    let row = &ended.active_producers[0];
    assert_eq!(row.producer_epoch, i32::from(next.epoch));
    assert_eq!(row.last_sequence, -1);
    assert!(row.coordinator_epoch >= 0);
    assert_eq!(producers(&mut world, &topic, 1).error_code, 3);
    assert_eq!(producers(&mut world, "nope", 0).error_code, 3);
}

/// L-4: what Java's Admin.abortTransaction sends after it has looked at the producers of the partition.
#[test]
fn x255_an_operator_ends_a_transaction() {
    let mut world = World::new();
    let producer = world.ipi();
    assert_eq!(world.apt(producer), 0);
    assert_eq!(world.td9(producer, 0, 3), Answer::At(0));
    assert_eq!(world.lso(), 0);
    for version in 1..=2 {
        let old = marker(&world, at_epoch(producer, -1), false);
        let code = write(&mut world, version, old, 0);
        assert_ne!(code, 0, "v{version}: no epoch below the entry's");
    }
    let order = marker(&world, producer, false);
    assert_eq!(write(&mut world, 1, order, 0), 0);
    assert_eq!((world.leo(), world.lso()), (4, 4));
    let fetched = world.rc(0);
    assert_eq!(fetched.markers(), [(3, producer.epoch, false)]);
    assert!(fetched.committed().is_empty());
    // M-5: the epoch of the order above is remembered.
    let older = marker(&world, producer, false).with_coordinator_epoch(0);
    assert_eq!(write(&mut world, 2, older, 0), 52);
}

#[test]
fn m4_version_two_wants_a_higher_epoch_of_an_open_transaction() {
    let mut world = World::new();
    let producer = world.ipi();
    assert_eq!(world.td12(producer, 0, 1), Answer::At(0));
    let same = marker(&world, producer, true);
    assert_eq!(write(&mut world, 2, same.clone(), 2), 47);
    let higher = marker(&world, at_epoch(producer, producer.epoch + 1), true);
    assert_eq!(write(&mut world, 2, higher, 2), 0);
    assert_eq!(world.lso(), 2);
    let fetched = world.rc(0);
    assert_eq!(fetched.data_offsets(), [0]);
    // A producer of the old epoch is fenced by it.
    assert_eq!(world.td12(producer, 1, 1), Answer::Code(47));
}

#[test]
fn m10_partitions_that_are_not_there() {
    let mut world = World::new();
    let producer = world.ipi();
    let mut order = marker(&world, producer, false);
    order.topics[0].partition_indexes = vec![9];
    assert_eq!(write(&mut world, 1, order, 0), 3);
    let none = WriteTxnMarkersRequest::default();
    assert!(world.client.call(1, &none).markers.is_empty());
}
