//! The owner of partitions: takes messages, hands out replies.
//!
//! A message is handled whole before the next one. What it writes is appended at once; what it says waits in
//! [`Waiting`] for the journal. Nothing here waits for another shard: it sends a message and goes on.

mod append;
mod compact;
mod coordinators;
mod flush;
mod inspect;
mod log_start;
mod lookup;
mod power_cut;
mod retain;
mod watch;

use crate::compaction::CompactorSettings;
use crate::coordinator::Hosted;
use crate::message::{
    Outbox, Outgoing, PartitionSettings, ReplyTo, ShardMessage, ShardReply, TransactionRequest,
    Unread,
};
use crate::ordered_sessions::{Call, OrderedSessions, Speaker};
use crate::partition::{Bounds, Partition};
use crate::partitions::Partitions;
use crate::recovery;
use crate::waiting::{Held, Raise, Waiting};
use append::MarkerOrder;
use coordinators::{Occasion, OffsetsInTransaction};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use tally_groups as groups;
use tally_protocol::{CoordinatorEpoch, ErrorCode, Now, Offset, PartitionId, planted};
use tally_storage::{
    Completed, Journal, JournalState, SegmentJournal, StorageError, Ticket, fault_point,
};
use tally_transactions as transactions;
use tally_transactions::ProducerIdBlock;

pub use power_cut::Owed;
pub use watch::OpenTransaction;

/// What a shard is told at its start.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    /// Of the transaction coordinators.
    pub transactions: transactions::Settings,
    /// Of the groups.
    pub groups: groups::Settings,
    /// The epoch that markers carry; rises at every start (M-5).
    pub coordinator_epoch: CoordinatorEpoch,
    /// Seed of all hash maps.
    pub seed: u64,
    /// How long an idle producer is remembered, milliseconds (P-56).
    pub producer_id_expiration_ms: u64,
    /// How often that is checked, milliseconds.
    pub producer_id_expiration_check_ms: u64,
    /// How often old segments are looked for, milliseconds (LR-60).
    pub retention_check_ms: u64,
    /// How often it is looked which logs are to be synced because of flush.ms, milliseconds; without a limit each is at its
    /// time.
    pub flush_check_ms: u64,
    /// Of compaction.
    pub compactor: CompactorSettings,
}

/// The owner of some partitions.
#[derive(Debug)]
pub struct Shard {
    settings: ShardSettings,
    journal: SegmentJournal,
    partitions: Partitions,
    /// Partitions that are there and could not be opened: they answer 56 until the next start, the others serve.
    unopened: BTreeSet<PartitionId>,
    waiting: Waiting,
    producer_ids: ProducerIdBlock,
    deadlines: BTreeSet<(u64, PartitionId)>,
    expiry_check_ms: Option<u64>,
    retention: retain::Pass,
    compactor: compact::Compactor,
    flushes: flush::Flushes,
    ordered_sessions: OrderedSessions,
    topics: Arc<groups::Topics>,
    /// A power cut is being dealt with: a coordinator that is loaded again begins to fence again.
    fence: Option<transactions::Fence>,
}

impl Shard {
    /// A shard without partitions.
    #[must_use]
    pub fn new(settings: ShardSettings, journal: SegmentJournal) -> Shard {
        let ordered_sessions = OrderedSessions::new(settings.seed);
        Shard {
            settings,
            journal,
            partitions: Partitions::default(),
            unopened: BTreeSet::new(),
            waiting: Waiting::default(),
            producer_ids: ProducerIdBlock { next: 0, end: 0 },
            deadlines: BTreeSet::new(),
            expiry_check_ms: None,
            retention: retain::Pass::default(),
            compactor: compact::Compactor::default(),
            flushes: flush::Flushes::default(),
            ordered_sessions,
            topics: Arc::default(),
            fence: None,
        }
    }

