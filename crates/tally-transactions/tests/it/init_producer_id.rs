//! InitProducerId: who may continue with which pair (I-6 to I-25).

use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionState, TransactionValue};
use tally_protocol::{ProducerEpoch, ProducerId};
use tally_transactions::{Command, Flow, Reason, Settings};

use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing};

use crate::world::{ID, WALL_MS, World, add, at_epoch, brief, end, init, init_with, names, value};

fn with_timeout(timeout_ms: i32) -> Command {
    Command::InitProducerId {
        transactional_id: Arc::from(ID),
        timeout_ms,
        expected: None,
    }
}

#[test]
fn i6_a_timeout_out_of_bounds_is_refused() {
    for (timeout_ms, expected) in [
        (0, "50"),
        (-1, "50"),
        (900_001, "50"),
        (i32::MAX, "50"),
        (900_000, "(100,0)"),
        (1, "(100,0)"),
    ] {
        let answer = World::new().ask(with_timeout(timeout_ms));
        assert_eq!(brief(&answer), expected, "{timeout_ms}");
    }
}

#[test]
fn i8_i10_a_new_id_gets_a_pid_and_then_epochs() {
    let mut world = World::new();
    for expected in ["(100,0)", "(100,1)", "(100,2)"] {
        assert_eq!(brief(&world.ask(init())), expected);
    }
    assert_eq!(world.value().last_producer_epoch, ProducerEpoch::NONE);
    assert_eq!(world.value().start_ms, -1);
    assert_eq!(world.value().last_update_ms, WALL_MS);
}

#[test]
fn i10_the_timeout_is_stored() {
    let mut world = World::new();
    world.ask(with_timeout(1000));
    world.ask(with_timeout(2000));
    assert_eq!(world.value().timeout_ms, 2000);
}

#[test]
fn i22_without_a_pid_the_answer_is_14() {
    let mut world = World::new();
    world.ids.end = world.ids.next;
    assert_eq!(brief(&world.ask(init())), "14");
    let mut world = World::given(at_epoch(value(Empty), 32766, 32765));
    world.ids.end = world.ids.next;
    assert_eq!(brief(&world.ask(init())), "14");
    assert_eq!(world.log.len(), 1);
}

/// I-11 to I-19 with an expected pair: state, current epoch, last epoch, pair of the request, answer.
#[test]
fn i11_to_i19_the_expected_pair() {
    let idle = [Empty, CompleteCommit, CompleteAbort];
    let rows = [
        (5, 4, (2, 5), "90", "i11 another pid"),
        (5, 4, (1, 5), "(1,6)", "i14 the current pair"),
        (5, -1, (1, 5), "(1,6)", "i14 the current pair"),
        (5, 4, (1, 4), "(1,5)", "i15 retry"),
        (5, -1, (1, 4), "90", "i16 stale"),
        (5, 4, (1, 3), "90", "i16 stale"),
        (5, 4, (1, 6), "90", "i16 from nowhere"),
        (5, -1, (1, -1), "90", "no pair of -1 is the last one"),
        (32765, 4, (1, 32765), "(1,32766)", "i14 up to the last"),
        (32766, 4, (1, 32766), "(100,0)", "i17 rotation"),
        (32766, 32765, (1, 32765), "(1,32766)", "i18 d5 retry"),
        (32766, 32765, (1, 32764), "90", "i16 stale"),
        (32767, -1, (1, 32766), "90", "s13 fenced at the end"),
    ];
    for (epoch, last, pair, expected, rule) in rows {
        for state in idle {
            let mut world = World::given(at_epoch(value(state), epoch, last));
            let answer = world.ask(init_with(pair.0, pair.1));
            assert_eq!(brief(&answer), expected, "{rule} in {state:?}");
            let after = if expected == "90" { state } else { Empty };
            assert_eq!(world.state(), after, "{rule}");
        }
    }
}

#[test]
fn i15_a_retry_keeps_the_last_epoch_over_a_restart() {
    let mut world = World::given(value(Empty));
    assert_eq!(brief(&world.ask(init_with(1, 5))), "(1,6)");
    for _ in 0..2 {
        world.restart();
        assert_eq!(brief(&world.ask(init_with(1, 5))), "(1,6)"); // D-3, X-077
    }
}

