//! One partition: its producers, its offsets, its place in the journal and the coordinator it hosts.
//!
//! Invariants: log start <= last stable offset <= high watermark <= log end; offsets are contiguous from append to
//! append; the producers' state is what a replay of the log would give (N6).

use crate::coordinator::Hosted;
use crate::message::{
    EpochEnd, Isolation, PartitionRole, PartitionSettings, ReadOutcome, ReadRequest, Unread,
    WaiterId,
};
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use tally_producer_state::{AbortedTransaction, ProducerStates, collect_aborted};
use tally_protocol::{
    BatchHeader, ErrorCode, LeaderEpoch, Now, Offset, PartitionId, ProducerId, batch, planted,
};
use tally_storage::{Durability, Entry, Journal, SegmentJournal, StorageError, Ticket};

/// The state of a partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) settings: PartitionSettings,
    pub(crate) producers: ProducerStates,
    pub(crate) hosted: Hosted,
    /// First offset not sequenced yet (LEO).
    pub(crate) log_end: Offset,
    /// First offset not durable yet (HW): not in place or not synced, as the mode says for this partition (8.1).
    pub(crate) high_watermark: Offset,
    /// What moves the bounds of readers.
    pub(crate) bounds: Bounds,
    /// When it is synced because of flush.ms, if it is to be.
    pub(crate) flush_due_ms: Option<u64>,
    /// Moves of the log start that wait for a sync.
    pub(crate) raising: usize,
    waiters: BTreeMap<WaiterId, Isolation>,
}

/// What moves the bounds of a partition's readers (the second table of 8.1, D-12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bounds {
    /// An append whose ticket is durable moves the high watermark, and with it lets go of decided transactions: `os`,
    /// `memory`, `always`.
    Appends,
    /// The same, but a decided transaction holds readers of committed data until its marker is synced: the data in `commit`.
    AppendsAndSyncs,
    /// Nobody sees what is not synced: the internal topics in `commit`.
    Syncs,
}

impl Bounds {
    fn of(durability: Durability, role: PartitionRole) -> Bounds {
        match (durability, role) {
            (Durability::Memory | Durability::Os | Durability::Always, _) => Bounds::Appends,
            (Durability::Commit, PartitionRole::Data) => Bounds::AppendsAndSyncs,
            (Durability::Commit, PartitionRole::Transactions | PartitionRole::Groups) => {
                Bounds::Syncs
            }
        }
    }
}

/// What a partition's log amounts to.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) producers: ProducerStates,
    pub(crate) hosted: Hosted,
    pub(crate) log_end: Offset,
}

/// Where a batch went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) base_offset: Offset,
    pub(crate) ticket: Ticket,
}

impl Partition {
    /// A partition as recovery found it.
    pub(crate) fn new(
        id: PartitionId,
        settings: PartitionSettings,
        durability: Durability,
        replayed: Replayed,
    ) -> Partition {
        let Replayed {
            producers,
            hosted,
            log_end,
        } = replayed;
        let mut partition = Partition {
            id,
            settings,
            producers,
            hosted,
            log_end,
            // LR-57: what recovery kept is durable in the sense of the running mode.
            high_watermark: log_end,
            bounds: Bounds::of(durability, settings.role),
            flush_due_ms: None,
            raising: 0,
            waiters: BTreeMap::new(),
        };
        partition.producers.high_watermark(log_end);
        partition
    }

    /// First offset that a read_committed reader does not see (M-12).
    pub(crate) fn last_stable_offset(&self, log_start: Offset) -> Offset {
        let first_unstable = self
            .producers
            .first_unstable()
            .unwrap_or(self.high_watermark);
        if planted::is("m12") {
            return self.high_watermark;
        }
        first_unstable.min(self.high_watermark).max(log_start)
    }

    /// Whether flush.ms, or what stands for it, is set.
    pub(crate) fn is_flushed_by_time(&self) -> bool {
        self.settings.log.flush_ms != u64::MAX
    }

