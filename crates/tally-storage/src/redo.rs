//! The start after an unclean end: what the journal holds goes into the segments.
//!
//! A group counts if its checksum is right and it follows the one before, from where the last checkpoint says; the first
//! that does not ends the journal. Its bytes are written to where they were, the segments are synced, the recovery points
//! move behind them, and a new generation begins: only then is the journal empty. A start that is killed before does all
//! of it again, with the same outcome (CR-23). After a mere kill the segments have those bytes already, and they are
//! written all the same: a sync that failed may have left them in memory alone.
//!
//! Nothing is brought back that was removed: a partition whose removal the journal holds, what lies below the log start, and
//! segments that were on the disk when the journal spoke of them and are not there any more.

use crate::data_dir::{self, DataDir};
use crate::disk::{self, SegmentFile};
use crate::error::{StorageError, failed};
use crate::inspect::{JournalEntry, JournalGroup};
use crate::partition;
use crate::recovery_points::{Checkpoint, Point};
use crate::segment::{LOG, Place};
use crate::sync_journal::group::{self, Entry, HEADER, Header, Kind};
use crate::tail::sync_file_if_present;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use tally_protocol::ids::{to_u64, to_usize};
use tally_protocol::{Offset, PartitionId, planted};

/// Bytes read and written at a time.
const PIECE: usize = 1024 * 1024;

/// Does all of it. After a power cut files are made again that never reached the disk.
pub(crate) fn run(dir: &DataDir, after_power_cut: bool) -> Result<(), StorageError> {
    let checkpoint = dir.points().current();
    let path = dir.journal_path();
    if checkpoint.generation == 0 {
        return Ok(());
    }
    let file = match SegmentFile::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed("open", &path))?,
    };
    let groups = find_groups(&file, &checkpoint).map_err(failed("read", &path))?;
    if groups.is_empty() {
        return Ok(());
    }
    let mut redo = Redo::new(dir, after_power_cut, checkpoint);
    for (number, group) in groups.iter().enumerate() {
        let bytes = group.read(&file).map_err(failed("read", &path))?;
        redo.survey(number, &bytes)?;
    }
    for (number, group) in groups.iter().enumerate() {
        let bytes = group.read(&file).map_err(failed("read", &path))?;
        redo.apply(number, &bytes)?;
    }
    redo.finish(groups.len())
}

/// Where a whole group is.
struct Found {
    at: u64,
    header: Header,
}

impl Found {
    fn read(&self, file: &SegmentFile) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; HEADER + to_usize(self.header.len)];
        let read = file.read_at(&mut bytes, self.at)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// The groups that count, in order.
fn find_groups(file: &SegmentFile, checkpoint: &Checkpoint) -> io::Result<Vec<Found>> {
    let half = file.size()? / 2;
    let generation = Some(checkpoint.generation);
    let mut chains = [
        chain(file, 0, half, generation)?,
        chain(file, half, half, generation)?,
    ];
    chains.sort_by_key(|chain| chain.first().map(|group| group.header.number));
    let mut next = checkpoint.redo_from;
    let mut found = Vec::new();
    for group in chains.into_iter().flatten() {
        if group.header.number == next {
            next += 1;
            found.push(group);
        } else if group.header.number > next {
            break;
        }
    }
    if planted::is("r5 last") {
        found.pop();
    }
    Ok(found)
}

/// The whole groups from the beginning of a half, each the next of the one before; without a generation, of that of the
/// first.
fn chain(
    file: &SegmentFile,
    begin: u64,
    half: u64,
    generation: Option<u64>,
) -> io::Result<Vec<Found>> {
    let mut chain: Vec<Found> = Vec::new();
    let mut at = begin;
    while at + group::PAGE <= begin + half {
        let mut head = [0; HEADER];
        if file.read_at(&mut head, at)? < HEADER {
            break;
        }
        let Some(header) = Header::parse(&head) else {
            break;
        };
        let follows = chain
            .last()
            .is_none_or(|last| header.number == last.header.number + 1);
        // Before memory is taken for it.
        let fits = header.stride() <= begin + half - at;
        let first = chain.first().map(|group| group.header.generation);
        let wanted = generation.or(first).unwrap_or(header.generation);
        if header.generation != wanted || !follows || !fits {
            break;
        }
        let group = Found { at, header };
        if !group::is_whole(&header, &group.read(file)?) {
            break;
        }
        chain.push(group);
        at += header.stride();
    }
    Ok(chain)
}

