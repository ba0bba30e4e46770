//! What is planned for a segment that has to be mended, and what a start finds after that was done.

use crate::support::{Disk, PARTITION, SMALL, batch};
use crate::sync_journal::put;
use std::sync::Arc;
use tally_protocol::Offset;
use tally_storage::{
    Damaged, DataDir, Durability, EpochsAround, Part, Repair, SegmentJournal, SyncJournal,
    SyncOptions, plan_segment, read_recovery_points,
};

/// A segment of good batches that ends one batch before the next one begins: a start lets the next one go where neither was known
/// to be synced, and where both were the offsets are kept.
#[test]
fn r10_a_gap_between_segments_ends_the_log_where_nothing_was_synced() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(40);
    log.stop();
    let bases = disk.bases();
    let next = Offset(bases[1]);
    let path = disk.file(0, "log");
    let size = std::fs::metadata(&path).expect("a segment").len();
    let plan = |next, keeps| {
        let damaged = Damaged {
            log: &path,
            base: Offset(0),
            next: Some(next),
            known_end: Offset(0),
            gaps: false,
            keeps,
            epochs: &EpochsAround::default(),
        };
        plan_segment(&damaged).expect("it can be read").parts
    };
    assert_eq!(plan(next, false), [Part::Keep(0..size)]);
    let later = Offset(next.0 + 2);
    assert_eq!(
        plan(later, false),
        [Part::Keep(0..size), Part::Cut(size..size)]
    );
    assert_eq!(
        plan(later, true),
        [Part::Keep(0..size), Part::Lose(size..size, next.0..later.0)]
    );
}

/// Numbers that no checksum covers may be anything: they are damage, and no reason to stop.
#[test]
fn numbers_of_damaged_batches_may_be_anything() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(60);
    log.stop();
    let bases = disk.bases();
    let path = disk.file(bases[1], "log");
    let whole = std::fs::read(&path).expect("a segment");
    let size = u64::try_from(whole.len()).expect("small");
    let plan = |next: Option<i64>, known_end: i64| {
        let damaged = Damaged {
            log: &path,
            base: Offset(bases[1]),
            next: next.map(Offset),
            known_end: Offset(known_end),
            gaps: false,
            keeps: true,
            epochs: &EpochsAround::default(),
        };
        plan_segment(&damaged).expect("it can be read").parts
    };
    // A start of the log, and the name of a segment, that this one can never reach.
    assert_eq!(plan(None, i64::MAX), [Part::Keep(0..size)]);
    assert_eq!(plan(Some(i64::MAX), 0), [Part::Keep(0..size)]);
    // The first batch is damaged by its checksum, and all others say that they begin there.
    for begins in [i64::MAX, i64::MAX - 1, i64::MIN, i64::MIN + 1, -1] {
        let mut bytes = whole.clone();
        bytes[70] ^= 1;
        for batch in bytes.chunks_exact_mut(161).skip(1) {
            batch[..8].copy_from_slice(&begins.to_be_bytes());
        }
        std::fs::write(&path, bytes).expect("damaged");
        let parts = plan(Some(bases[2]), 0);
        assert_eq!(parts, [Part::Lose(0..size, bases[1]..bases[2])]);
    }
}

/// Bytes of a batch of these tests.
const BATCH: u64 = 161;

/// A segment of ten batches of two records from offset 10 on, without an index that tells of any of them; in a compacted one the
/// offsets 14 and 15 are gone. What is planned for it when `damage` was done to its batches.
#[track_caller]
fn check_plan(gaps: bool, damage: impl Fn(&mut [Vec<u8>]), expected: &[Part]) {
    let disk = Disk::new();
    let path = disk.root().join("00000000000000000010.log");
    let begins = (0..10).map(|nth| 10 + 2 * nth + if gaps && nth >= 2 { 2 } else { 0 });
    let mut batches: Vec<Vec<u8>> = begins.map(|at| batch(at, 2, 1, 1000, 100)).collect();
    damage(&mut batches);
    std::fs::write(&path, batches.concat()).expect("written");
    let damaged = Damaged {
        log: &path,
        base: Offset(10),
        next: Some(Offset(if gaps { 40 } else { 30 })),
        known_end: Offset(0),
        gaps,
        keeps: true,
        epochs: &EpochsAround::default(),
    };
    let plan = plan_segment(&damaged).expect("it can be read");
    assert_eq!(plan.parts, expected);
}

