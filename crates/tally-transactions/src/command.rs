//! What goes into the coordinator and what comes out of it: values, never callbacks.
//!
//! Codes in a [`Response`] are those of the newest version of each request (90, 120, …); the broker translates them for
//! older versions (section 0.2 of `docs/exactly-once.md`).

use std::sync::Arc;

use tally_protocol::records::transaction_log::TransactionRecord;
use tally_protocol::{CoordinatorEpoch, ErrorCode, ProducerEpoch, ProducerId};

/// The numbers the coordinator is run with; they may change while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `transaction.max.timeout.ms`: the longest timeout a client may ask for (I-6).
    pub transaction_max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`: how long an id without an open transaction is kept after its last change (S-10).
    pub transactional_id_expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`: transactions are aborted at multiples of this (S-11).
    pub abort_timed_out_interval_ms: u64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`: how often ids are looked through for expiry (S-10).
    pub remove_expired_interval_ms: u64,
    /// The finalized `transaction.version` of the cluster: below 2 a fence follows S-13, from 2 on S-14.
    pub transaction_version: i16,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            transaction_max_timeout_ms: 900_000,
            transactional_id_expiration_ms: 604_800_000,
            abort_timed_out_interval_ms: 10_000,
            remove_expired_interval_ms: 3_600_000,
            transaction_version: 2,
        }
    }
}

/// Who waits for an answer; opaque here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplyTo(pub u64);

/// Producer ids that were reserved durably and may be handed out: `next` up to, not including, `end` (I-22).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerIdBlock {
    /// The next id to hand out.
    pub next: i64,
    /// One past the last id of the block.
    pub end: i64,
}

impl ProducerIdBlock {
    /// Takes one id; `None` when the block is used up, and then requests that need one are answered 14.
    pub fn take(&mut self) -> Option<ProducerId> {
        if self.next >= self.end {
            return None;
        }
        let id = ProducerId(self.next);
        self.next += 1;
        Some(id)
    }
}

/// Which rules a request follows, chosen by its version alone (0.1, 3.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// AddPartitionsToTxn v0-3, AddOffsetsToTxn, EndTxn v0-4: the epoch stays over transactions.
    Tv1,
    /// Implicit joining by Produce v12+ and TxnOffsetCommit v5, EndTxn v5: the epoch rises with every EndTxn (KIP-890).
    Tv2,
}

impl Flow {
    /// The client transaction version that is recorded for a change made by this flow (A-5, S-3).
    #[must_use]
    pub(crate) const fn client_transaction_version(self) -> i16 {
        match self {
            Flow::Tv1 => 0,
            Flow::Tv2 => 2,
        }
    }
}

/// A partition by its topic's name, as the transaction log names it (S-7).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

/// What an InitProducerId v6 asks for besides (KIP-939).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TwoPhase {
    /// Its transactions are decided from outside: they never time out (I-24).
    pub is_enabled: bool,
    /// An open transaction is not aborted: it is handed over to be ended.
    pub keeps_prepared: bool,
}

/// What the coordinator can be asked or told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// InitProducerId with a transactional id (I-6 to I-25).
    InitProducerId {
        /// The id, not empty (I-3 is the broker's).
        transactional_id: Arc<str>,
        /// The transaction timeout the client asks for.
        timeout_ms: i32,
        /// The pair the client believes to hold (v3+), both or none (I-1 is the broker's).
        expected: Option<(ProducerId, ProducerEpoch)>,
    },
    /// InitProducerId of a producer whose transactions an outside coordinator decides (v6, KIP-939).
    InitTwoPhase {
        /// The id.
        transactional_id: Arc<str>,
        /// The transaction timeout the client asks for.
        timeout_ms: i32,
        /// The pair the client believes to hold, both or none.
        expected: Option<(ProducerId, ProducerEpoch)>,
        /// How it differs from InitProducerId.
        two_phase: TwoPhase,
    },
    /// AddPartitionsToTxn, AddOffsetsToTxn and the implicit joining of TV2 (A-4 to A-7, V-2).
    AddPartitions {
        /// The id.
        transactional_id: Arc<str>,
        /// The client's producer id.
        producer_id: ProducerId,
        /// The client's producer epoch.
        producer_epoch: ProducerEpoch,
        /// The partitions that join; may be empty.
        partitions: Vec<TopicPartition>,
        /// By the version of the request.
        flow: Flow,
    },
    /// Asks whether partitions are in the transaction; changes nothing (A-8, V-2).
    VerifyPartitions {
        /// The id.
        transactional_id: Arc<str>,
        /// The client's producer id.
        producer_id: ProducerId,
        /// The client's producer epoch.
        producer_epoch: ProducerEpoch,
        /// The partitions in question.
        partitions: Vec<TopicPartition>,
    },
    /// EndTxn (section 3.4).
    EndTxn {
        /// The id.
        transactional_id: Arc<str>,
        /// The client's producer id.
        producer_id: ProducerId,
        /// The client's producer epoch.
        producer_epoch: ProducerEpoch,
        /// Commit or abort.
        commit: bool,
        /// By the version of the request.
        flow: Flow,
    },
    /// The partitions' answers to an [`Effect::WriteMarkers`] (M-11, D-7, E-8).
    ///
    /// Every partition of a [`MarkerSet`] is answered exactly once, in as many commands as suits the sender; with a code
    /// that asks for another try the partition comes again in a later set. An answer that got lost would hold the
    /// transaction up for ever: whoever can't know what became of a marker answers 56.
    MarkersWritten {
        /// The id.
        transactional_id: Arc<str>,
        /// The marker's producer id.
        producer_id: ProducerId,
        /// The marker's producer epoch.
        producer_epoch: ProducerEpoch,
        /// [`MarkerSet::ending`].
        ending: u64,
        /// Each partition with 0 or the code of its refusal.
        partitions: Vec<(TopicPartition, ErrorCode)>,
    },
}

impl Command {
    /// The id for which a client asks; none for what the coordinator has asked for itself.
    pub(crate) fn client_of(&self) -> Option<&Arc<str>> {
        match self {
            Command::InitProducerId {
                transactional_id, ..
            }
            | Command::InitTwoPhase {
                transactional_id, ..
            }
            | Command::AddPartitions {
                transactional_id, ..
            }
            | Command::VerifyPartitions {
                transactional_id, ..
            }
            | Command::EndTxn {
                transactional_id, ..
            } => Some(transactional_id),
            Command::MarkersWritten { .. } => None,
        }
    }
}

/// The answer to a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// The pair to go on with, or 14, 50, 51, 90.
    InitProducerId(Result<(ProducerId, ProducerEpoch), ErrorCode>),
    /// To `InitTwoPhase`, if a transaction is open: the pair to end it with, and the pair that has written it.
    HandedOver {
        /// The pair to go on with.
        producer: (ProducerId, ProducerEpoch),
        /// The pair of the open transaction.
        ongoing: (ProducerId, ProducerEpoch),
    },
    /// One code for all partitions: 0, 49, 51, 90.
    AddPartitions(ErrorCode),
    /// Per partition 0 or 120; for the whole transaction 49, 51, 90.
    VerifyPartitions(Result<Vec<(TopicPartition, ErrorCode)>, ErrorCode>),
    /// The pair to go on with (v5 shows it), or 14, 48, 49, 51, 90.
    EndTxn(Result<(ProducerId, ProducerEpoch), ErrorCode>),
}

/// What is to be done once the records of the decision are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Answer a request.
    Reply {
        /// Whom.
        to: ReplyTo,
        /// With what.
        response: Response,
    },
    /// Append a marker to each of these partitions and answer with [`Command::MarkersWritten`] (E-5).
    WriteMarkers(MarkerSet),
}

/// The markers that end one transaction, or those of them that are still missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MarkerSet {
    /// The id, to be given back in [`Command::MarkersWritten`].
    pub transactional_id: Arc<str>,
    /// The marker's producer id.
    pub producer_id: ProducerId,
    /// The marker's producer epoch: the data's epoch (TV1) or one more (TV2, fences; M-4).
    pub producer_epoch: ProducerEpoch,
    /// The coordinator's epoch (M-5).
    pub coordinator_epoch: CoordinatorEpoch,
    /// Names this end of this transaction, in this life of the coordinator; to be given back in
    /// [`Command::MarkersWritten`]. Pid and epoch don't: a TV1 client keeps them, and a late answer must not pass for that of
    /// the next transaction.
    pub ending: u64,
    /// COMMIT or ABORT.
    pub commit: bool,
    /// The rule by which the partition checks the epoch: 0 or 1, or 2 (M-4).
    pub transaction_version: i8,
    /// Who gets it, sorted by topic and number.
    pub partitions: Vec<TopicPartition>,
}

/// What to append, and what to do after.
///
/// The runner appends `records`, calls `apply` for each, and lets `effects` leave when what was appended is durable. If
/// `records` cannot be appended the whole decision is dropped and the requester answered with the translated error
/// (S-2): a coordinator that decided and was not made to apply is unchanged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// Records for the transaction log, in this order.
    pub records: Vec<TransactionRecord>,
    /// What leaves after them.
    pub effects: Vec<Effect>,
}

impl Decision {
    /// Nothing to append and nobody to answer.
    pub(crate) fn nothing() -> Decision {
        Decision::default()
    }

    /// An answer that needs no record.
    pub(crate) fn reply(to: ReplyTo, response: Response) -> Decision {
        Decision {
            records: Vec::new(),
            effects: vec![Effect::Reply { to, response }],
        }
    }

    /// One record, then an answer.
    pub(crate) fn record_and_reply(
        record: TransactionRecord,
        to: ReplyTo,
        response: Response,
    ) -> Decision {
        Decision {
            records: vec![record],
            effects: vec![Effect::Reply { to, response }],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i22_a_block_hands_out_each_id_once_and_then_none() {
        let mut block = ProducerIdBlock { next: 7, end: 9 };
        assert_eq!(block.take(), Some(ProducerId(7)));
        assert_eq!(block.take(), Some(ProducerId(8)));
        assert_eq!(block.take(), None);
        assert_eq!(block.take(), None);
    }
}
