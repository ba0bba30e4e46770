//! Groups that change their protocol (section 9.8): a classic group that a member of the `consumer` protocol joins, and a
//! group that the last of those has left.

use super::embedded::{Subscription, assignment, parse_assignment};
use super::{ConsumerGroup, Draft, Live};
use crate::classic::{ClassicMember, Group};
use crate::command::JoinRequest;
use crate::groups::{GroupState, Groups, Turn};
use crate::topics::Topics;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::records::consumer_group::{
    ClassicValue, ConsumerGroupRecord, CurrentValue, EpochValue, MemberPhase, PartitionEpochs,
    Partitions, SubscriptionValue, TargetEpochValue,
};
use tally_protocol::records::offsets_log::{GroupValue, MemberValue, OffsetsRecord};
use tally_protocol::{ErrorCode, TopicId};

/// The protocol type of consumers.
const CONSUMER: &str = "consumer";

impl Groups {
    /// The classic group of this name as one of the `consumer` protocol. A group without members gives way; one with
    /// members is refused (69) unless all that they have can be taken over.
    pub(super) fn upgrade(&self, turn: &Turn, draft: &mut Draft<'_>) -> Result<(), ErrorCode> {
        let name = draft.name().clone();
        let stored = self.stored().group(&name);
        let record = stored.and_then(|stored| stored.record.as_ref());
        if record.is_some() {
            draft.write_classic(OffsetsRecord::Group {
                group: name.clone(),
                value: None,
            });
        }
        let live = self.live(&name);
        let Some(live) = live.filter(|live| live.state() != GroupState::Empty) else {
            return Ok(());
        };
        let settings = &turn.settings;
        let members = live.classic_members(record);
        let allowed = settings.migration_policy.allows_upgrade()
            && live.is_consumer()
            && members.len() <= settings.consumer_max_size;
        let topics = self.topics();
        let converted = allowed.then(|| convert(&members, &topics)).flatten();
        let converted = converted.ok_or(ErrorCode::GroupIdNotFound)?;
        draft.take_over(live.generation(), converted, &topics);
        Ok(())
    }

    /// After [`Groups::upgrade`]: the classic members are told to join again, each has its session to do so.
    pub(super) fn become_consumer_group(
        &mut self,
        turn: &mut Turn,
        group: &Arc<str>,
        sessions: Vec<(Arc<str>, i32)>,
    ) {
        if let Some(classic) = self.live_mut(group) {
            classic.answer_everyone(turn, ErrorCode::RebalanceInProgress);
        }
        self.drop_live(group);
        let live = self.consumer_live_mut(group);
        for (id, timeout_ms) in sessions {
            live.set_session(&id, turn.deadline(timeout_ms));
        }
    }

    /// The group as a classic one, if nobody in it uses the `consumer` protocol any more and the rules allow it.
    pub(super) fn downgrade(&self, turn: &Turn, draft: &mut Draft<'_>) -> Option<GroupValue> {
        let settings = &turn.settings;
        let all_classic = draft
            .subscriptions()
            .all(|(_, asked)| asked.classic.is_some());
        if !draft.has_members()
            || !all_classic
            || !settings.migration_policy.allows_downgrade()
            || draft.subscriptions().count() > settings.max_size
        {
            return None;
        }
        let value = draft.as_classic(&self.topics(), turn.now.wall_ms);
        for record in draft.tombstones() {
            draft.write(record);
        }
        draft.write_classic(OffsetsRecord::Group {
            group: draft.name().clone(),
            value: Some(value.clone()),
        });
        Some(value)
    }

    /// After [`Groups::downgrade`]: the members agree on who assigns.
    pub(super) fn become_classic_group(
        &mut self,
        turn: &mut Turn,
        group: &Arc<str>,
        value: &GroupValue,
    ) {
        self.drop_consumer_live(group);
        let classic = Group::recover(group, value, self.seed(), turn);
        let classic = self.insert_live(group, classic);
        classic.start_over(turn);
        self.settle(group);
    }

    /// A JoinGroup to a group of the `consumer` protocol without members: a classic group takes its place.
    pub(crate) fn give_way_to_classic(&mut self, turn: &mut Turn, group: &Arc<str>) {
        let stored = self.stored().consumer(group);
        let tombstones = stored.map(ConsumerGroup::tombstones).unwrap_or_default();
        for record in tombstones {
            turn.records.push(OffsetsRecord::Consumer {
                group: group.clone(),
                record,
            });
        }
        self.drop_consumer_live(group);
    }
}

/// A classic member, ready to be one of the group.
pub(super) struct Converted {
    id: Arc<str>,
    subscription: SubscriptionValue,
    assigned: Partitions,
}

/// `None` if something of a member cannot be read.
fn convert(members: &[ClassicMember], topics: &Topics) -> Option<Vec<Converted>> {
    let mut taken: BTreeSet<(TopicId, i32)> = BTreeSet::new();
    let mut converted = Vec::with_capacity(members.len());
    for member in members {
        let subscription = Subscription::parse(&member.metadata)?;
        let mut assigned = parse_assignment(&member.assignment, topics)?;
        // What a client's assignor has given to two, the first one keeps.
        for (topic, partitions) in &mut assigned {
            partitions.retain(|partition| taken.insert((*topic, *partition)));
        }
        assigned.retain(|_, partitions| !partitions.is_empty());
        converted.push(Converted {
            id: member.id.clone(),
            subscription: SubscriptionValue {
                instance_id: member.instance_id.clone(),
                rack_id: subscription.rack_id,
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                topics: subscription.topics,
                regex: None,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                assignor: None,
                classic: Some(ClassicValue {
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: member.protocols.clone(),
                }),
            },
            assigned,
        });
    }
    Some(converted)
}

