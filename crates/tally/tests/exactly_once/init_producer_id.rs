//! 12.3 InitProducerId.

use crate::admin::describe;
use crate::world::{Answer::*, PROGRAM, World, at_epoch, bumped};
use kafka_protocol::messages::InitProducerIdRequest;
use std::collections::BTreeSet;
use tally_testkit::broker::{Broker, left_out};
use tally_testkit::client::Producer;
use tally_testkit::waiting::wait_until;
use tally_testkit::wire::frame_of;

#[test]
fn x070_without_an_id_each_request_gets_a_new_pid() {
    let mut world = World::new();
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000);
    let (error, a) = world.client.init_producer_id(0, &request);
    assert_eq!((error, a.epoch), (0, 0));
    let (error, b) = world.client.init_producer_id(0, &request);
    assert_eq!((error, b.epoch), (0, 0));
    assert_ne!(a.id, b.id);
}

#[test]
fn x071_without_an_id_a_given_pair_is_ignored() {
    let mut world = World::new();
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(5.into())
        .with_producer_epoch(3);
    let (error, new) = world.client.init_producer_id(3, &request);
    assert_eq!((error, new.epoch), (0, 0));
    assert_ne!(new.id, 5);
}

#[test]
fn x072_half_a_pair_is_refused() {
    let mut world = World::new();
    for (id, epoch) in [(-1, 3), (5, -1)] {
        let (error, pair) = world.ipi_once(Some(Producer { id, epoch }));
        assert_eq!(error, 42);
        assert_eq!(pair, Producer { id: -1, epoch: -1 });
    }
}

#[test]
fn x073_an_empty_id_is_refused() {
    let mut world = World::new();
    world.id = String::new();
    assert_eq!(world.ipi_once(None).0, 42);
}

#[test]
fn x074_the_timeout_has_bounds() {
    let mut world = World::new();
    for (timeout, expected) in [(0, 50), (-1, 50), (900_001, 50), (900_000, 0)] {
        let request = world.ipi_request(None).with_transaction_timeout_ms(timeout);
        let (error, _) = world.client.init_producer_id(4, &request);
        assert_eq!(error, expected, "timeout {timeout}");
    }
}

#[test]
fn x075_the_epoch_rises_with_each_request() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(a.epoch, 0);
    assert_eq!(world.ipi(), at_epoch(a, 1));
    assert_eq!(world.ipi(), at_epoch(a, 2));
}

/// `(A,2)` and Empty.
#[track_caller]
fn at_two(world: &mut World) -> Producer {
    world.ipi();
    world.ipi();
    world.ipi()
}

#[test]
fn x076_a_retry_with_the_old_pair_gets_the_same_answer() {
    let mut world = World::new();
    let two = at_two(&mut world);
    assert_eq!(world.ipi_as(Some(two)), (0, bumped(two)));
    assert_eq!(world.ipi_as(Some(two)), (0, bumped(two)));
}

/// The sender of a late copy was answered long ago, and has ended a transaction since. Apache Kafka answers the copy the same way and
/// puts the id back to Empty: who has lost the answer to that end is then told that there was nothing to end.
#[test]
fn i15_a_late_copy_does_not_hide_how_the_transaction_ended() {
    for (commit, state) in [(true, "CompleteCommit"), (false, "CompleteAbort")] {
        let mut world = World::new();
        let id = world.id.clone();
        let a = world.ipi();
        let (error, b) = world.ipi_as(Some(a));
        assert_eq!((error, b), (0, bumped(a)));
        let mut older = world.another_client();
        assert_eq!((world.apt(b), world.td9(b, 0, 1)), (0, At(0)));
        assert_eq!(world.end(4, b, commit), 0);
        world.expect_lso(2);
        std::mem::swap(&mut older, &mut world.client);
        assert_eq!(world.ipi_as(Some(a)), (0, b), "the copy");
        std::mem::swap(&mut older, &mut world.client);
        let (state, again) = match world.is_kafka {
            true => ("Empty", 48),
            false => (state, 0),
        };
        assert_eq!(&*describe(&mut world, &[&id])[0].transaction_state, state);
        assert_eq!(world.end(4, b, commit), again, "its answer was lost");
        assert_eq!(world.end(4, b, !commit), 48);
        assert_eq!(world.leo(), 2, "no other marker");
        assert_eq!((world.apt(b), world.td9(b, 1, 1)), (0, At(2)));
        assert_eq!(world.end(4, b, commit), 0);
    }
}

