//! Retention: old segments go, a few in a turn.
//!
//! A pass goes over all partitions with clients' records, in the order of their ids. A turn of it changes one partition
//! at most and removes a few segments of that; the rest of the pass comes in later turns, so that requests get theirs in
//! between. The logs of coordinators are never touched: they hold the coordinators' state.

use super::Shard;
use crate::message::{Outbox, Outgoing, PartitionRole};
use crate::retention::{Candidate, Facts, Plan, plan};
use tally_protocol::{Now, Offset, PartitionId};
use tally_storage::{Cold, SegmentJournal, StorageError};

/// The first pass comes so long after the start at the latest, milliseconds (LR-60).
const FIRST_PASS_MS: u64 = 30_000;
/// Segments removed in a turn.
const SEGMENTS_A_TURN: usize = 16;
/// Partitions looked at in a turn.
const PARTITIONS_A_TURN: usize = 64;
/// Time between two turns of a pass, milliseconds.
const BETWEEN_TURNS_MS: u64 = 1;
/// What is not in memory is looked for again after so many milliseconds, and so often; then the partition waits for the
/// next pass.
pub(super) const LOADING_MS: u64 = 20;
const LOADINGS_MAX: usize = 250;

/// What is waited for, and since how many turns.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<(Cold, usize)>);

impl Patience {
    /// Whether it is worth waiting for. One that is not loaded for long can't be.
    pub(super) fn waits_for(&mut self, cold: &Cold) -> bool {
        let turns = match &self.0 {
            Some((before, turns)) if before == cold => turns + 1,
            _ => 1,
        };
        self.0 = Some((cold.clone(), turns));
        turns <= LOADINGS_MAX
    }
}

/// Where retention is.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// When the next turn comes, milliseconds of the monotonic clock.
    due_ms: Option<u64>,
    /// The pass has dealt with the partitions up to this one.
    done: Option<PartitionId>,
    /// What the next partition waits for.
    loading: Patience,
    /// For how many turns the log start of the next partition has been waiting for a sync.
    raising: usize,
}

impl Pass {
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }
}

/// How a partition was left.
enum Left {
    /// As it was.
    Alone,
    /// With nothing more to remove.
    Clean,
    /// With more to remove.
    Unfinished,
    /// Not looked at yet: this has to be loaded first.
    Cold(Cold),
    /// Not looked at yet: its log start is to move, and waits for a sync.
    Raising,
}

impl Shard {
    pub(super) fn schedule_first_retention(&mut self, now: Now) {
        let wait_ms = self.settings.retention_check_ms.min(FIRST_PASS_MS);
        self.retention.due_ms = Some(now.monotonic_ms + wait_ms);
    }

    /// One turn of a pass, if it is due.
    pub(super) fn retain(&mut self, now: Now, outbox: &mut Outbox) {
        if self
            .retention
            .due_ms
            .is_none_or(|due_ms| due_ms > now.monotonic_ms)
        {
            return;
        }
        self.retention.due_ms = Some(now.monotonic_ms + BETWEEN_TURNS_MS);
        for _ in 0..PARTITIONS_A_TURN {
            let Some(id) = self.partitions.after(self.retention.done).next() else {
                self.retention = Pass {
                    due_ms: Some(now.monotonic_ms + self.settings.retention_check_ms),
                    ..Pass::default()
                };
                return;
            };
            match self.retain_partition(now, id) {
                Left::Alone => self.pass_on(id),
                Left::Clean => {
                    self.pass_on(id);
                    return;
                }
                Left::Unfinished => return,
                Left::Cold(cold) if self.retention.loading.waits_for(&cold) => {
                    self.retention.due_ms = Some(now.monotonic_ms + LOADING_MS);
                    outbox.messages.push(Outgoing::Load(cold));
                    return;
                }
                Left::Raising if self.retention.raising < LOADINGS_MAX => {
                    self.retention.raising += 1;
                    self.retention.due_ms = Some(now.monotonic_ms + LOADING_MS);
                    return;
                }
                Left::Raising => self.pass_on(id),
                Left::Cold(cold) => {
                    tracing::error!(partition = %id, ?cold, "segments not looked at: they can't be read");
                    self.pass_on(id);
                }
            }
        }
    }

    fn pass_on(&mut self, id: PartitionId) {
        self.retention.done = Some(id);
        self.retention.loading = Patience::default();
        self.retention.raising = 0;
    }

    fn retain_partition(&mut self, now: Now, id: PartitionId) -> Left {
        if self.partitions.get(&id).is_some_and(|p| p.raising > 0) {
            return Left::Raising;
        }
        let plan = match self.plan_retention(now, id) {
            Ok(plan) => plan,
            Err(StorageError::NotInMemory(cold)) => return Left::Cold(cold),
            Err(error) => {
                tracing::error!(partition = %id, %error, "segments not looked at");
                return Left::Alone;
            }
        };
        if let Some(timestamp_ms) = plan.from_the_future {
            tracing::warn!(partition = %id, timestamp_ms, "a timestamp in the future keeps a segment");
        }
        let Some(log_start) = plan.log_start else {
            return Left::Alone;
        };
        match self.remove_segments(id, plan.roll, log_start) {
            Ok(()) if plan.more => Left::Unfinished,
            Ok(()) => Left::Clean,
            Err(error) => {
                tracing::error!(partition = %id, %error, "old segments not removed");
                Left::Clean
            }
        }
    }

    fn plan_retention(&self, now: Now, id: PartitionId) -> Result<Plan, StorageError> {
        let Some(partition) = self.partitions.get(&id) else {
            return Ok(Plan::default());
        };
        if partition.settings.role != PartitionRole::Data {
            return Ok(Plan::default());
        }
        let facts = Facts {
            now_ms: now.wall_ms,
            log_start: self.journal.log_start(id),
            high_watermark: partition.high_watermark,
            size_bytes: self.journal.size_bytes(id),
        };
        let mut failed = None;
        let oldest = (0..).map_while(|number| {
            let found = candidate(&self.journal, id, number);
            found.map_err(|error| failed = Some(error)).ok().flatten()
        });
        let retention = &partition.settings.retention;
        let plan = plan(retention, facts, oldest, SEGMENTS_A_TURN);
        failed.map_or(Ok(plan), Err)
    }

    /// Raises the log start over whole segments, or has that done when the producers are safe.
    fn remove_segments(
        &mut self,
        id: PartitionId,
        roll: bool,
        log_start: Offset,
    ) -> Result<(), StorageError> {
        // A disk may be too full for another segment: the ones before the last can go all the same.
        let rolled = if roll { self.journal.roll(id) } else { Ok(()) };
        let log_start = match &rolled {
            Ok(()) => log_start,
            Err(_) => self.journal.last_segment(id).unwrap_or(Offset::ZERO),
        };
        if log_start > self.journal.log_start(id) {
            self.raise_log_start(id, log_start, None)?;
        } else {
            // What was the last segment then may lie below the log start since.
            self.journal.set_log_start(id, log_start)?;
        }
        rolled
    }
}

fn candidate(
    journal: &SegmentJournal,
    id: PartitionId,
    number: usize,
) -> Result<Option<Candidate>, StorageError> {
    let Some(segment) = journal.segment(id, number)? else {
        return Ok(None);
    };
    let newest_ms = if segment.max_timestamp < 0 {
        journal.segment_modified_ms(id, segment.base)?
    } else {
        segment.max_timestamp
    };
    Ok(Some(Candidate {
        end: segment.end,
        bytes: segment.bytes,
        newest_ms,
        is_last: segment.end == journal.log_end(id) && journal.segment(id, number + 1)?.is_none(),
    }))
}
