//! Markers (exactly-once.md 4.2, 4.4).

use crate::partition::{A, Answer, Answer::*, B, Partition, check, marker, plain, transactional};
use tally_producer_state::{AbortedTransaction, Marker};
use tally_protocol::{CoordinatorEpoch, Offset, ProducerId};

const OLD_EPOCH: Answer = Code(47);
const OLD_COORDINATOR: Answer = Code(52);

fn version_2(epoch: i16) -> Marker {
    Marker {
        transaction_version: 2,
        ..marker(A, epoch, true)
    }
}

/// A partition where A has epoch `epoch`, with an open transaction or without.
fn with_epoch(epoch: i16, is_open: bool) -> Partition {
    let mut partition = Partition::new();
    let header = if is_open {
        transactional(A, epoch, 0, 1)
    } else {
        plain(A, epoch, 0, 1)
    };
    assert_eq!(partition.produce(header), At(0));
    partition
}

#[test]
fn m04_the_epoch_of_a_marker() {
    for (entry, is_open, marker, expected) in [
        (3, true, marker(A, 2, true), OLD_EPOCH),
        (3, true, marker(A, 3, true), At(1)),
        (3, true, marker(A, 4, true), At(1)),
        (3, false, marker(A, 2, true), OLD_EPOCH),
        (3, true, version_2(2), OLD_EPOCH),
        (3, true, version_2(3), OLD_EPOCH),
        (3, true, version_2(4), At(1)),
        (3, false, version_2(2), OLD_EPOCH),
        (3, false, version_2(3), At(1)),
        (32_767, true, version_2(32_767), At(1)),
    ] {
        let mut partition = with_epoch(entry, is_open);
        let got = partition.end(marker);
        assert_eq!(got, expected, "{entry} open {is_open}: {marker:?}");
    }
}

#[test]
fn m05_the_coordinator_epoch_never_falls() {
    let by = |coordinator, epoch| Marker {
        coordinator_epoch: CoordinatorEpoch(coordinator),
        ..marker(A, epoch, true)
    };
    let mut partition = Partition::new();
    assert_eq!(partition.end(by(5, 0)), At(0));
    assert_eq!(partition.end(by(4, 0)), OLD_COORDINATOR);
    assert_eq!(partition.end(by(4, 1)), OLD_COORDINATOR);
    assert_eq!(partition.end(by(5, 0)), Again(-1));
    assert_eq!(partition.end(by(6, 0)), At(1), "a higher one is kept");
    assert_eq!(partition.end(by(5, 0)), OLD_COORDINATOR);
    assert_eq!(partition.states.describe()[0].coordinator_epoch.0, 6);
}

#[test]
fn m06_a_marker_makes_an_entry() {
    let mut partition = Partition::new();
    assert_eq!(partition.end(marker(A, 2, false)), At(0));
    assert!(partition.rows.is_empty());
    let described = partition.states.describe();
    assert_eq!(described[0].producer_epoch.0, 2);
    assert_eq!(described[0].last_sequence.0, -1);
    assert_eq!(described[0].current_transaction_start, Offset::NONE);
}

#[test]
fn m07_a_higher_epoch_forgets_the_batches_and_an_equal_one_keeps_them() {
    let mut partition = with_epoch(0, true);
    assert_eq!(partition.end(marker(A, 0, true)), At(1));
    check(
        &mut partition,
        &[
            (transactional(A, 0, 0, 1), Again(0)),
            (transactional(A, 0, 1, 1), At(2)),
        ],
    );
    assert_eq!(partition.end(marker(A, 1, true)), At(3));
    assert_eq!(partition.states.describe()[0].last_sequence.0, -1);
    check(&mut partition, &[(transactional(A, 1, 0, 1), At(4))]);
}

#[test]
fn m07_only_an_abort_of_an_open_transaction_makes_a_row() {
    for (is_open, commit, rows) in [
        (true, false, 1),
        (true, true, 0),
        (false, false, 0),
        (false, true, 0),
    ] {
        let mut partition = with_epoch(0, is_open);
        assert_eq!(partition.end(marker(A, 1, commit)), At(1));
        assert_eq!(partition.rows.len(), rows, "open {is_open} commit {commit}");
    }
}

#[test]
fn m08_a_repeated_marker_is_not_appended() {
    let mut partition = with_epoch(0, true);
    assert_eq!(partition.end(version_2(1)), At(1));
    let before = partition.image();
    assert_eq!(partition.end(version_2(1)), Again(-1));
    assert_eq!(partition.end(marker(A, 1, true)), Again(-1));
    assert_eq!(partition.image(), before);
    assert_eq!(partition.end(version_2(2)), At(2), "a higher one fences");
}

#[test]
fn m15_a_row_knows_how_far_readers_could_go() {
    let mut partition = Partition::new();
    check(
        &mut partition,
        &[
            (transactional(A, 0, 0, 1), At(0)),
            (transactional(B, 0, 0, 3), At(1)),
        ],
    );
    assert_eq!(partition.end(marker(B, 0, false)), At(4));
    assert_eq!(partition.end(marker(A, 1, false)), At(5));
    let row = |producer, first, last, stable| AbortedTransaction {
        producer_id: ProducerId(producer),
        first_offset: Offset(first),
        last_offset: Offset(last),
        last_stable_offset: Offset(stable),
    };
    assert_eq!(partition.rows, [row(B, 1, 4, 0), row(A, 0, 5, 6)]);
}