#[test]
fn x077_d3_a_retry_is_recognised_after_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    let two = at_two(&mut world);
    assert_eq!(world.ipi_as(Some(two)), (0, bumped(two)));
    broker.kill_and_start();
    world.reconnect(&broker);
    let expected = if world.is_kafka { 90 } else { 0 };
    assert_eq!(world.ipi_as(Some(two)).0, expected);
    if !world.is_kafka {
        assert_eq!(world.ipi_as(Some(two)), (0, bumped(two)));
    }
}

#[test]
fn x078_an_older_pair_is_fenced() {
    let mut world = World::new();
    let two = at_two(&mut world);
    assert_eq!(world.ipi_as(Some(two)), (0, bumped(two)));
    let stale = world.ipi_request(Some(at_epoch(two, 1)));
    assert_eq!(world.client.init_producer_id(4, &stale).0, 90);
    assert_eq!(world.client.init_producer_id(3, &stale).0, 47);
}

#[test]
fn x079_the_pair_of_another_producer_is_fenced() {
    let mut world = World::new();
    let two = at_two(&mut world);
    let other = Producer {
        id: world.pid(),
        epoch: two.epoch,
    };
    assert_eq!(world.ipi_as(Some(other)).0, 90);
}

#[test]
fn x080_a_new_producer_aborts_the_transaction_of_the_old_one() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    let (first, _) = world.ipi_once(None);
    assert_eq!(first, 51);
    assert_eq!(world.ipi(), at_epoch(a, 2));
    world.expect_lso(2);
    assert_eq!(world.ru(0).markers(), [(1, 1, false)]);
    assert_eq!(world.rc(0).committed(), []);
}

#[test]
fn x081_d4_a_stale_pair_does_not_abort_its_successor() {
    let mut world = World::new();
    if world.is_kafka {
        return left_out("D-4");
    }
    at_two(&mut world);
    let three = world.ipi();
    assert_eq!(world.apt(three), 0);
    assert_eq!(world.td9(three, 0, 1), At(0));
    assert_eq!(world.ipi_once(Some(at_epoch(three, 1))).0, 90);
    assert_eq!(world.commit4(three), 0);
    assert_eq!(world.rc(0).committed().len(), 1);
}

/// Raises the epoch of the test's id to `epoch`.
#[track_caller]
pub(crate) fn raise_to(world: &mut World, epoch: i16) -> Producer {
    let mut producer = world.ipi();
    while producer.epoch < epoch {
        producer = world.ipi();
    }
    producer
}

/// Raises the epoch of the test's id to the last one a client may hold.
#[track_caller]
pub(crate) fn exhaust(world: &mut World) -> Producer {
    raise_to(world, i16::MAX - 1)
}

#[test]
fn x082_after_the_last_epoch_comes_a_new_pid() {
    let mut world = World::new();
    let before = raise_to(&mut world, i16::MAX - 2);
    let last = bumped(before);
    assert_eq!(world.ipi_as(Some(before)), (0, last));
    if !world.is_kafka {
        // X-083 D-5
        assert_eq!(world.ipi_as(Some(before)), (0, last));
    }
    let (error, b) = world.ipi_as(Some(last));
    assert_eq!((error, b.epoch), (0, 0));
    assert_ne!(b.id, last.id);
    assert_eq!(world.ipi_as(Some(last)), (0, b));
}

