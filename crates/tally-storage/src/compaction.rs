//! The mechanics of compaction: closed segments are rewritten beside the log and then put into its place (LR-72, LR-77).
//!
//! Which batches stay is somebody else's decision, see [`Cleaner`]. A pass goes group by group: neighbours that fit into one
//! segment are rewritten into `.cleaned` files without the owner's lock (closed segments never change), and the owner
//! swaps them in. The file `swap` is the moment at which a swap is decided: it is synced after the new files and before any old
//! one goes, so that a start finds the old set or completes the new one, never both (CR-21).
//!
//! Invariants: groups are swapped in the order of their offsets, so that what supersedes a removed record is always there;
//! what was rewritten is only taken by the same life of the partition, and only if its segments still are what they were.

use crate::TRANSACTION_ROW_BYTES;
use crate::data_dir::DataDir;
use crate::disk::{self, SegmentFile, Sync};
use crate::error::{StorageError, failed};
use crate::journal::SegmentJournal;
use crate::partition::{LogOptions, PartitionLog};
use crate::recovery::{Walk, Window};
use crate::segment::{INDEX, LOG, Place, Segment, TIME_INDEX, TXN_INDEX};
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tally_protocol::ids::to_u64;
use tally_protocol::{BatchView, Offset, PartitionId, batch};
use thiserror::Error;

/// The end of the name of a rewritten file that is not part of the log yet.
pub(crate) const CLEANED: &str = ".cleaned";
/// The decision to swap.
pub(crate) const SWAP: &str = "swap";
/// How far the log is compacted.
pub(crate) const CHECKPOINT: &str = "cleaner-checkpoint";
/// The files of a segment; the log comes last.
const KINDS: [&str; 4] = [INDEX, TIME_INDEX, TXN_INDEX, LOG];
/// Bytes written at a time.
const PIECE: usize = 1024 * 1024;

/// Lives of partitions are numbered, so that nothing that was rewritten for one is swapped into the next.
static LIVES: AtomicU64 = AtomicU64::new(1);

pub(crate) fn next_life() -> u64 {
    LIVES.fetch_add(1, Ordering::Relaxed)
}

/// Sees a batch and the position behind it.
type Visit<'a> = dyn FnMut(&BatchView<'_>, u64) -> Result<ControlFlow<()>, StorageError> + 'a;

/// What becomes of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It stays as it is.
    Keep,
    /// It goes.
    Drop,
    /// This batch comes in its place, with the same offsets.
    Replace(Vec<u8>),
}

/// Decides what stays.
pub trait Cleaner {
    /// About the next batch; `is_last`: there is none behind it in what is compacted.
    fn judge(&mut self, batch: &BatchView<'_>, is_last: bool) -> Fate;
    /// The rows of aborted transactions that belong to the batches judged since the last call.
    fn take_rows(&mut self) -> Vec<[u8; TRANSACTION_ROW_BYTES]>;
}

/// Why segments were not rewritten.
#[derive(Debug, Error)]
pub enum CompactionError {
    /// They can't be read, or the result can't be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Some are not there any more.
    #[error("segments have gone meanwhile")]
    Gone,
    /// What was written since they were last synced can't be brought to the disk: trying again proves nothing.
    #[error("cannot sync what is compacted: {0}")]
    NotSynced(StorageError),
    /// The owner said stop.
    #[error("stopped")]
    Stopped,
}

/// One closed segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealedSegment {
    /// The first offset that may be in it.
    pub base: Offset,
    /// The offset after the last one that may be in it.
    pub end: Offset,
    /// Bytes of batches.
    pub bytes: u64,
}

/// The closed segments of a partition at one moment, to be read and rewritten without its owner.
#[derive(Debug)]
pub struct CompactionInput {
    dir: Arc<DataDir>,
    maps: Arc<AtomicUsize>,
    id: PartitionId,
    life: u64,
    options: LogOptions,
    segments: Vec<SealedSegment>,
    /// The bases of all segments that nobody has synced, the open one too.
    dirty: Vec<Offset>,
    stop: Arc<AtomicBool>,
}

