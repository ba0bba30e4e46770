//! What is in the page cache and what is not: readers never wait for the disk where others wait for them.
//!
//! Invariants:
//! - A lookup or a read touches a page of a map only when it was appended lately or is in the page cache now. Otherwise
//!   it ends with a [`Cold`] that names what is missing: loaded by a thread that may wait, it is asked again.
//! - Loading populates the map (`MADV_POPULATE_READ`), or sends the bytes nowhere (`sendfile` to the null device), or reads
//!   them where neither is possible: a disk that can't be read is an error, not a signal. What was loaded is then sent out
//!   of the map. A page that is dropped again in between is read through the map; one that can't be read back then ends the
//!   process with a SIGBUS, and recovery follows: the same holds for what was appended lately.
//!
//! From performance.md section 4.

use crate::disk::SegmentFile;
use crate::error::{StorageError, failed};
use crate::faults::{self, Kind};
use crate::mmap::Mapping;
use crate::opening::Opening;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tally_protocol::ids::{to_u64, to_usize};

/// What was appended to all partitions within the last so many bytes is taken to be in the page cache.
const HOT_BYTES: u64 = 256 * 1024 * 1024;
/// A segment notes where it was at most so many times within [`HOT_BYTES`].
const MARKS: usize = 4;
/// Bytes read at a time when something is loaded, where more is not known to be wanted.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes loaded at once at most: one long read must not have a thread for itself.
const LOAD_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes behind a header that are looked at together with it: the walk goes on there.
const AHEAD_BYTES: u64 = 64 * 1024;

/// Bytes appended in a data directory since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Heat(AtomicU64);

impl Heat {
    fn add(&self, bytes: usize) -> u64 {
        self.0.fetch_add(to_u64(bytes), Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When a segment was at which size, in bytes of [`Heat`]; the oldest first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    marks: [(u64, u64); MARKS],
    count: usize,
}

impl Marks {
    /// Notes an append of `bytes` at `position`.
    pub(crate) fn appended(&mut self, heat: &Heat, position: u64, bytes: usize) {
        let now = heat.add(bytes);
        let is_due = match self.count.checked_sub(1) {
            None => true,
            Some(last) => now - self.marks[last].1 >= HOT_BYTES / to_u64(MARKS),
        };
        if !is_due {
            return;
        }
        if self.count == MARKS {
            self.marks.rotate_left(1);
            self.count -= 1;
        }
        self.marks[self.count] = (position, now);
        self.count += 1;
    }

    /// The position from which on everything was appended lately; `None` if nothing was.
    pub(crate) fn hot_from(&self, heat: &Heat) -> Option<u64> {
        let now = heat.now();
        let marks = self.marks[..self.count].iter();
        let mut hot = marks.filter(|(_, then)| now - then <= HOT_BYTES);
        hot.next().map(|(position, _)| *position)
    }

    /// Whether anything was appended in this run.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// What a lookup or a read needs from the disk: [`Cold::load`] it where waiting is allowed, then ask again.
#[derive(Clone)]
pub struct Cold(Need);

#[derive(Clone)]
enum Need {
    /// A part of a segment.
    Part {
        map: Arc<Mapping>,
        at: usize,
        len: usize,
    },
    /// A file of entries.
    Index(PathBuf),
    /// The map and the indexes of a segment.
    Segment(Arc<Opening>),
}

impl fmt::Debug for Cold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Need::Part { at, len, .. } => write!(f, "Cold({len} bytes at {at})"),
            Need::Index(path) => write!(f, "Cold({})", path.display()),
            Need::Segment(opening) => write!(f, "Cold({})", opening.path().display()),
        }
    }
}

/// Whether both need the same.
impl PartialEq for Cold {
    fn eq(&self, other: &Cold) -> bool {
        match (&self.0, &other.0) {
            (
                Need::Part { map, at, .. },
                Need::Part {
                    map: map_2,
                    at: at_2,
                    ..
                },
            ) => Arc::ptr_eq(map, map_2) && at == at_2,
            (Need::Index(path), Need::Index(path_2)) => path == path_2,
            (Need::Segment(opening), Need::Segment(opening_2)) => Arc::ptr_eq(opening, opening_2),
            _ => false,
        }
    }
}

/// How much is loaded from `position` on.
fn load_bytes(position: u64, size: u64, upto: Option<u64>) -> u64 {
    let wanted = match upto {
        Some(upto) => upto
            .saturating_sub(position)
            .clamp(AHEAD_BYTES, LOAD_BYTES_MAX),
        None => to_u64(PIECE_BYTES),
    };
    wanted.min(size - position)
}

impl Cold {
    /// The header at `position` and what is behind it, in a segment of `size` bytes of which the lookup wants those below
    /// `upto` if it knows.
    pub(crate) fn header(map: &Arc<Mapping>, position: u64, size: u64, upto: Option<u64>) -> Cold {
        let len = load_bytes(position, size, upto);
        Cold(Need::Part {
            map: Arc::clone(map),
            at: to_usize(position),
            len: to_usize(len),
        })
    }

    /// A file of entries.
    pub(crate) fn index(path: PathBuf) -> Cold {
        Cold(Need::Index(path))
    }

