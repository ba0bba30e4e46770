//! What exporters and consoles ask of a cluster, call by call in the versions in which they ask, as far as it can be seen from
//! their sources: kafka_exporter, kminion, AKHQ and Kafbat UI (user-experience.md section 16, point 7).

use crate::corner::Corner;
use bytes::Buf;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request::TopicRequest as ProducersOf;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest as PartitionsOf;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic,
};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DescribeAclsRequest, DescribeClientQuotasRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
    ListGroupsRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest,
    ListTransactionsRequest, MetadataRequest, OffsetFetchRequest,
};
use std::collections::BTreeMap;
use tally_testkit::client::{Client, group_id, text, topic_name, unique};
use tally_testkit::waiting::wait_until;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SECURITY_DISABLED: i16 = 54;
/// Any resource, pattern, operation or permission, in a filter.
const ANY: i8 = 1;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// Committed: 7 of the 10 records of partition 0.
const COMMITTED: i64 = 7;

/// A topic of two partitions with ten records in the first, and a group that has committed seven of them.
fn watched() -> (Corner, String) {
    let mut corner = Corner::with_topic(2, &[]);
    corner.fill(10);
    let group = unique("g-watched");
    corner.wait_for_group(&group);
    let topic = corner.topic.clone();
    assert_eq!(corner.commit_offset(&group, &topic, 0, COMMITTED), 0);
    (corner, group)
}

/// The offsets of both partitions.
#[track_caller]
fn offsets(client: &mut Client, version: i16, topic: &str, timestamp: i64) -> Vec<i64> {
    let partitions = (0..2).map(|index| {
        ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_timestamp(timestamp)
    });
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(partitions.collect());
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    let response = client.call(version, &request);
    let mut partitions = response.topics[0].partitions.clone();
    assert!(partitions.iter().all(|row| row.error_code == 0));
    partitions.sort_by_key(|row| row.partition_index);
    partitions.iter().map(|row| row.offset).collect()
}

/// The properties asked for, by name.
#[track_caller]
fn configs(client: &mut Client, kind: i8, name: &str, keys: &[&str]) -> BTreeMap<String, String> {
    let keys: Vec<_> = keys.iter().map(|key| text(key)).collect();
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys((!keys.is_empty()).then_some(keys));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let response = client.call(4, &request);
    assert_eq!(response.results[0].error_code, 0);
    let rows = response.results[0].configs.iter();
    rows.map(|row| {
        let value = row.value.as_deref().unwrap_or_default();
        (row.name.to_string(), value.to_owned())
    })
    .collect()
}

#[track_caller]
fn no_rules_of_access(client: &mut Client) {
    let all = DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(None)
        .with_pattern_type_filter(ANY)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY);
    assert_eq!(client.call(3, &all).error_code, SECURITY_DISABLED);
}

fn every_topic() -> MetadataRequest {
    MetadataRequest::default()
        .with_topics(None)
        .with_allow_auto_topic_creation(false)
}

#[test]
fn kafka_exporter_finds_topics_offsets_and_lag() {
    let (mut corner, group) = watched();
    let topic = corner.topic.clone();
    // Sarama as for Kafka 2.0: metadata of everything, then per partition the ends and the leader's replicas.
    let all = corner.call(5, &every_topic());
    let row = |name: &str| {
        let wanted = topic_name(name);
        all.topics
            .iter()
            .find(|row| row.name.as_ref() == Some(&wanted))
    };
    let shown = row(&topic).expect("the topic is listed");
    assert_eq!(shown.partitions.len(), 2);
    for partition in &shown.partitions {
        assert_eq!(partition.replica_nodes, [partition.leader_id]);
        assert_eq!(partition.isr_nodes, [partition.leader_id]);
    }
    assert!(row("__consumer_offsets").is_some_and(|row| row.is_internal));
    assert_eq!(offsets(&mut corner, 1, &topic, LATEST), [10, 0]);
    assert_eq!(offsets(&mut corner, 1, &topic, EARLIEST), [0, 0]);

    assert_eq!(corner.find_coordinator(&group, 0), 0);
    let listed = corner.call(1, &ListGroupsRequest::default());
    assert!(
        listed
            .groups
            .iter()
            .any(|row| row.group_id == group_id(&group))
    );
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(&group)]);
    let described = corner.call(1, &request);
    assert_eq!(described.groups[0].error_code, 0);
    assert_eq!(described.groups[0].group_state, text("Empty"));
    assert!(described.groups[0].members.is_empty());

    // Once by its partitions, once for whatever there is; what was never committed is -1, and not counted.
    let asked = OffsetFetchRequestTopic::default()
        .with_name(topic_name(&topic))
        .with_partition_indexes(vec![0, 1]);
    for (version, topics, expected) in [
        (1, Some(vec![asked]), &[COMMITTED, -1][..]),
        (4, None, &[COMMITTED]),
    ] {
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id(&group))
            .with_topics(topics);
        let response = corner.call(version, &request);
        assert_eq!(response.error_code, 0);
        let rows = &response.topics[0].partitions;
        let seen: Vec<i64> = rows.iter().map(|row| row.committed_offset).collect();
        assert_eq!(seen, expected, "v{version}");
    }
}

