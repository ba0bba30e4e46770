//! Bringing segments to the disk behind the back of their shards, and writing down how far that got.
//!
//! Order: which group of the journal comes next is read first, then the list of unsynced segments is taken, then how far
//! each is written, then they are synced, then the recovery points are written. So a point never passes bytes that were
//! not synced, and every group below the new beginning of the redo has its bytes in segments below the points.

use crate::data_dir::DataDir;
use crate::error::{StorageError, failed};
use crate::faults;
use crate::recovery_points::Point;
use crate::segment::is_full;
use crate::tail::{Tail, Written};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tally_protocol::PartitionId;

/// More files than this are synced with the whole file system at once.
pub(crate) const SYNCED_ONE_BY_ONE: usize = 64;

/// Which segments are synced, and how far points may go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope<'a> {
    /// The closed ones: to their ends.
    Closed,
    /// All, and the redo begins with the group that comes next; to where nothing lies in between that decides over others
    /// and is not in the journal, or, `all_journaled`, to where the journal goes (R-11 (a)).
    All {
        next_group: &'a AtomicU64,
        all_journaled: bool,
    },
}

/// How a checkpoint ended that met no error but a full disk.
#[derive(Debug)]
pub(crate) enum Done {
    /// There was nothing to do.
    Nothing,
    /// The recovery points have moved.
    Moved,
    /// The segments are synced, and there is no room to say so: it is tried again.
    NoRoom(StorageError),
}

/// Syncs the unsynced segments and moves the recovery points and the beginning of the redo. A failed sync is an error, on a
/// full disk too: what it was about may be lost to every later one.
pub(crate) fn run(dir: &DataDir, scope: Scope<'_>) -> Result<Done, StorageError> {
    let _one = dir.one_checkpoint();
    // First, and not before nobody else can begin a new generation.
    let redo_from = match scope {
        Scope::Closed => 0,
        Scope::All { next_group, .. } => next_group.load(Ordering::Acquire),
    };
    let closed_only = matches!(scope, Scope::Closed);
    let unsynced = dir.unsynced();
    let failed_before: BTreeSet<PartitionId> = unsynced.failed();
    let tails = unsynced.take(|tail| !tail.has_failed() && (tail.is_sealed() || !closed_only));
    let points = dir.points();
    let moves = redo_from > points.redo_from();
    if tails.is_empty() && !moves && !points.has_changed() {
        return Ok(Done::Nothing);
    }
    faults::point("checkpoint.before");
    let sampled: Vec<(Written, bool)> = tails.iter().map(|tail| sample(tail, scope)).collect();
    if let Err(error) = sync(dir, &tails) {
        // None of them has moved its point.
        tails.iter().for_each(|tail| unsynced.list_again(tail));
        return Err(error);
    }
    faults::point("checkpoint.synced");
    let mut reached: BTreeMap<PartitionId, Point> = BTreeMap::new();
    let has_failed = !failed_before.is_empty();
    let mut stopped = failed_before;
    for (tail, (written, whole)) in tails.iter().zip(&sampled) {
        if tail.is_removed() || stopped.contains(&tail.partition) {
            continue;
        }
        let point = Point {
            offset: written.end,
            segment: tail.base,
            position: written.size,
        };
        reached.insert(tail.partition, point);
        if !whole {
            stopped.insert(tail.partition);
        }
    }
    let update = points.update(|next| {
        for (id, point) in &reached {
            let before = next.points.entry(*id).or_insert(Point::START);
            if point.is_behind(before) {
                *before = *point;
            }
        }
        // What a failed sync was about is in the journal alone.
        if !has_failed {
            next.redo_from = next.redo_from.max(redo_from);
        }
    });
    faults::point("checkpoint.after");
    for (tail, (_, whole)) in tails.iter().zip(&sampled) {
        // The points are where they were, or not at its end: it is synced again before they move on.
        if update.is_err() || !whole || stopped.contains(&tail.partition) {
            unsynced.list_again(tail);
        }
    }
    let failed = failed("write the recovery points of", dir.path());
    match update {
        Ok(()) => Ok(Done::Moved),
        Err(error) if is_full(&error) => Ok(Done::NoRoom(failed(error))),
        Err(error) => Err(failed(error)),
    }
}

fn sample(tail: &Tail, scope: Scope<'_>) -> (Written, bool) {
    match scope {
        Scope::Closed => (tail.written(), true),
        Scope::All { all_journaled, .. } => tail.reach(all_journaled),
    }
}

/// Syncs segments, in their order; many of them with the whole file system.
pub(crate) fn sync(dir: &DataDir, tails: &[Arc<Tail>]) -> Result<(), StorageError> {
    if tails.len() > SYNCED_ONE_BY_ONE {
        let names: Vec<bool> = tails.iter().map(|tail| tail.take_names()).collect();
        let synced = dir.sync_file_system();
        return synced.map_err(|error| {
            for (tail, names) in tails.iter().zip(names) {
                tail.fail(dir);
                if names {
                    tail.name_written();
                }
            }
            failed("sync the file system of", dir.path())(error)
        });
    }
    let mut outcome: Result<(), (Arc<Tail>, io::Error)> = Ok(());
    for tail in tails {
        // One that is not reached is as unsynced as it was.
        if outcome.is_err() {
            dir.unsynced().list(tail);
        } else if let Err(error) = tail.sync(dir) {
            outcome = Err((Arc::clone(tail), error));
        }
    }
    outcome.map_err(|(tail, error)| {
        failed("sync a segment in", dir.partition_path(tail.partition))(error)
    })
}
