//! Rules of groups that no case of the catalogue looks at by itself: GR-38, GR-42, GR-50, GR-120, GR-134.

use crate::consumer::joining;
use crate::world::{Entry, World, beat, join, leaving, rejoin, sync};
use std::sync::Arc;
use tally_groups::{Command, ConsumerHeartbeatRequest, JoinRequest, NewMember, Response};
use tally_protocol::ErrorCode;
use tally_protocol::records::consumer_group::ConsumerGroupRecord;
use tally_protocol::records::offsets_log::OffsetsRecord;

#[test]
fn gr38_the_first_member_leads_and_then_the_first_that_remains() {
    let mut world = World::new();
    assert_eq!(&*world.stable("m1").leader, "m1");
    let m2 = world.send(Command::Join(join("m2")));
    let m3 = world.send(Command::Join(join("m3")));
    world.join(rejoin("m1"));
    for asked in [m2, m3] {
        assert_eq!(&*world.joined(asked).leader, "m1");
    }
    assert_eq!(world.leave(vec![leaving("m1")]), [0]);
    // In whatever order they come back.
    let m3 = world.send(Command::Join(rejoin("m3")));
    let joined = world.join(rejoin("m2"));
    assert_eq!((&*joined.leader, joined.members.len()), ("m2", 2));
    assert_eq!(&*world.joined(m3).leader, "m2");
}

#[test]
fn gr42_a_group_that_wrote_nothing_is_gone_after_a_restart() {
    let mut world = World::new();
    let asked = world.join(JoinRequest {
        new_member: NewMember::AskToReturn,
        ..join("m1")
    });
    assert_eq!(asked.error, ErrorCode::MemberIdRequired);
    assert!(world.log.is_empty(), "nothing to remember");
    world.restart();
    assert!(world.groups.list().is_empty());
    assert_eq!(world.state(), "absent");
}

#[test]
fn gr50_who_has_synced_is_waited_for_no_longer() {
    let mut world = World::new();
    world.stable("m1");
    let m2 = world.send(Command::Join(join("m2")));
    world.join(rejoin("m1"));
    world.joined(m2);
    // The follower first: it waits, and is not to be removed for that.
    let m2 = world.send(Command::Sync(sync("m2", 2, &[])));
    world.advance(9_000);
    assert_eq!(world.heartbeat("m1", 2), 0);
    let assignments = [("m1", "one"), ("m2", "two")];
    world.sync(sync("m1", 2, &assignments));
    assert_eq!(&world.synced(m2).assignment[..], b"two");
    // Far beyond the time to sync.
    for _ in 0..10 {
        world.advance(9_000);
        assert_eq!((world.heartbeat("m1", 2), world.heartbeat("m2", 2)), (0, 0));
    }
    assert_eq!(world.member_ids(), ["m1", "m2"]);
}

/// What the log says is gone, from there on: the kind of record and whose.
fn tombstones(world: &World, from: usize) -> Vec<String> {
    let records = world.log[from..].iter().filter_map(|entry| match entry {
        Entry::Record(OffsetsRecord::Consumer { record, .. }, _) => Some(record),
        _ => None,
    });
    let name = |record: &ConsumerGroupRecord| match record {
        ConsumerGroupRecord::Current(id, None) => Some(format!("current {id}")),
        ConsumerGroupRecord::Target(id, None) => Some(format!("target {id}")),
        ConsumerGroupRecord::TargetEpoch(None) => Some("target epoch".to_owned()),
        ConsumerGroupRecord::Member(id, None) => Some(format!("member {id}")),
        ConsumerGroupRecord::Regex(regex, None) => Some(format!("regex {regex}")),
        ConsumerGroupRecord::Epoch(None) => Some("epoch".to_owned()),
        _ => None,
    };
    records.filter_map(name).collect()
}

/// Whoever replays the log with the order of Kafka's own records in mind finds no member of a group that is gone.
#[test]
fn gr120_what_hangs_on_a_record_goes_before_it() {
    let mut world = World::new();
    world.set_topics(&[("t", 3)]);
    world.beat(ConsumerHeartbeatRequest {
        subscribed_regex: Some(Arc::from("t.*")),
        ..joining("m1", &["t"])
    });
    let from = world.log.len();
    assert!(world.beat(beat("m1", -1)).error.is_none());
    let mut gone = tombstones(&world, from);
    let regex = gone.iter().position(|name| name == "regex t.*");
    gone.remove(regex.expect("nobody uses it"));
    assert_eq!(gone, ["current m1", "target m1", "member m1"]);
    let from = world.log.len();
    let group = Arc::from("g");
    let deleted = world.ask(Command::DeleteGroup { group });
    assert!(matches!(deleted, Response::DeleteGroup(code) if code.is_none()));
    assert_eq!(tombstones(&world, from), ["target epoch", "epoch"]);
    world.restart();
    assert!(world.groups.list().is_empty());
}

/// A machine that slept: nobody was heard of, so nobody is there, as in Kafka.
#[test]
fn gr134_after_a_long_pause_all_sessions_are_over() {
    let mut world = World::new();
    world.stable_pair();
    world.advance(300_000);
    assert_eq!(world.state(), "Empty");
    assert_eq!(
        (world.heartbeat("m1", 2), world.heartbeat("m2", 2)),
        (25, 25)
    );
    assert_eq!(world.stable("m3").generation, 4, "the count goes on");
}
