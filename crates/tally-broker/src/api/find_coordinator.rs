//! FindCoordinator (groups.md section 2): the one broker there is, for every group and transactional id (GR-5).

use crate::api::Node;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use tally_protocol::ErrorCode;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

/// The first version with several keys (KIP-699).
const BATCH: i16 = 4;
/// The first version that knows share groups (KIP-932).
const WITH_SHARE: i16 = 6;

pub(crate) fn handle(
    node: &Node,
    version: i16,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if version >= BATCH {
        let found = |key: &StrBytes| find(node, version, request.key_type, key);
        let coordinators = request.coordinator_keys.iter().map(found).collect();
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let found = find(node, version, request.key_type, &request.key);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(Some(StrBytes::from_static_str(message(found.error_code))))
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn find(node: &Node, version: i16, key_type: i8, key: &StrBytes) -> Coordinator {
    let code = check(version, key_type, key.as_str());
    let found = Coordinator::default()
        .with_key(key.clone())
        .with_error_code(code.code());
    if !code.is_none() {
        // GR-4.
        return found
            .with_error_message(Some(StrBytes::from_static_str(message(code.code()))))
            .with_node_id((-1).into())
            .with_port(-1);
    }
    found
        .with_node_id(node.config.node_id.into())
        .with_host(StrBytes::from_string(node.advertised.host.clone()))
        .with_port(i32::from(node.advertised.port))
}

fn check(version: i16, key_type: i8, key: &str) -> ErrorCode {
    match key_type {
        GROUP | TRANSACTION => ErrorCode::None,
        SHARE if version >= WITH_SHARE && key.split(':').count() == 3 => {
            ErrorCode::CoordinatorNotAvailable
        }
        _ => ErrorCode::InvalidRequest,
    }
}

/// A word where the reference has a sentence; "NONE" is what clients see in its success (GR-4).
fn message(code: i16) -> &'static str {
    match code {
        0 => "NONE",
        15 => "There is no coordinator for share groups.",
        _ => "The key type or the key is not valid.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g03_a_share_key_needs_version_six_and_three_parts() {
        assert_eq!(check(5, SHARE, "g:t:0"), ErrorCode::InvalidRequest);
        assert_eq!(check(6, SHARE, "x"), ErrorCode::InvalidRequest);
        assert_eq!(check(6, SHARE, "g:t:0"), ErrorCode::CoordinatorNotAvailable);
        assert_eq!(check(6, 3, "g"), ErrorCode::InvalidRequest);
        assert_eq!(check(0, GROUP, ""), ErrorCode::None);
        assert_eq!(check(1, TRANSACTION, "t"), ErrorCode::None);
    }
}
