//! The decisions: may this batch, may this marker be appended? Nothing here changes anything (P-41).

use crate::entry::Entry;
use crate::sequence::follows;
use crate::states::ProducerStates;
use crate::verification::{Guard, Verification};
use tally_protocol::{
    BatchHeader, CoordinatorEpoch, ErrorCode, Offset, ProducerEpoch, ProducerId, Sequence, planted,
};

/// What to do with a data batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Append it.
    Append,
    /// It is in the log already (P-32): answer these offsets, no earlier than the original could have been answered
    /// (P-33).
    Duplicate {
        /// Offset of the first record.
        base_offset: Offset,
        /// Offset of the last record: what the answer waits for.
        last_offset: Offset,
        /// The remembered batch's largest timestamp: the answer's log_append_time, in milliseconds.
        max_timestamp: i64,
    },
    /// Do not append it.
    Refuse(Refusal),
}

/// Why a data batch is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A newer producer of that id wrote here (P-38).
    InvalidProducerEpoch,
    /// A batch before this one is missing, or it overlaps what was written (P-39, P-43 to P-48, D-14).
    OutOfOrderSequence,
    /// Outside its transaction: not verified, or plain data in an open transaction (V-5, P-53).
    InvalidTxnState,
    /// Verified before the partition was loaded anew: nobody knows what has happened since, and whoever sends it again is
    /// verified again (K-1).
    VerifiedBefore,
}

impl Refusal {
    /// The code on the wire, as for the newest version of Produce.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Refusal::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
            Refusal::OutOfOrderSequence => ErrorCode::OutOfOrderSequenceNumber,
            Refusal::InvalidTxnState => ErrorCode::InvalidTxnState,
            Refusal::VerifiedBefore => ErrorCode::NotLeaderOrFollower,
        }
    }
}

/// A marker that ends a transaction of a producer on this partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    /// Whose transaction ends.
    pub producer_id: ProducerId,
    /// The epoch after which the producer may go on.
    pub producer_epoch: ProducerEpoch,
    /// The epoch of the coordinator that decided.
    pub coordinator_epoch: CoordinatorEpoch,
    /// COMMIT or ABORT.
    pub commit: bool,
    /// By which rules the epoch is checked: 2 = the marker's epoch is above the data's (M-4). Replay passes 0.
    pub transaction_version: i8,
}

/// What to do with a marker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkerVerdict {
    /// Append it.
    Append,
    /// It would change nothing: answer success without appending (M-8), and call
    /// [`ProducerStates::marker_already_written`].
    AlreadyWritten,
    /// Do not append it.
    Refuse(MarkerRefusal),
}

/// Why a marker is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkerRefusal {
    /// A newer producer of that id wrote here (M-4).
    OldProducerEpoch,
    /// A newer coordinator wrote here (M-5).
    OldCoordinatorEpoch,
}

impl MarkerRefusal {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            MarkerRefusal::OldProducerEpoch => ErrorCode::InvalidProducerEpoch,
            MarkerRefusal::OldCoordinatorEpoch => ErrorCode::TransactionCoordinatorFenced,
        }
    }
}

impl ProducerStates {
    /// Decides whether a client's batch may be appended for its producer (P-22 to P-24, KIP-98, KIP-360, KIP-890).
    /// Changes nothing (P-41).
    ///
    /// `guard` is what [`ProducerStates::begin_verification`] gave, if it gave one. A batch with a producer but without
    /// a sequence is a coordinator's own (P-37, V-10): never a duplicate, and no sequence rules.
    ///
    /// The duplicate test comes before epoch and sequence: a retry of an earlier batch must get its old offset, never
    /// OUT_OF_ORDER_SEQUENCE_NUMBER, which librdkafka treats as fatal.
    #[must_use]
    pub fn check(&self, header: &BatchHeader, guard: Option<Guard>) -> Verdict {
        if !header.has_producer() {
            return Verdict::Append;
        }
        let entry = self.entry(header.producer_id);
        if header.base_sequence != Sequence::NONE
            && !planted::is("p32")
            && let Some(earlier) = entry.and_then(|entry| entry.remembered(header))
        {
            if earlier.is_aborted() && !planted::is("d14") {
                // D-14: it is in the log, but nobody will ever read it.
                return Verdict::Refuse(Refusal::OutOfOrderSequence);
            }
            return Verdict::Duplicate {
                base_offset: if planted::is("p36") {
                    earlier.base_offset.next()
                } else {
                    earlier.base_offset
                },
                last_offset: earlier.last_offset(),
                max_timestamp: earlier.max_timestamp,
            };
        }
        let refusal = self
            .verification_refusal(entry, header, guard)
            .or_else(|| self.sequence_refusal(entry, header))
            .or_else(|| mixing_refusal(entry, header));
        match refusal {
            Some(refusal) => Verdict::Refuse(refusal),
            None => Verdict::Append,
        }
    }

