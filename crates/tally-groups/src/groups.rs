//! The groups of one partition of `__consumer_offsets`: which group a command is for, its timers, its reads.
//!
//! Invariants:
//! - A group is live (soft state) from its first JoinGroup on, and after a restart if its record has members. One that
//!   is not live is Empty, or absent if nothing of it is stored either.
//! - A live group's place in `timers` is at or before its earliest deadline, so a heartbeat only moves a number and
//!   touches no ordered set (GR-132).
//!
//! Rules: docs/groups.md.

use crate::classic::Group;
use crate::command::{Command, Decision, Effect, ReplyTo, Response};
use crate::offsets::{Outcome, Stored, Sweep};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::{Now, Offset, ProducerEpoch, ProducerId};

/// The numbers of section 14.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`.
    pub max_size: usize,
    /// `offset.metadata.max.bytes`; counted in UTF-16 code units (GR-64).
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: 2_147_483_647,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
        }
    }
}

/// The state of a group as ListGroups and DescribeGroups name it (section 4). There is no `Dead`: with one owner for a
/// partition's groups, a group that is deleted is gone at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupState {
    /// No members.
    Empty,
    /// Members are asked to join.
    PreparingRebalance,
    /// The leader is asked for the assignment.
    CompletingRebalance,
    /// Everyone has its assignment.
    Stable,
}

impl GroupState {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
        }
    }
}

/// A line of ListGroups (GR-100).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupListing {
    /// The group.
    pub group: Arc<str>,
    /// Its protocol type; empty if it only holds offsets.
    pub protocol_type: Arc<str>,
    /// Its state.
    pub state: GroupState,
}

/// A group in DescribeGroups (GR-101).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupDescription {
    /// Its state.
    pub state: GroupState,
    /// Its protocol type; empty if it only holds offsets.
    pub protocol_type: Arc<str>,
    /// The protocol chosen; empty unless Stable.
    pub protocol: Arc<str>,
    /// Its members in the order they came.
    pub members: Vec<MemberDescription>,
}

/// A member in DescribeGroups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberDescription {
    /// Its id.
    pub member_id: Arc<str>,
    /// The instance id of a static member.
    pub instance_id: Option<Arc<str>>,
    /// Its client id.
    pub client_id: Arc<str>,
    /// Where it comes from.
    pub client_host: Arc<str>,
    /// Its metadata under the chosen protocol; empty unless Stable.
    pub metadata: bytes::Bytes,
    /// What the leader gave it.
    pub assignment: bytes::Bytes,
}

/// One command or one firing of the timers, and what came of it so far.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) now: Now,
    pub(crate) settings: Settings,
    pub(crate) records: Vec<OffsetsRecord>,
    pub(crate) effects: Vec<Effect>,
}

impl Turn {
    pub(crate) fn reply(&mut self, to: ReplyTo, response: Response) {
        self.effects.push(Effect::Reply { to, response });
    }

    fn decision(self) -> Decision {
        Decision {
            records: self.records,
            effects: self.effects,
        }
    }
}

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct Groups {
    settings: Settings,
    seed: u64,
    stored: Stored,
    /// Soft state: never read by `apply`.
    live: BTreeMap<Arc<str>, Group>,
    timers: BTreeSet<(u64, Arc<str>)>,
    pub(crate) sweep: Sweep,
}

