//! The simulated disk itself: what it keeps, what it loses, and that it does the same again.

use bytes::Bytes;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tally_protocol::build::BatchBuilder;
use tally_protocol::{LeaderEpoch, Offset, PartitionId, TopicId, batch};
use tally_storage::{DataDir, Entry, Journal, JournalState, LogOptions, SegmentJournal};
use tally_testkit::seed::Seed;
use tally_testkit::simulated_disk::{Action, Names, Root, SimulatedDisk};

const PARTITION: PartitionId = PartitionId {
    topic: TopicId([7; 16]),
    index: 0,
};

fn open(root: &Path) -> (Arc<DataDir>, SegmentJournal, i64) {
    let dir = Arc::new(DataDir::open(root).expect("opens"));
    let mut journal = SegmentJournal::new(Arc::clone(&dir));
    let found = journal
        .open_partition(PARTITION, LogOptions::default())
        .expect("opens");
    (dir, journal, found.log_end.0)
}

/// Appends a batch of one record with 3000 bytes; whether the journal is still open.
fn append(journal: &mut SegmentJournal) -> bool {
    let at = journal.log_end(PARTITION);
    let mut builder = BatchBuilder::new(1_700_000_000_000);
    builder.push(
        None,
        Some(&[u8::try_from(at.0 % 251).expect("small"); 3000]),
    );
    let mut bytes = builder.finish();
    batch::stamp(&mut bytes, at, LeaderEpoch(0));
    if journal.reserve(PARTITION, bytes.len()).is_err() {
        return false;
    }
    journal.append(Entry {
        partition: PARTITION,
        leader_epoch: LeaderEpoch(0),
        base: at,
        last: at,
        max_timestamp: 1_700_000_000_000,
        bytes: Bytes::from(bytes),
    });
    journal.state() == JournalState::Open
}

/// A run that stops cleanly, goes on, and is captured before each operation; the log ends of all images.
fn run(seed: u64) -> (Vec<String>, Vec<i64>, Vec<i64>) {
    let root = Root::new("disk");
    let disk = SimulatedDisk::new(root.path(), "one");
    disk.keep_trace();
    let watched = disk.install();
    let (dir, mut journal, _) = open(root.path());
    for _ in 0..5 {
        assert!(append(&mut journal));
    }
    journal.shutdown().expect("synced");
    dir.mark_clean().expect("marked");
    drop((dir, journal));
    let (dir, mut journal, end) = open(root.path());
    assert_eq!(end, 5);
    disk.on_operation(|_| Action::Capture);
    for _ in 0..5 {
        assert!(append(&mut journal));
    }
    let mut seed = Seed::new(seed);
    disk.write_back(&mut seed);
    drop((watched, journal, dir));
    let (mut killed, mut cut) = (Vec::new(), Vec::new());
    for capture in disk.take_captures() {
        let image = Root::new("image");
        capture.moment.killed(image.path());
        killed.push(end_of(image.path(), "one"));
        for names in [Names::Ordered, Names::Any] {
            let image = Root::new("image");
            capture.moment.power_cut(image.path(), &mut seed, names);
            cut.push(end_of(image.path(), "two"));
        }
        let image = Root::new("image");
        capture.moment.only_synced(image.path());
        assert_eq!(end_of(image.path(), "two"), 5);
    }
    (disk.trace(), killed, cut)
}

fn end_of(root: &Path, boot: &str) -> i64 {
    let _watched = SimulatedDisk::new(root, boot).install();
    let (_dir, mut journal, end) = open(root);
    assert!(append(&mut journal), "it goes on");
    end
}

#[test]
fn images_lie_between_what_was_synced_and_what_was_written() {
    let mut seen = BTreeSet::new();
    for seed in 0..10 {
        let (_, killed, cut) = run(seed);
        assert!(killed.is_sorted(), "{killed:?}");
        assert_eq!(killed.first(), Some(&5));
        assert!(cut.iter().all(|end| (5..=10).contains(end)), "{cut:?}");
        seen.extend(cut);
    }
    assert!(seen.len() > 3, "images differ: {seen:?}");
}

