//! Stands in for `faults` where tests can't look: everything here is nothing, and is compiled to nothing.

use crate::disk::SegmentFile;
use std::io;
use std::path::Path;

#[derive(Clone, Copy)]
#[allow(dead_code, reason = "said for observers, of which there are none")]
pub(crate) enum Kind<'a> {
    Open,
    Create,
    OpenOrCreate,
    Write { at: u64, bytes: &'a [u8] },
    Read,
    Reserve { from: u64, upto: u64 },
    Allocate { from: u64, upto: u64 },
    Truncate { size: u64 },
    SetModified,
    Sync,
    SyncFileSystem,
    SyncDirectory,
    MakeDirectory,
    RemoveFile,
    RemoveDirectory,
    Rename { to: &'a Path },
}

#[derive(Debug, Clone)]
pub(crate) struct Seen;

impl Seen {
    #[inline(always)]
    pub(crate) fn new(_path: &Path) -> Seen {
        Seen
    }
}

#[inline(always)]
pub(crate) fn on_file<T>(
    file: &SegmentFile,
    _kind: Kind<'_>,
    real: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let _nobody = file.seen();
    real()
}

#[inline(always)]
pub(crate) fn on_path<T>(
    _path: &Path,
    _kind: Kind<'_>,
    real: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    real()
}

#[inline(always)]
pub(crate) fn is_observed() -> bool {
    false
}

#[inline(always)]
pub(crate) fn boot_id() -> Option<String> {
    None
}

/// A place where a test can make the process die: nothing, without the feature `faults`.
#[inline(always)]
pub fn point(_name: &str) {}

/// Does `write`; in tests there is a place to die before and after it.
#[inline(always)]
pub fn around<T>(_name: &str, write: impl FnOnce() -> T) -> T {
    write()
}

/// Whether a test wants what is about to be done to fail: never, without the feature `faults`.
#[inline(always)]
#[must_use]
pub fn fails(_name: &str) -> bool {
    false
}

/// Somebody whom a test holds back: nobody, without the feature `faults`.
#[derive(Debug)]
pub enum Hold {}

impl Hold {
    /// Whether it still has to wait.
    #[must_use]
    pub fn lasts(&self) -> bool {
        match *self {}
    }
}

/// Whether a test holds back whoever is here: never, without the feature `faults`.
#[inline(always)]
#[must_use]
pub fn hold(_name: &str) -> Option<Hold> {
    None
}

#[inline(always)]
pub(crate) fn point_of_file(_what: &str, _path: &Path) {}

/// How far the wall clock is moved: not at all.
#[inline(always)]
#[must_use]
pub fn clock_ms() -> i64 {
    0
}

#[inline(always)]
pub(crate) fn is_due(_name: &str) -> bool {
    false
}

pub(crate) fn die() -> ! {
    unreachable!("it is never time to die")
}
