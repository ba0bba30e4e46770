//! Offsets of groups of the `consumer` protocol (GR-63, GR-72, GR-81, GR-90).

use crate::consumer::joining;
use crate::world::{World, beat, commit, offset, topic_id, txn_commit};
use std::sync::Arc;
use tally_groups::{
    AbsentGroup, Command, CommitRequest, ConsumerHeartbeatRequest, DeleteOffsetsRequest,
    FetchRequest, OffsetToCommit, Response, TransactionalCommitRequest,
};
use tally_protocol::records::consumer_group::Partitions;

/// `m1` at epoch 4 with partition 0 of `t` since epoch 2 and with 1 since epoch 4.
fn world() -> World {
    let mut world = World::new();
    world.set_topics(&[("t", 1)]);
    world.beat(joining("m1", &["t"]));
    world.beat(joining("m2", &["t"]));
    world.beat(beat("m1", 2));
    world.set_topics(&[("t", 3)]);
    let response = world.beat(beat("m1", 3));
    assert_eq!(response.member_epoch, 4);
    let numbers: Vec<i32> = response.assignment.expect("it has changed")[&topic_id("t")]
        .iter()
        .copied()
        .collect();
    assert_eq!(numbers, [0, 1]);
    world
}

fn of(partition: i32) -> OffsetToCommit {
    OffsetToCommit {
        partition,
        topic_id: topic_id("t"),
        ..offset(7)
    }
}

fn at(member_id: &str, epoch: i32, partitions: &[i32]) -> CommitRequest {
    CommitRequest {
        offsets: partitions.iter().map(|partition| of(*partition)).collect(),
        ..commit(member_id, epoch, 7)
    }
}

#[test]
fn g119_gr63_a_commit_names_the_members_epoch() {
    let mut world = world();
    let old = CommitRequest {
        on_absent_group: AbsentGroup::IllegalGeneration,
        ..at("m1", 4, &[0])
    };
    assert_eq!(world.commit(old), [35]);
    assert_eq!(world.commit(at("m1", 4, &[0, 1])), [0, 0]);
    assert_eq!(world.commit(at("m1", 5, &[0])), [113]);
    assert_eq!(world.commit(at("m3", 4, &[0])), [25]);
    assert_eq!(world.commit(at("", -1, &[0])), [25], "no member");
}

#[test]
fn gr63_an_older_epoch_is_good_for_what_the_member_has_had_since() {
    let mut world = world();
    assert_eq!(world.commit(at("m1", 2, &[0])), [0]);
    assert_eq!(world.commit(at("m1", 3, &[0])), [0]);
    assert_eq!(world.commit(at("m1", 1, &[0])), [113]);
    assert_eq!(world.commit(at("m1", 3, &[1])), [113], "since epoch 4");
    assert_eq!(
        world.commit(at("m1", 3, &[0, 1])),
        [113, 113],
        "all or none"
    );
    assert_eq!(world.commit(at("m1", 3, &[2])), [113], "never had it");
}

#[test]
fn gr81_a_transactional_commit_is_refused_with_22() {
    let mut world = world();
    let in_txn = |member_id: &str, epoch: i32, partition: i32| TransactionalCommitRequest {
        offsets: vec![of(partition)],
        ..txn_commit(member_id, epoch, 7)
    };
    assert_eq!(world.txn_commit(1, in_txn("m1", 4, 0)), [0]);
    assert_eq!(world.txn_commit(1, in_txn("m1", 2, 0)), [0]);
    assert_eq!(world.txn_commit(1, in_txn("m1", 3, 1)), [22]);
    assert_eq!(world.txn_commit(1, in_txn("m1", 5, 0)), [22]);
    assert_eq!(world.txn_commit(1, in_txn("m3", 4, 0)), [25]);
    assert_eq!(world.txn_commit(1, in_txn("", -1, 0)), [0], "nobody");
    assert_eq!(world.offset(true).1, 88);
    world.marker(1, true);
    assert_eq!(world.offset(true), (7, 0));
    world.restart();
    assert_eq!(world.offset(true), (7, 0));
}

#[test]
fn o3_a_member_that_was_fenced_commits_nothing() {
    let mut world = world();
    world.advance(45_000);
    assert_eq!(world.state(), "Empty");
    assert_eq!(world.commit(at("m1", 4, &[0])), [25]);
    assert_eq!(world.txn_commit(1, txn_commit("m1", 4, 7)), [25]);
    assert_eq!(
        world.commit(at("", -1, &[0])),
        [0],
        "an empty group takes all"
    );
}

#[test]
fn g120_gr72_a_fetch_may_name_the_member() {
    let mut world = world();
    world.commit(at("m1", 4, &[0]));
    let mut fetch = |member: Option<(&str, i32)>| {
        let command = Command::FetchOffsets(FetchRequest {
            group: Arc::from("g"),
            topics: None,
            require_stable: true,
            member: member.map(|(id, epoch)| (Arc::from(id), epoch)),
        });
        match world.ask(command) {
            Response::FetchOffsets(response) => (response.error.code(), response.topics.len()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fetch(None), (0, 1));
    assert_eq!(fetch(Some(("m1", 4))), (0, 1));
    assert_eq!(fetch(Some(("m1", 3))), (113, 0));
    assert_eq!(fetch(Some(("m3", 4))), (25, 0));
}

#[test]
fn section_7_4_offsets_of_subscribed_topics_stay() {
    let mut world = world();
    world.commit(at("m1", 4, &[0]));
    let delete = || {
        Command::DeleteOffsets(DeleteOffsetsRequest {
            group: Arc::from("g"),
            partitions: vec![(Arc::from("t"), 0), (Arc::from("u"), 0)],
        })
    };
    let mut codes = || match world.ask(delete()) {
        Response::DeleteOffsets(response) => response
            .partitions
            .iter()
            .map(|code| code.code())
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(codes(), [86, 0]);
    let group = Arc::from("g");
    let deleted = world.ask(Command::DeleteGroup { group });
    assert!(matches!(deleted, Response::DeleteGroup(code) if code.code() == 68));
}

#[test]
fn gr90_offsets_expire_by_their_commit_and_only_if_nobody_subscribes() {
    let week_ms = 7 * 24 * 60 * 60 * 1_000;
    let mut world = World::new();
    world.set_topics(&[("t", 1), ("u", 1)]);
    world.beat(joining("m1", &["t"]));
    assert_eq!(world.commit(at("m1", 2, &[0])), [0]);
    let mut passed_ms = 0;
    while passed_ms < week_ms + 1_200_000 {
        world.beat(beat("m1", 2));
        world.advance(40_000);
        passed_ms += 40_000;
    }
    assert_eq!(world.offset(false).0, 7, "subscribed");
    let other = ConsumerHeartbeatRequest {
        subscribed_topics: Some(vec![Arc::from("u")]),
        owned: Some(Partitions::new()),
        ..beat("m1", 2)
    };
    let epoch = world.beat(other).member_epoch;
    for _ in 0..20 {
        world.advance(40_000);
        world.beat(beat("m1", epoch));
    }
    assert_eq!(world.offset(false).0, -1);
    assert_ne!(
        world.state(),
        "Empty",
        "the group stays while it has members"
    );
    world.beat(beat("m1", -1));
    world.advance(600_000);
    assert!(world.groups.list().is_empty(), "GR-92");
    world.restart();
}
