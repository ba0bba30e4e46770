//! The walk over a segment that finds where its good bytes end.
//!
//! The size of a file is not the end of the log. A batch counts if its length is sane, its format is 2, its checksum
//! matches, its base offset is the expected one (in a compacted log: or higher, never lower), and its leader epoch has not
//! fallen. The walk stops at the first batch that does not: whatever lies behind is cut before anything is appended, so that no stale
//! batch is ever taken for a new one. Recovery reads with `pread`, never through a map: a bad disk is an error here, not a
//! signal.

use crate::disk::SegmentFile;
use crate::index::{OffsetIndex, Pace, relative};
use crate::partition::LogOptions;
use std::fmt;
use std::io;
use tally_protocol::batch::{self, BatchHeader, BatchView, HEADER_BYTES};
use tally_protocol::ids::{to_u64, to_usize};
use tally_protocol::{BatchError, LeaderEpoch, Offset};

/// Bytes read at a time.
const PIECE: usize = 1024 * 1024;

/// What recovery threw away at the end of a log: to be told to the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The log now ends here.
    pub at: Offset,
    /// How many bytes went.
    pub bytes: u64,
    /// What was wrong with the first of them.
    pub reason: CutReason,
}

/// What is wrong with the first bytes that are not a good batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutReason {
    /// They are no batch, or a part of one.
    Batch(BatchError),
    /// The batch does not begin where the log ends (in a compacted log: there or higher), or its offsets fall.
    Offset {
        /// Where the log ends.
        expected: Offset,
        /// Where the batch begins.
        found: Offset,
    },
    /// The leader epoch is lower than that of the batch before.
    EpochFell {
        /// The epoch before.
        before: LeaderEpoch,
        /// The epoch of the batch.
        found: LeaderEpoch,
    },
    /// The next segment begins at a higher offset: what was between is lost.
    Gap {
        /// Where the next segment begins.
        next_segment: Offset,
    },
    /// It was never synced, and decides over what was (R-11 (a)).
    NotSynced,
    /// The log ends before its own start.
    BelowStart {
        /// Where the log starts.
        log_start: Offset,
    },
}

impl fmt::Display for CutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CutReason::Batch(error) => error.fmt(f),
            CutReason::Offset { expected, found } => {
                write!(f, "a batch begins at offset {found}, expected {expected}")
            }
            CutReason::EpochFell { before, found } => {
                write!(f, "the leader epoch falls from {before} to {found}")
            }
            CutReason::Gap { next_segment } => {
                write!(f, "batches are missing before offset {next_segment}")
            }
            CutReason::NotSynced => f.write_str("a batch was not synced before the power was cut"),
            CutReason::BelowStart { log_start } => {
                write!(f, "the log ends before its start at offset {log_start}")
            }
        }
    }
}

/// What is known to have been synced of a segment, after a power cut (R-11 (a)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covered {
    /// Up to this position.
    pub(crate) below: u64,
    /// Nothing is taken behind it; else only what decides over others is not.
    pub(crate) data_too: bool,
}

impl Covered {
    /// Everything counts that is whole.
    pub(crate) const ALL: Covered = Covered {
        below: u64::MAX,
        data_too: false,
    };

    fn lacks(&self, header: &BatchHeader, end: u64) -> bool {
        end > self.below && (self.data_too || header.is_control())
    }
}

/// What a walk found.
pub(crate) struct Walk {
    /// Where the good bytes end.
    pub(crate) size: u64,
    /// The offset after the last good batch.
    pub(crate) end: Offset,
    /// Why it stopped before the end of the file.
    pub(crate) stopped: Option<CutReason>,
    /// The timestamp of the first batch.
    pub(crate) first_timestamp: Option<i64>,
    /// The state of the indexes behind the last batch; the time index is complete.
    pub(crate) pace: Pace,
    /// The entries of the offset index.
    pub(crate) offsets: Vec<u8>,
    /// The entries of the time index.
    pub(crate) times: Vec<u8>,
    /// The leader epochs seen, each with the base offset of its first batch.
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
}

/// Walks the segment that begins at `base`, every batch with its checksum.
pub(crate) fn walk(file: &SegmentFile, base: Offset, options: &LogOptions) -> io::Result<Walk> {
    walk_covered(file, base, options, &Covered::ALL)
}

/// The same, and stops at what must not be taken though it is whole.
pub(crate) fn walk_covered(
    file: &SegmentFile,
    base: Offset,
    options: &LogOptions,
    covered: &Covered,
) -> io::Result<Walk> {
    let file_size = file.size()?;
    let mut found = Walk::begin(base);
    let mut window = Window::new(file, file_size);
    while found.size < file_size {
        match window.batch_at(found.size)? {
            Err(error) => {
                found.stopped = Some(CutReason::Batch(error));
                break;
            }
            Ok(header) => {
                if let Err(reason) = found.check(base, &header, options.gaps_below > base) {
                    found.stopped = Some(reason);
                    break;
                }
                if covered.lacks(&header, found.size + to_u64(header.size_bytes())) {
                    found.stopped = Some(CutReason::NotSynced);
                    break;
                }
                found.take(base, &header, options.index_interval_bytes);
            }
        }
    }
    found.complete_times(base);
    Ok(found)
}

