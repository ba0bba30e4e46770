//! One partition: its segments in order, and the small files beside them.
//!
//! Invariants: segments follow each other without a gap in offsets; only the last one is written to; `log_start` only
//! grows and `log_end` never falls while the partition is open. An empty partition has no directory, file or map: they
//! come with the first append.

mod hand_over;
mod points;
mod row_sums;
mod snapshots;

use self::hand_over::Handed;
pub(crate) use self::hand_over::Range;
use self::row_sums::RowSum;
use crate::TRANSACTION_ROW_BYTES;
use crate::compaction::{self, Checkpoint};
use crate::data_dir::Trust;
use crate::disk::{self, SegmentFile, Sync};
use crate::epochs::Epochs;
use crate::error::{StorageError, failed};
use crate::faults;
use crate::index::OffsetIndex;
use crate::journal::Entry;
use crate::mmap::Slice;
use crate::recovery::{self, Cut, CutReason};
use crate::segment::{
    INDEX, LOG, Place, SNAPSHOT, Segment, TIME_INDEX, TXN_INDEX, Writer, is_full,
};
use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use tally_protocol::ids::{to_u64, to_usize};
use tally_protocol::{BatchView, LeaderEpoch, Offset, batch};

pub(crate) const EPOCHS: &str = "leader-epoch-checkpoint";
pub(crate) const LOG_START: &str = "log-start";
/// Segments that one read looks into: far fewer than stay mapped, so that those it needs can all be in memory at once.
const SEGMENTS_A_READ_MAX: usize = 256;

/// How a partition's files are cut into segments. The topic's settings, under their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes after which a segment is closed (segment.bytes).
    pub segment_bytes: u32,
    /// Milliseconds between the first and the last timestamp after which a segment is closed (segment.ms).
    pub segment_ms: i64,
    /// Up to so many milliseconds earlier (segment.jitter.ms).
    pub segment_jitter_ms: i64,
    /// Bytes of batches between two entries of an index (index.interval.bytes).
    pub index_interval_bytes: u32,
    /// Bytes of an index after which a segment is closed (segment.index.bytes).
    pub index_max_bytes: u32,
    /// Segments that begin below it may lack offsets; a log that was compacted by us says so itself.
    pub gaps_below: Offset,
    /// After so many records that nobody has asked to be synced the log is (flush.messages). 1 is what durability `always` does
    /// for all partitions: every append waits for its sync.
    pub flush_messages: i64,
    /// So long after an append that nobody has asked to be synced the log is (flush.ms). Nothing here looks at the time: the
    /// owner of the partition does.
    pub flush_ms: u64,
    /// After a power cut under durability `commit` nothing is taken that was not synced: the topics of the coordinators,
    /// whose records decide over others (R-11 (a), R-18).
    pub synced_only: bool,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            index_max_bytes: 10 * 1024 * 1024,
            gaps_below: Offset::ZERO,
            flush_messages: i64::MAX,
            flush_ms: u64::MAX,
            synced_only: false,
        }
    }
}

impl LogOptions {
    /// Whether appends wait for their sync whatever the durability is.
    #[must_use]
    pub fn syncs_every_append(&self) -> bool {
        self.flush_messages <= 1
    }
}

/// What opening a partition found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The first offset that can be read.
    pub log_start: Offset,
    /// The offset of the next record.
    pub log_end: Offset,
    /// What had to go at the end of the log.
    pub cut: Option<Cut>,
}

/// Whole batches, in order.
#[derive(Clone, Debug)]
pub struct ReadOutcome {
    /// The batches, one slice for each segment they are in.
    pub slices: Vec<Slice>,
    /// Where to read on: after the last batch returned, or where the read began.
    pub next: Offset,
}

/// One segment, for retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The first offset that may be in it.
    pub base: Offset,
    /// The offset after the last one.
    pub end: Offset,
    /// Bytes of batches.
    pub bytes: u64,
    /// The largest timestamp; -1 none.
    pub max_timestamp: i64,
}

/// The log of one partition.
pub(crate) struct PartitionLog {
    pub(crate) options: LogOptions,
    pub(crate) log_start: Offset,
    pub(crate) log_end: Offset,
    pub(crate) segments: Vec<Segment>,
    /// How far it is compacted.
    pub(crate) checkpoint: Checkpoint,
    /// Which opening of the partition this is.
    pub(crate) life: u64,
    writer: Option<Box<Writer>>,
    epochs: Epochs,
    /// The file of the epochs lacks one.
    epochs_unsaved: bool,
    /// The names of the directory and of those above it are on the disk.
    names_above_synced: bool,
    /// Oldest first.
    snapshots: Vec<Offset>,
    /// Those of them that a power cut leaves, as it leaves the log up to them; with durability `commit` and `always`.
    anchors: BTreeSet<Offset>,
    /// Those of them that are to become anchors.
    promised: BTreeSet<Offset>,
    /// Those of them of which a sync has failed: a later one of the same file says nothing.
    unsynced_for_good: BTreeSet<Offset>,
    row_sums: Vec<RowSum>,
    /// The last segment began here, which nobody has been told.
    rolled_at: Option<Offset>,
    /// A segment that could not be begun: its files may still be there.
    doomed: Option<Offset>,
    /// What was handed over to be synced, with durability `commit` and `always`.
    handed: Handed,
}

