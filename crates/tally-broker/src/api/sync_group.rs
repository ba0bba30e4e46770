//! SyncGroup (groups.md section 6.1). A follower's answer waits for the leader (GR-20).

use crate::api::Node;
use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;
use tally_groups::{Command, Response, SyncRequest, SyncResponse};
use tally_protocol::ErrorCode;

/// From here on a request names the protocol it believes in (KIP-559).
const WITH_PROTOCOL: i16 = 5;

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    answer(sync(node, version, &request).await)
}

async fn sync(node: &Node, version: i16, request: &SyncGroupRequest) -> SyncResponse {
    if version >= WITH_PROTOCOL
        && (request.protocol_type.is_none() || request.protocol_name.is_none())
    {
        return SyncResponse::refused(ErrorCode::InconsistentGroupProtocol);
    }
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    // Copies: the request's own bytes are a piece of the connection's buffer, and assignments stay for days.
    let assignments: Vec<(Arc<str>, Bytes)> = request
        .assignments
        .iter()
        .map(|given| {
            (
                Arc::from(given.member_id.as_str()),
                Bytes::copy_from_slice(&given.assignment),
            )
        })
        .collect();
    let size_bytes = assignments
        .iter()
        .map(|(member_id, assignment)| member_id.len() + assignment.len())
        .sum();
    let command = Command::Sync(SyncRequest {
        group: Arc::clone(&group),
        member_id: Arc::from(request.member_id.as_str()),
        instance_id: request.group_instance_id.as_deref().map(Arc::from),
        generation: request.generation_id,
        protocol_type: request.protocol_type.as_deref().map(Arc::from),
        protocol: request.protocol_name.as_deref().map(Arc::from),
        assignments,
    });
    match node.group(&group, command, size_bytes).await {
        Ok(Response::Sync(response)) => response,
        Ok(_) => SyncResponse::refused(ErrorCode::UnknownServerError),
        Err(code) => SyncResponse::refused(code),
    }
}

fn answer(response: SyncResponse) -> SyncGroupResponse {
    let text = |text: Arc<str>| StrBytes::from_string(text.to_string());
    SyncGroupResponse::default()
        .with_error_code(response.error.code())
        .with_protocol_type(response.protocol_type.map(text))
        .with_protocol_name(response.protocol.map(text))
        .with_assignment(response.assignment)
}
