//! Members that use the classic protocol in a group of the `consumer` protocol (section 9.8): their JoinGroup reports what
//! they have and is answered at once, their SyncGroup gets what the broker has given them, their Heartbeat learns that
//! there is more to do.

use super::convert::asked_by_classic;
use super::embedded::{Subscription, assignment};
use super::heartbeat::{Context, Report};
use super::live::Wait;
use super::{ConsumerGroup, ConsumerSettings, Draft, LEAVE_FOR_A_WHILE_EPOCH};
use crate::command::{
    HeartbeatRequest, JoinRequest, JoinResponse, LeavingMember, NewMember, SyncRequest,
    SyncResponse,
};
use crate::groups::{Groups, Turn};
use crate::topics::Topics;
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_protocol::records::consumer_group::{ClassicValue, MemberPhase};
use tally_protocol::{ErrorCode, Now};

/// The protocol type of consumers.
const CONSUMER: &str = "consumer";

impl Groups {
    /// JoinGroup of a classic member; the answer is never parked.
    pub(crate) fn classic_join(&mut self, turn: &mut Turn, request: &JoinRequest) -> JoinResponse {
        self.note_topics(&request.topics);
        match self.try_classic_join(turn, request) {
            Ok(response) => response,
            Err((error, member_id)) => JoinResponse::refused(error, member_id),
        }
    }

    fn try_classic_join(
        &mut self,
        turn: &mut Turn,
        request: &JoinRequest,
    ) -> Result<JoinResponse, (ErrorCode, Arc<str>)> {
        let topics = self.topics();
        let settings = turn.settings;
        let context = Context {
            now: turn.now,
            settings: &settings,
            group: settings.consumer,
            topics: &topics,
        };
        let stored = self.stored().consumer(&request.group);
        let mut draft = Draft::new(request.group.clone(), stored);
        let unchanged = |error| (error, request.member_id.clone());
        if !settings.migration_policy.allows_upgrade()
            && !settings.migration_policy.allows_downgrade()
        {
            return Err(unchanged(ErrorCode::InconsistentGroupProtocol));
        }
        let room = draft.check_room(&request.member_id, settings.consumer_max_size);
        room.map_err(|error| (error, Arc::default()))?;
        draft.check_protocols(request).map_err(unchanged)?;
        let (member_id, replaced) = draft.find_classic(request)?;
        let before = draft.current(&member_id);
        let asked_before = draft.subscription(&member_id).map(|asked| &**asked);
        let (subscription, embedded) = asked_by_classic(request, asked_before)
            .ok_or_else(|| unchanged(ErrorCode::InconsistentGroupProtocol))?;
        let reported = embedded.owned_ids(&topics);
        let report = Report {
            member_id: &member_id,
            subscription,
            reported: Some(&reported),
        };
        let live = self.consumer_live(&request.group);
        let mut heard = draft
            .take_in(&context, report, live)
            .map_err(|error| (error, member_id.clone()))?;
        heard.replaced.clone_from(&replaced);
        let after = draft.current(&member_id);
        // The last member of the other protocol may have been the one that this one replaces.
        let downgraded = match replaced {
            Some(_) => self.downgrade(turn, &mut draft),
            None => None,
        };
        turn.records.extend(draft.into_records());
        let response = joined(request, &member_id, after.epoch);
        if let Some(value) = downgraded {
            self.become_classic_group(turn, &request.group, &value);
            return Ok(response);
        }
        let sync_by_ms = turn.deadline(request.rebalance_timeout_ms);
        let live = self.consumer_live_mut(&request.group);
        live.heard(&context, &heard);
        live.set_session(&member_id, turn.deadline(request.session_timeout_ms));
        live.stop_wait(&member_id, Wait::Join);
        live.set_wait(&member_id, Wait::Sync, sync_by_ms);
        let asked = (&member_id, request.rebalance_timeout_ms);
        live.wait_for_revocation(turn.now, asked, (&before, &after));
        Ok(response)
    }

