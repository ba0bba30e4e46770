//! 12.2 Restart and torn tails: each test has a broker of its own and kills it.

use crate::world::{Answer::*, PROGRAM, World};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tally_testkit::batches::Batch;
use tally_testkit::broker::{Broker, left_out, offsets_of_files};
use tally_testkit::client::{ProduceCall, is_not_ready};
use tally_testkit::waiting::wait_until;

#[test]
fn x050_five_batches_are_remembered_over_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    let a = world.pid();
    for sequence in 0..5 {
        assert_eq!(world.d(a, 0, sequence, 1), At(i64::from(sequence)));
    }
    broker.kill_and_start();
    world.reconnect(&broker);
    // Apache Kafka may remember the last one only (D-1).
    let first = if world.is_kafka { 4 } else { 0 };
    for sequence in first..5 {
        assert_eq!(world.d(a, 0, sequence, 1), At(i64::from(sequence)));
    }
    assert_eq!(world.leo(), 5);
    //
    assert_eq!(world.d(a, 0, 5, 1), At(5));
    assert_eq!(world.d(a, 0, 9, 1), Code(45));
}

#[test]
fn x050_d1_five_batches_are_remembered_over_a_roll_and_a_clean_stop() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    if world.is_kafka {
        return left_out("D-1");
    }
    world.topic = world.another_topic(1, &[("segment.bytes", "1048576")]);
    let a = world.pid();
    for sequence in 0..5 {
        assert_eq!(world.d(a, 0, sequence, 1), At(i64::from(sequence)));
    }
    let mut large = Batch::plain(1);
    large.records[0].value = Some(vec![b'x'; 600_000].into());
    assert_eq!(world.plain(&large), At(5));
    assert_eq!(world.plain(&large), At(6), "in the next segment");
    for is_clean in [true, false] {
        if is_clean {
            assert!(broker.stop(), "a clean end");
            broker.start_again();
        } else {
            broker.kill_and_start();
        }
        world.reconnect(&broker);
        for sequence in 0..5 {
            assert_eq!(world.d(a, 0, sequence, 1), At(i64::from(sequence)));
        }
        assert_eq!(world.leo(), 7);
    }
}

/// The only partition of the world's topic on the disk.
#[track_caller]
fn directory(world: &mut World, broker: &Broker) -> PathBuf {
    let topic = world.topic.clone();
    let id = world.client.topic_id(&topic).hyphenated().to_string();
    broker.data().join("topics").join(id).join("0")
}

/// The files of a partition with that ending.
#[track_caller]
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the partition is on the disk");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect()
}

#[test]
fn x052_damaged_snapshots_are_not_needed() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    if world.is_kafka {
        return left_out("Its files are its own business.");
    }
    let directory = directory(&mut world, &broker);
    let a = world.pid();
    assert_eq!(world.d(a, 0, 0, 3), At(0));
    assert!(broker.stop());
    let snapshots = files(&directory, "snapshot");
    assert!(!snapshots.is_empty(), "a clean stop leaves one");
    for snapshot in snapshots {
        fs::write(snapshot, b"garbage").expect("writable");
    }
    broker.start_again();
    world.reconnect(&broker);
    assert_eq!(world.d(a, 0, 0, 3), At(0));
    assert_eq!(world.d(a, 0, 3, 1), At(3));
    assert_eq!(world.d(a, 0, 9, 1), Code(45));
}

#[test]
fn x054_a_torn_batch_is_cut_off_and_appended_again() {
    // With a journal what is torn off is put back.
    let mut broker = Broker::start(PROGRAM, &["tally.durability=os"]);
    let mut world = World::on(&broker);
    if world.is_kafka {
        return left_out("Its files are its own business.");
    }
    let directory = directory(&mut world, &broker);
    let a = world.pid();
    let first = Batch::idempotent(a, 0, 0, 3);
    let last = Batch::idempotent(a, 0, 3, 2);
    assert_eq!(world.plain(&first), At(0));
    assert_eq!(world.plain(&last), At(3));
    broker.kill();
    let log = files(&directory, "log").remove(0);
    let end = first.encode().len() + last.encode().len();
    let mut bytes = fs::read(&log).expect("readable");
    bytes[end - 10..end].fill(0);
    fs::write(&log, bytes).expect("writable");
    // recovery may be cut short itself, and begins again.
    for _ in 0..3 {
        broker.start_again();
        broker.kill();
    }
    broker.start_again();
    world.reconnect(&broker);
    assert_eq!(world.leo(), 3);
    assert_eq!(world.d(a, 0, 9, 1), Code(45));
    for _ in 0..2 {
        assert_eq!(world.plain(&last), At(3));
    }
    assert_eq!(world.leo(), 5);
}

