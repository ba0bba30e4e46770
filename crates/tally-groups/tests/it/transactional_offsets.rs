//! Offsets in transactions: section 7.3, and section 6 of exactly-once.md.

use crate::world::{World, commit, join, leaving, offset, txn_commit};
use std::sync::Arc;
use tally_groups::{
    Command, DeleteOffsetsRequest, OffsetToCommit, Response, TransactionalCommitRequest,
};
use tally_protocol::{ErrorCode, ProducerId, TopicId};

/// A committed 3, and 9 pending for producer 1.
fn pending() -> World {
    let mut world = World::new();
    assert_eq!(world.commit(commit("", -1, 3)), [0]);
    assert_eq!(world.txn_commit(1, txn_commit("", -1, 9)), [0]);
    world
}

#[test]
fn g90_o9_pending_offsets_are_unstable_and_not_visible() {
    let mut world = pending();
    assert_eq!(world.offset(false), (3, 0));
    let unstable = world.fetch(0, true);
    assert_eq!(unstable.error, ErrorCode::UnstableOffsetCommit);
    assert_eq!((unstable.offset, unstable.leader_epoch), (-1, -1));
    assert_eq!(&*unstable.metadata, "");
    assert_eq!(world.fetch(1, true).error, ErrorCode::None);
    assert!(world.groups.has_pending(ProducerId(1)));
    assert!(!world.groups.has_pending(ProducerId(2)));
}

#[test]
fn g90_gr84_a_marker_decides() {
    for (commit, expected) in [(true, 9), (false, 3)] {
        let mut world = pending();
        world.marker(1, commit);
        assert_eq!(world.offset(true), (expected, 0));
        assert!(!world.groups.has_pending(ProducerId(1)));
        world.restart();
        assert_eq!(world.offset(true), (expected, 0));
    }
}

#[test]
fn g91_o14_gr122_what_is_pending_stays_so_over_a_restart() {
    for (commit, expected) in [(true, 9), (false, 3)] {
        let mut world = pending();
        world.restart();
        assert_eq!(world.offset(true), (-1, 88));
        world.marker(1, commit);
        assert_eq!(world.offset(true), (expected, 0));
    }
}

#[test]
fn g92_o8_o10_a_later_plain_commit_wins() {
    let mut world = pending();
    assert_eq!(world.commit(commit("", -1, 5)), [0]);
    assert_eq!(world.offset(false), (5, 0), "visible when answered");
    assert_eq!(world.offset(true), (-1, 88));
    world.marker(1, true);
    assert_eq!(world.offset(true), (5, 0));
    world.restart();
    assert_eq!(world.offset(true), (5, 0));
}

#[test]
fn o7_the_last_commit_of_a_transaction_replaces_earlier_ones() {
    let mut world = pending();
    world.txn_commit(1, txn_commit("", -1, 10));
    world.marker(1, true);
    assert_eq!(world.offset(true), (10, 0));
}

#[test]
fn g93_each_producer_has_its_own_pending_offsets() {
    let mut world = pending();
    world.txn_commit(2, txn_commit("", -1, 20));
    world.marker(2, true);
    assert_eq!(world.offset(false), (20, 0));
    assert_eq!(world.offset(true), (-1, 88), "the other is still open");
    world.marker(1, true);
    assert_eq!(
        world.offset(true),
        (20, 0),
        "which lies further on in the log"
    );
}

#[test]
fn a_marker_for_nobody_changes_nothing() {
    let mut world = pending();
    world.marker(7, true);
    assert_eq!(world.offset(true), (-1, 88));
    world.restart();
}

#[test]
fn g94_a_refused_commit_writes_nothing() {
    let mut world = World::new();
    world.stable_pair();
    let records = world.log.len();
    let nameless = TransactionalCommitRequest {
        group: Arc::default(),
        ..txn_commit("", -1, 9)
    };
    let unknown_instance = TransactionalCommitRequest {
        instance_id: Some(Arc::from("i")),
        ..txn_commit("m1", 2, 9)
    };
    assert_eq!(world.txn_commit(1, txn_commit("m1", 1, 9)), [22]);
    assert_eq!(world.txn_commit(1, txn_commit("m7", 2, 9)), [25]);
    assert_eq!(world.txn_commit(1, txn_commit("m1", -1, 9)), [22]);
    assert_eq!(world.txn_commit(1, unknown_instance), [25]);
    assert_eq!(world.txn_commit(1, nameless), [24]);
    assert_eq!(world.log.len(), records);
    assert!(!world.groups.has_pending(ProducerId(1)));
}

