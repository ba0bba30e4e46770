//! Membership of a group whose members share the partitions of `work`: by JoinGroup, SyncGroup, Heartbeat and LeaveGroup, or by
//! ConsumerGroupHeartbeat (KIP-848), both in one group. Members pause, come back as somebody else who may use the other protocol,
//! and are put out of the group while their transactions run (O-3, O-15).

use super::is_passing;
use crate::model::Place;
use crate::network::Network;
use crate::port::{Port, Response};
use bytes::Bytes;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use tally_protocol::ErrorCode;
use tally_testkit::client::{group_id, topic_name};
use uuid::Uuid;

/// Partitions that are shared.
const PARTITIONS: i32 = 2;
/// What a consumer says of itself: the topics that it reads.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x04work\xff\xff\xff\xff";
/// A few transactions; shorter than a pause.
const SESSION_TIMEOUT_MS: i32 = 200;
const REBALANCE_TIMEOUT_MS: i32 = 80;

const JOIN: i16 = 5;
const SYNC: i16 = 3;
const HEARTBEAT: i16 = 3;
const LEAVE: i16 = 3;
const BEAT: i16 = 1;
/// The epoch with which a member of the new protocol leaves.
const LEAVING: i32 = -1;

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
    /// Whether it is one of the new protocol, by the epoch that `generation` is then.
    is_consumer: bool,
    /// Of the new protocol: has to say which partitions it has now.
    tells: bool,
    topic_id: Uuid,
    /// Lives so far: the next one has another id.
    lives: u64,
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

    /// Before it joins for the first time, a process has one protocol or the other.
    fn begin(&mut self, who: &str, network: &mut Network) {
        if self.member_id.is_empty() {
            self.is_consumer = network.seed.percent(50);
            self.lives += 1;
            if self.is_consumer {
                self.member_id = format!("{who}, life {}", self.lives);
            }
        }
        self.generation = 0;
    }

    pub(crate) fn ask(
        &mut self,
        (step, who): (GroupStep, &str),
        port: &mut Port,
        network: &mut Network,
    ) {
        if step == GroupStep::Join {
            self.begin(who, network);
        }
        if self.is_consumer {
            let epoch = if step == GroupStep::Leave {
                LEAVING
            } else {
                self.generation
            };
            port.ask(network, BEAT, &self.beat(epoch));
            return;
        }
        let id = text(&self.member_id);
        match step {
            GroupStep::Join => {
                let protocol = JoinGroupRequestProtocol::default()
                    .with_name(text("range"))
                    .with_metadata(Bytes::from_static(SUBSCRIPTION));
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

    fn beat(&self, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_member_id(text(&self.member_id))
            .with_member_epoch(epoch)
            .with_rebalance_timeout_ms(-1)
            .with_topic_partitions(None);
        if epoch == 0 {
            return request
                .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
                .with_subscribed_topic_names(Some(vec![topic_name("work")]))
                .with_topic_partitions(Some(Vec::new()));
        }
        if !self.tells {
            return request;
        }
        let mine = TopicPartitions::default()
            .with_topic_id(self.topic_id)
            .with_partitions(self.assigned.clone());
        let mine = if self.assigned.is_empty() {
            Vec::new()
        } else {
            vec![mine]
        };
        request.with_topic_partitions(Some(mine))
    }

    /// Takes an answer of the new protocol. Between two transactions nothing of what it has to give back is in use.
    fn take_beat(&mut self, step: GroupStep, response: Response) -> Result<Option<GroupStep>, i16> {
        let response = response.of::<ConsumerGroupHeartbeatRequest>();
        let code = response.error_code;
        if step == GroupStep::Leave {
            self.forget();
            return match code {
                0 => Ok(Some(GroupStep::Join)),
                code if is_rebalance(code) => Ok(Some(GroupStep::Join)),
                code => Err(code),
            };
        }
        if is_rebalance(code) {
            self.fall_out(code);
            return Ok(Some(GroupStep::Join));
        }
        if code != 0 {
            return Err(code);
        }
        self.generation = response.member_epoch;
        self.is_in = true;
        self.tells = false;
        if let Some(assignment) = response.assignment {
            let topics = assignment.topic_partitions;
            self.assigned = topics
                .iter()
                .flat_map(|topic| &topic.partitions)
                .copied()
                .collect();
            if let Some(topic) = topics.first() {
                self.topic_id = topic.topic_id;
            }
            // It has to say so before others get what it has given back.
            self.tells = true;
            return Ok(Some(GroupStep::Heartbeat));
        }
        Ok(None)
    }

    /// Each member its partitions, as consumers write it.
    fn assignments(&self) -> Vec<SyncGroupRequestAssignment> {
        let members = self.led.iter().enumerate();
        let assignment = |(nth, id): (usize, &String)| {
            let mine = (0..PARTITIONS).filter(|index| {
                let index = usize::try_from(*index).expect("small");
                index % self.led.len() == nth
            });
            let mine: Vec<i32> = mine.collect();
            let count = i32::try_from(mine.len()).expect("small");
            let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, 4];
            bytes.extend_from_slice(b"work");
            bytes.extend_from_slice(&count.to_be_bytes());
            for index in mine {
                bytes.extend_from_slice(&index.to_be_bytes());
            }
            bytes.extend_from_slice(&[0xff; 4]);
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
        if self.is_consumer {
            return self.take_beat(step, response);
        }
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
                    self.assigned = assigned(&response.assignment);
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

/// The partitions of an assignment of the one topic.
fn assigned(bytes: &[u8]) -> Vec<i32> {
    // The version, one topic with its name, and how many.
    let Some(partitions) = bytes.get(16..bytes.len().saturating_sub(4)) else {
        return Vec::new();
    };
    let number = |bytes: &[u8]| i32::from_be_bytes(bytes.try_into().expect("four bytes"));
    partitions.chunks_exact(4).map(number).collect()
}

/// Whether a member has to join again.
pub(crate) fn is_rebalance(code: i16) -> bool {
    [
        ErrorCode::IllegalGeneration,
        ErrorCode::UnknownMemberId,
        ErrorCode::RebalanceInProgress,
        ErrorCode::FencedMemberEpoch,
        ErrorCode::StaleMemberEpoch,
        ErrorCode::GroupIdNotFound,
    ]
    .iter()
    .any(|one| one.code() == code)
}
