//! Verification, mixing, open transactions (exactly-once.md 1.5, 3.5, 4.4).

use crate::partition::{
    A, Answer::*, B, OLD_EPOCH, OUT_OF_ORDER, Partition, WRONG_STATE, check, marker, plain,
    transactional,
};
use tally_producer_state::{Flow, Guard, ProducerStates, Refusal, Verdict, Verification};
use tally_protocol::{BatchHeader, Offset, ProducerEpoch, ProducerId, Sequence};

#[test]
fn p53_plain_data_may_not_join_an_open_transaction() {
    check(
        &mut Partition::new(),
        &[
            (transactional(A, 0, 0, 1), At(0)),
            (plain(A, 0, 1, 1), WRONG_STATE),
            (plain(B, 0, 0, 1), At(1)),
            (transactional(A, 0, 1, 1), At(2)),
        ],
    );
}

#[test]
fn p54_the_first_transactional_batch_opens_the_transaction() {
    let mut partition = Partition::new();
    check(
        &mut partition,
        &[
            (plain(A, 0, 0, 2), At(0)),
            (transactional(A, 0, 2, 1), At(2)),
            (transactional(A, 0, 3, 1), At(3)),
        ],
    );
    let open: Vec<_> = partition.states.open_transactions().collect();
    assert_eq!(open, [(ProducerId(A), ProducerEpoch(0), Offset(2))]);
    assert_eq!(partition.states.first_unstable(), Some(Offset(2)));
}

#[test]
fn v1_only_the_first_batch_of_a_transaction_is_verified() {
    let mut partition = Partition::new();
    let first = transactional(A, 0, 0, 1);
    let guard = partition.guard(&first, Flow::Tv1);
    assert_eq!(partition.append(first, Some(guard)), At(0));
    let second = transactional(A, 0, 1, 1);
    assert_eq!(
        partition.verify(&second, Flow::Tv1),
        Verification::NotNeeded
    );
    assert_eq!(partition.append(second, None), At(1));
    let old = transactional(A, -1, 0, 1);
    assert_eq!(partition.produce(old), OLD_EPOCH);
}

#[test]
fn v5_a_batch_without_the_guard_is_refused() {
    let mut partition = Partition::new();
    let batch = transactional(A, 0, 0, 1);
    assert_eq!(partition.append(batch, None), WRONG_STATE);
    let guard = partition.guard(&batch, Flow::Tv1);
    assert_eq!(partition.append(batch, None), WRONG_STATE);
    assert_eq!(partition.append(batch, Some(guard)), At(0));
}

#[test]
fn v5_a_marker_between_verification_and_append_kills_the_append() {
    for flow in [Flow::Tv1, Flow::Tv2] {
        let mut partition = Partition::new();
        let batch = transactional(A, 0, 0, 1);
        let guard = partition.guard(&batch, flow);
        assert_eq!(partition.end(marker(A, 1, false)), At(0));
        assert_eq!(partition.append(batch, Some(guard)), OLD_EPOCH);
    }
    // TV1: the marker has the epoch of the data.
    let mut partition = Partition::new();
    let batch = transactional(A, 0, 0, 1);
    let guard = partition.guard(&batch, Flow::Tv1);
    assert_eq!(partition.end(marker(A, 0, false)), At(0));
    assert_eq!(partition.append(batch, Some(guard)), WRONG_STATE);
}

#[test]
fn v5_a_guard_of_an_earlier_transaction_does_not_pass() {
    let mut partition = Partition::new();
    let late = transactional(A, 0, 0, 1);
    let stale = partition.guard(&late, Flow::Tv1);
    assert_eq!(partition.end(marker(A, 0, false)), At(0));
    let fresh = partition.guard(&late, Flow::Tv1);
    assert_ne!(stale, fresh);
    assert_eq!(partition.append(late, Some(stale)), WRONG_STATE);
    assert_eq!(partition.append(late, Some(fresh)), At(1));
}

#[test]
fn v6_a_marker_answered_without_an_append_kills_the_guard_too() {
    let mut partition = Partition::new();
    assert_eq!(partition.end(marker(A, 0, true)), At(0));
    let batch = transactional(A, 0, 0, 1);
    let guard = partition.guard(&batch, Flow::Tv1);
    assert_eq!(partition.end(marker(A, 0, true)), Again(-1));
    assert_eq!(partition.append(batch, Some(guard)), WRONG_STATE);
}

