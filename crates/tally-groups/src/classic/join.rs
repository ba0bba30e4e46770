//! JoinGroup (sections 5.1 to 5.3).

use super::members::{Member, Slot};
use super::{Group, Phase};
use crate::command::{
    JoinRequest, JoinResponse, JoinedMember, NewMember, ReplyTo, Response, ReturningMember,
};
use crate::groups::{Groups, Turn};
use std::sync::Arc;
use tally_protocol::ErrorCode;

/// How long a new member may be parked in its first join (GR-33): its connection may be gone, and it sends no heartbeats.
const NEW_MEMBER_TIMEOUT_MS: u64 = 300_000;
/// Ids that a group may have handed out and not seen again: far more than members that start at once, and an end to what
/// a client that only asks for ids can make the broker keep.
const PENDING_JOINS_MAX: usize = 10_000;

impl Groups {
    /// The checks that need no group (section 5.1, rows 3, 4 and 9).
    pub(crate) fn join(&mut self, turn: &mut Turn, request: JoinRequest, to: ReplyTo) {
        let settings = turn.settings;
        let sessions = settings.min_session_timeout_ms..=settings.max_session_timeout_ms;
        let refusal = if request.group.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if !sessions.contains(&request.session_timeout_ms) {
            Some(ErrorCode::InvalidSessionTimeout)
        } else if !request.member_id.is_empty() && !self.exists(&request.group) {
            Some(ErrorCode::UnknownMemberId)
        } else {
            None
        };
        if let Some(error) = refusal {
            return refuse(turn, to, error, request.member_id);
        }
        let name = request.group.clone();
        match self.stored().consumer(&name) {
            Some(group) if group.has_members() => {
                let response = self.classic_join(turn, &request);
                turn.reply(to, Response::Join(response));
                return self.settle(&name);
            }
            Some(_) => self.give_way_to_classic(turn, &name),
            None => {}
        }
        self.live_or_new(&name).join(turn, request, to);
        self.settle(&name);
    }
}

fn refuse(turn: &mut Turn, to: ReplyTo, error: ErrorCode, member_id: Arc<str>) {
    turn.reply(to, Response::Join(JoinResponse::refused(error, member_id)));
}

impl Group {
    /// Section 5.1 from row 10 on.
    fn join(&mut self, turn: &mut Turn, request: JoinRequest, to: ReplyTo) {
        if !self.has_room_for(&request.member_id, turn.settings.max_size) {
            refuse(turn, to, ErrorCode::GroupMaxSizeReached, Arc::default());
            self.forget(turn, &request.member_id);
        } else if !self.accepts_protocols(&request) {
            let error = ErrorCode::InconsistentGroupProtocol;
            refuse(turn, to, error, request.member_id);
        } else if request.member_id.is_empty() {
            self.join_without_id(turn, request, to);
        } else {
            self.join_with_id(turn, request, to);
        }
    }

    /// GR-22.
    fn has_room_for(&self, member_id: &str, max_size: usize) -> bool {
        let member = self.members.slot(member_id).map(|slot| &self.members[slot]);
        match self.phase {
            Phase::Empty => true,
            // Those who rejoin late are the ones for whom a group that has become too large has no room.
            Phase::PreparingInitial(_) | Phase::Preparing { .. } => {
                member.is_some_and(Member::is_joining) || self.members.joining_count() < max_size
            }
            Phase::Completing | Phase::Stable => member.is_some() || self.members.len() < max_size,
        }
    }

    /// The id is dropped wherever it is (section 5.1, row 10).
    fn forget(&mut self, turn: &mut Turn, member_id: &str) {
        self.pending_joins.remove(member_id);
        if let Some(slot) = self.members.slot(member_id) {
            self.remove_member(turn, slot);
        }
        self.try_complete_join(turn);
    }

    /// GR-23.
    fn accepts_protocols(&self, request: &JoinRequest) -> bool {
        if self.phase == Phase::Empty {
            return !request.protocol_type.is_empty() && !request.protocols.is_empty();
        }
        let mut names = request.protocols.iter().map(|(name, _)| name);
        self.protocol_type.as_ref() == Some(&request.protocol_type)
            && names.any(|name| self.members.all_support(name))
    }

    fn join_without_id(&mut self, turn: &mut Turn, request: JoinRequest, to: ReplyTo) {
        let known = request
            .instance_id
            .as_ref()
            .and_then(|instance_id| self.members.static_slot(instance_id));
        if let Some(slot) = known {
            return self.replace_static(turn, slot, request, to);
        }
        match (request.new_member, &request.instance_id) {
            (NewMember::AskToReturn, None) if self.pending_joins.len() >= PENDING_JOINS_MAX => {
                refuse(turn, to, ErrorCode::GroupMaxSizeReached, Arc::default());
            }
            (NewMember::AskToReturn, None) => {
                // KIP-394, GR-24: a client that never reads its id must not become a member that nobody can be.
                let id = request.new_member_id;
                let timeout_ms = u64::try_from(request.session_timeout_ms).unwrap_or(0);
                let deadline_ms = turn.now.monotonic_ms + timeout_ms;
                self.pending_joins.insert(id.clone(), deadline_ms);
                self.arm(deadline_ms);
                refuse(turn, to, ErrorCode::MemberIdRequired, id);
            }
            (NewMember::AskToReturn, Some(_)) | (NewMember::Add, _) => {
                let id = request.new_member_id.clone();
                self.add_member(turn, id, &request, to);
            }
        }
    }

