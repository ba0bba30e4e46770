//! Opening a segment for lookups: its map and its indexes, away from the lock of its partition's owner.
//!
//! Invariants: an [`Opening`] that is over changes no file any more, so that whoever writes to the segment, or makes its
//! partition anew, first ends it; two readers that want the same segment share one.

use crate::disk::{self, SegmentFile};
use crate::error::{StorageError, failed};
use crate::index::{OffsetIndex, TimeIndex};
use crate::mmap::Mapping;
use crate::partition::LogOptions;
use crate::recovery::{self, Walk};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tally_protocol::batch::{self, BatchHeader, HEADER_BYTES};
use tally_protocol::ids::{to_u64, to_usize};
use tally_protocol::{BatchError, Offset, PartitionId};

/// An index whose last entry lies further than this from the end of its segment has lost entries.
const INDEX_LAG: u64 = 1024 * 1024;

/// The two indexes of a segment.
#[derive(Default)]
pub(crate) struct Indexes {
    pub(crate) offsets: OffsetIndex,
    pub(crate) times: TimeIndex,
}

/// Where the files of a segment are, and what is known of it.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) id: PartitionId,
    pub(crate) log: PathBuf,
    pub(crate) offsets: PathBuf,
    pub(crate) times: PathBuf,
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) size: u64,
    pub(crate) options: LogOptions,
    pub(crate) maps: Arc<AtomicUsize>,
    /// An entry of an index was found to be wrong: they are made anew.
    pub(crate) doubted: bool,
}

impl Files {
    /// The header at `position`, of a batch that lies whole in the segment.
    fn header(&self, file: &SegmentFile, position: u64) -> Result<BatchHeader, StorageError> {
        let mut bytes = [0; HEADER_BYTES];
        let len = to_usize(self.size.saturating_sub(position)).min(HEADER_BYTES);
        let read = file
            .read_at(&mut bytes[..len], position)
            .map_err(failed("read", &self.log))?;
        let header = batch::parse_header(&bytes[..read]);
        let left = self.size.saturating_sub(position);
        sane(header, left, self.base, self.end).map_err(|reason| self.corrupt(position, &reason))
    }

    fn corrupt(&self, position: u64, reason: &str) -> StorageError {
        StorageError::Corrupt {
            path: self.log.clone(),
            reason: format!("{reason}, at position {position}"),
        }
    }

    /// The segment as a clean shutdown left it: the timestamp of its first batch and the offset behind its last one.
    /// `None` if that can't be told without a walk.
    pub(crate) fn clean_end(&self) -> Result<Option<(Option<i64>, Offset)>, StorageError> {
        let path = &self.offsets;
        let last = match OffsetIndex::read_last(path).map_err(failed("read", path))? {
            Some(last) => last,
            None => return Ok(None),
        };
        let file = SegmentFile::open(&self.log).map_err(failed("open", &self.log))?;
        match self.walk_tail(&file, last) {
            Err(StorageError::Corrupt { .. }) => Ok(None),
            other => other,
        }
    }

    fn walk_tail(
        &self,
        file: &SegmentFile,
        last: Option<(u32, u32)>,
    ) -> Result<Option<(Option<i64>, Offset)>, StorageError> {
        if self.size == 0 {
            return Ok(Some((None, self.base)));
        }
        let first = self.header(file, 0)?;
        let mut at = last.map_or(0, |(_, position)| u64::from(position));
        if at >= self.size {
            return Ok(None);
        }
        let mut end = self.base;
        let limit = at + u64::from(self.options.index_interval_bytes).max(INDEX_LAG);
        while at < self.size {
            let header = match at {
                0 => first,
                _ => self.header(file, at)?,
            };
            let is_entry = last.is_some_and(|(_, position)| u64::from(position) == at);
            let expected = last.map(|(relative, _)| self.base.plus(i64::from(relative)));
            if (is_entry && expected != Some(header.last_offset())) || header.base_offset < end {
                return Ok(None);
            }
            at += to_u64(header.size_bytes());
            end = header.last_offset().next();
            if at > limit && at < self.size {
                return Ok(None);
            }
        }
        Ok((at == self.size).then_some((Some(first.max_timestamp), end)))
    }

    /// The indexes, made anew where they are missing, short or wrong.
    pub(crate) fn indexes(&self) -> Result<Indexes, StorageError> {
        let file = SegmentFile::open(&self.log).map_err(failed("open", &self.log))?;
        match self.sound_indexes(&file) {
            Ok(Some(indexes)) => Ok(indexes),
            // A wrong entry leads to what is no batch: only a walk can tell whether the log is damaged or the index.
            Ok(None) | Err(StorageError::Corrupt { .. }) => self.rebuild(&file),
            Err(error) => Err(error),
        }
    }

