//! Rebalances, sync, heartbeat, leave: G31 to G55.

use crate::member::{JOIN, Member, PROGRAM, new_group, stabilise, stable};
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::{LeaveGroupRequest, SyncGroupRequest};
use tally_testkit::broker::Broker;
use tally_testkit::client::{group_id, text, unique};
use tally_testkit::waiting::wait_until;

#[test]
fn g31_without_a_delay_one_member_is_a_generation() {
    let mut member = Member::new(&new_group());
    let response = member.join();
    assert_eq!(response.generation_id, 1);
    assert_eq!(member.sync(&[]).assignment, &b""[..]);
    assert_eq!(member.heartbeat(), 0);
}

#[test]
fn g32_a_third_member_makes_the_others_rejoin() {
    let group = new_group();
    let mut members = stable(&group, 2);
    let generation = members[0].generation;
    let mut third = Member::new(&group);
    third.take_id();
    let sent = third.send_join(JOIN);
    for member in &mut members {
        member.wait_for_rebalance();
    }
    let joins: Vec<i32> = members.iter_mut().map(|m| m.send_join(JOIN)).collect();
    for (member, join) in members.iter_mut().zip(joins) {
        let response = member.joined(JOIN, join);
        assert_eq!(
            (response.error_code, response.generation_id),
            (0, generation + 1)
        );
    }
    let response = third.joined(JOIN, sent);
    assert_eq!(
        (response.error_code, response.generation_id),
        (0, generation + 1)
    );
}

#[test]
fn g33_a_member_that_does_not_rejoin_is_left_behind() {
    let group = new_group();
    let mut members: Vec<Member> = (0..2).map(|_| Member::new(&group)).collect();
    // Who stays away is waited for so long; the others have to be quicker, on a busy machine too.
    for member in &mut members {
        member.rebalance_timeout_ms = 4000;
    }
    stabilise(&mut members);
    let mut third = Member::new(&group);
    third.rebalance_timeout_ms = 4000;
    third.take_id();
    let sent = third.send_join(JOIN);
    members[1].wait_for_rebalance();
    // G34: the leader is the one that stays away. Which of the others leads then is nobody's promise.
    let second = members[1].join_once(JOIN);
    let third = third.joined(JOIN, sent);
    assert_eq!((second.error_code, third.error_code), (0, 0));
    assert_eq!(second.leader, third.leader);
    let (leader, follower) = if second.leader == second.member_id {
        (second, third)
    } else {
        (third, second)
    };
    assert_eq!(leader.leader, leader.member_id);
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    assert_eq!(members[0].heartbeat(), 25);
}

#[test]
fn g36_a_follower_rejoins_without_a_rebalance_and_a_leader_with_one() {
    let group = new_group();
    let mut members = stable(&group, 2);
    let generation = members[0].generation;
    let response = members[1].join_once(JOIN);
    assert_eq!(
        (response.error_code, response.generation_id),
        (0, generation)
    );
    assert_eq!(members[0].heartbeat(), 0);
    // G37
    let sent = members[0].send_join(JOIN);
    members[1].wait_for_rebalance();
    assert_eq!(members[1].join_once(JOIN).generation_id, generation + 1);
    assert_eq!(members[0].joined(JOIN, sent).generation_id, generation + 1);
}

#[test]
fn g39_a_join_turns_waiting_syncs_away() {
    let group = new_group();
    let mut members = stable(&group, 2);
    // A new generation in which the leader does not sync.
    let sent = members[0].send_join(JOIN);
    members[1].wait_for_rebalance();
    members[1].join_once(JOIN);
    members[0].joined(JOIN, sent);
    let request = members[1].sync_request(&[]);
    let waiting = members[1].client.send(3, &request);
    let mut third = Member::new(&group);
    third.take_id();
    let join = third.send_join(JOIN);
    let response = members[1].client.receive::<SyncGroupRequest>(3, waiting);
    assert_eq!(response.error_code, 27);
    let joins: Vec<i32> = members.iter_mut().map(|m| m.send_join(JOIN)).collect();
    for (member, join) in members.iter_mut().zip(joins) {
        assert_eq!(member.joined(JOIN, join).error_code, 0);
    }
    assert_eq!(third.joined(JOIN, join).error_code, 0);
}

#[test]
fn g45_a_follower_waits_for_the_leaders_assignments() {
    let group = new_group();
    let mut members = stable(&group, 2);
    let sent = members[0].send_join(JOIN);
    members[1].wait_for_rebalance();
    members[1].join_once(JOIN);
    members[0].joined(JOIN, sent);
    let request = members[1].sync_request(&[]);
    let waiting = members[1].client.send(3, &request);
    // GR-51: an assignment for somebody unknown is dropped.
    let own = members[0].id.clone();
    let response = members[0].sync(&[(&own, "mine"), ("nobody", "x")]);
    assert_eq!(
        (response.error_code, &response.assignment[..]),
        (0, &b"mine"[..])
    );
    let response = members[1].client.receive::<SyncGroupRequest>(3, waiting);
    assert_eq!(
        (response.error_code, &response.assignment[..]),
        (0, &b""[..])
    );
}

