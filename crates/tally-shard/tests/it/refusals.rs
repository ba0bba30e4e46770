//! What is refused, and what a refusal leaves behind.

use crate::world::{DATA, GROUPS, TRANSACTIONS, World, batch};
use bytes::Bytes;
use std::sync::Arc;
use tally_groups::{
    Command, ConsumerHeartbeatRequest, ConsumerSettings, JoinRequest, NewMember, Response,
    ReturningMember, SyncRequest,
};
use tally_producer_state::Guard;
use tally_protocol::{ErrorCode, Sequence};
use tally_shard::{RetentionSettings, ShardMessage, ShardReply};
use tally_storage::LogOptions;

pub(crate) fn join() -> JoinRequest {
    JoinRequest {
        group: Arc::from("g"),
        member_id: Arc::default(),
        new_member_id: Arc::from("m"),
        topics: Arc::default(),
        instance_id: None,
        client_id: Arc::from("c"),
        client_host: Arc::from("/h"),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: Arc::from("consumer"),
        protocols: vec![(Arc::from("range"), Bytes::new())],
        new_member: NewMember::Add,
        returning_member: ReturningMember::ToldOldLeader,
    }
}

fn group(command: Command) -> impl FnOnce(tally_shard::ReplyTo) -> ShardMessage {
    |to| ShardMessage::Group {
        command,
        size_bytes: 0,
        to,
    }
}

pub(crate) fn sync(generation: i32, assignment: Bytes) -> Command {
    Command::Sync(SyncRequest {
        group: Arc::from("g"),
        member_id: Arc::from("m"),
        instance_id: None,
        generation,
        protocol_type: None,
        protocol: None,
        assignments: vec![(Arc::from("m"), assignment)],
    })
}

#[track_caller]
fn joined(replies: Vec<ShardReply>) -> i32 {
    match &replies[..] {
        [ShardReply::Group(Ok(Response::Join(response)))] => response.generation,
        other => panic!("{other:?}"),
    }
}

/// GR-10: too large for the log is -1. What no batch can hold must not end the broker.
#[test]
fn gr10_a_group_that_is_too_large_for_the_log_is_refused() {
    let mut world = World::new();
    let generation = joined(world.ask_and_pass_ms(GROUPS, group(Command::Join(join())), 10_000));
    let huge = Bytes::from(vec![0; 70 << 20]);
    let replies = world.ask_and_pass_ms(GROUPS, group(sync(generation, huge)), 0);
    assert!(
        matches!(
            replies[..],
            [ShardReply::Group(Err(ErrorCode::UnknownServerError)), ..]
        ),
        "{replies:?}"
    );
    let mut again = join();
    again.member_id = Arc::from("m");
    let generation = joined(world.ask_and_pass_ms(GROUPS, group(Command::Join(again)), 0));
    let replies = world.ask_and_pass_ms(GROUPS, group(sync(generation, Bytes::new())), 0);
    match &replies[..] {
        [ShardReply::Group(Ok(Response::Sync(response)))] => {
            assert_eq!(response.error, ErrorCode::None);
        }
        other => panic!("{other:?}"),
    }
}

/// A heartbeat of a group `c` whose records may take so many bytes: the error, or the answer's.
#[track_caller]
fn beat(world: &mut World, member_id: &str, epoch: i32, size_bytes: usize) -> ErrorCode {
    let request = ConsumerHeartbeatRequest {
        group: Arc::from("c"),
        member_id: Arc::from(member_id),
        member_epoch: epoch,
        instance_id: None,
        rack_id: None,
        client_id: Arc::from("c"),
        client_host: Arc::from("/h"),
        rebalance_timeout_ms: 30_000,
        subscribed_topics: Some(vec![Arc::from("t")]),
        subscribed_regex: None,
        assignor: None,
        owned: Some(std::collections::BTreeMap::new()),
        topics: Arc::default(),
        settings: ConsumerSettings::default(),
    };
    let message = |to| ShardMessage::Group {
        command: Command::ConsumerHeartbeat(Box::new(request)),
        size_bytes,
        to,
    };
    match world.ask(GROUPS, message) {
        ShardReply::Group(Ok(Response::ConsumerHeartbeat(response))) => response.error,
        ShardReply::Group(Err(code)) => code,
        other => panic!("{other:?}"),
    }
}

/// GR-10: without room on the disk a heartbeat that changes nothing is taken, and one that would is not.
#[test]
fn gr10_members_stay_when_the_disk_is_full() {
    const NO_ROOM: usize = 1 << 60;
    let mut world = World::new();
    assert_eq!(
        beat(&mut world, "m1", 0, NO_ROOM),
        ErrorCode::NotCoordinator
    );
    assert_eq!(beat(&mut world, "m1", 0, 0), ErrorCode::None);
    // A group begins at epoch 1, its first subscription raises that.
    assert_eq!(beat(&mut world, "m1", 2, NO_ROOM), ErrorCode::None);
    assert_eq!(
        beat(&mut world, "m2", 0, NO_ROOM),
        ErrorCode::NotCoordinator
    );
    assert_eq!(beat(&mut world, "m2", 1, 0), ErrorCode::UnknownMemberId);
    assert_eq!(beat(&mut world, "m2", 0, 0), ErrorCode::None);
}

/// Room for a decision is taken before it is made, and is a piece of a segment at most: else each decision of a
/// coordinator with small segments would begin a new one.
#[test]
fn n15_small_segments_hold_more_than_one_decision() {
    let log = LogOptions {
        segment_bytes: 100_000,
        ..LogOptions::default()
    };
    let mut world = World::with(log, RetentionSettings::KEEP_ALL);
    for _ in 0..20 {
        world.init();
    }
    assert_eq!(world.segments(TRANSACTIONS), 1);
}

#[test]
fn v05_a_verification_that_was_dropped_verifies_nothing() {
    let mut world = World::new();
    let pair = world.init();
    let guard = world.verify(DATA, pair, Sequence(0)).expect("needed");
    let drop = |guard| ShardMessage::DropVerification {
        producer_id: pair.0,
        producer_epoch: pair.1,
        guard,
    };
    assert!(
        world
            .ask_and_pass_ms(DATA, |_| drop(Guard(guard.0 ^ 1)), 0)
            .is_empty()
    );
    assert!(world.ask_and_pass_ms(DATA, |_| drop(guard), 0).is_empty());
    let batch = batch(pair, 0, &["a"], true);
    let guard = Some(guard);
    match world.ask(DATA, |to| ShardMessage::Append { batch, guard, to }) {
        ShardReply::Append(Err(refusal)) => assert_eq!(refusal.code, ErrorCode::InvalidTxnState),
        other => panic!("{other:?}"),
    }
}
