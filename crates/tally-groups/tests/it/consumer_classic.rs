//! Members of both protocols in one group, and groups that change their protocol (section 9.8).

use crate::consumer::{joining, partitions};
use crate::world::{
    World, beat, commit, heartbeat, join, leaving, rejoin, settings, sync, topic_id,
};
use bytes::Bytes;
use std::sync::Arc;
use tally_groups::{
    Command, ConsumerHeartbeatRequest, JoinRequest, JoinResponse, MigrationPolicy, NewMember,
    Response, Settings,
};
use tally_protocol::records::consumer_group::Partitions;

fn strings(out: &mut Vec<u8>, names: &[&str]) {
    out.extend(
        u32::try_from(names.len())
            .expect("tests are short")
            .to_be_bytes(),
    );
    for name in names {
        out.extend(
            u16::try_from(name.len())
                .expect("tests are short")
                .to_be_bytes(),
        );
        out.extend(name.as_bytes());
    }
}

fn with_partitions(out: &mut Vec<u8>, numbers: &[i32]) {
    if numbers.is_empty() {
        return out.extend([0; 4]);
    }
    strings(out, &["t"]);
    out.extend(
        u32::try_from(numbers.len())
            .expect("tests are short")
            .to_be_bytes(),
    );
    for number in numbers {
        out.extend(number.to_be_bytes());
    }
}

/// A subscription to `t` of version 1 by somebody who has these partitions.
fn subscription(owned: &[i32]) -> Bytes {
    let mut out = vec![0, 1];
    strings(&mut out, &["t"]);
    out.extend([0xff; 4]);
    with_partitions(&mut out, owned);
    Bytes::from(out)
}

/// An assignment of version 1.
fn assignment(numbers: &[i32]) -> Bytes {
    let mut out = vec![0, 1];
    with_partitions(&mut out, numbers);
    out.extend([0xff; 4]);
    Bytes::from(out)
}

fn classic(request: JoinRequest, owned: &[i32]) -> JoinRequest {
    JoinRequest {
        protocols: vec![(Arc::from("range"), subscription(owned))],
        ..request
    }
}

/// `m1` and `m2` in a classic group, with two partitions of `t` each.
fn classic_pair(settings: Settings) -> World {
    let mut world = World::with(settings);
    world.set_topics(&[("t", 4)]);
    let joined = world.join(classic(join("m1"), &[]));
    let mut request = sync("m1", joined.generation, &[]);
    request.assignments = vec![(Arc::from("m1"), assignment(&[0, 1, 2, 3]))];
    world.sync(request);
    let second = world.send(Command::Join(classic(join("m2"), &[])));
    let joined = world.join(classic(rejoin("m1"), &[]));
    assert_eq!(world.joined(second).generation, joined.generation);
    let second = world.send(Command::Sync(sync("m2", joined.generation, &[])));
    let mut request = sync("m1", joined.generation, &[]);
    request.assignments = vec![
        (Arc::from("m1"), assignment(&[0, 1])),
        (Arc::from("m2"), assignment(&[2, 3])),
    ];
    world.sync(request);
    world.synced(second);
    assert_eq!(world.state(), "Stable");
    assert_eq!(joined.generation, 2);
    world
}

/// What a classic member is given now; it joins with what it has until it is told nothing else.
#[track_caller]
fn settle(world: &mut World, member_id: &str, owned: &mut Vec<i32>) -> i32 {
    for _ in 0..4 {
        let joined = world.join(classic(rejoin(member_id), owned));
        assert_eq!(joined.error.code(), 0);
        assert_eq!(joined.protocol.as_deref(), Some("range"));
        assert!(joined.leader.is_empty() && joined.members.is_empty());
        let synced = world.sync(sync(member_id, joined.generation, &[]));
        if synced.error.code() == 0 {
            *owned = numbers(&synced.assignment);
        }
        if world.heartbeat(member_id, joined.generation) == 0 {
            return joined.generation;
        }
    }
    panic!("{member_id} is told to rejoin for ever");
}

