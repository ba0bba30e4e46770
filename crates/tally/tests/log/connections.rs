//! Connections: L90, L92, L93, and the frames of api-matrix.md section 6.

use crate::corner::{Corner, PROGRAM};
use kafka_protocol::messages::FetchRequest;
use tally_testkit::batches::Batch;
use tally_testkit::broker::{Broker, is_reference};
use tally_testkit::client::{FetchCall, ProduceCall};
use tally_testkit::waiting::wait_until;
use tally_testkit::wire::{Connection, frame_of, request_header_version};

/// Sends bytes on a connection of their own; whether the broker closes it without an answer.
#[track_caller]
fn is_closed(bytes: &[u8]) -> bool {
    let mut connection = Connection::open(Broker::shared(PROGRAM));
    connection.send_bytes(bytes);
    connection.receive_frame().is_none()
}

#[test]
fn l90_impossible_lengths_close_the_connection() {
    let mut witness = Corner::new();
    for length in [-1, i32::MIN, i32::MAX, 100 * 1024 * 1024 + 1, 0, 1, 3] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0; 64]);
        assert!(is_closed(&bytes), "length {length}");
    }
    for length in 0..10u32 {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.resize(4 + length as usize, 0);
        assert!(is_closed(&bytes), "a frame of {length} bytes");
    }
    assert_eq!(witness.api_versions(0).error_code, 0);
}

#[test]
fn l90_unknown_keys_and_versions_close_the_connection() {
    let mut witness = Corner::new();
    let listed = witness.api_versions(4).api_keys;
    for key in [-1, 4, 5, 6, 7, 200, i16::MAX] {
        assert!(is_closed(&frame_of(key, 0, 1, 1, &[0; 16])), "key {key}");
    }
    for row in listed {
        if row.api_key == 18 {
            continue;
        }
        // Produce is listed from 0 and served from 3 (api-matrix.md section 1).
        let min = if row.api_key == 0 { 3 } else { row.min_version };
        for version in [-1, min - 1, row.max_version + 1] {
            let header_version = request_header_version(row.api_key, version.max(0));
            let frame = frame_of(row.api_key, version, header_version, 1, &[0; 64]);
            assert!(is_closed(&frame), "key {} version {version}", row.api_key);
        }
    }
    assert_eq!(witness.api_versions(0).error_code, 0);
}

#[test]
fn l91_a_frame_may_come_byte_by_byte() {
    let mut connection = Connection::open(Broker::shared(PROGRAM));
    for byte in frame_of(18, 0, 1, 77, &[]) {
        connection.send_bytes(&[byte]);
    }
    let frame = connection.receive_frame().expect("an answer");
    assert_eq!(frame[..4], 77i32.to_be_bytes());
}

#[test]
fn l93_idle_connections_are_closed_and_those_that_wait_are_not() {
    let broker = Broker::start(PROGRAM, &["connections.max.idle.ms=2500"]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    // LN-11: a request that waits is no idleness.
    let topic = corner.topic.clone();
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    (call.max_wait_ms, call.min_bytes) = (3500, 1);
    let fetch = corner.fetch_request(&call);
    let fetched = corner.call(call.version, &fetch);
    assert_eq!(fetched.error_code, 0);
    let mut idle = Connection::open(broker.address());
    idle.send_bytes(&frame_of(18, 0, 1, 7, &[]));
    assert!(idle.receive_frame().is_some());
    assert_eq!(idle.receive_frame(), None, "closed when nothing came");
    // So was the corner's own meanwhile.
    corner.reconnect(&broker);
}

#[test]
fn l93_an_address_has_so_many_connections() {
    two_connections_are_served(&["max.connections.per.ip=2"]);
    if !is_reference() {
        // Kafka does not accept one too many until there is room (LR-157).
        two_connections_are_served(&["max.connections=2"]);
    }
    two_connections_are_served(&[
        "max.connections.per.ip=0",
        "max.connections.per.ip.overrides=127.0.0.1:2",
    ]);
}

fn two_connections_are_served(settings: &[&str]) {
    let broker = Broker::start(PROGRAM, settings);
    let answers = |connection: &mut Connection| {
        connection.send_bytes(&frame_of(18, 0, 1, 7, &[]));
        connection.receive_frame().is_some()
    };
    let mut open = Vec::new();
    // Whoever looked whether the broker is up may not be gone yet.
    wait_until("two connections are served", || {
        let mut connection = Connection::open(broker.address());
        if answers(&mut connection) {
            open.push(connection);
        }
        open.len() == 2
    });
    assert!(!answers(&mut Connection::open(broker.address())), "closed");
    assert!(open.iter_mut().all(answers), "the others stay");
    open.pop();
    wait_until("there is room for another one", || {
        answers(&mut Connection::open(broker.address()))
    });
}

#[test]
fn l92_answers_come_in_the_order_of_the_requests() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    call.max_wait_ms = 300;
    call.min_bytes = 1;
    let fetch = corner.fetch_request(&call);
    let produce = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: None,
        parts: vec![(&topic, 0, Some(Batch::plain(1).encode()))],
    };
    let request = corner.produce_request(&produce);
    let first = (*corner.client).send(12, &fetch);
    let second = (*corner.client).send(9, &request);
    let response = corner.receive::<FetchRequest>(12, first);
    assert_eq!(response.error_code, 0);
    let response = corner.receive::<kafka_protocol::messages::ProduceRequest>(9, second);
    assert_eq!(corner.produced(&produce, &response)[0].error, 0);
}

#[test]
fn lr154_bytes_behind_the_body_are_ignored() {
    let mut connection = Connection::open(Broker::shared(PROGRAM));
    connection.send_bytes(&frame_of(18, 0, 1, 5, &[1, 2, 3]));
    let frame = connection.receive_frame().expect("an answer");
    assert_eq!(frame[..4], 5i32.to_be_bytes());
}
