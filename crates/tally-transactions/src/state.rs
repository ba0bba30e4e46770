//! What the coordinator remembers: hard state, which is the log, and soft state, which is not.
//!
//! [`HardState`] changes only by [`HardState::apply`] and is the same live and after a restart. [`SoftState`] holds what
//! a restart may lose or works out again: timers on the monotonic clock, the markers that are out, who waits for the
//! answer of EndTxn, why an id was last fenced.
//!
//! Invariants of the soft state (checked by [`SoftState::check`]): an id has an abort timer iff it is Ongoing and can
//! time out; it has a [`Completion`] iff it is in a Prepare state; the timer set holds exactly the timers of the ids.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionRecord, TransactionValue};
use tally_protocol::{Now, Offset, ProducerEpoch, ProducerId, SeededMap};

use crate::command::{ReplyTo, TopicPartition};
use crate::power_cut::Fence;
use crate::transitions::{NEVER_TIMES_OUT_MS, Phase};

/// Notes on ids that are no longer known: enough to answer "why 49?" for a while, bounded because ids expire for ever.
const EXPIRED_NOTES_MAX: usize = 1000;

/// The state that the transaction log determines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct HardState {
    pub(crate) ids: BTreeMap<Arc<str>, TransactionValue>,
}

impl HardState {
    /// Takes over what a record says; the last record of an id wins (S-8).
    pub(crate) fn apply(&mut self, record: &TransactionRecord) {
        match &record.value {
            None => {
                self.ids.remove(&record.transactional_id);
            }
            Some(value) => match self.ids.get_mut(&record.transactional_id) {
                Some(known) => known.clone_from(value),
                None => {
                    let id = Arc::clone(&record.transactional_id);
                    self.ids.insert(id, value.clone());
                }
            },
        }
    }
}

/// Why an id's producer was last fenced or its transaction aborted, or why the id is gone (B-21).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The transaction was open longer than its timeout (S-11).
    TimedOut,
    /// InitProducerId came while the transaction was open (I-13).
    FencedByInitProducerId,
    /// InitProducerId came without a pair, and nothing was open (I-10).
    TakenOver,
    /// The client asked for the abort.
    AbortedByClient,
    /// The power was cut: what was answered before may be lost, also of an id with nothing open.
    PowerCut,
    /// The id was not used for `transactional.id.expiration.ms` (S-10).
    Expired,
}

impl Reason {
    /// The stable code and name under which it is logged and shown.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Reason::TimedOut => "W2101 txn.timeout",
            Reason::FencedByInitProducerId => "W2102 txn.fenced",
            Reason::PowerCut => "W2104 txn.power_cut",
            Reason::AbortedByClient => "I2105 txn.aborted",
            Reason::Expired => "I2106 txn.expired",
            Reason::TakenOver => "I2109 txn.taken_over",
        }
    }
}

/// The last thing that happened to an id that a client may ask about; lost by a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Note {
    /// What happened.
    pub reason: Reason,
    /// When, wall clock, milliseconds since 1970.
    pub at_ms: i64,
    /// The producer it happened to.
    pub producer_id: ProducerId,
    /// The epoch that producer had before.
    pub producer_epoch: ProducerEpoch,
}

/// Counted since the coordinator was made, for metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Transactions aborted because of their timeout (S-11).
    pub timed_out: u64,
    /// Transactions aborted by InitProducerId (I-13).
    pub fenced: u64,
    /// Ids that expired (S-10).
    pub expired_ids: u64,
    /// Markers that a partition refused with 47, taken as written (D-7).
    pub markers_refused: u64,
    /// Markers that had to be sent again.
    pub markers_repeated: u64,
}

/// The markers of one transaction in a Prepare state.
#[derive(Clone, Debug)]
pub(crate) struct Completion {
    /// Names this end of the transaction to the partitions that answer.
    pub(crate) ending: u64,
    /// Sent and not answered yet.
    pub(crate) in_flight: BTreeSet<TopicPartition>,
    /// Answered with a code that asks for another try.
    pub(crate) waiting: BTreeSet<TopicPartition>,
    /// When those are sent again, monotonic.
    pub(crate) resend_at_ms: u64,
    /// How long the next try waits.
    pub(crate) backoff_ms: u64,
    /// Who waits for the answer of EndTxn, and until when at most, monotonic (D-6, E-4).
    pub(crate) reply: Option<(ReplyTo, u64)>,
    /// When Complete is decided again, should its record not have been appended, monotonic.
    pub(crate) finish_at_ms: Option<u64>,
}

