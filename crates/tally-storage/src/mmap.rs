//! Memory maps: segments are read through [`Mapping`], indexes live in a [`Table`].
//!
//! All unsafe code that is released is here. What it leans on: a data directory has one process (its lock), and in that
//! process a mapped file never shrinks below the bytes that are handed out. Appends go through `pwrite` into the same
//! file: the kernel's page cache makes both views one (performance.md 3.1).

#![allow(
    unsafe_code,
    reason = "the one module with maps; every block says who keeps it sound"
)]

use crate::cold::load_part;
use crate::disk::SegmentFile;
use crate::error::{StorageError, failed};
use memmap2::{MmapOptions, MmapRaw};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tally_protocol::ids::to_u64;

/// A segment, mapped for reading at its capacity, which may lie beyond the end of the file. Only published bytes are
/// ever looked at.
pub(crate) struct Mapping {
    map: MmapRaw,
    published: AtomicUsize,
    /// What is not in memory is read from here.
    file: SegmentFile,
    path: PathBuf,
    /// How many maps there are of the same journal.
    count: Arc<AtomicUsize>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Mapping {
    /// Maps the file at `path` for `capacity` bytes, the first `published` of which are written.
    pub(crate) fn open(
        path: &Path,
        capacity: usize,
        published: usize,
        count: &Arc<AtomicUsize>,
    ) -> io::Result<Arc<Mapping>> {
        let file = SegmentFile::open(path)?;
        let capacity = capacity.max(published).max(1);
        let map = MmapOptions::new()
            .len(capacity)
            .map_raw_read_only(file.for_map())?;
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Mapping {
            map,
            published: AtomicUsize::new(published),
            file,
            path: path.to_owned(),
            count: Arc::clone(count),
        }))
    }

    /// The file behind the map.
    pub(crate) fn file(&self) -> &SegmentFile {
        &self.file
    }

    /// Where that was when it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many of the published bytes `at..at + len` are in the page cache, counted up to the first that is not.
    pub(crate) fn resident(&self, at: usize, len: usize) -> usize {
        let end = at.checked_add(len).expect("positions are below 2^32");
        assert!(end <= self.capacity(), "only mapped bytes are asked about");
        resident(&self.map, at, len)
    }

    /// Has the kernel read `at..at + len` into memory and note it in the map, and waits for it: who sends it out of the map then
    /// meets not even a minor fault. `false` where the kernel can't (before Linux 5.14) or the disk didn't: reading tells why.
    pub(crate) fn populate(&self, at: usize, len: usize) -> bool {
        let end = at.checked_add(len).expect("positions are below 2^32");
        assert!(
            end <= self.published.load(Ordering::Acquire),
            "only published bytes are read"
        );
        let from = at - at % rustix::param::page_size();
        // SAFETY: `from` is a multiple of the page size and `from..end` lies in the map, as `publish` and `open` keep
        // `published` within it. The advice only reads, and an error of the disk is its answer, not a signal.
        unsafe {
            let start = self.map.as_mut_ptr().add(from).cast();
            libc::madvise(start, end - from, libc::MADV_POPULATE_READ) == 0
        }
    }

    /// Bytes that the map can ever show.
    pub(crate) fn capacity(&self) -> usize {
        self.map.len()
    }

    /// Makes the bytes below `end` readable. They are written, and the file is never cut below them while it is mapped:
    /// a segment is only ever cut at its published end, or by recovery before it is mapped.
    pub(crate) fn publish(&self, end: usize) {
        assert!(end <= self.capacity(), "published bytes lie within the map");
        let before = self.published.load(Ordering::Relaxed);
        assert!(before <= end, "what was published stays published");
        self.published.store(end, Ordering::Release);
    }

    /// The bytes `at..at + len`, all published.
    pub(crate) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        let end = at.checked_add(len).expect("positions are below 2^32");
        assert!(
            end <= self.published.load(Ordering::Acquire),
            "only published bytes are read"
        );
        // SAFETY: the range lies in the map, as `publish` and `new` keep `published` within it. Behind it are bytes of
        // the file, which never shrinks below the published end (see `publish`), so that no load can fault for lack of
        // a page; published bytes never change, so that the shared reference is honest.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(at), len) }
    }

    /// The same bytes, keeping the map alive.
    pub(crate) fn slice(self: &Arc<Self>, at: usize, len: usize, is_hot: bool) -> Slice {
        self.bytes(at, len);
        Slice {
            mapping: Arc::clone(self),
            at,
            len,
            is_hot,
        }
    }
}

/// Asks the kernel about so many pages at a time.
const PAGES_ASKED: usize = 1024;

