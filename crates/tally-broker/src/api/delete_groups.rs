//! DeleteGroups (GR-103): groups without members, with their offsets.

use crate::api::Node;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_groups::{Command, Response};
use tally_protocol::ErrorCode;

pub(crate) async fn handle(node: &Node, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut response = DeleteGroupsResponse::default();
    let mut seen = BTreeSet::new();
    for group in &request.groups_names {
        // Named twice is answered once.
        if !seen.insert(group) {
            continue;
        }
        let code = delete(node, group).await;
        let row = DeletableGroupResult::default()
            .with_group_id(group.clone())
            .with_error_code(code.code());
        response.results.push(row);
    }
    response
}

async fn delete(node: &Node, group: &GroupId) -> ErrorCode {
    let group: Arc<str> = Arc::from(group.as_str());
    let command = Command::DeleteGroup {
        group: Arc::clone(&group),
    };
    match node.group(&group, command, 0).await {
        Ok(Response::DeleteGroup(code)) | Err(code) => code,
        Ok(_) => ErrorCode::UnknownServerError,
    }
}
