//! Compaction: the shard looks for the dirtiest log, gives a pass over it out as a job, and takes over what comes back.
//!
//! One pass at a time. The job works on closed segments, which never change; whatever happens meanwhile (a deletion, a
//! reload, retention) makes the swap void, and the pass is begun again later.

use super::Shard;
use super::retain::{LOADING_MS, Patience};
use crate::compaction::{
    Aborted, Candidate, CompactionJob, Facts, JobError, Order, Segment, candidate,
};
use crate::message::{Outbox, Outgoing};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tally_producer_state::AbortedTransaction;
use tally_protocol::{Now, Offset, PartitionId};
use tally_storage::{CleanedSegment, Cold, CompactionError, Durability, StorageError, Swapped};

/// Partitions looked at in a turn.
const PARTITIONS_A_TURN: usize = 64;
/// Time between two turns, milliseconds.
const BETWEEN_TURNS_MS: u64 = 1;

/// Where compaction is.
#[derive(Debug, Default)]
pub(super) struct Compactor {
    /// When the next turn comes, milliseconds of the monotonic clock; none while a job is out.
    due_ms: Option<u64>,
    /// The search has dealt with the partitions up to this one.
    seen: Option<PartitionId>,
    /// The dirtiest so far.
    best: Option<(PartitionId, Candidate)>,
    /// The partition whose job is out, and how to end that early.
    out: Option<(PartitionId, Arc<AtomicBool>)>,
    /// What the search waits for.
    loading: Patience,
    /// With synced durability: how far the log of a partition may be compacted.
    secured: BTreeMap<PartitionId, Secured>,
    /// Partitions whose logs can't be compacted, until they are opened again.
    given_up: BTreeSet<PartitionId>,
}

/// Offsets below which nothing can be undone by a power cut: neither the records nor the markers behind them.
#[derive(Clone, Copy, Debug)]
struct Secured {
    upto: Offset,
    /// The last stable offset at a moment, and the log end, which holds all markers that it rests on.
    pending: Option<(Offset, Offset)>,
}

impl Secured {
    const NOTHING: Secured = Secured {
        upto: Offset::ZERO,
        pending: None,
    };

    fn take(&mut self, (stable, log_end): (Offset, Offset), settled: Offset) {
        if log_end <= settled {
            *self = Secured {
                upto: stable,
                pending: None,
            };
            return;
        }
        let (then, end) = *self.pending.get_or_insert((stable, log_end));
        if end <= settled {
            *self = Secured {
                upto: then,
                pending: Some((stable, log_end)),
            };
        }
    }
}

impl Compactor {
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Ends the job of `id`, or any: what it has done so far is not wanted any more.
    pub(super) fn stop(&mut self, id: Option<PartitionId>) {
        if let Some((out, stop)) = &self.out
            && id.is_none_or(|id| id == *out)
        {
            stop.store(true, Ordering::Relaxed);
        }
    }

    /// A partition has been opened, or is gone: what was wrong with its log may be right now.
    pub(super) fn forget(&mut self, id: PartitionId) {
        self.given_up.remove(&id);
        self.secured.remove(&id);
    }
}

impl Shard {
    pub(super) fn schedule_compaction(&mut self, now: Now, wait_ms: u64) {
        if self.settings.compactor.enabled {
            self.compactor.due_ms = Some(now.monotonic_ms + wait_ms);
        }
    }

    /// One turn of the search, if it is due.
    pub(super) fn compact(&mut self, now: Now, outbox: &mut Outbox) {
        let is_due = |due_ms: u64| due_ms <= now.monotonic_ms;
        if self.compactor.out.is_some() || !self.compactor.due_ms.is_some_and(is_due) {
            return;
        }
        let next = self.partitions.after(self.compactor.seen);
        let ids: Vec<PartitionId> = next.take(PARTITIONS_A_TURN).collect();
        for id in &ids {
            self.note_stable(*id);
            let found = match self.compaction_candidate(now, *id) {
                Ok(found) => found,
                Err(cold) if self.compactor.loading.waits_for(&cold) => {
                    outbox.messages.push(Outgoing::Load(cold));
                    return self.schedule_compaction(now, LOADING_MS);
                }
                Err(cold) => {
                    tracing::error!(partition = %id, ?cold, "segments not looked at: they can't be read");
                    None
                }
            };
            self.compactor.seen = Some(*id);
            let best = self.compactor.best;
            if let Some(found) = found
                && best.is_none_or(|(_, best)| found.dirty_ratio > best.dirty_ratio)
            {
                self.compactor.best = Some((*id, found));
            }
        }
        if ids.len() == PARTITIONS_A_TURN {
            return self.schedule_compaction(now, BETWEEN_TURNS_MS);
        }
        self.compactor.seen = None;
        let begun = match self.compactor.best.take() {
            Some((id, _)) => self.begin_compaction(now, id, outbox),
            None => false,
        };
        if begun {
            self.compactor.due_ms = None;
        } else {
            self.schedule_compaction(now, self.settings.compactor.backoff_ms.max(1));
        }
    }

