//! Expiry of offsets and of groups that nobody uses (KIP-211, section 7.5, O-12).
//!
//! One look over all groups is split into turns of a bounded number of records, so that a batch stays small.

use super::delete::Subscriptions;
use super::{PartitionOffsets, StoredGroup, StoredOffset, tombstone};
use crate::groups::{GroupState, Groups, Turn};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use tally_protocol::records::offsets_log::OffsetsRecord;

/// Tombstones of one turn, about 60 bytes each: well below every limit on the size of a batch.
const RECORDS_PER_TURN_MAX: usize = 1_000;
/// Between two turns: others get a word in, and a log that refuses the tombstones is not asked in a busy loop.
const PAUSE_MS: u64 = 10;

/// Where the look over all groups is.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// When the next turn is due, monotonic.
    pub(crate) due_ms: u64,
    /// The last group of the turn before; `None` at the start of a look.
    after: Option<Arc<str>>,
}

/// Whether anything of a group is left.
#[derive(PartialEq, Eq)]
enum Examined {
    Whole,
    Unfinished,
}

impl Sweep {
    pub(crate) fn starting_at(due_ms: u64) -> Sweep {
        Sweep {
            due_ms,
            after: None,
        }
    }
}

impl Groups {
    /// One turn of the look at all groups (GR-90).
    pub(crate) fn sweep(&mut self, turn: &mut Turn) {
        let start = match self.sweep.after.take() {
            Some(after) => Bound::Excluded(after),
            None => Bound::Unbounded,
        };
        let mut deleted = Vec::new();
        let mut last_whole = match &start {
            Bound::Excluded(after) => Some(after.clone()),
            Bound::Included(_) | Bound::Unbounded => None,
        };
        let mut unfinished = false;
        for (group, stored) in self.stored().groups().range((start, Bound::Unbounded)) {
            match self.expire_offsets(turn, (group, stored), &mut deleted) {
                Examined::Whole => last_whole = Some(group.clone()),
                Examined::Unfinished => unfinished = true,
            }
            if unfinished || turn.records.len() >= RECORDS_PER_TURN_MAX {
                unfinished = true;
                break;
            }
        }
        for group in &deleted {
            self.drop_live(group);
        }
        let now_ms = turn.now.monotonic_ms;
        self.sweep = if unfinished {
            Sweep {
                due_ms: now_ms + PAUSE_MS,
                after: last_whole,
            }
        } else {
            Sweep::starting_at(now_ms + turn.settings.offsets_retention_check_interval_ms)
        };
    }

    /// Deletes what has expired of one group, and the group with its last offset (GR-91, GR-92).
    fn expire_offsets(
        &self,
        turn: &mut Turn,
        (group, stored): (&Arc<str>, &StoredGroup),
        deleted: &mut Vec<Arc<str>>,
    ) -> Examined {
        let Some(rule) = self.expiry_rule(group, stored) else {
            return Examined::Whole;
        };
        let mut kept = false;
        for (topic, partition, entry) in stored.offsets() {
            if turn.records.len() >= RECORDS_PER_TURN_MAX {
                return Examined::Unfinished;
            }
            if !rule.held.hold(topic) && is_expired(turn, entry, rule.empty_since_ms) {
                turn.records.push(tombstone(group, topic, partition));
            } else {
                kept = true;
            }
        }
        let in_use = self.live(group).is_some_and(|live| !live.is_deserted())
            || stored
                .consumer
                .as_ref()
                .is_some_and(|group| group.has_members());
        if !kept && !in_use {
            for record in stored.consumer.iter().flat_map(|group| group.tombstones()) {
                turn.records.push(OffsetsRecord::Consumer {
                    group: group.clone(),
                    record,
                });
            }
            if stored.record.is_some() {
                turn.records.push(OffsetsRecord::Group {
                    group: group.clone(),
                    value: None,
                });
            }
            deleted.push(group.clone());
        }
        Examined::Whole
    }

    /// GR-90; `None`: nothing of this group is looked at.
    fn expiry_rule(&self, group: &str, stored: &StoredGroup) -> Option<ExpiryRule> {
        if let Some(consumer) = &stored.consumer {
            return Some(ExpiryRule {
                empty_since_ms: None,
                held: Subscriptions::Topics(consumer.subscribed_topics()),
            });
        }
        let nothing_held = Subscriptions::Topics(BTreeSet::new());
        match self.state(group) {
            GroupState::Empty => Some(ExpiryRule {
                empty_since_ms: stored
                    .record
                    .as_ref()
                    .filter(|record| !record.protocol_type.is_empty())
                    .map(|record| record.current_state_timestamp)
                    .filter(|&timestamp| timestamp >= 0),
                held: nothing_held,
            }),
            GroupState::Stable => {
                let live = self.live(group).filter(|live| live.is_consumer())?;
                Some(ExpiryRule {
                    empty_since_ms: None,
                    held: live.subscriptions(),
                })
            }
            GroupState::PreparingRebalance
            | GroupState::CompletingRebalance
            | GroupState::Assigning
            | GroupState::Reconciling => None,
        }
    }
}

/// How a group's offsets expire.
struct ExpiryRule {
    /// Counted from here, wall clock; `None`: from each commit.
    empty_since_ms: Option<i64>,
    held: Subscriptions,
}

fn is_expired(turn: &Turn, entry: &PartitionOffsets, empty_since_ms: Option<i64>) -> bool {
    let Some(StoredOffset { value, .. }) = &entry.committed else {
        return false;
    };
    if !entry.pending.is_empty() {
        return false; // O-12
    }
    let now_ms = turn.now.wall_ms;
    if value.expire_timestamp >= 0 {
        return now_ms >= value.expire_timestamp;
    }
    let base_ms = empty_since_ms.unwrap_or(value.commit_timestamp);
    now_ms.saturating_sub(base_ms) >= turn.settings.offsets_retention_ms
}
