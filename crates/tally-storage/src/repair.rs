//! Mending the files of a stopped broker, for `tally verify log --repair`: what is damaged leaves the log, never the disk.
//!
//! Invariants: a byte that leaves a log lies in a file of the directory [`Repair::aside`] first, synced; a segment is written anew
//! under another name and then renamed, so that a repair that is killed leaves the old one or the new one; the mark of a
//! clean stop is gone when anything was changed, so that the next start walks what it would have believed.
//!
//! Where batches are lost between good ones, an empty batch without a producer takes their offsets: what comes behind them keeps
//! its place, and clients read over it as over one that compaction has emptied (LR-73).

use crate::data_dir::DataDir;
use crate::disk::{self, SegmentFile, Sync};
use crate::epochs::Epochs;
use crate::error::OpenDirError;
use crate::index::OFFSET_ENTRY;
use crate::inspect::{BatchAt, Inspection, SegmentReader, read_offset_index};
use crate::partition::{EPOCHS, LogOptions};
use crate::recovery;
use crate::recovery_points::{self, Point};
use crate::redo;
use crate::segment::{INDEX, LOG, Place, TIME_INDEX};
use bytes::{BufMut, BytesMut};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tally_protocol::batch::{CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use tally_protocol::ids::{to_u64, to_usize};
use tally_protocol::{BatchHeader, LeaderEpoch, Offset, PartitionId};

/// What repairs take out of logs is kept in directories of this name and a number.
const ASIDE: &str = "repaired";
/// Bytes copied at a time.
const PIECE: u64 = 1024 * 1024;
/// Where a batch has its leader epoch.
const LEADER_EPOCH_AT: u64 = 12;
/// Batches that are asked where the one before them belongs.
const LOOKED_AT: usize = 16;
/// The furthest that an offset may lie from the name of its segment.
const MAX_SPAN: i64 = i32::MAX as i64;

/// A part of a segment, and what becomes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// It stays.
    Keep(Range<u64>),
    /// A whole batch whose base offset alone is damaged: its checksum does not cover that, and its neighbours say it.
    Renumber(Range<u64>, Offset),
    /// A whole batch whose leader epoch alone is damaged: no checksum covers that either, and epochs never fall.
    Date(Range<u64>, LeaderEpoch),
    /// It goes, and an empty batch takes the offsets if there are any.
    Lose(Range<u64>, Range<i64>),
    /// It goes, if it is anything, and the log ends here.
    Cut(Range<u64>),
}

/// What becomes of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentPlan {
    /// Its parts, in order.
    pub parts: Vec<Part>,
}

impl SegmentPlan {
    /// Where the first thing is that changes.
    fn untouched(&self) -> u64 {
        let mut parts = self.parts.iter();
        match parts.next() {
            Some(Part::Keep(range)) => range.end,
            _ => 0,
        }
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Keep(_)))
    }
}

/// A segment that has to be mended.
#[derive(Clone, Copy, Debug)]
pub struct Damaged<'a> {
    /// Its log.
    pub log: &'a Path,
    /// Its name.
    pub base: Offset,
    /// Where the next one begins.
    pub next: Option<Offset>,
    /// The log is known to have gone on up to here: a snapshot was taken there, or it starts there.
    pub known_end: Offset,
    /// Offsets may be missing in it.
    pub gaps: bool,
    /// Good batches behind a damaged one count. After a power cut, in the last segment, they do not.
    pub keeps: bool,
    /// What says which leader epochs its batches have.
    pub epochs: &'a EpochsAround,
}

/// What says which leader epochs the batches of a segment have.
#[derive(Clone, Default, Debug)]
pub struct EpochsAround {
    /// That of the last batch before it.
    pub before: Option<LeaderEpoch>,
    /// That of the first batch behind it.
    pub after: Option<LeaderEpoch>,
    /// What the partition's file has, oldest first.
    pub stored: Vec<(LeaderEpoch, Offset)>,
    /// The file is known to have all of them: the run before was stopped clean.
    pub is_all: bool,
}