#[test]
fn v6_the_next_transaction_of_tv2_may_be_verified_before_the_marker() {
    let mut partition = Partition::new();
    assert_eq!(
        partition.produce_by(transactional(A, 0, 0, 1), Flow::Tv2),
        At(0)
    );
    let next = transactional(A, 1, 0, 1);
    let guard = partition.guard(&next, Flow::Tv2);
    assert_eq!(partition.end(marker(A, 1, true)), At(1));
    assert_eq!(partition.append(next, Some(guard)), At(2));
}

#[test]
fn v7_a_later_batch_does_not_overtake_one_that_is_being_verified() {
    let mut partition = Partition::new();
    let first = transactional(A, 0, 0, 1);
    let second = transactional(A, 0, 1, 1);
    let guard = partition.guard(&first, Flow::Tv1);
    assert_eq!(partition.guard(&second, Flow::Tv1), guard);
    assert_eq!(partition.append(second, Some(guard)), OUT_OF_ORDER);
    assert_eq!(partition.append(first, Some(guard)), At(0));
    assert_eq!(partition.append(second, None), At(1));
}

#[test]
fn v7_a_made_up_epoch_does_not_stop_the_live_producer() {
    let mut partition = Partition::new();
    let live = transactional(A, 3, 0, 1);
    let guard = partition.guard(&live, Flow::Tv1);
    let made_up = transactional(A, 30_000, 0, 1);
    assert_ne!(partition.guard(&made_up, Flow::Tv1), guard);
    assert_eq!(partition.append(live, Some(guard)), At(0));
}

#[test]
fn v10_a_coordinators_batch_needs_a_guard_too() {
    let mut partition = Partition::new();
    let own = BatchHeader {
        base_sequence: tally_protocol::Sequence::NONE,
        ..transactional(A, 0, 0, 1)
    };
    assert_eq!(partition.append(own, None), WRONG_STATE);
    let guard = partition.guard(&own, Flow::Tv1);
    assert_eq!(partition.append(own, Some(guard)), At(0));
    assert_eq!(partition.produce(own), At(1));
}

#[test]
fn v11_a_duplicate_does_not_stop_the_batches_after_it() {
    let mut partition = Partition::new();
    check(
        &mut partition,
        &[
            (transactional(A, 0, 0, 1), At(0)),
            (transactional(A, 0, 1, 1), At(1)),
        ],
    );
    assert_eq!(partition.end(marker(A, 0, true)), At(2));
    // Once as a shard that tells of the duplicate, once as one that does not.
    let mut told = partition.clone();
    assert_eq!(told.produce(transactional(A, 0, 1, 1)), Again(1));
    told.states.duplicate_answered(&transactional(A, 0, 1, 1));
    assert_eq!(told.produce(transactional(A, 0, 2, 1)), At(3));
    check(
        &mut partition,
        &[
            (transactional(A, 0, 1, 1), Again(1)),
            (transactional(A, 0, 2, 1), At(3)),
        ],
    );
}

#[test]
fn v05_a_verification_is_dropped_by_its_own_guard_only() {
    let mut states = ProducerStates::new(1);
    let begin = |states: &mut ProducerStates| match states.begin_verification(
        ProducerId(A),
        ProducerEpoch(0),
        Sequence(0),
        Flow::Tv1,
        crate::partition::at(1),
    ) {
        Verification::Needed(guard) => guard,
        other => panic!("{other:?}"),
    };
    let header = transactional(A, 0, 0, 1);
    let first = begin(&mut states);
    states.drop_verification(ProducerId(A), ProducerEpoch(0), Guard(first.0 ^ 1));
    assert_eq!(states.check(&header, Some(first)), Verdict::Append);
    states.drop_verification(ProducerId(A), ProducerEpoch(0), first);
    let refused = Verdict::Refuse(Refusal::InvalidTxnState);
    assert_eq!(states.check(&header, Some(first)), refused);
    assert_ne!(begin(&mut states), first);
}