/// The numbers of `t` in an assignment.
fn numbers(bytes: &[u8]) -> Vec<i32> {
    assert_eq!(bytes[..2], [0, 1], "in the version of the subscription");
    if bytes[2..6] == [0; 4] {
        return Vec::new();
    }
    assert_eq!(bytes[..9], [0, 1, 0, 0, 0, 1, 0, 1, b't']);
    let count = usize::from(bytes[12]);
    let numbers = bytes[13..13 + 4 * count].chunks(4);
    numbers
        .map(|number| i32::from_be_bytes(number.try_into().expect("four bytes")))
        .collect()
}

#[track_caller]
fn owned_of(world: &World, member_id: &str) -> Partitions {
    let description = world.groups.describe_consumer("g").expect("it is there");
    let member = description.members.into_iter();
    member
        .into_iter()
        .find(|member| &*member.member_id == member_id)
        .expect("it is a member")
        .assigned
}

#[test]
fn g122_a_live_classic_group_is_taken_over() {
    let mut world = classic_pair(settings());
    assert_eq!(world.commit(commit("m1", 2, 40)), [0]);
    let third = world.beat(joining("m3", &["t"]));
    assert_eq!((third.error.code(), third.member_epoch), (0, 3));
    assert_eq!(third.assignment, Some(Partitions::new()));
    world.restart();
    assert_eq!(owned_of(&world, "m1"), partitions(&[("t", &[0, 1])]));
    assert_eq!(world.heartbeat("m1", 2), 27);
    assert_eq!(world.heartbeat("m2", 2), 27);
    let (mut first, mut second) = (vec![0, 1], vec![2, 3]);
    settle(&mut world, "m1", &mut first);
    settle(&mut world, "m2", &mut second);
    let third = world.beat(beat("m3", 3));
    assert_eq!(third.member_epoch, 3);
    let third = owned_of(&world, "m3");
    let mut all: Vec<i32> = [first, second].concat();
    all.extend(&third[&topic_id("t")]);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    assert_eq!(world.state(), "Stable");
    assert_eq!(world.offset(false).0, 40, "offsets are kept");
    world.restart();
}

#[test]
fn g122_parked_joins_and_syncs_are_ended() {
    let mut world = classic_pair(settings());
    let parked = world.send(Command::Join(classic(rejoin("m2"), &[2])));
    let third = world.beat(joining("m3", &["t"]));
    assert_eq!(third.error.code(), 0);
    let response = world.joined(parked);
    assert_eq!(response.error.code(), 27);
    assert_eq!(&*response.member_id, "m2");
}

#[test]
fn g122_who_still_reads_is_not_robbed_while_the_group_rebalances() {
    let mut world = classic_pair(settings());
    world.send(Command::Join(classic(join("m9"), &[])));
    world.beat(joining("m3", &["t"]));
    assert_eq!(owned_of(&world, "m1"), partitions(&[("t", &[0, 1])]));
    assert_eq!(owned_of(&world, "m2"), partitions(&[("t", &[2, 3])]));
    assert_eq!(owned_of(&world, "m3"), Partitions::new());
}

#[test]
fn g123_the_last_of_the_new_protocol_leaves() {
    let mut world = classic_pair(settings());
    world.beat(joining("m3", &["t"]));
    let (mut first, mut second) = (vec![0, 1], vec![2, 3]);
    settle(&mut world, "m1", &mut first);
    settle(&mut world, "m2", &mut second);
    world.beat(beat("m3", -1));
    assert_eq!(world.groups.describe_consumer("g"), None);
    assert_eq!(world.state(), "PreparingRebalance");
    assert_eq!(world.heartbeat("m1", 3), 27);
    let second = world.send(Command::Join(classic(rejoin("m2"), &[])));
    let joined = world.join(classic(rejoin("m1"), &[]));
    assert_eq!(joined.generation, 4, "generations go on from the epoch");
    assert_eq!(joined.members.len(), 2);
    assert_eq!(world.joined(second).generation, 4);
    world.restart();
    assert_eq!(world.state(), "Stable");
}

