//! What operators ask about groups: G82, G83, G125, and the rows of 6.4 for them.

use crate::member::{JOIN, Member, client, new_group, stable};
use bytes::Bytes;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest, OffsetDeleteRequest,
};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, group_id, text, topic_name, unique};

/// Subscription to `t`: version 0, one topic, no user data.
const SUBSCRIBED_TO_T: &[u8] = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";

#[track_caller]
fn describe(client: &mut Client, version: i16, group: &str) -> DescribedGroup {
    let request = DescribeGroupsRequest::default()
        .with_groups(vec![group_id(group)])
        .with_include_authorized_operations(version >= 3);
    let mut response = client.call(version, &request);
    assert_eq!(response.groups.len(), 1);
    assert_eq!(&*response.groups[0].group_id, group);
    response.groups.remove(0)
}

#[track_caller]
fn list(client: &mut Client, states: &[&str], types: &[&str]) -> Vec<ListedGroup> {
    let request = ListGroupsRequest::default()
        .with_states_filter(states.iter().map(|name| text(name)).collect())
        .with_types_filter(types.iter().map(|name| text(name)).collect());
    let response = client.call(5, &request);
    assert_eq!(response.error_code, 0);
    response.groups
}

#[track_caller]
fn delete(client: &mut Client, groups: &[&str]) -> Vec<(String, i16)> {
    let groups = groups.iter().map(|group| group_id(group)).collect();
    let request = DeleteGroupsRequest::default().with_groups_names(groups);
    let response = client.call(2, &request);
    let rows = response.results.iter();
    let mut codes: Vec<(String, i16)> = rows
        .map(|row| (row.group_id.to_string(), row.error_code))
        .collect();
    codes.sort_unstable();
    codes
}

/// OffsetDelete of partitions 0 of `topics`: the top-level code and one for each.
#[track_caller]
fn delete_offsets(client: &mut Client, group: &str, topics: &[&str]) -> (i16, Vec<i16>) {
    let asked = topics.iter().map(|topic| {
        OffsetDeleteRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![OffsetDeleteRequestPartition::default()])
    });
    let request = OffsetDeleteRequest::default()
        .with_group_id(group_id(group))
        .with_topics(asked.collect());
    let response = client.call(0, &request);
    // Apache Kafka answers in an order of its own, and without topics if the group's error stands for all.
    let rows = topics.iter().filter_map(|name| {
        let topic = response.topics.iter().find(|topic| &&*topic.name.0 == name);
        topic.map(|topic| topic.partitions[0].error_code)
    });
    (response.error_code, rows.collect())
}

#[test]
fn g82_offsets_in_use_stay() {
    let mut client = client();
    let group = new_group();
    let other = unique("t");
    client.create_topic(&other, 1, &[]);
    if client.topic("t").error_code != 0 {
        // Another test of this name may have been quicker.
        let _code = client.try_create_topic("t", 1, &[]);
    }
    assert_eq!(delete_offsets(&mut client, &group, &[&other]).0, 69);
    assert_eq!(delete_offsets(&mut client, "", &[&other]).0, 24);
    for topic in ["t", &other] {
        assert_eq!(client.commit_offset(&group, topic, 0, 7), 0);
    }
    let mut member = Member::new(&group);
    member.take_id();
    let mut request = member.join_request(JOIN);
    request.protocols[0].metadata = Bytes::from_static(SUBSCRIBED_TO_T);
    let correlation_id = member.client.send(JOIN, &request);
    assert_eq!(member.joined(JOIN, correlation_id).error_code, 0);
    member.sync(&[]);
    assert_eq!(
        delete_offsets(&mut client, &group, &["t", &other, "nope"]),
        (0, vec![86, 0, 3])
    );
    assert_eq!(client.committed_offset(&group, &other, 0, false), (0, -1));
    assert_eq!(client.committed_offset(&group, "t", 0, false), (0, 7));
    // What is not there is deleted.
    assert_eq!(delete_offsets(&mut client, &group, &[&other]), (0, vec![0]));
    member.leave();
    assert_eq!(delete_offsets(&mut client, &group, &["t"]), (0, vec![0]));
}

#[test]
fn g82_a_live_group_of_another_type_keeps_everything() {
    let mut client = client();
    let (group, topic) = (new_group(), unique("t"));
    client.create_topic(&topic, 1, &[]);
    let mut member = Member::new(&group);
    member.protocol_type = "connect";
    member.join();
    assert_eq!(delete_offsets(&mut client, &group, &[&topic]), (68, vec![]));
}