/// A group of segments, rewritten and synced.
#[derive(Debug)]
pub struct CleanedSegment {
    life: u64,
    base: Offset,
    end: Offset,
    /// Bytes of batches now.
    pub bytes: u64,
    /// Bytes of batches before.
    pub bytes_before: u64,
    first_timestamp: Option<i64>,
}

/// Whether a rewritten segment became part of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Swapped {
    /// It did.
    Done,
    /// The log has changed meanwhile; what was rewritten is gone.
    Void,
}

/// How far a log is compacted, as its file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checkpoint {
    /// Where compaction has not been (LR-70).
    pub(crate) first_dirty: Offset,
    /// Segments that begin below it may lack offsets.
    pub(crate) gaps_below: Offset,
}

impl Checkpoint {
    pub(crate) const NONE: Checkpoint = Checkpoint {
        first_dirty: Offset::ZERO,
        gaps_below: Offset::ZERO,
    };

    fn read(directory: &Path) -> Result<Checkpoint, StorageError> {
        Ok(match read_numbers(&directory.join(CHECKPOINT))? {
            Some([first_dirty, gaps_below]) => Checkpoint {
                first_dirty,
                gaps_below,
            },
            None => Checkpoint::NONE,
        })
    }

    /// The checkpoint of a log that ends at `log_end`.
    pub(crate) fn limited(self, log_end: Offset) -> Checkpoint {
        Checkpoint {
            first_dirty: self.first_dirty.min(log_end),
            gaps_below: self.gaps_below.min(log_end),
        }
    }

    pub(crate) fn write(self, directory: &Path) -> io::Result<()> {
        let text = format!("0\n{}\n{}\n", self.first_dirty, self.gaps_below);
        disk::replace(&directory.join(CHECKPOINT), text.as_bytes(), Sync::Yes)
    }
}

/// A file of two offsets: both are synced before they are renamed, so that anything else in it is damage.
fn read_numbers(path: &Path) -> Result<Option<[Offset; 2]>, StorageError> {
    let Some(bytes) = disk::read(path).map_err(failed("read", path))? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&bytes);
    let numbers = text.strip_prefix("0\n").and_then(|rest| {
        let (first, second) = rest.strip_suffix('\n')?.split_once('\n')?;
        Some([Offset(first.parse().ok()?), Offset(second.parse().ok()?)])
    });
    match numbers {
        Some(numbers) => Ok(Some(numbers)),
        None => Err(StorageError::Corrupt {
            path: path.to_owned(),
            reason: "it does not hold two offsets".to_owned(),
        }),
    }
}

/// Completes a swap that was decided, removes what was rewritten for one that was not; returns the names that are left.
pub(crate) fn settle(
    place: Place<'_>,
    names: Vec<String>,
) -> Result<(Vec<String>, Checkpoint), StorageError> {
    let directory = place.directory();
    let manifest = directory.join(SWAP);
    let is_there = |wanted| names.iter().any(|name| name == wanted);
    let mut checkpoint = match is_there(CHECKPOINT) {
        true => Checkpoint::read(&directory)?,
        false => Checkpoint::NONE,
    };
    let swap = if is_there(SWAP) {
        read_numbers(&manifest)?
    } else {
        None
    };
    if let Some([base, end]) = swap {
        checkpoint.gaps_below = checkpoint.gaps_below.max(end);
        complete(place, (base, end), &names, checkpoint).map_err(failed("complete", &manifest))?;
        tracing::info!(partition = %place.id, %base, %end, "completed the swap of a compacted segment");
    } else if !names.iter().any(|name| name.ends_with(CLEANED)) {
        return Ok((names, checkpoint));
    }
    let left = disk::names(&directory).map_err(failed("list", &directory))?;
    let (litter, left): (Vec<String>, Vec<String>) = left
        .unwrap_or_default()
        .into_iter()
        .partition(|name| name.ends_with(CLEANED));
    for name in litter {
        let path = directory.join(name);
        disk::remove_if_present(&path).map_err(failed("remove", &path))?;
    }
    Ok((left, checkpoint))
}