    /// The indexes made anew, of which an entry was wrong. `None` if it is the log that is damaged, and not everywhere:
    /// what is good of it can still be found with the entries that are right.
    fn mended_indexes(&self) -> Result<Option<Indexes>, StorageError> {
        let file = SegmentFile::open(&self.log).map_err(failed("open", &self.log))?;
        match self.rebuild(&file) {
            Err(StorageError::Corrupt { path, reason }) => {
                tracing::error!(path = %path.display(), reason, "a segment is damaged, its indexes can't be made anew");
                Ok(None)
            }
            made => made.map(Some),
        }
    }

    fn sound_indexes(&self, file: &SegmentFile) -> Result<Option<Indexes>, StorageError> {
        let offsets = OffsetIndex::open(&self.offsets).map_err(failed("map", &self.offsets))?;
        let times = TimeIndex::open(&self.times).map_err(failed("map", &self.times))?;
        let (Some(offsets), Some(times)) = (offsets, times) else {
            return Ok(None);
        };
        let span = self.end.0 - self.base.0;
        if !offsets.is_sound(self.size, span) || !times.is_sound(span) {
            return Ok(None);
        }
        // Behind the last entry come its batch, at most an interval of others, and the last batch.
        let interval = u64::from(self.options.index_interval_bytes);
        let mut at = offsets
            .last()
            .map_or(0, |(_, position)| u64::from(position));
        let lag_limit = at + interval.max(INDEX_LAG);
        let mut timed = self.largest_is_true(file, &offsets, times.last())?;
        let mut entry = offsets.last();
        let mut end = self.base;
        while at < self.size {
            let header = self.header(file, at)?;
            if let Some((last, _)) = entry.take()
                && header.last_offset() != self.base.plus(i64::from(last))
            {
                return Ok(None);
            }
            at += to_u64(header.size_bytes());
            end = header.last_offset().next();
            if at > lag_limit && at < self.size {
                break;
            }
            let known = times.last().map_or(-1, |(timestamp, _)| timestamp);
            timed &= recovery::indexed_timestamp(&header) <= known;
        }
        let complete = at >= self.size && timed && self.is_end(end);
        Ok(complete.then_some(Indexes { offsets, times }))
    }

    /// Whether the batch that the last entry of the time index names has that timestamp. The largest timestamp decides
    /// over the deletion of the segment: it is not believed without.
    fn largest_is_true(
        &self,
        file: &SegmentFile,
        offsets: &OffsetIndex,
        largest: Option<(i64, u32)>,
    ) -> Result<bool, StorageError> {
        let Some((timestamp, relative)) = largest else {
            return Ok(true);
        };
        let wanted = self.base.plus(i64::from(relative));
        let before = offsets.count(|last, _| last <= relative);
        let mut at = before
            .checked_sub(1)
            .map_or((0, 0), |at| offsets.nth(at))
            .1
            .into();
        while at < self.size {
            let header = self.header(file, at)?;
            if header.last_offset() >= wanted {
                let is_it = header.last_offset() == wanted;
                return Ok(is_it && recovery::indexed_timestamp(&header) == timestamp);
            }
            at += to_u64(header.size_bytes());
        }
        Ok(false)
    }

