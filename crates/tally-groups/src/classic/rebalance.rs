//! The rebalance: who is waited for, who is left behind, what the next generation is (section 5.4).

use super::members::Slot;
use super::{Group, InitialDelay, Phase};
use crate::command::{JoinResponse, Response, SyncResponse};
use crate::groups::Turn;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use tally_protocol::ErrorCode;

/// How long nobody's return is waited for before looking again, whatever rebalance timeout the members named.
const REJOIN_WAIT_MIN_MS: u64 = 1_000;

impl Group {
    /// A member has come, changed or gone.
    pub(super) fn rebalance_or_complete(&mut self, turn: &mut Turn) {
        match self.phase {
            Phase::PreparingInitial(_) | Phase::Preparing { .. } => self.try_complete_join(turn),
            Phase::Empty | Phase::Completing | Phase::Stable => self.prepare_rebalance(turn),
        }
    }

    /// GR-30 to GR-32.
    pub(super) fn prepare_rebalance(&mut self, turn: &mut Turn) {
        if self.phase == Phase::Completing {
            self.reset_assignments(turn);
        }
        self.pending_syncs.clear();
        self.sync_deadline_ms = None;
        let now_ms = turn.now.monotonic_ms;
        let timeout_ms = self.rebalance_timeout_ms();
        if self.phase == Phase::Empty {
            let delay_ms = u64::try_from(turn.settings.initial_rebalance_delay_ms).unwrap_or(0);
            self.phase = Phase::PreparingInitial(InitialDelay {
                deadline_ms: now_ms + delay_ms,
                delay_ms,
                remaining_ms: timeout_ms.saturating_sub(delay_ms),
                new_member_added: false,
            });
            return match delay_ms {
                0 => self.complete_join(turn), // nobody is waited for, not even for a turn of the timers
                _ => self.arm(now_ms + delay_ms),
            };
        }
        self.phase = Phase::Preparing {
            deadline_ms: now_ms + timeout_ms,
        };
        self.arm(now_ms + timeout_ms);
        self.try_complete_join(turn);
    }

    /// The members' syncs are answered with 27, and what they were given so far is void.
    fn reset_assignments(&mut self, turn: &mut Turn) {
        for slot in self.members.slots() {
            self.members[slot].assignment = Bytes::new();
            self.answer_syncs(turn, slot, ErrorCode::RebalanceInProgress);
        }
    }

    /// The log refused what the group did last: the next generation does it again.
    pub(crate) fn start_again(&mut self, turn: &mut Turn) {
        match self.phase {
            Phase::Completing | Phase::Stable => {
                self.reset_assignments(turn);
                self.prepare_rebalance(turn);
            }
            Phase::Empty | Phase::PreparingInitial(_) | Phase::Preparing { .. } => {}
        }
    }

    /// GR-32: at once when everyone is there. The first members of a group are waited for to the end (GR-31).
    pub(super) fn try_complete_join(&mut self, turn: &mut Turn) {
        let everyone_joined = self.members.joining_count() == self.members.len();
        if matches!(self.phase, Phase::Preparing { .. })
            && everyone_joined
            && self.pending_joins.is_empty()
        {
            self.complete_join(turn);
        }
    }

    /// GR-31: waits again if somebody has come meanwhile.
    pub(super) fn end_initial_delay(&mut self, turn: &mut Turn, delay: InitialDelay) {
        if !delay.new_member_added || delay.remaining_ms == 0 {
            return self.complete_join(turn);
        }
        let whole_ms = u64::try_from(turn.settings.initial_rebalance_delay_ms).unwrap_or(0);
        let delay_ms = whole_ms.min(delay.remaining_ms);
        let deadline_ms = turn.now.monotonic_ms + delay_ms;
        self.phase = Phase::PreparingInitial(InitialDelay {
            deadline_ms,
            delay_ms,
            remaining_ms: delay.remaining_ms.saturating_sub(delay.delay_ms),
            new_member_added: false,
        });
        self.arm(deadline_ms);
    }

    /// GR-36.
    pub(super) fn complete_join(&mut self, turn: &mut Turn) {
        for slot in self.members.slots() {
            let member = &self.members[slot];
            if member.instance_id.is_none() && !member.is_joining() {
                self.remove_member(turn, slot);
            }
        }
        if !self.members.is_empty() && !self.elect_leader() {
            // Only static members, none of which is back: their sessions decide, not this rebalance.
            let wait_ms = self.rebalance_timeout_ms().max(REJOIN_WAIT_MIN_MS);
            let deadline_ms = turn.now.monotonic_ms + wait_ms;
            self.phase = Phase::Preparing { deadline_ms };
            self.arm(deadline_ms);
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.pending_syncs.clear();
        self.sync_deadline_ms = None;
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.protocol = None;
            let record = self.record(turn);
            turn.records.push(record);
            return;
        }
        self.protocol = self.select_protocol();
        self.phase = Phase::Completing;
        self.answer_joins(turn);
        let deadline_ms = turn.now.monotonic_ms + self.rebalance_timeout_ms();
        self.sync_deadline_ms = Some(deadline_ms); // GR-40
        self.arm(deadline_ms);
    }

    fn answer_joins(&mut self, turn: &mut Turn) {
        for slot in self.members.slots() {
            let response = self.join_response(slot, self.members_for(slot));
            for parked in self.members.take_joins(slot) {
                turn.reply(parked, Response::Join(response.clone()));
            }
            self.members[slot].is_new = false;
            self.restart_session(turn, slot);
            self.pending_syncs.insert(slot);
        }
    }

    /// The leader stays if it has rejoined; else the first member that has. False if nobody has.
    fn elect_leader(&mut self) -> bool {
        let mut joined = self
            .members
            .with_slots()
            .filter(|(_, member)| member.is_joining())
            .map(|(slot, _)| slot);
        let leader_joined = self
            .leader
            .is_some_and(|slot| self.members[slot].is_joining());
        if leader_joined {
            return true;
        }
        match joined.next() {
            Some(slot) => {
                self.leader = Some(slot);
                true
            }
            None => false,
        }
    }

    /// GR-37: each member votes for the first of its protocols that all support; ties go by the leader's order.
    pub(super) fn select_protocol(&self) -> Option<Arc<str>> {
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.iter() {
            let mut names = member.protocols.iter().map(|(name, _)| name);
            if let Some(name) = names.find(|name| self.members.all_support(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        let leader = &self.members[self.leader?];
        let mut preferred = leader.protocols.iter().map(|(name, _)| name);
        preferred
            .find(|name| votes.get(name) == Some(&most))
            .cloned()
    }

    /// The longest of the members' rebalance timeouts (GR-32).
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        let timeouts = self
            .members
            .iter()
            .map(|member| member.rebalance_timeout_ms);
        u64::try_from(timeouts.max().unwrap_or(0)).unwrap_or(0)
    }

    /// Removes a member and answers what it has parked with 25 (GR-34).
    pub(super) fn remove_member(&mut self, turn: &mut Turn, slot: Slot) {
        let Some((joins, syncs)) = self.members.remove(slot) else {
            return;
        };
        for parked in joins {
            let response = JoinResponse::refused(ErrorCode::UnknownMemberId, Arc::default());
            turn.reply(parked, Response::Join(response));
        }
        for parked in syncs {
            let response = SyncResponse::refused(ErrorCode::UnknownMemberId);
            turn.reply(parked, Response::Sync(response));
        }
        self.pending_syncs.remove(&slot);
        if self.leader == Some(slot) {
            self.leader = self.members.first(); // GR-38
        }
    }
}
