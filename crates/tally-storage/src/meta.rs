//! The metadata seam, and the file behind it on one node: small, rare, agreed (N11).
//!
//! Invariants: the file always holds one whole revision, with a checksum; a revision is on the disk before `commit`
//! returns it; a writer that has not seen the newest revision is refused.
//!
//! A full disk must not keep anybody from deleting topics, nor a broker from starting, and both write here: some space is
//! kept in a file of its own, to be given up for that.

use crate::data_dir::DataDir;
use crate::disk::{self, SegmentFile, Sync};
use crate::segment::is_full;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// The number of a state of the metadata; each commit makes the next one. 0 is the empty state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Revision(pub u64);

/// Why metadata could not be read or written.
#[derive(Debug, Error)]
pub enum MetaError {
    /// Somebody else committed first: load, decide again, commit again.
    #[error("the metadata is at revision {}, not {}", found.0, expected.0)]
    Conflict {
        /// What the writer had seen.
        expected: Revision,
        /// What is there.
        found: Revision,
    },
    /// The file does not hold what was written to it.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file operation failed. After a failed commit the store answers nothing more: which revision is on the disk is
    /// only known after a restart. A full disk is no such failure: nothing has changed, and there may be room later
    /// (N15).
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

/// Names and values that all parts of the broker agree on.
pub trait MetaStore {
    /// Everything, and its revision.
    fn load(&self) -> Result<(BTreeMap<String, String>, Revision), MetaError>;

    /// Sets (`Some`) and removes (`None`) values, all or none, if the metadata is still at `expect`. Durable on return.
    fn commit(
        &self,
        expect: Revision,
        writes: &[(String, Option<String>)],
    ) -> Result<Revision, MetaError>;
}

/// Bytes kept for a full disk: the metadata of thousands of topics.
const SPARE_BYTES: u64 = 1024 * 1024;

/// The metadata in one file of the data directory, replaced as a whole at each commit.
#[derive(Debug)]
pub struct FileMetaStore {
    path: PathBuf,
    spare: PathBuf,
    state: Mutex<State>,
    /// Keeps the directory's lock.
    _dir: Arc<DataDir>,
}

#[derive(Debug)]
struct State {
    values: BTreeMap<String, String>,
    revision: Revision,
    /// Set by a failed write.
    failed: bool,
    has_spare: bool,
}

impl FileMetaStore {
    /// Reads the metadata of `dir`; a directory without any is at revision 0.
    pub fn open(dir: Arc<DataDir>) -> Result<FileMetaStore, MetaError> {
        let path = dir.meta_path();
        let spare = dir.spare_path();
        let bytes = disk::read(&path).map_err(|source| MetaError::Io {
            what: "read",
            path: path.clone(),
            source,
        })?;
        let (values, revision) = match bytes {
            None => (BTreeMap::new(), Revision(0)),
            Some(bytes) => decode(&bytes).map_err(|reason| MetaError::Corrupt {
                path: path.clone(),
                reason,
            })?,
        };
        let state = Mutex::new(State {
            values,
            revision,
            failed: false,
            has_spare: make_spare(&spare),
        });
        Ok(FileMetaStore {
            path,
            spare,
            state,
            _dir: dir,
        })
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, MetaError> {
        // The state changes in one place, after everything that can fail: a panic elsewhere leaves it whole.
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failed {
            return Err(MetaError::Io {
                what: "use",
                path: self.path.clone(),
                source: io::Error::other("an earlier write failed"),
            });
        }
        Ok(state)
    }
}

impl FileMetaStore {
    fn write(&self, bytes: &[u8], has_spare: &mut bool) -> io::Result<()> {
        let write = || disk::replace(&self.path, bytes, Sync::Yes);
        match write() {
            Err(error) if is_full(&error) && *has_spare => {
                *has_spare = false;
                disk::remove_if_present(&self.spare)?;
                write()
            }
            Ok(()) => {
                *has_spare = *has_spare || make_spare(&self.spare);
                Ok(())
            }
            other => other,
        }
    }
}

/// Takes the space; whether there is any. A disk without it is none the worse.
fn make_spare(path: &Path) -> bool {
    let taken = SegmentFile::open_or_create(path).and_then(|file| file.allocate(0, SPARE_BYTES));
    if taken.is_err() {
        disk::remove_if_present(path).ok();
    }
    taken.is_ok()
}

impl MetaStore for FileMetaStore {
    fn load(&self) -> Result<(BTreeMap<String, String>, Revision), MetaError> {
        let state = self.state()?;
        Ok((state.values.clone(), state.revision))
    }

    fn commit(
        &self,
        expect: Revision,
        writes: &[(String, Option<String>)],
    ) -> Result<Revision, MetaError> {
        let mut state = self.state()?;
        if state.revision != expect {
            return Err(MetaError::Conflict {
                expected: expect,
                found: state.revision,
            });
        }
        let mut values = state.values.clone();
        for (key, value) in writes {
            match value {
                Some(value) => values.insert(key.clone(), value.clone()),
                None => values.remove(key),
            };
        }
        let revision = Revision(expect.0 + 1);
        if let Err(source) = self.write(&encode(&values, revision), &mut state.has_spare) {
            state.failed = !is_full(&source);
            return Err(MetaError::Io {
                what: "write",
                path: self.path.clone(),
                source,
            });
        }
        state.values = values;
        state.revision = revision;
        Ok(revision)
    }
}

const MAGIC: &[u8; 8] = b"tallymet";
const VERSION: u32 = 1;
/// Magic, version, checksum.
const CHECKED_FROM: usize = 16;

fn encode(values: &BTreeMap<String, String>, revision: Revision) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&revision.0.to_be_bytes());
    put_length(&mut bytes, values.len());
    for (key, value) in values {
        for text in [key, value] {
            put_length(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    let checksum = crc32c::crc32c(&bytes[CHECKED_FROM..]);
    bytes[12..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("metadata stays far below 4 GiB");
    bytes.extend_from_slice(&length.to_be_bytes());
}

/// Reads what `encode` wrote.
pub(crate) fn decode(bytes: &[u8]) -> Result<(BTreeMap<String, String>, Revision), &'static str> {
    const SHORT: &str = "it ends too early";
    let mut rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin right")?;
    if take_u32(&mut rest).ok_or(SHORT)? != VERSION {
        return Err("its version is unknown");
    }
    if take_u32(&mut rest).ok_or(SHORT)? != crc32c::crc32c(rest) {
        return Err("its checksum does not match");
    }
    let revision = take(&mut rest, 8).ok_or(SHORT)?;
    let revision = revision.try_into().expect("eight bytes were taken");
    let count = take_u32(&mut rest).ok_or(SHORT)?;
    let mut values = BTreeMap::new();
    for _ in 0..count {
        let key = take_text(&mut rest).ok_or(SHORT)?;
        let value = take_text(&mut rest).ok_or(SHORT)?;
        values.insert(key, value);
    }
    if !rest.is_empty() {
        return Err("it goes on too long");
    }
    Ok((values, Revision(u64::from_be_bytes(revision))))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(u32::from_be_bytes(*taken))
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take_u32(rest)?).ok()?;
    String::from_utf8(take(rest, length)?.to_vec()).ok()
}
