//! Compaction of a shard's logs: what readers see stays the same (L35 to L37, L40, L41, X-200 to X-207).

use crate::history::{DELETE_RETENTION_MS, Dice, History, random_batch};
use crate::world::World;
use tally_protocol::Offset;
use tally_protocol::batch::DELETE_HORIZON_BIT;
use tally_shard::Isolation;

fn run(seed: u64) {
    let mut dice = Dice::new(seed);
    let segment_bytes = [150, 400, 1500][dice.below(3)];
    let mut history = History::new(segment_bytes);
    for _ in 0..120 {
        match dice.below(20) {
            0..=10 => random_batch(&mut history, &mut dice),
            11..=14 => {
                let nth = 2 + dice.below(3);
                history.finish(nth, dice.below(2) == 0);
            }
            15 | 16 => {
                history.compact();
                history.check();
            }
            17 => history.world.skip_ms(DELETE_RETENTION_MS / 2),
            18 => {
                history = history.again(World::crash);
                history.check();
            }
            _ => history = history.again(World::restart),
        }
    }
    history.check();
    for nth in 2..5 {
        history.finish(nth, dice.below(2) == 0);
    }
    for _ in 0..4 {
        history.compact();
        history.world.skip_ms(DELETE_RETENTION_MS);
        history.check();
    }
    history.check_duplicates();
    history = history.crash_without_snapshots();
    history.check();
    history.check_duplicates();
}

/// L36, X-206: over random histories a reader of committed records finds the same last value of each key, before and after
/// every pass and every crash; duplicates are found, too, even if the log alone has to tell.
#[test]
fn l36_readers_see_the_same_before_and_after() {
    for seed in 0..12 {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed}: run({seed}) fails");
    }
}

/// What is left of the first segments: the last record of each key.
#[test]
fn l35_l41_the_last_value_stays_and_deletions_go_in_time() {
    let mut history = History::new(200);
    for value in ["1", "2", "3", "4", "5", "6"] {
        history.append(0, 0, &[("a", Some(value)), ("b", Some(value))]);
    }
    history.append(0, 0, &[("b", None)]);
    for nth in 0..3 {
        history.append(0, 0, &[("c", Some(["x", "y", "z"][nth]))]);
        history.append(
            0,
            0,
            &[("d", Some("filler that ends a segment, long enough for it"))],
        );
    }
    let before = history.check();
    history.compact();
    let after = history.check();
    assert!(after < before, "{before} {after}");
    let deletions = |history: &mut History| {
        let seen = history.read_committed();
        seen.iter().filter(|read| read.value.is_none()).count()
    };
    assert_eq!(
        deletions(&mut history),
        1,
        "visible until its time has come"
    );
    history.world.skip_ms(DELETE_RETENTION_MS);
    // Another segment has to be closed before there is another pass.
    for _ in 0..6 {
        history.append(
            0,
            0,
            &[("d", Some("filler that ends a segment, long enough for it"))],
        );
    }
    history.compact();
    history.check();
    assert_eq!(deletions(&mut history), 0);
    let removed = history
        .world
        .read_from(Offset(1), Isolation::ReadCommitted, None);
    assert!(!removed.expect("in range").slices.is_empty(), "L41, LR-79");
}

#[test]
fn x200_l37_an_open_transaction_holds_compaction_back() {
    let mut history = History::new(150);
    let filler = [("a", Some("old")), ("b", Some("old"))];
    history.append(0, 0, &filler);
    history.append(2, 0, &[("a", Some("open"))]);
    let before = history.batches(Isolation::ReadUncommitted).0;
    for _ in 0..10 {
        history.append(0, 0, &filler);
    }
    history.compact();
    let after = history.batches(Isolation::ReadUncommitted).0;
    assert_eq!(before[1..], after[1..before.len()]);
    assert_eq!(after.len(), before.len() + 10);
    history.finish(2, false);
    history.append(0, 0, &filler);
    history.compact();
    assert!(history.batches(Isolation::ReadUncommitted).0.len() < after.len());
    history.check();
}

#[test]
fn x202_an_aborted_transaction_goes_then_its_marker() {
    let mut history = History::new(150);
    history.append(0, 0, &[("k", Some("1"))]);
    history.append(2, 0, &[("k", Some("2"))]);
    history.finish(2, false);
    // Pushes the aborted batch out of the producer's memory.
    for _ in 0..6 {
        history.append(2, 0, &[("other", Some("x"))]);
        history.finish(2, true);
    }
    let markers = |history: &mut History| {
        let (batches, aborted) = history.batches(Isolation::ReadCommitted);
        let abort = batches
            .iter()
            .find(|(header, records)| header.is_control() && records[0].key == "\0\0\0\0");
        let horizon = abort.map(|(header, _)| header.attributes & DELETE_HORIZON_BIT != 0);
        (horizon, aborted.len())
    };
    assert_eq!(markers(&mut history), (Some(false), 1));
    history.compact();
    history.check();
    assert_eq!(markers(&mut history), (Some(false), 1), "X-202: data seen");
    let more = |history: &mut History| {
        for _ in 0..2 {
            history.append(
                0,
                0,
                &[
                    ("f", Some("filler of a segment")),
                    ("g", Some("more of it")),
                ],
            );
        }
        history.compact();
        history.check();
    };
    more(&mut history);
    assert_eq!(markers(&mut history), (Some(true), 0), "stamped");
    more(&mut history);
    assert_eq!(markers(&mut history), (Some(true), 0), "not yet");
    history.world.skip_ms(DELETE_RETENTION_MS);
    more(&mut history);
    assert_eq!(markers(&mut history), (None, 0), "gone");
    let mut history = history.crash_without_snapshots();
    history.check();
    history.check_duplicates();
}
