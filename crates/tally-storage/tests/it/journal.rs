//! Appends, reads and everything else a partition can do while nothing goes wrong.

use crate::support::{Disk, PARTITION, SMALL, batch, loaded};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use tally_protocol::{BatchView, LeaderEpoch, Offset, PartitionId};
use tally_storage::{
    Entry, Journal, JournalState, LogOptions, SegmentInfo, SegmentJournal, StorageError,
};

/// Every second offset: `fill` writes batches of two records.
pub(crate) fn evens(from: i64, upto: i64) -> Vec<i64> {
    (from..upto).filter(|offset| offset % 2 == 0).collect()
}

#[test]
fn an_empty_partition_has_no_files() {
    let disk = Disk::new();
    let (log, recovered) = disk.start(LogOptions::default());
    assert_eq!((recovered.log_start.0, recovered.log_end.0), (0, 0));
    assert_eq!(log.replay(0), Vec::<i64>::new());
    assert_eq!(log.read(0, 100, 1000), Vec::<i64>::new());
    log.stop();
    assert_eq!(disk.names(), Vec::<String>::new());
}

#[test]
fn what_is_appended_is_read_across_segments() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(200);
    assert!(disk.bases().len() > 5, "{:?}", disk.bases());
    for max_bytes in [1, 161, 400, 5000, 1 << 20] {
        assert_eq!(log.read(0, 400, max_bytes), evens(0, 400), "{max_bytes}");
    }
    for from in 0..400 {
        assert_eq!(log.read(from, 400, 1000), evens(from / 2 * 2, 400));
        assert_eq!(log.replay(from), evens(from / 2 * 2, 400));
    }
    for upto in 0..=400 {
        assert_eq!(log.read(0, upto, 1 << 20), evens(0, upto), "{upto}");
        assert_eq!(log.read(0, upto, 700), evens(0, upto), "{upto}");
    }
}

#[test]
fn bytes_come_back_as_they_were() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    log.put(5, 2, 77, 3000);
    let outcome = log.journal.read(
        PARTITION,
        tally_protocol::Offset(3),
        tally_protocol::Offset(5),
        10,
        true,
    );
    let outcome = outcome.expect("the read works");
    assert_eq!(&outcome.slices[0][..], &batch(0, 5, 2, 77, 3000)[..]);
}

#[test]
fn lr50_segments_close_by_size_time_and_full_index() {
    let by_size = Disk::new();
    let (mut log, _) = by_size.start(SMALL);
    log.fill(60);
    // 25 batches of 161 bytes fit into 4096.
    assert_eq!(by_size.bases(), [0, 50, 100]);

    let by_time = Disk::new();
    let options = LogOptions {
        segment_ms: 1000,
        ..LogOptions::default()
    };
    let (mut log, _) = by_time.start(options);
    for (timestamp, rolled_at) in [
        (5000, None),
        (6000, None),
        (6001, Some(Offset(2))),
        (500, None),
        (7002, Some(Offset(4))),
    ] {
        assert_eq!(log.put(1, 1, timestamp, 10).rolled_at, rolled_at);
    }
    assert_eq!(by_time.bases(), [0, 2, 4]);

    let by_index = Disk::new();
    let options = LogOptions {
        index_max_bytes: 80,
        index_interval_bytes: 0,
        ..LogOptions::default()
    };
    let (mut log, _) = by_index.start(options);
    log.fill(30);
    assert!(by_index.bases().len() > 2, "{:?}", by_index.bases());
    assert_eq!(log.read(0, 60, 500), evens(0, 60));
}

#[test]
fn lr50_jitter_closes_what_began_together_at_different_times() {
    let disk = Disk::new();
    let options = LogOptions {
        segment_ms: 1000,
        segment_jitter_ms: 400,
        ..LogOptions::default()
    };
    let mut journal = SegmentJournal::new(disk.open());
    let ages: BTreeSet<i64> = (0..16)
        .map(|index| {
            let id = PartitionId { index, ..PARTITION };
            journal.open_partition(id, options).expect("it opens");
            let mut put = |timestamp: i64| {
                let base = journal.log_end(id);
                let entry = Entry {
                    partition: id,
                    leader_epoch: LeaderEpoch(1),
                    base,
                    last: base,
                    max_timestamp: timestamp,
                    bytes: batch(base.0, 1, 1, timestamp, 10).into(),
                };
                journal.append(entry).rolled_at
            };
            put(0);
            let age = (1..).step_by(10).find(|age| put(*age).is_some());
            age.expect("it closes")
        })
        .collect();
    assert!(
        ages.iter().all(|age| (601..=1011).contains(age)),
        "{ages:?}"
    );
    assert!(ages.len() > 8, "{ages:?}");
}