fn begin_at(batch: &mut [u8], offset: i64) {
    batch[..8].copy_from_slice(&offset.to_be_bytes());
}

#[test]
fn offsets_that_are_damaged_side_by_side_come_back() {
    let side_by_side = |batches: &mut [Vec<u8>]| {
        begin_at(&mut batches[4], 99);
        begin_at(&mut batches[5], 3);
    };
    let mended = [
        Part::Keep(0..4 * BATCH),
        Part::Renumber(4 * BATCH..5 * BATCH, Offset(18)),
        Part::Renumber(5 * BATCH..6 * BATCH, Offset(20)),
        Part::Keep(6 * BATCH..10 * BATCH),
    ];
    check_plan(false, side_by_side, &mended);
    // Where all that follow say otherwise it is not an offset that is damaged: a batch is missing.
    let missing = |batches: &mut [Vec<u8>]| batches[4].clear();
    let lost = [
        Part::Keep(0..4 * BATCH),
        Part::Lose(4 * BATCH..9 * BATCH, 18..30),
    ];
    check_plan(false, missing, &lost);
}

/// Of a compacted segment no batch but the damaged one is lost, though no index leads behind it.
#[test]
fn of_a_compacted_segment_a_damaged_batch_alone_is_lost() {
    check_plan(true, |_| {}, &[Part::Keep(0..10 * BATCH)]);
    let one = |nth: u64, offsets: std::ops::Range<i64>| {
        [
            Part::Keep(0..nth * BATCH),
            Part::Lose(nth * BATCH..(nth + 1) * BATCH, offsets),
            Part::Keep((nth + 1) * BATCH..10 * BATCH),
        ]
    };
    check_plan(true, |batches| batches[4][70] ^= 1, &one(4, 20..22));
    // Its room is larger than it is: nobody knows where in there it began.
    check_plan(
        true,
        |batches| begin_at(&mut batches[2], 7),
        &one(2, 14..18),
    );
    let too_high = |batches: &mut [Vec<u8>]| begin_at(&mut batches[2], 28);
    check_plan(true, too_high, &one(2, 14..18));
    // And here it is as large.
    let exact = [
        Part::Keep(0..4 * BATCH),
        Part::Renumber(4 * BATCH..5 * BATCH, Offset(20)),
        Part::Keep(5 * BATCH..10 * BATCH),
    ];
    check_plan(true, |batches| begin_at(&mut batches[4], 32), &exact);
    check_plan(true, |batches| begin_at(&mut batches[4], -1), &exact);
    // A batch that is too low does not bring down the one before it.
    let low = |batches: &mut [Vec<u8>]| begin_at(&mut batches[2], 13);
    check_plan(true, low, &one(2, 14..18));
}

/// The payload of a batch is damaged, and then mended; returns from which segment on a start would cut.
fn damage_and_mend(disk: &Disk, base: i64, next: Option<i64>) -> Option<Offset> {
    let path = disk.file(base, "log");
    let mut bytes = std::fs::read(&path).expect("a segment");
    bytes[70] ^= 1;
    std::fs::write(&path, bytes).expect("damaged");
    let mut repair = Repair::open(disk.root()).expect("nobody has it");
    let damaged = Damaged {
        log: &path,
        base: Offset(base),
        next: next.map(Offset),
        known_end: Offset(0),
        gaps: false,
        keeps: true,
        epochs: &EpochsAround::default(),
    };
    let plan = plan_segment(&damaged).expect("it can be read");
    assert!(matches!(plan.parts[0], Part::Lose(..)), "{plan:?}");
    let mended = repair.mend_segment(PARTITION, (&path, Offset(base)), &plan);
    mended.expect("mended");
    let inspection = repair.inspection().expect("it is a directory");
    let from = inspection.unsynced_from(PARTITION).expect("it is read");
    repair.finish().expect("given back");
    from
}

