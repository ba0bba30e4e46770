//! Mistakes that are planted in the broker, one at a time, to see that the simulation finds them
//! (`tally_protocol::planted`). The table of docs/testing.md says the same.

use crate::network::{Mode, Trouble, Wanted};
use crate::run::run_with;
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
    /// Stories that are about this: else very many would be needed.
    pub trouble: Option<Trouble>,
    /// Stories in this mode of durability.
    pub mode: Option<Mode>,
}

const fn mistake(name: &'static str, within: u64, what: &'static str) -> Mistake {
    Mistake {
        name,
        what,
        within,
        trouble: None,
        mode: None,
    }
}

const fn under(trouble: Trouble, name: &'static str, within: u64, what: &'static str) -> Mistake {
    Mistake {
        name,
        what,
        within,
        trouble: Some(trouble),
        mode: Some(Mode::Os),
    }
}

const fn synced(mode: Mode, name: &'static str, within: u64, what: &'static str) -> Mistake {
    Mistake {
        name,
        what,
        within,
        trouble: Some(Trouble::PowerCuts),
        mode: Some(mode),
    }
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
        80,
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
    mistake("m7", 20, "a marker does not end its transaction"),
    mistake(
        "m12",
        20,
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
    under(
        Trouble::SlowNetwork,
        "d8",
        60,
        "late requests of left connections are processed",
    ),
    under(
        Trouble::FailingWrites,
        "n9",
        60,
        "what a failed journal did not keep is answered",
    ),
    mistake("r1", 10, "a batch is answered and not appended"),
    mistake("p31", 40, "of five remembered batches one is forgotten"),
    under(
        Trouble::SlowNetwork,
        "p38",
        400,
        "batches of an old epoch are taken",
    ),
    under(
        Trouble::SlowNetwork,
        "d8 produce",
        400,
        "late requests are processed, of Produce alone",
    ),
    under(
        Trouble::SlowNetwork,
        "d8 partitions",
        250,
        "late requests are processed, of AddPartitionsToTxn alone",
    ),
    under(
        Trouble::SlowNetwork,
        "d8 end",
        60,
        "late requests are processed, of EndTxn alone",
    ),
    under(
        Trouble::SlowNetwork,
        "d8 commit",
        1000,
        "late requests are processed, of TxnOffsetCommit alone",
    ),
    under(
        Trouble::SlowNetwork,
        "v2 verify",
        40,
        "batches of the old flow need no word of the coordinator",
    ),
    under(
        Trouble::SlowNetwork,
        "s15",
        450,
        "EndTxn of the old flow is taken with an old epoch",
    ),
    mistake("s9", 40, "a start does not send the markers that are owed"),
    under(
        Trouble::FullDisk,
        "m11",
        100,
        "a marker that is refused counts as written",
    ),
    mistake(
        "o3",
        100,
        "offsets are taken from who is no member any more",
    ),
    under(Trouble::PowerCuts, "r19", 20, "a power cut fences nobody"),
    under(
        Trouble::SlowNetwork,
        "p46",
        100,
        "the sequence of a batch is not checked",
    ),
    mistake("o9", 200, "offsets are told that a transaction may change"),
    under(
        Trouble::SlowNetwork,
        "d8 offsets",
        600,
        "late requests are processed, of AddOffsetsToTxn alone",
    ),
    synced(
        Mode::Commit,
        "r18",
        200,
        "an offset is synced without the records below it",
    ),
    synced(
        Mode::Always,
        "r1 early",
        20,
        "what is not synced yet is answered",
    ),
    mistake(
        "l85",
        200,
        "a topic that is made again has the id of the one before it",
    ),
    mistake(
        "c5",
        100,
        "compaction takes values of aborted transactions for the last ones",
    ),
    mistake(
        "g111",
        40,
        "a member gets partitions that another one has not given back (KIP-848)",
    ),
    synced(
        Mode::Os,
        "r1 flushed",
        100,
        "an append to a topic with `flush.messages=1` is answered before its sync",
    ),
    mistake("p45", 10, "after the highest sequence 0 is not taken"),
    mistake(
        "d14",
        200,
        "a batch of an aborted transaction counts as written",
    ),
    mistake(
        "m12 first",
        60,
        "of several open transactions the last holds readers",
    ),
    mistake(
        "s9 abort",
        40,
        "a start ends decided commits by abort markers",
    ),
    mistake("o6", 20, "offsets count before their transaction has ended"),
    synced(
        Mode::Always,
        "r5 last",
        100,
        "a start leaves out the last group of the journal",
    ),
    synced(
        Mode::Commit,
        "e7 early",
        40,
        "EndTxn is answered before its decision is synced",
    ),
];

/// The first seed that finds a mistake.
pub fn found_by(mistake: &Mistake) -> Option<u64> {
    (0..mistake.within).find(|seed| {
        planted::choose(Some(mistake.name));
        let (trouble, mode) = (mistake.trouble, mistake.mode);
        let told = run_with(
            *seed,
            Wanted {
                trouble,
                mode,
                ..Wanted::default()
            },
        );
        planted::choose(None);
        told.is_err()
    })
}
