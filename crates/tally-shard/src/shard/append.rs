//! What clients and transaction coordinators append: data batches and markers.

use super::Shard;
use crate::message::{AppendOutcome, AppendRefusal, Outgoing, ReplyTo, ShardMessage, ShardReply};
use crate::partition::Bounds;
use crate::waiting::Held;
use bytes::BytesMut;
use std::sync::Arc;
use tally_producer_state::{Guard, Marker, MarkerRefusal, MarkerVerdict, Verdict};
use tally_protocol::control::{MARKER_BATCH_BYTES, MarkerFields, marker_batch};
use tally_protocol::{ErrorCode, Now, Offset, PartitionId, batch, planted};
use tally_storage::{Durability, Journal, Ticket, fault_around, fault_fails, fault_point};
use tally_transactions::TopicPartition;

/// A marker on its way to a partition.
pub(super) struct MarkerOrder {
    pub(super) marker: Marker,
    pub(super) coordinator: PartitionId,
    pub(super) transactional_id: Arc<str>,
    pub(super) ending: u64,
    pub(super) name: TopicPartition,
}

impl Shard {
    /// Appends a client's batch (the journey of house-style.md section 2).
    pub(super) fn append(
        &mut self,
        now: Now,
        id: PartitionId,
        batch: BytesMut,
        guard: Option<Guard>,
        to: ReplyTo,
    ) {
        let (outcome, ticket) = match self.try_append(now, id, batch, guard) {
            Ok((outcome, ticket)) => (Ok(outcome), ticket),
            Err(code) => {
                let log_start = if self.partitions.contains_key(&id) {
                    self.journal.log_start(id)
                } else {
                    Offset::NONE
                };
                // A refusal promises nothing that a power cut could break.
                (Err(AppendRefusal { code, log_start }), None)
            }
        };
        self.hold(ticket, Held::Reply(to, ShardReply::Append(outcome)));
    }

    /// The outcome, and the ticket that its answer waits for; none if it is in place already.
    fn try_append(
        &mut self,
        now: Now,
        id: PartitionId,
        batch: BytesMut,
        guard: Option<Guard>,
    ) -> Result<(AppendOutcome, Option<Ticket>), ErrorCode> {
        let absent = self.absent(id);
        let Shard {
            journal,
            partitions,
            waiting,
            ..
        } = self;
        let partition = partitions.get_mut(&id).ok_or(absent)?;
        let header = batch::parse_header(&batch).map_err(|_| ErrorCode::CorruptMessage)?;
        if header.has_producer() {
            match partition.producers.check(&header, guard) {
                Verdict::Append => {}
                Verdict::Duplicate {
                    base_offset,
                    max_timestamp,
                    ..
                } => {
                    // V-11; P-33: where originals wait for their sync, all that is there was handed over, or is now.
                    partition.producers.duplicate_answered(&header);
                    let outcome = AppendOutcome {
                        base_offset,
                        duplicate_timestamp_ms: max_timestamp,
                        log_start: journal.log_start(id),
                    };
                    let waits = partition.syncs_each_append(journal.durability());
                    return Ok((outcome, waits.then(|| journal.hand_over(id, None))));
                }
                Verdict::Refuse(refusal) => return Err(refusal.code()),
            }
        }
        if planted::is("r1") && header.base_sequence.0 == 3 {
            let outcome = AppendOutcome {
                base_offset: partition.log_end,
                duplicate_timestamp_ms: -1,
                log_start: journal.log_start(id),
            };
            return Ok((outcome, None));
        }
        journal
            .reserve(id, batch.len())
            .map_err(|_| ErrorCode::KafkaStorageError)?;
        let placed = fault_around("data", || partition.append(journal, batch, &header));
        partition.applied(placed, &header, now);
        if partition.bounds != Bounds::Syncs {
            let held = Held::HighWatermark(id, partition.log_end);
            waiting.hold(placed.ticket, journal.durable(), held);
        }
        let outcome = AppendOutcome {
            base_offset: placed.base_offset,
            duplicate_timestamp_ms: -1,
            log_start: journal.log_start(id),
        };
        let is_early = planted::is("r1 flushed") && partition.settings.log.syncs_every_append();
        if partition.is_flushed_by_time() {
            self.schedule_flush(now, id);
        }
        Ok((outcome, (!is_early).then_some(placed.ticket)))
    }