/// Shows what each half begins with, for those who only look.
pub(crate) fn visit_groups(
    file: &SegmentFile,
    visit: &mut dyn FnMut(JournalGroup),
) -> io::Result<()> {
    let half = file.size()? / 2;
    for begin in [0, half] {
        for group in chain(file, begin, half, None)? {
            let bytes = group.read(file)?;
            let entries = group::entries(&bytes).map(|(entry, _)| JournalEntry {
                partition: entry.partition,
                kind: match entry.kind {
                    Kind::Copied => "copied",
                    Kind::Synced => "synced",
                    Kind::Removed => "removed",
                },
                segment: entry.segment,
                position: entry.position,
                bytes: entry.len,
                end: entry.end,
            });
            visit(JournalGroup {
                position: group.at,
                generation: group.header.generation,
                number: group.header.number,
                entries: entries.collect(),
            });
        }
    }
    Ok(())
}

/// What is known of one segment before anything is written.
struct Surveyed {
    exists: bool,
    /// The journal speaks of bytes that were on the disk before it did.
    was_synced: bool,
    /// The highest offset that the journal has of it.
    end: Offset,
}

struct Redo<'a> {
    dir: &'a DataDir,
    after_power_cut: bool,
    /// As the last checkpoint left them.
    before: BTreeMap<PartitionId, Point>,
    /// Behind what was brought back.
    after: BTreeMap<PartitionId, Point>,
    log_starts: BTreeMap<PartitionId, Offset>,
    /// In which group for the last time.
    removed: BTreeMap<PartitionId, usize>,
    segments: BTreeMap<(PartitionId, Offset), Surveyed>,
    written: BTreeSet<(PartitionId, Offset)>,
}

impl<'a> Redo<'a> {
    fn new(dir: &'a DataDir, after_power_cut: bool, checkpoint: Checkpoint) -> Redo<'a> {
        Redo {
            dir,
            after_power_cut,
            before: checkpoint.points,
            after: BTreeMap::new(),
            log_starts: BTreeMap::new(),
            removed: BTreeMap::new(),
            segments: BTreeMap::new(),
            written: BTreeSet::new(),
        }
    }

    fn place(&self, id: PartitionId) -> Place<'a> {
        Place::unmapped(self.dir, id)
    }

    /// How far the partition is known to be good.
    fn point(&self, id: PartitionId) -> Point {
        let point = self.after.get(&id).or_else(|| self.before.get(&id));
        point.copied().unwrap_or(Point::START)
    }

    /// Whether an entry has nothing to say: its offsets are settled.
    fn is_past(&self, entry: &Entry) -> bool {
        entry.end <= self.point(entry.partition).offset
    }

    /// Where the log starts. One that can't be told is the business of whoever opens the partition, and of no other: until it
    /// is mended nothing is left out.
    fn log_start(&mut self, id: PartitionId) -> Offset {
        if let Some(known) = self.log_starts.get(&id) {
            return *known;
        }
        let read = partition::read_log_start(self.place(id));
        let log_start = read.unwrap_or_else(|error| {
            tracing::error!(partition = %id, %error, "what the journal holds of a damaged partition is kept for it");
            Offset::ZERO
        });
        self.log_starts.insert(id, log_start);
        log_start
    }

    /// Looks at what is there before anything is changed.
    fn survey(&mut self, number: usize, group: &[u8]) -> Result<(), StorageError> {
        for (entry, _) in group::entries(group) {
            if entry.kind == Kind::Removed {
                self.removed.insert(entry.partition, number);
                self.before.remove(&entry.partition);
                continue;
            }
            if self.is_past(&entry) {
                continue;
            }
            let key = (entry.partition, entry.segment);
            let synced = entry.kind == Kind::Synced;
            if let Some(known) = self.segments.get_mut(&key) {
                known.was_synced |= synced;
                known.end = known.end.max(entry.end);
                continue;
            }
            let path = self.place(entry.partition).file(entry.segment, LOG);
            let exists = file_size(&path)?.is_some();
            let was_synced = synced || entry.position > 0;
            self.segments.insert(
                key,
                Surveyed {
                    exists,
                    was_synced,
                    end: entry.end,
                },
            );
        }
        Ok(())
    }

