//! Syncing in `os`, where there is no journal: what a topic's flush settings ask for (LR-55, R-1).
//!
//! The bytes are in their segments, and the segments are synced. Tickets rise as with a file, and what a turn has synced is
//! durable; but nothing is said of the order between partitions, on which in `os` nothing depends. The recovery point of each
//! partition moves behind what was synced, and is written with the next file of points.

use super::SyncJournal;
use crate::checkpoint;
use crate::error::{StorageError, failed};
use crate::faults;
use crate::partition::Range;
use crate::recovery_points::Point;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tally_protocol::{Offset, PartitionId};

/// How often it is looked whether a test still holds a turn back.
const HOLD_AGAIN: Duration = Duration::from_millis(1);

impl SyncJournal {
    /// Syncs the segments of what was handed over.
    pub(super) fn sync_in_place(
        &self,
        ranges: &BTreeMap<(PartitionId, Offset), Range>,
    ) -> Result<(), StorageError> {
        let failed_before = self.dir.unsynced().failed();
        let mut reached = BTreeMap::new();
        let mut tails = Vec::with_capacity(ranges.len());
        for ((id, base), range) in ranges {
            if failed_before.contains(id) {
                // the kernel may take bytes for written that are not.
                let error = io::Error::other("an earlier sync of the partition failed");
                return Err(failed("sync", self.dir.partition_path(*id))(error));
            }
            tails.push(Arc::clone(&range.tail));
            let point = Point {
                offset: range.upto.end,
                segment: *base,
                position: range.upto.size,
            };
            // In the order of offsets: the last one of a partition stays.
            reached.insert(*id, (point, &range.tail));
        }
        if faults::fails("flush") {
            let error = io::Error::other("a device error, made for a test");
            return Err(failed("sync", self.dir.path())(error));
        }
        if let Some(hold) = faults::hold("flush") {
            while hold.lasts() {
                std::thread::sleep(HOLD_AGAIN);
            }
        }
        faults::point("flush");
        checkpoint::sync(&self.dir, &tails)?;
        let points = self.dir.points();
        for (id, (point, tail)) in reached {
            if !tail.is_removed() && point.is_behind(&points.get(id)) {
                points.note(id, point);
            }
        }
        Ok(())
    }
}
