//! A world whose log is compacted, and what was sent to it: what a reader has to find, before and after.

use crate::world::{COMPACTION_BACKOFF_MS, DATA, World};
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::path::Path;
use tally_producer_state::Marker;
use tally_protocol::batch::{self, HEADER_BYTES};
use tally_protocol::build::BatchBuilder;
use tally_protocol::compression::{compress, decompress};
use tally_protocol::record::Records;
use tally_protocol::{
    BatchHeader, BatchView, ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence,
};
use tally_shard::{CompactionSettings, Isolation, RetentionSettings, ShardMessage, ShardReply};
use tally_storage::LogOptions;

pub(crate) const DELETE_RETENTION_MS: u64 = 100_000;
pub(crate) const NOBODY: ProducerId = ProducerId::NONE;

/// Compacted as soon as a segment is closed.
pub(crate) const EAGER: CompactionSettings = CompactionSettings {
    compact: true,
    delete_retention_ms: 100_000,
    min_lag_ms: 0,
    max_lag_ms: i64::MAX,
    min_dirty_ratio: 0.0,
};

pub(crate) fn small_segments(segment_bytes: u32) -> LogOptions {
    LogOptions {
        segment_bytes,
        index_interval_bytes: 100,
        ..LogOptions::default()
    }
}

/// A record as it was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    key: String,
    value: Option<String>,
    producer: ProducerId,
    transactional: bool,
    /// `None` while its transaction is open.
    committed: Option<bool>,
    /// Where its transaction ended.
    marker_at: i64,
    timestamp_ms: i64,
}

/// A record as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Read {
    pub(crate) offset: i64,
    pub(crate) key: String,
    pub(crate) value: Option<String>,
    timestamp_ms: i64,
}

/// A producer and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    id: ProducerId,
    sequence: i32,
    transactional: bool,
    open: bool,
    /// Sequence, base offset, bytes and "in a transaction that was aborted" of its last batches.
    last: Vec<(i64, BytesMut, bool)>,
}

/// The world, and what was sent to it.
pub(crate) struct History {
    pub(crate) world: World,
    sent: BTreeMap<i64, Sent>,
    producers: Vec<Producer>,
    /// The log start.
    start: i64,
    pub(crate) end: i64,
}

pub(crate) type Pairs<'a> = &'a [(&'a str, Option<&'a str>)];

impl History {
    pub(crate) fn new(segment_bytes: u32) -> History {
        let log = small_segments(segment_bytes);
        History::of(World::compacted(log, RetentionSettings::KEEP_ALL, EAGER))
    }

    /// Of a world to which nothing was sent yet.
    pub(crate) fn of(world: World) -> History {
        let producer = |id, transactional| Producer {
            id: ProducerId(id),
            sequence: 0,
            transactional,
            open: false,
            last: Vec::new(),
        };
        History {
            world,
            sent: BTreeMap::new(),
            producers: vec![
                producer(-1, false),
                producer(501, false),
                producer(502, true),
                producer(503, true),
                producer(504, true),
            ],
            start: 0,
            end: 0,
        }
    }

    pub(crate) fn append(&mut self, nth: usize, codec: i16, pairs: Pairs<'_>) {
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
                marker_at: i64::MAX,
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

    pub(crate) fn finish(&mut self, nth: usize, commit: bool) {
        let producer = &mut self.producers[nth];
        if !producer.open {
            return;
        }
        producer.open = false;
        let id = producer.id;
        for record in self.sent.values_mut() {
            if record.producer == id && record.committed.is_none() {
                record.committed = Some(commit);
                record.marker_at = self.end;
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

    /// The same on files that a crash has left of it.
    pub(crate) fn image(&self, root: &Path) -> History {
        History {
            world: self.world.image(root),
            sent: self.sent.clone(),
            producers: self.producers.clone(),
            start: self.start,
            end: self.end,
        }
    }

    /// After a power cut: as if nothing had been sent of what is not there any more, which is the end of it.
    pub(crate) fn forget_what_was_lost(&mut self) {
        let read = self.world.read(Isolation::ReadUncommitted);
        self.end = read.high_watermark.0;
        self.sent.split_off(&self.end);
        for record in self.sent.values_mut() {
            if record.transactional && record.marker_at >= self.end {
                record.committed = None;
            }
        }
        for producer in &mut self.producers {
            let (end, sent) = (self.end, &self.sent);
            producer.last.retain(|(base, ..)| *base < end);
            for (base, _, is_aborted) in &mut producer.last {
                *is_aborted = sent[base].committed == Some(false);
            }
        }
    }

    /// Moves the log start.
    pub(crate) fn delete_records(&mut self, before: i64) {
        let before = Some(Offset(before));
        let message = |to| ShardMessage::DeleteRecords { before, to };
        let reply = self.world.ask(DATA, message);
        let ShardReply::Deleted(Ok(start)) = reply else {
            panic!("{reply:?}");
        };
        self.start = start.0;
    }

    pub(crate) fn compact(&mut self) {
        self.world.pass_ms(COMPACTION_BACKOFF_MS + 1);
    }

    pub(crate) fn stable(&self) -> i64 {
        let open = self.sent.iter().find(|(_, sent)| sent.committed.is_none());
        let stable = open.map_or(self.end, |(offset, _)| *offset);
        stable.max(self.start)
    }

    /// All headers, with the records of each.
    pub(crate) fn batches(
        &mut self,
        isolation: Isolation,
    ) -> (Vec<(BatchHeader, Vec<Read>)>, Aborted) {
        let mut batches: Vec<(BatchHeader, Vec<Read>)> = Vec::new();
        let mut aborted = Aborted::new();
        let mut from = Offset(self.start);
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
                    assert!(view.header().last_offset() >= from, "in order");
                    from = view.header().last_offset().next();
                    batches.push((*view.header(), records(&view)));
                    rest = &rest[view.bytes().len()..];
                }
            }
        }
    }

    /// What a reader of committed records gets.
    pub(crate) fn read_committed(&mut self) -> Vec<Read> {
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
        // The batch that the log start lies in comes whole.
        seen.retain(|read| read.offset >= self.start);
        seen
    }

    /// Checks all that may not change, and returns how many records are left.
    pub(crate) fn check(&mut self) -> usize {
        let stable = self.stable();
        let mut expected: BTreeMap<&str, &Sent> = BTreeMap::new();
        let sent = self.sent.clone();
        for (_, record) in sent.range(self.start..stable) {
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
    pub(crate) fn check_above_stable(&mut self, stable: i64) {
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
    pub(crate) fn check_duplicates(&mut self) {
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

    pub(crate) fn again(self, stop: impl FnOnce(World) -> World) -> History {
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
    pub(crate) fn crash_without_snapshots(self) -> History {
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

pub(crate) type Aborted = Vec<(ProducerId, Offset)>;

pub(crate) fn make(
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

pub(crate) fn records(view: &BatchView<'_>) -> Vec<Read> {
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
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let limit = u64::try_from(limit).expect("small");
        usize::try_from((mixed ^ (mixed >> 31)) % limit).expect("small")
    }
}

pub(crate) const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

pub(crate) fn random_batch(history: &mut History, dice: &mut Dice) {
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
