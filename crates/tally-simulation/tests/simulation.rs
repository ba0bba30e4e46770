//! Stories of the whole broker from seeds: the same ones in every run, and new ones.
#![allow(
    clippy::print_stdout,
    reason = "seeds and what they did are shown to whoever runs this"
)]

use std::time::{SystemTime, UNIX_EPOCH};
use tally_simulation::{run, run_many};

/// Seeds of every run of the tests.
const SEEDS: u64 = 1000;
/// New ones each time.
const NEW_SEEDS: u64 = 50;

/// New seeds that have found something: a commit after a power cut in `os` that took an aborted transaction with it,
/// and a power cut in `always` that took the joining of a partition.
const ONCE_FAILED: [u64; 2] = [1_795_310_495, 990_432];

#[test]
fn x292_nothing_is_lost_doubled_torn_or_out_of_order_for_any_seed() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let new = now.map_or(0, |now| now.as_secs());
    let seeds = (0..SEEDS).chain(ONCE_FAILED).chain(new..new + NEW_SEEDS);
    let seeds: Vec<u64> = seeds.collect();
    let sum = run_many(&seeds);
    println!(
        "seeds 0..{SEEDS} and {new}..{}: {} commits, {} aborts, {} deaths of the broker",
        new + NEW_SEEDS,
        sum.commits,
        sum.aborts,
        sum.deaths
    );
    let failures = sum.failures.iter();
    let failures: Vec<String> = failures.map(|(seed, one)| one.describe(*seed)).collect();
    assert!(
        failures.is_empty(),
        "{} of {} seeds failed:\n{}",
        failures.len(),
        seeds.len(),
        failures.join("\n")
    );
    assert!(sum.commits > 20 * SEEDS && sum.aborts > 2 * SEEDS && sum.deaths > SEEDS / 2);
}

#[test]
fn a_pinned_seed_tells_what_it_did() {
    let report = run(12).unwrap_or_else(|failure| panic!("{}", failure.describe(12)));
    for line in &report.story {
        println!("{line}");
    }
    println!(
        "{} commits, {} aborts, {} records, {} deaths",
        report.commits, report.aborts, report.records, report.deaths
    );
    assert!(report.commits > 20 && report.aborts > 2 && report.records > 50);
    let told = |what: &str| report.story.iter().any(|line| line.contains(what));
    assert!(told("the broker") && told("quiet times begin") && told("operator: Create: 0"));
    for who in ["old", "new", "chain0", "chain1"] {
        assert!(told(&format!("{who}: Some(End(true)): 0")), "{who} commits");
    }
}

#[test]
fn the_same_seed_tells_the_same_story_again() {
    for seed in [8, 11, 19] {
        let (first, second) = (run(seed), run(seed));
        let first = first.unwrap_or_else(|failure| panic!("{}", failure.describe(seed)));
        let second = second.unwrap_or_else(|failure| panic!("{}", failure.describe(seed)));
        for (at, (one, other)) in first.story.iter().zip(&second.story).enumerate() {
            assert_eq!(one, other, "line {at} of seed {seed}");
        }
        assert_eq!(first, second);
    }
}
