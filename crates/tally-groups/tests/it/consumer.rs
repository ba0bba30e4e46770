//! Groups of the `consumer` protocol: joining, reconciliation, epochs, leaving (sections 9.1 to 9.7).

use crate::world::{World, beat, settings, topic_id};
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_groups::{
    Command, ConsumerHeartbeatRequest, ConsumerHeartbeatResponse, ConsumerSettings, Response,
    Settings,
};
use tally_protocol::records::consumer_group::Partitions;

/// Partitions of topics, by name.
pub(crate) fn partitions(topics: &[(&str, &[i32])]) -> Partitions {
    let topics = topics.iter();
    topics
        .map(|(name, numbers)| (topic_id(name), numbers.iter().copied().collect()))
        .collect()
}

/// A first heartbeat that subscribes to these topics.
pub(crate) fn joining(member_id: &str, topics: &[&str]) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        rebalance_timeout_ms: 20_000,
        subscribed_topics: Some(topics.iter().map(|topic| Arc::from(*topic)).collect()),
        owned: Some(Partitions::new()),
        ..beat(member_id, 0)
    }
}

fn reporting(member_id: &str, epoch: i32, owned: &[i32]) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        owned: Some(if owned.is_empty() {
            Partitions::new()
        } else {
            partitions(&[("t", owned)])
        }),
        ..beat(member_id, epoch)
    }
}

fn static_member(request: ConsumerHeartbeatRequest, instance: &str) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        instance_id: Some(Arc::from(instance)),
        ..request
    }
}

/// The epoch and the numbers of topic `t`; `None`: as before.
#[track_caller]
fn seen(response: &ConsumerHeartbeatResponse) -> (i32, Option<Vec<i32>>) {
    assert_eq!(response.error.code(), 0);
    let assignment = response.assignment.as_ref();
    let numbers = assignment.map(|assignment| {
        let numbers = assignment.get(&topic_id("t"));
        numbers.map_or_else(Vec::new, |numbers| numbers.iter().copied().collect())
    });
    (response.member_epoch, numbers)
}

fn world() -> World {
    let mut world = World::new();
    world.set_topics(&[("t", 4)]);
    world
}

/// `m1` and `m2` with two partitions of `t` each, at epoch 3.
fn pair() -> World {
    let mut world = world();
    world.beat(joining("m1", &["t"]));
    world.beat(joining("m2", &["t"]));
    world.beat(reporting("m1", 2, &[0, 1, 2, 3]));
    world.beat(reporting("m1", 2, &[0, 1]));
    world.beat(reporting("m2", 3, &[]));
    assert_eq!(world.state(), "Stable");
    world
}

#[track_caller]
fn refused(world: &mut World, request: ConsumerHeartbeatRequest, code: i16) {
    let before = world.log.len();
    assert_eq!(world.beat(request).error.code(), code);
    assert_eq!(world.log.len(), before, "a refusal writes nothing");
}

#[test]
fn g110_a_new_member_gets_everything() {
    let mut world = world();
    let response = world.beat(joining("m1", &["t"]));
    assert_eq!(seen(&response), (2, Some(vec![0, 1, 2, 3])));
    assert_eq!(response.heartbeat_interval_ms, 5_000);
    assert_eq!(world.state(), "Stable");
    let response = world.beat(reporting("m1", 2, &[0, 1, 2, 3]));
    assert_eq!(seen(&response), (2, None), "nothing has changed");
    let before = world.log.len();
    world.beat(beat("m1", 2));
    assert_eq!(world.log.len(), before, "a heartbeat writes nothing");
    world.restart();
}

