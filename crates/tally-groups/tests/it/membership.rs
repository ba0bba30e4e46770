//! SyncGroup, Heartbeat, LeaveGroup: sections 6.1 to 6.3.

use crate::world::{World, commit, join, leaving, rejoin, settings, sync};
use bytes::Bytes;
use std::sync::Arc;
use tally_groups::{Command, Effect, JoinRequest, LeavingMember, Response, Settings, SyncRequest};
use tally_protocol::ErrorCode;

/// A leader `m1` and a follower `m2` of generation 2 that have joined and not synced.
fn completing() -> World {
    let mut world = World::new();
    world.stable("m1");
    let m2 = world.send(Command::Join(join("m2")));
    world.join(rejoin("m1"));
    world.joined(m2);
    assert_eq!(world.state(), "CompletingRebalance");
    world
}

#[test]
fn g45_a_follower_waits_for_its_part() {
    let mut world = completing();
    let m2 = world.send(Command::Sync(sync("m2", 2, &[])));
    assert_eq!(world.reply(m2), None);
    let records = world.log.len();
    // GR-51: a member that is not there is left out. m1 gave itself nothing.
    let m1 = world.sync(sync("m1", 2, &[("m2", "two"), ("m7", "x")]));
    assert_eq!(m1.assignment, Bytes::new());
    assert_eq!(&world.synced(m2).assignment[..], b"two");
    assert_eq!(
        world.log.len(),
        records + 1,
        "one record for the generation"
    );
}

#[test]
fn g47_a_sync_in_stable_gets_the_same_again_and_in_a_rebalance_joins() {
    let mut world = completing();
    let m2 = world.send(Command::Sync(sync("m2", 2, &[])));
    world.sync(sync("m1", 2, &[("m1", "one"), ("m2", "two")]));
    assert_eq!(&world.synced(m2).assignment[..], b"two");
    let records = world.log.len();
    for (member, expected) in [("m1", b"one"), ("m2", b"two")] {
        let again = world.sync(sync(member, 2, &[]));
        assert_eq!(
            (again.error, &again.assignment[..]),
            (ErrorCode::None, &expected[..])
        );
    }
    assert_eq!(world.log.len(), records, "nothing is written for it");
    world.send(Command::Join(join("m3")));
    assert_eq!(world.state(), "PreparingRebalance");
    for member in ["m1", "m2"] {
        let refused = world.sync(sync(member, 2, &[]));
        assert_eq!(refused.error, ErrorCode::RebalanceInProgress);
        assert!(refused.assignment.is_empty());
    }
}

