//! Rules that no case of the catalogue looks at by itself (docs/exactly-once.md): what an error answer still says, codes that
//! are translated, checks of joining in their order, both ways in which clients drop what was aborted.

use crate::admin::describe;
use crate::held::with_faults;
use crate::world::Answer::{At, Code};
use crate::world::{PROGRAM, World, bumped};
use kafka_protocol::messages::FetchRequest;
use std::collections::BTreeMap;
use tally_protocol::batch::TRANSACTIONAL_BIT;
use tally_testkit::batches::{Batch, ReadBatch};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, FetchCall, Fetched, ProduceCall, Producer, unique};
use tally_testkit::waiting::wait_until;

#[test]
fn p29_a_refusal_names_the_log_start_where_it_is_known() {
    let mut world = World::new();
    let a = world.pid();
    assert_eq!(world.d(a, 0, 0, 3), At(0));
    let topic = world.topic.clone();
    assert_eq!(world.client.delete_records(&topic, 0, 2), (0, 2));
    let gap = Batch::idempotent(a, 0, 9, 1).encode();
    let refused = world.produce_bytes(9, false, gap.clone());
    assert_eq!((refused.error, refused.log_start_offset), (45, 2));
    assert_eq!((refused.base_offset, refused.log_append_time), (-1, -1));
    world.topic = unique("nope");
    let refused = world.produce_bytes(9, false, gap);
    assert_eq!((refused.error, refused.log_start_offset), (3, -1));
    assert_eq!((refused.base_offset, refused.log_append_time), (-1, -1));
}

#[test]
fn p35_what_is_in_a_duplicate_is_not_compared() {
    let mut world = World::new();
    let a = world.pid();
    let first = Batch::idempotent(a, 0, 0, 2).with_values("first");
    assert_eq!(world.plain(&first), At(0));
    let other = Batch::idempotent(a, 0, 0, 2).with_values("quite another one");
    assert_eq!(world.plain(&other), At(0));
    assert_eq!(world.leo(), 2);
    let read = world.ru(0);
    assert_eq!(read.batches.len(), 1);
    for record in &read.batches[0].records {
        let value = record.value.as_deref().expect("a value");
        assert!(value.starts_with(b"first"), "{value:?}");
    }
}

/// A transactional batch to t-1 of a topic with two partitions.
#[track_caller]
fn to_the_other(world: &mut World, version: i16, producer: Producer) -> i16 {
    let batch = Batch::transactional(producer.id, producer.epoch, 0, 1).encode();
    let (topic, id) = (world.topic.clone(), world.id.clone());
    let produced = world.client.produce(&ProduceCall {
        version,
        acks: -1,
        transactional_id: Some(&id),
        parts: vec![(&topic, 1, Some(batch))],
    });
    produced[0].error
}

/// V-3: a producer hears of its coordinator in codes that its version knows: what may be tried again is 19 to the old flow.
#[test]
fn v3_b15_what_the_coordinator_says_is_translated_for_producers() {
    let Some((broker, mut world)) = with_faults(2, &["marker=fail@1", "reserve=fail@1"]) else {
        return;
    };
    let a = world.ipi();
    let stranger = Producer {
        id: world.pid(),
        epoch: 0,
    };
    for version in [9, 11, 12] {
        assert_eq!(to_the_other(&mut world, version, stranger), 49);
        let old = Producer { epoch: -1, ..a };
        // An epoch that no producer has (D-9), and one that is still to come.
        assert_eq!(to_the_other(&mut world, version, old), 87);
        assert_eq!(to_the_other(&mut world, version, bumped(a)), 47);
    }
    // The record by which the partition would join finds no room.
    broker.wake(1);
    assert_eq!(to_the_other(&mut world, 12, a), 19);
    broker.calm(1);
    assert_eq!((world.apt(a), world.td9(a, 0, 1)), (0, At(0)));
    broker.wake(0);
    assert_eq!(world.commit4(a), 0, "its marker is still out (E-4)");
    for (version, code) in [(9, 19), (11, 19), (12, 51)] {
        assert_eq!(to_the_other(&mut world, version, a), code, "v{version}");
    }
    broker.calm(0);
    wait_until("the marker", || world.lso() == 2);
    let next = world.ipi();
    assert_eq!(next, bumped(a));
    assert_eq!(world.td9(a, 1, 1), Code(47));
    assert_eq!(to_the_other(&mut world, 12, a), 47);
    let end = world.client.latest(&world.topic, 1);
    assert_eq!(end, 0, "nothing of all that was written");
}

