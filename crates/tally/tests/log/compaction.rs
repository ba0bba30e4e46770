//! Compacted topics over the wire: L35 to L38, L40, L41, and that the coordinators' own topics shrink.

use crate::configs::{SET, TOPIC, alter};
use crate::corner::{Corner, PROGRAM};
use bytes::Bytes;
use kafka_protocol::messages::{DeleteTopicsRequest, InitProducerIdRequest};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use tally_testkit::batches::{Batch, now_ms};
use tally_testkit::broker::{Broker, is_reference};
use tally_testkit::client::{
    Client, FetchCall, ProduceCall, Producer, topic_name, transactional_id, unique,
};
use tally_testkit::waiting::wait_until;

/// Two batches of these tests fill a segment.
const SMALL: (&str, &str) = ("internal.segment.bytes", "200");
const COMPACT: (&str, &str) = ("cleanup.policy", "compact");
/// Whatever is not compacted yet is worth a pass.
const EAGER: (&str, &str) = ("min.cleanable.dirty.ratio", "0");

/// Whoever waits for a pass, which in `commit` and `always` waits for a checkpoint, closes segments so often meanwhile.
const ROUNDS: u32 = 50;

/// A broker that looks often.
#[track_caller]
fn broker(settings: &[&str]) -> Broker {
    let often = ["log.cleaner.backoff.ms=20"];
    Broker::start(PROGRAM, &[&often[..], settings].concat())
}

fn bytes(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

/// A batch of one record.
fn record(batch: Batch, key: &str, value: Option<&str>) -> Batch {
    let mut batch = batch;
    batch.records.truncate(1);
    batch.records[0].key = Some(bytes(key));
    batch.records[0].value = value.map(bytes);
    batch
}

#[track_caller]
fn put(client: &mut Client, topic: &str, key: &str, value: Option<&str>) -> i64 {
    let batch = record(Batch::plain(1), key, value);
    let produced = client.produce_one(topic, 0, batch.encode());
    assert_eq!(produced.error, 0);
    produced.base_offset
}

/// Closes the segments that hold what is there now.
#[track_caller]
fn close_segments(client: &mut Client, topic: &str) {
    for _ in 0..4 {
        put(client, topic, "filler", Some("of segments"));
    }
}

/// Offset, key and value of all records but those of the filler.
#[track_caller]
fn read(client: &mut Client, topic: &str, isolation: i8) -> Vec<(i64, String, Option<String>)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let (mut found, mut next) = (Vec::new(), 0);
    loop {
        let call = FetchCall::of(topic, 0, next, isolation);
        let fetched = client.fetch(&call).remove(0);
        assert_eq!(fetched.error, 0);
        let Some(last) = fetched.batches.last() else {
            return found;
        };
        next = last.header.last_offset().0 + 1;
        let kept: Vec<i64> = match isolation {
            0 => fetched.data_offsets(),
            _ => fetched.committed().iter().map(|(at, _)| *at).collect(),
        };
        for record in fetched.batches.iter().flat_map(|batch| &batch.records) {
            let key = record.key.as_ref().map(text).unwrap_or_default();
            if kept.contains(&record.offset) && key != "filler" {
                found.push((record.offset, key, record.value.as_ref().map(text)));
            }
        }
    }
}

#[track_caller]
fn offsets(client: &mut Client, topic: &str) -> Vec<i64> {
    let read = read(client, topic, 0);
    read.iter().map(|(offset, ..)| *offset).collect()
}

/// Waits until only these are left of what was sent.
#[track_caller]
fn wait_for_offsets(client: &mut Client, topic: &str, expected: &[i64]) {
    let mut rounds = 0..ROUNDS;
    wait_until("the rest has gone", || {
        rounds
            .next()
            .into_iter()
            .for_each(|_| close_segments(client, topic));
        offsets(client, topic) == expected
    });
}

