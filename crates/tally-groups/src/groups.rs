//! The groups of one partition of `__consumer_offsets`: which group a command is for, its timers, its reads.
//!
//! Invariants:
//! - A group is live (soft state) from its first JoinGroup on, and after a restart if its record has members. One that
//!   is not live is Empty, or absent if nothing of it is stored either.
//! - A live group's place in `timers` is at or before its earliest deadline, so a heartbeat only moves a number and
//!   touches no ordered set (GR-132).
//!
//! Rules: docs/groups.md.

use crate::assignor::Assignor;
use crate::classic::Group;
use crate::command::{Command, Decision, Effect, ReplyTo, Response};
use crate::consumer::{
    ConsumerGroupDescription, ConsumerSettings, Live as ConsumerLive, MigrationPolicy,
};
use crate::offsets::{Outcome, Stored, Sweep};
use crate::topics::Topics;
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
    /// What holds for a group of the `consumer` protocol that has no numbers of its own.
    pub consumer: ConsumerSettings,
    /// `group.consumer.max.size`.
    pub consumer_max_size: usize,
    /// `group.consumer.assignors`.
    pub assignors: Assignors,
    /// `group.consumer.migration.policy`.
    pub migration_policy: MigrationPolicy,
}

/// The assignors that members may ask for; the first is for groups whose members ask for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assignors {
    first: Assignor,
    second: Option<Assignor>,
}

impl Assignors {
    /// `first`, and the rest of `others`.
    pub fn new(first: Assignor, others: impl IntoIterator<Item = Assignor>) -> Assignors {
        Assignors {
            first,
            second: others.into_iter().find(|other| *other != first),
        }
    }

    pub(crate) fn first(self) -> Assignor {
        self.first
    }

    /// In order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Assignor> {
        [Some(self.first), self.second].into_iter().flatten()
    }
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
            consumer: ConsumerSettings::default(),
            consumer_max_size: 2_147_483_647,
            assignors: Assignors::new(Assignor::Uniform, [Assignor::Range]),
            migration_policy: MigrationPolicy::Bidirectional,
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
    /// `consumer` protocol: the assignment is to be made anew.
    Assigning,
    /// `consumer` protocol: members are on their way to the assignment.
    Reconciling,
}

/// The protocol of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupKind {
    /// Members agree on who assigns; also a group that only holds offsets.
    Classic,
    /// The broker assigns (KIP-848).
    Consumer,
}

