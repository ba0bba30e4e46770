//! Groups of the `consumer` protocol (KIP-848): G110 to G125, as far as the wire shows them. What needs a clock moved by
//! hand, and every order of events, is tested in the core (`tally-groups`).

use crate::consumer_member::{ConsumerMember, HEARTBEAT, settle};
use crate::member::{Member, PROGRAM, client, new_group};
use bytes::Bytes;
use kafka_protocol::messages::consumer_group_describe_response::DescribedGroup;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, CreatePartitionsRequest,
    DeleteGroupsRequest, DescribeGroupsRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, ListGroupsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, UpdateFeaturesRequest,
};
use tally_testkit::broker::{Broker, is_reference};
use tally_testkit::client::{Client, group_id, text, topic_name, transactional_id, unique};
use tally_testkit::waiting::wait_until;

/// A topic of so many partitions, and a group.
#[track_caller]
fn topic_and_group(partitions: i32) -> (String, String) {
    let group = new_group();
    let topic = unique("t");
    client().create_topic(&topic, partitions, &[]);
    (topic, group)
}

#[track_caller]
fn describe(client: &mut Client, version: i16, group: &str) -> DescribedGroup {
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(group)]);
    client.call(version, &request).groups.remove(0)
}

#[test]
fn g110_a_member_joins_and_has_everything() {
    let (topic, group) = topic_and_group(4);
    let mut member = ConsumerMember::new(&group, &[&topic]);
    let response = member.beat();
    assert_eq!(response.error_code, 0);
    assert_eq!(response.member_epoch, 2);
    assert_eq!(response.heartbeat_interval_ms, 5_000);
    assert_eq!(response.member_id, Some(text(&member.id)));
    wait_until("everything", || {
        member.beat();
        member.numbers() == [0, 1, 2, 3]
    });
    let again = member.beat();
    assert_eq!((again.error_code, again.assignment), (0, None));
}

/// The group's epoch and that of its assignment.
#[track_caller]
fn epochs(group: &str) -> (i32, i32) {
    let found = describe(&mut client(), 1, group);
    (found.group_epoch, found.assignment_epoch)
}

/// A new group is at 1, with an empty assignment that nobody made.
#[test]
fn g110_epochs_are_counted_from_one() {
    let (topic, group) = topic_and_group(2);
    let mut first = ConsumerMember::new(&group, &[&topic]).join();
    assert_eq!(epochs(&group), (2, 2));
    settle(&mut [&mut first], &[2]);
    assert_eq!((first.epoch, epochs(&group)), (2, (2, 2)));
    let mut second = ConsumerMember::new(&group, &[&topic]).join();
    settle(&mut [&mut first, &mut second], &[1, 1]);
    assert_eq!((first.epoch, second.epoch), (3, 3));
    assert_eq!(epochs(&group), (3, 3));
    assert_eq!(first.leave(-1), 0);
    assert_eq!(epochs(&group), (4, 3), "nobody has asked for the next");
    assert_eq!(second.leave(-1), 0);
    assert_eq!(epochs(&group), (5, 3));
}

/// Who wants nothing needs no assignment; a topic that is not there is wanted, an expression that finds none is not.
#[test]
fn g110_a_member_without_topics_leaves_the_epoch_alone() {
    let group = new_group();
    let mut first = ConsumerMember::new(&group, &[]).join();
    assert_eq!((first.epoch, epochs(&group)), (1, (1, 1)));
    let mut second = ConsumerMember::new(&group, &[]).join();
    assert_eq!((second.epoch, epochs(&group)), (1, (1, 1)));
    assert_eq!(&*describe(&mut client(), 1, &group).group_state, "Stable");
    assert_eq!(first.leave(-1), 0);
    assert_eq!(epochs(&group), (2, 1));
    assert_eq!(second.leave(-1), 0);
    assert_eq!(epochs(&group), (3, 1));

    let (group, missing) = (new_group(), unique("missing"));
    let member = ConsumerMember::new(&group, &[&missing]).join();
    assert_eq!((member.epoch, epochs(&group)), (2, (2, 2)));

    let group = new_group();
    let mut member = ConsumerMember::new(&group, &[]);
    member.regex = Some(format!("{missing}-[0-9]+"));
    let mut member = member.join();
    assert_eq!((member.epoch, epochs(&group)), (1, (1, 1)));
    client().create_topic(&format!("{missing}-1"), 1, &[]);
    settle(&mut [&mut member], &[1]);
    assert_eq!((member.epoch, epochs(&group)), (2, (2, 2)));
}