    fn apply(&mut self, number: usize, group: &[u8]) -> Result<(), StorageError> {
        for (entry, bytes) in group::entries(group) {
            // In a group removals come first: what is behind them is of a partition made anew.
            let removed = self.removed.get(&entry.partition);
            if entry.kind == Kind::Removed
                || removed.is_some_and(|in_group| number < *in_group)
                || self.is_past(&entry)
            {
                continue;
            }
            self.apply_entry(&entry, bytes)?;
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Entry, bytes: &[u8]) -> Result<(), StorageError> {
        let key = (entry.partition, entry.segment);
        let point = self.point(entry.partition);
        let log_start = self.log_start(entry.partition);
        let follows = entry.position == 0
            || (entry.segment == point.segment && entry.position <= point.position);
        let gone = self.segments.get(&key).is_none_or(|segment| {
            // A file that was never on the disk is made again, one that was removed is not.
            let was_removed = segment.was_synced || segment.end <= log_start;
            !segment.exists && (was_removed || !self.after_power_cut)
        });
        let place = self.place(entry.partition);
        let path = place.file(entry.segment, LOG);
        let size = file_size(&path)?.unwrap_or(0);
        let end = entry.position + entry.len;
        let short = size < entry.position || (entry.kind == Kind::Synced && size < end);
        if gone || !follows || short {
            tracing::info!(partition = %entry.partition, segment = %entry.segment, "the journal has bytes of a segment that is not there any more");
            return Ok(());
        }
        if entry.kind == Kind::Copied {
            write(place, &path, entry.position, bytes).map_err(failed("write", &path))?;
            self.written.insert(key);
        }
        let point = Point {
            offset: entry.end,
            segment: entry.segment,
            position: end,
        };
        self.after.insert(entry.partition, point);
        Ok(())
    }

    /// Makes it last: then the journal is empty.
    fn finish(self, groups: usize) -> Result<(), StorageError> {
        let mut directories = BTreeSet::new();
        for (id, base) in &self.written {
            let place = self.place(*id);
            let path = place.file(*base, LOG);
            let file = SegmentFile::open(&path).map_err(failed("open", &path))?;
            let synced = self.dir.synced(file.sync());
            synced.map_err(failed("sync", &path))?;
            directories.insert(place.directory());
        }
        for path in directories {
            disk::sync_directory_and_parents(&path, self.dir.path())
                .map_err(failed("sync", &path))?;
        }
        let (after, removed) = (&self.after, &self.removed);
        let began = self.dir.begin_generation_with(|points| {
            points.retain(|id, _| !removed.contains_key(id));
            points.extend(after.iter().map(|(id, point)| (*id, *point)));
        });
        began.map_err(failed("write the recovery points of", self.dir.path()))?;
        tracing::info!(
            groups,
            segments = self.written.len(),
            "brought what the journal held into the segments"
        );
        Ok(())
    }
}

/// How long the files of all partitions are, as recovery points. The last segments are not walked: their points say where
/// the bytes end, but only an offset that is certain.
pub(crate) fn file_ends(dir: &DataDir) -> Result<BTreeMap<PartitionId, Point>, StorageError> {
    let listed = data_dir::list_partitions(dir.path());
    let mut ends = BTreeMap::new();
    for id in listed.map_err(failed("list", dir.path()))? {
        if let Some(end) = file_end(Place::unmapped(dir, id))? {
            ends.insert(id, end);
        }
    }
    Ok(ends)
}

/// The same for one partition.
pub(crate) fn file_end(place: Place<'_>) -> Result<Option<Point>, StorageError> {
    let Some(base) = segments(place)?.last().copied() else {
        return Ok(None);
    };
    let before = place.dir.points().get(place.id);
    Ok(Some(Point {
        offset: if base == before.segment {
            before.offset
        } else {
            base
        },
        segment: base,
        position: file_size(&place.file(base, LOG))?.unwrap_or(0),
    }))
}

/// Notes that all that lies below these ends is on the disk. Whoever walks the last segments finds out which offsets that
/// is, see `meet_point`.
pub(crate) fn cover(
    dir: &DataDir,
    ends: &BTreeMap<PartitionId, Point>,
    wanted: impl Fn(PartitionId) -> bool,
) -> Result<(), StorageError> {
    let points = dir.points();
    let further =
        |(id, end): &(&PartitionId, &Point)| wanted(**id) && end.is_behind(&points.get(**id));
    let reached: Vec<(PartitionId, Point)> = ends
        .iter()
        .filter(further)
        .map(|(id, end)| (*id, *end))
        .collect();
    if reached.is_empty() {
        return Ok(());
    }
    let noted = points.update(|next| next.points.extend(reached.iter().copied()));
    noted.map_err(failed("write the recovery points of", dir.path()))
}

/// The segments of a partition that have a log, in order.
fn segments(place: Place<'_>) -> Result<Vec<Offset>, StorageError> {
    let directory = place.directory();
    let names = disk::names(&directory).map_err(failed("list", &directory))?;
    let mut bases: Vec<Offset> = names
        .unwrap_or_default()
        .iter()
        .filter_map(|name| partition::parse_name(name))
        .filter_map(|(base, kind)| (kind == LOG).then_some(base))
        .collect();
    bases.sort_unstable();
    Ok(bases)
}

/// Writes anew what lies between the recovery points and these ends, and syncs it: after a failed sync the kernel may take
/// pages for written that are not. A partition where that fails is not opened in this run.
pub(crate) fn rewrite(dir: &DataDir, ends: &BTreeMap<PartitionId, Point>) {
    for (id, end) in ends {
        if let Err(error) = rewrite_partition(Place::unmapped(dir, *id), end) {
            tracing::error!(partition = %id, %error, "what a failed sync left of a partition can't be written anew");
            dir.give_up(*id, error.to_string());
        }
    }
}

/// The same for one partition.
pub(crate) fn rewrite_partition(place: Place<'_>, end: &Point) -> Result<(), StorageError> {
    let point = place.dir.points().get(place.id);
    let bases = segments(place)?;
    let first = bases.partition_point(|base| *base <= point.offset);
    let rewritten = bases.iter().skip(first.saturating_sub(1));
    for base in rewritten.filter(|base| **base <= end.segment) {
        let from = if *base == point.segment {
            point.position
        } else {
            0
        };
        let upto = if *base == end.segment {
            end.position
        } else {
            u64::MAX
        };
        let path = place.file(*base, LOG);
        rewrite_file(&path, from, upto).map_err(failed("write anew", &path))?;
    }
    let directory = place.directory();
    sync_file_if_present(&directory.join(partition::EPOCHS))
        .and_then(|()| disk::sync_directory_and_parents(&directory, place.dir.path()))
        .map_err(failed("sync", &directory))
}

fn rewrite_file(path: &Path, from: u64, upto: u64) -> io::Result<()> {
    let file = SegmentFile::open(path)?;
    let mut piece = vec![0; PIECE];
    let mut at = from;
    while at < upto {
        let wanted = to_usize((upto - at).min(to_u64(PIECE)));
        let read = file.read_at(&mut piece[..wanted], at)?;
        if read == 0 {
            break;
        }
        file.write_at(&piece[..read], at)?;
        at += to_u64(read);
    }
    file.sync()
}

fn file_size(path: &Path) -> Result<Option<u64>, StorageError> {
    match disk::size(path) {
        Ok(size) => Ok(Some(size)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", path)(error)),
    }
}

fn write(place: Place<'_>, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
    let file = match SegmentFile::open_or_create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk::make_directories(&place.directory())?;
            SegmentFile::open_or_create(path)?
        }
        other => other?,
    };
    file.write_at(bytes, at)
}
