//! What partitions answer to markers, and how long EndTxn waits for them (M-11, D-7, E-4, E-8).

use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionRecord, TransactionState};
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tally_transactions::{Command, Flow, MarkerSet, ReplyTo};

use TransactionState::{CompleteCommit, Ongoing, PrepareCommit};

use crate::world::{ID, World, add, at_epoch, brief, end, names, partition, value};

fn committing() -> (World, ReplyTo, MarkerSet) {
    let mut world = World::given(value(Ongoing));
    let to = world.send(end((1, 5), true, Flow::Tv2));
    let set = world.take_markers();
    (world, to, set)
}

fn written(set: &MarkerSet, pair: (i64, i16), answers: &[(&str, ErrorCode)]) -> Command {
    Command::MarkersWritten {
        transactional_id: Arc::from(ID),
        producer_id: ProducerId(pair.0),
        producer_epoch: ProducerEpoch(pair.1),
        ending: set.ending,
        partitions: answers
            .iter()
            .map(|(p, code)| (partition(p), *code))
            .collect(),
    }
}

#[test]
fn m11_codes_that_end_a_marker_and_codes_that_repeat_it() {
    use ErrorCode as E;
    let ends = [
        (E::None, 0),
        (E::UnknownTopicOrPartition, 0), // E-8
        (E::InvalidProducerEpoch, 2),    // D-7: both partitions, counted
    ];
    for (code, counted) in ends {
        let (mut world, to, set) = committing();
        world.answer(&set, code);
        assert_eq!(world.state(), CompleteCommit, "{code:?}");
        assert!(world.reply(to).is_some());
        assert_eq!(world.core.counters().markers_refused, counted);
    }
    for code in [
        E::NotLeaderOrFollower,
        E::NotEnoughReplicas,
        E::NotEnoughReplicasAfterAppend,
        E::RequestTimedOut,
        E::KafkaStorageError,
        E::TransactionCoordinatorFenced,
        E::UnknownServerError,
    ] {
        let (mut world, to, set) = committing();
        world.answer(&set, code);
        assert_eq!(world.state(), PrepareCommit, "{code:?}");
        world.expire();
        assert!(world.markers.is_empty(), "not before the backoff");
        world.advance(50);
        world.expire();
        assert_eq!(world.take_markers(), set, "{code:?}");
        world.answer(&set, E::None);
        assert!(world.reply(to).is_some());
        assert_eq!(world.core.counters().markers_repeated, 2);
    }
}

#[test]
fn m11_only_the_missing_partitions_are_asked_again() {
    let (mut world, to, set) = committing();
    world.send(written(&set, (1, 6), &[("t-0", ErrorCode::None)]));
    let described = world.core.describe(ID).expect("known");
    assert_eq!(names(&described.partitions), ["t-1"]);
    world.send(written(
        &set,
        (1, 6),
        &[("t-1", ErrorCode::KafkaStorageError)],
    ));
    world.advance(50);
    world.expire();
    let set = world.take_markers();
    assert_eq!(names(&set.partitions), ["t-1"]);
    world.answer(&set, ErrorCode::None);
    assert_eq!(brief(&world.reply(to).expect("answered")), "(1,6)");
}

#[test]
fn m11_the_wait_doubles_up_to_a_second() {
    let (mut world, _, mut set) = committing();
    let mut waits = Vec::new();
    for _ in 0..7 {
        world.answer(&set, ErrorCode::KafkaStorageError);
        let before = world.now.monotonic_ms;
        while world.markers.is_empty() {
            world.advance(10);
            world.expire();
        }
        waits.push(world.now.monotonic_ms - before);
        set = world.take_markers();
    }
    assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
}

#[test]
fn e4_after_a_second_end_txn_is_answered_and_the_markers_go_on() {
    let (mut world, to, set) = committing();
    world.advance(999);
    world.expire();
    assert_eq!(world.reply(to), None);
    world.advance(1);
    assert!(world.core.next_deadline_ms() <= Some(world.now.monotonic_ms));
    world.expire();
    assert_eq!(brief(&world.reply(to).expect("answered")), "(1,6)");
    assert_eq!(world.state(), PrepareCommit);
    assert_eq!(brief(&world.ask(add((1, 6), &["t-0"], Flow::Tv2))), "51");
    world.answer(&set, ErrorCode::None);
    assert_eq!(world.state(), CompleteCommit);
    assert!(world.reply(to).is_some(), "answered once");
}

