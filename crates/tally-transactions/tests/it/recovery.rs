//! Crashes: a kill after any record, and what is owed afterwards (S-9, D-13, CR-9, CR-12 to CR-20).

use tally_protocol::records::transaction_log::TransactionState;
use tally_transactions::{Command, Flow};

use TransactionState::{
    CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit,
};

use crate::world::{World, add, at_epoch, brief, end, init, names, value, verify};

#[test]
fn s9_every_prepare_is_completed_again() {
    for (state, commit, completed) in [
        (PrepareCommit, true, CompleteCommit),
        (PrepareAbort, false, CompleteAbort),
    ] {
        let mut world = World::given(value(state));
        let set = world.take_markers();
        assert_eq!(set.commit, commit);
        assert_eq!((set.producer_id.0, set.producer_epoch.0), (1, 5));
        assert_eq!(set.transaction_version, 2);
        assert_eq!(names(&set.partitions), ["t-0", "t-1"]);
        assert_eq!(brief(&world.ask(init())), "51"); // D-13
        world.answer(&set, tally_protocol::ErrorCode::None);
        assert_eq!(world.state(), completed);
    }
}

#[test]
fn s9_a_prepare_without_partitions_is_completed_at_once() {
    let mut given = value(PrepareAbort);
    given.partitions.clear();
    let mut world = World::given(given);
    assert_eq!(brief(&world.ask(init())), "51");
    world.expire();
    assert_eq!(world.state(), CompleteAbort);
    assert!(world.markers.is_empty());
}

#[test]
fn s9_other_states_owe_nothing() {
    for state in [Empty, Ongoing, CompleteCommit, CompleteAbort] {
        let world = World::given(value(state));
        assert!(world.markers.is_empty());
        assert_eq!(world.log.len(), 1);
    }
}

/// A runner without room for records at the start calls `expire` instead.
#[test]
fn d13_until_recovered_the_ids_answer_14() {
    for state in [Empty, Ongoing, PrepareCommit] {
        let mut world = World::new();
        world.load(value(state));
        for command in [
            init(),
            add((1, 5), &["t-0"], Flow::Tv1),
            verify((1, 5), &["t-0"]),
            end((1, 5), true, Flow::Tv2),
        ] {
            assert_eq!(brief(&world.ask_loading(command)), "14");
        }
        assert_eq!(world.core.next_deadline_ms(), Some(0));
        world.expire();
        world.write_markers();
        assert_ne!(brief(&world.ask(init())), "14");
    }
}

#[test]
fn cr23_a_crash_during_recovery_changes_nothing() {
    let mut world = World::given(value(PrepareCommit));
    let first = world.markers.clone();
    for _ in 0..3 {
        world.restart();
        assert_eq!(world.markers.len(), 1);
        assert_eq!(world.markers[0].partitions, first[0].partitions);
    }
    assert!(world.markers[0].coordinator_epoch > first[0].coordinator_epoch); // M-5
}

/// Runs a life, then kills it after each of its records: a decided outcome comes to be, an open transaction stays open.
#[track_caller]
fn check_every_crash_point(given: World, commands: &[Command]) {
    let mut world = given;
    for command in commands {
        world.send(command.clone());
        world.write_markers();
    }
    for cut in 1..=world.log.len() {
        let mut again = World::new();
        again.log = world.log[..cut].to_vec();
        again.restart();
        again.write_markers();
        again.expire();
        let last = world.log[cut - 1]
            .value
            .clone()
            .expect("no tombstones here");
        let expected = match last.state {
            PrepareCommit => CompleteCommit,
            PrepareAbort => CompleteAbort,
            other => other,
        };
        assert_eq!(again.state(), expected, "killed after {cut} records");
        if matches!(last.state, PrepareCommit | PrepareAbort) {
            // What the undisturbed life wrote next is what recovery comes to.
            let next = world.log[cut].value.as_ref().expect("no tombstones here");
            assert_eq!(again.value(), next, "killed after {cut} records");
        } else {
            assert_eq!(*again.value(), last);
        }
    }
}

#[test]
fn cr12_to_cr17_tv1() {
    let life: Vec<_> = [true, false, true]
        .into_iter()
        .flat_map(|commit| {
            [
                add((1, 5), &["t-0"], Flow::Tv1),
                add((1, 5), &["u-0"], Flow::Tv1),
                end((1, 5), commit, Flow::Tv1),
            ]
        })
        .collect();
    check_every_crash_point(World::given(value(Empty)), &life);
}

#[test]
fn cr12_to_cr17_tv2_over_a_rotation() {
    let mut life = Vec::new();
    for (pair, commit) in [((1, 32765), true), ((1, 32766), false), ((100, 0), true)] {
        life.push(add(pair, &["t-0"], Flow::Tv2));
        life.push(add(pair, &["u-0"], Flow::Tv2));
        life.push(end(pair, commit, Flow::Tv2));
    }
    life.push(end((100, 1), false, Flow::Tv2)); // the empty abort: Prepare and Complete in one batch
    check_every_crash_point(World::given(at_epoch(value(Empty), 32765, -1)), &life);
}

#[test]
fn cr20_fence() {
    let life = [add((1, 5), &["t-0"], Flow::Tv1), init(), init()];
    check_every_crash_point(World::given(value(Empty)), &life);
}

#[test]
fn cr16_a_retry_after_complete_is_answered_as_before() {
    let mut world = World::given(value(Ongoing));
    world.send(end((1, 5), true, Flow::Tv2));
    world.write_markers();
    world.restart();
    assert_eq!(brief(&world.ask(end((1, 5), true, Flow::Tv2))), "(1,6)");
    let mut world = World::given(value(Ongoing));
    world.send(end((1, 5), false, Flow::Tv1));
    world.write_markers();
    world.restart();
    assert_eq!(brief(&world.ask(end((1, 5), false, Flow::Tv1))), "(1,5)");
}
