//! Looking into a data directory without changing it: what the offline tools stand on.
//!
//! Invariants: nothing here creates, writes, cuts or removes, and nothing reads through a map; whatever bytes a file holds
//! are an answer or an error, never a panic. The lock is shared, so that no broker starts while somebody looks; a broker
//! that runs keeps it for itself, which [`Inspection::holder`] tells.

use crate::compaction;
use crate::data_dir::{self, DataDir};
use crate::disk::{self, SegmentFile};
use crate::epochs::Epochs;
use crate::error::{OpenDirError, StorageError, failed};
use crate::index::{OFFSET_ENTRY, OffsetIndex, TIME_ENTRY, TimeIndex};
use crate::meta::{self, Revision};
use crate::partition;
use crate::recovery_points::{self, Point, RecoveryPoints};
use crate::redo;
use crate::segment::{INDEX, LOG, SNAPSHOT, TIME_INDEX, TXN_INDEX};
use crate::sync_journal::Durability;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tally_protocol::batch::{self, BatchView, HEADER_BYTES};
use tally_protocol::ids::{to_u64, to_usize};
use tally_protocol::{BatchError, LeaderEpoch, Offset, PartitionId};

/// Bytes read at a time.
const PIECE: usize = 1024 * 1024;

/// Who has a data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// Nobody, or others who only look.
    Nobody,
    /// A broker; with its process id if it could be read.
    Broker(Option<u32>),
}

/// A data directory that is looked at.
#[derive(Debug)]
pub struct Inspection {
    root: PathBuf,
    format: String,
    holder: Holder,
    /// Kept shared for as long as somebody looks.
    _lock: Option<SegmentFile>,
}

impl Inspection {
    /// Looks at `path`, which has to be a data directory of a format that this version reads.
    pub fn open(path: impl AsRef<Path>) -> Result<Inspection, OpenDirError> {
        let root = path.as_ref().to_owned();
        let format = data_dir::readable_format(&root)?;
        let lock = data_dir::lock_path(&root);
        let shared = disk::share_lock(&lock).map_err(|source| OpenDirError::Io {
            what: "look at the lock of",
            path: root.clone(),
            source,
        })?;
        let (holder, kept) = match shared {
            Some(None) => (Holder::Broker(data_dir::lock_holder(&lock)), None),
            Some(Some(kept)) => (Holder::Nobody, Some(kept)),
            None => (Holder::Nobody, None),
        };
        Ok(Inspection {
            root,
            format,
            holder,
            _lock: kept,
        })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// What its `format` file says.
    #[must_use]
    pub fn format(&self) -> &str {
        &self.format
    }

    /// Whether a broker has the directory: then its files change while they are read.
    #[must_use]
    pub fn holder(&self) -> Holder {
        self.holder
    }

    /// Whether the mark of a clean shutdown is there: no broker has run since, and all files are complete.
    pub fn is_clean(&self) -> io::Result<bool> {
        data_dir::has_clean_mark(&self.root)
    }

    /// The segment of a partition from which on the next start cuts at damage, since the power may have failed before it was
    /// synced. `None` if the power did not fail.
    pub fn unsynced_from(&self, partition: PartitionId) -> io::Result<Option<Offset>> {
        if !data_dir::lost_power(&self.root)? {
            return Ok(None);
        }
        let points = RecoveryPoints::load(&self.root)?;
        Ok(Some(points.get(partition).segment))
    }

    /// Looks at a directory that the caller has to himself.
    pub(crate) fn of_owner(root: &Path) -> Result<Inspection, OpenDirError> {
        Ok(Inspection {
            format: data_dir::readable_format(root)?,
            root: root.to_owned(),
            holder: Holder::Nobody,
            _lock: None,
        })
    }

    /// The partitions that have files, in order.
    pub fn partitions(&self) -> io::Result<Vec<PartitionId>> {
        data_dir::list_partitions(&self.root)
    }

    /// Where the metadata is.
    #[must_use]
    pub fn meta_path(&self) -> PathBuf {
        DataDir::meta_path_in(&self.root)
    }

    /// Where the files of `partition` are.
    #[must_use]
    pub fn partition_path(&self, partition: PartitionId) -> PathBuf {
        DataDir::partition_path_in(&self.root, partition)
    }
}

/// What a file of a data directory is, by its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FileKind {
    /// Batches.
    Segment(Offset),
    /// Offsets to positions.
    OffsetIndex(Offset),
    /// Timestamps to offsets.
    TimeIndex(Offset),
    /// Aborted transactions.
    TransactionIndex(Offset),
    /// Producers' state.
    Snapshot(Offset),
    /// Leader epochs.
    Epochs,
    /// The first offset that may be read.
    LogStart,
    /// Topics, settings and ids.
    Meta,
    /// How far segments are synced.
    RecoveryPoints,
    /// What is synced and perhaps not yet so in the segments.
    Journal,
    /// A small text, or none: `sync-failed`, `format`, `lock`, `boot-id`, `clean-shutdown`, `txn-sums`, `cleaner-checkpoint`, `swap`.
    Mark,
    /// Space kept for a full disk; its bytes mean nothing.
    Spare,
    /// Something that this version does not know, or that was being written.
    Unknown,
}

