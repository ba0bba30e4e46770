//! EndTxn: the tables of section 3.4, and the abort with fence (2.4).
//!
//! [`judge_tv1`] and [`judge_tv2`] are the tables; the path is chosen by the version of the request alone.

use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionRecord, TransactionValue};
use tally_protocol::{ErrorCode, Now, ProducerEpoch, ProducerId, planted};

use crate::command::{
    Command, Decision, Effect, Flow, ProducerIdBlock, ReplyTo, Response, TopicPartition,
};
use crate::coordinator::TransactionCoordinator;
use crate::state::{Cause, Note};
use crate::transitions::{self, Ending, EpochChange, Phase};

/// The request, as in [`crate::Command::EndTxn`].
#[derive(Clone, Copy)]
pub(crate) struct EndTxn {
    pub(crate) producer: (ProducerId, ProducerEpoch),
    pub(crate) commit: bool,
    pub(crate) flow: Flow,
}

impl EndTxn {
    fn judge(self, value: &TransactionValue) -> Judgement {
        match self.flow {
            Flow::Tv1 => judge_tv1(value, self),
            Flow::Tv2 => judge_tv2(value, self),
        }
    }
}

/// What becomes of an EndTxn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Judgement {
    /// The transaction ends as asked; for TV2 also one that was never begun (E-3).
    End,
    /// It has ended so before: the current pair.
    Repeat,
    /// The requester is refused.
    Refuse(ErrorCode),
}

const FENCED: Judgement = Judgement::Refuse(ErrorCode::ProducerFenced);
const INVALID_STATE: Judgement = Judgement::Refuse(ErrorCode::InvalidTxnState);
const UNKNOWN: Judgement = Judgement::Refuse(ErrorCode::InvalidProducerIdMapping);
const PENDING: Judgement = Judgement::Refuse(ErrorCode::ConcurrentTransactions);

impl TransactionCoordinator {
    pub(crate) fn end_txn(
        &mut self,
        now: Now,
        transactional_id: &Arc<str>,
        request: EndTxn,
        to: ReplyTo,
        ids: &mut ProducerIdBlock,
    ) -> Decision {
        let answer = |result| Decision::reply(to, Response::EndTxn(result));
        let Some(value) = self.hard.ids.get(transactional_id) else {
            return answer(Err(ErrorCode::InvalidProducerIdMapping));
        };
        let epoch = match request.judge(value) {
            Judgement::Refuse(code) => return answer(Err(code)),
            Judgement::Repeat => return answer(Ok((value.producer_id, value.producer_epoch))),
            Judgement::End => match request.flow {
                Flow::Tv1 => Some(EpochChange::Keep),
                Flow::Tv2 => EpochChange::tv2(value, ids),
            },
        };
        let Some(epoch) = epoch else {
            return answer(Err(ErrorCode::CoordinatorLoadInProgress)); // I-22
        };
        let ending = Ending {
            commit: request.commit,
            epoch,
            client_transaction_version: request.flow.client_transaction_version(),
        };
        let prepare = transitions::prepare(value, ending, now);
        self.end(now, transactional_id, prepare, Cause::EndTxn { to })
    }

