//! Section 5.4: who is waited for and for how long.

use crate::world::{World, join, leaving, rejoin, settings, sync};
use tally_groups::{Command, JoinRequest, Settings};
use tally_protocol::ErrorCode;

fn with_delay(initial_rebalance_delay_ms: i32) -> World {
    World::with(Settings {
        initial_rebalance_delay_ms,
        ..settings()
    })
}

#[test]
fn g30_new_members_extend_the_initial_delay() {
    let mut world = with_delay(3_000);
    let with_timeout = |id: &str| JoinRequest {
        rebalance_timeout_ms: 10_000,
        ..join(id)
    };
    let m1 = world.send(Command::Join(with_timeout("m1")));
    world.advance(2_000);
    let m2 = world.send(Command::Join(with_timeout("m2")));
    world.advance(3_000);
    let m3 = world.send(Command::Join(with_timeout("m3")));
    world.advance(3_999);
    assert_eq!(world.reply(m1), None, "at 8.999 s");
    world.advance(1);
    for asked in [m1, m2, m3] {
        assert_eq!(world.joined(asked).generation, 1);
    }
}

#[test]
fn gr31_the_initial_delay_ends_with_the_rebalance_timeout() {
    let mut world = with_delay(3_000);
    let with_timeout = |id: &str| JoinRequest {
        rebalance_timeout_ms: 5_000,
        ..join(id)
    };
    let m1 = world.send(Command::Join(with_timeout("m1")));
    for number in 2..=5 {
        world.advance(999);
        world.send(Command::Join(with_timeout(&format!("m{number}"))));
    }
    world.advance(1_004);
    assert_eq!(world.joined(m1).generation, 1, "at 5 s");
}

#[test]
fn gr31_without_new_members_the_delay_is_not_extended() {
    let mut world = with_delay(3_000);
    let m1 = world.send(Command::Join(join("m1")));
    world.advance(2_999);
    assert_eq!(world.reply(m1), None);
    world.advance(1);
    assert_eq!(world.joined(m1).generation, 1);
}

#[test]
fn g31_without_a_delay_one_member_is_answered_at_once() {
    let mut world = World::new();
    let joined = world.join(join("m1"));
    assert_eq!((joined.generation, joined.error), (1, ErrorCode::None));
}

#[test]
fn g32_a_rebalance_completes_when_everyone_is_back() {
    let mut world = World::new();
    world.stable_pair();
    let m3 = world.send(Command::Join(join("m3")));
    assert_eq!(world.heartbeat("m1", 2), 27);
    assert_eq!(world.heartbeat("m2", 2), 27);
    let m1 = world.send(Command::Join(rejoin("m1")));
    assert_eq!(world.reply(m1), None);
    let m2 = world.join(rejoin("m2"));
    assert_eq!(m2.generation, 3);
    assert_eq!(world.joined(m1).generation, 3);
    assert_eq!(world.joined(m3).generation, 3);
}

#[test]
fn g33_who_does_not_come_back_is_left_behind() {
    let mut world = World::new();
    world.stable_pair();
    let m1 = world.send(Command::Join(rejoin("m1")));
    // m2 keeps its session alive but never joins.
    for _ in 0..3 {
        world.advance(6_000);
        assert_eq!(world.heartbeat("m2", 2), 27);
    }
    world.advance(1_999);
    assert_eq!(world.reply(m1), None, "before the rebalance timeout");
    world.advance(1);
    assert_eq!(world.joined(m1).members.len(), 1);
    assert_eq!(world.heartbeat("m2", 2), 25);
}

#[test]
fn g34_a_leader_that_does_not_come_back_is_replaced() {
    let mut world = World::new();
    world.stable_pair();
    let m3 = world.send(Command::Join(join("m3")));
    let m2 = world.send(Command::Join(rejoin("m2")));
    world.advance(20_000);
    let joined = world.joined(m2);
    assert_eq!(&*joined.leader, "m2");
    assert_eq!(joined.members.len(), 2);
    assert!(world.joined(m3).members.is_empty());
}

#[test]
fn g38_a_new_member_that_died_while_it_waited_is_removed_after_five_minutes() {
    let mut world = World::with(Settings {
        initial_rebalance_delay_ms: 400_000,
        ..settings()
    });
    let m1 = world.send(Command::Join(join("m1")));
    world.advance(299_999);
    assert_eq!(world.reply(m1), None);
    world.advance(1);
    let removed = world.joined(m1);
    assert_eq!(removed.error, ErrorCode::UnknownMemberId);
    assert_eq!(&*removed.member_id, "");
}

