//! The coordinator of one partition of `__transaction_state`: decide, apply, recover.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionRecord, TransactionValue};
use tally_protocol::{CoordinatorEpoch, ErrorCode, Now, Offset, ProducerEpoch, ProducerId};

use crate::command::{Command, Decision, ProducerIdBlock, ReplyTo, Response, Settings};
use crate::end_txn::EndTxn;
use crate::init_producer_id::InitProducerId;
use crate::markers::{ANSWER_MS, BACKOFF_MIN_MS, MarkerAnswers};
use crate::state::{Cause, Completion, Counters, HardState, Note, Reason, SoftState, Staged};
use crate::timeout::abort_tick_ms;
use crate::transitions::{self, NEVER_TIMES_OUT_MS, Phase};

/// The state machine; see the crate's documentation.
///
/// Life: `new`, `apply` for each record of the log, `recovered` once; then `decide` and `expire`, each followed by
/// `apply` for each of its records at once.
#[derive(Debug)]
pub struct TransactionCoordinator {
    pub(crate) settings: Settings,
    pub(crate) coordinator_epoch: CoordinatorEpoch,
    pub(crate) hard: HardState,
    pub(crate) soft: SoftState,
}

impl TransactionCoordinator {
    /// A coordinator that knows no id. `seed` keys its hash maps; `coordinator_epoch` must never fall over the lives of
    /// the partition (M-5).
    #[must_use]
    pub fn new(
        settings: Settings,
        coordinator_epoch: CoordinatorEpoch,
        seed: u64,
    ) -> TransactionCoordinator {
        TransactionCoordinator {
            settings,
            coordinator_epoch,
            hard: HardState::default(),
            soft: SoftState::new(seed),
        }
    }

    /// Changes the settings; transactions that are open keep the tick they were given.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Decides what a command does: reads the hard state, changes none of it.
    pub fn decide(
        &mut self,
        now: Now,
        command: Command,
        to: ReplyTo,
        ids: &mut ProducerIdBlock,
    ) -> Decision {
        if self.soft.needs_recovery {
            return refuse_while_loading(&command, to);
        }
        // nothing is answered by what may be a remainder.
        let is_fenced = |id| self.soft.fence.ids.contains(id);
        if command.client_of().is_some_and(is_fenced) {
            return refuse_while_loading(&command, to);
        }
        self.soft.begin_event(now);
        self.start_sweeping(now);
        let decision = self.decide_command(now, command, to, ids);
        self.assert_sound(&decision);
        decision
    }

    fn decide_command(
        &mut self,
        now: Now,
        command: Command,
        to: ReplyTo,
        ids: &mut ProducerIdBlock,
    ) -> Decision {
        match command {
            Command::InitProducerId { .. } | Command::InitTwoPhase { .. } => {
                match InitProducerId::of(command) {
                    Some(request) => self.init_producer_id(now, request, to, ids),
                    None => Decision::nothing(),
                }
            }
            Command::AddPartitions {
                transactional_id,
                producer_id,
                producer_epoch,
                partitions,
                flow,
            } => {
                let producer = (producer_id, producer_epoch);
                let added =
                    self.add_partitions(now, &transactional_id, producer, &partitions, flow);
                self.stage(now, Cause::Other);
                decide_added(added, to)
            }
            Command::VerifyPartitions {
                transactional_id,
                producer_id,
                producer_epoch,
                partitions,
            } => {
                let producer = (producer_id, producer_epoch);
                let answer = self.verify_partitions(&transactional_id, producer, partitions);
                Decision::reply(to, Response::VerifyPartitions(answer))
            }
            Command::EndTxn {
                transactional_id,
                producer_id,
                producer_epoch,
                commit,
                flow,
            } => {
                let request = EndTxn {
                    producer: (producer_id, producer_epoch),
                    commit,
                    flow,
                };
                self.end_txn(now, &transactional_id, request, to, ids)
            }
            Command::MarkersWritten {
                transactional_id,
                producer_id,
                producer_epoch,
                ending,
                partitions,
            } => {
                let answers = MarkerAnswers {
                    producer: (producer_id, producer_epoch),
                    ending,
                    partitions,
                };
                self.markers_written(now, &transactional_id, answers)
            }
        }
    }

