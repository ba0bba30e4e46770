//! What can be asked of the groups of one partition, and what they answer.
//!
//! Values carry what every version of a request means; what only one version says is translated by the caller.
//! Several replies to one member are the same bytes (GR-53), so responses are cheap to clone.

use crate::consumer::ConsumerSettings;
use crate::topics::Topics;
use bytes::Bytes;
use std::sync::Arc;
use tally_protocol::records::consumer_group::Partitions;
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::{ErrorCode, TopicId};

/// Names the request that a reply belongs to; the caller chooses it and gets it back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyTo(pub u64);

/// What to append, as one batch, and what to do once everything applied so far is durable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// To be appended as one batch (GR-67) and then applied, each with its offset. For
    /// [`Command::CommitTransactionalOffsets`] the batch is transactional and belongs to that producer (O-6).
    pub records: Vec<OffsetsRecord>,
    /// To be done when all that was applied so far is durable.
    pub effects: Vec<Effect>,
}

/// Something to do outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Answer a request.
    Reply {
        /// The request.
        to: ReplyTo,
        /// The answer.
        response: Response,
    },
}

/// A request to the groups of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Section 5. Answered with [`Response::Join`], perhaps minutes later (GR-20).
    Join(JoinRequest),
    /// Section 6.1. Answered with [`Response::Sync`], perhaps minutes later (GR-20).
    Sync(SyncRequest),
    /// Section 6.2. Answered with [`Response::Heartbeat`].
    Heartbeat(HeartbeatRequest),
    /// Section 6.3. Answered with [`Response::Leave`].
    Leave(LeaveRequest),
    /// Section 9. Answered with [`Response::ConsumerHeartbeat`], at once.
    ConsumerHeartbeat(Box<ConsumerHeartbeatRequest>),
    /// Section 7.1. Answered with [`Response::CommitOffsets`].
    CommitOffsets(CommitRequest),
    /// Section 7.2. Answered with [`Response::FetchOffsets`].
    FetchOffsets(FetchRequest),
    /// Section 7.3. Answered with [`Response::CommitTransactionalOffsets`].
    CommitTransactionalOffsets(TransactionalCommitRequest),
    /// Section 7.4. Answered with [`Response::DeleteOffsets`].
    DeleteOffsets(DeleteOffsetsRequest),
    /// GR-103. Answered with [`Response::DeleteGroup`].
    DeleteGroup {
        /// The group.
        group: Arc<str>,
    },
    /// GR-93: a topic is gone, and so are its offsets in every group. Answered with [`Response::TopicDeleted`].
    TopicDeleted {
        /// Its name.
        topic: Arc<str>,
        /// Its id.
        topic_id: TopicId,
    },
}

impl Command {
    /// Whether the decision may have records: one that only reads needs no room in the log.
    #[must_use]
    pub fn may_write(&self) -> bool {
        match self {
            Command::Heartbeat(_) | Command::FetchOffsets(_) => false,
            Command::Join(_)
            | Command::ConsumerHeartbeat(_)
            | Command::Sync(_)
            | Command::Leave(_)
            | Command::CommitOffsets(_)
            | Command::CommitTransactionalOffsets(_)
            | Command::DeleteOffsets(_)
            | Command::DeleteGroup { .. }
            | Command::TopicDeleted { .. } => true,
        }
    }
}

/// The answer to a [`Command`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// To [`Command::Join`].
    Join(JoinResponse),
    /// To [`Command::Sync`].
    Sync(SyncResponse),
    /// To [`Command::Heartbeat`].
    Heartbeat(ErrorCode),
    /// To [`Command::Leave`].
    Leave(LeaveResponse),
    /// To [`Command::ConsumerHeartbeat`].
    ConsumerHeartbeat(ConsumerHeartbeatResponse),
    /// To [`Command::CommitOffsets`]: one code for each offset, in the request's order (GR-68).
    CommitOffsets(Vec<ErrorCode>),
    /// To [`Command::FetchOffsets`].
    FetchOffsets(FetchResponse),
    /// To [`Command::CommitTransactionalOffsets`]: one code for each offset, in the request's order.
    CommitTransactionalOffsets(Vec<ErrorCode>),
    /// To [`Command::DeleteOffsets`].
    DeleteOffsets(DeleteOffsetsResponse),
    /// To [`Command::DeleteGroup`].
    DeleteGroup(ErrorCode),
    /// To [`Command::TopicDeleted`].
    TopicDeleted,
}

/// What happens to a member that comes without an id (KIP-394, GR-24).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewMember {
    /// JoinGroup v0 to v3: it becomes a member at once.
    Add,
    /// JoinGroup v4 and later: a dynamic member is told its id and has to come back with it (79).
    AskToReturn,
}

/// What a restarted static member learns when nothing changes but its id (section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReturningMember {
    /// JoinGroup v5 to v8: the old leader's id, so that a restarted leader does not take itself for one.
    ToldOldLeader,
    /// JoinGroup v9 and later: the leader, the members, and that no assignment is wanted.
    ToldToSkipAssignment,
}