/// The files of a partition's directory.
#[derive(Default)]
struct Listing {
    logs: BTreeSet<Offset>,
    with_rows: BTreeSet<Offset>,
    snapshots: BTreeSet<Offset>,
    /// Unfinished files, and files of segments that are gone.
    litter: Vec<String>,
}

impl Listing {
    fn sort(names: Vec<String>) -> Listing {
        let mut listing = Listing::default();
        let mut beside = Vec::new();
        for name in names {
            if name.ends_with(disk::UNFINISHED) {
                listing.litter.push(name);
                continue;
            }
            let Some((offset, kind)) = parse_name(&name) else {
                continue;
            };
            match kind {
                LOG => _ = listing.logs.insert(offset),
                SNAPSHOT => _ = listing.snapshots.insert(offset),
                INDEX | TIME_INDEX => beside.push((offset, name)),
                TXN_INDEX => {
                    listing.with_rows.insert(offset);
                    beside.push((offset, name));
                }
                _ => {}
            }
        }
        beside.retain(|(offset, _)| !listing.logs.contains(offset));
        listing
            .litter
            .extend(beside.into_iter().map(|(_, name)| name));
        listing
    }
}

/// Whether a file that has no log beside it is one of a segment, and not one that was never finished.
fn is_left_alone(litter: &str) -> bool {
    !litter.ends_with(disk::UNFINISHED) && parse_name(litter).is_some()
}

/// The offset and the kind of file in a name of 20 digits and a word.
pub(crate) fn parse_name(name: &str) -> Option<(Offset, &str)> {
    let (stem, kind) = name.split_once('.')?;
    let digits = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
    let offset = stem.parse().ok().filter(|_| digits)?;
    Some((Offset(offset), kind))
}

impl PartitionLog {
    fn empty(options: LogOptions) -> PartitionLog {
        PartitionLog {
            options,
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            segments: Vec::new(),
            checkpoint: Checkpoint::NONE,
            life: compaction::next_life(),
            writer: None,
            epochs: Epochs::default(),
            epochs_unsaved: false,
            names_above_synced: false,
            snapshots: Vec::new(),
            anchors: BTreeSet::new(),
            promised: BTreeSet::new(),
            unsynced_for_good: BTreeSet::new(),
            row_sums: Vec::new(),
            rolled_at: None,
            doomed: None,
            handed: Handed::default(),
        }
    }

    /// Opens the partition and repairs its end as far as its files can't be trusted.
    pub(crate) fn open(
        place: Place<'_>,
        options: LogOptions,
        trust: Trust,
    ) -> Result<(PartitionLog, Option<Cut>), StorageError> {
        let mut log = PartitionLog::empty(options);
        let directory = place.directory();
        let Some(names) = disk::names(&directory).map_err(failed("list", &directory))? else {
            log.meet_point(place, trust)?;
            return Ok((log, None));
        };
        let (names, checkpoint) = compaction::settle(place, names)?;
        log.checkpoint = checkpoint;
        log.set_options(options);
        // What is not there is not asked for: a start opens thousands of partitions.
        let is_there = |wanted| names.iter().any(|name| name == wanted);
        let (has_log_start, has_row_sums) = (is_there(LOG_START), is_there(row_sums::ROW_SUMS));
        let listing = Listing::sort(names);
        for name in &listing.litter {
            let path = directory.join(name);
            // The log of a segment goes last, when all its other files have gone; only a power cut may keep others alone.
            if is_left_alone(name) && trust != Trust::PowerCut {
                tracing::error!(path = %path.display(), "the log that this file belongs to is missing: what was in it is lost");
            }
            disk::remove_if_present(&path).map_err(failed("remove", &path))?;
        }
        if has_log_start {
            log.log_start = read_log_start(place)?;
        }
        log.find_segments(place, &listing)?;
        // Before anything is walked: one that could not be removed then, or that came back with the power, would end the log
        // where the segments behind it are gone, and all that may be read lies behind that.
        log.drop_segments_below(place, log.log_start);
        let mut seen = Vec::new();
        let mut cut = log.recover(place, trust, &mut seen)?;
        log.log_end = log.segments.last().map_or(log.log_start, |last| last.end);
        if log.log_end < log.log_start {
            cut = Some(log.begin_anew(place));
        }
        if let Some(first) = log.segments.first() {
            log.log_start = log.log_start.max(first.base);
        }
        log.drop_segments_below(place, log.log_start);
        log.limit_checkpoint(&directory, options)?;
        log.recover_epochs(place, &seen)?;
        if has_row_sums {
            log.load_row_sums(place)?;
        }
        log.snapshots = listing.snapshots.into_iter().collect();
        let mut removed = cut.is_some();
        while log.snapshots.last().is_some_and(|at| *at > log.log_end) {
            let beyond = log.snapshots[log.snapshots.len() - 1];
            if trust == Trust::Clean && cut.is_none() {
                tracing::error!(partition = %place.id, log_end = %log.log_end, snapshot = %beyond, "the log has lost its end: a snapshot of its producers is from behind it");
            }
            log.drop_snapshot(place, beyond);
            removed = true;
        }
        if removed {
            // with the power, a segment or a snapshot of the log that was cut could come back into the one that grows now.
            disk::sync_directory(&directory).map_err(failed("sync", &directory))?;
        }
        log.meet_point(place, trust)?;
        log.find_anchors(place, trust);
        Ok((log, cut))
    }

