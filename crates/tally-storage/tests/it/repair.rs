//! What is planned for a segment that has to be mended.

use crate::support::{Disk, SMALL};
use tally_protocol::Offset;
use tally_storage::{Damaged, EpochsAround, Part, plan_segment};

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