impl EpochsAround {
    /// The epoch that a batch had, if it is not the one that it has: its neighbours leave no room for that one, and the file
    /// does not have it.
    fn had(
        &self,
        header: &BatchHeader,
        before: Option<LeaderEpoch>,
        after: Option<LeaderEpoch>,
    ) -> Option<LeaderEpoch> {
        let has = header.leader_epoch;
        let upto = |(_, start): &(LeaderEpoch, Offset)| *start <= header.base_offset;
        let covering = self.stored.partition_point(upto).checked_sub(1);
        let told = covering.map(|at| self.stored[at].0);
        if told == Some(has) {
            return None;
        }
        let or = |fits: bool, other| told.filter(|_| fits).or(Some(other));
        match (before, after) {
            (Some(before), Some(after)) if before <= after => {
                let room = before..=after;
                let fits = told.is_some_and(|told| room.contains(&told));
                or(fits, before).filter(|_| !room.contains(&has))
            }
            (None, Some(after)) if has > after => or(told <= Some(after), after),
            (None, Some(after)) => Some(after).filter(|_| told == Some(after)),
            (Some(before), None) if has < before => or(told >= Some(before), before),
            (Some(before), None) => Some(before).filter(|_| self.is_all && told == Some(before)),
            _ => None,
        }
    }
}

/// The leader epochs of the first and the last good batch of a segment, as far as one follows the other.
pub fn epochs_of(log: &Path) -> io::Result<Option<(LeaderEpoch, LeaderEpoch)>> {
    let mut reader = SegmentReader::open(log).map_err(io::Error::other)?;
    let (mut at, mut found) = (0, None);
    while let Some(header) = good(&mut reader, at)? {
        let first = found.map_or(header.leader_epoch, |(first, _)| first);
        found = Some((first, header.leader_epoch));
        at += to_u64(header.size_bytes());
    }
    Ok(found)
}

/// What has to be done to a segment, so that its good batches follow each other from its name to its end. Changes nothing.
pub fn plan_segment(damaged: &Damaged<'_>) -> io::Result<SegmentPlan> {
    let mut reader = SegmentReader::open(damaged.log).map_err(io::Error::other)?;
    let index = disk::read(&damaged.log.with_extension(INDEX))?.unwrap_or_default();
    let entries = index.len() / OFFSET_ENTRY;
    let index: Vec<(u32, u32)> = read_offset_index(&index).take(entries).collect();
    let size = reader.size();
    let (mut at, mut expected, mut parts) = (0, damaged.base, Vec::new());
    let mut epoch = damaged.epochs.before;
    while at < size {
        if let Some(header) = good(&mut reader, at)?
            && let Some(begins) = damaged.place(&mut reader, (at, &header), expected)?
        {
            let end = at + to_u64(header.size_bytes());
            let had = damaged.epoch(&mut reader, (end, &header), epoch)?;
            epoch = Some(had.unwrap_or(header.leader_epoch));
            match had {
                _ if begins != header.base_offset => {
                    parts.push(Part::Renumber(at..end, begins));
                }
                Some(had) => parts.push(Part::Date(at..end, had)),
                None => keep(&mut parts, at..end),
            }
            expected = begins.plus(i64::from(header.last_offset_delta) + 1);
            at = end;
            continue;
        }
        let next = match damaged.keeps {
            true => damaged.next_good(&mut reader, (at, expected), &index)?,
            false => None,
        };
        let Some((position, begins)) = next else {
            break;
        };
        parts.push(Part::Lose(at..position, expected.0..begins.0));
        (at, expected) = (position, begins);
    }
    let end = damaged.next.unwrap_or(damaged.known_end);
    // A name or a start that no segment can reach up to is damaged itself: no empty batch stands for that.
    let is_near = end.0.saturating_sub(damaged.base.0) <= MAX_SPAN;
    let is_short = end > expected && is_near && !damaged.gaps;
    if damaged.keeps && (is_short || (at < size && damaged.next.is_some())) {
        let offsets = expected.0..if is_near {
            end.max(expected).0
        } else {
            expected.0
        };
        parts.push(Part::Lose(at..size, offsets));
    } else if at < size || (is_short && damaged.next.is_some()) {
        // What begins behind a gap was not synced either: it goes, as a start lets it go.
        parts.push(Part::Cut(at..size));
    }
    Ok(SegmentPlan { parts })
}

