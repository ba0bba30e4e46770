//! Committed offsets: sections 7.1, 7.2, 7.4.

use crate::world::{Entry, WALL_START_MS, World, commit, join, offset, subscription, sync};
use std::sync::Arc;
use tally_groups::{
    Command, CommitRequest, DeleteOffsetsRequest, FetchRequest, FetchedTopic, GroupState,
    JoinRequest, OffsetToCommit, Response, TopicToFetch,
};
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::{ErrorCode, TopicId};

#[track_caller]
fn fetch_all(world: &mut World, require_stable: bool) -> Vec<FetchedTopic> {
    let request = FetchRequest {
        group: Arc::from("g"),
        topics: None,
        require_stable,
        member: None,
    };
    match world.ask(Command::FetchOffsets(request)) {
        Response::FetchOffsets(response) => response.topics,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn fetch_by_id(world: &mut World, topic_id: TopicId) -> i64 {
    let topic = TopicToFetch {
        topic: Arc::from("t"),
        topic_id,
        partitions: vec![0],
    };
    let request = FetchRequest {
        group: Arc::from("g"),
        topics: Some(vec![topic]),
        require_stable: true,
        member: None,
    };
    match world.ask(Command::FetchOffsets(request)) {
        Response::FetchOffsets(response) => response.topics[0].partitions[0].offset,
        other => panic!("{other:?}"),
    }
}

#[test]
fn g70_offsets_alone_make_a_group() {
    let mut world = World::new();
    assert_eq!(world.commit(commit("", -1, 5)), [0]);
    let listed = world.groups.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(&*listed[0].group, "g");
    assert_eq!(&*listed[0].protocol_type, "");
    assert_eq!(listed[0].state, GroupState::Empty);
    world.restart();
    assert_eq!(world.groups.list(), listed);
}

#[test]
fn gr61_a_member_id_is_not_looked_at_without_a_generation_in_an_empty_group() {
    let mut world = World::new();
    world.commit(commit("", -1, 5));
    assert_eq!(world.commit(commit("whoever", -1, 6)), [0]);
    assert_eq!(world.offset(true), (6, 0));
}

#[test]
fn the_empty_group_id_may_hold_offsets() {
    let mut world = World::new();
    let request = CommitRequest {
        group: Arc::default(),
        ..commit("", -1, 5)
    };
    assert_eq!(world.commit(request), [0]);
}

#[test]
fn g73_long_metadata_is_refused_for_its_partition_only() {
    let with = |partition, metadata: String| OffsetToCommit {
        partition,
        metadata: Arc::from(metadata),
        ..offset(5)
    };
    let mut world = World::new();
    let request = CommitRequest {
        offsets: vec![
            with(0, "x".repeat(4_096)),
            with(1, "x".repeat(4_097)),
            // Two bytes each, but one UTF-16 code unit.
            with(2, "ä".repeat(4_096)),
            with(3, "ä".repeat(4_097)),
            // Four bytes each, and two code units.
            with(4, "🦀".repeat(2_048)),
            with(5, "🦀".repeat(2_049)),
        ],
        ..commit("", -1, 0)
    };
    assert_eq!(world.commit(request), [0, 12, 0, 12, 0, 12]);
    assert_eq!(world.fetch(0, true).offset, 5);
    assert_eq!(world.fetch(1, true).offset, -1);
}

#[test]
fn gr65_any_offset_is_stored() {
    let mut world = World::new();
    for at in [100, 5, 0, -7, i64::MAX] {
        assert_eq!(world.commit(commit("", -1, at)), [0]);
        assert_eq!(world.offset(true), (at, 0));
    }
}

#[test]
fn gr67_gr69_a_request_is_one_batch_and_the_last_entry_wins() {
    let mut world = World::new();
    let request = CommitRequest {
        offsets: vec![offset(5), offset(6)],
        ..commit("", -1, 0)
    };
    assert_eq!(world.commit(request), [0, 0]);
    assert_eq!(world.log.len(), 2);
    assert_eq!(world.offset(true), (6, 0));
}

#[test]
fn gr71_what_is_not_there_is_minus_one_without_an_error() {
    let mut world = World::new();
    let fetched = world.fetch(0, true);
    assert_eq!((fetched.offset, fetched.leader_epoch), (-1, -1));
    assert_eq!(
        (&*fetched.metadata, fetched.error),
        ("", ErrorCode::None),
        "of an unknown group"
    );
    assert!(fetch_all(&mut world, true).is_empty());
    world.commit(commit("", -1, 5));
    assert_eq!(world.fetch(1, true).offset, -1);
}

#[test]
fn g76_everything_is_listed() {
    let mut world = World::new();
    let of = |topic: &str, partition| OffsetToCommit {
        topic: Arc::from(topic),
        partition,
        ..offset(5)
    };
    let request = CommitRequest {
        offsets: vec![of("u", 1), of("t", 0), of("u", 0)],
        ..commit("", -1, 0)
    };
    world.commit(request);
    let topics = fetch_all(&mut world, true);
    let found: Vec<_> = topics
        .iter()
        .map(|topic| (&*topic.topic, topic.partitions.len()))
        .collect();
    assert_eq!(found, [("t", 1), ("u", 2)]);
}

#[test]
fn gr73_gn3_everything_includes_what_is_only_pending_if_it_has_to_be_stable() {
    let mut world = World::new();
    world.txn_commit(1, crate::world::txn_commit("", -1, 9));
    assert!(fetch_all(&mut world, false).is_empty());
    let topics = fetch_all(&mut world, true);
    let partition = &topics[0].partitions[0];
    assert_eq!(partition.error, ErrorCode::UnstableOffsetCommit);
    assert_eq!((partition.offset, partition.leader_epoch), (-1, -1));
}

#[test]
fn g78_offsets_survive_a_restart() {
    let mut world = World::new();
    world.commit(commit("", -1, 5));
    let before = world.fetch(0, true);
    assert_eq!((before.offset, before.leader_epoch), (5, 5));
    assert_eq!(&*before.metadata, "note");
    world.restart();
    assert_eq!(world.fetch(0, true), before);
}

#[test]
fn gr66_a_commit_may_bring_its_own_expiry() {
    let mut world = World::new();
    let request = CommitRequest {
        retention_ms: Some(1_000),
        ..commit("", -1, 5)
    };
    world.commit(request);
    let Entry::Record(
        OffsetsRecord::Offset {
            value: Some(value), ..
        },
        None,
    ) = &world.log[0]
    else {
        panic!("{:?}", world.log[0]);
    };
    assert_eq!(value.commit_timestamp, WALL_START_MS + 1_000);
    assert_eq!(value.expire_timestamp, WALL_START_MS + 2_000);
    world.restart();
}

#[test]
fn gr75_a_topic_that_was_made_again_has_no_offset() {
    let mut world = World::new();
    world.commit(commit("", -1, 5));
    assert_eq!(fetch_by_id(&mut world, TopicId([1; 16])), 5);
    assert_eq!(fetch_by_id(&mut world, TopicId([2; 16])), -1);
    assert_eq!(fetch_by_id(&mut world, TopicId::ZERO), 5);
}

#[track_caller]
fn delete(world: &mut World, topics: &[&str]) -> (i16, Vec<i16>) {
    let partitions = topics.iter().map(|&topic| (Arc::from(topic), 0)).collect();
    let request = DeleteOffsetsRequest {
        group: Arc::from("g"),
        partitions,
    };
    match world.ask(Command::DeleteOffsets(request)) {
        Response::DeleteOffsets(response) => {
            let codes = response.partitions.iter().map(|code| code.code());
            (response.error.code(), codes.collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn g82_offsets_of_subscribed_topics_are_not_deleted() {
    let mut world = World::new();
    assert_eq!(delete(&mut world, &["t"]), (69, vec![]));
    let request = JoinRequest {
        protocols: vec![(Arc::from("range"), subscription(&["u"]))],
        ..join("m1")
    };
    let joined = world.join(request);
    world.sync(sync("m1", joined.generation, &[]));
    world.commit(commit("m1", joined.generation, 5));
    assert_eq!(delete(&mut world, &["u", "t", "none"]), (0, vec![86, 0, 0]));
    assert_eq!(world.offset(true), (-1, 0));
    world.restart();

    let mut world = World::new();
    let request = JoinRequest {
        protocol_type: Arc::from("connect"),
        ..join("m1")
    };
    world.join(request);
    assert_eq!(delete(&mut world, &["t"]), (68, vec![]));
}

#[test]
fn g83_a_group_is_deleted_with_its_offsets() {
    let mut world = World::new();
    world.stable("m1");
    world.commit(commit("m1", 1, 5));
    let group = || Command::DeleteGroup {
        group: Arc::from("g"),
    };
    assert_eq!(
        world.ask(group()),
        Response::DeleteGroup(ErrorCode::NonEmptyGroup)
    );
    world.leave(vec![crate::world::leaving("m1")]);
    assert_eq!(world.ask(group()), Response::DeleteGroup(ErrorCode::None));
    assert_eq!(world.state(), "absent");
    assert_eq!(
        world.ask(group()),
        Response::DeleteGroup(ErrorCode::GroupIdNotFound)
    );
    world.restart();
    assert_eq!(world.state(), "absent");
    assert_eq!(world.join(join("m2")).generation, 1);
}

#[test]
fn g81_gr93_a_deleted_topics_offsets_go() {
    let mut world = World::new();
    let with_id = |topic_id, partition| OffsetToCommit {
        topic_id,
        partition,
        ..offset(5)
    };
    let request = CommitRequest {
        offsets: vec![
            with_id(TopicId([1; 16]), 0),
            with_id(TopicId::ZERO, 1),
            with_id(TopicId([2; 16]), 2),
        ],
        ..commit("", -1, 0)
    };
    world.commit(request);
    let deleted = Command::TopicDeleted {
        topic: Arc::from("t"),
        topic_id: TopicId([1; 16]),
    };
    assert_eq!(world.ask(deleted), Response::TopicDeleted);
    assert_eq!(world.fetch(0, true).offset, -1);
    assert_eq!(world.fetch(1, true).offset, -1);
    assert_eq!(world.fetch(2, true).offset, 5, "of the topic made since");
    world.restart();
}
