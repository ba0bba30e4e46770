//! The shared journal on a disk that loses its power, fails and is killed under: what was synced is there, and what is there
//! is a prefix of what was handed over, across partitions (R-11, R-18, CR-23, CR-25, CR-28).

mod model;
mod world;

use crate::model::{Disk, Model};
use crate::world::{World, contents, open};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use tally_storage::Durability;
use tally_testkit::seed::Seed;
use tally_testkit::simulated_disk::{Action, Capture, Names, Root, SimulatedDisk};

/// What is on a disk, by a start of its own that the simulated disk knows nothing of.
fn found_in(root: &Path, boot: &str, model: &Model) -> Disk {
    let _watched = SimulatedDisk::new(root, boot).install();
    let (_dir, _sync, shards) = open(root, &model.ids, model.durability).expect("it opens");
    contents(&shards, &model.ids)
}

/// The same on a disk that has never heard of this thread's other one.
fn found_in_unwatched(root: &Path, model: &Model) -> Disk {
    let (root, model) = (root.to_owned(), model.clone());
    let other = std::thread::spawn(move || found_in(&root, "other", &model));
    other.join().expect("it opens")
}

/// Checks every kind of image of a moment.
fn check_images(capture: &Capture, boot: &str, model: &Model, seed: &mut Seed, what: &str) {
    let check = |found: &Disk, was_killed: bool, image: &str| {
        if let Err(error) = model.check(found, was_killed) {
            panic!("{what}, {image} before {}: {error}", capture.before.text);
        }
    };
    let image = Root::new("killed");
    capture.moment.killed(image.path());
    check(&found_in(image.path(), boot, model), true, "killed");
    let image = Root::new("synced");
    capture.moment.only_synced(image.path());
    check(
        &found_in(image.path(), "two", model),
        false,
        "only what was synced",
    );
    for names in [Names::Ordered, Names::Any] {
        let image = Root::new("cut");
        capture.moment.power_cut(image.path(), seed, names);
        check_twice(&image, model, seed, &check);
    }
}

/// A start that is interrupted, and then one that is not: both as good as one that never was.
fn check_twice(image: &Root, model: &Model, seed: &mut Seed, check: &dyn Fn(&Disk, bool, &str)) {
    let root = Root::new("again");
    copy(image.path(), root.path());
    check(&found_in(image.path(), "two", model), false, "power cut");
    let disk = SimulatedDisk::new(root.path(), "two");
    let at = seed.below(60);
    disk.on_operation(move |event| match event.number % 60 == at {
        true => Action::Capture,
        false => Action::Go,
    });
    let watched = disk.install();
    let (dir, sync, shards) = open(root.path(), &model.ids, model.durability).expect("it opens");
    drop((watched, dir, sync, shards));
    for capture in disk.take_captures() {
        let again = Root::new("again-cut");
        capture.moment.power_cut(again.path(), seed, Names::Any);
        let found = found_in(again.path(), "three", model);
        check(
            &found,
            false,
            &format!("cut in the start before {}", capture.before.text),
        );
        let again = Root::new("again-killed");
        capture.moment.killed(again.path());
        let found = found_in(again.path(), "two", model);
        check(
            &found,
            false,
            &format!("killed in the start before {}", capture.before.text),
        );
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).expect("copied");
        }
    }
}

/// Captures one operation in `every`, with what is known then.
fn capture_some(
    disk: &SimulatedDisk,
    world: &World,
    every: u64,
    seed: &mut Seed,
) -> Rc<RefCell<Vec<Model>>> {
    let models = Rc::new(RefCell::new(Vec::new()));
    let (seen, now, mut seed) = (Rc::clone(&models), Rc::clone(&world.model), seed.fork());
    disk.on_operation(move |event| {
        if seed.below(every) > 0 {
            return Action::Go;
        }
        let Ok(model) = now.try_borrow() else {
            return Action::Go;
        };
        seen.borrow_mut().push(model.clone());
        match event.kind {
            "write" if seed.percent(50) => Action::CaptureTorn(seed.index(event.bytes + 1)),
            _ => Action::Capture,
        }
    });
    models
}