/// Of the old flow: the client has sent the request twice, and the first copy comes when its next transaction has ended.
#[test]
fn i15_a_late_copy_does_not_hide_how_the_transaction_ended() {
    for (epoch, pair) in [(5, (1, 6)), (32766, (100, 0))] {
        for (commit, state) in [(true, CompleteCommit), (false, CompleteAbort)] {
            let mut world = World::given(at_epoch(value(Empty), epoch, -1));
            let granted = format!("({},{})", pair.0, pair.1);
            assert_eq!(brief(&world.ask(init_with(1, epoch))), granted);
            assert_eq!(brief(&world.ask(add(pair, &["t-0"], Flow::Tv1))), "0");
            world.send(end(pair, commit, Flow::Tv1));
            world.write_markers();
            assert_eq!(world.state(), state);
            world.restart();
            assert_eq!(brief(&world.ask(init_with(1, epoch))), granted);
            assert_eq!(world.state(), state);
            let again = world.ask(end(pair, commit, Flow::Tv1));
            assert_eq!(brief(&again), granted, "the answer was lost");
            let other = world.ask(end(pair, !commit, Flow::Tv1));
            assert_eq!(brief(&other), "48");
        }
    }
}

#[test]
fn i17_i19_rotation_and_its_retry() {
    let mut world = World::given(at_epoch(value(Empty), 32766, -1));
    for _ in 0..2 {
        assert_eq!(brief(&world.ask(init_with(1, 32766))), "(100,0)");
        world.restart();
    }
    assert_eq!(world.value().previous_producer_id, ProducerId(1));
    assert_eq!(world.value().last_producer_epoch, ProducerEpoch(32766));
    assert_eq!(brief(&world.ask(init_with(1, 32765))), "90");
    // A newer producer forgets what could be retried.
    assert_eq!(brief(&world.ask(init())), "(100,1)");
    assert_eq!(brief(&world.ask(init_with(1, 32766))), "90");
}

#[test]
fn i17_rotation_without_a_pair_leaves_nothing_to_retry() {
    let mut world = World::given(at_epoch(value(Empty), 32766, 32765));
    assert_eq!(brief(&world.ask(init())), "(100,0)");
    assert_eq!(world.value().last_producer_epoch, ProducerEpoch::NONE);
    assert_eq!(brief(&world.ask(init_with(1, 32766))), "90");
}

/// The used-up pair of a pid long gone must not pass for the used-up pair of its successor.
#[test]
fn i11_a_previous_pid_at_the_current_epoch_is_fenced() {
    let mut world = World::given(TransactionValue {
        previous_producer_id: ProducerId(9),
        ..at_epoch(value(Empty), 32766, 32765)
    });
    assert_eq!(brief(&world.ask(init_with(9, 32766))), "90");
}

#[test]
fn i13_an_open_transaction_is_fenced_and_the_retry_gets_two_more() {
    let mut world = World::given(value(Ongoing));
    assert_eq!(brief(&world.ask(init())), "51");
    assert_eq!(brief(&world.ask(init())), "51");
    let set = world.take_markers();
    assert_eq!((set.producer_id.0, set.producer_epoch.0), (1, 6));
    assert!(!set.commit);
    assert_eq!(set.transaction_version, 2);
    assert_eq!(names(&set.partitions), ["t-0", "t-1"]);
    world.answer(&set, tally_protocol::ErrorCode::None);
    assert_eq!((world.pair(), world.state()), ((1, 6), CompleteAbort));
    assert_eq!(brief(&world.ask(init())), "(1,7)");
    let note = world.core.note(ID).expect("a fence is remembered");
    assert_eq!(note.reason, Reason::FencedByInitProducerId);
    assert_eq!(note.producer_epoch, ProducerEpoch(5));
}

#[test]
fn i13_a_pair_that_is_current_fences_its_own_transaction() {
    let mut world = World::given(value(Ongoing));
    assert_eq!(brief(&world.ask(init_with(1, 5))), "51");
    world.write_markers();
    assert_eq!(brief(&world.ask(init_with(1, 5))), "(1,6)"); // last = e by S-14
}

#[test]
fn d4_a_stale_pair_never_aborts_a_running_transaction() {
    for pair in [(1, 4), (1, 3), (1, 6), (2, 5)] {
        let mut world = World::given(value(Ongoing));
        assert_eq!(brief(&world.ask(init_with(pair.0, pair.1))), "90");
        assert_eq!((world.pair(), world.state()), ((1, 5), Ongoing));
        assert!(world.markers.is_empty());
    }
}

