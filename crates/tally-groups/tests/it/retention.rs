//! Expiry of offsets and groups (KIP-211): section 7.5.

use crate::world::{
    World, commit, join, leaving, offset, rejoin, settings, subscription, sync, txn_commit,
};
use std::sync::Arc;
use tally_groups::{CommitRequest, JoinRequest, OffsetToCommit, Settings};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const CHECK_MS: u64 = 600_000;

#[test]
fn g79_an_explicit_expiry_goes_before_the_brokers_retention() {
    let mut world = World::new();
    let request = CommitRequest {
        retention_ms: Some(1_000),
        ..commit("", -1, 5)
    };
    world.commit(request);
    world.advance(CHECK_MS - 1_000);
    assert_eq!(world.offset(true), (5, 0), "until somebody looks");
    world.advance(1_000);
    assert_eq!(world.offset(true), (-1, 0));
    assert_eq!(world.state(), "absent");
    world.restart();
}

#[test]
fn g80_gr90_offsets_of_an_empty_group_count_from_when_it_became_so() {
    let mut world = World::new();
    let long_session = JoinRequest {
        session_timeout_ms: 1_800_000,
        ..join("m1")
    };
    let joined = world.join(long_session);
    world.sync(sync("m1", joined.generation, &[]));
    world.commit(commit("m1", joined.generation, 5));
    world.advance(CHECK_MS * 2);
    world.leave(vec![leaving("m1")]);
    world.advance(7 * DAY_MS - 1_000);
    assert_eq!(world.offset(true), (5, 0));
    world.advance(CHECK_MS);
    assert_eq!(world.offset(true), (-1, 0));
    assert_eq!(world.state(), "absent");
    world.restart();
    assert_eq!(world.groups.next_deadline_ms(), None);
}

#[test]
fn g80_gr90_a_simple_groups_offsets_count_from_each_commit() {
    let mut world = World::new();
    let on = |partition| CommitRequest {
        offsets: vec![OffsetToCommit {
            partition,
            ..offset(5)
        }],
        ..commit("", -1, 0)
    };
    world.commit(on(0));
    world.advance(DAY_MS);
    world.commit(on(1));
    world.advance(6 * DAY_MS + CHECK_MS);
    assert_eq!(world.fetch(0, true).offset, -1);
    assert_eq!(world.fetch(1, true).offset, 5);
    world.advance(DAY_MS);
    assert_eq!(world.state(), "absent");
}

#[test]
fn g80_gr90_in_a_live_group_only_what_nobody_subscribes_to_expires() {
    let mut world = World::new();
    let request = |request: JoinRequest| JoinRequest {
        session_timeout_ms: 1_800_000,
        protocols: vec![(Arc::from("range"), subscription(&["u"]))],
        ..request
    };
    let joined = world.join(request(join("m1")));
    world.sync(sync("m1", joined.generation, &[]));
    let of = |topic: &str| OffsetToCommit {
        topic: Arc::from(topic),
        ..offset(5)
    };
    let both = CommitRequest {
        offsets: vec![of("t"), of("u")],
        ..commit("m1", joined.generation, 0)
    };
    world.commit(both);
    for _ in 0..(7 * DAY_MS + CHECK_MS) / CHECK_MS + 1 {
        world.advance(CHECK_MS);
        assert_eq!(world.heartbeat("m1", joined.generation), 0);
    }
    let left: Vec<String> = world
        .log
        .iter()
        .rev()
        .take(1)
        .map(|entry| format!("{entry:?}"))
        .collect();
    assert!(left[0].contains("\"t\"") && left[0].contains("None"));
    assert_eq!(world.offset(true), (-1, 0));
    assert_eq!(world.state(), "Stable");
    world.restart();
    // Without subscriptions that can be read nothing expires.
    let joined = world.join(JoinRequest {
        protocols: vec![(Arc::from("range"), bytes::Bytes::from_static(b"?"))],
        ..request(rejoin("m1"))
    });
    world.sync(sync("m1", joined.generation, &[]));
    world.commit(commit("m1", joined.generation, 6));
    for _ in 0..(7 * DAY_MS + CHECK_MS) / CHECK_MS + 1 {
        world.advance(CHECK_MS);
        world.heartbeat("m1", joined.generation);
    }
    assert_eq!(world.offset(true), (6, 0));
}

#[test]
fn g98_o12_gr91_what_is_pending_keeps_an_offset_and_its_group() {
    let mut world = World::new();
    world.commit(commit("", -1, 3));
    world.txn_commit(1, txn_commit("", -1, 9));
    world.advance(8 * DAY_MS);
    assert_eq!(world.offset(false), (3, 0));
    world.marker(1, true);
    assert_eq!(world.offset(true), (9, 0));
    world.advance(CHECK_MS);
    assert_eq!(world.state(), "absent");
}

#[test]
fn gr92_an_empty_group_without_offsets_goes_at_the_next_look() {
    let mut world = World::new();
    world.stable("m1");
    world.leave(vec![leaving("m1")]);
    assert_eq!(world.state(), "Empty");
    world.advance(CHECK_MS);
    assert_eq!(world.state(), "absent");
    world.restart();
}

#[test]
fn a_look_writes_batches_of_a_bounded_size() {
    let mut world = World::with(Settings {
        offsets_retention_ms: 0,
        ..settings()
    });
    for group in 0..3 {
        let of = |partition| OffsetToCommit {
            partition,
            ..offset(5)
        };
        let request = CommitRequest {
            group: Arc::from(format!("g{group}")),
            offsets: (0..1_500).map(of).collect(),
            ..commit("", -1, 0)
        };
        world.commit(request);
    }
    let mut now = world.now();
    now.monotonic_ms += CHECK_MS;
    let decision = world.groups.expire(now);
    assert_eq!(decision.records.len(), 1_000);
    world.advance(CHECK_MS + 1_000);
    assert!(world.groups.list().is_empty());
}
