//! One live classic group: members, rebalance, timers (sections 4 to 6). Soft state.
//!
//! Invariants:
//! - Empty has no members; Completing and Stable have a leader and a protocol.
//! - A reply is parked as a join only while Preparing, as a sync only while Completing.
//! - Each change of a generation's assignments is one record, written when the leader syncs (GR-41), when a static
//!   member changes its id, and when the group becomes Empty.
//!
//! Rules: docs/groups.md.

mod convert;
mod heartbeat;
mod join;
mod leave;
mod members;
mod rebalance;
mod sync;
mod timers;

use crate::groups::{GroupDescription, GroupState, MemberDescription, Turn};
use crate::offsets::Subscriptions;
use crate::subscription::subscribed_topics;
use bytes::Bytes;
pub(crate) use convert::ClassicMember;
use members::{Member, Members, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::ErrorCode;
use tally_protocol::records::offsets_log::{GroupValue, MemberValue, OffsetsRecord};

/// The protocol type of consumers.
const CONSUMER: &str = "consumer";

/// How far a group is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Empty,
    /// The first members of an Empty group are waited for (GR-31).
    PreparingInitial(InitialDelay),
    /// All members are waited for, at most until then (GR-32).
    Preparing {
        deadline_ms: u64,
    },
    Completing,
    Stable,
}

/// The wait of GR-31.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct InitialDelay {
    deadline_ms: u64,
    /// This wait.
    delay_ms: u64,
    /// What may be waited after it.
    remaining_ms: u64,
    new_member_added: bool,
}

/// One live classic group.
#[derive(Debug)]
pub(crate) struct Group {
    name: Arc<str>,
    phase: Phase,
    generation: i32,
    protocol_type: Option<Arc<str>>,
    protocol: Option<Arc<str>>,
    leader: Option<Slot>,
    members: Members,
    /// Ids that were handed out with 79 and have not come back, and until when they may (GR-24, GR-35).
    pending_joins: BTreeMap<Arc<str>, u64>,
    /// Who has joined this generation and not yet synced (GR-40, GR-50).
    pending_syncs: BTreeSet<Slot>,
    /// Until when they may.
    sync_deadline_ms: Option<u64>,
    /// The earliest deadline set since it was last asked for.
    wake_ms: Option<u64>,
    /// The group's place among the timers; kept by the owner of the timers.
    pub(crate) scheduled_ms: Option<u64>,
}

impl Group {
    pub(crate) fn new(name: Arc<str>, seed: u64) -> Group {
        Group {
            name,
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Members::new(seed),
            pending_joins: BTreeMap::new(),
            pending_syncs: BTreeSet::new(),
            sync_deadline_ms: None,
            wake_ms: None,
            scheduled_ms: None,
        }
    }

    /// A stored group without its members: it continues the count of generations.
    pub(crate) fn recover_empty(name: &Arc<str>, record: &GroupValue, seed: u64) -> Group {
        let mut group = Group::new(name.clone(), seed);
        group.generation = record.generation;
        group.protocol_type =
            Some(record.protocol_type.clone()).filter(|protocol_type| !protocol_type.is_empty());
        group
    }

    /// A stored group after a restart: Stable if it has members (GR-124), and then each has a whole session to be heard
    /// of (GR-121). Groups beyond the size that is allowed now start a rebalance.
    pub(crate) fn recover(
        name: &Arc<str>,
        record: &GroupValue,
        seed: u64,
        turn: &mut Turn,
    ) -> Group {
        let mut group = Group::recover_empty(name, record, seed);
        if record.members.is_empty() {
            return group;
        }
        group.phase = Phase::Stable;
        let protocol = record.protocol.clone().unwrap_or_default();
        for stored in &record.members {
            let slot = group.members.add(Member::recover(stored, &protocol));
            if record.leader.as_ref() == Some(&stored.member_id) {
                group.leader = Some(slot);
            }
            group.restart_session(turn, slot);
        }
        group.protocol = Some(protocol);
        group.leader = group.leader.or(group.members.first());
        if group.members.len() > turn.settings.max_size {
            group.prepare_rebalance(turn);
        }
        group
    }

    pub(crate) fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    pub(crate) fn state(&self) -> GroupState {
        match self.phase {
            Phase::Empty => GroupState::Empty,
            Phase::PreparingInitial(_) | Phase::Preparing { .. } => GroupState::PreparingRebalance,
            Phase::Completing => GroupState::CompletingRebalance,
            Phase::Stable => GroupState::Stable,
        }
    }

