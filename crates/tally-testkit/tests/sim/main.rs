//! Crash proofs of the log: seeded lives of a broker on a disk that loses its power, fails and is full.
//!
//! Each seed is one run: clients at work, images of the disk at random moments (before any operation, in the middle of a
//! write, in the middle of a recovery), recovery on each image, and the judgement of `model`. A failing seed prints the line
//! that replays it.

#![allow(
    clippy::print_stdout,
    reason = "seeds and what they did are shown to whoever runs this"
)]

mod clients;
mod log;
mod model;
mod run;
mod world;

use run::{Mistake, Report, run};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tally_storage::Durability;

/// The modes that seeds are run in.
const NAMES: [&str; 3] = ["os", "commit", "always"];
/// Seeds in each run of the tests in `os`.
const SEEDS: u64 = 500;
/// And in each mode that syncs.
const SYNCED_SEEDS: u64 = 40;
/// New ones each time.
const NEW_SEEDS: u64 = 20;

fn mode_named(name: &str) -> Durability {
    match name {
        "os" => Durability::Os,
        "commit" => Durability::Commit,
        "always" => Durability::Always,
        other => panic!("no durability {other}"),
    }
}

fn replay_line(name: &str, seed: u64) -> String {
    format!(
        "TALLY_SIM_SEED={seed} TALLY_SIM_MODE={name} cargo test -p tally-testkit --test sim a_seed_of_your_own -- --nocapture"
    )
}

fn describe(name: &str, seed: u64, error: &str, report: &Report) -> String {
    let last = report.lines.len().saturating_sub(12);
    format!(
        "{error}\n  {}\n  {}",
        report.lines[last..].join("\n  "),
        replay_line(name, seed)
    )
}

/// Runs seeds on all processors; returns images and failures.
fn run_all(name: &'static str, seeds: &[u64], mistake: Mistake) -> (u64, Vec<String>) {
    let (next, images) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        let mut failures = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(seed) = usize::try_from(at).ok().and_then(|at| seeds.get(at)) else {
                return failures;
            };
            let report = match run(*seed, mode_named(name), mistake) {
                Ok(report) => report,
                Err((error, report)) => {
                    failures.push(describe(name, *seed, &error, &report));
                    report
                }
            };
            images.fetch_add(report.images, Ordering::Relaxed);
        }
    };
    let failures = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .flat_map(|failures| failures.expect("a run ends with a value"))
            .collect::<Vec<_>>()
    });
    (images.load(Ordering::Relaxed), failures)
}

#[track_caller]
fn check_seeds(name: &'static str, pinned: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let new = now.map_or(0, |now| now.as_secs());
    let seeds: Vec<u64> = (0..pinned).chain(new..new + NEW_SEEDS).collect();
    let (images, failures) = run_all(name, &seeds, Mistake::None);
    println!(
        "{name}: seeds 0..{pinned} and {new}..{}, {images} images",
        new + NEW_SEEDS
    );
    assert!(
        failures.is_empty(),
        "{} of {} seeds failed:\n{}",
        failures.len(),
        seeds.len(),
        failures.join("\n")
    );
    assert!(images > 2 * pinned, "images were judged: {images}");
}

#[test]
fn cr1_to_cr26_and_cr29_hold_in_mode_os_for_every_seed() {
    check_seeds("os", SEEDS);
}

#[test]
fn cr25_and_cr28_hold_in_mode_commit_for_every_seed() {
    check_seeds("commit", SYNCED_SEEDS);
}

#[test]
fn cr25_holds_in_mode_always_for_every_seed() {
    check_seeds("always", SYNCED_SEEDS);
}

#[test]
fn a_pinned_seed_says_what_it_did() {
    let report = match run(7, Durability::Os, Mistake::None) {
        Ok(report) => report,
        Err((error, report)) => panic!("{}", describe("os", 7, &error, &report)),
    };
    for line in &report.lines {
        println!("{line}");
    }
    let count = |start: &str| report.lines.iter().filter(|l| l.starts_with(start)).count();
    assert_eq!(count("life "), 3, "three lives");
    assert!(count("Kill before ") > 0, "kills were judged");
    assert!(count("Power(") > 0, "power cuts were judged");
    let judged = count("Kill before ") + count("Power(");
    assert_eq!(Ok(report.images), u64::try_from(judged));
    let done = |what: &str| report.trace.iter().filter(|l| l.starts_with(what)).count();
    assert!(done("write ") > 100, "clients were at work");
    assert!(done("sync") > 10, "things were synced");
}

/// Whether the judgement can fail at all: mistakes of the disk, each found within so many seeds.
#[test]
fn mistakes_are_found() {
    for (mode, mistake, within) in [
        (Durability::Os, Mistake::LostWrite(40), 20),
        (Durability::Os, Mistake::NoSync("log-start"), 20),
        (Durability::Os, Mistake::NoSync("meta"), 20),
        (Durability::Os, Mistake::NoSync(".log"), 20),
        (Durability::Commit, Mistake::NoInput, 40),
        (Durability::Commit, Mistake::NoSync("journal"), 20),
        (Durability::Always, Mistake::NoSync("journal"), 20),
        (Durability::Always, Mistake::NoSync("snapshot"), 100),
    ] {
        let found = (0..within).find(|seed| run(*seed, mode, mistake).is_err());
        println!("{mode:?}, {mistake:?}: found by seed {found:?}");
        assert!(found.is_some(), "{mode:?}, {mistake:?} was not found");
    }
}

#[test]
fn the_same_seed_does_the_same_again() {
    for seed in [3, 4] {
        let (first, second) = (
            run(seed, Durability::Os, Mistake::None),
            run(seed, Durability::Os, Mistake::None),
        );
        let (first, second) = (first.expect("it holds"), second.expect("it holds"));
        assert!(first.trace.len() > 100);
        for (at, (one, other)) in first.trace.iter().zip(&second.trace).enumerate() {
            assert_eq!(one, other, "operation {at} of seed {seed}");
        }
        assert_eq!(first, second);
    }
}

#[test]
fn a_seed_of_your_own() {
    let Some(seed) = std::env::var("TALLY_SIM_SEED").ok() else {
        return;
    };
    let name = std::env::var("TALLY_SIM_MODE").unwrap_or_else(|_| "os".to_owned());
    let name = NAMES.iter().find(|known| **known == name);
    let name = name.expect("one of the modes");
    if let Some((first, end)) = seed.split_once("..") {
        let number = |text: &str| text.parse::<u64>().expect("a range of numbers");
        let seeds: Vec<u64> = (number(first)..number(end)).collect();
        let (images, failures) = run_all(name, &seeds, Mistake::None);
        println!("{name}: seeds {seed}, {images} images");
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        return;
    }
    let seed = seed.parse().expect("a number");
    match run(seed, mode_named(name), Mistake::None) {
        Ok(report) => println!("{}\nit holds", report.lines.join("\n")),
        Err((error, report)) => panic!("{}", describe(name, seed, &error, &report)),
    }
}