#[test]
fn g83_only_groups_without_members_are_deleted() {
    let mut broker = Broker::start(crate::member::PROGRAM, &[]);
    let mut client = broker.client();
    let (live, empty, absent) = (unique("g"), unique("g"), unique("g"));
    let topic = unique("t");
    client.create_topic(&topic, 1, &[]);
    client.wait_for_coordinators();
    let mut member = Member::at(broker.address(), &live);
    member.join();
    assert_eq!(client.commit_offset(&empty, &topic, 0, 5), 0);
    let named = |group: &str, code| (group.to_owned(), code);
    let mut expected = [
        named("", 69),
        named(&live, 68),
        named(&absent, 69),
        named(&empty, 0),
    ];
    expected.sort_unstable();
    let asked = [&live, &absent, &empty, "", &live];
    assert_eq!(delete(&mut client, &asked), expected);
    assert_eq!(client.committed_offset(&empty, &topic, 0, false), (0, -1));
    broker.kill_and_start();
    let mut client = broker.client();
    client.wait_for_group(&empty);
    assert_eq!(client.committed_offset(&empty, &topic, 0, false), (0, -1));
    assert_eq!(delete(&mut client, &[&empty]), [named(&empty, 69)]);
}

#[test]
fn g125_lists_are_filtered_by_state_and_type() {
    let mut client = client();
    let (live, simple, topic) = (new_group(), new_group(), unique("t"));
    client.create_topic(&topic, 1, &[]);
    let _members = stable(&live, 1);
    assert_eq!(client.commit_offset(&simple, &topic, 0, 1), 0);
    for (states, types, has_live, has_simple) in [
        (&[][..], &[][..], true, true),
        (&[" sTaBlE"], &["CLASSIC"], true, false),
        (&["empty"], &[], false, true),
        (&["Stable", "Empty"], &["consumer", "classic"], true, true),
        (&["nonsense"], &[], false, false),
        (&[], &["consumer"], false, false),
        (&[], &["nonsense"], false, false),
    ] {
        let rows = list(&mut client, states, types);
        let find = |group: &str| rows.iter().find(|row| &*row.group_id == group);
        let shown = |row: &ListedGroup| {
            let words = [&row.protocol_type, &row.group_state, &row.group_type];
            words.map(ToString::to_string)
        };
        let expected = ["consumer", "Stable", "classic"].map(str::to_owned);
        assert_eq!(find(&live).map(shown), has_live.then_some(expected));
        let expected = ["", "Empty", "classic"].map(str::to_owned);
        assert_eq!(find(&simple).map(shown), has_simple.then_some(expected));
    }
    for version in 0..=5 {
        let response = client.call(version, &ListGroupsRequest::default());
        let row = response.groups.iter().find(|row| *row.group_id == *live);
        let row = row.expect("the group is listed");
        assert_eq!(row.group_state.is_empty(), version < 4, "v{version}");
        assert_eq!(row.group_type.is_empty(), version < 5, "v{version}");
    }
}

#[test]
fn gr101_a_group_that_nobody_knows_is_dead() {
    let mut client = client();
    let group = new_group();
    for version in 0..=6 {
        let row = describe(&mut client, version, &group);
        assert_eq!(&*row.group_state, "Dead", "v{version}");
        assert_eq!(row.error_code, if version >= 6 { 69 } else { 0 });
        assert_eq!(row.error_message.is_some(), version >= 6);
        let operations = if (3..=5).contains(&version) {
            3400
        } else {
            i32::MIN
        };
        assert_eq!(row.authorized_operations, operations, "v{version}");
        assert!(row.members.is_empty());
    }
}

#[test]
fn gr101_metadata_is_shown_when_stable_and_assignments_always() {
    let mut client = client();
    let group = new_group();
    let mut members = stable(&group, 1);
    for version in 0..=6 {
        let row = describe(&mut client, version, &group);
        assert_eq!((row.error_code, row.error_message), (0, None));
        assert_eq!(&*row.group_state, "Stable");
        assert_eq!(
            (&*row.protocol_type, &*row.protocol_data),
            ("consumer", "range")
        );
        let member = &row.members[0];
        assert_eq!(*member.member_id, *members[0].id);
        assert!(!member.member_metadata.is_empty());
        assert_eq!(member.member_assignment, "a0");
        assert!(member.client_host.starts_with('/'));
        assert!(!member.client_id.is_empty());
    }
    members[0].join_once(JOIN);
    let row = describe(&mut client, 6, &group);
    assert_eq!(&*row.group_state, "CompletingRebalance");
    assert_eq!(&*row.protocol_data, "");
    assert_eq!(row.members[0].member_metadata, "");
    assert_eq!(row.members[0].member_assignment, "a0");
    members[0].leave();
    let row = describe(&mut client, 6, &group);
    assert_eq!((&*row.group_state, row.members.len()), ("Empty", 0));
}
