//! Deaths outside a transaction's own writes: snapshots, blocks of producer ids, the fence, DeleteRecords, recovery itself
//! . The transaction's own are in `crash_matrix`; `crash_modes` does the same in the
//! modes of durability that sync.

use crate::world::Answer::{At, Code};
use crate::world::{Answer, PROGRAM, World, at_epoch};
use kafka_protocol::messages::InitProducerIdRequest;
use std::collections::BTreeSet;
use tally_testkit::batches::Batch;
use tally_testkit::broker::{Broker, is_reference, left_out};
use tally_testkit::client::{ProduceCall, Producer};
use tally_testkit::waiting::wait_until;

/// A batch that fills a quarter of the smallest segment.
fn large(a: i64, sequence: i32) -> Batch {
    Batch::idempotent(a, 0, sequence, 1).with_values(&"v".repeat(300_000))
}

/// Sends a batch whose answer the broker's death takes along.
#[track_caller]
fn produce_and_die(broker: &mut Broker, world: &mut World, batch: &Batch) {
    let topic = world.topic.clone();
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: None,
        parts: vec![(&topic, 0, Some(batch.encode()))],
    };
    let request = world.client.produce_request(&call);
    let response = world
        .client
        .try_call::<kafka_protocol::messages::ProduceRequest>(9, &request);
    assert!(response.is_none(), "the broker has answered");
    resurrect(broker, world);
}

#[track_caller]
pub(crate) fn resurrect(broker: &mut Broker, world: &mut World) {
    broker.wait_for_death();
    broker.calm(0);
    broker.start_again();
    world.reconnect(broker);
}

/// A world on a broker that dies at `point` once it is woken.
#[track_caller]
pub(crate) fn dying_at(point: &str, settings: &[&str]) -> (Broker, World) {
    eprintln!("{point}");
    let mut broker = Broker::start(PROGRAM, settings);
    broker.set_faults(&[point]);
    broker.kill_and_start();
    let mut world = World::on(&broker);
    let (topic, a) = (world.topic.clone(), world.pid());
    assert!(a >= 0 && !topic.is_empty());
    (broker, world)
}

#[test]
fn x262_cr3_what_was_answered_is_a_duplicate_after_a_kill() {
    what_was_answered_is_a_duplicate(&[]);
}

#[track_caller]
pub(crate) fn what_was_answered_is_a_duplicate(settings: &[&str]) {
    let mut broker = Broker::start(PROGRAM, settings);
    let mut world = World::on(&broker);
    let a = world.pid();
    for sequence in 0..5 {
        assert_eq!(world.d(a, 0, sequence, 1), At(sequence.into()));
        broker.kill_and_start();
        world.reconnect(&broker);
        for earlier in 0..=sequence {
            assert_eq!(world.d(a, 0, earlier, 1), At(earlier.into()));
        }
    }
    assert_eq!(world.leo(), 5);
}

#[test]
fn x263_cr4_x264_cr5_a_snapshot_that_was_not_finished_is_not_missed() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    snapshots_are_not_missed(&[]);
}

#[track_caller]
pub(crate) fn snapshots_are_not_missed(settings: &[&str]) {
    let settings = [settings, &["log.segment.bytes=1048576"]].concat();
    let points = [
        "roll.after=kill@1",
        "replace.snapshot=kill@1",
        "written.snapshot=kill@1",
        "renamed.snapshot=kill@1",
        "replaced.snapshot=kill@1",
    ];
    for point in points {
        let (mut broker, mut world) = dying_at(point, &settings);
        let a = world.pid();
        for sequence in 0..3 {
            let batch = large(a, sequence);
            assert_eq!(world.plain(&batch), At(sequence.into()));
        }
        broker.wake(0);
        // The fourth begins a segment, and so a snapshot.
        produce_and_die(&mut broker, &mut world, &large(a, 3));
        for sequence in 0..4 {
            let batch = large(a, sequence);
            assert_eq!(world.plain(&batch), At(sequence.into()));
        }
        assert_eq!(world.d(a, 0, 9, 1), Code(45));
        assert_eq!(world.leo(), 4);
    }
}

