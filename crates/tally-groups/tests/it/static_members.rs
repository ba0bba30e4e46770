//! Static membership (KIP-345): section 5.3.

use crate::world::{World, commit, heartbeat, join, protocols, rejoin, sync, txn_commit};
use std::sync::Arc;
use tally_groups::{
    Command, CommitRequest, HeartbeatRequest, JoinRequest, Response, ReturningMember, SyncRequest,
    TransactionalCommitRequest,
};
use tally_protocol::ErrorCode;

/// Static member `instance` comes without an id and gets `member_id`.
fn come(instance: &str, member_id: &str) -> JoinRequest {
    JoinRequest {
        instance_id: Some(Arc::from(instance)),
        ..join(member_id)
    }
}

fn return_as(instance: &str, member_id: &str) -> JoinRequest {
    JoinRequest {
        instance_id: Some(Arc::from(instance)),
        ..rejoin(member_id)
    }
}

/// Instances `a`, the leader with id `a1`, and `b` with id `b1`, Stable in generation 2.
fn stable_pair() -> World {
    let mut world = World::new();
    world.join(come("a", "a1"));
    let b = world.send(Command::Join(come("b", "b1")));
    world.join(return_as("a", "a1"));
    world.joined(b);
    let b = world.send(Command::Sync(sync("b1", 2, &[])));
    world.sync(sync("a1", 2, &[("a1", "A"), ("b1", "B")]));
    world.synced(b);
    assert_eq!(world.state(), "Stable");
    world
}

#[test]
fn g60_a_follower_that_restarts_keeps_its_part() {
    let mut world = stable_pair();
    let records = world.log.len();
    let joined = world.join(come("b", "b2"));
    assert_eq!((joined.error, joined.generation), (ErrorCode::None, 2));
    assert_eq!(&*joined.member_id, "b2");
    assert_eq!(&*joined.leader, "a1");
    assert!(!joined.skip_assignment && joined.members.is_empty());
    assert_eq!(world.log.len(), records + 1, "the new id is durable");
    assert_eq!(&world.sync(sync("b2", 2, &[])).assignment[..], b"B");
    assert_eq!(world.heartbeat("a1", 2), 0);
    // GR-25: by its instance it is fenced, by its id alone it is unknown.
    let old = HeartbeatRequest {
        instance_id: Some(Arc::from("b")),
        ..heartbeat("b1", 2)
    };
    assert_eq!(
        world.ask(Command::Heartbeat(old)),
        Response::Heartbeat(ErrorCode::FencedInstanceId)
    );
    assert_eq!(world.heartbeat("b1", 2), 25);
    world.restart();
    assert_eq!(&world.sync(sync("b2", 2, &[])).assignment[..], b"B");
}

#[test]
fn g61_a_leader_that_restarts_does_not_assign() {
    let mut world = stable_pair();
    let joined = world.join(come("a", "a2"));
    assert_eq!(&*joined.leader, "a2");
    assert!(joined.skip_assignment);
    assert_eq!(joined.members.len(), 2);

    let mut world = stable_pair();
    let joined = world.join(JoinRequest {
        returning_member: ReturningMember::ToldOldLeader,
        ..come("a", "a2")
    });
    assert_eq!(
        &*joined.leader, "a1",
        "so that it does not take itself for one"
    );
    assert!(!joined.skip_assignment && joined.members.is_empty());
}

#[test]
fn g62_what_the_old_one_waits_for_is_fenced() {
    let mut world = stable_pair();
    let old = world.send(Command::Join(return_as("a", "a1")));
    let new = world.send(Command::Join(come("a", "a2")));
    let fenced = world.joined(old);
    assert_eq!(fenced.error, ErrorCode::FencedInstanceId);
    assert_eq!(world.reply(new), None);
    world.join(return_as("b", "b1"));
    assert_eq!(&*world.joined(new).leader, "a2");
}

#[test]
fn section_5_3_a_restart_while_the_rebalance_completes_starts_another() {
    let mut world = World::new();
    world.join(come("a", "a1"));
    let b = world.send(Command::Join(come("b", "b1")));
    world.join(return_as("a", "a1"));
    world.joined(b);
    let b = world.send(Command::Sync(sync("b1", 2, &[])));
    let new = world.send(Command::Join(come("b", "b2")));
    assert_eq!(world.synced(b).error, ErrorCode::FencedInstanceId);
    assert_eq!(world.state(), "PreparingRebalance");
    world.join(return_as("a", "a1"));
    assert_eq!(world.joined(new).generation, 3);
}

