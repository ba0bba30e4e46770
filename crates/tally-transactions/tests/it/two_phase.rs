//! Transactions that an outside coordinator decides (KIP-939, T-1): they are handed over to the next producer of their id, which
//! may do nothing but end them.

use std::sync::Arc;

use tally_protocol::records::transaction_log::{TransactionState, TransactionValue};
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tally_transactions::{Command, Flow, Response, TopicPartition, TwoPhase};

use crate::world::{ID, World, value};

type Pair = (i64, i16);

fn pair((id, epoch): Pair) -> (ProducerId, ProducerEpoch) {
    (ProducerId(id), ProducerEpoch(epoch))
}

/// InitProducerId v6.
fn init(expected: Option<Pair>, is_enabled: bool, keeps_prepared: bool) -> Command {
    Command::InitTwoPhase {
        transactional_id: Arc::from(ID),
        timeout_ms: 60_000,
        expected: expected.map(pair),
        two_phase: TwoPhase {
            is_enabled,
            keeps_prepared,
        },
    }
}

fn end(who: Pair, commit: bool, flow: Flow) -> Command {
    Command::EndTxn {
        transactional_id: Arc::from(ID),
        producer_id: pair(who).0,
        producer_epoch: pair(who).1,
        commit,
        flow,
    }
}

fn add(who: Pair) -> Command {
    Command::AddPartitions {
        transactional_id: Arc::from(ID),
        producer_id: pair(who).0,
        producer_epoch: pair(who).1,
        partitions: vec![TopicPartition {
            topic: Arc::from("t"),
            partition: 0,
        }],
        flow: Flow::Tv2,
    }
}

fn handed_over(producer: Pair, ongoing: Pair) -> Response {
    Response::HandedOver {
        producer: pair(producer),
        ongoing: pair(ongoing),
    }
}

/// Pid 1 with an open transaction at this epoch.
fn open_at(epoch: i16) -> World {
    let mut world = World::given(TransactionValue {
        producer_epoch: ProducerEpoch(epoch),
        last_producer_epoch: ProducerEpoch(epoch - 1),
        ..value(TransactionState::Ongoing)
    });
    world.markers.clear();
    world
}

#[test]
fn t1_an_open_transaction_is_handed_over_and_stays_as_it_is() {
    let mut world = open_at(5);
    let before = world.value().clone();
    let answer = world.ask(init(None, true, true));
    assert_eq!(answer, handed_over((1, 6), (1, 5)));
    let expected = TransactionValue {
        next_producer_id: ProducerId(1),
        next_producer_epoch: ProducerEpoch(6),
        timeout_ms: i32::MAX,
        ..before
    };
    assert_eq!(*world.value(), expected);
    // Again, as after another crash of its owner, and over restarts of the broker.
    for epoch in [7, 8] {
        world.restart();
        let answer = world.ask(init(None, true, true));
        assert_eq!(answer, handed_over((1, epoch), (1, 5)));
    }
    assert!(world.markers.is_empty(), "nothing was aborted");
}

#[test]
fn t1_its_owner_ends_it_with_the_pair_it_was_given() {
    for commit in [true, false] {
        let mut world = open_at(5);
        world.ask(init(None, true, true));
        world.restart();
        let ended = world.send(end((1, 6), commit, Flow::Tv2));
        let markers = world.take_markers();
        assert_eq!(markers.commit, commit);
        // Above the epoch of the data, so that who wrote it is fenced on every partition.
        assert_eq!((markers.producer_id, markers.producer_epoch), pair((1, 6)));
        world.answer(&markers, ErrorCode::None);
        let next = Response::EndTxn(Ok(pair((1, 7))));
        assert_eq!(world.reply(ended), Some(next.clone()));
        assert_eq!(world.pair(), (1, 7));
        assert_eq!(world.value().next_producer_id, ProducerId::NONE);
        // The retry, over a restart too.
        world.restart();
        assert_eq!(world.ask(end((1, 6), commit, Flow::Tv2)), next);
        let other = world.ask(end((1, 6), !commit, Flow::Tv2));
        assert_eq!(other, Response::EndTxn(Err(ErrorCode::InvalidTxnState)));
    }
}

#[test]
fn t1_the_old_flow_ends_it_too() {
    let mut world = open_at(5);
    world.ask(init(None, true, true));
    world.ask(init(Some((1, 6)), true, true));
    let ended = world.send(end((1, 7), true, Flow::Tv1));
    let markers = world.take_markers();
    assert_eq!(markers.producer_epoch, ProducerEpoch(6));
    world.answer(&markers, ErrorCode::None);
    let same = Response::EndTxn(Ok(pair((1, 7))));
    assert_eq!(world.reply(ended), Some(same.clone()));
    assert_eq!(world.ask(end((1, 7), true, Flow::Tv1)), same, "the retry");
}

