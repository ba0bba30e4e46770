//! Waiting for the disk without stopping anybody else: a few threads that may.
//!
//! A page fault on a runtime's worker would stop every connection of that worker. So what is not in memory is read by
//! threads for blocking work, a few at a time; a connection asks for one thing at a time.

use std::sync::Arc;
use tally_protocol::{ErrorCode, PartitionId};
use tally_storage::{Cold, Slice, StorageError};
use tokio::sync::Semaphore;

/// Loads at once: more would only make the disk seek.
const LOADS_MAX: usize = 4;

/// Who may load.
#[derive(Debug)]
pub(crate) struct Loading {
    permits: Arc<Semaphore>,
}

impl Default for Loading {
    fn default() -> Loading {
        Loading {
            permits: Arc::new(Semaphore::new(LOADS_MAX)),
        }
    }
}

impl Loading {
    /// Runs `load` where it may wait for the disk. It goes on if nobody waits for it any more. `None` when the broker
    /// ends before.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        load: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if crate::simulation::is_on() {
            return Some(load());
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let loaded = tokio::task::spawn_blocking(move || {
            let loaded = load();
            drop(permit);
            loaded
        });
        loaded.await.ok()
    }

    /// Reads what a lookup needs.
    pub(crate) async fn load(&self, id: PartitionId, cold: Cold) -> Result<(), ErrorCode> {
        match self.run(move || cold.load()).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                tracing::error!(partition = %id, %error, "a log can't be read");
                Err(ErrorCode::KafkaStorageError)
            }
            None => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Reads the slices of each item that are not in memory; an error for the item if one can't be read. Items that are
    /// in memory cost no thread.
    pub(crate) async fn load_slices<'a>(
        &self,
        items: impl Iterator<Item = &'a [Slice]>,
    ) -> Vec<(usize, StorageError)> {
        let cold: Vec<(usize, Slice)> = items
            .enumerate()
            .flat_map(|(at, slices)| slices.iter().map(move |slice| (at, slice)))
            .filter(|(_, slice)| !slice.is_in_memory())
            .map(|(at, slice)| (at, slice.clone()))
            .collect();
        if cold.is_empty() {
            return Vec::new();
        }
        let load = move || {
            let loads = cold.iter().map(|(at, slice)| (*at, slice.load()));
            let failed = loads.filter_map(|(at, loaded)| loaded.err().map(|error| (at, error)));
            failed.collect()
        };
        self.run(load).await.unwrap_or_default()
    }
}
