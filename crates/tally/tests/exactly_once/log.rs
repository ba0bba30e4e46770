//! 12.6 What readers see of transactions.

use crate::world::{Answer::*, World};
use bytes::Bytes;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use std::time::{Duration, Instant};
use tally_testkit::batches::Batch;
use tally_testkit::client::{FetchCall, Producer, topic_name, unique};
use tally_testkit::waiting::wait_until;

/// A second producer with an id of its own, in an open transaction on t-0.
#[track_caller]
fn another_open(world: &mut World, count: i32, expected: i64) -> (String, Producer) {
    let own = std::mem::replace(&mut world.id, unique("y"));
    let b = world.ipi();
    assert_eq!(world.apt(b), 0);
    assert_eq!(world.td9(b, 0, count), At(expected));
    (std::mem::replace(&mut world.id, own), b)
}

/// Ends the transaction of another id.
#[track_caller]
fn end_of(world: &mut World, id: &str, producer: Producer, commit: bool) {
    let own = std::mem::replace(&mut world.id, id.to_owned());
    assert_eq!(world.end(4, producer, commit), 0);
    world.id = own;
}

/// A producer of the test's id in an open transaction.
#[track_caller]
fn open(world: &mut World, count: i32, expected: i64) -> Producer {
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 0, count), At(expected));
    a
}

#[test]
fn x170_the_bytes_of_a_marker() {
    let mut world = World::new();
    let a = open(&mut world, 2, 0);
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(3);
    let read = world.ru(2);
    let marker = &read.batches[0];
    assert_eq!(marker.bytes.len(), 78);
    assert_eq!(marker.header.attributes, 0x30);
    assert_eq!(marker.header.base_sequence.0, -1);
    assert_eq!(marker.header.producer_id.0, a.id);
    assert_eq!(marker.header.producer_epoch.0, a.epoch);
    assert_eq!(marker.header.records_count, 1);
    let record = &marker.records[0];
    assert_eq!(record.key, Some(Bytes::from_static(&[0, 0, 0, 1])));
    let value = record.value.as_ref().expect("a value");
    assert_eq!((value.len(), &value[..2]), (6, &[0u8, 0][..]));
}

#[test]
fn x171_between_the_last_stable_offset_and_the_end() {
    let mut world = World::new();
    let a = open(&mut world, 5, 0);
    for (offset, error) in [(0, 0), (3, 0), (5, 0), (6, 1)] {
        let read = world.rc(offset);
        assert_eq!(read.error, error, "at {offset}");
        assert!(read.batches.is_empty());
        if error == 0 {
            assert_eq!((read.last_stable_offset, read.high_watermark), (0, 5));
        }
    }
    assert_eq!(world.abort4(a), 0);
}

#[test]
fn x172_an_open_transaction_hides_what_follows() {
    let mut world = World::new();
    let a = open(&mut world, 2, 0);
    assert_eq!(world.plain(&Batch::plain(3)), At(2));
    assert!(world.rc(0).batches.is_empty());
    assert_eq!((world.lso(), world.leo()), (0, 5));
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(6);
    assert_eq!(world.rc(0).committed().len(), 5);
}

#[test]
fn x173_the_earliest_open_transaction_counts() {
    let mut world = World::new();
    let a = open(&mut world, 2, 0);
    let (y, b) = another_open(&mut world, 2, 2);
    end_of(&mut world, &y, b, true);
    assert_eq!(world.lso(), 0);
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(6);
}

#[test]
fn x174_the_list_holds_what_the_answer_needs() {
    let mut world = World::new();
    let a = open(&mut world, 5, 0);
    assert_eq!(world.abort4(a), 0);
    assert_eq!(world.apt(a), 0);
    assert_eq!(world.td9(a, 5, 3), At(6));
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(10);
    let later = world.rc(6);
    assert_eq!(later.aborted, Some(vec![]));
    assert_eq!(later.committed().len(), 3);
    let all = world.rc(0);
    assert_eq!(all.aborted, Some(vec![(a.id, 0)]));
    let offsets: Vec<i64> = all.committed().iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [6, 7, 8]);
}

