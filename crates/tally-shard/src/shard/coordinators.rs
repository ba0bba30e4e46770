//! Commands for the coordinators hosted here: room is reserved, the coordinator decides, its records are appended as one
//! batch and applied, its effects leave when they are durable (N8, N15).

use super::Shard;
use crate::coordinator::{self, Hosted};
use crate::message::{Outgoing, PartitionSettings, ReplyTo, ShardReply, TransactionRequest};
use crate::partition::{Bounds, Partition};
use crate::waiting::Held;
use bytes::BytesMut;
use std::collections::BTreeSet;
use tally_groups as groups;
use tally_producer_state::{Guard, Verdict};
use tally_protocol::ids::to_usize;
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::records::transaction_log::{TransactionRecord, TransactionState};
use tally_protocol::{
    BatchHeader, ErrorCode, LeaderEpoch, Now, Offset, PartitionId, ProducerEpoch, ProducerId,
    Sequence, batch,
};
use tally_storage::{Durability, Journal, fault_around};
use tally_transactions as transactions;

/// Room reserved before a coordinator decides, so that a full disk is a refusal before any state has changed (N15):
/// more than the records of any one of its own decisions (a transaction's largest record holds 10,000 partitions).
const DECISION_BYTES: usize = 512 * 1024;
/// How long a coordinator whose records were refused is left alone.
const REFUSED_AGAIN_MS: u64 = 1000;
/// Below this many producer ids a shard asks for more.
const PRODUCER_IDS_LOW: i64 = 100;

/// A commit of offsets inside a transaction.
pub(super) struct OffsetsInTransaction {
    pub(super) command: groups::Command,
    pub(super) producer_id: ProducerId,
    pub(super) producer_epoch: ProducerEpoch,
    pub(super) guard: Option<Guard>,
    pub(super) size_bytes: usize,
}

/// Why a coordinator is asked without a client.
pub(super) enum Occasion {
    Recovered,
    Expire,
    Markers(transactions::Command),
    TopicDeleted(groups::Command),
}

impl Shard {
    /// A client's command for the transaction coordinator on `id`.
    pub(super) fn transaction(&mut self, now: Now, id: PartitionId, request: TransactionRequest) {
        let to = request.to;
        let Some(Partition {
            hosted: Hosted::Transactions(core),
            settings,
            ..
        }) = self.partitions.get_mut(&id)
        else {
            return self.reply(to, ShardReply::Transaction(Err(ErrorCode::NotCoordinator)));
        };
        if self.journal.durability() == Durability::Commit {
            let partitions = core.to_commit(&request.command);
            // Again if some have joined meanwhile; whoever sends EndTxn has joined them before.
            if partitions
                .iter()
                .any(|name| request.secured.binary_search(name).is_err())
            {
                let request = TransactionRequest {
                    secured: partitions,
                    ..request
                };
                return self.send(Outgoing::Secure {
                    coordinator: id,
                    request: Box::new(request),
                });
            }
        }
        if self.journal.reserve(id, decision_bytes(settings)).is_err() {
            return self.reply(to, ShardReply::Transaction(Err(ErrorCode::NotCoordinator)));
        }
        let decision = core.decide(
            now,
            request.command,
            transactions::ReplyTo(to.0),
            &mut self.producer_ids,
        );
        self.commit_transaction(now, id, decision);
    }

    /// A client's command for the groups on `id`.
    pub(super) fn group(
        &mut self,
        now: Now,
        id: PartitionId,
        command: groups::Command,
        size_bytes: usize,
        to: ReplyTo,
    ) {
        let Some(Partition {
            hosted: Hosted::Groups(core),
            settings,
            ..
        }) = self.partitions.get_mut(&id)
        else {
            return self.reply(to, ShardReply::Group(Err(ErrorCode::NotCoordinator)));
        };
        // GR-10: a full disk is NOT_COORDINATOR. A command that writes nothing needs no room, so reads go on.
        // Nor does nearly every heartbeat of the `consumer` protocol, which is known when it is decided: members that only
        // say that they live must not be taken for gone because the disk is full.
        let is_heartbeat = matches!(command, groups::Command::ConsumerHeartbeat(_));
        let bytes = decision_bytes(settings).saturating_add(size_bytes);
        let has_room = !command.may_write() || self.journal.reserve(id, bytes).is_ok();
        if !has_room && !is_heartbeat {
            return self.reply(to, ShardReply::Group(Err(ErrorCode::NotCoordinator)));
        }
        let decision = core.decide(now, command, groups::ReplyTo(to.0));
        if !has_room && !decision.records.is_empty() {
            return self.refuse_group(now, id, decision, ErrorCode::NotCoordinator);
        }
        self.commit_group(now, id, decision, None);
    }