#[test]
fn kminion_scrapes_topics_logs_and_groups() {
    let (mut corner, group) = watched();
    let topic = corner.topic.clone();
    assert!(
        corner
            .api_versions(3)
            .api_keys
            .iter()
            .any(|row| row.api_key == 35)
    );
    let all = corner.call(12, &every_topic());
    assert!(all.cluster_id.is_some() && all.controller_id.0 >= 0);
    assert_eq!(all.brokers.len(), 1);
    let policy = configs(&mut corner, TOPIC, &topic, &["cleanup.policy"]);
    assert_eq!(policy["cleanup.policy"], "delete");
    assert_eq!(offsets(&mut corner, 7, &topic, LATEST), [10, 0]);
    assert_eq!(offsets(&mut corner, 7, &topic, EARLIEST), [0, 0]);

    let shown = corner.call(4, &DescribeLogDirsRequest::default().with_topics(None));
    assert_eq!(shown.error_code, 0);
    let [directory] = &shown.results[..] else {
        panic!("one directory: {shown:?}");
    };
    assert!(directory.total_bytes > 0 && directory.usable_bytes > 0);
    let wanted = topic_name(&topic);
    let logs = directory.topics.iter().find(|row| row.name == wanted);
    let sizes = &logs.expect("the topic's logs are listed").partitions;
    assert_eq!(sizes.len(), 2);
    assert!(sizes.iter().any(|row| row.partition_size > 0));

    let listed = corner.call(4, &ListGroupsRequest::default());
    let row = listed
        .groups
        .iter()
        .find(|row| row.group_id == group_id(&group));
    assert_eq!(row.expect("the group is listed").group_state, text("Empty"));
    let request = DescribeGroupsRequest::default().with_groups(vec![group_id(&group)]);
    assert_eq!(corner.call(5, &request).groups[0].error_code, 0);
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group_id(&group))
        .with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let groups = corner.call(8, &request).groups;
    assert_eq!(groups[0].error_code, 0);
    assert_eq!(
        groups[0].topics[0].partitions[0].committed_offset,
        COMMITTED
    );

    // Its probe from end to end: a topic of its own, with reassignments to look at.
    let own = CreatableTopic::default()
        .with_name(topic_name(&unique("kminion-end-to-end")))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![own])
        .with_timeout_ms(30_000);
    assert_eq!(corner.call(7, &request).topics[0].error_code, 0);
    let request = ListPartitionReassignmentsRequest::default().with_topics(None);
    let moving = corner.call(0, &request);
    assert_eq!((moving.error_code, moving.topics.len()), (0, 0));
}

/// The other way in which kminion learns what was committed: it reads the groups' topic.
#[test]
fn kminion_reads_commits_from_the_groups_topic() {
    let (mut corner, group) = watched();
    let topic = corner.topic.clone();
    let partitions = corner.topic("__consumer_offsets").partitions.len();
    wait_until("the commit is read", || {
        (0..partitions).any(|index| {
            let index = i32::try_from(index).expect("few partitions");
            let read = corner.read_uncommitted("__consumer_offsets", index, 0);
            let rows = read.batches.iter().flat_map(|batch| &batch.records);
            rows.filter_map(|row| commit_of(row.key.as_deref()?, row.value.as_deref()?))
                .any(|row| row == (group.clone(), topic.clone(), 0, COMMITTED))
        })
    });
}