impl Groups {
    /// No groups. `seed` keys the hash maps whose keys clients choose.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Groups {
        Groups {
            settings,
            seed,
            stored: Stored::default(),
            live: BTreeMap::new(),
            timers: BTreeSet::new(),
            sweep: Sweep::starting_at(0),
        }
    }

    /// Decides one command. The records are to be appended and applied, and then the effects done.
    pub fn decide(&mut self, now: Now, command: Command, to: ReplyTo) -> Decision {
        let mut turn = self.turn(now);
        let out = &mut turn;
        match command {
            Command::Join(request) => self.join(out, request, to),
            Command::Sync(request) => self.sync(out, &request, to),
            Command::Heartbeat(request) => self.heartbeat(out, &request, to),
            Command::Leave(request) => self.leave(out, request, to),
            Command::CommitOffsets(request) => self.commit_offsets(out, &request, to),
            Command::FetchOffsets(request) => self.fetch_offsets(out, request, to),
            Command::CommitTransactionalOffsets(request) => {
                self.commit_transactional_offsets(out, &request, to);
            }
            Command::DeleteOffsets(request) => self.delete_offsets(out, &request, to),
            Command::DeleteGroup { group } => self.delete_group(out, &group, to),
            Command::TopicDeleted { topic, topic_id } => {
                self.topic_deleted(out, (&topic, topic_id), to);
            }
        }
        turn.decision()
    }

    /// Takes in a record that was appended at `at`, live or at a restart; `producer` is set if its batch is
    /// transactional: then an offset is pending until [`Groups::apply_marker`] (GR-83).
    pub fn apply(
        &mut self,
        at: Offset,
        record: &OffsetsRecord,
        producer: Option<(ProducerId, ProducerEpoch)>,
    ) {
        let producer_id = producer.map(|(producer_id, _)| producer_id);
        self.stored.apply(at, record, producer_id);
    }

    /// Takes in the marker that ends `producer_id`'s transaction on this partition (GR-84, O-8). The position of the
    /// marker does not matter: the records' positions decide which offset is the later one.
    pub fn apply_marker(&mut self, _at: Offset, producer_id: ProducerId, commit: bool) {
        let outcome = if commit {
            Outcome::Commit
        } else {
            Outcome::Abort
        };
        self.stored.apply_marker(producer_id, outcome);
    }

    /// Once, after the last replayed record: members get a whole session to be heard of again (GR-121, GR-124).
    pub fn recovered(&mut self, now: Now) -> Decision {
        let mut turn = self.turn(now);
        self.sweep = Sweep::starting_at(
            now.monotonic_ms + self.settings.offsets_retention_check_interval_ms,
        );
        let with_members: Vec<(Arc<str>, Group)> = self
            .stored
            .groups()
            .iter()
            .filter_map(|(name, stored)| {
                let record = stored.record.as_ref()?;
                let group = Group::recover(name, record, self.seed, &mut turn);
                (!record.members.is_empty()).then(|| (name.clone(), group))
            })
            .collect();
        for (name, group) in with_members {
            self.live.insert(name.clone(), group);
            self.settle(&name);
        }
        turn.decision()
    }

    /// When [`Groups::expire`] has something to do, monotonic.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(deadline_ms, _)| *deadline_ms);
        // A partition without groups never wakes up.
        let sweep = (!self.stored.groups().is_empty()).then_some(self.sweep.due_ms);
        timer.into_iter().chain(sweep).min()
    }

    /// Does what is due: sessions, rebalances, offsets that nobody uses.
    pub fn expire(&mut self, now: Now) -> Decision {
        let mut turn = self.turn(now);
        // Each group once: one that is due again at once comes with the next call.
        let later = self
            .timers
            .split_off(&(now.monotonic_ms + 1, Arc::default()));
        for (_, name) in std::mem::replace(&mut self.timers, later) {
            if let Some(group) = self.live.get_mut(&name) {
                group.scheduled_ms = None;
                group.expire(&mut turn);
                self.settle(&name);
            }
        }
        if !self.stored.groups().is_empty() && self.sweep.due_ms <= now.monotonic_ms {
            self.sweep(&mut turn);
        }
        turn.decision()
    }

    /// The log has refused the records of a decision: members that were told of an assignment, or were about to be,
    /// have to ask again (section 6.1, last row of the leader; the caller answers the decision's own replies).
    pub fn refused(&mut self, now: Now, group: &str) -> Decision {
        let mut turn = self.turn(now);
        if let Some(live) = self.live.get_mut(group) {
            live.start_again(&mut turn);
            if live.is_deserted() {
                // Its last record says more than memory now: continue from there.
                self.drop_live(group);
            } else {
                self.settle(group);
            }
        }
        turn.decision()
    }

    /// Whether `producer_id` has an open transaction with offsets here.
    #[must_use]
    pub fn has_pending(&self, producer_id: ProducerId) -> bool {
        self.stored.has_pending(producer_id)
    }

    /// The hard state: what replaying the log gives.
    #[must_use]
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Every group, in order of name (GR-100).
    #[must_use]
    pub fn list(&self) -> Vec<GroupListing> {
        let stored = self.stored.groups().keys();
        let names: BTreeSet<&Arc<str>> = stored.chain(self.live.keys()).collect();
        let line = |name: &Arc<str>| GroupListing {
            group: name.clone(),
            protocol_type: self.protocol_type(name),
            state: self.state(name),
        };
        names.into_iter().map(line).collect()
    }

    /// One group; `None` if it is absent (GR-101).
    #[must_use]
    pub fn describe(&self, group: &str) -> Option<GroupDescription> {
        if let Some(live) = self.live.get(group) {
            return Some(live.describe());
        }
        self.exists(group).then(|| GroupDescription {
            state: GroupState::Empty,
            protocol_type: self.protocol_type(group),
            protocol: Arc::default(),
            members: Vec::new(),
        })
    }

    /// Panics if an invariant does not hold. For tests.
    pub fn check_invariants(&self) {
        self.stored.check_invariants();
        for (name, group) in &self.live {
            group.check_invariants();
            assert!(!group.is_unused(), "group {name} is live for nothing");
            match (group.earliest_deadline_ms(), group.scheduled_ms) {
                (Some(deadline_ms), Some(scheduled_ms)) => {
                    assert!(scheduled_ms <= deadline_ms, "a timer of {name} comes late");
                }
                (Some(_), None) => panic!("a timer of {name} never comes"),
                (None, _) => {}
            }
        }
        let scheduled = self.live.values().filter_map(|group| {
            let scheduled_ms = group.scheduled_ms?;
            Some((scheduled_ms, group.name()))
        });
        assert_eq!(scheduled.collect::<BTreeSet<_>>(), self.timers);
    }

    fn turn(&self, now: Now) -> Turn {
        Turn {
            now,
            settings: self.settings,
            records: Vec::new(),
            effects: Vec::new(),
        }
    }

    fn protocol_type(&self, group: &str) -> Arc<str> {
        let live = self.live.get(group).and_then(Group::protocol_type);
        let stored = || self.stored.group(group)?.record.as_ref();
        live.or_else(|| stored().map(|record| record.protocol_type.clone()))
            .unwrap_or_default()
    }

    /// Whether a group exists: somebody joined it, or the log knows it.
    pub(crate) fn exists(&self, group: &str) -> bool {
        self.live.contains_key(group) || self.stored.group(group).is_some()
    }

    pub(crate) fn state(&self, group: &str) -> GroupState {
        self.live.get(group).map_or(GroupState::Empty, Group::state)
    }

    pub(crate) fn live(&self, group: &str) -> Option<&Group> {
        self.live.get(group)
    }

    pub(crate) fn live_mut(&mut self, group: &str) -> Option<&mut Group> {
        self.live.get_mut(group)
    }

    /// The group of this name, made live if it is not.
    pub(crate) fn live_or_new(&mut self, name: &Arc<str>) -> &mut Group {
        let stored = &self.stored;
        let seed = self.seed;
        self.live.entry(name.clone()).or_insert_with(|| {
            match stored.group(name).and_then(|stored| stored.record.as_ref()) {
                Some(record) => Group::recover_empty(name, record, seed),
                None => Group::new(name.clone(), seed),
            }
        })
    }

    pub(crate) fn drop_live(&mut self, group: &str) {
        if let Some(live) = self.live.remove(group)
            && let Some(scheduled_ms) = live.scheduled_ms
        {
            self.timers.remove(&(scheduled_ms, live.name()));
        }
    }

    /// After a group was touched: forgets it if nothing is left of it, and moves its timer forward if it has to be.
    pub(crate) fn settle(&mut self, name: &str) {
        let Some(group) = self.live.get_mut(name) else {
            return;
        };
        if let Some(wake_ms) = group.take_wake_ms()
            && group
                .scheduled_ms
                .is_none_or(|scheduled| wake_ms < scheduled)
        {
            let name = group.name();
            if let Some(scheduled_ms) = group.scheduled_ms.replace(wake_ms) {
                self.timers.remove(&(scheduled_ms, name.clone()));
            }
            self.timers.insert((wake_ms, name));
        }
        // GN-2: a group that never had a generation is not kept, whatever names clients make up. Its offsets are stored.
        if group.is_unused() {
            self.drop_live(name);
        }
    }
}