    fn join_with_id(&mut self, turn: &mut Turn, request: JoinRequest, to: ReplyTo) {
        let id = request.member_id.clone();
        if self.pending_joins.contains_key(&id) {
            if request.instance_id.is_some() {
                // GR-26: ids are handed out to dynamic members only.
                return refuse(turn, to, ErrorCode::UnknownServerError, id);
            }
            self.pending_joins.remove(&id);
            return self.add_member(turn, id, &request, to);
        }
        match self.find_member(&id, request.instance_id.as_deref()) {
            Ok(slot) => self.rejoin(turn, slot, request, to),
            Err(error) => refuse(turn, to, error, id),
        }
    }

    /// Section 5.2.
    fn rejoin(&mut self, turn: &mut Turn, slot: Slot, request: JoinRequest, to: ReplyTo) {
        let unchanged = self.members[slot].protocols == request.protocols;
        let answer_now = match self.phase {
            Phase::Empty | Phase::PreparingInitial(_) | Phase::Preparing { .. } => false,
            // It may not have received the answer to its first request.
            Phase::Completing => unchanged,
            // The leader rejoins because it has seen a change, such as new partitions.
            Phase::Stable => unchanged && self.leader != Some(slot),
        };
        if answer_now {
            let response = self.join_response(slot, self.members_for(slot));
            return turn.reply(to, Response::Join(response));
        }
        self.update_member(slot, request);
        self.park_join(turn, slot, to);
        self.rebalance_or_complete(turn);
    }

    fn add_member(&mut self, turn: &mut Turn, id: Arc<str>, request: &JoinRequest, to: ReplyTo) {
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        let slot = self.members.add(Member::new(id, request));
        self.leader.get_or_insert(slot); // GR-38
        self.set_session_deadline(turn, slot, NEW_MEMBER_TIMEOUT_MS);
        if let Phase::PreparingInitial(delay) = &mut self.phase {
            delay.new_member_added = true;
        }
        self.park_join(turn, slot, to);
        self.rebalance_or_complete(turn);
    }

    /// Section 5.3: a static member comes back without the id it had.
    fn replace_static(&mut self, turn: &mut Turn, slot: Slot, request: JoinRequest, to: ReplyTo) {
        let old_leader = self.leader_id();
        let old_id = self.members[slot].id.clone();
        let fenced = JoinResponse::refused(ErrorCode::FencedInstanceId, old_id);
        for parked in self.members.take_joins(slot) {
            turn.reply(parked, Response::Join(fenced.clone()));
        }
        self.answer_syncs(turn, slot, ErrorCode::FencedInstanceId);
        let returning = request.returning_member;
        self.members.rename(slot, request.new_member_id.clone());
        self.members[slot].client_id = request.client_id.clone();
        self.members[slot].client_host = request.client_host.clone();
        self.update_member(slot, request);
        self.restart_session(turn, slot);
        let same_protocol = self.select_protocol() == self.protocol;
        if self.phase != Phase::Stable || !same_protocol {
            self.park_join(turn, slot, to);
            return self.rebalance_or_complete(turn);
        }
        // GR-27: a changed subscription alone is left to the leader.
        let record = self.record(turn);
        turn.records.push(record);
        let response = match returning {
            ReturningMember::ToldToSkipAssignment => JoinResponse {
                skip_assignment: self.leader == Some(slot),
                ..self.join_response(slot, self.members_for(slot))
            },
            ReturningMember::ToldOldLeader => JoinResponse {
                leader: old_leader,
                ..self.join_response(slot, Vec::new())
            },
        };
        turn.reply(to, Response::Join(response));
    }

    fn update_member(&mut self, slot: Slot, request: JoinRequest) {
        let member = &mut self.members[slot];
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        self.members.set_protocols(slot, request.protocols);
    }

    fn park_join(&mut self, turn: &mut Turn, slot: Slot, to: ReplyTo) {
        if let Some(replaced) = self.members.park_join(slot, to) {
            let id = self.members[slot].id.clone();
            refuse(turn, replaced, ErrorCode::RebalanceInProgress, id);
        }
    }

    /// The answer of the current generation to a member.
    pub(super) fn join_response(&self, slot: Slot, members: Vec<JoinedMember>) -> JoinResponse {
        JoinResponse {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader_id(),
            skip_assignment: false,
            member_id: self.members[slot].id.clone(),
            members,
        }
    }

    /// GR-39: everyone for the leader, nobody for others.
    pub(super) fn members_for(&self, slot: Slot) -> Vec<JoinedMember> {
        if self.leader != Some(slot) {
            return Vec::new();
        }
        let protocol = self.protocol.clone().unwrap_or_default();
        let joined = self.members.iter().map(|member| JoinedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(&protocol),
        });
        joined.collect()
    }
}
