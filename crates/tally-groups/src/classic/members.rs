//! The members of a group, in the order they came.
//!
//! Invariants: ids and instance ids lead to the member that has them; a member keeps its [`Slot`] when a restarted
//! static member takes over under a new id; the counts equal what counting would give.

use crate::command::ReplyTo;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use tally_protocol::SeededMap;
use tally_protocol::records::offsets_log::MemberValue;

/// How many requests of one member are answered with the same bytes (GR-53): the one that waits, and some that were sent
/// again over a new connection.
const PARKED_MAX: usize = 4;

/// A member's place in the order of arrival; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Slot(u64);

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: Arc<str>,
    pub(super) instance_id: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Vec<(Arc<str>, Bytes)>,
    pub(super) assignment: Bytes,
    /// Its first join has not completed (GR-33).
    pub(super) is_new: bool,
    pub(super) session_deadline_ms: u64,
    joining: Vec<ReplyTo>,
    syncing: Vec<ReplyTo>,
}

impl Member {
    pub(super) fn new(id: Arc<str>, request: &crate::command::JoinRequest) -> Member {
        Member {
            id,
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            is_new: true,
            session_deadline_ms: 0,
            joining: Vec::new(),
            syncing: Vec::new(),
        }
    }

    /// GR-124: of its protocols only the chosen one is known.
    pub(super) fn recover(stored: &MemberValue, protocol: &Arc<str>) -> Member {
        Member {
            id: stored.member_id.clone(),
            instance_id: stored.group_instance_id.clone(),
            client_id: stored.client_id.clone(),
            client_host: stored.client_host.clone(),
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            session_timeout_ms: stored.session_timeout_ms,
            protocols: vec![(protocol.clone(), stored.subscription.clone())],
            assignment: stored.assignment.clone(),
            is_new: false,
            session_deadline_ms: 0,
            joining: Vec::new(),
            syncing: Vec::new(),
        }
    }

    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| &**name == protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
    }

    pub(super) fn is_joining(&self) -> bool {
        !self.joining.is_empty()
    }

    pub(super) fn is_syncing(&self) -> bool {
        !self.syncing.is_empty()
    }

    /// Until when it has to be heard of; a member whose reply is parked is waited for otherwise (GR-33, GR-34).
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let waits = !self.is_new && (self.is_joining() || self.is_syncing());
        (!waits).then_some(self.session_deadline_ms)
    }

    /// Parks a sync; returns one that has waited too long behind others.
    pub(super) fn park_sync(&mut self, to: ReplyTo) -> Option<ReplyTo> {
        park(&mut self.syncing, to)
    }

    pub(super) fn take_syncs(&mut self) -> Vec<ReplyTo> {
        std::mem::take(&mut self.syncing)
    }

    fn protocol_names(&self) -> BTreeSet<Arc<str>> {
        self.protocols
            .iter()
            .map(|(name, _)| name.clone())
            .collect()
    }
}

fn park(parked: &mut Vec<ReplyTo>, to: ReplyTo) -> Option<ReplyTo> {
    parked.push(to);
    (parked.len() > PARKED_MAX).then(|| parked.remove(0))
}

/// The members of a group.
#[derive(Debug)]
pub(super) struct Members {
    by_slot: BTreeMap<Slot, Member>,
    by_id: SeededMap<Arc<str>, Slot>,
    statics: BTreeMap<Arc<str>, Slot>,
    /// How many members support each protocol.
    supporters: BTreeMap<Arc<str>, usize>,
    joining: usize,
    next: u64,
}