#[test]
fn a_roll_is_reported_with_the_next_append() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    let mut rolls = Vec::new();
    for _ in 0..60 {
        let base = log.end();
        if let Some(at) = log.put(2, 1, 5, 100).rolled_at {
            assert_eq!(at, Offset(base));
            rolls.push(base);
        }
    }
    assert_eq!(rolls, [50, 100]);
    // A reservation may begin the segment, the append behind it tells.
    log.journal.reserve(PARTITION, 3500).expect("room");
    assert_eq!(log.put(2, 1, 5, 100).rolled_at, Some(Offset(120)));
    assert_eq!(log.put(2, 1, 5, 100).rolled_at, None);
}

#[test]
fn batches_larger_than_a_segment_have_one_of_their_own() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    for payload in [10, 100_000, 10, 5000] {
        log.put(2, 1, 5, payload);
    }
    assert_eq!(disk.bases(), [0, 2, 4, 6]);
    assert_eq!(log.read(0, 8, 100), [0, 2, 4, 6]);
    let whole = |first_whole| {
        let read = || {
            log.journal
                .read(PARTITION, Offset(2), Offset(8), 100, first_whole)
        };
        loaded(read).expect("the read works").slices.len()
    };
    assert_eq!((whole(true), whole(false)), (1, 0));
}

#[test]
fn joined_batches_are_one_append() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    for round in 0..10 {
        let base = round * 10;
        let mut bytes = Vec::new();
        for at in 0..5 {
            bytes.extend(batch(base + at * 2, 2, 1, 1000 + base + at * 2, 100));
        }
        log.journal.reserve(PARTITION, bytes.len()).expect("room");
        log.journal.append(Entry {
            partition: PARTITION,
            leader_epoch: LeaderEpoch(1),
            base: Offset(base),
            last: Offset(base + 9),
            max_timestamp: 1000 + base + 8,
            bytes: bytes.into(),
        });
    }
    for from in 0..100 {
        assert_eq!(log.read(from, 100, 300), evens(from / 2 * 2, 100));
        let found = log
            .journal
            .find_by_time(PARTITION, 1000 + from, Offset(100));
        let base = found.expect("found").map(|slice| base_of(&slice));
        assert_eq!(base, Some((from + 1) / 2 * 2).filter(|base| *base < 100));
    }
    drop(log);
    let (log, recovered) = disk.start(SMALL);
    assert_eq!((recovered.log_end, recovered.cut), (Offset(100), None));
    assert_eq!(log.replay(0), evens(0, 100));
}

fn base_of(slice: &[u8]) -> i64 {
    i64::from_be_bytes(*slice.first_chunk().expect("a batch"))
}

#[test]
fn slices_outlive_their_segment_and_partition() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(100);
    let outcome = log
        .journal
        .read(PARTITION, Offset(0), Offset(200), 1 << 20, true);
    let slices = outcome.expect("the read works").slices;
    let before: Vec<Vec<u8>> = slices.iter().map(|slice| slice.to_vec()).collect();
    log.journal
        .set_log_start(PARTITION, Offset(150))
        .expect("moved");
    assert!(!disk.file(0, "log").exists());
    log.fill(100);
    log.journal.delete_partition(PARTITION).expect("removed");
    drop(log);
    assert!(!disk.directory().exists());
    let sent = std::thread::spawn(move || slices.iter().map(|slice| slice.to_vec()).collect());
    let after: Vec<Vec<u8>> = sent.join().expect("slices can be sent");
    assert_eq!(before, after);
}

#[test]
fn a_slice_of_the_last_segment_outlives_trimming() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    log.fill(5);
    let outcome = log
        .journal
        .read(PARTITION, Offset(0), Offset(10), 1 << 20, true);
    let slice = outcome.expect("the read works").slices.remove(0);
    let before = slice.to_vec();
    log.fill(100);
    log.journal.roll(PARTITION).expect("rolled");
    log.fill(1);
    log.journal.close_partition(PARTITION);
    assert_eq!(&slice[..], &before[..]);
}

