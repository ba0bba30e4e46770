//! Segments as they lie on the disk, and what a start makes of damaged ones: L20, L22 to L25, L28, L29. Each test has a
//! broker of its own, whose files it looks at and, while it is down, damages.

use crate::corner::{Corner, PROGRAM};
use bytes::Bytes;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use tally_testkit::batches::{Batch, now_ms};
use tally_testkit::broker::{Broker, offset_file, offsets_of_files};
use tally_testkit::waiting::wait_until;

#[track_caller]
fn directory(broker: &Broker, corner: &mut Corner, partition: i32) -> PathBuf {
    let topic = corner.topic.clone();
    broker.partition(corner, &topic, partition)
}

/// A byte that follows from nothing.
fn noise(nth: u32) -> u8 {
    nth.wrapping_mul(2_654_435_761).to_be_bytes()[1]
}

/// A batch of an idempotent producer at this time.
fn at(id: i64, sequence: i32, time: i64) -> Batch {
    let mut batch = Batch::idempotent(id, 0, sequence, 3);
    batch.base_timestamp = time;
    batch
}

#[test]
fn l20_segments_close_by_size_and_begin_at_the_next_offset() {
    let broker = Broker::start(PROGRAM, &[]);
    let batch = Batch::idempotent(0, 0, 0, 3).encode().len();
    // Three batches fit, four do not.
    let size = (batch * 4 - 1).to_string();
    let mut corner = Corner::at(broker.address(), 1, &[("internal.segment.bytes", &size)]);
    let producer = corner.idempotent_producer();
    for nth in 0..10 {
        assert_eq!(corner.code(&at(producer.id, nth * 3, now_ms())), 0);
    }
    let directory = directory(&broker, &mut corner, 0);
    assert_eq!(offsets_of_files(&directory, "log"), [0, 9, 18, 27]);
    let snapshots = || offsets_of_files(&directory, "snapshot");
    wait_until("the state at the last segment", || {
        snapshots().contains(&27)
    });
    assert_eq!(corner.offsets_from(0, 0), (0..30).collect::<Vec<_>>());
}

#[test]
fn l20_segments_close_by_the_time_of_their_records() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut corner = Corner::at(broker.address(), 1, &[("segment.ms", "1000")]);
    let producer = corner.idempotent_producer();
    let start = now_ms() - 60_000;
    // The span of a segment is from its first batch to the one that comes; exactly segment.ms still fits.
    for (nth, after) in (0..).zip([0, 500, 1000, 1001, 2001, 2002, 1500]) {
        assert_eq!(corner.code(&at(producer.id, nth * 3, start + after)), 0);
    }
    let directory = directory(&broker, &mut corner, 0);
    assert_eq!(offsets_of_files(&directory, "log"), [0, 9, 15]);
    wait_until("the state at the last segment", || {
        offsets_of_files(&directory, "snapshot").contains(&15)
    });
}

/// segment.jitter.ms takes something off segment.ms, something else for each segment: what fits without it does not always.
#[test]
fn lr50_jitter_closes_segments_earlier_than_their_span() {
    let broker = Broker::start(PROGRAM, &[]);
    let closed = |jitter: &str| {
        let configs = [("segment.ms", "10000"), ("segment.jitter.ms", jitter)];
        let mut corner = Corner::at(broker.address(), 8, &configs);
        let topic = corner.topic.clone();
        let start = now_ms() - 60_000;
        let partitions = (0..8).filter(|partition| {
            for after in [0, 10_000] {
                let mut batch = Batch::plain(1);
                batch.base_timestamp = start + after;
                let produced = corner.produce_one(&topic, *partition, batch.encode());
                assert_eq!(produced.error, 0);
            }
            offsets_of_files(&directory(&broker, &mut corner, *partition), "log").len() == 2
        });
        partitions.count()
    };
    assert_eq!(closed("0"), 0, "the whole span fits");
    // The chance of a partition without any is one in ten thousand.
    assert!(closed("10000") > 4);
}

