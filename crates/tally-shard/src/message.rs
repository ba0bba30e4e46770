//! What goes into a shard and what comes out of it: values only, so that a lock, a queue or a simulation can carry them.

use crate::compaction::{CompactionJob, CompactionSettings};
use crate::inspection::{Inspected, Inspection};
use crate::ordered_sessions::Speaker;
use crate::retention::RetentionSettings;
use bytes::BytesMut;
use std::sync::Arc;
use tally_groups as groups;
use tally_producer_state::{Flow, Guard, Marker, ProducerDescription, Verification};
use tally_protocol::{
    ErrorCode, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, TopicId,
};
use tally_storage::{Cold, Cut, LogOptions, Slice};
use tally_transactions as transactions;
use tally_transactions::{MarkerSet, TopicPartition};

/// Who asked: a token of the caller's, given back with the reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReplyTo(pub u64);

/// A fetch that waits for a partition to move: a token of the caller's, given back when it does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WaiterId(pub u64);

/// Milliseconds of the monotonic clock.
pub type Deadline = u64;

/// What a reader may see (F-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset, with the aborted transactions named.
    ReadCommitted,
}

/// What a partition hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartitionRole {
    /// Clients' records.
    Data,
    /// A partition of `__transaction_state` with its transaction coordinator.
    Transactions,
    /// A partition of `__consumer_offsets` with its groups.
    Groups,
}

/// How a partition is opened.
#[derive(Clone, Copy, Debug)]
pub struct PartitionSettings {
    /// What it hosts.
    pub role: PartitionRole,
    /// The epoch of its leadership for as long as this broker runs (N5).
    pub leader_epoch: LeaderEpoch,
    /// Segment sizes and the like.
    pub log: LogOptions,
    /// Which records go after a while.
    pub retention: RetentionSettings,
    /// Which older records of a key go.
    pub compaction: CompactionSettings,
}

/// The leader epoch a request believes in; [`LeaderEpoch::NONE`] asks for no check (LR-82).
pub type LeaderEpochCheck = LeaderEpoch;

/// One partition of a fetch.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// First offset wanted.
    pub from: Offset,
    /// Most bytes to return; the first batch may be larger when `first_whole`.
    pub max_bytes: usize,
    /// Whether the first batch is returned whole whatever its size (KIP-74).
    pub first_whole: bool,
    /// What the reader may see.
    pub isolation: Isolation,
    /// The reader's idea of the leader epoch.
    pub current_leader_epoch: LeaderEpochCheck,
    /// Epoch of the last record that the reader has, to detect a log that was cut (LR-84).
    pub last_fetched_epoch: LeaderEpoch,
    /// Registered when fewer than `wanted_bytes` were found: woken once, when more may be readable.
    pub waiter: Option<WaiterId>,
    /// What makes the reader content.
    pub wanted_bytes: usize,
}

/// What a read found.
#[derive(Debug)]
pub struct ReadOutcome {
    /// First offset that read_uncommitted does not see.
    pub high_watermark: Offset,
    /// First offset that read_committed does not see.
    pub last_stable_offset: Offset,
    /// First offset of the log.
    pub log_start: Offset,
    /// Whole batches, in place.
    pub slices: Vec<Slice>,
    /// Aborted transactions in what was returned, by first offset; empty for read_uncommitted.
    pub aborted: Vec<(ProducerId, Offset)>,
    /// Where the reader's log leaves ours (LR-84).
    pub diverging: Option<EpochEnd>,
}

/// The end of a leader epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The epoch, or none.
    pub epoch: LeaderEpoch,
    /// First offset after it, or none.
    pub end: Offset,
}

/// What ListOffsets asks of a partition (log-and-fetch.md section 8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffsetQuery {
    /// The end a reader of this isolation sees.
    Latest,
    /// The log start.
    Earliest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record at or after this time, milliseconds since 1970.
    AtOrAfter(i64),
}

/// What ListOffsets found.
#[derive(Debug)]
pub enum OffsetLookup {
    /// An offset with its leader epoch; no timestamp.
    At {
        /// The offset.
        offset: Offset,
        /// Epoch of the leader there.
        leader_epoch: LeaderEpoch,
    },
    /// The record is in this batch: opened by the caller, outside the shard, as it may have to be decompressed.
    InBatch {
        /// One whole batch.
        batch: Slice,
        /// The next one to look at, if the record of `batch` turns out to lie below the log start.
        otherwise: Option<Slice>,
        /// Records below this offset do not count.
        log_start: Offset,
        /// Records at or above this offset do not count (LR-90).
        upper: Offset,
    },
    /// There is none.
    Nowhere,
}

