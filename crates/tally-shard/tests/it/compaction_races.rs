//! What else happens to a partition while a pass over it is away from the shard: the pass is void, or what it made fits still.

use crate::history::{Dice, EAGER, History, random_batch, small_segments};
use crate::world::{COMPACTION_BACKOFF_MS, DATA, World};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tally_shard::{CompactionSettings, RetentionSettings, ShardMessage};
use tally_storage::Durability;
use tally_storage::faults::{self, Observer, Operation, Verdict};
use tally_testkit::seed::Seed;
use tally_testkit::simulated_disk::{Action, Root, SimulatedDisk};

fn history(seed: u64) -> History {
    let mut history = History::new(300);
    fill(&mut history, &mut Dice::new(seed), 60);
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

/// Does something in the middle of a pass: after `groups` of its groups are taken over, before the next is rewritten or
/// between that and its return.
fn interrupt(history: &mut History, groups: usize, is_run: bool, act: impl FnOnce(&mut History)) {
    history.world.holds_jobs = true;
    history.world.pass_ms(COMPACTION_BACKOFF_MS + 1);
    for _ in 0..groups {
        assert_eq!(history.world.run_jobs(), 1);
        history.world.return_jobs();
    }
    if is_run {
        assert_eq!(history.world.run_jobs(), 1, "a pass is under way");
    }
    act(history);
    if !is_run {
        history.world.run_jobs();
    }
    history.world.holds_jobs = false;
    history.world.return_jobs();
}

/// Every place of a pass that has at least three groups.
const PLACES: [(usize, bool); 5] = [(0, false), (0, true), (1, false), (2, true), (2, false)];

fn leftovers(history: &History) -> Vec<String> {
    let entries = std::fs::read_dir(history.world.directory(DATA)).into_iter();
    let names = entries.flatten().flatten().map(|entry| entry.file_name());
    let names = names.map(|name| name.into_string().expect("UTF-8"));
    names
        .filter(|name| name.ends_with(".cleaned") || name == "swap")
        .collect()
}

/// It goes on as if nothing had been.
fn check_goes_on(mut history: History) {
    history.check();
    assert_eq!(leftovers(&history), [""; 0]);
    fill(&mut history, &mut Dice::new(99), 20);
    let before = history.check();
    history.compact();
    assert!(history.check() < before, "another pass comes");
    history.check_duplicates();
    let mut history = history.again(World::crash);
    history.check();
    history.check_duplicates();
}

#[test]
fn a_partition_that_is_deleted_meanwhile_takes_its_pass_with_it() {
    for (groups, is_run) in PLACES {
        let mut history = history(1);
        interrupt(&mut history, groups, is_run, |history| {
            history.world.tell(DATA, ShardMessage::Delete);
        });
        assert!(!history.world.directory(DATA).exists());
        // Others are still looked at.
        history.world.pass_ms(10 * COMPACTION_BACKOFF_MS);
        assert!(!history.world.directory(DATA).exists());
    }
}

/// Counts what is said in the log as an error.
#[derive(Clone, Default)]
struct Errors(Arc<AtomicUsize>);

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Removes a directory before so many operations on files were done.
struct Remover {
    left: Cell<usize>,
    directory: PathBuf,
}

impl Observer for Remover {
    fn before(&self, _: &Operation<'_>) -> Verdict {
        if self.left.get() == 0 {
            std::fs::remove_dir_all(&self.directory).ok();
        }
        self.left.set(self.left.get().saturating_sub(1));
        Verdict::Go
    }

    fn after(&self, _: &Operation<'_>, _: Option<&io::Error>) {}
}

/// Whatever a pass meets as its files go, its end is no error: whoever deletes a topic would look for what is wrong. Where the
/// first file of the rewritten segment has no directory any more (125) it was one.
#[test]
fn a_pass_whose_topic_is_deleted_ends_quietly() {
    let mut was_there = 0;
    for at in (0..).step_by(25) {
        let mut history = history(1);
        history.world.holds_jobs = true;
        history.world.pass_ms(COMPACTION_BACKOFF_MS + 1);
        let remover = Rc::new(Remover {
            left: Cell::new(at),
            directory: history.world.directory(DATA),
        });
        let watched = faults::install(Rc::clone(&remover) as Rc<dyn Observer>);
        assert_eq!(history.world.run_jobs(), 1, "a pass is under way");
        drop(watched);
        was_there = at;
        let met = remover.left.get() == 0;
        let errors = Errors::default();
        tracing::subscriber::with_default(errors.clone(), || {
            history.world.tell(DATA, ShardMessage::Delete);
            history.world.holds_jobs = false;
            history.world.return_jobs();
        });
        assert_eq!(errors.0.load(Ordering::Relaxed), 0, "at operation {at}");
        if !met {
            break;
        }
    }
    assert!(was_there > 125, "a group has more operations: {was_there}");
}

#[test]
fn a_shard_that_is_loaded_anew_meanwhile_takes_nothing_from_before() {
    for (groups, is_run) in PLACES {
        let root = Root::new("races");
        let disk = SimulatedDisk::new(root.path(), "one");
        let _watched = disk.install();
        let world = World::compacted_at(root.path(), small_segments(300), EAGER, Durability::Os);
        let mut history = History::of(world);
        fill(&mut history, &mut Dice::new(2), 60);
        interrupt(&mut history, groups, is_run, |history| {
            let mut is_first = true;
            disk.on_operation(move |event| {
                if event.kind == "write" && event.path.ends_with(".log") && is_first {
                    is_first = false;
                    return Action::Fail(io::ErrorKind::Other);
                }
                Action::Go
            });
            history.world.append_and_fail(DATA);
        });
        check_goes_on(history);
    }
}

#[test]
fn the_log_start_may_move_meanwhile() {
    let mut seed = Seed::new(5);
    for (groups, is_run) in PLACES {
        for _ in 0..3 {
            let mut history = history(3);
            let stable = u64::try_from(history.stable()).expect("not below 0");
            let before = i64::try_from(seed.below(stable)).expect("small");
            interrupt(&mut history, groups, is_run, |history| {
                history.delete_records(before);
                history.check();
            });
            check_goes_on(history);
        }
    }
}

#[test]
fn a_topic_may_stop_to_be_compacted_meanwhile() {
    for (groups, is_run) in PLACES {
        let mut history = history(4);
        let configure = |compaction| ShardMessage::Configure {
            log: small_segments(300),
            retention: RetentionSettings::KEEP_ALL,
            compaction,
        };
        let mut batches = 0;
        interrupt(&mut history, groups, is_run, |history| {
            history.world.tell(DATA, configure(CompactionSettings::OFF));
            batches = history.check();
        });
        assert_eq!(history.check(), batches);
        assert_eq!(leftovers(&history), [""; 0]);
        history.compact();
        assert_eq!(history.check(), batches);
        // What it lacks it lacks for ever.
        let mut history = history.again(World::crash);
        assert_eq!(history.check(), batches);
    }
}

/// LR-72: where the keys find no more room, the next pass goes on.
#[test]
fn lr72_keys_that_do_not_fit_into_one_pass_are_compacted_in_several() {
    let mut history = History::new(40_000);
    let keys: Vec<String> = (0..50).map(|nth| format!("{nth:-<4000}")).collect();
    for round in 0..3 {
        let value = format!("round {round}");
        for key in &keys {
            history.append(1, 0, &[(key, Some(&value))]);
        }
    }
    let all = history.check();
    assert_eq!(all, 150);
    let checkpoint = history.world.directory(DATA).join("cleaner-checkpoint");
    let mut reached = BTreeSet::new();
    history.world.holds_jobs = true;
    history.world.pass_ms(COMPACTION_BACKOFF_MS + 1);
    while history.world.run_jobs() > 0 {
        history.world.return_jobs();
        // Whatever the keys of a pass are, the last value of each is there after every step.
        history.check();
        reached.extend(std::fs::read_to_string(&checkpoint).ok());
        history.world.pass_ms(1);
    }
    history.world.holds_jobs = false;
    assert!(reached.len() > 5, "in several passes: {reached:?}");
    // The open segment was not looked at.
    assert!(history.check() <= 50 + 11);
    history.check_duplicates();
    let mut history = history.again(World::crash);
    history.check();
    history.check_duplicates();
}