#[test]
fn l20_segments_close_when_their_index_is_full() {
    let broker = Broker::start(PROGRAM, &[]);
    // Room for four entries; each batch is longer than the interval between two.
    let configs = [("segment.index.bytes", "32"), ("index.interval.bytes", "1")];
    let mut corner = Corner::at(broker.address(), 1, &configs);
    let producer = corner.idempotent_producer();
    for nth in 0..40 {
        assert_eq!(corner.code(&at(producer.id, nth * 3, now_ms())), 0);
    }
    let directory = directory(&broker, &mut corner, 0);
    let bases = offsets_of_files(&directory, "log");
    assert!(bases.len() > 5, "{bases:?}");
    assert!(bases.iter().all(|base| base % 3 == 0), "{bases:?}");
    for base in &bases {
        let index = fs::metadata(offset_file(&directory, *base, "index"));
        // The one that is written to has a page.
        let is_open = Some(base) == bases.last();
        assert!(is_open || index.expect("there").len() <= 32, "{base}");
    }
    let last = *bases.last().expect("some");
    wait_until("the state at the last segment", || {
        offsets_of_files(&directory, "snapshot").contains(&last)
    });
    assert_eq!(corner.offsets_from(0, 0), (0..120).collect::<Vec<_>>());
}

/// One partition for each damage: the files of all are written, the broker is killed, one file of each is damaged, and
/// one start finds all of it.
struct Damaged {
    // Dropped in this order: the corner's connection is tried once more before its broker goes.
    corner: Corner,
    broker: Broker,
    directories: Vec<PathBuf>,
}

impl Damaged {
    /// Every partition holds these batches.
    #[track_caller]
    fn new(partitions: usize, configs: &[(&str, &str)], batches: &[Bytes]) -> Damaged {
        // With a journal what is torn off is put back.
        let broker = Broker::start(PROGRAM, &["tally.durability=os"]);
        let count = i32::try_from(partitions).expect("few");
        let mut corner = Corner::at(broker.address(), count, configs);
        let topic = corner.topic.clone();
        let mut directories = Vec::new();
        for index in 0..count {
            for batch in batches {
                assert_eq!(corner.produce_one(&topic, index, batch.clone()).error, 0);
            }
            directories.push(directory(&broker, &mut corner, index));
        }
        Damaged {
            broker,
            corner,
            directories,
        }
    }

    #[track_caller]
    fn start(&mut self) {
        self.broker.start_again();
        self.corner.reconnect(&self.broker);
    }

    /// Partition `index` ends at `end`, holds exactly those records, and goes on there.
    #[track_caller]
    fn check(&mut self, index: usize, end: i64, why: &str) {
        let topic = self.corner.topic.clone();
        let index = i32::try_from(index).expect("few");
        assert_eq!(self.corner.latest(&topic, index), end, "{why}");
        let read = self.corner.offsets_from(index, 0);
        assert_eq!(read, (0..end).collect::<Vec<_>>(), "{why}");
        let next = self.corner.produce_plain(&topic, index, 2);
        assert_eq!((next.error, next.base_offset), (0, end), "{why}");
        let read = self.corner.read_uncommitted(&topic, index, end);
        assert_eq!(read.data_offsets(), [end, end + 1], "{why}");
    }
}

#[test]
fn l22_a_tail_cut_at_any_byte_is_dropped() {
    let kept = Batch::plain(2).encode();
    let last = Batch::plain(1).encode();
    let mut damaged = Damaged::new(last.len(), &[], &[kept.clone(), last.clone()]);
    damaged.broker.kill();
    for (left, directory) in damaged.directories.iter().enumerate() {
        let file = OpenOptions::new()
            .write(true)
            .open(offset_file(directory, 0, "log"));
        let size = u64::try_from(kept.len() + left).expect("small");
        file.expect("the log").set_len(size).expect("cut");
    }
    damaged.start();
    for left in 0..last.len() {
        damaged.check(left, 2, &format!("{left} bytes of the batch left"));
    }
}

#[test]
fn l23_what_is_no_good_batch_behind_the_log_is_cut() {
    let good = Batch::plain(2).encode();
    let mut stale_before = good.to_vec();
    stale_before[..8].copy_from_slice(&0i64.to_be_bytes());
    let mut stale_behind = good.to_vec();
    stale_behind[..8].copy_from_slice(&7i64.to_be_bytes());
    let mut damaged_batch = good.to_vec();
    damaged_batch[..8].copy_from_slice(&2i64.to_be_bytes());
    damaged_batch[65] ^= 4;
    let noise: Vec<u8> = (0..5000).map(noise).collect();
    let mut tails = vec![
        ("noise", noise),
        ("a page of zeros", vec![0; 4096]),
        ("a few zeros", vec![0; 13]),
        ("a damaged batch", damaged_batch),
        ("a page of ones", vec![0xff; 4096]),
    ];
    if !Corner::new().is_kafka {
        // Apache Kafka's recovery looks at checksums alone.
        tails.push(("an old batch", stale_before));
        tails.push(("a batch from beyond", stale_behind));
    }
    let mut damaged = Damaged::new(tails.len(), &[], &[good]);
    damaged.broker.kill();
    for ((_, tail), directory) in tails.iter().zip(&damaged.directories) {
        let file = OpenOptions::new()
            .append(true)
            .open(offset_file(directory, 0, "log"));
        file.expect("the log").write_all(tail).expect("written");
    }
    damaged.start();
    for (nth, (why, _)) in tails.iter().enumerate() {
        damaged.check(nth, 2, why);
    }
}