    /// Opens a partition: recovery, replay. What had to be cut is left in the outbox. A partition that can't be opened is
    /// kept in mind: it is not unknown, it has a storage error (56).
    pub fn open(
        &mut self,
        now: Now,
        id: PartitionId,
        settings: PartitionSettings,
        outbox: &mut Outbox,
    ) -> Result<(), StorageError> {
        let opened = recovery::open(&mut self.journal, id, settings, &self.settings, now);
        let (partition, cut) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.journal.forget_partition(id);
                self.partitions.remove(&id);
                self.unopened.insert(id);
                return Err(error);
            }
        };
        self.unopened.remove(&id);
        outbox.cuts.extend(cut.map(|cut| (id, cut)));
        self.partitions.insert(id, partition);
        self.compactor.forget(id);
        // What the run before has left unsynced.
        self.schedule_flush(now, id);
        Ok(())
    }

    /// Once, after the last partition has been opened everywhere: what a crash may have swallowed (D-13).
    pub fn recovered(&mut self, now: Now, outbox: &mut Outbox) {
        self.recover_hosts(now);
        self.expiry_check_ms =
            Some(now.monotonic_ms + self.settings.producer_id_expiration_check_ms);
        self.schedule_first_retention(now);
        self.schedule_compaction(now, self.settings.compactor.backoff_ms.max(1));
        self.release(now, outbox);
    }

    fn recover_hosts(&mut self, now: Now) {
        for partition in self.partitions.values_mut() {
            if let Hosted::Groups(groups) = &mut partition.hosted {
                groups.note_topics(&self.topics);
            }
        }
        let hosts: Vec<PartitionId> = self
            .partitions
            .iter()
            .filter(|(_, partition)| !matches!(partition.hosted, Hosted::Nothing))
            .map(|(id, _)| id)
            .collect();
        for id in hosts {
            self.ask_hosted(now, id, Occasion::Recovered);
        }
    }

    /// The topics there are, for groups that members join later with newer ones; before [`Shard::recovered`].
    pub fn note_topics(&mut self, topics: Arc<groups::Topics>) {
        self.topics = topics;
    }

    /// How long an idle producer is remembered from now on, milliseconds.
    pub fn set_producer_id_expiration(&mut self, ms: u64) {
        self.settings.producer_id_expiration_ms = ms;
    }

    /// Takes a block of producer ids to hand out (I-22). What was left of the last one is skipped.
    pub fn supply_producer_ids(&mut self, ids: Range<i64>) {
        self.producer_ids = ProducerIdBlock {
            next: ids.start,
            end: ids.end,
        };
    }

    /// The next moment at which [`Shard::expire`] has something to do, milliseconds of the monotonic clock.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let first = self.deadlines.first().map(|(deadline, _)| *deadline);
        let upkeep = [
            self.retention.due_ms(),
            self.compactor.due_ms(),
            self.flushes.due_ms(),
        ];
        [first, self.expiry_check_ms]
            .into_iter()
            .chain(upkeep)
            .flatten()
            .min()
    }

    /// Does what is due: sessions, transaction timeouts, forgotten producers, old segments, compaction.
    pub fn expire(&mut self, now: Now, outbox: &mut Outbox) {
        let due: Vec<PartitionId> = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now.monotonic_ms)
            .map(|(_, id)| *id)
            .collect();
        for id in due {
            self.ask_hosted(now, id, Occasion::Expire);
        }
        if self
            .expiry_check_ms
            .is_some_and(|due_ms| due_ms <= now.monotonic_ms)
        {
            let expiration_ms = self.settings.producer_id_expiration_ms;
            let expired =
                |partition: &mut Partition| partition.producers.expire(now, expiration_ms);
            let producers: usize = self.partitions.values_mut().map(expired).sum();
            if producers > 0 {
                tracing::info!(producers, "I2110 producer.expired: forgotten");
            }
            self.expiry_check_ms =
                Some(now.monotonic_ms + self.settings.producer_id_expiration_check_ms);
        }
        self.flush_due(now);
        self.retain(now, outbox);
        self.compact(now, outbox);
        self.release(now, outbox);
    }

    /// Handles one message for `id`.
    pub fn handle(
        &mut self,
        now: Now,
        id: PartitionId,
        message: ShardMessage,
        outbox: &mut Outbox,
    ) {
        // D-6: whoever was answered by another shard after this sync must find here what was synced with it.
        let durable = self.journal.durable();
        if self.waiting.first().is_some_and(|first| first <= durable) {
            self.release(now, outbox);
        }
        match message {
            ShardMessage::InOrder {
                speaker,
                message,
                to,
            } => {
                if !self.is_in_order(id, &speaker, &message) {
                    self.reply(to, ShardReply::Overtaken);
                } else if let ShardMessage::Transaction { command, to } = *message {
                    let ending = TransactionRequest {
                        speaker: Some(speaker),
                        ..TransactionRequest::new(command, to)
                    };
                    self.transaction(now, id, ending);
                } else {
                    return self.handle(now, id, *message, outbox);
                }
            }
            ShardMessage::Append { batch, guard, to } => self.append(now, id, batch, guard, to),
            ShardMessage::BeginVerification {
                producer_id,
                producer_epoch,
                base_sequence,
                flow,
                to,
            } => {
                let verification = self.partition(id).map(|partition| {
                    partition.producers.begin_verification(
                        producer_id,
                        producer_epoch,
                        base_sequence,
                        flow,
                        now,
                    )
                });
                self.reply_in_place(to, ShardReply::Verification(verification));
            }
            ShardMessage::Read { request, to } => {
                let outcome = match self.partitions.get_mut(&id) {
                    Some(partition) => partition.read(&self.journal, &request),
                    None => Err(self.absent(id).into()),
                };
                self.reply_when_loaded(to, outcome, ShardReply::Read);
            }
            ShardMessage::FindOffset {
                query,
                isolation,
                current_leader_epoch,
                to,
            } => {
                let lookup = self.find_offset(id, query, isolation, current_leader_epoch);
                self.reply_when_loaded(to, lookup, ShardReply::Offset);
            }
            other => self.handle_coordination(now, id, other, outbox),
        }
        self.release(now, outbox);
    }

    /// The messages for coordinators, and theirs for partitions.
    fn handle_coordination(
        &mut self,
        now: Now,
        id: PartitionId,
        message: ShardMessage,
        outbox: &mut Outbox,
    ) {
        match message {
            ShardMessage::Transaction { command, to } => {
                self.transaction(now, id, TransactionRequest::new(command, to));
            }
            ShardMessage::Secure { upto } => self.secure(id, upto),
            ShardMessage::Secured(request) => {
                // Others may have come in between (D-8).
                let overtaken = |speaker| !self.ordered_sessions.admit(id, &speaker);
                if request.speaker.is_some_and(overtaken) {
                    self.reply(request.to, ShardReply::Overtaken);
                } else {
                    self.transaction(now, id, *request);
                }
            }
            ShardMessage::Group {
                command,
                size_bytes,
                to,
            } => self.group(now, id, command, size_bytes, to),
            ShardMessage::TransactionalOffsets {
                command,
                producer_id,
                producer_epoch,
                guard,
                size_bytes,
                to,
            } => {
                let commit = OffsetsInTransaction {
                    command,
                    producer_id,
                    producer_epoch,
                    guard,
                    size_bytes,
                };
                self.transactional_offsets(now, id, commit, to);
            }
            ShardMessage::AppendMarker {
                marker,
                coordinator,
                transactional_id,
                ending,
                name,
            } => {
                self.append_marker(
                    now,
                    id,
                    MarkerOrder {
                        marker,
                        coordinator,
                        transactional_id,
                        ending,
                        name,
                    },
                );
            }
            ShardMessage::Inspect { what, to } => self.inspect(now, id, what, to),
            ShardMessage::WriteMarker { marker, to } => self.write_marker(now, id, &marker, to),
            other => self.handle_rare(now, id, other, outbox),
        }
    }

    /// The messages that are not on a hot path.
    fn handle_rare(
        &mut self,
        now: Now,
        id: PartitionId,
        message: ShardMessage,
        outbox: &mut Outbox,
    ) {
        match message {
            ShardMessage::MarkersWritten {
                transactional_id,
                producer_id,
                producer_epoch,
                ending,
                results,
            } => {
                let command = transactions::Command::MarkersWritten {
                    transactional_id,
                    producer_id,
                    producer_epoch,
                    ending,
                    partitions: results,
                };
                self.ask_hosted(now, id, Occasion::Markers(command));
            }
            ShardMessage::TopicDeleted { topic, topic_id } => {
                self.ask_hosted(
                    now,
                    id,
                    Occasion::TopicDeleted(groups::Command::TopicDeleted { topic, topic_id }),
                );
            }
            ShardMessage::FindEpochEnd {
                epoch,
                current_leader_epoch,
                to,
            } => {
                let end = self.find_epoch_end(id, epoch, current_leader_epoch);
                self.reply_in_place(to, ShardReply::EpochEnd(end));
            }
            ShardMessage::DeleteRecords { before, to } => {
                self.delete_records(id, before, to);
            }
            ShardMessage::DescribeProducers { to } => self.describe_producers(id, to),
            other => self.handle_upkeep(now, id, other, outbox),
        }
    }

    /// The messages that nobody waits for an answer to: what a partition is, and what it may forget.
    fn handle_upkeep(
        &mut self,
        now: Now,
        id: PartitionId,
        message: ShardMessage,
        outbox: &mut Outbox,
    ) {
        match message {
            ShardMessage::DropVerification {
                producer_id,
                producer_epoch,
                guard,
            } => {
                if let Ok(partition) = self.partition(id) {
                    let producers = &mut partition.producers;
                    producers.drop_verification(producer_id, producer_epoch, guard);
                }
            }
            ShardMessage::CancelWaiter(waiter) => {
                if let Ok(partition) = self.partition(id) {
                    partition.cancel_waiter(waiter);
                }
            }
            ShardMessage::Open { settings } => {
                if let Err(error) = self.open(now, id, settings, outbox) {
                    tracing::error!(partition = %id, %error, "partition not opened");
                }
            }
            ShardMessage::Configure {
                log,
                retention,
                compaction,
            } => {
                if let Ok(partition) = self.partition(id) {
                    partition.settings.log = log;
                    partition.settings.retention = retention;
                    partition.settings.compaction = compaction;
                    self.journal.set_options(id, log);
                    self.reschedule_flush(now, id);
                }
            }
            ShardMessage::Delete => self.delete(id, outbox),
            ShardMessage::Compacted(job) => self.compacted(now, job, outbox),
            ShardMessage::InOrder { .. }
            | ShardMessage::Append { .. }
            | ShardMessage::BeginVerification { .. }
            | ShardMessage::Read { .. }
            | ShardMessage::FindOffset { .. }
            | ShardMessage::Transaction { .. }
            | ShardMessage::Secure { .. }
            | ShardMessage::Secured { .. }
            | ShardMessage::Group { .. }
            | ShardMessage::TransactionalOffsets { .. }
            | ShardMessage::AppendMarker { .. }
            | ShardMessage::Inspect { .. }
            | ShardMessage::WriteMarker { .. }
            | ShardMessage::MarkersWritten { .. }
            | ShardMessage::TopicDeleted { .. }
            | ShardMessage::FindEpochEnd { .. }
            | ShardMessage::DeleteRecords { .. }
            | ShardMessage::DescribeProducers { .. } => unreachable!("handled before"),
        }
    }

    /// D-8. The coordinator's word on a batch or an offset is not a request of its own kind: nothing is noted.
    fn is_in_order(&mut self, id: PartitionId, speaker: &Speaker, message: &ShardMessage) -> bool {
        match (speaker.call, message) {
            (Call::Produce | Call::CommitOffsets, ShardMessage::Transaction { .. }) => {
                !self.ordered_sessions.is_left(id, speaker)
            }
            _ => self.ordered_sessions.admit(id, speaker),
        }
    }

    /// Writes what a quick next start needs, syncs it and closes the journal.
    pub fn shutdown(&mut self) -> Result<(), StorageError> {
        let completed = self.complete(&|| ())?;
        Completed::sync_all(vec![completed])
    }

    /// The same without the sync, which is for all shards together; `done` is called after each step.
    pub fn complete(&mut self, done: &dyn Fn()) -> Result<Completed, StorageError> {
        self.compactor.stop(None);
        for partition in self.partitions.values() {
            partition
                .write_snapshot(&mut self.journal, partition.log_end)
                .ok();
            done();
        }
        self.journal.complete(done)
    }

    fn partition(&mut self, id: PartitionId) -> Result<&mut Partition, ErrorCode> {
        let absent = self.absent(id);
        self.partitions.get_mut(&id).ok_or(absent)
    }

    /// The code for a partition that is not open here.
    fn absent(&self, id: PartitionId) -> ErrorCode {
        if self.unopened.contains(&id) {
            ErrorCode::KafkaStorageError
        } else {
            ErrorCode::UnknownTopicOrPartition
        }
    }

    /// A reply waits for everything it could have seen that the mode keeps.
    fn reply(&mut self, to: ReplyTo, reply: ShardReply) {
        let ticket = self.journal.barrier();
        self.hold(Some(ticket), Held::Reply(to, reply));
    }

    /// A reply that promises what is in place, or shows nothing that is not synced where the mode syncs.
    fn reply_in_place(&mut self, to: ReplyTo, reply: ShardReply) {
        self.waiting.hold_in_place(Held::Reply(to, reply));
    }

    /// Holds `held` until `ticket` is durable.
    fn hold(&mut self, ticket: Option<Ticket>, held: Held) {
        let waits = match held {
            Held::Reply(_, ShardReply::Transaction(_)) if planted::is("e7 early") => false,
            Held::Reply(..) => !planted::is("r1 early"),
            Held::Message(_) | Held::HighWatermark(..) | Held::Synced(..) | Held::LogStart(_) => {
                true
            }
        };
        match ticket.filter(|_| waits) {
            Some(ticket) => self.waiting.hold(ticket, self.journal.durable(), held),
            None => self.waiting.hold_in_place(held),
        }
    }

    /// A message leaves when what its receiver does can't survive without what was appended before it (E-5, N13).
    fn send(&mut self, message: Outgoing) {
        let ticket = (!self.journal.prefix_ordered()).then(|| self.journal.barrier());
        self.hold(ticket, Held::Message(message));
    }

    /// In `commit`, where only what must be synced is: has everything in `id` synced, and moves its readers' bounds then. In
    /// the other modes an append has done all that there is to do.
    fn hand_over(&mut self, id: PartitionId) {
        let Some(partition) = self.partitions.get(&id) else {
            return;
        };
        if partition.bounds == Bounds::Appends {
            return;
        }
        let end = partition.log_end;
        let ticket = self.journal.hand_over(id, None);
        self.hold(Some(ticket), Held::Synced(id, end));
    }

    /// The same for what lies below `upto`, before something that must not survive without it (E-7, R-18).
    fn secure(&mut self, id: PartitionId, upto: Option<Offset>) {
        match upto {
            Some(_) if planted::is("r18") => {}
            None => self.hand_over(id),
            Some(_) if self.partitions.contains_key(&id) => {
                // Nobody waits for it: what is handed over after it does.
                self.journal.hand_over(id, upto);
            }
            Some(_) => {}
        }
    }

    /// The first ticket that something here waits for, if its sync is not done.
    #[must_use]
    pub fn awaits(&self) -> Option<Ticket> {
        self.waiting.first()
    }

    /// Lets go of what has been synced meanwhile.
    pub fn synced(&mut self, now: Now, outbox: &mut Outbox) {
        self.release(now, outbox);
    }

    /// A reply, or what has to be loaded before there can be one.
    fn reply_when_loaded<T>(
        &mut self,
        to: ReplyTo,
        outcome: Result<T, Unread>,
        reply: impl FnOnce(Result<T, ErrorCode>) -> ShardReply,
    ) {
        let reply = match outcome {
            Ok(found) => reply(Ok(found)),
            Err(Unread::Refused(code)) => reply(Err(code)),
            Err(Unread::Cold(cold)) => ShardReply::Cold(cold),
        };
        self.reply_in_place(to, reply);
    }

    /// Lets go of what has become durable.
    fn release(&mut self, now: Now, outbox: &mut Outbox) {
        if let JournalState::Failed(reason) = self.journal.state() {
            return self.reload(now, &reason, outbox);
        }
        let durable = self.journal.durable();
        while let Some(held) = self.waiting.release(durable) {
            match held {
                Held::Reply(to, reply) => {
                    fault_point(reply.name());
                    outbox.replies.push((to, reply));
                }
                Held::Message(message) => outbox.messages.push(message),
                Held::HighWatermark(id, offset) => {
                    if let Some(partition) = self.partitions.get_mut(&id) {
                        let log_start = self.journal.log_start(id);
                        outbox.wakes.extend(partition.advance(log_start, offset));
                    }
                }
                Held::Synced(id, offset) => {
                    if let Some(partition) = self.partitions.get_mut(&id) {
                        let log_start = self.journal.log_start(id);
                        outbox.wakes.extend(partition.synced(log_start, offset));
                    }
                }
                Held::LogStart(raise) => self.log_start_may_move(raise, outbox),
            }
        }
    }

    /// A write has failed: what is in memory may be more than what is on the disk. All of it is dropped and read again;
    /// there is no undoing in parts (N9, R4).
    fn reload(&mut self, now: Now, reason: &str, outbox: &mut Outbox) {
        tracing::error!(reason, "journal failed, the shard is loaded anew");
        for held in self.waiting.drain() {
            match held {
                Held::Reply(to, reply) if planted::is("n9") => outbox.replies.push((to, reply)),
                Held::Reply(to, reply) => outbox.replies.push((to, reply.failed())),
                Held::LogStart(Raise { to, wanted, .. }) => {
                    let failed = ShardReply::Deleted(Ok(wanted)).failed();
                    outbox.replies.extend(to.map(|to| (to, failed)));
                }
                Held::Message(Outgoing::ToPartition(id, message)) => {
                    outbox.messages.extend(message.failed_markers(id));
                }
                // A coordinator that is loaded again asks for its markers again; ids are asked for when they are needed.
                Held::Message(
                    Outgoing::Markers { .. }
                    | Outgoing::Secure { .. }
                    | Outgoing::ProducerIds
                    | Outgoing::Load(_),
                )
                | Held::HighWatermark(..)
                | Held::Synced(..) => {}
            }
        }
        outbox.reloaded = true;
        // No guard that was given before is one of the life that begins (V-5).
        self.settings.seed = self.settings.seed.wrapping_add(1);
        self.deadlines.clear();
        self.flushes = flush::Flushes::default();
        self.compactor.stop(None);
        self.journal.start_over();
        for (id, mut partition) in self.partitions.take() {
            outbox.wakes.extend(partition.take_waiters());
            if let Err(error) = self.open(now, id, partition.settings, outbox) {
                tracing::error!(partition = %id, %error, "partition not opened again");
            }
        }
        if let Some(fence) = self.fence {
            self.power_was_cut(fence);
        }
        self.recover_hosts(now);
        // What the coordinators want done now waits for the next message, by when the journal is known to work again.
    }

    fn delete(&mut self, id: PartitionId, outbox: &mut Outbox) {
        // One that could not be opened has files too.
        if let Some(mut partition) = self.partitions.remove(&id) {
            outbox.wakes.extend(partition.take_waiters());
        }
        self.unopened.remove(&id);
        self.deadlines.retain(|(_, other)| *other != id);
        self.flushes.forget(id);
        self.compactor.stop(Some(id));
        self.compactor.forget(id);
        if let Err(error) = self.journal.delete_partition(id) {
            tracing::error!(partition = %id, %error, "files of a deleted partition remain");
        }
    }
}
