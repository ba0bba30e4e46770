//! 12.7 Compaction, over the wire: what goes and what stays of transactions and of what is known of producers. The passes
//! themselves, over random histories, are tested in tally-shard.

use crate::world::Answer::{At, Code};
use crate::world::{PROGRAM, World};
use bytes::Bytes;
use std::path::Path;
use std::process::Command;
use tally_testkit::batches::{Batch, ReadBatch, Record};
use tally_testkit::broker::{Broker, left_out};
use tally_testkit::client::{ProduceCall, Producer};
use tally_testkit::waiting::wait_until;

/// Two batches fill a segment, and whatever is not compacted yet is worth a pass.
const COMPACTED: [(&str, &str); 3] = [
    ("internal.segment.bytes", "200"),
    ("cleanup.policy", "compact"),
    ("min.cleanable.dirty.ratio", "0"),
];
/// What was emptied goes at the next pass.
const AT_ONCE: (&str, &str) = ("delete.retention.ms", "0");
const FILLER: &str = "filler";

fn broker() -> Broker {
    Broker::start(PROGRAM, &["log.cleaner.backoff.ms=20"])
}

/// A world on a compacted topic.
fn world(broker: &Broker, more: &[(&str, &str)]) -> World {
    let mut world = World::on(broker);
    world.topic = world.another_topic(1, &[&COMPACTED[..], more].concat());
    world
}

/// One record for each key.
fn keyed(mut batch: Batch, keys: &[&str]) -> Batch {
    batch.records = keys
        .iter()
        .map(|key| Record {
            timestamp_delta: 0,
            key: Some(Bytes::from((*key).to_owned())),
            value: Some(Bytes::from_static(b"v")),
        })
        .collect();
    batch
}

#[track_caller]
fn put(world: &mut World, key: &str) -> i64 {
    match world.plain(&keyed(Batch::plain(1), &[key])) {
        At(offset) => offset,
        Code(code) => panic!("{code}"),
    }
}

/// Until the broker is dead: as long as the log goes on there is something to compact.
#[track_caller]
fn put_until_death(world: &mut World) {
    let topic = world.topic.clone();
    let filler = keyed(Batch::plain(1), &[FILLER]).encode();
    let request = world.client.produce_request(&ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: None,
        parts: vec![(&topic, 0, Some(filler))],
    });
    wait_until("the broker dies", || {
        let response = world.client.try_call(9, &request);
        response.is_none()
    });
}

/// A transaction of one record, of the old flow.
#[track_caller]
fn transaction(world: &mut World, a: Producer, sequence: i32, key: &str, commit: bool) -> i64 {
    assert_eq!(world.apt(a), 0);
    let batch = keyed(Batch::transactional(a.id, a.epoch, sequence, 1), &[key]);
    let produced = world.produce_bytes(9, true, batch.encode());
    assert_eq!(produced.error, 0);
    assert_eq!(world.end(4, a, commit), 0);
    world.expect_lso(produced.base_offset + 2);
    produced.base_offset
}

/// What is in the log besides the filler: offsets of records, and of markers.
#[track_caller]
fn left(world: &mut World) -> (Vec<i64>, Vec<i64>) {
    let (mut data, mut markers, mut next) = (Vec::new(), Vec::new(), 0);
    loop {
        let read = world.ru(next);
        assert_eq!(read.error, 0);
        let Some(last) = read.batches.last() else {
            return (data, markers);
        };
        next = last.header.last_offset().0 + 1;
        markers.extend(read.markers().iter().map(|(at, ..)| *at));
        let batches = read.batches.iter().filter(|batch| batch.marker().is_none());
        let records = batches.flat_map(|batch| &batch.records);
        let kept = records.filter(|record| record.key.as_deref() != Some(FILLER.as_bytes()));
        data.extend(kept.map(|record| record.offset));
    }
}

/// Waits until a pass has left what is wished. The open segment is never compacted, so the log goes on.
#[track_caller]
fn wait_until_left(world: &mut World, is_it: impl Fn(&[i64], &[i64]) -> bool) {
    wait_until("the rest has gone", || {
        for _ in 0..4 {
            put(world, FILLER);
        }
        let (data, markers) = left(world);
        is_it(&data, &markers)
    });
}

#[test]
fn x201_an_aborted_value_supersedes_nothing() {
    let broker = broker();
    let mut world = world(&broker, &[]);
    assert_eq!(put(&mut world, "k"), 0);
    let a = world.ipi();
    assert_eq!(transaction(&mut world, a, 0, "k", false), 1);
    wait_until_left(&mut world, |data, _| data == [0]);
    let read = world.rc(0);
    assert_eq!(read.committed()[0].0, 0);
}