#[test]
fn g110_version_zero_is_given_an_id() {
    let (topic, group) = topic_and_group(1);
    let mut member = ConsumerMember::new(&group, &[&topic]);
    member.id = String::new();
    let request = member.request();
    let response = member.client.call(0, &request);
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    let id = response.member_id.expect("an id");
    assert_eq!(id.len(), 22, "{id:?}");
    assert_eq!(
        member.send(&member.request()).error_code,
        42,
        "not in version 1"
    );
}

#[test]
fn g111_a_second_member_gets_what_the_first_gives_back() {
    let (topic, group) = topic_and_group(4);
    let mut first = ConsumerMember::new(&group, &[&topic]).join();
    settle(&mut [&mut first], &[4]);
    let mut second = ConsumerMember::new(&group, &[&topic]).join();
    assert_eq!(second.numbers(), [] as [i32; 0]);
    // The first is told to give back, and does not say that it has.
    wait_until("the first is asked", || {
        let request = first.request();
        second.beat();
        assert_eq!(first.send(&request).error_code, 0);
        first.told != first.owned
    });
    let epoch = first.epoch;
    second.beat();
    assert_eq!(second.numbers(), [] as [i32; 0], "still with the first");
    assert_eq!(second.epoch, epoch + 1);
    settle(&mut [&mut first, &mut second], &[2, 2]);
    assert_eq!([first.numbers(), second.numbers()].concat(), [0, 1, 2, 3]);
    assert_eq!(&*describe(&mut client(), 1, &group).group_state, "Stable");
}

#[test]
fn g113_epochs_fence() {
    let (topic, group) = topic_and_group(2);
    let mut member = ConsumerMember::new(&group, &[&topic]).join();
    settle(&mut [&mut member], &[2]);
    let at = |epoch: i32| member.request().with_member_epoch(epoch);
    let (later, unknown) = (at(member.epoch + 1), at(1).with_member_id(text("nobody")));
    let absent = at(1).with_group_id(group_id(&unique("none")));
    assert_eq!(member.send(&later).error_code, 110);
    assert_eq!(member.send(&unknown).error_code, 25);
    assert_eq!(member.send(&absent).error_code, 69);
}

