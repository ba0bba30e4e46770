//! 12.4 Transactions by AddPartitionsToTxn, Produce <= v11 and EndTxn <= v4: what librdkafka does.

use crate::world::{Answer::*, World, at_epoch, bumped};
use tally_testkit::batches::Batch;
use tally_testkit::client::{ProduceCall, Producer};
use tally_testkit::waiting::wait_until;

#[test]
fn x100_a_committed_transaction_is_read() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 2), At(0));
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(3);
    let read = world.rc(0);
    assert_eq!(read.committed().len(), 2);
    assert_eq!(read.markers(), [(2, 0, true)]);
    assert_eq!((read.high_watermark, read.last_stable_offset), (3, 3));
    assert_eq!(world.leo(), 3);
    // the next transaction goes on with the sequence.
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 2, 1), At(3));
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(5);
    assert_eq!(world.ru(0).markers(), [(2, 0, true), (4, 0, true)]);
}

#[test]
fn x101_a_partition_outside_the_transaction_takes_no_batch() {
    let mut world = World::new();
    let a = world.ipi();
    for (version, expected) in [(9, 48), (10, 48), (11, 120)] {
        assert_eq!(world.td(version, a, 0, 1), Code(expected), "v{version}");
    }
    assert_eq!(world.leo(), 0);
}

#[test]
fn x102_adding_a_partition_twice_is_no_error() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.abort4(a), 0);
}

#[test]
fn x103_one_bad_partition_stops_them_all() {
    let mut world = World::new();
    let a = world.ipi();
    let (topic, id) = (world.topic.clone(), world.id.clone());
    let with_missing = world.apt_to(3, a, &[(&topic, 0), ("nope", 0)]);
    assert_eq!(with_missing, [55, 3]);
    world.client.wait_for_group(&id);
    let with_internal = world.apt_to(3, a, &[(&topic, 0), ("__consumer_offsets", 0)]);
    assert_eq!(with_internal, [55, 29]);
    assert_eq!(world.commit4(a), 48, "still Empty");
}

#[test]
fn x104_another_pid_and_another_epoch() {
    let mut world = World::new();
    let a = world.ipi();
    let topic = world.topic.clone();
    let other = Producer {
        id: world.pid(),
        epoch: 0,
    };
    assert_eq!(world.apt_to(3, other, &[(&topic, 0)]), [49]);
    assert_eq!(world.apt_to(3, bumped(a), &[(&topic, 0)]), [90]);
    assert_eq!(world.apt_to(1, bumped(a), &[(&topic, 0)]), [47]);
}

#[test]
fn x105_nothing_to_end() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.commit4(a), 48);
    assert_eq!(world.abort4(a), 48);
}

#[test]
fn x106_a_commit_may_be_repeated_and_not_turned() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(2);
    assert_eq!(world.commit4(a), 0);
    assert_eq!(world.abort4(a), 48);
    assert_eq!(world.leo(), 2, "no new marker");
}

#[test]
fn x107_an_abort_may_be_repeated_and_not_turned() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(2);
    assert_eq!(world.abort4(a), 0);
    assert_eq!(world.commit4(a), 48);
    assert_eq!(world.leo(), 2, "no new marker");
}

#[test]
fn x111_an_aborted_transaction_is_listed_and_not_read() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 2), At(0));
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(3);
    let read = world.rc(0);
    assert_eq!(read.aborted, Some(vec![(a.id, 0)]));
    assert_eq!(read.committed(), []);
    assert_eq!(read.last_stable_offset, 3);
    let all = world.ru(0);
    assert_eq!(all.data_offsets(), [0, 1]);
    assert_eq!(all.aborted, None, "X-180");
    assert_eq!(all.last_stable_offset, 3, "X-180");
}

#[test]
fn x112_a_partition_without_data_gets_a_marker_and_no_row() {
    for commit in [true, false] {
        let mut world = World::new();
        let a = world.ipi();
        assert_eq!(world.apt(a), 0);
        assert_eq!(world.end(4, a, commit), 0);
        world.expect_lso(1);
        assert_eq!(world.leo(), 1);
        let read = world.rc(0);
        assert_eq!(read.markers(), [(0, 0, commit)]);
        assert_eq!(read.aborted, Some(vec![]));
    }
}

