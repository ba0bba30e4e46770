//! One group of the `consumer` protocol (KIP-848, section 9): the hard state.
//!
//! Invariants:
//! - Everything here comes from the records of the group, in any order that keeps the last record of each key: compaction
//!   changes nothing (GR-123).
//! - A partition has at most one owner: the member in whose last current-assignment record it is, assigned or to be given
//!   back (GR-110, G128). Owners change by applying those records only.
//!
//! A command works on a [`Draft`]: a copy that takes in the records it decides on, so that each step sees the ones before.
//!
//! Rules: section 9 of docs/groups.md.

mod classic_members;
mod commit;
mod convert;
mod describe;
mod draft;
mod embedded;
mod heartbeat;
mod leave;
mod live;
mod reconcile;
mod regex;
mod target;

use crate::groups::GroupState;
use crate::topics::Topics;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::TopicId;
use tally_protocol::records::consumer_group::{
    ConsumerGroupRecord, CurrentValue, EpochValue, MemberPhase, PartitionEpochs, Partitions,
    RegexValue, SubscriptionValue, TargetEpochValue,
};

pub(crate) use commit::{CommitKind, Committer as ConsumerCommitter};
pub use describe::{ConsumerGroupDescription, ConsumerMemberDescription};
pub(crate) use draft::Draft;
pub(crate) use live::Live;

/// The epoch of a new group, at which it has an empty assignment; nothing of it is stored. The first subscription makes it 2
/// (section 9.2).
const FIRST_EPOCH: i32 = 1;
/// The epoch of a request that joins.
pub(crate) const JOIN_EPOCH: i32 = 0;
/// The epoch of a request that leaves.
pub(crate) const LEAVE_EPOCH: i32 = -1;
/// The epoch of a static member that leaves for a while.
pub(crate) const LEAVE_FOR_A_WHILE_EPOCH: i32 = -2;

/// What a group is allowed to become while it has members (section 9.8, `group.consumer.migration.policy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MigrationPolicy {
    /// Nothing else.
    Disabled,
    /// A classic group may become one of the `consumer` protocol.
    Upgrade,
    /// The other way round.
    Downgrade,
    /// Both.
    Bidirectional,
}

impl MigrationPolicy {
    pub(crate) const fn allows_upgrade(self) -> bool {
        matches!(
            self,
            MigrationPolicy::Upgrade | MigrationPolicy::Bidirectional
        )
    }

    pub(crate) const fn allows_downgrade(self) -> bool {
        matches!(
            self,
            MigrationPolicy::Downgrade | MigrationPolicy::Bidirectional
        )
    }
}

/// The numbers that a group may have of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerSettings {
    /// `group.consumer.session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `group.consumer.assignment.interval.ms`: the shortest time between two assignments.
    pub assignment_interval_ms: i32,
}

impl Default for ConsumerSettings {
    fn default() -> ConsumerSettings {
        ConsumerSettings {
            session_timeout_ms: 45_000,
            heartbeat_interval_ms: 5_000,
            assignment_interval_ms: 1_000,
        }
    }
}

/// What the log says of one group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ConsumerGroup {
    epoch: Option<EpochValue>,
    target_epoch: Option<TargetEpochValue>,
    members: BTreeMap<Arc<str>, Member>,
    regexes: BTreeMap<Arc<str>, Arc<RegexValue>>,
    /// Derived: who has each partition.
    owners: BTreeMap<TopicId, Arc<BTreeMap<i32, Arc<str>>>>,
    /// Derived: the member of each instance id.
    statics: BTreeMap<Arc<str>, Arc<str>>,
}

/// What the log says of a member. Who has a subscription is one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Member {
    subscription: Option<Arc<SubscriptionValue>>,
    target: Option<Arc<Partitions>>,
    current: Option<Arc<CurrentValue>>,
}

impl Member {
    fn is_empty(&self) -> bool {
        self.subscription.is_none() && self.target.is_none() && self.current.is_none()
    }
}

impl ConsumerGroup {
    /// Takes in one record.
    pub(crate) fn apply(&mut self, record: &ConsumerGroupRecord) {
        match record {
            ConsumerGroupRecord::Epoch(value) => self.epoch = *value,
            ConsumerGroupRecord::TargetEpoch(value) => self.target_epoch = *value,
            ConsumerGroupRecord::Member(id, value) => self.set_subscription(id, value.as_ref()),
            ConsumerGroupRecord::Target(id, value) => {
                let target = value.clone().map(Arc::new);
                self.members.entry(id.clone()).or_default().target = target;
                self.drop_if_empty(id);
            }
            ConsumerGroupRecord::Current(id, value) => self.set_current(id, value.as_ref()),
            ConsumerGroupRecord::Regex(regex, Some(value)) => {
                self.regexes.insert(regex.clone(), Arc::new(value.clone()));
            }
            ConsumerGroupRecord::Regex(regex, None) => {
                self.regexes.remove(regex);
            }
        }
    }