#[test]
fn s13_a_fence_below_transaction_version_2() {
    for version in [0, 1] {
        let settings = Settings {
            transaction_version: version,
            ..Settings::default()
        };
        let mut world = World::with(settings).and_given(at_epoch(value(Ongoing), 32766, 32765));
        assert_eq!(brief(&world.ask(init())), "51");
        let set = world.take_markers();
        assert_eq!((set.producer_id.0, set.producer_epoch.0), (1, 32767));
        assert_eq!(i16::from(set.transaction_version), version);
        world.answer(&set, tally_protocol::ErrorCode::None);
        assert_eq!(world.pair(), (1, 32767));
        assert_eq!(world.value().last_producer_epoch, ProducerEpoch::NONE);
        assert_eq!(brief(&world.ask(init())), "(100,0)"); // I-17, I-21
    }
}

#[test]
fn s14_a_fence_at_the_last_epoch_rotates_the_pid() {
    let mut world = World::given(at_epoch(value(Ongoing), 32766, 32765));
    assert_eq!(brief(&world.ask(init())), "51");
    let set = world.take_markers();
    assert_eq!((set.producer_id.0, set.producer_epoch.0), (1, 32767));
    world.answer(&set, tally_protocol::ErrorCode::None);
    assert_eq!((world.pair(), world.state()), ((100, 0), CompleteAbort));
    assert_eq!(world.value().previous_producer_id, ProducerId(1));
    assert_eq!(world.value().last_producer_epoch, ProducerEpoch(32766));
    assert_eq!(world.value().next_producer_id, ProducerId::NONE);
    assert_eq!(brief(&world.ask(init())), "(100,1)");
}

#[test]
fn s14_without_a_pid_the_transaction_goes_on() {
    let mut world = World::given(at_epoch(value(Ongoing), 32766, 32765));
    world.ids.end = world.ids.next;
    assert_eq!(brief(&world.ask(init())), "14");
    assert_eq!(world.state(), Ongoing);
    assert_eq!(brief(&world.ask(end((1, 32766), true, Flow::Tv2))), "14");
    assert_eq!(world.state(), Ongoing);
}

#[test]
fn s2_a_fence_whose_record_finds_no_room_changes_nothing() {
    let mut world = World::given(value(Ongoing));
    world.send_without_room(init());
    assert_eq!((world.pair(), world.state()), ((1, 5), Ongoing));
    world.send(end((1, 5), true, Flow::Tv2));
    world.write_markers();
    assert_eq!((world.pair(), world.state()), ((1, 6), CompleteCommit));
}

#[test]
fn s10_a_pair_of_an_expired_id_is_accepted() {
    let mut world = World::new();
    assert_eq!(brief(&world.ask(init_with(55, 3))), "(100,0)");
    assert_eq!(brief(&world.ask(add((55, 3), &["t-0"], Flow::Tv1))), "49");
}

#[test]
fn b21_who_took_an_id_over_is_remembered() {
    let mut world = World::new();
    world.ask(init());
    assert_eq!(world.core.note(ID), None, "there was nobody before");
    world.ask(init_with(100, 0));
    assert_eq!(world.core.note(ID), None, "it was its own pair");
    world.ask(init());
    let note = world.core.note(ID).expect("remembered");
    assert_eq!((note.reason, note.at_ms), (Reason::TakenOver, WALL_MS));
    assert_eq!(
        (note.producer_id, note.producer_epoch),
        (ProducerId(100), ProducerEpoch(1))
    );
}

#[test]
fn b21_the_reason_of_a_fence_is_not_lost_to_who_comes_next() {
    let mut world = World::given(value(Ongoing));
    world.ask(init());
    world.write_markers();
    world.ask(init());
    let note = world.core.note(ID).expect("remembered");
    assert_eq!(note.reason, Reason::FencedByInitProducerId);
    assert_eq!(note.producer_epoch, ProducerEpoch(5));
    // That one had a pair, and lost it too.
    world.ask(init());
    let note = world.core.note(ID).expect("remembered");
    assert_eq!(note.reason, Reason::TakenOver);
    assert_eq!(note.producer_epoch, ProducerEpoch(7));
}