/// What a repair leaves is synced, and a start takes it all, also where the machine has begun anew in between: where each append is
/// synced it would take nothing that no recovery point covers (R-11 (a)).
#[test]
fn r11_what_is_mended_is_taken_after_a_reboot() {
    for durability in [Durability::Commit, Durability::Always] {
        for (is_clean, in_last) in [(false, false), (false, true), (true, false), (true, true)] {
            let disk = Disk::new();
            let start = |dir: &Arc<DataDir>| {
                let options = SyncOptions {
                    durability,
                    journal_bytes: 1 << 20,
                    copied_bytes_max: 8192,
                };
                let sync = SyncJournal::open(Arc::clone(dir), options).expect("it opens");
                let dir = Arc::clone(dir);
                let shard = SegmentJournal::synced(dir, Arc::clone(&sync), durability);
                (sync, shard)
            };
            let log = tally_storage::LogOptions {
                synced_only: true,
                ..SMALL
            };
            let dir = disk.open();
            let (sync, mut shard) = start(&dir);
            shard.open_partition(PARTITION, log).expect("it opens");
            for _ in 0..60 {
                put(&mut shard, PARTITION, 100);
            }
            shard.hand_over(PARTITION, None);
            sync.turn().expect("synced");
            // Else the journal mends what it holds.
            sync.checkpoint().expect("synced");
            let end = shard.log_end(PARTITION);
            if is_clean {
                shard.shutdown().expect("synced");
                dir.mark_clean().expect("the mark is left");
            }
            drop((sync, shard, dir));
            let bases = disk.bases();
            let (base, next) = match in_last {
                true => (bases[bases.len() - 1], None),
                false => (bases[0], Some(bases[1])),
            };
            damage_and_mend(&disk, base, next);
            disk.forget_boot();
            let dir = disk.open();
            assert!(dir.power_was_cut(), "for all that it knows");
            let (_sync, mut shard) = start(&dir);
            let found = shard.open_partition(PARTITION, log).expect("it opens");
            let case = (durability, is_clean, in_last);
            assert_eq!((found.log_end, found.cut), (end, None), "{case:?}");
        }
    }
}

/// What was known to be synced is so after a repair: where it looks a second time it keeps as much.
#[test]
fn r10_a_repair_forgets_nothing_of_what_is_synced() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(100);
    assert!(log.dir.sync_closed().expect("synced"));
    drop(log);
    disk.forget_boot();
    let bases = disk.bases();
    let before = Offset(bases[bases.len() - 2]);
    let repair = Repair::open(disk.root()).expect("nobody has it");
    let inspection = repair.inspection().expect("it is a directory");
    let from = inspection.unsynced_from(PARTITION).expect("it is read");
    drop((inspection, repair));
    assert!(from >= Some(before), "{from:?} of {bases:?}");
    assert_eq!(damage_and_mend(&disk, bases[0], Some(bases[1])), from);
}

/// Of two files of recovery points the newer one counts, also where bytes of it are wrong that mean nothing. A repair leaves what
/// it says, and both files whole.
#[test]
fn recovery_points_that_are_mended_say_what_they_said() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    for _ in 0..2 {
        log.fill(100);
        assert!(log.dir.sync_closed().expect("synced"));
    }
    drop(log);
    let files = ["recovery-points-0", "recovery-points-1"].map(|name| disk.root().join(name));
    let read = |path| {
        let bytes = std::fs::read(path).expect("a file");
        read_recovery_points(&bytes).map(|found| (found.counter, found.points))
    };
    let [first, second] = [&files[0], &files[1]].map(|path| read(path).expect("whole"));
    let (newest, points) = match first.0 > second.0 {
        true => (&files[0], first.1),
        false => (&files[1], second.1),
    };
    let mut bytes = std::fs::read(newest).expect("a file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(newest, &bytes).expect("damaged");
    assert_eq!(
        read(newest),
        None,
        "somebody who looks takes it for damaged"
    );
    let mut repair = Repair::open(disk.root()).expect("nobody has it");
    repair.write_points(newest).expect("written");
    let name = newest.file_name().expect("a name");
    let kept = std::fs::read(repair.aside().join(name)).expect("kept");
    assert_eq!(kept, bytes);
    repair.finish().expect("given back");
    for path in &files {
        assert_eq!(read(path).expect("whole").1, points);
    }
}
