//! The end of a run with several journals.

use crate::support::{Disk, PARTITION, SMALL};
use crate::sync_journal::put;
use std::cell::Cell;
use std::sync::Arc;
use tally_protocol::{Offset, PartitionId};
use tally_storage::{Completed, SegmentJournal};

fn partition(index: i32) -> PartitionId {
    PartitionId { index, ..PARTITION }
}

#[test]
fn many_partitions_of_several_journals_are_completed_and_synced_together() {
    let disk = Disk::new();
    let dir = disk.open();
    let mut journals: Vec<SegmentJournal> = (0..2)
        .map(|_| SegmentJournal::new(Arc::clone(&dir)))
        .collect();
    for index in 0..100 {
        let journal = &mut journals[usize::from(index % 2 == 1)];
        let id = partition(index);
        journal.open_partition(id, SMALL).expect("it opens");
        put(journal, id, 100);
    }
    let steps = Cell::new(0);
    let completed: Vec<Completed> = journals
        .iter_mut()
        .map(|journal| journal.complete(&|| steps.set(steps.get() + 1)))
        .collect::<Result<_, _>>()
        .expect("all is complete");
    assert_eq!(steps.get(), 100, "a step for each");
    Completed::sync_all(completed).expect("synced");
    dir.mark_clean().expect("marked");
    drop((journals, dir));
    let dir = disk.open();
    assert!(dir.was_clean());
    let mut journal = SegmentJournal::new(dir);
    for index in 0..100 {
        let found = journal.open_partition(partition(index), SMALL);
        let found = found.expect("it opens");
        assert_eq!((found.log_end, found.cut), (Offset(2), None));
    }
}
