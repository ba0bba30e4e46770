//! The files beside a segment, compared with its batches while these are walked.
//!
//! Which batches have entries is not checked, since the interval may have been another one: every entry that is there has
//! to be true, and the last ones may not be missing.

use std::collections::BTreeMap;
use std::path::Path;

use tally_producer_state::AbortedTransaction;
use tally_protocol::ids::to_u64;
use tally_protocol::{BatchHeader, LeaderEpoch, Offset};
use tally_storage::{TRANSACTION_ROW_BYTES, read_offset_index, read_time_index};

use super::report::{Class, Problem, Report};

/// Bytes of an entry of the offset index, and of the time index.
const OFFSET_ENTRY: u64 = 8;
const TIME_ENTRY: u64 = 12;
/// An offset index whose last entry is further from the end of its segment has lost entries; what a broker takes for that
/// too, unless index.interval.bytes is larger.
const INDEX_LAG: u64 = 1024 * 1024;

/// An index, read as far as it was compared.
pub(super) struct IndexCheck<'a, T> {
    path: &'a Path,
    /// The entries, or nothing where there is no file.
    entries: Option<Vec<T>>,
    next: usize,
    entry_bytes: u64,
    /// Where the rest begins that is no whole entry.
    cut_at: Option<u64>,
    is_wrong: bool,
}

impl<'a, T: Copy + Default + PartialEq> IndexCheck<'a, T> {
    fn new(
        path: &'a Path,
        entry_bytes: u64,
        decode: impl FnOnce(&[u8]) -> Vec<T>,
    ) -> IndexCheck<'a, T> {
        let bytes = std::fs::read(path).ok();
        let size = bytes.as_ref().map_or(0, |bytes| to_u64(bytes.len()));
        let rest = size % entry_bytes;
        IndexCheck {
            path,
            entries: bytes.map(|bytes| decode(&bytes)),
            next: 0,
            entry_bytes,
            cut_at: (rest > 0).then_some(size - rest),
            is_wrong: false,
        }
    }

    /// The entry that has to be compared next.
    fn pending(&self) -> Option<T> {
        if self.is_wrong {
            return None;
        }
        self.entries.as_ref()?.get(self.next).copied()
    }

    /// Names the next entry as wrong, once.
    fn complain(&mut self, report: &mut Report, what: &str) {
        let position = to_u64(self.next) * self.entry_bytes;
        self.is_wrong = true;
        report.problem(Problem::new(Class::Cache, self.path, what).at(position));
    }

    /// All batches were compared. `is_complete`: the file has to be cut to size, for its segment was closed.
    fn end(&mut self, report: &mut Report, is_complete: bool) {
        let Some(entries) = &self.entries else {
            if is_complete {
                self.complain(report, "the index is missing");
            }
            return;
        };
        if self.is_wrong {
            return;
        }
        let left = &entries[self.next.min(entries.len())..];
        let is_space = left.iter().all(|entry| *entry == T::default());
        if !left.is_empty() && (is_complete || !is_space) {
            return self.complain(report, "the entry is that of no batch");
        }
        if let Some(position) = self.cut_at
            && is_complete
        {
            self.is_wrong = true;
            let what = "the last entry is cut short";
            report.problem(Problem::new(Class::Cache, self.path, what).at(position));
        }
    }
}

/// The two indexes of a segment.
pub(super) struct Indexes<'a> {
    base: Offset,
    offsets: IndexCheck<'a, (u32, u32)>,
    times: IndexCheck<'a, (i64, u32)>,
    /// The largest timestamp so far.
    largest: i64,
    /// Position of the batch with the last entry, and of the batch before the last one.
    indexed_at: u64,
    last_at: u64,
}