    /// A segment that is to be opened.
    pub(crate) fn segment(opening: Arc<Opening>) -> Cold {
        Cold(Need::Segment(opening))
    }

    /// Reads what is missing. Waits for the disk.
    pub fn load(&self) -> Result<(), StorageError> {
        match &self.0 {
            Need::Part { map, at, len } => {
                load_part(map, *at, *len).map_err(failed("read", map.path()))
            }
            Need::Index(path) => load_index(path).map_err(failed("read", path)),
            Need::Segment(opening) => opening.run(),
        }
    }
}

impl From<Cold> for StorageError {
    fn from(cold: Cold) -> StorageError {
        StorageError::NotInMemory(cold)
    }
}

thread_local! {
    /// The threads that load are few and come back.
    static PIECE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads `at..at + len` of a mapped file into the page cache.
pub(crate) fn load_part(map: &Mapping, at: usize, len: usize) -> io::Result<()> {
    let populate = || Ok(map.populate(at, len));
    if faults::on_file(map.file(), Kind::Read, populate)? {
        return Ok(());
    }
    read_over(map.file(), to_u64(at), to_u64(at + len))
}

/// An index that is gone belonged to a segment that is gone: the next try finds that out.
fn load_index(path: &Path) -> io::Result<()> {
    match SegmentFile::open(path) {
        Ok(file) => {
            let size = file.size()?;
            read_over(&file, 0, size)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Without a copy where that can be: reading a GB into a buffer costs more than all the rest of bringing it in.
fn read_over(file: &SegmentFile, from: u64, upto: u64) -> io::Result<()> {
    if file.bring_in(from, upto)? {
        return Ok(());
    }
    PIECE.with_borrow_mut(|piece| {
        piece.resize(PIECE_BYTES, 0);
        let mut at = from;
        while at < upto {
            let wanted = to_usize(upto - at).min(PIECE_BYTES);
            if file.read_at(&mut piece[..wanted], at)? < wanted {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += to_u64(wanted);
        }
        Ok(())
    })
}

/// Which bytes of one segment are known to be in memory during one lookup.
pub(crate) struct Sure {
    from: u64,
    upto: u64,
}

impl Sure {
    /// What was appended lately is.
    pub(crate) fn hot(hot_from: Option<u64>, size: u64) -> Sure {
        Sure {
            from: hot_from.unwrap_or(size),
            upto: size,
        }
    }

    /// Whether `position..end` is in memory; looks further, up to `upto` or a little, as a walk goes on there.
    pub(crate) fn holds(
        &mut self,
        map: &Mapping,
        (position, end): (u64, u64),
        size: u64,
        upto: Option<u64>,
    ) -> bool {
        if position < self.from || end > self.upto {
            let walk = upto.map_or(0, |upto| upto.saturating_sub(position));
            let ahead = walk.clamp(AHEAD_BYTES, LOAD_BYTES_MAX).max(end - position);
            let ahead = ahead.min(size - position);
            self.from = position;
            self.upto = position + to_u64(map.resident(to_usize(position), to_usize(ahead)));
        }
        end <= self.upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_a_read_wants_is_loaded_at_once_and_not_without_a_bound() {
        let (kib, size) = (1024, 64 << 20);
        assert_eq!(load_bytes(0, size, None), 256 * kib);
        assert_eq!(load_bytes(kib, size, Some(901 * kib)), 900 * kib);
        assert_eq!(load_bytes(0, size, Some(50 << 20)), 1024 * kib);
        assert_eq!(load_bytes(900 * kib, size, Some(900 * kib)), 64 * kib);
        assert_eq!(load_bytes(size - 7, size, Some(u64::MAX)), 7);
    }

    #[test]
    fn what_was_appended_within_the_last_bytes_is_hot() {
        let heat = Heat::default();
        let (mut ours, mut theirs) = (Marks::default(), Marks::default());
        assert_eq!(ours.hot_from(&heat), None);
        for at in 0..300 {
            ours.appended(&heat, at << 20, MIB);
        }
        let from = ours.hot_from(&heat).unwrap();
        assert!(
            ((44 << 20)..=(108 << 20)).contains(&from),
            "of the last 256 MiB at most 64 are given up: {from}"
        );
        for at in 0..257 {
            theirs.appended(&heat, at << 20, MIB);
        }
        assert_eq!(ours.hot_from(&heat), None, "others have appended since");
        ours.appended(&heat, 300 << 20, MIB);
        assert_eq!(ours.hot_from(&heat), Some(300 << 20));
    }

    #[test]
    fn a_segment_that_grows_slowly_stays_hot_for_as_long() {
        let heat = Heat::default();
        let (mut slow, mut fast) = (Marks::default(), Marks::default());
        slow.appended(&heat, 0, 100);
        fast.appended(&heat, 0, 200 * MIB);
        slow.appended(&heat, 100, 100);
        assert_eq!(slow.hot_from(&heat), Some(0));
        fast.appended(&heat, 200 << 20, 100 * MIB);
        assert_eq!(slow.hot_from(&heat), Some(100));
    }
}
