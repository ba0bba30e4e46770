//! InitProducerId with a transactional id (I-6 to I-25, D-4, D-5).
//!
//! Who may continue with which pair is decided by [`judge`], a function of the stored value alone.

use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionRecord, TransactionValue};
use tally_protocol::{ErrorCode, Now, ProducerEpoch, ProducerId, planted};

use crate::command::{Command, Decision, Effect, ProducerIdBlock, ReplyTo, Response, TwoPhase};
use crate::coordinator::TransactionCoordinator;
use crate::state::{Cause, Reason};
use crate::transitions::{self, NEVER_TIMES_OUT_MS, Phase, is_exhausted};

/// The request, as in [`crate::Command::InitProducerId`].
pub(crate) struct InitProducerId {
    pub(crate) transactional_id: Arc<str>,
    pub(crate) timeout_ms: i32,
    pub(crate) expected: Option<(ProducerId, ProducerEpoch)>,
    pub(crate) two_phase: TwoPhase,
}

impl InitProducerId {
    /// The request of a command that is one.
    pub(crate) fn of(command: Command) -> Option<InitProducerId> {
        match command {
            Command::InitProducerId {
                transactional_id,
                timeout_ms,
                expected,
            } => Some(InitProducerId {
                transactional_id,
                timeout_ms,
                expected,
                two_phase: TwoPhase::default(),
            }),
            Command::InitTwoPhase {
                transactional_id,
                timeout_ms,
                expected,
                two_phase,
            } => Some(InitProducerId {
                transactional_id,
                timeout_ms,
                expected,
                two_phase,
            }),
            Command::AddPartitions { .. }
            | Command::VerifyPartitions { .. }
            | Command::EndTxn { .. }
            | Command::MarkersWritten { .. } => None,
        }
    }
}

/// What becomes of a request for a known id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Judgement {
    /// The epoch rises; `last` is remembered for a retry (I-10, I-14).
    Raise { last: ProducerEpoch },
    /// The epoch is used up: another pid (I-17).
    Rotate { last: ProducerEpoch },
    /// A retry of a request whose answer was lost: the current pair (I-15, I-18, I-19).
    Repeat,
    /// A transaction is open: abort it with fence, answer 51 (I-13); or hand it over, where that is asked for (KIP-939).
    Fence,
    /// The requester is refused.
    Refuse(ErrorCode),
}

impl TransactionCoordinator {
    pub(crate) fn init_producer_id(
        &mut self,
        now: Now,
        request: InitProducerId,
        to: ReplyTo,
        ids: &mut ProducerIdBlock,
    ) -> Decision {
        let refuse = |code| Decision::reply(to, Response::InitProducerId(Err(code)));
        let timeouts = 1..=self.settings.transaction_max_timeout_ms;
        let timeout_ms = if request.two_phase.is_enabled {
            NEVER_TIMES_OUT_MS // I-24
        } else if timeouts.contains(&request.timeout_ms) {
            request.timeout_ms
        } else {
            return refuse(ErrorCode::InvalidTransactionTimeout); // I-6
        };
        let Some(value) = self.hard.ids.get(&request.transactional_id) else {
            // I-8. A pair that is given is accepted: the id may have expired (S-10).
            let Some(producer_id) = ids.take() else {
                return refuse(ErrorCode::CoordinatorLoadInProgress); // I-22
            };
            let value = transitions::first(producer_id, timeout_ms, now);
            return self.grant(now, request.transactional_id, value, Cause::Other, to);
        };
        let cause = match request.expected {
            None => Cause::Broker(Reason::TakenOver),
            Some(_) => Cause::Other,
        };
        let next = match judge(value, request.expected) {
            Judgement::Refuse(code) => return refuse(code),
            Judgement::Fence if request.two_phase.keeps_prepared => {
                let Some(next) = transitions::hand_over(value, ids, now) else {
                    return refuse(ErrorCode::CoordinatorLoadInProgress); // I-22
                };
                next
            }
            Judgement::Fence => return self.fence(now, &request.transactional_id, to, ids),
            Judgement::Repeat if is_late(value) => {
                let pair = (value.producer_id, value.producer_epoch);
                return Decision::reply(to, Response::InitProducerId(Ok(pair)));
            }
            Judgement::Repeat => {
                transitions::empty(value, value.producer_epoch, value.last_producer_epoch, now)
            }
            Judgement::Raise { last } => {
                transitions::empty(value, value.producer_epoch.next(), last, now)
            }
            Judgement::Rotate { last } => {
                let Some(producer_id) = ids.take() else {
                    return refuse(ErrorCode::CoordinatorLoadInProgress); // I-22
                };
                transitions::rotated(value, producer_id, last, now)
            }
        };
        let next = TransactionValue { timeout_ms, ..next };
        self.grant(now, request.transactional_id, next, cause, to)
    }