impl Completion {
    /// Whether every marker is written.
    pub(crate) fn is_done(&self) -> bool {
        self.in_flight.is_empty() && self.waiting.is_empty()
    }

    /// When there is something to do without an answer from a partition.
    fn wake_at_ms(&self) -> Option<u64> {
        let resend = (!self.waiting.is_empty()).then_some(self.resend_at_ms);
        let answer = self.reply.map(|(_, until_ms)| until_ms);
        [resend, answer, self.finish_at_ms]
            .into_iter()
            .flatten()
            .min()
    }
}

/// What a timer is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum TimerKind {
    /// The transaction may have timed out (S-11).
    Abort,
    /// Its markers want attention (M-11, E-4).
    Completion,
}

/// What is behind the decision whose records are about to be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// EndTxn, whose answer waits for Complete (D-6).
    EndTxn { to: ReplyTo },
    /// A fence, a timeout or a newer producer: nobody waits.
    Broker(Reason),
    /// Anything that ends no transaction.
    Other,
}

/// The event that was decided last; `apply` follows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Staged {
    pub(crate) now: Now,
    pub(crate) cause: Cause,
    pub(crate) event: u64,
}

/// The soft state of one id.
#[derive(Clone, Debug, Default)]
struct IdSoft {
    abort_at_ms: Option<u64>,
    wake_at_ms: Option<u64>,
    /// Boxed: of a hundred thousand ids few are ending a transaction at any time.
    completion: Option<Box<Completion>>,
    note: Option<Note>,
}

impl IdSoft {
    fn is_empty(&self) -> bool {
        self.abort_at_ms.is_none() && self.completion.is_none() && self.note.is_none()
    }
}

/// Where the search for expired ids stands (S-10).
#[derive(Clone, Debug, Default)]
pub(crate) struct Sweep {
    /// When it goes on, monotonic; none before the first event.
    pub(crate) next_ms: Option<u64>,
    /// The last id looked at, if the search is under way.
    pub(crate) after: Option<Arc<str>>,
}

/// The ids that have to be fenced after a power cut.
#[derive(Clone, Debug)]
pub(crate) struct ToFence {
    /// They answer 14.
    pub(crate) ids: BTreeSet<Arc<str>>,
    pub(crate) by: Fence,
    /// When it goes on, monotonic; none while only markers can change anything.
    pub(crate) next_ms: Option<u64>,
}

/// The state that a restart may lose.
#[derive(Debug)]
pub(crate) struct SoftState {
    ids: SeededMap<Arc<str>, IdSoft>,
    timers: BTreeSet<(u64, TimerKind, Arc<str>)>,
    expired: VecDeque<(Arc<str>, Note)>,
    /// Notes that were not taken yet, to be logged.
    news: Vec<(Arc<str>, Note)>,
    pub(crate) staged: Option<Staged>,
    pub(crate) sweep: Sweep,
    pub(crate) fence: ToFence,
    pub(crate) counters: Counters,
    pub(crate) applied_to: Option<Offset>,
    /// The number of the event that is being decided; never one of an earlier life in the same process.
    pub(crate) event: u64,
    /// Records of an earlier life were applied and `recovered` was not called yet (D-13).
    pub(crate) needs_recovery: bool,
}

impl SoftState {
    pub(crate) fn new(seed: u64) -> SoftState {
        SoftState {
            ids: SeededMap::new(seed),
            timers: BTreeSet::new(),
            expired: VecDeque::new(),
            news: Vec::new(),
            staged: None,
            sweep: Sweep::default(),
            fence: ToFence {
                ids: BTreeSet::new(),
                by: Fence::Epoch,
                next_ms: None,
            },
            counters: Counters::default(),
            applied_to: None,
            event: 0,
            needs_recovery: false,
        }
    }