const HOW: [&str; 6] = ["removed", "empty", "cut", "zeros", "noise", "flipped"];

#[track_caller]
fn damage(path: &Path, how: &str) {
    let mut bytes = fs::read(path).expect("the file is there");
    match how {
        "removed" => return fs::remove_file(path).expect("removed"),
        "empty" => bytes.clear(),
        "cut" => bytes.truncate(bytes.len() / 2 + 1),
        "zeros" => bytes.fill(0),
        "noise" => {
            for (nth, byte) in (0..).zip(&mut bytes) {
                *byte = noise(nth);
            }
        }
        _ => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        }
    }
    fs::write(path, bytes).expect("written");
}

#[test]
fn l24_indexes_are_made_again() {
    for is_clean in [false, true] {
        let start = now_ms() - 1_000_000;
        let batches: Vec<Bytes> = (0..24)
            .map(|nth| {
                let mut batch = Batch::plain(2);
                batch.base_timestamp = start + nth * 1000;
                batch.encode()
            })
            .collect();
        let size = (batches[0].len() * 8).to_string();
        let configs = [
            ("internal.segment.bytes", &*size),
            ("index.interval.bytes", "1"),
        ];
        let cases: Vec<(&str, i64, &str)> = ["index", "timeindex"]
            .into_iter()
            .flat_map(|kind| [0, 16, 32].map(|base| (kind, base)))
            .flat_map(|(kind, base)| HOW.map(|how| (kind, base, how)))
            .collect();
        let mut damaged = Damaged::new(cases.len(), &configs, &batches);
        assert_eq!(
            offsets_of_files(&damaged.directories[0], "log"),
            [0, 16, 32]
        );
        if is_clean {
            assert!(damaged.broker.stop() || damaged.corner.is_kafka);
        } else {
            damaged.broker.kill();
        }
        for ((kind, base, how), directory) in cases.iter().zip(&damaged.directories) {
            damage(&offset_file(directory, *base, kind), how);
        }
        damaged.start();
        let topic = damaged.corner.topic.clone();
        for (nth, case) in cases.iter().enumerate() {
            let index = i32::try_from(nth).expect("few");
            for (batch, offset) in (0..).zip((0..48).step_by(2)) {
                let found = damaged
                    .corner
                    .list_offset((7, 0), &topic, index, start + batch * 1000);
                assert_eq!(
                    found,
                    (0, offset, start + batch * 1000),
                    "{case:?}, clean {is_clean}"
                );
                let read = damaged.corner.offsets_from(index, offset + 1);
                let expected: Vec<i64> = (offset..48).collect();
                assert_eq!(read, expected, "{case:?}, clean {is_clean}");
            }
            damaged.check(nth, 48, &format!("{case:?}, clean {is_clean}"));
        }
    }
}

/// Bytes that the process has read from files so far, by calls.
fn bytes_read(broker: &Broker) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", broker.pid())).expect("the process lives");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|number| number.parse().ok())
        .expect("a number")
}

#[test]
fn l25_a_clean_stop_spares_the_walk() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    if corner.is_kafka {
        return; // What a Java machine reads at its start says nothing.
    }
    let mut batch = Batch::plain(1);
    batch.records[0].value = Some(Bytes::from(vec![b'x'; 900_000]));
    let batch = batch.encode();
    for _ in 0..12 {
        assert_eq!(corner.send(9, batch.clone()).error, 0);
    }
    let directory = directory(&broker, &mut corner, 0);
    assert!(broker.stop());
    // Without it the start would read the log through a map, to learn that no producer is idempotent.
    assert_eq!(offsets_of_files(&directory, "snapshot"), [12]);
    broker.start_again();
    let after_clean = bytes_read(&broker);
    corner.reconnect(&broker);
    assert_eq!(corner.end(), 12);
    broker.kill_and_start();
    let after_kill = bytes_read(&broker);
    corner.reconnect(&broker);
    assert_eq!(corner.end(), 12);
    assert!(
        after_clean < 1_000_000,
        "{after_clean} bytes read after a clean stop"
    );
    assert!(
        after_kill > 10_000_000,
        "{after_kill} bytes read after a kill"
    );
}