/// Where an accepted batch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendOutcome {
    /// Offset of the first record: of the original for a duplicate (P-36).
    pub base_offset: Offset,
    /// The remembered batch's largest timestamp when this was a duplicate (P-32), else -1.
    pub duplicate_timestamp_ms: i64,
    /// First offset of the log (P-30).
    pub log_start: Offset,
}

/// Why a batch was not appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendRefusal {
    /// The code.
    pub code: ErrorCode,
    /// First offset of the log, or none (P-29).
    pub log_start: Offset,
}

/// A partition that gets a marker, under both of its names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarkerTarget {
    /// Where to append.
    pub partition: PartitionId,
    /// What the coordinator calls it.
    pub name: TopicPartition,
}

/// How one marker went.
pub type MarkerResult = (TopicPartition, ErrorCode);

/// A client's command for a transaction coordinator, on its way.
#[derive(Debug)]
pub struct TransactionRequest {
    /// The command.
    pub command: transactions::Command,
    /// Whom to answer.
    pub to: ReplyTo,
    /// Who must not have been overtaken (D-8).
    pub speaker: Option<Speaker>,
    /// The partitions whose records so far survive whatever is appended from now on.
    pub secured: Vec<TopicPartition>,
}

impl TransactionRequest {
    pub(crate) fn new(command: transactions::Command, to: ReplyTo) -> TransactionRequest {
        TransactionRequest {
            command,
            to,
            speaker: None,
            secured: Vec::new(),
        }
    }
}

/// Why something was not read or looked up.
#[derive(Debug)]
pub(crate) enum Unread {
    /// For the client.
    Refused(ErrorCode),
    /// Not yet.
    Cold(Cold),
}

impl From<ErrorCode> for Unread {
    fn from(code: ErrorCode) -> Unread {
        Unread::Refused(code)
    }
}

