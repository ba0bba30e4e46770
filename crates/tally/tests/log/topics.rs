//! Creating and deleting topics, and their configuration: L81 to L86.

use crate::corner::Corner;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
};
use tally_testkit::batches::Batch;
use tally_testkit::client::{Client, FetchCall, text, topic_name, unique};
use tally_testkit::waiting::wait_until;

fn topic(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

#[track_caller]
fn create(client: &mut Client, topics: Vec<CreatableTopic>, validate_only: bool) -> Vec<i16> {
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(30_000)
        .with_validate_only(validate_only);
    let response = client.call(7, &request);
    response
        .topics
        .iter()
        .map(|topic| topic.error_code)
        .collect()
}

/// DeleteTopics v5; the error.
#[track_caller]
fn delete(client: &mut Client, name: &str) -> i16 {
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name(name)])
        .with_timeout_ms(30_000);
    client.call(5, &request).responses[0].error_code
}

#[test]
fn l81_names() {
    let mut corner = Corner::new();
    let prefix = unique("n");
    let longest = format!("{prefix}{}", "x".repeat(249 - prefix.len()));
    for (name, expected) in [
        (longest.as_str(), 0),
        (&format!("{longest}x"), 17),
        (&format!("{prefix}.b"), 0),
        (&format!("{prefix}_b"), 17),
        (".", 17),
        ("..", 17),
        ("", 17),
        ("a/b", 17),
        ("ä", 17),
    ] {
        let codes = create(&mut corner, vec![topic(name, 1, 1)], false);
        assert_eq!(codes, [expected], "{name:?}");
    }
}

#[test]
fn l82_what_is_refused() {
    let mut corner = Corner::new();
    let existing = corner.topic.clone();
    let config = |key, value| {
        let config = CreatableTopicConfig::default()
            .with_name(text(key))
            .with_value(Some(text(value)));
        topic(&unique("c"), 1, 1).with_configs(vec![config])
    };
    let twice = unique("twice");
    for (topics, expected, why) in [
        (vec![topic(&existing, 1, 1)], vec![36], "exists"),
        (
            vec![topic(&twice, 1, 1), topic(&twice, 1, 1)],
            vec![42],
            "twice",
        ),
        (vec![topic(&unique("p"), 0, 1)], vec![37], "no partitions"),
        (vec![topic(&unique("p"), -2, 1)], vec![37], "partitions -2"),
        (vec![topic(&unique("p"), 1, 0)], vec![38], "no replicas"),
        (
            vec![topic(&unique("p"), 1, 3)],
            vec![38],
            "L83: three replicas",
        ),
        (vec![config("no.such.key", "1")], vec![40], "unknown key"),
        (vec![config("segment.bytes", "x")], vec![40], "bad value"),
        (vec![config("retention.ms", "1000")], vec![0], "good value"),
        (vec![topic(&unique("d"), -1, -1)], vec![0], "defaults"),
    ] {
        let codes = create(&mut corner, topics, false);
        assert_eq!(codes, expected, "{why}");
    }
    let dry = unique("dry");
    assert_eq!(create(&mut corner, vec![topic(&dry, 2, 1)], true), [0]);
    assert_eq!(corner.client.topic(&dry).error_code, 3, "validate_only");
}

#[test]
fn l82_assignments_are_whole_and_stand_alone() {
    let mut corner = Corner::new();
    let own = corner.client.topic(&corner.topic.clone()).partitions[0].leader_id;
    let assigned = |parts: &[(i32, &[BrokerId])]| {
        let assignments = parts.iter().map(|(index, brokers)| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*index)
                .with_broker_ids(brokers.to_vec())
        });
        topic(&unique("a"), -1, -1).with_assignments(assignments.collect())
    };
    let one: &[BrokerId] = &[own];
    for (wanted, expected, why) in [
        (assigned(&[(0, one), (1, one)]), 0, "two partitions"),
        (assigned(&[(1, one), (0, one)]), 0, "in any order"),
        (assigned(&[(0, one), (0, one)]), 39, "a partition twice"),
        (assigned(&[(0, one), (2, one)]), 39, "a gap"),
        (assigned(&[(1, one)]), 39, "no partition 0"),
        (assigned(&[(0, &[])]), 39, "no replica"),
        (assigned(&[(0, &[own, own])]), 39, "a broker twice"),
        (
            assigned(&[(0, one)]).with_num_partitions(1),
            42,
            "and a count",
        ),
        (
            assigned(&[(0, one)]).with_replication_factor(1),
            42,
            "and a factor",
        ),
    ] {
        assert_eq!(
            create(&mut corner, vec![wanted], false),
            [expected],
            "{why}"
        );
    }
}

