//! Markers: who still gets one, what the partitions answered, and the end of a transaction (M-11, D-6, D-7, E-4, E-8).

use std::collections::BTreeSet;
use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionRecord, TransactionValue};
use tally_protocol::{ErrorCode, Now, ProducerEpoch, ProducerId, planted};

use crate::command::{Decision, Effect, MarkerSet, Response, TopicPartition};
use crate::coordinator::TransactionCoordinator;
use crate::state::{Cause, Completion, Counters};
use crate::transitions::{self, Phase};

/// How long EndTxn waits for its markers: from then on Prepare, which is durable, is answered (E-4).
pub(crate) const ANSWER_MS: u64 = 1000;
/// The wait before a refused marker is sent again; it doubles with each refusal.
pub(crate) const BACKOFF_MIN_MS: u64 = 50;
/// The longest such wait: a partition that is out of order for long should not cost much, and one that is back not wait.
const BACKOFF_MAX_MS: u64 = 1000;
/// The wait before Complete is decided again if its record could not be appended.
const FINISH_AGAIN_MS: u64 = 1000;

/// The answers, as in [`crate::Command::MarkersWritten`].
pub(crate) struct MarkerAnswers {
    pub(crate) producer: (ProducerId, ProducerEpoch),
    pub(crate) ending: u64,
    pub(crate) partitions: Vec<(TopicPartition, ErrorCode)>,
}

/// What a partition's answer means for its marker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Written,
    /// The entry has a higher epoch, so the transaction cannot be open there: done, but counted (D-7).
    Refused,
    Again,
}

impl Outcome {
    fn of(code: ErrorCode) -> Outcome {
        let is_written = [
            ErrorCode::None,
            // E-8: a partition that is gone does not hold up the others.
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::UnknownTopicId,
            ErrorCode::UnsupportedVersion,
        ]
        .contains(&code);
        if is_written || planted::is("m11") {
            Outcome::Written
        } else if code == ErrorCode::InvalidProducerEpoch {
            Outcome::Refused
        } else {
            // Whatever else a partition says, the marker is still owed: 6, 7, 19, 20, 56, and 52, with which another
            // coordinator claims the id: only one that is loaded with a higher epoch can settle that.
            Outcome::Again
        }
    }
}

impl TransactionCoordinator {
    /// The partitions' answers to a marker set.
    pub(crate) fn markers_written(
        &mut self,
        now: Now,
        transactional_id: &Arc<str>,
        answers: MarkerAnswers,
    ) -> Decision {
        let is_awaited = self.hard.ids.get(transactional_id).is_some_and(|value| {
            Phase::of(value) == Phase::Ending
                && (value.producer_id, value.producer_epoch) == answers.producer
        });
        let ending = self
            .soft
            .completion(transactional_id)
            .map(|completion| completion.ending);
        if !is_awaited || ending != Some(answers.ending) {
            return Decision::nothing(); // the answer to a transaction that is over, or to an earlier life
        }
        let is_done = self
            .soft
            .with_completion(transactional_id, |completion, counters| {
                completion.take_answers(now, answers.partitions, counters);
                completion.is_done()
            });
        if is_done == Some(true) {
            self.finish(now, transactional_id)
        } else {
            Decision::nothing()
        }
    }

    /// All markers are written: Complete, then the answer of EndTxn unless it has gone (D-6).
    pub(crate) fn finish(&mut self, now: Now, transactional_id: &Arc<str>) -> Decision {
        let Some(value) = self.hard.ids.get(transactional_id) else {
            return Decision::nothing();
        };
        let complete = transitions::complete(value, now);
        // Kept until Complete is applied: its record may not find room, and then this is decided again.
        let reply = self
            .soft
            .with_completion(transactional_id, |completion, _| {
                completion.finish_at_ms = Some(now.monotonic_ms.saturating_add(FINISH_AGAIN_MS));
                completion.reply
            })
            .flatten();
        self.stage(now, Cause::Other);
        let pair = if planted::is("e1") {
            (complete.producer_id, ProducerEpoch(0))
        } else {
            (complete.producer_id, complete.producer_epoch)
        };
        let effects = reply.map(|(to, _)| Effect::Reply {
            to,
            response: Response::EndTxn(Ok(pair)),
        });
        Decision {
            records: vec![TransactionRecord {
                transactional_id: Arc::clone(transactional_id),
                value: Some(complete),
            }],
            effects: effects.into_iter().collect(),
        }
    }

