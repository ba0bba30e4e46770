//! Bad input of topics and settings, cell by cell (L81 to L87): each refusal has its code, which is Kafka's, and a sentence that
//! names the thing, the limit and the way out. The sentences are Tally's own: Apache Kafka is asked for the codes alone.

mod broker;
mod settings;
mod topics;

use crate::configs::TOPIC;
use crate::corner::Corner;
use kafka_protocol::messages as m;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::protocol::StrBytes;
use tally_testkit::client::{Client, text, topic_name, unique};
use tally_testkit::waiting::wait_until;

const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const GROUP: i8 = 32;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Longest value of a setting, in bytes: Kafka's, and all that a string of the oldest requests holds.
const VALUE_BYTES_MAX: usize = 32_767;

/// A code and, if it is one, a sentence with these words.
#[track_caller]
fn check(is_kafka: bool, got: (i16, Option<&StrBytes>), code: i16, words: &[&str], why: &str) {
    assert_eq!(got.0, code, "{why}: {:?}", got.1);
    if is_kafka || code == 0 {
        return;
    }
    let sentence = got.1.unwrap_or_else(|| panic!("{why}: no sentence"));
    for word in words {
        assert!(sentence.contains(word), "{why}: {word:?} in {sentence:?}");
    }
}

fn topic(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

fn with_config(topic: CreatableTopic, key: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig::default()
        .with_name(text(key))
        .with_value(value.map(text));
    topic.with_configs(vec![config])
}

fn assigned(topic: CreatableTopic, brokers: &[i32]) -> CreatableTopic {
    let one = CreatableReplicaAssignment::default()
        .with_partition_index(0)
        .with_broker_ids(brokers.iter().map(|id| m::BrokerId(*id)).collect());
    topic.with_assignments(vec![one])
}

#[track_caller]
fn own_id(corner: &mut Corner) -> i32 {
    let topic = corner.topic.clone();
    corner.client.topic(&topic).partitions[0].leader_id.0
}

/// One change of one setting, checked only: code and sentence.
#[track_caller]
fn would(
    client: &mut Client,
    (kind, name): (i8, &str),
    (key, operation, value): (&str, i8, Option<&str>),
) -> (i16, Option<StrBytes>) {
    change(client, (kind, name), (key, operation, value), true)
}

#[track_caller]
fn change(
    client: &mut Client,
    (kind, name): (i8, &str),
    (key, operation, value): (&str, i8, Option<&str>),
    validate_only: bool,
) -> (i16, Option<StrBytes>) {
    let config = incremental::AlterableConfig::default()
        .with_name(text(key))
        .with_config_operation(operation)
        .with_value(value.map(text));
    let resource = incremental::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(vec![config]);
    let request = m::IncrementalAlterConfigsRequest::default()
        .with_resources(vec![resource])
        .with_validate_only(validate_only);
    let row = client.call(1, &request).responses.remove(0);
    (row.error_code, row.error_message)
}

/// What the catalogue asks in the newest versions, in the oldest.
#[test]
fn l82_l85_l86_the_lowest_versions_say_the_same() {
    let mut corner = Corner::new();
    let name = &*unique("v");
    let request = |topic| {
        m::CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000)
    };
    let made = corner.call(2, &request(topic(name, 2, 1))).topics.remove(0);
    assert_eq!((made.error_code, made.error_message), (0, None));
    wait_until("it is there", || {
        corner.client.topic(name).partitions.len() == 2
    });
    for (key, value, code) in [
        ("segment.ms", Some("7"), 0),
        ("segment.ms", Some("0"), 40),
        ("segment.ms", None, 42),
        ("no.such", Some("1"), 40),
    ] {
        for version in [0, 2] {
            let config = m::alter_configs_request::AlterableConfig::default()
                .with_name(text(key))
                .with_value(value.map(text));
            let resource = m::alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(text(name))
                .with_configs(vec![config]);
            let request = m::AlterConfigsRequest::default().with_resources(vec![resource]);
            let row = corner.call(version, &request).responses.remove(0);
            let got = (row.error_code, row.error_message.as_ref());
            check(
                corner.is_kafka,
                got,
                code,
                &[key],
                &format!("v{version} {key} {value:?}"),
            );
        }
    }
    for (version, before, code) in [(0, 0, 0), (2, 0, 0), (0, 9, 1), (2, 9, 1), (0, -2, 1)] {
        let partition = m::delete_records_request::DeleteRecordsPartition::default()
            .with_partition_index(0)
            .with_offset(before);
        let topic = m::delete_records_request::DeleteRecordsTopic::default()
            .with_name(topic_name(name))
            .with_partitions(vec![partition]);
        let request = m::DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000);
        let rows = corner.call(version, &request).topics.remove(0).partitions;
        assert_eq!(rows[0].error_code, code, "v{version} {before}");
    }
    for version in 0..=2 {
        let request = m::DescribeClusterRequest::default()
            .with_endpoint_type(1)
            .with_include_cluster_authorized_operations(true);
        let shown = corner.call(version, &request);
        assert_eq!(
            (shown.error_code, shown.brokers.len()),
            (0, 1),
            "v{version}"
        );
        assert!(shown.cluster_authorized_operations > 0, "v{version}");
    }
    let request = m::DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name(name)])
        .with_timeout_ms(30_000);
    assert_eq!(corner.call(1, &request).responses[0].error_code, 0);
    wait_until("it is gone", || corner.client.topic(name).error_code == 3);
}
