//! JoinGroup: sections 5.1 and 5.2.

use crate::world::{World, join, leaving, protocols, rejoin, settings, sync};
use std::sync::Arc;
use tally_groups::{Command, JoinRequest, NewMember, Response, Settings};
use tally_protocol::ErrorCode;

fn ask_to_return(member_id: &str) -> JoinRequest {
    JoinRequest {
        new_member: NewMember::AskToReturn,
        ..join(member_id)
    }
}

/// The answer to one join of an absent group: code and member id.
#[track_caller]
fn check(request: JoinRequest, expected: ErrorCode, member_id: &str) {
    let mut world = World::new();
    let response = world.join(request);
    assert_eq!(response.error, expected);
    assert_eq!(&*response.member_id, member_id);
    if expected != ErrorCode::None {
        assert_eq!(response.generation, -1);
        assert_eq!(&*response.leader, "");
        assert_eq!(response.protocol, None);
        assert!(response.members.is_empty());
    }
}

#[test]
fn section_5_1_checks_of_an_absent_group() {
    let with_session = |session_timeout_ms| JoinRequest {
        session_timeout_ms,
        ..join("m1")
    };
    // G14.
    check(with_session(5_999), ErrorCode::InvalidSessionTimeout, "");
    check(
        with_session(1_800_001),
        ErrorCode::InvalidSessionTimeout,
        "",
    );
    check(with_session(6_000), ErrorCode::None, "m1");
    check(with_session(1_800_000), ErrorCode::None, "m1");
    // G15; the group comes before the session, and before the member id.
    let nameless = JoinRequest {
        group: Arc::default(),
        session_timeout_ms: 1,
        ..rejoin("m7")
    };
    check(nameless, ErrorCode::InvalidGroupId, "m7");
    // G16; before the protocols.
    let unknown = JoinRequest {
        protocols: Vec::new(),
        ..rejoin("m7")
    };
    check(unknown, ErrorCode::UnknownMemberId, "m7");
    // G17.
    let without_protocols = JoinRequest {
        protocols: Vec::new(),
        ..join("m1")
    };
    check(without_protocols, ErrorCode::InconsistentGroupProtocol, "");
    let without_type = JoinRequest {
        protocol_type: Arc::default(),
        ..ask_to_return("m1")
    };
    check(without_type, ErrorCode::InconsistentGroupProtocol, "");
    check(ask_to_return("c-1"), ErrorCode::MemberIdRequired, "c-1");
    // A static member is never asked to return (GR-24).
    let fixed = JoinRequest {
        instance_id: Some(Arc::from("i")),
        ..ask_to_return("i-1")
    };
    check(fixed, ErrorCode::None, "i-1");
}

#[test]
fn g10_the_id_that_was_asked_for_is_accepted() {
    let mut world = World::new();
    let first = world.join(ask_to_return("c-1"));
    assert_eq!(first.error, ErrorCode::MemberIdRequired);
    assert!(world.log.is_empty());
    let second = world.join(rejoin("c-1"));
    assert_eq!(second.error, ErrorCode::None);
    assert_eq!(second.generation, 1);
    assert_eq!(&*second.leader, "c-1");
}

#[test]
fn g12_an_id_that_is_not_used_is_dropped() {
    let mut world = World::new();
    world.join(ask_to_return("c-1"));
    world.advance(10_000);
    assert_eq!(world.join(rejoin("c-1")).error, ErrorCode::UnknownMemberId);
    // GN-2: and so is the group.
    assert_eq!(world.state(), "absent");
    assert_eq!(world.groups.next_deadline_ms(), None);
}

#[test]
fn g13_an_id_that_was_handed_out_is_waited_for() {
    for how in ["joins", "leaves", "times out"] {
        let mut world = World::new();
        world.stable("m1");
        world.join(ask_to_return("c-1"));
        let m1 = world.send(Command::Join(rejoin("m1")));
        assert_eq!(world.reply(m1), None, "{how}");
        match how {
            "joins" => {
                world.send(Command::Join(rejoin("c-1")));
            }
            "leaves" => assert_eq!(world.leave(vec![leaving("c-1")]), [0]),
            _ => world.advance(10_000),
        }
        assert_eq!(world.joined(m1).generation, 2, "{how}");
    }
}

