//! Static members: G60 to G64, G54.

use crate::member::{JOIN, Member, new_group, stabilise};
use kafka_protocol::messages::LeaveGroupRequest;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use tally_testkit::client::{group_id, text};

/// A Stable group of a leader and a follower with the instances `i0` and `i1`.
#[track_caller]
fn pair(group: &str) -> Vec<Member> {
    let mut members: Vec<Member> = ["i0", "i1"]
        .map(|instance| Member::new(group).with_instance(instance))
        .into();
    stabilise(&mut members);
    members
}

#[test]
fn g60_a_static_follower_comes_back_without_a_rebalance() {
    let group = new_group();
    let mut members = pair(&group);
    let generation = members[0].generation;
    let mut again = Member::new(&group).with_instance("i1");
    let response = again.join_once(JOIN);
    assert_eq!(
        (response.error_code, response.generation_id),
        (0, generation)
    );
    assert_ne!(again.id, members[1].id);
    assert!(again.id.starts_with("i1-"), "{}", again.id);
    assert_eq!(again.sync(&[]).assignment, &b"a1"[..]);
    assert_eq!(members[0].heartbeat(), 0, "no rebalance");
    // G64: the one before is told that another process has its instance.
    assert_eq!(members[1].heartbeat(), 82);
    assert_eq!(members[1].sync(&[]).error_code, 82);
    assert_eq!(members[1].join_once(JOIN).error_code, 82);
}

#[test]
fn g61_a_static_leader_comes_back() {
    let group = new_group();
    let mut members = pair(&group);
    let old = members[0].id.clone();
    let mut again = Member::new(&group).with_instance("i0");
    let response = again.join_once(8);
    assert_eq!(response.error_code, 0);
    assert_eq!(&*response.leader, old);
    assert!(response.members.is_empty());
    let mut once_more = Member::new(&group).with_instance("i0");
    let response = once_more.join_once(9);
    assert_eq!(response.error_code, 0);
    assert!(response.skip_assignment);
    assert_eq!(response.members.len(), 2);
    assert_eq!(response.leader, response.member_id);
    assert_eq!(members[1].heartbeat(), 0);
}

#[test]
fn g54_an_admin_removes_a_static_member_by_its_instance() {
    let group = new_group();
    let mut members = pair(&group);
    let identity = MemberIdentity::default()
        .with_member_id(text(""))
        .with_group_instance_id(Some(text("i1")));
    let unknown = MemberIdentity::default()
        .with_member_id(text(""))
        .with_group_instance_id(Some(text("i9")));
    let request = LeaveGroupRequest::default()
        .with_group_id(group_id(&group))
        .with_members(vec![identity, unknown]);
    let response = crate::member::client().call(3, &request);
    assert_eq!(response.error_code, 0);
    let codes: Vec<i16> = response.members.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [0, 25]);
    members[0].wait_for_rebalance();
}
