//! The end of one segment, as seen by those who sync it without the lock of its shard.
//!
//! Invariants: what lies below `written` is whole batches that never change, so that they can be read and synced at any
//! time; a segment with bytes that were not synced is in the list of [`Unsynced`] from before its append returns until a
//! checkpoint takes it; a removed segment is never waited for and never missed.

use crate::data_dir::DataDir;
use crate::disk::{self, SegmentFile};
use crate::partition::EPOCHS;
use crate::segment::Place;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tally_protocol::{Offset, PartitionId};

/// How far a segment is written: both rise together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes of whole batches.
    pub(crate) size: u64,
    /// The offset after the last of them.
    pub(crate) end: Offset,
}

/// One segment that is written to, or was and is not synced.
pub(crate) struct Tail {
    pub(crate) partition: PartitionId,
    /// The first offset of the segment: its name.
    pub(crate) base: Offset,
    file: SegmentFile,
    written: Mutex<Written>,
    /// In the list of unsynced segments.
    listed: AtomicBool,
    /// Its name, or the epochs of its partition, may not be on the disk.
    names_unsynced: AtomicBool,
    /// No more appends come.
    sealed: AtomicBool,
    /// Its files are being removed.
    removed: AtomicBool,
}

impl Tail {
    /// A segment whose names may not be on the disk.
    pub(crate) fn new(place: Place<'_>, base: Offset, file: SegmentFile, at: Written) -> Arc<Tail> {
        Arc::new(Tail {
            partition: place.id,
            base,
            file,
            written: Mutex::new(at),
            listed: AtomicBool::new(false),
            names_unsynced: AtomicBool::new(true),
            sealed: AtomicBool::new(false),
            removed: AtomicBool::new(false),
        })
    }

    /// The file of the segment's batches.
    pub(crate) fn file(&self) -> &SegmentFile {
        &self.file
    }

    /// How far it is written.
    #[expect(dead_code, reason = "checkpoints come next")]
    pub(crate) fn written(&self) -> Written {
        *lock(&self.written)
    }

    /// Notes an append whose last byte is in place; returns whether the segment has to be listed.
    #[must_use]
    pub(crate) fn advance(&self, at: Written) -> bool {
        *lock(&self.written) = at;
        // Read after the lock was let go: whoever took it off the list before that sees this append, see `Unsynced::take`.
        !self.listed.load(Ordering::Acquire)
    }

    /// Notes that a name beside the segment was written.
    pub(crate) fn name_written(&self) {
        self.names_unsynced.store(true, Ordering::Release);
    }

    /// Notes that no more appends come.
    pub(crate) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Whether no more appends come.
    #[expect(dead_code, reason = "checkpoints come next")]
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Notes that the files go: before the first of them does.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// Whether the files go or are gone.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Brings the batches to the disk, and all names that lead to them.
    pub(crate) fn sync(&self, dir: &DataDir) -> io::Result<()> {
        self.file.sync()?;
        self.sync_names(dir)
    }

    /// Brings the names to the disk, and the epochs that recovery would not find again behind a recovery point.
    pub(crate) fn sync_names(&self, dir: &DataDir) -> io::Result<()> {
        if !self.names_unsynced.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let directory = dir.partition_path(self.partition);
        let synced = sync_file_if_present(&directory.join(EPOCHS))
            .and_then(|()| disk::sync_directory_and_parents(&directory, dir.path()));
        match synced {
            Err(_) if self.is_removed() => Ok(()),
            Err(error) => {
                self.name_written();
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }
}

fn sync_file_if_present(path: &std::path::Path) -> io::Result<()> {
    match SegmentFile::open(path) {
        Ok(file) => file.sync(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Locks what only changes as a whole: a panic elsewhere leaves it good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The segments of a data directory with bytes that were not synced, in the order of partitions and offsets.
#[derive(Default)]
pub(crate) struct Unsynced {
    tails: Mutex<BTreeMap<(PartitionId, Offset), Arc<Tail>>>,
}

impl std::fmt::Debug for Unsynced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unsynced").finish_non_exhaustive()
    }
}

impl Unsynced {
    /// Lists a segment.
    pub(crate) fn list(&self, tail: &Arc<Tail>) {
        let mut tails = lock(&self.tails);
        tail.listed.store(true, Ordering::Release);
        tails.insert((tail.partition, tail.base), Arc::clone(tail));
    }

    /// Whether there are none.
    #[expect(dead_code, reason = "checkpoints come next")]
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.tails).is_empty()
    }

    /// Takes those off the list that `wanted` holds for. An append from here on lists its segment again.
    pub(crate) fn take(&self, wanted: impl Fn(&Tail) -> bool) -> Vec<Arc<Tail>> {
        let mut tails = lock(&self.tails);
        let mut taken = Vec::new();
        tails.retain(|_, tail| {
            let take = wanted(tail);
            if take {
                tail.listed.store(false, Ordering::Release);
                taken.push(Arc::clone(tail));
            }
            !take
        });
        taken
    }

    /// Takes a segment off the list.
    pub(crate) fn unlist(&self, partition: PartitionId, base: Offset) {
        if let Some(tail) = lock(&self.tails).remove(&(partition, base)) {
            tail.listed.store(false, Ordering::Release);
        }
    }

    /// Forgets a partition whose files are to be removed.
    pub(crate) fn forget(&self, partition: PartitionId) {
        let gone = self.take(|tail| tail.partition == partition);
        gone.iter().for_each(|tail| tail.remove());
    }
}
