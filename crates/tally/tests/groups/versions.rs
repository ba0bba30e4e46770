//! What operators ask about groups, in the lowest and the highest version of each request, good and bad: GR-101 to GR-103, and
//! what each API says to a group of another type (6.5);
//! and the order of answers: GR-20, GR-21, GR-68.

use crate::consumer_member::ConsumerMember;
use crate::member::{JOIN, Member, client, new_group, stable};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest,
    DeleteGroupsRequest, DescribeGroupsRequest, OffsetCommitRequest,
};
use tally_testkit::client::{Client, group_id, text, topic_name, unique};
use tally_testkit::waiting::wait_until;

#[track_caller]
fn deleted(client: &mut Client, version: i16, group: &str) -> i16 {
    let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(group)]);
    let mut results = client.call(version, &request).results;
    assert_eq!((results.len(), &*results[0].group_id.0), (1, group));
    results.remove(0).error_code
}

#[test]
fn gr103_groups_are_deleted_in_every_version() {
    let mut client = client();
    let (live, topic) = (new_group(), unique("t"));
    client.create_topic(&topic, 1, &[]);
    let _members = stable(&live, 1);
    for version in 0..=2 {
        let empty = new_group();
        assert_eq!(client.commit_offset(&empty, &topic, 0, 5), 0);
        assert_eq!(deleted(&mut client, version, &live), 68, "v{version}");
        assert_eq!(deleted(&mut client, version, &empty), 0, "v{version}");
        assert_eq!(deleted(&mut client, version, &empty), 69, "v{version}");
        assert_eq!(client.committed_offset(&empty, &topic, 0, false), (0, -1));
    }
}

#[test]
fn gr102_gr104_consumer_groups_are_described_in_every_version() {
    let mut client = client();
    let (topic, group, classic) = (unique("t"), new_group(), new_group());
    client.create_topic(&topic, 2, &[]);
    let mut member = ConsumerMember::new(&group, &[&topic]).join();
    let _members = stable(&classic, 1);
    wait_until("it has everything", || {
        member.beat();
        member.numbers() == [0, 1]
    });
    for version in 0..=1 {
        let absent = unique("none");
        let names = [&*group, &*classic, &*absent, ""];
        let request = ConsumerGroupDescribeRequest::default()
            .with_group_ids(names.iter().map(|name| group_id(name)).collect())
            .with_include_authorized_operations(true);
        let rows = client.call(version, &request).groups;
        let row = |name: &str| {
            let mut rows = rows.iter().filter(|row| &*row.group_id.0 == name);
            rows.next().expect("answered")
        };
        let found = row(&group);
        assert_eq!((found.error_code, &found.error_message), (0, &None));
        assert_eq!(
            (&*found.group_state, found.authorized_operations),
            ("Stable", 3400)
        );
        assert_eq!(found.members.len(), 1);
        let one = &found.members[0];
        assert_eq!(
            (&*one.member_id, &*one.client_id),
            (&*member.id, "tally-testkit")
        );
        assert_eq!(one.subscribed_topic_names.len(), 1);
        assert_eq!(one.member_type, if version >= 1 { 1 } else { -1 });
        assert_eq!(one.assignment.topic_partitions[0].partitions, [0, 1]);
        assert_eq!(one.assignment, one.target_assignment);
        for (name, code) in [(&*classic, 69), (&*absent, 69), ("", 24)] {
            let refused = row(name);
            assert_eq!(refused.error_code, code, "v{version} {name:?}");
            // Apache Kafka has no sentence for a group without a name.
            assert!(refused.error_message.is_some() || name.is_empty());
            assert!(refused.members.is_empty());
        }
    }
    // GR-104: who asks the older way is told that there is none.
    for (version, code) in [(0, 0), (5, 0), (6, 69)] {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(&group)]);
        let row = client.call(version, &request).groups.remove(0);
        assert_eq!(
            (row.error_code, &*row.group_state),
            (code, "Dead"),
            "v{version}"
        );
    }
}