#[test]
fn g114_requests_that_make_no_sense() {
    let (topic, group) = topic_and_group(1);
    let member = ConsumerMember::new(&group, &[&topic]);
    let mut client = client();
    let mut code = |change: fn(ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatRequest| {
        let response = client.call(HEARTBEAT, &change(member.request()));
        assert!(response.error_message.is_some());
        response.error_code
    };
    assert_eq!(code(|request| request.with_member_id(text(""))), 42);
    assert_eq!(code(|request| request.with_group_id(group_id(""))), 42);
    assert_eq!(code(|request| request.with_instance_id(Some(text("")))), 42);
    assert_eq!(code(|request| request.with_rack_id(Some(text("")))), 42);
    assert_eq!(code(|request| request.with_rebalance_timeout_ms(-1)), 42);
    assert_eq!(code(|request| request.with_topic_partitions(None)), 42);
    let without = |request: ConsumerGroupHeartbeatRequest| {
        request
            .with_subscribed_topic_names(None)
            .with_subscribed_topic_regex(None)
    };
    assert_eq!(code(without), 42);
    assert_eq!(code(|request| request.with_member_epoch(-2)), 42);
    assert_eq!(code(|request| request.with_member_epoch(-3)), 42);
    let assignor =
        |request: ConsumerGroupHeartbeatRequest| request.with_server_assignor(Some(text("sticky")));
    assert_eq!(code(assignor), 112);
}

#[test]
fn g115_a_static_member_comes_back() {
    let (topic, group) = topic_and_group(2);
    let new = || ConsumerMember::new(&group, &[&topic]).with_instance("i");
    let mut first = new().join();
    settle(&mut [&mut first], &[2]);
    let mut second = new();
    assert_eq!(second.beat().error_code, 111);
    assert_eq!(first.leave(-2), 0);
    let response = second.beat();
    assert_eq!(response.error_code, 0);
    assert_eq!(second.numbers(), [0, 1], "at once");
    assert_eq!(first.beat().error_code, 82);
    assert_eq!(second.leave(-1), 0);
}

#[test]
fn g116_who_leaves_is_gone() {
    let (topic, group) = topic_and_group(2);
    let mut first = ConsumerMember::new(&group, &[&topic]).join();
    let mut second = ConsumerMember::new(&group, &[&topic]).join();
    settle(&mut [&mut first, &mut second], &[1, 1]);
    assert_eq!(first.leave(-1), 0);
    assert_eq!(first.leave(-1), 25);
    settle(&mut [&mut second], &[2]);
    assert_eq!(second.leave(-1), 0);
    assert_eq!(&*describe(&mut client(), 1, &group).group_state, "Empty");
    let mut nobody = ConsumerMember::new(&unique("none"), &[&topic]);
    assert_eq!(nobody.leave(-1), 69);
}

#[test]
fn g117_topics_that_match_an_expression() {
    let group = new_group();
    let prefix = unique("re");
    let mut client = client();
    client.create_topic(&format!("{prefix}-1"), 1, &[]);
    let mut member = ConsumerMember::new(&group, &[]);
    member.regex = Some(format!("{prefix}-[0-9]+"));
    let mut member = member.join();
    settle(&mut [&mut member], &[1]);
    client.create_topic(&format!("{prefix}-22"), 2, &[]);
    client.create_topic(&format!("{prefix}-x"), 4, &[]);
    settle(&mut [&mut member], &[3]);
    // Java asks for the names of the ids that it is given with empty names, others without one.
    for name in [None, Some(topic_name(""))] {
        for id in member.owned.keys() {
            let wanted = MetadataRequestTopic::default()
                .with_topic_id(*id)
                .with_name(name.clone());
            let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
            let found = client.call(12, &request).topics.remove(0);
            assert_eq!(found.error_code, 0);
            assert!(found.name.is_some_and(|found| found.starts_with(&prefix)));
        }
    }
    let mut other = ConsumerMember::new(&group, &[]);
    other.regex = Some("[".to_owned());
    assert_eq!(other.beat().error_code, 128);
}

/// As Java's `Pattern.quote` writes it.
#[test]
fn g117_a_quoted_part_of_an_expression_is_literal() {
    let (group, prefix) = (new_group(), unique("re"));
    let mut client = client();
    client.create_topic(&format!("{prefix}.1"), 3, &[]);
    client.create_topic(&format!("{prefix}-1"), 1, &[]);
    let mut member = ConsumerMember::new(&group, &[]);
    member.regex = Some(format!(r"\Q{prefix}.\E\d"));
    let mut member = member.join();
    settle(&mut [&mut member], &[3]);
    for bad in ["(", "*", r"(a)\1", "(?=a)", r"\Qa\E("] {
        let mut other = ConsumerMember::new(&group, &[]);
        other.regex = Some(bad.to_owned());
        assert_eq!(other.beat().error_code, 128, "{bad}");
    }
}

#[test]
fn g118_new_partitions_are_spread() {
    let (topic, group) = topic_and_group(2);
    let mut first = ConsumerMember::new(&group, &[&topic]).join();
    let mut second = ConsumerMember::new(&group, &[&topic]).join();
    settle(&mut [&mut first, &mut second], &[1, 1]);
    let more = CreatePartitionsTopic::default()
        .with_name(topic_name(&topic))
        .with_count(6)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![more])
        .with_timeout_ms(30_000);
    let response = client().call(2, &request);
    assert_eq!(response.results[0].error_code, 0);
    settle(&mut [&mut first, &mut second], &[3, 3]);
}

