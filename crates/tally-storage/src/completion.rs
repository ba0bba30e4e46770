//! The end of a run: the files of all partitions completed, synced, and trusted by the next start.
//!
//! Two steps, because the second is for all journals of a directory together: the file system is synced once, however many
//! partitions were written to. A step that fails leaves a directory that is not clean, and never marked as such.

use crate::data_dir::DataDir;
use crate::error::{StorageError, failed};
use crate::journal::{Journal, JournalState, SegmentJournal};
use crate::partition::PartitionLog;
use crate::segment::Place;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tally_protocol::PartitionId;

/// More files than this are synced with the whole file system at once.
const SYNCED_ONE_BY_ONE: usize = 64;

/// The partitions of one journal, complete and closed, to be synced.
pub struct Completed {
    dir: Arc<DataDir>,
    maps: Arc<AtomicUsize>,
    logs: Vec<(PartitionId, PartitionLog)>,
}

impl fmt::Debug for Completed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completed")
            .field("logs", &self.logs.len())
            .finish_non_exhaustive()
    }
}

impl SegmentJournal {
    /// Completes the files of all partitions and closes them; `done` is called after each. When those of all journals are
    /// synced, [`Completed::sync_all`], the directory is clean: [`DataDir::mark_clean`].
    pub fn complete(&mut self, done: &dyn Fn()) -> Result<Completed, StorageError> {
        let mut logs = self.take_all();
        for (id, log) in &mut logs {
            let place = self.place(*id);
            if let Err(error) = log.close(place) {
                self.dir().distrust();
                return Err(failed("complete", place.directory())(error));
            }
            done();
        }
        if self.state() != JournalState::Open {
            self.dir().distrust();
        }
        Ok(Completed {
            dir: Arc::clone(self.dir()),
            maps: Arc::clone(self.maps()),
            logs,
        })
    }

    /// Completes and syncs the files of all partitions, and closes them: where this is the only journal.
    pub fn shutdown(&mut self) -> Result<(), StorageError> {
        let completed = self.complete(&|| ())?;
        Completed::sync_all(vec![completed])
    }
}

impl Completed {
    /// Brings everything to the disk, of all journals of a directory.
    pub fn sync_all(mut all: Vec<Completed>) -> Result<(), StorageError> {
        let Some(dir) = all.first().map(|completed| Arc::clone(&completed.dir)) else {
            return Ok(());
        };
        let synced = sync(&dir, &mut all);
        if synced.is_err() {
            dir.distrust();
        }
        synced
    }
}

fn sync(dir: &DataDir, all: &mut [Completed]) -> Result<(), StorageError> {
    let unsynced = |completed: &Completed| -> usize {
        let logs = completed.logs.iter();
        logs.map(|(id, log)| log.unsynced_files(Place::unmapped(dir, *id)))
            .sum()
    };
    if all.iter().map(unsynced).sum::<usize>() > SYNCED_ONE_BY_ONE {
        let synced = dir.sync_file_system();
        synced.map_err(failed("sync the file system of", dir.path()))?;
    } else {
        for completed in &mut *all {
            for (id, log) in &mut completed.logs {
                let place = Place {
                    dir,
                    id: *id,
                    maps: &completed.maps,
                };
                log.sync(place).map_err(failed("sync", place.directory()))?;
            }
        }
    }
    // Written with the mark of the clean shutdown.
    for (id, log) in all.iter().flat_map(|completed| &completed.logs) {
        if let Some(end) = log.end_point() {
            dir.points().note(*id, end);
        }
    }
    Ok(())
}
