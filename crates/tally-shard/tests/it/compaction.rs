//! Compaction of a shard's logs: what readers see stays the same (L35 to L37, L40, L41, X-200 to X-207).

use crate::world::{COMPACTION_BACKOFF_MS, DATA, World};
use bytes::BytesMut;
use std::collections::BTreeMap;
use tally_producer_state::Marker;
use tally_protocol::batch::{self, DELETE_HORIZON_BIT, HEADER_BYTES};
use tally_protocol::build::BatchBuilder;
use tally_protocol::compression::{compress, decompress};
use tally_protocol::record::Records;
use tally_protocol::{
    BatchHeader, BatchView, ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence,
};
use tally_shard::{CompactionSettings, Isolation, RetentionSettings, ShardMessage, ShardReply};
use tally_storage::LogOptions;

const DELETE_RETENTION_MS: u64 = 100_000;
const NOBODY: ProducerId = ProducerId::NONE;

/// Compacted as soon as a segment is closed.
const EAGER: CompactionSettings = CompactionSettings {
    compact: true,
    delete_retention_ms: 100_000,
    min_lag_ms: 0,
    max_lag_ms: i64::MAX,
    min_dirty_ratio: 0.0,
};

fn world(segment_bytes: u32) -> World {
    let log = LogOptions {
        segment_bytes,
        index_interval_bytes: 100,
        ..LogOptions::default()
    };
    World::compacted(log, RetentionSettings::KEEP_ALL, EAGER)
}

/// A record as it was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sent {
    key: String,
    value: Option<String>,
    producer: ProducerId,
    transactional: bool,
    /// `None` while its transaction is open.
    committed: Option<bool>,
    timestamp_ms: i64,
}

/// A record as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Read {
    offset: i64,
    key: String,
    value: Option<String>,
    timestamp_ms: i64,
}

/// A producer and where it is.
#[derive(Clone, Debug)]
struct Producer {
    id: ProducerId,
    sequence: i32,
    transactional: bool,
    open: bool,
    /// Sequence, base offset, bytes and "in a transaction that was aborted" of its last batches.
    last: Vec<(i64, BytesMut, bool)>,
}

/// The world, and what was sent to it.
struct History {
    world: World,
    sent: BTreeMap<i64, Sent>,
    producers: Vec<Producer>,
    end: i64,
}

type Pairs<'a> = &'a [(&'a str, Option<&'a str>)];

impl History {
    fn new(segment_bytes: u32) -> History {
        let producer = |id, transactional| Producer {
            id: ProducerId(id),
            sequence: 0,
            transactional,
            open: false,
            last: Vec::new(),
        };
        History {
            world: world(segment_bytes),
            sent: BTreeMap::new(),
            producers: vec![
                producer(-1, false),
                producer(501, false),
                producer(502, true),
                producer(503, true),
                producer(504, true),
            ],
            end: 0,
        }
    }

    fn append(&mut self, nth: usize, codec: i16, pairs: Pairs<'_>) {
        let producer = self.producers[nth].clone();
        let epoch = ProducerEpoch(if producer.id == NOBODY { -1 } else { 0 });
        let sequence = Sequence(if producer.id == NOBODY {
            -1
        } else {
            producer.sequence
        });
        let timestamp_ms = self.world.wall_ms();
        let batch = make(
            (producer.id, epoch, sequence),
            producer.transactional,
            codec,
            (timestamp_ms, pairs),
        );
        let guard = if producer.transactional {
            self.world.verify(DATA, (producer.id, epoch), sequence)
        } else {
            None
        };
        let sent = batch.clone();
        let reply = self
            .world
            .ask(DATA, |to| ShardMessage::Append { batch, guard, to });
        let ShardReply::Append(Ok(outcome)) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!(outcome.base_offset, Offset(self.end));
        for (key, value) in pairs {
            let sent = Sent {
                key: (*key).to_owned(),
                value: value.map(str::to_owned),
                producer: producer.id,
                transactional: producer.transactional,
                committed: (!producer.transactional).then_some(true),
                timestamp_ms,
            };
            self.sent.insert(self.end, sent);
            self.end += 1;
        }
        let producer = &mut self.producers[nth];
        producer.sequence += i32::try_from(pairs.len()).expect("few");
        producer.open = producer.transactional;
        producer.last.push((outcome.base_offset.0, sent, false));
        if producer.last.len() > 5 {
            producer.last.remove(0);
        }
    }