#[test]
fn x113_d6_a_commit_is_readable_everywhere_when_it_is_answered() {
    let mut world = World::with_topic(2, &[]);
    let a = world.ipi();
    let t = world.topic.clone();
    let u = world.another_topic(1, &[]);
    let parts = [(t.as_str(), 0), (t.as_str(), 1), (u.as_str(), 0)];
    assert_eq!(world.apt_to(3, a, &parts), [0, 0, 0]);
    let id = world.id.clone();
    let batch = Batch::transactional(a.id, a.epoch, 0, 1).encode();
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some(&id),
        parts: parts
            .map(|(topic, p)| (topic, p, Some(batch.clone())))
            .to_vec(),
    };
    wait_until("all are appended", || {
        let produced = world.client.produce(&call);
        let is_done = produced.iter().all(|one| one.error == 0);
        assert!(is_done || world.is_kafka, "{produced:?}");
        is_done
    });
    for (topic, partition) in parts {
        let read = world.client.read_committed(topic, partition, 0);
        assert_eq!(read.committed(), [], "before");
    }
    assert_eq!(world.commit4(a), 0);
    for (topic, partition) in parts {
        wait_until("the commit is read", || {
            let read = world.client.read_committed(topic, partition, 0);
            let is_read = read.committed().len() == 1;
            assert!(is_read || world.is_kafka, "right after the answer");
            is_read
        });
    }
}

#[test]
fn x114_a_transaction_times_out_and_its_producer_is_fenced() {
    let mut world = World::new();
    let a = world.begin_for(1000);
    wait_until("the abort", || world.lso() == 2);
    assert_eq!(world.ru(0).markers(), [(1, 1, false)]);
    assert_eq!(world.td9(a, 1, 1), Code(47));
    assert_eq!(world.commit4(a), 90);
    assert_eq!(world.end(1, a, true), 47);
    assert_eq!(world.apt(a), 90);
}

#[test]
fn x115_a_transaction_does_not_time_out_early() {
    let mut slow = World::new();
    let mut quick = World::new();
    let a = slow.begin_for(60_000);
    quick.begin_for(1000);
    wait_until("the quick one is aborted", || quick.lso() == 2);
    assert_eq!(slow.commit4(a), 0);
}

#[test]
fn x119_ending_as_somebody_else() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    let other = Producer {
        id: world.pid(),
        epoch: 0,
    };
    assert_eq!(world.commit4(other), 49);
    let unknown = tally_testkit::client::unique("x");
    let own = std::mem::replace(&mut world.id, unknown);
    wait_until("the coordinator", || {
        let error = world.commit4(a);
        assert!(matches!(error, 49 | 14..=16), "{error}");
        error == 49
    });
    world.id = own;
    assert_eq!(world.abort4(a), 0);
}

#[test]
fn x121_verification_by_request() {
    let mut world = World::with_topic(2, &[]);
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    let (topic, id) = (world.topic.clone(), world.id.clone());
    let parts = [(topic.as_str(), 0), (topic.as_str(), 1)];
    let mut verify = |producer| {
        world
            .client
            .verify_partitions((5, true), &id, producer, &parts)
    };
    assert_eq!(verify(a), (0, vec![0, 120]));
    assert_eq!(verify(bumped(a)), (0, vec![90, 90]));
    let other = Producer {
        id: a.id + 1_000_000,
        epoch: a.epoch,
    };
    assert_eq!(verify(other), (0, vec![49, 49]));
}

#[test]
fn x124_a_transaction_without_partitions() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt_to(3, a, &[]), []);
    assert_eq!(world.commit4(a), 0);
    assert_eq!(world.leo(), 0);
}

#[test]
fn x126_d14_a_retry_of_an_aborted_batch_is_not_called_written() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    assert_eq!(world.abort4(a), 0);
    assert_eq!(world.apt(a), 0);
    let expected = if world.is_kafka { At(0) } else { Code(45) };
    assert_eq!(world.td9(a, 0, 1), expected);
    assert_eq!(world.abort4(a), 0);
}

#[test]
fn m09_a_retry_of_a_committed_batch_is_answered_with_its_offset() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(2);
    // Outside a transaction it is refused by the verification.
    assert_eq!(world.td9(a, 0, 1), Code(48));
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    if !world.is_kafka {
        assert_eq!(world.td9(a, 1, 1), At(2), "V-11");
    }
    assert_eq!(world.abort4(a), 0);
}

#[test]
fn s15_every_request_of_a_fenced_producer() {
    let mut world = World::new();
    let old = world.ipi();
    let new = world.ipi();
    assert_eq!(new, at_epoch(old, 1));
    let (topic, id) = (world.topic.clone(), world.id.clone());
    assert_eq!(world.apt(old), 90);
    assert_eq!(world.apt_to(1, old, &[(&topic, 0)]), [47]);
    assert_eq!(world.client.add_offsets(3, &id, old, "g"), 90);
    assert_eq!(world.client.add_offsets(1, &id, old, "g"), 47);
    assert_eq!(world.commit4(old), 90);
    assert_eq!(world.end(1, old, true), 47);
    assert_eq!(world.commit5(old).0, 90);
    assert_eq!(world.abort5(old).0, 90);
    assert_eq!(world.td9(old, 0, 1), Code(47));
    assert_eq!(world.td12(old, 0, 1), Code(47));
}
