//! Indexes that look right and are not: every bit of theirs turned, one at a time.

use crate::journal::evens;
use crate::support::{Disk, Log, PARTITION, SMALL, loaded};
use std::fs;
use tally_protocol::{BatchView, Offset};

const BATCHES: i64 = 60;
const END: i64 = BATCHES * 2;

/// A log of small segments that was stopped cleanly.
fn stopped() -> Disk {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(BATCHES);
    log.stop();
    assert!(disk.bases().len() > 2, "{:?}", disk.bases());
    disk
}

/// Every read, search and figure of the log is what it was.
#[track_caller]
fn check(log: &Log, why: &str) {
    assert_eq!(log.end(), END, "{why}");
    for from in (0..END).step_by(5) {
        let read = log.read(from, END, 400);
        assert_eq!(read, evens(from / 2 * 2, END), "{why}");
    }
    for from in (0..END).step_by(2) {
        let find = || {
            log.journal
                .find_by_time(PARTITION, 1000 + from, Offset(END))
        };
        let found = loaded(find).expect("it can be searched");
        let found = found.expect("there is one");
        let batch = BatchView::parse(&found).expect("a batch");
        assert_eq!(batch.header().base_offset, Offset(from), "{why}");
    }
    let segments = loaded(|| log.journal.segments(PARTITION)).expect("their figures");
    for segment in segments {
        assert_eq!(segment.max_timestamp, 1000 + segment.end.0 - 2, "{why}");
    }
}

#[test]
fn r15_a_wrong_entry_that_looks_right_is_not_believed_and_made_again() {
    let disk = stopped();
    for base in disk.bases() {
        for kind in ["index", "timeindex"] {
            let path = disk.file(base, kind);
            let whole = fs::read(&path).expect("the index");
            let is_last = disk.bases().last() == Some(&base);
            // A few bits of each byte: the first and the last entry, and one between.
            for at in (0..whole.len()).step_by(3) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                fs::write(&path, &bytes).expect("damaged");
                let why = format!("{kind} of {base}, byte {at}");
                let (log, recovered) = disk.start(SMALL);
                assert_eq!((recovered.log_end, recovered.cut), (Offset(END), None));
                check(&log, &why);
                log.stop();
                assert_eq!(
                    fs::read(&path).expect("the index"),
                    whole,
                    "{why}: {is_last}"
                );
            }
        }
    }
}

#[test]
fn r15_an_entry_that_leads_to_the_end_does_not_move_the_end() {
    let disk = stopped();
    let base = *disk.bases().last().expect("the last segment");
    let size = fs::metadata(disk.file(base, "log")).expect("the log").len();
    let path = disk.file(base, "index");
    let mut bytes = fs::read(&path).expect("the index");
    let at = bytes.len() - 4;
    let position = u32::try_from(size).expect("small");
    bytes[at..].copy_from_slice(&position.to_be_bytes());
    fs::write(&path, &bytes).expect("damaged");
    let (log, recovered) = disk.start(SMALL);
    assert_eq!((recovered.log_end, recovered.cut), (Offset(END), None));
    check(&log, "an entry at the end");
}

#[test]
fn a_wrong_entry_of_the_segment_that_is_written_to_is_passed_over() {
    let disk = stopped();
    let base = *disk.bases().last().expect("the last segment");
    let path = disk.file(base, "index");
    let mut bytes = fs::read(&path).expect("the index");
    assert!(bytes.len() > 16, "more than two entries");
    // The first entry says that its batch ends one offset later.
    bytes[3] += 1;
    fs::write(&path, &bytes).expect("damaged");
    let (mut log, _) = disk.start(SMALL);
    log.put(2, 1, 1000 + END, 100);
    for from in base..END + 2 {
        assert_eq!(log.read(from, END + 2, 400), evens(from / 2 * 2, END + 2));
    }
}

#[test]
fn a_damaged_batch_hides_no_other() {
    let disk = stopped();
    let (first, second) = (disk.bases()[0], disk.bases()[1]);
    let path = disk.file(first, "log");
    let mut bytes = fs::read(&path).expect("the log");
    let middle = BatchView::parse(&bytes[bytes.len() / 2..]).is_err();
    assert!(middle, "no batch begins in the middle");
    // The base offset of the fifth batch, which no checksum covers.
    let size = BatchView::parse(&bytes).expect("a batch").bytes().len();
    bytes[size * 4 + 6] ^= 1;
    fs::write(&path, &bytes).expect("damaged");
    let (log, recovered) = disk.start(SMALL);
    assert_eq!(
        recovered.log_end,
        Offset(END),
        "closed segments are trusted"
    );
    for from in [0, 2, 4, second, END - 2] {
        let read = loaded(|| {
            log.journal
                .read(PARTITION, Offset(from), Offset(from + 2), 1 << 20, true)
        });
        let read = read.expect("what is good can be read");
        let bytes = &read.slices.first().expect("a batch")[..];
        let batch = BatchView::parse(bytes).expect("a batch");
        assert_eq!(batch.header().base_offset.0, from);
    }
}
