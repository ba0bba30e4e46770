//! The transactions that hold the last stable offset of a partition (M-12).
//!
//! Invariant: `open` holds one row for each entry with an open transaction, by its first offset; `decided` those whose
//! marker is appended but not yet below the high watermark.

use std::collections::BTreeMap;
use tally_protocol::{Offset, ProducerId, planted};

/// Open transactions, and decided ones whose marker may still be lost.
#[derive(Clone, Debug)]
pub(crate) struct OpenTransactions {
    /// By first offset, which is unique: two batches never share an offset.
    open: BTreeMap<Offset, ProducerId>,
    /// First offset to marker offset.
    decided: BTreeMap<Offset, Offset>,
}

impl OpenTransactions {
    pub(crate) const fn new() -> OpenTransactions {
        OpenTransactions {
            open: BTreeMap::new(),
            decided: BTreeMap::new(),
        }
    }

    pub(crate) fn begin(&mut self, first_offset: Offset, producer_id: ProducerId) {
        self.open.insert(first_offset, producer_id);
    }

    /// The transaction that began at `first_offset` ended by the marker at `marker_offset`.
    pub(crate) fn decide(&mut self, first_offset: Offset, marker_offset: Offset) {
        self.open.remove(&first_offset);
        self.decided.insert(first_offset, marker_offset);
    }

    /// Lets go of the decided transactions whose marker is below `high_watermark`.
    pub(crate) fn release(&mut self, high_watermark: Offset) {
        if !self.decided.is_empty() {
            self.decided.retain(|_, marker| *marker >= high_watermark);
        }
    }

    /// First offset of the earliest transaction that is not decided.
    pub(crate) fn first_open(&self) -> Option<Offset> {
        self.open.first_key_value().map(|(first, _)| *first)
    }

    /// First offset of the earliest transaction that readers of committed data must not pass (M-12).
    pub(crate) fn first_unstable(&self) -> Option<Offset> {
        let decided = self.decided.first_key_value().map(|(first, _)| *first);
        if planted::is("m12 first") {
            return self.open.last_key_value().map(|(first, _)| *first);
        }
        match (self.first_open(), decided) {
            (Some(open), Some(decided)) => Some(open.min(decided)),
            (open, decided) => open.or(decided),
        }
    }

    /// The open ones, the earliest first.
    pub(crate) fn open(&self) -> impl ExactSizeIterator<Item = (Offset, ProducerId)> {
        self.open
            .iter()
            .map(|(first, producer)| (*first, *producer))
    }
}
