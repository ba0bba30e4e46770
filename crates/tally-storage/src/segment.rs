//! One segment: its bytes, its two indexes and its rows of aborted transactions.
//!
//! Invariants: bytes below `size` are whole batches and never change; nobody reads beyond it. Only the last segment of a
//! partition has a [`Writer`]. Maps and indexes are opened at their first use: a segment that nobody reads costs no map.

use crate::TRANSACTION_ROW_BYTES;
use crate::cold::{Cold, Marks};
use crate::data_dir::DataDir;
use crate::disk::{self, SegmentFile};
use crate::error::{StorageError, failed};
use crate::faults;
use crate::index::{OFFSET_ENTRY, OffsetIndex, Pace, TIME_ENTRY, relative};
use crate::journal::Entry;
use crate::mmap::Mapping;
use crate::opening::{Files, Indexes, Opened, OpeningSlot};
use crate::partition::LogOptions;
use crate::recovery::Walk;
use crate::tail::{Tail, Written};
use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock, Weak};
use tally_protocol::batch::HEADER_BYTES;
use tally_protocol::ids::{to_u64, to_usize};
use tally_protocol::{Offset, PartitionId};

/// Disk space is taken in steps that grow from the first to the second number of bytes.
const FIRST_STEP: u64 = 1024 * 1024;
const LAST_STEP: u64 = 64 * 1024 * 1024;

/// The ends of the names of a segment's files.
pub(crate) const LOG: &str = "log";
pub(crate) const INDEX: &str = "index";
pub(crate) const TIME_INDEX: &str = "timeindex";
pub(crate) const TXN_INDEX: &str = "txnindex";
pub(crate) const SNAPSHOT: &str = "snapshot";

/// Where a partition's files are; the path is only made when a file is touched.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) dir: &'a DataDir,
    pub(crate) id: PartitionId,
    /// Counts the maps of the journal's segments.
    pub(crate) maps: &'a Arc<AtomicUsize>,
}

impl<'a> Place<'a> {
    /// For those who map nothing.
    pub(crate) fn unmapped(dir: &'a DataDir, id: PartitionId) -> Place<'a> {
        static NONE: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);
        Place {
            dir,
            id,
            maps: &NONE,
        }
    }
}

impl Place<'_> {
    /// The partition's directory.
    pub(crate) fn directory(self) -> PathBuf {
        self.dir.partition_path(self.id)
    }

    /// A file that is named after an offset.
    pub(crate) fn file(self, at: Offset, kind: &str) -> PathBuf {
        let mut path = self.directory();
        path.push(format!("{at:020}.{kind}", at = at.0));
        path
    }
}

/// What the last segment of a partition has besides.
pub(crate) struct Writer {
    tail: Arc<Tail>,
    /// Bytes from the start of the file that have disk space.
    reserved: u64,
    pace: Pace,
    /// When the segment was made or opened: its age where batches have no timestamps.
    since_ms: i64,
}

impl Writer {
    /// The end of the segment, for those who sync it.
    pub(crate) fn tail(&self) -> &Tail {
        &self.tail
    }
}

/// One segment of a partition.
pub(crate) struct Segment {
    /// The first offset that may be in it: its name.
    pub(crate) base: Offset,
    /// The offset after the last one that may be in it.
    pub(crate) end: Offset,
    /// Bytes of whole batches.
    pub(crate) size: u64,
    /// The largest timestamp of the first batch.
    pub(crate) first_timestamp: Option<i64>,
    /// Written to in this run, and not synced since.
    pub(crate) dirty: bool,
    /// For those who sync it; there only while it is written to or may have to be synced.
    pub(crate) tail: Weak<Tail>,
    /// The largest timestamp and the last offset of the batch that had it first, once known.
    pub(crate) largest: Cell<Option<(i64, Offset)>>,
    map: RefCell<Option<Arc<Mapping>>>,
    indexes: RefCell<Option<Indexes>>,
    opening: RefCell<OpeningSlot>,
    /// An entry of an index was found to be wrong.
    doubted: Cell<bool>,
    /// What of it was appended lately.
    pub(crate) marks: Marks,
    /// Looked at since this was last asked.
    used: Cell<bool>,
    rows: Rows,
}

/// The rows of aborted transactions. Kept in memory too: a fetch reads them, and they must not be lost when the disk is
/// full at a bad moment.
#[derive(Default)]
struct Rows {
    bytes: Vec<u8>,
    saved: usize,
    synced: bool,
}

