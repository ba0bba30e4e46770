//! What administrators read (L-1, L-2).

use std::sync::Arc;

use tally_protocol::ProducerId;
use tally_protocol::records::transaction_log::{TransactionRecord, TransactionState};
use tally_transactions::ListFilter;

use TransactionState::{CompleteCommit, Empty, Ongoing, PrepareCommit};

use crate::world::{ID, WALL_MS, World, names, value};

fn world() -> World {
    let mut world = World::new();
    for (number, state) in [Empty, Ongoing, PrepareCommit, CompleteCommit]
        .into_iter()
        .enumerate()
    {
        let mut given = value(state);
        given.producer_id = ProducerId(i64::try_from(number).expect("small"));
        if state == CompleteCommit {
            given.start_ms = WALL_MS - 20_000;
        }
        world.log.push(TransactionRecord {
            transactional_id: Arc::from(format!("id-{number}")),
            value: Some(given),
        });
    }
    world.restart();
    world
}

#[test]
fn l2_filters_are_joined_by_and() {
    let world = world();
    let all = ListFilter::default();
    let states = |states: &[TransactionState]| ListFilter {
        states: Some(states.to_vec()),
        ..ListFilter::default()
    };
    let longer = |ms| ListFilter {
        longer_than_ms: Some(ms),
        ..ListFilter::default()
    };
    let both = ListFilter {
        producer_ids: Some(vec![ProducerId(1), ProducerId(9)]),
        ..states(&[Ongoing, Empty])
    };
    for (filter, expected) in [
        (all, &["id-0", "id-1", "id-2", "id-3"][..]),
        (states(&[Ongoing]), &["id-1"]),
        (states(&[]), &[]),
        (both, &["id-1"]),
        (longer(10_000), &["id-0", "id-3"]),
        (longer(-1), &["id-0", "id-1", "id-2", "id-3"]),
    ] {
        let listed: Vec<_> = world
            .core
            .list(world.now, &filter)
            .map(|row| row.transactional_id.to_string())
            .collect();
        assert_eq!(listed, expected, "{filter:?}");
    }
}

#[test]
fn l1_a_description() {
    let world = world();
    let open = world.core.describe("id-1").expect("known");
    assert_eq!(
        (open.state, open.start_ms, open.timeout_ms),
        (Ongoing, WALL_MS, 60_000)
    );
    assert_eq!(names(&open.partitions), ["t-0", "t-1"]);
    let empty = world.core.describe("id-0").expect("known");
    assert_eq!((empty.state, empty.start_ms), (Empty, -1));
    assert_eq!(empty.partitions, []);
    assert_eq!(world.core.describe(ID), None);
}
