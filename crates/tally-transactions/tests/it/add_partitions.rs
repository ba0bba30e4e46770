//! Joining and verifying.

use tally_protocol::records::transaction_log::TransactionState;
use tally_transactions::Flow;

use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing};

use crate::world::{ID, WALL_MS, World, add, brief, end, names, value, verify};

#[test]
fn a4_the_order_of_checks() {
    for (pair, expected) in [
        ((2, 5), "49"),
        ((2, 4), "49"),
        ((1, 4), "90"),
        ((1, 6), "90"),
    ] {
        for state in [Empty, Ongoing, CompleteCommit, CompleteAbort] {
            let mut world = World::given(value(state));
            let answer = world.ask(add(pair, &["t-0"], Flow::Tv1));
            assert_eq!(brief(&answer), expected);
            assert_eq!(world.log.len(), 1);
        }
    }
    // A pending move is looked at before pid and epoch.
    let mut world = World::given(value(TransactionState::PrepareCommit));
    assert_eq!(brief(&world.ask(add((2, 1), &["t-0"], Flow::Tv2))), "51");
}

#[test]
fn a4_partitions_are_merged_and_known_ones_cost_no_record() {
    let mut world = World::given(value(Empty));
    for (partitions, records) in [
        (&["t-0"][..], 1),
        (&["t-0"], 1),
        (&["t-0", "u-3"], 2),
        (&["u-3", "t-0"], 2),
        (&[], 2),
    ] {
        assert_eq!(brief(&world.ask(add((1, 5), partitions, Flow::Tv1))), "0");
        assert_eq!(world.log.len(), 1 + records, "{partitions:?}");
    }
    let description = world.core.describe(ID).expect("known");
    assert_eq!(names(&description.partitions), ["t-0", "u-3"]);
}

#[test]
fn a5_s4_the_version_and_the_start_of_the_transaction() {
    let mut world = World::given(value(CompleteAbort));
    world.advance(50);
    world.ask(add((1, 5), &["t-0"], Flow::Tv1));
    world.advance(50);
    assert_eq!(world.value().client_transaction_version, 0);
    world.ask(add((1, 5), &["t-1"], Flow::Tv2));
    assert_eq!(world.value().client_transaction_version, 2);
    assert_eq!(world.value().start_ms, WALL_MS + 50);
    assert_eq!(world.value().last_update_ms, WALL_MS + 100);
    assert_eq!(world.value().last_producer_epoch.0, 4);
}

#[test]
fn a7_no_partitions_open_a_transaction_that_ends_without_markers() {
    for flow in [Flow::Tv1, Flow::Tv2] {
        let mut world = World::given(value(Empty));
        assert_eq!(brief(&world.ask(add((1, 5), &[], flow))), "0");
        assert_eq!(world.state(), Ongoing);
        world.ask(end((1, 5), true, flow));
        assert_eq!(world.state(), CompleteCommit);
        assert!(world.markers.is_empty());
    }
}

#[test]
fn a8_verifying_answers_each_partition_and_writes_nothing() {
    let mut world = World::given(value(Ongoing));
    let rows = [
        ((1, 5), "0 120 0"),
        ((1, 4), "90"),
        ((1, 6), "90"),
        ((2, 5), "49"),
    ];
    for (pair, expected) in rows {
        let answer = world.ask(verify(pair, &["t-0", "t-7", "t-1"]));
        assert_eq!(brief(&answer), expected);
    }
    assert_eq!(world.log.len(), 1);
}
