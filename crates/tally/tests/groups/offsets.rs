//! Committed offsets: G70 to G78, G81, G94 to G96 (the rest of G90 to G99: `exactly_once`, 12.8).

use crate::member::{JOIN, Member, PROGRAM, client, new_group, stable};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    DeleteTopicsRequest, InitProducerIdRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use tally_testkit::broker::Broker;
use tally_testkit::client::{
    Client, Producer, group_id, text, topic_name, transactional_id, unique,
};
use tally_testkit::waiting::wait_until;

/// OffsetCommit of one partition by nobody's member.
fn commit_request(group: &str, topic: &str, offset: i64, metadata: &str) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(-1)
        .with_committed_metadata(Some(text(metadata)));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_member_id(text(""))
        .with_group_instance_id(None)
        .with_topics(vec![topic])
}

#[track_caller]
fn commit(client: &mut Client, version: i16, request: &OffsetCommitRequest) -> Vec<i16> {
    let response = client.call(version, request);
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|one| one.error_code).collect()
}

/// A topic and a group.
#[track_caller]
fn corner() -> (Client, String, String) {
    let mut client = client();
    let topic = unique("t");
    client.create_topic(&topic, 2, &[]);
    (client, topic, new_group())
}

#[test]
fn g70_anybody_may_commit_for_a_group_without_members() {
    let (mut client, topic, group) = corner();
    for version in 2..=9 {
        let request = commit_request(&group, &topic, version.into(), "m");
        assert_eq!(commit(&mut client, version, &request), [0], "v{version}");
        let committed = client.committed_offset(&group, &topic, 0, false);
        assert_eq!(committed, (0, version.into()));
    }
}

#[test]
fn g71_a_generation_of_no_group() {
    let (mut client, topic, group) = corner();
    let request = commit_request(&group, &topic, 1, "").with_generation_id_or_member_epoch(3);
    assert_eq!(commit(&mut client, 8, &request), [22]);
    assert_eq!(commit(&mut client, 9, &request), [69]);
}

#[test]
fn g72_commits_while_a_group_has_members() {
    let (mut client, topic, group) = corner();
    let mut member = stable(&group, 1).remove(0);
    let anonymous = commit_request(&group, &topic, 1, "");
    assert_eq!(commit(&mut client, 8, &anonymous), [25]);
    let as_member = |member: &Member, generation| {
        anonymous
            .clone()
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(text(&member.id))
    };
    let generation = member.generation;
    let good = as_member(&member, generation);
    assert_eq!(commit(&mut client, 8, &good), [0]);
    let stale = as_member(&member, generation - 1);
    assert_eq!(commit(&mut client, 8, &stale), [22]);
    let other = good.clone().with_member_id(text("nobody"));
    assert_eq!(commit(&mut client, 8, &other), [25]);
    // G52: between join and sync.
    member.join_once(JOIN);
    let early = as_member(&member, member.generation);
    assert_eq!(commit(&mut client, 8, &early), [27]);
}

#[test]
fn g73_metadata_has_a_limit() {
    let (mut client, topic, group) = corner();
    let mut request = commit_request(&group, &topic, 1, &"m".repeat(4096));
    let mut long = request.topics[0].partitions[0].clone();
    long.partition_index = 1;
    long.committed_metadata = Some(text(&"m".repeat(4097)));
    request.topics[0].partitions.push(long);
    assert_eq!(commit(&mut client, 8, &request), [0, 12]);
}

#[test]
fn g74_unknown_topics_are_refused_alone() {
    let (mut client, topic, group) = corner();
    let mut request = commit_request(&group, &topic, 7, "");
    let mut unknown = request.topics[0].clone();
    unknown.name = topic_name("nope");
    request.topics.push(unknown);
    let mut codes = commit(&mut client, 8, &request);
    codes.sort_unstable();
    assert_eq!(codes, [0, 3]);
    assert_eq!(client.committed_offset(&group, &topic, 0, false), (0, 7));
    // With nothing left the group is not asked (7.1, 5).
    let mut only_unknown = request.with_generation_id_or_member_epoch(9);
    only_unknown.topics.remove(0);
    assert_eq!(commit(&mut client, 8, &only_unknown), [3]);
}