#[test]
fn x175_a_fetch_in_the_middle_of_an_aborted_transaction() {
    let mut world = World::new();
    let a = open(&mut world, 3, 0);
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(4);
    let read = world.rc(2);
    assert_eq!(read.aborted, Some(vec![(a.id, 0)]));
    assert_eq!(read.committed(), []);
}

#[test]
fn x176_the_list_ends_with_the_answer() {
    let mut world = World::new();
    let a = open(&mut world, 2, 0);
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(3);
    let (y, b) = another_open(&mut world, 2, 3);
    end_of(&mut world, &y, b, false);
    world.expect_lso(6);
    let topic = world.topic.clone();
    let mut call = FetchCall::of(&topic, 0, 0, 1);
    call.partition_max_bytes = 1;
    call.max_bytes = 1;
    let read = world.client.fetch(&call).remove(0);
    assert_eq!(read.batches.len(), 1);
    let listed = read.aborted.expect("a list");
    assert!(listed.contains(&(a.id, 0)));
    if !world.is_kafka {
        assert_eq!(listed, [(a.id, 0)], "D-11: exact bounds");
    }
    let rest = world.rc(0);
    assert_eq!(rest.aborted, Some(vec![(a.id, 0), (b.id, 3)]));
}

#[test]
fn x177_a_transaction_over_three_segments() {
    let mut world = World::with_topic(1, &[("segment.bytes", "1048576")]);
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    for sequence in 0..3 {
        let mut batch = Batch::transactional(a.id, a.epoch, sequence, 1);
        batch.records[0].value = Some(vec![b'x'; 600_000].into());
        let produced = world.produce_bytes(9, true, batch.encode());
        assert_eq!((produced.error, produced.base_offset), (0, sequence.into()));
    }
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(4);
    let topic = world.topic.clone();
    for offset in 0..3 {
        let mut call = FetchCall::of(&topic, 0, offset, 1);
        call.partition_max_bytes = 1;
        let read = world.client.fetch(&call).remove(0);
        assert_eq!(read.batches.len(), 1);
        assert_eq!(read.aborted, Some(vec![(a.id, 0)]), "at {offset}");
        assert_eq!(read.committed(), []);
    }
}

#[test]
fn x178_d11_the_list_is_in_the_order_of_first_offsets() {
    let mut world = World::new();
    let a = open(&mut world, 1, 0);
    let (y, b) = another_open(&mut world, 3, 1);
    end_of(&mut world, &y, b, false);
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(6);
    let mut listed = world.rc(0).aborted.expect("a list");
    if world.is_kafka {
        listed.sort_by_key(|(_, first)| *first);
    }
    assert_eq!(listed, [(a.id, 0), (b.id, 1)]);
    assert_eq!(world.rc(0).committed(), []);
}

#[test]
fn x179_a_commit_wakes_a_waiting_reader_and_data_does_not() {
    let mut world = World::new();
    let a = open(&mut world, 2, 0);
    let topic = world.topic.clone();
    let mut reader = world.another_client();
    let mut call = FetchCall::of(&topic, 0, 0, 1);
    call.max_wait_ms = 20_000;
    call.min_bytes = 1;
    let request = reader.fetch_request(&call);
    let start = Instant::now();
    let correlation_id = reader.send(12, &request);
    assert_eq!(world.plain(&Batch::plain(1)), At(2));
    assert_eq!(world.commit4(a), 0);
    let response = reader.receive::<FetchRequest>(12, correlation_id);
    let read = reader.fetched(12, &response, &topic, 0);
    assert!(!read.batches.is_empty(), "woken with data");
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "woken, not timed out"
    );
    assert_eq!(read.committed().len(), 3);
}

