//! What operators see and do to groups: G82, G83, G125.

use crate::member::{JOIN, client, new_group, stable};
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, ListGroupsRequest, OffsetDeleteRequest,
};
use tally_testkit::client::{Client, group_id, text, topic_name, unique};

#[track_caller]
fn describe(client: &mut Client, version: i16, group: &str) -> DescribedGroup {
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
    client.call(version, &request).groups.remove(0)
}

#[test]
fn g125_groups_are_described_as_they_live() {
    let mut client = client();
    let group = new_group();
    for (version, error) in [(5, 0), (6, 69)] {
        let absent = describe(&mut client, version, &group);
        assert_eq!((absent.error_code, &*absent.group_state), (error, "Dead"));
        assert!(absent.members.is_empty());
    }
    let mut members = stable(&group, 2);
    for version in 0..=6 {
        let live = describe(&mut client, version, &group);
        assert_eq!(
            (live.error_code, &*live.group_state),
            (0, "Stable"),
            "v{version}"
        );
        assert_eq!(
            (&*live.protocol_type, &*live.protocol_data),
            ("consumer", "range")
        );
        assert_eq!(live.members.len(), 2);
        let find = |id: &str| live.members.iter().find(|one| &*one.member_id == id);
        let leader = find(&members[0].id).expect("described");
        assert_eq!(&*leader.client_id, "tally-testkit");
        assert_eq!(&*leader.client_host, "/127.0.0.1");
        assert_eq!(leader.member_assignment, &b"a0"[..]);
        assert_eq!(leader.member_metadata.len(), 10);
    }
    let sent = members[0].send_join(JOIN);
    members[1].wait_for_rebalance();
    let live = describe(&mut client, 5, &group);
    assert_eq!(&*live.group_state, "PreparingRebalance");
    members[1].join_once(JOIN);
    members[0].joined(JOIN, sent);
    let live = describe(&mut client, 5, &group);
    assert_eq!(&*live.group_state, "CompletingRebalance");
    for member in &mut members {
        member.leave();
    }
    assert_eq!(&*describe(&mut client, 5, &group).group_state, "Empty");
}

#[test]
fn g125_groups_are_listed_and_filtered() {
    let mut client = client();
    let group = new_group();
    let _members = stable(&group, 1);
    let simple = new_group();
    let topic = unique("t");
    client.create_topic(&topic, 1, &[]);
    assert_eq!(client.commit_offset(&simple, &topic, 0, 1), 0);
    let mut list = |version: i16, states: &[&str], types: &[&str]| {
        let words = |words: &[&str]| words.iter().map(|word| text(word)).collect();
        let request = ListGroupsRequest::default()
            .with_states_filter(words(states))
            .with_types_filter(words(types));
        let response = client.call(version, &request);
        assert_eq!(response.error_code, 0);
        let own = |name: &str| name == group || name == simple;
        let mut listed: Vec<_> = response
            .groups
            .iter()
            .filter(|one| own(&one.group_id.0))
            .map(|one| (one.protocol_type.to_string(), one.group_state.to_string()))
            .collect();
        listed.sort();
        listed
    };
    let stable = ("consumer".to_owned(), "Stable".to_owned());
    let empty = (String::new(), "Empty".to_owned());
    assert_eq!(list(4, &[], &[]), [empty.clone(), stable.clone()]);
    assert_eq!(list(4, &["stable"], &[]), std::slice::from_ref(&stable));
    assert_eq!(list(4, &["Foo"], &[]), []);
    assert_eq!(list(5, &["Empty"], &["CLASSIC"]), [empty]);
    assert_eq!(list(5, &[], &["share"]), []);
    assert_eq!(list(0, &[], &[]).len(), 2);
}

#[track_caller]
fn delete_offset(client: &mut Client, group: &str, topic: &str) -> (i16, Option<i16>) {
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = OffsetDeleteRequest::default()
        .with_group_id(group_id(group))
        .with_topics(vec![topic]);
    let response = client.call(0, &request);
    let partition = response.topics.first().map(|topic| &topic.partitions[0]);
    (response.error_code, partition.map(|one| one.error_code))
}

#[test]
fn g82_offsets_are_deleted() {
    let mut client = client();
    let topic = unique("t");
    client.create_topic(&topic, 1, &[]);
    let group = new_group();
    assert_eq!(delete_offset(&mut client, &group, &topic).0, 69, "absent");
    assert_eq!(client.commit_offset(&group, &topic, 0, 5), 0);
    assert_eq!(delete_offset(&mut client, &group, "nope").1, Some(3));
    assert_eq!(delete_offset(&mut client, &group, &topic), (0, Some(0)));
    assert_eq!(client.committed_offset(&group, &topic, 0, false), (0, -1));
    let busy = new_group();
    let mut member = crate::member::Member::new(&busy);
    member.protocol_type = "connect";
    member.join();
    let id = member.id.clone();
    assert_eq!(member.sync(&[(&id, "mine")]).error_code, 0);
    assert_eq!(delete_offset(&mut client, &busy, &topic).0, 68);
}

#[test]
fn g83_groups_are_deleted() {
    let mut client = client();
    let topic = unique("t");
    client.create_topic(&topic, 1, &[]);
    let (live, absent, empty) = (new_group(), new_group(), new_group());
    let _members = stable(&live, 1);
    assert_eq!(client.commit_offset(&empty, &topic, 0, 5), 0);
    let names = [&live, &absent, &empty].map(|name| group_id(name));
    let request = DeleteGroupsRequest::default().with_groups_names(names.to_vec());
    let response = client.call(2, &request);
    let code = |name: &str| {
        let mut results = response.results.iter();
        let result = results.find(|one| &*one.group_id.0 == name);
        result.expect("answered").error_code
    };
    assert_eq!((code(&live), code(&absent), code(&empty)), (68, 69, 0));
    assert_eq!(client.committed_offset(&empty, &topic, 0, false), (0, -1));
    assert_eq!(&*describe(&mut client, 5, &empty).group_state, "Dead");
}
