//! What is left after the process or the machine went down, and the crash points of exactly-once.md 8.4 that
//! belong to the storage.

use crate::journal::evens;
use crate::support::{Disk, PARTITION, SMALL, batch, loaded};
use std::path::Path;
use tally_protocol::ids::to_u64;
use tally_protocol::{BatchError, LeaderEpoch, Offset};
use tally_storage::{CutReason, LogOptions, Recovered};

/// A disk whose log holds the offsets below `end`, left by a kill.
fn killed(options: LogOptions, end: i64) -> Disk {
    let disk = Disk::new();
    let (mut log, _) = disk.start(options);
    log.fill(end / 2);
    drop(log);
    disk
}

fn append_to(path: &Path, bytes: &[u8]) {
    let mut whole = std::fs::read(path).expect("there");
    whole.extend_from_slice(bytes);
    std::fs::write(path, whole).expect("written");
}

#[track_caller]
fn check_kept(disk: &Disk, options: LogOptions, end: i64) -> Recovered {
    let (mut log, recovered) = disk.start(options);
    assert_eq!(recovered.log_end, Offset(end));
    assert_eq!(log.replay(0), evens(0, end));
    assert_eq!(log.read(0, i64::MAX, 1000), evens(0, end));
    // It goes on, and the next start sees it all the same, this time after a clean stop.
    log.fill(10);
    log.stop();
    let (log, again) = disk.start(options);
    assert_eq!((again.log_end, again.cut), (Offset(end + 20), None));
    assert_eq!(log.replay(0), evens(0, end + 20));
    assert_eq!(log.read(0, i64::MAX, 1 << 20), evens(0, end + 20));
    recovered
}

#[test]
fn cr3_a_killed_log_keeps_everything() {
    for end in [2, 40, 48, 50, 200] {
        let recovered = check_kept(&killed(SMALL, end), SMALL, end);
        assert_eq!(recovered.cut, None);
    }
}

#[test]
fn a_clean_stop_trims_every_file() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    log.fill(100);
    log.stop();
    let size = |kind| std::fs::metadata(disk.file(0, kind)).expect("there").len();
    assert_eq!(size("log"), 161 * 100);
    // An entry for the first batch after every more than 4096 bytes, i.e. after every 26 batches.
    assert_eq!(size("index"), 3 * 8);
    assert_eq!(size("timeindex"), 4 * 12);
    let blocks = std::os::unix::fs::MetadataExt::blocks;
    let log_blocks = blocks(&std::fs::metadata(disk.file(0, "log")).expect("there"));
    assert!(
        log_blocks * 512 <= 64 * 1024,
        "the reservation is given back"
    );
}

#[test]
fn cr1_a_tail_cut_at_any_byte_is_dropped() {
    let disk = killed(LogOptions::default(), 20);
    let path = disk.file(0, "log");
    let good = std::fs::read(&path).expect("there");
    let last = good.len() - 161;
    for cut in last + 1..good.len() {
        std::fs::write(&path, &good[..cut]).expect("written");
        let (log, recovered) = disk.start(LogOptions::default());
        assert_eq!(recovered.log_end, Offset(18));
        let found = recovered.cut.expect("something was cut");
        assert_eq!(found.bytes, to_u64(cut - last));
        assert_eq!(found.reason, CutReason::Batch(BatchError::Incomplete));
        assert_eq!(log.replay(0), evens(0, 18));
        drop(log);
        assert_eq!(std::fs::metadata(&path).expect("there").len(), to_u64(last));
    }
    check_kept(&disk, LogOptions::default(), 18);
}

#[test]
fn r8_a_flipped_bit_in_any_byte_of_the_last_batch_is_noticed() {
    let disk = killed(LogOptions::default(), 20);
    let path = disk.file(0, "log");
    let good = std::fs::read(&path).expect("there");
    let last = good.len() - 161;
    for at in last..good.len() {
        for bit in [0, 7] {
            // A leader epoch that rises can't be told from a good one: nothing covers it.
            if (last + 12..last + 16).contains(&at) {
                continue;
            }
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            std::fs::write(&path, &bad).expect("written");
            let (log, recovered) = disk.start(LogOptions::default());
            assert_eq!(recovered.log_end, Offset(18), "byte {}", at - last);
            assert_eq!(log.replay(0), evens(0, 18));
        }
    }
    check_kept(&disk, LogOptions::default(), 18);
}

