//! What is known of one producer on one partition: its epoch, its last five batches, its open transaction.
//!
//! Invariants:
//! - the remembered batches are of the entry's epoch, in the order of their offsets (P-31);
//! - the epoch and the coordinator epoch never fall (P-38, M-5).
//!
//! An entry is small on purpose: a partition may know very many producers (P-50 forbids to forget them lightly).

use tally_protocol::{
    BatchHeader, CoordinatorEpoch, Now, Offset, ProducerEpoch, Sequence, planted,
};

/// Five: what a client may have in flight with idempotence (KIP-98, P-31).
pub(crate) const REMEMBERED_BATCHES: usize = 5;

/// No marker of the producer was seen.
pub(crate) const NO_COORDINATOR_EPOCH: CoordinatorEpoch = CoordinatorEpoch(-1);

/// No data batch of the producer was seen.
pub(crate) const NO_TIMESTAMP: i64 = -1;

/// The bit of [`RememberedBatch::span`] that says "its transaction was aborted" (D-14).
const ABORTED_BIT: u32 = 1 << 31;

const _: () = assert!(size_of::<RememberedBatch>() == 24);
// With the map around it an entry stays well below 400 bytes.
const _: () = assert!(size_of::<Entry>() <= 160);

/// A batch that may be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RememberedBatch {
    base_sequence: Sequence,
    /// Bits 0 to 30: last offset minus base offset, which is also last sequence minus base sequence. Bit 31: aborted.
    span: u32,
    pub(crate) base_offset: Offset,
    /// Milliseconds since 1970, or -1.
    pub(crate) max_timestamp: i64,
}

impl RememberedBatch {
    const NOTHING: RememberedBatch = RememberedBatch {
        base_sequence: Sequence::NONE,
        span: 0,
        base_offset: Offset::NONE,
        max_timestamp: NO_TIMESTAMP,
    };

    pub(crate) fn new(
        base_sequence: Sequence,
        last_offset_delta: i32,
        base_offset: Offset,
        max_timestamp: i64,
    ) -> RememberedBatch {
        RememberedBatch {
            base_sequence,
            span: u32::try_from(last_offset_delta).unwrap_or(0),
            base_offset,
            max_timestamp,
        }
    }

    pub(crate) const fn base_sequence(&self) -> Sequence {
        self.base_sequence
    }

    /// The last record's distance from the first.
    #[allow(
        clippy::cast_possible_wrap,
        reason = "bit 31 is masked out, so the number fits"
    )]
    pub(crate) const fn last_offset_delta(&self) -> i32 {
        (self.span & !ABORTED_BIT) as i32
    }

    /// P-49: modulo 2^31.
    pub(crate) const fn last_sequence(&self) -> Sequence {
        self.base_sequence.plus(self.last_offset_delta())
    }

    pub(crate) const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta() as i64)
    }

    /// Whether the batch was part of a transaction that ended by an ABORT marker (D-14).
    pub(crate) const fn is_aborted(&self) -> bool {
        self.span & ABORTED_BIT != 0
    }

    pub(crate) const fn mark_aborted(&mut self) {
        self.span |= ABORTED_BIT;
    }
}

/// The state of one producer on one partition.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) producer_epoch: ProducerEpoch,
    /// How many of `batches` are in use.
    count: u8,
    /// Index of the oldest remembered batch.
    oldest: u8,
    pub(crate) coordinator_epoch: CoordinatorEpoch,
    /// First offset of the open transaction, or [`Offset::NONE`].
    open_first_offset: Offset,
    /// Wall clock of the broker at the last append of this producer (D-2).
    pub(crate) last_append_ms: i64,
    /// Largest timestamp of the last data batch, for DescribeProducers; -1 if there was none.
    pub(crate) last_timestamp: i64,
    batches: [RememberedBatch; REMEMBERED_BATCHES],
}

impl Entry {
    pub(crate) const fn new(producer_epoch: ProducerEpoch) -> Entry {
        Entry {
            producer_epoch,
            count: 0,
            oldest: 0,
            coordinator_epoch: NO_COORDINATOR_EPOCH,
            open_first_offset: Offset::NONE,
            last_append_ms: 0,
            last_timestamp: NO_TIMESTAMP,
            batches: [RememberedBatch::NOTHING; REMEMBERED_BATCHES],
        }
    }

    /// First offset of the open transaction.
    pub(crate) const fn open_transaction(&self) -> Option<Offset> {
        if self.open_first_offset.0 < 0 {
            None
        } else {
            Some(self.open_first_offset)
        }
    }

    /// Whether a transaction of exactly this epoch is open: then a batch needs no verification (V-1, V-5).
    pub(crate) fn has_open_transaction_of(&self, producer_epoch: ProducerEpoch) -> bool {
        self.open_transaction().is_some() && self.producer_epoch == producer_epoch
    }

    /// The last sequence seen in the current epoch.
    pub(crate) fn last_sequence(&self) -> Option<Sequence> {
        self.newest().map(|batch| batch.last_sequence())
    }