    /// The partitions of the transaction that `command` would commit if it were decided now (E-7); empty if it would not
    /// commit any.
    #[must_use]
    pub fn to_commit(&self, command: &Command) -> Vec<TopicPartition> {
        let Command::EndTxn {
            transactional_id,
            producer_id,
            producer_epoch,
            commit: true,
            flow,
        } = command
        else {
            return Vec::new();
        };
        let request = EndTxn {
            producer: (*producer_id, *producer_epoch),
            commit: true,
            flow: *flow,
        };
        match self.hard.ids.get(transactional_id) {
            Some(value) if request.judge(value) == Judgement::End => {
                transitions::partitions_of(value).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Aborts the open transaction of an id and makes its producer's epoch stale (2.4); `None` while that takes a pid and
    /// there is none (I-22).
    pub(crate) fn abort_with_fence(
        &mut self,
        now: Now,
        transactional_id: &Arc<str>,
        cause: Cause,
        ids: &mut ProducerIdBlock,
    ) -> Option<Decision> {
        let value = self.hard.ids.get(transactional_id)?;
        let epoch = if self.settings.transaction_version < 2 {
            EpochChange::RaiseAndForget // S-13
        } else {
            EpochChange::tv2(value, ids)? // S-14
        };
        let ending = Ending {
            commit: false,
            epoch,
            // S-3: for an abort made by the broker it is the cluster's, whatever the client is.
            client_transaction_version: self.settings.transaction_version,
        };
        let prepare = transitions::prepare(value, ending, now);
        Some(self.end(now, transactional_id, prepare, cause))
    }

    /// Prepare, then markers; with no partitions Prepare and Complete at once (E-3, A-7).
    fn end(
        &mut self,
        now: Now,
        transactional_id: &Arc<str>,
        prepare: TransactionValue,
        cause: Cause,
    ) -> Decision {
        self.stage(now, cause);
        let record = |value| TransactionRecord {
            transactional_id: Arc::clone(transactional_id),
            value: Some(value),
        };
        if transitions::partitions_of(&prepare).next().is_some() {
            let markers = self.marker_set(
                transactional_id,
                &prepare,
                self.soft.event,
                transitions::partitions_of(&prepare).collect(),
            );
            return Decision {
                records: vec![record(prepare)],
                effects: vec![Effect::WriteMarkers(markers)],
            };
        }
        let complete = transitions::complete(&prepare, now);
        let effects = match cause {
            Cause::EndTxn { to } => {
                let pair = (complete.producer_id, complete.producer_epoch);
                let response = Response::EndTxn(Ok(pair));
                vec![Effect::Reply { to, response }]
            }
            Cause::Broker(_) | Cause::Other => Vec::new(),
        };
        Decision {
            records: vec![record(prepare), record(complete)],
            effects,
        }
    }

    /// The notes that were made since the last call, to be logged.
    pub fn take_news(&mut self) -> Vec<(Arc<str>, Note)> {
        self.soft.take_news()
    }

    /// Why the id was last fenced, aborted or forgotten, as far as this life of the coordinator knows (B-21).
    #[must_use]
    pub fn note(&self, transactional_id: &str) -> Option<Note> {
        self.soft.note(transactional_id)
    }
}

/// The table of TV1 (v0-4): pid and epoch are looked at before a pending move.
fn judge_tv1(value: &TransactionValue, request: EndTxn) -> Judgement {
    let (producer_id, producer_epoch) = transitions::client_pair(value);
    if producer_id != request.producer.0 {
        return UNKNOWN;
    }
    if producer_epoch != request.producer.1 && !planted::is("s15") {
        return FENCED;
    }
    match Phase::of(value) {
        Phase::Ongoing => Judgement::End,
        // Complete is pending from Prepare on, so the rows of the Prepare states are never seen (last row of 3.10).
        Phase::Ending => PENDING,
        Phase::Ended { commit } if commit == request.commit => Judgement::Repeat,
        Phase::Ended { .. } | Phase::Empty => INVALID_STATE,
    }
}

/// The table of TV2 (v5): a pending move is looked at before pid and epoch.
fn judge_tv2(value: &TransactionValue, request: EndTxn) -> Judgement {
    let phase = Phase::of(value);
    if phase == Phase::Ending {
        return PENDING;
    }
    let rotated = is_retry_after_rotation(value, request.producer);
    let current = transitions::client_pair(value);
    if current.0 != request.producer.0 && !rotated {
        return UNKNOWN;
    }
    let is_current = current == request.producer;
    let is_retry = rotated || is_retry_after_raise(value, request.producer.1);
    match phase {
        Phase::Ongoing if is_current => Judgement::End,
        Phase::Ended { commit } if is_retry && commit == request.commit => Judgement::Repeat,
        Phase::Ended { .. } if is_retry => INVALID_STATE,
        // E-3: the client can't know whether one of its requests has begun the transaction.
        Phase::Ended { .. } | Phase::Empty if is_current && !request.commit => Judgement::End,
        Phase::Ended { .. } | Phase::Empty if is_current => INVALID_STATE,
        Phase::Ongoing | Phase::Ended { .. } | Phase::Empty => FENCED,
        Phase::Ending => PENDING,
    }
}

/// Whether `epoch` is the one that the end of the last transaction has raised.
///
/// It must be the remembered last epoch too: e - 1 alone could be a producer that InitProducerId has fenced before the
/// transaction, and answering it would hand a zombie the pair of its successor.
fn is_retry_after_raise(value: &TransactionValue, epoch: ProducerEpoch) -> bool {
    epoch.0 >= 0
        && epoch == value.last_producer_epoch
        && epoch.next() == value.producer_epoch
        && epoch != value.producer_epoch
}

/// Whether `producer` is the used-up pair that the end of the last transaction has replaced (E-2).
fn is_retry_after_rotation(
    value: &TransactionValue,
    producer: (ProducerId, ProducerEpoch),
) -> bool {
    producer == (value.previous_producer_id, ProducerEpoch::LAST_FOR_CLIENTS)
        && value.producer_epoch == ProducerEpoch(0)
        && value.last_producer_epoch == ProducerEpoch::LAST_FOR_CLIENTS
}