#[test]
fn g95_gr81_a_producer_without_a_member_may_commit_to_a_live_group() {
    let mut world = World::new();
    world.stable("m1");
    assert_eq!(world.txn_commit(1, txn_commit("", -1, 9)), [0]);
}

#[test]
fn g96_gr82_a_rebalance_that_completes_does_not_refuse_it() {
    let mut world = World::new();
    world.join(join("m1"));
    assert_eq!(world.txn_commit(1, txn_commit("m1", 1, 9)), [0]);
}

#[test]
fn o3_an_absent_group_knows_no_generation() {
    let mut world = World::new();
    assert_eq!(world.txn_commit(1, txn_commit("m1", 1, 9)), [22]);
    assert_eq!(world.txn_commit(1, txn_commit("", -1, 9)), [0]);
    assert_eq!(world.state(), "Empty", "a pending offset makes a group");
    world.marker(1, false);
    assert_eq!(world.state(), "absent");
}

#[test]
fn o4_gr85_long_metadata_is_refused_for_its_partition_only() {
    let mut world = World::new();
    let long = OffsetToCommit {
        metadata: Arc::from("x".repeat(4_097)),
        partition: 1,
        ..offset(9)
    };
    let request = TransactionalCommitRequest {
        offsets: vec![long, offset(9)],
        ..txn_commit("", -1, 9)
    };
    assert_eq!(world.txn_commit(1, request), [12, 0]);
    world.marker(1, true);
    assert_eq!(world.offset(true), (9, 0));
    assert_eq!(world.fetch(1, true).offset, -1);
}

#[test]
fn o15_a_zombies_offsets_hold_back_the_new_owner() {
    let mut world = World::new();
    world.stable("m1");
    // m1 commits in its transaction, then its partitions go to m2.
    assert_eq!(world.txn_commit(1, txn_commit("m1", 1, 9)), [0]);
    world.leave(vec![leaving("m1")]);
    world.stable("m2");
    assert_eq!(world.offset(true), (-1, 88));
    assert_eq!(world.txn_commit(1, txn_commit("m1", 1, 11)), [25]);
    world.marker(1, true);
    assert_eq!(world.offset(true), (9, 0));
}

#[track_caller]
fn stays_deleted(mut world: World) {
    assert_eq!(world.offset(true), (-1, 0));
    assert!(!world.groups.has_pending(ProducerId(1)));
    world.marker(1, true);
    assert_eq!(world.offset(true), (-1, 0));
    world.restart();
    assert_eq!(world.offset(true), (-1, 0));
}

#[test]
fn g97_gr86_o11_a_deleted_offset_does_not_come_back() {
    let mut world = pending();
    let request = DeleteOffsetsRequest {
        group: Arc::from("g"),
        partitions: vec![(Arc::from("t"), 0)],
    };
    world.ask(Command::DeleteOffsets(request));
    stays_deleted(world);
}

#[test]
fn gr86_o11_a_deleted_group_does_not_come_back() {
    let mut world = World::new();
    // Only pending: it gets a tombstone, too.
    world.txn_commit(1, txn_commit("", -1, 9));
    let group = Arc::from("g");
    assert_eq!(
        world.ask(Command::DeleteGroup { group }),
        Response::DeleteGroup(ErrorCode::None)
    );
    stays_deleted(world);
}

#[test]
fn o13_gr93_a_deleted_topic_does_not_come_back() {
    let mut world = pending();
    world.ask(Command::TopicDeleted {
        topic: Arc::from("t"),
        topic_id: TopicId([1; 16]),
    });
    stays_deleted(world);
}

#[test]
fn gr93_a_transaction_on_the_topic_made_since_is_left_alone() {
    let mut world = World::new();
    world.commit(commit("", -1, 3));
    let request = TransactionalCommitRequest {
        offsets: vec![OffsetToCommit {
            topic_id: TopicId([2; 16]),
            ..offset(9)
        }],
        ..txn_commit("", -1, 9)
    };
    world.txn_commit(1, request);
    world.ask(Command::TopicDeleted {
        topic: Arc::from("t"),
        topic_id: TopicId([1; 16]),
    });
    world.marker(1, true);
    assert_eq!(world.offset(true), (9, 0));
}
