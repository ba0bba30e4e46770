//! Joining: G10 to G23.

use crate::member::{JOIN, Member, PROGRAM, new_group, stable};
use std::time::{Duration, Instant};
use tally_testkit::broker::Broker;
use tally_testkit::client::unique;
use tally_testkit::waiting::wait_until;

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

/// Version 0 has no rebalance timeout: who does not rejoin is waited for as long as its session may be silent.
#[test]
fn g22_version_zero_waits_a_session_for_who_does_not_rejoin() {
    let broker = Broker::start(PROGRAM, &["group.min.session.timeout.ms=500"]);
    let group = unique("g");
    broker.client().wait_for_group(&group);
    let mut members: Vec<Member> = (0..2)
        .map(|_| {
            let mut member = Member::at(broker.address(), &group);
            member.session_timeout_ms = 4000;
            member
        })
        .collect();
    assert_eq!(members[0].join_once(0).error_code, 0);
    let joining = members[1].send_join(0);
    members[0].wait_for_rebalance();
    assert_eq!(members[0].join_once(0).error_code, 0);
    assert_eq!(members[1].joined(0, joining).error_code, 0);
    for member in &mut members {
        assert_eq!(member.sync(&[]).error_code, 0);
    }
    // The first one joins again; the second says that it lives, and nothing else.
    let began = Instant::now();
    let joining = members[0].send_join(0);
    wait_until("the second one is left behind", || {
        members[1].heartbeat() == 25
    });
    let response = members[0].joined(0, joining);
    assert_eq!((response.error_code, response.members.len()), (0, 1));
    // Neither at once nor after the five minutes, or the 30 s of the other tests, that newer versions may ask for.
    let waited = began.elapsed();
    assert!(
        (Duration::from_millis(3900)..Duration::from_secs(20)).contains(&waited),
        "{waited:?}"
    );
}

#[test]
fn g23_the_protocol_name_of_an_error() {
    let group = new_group();
    let mut member = Member::new(&group);
    member.id = "invented".to_owned();
    assert_eq!(member.join_once(6).protocol_name.as_deref(), Some(""));
    assert_eq!(member.join_once(7).protocol_name, None);
}
