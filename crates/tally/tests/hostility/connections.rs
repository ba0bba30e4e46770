//! Peers that go away while something waits for them, or never read.

use crate::{PROGRAM, anonymous_bytes, sockets};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::FetchCall;
use tally_testkit::waiting::wait_until;
use tally_testkit::wire::{Connection, frame, frame_of};

const FAR: i32 = i32::MAX;

#[test]
fn a_long_poll_ends_with_its_connection() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    let before = sockets(&broker);
    let mut call = FetchCall::of("t", 0, 0, 0);
    (call.max_wait_ms, call.min_bytes) = (FAR, 1);
    let parked = frame(12, 1, &client.fetch_request(&call));
    let mut peers: Vec<Connection> = (0..10)
        .map(|_| Connection::open(broker.address()))
        .collect();
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.send_bytes(&parked);
        if at % 2 == 0 {
            // Requests behind the parked one, which nobody will answer any more.
            peer.send_bytes(&parked);
        }
    }
    wait_until("ten more connections", || sockets(&broker) >= before + 10);
    drop(peers);
    wait_until("the sockets are closed", || sockets(&broker) <= before);
    assert_eq!(client.produce_plain("t", 0, 1).error, 0);
}

#[test]
fn a_peer_that_closes_its_side_still_gets_what_it_asked_for() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut connection = Connection::open(broker.address());
    for correlation_id in 1..=3 {
        connection.send_bytes(&frame_of(18, 0, 1, correlation_id, &[]));
    }
    connection.finish_sending();
    for correlation_id in 1..=3u8 {
        let answer = connection.receive_frame().expect("an answer");
        assert_eq!(answer[..4], [0, 0, 0, correlation_id]);
    }
    assert!(connection.receive_frame().is_none());
}

/// LR-156: taking nothing of what is written is as idle as sending nothing.
#[test]
fn lr156_a_peer_that_never_reads_is_let_go() {
    // Long enough for a test that a busy machine stops between two requests.
    let broker = Broker::start(PROGRAM, &["connections.max.idle.ms=3000"]);
    let before = sockets(&broker);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    assert!(sockets(&broker) > before);
    let large = Batch::plain(1).with_values(&"v".repeat(900_000)).encode();
    assert_eq!(client.produce_one("t", 0, large).error, 0);
    let fetch = frame(12, 1, &client.fetch_request(&FetchCall::of("t", 0, 0, 0)));
    for _ in 0..200 {
        client.send_bytes(&fetch);
    }
    wait_until("the socket is closed", || sockets(&broker) <= before);
}

#[test]
fn lr152_what_is_not_served_is_refused_before_it_is_buffered() {
    let mut connection = Connection::open(Broker::shared(PROGRAM));
    // A length of 90 MiB and a key that no API has: the rest is never sent.
    connection.send_bytes(&[0x05, 0xa0, 0, 0, 0x03, 0xe7, 0, 0]);
    assert!(connection.receive_frame().is_none());
}

/// LR-158: the memory of requests that are half here has a limit, and small requests go on.
#[test]
fn lr158_large_requests_that_never_end_stop_being_read_and_others_go_on() {
    let broker = Broker::start(PROGRAM, &["queued.max.request.bytes=1000000"]);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    let before = anonymous_bytes(&broker);
    let most = [&900_000_i32.to_be_bytes()[..], &[0; 800_000]].concat();
    let mut peers: Vec<(Connection, usize)> = (0..100)
        .map(|_| (Connection::open(broker.address()), 0))
        .collect();
    for _ in 0..100 {
        for (peer, sent) in &mut peers {
            // What the broker does not read fills the sockets.
            *sent += peer.send_what_is_taken(&most[*sent..]);
        }
        assert_eq!(client.produce_plain("t", 0, 1).error, 0);
    }
    let grown = anonymous_bytes(&broker).saturating_sub(before);
    assert!(grown < 40 << 20, "grown by {grown} bytes");
    drop(peers);
    let large = Batch::plain(1).with_values(&"v".repeat(900_000)).encode();
    assert_eq!(client.produce_one("t", 0, large).error, 0);
}
