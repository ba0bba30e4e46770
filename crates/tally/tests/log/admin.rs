//! More partitions, directories, elections, reassignments and pages of topics: L84, L87, L88.

use crate::corner::Corner;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, CreatePartitionsRequest, DescribeLogDirsRequest,
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, ElectLeadersRequest,
    ListConfigResourcesRequest, ListPartitionReassignmentsRequest,
};
use tally_testkit::client::{Client, text, topic_name, unique};

fn growth(name: &str, count: i32, brokers: Option<&[i32]>) -> CreatePartitionsTopic {
    let assignments = brokers.map(|brokers| {
        let ids = brokers.iter();
        let one =
            |id: &i32| CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(*id)]);
        ids.map(one).collect()
    });
    CreatePartitionsTopic::default()
        .with_name(topic_name(name))
        .with_count(count)
        .with_assignments(assignments)
}

#[track_caller]
fn grow(client: &mut Client, topics: Vec<CreatePartitionsTopic>, validate_only: bool) -> Vec<i16> {
    let request = CreatePartitionsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(30_000)
        .with_validate_only(validate_only);
    let response = client.call(3, &request);
    let rows = response.results.iter();
    rows.map(|row| {
        assert!(row.error_code != 0 || row.error_message.is_none());
        row.error_code
    })
    .collect()
}

#[test]
fn l84_topics_grow() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let me = corner.topic(&topic).partitions[0].leader_id.0;
    let name = unique("t");
    corner.create_topic(&name, 3, &[]);
    for (count, brokers, expected) in [
        (3, None, 37),
        (2, None, 37),
        (-1, None, 37),
        (5, Some(&[me][..]), 39),
        (5, Some(&[me, me + 98]), 39),
    ] {
        let codes = grow(&mut corner, vec![growth(&name, count, brokers)], false);
        assert_eq!(codes, [expected], "{count} {brokers:?}");
    }
    let more = || growth(&name, 5, Some(&[me, me]));
    assert_eq!(grow(&mut corner, vec![more()], true), [0]);
    assert_eq!(corner.topic(&name).partitions.len(), 3, "validate_only");
    assert_eq!(grow(&mut corner, vec![growth("nope", 5, None)], false), [3]);
    let twice = grow(&mut corner, vec![more(), more()], false);
    assert_eq!(twice, [42], "answered once");
    assert_eq!(grow(&mut corner, vec![more()], false), [0]);
    assert_eq!(corner.topic(&name).partitions.len(), 5);
    assert_eq!(corner.produce_plain(&name, 4, 1).error, 0);
    if !corner.is_kafka {
        let internal = growth("__consumer_offsets", 100, None);
        assert_eq!(grow(&mut corner, vec![internal], false), [17], "LN-9");
    }
}

#[test]
fn l87_directories_say_what_logs_take() {
    let mut corner = Corner::new();
    let name = unique("t");
    corner.create_topic(&name, 2, &[]);
    assert_eq!(corner.produce_plain(&name, 1, 10).error, 0);
    let asked = DescribableLogDirTopic::default()
        .with_topic(topic_name(&name))
        .with_partitions(vec![0, 1, 7]);
    let nowhere = DescribableLogDirTopic::default()
        .with_topic(topic_name("nope"))
        .with_partitions(vec![0]);
    for version in 1..=4 {
        let request = DescribeLogDirsRequest::default()
            .with_topics(Some(vec![asked.clone(), nowhere.clone()]));
        let response = corner.call(version, &request);
        let directory = &response.results[0];
        assert_eq!((response.error_code, directory.error_code), (0, 0));
        assert!(directory.log_dir.starts_with('/'));
        assert_eq!(directory.topics.len(), 1);
        let mut sizes: Vec<(i32, i64)> = directory.topics[0]
            .partitions
            .iter()
            .map(|row| (row.partition_index, row.partition_size))
            .collect();
        sizes.sort_unstable();
        assert_eq!((sizes.len(), sizes[0]), (2, (0, 0)));
        assert!(sizes[1].1 > 0);
        assert_eq!(directory.total_bytes > 0, version >= 4, "v{version}");
        assert!(directory.usable_bytes <= directory.total_bytes);
    }
    let all = DescribeLogDirsRequest::default().with_topics(None);
    let response = corner.call(4, &all);
    let topics = &response.results[0].topics;
    assert!(topics.iter().any(|topic| *topic.name == *name));
}

