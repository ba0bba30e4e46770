//! Epochs (exactly-once.md 1.3).

use crate::partition::{
    A, Answer::*, OLD_EPOCH, OUT_OF_ORDER, Partition, check, marker, plain, transactional,
};

#[test]
fn p38_an_old_epoch_is_refused() {
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, 0, 1), At(0)),
            (plain(A, 1, 0, 1), At(1)),
            (plain(A, 0, 1, 1), OLD_EPOCH),
            (plain(A, 0, 0, 1), OLD_EPOCH),
        ],
    );
}

#[test]
fn p39_any_higher_epoch_starts_at_zero() {
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, 0, 1), At(0)),
            (plain(A, 5, 1, 1), OUT_OF_ORDER),
            (plain(A, 5, 0, 1), At(1)),
            (plain(A, 5, 1, 1), At(2)),
        ],
    );
}

#[test]
fn p41_a_refused_batch_leaves_the_entry_as_it_was() {
    let mut partition = Partition::new();
    check(&mut partition, &[(plain(A, 0, 0, 1), At(0))]);
    let before = partition.image();
    for refused in [plain(A, 1, 1, 1), plain(A, 0, 2, 1), plain(A, 0, 0, 2)] {
        assert_eq!(partition.produce(refused), OUT_OF_ORDER);
        assert_eq!(partition.image(), before);
    }
    check(&mut partition, &[(plain(A, 0, 1, 1), At(1))]);
}

#[test]
fn p34_the_same_range_at_a_higher_epoch_is_no_duplicate() {
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, 0, 1), At(0)),
            (plain(A, 1, 0, 1), At(1)),
            (plain(A, 1, 0, 1), Again(1)),
        ],
    );
}

#[test]
fn p47_after_a_marker_alone_the_sequence_starts_at_zero() {
    let mut partition = Partition::new();
    assert_eq!(partition.end(marker(A, 2, false)), At(0));
    check(
        &mut partition,
        &[
            (plain(A, 1, 0, 1), OLD_EPOCH),
            (plain(A, 2, 1, 1), OUT_OF_ORDER),
            (plain(A, 2, 0, 1), At(1)),
        ],
    );
}

#[test]
fn p24_epoch_is_looked_at_before_sequence_and_mixing() {
    let mut partition = Partition::new();
    check(
        &mut partition,
        &[
            (transactional(A, 3, 0, 1), At(0)),
            (plain(A, 2, 9, 1), OLD_EPOCH),
            (plain(A, 3, 9, 1), OUT_OF_ORDER),
            (plain(A, 3, 1, 1), crate::partition::WRONG_STATE),
        ],
    );
}