#[test]
fn x181_list_offsets_by_time_stops_at_the_last_stable_offset() {
    let mut world = World::new();
    let start = tally_testkit::batches::now_ms();
    let mut plain = Batch::plain(5);
    plain.base_timestamp = start;
    for (delta, record) in (0..).zip(&mut plain.records) {
        record.timestamp_delta = delta;
    }
    assert_eq!(world.plain(&plain), At(0));
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    let mut open = Batch::transactional(a.id, a.epoch, 0, 1);
    open.base_timestamp = start + 5;
    let produced = world.produce_bytes(9, true, open.encode());
    assert_eq!((produced.error, produced.base_offset), (0, 5));
    let topic = world.topic.clone();
    let mut list = |version, isolation, timestamp| {
        world
            .client
            .list_offset((version, isolation), &topic, 0, timestamp)
    };
    assert_eq!(list(7, 1, start + 5), (0, -1, -1));
    assert_eq!(list(7, 0, start + 5), (0, 5, start + 5));
    assert_eq!(list(7, 1, start + 2), (0, 2, start + 2));
    let (error, offset, _) = list(7, 1, -3);
    assert!(error == 0 && offset < 5, "-3 gave {error} {offset}");
    assert_eq!(list(2, 0, -3).0, 35);
    assert_eq!(world.abort4(a), 0);
}

#[test]
fn x187_delete_records_in_an_open_transaction() {
    let mut world = World::new();
    let a = open(&mut world, 2, 0);
    assert_eq!(world.plain(&Batch::plain(3)), At(2));
    let topic = world.topic.clone();
    assert_eq!(world.client.delete_records(&topic, 0, 3), (0, 3));
    assert!(world.rc(3).batches.is_empty());
    let expected = if world.is_kafka { 2 } else { 3 };
    assert_eq!(world.lso(), expected);
    assert_eq!(world.commit4(a), 0);
    world.expect_lso(6);
    let read = world.rc(3);
    let offsets: Vec<i64> = read.committed().iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [2, 3, 4], "the batch is returned whole");
    assert_eq!(read.log_start_offset, 3);
}

