//! Restarts: GR-41, GR-121, GR-124.

use crate::world::{World, commit, join, leaving, rejoin, settings, sync};
use tally_groups::{Command, Settings};
use tally_protocol::ErrorCode;

#[test]
fn gr124_a_stable_group_is_stable_again() {
    let mut world = World::new();
    world.stable_pair();
    world.restart();
    assert_eq!(world.state(), "Stable");
    assert_eq!(world.member_ids(), ["m1", "m2"]);
    assert_eq!(world.heartbeat("m1", 2), 0);
    assert_eq!(&world.sync(sync("m2", 2, &[])).assignment[..], b"two");
    assert_eq!(world.commit(commit("m1", 2, 5)), [0]);
    // The leader is known, so a follower that asks again changes nothing.
    assert_eq!(&*world.join(rejoin("m2")).leader, "m1");
}

#[test]
fn gr121_members_have_a_whole_session_to_be_heard_of() {
    let mut world = World::new();
    world.stable_pair();
    world.advance(9_000);
    world.restart();
    world.advance(9_999);
    assert_eq!(world.heartbeat("m1", 2), 0);
    world.advance(1);
    assert_eq!(world.member_ids(), ["m1"]);
}

#[test]
fn gr41_a_rebalance_that_did_not_complete_never_was() {
    let mut world = World::new();
    world.stable("m1");
    let m2 = world.send(Command::Join(join("m2")));
    world.join(rejoin("m1"));
    assert_eq!(world.joined(m2).generation, 2);
    world.restart();
    assert_eq!(world.state(), "Stable");
    assert_eq!(world.heartbeat("m1", 2), 22);
    assert_eq!(world.heartbeat("m2", 2), 25);
    assert_eq!(world.commit(commit("m1", 2, 5)), [22]);
    assert_eq!(world.join(rejoin("m1")).generation, 2);
}

#[test]
fn gr121_a_group_that_is_too_large_now_rebalances() {
    let mut world = World::new();
    world.stable_pair();
    let mut small = World::with(Settings {
        max_size: 1,
        ..settings()
    });
    small.log = world.log.clone();
    for (entry, at) in world.log.drain(..).zip(0..) {
        if let crate::world::Entry::Record(record, _) = entry {
            small
                .groups
                .apply(tally_protocol::Offset(at), &record, None);
        }
    }
    small.restart();
    assert_eq!(small.state(), "PreparingRebalance");
    let m2 = small.send(Command::Join(rejoin("m2")));
    let m1 = small.join(rejoin("m1"));
    assert_eq!(m1.error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(small.joined(m2).members.len(), 1);
}

#[test]
fn an_empty_group_is_empty_again_and_costs_no_timer() {
    let mut world = World::new();
    assert_eq!(world.groups.next_deadline_ms(), None);
    world.stable("m1");
    world.leave(vec![leaving("m1")]);
    world.restart();
    assert_eq!(world.state(), "Empty");
    assert_eq!(world.heartbeat("m1", 2), 25);
}
