//! The old flow's requests that arrive too late: held back on a connection whose client gave up on it and went on over a
//! newer one (11.1, KAFKA-17754). Each test also says what Apache Kafka does with them: that is the control.

use crate::world::{Answer::*, World};
use tally_testkit::batches::Batch;
use tally_testkit::client::{Client, ProduceCall, Producer};
use tally_testkit::waiting::wait_until;

/// Goes on over a newer connection; returns the older one.
fn go_on_over_a_new_connection(world: &mut World) -> Client {
    let newer = world.another_client();
    std::mem::replace(&mut world.client, newer)
}

#[test]
fn x122_a_delayed_commit_does_not_end_the_next_transaction() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    let mut older = go_on_over_a_new_connection(&mut world);
    assert_eq!(world.commit4(a), 0, "the retry");
    world.expect_lso(2);
    // The next transaction is to be aborted.
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 1, 1), At(2));
    let late = older.try_end_txn(4, &world.id, a, true);
    if world.is_kafka {
        // What its author was about to abort is committed by a request for the transaction before.
        assert_eq!(late, Some(0));
        world.expect_lso(4);
        assert_eq!(world.rc(0).committed().len(), 2);
        return;
    }
    assert_eq!(late, None, "the connection is closed, nothing was done");
    assert_eq!(world.lso(), 2, "still open");
    assert_eq!(world.abort4(a), 0);
    let read = world.rc(0);
    assert_eq!(read.committed().len(), 1);
    assert_eq!(read.aborted, Some(vec![(a.id, 2)]));
}

#[test]
fn x122_a_delayed_abort_does_not_end_the_next_transaction() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    let mut older = go_on_over_a_new_connection(&mut world);
    assert_eq!(world.abort4(a), 0, "the retry");
    world.expect_lso(2);
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 1, 1), At(2));
    let late = older.try_end_txn(4, &world.id, a, false);
    if world.is_kafka {
        // Its author has been told that record 2 is stored, and can't commit it any more.
        assert_eq!(late, Some(0));
        assert_eq!(world.commit4(a), 48);
        return;
    }
    assert_eq!(late, None);
    assert_eq!(world.commit4(a), 0);
    assert_eq!(world.rc(0).committed().len(), 1);
}

/// A Produce v9 of one record in a transaction; `None` if the connection ends.
fn try_produce(
    client: &mut Client,
    world: &World,
    producer: Producer,
    sequence: i32,
) -> Option<i16> {
    let batch = Batch::transactional(producer.id, producer.epoch, sequence, 1);
    let request = client.produce_request(&ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some(&world.id),
        parts: vec![(world.topic.as_str(), 0, Some(batch.encode()))],
    });
    let response = client.try_call(9, &request)?;
    Some(response.responses[0].partition_responses[0].error_code)
}

#[test]
fn x123_a_delayed_batch_does_not_join_the_next_transaction() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    let mut older = go_on_over_a_new_connection(&mut world);
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(2);
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 1, 1), At(2));
    // The aborted transaction's second batch, sent before the abort.
    let late = try_produce(&mut older, &world, a, 2);
    if world.is_kafka {
        assert_eq!(late, Some(0));
        assert_eq!(world.leo(), 4, "a record of the aborted transaction");
        return;
    }
    assert_eq!(late, None);
    assert_eq!(world.leo(), 3);
    assert_eq!(world.td9(a, 2, 1), At(3), "its sequence is free");
    assert_eq!(world.commit4(a), 0);
    assert_eq!(world.rc(0).committed().len(), 2);
}

/// The moment between the next transaction's AddPartitionsToTxn and its first batch, when its own batches say nothing yet.
#[test]
fn x123_a_delayed_batch_does_not_come_before_the_next_transactions_first() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, 1), At(0));
    let mut older = go_on_over_a_new_connection(&mut world);
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(2);
    assert_eq!(world.apt(a), 0);
    let late = try_produce(&mut older, &world, a, 1);
    if world.is_kafka {
        // A record of the aborted transaction, and the next one's own record is taken for its repetition.
        assert_eq!(late, Some(0));
        assert_eq!(world.td9(a, 1, 1), At(2));
        return;
    }
    assert_eq!(late, None);
    assert_eq!(world.td9(a, 1, 1), At(2), "its own record");
    assert_eq!(world.commit4(a), 0);
    assert_eq!(world.rc(0).committed().len(), 1);
    assert_eq!(world.leo(), 4);
}

#[test]
fn d8_delayed_additions_are_dropped() {
    let mut world = World::new();
    let group = world.id.clone();
    world.client.wait_for_group(&group);
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.client.add_offsets(3, &world.id, a, &group), 0);
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(1);
    let (topic, id) = (world.topic.clone(), world.id.clone());
    let other = world.another_topic(1, &[]);
    for offsets in [false, true] {
        let mut older = go_on_over_a_new_connection(&mut world);
        assert_eq!(world.apt(a), 0);
        assert_eq!(world.client.add_offsets(3, &id, a, &group), 0);
        let request = Client::txn_offset_commit_request(&id, a, &group, &[(&topic, 0, 9)]);
        assert_eq!(world.client.txn_offset_commit(3, &request), [0]);
        if world.is_kafka {
            continue;
        }
        if offsets {
            let late = Client::txn_offset_commit_request(&id, a, &group, &[(&topic, 0, 5)]);
            assert!(older.try_call(3, &late).is_none(), "TxnOffsetCommit");
        } else {
            let late = older.try_add_partitions(3, &id, a, &[(&other, 0)]);
            assert!(late.is_none(), "AddPartitionsToTxn");
        }
    }
    assert_eq!(world.commit4(a), 0);
    wait_until("the offset is committed, not the late one", || {
        world.client.committed_offset(&group, &topic, 0, true) == (0, 9)
    });
}

/// Who speaks on several connections is not disturbed while none of its requests is late.
#[test]
fn d8_one_producer_may_use_a_connection_for_each_kind_of_request() {
    let mut world = World::new();
    let a = world.ipi();
    let mut coordinator = world.another_client();
    for round in 0..3 {
        let topic = world.topic.clone();
        // Apache Kafka still completes the transaction before (D-6).
        wait_until("the partition is added", || {
            coordinator.add_partitions(3, &world.id, a, &[(&topic, 0)]) == [0]
        });
        assert_eq!(world.td9(a, round, 1), At(i64::from(round) * 2));
        assert_eq!(coordinator.end_txn(4, &world.id, a, true).0, 0);
    }
    world.expect_lso(6);
}

/// A new epoch begins a new order: InitProducerId on an old connection is not late.
#[test]
fn d8_a_new_epoch_may_speak_on_any_connection() {
    let mut world = World::new();
    let a = world.ipi();
    let mut older = go_on_over_a_new_connection(&mut world);
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(1);
    std::mem::swap(&mut older, &mut world.client);
    let b = world.ipi();
    assert_eq!(b.epoch, a.epoch + 1);
    assert_eq!(world.apt(b), 0);
    assert_eq!(world.td9(b, 0, 1), At(1));
    assert_eq!(world.commit4(b), 0);
}

/// The new flow names the transaction by its epoch, so its connections are not ordered.
#[test]
fn d8_the_new_flow_is_left_alone() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!(world.td12(a, 0, 1), At(0));
    let mut older = go_on_over_a_new_connection(&mut world);
    let (error, b) = world.commit5(a);
    assert_eq!(error, 0);
    assert_eq!(world.td12(b, 0, 1), At(2));
    assert_eq!(older.try_end_txn(5, &world.id, a, true), Some(90), "B-1");
    assert_eq!(world.commit5(b).0, 0);
}
