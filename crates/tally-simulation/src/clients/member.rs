//! Membership of a group whose members share the partitions of `work`: JoinGroup, SyncGroup, Heartbeat, LeaveGroup. Members
//! pause, come back as somebody else, and are put out of the group while their transactions run (O-3, O-15).

use super::is_passing;
use crate::model::Place;
use crate::network::Network;
use crate::port::{Port, Response};
use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use tally_protocol::ErrorCode;
use tally_testkit::client::group_id;

/// Partitions that are shared.
const PARTITIONS: i32 = 2;
/// A few transactions; shorter than a pause.
const SESSION_TIMEOUT_MS: i32 = 200;
const REBALANCE_TIMEOUT_MS: i32 = 80;

const JOIN: i16 = 5;
const SYNC: i16 = 3;
const HEARTBEAT: i16 = 3;
const LEAVE: i16 = 3;

/// What a member asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GroupStep {
    Join,
    Sync,
    Heartbeat,
    Leave,
}

/// One member.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    pub(crate) group: String,
    pub(crate) member_id: String,
    pub(crate) generation: i32,
    /// The members, if it leads them.
    led: Vec<String>,
    assigned: Vec<i32>,
    /// Whether it has its partitions and believes to be a member.
    pub(crate) is_in: bool,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

impl Membership {
    /// One of its partitions.
    pub(crate) fn choose(&self, network: &mut Network) -> Option<Place> {
        if self.assigned.is_empty() {
            return None;
        }
        let at = network.seed.index(self.assigned.len());
        Some(("work", self.assigned[at]))
    }

    /// It has to join again, with its id unless that is not known any more.
    pub(crate) fn fall_out(&mut self, code: i16) {
        self.is_in = false;
        self.assigned.clear();
        if code == ErrorCode::UnknownMemberId.code() {
            self.member_id.clear();
        }
    }

    /// It is another process from now on, which nobody knows.
    pub(crate) fn forget(&mut self) {
        self.fall_out(ErrorCode::UnknownMemberId.code());
    }

    pub(crate) fn ask(&self, step: GroupStep, port: &mut Port, network: &mut Network) {
        let id = text(&self.member_id);
        match step {
            GroupStep::Join => {
                let protocol = JoinGroupRequestProtocol::default()
                    .with_name(text("range"))
                    .with_metadata(Bytes::from_static(b"work"));
                let request = JoinGroupRequest::default()
                    .with_group_id(group_id(&self.group))
                    .with_session_timeout_ms(SESSION_TIMEOUT_MS)
                    .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
                    .with_member_id(id)
                    .with_protocol_type(text("consumer"))
                    .with_protocols(vec![protocol]);
                port.ask(network, JOIN, &request);
            }
            GroupStep::Sync => {
                let request = SyncGroupRequest::default()
                    .with_group_id(group_id(&self.group))
                    .with_generation_id(self.generation)
                    .with_member_id(id)
                    .with_assignments(self.assignments());
                port.ask(network, SYNC, &request);
            }
            GroupStep::Heartbeat => {
                let request = HeartbeatRequest::default()
                    .with_group_id(group_id(&self.group))
                    .with_generation_id(self.generation)
                    .with_member_id(id);
                port.ask(network, HEARTBEAT, &request);
            }
            GroupStep::Leave => {
                let request = LeaveGroupRequest::default()
                    .with_group_id(group_id(&self.group))
                    .with_members(vec![MemberIdentity::default().with_member_id(id)]);
                port.ask(network, LEAVE, &request);
            }
        }
    }

    /// Each member its partitions, one byte for each.
    fn assignments(&self) -> Vec<SyncGroupRequestAssignment> {
        let members = self.led.iter().enumerate();
        let assignment = |(nth, id): (usize, &String)| {
            let mine = (0..PARTITIONS).filter(|index| {
                let index = usize::try_from(*index).expect("small");
                index % self.led.len() == nth
            });
            let bytes: Vec<u8> = mine
                .map(|index| u8::try_from(index).expect("small"))
                .collect();
            SyncGroupRequestAssignment::default()
                .with_member_id(text(id))
                .with_assignment(Bytes::from(bytes))
        };
        members.map(assignment).collect()
    }

    /// Takes an answer: what is to be asked next, or the code that is to be tried again or that must not be.
    pub(crate) fn take(
        &mut self,
        step: GroupStep,
        response: Response,
    ) -> Result<Option<GroupStep>, i16> {
        let code = match step {
            GroupStep::Join => {
                let response = response.of::<JoinGroupRequest>();
                if matches!(response.error_code, 0 | 79) {
                    self.member_id = response.member_id.to_string();
                }
                if response.error_code == 0 {
                    self.generation = response.generation_id;
                    let members = response.members.iter();
                    self.led = members.map(|member| member.member_id.to_string()).collect();
                    return Ok(Some(GroupStep::Sync));
                }
                response.error_code
            }
            GroupStep::Sync => {
                let response = response.of::<SyncGroupRequest>();
                if response.error_code == 0 {
                    self.assigned = response
                        .assignment
                        .iter()
                        .map(|&byte| i32::from(byte))
                        .collect();
                    self.is_in = true;
                    return Ok(None);
                }
                response.error_code
            }
            GroupStep::Heartbeat => response.of::<HeartbeatRequest>().error_code,
            GroupStep::Leave => {
                let response = response.of::<LeaveGroupRequest>();
                let member = response
                    .members
                    .first()
                    .map_or(0, |member| member.error_code);
                self.forget();
                // It may have been put out before.
                return match (response.error_code, member) {
                    (0, 0 | 25) => Ok(Some(GroupStep::Join)),
                    (0, code) | (code, _) => Err(code),
                };
            }
        };
        if code == 0 {
            return Ok(None);
        }
        if is_passing(code) {
            return Err(code);
        }
        if code == 79 || is_rebalance(code) {
            self.fall_out(code);
            return Ok(Some(GroupStep::Join));
        }
        Err(code)
    }
}

/// Whether a member has to join again.
pub(crate) fn is_rebalance(code: i16) -> bool {
    [
        ErrorCode::IllegalGeneration,
        ErrorCode::UnknownMemberId,
        ErrorCode::RebalanceInProgress,
    ]
    .iter()
    .any(|one| one.code() == code)
}
