//! The write seam, and the journal that writes straight into segments.
//!
//! Invariants: `append` takes what `reserve` found room for and never fails for lack of it; tickets rise by one; a journal
//! that has failed acknowledges nothing more (N9). With durability `os` a batch is durable once it is in the page cache of
//! its segment: `durable` is the last ticket (exactly-once.md 8.1).

use crate::TRANSACTION_ROW_BYTES;
use crate::data_dir::DataDir;
use crate::error::{NoRoom, StorageError, failed};
use crate::faults;
use crate::mmap::Slice;
use crate::partition::{LogOptions, PartitionLog, ReadOutcome, Recovered, SegmentInfo};
use crate::partition_map::PartitionMap;
use crate::redo;
use crate::segment::Place;
use crate::sync_journal::{Durability, SyncJournal};
use bytes::Bytes;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tally_protocol::{BatchView, LeaderEpoch, Offset, PartitionId};

/// A position in the journal. Totally ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// Finished batches for one partition: offsets and epochs are assigned, the journal never looks inside.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The partition.
    pub partition: PartitionId,
    /// The leader epoch, as stamped into the batches.
    pub leader_epoch: LeaderEpoch,
    /// The first offset: the partition's log end.
    pub base: Offset,
    /// The last offset.
    pub last: Offset,
    /// The largest timestamp; -1 none.
    pub max_timestamp: i64,
    /// One or more whole batches.
    pub bytes: Bytes,
}

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Durable when [`Journal::durable`] has reached it.
    pub ticket: Ticket,
    /// A segment began at this offset since the append before, at or below the entry's base: time for a snapshot of the
    /// state before this entry.
    pub rolled_at: Option<Offset>,
}

/// Whether a journal can be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// It can.
    Open,
    /// Another owner has taken over.
    Fenced {
        /// The owner's epoch.
        by_epoch: i32,
    },
    /// A write failed: what was appended since `durable` may be lost. The shard drops its memory and reloads.
    Failed(Arc<str>),
}

/// The write seam: synchronous hand-over, later completion. Called only by the owner of the shard (R1).
pub trait Journal {
    /// Finds room for appends of `bytes` in all to `partition`, for new files too; replaces a reservation that was not
    /// used. Nothing has changed if it fails, and the journal stays open (N15).
    fn reserve(&mut self, partition: PartitionId, bytes: usize) -> Result<(), NoRoom>;
    /// Appends what was reserved. Never waits, has no error: see [`Journal::state`].
    fn append(&mut self, entry: Entry) -> Appended;
    /// Every ticket up to this one is durable, in order.
    fn durable(&self) -> Ticket;
    /// Durable when the caller was the owner as it called.
    fn barrier(&mut self) -> Ticket;
    /// Whether the journal can be written to.
    fn state(&self) -> JournalState;
    /// Bytes that may be appended before the writer has to wait: back-pressure.
    fn room(&self) -> usize;
    /// Whether a durable entry implies that every earlier entry is durable, across partitions and shards.
    fn prefix_ordered(&self) -> bool;
}

/// All partitions of one shard. Not shared: the owner of the shard has it, under the shard's one lock.
pub struct SegmentJournal {
    dir: Arc<DataDir>,
    partitions: PartitionMap<PartitionLog>,
    last: Ticket,
    durable: Ticket,
    state: JournalState,
    /// With durability `commit` and `always`.
    synced: Option<Synced>,
    /// Maps of segments, those that only slices still hold among them.
    maps: Arc<AtomicUsize>,
    maps_max: usize,
}

/// What a journal is synced by.
struct Synced {
    journal: Arc<SyncJournal>,
    /// In `os` only those wait whose topics say so.
    durability: Durability,
    /// Failures of the journal that this shard has started over after.
    failures: u64,
}

impl fmt::Debug for SegmentJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentJournal")
            .field("partitions", &self.partitions.len())
            .field("last", &self.last)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Segments kept mapped: a process may have 65,530 maps, and a segment takes three.
const MAPS_MAX: usize = 4096;
impl SegmentJournal {
    /// A journal without partitions.
    #[must_use]
    pub fn new(dir: Arc<DataDir>) -> SegmentJournal {
        SegmentJournal {
            dir,
            partitions: PartitionMap::default(),
            last: Ticket(0),
            durable: Ticket(0),
            state: JournalState::Open,
            synced: None,
            maps: Arc::default(),
            maps_max: MAPS_MAX,
        }
    }