/// The mark of a clean stop vouches for what a run before had written, which nobody had synced.
#[test]
fn a_clean_stop_after_a_kill_syncs_what_the_killed_run_wrote() {
    let root = Root::new("disk");
    let disk = SimulatedDisk::new(root.path(), "one");
    let watched = disk.install();
    let (dir, mut journal, _) = open(root.path());
    for _ in 0..5 {
        assert!(append(&mut journal));
    }
    drop((dir, journal));
    let (dir, mut journal, end) = open(root.path());
    assert_eq!(end, 5, "a kill loses nothing");
    journal.shutdown().expect("synced");
    dir.mark_clean().expect("marked");
    let moment = disk.capture();
    drop((watched, dir, journal));
    let image = Root::new("image");
    moment.only_synced(image.path());
    assert_eq!(end_of(image.path(), "two"), 5);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_the_same_images() {
    assert_eq!(run(3), run(3));
}

#[test]
fn a_full_disk_a_short_write_and_a_failed_sync_are_errors() {
    let root = Root::new("disk");
    let disk = SimulatedDisk::new(root.path(), "one");
    let _watched = disk.install();
    let (_dir, mut journal, _) = open(root.path());
    assert!(append(&mut journal));
    disk.set_space(Some(disk.used() + 1_000_000));
    let mut appended = 1;
    while append(&mut journal) {
        appended += 1;
    }
    assert_eq!(journal.state(), JournalState::Open, "refused before");
    assert!(appended > 300, "{appended}");
    disk.set_space(None);
    assert!(append(&mut journal));
    disk.on_operation(|event| match event.kind {
        "write" => Action::Short(100, std::io::ErrorKind::Other),
        _ => Action::Go,
    });
    assert!(!append(&mut journal));
    assert!(matches!(journal.state(), JournalState::Failed(_)));
    disk.on_operation(|event| match event.is_sync() {
        true => Action::Fail(std::io::ErrorKind::Other),
        false => Action::Go,
    });
    journal.start_over();
    let opened = journal.open_partition(PARTITION, LogOptions::default());
    assert!(opened.is_err(), "the cut must be synced: {opened:?}");
    disk.let_be();
    let opened = journal.open_partition(PARTITION, LogOptions::default());
    assert_eq!(opened.expect("opens").log_end, Offset(appended + 1));
    disk.power_off();
    assert!(!append(&mut journal));
}

#[test]
fn d10_a_log_start_and_the_producers_below_it_survive_a_power_cut() {
    let root = Root::new("disk");
    let disk = SimulatedDisk::new(root.path(), "one");
    let watched = disk.install();
    let (_dir, mut journal, _) = open(root.path());
    for _ in 0..5 {
        assert!(append(&mut journal));
    }
    journal
        .write_snapshot(PARTITION, Offset(5), b"producers")
        .expect("written");
    journal
        .set_log_start(PARTITION, Offset(3))
        .expect("answered");
    drop(watched);
    let image = Root::new("image");
    disk.capture().only_synced(image.path());
    let _watched = SimulatedDisk::new(image.path(), "two").install();
    let at = image
        .path()
        .join("topics")
        .join(PARTITION.topic.to_string());
    let files = at.join("0");
    let log_start = std::fs::read(files.join("log-start")).expect("it has a name");
    assert_eq!(log_start, b"0\n3\n");
    let snapshot = std::fs::read(files.join("00000000000000000005.snapshot"));
    assert_eq!(snapshot.expect("it has a name"), b"producers");
    let dir = Arc::new(DataDir::open(image.path()).expect("opens"));
    let mut journal = SegmentJournal::new(dir);
    let found = journal.open_partition(PARTITION, LogOptions::default());
    assert_eq!(found.expect("opens").log_start, Offset(3));
}