#[test]
fn lr92_the_first_batch_that_may_hold_a_time() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    // Times rise and fall: 0, 70, 140, ... modulo 1000.
    let times: Vec<i64> = (0..100).map(|at| at * 70 % 1000).collect();
    for time in &times {
        log.put(2, 1, *time, 100);
    }
    for from in [0, 2, 50, 120] {
        log.journal
            .set_log_start(PARTITION, Offset(from))
            .expect("moved");
        for wanted in 0..1001 {
            let first =
                (usize::try_from(from).expect("small") / 2..100).find(|at| times[*at] >= wanted);
            let expected = first.map(|at| i64::try_from(at).expect("small") * 2);
            let found = log.journal.find_by_time(PARTITION, wanted, Offset(200));
            assert_eq!(
                found.expect("found").map(|slice| base_of(&slice)),
                expected,
                "{from} {wanted}"
            );
        }
        let largest = times[usize::try_from(from).expect("small") / 2..]
            .iter()
            .max();
        let found = log
            .journal
            .max_timestamp_batch(PARTITION, Offset(200))
            .expect("found");
        let time = found.map(|slice| {
            BatchView::parse(&slice)
                .expect("a batch")
                .header()
                .max_timestamp
        });
        assert_eq!(time.as_ref(), largest);
    }
    let none = log
        .journal
        .max_timestamp_batch(PARTITION, Offset(120))
        .expect("found");
    assert!(none.is_none(), "LR-90");
}

#[test]
fn a_log_without_timestamps_has_no_times() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    for _ in 0..60 {
        log.put(2, 1, -1, 100);
    }
    let found = log
        .journal
        .find_by_time(PARTITION, 0, Offset(120))
        .expect("found");
    assert!(found.is_none());
    let found = log
        .journal
        .max_timestamp_batch(PARTITION, Offset(120))
        .expect("found");
    assert!(found.is_none());
    log.stop();
    let (log, recovered) = disk.start(SMALL);
    assert_eq!((recovered.log_end, recovered.cut), (Offset(120), None));
    assert_eq!(log.read(0, 120, 1000), evens(0, 120));
}

#[test]
fn lr64_the_log_start_only_grows_and_stays_within_the_log() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(60);
    let size = log.journal.size_bytes(PARTITION);
    log.journal
        .set_log_start(PARTITION, Offset(50))
        .expect("moved");
    assert_eq!(log.journal.size_bytes(PARTITION), size - 25 * 161);
    log.journal
        .set_log_start(PARTITION, Offset(10))
        .expect("no change");
    assert_eq!(log.journal.log_start(PARTITION), Offset(50));
    let beyond = log.journal.set_log_start(PARTITION, Offset(121));
    assert!(matches!(beyond, Err(StorageError::OutOfRange { .. })));
    // All of it: the empty log goes on where it was.
    log.journal
        .set_log_start(PARTITION, Offset(120))
        .expect("moved");
    assert_eq!(log.read(120, 200, 100), Vec::<i64>::new());
    log.journal.roll(PARTITION).expect("rolled");
    log.journal
        .set_log_start(PARTITION, Offset(120))
        .expect("no change");
    log.fill(1);
    assert_eq!(log.read(120, 200, 100), [120]);
    log.stop();
    let (log, recovered) = disk.start(SMALL);
    assert_eq!(
        (recovered.log_start, recovered.log_end),
        (Offset(120), Offset(122))
    );
    assert_eq!(log.replay(0), [120]);
}

#[test]
fn lr81_the_epoch_at_the_start_moves_with_it() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    assert_eq!(log.journal.leader_epoch_at_start(PARTITION), None);
    for epoch in [3, 3, 5, 8] {
        log.put(10, epoch, 5, 100);
    }
    let at_start = |log: &crate::support::Log| log.journal.leader_epoch_at_start(PARTITION);
    assert_eq!(at_start(&log), Some(LeaderEpoch(3)));
    log.journal
        .set_log_start(PARTITION, Offset(25))
        .expect("moved");
    assert_eq!(at_start(&log), Some(LeaderEpoch(5)));
    let end = log
        .journal
        .leader_epoch_end(PARTITION, LeaderEpoch(3), LeaderEpoch(8));
    assert_eq!(end, (LeaderEpoch(3), Offset(25)));
    log.stop();
    let (log, _) = disk.start(SMALL);
    assert_eq!(at_start(&log), Some(LeaderEpoch(5)));
}

