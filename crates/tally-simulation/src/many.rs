//! Many stories at once, on all processors.

use crate::run::{Failure, Report, run};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What many stories came to.
#[derive(Debug, Default)]
pub struct Sum {
    /// How many were told.
    pub stories: u64,
    /// Transactions that were committed, and answered so.
    pub commits: u64,
    /// Transactions that were aborted on purpose.
    pub aborts: u64,
    /// How often a broker died or was restarted.
    pub deaths: u64,
    /// What did not hold, by seed.
    pub failures: Vec<(u64, Failure)>,
}

impl Sum {
    fn add(&mut self, seed: u64, told: Result<Report, Failure>) {
        self.stories += 1;
        match told {
            Ok(report) => {
                self.commits += report.commits;
                self.aborts += report.aborts;
                self.deaths += report.deaths;
            }
            Err(failure) => self.failures.push((seed, failure)),
        }
    }
}

/// Tells the stories of all `seeds`.
pub fn run_many(seeds: &[u64]) -> Sum {
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Sum::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(seed) = usize::try_from(at).ok().and_then(|at| seeds.get(at)) else {
                return;
            };
            let told = run(*seed);
            sum.lock().expect("no panic under it").add(*seed, told);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut sum = sum.into_inner().expect("no panic under it");
    sum.failures.sort_by_key(|(seed, _)| *seed);
    sum
}