#[test]
fn g114_the_lowest_and_the_highest_version_of_a_heartbeat_are_checked() {
    let mut client = client();
    let topic = unique("t");
    client.create_topic(&topic, 1, &[]);
    for version in 0..=1 {
        let group = new_group();
        let mut member = ConsumerMember::new(&group, &[&topic]);
        let good = member.request();
        type Bad = fn(ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatRequest;
        let cases: [(Bad, i16); 6] = [
            (|it| it.with_group_id(group_id("")), 42),
            (|it| it.with_rebalance_timeout_ms(-1), 42),
            (|it| it.with_member_epoch(-3), 42),
            (|it| it.with_member_epoch(-2), 42),
            (|it| it.with_server_assignor(Some(text("sticky"))), 112),
            (|it| it.with_member_epoch(5), 69),
        ];
        for (at, (change, code)) in cases.into_iter().enumerate() {
            let response = client.call(version, &change(good.clone()));
            assert_eq!(response.error_code, code, "v{version} case {at}");
            assert!(response.error_message.is_some());
        }
        let response = client.call(version, &good);
        assert_eq!(response.error_code, 0, "v{version}");
        member.epoch = response.member_epoch;
        let left = client.call(version, &member.request().with_member_epoch(-1));
        assert_eq!((left.error_code, left.member_epoch), (0, -1), "v{version}");
    }
}

/// An answer that waits for others holds back what was sent behind it on its connection, and comes first.
#[test]
fn gr20_a_waiting_join_is_answered_before_what_was_sent_behind_it() {
    let group = new_group();
    let mut members = stable(&group, 1);
    let mut second = Member::new(&group);
    second.take_id();
    let joining = second.send_join(JOIN);
    let behind = second.client.send(0, &ApiVersionsRequest::default());
    members[0].wait_for_rebalance();
    let first = members[0].send_join(JOIN);
    assert_eq!(members[0].joined(JOIN, first).error_code, 0);
    assert_eq!(second.joined(JOIN, joining).error_code, 0);
    let listed = second.client.receive::<ApiVersionsRequest>(0, behind);
    assert_eq!(listed.error_code, 0);
}

/// A member whose connection breaks while it waits is a member still: it comes back over another one.
#[test]
fn gr21_a_broken_connection_removes_nobody() {
    let group = new_group();
    let mut members = stable(&group, 2);
    let mut newcomer = Member::new(&group);
    newcomer.take_id();
    let joining = newcomer.send_join(JOIN);
    members[1].wait_for_rebalance();
    let waiting = members[1].send_join(JOIN);
    // The broker has taken it: it is parked, or the next one would be answered.
    wait_until("the rebalance is under way", || {
        members[0].heartbeat() == 27
    });
    members[1].client = client();
    let first = members[0].send_join(JOIN);
    assert_ne!(waiting, 0);
    let generation = members[0].joined(JOIN, first).generation_id;
    assert_eq!(newcomer.joined(JOIN, joining).generation_id, generation);
    members[1].generation = generation;
    assert_eq!(members[1].heartbeat(), 0, "it is in the new generation");
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(&group)]);
    let row = members[0].client.call(5, &request).groups.remove(0);
    assert_eq!(row.members.len(), 3);
}

#[test]
fn gr68_commits_are_answered_in_the_order_of_the_request() {
    let mut client = client();
    if client.is_apache_kafka() {
        return; // It answers what it refuses first.
    }
    let (topic, group) = (unique("t"), new_group());
    client.create_topic(&topic, 3, &[]);
    let part = |index: i32| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(1)
            .with_committed_metadata(Some(text("")))
    };
    let of = |name: &str, indexes: &[i32]| {
        OffsetCommitRequestTopic::default()
            .with_name(topic_name(name))
            .with_partitions(indexes.iter().map(|index| part(*index)).collect())
    };
    for version in [2, 9] {
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(&group))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![
                of("nope-1", &[0]),
                of(&topic, &[2, 7, 0]),
                of("nope-2", &[1]),
            ]);
        let answered: Vec<(String, i32, i16)> = client
            .call(version, &request)
            .topics
            .iter()
            .flat_map(|topic| {
                let rows = topic.partitions.iter();
                rows.map(|row| (topic.name.to_string(), row.partition_index, row.error_code))
            })
            .collect();
        let row = |name: &str, index, code| (name.to_owned(), index, code);
        let expected = [
            row("nope-1", 0, 3),
            row(&topic, 2, 0),
            row(&topic, 7, 3),
            row(&topic, 0, 0),
            row("nope-2", 1, 3),
        ];
        assert_eq!(answered, expected, "v{version}");
    }
}
