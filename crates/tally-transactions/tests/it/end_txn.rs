//! The ends of transactions: what is recorded, what the markers carry, what is answered (E-1 to E-6).

use tally_protocol::records::transaction_log::TransactionState;
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tally_transactions::{Flow, Reason};

use TransactionState::{
    CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort, PrepareCommit,
};

use crate::world::{ID, WALL_MS, World, add, at_epoch, brief, end, init, names, value};

fn states(world: &World, from: usize) -> Vec<TransactionState> {
    let values = world.log[from..].iter().filter_map(|r| r.value.as_ref());
    values.map(|value| value.state).collect()
}

#[test]
fn e5_prepare_then_markers_then_complete_then_the_answer() {
    for (commit, prepared, completed) in [
        (true, PrepareCommit, CompleteCommit),
        (false, PrepareAbort, CompleteAbort),
    ] {
        let mut world = World::given(value(Ongoing));
        let to = world.send(end((1, 5), commit, Flow::Tv1));
        assert_eq!(states(&world, 1), [prepared]);
        assert_eq!(world.reply(to), None);
        let set = world.take_markers();
        assert_eq!(set.commit, commit);
        assert_eq!(set.transaction_version, 0);
        assert_eq!(set.coordinator_epoch.0, 2);
        assert_eq!((set.producer_id.0, set.producer_epoch.0), (1, 5));
        assert_eq!(names(&set.partitions), ["t-0", "t-1"]);
        world.answer(&set, ErrorCode::None);
        assert_eq!(states(&world, 1), [prepared, completed]);
        assert_eq!(brief(&world.reply(to).expect("answered")), "(1,5)"); // D-6
        assert!(world.value().partitions.is_empty());
    }
}

#[test]
fn e1_tv2_raises_the_epoch() {
    let mut world = World::given(at_epoch(value(Ongoing), 5, -1));
    let to = world.send(end((1, 5), true, Flow::Tv2));
    let set = world.take_markers();
    assert_eq!((set.producer_epoch.0, set.transaction_version), (6, 2));
    world.answer(&set, ErrorCode::None);
    assert_eq!(brief(&world.reply(to).expect("answered")), "(1,6)");
    assert_eq!(world.value().last_producer_epoch, ProducerEpoch(5));
    assert_eq!(world.value().client_transaction_version, 2);
    // the retry of an answered commit.
    assert_eq!(brief(&world.ask(end((1, 5), true, Flow::Tv2))), "(1,6)");
    assert_eq!(brief(&world.ask(end((1, 5), false, Flow::Tv2))), "48");
}

#[test]
fn tv1_keeps_the_epoch_over_transactions() {
    let mut world = World::given(value(Empty));
    for _ in 0..3 {
        world.ask(add((1, 5), &["t-0"], Flow::Tv1));
        let to = world.send(end((1, 5), true, Flow::Tv1));
        world.write_markers();
        assert_eq!(brief(&world.reply(to).expect("answered")), "(1,5)");
    }
    assert_eq!(world.value().last_producer_epoch, ProducerEpoch(4));
}

#[test]
fn e2_the_last_epoch_rotates_the_pid() {
    for commit in [true, false] {
        let mut world = World::given(at_epoch(value(Ongoing), 32766, 32765));
        let to = world.send(end((1, 32766), commit, Flow::Tv2));
        let prepared = world.value().clone();
        assert_eq!(prepared.producer_epoch, ProducerEpoch(32767));
        assert_eq!(prepared.next_producer_id, ProducerId(100));
        let set = world.take_markers();
        assert_eq!((set.producer_id.0, set.producer_epoch.0), (1, 32767));
        world.answer(&set, ErrorCode::None);
        assert_eq!(brief(&world.reply(to).expect("answered")), "(100,0)");
        assert_eq!(world.value().previous_producer_id, ProducerId(1));
        assert_eq!(world.value().last_producer_epoch, ProducerEpoch(32766));
        world.restart();
        let again = world.ask(end((1, 32766), commit, Flow::Tv2));
        assert_eq!(brief(&again), "(100,0)");
        assert_eq!(brief(&world.ask(init())), "(100,1)");
    }
}