/// Everything behind the decision. Can be repeated.
fn complete(
    place: Place<'_>,
    (base, end): (Offset, Offset),
    names: &[String],
    checkpoint: Checkpoint,
) -> io::Result<()> {
    let directory = place.directory();
    for name in names {
        let stem = name.split_once('.').filter(|(stem, _)| stem.len() == 20);
        let Some((stem, kind)) = stem else { continue };
        let inside = stem.parse().is_ok_and(|at| base.0 < at && at < end.0);
        if inside && KINDS.contains(&kind) {
            disk::remove_if_present(&directory.join(name))?;
        }
    }
    for kind in KINDS {
        let path = place.file(base, kind);
        disk::rename_if_present(&cleaned_name(place, base, kind), &path)?;
    }
    let rows = place.file(base, TXN_INDEX);
    if disk::read(&rows)?.is_some_and(|rows| rows.is_empty()) {
        disk::remove_if_present(&rows)?;
    }
    // Syncs the directory, and with it all of the above.
    checkpoint.write(&directory)?;
    disk::remove_if_present(&directory.join(SWAP))
}

fn cleaned_name(place: Place<'_>, base: Offset, kind: &str) -> PathBuf {
    place.file(base, &format!("{kind}{CLEANED}"))
}

impl CompactionInput {
    /// The segments, oldest first.
    #[must_use]
    pub fn segments(&self) -> &[SealedSegment] {
        &self.segments
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.id
    }

