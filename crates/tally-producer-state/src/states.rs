//! The producer states of one partition: what was appended, and what follows from it.
//!
//! Hard state (`entries`, `open`) changes only in [`ProducerStates::apply`], [`ProducerStates::apply_marker`] and
//! [`ProducerStates::expire`]; soft state is the verifications and which decided transactions still hold readers.

use crate::aborted::AbortedTransaction;
use crate::check::Marker;
use crate::entry::{Entry, RememberedBatch};
use crate::open_txns::OpenTransactions;
use crate::verification::{Flow, Guard, Verification, Verifications};
use std::collections::BTreeMap;
use tally_protocol::{
    BatchHeader, CoordinatorEpoch, Now, Offset, ProducerEpoch, ProducerId, Sequence, planted,
};

/// What DescribeProducers tells of one producer (L-3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerDescription {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Last sequence of the epoch, or [`Sequence::NONE`].
    pub last_sequence: Sequence,
    /// Largest timestamp of the last data batch in milliseconds, or -1.
    pub last_timestamp: i64,
    /// Of the last marker, or -1.
    pub coordinator_epoch: CoordinatorEpoch,
    /// First offset of the open transaction, or [`Offset::NONE`].
    pub current_transaction_start: Offset,
}

/// The producer states of one partition.
#[derive(Clone, Debug)]
pub struct ProducerStates {
    /// Ordered, because snapshots and DescribeProducers list it; few producers share one node of the tree.
    entries: BTreeMap<ProducerId, Entry>,
    open: OpenTransactions,
    verifications: Verifications,
}

impl ProducerStates {
    /// The state of an empty partition. `seed` makes the guards of two lives of a partition differ.
    #[must_use]
    pub const fn new(seed: u64) -> ProducerStates {
        ProducerStates::with_entries(BTreeMap::new(), seed)
    }

    const fn with_entries(entries: BTreeMap<ProducerId, Entry>, seed: u64) -> ProducerStates {
        ProducerStates {
            entries,
            open: OpenTransactions::new(),
            verifications: Verifications::new(seed),
        }
    }

    /// Says whether the coordinator has to be asked before a transactional batch is appended, and starts the
    /// verification if so (V-1, V-7).
    ///
    /// `base_sequence` is [`Sequence::NONE`] for a coordinator's own batch (V-10).
    pub fn begin_verification(
        &mut self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        base_sequence: Sequence,
        flow: Flow,
        now: Now,
    ) -> Verification {
        if let Some(answer) = self.needs_no_verification(producer_id, producer_epoch) {
            return answer;
        }
        let producer = (producer_id, producer_epoch);
        let guard = self.verifications.begin(producer, base_sequence, flow, now);
        Verification::Needed(guard)
    }

    /// Drops the verification of a batch that was answered as a duplicate (V-11).
    pub fn duplicate_answered(&mut self, header: &BatchHeader) {
        self.verifications
            .forget((header.producer_id, header.producer_epoch));
    }

    /// Drops the verification that `guard` names, if it is still there: the coordinator has said that there is no such
    /// producer. Otherwise whoever makes up ids would fill the memory, a state an id, until they expire (P-56).
    ///
    /// Not for refusals that pass: the state also keeps later batches from overtaking this one (V-7).
    pub fn drop_verification(
        &mut self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        guard: Guard,
    ) {
        let producer = (producer_id, producer_epoch);
        if self.verifications.holds(producer, Some(guard)) {
            self.verifications.forget(producer);
        }
    }

    /// Takes in a data batch that was appended at `base_offset`, live or by replay (P-63). The header's own base
    /// offset is not looked at.
    pub fn apply(&mut self, base_offset: Offset, header: &BatchHeader, now: Now) {
        // P-67: a control batch whose record was removed by compaction changes nothing.
        if !header.has_producer() || header.is_control() {
            return;
        }
        let epoch = header.producer_epoch;
        let entry = self
            .entries
            .entry(header.producer_id)
            .or_insert_with(|| Entry::new(epoch));
        entry.raise_epoch(epoch);
        entry.touch(now);
        entry.last_timestamp = header.max_timestamp;
        if header.base_sequence != Sequence::NONE && epoch == entry.producer_epoch {
            entry.remember(RememberedBatch::new(
                header.base_sequence,
                header.last_offset_delta,
                base_offset,
                header.max_timestamp,
            ));
        }
        if header.is_transactional() {
            if entry.open_transaction().is_none() {
                entry.open(base_offset); // P-54
                self.open.begin(base_offset, header.producer_id);
            }
            self.verifications.end_by_data(header.producer_id, epoch); // V-6
        }
    }

    /// Notes that a marker was answered without being appended: a stale verification must not outlive it (M-8, V-6).
    pub fn marker_already_written(&mut self, marker: &Marker) {
        self.verifications
            .end_by_marker(marker.producer_id, marker.producer_epoch);
    }

