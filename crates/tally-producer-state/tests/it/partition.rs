//! A partition around the core, as the shard drives it: verify, check, append to a log in memory, apply.

use tally_producer_state::{
    AbortedTransaction, Flow, Guard, Marker, MarkerVerdict, ProducerStates, Refusal, Verdict,
    Verification,
};
use tally_protocol::batch::TRANSACTIONAL_BIT;
use tally_protocol::{
    BatchHeader, CoordinatorEpoch, LeaderEpoch, Now, Offset, ProducerEpoch, ProducerId, Sequence,
};

/// The producer of most cases.
pub(crate) const A: i64 = 1000;
/// Another one.
pub(crate) const B: i64 = 2000;

/// A moment: both clocks show it.
pub(crate) fn at(ms: u32) -> Now {
    Now {
        monotonic_ms: u64::from(ms),
        wall_ms: i64::from(ms),
    }
}

/// A plain batch of `n` records; its base offset is nonsense, as on the live path.
pub(crate) fn plain(pid: i64, epoch: i16, sequence: i32, n: i32) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(0),
        batch_length: 49,
        leader_epoch: LeaderEpoch(-1),
        crc: 0,
        attributes: 0,
        last_offset_delta: n - 1,
        base_timestamp: 0,
        max_timestamp: 77,
        producer_id: ProducerId(pid),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        records_count: n,
    }
}

/// A batch of a transaction.
pub(crate) fn transactional(pid: i64, epoch: i16, sequence: i32, n: i32) -> BatchHeader {
    BatchHeader {
        attributes: TRANSACTIONAL_BIT,
        ..plain(pid, epoch, sequence, n)
    }
}

/// A marker of transaction version 0, coordinator epoch 0.
pub(crate) fn marker(pid: i64, epoch: i16, commit: bool) -> Marker {
    Marker {
        producer_id: ProducerId(pid),
        producer_epoch: ProducerEpoch(epoch),
        coordinator_epoch: CoordinatorEpoch(0),
        commit,
        transaction_version: 0,
    }
}

/// What a producer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Appended at this offset.
    At(i64),
    /// In the log already, at this offset.
    Again(i64),
    /// Refused with this code.
    Code(i16),
}

/// One appended batch.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Logged {
    Data(BatchHeader),
    Marker(Offset, Marker),
}

/// A partition in memory.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) states: ProducerStates,
    pub(crate) log: Vec<Logged>,
    pub(crate) rows: Vec<AbortedTransaction>,
    pub(crate) end: Offset,
    pub(crate) now: Now,
}

impl Partition {
    pub(crate) fn new() -> Partition {
        Partition {
            states: ProducerStates::new(1),
            log: Vec::new(),
            rows: Vec::new(),
            end: Offset::ZERO,
            now: at(0),
        }
    }

    /// Verifies with a coordinator that always agrees, then produces.
    pub(crate) fn produce(&mut self, header: BatchHeader) -> Answer {
        self.produce_by(header, Flow::Tv1)
    }

    pub(crate) fn produce_by(&mut self, header: BatchHeader, flow: Flow) -> Answer {
        if !header.is_transactional() {
            return self.append(header, None);
        }
        match self.verify(&header, flow) {
            Verification::NotNeeded => self.append(header, None),
            Verification::Needed(guard) => self.append(header, Some(guard)),
            Verification::Refuse(refusal) => Answer::Code(refusal.code().code()),
        }
    }

    pub(crate) fn verify(&mut self, header: &BatchHeader, flow: Flow) -> Verification {
        self.states.begin_verification(
            header.producer_id,
            header.producer_epoch,
            header.base_sequence,
            flow,
            self.now,
        )
    }

    /// A guard; panics if none is needed.
    #[track_caller]
    pub(crate) fn guard(&mut self, header: &BatchHeader, flow: Flow) -> Guard {
        match self.verify(header, flow) {
            Verification::Needed(guard) => guard,
            other => panic!("no guard but {other:?}"),
        }
    }

    pub(crate) fn append(&mut self, header: BatchHeader, guard: Option<Guard>) -> Answer {
        match self.states.check(&header, guard) {
            Verdict::Append => {
                let base_offset = self.end;
                self.states.apply(base_offset, &header, self.now);
                self.log.push(Logged::Data(BatchHeader {
                    base_offset,
                    ..header
                }));
                self.end = base_offset.plus(i64::from(header.last_offset_delta) + 1);
                self.states.check_invariants();
                Answer::At(base_offset.0)
            }
            Verdict::Duplicate {
                base_offset,
                last_offset,
                max_timestamp,
            } => {
                assert_eq!(
                    last_offset,
                    base_offset.plus(i64::from(header.last_offset_delta))
                );
                assert_eq!(max_timestamp, 77);
                Answer::Again(base_offset.0)
            }
            Verdict::Refuse(refusal) => Answer::Code(refusal.code().code()),
        }
    }

    /// Appends a marker if it may be; the high watermark follows at once.
    pub(crate) fn end(&mut self, marker: Marker) -> Answer {
        let answer = self.end_unseen(marker);
        self.states.high_watermark(self.end);
        answer
    }

    /// Appends a marker if it may be; the high watermark stays.
    pub(crate) fn end_unseen(&mut self, marker: Marker) -> Answer {
        match self.states.check_marker(&marker) {
            MarkerVerdict::Append => {
                let offset = self.end;
                self.rows
                    .extend(self.states.apply_marker(offset, &marker, self.now));
                self.log.push(Logged::Marker(offset, marker));
                self.end = offset.next();
                self.states.check_invariants();
                Answer::At(offset.0)
            }
            MarkerVerdict::AlreadyWritten => {
                self.states.marker_already_written(&marker);
                Answer::Again(-1)
            }
            MarkerVerdict::Refuse(refusal) => Answer::Code(refusal.code().code()),
        }
    }

    /// The state as bytes, for comparisons.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.states.snapshot(self.end)
    }
}

/// Applies logged batches, as a start does.
pub(crate) fn replay(
    states: &mut ProducerStates,
    log: &[Logged],
    now: Now,
) -> Vec<AbortedTransaction> {
    let mut rows = Vec::new();
    for logged in log {
        match logged {
            Logged::Data(header) => states.apply(header.base_offset, header, now),
            Logged::Marker(offset, marker) => {
                rows.extend(states.apply_marker(*offset, marker, now))
            }
        }
    }
    rows
}

/// Produces the batches one after the other and compares the answers.
#[track_caller]
pub(crate) fn check(partition: &mut Partition, cases: &[(BatchHeader, Answer)]) {
    for (nth, (header, expected)) in cases.iter().enumerate() {
        let got = partition.produce(*header);
        assert_eq!(
            got, *expected,
            "case {nth}: epoch {} sequence {} count {}",
            header.producer_epoch, header.base_sequence, header.records_count
        );
    }
}

/// OUT_OF_ORDER_SEQUENCE_NUMBER.
pub(crate) const OUT_OF_ORDER: Answer = Answer::Code(45);
/// INVALID_PRODUCER_EPOCH.
pub(crate) const OLD_EPOCH: Answer = Answer::Code(47);
/// INVALID_TXN_STATE.
pub(crate) const WRONG_STATE: Answer = Answer::Code(48);

#[test]
fn refusals_have_the_codes_of_the_wire() {
    assert_eq!(Refusal::OutOfOrderSequence.code().code(), 45);
    assert_eq!(Refusal::InvalidProducerEpoch.code().code(), 47);
    assert_eq!(Refusal::InvalidTxnState.code().code(), 48);
}