#[test]
fn g123_the_last_of_the_new_protocol_is_not_heard_of() {
    let mut world = classic_pair(settings());
    world.beat(joining("m3", &["t"]));
    let mut generations = [("m1", vec![0, 1]), ("m2", vec![2, 3])]
        .map(|(id, mut owned)| (id, settle(&mut world, id, &mut owned)));
    for _ in 0..9 {
        world.advance(5_000);
        for (id, generation) in &mut generations {
            world.heartbeat(id, *generation);
        }
    }
    assert_eq!(world.groups.describe_consumer("g"), None);
    assert_eq!(world.member_ids(), ["m1", "m2"]);
}

#[test]
fn g124_the_policy_is_kept() {
    let disabled = Settings {
        migration_policy: MigrationPolicy::Disabled,
        ..settings()
    };
    let mut world = classic_pair(disabled);
    assert_eq!(world.beat(joining("m3", &["t"])).error.code(), 69);
    assert_eq!(world.state(), "Stable");
    let mut world = World::with(disabled);
    world.set_topics(&[("t", 4)]);
    world.beat(joining("m1", &["t"]));
    assert_eq!(world.join(classic(join("m2"), &[])).error.code(), 23);
    let upgrade_only = Settings {
        migration_policy: MigrationPolicy::Upgrade,
        ..settings()
    };
    let mut world = classic_pair(upgrade_only);
    world.beat(joining("m3", &["t"]));
    world.beat(beat("m3", -1));
    let description = world.groups.describe_consumer("g").expect("it stays");
    assert_eq!(description.members.len(), 2);
    settle(&mut world, "m1", &mut vec![0, 1]);
    settle(&mut world, "m2", &mut vec![2, 3]);
    assert_eq!(world.state(), "Stable");
}

#[test]
fn section_9_8_what_cannot_be_taken_over_is_refused() {
    let mut world = World::new();
    world.set_topics(&[("t", 4)]);
    world.stable("m1");
    let refused = world.beat(joining("m3", &["t"])).error.code();
    assert_eq!(refused, 69, "its metadata is no subscription");
    assert_eq!(world.state(), "Stable");
    assert_eq!(world.beat(beat("m3", 1)).error.code(), 69);
    assert_eq!(world.beat(beat("m3", -1)).error.code(), 69);
}

#[test]
fn section_9_8_groups_without_members_give_way() {
    let mut world = classic_pair(settings());
    world.leave(vec![leaving("m1"), leaving("m2")]);
    assert_eq!(world.commit(commit("", -1, 11)), [0]);
    assert_eq!(world.beat(joining("m3", &["t"])).member_epoch, 2);
    assert_eq!(world.state(), "Stable");
    world.restart();
    world.beat(beat("m3", -1));
    let joined = world.join(classic(join("m4"), &[]));
    assert_eq!((joined.error.code(), joined.generation), (0, 1));
    assert_eq!(world.state(), "CompletingRebalance");
    assert_eq!(world.offset(false).0, 11, "offsets stay");
    world.restart();
}

fn new_classic(member_id: &str) -> JoinRequest {
    classic(join(member_id), &[])
}

#[track_caller]
fn join_beside(world: &mut World, request: JoinRequest) -> JoinResponse {
    let response = world.join(request);
    assert_eq!(response.error.code(), 0);
    response
}

