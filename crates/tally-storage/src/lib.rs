//! Segments, indexes, recovery and the journal, reader and metadata seams.
//!
//! This crate keeps bytes: offsets, leader epochs and sequences are decided above it (N4), and it reads no more of a
//! batch than its header. What is on the disk, byte by byte, is described in `docs/storage-format.md`.
//!
//! | module | owns |
//! |---|---|
//! | `data_dir` | the directory: its lock, its format number, how it was left |
//! | `meta` | the metadata seam and the file behind it |
//! | `journal` | the write seam and [`SegmentJournal`], all partitions of one shard |
//! | `partition` | one partition: its segments, snapshots, leader epochs and log start |
//! | `segment` | one segment: bytes, indexes, rows of aborted transactions |
//! | `sync_journal` | what is synced, when and in which order, with durability `commit` and `always` |
//! | `checkpoint`, `recovery_points` | syncing segments behind the back of their shards, and how far that got |
//! | `redo` | bringing what the journal holds into the segments, at the start |
//! | `tail` | the end of a segment, for those who sync it without the lock of its shard |
//! | `compaction` | rewriting closed segments, and putting them into the log |
//! | `lookup` | finding batches in a segment, by offset and by time |
//! | `cold` | what is not in memory: nobody who reads waits for the disk under the owner's lock |
//! | `opening` | the map and the indexes of a segment, made away from that lock |
//! | `completion` | the end of a run: everything complete, synced and closed |
//! | `recovery` | the walk over a segment that finds where its good bytes end |
//! | `repair` | mending what is damaged in a stopped broker's directory, for the offline tools |
//! | `inspect` | looking into a directory without changing it, for the offline tools |
//! | `disk` | every call that touches a file: the place where another disk can be put |
//! | `faults` | for tests: who looks at those calls and spoils them, and where the process can be made to die |
//! | `mmap` | every memory map, and all the unsafe code there is |

#![deny(unsafe_code)]

mod checkpoint;
mod cold;
mod compaction;
mod completion;
mod data_dir;
mod disk;
mod epochs;
mod error;
#[cfg(feature = "faults")]
pub mod faults;
#[cfg(not(feature = "faults"))]
#[path = "no_faults.rs"]
mod faults;
mod index;
mod inspect;
mod journal;
mod lookup;
mod meta;
mod mmap;
mod opening;
mod partition;
mod partition_map;
mod recovery;
mod recovery_points;
mod redo;
mod repair;
mod segment;
mod sync_journal;
mod tail;

pub use cold::Cold;
pub use compaction::{
    CleanedSegment, Cleaner, CompactionError, CompactionInput, Fate, SealedSegment, Swapped,
};
pub use completion::Completed;
pub use data_dir::DataDir;
pub use error::{NoRoom, OpenDirError, StorageError};
pub use faults::{
    Hold, around as fault_around, clock_ms as fault_clock_ms, fails as fault_fails,
    hold as fault_hold, point as fault_point,
};
pub use inspect::{
    BatchAt, FileKind, Holder, Inspection, JournalEntry, JournalGroup, RecoveryPointsFile,
    SegmentReader, file_kind, read_epochs, read_log_start, read_meta, read_offset_index,
    read_recovery_points, read_time_index, visit_journal,
};
pub use journal::{Appended, Entry, Journal, JournalState, SegmentJournal, Ticket};
pub use meta::{FileMetaStore, MetaError, MetaStore, Revision};
pub use mmap::Slice;
pub use partition::{LogOptions, ReadOutcome, Recovered, SegmentInfo};
pub use partition_map::PartitionMap;
pub use recovery::{Cut, CutReason};
pub use repair::{
    Damaged, EpochsAround, Part, Repair, SegmentPlan, epochs_of, is_placeholder, log_path,
    plan_segment,
};
pub use sync_journal::{Durability, SyncJournal, SyncOptions};

/// Bytes of one row of an aborted transaction: what it says is the business of the producer state (M-15).
pub const TRANSACTION_ROW_BYTES: usize = 34;
