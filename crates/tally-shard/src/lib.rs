//! Partitions and coordinators under one owner.
//!
//! A [`Shard`] owns a fixed set of partitions with all of their state: producer state, offsets, the journal that stores
//! them, and the coordinator that an internal partition hosts. It is a synchronous value: whoever holds it hands it
//! [`ShardMessage`]s and the time, and gets replies, messages for other shards and wake-ups in an [`Outbox`].
//!
//! Invariants:
//! - One owner at a time (N3): no locks, no threads, no clock in here.
//! - A refusal changes nothing; room on the disk is reserved before any state changes (N15).
//! - *Sequenced* and *durable* are two numbers everywhere (N1): the log end moves at the append, the high watermark and
//!   every reply when the journal says durable.
//! - Coordinators decide, append, apply (house rule); replay is `apply` over the log (N6, N8).
//!
//! Deliberately not here: sockets, request versions, topic names, users.

#![forbid(unsafe_code)]

mod compaction;
mod coordinator;
mod inspection;
mod message;
mod ordered_sessions;
mod partition;
mod partitions;
mod recovery;
mod retention;
mod shard;
mod waiting;

pub use compaction::{CompactionJob, CompactionSettings, CompactorSettings};
pub use inspection::{Inspected, Inspection};
pub use message::{
    AppendOutcome, AppendRefusal, Deadline, EpochEnd, Isolation, LeaderEpochCheck, MarkerResult,
    MarkerTarget, OffsetLookup, OffsetQuery, Outbox, Outgoing, PartitionRole, PartitionSettings,
    ReadOutcome, ReadRequest, ReplyTo, ShardMessage, ShardReply, TransactionRequest, WaiterId,
};
pub use ordered_sessions::{Call, Calls, Speaker};
pub use retention::RetentionSettings;
pub use shard::{OpenTransaction, Owed, Shard, ShardSettings};