    /// Stamps `batch` and writes it; what it needs has been reserved. The producers are not told yet, so that a snapshot
    /// taken at a roll is the state before this batch (P-61).
    pub(crate) fn append(
        &mut self,
        journal: &mut SegmentJournal,
        mut batch: BytesMut,
        header: &BatchHeader,
    ) -> Placed {
        let base_offset = self.log_end;
        let last = base_offset.plus(i64::from(header.last_offset_delta));
        assert!(last >= base_offset, "a batch has a last record");
        batch::stamp(&mut batch, base_offset, self.settings.leader_epoch);
        let appended = journal.append(Entry {
            partition: self.id,
            leader_epoch: self.settings.leader_epoch,
            base: base_offset,
            last,
            max_timestamp: header.max_timestamp,
            bytes: batch.freeze(),
        });
        if let Some(at) = appended.rolled_at {
            self.write_snapshot(journal, at).ok();
        }
        self.log_end = last.next();
        Placed {
            base_offset,
            ticket: appended.ticket,
        }
    }

    /// Keeps the producers' state as of `at`. A snapshot only shortens the next start, unless the log start moves
    /// (D-10): a failure is logged, and returned for those who move it. One without producers is kept too, else the next start would
    /// read the whole log to find that there are none.
    pub(crate) fn write_snapshot(
        &self,
        journal: &mut SegmentJournal,
        at: Offset,
    ) -> Result<(), StorageError> {
        if at == Offset::ZERO {
            return Ok(());
        }
        let written = journal.write_snapshot(self.id, at, &self.producers.snapshot(at));
        if let Err(error) = &written {
            tracing::warn!(partition = %self.id, %at, %error, "producer snapshot not written");
        }
        written
    }

    /// Whether answers to appends here wait for a sync: in `always`, and with `flush.messages=1`.
    pub(crate) fn syncs_each_append(&self, durability: Durability) -> bool {
        durability == Durability::Always || self.settings.log.syncs_every_append()
    }

    /// Moves the high watermark; returns the fetches that may now see more (F-4).
    pub(crate) fn advance(&mut self, log_start: Offset, high_watermark: Offset) -> Vec<WaiterId> {
        let stable_before = self.last_stable_offset(log_start);
        self.raise_high_watermark(high_watermark);
        if self.bounds == Bounds::Appends {
            self.producers.high_watermark(high_watermark);
        }
        self.woken(true, stable_before, log_start)
    }

    /// Everything below `end` is synced: what `commit` holds back until then is let go; returns the fetches that may now
    /// see more.
    pub(crate) fn synced(&mut self, log_start: Offset, end: Offset) -> Vec<WaiterId> {
        let stable_before = self.last_stable_offset(log_start);
        let seen_before = self.high_watermark;
        if self.bounds == Bounds::Syncs {
            self.raise_high_watermark(end);
        }
        self.producers.high_watermark(end);
        self.woken(self.high_watermark > seen_before, stable_before, log_start)
    }

    fn raise_high_watermark(&mut self, high_watermark: Offset) {
        assert!(
            high_watermark <= self.log_end,
            "nothing beyond the log end is durable"
        );
        // Never down: a topic whose flush.messages has been changed may hear of an append before one that waits for its sync.
        self.high_watermark = self.high_watermark.max(high_watermark);
    }

    /// The fetches that a move of the bounds wakes.
    fn woken(&mut self, seen: bool, stable_before: Offset, log_start: Offset) -> Vec<WaiterId> {
        if self.waiters.is_empty() {
            return Vec::new();
        }
        let stable_moved = self.last_stable_offset(log_start) > stable_before;
        let mut woken = Vec::new();
        self.waiters.retain(|waiter, isolation| {
            let wakes = match isolation {
                Isolation::ReadUncommitted => seen,
                Isolation::ReadCommitted => stable_moved,
            };
            if wakes {
                woken.push(*waiter);
            }
            !wakes
        });
        woken
    }

    /// Forgets a fetch.
    pub(crate) fn cancel_waiter(&mut self, waiter: WaiterId) {
        self.waiters.remove(&waiter);
    }

    /// Wakes everybody: the partition is going away or its start has moved.
    pub(crate) fn take_waiters(&mut self) -> Vec<WaiterId> {
        std::mem::take(&mut self.waiters).into_keys().collect()
    }

    /// Compares a reader's leader epoch with ours (LR-82).
    pub(crate) fn check_leader_epoch(&self, epoch: LeaderEpoch) -> Result<(), ErrorCode> {
        if epoch.0 < 0 || epoch == self.settings.leader_epoch {
            Ok(())
        } else if epoch < self.settings.leader_epoch {
            Err(ErrorCode::FencedLeaderEpoch)
        } else {
            Err(ErrorCode::UnknownLeaderEpoch)
        }
    }