/// JoinGroup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRequest {
    /// The group.
    pub group: Arc<str>,
    /// The member's id; empty for a new one.
    pub member_id: Arc<str>,
    /// The instance id of a static member (KIP-345).
    pub instance_id: Option<Arc<str>>,
    /// The client id of the connection's requests.
    pub client_id: Arc<str>,
    /// Where it comes from: a slash and the address.
    pub client_host: Arc<str>,
    /// How long it may be silent, milliseconds.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for it, milliseconds; in v0 the session timeout.
    pub rebalance_timeout_ms: i32,
    /// `consumer`, `connect`, ...
    pub protocol_type: Arc<str>,
    /// Name and metadata, the one it likes best first.
    pub protocols: Vec<(Arc<str>, Bytes)>,
    /// What the request's version expects when `member_id` is empty.
    pub new_member: NewMember,
    /// What the request's version expects for a static member that returns.
    pub returning_member: ReturningMember,
    /// The id to use if this becomes a new member: `<client id or instance id>-<uuid>` (GR-24).
    pub new_member_id: Arc<str>,
    /// The topics there are, for a group that assigns them itself.
    pub topics: Arc<Topics>,
}

/// The answer to [`JoinRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinResponse {
    /// What went wrong.
    pub error: ErrorCode,
    /// The generation; -1 with an error.
    pub generation: i32,
    /// The group's protocol type; `None` with an error.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen; `None` with an error (GR-3: "" below v7).
    pub protocol: Option<Arc<str>>,
    /// Member id of the leader; empty with an error.
    pub leader: Arc<str>,
    /// The leader must not compute an assignment (v9 and later).
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: Arc<str>,
    /// All members, for the leader; empty for others (GR-39).
    pub members: Vec<JoinedMember>,
}

impl JoinResponse {
    /// A refusal (GR-3).
    #[must_use]
    pub fn refused(error: ErrorCode, member_id: Arc<str>) -> JoinResponse {
        JoinResponse {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: Arc::default(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

/// A member as the leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: Arc<str>,
    /// The instance id of a static member.
    pub instance_id: Option<Arc<str>>,
    /// Its metadata under the chosen protocol.
    pub metadata: Bytes,
}

/// SyncGroup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncRequest {
    /// The group.
    pub group: Arc<str>,
    /// The member.
    pub member_id: Arc<str>,
    /// The instance id of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The generation it joined.
    pub generation: i32,
    /// Checked if given (v5 and later).
    pub protocol_type: Option<Arc<str>>,
    /// Checked if given (v5 and later).
    pub protocol: Option<Arc<str>>,
    /// Member id and assignment, from the leader.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

/// The answer to [`SyncRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncResponse {
    /// What went wrong.
    pub error: ErrorCode,
    /// The group's protocol type; `None` with an error.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen; `None` with an error.
    pub protocol: Option<Arc<str>>,
    /// What the leader gave this member; empty with an error.
    pub assignment: Bytes,
}

impl SyncResponse {
    /// A refusal.
    #[must_use]
    pub fn refused(error: ErrorCode) -> SyncResponse {
        SyncResponse {
            error,
            protocol_type: None,
            protocol: None,
            assignment: Bytes::new(),
        }
    }
}

/// Heartbeat.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: Arc<str>,
    /// The member.
    pub member_id: Arc<str>,
    /// The instance id of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The generation it joined.
    pub generation: i32,
}

/// ConsumerGroupHeartbeat, checked by itself (section 9.1). What is `None` is as the member said last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerHeartbeatRequest {
    /// The group.
    pub group: Arc<str>,
    /// The member's id; it made it up itself.
    pub member_id: Arc<str>,
    /// The epoch it is at; 0 joins, -1 leaves, -2 leaves for a while.
    pub member_epoch: i32,
    /// The instance id of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The rack it is in.
    pub rack_id: Option<Arc<str>>,
    /// The client id of the connection's requests.
    pub client_id: Arc<str>,
    /// Where it comes from: a slash and the address.
    pub client_host: Arc<str>,
    /// How long it may take to give partitions back, milliseconds; -1: as before.
    pub rebalance_timeout_ms: i32,
    /// The topics it wants.
    pub subscribed_topics: Option<Vec<Arc<str>>>,
    /// The topics it wants besides, by their names; empty: none.
    pub subscribed_regex: Option<Arc<str>>,
    /// The assignor it wants.
    pub assignor: Option<Arc<str>>,
    /// What it has.
    pub owned: Option<Partitions>,
    /// The topics there are.
    pub topics: Arc<Topics>,
    /// What holds for this group.
    pub settings: ConsumerSettings,
}

/// The answer to [`ConsumerHeartbeatRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerHeartbeatResponse {
    /// What went wrong.
    pub error: ErrorCode,
    /// The member's id; empty with an error.
    pub member_id: Arc<str>,
    /// Its epoch from now on.
    pub member_epoch: i32,
    /// When it is to be heard of again, milliseconds.
    pub heartbeat_interval_ms: i32,
    /// What it may read; `None`: as before.
    pub assignment: Option<Partitions>,
}

