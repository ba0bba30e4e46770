//! The start after a power cut: the coordinators fence what they know, and what is open on a partition and in no
//! coordinator's log is aborted, as nobody else ever will.

use super::Shard;
use crate::coordinator::Hosted;
use std::collections::BTreeMap;
use tally_producer_state::Marker;
use tally_protocol::{Now, PartitionId, ProducerEpoch, ProducerId};
use tally_transactions::{Fence, OwedMarkers};

/// The highest epoch of data that the marker ends which a coordinator will write for a producer on a partition.
pub type Owed = BTreeMap<(PartitionId, ProducerId), ProducerEpoch>;

impl Shard {
    /// Has the coordinators here fence everything they know; returns the markers that this implies. Called on every shard
    /// after the last partition has been opened, and before [`Shard::recovered`].
    pub fn power_was_cut(&mut self, fence: Fence) -> Vec<OwedMarkers> {
        self.fence = Some(fence);
        let mut owed = Vec::new();
        for partition in self.partitions.values_mut() {
            if let Hosted::Transactions(core) = &mut partition.hosted {
                core.power_was_cut(fence);
                owed.extend(core.owed_markers());
            }
        }
        owed
    }

    /// Aborts the transactions that are open here and that no coordinator will end; `owed` are the markers of all shards.
    /// Called between the two. Returns whether it could be done.
    pub fn abort_orphans(&mut self, now: Now, owed: &Owed) -> bool {
        let mut orphans = Vec::new();
        for (id, partition) in self.partitions.iter() {
            let open = partition.producers.open_transactions();
            orphans.extend(open.filter_map(|(producer_id, epoch, _)| {
                // A marker that does not end what is found here would be refused and taken for written (D-7). Data of an earlier
                // epoch is of a transaction before that one, whose own marker is lost: this one may be a commit (CR-26).
                let is_owed = owed.get(&(id, producer_id)) == Some(&epoch);
                (!is_owed).then_some((id, producer_id, epoch))
            }));
        }
        let mut done = true;
        for (id, producer_id, epoch) in orphans {
            let marker = Marker {
                producer_id,
                // The last one where there is no higher.
                producer_epoch: ProducerEpoch(epoch.0.saturating_add(1)),
                coordinator_epoch: self.settings.coordinator_epoch,
                commit: false,
                transaction_version: 0,
            };
            if let Err(code) = self.try_append_marker(now, id, &marker) {
                tracing::error!(partition = %id, producer = producer_id.0, ?code, "a transaction of before the power cut stays open");
                done = false;
            }
        }
        done
    }

    /// Whether ids are left to be fenced.
    #[must_use]
    pub fn is_fencing(&self) -> bool {
        let mut hosted = self.partitions.values().map(|partition| &partition.hosted);
        hosted.any(|hosted| match hosted {
            Hosted::Transactions(core) => core.is_fencing(),
            Hosted::Groups(_) | Hosted::Nothing => false,
        })
    }

    /// Whether a partition could not be opened.
    #[must_use]
    pub fn has_unopened(&self) -> bool {
        !self.unopened.is_empty()
    }

    /// Everything that the power cut asked for is done, here and on all other shards.
    pub fn power_cut_handled(&mut self) {
        self.fence = None;
    }
}