    /// Ends a transaction on a partition (M-4 to M-8); the coordinator hears of it when what it then writes can't survive
    /// without the marker (E-5): at once, as the journal is prefix-ordered.
    pub(super) fn append_marker(&mut self, now: Now, id: PartitionId, order: MarkerOrder) {
        let MarkerOrder {
            marker,
            coordinator,
            transactional_id,
            ending,
            name,
        } = order;
        let (code, ticket) = match self.try_append_marker(now, id, &marker) {
            Ok(ticket) => (ErrorCode::None, ticket),
            Err(code) => (code, None),
        };
        let written = ShardMessage::MarkersWritten {
            transactional_id,
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            ending,
            results: vec![(name, code)],
        };
        match ticket {
            Some(ticket) => {
                let message = Held::Message(Outgoing::ToPartition(coordinator, written));
                self.hold(Some(ticket), message);
            }
            None => self.send(Outgoing::ToPartition(coordinator, written)),
        }
    }

    /// Appends a marker, if it is not there yet; what its coordinator has to wait for, where that is more than that it is in
    /// place: in `os` nothing is ordered behind the sync of a topic with flush.messages=1, and D-6 promises that what was ended
    /// can be read.
    pub(super) fn try_append_marker(
        &mut self,
        now: Now,
        id: PartitionId,
        marker: &Marker,
    ) -> Result<Option<Ticket>, ErrorCode> {
        let Shard {
            journal,
            partitions,
            waiting,
            ..
        } = self;
        // Not "unknown": that would end the marker's way (E-8), and a partition that could not be opened would keep an open
        // transaction for ever. Sent again, the marker finds out by the topic's name whether the partition is gone.
        let partition = partitions
            .get_mut(&id)
            .ok_or(ErrorCode::NotLeaderOrFollower)?;
        match partition.producers.check_marker(marker) {
            MarkerVerdict::Append => {}
            MarkerVerdict::AlreadyWritten => {
                partition.producers.marker_already_written(marker);
                return Ok(None);
            }
            MarkerVerdict::Refuse(MarkerRefusal::OldProducerEpoch) => {
                return Err(ErrorCode::InvalidProducerEpoch);
            }
            MarkerVerdict::Refuse(MarkerRefusal::OldCoordinatorEpoch) => {
                return Err(ErrorCode::TransactionCoordinatorFenced);
            }
        }
        journal
            .reserve(id, MARKER_BATCH_BYTES)
            .map_err(|_| ErrorCode::KafkaStorageError)?;
        if fault_fails("marker") {
            return Err(ErrorCode::KafkaStorageError);
        }
        let batch = marker_batch(&MarkerFields {
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            commit: marker.commit,
            coordinator_epoch: marker.coordinator_epoch,
            timestamp_ms: now.wall_ms,
        });
        let header = batch::parse_header(&batch).expect("a marker batch has a whole header");
        let placed = fault_around("marker", || partition.append(journal, batch, &header));
        if let Some(row) = partition
            .producers
            .apply_marker(placed.base_offset, marker, now)
        {
            // Without its row the aborted data would be delivered (F-9). The marker is in the log already, so the only
            // safe way on is a new start, which rebuilds the row from the log (P-64).
            journal
                .append_transaction_row(id, row.last_offset, &row.encode())
                .expect("the row of an aborted transaction is written, or this process must not serve it");
            fault_point("row.after");
        }
        partition
            .hosted
            .replay_marker(placed.base_offset, marker.producer_id, marker.commit);
        if partition.bounds != Bounds::Syncs {
            let held = Held::HighWatermark(id, partition.log_end);
            waiting.hold(placed.ticket, journal.durable(), held);
        }
        let waits = journal.durability() == Durability::Os;
        // The end of a transaction, an abort by the broker too, is synced without anybody asking: it holds readers.
        self.hand_over(id);
        self.schedule_flush(now, id);
        Ok(waits.then_some(placed.ticket))
    }
}
