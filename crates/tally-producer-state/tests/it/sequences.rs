//! Duplicates and sequences (exactly-once.md 1.2, 1.4).

use crate::partition::{A, Answer::*, B, OUT_OF_ORDER, Partition, check, plain};

const MAX: i32 = i32::MAX;

#[test]
fn p32_the_same_range_again_is_answered_with_the_old_offset() {
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, 0, 3), At(0)),
            (plain(A, 0, 0, 3), Again(0)),
            (plain(A, 0, 3, 1), At(3)),
            (plain(A, 0, 0, 3), Again(0)),
            (plain(A, 0, 3, 1), Again(3)),
        ],
    );
}

#[test]
fn p31_five_batches_are_remembered_and_no_more() {
    let mut partition = Partition::new();
    for sequence in 0..6 {
        assert_eq!(
            partition.produce(plain(A, 0, sequence, 1)),
            At(i64::from(sequence))
        );
    }
    check(
        &mut partition,
        &[
            (plain(A, 0, 5, 1), Again(5)),
            (plain(A, 0, 1, 1), Again(1)),
            (plain(A, 0, 0, 1), OUT_OF_ORDER),
            (plain(A, 0, 6, 1), At(6)),
            (plain(A, 0, 1, 1), OUT_OF_ORDER),
        ],
    );
}

#[test]
fn p34_a_partial_overlap_is_refused() {
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, 0, 5), At(0)),
            (plain(A, 0, 3, 4), OUT_OF_ORDER),
            (plain(A, 0, 0, 3), OUT_OF_ORDER),
            (plain(A, 0, 0, 6), OUT_OF_ORDER),
            (plain(A, 0, 0, 5), Again(0)),
        ],
    );
}

#[test]
fn p42_a_producer_without_an_entry_starts_anywhere() {
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, 7, 1), At(0)),
            (plain(A, 0, 8, 1), At(1)),
            (plain(A, 0, 0, 1), OUT_OF_ORDER),
        ],
    );
}

#[test]
fn p45_the_sequence_wraps_to_zero() {
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, MAX - 1, 2), At(0)),
            (plain(A, 0, 0, 1), At(2)),
            (plain(A, 0, 1, 1), At(3)),
            (plain(A, 0, MAX - 1, 2), Again(0)),
        ],
    );
}

#[test]
fn p46_a_gap_is_refused_until_it_is_filled() {
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, 0, 3), At(0)),
            (plain(A, 0, 4, 1), OUT_OF_ORDER),
            (plain(A, 0, 3, 1), At(3)),
            (plain(A, 0, 4, 1), At(4)),
        ],
    );
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, MAX, 1), At(0)),
            (plain(A, 0, 1, 1), OUT_OF_ORDER),
        ],
    );
}

#[test]
fn p49_a_batch_may_cross_the_wrap() {
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, MAX - 1, 4), At(0)),
            (plain(A, 0, 2, 1), At(4)),
            (plain(A, 0, MAX - 1, 4), Again(0)),
        ],
    );
}

#[test]
fn p51_producers_count_for_themselves() {
    check(
        &mut Partition::new(),
        &[
            (plain(A, 0, 0, 2), At(0)),
            (plain(B, 0, 0, 1), At(2)),
            (plain(A, 0, 2, 1), At(3)),
            (plain(B, 0, 1, 1), At(4)),
            (plain(B, 0, 0, 1), Again(2)),
        ],
    );
}

#[test]
fn p22_a_batch_without_a_producer_is_always_appended() {
    let anonymous = plain(-1, -1, -1, 1);
    let mut partition = Partition::new();
    check(&mut partition, &[(anonymous, At(0)), (anonymous, At(1))]);
    assert!(partition.states.is_empty());
}

#[test]
fn p37_a_coordinators_batch_is_never_a_duplicate() {
    let own = plain(A, 0, -1, 1);
    let mut partition = Partition::new();
    check(&mut partition, &[(own, At(0)), (own, At(1))]);
    let described = partition.states.describe();
    assert_eq!(described[0].last_sequence.0, -1);
    assert_eq!(described[0].last_timestamp, 77);
}
