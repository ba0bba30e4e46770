//! The threads that sync. One brings to the disk what the shards have handed over, one group after the other, and rings for
//! the shards that wait; the other one syncs the segments behind their back, so that the journal's space can be used
//! again and a start has less to look through. In `os` only the flush settings of topics hand anything over, and what is synced
//! behind the back are closed segments.
//!
//! Plain threads, because a sync blocks and a task of the runtime must not (performance.md section 5). The first one begins the
//! next group as soon as the last one is done: what came meanwhile is its group, so there is no timer to set. A sync that
//! fails is not tried again: the shards find the journal failed, answer 56 and load what there is.

use crate::server::shards::Shards;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;
use tally_storage::{DataDir, Durability, JournalState, SyncJournal, Ticket};

/// How long the first thread sleeps at most: nothing depends on it.
const IDLE: Duration = Duration::from_secs(1);
/// How long segments stay unsynced that the journal holds: what a start after a power cut has to write again.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
/// How long closed segments stay unsynced in `os`: what a start after a power cut has to look through.
const CLOSED_EVERY: Duration = Duration::from_secs(60);
/// For those who wait for what never comes.
const EVERYTHING: Ticket = Ticket(u64::MAX - 1);

/// The running threads.
#[derive(Debug)]
pub(crate) struct Syncing {
    pub(crate) journal: Arc<SyncJournal>,
    /// None in a simulation, which does their work itself.
    threads: Vec<JoinHandle<()>>,
}

impl Syncing {
    /// Starts the threads.
    pub(crate) fn start(journal: Arc<SyncJournal>, shards: Arc<Shards>) -> io::Result<Syncing> {
        if crate::simulation::is_on() {
            let threads = Vec::new();
            return Ok(Syncing { journal, threads });
        }
        let (groups, waiting) = (Arc::clone(&journal), Arc::clone(&shards));
        let points = Arc::clone(&journal);
        let mut threads = vec![thread("sync", move || write_groups(&groups, &waiting))?];
        // In `os` they are `SyncingClosed`'s.
        if journal.durability() != Durability::Os {
            let take = move || take_checkpoints(&points, &shards);
            threads.push(thread("checkpoint", take)?);
        }
        Ok(Syncing { journal, threads })
    }

    /// Ends them. Called when no shard hands anything over any more.
    pub(crate) fn stop(self) {
        self.journal.stop();
        for thread in self.threads {
            thread
                .join()
                .expect("a panic ends the process, so no thread has ended by one");
        }
    }
}

/// The thread that syncs closed segments in `os`, where nobody waits for that.
#[derive(Debug)]
pub(crate) struct SyncingClosed {
    /// Dropped to end the thread.
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl SyncingClosed {
    /// Starts the thread.
    pub(crate) fn start(data_dir: Arc<DataDir>) -> io::Result<SyncingClosed> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread("checkpoint", move || sync_closed(&data_dir, &stopped))?;
        Ok(SyncingClosed { stop, thread })
    }

    /// Ends it; waits for a sync that is under way.
    pub(crate) fn stop(self) {
        drop(self.stop);
        self.thread
            .join()
            .expect("a panic ends the process, so the thread has not ended by one");
    }
}

fn sync_closed(data_dir: &DataDir, stopped: &mpsc::Receiver<()>) {
    while stopped.recv_timeout(CLOSED_EVERY) == Err(RecvTimeoutError::Timeout) {
        if let Err(error) = data_dir.sync_closed() {
            tracing::error!(%error, "closed segments could not be synced");
        }
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run)
}

fn write_groups(journal: &SyncJournal, shards: &Shards) {
    while !shards.is_stopping() {
        if !write_group(journal, shards) {
            journal.wait(IDLE);
        }
    }
}

/// One turn of the first thread; whether another one should follow at once.
pub(crate) fn write_group(journal: &SyncJournal, shards: &Shards) -> bool {
    match journal.turn() {
        Ok(true) => {
            shards.synced(journal.synced());
            true
        }
        Ok(false) => {
            if journal.state() != JournalState::Open {
                shards.synced(EVERYTHING);
            }
            false
        }
        Err(error) => {
            tracing::error!(%error, "a sync failed: what waited for it is refused");
            shards.synced(EVERYTHING);
            true
        }
    }
}

fn take_checkpoints(journal: &SyncJournal, shards: &Shards) {
    while !shards.is_stopping() {
        journal.wait_for_checkpoint(CHECKPOINT_EVERY);
        take_checkpoint(journal, shards);
    }
}

/// One turn of the second thread.
pub(crate) fn take_checkpoint(journal: &SyncJournal, shards: &Shards) {
    if let Err(error) = journal.checkpoint() {
        tracing::error!(%error, "a checkpoint failed");
        shards.synced(EVERYTHING);
    }
}