    /// Gives the next event its number. The monotonic clock leads it, so that a coordinator that is loaded again while
    /// messages of the one before are on their way does not use a number twice.
    pub(crate) fn begin_event(&mut self, now: Now) {
        self.event = (self.event + 1).max(now.monotonic_ms << 16);
    }

    /// Sets the time at which `id` is looked at for its timeout.
    pub(crate) fn arm_abort(&mut self, id: &Arc<str>, at_ms: u64) {
        self.disarm_abort(id);
        self.timers
            .insert((at_ms, TimerKind::Abort, Arc::clone(id)));
        self.id(id).abort_at_ms = Some(at_ms);
    }

    /// No transaction of `id` can time out any more.
    pub(crate) fn disarm_abort(&mut self, id: &Arc<str>) {
        if let Some(at_ms) = self
            .ids
            .get_mut(id)
            .and_then(|soft| soft.abort_at_ms.take())
        {
            self.timers
                .remove(&(at_ms, TimerKind::Abort, Arc::clone(id)));
        }
    }

    pub(crate) fn has_abort(&self, id: &str) -> bool {
        self.ids
            .get(id)
            .is_some_and(|soft| soft.abort_at_ms.is_some())
    }

    /// The markers of `id` are on their way.
    pub(crate) fn begin_completion(&mut self, id: &Arc<str>, completion: Completion) {
        self.id(id).completion = Some(Box::new(completion));
        self.rearm_completion(id);
    }

    /// Changes the completion of `id`, if there is one, and its timer with it.
    pub(crate) fn with_completion<T>(
        &mut self,
        id: &Arc<str>,
        change: impl FnOnce(&mut Completion, &mut Counters) -> T,
    ) -> Option<T> {
        let completion = self.ids.get_mut(id)?.completion.as_deref_mut()?;
        let result = change(completion, &mut self.counters);
        self.rearm_completion(id);
        Some(result)
    }

    pub(crate) fn completion(&self, id: &str) -> Option<&Completion> {
        self.ids.get(id)?.completion.as_deref()
    }

    /// The transaction of `id` is over: what is left of it here is the note, if there is one.
    pub(crate) fn end_transaction(&mut self, id: &Arc<str>) {
        self.disarm_abort(id);
        if let Some(soft) = self.ids.get_mut(id) {
            soft.completion = None;
            self.rearm_completion(id);
        }
        if self.ids.get(id).is_some_and(IdSoft::is_empty) {
            self.ids.remove(id);
        }
    }

    fn rearm_completion(&mut self, id: &Arc<str>) {
        let Some(soft) = self.ids.get_mut(id) else {
            return;
        };
        let wake_at_ms = soft.completion.as_deref().and_then(Completion::wake_at_ms);
        if wake_at_ms == soft.wake_at_ms {
            return;
        }
        let before = std::mem::replace(&mut soft.wake_at_ms, wake_at_ms);
        if let Some(at_ms) = before {
            self.timers
                .remove(&(at_ms, TimerKind::Completion, Arc::clone(id)));
        }
        if let Some(at_ms) = wake_at_ms {
            self.timers
                .insert((at_ms, TimerKind::Completion, Arc::clone(id)));
        }
    }

    /// Remembers why something happened to `id`.
    pub(crate) fn set_note(&mut self, id: &Arc<str>, note: Note) {
        match note.reason {
            Reason::TimedOut => self.counters.timed_out += 1,
            Reason::FencedByInitProducerId => self.counters.fenced += 1,
            Reason::AbortedByClient | Reason::PowerCut | Reason::TakenOver => {}
            Reason::Expired => self.counters.expired_ids += 1,
        }
        self.id(id).note = Some(note);
        self.tell(id, note);
    }

