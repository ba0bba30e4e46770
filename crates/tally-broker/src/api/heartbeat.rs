//! Heartbeat (groups.md section 6.2).

use crate::api::Node;
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use std::sync::Arc;
use tally_groups::{self as groups, Command, Response};
use tally_protocol::ErrorCode;

pub(crate) async fn handle(node: &Node, request: HeartbeatRequest) -> HeartbeatResponse {
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    let command = Command::Heartbeat(groups::HeartbeatRequest {
        group: Arc::clone(&group),
        member_id: Arc::from(request.member_id.as_str()),
        instance_id: request.group_instance_id.as_deref().map(Arc::from),
        generation: request.generation_id,
    });
    let code = match node.group(&group, command, 0).await {
        // GR-11: nobody is thrown out because the coordinator is still reading its log.
        Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
        Ok(Response::Heartbeat(code)) | Err(code) => code,
        Ok(_) => ErrorCode::UnknownServerError,
    };
    HeartbeatResponse::default().with_error_code(code.code())
}