    /// The batch that `header` is a copy of: same epoch, same first and last sequence (P-32, P-34, P-35).
    pub(crate) fn remembered(&self, header: &BatchHeader) -> Option<&RememberedBatch> {
        if header.producer_epoch != self.producer_epoch {
            return None;
        }
        // Of five, the oldest is forgotten.
        let forgotten =
            usize::from(planted::is("p31")) * (usize::from(self.count) / REMEMBERED_BATCHES);
        self.batches().skip(forgotten).find(|batch| {
            batch.base_sequence == header.base_sequence
                && batch.last_sequence() == header.last_sequence()
        })
    }

    /// The remembered batches, the oldest first.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &RememberedBatch> {
        (0..self.count).map(|nth| &self.batches[self.index(nth)])
    }

    /// Takes a higher epoch and forgets the batches of the lower one (P-39, M-7). A lower one is ignored: replay meets
    /// it only in a log that this broker did not write.
    pub(crate) fn raise_epoch(&mut self, producer_epoch: ProducerEpoch) {
        if producer_epoch > self.producer_epoch {
            self.producer_epoch = producer_epoch;
            self.count = 0;
            self.oldest = 0;
        }
    }

    /// Remembers a batch, in the place of the oldest one when there are five already (P-31).
    pub(crate) fn remember(&mut self, batch: RememberedBatch) {
        if usize::from(self.count) < REMEMBERED_BATCHES {
            let free = self.index(self.count);
            self.batches[free] = batch;
            self.count += 1;
            return;
        }
        let oldest = self.index(0);
        self.batches[oldest] = batch;
        self.oldest = (self.oldest + 1) % Self::CAPACITY;
    }

    /// Opens a transaction at `first_offset`, unless one is open (P-54).
    pub(crate) fn open(&mut self, first_offset: Offset) {
        debug_assert!(self.open_transaction().is_none(), "one at a time");
        self.open_first_offset = first_offset;
    }

    /// Ends the open transaction and returns its first offset.
    pub(crate) fn close(&mut self) -> Option<Offset> {
        let first_offset = self.open_transaction()?;
        self.open_first_offset = Offset::NONE;
        Some(first_offset)
    }

    /// D-14: a copy of a batch of the transaction that began at `first_offset` must not be taken for written.
    pub(crate) fn mark_aborted_from(&mut self, first_offset: Offset) {
        for nth in 0..self.count {
            let index = self.index(nth);
            if self.batches[index].base_offset >= first_offset {
                self.batches[index].mark_aborted();
            }
        }
    }

    /// Notes that something of this producer was appended (D-2).
    pub(crate) const fn touch(&mut self, now: Now) {
        self.last_append_ms = now.wall_ms;
    }

    #[allow(clippy::cast_possible_truncation, reason = "five")]
    const CAPACITY: u8 = REMEMBERED_BATCHES as u8;

    fn newest(&self) -> Option<&RememberedBatch> {
        let last = self.count.checked_sub(1)?;
        Some(&self.batches[self.index(last)])
    }

    fn index(&self, nth: u8) -> usize {
        usize::from((self.oldest + nth) % Self::CAPACITY)
    }

    /// Panics unless the remembered batches are in order.
    pub(crate) fn check_invariants(&self) {
        assert!(usize::from(self.count) <= REMEMBERED_BATCHES);
        assert!(self.producer_epoch >= ProducerEpoch(0), "no epoch");
        let mut before = None;
        for batch in self.batches() {
            assert!(batch.base_sequence >= Sequence(0), "remembered without one");
            if let Some(before) = before {
                assert!(batch.base_offset > before, "remembered out of order");
            }
            before = Some(batch.last_offset());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(sequence: i32) -> RememberedBatch {
        RememberedBatch::new(Sequence(sequence), 0, Offset(i64::from(sequence)), 7)
    }

    #[test]
    fn p31_the_sixth_batch_pushes_out_the_first() {
        let mut entry = Entry::new(ProducerEpoch(0));
        for sequence in 0..12 {
            entry.remember(batch(sequence));
            let kept: Vec<i32> = entry.batches().map(|b| b.base_sequence().0).collect();
            let expected: Vec<i32> = ((sequence - 4).max(0)..=sequence).collect();
            assert_eq!(kept, expected);
            entry.check_invariants();
        }
    }

    #[test]
    fn p49_a_remembered_batch_may_cross_the_wrap() {
        let batch = RememberedBatch::new(Sequence(i32::MAX - 1), 3, Offset(10), 0);
        assert_eq!(batch.last_sequence(), Sequence(1));
        assert_eq!(batch.last_offset(), Offset(13));
    }

    #[test]
    fn d14_marking_starts_at_the_transaction() {
        let mut entry = Entry::new(ProducerEpoch(0));
        (0..4).for_each(|sequence| entry.remember(batch(sequence)));
        entry.mark_aborted_from(Offset(2));
        let aborted: Vec<bool> = entry.batches().map(RememberedBatch::is_aborted).collect();
        assert_eq!(aborted, [false, false, true, true]);
        assert_eq!(entry.last_sequence(), Some(Sequence(3)));
    }
}