    /// Offsets inside a transaction: one transactional batch without a sequence (O-2 to O-6, V-10).
    pub(super) fn transactional_offsets(
        &mut self,
        now: Now,
        id: PartitionId,
        commit: OffsetsInTransaction,
        to: ReplyTo,
    ) {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return self.reply(to, ShardReply::Group(Err(ErrorCode::NotCoordinator)));
        };
        let header = coordinator_header(commit.producer_id, commit.producer_epoch);
        if let Verdict::Refuse(refusal) = partition.producers.check(&header, commit.guard) {
            return self.reply(to, ShardReply::Group(Err(refusal.code())));
        }
        let Hosted::Groups(core) = &mut partition.hosted else {
            return self.reply(to, ShardReply::Group(Err(ErrorCode::NotCoordinator)));
        };
        if self
            .journal
            .reserve(id, decision_bytes(&partition.settings) + commit.size_bytes)
            .is_err()
        {
            return self.reply(to, ShardReply::Group(Err(ErrorCode::NotCoordinator)));
        }
        let decision = core.decide(now, commit.command, groups::ReplyTo(to.0));
        self.commit_group(
            now,
            id,
            decision,
            Some((commit.producer_id, commit.producer_epoch)),
        );
    }

    /// Asks the coordinator on `id` what no client waits for.
    pub(super) fn ask_hosted(&mut self, now: Now, id: PartitionId, occasion: Occasion) {
        // Room for a decision that will be empty would make files for every partition of the internal topics, and a
        // partition without data has none: recovery writes nothing, and what has no records has none to forget.
        let is_empty = self
            .partitions
            .get(&id)
            .is_some_and(|partition| partition.log_end == Offset::ZERO);
        let writes_nothing = match occasion {
            Occasion::Recovered => true,
            Occasion::TopicDeleted(_) => is_empty,
            Occasion::Expire | Occasion::Markers(_) => false,
        };
        // Without room the coordinator is not asked: it is asked again at its next deadline, or by the next marker.
        let Some(partition) = self.partitions.get_mut(&id) else {
            return;
        };
        let bytes = decision_bytes(&partition.settings);
        let has_room = writes_nothing || self.journal.reserve(id, bytes).is_ok();
        if !has_room {
            tracing::warn!(partition = %id, "no room on the disk for the coordinator's log");
            self.deadlines.retain(|(_, other)| *other != id);
            self.deadlines
                .insert((now.monotonic_ms + REFUSED_AGAIN_MS, id));
            // It hears of written markers all the same, or it would wait for them for ever (D-7). What it decides is
            // dropped here and decided again by its timer (S-2).
            if let (Hosted::Transactions(core), Occasion::Markers(command)) =
                (&mut partition.hosted, occasion)
            {
                let to = transactions::ReplyTo(0);
                core.decide(now, command, to, &mut self.producer_ids);
            }
            return;
        }
        match (&mut partition.hosted, occasion) {
            (Hosted::Transactions(core), Occasion::Recovered) => {
                let decision = core.recovered(now);
                self.commit_transaction(now, id, decision);
            }
            (Hosted::Transactions(core), Occasion::Expire) => {
                let decision = core.expire(now, &mut self.producer_ids);
                self.commit_transaction(now, id, decision);
            }
            (Hosted::Transactions(core), Occasion::Markers(command)) => {
                let decision = core.decide(
                    now,
                    command,
                    transactions::ReplyTo(0),
                    &mut self.producer_ids,
                );
                self.commit_transaction(now, id, decision);
            }
            (Hosted::Groups(core), Occasion::Recovered) => {
                let decision = core.recovered(now);
                self.commit_group(now, id, decision, None);
            }
            (Hosted::Groups(core), Occasion::Expire) => {
                let decision = core.expire(now);
                self.commit_group(now, id, decision, None);
            }
            (Hosted::Groups(core), Occasion::TopicDeleted(command)) => {
                let decision = core.decide(now, command, groups::ReplyTo(0));
                self.commit_group(now, id, decision, None);
            }
            (Hosted::Nothing, _)
            | (Hosted::Transactions(_), Occasion::TopicDeleted(_))
            | (Hosted::Groups(_), Occasion::Markers(_)) => {}
        }
    }

    /// Appends and applies a decision of the transaction coordinator; its effects leave when all of it is durable.
    pub(super) fn commit_transaction(
        &mut self,
        now: Now,
        id: PartitionId,
        decision: transactions::Decision,
    ) {
        let is_synced = transactions_are_synced(&decision);
        if !decision.records.is_empty() {
            let batch = coordinator::transaction_batch(&decision.records, now);
            let name = coordinator::write_name(&decision.records);
            let base_offset = match fault_around(name, || self.append_decision(now, id, batch)) {
                Ok(base_offset) => base_offset,
                Err(code) => return self.refuse_transaction(now, id, decision.effects, code),
            };
            if let Some(Partition {
                hosted: Hosted::Transactions(core),
                ..
            }) = self.partitions.get_mut(&id)
            {
                for (record, delta) in decision.records.iter().zip(0..) {
                    core.apply(base_offset.plus(delta), record);
                }
                for (transactional_id, note) in core.take_news() {
                    log_note(&transactional_id, &note);
                }
            }
        }
        if is_synced {
            self.hand_over(id);
        }
        for effect in decision.effects {
            match effect {
                transactions::Effect::Reply { to, response } => {
                    let (to, in_place) = (ReplyTo(to.0), is_answered_in_place(&response));
                    let reply = ShardReply::Transaction(Ok(response));
                    if in_place {
                        self.reply_in_place(to, reply);
                    } else {
                        self.reply(to, reply);
                    }
                }
                transactions::Effect::WriteMarkers(set) => self.send(Outgoing::Markers {
                    coordinator: id,
                    set,
                }),
            }
        }
        if self.producer_ids.end - self.producer_ids.next < PRODUCER_IDS_LOW {
            self.send(Outgoing::ProducerIds);
        }
        self.set_deadline(id);
    }

    /// Appends and applies a decision of the groups; its effects leave when all of it is durable.
    pub(super) fn commit_group(
        &mut self,
        now: Now,
        id: PartitionId,
        decision: groups::Decision,
        producer: Option<(ProducerId, ProducerEpoch)>,
    ) {
        let durability = self.journal.durability();
        let is_synced = groups_are_synced(&decision);
        if !decision.records.is_empty() {
            let batch = coordinator::offsets_batch(&decision.records, producer, now);
            let name = if producer.is_some() {
                "pending_offsets"
            } else {
                "group"
            };
            let base_offset = match fault_around(name, || self.append_decision(now, id, batch)) {
                Ok(base_offset) => base_offset,
                Err(code) => return self.refuse_group(now, id, decision, code),
            };
            if let Some(Partition {
                hosted: Hosted::Groups(core),
                ..
            }) = self.partitions.get_mut(&id)
            {
                for (record, delta) in decision.records.iter().zip(0..) {
                    core.apply(base_offset.plus(delta), record, producer);
                }
            }
        }
        if is_synced {
            self.hand_over(id);
        }
        for effect in decision.effects {
            let groups::Effect::Reply { to, response } = effect;
            let in_place = durability == Durability::Commit && !is_synced_in_commit(&response);
            let (to, reply) = (ReplyTo(to.0), ShardReply::Group(Ok(response)));
            // Nobody waits for what the broker asked by itself.
            match to.0 {
                0 => {}
                _ if in_place => self.reply_in_place(to, reply),
                _ => self.reply(to, reply),
            }
        }
        self.set_deadline(id);
    }

    /// A decision larger than the room reserved for it met a full disk, or is larger than any batch: nothing of it happens.
    fn refuse_transaction(
        &mut self,
        now: Now,
        id: PartitionId,
        effects: Vec<transactions::Effect>,
        code: ErrorCode,
    ) {
        for effect in effects {
            if let transactions::Effect::Reply { to, .. } = effect {
                self.reply(ReplyTo(to.0), ShardReply::Transaction(Err(code)));
            }
        }
        self.set_deadline_after_refusal(now, id);
    }

    /// The same for the groups (GR-10); a group whose record was refused starts its rebalance over (GR-30).
    fn refuse_group(
        &mut self,
        now: Now,
        id: PartitionId,
        decision: groups::Decision,
        code: ErrorCode,
    ) {
        let mut effects = decision.effects;
        if let Some(Partition {
            hosted: Hosted::Groups(core),
            ..
        }) = self.partitions.get_mut(&id)
        {
            let of_groups = decision.records.iter().filter_map(|record| match record {
                OffsetsRecord::Group { group, .. } | OffsetsRecord::Consumer { group, .. } => {
                    Some(group)
                }
                OffsetsRecord::Offset { .. } => None,
            });
            for group in of_groups.collect::<BTreeSet<_>>() {
                // Starting over writes nothing: the next record comes with the next assignment.
                effects.extend(core.refused(now, group).effects);
            }
        }
        for effect in effects {
            let groups::Effect::Reply { to, .. } = effect;
            self.reply(ReplyTo(to.0), ShardReply::Group(Err(code)));
        }
        self.set_deadline_after_refusal(now, id);
    }

    /// Appends a coordinator's batch; its room was reserved before the decision, or is found now. Refusals as GR-10 and
    /// S-2 say: 16 for a full disk, whoever waits asks again; -1 for records that are too large.
    fn append_decision(
        &mut self,
        now: Now,
        id: PartitionId,
        batch: Option<BytesMut>,
    ) -> Result<Offset, ErrorCode> {
        let Some(batch) = batch else {
            tracing::warn!(partition = %id, "records of a coordinator are too large for a batch and refused");
            return Err(ErrorCode::UnknownServerError);
        };
        let Shard {
            journal,
            partitions,
            waiting,
            ..
        } = self;
        let partition = partitions.get_mut(&id).ok_or(ErrorCode::NotCoordinator)?;
        let header = batch::parse_header(&batch).expect("a built batch has a whole header");
        if journal.reserve(id, batch.len()).is_err() {
            tracing::error!(partition = %id, bytes = batch.len(), "no room on the disk for a coordinator's decision");
            return Err(ErrorCode::NotCoordinator);
        }
        let placed = partition.append(journal, batch, &header);
        partition.applied(placed, &header, now);
        if partition.bounds != Bounds::Syncs {
            let held = Held::HighWatermark(id, partition.log_end);
            waiting.hold(placed.ticket, journal.durable(), held);
        }
        self.schedule_flush(now, id);
        Ok(placed.base_offset)
    }

    /// What was due and refused is still due: it is tried again after a while, not at once and for ever.
    fn set_deadline_after_refusal(&mut self, now: Now, id: PartitionId) {
        self.set_deadline(id);
        let earliest_ms = now.monotonic_ms + REFUSED_AGAIN_MS;
        let too_early = self
            .deadlines
            .iter()
            .find(|(due_ms, other)| *other == id && *due_ms < earliest_ms);
        if let Some(too_early) = too_early.copied() {
            self.deadlines.remove(&too_early);
            self.deadlines.insert((earliest_ms, id));
        }
    }

    pub(super) fn set_deadline(&mut self, id: PartitionId) {
        let Some(partition) = self.partitions.get(&id) else {
            return;
        };
        let deadline = partition.hosted.next_deadline_ms();
        if deadline.is_some_and(|deadline| self.deadlines.contains(&(deadline, id))) {
            // A partition has one at most.
            return;
        }
        self.deadlines.retain(|(_, other)| *other != id);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
        }
    }
}

