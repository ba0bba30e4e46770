//! Open files: a partition that is written to has one, however many segments it has had, and one that is gone has none.

use crate::support::{Disk, PARTITION, SMALL, loaded};
use std::path::Path;
use std::sync::Arc;
use tally_protocol::Offset;
use tally_storage::{Durability, SegmentJournal, SyncJournal, SyncOptions};

/// The files and maps of this process that lie, or lay, below `directory`.
fn open_files(directory: &Path) -> usize {
    let files = std::fs::read_dir("/proc/self/fd").expect("the system tells");
    // One of another test may be closed meanwhile.
    let files = files
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .filter(|file| file.starts_with(directory));
    files.count()
}

fn maps(directory: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the system tells");
    let directory = directory.to_str().expect("a name in UTF-8");
    maps.lines().filter(|map| map.contains(directory)).count()
}

#[test]
fn closed_segments_and_removed_ones_keep_no_file_open() {
    let disk = Disk::new();
    let directory = disk.root().join("topics");
    let (mut log, _) = disk.start(SMALL);
    log.fill(10);
    assert_eq!(open_files(&directory), 1);
    log.fill(500);
    assert!(disk.bases().len() > 10, "there were many segments");
    assert_eq!(open_files(&directory), 1, "after they were closed");
    let start = Offset(log.end() - 100);
    log.journal.set_log_start(PARTITION, start).expect("moved");
    log.fill(1);
    assert_eq!(open_files(&directory), 1, "after they were removed");
    // One file for each segment that is kept mapped: what is not in memory is read from it.
    log.read(start.0, log.end(), 1000);
    assert!(open_files(&directory) <= 1 + 3, "after they were read");
    log.journal.delete_partition(PARTITION).expect("deleted");
    assert_eq!((open_files(&directory), maps(&directory)), (0, 0));
}

#[test]
fn segments_that_wait_to_be_synced_are_let_go_of_when_they_are() {
    let disk = Disk::new();
    let directory = disk.root().join("topics");
    let dir = disk.open();
    let options = SyncOptions {
        durability: Durability::Always,
        journal_bytes: 1 << 20,
        ..SyncOptions::default()
    };
    let sync = SyncJournal::open(Arc::clone(&dir), options).expect("it opens");
    let mut journal =
        SegmentJournal::synced(Arc::clone(&dir), Arc::clone(&sync), Durability::Always);
    let opened = journal.open_partition(PARTITION, SMALL);
    opened.expect("the partition opens");
    for _ in 0..500 {
        crate::sync_journal::put(&mut journal, PARTITION, 100);
    }
    assert!(disk.bases().len() > 10);
    assert!(sync.turn().expect("synced"));
    assert!(sync.checkpoint().expect("synced"));
    assert_eq!(open_files(&directory), 1);
    let end = journal.log_end(PARTITION);
    let read = || journal.read(PARTITION, Offset(0), end, 1 << 20, true);
    drop(loaded(read).expect("read"));
    journal.delete_partition(PARTITION).expect("deleted");
    assert_eq!((open_files(&directory), maps(&directory)), (0, 0));
}

#[test]
fn a_reader_keeps_the_segment_that_it_reads_and_no_other() {
    let disk = Disk::new();
    let directory = disk.root().join("topics");
    let (mut log, _) = disk.start(SMALL);
    log.fill(100);
    let read = || {
        let whole = (Offset(log.end()), 1 << 20, true);
        log.journal
            .read(PARTITION, Offset(0), whole.0, whole.1, whole.2)
    };
    let outcome = loaded(read).expect("read");
    let kept = outcome.slices.into_iter().next().expect("a segment");
    log.journal.delete_partition(PARTITION).expect("deleted");
    assert_eq!(open_files(&directory), 1, "the one that is read");
    assert_eq!(kept[..8], 0i64.to_be_bytes(), "and it can be");
    drop(kept);
    assert_eq!((open_files(&directory), maps(&directory)), (0, 0));
}