#[test]
fn l87_leaders_are_right_already() {
    let mut corner = Corner::new();
    let topic = TopicPartitions::default()
        .with_topic(topic_name(&corner.topic.clone()))
        .with_partitions(vec![0, 77]);
    for version in 0..=2 {
        let request =
            ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic.clone()]));
        let response = corner.call(version, &request);
        assert_eq!(response.error_code, 0);
        let rows = &response.replica_election_results[0].partition_result;
        let codes: Vec<_> = rows
            .iter()
            .map(|row| (row.partition_id, row.error_code))
            .collect();
        assert_eq!(codes, [(0, 84), (77, 3)], "v{version}");
        let all = ElectLeadersRequest::default().with_topic_partitions(None);
        let response = corner.call(version, &all);
        let results = &response.replica_election_results;
        let name = topic.topic.clone();
        assert!(results.iter().any(|row| row.topic == name), "v{version}");
        assert!(
            results
                .iter()
                .all(|topic| topic.partition_result.is_empty())
        );
        if version >= 1 {
            let request = ElectLeadersRequest::default()
                .with_election_type(7)
                .with_topic_partitions(Some(vec![topic.clone()]));
            let response = corner.call(version, &request);
            let results = response.replica_election_results.iter();
            let rows = results.flat_map(|row| &row.partition_result);
            let codes: Vec<_> = rows.map(|row| row.error_code).collect();
            assert_eq!((response.error_code, codes), (42, vec![42, 42]));
        }
    }
}

#[test]
fn l87_partitions_stay_where_they_are() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    let me = corner.topic(&name).partitions[0].leader_id;
    for version in 0..=1 {
        for (index, replicas, expected) in [
            (0, Some(vec![me]), 0),
            (0, None, 85),
            (0, Some(vec![]), 39),
            (0, Some(vec![me, me]), 39),
            (0, Some(vec![BrokerId(me.0 + 98)]), 39),
            (77, Some(vec![me]), 3),
        ] {
            let partition = ReassignablePartition::default()
                .with_partition_index(index)
                .with_replicas(replicas.clone());
            let topic = ReassignableTopic::default()
                .with_name(topic_name(&name))
                .with_partitions(vec![partition]);
            let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
            let response = corner.call(version, &request);
            assert_eq!((response.error_code, &response.error_message), (0, &None));
            let row = &response.responses[0].partitions[0];
            assert_eq!(row.error_code, expected, "{index} {replicas:?}");
        }
    }
    let request = ListPartitionReassignmentsRequest::default().with_topics(None);
    let response = corner.call(0, &request);
    assert_eq!((response.error_code, response.topics.len()), (0, 0));
}

#[track_caller]
fn page(
    client: &mut Client,
    names: &[&str],
    limit: i32,
    cursor: Option<(&str, i32)>,
) -> DescribeTopicPartitionsResponse {
    let topics = names
        .iter()
        .map(|name| TopicRequest::default().with_name(topic_name(name)));
    let cursor = cursor.map(|(name, index)| {
        Cursor::default()
            .with_topic_name(topic_name(name))
            .with_partition_index(index)
    });
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(topics.collect())
        .with_response_partition_limit(limit)
        .with_cursor(cursor);
    client.call(0, &request)
}