/// What a file is, by its name.
#[must_use]
pub fn file_kind(name: &str) -> FileKind {
    if let Some((base, kind)) = partition::parse_name(name) {
        return match kind {
            LOG => FileKind::Segment(base),
            INDEX => FileKind::OffsetIndex(base),
            TIME_INDEX => FileKind::TimeIndex(base),
            TXN_INDEX => FileKind::TransactionIndex(base),
            SNAPSHOT => FileKind::Snapshot(base),
            _ => FileKind::Unknown,
        };
    }
    match name {
        partition::EPOCHS => FileKind::Epochs,
        "txn-sums" | compaction::SWAP | compaction::CHECKPOINT => FileKind::Mark,
        partition::LOG_START => FileKind::LogStart,
        data_dir::META => FileKind::Meta,
        data_dir::SPARE => FileKind::Spare,
        data_dir::JOURNAL => FileKind::Journal,
        _ if recovery_points::NAMES.contains(&name) => FileKind::RecoveryPoints,
        data_dir::SUSPECT => FileKind::Mark,
        data_dir::LOCK | data_dir::FORMAT_FILE | data_dir::CLEAN | data_dir::BOOT => FileKind::Mark,
        _ => FileKind::Unknown,
    }
}

/// What a file of recovery points says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryPointsFile {
    /// One more with each file: of two the higher one counts.
    pub counter: u64,
    /// The durability of the run that writes segments.
    pub durability: Durability,
    /// The generation of the journal; 0: it holds nothing.
    pub generation: u64,
    /// The first group of the journal that is needed.
    pub first_group: u64,
    /// By partition: everything below this offset is on the disk; the segment and the position up to which its bytes are.
    pub points: BTreeMap<PartitionId, (Offset, Offset, u64)>,
}

/// What the bytes of a file of recovery points say; `None` if they are not what a broker writes.
#[must_use]
pub fn read_recovery_points(bytes: &[u8]) -> Option<RecoveryPointsFile> {
    let found = recovery_points::Checkpoint::read(bytes)?;
    let point = |point: &Point| (point.offset, point.segment, point.position);
    Some(RecoveryPointsFile {
        counter: found.counter,
        durability: found.durability,
        generation: found.generation,
        first_group: found.redo_from,
        points: found
            .points
            .iter()
            .map(|(id, at)| (*id, point(at)))
            .collect(),
    })
}

/// A whole group of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalGroup {
    /// Where it is in the file.
    pub position: u64,
    /// Its generation.
    pub generation: u64,
    /// Its number in the generation.
    pub number: u64,
    /// What it holds.
    pub entries: Vec<JournalEntry>,
}

/// An entry of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The partition.
    pub partition: PartitionId,
    /// `copied`, `synced` or `removed`.
    pub kind: &'static str,
    /// The name of the segment.
    pub segment: Offset,
    /// Where the bytes belong in it.
    pub position: u64,
    /// How many.
    pub bytes: u64,
    /// The offset after the last batch.
    pub end: Offset,
}