impl ConsumerHeartbeatResponse {
    /// A refusal.
    #[must_use]
    pub fn refused(error: ErrorCode) -> ConsumerHeartbeatResponse {
        ConsumerHeartbeatResponse {
            error,
            member_id: Arc::default(),
            member_epoch: 0,
            heartbeat_interval_ms: 0,
            assignment: None,
        }
    }
}

/// LeaveGroup; v0 to v2 carry one member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaveRequest {
    /// The group.
    pub group: Arc<str>,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// A member that leaves, or is removed by its instance id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeavingMember {
    /// Its id; empty when an operator removes a static member.
    pub member_id: Arc<str>,
    /// The instance id of a static member.
    pub instance_id: Option<Arc<str>>,
}

/// The answer to [`LeaveRequest`]. v0 to v2 show the one member's error at the top.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaveResponse {
    /// What went wrong with the whole request.
    pub error: ErrorCode,
    /// In the request's order; empty if `error` is set.
    pub members: Vec<LeftMember>,
}

/// What became of a [`LeavingMember`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftMember {
    /// As in the request.
    pub member_id: Arc<str>,
    /// As in the request.
    pub instance_id: Option<Arc<str>>,
    /// What went wrong.
    pub error: ErrorCode,
}

/// What a commit with a generation gets when there is no such group (GR-60).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AbsentGroup {
    /// OffsetCommit below v9: ILLEGAL_GENERATION.
    IllegalGeneration,
    /// OffsetCommit v9 and later: GROUP_ID_NOT_FOUND.
    GroupIdNotFound,
}

/// OffsetCommit, without the partitions that the broker has refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitRequest {
    /// The group; may be empty.
    pub group: Arc<str>,
    /// The member; empty without one.
    pub member_id: Arc<str>,
    /// The instance id of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The generation it joined; -1 without one.
    pub generation: i32,
    /// What the request's version expects of an absent group.
    pub on_absent_group: AbsentGroup,
    /// v2 to v4: how long these offsets are kept, milliseconds; `None`: by the broker's retention (GR-66).
    pub retention_ms: Option<i64>,
    /// What to commit.
    pub offsets: Vec<OffsetToCommit>,
}

/// TxnOffsetCommit, verified, without the partitions that the broker has refused. The caller keeps the producer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionalCommitRequest {
    /// The group.
    pub group: Arc<str>,
    /// The member; empty without one.
    pub member_id: Arc<str>,
    /// The instance id of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The generation it joined; -1 without one.
    pub generation: i32,
    /// What to commit.
    pub offsets: Vec<OffsetToCommit>,
}

/// One offset of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetToCommit {
    /// The topic.
    pub topic: Arc<str>,
    /// Its id; zero if unknown.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: i32,
    /// Stored as it is (GR-65).
    pub offset: i64,
    /// Stored as it is; -1 unknown.
    pub leader_epoch: i32,
    /// The client's text; null is "" (GR-64).
    pub metadata: Arc<str>,
}

/// OffsetFetch for one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchRequest {
    /// The group; may be empty.
    pub group: Arc<str>,
    /// `None`: everything the group has.
    pub topics: Option<Vec<TopicToFetch>>,
    /// Whether offsets under an open transaction are answered with 88 (GR-73, O-9).
    pub require_stable: bool,
    /// The member of a group of the `consumer` protocol that asks, with its epoch (GR-72); `None`: anybody.
    pub member: Option<(Arc<str>, i32)>,
}

/// A topic of a [`FetchRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicToFetch {
    /// The topic.
    pub topic: Arc<str>,
    /// Its id; zero if unknown (GR-75).
    pub topic_id: TopicId,
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// The answer to [`FetchRequest`], in the request's order, or in order of name if it asked for everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchResponse {
    /// What went wrong with the whole group.
    pub error: ErrorCode,
    /// The topics.
    pub topics: Vec<FetchedTopic>,
}

/// A topic of a [`FetchResponse`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedTopic {
    /// The topic.
    pub topic: Arc<str>,
    /// As asked; zero if the request asked for everything.
    pub topic_id: TopicId,
    /// The partitions.
    pub partitions: Vec<FetchedOffset>,
}

/// A committed offset as it is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: i32,
    /// -1: none (GR-71), or not to be known yet (88).
    pub offset: i64,
    /// -1: unknown.
    pub leader_epoch: i32,
    /// The client's text.
    pub metadata: Arc<str>,
    /// UNSTABLE_OFFSET_COMMIT (88) or none.
    pub error: ErrorCode,
}

/// OffsetDelete, without the partitions that the broker has refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteOffsetsRequest {
    /// The group.
    pub group: Arc<str>,
    /// Topic and partition.
    pub partitions: Vec<(Arc<str>, i32)>,
}

/// The answer to [`DeleteOffsetsRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteOffsetsResponse {
    /// What went wrong with the whole request.
    pub error: ErrorCode,
    /// In the request's order; empty if `error` is set.
    pub partitions: Vec<ErrorCode>,
}
