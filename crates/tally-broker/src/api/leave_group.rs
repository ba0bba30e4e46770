//! LeaveGroup (groups.md section 6.3): one member up to version 2, several from version 3 on.

use crate::api::Node;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;
use tally_groups::{Command, LeaveRequest, LeaveResponse, LeavingMember, LeftMember, Response};
use tally_protocol::ErrorCode;

/// The first version with several members (KIP-345).
const BATCH: i16 = 3;

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    let command = Command::Leave(LeaveRequest {
        group: Arc::clone(&group),
        members: members(version, &request),
    });
    match node.group(&group, command, 0).await {
        Ok(Response::Leave(response)) => answer(version, response),
        Ok(_) => {
            LeaveGroupResponse::default().with_error_code(ErrorCode::UnknownServerError.code())
        }
        Err(code) => LeaveGroupResponse::default().with_error_code(code.code()),
    }
}

fn members(version: i16, request: &LeaveGroupRequest) -> Vec<LeavingMember> {
    if version < BATCH {
        return vec![LeavingMember {
            member_id: Arc::from(request.member_id.as_str()),
            instance_id: None,
        }];
    }
    let leaving = request.members.iter().map(|member| LeavingMember {
        member_id: Arc::from(member.member_id.as_str()),
        instance_id: member.group_instance_id.as_deref().map(Arc::from),
    });
    leaving.collect()
}

fn answer(version: i16, response: LeaveResponse) -> LeaveGroupResponse {
    if version < BATCH {
        let member = response
            .members
            .first()
            .map_or(ErrorCode::None, |member| member.error);
        let code = if response.error.is_none() {
            member
        } else {
            response.error
        };
        return LeaveGroupResponse::default().with_error_code(code.code());
    }
    LeaveGroupResponse::default()
        .with_error_code(response.error.code())
        .with_members(response.members.into_iter().map(left).collect())
}

fn left(member: LeftMember) -> MemberResponse {
    let text = |text: Arc<str>| StrBytes::from_string(text.to_string());
    MemberResponse::default()
        .with_member_id(text(member.member_id))
        .with_group_instance_id(member.instance_id.map(text))
        .with_error_code(member.error.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g53_one_members_error_is_at_the_top_below_version_three() {
        let member = LeftMember {
            member_id: Arc::from("m"),
            instance_id: None,
            error: ErrorCode::UnknownMemberId,
        };
        let response = LeaveResponse {
            error: ErrorCode::None,
            members: vec![member],
        };
        let old = answer(2, response.clone());
        assert_eq!((old.error_code, old.members.len()), (25, 0));
        let new = answer(3, response);
        assert_eq!((new.error_code, new.members[0].error_code), (0, 25));
    }
}