impl Walk {
    /// Nothing walked yet.
    pub(crate) fn begin(base: Offset) -> Walk {
        Walk {
            size: 0,
            end: base,
            stopped: None,
            first_timestamp: None,
            pace: Pace::new(base),
            offsets: Vec::new(),
            times: Vec::new(),
            epochs: Vec::new(),
        }
    }

    /// Adds the last entry of the time index.
    pub(crate) fn complete_times(&mut self, base: Offset) {
        if let Some(entry) = self.pace.time_entry(base) {
            self.times.extend_from_slice(&entry);
        }
    }

    fn check(&self, base: Offset, header: &BatchHeader, gaps: bool) -> Result<(), CutReason> {
        let begins = header.base_offset;
        let expected = if gaps {
            begins >= self.end
        } else {
            begins == self.end
        };
        // Both are outside what a checksum covers or a client may have chosen: no sum of them may overflow.
        let span = begins
            .0
            .saturating_sub(base.0)
            .saturating_add(i64::from(header.last_offset_delta));
        let sane = expected && header.last_offset_delta >= 0 && span <= i64::from(i32::MAX);
        if !sane {
            return Err(CutReason::Offset {
                expected: self.end,
                found: header.base_offset,
            });
        }
        match self.epochs.last() {
            Some((before, _)) if *before > header.leader_epoch => Err(CutReason::EpochFell {
                before: *before,
                found: header.leader_epoch,
            }),
            _ => Ok(()),
        }
    }

    /// Counts a batch.
    pub(crate) fn take(&mut self, base: Offset, header: &BatchHeader, interval: u32) {
        let (bytes, last) = (header.size_bytes(), header.last_offset());
        if self
            .pace
            .batch(bytes, indexed_timestamp(header), last, interval)
        {
            let position = u32::try_from(self.size).unwrap_or(u32::MAX);
            let entry = OffsetIndex::make(relative(base, last), position);
            self.offsets.extend_from_slice(&entry);
            if let Some(entry) = self.pace.time_entry(base) {
                self.times.extend_from_slice(&entry);
            }
        }
        if self
            .epochs
            .last()
            .is_none_or(|(epoch, _)| *epoch < header.leader_epoch)
        {
            self.epochs.push((header.leader_epoch, header.base_offset));
        }
        self.first_timestamp.get_or_insert(header.max_timestamp);
        self.size += to_u64(bytes);
        self.end = last.next();
    }
}

/// The timestamp of a batch for the time index: a batch that compaction has emptied has none (P-67), or a search by time
/// would end there.
pub(crate) fn indexed_timestamp(header: &BatchHeader) -> i64 {
    if header.records_count == 0 {
        -1
    } else {
        header.max_timestamp
    }
}

/// A moving part of a file in memory.
pub(crate) struct Window<'a> {
    file: &'a SegmentFile,
    file_size: u64,
    buffer: Vec<u8>,
    from: u64,
}

impl Window<'_> {
    /// The first `file_size` bytes of a file; what is behind them is not looked at.
    pub(crate) fn new(file: &SegmentFile, file_size: u64) -> Window<'_> {
        Window {
            file,
            file_size,
            buffer: Vec::new(),
            from: 0,
        }
    }

    /// The header of the whole and checked batch at `position`, or what is wrong with it.
    fn batch_at(&mut self, position: u64) -> io::Result<Result<BatchHeader, BatchError>> {
        let batch = self.whole(position)?;
        Ok(batch.and_then(|view| view.check_crc().map(|()| *view.header())))
    }

    /// The whole batch at `position`, its checksum not looked at, or what is wrong with it.
    fn whole(&mut self, position: u64) -> io::Result<Result<BatchView<'_>, BatchError>> {
        let left = self.file_size - position;
        let header = match batch::parse_header(self.bytes(position, HEADER_BYTES)?) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        // Before memory is taken for it: a damaged length may say two gigabytes.
        if to_u64(header.size_bytes()) > left {
            return Ok(Err(BatchError::Incomplete));
        }
        let bytes = self.bytes(position, header.size_bytes())?;
        Ok(BatchView::parse(bytes))
    }

    /// The whole and checked batch at `position`, or what is wrong with it.
    pub(crate) fn view_at(
        &mut self,
        position: u64,
    ) -> io::Result<Result<BatchView<'_>, BatchError>> {
        let size_bytes = match self.batch_at(position)? {
            Ok(header) => header.size_bytes(),
            Err(error) => return Ok(Err(error)),
        };
        Ok(BatchView::parse(self.bytes(position, size_bytes)?))
    }

    /// `len` bytes at `position`, fewer only at the end of the file.
    fn bytes(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let start = to_usize(position - self.from);
        if start + len > self.buffer.len() {
            let left = to_usize(self.file_size - position);
            self.buffer.resize(len.max(PIECE).min(left), 0);
            let read = self.file.read_at(&mut self.buffer, position)?;
            self.buffer.truncate(read);
            self.from = position;
        }
        let start = to_usize(position - self.from);
        let end = (start + len).min(self.buffer.len());
        Ok(&self.buffer[start..end])
    }
}
