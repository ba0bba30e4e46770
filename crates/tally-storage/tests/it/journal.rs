//! Appends, reads and everything else a partition can do while nothing goes wrong.

use crate::support::{Disk, PARTITION, SMALL, batch};
use tally_storage::LogOptions;

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