#[test]
fn g111_partitions_are_given_back_before_they_are_given_out() {
    let mut world = world();
    world.beat(joining("m1", &["t"]));
    let second = world.beat(joining("m2", &["t"]));
    assert_eq!(seen(&second), (3, Some(vec![])));
    assert_eq!(world.state(), "Reconciling");
    let first = world.beat(reporting("m1", 2, &[0, 1, 2, 3]));
    assert_eq!(seen(&first), (2, Some(vec![0, 1])));
    world.restart();
    let second = world.beat(reporting("m2", 3, &[]));
    assert_eq!(seen(&second), (3, None), "still with the first");
    let first = world.beat(beat("m1", 2));
    assert_eq!(seen(&first), (2, None), "it has not said that it gave back");
    let first = world.beat(reporting("m1", 2, &[0, 1, 3]));
    assert_eq!(seen(&first), (2, None), "not all of it");
    let first = world.beat(reporting("m1", 2, &[0, 1]));
    assert_eq!(seen(&first), (3, None));
    let second = world.beat(reporting("m2", 3, &[]));
    assert_eq!(seen(&second), (3, Some(vec![2, 3])));
    assert_eq!(world.state(), "Stable");
    world.restart();
}

#[test]
fn g112_gr111_who_does_not_give_back_is_fenced() {
    let mut world = world();
    world.beat(joining("m1", &["t"]));
    world.beat(joining("m2", &["t"]));
    world.beat(reporting("m1", 2, &[0, 1, 2, 3]));
    for _ in 0..4 {
        world.advance(4_000);
        world.beat(reporting("m1", 2, &[0, 1, 2, 3]));
        world.beat(beat("m2", 3));
    }
    world.advance(3_999);
    world.beat(reporting("m1", 2, &[0, 1, 2, 3]));
    world.advance(1);
    refused(&mut world, reporting("m1", 2, &[0, 1, 2, 3]), 25);
    let second = world.beat(beat("m2", 3));
    assert_eq!(seen(&second), (4, Some(vec![0, 1, 2, 3])));
}

#[test]
fn gr111_the_time_to_give_back_begins_again_after_a_restart() {
    let mut world = world();
    world.beat(joining("m1", &["t"]));
    world.beat(joining("m2", &["t"]));
    world.beat(reporting("m1", 2, &[0, 1, 2, 3]));
    world.advance(15_000);
    world.restart();
    world.advance(19_999);
    world.beat(reporting("m1", 2, &[0, 1, 2, 3]));
    world.advance(1);
    refused(&mut world, beat("m1", 2), 25);
}

#[test]
fn g113_epochs_are_checked() {
    let mut world = pair();
    refused(&mut world, beat("m1", 4), 110);
    refused(&mut world, beat("m1", 2), 110);
    refused(&mut world, reporting("m1", 2, &[0, 1, 2]), 110);
    let again = world.beat(reporting("m1", 2, &[0]));
    assert_eq!(seen(&again), (3, None), "the answer before was lost");
    refused(&mut world, beat("m3", 3), 25);
    let absent = ConsumerHeartbeatRequest {
        group: Arc::from("none"),
        ..beat("m1", 2)
    };
    refused(&mut world, absent, 69);
}

#[test]
fn g113_a_member_may_join_again() {
    let mut world = pair();
    let again = world.beat(joining("m1", &["t"]));
    assert_eq!(seen(&again), (3, Some(vec![0, 1])));
    assert_eq!(world.state(), "Stable");
}

#[test]
fn g115_a_static_member_comes_back_under_another_id() {
    let mut world = world();
    world.beat(static_member(joining("m1", &["t"]), "i"));
    world.beat(joining("m2", &["t"]));
    world.beat(static_member(reporting("m1", 2, &[0, 1]), "i"));
    world.beat(reporting("m1", 2, &[0, 1]));
    world.beat(reporting("m2", 3, &[]));
    refused(&mut world, static_member(joining("new", &["t"]), "i"), 111);
    refused(&mut world, static_member(beat("new", 2), "i"), 82);
    refused(&mut world, static_member(beat("m1", 3), "other"), 25);
    let again = world.beat(static_member(joining("m1", &["t"]), "i"));
    assert_eq!(seen(&again), (3, Some(vec![0, 1])), "its answer was lost");
    let left = world.beat(static_member(beat("m1", -2), "i"));
    assert_eq!(seen(&left), (-2, None));
    assert_eq!(world.state(), "Reconciling");
    world.restart();
    assert_eq!(seen(&world.beat(beat("m2", 3))), (3, None));
    let back = world.beat(static_member(joining("new", &["t"]), "i"));
    assert_eq!(seen(&back), (3, Some(vec![0, 1])));
    assert_eq!(world.state(), "Stable");
    refused(&mut world, static_member(beat("m1", 3), "i"), 82);
    assert_eq!(seen(&world.beat(beat("m2", 3))), (3, None));
    world.restart();
}

