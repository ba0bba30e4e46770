//! Entries over time: expiry, snapshots, what replay may meet (exactly-once.md 1.6, 1.7).

use crate::partition::{
    A, Answer::*, B, OUT_OF_ORDER, Partition, at, check, marker, plain, transactional,
};
use tally_producer_state::{ProducerStates, SnapshotError};
use tally_protocol::batch::CONTROL_BIT;
use tally_protocol::{BatchHeader, Offset};

#[test]
fn p56_an_idle_entry_expires_unless_its_transaction_is_open() {
    let mut partition = Partition::new();
    check(&mut partition, &[(plain(A, 0, 0, 1), At(0))]);
    check(&mut partition, &[(transactional(B, 0, 0, 1), At(1))]);
    partition.states.expire(at(999), 1000);
    assert_eq!(partition.states.len(), 2);
    partition.states.expire(at(1000), 1000);
    let left = partition.states.describe();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].producer_id.0, B);
    check(&mut partition, &[(plain(A, 0, 50, 1), At(2))]);
}

#[test]
fn d02_expiry_goes_by_the_brokers_clock() {
    let mut partition = Partition::new();
    partition.now = at(5000);
    let old = BatchHeader {
        max_timestamp: -1_000_000,
        ..plain(A, 0, 0, 1)
    };
    check(&mut partition, &[(old, At(0))]);
    partition.states.expire(at(5500), 1000);
    check(&mut partition, &[(plain(A, 0, 5, 1), OUT_OF_ORDER)]);
    assert_eq!(partition.states.describe()[0].last_timestamp, -1_000_000);
}

#[test]
fn p56_an_unused_verification_expires() {
    let mut partition = Partition::new();
    let batch = transactional(A, 0, 0, 1);
    let guard = partition.guard(&batch, tally_producer_state::Flow::Tv1);
    partition.states.expire(at(1000), 1000);
    assert_eq!(partition.append(batch, Some(guard)), Code(48));
}

#[test]
fn p67_a_control_batch_without_its_record_changes_nothing() {
    let mut states = ProducerStates::new(0);
    let empty = BatchHeader {
        attributes: CONTROL_BIT,
        records_count: 0,
        ..plain(A, 4, -1, 1)
    };
    states.apply(Offset(0), &empty, at(0));
    assert!(states.is_empty());
}

#[test]
fn p67_a_batch_without_records_counts_by_its_header() {
    let mut partition = Partition::new();
    let emptied = BatchHeader {
        records_count: 0,
        ..plain(A, 1, 10, 3)
    };
    partition.states.apply(Offset(0), &emptied, at(0));
    partition.end = Offset(3);
    check(
        &mut partition,
        &[
            (plain(A, 1, 10, 3), Again(0)),
            (plain(A, 1, 14, 1), OUT_OF_ORDER),
            (plain(A, 1, 13, 1), At(3)),
        ],
    );
}

#[test]
fn d01_a_snapshot_keeps_all_five_batches() {
    let mut partition = Partition::new();
    for sequence in 0..6 {
        partition.produce(plain(A, 0, sequence, 1));
    }
    let (states, valid_at) = ProducerStates::restore(&partition.image(), 9).expect("own bytes");
    assert_eq!(valid_at, Offset(6));
    partition.states = states;
    for sequence in 1..6 {
        let again = partition.produce(plain(A, 0, sequence, 1));
        assert_eq!(again, Again(i64::from(sequence)));
    }
    check(&mut partition, &[(plain(A, 0, 0, 1), OUT_OF_ORDER)]);
}

#[test]
fn p60_a_snapshot_keeps_transactions_epochs_and_times() {
    let mut partition = Partition::new();
    partition.now = at(1234);
    check(
        &mut partition,
        &[
            (transactional(A, 3, 0, 2), At(0)),
            (transactional(B, 0, 5, 1), At(2)),
        ],
    );
    partition.end(marker(B, 0, false));
    let (states, _) = ProducerStates::restore(&partition.image(), 9).expect("own bytes");
    states.check_invariants();
    assert_eq!(states.describe(), partition.states.describe());
    assert_eq!(states.first_unstable(), Some(Offset(0)));
    assert_eq!(states.snapshot(partition.end), partition.image());
}

#[test]
fn p61_a_damaged_snapshot_is_an_error() {
    let mut partition = Partition::new();
    check(&mut partition, &[(transactional(A, 0, 0, 2), At(0))]);
    let image = partition.image();
    for position in 0..image.len() {
        for bit in 0..8 {
            let mut damaged = image.clone();
            damaged[position] ^= 1 << bit;
            let error = ProducerStates::restore(&damaged, 0).err();
            assert!(error.is_some(), "bit {bit} of byte {position}");
        }
        let cut = ProducerStates::restore(&image[..position], 0).err();
        assert!(cut.is_some(), "cut at {position}");
    }
    let mut longer = image.clone();
    longer.push(0);
    assert_eq!(
        ProducerStates::restore(&longer, 0).err(),
        Some(SnapshotError::BadCrc)
    );
    let mut newer = image;
    newer[5] = 2;
    assert_eq!(
        ProducerStates::restore(&newer, 0).err(),
        Some(SnapshotError::UnsupportedVersion(2))
    );
}
