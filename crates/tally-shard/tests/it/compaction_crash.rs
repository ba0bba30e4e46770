//! Crashes and failures while compaction rewrites segments and puts them into the log (CR-21, L39): the old segments or the new
//! ones, whatever the disk keeps.

use crate::history::{Dice, EAGER, History, random_batch, small_segments};
use crate::world::World;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use tally_storage::Durability;
use tally_testkit::seed::Seed;
use tally_testkit::simulated_disk::{Action, Event, Names, Root, SimulatedDisk};

/// A history on a disk, not compacted yet.
fn history(root: &Root, dice: &mut Dice, durability: Durability) -> History {
    let log = small_segments([300, 700, 1500][dice.below(3)]);
    let world = World::compacted_at(root.path(), log, EAGER, durability);
    let mut history = History::of(world);
    fill(&mut history, dice, 60);
    history
}

fn fill(history: &mut History, dice: &mut Dice, steps: usize) {
    for _ in 0..steps {
        random_batch(history, dice);
        if dice.below(2) == 0 {
            let nth = 2 + dice.below(3);
            history.finish(nth, dice.below(2) == 0);
        }
    }
}

/// Opens what a moment has left, checks it, and goes on there.
fn check_image(history: &History, write: impl FnOnce(&Root), boot: &str, lossy: bool) -> i64 {
    let image = Root::new("image");
    write(&image);
    let disk = SimulatedDisk::new(image.path(), boot);
    let _watched = disk.install();
    let mut history = history.image(image.path());
    if lossy {
        history.forget_what_was_lost();
    }
    history.check();
    history.check_duplicates();
    history.compact();
    history.check();
    history.end
}

fn is_swap(event: &Event) -> bool {
    event.path.contains("/swap")
}

/// Every moment of a pass: what was synced before it began is there after a kill and after a power cut.
#[test]
fn cr21_l39_a_crash_at_each_step_leaves_the_old_segments_or_the_new_ones() {
    check_each_step(Durability::Os, 0..2, 100);
}

/// The same where a journal holds what is appended meanwhile, and only what a recovery point covers may be compacted.
#[test]
fn cr21_a_crash_at_each_step_is_as_harmless_where_commits_are_synced() {
    check_each_step(Durability::Commit, 2..3, 30);
}

#[test]
fn cr21_a_crash_at_each_step_is_as_harmless_where_writes_are_synced() {
    check_each_step(Durability::Always, 3..4, 30);
}

/// Takes so many of a hundred steps.
fn check_each_step(durability: Durability, seeds: Range<u64>, percent: u64) {
    let (mut images, mut decided) = (0, 0);
    for seed in seeds {
        let root = Root::new("compaction");
        let disk = SimulatedDisk::new(root.path(), "one");
        let watched = disk.install();
        let mut dice = Dice::new(seed);
        let mut history = history(&root, &mut dice, durability).again(World::restart);
        history.world.checkpoint();
        // What is rewritten beside the log takes most of the steps, and is all the same until the decision.
        let mut chance = Seed::new(seed);
        disk.on_operation(move |event| {
            let is_beside = event.path.ends_with(".cleaned") && event.kind != "rename";
            let is_left_out = is_beside && chance.percent(95) || !chance.percent(percent);
            if is_left_out && !is_swap(event) {
                Action::Go
            } else {
                Action::Capture
            }
        });
        history.compact();
        drop(watched);
        history.check();
        let mut seed = Seed::new(seed);
        for capture in disk.take_captures() {
            let moment = &capture.moment;
            decided += usize::from(is_swap(&capture.before));
            check_image(&history, |root| moment.killed(root.path()), "one", false);
            for names in [Names::Ordered, Names::Any] {
                let write = |root: &Root| moment.power_cut(root.path(), &mut seed, names);
                check_image(&history, write, "two", false);
            }
            images += 3;
        }
    }
    assert!(decided > 5 && images > 50, "{decided} {images}");
}