    fn finish(&mut self, nth: usize, commit: bool) {
        let producer = &mut self.producers[nth];
        if !producer.open {
            return;
        }
        producer.open = false;
        let id = producer.id;
        for record in self.sent.values_mut() {
            if record.producer == id && record.committed.is_none() {
                record.committed = Some(commit);
            }
        }
        let opened = self.sent.iter().filter(|(_, sent)| sent.producer == id);
        let aborted: Vec<i64> = opened
            .filter(|(_, sent)| sent.committed == Some(false))
            .map(|(offset, _)| *offset)
            .collect();
        for (base, _, is_aborted) in &mut self.producers[nth].last {
            *is_aborted |= aborted.contains(base);
        }
        let marker = Marker {
            producer_id: id,
            producer_epoch: ProducerEpoch(0),
            coordinator_epoch: self.world.coordinator_epoch(),
            commit,
            transaction_version: 0,
        };
        let reply = self
            .world
            .ask(DATA, |to| ShardMessage::WriteMarker { marker, to });
        assert!(matches!(reply, ShardReply::Marker(Ok(()))), "{reply:?}");
        self.end += 1;
    }

    fn compact(&mut self) {
        self.world.pass_ms(COMPACTION_BACKOFF_MS + 1);
    }

    fn stable(&self) -> i64 {
        let open = self.sent.iter().find(|(_, sent)| sent.committed.is_none());
        open.map_or(self.end, |(offset, _)| *offset)
    }

    /// All headers, with the records of each.
    fn batches(&mut self, isolation: Isolation) -> (Vec<(BatchHeader, Vec<Read>)>, Aborted) {
        let mut batches: Vec<(BatchHeader, Vec<Read>)> = Vec::new();
        let mut aborted = Aborted::new();
        let mut from = Offset::ZERO;
        loop {
            let read = self
                .world
                .read_from(from, isolation, None)
                .expect("in range");
            assert_eq!(read.high_watermark, Offset(self.end), "L41: the end stays");
            assert_eq!(read.last_stable_offset, Offset(self.stable()));
            if read.slices.is_empty() {
                return (batches, aborted);
            }
            aborted.extend(read.aborted);
            for slice in read.slices {
                let mut rest: &[u8] = &slice;
                while !rest.is_empty() {
                    let view = BatchView::parse(rest).expect("whole batches");
                    view.check_crc().expect("good batches");
                    assert!(view.header().base_offset >= from, "in order");
                    from = view.header().last_offset().next();
                    batches.push((*view.header(), records(&view)));
                    rest = &rest[view.bytes().len()..];
                }
            }
        }
    }

    /// What a reader of committed records gets.
    fn read_committed(&mut self) -> Vec<Read> {
        let (batches, mut aborted) = self.batches(Isolation::ReadCommitted);
        aborted.sort_by_key(|(_, first)| *first);
        let mut pending = aborted.into_iter().peekable();
        let mut dropping: Vec<ProducerId> = Vec::new();
        let mut seen = Vec::new();
        for (header, records) in batches {
            let last = header.last_offset();
            while let Some((producer, _)) = pending.next_if(|(_, first)| *first <= last) {
                if !dropping.contains(&producer) {
                    dropping.push(producer);
                }
            }
            if header.is_control() {
                if records
                    .first()
                    .is_some_and(|record| record.key == "\0\0\0\0")
                {
                    dropping.retain(|producer| *producer != header.producer_id);
                }
            } else if !header.is_transactional() || !dropping.contains(&header.producer_id) {
                seen.extend(records);
            }
        }
        seen
    }

    /// Checks all that may not change, and returns how many records are left.
    fn check(&mut self) -> usize {
        let stable = self.stable();
        let mut expected: BTreeMap<&str, &Sent> = BTreeMap::new();
        let sent = self.sent.clone();
        for (_, record) in sent.range(..stable) {
            if record.committed == Some(true) {
                expected.insert(&record.key, record);
            }
        }
        expected.retain(|_, record| record.value.is_some());
        let seen = self.read_committed();
        let mut found: BTreeMap<&str, &Read> = BTreeMap::new();
        for read in &seen {
            let original = &sent[&read.offset];
            assert_eq!(original.committed, Some(true), "F-9: {read:?}");
            assert_eq!((&original.key, &original.value), (&read.key, &read.value));
            assert_eq!(original.timestamp_ms, read.timestamp_ms);
            found.insert(&read.key, read);
        }
        found.retain(|_, read| read.value.is_some());
        let values = |key: &str, value: &Option<String>| (key.to_owned(), value.clone());
        let expected: Vec<_> = expected.iter().map(|(k, r)| values(k, &r.value)).collect();
        let found: Vec<_> = found.iter().map(|(k, r)| values(k, &r.value)).collect();
        assert_eq!(expected, found, "the last value of each key");
        self.check_above_stable(stable);
        seen.len()
    }

