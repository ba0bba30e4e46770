//! Reads of what is not in memory: nobody waits for the disk unasked, and a disk that can't be read is an error.

use crate::journal::evens;
use crate::support::{Disk, Log, PARTITION, SMALL, batch, chill, loaded};
use proptest::prelude::*;
use std::fs::OpenOptions;
use tally_protocol::Offset;
use tally_storage::{Cold, ReadOutcome, Slice, StorageError};

fn try_to_read(log: &Log, from: i64) -> Result<ReadOutcome, StorageError> {
    let whole = (Offset(i64::MAX), 1 << 20, true);
    log.journal
        .read(PARTITION, Offset(from), whole.0, whole.1, whole.2)
}

#[track_caller]
fn cold(outcome: Result<ReadOutcome, StorageError>) -> Cold {
    match outcome {
        Err(StorageError::NotInMemory(cold)) => cold,
        other => panic!("expected something to load, not {other:?}"),
    }
}

/// What the slices hold, read into memory where they are not.
fn bytes(slices: &[Slice]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for slice in slices {
        if !slice.is_in_memory() {
            slice.load().expect("it can be read");
        }
        bytes.extend_from_slice(slice);
    }
    bytes
}

/// A stopped and started log of which nothing is in memory, as far as the file system lets go of it.
fn restarted(disk: &Disk, log: Log) -> Log {
    log.stop();
    chill(&disk.directory());
    disk.start(SMALL).0
}

#[test]
fn what_was_appended_lately_needs_no_loading() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(100);
    let outcome = try_to_read(&log, 0).expect("all of it is in memory");
    assert!(outcome.slices.len() > 3);
    assert!(outcome.slices.iter().all(Slice::is_in_memory));
}

#[test]
fn a_segment_of_an_earlier_run_is_opened_where_waiting_is_allowed() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(100);
    let log = restarted(&disk, log);
    let first = cold(try_to_read(&log, 0));
    assert_eq!(cold(try_to_read(&log, 0)), first, "readers share it");
    first.load().expect("it can be read");
    first.load().expect("twice does no harm");
    assert_ne!(cold(try_to_read(&log, 0)), first, "the next segment");
    let outcome = loaded(|| try_to_read(&log, 0)).expect("read");
    assert_eq!(outcome.next, Offset(200));
}

#[test]
fn an_append_ends_who_opens_its_segment() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(10);
    let mut log = restarted(&disk, log);
    let cold = cold(try_to_read(&log, 0));
    log.fill(10);
    let index = std::fs::read(disk.file(0, "index")).expect("there");
    cold.load().expect("nothing is left to do");
    assert_eq!(std::fs::read(disk.file(0, "index")).expect("there"), index);
    assert_eq!(log.read(0, 40, 1000), evens(0, 40));
}

#[test]
fn a_partition_that_goes_ends_who_opens_its_segments() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(60);
    let mut log = restarted(&disk, log);
    let cold = cold(try_to_read(&log, 0));
    log.journal.delete_partition(PARTITION).expect("deleted");
    cold.load().expect("nothing is left to do");
    assert_eq!(disk.names(), Vec::<String>::new());
}

#[test]
fn a_disk_that_cannot_be_read_is_an_error_and_no_signal() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(60);
    let log = restarted(&disk, log);
    let outcome = loaded(|| try_to_read(&log, 50)).expect("it is found");
    // Stands for pages that can't be read: they are in no memory, and reading them fails.
    let file = OpenOptions::new().write(true).open(disk.file(50, "log"));
    file.and_then(|file| file.set_len(0)).expect("cut");
    assert!(!outcome.slices[0].is_in_memory());
    assert!(outcome.slices[0].load().is_err());
    assert!(matches!(
        loaded(|| try_to_read(&log, 60)),
        Err(StorageError::Io { .. })
    ));
    assert_eq!(log.read(0, 50, 1000), evens(0, 50), "others go on");
}

#[test]
fn maps_are_kept_for_the_segments_that_were_read_last() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(500);
    let segments = disk.bases().len();
    assert!(segments > 10);
    let mut slices = Vec::new();
    for from in disk.bases() {
        let upto = Offset(from + 2);
        let read = || log.journal.read(PARTITION, Offset(from), upto, 1, true);
        slices.extend(loaded(read).expect("read").slices);
    }
    assert_eq!(log.journal.map_count(), segments, "slices keep their maps");
    for (slice, base) in slices.iter().zip(disk.bases()) {
        assert_eq!(slice[..], batch(base, 2, 1, 1000 + base, 100)[..]);
    }
    drop(slices);
    assert!(log.journal.map_count() <= 3, "{}", log.journal.map_count());
    assert_eq!(log.read(0, 1000, 700), evens(0, 1000));
    assert!(log.journal.map_count() <= 3, "{}", log.journal.map_count());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hot_and_cold_reads_give_the_same_bytes(
        batches in prop::collection::vec((1..20i32, 0..9000usize), 1..60),
        reads in prop::collection::vec((0..1000usize, 1..60_000usize, any::<bool>()), 1..20),
    ) {
        let disk = Disk::new();
        let (mut log, _) = disk.start(SMALL);
        for (count, payload) in &batches {
            log.put(*count, 1, 5, *payload);
        }
        let end = log.end();
        let run = |log: &Log| -> Vec<(Vec<u8>, Offset)> {
            let reads = reads.iter().map(|(from, max_bytes, first_whole)| {
                let from = Offset(i64::try_from(*from).expect("small") % end);
                let read = || log.journal.read(PARTITION, from, Offset(end), *max_bytes, *first_whole);
                let outcome = loaded(read).expect("read");
                (bytes(&outcome.slices), outcome.next)
            });
            reads.collect()
        };
        let hot = run(&log);
        let log = restarted(&disk, log);
        prop_assert_eq!(run(&log), hot);
    }
}

/// Where segments are closed by the hundred, what one read needs must be no more than what can be in memory at once.
#[test]
fn a_read_looks_into_so_many_segments_and_no_more() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    for _ in 0..300 {
        log.fill(1);
        log.journal.roll(PARTITION).expect("a new segment begins");
    }
    let mut from = 0;
    let mut sizes = Vec::new();
    while Offset(from) < log.journal.log_end(PARTITION) {
        let outcome = loop {
            match try_to_read(&log, from) {
                Err(StorageError::NotInMemory(cold)) => cold.load().expect("it can be read"),
                other => break other.expect("the disk is good"),
            }
        };
        sizes.push(outcome.slices.len());
        from = outcome.next.0;
    }
    assert_eq!(sizes, [256, 44]);
}
