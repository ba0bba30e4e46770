//! Verification states: what is known of a transactional producer between "may this partition be written?" and the
//! append (V-1 to V-7, KIP-890).
//!
//! Soft state: it dies with the process, or when the shard is loaded anew; a request that then comes with an old guard is
//! refused (V-5), in such a way that it is sent again (K-1).
//!
//! A state is kept for each (producer, epoch), not for each producer: a request with a made-up epoch, or a late one of
//! a fenced producer, must not take away the guard of the producer that is alive.

use crate::check::Refusal;
use crate::sequence::is_after;
use std::collections::BTreeMap;
use tally_protocol::{Now, ProducerEpoch, ProducerId, Sequence};

/// States of a partition at most. A client may name any producer, so without a bound a hostile one could fill the memory
/// with producers that do not exist; this many requests are never between question and append at once.
const STATES_MAX: usize = 10_000;

/// Names one verification; no two are alike within the life of a partition (V-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guard(pub u64);

/// By which rules a client joins partitions to its transaction (exactly-once.md 0.1, KIP-890).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// AddPartitionsToTxn first; the epoch stays over transactions.
    Tv1,
    /// Produce joins by itself; each transaction has an epoch of its own and starts at sequence 0.
    Tv2,
}

/// Whether the coordinator has to be asked before a transactional batch is appended (V-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verification {
    /// The transaction is open on this partition already.
    NotNeeded,
    /// Ask, then append with this guard.
    Needed(Guard),
    /// The batch can't be appended whatever the coordinator says.
    Refuse(Refusal),
}

#[derive(Clone, Copy, Debug)]
struct State {
    guard: Guard,
    /// [`Sequence::NONE`] as long as only the coordinators' own batches were seen (V-10).
    lowest_sequence: Sequence,
    flow: Flow,
    /// Wall clock of the last request.
    touched_ms: i64,
}

/// The verification states of a partition.
#[derive(Clone, Debug)]
pub(crate) struct Verifications {
    states: BTreeMap<(ProducerId, ProducerEpoch), State>,
    next_guard: u64,
    /// Guards of this life lie above it.
    before_first: u64,
}

impl Verifications {
    /// Guards count up from a number that `seed` gives, so that a guard of an earlier life of the partition does not
    /// match one of this life.
    pub(crate) const fn new(seed: u64) -> Verifications {
        Verifications {
            states: BTreeMap::new(),
            next_guard: spread(seed),
            before_first: spread(seed),
        }
    }

    /// Creates the state or uses the one there is, and returns its guard (V-1).
    pub(crate) fn begin(
        &mut self,
        producer: (ProducerId, ProducerEpoch),
        base_sequence: Sequence,
        flow: Flow,
        now: Now,
    ) -> Guard {
        if self.states.len() >= STATES_MAX && !self.states.contains_key(&producer) {
            self.drop_oldest();
        }
        let state = self.states.entry(producer).or_insert_with(|| {
            self.next_guard = self.next_guard.wrapping_add(1);
            State {
                guard: Guard(self.next_guard),
                lowest_sequence: base_sequence,
                flow,
                touched_ms: now.wall_ms,
            }
        });
        if is_lower(base_sequence, state.lowest_sequence) {
            state.lowest_sequence = base_sequence;
        }
        state.flow = flow;
        state.touched_ms = now.wall_ms;
        state.guard
    }

    /// Whether `guard` is the stored one (V-5).
    pub(crate) fn holds(
        &self,
        producer: (ProducerId, ProducerEpoch),
        guard: Option<Guard>,
    ) -> bool {
        self.states
            .get(&producer)
            .is_some_and(|state| Some(state.guard) == guard)
    }

    /// Whether `guard` was given in this life of the partition.
    pub(crate) const fn has_given(&self, guard: Guard) -> bool {
        let nth = guard.0.wrapping_sub(self.before_first);
        nth != 0 && nth <= self.next_guard.wrapping_sub(self.before_first)
    }

