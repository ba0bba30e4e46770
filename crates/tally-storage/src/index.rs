//! The offset index and the time index of a segment, in Kafka's layout, kept in memory maps.
//!
//! Invariants: entries rise strictly; an entry never points beyond the published end. Both are caches of the log: an
//! index that is missing, short or wrong is made again from the batches.

use crate::disk::{self, SegmentFile};
use crate::mmap::Table;
use std::io;
use std::path::Path;
use tally_protocol::Offset;
use tally_protocol::ids::{to_u64, to_usize};

/// Bytes allocated for an index at first; doubled whenever they are full.
const FIRST_BYTES: usize = 4096;
/// Bytes of an entry of the offset index: relative offset, position.
pub(crate) const OFFSET_ENTRY: usize = 8;
/// Bytes of an entry of the time index: timestamp, relative offset.
pub(crate) const TIME_ENTRY: usize = 12;

/// Entries of `WIDTH` bytes.
#[derive(Default)]
pub(crate) struct Index<const WIDTH: usize> {
    table: Table,
    entries: usize,
}

/// Last offset of a batch (relative to the segment's base) to the position where the batch begins.
pub(crate) type OffsetIndex = Index<OFFSET_ENTRY>;
/// Largest timestamp so far to the last offset of the batch that had it (relative to the segment's base).
pub(crate) type TimeIndex = Index<TIME_ENTRY>;