    fn note_stable(&mut self, id: PartitionId) {
        let Some(partition) = self.partitions.get(&id) else {
            return;
        };
        if partition.settings.compaction.compact {
            let stable = partition.last_stable_offset(self.journal.log_start(id));
            let (log_end, settled) = (partition.log_end, self.journal.settled(id));
            let secured = self.compactor.secured.entry(id);
            secured
                .or_insert(Secured::NOTHING)
                .take((stable, log_end), settled);
            self.journal.promise_newest_snapshot(id);
        }
    }

    /// What there is to compact, or what has to be loaded to tell.
    fn compaction_candidate(&self, now: Now, id: PartitionId) -> Result<Option<Candidate>, Cold> {
        let Some(partition) = self.partitions.get(&id) else {
            return Ok(None);
        };
        let settings = &partition.settings.compaction;
        if !settings.compact || self.compactor.given_up.contains(&id) {
            return Ok(None);
        }
        match self.compaction_facts(now, id) {
            Ok(facts) => Ok(candidate(settings, &facts)),
            Err(StorageError::NotInMemory(cold)) => Err(cold),
            Err(error) => {
                tracing::error!(partition = %id, %error, "segments not looked at");
                Ok(None)
            }
        }
    }

    fn compaction_facts(&self, now: Now, id: PartitionId) -> Result<Facts, StorageError> {
        let journal = &self.journal;
        let partition = &self.partitions[&id];
        let settings = &partition.settings.compaction;
        let first_dirty = journal.first_dirty(id);
        let mut facts = Facts {
            now_ms: now.wall_ms,
            first_dirty,
            stable: self
                .compactor
                .secured
                .get(&id)
                .map_or(Offset::ZERO, |s| s.upto)
                .min(self.anchored_upto(id)),
            sealed: Vec::new(),
            oldest_dirty_ms: -1,
        };
        let mut first = true;
        for (number, sealed) in journal.sealed_segments(id).enumerate() {
            let is_dirty = sealed.end > first_dirty;
            let mut newest_ms = 0;
            if is_dirty && settings.min_lag_ms > 0 {
                let info = journal.segment(id, number)?;
                newest_ms = match info.map_or(-1, |info| info.max_timestamp) {
                    none if none < 0 => journal.segment_modified_ms(id, sealed.base)?,
                    newest_ms => newest_ms,
                };
            }
            if is_dirty && first && settings.max_lag_ms < i64::MAX {
                facts.oldest_dirty_ms = journal.first_timestamp(id, sealed.base)?;
            }
            first &= !is_dirty;
            facts.sealed.push(Segment {
                end: sealed.end,
                bytes: sealed.bytes,
                newest_ms,
            });
        }
        Ok(facts)
    }