/// Nothing is wrong with the files of a broker that was stopped.
#[track_caller]
fn check_files(data: &Path) {
    if is_reference() {
        return;
    }
    let data = data.to_str().expect("a path in UTF-8");
    let output = Command::new(PROGRAM)
        .args(["verify", "log", data, "-o", "jsonl", "--deep"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn l35_the_last_value_stays_and_a_deletion_until_its_time_has_come() {
    let mut broker = broker(&[]);
    let mut corner = Corner::at(broker.address(), 1, &[SMALL, COMPACT, EAGER]);
    let kept = corner.topic.clone();
    let short = corner.another_topic(1, &[SMALL, COMPACT, EAGER, ("delete.retention.ms", "0")]);
    for topic in [&kept, &short] {
        put(&mut corner, topic, "a", Some("1"));
        put(&mut corner, topic, "b", Some("1"));
        put(&mut corner, topic, "a", Some("2"));
        put(&mut corner, topic, "b", None);
    }
    wait_for_offsets(&mut corner, &kept, &[2, 3]);
    let left = read(&mut corner, &kept, 1);
    assert_eq!(left[0], (2, "a".to_owned(), Some("2".to_owned())));
    assert_eq!(left[1], (3, "b".to_owned(), None), "a deletion, to be seen");
    wait_for_offsets(&mut corner, &short, &[2]);
    assert_eq!(offsets(&mut corner, &kept), [2, 3]);
    drop(corner);
    assert!(broker.stop());
    check_files(&broker.data());
}

/// One record in a transaction.
#[track_caller]
fn write(client: &mut Client, id: &str, producer: Producer, topic: &str, sequence: i32, key: &str) {
    wait_until("the partition is added", || {
        client.add_partitions(3, id, producer, &[(topic, 0)]) == [0]
    });
    let batch = Batch::transactional(producer.id, producer.epoch, sequence, 1);
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some(id),
        parts: vec![(topic, 0, Some(record(batch, key, Some("x")).encode()))],
    };
    assert_eq!(client.produce(&call)[0].error, 0);
}

#[track_caller]
pub(crate) fn transactional(client: &mut Client, id: &str) -> Producer {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(id)))
        .with_transaction_timeout_ms(600_000);
    let (error, producer) = client.init_producer_id(4, &request);
    assert_eq!(error, 0);
    producer
}

#[track_caller]
fn end(client: &mut Client, id: &str, producer: Producer, commit: bool) {
    wait_until("the transaction ends", || {
        client.end_txn(3, id, producer, commit).0 == 0
    });
}

#[test]
fn l36_aborted_records_go_and_committed_ones_are_read_as_before() {
    let mut broker = broker(&[]);
    let mut corner = Corner::at(broker.address(), 1, &[SMALL, COMPACT, EAGER]);
    let topic = corner.topic.clone();
    let id = unique("x");
    let producer = transactional(&mut corner, &id);
    put(&mut corner, &topic, "k", Some("before"));
    for (sequence, commit) in [(0, false), (1, true), (2, false)] {
        let key = ["k", "l", "k"][usize::try_from(sequence).expect("small")];
        write(&mut corner, &id, producer, &topic, sequence, key);
        end(&mut corner, &id, producer, commit);
    }
    wait_until("all is decided", || corner.stable(&topic, 0) == 7);
    let expected = [
        (0, "k".to_owned(), Some("before".to_owned())),
        (3, "l".to_owned(), Some("x".to_owned())),
    ];
    assert_eq!(read(&mut corner, &topic, 1), expected);
    // Uncommitted readers see them go; an aborted record does not supersede a committed one.
    wait_for_offsets(&mut corner, &topic, &[0, 3]);
    assert_eq!(read(&mut corner, &topic, 1), expected);
    drop(corner);
    broker.kill_and_start();
    let mut client = broker.client();
    wait_until("the topic is there", || {
        client.list_offset((7, 0), &topic, 0, -1).0 == 0
    });
    assert_eq!(read(&mut client, &topic, 1), expected);
    drop(client);
    assert!(broker.stop());
    check_files(&broker.data());
}

/// Left from a time when the topic was not compacted.
#[test]
fn lr73_records_without_a_key_go() {
    let mut broker = broker(&[]);
    let mut corner = Corner::at(broker.address(), 1, &[SMALL, EAGER]);
    let topic = corner.topic.clone();
    for _ in 0..3 {
        let mut batch = Batch::plain(2);
        batch
            .records
            .iter_mut()
            .for_each(|record| record.key = None);
        assert_eq!(corner.code(&batch), 0);
    }
    put(&mut corner, &topic, "k", Some("value"));
    assert_eq!(offsets(&mut corner, &topic), [0, 1, 2, 3, 4, 5, 6]);
    let changes = [("cleanup.policy", SET, Some("compact"))];
    assert_eq!(alter(&mut corner, TOPIC, &topic, &changes), 0);
    wait_for_offsets(&mut corner, &topic, &[6]);
    if corner.is_kafka {
        return; // It takes its time to stop.
    }
    drop(corner);
    assert!(broker.stop());
    check_files(&broker.data());
}