/// What a shard can be asked to do.
#[derive(Debug)]
pub enum ShardMessage {
    /// Handles `message`, unless its producer has spoken on a newer connection (D-8).
    InOrder {
        /// Who speaks.
        speaker: Speaker,
        /// What it says.
        message: Box<ShardMessage>,
        /// Who asked: the same as in `message`.
        to: ReplyTo,
    },
    /// Open (recover, replay) a partition.
    Open {
        /// Its settings.
        settings: PartitionSettings,
    },
    /// Change how the log of an open partition is kept.
    Configure {
        /// The new options.
        log: LogOptions,
        /// Which records go after a while.
        retention: RetentionSettings,
        /// Which older records of a key go.
        compaction: CompactionSettings,
    },
    /// A compaction job that has run once more.
    Compacted(Box<CompactionJob>),
    /// Forget a partition and remove its files.
    Delete,
    /// Append a checked client batch: exactly one whole batch, its stamps unset.
    Append {
        /// The batch.
        batch: BytesMut,
        /// The verification that precedes a transactional batch (V-5).
        guard: Option<Guard>,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// Ask whether a transactional batch needs its coordinator's word first (V-1).
    BeginVerification {
        /// The producer.
        producer_id: ProducerId,
        /// Its epoch.
        producer_epoch: ProducerEpoch,
        /// Sequence of the batch, or none for offsets.
        base_sequence: Sequence,
        /// Which protocol flow.
        flow: Flow,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// The coordinator knows no such producer, or a newer one: forget what [`ShardMessage::BeginVerification`] noted.
    DropVerification {
        /// The producer.
        producer_id: ProducerId,
        /// Its epoch.
        producer_epoch: ProducerEpoch,
        /// Which verification.
        guard: Guard,
    },
    /// Read records.
    Read {
        /// What.
        request: ReadRequest,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// A fetch has gone: forget its registration.
    CancelWaiter(WaiterId),
    /// Look up an offset.
    FindOffset {
        /// What.
        query: OffsetQuery,
        /// Which end counts.
        isolation: Isolation,
        /// The reader's idea of the leader epoch.
        current_leader_epoch: LeaderEpochCheck,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// Find the end of a leader epoch (LR-83).
    FindEpochEnd {
        /// The epoch asked for.
        epoch: LeaderEpoch,
        /// The reader's idea of the leader epoch.
        current_leader_epoch: LeaderEpochCheck,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// Raise the log start (DeleteRecords); `None` means to the high watermark.
    DeleteRecords {
        /// The new first offset.
        before: Option<Offset>,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// List the partition's producers (L-3).
    DescribeProducers {
        /// Whom to answer.
        to: ReplyTo,
    },
    /// Look at state without changing it.
    Inspect {
        /// At what.
        what: Inspection,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// Append a marker for somebody who is not a coordinator of this broker (M-10).
    WriteMarker {
        /// The marker.
        marker: Marker,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// A command for the transaction coordinator hosted here.
    Transaction {
        /// The command.
        command: transactions::Command,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// Have what lies below `upto`, or everything, survive whatever is appended after this (E-7, R-18). Only asked in
    /// `commit`.
    Secure {
        /// The end, or everything.
        upto: Option<Offset>,
    },
    /// An EndTxn whose transaction has been secured (E-7).
    Secured(Box<TransactionRequest>),
    /// A command for the groups hosted here.
    Group {
        /// The command.
        command: groups::Command,
        /// Bytes that its records may take at most, as the request's size bounds them.
        size_bytes: usize,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// Offsets committed inside a transaction (section 6.1).
    TransactionalOffsets {
        /// The commit.
        command: groups::Command,
        /// Its producer.
        producer_id: ProducerId,
        /// The producer's epoch.
        producer_epoch: ProducerEpoch,
        /// The verification that preceded it (V-10).
        guard: Option<Guard>,
        /// Bytes that its records may take at most.
        size_bytes: usize,
        /// Whom to answer.
        to: ReplyTo,
    },
    /// End a transaction on this partition; the result goes back to the coordinator's partition.
    AppendMarker {
        /// The marker.
        marker: Marker,
        /// The coordinator's partition.
        coordinator: PartitionId,
        /// Whose transaction.
        transactional_id: Arc<str>,
        /// Which end of it; goes back with the result.
        ending: u64,
        /// What the coordinator calls this partition.
        name: TopicPartition,
    },
    /// Markers that are durable, or were refused: for the coordinator hosted here.
    MarkersWritten {
        /// Whose transaction.
        transactional_id: Arc<str>,
        /// Producer of the markers.
        producer_id: ProducerId,
        /// Epoch of the markers.
        producer_epoch: ProducerEpoch,
        /// Which end of the transaction.
        ending: u64,
        /// One result a partition.
        results: Vec<MarkerResult>,
    },
    /// A topic has been deleted: its committed offsets go (GR-93).
    TopicDeleted {
        /// Its name.
        topic: Arc<str>,
        /// Its id.
        topic_id: TopicId,
    },
}

/// What a shard answers. The variant follows from the message.
#[derive(Debug)]
pub enum ShardReply {
    /// To `Append`.
    Append(Result<AppendOutcome, AppendRefusal>),
    /// To `BeginVerification`.
    Verification(Result<Verification, ErrorCode>),
    /// To `Read` and `FindOffset`: what it needs is on the disk only. To be loaded where waiting is allowed, then asked
    /// again.
    Cold(Cold),
    /// To `Read`.
    Read(Result<ReadOutcome, ErrorCode>),
    /// To `FindOffset`.
    Offset(Result<OffsetLookup, ErrorCode>),
    /// To `FindEpochEnd`.
    EpochEnd(Result<EpochEnd, ErrorCode>),
    /// To `DeleteRecords`: the log start now.
    Deleted(Result<Offset, ErrorCode>),
    /// To `DescribeProducers`.
    Producers(Result<Vec<ProducerDescription>, ErrorCode>),
    /// To `Inspect`.
    Inspected(Result<Inspected, ErrorCode>),
    /// To `WriteMarker`.
    Marker(Result<(), ErrorCode>),
    /// To `Transaction`.
    Transaction(Result<transactions::Response, ErrorCode>),
    /// To `Group` and `TransactionalOffsets`.
    Group(Result<groups::Response, ErrorCode>),
    /// To `InOrder`: the producer has spoken on a newer connection since. Nothing was done, and nothing is to be answered:
    /// the connection is closed (D-8).
    Overtaken,
}

impl ShardMessage {
    /// The answer to markers that were not kept: the coordinator on `id`, perhaps of another shard, would wait for it for
    /// ever (N9, D-7). `None` for any other message.
    pub(crate) fn failed_markers(mut self, id: PartitionId) -> Option<Outgoing> {
        let ShardMessage::MarkersWritten { results, .. } = &mut self else {
            return None;
        };
        for (_, code) in results {
            *code = ErrorCode::KafkaStorageError;
        }
        Some(Outgoing::ToPartition(id, self))
    }
}

impl ShardReply {
    /// What tests call the moment at which it leaves (exactly-once.md 8.4).
    pub(crate) fn name(&self) -> &'static str {
        match self {
            ShardReply::Append(_) => "reply.append",
            ShardReply::Transaction(_) => "reply.transaction",
            ShardReply::Group(_) => "reply.group",
            _ => "reply.other",
        }
    }

    /// The same reply, had the journal failed before it could leave (N9): nothing is said of what was not kept.
    pub(crate) fn failed(self) -> ShardReply {
        match self {
            ShardReply::Append(_) => ShardReply::Append(Err(AppendRefusal {
                code: ErrorCode::KafkaStorageError,
                log_start: Offset::NONE,
            })),
            ShardReply::Verification(_) => {
                ShardReply::Verification(Err(ErrorCode::NotLeaderOrFollower))
            }
            ShardReply::Cold(cold) => ShardReply::Cold(cold),
            ShardReply::Read(_) => ShardReply::Read(Err(ErrorCode::NotLeaderOrFollower)),
            ShardReply::Offset(_) => ShardReply::Offset(Err(ErrorCode::NotLeaderOrFollower)),
            ShardReply::EpochEnd(_) => ShardReply::EpochEnd(Err(ErrorCode::NotLeaderOrFollower)),
            ShardReply::Deleted(_) => ShardReply::Deleted(Err(ErrorCode::KafkaStorageError)),
            ShardReply::Producers(_) => ShardReply::Producers(Err(ErrorCode::NotLeaderOrFollower)),
            ShardReply::Inspected(_) => ShardReply::Inspected(Err(ErrorCode::NotCoordinator)),
            ShardReply::Marker(_) => ShardReply::Marker(Err(ErrorCode::KafkaStorageError)),
            ShardReply::Transaction(_) => ShardReply::Transaction(Err(ErrorCode::NotCoordinator)),
            ShardReply::Group(_) => ShardReply::Group(Err(ErrorCode::NotCoordinator)),
            ShardReply::Overtaken => ShardReply::Overtaken,
        }
    }
}

/// A message that leaves a shard for another one.
#[derive(Debug)]
pub enum Outgoing {
    /// Markers of a decided transaction; the carrier finds the partitions behind the names (N8).
    Markers {
        /// The coordinator's partition.
        coordinator: PartitionId,
        /// What to write where.
        set: MarkerSet,
    },
    /// A commit that has to wait until its data can survive it (E-7): [`ShardMessage::Secure`] for each of the partitions,
    /// then [`ShardMessage::Secured`] for the coordinator.
    Secure {
        /// The coordinator's partition.
        coordinator: PartitionId,
        /// The commit, to be given back; [`TransactionRequest::secured`] says where, partitions that are gone are left out
        /// (E-8).
        request: Box<TransactionRequest>,
    },
    /// A message for the owner of a partition.
    ToPartition(PartitionId, ShardMessage),
    /// This shard is running out of producer ids: give it a block.
    ProducerIds,
    /// Something that will be looked at soon is to be loaded, away from the shard. Nobody is told when it is.
    Load(Cold),
}

/// What a shard wants done after it has handled messages.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Replies that may leave.
    pub replies: Vec<(ReplyTo, ShardReply)>,
    /// Messages for other owners.
    pub messages: Vec<Outgoing>,
    /// Fetches that should look again.
    pub wakes: Vec<WaiterId>,
    /// Compaction to be run where it holds nobody up; each comes back as [`ShardMessage::Compacted`].
    pub jobs: Vec<Box<CompactionJob>>,
    /// What recovery had to cut, to be logged.
    pub cuts: Vec<(PartitionId, Cut)>,
    /// The shard has been loaded anew: whoever waits for a reply that is not here waits in vain (N9).
    pub reloaded: bool,
}

impl Outbox {
    /// Whether there is nothing to carry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
            && self.messages.is_empty()
            && self.wakes.is_empty()
            && self.cuts.is_empty()
            && self.jobs.is_empty()
            && !self.reloaded
    }
}