    /// Takes new settings, from the next append on. A log that was compacted once lacks offsets whatever its topic says now.
    pub(crate) fn set_options(&mut self, options: LogOptions) {
        self.options = options;
        self.options.gaps_below = options.gaps_below.max(self.checkpoint.gaps_below);
    }

    /// What comes behind the end of a log that was cut is not compacted, whatever was there before.
    fn limit_checkpoint(
        &mut self,
        directory: &Path,
        options: LogOptions,
    ) -> Result<(), StorageError> {
        let limited = self.checkpoint.limited(self.log_end);
        if limited != self.checkpoint {
            limited
                .write(directory)
                .map_err(failed("write the checkpoint of", directory))?;
            self.checkpoint = limited;
            self.set_options(options);
        }
        Ok(())
    }

    fn find_segments(&mut self, place: Place<'_>, listing: &Listing) -> Result<(), StorageError> {
        let bases: Vec<Offset> = listing.logs.iter().copied().collect();
        for (at, base) in bases.iter().enumerate() {
            let path = place.file(*base, LOG);
            let size = disk::size(&path).map_err(failed("look at", &path))?;
            let end = bases.get(at + 1).copied().unwrap_or(*base);
            let mut segment = Segment::found(*base, end, size);
            if listing.with_rows.contains(base) {
                segment.load_rows(place)?;
            }
            self.segments.push(segment);
        }
        Ok(())
    }

    fn recover(
        &mut self,
        place: Place<'_>,
        trust: Trust,
        seen: &mut Vec<(LeaderEpoch, Offset)>,
    ) -> Result<Option<Cut>, StorageError> {
        let Some(last) = self.segments.last_mut() else {
            return Ok(None);
        };
        if trust == Trust::Clean && last.open_clean(place, &self.options)? {
            return Ok(None);
        }
        // Nobody has synced what the run before wrote: a clean stop has to, or its mark would vouch for it.
        for segment in &mut self.segments {
            segment.dirty = true;
        }
        let mut at = match trust {
            Trust::PowerCut => self.first_unsettled(&place.dir.points().get(place.id)),
            Trust::Clean | Trust::Killed => self.segments.len() - 1,
        };
        while at < self.segments.len() {
            let base = self.segments[at].base;
            let path = place.file(base, INDEX);
            // What a killed run wrote into a map and into a file is there, in this order: log, index.
            let known = match trust {
                Trust::PowerCut => 0,
                Trust::Clean | Trust::Killed => {
                    OffsetIndex::read_highest(&path).map_err(failed("read", &path))?
                }
            };
            let cut = self.walk_segment(place, at, trust, seen)?;
            if cut.is_some() {
                return Ok(cut);
            }
            if known > 0 && u64::from(known) >= self.segments[at].size {
                tracing::error!(partition = %place.id, segment = %base, position = known, "the log has lost its end: its index goes on behind it");
            }
            at += 1;
        }
        Ok(None)
    }