    /// Takes in a marker that was appended at `offset`, live or by replay; returns the row of the aborted index that
    /// it makes, if any (M-6, M-7, M-15).
    pub fn apply_marker(
        &mut self,
        offset: Offset,
        marker: &Marker,
        now: Now,
    ) -> Option<AbortedTransaction> {
        let entry = self
            .entries
            .entry(marker.producer_id)
            .or_insert_with(|| Entry::new(marker.producer_epoch)); // M-6
        entry.raise_epoch(marker.producer_epoch); // M-7
        entry.coordinator_epoch = entry.coordinator_epoch.max(marker.coordinator_epoch); // M-5
        entry.touch(now);
        self.verifications
            .end_by_marker(marker.producer_id, marker.producer_epoch); // V-6
        let first_offset = entry.close()?;
        if !marker.commit {
            entry.mark_aborted_from(first_offset); // D-14
        }
        if !planted::is("m7") {
            self.open.decide(first_offset, offset);
        }
        if marker.commit || planted::is("m15") {
            return None;
        }
        Some(AbortedTransaction {
            producer_id: marker.producer_id,
            first_offset,
            last_offset: offset,
            last_stable_offset: self.open.first_open().unwrap_or(offset.next()),
        })
    }

    /// The high watermark moved: decided transactions whose marker lies below it no longer hold readers (M-12).
    pub fn high_watermark(&mut self, high_watermark: Offset) {
        self.open.release(high_watermark);
    }

    /// First offset of the earliest transaction that is open, or decided by a marker that is not below the high
    /// watermark (M-12).
    #[must_use]
    pub fn first_unstable(&self) -> Option<Offset> {
        self.open.first_unstable()
    }

    /// The open transactions: producer, its epoch, first offset; the earliest first.
    pub fn open_transactions(
        &self,
    ) -> impl Iterator<Item = (ProducerId, ProducerEpoch, Offset)> + '_ {
        self.open.open().filter_map(|(first, producer)| {
            let entry = self.entries.get(&producer)?;
            Some((producer, entry.producer_epoch, first))
        })
    }

    /// Forgets producers that appended nothing for `expiration_ms` by the broker's clock and have no open transaction,
    /// and verifications as old (P-56, D-2). Returns how many producers that were.
    pub fn expire(&mut self, now: Now, expiration_ms: u64) -> usize {
        let before = self.entries.len();
        let expiration_ms = i64::try_from(expiration_ms).unwrap_or(i64::MAX);
        let before_ms = now.wall_ms.saturating_sub(expiration_ms);
        self.entries.retain(|_, entry| {
            entry.open_transaction().is_some() || entry.last_append_ms > before_ms
        });
        self.verifications.expire(before_ms);
        before - self.entries.len()
    }

    /// How many producers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The epoch known for a producer.
    #[must_use]
    pub fn producer_epoch(&self, producer_id: ProducerId) -> Option<ProducerEpoch> {
        Some(self.entry(producer_id)?.producer_epoch)
    }

    /// All producers, by ascending id (L-3).
    #[must_use]
    pub fn describe(&self) -> Vec<ProducerDescription> {
        self.entries
            .iter()
            .map(|(producer_id, entry)| ProducerDescription {
                producer_id: *producer_id,
                producer_epoch: entry.producer_epoch,
                last_sequence: entry.last_sequence().unwrap_or(Sequence::NONE),
                last_timestamp: entry.last_timestamp,
                coordinator_epoch: entry.coordinator_epoch,
                current_transaction_start: entry.open_transaction().unwrap_or(Offset::NONE),
            })
            .collect()
    }

    /// Panics if the parts disagree. For tests.
    pub fn check_invariants(&self) {
        let mut open = BTreeMap::new();
        for (producer_id, entry) in &self.entries {
            entry.check_invariants();
            if let Some(first) = entry.open_transaction() {
                let before = open.insert(first, *producer_id);
                assert!(before.is_none(), "two transactions begin at {first}");
            }
        }
        assert!(
            self.open.open().eq(open),
            "open transactions and entries differ"
        );
    }

    pub(crate) fn entry(&self, producer_id: ProducerId) -> Option<&Entry> {
        self.entries.get(&producer_id)
    }

    pub(crate) const fn entries(&self) -> &BTreeMap<ProducerId, Entry> {
        &self.entries
    }

    pub(crate) const fn verifications(&self) -> &Verifications {
        &self.verifications
    }

    /// The state that a snapshot held.
    pub(crate) fn restored(entries: BTreeMap<ProducerId, Entry>, seed: u64) -> ProducerStates {
        let mut states = ProducerStates::with_entries(entries, seed);
        for (producer_id, entry) in &states.entries {
            if let Some(first) = entry.open_transaction() {
                states.open.begin(first, *producer_id);
            }
        }
        states
    }
}