/// WriteTxnMarkers v1: the code of t-0.
#[track_caller]
pub(crate) fn write_marker(
    world: &mut World,
    producer: Producer,
    coordinator: i32,
    commit: bool,
) -> i16 {
    let topic = WritableTxnMarkerTopic::default()
        .with_name(topic_name(&world.topic))
        .with_partition_indexes(vec![0]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(producer.id.into())
        .with_producer_epoch(producer.epoch)
        .with_transaction_result(commit)
        .with_coordinator_epoch(coordinator)
        .with_topics(vec![topic]);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let response = world.client.call(1, &request);
    response.markers[0].topics[0].partitions[0].error_code
}

#[test]
fn x182_the_epoch_of_a_marker() {
    let mut world = World::new();
    let id = world.pid();
    assert_eq!(world.d(id, 3, 0, 1), At(0));
    let at = |epoch| Producer { id, epoch };
    assert_eq!(write_marker(&mut world, at(2), 0, false), 47);
    assert_eq!(write_marker(&mut world, at(3), 0, false), 0);
}

#[test]
fn x183_the_epoch_of_a_coordinator() {
    let mut world = World::new();
    let id = world.pid();
    let a = Producer { id, epoch: 0 };
    assert_eq!(write_marker(&mut world, a, 5, false), 0);
    assert_eq!(write_marker(&mut world, a, 4, false), 52);
    assert_eq!(write_marker(&mut world, a, 5, false), 0);
}

#[test]
fn x184_a_marker_makes_an_entry() {
    let mut world = World::new();
    let id = world.pid();
    assert_eq!(
        write_marker(&mut world, Producer { id, epoch: 2 }, 0, false),
        0
    );
    assert_eq!(world.d(id, 1, 0, 1), Code(47));
    assert!(matches!(world.d(id, 2, 0, 1), At(_)));
}

#[test]
fn x190_random_transactions_are_read_whole_at_every_size() {
    let mut world = World::new();
    let mut open: Vec<(String, Producer, i32, Vec<i64>)> = Vec::new();
    for nth in 0..5 {
        let id = unique(&format!("z{nth}"));
        world.id.clone_from(&id);
        open.push((id, world.ipi(), 0, Vec::new()));
    }
    let mut expected = Vec::new();
    // A fixed play of numbers (a linear congruence): which producer, how many records, commit or abort.
    let mut state = 12345u32;
    let mut next = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    for _ in 0..100 {
        let (id, producer, sequence, written) = &mut open[next(5) as usize];
        world.id.clone_from(id);
        if !written.is_empty() && next(3) == 0 {
            let commit = next(10) >= 3;
            assert_eq!(world.end(4, *producer, commit), 0);
            if commit {
                expected.append(written);
            }
            written.clear();
            continue;
        }
        if written.is_empty() {
            assert_eq!(world.apt(*producer), 0);
        }
        let count = i32::try_from(next(3)).expect("small") + 1;
        let At(base) = world.td9(*producer, *sequence, count) else {
            panic!("not appended");
        };
        *sequence += count;
        written.extend(base..base + i64::from(count));
    }
    for (id, producer, _, written) in &mut open {
        world.id.clone_from(id);
        if !written.is_empty() {
            assert_eq!(world.commit4(*producer), 0);
            expected.append(written);
        }
    }
    expected.sort_unstable();
    if world.is_kafka {
        wait_until("all are decided", || world.lso() == world.leo());
    }
    let end = world.leo();
    assert_eq!(world.lso(), end);
    let topic = world.topic.clone();
    for size in [1, 200, 1000, 1 << 20] {
        let mut read = Vec::new();
        let mut at = 0;
        while at < end {
            let mut call = FetchCall::of(&topic, 0, at, 1);
            call.partition_max_bytes = size;
            let fetched = world.client.fetch(&call).remove(0);
            let last = fetched.batches.last().expect("something below the end");
            read.extend(fetched.committed().into_iter().map(|(offset, _)| offset));
            at = last.header.last_offset().0 + 1;
        }
        assert_eq!(read, expected, "{size} bytes at a time");
    }
}

#[test]
fn x186_a_session_hears_of_a_last_stable_offset_that_moves() {
    let mut world = World::with_topic(2, &[]);
    let topic = world.topic.clone();
    let a = world.ipi();
    assert_eq!(world.apt_to(3, a, &[(&topic, 1)]), [0]);
    let batch = Batch::transactional(a.id, a.epoch, 0, 2).encode();
    let id = world.id.clone();
    let call = tally_testkit::client::ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some(&id),
        parts: vec![(&topic, 1, Some(batch))],
    };
    wait_until("the batch is taken", || {
        world.client.produce(&call)[0].error == 0
    });
    let mut reader = world.another_client();
    let mut session = |id: i32, epoch: i32, parts: &[(&str, i32, i64)], wait_ms: i32| {
        let mut call = FetchCall::of(&topic, 0, 0, 1);
        call.max_wait_ms = wait_ms;
        call.parts = parts.to_vec();
        let request = reader.fetch_request(&call);
        let request = request.with_session_id(id).with_session_epoch(epoch);
        let response = reader.call(12, &request);
        let found: Vec<(i32, i64, usize)> = response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions)
            .map(|part| {
                let bytes = part.records.as_ref().map_or(0, |records| records.len());
                (part.partition_index, part.last_stable_offset, bytes)
            })
            .collect();
        (response.session_id, found)
    };
    let (opened, found) = session(0, 0, &[(&topic, 0, 0), (&topic, 1, 0)], 0);
    assert_eq!(found, [(0, 0, 0), (1, 0, 0)]);
    assert_eq!(session(opened, 1, &[], 0).1, [], "nothing is new");
    assert_eq!(world.commit4(a), 0);
    // Apache Kafka answers before it writes the marker (D-6).
    wait_until("the marker", || world.client.stable(&topic, 1) == 3);
    let (_, found) = session(opened, 2, &[], 10_000);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].0, found[0].1), (1, 3));
    assert!(found[0].2 > 0, "with its data");
}

#[test]
fn x188_a_reader_of_aborted_data_gets_past_the_marker() {
    let mut world = World::new();
    let a = open(&mut world, 2, 0);
    assert_eq!(world.abort4(a), 0);
    world.expect_lso(3);
    let read = world.rc(0);
    assert_eq!(read.committed(), []);
    let last = read.batches.last().expect("aborted data and its marker");
    let position = last.header.last_offset().0 + 1;
    assert_eq!(
        (position, world.lso() - position),
        (3, 0),
        "position and lag"
    );
    assert!(world.rc(position).batches.is_empty());
}