    /// Walks one segment, cuts what is bad, and with it all segments behind.
    fn walk_segment(
        &mut self,
        place: Place<'_>,
        at: usize,
        trust: Trust,
        seen: &mut Vec<(LeaderEpoch, Offset)>,
    ) -> Result<Option<Cut>, StorageError> {
        let covered = self.covered(place, trust, self.segments[at].base);
        let next = self.segments.get(at + 1).map(|next| next.base);
        let segment = &mut self.segments[at];
        let path = place.file(segment.base, LOG);
        let file = SegmentFile::open(&path).map_err(failed("open", &path))?;
        let mut walk = recovery::walk_covered(&file, segment.base, &self.options, &covered)
            .map_err(failed("read", &path))?;
        seen.append(&mut walk.epochs);
        let may_lack = self.options.gaps_below > segment.base;
        let gap = next.filter(|next| walk.end > *next || (walk.end < *next && !may_lack));
        let reason = walk
            .stopped
            .or(gap.map(|next_segment| CutReason::Gap { next_segment }));
        // Also where nothing is cut: it gives back the space that the run before had reserved.
        file.truncate(walk.size).map_err(failed("cut", &path))?;
        faults::point("recovery.cut");
        let Some(reason) = reason else {
            walk.end = next.unwrap_or(walk.end);
            segment.adopt(&walk, place, &self.options)?;
            return Ok(None);
        };
        // Durable before anything is appended behind it: else old bytes could come back with the power.
        let synced = place.dir.synced(file.sync());
        synced.map_err(failed("sync", &path))?;
        let cut_bytes = segment.size - walk.size;
        segment.adopt(&walk, place, &self.options)?;
        let behind = self.segments.drain(at + 1..).rev().map(|lost| {
            lost.remove(place);
            lost.size
        });
        Ok(Some(Cut {
            at: walk.end,
            bytes: cut_bytes + behind.sum::<u64>(),
            reason,
        }))
    }

    /// The log ends before its start: nothing of it may be read, and it goes on at its start.
    fn begin_anew(&mut self, place: Place<'_>) -> Cut {
        let lost = self.segments.drain(..).rev().map(|lost| {
            lost.remove(place);
            lost.size
        });
        let bytes = lost.sum();
        self.log_end = self.log_start;
        let log_start = self.log_start;
        Cut {
            at: log_start,
            bytes,
            reason: CutReason::BelowStart { log_start },
        }
    }

    fn recover_epochs(
        &mut self,
        place: Place<'_>,
        seen: &[(LeaderEpoch, Offset)],
    ) -> Result<(), StorageError> {
        let path = place.directory().join(EPOCHS);
        let bytes = disk::read(&path).map_err(failed("read", &path))?;
        match bytes.as_deref().and_then(Epochs::decode) {
            Some(epochs) => self.epochs = epochs,
            None => {
                self.epochs_unsaved = true;
                let mut epochs = Epochs::default();
                self.visit_batches(place, self.log_start, &mut |batch| {
                    let header = batch.header();
                    epochs.note(header.leader_epoch, header.base_offset);
                    ControlFlow::Continue(())
                })?;
                self.epochs = epochs;
            }
        }
        // What was written before a batch that never came is no epoch of this log.
        self.epochs_unsaved |= self.epochs.cut_end(self.log_end);
        for (epoch, offset) in seen {
            self.epochs_unsaved |= self.epochs.note(*epoch, *offset);
        }
        self.epochs_unsaved |= self.epochs.cut_end(self.log_end);
        self.epochs_unsaved |= self.epochs.cut_start(self.log_start);
        self.try_to_save_epochs(place);
        Ok(())
    }

    /// Writes the epochs if their file lacks any. What can't be written now is written with a later batch, or found again
    /// in the batches at the next start.
    fn try_to_save_epochs(&mut self, place: Place<'_>) {
        if self.epochs_unsaved
            && let Err(error) = self.save_epochs(place)
        {
            tracing::warn!(partition = %place.id, %error, "cannot write the leader epochs yet");
        }
    }

    fn save_epochs(&mut self, place: Place<'_>) -> io::Result<()> {
        let path = place.directory().join(EPOCHS);
        disk::replace(&path, self.epochs.encode().as_bytes(), Sync::No)?;
        self.epochs_unsaved = false;
        if let Some(tail) = self.segments.last().and_then(|last| last.tail.upgrade()) {
            tail.name_written();
        }
        Ok(())
    }

    /// Takes disk space for appends of `bytes` in all, closing the last segment if they belong into a new one.
    pub(crate) fn reserve(&mut self, place: Place<'_>, bytes: usize) -> io::Result<()> {
        self.remove_doomed(place)?;
        if self.segments.is_empty() {
            let (segment, writer) = self.create_segment(place, bytes)?;
            self.segments.push(segment);
            self.writer = Some(Box::new(writer));
            return Ok(());
        }
        let last = self.segments.last_mut().expect("there is one");
        if self.writer.is_none() {
            self.writer = Some(Box::new(last.writer(place, &self.options)?));
        }
        if last.is_full_for(bytes, &self.options) {
            return self.roll(place, bytes);
        }
        let writer = self.writer.as_mut().expect("opened above");
        last.make_room(writer, place, bytes, &self.options)
    }

