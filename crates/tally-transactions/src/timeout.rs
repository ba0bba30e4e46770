//! What time does: timeouts of transactions (S-11, S-12, K-2), expiry of ids (S-10), and the start after a crash
//! (S-9, D-13, CR-27).
//!
//! Running time is monotonic: no jump of the wall clock can abort a transaction of a running broker. The stored start is
//! wall clock and is only used when the coordinator is loaded.

use std::ops::Bound;
use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionRecord, TransactionValue};
use tally_protocol::{Now, planted};

use crate::command::{Decision, Effect, ProducerIdBlock, Settings};
use crate::coordinator::TransactionCoordinator;
use crate::state::{Cause, Completion, Reason, TimerKind};
use crate::transitions::{self, NEVER_TIMES_OUT_MS, Phase};

/// How many timers one `expire` serves: one decision must not hold up the shard; the rest is due at once.
const TIMERS_PER_STEP_MAX: usize = 1000;
/// How many ids one `expire` looks at for expiry, for the same reason.
const IDS_PER_STEP_MAX: usize = 10_000;
/// How many tombstones one `expire` writes.
const TOMBSTONES_PER_STEP_MAX: usize = 1000;

/// The first tick after `deadline_ms` at which a transaction is aborted: start + timeout < now, looked at once per interval (S-11).
pub(crate) fn abort_tick_ms(deadline_ms: u64, settings: &Settings) -> u64 {
    let interval_ms = settings.abort_timed_out_interval_ms.max(1);
    (deadline_ms / interval_ms)
        .saturating_add(1)
        .saturating_mul(interval_ms)
}

impl TransactionCoordinator {
    /// Once, after the last replayed record: completes every decided transaction again and starts the clocks of the open
    /// ones (S-9, D-13). Until then the ids of this partition answer 14.
    ///
    /// Decides no records: a Prepare that owes no marker is completed by the next `expire`, which is due at once.
    pub fn recovered(&mut self, now: Now) -> Decision {
        self.soft.needs_recovery = false;
        self.soft.begin_event(now);
        self.start_sweeping(now);
        self.stage(now, Cause::Other);
        let ids: Vec<_> = self.hard.ids.keys().map(Arc::clone).collect();
        let mut decision = Decision::nothing();
        for id in ids {
            let value = &self.hard.ids[&id];
            match Phase::of(value) {
                Phase::Empty | Phase::Ended { .. } => {}
                Phase::Ongoing => self.resume_clock(now, &id),
                Phase::Ending if planted::is("s9") => {}
                Phase::Ending => {
                    let partitions: Vec<_> = transitions::partitions_of(value).collect();
                    let ending = self.soft.event;
                    let mut set = self.marker_set(&id, value, ending, partitions);
                    set.commit &= !planted::is("s9 abort");
                    self.begin_completion(&id, None, ending);
                    if set.partitions.is_empty() {
                        let finish_at = |completion: &mut Completion, _: &mut _| {
                            completion.finish_at_ms = Some(now.monotonic_ms);
                        };
                        self.soft.with_completion(&id, finish_at);
                    } else {
                        decision.effects.push(Effect::WriteMarkers(set));
                    }
                }
            }
        }
        decision
    }

