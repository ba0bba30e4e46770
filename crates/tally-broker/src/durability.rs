//! What the modes of durability (exactly-once.md 8.1) keep, and where: the data directory and the journals of a broker.

use crate::config::{BrokerConfig, Durability};
use crate::server::shards::Shards;
use std::sync::Arc;
use tally_storage::{
    DataDir, OpenDirError, SegmentJournal, StorageError, SyncJournal, SyncOptions,
};
use tally_transactions::Fence;

/// Where the files of a broker are that keeps nothing, below the data directory.
const MEMORY: &str = "memory";

/// Opens the data directory. Where nothing is to be kept, files are as good a memory as any: they are never synced, and a
/// directory of their own goes with the broker. What another mode has left beside it stays.
pub(crate) fn open_data_dir(config: &BrokerConfig) -> Result<DataDir, OpenDirError> {
    match config.durability {
        Durability::Memory => DataDir::open_empty(config.data_dir.join(MEMORY)),
        Durability::Os | Durability::Commit | Durability::Always => DataDir::open(&config.data_dir),
    }
}

/// What makes transactional producers stale that were there before a power cut, if there was one: it depends on what
/// the run before may have answered and lost.
pub(crate) fn fence_after_power_cut(data_dir: &DataDir) -> Option<Fence> {
    if tally_protocol::planted::is("r19") {
        return None;
    }
    match data_dir.power_cut_of()? {
        // Epochs may be gone that were handed out.
        tally_storage::Durability::Memory | tally_storage::Durability::Os => {
            Some(Fence::ProducerId)
        }
        // Every epoch that was handed out is there; what was done with it may be gone.
        tally_storage::Durability::Commit => Some(Fence::Epoch),
        tally_storage::Durability::Always => None,
    }
}

/// Notes that a power cut is dealt with, once it is: after that a start begins where this run has ended.
pub(crate) async fn note_power_cut_handled(shards: Arc<Shards>, data_dir: Arc<DataDir>) {
    if !shards.fenced().await {
        return;
    }
    let note = move || data_dir.power_cut_handled();
    let noted = if crate::simulation::is_on() {
        note() // the simulated disk is this thread's
    } else {
        let noted = tokio::task::spawn_blocking(note).await;
        noted.expect("nothing panics")
    };
    if let Err(error) = noted {
        tracing::error!(%error, "the next start will fence all transactional producers again");
    }
}

/// The journal that syncs, in the modes that do.
pub(crate) fn open_journal(
    config: &BrokerConfig,
    data_dir: &Arc<DataDir>,
) -> Result<Option<Arc<SyncJournal>>, StorageError> {
    match config.durability {
        Durability::Memory => Ok(None),
        Durability::Os | Durability::Commit | Durability::Always => {
            let mut options = SyncOptions {
                durability: in_storage(config.durability),
                journal_bytes: config.journal_bytes,
                ..SyncOptions::default()
            };
            if let Some(small) = crate::simulation::journal() {
                (options.journal_bytes, options.copied_bytes_max) = small;
            }
            SyncJournal::open(Arc::clone(data_dir), options).map(Some)
        }
    }
}

/// The journal of one shard.
pub(crate) fn segment_journal(
    durability: Durability,
    data_dir: &Arc<DataDir>,
    journal: Option<&Arc<SyncJournal>>,
) -> SegmentJournal {
    let data_dir = Arc::clone(data_dir);
    match journal {
        Some(journal) => {
            let journal = Arc::clone(journal);
            SegmentJournal::synced(data_dir, journal, in_storage(durability))
        }
        None => SegmentJournal::new(data_dir),
    }
}

/// The same mode, by the name of those who sync.
fn in_storage(durability: Durability) -> tally_storage::Durability {
    match durability {
        Durability::Memory => tally_storage::Durability::Memory,
        Durability::Os => tally_storage::Durability::Os,
        Durability::Commit => tally_storage::Durability::Commit,
        Durability::Always => tally_storage::Durability::Always,
    }
}