/// What was not synced may be lost with the power, but then nothing of what it superseded has gone: the log that is left says
/// of each key what it said at that offset.
#[test]
fn a_record_is_not_removed_for_a_later_one_that_can_be_lost() {
    let mut ends = BTreeSet::new();
    for seed in 0..2 {
        let root = Root::new("compaction");
        let disk = SimulatedDisk::new(root.path(), "one");
        let watched = disk.install();
        let mut dice = Dice::new(seed);
        let mut history = history(&root, &mut dice, Durability::Os).again(World::restart);
        fill(&mut history, &mut dice, 40);
        let mut seen = false;
        disk.on_operation(move |event| {
            seen |= is_swap(event);
            if seen { Action::Capture } else { Action::Go }
        });
        history.compact();
        fill(&mut history, &mut dice, 3);
        drop(watched);
        history.check();
        let mut seed = Seed::new(seed);
        for capture in disk.take_captures() {
            let moment = &capture.moment;
            for names in [Names::Ordered, Names::Any] {
                let write = |root: &Root| moment.power_cut(root.path(), &mut seed, names);
                ends.insert(history.end - check_image(&history, write, "two", true));
            }
        }
    }
    assert!(ends.len() > 2, "something was lost: {ends:?}");
}

/// The same where writes are synced: in `always` nothing is lost, in `commit` what nobody has asked to be kept, and a pass
/// that comes between two checkpoints keeps to what the first one has covered.
#[test]
fn a_record_is_not_removed_for_a_later_one_that_is_not_settled() {
    for durability in [Durability::Commit, Durability::Always] {
        let (mut ends, mut images) = (BTreeSet::new(), 0);
        for seed in 0..1 {
            let root = Root::new("compaction");
            let disk = SimulatedDisk::new(root.path(), "one");
            let watched = disk.install();
            let mut dice = Dice::new(seed);
            let mut history = history(&root, &mut dice, durability);
            // Looked at, but nothing is settled yet.
            history.compact();
            history.world.checkpoint();
            fill(&mut history, &mut dice, 30);
            let before = history.end;
            let (mut seen, mut chance) = (false, Seed::new(seed));
            disk.on_operation(move |event| {
                seen |= is_swap(event);
                match seen && chance.percent(30) {
                    true => Action::Capture,
                    false => Action::Go,
                }
            });
            history.compact();
            fill(&mut history, &mut dice, 3);
            drop(watched);
            history.check();
            let mut seed = Seed::new(seed);
            for capture in disk.take_captures() {
                for names in [Names::Ordered, Names::Any] {
                    let moment = &capture.moment;
                    let write = |root: &Root| moment.power_cut(root.path(), &mut seed, names);
                    let end = check_image(&history, write, "two", true);
                    assert!(durability == Durability::Commit || end >= before, "{end}");
                    ends.insert(end);
                    images += 1;
                }
            }
        }
        assert!(images > 20, "{durability:?}: a pass was done: {images}");
        assert!(ends.len() > 2, "{durability:?}: moments differ: {ends:?}");
    }
}

/// One operation of a pass fails, another one each time: nothing is lost, and a later pass does what is left.
#[test]
fn cr21_a_pass_that_fails_at_any_step_harms_nothing() {
    check_failures(Durability::Os);
}

#[test]
fn cr21_a_pass_that_fails_where_writes_are_synced_harms_nothing() {
    check_failures(Durability::Always);
}

fn check_failures(durability: Durability) {
    let mut failed = 0;
    for seed in 0..1 {
        for at in 0.. {
            let root = Root::new("compaction");
            let disk = SimulatedDisk::new(root.path(), "one");
            let watched = disk.install();
            let mut dice = Dice::new(seed);
            let mut history = history(&root, &mut dice, durability).again(World::restart);
            let count = Rc::new(Cell::new(0));
            let counted = Rc::clone(&count);
            disk.on_operation(move |_| {
                counted.set(counted.get() + 1);
                if counted.get() == at + 1 {
                    Action::Fail(io::ErrorKind::Other)
                } else {
                    Action::Go
                }
            });
            history.compact();
            disk.on_operation(|_| Action::Go);
            let is_done = count.get() <= at;
            history.check();
            fill(&mut history, &mut dice, 10);
            history.check();
            history.compact();
            history.check();
            history.check_duplicates();
            let mut history = history.again(World::crash);
            history.check();
            history.check_duplicates();
            drop(watched);
            if is_done {
                break;
            }
            failed += 1;
        }
    }
    assert!(failed > 20, "{failed}");
}
