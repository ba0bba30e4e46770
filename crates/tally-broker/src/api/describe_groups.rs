//! DescribeGroups (GR-101): classic groups.

use crate::api::Node;
use crate::api::topics::{OPERATIONS_NOT_ASKED, text};
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_groups::{GroupDescription, MemberDescription};
use tally_protocol::ErrorCode;
use tally_shard::{Inspected, Inspection};

/// The first version with authorized operations.
const OPERATIONS: i16 = 3;
/// The first version that says that there is no such group.
const NOT_FOUND: i16 = 6;
/// "Everything is allowed" for a group, as a bit field (LR-136).
pub(crate) const GROUP_OPERATIONS: i32 = 3400;

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut response = DescribeGroupsResponse::default();
    // Named twice is answered once: a few bytes must not ask for all members again and again.
    let mut seen = BTreeSet::new();
    for group in request.groups.iter().filter(|group| seen.insert(*group)) {
        let mut row = match look(node, group).await {
            Ok(Some(found)) => described(version, found),
            Ok(None) => dead(version, group),
            Err(code) => refused(version, code),
        };
        row.group_id = group.clone();
        row.authorized_operations = if version >= OPERATIONS
            && request.include_authorized_operations
            && row.error_code == ErrorCode::None.code()
        {
            GROUP_OPERATIONS
        } else {
            OPERATIONS_NOT_ASKED
        };
        response.groups.push(row);
    }
    response
}

async fn look(node: &Node, group: &GroupId) -> Result<Option<GroupDescription>, ErrorCode> {
    let (id, _) = node
        .group_partition(group)
        .ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let what = Inspection::Group(Arc::from(group.as_str()));
    match node.inspect(id, what).await? {
        Inspected::Group(description) => Ok(description),
        _ => Err(ErrorCode::UnknownServerError),
    }
}

fn described(version: i16, group: GroupDescription) -> DescribedGroup {
    let mut row = DescribedGroup::default();
    row.error_message = None;
    row.group_state = text(group.state.name());
    row.protocol_type = text(&group.protocol_type);
    row.protocol_data = text(&group.protocol);
    let members = group.members.into_iter();
    row.members = members
        .map(|member| described_member(version, member))
        .collect();
    row
}

fn described_member(version: i16, member: MemberDescription) -> DescribedGroupMember {
    let mut row = DescribedGroupMember::default();
    row.member_id = text(&member.member_id);
    row.group_instance_id = member
        .instance_id
        .filter(|_| version >= 4)
        .map(|id| text(&id));
    row.client_id = text(&member.client_id);
    row.client_host = text(&member.client_host);
    row.member_metadata = member.metadata;
    row.member_assignment = member.assignment;
    row
}

/// A group that is not there is `Dead`; before version 6 that is no error.
fn dead(version: i16, group: &GroupId) -> DescribedGroup {
    let mut row = DescribedGroup::default();
    row.error_message = None;
    row.group_state = text("Dead");
    if version >= NOT_FOUND {
        row.error_code = ErrorCode::GroupIdNotFound.code();
        row.error_message = Some(text(&format!("there is no group {}", group.as_str())));
    }
    row
}

fn refused(version: i16, code: ErrorCode) -> DescribedGroup {
    let mut row = DescribedGroup::default();
    row.error_code = code.code();
    row.error_message = None;
    if version >= NOT_FOUND {
        row.error_message = Some(text("the coordinator does not answer for this group now"));
    }
    row
}
