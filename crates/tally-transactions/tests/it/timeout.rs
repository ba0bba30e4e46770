//! Timeouts and expiry (S-10 to S-12, K-2, CR-27).

use std::sync::Arc;

use tally_protocol::ProducerEpoch;
use tally_protocol::records::transaction_log::{TransactionState, TransactionValue};
use tally_transactions::{Flow, Reason, Settings};

use TransactionState::{CompleteAbort, CompleteCommit, Empty, Ongoing, PrepareAbort};

use crate::world::{ID, WALL_MS, World, add, at_epoch, brief, end, init, value};

/// Aborts exactly at the timeout, so that tests see the timeout and not the tick.
fn fine() -> Settings {
    Settings {
        abort_timed_out_interval_ms: 1,
        ..Settings::default()
    }
}

#[test]
fn s11_a_transaction_is_aborted_with_fence_after_its_timeout() {
    let mut world = World::with(fine()).and_given(at_epoch(value(Empty), 5, -1));
    world.advance(500_000); // S-12: time before the first partition does not count
    world.expire();
    world.ask(add((1, 5), &["t-0"], Flow::Tv1));
    world.advance(60_000);
    world.expire();
    assert_eq!(world.state(), Ongoing, "start + timeout < now");
    world.advance(1);
    world.expire();
    assert_eq!(world.state(), PrepareAbort);
    let set = world.take_markers();
    assert_eq!((set.producer_epoch.0, set.commit), (6, false));
    assert_eq!(set.transaction_version, 2, "S-14: whatever the client is");
    world.answer(&set, tally_protocol::ErrorCode::None);
    assert_eq!((world.pair(), world.state()), ((1, 6), CompleteAbort));
    assert_eq!(world.value().last_producer_epoch, ProducerEpoch(5));
    let note = world.core.note(ID).expect("remembered");
    assert_eq!(note.reason, Reason::TimedOut);
    assert_eq!(note.producer_epoch, ProducerEpoch(5));
    assert_eq!(world.core.counters().timed_out, 1);
}

#[test]
fn s11_more_partitions_do_not_prolong_it() {
    let mut world = World::with(fine()).and_given(value(Empty));
    for number in 0..4 {
        let name = format!("t-{number}");
        world.ask(add((1, 5), &[&name], Flow::Tv1));
        world.advance(15_001);
        world.expire();
    }
    assert_eq!(world.state(), PrepareAbort);
}

#[test]
fn s11_the_next_transaction_has_a_clock_of_its_own() {
    let mut world = World::with(fine()).and_given(value(Empty));
    for _ in 0..5 {
        world.ask(add((1, 5), &["t-0"], Flow::Tv1));
        world.advance(59_000);
        world.expire();
        world.send(end((1, 5), true, Flow::Tv1));
        world.write_markers();
        assert_eq!(world.state(), CompleteCommit);
    }
}

#[test]
fn s11_aborts_happen_at_ticks() {
    let mut world = World::given(value(Empty)); // monotonic 1_000_000, interval 10_000
    world.advance(5_000);
    world.ask(add((1, 5), &["t-0"], Flow::Tv1)); // over at 1_065_000
    assert_eq!(world.core.next_deadline_ms(), Some(1_070_000));
    world.advance(64_999);
    world.expire();
    assert_eq!(world.state(), Ongoing);
    world.advance(1);
    world.expire();
    assert_eq!(world.state(), PrepareAbort);
}

#[test]
fn k2_no_jump_of_the_wall_clock_aborts_a_running_transaction() {
    let mut world = World::with(fine()).and_given(value(Empty));
    world.ask(add((1, 5), &["t-0"], Flow::Tv1));
    for jump_ms in [86_400_000_000, -86_400_000_000, -86_400_000_000] {
        world.now.wall_ms += jump_ms;
        world.expire();
        assert_eq!(world.state(), Ongoing);
    }
    world.now.monotonic_ms += 60_001;
    world.expire();
    assert_eq!(world.state(), PrepareAbort);
}