#[test]
fn a2_a9_who_joins_is_looked_at_in_order() {
    let mut world = World::new();
    let (topic, id) = (world.topic.clone(), world.id.clone());
    let group = unique("g");
    world.client.wait_for_group(&group);
    let a = world.ipi();
    let stranger = Producer {
        id: world.pid(),
        epoch: 0,
    };
    let client = &mut world.client;
    let both = [(topic.as_str(), 0), ("nope", 0)];
    // Partitions come before the id, the id before its producer.
    assert_eq!(client.add_partitions(3, "", a, &both), [55, 3]);
    assert_eq!(client.add_partitions(3, "", a, &both[..1]), [42]);
    assert_eq!(client.add_offsets(3, "", a, &group), 42);
    assert_eq!(client.end_txn(4, "", a, true).0, 42);
    assert_eq!(client.end_txn(5, "", a, true).0, 42);
    let unknown = unique("x");
    wait_until("its coordinator", || {
        client.find_coordinator(&unknown, 1) == 0
    });
    assert_eq!(client.add_offsets(3, &unknown, a, &group), 49);
    assert_eq!(client.add_offsets(3, &id, stranger, &group), 49);
    assert_eq!(client.add_offsets(3, &id, bumped(a), &group), 90);
    assert_eq!(client.add_offsets(1, &id, bumped(a), &group), 47);
    let before = describe(&mut world, &[&id]).remove(0);
    assert_eq!(before.topics, [], "nothing has joined");
    // Twice is no error, and it is the group's partition that has joined.
    for _ in 0..2 {
        assert_eq!(world.client.add_offsets(3, &id, a, &group), 0);
    }
    let state = describe(&mut world, &[&id]).remove(0);
    assert_eq!(&*state.transaction_state, "Ongoing");
    assert_eq!(state.topics.len(), 1);
    assert_eq!(&*state.topics[0].topic.0, "__consumer_offsets");
    assert_eq!(state.topics[0].partitions.len(), 1);
    assert_eq!(world.abort4(a), 0);
}

#[test]
fn b24_after_a_refused_end_the_description_tells_the_outcome() {
    let mut world = World::new();
    let id = world.id.clone();
    for commit in [true, false] {
        let a = world.ipi();
        let begin = world.leo();
        assert_eq!((world.apt(a), world.td9(a, 0, 1)), (0, At(begin)));
        assert_eq!(world.end(4, a, commit), 0);
        world.expect_lso(begin + 2);
        assert_eq!(world.end(4, a, !commit), 48);
        let state = describe(&mut world, &[&id]).remove(0);
        let (name, records) = if commit {
            ("CompleteCommit", 1)
        } else {
            ("CompleteAbort", 0)
        };
        assert_eq!(&*state.transaction_state, name);
        assert_eq!(world.rc(begin).committed().len(), records);
        assert_eq!(world.leo(), begin + 2, "no other marker");
    }
}

/// B-10: what a parked reader is answered has the list of the moment it is answered, not of the moment it came.
#[test]
fn b10_a_reader_that_waited_is_told_what_was_aborted_meanwhile() {
    let mut world = World::new();
    let a = world.ipi();
    assert_eq!((world.apt(a), world.td9(a, 0, 2)), (0, At(0)));
    let topic = world.topic.clone();
    let mut reader = world.another_client();
    let mut call = FetchCall::of(&topic, 0, 0, 1);
    call.max_wait_ms = 20_000;
    call.min_bytes = 1;
    let request = reader.fetch_request(&call);
    let correlation_id = reader.send(12, &request);
    assert_eq!(world.abort4(a), 0);
    let response = reader.receive::<FetchRequest>(12, correlation_id);
    let read = reader.fetched(12, &response, &topic, 0);
    assert_eq!(read.data_offsets(), [0, 1]);
    assert_eq!(read.aborted, Some(vec![(a.id, 0)]));
    assert_eq!(read.committed(), []);
}

/// How librdkafka and franz-go drop what was aborted: a sorted list for each producer; a batch goes if it begins at or behind
/// the head, and an ABORT marker takes the head away. `Fetched::committed` does as the Java client and sarama do.
fn kept_by_lists(fetched: &Fetched) -> Vec<i64> {
    let mut lists: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (producer, first) in fetched.aborted.clone().unwrap_or_default() {
        lists.entry(producer).or_default().push(first);
    }
    lists.values_mut().for_each(|list| list.sort_unstable());
    let mut kept = Vec::new();
    for batch in &fetched.batches {
        let list = lists.entry(batch.header.producer_id.0).or_default();
        let head = list.first().copied().unwrap_or(i64::MAX);
        match batch.marker() {
            Some(false) if head <= batch.base_offset() => drop(list.remove(0)),
            Some(_) => {}
            None if batch.header.is_transactional() && head <= batch.base_offset() => {}
            None => kept.extend(batch.records.iter().map(|record| record.offset)),
        }
    }
    kept
}