#[test]
fn k1_what_was_verified_in_an_earlier_life_of_the_partition_is_asked_again() {
    let begin = |states: &mut ProducerStates| match states.begin_verification(
        ProducerId(A),
        ProducerEpoch(0),
        Sequence(0),
        Flow::Tv1,
        crate::partition::at(1),
    ) {
        Verification::Needed(guard) => guard,
        other => panic!("{other:?}"),
    };
    let header = transactional(A, 0, 0, 1);
    let before = begin(&mut ProducerStates::new(1));
    let mut states = ProducerStates::new(2);
    let again = Verdict::Refuse(Refusal::VerifiedBefore);
    assert_eq!(states.check(&header, Some(before)), again);
    let now = begin(&mut states);
    assert_eq!(states.check(&header, Some(before)), again);
    assert_eq!(states.check(&header, Some(now)), Verdict::Append);
    let unverified = Verdict::Refuse(Refusal::InvalidTxnState);
    assert_eq!(states.check(&header, None), unverified);
}

#[test]
fn p43_a_tv2_transaction_starts_at_zero() {
    let mut partition = Partition::new();
    let refused = transactional(A, 0, 2, 1);
    assert_eq!(partition.produce_by(refused, Flow::Tv2), OUT_OF_ORDER);
    let tv2 = |sequence| transactional(A, 0, sequence, 1);
    assert_eq!(partition.produce_by(tv2(0), Flow::Tv2), At(0));
    assert_eq!(partition.end(marker(A, 1, true)), At(1));
    let next = |sequence| transactional(A, 1, sequence, 1);
    assert_eq!(partition.produce_by(next(2), Flow::Tv2), OUT_OF_ORDER);
    assert_eq!(partition.produce_by(next(0), Flow::Tv2), At(2));
    assert_eq!(partition.produce_by(next(1), Flow::Tv2), At(3));
}

#[test]
fn p42_a_tv1_transaction_may_start_anywhere() {
    let mut partition = Partition::new();
    check(
        &mut partition,
        &[
            (transactional(A, 0, 7, 1), At(0)),
            (transactional(A, 0, 8, 1), At(1)),
        ],
    );
}

#[test]
fn d14_a_retry_of_an_aborted_batch_is_refused() {
    let mut partition = Partition::new();
    check(&mut partition, &[(transactional(A, 0, 0, 1), At(0))]);
    assert_eq!(partition.end(marker(A, 0, false)), At(1));
    check(&mut partition, &[(transactional(A, 0, 0, 1), OUT_OF_ORDER)]);
    let (restored, _) =
        tally_producer_state::ProducerStates::restore(&partition.image(), 2).expect("own bytes");
    partition.states = restored;
    check(
        &mut partition,
        &[
            (transactional(A, 0, 0, 1), OUT_OF_ORDER),
            (transactional(A, 0, 1, 1), At(2)),
        ],
    );
}

#[test]
fn m09_a_retry_of_a_committed_batch_is_answered() {
    let mut partition = Partition::new();
    check(&mut partition, &[(transactional(A, 0, 0, 1), At(0))]);
    assert_eq!(partition.end(marker(A, 0, true)), At(1));
    check(
        &mut partition,
        &[
            (transactional(A, 0, 1, 1), At(2)),
            (transactional(A, 0, 0, 1), Again(0)),
        ],
    );
    assert_eq!(partition.end(marker(A, 0, false)), At(3));
    check(
        &mut partition,
        &[
            (transactional(A, 0, 0, 1), Again(0)),
            (transactional(A, 0, 1, 1), OUT_OF_ORDER),
        ],
    );
}

#[test]
fn m12_a_decided_transaction_holds_readers_until_the_high_watermark_passes_its_marker() {
    let mut partition = Partition::new();
    check(
        &mut partition,
        &[
            (transactional(A, 0, 0, 2), At(0)),
            (transactional(B, 0, 0, 2), At(2)),
        ],
    );
    assert_eq!(partition.end_unseen(marker(A, 0, true)), At(4));
    assert_eq!(partition.states.first_unstable(), Some(Offset(0)));
    partition.states.high_watermark(Offset(4));
    assert_eq!(partition.states.first_unstable(), Some(Offset(0)));
    partition.states.high_watermark(Offset(5));
    assert_eq!(partition.states.first_unstable(), Some(Offset(2)));
    assert_eq!(partition.end(marker(B, 0, false)), At(5));
    assert_eq!(partition.states.first_unstable(), None);
}
