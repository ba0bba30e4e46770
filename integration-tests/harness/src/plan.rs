//! What is broken, and when: drawn from a seed, in units of progress.
//!
//! A step is due when so many records are committed; it then sets a trap in the proxy, and the trap springs with the n-th
//! request of a kind after that. A fast machine is therefore hit as often as a slow one, and in the middle of things.

use crate::api::{
    ADD_OFFSETS_TO_TXN, ADD_PARTITIONS_TO_TXN, Api, END_TXN, FETCH, INIT_PRODUCER_ID, JOIN_GROUP,
    OFFSET_COMMIT, OFFSET_FETCH, PRODUCE, SYNC_GROUP, TXN_OFFSET_COMMIT,
};
use crate::rng::Rng;

/// Processors of the group.
pub(crate) const PROCESSORS: usize = 3;

/// The requests of every transaction, whichever client: a trap set on these always springs.
pub(crate) const ALWAYS: [Api; 3] = [PRODUCE, END_TXN, TXN_OFFSET_COMMIT];

/// Requests whose answers may be taken away, of those that the client has been seen to send.
pub(crate) const CUTTABLE: [Api; 11] = [
    PRODUCE,
    END_TXN,
    TXN_OFFSET_COMMIT,
    ADD_PARTITIONS_TO_TXN,
    ADD_OFFSETS_TO_TXN,
    INIT_PRODUCER_ID,
    OFFSET_COMMIT,
    OFFSET_FETCH,
    FETCH,
    JOIN_GROUP,
    SYNC_GROUP,
];

/// The first and the last moment of a fault, in percent of the records: near the end there may be no request left to hit.
const FIRST_PERCENT: u64 = 4;
const LAST_PERCENT: u64 = 84;
/// A trap lets at most this many matching requests pass first.
const SKIP_MAX: u64 = 4;

/// What happens when the trap springs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    KillBroker,
    KillProcessor(usize),
    /// The broker's answer is taken and the connection closed.
    Cut,
    /// The broker's answer is held back and all processors are killed: what was asked is done, what should follow is not.
    KillAllAfterAnswer,
}

/// Which requests a trap waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    One(Api),
    /// Any of the requests seen so far that may be cut; which one is drawn when the trap is set, with this number.
    AnySeen(u64),
    /// Produce of the feeder.
    PlainProduce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Due when so many records are committed.
    pub(crate) at: u64,
    pub(crate) fault: Fault,
    pub(crate) target: Target,
    /// Matching requests that pass before the trap springs.
    pub(crate) skip: u64,
}

/// A fault that the judge must be able to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Control {
    /// The feeder sends without sequence numbers, and an answer is taken from it: doubles.
    NoIdempotence,
    /// The processors commit offsets before they write, and are killed in between: losses.
    OffsetsFirst,
}

/// How much of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amounts {
    pub(crate) records: u64,
    pub(crate) broker_kills: u64,
    pub(crate) processor_kills: u64,
    pub(crate) cuts: u64,
}

/// All steps, earliest first.
pub(crate) fn draw(seed: u64, amounts: Amounts, control: Option<Control>) -> Vec<Step> {
    let mut rng = Rng::new(seed);
    let mut steps = Vec::new();
    for (at, skip) in moments(&mut rng, amounts.records, amounts.broker_kills) {
        let target = Target::One(rng.pick(&ALWAYS));
        steps.push(Step {
            at,
            fault: Fault::KillBroker,
            target,
            skip,
        });
    }
    for (at, skip) in moments(&mut rng, amounts.records, amounts.processor_kills) {
        steps.push(processor_step(&mut rng, at, skip, control));
    }
    for (i, (at, skip)) in moments(&mut rng, amounts.records, amounts.cuts).enumerate() {
        steps.push(cut_step(&mut rng, i, at, skip, control));
    }
    steps.sort_by_key(|step| step.at);
    steps
}

fn processor_step(rng: &mut Rng, at: u64, skip: u64, control: Option<Control>) -> Step {
    if control == Some(Control::OffsetsFirst) {
        return Step {
            at,
            fault: Fault::KillAllAfterAnswer,
            target: Target::One(OFFSET_COMMIT),
            skip,
        };
    }
    let fault = Fault::KillProcessor(rng.pick(&[0, 1, 2]));
    Step {
        at,
        fault,
        target: Target::One(rng.pick(&ALWAYS)),
        skip,
    }
}

/// The first cut of each three is of one that must be hit, the others of any; the first three of a run hit all three.
fn cut_step(rng: &mut Rng, number: usize, at: u64, skip: u64, control: Option<Control>) -> Step {
    let draw = rng.next();
    let target = match number {
        _ if control == Some(Control::NoIdempotence) => Target::PlainProduce,
        0..3 => Target::One(ALWAYS[number]),
        _ if number.is_multiple_of(3) => Target::One(rng.pick(&ALWAYS)),
        _ => Target::AnySeen(draw),
    };
    let early = control == Some(Control::NoIdempotence);
    // The feeder is far ahead of the processors: its answers are there to be taken only at the beginning.
    Step {
        at: if early { 0 } else { at },
        fault: Fault::Cut,
        target,
        skip,
    }
}

/// Spreads `count` moments over the run, one in each of `count` equal stretches.
fn moments(rng: &mut Rng, records: u64, count: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
    let first = records * FIRST_PERCENT / 100;
    let span = records * (LAST_PERCENT - FIRST_PERCENT) / 100;
    let drawn: Vec<(u64, u64)> = (0..count)
        .map(|i| {
            let from = first + span * i / count;
            let length = (span / count).max(1);
            (from + rng.below(length), rng.below(SKIP_MAX))
        })
        .collect();
    drawn.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMOUNTS: Amounts = Amounts {
        records: 20_000,
        broker_kills: 2,
        processor_kills: 3,
        cuts: 5,
    };

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        assert_eq!(draw(7, AMOUNTS, None), draw(7, AMOUNTS, None));
        assert_ne!(draw(7, AMOUNTS, None), draw(8, AMOUNTS, None));
    }

    #[test]
    fn every_plan_holds_what_was_asked_for_and_the_three_cuts_that_matter() {
        for seed in 0..200 {
            let steps = draw(seed, AMOUNTS, None);
            let count =
                |wanted: fn(Fault) -> bool| steps.iter().filter(|s| wanted(s.fault)).count();
            assert_eq!(count(|f| f == Fault::KillBroker), 2);
            assert_eq!(count(|f| matches!(f, Fault::KillProcessor(_))), 3);
            assert_eq!(count(|f| f == Fault::Cut), 5);
            for api in ALWAYS {
                assert!(
                    steps
                        .iter()
                        .any(|s| s.fault == Fault::Cut && s.target == Target::One(api)),
                    "{api} in seed {seed}"
                );
            }
            assert!(steps.is_sorted_by_key(|s| s.at) && steps.iter().all(|s| s.at < 20_000));
        }
    }

    #[test]
    fn controls_force_their_fault() {
        let steps = draw(1, AMOUNTS, Some(Control::OffsetsFirst));
        assert_eq!(
            steps
                .iter()
                .filter(|s| s.fault == Fault::KillAllAfterAnswer)
                .count(),
            3
        );
        let steps = draw(1, AMOUNTS, Some(Control::NoIdempotence));
        assert_eq!(
            steps
                .iter()
                .filter(|s| s.target == Target::PlainProduce && s.at == 0)
                .count(),
            5
        );
    }
}