    /// Whether whoever held this pair of `id` is fenced already, for a reason that is noted: that is the one to be told, and
    /// not what follows from it, the next pair that the client then asks for.
    pub(crate) fn is_fenced_already(&self, id: &str, pair: (ProducerId, ProducerEpoch)) -> bool {
        let Some(before) = self.note(id) else {
            return false;
        };
        let is_fence = matches!(
            before.reason,
            Reason::TimedOut | Reason::FencedByInitProducerId | Reason::PowerCut
        );
        // A fence raises the epoch by one, or begins with another producer id at 0 (S-13, S-14, R-19).
        is_fence
            && if pair.0 == before.producer_id {
                pair.1.0 <= before.producer_epoch.0.saturating_add(1)
            } else {
                pair.1.0 == 0
            }
    }

    /// Who does not take its news loses what is over a limit; nothing else follows from them.
    fn tell(&mut self, id: &Arc<str>, note: Note) {
        if self.news.len() < EXPIRED_NOTES_MAX {
            self.news.push((Arc::clone(id), note));
        }
    }

    /// What has been noted since the last call.
    pub(crate) fn take_news(&mut self) -> Vec<(Arc<str>, Note)> {
        std::mem::take(&mut self.news)
    }

    pub(crate) fn note(&self, id: &str) -> Option<Note> {
        if let Some(soft) = self.ids.get(id) {
            return soft.note;
        }
        let gone = self.expired.iter().rev().find(|(gone, _)| &**gone == id);
        gone.map(|(_, note)| *note)
    }

    /// The id is gone; its note is kept for a while.
    pub(crate) fn forget(&mut self, id: &Arc<str>, note: Note) {
        self.end_transaction(id);
        self.ids.remove(id);
        self.counters.expired_ids += 1;
        if self.expired.len() == EXPIRED_NOTES_MAX {
            self.expired.pop_front();
        }
        self.expired.push_back((Arc::clone(id), note));
        self.tell(id, note);
    }

    /// The first timers that are due, at most `limit`, earliest first.
    pub(crate) fn due(&self, monotonic_ms: u64, limit: usize) -> Vec<(TimerKind, Arc<str>)> {
        self.timers
            .iter()
            .take_while(|(at_ms, _, _)| *at_ms <= monotonic_ms)
            .take(limit)
            .map(|(_, kind, id)| (*kind, Arc::clone(id)))
            .collect()
    }

    /// When the first timer is due, monotonic.
    pub(crate) fn first_timer_ms(&self) -> Option<u64> {
        self.timers.first().map(|(at_ms, _, _)| *at_ms)
    }

    fn id(&mut self, id: &Arc<str>) -> &mut IdSoft {
        self.ids.entry(Arc::clone(id)).or_default()
    }

    /// Panics if the soft state does not fit the hard state.
    pub(crate) fn check(&self, hard: &HardState) {
        let mut timers = 0;
        let mut known = 0;
        for (id, value) in &hard.ids {
            let phase = Phase::of(value);
            let soft = self.ids.get(id);
            known += usize::from(soft.is_some());
            let abort_at_ms = soft.and_then(|soft| soft.abort_at_ms);
            let may_time_out = phase == Phase::Ongoing && value.timeout_ms != NEVER_TIMES_OUT_MS;
            assert_eq!(abort_at_ms.is_some(), may_time_out, "abort timer of {id}");
            let completion = soft.and_then(|soft| soft.completion.as_deref());
            assert_eq!(
                completion.is_some(),
                phase == Phase::Ending,
                "markers of {id}"
            );
            let wake_at_ms = soft.and_then(|soft| soft.wake_at_ms);
            assert_eq!(
                wake_at_ms,
                completion.and_then(Completion::wake_at_ms),
                "{id}"
            );
            for (at_ms, kind) in [
                (abort_at_ms, TimerKind::Abort),
                (wake_at_ms, TimerKind::Completion),
            ] {
                if let Some(at_ms) = at_ms {
                    timers += 1;
                    assert!(self.timers.contains(&(at_ms, kind, Arc::clone(id))));
                }
            }
            if let Some(completion) = completion {
                assert!(completion.in_flight.is_disjoint(&completion.waiting));
                let mut sent = completion.in_flight.iter().chain(&completion.waiting);
                assert!(sent.all(|partition| crate::transitions::contains(value, partition)));
            }
        }
        assert_eq!(self.timers.len(), timers, "timers without an id");
        assert_eq!(self.ids.len(), known, "soft state of unknown ids");
    }
}
