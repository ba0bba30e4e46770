//! How far the segments of each partition are known to be on the disk, and where the redo of the journal begins: the two
//! files `recovery-points-0` and `-1`, byte by byte in `docs/storage-format.md`.
//!
//! Invariants: the files are written in turns, each in its place, so that a torn one leaves the other; what is in memory is
//! what the last whole file says, but for partitions that were removed; a point never passes bytes that were not synced
//!

use crate::disk::{self, SegmentFile};
use crate::sync_journal::Durability;
use crate::tail::lock;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tally_protocol::ids::{to_u64, to_usize};
use tally_protocol::{Offset, PartitionId, TopicId};

pub(crate) const NAMES: [&str; 2] = ["recovery-points-0", "recovery-points-1"];
const MAGIC: &[u8; 8] = b"tallyrpt";
const VERSION: u32 = 1;
/// Magic, version, checksum.
const CHECKED_FROM: usize = 16;
const HEADER: usize = 48;
const ENTRY: usize = 44;
/// The number of the first group of a generation.
pub(crate) const FIRST_GROUP: u64 = 1;
/// The files grow in steps of this, so that a full disk is met seldom.
const STEP: usize = 4096;

/// Below this offset everything of a partition is on the disk, in its segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Point {
    pub(crate) offset: Offset,
    /// The segment that ends there or goes on behind it.
    pub(crate) segment: Offset,
    /// Where in that segment.
    pub(crate) position: u64,
}

impl Point {
    pub(crate) const START: Point = Point {
        offset: Offset::ZERO,
        segment: Offset::ZERO,
        position: 0,
    };

    /// The same, but at most there in this segment, if it is in it. Its offset is then one that is certain.
    pub(crate) fn lowered(self, segment: Offset, position: u64) -> Point {
        if self.segment != segment || self.position <= position {
            return self;
        }
        self.moved_to(position)
    }

    /// The same, elsewhere in its segment.
    pub(crate) fn moved_to(self, position: u64) -> Point {
        Point {
            offset: match position == self.position {
                true => self.offset,
                false => self.segment,
            },
            position,
            ..self
        }
    }
}

/// What one file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Checkpoint {
    /// One more with each file written.
    pub(crate) counter: u64,
    /// That of the run that wrote segments since.
    pub(crate) durability: Durability,
    /// The groups of the journal that count carry this number; 0: there are none.
    pub(crate) generation: u64,
    /// The first group of the journal whose bytes may be missing in the segments.
    pub(crate) redo_from: u64,
    pub(crate) points: BTreeMap<PartitionId, Point>,
}

impl Checkpoint {
    const EMPTY: Checkpoint = Checkpoint {
        counter: 0,
        durability: Durability::Os,
        generation: 0,
        redo_from: 0,
        points: BTreeMap::new(),
    };