/// Whether records of the transaction log are synced in `commit` (8.1): a pair that is handed out, and whatever ends a
/// transaction. Not that partitions join: their data can't be synced without that record, which lies before Prepare.
fn transactions_are_synced(decision: &transactions::Decision) -> bool {
    let is_synced = |record: &TransactionRecord| {
        // An id that has expired may come back with the power; nobody was told that it is gone. A transaction that is handed
        // over (KIP-939) gives out an epoch, as InitProducerId does.
        record.value.as_ref().is_some_and(|value| {
            value.state != TransactionState::Ongoing || value.next_producer_id != ProducerId::NONE
        })
    };
    decision.records.iter().any(is_synced)
}

/// What no mode syncs for: that partitions join, and questions.
fn is_answered_in_place(response: &transactions::Response) -> bool {
    match response {
        transactions::Response::AddPartitions(_) | transactions::Response::VerifyPartitions(_) => {
            true
        }
        transactions::Response::InitProducerId(_)
        | transactions::Response::HandedOver { .. }
        | transactions::Response::EndTxn(_) => false,
    }
}

/// Whether records of the groups are synced in `commit`: offsets that are committed or deleted by a request (8.1).
fn groups_are_synced(decision: &groups::Decision) -> bool {
    !decision.records.is_empty()
        && decision.effects.iter().any(|effect| {
            let groups::Effect::Reply { response, .. } = effect;
            is_synced_in_commit(response)
        })
}

