//! 12.5 Transactions whose epoch rises with every EndTxn (KIP-890): what Java and franz-go do.

use crate::init_producer_id::{exhaust, raise_to};
use crate::world::{Answer::*, PROGRAM, World, at_epoch, bumped};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{ProduceCall, Producer};
use tally_testkit::waiting::wait_until;

/// one committed transaction; the producer before it.
#[track_caller]
fn committed(world: &mut World) -> Producer {
    let a = world.ipi();
    assert_eq!(world.td12(a, 0, 2), At(0));
    assert_eq!(world.commit5(a), (0, bumped(a)));
    a
}

#[test]
fn x140_produce_joins_and_the_commit_raises_the_epoch() {
    let mut world = World::new();
    committed(&mut world);
    world.expect_lso(3);
    assert_eq!(world.ru(0).markers(), [(2, 1, true)]);
    assert_eq!(world.rc(0).committed().len(), 2);
}

#[test]
fn x141_the_next_transaction_starts_at_zero() {
    let mut world = World::new();
    let next = bumped(committed(&mut world));
    assert_eq!(world.td12(next, 0, 1), At(3));
    assert_eq!(world.td12(next, 1, 1), At(4));
}

#[test]
fn x142_it_starts_nowhere_else() {
    let mut world = World::new();
    let next = bumped(committed(&mut world));
    assert_eq!(world.td12(next, 2, 1), Code(45));
}

#[test]
fn x143_late_data_of_the_last_transaction_is_fenced() {
    let mut world = World::new();
    let a = committed(&mut world);
    world.expect_lso(3);
    assert_eq!(world.td12(a, 2, 1), Code(47));
    assert_eq!(world.td12(a, 0, 2), Code(47));
}

#[test]
fn x144_a_repeated_commit_gets_the_same_pair() {
    let mut world = World::new();
    let a = committed(&mut world);
    assert_eq!(world.commit5(a), (0, bumped(a)));
    assert_eq!(world.abort5(a).0, 48);
}

#[test]
fn x145_ending_nothing_after_a_commit() {
    let mut world = World::new();
    let next = bumped(committed(&mut world));
    world.expect_lso(3);
    assert_eq!(world.commit5(next).0, 48);
    assert_eq!(world.abort5(next), (0, bumped(next)));
    assert_eq!(world.leo(), 3, "no marker");
}

#[test]
fn x146_ending_nothing_at_all() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.commit5(a).0, 48);
    assert_eq!(world.abort5(a), (0, bumped(a)));
}

#[test]
fn x147_an_old_abort_is_a_retry_only_of_an_abort() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.ipi(), bumped(a));
    assert_eq!(world.abort5(a).0, 90);
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.abort5(a), (0, bumped(a)));
    assert_eq!(world.abort5(a), (0, bumped(a)));
}

#[test]
fn x148_another_epoch_ends_nothing() {
    let mut world = World::new();
    let a = world.ipi();
    let one = world.ipi();
    assert_eq!(world.td12(one, 0, 1), At(0));
    assert_eq!(world.commit5(a).0, 90);
    assert_eq!(world.commit5(bumped(one)).0, 90);
    assert_eq!(world.commit5(one), (0, bumped(one)), "still Ongoing");
}

#[test]
fn x149_a_delayed_end_does_not_touch_the_next_transaction() {
    let mut world = World::new();
    let a = committed(&mut world);
    let next = bumped(a);
    assert_eq!(world.td12(next, 0, 1), At(3));
    assert_eq!(world.commit5(a).0, 90);
    assert_eq!(world.abort5(a).0, 90);
    assert_eq!(world.lso(), 3, "still open");
    assert_eq!(world.commit5(next), (0, bumped(next)));
}

#[test]
fn x150_after_the_last_epoch_the_commit_gives_a_new_pid() {
    let mut world = World::new();
    let last = exhaust(&mut world);
    assert_eq!(world.td12(last, 0, 1), At(0));
    let (error, b) = world.commit5(last);
    assert_eq!((error, b.epoch), (0, 0));
    assert_ne!(b.id, last.id);
    assert_eq!(world.commit5(last), (0, b));
    world.expect_lso(2);
    let read = world.ru(0);
    assert_eq!(read.markers(), [(1, i16::MAX, true)]);
    assert_eq!(read.batches[1].header.producer_id.0, last.id);
    assert_eq!(world.td12(b, 0, 1), At(2));
}