#[test]
fn gr26_a_handed_out_id_with_an_instance_id_is_refused() {
    let mut world = World::new();
    world.join(ask_to_return("c-1"));
    let strange = JoinRequest {
        instance_id: Some(Arc::from("i")),
        ..rejoin("c-1")
    };
    let response = world.join(strange);
    assert_eq!(response.error, ErrorCode::UnknownServerError);
    assert_eq!(world.join(rejoin("c-1")).error, ErrorCode::None);
}

#[test]
fn g18_a_group_has_one_protocol_type() {
    let mut world = World::new();
    world.stable("m1");
    let other = JoinRequest {
        protocol_type: Arc::from("connect"),
        ..join("m2")
    };
    let response = world.join(other);
    assert_eq!(response.error, ErrorCode::InconsistentGroupProtocol);
    assert_eq!(world.state(), "Stable");
}

#[test]
fn g19_a_member_shares_a_protocol_with_everyone() {
    let with = |names: &[&str]| JoinRequest {
        protocols: protocols(names),
        ..join("m2")
    };
    let mut world = World::new();
    world.stable("m1");
    let refused = world.join(with(&["roundrobin"]));
    assert_eq!(refused.error, ErrorCode::InconsistentGroupProtocol);
    let m2 = world.send(Command::Join(with(&["roundrobin", "range"])));
    let m1 = world.join(rejoin("m1"));
    assert_eq!(m1.protocol.as_deref(), Some("range"));
    assert_eq!(&m1.members[1].metadata[..], b"range");
    assert_eq!(world.joined(m2).protocol.as_deref(), Some("range"));
}

#[test]
fn g20_most_votes_choose_the_protocol() {
    let mut world = World::with(Settings {
        initial_rebalance_delay_ms: 1_000,
        ..settings()
    });
    let votes: [&[&str]; 3] = [&["a", "b", "x"], &["b", "a"], &["b", "y", "a"]];
    let asked = votes.map(|names| {
        let id = format!("m{}", names.len());
        world.send(Command::Join(JoinRequest {
            protocols: protocols(names),
            ..join(&format!("{id}-{}", names[0]))
        }))
    });
    world.advance(3_000);
    let chosen = asked.map(|asked| world.joined(asked).protocol);
    assert!(chosen.iter().all(|name| name.as_deref() == Some("b")));
}

#[test]
fn gr37_the_leader_breaks_a_tie() {
    for order in [["a", "b"], ["b", "a"]] {
        let mut world = World::new();
        world.join(JoinRequest {
            protocols: protocols(&order),
            ..join("m1")
        });
        let reversed = [order[1], order[0]];
        let m2 = world.send(Command::Join(JoinRequest {
            protocols: protocols(&reversed),
            ..join("m2")
        }));
        world.join(JoinRequest {
            protocols: protocols(&order),
            ..rejoin("m1")
        });
        assert_eq!(world.joined(m2).protocol.as_deref(), Some(order[0]));
    }
}