/// What is answered in `commit` when it is synced: committed offsets, written and read. All else of the groups, and offsets
/// that wait for their transaction, are in place.
fn is_synced_in_commit(response: &groups::Response) -> bool {
    match response {
        groups::Response::CommitOffsets(_)
        | groups::Response::FetchOffsets(_)
        | groups::Response::DeleteOffsets(_)
        | groups::Response::DeleteGroup(_)
        // Nobody waits for it, but offsets of a topic must not come back to meet another one of its name.
        | groups::Response::TopicDeleted => true,
        groups::Response::Join(_)
        | groups::Response::Sync(_)
        | groups::Response::Heartbeat(_)
        | groups::Response::ConsumerHeartbeat(_)
        | groups::Response::Leave(_)
        | groups::Response::CommitTransactionalOffsets(_) => false,
    }
}

/// Room for a decision: a piece of a small segment only, or each decision would begin a new one.
fn decision_bytes(settings: &PartitionSettings) -> usize {
    let half_segment = to_usize(u64::from(settings.log.segment_bytes / 2));
    DECISION_BYTES.min(half_segment)
}

/// What the producers have to know of a coordinator's own transactional batch (V-10).
fn coordinator_header(producer_id: ProducerId, producer_epoch: ProducerEpoch) -> BatchHeader {
    BatchHeader {
        base_offset: Offset::ZERO,
        batch_length: 0,
        leader_epoch: LeaderEpoch::NONE,
        crc: 0,
        attributes: batch::TRANSACTIONAL_BIT,
        last_offset_delta: 0,
        base_timestamp: -1,
        max_timestamp: -1,
        producer_id,
        producer_epoch,
        base_sequence: Sequence::NONE,
        records_count: 1,
    }
}

/// What an operator may be asked about (B-21): the broker ended a transaction, or forgot an id. What a client asked for itself
/// is worth a line to those alone who look closely.
fn log_note(transactional_id: &str, note: &transactions::Note) {
    let code = note.reason.code();
    let (producer_id, producer_epoch) = (note.producer_id.0, note.producer_epoch.0);
    match note.reason {
        transactions::Reason::TimedOut
        | transactions::Reason::FencedByInitProducerId
        | transactions::Reason::PowerCut => {
            tracing::warn!(
                transactional_id,
                producer_id,
                producer_epoch,
                "{code}: aborted and fenced"
            );
        }
        transactions::Reason::Expired => {
            tracing::info!(
                transactional_id,
                producer_id,
                producer_epoch,
                "{code}: forgotten"
            );
        }
        // A matter of every start of a client, and of every day.
        transactions::Reason::TakenOver | transactions::Reason::AbortedByClient => {
            tracing::debug!(transactional_id, producer_id, producer_epoch, "{code}");
        }
    }
}