    /// Where `epoch` ends (LR-83).
    pub(crate) fn epoch_end(&self, journal: &SegmentJournal, epoch: LeaderEpoch) -> EpochEnd {
        let (epoch, end) = journal.leader_epoch_end(self.id, epoch, self.settings.leader_epoch);
        EpochEnd { epoch, end }
    }

    /// Reads for a fetch (LR-100 to LR-107).
    pub(crate) fn read(
        &mut self,
        journal: &SegmentJournal,
        request: &ReadRequest,
    ) -> Result<ReadOutcome, Unread> {
        self.check_leader_epoch(request.current_leader_epoch)?;
        let log_start = journal.log_start(self.id);
        let last_stable_offset = self.last_stable_offset(log_start);
        let mut outcome = ReadOutcome {
            high_watermark: self.high_watermark,
            last_stable_offset,
            log_start,
            slices: Vec::new(),
            aborted: Vec::new(),
            diverging: None,
        };
        if request.last_fetched_epoch.0 >= 0 {
            outcome.diverging = self.divergence(journal, log_start, request)?;
            if outcome.diverging.is_some() {
                return Ok(outcome);
            }
        }
        if request.from < log_start || request.from > self.log_end {
            return Err(ErrorCode::OffsetOutOfRange.into());
        }
        let upper = match request.isolation {
            Isolation::ReadUncommitted => self.high_watermark,
            Isolation::ReadCommitted => last_stable_offset,
        };
        let mut found_bytes = 0;
        if request.from < upper && (request.max_bytes > 0 || request.first_whole) {
            let read = journal
                .read(
                    self.id,
                    request.from,
                    upper,
                    request.max_bytes,
                    request.first_whole,
                )
                .map_err(|error| unread(self.id, error))?;
            let is_committed = request.isolation == Isolation::ReadCommitted;
            if is_committed && !read.slices.is_empty() && !planted::is("f1") {
                outcome.aborted = self.aborted(journal, request.from, read.next.min(upper));
            }
            found_bytes = read.slices.iter().map(|slice| slice.len()).sum();
            outcome.slices = read.slices;
        }
        if let Some(waiter) = request.waiter
            && found_bytes < request.wanted_bytes
        {
            self.waiters.insert(waiter, request.isolation);
        }
        Ok(outcome)
    }

    /// Whether the reader's log left ours before its fetch offset (LR-84).
    fn divergence(
        &self,
        journal: &SegmentJournal,
        log_start: Offset,
        request: &ReadRequest,
    ) -> Result<Option<EpochEnd>, ErrorCode> {
        let end = self.epoch_end(journal, request.last_fetched_epoch);
        if end.end == Offset::NONE || request.from < log_start {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let diverges = end.epoch < request.last_fetched_epoch || end.end < request.from;
        Ok(diverges.then_some(end))
    }

    /// The aborted transactions of a read (F-5 to F-7).
    fn aborted(
        &self,
        journal: &SegmentJournal,
        from: Offset,
        upper: Offset,
    ) -> Vec<(ProducerId, Offset)> {
        let mut rows = Vec::new();
        journal.visit_transaction_rows(self.id, from, &mut |row| {
            let Some(row) = AbortedTransaction::decode(row) else {
                tracing::error!(partition = %self.id, "row of an aborted transaction in an unknown version skipped");
                return ControlFlow::Continue(());
            };
            let no_later_row_begins_below = row.last_stable_offset >= upper;
            rows.push(row);
            if no_later_row_begins_below { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        collect_aborted(rows.into_iter(), from, upper)
    }

    /// Tells the producers about an appended data batch.
    pub(crate) fn applied(&mut self, placed: Placed, header: &BatchHeader, now: Now) {
        if header.has_producer() {
            self.producers.apply(placed.base_offset, header, now);
        }
    }
}

/// What a failed read or lookup means.
pub(crate) fn unread(id: PartitionId, error: StorageError) -> Unread {
    match error {
        StorageError::NotInMemory(cold) => Unread::Cold(cold),
        error => {
            tracing::error!(partition = %id, %error, "read failed");
            Unread::Refused(ErrorCode::KafkaStorageError)
        }
    }
}