    fn set_subscription(&mut self, id: &Arc<str>, value: Option<&SubscriptionValue>) {
        let member = self.members.entry(id.clone()).or_default();
        let before = member.subscription.take();
        member.subscription = value.cloned().map(Arc::new);
        if let Some(instance_id) = before.and_then(|before| before.instance_id.clone())
            && self.statics.get(&instance_id) == Some(id)
        {
            self.statics.remove(&instance_id);
        }
        if let Some(instance_id) = value.and_then(|value| value.instance_id.clone()) {
            self.statics.insert(instance_id, id.clone());
        }
        self.drop_if_empty(id);
    }

    fn set_current(&mut self, id: &Arc<str>, value: Option<&CurrentValue>) {
        let member = self.members.entry(id.clone()).or_default();
        let before = member.current.take();
        let now = value.cloned().map(Arc::new);
        member.current.clone_from(&now);
        if let Some(before) = before {
            for (topic, partition) in owned(&before) {
                self.disown(id, topic, partition);
            }
        }
        if let Some(now) = now {
            for (topic, partition) in owned(&now) {
                let owners = self.owners.entry(topic).or_default();
                Arc::make_mut(owners).insert(partition, id.clone());
            }
        }
        self.drop_if_empty(id);
    }

    fn disown(&mut self, id: &Arc<str>, topic: TopicId, partition: i32) {
        let Some(owners) = self.owners.get_mut(&topic) else {
            return;
        };
        if owners.get(&partition) == Some(id) {
            Arc::make_mut(owners).remove(&partition);
            if owners.is_empty() {
                self.owners.remove(&topic);
            }
        }
    }

    fn drop_if_empty(&mut self, id: &Arc<str>) {
        if self.members.get(id).is_some_and(Member::is_empty) {
            self.members.remove(id);
        }
    }

    /// Nothing of it is stored.
    pub(crate) fn is_absent(&self) -> bool {
        self.epoch.is_none()
            && self.target_epoch.is_none()
            && self.members.is_empty()
            && self.regexes.is_empty()
    }

    fn epoch(&self) -> i32 {
        self.epoch.map_or(FIRST_EPOCH, |value| value.epoch)
    }

    fn target_epoch(&self) -> i32 {
        self.target_epoch.map_or(FIRST_EPOCH, |value| value.epoch)
    }

    fn metadata_hash(&self) -> i64 {
        self.epoch.map_or(0, |value| value.metadata_hash)
    }

    /// The members with what they have asked for, by id.
    fn subscriptions(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<SubscriptionValue>)> {
        let members = self.members.iter();
        members.filter_map(|(id, member)| Some((id, member.subscription.as_ref()?)))
    }

