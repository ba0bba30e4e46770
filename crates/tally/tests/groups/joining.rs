//! Joining: G10 to G23.

use crate::member::{JOIN, Member, new_group, stable};

#[test]
fn g10_a_new_member_is_given_an_id_first() {
    let mut member = Member::new(&new_group());
    let response = member.join_once(4);
    assert_eq!(response.error_code, 79);
    assert!(
        response.member_id.starts_with("tally-testkit-"),
        "{}",
        &*response.member_id
    );
    let response = member.join_once(4);
    assert_eq!((response.error_code, response.generation_id), (0, 1));
    assert_eq!(response.member_id.to_string(), member.id);
    assert_eq!(response.leader, response.member_id);
    assert_eq!(response.members.len(), 1);
}

#[test]
fn g11_old_versions_join_at_once() {
    for version in 0..=3 {
        let mut member = Member::new(&new_group());
        let response = member.join_once(version);
        assert_eq!(
            (response.error_code, response.generation_id),
            (0, 1),
            "v{version}"
        );
    }
}

#[test]
fn g14_the_session_timeout_has_bounds() {
    let group = new_group();
    for (timeout, expected) in [(5999, 26), (6000, 79), (1_800_000, 79), (1_800_001, 26)] {
        let mut member = Member::new(&group);
        member.session_timeout_ms = timeout;
        assert_eq!(member.join_once(JOIN).error_code, expected, "{timeout}");
    }
}

#[test]
fn g15_a_group_needs_a_name() {
    new_group();
    let mut member = Member::new("");
    let response = member.join_once(JOIN);
    assert_eq!(response.error_code, 24);
}

#[test]
fn g16_an_invented_id_is_unknown() {
    let group = new_group();
    let mut member = Member::new(&group);
    member.id = "invented".to_owned();
    let response = member.join_once(JOIN);
    assert_eq!(
        (response.error_code, &*response.member_id),
        (25, "invented")
    );
    stable(&group, 1);
    assert_eq!(member.join_once(JOIN).error_code, 25);
}

#[test]
fn g17_a_member_needs_protocols() {
    let mut member = Member::new(&new_group()).with_protocols(&[]);
    assert_eq!(member.join_once(JOIN).error_code, 23);
    let mut member = Member::new(&new_group());
    member.protocol_type = "";
    assert_eq!(member.join_once(JOIN).error_code, 23);
}

#[test]
fn g18_a_group_has_one_type() {
    let group = new_group();
    stable(&group, 1);
    let mut other = Member::new(&group);
    other.protocol_type = "connect";
    assert_eq!(other.join_once(JOIN).error_code, 23);
}

#[test]
fn g19_members_need_a_common_protocol() {
    let group = new_group();
    let mut first = stable(&group, 1).remove(0);
    let mut second = Member::new(&group).with_protocols(&["roundrobin"]);
    assert_eq!(second.join_once(JOIN).error_code, 23);
    let mut second = Member::new(&group).with_protocols(&["roundrobin", "range"]);
    second.take_id();
    let sent = second.send_join(JOIN);
    first.wait_for_rebalance();
    let response = first.join_once(JOIN);
    assert_eq!(response.protocol_name.as_deref(), Some("range"));
    assert_eq!(
        second.joined(JOIN, sent).protocol_name.as_deref(),
        Some("range")
    );
}

#[test]
fn g20_the_members_vote() {
    let group = new_group();
    let mut members: Vec<Member> = [["a", "b"], ["b", "a"], ["b", "a"]]
        .map(|names| Member::new(&group).with_protocols(&names))
        .into();
    crate::member::stabilise(&mut members);
    let response = members[1].join_once(JOIN);
    assert_eq!(response.error_code, 0);
    assert_eq!(response.protocol_name.as_deref(), Some("b"));
}

#[test]
fn g23_the_protocol_name_of_an_error() {
    let group = new_group();
    let mut member = Member::new(&group);
    member.id = "invented".to_owned();
    assert_eq!(member.join_once(6).protocol_name.as_deref(), Some(""));
    assert_eq!(member.join_once(7).protocol_name, None);
}