#[track_caller]
fn commit(member: &mut ConsumerMember, version: i16, epoch: i32, partition: i32) -> i16 {
    let topic = member.topics[0].clone();
    let offset = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(7);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(&topic))
        .with_partitions(vec![offset]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(&member.group))
        .with_member_id(text(&member.id))
        .with_generation_id_or_member_epoch(epoch)
        .with_topics(vec![topic]);
    let mut response = member.client.call(version, &request);
    response.topics.remove(0).partitions.remove(0).error_code
}

#[test]
fn g119_commits_name_the_epoch() {
    let (topic, group) = topic_and_group(1);
    let mut member = ConsumerMember::new(&group, &[&topic]).join();
    settle(&mut [&mut member], &[1]);
    let epoch = member.epoch;
    assert_eq!(commit(&mut member, 8, epoch, 0), 35);
    assert_eq!(commit(&mut member, 9, epoch, 0), 0);
    assert_eq!(commit(&mut member, 9, epoch + 1, 0), 113);
    let mut second = ConsumerMember::new(&group, &[&topic]).join();
    wait_until("an epoch without a change of what it has", || {
        second.beat();
        member.beat();
        member.epoch > epoch
    });
    assert_eq!(commit(&mut member, 9, epoch, 0), 0, "KIP-1251");
    member.id = "nobody".to_owned();
    assert_eq!(commit(&mut member, 9, epoch, 0), 25);
    assert_eq!(
        client().commit_offset(&group, &topic, 0, 1),
        25,
        "no member"
    );
}

#[test]
fn g120_a_fetch_may_name_the_member() {
    let (topic, group) = topic_and_group(1);
    let mut member = ConsumerMember::new(&group, &[&topic]).join();
    let mut code = |id: Option<&str>, epoch: i32| {
        let wanted = OffsetFetchRequestGroup::default()
            .with_group_id(group_id(&group))
            .with_member_id(id.map(text))
            .with_member_epoch(epoch)
            .with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![wanted]);
        member.client.call(9, &request).groups[0].error_code
    };
    let (id, epoch) = (member.id.clone(), member.epoch);
    assert_eq!(code(None, -1), 0);
    assert_eq!(code(Some(&id), epoch), 0);
    assert_eq!(code(Some(&id), epoch + 1), 113);
    assert_eq!(code(Some("nobody"), epoch), 25);
}

#[test]
fn gr81_offsets_in_a_transaction_name_the_epoch_and_22_refuses_them() {
    let (topic, group) = topic_and_group(1);
    let mut member = ConsumerMember::new(&group, &[&topic]).join();
    settle(&mut [&mut member], &[1]);
    let id = unique("x");
    let mut client = client();
    client.find_coordinator(&id, 1);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(&id)))
        .with_transaction_timeout_ms(60_000);
    let (error, producer) = client.init_producer_id(4, &request);
    assert_eq!(error, 0);
    let mut code = |epoch: i32, member_id: &str| {
        let offsets = [(topic.as_str(), 0, 5)];
        let request = Client::txn_offset_commit_request(&id, producer, &group, &offsets)
            .with_generation_id(epoch)
            .with_member_id(text(member_id));
        client.txn_offset_commit(5, &request)[0]
    };
    assert_eq!(code(member.epoch + 1, &member.id), 22);
    assert_eq!(code(member.epoch, "nobody"), 25);
    assert_eq!(code(member.epoch, &member.id), 0);
    assert_eq!(client.end_txn(5, &id, producer, true).0, 0);
    wait_until("the marker, which Apache Kafka writes later", || {
        client.committed_offset(&group, &topic, 0, true) == (0, 5)
    });
}