    /// Gives a pass out; returns whether there is one.
    fn begin_compaction(&mut self, now: Now, id: PartitionId, outbox: &mut Outbox) -> bool {
        // Some turns may have gone by since it was looked at.
        let Ok(Some(found)) = self.compaction_candidate(now, id) else {
            return false;
        };
        if let Err(error) = self.anchor(id, found.upto) {
            tracing::warn!(partition = %id, %error, "not compacted: its snapshot can't be synced");
            return false;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let input = self
            .journal
            .compaction_input(id, found.upto, Arc::clone(&stop));
        let Some(aborted) = self.aborted_transactions(id) else {
            tracing::error!(partition = %id, "not compacted: a row of an aborted transaction has an unknown version");
            self.compactor.given_up.insert(id);
            return false;
        };
        let (Ok(input), Some(partition)) = (input, self.partitions.get(&id)) else {
            return false;
        };
        let order = Order {
            now_ms: now.wall_ms,
            delete_retention_ms: partition.settings.compaction.delete_retention_ms,
            first_dirty: self.journal.first_dirty(id),
            aborted,
            traces: partition.producers.traces(found.upto),
            keys_bytes: self.settings.compactor.keys_bytes,
            seed: self.settings.seed,
        };
        self.compactor.out = Some((id, stop));
        outbox.jobs.push(Box::new(CompactionJob::new(input, order)));
        true
    }

    /// How far compaction may go for the sake of replays: one from a snapshot below would miss the markers that compaction has
    /// removed, and find their transactions open for ever. So there has to be one that no power cut can take.
    fn anchored_upto(&self, id: PartitionId) -> Offset {
        match self.journal.durability() {
            Durability::Memory | Durability::Os => Offset(i64::MAX),
            Durability::Commit | Durability::Always => {
                let snapshot = self.journal.settled_snapshot(id, Offset::ZERO);
                snapshot.unwrap_or(Offset::ZERO)
            }
        }
    }

    /// Sees to that snapshot.
    fn anchor(&mut self, id: PartitionId, upto: Offset) -> Result<(), StorageError> {
        let synced = self.anchored_upto(id) < Offset(i64::MAX);
        match self.journal.settled_snapshot(id, upto).filter(|_| synced) {
            Some(at) => self.journal.anchor_snapshot(id, at),
            None => Ok(()),
        }
    }

    /// All of them: a transaction that is compacted may have its marker far behind.
    fn aborted_transactions(&self, id: PartitionId) -> Option<Aborted> {
        let mut aborted = Aborted::default();
        let mut known = true;
        let from = self.journal.log_start(id);
        self.journal.visit_transaction_rows(id, from, &mut |row| {
            match AbortedTransaction::decode(row) {
                Some(row) => aborted.add(row),
                None => known = false,
            }
            ControlFlow::Continue(())
        });
        known.then_some(aborted)
    }

    /// Takes over what a job has made.
    pub(super) fn compacted(&mut self, now: Now, mut job: Box<CompactionJob>, outbox: &mut Outbox) {
        let id = job.partition();
        let (outcome, done) = job.take_outcome();
        let Some((_, stop)) = self.compactor.out.take() else {
            return;
        };
        let cleaned = match outcome {
            Ok(cleaned) => cleaned,
            Err(error) => {
                self.journal.abandon_compaction(id);
                let not_synced = matches!(error, JobError::Storage(CompactionError::NotSynced(_)));
                let stopped = stop.load(Ordering::Relaxed) && !not_synced;
                // Its files went while it read them, or nobody wants it any more: whatever it met is no news.
                if self.partitions.contains_key(&id) && !stopped {
                    self.give_up_if_hopeless(id, &error);
                }
                return self.schedule_compaction(now, self.settings.compactor.backoff_ms.max(1));
            }
        };
        if !self.swap(id, &cleaned, done) {
            return self.schedule_compaction(now, self.settings.compactor.backoff_ms.max(1));
        }
        if let Some(first_dirty) = done {
            tracing::debug!(partition = %id, %first_dirty, keys = job.key_count(), "log compacted");
            // There may be another log that is due.
            return self.schedule_compaction(now, 0);
        }
        self.compactor.out = Some((id, stop));
        outbox.jobs.push(job);
    }

    /// Returns whether the pass may go on.
    fn swap(&mut self, id: PartitionId, cleaned: &CleanedSegment, done: Option<Offset>) -> bool {
        let wanted = self
            .partitions
            .get(&id)
            .is_some_and(|partition| partition.settings.compaction.compact);
        if !wanted {
            self.journal.abandon_compaction(id);
            return false;
        }
        match self.journal.swap_cleaned(id, cleaned, done) {
            Ok(Swapped::Done) => {
                tracing::debug!(partition = %id, before = cleaned.bytes_before, after = cleaned.bytes, "segments compacted");
                true
            }
            Ok(Swapped::Void) => false,
            Err(error) => {
                tracing::error!(partition = %id, %error, "compacted segments not taken over");
                false
            }
        }
    }

    /// Damage does not heal by trying again; a full disk may.
    fn give_up_if_hopeless(&mut self, id: PartitionId, error: &JobError) {
        match error {
            JobError::Storage(CompactionError::Gone | CompactionError::Stopped) => {}
            JobError::Storage(CompactionError::NotSynced(error)) => {
                tracing::error!(partition = %id, %error, "log not compacted");
                self.compactor.given_up.insert(id);
            }
            JobError::Storage(CompactionError::Storage(error)) => {
                tracing::error!(partition = %id, %error, "log not compacted");
                if matches!(error, StorageError::Corrupt { .. }) {
                    self.compactor.given_up.insert(id);
                }
            }
            JobError::Inconsistent(inconsistent) => {
                tracing::error!(partition = %id, marker = %inconsistent.marker_at, "log not compacted: a marker and the index of aborted transactions disagree");
                self.compactor.given_up.insert(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compacted_rests_on_nothing_that_is_not_settled() {
        let mut secured = Secured::NOTHING;
        let mut take = |stable, log_end, settled| {
            secured.take((Offset(stable), Offset(log_end)), Offset(settled));
            secured.upto.0
        };
        // Data up to 10, its marker at 12: settled up to 11 the marker can still be lost.
        assert_eq!(take(10, 13, 9), 0);
        assert_eq!(take(14, 20, 11), 0);
        assert_eq!(take(14, 20, 13), 10, "as it was when the log ended there");
        assert_eq!(take(30, 30, 19), 10);
        assert_eq!(take(30, 30, 20), 14);
        // With durability `os` at once.
        assert_eq!(take(40, 50, i64::MAX), 40);
    }
}