#[test]
fn x084_an_id_that_is_not_used_expires() {
    let settings = [
        "transactional.id.expiration.ms=500",
        "transaction.remove.expired.transaction.cleanup.interval.ms=100",
    ];
    let broker = Broker::start(PROGRAM, &settings);
    let mut world = World::on(&broker);
    let a = world.ipi();
    wait_until("the id expires", || match world.abort4(a) {
        48 => false,
        error => {
            assert_eq!(error, 49);
            true
        }
    });
    assert_eq!(world.apt(a), 49);
    let (error, b) = world.ipi_as(Some(a));
    assert_eq!((error, b.epoch), (0, 0));
    assert_ne!(b.id, a.id);
}

#[test]
fn x085_version_six_is_not_served() {
    let world = World::new();
    let mut client = world.another_client();
    let body = [0u8; 32];
    client.send_bytes(&frame_of(22, 6, 2, 1, &body));
    assert!(client.receive_frame().is_none());
}

#[test]
fn x086_what_api_versions_says_of_transactions() {
    let mut world = World::new();
    let versions = world.client.api_versions(4);
    let row = versions.api_keys.iter().find(|row| row.api_key == 22);
    let row = row.expect("InitProducerId is listed");
    assert_eq!((row.min_version, row.max_version), (0, 5));
    let mut features = versions.finalized_features.iter();
    let feature = features.find(|feature| &*feature.name == "transaction.version");
    let feature = feature.expect("transaction.version is finalized");
    assert_eq!(feature.max_version_level, 2);
    assert!(versions.finalized_features_epoch >= 0);
}

#[test]
fn x087_parallel_requests_never_share_an_epoch() {
    let world = World::new();
    let answers: Vec<(i16, Producer)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    let request = world.ipi_request(None);
                    world.another_client().init_producer_id(4, &request)
                })
            })
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect()
    });
    let mut given = BTreeSet::new();
    for (error, pair) in answers {
        assert!(matches!(error, 0 | 51), "{error}");
        assert!(
            error != 0 || given.insert((pair.id, pair.epoch)),
            "{pair:?}"
        );
    }
    assert!(!given.is_empty());
}

#[test]
fn x088_right_after_the_start_the_coordinator_is_loading_at_worst() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    let a = world.ipi();
    broker.kill_and_start();
    world.reconnect(&broker);
    let request = world.ipi_request(None);
    wait_until("InitProducerId succeeds", || {
        let response = world.client.call(4, &request);
        match response.error_code {
            0 => {
                assert_eq!(response.producer_id.0, a.id);
                assert_eq!(response.producer_epoch, a.epoch + 1);
                true
            }
            14..=16 => false,
            other => panic!("{other}"),
        }
    });
}

#[test]
fn x125_a_fence_below_transaction_version_two() {
    // Apache Kafka does not know the property and runs with version 2: the visible result is the same.
    let broker = Broker::start(PROGRAM, &["tally.transaction.version=1"]);
    let mut world = World::on(&broker);
    if !world.is_kafka {
        let versions = world.client.api_versions(4);
        let mut features = versions.finalized_features.iter();
        let feature = features.find(|feature| &*feature.name == "transaction.version");
        assert_eq!(feature.map(|feature| feature.max_version_level), Some(1));
    }
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    assert_eq!(world.ipi_once(None).0, 51);
    assert_eq!(world.ipi(), at_epoch(a, 2));
    world.expect_lso(2);
    assert_eq!(world.ru(0).markers(), [(1, 1, false)]);
    assert_eq!(world.rc(0).committed(), []);
    assert_eq!(world.td9(a, 1, 1), Code(47));
    assert_eq!(world.commit4(a), 90);
    // S-13 forgets the epoch before, so the fenced pair is no retry; nor is it after a fence and a new producer.
    assert_eq!(world.ipi_as(Some(a)).0, 90);
}