    /// Changes the state as a record of the log says: the only way hard state changes, live and in recovery.
    pub fn apply(&mut self, at: Offset, record: &TransactionRecord) {
        debug_assert!(
            self.soft.applied_to.is_none_or(|before| before <= at),
            "records are applied in the order of the log"
        );
        self.soft.applied_to = Some(at);
        let before = match self.soft.staged {
            Some(_) => self.pair_of(&record.transactional_id),
            None => None,
        };
        self.hard.apply(record);
        // Before `recovered` nothing was decided: timers and markers are worked out there, from the last record of each id.
        match self.soft.staged {
            Some(staged) => self.follow(staged, before, record),
            None => self.soft.needs_recovery = true,
        }
    }

    /// How many ids are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hard.ids.len()
    }

    /// Whether no id is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hard.ids.is_empty()
    }

    /// The hard state: what the log says about each id. Two coordinators that applied the same records are equal here.
    #[must_use]
    pub fn hard_state(&self) -> &BTreeMap<Arc<str>, TransactionValue> {
        &self.hard.ids
    }

    /// What was counted since the coordinator was made.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.soft.counters
    }

    /// Panics if an invariant does not hold; for tests, after each step.
    pub fn check_invariants(&self) {
        for (id, value) in &self.hard.ids {
            let phase = Phase::of(value);
            let has_partitions = transitions::partitions_of(value).next().is_some();
            if matches!(phase, Phase::Empty | Phase::Ended { .. }) {
                assert!(!has_partitions, "S-5: {id} has partitions in {phase:?}");
                assert!(value.producer_epoch.0 >= 0, "{id} has no epoch");
            }
            assert_eq!(value.start_ms == -1, phase == Phase::Empty, "S-4: {id}");
            let rotates = value.next_producer_id != ProducerId::NONE;
            let was_handed_over = value.next_producer_epoch != ProducerEpoch::NONE;
            assert!(rotates || !was_handed_over, "KIP-939: {id}");
            let may_rotate = phase == Phase::Ending || was_handed_over && phase == Phase::Ongoing;
            assert!(!rotates || may_rotate, "S-3: {id}");
            assert!(
                !rotates || was_handed_over || value.producer_epoch.0 == i16::MAX,
                "E-2: {id} rotates before its epoch is used up"
            );
        }
        self.soft.check(&self.hard);
    }

    /// Notes which event the next records belong to.
    pub(crate) fn stage(&mut self, now: Now, cause: Cause) {
        let event = self.soft.event;
        self.soft.staged = Some(Staged { now, cause, event });
    }

    /// The soft state follows a live record.
    fn follow(
        &mut self,
        staged: Staged,
        before: Option<(ProducerId, ProducerEpoch)>,
        record: &TransactionRecord,
    ) {
        let id = &record.transactional_id;
        let note = |reason| {
            let (producer_id, producer_epoch) = before?;
            Some(Note {
                reason,
                at_ms: staged.now.wall_ms,
                producer_id,
                producer_epoch,
            })
        };
        self.follow_fence(staged.now, record);
        let Some(value) = &record.value else {
            if let Some(note) = note(Reason::Expired) {
                self.soft.forget(id, note);
            }
            return;
        };
        match Phase::of(value) {
            Phase::Empty => {
                self.soft.end_transaction(id);
                if let Cause::Broker(reason @ (Reason::TakenOver | Reason::PowerCut)) = staged.cause
                    && let Some(note) = note(reason)
                    && !self
                        .soft
                        .is_fenced_already(id, (note.producer_id, note.producer_epoch))
                {
                    self.soft.set_note(id, note);
                }
            }
            Phase::Ended { .. } => self.soft.end_transaction(id),
            Phase::Ongoing => {
                if value.timeout_ms == NEVER_TIMES_OUT_MS {
                    self.soft.disarm_abort(id);
                } else if !self.soft.has_abort(id) {
                    let timeout_ms = u64::try_from(value.timeout_ms).unwrap_or(0);
                    let deadline_ms = staged.now.monotonic_ms.saturating_add(timeout_ms);
                    let at_ms = abort_tick_ms(deadline_ms, &self.settings);
                    self.soft.arm_abort(id, at_ms);
                }
            }
            Phase::Ending => {
                self.soft.disarm_abort(id);
                let (reply, reason) = match staged.cause {
                    Cause::EndTxn { to } => {
                        let until_ms = staged.now.monotonic_ms.saturating_add(ANSWER_MS);
                        let aborts = !transitions::commits(value);
                        (
                            Some((to, until_ms)),
                            aborts.then_some(Reason::AbortedByClient),
                        )
                    }
                    Cause::Broker(reason) => (None, Some(reason)),
                    Cause::Other => (None, None),
                };
                if let Some(note) = reason.and_then(note) {
                    self.soft.set_note(id, note);
                }
                self.begin_completion(id, reply, staged.event);
            }
        }
    }

    /// An id that has been fenced is free; one whose transaction has ended can be.
    fn follow_fence(&mut self, now: Now, record: &TransactionRecord) {
        let fence = &mut self.soft.fence;
        if !fence.ids.contains(&record.transactional_id) {
            return;
        }
        match record.value.as_ref().map(Phase::of) {
            None | Some(Phase::Empty) => _ = fence.ids.remove(&record.transactional_id),
            Some(Phase::Ended { .. }) => fence.next_ms = Some(now.monotonic_ms),
            Some(Phase::Ongoing | Phase::Ending) => {}
        }
        if fence.ids.is_empty() {
            fence.next_ms = None;
        }
    }

    /// The markers of an id that is in a Prepare state are regarded as sent from now on.
    pub(crate) fn begin_completion(
        &mut self,
        id: &Arc<str>,
        reply: Option<(ReplyTo, u64)>,
        ending: u64,
    ) {
        let in_flight: BTreeSet<_> = self
            .hard
            .ids
            .get(id)
            .into_iter()
            .flat_map(transitions::partitions_of)
            .collect();
        let completion = Completion {
            ending,
            in_flight,
            waiting: BTreeSet::new(),
            resend_at_ms: 0,
            backoff_ms: BACKOFF_MIN_MS,
            reply,
            finish_at_ms: None,
        };
        self.soft.begin_completion(id, completion);
    }

    fn pair_of(&self, id: &str) -> Option<(ProducerId, ProducerEpoch)> {
        let value = self.hard.ids.get(id)?;
        Some((value.producer_id, value.producer_epoch))
    }

    /// Before records go to the log: they make only legal moves (2.1) and no epoch falls. What is in the log is believed.
    pub(crate) fn assert_sound(&self, decision: &Decision) {
        let mut previous: Option<&TransactionRecord> = None;
        for record in &decision.records {
            let before = previous
                .filter(|earlier| earlier.transactional_id == record.transactional_id)
                .and_then(|earlier| earlier.value.as_ref())
                .or_else(|| self.hard.ids.get(&record.transactional_id));
            if let Some(value) = &record.value {
                assert!(
                    transitions::is_legal(before, value),
                    "{}: {:?} may not become {:?}",
                    record.transactional_id,
                    before.map(|value| value.state),
                    value.state
                );
                assert!(
                    transitions::keeps_epochs_rising(before, value),
                    "{}: the epoch would fall",
                    record.transactional_id
                );
            }
            previous = Some(record);
        }
    }
}

/// I-7: until the coordinator is loaded its ids answer 14 (S-8, D-13).
fn refuse_while_loading(command: &Command, to: ReplyTo) -> Decision {
    let code = ErrorCode::CoordinatorLoadInProgress;
    let response = match command {
        Command::InitProducerId { .. } | Command::InitTwoPhase { .. } => {
            Response::InitProducerId(Err(code))
        }
        Command::AddPartitions { .. } => Response::AddPartitions(code),
        Command::VerifyPartitions { .. } => Response::VerifyPartitions(Err(code)),
        Command::EndTxn { .. } => Response::EndTxn(Err(code)),
        // The markers of an earlier life: `recovered` asks for its own.
        Command::MarkersWritten { .. } => return Decision::nothing(),
    };
    Decision::reply(to, response)
}

/// A-4 answers 0 or one code; with all partitions known already there is no record.
fn decide_added(added: Result<Option<TransactionRecord>, ErrorCode>, to: ReplyTo) -> Decision {
    let (records, code) = match added {
        Ok(record) => (record.into_iter().collect(), ErrorCode::None),
        Err(code) => (Vec::new(), code),
    };
    let answer = Decision::reply(to, Response::AddPartitions(code));
    Decision { records, ..answer }
}