#[test]
fn g63_another_protocol_starts_a_rebalance() {
    let mut world = World::new();
    let with = |request: JoinRequest, names: &[&str]| JoinRequest {
        protocols: protocols(names),
        ..request
    };
    let joined = world.join(with(come("a", "a1"), &["range", "sticky"]));
    world.sync(sync("a1", joined.generation, &[]));
    let joined = world.join(with(come("a", "a2"), &["sticky", "range"]));
    assert_eq!(joined.generation, 2);
    assert_eq!(joined.protocol.as_deref(), Some("sticky"));
}

#[test]
fn gr27_another_subscription_alone_does_not() {
    let mut world = stable_pair();
    let joined = world.join(JoinRequest {
        protocols: vec![(Arc::from("range"), bytes::Bytes::from_static(b"other"))],
        ..come("b", "b2")
    });
    assert_eq!(joined.generation, 2);
    assert_eq!(world.state(), "Stable");
}

#[test]
fn g64_of_two_processes_with_one_instance_the_older_is_fenced() {
    let mut world = stable_pair();
    world.join(come("b", "b2"));
    let instance_id = || Some(Arc::from("b"));
    assert_eq!(
        world.join(return_as("b", "b1")).error,
        ErrorCode::FencedInstanceId
    );
    let old = SyncRequest {
        instance_id: instance_id(),
        ..sync("b1", 2, &[])
    };
    assert_eq!(world.sync(old).error, ErrorCode::FencedInstanceId);
    let old = CommitRequest {
        instance_id: instance_id(),
        ..commit("b1", 2, 5)
    };
    assert_eq!(world.commit(old), [82]);
    let old = TransactionalCommitRequest {
        instance_id: instance_id(),
        ..txn_commit("b1", 2, 5)
    };
    assert_eq!(world.txn_commit(1, old), [82]);
    let old = tally_groups::LeavingMember {
        member_id: Arc::from("b1"),
        instance_id: instance_id(),
    };
    assert_eq!(world.leave(vec![old]), [82]);
    let new = CommitRequest {
        instance_id: instance_id(),
        ..commit("b2", 2, 5)
    };
    assert_eq!(world.commit(new), [0]);
}

#[test]
fn g65_a_static_member_that_stays_away_is_removed() {
    let mut world = stable_pair();
    world.advance(9_000);
    world.heartbeat("a1", 2);
    world.advance(1_000);
    assert_eq!(world.member_ids(), ["a1"]);
    assert_eq!(world.heartbeat("a1", 2), 27);
}

#[test]
fn g35_static_members_alone_keep_their_generation_until_their_sessions_end() {
    let mut world = World::new();
    let with_session = |request: JoinRequest| JoinRequest {
        session_timeout_ms: 50_000,
        ..request
    };
    world.join(with_session(come("a", "a1")));
    world.sync(sync("a1", 1, &[]));
    // Somebody comes and goes: a rebalance that a1 takes no part in.
    let visitor = world.send(Command::Join(join("m2")));
    assert_eq!(world.leave(vec![crate::world::leaving("m2")]), [0]);
    assert_eq!(world.joined(visitor).error, ErrorCode::UnknownMemberId);
    world.advance(45_000);
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(world.heartbeat("a1", 1), 27, "the same generation");
    world.advance(50_000);
    assert_eq!(world.state(), "Empty");
    assert_eq!(world.join(join("m3")).generation, 3);
}

#[test]
fn gr36_a_static_member_that_does_not_rejoin_stays_a_member() {
    let mut world = World::new();
    let a = JoinRequest {
        session_timeout_ms: 60_000,
        ..come("a", "a1")
    };
    world.join(a);
    world.sync(sync("a1", 1, &[]));
    let m2 = world.send(Command::Join(join("m2")));
    world.advance(20_000);
    let joined = world.joined(m2);
    assert_eq!(&*joined.leader, "m2");
    assert_eq!(joined.members.len(), 2);
}