#[test]
fn x263_cr4_a_stop_that_dies_over_its_snapshots_is_a_kill() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    let points = ["written.snapshot=kill@1", "renamed.snapshot=kill@1"];
    a_stop_that_dies_is_a_kill(&[], &points);
}

#[track_caller]
pub(crate) fn a_stop_that_dies_is_a_kill(settings: &[&str], points: &[&str]) {
    for point in points {
        let (mut broker, mut world) = dying_at(point, settings);
        let a = world.pid();
        assert_eq!(world.d(a, 0, 0, 3), At(0));
        broker.wake(0);
        assert!(!broker.stop(), "it has died on the way");
        broker.calm(0);
        broker.start_again();
        world.reconnect(&broker);
        assert_eq!(world.d(a, 0, 0, 3), At(0));
        assert_eq!(world.d(a, 0, 3, 1), At(3));
        assert_eq!(world.d(a, 0, 9, 1), Code(45));
    }
}

#[test]
fn x265_cr6_a_block_of_producer_ids_is_never_given_twice() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    no_producer_id_is_given_twice(&[]);
}

#[track_caller]
pub(crate) fn no_producer_id_is_given_twice(settings: &[&str]) {
    let points = [
        "replace.meta=kill@1",
        "written.meta=kill@1",
        "renamed.meta=kill@1",
        "replaced.meta=kill@1",
    ];
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let mut broker = Broker::start(PROGRAM, settings);
    let mut pids = BTreeSet::new();
    for point in points {
        broker.set_faults(&[point]);
        broker.kill_and_start();
        let mut client = broker.client();
        broker.wake(0);
        // Until the block is used up and the next one is reserved.
        while let Some(response) = client.try_call(4, &request) {
            assert_eq!(response.error_code, 0);
            assert!(pids.insert(response.producer_id.0), "given twice");
        }
        broker.wait_for_death();
        broker.calm(0);
        broker.start_again();
        for _ in 0..10 {
            let pid = broker.client().idempotent_producer().id;
            assert!(pids.insert(pid), "given twice");
        }
    }
}

/// The producer that was fenced can do nothing, and nothing of it is read.
#[track_caller]
fn check_fenced(world: &mut World, zombie: Producer) {
    wait_until("the abort", || {
        let next = world.ipi_once(None);
        assert!(matches!(next.0, 0 | 51), "{next:?}");
        next.0 == 0
    });
    assert_eq!(world.td9(zombie, 1, 1), Code(47));
    assert_eq!(world.commit4(zombie), 90);
    assert_eq!(world.commit5(zombie).0, 90);
    let end = world.leo();
    assert_eq!(world.lso(), end);
    assert_eq!(world.rc(0).committed(), []);
}

const FENCE_POINTS: [&str; 6] = [
    "prepare_abort.before=kill@1",
    "prepare_abort.after=kill@1",
    "marker.before=kill@1",
    "marker.after=kill@1",
    "complete_abort.before=kill@1",
    "complete_abort.after=kill@1",
];

#[test]
fn x279_cr20_a_fence_is_finished() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    for version in [9, 12] {
        a_fence_is_finished(&[], version);
    }
}

#[track_caller]
pub(crate) fn a_fence_is_finished(settings: &[&str], version: i16) {
    for point in FENCE_POINTS {
        let (mut broker, mut world) = dying_at(point, settings);
        let a = world.ipi();
        if version == 9 {
            assert_eq!(world.apt(a), 0);
        }
        assert_eq!(world.td(version, a, 0, 1), At(0));
        broker.wake(0);
        let request = world.ipi_request(None);
        // The fence answers 51 and goes on by itself: whether the answer still left is of no matter.
        let answered = world.client.try_call(4, &request);
        assert!(answered.is_none_or(|response| response.error_code == 51));
        resurrect(&mut broker, &mut world);
        check_fenced(&mut world, a);
        let next = world.ipi();
        assert_eq!(
            (next.id, next.epoch),
            (a.id, a.epoch + 3),
            "no epoch is skipped"
        );
    }
}

#[test]
fn x279_cr20_a_timeout_is_finished() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    a_timeout_is_finished(&[]);
}