/// How many bytes of `at..at + len` are in the page cache, counted up to the first that is not. A kernel that does not
/// tell is taken to have them all.
fn resident(map: &MmapRaw, at: usize, len: usize) -> usize {
    let page = rustix::param::page_size();
    let (mut from, end) = (at - at % page, at + len);
    let mut pages = [0u8; PAGES_ASKED];
    while from < end {
        let asked = (end - from).min(PAGES_ASKED * page);
        // SAFETY: `from` is a multiple of the page size and `from..from + asked` lies in the map, as callers assert;
        // `pages` has a byte for each page of it. Nothing is read or written through the map.
        let outcome = unsafe {
            libc::mincore(
                map.as_mut_ptr().add(from).cast(),
                asked,
                pages.as_mut_ptr().cast(),
            )
        };
        if outcome != 0 {
            return len;
        }
        let told = &pages[..asked.div_ceil(page)];
        if let Some(missing) = told.iter().position(|state| state & 1 == 0) {
            return (from + missing * page).saturating_sub(at);
        }
        from += asked;
    }
    len
}

/// Whole batches of one segment, read in place. Cheap to clone; stays readable when the segment is deleted.
#[derive(Clone)]
pub struct Slice {
    mapping: Arc<Mapping>,
    at: usize,
    len: usize,
    /// Appended lately.
    is_hot: bool,
}

impl Slice {
    /// Whether all of it is in memory, so that reading it does not wait for the disk.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.is_hot || self.mapping.resident(self.at, self.len) == self.len
    }

    /// Reads it into memory. Waits for the disk; an error is the disk's.
    pub fn load(&self) -> Result<(), StorageError> {
        load_part(&self.mapping, self.at, self.len).map_err(failed("read", self.mapping.path()))
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapping.bytes(self.at, self.len)
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes at {})", self.len, self.at)
    }
}

/// A file of small entries, read and written through a map. Disk space comes before the first store into a page.
#[derive(Default)]
pub(crate) struct Table {
    map: Option<MmapRaw>,
    /// Bytes at the start of the map that the file has.
    allocated: usize,
}

impl Table {
    /// Maps the whole of `file`, `size` bytes of it.
    pub(crate) fn map(file: &SegmentFile, size: usize) -> io::Result<Table> {
        if size == 0 {
            return Ok(Table::default());
        }
        let map = MmapOptions::new().len(size).map_raw(file.for_map())?;
        Ok(Table {
            map: Some(map),
            allocated: size,
        })
    }

    /// Bytes that may be loaded and stored.
    pub(crate) fn allocated(&self) -> usize {
        self.allocated
    }

    /// Whether all of them are in the page cache.
    pub(crate) fn is_in_memory(&self) -> bool {
        let map = self.map.as_ref();
        map.is_none_or(|map| resident(map, 0, self.allocated) == self.allocated)
    }

    /// Makes `upto` bytes usable. The map is made for `capacity` bytes at once, so that growing again needs no new one.
    pub(crate) fn grow(
        &mut self,
        file: &SegmentFile,
        upto: usize,
        capacity: usize,
    ) -> io::Result<()> {
        if upto <= self.allocated {
            return Ok(());
        }
        file.allocate(to_u64(self.allocated), to_u64(upto))?;
        if self.map.as_ref().is_none_or(|map| map.len() < upto) {
            let capacity = capacity.max(upto);
            let map = MmapOptions::new().len(capacity).map_raw(file.for_map())?;
            self.map = Some(map);
        }
        self.allocated = upto;
        Ok(())
    }

    /// Cuts the file at `size`, which is at most what it has.
    pub(crate) fn trim(&mut self, file: &SegmentFile, size: usize) -> io::Result<()> {
        self.allocated = self.allocated.min(size);
        file.truncate(to_u64(size))
    }

    /// The `N` bytes at `at`.
    pub(crate) fn load<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        let from = self.place(at, N);
        // SAFETY: `place` checked that the range lies in the allocated part of the map, whose file only `trim` makes
        // smaller, after lowering `allocated`. `bytes` is our own and as long.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), N) };
        bytes
    }

    /// Sets the bytes at `at`.
    pub(crate) fn store(&mut self, at: usize, bytes: &[u8]) {
        let to = self.place(at, bytes.len());
        // SAFETY: as in `load`; the space is allocated, so that the store can't meet a full disk, the map is writable,
        // and `&mut self` keeps everybody else away.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    fn place(&self, at: usize, len: usize) -> *mut u8 {
        let end = at.checked_add(len).expect("an index is below 2^32 bytes");
        assert!(end <= self.allocated, "entries lie in allocated space");
        let map = self.map.as_ref().expect("allocated space is mapped");
        // SAFETY: `at` is at most `allocated`, which is at most the length of the map.
        unsafe { map.as_mut_ptr().add(at) }
    }
}
