//! The data directory: its lock, its format, and what it says about the run before.

use crate::support::{Disk, PARTITION, SMALL, names};
use std::sync::Arc;
use tally_protocol::{Offset, PartitionId, TopicId};
use tally_storage::{DataDir, LogOptions, OpenDirError, SegmentJournal};

#[test]
fn a_second_owner_is_refused_and_told_the_first() {
    let disk = Disk::new();
    let first = disk.open();
    match DataDir::open(disk.root()) {
        Err(OpenDirError::AlreadyInUse { pid, .. }) => {
            assert_eq!(pid, Some(std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    drop(first);
    assert!(disk.try_open().is_ok());
}

#[test]
fn the_mark_of_a_clean_shutdown_speaks_of_one_run_only() {
    let disk = Disk::new();
    let dir = disk.open();
    assert!(dir.was_clean(), "there was no run before");
    drop(dir);
    let dir = disk.open();
    assert!(
        !dir.was_clean() && !dir.power_was_cut(),
        "killed, not a power cut"
    );
    dir.mark_clean().expect("the mark is left");
    drop(dir);
    assert!(disk.open().was_clean());
    assert!(!disk.open().was_clean(), "opening removed the mark");
}

#[test]
fn r19_another_boot_without_the_mark_may_be_a_power_cut() {
    let disk = Disk::new();
    drop(disk.open());
    disk.forget_boot();
    assert!(disk.open().power_was_cut());
    // CR-23: killed before it was dealt with.
    let dir = disk.open();
    assert!(dir.power_was_cut());
    // Nor does a clean stop before that make the next start forget it.
    dir.mark_clean().expect("stopped");
    drop(dir);
    let dir = disk.open();
    assert!(dir.power_was_cut() && !dir.was_clean());
    dir.power_cut_handled().expect("written");
    drop(dir);
    assert!(!disk.open().power_was_cut());
    disk.open().mark_clean().expect("the mark is left");
    disk.forget_boot();
    assert!(
        !disk.open().power_was_cut(),
        "a clean shutdown and a reboot"
    );
}

#[test]
fn an_unknown_format_is_refused() {
    let disk = Disk::new();
    drop(disk.open());
    let format = disk.root().join("format");
    assert_eq!(std::fs::read(&format).expect("there"), b"1\n");
    std::fs::write(&format, "2\n").expect("written");
    match disk.try_open() {
        Err(OpenDirError::UnsupportedFormat { found, .. }) => assert_eq!(found, "2"),
        other => panic!("{other:?}"),
    }
    std::fs::remove_file(&format).expect("removed");
    let lost = disk.try_open();
    assert!(
        matches!(lost, Err(OpenDirError::UnsupportedFormat { .. })),
        "{lost:?}"
    );
}

#[test]
fn stored_partitions_are_found_and_half_removed_ones_swept_up() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    log.fill(1);
    let other = PartitionId {
        topic: TopicId([9; 16]),
        index: 0,
    };
    log.journal.open_partition(other, SMALL).expect("opens");
    assert_eq!(log.dir.stored_partitions().expect("listed"), [PARTITION]);
    log.journal
        .delete_partition(other)
        .expect("nothing to remove");
    log.stop();
    let topic = disk.directory().with_file_name("12.deleted");
    std::fs::create_dir(&topic).expect("made");
    std::fs::write(topic.join("x.log"), b"x").expect("written");
    let (mut log, _) = disk.start(LogOptions::default());
    assert_eq!(log.dir.stored_partitions().expect("listed"), [PARTITION]);
    assert!(!topic.exists());
    log.journal.delete_partition(PARTITION).expect("removed");
    assert_eq!(log.dir.stored_partitions().expect("listed"), []);
    assert_eq!(names(&disk.root().join("topics")), Vec::<String>::new());
}

#[test]
fn a_directory_whose_journal_failed_is_never_marked_clean() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    log.fill(1);
    // The directory goes away under the journal: its files can't be completed.
    std::fs::remove_dir_all(disk.directory()).expect("removed");
    assert!(log.journal.shutdown().is_err());
    assert!(log.dir.mark_clean().is_err());
}

/// The mark vouches for all files there are, and for none that are gone.
#[test]
fn a_partition_that_nobody_could_open_keeps_the_mark_away_until_it_is_gone() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(3);
    let moved = log.journal.set_log_start(PARTITION, Offset(2));
    moved.expect("deleted up to there");
    drop(log);
    let log_start = disk.directory().join("log-start");
    std::fs::write(log_start, "0\nsomewhere").expect("damaged");
    let start = |dir: &Arc<DataDir>| {
        let mut journal = SegmentJournal::new(Arc::clone(dir));
        let opened = journal.open_partition(PARTITION, SMALL);
        opened.expect_err("nobody knows where it starts");
        journal
    };
    let dir = disk.open();
    let mut journal = start(&dir);
    let sync_failed = disk.root().join("sync-failed");
    std::fs::write(&sync_failed, "").expect("written");
    journal.shutdown().expect("nothing is open");
    dir.mark_clean().expect("no journal has failed");
    drop((journal, dir));
    assert!(sync_failed.exists(), "it may be of that partition");
    let dir = disk.open();
    assert!(!dir.was_clean());
    let mut journal = start(&dir);
    journal.delete_partition(PARTITION).expect("removed");
    journal.shutdown().expect("nothing is open");
    dir.mark_clean().expect("the mark is left");
    drop((journal, dir));
    assert!(disk.open().was_clean());
}

/// What a clean run has left is vouched for, until a sync fails: then nobody knows what of it is on the disk.
#[test]
fn a_failed_sync_takes_what_a_clean_run_has_vouched_for() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(3);
    let moved = log.journal.set_log_start(PARTITION, Offset(2));
    moved.expect("deleted up to there");
    log.stop();
    std::fs::write(disk.directory().join("log-start"), "0\nsomewhere").expect("damaged");
    let marked_after = |has_failed: bool| {
        let sync_failed = disk.root().join("sync-failed");
        if has_failed {
            std::fs::write(&sync_failed, "").expect("written");
        }
        let dir = disk.open();
        assert!(dir.was_clean());
        let mut journal = SegmentJournal::new(Arc::clone(&dir));
        let opened = journal.open_partition(PARTITION, SMALL);
        opened.expect_err("nobody knows where it starts");
        journal.shutdown().expect("nothing is open");
        dir.mark_clean().expect("no journal has failed");
        assert_eq!(sync_failed.exists(), has_failed);
        drop((journal, dir));
        disk.root().join("clean-shutdown").exists()
    };
    assert!(marked_after(false), "it is as the clean run left it");
    assert!(!marked_after(true));
}
