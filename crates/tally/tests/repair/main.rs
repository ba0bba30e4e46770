//! `tally verify log --repair` on directories that nobody has chosen: those that power cuts and random damage leave.

mod after_damage;
mod after_power_cut;
mod reading;

use std::process::Output;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");

#[track_caller]
fn tally(arguments: &[&str]) -> Output {
    tally_testkit::offline::run(PROGRAM, arguments)
}

/// The seeds of a test: so many from 0 on and some more, or those that the environment names (`FIRST..LAST`, without the last).
fn seeds(usual: u64, more: &[u64]) -> Vec<u64> {
    let Ok(asked) = std::env::var("TALLY_REPAIR_SEEDS") else {
        return (0..usual).chain(more.iter().copied()).collect();
    };
    let (first, last) = asked.split_once("..").expect("FIRST..LAST");
    (first.parse().expect("a number")..last.parse().expect("a number")).collect()
}
