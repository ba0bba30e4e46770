//! What is known of a group of the `consumer` protocol only while the broker runs: until when members have to be heard of.
//!
//! Deadlines are numbers; the group's place among the timers is at or before the earliest (GR-132).

use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a member has to be heard of by then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Wait {
    /// It is to send heartbeats (section 9.3, row 10).
    Session,
    /// It is to give partitions back, at this epoch (GR-111).
    Revoke {
        /// It must have left the epoch by then.
        epoch: i32,
    },
    /// A classic member that was told to rejoin.
    Join,
    /// A classic member that has joined and has not asked for its assignment.
    Sync,
}

/// The soft state of a group.
#[derive(Debug, Default)]
pub(crate) struct Live {
    sessions: BTreeMap<Arc<str>, u64>,
    /// Besides the sessions; most members have none.
    waits: BTreeMap<Arc<str>, Vec<(Wait, u64)>>,
    /// The state of the topics that the group has looked at.
    pub(crate) topics_seen: Option<u64>,
    /// When its regular expressions were looked up last.
    pub(crate) regexes_looked_up_ms: u64,
    /// The earliest deadline set since it was last asked for.
    wake_ms: Option<u64>,
    /// The group's place among the timers; kept by the owner of the timers.
    pub(crate) scheduled_ms: Option<u64>,
}

impl Live {
    fn arm(&mut self, deadline_ms: u64) {
        let earlier = self
            .wake_ms
            .map_or(deadline_ms, |wake| wake.min(deadline_ms));
        self.wake_ms = Some(earlier);
    }

    pub(crate) fn take_wake_ms(&mut self) -> Option<u64> {
        self.wake_ms.take()
    }

    /// A member has until then to be heard of.
    pub(super) fn set_session(&mut self, member_id: &Arc<str>, deadline_ms: u64) {
        self.arm(deadline_ms);
        // The name is there already in nearly every call: no copy of it.
        match self.sessions.get_mut(&**member_id) {
            Some(session) => *session = deadline_ms,
            None => drop(self.sessions.insert(member_id.clone(), deadline_ms)),
        }
    }

    pub(super) fn set_wait(&mut self, member_id: &Arc<str>, wait: Wait, deadline_ms: u64) {
        self.stop_wait(member_id, wait);
        self.arm(deadline_ms);
        let waits = self.waits.entry(member_id.clone()).or_default();
        waits.push((wait, deadline_ms));
    }

    pub(super) fn is_waited_for(&self, member_id: &str, wait: Wait) -> bool {
        let waits = self.waits.get(member_id);
        waits.is_some_and(|waits| waits.iter().any(|(other, _)| is_same(*other, wait)))
    }

    pub(super) fn stop_wait(&mut self, member_id: &str, wait: Wait) {
        if let Some(waits) = self.waits.get_mut(member_id) {
            waits.retain(|(other, _)| !is_same(*other, wait));
            if waits.is_empty() {
                self.waits.remove(member_id);
            }
        }
    }

    pub(super) fn forget(&mut self, member_id: &str) {
        self.sessions.remove(member_id);
        self.waits.remove(member_id);
    }

    /// Who has not been heard of in time, and why. What is said of them is for the group to check.
    pub(super) fn take_late(&mut self, now_ms: u64) -> Vec<(Arc<str>, Wait)> {
        let mut late = Vec::new();
        self.sessions.retain(|id, due_ms| {
            let is_late = *due_ms <= now_ms;
            if is_late {
                late.push((id.clone(), Wait::Session));
            }
            !is_late
        });
        for (id, waits) in &mut self.waits {
            let due = waits.iter().filter(|(_, due_ms)| *due_ms <= now_ms);
            late.extend(due.map(|(wait, _)| (id.clone(), *wait)));
            waits.retain(|(_, due_ms)| *due_ms > now_ms);
        }
        self.waits.retain(|_, waits| !waits.is_empty());
        self.wake_ms = self.earliest_deadline_ms();
        late
    }

    pub(crate) fn earliest_deadline_ms(&self) -> Option<u64> {
        let waits = self.waits.values().flatten().map(|(_, due_ms)| *due_ms);
        self.sessions.values().copied().chain(waits).min()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.waits.is_empty()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<str>> {
        self.sessions.keys()
    }
}

/// Whether two waits are for the same thing, at whatever epoch.
fn is_same(one: Wait, other: Wait) -> bool {
    matches!(
        (one, other),
        (Wait::Session, Wait::Session)
            | (Wait::Revoke { .. }, Wait::Revoke { .. })
            | (Wait::Join, Wait::Join)
            | (Wait::Sync, Wait::Sync)
    )
}
