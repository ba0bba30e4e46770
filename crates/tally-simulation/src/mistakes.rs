//! Mistakes that are planted in the broker, one at a time, to see that the simulation finds them
//! (`tally_protocol::planted`). The table of docs/testing.md says the same.

use crate::run::run;
use tally_protocol::planted;

/// A mistake.
#[derive(Clone, Copy, Debug)]
pub struct Mistake {
    /// Its name in the code.
    pub name: &'static str,
    /// What the broker does wrong.
    pub what: &'static str,
    /// It is found by one of so many seeds.
    pub within: u64,
}

const fn mistake(name: &'static str, within: u64, what: &'static str) -> Mistake {
    Mistake { name, what, within }
}

/// All of them.
pub const MISTAKES: &[Mistake] = &[
    mistake("p32", 10, "no batch is remembered: a retry is refused"),
    mistake("p36", 20, "a duplicate is answered with another offset"),
    mistake("p60", 60, "a snapshot forgets open transactions"),
    mistake(
        "p63",
        60,
        "a start does not replay what is behind the snapshot",
    ),
    mistake(
        "p64",
        60,
        "rows of aborted transactions are not rebuilt by a replay",
    ),
    mistake(
        "v2 join",
        10,
        "the coordinator is not told that a partition takes part (TV2)",
    ),
    mistake(
        "i10",
        40,
        "InitProducerId raises no epoch: nobody is fenced",
    ),
    mistake("i22", 40, "producer ids are given away twice"),
    mistake("e1", 10, "EndTxn (TV2) answers with an epoch from before"),
    mistake("e5", 10, "one marker is skipped"),
    mistake(
        "e6",
        10,
        "commits are ended by abort markers, and aborts by commits",
    ),
    mistake("m7", 10, "a marker does not end its transaction"),
    mistake(
        "m12",
        10,
        "the last stable offset runs ahead of open transactions",
    ),
    mistake("m15", 10, "no rows of aborted transactions are kept"),
    mistake(
        "f1",
        10,
        "aborted transactions are left out of answers to fetches",
    ),
    mistake(
        "o8 abort",
        20,
        "offsets of aborted transactions are committed",
    ),
    mistake(
        "o8 commit",
        20,
        "offsets of committed transactions are dropped",
    ),
    mistake("d8", 200, "late requests of left connections are processed"),
    mistake("n9", 60, "what a failed journal did not keep is answered"),
    mistake("r1", 10, "a batch is answered and not appended"),
];

/// The first seed that finds a mistake.
pub fn found_by(mistake: &Mistake) -> Option<u64> {
    (0..mistake.within).find(|seed| {
        planted::choose(Some(mistake.name));
        let told = run(*seed);
        planted::choose(None);
        told.is_err()
    })
}