impl<const WIDTH: usize> Index<WIDTH> {
    /// Maps the index at `path`; `None` if it is missing or not a whole number of entries.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Index<WIDTH>>> {
        let file = match SegmentFile::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = to_usize(file.size()?);
        if !size.is_multiple_of(WIDTH) {
            return Ok(None);
        }
        Ok(Some(Index {
            table: Table::map(&file, size)?,
            entries: size / WIDTH,
        }))
    }

    /// Whether asking it does not wait for the disk.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.table.is_in_memory()
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// How many more entries there is room for.
    pub(crate) fn room(&self) -> usize {
        self.table.allocated() / WIDTH - self.entries
    }

    /// Makes room for `more` entries; `limit` is the number of bytes that the index is expected to reach at most.
    pub(crate) fn reserve(&mut self, path: &Path, more: usize, limit: usize) -> io::Result<()> {
        let needed = (self.entries + more) * WIDTH;
        let allocated = self.table.allocated();
        if needed <= allocated {
            return Ok(());
        }
        let limit = limit.next_multiple_of(FIRST_BYTES);
        let doubled = (allocated * 2).clamp(FIRST_BYTES, limit.max(FIRST_BYTES));
        let upto = doubled.max(needed).next_multiple_of(FIRST_BYTES);
        let file = SegmentFile::open_or_create(path)?;
        self.table.grow(&file, upto, limit)
    }

    /// Adds an entry, for which there is room.
    pub(crate) fn push(&mut self, entry: [u8; WIDTH]) {
        self.table.store(self.entries * WIDTH, &entry);
        self.entries += 1;
    }

    /// Cuts the file behind the last entry.
    pub(crate) fn trim(&mut self, path: &Path) -> io::Result<()> {
        let file = SegmentFile::open_or_create(path)?;
        self.table.trim(&file, self.entries * WIDTH)
    }

    fn entry(&self, at: usize) -> [u8; WIDTH] {
        assert!(at < self.entries, "entries are counted");
        self.table.load(at * WIDTH)
    }

    /// How many entries at the start fulfil `test`, which no entry does after one that does not.
    fn count_while(&self, test: impl Fn([u8; WIDTH]) -> bool) -> usize {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low.midpoint(high);
            if test(self.entry(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl OffsetIndex {
    /// The relative offset and the position of an entry.
    pub(crate) fn pair(entry: [u8; OFFSET_ENTRY]) -> (u32, u32) {
        let (offset, position) = entry.split_at(4);
        (be_u32(offset), be_u32(position))
    }

    /// The last entry of the index at `path`, if it has any, without mapping it; the outer `None` if the file is missing
    /// or not a whole number of entries.
    pub(crate) fn read_last(path: &Path) -> io::Result<Option<Option<(u32, u32)>>> {
        let file = match SegmentFile::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = file.size()?;
        if !to_usize(size).is_multiple_of(OFFSET_ENTRY) {
            return Ok(None);
        }
        let Some(at) = size.checked_sub(to_u64(OFFSET_ENTRY)) else {
            return Ok(Some(None));
        };
        let mut entry = [0; OFFSET_ENTRY];
        let read = file.read_at(&mut entry, at)?;
        Ok((read == OFFSET_ENTRY).then(|| Some(Self::pair(entry))))
    }

    /// The position in the last entry of the file at `path` that is not space for more; 0 without any.
    pub(crate) fn read_highest(path: &Path) -> io::Result<u32> {
        let bytes = disk::read(path)?.unwrap_or_default();
        let entries = bytes.as_chunks::<OFFSET_ENTRY>().0.iter().rev();
        let mut positions = entries.map(|entry| Self::pair(*entry).1);
        Ok(positions.find(|position| *position > 0).unwrap_or(0))
    }

    /// An entry for the batch that ends at `relative` and begins at `position`.
    pub(crate) fn make(relative: u32, position: u32) -> [u8; OFFSET_ENTRY] {
        (u64::from(relative) << 32 | u64::from(position)).to_be_bytes()
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<(u32, u32)> {
        Some(Self::pair(self.entry(self.entries.checked_sub(1)?)))
    }

    /// How many entries at the start fulfil `test`, which no entry does after one that does not.
    pub(crate) fn count(&self, test: impl Fn(u32, u32) -> bool) -> usize {
        self.count_while(|entry| {
            let (offset, position) = Self::pair(entry);
            test(offset, position)
        })
    }

    /// An entry by its number.
    pub(crate) fn nth(&self, at: usize) -> (u32, u32) {
        Self::pair(self.entry(at))
    }

    /// Whether both columns rise and stay within a segment of `size` bytes and `span` offsets. An index that was not
    /// trimmed ends in zeros, and so does not.
    pub(crate) fn is_sound(&self, size: u64, span: i64) -> bool {
        let mut before = None;
        for at in 0..self.entries {
            let (offset, position) = Self::pair(self.entry(at));
            if before.is_some_and(|(o, p)| offset <= o || position <= p) {
                return false;
            }
            if u64::from(position) >= size || i64::from(offset) >= span {
                return false;
            }
            before = Some((offset, position));
        }
        true
    }
}

impl TimeIndex {
    /// The timestamp and the relative offset of an entry.
    pub(crate) fn pair(entry: [u8; TIME_ENTRY]) -> (i64, u32) {
        let mut time = [0; 8];
        time.copy_from_slice(&entry[..8]);
        (i64::from_be_bytes(time), be_u32(&entry[8..]))
    }

    /// An entry: `timestamp` is the largest so far and stands in the batch that ends at `relative`.
    pub(crate) fn make(timestamp: i64, relative: u32) -> [u8; TIME_ENTRY] {
        let mut entry = [0; TIME_ENTRY];
        entry[..8].copy_from_slice(&timestamp.to_be_bytes());
        entry[8..].copy_from_slice(&relative.to_be_bytes());
        entry
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<(i64, u32)> {
        Some(Self::pair(self.entry(self.entries.checked_sub(1)?)))
    }

    /// How many entries have a timestamp of at most `timestamp`.
    pub(crate) fn count(&self, timestamp: i64) -> usize {
        self.count_while(|entry| Self::pair(entry).0 <= timestamp)
    }

    /// An entry by its number.
    pub(crate) fn nth(&self, at: usize) -> (i64, u32) {
        Self::pair(self.entry(at))
    }

    /// Whether both columns rise and stay within a segment of `span` offsets.
    pub(crate) fn is_sound(&self, span: i64) -> bool {
        let mut before = None;
        for at in 0..self.entries {
            let (time, offset) = Self::pair(self.entry(at));
            if before.is_some_and(|(t, o)| time <= t || offset <= o) {
                return false;
            }
            if time < 0 || i64::from(offset) >= span {
                return false;
            }
            before = Some((time, offset));
        }
        true
    }
}

/// Decides which batches get entries; the same for batches that are appended and batches that are walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Bytes of the batches since the last entry of the offset index.
    since_entry: u64,
    /// The largest timestamp so far, and the last offset of the batch that had it first.
    pub(crate) largest: (i64, Offset),
    /// The timestamp of the last entry of the time index.
    timed: i64,
}

impl Pace {
    /// At the start of a segment.
    pub(crate) fn new(base: Offset) -> Pace {
        Pace {
            since_entry: 0,
            largest: (-1, base),
            timed: -1,
        }
    }

    /// Behind the last batch of a segment whose time index was completed.
    pub(crate) fn resume(since_entry: u64, largest: (i64, Offset)) -> Pace {
        Pace {
            since_entry,
            largest,
            timed: largest.0,
        }
    }

    /// Counts a batch; returns whether it gets an entry in the offset index.
    pub(crate) fn batch(
        &mut self,
        bytes: usize,
        max_timestamp: i64,
        last: Offset,
        interval: u32,
    ) -> bool {
        if max_timestamp > self.largest.0 {
            self.largest = (max_timestamp, last);
        }
        let due = self.since_entry > u64::from(interval);
        if due {
            self.since_entry = 0;
        }
        self.since_entry += to_u64(bytes);
        due
    }

    /// The entry that the time index lacks, if there is one: asked for with each entry of the offset index and at the
    /// end of a segment.
    pub(crate) fn time_entry(&mut self, base: Offset) -> Option<[u8; TIME_ENTRY]> {
        if self.largest.0 <= self.timed {
            return None;
        }
        self.timed = self.largest.0;
        Some(TimeIndex::make(
            self.largest.0,
            relative(base, self.largest.1),
        ))
    }
}

/// `offset` counted from the segment's base.
pub(crate) fn relative(base: Offset, offset: Offset) -> u32 {
    u32::try_from(offset.0 - base.0).expect("a segment spans less than 2^31 offsets")
}

fn be_u32(bytes: &[u8]) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(bytes);
    u32::from_be_bytes(four)
}
