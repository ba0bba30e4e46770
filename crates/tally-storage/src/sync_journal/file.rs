//! The file of the journal: two halves that are written in turns, group behind group.
//!
//! Invariants: a half is written again only when a checkpoint has made all its groups needless; every block of the file has
//! been written before it is used, so that a sync has no metadata to bring along (performance.md section 5).

use super::group::{Builder, PAGE};
use crate::data_dir::DataDir;
use crate::disk::{self, SegmentFile};
use crate::error::{StorageError, failed};
use crate::faults;
use crate::recovery_points::FIRST_GROUP;
use std::io;
use std::path::Path;
use tally_protocol::ids::to_u64;

/// Bytes written at a time when the file is made.
const PIECE: usize = 1024 * 1024;

/// The journal's file and where the next group goes.
pub(super) struct JournalFile {
    file: SegmentFile,
    half: u64,
    generation: u64,
    /// The number of the next group.
    pub(super) number: u64,
    at: u64,
    /// The half it is in.
    current: usize,
    /// The highest number in each half.
    highest: [u64; 2],
}

/// Where a group can go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Room {
    /// Behind the last one.
    Here,
    /// To the beginning of the other half.
    OtherHalf,
    /// To the other half, once a checkpoint has made its groups needless.
    NotYet,
    /// Nowhere: it is larger than a half.
    Never,
}

impl JournalFile {
    /// Opens the journal of a directory whose redo is done, makes it where it is missing or of another size, and begins a
    /// new generation.
    pub(super) fn open(dir: &DataDir, bytes: u64) -> Result<JournalFile, StorageError> {
        let path = dir.journal_path();
        let half = (bytes / 2).next_multiple_of(PAGE).max(PAGE);
        // Before the file is touched: from here on it holds nothing.
        let generation = begin(dir)?;
        let file = match SegmentFile::open(&path) {
            Ok(file) if file.size().map_err(failed("look at", &path))? == half * 2 => file,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("open", &path)(error));
            }
            _ => create(&path, half * 2).map_err(failed("make", &path))?,
        };
        Ok(JournalFile {
            file,
            half,
            generation,
            number: FIRST_GROUP,
            at: 0,
            current: 0,
            highest: [0; 2],
        })
    }

    /// Begins a new generation, after all that the file held was made needless.
    pub(super) fn renew(&mut self, dir: &DataDir) -> Result<(), StorageError> {
        self.generation = begin(dir)?;
        self.number = FIRST_GROUP;
        self.at = 0;
        self.current = 0;
        self.highest = [0; 2];
        Ok(())
    }

    /// Bytes to copy into one group: beyond them segments are synced.
    pub(super) fn group_bytes_max(&self) -> u64 {
        self.half / 4
    }

    /// Where a group of `len` bytes can go, when groups below `redo_from` are needless.
    pub(super) fn room(&self, len: u64, redo_from: u64) -> Room {
        let end = self.half * (to_u64(self.current) + 1);
        if len > self.half {
            Room::Never
        } else if self.at + len <= end {
            Room::Here
        } else if redo_from > self.highest[1 - self.current] {
            Room::OtherHalf
        } else {
            Room::NotYet
        }
    }

    /// Goes to the beginning of the other half, where there is [`Room::OtherHalf`].
    pub(super) fn turn_over(&mut self) {
        self.current = 1 - self.current;
        self.at = self.half * to_u64(self.current);
    }

    /// Writes a group here, and syncs it. After an error the next group goes to the same place, over all of it.
    pub(super) fn write(&mut self, group: &mut Builder) -> io::Result<()> {
        let bytes = group.finish(self.generation, self.number);
        faults::point("journal.before");
        if faults::is_due("journal.torn") {
            let half = self.file.write_at(&bytes[..bytes.len() / 2], self.at);
            half.expect("half a group can be written");
            faults::die();
        }
        self.file.write_at(bytes, self.at)?;
        faults::point("journal.written");
        if faults::fails("journal.sync") {
            return Err(io::Error::other("told to fail"));
        }
        self.file.sync()?;
        faults::point("journal.synced");
        self.at += to_u64(bytes.len());
        self.highest[self.current] = self.number;
        self.number += 1;
        Ok(())
    }
}

fn begin(dir: &DataDir) -> Result<u64, StorageError> {
    let generation = dir.begin_generation();
    generation.map_err(failed("write the recovery points of", dir.path()))
}

/// Makes the file, every block of it written.
fn create(path: &Path, size: u64) -> io::Result<SegmentFile> {
    let unfinished = disk::unfinished_name(path);
    let made = SegmentFile::open_or_create(&unfinished).and_then(|file| {
        file.truncate(0)?;
        file.allocate(0, size)?;
        let zeros = vec![0; PIECE];
        let mut at = 0;
        while at < size {
            let piece = to_u64(PIECE).min(size - at);
            file.write_at(&zeros[..tally_protocol::ids::to_usize(piece)], at)?;
            at += piece;
        }
        file.sync()?;
        disk::rename_if_present(&unfinished, path)?;
        disk::sync_directory(disk::parent(path))?;
        Ok(file)
    });
    if made.is_err() {
        disk::remove_if_present(&unfinished).ok();
    }
    made
}