    /// Writes the pair down and answers it (I-20).
    fn grant(
        &mut self,
        now: Now,
        transactional_id: Arc<str>,
        value: TransactionValue,
        cause: Cause,
        to: ReplyTo,
    ) -> Decision {
        self.stage(now, cause);
        let pair = transitions::client_pair(&value);
        let response = if transitions::is_prepared(&value) {
            Response::HandedOver {
                producer: pair,
                ongoing: (value.producer_id, value.producer_epoch),
            }
        } else {
            Response::InitProducerId(Ok(pair))
        };
        let record = TransactionRecord {
            transactional_id,
            value: Some(value),
        };
        Decision::record_and_reply(record, to, response)
    }

    /// Aborts the open transaction with fence and sends the client to try again (I-13, 2.4).
    fn fence(
        &mut self,
        now: Now,
        transactional_id: &Arc<str>,
        to: ReplyTo,
        ids: &mut ProducerIdBlock,
    ) -> Decision {
        let answer = |code| Effect::Reply {
            to,
            response: Response::InitProducerId(Err(code)),
        };
        let cause = Cause::Broker(Reason::FencedByInitProducerId);
        match self.abort_with_fence(now, transactional_id, cause, ids) {
            Some(mut decision) => {
                decision
                    .effects
                    .push(answer(ErrorCode::ConcurrentTransactions));
                decision
            }
            None => Decision {
                records: Vec::new(),
                effects: vec![answer(ErrorCode::CoordinatorLoadInProgress)],
            },
        }
    }
}

/// Decides for a known id: I-9 to I-19, in the order of Kafka's checks.
fn judge(value: &TransactionValue, expected: Option<(ProducerId, ProducerEpoch)>) -> Judgement {
    let fenced = Judgement::Refuse(ErrorCode::ProducerFenced);
    match Phase::of(value) {
        // I-9 before I-11: while markers are out nothing else is looked at.
        Phase::Ending => Judgement::Refuse(ErrorCode::ConcurrentTransactions),
        Phase::Ongoing => match expected {
            None => Judgement::Fence,
            Some(pair) if pair == transitions::client_pair(value) => Judgement::Fence,
            // I-11, and D-4: a zombie must not abort its successor's work.
            Some(_) => fenced,
        },
        Phase::Empty | Phase::Ended { .. } => match expected {
            None if is_exhausted(value.producer_epoch) => Judgement::Rotate {
                last: ProducerEpoch::NONE,
            },
            None if planted::is("i10") && value.producer_epoch.0 > 0 => Judgement::Repeat,
            None => Judgement::Raise {
                last: ProducerEpoch::NONE,
            },
            Some((producer_id, epoch)) if producer_id == value.producer_id => {
                judge_epoch(value, epoch)
            }
            // I-19: the pid rotated and the answer was lost.
            Some((producer_id, epoch))
                if producer_id == value.previous_producer_id
                    && is_exhausted(epoch)
                    && epoch == value.last_producer_epoch =>
            {
                Judgement::Repeat
            }
            Some(_) => fenced, // I-11
        },
    }
}

/// Whether a request that is answered like a retry is a copy that comes late: its sender was answered and has ended a transaction
/// since. With the id back in Empty, a commit whose answer was lost would be told that there is nothing to commit. Of the new flow,
/// and of a broker's fence, the end raises the epoch: there the request may be the first one.
fn is_late(value: &TransactionValue) -> bool {
    matches!(Phase::of(value), Phase::Ended { .. }) && value.client_transaction_version < 2
}

/// The pid is the current one: what the epoch says (I-14 to I-18).
fn judge_epoch(value: &TransactionValue, epoch: ProducerEpoch) -> Judgement {
    if epoch == value.producer_epoch {
        let last = value.producer_epoch;
        return if is_exhausted(last) {
            Judgement::Rotate { last } // I-17
        } else {
            Judgement::Raise { last } // I-14
        };
    }
    // I-15, and D-5 at a used-up epoch. A newer InitProducerId without a pair has set the last epoch to -1.
    if epoch == value.last_producer_epoch && epoch != ProducerEpoch::NONE {
        return Judgement::Repeat;
    }
    Judgement::Refuse(ErrorCode::ProducerFenced) // I-16
}
