//! A partition and its recovery point: where the walk begins, what of its end may be taken, and what is left to be synced.
//!
//! Invariants: a point never stays above the end of the log when something is appended; what is above the point is in the
//! list of unsynced segments when the partition is open.

use super::hand_over::Handed;
use super::{EPOCHS, PartitionLog};
use crate::data_dir::Trust;
use crate::disk::{self, SegmentFile};
use crate::error::{StorageError, failed};
use crate::recovery::Covered;
use crate::recovery_points::Point;
use crate::segment::{LOG, Place, Segment};
use crate::sync_journal::Durability;
use crate::tail::{Tail, Written, sync_file_if_present};
use std::cmp::Ordering;
use tally_protocol::Offset;

impl Point {
    /// How much of a segment lies below the point.
    pub(crate) fn reach_in(&self, segment: &Segment) -> Written {
        let whole = Written {
            size: segment.size,
            end: segment.end,
        };
        if segment.base < self.segment
            || (segment.base == self.segment && segment.size <= self.position)
        {
            return whole;
        }
        Written {
            size: if segment.base == self.segment {
                self.position
            } else {
                0
            },
            end: self.offset.max(segment.base),
        }
    }

    /// Whether it is further in the log than `other`.
    pub(crate) fn is_behind(&self, other: &Point) -> bool {
        (self.segment, self.position) > (other.segment, other.position)
    }
}

impl PartitionLog {
    /// The first segment that a power cut may have damaged: the one the recovery point lies in. All of them if the files do
    /// not go as far as the point says.
    pub(super) fn first_unsettled(&self, point: &Point) -> usize {
        let named = self
            .segments
            .iter()
            .position(|segment| segment.base == point.segment);
        let Some(at) = named else {
            let ends_before = self
                .segments
                .last()
                .is_none_or(|last| last.base < point.segment);
            return if ends_before {
                0
            } else {
                self.segment_of(point.offset)
            };
        };
        let is_sealed = self
            .segments
            .get(at + 1)
            .is_some_and(|next| next.base == point.offset);
        match self.segments[at].size.cmp(&point.position) {
            // What is behind the point is of a segment whose begin was not to last.
            Ordering::Greater => at,
            // Compaction may have made it shorter since.
            _ if is_sealed => at + 1,
            Ordering::Equal => at,
            Ordering::Less => 0,
        }
    }

    /// What of a segment may be taken after a power cut though nothing says that it was synced (R-11 (a)).
    pub(super) fn covered(&self, place: Place<'_>, trust: Trust, base: Offset) -> Covered {
        let durability = place.dir.points().durability();
        if trust != Trust::PowerCut || matches!(durability, Durability::Memory | Durability::Os) {
            return Covered::ALL;
        }
        let point = place.dir.points().get(place.id);
        Covered {
            below: match base.cmp(&point.segment) {
                Ordering::Less => u64::MAX,
                Ordering::Equal => point.position,
                Ordering::Greater => 0,
            },
            data_too: durability == Durability::Always || self.options.synced_only,
        }
    }

    /// The end of the log as a recovery point.
    pub(crate) fn end_point(&self) -> Option<Point> {
        self.segments.last().map(|last| Point {
            offset: self.log_end,
            segment: last.base,
            position: last.size,
        })
    }

    /// Brings the point and the log together when the partition was opened: a point beyond the end is taken back on the disk,
    /// and what is above it is listed to be synced. What was looked through after a power cut is synced at once, so that the
    /// next one need not be.
    pub(super) fn meet_point(
        &mut self,
        place: Place<'_>,
        trust: Trust,
    ) -> Result<(), StorageError> {
        let points = place.dir.points();
        let mut point = points.get(place.id);
        let end = self.end_point();
        if point != Point::START && end.is_none_or(|end| point.is_behind(&end)) {
            point = end.unwrap_or(Point::START);
            let lowered = points.set(place.id, end);
            let path = place.dir.path();
            lowered.map_err(failed("write the recovery points of", path))?;
        }
        if let Some(end) = end {
            if end.is_behind(&point) && trust == Trust::PowerCut {
                self.sync_above(place, &point)?;
                point = end;
            }
            if end.is_behind(&point) {
                self.list_unsynced(place, &point)?;
            } else {
                // Its offset may have been a lower one, where nobody had walked the segment.
                point = end;
                points.note(place.id, end);
            }
        }
        self.handed = Handed::upto(&point);
        Ok(())
    }

    fn sync_above(&self, place: Place<'_>, point: &Point) -> Result<(), StorageError> {
        for segment in &self.segments {
            if segment.base >= point.segment || segment.end > point.offset {
                let path = place.file(segment.base, LOG);
                let file = SegmentFile::open(&path).map_err(failed("open", &path))?;
                let synced = place.dir.synced(file.sync());
                synced.map_err(failed("sync", &path))?;
            }
        }
        let directory = place.directory();
        let synced = sync_file_if_present(&directory.join(EPOCHS))
            .and_then(|()| disk::sync_directory_and_parents(&directory, place.dir.path()));
        synced.map_err(failed("sync", directory))
    }

    fn list_unsynced(&mut self, place: Place<'_>, point: &Point) -> Result<(), StorageError> {
        let last = self.segments.len().saturating_sub(1);
        for (at, segment) in self.segments.iter_mut().enumerate() {
            let written = Written {
                size: segment.size,
                end: segment.end,
            };
            if segment.size == 0 || point.reach_in(segment) == written {
                continue;
            }
            if place.dir.has_journal() {
                let tail = segment.tail(place);
                let tail = tail.map_err(failed("open a segment in", place.directory()))?;
                if at < last {
                    tail.seal();
                }
                place.dir.unsynced().list(&tail);
            } else if at < last {
                let tail = Tail::closed(place.id, segment.base, written);
                place.dir.unsynced().list(&tail);
            }
        }
        Ok(())
    }
}