    /// A completion's timer went off: sends markers again, answers an EndTxn that waited long enough (E-4).
    pub(crate) fn attend_completion(
        &mut self,
        now: Now,
        transactional_id: &Arc<str>,
        decision: &mut Decision,
    ) {
        let Some((ending, again, late)) =
            self.soft
                .with_completion(transactional_id, |completion, counters| {
                    let (again, late) = completion.take_due(now, counters);
                    (completion.ending, again, late)
                })
        else {
            return;
        };
        let Some(value) = self.hard.ids.get(transactional_id) else {
            return;
        };
        if let Some(to) = late {
            decision.effects.push(Effect::Reply {
                to,
                response: Response::EndTxn(Ok(transitions::pair_after(value))),
            });
        }
        if !again.is_empty() {
            let again = again.into_iter().collect();
            let set = self.marker_set(transactional_id, value, ending, again);
            decision.effects.push(Effect::WriteMarkers(set));
        }
    }

    /// The markers that `prepare` owes to `partitions`.
    pub(crate) fn marker_set(
        &self,
        transactional_id: &Arc<str>,
        prepare: &TransactionValue,
        ending: u64,
        partitions: Vec<TopicPartition>,
    ) -> MarkerSet {
        MarkerSet {
            transactional_id: Arc::clone(transactional_id),
            producer_id: prepare.producer_id,
            producer_epoch: prepare.producer_epoch,
            coordinator_epoch: self.coordinator_epoch,
            ending,
            commit: transitions::commits(prepare),
            // M-4: stored with Prepare, so that a repeat after a restart is checked by the same rule.
            transaction_version: i8::try_from(prepare.client_transaction_version).unwrap_or(2),
            partitions,
        }
    }
}

impl Completion {
    fn take_answers(
        &mut self,
        now: Now,
        partitions: Vec<(TopicPartition, ErrorCode)>,
        counters: &mut Counters,
    ) {
        let mut again = false;
        for (partition, code) in partitions {
            if !self.in_flight.remove(&partition) {
                continue; // not asked, or answered before
            }
            match Outcome::of(code) {
                Outcome::Written => {}
                Outcome::Refused => counters.markers_refused += 1,
                Outcome::Again => {
                    again = true;
                    self.waiting.insert(partition);
                }
            }
        }
        if again {
            self.resend_at_ms = now.monotonic_ms.saturating_add(self.backoff_ms);
            self.backoff_ms = (self.backoff_ms * 2).min(BACKOFF_MAX_MS);
        }
    }

    /// What is due: the partitions whose marker goes out again, and whoever waited for the answer for too long.
    fn take_due(
        &mut self,
        now: Now,
        counters: &mut Counters,
    ) -> (BTreeSet<TopicPartition>, Option<crate::ReplyTo>) {
        let mut again = BTreeSet::new();
        if self.resend_at_ms <= now.monotonic_ms {
            again = std::mem::take(&mut self.waiting);
            counters.markers_repeated += tally_protocol::ids::to_u64(again.len());
            self.in_flight.extend(again.iter().cloned());
        }
        let is_late = self
            .reply
            .is_some_and(|(_, until_ms)| until_ms <= now.monotonic_ms);
        let late = if is_late { self.reply.take() } else { None };
        (again, late.map(|(to, _)| to))
    }
}