#[test]
fn e4_the_early_answer_of_a_rotation_names_the_new_pid() {
    let mut world = World::given(at_epoch(value(Ongoing), 32766, 32765));
    let to = world.send(end((1, 32766), true, Flow::Tv2));
    world.advance(1000);
    world.expire();
    assert_eq!(brief(&world.reply(to).expect("answered")), "(100,0)");
    world.write_markers();
    assert_eq!(world.pair(), (100, 0));
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let (mut world, to, set) = committing();
    let stale = [
        written(
            &set,
            (1, 5),
            &[("t-0", ErrorCode::None), ("t-1", ErrorCode::None)],
        ),
        written(
            &set,
            (2, 6),
            &[("t-0", ErrorCode::None), ("t-1", ErrorCode::None)],
        ),
        written(
            &set,
            (1, 6),
            &[
                ("t-8", ErrorCode::None),
                ("u-0", ErrorCode::KafkaStorageError),
            ],
        ),
        written(&set, (1, 6), &[]),
    ];
    for command in stale.clone() {
        world.send(command);
        assert_eq!(world.state(), PrepareCommit);
    }
    world.answer(&set, ErrorCode::None);
    assert!(world.reply(to).is_some());
    let records = world.log.len();
    world.answer(&set, ErrorCode::None);
    for command in stale {
        world.send(command);
    }
    assert_eq!(world.log.len(), records);
    let mut empty = World::new();
    empty.answer(&set, ErrorCode::None);
    assert!(empty.log.is_empty());
}

#[test]
fn s2_complete_that_finds_no_room_is_decided_again() {
    let (mut world, to, set) = committing();
    let answers: Vec<_> = set
        .partitions
        .iter()
        .map(|p| (p.clone(), ErrorCode::None))
        .collect();
    let dropped = world.send_without_room(Command::MarkersWritten {
        transactional_id: Arc::clone(&set.transactional_id),
        producer_id: set.producer_id,
        producer_epoch: set.producer_epoch,
        ending: set.ending,
        partitions: answers,
    });
    assert_eq!(dropped.records.len(), 1);
    assert_eq!(world.state(), PrepareCommit);
    world.advance(1000);
    world.expire();
    assert_eq!(world.state(), CompleteCommit);
    assert_eq!(brief(&world.reply(to).expect("answered")), "(1,6)");
    let next_ms = world
        .core
        .next_deadline_ms()
        .expect("the search for expired ids");
    assert!(next_ms > world.now.monotonic_ms + 1_000_000);
}

/// What left its timer must not go down with records that find no room.
#[test]
fn s2_markers_sent_again_are_a_decision_of_their_own() {
    let (mut world, to, set) = committing();
    let mut other = value(Ongoing);
    other.producer_id = ProducerId(7);
    world.log.push(TransactionRecord {
        transactional_id: Arc::from("y"),
        value: Some(other),
    });
    world.restart();
    let again = world.take_markers();
    assert_eq!(names(&again.partitions), names(&set.partitions));
    world.answer(&again, ErrorCode::KafkaStorageError);
    world.advance(100_000);
    let first = world.core.expire(world.now, &mut world.ids);
    assert_eq!((first.records.len(), first.effects.len()), (0, 1));
    world.run(first);
    let dropped = world.core.expire(world.now, &mut world.ids);
    assert_eq!((dropped.records.len(), dropped.effects.len()), (1, 1));
    world.write_markers();
    assert_eq!(world.state(), CompleteCommit);
    assert_eq!(
        world.reply(to),
        None,
        "the answer was lost with the earlier life"
    );
}

/// A TV1 client keeps pid and epoch: what was answered to the markers of one transaction says nothing of the next.
#[test]
fn m11_late_answers_are_not_taken_for_those_of_the_next_transaction() {
    let mut world = World::given(value(Ongoing));
    world.send(end((1, 5), true, Flow::Tv1));
    let before_reload = world.take_markers();
    world.restart();
    let after_reload = world.take_markers();
    assert_ne!(before_reload.ending, after_reload.ending);
    world.answer(&before_reload, ErrorCode::None);
    assert_eq!(world.state(), PrepareCommit, "of an earlier life");
    world.answer(&after_reload, ErrorCode::None);
    assert_eq!(world.state(), CompleteCommit);
    world.ask(add((1, 5), &["t-0", "t-1"], Flow::Tv1));
    world.send(end((1, 5), true, Flow::Tv1));
    for late in [before_reload, after_reload] {
        world.answer(&late, ErrorCode::None);
        assert_eq!(world.state(), PrepareCommit, "of the transaction before");
    }
    world.write_markers();
    assert_eq!(world.state(), CompleteCommit);
}
