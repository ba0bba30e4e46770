//! Which bytes of a partition go to be synced.
//!
//! Invariants: what is handed over is a prefix of the log, and continues what was handed over before it or what a recovery
//! point covers; it ends behind a whole batch.

use super::PartitionLog;
use crate::error::{StorageError, failed};
use crate::journal::Ticket;
use crate::recovery_points::Point;
use crate::segment::Place;
use crate::tail::{Tail, Written};
use std::sync::Arc;
use tally_protocol::Offset;

/// Above this the exact end of a hand-over is looked up; below, all there is goes.
const EXACT_ABOVE: u64 = 64 * 1024;

/// Bytes of one segment.
#[derive(Clone)]
pub(crate) struct Range {
    pub(crate) tail: Arc<Tail>,
    pub(crate) from: u64,
    pub(crate) upto: Written,
}

/// The end of what was handed over.
pub(super) struct Handed {
    /// The segment it lies in, or a lower offset when nothing was handed over yet.
    segment: Offset,
    upto: Written,
    ticket: Ticket,
}

impl Default for Handed {
    fn default() -> Handed {
        let upto = Written {
            size: 0,
            end: Offset::ZERO,
        };
        Handed {
            segment: Offset::ZERO,
            upto,
            ticket: Ticket(0),
        }
    }
}

impl Handed {
    /// What lies below a recovery point need not be handed over.
    pub(super) fn upto(point: &Point) -> Handed {
        Handed {
            segment: point.segment,
            upto: Written {
                size: point.position,
                end: point.offset,
            },
            ticket: Ticket(0),
        }
    }
}

impl PartitionLog {
    /// The ticket that covers the offsets below `upto` if all of them were handed over before.
    pub(crate) fn handed_over(&self, upto: Offset) -> Option<Ticket> {
        (upto.min(self.log_end) <= self.handed.upto.end).then_some(self.handed.ticket)
    }

    /// Whether so many records came since a hand-over that the topic wants one (flush.messages).
    pub(crate) fn wants_flush(&self) -> bool {
        self.log_end.0 - self.handed.upto.end.0 >= self.options.flush_messages
    }

    /// What of the offsets below `upto` was not handed over, in order.
    pub(crate) fn not_handed_over(
        &mut self,
        place: Place<'_>,
        upto: Offset,
    ) -> Result<Vec<Range>, StorageError> {
        let point = place.dir.points().get(place.id);
        if point.offset > self.handed.upto.end {
            // Checkpoints have synced more than was ever handed over.
            let ticket = self.handed.ticket;
            self.handed = Handed::upto(&point);
            self.handed.ticket = ticket;
        }
        let end = self.end_of_hand_over(upto);
        let mut ranges = Vec::new();
        let (begun, done) = (self.handed.segment, self.handed.upto);
        for segment in &mut self.segments {
            if segment.end <= done.end || segment.base >= end {
                continue;
            }
            let from = if segment.base == begun { done.size } else { 0 };
            let whole = Written {
                size: segment.size,
                end: segment.end,
            };
            let upto = if segment.end <= end {
                whole
            } else {
                match segment.end_of_batch(place, &self.options, end.plus(-1)) {
                    Ok(Some((size, end))) => Written { size, end },
                    // More may go than was asked for; nobody waits for the disk to find out where to stop.
                    Ok(None) | Err(StorageError::NotInMemory(_)) => whole,
                    Err(error) => return Err(error),
                }
            };
            let tail = segment
                .tail(place)
                .map_err(failed("open a segment in", place.directory()))?;
            ranges.push(Range { tail, from, upto });
        }
        Ok(ranges)
    }

    /// Where a hand-over of the offsets below `upto` ends: there, or at the end of the log if that is near.
    fn end_of_hand_over(&self, upto: Offset) -> Offset {
        let begun = self.handed.segment;
        let open: u64 = self
            .segments
            .iter()
            .filter(|segment| segment.end > self.handed.upto.end)
            .map(|segment| match segment.base == begun {
                true => segment.size.saturating_sub(self.handed.upto.size),
                false => segment.size,
            })
            .sum();
        if open <= EXACT_ABOVE {
            self.log_end
        } else {
            upto.min(self.log_end)
        }
    }

    /// Notes what [`PartitionLog::not_handed_over`] returned as handed over.
    pub(crate) fn set_handed_over(&mut self, last: &Range, ticket: Ticket) {
        self.handed = Handed {
            segment: last.tail.base,
            upto: last.upto,
            ticket,
        };
    }
}