    /// Begins a generation of the journal in which no group has been written.
    pub(crate) fn begin(&mut self, generation: u64) {
        self.generation = generation;
        self.redo_from = FIRST_GROUP;
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + ENTRY * self.points.len() + STEP);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.counter.to_be_bytes());
        let durability: u32 = match self.durability {
            Durability::Memory | Durability::Os => 0,
            Durability::Commit => 1,
            Durability::Always => 2,
        };
        bytes.extend_from_slice(&durability.to_be_bytes());
        let count = u32::try_from(self.points.len()).expect("far fewer partitions than 2^32");
        bytes.extend_from_slice(&count.to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.redo_from.to_be_bytes());
        for (id, point) in &self.points {
            bytes.extend_from_slice(&id.topic.0);
            bytes.extend_from_slice(&id.index.to_be_bytes());
            bytes.extend_from_slice(&point.offset.0.to_be_bytes());
            bytes.extend_from_slice(&point.segment.0.to_be_bytes());
            bytes.extend_from_slice(&point.position.to_be_bytes());
        }
        let checksum = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        bytes[12..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
        bytes.resize(bytes.len().next_multiple_of(STEP), 0);
        bytes
    }

    /// Reads a file for those who look at it: the bytes that mean nothing have to be right too.
    pub(crate) fn read(bytes: &[u8]) -> Option<Checkpoint> {
        // An earlier file of this name may have been longer.
        Checkpoint::decode(bytes).filter(|found| bytes.starts_with(&found.encode()))
    }

    /// Reads a file; `None` if it is not what `encode` writes, which a torn one is not.
    fn decode(bytes: &[u8]) -> Option<Checkpoint> {
        let number = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let small = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        if !bytes.starts_with(MAGIC) || small(8)? != VERSION {
            return None;
        }
        let count = to_usize(u64::from(small(28)?));
        let end = count.checked_mul(ENTRY)?.checked_add(HEADER)?;
        if crc32c::crc32c(bytes.get(CHECKED_FROM..end)?) != small(12)? {
            return None;
        }
        let mut points = BTreeMap::new();
        for entry in bytes[HEADER..end].chunks_exact(ENTRY) {
            let signed = |at: usize| Some(i64::from_be_bytes(*entry.get(at..)?.first_chunk()?));
            let id = PartitionId {
                topic: TopicId(*entry.first_chunk()?),
                index: i32::from_be_bytes(*entry.get(16..)?.first_chunk()?),
            };
            let point = Point {
                offset: Offset(signed(20)?),
                segment: Offset(signed(28)?),
                position: u64::from_be_bytes(*entry.get(36..)?.first_chunk()?),
            };
            points.insert(id, point);
        }
        Some(Checkpoint {
            counter: number(16)?,
            durability: match small(24)? {
                1 => Durability::Commit,
                2 => Durability::Always,
                _ => Durability::Os,
            },
            generation: number(32)?,
            redo_from: number(40)?,
            points,
        })
    }
}

/// The recovery points of a data directory.
#[derive(Debug)]
pub(crate) struct RecoveryPoints {
    root: PathBuf,
    current: Mutex<Checkpoint>,
    /// Points for the next file.
    noted: Mutex<BTreeMap<PartitionId, Point>>,
    /// One writer at a time; whether the names of the files are on the disk.
    writing: Mutex<bool>,
    /// The points in memory differ from those of the file.
    changed: AtomicBool,
}

impl RecoveryPoints {
    /// Reads the files of `root`: the newer one that is whole counts.
    pub(crate) fn load(root: &Path) -> io::Result<RecoveryPoints> {
        let mut newest = Checkpoint::EMPTY;
        for name in NAMES {
            let bytes = disk::read(&root.join(name))?.unwrap_or_default();
            if let Some(found) = Checkpoint::decode(&bytes)
                && found.counter > newest.counter
            {
                newest = found;
            }
        }
        Ok(RecoveryPoints {
            root: root.to_owned(),
            current: Mutex::new(newest),
            noted: Mutex::new(BTreeMap::new()),
            writing: Mutex::new(false),
            changed: AtomicBool::new(false),
        })
    }

    /// What the file says.
    pub(crate) fn current(&self) -> Checkpoint {
        lock(&self.current).clone()
    }

    /// The durability of the run that wrote segments since the file was written.
    pub(crate) fn durability(&self) -> Durability {
        lock(&self.current).durability
    }

    /// The first group of the journal that is needed.
    pub(crate) fn redo_from(&self) -> u64 {
        lock(&self.current).redo_from
    }

    /// The point of a partition.
    pub(crate) fn get(&self, partition: PartitionId) -> Point {
        let current = lock(&self.current);
        let point = current.points.get(&partition);
        point.copied().unwrap_or(Point::START)
    }

    /// Notes a point for the next file, where all below it is synced; until then the old one counts.
    pub(crate) fn note(&self, partition: PartitionId, point: Point) {
        if self.get(partition) != point {
            lock(&self.noted).insert(partition, point);
            self.changed.store(true, Ordering::Release);
        }
    }

