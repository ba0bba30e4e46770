//! SyncGroup (section 6.1).

use super::members::Slot;
use super::{Group, Phase};
use crate::command::{ReplyTo, Response, SyncRequest, SyncResponse};
use crate::groups::{Groups, Turn};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use tally_protocol::ErrorCode;

impl Groups {
    pub(crate) fn sync(&mut self, turn: &mut Turn, request: &SyncRequest, to: ReplyTo) {
        if request.group.is_empty() {
            return refuse(turn, to, ErrorCode::InvalidGroupId);
        }
        if self.stored().consumer(&request.group).is_some() {
            let response = self.classic_sync(turn, request);
            turn.reply(to, Response::Sync(response));
            return self.settle(&request.group);
        }
        match self.live_mut(&request.group) {
            Some(group) => group.sync(turn, request, to),
            None => refuse(turn, to, ErrorCode::UnknownMemberId),
        }
        self.settle(&request.group);
    }
}

fn refuse(turn: &mut Turn, to: ReplyTo, error: ErrorCode) {
    turn.reply(to, Response::Sync(SyncResponse::refused(error)));
}

impl Group {
    fn sync(&mut self, turn: &mut Turn, request: &SyncRequest, to: ReplyTo) {
        let slot = match self.check_sync(request) {
            Ok(slot) => slot,
            Err(error) => return refuse(turn, to, error),
        };
        match self.phase {
            Phase::Empty => refuse(turn, to, ErrorCode::UnknownMemberId),
            Phase::PreparingInitial(_) | Phase::Preparing { .. } => {
                refuse(turn, to, ErrorCode::RebalanceInProgress);
            }
            Phase::Completing => {
                self.note_sync(slot);
                if let Some(replaced) = self.members[slot].park_sync(to) {
                    refuse(turn, replaced, ErrorCode::RebalanceInProgress);
                }
                if self.leader == Some(slot) {
                    self.assign(turn, &request.assignments);
                }
            }
            Phase::Stable => {
                self.note_sync(slot);
                let response = self.sync_response(slot);
                turn.reply(to, Response::Sync(response));
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<Slot, ErrorCode> {
        let slot = self.find_member(&request.member_id, request.instance_id.as_deref())?;
        self.check_generation(request.generation)?;
        let differs = |given: &Option<Arc<str>>, own: &Option<Arc<str>>| {
            given.is_some() && own.is_some() && given != own
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(slot)
    }

    /// GR-50.
    fn note_sync(&mut self, slot: Slot) {
        self.pending_syncs.remove(&slot);
        if self.pending_syncs.is_empty() {
            self.sync_deadline_ms = None;
        }
    }

    /// The leader's assignment becomes the generation's: one record, then everyone's answer (GR-51, GR-52).
    fn assign(&mut self, turn: &mut Turn, assignments: &[(Arc<str>, Bytes)]) {
        let by_member: BTreeMap<&Arc<str>, &Bytes> = assignments
            .iter()
            .map(|(member_id, assignment)| (member_id, assignment))
            .collect();
        self.phase = Phase::Stable;
        for slot in self.members.slots() {
            let given = by_member.get(&self.members[slot].id);
            self.members[slot].assignment = given.map_or_else(Bytes::new, |&bytes| bytes.clone());
            let response = self.sync_response(slot);
            for parked in self.members[slot].take_syncs() {
                turn.reply(parked, Response::Sync(response.clone()));
            }
            self.restart_session(turn, slot);
        }
        let record = self.record(turn);
        turn.records.push(record);
    }

    fn sync_response(&self, slot: Slot) -> SyncResponse {
        SyncResponse {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members[slot].assignment.clone(),
        }
    }

    /// Ends a member's parked syncs with an error. From now on its session counts again, from its start.
    pub(super) fn answer_syncs(&mut self, turn: &mut Turn, slot: Slot, error: ErrorCode) {
        let parked = self.members[slot].take_syncs();
        if !parked.is_empty() {
            self.restart_session(turn, slot);
        }
        for to in parked {
            refuse(turn, to, error);
        }
    }
}