#[test]
fn g121_a_broker_that_died_knows_its_groups() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let (topic, group) = (unique("t"), unique("g"));
    broker.client().create_topic(&topic, 4, &[]);
    broker.client().wait_for_group(&group);
    let mut first = ConsumerMember::at(broker.address(), &group, &[&topic]).join();
    let mut second = ConsumerMember::at(broker.address(), &group, &[&topic]).join();
    settle(&mut [&mut first, &mut second], &[2, 2]);
    let before = describe(&mut broker.client(), 1, &group);
    broker.kill_and_start();
    let mut client = broker.client();
    if is_reference() {
        // Its port is open before its coordinators are there.
        client.wait_for_group(&group);
    }
    assert_eq!(describe(&mut client, 1, &group), before);
    first.client = broker.client();
    let (epoch, numbers) = (first.epoch, first.numbers());
    assert_eq!(first.beat().error_code, 0);
    assert_eq!((first.epoch, first.numbers()), (epoch, numbers));
    stop(broker);
}

/// A Java virtual machine that is told to stop says that it was killed.
#[track_caller]
fn stop(mut broker: Broker) {
    assert!(is_reference() || broker.stop());
}

/// A subscription of version 1 to one topic, with these partitions.
fn subscription(topic: &str, owned: &[i32]) -> Bytes {
    let mut out = vec![0, 1, 0, 0, 0, 1];
    let name = |out: &mut Vec<u8>| {
        out.extend(u16::try_from(topic.len()).expect("short").to_be_bytes());
        out.extend(topic.as_bytes());
    };
    name(&mut out);
    out.extend([0xff; 4]);
    if owned.is_empty() {
        out.extend([0; 4]);
    } else {
        out.extend([0, 0, 0, 1]);
        name(&mut out);
        out.extend(u32::try_from(owned.len()).expect("few").to_be_bytes());
        owned
            .iter()
            .for_each(|number| out.extend(number.to_be_bytes()));
    }
    Bytes::from(out)
}

/// An assignment of version 1 with partitions of one topic.
fn assignment(topic: &str, numbers: &[i32]) -> Bytes {
    let mut out = vec![0, 1, 0, 0, 0, 1];
    out.extend(u16::try_from(topic.len()).expect("short").to_be_bytes());
    out.extend(topic.as_bytes());
    out.extend(u32::try_from(numbers.len()).expect("few").to_be_bytes());
    numbers
        .iter()
        .for_each(|number| out.extend(number.to_be_bytes()));
    out.extend([0xff; 4]);
    Bytes::from(out)
}

/// The numbers in an assignment of one topic.
fn numbers(topic: &str, bytes: &[u8]) -> Vec<i32> {
    if bytes.len() < 6 || bytes[2..6] == [0; 4] {
        return Vec::new();
    }
    let at = 8 + topic.len();
    let count = u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
    let count = usize::try_from(count).expect("few");
    let numbers = bytes[at + 4..at + 4 + 4 * count].chunks(4);
    numbers
        .map(|number| i32::from_be_bytes(number.try_into().expect("four")))
        .collect()
}

/// One round of JoinGroup and SyncGroup of a classic member in a group of the other protocol.
#[track_caller]
fn rejoin(member: &mut Member, topic: &str, owned: &mut Vec<i32>) {
    let mut request = member.join_request(7);
    request.protocols[0].metadata = subscription(topic, owned);
    let sent = member.client.send(7, &request);
    let joined = member.joined(7, sent);
    assert_eq!(joined.error_code, 0);
    let request = member.sync_request(&[]);
    let synced = member.client.call(3, &request);
    if synced.error_code == 0 {
        *owned = numbers(topic, &synced.assignment);
    }
}

