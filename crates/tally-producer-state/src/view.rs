//! All that is known of each producer, as plain values: what the offline tools show and compare.

use crate::states::ProducerStates;
use tally_protocol::{CoordinatorEpoch, Offset, ProducerEpoch, ProducerId, Sequence};

/// One producer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerView {
    /// Its id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Of the last marker, or -1.
    pub coordinator_epoch: CoordinatorEpoch,
    /// First offset of the open transaction.
    pub open_transaction: Option<Offset>,
    /// Wall clock of the broker at the last append, milliseconds since 1970 (D-2); the one thing that does not follow from
    /// the log.
    pub last_append_ms: i64,
    /// Largest timestamp of the last data batch in milliseconds, or -1.
    pub last_timestamp: i64,
    /// The batches that may be sent again, the oldest first (P-31).
    pub batches: Vec<BatchView>,
}

/// A batch that may be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchView {
    /// Sequence of the first record.
    pub base_sequence: Sequence,
    /// Sequence of the last record.
    pub last_sequence: Sequence,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// Largest timestamp in milliseconds, or -1.
    pub max_timestamp: i64,
    /// Its transaction was aborted (D-14).
    pub aborted: bool,
}

impl ProducerStates {
    /// All producers, by ascending id.
    pub fn view(&self) -> impl Iterator<Item = ProducerView> + '_ {
        self.entries().iter().map(|(producer_id, entry)| {
            let batches = entry.batches().map(|batch| BatchView {
                base_sequence: batch.base_sequence(),
                last_sequence: batch.last_sequence(),
                base_offset: batch.base_offset,
                last_offset: batch.last_offset(),
                max_timestamp: batch.max_timestamp,
                aborted: batch.is_aborted(),
            });
            ProducerView {
                producer_id: *producer_id,
                producer_epoch: entry.producer_epoch,
                coordinator_epoch: entry.coordinator_epoch,
                open_transaction: entry.open_transaction(),
                last_append_ms: entry.last_append_ms,
                last_timestamp: entry.last_timestamp,
                batches: batches.collect(),
            }
        })
    }
}
