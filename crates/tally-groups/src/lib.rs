//! Consumer groups and committed offsets as a replayable state machine: one [`Groups`] for each partition of
//! `__consumer_offsets`.
//!
//! What it owns: members, rebalances, committed offsets, offsets pending in transactions.
//!
//! Invariants:
//! - Hard state ([`Stored`]) changes only in [`Groups::apply`] and [`Groups::apply_marker`]; after a run it equals
//!   the replay of the partition's records and markers. Live membership (parked replies, timers, ids handed out and
//!   not yet used) is soft: [`Groups::recovered`] rebuilds it from the stored group records.
//! - Time, ids and the log come in as arguments; nothing here waits, reads a clock or fails.
//! - A pending offset becomes visible by the COMMIT marker of its producer and in no other way (GR-83, GR-84, O-8).
//!
//! Rules: docs/groups.md (GR numbers), section 6 of docs/exactly-once.md (O numbers).
//!
//! Not here: authorisation, whether a topic exists, whether a transaction is open, versions of requests.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod assignor;
mod classic;
mod command;
mod consumer;
mod groups;
mod offsets;
mod subscription;
mod topics;

pub use assignor::Assignor;
pub use command::{
    AbsentGroup, Command, CommitRequest, ConsumerHeartbeatRequest, ConsumerHeartbeatResponse,
    Decision, DeleteOffsetsRequest, DeleteOffsetsResponse, Effect, FetchRequest, FetchResponse,
    FetchedOffset, FetchedTopic, HeartbeatRequest, JoinRequest, JoinResponse, JoinedMember,
    LeaveRequest, LeaveResponse, LeavingMember, LeftMember, NewMember, OffsetToCommit, ReplyTo,
    Response, ReturningMember, SyncRequest, SyncResponse, TopicToFetch, TransactionalCommitRequest,
};
pub use consumer::{
    ConsumerGroupDescription, ConsumerMemberDescription, ConsumerSettings, MigrationPolicy,
};
pub use groups::{
    Assignors, GroupDescription, GroupKind, GroupListing, GroupState, Groups, MemberDescription,
    Settings,
};
pub use offsets::Stored;
pub use topics::Topics;
