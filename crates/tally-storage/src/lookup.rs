//! Finding batches in one segment: by offset, by time, and runs of them for a fetch.
//!
//! Invariant: nothing here waits for the disk. What is not in memory is named by a [`Cold`], to be loaded elsewhere.

use crate::cold::{Cold, Sure};
use crate::error::StorageError;
use crate::mmap::{Mapping, Slice};
use crate::opening::{Indexes, sane};
use crate::partition::LogOptions;
use crate::recovery::indexed_timestamp;
use crate::segment::{INDEX, Place, Segment, TIME_INDEX, relative_within};
use std::sync::Arc;
use tally_protocol::Offset;
use tally_protocol::batch::{self, BatchHeader, HEADER_BYTES};
use tally_protocol::ids::{to_u64, to_usize};

/// A segment during one lookup.
struct Lookup<'a> {
    segment: &'a Segment,
    place: Place<'a>,
    options: LogOptions,
    map: Arc<Mapping>,
    sure: Sure,
    hot_from: Option<u64>,
    /// Where a walk will end that has begun: what it needs is looked for and loaded at once.
    upto: Option<u64>,
}

impl<'a> Lookup<'a> {
    fn begin(
        segment: &'a Segment,
        place: Place<'a>,
        options: &LogOptions,
    ) -> Result<Lookup<'a>, StorageError> {
        let map = segment.opened(place, options)?;
        let hot_from = segment.marks.hot_from(place.dir.heat());
        Ok(Lookup {
            segment,
            place,
            options: *options,
            map,
            sure: Sure::hot(hot_from, segment.size),
            hot_from,
            upto: None,
        })
    }

    /// The header at `position`, of a batch that lies whole in the segment.
    fn header(&mut self, position: u64) -> Result<BatchHeader, StorageError> {
        let size = self.segment.size;
        if position >= size {
            let reason = "behind the last batch";
            return Err(self.segment.corrupt(self.place, position, reason));
        }
        let left = size - position;
        let len = to_usize(left).min(HEADER_BYTES);
        let end = position + to_u64(len);
        let range = (position, end);
        if !self.sure.holds(&self.map, range, size, self.upto) {
            return Err(Cold::header(&self.map, position, size, self.upto).into());
        }
        let header = batch::parse_header(self.map.bytes(to_usize(position), len));
        sane(header, left, self.segment.base, self.segment.end)
            .map_err(|reason| self.segment.corrupt(self.place, position, &reason))
    }

    /// Asks the indexes, once they are in memory.
    fn indexes<T>(&self, kind: &str, ask: impl FnOnce(&Indexes) -> T) -> Result<T, StorageError> {
        self.segment.with_indexes(|indexes| {
            // Entries are stored with appends: as long as those are hot, their pages are too.
            let is_in_memory = self.hot_from.is_some()
                || match kind {
                    INDEX => indexes.offsets.is_in_memory(),
                    _ => indexes.times.is_in_memory(),
                };
            if is_in_memory {
                Ok(ask(indexes))
            } else {
                Err(Cold::index(self.place.file(self.segment.base, kind)).into())
            }
        })
    }

    /// The position of the last entry of the offset index that `test` holds for: it must hold for a first part of them.
    /// Each is compared with the batch that it leads to, and one that is wrong is passed over for the one before.
    fn entry_position(
        &mut self,
        test: impl Fn(u32, u32) -> bool,
    ) -> Result<Option<u64>, StorageError> {
        let count = self.indexes(INDEX, |indexes| indexes.offsets.count(test))?;
        for at in (0..count).rev() {
            let (last, position) = self.indexes(INDEX, |indexes| indexes.offsets.nth(at))?;
            let (last, position) = (self.segment.base.plus(i64::from(last)), u64::from(position));
            match self.header(position) {
                Ok(header) if header.last_offset() == last => return Ok(Some(position)),
                Ok(_) | Err(StorageError::Corrupt { .. }) => self.doubt(INDEX)?,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The offset in the last entry of the time index with a timestamp of at most `timestamp`, or the segment's first one.
    /// Entries are compared with their batches in the same way.
    fn floor_of_time(&mut self, timestamp: i64) -> Result<Offset, StorageError> {
        let base = self.segment.base;
        let count = self.indexes(TIME_INDEX, |indexes| indexes.times.count(timestamp))?;
        for at in (0..count).rev() {
            let (timestamp, last) = self.indexes(TIME_INDEX, |indexes| indexes.times.nth(at))?;
            let last = base.plus(i64::from(last));
            let found = self.locate(last)?;
            let header = found.map(|position| self.header(position)).transpose()?;
            let is_it = |header: &BatchHeader| {
                header.last_offset() == last && indexed_timestamp(header) == timestamp
            };
            if header.as_ref().is_some_and(is_it) {
                return Ok(last);
            }
            self.doubt(TIME_INDEX)?;
        }
        Ok(base)
    }

    fn doubt(&self, kind: &str) -> Result<(), StorageError> {
        self.segment.doubt_indexes(self.place, &self.options, kind)
    }

    /// The position of the batch that holds `offset`, or of the first one after it.
    fn locate(&mut self, offset: Offset) -> Result<Option<u64>, StorageError> {
        let segment = self.segment;
        if offset >= segment.end {
            return Ok(None);
        }
        if offset <= segment.base {
            return Ok((segment.size > 0).then_some(0));
        }
        let wanted = relative_within(segment.base, offset);
        let before = self.entry_position(|last, _| last <= wanted)?;
        let mut at = before.unwrap_or(0);
        while at < segment.size {
            let header = self.header(at)?;
            if header.last_offset() >= offset {
                self.check_begin(at, header.base_offset, offset)?;
                return Ok(Some(at));
            }
            at += to_u64(header.size_bytes());
        }
        Ok(None)
    }

    /// No offsets are missing in front of a batch, unless the log was compacted: the base offset of a batch is outside its
    /// checksum.
    fn check_begin(&self, at: u64, found: Offset, upto: Offset) -> Result<(), StorageError> {
        if found <= upto || self.options.gaps_below > self.segment.base {
            return Ok(());
        }
        let reason = format!("a batch begins at offset {found}, expected {upto}");
        Err(self.segment.corrupt(self.place, at, &reason))
    }

    fn slice(&self, at: u64, len: usize) -> Slice {
        let is_hot = self.hot_from.is_some_and(|hot_from| hot_from <= at);
        self.map.slice(to_usize(at), len, is_hot)
    }
}

impl Segment {
    /// Whole batches from the one that holds `from`, all of them beginning below `upto`, `max_bytes` at most; with
    /// `first_whole` the first one comes whatever its size. Returns them with the offset where to read on: at the end of
    /// the segment if there is no more in it, as compaction may have removed its last offsets (LR-79).
    pub(crate) fn read(
        &self,
        place: Place<'_>,
        options: &LogOptions,
        (from, upto): (Offset, Offset),
        max_bytes: usize,
        first_whole: bool,
    ) -> Result<(Option<Slice>, Offset), StorageError> {
        let mut lookup = Lookup::begin(self, place, options)?;
        let Some(start) = lookup.locate(from)? else {
            return Ok((None, self.end));
        };
        let limit = start.saturating_add(to_u64(max_bytes));
        lookup.upto = Some(limit);
        let (mut at, mut next) = (start, from);
        // What this run has appended is not looked at again; the headers of what a start believed are, each time.
        let is_believed = self.marks.is_empty();
        if !is_believed && self.end <= upto && self.size <= limit {
            (at, next) = (self.size, self.end);
        } else if !is_believed
            && upto > self.base
            && self.size - start > u64::from(options.index_interval_bytes)
        {
            // Headers are walked only behind the last index entry that lies inside.
            let below = u32::try_from(upto.0 - self.base.0).unwrap_or(u32::MAX);
            let inside = |last: u32, position: u32| last < below && u64::from(position) <= limit;
            let jump = lookup.entry_position(inside)?;
            if let Some(jump) = jump.filter(|jump| *jump > start) {
                at = jump;
                next = lookup.header(at)?.base_offset;
            }
        }
        while at < self.size && (at < limit || at == start) {
            let header = lookup.header(at)?;
            let stop = at + to_u64(header.size_bytes());
            let fits = stop <= limit || (at == start && first_whole);
            if header.base_offset >= upto || !fits {
                break;
            }
            lookup.check_begin(at, header.base_offset, next.max(self.base))?;
            (at, next) = (stop, header.last_offset().next());
        }
        if at >= self.size {
            next = self.end;
        }
        let len = to_usize(at - start);
        Ok(((len > 0).then(|| lookup.slice(start, len)), next))
    }

    /// The first batch that holds an offset of at least `from` and has a timestamp of at least `timestamp`.
    pub(crate) fn find_by_time(
        &self,
        place: Place<'_>,
        options: &LogOptions,
        timestamp: i64,
        from: Offset,
    ) -> Result<Option<(BatchHeader, Slice)>, StorageError> {
        if self.size == 0 || self.largest(place, options)?.0 < timestamp {
            return Ok(None);
        }
        let mut lookup = Lookup::begin(self, place, options)?;
        let floor = lookup.floor_of_time(timestamp)?;
        let Some(mut at) = lookup.locate(floor.max(from))? else {
            return Ok(None);
        };
        while at < self.size {
            let header = lookup.header(at)?;
            if indexed_timestamp(&header) >= timestamp {
                let slice = lookup.slice(at, header.size_bytes());
                return Ok(Some((header, slice)));
            }
            at += to_u64(header.size_bytes());
        }
        Ok(None)
    }

    /// Where the batch that holds `offset`, or the first one after it, ends: the position and the offset behind it.
    pub(crate) fn end_of_batch(
        &self,
        place: Place<'_>,
        options: &LogOptions,
        offset: Offset,
    ) -> Result<Option<(u64, Offset)>, StorageError> {
        let mut lookup = Lookup::begin(self, place, options)?;
        let Some(at) = lookup.locate(offset)? else {
            return Ok(None);
        };
        let header = lookup.header(at)?;
        let end = at + to_u64(header.size_bytes());
        Ok(Some((end, header.last_offset().next())))
    }

    /// The largest timestamp of the batches that hold offsets of at least `from`; -1 none.
    pub(crate) fn largest_from(
        &self,
        place: Place<'_>,
        options: &LogOptions,
        from: Offset,
    ) -> Result<i64, StorageError> {
        let mut lookup = Lookup::begin(self, place, options)?;
        let mut largest = -1;
        let mut at = lookup.locate(from)?.unwrap_or(self.size);
        while at < self.size {
            let header = lookup.header(at)?;
            largest = largest.max(indexed_timestamp(&header));
            at += to_u64(header.size_bytes());
        }
        Ok(largest)
    }

    /// The largest timestamp (-1: none) and the last offset of the batch that had it first.
    pub(crate) fn largest(
        &self,
        place: Place<'_>,
        options: &LogOptions,
    ) -> Result<(i64, Offset), StorageError> {
        if let Some(largest) = self.largest.get() {
            return Ok(largest);
        }
        let lookup = Lookup::begin(self, place, options)?;
        let last = lookup.indexes(TIME_INDEX, |indexes| indexes.times.last())?;
        Ok(self.note_largest(last))
    }

    /// The largest timestamp of the first batch; -1 none.
    pub(crate) fn first_timestamp(
        &self,
        place: Place<'_>,
        options: &LogOptions,
    ) -> Result<i64, StorageError> {
        match self.first_timestamp {
            Some(timestamp) => Ok(timestamp),
            None if self.size == 0 => Ok(-1),
            None => {
                let header = Lookup::begin(self, place, options)?.header(0)?;
                Ok(header.max_timestamp)
            }
        }
    }

    /// The map, kept or made for this once: the start must not leave one for every partition.
    pub(crate) fn mapped_for_the_start(
        &self,
        place: Place<'_>,
        options: &LogOptions,
    ) -> Result<Arc<Mapping>, StorageError> {
        match self.kept_map() {
            Some(map) => Ok(map),
            None => self.files(place, options).map(),
        }
    }

    /// Bytes of the batch at a position. Waits for the disk.
    pub(crate) fn batch_bytes(
        &self,
        place: Place<'_>,
        map: &Mapping,
        position: u64,
    ) -> Result<usize, StorageError> {
        let left = self.size.saturating_sub(position);
        let len = to_usize(left).min(HEADER_BYTES);
        let header = batch::parse_header(map.bytes(to_usize(position), len));
        sane(header, left, self.base, self.end)
            .map(|header| header.size_bytes())
            .map_err(|reason| self.corrupt(place, position, &reason))
    }

    fn corrupt(&self, place: Place<'_>, position: u64, reason: &str) -> StorageError {
        StorageError::Corrupt {
            path: place.file(self.base, crate::segment::LOG),
            reason: format!("{reason}, at position {position}"),
        }
    }
}
