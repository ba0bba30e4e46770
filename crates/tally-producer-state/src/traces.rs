//! What compaction has to leave in a log so that a replay finds the producers again (C-8).

use crate::states::ProducerStates;
use tally_protocol::{Offset, ProducerEpoch, ProducerId};

/// The traces of all producers of a partition, each list in ascending order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Traces {
    /// The base offsets of the remembered batches: their headers stay, all five of them (D-1).
    pub batches: Vec<(ProducerId, Offset)>,
    /// The producers of which no batch is remembered: only a marker tells their epoch.
    pub epochs: Vec<(ProducerId, ProducerEpoch)>,
}

impl ProducerStates {
    /// What a replay needs of the batches below `upto`.
    #[must_use]
    pub fn traces(&self, upto: Offset) -> Traces {
        let mut traces = Traces::default();
        for (producer_id, entry) in self.entries() {
            if entry.last_sequence().is_none() {
                traces.epochs.push((*producer_id, entry.producer_epoch));
            }
            let bases = entry.batches().map(|batch| batch.base_offset);
            let below = bases.filter(|base| *base < upto);
            traces
                .batches
                .extend(below.map(|base| (*producer_id, base)));
        }
        traces
    }
}