#[test]
fn g115_a_static_member_that_stays_away_is_removed() {
    let mut world = world();
    world.beat(static_member(joining("m1", &["t"]), "i"));
    world.beat(static_member(beat("m1", -2), "i"));
    world.advance(44_999);
    assert_eq!(world.state(), "Reconciling");
    world.advance(1);
    assert_eq!(world.state(), "Empty");
    let back = world.beat(static_member(joining("new", &["t"]), "i"));
    assert_eq!(seen(&back), (4, Some(vec![0, 1, 2, 3])));
}

#[test]
fn g116_who_leaves_frees_its_partitions() {
    let mut world = pair();
    assert_eq!(seen(&world.beat(beat("m1", -1))), (-1, None));
    refused(&mut world, beat("m1", -1), 25);
    assert_eq!(world.state(), "Assigning");
    let second = world.beat(beat("m2", 3));
    assert_eq!(seen(&second), (4, Some(vec![0, 1, 2, 3])));
    world.beat(beat("m2", -1));
    assert_eq!(world.state(), "Empty");
    world.restart();
    assert_eq!(world.state(), "Empty");
    let absent = ConsumerHeartbeatRequest {
        group: Arc::from("none"),
        ..beat("m1", -1)
    };
    refused(&mut world, absent, 69);
    let first = world.beat(joining("m9", &["t"]));
    assert_eq!(first.member_epoch, 6, "epochs go on");
}

#[test]
fn section_9_5_a_silent_member_is_removed() {
    let mut world = pair();
    world.advance(30_000);
    world.beat(beat("m2", 3));
    world.advance(15_000);
    refused(&mut world, beat("m1", 3), 25);
    let second = world.beat(beat("m2", 3));
    assert_eq!(seen(&second), (4, Some(vec![0, 1, 2, 3])));
    world.advance(45_000);
    assert_eq!(world.state(), "Empty");
    world.restart();
}

fn by_regex(member_id: &str, regex: &str) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        subscribed_topics: None,
        subscribed_regex: Some(Arc::from(regex)),
        ..joining(member_id, &[])
    }
}

#[test]
fn g117_topics_that_match_are_found_also_later() {
    let mut world = World::new();
    world.set_topics(&[("t", 1), ("t1", 1), ("x", 1)]);
    let joined = world.beat(by_regex("m1", "t.*"));
    let expected = partitions(&[("t", &[0]), ("t1", &[0])]);
    assert_eq!(joined.assignment, Some(expected));
    assert_eq!(joined.member_epoch, 2);
    refused(&mut world, by_regex("m2", "["), 128);
    world.set_topics(&[("t", 1), ("t1", 1), ("x", 1), ("t9", 1)]);
    world.advance(1_000);
    let next = world.beat(beat("m1", 2));
    let expected = partitions(&[("t", &[0]), ("t1", &[0]), ("t9", &[0])]);
    assert_eq!((next.member_epoch, next.assignment), (3, Some(expected)));
    world.restart();
    let before = world.log.len();
    world.beat(beat("m1", 3));
    assert_eq!(world.log.len(), before, "nothing new after a restart");
    world.set_topics(&[("x", 1)]);
    world.advance(1_000);
    let next = world.beat(beat("m1", 3));
    assert_eq!(next.assignment, Some(Partitions::new()), "they are gone");
}

