//! Few bytes of request, few bytes of answer: what is named twice is answered once.

use crate::PROGRAM;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::fetch_request::FetchTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, ConsumerGroupDescribeRequest, CreateTopicsRequest,
    DeleteTopicsRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeProducersRequest,
    DescribeTransactionsRequest, ElectLeadersRequest, MetadataRequest, MetadataResponse,
    OffsetFetchRequest,
};
use std::time::{Duration, Instant};
use tally_testkit::broker::Broker;
use tally_testkit::client::{
    Client, FetchCall, group_id, text, topic_name, transactional_id, unique,
};

const TIMES: usize = 1000;

fn client_with_topic() -> (Client, String) {
    let mut client = Client::connect(Broker::shared(PROGRAM));
    let topic = unique("h");
    client.create_topic(&topic, 1, &[]);
    (client, topic)
}

#[test]
fn metadata_names_a_topic_once() {
    let (mut client, topic) = client_with_topic();
    let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(&topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted; TIMES]));
    assert_eq!(client.call(9, &request).topics.len(), 1);
    // By its id, with a name beside it that is another one each time.
    let id = client.topic_id(&topic);
    let wanted = |nth: usize| {
        MetadataRequestTopic::default()
            .with_topic_id(id)
            .with_name(Some(topic_name(&nth.to_string())))
    };
    let request = MetadataRequest::default().with_topics(Some((0..TIMES).map(wanted).collect()));
    let rows = client.call(12, &request).topics;
    assert_eq!((rows.len(), rows[0].error_code), (1, 0));
}

#[test]
fn describe_configs_shows_a_resource_once() {
    let (mut client, topic) = client_with_topic();
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(&topic));
    let broker = DescribeConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(text("1"));
    let mut resources = vec![resource; TIMES];
    resources.extend(vec![broker.clone(); TIMES]);
    let zeros = (0..TIMES).map(|nth| text(&format!("{}1", "0".repeat(nth))));
    resources.extend(zeros.map(|name| broker.clone().with_resource_name(name)));
    let request = DescribeConfigsRequest::default().with_resources(resources);
    assert_eq!(client.call(4, &request).results.len(), 2);
}

#[test]
fn offset_fetch_answers_a_group_and_a_partition_once() {
    let (mut client, topic) = client_with_topic();
    let group = unique("g");
    assert_eq!(client.commit_offset(&group, &topic, 0, 5), 0);
    let wanted = OffsetFetchRequestTopics::default()
        .with_name(topic_name(&topic))
        .with_partition_indexes(vec![0; TIMES / 10]);
    let wanted = OffsetFetchRequestGroup::default()
        .with_group_id(group_id(&group))
        .with_topics(Some(vec![wanted; 2]));
    let request = OffsetFetchRequest::default().with_groups(vec![wanted; TIMES]);
    let response = client.call(8, &request);
    assert_eq!(response.groups.len(), 1);
    let topics = &response.groups[0].topics;
    let answered: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    assert_eq!(answered, 1);
    assert_eq!(topics[0].partitions[0].committed_offset, 5);
}

#[test]
fn groups_transactions_and_producers_are_described_once() {
    let (mut client, topic) = client_with_topic();
    let group = unique("g");
    assert_eq!(client.commit_offset(&group, &topic, 0, 5), 0);
    let groups = vec![group_id(&group); TIMES];
    let request = DescribeGroupsRequest::default().with_groups(groups.clone());
    let rows = client.call(5, &request).groups;
    assert_eq!((rows.len(), &*rows[0].group_state), (1, "Empty"));
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(groups);
    let rows = client.call(1, &request).groups;
    assert_eq!((rows.len(), rows[0].error_code), (1, 69));
    let ids = vec![transactional_id("nobody"); TIMES];
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let rows = client.call(0, &request).transaction_states;
    assert_eq!((rows.len(), rows[0].error_code), (1, 105));
    let partitions = TopicRequest::default()
        .with_name(topic_name(&topic))
        .with_partition_indexes(vec![0; TIMES]);
    let request = DescribeProducersRequest::default().with_topics(vec![partitions; 2]);
    let topics = client.call(0, &request).topics;
    let answered = topics.iter().map(|topic| topic.partitions.len());
    assert_eq!(answered.sum::<usize>(), 1);
}