#[test]
fn g122_g123_a_classic_group_is_taken_over_and_given_back() {
    let (topic, group) = topic_and_group(4);
    let mut classic = Member::new(&group);
    classic.take_id();
    let mut request = classic.join_request(7);
    request.protocols[0].metadata = subscription(&topic, &[]);
    let sent = classic.client.send(7, &request);
    assert_eq!(classic.joined(7, sent).error_code, 0);
    let id = classic.id.clone();
    let mut request = classic.sync_request(&[(id.as_str(), "")]);
    request.assignments[0].assignment = assignment(&topic, &[0, 1, 2, 3]);
    assert_eq!(classic.client.call(3, &request).error_code, 0);
    let mut owned = vec![0, 1, 2, 3];
    let mut new = ConsumerMember::new(&group, &[&topic]).join();
    assert_eq!(new.numbers(), [] as [i32; 0]);
    wait_until("each has its share", || {
        new.beat();
        if classic.heartbeat() == 27 {
            rejoin(&mut classic, &topic, &mut owned);
        }
        owned.len() == 2 && new.numbers().len() == 2
    });
    let mut all = [owned.clone(), new.numbers()].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    let described = describe(&mut client(), 1, &group);
    let mut kinds: Vec<i8> = described.members.iter().map(|m| m.member_type).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [0, 1]);
    assert_eq!(new.leave(-1), 0);
    assert_eq!(describe(&mut client(), 1, &group).error_code, 69);
    wait_until("a classic rebalance", || classic.heartbeat() == 27);
    let described = client().call(
        5,
        &DescribeGroupsRequest::default().with_groups(vec![group_id(&group)]),
    );
    assert_eq!(described.groups[0].members.len(), 1);
}

#[test]
fn g122_a_group_that_cannot_be_read_is_not_taken_over() {
    let (topic, group) = topic_and_group(1);
    let mut classic = Member::new(&group);
    classic.protocol_type = "connect";
    classic.join();
    let mut new = ConsumerMember::new(&group, &[&topic]);
    assert_eq!(new.beat().error_code, 69);
    assert_eq!(classic.heartbeat(), 0);
}

#[test]
fn g125_operators_see_groups_of_both_protocols() {
    let (topic, group) = topic_and_group(2);
    let mut member = ConsumerMember::new(&group, &[&topic]).join();
    settle(&mut [&mut member], &[2]);
    let mut client = client();
    let mut listed = |types: &[&str]| {
        let request = ListGroupsRequest::default()
            .with_types_filter(types.iter().map(|kind| text(kind)).collect());
        let mut groups = client.call(5, &request).groups.into_iter();
        let row = groups.find(|row| *row.group_id == *group);
        row.map(|row| (row.group_type, row.group_state, row.protocol_type))
    };
    let expected = Some((text("consumer"), text("Stable"), text("consumer")));
    assert_eq!(listed(&[]), expected);
    assert_eq!(listed(&["Consumer"]), expected);
    assert_eq!(listed(&["classic"]), None);
    for (version, error) in [(5, 0), (6, 69)] {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(&group)]);
        let row = client.call(version, &request).groups.remove(0);
        assert_eq!((row.error_code, &*row.group_state), (error, "Dead"));
    }
    for version in 0..=1 {
        let row = describe(&mut client, version, &group);
        assert_eq!((row.error_code, &*row.group_state), (0, "Stable"));
        assert_eq!(&*row.assignor_name, "uniform");
        assert_eq!(
            (row.group_epoch, row.assignment_epoch),
            (member.epoch, member.epoch)
        );
        let one = &row.members[0];
        assert_eq!(&*one.member_id, member.id);
        assert_eq!(&*one.client_host, "/127.0.0.1");
        assert_eq!(one.assignment, one.target_assignment);
        assert_eq!(&*one.assignment.topic_partitions[0].topic_name.0, topic);
        assert_eq!(one.assignment.topic_partitions[0].partitions, [0, 1]);
    }
    assert_eq!(describe(&mut client, 1, &unique("none")).error_code, 69);
    assert_eq!(describe(&mut client, 1, "").error_code, 24);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group_id(&group)]);
    assert_eq!(client.call(2, &delete).results[0].error_code, 68);
    assert_eq!(member.leave(-1), 0);
    assert_eq!(client.call(2, &delete).results[0].error_code, 0);
    assert_eq!(describe(&mut client, 1, &group).error_code, 69);
}

