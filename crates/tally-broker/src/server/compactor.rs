//! Where compaction runs: on blocking threads, a few at a time, away from the locks of the shards.
//!
//! A shard has at most one job out, so that the queue is as short as there are shards.

use crate::server::shards::Shards;
use std::sync::Arc;
use tally_shard::{CompactionJob, ShardMessage};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Takes jobs from the shards.
pub(crate) type Sender = UnboundedSender<Box<CompactionJob>>;
/// The jobs that wait.
pub(crate) type Receiver = UnboundedReceiver<Box<CompactionJob>>;

/// The way of the jobs.
pub(crate) fn channel() -> (Sender, Receiver) {
    unbounded_channel()
}

/// Runs jobs, at most `threads` (log.cleaner.threads) at once, and gives each back to its shard, for as long as the
/// broker runs.
pub(crate) async fn run(shards: Arc<Shards>, mut jobs: Receiver, threads: usize) {
    let permits = Arc::new(Semaphore::new(threads.clamp(1, Semaphore::MAX_PERMITS)));
    while let Some(mut job) = jobs.recv().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        if shards.is_stopping() {
            return;
        }
        if crate::simulation::is_on() {
            // On the simulation's one thread, with others before and after it.
            crate::simulation::pause().await;
            job.run();
            crate::simulation::pause().await;
            drop(permit);
            shards.tell(job.partition(), ShardMessage::Compacted(job));
            continue;
        }
        let shards = Arc::clone(&shards);
        tokio::task::spawn_blocking(move || {
            job.run();
            drop(permit);
            shards.tell(job.partition(), ShardMessage::Compacted(job));
        });
    }
}