impl Segment {
    /// A segment whose files exist.
    pub(crate) fn found(base: Offset, end: Offset, size: u64) -> Segment {
        Segment {
            base,
            end,
            size,
            first_timestamp: None,
            dirty: false,
            tail: Weak::new(),
            largest: Cell::new(None),
            map: RefCell::new(None),
            indexes: RefCell::new(None),
            opening: RefCell::default(),
            doubted: Cell::new(false),
            marks: Marks::default(),
            used: Cell::new(false),
            rows: Rows::default(),
        }
    }

    /// Makes the files of a new segment with room for a first append of `bytes`, or nothing at all.
    pub(crate) fn create(
        place: Place<'_>,
        base: Offset,
        bytes: usize,
        options: &LogOptions,
    ) -> io::Result<(Segment, Writer)> {
        let path = place.file(base, LOG);
        let file = match SegmentFile::create(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk::make_directories(&place.directory())?;
                SegmentFile::create(&path)?
            }
            other => other?,
        };
        let mut segment = Segment::found(base, base, 0);
        segment.largest.set(Some((-1, base)));
        *segment.indexes.get_mut() = Some(Indexes::default());
        let start = Written { size: 0, end: base };
        let tail = Tail::new(place, base, file, start, start);
        segment.tail = Arc::downgrade(&tail);
        let mut writer = Writer {
            tail,
            reserved: 0,
            pace: Pace::new(base),
            since_ms: disk::wall_ms(),
        };
        match segment.make_room(&mut writer, place, bytes, options) {
            Ok(()) => Ok((segment, writer)),
            Err(error) => {
                segment.remove(place);
                Err(error)
            }
        }
    }

    /// Opens the last segment of a partition for appends.
    pub(crate) fn writer(&mut self, place: Place<'_>, options: &LogOptions) -> io::Result<Writer> {
        self.load_indexes(place, options)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let (entry, last) =
            self.with_indexes(|indexes| (indexes.offsets.last(), indexes.times.last()));
        let largest = match self.largest.get() {
            Some(largest) => largest,
            None => self.note_largest(last),
        };
        let since = entry.map_or(0, |(_, position)| u64::from(position));
        Ok(Writer {
            tail: self.tail(place)?,
            reserved: self.size,
            pace: Pace::resume(self.size - since, largest),
            since_ms: disk::wall_ms(),
        })
    }

    /// The end of the segment, for those who sync it.
    pub(crate) fn tail(&mut self, place: Place<'_>) -> io::Result<Arc<Tail>> {
        if let Some(tail) = self.tail.upgrade() {
            return Ok(tail);
        }
        let file = SegmentFile::open(&place.file(self.base, LOG))?;
        let (size, end) = (self.size, self.end);
        let known = place.dir.points().get(place.id).reach_in(self);
        let tail = Tail::new(place, self.base, file, Written { size, end }, known);
        self.tail = Arc::downgrade(&tail);
        Ok(tail)
    }

    /// Takes disk space for an append of `bytes`, for its index entries too. Nothing has changed if it fails.
    pub(crate) fn make_room(
        &mut self,
        writer: &mut Writer,
        place: Place<'_>,
        bytes: usize,
        options: &LogOptions,
    ) -> io::Result<()> {
        let needed = self.size + to_u64(bytes);
        if needed > writer.reserved {
            let step = writer.reserved.clamp(FIRST_STEP, LAST_STEP);
            let generous = (writer.reserved + step).min(u64::from(options.segment_bytes));
            let generous = generous.max(needed);
            writer.reserved = match writer.tail.file().reserve(writer.reserved, generous) {
                // The last space of a disk is there to be used.
                Err(error) if generous > needed && is_full(&error) => {
                    writer.tail.file().reserve(writer.reserved, needed)?;
                    needed
                }
                other => other.map(|()| generous)?,
            };
        }
        let more = index_entries(bytes, options);
        let limit = to_usize(u64::from(options.index_max_bytes));
        let indexes = self.indexes.get_mut().get_or_insert_with(Indexes::default);
        let path = |kind| place.file(self.base, kind);
        if indexes.offsets.room() < more {
            indexes.offsets.reserve(&path(INDEX), more, limit)?;
        }
        if indexes.times.room() < more {
            indexes.times.reserve(&path(TIME_INDEX), more, limit)?;
        }
        Ok(())
    }

    /// Whether an append of `bytes` belongs into a new segment, as far as sizes say (LR-50).
    pub(crate) fn is_full_for(&mut self, bytes: usize, options: &LogOptions) -> bool {
        if self.size == 0 {
            return false;
        }
        let limit = to_usize(u64::from(options.index_max_bytes));
        let more = index_entries(bytes, options);
        let index_full = self.indexes.get_mut().as_ref().is_some_and(|indexes| {
            (indexes.offsets.len() + more) * OFFSET_ENTRY > limit
                || (indexes.times.len() + more) * TIME_ENTRY > limit
        });
        // Offsets in a segment are counted in 31 bits; half of them are left to the batch that comes.
        let wide = self.end.0 - self.base.0 > i64::from(i32::MAX / 2);
        self.size + to_u64(bytes) > u64::from(options.segment_bytes) || index_full || wide
    }

    /// Whether an append with this timestamp belongs into a new segment (LR-50).
    pub(crate) fn is_old_for(
        &self,
        place: Place<'_>,
        writer: &Writer,
        max_timestamp: i64,
        options: &LogOptions,
    ) -> bool {
        if self.size == 0 {
            return false;
        }
        let age_ms = match self.first_timestamp {
            Some(first) if first >= 0 && max_timestamp >= 0 => max_timestamp.saturating_sub(first),
            Some(first) if first >= 0 => return false,
            _ => disk::wall_ms().saturating_sub(writer.since_ms),
        };
        age_ms
            > options
                .segment_ms
                .saturating_sub(self.jitter(place.id, options))
    }

    /// A number below the jitter that is always the same for the same segment, and another one for the segments of other
    /// partitions: what was begun together is not closed together.
    fn jitter(&self, id: PartitionId, options: &LogOptions) -> i64 {
        let below = options.segment_jitter_ms.min(options.segment_ms);
        if below <= 0 {
            return 0;
        }
        let mut bytes = [0; 28];
        bytes[..16].copy_from_slice(&id.topic.0);
        bytes[16..20].copy_from_slice(&id.index.to_be_bytes());
        bytes[20..].copy_from_slice(&self.base.0.to_be_bytes());
        let (low, high) = (crc32c::crc32c(&bytes), crc32c::crc32c(&bytes[4..]));
        let mixed = i64::from(low) << 31 ^ i64::from(high);
        mixed.rem_euclid(below)
    }

    /// Appends whole batches, for which [`Segment::make_room`] took the space.
    pub(crate) fn append(
        &mut self,
        writer: &mut Writer,
        place: Place<'_>,
        entry: &Entry,
        interval: u32,
    ) -> io::Result<()> {
        let (bytes, last, max_timestamp) = (&entry.bytes[..], entry.last, entry.max_timestamp);
        if faults::is_due("append.torn") {
            writer
                .tail
                .file()
                .write_at(&bytes[..bytes.len() / 2], self.size)?;
            faults::die();
        }
        if faults::fails("append") {
            return Err(io::Error::other("a device error, made for a test"));
        }
        writer.tail.file().write_at(bytes, self.size)?;
        faults::point("append.written");
        self.dirty = true;
        self.marks
            .appended(place.dir.heat(), self.size, bytes.len());
        if writer
            .pace
            .batch(bytes.len(), max_timestamp, last, interval)
        {
            let position = u32::try_from(self.size).expect("a segment is below 2^32 bytes");
            let indexes = self.indexes.get_mut().as_mut();
            let indexes = indexes.expect("a segment with a writer has its indexes");
            let entry = OffsetIndex::make(relative(self.base, last), position);
            indexes.offsets.push(entry);
            if let Some(entry) = writer.pace.time_entry(self.base) {
                indexes.times.push(entry);
            }
        }
        self.largest.set(Some(writer.pace.largest));
        self.first_timestamp.get_or_insert(max_timestamp);
        self.size += to_u64(bytes.len());
        self.end = last.next();
        // Published only now that the last byte is in place.
        let size = to_usize(self.size);
        let map = self.map.get_mut();
        match map {
            Some(kept) if kept.capacity() >= size => kept.publish(size),
            _ => *map = None,
        }
        let (size, end) = (self.size, self.end);
        if writer.tail.advance(Written { size, end }) {
            place.dir.unsynced().list(&writer.tail);
        }
        Ok(())
    }

    /// Completes and trims the files: no more appends. Failing to trim wastes space and loses nothing.
    pub(crate) fn seal(&mut self, writer: Writer, place: Place<'_>) -> io::Result<()> {
        let Writer { tail, mut pace, .. } = writer;
        tail.seal();
        self.list_closed(place);
        let indexes = self.indexes.get_mut().get_or_insert_with(Indexes::default);
        if let Some(entry) = pace.time_entry(self.base) {
            let path = place.file(self.base, TIME_INDEX);
            indexes.times.reserve(&path, 1, TIME_ENTRY)?;
            indexes.times.push(entry);
        }
        tail.file().truncate(self.size)?;
        indexes.offsets.trim(&place.file(self.base, INDEX))?;
        indexes.times.trim(&place.file(self.base, TIME_INDEX))
    }

    /// Brings the segment's files to the disk.
    pub(crate) fn sync(&mut self, place: Place<'_>) -> io::Result<()> {
        let log = SegmentFile::open(&place.file(self.base, LOG))?;
        place.dir.synced(log.sync())?;
        for kind in [INDEX, TIME_INDEX] {
            match SegmentFile::open(&place.file(self.base, kind)) {
                Ok(file) => file.sync()?,
                // An index that nobody has needed yet is made when somebody does.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.dirty = false;
        self.sync_rows(place)
    }

    /// Lists the segment to be synced where no appends come any more, unless all of it is below the recovery point: an
    /// earlier run may have written to it. Perhaps nobody syncs it for long, so it keeps no file open; with a journal
    /// checkpoints come soon, and it is in the list since its append or since it was opened.
    pub(crate) fn list_closed(&self, place: Place<'_>) {
        let known = place.dir.points().get(place.id).reach_in(self);
        if !place.dir.has_journal() && known.size < self.size {
            let (size, end) = (self.size, self.end);
            let closed = Tail::closed(place.id, self.base, Written { size, end });
            place.dir.unsynced().list(&closed);
        }
    }

    /// Removes the segment's files; slices of it stay readable.
    pub(crate) fn remove(&self, place: Place<'_>) {
        // Whoever opens it could make its indexes anew.
        self.opening.borrow_mut().end();
        if let Some(tail) = self.tail.upgrade() {
            tail.remove();
        }
        // A listed segment keeps its file open, and with it the disk space of a removed one.
        place.dir.unsynced().forget_segment(place.id, self.base);
        // The log last: what has a log is a segment, what has none is swept up.
        for kind in [INDEX, TIME_INDEX, TXN_INDEX, LOG] {
            let path = place.file(self.base, kind);
            if let Err(error) = disk::remove_if_present(&path) {
                tracing::warn!(partition = %place.id, path = %path.display(), %error, "cannot remove a file");
            }
            faults::point_of_file("removed", &path);
        }
    }

    /// Takes over what a walk found: the end, and indexes made anew.
    pub(crate) fn adopt(
        &mut self,
        walk: &Walk,
        place: Place<'_>,
        options: &LogOptions,
    ) -> Result<(), StorageError> {
        self.size = walk.size;
        self.end = walk.end;
        self.first_timestamp = walk.first_timestamp;
        self.largest.set(Some(walk.pace.largest));
        self.opening.get_mut().end();
        *self.indexes.get_mut() = Some(self.files(place, options).write_indexes(walk)?);
        Ok(())
    }

    /// Where the files are, for what is done away from the owner.
    pub(crate) fn files(&self, place: Place<'_>, options: &LogOptions) -> Files {
        let path = |kind| place.file(self.base, kind);
        Files {
            id: place.id,
            log: path(LOG),
            offsets: path(INDEX),
            times: path(TIME_INDEX),
            base: self.base,
            end: self.end,
            size: self.size,
            options: *options,
            maps: Arc::clone(place.maps),
            doubted: self.doubted.get(),
        }
    }

    /// Takes the segment as a clean shutdown left it, and finds where it ends; returns whether all of it fits together.
    pub(crate) fn open_clean(
        &mut self,
        place: Place<'_>,
        options: &LogOptions,
    ) -> Result<bool, StorageError> {
        self.end = self.base.plus(i64::from(i32::MAX));
        let Some((first_timestamp, end)) = self.files(place, options).clean_end()? else {
            return Ok(false);
        };
        self.first_timestamp = first_timestamp;
        self.end = end;
        Ok(true)
    }

    /// The map, if it and the indexes are there; else what has to be loaded first. A segment that is written to has its
    /// indexes, and its log is in memory: that is mapped at once.
    pub(crate) fn opened(
        &self,
        place: Place<'_>,
        options: &LogOptions,
    ) -> Result<Arc<Mapping>, StorageError> {
        self.used.set(true);
        let has_indexes = self.indexes.borrow().is_some();
        if has_indexes {
            if let Some(map) = &*self.map.borrow() {
                return Ok(Arc::clone(map));
            }
            if !self.marks.is_empty() {
                let map = self.files(place, options).map()?;
                *self.map.borrow_mut() = Some(Arc::clone(&map));
                return Ok(map);
            }
        }
        let mut opening = self.opening.borrow_mut();
        if let Some(map) = opening.take_done().and_then(|opened| self.take(opened)) {
            return Ok(map);
        }
        let wanted = opening.want(!has_indexes, || self.files(place, options));
        Err(Cold::segment(wanted).into())
    }

    /// The map, if there is one.
    pub(crate) fn kept_map(&self) -> Option<Arc<Mapping>> {
        self.map.borrow().clone()
    }

    /// Ends whoever opens it elsewhere: the files go, or others come into their place.
    pub(crate) fn end_opening(&mut self) {
        self.opening.get_mut().end();
    }

    /// Takes over what an opening made; the map, if it is large enough for what has been appended since.
    fn take(&self, opened: Opened) -> Option<Arc<Mapping>> {
        let Opened {
            map,
            indexes,
            mended,
        } = opened;
        if mended {
            self.doubted.set(false);
        }
        if let Some(indexes) = indexes {
            self.indexes.borrow_mut().get_or_insert(indexes);
        }
        let size = to_usize(self.size);
        if map.capacity() < size {
            return None;
        }
        map.publish(size);
        *self.map.borrow_mut() = Some(Arc::clone(&map));
        Some(map)
    }

    /// Lets go of the map if it was not looked at since this was asked last; of the indexes too if nothing is written any
    /// more. Slices of it stay readable. Returns whether a map went.
    pub(crate) fn let_go(&self, is_written: bool) -> bool {
        let was_used = self.used.replace(false);
        if self.map.borrow().is_none() || was_used {
            return false;
        }
        if !is_written {
            self.indexes.replace(None);
        }
        self.map.replace(None);
        true
    }

    pub(crate) fn with_indexes<T>(&self, use_them: impl FnOnce(&Indexes) -> T) -> T {
        let indexes = self.indexes.borrow();
        use_them(indexes.as_ref().expect("an opened segment has its indexes"))
    }

    /// Keeps what the last entry of the time index says.
    pub(crate) fn note_largest(&self, last: Option<(i64, u32)>) -> (i64, Offset) {
        let largest = last.map_or((-1, self.base), |(timestamp, relative)| {
            (timestamp, self.base.plus(i64::from(relative)))
        });
        self.largest.set(Some(largest));
        largest
    }

    /// The position of the first batch that may hold `offset`. Waits for the disk: for the start.
    pub(crate) fn position_before(
        &self,
        place: Place<'_>,
        offset: Offset,
        options: &LogOptions,
    ) -> Result<u64, StorageError> {
        if offset <= self.base {
            return Ok(0);
        }
        let wanted = relative_within(self.base, offset);
        self.load_indexes(place, options)?;
        let files = self.files(place, options);
        self.with_indexes(|indexes| files.position_before(&indexes.offsets, wanted))
    }

    /// An index has an entry that is that of no batch. The indexes of a segment that is not written to any more are made
    /// anew, which is tried once: elsewhere, as the error says. Otherwise lookups go on without that entry.
    pub(crate) fn doubt_indexes(
        &self,
        place: Place<'_>,
        options: &LogOptions,
        kind: &str,
    ) -> Result<(), StorageError> {
        if self.doubted.replace(true) {
            return Ok(());
        }
        let path = place.file(self.base, kind);
        tracing::warn!(path = %path.display(), "an entry of an index leads to another batch than it says");
        let tail = self.tail.upgrade();
        if tail.is_some_and(|tail| !tail.is_sealed()) {
            return Ok(());
        }
        let mut opening = self.opening.borrow_mut();
        opening.end();
        self.indexes.replace(None);
        let wanted = opening.want(true, || self.files(place, options));
        Err(Cold::segment(wanted).into())
    }

    /// Makes the indexes usable, ending whoever does so elsewhere. Waits for the disk: for the start and the first
    /// append after it.
    fn load_indexes(&self, place: Place<'_>, options: &LogOptions) -> Result<(), StorageError> {
        if let Some(opened) = self.opening.borrow_mut().end() {
            self.take(opened);
        }
        if self.indexes.borrow().is_none() {
            let indexes = self.files(place, options).indexes()?;
            self.indexes.replace(Some(indexes));
        }
        Ok(())
    }

    /// The rows of aborted transactions, in the order of their markers.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u8; TRANSACTION_ROW_BYTES]> {
        self.rows.bytes.as_chunks().0.iter()
    }

    /// Reads the rows from their file; what is behind the last whole row is no row.
    pub(crate) fn load_rows(&mut self, place: Place<'_>) -> Result<(), StorageError> {
        let path = place.file(self.base, TXN_INDEX);
        let mut bytes = disk::read(&path)
            .map_err(failed("read", &path))?
            .unwrap_or_default();
        bytes.truncate(bytes.len() - bytes.len() % TRANSACTION_ROW_BYTES);
        self.rows = Rows {
            saved: bytes.len(),
            bytes,
            synced: false,
        };
        Ok(())
    }

    /// Adds a row, in memory at once. Whatever could not be written is written with a later row or before a snapshot.
    pub(crate) fn append_row(&mut self, place: Place<'_>, row: &[u8; TRANSACTION_ROW_BYTES]) {
        self.rows.bytes.extend_from_slice(row);
        self.rows.synced = false;
        if let Err(error) = self.save_rows(place) {
            tracing::warn!(partition = %place.id, segment = %self.base, %error, "cannot write the row of an aborted transaction yet");
        }
    }

    /// Drops the rows from the first one that `drop` holds for.
    pub(crate) fn truncate_rows(
        &mut self,
        place: Place<'_>,
        drop: impl Fn(&[u8; TRANSACTION_ROW_BYTES]) -> bool,
    ) -> io::Result<()> {
        let kept = self.rows().take_while(|row| !drop(row)).count() * TRANSACTION_ROW_BYTES;
        if kept == self.rows.bytes.len() {
            return Ok(());
        }
        self.rows.bytes.truncate(kept);
        self.rows.synced = false;
        if self.rows.saved > kept {
            SegmentFile::open_or_create(&place.file(self.base, TXN_INDEX))?
                .truncate(to_u64(kept))?;
            self.rows.saved = kept;
        }
        Ok(())
    }

    /// Writes the rows that are not in their file yet.
    pub(crate) fn save_rows(&mut self, place: Place<'_>) -> io::Result<()> {
        let Rows { bytes, saved, .. } = &mut self.rows;
        if *saved < bytes.len() {
            let file = SegmentFile::open_or_create(&place.file(self.base, TXN_INDEX))?;
            file.write_at(&bytes[*saved..], to_u64(*saved))?;
            *saved = bytes.len();
        }
        Ok(())
    }

    /// Brings the rows to the disk: a snapshot of the producers may then be newer than they are.
    pub(crate) fn sync_rows(&mut self, place: Place<'_>) -> io::Result<()> {
        self.save_rows(place)?;
        if !self.rows.bytes.is_empty() && !self.rows.synced {
            SegmentFile::open(&place.file(self.base, TXN_INDEX))?.sync()?;
            disk::sync_directory(&place.directory())?;
            self.rows.synced = true;
        }
        Ok(())
    }
}

/// How many entries an index can get by an append of `bytes`, and the one at the end of the segment.
fn index_entries(bytes: usize, options: &LogOptions) -> usize {
    let interval = to_usize(u64::from(options.index_interval_bytes)).max(HEADER_BYTES);
    bytes / interval + 2
}

/// Whether an error says that the disk or the quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// `offset` counted from the base of a segment that it may lie beyond.
pub(crate) fn relative_within(base: Offset, offset: Offset) -> u32 {
    u32::try_from(offset.0.saturating_sub(base.0)).unwrap_or(u32::MAX)
}
