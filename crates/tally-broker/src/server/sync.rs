//! The syncing thread: brings to the disk what the shards have handed over, one group after the other, and rings for the
//! shards that wait.
//!
//! A plain thread, because a sync blocks and a task of the runtime must not (performance.md section 5). It begins the next
//! group as soon as the last one is done: what came meanwhile is its group, so there is no timer to set. A sync that fails
//! is not tried again: the shards find the journal failed, answer 56 and load what there is.

use crate::server::shards::Shards;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tally_storage::{JournalState, SyncJournal, Ticket};

/// How long the thread sleeps at most: nothing depends on it.
const IDLE: Duration = Duration::from_secs(1);

/// The running thread.
#[derive(Debug)]
pub(crate) struct Syncing {
    journal: Arc<SyncJournal>,
    thread: JoinHandle<()>,
}

impl Syncing {
    /// Starts the thread.
    pub(crate) fn start(journal: Arc<SyncJournal>, shards: Arc<Shards>) -> io::Result<Syncing> {
        let thread = std::thread::Builder::new().name("sync".to_owned());
        let thread = thread.spawn({
            let journal = Arc::clone(&journal);
            move || run(&journal, &shards)
        })?;
        Ok(Syncing { journal, thread })
    }

    /// Ends it. Called when no shard hands anything over any more.
    pub(crate) fn stop(self) {
        self.journal.stop();
        self.thread
            .join()
            .expect("a panic ends the process, so no thread has ended by one");
    }
}

fn run(journal: &SyncJournal, shards: &Shards) {
    while !shards.is_stopping() {
        match journal.turn() {
            Ok(true) => shards.synced(journal.synced()),
            Ok(false) if journal.state() == JournalState::Open => journal.wait(IDLE),
            Ok(false) => shards.synced(Ticket(u64::MAX - 1)),
            Err(error) => {
                tracing::error!(%error, "a sync failed: what waited for it is refused");
                shards.synced(Ticket(u64::MAX - 1));
            }
        }
    }
}