#[test]
fn ln2_garbage_and_zeros_behind_the_log_are_cut() {
    for tail in [
        vec![0; 1],
        vec![0; 61],
        vec![0; 70_000],
        vec![0xff; 61],
        vec![0xff; 4096],
        b"not a batch".repeat(400),
    ] {
        let disk = killed(SMALL, 60);
        let base = *disk.bases().last().expect("a segment");
        append_to(&disk.file(base, "log"), &tail);
        let recovered = check_kept(&disk, SMALL, 60);
        assert_eq!(recovered.cut.expect("cut").bytes, to_u64(tail.len()));
    }
}

#[test]
fn r8_a_stale_batch_behind_the_torn_one_never_comes_back() {
    for (stale_base, stale_epoch) in [(18, 1), (20, 1), (22, 1), (0, 1)] {
        let disk = killed(LogOptions::default(), 20);
        let path = disk.file(0, "log");
        let mut bytes = std::fs::read(&path).expect("there");
        // The last batch is torn in the middle; a whole old one follows where it would have ended.
        let torn = bytes.len() - 100;
        bytes[torn..].fill(0);
        bytes.extend_from_slice(&batch(stale_base, 2, stale_epoch, 5, 100));
        std::fs::write(&path, &bytes).expect("written");
        let recovered = check_kept(&disk, LogOptions::default(), 18);
        let cut = recovered.cut.expect("cut");
        assert_eq!((cut.at, cut.bytes), (Offset(18), 2 * 161));
        assert_eq!(cut.reason, CutReason::Batch(BatchError::BadCrc));
    }
}

#[test]
fn r8_offsets_neither_fall_nor_jump_and_epochs_do_not_fall() {
    let bad = [
        batch(18, 2, 1, 5, 10),
        batch(0, 2, 1, 5, 10),
        batch(22, 2, 1, 5, 10),
        batch(i64::MAX, 2, 1, 5, 10),
        batch(i64::MIN, 2, 1, 5, 10),
        batch(20, -5, 1, 5, 10),
        batch(20, 2, 0, 5, 10),
        batch(20, 2, -1, 5, 10),
    ];
    for bytes in bad {
        let disk = killed(LogOptions::default(), 20);
        append_to(&disk.file(0, "log"), &bytes);
        let recovered = check_kept(&disk, LogOptions::default(), 20);
        let reason = recovered.cut.expect("cut").reason;
        let known = matches!(
            reason,
            CutReason::Offset { .. } | CutReason::EpochFell { .. }
        );
        assert!(known, "{reason}");
    }
}