    /// Forgets a partition that is removed.
    pub(crate) fn forget(&self, partition: PartitionId) {
        lock(&self.noted).remove(&partition);
        if lock(&self.current).points.remove(&partition).is_some() {
            self.changed.store(true, Ordering::Release);
        }
    }

    /// Takes a point back, on the disk first.
    pub(crate) fn set(&self, partition: PartitionId, point: Option<Point>) -> io::Result<()> {
        lock(&self.noted).remove(&partition);
        self.update(|next| match point {
            Some(point) => _ = next.points.insert(partition, point),
            None => _ = next.points.remove(&partition),
        })
    }

    /// Whether there is something to be written.
    pub(crate) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    /// Changes the points, on the disk first.
    pub(crate) fn update(&self, change: impl Fn(&mut Checkpoint)) -> io::Result<()> {
        let mut names_synced = lock(&self.writing);
        self.changed.store(false, Ordering::Release);
        let before = self.current();
        let mut next = before.clone();
        let noted = std::mem::take(&mut *lock(&self.noted));
        next.points
            .extend(noted.iter().map(|(id, point)| (*id, *point)));
        change(&mut next);
        next.counter += 1;
        if let Err(error) = self.write(&next, &mut names_synced) {
            // What was noted meanwhile is newer.
            let mut kept = lock(&self.noted);
            for (id, point) in noted {
                kept.entry(id).or_insert(point);
            }
            self.changed.store(true, Ordering::Release);
            return Err(error);
        }
        let mut current = lock(&self.current);
        // A partition that was forgotten meanwhile stays so.
        next.points
            .retain(|id, _| !before.points.contains_key(id) || current.points.contains_key(id));
        *current = next;
        Ok(())
    }

    fn write(&self, next: &Checkpoint, names_synced: &mut bool) -> io::Result<()> {
        let name = NAMES[to_usize(next.counter % to_u64(NAMES.len()))];
        let file = SegmentFile::open_or_create(&self.root.join(name))?;
        file.write_at(&next.encode(), 0)?;
        file.sync()?;
        if !*names_synced {
            disk::sync_directory(&self.root)?;
            *names_synced = next.counter > 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let id = |index| PartitionId {
            topic: TopicId([9; 16]),
            index,
        };
        let point = |offset: i64| Point {
            offset: Offset(offset),
            segment: Offset(offset / 2),
            position: 77,
        };
        Checkpoint {
            counter: 12,
            durability: Durability::Always,
            generation: 0x1234_5678_9abc_def0,
            redo_from: 44,
            points: (0..200)
                .map(|index| (id(index), point(i64::from(index) * 10)))
                .collect(),
        }
    }

    #[test]
    fn a_file_is_read_back() {
        let whole = checkpoint();
        let bytes = whole.encode();
        assert_eq!(bytes.len() % STEP, 0);
        assert_eq!(Checkpoint::decode(&bytes), Some(whole));
    }

    #[test]
    fn damage_of_any_byte_is_noticed() {
        let bytes = checkpoint().encode();
        for at in 0..HEADER + 200 * ENTRY {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert_eq!(Checkpoint::decode(&bad), None, "byte {at}");
            assert_eq!(Checkpoint::decode(&bytes[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn a_torn_file_leaves_the_one_before() {
        let root = tempfile::tempdir().expect("a directory");
        let points = RecoveryPoints::load(root.path()).expect("nothing there");
        for redo_from in 1..6 {
            points
                .update(|next| next.redo_from = redo_from)
                .expect("written");
        }
        let newest = root.path().join(NAMES[1]);
        let mut bytes = std::fs::read(&newest).expect("there");
        bytes[20] ^= 1;
        std::fs::write(&newest, bytes).expect("written");
        let before = RecoveryPoints::load(root.path())
            .expect("readable")
            .current();
        assert_eq!((before.counter, before.redo_from), (4, 4));
    }
}
