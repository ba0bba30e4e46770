//! What the monitor of transactions asks and orders (B-17): which are open, which some coordinator will end, and the end of one
//! that none will.

use super::Shard;
use crate::coordinator::Hosted;
use crate::message::Outbox;
use tally_producer_state::Marker;
use tally_protocol::{ErrorCode, Now, Offset, PartitionId, ProducerEpoch, ProducerId};
use tally_transactions::OwedMarkers;

/// A transaction that is open on a partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OpenTransaction {
    /// Where.
    pub partition: PartitionId,
    /// Whose.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Where it begins: no other transaction of the producer on this partition begins there.
    pub first_offset: Offset,
}

impl Shard {
    /// The transactions that are open on partitions here.
    #[must_use]
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        let mut open = Vec::new();
        for (id, partition) in self.partitions.iter() {
            let here = partition.producers.open_transactions();
            open.extend(here.map(
                |(producer_id, producer_epoch, first_offset)| OpenTransaction {
                    partition: id,
                    producer_id,
                    producer_epoch,
                    first_offset,
                },
            ));
        }
        open
    }

    /// The markers that the coordinators here will write, for whatever end.
    #[must_use]
    pub fn owed_markers(&self) -> Vec<OwedMarkers> {
        let mut owed = Vec::new();
        for partition in self.partitions.values() {
            if let Hosted::Transactions(core) = &partition.hosted {
                owed.extend(core.owed_markers());
            }
        }
        owed
    }

    /// Aborts a transaction that no coordinator holds, if it is still open, as an administrator would (L-4): at its own
    /// epoch, so that a producer that lives goes on.
    pub fn abort_hanging(
        &mut self,
        now: Now,
        hanging: &OpenTransaction,
        outbox: &mut Outbox,
    ) -> Result<bool, ErrorCode> {
        let is_open = self.partition(hanging.partition).is_ok_and(|partition| {
            let mut open = partition.producers.open_transactions();
            open.any(|found| {
                let here = (
                    hanging.producer_id,
                    hanging.producer_epoch,
                    hanging.first_offset,
                );
                found == here
            })
        });
        if !is_open {
            return Ok(false);
        }
        let marker = Marker {
            producer_id: hanging.producer_id,
            producer_epoch: hanging.producer_epoch,
            coordinator_epoch: self.settings.coordinator_epoch,
            commit: false,
            transaction_version: 0,
        };
        let written = self.try_append_marker(now, hanging.partition, &marker);
        self.release(now, outbox);
        written.map(|_| true)
    }
}