#[test]
fn g75_a_group_that_nobody_knows_has_no_offsets() {
    let (mut client, topic, group) = corner();
    for version in 1..=7 {
        let asked = OffsetFetchRequestTopic::default()
            .with_name(topic_name(&topic))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id(&group))
            .with_topics(Some(vec![asked]));
        let response = client.call(version, &request);
        assert_eq!(response.error_code, 0, "v{version}");
        let part = &response.topics[0].partitions[0];
        assert_eq!((part.error_code, part.committed_offset), (0, -1));
        assert_eq!(part.metadata.as_deref(), Some(""));
    }
    for version in 8..=9 {
        let request = batch(&[&group], Some(&topic));
        let response = client.call(version, &request);
        let part = &response.groups[0].topics[0].partitions[0];
        assert_eq!(
            (part.error_code, part.committed_offset),
            (0, -1),
            "v{version}"
        );
    }
}

/// OffsetFetch v8+ of several groups.
fn batch(groups: &[&str], topic: Option<&str>) -> OffsetFetchRequest {
    let group = |group: &&str| {
        let asked = topic.map(|topic| {
            let topic = OffsetFetchRequestTopics::default()
                .with_name(topic_name(topic))
                .with_partition_indexes(vec![0]);
            vec![topic]
        });
        OffsetFetchRequestGroup::default()
            .with_group_id(group_id(group))
            .with_member_id(None)
            .with_member_epoch(-1)
            .with_topics(asked)
    };
    OffsetFetchRequest::default().with_groups(groups.iter().map(group).collect())
}

#[test]
fn g76_all_topics_of_a_group() {
    let (mut client, topic, group) = corner();
    let request = commit_request(&group, &topic, 5, "note");
    assert_eq!(commit(&mut client, 8, &request), [0]);
    let all = OffsetFetchRequest::default()
        .with_group_id(group_id(&group))
        .with_topics(None);
    let response = client.call(5, &all);
    assert_eq!(response.topics.len(), 1);
    assert_eq!(&*response.topics[0].name.0, topic);
    let part = &response.topics[0].partitions[0];
    assert_eq!((part.partition_index, part.committed_offset), (0, 5));
    assert_eq!(part.metadata.as_deref(), Some("note"));
}

#[test]
fn g77_several_groups_at_once() {
    let (mut client, topic, group) = corner();
    let request = commit_request(&group, &topic, 5, "");
    assert_eq!(commit(&mut client, 8, &request), [0]);
    let absent = unique("absent");
    let another = unique("absent");
    let response = client.call(8, &batch(&[&absent, &group, &another], Some(&topic)));
    let answered: Vec<(String, i64)> = response
        .groups
        .iter()
        .map(|one| {
            let offset = one.topics[0].partitions[0].committed_offset;
            (one.group_id.0.to_string(), offset)
        })
        .collect();
    assert_eq!(answered, [(absent, -1), (group, 5), (another, -1)]);
    let everything = client.call(8, &batch(&[&answered[1].0], None));
    assert_eq!(everything.groups[0].topics.len(), 1);
}

#[test]
fn g78_offsets_outlive_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut client = broker.client();
    let (topic, group) = (unique("t"), unique("g"));
    client.create_topic(&topic, 1, &[]);
    client.wait_for_group(&group);
    let mut request = commit_request(&group, &topic, 42, "note");
    request.topics[0].partitions[0].committed_leader_epoch = 3;
    assert_eq!(commit(&mut client, 8, &request), [0]);
    broker.kill_and_start();
    let mut client = broker.client();
    client.wait_for_group(&group);
    let asked = OffsetFetchRequestTopic::default()
        .with_name(topic_name(&topic))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(group_id(&group))
        .with_topics(Some(vec![asked]));
    let response = client.call(7, &request);
    let part = &response.topics[0].partitions[0];
    assert_eq!(
        (part.committed_offset, part.committed_leader_epoch),
        (42, 3)
    );
    assert_eq!(part.metadata.as_deref(), Some("note"));
}

#[test]
fn g81_a_deleted_topic_takes_its_offsets_along() {
    let (mut client, topic, group) = corner();
    let request = commit_request(&group, &topic, 5, "");
    assert_eq!(commit(&mut client, 8, &request), [0]);
    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name(&topic)])
        .with_timeout_ms(30_000);
    assert_eq!(client.call(5, &delete).responses[0].error_code, 0);
    wait_until("the topic is gone", || client.topic(&topic).error_code == 3);
    wait_until("its offsets are gone", || {
        client.committed_offset(&group, &topic, 0, false) == (0, -1)
    });
    client.create_topic(&topic, 2, &[]);
    assert_eq!(client.committed_offset(&group, &topic, 0, false), (0, -1));
}