#[track_caller]
pub(crate) fn a_timeout_is_finished(settings: &[&str]) {
    for point in FENCE_POINTS {
        let (mut broker, mut world) = dying_at(point, settings);
        // Before the time runs: nothing comes to a point but the abort.
        broker.wake(0);
        let a = world.begin_for(500);
        resurrect(&mut broker, &mut world);
        wait_until("the abort", || world.lso() > 0);
        check_fenced(&mut world, a);
        let markers = world.ru(0).markers();
        // A repeat carries the epoch of the new coordinator, so it is written again (M-5).
        assert!(matches!(markers.len(), 1 | 2), "{markers:?}");
        let fences =
            |(_, epoch, commit): &(i64, i16, bool)| (*epoch, *commit) == (a.epoch + 1, false);
        assert!(markers.iter().all(fences), "{markers:?}");
    }
}

#[test]
fn x281_cr22_delete_records_is_done_or_not() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    delete_records_is_done_or_not(&[]);
}

#[track_caller]
pub(crate) fn delete_records_is_done_or_not(settings: &[&str]) {
    let settings = [settings, &["log.segment.bytes=1048576"]].concat();
    let points = [
        "replace.log-start=kill@1",
        "written.log-start=kill@1",
        "renamed.log-start=kill@1",
        "replaced.log-start=kill@1",
        "removed.log=kill@1",
    ];
    for point in points {
        let (mut broker, mut world) = dying_at(point, &settings);
        let a = world.pid();
        for sequence in 0..8 {
            assert_eq!(world.plain(&large(a, sequence)), At(sequence.into()));
        }
        broker.wake(0);
        let request = delete_to(&world.topic, 7);
        assert!(world.client.try_call(2, &request).is_none(), "it has died");
        resurrect(&mut broker, &mut world);
        let log_start = world.client.list_offset((7, 0), &world.topic, 0, -2);
        assert!(matches!(log_start.1, 0 | 7), "{log_start:?}");
        for sequence in 3..8 {
            assert_eq!(world.plain(&large(a, sequence)), At(sequence.into()));
        }
        assert_eq!(world.client.delete_records(&world.topic, 0, 7), (0, 7));
        assert_eq!(world.d(a, 0, 8, 1), At(8));
        assert_eq!(world.d(a, 0, 10, 1), Code(45));
    }
}

fn delete_to(topic: &str, before: i64) -> kafka_protocol::messages::DeleteRecordsRequest {
    use kafka_protocol::messages::delete_records_request::{
        DeleteRecordsPartition, DeleteRecordsTopic,
    };
    let partition = DeleteRecordsPartition::default()
        .with_partition_index(0)
        .with_offset(before);
    let topic = DeleteRecordsTopic::default()
        .with_name(tally_testkit::client::topic_name(topic))
        .with_partitions(vec![partition]);
    kafka_protocol::messages::DeleteRecordsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(30_000)
}

#[test]
fn x282_cr23_recovery_may_die_as_often_as_it_likes() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    recovery_may_die(&[]);
}

#[track_caller]
pub(crate) fn recovery_may_die(settings: &[&str]) {
    let (mut broker, mut world) = dying_at("append.torn=kill@1", settings);
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 2), At(0));
    let b = world.pid();
    broker.wake(0);
    let batch = Batch::idempotent(b, 0, 0, 3);
    let topic = world.topic.clone();
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: None,
        parts: vec![(&topic, 0, Some(batch.encode()))],
    };
    let request = world.client.produce_request(&call);
    let response = world
        .client
        .try_call::<kafka_protocol::messages::ProduceRequest>(9, &request);
    assert!(response.is_none());
    broker.wait_for_death();
    for point in [
        "recovery.partition=kill@1",
        "recovery.partition=kill@60",
        "recovery.cut=kill@1",
        "recovery.partition=kill@101",
    ] {
        broker.set_faults(&[point]);
        broker.wake(0);
        broker.start_and_die();
    }
    broker.calm(0);
    broker.start_again();
    world.reconnect(&broker);
    let again: Answer = world.plain(&batch);
    assert_eq!(again, At(2), "the torn batch is not there");
    assert_eq!((world.lso(), world.leo()), (0, 5));
    assert_eq!(world.commit4(a), 0);
    assert_eq!(world.rc(0).committed().len(), 5);
    assert_eq!(world.td9(at_epoch(a, 0), 2, 1), Code(48));
}