impl<'a> Indexes<'a> {
    pub(super) fn new(base: Offset, offsets: &'a Path, times: &'a Path) -> Indexes<'a> {
        Indexes {
            base,
            offsets: IndexCheck::new(offsets, OFFSET_ENTRY, |bytes| {
                read_offset_index(bytes).collect()
            }),
            times: IndexCheck::new(times, TIME_ENTRY, |bytes| read_time_index(bytes).collect()),
            largest: -1,
            indexed_at: 0,
            last_at: 0,
        }
    }

    /// Compares with the next good batch.
    pub(super) fn batch(&mut self, report: &mut Report, position: u64, header: &BatchHeader) {
        let relative = header.last_offset().0 - self.base.0;
        self.last_at = position;
        if let Some((last, at)) = self.offsets.pending()
            && u64::from(at) <= position
            && (last, at) != (0, 0)
        {
            if u64::from(at) == position && i64::from(last) == relative {
                self.offsets.next += 1;
                self.indexed_at = position;
            } else {
                let what = format!("the entry ({last}, {at}) is that of no batch");
                self.offsets.complain(report, &what);
            }
        }
        // A batch that compaction has emptied has no timestamp (P-67).
        let newest = match header.records_count {
            0 => -1,
            _ => header.max_timestamp,
        };
        let raises = newest > self.largest;
        self.largest = self.largest.max(newest);
        // A time index that was not cut to size ends in zeros, which only the first entry can be.
        if let Some((timestamp, last)) = self.times.pending()
            && i64::from(last) <= relative
            && (self.times.next == 0 || (timestamp, last) != (0, 0))
        {
            if i64::from(last) == relative && raises && timestamp == newest {
                self.times.next += 1;
            } else if self.times.next > 0 || (timestamp, last) != (0, 0) {
                let what = format!("the entry ({timestamp}, {last}) is that of no batch");
                self.times.complain(report, &what);
            }
        }
    }

    /// All `size` bytes of the segment were compared.
    pub(super) fn end(&mut self, report: &mut Report, size: u64, is_complete: bool) {
        self.offsets.end(report, is_complete);
        self.times.end(report, is_complete);
        if !is_complete || size == 0 {
            return;
        }
        if !self.offsets.is_wrong && self.last_at.saturating_sub(self.indexed_at) > INDEX_LAG {
            self.offsets
                .complain(report, "entries are missing at the end");
        }
        let timed = self.times.next.checked_sub(1).and_then(|last| {
            let entries = self.times.entries.as_ref()?;
            entries.get(last).map(|entry| entry.0)
        });
        if !self.times.is_wrong && timed.unwrap_or(-1) < self.largest {
            self.times
                .complain(report, "the segment's largest timestamp is missing");
        }
    }
}

/// What is known of the rows of one segment.
pub(super) struct Rows<'a> {
    /// Rows that a replay of the segment made, each with whether the replay knew every open transaction.
    pub(super) replayed: &'a [(AbortedTransaction, bool)],
    /// The offsets of the segment.
    pub(super) span: (Offset, Offset),
    /// Rows of transactions that ended below it are not made again where rows are.
    pub(super) log_start: Offset,
    /// Batches may be gone: a row may be all that is left of a transaction.
    pub(super) gaps: bool,
    /// Rows from here on are written again by the next start.
    pub(super) rewritten_from: Offset,
}

/// Compares the rows of aborted transactions with those that a replay made. Returns what the file has to hold, if it holds
/// something else.
pub(super) fn check_rows(report: &mut Report, path: &Path, rows: &Rows<'_>) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let (stored, rest) = bytes.as_chunks::<TRANSACTION_ROW_BYTES>();
    let mut found = Vec::with_capacity(stored.len());
    let (mut right, mut is_wrong) = (BTreeMap::new(), false);
    for (at, row) in stored.iter().enumerate() {
        let position = to_u64(at * TRANSACTION_ROW_BYTES);
        let Some(row) = AbortedTransaction::decode(row) else {
            report.problem(
                Problem::new(Class::Damage, path, "a row of an unknown version").at(position),
            );
            is_wrong = true;
            continue;
        };
        if let Some(what) = wrong_row(&row, found.last(), rows) {
            let problem = Problem::new(Class::Damage, path, what).at(position);
            report.problem(problem.offset(row.last_offset));
            is_wrong = true;
        } else {
            right.insert(row.last_offset, row);
        }
        found.push(row.last_offset);
    }
    if !rest.is_empty() && rows.rewritten_from > rows.span.1 {
        let position = to_u64(bytes.len() - rest.len());
        report.problem(Problem::new(Class::Cache, path, "the last row is cut short").at(position));
        is_wrong = true;
    }
    for (row, _) in rows.replayed {
        let is_needed = row.last_offset >= rows.log_start && row.last_offset < rows.rewritten_from;
        if is_needed && !found.contains(&row.last_offset) {
            let what = format!(
                "the row of the aborted transaction of producer {} from offset {} is missing",
                row.producer_id, row.first_offset
            );
            report.problem(Problem::new(Class::Damage, path, &what).offset(row.last_offset));
            is_wrong = true;
        }
        right.entry(row.last_offset).or_insert(*row);
    }
    is_wrong.then(|| {
        right
            .values()
            .flat_map(AbortedTransaction::encode)
            .collect()
    })
}

fn wrong_row(
    row: &AbortedTransaction,
    before: Option<&Offset>,
    rows: &Rows<'_>,
) -> Option<&'static str> {
    if before.is_some_and(|before| *before >= row.last_offset) {
        return Some("the rows are out of order");
    }
    if row.last_offset < rows.span.0 || row.last_offset >= rows.span.1 {
        return Some("the row belongs into another segment");
    }
    let replayed = rows
        .replayed
        .iter()
        .find(|(replayed, _)| replayed.last_offset == row.last_offset);
    match replayed {
        Some((replayed, true)) if replayed != row => Some("the row is not what the log says"),
        // An older transaction that nothing is known of may have been open.
        Some((replayed, false))
            if (replayed.producer_id, replayed.first_offset)
                != (row.producer_id, row.first_offset)
                || row.last_stable_offset > replayed.last_stable_offset =>
        {
            Some("the row is not what the log says")
        }
        Some(_) => None,
        None if rows.gaps && row.first_offset < row.last_offset => None,
        None => Some("the log has no such aborted transaction"),
    }
}

