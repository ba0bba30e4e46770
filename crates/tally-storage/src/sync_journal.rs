//! What is synced, when and in which order: the journal that all shards of a data directory share, with durability `commit`
//! and `always` (exactly-once.md 8.1, 8.3).
//!
//! Invariants: bytes are handed over in causal order, and what a turn makes durable is everything that was handed over
//! before it began; tickets rise with the hand-overs; after a failed sync nothing is synced again and nothing more is
//! durable.
//!
//! A turn syncs the segments themselves, one after the other, so that a power cut in its middle may keep some of what it
//! was to sync and not the rest. R-11 asks for more: durability `commit` must not be offered on this alone.

use crate::data_dir::DataDir;
use crate::error::{StorageError, failed};
use crate::journal::{JournalState, Ticket};
use crate::partition::Range;
use crate::tail::lock;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tally_protocol::{Offset, PartitionId};

/// What an acknowledged write survives (exactly-once.md 8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Nothing survives the process, and nothing is written to a disk.
    Memory,
    /// It survives the end of the process.
    Os,
    /// What a transaction or an offset decides survives a power cut, with all it decides over.
    Commit,
    /// Everything survives a power cut.
    Always,
}

/// How the journal works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncOptions {
    /// Bytes of disk space that the journal has, taken when it is opened.
    pub journal_bytes: u64,
    /// More bytes of one partition than this are not copied into the journal: the segment is synced instead.
    pub copied_bytes_max: u64,
}

impl Default for SyncOptions {
    fn default() -> SyncOptions {
        SyncOptions {
            journal_bytes: 128 * 1024 * 1024,
            copied_bytes_max: 256 * 1024,
        }
    }
}

/// What was handed over and not taken by a turn.
#[derive(Default)]
struct Pending {
    /// By segment, as one turn syncs all of it.
    ranges: BTreeMap<(PartitionId, Offset), Range>,
    /// The number of hand-overs.
    handed: u64,
    stopped: bool,
    /// The last failure; while `is_failed` nothing is synced.
    failure: Option<Arc<str>>,
    is_failed: bool,
}

/// The journal of a data directory. Shared by all shards; one thread takes the turns.
pub struct SyncJournal {
    dir: Arc<DataDir>,
    #[expect(dead_code, reason = "the file of the journal comes next")]
    options: SyncOptions,
    pending: Mutex<Pending>,
    arrived: Condvar,
    synced: AtomicU64,
    /// Failures so far: a shard that has seen fewer has to start over.
    failures: AtomicU64,
    /// One turn at a time.
    turn: Mutex<()>,
}

impl fmt::Debug for SyncJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncJournal")
            .field("synced", &self.synced())
            .finish_non_exhaustive()
    }
}

impl SyncJournal {
    /// Opens the journal of `dir`, before any of its partitions.
    pub fn open(dir: Arc<DataDir>, options: SyncOptions) -> Result<Arc<SyncJournal>, StorageError> {
        Ok(Arc::new(SyncJournal {
            dir,
            options,
            pending: Mutex::new(Pending::default()),
            arrived: Condvar::new(),
            synced: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            turn: Mutex::new(()),
        }))
    }

    /// Everything that was handed over up to here is synced.
    #[must_use]
    pub fn synced(&self) -> Ticket {
        Ticket(self.synced.load(Ordering::Acquire))
    }

    /// Whether anything can become durable any more.
    #[must_use]
    pub fn state(&self) -> JournalState {
        let pending = lock(&self.pending);
        match &pending.failure {
            Some(reason) if pending.is_failed => JournalState::Failed(Arc::clone(reason)),
            _ => JournalState::Open,
        }
    }

    /// Failures so far.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// What the last failure was, for those who have not started over since.
    pub(crate) fn failure(&self) -> JournalState {
        let failure = lock(&self.pending).failure.clone();
        JournalState::Failed(failure.unwrap_or_else(|| "a sync failed".into()))
    }

    /// Takes bytes that are in place in their segments, in the order of the log; the ticket is durable when they are
    /// synced, and all that was handed over before them. It never is if there was a failure that the caller has not seen.
    pub(crate) fn hand_over(&self, ranges: Vec<Range>, failures: u64) -> Ticket {
        let mut pending = lock(&self.pending);
        if pending.is_failed || failures != self.failures() {
            return Ticket(u64::MAX);
        }
        for range in ranges {
            let key = (range.tail.partition, range.tail.base);
            match pending.ranges.get_mut(&key) {
                Some(before) if before.upto.size >= range.from => {
                    before.from = before.from.min(range.from);
                    before.upto = range.upto;
                    before.tail = range.tail;
                }
                _ => _ = pending.ranges.insert(key, range),
            }
        }
        pending.handed += 1;
        self.arrived.notify_one();
        Ticket(pending.handed)
    }

    /// Waits until something was handed over, [`SyncJournal::stop`] was called or the time has passed.
    pub fn wait(&self, timeout: Duration) {
        let pending = lock(&self.pending);
        let nothing = |pending: &mut Pending| pending.ranges.is_empty() && !pending.stopped;
        let waited = self.arrived.wait_timeout_while(pending, timeout, nothing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets nobody wait any more.
    pub fn stop(&self) {
        lock(&self.pending).stopped = true;
        self.arrived.notify_all();
    }

    /// Syncs everything that was handed over until now; returns whether there was anything. An error is final.
    pub fn turn(&self) -> Result<bool, StorageError> {
        let _one = lock(&self.turn);
        let (ranges, upto) = {
            let mut pending = lock(&self.pending);
            if pending.is_failed || pending.ranges.is_empty() {
                return Ok(false);
            }
            (std::mem::take(&mut pending.ranges), pending.handed)
        };
        match self.sync(ranges) {
            Ok(()) => {
                self.synced.store(upto, Ordering::Release);
                Ok(true)
            }
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }

    fn sync(&self, ranges: BTreeMap<(PartitionId, Offset), Range>) -> Result<(), StorageError> {
        for range in ranges.into_values() {
            let path = || self.dir.partition_path(range.tail.partition);
            let synced = range.tail.sync(&self.dir);
            synced.map_err(|error| failed("sync a segment in", path())(error))?;
        }
        Ok(())
    }

    fn fail(&self, error: &StorageError) {
        tracing::error!(%error, "a sync failed: the journal stops");
        self.dir.distrust();
        let mut pending = lock(&self.pending);
        pending.failure = Some(error.to_string().into());
        pending.is_failed = true;
        self.failures.fetch_add(1, Ordering::Release);
        self.arrived.notify_all();
    }

    /// Works again after a failure, if no shard has seen to that: what was handed over is forgotten, and each shard hands it
    /// over again when it has opened its partitions anew. Returns the failures so far.
    pub(crate) fn start_over(&self) -> u64 {
        let mut pending = lock(&self.pending);
        if pending.is_failed {
            pending.is_failed = false;
            pending.ranges.clear();
        }
        self.failures()
    }
}