#[test]
fn gr34_a_member_whose_join_waits_is_not_silent() {
    let mut world = World::new();
    world.stable_pair();
    let with_long_timeout = |id: &str| JoinRequest {
        rebalance_timeout_ms: 60_000,
        ..rejoin(id)
    };
    let m1 = world.send(Command::Join(with_long_timeout("m1")));
    // Twice m1's session; m2 heartbeats, m1's only sign of life is its parked join.
    for _ in 0..2 {
        world.advance(9_000);
        world.heartbeat("m2", 2);
    }
    assert_eq!(world.reply(m1), None);
    let m2 = world.join(rejoin("m2"));
    assert_eq!(m2.generation, 3);
    assert_eq!(world.joined(m1).members.len(), 2);
}

#[test]
fn g39_a_new_member_interrupts_a_rebalance_that_completes() {
    let mut world = World::new();
    world.stable_pair();
    world.send(Command::Join(rejoin("m1")));
    assert_eq!(world.join(rejoin("m2")).generation, 3);
    let parked = world.send(Command::Sync(sync("m2", 3, &[])));
    world.send(Command::Join(join("m3")));
    assert_eq!(world.synced(parked).error, ErrorCode::RebalanceInProgress);
    assert_eq!(world.state(), "PreparingRebalance");
}

#[test]
fn g40_who_never_syncs_is_removed() {
    let mut world = World::new();
    world.stable("m1");
    let m2 = world.send(Command::Join(join("m2")));
    world.join(rejoin("m1"));
    world.joined(m2);
    world.sync(sync("m1", 2, &[("m1", "one"), ("m2", "two")]));
    assert_eq!(world.state(), "Stable");
    // m2 heartbeats, but does not ask for its assignment.
    for _ in 0..3 {
        world.advance(6_000);
        assert_eq!(world.heartbeat("m1", 2), 0);
        assert_eq!(world.heartbeat("m2", 2), 0);
    }
    world.advance(2_000);
    assert_eq!(world.member_ids(), ["m1"]);
    assert_eq!(world.heartbeat("m2", 2), 25);
    assert_eq!(world.heartbeat("m1", 2), 27);
}

#[test]
fn gr40_a_leader_that_never_syncs_is_replaced() {
    let mut world = World::new();
    world.stable("m1");
    let m2 = world.send(Command::Join(join("m2")));
    world.join(rejoin("m1"));
    world.joined(m2);
    let m2 = world.send(Command::Sync(sync("m2", 2, &[])));
    for _ in 0..3 {
        world.advance(6_000);
        world.heartbeat("m1", 2);
    }
    world.advance(2_000);
    assert_eq!(world.synced(m2).error, ErrorCode::RebalanceInProgress);
    let m2 = world.join(rejoin("m2"));
    assert_eq!((m2.generation, &*m2.leader), (3, "m2"));
}

#[test]
fn g51_silence_ends_a_session() {
    let mut world = World::new();
    world.stable_pair();
    for _ in 0..10 {
        world.advance(3_000);
        assert_eq!(world.heartbeat("m1", 2), 0);
        assert_eq!(world.heartbeat("m2", 2), 0);
    }
    world.advance(9_999);
    assert_eq!(world.heartbeat("m1", 2), 0);
    world.advance(1);
    assert_eq!(world.heartbeat("m2", 2), 25);
    assert_eq!(world.heartbeat("m1", 2), 27);
}

#[test]
fn g55_the_count_of_generations_goes_on_after_the_last_member() {
    let mut world = World::new();
    world.stable("m1");
    assert_eq!(world.leave(vec![leaving("m1")]), [0]);
    assert_eq!(world.state(), "Empty");
    world.restart();
    assert_eq!(world.join(join("m2")).generation, 3);
}

#[test]
fn gr132_a_heartbeat_moves_no_timer() {
    let mut world = World::new();
    world.stable("m1");
    let scheduled = world.groups.next_deadline_ms();
    for _ in 0..100 {
        world.advance(50);
        world.heartbeat("m1", 1);
        assert_eq!(world.groups.next_deadline_ms(), scheduled);
    }
}