    /// A journal without partitions whose tickets are durable when `journal` has synced them: with durability `always`
    /// those of all appends, with `commit` and `os` those of [`SegmentJournal::hand_over`]; with `memory` this is
    /// [`SegmentJournal::new`].
    #[must_use]
    pub fn synced(
        dir: Arc<DataDir>,
        journal: Arc<SyncJournal>,
        durability: Durability,
    ) -> SegmentJournal {
        assert!(
            durability == Durability::Memory || durability == journal.durability(),
            "the journal was opened for another durability"
        );
        let synced = match durability {
            Durability::Memory => None,
            Durability::Os | Durability::Commit | Durability::Always => Some(Synced {
                failures: journal.failures(),
                journal,
                durability,
            }),
        };
        SegmentJournal {
            synced,
            ..SegmentJournal::new(dir)
        }
    }

    /// What an acknowledged append survives.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.synced
            .as_ref()
            .map_or(Durability::Os, |synced| synced.durability)
    }

    /// What is synced in the order of hand-overs, over all partitions.
    fn ordered(&self) -> Option<&Synced> {
        let ordered = self.synced.as_ref();
        ordered.filter(|synced| synced.durability != Durability::Os)
    }

    /// Hands the offsets of a partition below `upto` over to be synced, or all of them; the ticket is durable when they
    /// and all that was handed over before them are. More may be handed over than was asked for. Where nothing is
    /// synced the ticket is durable.
    pub fn hand_over(&mut self, partition: PartitionId, upto: Option<Offset>) -> Ticket {
        let Some(synced) = &self.synced else {
            return self.last;
        };
        if self.state() != JournalState::Open {
            return Ticket(u64::MAX);
        }
        let place = Place {
            dir: &self.dir,
            id: partition,
            maps: &self.maps,
        };
        let Some(log) = self.partitions.get_mut(&partition) else {
            return self.last;
        };
        let upto = upto.unwrap_or(log.log_end);
        if let Some(ticket) = log.handed_over(upto) {
            return ticket;
        }
        match log.not_handed_over(place, upto) {
            Ok(ranges) => {
                let last = ranges.last().cloned();
                let ticket = synced.journal.hand_over(ranges, synced.failures);
                if let Some(last) = last {
                    log.set_handed_over(&last, ticket);
                }
                // In `os` one topic's syncs are nobody's business but those of a coordinator that waits for its own.
                let own = log.options.synced_only && log.options.syncs_every_append();
                if synced.durability != Durability::Os || own {
                    self.last = self.last.max(ticket);
                }
                ticket
            }
            Err(error) => {
                self.fail(partition, &error);
                Ticket(u64::MAX)
            }
        }
    }

    /// Below this offset everything of the partition is on the disk in its segments, and a recovery point says so: with
    /// durability `commit` and `always` nobody may rewrite a segment that ends above it. Without, all of it.
    #[must_use]
    pub fn settled(&self, partition: PartitionId) -> Offset {
        match self.ordered() {
            None => Offset(i64::MAX),
            Some(_) => self.dir.points().get(partition).offset,
        }
    }

    pub(crate) fn dir(&self) -> &Arc<DataDir> {
        &self.dir
    }

    pub(crate) fn maps(&self) -> &Arc<AtomicUsize> {
        &self.maps
    }

    /// Sets how many segments are kept mapped for readers; those looked at last stay.
    #[must_use]
    pub fn keep_maps(self, maps_max: usize) -> SegmentJournal {
        SegmentJournal { maps_max, ..self }
    }

    /// How many segments are mapped.
    #[must_use]
    pub fn map_count(&self) -> usize {
        self.maps.load(Ordering::Relaxed)
    }

    /// Lets maps go when there are too many: first those that were not looked at since this was done last.
    fn tidy_maps(&self) {
        if self.map_count() <= self.maps_max {
            return;
        }
        let enough = (self.maps_max / 8).max(1);
        let mut gone = 0;
        // The second time none counts as looked at any more.
        for log in self.partitions.values().chain(self.partitions.values()) {
            gone += log.let_maps_go(enough - gone);
            if gone >= enough {
                return;
            }
        }
    }

    pub(crate) fn place(&self, id: PartitionId) -> Place<'_> {
        Place {
            dir: &self.dir,
            id,
            maps: &self.maps,
        }
    }

    pub(crate) fn log(&self, id: PartitionId) -> Result<&PartitionLog, StorageError> {
        self.partitions.get(&id).ok_or(StorageError::NotOpen(id))
    }

    pub(crate) fn log_and_place(
        &mut self,
        id: PartitionId,
    ) -> Result<(&mut PartitionLog, Place<'_>), StorageError> {
        let log = self.partitions.get_mut(&id);
        let place = Place {
            dir: &self.dir,
            id,
            maps: &self.maps,
        };
        log.map(|log| (log, place)).ok_or(StorageError::NotOpen(id))
    }

    pub(crate) fn opened(&self, id: PartitionId) -> &PartitionLog {
        self.partitions
            .get(&id)
            .expect("the shard asks about partitions that it has opened")
    }

    /// Opens a partition and repairs its end after an unclean stop. One without files is empty, and costs none.
    pub fn open_partition(
        &mut self,
        partition: PartitionId,
        options: LogOptions,
    ) -> Result<Recovered, StorageError> {
        let opened = self.try_to_open(partition, options);
        if opened.is_err() {
            self.dir.note_unopened(partition);
        }
        opened
    }

    fn try_to_open(
        &mut self,
        partition: PartitionId,
        options: LogOptions,
    ) -> Result<Recovered, StorageError> {
        if let Some(reason) = self.dir.given_up(partition) {
            let path = self.dir.partition_path(partition);
            return Err(StorageError::Corrupt { path, reason });
        }
        let durability = self.durability();
        if self.ordered().is_none() {
            // Before anything is written that counts by these rules.
            let said = self.dir.set_durability(durability);
            said.map_err(failed("write the recovery points of", self.dir.path()))?;
        }
        match self.ordered() {
            Some(synced) => synced.journal.fail_if_suspect()?,
            None if self.dir.is_suspect() => {
                if let Some(end) = redo::file_end(self.place(partition))? {
                    redo::rewrite_partition(self.place(partition), &end)?;
                }
            }
            None => {}
        }
        let trust = self.dir.trust(partition);
        let (log, cut) = PartitionLog::open(self.place(partition), options, trust)?;
        self.dir.note_opened(partition);
        let recovered = Recovered {
            log_start: log.log_start,
            log_end: log.log_end,
            cut,
        };
        self.partitions.insert(partition, log);
        faults::point("recovery.partition");
        Ok(recovered)
    }

    /// Changes the settings of a partition, from the next append on.
    pub fn set_options(&mut self, partition: PartitionId, options: LogOptions) {
        if let Some(log) = self.partitions.get_mut(&partition) {
            log.set_options(options);
        }
    }

    /// Closes a partition, and leaves its files complete.
    pub fn close_partition(&mut self, partition: PartitionId) {
        if let Some(mut log) = self.partitions.remove(&partition)
            && let Err(error) = log.close(self.place(partition))
        {
            tracing::warn!(%partition, %error, "cannot complete the files of a partition");
            self.dir.distrust();
        }
    }

    /// Closes a partition and leaves its files as they are: it could be opened, what is in it makes no sense.
    pub fn forget_partition(&mut self, partition: PartitionId) {
        self.partitions.remove(&partition);
    }

    /// Closes a partition and removes its files. Slices of it stay readable.
    pub fn delete_partition(&mut self, partition: PartitionId) -> Result<(), StorageError> {
        self.partitions.remove(&partition);
        if let Some(synced) = &self.synced {
            synced.journal.remove(partition);
        }
        let path = self.dir.partition_path(partition);
        self.dir
            .remove_partition(partition)
            .map_err(failed("remove", path))
    }

    /// Writes a snapshot of what the batches below `at` amount to. The newest two are kept, one that no cut of the last segment
    /// can reach, and with durability `commit` and `always` one that no power cut can take, once there is one. Nothing is written for a partition that never had a batch.
    pub fn write_snapshot(
        &mut self,
        partition: PartitionId,
        at: Offset,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        let (log, place) = self.log_and_place(partition)?;
        log.write_snapshot(place, at, bytes)
    }

    /// Keeps a snapshot until [`SegmentJournal::anchor_snapshot`] was called for it or a later one.
    pub fn promise_snapshot(&mut self, partition: PartitionId, at: Offset) {
        if let Some(log) = self.partitions.get_mut(&partition) {
            log.promise_snapshot(at);
        }
    }

    /// Brings a snapshot to the disk, below which the log is on the disk: what a power cut leaves is no less than that.
    pub fn anchor_snapshot(
        &mut self,
        partition: PartitionId,
        at: Offset,
    ) -> Result<(), StorageError> {
        let (log, place) = self.log_and_place(partition)?;
        log.anchor_snapshot(place, at)
    }

    /// Keeps a snapshot that can be made an anchor when the next recovery point has reached it.
    pub fn promise_newest_snapshot(&mut self, partition: PartitionId) {
        if let Ok((log, place)) = self.log_and_place(partition) {
            log.promise_newest(place);
        }
    }

    /// The newest snapshot that can be made an anchor without waiting for a sync of the log; none below `from`.
    #[must_use]
    pub fn settled_snapshot(&self, partition: PartitionId, from: Offset) -> Option<Offset> {
        let log = self.log(partition).ok()?;
        log.settled_snapshot(self.place(partition), from)
    }

    /// The offsets of the snapshots, newest first; none lies above the log end.
    #[must_use]
    pub fn snapshots(&self, partition: PartitionId) -> Vec<Offset> {
        self.log(partition)
            .map_or_else(|_| Vec::new(), PartitionLog::snapshots)
    }

    /// The bytes of a snapshot, unchecked: a power cut may have damaged them.
    pub fn read_snapshot(
        &self,
        partition: PartitionId,
        at: Offset,
    ) -> Result<Vec<u8>, StorageError> {
        PartitionLog::read_snapshot(self.place(partition), at)
    }

    /// Removes a snapshot.
    pub fn drop_snapshot(&mut self, partition: PartitionId, at: Offset) {
        if let Ok((log, place)) = self.log_and_place(partition) {
            log.drop_snapshot(place, at);
        }
    }

    /// Adds the row of an aborted transaction to the index of the segment that holds `last_offset`. Rows come in the
    /// order of their last offsets. A row that can't be written now is kept in memory and written later.
    pub fn append_transaction_row(
        &mut self,
        partition: PartitionId,
        last_offset: Offset,
        row: &[u8; TRANSACTION_ROW_BYTES],
    ) -> Result<(), StorageError> {
        let (log, place) = self.log_and_place(partition)?;
        log.append_transaction_row(place, last_offset, row);
        Ok(())
    }

    /// Whether the rows of aborted transactions are what they were when a snapshot was written; rows above it have been
    /// dropped before. If not, all of them have to be made again from the log.
    #[must_use]
    pub fn transaction_rows_are_intact(&self, partition: PartitionId, snapshot: Offset) -> bool {
        self.log(partition)
            .is_ok_and(|log| log.rows_are_intact(snapshot))
    }

    /// All rows were made again from the log: the older snapshots are told which of them are below them.
    pub fn recount_transaction_rows(
        &mut self,
        partition: PartitionId,
        last_offset_of: fn(&[u8; TRANSACTION_ROW_BYTES]) -> Offset,
    ) -> Result<(), StorageError> {
        let (log, place) = self.log_and_place(partition)?;
        log.recount_all_rows(place, last_offset_of);
        Ok(())
    }

    /// Drops the rows whose last offset is `from` or higher: a replay from there makes them again (P-64).
    pub fn truncate_transaction_rows(
        &mut self,
        partition: PartitionId,
        from: Offset,
        last_offset_of: fn(&[u8; TRANSACTION_ROW_BYTES]) -> Offset,
    ) -> Result<(), StorageError> {
        let (log, place) = self.log_and_place(partition)?;
        log.truncate_transaction_rows(place, from, last_offset_of)
    }

    /// Shows the rows of the segment that holds `from` and of all later ones, in order.
    pub fn visit_transaction_rows(
        &self,
        partition: PartitionId,
        from: Offset,
        visit: &mut dyn FnMut(&[u8; TRANSACTION_ROW_BYTES]) -> ControlFlow<()>,
    ) {
        if let Ok(log) = self.log(partition) {
            log.visit_transaction_rows(from, visit);
        }
    }

    /// Reads whole batches: from the one that holds `from`, all that begin below `upto`, `max_bytes` at most, across
    /// segments. With `first_whole` the first batch comes even if it is larger.
    ///
    /// Does not wait for the disk, and neither do the other lookups: [`StorageError::NotInMemory`] says what is to be
    /// loaded first. A slice is to be loaded by whoever looks into it, unless [`Slice::is_in_memory`].
    pub fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        upto: Offset,
        max_bytes: usize,
        first_whole: bool,
    ) -> Result<ReadOutcome, StorageError> {
        self.tidy_maps();
        let log = self.log(partition)?;
        log.read(self.place(partition), (from, upto), max_bytes, first_whole)
    }

    /// Shows every batch from the one that holds `from`, or from the log start if that is higher: replay. Each is checked
    /// again: an error if one of them is not what was written. Waits for the disk, unlike all other reads.
    pub fn visit_batches(
        &self,
        partition: PartitionId,
        from: Offset,
        visit: &mut dyn FnMut(BatchView<'_>) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let log = self.log(partition)?;
        log.visit_checked_batches(self.place(partition), from, visit)
    }

    /// The first batch that may hold a record of `timestamp_ms` or later; none if it begins at `upto` or later (LR-92).
    pub fn find_by_time(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
        upto: Offset,
    ) -> Result<Option<Slice>, StorageError> {
        self.find_by_time_from(partition, timestamp_ms, Offset::ZERO, upto)
    }

    /// The same, among the batches that hold offsets of at least `from`: to go on when the record found lies before the
    /// log start.
    pub fn find_by_time_from(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
        from: Offset,
        upto: Offset,
    ) -> Result<Option<Slice>, StorageError> {
        self.tidy_maps();
        let log = self.log(partition)?;
        log.find_by_time(self.place(partition), timestamp_ms, (from, upto))
    }

    /// The first of the batches with the largest timestamp; none if there is no timestamp, or it begins at `upto` or
    /// later (LR-90).
    pub fn max_timestamp_batch(
        &self,
        partition: PartitionId,
        upto: Offset,
    ) -> Result<Option<Slice>, StorageError> {
        self.tidy_maps();
        let log = self.log(partition)?;
        log.max_timestamp_batch(self.place(partition), upto)
    }

    /// The first offset that can be read. The partition is open.
    #[must_use]
    pub fn log_start(&self, partition: PartitionId) -> Offset {
        self.opened(partition).log_start
    }

    /// The offset of the next record. The partition is open.
    #[must_use]
    pub fn log_end(&self, partition: PartitionId) -> Offset {
        self.opened(partition).log_end
    }

    /// Bytes of batches on the disk. The partition is open.
    #[must_use]
    pub fn size_bytes(&self, partition: PartitionId) -> u64 {
        self.opened(partition).size_bytes()
    }

    /// One segment, the oldest is number 0; none behind the last. For retention, which ends in
    /// [`SegmentJournal::set_log_start`].
    pub fn segment(
        &self,
        partition: PartitionId,
        number: usize,
    ) -> Result<Option<SegmentInfo>, StorageError> {
        self.log(partition)?.segment(self.place(partition), number)
    }

    /// When the segment that begins at `base` was last written to, milliseconds since 1970: its age if its batches have
    /// no timestamps (LR-62).
    pub fn segment_modified_ms(
        &self,
        partition: PartitionId,
        base: Offset,
    ) -> Result<i64, StorageError> {
        PartitionLog::segment_modified_ms(self.place(partition), base)
    }

    /// Where the last segment begins; none without segments.
    #[must_use]
    pub fn last_segment(&self, partition: PartitionId) -> Option<Offset> {
        self.log(partition).ok()?.last_segment()
    }

    /// All segments, oldest first.
    pub fn segments(&self, partition: PartitionId) -> Result<Vec<SegmentInfo>, StorageError> {
        self.log(partition)?.segments(self.place(partition))
    }

    /// Begins a new segment, so that retention can remove what was the last one (LR-61). Does nothing if that is empty.
    pub fn roll(&mut self, partition: PartitionId) -> Result<(), StorageError> {
        let (log, place) = self.log_and_place(partition)?;
        log.roll(place, 0)
            .map_err(failed("begin a segment in", place.directory()))
    }

    /// Moves the log start up, never down. Survives a power cut once it returns; whole segments below it are removed.
    pub fn set_log_start(
        &mut self,
        partition: PartitionId,
        log_start: Offset,
    ) -> Result<(), StorageError> {
        let (log, place) = self.log_and_place(partition)?;
        log.set_log_start(place, log_start)
    }

    /// The largest epoch at or below `epoch` and the offset where it ended (LR-83); `current` is the epoch of the
    /// partition's leader. The partition is open.
    #[must_use]
    pub fn leader_epoch_end(
        &self,
        partition: PartitionId,
        epoch: LeaderEpoch,
        current: LeaderEpoch,
    ) -> (LeaderEpoch, Offset) {
        self.opened(partition).leader_epoch_end(epoch, current)
    }

    /// The epoch of the record at the log start, if there is one. The partition is open.
    #[must_use]
    pub fn leader_epoch_at_start(&self, partition: PartitionId) -> Option<LeaderEpoch> {
        self.opened(partition).leader_epoch_at_start()
    }

    /// Forgets every partition after a failure (N9): the shard opens them again, and recovery finds out what is in place.
    /// Where writes are synced all shards start over: what is opened again counts as durable, and it has to be.
    pub fn start_over(&mut self) {
        self.partitions.clear();
        self.durable = self.last;
        let state = std::mem::replace(&mut self.state, JournalState::Open);
        if let Some(synced) = &mut self.synced {
            if let JournalState::Failed(reason) = state
                && synced.durability != Durability::Os
            {
                synced.journal.fail_with(reason);
            }
            // Where that fails the state stays as it is.
            synced.failures = synced.journal.start_over();
            self.last = synced.journal.synced();
        }
    }

    /// What [`SegmentJournal::complete`] takes out of the journal.
    pub(crate) fn take_all(&mut self) -> Vec<(PartitionId, PartitionLog)> {
        let mut open: Vec<(PartitionId, PartitionLog)> = self.partitions.drain().collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        open
    }

    /// The ticket of an append. Where appends are synced it is never durable: the real one comes with the hand-over.
    fn next_ticket(&mut self) -> Ticket {
        if self.synced.is_some() {
            return Ticket(u64::MAX);
        }
        self.last.0 += 1;
        self.last
    }

    pub(crate) fn fail(&mut self, partition: PartitionId, error: &dyn fmt::Display) {
        tracing::error!(%partition, %error, "an append failed: the journal stops");
        self.state = JournalState::Failed(error.to_string().into());
        self.dir.distrust();
    }
}