#[test]
fn g122_the_protocols_are_told_apart_in_an_empty_group() {
    let (topic, group) = topic_and_group(1);
    let mut new = ConsumerMember::new(&group, &[&topic]).join();
    assert_eq!(new.leave(-1), 0);
    let mut classic = Member::new(&group);
    classic.join();
    assert_eq!(describe(&mut client(), 1, &group).error_code, 69);
    classic.leave();
    ConsumerMember::new(&group, &[&topic]).join();
    assert_eq!(describe(&mut client(), 1, &group).error_code, 0);
}

#[test]
fn g124_a_group_with_members_keeps_its_protocol_if_told_so() {
    let broker = Broker::start(PROGRAM, &["group.consumer.migration.policy=disabled"]);
    let (topic, classic, new) = (unique("t"), unique("g"), unique("g"));
    broker.client().create_topic(&topic, 1, &[]);
    broker.client().wait_for_coordinators();
    let mut live = Member::at(broker.address(), &classic);
    live.join();
    let mut refused = ConsumerMember::at(broker.address(), &classic, &[&topic]);
    assert_eq!(refused.beat().error_code, 69);
    assert_eq!(live.heartbeat(), 0);
    let _member = ConsumerMember::at(broker.address(), &new, &[&topic]).join();
    let mut refused = Member::at(broker.address(), &new);
    assert_eq!(refused.join_once(7).error_code, 23);
    stop(broker);
}

#[test]
fn gr1_the_protocol_is_switched_off_and_on() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let (topic, group) = (unique("t"), unique("g"));
    broker.client().create_topic(&topic, 1, &[]);
    let set = |client: &mut Client, level: i16, kind: i8| {
        let update = FeatureUpdateKey::default()
            .with_feature(text("group.version"))
            .with_max_version_level(level)
            .with_upgrade_type(kind);
        let request = UpdateFeaturesRequest::default()
            .with_timeout_ms(30_000)
            .with_feature_updates(vec![update]);
        assert_eq!(client.call(1, &request).error_code, 0);
    };
    let is_finalized = |client: &mut Client| {
        let features = client.api_versions(3).finalized_features;
        features
            .iter()
            .any(|feature| &*feature.name == "group.version")
    };
    // Kafka's broker hears of a change a moment after the answer.
    let becomes = |client: &mut Client, finalized: bool| {
        if is_reference() {
            wait_until("the feature", || is_finalized(client) == finalized);
        }
        assert_eq!(is_finalized(client), finalized);
    };
    let mut client = broker.client();
    client.wait_for_group(&group);
    becomes(&mut client, true);
    set(&mut client, 0, 2);
    broker.kill_and_start();
    let mut client = broker.client();
    becomes(&mut client, false);
    let mut member = ConsumerMember::at(broker.address(), &group, &[&topic]);
    assert_eq!(member.beat().error_code, 35);
    set(&mut client, 1, 1);
    becomes(&mut client, true);
    if is_reference() {
        client.wait_for_group(&group);
    }
    member.join();
    stop(broker);
}

#[test]
fn section_14_a_group_has_settings_of_its_own() {
    let (topic, group) = topic_and_group(1);
    let setting = AlterableConfig::default()
        .with_name(text("consumer.heartbeat.interval.ms"))
        .with_value(Some(text("7000")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text(&group))
        .with_configs(vec![setting]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client().call(1, &request).responses[0].error_code, 0);
    let mut member = ConsumerMember::new(&group, &[&topic]);
    if is_reference() {
        wait_until("Kafka's broker, which hears of it later", || {
            member.beat().heartbeat_interval_ms == 7_000
        });
    }
    assert_eq!(member.beat().heartbeat_interval_ms, 7_000);
}