#[test]
fn l82_each_topic_stands_for_itself_and_their_number_for_all() {
    let mut corner = Corner::new();
    let (good, other) = (unique("g"), unique("h"));
    let topics = vec![
        topic(&good, 1, 1),
        topic("__cluster_metadata", 1, 1),
        topic("a/b", 1, 1),
        topic(&other, 2, 1),
    ];
    assert_eq!(create(&mut corner, topics, false), [0, 42, 17, 0]);
    for name in [&good, &other] {
        assert_eq!(corner.client.topic(name).error_code, 0, "{name}");
    }
    let (small, large) = (unique("s"), unique("t"));
    let many = || vec![topic(&small, 1, 1), topic(&large, 10_000, 1)];
    assert_eq!(create(&mut corner, many(), false), [44, 44]);
    assert_eq!(create(&mut corner, many(), true), [44, 44]);
    assert_eq!(corner.client.topic(&small).error_code, 3);
}

#[test]
fn l82_the_reply_describes_the_topic() {
    let mut corner = Corner::new();
    let name = unique("r");
    let config = CreatableTopicConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("12345")));
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic(&name, 2, 1).with_configs(vec![config])])
        .with_timeout_ms(30_000);
    let response = corner.call(7, &request);
    let result = &response.topics[0];
    assert_eq!((result.error_code, result.num_partitions), (0, 2));
    assert_eq!(result.replication_factor, 1);
    let configs = result.configs.as_ref().expect("configs");
    let find = |key: &str| configs.iter().find(|config| &*config.name == key);
    let retention = find("retention.ms").expect("listed");
    assert_eq!(retention.value.as_deref(), Some("12345"));
    assert!(find("cleanup.policy").is_some());
    wait_until("the topic is there", || {
        corner.client.topic(&name).error_code == 0
    });
    assert_eq!(corner.client.topic(&name).topic_id, result.topic_id);
}

#[test]
fn l83_replica_assignments() {
    let mut corner = Corner::new();
    let own = corner.client.topic(&corner.topic.clone()).partitions[0].leader_id;
    for (node, expected) in [(own, 0), (BrokerId(own.0 + 99), 39)] {
        let assignment = CreatableReplicaAssignment::default()
            .with_partition_index(0)
            .with_broker_ids(vec![node]);
        let assigned = topic(&unique("a"), -1, -1).with_assignments(vec![assignment]);
        assert_eq!(create(&mut corner, vec![assigned], false), [expected]);
    }
}

#[test]
fn l85_a_deleted_topic_comes_back_empty_with_another_id() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    corner.fill(3);
    let old_id = corner.topic_id(&name);
    assert_eq!(delete(&mut corner, &name), 0);
    wait_until("the topic is gone", || {
        corner.client.topic(&name).error_code == 3
    });
    assert_eq!(corner.code(&Batch::plain(1)), 3);
    assert_eq!(delete(&mut corner, &name), 3);
    corner.create_topic(&name, 1, &[]);
    assert_ne!(corner.client.topic(&name).topic_id, old_id);
    assert_eq!(corner.end(), 0);
    let mut call = FetchCall::of(&name, 0, 0, 0);
    call.version = 13;
    let request = corner.fetch_request(&call);
    assert_eq!(
        request.topics[0].topic_id, old_id,
        "as the client remembers it"
    );
    let response = corner.call(13, &request);
    assert_eq!(response.responses[0].partitions[0].error_code, 100);
}

#[test]
fn l85_topics_are_deleted_by_id_too() {
    let mut corner = Corner::new();
    let name = corner.another_topic(1, &[]);
    let id = corner.topic_id(&name);
    let by_id = |id| {
        let state = DeleteTopicState::default()
            .with_name(None)
            .with_topic_id(id);
        DeleteTopicsRequest::default()
            .with_topics(vec![state])
            .with_timeout_ms(30_000)
    };
    assert_eq!(corner.call(6, &by_id(id)).responses[0].error_code, 0);
    wait_until("the topic is gone", || {
        corner.client.topic(&name).error_code == 3
    });
    assert_eq!(corner.call(6, &by_id(id)).responses[0].error_code, 100);
}

#[test]
fn l85_internal_topics_are_not_deleted() {
    let mut corner = Corner::new();
    if corner.is_kafka {
        return; // LN-9
    }
    for name in ["__consumer_offsets", "__transaction_state"] {
        let topic = corner.client.topic(name);
        assert_eq!((topic.error_code, topic.is_internal), (0, true), "{name}");
        assert_eq!(delete(&mut corner, name), 17, "{name}");
        assert_eq!(corner.client.topic(name).error_code, 0, "{name}");
    }
}

#[test]
fn l86_configurations_are_described() {
    let mut corner = Corner::with_topic(1, &[("retention.ms", "777000")]);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(&corner.topic))
        .with_configuration_keys(None);
    let unknown = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("nope"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource, unknown]);
    for version in 1..=4 {
        let response = corner.call(version, &request);
        let result = &response.results[0];
        assert_eq!(result.error_code, 0, "v{version}");
        let find = |key: &str| result.configs.iter().find(|config| &*config.name == key);
        let retention = find("retention.ms").expect("listed");
        assert_eq!(retention.value.as_deref(), Some("777000"));
        assert_eq!(retention.config_source, 1);
        let policy = find("cleanup.policy").expect("listed");
        assert_eq!(policy.value.as_deref(), Some("delete"));
        assert_eq!(policy.config_source, 5);
        assert_eq!(response.results[1].error_code, 3);
    }
}
