//! A data directory with one partition, and batches for it.

use bytes::Bytes;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tally_protocol::{BatchView, LeaderEpoch, Offset, PartitionId, TopicId};
use tally_storage::{
    Appended, DataDir, Entry, Journal, JournalState, LogOptions, OpenDirError, Recovered,
    SegmentJournal, StorageError,
};
use tempfile::TempDir;

pub(crate) const PARTITION: PartitionId = PartitionId {
    topic: TopicId([7; 16]),
    index: 3,
};

/// Small segments and an index entry after every 300 bytes.
pub(crate) const SMALL: LogOptions = LogOptions {
    segment_bytes: 4096,
    segment_ms: 1_000_000,
    segment_jitter_ms: 0,
    index_interval_bytes: 300,
    index_max_bytes: 1024,
    gaps_below: Offset::ZERO,
    flush_messages: i64::MAX,
    flush_ms: u64::MAX,
    synced_only: false,
};

pub(crate) struct Disk {
    root: TempDir,
}

impl Disk {
    pub(crate) fn new() -> Disk {
        Disk {
            root: TempDir::new().expect("a directory for the test"),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn open(&self) -> Arc<DataDir> {
        Arc::new(self.try_open().expect("the directory opens"))
    }

    /// Opens the directory as soon as it is free: a test that starts a process shares its locks with that process from the
    /// fork to the exec, those of other tests too.
    pub(crate) fn try_open(&self) -> Result<DataDir, OpenDirError> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match DataDir::open(self.root()) {
                Err(OpenDirError::AlreadyInUse { .. }) if Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                outcome => return outcome,
            }
        }
    }

    /// Opens the partition; the directory is locked as long as the journal lives.
    pub(crate) fn start(&self, options: LogOptions) -> (Log, Recovered) {
        let dir = self.open();
        let mut journal = SegmentJournal::new(Arc::clone(&dir)).keep_maps(2);
        let recovered = journal
            .open_partition(PARTITION, options)
            .expect("the partition opens");
        (Log { dir, journal }, recovered)
    }

    pub(crate) fn directory(&self) -> PathBuf {
        let topic = PARTITION.topic.to_string();
        let index = PARTITION.index.to_string();
        self.root().join("topics").join(topic).join(index)
    }

    pub(crate) fn file(&self, base: i64, kind: &str) -> PathBuf {
        self.directory().join(format!("{base:020}.{kind}"))
    }

    /// The names in the partition's directory, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.directory())
    }

    /// The base offsets of the segments.
    pub(crate) fn bases(&self) -> Vec<i64> {
        let names = self.names();
        let logs = names.iter().filter_map(|name| name.strip_suffix(".log"));
        logs.map(|stem| stem.parse().expect("a number")).collect()
    }

    /// Makes the next start take this for another run of the kernel.
    pub(crate) fn forget_boot(&self) {
        std::fs::write(self.root().join("boot-id"), "another\n").expect("written");
    }
}

/// Has the system forget what it keeps in memory of a directory's files, if it does such a thing.
pub(crate) fn chill(directory: &Path) {
    for name in names(directory) {
        let file = std::fs::File::open(directory.join(name)).expect("it opens");
        file.sync_all().expect("it is synced");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice is heard");
    }
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.into_string().expect("a name in UTF-8"))
        .collect();
    names.sort();
    names
}

/// Does what may need the disk as a broker does: loads what is missing and tries again.
pub(crate) fn loaded<T>(
    mut attempt: impl FnMut() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    loop {
        match attempt() {
            Err(StorageError::NotInMemory(cold)) => cold.load()?,
            outcome => return outcome,
        }
    }
}

pub(crate) struct Log {
    pub(crate) dir: Arc<DataDir>,
    pub(crate) journal: SegmentJournal,
}

