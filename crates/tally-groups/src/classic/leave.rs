//! LeaveGroup (section 6.3).

use super::{Group, Phase};
use crate::command::{LeaveRequest, LeaveResponse, LeavingMember, LeftMember, ReplyTo, Response};
use crate::groups::{Groups, Turn};
use tally_protocol::ErrorCode;

impl Groups {
    pub(crate) fn leave(&mut self, turn: &mut Turn, request: LeaveRequest, to: ReplyTo) {
        let response = if request.group.is_empty() {
            LeaveResponse {
                error: ErrorCode::InvalidGroupId,
                members: Vec::new(),
            }
        } else {
            let is_consumer = self.stored().consumer(&request.group).is_some();
            let codes = match self.live_mut(&request.group) {
                _ if is_consumer => self.classic_leave(turn, &request.group, &request.members),
                Some(group) => group.leave(turn, &request.members),
                None => vec![ErrorCode::UnknownMemberId; request.members.len()],
            };
            let left = request.members.into_iter().zip(codes);
            LeaveResponse {
                error: ErrorCode::None,
                members: left.map(left_member).collect(),
            }
        };
        turn.reply(to, Response::Leave(response));
        self.settle(&request.group);
    }
}

fn left_member((member, error): (LeavingMember, ErrorCode)) -> LeftMember {
    LeftMember {
        member_id: member.member_id,
        instance_id: member.instance_id,
        error,
    }
}

impl Group {
    fn leave(&mut self, turn: &mut Turn, members: &[LeavingMember]) -> Vec<ErrorCode> {
        let mut codes = Vec::with_capacity(members.len());
        for member in members {
            codes.push(match self.leave_one(turn, member) {
                Ok(()) => ErrorCode::None,
                Err(error) => error,
            });
        }
        // One rebalance for all who left.
        if codes.contains(&ErrorCode::None) && self.phase != Phase::Empty {
            self.rebalance_or_complete(turn);
        }
        codes
    }

    fn leave_one(&mut self, turn: &mut Turn, member: &LeavingMember) -> Result<(), ErrorCode> {
        let instance_id = member.instance_id.as_deref();
        let slot = if member.member_id.is_empty() {
            // An operator removes a static member that is gone for good (KIP-345).
            instance_id
                .and_then(|instance_id| self.members.static_slot(instance_id))
                .ok_or(ErrorCode::UnknownMemberId)?
        } else if self.pending_joins.remove(&member.member_id).is_some() {
            return Ok(());
        } else {
            self.find_member(&member.member_id, instance_id)?
        };
        self.remove_member(turn, slot);
        Ok(())
    }
}