impl Members {
    pub(super) fn new(seed: u64) -> Members {
        Members {
            by_slot: BTreeMap::new(),
            by_id: SeededMap::new(seed),
            statics: BTreeMap::new(),
            supporters: BTreeMap::new(),
            joining: 0,
            next: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_slot.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// How many have a parked join.
    pub(super) fn joining_count(&self) -> usize {
        self.joining
    }

    /// The member that came first.
    pub(super) fn first(&self) -> Option<Slot> {
        self.by_slot.keys().next().copied()
    }

    pub(super) fn slot(&self, member_id: &str) -> Option<Slot> {
        self.by_id.get(member_id).copied()
    }

    pub(super) fn static_slot(&self, instance_id: &str) -> Option<Slot> {
        self.statics.get(instance_id).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Member> {
        self.by_slot.get(&slot)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_slot.values()
    }

    pub(super) fn with_slots(&self) -> impl Iterator<Item = (Slot, &Member)> {
        self.by_slot.iter().map(|(&slot, member)| (slot, member))
    }

    pub(super) fn slots(&self) -> Vec<Slot> {
        self.by_slot.keys().copied().collect()
    }

    /// Whether every member supports `protocol`.
    pub(super) fn all_support(&self, protocol: &str) -> bool {
        self.supporters.get(protocol).copied().unwrap_or(0) == self.len()
    }

    pub(super) fn add(&mut self, member: Member) -> Slot {
        let slot = Slot(self.next);
        self.next += 1;
        self.by_id.insert(member.id.clone(), slot);
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), slot);
        }
        for name in member.protocol_names() {
            *self.supporters.entry(name).or_default() += 1;
        }
        self.by_slot.insert(slot, member);
        slot
    }

    /// Removes a member; returns its parked joins and syncs.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<(Vec<ReplyTo>, Vec<ReplyTo>)> {
        let member = self.by_slot.remove(&slot)?;
        self.by_id.remove(&member.id);
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        self.unsupport(member.protocol_names());
        self.joining -= usize::from(member.is_joining());
        Some((member.joining, member.syncing))
    }

    /// A restarted static member takes over the place of the one before.
    pub(super) fn rename(&mut self, slot: Slot, id: Arc<str>) {
        let Some(member) = self.by_slot.get_mut(&slot) else {
            return;
        };
        self.by_id.remove(&member.id);
        self.by_id.insert(id.clone(), slot);
        member.id = id;
    }

    pub(super) fn set_protocols(&mut self, slot: Slot, protocols: Vec<(Arc<str>, Bytes)>) {
        let Some(member) = self.by_slot.get_mut(&slot) else {
            return;
        };
        let before = member.protocol_names();
        member.protocols = protocols;
        for name in member.protocol_names() {
            *self.supporters.entry(name).or_default() += 1;
        }
        self.unsupport(before);
    }

    fn unsupport(&mut self, names: BTreeSet<Arc<str>>) {
        for name in names {
            if let Some(count) = self.supporters.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.supporters.remove(&name);
                }
            }
        }
    }

    /// Parks a join; returns one that has waited too long behind others.
    pub(super) fn park_join(&mut self, slot: Slot, to: ReplyTo) -> Option<ReplyTo> {
        let member = self.by_slot.get_mut(&slot)?;
        self.joining += usize::from(!member.is_joining());
        park(&mut member.joining, to)
    }

    pub(super) fn take_joins(&mut self, slot: Slot) -> Vec<ReplyTo> {
        let Some(member) = self.by_slot.get_mut(&slot) else {
            return Vec::new();
        };
        self.joining -= usize::from(member.is_joining());
        std::mem::take(&mut member.joining)
    }

    pub(super) fn check_invariants(&self) {
        let joining = self.iter().filter(|member| member.is_joining()).count();
        assert_eq!(joining, self.joining);
        assert_eq!(self.by_id.len(), self.len());
        let mut supporters: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        let mut statics = BTreeMap::new();
        for (slot, member) in self.with_slots() {
            assert_eq!(self.slot(&member.id), Some(slot));
            for name in member.protocol_names() {
                *supporters.entry(name).or_default() += 1;
            }
            if let Some(instance_id) = &member.instance_id {
                statics.insert(instance_id.clone(), slot);
            }
        }
        assert_eq!(supporters, self.supporters);
        assert_eq!(statics, self.statics);
    }
}

impl Index<Slot> for Members {
    type Output = Member;

    fn index(&self, slot: Slot) -> &Member {
        &self.by_slot[&slot]
    }
}

impl IndexMut<Slot> for Members {
    fn index_mut(&mut self, slot: Slot) -> &mut Member {
        self.by_slot
            .get_mut(&slot)
            .expect("a slot is only kept for a member that is there")
    }
}