fn keep(parts: &mut Vec<Part>, range: Range<u64>) {
    match parts.last_mut() {
        Some(Part::Keep(last)) if last.end == range.start => last.end = range.end,
        _ => parts.push(Part::Keep(range)),
    }
}

/// The header of the whole batch with a good checksum at a position.
fn good(reader: &mut SegmentReader, at: u64) -> io::Result<Option<BatchHeader>> {
    if at >= reader.size() {
        return Ok(None);
    }
    Ok(match reader.batch_at(at)? {
        BatchAt::Good(view) if view.header().last_offset_delta >= 0 => Some(*view.header()),
        BatchAt::Good(_) | BatchAt::BadCrc(_) | BatchAt::Broken(_) => None,
    })
}

/// The last offset of a batch that begins there: neither number may be believed.
fn last_offset(begins: Offset, header: &BatchHeader) -> i64 {
    begins.0.saturating_add(i64::from(header.last_offset_delta))
}

impl Damaged<'_> {
    /// The offset of a good batch, if it belongs where it lies.
    fn place(
        &self,
        reader: &mut SegmentReader,
        (at, header): (u64, &BatchHeader),
        expected: Offset,
    ) -> io::Result<Option<Offset>> {
        let begins = header.base_offset;
        let last = last_offset(begins, header);
        let fits = last.saturating_sub(self.base.0) <= MAX_SPAN
            && self.next.is_none_or(|next| last < next.0);
        let behind = at + to_u64(header.size_bytes());
        // What its neighbours leave room for is its own.
        let next = Offset(last_offset(expected, header).saturating_add(1));
        if !self.gaps {
            let is_right = begins == expected && fits;
            let agrees = is_right || self.agrees(reader, behind, next)?;
            return Ok(agrees.then_some(expected));
        }
        let follower = self.follower(reader, behind, expected)?;
        if begins >= expected && fits && follower.is_none_or(|(_, second)| second.0 > last) {
            return Ok(Some(begins));
        }
        Ok(follower
            .filter(|(first, _)| *first == next)
            .map(|_| expected))
    }

    /// Whether the batches at a position say that the first of them begins at `next`: the first that does not lie about its offset.
    fn agrees(
        &self,
        reader: &mut SegmentReader,
        mut at: u64,
        mut next: Offset,
    ) -> io::Result<bool> {
        for nth in 0..LOOKED_AT {
            let Some(header) = good(reader, at)? else {
                let ends = self.next.map_or(nth == 0, |end| end == next);
                return Ok(at == reader.size() && ends);
            };
            if header.base_offset == next {
                return Ok(true);
            }
            at += to_u64(header.size_bytes());
            next = Offset(last_offset(next, &header).saturating_add(1));
        }
        Ok(false)
    }

    /// Where offsets may be missing: where the batch at a position begins, and the one behind it, or else the next segment. Nothing
    /// if they are not good, or don't follow what comes before.
    fn follower(
        &self,
        reader: &mut SegmentReader,
        at: u64,
        expected: Offset,
    ) -> io::Result<Option<(Offset, Offset)>> {
        let Some(first) = good(reader, at)? else {
            return Ok(None);
        };
        let behind = at + to_u64(first.size_bytes());
        let last = last_offset(first.base_offset, &first);
        let second = match good(reader, behind)? {
            Some(second) => second.base_offset,
            None if behind == reader.size() => self.next.unwrap_or(Offset(i64::MAX)),
            None => return Ok(None),
        };
        let is_followed = first.base_offset >= expected && second.0 > last;
        Ok(is_followed.then_some((first.base_offset, second)))
    }

    /// The leader epoch that a good batch had, if that is damaged.
    fn epoch(
        &self,
        reader: &mut SegmentReader,
        (end, header): (u64, &BatchHeader),
        before: Option<LeaderEpoch>,
    ) -> io::Result<Option<LeaderEpoch>> {
        if !self.keeps {
            return Ok(None);
        }
        let after = match end == reader.size() {
            true => self.epochs.after,
            false => good(reader, end)?.map(|header| header.leader_epoch),
        };
        Ok(self.epochs.had(header, before, after))
    }

    /// With which offset the log goes on behind a damaged batch whose own length and offsets say so.
    fn goes_on(
        &self,
        reader: &mut SegmentReader,
        (behind, header): (u64, &BatchHeader),
        expected: Offset,
    ) -> io::Result<Option<Offset>> {
        let next = Offset(last_offset(header.base_offset, header).saturating_add(1));
        let sane = header.base_offset == expected
            && header.last_offset_delta >= 0
            && header.records_count == header.last_offset_delta.saturating_add(1)
            && self.next.is_none_or(|end| next <= end);
        let agrees = sane && (behind == reader.size() || self.agrees(reader, behind, next)?);
        Ok(agrees.then_some(next))
    }

    /// The same where offsets may be missing: two batches behind it follow each other and what comes before.
    fn goes_on_with_gaps(
        &self,
        reader: &mut SegmentReader,
        (behind, header): (u64, &BatchHeader),
        expected: Offset,
    ) -> io::Result<Option<Offset>> {
        let counts = 0..=header.last_offset_delta.saturating_add(1);
        let sane = header.last_offset_delta >= 0 && counts.contains(&header.records_count);
        let follower = self.follower(reader, behind, expected)?;
        let follower = follower.filter(|_| sane).map(|(first, _)| first);
        Ok(follower.filter(|first| self.next.is_none_or(|end| *first < end)))
    }

    /// Where the log goes on behind the damage, and with which offset. Only what the damaged batch's own length and offsets
    /// or an index say counts: bytes that merely look like a batch may be what a client has put into a record.
    fn next_good(
        &self,
        reader: &mut SegmentReader,
        (at, expected): (u64, Offset),
        index: &[(u32, u32)],
    ) -> io::Result<Option<(u64, Offset)>> {
        if let BatchAt::BadCrc(view) | BatchAt::Good(view) = reader.batch_at(at)? {
            let header = *view.header();
            let behind = at + to_u64(header.size_bytes());
            let next = match self.gaps {
                true => self.goes_on_with_gaps(reader, (behind, &header), expected)?,
                false => self.goes_on(reader, (behind, &header), expected)?,
            };
            if let Some(next) = next {
                return Ok(Some((behind, next)));
            }
        }
        for (last, position) in index {
            let position = u64::from(*position);
            if position <= at {
                continue;
            }
            let Some(header) = good(reader, position)? else {
                continue;
            };
            let found = last_offset(header.base_offset, &header);
            if found.saturating_sub(self.base.0) == i64::from(*last)
                && i64::from(*last) <= MAX_SPAN
                && header.base_offset >= expected
                && self.next.is_none_or(|end| found < end.0)
            {
                return Ok(Some((position, header.base_offset)));
            }
        }
        Ok(None)
    }
}