impl GroupKind {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            GroupKind::Classic => "classic",
            GroupKind::Consumer => "consumer",
        }
    }
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
            GroupState::Assigning => "Assigning",
            GroupState::Reconciling => "Reconciling",
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
    /// Its protocol.
    pub kind: GroupKind,
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

    /// The moment so long from now.
    pub(crate) fn deadline(&self, timeout_ms: i32) -> u64 {
        self.now.monotonic_ms + u64::try_from(timeout_ms).unwrap_or(0)
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
    /// Soft state of the groups of the `consumer` protocol that have members.
    consumers: BTreeMap<Arc<str>, ConsumerLive>,
    /// The newest state of the topics that came in.
    topics: Arc<Topics>,
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
            consumers: BTreeMap::new(),
            topics: Arc::default(),
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
            Command::ConsumerHeartbeat(request) => self.consumer_heartbeat(out, &request, to),
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
        let groups = self.stored.groups().iter();
        let consumers: Vec<(Arc<str>, ConsumerLive)> = groups
            .filter_map(|(name, stored)| Some((name, stored.consumer.as_ref()?)))
            .filter(|(_, group)| group.has_members())
            .map(|(name, group)| (name.clone(), ConsumerLive::recovered(group, &turn)))
            .collect();
        for (name, live) in consumers {
            self.consumers.insert(name.clone(), live);
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
            } else if let Some(live) = self.consumers.get_mut(&name) {
                live.scheduled_ms = None;
                self.expire_consumer_group(&mut turn, &name);
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
        if self.is_of_other_kind(group) {
            self.live_again(&mut turn, group);
        } else if let Some(live) = self.live.get_mut(group) {
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
            kind: self.kind(name).unwrap_or(GroupKind::Classic),
        };
        names.into_iter().map(line).collect()
    }

    /// One group of the `consumer` protocol; `None` if there is none of this name (GR-102).
    #[must_use]
    pub fn describe_consumer(&self, group: &str) -> Option<ConsumerGroupDescription> {
        let stored = self.stored.consumer(group)?;
        Some(stored.describe(&self.settings))
    }

    /// Takes note of the topics there are, unless newer ones are known.
    pub fn note_topics(&mut self, topics: &Arc<Topics>) {
        if topics.generation() >= self.topics.generation() {
            self.topics = Arc::clone(topics);
        }
    }

    /// One classic group; `None` if it is absent (GR-101).
    #[must_use]
    pub fn describe(&self, group: &str) -> Option<GroupDescription> {
        if let Some(live) = self.live.get(group) {
            return Some(live.describe());
        }
        let is_classic = self.kind(group) == Some(GroupKind::Classic);
        is_classic.then(|| GroupDescription {
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
        for (name, live) in &self.consumers {
            assert!(!live.is_empty(), "group {name} is live for nothing");
            assert!(!self.live.contains_key(name), "{name} is two groups");
            let members = self.stored.consumer(name).into_iter();
            let members = members.flat_map(|group| group.member_ids());
            assert!(
                members.eq(live.members()),
                "{name}: members without a session"
            );
            let deadline_ms = live.earliest_deadline_ms();
            assert!(live.scheduled_ms <= deadline_ms && live.scheduled_ms.is_some());
        }
        let scheduled = self.live.values().filter_map(|group| {
            let scheduled_ms = group.scheduled_ms?;
            Some((scheduled_ms, group.name()))
        });
        let consumers = self.consumers.iter();
        let scheduled = scheduled
            .chain(consumers.filter_map(|(name, live)| Some((live.scheduled_ms?, name.clone()))));
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
        if self.stored.consumer(group).is_some() {
            return Arc::from(GroupKind::Consumer.name());
        }
        let live = self.live.get(group).and_then(Group::protocol_type);
        let stored = || self.stored.group(group)?.record.as_ref();
        live.or_else(|| stored().map(|record| record.protocol_type.clone()))
            .unwrap_or_default()
    }

    /// Whether a group exists: somebody joined it, or the log knows it.
    pub(crate) fn exists(&self, group: &str) -> bool {
        self.live.contains_key(group) || self.stored.group(group).is_some()
    }

    /// The protocol of a group; `None` if it is absent.
    pub(crate) fn kind(&self, group: &str) -> Option<GroupKind> {
        if self.stored.consumer(group).is_some() {
            return Some(GroupKind::Consumer);
        }
        self.exists(group).then_some(GroupKind::Classic)
    }

    pub(crate) fn topics(&self) -> Arc<Topics> {
        Arc::clone(&self.topics)
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn consumer_live(&self, group: &str) -> Option<&ConsumerLive> {
        self.consumers.get(group)
    }

    /// The soft state of a group of the `consumer` protocol, made if it has none.
    pub(crate) fn consumer_live_mut(&mut self, group: &Arc<str>) -> &mut ConsumerLive {
        self.consumers.entry(group.clone()).or_default()
    }

    pub(crate) fn drop_consumer_live(&mut self, group: &str) {
        if let Some((name, live)) = self.consumers.remove_entry(group)
            && let Some(scheduled_ms) = live.scheduled_ms
        {
            self.timers.remove(&(scheduled_ms, name));
        }
    }

    pub(crate) fn insert_live(&mut self, name: &Arc<str>, group: Group) -> &mut Group {
        self.live.entry(name.clone()).or_insert(group)
    }

    /// Whether the live state is that of a group of the other protocol than the stored one, or of other members: what
    /// would have made them agree was refused by the log.
    fn is_of_other_kind(&self, group: &str) -> bool {
        let stored = self.stored.consumer(group);
        stored.is_some() || self.consumers.contains_key(group)
    }

    /// Makes the live state of a group from what is stored, as after a restart.
    fn live_again(&mut self, turn: &mut Turn, group: &str) {
        self.drop_live(group);
        self.drop_consumer_live(group);
        let Some((name, stored)) = self.stored.groups().get_key_value(group) else {
            return;
        };
        let name = name.clone();
        if let Some(consumer) = stored.consumer.as_ref().filter(|group| group.has_members()) {
            let live = ConsumerLive::recovered(consumer, turn);
            self.consumers.insert(name.clone(), live);
        } else if let Some(record) = stored.record.as_ref()
            && !record.members.is_empty()
        {
            let live = Group::recover(&name, record, self.seed, turn);
            self.live.insert(name.clone(), live);
        }
        self.settle(&name);
    }

    pub(crate) fn state(&self, group: &str) -> GroupState {
        if let Some(stored) = self.stored.consumer(group) {
            return stored.state();
        }
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
        if let Some(live) = self.consumers.get_mut(name) {
            if live.is_empty() {
                return self.drop_consumer_live(name);
            }
            let place = (Arc::from(name), live.take_wake_ms());
            return schedule(&mut self.timers, place, &mut live.scheduled_ms);
        }
        let Some(group) = self.live.get_mut(name) else {
            return;
        };
        let (name, wake_ms) = (group.name(), group.take_wake_ms());
        schedule(
            &mut self.timers,
            (name.clone(), wake_ms),
            &mut group.scheduled_ms,
        );
        // GN-2: a group that never had a generation is not kept, whatever names clients make up. Its offsets are stored.
        if group.is_unused() {
            self.drop_live(&name);
        }
    }
}

/// Moves a group's place among the timers forward if it has to be.
fn schedule(
    timers: &mut BTreeSet<(u64, Arc<str>)>,
    (name, wake_ms): (Arc<str>, Option<u64>),
    scheduled: &mut Option<u64>,
) {
    if let Some(wake_ms) = wake_ms
        && scheduled.is_none_or(|scheduled_ms| wake_ms < scheduled_ms)
    {
        if let Some(scheduled_ms) = scheduled.replace(wake_ms) {
            timers.remove(&(scheduled_ms, name.clone()));
        }
        timers.insert((wake_ms, name));
    }
}