    pub(crate) fn protocol_type(&self) -> Option<Arc<str>> {
        self.protocol_type.clone()
    }

    pub(crate) fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// Nobody is there or on the way.
    pub(crate) fn is_deserted(&self) -> bool {
        self.phase == Phase::Empty && self.members.is_empty() && self.pending_joins.is_empty()
    }

    /// Nobody is there or on the way, and there never was a generation.
    pub(crate) fn is_unused(&self) -> bool {
        self.is_deserted() && self.generation == 0
    }

    /// The topics that members are subscribed to; all, if a member's metadata can't be read.
    pub(crate) fn subscriptions(&self) -> Subscriptions {
        let mut topics = BTreeSet::new();
        for member in self.members.iter() {
            // Before the first generation no protocol is chosen: every consumer protocol has the same metadata.
            let metadata = match &self.protocol {
                Some(protocol) => member.metadata(protocol),
                None => member
                    .protocols
                    .first()
                    .map_or_else(Bytes::new, |(_, metadata)| metadata.clone()),
            };
            match subscribed_topics(&metadata) {
                Some(subscribed) => topics.extend(subscribed.into_iter().map(Arc::from)),
                None => return Subscriptions::All,
            }
        }
        Subscriptions::Topics(topics)
    }

    /// GR-25: what every request of a member is checked for.
    pub(crate) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), ErrorCode> {
        self.find_member(member_id, instance_id).map(|_| ())
    }

    fn find_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<Slot, ErrorCode> {
        if let Some(instance_id) = instance_id {
            let slot = self
                .members
                .static_slot(instance_id)
                .ok_or(ErrorCode::UnknownMemberId)?;
            if &*self.members[slot].id != member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        self.members
            .slot(member_id)
            .ok_or(ErrorCode::UnknownMemberId)
    }

    pub(crate) fn check_generation(&self, generation: i32) -> Result<(), ErrorCode> {
        if generation == self.generation {
            Ok(())
        } else {
            Err(ErrorCode::IllegalGeneration)
        }
    }

    fn leader_id(&self) -> Arc<str> {
        self.leader
            .map(|slot| self.members[slot].id.clone())
            .unwrap_or_default()
    }

    /// The record of the group as it is now.
    fn record(&self, turn: &Turn) -> OffsetsRecord {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self.members.iter().map(|member| MemberValue {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(&protocol),
            assignment: member.assignment.clone(),
        });
        OffsetsRecord::Group {
            group: self.name.clone(),
            value: Some(GroupValue {
                protocol_type: self.protocol_type.clone().unwrap_or_default(),
                generation: self.generation,
                protocol: self.protocol.clone(),
                leader: self.leader.map(|slot| self.members[slot].id.clone()),
                current_state_timestamp: turn.now.wall_ms,
                members: members.collect(),
            }),
        }
    }

    pub(crate) fn describe(&self) -> GroupDescription {
        let stable_protocol = match self.phase {
            Phase::Stable => self.protocol.clone(),
            Phase::Empty
            | Phase::PreparingInitial(_)
            | Phase::Preparing { .. }
            | Phase::Completing => None,
        };
        let members = self.members.iter().map(|member| MemberDescription {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: stable_protocol
                .as_ref()
                .map_or_else(Bytes::new, |protocol| member.metadata(protocol)),
            assignment: member.assignment.clone(),
        });
        GroupDescription {
            state: self.state(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol: stable_protocol.unwrap_or_default(),
        }
    }

    pub(crate) fn check_invariants(&self) {
        self.members.check_invariants();
        let name = &self.name;
        match self.phase {
            Phase::Empty => assert!(self.members.is_empty(), "{name}: Empty with members"),
            Phase::PreparingInitial(_) | Phase::Preparing { .. } => {}
            Phase::Completing | Phase::Stable => {
                assert!(self.leader.is_some(), "{name}: no leader");
                assert!(self.protocol.is_some(), "{name}: no protocol");
            }
        }
        if let Some(leader) = self.leader {
            assert!(self.members.get(leader).is_some(), "{name}: leader is gone");
        }
        for &slot in &self.pending_syncs {
            assert!(self.members.get(slot).is_some(), "{name}: sync of nobody");
        }
        for member in self.members.iter() {
            let preparing = self.state() == GroupState::PreparingRebalance;
            assert!(
                preparing || !member.is_joining(),
                "{name}: parked join of {}",
                member.id
            );
            assert!(
                self.phase == Phase::Completing || !member.is_syncing(),
                "{name}: parked sync of {}",
                member.id
            );
            assert!(!self.pending_joins.contains_key(&member.id));
        }
    }
}