/// A sentence for each of many partitions does not quote a name of 32 KiB each time.
#[test]
fn refusals_of_many_partitions_are_short() {
    const PARTITIONS: i32 = 10_000;
    let (mut client, _) = client_with_topic();
    let long = topic_name(&"x".repeat(32_767));
    let indexes: Vec<i32> = (0..PARTITIONS).collect();
    let asked = TopicPartitions::default()
        .with_topic(long.clone())
        .with_partitions(indexes.clone());
    let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![asked]));
    let results = client.call(2, &request).replica_election_results;
    let rows = results[0].partition_result.iter();
    let mut sentences: Vec<usize> = rows
        .map(|row| row.error_message.as_ref().map_or(0, |text| text.len()))
        .collect();
    let partition = |index: &i32| {
        ReassignablePartition::default()
            .with_partition_index(*index)
            .with_replicas(None)
    };
    let asked = ReassignableTopic::default()
        .with_name(long.clone())
        .with_partitions(indexes.iter().map(partition).collect());
    let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![asked]);
    let rows = client.call(1, &request).responses.remove(0).partitions;
    let rows = rows.iter();
    sentences.extend(rows.map(|row| row.error_message.as_ref().map_or(0, |text| text.len())));
    let asked = TopicRequest::default()
        .with_name(long)
        .with_partition_indexes(indexes);
    let request = DescribeProducersRequest::default().with_topics(vec![asked]);
    let rows = client.call(0, &request).topics.remove(0).partitions;
    let rows = rows.iter();
    sentences.extend(rows.map(|row| row.error_message.as_ref().map_or(0, |text| text.len())));
    assert_eq!(sentences.len(), 30_000);
    assert!(sentences.iter().all(|length| (1..100).contains(length)));
}

/// Names of 32 KiB that are no settings are refused quickly: nobody looks for what each could have meant.
#[test]
fn names_without_end_find_no_suggestion() {
    let (mut client, _) = client_with_topic();
    let config = CreatableTopicConfig::default()
        .with_name(text(&"retention.ms".repeat(2_700)))
        .with_value(Some(text("1")));
    let wanted = |nth: i32| {
        CreatableTopic::default()
            .with_name(topic_name(&format!("n-{nth}")))
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(vec![config.clone()])
    };
    let request = CreateTopicsRequest::default().with_topics((0..500).map(wanted).collect());
    let start = Instant::now();
    let rows = client.call(7, &request).topics;
    assert!(rows.iter().all(|row| row.error_code == 40) && rows.len() == 500);
    // Letter by letter it takes half a minute; this has a hundredth of a second.
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_fetch_reads_a_partition_once() {
    let (mut client, topic) = client_with_topic();
    assert_eq!(client.produce_plain(&topic, 0, 1).error, 0);
    let mut request = client.fetch_request(&FetchCall::of(&topic, 0, 0, 0));
    let wanted: FetchTopic = request.topics[0].clone();
    request.topics = vec![wanted; TIMES];
    let response = client.call(12, &request);
    let answered = response
        .responses
        .iter()
        .map(|topic| topic.partitions.len());
    assert_eq!(answered.sum::<usize>(), 1);
}

#[test]
fn delete_topics_tells_names_apart_that_come_twice() {
    let (mut client, topic) = client_with_topic();
    let absent = unique("h");
    let state = |name: &str| DeleteTopicState::default().with_name(Some(topic_name(name)));
    let topics = vec![state(&topic), state(&absent), state(&topic)];
    let request = DeleteTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(1000);
    let response = client.call(6, &request);
    let codes: Vec<i16> = response
        .responses
        .iter()
        .map(|row| row.error_code)
        .collect();
    assert_eq!(codes, [42, 3, 42]);
    assert_eq!(client.latest(&topic, 0), 0);
}

#[test]
fn a_metadata_request_makes_a_hundred_topics_at_most() {
    let mut client = Client::connect(Broker::shared(PROGRAM));
    let prefix = unique("h");
    let wanted = |nth: i32| {
        let name = topic_name(&format!("{prefix}-{nth}"));
        MetadataRequestTopic::default().with_name(Some(name))
    };
    let request = MetadataRequest::default()
        .with_topics(Some((0..150).map(wanted).collect()))
        .with_allow_auto_topic_creation(true);
    let made = |response: MetadataResponse| {
        let codes = response.topics.iter().map(|topic| topic.error_code);
        assert!(codes.clone().all(|code| code == 0 || code == 5));
        codes.filter(|code| *code == 0).count()
    };
    assert_eq!(made(client.call(9, &request)), 100);
    assert_eq!(made(client.call(9, &request)), 150);
}