#[test]
fn g117_names_and_an_expression_are_one_subscription() {
    let mut world = World::new();
    world.set_topics(&[("t", 1), ("u", 1), ("v", 1)]);
    let both = ConsumerHeartbeatRequest {
        subscribed_topics: Some(vec![Arc::from("u")]),
        ..by_regex("m1", "t")
    };
    let joined = world.beat(both);
    let expected = partitions(&[("t", &[0]), ("u", &[0])]);
    assert_eq!(joined.assignment, Some(expected));
    let without = ConsumerHeartbeatRequest {
        subscribed_regex: Some(Arc::from("")),
        ..beat("m1", 2)
    };
    let next = world.beat(without);
    assert_eq!(next.assignment, Some(partitions(&[("u", &[0])])));
    assert_eq!(next.member_epoch, 2, "t is to be given back first");
    let owned = ConsumerHeartbeatRequest {
        owned: Some(partitions(&[("u", &[0])])),
        ..beat("m1", 2)
    };
    assert_eq!(world.beat(owned).member_epoch, 3);
    world.restart();
}

#[test]
fn g117_topics_made_in_a_row_are_looked_up_once() {
    let mut world = World::new();
    world.set_topics(&[("t", 1)]);
    world.beat(by_regex("m1", "t.*"));
    world.advance(1_000);
    world.set_topics(&[("t", 1), ("t1", 1)]);
    assert_eq!(world.beat(beat("m1", 2)).member_epoch, 3);
    world.set_topics(&[("t", 1), ("t1", 1), ("t2", 1)]);
    assert_eq!(world.beat(beat("m1", 3)).member_epoch, 3);
    world.advance(1_000);
    assert_eq!(world.beat(beat("m1", 3)).member_epoch, 4);
}

#[test]
fn g118_a_topic_grows() {
    let mut world = pair();
    world.set_topics(&[("t", 8)]);
    assert_eq!(
        seen(&world.beat(beat("m1", 3))),
        (4, Some(vec![0, 1, 4, 5]))
    );
    assert_eq!(
        seen(&world.beat(beat("m2", 3))),
        (4, Some(vec![2, 3, 6, 7]))
    );
    world.restart();
}

#[test]
fn g118_a_topic_is_made_later_or_made_again() {
    let mut world = World::new();
    world.set_topics(&[]);
    assert_eq!(seen(&world.beat(joining("m1", &["t"]))), (2, Some(vec![])));
    world.set_topics(&[("t", 2)]);
    assert_eq!(seen(&world.beat(beat("m1", 2))), (3, Some(vec![0, 1])));
}

#[test]
fn section_9_3_the_interval_between_assignments_is_kept() {
    let mut world = world();
    let with_interval = |request| ConsumerHeartbeatRequest {
        settings: ConsumerSettings::default(),
        ..request
    };
    let first = world.beat(with_interval(joining("m1", &["t"])));
    assert_eq!(first.member_epoch, 2, "the first is not delayed");
    let second = world.beat(with_interval(joining("m2", &["t"])));
    assert_eq!(seen(&second), (2, Some(vec![])));
    assert_eq!(world.state(), "Assigning");
    world.advance(999);
    assert_eq!(world.beat(with_interval(beat("m2", 2))).member_epoch, 2);
    world.advance(1);
    assert_eq!(world.beat(with_interval(beat("m2", 2))).member_epoch, 3);
}

#[test]
fn section_9_4_a_changed_subscription_gives_back_at_once() {
    let mut world = World::new();
    world.set_topics(&[("t", 2), ("u", 2)]);
    world.beat(joining("m1", &["t", "u"]));
    let changed = ConsumerHeartbeatRequest {
        subscribed_topics: Some(vec![Arc::from("u")]),
        ..beat("m1", 2)
    };
    let response = world.beat(changed);
    assert_eq!(response.assignment, Some(partitions(&[("u", &[0, 1])])));
    assert_eq!(response.member_epoch, 2);
    let owned = ConsumerHeartbeatRequest {
        owned: Some(partitions(&[("u", &[0, 1])])),
        ..beat("m1", 2)
    };
    assert_eq!(world.beat(owned).member_epoch, 3);
}

#[test]
fn section_9_3_a_full_group_takes_nobody() {
    let mut world = World::with(Settings {
        consumer_max_size: 1,
        ..settings()
    });
    world.set_topics(&[("t", 4)]);
    world.beat(joining("m1", &["t"]));
    refused(&mut world, joining("m2", &["t"]), 81);
    assert_eq!(seen(&world.beat(joining("m1", &["t"]))).0, 2);
}