/// A transaction that timed out with one record at 0; its producer.
#[track_caller]
fn timed_out(world: &mut World) -> Producer {
    let request = world.ipi_request(None).with_transaction_timeout_ms(1000);
    let (error, a) = world.client.init_producer_id(4, &request);
    assert_eq!(error, 0);
    assert_eq!(world.td12(a, 0, 1), At(0));
    wait_until("the abort", || world.lso() == 2);
    a
}

#[test]
fn x152_after_a_timeout_an_abort_looks_like_a_retry() {
    let mut world = World::new();
    let a = timed_out(&mut world);
    assert_eq!(world.abort5(a), (0, bumped(a)));
    assert_eq!(world.commit5(a).0, 48);
    assert_eq!(world.td12(a, 1, 1), Code(47));
    assert_eq!(world.ipi_as(Some(a)), (0, bumped(a)));
}

#[test]
fn x153_after_a_timeout_and_a_new_producer_all_is_fenced() {
    let mut world = World::new();
    let a = timed_out(&mut world);
    assert_eq!(world.ipi(), at_epoch(a, 2));
    assert_eq!(world.abort5(a).0, 90);
    assert_eq!(world.td12(a, 0, 1), Code(47));
}

#[test]
fn x154_after_the_last_epoch_a_timeout_gives_a_new_pid() {
    let mut world = World::new();
    let before = raise_to(&mut world, i16::MAX - 2);
    let request = world
        .ipi_request(Some(before))
        .with_transaction_timeout_ms(1000);
    let (error, last) = world.client.init_producer_id(4, &request);
    assert_eq!((error, last), (0, bumped(before)));
    assert_eq!(world.td12(last, 0, 1), At(0));
    wait_until("the abort", || world.lso() == 2);
    let read = world.ru(1);
    assert_eq!(read.markers(), [(1, i16::MAX, false)]);
    assert_eq!(read.batches[0].header.producer_id.0, last.id);
    let b = world.ipi();
    assert_eq!(b.epoch, 1);
    assert_ne!(b.id, last.id);
}

#[test]
fn x157_one_unknown_partition_does_not_touch_another() {
    let mut world = World::new();
    let a = world.ipi();
    let (topic, id) = (world.topic.clone(), world.id.clone());
    let batch = Batch::transactional(a.id, a.epoch, 0, 1).encode();
    let call = ProduceCall {
        version: 12,
        acks: -1,
        transactional_id: Some(&id),
        parts: vec![(&topic, 0, Some(batch.clone())), (&topic, 1, Some(batch))],
    };
    let produced = world.client.produce(&call);
    assert_eq!((produced[0].error, produced[1].error), (0, 3));
    assert_eq!(world.commit5(a), (0, bumped(a)));
}

#[test]
fn x158_an_open_transaction_takes_batches_by_either_flow() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.td12(a, 0, 1), At(0));
    assert_eq!(world.td(11, a, 1, 1), At(1));
    assert_eq!(world.commit5(a), (0, bumped(a)));
}

#[test]
fn x159_a_tv1_client_keeps_its_epoch() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    assert_eq!(world.end(1, a, true), 0);
    world.expect_lso(2);
    assert_eq!(world.ru(0).markers(), [(1, 0, true)]);
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 1, 1), At(2));
    assert_eq!(world.end(1, a, false), 0);
}

#[test]
fn x151_a_commit_is_repeated_over_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    let a = committed(&mut world);
    broker.kill_and_start();
    world.reconnect(&broker);
    wait_until("the coordinator", || {
        let (error, pair) = world.commit5(a);
        assert!(matches!(error, 0 | 14..=16), "{error}");
        assert!(error != 0 || pair == bumped(a));
        error == 0
    });
    world.expect_lso(3);
    assert_eq!(world.td12(bumped(a), 0, 1), At(3));
}