#[test]
fn lr78_both_policies_hold_together() {
    let broker = broker(&["log.retention.check.interval.ms=20"]);
    let both = ("cleanup.policy", "compact,delete");
    let configs = [SMALL, EAGER, both, ("retention.ms", "3600000")];
    let mut corner = Corner::at(broker.address(), 1, &configs);
    if corner.is_kafka {
        return; // It looks for the first time after half a minute.
    }
    let topic = corner.topic.clone();
    for key in ["old", "new", "new", "newest"] {
        let mut batch = record(Batch::plain(1), key, Some("a value that takes some room"));
        if key == "old" {
            batch.base_timestamp -= 24 * 3_600_000;
            batch.records[0].value = Some(Bytes::from(vec![b'v'; 100]));
        }
        assert_eq!(corner.code(&batch), 0);
    }
    // Its time takes the first, though nothing has superseded it, and a later value the second.
    let mut rounds = 0..ROUNDS;
    wait_until("both policies have done their part", || {
        rounds
            .next()
            .into_iter()
            .for_each(|_| close_segments(&mut corner, &topic));
        let start = corner.list_offset((7, 0), &topic, 0, -2).1;
        let kept = corner.read_uncommitted(&topic, 0, start).data_offsets();
        start >= 1 && !kept.contains(&1) && kept.contains(&2) && kept.contains(&3)
    });
}

#[test]
fn l37_nothing_at_or_above_an_open_transaction_is_compacted() {
    let broker = broker(&[]);
    let mut corner = Corner::at(broker.address(), 1, &[SMALL, COMPACT, EAGER]);
    let topic = corner.topic.clone();
    let id = unique("x");
    let producer = transactional(&mut corner, &id);
    for _ in 0..4 {
        put(&mut corner, &topic, "below", Some("1"));
    }
    write(&mut corner, &id, producer, &topic, 0, "open");
    for _ in 0..4 {
        put(&mut corner, &topic, "above", Some("1"));
    }
    // What lies below is compacted, again and again; the segment that the transaction begins in is not.
    let mut rounds = 0..ROUNDS;
    wait_until("a pass is done", || {
        rounds
            .next()
            .into_iter()
            .for_each(|_| close_segments(&mut corner, &topic));
        !offsets(&mut corner, &topic).contains(&0)
    });
    for _ in 0..5 {
        close_segments(&mut corner, &topic);
        let seen = offsets(&mut corner, &topic);
        let above: Vec<i64> = seen.into_iter().filter(|at| *at >= 4).collect();
        assert_eq!(above, [4, 5, 6, 7, 8]);
    }
    end(&mut corner, &id, producer, true);
    wait_for_offsets(&mut corner, &topic, &[3, 4, 8]);
}

#[test]
fn l38_compaction_comes_neither_too_early_nor_too_late() {
    let broker = broker(&[]);
    let mut corner = Corner::at(broker.address(), 1, &[SMALL, COMPACT, EAGER]);
    let plain = corner.topic.clone();
    let later = ("min.compaction.lag.ms", "3600000");
    let young = corner.another_topic(1, &[SMALL, COMPACT, EAGER, later]);
    let never = ("min.cleanable.dirty.ratio", "1");
    let clean = corner.another_topic(1, &[SMALL, COMPACT, never]);
    let soon = ("max.compaction.lag.ms", "1");
    let overdue = corner.another_topic(1, &[SMALL, COMPACT, never, soon]);
    for _ in 0..3 {
        for topic in [&plain, &young, &clean, &overdue] {
            put(&mut corner, topic, "a", Some("1"));
            close_segments(&mut corner, topic);
        }
    }
    wait_for_offsets(&mut corner, &plain, &[10]);
    wait_for_offsets(&mut corner, &overdue, &[10]);
    assert_eq!(offsets(&mut corner, &young), [0, 5, 10]);
    assert_eq!(offsets(&mut corner, &clean), [0, 5, 10]);
}

#[test]
fn l40_a_duplicate_is_still_one_when_its_records_have_gone() {
    let mut broker = broker(&[]);
    let mut corner = Corner::at(broker.address(), 1, &[SMALL, COMPACT, EAGER]);
    let topic = corner.topic.clone();
    let Producer { id, epoch } = corner.idempotent_producer();
    for sequence in 0..3 {
        let batch = record(Batch::idempotent(id, epoch, sequence, 1), "a", Some("1"));
        assert_eq!(corner.code(&batch), 0);
    }
    put(&mut corner, &topic, "a", Some("2"));
    wait_for_offsets(&mut corner, &topic, &[3]);
    let end = corner.end();
    drop(corner);
    broker.kill_and_start();
    let mut client = broker.client();
    wait_until("the topic is there", || {
        client.list_offset((7, 0), &topic, 0, -1).0 == 0
    });
    let mut send = |sequence| {
        let batch = record(Batch::idempotent(id, epoch, sequence, 1), "a", Some("1"));
        let produced = client.produce_one(&topic, 0, batch.encode());
        (produced.error, produced.base_offset)
    };
    assert_eq!(send(2), (0, 2), "a duplicate");
    assert_eq!(send(5).0, 45, "a gap");
    assert_eq!(send(3), (0, end));
}