    /// Begins a new segment at the log end, with room for `bytes`.
    pub(crate) fn roll(&mut self, place: Place<'_>, bytes: usize) -> io::Result<()> {
        if self.segments.last().is_none_or(|last| last.size == 0) {
            return Ok(());
        }
        if self.epochs_unsaved {
            // Recovery finds missing epochs in the last segment only.
            self.save_epochs(place)?;
        }
        if let Some(last) = self.segments.last_mut() {
            // A power cut must not keep the name of the new segment and lose that of this one: the log would begin with it.
            last.tail(place)?.sync_names(place.dir)?;
        }
        let (segment, writer) = self.create_segment(place, bytes)?;
        self.close_writer(place);
        self.segments.push(segment);
        self.writer = Some(Box::new(writer));
        self.rolled_at = Some(self.log_end);
        faults::point("roll.after");
        Ok(())
    }

    fn create_segment(&mut self, place: Place<'_>, bytes: usize) -> io::Result<(Segment, Writer)> {
        self.remove_doomed(place)?;
        let created = Segment::create(place, self.log_end, bytes, &self.options);
        if created.is_err() {
            self.doomed = Some(self.log_end);
        }
        created
    }

    /// Removes what is left of a segment that could not be begun, before anything is appended to the one before: a start
    /// would take its name for the end of that one. It must not come back with the power either.
    fn remove_doomed(&mut self, place: Place<'_>) -> io::Result<()> {
        if let Some(base) = self.doomed {
            disk::remove_if_present(&place.file(base, LOG))?;
            match disk::sync_directory(&place.directory()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.doomed = None,
            }
        }
        Ok(())
    }