fn row(last: i64) -> [u8; 34] {
    let mut row = [0xab; 34];
    row[..8].copy_from_slice(&last.to_be_bytes());
    row
}

fn last_of(row: &[u8; 34]) -> Offset {
    Offset(base_of(row))
}

fn rows(log: &crate::support::Log, from: i64) -> Vec<i64> {
    let mut found = Vec::new();
    log.journal
        .visit_transaction_rows(PARTITION, Offset(from), &mut |row| {
            found.push(last_of(row).0);
            ControlFlow::Continue(())
        });
    found
}

#[test]
fn m15_rows_of_aborted_transactions_stay_with_their_segment() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    for _ in 0..60 {
        log.fill(1);
        let last = log.end() - 1;
        log.journal
            .append_transaction_row(PARTITION, Offset(last), &row(last))
            .expect("open");
    }
    let all: Vec<i64> = (0..60).map(|at| at * 2 + 1).collect();
    assert_eq!(rows(&log, 0), all);
    assert_eq!(rows(&log, 49), all, "the segment that holds 49 begins at 0");
    assert_eq!(rows(&log, 50), all[25..]);
    assert_eq!(
        std::fs::metadata(disk.file(50, "txnindex"))
            .expect("there")
            .len(),
        25 * 34
    );
    drop(log);
    // A row that was being written is no row.
    let path = disk.file(100, "txnindex");
    let mut bytes = std::fs::read(&path).expect("there");
    bytes.extend_from_slice(&[1; 20]);
    std::fs::write(&path, bytes).expect("written");
    let (mut log, _) = disk.start(SMALL);
    assert_eq!(rows(&log, 0), all);
    log.journal
        .truncate_transaction_rows(PARTITION, Offset(91), last_of)
        .expect("cut");
    assert_eq!(rows(&log, 0), all[..45]);
    log.journal
        .append_transaction_row(PARTITION, Offset(91), &row(91))
        .expect("open");
    log.journal
        .set_log_start(PARTITION, Offset(60))
        .expect("moved");
    log.stop();
    let (log, _) = disk.start(SMALL);
    assert_eq!(rows(&log, 0), all[25..46]);
    assert!(!disk.file(0, "txnindex").exists());
}

#[test]
fn p60_snapshots_the_newest_and_the_one_below_the_last_segment_are_kept() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.journal
        .write_snapshot(PARTITION, Offset(0), b"nothing yet")
        .expect("ignored");
    assert_eq!(log.journal.snapshots(PARTITION), []);
    log.fill(30);
    let kept = |log: &crate::support::Log| -> Vec<i64> {
        let found = log.journal.snapshots(PARTITION);
        found.iter().map(|at| at.0).collect()
    };
    for (at, expected) in [
        (20, vec![20]),
        (40, vec![40, 20]),
        (50, vec![50, 40]),
        (52, vec![52, 50]),
        (54, vec![54, 52, 50]),
        (56, vec![56, 54, 50]),
    ] {
        let text = format!("snapshot {at}");
        log.journal
            .write_snapshot(PARTITION, Offset(at), text.as_bytes())
            .expect("written");
        assert_eq!(kept(&log), expected);
    }
    log.stop();
    let (mut log, _) = disk.start(SMALL);
    assert_eq!(kept(&log), [56, 54, 50]);
    let bytes = log.journal.read_snapshot(PARTITION, Offset(54));
    assert_eq!(bytes.expect("read"), b"snapshot 54");
    log.journal.drop_snapshot(PARTITION, Offset(56));
    assert_eq!(kept(&log), [54, 50]);
    assert!(log.journal.read_snapshot(PARTITION, Offset(56)).is_err());
}

#[test]
fn lr61_the_last_segment_can_be_closed_for_retention() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    log.journal.roll(PARTITION).expect("nothing to close");
    log.fill(5);
    log.journal.roll(PARTITION).expect("rolled");
    log.journal.roll(PARTITION).expect("nothing to close");
    log.fill(1);
    let segments = log.journal.segments(PARTITION).expect("listed");
    let first = SegmentInfo {
        base: Offset(0),
        end: Offset(10),
        bytes: 5 * 161,
        max_timestamp: 1008,
    };
    assert_eq!(segments[0], first);
    assert_eq!((segments.len(), segments[1].base), (2, Offset(10)));
    for (number, expected) in segments.iter().map(Some).chain([None]).enumerate() {
        let segment = log.journal.segment(PARTITION, number).expect("listed");
        assert_eq!(segment.as_ref(), expected);
    }
}

