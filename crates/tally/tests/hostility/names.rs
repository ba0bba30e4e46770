//! Names of the longest kind.

use crate::PROGRAM;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{ApiKey, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest};
use kafka_protocol::protocol::Encodable;
use tally_testkit::broker::Broker;
use tally_testkit::client::{group_id, text};
use tally_testkit::wire::{Connection, decode_response};

fn join(member_id: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    JoinGroupRequest::default()
        .with_group_id(group_id("g"))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(text(member_id))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// A frame of a client that calls itself `client_id`.
fn frame_by(client_id: &str, version: i16, request: &JoinGroupRequest) -> Vec<u8> {
    let mut content = Vec::new();
    content.extend_from_slice(&(ApiKey::JoinGroup as i16).to_be_bytes());
    content.extend_from_slice(&version.to_be_bytes());
    content.extend_from_slice(&1i32.to_be_bytes());
    content.extend_from_slice(&i16::try_from(client_id.len()).expect("short").to_be_bytes());
    content.extend_from_slice(client_id.as_bytes());
    request.encode(&mut content, version).expect("it fits");
    let length = u32::try_from(content.len()).expect("a small frame");
    [&length.to_be_bytes(), &content[..]].concat()
}

/// The id of a member begins with its client's name, and goes into answers and into the group's record.
#[test]
fn gr24_a_client_of_the_longest_name_may_be_in_a_group() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut leader = Connection::open(broker.address());
    let first: JoinGroupResponse = leader.call(3, &join(""));
    let mut other = Connection::open(broker.address());
    other.send_bytes(&frame_by(&"x".repeat(0x7fff), 3, &join("")));
    // Rebalances until the other one is in.
    let joined = loop {
        let joined = leader.call(3, &join(first.member_id.as_str()));
        assert_eq!(joined.error_code, 0);
        if joined.members.len() == 2 {
            break joined;
        }
    };
    let answer = other.receive_frame().expect("an answer");
    let answer = decode_response::<JoinGroupRequest>(3, 1, answer);
    assert_eq!((answer.error_code, answer.member_id.len()), (0, 0x7fff));
    let sync = SyncGroupRequest::default()
        .with_group_id(group_id("g"))
        .with_generation_id(joined.generation_id)
        .with_member_id(first.member_id.clone());
    assert_eq!(leader.call(2, &sync).error_code, 0);
    let sync = sync.with_member_id(answer.member_id);
    assert_eq!(other.call(2, &sync).error_code, 0);
}