#[test]
fn l88_topics_come_in_pages() {
    let mut corner = Corner::new();
    let prefix = unique("p");
    let [a, b, c] = ["a", "b", "c"].map(|end| format!("{prefix}-{end}"));
    corner.create_topic(&a, 3, &[]);
    corner.create_topic(&b, 2, &[]);
    corner.create_topic(&c, 1, &[]);
    let names = [&*c, &*a, &*b, &*a];
    for limit in 1..=7 {
        let mut seen = Vec::new();
        let mut cursor: Option<(String, i32)> = None;
        loop {
            let at = cursor.as_ref().map(|(name, index)| (name.as_str(), *index));
            let got = page(&mut corner, &names, limit, at);
            let mut count = 0;
            for topic in &got.topics {
                assert_eq!(topic.error_code, 0);
                for part in &topic.partitions {
                    let name = topic.name.as_ref().expect("a name").to_string();
                    assert_eq!(part.replica_nodes, [part.leader_id]);
                    seen.push((name, part.partition_index));
                    count += 1;
                }
            }
            assert!(count <= limit);
            let Some(next) = got.next_cursor else { break };
            cursor = Some((next.topic_name.to_string(), next.partition_index));
        }
        let all: Vec<(String, i32)> = [(&a, 3), (&b, 2), (&c, 1)]
            .iter()
            .flat_map(|(name, count)| (0..*count).map(|index| ((*name).clone(), index)))
            .collect();
        assert_eq!(seen, all, "limit {limit}");
    }
    let codes = |got: &DescribeTopicPartitionsResponse| -> Vec<i16> {
        got.topics.iter().map(|topic| topic.error_code).collect()
    };
    let got = page(&mut corner, &[&a, "nope", "no/pe"], 2000, None);
    let mut found = codes(&got);
    found.sort_unstable();
    assert_eq!(found, [0, 3, 17]);
    let got = page(&mut corner, &[&a], 2000, Some((&b, 0)));
    assert_eq!(codes(&got), [42]);
    let got = page(&mut corner, &[&a], 2000, Some((&a, -1)));
    assert_eq!(codes(&got), [42]);
}

#[test]
fn l88_a_page_has_two_thousand_partitions() {
    let mut corner = Corner::new();
    let name = unique("p");
    corner.create_topic(&name, 2500, &[]);
    let got = page(&mut corner, &[&name], i32::MAX, None);
    assert_eq!(got.topics[0].partitions.len(), 2000);
    let next = got.next_cursor.expect("there is more");
    assert_eq!((&*next.topic_name.0, next.partition_index), (&*name, 2000));
    let got = page(&mut corner, &[&name], i32::MAX, Some((&name, 2000)));
    assert_eq!(got.topics[0].partitions.len(), 500);
    assert!(got.next_cursor.is_none());
    let response = corner.call(
        4,
        &kafka_protocol::messages::DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name(&name)])
            .with_timeout_ms(30_000),
    );
    assert_eq!(response.responses[0].error_code, 0);
}

#[test]
fn resources_with_a_configuration_are_listed() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    let of_types =
        |types: Vec<i8>| ListConfigResourcesRequest::default().with_resource_types(types);
    let topics = corner.call(1, &of_types(vec![2]));
    assert_eq!(topics.error_code, 0);
    assert!(
        topics
            .config_resources
            .iter()
            .all(|row| row.resource_type == 2)
    );
    let has = |name: &str, kind: i8, rows: &[_]| {
        let rows: &[kafka_protocol::messages::list_config_resources_response::ConfigResource] =
            rows;
        rows.iter()
            .any(|row| row.resource_name == text(name) && row.resource_type == kind)
    };
    assert!(has(&name, 2, &topics.config_resources));
    let all = corner.call(1, &of_types(vec![]));
    let me = corner.topic(&name).partitions[0].leader_id.0.to_string();
    assert!(has(&me, 4, &all.config_resources) && has(&name, 2, &all.config_resources));
    assert_eq!(corner.call(1, &of_types(vec![99])).error_code, 35);
    let metrics = corner.call(0, &ListConfigResourcesRequest::default());
    assert_eq!((metrics.error_code, metrics.config_resources.len()), (0, 0));
}