#[test]
fn f8_clients_of_both_kinds_keep_the_same_from_every_offset() {
    let mut world = World::new();
    // Three producers whose transactions lie over one another; every second one of each aborts.
    let mut producers: Vec<(String, Producer, i32)> = (0..3)
        .map(|nth| {
            world.id = unique(&format!("f{nth}"));
            (world.id.clone(), world.ipi(), 0)
        })
        .collect();
    let mut expected = Vec::new();
    let mut is_open = [Vec::new(), Vec::new(), Vec::new()];
    for step in 0..24_usize {
        let who = step % 3;
        let (id, producer, sequence) = &mut producers[who];
        world.id.clone_from(id);
        if is_open[who].is_empty() {
            assert_eq!(world.apt(*producer), 0);
        }
        let At(offset) = world.td9(*producer, *sequence, 2) else {
            panic!("step {step} is refused");
        };
        *sequence += 2;
        is_open[who].extend([offset, offset + 1]);
        // Lengths of two, three and four batches, so that ends fall into one another.
        if (step / 3) % (who + 2) == who + 1 {
            let commit = (step + who) % 2 == 0;
            assert_eq!(world.end(4, *producer, commit), 0);
            let written = std::mem::take(&mut is_open[who]);
            expected.extend(written.into_iter().filter(|_| commit));
        }
    }
    for (who, (id, producer, _)) in producers.iter().enumerate() {
        world.id.clone_from(id);
        if !is_open[who].is_empty() {
            assert_eq!(world.abort4(*producer), 0);
        }
    }
    expected.sort_unstable();
    // Apache Kafka may not have written the last markers yet (D-6).
    wait_until("all is decided", || world.lso() == world.leo());
    let end = world.leo();
    for from in 0..end {
        let read = world.rc(from);
        // Batches come whole: the first may begin below.
        let base = read.batches.first().map_or(end, ReadBatch::base_offset);
        let wanted: Vec<i64> = expected.iter().copied().filter(|at| *at >= base).collect();
        let kept: Vec<i64> = read.committed().iter().map(|(at, _)| *at).collect();
        assert_eq!(kept, wanted, "one set, from {from}");
        assert_eq!(kept_by_lists(&read), wanted, "a list each, from {from}");
    }
}

/// M-3, O-6: what a transaction writes has its bit, data and offsets alike; offsets of one request are one batch.
#[test]
fn m3_o6_every_batch_of_a_transaction_says_so() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut world = World::on(&broker);
    world.topic = world.another_topic(2, &[]);
    let group = unique("g");
    world.client.wait_for_group(&group);
    let a = world.ipi();
    assert_eq!(world.td12(a, 0, 2), At(0));
    let offsets = [(world.topic.as_str(), 0, 5), (world.topic.as_str(), 1, 6)];
    let request = Client::txn_offset_commit_request(&world.id, a, &group, &offsets);
    assert_eq!(world.client.txn_offset_commit(5, &request), [0, 0]);
    assert_eq!(world.commit5(a), (0, bumped(a)));
    wait_until("its marker", || {
        world.client.committed_offset(&group, &world.topic, 0, true) == (0, 5)
    });
    let mut of_the_group = Vec::new();
    for partition in 0..50 {
        let client = &mut world.client;
        let read = client.read_uncommitted("__consumer_offsets", partition, 0);
        of_the_group.extend(read.batches);
    }
    of_the_group.retain(|batch| batch.header.producer_id.0 == a.id);
    assert_eq!(of_the_group.len(), 2, "the offsets and their marker");
    assert_eq!(of_the_group[0].records.len(), 2);
    assert_eq!(of_the_group[0].header.producer_epoch.0, a.epoch);
    if !world.is_kafka {
        // Kafka writes 0, and looks at neither.
        assert_eq!(of_the_group[0].header.base_sequence.0, -1);
    }
    assert_eq!(of_the_group[0].marker(), None);
    assert_eq!(of_the_group[1].marker(), Some(true));
    world.expect_lso(3);
    let data = world.ru(0).batches;
    assert_eq!(data.len(), 2);
    for batch in data.iter().chain(&of_the_group) {
        assert_ne!(batch.header.attributes & TRANSACTIONAL_BIT, 0);
    }
}

#[test]
fn o5_offsets_that_find_no_room_are_refused_with_16() {
    let Some((broker, mut world)) = with_faults(1, &["reserve=fail@1"]) else {
        return;
    };
    let group = unique("g");
    world.client.wait_for_group(&group);
    let a = world.ipi();
    let (topic, id) = (world.topic.clone(), world.id.clone());
    assert_eq!(world.client.add_offsets(3, &id, a, &group), 0);
    let offsets = [(topic.as_str(), 0, 5)];
    let request = Client::txn_offset_commit_request(&id, a, &group, &offsets);
    broker.wake(0);
    for version in [0, 3, 4] {
        assert_eq!(world.client.txn_offset_commit(version, &request), [16]);
    }
    let stable = |world: &mut World| world.client.committed_offset(&group, &topic, 0, true);
    assert_eq!(stable(&mut world), (0, -1), "nothing is pending");
    broker.calm(0);
    assert_eq!(world.client.txn_offset_commit(3, &request), [0]);
    assert_eq!(world.commit4(a), 0);
    assert_eq!(stable(&mut world), (0, 5));
}