#[test]
fn g114_a_full_request_is_answered_in_full() {
    let mut world = pair();
    let full = ConsumerHeartbeatRequest {
        member_epoch: 3,
        owned: Some(partitions(&[("t", &[0, 1])])),
        ..joining("m1", &["t"])
    };
    assert_eq!(seen(&world.beat(full)), (3, Some(vec![0, 1])));
}

#[test]
fn section_9_7_most_members_choose_the_assignor() {
    let mut world = World::new();
    world.set_topics(&[("t", 2), ("u", 2)]);
    let with = |member_id: &str, assignor: &str| ConsumerHeartbeatRequest {
        assignor: Some(Arc::from(assignor)),
        ..joining(member_id, &["t", "u"])
    };
    let assignor = |world: &World| world.groups.describe_consumer("g").unwrap().assignor;
    world.beat(joining("m0", &["t"]));
    assert_eq!(assignor(&world), "uniform");
    world.beat(with("m1", "range"));
    assert_eq!(assignor(&world), "range");
    world.beat(with("m2", "uniform"));
    assert_eq!(assignor(&world), "uniform", "of two the first in the list");
    world.beat(with("m3", "range"));
    assert_eq!(assignor(&world), "range");
}

#[test]
fn g121_a_restart_in_the_middle_changes_nothing() {
    let mut world = world();
    world.beat(joining("m1", &["t"]));
    world.restart();
    world.beat(joining("m2", &["t"]));
    world.restart();
    world.beat(reporting("m1", 2, &[0, 1, 2, 3]));
    world.restart();
    let first = world.beat(reporting("m1", 2, &[0, 1]));
    assert_eq!(seen(&first), (3, None));
    world.restart();
    let second = world.beat(reporting("m2", 3, &[]));
    assert_eq!(seen(&second), (3, Some(vec![2, 3])));
    world.restart();
    world.advance(44_999);
    assert_eq!(world.state(), "Stable", "a whole session after the restart");
    world.advance(1);
    assert_eq!(world.state(), "Empty");
}

#[test]
fn gr130_what_the_log_refuses_did_not_happen() {
    let mut world = pair();
    let decision = world.refuse(Command::ConsumerHeartbeat(Box::new(
        ConsumerHeartbeatRequest {
            topics: Arc::clone(&world.topics),
            ..joining("m3", &["t"])
        },
    )));
    assert!(!decision.records.is_empty());
    assert_eq!(world.state(), "Stable");
    refused(&mut world, beat("m3", 4), 25);
    assert_eq!(seen(&world.beat(beat("m1", 3))), (3, None));
    world.advance(45_000);
    assert_eq!(world.state(), "Empty");
}

#[test]
fn gr102_a_description_shows_all_of_it() {
    let mut world = pair();
    let description = world.groups.describe_consumer("g").unwrap();
    assert_eq!((description.epoch, description.assignment_epoch), (3, 3));
    let ids: Vec<&str> = description.members.iter().map(|m| &*m.member_id).collect();
    assert_eq!(ids, ["m1", "m2"]);
    let first = &description.members[0];
    assert_eq!(first.assigned, partitions(&[("t", &[0, 1])]));
    assert_eq!(first.assigned, first.target);
    assert_eq!(first.topics, [Arc::from("t")]);
    assert!(!first.is_classic);
    assert_eq!(world.groups.describe("g"), None, "no classic group");
    let kinds: BTreeSet<&str> = world.groups.list().iter().map(|g| g.kind.name()).collect();
    assert_eq!(kinds, BTreeSet::from(["consumer"]));
    world.beat(beat("m1", -1));
    world.beat(beat("m2", -1));
    let group = Arc::from("g");
    let deleted = world.ask(Command::DeleteGroup { group });
    assert!(matches!(deleted, Response::DeleteGroup(code) if code.is_none()));
    assert_eq!(world.groups.describe_consumer("g"), None);
    world.restart();
    assert!(world.groups.list().is_empty());
}