    /// Neighbours that are to become one segment each, of those that begin below `upto`: as many as fit by their present
    /// sizes (LR-72).
    #[must_use]
    pub fn groups(&self, upto: Offset) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        let (mut base, mut bytes) = (Offset::ZERO, 0);
        for (at, segment) in self.segments.iter().enumerate() {
            if segment.base >= upto {
                break;
            }
            let fits = bytes + segment.bytes <= u64::from(self.options.segment_bytes)
                && segment.end.0 - base.0 <= i64::from(i32::MAX);
            match groups.last_mut() {
                Some(group) if fits => {
                    group.end = at + 1;
                    bytes += segment.bytes;
                }
                _ => {
                    groups.push(at..at + 1);
                    (base, bytes) = (segment.base, segment.bytes);
                }
            }
        }
        groups
    }

    /// Brings the whole log to the disk. A record may only go when the later one of its key can't be lost any more, nor the
    /// marker that commits it, which may stand behind all that is compacted: with durability `os` nobody has promised that
    /// for the later one, but the earlier one may be old and safe.
    pub fn sync(&self) -> Result<(), CompactionError> {
        for base in &self.dirty {
            let path = self.place().file(*base, LOG);
            match SegmentFile::open(&path).and_then(|file| file.sync()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(CompactionError::Gone);
                }
                Err(error) => {
                    return Err(CompactionError::NotSynced(failed("sync", &path)(error)));
                }
            }
        }
        Ok(())
    }

    /// Shows every batch that holds an offset of at least `from`, checked.
    pub fn visit(
        &self,
        from: Offset,
        visit: &mut dyn FnMut(&BatchView<'_>) -> ControlFlow<()>,
    ) -> Result<(), CompactionError> {
        for segment in self.segments.iter().filter(|segment| segment.end > from) {
            let mut flow = ControlFlow::Continue(());
            self.walk(segment, &mut |batch, _| {
                if batch.header().last_offset() >= from {
                    flow = visit(batch);
                }
                Ok(flow)
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows the batches of one segment, each with the position behind it.
    fn walk(&self, segment: &SealedSegment, visit: &mut Visit<'_>) -> Result<(), CompactionError> {
        let path = self.place().file(segment.base, LOG);
        let file = match SegmentFile::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CompactionError::Gone);
            }
            other => other.map_err(failed("open", &path))?,
        };
        let mut window = Window::new(&file, segment.bytes);
        let mut at = 0;
        while at < segment.bytes {
            if self.stop.load(Ordering::Relaxed) {
                return Err(CompactionError::Stopped);
            }
            let batch = window.view_at(at).map_err(failed("read", &path))?;
            let batch = batch.map_err(|error| StorageError::Corrupt {
                path: path.clone(),
                reason: format!("{error}, at position {at}"),
            })?;
            at += to_u64(batch.bytes().len());
            if visit(&batch, at)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn place(&self) -> Place<'_> {
        Place {
            dir: &self.dir,
            id: self.id,
            maps: &self.maps,
        }
    }

    /// Rewrites a group into files of its own, synced; `is_last_group`: there is none behind it.
    pub fn rewrite(
        &self,
        group: Range<usize>,
        is_last_group: bool,
        cleaner: &mut dyn Cleaner,
    ) -> Result<CleanedSegment, CompactionError> {
        let segments = &self.segments[group];
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            return Err(CompactionError::Gone);
        };
        let place = self.place();
        let directory = place.directory();
        // The end of the swap before this one must not come undone once these files have names (see `complete`).
        sync_directory(&directory)?;
        let mut output = Output::create(place, first.base, self.options.index_interval_bytes)?;
        for segment in segments {
            self.walk(segment, &mut |batch, end| {
                let is_last = is_last_group && segment == last && end == segment.bytes;
                match cleaner.judge(batch, is_last) {
                    Fate::Keep => output.put(batch.bytes())?,
                    Fate::Drop => {}
                    Fate::Replace(bytes) => output.put(&bytes)?,
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        let path = place.file(last.base, LOG);
        let modified_ms = disk::modified_ms(&path).map_err(failed("look at", &path))?;
        let walk = output.finish(place, &cleaner.take_rows().concat(), modified_ms)?;
        sync_directory(&directory)?;
        Ok(CleanedSegment {
            life: self.life,
            base: first.base,
            end: last.end,
            bytes: walk.size,
            bytes_before: segments.iter().map(|segment| segment.bytes).sum(),
            first_timestamp: walk.first_timestamp,
        })
    }
}

fn sync_directory(directory: &Path) -> Result<(), CompactionError> {
    match disk::sync_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CompactionError::Gone),
        other => Ok(other.map_err(failed("sync", directory))?),
    }
}

/// The files that are being written.
struct Output {
    path: PathBuf,
    file: SegmentFile,
    base: Offset,
    interval: u32,
    walk: Walk,
    /// The end of the log that is not in the file yet.
    buffer: Vec<u8>,
}

impl Output {
    fn create(place: Place<'_>, base: Offset, interval: u32) -> Result<Output, StorageError> {
        for kind in KINDS {
            let path = cleaned_name(place, base, kind);
            disk::remove_if_present(&path).map_err(failed("remove", &path))?;
        }
        let path = cleaned_name(place, base, LOG);
        Ok(Output {
            file: SegmentFile::create(&path).map_err(failed("create", &path))?,
            path,
            base,
            interval,
            walk: Walk::begin(base),
            buffer: Vec::new(),
        })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let header = batch::parse_header(bytes).expect("a batch was judged to stay");
        assert!(
            header.base_offset >= self.walk.end && header.size_bytes() == bytes.len(),
            "batches stay in order and whole"
        );
        self.walk.take(self.base, &header, self.interval);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush().map_err(failed("write", &self.path))?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let at = self.walk.size - to_u64(self.buffer.len());
        self.file.write_at(&self.buffer, at)?;
        self.buffer.clear();
        Ok(())
    }

    /// Writes and syncs the rest; the new file is as old as the newest segment in it (LR-62).
    fn finish(
        mut self,
        place: Place<'_>,
        rows: &[u8],
        modified_ms: i64,
    ) -> Result<Walk, StorageError> {
        self.flush()
            .and_then(|()| self.file.set_modified_ms(modified_ms))
            .and_then(|()| self.file.sync())
            .map_err(failed("write", &self.path))?;
        let mut walk = self.walk;
        walk.complete_times(self.base);
        for (kind, bytes) in [
            (INDEX, &walk.offsets[..]),
            (TIME_INDEX, &walk.times[..]),
            (TXN_INDEX, rows),
        ] {
            let path = cleaned_name(place, self.base, kind);
            SegmentFile::create(&path)
                .and_then(|file| file.write_at(bytes, 0).and_then(|()| file.sync()))
                .map_err(failed("write", &path))?;
        }
        Ok(walk)
    }
}

impl PartitionLog {
    /// The closed segments.
    fn sealed(&self) -> impl Iterator<Item = SealedSegment> + '_ {
        let closed = self.segments.len().saturating_sub(1);
        self.segments[..closed].iter().map(|segment| SealedSegment {
            base: segment.base,
            end: segment.end,
            bytes: segment.size,
        })
    }

    /// Where in `segments` a rewritten group belongs, if those are still there.
    fn place_of(&self, cleaned: &CleanedSegment) -> Option<Range<usize>> {
        if cleaned.life != self.life {
            return None;
        }
        let find = |wanted: Offset| self.segments.iter().position(|found| found.base == wanted);
        let group = find(cleaned.base)?..find(cleaned.end)?;
        let bytes: u64 = self.segments[group.clone()].iter().map(|s| s.size).sum();
        (bytes == cleaned.bytes_before).then_some(group)
    }

    /// Puts a rewritten group into its place. An error behind the decision leaves the rest to the next start.
    fn swap(
        &mut self,
        place: Place<'_>,
        cleaned: &CleanedSegment,
        group: Range<usize>,
        first_dirty: Option<Offset>,
    ) -> io::Result<()> {
        let directory = place.directory();
        let text = format!("0\n{}\n{}\n", cleaned.base, cleaned.end);
        disk::replace(&directory.join(SWAP), text.as_bytes(), Sync::Yes)?;
        let mut checkpoint = self.checkpoint;
        checkpoint.gaps_below = checkpoint.gaps_below.max(cleaned.end);
        checkpoint.first_dirty = first_dirty.unwrap_or(checkpoint.first_dirty);
        for segment in &mut self.segments[group.clone()] {
            // Whoever opens one could write its indexes into the new ones.
            segment.end_opening();
        }
        let names = disk::names(&directory)?.unwrap_or_default();
        complete(place, (cleaned.base, cleaned.end), &names, checkpoint)?;
        let mut segment = Segment::found(cleaned.base, cleaned.end, cleaned.bytes);
        segment.first_timestamp = cleaned.first_timestamp;
        segment.load_rows(place).map_err(io::Error::other)?;
        let at = group.start;
        let replaced = self.segments.splice(group, [segment]);
        let rows: Vec<_> = replaced
            .flat_map(|s| {
                // What has come in its place is synced.
                place.dir.unsynced().forget_segment(place.id, s.base);
                s.rows().copied().collect::<Vec<_>>()
            })
            .collect();
        self.recount_rows(place, at, &rows);
        self.checkpoint = checkpoint;
        self.options.gaps_below = self.options.gaps_below.max(checkpoint.gaps_below);
        Ok(())
    }
}

impl SegmentJournal {
    /// Where compaction has not been yet (LR-70). The partition is open.
    #[must_use]
    pub fn first_dirty(&self, partition: PartitionId) -> Offset {
        let log = self.opened(partition);
        let first_dirty = log.checkpoint.first_dirty;
        if first_dirty < log.log_start || first_dirty > log.log_end {
            return log.log_start;
        }
        first_dirty
    }

    /// The closed segments, oldest first. The partition is open.
    pub fn sealed_segments(
        &self,
        partition: PartitionId,
    ) -> impl Iterator<Item = SealedSegment> + '_ {
        self.opened(partition).sealed()
    }

    /// The largest timestamp of the first batch of the segment that begins at `base`; -1 none.
    pub fn first_timestamp(
        &self,
        partition: PartitionId,
        base: Offset,
    ) -> Result<i64, StorageError> {
        let log = self.log(partition)?;
        let place = self.place(partition);
        let found = log.segments.iter().find(|segment| segment.base == base);
        found.map_or(Ok(-1), |segment| {
            segment.first_timestamp(place, &log.options)
        })
    }

    /// The closed segments that end at or below `upto`, to be compacted. Setting `stop` ends all that is done with them.
    pub fn compaction_input(
        &self,
        partition: PartitionId,
        upto: Offset,
        stop: Arc<AtomicBool>,
    ) -> Result<CompactionInput, StorageError> {
        let log = self.log(partition)?;
        let segments: Vec<SealedSegment> = log.sealed().take_while(|s| s.end <= upto).collect();
        let dirty = log.segments.iter().filter(|s| s.dirty).map(|s| s.base);
        let dirty = dirty.collect();
        Ok(CompactionInput {
            dir: Arc::clone(self.dir()),
            maps: Arc::clone(self.maps()),
            id: partition,
            life: log.life,
            options: log.options,
            segments,
            dirty,
            stop,
        })
    }

    /// Makes a rewritten group part of the log; `first_dirty` is where compaction has come to, if this was its last group.
    /// A swap that was decided and can't be completed stops the journal: a new start completes it.
    pub fn swap_cleaned(
        &mut self,
        partition: PartitionId,
        cleaned: &CleanedSegment,
        first_dirty: Option<Offset>,
    ) -> Result<Swapped, StorageError> {
        let (log, place) = self.log_and_place(partition)?;
        let Some(group) = log.place_of(cleaned) else {
            self.abandon_compaction(partition);
            return Ok(Swapped::Void);
        };
        let directory = place.directory();
        let Err(error) = log.swap(place, cleaned, group, first_dirty) else {
            return Ok(Swapped::Done);
        };
        // Looked for by name: even the answer to the write may have been lost.
        let decided = disk::names(&directory).map_or(true, |names| {
            names.unwrap_or_default().iter().any(|n| n == SWAP)
        });
        if decided {
            self.fail(partition, &error);
        } else {
            self.abandon_compaction(partition);
        }
        Err(failed("swap segments in", directory)(error))
    }

    /// Removes what was rewritten and is of no use any more.
    pub fn abandon_compaction(&mut self, partition: PartitionId) {
        let directory = self.place(partition).directory();
        let names = disk::names(&directory).ok().flatten().unwrap_or_default();
        for name in names.iter().filter(|name| name.ends_with(CLEANED)) {
            if let Err(error) = disk::remove_if_present(&directory.join(name)) {
                tracing::warn!(%partition, %name, %error, "cannot remove a rewritten file");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_offsets_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CHECKPOINT);
        assert_eq!(
            Checkpoint::read(directory.path()).unwrap(),
            Checkpoint::NONE
        );
        let checkpoint = Checkpoint {
            first_dirty: Offset(5),
            gaps_below: Offset(9),
        };
        checkpoint.write(directory.path()).unwrap();
        assert_eq!(disk::read(&path).unwrap().unwrap(), b"0\n5\n9\n");
        assert_eq!(Checkpoint::read(directory.path()).unwrap(), checkpoint);
        for bad in ["", "0\n", "0\n5\n", "0\n5\n9", "1\n5\n9\n", "0\n5\n9\n1\n"] {
            disk::replace(&path, bad.as_bytes(), Sync::No).unwrap();
            assert!(Checkpoint::read(directory.path()).is_err(), "{bad:?}");
        }
    }
}