#[test]
fn e2_one_epoch_earlier_nothing_rotates() {
    let mut world = World::given(at_epoch(value(Ongoing), 32765, -1));
    let to = world.send(end((1, 32765), true, Flow::Tv2));
    world.write_markers();
    assert_eq!(brief(&world.reply(to).expect("answered")), "(1,32766)");
}

#[test]
fn e3_an_abort_of_nothing_raises_the_epoch_without_markers() {
    for state in [Empty, CompleteCommit, CompleteAbort] {
        let mut world = World::given(value(state));
        world.advance(10);
        assert_eq!(brief(&world.ask(end((1, 5), false, Flow::Tv2))), "(1,6)");
        assert_eq!(states(&world, 1), [PrepareAbort, CompleteAbort]);
        assert!(world.markers.is_empty());
        assert_eq!(world.value().start_ms, WALL_MS + 10); // S-4
        assert_eq!(brief(&world.ask(end((1, 5), false, Flow::Tv2))), "(1,6)");
    }
}

#[test]
fn e3_an_abort_of_nothing_at_the_last_epoch_rotates_the_pid() {
    let mut world = World::given(at_epoch(value(Empty), 32766, 32765));
    let answer = world.ask(end((1, 32766), false, Flow::Tv2));
    assert_eq!(brief(&answer), "(100,0)");
    assert_eq!(
        world.log[1].value.as_ref().map(|v| v.producer_epoch.0),
        Some(32767)
    );
    let again = world.ask(end((1, 32766), false, Flow::Tv2));
    assert_eq!(brief(&again), "(100,0)");
}

#[test]
fn b1_a_delayed_tv2_end_does_not_touch_the_next_transaction() {
    let mut world = World::given(value(Ongoing));
    world.send(end((1, 5), true, Flow::Tv2));
    world.write_markers();
    world.ask(add((1, 6), &["t-0"], Flow::Tv2));
    for commit in [true, false] {
        assert_eq!(brief(&world.ask(end((1, 5), commit, Flow::Tv2))), "90");
    }
    assert_eq!((world.pair(), world.state()), ((1, 6), Ongoing));
}

#[test]
fn x108_while_markers_are_out_everything_waits() {
    let mut world = World::given(value(Ongoing));
    let to = world.send(end((1, 5), true, Flow::Tv1));
    for command in [
        end((1, 5), true, Flow::Tv1),
        end((1, 5), false, Flow::Tv1),
        end((1, 5), true, Flow::Tv2),
        add((1, 5), &["t-0"], Flow::Tv1),
        init(),
    ] {
        assert_eq!(brief(&world.ask(command)), "51");
    }
    assert_eq!(world.reply(to), None);
    world.write_markers();
    assert_eq!(brief(&world.reply(to).expect("answered")), "(1,5)");
}

#[test]
fn e6_a_decided_commit_is_not_turned_by_time_or_init_producer_id() {
    let mut world = World::given(value(Ongoing));
    world.send(end((1, 5), true, Flow::Tv1));
    for _ in 0..5 {
        world.advance(100_000);
        world.expire();
        assert_eq!(brief(&world.ask(init())), "51");
        assert_eq!(world.state(), PrepareCommit);
    }
    world.restart();
    assert!(world.take_markers().commit);
}

#[test]
fn s2_an_end_whose_record_finds_no_room_changes_nothing() {
    //
    let mut world = World::given(value(Ongoing));
    world.send_without_room(end((1, 5), true, Flow::Tv2));
    assert_eq!((world.pair(), world.state()), ((1, 5), Ongoing));
    let to = world.send(end((1, 5), true, Flow::Tv2));
    world.write_markers();
    assert_eq!(brief(&world.reply(to).expect("answered")), "(1,6)");
}

#[test]
fn b21_an_abort_by_the_client_is_remembered() {
    let mut world = World::given(value(Ongoing));
    assert_eq!(world.core.note(ID), None);
    world.send(end((1, 5), false, Flow::Tv1));
    let note = world.core.note(ID).expect("remembered");
    assert_eq!(
        (note.reason, note.at_ms),
        (Reason::AbortedByClient, WALL_MS)
    );
}