/// A data directory that is being mended. Nobody else has it until this is dropped.
#[derive(Debug)]
pub struct Repair {
    dir: DataDir,
    aside: PathBuf,
    changed: bool,
}

impl Repair {
    /// Takes the directory. After an unclean end the journal is brought into the segments first, as a start does.
    pub fn open(root: &Path) -> Result<Repair, OpenDirError> {
        let dir = DataDir::open(root)?;
        let mut nth = 1;
        while root.join(format!("{ASIDE}-{nth}")).exists() {
            nth += 1;
        }
        Ok(Repair {
            aside: root.join(format!("{ASIDE}-{nth}")),
            dir,
            changed: false,
        })
    }

    /// Where what was taken away is kept, under the names that it had below the data directory.
    #[must_use]
    pub fn aside(&self) -> &Path {
        &self.aside
    }

    /// A look at the directory as it is now.
    pub fn inspection(&self) -> Result<Inspection, OpenDirError> {
        Inspection::of_owner(self.dir.path())
    }

    /// Whether the run before was stopped clean.
    #[must_use]
    pub fn was_clean(&self) -> bool {
        self.dir.was_clean()
    }

    /// Whether anything was changed.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    /// Does what was planned for a segment, and makes its indexes anew.
    pub fn mend_segment(
        &mut self,
        partition: PartitionId,
        (log, base): (&Path, Offset),
        plan: &SegmentPlan,
    ) -> io::Result<()> {
        let file = SegmentFile::open(log)?;
        for part in &plan.parts {
            if let Part::Lose(range, _) | Part::Cut(range) = part
                && !range.is_empty()
            {
                self.keep_bytes(log, &file, range)?;
            }
        }
        self.changed = true;
        let point = self.dir.points().get(partition);
        // A start takes what is below its point for synced as it was: for now that is what nothing happens to.
        let first = point.lowered(base, plan.untouched());
        self.set_point(partition, first)?;
        let moved = if let [Part::Keep(kept), Part::Cut(_)] = &plan.parts[..] {
            file.truncate(kept.end)?;
            file.sync()?;
            point.position.min(kept.end)
        } else {
            write_anew(log, &file, plan, point.position)?
        };
        let point = self.point_after(partition, point, (log, base), moved)?;
        self.set_point(partition, point)?;
        self.make_indexes(log, base)
    }