#[test]
fn x055_nothing_behind_the_cut_comes_back() {
    // With a journal what is torn off is put back.
    let mut broker = Broker::start(PROGRAM, &["tally.durability=os"]);
    let mut world = World::on(&broker);
    if world.is_kafka {
        return left_out("Its files are its own business.");
    }
    let directory = directory(&mut world, &broker);
    let a = world.pid();
    for sequence in 0..6 {
        assert_eq!(world.d(a, 0, sequence, 1), At(i64::from(sequence)));
    }
    broker.kill();
    let log = files(&directory, "log").remove(0);
    let size = Batch::idempotent(a, 0, 0, 1).encode().len();
    let mut bytes = fs::read(&log).expect("readable");
    bytes[size * 2 + 30] ^= 1;
    fs::write(&log, bytes).expect("writable");
    broker.start_again();
    world.reconnect(&broker);
    assert_eq!(world.leo(), 2);
    assert_eq!(world.d(a, 0, 2, 1), At(2));
    broker.kill_and_start();
    world.reconnect(&broker);
    assert_eq!(world.leo(), 3, "no old batch reappears");
    assert_eq!(world.ru(0).data_offsets(), [0, 1, 2]);
}

#[test]
fn x057_d10_producers_outlive_delete_records_and_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    let a = world.pid();
    assert_eq!(world.d(a, 0, 0, 1), At(0));
    assert_eq!(world.d(a, 0, 1, 1), At(1));
    let topic = world.topic.clone();
    assert_eq!(world.client.delete_records(&topic, 0, 2), (0, 2));
    broker.kill_and_start();
    world.reconnect(&broker);
    if world.is_kafka {
        return; // D-10
    }
    assert_eq!(world.d(a, 0, 1, 1), At(1));
    assert_eq!(world.d(a, 0, 2, 1), At(2));
    let read = world.ru(2);
    assert_eq!(read.log_start_offset, 2);
}

/// Else a kill would make new data of a retry.
#[test]
fn x057_d10_records_stay_when_their_producers_cannot_be_kept() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    if world.is_kafka {
        return left_out("D-10");
    }
    let a = world.pid();
    assert_eq!(world.d(a, 0, 0, 1), At(0));
    assert_eq!(world.d(a, 0, 1, 1), At(1));
    let topic = world.topic.clone();
    let partition = broker.partition(&mut world.client, &topic, 0);
    // A directory where the file is to be written.
    let in_the_way = partition.join(format!("{:020}.snapshot.tmp", 2));
    std::fs::create_dir(&in_the_way).expect("a directory of ours");
    assert_eq!(world.client.delete_records(&topic, 0, 2).0, 56);
    assert_eq!(world.ru(0).log_start_offset, 0);
    std::fs::remove_dir(&in_the_way).expect("a directory of ours");
    assert_eq!(world.client.delete_records(&topic, 0, 2), (0, 2));
    broker.kill_and_start();
    world.reconnect(&broker);
    assert_eq!(world.d(a, 0, 1, 1), At(1));
    assert_eq!(world.ru(2).log_start_offset, 2);
}

#[test]
fn x058_pids_are_unique_over_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut pids = BTreeSet::new();
    for _ in 0..2 {
        let mut client = broker.client();
        for _ in 0..10 {
            pids.insert(client.idempotent_producer().id);
        }
        broker.kill_and_start();
    }
    assert_eq!(pids.len(), 20);
}