    /// SyncGroup of a classic member.
    pub(crate) fn classic_sync(&mut self, turn: &mut Turn, request: &SyncRequest) -> SyncResponse {
        let topics = self.topics();
        let Some(group) = self.stored().consumer(&request.group) else {
            return SyncResponse::refused(ErrorCode::UnknownMemberId);
        };
        let instance_id = request.instance_id.as_deref();
        let checked = group.check_classic(&request.member_id, instance_id, request.generation);
        let classic = match checked {
            Ok(asked) => asked,
            Err(error) => return SyncResponse::refused(error),
        };
        let protocol = classic.0.protocols.first().map(|(name, _)| name.clone());
        let given = &request.protocol_type;
        if given.as_deref().is_some_and(|given| given != CONSUMER)
            || (request.protocol.is_some() && request.protocol != protocol)
        {
            return SyncResponse::refused(ErrorCode::InconsistentGroupProtocol);
        }
        let timeouts = (classic.0.session_timeout_ms, classic.1);
        let must_rejoin = group.is_behind(&request.member_id, turn.now, &turn.settings.consumer)
            && group.current(&request.member_id).phase != MemberPhase::Unrevoked;
        let assigned = group.assignment_bytes(&request.member_id, classic.0, &topics);
        self.heard_of_classic(
            turn,
            (&request.group, &request.member_id),
            timeouts,
            must_rejoin,
        );
        if must_rejoin {
            return SyncResponse::refused(ErrorCode::RebalanceInProgress);
        }
        let live = self.consumer_live_mut(&request.group);
        live.stop_wait(&request.member_id, Wait::Sync);
        SyncResponse {
            error: ErrorCode::None,
            protocol_type: Some(Arc::from(CONSUMER)),
            protocol,
            assignment: assigned,
        }
    }

    /// Heartbeat of a classic member.
    pub(crate) fn classic_heartbeat(
        &mut self,
        turn: &mut Turn,
        request: &HeartbeatRequest,
    ) -> ErrorCode {
        let Some(group) = self.stored().consumer(&request.group) else {
            return ErrorCode::UnknownMemberId;
        };
        let instance_id = request.instance_id.as_deref();
        let checked = group.check_classic(&request.member_id, instance_id, request.generation);
        let timeouts = match checked {
            Ok((classic, rebalance_timeout_ms)) => {
                (classic.session_timeout_ms, rebalance_timeout_ms)
            }
            Err(error) => return error,
        };
        let settings = &turn.settings.consumer;
        let must_rejoin = group.is_behind(&request.member_id, turn.now, settings)
            || group.can_go_on(&request.member_id);
        self.heard_of_classic(
            turn,
            (&request.group, &request.member_id),
            timeouts,
            must_rejoin,
        );
        if must_rejoin {
            ErrorCode::RebalanceInProgress
        } else {
            ErrorCode::None
        }
    }

    fn heard_of_classic(
        &mut self,
        turn: &Turn,
        (group, member_id): (&Arc<str>, &Arc<str>),
        (session_timeout_ms, rebalance_timeout_ms): (i32, i32),
        must_rejoin: bool,
    ) {
        let live = self.consumer_live_mut(group);
        live.set_session(member_id, turn.deadline(session_timeout_ms));
        if must_rejoin && !live.is_waited_for(member_id, Wait::Join) {
            live.set_wait(member_id, Wait::Join, turn.deadline(rebalance_timeout_ms));
        }
    }

    /// LeaveGroup: of members of either protocol, as an operator may remove any static member.
    pub(crate) fn classic_leave(
        &mut self,
        turn: &mut Turn,
        group: &Arc<str>,
        members: &[LeavingMember],
    ) -> Vec<ErrorCode> {
        let mut gone = BTreeSet::new();
        let mut codes = Vec::with_capacity(members.len());
        if let Some(stored) = self.stored().consumer(group) {
            for member in members {
                match stored.leaving(member) {
                    Ok(id) if gone.contains(&id) => codes.push(ErrorCode::UnknownMemberId),
                    Ok(id) => {
                        gone.insert(id);
                        codes.push(ErrorCode::None);
                    }
                    Err(error) => codes.push(error),
                }
            }
        }
        if !gone.is_empty() {
            self.remove_members(turn, group, &gone);
        }
        codes
    }
}

/// The answer to a classic member: it leads nothing and is told nobody.
fn joined(request: &JoinRequest, member_id: &Arc<str>, epoch: i32) -> JoinResponse {
    JoinResponse {
        error: ErrorCode::None,
        generation: epoch,
        protocol_type: Some(Arc::from(CONSUMER)),
        protocol: request.protocols.first().map(|(name, _)| name.clone()),
        leader: Arc::default(),
        skip_assignment: false,
        member_id: member_id.clone(),
        members: Vec::new(),
    }
}