/// What is wrong with the checksums of the rows, one for each snapshot that had rows below it.
pub(super) fn wrong_sums(
    bytes: &[u8],
    rows: &[[u8; TRANSACTION_ROW_BYTES]],
    snapshots: &[Offset],
) -> Option<&'static str> {
    let below = |at: Offset| {
        let is_below =
            move |row: &&[u8; TRANSACTION_ROW_BYTES]| AbortedTransaction::last_offset_of(row) < at;
        rows.iter().take_while(is_below)
    };
    let line_of = |at: Offset| {
        let crc = below(at).fold(0, |crc, row| crc32c::crc32c_append(crc, row));
        format!("{at} {} {crc:08x}\n", below(at).count())
    };
    let text = std::str::from_utf8(bytes).ok();
    let Some(lines) = text.and_then(|text| text.strip_prefix("0\n")) else {
        return Some("it is not as a broker writes it");
    };
    let mut summed = Vec::new();
    for line in lines.split_inclusive('\n') {
        let at = line.split(' ').next().and_then(|word| word.parse().ok());
        let Some(at) = at.map(Offset) else {
            return Some("it is not as a broker writes it");
        };
        // A line whose snapshot is gone says nothing, and goes with the next snapshot.
        if snapshots.contains(&at) && line != line_of(at) {
            return Some(
                "a checksum is not that of the rows: a start that relies on it makes them again",
            );
        }
        summed.push(at);
    }
    let lacks = |at: &Offset| below(*at).next().is_some() && !summed.contains(at);
    snapshots
        .iter()
        .any(lacks)
        .then_some("the line of a snapshot is missing: the next start makes the rows again")
}

/// Compares the leader epochs that the batches have with those of the file.
pub(super) struct EpochCheck<'a> {
    pub(super) path: &'a Path,
    /// The file's, or nothing where it is missing or damaged.
    pub(super) stored: Option<Vec<(LeaderEpoch, Offset)>>,
    last: Option<LeaderEpoch>,
    /// Of the epoch that the last batch has.
    is_reported: bool,
    /// The batch looked at last has a lower epoch than the one before it.
    pub(super) is_falling: bool,
    /// Whether batches may be missing up to here: also the first ones of the epoch that comes next.
    had_gaps: bool,
}

impl<'a> EpochCheck<'a> {
    pub(super) fn new(
        path: &'a Path,
        stored: Option<Vec<(LeaderEpoch, Offset)>>,
    ) -> EpochCheck<'a> {
        EpochCheck {
            path,
            stored,
            last: None,
            is_reported: false,
            is_falling: false,
            had_gaps: false,
        }
    }

    /// What is wrong with the epoch of a batch.
    pub(super) fn batch(
        &mut self,
        header: &BatchHeader,
        begins_log: bool,
        gaps: bool,
    ) -> Option<String> {
        let epoch = header.leader_epoch;
        let before = self.last.replace(epoch);
        self.had_gaps |= gaps;
        self.is_falling = before.is_some_and(|before| before > epoch);
        if self.is_falling {
            return Some(format!("the leader epoch falls to {epoch}"));
        }
        let stored = self.stored.as_ref()?;
        let is_first = before != Some(epoch);
        if is_first {
            self.is_reported = false;
        }
        let above = stored.partition_point(|(_, start)| *start <= header.base_offset);
        let covering = above.checked_sub(1).map(|at| stored[at]);
        let agrees = match covering {
            // Records below the log start have no epoch in the file any more.
            None => stored.is_empty() || stored[0].0 >= epoch,
            Some((stored, start)) => {
                stored == epoch
                    && (!is_first || begins_log || self.had_gaps || start == header.base_offset)
            }
        };
        if agrees || self.is_reported {
            return None;
        }
        self.is_reported = true;
        Some(format!(
            "leader epoch {epoch} is not the one of leader-epoch-checkpoint"
        ))
    }

    /// Epochs of the file that begin behind `last`, or that begin where no batch has them.
    pub(super) fn end(&self, report: &mut Report, log_end: Offset, is_clean: bool) {
        let Some(stored) = &self.stored else {
            return;
        };
        for (epoch, start) in stored {
            let beyond = *start >= log_end && is_clean;
            let unseen = *start < log_end && self.last.is_none_or(|last| *epoch > last);
            if beyond || unseen {
                let what = format!("leader epoch {epoch} from offset {start} has no batch");
                report.problem(Problem::new(Class::Cache, self.path, &what).offset(*start));
            }
        }
    }
}