#[test]
fn l41_the_end_stays_and_removed_offsets_lead_to_the_next() {
    let broker = broker(&[]);
    let mut corner = Corner::at(broker.address(), 1, &[SMALL, COMPACT, EAGER]);
    let topic = corner.topic.clone();
    let begun = now_ms();
    for _ in 0..9 {
        put(&mut corner, &topic, "a", Some("1"));
    }
    wait_for_offsets(&mut corner, &topic, &[8]);
    let end = corner.end();
    for from in 0..=8 {
        let read = corner.read_uncommitted(&topic, 0, from);
        assert_eq!((read.error, read.high_watermark), (0, end));
        assert_eq!(read.data_offsets()[0], 8, "from {from}");
    }
    assert_eq!(corner.list_offset((7, 0), &topic, 0, -2), (0, 0, -1));
    // By time the first that is left is found.
    let (error, offset, _) = corner.list_offset((7, 0), &topic, 0, begun);
    assert_eq!((error, offset), (0, 8));
    assert_eq!(put(&mut corner, &topic, "a", Some("2")), end);
}

/// Bytes of all segments of a coordinator's partition.
fn log_bytes(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let logs = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "log"));
    logs.filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

#[test]
fn the_topics_of_the_coordinators_shrink_and_say_the_same() {
    let mut broker = broker(&[
        "offsets.topic.num.partitions=1",
        "offsets.topic.segment.bytes=5000",
        "transaction.state.log.num.partitions=1",
        "transaction.state.log.segment.bytes=5000",
    ]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let topic = corner.topic.clone();
    let (group, id) = (unique("g"), unique("x"));
    corner.wait_for_group(&group);
    let producer = transactional(&mut corner, &id);
    for nth in 0..300 {
        assert_eq!(corner.commit_offset(&group, &topic, 0, nth), 0);
        write(
            &mut corner,
            &id,
            producer,
            &topic,
            i32::try_from(nth).expect("small"),
            "k",
        );
        end(&mut corner, &id, producer, true);
    }
    let directories = ["__consumer_offsets", "__transaction_state"]
        .map(|topic| broker.partition(&mut corner, topic, 0));
    for directory in &directories {
        // The open segment, one that is not worth a pass, and what is left.
        wait_until("it shrinks", || log_bytes(directory) < 16_000);
    }
    drop(corner);
    broker.kill_and_start();
    let mut client = broker.client();
    client.wait_for_group(&group);
    assert_eq!(client.committed_offset(&group, &topic, 0, true), (0, 299));
    let next = transactional(&mut client, &id);
    assert_eq!((next.id, next.epoch), (producer.id, producer.epoch + 1));
    drop(client);
    assert!(broker.stop());
    check_files(&broker.data());
}

/// Whatever goes, whoever reads: the broker lives, and what is there is good.
#[test]
fn readers_and_all_that_removes_segments_get_along() {
    let mut broker = broker(&["log.retention.check.interval.ms=10"]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let policy = ("cleanup.policy", "compact,delete");
    let configs = [SMALL, EAGER, policy, ("retention.bytes", "3000")];
    let pid = broker.pid();
    let over = AtomicBool::new(false);
    let names: Vec<String> = (0..30).map(|_| unique("r")).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut client = corner.another_client();
            let (names, over) = (&names, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    for name in names {
                        let (error, start, _) = client.list_offset((7, 0), name, 0, -2);
                        if error == 0 {
                            // Panics on a batch whose checksum is wrong.
                            client.read_committed(name, 0, start);
                            client.read_committed(name, 0, start + 5);
                        }
                    }
                }
            });
        }
        for name in &names {
            corner.create_topic(name, 1, &configs);
            for nth in 0..60 {
                let key = ["a", "b", "c"][nth % 3];
                put(&mut corner, name, key, Some("value"));
                if nth % 15 == 14 {
                    let end = corner.latest(name, 0);
                    assert_eq!(corner.delete_records(name, 0, end - 10).0, 0);
                }
            }
            let delete = DeleteTopicsRequest::default()
                .with_topic_names(vec![topic_name(name)])
                .with_timeout_ms(30_000);
            assert_eq!(corner.call(5, &delete).responses[0].error_code, 0);
        }
        over.store(true, Ordering::Relaxed);
    });
    drop(corner);
    assert_eq!(broker.pid(), pid);
    assert!(broker.stop());
    check_files(&broker.data());
}
