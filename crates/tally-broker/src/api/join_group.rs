//! JoinGroup (groups.md section 5). The answer may take as long as a rebalance (GR-20).

use crate::api::{Client, Node};
use crate::metadata::system_random;
use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;
use tally_groups::{Command, JoinRequest, JoinResponse, NewMember, Response, ReturningMember};
use tally_protocol::ErrorCode;
use tally_protocol::wire::STRING_BYTES_MAX;

/// What is appended to a name to make a member's id: a dash and a uuid.
const ID_SUFFIX_BYTES: usize = 1 + 36;

/// A new member is asked to come back with its id (KIP-394).
const WITH_MEMBER_ID_REQUIRED: i16 = 4;
/// The protocol's name may be null in the answer (GR-3).
const WITH_NULL_PROTOCOL: i16 = 7;
/// A returning static leader is told not to assign.
const WITH_SKIP_ASSIGNMENT: i16 = 9;

pub(crate) async fn handle(
    node: &Node,
    client: &Client,
    version: i16,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let mut request = translate(client, version, &request);
    request.topics = node.metadata.topics_for_groups();
    let group = Arc::clone(&request.group);
    let size_bytes = size_bytes(&request);
    let response = match node.group(&group, Command::Join(request), size_bytes).await {
        Ok(Response::Join(response)) => response,
        Ok(_) => JoinResponse::refused(ErrorCode::UnknownServerError, Arc::default()),
        Err(code) => JoinResponse::refused(code, Arc::default()),
    };
    answer(version, response)
}

fn translate(client: &Client, version: i16, request: &JoinGroupRequest) -> JoinRequest {
    let instance_id: Option<Arc<str>> = request.group_instance_id.as_deref().map(Arc::from);
    let named_after = instance_id.as_deref().unwrap_or(client.id());
    // A copy: the request's own bytes are a piece of the connection's buffer, and members stay for days.
    let protocol =
        |name: &str, metadata: &Bytes| (Arc::from(name), Bytes::copy_from_slice(metadata));
    JoinRequest {
        group: Arc::from(request.group_id.as_str()),
        member_id: Arc::from(request.member_id.as_str()),
        new_member_id: new_member_id(named_after),
        instance_id,
        client_id: Arc::from(client.id()),
        client_host: Arc::from(format!("/{}", client.peer.ip())),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if version >= 1 {
            request.rebalance_timeout_ms
        } else {
            request.session_timeout_ms
        },
        protocol_type: Arc::from(request.protocol_type.as_str()),
        protocols: request
            .protocols
            .iter()
            .map(|offered| protocol(&offered.name, &offered.metadata))
            .collect(),
        new_member: if version >= WITH_MEMBER_ID_REQUIRED {
            NewMember::AskToReturn
        } else {
            NewMember::Add
        },
        topics: Arc::default(),
        returning_member: if version >= WITH_SKIP_ASSIGNMENT {
            ReturningMember::ToldToSkipAssignment
        } else {
            ReturningMember::ToldOldLeader
        },
    }
}

/// GR-24. The id goes out as a string of the wire and into records, so a name of the longest kind is cut.
fn new_member_id(named_after: &str) -> Arc<str> {
    let mut end = named_after.len().min(STRING_BYTES_MAX - ID_SUFFIX_BYTES);
    while !named_after.is_char_boundary(end) {
        end -= 1;
    }
    Arc::from(format!("{}-{}", &named_after[..end], random_uuid()))
}

fn random_uuid() -> uuid::Uuid {
    let mut bytes = [0; 16];
    system_random()(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// What the member adds to the group's record.
fn size_bytes(request: &JoinRequest) -> usize {
    let protocols = request
        .protocols
        .iter()
        .map(|(name, metadata)| name.len() + metadata.len());
    protocols.sum::<usize>()
        + 2 * request.new_member_id.len()
        + request.group.len()
        + request.protocol_type.len()
        + 128
}

fn answer(version: i16, response: JoinResponse) -> JoinGroupResponse {
    let text = |text: Arc<str>| StrBytes::from_string(text.to_string());
    let members = response.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.instance_id.map(text))
            .with_metadata(member.metadata)
    });
    let protocol = match response.protocol {
        None if version < WITH_NULL_PROTOCOL => Some(StrBytes::default()),
        protocol => protocol.map(text),
    };
    JoinGroupResponse::default()
        .with_error_code(response.error.code())
        .with_generation_id(response.generation)
        .with_protocol_type(response.protocol_type.map(text))
        .with_protocol_name(protocol)
        .with_leader(text(response.leader))
        .with_skip_assignment(response.skip_assignment)
        .with_member_id(text(response.member_id))
        .with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::Encodable;

    #[test]
    fn g23_a_refusal_has_an_empty_protocol_name_below_version_seven() {
        for version in 0..=9 {
            let refused =
                JoinResponse::refused(ErrorCode::InconsistentGroupProtocol, Arc::from("m"));
            let response = answer(version, refused);
            let expected = (version < 7).then(StrBytes::default);
            assert_eq!(response.protocol_name, expected, "version {version}");
            assert_eq!(response.generation_id, -1);
            assert_eq!(response.member_id.as_str(), "m");
            let mut bytes = bytes::BytesMut::new();
            response.encode(&mut bytes, version).unwrap();
        }
    }

    #[test]
    fn gr24_an_id_is_a_string_of_the_wire_whatever_it_is_named_after() {
        let id = new_member_id("c");
        assert_eq!((id.len(), &id[..2]), (38, "c-"));
        for name in [
            "x".repeat(STRING_BYTES_MAX),
            "ä".repeat(STRING_BYTES_MAX / 2),
        ] {
            let id = new_member_id(&name);
            assert!(id.len() <= STRING_BYTES_MAX, "{}", id.len());
            assert!(id.len() > STRING_BYTES_MAX - 2);
        }
    }

    #[test]
    fn gr24_ids_differ() {
        assert_ne!(random_uuid(), random_uuid());
    }
}