    /// The position of the last batch that ends at or below `wanted`, counted from the segment's base, as far as the offset
    /// index knows. A wrong entry is passed over.
    pub(crate) fn position_before(
        &self,
        offsets: &OffsetIndex,
        wanted: u32,
    ) -> Result<u64, StorageError> {
        let file = SegmentFile::open(&self.log).map_err(failed("open", &self.log))?;
        for at in (0..offsets.count(|last, _| last <= wanted)).rev() {
            let (last, position) = offsets.nth(at);
            match self.header(&file, u64::from(position)) {
                Ok(header) if header.last_offset() == self.base.plus(i64::from(last)) => {
                    return Ok(u64::from(position));
                }
                Ok(_) | Err(StorageError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }

    /// Whether the last batch ends where the segment has to. Compaction may have removed its last offsets.
    fn is_end(&self, found: Offset) -> bool {
        found == self.end || self.options.gaps_below > self.base
    }

    fn rebuild(&self, file: &SegmentFile) -> Result<Indexes, StorageError> {
        tracing::info!(partition = %self.id, segment = %self.base, "making the indexes of a segment anew");
        let walk =
            recovery::walk(file, self.base, &self.options).map_err(failed("read", &self.log))?;
        if let Some(reason) = walk.stopped {
            return Err(self.corrupt(walk.size, &reason.to_string()));
        }
        if !self.is_end(walk.end) {
            let (found, next) = (walk.end, self.end);
            let reason =
                format!("the segment ends at offset {found}, what follows begins at {next}");
            return Err(self.corrupt(walk.size, &reason));
        }
        self.write_indexes(&walk)
    }

    /// Gives the indexes the contents that a walk made.
    pub(crate) fn write_indexes(&self, walk: &Walk) -> Result<Indexes, StorageError> {
        let (offsets, times) = (&self.offsets, &self.times);
        write_over(offsets, &walk.offsets).map_err(failed("write", offsets))?;
        write_over(times, &walk.times).map_err(failed("write", times))?;
        Ok(Indexes {
            offsets: OffsetIndex::open(offsets)
                .map_err(failed("map", offsets))?
                .unwrap_or_default(),
            times: TimeIndex::open(times)
                .map_err(failed("map", times))?
                .unwrap_or_default(),
        })
    }

    /// The map, for all that the segment may become.
    pub(crate) fn map(&self) -> Result<Arc<Mapping>, StorageError> {
        let capacity = to_usize(u64::from(self.options.segment_bytes));
        Mapping::open(&self.log, capacity, to_usize(self.size), &self.maps)
            .map_err(failed("map", &self.log))
    }
}

/// A header that belongs where it was found: its batch lies in the `left` bytes of a segment with the offsets
/// `base..end`. Otherwise what is wrong.
pub(crate) fn sane(
    header: Result<BatchHeader, BatchError>,
    left: u64,
    base: Offset,
    end: Offset,
) -> Result<BatchHeader, String> {
    match header {
        Ok(header)
            if to_u64(header.size_bytes()) <= left
                && header.last_offset_delta >= 0
                && header.base_offset >= base
                && header.base_offset < end =>
        {
            Ok(header)
        }
        Ok(_) => Err("a batch header makes no sense".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Gives an index new contents in its place: that needs no more space than there was, as a start must not fail on a full
/// disk. Half-written contents are noticed when they are opened, and after a crash they are written again.
fn write_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = SegmentFile::open_or_create(path)?;
    file.write_at(bytes, 0)?;
    file.truncate(to_u64(bytes.len()))
}

/// What opening a segment gives.
pub(crate) struct Opened {
    pub(crate) map: Arc<Mapping>,
    /// `None`: they were there before.
    pub(crate) indexes: Option<Indexes>,
    /// They were doubted, and made anew.
    pub(crate) mended: bool,
}

enum State {
    Wanted,
    Done(Opened),
    /// Nobody wants it any more.
    Over,
}

/// A segment that a reader wants to be opened.
pub(crate) struct Opening {
    files: Files,
    with_indexes: bool,
    state: Mutex<State>,
}

impl Opening {
    /// The log of the segment.
    pub(crate) fn path(&self) -> &Path {
        &self.files.log
    }

    /// Opens it, unless somebody has. Waits for the disk.
    pub(crate) fn run(&self) -> Result<(), StorageError> {
        let mut state = self.state();
        if let State::Wanted = *state {
            *state = State::Done(self.open()?);
        }
        Ok(())
    }

    fn open(&self) -> Result<Opened, StorageError> {
        let mended = match self.with_indexes && self.files.doubted {
            true => self.files.mended_indexes()?,
            false => None,
        };
        let is_mended = mended.is_some();
        let indexes = match self.with_indexes {
            true if is_mended => mended,
            true => {
                for path in [&self.files.offsets, &self.files.times] {
                    // Read before they are looked at through their maps. A missing one is made.
                    disk::read(path).map_err(failed("read", path))?;
                }
                Some(self.files.indexes()?)
            }
            false => None,
        };
        Ok(Opened {
            map: self.files.map()?,
            indexes,
            mended: is_mended,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A half-made state is never stored: a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a segment keeps its opening, if it has one. Ends it when the segment goes.
#[derive(Default)]
pub(crate) struct OpeningSlot(Option<Arc<Opening>>);

impl OpeningSlot {
    /// The opening that runs, or a new one.
    pub(crate) fn want(
        &mut self,
        with_indexes: bool,
        files: impl FnOnce() -> Files,
    ) -> Arc<Opening> {
        let opening = self.0.get_or_insert_with(|| {
            Arc::new(Opening {
                files: files(),
                with_indexes,
                state: Mutex::new(State::Wanted),
            })
        });
        Arc::clone(opening)
    }

    /// What it has made, if it is done. Does not wait for one that runs.
    pub(crate) fn take_done(&mut self) -> Option<Opened> {
        let opening = self.0.as_ref()?;
        let mut state = match opening.state.try_lock() {
            Ok(state) => state,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        if let State::Wanted = *state {
            return None;
        }
        let done = std::mem::replace(&mut *state, State::Over);
        drop(state);
        self.0 = None;
        match done {
            State::Done(opened) => Some(opened),
            State::Wanted | State::Over => None,
        }
    }

    /// Ends it; waits for one that runs. What it has made is given out.
    pub(crate) fn end(&mut self) -> Option<Opened> {
        let opening = self.0.take()?;
        let done = std::mem::replace(&mut *opening.state(), State::Over);
        match done {
            State::Done(opened) => Some(opened),
            State::Wanted | State::Over => None,
        }
    }
}

impl Drop for OpeningSlot {
    fn drop(&mut self) {
        self.end();
    }
}
