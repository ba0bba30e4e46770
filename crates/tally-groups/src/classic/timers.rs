//! Deadlines of a group (GR-33 to GR-35, GR-40). They are numbers on the members and the group; when one may have passed,
//! all are looked at, which is about once in a session timeout (GR-132).

use super::members::{Member, Slot};
use super::{Group, Phase};
use crate::groups::Turn;

impl Group {
    /// The group has to be looked at by then.
    pub(super) fn arm(&mut self, deadline_ms: u64) {
        self.wake_ms = Some(
            self.wake_ms
                .map_or(deadline_ms, |wake_ms| wake_ms.min(deadline_ms)),
        );
    }

    /// The earliest deadline that was set since the last call.
    pub(crate) fn take_wake_ms(&mut self) -> Option<u64> {
        self.wake_ms.take()
    }

    pub(super) fn restart_session(&mut self, turn: &Turn, slot: Slot) {
        let timeout_ms = u64::try_from(self.members[slot].session_timeout_ms).unwrap_or(0);
        self.set_session_deadline(turn, slot, timeout_ms);
    }

    /// A commit is a sign of life (GR-62); not while a rebalance completes, when it is refused.
    pub(crate) fn restart_session_after_commit(&mut self, turn: &Turn, member_id: &str) {
        if self.phase != Phase::Completing
            && let Some(slot) = self.members.slot(member_id)
        {
            self.restart_session(turn, slot);
        }
    }

    pub(super) fn set_session_deadline(&mut self, turn: &Turn, slot: Slot, timeout_ms: u64) {
        let deadline_ms = turn.now.monotonic_ms + timeout_ms;
        self.members[slot].session_deadline_ms = deadline_ms;
        self.arm(deadline_ms);
    }

    /// Does what is due, and says by [`Group::take_wake_ms`] when to come back.
    pub(crate) fn expire(&mut self, turn: &mut Turn) {
        self.expire_pending_joins(turn);
        self.expire_sessions(turn);
        let now_ms = turn.now.monotonic_ms;
        match self.phase {
            Phase::PreparingInitial(delay) if delay.deadline_ms <= now_ms => {
                self.end_initial_delay(turn, delay);
            }
            Phase::Preparing { deadline_ms } if deadline_ms <= now_ms => self.complete_join(turn),
            Phase::Completing | Phase::Stable
                if self
                    .sync_deadline_ms
                    .is_some_and(|deadline| deadline <= now_ms) =>
            {
                self.expire_pending_syncs(turn);
            }
            Phase::Empty
            | Phase::PreparingInitial(_)
            | Phase::Preparing { .. }
            | Phase::Completing
            | Phase::Stable => {}
        }
        self.wake_ms = self.earliest_deadline_ms();
    }

    fn expire_pending_joins(&mut self, turn: &mut Turn) {
        let before = self.pending_joins.len();
        let now_ms = turn.now.monotonic_ms;
        self.pending_joins
            .retain(|_, deadline_ms| *deadline_ms > now_ms);
        if self.pending_joins.len() < before {
            self.try_complete_join(turn);
        }
    }

    fn expire_sessions(&mut self, turn: &mut Turn) {
        let is_silent = |member: &Member| {
            member
                .deadline_ms()
                .is_some_and(|deadline_ms| deadline_ms <= turn.now.monotonic_ms)
        };
        let silent: Vec<Slot> = self
            .members
            .with_slots()
            .filter(|(_, member)| is_silent(member))
            .map(|(slot, _)| slot)
            .collect();
        if silent.is_empty() {
            return;
        }
        for slot in silent {
            self.remove_member(turn, slot);
        }
        self.rebalance_or_complete(turn);
    }

    /// GR-40.
    fn expire_pending_syncs(&mut self, turn: &mut Turn) {
        for slot in std::mem::take(&mut self.pending_syncs) {
            self.remove_member(turn, slot);
        }
        self.prepare_rebalance(turn);
    }

    /// The earliest of all deadlines.
    pub(crate) fn earliest_deadline_ms(&self) -> Option<u64> {
        let phase = match self.phase {
            Phase::PreparingInitial(delay) => Some(delay.deadline_ms),
            Phase::Preparing { deadline_ms } => Some(deadline_ms),
            Phase::Empty | Phase::Completing | Phase::Stable => None,
        };
        let sessions = self.members.iter().filter_map(Member::deadline_ms);
        sessions
            .chain(self.pending_joins.values().copied())
            .chain(phase)
            .chain(self.sync_deadline_ms)
            .min()
    }
}