/// Group, topic, partition and offset of a commit's record.
fn commit_of(mut key: &[u8], mut value: &[u8]) -> Option<(String, String, i32, i64)> {
    fn string(from: &mut &[u8]) -> String {
        let length = usize::try_from(from.get_i16()).expect("a length");
        let (text, rest) = from.split_at(length);
        *from = rest;
        String::from_utf8(text.to_vec()).expect("text")
    }
    if key.get_i16() > 1 {
        return None;
    }
    let (group, topic, partition) = (string(&mut key), string(&mut key), key.get_i32());
    value.get_i16();
    Some((group, topic, partition, value.get_i64()))
}

#[test]
fn akhq_shows_the_cluster_topics_and_groups() {
    let (mut corner, group) = watched();
    let topic = corner.topic.clone();
    let me = corner.topic(&topic).partitions[0].leader_id;
    let request =
        DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    let cluster = corner.call(2, &request);
    assert_eq!(cluster.error_code, 0);
    assert_eq!(cluster.brokers[0].broker_id, me);
    assert!(cluster.cluster_authorized_operations > 0);

    let asked = PartitionsOf::default().with_name(topic_name(&topic));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![asked])
        .with_response_partition_limit(2000)
        .with_cursor(None);
    let shown = corner.call(0, &request);
    assert_eq!(shown.topics[0].error_code, 0);
    assert_eq!(shown.topics[0].partitions.len(), 2);
    assert!(!shown.topics[0].topic_id.is_nil());
    let shown = configs(&mut corner, TOPIC, &topic, &[]);
    for key in ["cleanup.policy", "retention.ms", "min.insync.replicas"] {
        assert!(!shown[key].is_empty(), "{key}");
    }
    assert!(configs(&mut corner, BROKER, &me.0.to_string(), &[]).len() > 100);
    for (timestamp, expected) in [(EARLIEST, [0, 0]), (LATEST, [10, 0])] {
        assert_eq!(offsets(&mut corner, 10, &topic, timestamp), expected);
    }
    let listed = corner.call(5, &ListGroupsRequest::default());
    let row = listed
        .groups
        .iter()
        .find(|row| row.group_id == group_id(&group));
    assert!(row.is_some_and(|row| row.group_type.eq_ignore_ascii_case("classic")));
    let request = DescribeGroupsRequest::default()
        .with_groups(vec![group_id(&group)])
        .with_include_authorized_operations(true);
    let described = corner.call(6, &request);
    assert_eq!(described.groups[0].error_code, 0);
    assert!(described.groups[0].authorized_operations > 0);
    no_rules_of_access(&mut corner);
}

#[test]
fn kafbat_finds_out_what_the_cluster_can() {
    let (mut corner, _) = watched();
    let topic = corner.topic.clone();
    let me = corner.topic(&topic).partitions[0].leader_id;
    let versions = corner.api_versions(4);
    let finalized = |name: &str| {
        let rows = &versions.finalized_features;
        rows.iter()
            .find(|row| row.name == text(name))
            .map(|row| row.max_version_level)
    };
    assert!(finalized("metadata.version").is_some_and(|level| level > 0));
    assert_eq!(finalized("transaction.version"), Some(2));

    let shown = configs(&mut corner, BROKER, &me.0.to_string(), &[]);
    assert_eq!(shown["delete.topic.enable"], "true");
    assert_eq!(shown["auto.create.topics.enable"], "true");
    for key in [
        "default.replication.factor",
        "num.partitions",
        "min.insync.replicas",
    ] {
        assert!(shown[key].parse::<i32>().is_ok(), "{key}");
    }
    no_rules_of_access(&mut corner);
    let quotas = corner.call(1, &DescribeClientQuotasRequest::default());
    assert_eq!(quotas.error_code, 0);
    let quorum = corner.call(2, &DescribeQuorumRequest::default());
    assert_eq!(quorum.error_code, 0);
    assert_eq!(
        corner
            .call(2, &ListTransactionsRequest::default())
            .error_code,
        0
    );

    let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(&topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![wanted]))
        .with_include_topic_authorized_operations(true);
    let row = &corner.call(13, &request).topics[0];
    assert!(row.error_code == 0 && row.topic_authorized_operations > 0);
    let asked = ProducersOf::default()
        .with_name(topic_name(&topic))
        .with_partition_indexes(vec![0]);
    let request = DescribeProducersRequest::default().with_topics(vec![asked]);
    assert_eq!(
        corner.call(0, &request).topics[0].partitions[0].error_code,
        0
    );
}