#[test]
fn l28_a_timestamp_from_the_future_keeps_its_segment() {
    let broker = Broker::start(PROGRAM, &["log.retention.check.interval.ms=20"]);
    let configs = [("internal.segment.bytes", "200"), ("retention.ms", "1000")];
    let mut corner = Corner::at(broker.address(), 1, &configs);
    let topic = corner.topic.clone();
    let send = |corner: &mut Corner, after: i64| {
        let mut batch = Batch::plain(3);
        batch.base_timestamp = now_ms() + after;
        assert_eq!(corner.code(&batch), 0);
    };
    // A segment each: an old one, one from the future, an old one behind it.
    for after in [-100_000, 1_000_000, -100_000, -100_000] {
        send(&mut corner, after);
    }
    let earliest = |corner: &mut Corner| corner.list_offset((7, 0), &topic, 0, -2).1;
    wait_until("the first segment has gone", || earliest(&mut corner) == 3);
    // A second topic shows that a whole pass has gone by since.
    let other = corner.another_topic(
        1,
        &[("internal.segment.bytes", "200"), ("retention.ms", "1")],
    );
    assert_eq!(corner.produce_plain(&other, 0, 1).error, 0);
    wait_until("another pass", || {
        corner.list_offset((7, 0), &other, 0, -2).1 == 1
    });
    assert_eq!(
        earliest(&mut corner),
        3,
        "nothing goes from behind it either"
    );
}

#[test]
fn l29_a_raised_start_is_kept_over_restarts() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let topic = corner.topic.clone();
    for _ in 0..3 {
        corner.fill(5);
    }
    // In the middle of a batch, then at the end.
    for (before, is_clean) in [(7, true), (8, false), (15, true), (15, false)] {
        assert_eq!(corner.delete_records(&topic, 0, before), (0, before));
        if is_clean {
            assert!(broker.stop() || corner.is_kafka);
            broker.start_again();
        } else if corner.is_kafka {
            // It writes the start down once a minute (LR-55).
            continue;
        } else {
            broker.kill_and_start();
        }
        corner.reconnect(&broker);
        assert_eq!(corner.list_offset((7, 0), &topic, 0, -2).1, before);
        assert_eq!(corner.read_uncommitted(&topic, 0, before - 1).error, 1);
        let read = corner.read_uncommitted(&topic, 0, before);
        assert_eq!((read.error, read.log_start_offset), (0, before));
    }
    assert_eq!(corner.fill(1), 15);
}

#[test]
fn a_partition_that_cannot_be_opened_does_not_stop_the_others() {
    // A journal that holds more of the partition would be lost by a start without it, so there is none.
    let mut broker = Broker::start(PROGRAM, &["tally.durability=os"]);
    let mut corner = Corner::at(broker.address(), 2, &[]);
    if corner.is_kafka {
        return; // It has no such file.
    }
    let topic = corner.topic.clone();
    for index in 0..2 {
        assert_eq!(corner.produce_plain(&topic, index, 4).error, 0);
    }
    assert_eq!(corner.delete_records(&topic, 0, 2), (0, 2));
    let directory = directory(&broker, &mut corner, 0);
    broker.kill();
    fs::write(directory.join("log-start"), b"0\nx\n").expect("damaged");
    broker.start_again();
    corner.client = broker.client();
    assert_eq!(corner.produce_plain(&topic, 0, 1).error, 56);
    assert_eq!(corner.read_uncommitted(&topic, 0, 2).error, 56);
    assert_eq!(corner.list_offset((7, 0), &topic, 0, -1).0, 56);
    assert_eq!(corner.produce_plain(&topic, 1, 1).base_offset, 4);
    assert!(broker.stop());
    fs::write(directory.join("log-start"), b"0\n2\n").expect("mended");
    broker.start_again();
    corner.reconnect(&broker);
    assert_eq!(corner.offsets_from(0, 2), [0, 1, 2, 3]);
}