#[test]
fn x203_a_commit_marker_stays_until_its_time_has_come() {
    let broker = broker();
    let mut later = world(&broker, &[]);
    let mut soon = world(&broker, &[AT_ONCE]);
    for world in [&mut later, &mut soon] {
        let a = world.ipi();
        // The headers of the last batches stay for what is known of the producer (C-8), so the first is not among them.
        for sequence in 0..7 {
            transaction(world, a, sequence, "k", true);
        }
    }
    // Records at 0, 2, 4 …, markers behind them.
    // Passes that rest on synced logs come with the checkpoints, and take several seconds each (`commit`, `always`).
    wait_until_left(&mut soon, |data, _| data == [12]);
    wait_until_left(&mut soon, |data, markers| {
        data == [12] && !markers.contains(&1)
    });
    wait_until_left(&mut later, |data, _| data == [12]);
    for _ in 0..3 {
        wait_until_left(&mut later, |_, _| true);
    }
    let (_, markers) = left(&mut later);
    assert!(
        markers.contains(&1),
        "within delete.retention.ms: {markers:?}"
    );
    let (_, markers) = left(&mut soon);
    assert!(markers.contains(&13), "it ends what is there: {markers:?}");
}

#[test]
fn x204_a_producer_is_known_when_all_its_records_have_gone() {
    let mut broker = broker();
    let mut world = world(&broker, &[]);
    let a = world.pid();
    let batch = |sequence| keyed(Batch::idempotent(a, 0, sequence, 1), &["k"]);
    assert_eq!(world.plain(&batch(0)), At(0));
    assert_eq!(world.plain(&batch(1)), At(1));
    assert_eq!(put(&mut world, "k"), 2);
    wait_until_left(&mut world, |data, _| data == [2]);
    broker.kill_and_start();
    world.reconnect(&broker);
    assert_eq!(world.plain(&batch(4)), Code(45));
    let end = world.leo();
    assert_eq!(world.plain(&batch(2)), At(end));
}

#[test]
fn x207_batches_without_records_are_loaded_and_read_past_after_a_kill() {
    let mut broker = broker();
    let mut world = world(&broker, &[]);
    let a = world.pid();
    for sequence in 0..2 {
        let batch = keyed(Batch::idempotent(a, 0, sequence, 1), &["k"]);
        assert_eq!(world.plain(&batch), At(i64::from(sequence)));
    }
    assert_eq!(put(&mut world, "k"), 2);
    wait_until_left(&mut world, |data, _| data == [2]);
    broker.kill_and_start();
    world.reconnect(&broker);
    let all = world.ru(0);
    let empty = |batch: &&ReadBatch| batch.records.is_empty();
    let emptied = all.batches.iter().find(empty).expect("one of the producer");
    assert_eq!(emptied.header.producer_id.0, a);
    assert_eq!(world.rc(0).committed()[0].0, 2);
    assert_eq!(world.rc(0).last_stable_offset, world.leo());
}

#[test]
fn x205_what_stays_of_a_batch_has_its_offsets() {
    let broker = broker();
    let mut world = world(&broker, &[]);
    let a = world.pid();
    let batch = keyed(Batch::idempotent(a, 0, 0, 3), &["a", "b", "c"]);
    assert_eq!(world.plain(&batch), At(0));
    assert_eq!(put(&mut world, "b"), 3);
    wait_until_left(&mut world, |data, _| data == [0, 2, 3]);
    let offsets: Vec<i64> = world.rc(0).committed().iter().map(|(at, _)| *at).collect();
    assert_eq!(offsets[..3], [0, 2, 3]);
    assert_eq!(world.plain(&batch), At(0), "a duplicate");
}

/// Nothing is wrong with the files of a broker that was stopped.
#[track_caller]
fn check_files(data: &Path) {
    let data = data.to_str().expect("a path in UTF-8");
    let output = Command::new(PROGRAM)
        .args(["verify", "log", data, "-o", "jsonl", "--deep"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

/// The old segments or the new ones, with the same records, duplicates and transactions.
#[test]
fn x280_cr21_a_kill_in_compaction_leaves_the_old_or_the_new() {
    let points = [
        "replace.swap=kill@1",
        "written.swap=kill@1",
        "renamed.swap=kill@1",
        "replaced.swap=kill@1",
        "replaced.cleaner-checkpoint=kill@1",
        "replaced.swap=kill@3",
    ];
    for point in points {
        let mut broker = broker();
        let mut world = world(&broker, &[]);
        if world.is_kafka {
            return left_out("It has no such points.");
        }
        broker.kill();
        broker.set_faults(&[point]);
        broker.start_again();
        world.reconnect(&broker);
        let a = world.ipi();
        assert_eq!(put(&mut world, "k"), 0);
        assert_eq!(transaction(&mut world, a, 0, "k", false), 1);
        assert_eq!(transaction(&mut world, a, 1, "l", true), 3);
        assert_eq!(transaction(&mut world, a, 2, "m", false), 5);
        let before: Vec<_> = world.rc(0).committed();
        broker.wake(0);
        put_until_death(&mut world);
        broker.wait_for_death();
        broker.calm(0);
        broker.start_again();
        world.reconnect(&broker);
        let after = world.rc(0).committed();
        assert_eq!(after[..2], before[..2], "{point}");
        assert_eq!(world.lso(), world.leo(), "{point}");
        // Once more the same: the passes go on from there.
        wait_until_left(&mut world, |data, _| data == [0, 3]);
        assert_eq!(world.rc(0).committed()[..2], before[..2], "{point}");
        assert_eq!(world.apt(a), 0);
        assert_eq!(world.abort4(a), 0);
        drop(world);
        assert!(broker.stop());
        check_files(&broker.data());
    }
}
