//! What the benchmarks of this crate begin with: a directory, partitions in it, batches of a size.
//!
//! `TALLY_BENCH_DIR` names the file system to use (default: the directory for temporary files).

use bytes::Bytes;
use std::path::Path;
use std::sync::Arc;
use tally_protocol::build::BatchBuilder;
use tally_protocol::{LeaderEpoch, PartitionId, TopicId};
use tally_storage::{DataDir, Entry, Journal, LogOptions, SegmentJournal};

/// A partition of the one topic that there is.
pub(crate) fn partition(index: i32) -> PartitionId {
    PartitionId {
        topic: TopicId([1; 16]),
        index,
    }
}

/// A new directory, which goes with what is returned.
pub(crate) fn directory() -> tempfile::TempDir {
    let place = std::env::var_os("TALLY_BENCH_DIR");
    let place = place.map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(place).expect("a directory")
}

/// Opens the first so many partitions.
pub(crate) fn open(root: &Path, partitions: i32) -> SegmentJournal {
    open_with(root, partitions, LogOptions::default())
}

/// The same with settings.
pub(crate) fn open_with(root: &Path, partitions: i32, options: LogOptions) -> SegmentJournal {
    let dir = DataDir::open(root).expect("the directory is free");
    let mut journal = SegmentJournal::new(Arc::new(dir));
    for index in 0..partitions {
        let opened = journal.open_partition(partition(index), options);
        opened.expect("the partition opens");
    }
    journal
}

/// A batch of one record, about so many bytes.
pub(crate) fn batch(bytes: usize) -> Vec<u8> {
    batch_at(1_700_000_000_000, bytes)
}

/// The same with a timestamp.
pub(crate) fn batch_at(timestamp_ms: i64, bytes: usize) -> Vec<u8> {
    let mut batch = BatchBuilder::with_capacity(timestamp_ms, bytes);
    batch.push(None, Some(&vec![b'x'; bytes - 80]));
    batch.finish().to_vec()
}

/// Appends a batch and gives its bytes back, stamped as a shard does. For the time index its offset is its timestamp.
pub(crate) fn append(journal: &mut SegmentJournal, id: PartitionId, mut bytes: Vec<u8>) -> Vec<u8> {
    let base = journal.log_end(id);
    journal.reserve(id, bytes.len()).expect("the disk has room");
    bytes[..8].copy_from_slice(&base.0.to_be_bytes());
    let taken = Bytes::from(bytes);
    journal.append(Entry {
        partition: id,
        leader_epoch: LeaderEpoch(1),
        base,
        last: base,
        max_timestamp: base.0,
        bytes: taken.clone(),
    });
    taken.try_into_mut().expect("nobody else has it").into()
}

/// Appends so many batches.
pub(crate) fn fill(journal: &mut SegmentJournal, id: PartitionId, batches: usize, bytes: usize) {
    (0..batches).fold(batch(bytes), |bytes, _| append(journal, id, bytes));
}