#[test]
fn g46_syncs_that_are_refused() {
    let with = |protocol_type: &str, protocol: &str| SyncRequest {
        protocol_type: Some(Arc::from(protocol_type)),
        protocol: Some(Arc::from(protocol)),
        ..sync("m2", 2, &[])
    };
    let unknown_instance = SyncRequest {
        instance_id: Some(Arc::from("i")),
        ..sync("m2", 2, &[])
    };
    let nameless = SyncRequest {
        group: Arc::default(),
        ..sync("m2", 2, &[])
    };
    let cases = [
        (sync("m2", 1, &[]), ErrorCode::IllegalGeneration),
        (sync("m7", 2, &[]), ErrorCode::UnknownMemberId),
        (
            with("connect", "range"),
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            with("consumer", "sticky"),
            ErrorCode::InconsistentGroupProtocol,
        ),
        (unknown_instance, ErrorCode::UnknownMemberId),
        (nameless, ErrorCode::InvalidGroupId),
    ];
    for (request, expected) in cases {
        let mut world = completing();
        assert_eq!(world.sync(request.clone()).error, expected, "{request:?}");
    }
    let mut world = completing();
    let parked = world.send(Command::Sync(with("consumer", "range")));
    assert_eq!(world.reply(parked), None);
    let m1 = world.sync(sync("m1", 2, &[]));
    assert_eq!(m1.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(m1.protocol.as_deref(), Some("range"));
}

#[test]
fn gr53_a_sync_that_is_sent_again_gets_the_same_answer() {
    let mut world = completing();
    let first = world.send(Command::Sync(sync("m2", 2, &[])));
    let second = world.send(Command::Sync(sync("m2", 2, &[])));
    world.sync(sync("m1", 2, &[("m2", "two")]));
    let first = world.synced(first);
    assert_eq!(&first.assignment[..], b"two");
    assert_eq!(first, world.synced(second));
}

#[test]
fn g48_an_assignment_that_the_log_refuses_is_not_given_out() {
    let mut world = completing();
    let m2 = world.send(Command::Sync(sync("m2", 2, &[])));
    let refused = world.refuse(Command::Sync(sync("m1", 2, &[("m2", "two")])));
    // The runner answers these with the mapped error.
    assert_eq!(refused.effects.len(), 2);
    assert!(refused.effects.iter().all(|effect| matches!(
        effect,
        Effect::Reply {
            response: Response::Sync(_),
            ..
        }
    )));
    assert_eq!(world.reply(m2), None);
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(world.heartbeat("m2", 2), 27);
    let m1 = world.send(Command::Join(rejoin("m1")));
    let m2 = world.join(rejoin("m2"));
    assert_eq!(m2.generation, 3);
    assert_eq!(world.joined(m1).generation, 3);
    world.restart();
}

#[test]
fn g48_a_group_whose_end_is_refused_continues_from_its_record() {
    let mut world = World::new();
    world.stable("m1");
    let leave = Command::Leave(tally_groups::LeaveRequest {
        group: Arc::from("g"),
        members: vec![leaving("m1")],
    });
    assert_eq!(world.refuse(leave).records.len(), 1);
    assert_eq!(world.state(), "Empty");
    assert_eq!(world.join(join("m2")).generation, 2);
    world.restart();
}

#[test]
fn gr52_assignments_restart_sessions() {
    let mut world = completing();
    let m2 = world.send(Command::Sync(sync("m2", 2, &[])));
    world.advance(9_000);
    world.sync(sync("m1", 2, &[]));
    world.synced(m2);
    world.advance(9_999);
    assert_eq!(world.heartbeat("m2", 2), 0);
}

#[test]
fn gr34_a_member_whose_sync_waits_is_not_silent() {
    let mut world = completing();
    let m2 = world.send(Command::Sync(sync("m2", 2, &[])));
    world.advance(5_000);
    world.heartbeat("m1", 2);
    world.advance(9_000); // m2's session would have ended
    assert_eq!(world.member_ids(), ["m1", "m2"]);
    // An interruption answers it and starts its session anew.
    world.send(Command::Join(join("m3")));
    assert_eq!(world.synced(m2).error, ErrorCode::RebalanceInProgress);
    world.advance(9_000);
    assert_eq!(world.heartbeat("m2", 2), 27);
}

#[test]
fn g52_a_commit_is_a_sign_of_life_in_a_stable_group() {
    let mut world = World::new();
    world.stable("m1");
    for _ in 0..5 {
        world.advance(9_000);
        assert_eq!(world.commit(commit("m1", 1, 5)), [0]);
    }
    let mut world = completing();
    let m2 = world.send(Command::Sync(sync("m2", 2, &[])));
    world.advance(9_000);
    assert_eq!(world.commit(commit("m1", 2, 5)), [27]);
    world.advance(1_000);
    assert_eq!(world.synced(m2).error, ErrorCode::RebalanceInProgress);
    assert_eq!(world.heartbeat("m1", 2), 25);
}

#[test]
fn g53_each_member_gets_its_own_code() {
    let mut world = World::new();
    world.stable_pair();
    let codes = world.leave(vec![leaving("m2"), leaving("m7"), leaving("")]);
    assert_eq!(codes, [0, 25, 25]);
    assert_eq!(world.member_ids(), ["m1"]);
    assert_eq!(world.heartbeat("m1", 2), 27);
    assert_eq!(world.leave(vec![leaving("m7")]), [25]);
}

#[test]
fn section_6_3_whoever_leaves_is_told_so_where_it_waits() {
    let mut world = completing();
    let m2 = world.send(Command::Sync(sync("m2", 2, &[])));
    assert_eq!(world.leave(vec![leaving("m2")]), [0]);
    assert_eq!(world.synced(m2).error, ErrorCode::UnknownMemberId);

    let mut world = World::new();
    world.stable_pair();
    let m2 = world.send(Command::Join(JoinRequest {
        protocols: crate::world::protocols(&["range", "x"]),
        ..rejoin("m2")
    }));
    assert_eq!(world.leave(vec![leaving("m2")]), [0]);
    assert_eq!(world.joined(m2).error, ErrorCode::UnknownMemberId);
}

#[test]
fn gr55_the_last_one_to_leave_empties_the_group_at_once() {
    let mut world = World::new();
    world.stable("m1");
    let records = world.log.len();
    assert_eq!(world.leave(vec![leaving("m1")]), [0]);
    assert_eq!(world.state(), "Empty");
    assert_eq!(world.log.len(), records + 1);
}

#[test]
fn section_6_3_a_member_that_leaves_completes_a_rebalance() {
    let mut world = World::new();
    world.stable_pair();
    let m1 = world.send(Command::Join(rejoin("m1")));
    assert_eq!(world.leave(vec![leaving("m2")]), [0]);
    assert_eq!(world.joined(m1).generation, 3);
}

#[test]
fn g54_an_operator_removes_a_static_member_by_its_instance() {
    let mut world = World::new();
    world.join(JoinRequest {
        instance_id: Some(Arc::from("i")),
        ..join("m1")
    });
    let by_instance = |instance_id: &str| LeavingMember {
        member_id: Arc::default(),
        instance_id: Some(Arc::from(instance_id)),
    };
    assert_eq!(
        world.leave(vec![by_instance("other"), by_instance("i")]),
        [25, 0]
    );
    assert_eq!(world.state(), "Empty");
}

#[test]
fn group_ids_are_not_empty() {
    let mut world = World::with(Settings {
        max_size: 1,
        ..settings()
    });
    let heartbeat = tally_groups::HeartbeatRequest {
        group: Arc::default(),
        ..crate::world::heartbeat("m", 1)
    };
    assert_eq!(
        world.ask(Command::Heartbeat(heartbeat)),
        Response::Heartbeat(ErrorCode::InvalidGroupId)
    );
    let leave = tally_groups::LeaveRequest {
        group: Arc::default(),
        members: vec![leaving("m")],
    };
    match world.ask(Command::Leave(leave)) {
        Response::Leave(response) => assert_eq!(response.error, ErrorCode::InvalidGroupId),
        other => panic!("{other:?}"),
    }
}