/// Down for a while: how much is left when the coordinator is loaded.
#[test]
fn cr27_after_a_restart_the_stored_start_counts() {
    for (wall_jump_ms, left_ms) in [
        (0, 60_000),
        (20_000, 40_000),
        (59_999, 1),
        (60_000, 0),
        (10_000_000, 0),
        (-10_000_000, 60_000), // set back: never early
        (i64::MIN / 2, 60_000),
    ] {
        let mut world = World::with(fine());
        world.now.wall_ms += wall_jump_ms;
        let mut world = world.and_given(value(Ongoing));
        world.now.monotonic_ms += left_ms;
        world.expire();
        assert_eq!(world.state(), Ongoing, "{wall_jump_ms}");
        world.now.monotonic_ms += 1;
        world.expire();
        assert_eq!(world.state(), PrepareAbort, "{wall_jump_ms}");
    }
}

#[test]
fn s11_two_phase_commit_never_times_out() {
    let mut world = World::given(TransactionValue {
        timeout_ms: i32::MAX,
        ..value(Ongoing)
    });
    world.advance(10_000_000_000);
    world.expire();
    assert_eq!(world.state(), Ongoing);
}

#[test]
fn s14_a_timeout_without_a_pid_waits_for_one() {
    let mut world = World::given(at_epoch(value(Ongoing), 32766, 32765));
    let end_of_block = std::mem::replace(&mut world.ids.end, world.ids.next);
    world.advance(100_000);
    world.expire();
    assert_eq!(world.state(), Ongoing);
    world.ids.end = end_of_block;
    world.advance(10_000);
    world.expire();
    assert_eq!(world.state(), PrepareAbort);
}

#[test]
fn s2_a_timeout_whose_record_finds_no_room_comes_again() {
    let mut world = World::given(value(Ongoing));
    world.advance(100_000);
    let dropped = world.core.expire(world.now, &mut world.ids);
    assert_eq!(dropped.records.len(), 1);
    world.core.check_invariants();
    assert!(world.core.next_deadline_ms() > Some(world.now.monotonic_ms));
    world.advance(10_000);
    world.expire();
    assert_eq!(world.state(), PrepareAbort);
}

#[test]
fn s10_unused_ids_expire() {
    for (state, goes) in [
        (Empty, true),
        (CompleteCommit, true),
        (CompleteAbort, true),
        (Ongoing, false),
    ] {
        let mut world = World::given(TransactionValue {
            timeout_ms: i32::MAX,
            ..value(state)
        });
        world.advance(604_799_999);
        world.expire();
        assert_eq!(world.core.len(), 1);
        world.advance(3_600_001); // the next search
        world.expire();
        assert_eq!(world.core.is_empty(), goes, "{state:?}");
        if goes {
            let tombstone = world.log.last().expect("written");
            assert_eq!(
                (&*tombstone.transactional_id, &tombstone.value),
                (ID, &None)
            );
            assert_eq!(world.core.note(ID).map(|n| n.reason), Some(Reason::Expired));
            assert_eq!(brief(&world.ask(add((1, 5), &["t-0"], Flow::Tv1))), "49");
            assert_eq!(brief(&world.ask(init())), "(100,0)");
        }
    }
}

#[test]
fn s10_an_id_in_use_does_not_expire() {
    let mut world = World::given(value(Empty));
    for _ in 0..4 {
        world.advance(400_000_000);
        world.expire();
        assert_eq!(world.core.len(), 1);
        world.ask(init());
    }
}

#[test]
fn many_ids_expire_and_time_out_in_steps() {
    let settings = Settings {
        transactional_id_expiration_ms: 1000,
        remove_expired_interval_ms: 1000,
        ..fine()
    };
    let mut world = World::with(settings);
    for number in 0..25_000 {
        let mut given = value(if number % 2 == 0 { Empty } else { Ongoing });
        given.producer_id.0 = number;
        world.log.push(
            tally_protocol::records::transaction_log::TransactionRecord {
                transactional_id: Arc::from(format!("id-{number}")),
                value: Some(given),
            },
        );
    }
    world.restart();
    world.advance(100_000);
    world.now.wall_ms = WALL_MS + 100_000;
    // As `World::run` checks invariants of all ids after each step, this runs without it.
    let mut largest = 0;
    let mut timed_out = 0;
    while world.core.next_deadline_ms() <= Some(world.now.monotonic_ms) {
        let decision = world.core.expire(world.now, &mut world.ids);
        largest = largest.max(decision.records.len());
        for record in &decision.records {
            timed_out += usize::from(record.value.is_some());
            world.core.apply(tally_protocol::Offset(1_000_000), record);
        }
    }
    world.core.check_invariants();
    assert_eq!(timed_out, 12_500);
    assert_eq!(world.core.len(), 12_500);
    assert_eq!(largest, 1000);
}
