//! What is synced, when and in which order: the journal that all shards of a data directory share, with durability `commit`
//! and `always` (exactly-once.md 8.1, 8.3). In `os` it has no file: what is handed over, because of a topic's flush
//! settings, is synced where it is (`in_place`).
//!
//! Invariants: bytes are handed over in causal order, and what a turn makes durable is everything that was handed over
//! before it began; tickets rise with the hand-overs; after a failed sync nothing is synced again and nothing more is
//! durable.
//!
//! A turn writes one group into a file of its own and syncs that (performance.md section 5): after a power cut a group is
//! there whole or not at all, and one that is there means that all before it are. So what survives is a prefix of what was
//! handed over, over all partitions; what the segments hold beyond it and decides over others is cut at the start
//! (R-11 (a)). Checkpoints sync the segments, move the recovery points behind what is synced there, and free the groups
//! below; a point never passes what the journal does not hold, unless nothing depends on that.

mod file;
pub(crate) mod group;
mod in_place;

use self::file::{JournalFile, Room};
use self::group::{Builder, ENTRY, Kind, PAGE};
use crate::checkpoint::{self, Done, Scope};
use crate::data_dir::DataDir;
use crate::error::{StorageError, failed};
use crate::journal::{JournalState, Ticket};
use crate::partition::Range;
use crate::redo;
use crate::tail::{Tail, lock};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tally_protocol::ids::to_u64;
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
    /// `os`, `commit` or `always`: that of all shards.
    pub durability: Durability,
    /// Bytes of disk space that the journal has, taken when it is opened.
    pub journal_bytes: u64,
    /// More bytes of one partition than this are not copied into the journal: the segment is synced instead.
    pub copied_bytes_max: u64,
}

impl Default for SyncOptions {
    fn default() -> SyncOptions {
        SyncOptions {
            durability: Durability::Commit,
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
    /// Partitions that were removed.
    removed: Vec<PartitionId>,
    /// The number of hand-overs.
    handed: u64,
    stopped: bool,
    /// The last failure; while `is_failed` nothing is synced.
    failure: Option<Arc<str>>,
    is_failed: bool,
    /// The last turn found no room: the next one comes after a while.
    is_stuck: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.removed.is_empty()
    }
}

/// What a turn writes to.
struct Writer {
    file: JournalFile,
    group: Builder,
}

/// The journal of a data directory. Shared by all shards; one thread takes the turns, and another may take checkpoints.
pub struct SyncJournal {
    dir: Arc<DataDir>,
    options: SyncOptions,
    pending: Mutex<Pending>,
    arrived: Condvar,
    synced: AtomicU64,
    /// Failures so far: a shard that has seen fewer has to start over.
    failures: AtomicU64,
    /// One turn at a time. Without a file where bytes are synced in their place.
    writer: Mutex<Option<Writer>>,
    /// The number of the next group: all groups below it have their bytes in unsynced segments or below recovery points.
    next_group: AtomicU64,
    /// A half of the journal is full: time for a checkpoint.
    half_full: Mutex<bool>,
    half_filled: Condvar,
}

impl fmt::Debug for SyncJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncJournal")
            .field("synced", &self.synced())
            .finish_non_exhaustive()
    }
}

impl SyncJournal {
    /// Opens the journal of `dir`, before any of its partitions and once in a run. What it held is in the segments:
    /// [`DataDir::open`] saw to that.
    pub fn open(dir: Arc<DataDir>, options: SyncOptions) -> Result<Arc<SyncJournal>, StorageError> {
        if matches!(options.durability, Durability::Memory | Durability::Os) {
            return Ok(Arc::new(SyncJournal::of(dir, options, None)));
        }
        let points = "write the recovery points of";
        let taken = dir.take_journal();
        taken.map_err(failed("open the journal of", dir.path()))?;
        if !dir.power_was_cut() {
            if !dir.was_clean() {
                // What the run before had not synced is in memory: from here on it counts as synced with what comes.
                let synced = dir.sync_file_system();
                synced.map_err(failed("sync the file system of", dir.path()))?;
            }
            dir.cover(&redo::file_ends(&dir)?)?;
        }
        let file = JournalFile::open(&dir, options.journal_bytes)?;
        let said = dir.set_durability(options.durability);
        said.map_err(failed(points, dir.path()))?;
        let group = Builder::default();
        let writer = Some(Writer { file, group });
        Ok(Arc::new(SyncJournal::of(dir, options, writer)))
    }