    /// When `expire` has something to do, monotonic milliseconds; `None` if only a command can change that.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        if self.soft.needs_recovery {
            return Some(0);
        }
        let sweep = if self.is_empty() {
            None
        } else {
            self.soft.sweep.next_ms
        };
        [self.soft.first_timer_ms(), sweep, self.soft.fence.next_ms]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due, `recovered` included should it not have been called. Records it decides are applied like those of a command; if they can't be appended the same is
    /// decided again later.
    pub fn expire(&mut self, now: Now, ids: &mut ProducerIdBlock) -> Decision {
        if self.soft.needs_recovery {
            return self.recovered(now);
        }
        self.soft.begin_event(now);
        self.start_sweeping(now);
        if self
            .soft
            .fence
            .next_ms
            .is_some_and(|at| at <= now.monotonic_ms)
        {
            let decision = self.fence_some(now, ids);
            self.assert_sound(&decision);
            return decision;
        }
        let due = self.soft.due(now.monotonic_ms, TIMERS_PER_STEP_MAX);
        let mut decision = Decision::nothing();
        for (kind, id) in &due {
            if *kind == TimerKind::Completion {
                self.attend_completion(now, id, &mut decision);
            }
        }
        if !decision.effects.is_empty() {
            // Alone, because they have left their timers: they must not be dropped with records that find no room.
            return decision;
        }
        self.stage(now, Cause::Broker(Reason::TimedOut));
        for (kind, id) in &due {
            let more = match kind {
                TimerKind::Abort => self.time_out(now, id, ids),
                TimerKind::Completion => self.finish_again(now, id),
            };
            decision.records.extend(more.records);
            decision.effects.extend(more.effects);
        }
        self.stage(now, Cause::Broker(Reason::TimedOut));
        if due.is_empty() {
            self.sweep(now, &mut decision);
        }
        self.assert_sound(&decision);
        decision
    }

    /// Begins to count the time to the first search for expired ids.
    pub(crate) fn start_sweeping(&mut self, now: Now) {
        if self.soft.sweep.next_ms.is_none() {
            self.soft.sweep.next_ms = Some(self.next_sweep_ms(now));
        }
    }

    fn next_sweep_ms(&self, now: Now) -> u64 {
        let interval_ms = self.settings.remove_expired_interval_ms.max(1);
        now.monotonic_ms.saturating_add(interval_ms)
    }

    /// The clock of a transaction that was open before the restart, by its stored start (S-9, CR-27).
    ///
    /// A wall clock that was set back shows too little or negative elapsed time: then the whole timeout runs again, as it
    /// must not run out early.
    fn resume_clock(&mut self, now: Now, id: &Arc<str>) {
        let value = &self.hard.ids[id];
        if value.timeout_ms == NEVER_TIMES_OUT_MS {
            return;
        }
        let timeout_ms = i64::from(value.timeout_ms).max(0);
        let elapsed_ms = now.wall_ms.saturating_sub(value.start_ms).max(0);
        let left_ms = u64::try_from(timeout_ms.saturating_sub(elapsed_ms)).unwrap_or(0);
        let deadline_ms = now.monotonic_ms.saturating_add(left_ms);
        let at_ms = abort_tick_ms(deadline_ms, &self.settings);
        self.soft.arm_abort(id, at_ms);
    }

    /// S-11: abort with fence. The timer moves to the next tick: if the records are not applied, or there is no pid for a
    /// used-up epoch, it is tried again then.
    fn time_out(&mut self, now: Now, id: &Arc<str>, ids: &mut ProducerIdBlock) -> Decision {
        self.soft
            .arm_abort(id, abort_tick_ms(now.monotonic_ms, &self.settings));
        let cause = Cause::Broker(Reason::TimedOut);
        self.abort_with_fence(now, id, cause, ids)
            .unwrap_or_default()
    }

    /// Decides Complete again whose record was not appended.
    fn finish_again(&mut self, now: Now, id: &Arc<str>) -> Decision {
        let is_due = self.soft.completion(id).is_some_and(|completion| {
            completion
                .finish_at_ms
                .is_some_and(|at_ms| at_ms <= now.monotonic_ms)
        });
        if is_due {
            self.finish(now, id)
        } else {
            Decision::nothing()
        }
    }

    /// Looks through some of the ids for those that expired (S-10).
    fn sweep(&mut self, now: Now, decision: &mut Decision) {
        if self
            .soft
            .sweep
            .next_ms
            .is_none_or(|at_ms| at_ms > now.monotonic_ms)
        {
            return;
        }
        let after = self.soft.sweep.after.take();
        let from = match &after {
            Some(id) => Bound::Excluded(id),
            None => Bound::Unbounded,
        };
        let mut last = None;
        let ids = self.hard.ids.range::<Arc<str>, _>((from, Bound::Unbounded));
        for (looked_at, (id, value)) in ids.enumerate() {
            if looked_at == IDS_PER_STEP_MAX || decision.records.len() >= TOMBSTONES_PER_STEP_MAX {
                self.soft.sweep.after = last;
                return; // due at once: `next_ms` stays
            }
            last = Some(Arc::clone(id));
            if self.has_expired(value, now) {
                decision.records.push(TransactionRecord {
                    transactional_id: Arc::clone(id),
                    value: None,
                });
            }
        }
        self.soft.sweep.next_ms = Some(self.next_sweep_ms(now));
    }

    fn has_expired(&self, value: &TransactionValue, now: Now) -> bool {
        let is_idle = matches!(Phase::of(value), Phase::Empty | Phase::Ended { .. });
        let age_ms = now.wall_ms.saturating_sub(value.last_update_ms);
        is_idle && age_ms >= self.settings.transactional_id_expiration_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s11_the_tick_is_the_first_multiple_behind_the_deadline() {
        let settings = Settings {
            abort_timed_out_interval_ms: 10,
            ..Settings::default()
        };
        for (deadline_ms, tick_ms) in [(0, 10), (9, 10), (10, 20), (11, 20), (u64::MAX, u64::MAX)] {
            assert_eq!(
                abort_tick_ms(deadline_ms, &settings),
                tick_ms,
                "{deadline_ms}"
            );
        }
    }
}
