//! Mistakes that are planted in the broker are found.
#![allow(
    clippy::print_stdout,
    reason = "what is found, and how soon, is shown to whoever runs this"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tally_simulation::{MISTAKES, found_by};

#[test]
fn every_planted_mistake_is_found_within_its_seeds() {
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    // One of them alone, for whoever works on it.
    let only = std::env::var("TALLY_SIM_MISTAKE").ok();
    let work = || {
        while let Some(mistake) = MISTAKES.get(next.fetch_add(1, Ordering::Relaxed)) {
            if only.as_ref().is_some_and(|name| name != mistake.name) {
                continue;
            }
            let found = found_by(mistake);
            println!("{}: {found:?} of {}", mistake.name, mistake.within);
            if found.is_none() {
                missed.lock().expect("no panic under it").push(mistake.name);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    let missed = missed.into_inner().expect("no panic under it");
    assert!(missed.is_empty(), "not found: {missed:?}");
    assert!(MISTAKES.len() >= 20);
}