#[test]
fn lr61_what_was_the_last_segment_goes_when_another_has_begun() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    log.fill(5);
    log.journal
        .set_log_start(PARTITION, Offset(10))
        .expect("raised");
    assert_eq!(disk.bases(), [0], "appends go into it");
    log.journal.roll(PARTITION).expect("rolled");
    log.journal
        .set_log_start(PARTITION, Offset(10))
        .expect("nothing to raise");
    assert_eq!(disk.bases(), [10]);
    log.stop();
    let (log, recovered) = disk.start(LogOptions::default());
    assert_eq!(
        (recovered.log_start, recovered.log_end),
        (Offset(10), Offset(10))
    );
    drop(log);
}

#[test]
fn a_partition_can_be_closed_and_opened_in_one_run() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    for round in 1..5 {
        log.fill(17);
        log.journal.close_partition(PARTITION);
        let again = log.journal.open_partition(PARTITION, SMALL).expect("opens");
        assert_eq!((again.log_end, again.cut), (Offset(round * 34), None));
        assert_eq!(log.replay(0), evens(0, round * 34));
    }
    // Settings can change under an open segment.
    let larger = LogOptions {
        segment_bytes: 1 << 20,
        ..SMALL
    };
    log.journal.set_options(PARTITION, larger);
    let before = disk.bases().len();
    log.fill(100);
    assert_eq!(disk.bases().len(), before);
    assert_eq!(log.read(0, 1000, 1000), evens(0, 336));
}

#[test]
fn n9_a_journal_that_failed_acknowledges_nothing_more() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    log.fill(3);
    let durable = log.journal.durable();
    let missing = PartitionId {
        index: 9,
        ..PARTITION
    };
    let entry = |partition, base: i64| Entry {
        partition,
        leader_epoch: LeaderEpoch(1),
        base: Offset(base),
        last: Offset(base),
        max_timestamp: 5,
        bytes: batch(base, 1, 1, 5, 10).into(),
    };
    let lost = log.journal.append(entry(missing, 0));
    assert!(matches!(log.journal.state(), JournalState::Failed(_)));
    let after = log.journal.append(entry(PARTITION, 6));
    assert!(after.ticket > lost.ticket && lost.ticket > durable);
    assert_eq!(log.journal.durable(), durable);
    assert!(log.journal.barrier() > durable);
    assert_eq!(log.end(), 6);
}

#[test]
fn n15_a_refused_reservation_changes_nothing() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(25);
    // The name of the next segment is taken: its files can't be made.
    std::fs::create_dir(disk.file(50, "log")).expect("made");
    let before = disk.names();
    let refused = log
        .journal
        .reserve(PARTITION, 161)
        .expect_err("no new segment");
    assert_eq!((refused.partition, refused.bytes), (PARTITION, 161));
    assert_eq!(log.journal.state(), JournalState::Open);
    assert_eq!(disk.names(), before);
    assert_eq!(log.read(0, 50, 1000), evens(0, 50));
    std::fs::remove_dir(disk.file(50, "log")).expect("removed");
    log.fill(5);
    assert_eq!(log.read(0, 60, 1000), evens(0, 60));
}

#[test]
fn many_empty_partitions_are_opened_without_a_file() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    for index in 100..2100 {
        let partition = PartitionId { index, ..PARTITION };
        let recovered = log.journal.open_partition(partition, SMALL).expect("opens");
        assert_eq!(recovered.log_end, Offset(0));
    }
    assert!(crate::support::names(&disk.root().join("topics")).is_empty());
    log.stop();
}

/// LR-50: offsets within a segment are counted in 31 bits.
#[test]
fn l20_segments_close_before_their_offsets_span_too_much() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    let count = 1_500_000_000;
    for nth in 0..3 {
        log.put(count, 1, 1000 + nth, 10);
    }
    let count = i64::from(count);
    assert_eq!(disk.bases(), [0, count, 2 * count]);
    assert_eq!(log.replay(0), [0, count, 2 * count]);
    assert_eq!(log.read(count + 5, 3 * count, 1000), [count, 2 * count]);
}
