//! Where inputs become the files of partitions.

use crate::simulated_disk::Root;
use bytes::Bytes;
use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use tally_protocol::batch::{self, BatchView};
use tally_protocol::build::BatchBuilder;
use tally_protocol::{LeaderEpoch, Offset, PartitionId, TopicId};
use tally_storage::{DataDir, Entry, Journal, JournalState, LogOptions, SegmentJournal};

/// Small segments and an index entry after every 300 bytes.
pub(super) const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 2048,
    segment_ms: i64::MAX,
    segment_jitter_ms: 0,
    index_interval_bytes: 300,
    index_max_bytes: 1024,
    gaps_below: Offset::ZERO,
    flush_messages: i64::MAX,
    flush_ms: u64::MAX,
    synced_only: false,
};
/// How the run before ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    Clean,
    Killed,
    PowerCut,
}

/// A data directory of its own for all inputs that one thread is given: each has a partition of its own in it.
pub(super) struct Place {
    pub(super) journal: SegmentJournal,
    root: Root,
    left: Left,
    next: i32,
}

impl Place {
    fn new(left: Left) -> Place {
        let root = Root::new("fuzz");
        let open = || DataDir::open(root.path()).expect("the directory opens");
        if left != Left::Clean {
            drop(open());
        }
        if left == Left::PowerCut {
            fs::write(root.path().join("boot-id"), "another\n").expect("written");
        }
        Place {
            journal: SegmentJournal::new(Arc::new(open())),
            root,
            left,
            next: 0,
        }
    }

    /// A new partition with these files.
    pub(super) fn partition(&mut self, files: &[(String, &[u8])]) -> PartitionId {
        let id = PartitionId {
            topic: TopicId([7; 16]),
            index: self.next,
        };
        self.next += 1;
        let directory = self.directory(id);
        fs::create_dir_all(&directory).expect("made");
        for (name, bytes) in files {
            fs::write(directory.join(name), bytes).expect("written");
        }
        id
    }

    pub(super) fn directory(&self, id: PartitionId) -> PathBuf {
        let topic = self.root.path().join("topics").join(id.topic.to_string());
        topic.join(id.index.to_string())
    }
}

thread_local! {
    static PLACES: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

/// The directory that was left so.
pub(super) fn with_place<T>(left: Left, use_it: impl FnOnce(&mut Place) -> T) -> T {
    PLACES.with_borrow_mut(|places| {
        let at = places.iter().position(|place| place.left == left);
        let at = at.unwrap_or_else(|| {
            places.push(Place::new(left));
            places.len() - 1
        });
        use_it(&mut places[at])
    })
}

/// The base offsets of whole batches.
pub(super) fn bases(mut log: &[u8]) -> Vec<i64> {
    let mut bases = Vec::new();
    while let Ok(view) = BatchView::parse(log) {
        bases.push(view.header().base_offset.0);
        log = &log[view.bytes().len()..];
    }
    bases
}

/// Appends a batch of two records.
pub(super) fn append(
    journal: &mut SegmentJournal,
    id: PartitionId,
    epoch: LeaderEpoch,
    at_ms: i64,
) {
    let base = journal.log_end(id);
    let mut builder = BatchBuilder::new(at_ms);
    builder.push(Some(b"key"), Some(&[3; 40]));
    builder.push(Some(b"key"), None);
    let mut bytes = builder.finish();
    batch::stamp(&mut bytes, base, epoch);
    journal
        .reserve(id, bytes.len())
        .expect("the disk has room for a few bytes");
    journal.append(Entry {
        partition: id,
        leader_epoch: epoch,
        base,
        last: base.next(),
        max_timestamp: at_ms,
        bytes: Bytes::from(bytes),
    });
    assert_eq!(journal.state(), JournalState::Open);
}