    /// A partition never loses its point: the power may be cut before the next start, also of one that was stopped clean. That
    /// start would then take nothing that no point covers (R-11 (a)), and another look at the directory would keep nothing that
    /// lies behind damage.
    fn set_point(&self, partition: PartitionId, point: Point) -> io::Result<()> {
        if self.dir.points().get(partition) == point {
            return Ok(());
        }
        self.dir.points().set(partition, Some(point))
    }

    /// What a point covers when a segment is mended and perhaps the last one: `moved` is where it is now, if it was in there.
    fn point_after(
        &self,
        partition: PartitionId,
        point: Point,
        (log, base): (&Path, Offset),
        moved: u64,
    ) -> io::Result<Point> {
        if point.segment == base {
            return Ok(point.moved_to(moved));
        }
        let directory = log.parent().unwrap_or(log);
        if point.segment < base || log_path(directory, point.segment).exists() {
            return Ok(point);
        }
        // The segments behind this one are gone, and all of it was covered.
        self.end_of(partition)
    }

    /// Makes both indexes of a segment from its batches. What is behind a damaged one has no entries.
    pub fn make_indexes(&mut self, log: &Path, base: Offset) -> io::Result<()> {
        let options = LogOptions {
            gaps_below: Offset(i64::MAX),
            ..LogOptions::default()
        };
        let walk = recovery::walk(&SegmentFile::open_to_read(log)?, base, &options)?;
        self.changed = true;
        for (kind, bytes) in [(INDEX, &walk.offsets), (TIME_INDEX, &walk.times)] {
            disk::replace(&log.with_extension(kind), bytes, Sync::Yes)?;
        }
        Ok(())
    }

    /// Makes the leader epochs of a log from the batches of its segments, which are given by name.
    pub fn make_epochs(
        &mut self,
        partition: &Path,
        bases: &[Offset],
        log_start: Offset,
    ) -> io::Result<()> {
        let options = LogOptions {
            gaps_below: Offset(i64::MAX),
            ..LogOptions::default()
        };
        let mut epochs = Epochs::default();
        for base in bases {
            let file = SegmentFile::open_to_read(&log_path(partition, *base))?;
            for (epoch, offset) in recovery::walk(&file, *base, &options)?.epochs {
                epochs.note(epoch, offset);
            }
        }
        epochs.cut_start(log_start);
        self.replace(&partition.join(EPOCHS), epochs.encode().as_bytes())
    }

    /// Takes a file away from where it is used, if it is there.
    pub fn put_aside(&mut self, path: &Path) -> io::Result<()> {
        let to = self.place_of(path)?;
        self.changed = true;
        if disk::rename_if_present(path, &to)? {
            disk::sync_directory(disk::parent(&to))?;
            disk::sync_directory(disk::parent(path))?;
        }
        Ok(())
    }

    /// Writes a small file anew; what it held is kept.
    pub fn replace(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Some(before) = disk::read(path)? {
            disk::replace(&self.place_of(path)?, &before, Sync::Yes)?;
        }
        self.changed = true;
        disk::replace(path, bytes, Sync::Yes)
    }

