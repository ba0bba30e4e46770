//! The coordinator that an internal partition hosts, and how its records become a batch.
//!
//! Both coordinators have the house's shape: `decide` gives records and effects, the records are appended as one batch
//! and applied at once, the effects leave when the batch is durable (N8).

use crate::message::PartitionRole;
use crate::shard::ShardSettings;
use bytes::BytesMut;
use tally_groups::Groups;
use tally_protocol::build::BatchBuilder;
use tally_protocol::record::Records;
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::records::transaction_log::{TransactionRecord, TransactionState};
use tally_protocol::{BatchView, Now, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence};
use tally_transactions::TransactionCoordinator;

/// What a partition hosts besides its records.
#[derive(Debug)]
pub(crate) enum Hosted {
    Nothing,
    Transactions(Box<TransactionCoordinator>),
    Groups(Box<Groups>),
}

impl Hosted {
    /// An empty coordinator of the partition's role.
    pub(crate) fn new(role: PartitionRole, settings: &ShardSettings) -> Hosted {
        match role {
            PartitionRole::Data => Hosted::Nothing,
            PartitionRole::Transactions => {
                Hosted::Transactions(Box::new(TransactionCoordinator::new(
                    settings.transactions,
                    settings.coordinator_epoch,
                    settings.seed,
                )))
            }
            PartitionRole::Groups => {
                Hosted::Groups(Box::new(Groups::new(settings.groups, settings.seed)))
            }
        }
    }

    /// The next moment at which the coordinator wants to be asked, milliseconds of the monotonic clock.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        match self {
            Hosted::Nothing => None,
            Hosted::Transactions(coordinator) => coordinator.next_deadline_ms(),
            Hosted::Groups(groups) => groups.next_deadline_ms(),
        }
    }

    /// Applies the records of one batch of the log.
    pub(crate) fn replay(&mut self, id: PartitionId, batch: &BatchView<'_>) {
        match self {
            Hosted::Nothing => {}
            Hosted::Transactions(coordinator) => {
                each_record(
                    id,
                    batch,
                    |offset, key, value| match TransactionRecord::decode(key, value) {
                        Ok(Some(record)) => coordinator.apply(offset, &record),
                        Ok(None) => {
                            tracing::warn!(partition = %id, %offset, "transaction record of an unknown version skipped")
                        }
                        Err(error) => {
                            tracing::error!(partition = %id, %offset, %error, "transaction record skipped")
                        }
                    },
                )
            }
            Hosted::Groups(groups) => {
                let header = batch.header();
                let producer = header
                    .is_transactional()
                    .then_some((header.producer_id, header.producer_epoch));
                each_record(
                    id,
                    batch,
                    |offset, key, value| match OffsetsRecord::decode(key, value) {
                        Ok(Some(record)) => groups.apply(offset, &record, producer),
                        Ok(None) => {
                            tracing::warn!(partition = %id, %offset, "offsets record of an unknown version skipped")
                        }
                        Err(error) => {
                            tracing::error!(partition = %id, %offset, %error, "offsets record skipped")
                        }
                    },
                );
            }
        }
    }

    /// Applies a marker of the log (CR-19).
    pub(crate) fn replay_marker(&mut self, at: Offset, producer_id: ProducerId, commit: bool) {
        match self {
            Hosted::Nothing | Hosted::Transactions(_) => {}
            Hosted::Groups(groups) => groups.apply_marker(at, producer_id, commit),
        }
    }
}

fn each_record(
    id: PartitionId,
    batch: &BatchView<'_>,
    mut visit: impl FnMut(Offset, &[u8], Option<&[u8]>),
) {
    let header = batch.header();
    if header.codec() != 0 {
        // Tally writes these partitions itself and never compressed (S-7).
        tracing::error!(partition = %id, offset = %header.base_offset, "compressed batch in a coordinator's log skipped");
        return;
    }
    for record in Records::new(batch.records(), header.records_count) {
        match record {
            Ok(record) => {
                let offset = header.base_offset.plus(i64::from(record.offset_delta));
                visit(offset, record.key.unwrap_or_default(), record.value);
            }
            Err(error) => {
                tracing::error!(partition = %id, offset = %header.base_offset, %error, "rest of a coordinator's batch skipped");
                return;
            }
        }
    }
}

/// Bytes that one decision's records may have: far more than those of any honest client, far below what a batch or a
/// segment can hold.
const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What tests call the write of these records (exactly-once.md 8.4).
pub(crate) fn write_name(records: &[TransactionRecord]) -> &'static str {
    let first = records.first().and_then(|record| record.value.as_ref());
    match first.map(|value| value.state) {
        None => "tombstone",
        Some(TransactionState::Empty) => "init_producer_id",
        Some(TransactionState::Ongoing) => "ongoing",
        Some(TransactionState::PrepareCommit) => "prepare_commit",
        Some(TransactionState::PrepareAbort) => "prepare_abort",
        Some(TransactionState::CompleteCommit) => "complete_commit",
        Some(TransactionState::CompleteAbort) => "complete_abort",
        Some(TransactionState::Dead | TransactionState::PrepareEpochFence) => "never_stored",
    }
}

/// The transaction coordinator's records as one batch; `None` if they are too large for one.
pub(crate) fn transaction_batch(records: &[TransactionRecord], now: Now) -> Option<BytesMut> {
    let builder = BatchBuilder::new(now.wall_ms);
    let encoded = records
        .iter()
        .map(|record| (record.encode_key(), record.encode_value()));
    batch(builder, encoded)
}

/// The groups' records as one batch, of `producer`'s transaction if there is one (O-6); `None` if they are too large.
pub(crate) fn offsets_batch(
    records: &[OffsetsRecord],
    producer: Option<(ProducerId, ProducerEpoch)>,
    now: Now,
) -> Option<BytesMut> {
    let mut builder = BatchBuilder::new(now.wall_ms);
    if let Some((producer_id, producer_epoch)) = producer {
        builder = builder
            .producer(producer_id, producer_epoch, Sequence::NONE)
            .transactional();
    }
    let encoded = records
        .iter()
        .map(|record| (record.encode_key(), record.encode_value()));
    batch(builder, encoded)
}

fn batch(
    mut builder: BatchBuilder,
    records: impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
) -> Option<BytesMut> {
    for (key, value) in records {
        let bytes = builder.size_bytes() + key.len() + value.as_ref().map_or(0, Vec::len);
        if bytes > BATCH_BYTES_MAX {
            return None;
        }
        builder.push(Some(&key), value.as_deref());
    }
    Some(builder.finish())
}