/// Some runs one after the other in the same directory, each ended in another way, and images of every run; how many.
fn live(number: u64, durability: Durability) -> u64 {
    let seed = &mut Seed::new(number);
    let mut root = Root::new("live");
    let mut boot = "boot".to_owned();
    let mut images = 0;
    let mut known: Option<Model> = None;
    for run in 0..4 {
        let what = format!("seed {number}, {durability:?}, run {run}");
        let disk = SimulatedDisk::new(root.path(), &boot);
        let watched = disk.install();
        let mut now = match known.take() {
            None => World::new(root.path(), durability),
            Some(model) => World::resume(root.path(), model, durability),
        };
        let run_boot = boot.clone();
        let models = capture_some(&disk, &now, 40, seed);
        for _ in 0..seed.below(60) + 20 {
            now.step(seed);
            if seed.percent(10) {
                disk.write_back(seed);
            }
        }
        disk.let_be();
        let captures = disk.take_captures();
        let moment = disk.capture();
        let last = now.model.borrow().clone();
        let way = seed.below(3);
        if way == 0 {
            known = Some(now.stop_cleanly());
            drop(watched);
        } else {
            drop((watched, now.contents(), now));
            let next = Root::new("live");
            if way == 1 {
                moment.killed(next.path());
            } else {
                moment.power_cut(next.path(), seed, Names::Any);
            }
            let image = Root::new("copy");
            copy(next.path(), image.path());
            if way == 2 {
                boot = format!("boot after {run}");
            }
            let found = found_in(image.path(), &boot, &last);
            let checked = last.check(&found, way == 1);
            checked.unwrap_or_else(|error| panic!("{what}, at its end ({way}): {error}"));
            known = Some(last);
            root = next;
        }
        let models = models.borrow();
        assert_eq!(captures.len(), models.len());
        for (capture, model) in captures.iter().zip(models.iter()) {
            check_images(capture, &run_boot, model, seed, &what);
            images += 1;
        }
    }
    images
}

/// Has one operation in `every` fail: a sync, a write after some of its bytes, or another one.
fn fail_some(disk: &SimulatedDisk, every: u64, seed: &mut Seed) {
    let mut seed = seed.fork();
    disk.on_operation(move |event| {
        if seed.below(every) > 0 {
            return Action::Go;
        }
        // A sync may find no room too, and is a failed one then.
        let error = [ErrorKind::Other, ErrorKind::StorageFull][seed.index(2)];
        match event.kind {
            "write" => Action::Short(seed.index(event.bytes + 1), error),
            _ => Action::Fail(error),
        }
    });
}

/// A run in which operations fail, with starts over, and then a power cut; how often it started over.
fn fail(number: u64, durability: Durability) -> u64 {
    let seed = &mut Seed::new(number);
    let root = Root::new("fail");
    let disk = SimulatedDisk::new(root.path(), "one");
    let watched = disk.install();
    let mut world = World::new(root.path(), durability);
    let mut failures = 0;
    for _ in 0..6 {
        fail_some(&disk, 30 + seed.below(100), seed);
        for _ in 0..seed.below(60) + 10 {
            world.step(seed);
            if !world.is_open() {
                failures += 1;
                if seed.percent(50) {
                    disk.let_be();
                }
                if !world.start_over() {
                    disk.let_be();
                    world = world.restart(root.path());
                }
            }
        }
        disk.let_be();
        let (moment, model) = (disk.capture(), world.model.borrow().clone());
        let image = Root::new("fail-cut");
        moment.power_cut(image.path(), seed, Names::Any);
        let found = found_in_unwatched(image.path(), &model);
        let checked = model.check(&found, false);
        checked.unwrap_or_else(|error| panic!("seed {number}, {durability:?}: {error}"));
    }
    drop(watched);
    failures
}

/// Lives for each seed and both durabilities; how many seeds, the environment may say.
fn for_seeds(first: u64, live: fn(u64, Durability) -> u64) {
    let asked = std::env::var("TALLY_JOURNAL_SEEDS").ok();
    let seeds = asked.map_or(3, |asked| asked.parse().expect("a number"));
    let mut happened = 0;
    for number in first..first + seeds {
        happened += live(number, Durability::Commit) + live(number, Durability::Always);
    }
    assert!(happened > 0, "it must have something to show");
}

#[test]
fn what_survives_a_power_cut_is_a_prefix_of_what_was_handed_over() {
    for_seeds(0, live);
}

#[test]
fn a_failed_sync_is_never_taken_for_done() {
    for_seeds(1000, fail);
}

/// What a shard finds after an append that failed counts as durable from then on (N9): before the shard began anew some of it
/// was in the journal, some was waiting for it, and a checkpoint comes.
#[test]
fn n9_what_is_found_after_a_failed_append_is_synced() {
    for durability in [Durability::Commit, Durability::Always] {
        let seed = &mut Seed::new(1);
        let root = Root::new("append");
        let disk = SimulatedDisk::new(root.path(), "one");
        let watched = disk.install();
        let mut world = World::new(root.path(), durability);
        world.put(1, seed, false);
        world.put(2, seed, false);
        world.turn();
        world.put(1, seed, false);
        world.put(2, seed, false);
        disk.on_operation(|event| match event.path.ends_with(".log") {
            true => Action::Short(10, ErrorKind::Other),
            false => Action::Go,
        });
        world.put(2, seed, false);
        disk.let_be();
        assert!(!world.is_open(), "the append has failed");
        assert!(world.start_over(), "the disk is good again");
        world.put(3, seed, false);
        world.turn();
        world.checkpoint();
        let (moment, model) = (disk.capture(), world.model.borrow().clone());
        drop(watched);
        let image = Root::new("append-cut");
        moment.only_synced(image.path());
        let checked = model.check(&found_in(image.path(), "two", &model), false);
        checked.unwrap_or_else(|error| panic!("{durability:?}: {error}"));
    }
}