/// Who joins, and whose place it takes.
type Joiner = (Arc<str>, Option<Arc<str>>);

impl Draft<'_> {
    fn check_protocols(&self, request: &JoinRequest) -> Result<(), ErrorCode> {
        let mut names = request.protocols.iter().map(|(name, _)| name);
        if &*request.protocol_type == CONSUMER
            && names.any(|name| self.classic_members_support(name))
        {
            Ok(())
        } else {
            Err(ErrorCode::InconsistentGroupProtocol)
        }
    }

    /// Who joins, and whose place it takes.
    fn find_classic(&mut self, request: &JoinRequest) -> Result<Joiner, (ErrorCode, Arc<str>)> {
        let is_new = request.member_id.is_empty();
        let Some(instance_id) = &request.instance_id else {
            if is_new && request.new_member == NewMember::AskToReturn {
                let id = request.new_member_id.clone();
                return Err((ErrorCode::MemberIdRequired, id));
            }
            let id = if is_new {
                &request.new_member_id
            } else {
                &request.member_id
            };
            return Ok((id.clone(), None));
        };
        let known = self.static_member(instance_id).cloned();
        match known {
            None if is_new => Ok((request.new_member_id.clone(), None)),
            None => Err((ErrorCode::UnknownMemberId, request.member_id.clone())),
            Some(known) if is_new => {
                let has_left = self.current(&known).epoch == LEAVE_FOR_A_WHILE_EPOCH;
                // Its epoch stays, so that what it is still to give back is not forgotten.
                let epoch = if has_left {
                    0
                } else {
                    self.current(&known).epoch
                };
                self.replace(&known, &request.new_member_id, epoch);
                Ok((request.new_member_id.clone(), Some(known)))
            }
            Some(known) if known == request.member_id => Ok((known, None)),
            Some(_) => Err((ErrorCode::FencedInstanceId, request.member_id.clone())),
        }
    }
}

impl ConsumerGroup {
    /// Order of the checks of section 9.8; returns what is known of the member, and its rebalance timeout.
    fn check_classic(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(&ClassicValue, i32), ErrorCode> {
        self.check_member(member_id, instance_id)?;
        let asked = self.subscription(member_id);
        let asked = asked.ok_or(ErrorCode::UnknownMemberId)?;
        let classic = asked.classic.as_ref().ok_or(ErrorCode::UnknownMemberId)?;
        if generation != self.current(member_id).epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok((classic, asked.rebalance_timeout_ms))
    }

    /// Whether there is a target that the member has not been moved to, or one could be made if somebody asked.
    fn is_behind(&self, member_id: &str, now: Now, settings: &ConsumerSettings) -> bool {
        self.current(member_id).epoch < self.target_epoch() || self.assignment_is_due(now, settings)
    }

    /// Whether the member has something to give back, or what it waits for has become free.
    fn can_go_on(&self, member_id: &str) -> bool {
        let current = self.current(member_id);
        match current.phase {
            MemberPhase::Unrevoked => true,
            MemberPhase::Unreleased => {
                let target = self.target(member_id);
                let mut wanted = target.into_iter().flat_map(|target| {
                    target.iter().flat_map(|(topic, partitions)| {
                        partitions.iter().map(move |partition| (*topic, *partition))
                    })
                });
                wanted.any(|(topic, partition)| self.owner(topic, partition).is_none())
            }
            MemberPhase::Stable | MemberPhase::Unknown => false,
        }
    }

    fn assignment_bytes(
        &self,
        member_id: &str,
        classic: &ClassicValue,
        topics: &Topics,
    ) -> bytes::Bytes {
        let metadata = classic.protocols.first().map(|(_, metadata)| metadata);
        let asked = metadata.and_then(|metadata| Subscription::parse(metadata));
        let version = asked.map_or(0, |asked| asked.version);
        assignment(&self.current(member_id).assigned, version, topics)
    }

    fn leaving(&self, member: &LeavingMember) -> Result<Arc<str>, ErrorCode> {
        let instance_id = member.instance_id.as_deref();
        if member.member_id.is_empty() {
            let known = instance_id.and_then(|instance_id| self.static_member(instance_id));
            return known.cloned().ok_or(ErrorCode::UnknownMemberId);
        }
        self.check_member(&member.member_id, instance_id)?;
        Ok(member.member_id.clone())
    }
}