/// Shows the groups that each half of a journal begins with, those of one generation behind each other.
pub fn visit_journal(path: &Path, visit: &mut dyn FnMut(JournalGroup)) -> io::Result<()> {
    redo::visit_groups(&SegmentFile::open_to_read(path)?, visit)
}

/// What lies at a position of a segment.
#[derive(Clone, Copy, Debug)]
pub enum BatchAt<'a> {
    /// A whole batch with a good checksum.
    Good(BatchView<'a>),
    /// A whole batch by its length, whose checksum does not match.
    BadCrc(BatchView<'a>),
    /// No whole batch: where the next one begins is not known.
    Broken(BatchError),
}

/// Reads a segment batch by batch, a piece in memory at a time.
#[derive(Debug)]
pub struct SegmentReader {
    file: SegmentFile,
    size: u64,
    buffer: Vec<u8>,
    from: u64,
}

impl SegmentReader {
    /// Opens a segment as large as it is now.
    pub fn open(path: &Path) -> Result<SegmentReader, StorageError> {
        let file = SegmentFile::open_to_read(path).map_err(failed("open", path))?;
        let size = file.size().map_err(failed("look at", path))?;
        Ok(SegmentReader {
            file,
            size,
            buffer: Vec::new(),
            from: 0,
        })
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What lies at `position`, which is below [`SegmentReader::size`].
    pub fn batch_at(&mut self, position: u64) -> io::Result<BatchAt<'_>> {
        let left = self.size.saturating_sub(position);
        let header = match batch::parse_header(self.bytes(position, HEADER_BYTES)?) {
            Ok(header) => header,
            Err(error) => return Ok(BatchAt::Broken(error)),
        };
        // Before memory is taken for it: a damaged length may say two gigabytes.
        if to_u64(header.size_bytes()) > left {
            return Ok(BatchAt::Broken(BatchError::Incomplete));
        }
        let view = match BatchView::parse(self.bytes(position, header.size_bytes())?) {
            Ok(view) => view,
            Err(error) => return Ok(BatchAt::Broken(error)),
        };
        Ok(match view.check_crc() {
            Ok(()) => BatchAt::Good(view),
            Err(_) => BatchAt::BadCrc(view),
        })
    }

    /// `len` bytes at `position`, fewer only at the end of the file.
    fn bytes(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let inside = position >= self.from
            && position - self.from + to_u64(len) <= to_u64(self.buffer.len());
        if !inside {
            let left = to_usize(self.size.saturating_sub(position));
            self.buffer.resize(len.max(PIECE).min(left), 0);
            let read = self.file.read_at(&mut self.buffer, position)?;
            self.buffer.truncate(read);
            self.from = position;
        }
        let start = to_usize(position - self.from);
        let end = (start + len).min(self.buffer.len());
        Ok(&self.buffer[start..end])
    }
}

/// The entries of an offset index: last offset of a batch minus the segment's name, position of the batch. Zeros behind
/// the last entry are entries here, and so is nothing of a last entry that is not whole.
pub fn read_offset_index(bytes: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let entries = bytes.as_chunks::<OFFSET_ENTRY>().0.iter();
    entries.map(|entry| OffsetIndex::pair(*entry))
}

/// The entries of a time index: largest timestamp so far, last offset of the batch that had it minus the segment's name.
pub fn read_time_index(bytes: &[u8]) -> impl Iterator<Item = (i64, u32)> {
    let entries = bytes.as_chunks::<TIME_ENTRY>().0.iter();
    entries.map(|entry| TimeIndex::pair(*entry))
}

/// The leader epochs of a `leader-epoch-checkpoint`, oldest first; `None` if it is not what a broker writes.
#[must_use]
pub fn read_epochs(bytes: &[u8]) -> Option<Vec<(LeaderEpoch, Offset)>> {
    Epochs::decode(bytes).map(|epochs| epochs.entries().to_vec())
}

/// The offset in a `log-start`; `None` if it is not what a broker writes.
#[must_use]
pub fn read_log_start(bytes: &[u8]) -> Option<Offset> {
    partition::parse_log_start(bytes)
}

/// The names and values of a `meta`, and its revision; else what is wrong with it.
pub fn read_meta(bytes: &[u8]) -> Result<(BTreeMap<String, String>, Revision), &'static str> {
    meta::decode(bytes)
}
