//! Where a test sees, and spoils, what is done to files, and where a process can be made to die (feature `faults`).
//!
//! Two things, both for tests alone. An [`Observer`] belongs to a thread: it is told of every operation of the module `disk`
//! before and after, and may let it fail or stop it half-way; stores through a map are not told of, they are found by
//! comparing. A [`point`] is a place with a name, where the variable `TALLY_FAULT` ends the process as `kill -9` would, makes a
//! write fail or holds a request back: see the module `points`. Without the feature both cost nothing: the module
//! `no_faults` stands here.

mod points;

pub use points::{Hold, around, clock_ms, fails, hold, point};
pub(crate) use points::{die, is_due, point_of_file};

use crate::disk::SegmentFile;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A file is opened that must be there.
    Open,
    /// A file is made that must not be there.
    Create,
    /// A file is opened, and made where it is missing.
    OpenOrCreate,
    /// Bytes are written.
    Write {
        /// Where.
        at: u64,
        /// Which.
        bytes: &'a [u8],
    },
    /// Bytes are read.
    Read,
    /// Disk space is taken, the size stays.
    Reserve {
        /// From this byte.
        from: u64,
        /// Up to this one.
        upto: u64,
    },
    /// Disk space is taken, the size grows.
    Allocate {
        /// From this byte.
        from: u64,
        /// Up to this one.
        upto: u64,
    },
    /// The size is set.
    Truncate {
        /// To this.
        size: u64,
    },
    /// The time of the last write is set.
    SetModified,
    /// The bytes and the size of a file are brought to the disk.
    Sync,
    /// Everything is brought to the disk.
    SyncFileSystem,
    /// The names of a directory are brought to the disk.
    SyncDirectory,
    /// One directory is made.
    MakeDirectory,
    /// A file is removed.
    RemoveFile,
    /// An empty directory is removed.
    RemoveDirectory,
    /// A file or directory gets another name.
    Rename {
        /// The new one.
        to: &'a Path,
    },
}

impl Kind<'_> {
    /// Whether it leaves something on the disk that was not there before.
    #[must_use]
    pub fn changes(&self) -> bool {
        !matches!(self, Kind::Open | Kind::Read)
    }
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// What is done.
    pub kind: Kind<'a>,
    /// To whom: the name under which a file was opened, which may not be its name any more.
    pub path: &'a Path,
    /// The file, if it is open.
    pub file: Option<&'a File>,
}

/// What an observer makes of an operation.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on.
    Go,
    /// It does nothing and returns this error.
    Fail(io::Error),
    /// A write puts so many of its bytes in place, then returns this error.
    Short(usize, io::Error),
}

/// Somebody who is told of every operation of a thread.
pub trait Observer {
    /// It is about to be done.
    fn before(&self, operation: &Operation<'_>) -> Verdict;

    /// It was done, wholly or in part, or was not.
    fn after(&self, operation: &Operation<'_>, error: Option<&io::Error>);

    /// The id of the kernel's run, if it is not to be the real one.
    fn boot_id(&self) -> Option<String> {
        None
    }
}

thread_local! {
    static OBSERVER: RefCell<Option<Rc<dyn Observer>>> = const { RefCell::new(None) };
}

/// Takes the observer away again when it is dropped.
#[must_use = "the observer goes with it"]
pub struct Installed {
    before: Option<Rc<dyn Observer>>,
}

impl Drop for Installed {
    fn drop(&mut self) {
        let before = self.before.take();
        OBSERVER.with_borrow_mut(|current| *current = before);
    }
}

/// Has `observer` told of every operation of this thread from now on.
pub fn install(observer: Rc<dyn Observer>) -> Installed {
    let before = OBSERVER.with_borrow_mut(|current| current.replace(observer));
    Installed { before }
}

fn observer() -> Option<Rc<dyn Observer>> {
    OBSERVER.with_borrow(Clone::clone)
}

/// The name of an open file, for observers.
#[derive(Debug, Clone)]
pub(crate) struct Seen(PathBuf);

impl Seen {
    pub(crate) fn new(path: &Path) -> Seen {
        Seen(path.to_owned())
    }
}

/// Does `real` to an open file, as far as the observer lets it.
pub(crate) fn on_file<T>(
    file: &SegmentFile,
    kind: Kind<'_>,
    real: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let operation = Operation {
        kind,
        path: &file.seen().0,
        file: Some(file.for_map()),
    };
    observed(&operation, real)
}

/// Does `real` to a name, as far as the observer lets it.
pub(crate) fn on_path<T>(
    path: &Path,
    kind: Kind<'_>,
    real: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let operation = Operation {
        kind,
        path,
        file: None,
    };
    observed(&operation, real)
}

fn observed<T>(operation: &Operation<'_>, real: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(observer) = observer() else {
        return real();
    };
    let outcome = match observer.before(operation) {
        Verdict::Go => real(),
        Verdict::Fail(error) => Err(error),
        Verdict::Short(some, error) => match (operation.kind, operation.file) {
            (Kind::Write { at, bytes }, Some(file)) => {
                std::os::unix::fs::FileExt::write_all_at(file, &bytes[..some], at)?;
                Err(error)
            }
            _ => Err(error),
        },
    };
    observer.after(operation, outcome.as_ref().err());
    outcome
}

/// Whether directories have to be made and removed in single steps, for somebody looks at each.
pub(crate) fn is_observed() -> bool {
    observer().is_some()
}

/// The id of the kernel's run that the observer wants to be seen.
pub(crate) fn boot_id() -> Option<String> {
    observer()?.boot_id()
}