#[test]
fn g21_a_full_group_refuses() {
    let mut world = World::with(Settings {
        max_size: 1,
        ..settings()
    });
    world.stable("m1");
    let response = world.join(ask_to_return("m2"));
    assert_eq!(response.error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(&*response.member_id, "");
    assert_eq!(world.join(rejoin("m1")).error, ErrorCode::None);
}

#[test]
fn gr22_a_group_that_is_too_large_now_keeps_those_who_rejoin_first() {
    let mut world = World::with(Settings {
        max_size: 2,
        ..settings()
    });
    world.stable_pair();
    // A pending id does not count as a member.
    let m1 = world.send(Command::Join(rejoin("m1")));
    let m2 = world.send(Command::Join(rejoin("m2")));
    assert_eq!(world.joined(m1).generation, 3);
    assert_eq!(world.joined(m2).generation, 3);
    let m3 = world.join(join("m3"));
    assert_eq!(m3.error, ErrorCode::GroupMaxSizeReached);
}

#[test]
fn section_5_2_a_member_asks_again_while_the_rebalance_completes() {
    let mut world = World::new();
    world.join(join("m1"));
    let again = world.join(rejoin("m1"));
    assert_eq!(again.generation, 1);
    assert_eq!(again.members.len(), 1);
    // With other protocols it is another generation.
    let changed = world.join(JoinRequest {
        protocols: protocols(&["sticky", "range"]),
        ..rejoin("m1")
    });
    assert_eq!(changed.generation, 2);
    assert_eq!(changed.protocol.as_deref(), Some("sticky"));
}

#[test]
fn g36_a_follower_that_asks_again_is_answered_at_once() {
    let mut world = World::new();
    world.stable_pair();
    let response = world.join(rejoin("m2"));
    assert_eq!(response.generation, 2);
    assert_eq!(&*response.leader, "m1");
    assert!(response.members.is_empty());
    assert_eq!(world.state(), "Stable");
}

#[test]
fn g37_a_leader_or_a_change_starts_a_rebalance() {
    let changed = JoinRequest {
        protocols: protocols(&["sticky", "range"]),
        ..rejoin("m2")
    };
    for request in [rejoin("m1"), changed] {
        let mut world = World::new();
        world.stable_pair();
        let asked = world.send(Command::Join(request));
        assert_eq!(world.reply(asked), None);
        assert_eq!(world.state(), "PreparingRebalance");
    }
}

#[test]
fn gr39_only_the_leader_gets_the_members() {
    let mut world = World::new();
    world.join(join("m1"));
    let m2 = world.send(Command::Join(join("m2")));
    let leader = world.join(rejoin("m1"));
    let ids: Vec<&str> = leader.members.iter().map(|m| &*m.member_id).collect();
    assert_eq!(ids, ["m1", "m2"]);
    assert_eq!(&*leader.leader, "m1");
    let follower = world.joined(m2);
    assert_eq!(&*follower.leader, "m1");
    assert!(follower.members.is_empty());
}

#[test]
fn gr53_a_join_that_is_sent_again_gets_the_same_answer() {
    let mut world = World::new();
    world.stable("m1");
    world.send(Command::Join(join("m2")));
    world.join(rejoin("m1"));
    world.sync(sync("m1", 2, &[]));
    // m2 waits for m1, over one connection and then over others.
    let changed = || JoinRequest {
        protocols: protocols(&["range", "x"]),
        ..rejoin("m2")
    };
    let asked: Vec<_> = (0..5)
        .map(|_| world.send(Command::Join(changed())))
        .collect();
    // The one that waited too long behind the others is told to come again.
    let oldest = world.joined(asked[0]);
    assert_eq!(oldest.error, ErrorCode::RebalanceInProgress);
    world.join(rejoin("m1"));
    let answers: Vec<Response> = asked[1..]
        .iter()
        .filter_map(|&asked| world.reply(asked))
        .collect();
    assert_eq!(answers.len(), 4);
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn ids_that_are_never_used_are_bounded() {
    let mut world = World::new();
    world.stable("m1");
    let now = world.now();
    for number in 0..=10_000u64 {
        let request = ask_to_return(&format!("c-{number}"));
        let to = tally_groups::ReplyTo(number);
        let decision = world.groups.decide(now, Command::Join(request), to);
        let tally_groups::Effect::Reply { response, .. } = &decision.effects[0];
        let Response::Join(response) = response else {
            panic!("{response:?}");
        };
        let expected = if number < 10_000 {
            ErrorCode::MemberIdRequired
        } else {
            ErrorCode::GroupMaxSizeReached
        };
        assert_eq!(response.error, expected, "id {number}");
    }
}