    /// Decides whether a marker may be appended (M-4, M-5, M-6, M-8). Changes nothing.
    #[must_use]
    pub fn check_marker(&self, marker: &Marker) -> MarkerVerdict {
        let Some(entry) = self.entry(marker.producer_id) else {
            return MarkerVerdict::Append; // M-6
        };
        let is_open = entry.open_transaction().is_some();
        let is_old = if marker.transaction_version >= 2 && is_open {
            // M-4: data of the transaction has the epoch below the marker's, but 32767 has no successor (I-21).
            marker.producer_epoch < entry.producer_epoch
                || (marker.producer_epoch == entry.producer_epoch
                    && marker.producer_epoch != ProducerEpoch(i16::MAX))
        } else {
            marker.producer_epoch < entry.producer_epoch
        };
        if is_old {
            return MarkerVerdict::Refuse(MarkerRefusal::OldProducerEpoch);
        }
        if marker.coordinator_epoch < entry.coordinator_epoch {
            return MarkerVerdict::Refuse(MarkerRefusal::OldCoordinatorEpoch);
        }
        let is_known = marker.producer_epoch == entry.producer_epoch
            && marker.coordinator_epoch == entry.coordinator_epoch;
        if is_known && !is_open {
            // Only when it changes nothing: a higher coordinator epoch has to be remembered (M-5), also by replay.
            return MarkerVerdict::AlreadyWritten;
        }
        MarkerVerdict::Append
    }

    /// P-23: a batch that begins a transaction here must have been verified, and nothing may have ended meanwhile (V-5).
    fn verification_refusal(
        &self,
        entry: Option<&Entry>,
        header: &BatchHeader,
        guard: Option<Guard>,
    ) -> Option<Refusal> {
        if !header.is_transactional() {
            return None;
        }
        if entry.is_some_and(|entry| entry.has_open_transaction_of(header.producer_epoch)) {
            return None;
        }
        if entry.is_some_and(|entry| header.producer_epoch < entry.producer_epoch) {
            return Some(Refusal::InvalidProducerEpoch);
        }
        let producer = (header.producer_id, header.producer_epoch);
        let verifications = self.verifications();
        if verifications.holds(producer, guard) {
            return None;
        }
        let is_known = guard.is_none_or(|guard| verifications.has_given(guard));
        Some(if is_known {
            Refusal::InvalidTxnState
        } else {
            Refusal::VerifiedBefore
        })
    }

    /// P-38 to P-48: epoch, then sequence.
    fn sequence_refusal(&self, entry: Option<&Entry>, header: &BatchHeader) -> Option<Refusal> {
        let is_old = entry.is_some_and(|entry| header.producer_epoch < entry.producer_epoch);
        if is_old && !planted::is("p38") {
            return Some(Refusal::InvalidProducerEpoch); // P-38
        }
        if header.base_sequence == Sequence::NONE {
            return None; // P-37, V-10
        }
        let starts_anew = header.base_sequence == Sequence(0);
        let is_in_order = match entry {
            Some(entry) if header.producer_epoch > entry.producer_epoch => starts_anew, // P-39
            Some(entry) => match entry.last_sequence() {
                Some(last) => follows(last, header.base_sequence), // P-44 to P-46
                None => starts_anew,                               // P-47
            },
            None => self.may_start_at(header),
        };
        if is_in_order || planted::is("p46") {
            None
        } else {
            Some(Refusal::OutOfOrderSequence)
        }
    }

    /// Whether a producer without an entry may start with this batch.
    ///
    /// Yes, wherever it starts: expired or lost state must not stop a live client (P-42, P-50). But a TV2 transaction
    /// starts at 0 (P-43), and a batch must not overtake an earlier one that still waits to be verified, or that one
    /// would be refused for ever (P-48, V-7). With an entry the sequence alone sees to both.
    fn may_start_at(&self, header: &BatchHeader) -> bool {
        if !header.is_transactional() {
            return true;
        }
        let producer = (header.producer_id, header.producer_epoch);
        let verifications = self.verifications();
        let must_be_zero = verifications.is_tv2(producer);
        (!must_be_zero || header.base_sequence == Sequence(0))
            && !verifications.is_overtaking(producer, header.base_sequence)
    }

    /// Whether the coordinator has to be asked at all (V-1).
    pub(crate) fn needs_no_verification(
        &self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
    ) -> Option<Verification> {
        let entry = self.entry(producer_id)?;
        if producer_epoch < entry.producer_epoch {
            return Some(Verification::Refuse(Refusal::InvalidProducerEpoch));
        }
        entry
            .has_open_transaction_of(producer_epoch)
            .then_some(Verification::NotNeeded)
    }
}

/// P-53: plain data may not be mixed into an open transaction.
fn mixing_refusal(entry: Option<&Entry>, header: &BatchHeader) -> Option<Refusal> {
    let is_open = entry.is_some_and(|entry| entry.open_transaction().is_some());
    (is_open && !header.is_transactional()).then_some(Refusal::InvalidTxnState)
}
