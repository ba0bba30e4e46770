//! A member of a classic group on a connection of its own, and a test's own group.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, group_id, text, unique};
use tally_testkit::waiting::wait_until;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");

/// JoinGroup version of most tests.
pub(crate) const JOIN: i16 = 7;

/// A subscription of the consumer protocol: version 0, no topics, no user data.
const NO_TOPICS: [u8; 10] = [0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

/// A new group on the shared broker, with a coordinator that answers.
#[track_caller]
pub(crate) fn new_group() -> String {
    let group = unique("g");
    client().wait_for_group(&group);
    group
}

#[track_caller]
pub(crate) fn client() -> Client {
    Client::connect(Broker::shared(PROGRAM))
}

/// One member: what it knows of itself, and its connection.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) group: String,
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) generation: i32,
    pub(crate) protocols: Vec<&'static str>,
    pub(crate) protocol_type: &'static str,
    pub(crate) session_timeout_ms: i32,
    pub(crate) rebalance_timeout_ms: i32,
}

impl Member {
    #[track_caller]
    pub(crate) fn new(group: &str) -> Member {
        Member::at(Broker::shared(PROGRAM), group)
    }

    #[track_caller]
    pub(crate) fn at(address: &str, group: &str) -> Member {
        Member {
            client: Client::connect(address),
            group: group.to_owned(),
            id: String::new(),
            instance: None,
            generation: -1,
            protocols: vec!["range"],
            protocol_type: "consumer",
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 30_000,
        }
    }

    pub(crate) fn with_instance(mut self, instance: &str) -> Member {
        self.instance = Some(instance.to_owned());
        self
    }

    pub(crate) fn with_protocols(mut self, protocols: &[&'static str]) -> Member {
        self.protocols = protocols.to_vec();
        self
    }

    pub(crate) fn join_request(&self, version: i16) -> JoinGroupRequest {
        let protocols = self.protocols.iter().map(|name| {
            JoinGroupRequestProtocol::default()
                .with_name(text(name))
                .with_metadata(Bytes::from_static(&NO_TOPICS))
        });
        let mut request = JoinGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_session_timeout_ms(self.session_timeout_ms)
            .with_member_id(text(&self.id))
            .with_protocol_type(text(self.protocol_type))
            .with_protocols(protocols.collect());
        if version >= 1 {
            request = request.with_rebalance_timeout_ms(self.rebalance_timeout_ms);
        }
        request.with_group_instance_id(self.instance.as_deref().map(text))
    }

    /// One JoinGroup and its answer; keeps the id and the generation.
    #[track_caller]
    pub(crate) fn join_once(&mut self, version: i16) -> JoinGroupResponse {
        let correlation_id = self.send_join(version);
        self.joined(version, correlation_id)
    }

    /// Sends JoinGroup; the answer may take until others join.
    #[track_caller]
    pub(crate) fn send_join(&mut self, version: i16) -> i32 {
        let request = self.join_request(version);
        self.client.send(version, &request)
    }

    /// The answer to [`Member::send_join`].
    #[track_caller]
    pub(crate) fn joined(&mut self, version: i16, correlation_id: i32) -> JoinGroupResponse {
        let response = self
            .client
            .receive::<JoinGroupRequest>(version, correlation_id);
        if matches!(response.error_code, 0 | 79) {
            self.id = response.member_id.to_string();
        }
        if response.error_code == 0 {
            self.generation = response.generation_id;
        }
        response
    }

    /// Gets an id by 79 where it has none (KIP-394).
    #[track_caller]
    pub(crate) fn take_id(&mut self) {
        let response = self.join_once(JOIN);
        assert_eq!(response.error_code, 79);
    }

    /// Joins a group that nobody else is in; the answer.
    #[track_caller]
    pub(crate) fn join(&mut self) -> JoinGroupResponse {
        if self.id.is_empty() && self.instance.is_none() {
            self.take_id();
        }
        let response = self.join_once(JOIN);
        assert_eq!(response.error_code, 0, "join");
        response
    }

    pub(crate) fn sync_request(&self, assignments: &[(&str, &'static str)]) -> SyncGroupRequest {
        let assignments = assignments.iter().map(|(member, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(Bytes::from_static(assignment.as_bytes()))
        });
        SyncGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(text))
            .with_assignments(assignments.collect())
    }

    /// SyncGroup v3.
    #[track_caller]
    pub(crate) fn sync(&mut self, assignments: &[(&str, &'static str)]) -> SyncGroupResponse {
        let request = self.sync_request(assignments);
        self.client.call(3, &request)
    }

    /// Heartbeat v3; the code.
    #[track_caller]
    pub(crate) fn heartbeat(&mut self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(text));
        self.client.call(3, &request).error_code
    }

    /// LeaveGroup v3 of this member alone.
    #[track_caller]
    pub(crate) fn leave(&mut self) -> LeaveGroupResponse {
        let identity = MemberIdentity::default()
            .with_member_id(text(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(text));
        let request = LeaveGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_members(vec![identity]);
        self.client.call(3, &request)
    }

    /// Waits until a heartbeat is answered by 27: a rebalance is under way.
    #[track_caller]
    pub(crate) fn wait_for_rebalance(&mut self) {
        wait_until("a rebalance", || self.heartbeat() == 27);
    }
}

/// A Stable group of `count` members, the leader first; assignments `a0`, `a1`, ...
#[track_caller]
pub(crate) fn stable(group: &str, count: usize) -> Vec<Member> {
    let mut members: Vec<Member> = (0..count).map(|_| Member::new(group)).collect();
    stabilise(&mut members);
    members
}

/// Lets the members join one after the other, the first as the leader, and gives them the assignments `a0`, `a1`, ...
#[track_caller]
pub(crate) fn stabilise(members: &mut [Member]) {
    const ASSIGNMENTS: [&str; 4] = ["a0", "a1", "a2", "a3"];
    for count in 1..=members.len() {
        join_one_more(&mut members[..count]);
    }
    let ids: Vec<String> = members.iter().map(|member| member.id.clone()).collect();
    let assignments: Vec<(&str, &'static str)> = ids
        .iter()
        .zip(ASSIGNMENTS)
        .map(|(id, assignment)| (id.as_str(), assignment))
        .collect();
    for (nth, member) in members.iter_mut().enumerate() {
        let given = if nth == 0 {
            assignments.as_slice()
        } else {
            &[]
        };
        let response = member.sync(given);
        assert_eq!(response.error_code, 0, "sync of member {nth}");
        assert_eq!(response.assignment, ASSIGNMENTS[nth].as_bytes());
    }
}

/// Lets the last of the members join the others, who are a generation.
#[track_caller]
pub(crate) fn join_one_more(members: &mut [Member]) {
    let (last, others) = members.split_last_mut().expect("a member");
    if last.id.is_empty() && last.instance.is_none() {
        last.take_id();
    }
    let joining = last.send_join(JOIN);
    for member in others.iter_mut() {
        member.wait_for_rebalance();
    }
    let rejoining: Vec<i32> = others.iter_mut().map(|m| m.send_join(JOIN)).collect();
    for (member, sent) in others.iter_mut().zip(rejoining) {
        assert_eq!(member.joined(JOIN, sent).error_code, 0, "rejoin");
    }
    let response = last.joined(JOIN, joining);
    assert_eq!(response.error_code, 0, "join");
    assert!(
        others
            .iter()
            .all(|other| other.generation == last.generation)
    );
}
