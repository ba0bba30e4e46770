//! How far a clean stop is, for whoever has to decide whether to wait on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How far the stop of a broker is. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct StopProgress(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    steps: AtomicUsize,
    syncing: AtomicBool,
}

impl StopProgress {
    /// Things done so far: as long as the number rises, it is worth waiting.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Whether all files are complete and the disk is to take them: that is one step, and may be a long one.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.0.syncing.load(Ordering::Relaxed)
    }

    pub(crate) fn step(&self) {
        self.0.steps.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sync(&self) {
        self.0.syncing.store(true, Ordering::Relaxed);
    }
}