#[test]
fn g94_x224_x227_transactional_commits_know_the_group() {
    let (mut client, topic, group) = corner();
    let id = unique("x");
    let init = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(&id)))
        .with_transaction_timeout_ms(60_000);
    let (error, producer) = client.init_producer_id(4, &init);
    assert_eq!(error, 0);
    let mut member = stable(&group, 1).remove(0);
    assert_eq!(client.add_offsets(3, &id, producer, &group), 0);
    let anonymous = Client::txn_offset_commit_request(&id, producer, &group, &[(&topic, 0, 9)]);
    let as_member = |member: &Member, generation: i32| {
        anonymous
            .clone()
            .with_generation_id(generation)
            .with_member_id(text(&member.id))
    };
    let generation = member.generation;
    let stale = as_member(&member, generation - 1);
    assert_eq!(client.txn_offset_commit(3, &stale), [22]);
    let nobody = stale.clone().with_member_id(text("nobody"));
    assert_eq!(client.txn_offset_commit(3, &nobody), [25]);
    assert_eq!(
        client.committed_offset(&group, &topic, 0, true),
        (0, -1),
        "nothing pending"
    );
    let good = as_member(&member, generation);
    assert_eq!(client.txn_offset_commit(3, &good), [0]);
    // G95
    assert_eq!(client.txn_offset_commit(3, &anonymous), [0]);
    // G96: between join and sync.
    member.join_once(JOIN);
    let early = as_member(&member, member.generation);
    assert_eq!(client.txn_offset_commit(3, &early), [0]);
    let (error, _) = client.end_txn(3, &id, producer, true);
    assert_eq!(error, 0);
    wait_until("the offset is committed", || {
        client.committed_offset(&group, &topic, 0, true) == (0, 9)
    });
}

/// A producer of a group's corner, with the group in its transaction.
#[track_caller]
fn producer_of(client: &mut Client, group: &str) -> (String, Producer) {
    let id = unique("x");
    let init = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(&id)))
        .with_transaction_timeout_ms(60_000);
    let (error, producer) = client.init_producer_id(4, &init);
    assert_eq!(error, 0);
    assert_eq!(client.add_offsets(3, &id, producer, group), 0);
    (id, producer)
}

#[test]
fn x226_a_static_member_that_was_replaced_commits_nothing() {
    let (mut client, topic, group) = corner();
    let (id, producer) = producer_of(&mut client, &group);
    let mut first = Member::new(&group).with_instance("i");
    first.join();
    assert_eq!(first.sync(&[(&first.id.clone(), "a0")]).error_code, 0);
    let mut second = Member::new(&group).with_instance("i");
    second.join();
    assert_ne!(first.id, second.id);
    let request = Client::txn_offset_commit_request(&id, producer, &group, &[(&topic, 0, 9)])
        .with_group_instance_id(Some(text("i")))
        .with_generation_id(second.generation);
    let old = request.clone().with_member_id(text(&first.id));
    assert_eq!(client.txn_offset_commit(3, &old), [82]);
    let new = request.with_member_id(text(&second.id));
    assert_eq!(client.txn_offset_commit(3, &new), [0]);
}

#[test]
fn x238_the_next_owner_waits_for_the_transaction_of_the_last_one() {
    let (mut client, topic, group) = corner();
    let (id, producer) = producer_of(&mut client, &group);
    let mut first = stable(&group, 1).remove(0);
    let request = Client::txn_offset_commit_request(&id, producer, &group, &[(&topic, 0, 9)])
        .with_generation_id(first.generation)
        .with_member_id(text(&first.id));
    assert_eq!(client.txn_offset_commit(3, &request), [0]);
    // The rebalance, between the commit and the end of the transaction.
    first.leave();
    let mut second = Member::new(&group);
    second.join();
    assert_eq!(second.sync(&[(&second.id.clone(), "a0")]).error_code, 0);
    let stable = second.client.committed_offset(&group, &topic, 0, true);
    assert_eq!(stable, (88, -1), "it may not begin yet");
    assert_eq!(client.end_txn(3, &id, producer, true).0, 0);
    wait_until("the offset is decided", || {
        second.client.committed_offset(&group, &topic, 0, true) == (0, 9)
    });
}