#[test]
fn section_9_8_a_classic_member_joins_the_others() {
    let mut world = World::new();
    world.set_topics(&[("t", 4)]);
    world.beat(joining("m1", &["t"]));
    let asked = JoinRequest {
        new_member: NewMember::AskToReturn,
        ..new_classic("m2")
    };
    let asked = world.join(asked);
    assert_eq!((asked.error.code(), &*asked.member_id), (79, "m2"));
    let joined = join_beside(&mut world, classic(rejoin("m2"), &[]));
    assert_eq!(joined.generation, 3);
    let synced = world.sync(sync("m2", 3, &[]));
    assert_eq!(synced.error.code(), 0);
    assert_eq!(numbers(&synced.assignment), Vec::<i32>::new());
    assert_eq!(world.heartbeat("m2", 3), 0, "what it waits for is not free");
    let report = |epoch, owned: &[i32]| ConsumerHeartbeatRequest {
        owned: Some(partitions(&[("t", owned)])),
        ..beat("m1", epoch)
    };
    world.beat(report(2, &[0, 1, 2, 3]));
    world.beat(report(2, &[0, 1]));
    assert_eq!(world.heartbeat("m2", 3), 27, "now it is");
    let mut owned = Vec::new();
    settle(&mut world, "m2", &mut owned);
    assert_eq!(owned, [2, 3]);
    assert_eq!(world.commit(commit("m2", 3, 5)), [0]);
    assert_eq!(world.commit(commit("m2", 4, 5)), [22]);
    assert_eq!(world.heartbeat("m2", 4), 22);
    assert_eq!(
        world.heartbeat("m1", 3),
        25,
        "it does not speak this protocol"
    );
    let other = JoinRequest {
        protocol_type: Arc::from("connect"),
        ..new_classic("m4")
    };
    assert_eq!(world.join(other).error.code(), 23);
    let other = JoinRequest {
        protocols: vec![(Arc::from("sticky"), subscription(&[]))],
        ..new_classic("m4")
    };
    assert_eq!(world.join(other).error.code(), 23);
    assert_eq!(world.leave(vec![leaving("m2"), leaving("m5")]), [0, 25]);
    world.restart();
}

#[test]
fn section_9_8_classic_members_have_timers() {
    let mut world = World::new();
    world.set_topics(&[("t", 4)]);
    world.beat(joining("m1", &["t"]));
    join_beside(&mut world, new_classic("m2"));
    let given_back = ConsumerHeartbeatRequest {
        owned: Some(Partitions::new()),
        ..beat("m1", 2)
    };
    world.beat(given_back);
    // It never asks for its assignment.
    for _ in 0..3 {
        world.advance(5_000);
        assert_eq!(world.heartbeat("m2", 3), 27, "there is more for it");
    }
    world.advance(4_999);
    assert_eq!(world.heartbeat("m2", 3), 27);
    world.advance(1);
    assert_eq!(world.heartbeat("m2", 3), 25);
    let joined = join_beside(&mut world, new_classic("m3"));
    world.sync(sync("m3", joined.generation, &[]));
    world.advance(10_000);
    assert_eq!(world.heartbeat("m3", joined.generation), 25, "its session");
}

#[test]
fn section_9_8_a_static_member_changes_its_protocol() {
    let mut world = World::new();
    world.set_topics(&[("t", 4)]);
    let with_instance = |request| ConsumerHeartbeatRequest {
        instance_id: Some(Arc::from("i")),
        ..request
    };
    world.beat(with_instance(joining("m1", &["t"])));
    world.beat(with_instance(beat("m1", -2)));
    let request = JoinRequest {
        instance_id: Some(Arc::from("i")),
        ..new_classic("m2")
    };
    let joined = join_beside(&mut world, request);
    assert_eq!(&*joined.member_id, "m2");
    assert_eq!(world.groups.describe_consumer("g"), None, "it was the last");
    assert_eq!(world.member_ids(), ["m2"]);
    world.restart();
    let back = world.beat(with_instance(joining("m3", &["t"])));
    assert_eq!(back.error.code(), 0);
    assert_eq!(owned_of(&world, "m3"), partitions(&[("t", &[0, 1, 2, 3])]));
    world.restart();
}

#[test]
fn gr130_a_refused_conversion_did_not_happen() {
    let mut world = classic_pair(settings());
    let request = ConsumerHeartbeatRequest {
        topics: Arc::clone(&world.topics),
        ..joining("m3", &["t"])
    };
    world.refuse(Command::ConsumerHeartbeat(Box::new(request)));
    assert_eq!(world.state(), "Stable");
    assert_eq!(world.heartbeat("m1", 2), 0);
    let response = world.ask(Command::Heartbeat(heartbeat("m2", 2)));
    assert!(matches!(response, Response::Heartbeat(code) if code.is_none()));
    world.beat(joining("m3", &["t"]));
    world.refuse(Command::ConsumerHeartbeat(Box::new(beat("m3", -1))));
    assert!(world.groups.describe_consumer("g").is_some());
    assert_eq!(world.groups.describe("g"), None);
    assert_eq!(world.beat(beat("m3", 3)).error.code(), 0);
}