/// Of its writer (1,5) the pair before, (1,4), was good for a retry of InitProducerId.
#[test]
fn t1_what_its_writer_could_repeat_does_not_give_its_owners_pair() {
    for flow in [Flow::Tv1, Flow::Tv2] {
        let mut world = World::given(value(TransactionState::Ongoing));
        world.ask(init(None, true, true));
        world.send(end((1, 6), true, flow));
        world.write_markers();
        for stale in [(1, 4), (1, 5)] {
            let answer = world.ask(init(Some(stale), false, false));
            let fenced = Response::InitProducerId(Err(ErrorCode::ProducerFenced));
            assert_eq!(answer, fenced, "{stale:?} after {flow:?}");
        }
    }
}

#[test]
fn t1_nobody_else_ends_it_and_nothing_joins_it() {
    let mut world = open_at(5);
    world.ask(init(None, true, true));
    world.ask(init(None, true, true));
    let records = world.log.len();
    for stale in [(1, 5), (1, 6), (1, 8)] {
        for flow in [Flow::Tv1, Flow::Tv2] {
            let answer = world.ask(end(stale, true, flow));
            assert_eq!(answer, Response::EndTxn(Err(ErrorCode::ProducerFenced)));
        }
        let answer = world.ask(add(stale));
        assert_eq!(answer, Response::AddPartitions(ErrorCode::ProducerFenced));
        let answer = world.ask(init(Some(stale), true, true));
        assert_eq!(
            answer,
            Response::InitProducerId(Err(ErrorCode::ProducerFenced))
        );
    }
    let owner = world.ask(add((1, 7)));
    assert_eq!(owner, Response::AddPartitions(ErrorCode::InvalidTxnState));
    let verified = world.ask(Command::VerifyPartitions {
        transactional_id: Arc::from(ID),
        producer_id: ProducerId(1),
        producer_epoch: ProducerEpoch(5),
        partitions: Vec::new(),
    });
    assert_eq!(
        verified,
        Response::VerifyPartitions(Err(ErrorCode::ProducerFenced))
    );
    assert_eq!(world.log.len(), records);
}

#[test]
fn t1_it_never_times_out_where_that_was_asked_for() {
    for (is_enabled, state) in [
        (true, TransactionState::Ongoing),
        (false, TransactionState::CompleteAbort),
    ] {
        let mut world = open_at(5);
        world.ask(init(None, is_enabled, true));
        for _ in 0..3 {
            world.advance(40_000_000);
            world.expire();
            world.write_markers();
            world.restart();
            world.write_markers();
        }
        assert_eq!(world.state(), state, "two-phase: {is_enabled}");
    }
}

#[test]
fn t1_a_producer_that_does_not_keep_it_aborts_it() {
    let mut world = open_at(5);
    world.ask(init(None, true, true));
    let answer = world.ask(init(None, true, false));
    assert_eq!(
        answer,
        Response::InitProducerId(Err(ErrorCode::ConcurrentTransactions))
    );
    let markers = world.take_markers();
    assert!(!markers.commit);
    assert_eq!(markers.producer_epoch, ProducerEpoch(6));
    world.answer(&markers, ErrorCode::None);
    assert_eq!(world.state(), TransactionState::CompleteAbort);
    let answer = world.ask(init(None, true, false));
    assert_eq!(answer, Response::InitProducerId(Ok(pair((1, 8)))));
}

#[test]
fn t1_with_nothing_open_it_is_an_ordinary_start() {
    for state in [
        TransactionState::Empty,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
    ] {
        let mut world = World::given(value(state));
        let answer = world.ask(init(None, true, true));
        assert_eq!(answer, Response::InitProducerId(Ok(pair((1, 6)))));
        assert_eq!(world.value().timeout_ms, i32::MAX, "I-24");
    }
    let mut ending = World::given(value(TransactionState::PrepareCommit));
    let answer = ending.ask(init(None, true, true));
    assert_eq!(
        answer,
        Response::InitProducerId(Err(ErrorCode::ConcurrentTransactions))
    );
}

#[test]
fn t1_used_up_epochs_change_the_pid_and_not_that_of_the_transaction() {
    // The epoch is used up when it is handed over.
    let mut world = open_at(32766);
    assert_eq!(
        world.ask(init(None, true, true)),
        handed_over((100, 0), (1, 32766))
    );
    let ended = world.send(end((100, 0), true, Flow::Tv2));
    let markers = world.take_markers();
    assert_eq!(
        (markers.producer_id, markers.producer_epoch),
        pair((1, 32767))
    );
    world.answer(&markers, ErrorCode::None);
    assert_eq!(
        world.reply(ended),
        Some(Response::EndTxn(Ok(pair((100, 1)))))
    );

    // When it is ended.
    let mut world = open_at(32765);
    assert_eq!(
        world.ask(init(None, true, true)),
        handed_over((1, 32766), (1, 32765))
    );
    let ended = world.send(end((1, 32766), true, Flow::Tv2));
    let markers = world.take_markers();
    assert_eq!(
        (markers.producer_id, markers.producer_epoch),
        pair((1, 32766))
    );
    world.answer(&markers, ErrorCode::None);
    let next = Response::EndTxn(Ok(pair((100, 0))));
    assert_eq!(world.reply(ended), Some(next.clone()));
    world.restart();
    assert_eq!(
        world.ask(end((1, 32766), true, Flow::Tv2)),
        next,
        "the retry"
    );
}