    /// Writes the recovery points anew, from the file that counts; what this one of the two held is kept. Were it taken away the older
    /// one would count: its points lie lower, and its groups of the journal may be in the segments already, as these were then.
    pub fn write_points(&mut self, path: &Path) -> io::Result<()> {
        if let Some(before) = disk::read(path)? {
            disk::replace(&self.place_of(path)?, &before, Sync::Yes)?;
        }
        self.changed = true;
        for _ in recovery_points::NAMES {
            self.dir.points().update(|_| {})?;
        }
        Ok(())
    }

    /// Takes the point of a partition back to the end of its log if that is shorter: what there is counts as synced.
    pub fn lower_point(&mut self, partition: PartitionId) -> io::Result<()> {
        self.changed = true;
        let point = self.dir.points().get(partition);
        let end = self.end_of(partition)?;
        self.set_point(partition, if point.is_behind(&end) { end } else { point })
    }

    /// The end of the files of a partition, with an offset that is certain.
    fn end_of(&self, partition: PartitionId) -> io::Result<Point> {
        let end = redo::file_end(Place::unmapped(&self.dir, partition));
        Ok(end
            .map_err(io::Error::other)?
            .map_or(Point::START, |end| Point {
                offset: end.segment,
                ..end
            }))
    }

    /// Gives the directory back. One that was stopped clean and was not changed is so again; one that was changed counts as that
    /// of a killed broker, or still as that of a power cut.
    pub fn finish(self) -> io::Result<()> {
        match self.dir.was_clean() && !self.changed {
            true => self.dir.mark_clean(),
            false => Ok(()),
        }
    }

    /// Where a file is kept; the directories are made.
    fn place_of(&self, path: &Path) -> io::Result<PathBuf> {
        let root = self.dir.path();
        let below = path.strip_prefix(root).map_err(io::Error::other)?;
        let wanted = self.aside.join(below);
        let directory = disk::parent(&wanted).to_owned();
        disk::make_directories(&directory)?;
        disk::sync_directory_and_parents(&directory, root)?;
        let name = wanted.file_name().unwrap_or_default().to_owned();
        let (mut free, mut nth) = (wanted, 1);
        while free.exists() {
            nth += 1;
            let mut name = name.clone();
            name.push(format!(".{nth}"));
            free = directory.join(name);
        }
        Ok(free)
    }

    /// Keeps a part of a segment, in a file that is named by where it was.
    fn keep_bytes(&self, log: &Path, file: &SegmentFile, range: &Range<u64>) -> io::Result<()> {
        let mut name = log.as_os_str().to_owned();
        name.push(format!(".{}-{}", range.start, range.end));
        let path = self.place_of(Path::new(&name))?;
        let kept = SegmentFile::create(&path)?;
        copy(file, range, &kept, 0)?;
        kept.sync()?;
        disk::sync_directory(disk::parent(&path))
    }
}

/// Copies a range; returns where it ends in the other file.
fn copy(from: &SegmentFile, range: &Range<u64>, to: &SegmentFile, mut at: u64) -> io::Result<u64> {
    let mut position = range.start;
    let mut buffer = Vec::new();
    while position < range.end {
        buffer.resize(to_usize((range.end - position).min(PIECE)), 0);
        let read = from.read_at(&mut buffer, position)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at(&buffer[..read], at)?;
        position += to_u64(read);
        at += to_u64(read);
    }
    Ok(at)
}