    /// C-4: nothing at or above the last stable offset is touched.
    fn check_above_stable(&mut self, stable: i64) {
        let (batches, _) = self.batches(Isolation::ReadUncommitted);
        let data = batches.iter().filter(|(header, _)| !header.is_control());
        let offsets: Vec<i64> = data
            .flat_map(|(_, records)| records)
            .map(|record| record.offset)
            .filter(|offset| *offset >= stable)
            .collect();
        let all: Vec<i64> = self.sent.range(stable..).map(|(at, _)| *at).collect();
        assert_eq!(offsets, all);
    }

    /// L40, D-1, D-14: every batch that was remembered before is remembered now.
    fn check_duplicates(&mut self) {
        for nth in 1..self.producers.len() {
            for (base, batch, is_aborted) in self.producers[nth].last.clone() {
                let guard = None;
                let reply = self
                    .world
                    .ask(DATA, |to| ShardMessage::Append { batch, guard, to });
                let ShardReply::Append(outcome) = reply else {
                    panic!("{reply:?}");
                };
                match outcome {
                    Ok(outcome) => {
                        assert!(!is_aborted, "{base}");
                        assert_eq!(outcome.base_offset, Offset(base), "{nth}");
                    }
                    Err(refusal) => {
                        assert!(is_aborted, "{base} {refusal:?}");
                        assert_eq!(refusal.code, ErrorCode::OutOfOrderSequenceNumber);
                    }
                }
            }
        }
    }

    fn again(self, stop: impl FnOnce(World) -> World) -> History {
        History {
            world: stop(self.world),
            ..self
        }
    }

    /// Kills the shard, and loses the snapshots too: the log alone has to tell.
    #[allow(
        clippy::disallowed_methods,
        reason = "a fault: files that are lost from under the shard"
    )]
    fn crash_without_snapshots(self) -> History {
        self.again(|world| {
            let directory = world.directory(DATA);
            for entry in std::fs::read_dir(directory).expect("there").flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|kind| kind == "snapshot") {
                    std::fs::remove_file(path).expect("removed");
                }
            }
            world.crash()
        })
    }
}

type Aborted = Vec<(ProducerId, Offset)>;

fn make(
    (producer, epoch, sequence): (ProducerId, ProducerEpoch, Sequence),
    transactional: bool,
    codec: i16,
    (timestamp_ms, pairs): (i64, Pairs<'_>),
) -> BytesMut {
    let mut builder = BatchBuilder::new(timestamp_ms).producer(producer, epoch, sequence);
    if transactional {
        builder = builder.transactional();
    }
    for (key, value) in pairs {
        builder.push(Some(key.as_bytes()), value.map(str::as_bytes));
    }
    let plain = builder.finish();
    let block = compress(codec, &plain[HEADER_BYTES..]).expect("compressed");
    let mut batch = BytesMut::from(&[&plain[..HEADER_BYTES], &block[..]].concat()[..]);
    let length = i32::try_from(batch.len() - 12).expect("small");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[22] |= u8::try_from(codec).expect("a codec");
    // Sets the checksum.
    batch::stamp_create_time(&mut batch, timestamp_ms);
    batch
}

fn records(view: &BatchView<'_>) -> Vec<Read> {
    let header = view.header();
    let block = decompress(header.codec(), view.records(), 1 << 20).expect("it unpacks");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Records::new(&block, header.records_count)
        .map(|record| {
            let record = record.expect("a record");
            Read {
                offset: header.base_offset.0 + i64::from(record.offset_delta),
                key: record.key.map(text).expect("a key"),
                value: record.value.map(text),
                timestamp_ms: header.base_timestamp.wrapping_add(record.timestamp_delta),
            }
        })
        .collect()
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let limit = u64::try_from(limit).expect("small");
        usize::try_from((mixed ^ (mixed >> 31)) % limit).expect("small")
    }
}

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn random_batch(history: &mut History, dice: &mut Dice) {
    let nth = dice.below(5);
    let count = 1 + dice.below(4);
    let stamp = history.end;
    let records: Vec<(&str, Option<String>)> = (0..count)
        .map(|at| {
            let value = (dice.below(5) > 0).then(|| format!("value-{}", stamp + at as i64));
            (KEYS[dice.below(KEYS.len())], value)
        })
        .collect();
    let pairs: Vec<(&str, Option<&str>)> =
        records.iter().map(|(k, v)| (*k, v.as_deref())).collect();
    let codec = i16::try_from(dice.below(5)).expect("small");
    history.append(nth, codec, &pairs);
}

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let segment_bytes = [150, 400, 1500][dice.below(3)];
    let mut history = History::new(segment_bytes);
    for _ in 0..120 {
        match dice.below(20) {
            0..=10 => random_batch(&mut history, &mut dice),
            11..=14 => {
                let nth = 2 + dice.below(3);
                history.finish(nth, dice.below(2) == 0);
            }
            15 | 16 => {
                history.compact();
                history.check();
            }
            17 => history.world.skip_ms(DELETE_RETENTION_MS / 2),
            18 => {
                history = history.again(World::crash);
                history.check();
            }
            _ => history = history.again(World::restart),
        }
    }
    history.check();
    for nth in 2..5 {
        history.finish(nth, dice.below(2) == 0);
    }
    for _ in 0..4 {
        history.compact();
        history.world.skip_ms(DELETE_RETENTION_MS);
        history.check();
    }
    history.check_duplicates();
    history = history.crash_without_snapshots();
    history.check();
    history.check_duplicates();
}

