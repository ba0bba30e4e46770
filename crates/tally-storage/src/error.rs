//! What can go wrong, by what a caller can do about it.

use crate::cold::Cold;
use crate::segment::is_full;
use std::io;
use std::path::{Path, PathBuf};
use tally_protocol::{Offset, PartitionId};
use thiserror::Error;

/// Why a data directory could not be opened.
#[derive(Debug, Error)]
pub enum OpenDirError {
    /// Another process, or another part of this one, has the directory.
    #[error("the data directory {} is in use by process {}", path.display(), pid.map_or_else(|| "(unknown)".to_owned(), |pid| pid.to_string()))]
    AlreadyInUse {
        /// The directory.
        path: PathBuf,
        /// The process that has it, as it wrote it down.
        pid: Option<u32>,
    },
    /// The directory was written by a version with another layout.
    #[error("the data directory {} has format {found}, this version reads format {supported}", path.display())]
    UnsupportedFormat {
        /// The directory.
        path: PathBuf,
        /// What its `format` file says.
        found: String,
        /// What this version reads and writes.
        supported: u32,
    },
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl From<StorageError> for OpenDirError {
    fn from(error: StorageError) -> OpenDirError {
        match error {
            StorageError::Io { what, path, source } => OpenDirError::Io { what, path, source },
            other => OpenDirError::Io {
                what: "bring the journal into",
                path: PathBuf::new(),
                source: io::Error::other(other.to_string()),
            },
        }
    }
}

/// Why an operation on a partition failed.
#[derive(Debug, Error)]
pub enum StorageError {
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file does not hold what was written to it.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The offset is below the log start or above the log end.
    #[error("offset {offset} is outside {log_start}..={log_end}")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The first offset there is.
        log_start: Offset,
        /// The offset after the last one.
        log_end: Offset,
    },
    /// No failure: what is needed is on the disk only. Loaded where waiting is allowed, the same can be asked again.
    #[error("not in memory yet: {0:?}")]
    NotInMemory(Cold),
    /// The partition has not been opened.
    #[error("partition {0} is not open")]
    NotOpen(PartitionId),
}

impl StorageError {
    /// Whether the disk or a quota has no room: what removes files may go on.
    #[must_use]
    pub fn is_out_of_room(&self) -> bool {
        matches!(self, StorageError::Io { source, .. } if is_full(source))
    }
}

/// The disk has no room for an append: nothing has changed, and a later try may succeed (N15).
#[derive(Debug, Error)]
#[error("no room for {bytes} bytes in {partition}: {source}")]
pub struct NoRoom {
    /// The partition.
    pub partition: PartitionId,
    /// What was asked for.
    pub bytes: usize,
    /// The system's reason: a full disk or quota, or whatever else kept the files from growing.
    pub source: io::Error,
}

/// Turns an I/O error into [`StorageError::Io`], naming the operation and the file.
pub(crate) fn failed(
    what: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(io::Error) -> StorageError {
    move |source| StorageError::Io {
        what,
        path: path.as_ref().to_owned(),
        source,
    }
}
