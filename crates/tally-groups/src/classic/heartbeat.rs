//! Heartbeat (section 6.2).

use super::{Group, Phase};
use crate::command::{HeartbeatRequest, ReplyTo, Response};
use crate::groups::{Groups, Turn};
use tally_protocol::ErrorCode;

impl Groups {
    pub(crate) fn heartbeat(&mut self, turn: &mut Turn, request: &HeartbeatRequest, to: ReplyTo) {
        let code = if request.group.is_empty() {
            ErrorCode::InvalidGroupId
        } else if self.stored().consumer(&request.group).is_some() {
            self.classic_heartbeat(turn, request)
        } else {
            match self.live_mut(&request.group) {
                Some(group) => group.heartbeat(turn, request),
                None => ErrorCode::UnknownMemberId,
            }
        };
        turn.reply(to, Response::Heartbeat(code));
        self.settle(&request.group);
    }
}

impl Group {
    fn heartbeat(&mut self, turn: &Turn, request: &HeartbeatRequest) -> ErrorCode {
        let found = self
            .find_member(&request.member_id, request.instance_id.as_deref())
            .and_then(|slot| self.check_generation(request.generation).map(|()| slot));
        let slot = match found {
            Ok(slot) => slot,
            Err(error) => return error,
        };
        self.restart_session(turn, slot);
        match self.phase {
            Phase::PreparingInitial(_) | Phase::Preparing { .. } => ErrorCode::RebalanceInProgress,
            // Empty has no members, so nobody gets here.
            Phase::Empty | Phase::Completing | Phase::Stable => ErrorCode::None,
        }
    }
}