/// L36, X-206: over random histories a reader of committed records finds the same last value of each key, before and after
/// every pass and every crash; duplicates are found, too, even if the log alone has to tell.
#[test]
fn l36_readers_see_the_same_before_and_after() {
    for seed in 0..12 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed}: run({seed}) fails");
    }
}

/// What is left of the first segments: the last record of each key.
#[test]
fn l35_l41_the_last_value_stays_and_deletions_go_in_time() {
    let mut history = History::new(200);
    for value in ["1", "2", "3", "4", "5", "6"] {
        history.append(0, 0, &[("a", Some(value)), ("b", Some(value))]);
    }
    history.append(0, 0, &[("b", None)]);
    for nth in 0..3 {
        history.append(0, 0, &[("c", Some(["x", "y", "z"][nth]))]);
        history.append(
            0,
            0,
            &[("d", Some("filler that ends a segment, long enough for it"))],
        );
    }
    let before = history.check();
    history.compact();
    let after = history.check();
    assert!(after < before, "{before} {after}");
    let deletions = |history: &mut History| {
        let seen = history.read_committed();
        seen.iter().filter(|read| read.value.is_none()).count()
    };
    assert_eq!(
        deletions(&mut history),
        1,
        "visible until its time has come"
    );
    history.world.skip_ms(DELETE_RETENTION_MS);
    // Another segment has to be closed before there is another pass.
    for _ in 0..6 {
        history.append(
            0,
            0,
            &[("d", Some("filler that ends a segment, long enough for it"))],
        );
    }
    history.compact();
    history.check();
    assert_eq!(deletions(&mut history), 0);
    let removed = history
        .world
        .read_from(Offset(1), Isolation::ReadCommitted, None);
    assert!(!removed.expect("in range").slices.is_empty(), "L41, LR-79");
}

#[test]
fn x200_l37_an_open_transaction_holds_compaction_back() {
    let mut history = History::new(150);
    let filler = [("a", Some("old")), ("b", Some("old"))];
    history.append(0, 0, &filler);
    history.append(2, 0, &[("a", Some("open"))]);
    let before = history.batches(Isolation::ReadUncommitted).0;
    for _ in 0..10 {
        history.append(0, 0, &filler);
    }
    history.compact();
    let after = history.batches(Isolation::ReadUncommitted).0;
    assert_eq!(before[1..], after[1..before.len()]);
    assert_eq!(after.len(), before.len() + 10);
    history.finish(2, false);
    history.append(0, 0, &filler);
    history.compact();
    assert!(history.batches(Isolation::ReadUncommitted).0.len() < after.len());
    history.check();
}

#[test]
fn x202_an_aborted_transaction_goes_then_its_marker() {
    let mut history = History::new(150);
    history.append(0, 0, &[("k", Some("1"))]);
    history.append(2, 0, &[("k", Some("2"))]);
    history.finish(2, false);
    // Pushes the aborted batch out of the producer's memory.
    for _ in 0..6 {
        history.append(2, 0, &[("other", Some("x"))]);
        history.finish(2, true);
    }
    let markers = |history: &mut History| {
        let (batches, aborted) = history.batches(Isolation::ReadCommitted);
        let abort = batches
            .iter()
            .find(|(header, records)| header.is_control() && records[0].key == "\0\0\0\0");
        let horizon = abort.map(|(header, _)| header.attributes & DELETE_HORIZON_BIT != 0);
        (horizon, aborted.len())
    };
    assert_eq!(markers(&mut history), (Some(false), 1));
    history.compact();
    history.check();
    assert_eq!(markers(&mut history), (Some(false), 1), "X-202: data seen");
    let more = |history: &mut History| {
        for _ in 0..2 {
            history.append(
                0,
                0,
                &[
                    ("f", Some("filler of a segment")),
                    ("g", Some("more of it")),
                ],
            );
        }
        history.compact();
        history.check();
    };
    more(&mut history);
    assert_eq!(markers(&mut history), (Some(true), 0), "stamped");
    more(&mut history);
    assert_eq!(markers(&mut history), (Some(true), 0), "not yet");
    history.world.skip_ms(DELETE_RETENTION_MS);
    more(&mut history);
    assert_eq!(markers(&mut history), (None, 0), "gone");
    let mut history = history.crash_without_snapshots();
    history.check();
    history.check_duplicates();
}
