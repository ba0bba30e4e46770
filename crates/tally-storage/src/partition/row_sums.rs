//! Checksums of the rows of aborted transactions. Their files are Kafka's and have none, and a row that is wrong or
//! missing would hand aborted records to readers of committed ones (F-9).
//!
//! Invariants: for each snapshot there is a line with the number and the CRC-32C of all rows below it, unless there were
//! none; the file is written before the snapshot. Rows above the snapshot need none: replay makes them again (P-64). Whoever
//! finds no line, or another sum, makes all rows again from the log.

use super::PartitionLog;
use crate::TRANSACTION_ROW_BYTES;
use crate::disk::{self, Sync};
use crate::error::{StorageError, failed};
use crate::segment::{Place, Segment};
use std::collections::BTreeSet;
use std::io;
use tally_protocol::Offset;

pub(super) const ROW_SUMS: &str = "txn-sums";

/// The rows below a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowSum {
    snapshot: Offset,
    count: usize,
    crc: u32,
}

impl PartitionLog {
    fn rows(&self) -> impl Iterator<Item = &[u8; TRANSACTION_ROW_BYTES]> {
        self.segments.iter().flat_map(Segment::rows)
    }

    fn crc_of(&self, count: usize) -> u32 {
        let rows = self.rows().take(count);
        rows.fold(0, |crc, row| crc32c::crc32c_append(crc, row))
    }

    /// Reads the sums; a file that makes no sense says nothing.
    pub(super) fn load_row_sums(&mut self, place: Place<'_>) -> Result<(), StorageError> {
        let path = place.directory().join(ROW_SUMS);
        let bytes = disk::read(&path).map_err(failed("read", &path))?;
        self.row_sums = bytes.as_deref().and_then(decode).unwrap_or_default();
        Ok(())
    }

    /// Whether the rows are those that were there when the snapshot at `snapshot` was written; later ones are gone by now.
    pub(crate) fn rows_are_intact(&self, snapshot: Offset) -> bool {
        let Some(sum) = self.row_sums.iter().find(|sum| sum.snapshot == snapshot) else {
            return self.rows().next().is_none();
        };
        sum.count == self.rows().count() && self.crc_of(sum.count) == sum.crc
    }

    /// Notes the rows below a snapshot that is about to be written: all there are.
    pub(super) fn sum_rows(&mut self, place: Place<'_>, snapshot: Offset) -> io::Result<()> {
        let count = self.rows().count();
        if count == 0 && self.row_sums.is_empty() {
            return Ok(());
        }
        let kept = &self.snapshots;
        self.row_sums
            .retain(|sum| sum.snapshot != snapshot && kept.contains(&sum.snapshot));
        let crc = self.crc_of(count);
        self.row_sums.push(RowSum {
            snapshot,
            count,
            crc,
        });
        self.save_row_sums(place)
    }

    /// Counts the rows below each snapshot, now that all rows were made again from the log. Where that can't be written down, it is
    /// with the next snapshot.
    pub(crate) fn recount_all_rows(
        &mut self,
        place: Place<'_>,
        last_offset_of: fn(&[u8; TRANSACTION_ROW_BYTES]) -> Offset,
    ) {
        let snapshots = self.snapshots.iter().copied();
        let sums = snapshots.map(|snapshot| {
            let below = |row: &&[u8; TRANSACTION_ROW_BYTES]| last_offset_of(row) < snapshot;
            let count = self.rows().take_while(below).count();
            RowSum {
                snapshot,
                count,
                crc: self.crc_of(count),
            }
        });
        self.row_sums = sums.collect();
        let is_news = self.rows().next().is_some() || place.directory().join(ROW_SUMS).exists();
        if is_news && let Err(error) = self.save_row_sums(place) {
            tracing::warn!(partition = %place.id, %error, "cannot write the sums of the rows of aborted transactions");
        }
    }

    /// Notes that the oldest rows have gone with their segments. Where that can't be written down, the next start makes
    /// the rows again.
    pub(super) fn forget_rows(&mut self, place: Place<'_>, gone: usize) {
        if gone == 0 || self.row_sums.is_empty() {
            return;
        }
        let mut sums = std::mem::take(&mut self.row_sums);
        for sum in &mut sums {
            sum.count = sum.count.saturating_sub(gone);
            sum.crc = self.crc_of(sum.count);
        }
        self.row_sums = sums;
        if let Err(error) = self.save_row_sums(place) {
            tracing::warn!(partition = %place.id, %error, "cannot write the sums of the rows of aborted transactions");
        }
    }

    /// Notes that compaction has put a segment in the place of those that had the rows `old`, behind `before` others: which
    /// of them it left is what the segment `at` has now. Until that is written down, a start makes the rows again.
    pub(crate) fn recount_rows(
        &mut self,
        place: Place<'_>,
        at: usize,
        old: &[[u8; TRANSACTION_ROW_BYTES]],
    ) {
        if old.is_empty() || self.row_sums.is_empty() {
            return;
        }
        let before: usize = self.segments[..at].iter().map(|s| s.rows().count()).sum();
        let left: BTreeSet<_> = self.segments[at].rows().copied().collect();
        let mut sums = std::mem::take(&mut self.row_sums);
        for sum in &mut sums {
            let old = old.iter().take(sum.count.saturating_sub(before));
            sum.count -= old.filter(|row| !left.contains(*row)).count();
            sum.crc = self.crc_of(sum.count);
        }
        self.row_sums = sums;
        if let Err(error) = self.save_row_sums(place) {
            tracing::warn!(partition = %place.id, %error, "cannot write the sums of the rows of aborted transactions");
        }
    }

    fn save_row_sums(&self, place: Place<'_>) -> io::Result<()> {
        let mut text = "0\n".to_owned();
        for sum in &self.row_sums {
            text.push_str(&format!("{} {} {:08x}\n", sum.snapshot, sum.count, sum.crc));
        }
        disk::replace(&place.directory().join(ROW_SUMS), text.as_bytes(), Sync::No)
    }
}

fn decode(bytes: &[u8]) -> Option<Vec<RowSum>> {
    let lines = std::str::from_utf8(bytes).ok()?.strip_prefix("0\n")?;
    let sum = |line: &str| {
        let mut words = line.split(' ');
        Some(RowSum {
            snapshot: Offset(words.next()?.parse().ok()?),
            count: words.next()?.parse().ok()?,
            crc: u32::from_str_radix(words.next()?, 16).ok()?,
        })
    };
    lines.lines().map(sum).collect()
}