/// What a classic member asks for with a JoinGroup; `None` if it cannot be read.
pub(super) fn asked_by_classic(
    request: &JoinRequest,
    before: Option<&SubscriptionValue>,
) -> Option<(SubscriptionValue, Subscription)> {
    // All its protocols carry the same subscription.
    let (_, metadata) = request.protocols.first()?;
    let embedded = Subscription::parse(metadata)?;
    let known = before.and_then(|before| before.instance_id.clone());
    let subscription = SubscriptionValue {
        instance_id: request.instance_id.clone().or(known),
        rack_id: embedded.rack_id.clone(),
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        topics: embedded.topics.clone(),
        regex: None,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        assignor: before.and_then(|before| before.assignor.clone()),
        classic: Some(ClassicValue {
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols.clone(),
        }),
    };
    Some((subscription, embedded))
}

impl Draft<'_> {
    /// The members of a classic group of this generation, each at that epoch with what it has.
    fn take_over(&mut self, generation: i32, members: Vec<Converted>, topics: &Topics) {
        for member in &members {
            let (id, subscription) = (member.id.clone(), member.subscription.clone());
            self.write(ConsumerGroupRecord::Member(id, Some(subscription)));
        }
        let metadata_hash = topics.hash(self.subscribed_topics().iter());
        self.write(ConsumerGroupRecord::Epoch(Some(EpochValue {
            epoch: generation,
            metadata_hash,
        })));
        for member in &members {
            self.write_target(member.id.clone(), member.assigned.clone());
        }
        self.write(ConsumerGroupRecord::TargetEpoch(Some(TargetEpochValue {
            epoch: generation,
            timestamp: 0,
        })));
        for member in members {
            let with_epoch = |partition| (partition, generation);
            let assigned = member.assigned.into_iter().map(|(topic, partitions)| {
                let partitions = partitions.into_iter().map(with_epoch);
                (topic, partitions.collect::<BTreeMap<_, _>>())
            });
            let current = CurrentValue {
                epoch: generation,
                previous_epoch: generation,
                phase: MemberPhase::Stable,
                assigned: assigned.collect(),
                revoking: PartitionEpochs::new(),
            };
            self.write(ConsumerGroupRecord::Current(member.id, Some(current)));
        }
    }

    /// The session timeouts of the classic members.
    pub(super) fn classic_sessions(&self) -> Vec<(Arc<str>, i32)> {
        let classic = |(id, asked): (&Arc<str>, &Arc<SubscriptionValue>)| {
            Some((id.clone(), asked.classic.as_ref()?.session_timeout_ms))
        };
        self.subscriptions().filter_map(classic).collect()
    }

    /// All members are classic ones: the group as they know it, with the epoch as generation.
    fn as_classic(&self, topics: &Topics, wall_ms: i64) -> GroupValue {
        let protocol = self.common_protocol();
        let members: Vec<MemberValue> = self
            .subscriptions()
            .filter_map(|(id, asked)| {
                let classic = asked.classic.as_ref()?;
                let metadata = protocol_metadata(classic, &protocol);
                let version = Subscription::parse(&metadata).map_or(0, |asked| asked.version);
                Some(MemberValue {
                    member_id: id.clone(),
                    group_instance_id: asked.instance_id.clone(),
                    client_id: asked.client_id.clone(),
                    client_host: asked.client_host.clone(),
                    rebalance_timeout_ms: asked.rebalance_timeout_ms,
                    session_timeout_ms: classic.session_timeout_ms,
                    assignment: assignment(&self.current(id).assigned, version, topics),
                    subscription: metadata,
                })
            })
            .collect();
        GroupValue {
            protocol_type: Arc::from(CONSUMER),
            generation: self.epoch(),
            protocol: Some(protocol),
            leader: members.first().map(|member| member.member_id.clone()),
            current_state_timestamp: wall_ms,
            members,
        }
    }

    /// The first member's first protocol that all classic members support: there is one, it was checked when they joined.
    fn common_protocol(&self) -> Arc<str> {
        let mut classic = self
            .subscriptions()
            .filter_map(|(_, asked)| asked.classic.as_ref());
        let Some(first) = classic.next() else {
            return Arc::default();
        };
        let mut names = first.protocols.iter().map(|(name, _)| name);
        let common = names.find(|name| self.classic_members_support(name));
        let preferred = first.protocols.first().map(|(name, _)| name);
        common.or(preferred).cloned().unwrap_or_default()
    }
}

impl ConsumerGroup {
    /// Whether every classic member has this protocol.
    pub(super) fn classic_members_support(&self, protocol: &str) -> bool {
        let mut classic = self
            .subscriptions()
            .filter_map(|(_, asked)| asked.classic.as_ref());
        classic.all(|classic| {
            classic
                .protocols
                .iter()
                .any(|(name, _)| &**name == protocol)
        })
    }
}

fn protocol_metadata(classic: &ClassicValue, protocol: &str) -> Bytes {
    let found = classic
        .protocols
        .iter()
        .find(|(name, _)| &**name == protocol);
    found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
}

impl Live {
    /// After a restart: every member has a whole session to be heard of (GR-121).
    pub(crate) fn recovered(group: &ConsumerGroup, turn: &Turn) -> Live {
        let mut live = Live::default();
        for (id, asked) in group.subscriptions() {
            let classic = asked.classic.as_ref();
            let timeout_ms = classic.map_or(turn.settings.consumer.session_timeout_ms, |classic| {
                classic.session_timeout_ms
            });
            live.set_session(id, turn.deadline(timeout_ms));
            let current = group.current(id);
            let asked = (id, asked.rebalance_timeout_ms);
            live.wait_for_revocation(turn.now, asked, (&current, &current));
        }
        live
    }
}