#[test]
fn r8_a_compacted_log_may_have_gaps() {
    let options = LogOptions {
        gaps_below: Offset(i64::MAX),
        ..LogOptions::default()
    };
    let disk = killed(options, 20);
    append_to(&disk.file(0, "log"), &batch(40, 2, 1, 5, 10));
    let (log, recovered) = disk.start(options);
    assert_eq!((recovered.log_end, recovered.cut), (Offset(42), None));
    let mut expected = evens(0, 20);
    expected.push(40);
    assert_eq!(log.replay(0), expected);
    assert_eq!(log.read(25, 100, 1000), [40]);
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    let disk = killed(LogOptions::default(), 20);
    let mut huge = batch(20, 2, 1, 5, 10);
    huge[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    append_to(&disk.file(0, "log"), &huge);
    check_kept(&disk, LogOptions::default(), 20);
}

#[test]
fn a_batch_larger_than_a_piece_of_the_walk_is_kept() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    for payload in [10, 3 << 20, 1 << 20, 0, (1 << 20) - 61, 1] {
        log.put(1, 1, 5, payload);
    }
    drop(log);
    let (log, recovered) = disk.start(LogOptions::default());
    assert_eq!((recovered.log_end, recovered.cut), (Offset(6), None));
    assert_eq!(log.replay(0), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn r15_indexes_of_any_segment_are_made_anew() {
    type Damage = fn(&Path);
    let damages: [Damage; 8] = [
        |path| std::fs::remove_file(path).expect("removed"),
        |path| std::fs::write(path, b"").expect("written"),
        |path| std::fs::write(path, b"odd").expect("written"),
        |path| append_to(path, &[0; 4096]),
        |path| append_to(path, &[0; 24]),
        |path| append_to(path, &[0x7f; 24]),
        |path| {
            let mut bytes = std::fs::read(path).expect("there");
            bytes.reverse();
            std::fs::write(path, bytes).expect("written");
        },
        |path| {
            let bytes = std::fs::read(path).expect("there");
            std::fs::write(path, &bytes[..bytes.len() - 12]).expect("written");
        },
    ];
    for clean in [true, false] {
        for kind in ["index", "timeindex"] {
            for (number, damage) in damages.iter().enumerate() {
                let disk = Disk::new();
                let (mut log, _) = disk.start(SMALL);
                log.fill(60);
                if clean {
                    log.stop();
                } else {
                    drop(log);
                }
                for base in disk.bases() {
                    damage(&disk.file(base, kind));
                }
                let (log, recovered) = disk.start(SMALL);
                assert_eq!((recovered.log_end, recovered.cut), (Offset(120), None));
                assert_eq!(log.read(0, 120, 700), evens(0, 120), "{kind} {number}");
                for from in (0..120).step_by(3) {
                    assert_eq!(log.read(from, 120, 200), evens(from / 2 * 2, 120));
                    let find = || {
                        log.journal
                            .find_by_time(PARTITION, 1000 + from, Offset(120))
                    };
                    let found = loaded(find).expect("found");
                    let expected = batch_base(found.as_deref());
                    let wanted = (from + 1) / 2 * 2;
                    assert_eq!(
                        expected,
                        (wanted < 120).then_some(wanted),
                        "{kind} {number}"
                    );
                }
            }
        }
    }
}

fn batch_base(bytes: Option<&[u8]>) -> Option<i64> {
    let first = bytes?.first_chunk().expect("a batch");
    Some(i64::from_be_bytes(*first))
}

#[test]
fn r10_after_a_power_cut_every_segment_is_walked() {
    let disk = killed(SMALL, 200);
    let bases = disk.bases();
    let path = disk.file(bases[2], "log");
    let mut bytes = std::fs::read(&path).expect("there");
    // A page in the middle of the third segment never reached the disk.
    bytes[1000..1100].fill(0);
    std::fs::write(&path, &bytes).expect("written");
    disk.forget_boot();
    let (log, recovered) = disk.start(SMALL);
    let end = bases[2] + 2 * (1000 / 161);
    assert_eq!(recovered.log_end, Offset(end));
    assert_eq!(recovered.cut.expect("cut").at, Offset(end));
    assert_eq!(log.replay(0), evens(0, end));
    drop(log);
    assert_eq!(disk.bases(), bases[..3]);
    check_kept(&disk, SMALL, end);
}

#[test]
fn r10_after_a_power_cut_a_segment_that_lost_its_end_is_the_last() {
    let disk = killed(SMALL, 200);
    let bases = disk.bases();
    let path = disk.file(bases[1], "log");
    let bytes = std::fs::read(&path).expect("there");
    std::fs::write(&path, &bytes[..bytes.len() - 161]).expect("written");
    disk.forget_boot();
    let recovered = check_kept(&disk, SMALL, bases[2] - 2);
    let gap = CutReason::Gap {
        next_segment: Offset(bases[2]),
    };
    assert_eq!(recovered.cut.expect("cut").reason, gap);
}

#[test]
fn cr23_recovery_can_be_interrupted_and_repeated() {
    let disk = killed(SMALL, 100);
    let base = *disk.bases().last().expect("a segment");
    append_to(&disk.file(base, "log"), &[0; 500]);
    for _ in 0..3 {
        let (log, recovered) = disk.start(SMALL);
        assert_eq!(recovered.log_end, Offset(100));
        drop(log);
        // What an interrupted write of a small file leaves behind.
        std::fs::write(disk.file(base, "index.tmp"), b"half").expect("written");
    }
    assert!(disk.names().iter().any(|name| name.ends_with(".tmp")));
    check_kept(&disk, SMALL, 100);
    assert!(!disk.names().iter().any(|name| name.ends_with(".tmp")));
}

#[test]
fn cr4_a_roll_that_was_cut_short_is_completed() {
    // The new segment's files are there and empty; the old one's were not trimmed.
    let disk = killed(SMALL, 40);
    assert_eq!(disk.bases(), [0]);
    std::fs::write(disk.file(40, "log"), b"").expect("written");
    check_kept(&disk, SMALL, 40);
    // Only an index of the new segment is there.
    let disk = killed(SMALL, 40);
    std::fs::write(disk.file(40, "index"), vec![0; 4096]).expect("written");
    check_kept(&disk, SMALL, 40);
}

#[test]
fn ln3_snapshots_above_the_recovered_end_are_dropped() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    log.fill(9);
    log.journal
        .write_snapshot(PARTITION, Offset(18), b"kept")
        .expect("written");
    log.fill(1);
    log.journal
        .write_snapshot(PARTITION, Offset(20), b"lost")
        .expect("written");
    drop(log);
    let path = disk.file(0, "log");
    let bytes = std::fs::read(&path).expect("there");
    std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    let (log, recovered) = disk.start(LogOptions::default());
    assert_eq!(recovered.log_end, Offset(18));
    assert_eq!(log.journal.snapshots(PARTITION), [Offset(18)]);
    assert!(!disk.file(20, "snapshot").exists());
}

#[test]
fn lr81_epochs_are_found_again_in_the_batches() {
    let checkpoint = |disk: &Disk| disk.directory().join("leader-epoch-checkpoint");
    let ends = |disk: &Disk| {
        let (log, _) = disk.start(SMALL);
        let end = |epoch| {
            log.journal
                .leader_epoch_end(PARTITION, LeaderEpoch(epoch), LeaderEpoch(9))
        };
        [end(1), end(4), end(6), end(9)]
    };
    let prepare = || {
        let disk = Disk::new();
        let (mut log, _) = disk.start(SMALL);
        log.fill(50);
        log.put(1, 4, 2000, 100);
        for _ in 0..40 {
            log.put(1, 6, 2000, 100);
        }
        drop(log);
        disk
    };
    let disk = prepare();
    let expected =
        [(1, 100), (4, 101), (6, 141), (9, 141)].map(|(e, o)| (LeaderEpoch(e), Offset(o)));
    assert_eq!(ends(&disk), expected);
    let text = std::fs::read(checkpoint(&disk)).expect("there");
    assert_eq!(text, b"0\n3\n1 0\n4 100\n6 101\n");
    for damaged in ["", "0\n", "0\n9\n1 0\n", "junk"] {
        std::fs::write(checkpoint(&disk), damaged).expect("written");
        assert_eq!(ends(&disk), expected);
        assert_eq!(std::fs::read(checkpoint(&disk)).expect("there"), text);
    }
    std::fs::remove_file(checkpoint(&disk)).expect("removed");
    assert_eq!(ends(&disk), expected);
    // An epoch that was noted, and whose first batch never came.
    std::fs::write(checkpoint(&disk), "0\n4\n1 0\n4 100\n6 101\n8 141\n").expect("written");
    assert_eq!(ends(&disk), expected);
}

#[test]
fn cr22_the_log_start_is_the_old_or_the_new_one() {
    let disk = killed(SMALL, 200);
    let bases = disk.bases();
    let (mut log, _) = disk.start(SMALL);
    let start = Offset(bases[3] + 3);
    log.journal.set_log_start(PARTITION, start).expect("moved");
    assert_eq!(log.journal.log_start(PARTITION), start);
    drop(log);
    assert_eq!(disk.bases(), bases[3..]);
    let (log, recovered) = disk.start(SMALL);
    assert_eq!(
        (recovered.log_start, recovered.log_end),
        (start, Offset(200))
    );
    // LR-65: the batch that holds the start comes whole.
    assert_eq!(log.read(start.0, 200, 1000), evens(bases[3] + 2, 200));
    assert!(
        log.journal
            .read(PARTITION, Offset(0), Offset(9), 9, true)
            .is_err()
    );
    drop(log);
    // Killed between the small file and the removal of segments.
    let disk = killed(SMALL, 200);
    std::fs::write(disk.directory().join("log-start"), format!("0\n{start}\n")).expect("written");
    let (_, recovered) = disk.start(SMALL);
    assert_eq!(recovered.log_start, start);
    assert_eq!(disk.bases(), bases[3..]);
}

#[test]
fn a_log_that_ends_before_its_start_begins_anew_there() {
    let disk = killed(SMALL, 20);
    std::fs::write(disk.directory().join("log-start"), "0\n30\n").expect("written");
    let (mut log, recovered) = disk.start(SMALL);
    assert_eq!(
        (recovered.log_start, recovered.log_end),
        (Offset(30), Offset(30))
    );
    assert!(matches!(
        recovered.cut.expect("cut").reason,
        CutReason::BelowStart { .. }
    ));
    log.fill(2);
    drop(log);
    let (log, recovered) = disk.start(SMALL);
    assert_eq!(
        (recovered.log_start, recovered.log_end),
        (Offset(30), Offset(34))
    );
    assert_eq!(log.replay(0), [30, 32]);
}

#[test]
fn lr64_a_segment_below_the_start_that_is_still_there_ends_nothing() {
    let disk = killed(SMALL, 200);
    let bases = disk.bases();
    let (mut log, _) = disk.start(SMALL);
    let first = std::fs::read(disk.file(0, "log")).expect("there");
    let start = Offset(bases[3]);
    log.journal.set_log_start(PARTITION, start).expect("moved");
    drop(log);
    // It could not be removed then, or its removal was not on the disk when the power failed.
    std::fs::write(disk.file(0, "log"), first).expect("written");
    disk.forget_boot();
    let (log, recovered) = disk.start(SMALL);
    assert_eq!(
        (recovered.log_start, recovered.log_end, recovered.cut),
        (start, Offset(200), None)
    );
    assert_eq!(log.replay(0), evens(start.0, 200));
    assert_eq!(disk.bases(), bases[3..]);
}