/// Returns where a position of the old file is in the new one: behind what comes for something that is lost if all of that was
/// before it.
fn write_anew(
    log: &Path,
    file: &SegmentFile,
    plan: &SegmentPlan,
    position: u64,
) -> io::Result<u64> {
    let modified = disk::modified_ms(log)?;
    let unfinished = disk::unfinished_name(log);
    let new = SegmentFile::open_or_create(&unfinished)?;
    new.truncate(0)?;
    let mut at = 0;
    let mut moved = 0;
    let mut before = neighbour(file, plan)?;
    for part in &plan.parts {
        let began = at;
        match part {
            Part::Keep(range) => {
                at = copy(file, range, &new, at)?;
                before = last_of(file, range)?.or(before);
            }
            Part::Renumber(range, offset) => {
                let end = copy(file, range, &new, at)?;
                new.write_at(&offset.0.to_be_bytes(), at)?;
                at = end;
            }
            Part::Date(range, epoch) => {
                let end = copy(file, range, &new, at)?;
                new.write_at(&epoch.0.to_be_bytes(), at + LEADER_EPOCH_AT)?;
                at = end;
            }
            Part::Lose(_, offsets) if offsets.is_empty() => {}
            Part::Lose(_, offsets) => {
                let batch = placeholder(offsets, before.as_ref())?;
                new.write_at(&batch, at)?;
                at += to_u64(batch.len());
            }
            Part::Cut(_) => {}
        }
        let (range, is_kept) = match part {
            Part::Keep(range) | Part::Renumber(range, _) | Part::Date(range, _) => (range, true),
            Part::Lose(range, _) | Part::Cut(range) => (range, false),
        };
        if position >= range.end {
            moved = at;
        } else if is_kept && position > range.start {
            moved = began + (position - range.start);
        }
    }
    new.sync()?;
    new.set_modified_ms(modified)?;
    drop(new);
    disk::rename_if_present(&unfinished, log)?;
    disk::sync_directory(disk::parent(log))?;
    Ok(moved)
}

/// The first batch that stays.
fn neighbour(file: &SegmentFile, plan: &SegmentPlan) -> io::Result<Option<BatchHeader>> {
    let kept = plan.parts.iter().find_map(|part| match part {
        Part::Keep(range) | Part::Renumber(range, _) | Part::Date(range, _) => Some(range.start),
        Part::Lose(..) | Part::Cut(_) => None,
    });
    kept.map_or(Ok(None), |at| header_at(file, at))
}

/// The last batch of a range of good ones.
fn last_of(file: &SegmentFile, range: &Range<u64>) -> io::Result<Option<BatchHeader>> {
    let (mut at, mut last) = (range.start, None);
    while at < range.end
        && let Some(header) = header_at(file, at)?
    {
        at += to_u64(header.size_bytes());
        last = Some(header);
    }
    Ok(last)
}

fn header_at(file: &SegmentFile, at: u64) -> io::Result<Option<BatchHeader>> {
    let mut bytes = [0; HEADER_BYTES];
    let read = file.read_at(&mut bytes, at)?;
    Ok(tally_protocol::batch::parse_header(&bytes[..read]).ok())
}

/// An empty batch that takes offsets: of no producer, with the leader epoch and the time of its neighbour.
fn placeholder(offsets: &Range<i64>, neighbour: Option<&BatchHeader>) -> io::Result<BytesMut> {
    let delta = i32::try_from(offsets.end - offsets.start - 1).map_err(io::Error::other)?;
    let epoch = neighbour.map_or(LeaderEpoch(0), |header| header.leader_epoch);
    let time = neighbour.map_or(-1, |header| header.max_timestamp);
    let mut batch = BytesMut::with_capacity(HEADER_BYTES);
    batch.put_i64(offsets.start);
    let length = i32::try_from(HEADER_BYTES - LENGTH_PREFIX_BYTES).map_err(io::Error::other)?;
    batch.put_i32(length);
    batch.put_i32(epoch.0);
    batch.put_i8(2);
    batch.put_u32(0);
    batch.put_i16(0);
    batch.put_i32(delta);
    batch.put_i64(time);
    batch.put_i64(time);
    batch.put_i64(-1);
    batch.put_i16(-1);
    batch.put_i32(-1);
    batch.put_i32(0);
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    Ok(batch)
}

/// Whether a batch is one that a repair has put where others were lost.
#[must_use]
pub fn is_placeholder(header: &BatchHeader) -> bool {
    header.records_count == 0 && !header.has_producer() && !header.is_control()
}

/// The log of the segment of a partition's directory with this name.
#[must_use]
pub fn log_path(partition: &Path, base: Offset) -> PathBuf {
    partition.join(format!("{:020}.{LOG}", base.0))
}