#[test]
fn g46_syncs_that_are_refused() {
    let group = new_group();
    let mut member = stable(&group, 1).remove(0);
    let mut at = |generation: i32, id: &str| {
        let request = member
            .sync_request(&[])
            .with_generation_id(generation)
            .with_member_id(text(id));
        member.client.call(3, &request).error_code
    };
    assert_eq!(at(0, "nobody"), 25);
    let (generation, id) = (member.generation, member.id.clone());
    let mut at = |generation: i32| {
        let request = member.sync_request(&[]).with_generation_id(generation);
        member.client.call(3, &request).error_code
    };
    assert_eq!(at(generation - 1), 22);
    assert_eq!(at(generation + 1), 22);
    let mut named = |kind: Option<&str>, name: Option<&str>| {
        let request = member
            .sync_request(&[])
            .with_protocol_type(kind.map(text))
            .with_protocol_name(name.map(text));
        member.client.call(5, &request).error_code
    };
    assert_eq!(named(Some("consumer"), Some("range")), 0);
    assert_eq!(named(Some("consumer"), Some("other")), 23);
    assert_eq!(named(Some("connect"), Some("range")), 23);
    assert_eq!(named(None, Some("range")), 23);
    assert_eq!(named(Some("consumer"), None), 23);
    assert_eq!(member.id, id);
}

#[test]
fn g47_a_sync_in_a_rebalance_is_told_to_join_and_in_stable_gets_the_same_again() {
    let group = new_group();
    let mut members = stable(&group, 2);
    for (nth, member) in members.iter_mut().enumerate() {
        for _ in 0..2 {
            let response = member.sync(&[]);
            assert_eq!(response.error_code, 0);
            assert_eq!(response.assignment, format!("a{nth}").as_bytes());
        }
    }
    let mut third = Member::new(&group);
    third.take_id();
    let sent = third.send_join(JOIN);
    for member in &mut members {
        member.wait_for_rebalance();
        let response = member.sync(&[]);
        assert_eq!(
            (response.error_code, &response.assignment[..]),
            (27, &b""[..])
        );
    }
    let joins: Vec<i32> = members.iter_mut().map(|m| m.send_join(JOIN)).collect();
    for (member, join) in members.iter_mut().zip(joins) {
        assert_eq!(member.joined(JOIN, join).error_code, 0);
    }
    assert_eq!(third.joined(JOIN, sent).error_code, 0);
}

#[test]
fn g49_heartbeats() {
    let group = new_group();
    let mut nobody = Member::new(&group);
    nobody.id = "nobody".to_owned();
    nobody.generation = 1;
    assert_eq!(nobody.heartbeat(), 25, "absent");
    let mut member = stable(&group, 1).remove(0);
    assert_eq!(member.heartbeat(), 0, "Stable");
    assert_eq!(nobody.heartbeat(), 25);
    member.generation += 1;
    assert_eq!(member.heartbeat(), 22);
    member.generation -= 1;
    member.join_once(JOIN);
    assert_eq!(member.heartbeat(), 0, "CompletingRebalance");
    assert_eq!(member.leave().members[0].error_code, 0);
    assert_eq!(member.heartbeat(), 25, "Empty");
}

#[test]
fn g51_a_silent_member_is_removed() {
    let group = new_group();
    let mut members: Vec<Member> = (0..2).map(|_| Member::new(&group)).collect();
    members[1].session_timeout_ms = 6000;
    stabilise(&mut members);
    members[0].wait_for_rebalance();
    assert_eq!(members[1].heartbeat(), 25);
}

#[test]
fn g53_leaving() {
    let group = new_group();
    let members = stable(&group, 2);
    let mut client = crate::member::client();
    let leave = |id: &str| {
        LeaveGroupRequest::default()
            .with_group_id(group_id(&group))
            .with_member_id(text(id))
    };
    assert_eq!(client.call(2, &leave("nobody")).error_code, 25);
    let identity = |id: &str| {
        MemberIdentity::default()
            .with_member_id(text(id))
            .with_group_instance_id(None)
    };
    let request = LeaveGroupRequest::default()
        .with_group_id(group_id(&group))
        .with_members(vec![identity(&members[1].id), identity("nobody")]);
    let response = client.call(3, &request);
    assert_eq!(response.error_code, 0);
    let codes: Vec<i16> = response.members.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [0, 25]);
    assert_eq!(client.call(0, &leave(&members[0].id)).error_code, 0);
    let unknown = unique("absent");
    let request = LeaveGroupRequest::default()
        .with_group_id(group_id(&unknown))
        .with_members(vec![identity("x")]);
    let response = client.call(3, &request);
    assert_eq!(
        (response.error_code, response.members[0].error_code),
        (0, 25)
    );
}

#[test]
fn g55_the_last_to_leave_ends_a_generation() {
    let group = new_group();
    let mut member = stable(&group, 1).remove(0);
    let generation = member.generation;
    assert_eq!(member.leave().members[0].error_code, 0);
    let mut next = Member::new(&group);
    assert_eq!(next.join().generation_id, generation + 2);
}

#[test]
fn gr41_a_stable_group_goes_on_after_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let group = unique("g");
    broker.client().wait_for_group(&group);
    let mut member = Member::at(broker.address(), &group);
    member.join();
    let id = member.id.clone();
    assert_eq!(member.sync(&[(&id, "mine")]).error_code, 0);
    broker.kill_and_start();
    member.client = broker.client();
    wait_until("the coordinator", || member.heartbeat() == 0);
    assert_eq!(member.sync(&[]).assignment, &b"mine"[..]);
}