    pub(crate) fn member_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.subscriptions().map(|(id, _)| id)
    }

    pub(crate) fn has_members(&self) -> bool {
        self.subscriptions().next().is_some()
    }

    fn subscription(&self, member_id: &str) -> Option<&Arc<SubscriptionValue>> {
        self.members.get(member_id)?.subscription.as_ref()
    }

    fn target(&self, member_id: &str) -> Option<&Arc<Partitions>> {
        self.members.get(member_id)?.target.as_ref()
    }

    /// What a member has; a new one has nothing, at epoch 0.
    fn current(&self, member_id: &str) -> Arc<CurrentValue> {
        let current = self.members.get(member_id);
        let current = current.and_then(|member| member.current.clone());
        current.unwrap_or_else(|| Arc::new(nothing()))
    }

    fn static_member(&self, instance_id: &str) -> Option<&Arc<str>> {
        self.statics.get(instance_id)
    }

    fn owner(&self, topic: TopicId, partition: i32) -> Option<&Arc<str>> {
        self.owners.get(&topic)?.get(&partition)
    }

    fn is_classic(&self, member_id: &str) -> bool {
        self.subscription(member_id)
            .is_some_and(|subscription| subscription.classic.is_some())
    }

    /// The topics that somebody who asked for this is subscribed to.
    fn topics_of<'a>(
        &'a self,
        subscription: &'a SubscriptionValue,
    ) -> impl Iterator<Item = &'a Arc<str>> {
        let matched = subscription.regex.as_ref();
        let matched = matched.and_then(|regex| self.regexes.get(regex));
        let matched = matched.into_iter().flat_map(|value| &value.topics);
        subscription.topics.iter().chain(matched)
    }

    /// The topics that anybody is subscribed to, by name.
    pub(crate) fn subscribed_topics(&self) -> BTreeSet<Arc<str>> {
        let mut topics = BTreeSet::new();
        for (_, subscription) in self.subscriptions() {
            // Most members ask for the same: looking is cheaper than counting references.
            for topic in self.topics_of(subscription) {
                if !topics.contains(topic) {
                    topics.insert(topic.clone());
                }
            }
        }
        topics
    }

    /// The ids of the topics that a member is subscribed to and that are there.
    fn topic_ids(&self, subscription: &SubscriptionValue, topics: &Topics) -> BTreeSet<TopicId> {
        let names = self.topics_of(subscription);
        names
            .filter_map(|name| topics.get(name))
            .map(|topic| topic.id)
            .collect()
    }

    /// Section 9.2.
    pub(crate) fn state(&self) -> GroupState {
        if !self.has_members() {
            return GroupState::Empty;
        }
        if self.epoch() > self.target_epoch() {
            return GroupState::Assigning;
        }
        let is_settled = |id: &Arc<str>| {
            let current = self.current(id);
            current.phase == MemberPhase::Stable && current.epoch == self.target_epoch()
        };
        if self.member_ids().all(is_settled) {
            GroupState::Stable
        } else {
            GroupState::Reconciling
        }
    }

    /// The records that delete the group (GR-120).
    pub(crate) fn tombstones(&self) -> Vec<ConsumerGroupRecord> {
        let mut records = Vec::new();
        let with = |is_there: &dyn Fn(&Member) -> bool| {
            let ids = self.members.iter().filter(|(_, member)| is_there(member));
            ids.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        };
        for id in with(&|member| member.current.is_some()) {
            records.push(ConsumerGroupRecord::Current(id, None));
        }
        for id in with(&|member| member.target.is_some()) {
            records.push(ConsumerGroupRecord::Target(id, None));
        }
        if self.target_epoch.is_some() {
            records.push(ConsumerGroupRecord::TargetEpoch(None));
        }
        for id in with(&|member| member.subscription.is_some()) {
            records.push(ConsumerGroupRecord::Member(id, None));
        }
        for regex in self.regexes.keys() {
            records.push(ConsumerGroupRecord::Regex(regex.clone(), None));
        }
        if self.epoch.is_some() {
            records.push(ConsumerGroupRecord::Epoch(None));
        }
        records
    }

    /// Panics if an invariant does not hold. For tests.
    pub(crate) fn check_invariants(&self) {
        let mut owners: BTreeMap<(TopicId, i32), &Arc<str>> = BTreeMap::new();
        for (id, member) in &self.members {
            assert!(!member.is_empty(), "{id}: nothing is known of it");
            assert!(member.subscription.is_some(), "{id}: what is left of it?");
            for partition in member.current.iter().flat_map(|current| owned(current)) {
                let other = owners.insert(partition, id);
                assert_eq!(other, None, "two owners of {partition:?}");
            }
        }
        let stored = self.owners.iter().flat_map(|(topic, owners)| {
            let owners = owners.iter();
            owners.map(move |(partition, owner)| ((*topic, *partition), owner))
        });
        assert_eq!(owners, stored.collect(), "owners and what members have");
        let targets = self.members.values().filter_map(|m| m.target.as_ref());
        let mut targeted = BTreeSet::new();
        for (topic, partitions) in targets.flat_map(|target| &**target) {
            for partition in partitions {
                assert!(targeted.insert((topic, partition)), "in two targets");
            }
        }
    }
}

/// What a new member has.
fn nothing() -> CurrentValue {
    CurrentValue {
        epoch: 0,
        previous_epoch: 0,
        phase: MemberPhase::Stable,
        assigned: PartitionEpochs::new(),
        revoking: PartitionEpochs::new(),
    }
}

/// What a member owns: what it has and what it has not given back.
fn owned(current: &CurrentValue) -> impl Iterator<Item = (TopicId, i32)> + '_ {
    let topics = current.assigned.iter().chain(&current.revoking);
    topics.flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
}