#[test]
fn x059_what_was_acknowledged_is_there_after_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    let a = world.pid();
    let topic = world.topic.clone();
    let mut acknowledged = 0;
    for round in 1..=5 {
        let batch_of = |sequence: i32| Batch::idempotent(a, 0, sequence, 1).encode();
        // The kill falls among requests that are under way: five at a time, answers read for all but the last five.
        let mut under_way = Vec::new();
        for _ in 0..200 * round {
            let sequence = acknowledged + i32::try_from(under_way.len()).expect("few");
            let call = ProduceCall {
                version: 9,
                acks: -1,
                transactional_id: None,
                parts: vec![(&topic, 0, Some(batch_of(sequence)))],
            };
            let request = world.client.produce_request(&call);
            under_way.push((sequence, world.client.send(9, &request)));
            if under_way.len() == 5 {
                let (sequence, correlation_id) = under_way.remove(0);
                let response = world
                    .client
                    .receive::<kafka_protocol::messages::ProduceRequest>(9, correlation_id);
                let produced = world.client.produced(&call, &response);
                assert_eq!(
                    (produced[0].error, produced[0].base_offset),
                    (0, sequence.into())
                );
                acknowledged = sequence + 1;
            }
        }
        broker.kill_and_start();
        world.reconnect(&broker);
        assert!(
            world.leo() >= i64::from(acknowledged),
            "acknowledged and lost"
        );
        // Retries: what is in the log is answered with its offset, what is not is appended, all once.
        for (sequence, _) in under_way {
            assert_eq!(world.d(a, 0, sequence, 1), At(sequence.into()));
            acknowledged = sequence + 1;
        }
    }
    let mut at = 0;
    while at < i64::from(acknowledged) {
        let read = world.ru(at);
        for batch in &read.batches {
            assert_eq!(batch.base_offset(), at);
            assert_eq!(i64::from(batch.header.base_sequence.0), at);
            at = batch.header.last_offset().0 + 1;
        }
    }
    assert_eq!(world.leo(), i64::from(acknowledged));
}

#[test]
fn x109_a_decided_transaction_is_read_after_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 2), At(0));
    assert_eq!(world.commit4(a), 0);
    if world.is_kafka {
        return; // D-6: it answers before the markers are written, and takes its time after a kill.
    }
    broker.kill_and_start();
    world.reconnect(&broker);
    assert_eq!((world.lso(), world.leo()), (3, 3));
    let read = world.rc(0);
    assert_eq!(read.committed().len(), 2);
}

#[test]
fn x189_the_aborted_list_is_right_after_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 2), At(0));
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(3);
    broker.kill_and_start();
    world.reconnect(&broker);
    world.expect_lso(3);
    let read = world.rc(0);
    assert_eq!(read.aborted, Some(vec![(a.id, 0)]));
    assert_eq!(read.committed(), []);
}

#[test]
fn cr12_an_open_transaction_is_still_open_after_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 2), At(0));
    broker.kill_and_start();
    world.reconnect(&broker);
    assert_eq!(world.lso(), 0);
    let id = world.id.clone();
    wait_until("the coordinator", || {
        world.client.find_coordinator(&id, 1) == 0
    });
    wait_until("the transaction goes on", || {
        matches!(world.td9(a, 2, 1), At(2))
    });
    wait_until("the commit", || match world.commit4(a) {
        0 => true,
        error => {
            assert!(is_not_ready(error), "{error}");
            false
        }
    });
    world.expect_lso(4);
    assert_eq!(world.rc(0).committed().len(), 3);
}

#[test]
fn x053_a_snapshot_above_the_end_of_the_log_is_not_believed() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    if world.is_kafka {
        return left_out("Its files are its own business.");
    }
    let directory = directory(&mut world, &broker);
    let a = world.pid();
    let mut kept = 0;
    for sequence in 0..10 {
        let batch = Batch::idempotent(a, 0, sequence, 1);
        assert_eq!(world.plain(&batch), At(sequence.into()));
        kept += if sequence < 6 {
            batch.encode().len()
        } else {
            0
        };
    }
    assert!(broker.stop(), "a snapshot at 10");
    assert_eq!(offsets_of_files(&directory, "snapshot"), [10]);
    broker.start_again();
    broker.kill();
    let log = files(&directory, "log").remove(0);
    let bytes = fs::read(&log).expect("readable");
    fs::write(&log, &bytes[..kept]).expect("writable");
    broker.start_again();
    world.reconnect(&broker);
    assert_eq!(world.leo(), 6);
    for sequence in [7, 9, 10] {
        assert_eq!(world.d(a, 0, sequence, 1), Code(45));
    }
    assert_eq!(world.d(a, 0, 5, 1), At(5));
    assert_eq!(world.d(a, 0, 6, 1), At(6));
}