    /// Whether a batch that starts at `base_sequence` would overtake one that is still to be verified (V-7).
    pub(crate) fn is_overtaking(
        &self,
        producer: (ProducerId, ProducerEpoch),
        base_sequence: Sequence,
    ) -> bool {
        self.states
            .get(&producer)
            .is_some_and(|state| is_lower(state.lowest_sequence, base_sequence))
    }

    /// Whether the producer follows the rules of TV2, by which a transaction starts at sequence 0 (P-43).
    pub(crate) fn is_tv2(&self, producer: (ProducerId, ProducerEpoch)) -> bool {
        self.states
            .get(&producer)
            .is_some_and(|state| state.flow == Flow::Tv2)
    }

    /// Drops the states that an appended transactional batch makes useless: its own and those of lower epochs (V-6).
    pub(crate) fn end_by_data(&mut self, producer_id: ProducerId, producer_epoch: ProducerEpoch) {
        self.remove_where(producer_id, |epoch, _| epoch <= producer_epoch);
    }

    /// Drops the states that a marker makes stale (V-6). The state of a TV2 producer at the marker's epoch stays: it
    /// belongs to the next transaction, which may be verified before this one's marker is appended.
    pub(crate) fn end_by_marker(&mut self, producer_id: ProducerId, marker_epoch: ProducerEpoch) {
        self.remove_where(producer_id, |epoch, state| {
            !(state.flow == Flow::Tv2 && epoch == marker_epoch)
        });
    }

    /// Drops one state (V-11).
    pub(crate) fn forget(&mut self, producer: (ProducerId, ProducerEpoch)) {
        self.states.remove(&producer);
    }

    /// Drops the states that nobody asked for since `before_ms` (P-56).
    pub(crate) fn expire(&mut self, before_ms: i64) {
        self.states.retain(|_, state| state.touched_ms > before_ms);
    }

    /// Drops the state that nobody asked for the longest. Whoever still holds its guard is refused and asks again.
    fn drop_oldest(&mut self) {
        let by_age = |state: &State| (state.touched_ms, state.guard.0);
        let oldest = self.states.iter().min_by_key(|(_, state)| by_age(state));
        if let Some((&producer, _)) = oldest {
            self.states.remove(&producer);
        }
    }

    fn remove_where(
        &mut self,
        producer_id: ProducerId,
        is_over: impl Fn(ProducerEpoch, &State) -> bool,
    ) {
        let of_producer =
            (producer_id, ProducerEpoch(i16::MIN))..=(producer_id, ProducerEpoch(i16::MAX));
        while let Some((&key, _)) = self
            .states
            .range(of_producer.clone())
            .find(|((_, epoch), state)| is_over(*epoch, state))
        {
            self.states.remove(&key);
        }
    }
}

/// Whether `one` is before `other`; a batch without a sequence is before and after none.
fn is_lower(one: Sequence, other: Sequence) -> bool {
    if one == Sequence::NONE {
        return false;
    }
    other == Sequence::NONE || is_after(other, one)
}

/// Spreads a seed over all 64 bits (the finalizer of SplitMix64), so that neighbouring seeds give distant guards.
const fn spread(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n15_made_up_producers_push_out_the_oldest_state_only() {
        let mut verifications = Verifications::new(7);
        let begin = |verifications: &mut Verifications, producer: i64, wall_ms: i64| {
            let now = Now {
                monotonic_ms: 0,
                wall_ms,
            };
            let pair = (ProducerId(producer), ProducerEpoch(0));
            verifications.begin(pair, Sequence(0), Flow::Tv1, now)
        };
        let old = begin(&mut verifications, -5, 0);
        let live = begin(&mut verifications, -6, 2);
        for producer in 0..i64::try_from(STATES_MAX).unwrap() + 100 {
            begin(&mut verifications, producer, 1);
        }
        assert_eq!(verifications.states.len(), STATES_MAX);
        assert!(!verifications.holds((ProducerId(-5), ProducerEpoch(0)), Some(old)));
        assert!(verifications.holds((ProducerId(-6), ProducerEpoch(0)), Some(live)));
    }
}