/// A batch of `count` records that begins at `base`; its bytes behind the header are made from `base`.
pub(crate) fn batch(base: i64, count: i32, epoch: i32, timestamp: i64, payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; 61 + payload];
    let length = i32::try_from(49 + payload).expect("a small batch");
    bytes[0..8].copy_from_slice(&base.to_be_bytes());
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
    bytes[16] = 2;
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[27..35].copy_from_slice(&timestamp.to_be_bytes());
    bytes[35..43].copy_from_slice(&timestamp.to_be_bytes());
    bytes[43..51].copy_from_slice(&(-1i64).to_be_bytes());
    bytes[51..53].copy_from_slice(&(-1i16).to_be_bytes());
    bytes[53..57].copy_from_slice(&(-1i32).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    let seed = base.to_be_bytes();
    for (at, byte) in bytes[61..].iter_mut().enumerate() {
        *byte = seed[at % 8] ^ seed[7].wrapping_mul(31);
    }
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

impl Log {
    pub(crate) fn end(&self) -> i64 {
        self.journal.log_end(PARTITION).0
    }

    /// Appends a batch of `count` records with room reserved for it.
    pub(crate) fn put(
        &mut self,
        count: i32,
        epoch: i32,
        timestamp: i64,
        payload: usize,
    ) -> Appended {
        let base = self.end();
        let bytes = batch(base, count, epoch, timestamp, payload);
        self.journal
            .reserve(PARTITION, bytes.len())
            .expect("the disk has room");
        let appended = self.journal.append(Entry {
            partition: PARTITION,
            leader_epoch: LeaderEpoch(epoch),
            base: Offset(base),
            last: Offset(base + i64::from(count) - 1),
            max_timestamp: timestamp,
            bytes: Bytes::from(bytes),
        });
        assert_eq!(self.journal.state(), JournalState::Open);
        assert_eq!(self.journal.durable(), appended.ticket);
        appended
    }

    /// Appends `batches` batches of two records and 100 bytes of payload, one millisecond apart.
    pub(crate) fn fill(&mut self, batches: i64) {
        for _ in 0..batches {
            let timestamp = 1000 + self.end();
            self.put(2, 1, timestamp, 100);
        }
    }

    /// The base offset of every batch, found by replay from `from`.
    pub(crate) fn replay(&self, from: i64) -> Vec<i64> {
        let mut bases = Vec::new();
        let mut visit = |view: BatchView<'_>| {
            view.check_crc().expect("a good batch");
            bases.push(view.header().base_offset.0);
            ControlFlow::Continue(())
        };
        self.journal
            .visit_batches(PARTITION, Offset(from), &mut visit)
            .expect("replay works");
        bases
    }

    /// The base offset of every batch, found by reads of `max_bytes` from `from` up to `upto`.
    pub(crate) fn read(&self, from: i64, upto: i64, max_bytes: usize) -> Vec<i64> {
        let mut bases = Vec::new();
        let mut next = Offset(from);
        loop {
            let read = || {
                self.journal
                    .read(PARTITION, next, Offset(upto), max_bytes, true)
            };
            let outcome = loaded(read).expect("the read works");
            let bytes: usize = outcome.slices.iter().map(|slice| slice.len()).sum();
            let batches = outcome
                .slices
                .iter()
                .map(|slice| headers(slice))
                .sum::<usize>();
            assert!(
                bytes <= max_bytes || batches == 1,
                "one batch may be larger"
            );
            for slice in &outcome.slices {
                let mut rest = &slice[..];
                while !rest.is_empty() {
                    let view = BatchView::parse(rest).expect("whole batches");
                    view.check_crc().expect("a good batch");
                    bases.push(view.header().base_offset.0);
                    rest = &rest[view.bytes().len()..];
                }
            }
            if outcome.slices.is_empty() {
                return bases;
            }
            assert!(outcome.next > next, "a read gets on");
            next = outcome.next;
        }
    }

    /// Ends the run as a clean shutdown does.
    pub(crate) fn stop(mut self) {
        self.journal.shutdown().expect("everything is synced");
        self.dir.mark_clean().expect("the mark is left");
    }
}

fn headers(slice: &[u8]) -> usize {
    let (mut count, mut rest) = (0, slice);
    while let Ok(view) = BatchView::parse(rest) {
        count += 1;
        rest = &rest[view.bytes().len()..];
    }
    count
}