    fn close_writer(&mut self, place: Place<'_>) {
        let Some(last) = self.segments.last_mut() else {
            return;
        };
        match self.writer.take().map(|writer| last.seal(*writer, place)) {
            // Nothing was appended to it in this run.
            None => last.list_closed(place),
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::warn!(partition = %place.id, segment = %last.base, %error, "cannot trim a segment's files");
            }
        }
    }

    /// Appends whole batches at the log end; returns where a new segment began since the last append.
    pub(crate) fn append(&mut self, place: Place<'_>, entry: &Entry) -> io::Result<Option<Offset>> {
        assert_eq!(entry.base, self.log_end, "batches follow each other");
        assert!(entry.last >= entry.base, "a batch has a last offset");
        self.reserve(place, entry.bytes.len())?;
        let (Some(last), Some(writer)) = (self.segments.last(), &self.writer) else {
            return Err(io::Error::other("no segment to append to"));
        };
        let wide = entry.last.0 - last.base.0 > i64::from(i32::MAX);
        if wide {
            self.roll(place, entry.bytes.len())?;
        } else if last.is_old_for(place, writer, entry.max_timestamp, &self.options)
            && let Err(error) = self.roll(place, entry.bytes.len())
        {
            // There is room for the batch where it is; the segment is closed another time.
            tracing::debug!(partition = %place.id, %error, "cannot begin a new segment");
        }
        let newest = self.epochs.last();
        assert!(
            newest.is_none_or(|newest| newest <= entry.leader_epoch),
            "the leader epoch never falls"
        );
        self.epochs_unsaved |= self.epochs.note(entry.leader_epoch, entry.base);
        self.try_to_save_epochs(place);
        self.remove_doomed(place)?;
        let (Some(last), Some(writer)) = (self.segments.last_mut(), &mut self.writer) else {
            return Err(io::Error::other("no segment to append to"));
        };
        if self.options.synced_only || has_control(&entry.bytes) {
            writer.tail().decides(entry.bytes.len());
        }
        let interval = self.options.index_interval_bytes;
        last.append(writer, place, entry, interval)?;
        self.log_end = entry.last.next();
        Ok(self.rolled_at.take())
    }

    /// Where in `segments` an offset is, or would be.
    fn segment_of(&self, offset: Offset) -> usize {
        let after = self.segments.partition_point(|s| s.base <= offset);
        after.saturating_sub(1)
    }

    /// Reads whole batches; see `SegmentJournal::read`.
    pub(crate) fn read(
        &self,
        place: Place<'_>,
        (from, upto): (Offset, Offset),
        max_bytes: usize,
        first_whole: bool,
    ) -> Result<ReadOutcome, StorageError> {
        if from < self.log_start || from > self.log_end {
            return Err(StorageError::OutOfRange {
                offset: from,
                log_start: self.log_start,
                log_end: self.log_end,
            });
        }
        let upto = upto.min(self.log_end);
        let mut outcome = ReadOutcome {
            slices: Vec::new(),
            next: from,
        };
        let mut left = max_bytes;
        let segments = self.segments[self.segment_of(from)..].iter();
        for segment in segments.take(SEGMENTS_A_READ_MAX) {
            if outcome.next >= upto {
                break;
            }
            let first_whole = first_whole && outcome.slices.is_empty();
            let wanted = (outcome.next, upto);
            let (slice, next) = segment.read(place, &self.options, wanted, left, first_whole)?;
            if let Some(slice) = slice {
                left = left.saturating_sub(slice.len());
                outcome.slices.push(slice);
            }
            outcome.next = next;
            if next < segment.end {
                break;
            }
        }
        Ok(outcome)
    }

    /// Shows every batch from the one that holds `from`, in order. Each is checked as in a walk: what is made of them is
    /// believed, and a closed segment was perhaps last looked at long ago.
    pub(crate) fn visit_checked_batches(
        &self,
        place: Place<'_>,
        from: Offset,
        visit: &mut dyn FnMut(BatchView<'_>) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let mut expected = None;
        let mut damage = None;
        self.visit_batches(place, from, &mut |batch| {
            let header = batch.header();
            let follows = expected.is_none_or(|end| {
                header.base_offset == end
                    || (end < self.options.gaps_below && header.base_offset > end)
            });
            let checked = batch.check_crc().map_err(|error| error.to_string());
            let checked = checked.and_then(|()| {
                follows
                    .then_some(())
                    .ok_or_else(|| "it does not follow the one before".to_owned())
            });
            if let Err(reason) = checked {
                damage = Some((header.base_offset, reason));
                return ControlFlow::Break(());
            }
            expected = Some(header.last_offset().next());
            visit(batch)
        })?;
        damage.map_or(Ok(()), |(offset, reason)| {
            let segment = &self.segments[self.segment_of(expected.unwrap_or(from))];
            Err(StorageError::Corrupt {
                path: place.file(segment.base, LOG),
                reason: format!("the batch that says it begins at offset {offset}: {reason}"),
            })
        })
    }

    /// Shows every batch from the one that holds `from`, in order. Checksums are not looked at. Goes from header to header
    /// in maps, so that what the visitor does not look at is not read; waits for the disk: for the start.
    fn visit_batches(
        &self,
        place: Place<'_>,
        from: Offset,
        visit: &mut dyn FnMut(BatchView<'_>) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let from = from.max(self.log_start);
        let first = self.segment_of(from);
        for segment in self.segments.iter().skip(first) {
            if segment.size == 0 || segment.end <= from {
                continue;
            }
            let mut at = segment.position_before(place, from, &self.options)?;
            let map = segment.mapped_for_the_start(place, &self.options)?;
            while at < segment.size {
                let len = segment.batch_bytes(place, &map, at)?;
                let batch = BatchView::parse(map.bytes(to_usize(at), len));
                let batch = batch.map_err(|error| StorageError::Corrupt {
                    path: place.file(segment.base, LOG),
                    reason: format!("{error}, at position {at}"),
                })?;
                at += to_u64(len);
                if batch.header().last_offset() >= from && visit(batch).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The first batch with an offset of at least `from` that may hold a record of `timestamp` or later (LR-92).
    pub(crate) fn find_by_time(
        &self,
        place: Place<'_>,
        timestamp: i64,
        (from, upto): (Offset, Offset),
    ) -> Result<Option<Slice>, StorageError> {
        let from = from.max(self.log_start);
        for segment in self.segments.iter().skip(self.segment_of(from)) {
            let found = segment.find_by_time(place, &self.options, timestamp, from)?;
            if let Some((header, slice)) = found {
                return Ok((header.base_offset < upto).then_some(slice));
            }
        }
        Ok(None)
    }

    /// The first of the batches with the largest timestamp; none if it begins at or after `upto` (LR-90) or no batch has
    /// a timestamp.
    pub(crate) fn max_timestamp_batch(
        &self,
        place: Place<'_>,
        upto: Offset,
    ) -> Result<Option<Slice>, StorageError> {
        let mut largest = -1;
        for segment in &self.segments {
            let (timestamp, last) = segment.largest(place, &self.options)?;
            if last >= self.log_start {
                largest = largest.max(timestamp);
            } else if segment.end > self.log_start {
                // The batch that had it is deleted, others of its segment are not: look at all that are left.
                let left = segment.largest_from(place, &self.options, self.log_start)?;
                largest = largest.max(left);
            }
        }
        if largest < 0 {
            return Ok(None);
        }
        self.find_by_time(place, largest, (self.log_start, upto))
    }

    /// Lets go of the maps that were not looked at since this was called last, of `most` at most; returns how many.
    pub(crate) fn let_maps_go(&self, most: usize) -> usize {
        let last = self.segments.len().saturating_sub(1);
        let segments = self.segments.iter().enumerate();
        let gone =
            segments.filter(|(at, segment)| segment.let_go(*at == last && self.writer.is_some()));
        gone.take(most).count()
    }

    /// Where `epoch` ended (LR-83).
    pub(crate) fn leader_epoch_end(
        &self,
        epoch: LeaderEpoch,
        current: LeaderEpoch,
    ) -> (LeaderEpoch, Offset) {
        self.epochs.end_of(epoch, current, self.log_end)
    }

    /// The epoch of the first record.
    pub(crate) fn leader_epoch_at_start(&self) -> Option<LeaderEpoch> {
        self.epochs.at_start(self.log_start)
    }

    /// Bytes of all segments.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Where the last segment begins.
    pub(crate) fn last_segment(&self) -> Option<Offset> {
        self.segments.last().map(|last| last.base)
    }

    /// All segments, oldest first.
    pub(crate) fn segments(&self, place: Place<'_>) -> Result<Vec<SegmentInfo>, StorageError> {
        let infos = self.segments.iter();
        infos.map(|segment| self.info(place, segment)).collect()
    }

    /// One segment, the oldest is number 0; none behind the last.
    pub(crate) fn segment(
        &self,
        place: Place<'_>,
        number: usize,
    ) -> Result<Option<SegmentInfo>, StorageError> {
        let segment = self.segments.get(number);
        segment.map(|segment| self.info(place, segment)).transpose()
    }

    fn info(&self, place: Place<'_>, segment: &Segment) -> Result<SegmentInfo, StorageError> {
        Ok(SegmentInfo {
            base: segment.base,
            end: segment.end,
            bytes: segment.size,
            max_timestamp: segment.largest(place, &self.options)?.0,
        })
    }

    /// When the log of the segment that begins at `base` was last written to, milliseconds since 1970 (LR-62).
    pub(crate) fn segment_modified_ms(place: Place<'_>, base: Offset) -> Result<i64, StorageError> {
        let path = place.file(base, LOG);
        disk::modified_ms(&path).map_err(failed("look at", path))
    }

    /// Moves the log start up: durable before it returns, then whole segments below it go (CR-22).
    pub(crate) fn set_log_start(
        &mut self,
        place: Place<'_>,
        log_start: Offset,
    ) -> Result<(), StorageError> {
        if log_start <= self.log_start {
            // What was the last segment then may lie below the log start since.
            self.drop_segments_below(place, self.log_start);
            return Ok(());
        }
        if log_start > self.log_end {
            return Err(StorageError::OutOfRange {
                offset: log_start,
                log_start: self.log_start,
                log_end: self.log_end,
            });
        }
        self.anchor_at_or_above(place, log_start)?;
        let path = place.directory().join(LOG_START);
        let text = format!("0\n{log_start}\n");
        let write = || disk::replace(&path, text.as_bytes(), Sync::Yes);
        let written = match write() {
            // On a full disk whole segments must be able to go. Without the file the log starts at the first that is
            // left: between the old start and the new one, and nobody has been answered yet.
            Err(error) if is_full(&error) => {
                self.drop_segments_below(place, log_start);
                self.log_start = self.segments[0].base.max(self.log_start);
                write()
            }
            other => other,
        };
        written.map_err(failed("write", &path))?;
        self.sync_names_above(place)?;
        self.log_start = log_start;
        self.drop_segments_below(place, log_start);
        self.epochs_unsaved |= self.epochs.cut_start(log_start);
        self.try_to_save_epochs(place);
        Ok(())
    }

    /// Makes the names of the partition's directory and of those above it survive a power cut, once.
    fn sync_names_above(&mut self, place: Place<'_>) -> Result<(), StorageError> {
        if self.names_above_synced {
            return Ok(());
        }
        let directory = place.directory();
        for above in directory.ancestors().skip(1).take(3) {
            disk::sync_directory(above).map_err(failed("sync", above))?;
        }
        self.names_above_synced = true;
        Ok(())
    }

    /// Removes the segments that hold nothing at or after an offset. The last one stays.
    fn drop_segments_below(&mut self, place: Place<'_>, offset: Offset) {
        let ends = self.segments.iter().skip(1).map(|next| next.base);
        let below = ends.take_while(|end| *end <= offset).count();
        let mut rows = 0;
        for segment in self.segments.drain(..below) {
            rows += segment.rows().count();
            segment.remove(place);
        }
        self.forget_rows(place, rows);
    }

    /// Adds the row of an aborted transaction to the segment that holds `last_offset`.
    pub(crate) fn append_transaction_row(
        &mut self,
        place: Place<'_>,
        last_offset: Offset,
        row: &[u8; TRANSACTION_ROW_BYTES],
    ) {
        let at = self.segment_of(last_offset);
        if let Some(segment) = self.segments.get_mut(at) {
            segment.append_row(place, row);
        }
    }

    /// Drops the rows whose last offset is `from` or higher.
    pub(crate) fn truncate_transaction_rows(
        &mut self,
        place: Place<'_>,
        from: Offset,
        last_offset_of: fn(&[u8; TRANSACTION_ROW_BYTES]) -> Offset,
    ) -> Result<(), StorageError> {
        let at = self.segment_of(from);
        for segment in self.segments.iter_mut().skip(at) {
            let path = place.file(segment.base, TXN_INDEX);
            segment
                .truncate_rows(place, |row| last_offset_of(row) >= from)
                .map_err(failed("cut", path))?;
        }
        Ok(())
    }

    /// Shows the rows from the segment that holds `from` upwards.
    pub(crate) fn visit_transaction_rows(
        &self,
        from: Offset,
        visit: &mut dyn FnMut(&[u8; TRANSACTION_ROW_BYTES]) -> ControlFlow<()>,
    ) {
        let segments = self.segments.iter().skip(self.segment_of(from));
        for row in segments.flat_map(Segment::rows) {
            if visit(row).is_break() {
                return;
            }
        }
    }

    /// Completes all files, so that the next start may trust them.
    pub(crate) fn close(&mut self, place: Place<'_>) -> io::Result<()> {
        if let (Some(writer), Some(last)) = (self.writer.take(), self.segments.last_mut()) {
            last.seal(*writer, place)?;
        }
        for segment in &mut self.segments {
            segment.save_rows(place)?;
        }
        if self.epochs_unsaved {
            self.save_epochs(place)?;
        }
        Ok(())
    }

    /// How many segments were written to in this run and not synced, and snapshots that the next run relies on.
    pub(crate) fn unsynced_files(&self, place: Place<'_>) -> usize {
        let dirty = self.segments.iter().filter(|segment| segment.dirty).count();
        dirty + usize::from(self.wants_anchor(place).is_some())
    }

    /// Brings them to the disk, and the names of all.
    pub(crate) fn sync(&mut self, place: Place<'_>) -> io::Result<()> {
        if self.unsynced_files(place) == 0 {
            return Ok(());
        }
        if let Some(at) = self.wants_anchor(place) {
            SegmentFile::open(&place.file(at, SNAPSHOT))?.sync()?;
        }
        for segment in self.segments.iter_mut().filter(|segment| segment.dirty) {
            segment.sync(place)?;
        }
        let directory = place.directory();
        disk::sync_directory(&directory)?;
        directory.parent().map_or(Ok(()), disk::sync_directory)
    }
}

/// Whether one of some whole batches holds a control record.
fn has_control(mut batches: &[u8]) -> bool {
    while let Ok(header) = batch::parse_header(batches) {
        if header.is_control() {
            return true;
        }
        batches = batches.get(header.size_bytes()..).unwrap_or_default();
    }
    false
}

/// The log start that deletions left.
pub(crate) fn read_log_start(place: Place<'_>) -> Result<Offset, StorageError> {
    let path = place.directory().join(LOG_START);
    let Some(bytes) = disk::read(&path).map_err(failed("read", &path))? else {
        return Ok(Offset::ZERO);
    };
    // Guessing could bring deleted records back: CR-22 allows the old start or the new one, nothing else.
    parse_log_start(&bytes).ok_or(StorageError::Corrupt {
        path,
        reason: "it does not hold an offset".to_owned(),
    })
}

/// The offset in a `log-start`.
pub(crate) fn parse_log_start(bytes: &[u8]) -> Option<Offset> {
    let text = std::str::from_utf8(bytes).ok()?;
    let offset = text.strip_prefix("0\n")?.trim_end().parse().ok()?;
    (offset >= 0).then_some(Offset(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A roll or a stop that was killed over its snapshot leaves one without a log beside it: nothing is lost with that.
    #[test]
    fn an_unfinished_file_is_not_taken_for_a_segment_without_its_log() {
        assert!(is_left_alone("00000000000000000003.index"));
        assert!(is_left_alone("00000000000000000003.txnindex"));
        assert!(!is_left_alone("00000000000000000003.snapshot.tmp"));
        assert!(!is_left_alone("log-start.tmp"));
    }
}