impl Journal for SegmentJournal {
    fn reserve(&mut self, partition: PartitionId, bytes: usize) -> Result<(), NoRoom> {
        let reserved = match self.log_and_place(partition) {
            Ok(_) if faults::fails("reserve") => Err(io::ErrorKind::StorageFull.into()),
            Ok((log, place)) => log.reserve(place, bytes),
            Err(error) => Err(io::Error::other(error)),
        };
        reserved.map_err(|source| NoRoom {
            partition,
            bytes,
            source,
        })
    }

    fn append(&mut self, entry: Entry) -> Appended {
        let mut appended = Appended {
            ticket: self.next_ticket(),
            rolled_at: None,
        };
        if self.state() != JournalState::Open {
            return appended;
        }
        let mut every_append = self.durability() == Durability::Always;
        let mut wants_flush = false;
        let done = match self.log_and_place(entry.partition) {
            Ok((log, place)) => {
                every_append |= log.options.syncs_every_append();
                let done = log.append(place, &entry);
                wants_flush = log.wants_flush();
                done
            }
            Err(error) => Err(io::Error::other(error)),
        };
        match (done, &self.synced) {
            (Ok(rolled_at), None) => {
                appended.rolled_at = rolled_at;
                self.durable = self.last;
            }
            (Ok(rolled_at), Some(synced)) => {
                appended.rolled_at = rolled_at;
                let in_place = synced.journal.synced();
                if every_append {
                    appended.ticket = self.hand_over(entry.partition, None);
                } else {
                    appended.ticket = in_place;
                    if wants_flush {
                        // nobody waits for it.
                        self.hand_over(entry.partition, None);
                    }
                }
            }
            (Err(error), _) => self.fail(entry.partition, &error),
        }
        appended
    }

    fn durable(&self) -> Ticket {
        match &self.synced {
            None => self.durable,
            Some(synced) => {
                let upto = synced.journal.synced();
                // In this order: what is synced after another shard has started over says nothing about this one.
                match synced.failures == synced.journal.failures() {
                    true => upto,
                    false => Ticket(0),
                }
            }
        }
    }

    fn barrier(&mut self) -> Ticket {
        self.last
    }

    fn state(&self) -> JournalState {
        match (&self.state, &self.synced) {
            (JournalState::Open, Some(synced)) if synced.failures != synced.journal.failures() => {
                synced.journal.failure()
            }
            (state, _) => state.clone(),
        }
    }

    fn room(&self) -> usize {
        usize::MAX
    }

    fn prefix_ordered(&self) -> bool {
        // `os`: in place is durable, and batches are put in place one after the other. Else: what is handed over goes into
        // the journal in that order, and what was not synced and decides over others is not taken (R-11 (a)).
        true
    }
}