    fn of(dir: Arc<DataDir>, options: SyncOptions, writer: Option<Writer>) -> SyncJournal {
        let next_group = writer.as_ref().map_or(0, |writer| writer.file.number);
        SyncJournal {
            dir,
            options,
            pending: Mutex::new(Pending::default()),
            arrived: Condvar::new(),
            synced: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            writer: Mutex::new(writer),
            next_group: AtomicU64::new(next_group),
            half_full: Mutex::new(false),
            half_filled: Condvar::new(),
        }
    }

    /// With which durability it was opened.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.options.durability
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
                _ => {
                    self.dir.unsynced().watch(&range.tail);
                    pending.ranges.insert(key, range);
                }
            }
        }
        pending.handed += 1;
        self.arrived.notify_one();
        Ticket(pending.handed)
    }

    /// Notes that a partition is being removed: it is not brought back.
    pub(crate) fn remove(&self, partition: PartitionId) {
        let mut pending = lock(&self.pending);
        pending.ranges.retain(|(id, _), _| *id != partition);
        pending.removed.push(partition);
    }

    /// Waits until something was handed over, [`SyncJournal::stop`] was called or the time has passed.
    pub fn wait(&self, timeout: Duration) {
        let pending = lock(&self.pending);
        let nothing = |pending: &mut Pending| {
            (pending.ranges.is_empty() || pending.is_failed || pending.is_stuck) && !pending.stopped
        };
        let waited = self.arrived.wait_timeout_while(pending, timeout, nothing);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_stuck = false;
    }

    /// Waits until a checkpoint is wanted, [`SyncJournal::stop`] was called or the time has passed: the longest that
    /// segments should stay unsynced.
    pub fn wait_for_checkpoint(&self, timeout: Duration) {
        if lock(&self.pending).stopped {
            return;
        }
        let wanted = lock(&self.half_full);
        let waited = self
            .half_filled
            .wait_timeout_while(wanted, timeout, |wanted| !*wanted);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn want_checkpoint(&self, wanted: bool) {
        *lock(&self.half_full) = wanted;
        self.half_filled.notify_all();
    }

    /// Lets nobody wait any more.
    pub fn stop(&self) {
        lock(&self.pending).stopped = true;
        self.arrived.notify_all();
        self.want_checkpoint(true);
    }

    /// Makes everything durable that was handed over until now; returns whether there was anything. A failed sync is final
    /// on a full disk nothing may get on, and nothing is lost.
    pub fn turn(&self) -> Result<bool, StorageError> {
        let mut writer = lock(&self.writer);
        let (taken, upto) = {
            let mut pending = lock(&self.pending);
            if pending.is_failed || pending.is_empty() {
                return Ok(false);
            }
            let ranges = std::mem::take(&mut pending.ranges);
            let removed = std::mem::take(&mut pending.removed);
            (Taken { ranges, removed }, pending.handed)
        };
        let made = match &mut *writer {
            Some(writer) => self.make_durable(writer, &taken),
            None => self.sync_in_place(&taken.ranges).map(|()| true),
        };
        match made {
            Ok(true) => {
                self.synced.store(upto, Ordering::Release);
                Ok(true)
            }
            Ok(false) => {
                self.give_back(taken);
                Ok(false)
            }
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }

    /// Writes one group, after what it does not hold; returns whether the disk had room for what that takes.
    fn make_durable(&self, writer: &mut Writer, taken: &Taken) -> Result<bool, StorageError> {
        let path = self.dir.journal_path();
        let Writer { file, group } = writer;
        let Some(direct) = self.fill(group, taken, file.group_bytes_max())? else {
            return self.without_group(taken);
        };
        checkpoint::sync(&self.dir, &direct)?;
        let mut room = file.room(group.padded_len(), self.dir.points().redo_from());
        if room == Room::NotYet {
            if !self.checkpoint_within()? {
                return Ok(false);
            }
            room = file.room(group.padded_len(), self.dir.points().redo_from());
        }
        match room {
            Room::Here => {}
            Room::OtherHalf => {
                file.turn_over();
                self.want_checkpoint(true);
            }
            Room::NotYet | Room::Never => return self.without_group(taken),
        }
        file.write(group).map_err(failed("write", path))?;
        // In this order: a checkpoint that frees this group finds it in the reach of its segments.
        taken.set_journaled();
        self.next_group.store(file.number, Ordering::Release);
        Ok(true)
    }

    /// Makes durable what no group has room for: the new recovery points cover all of it at once, or nothing.
    fn without_group(&self, taken: &Taken) -> Result<bool, StorageError> {
        let tails: Vec<Arc<Tail>> = taken.ranges.values().map(|r| Arc::clone(&r.tail)).collect();
        checkpoint::sync(&self.dir, &tails)?;
        taken.set_journaled();
        if !self.checkpoint_within()? {
            return Ok(false);
        }
        let covered = |range: &Range| {
            let point = self.dir.points().get(range.tail.partition);
            (point.segment, point.position) >= (range.tail.base, range.upto.size)
        };
        let mut left = taken
            .ranges
            .values()
            .filter(|range| !range.tail.is_removed());
        Ok(left.all(covered))
    }

    /// Makes a group of what was taken; returns the segments to be synced before it, or nothing where even the headers are
    /// too many for `bytes_max`.
    fn fill(
        &self,
        group: &mut Builder,
        taken: &Taken,
        bytes_max: u64,
    ) -> Result<Option<Vec<Arc<Tail>>>, StorageError> {
        let entries = taken.ranges.len() + taken.removed.len();
        let mut left = bytes_max.checked_sub(to_u64(entries * ENTRY) + PAGE);
        let mut direct = Vec::new();
        group.begin();
        // First: what is behind the removal of a partition in the same group is of one that was made anew.
        for partition in &taken.removed {
            group.push(&group::Entry::removed(*partition));
        }
        for range in taken.ranges.values() {
            let Some(left) = &mut left else {
                return Ok(None);
            };
            let len = range.upto.size - range.from;
            let copied = len <= self.options.copied_bytes_max.min(*left);
            let to = group.push(&group::Entry {
                kind: if copied { Kind::Copied } else { Kind::Synced },
                partition: range.tail.partition,
                segment: range.tail.base,
                position: range.from,
                len,
                end: range.upto.end,
            });
            if copied {
                *left -= len;
                self.copy(range, to)?;
            } else {
                direct.push(Arc::clone(&range.tail));
            }
        }
        Ok(left.is_some().then_some(direct))
    }

    /// Copies bytes of a segment: they are in place and never change.
    fn copy(&self, range: &Range, to: &mut [u8]) -> Result<(), StorageError> {
        let read = range.tail.file().read_at(to, range.from);
        let whole = read.and_then(|read| match read == to.len() {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        });
        let path = || self.dir.partition_path(range.tail.partition);
        whole.map_err(|error| failed("read a segment in", path())(error))
    }

    /// What could not be made durable for lack of room waits in its place.
    fn give_back(&self, taken: Taken) {
        let mut pending = lock(&self.pending);
        for (key, mut range) in taken.ranges {
            if let Some(later) = pending.ranges.remove(&key) {
                range.upto = later.upto;
                range.tail = later.tail;
            }
            pending.ranges.insert(key, range);
        }
        pending.removed.extend(taken.removed);
        pending.is_stuck = true;
    }

    /// Syncs all segments that were written to, moves the recovery points and frees the journal up to here. To be called
    /// every few seconds, and whenever [`SyncJournal::wait_for_checkpoint`] returns; a turn that finds no room in the
    /// journal does it itself. Returns whether there was anything to do.
    pub fn checkpoint(&self) -> Result<bool, StorageError> {
        self.want_checkpoint(false);
        if lock(&self.pending).is_failed {
            return Ok(false);
        }
        if self.options.durability == Durability::Os {
            return self.dir.sync_closed();
        }
        match checkpoint::run(&self.dir, self.scope()) {
            Ok(done) => Ok(matches!(done, Done::Moved)),
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }

    fn scope(&self) -> Scope<'_> {
        Scope::All {
            next_group: &self.next_group,
            all_journaled: self.options.durability == Durability::Always,
        }
    }

    /// The same, within a turn; returns whether the disk had room for the points.
    fn checkpoint_within(&self) -> Result<bool, StorageError> {
        match checkpoint::run(&self.dir, self.scope())? {
            Done::Nothing | Done::Moved => Ok(true),
            Done::NoRoom(error) => {
                tracing::warn!(%error, "no checkpoint on a full disk: nothing is synced until there is room");
                Ok(false)
            }
        }
    }

    /// Fails where a sync failed that was not the journal's own: it has to be dealt with before anything goes on.
    pub(crate) fn fail_if_suspect(&self) -> Result<(), StorageError> {
        if !self.dir.is_suspect() {
            return Ok(());
        }
        let error = failed("sync", self.dir.path())(io::Error::other("a sync of a segment failed"));
        self.fail(&error);
        Err(error)
    }

    fn fail(&self, error: &StorageError) {
        tracing::error!(%error, "a sync failed: the journal stops");
        self.fail_with(error.to_string().into());
    }

    /// Fails because of what a shard could not write: how much of it is in place only a new look at the files can tell, and
    /// what was handed over of them is not what is found then.
    pub(crate) fn fail_with(&self, reason: Arc<str>) {
        self.dir.distrust();
        self.dir.suspect();
        let mut pending = lock(&self.pending);
        pending.failure = Some(reason);
        pending.is_failed = true;
        self.failures.fetch_add(1, Ordering::Release);
        self.arrived.notify_all();
    }

    /// Works again after a failure, if no shard has seen to that: what the segments hold is written anew and synced, what
    /// was handed over is forgotten, and the journal begins anew. Each shard hands over again what comes when it has opened
    /// its partitions. Returns the failures that a shard need not mind any more: not the last one, if all that fails.
    pub(crate) fn start_over(&self) -> u64 {
        let mut writer = lock(&self.writer);
        loop {
            let seen = {
                let pending = lock(&self.pending);
                if !pending.is_failed {
                    return self.failures();
                }
                self.failures()
            };
            if let Err(error) = self.renew(&mut writer) {
                let before = self.failures();
                self.fail(&error);
                return before;
            }
            let mut pending = lock(&self.pending);
            if self.failures() != seen {
                // Another one meanwhile: what it is about was perhaps not looked at.
                continue;
            }
            pending.is_failed = false;
            pending.ranges.clear();
            pending.is_stuck = false;
            self.synced.store(pending.handed, Ordering::Release);
            return seen;
        }
    }

    fn renew(&self, writer: &mut Option<Writer>) -> Result<(), StorageError> {
        let _one = self.dir.one_checkpoint();
        // From the journal first: the kernel may have dropped pages of a segment that the journal holds.
        redo::run(&self.dir, false)?;
        // Before: an append that was on its way as the journal failed may still come.
        let ends = redo::file_ends(&self.dir)?;
        self.dir.clear_suspicion(&ends)?;
        self.dir.unsynced().take(|_| true);
        self.dir.cover(&ends)?;
        if let Some(writer) = writer {
            writer.file.renew(&self.dir)?;
            self.next_group.store(writer.file.number, Ordering::Release);
        }
        Ok(())
    }
}

/// What a turn has to make durable.
struct Taken {
    ranges: BTreeMap<(PartitionId, Offset), Range>,
    removed: Vec<PartitionId>,
}

impl Taken {
    /// Notes that all of it is synced in the journal.
    fn set_journaled(&self) {
        for range in self.ranges.values() {
            range.tail.set_journaled(range.upto);
        }
    }
}
