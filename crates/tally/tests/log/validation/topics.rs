//! Topics: what CreateTopics, CreatePartitions and DeleteTopics refuse, and in which order they look (rows 11.1 to 11.4).

use super::{assigned, check, own_id, topic, with_config};
use crate::corner::{Corner, PROGRAM};
use kafka_protocol::messages as m;
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::protocol::StrBytes;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, topic_name, unique};
use tally_testkit::waiting::wait_until;

#[test]
fn l82_a_refusal_names_the_topic_the_limit_and_the_way_out() {
    let mut corner = Corner::new();
    let me = own_id(&mut corner);
    let name = &*unique("v");
    let dotted = corner.another_topic(1, &[]);
    let taken = corner.topic.clone();
    corner.create_topic(&format!("{dotted}.x"), 1, &[]);
    let long = "x".repeat(250);
    let sized = "segment.bytes";
    let cases: [(CreatableTopic, i16, &[&str]); 17] = [
        (topic(&taken, 1, 1), 36, &[&taken, "exists", "choose"]),
        (topic("", 1, 1), 17, &["\"\"", "choose"]),
        (topic("..", 1, 1), 17, &["\"..\"", "choose"]),
        (topic(&long, 1, 1), 17, &["249", "250", "shorter"]),
        (topic("a/b", 1, 1), 17, &["\"a/b\"", "letters"]),
        (
            topic(&format!("{dotted}_x"), 1, 1),
            17,
            &[&format!("{dotted}_x"), &format!("{dotted}.x"), "choose"],
        ),
        (
            topic("__cluster_metadata", 1, 1),
            42,
            &["__cluster_metadata", "reserved"],
        ),
        (topic(name, 0, 1), 37, &[name, "0 partitions", "-1"]),
        (topic(name, -2, 1), 37, &[name, "-2 partitions", "-1"]),
        (topic(name, 1, 0), 38, &[name, "factor 0", "1 broker", "-1"]),
        (topic(name, 1, -2), 38, &[name, "factor -2", "1 broker"]),
        (topic(name, 1, 2), 38, &[name, "factor 2", "1 broker"]),
        (topic(name, 10_001, 1), 44, &["10001", "10000", "fewer"]),
        (
            with_config(topic(name, 1, 1), "retension.ms", Some("1")),
            40,
            &["retension.ms", "Did you mean retention.ms?"],
        ),
        (
            with_config(topic(name, 1, 1), sized, Some("1")),
            40,
            &["segment.bytes=1", "at least 1048576"],
        ),
        (
            with_config(topic(name, 1, 1), sized, None),
            40,
            &[sized, "no value", "give one"],
        ),
        (
            assigned(topic(name, -1, -1), &[me + 98]),
            39,
            &[name, "0, 1, ...", &me.to_string()],
        ),
    ];
    for version in [2, 5, 7] {
        for (wanted, code, words) in &cases {
            let request = m::CreateTopicsRequest::default()
                .with_topics(vec![wanted.clone()])
                .with_timeout_ms(30_000);
            let response = corner.call(version, &request);
            let row = &response.topics[0];
            let got = (row.error_code, row.error_message.as_ref());
            check(
                corner.is_kafka,
                got,
                *code,
                words,
                &format!("v{version} {wanted:?}"),
            );
            assert!(row.topic_id.is_nil());
        }
    }
    assert_eq!(corner.client.topic(name).error_code, 3, "nothing was made");
}

/// The rows of 11.2 are in the order in which they are looked at.
#[test]
fn l82_of_several_reasons_the_first_one_is_given() {
    let mut corner = Corner::new();
    let me = own_id(&mut corner);
    let (taken, name) = (corner.topic.clone(), unique("v"));
    let bad = |topic| with_config(topic, "no.such", Some("1"));
    for (wanted, code) in [
        (bad(topic("__cluster_metadata", 0, 0)), 42),
        (bad(topic("a/b", 0, 0)), 17),
        (bad(topic(&taken, 0, 0)), 36),
        (bad(topic(&name, 0, 0)), 40),
        (bad(assigned(topic(&name, 1, -1), &[me])), 40),
        (assigned(topic(&name, 1, -1), &[me + 98]), 42),
        (assigned(topic(&name, -1, 1), &[]), 42),
        (topic(&name, 0, 0), 38),
        (topic(&name, 0, 3), 37),
        (topic(&name, -2, -1), 37),
    ] {
        for validate_only in [true, false] {
            let request = m::CreateTopicsRequest::default()
                .with_topics(vec![wanted.clone()])
                .with_timeout_ms(30_000)
                .with_validate_only(validate_only);
            let row = corner.call(7, &request).topics.remove(0);
            assert_eq!(row.error_code, code, "{wanted:?}: {:?}", row.error_message);
        }
    }
    let twice = vec![topic("a/b", 0, 0), topic("a/b", 1, 1)];
    let request = m::CreateTopicsRequest::default().with_topics(twice);
    let response = corner.call(7, &request);
    let [row] = &response.topics[..] else {
        panic!("answered once: {response:?}");
    };
    let got = (row.error_code, row.error_message.as_ref());
    check(corner.is_kafka, got, 42, &["a/b", "once"], "twice");
}

/// `brokers`: of each new partition.
fn growth(name: &str, count: i32, brokers: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let one = |ids: &&[i32]| {
        let ids = ids.iter().map(|id| m::BrokerId(*id));
        CreatePartitionsAssignment::default().with_broker_ids(ids.collect())
    };
    CreatePartitionsTopic::default()
        .with_name(topic_name(name))
        .with_count(count)
        .with_assignments(brokers.map(|brokers| brokers.iter().map(one).collect()))
}

#[test]
fn l84_growth_is_refused_with_its_reason() {
    let mut corner = Corner::new();
    let me = own_id(&mut corner);
    let name = &*corner.another_topic(3, &[]);
    let cases: [(CreatePartitionsTopic, i16, &[&str]); 9] = [
        (
            growth(name, 3, None),
            37,
            &[name, "3 partitions", "has 3", "more"],
        ),
        (
            growth(name, 0, None),
            37,
            &[name, "0 partitions", "has 3", "more"],
        ),
        (growth("no-such", 4, None), 3, &["no-such"]),
        (
            growth(name, 5, Some(&[&[me]])),
            39,
            &[name, "2 assignments", &me.to_string()],
        ),
        (
            growth(name, 4, Some(&[&[me], &[me]])),
            39,
            &[name, "1 assignments"],
        ),
        (growth(name, 4, Some(&[&[]])), 39, &[name]),
        (growth(name, 4, Some(&[&[me, me]])), 39, &[name]),
        (
            growth(name, 4, Some(&[&[me + 98]])),
            39,
            &[name, &me.to_string()],
        ),
        (growth(name, 3, Some(&[&[me + 98]])), 37, &[name]),
    ];
    for version in [0, 3] {
        for (wanted, code, words) in &cases {
            let request = m::CreatePartitionsRequest::default()
                .with_topics(vec![wanted.clone()])
                .with_timeout_ms(30_000);
            let row = corner.call(version, &request).results.remove(0);
            let got = (row.error_code, row.error_message.as_ref());
            check(
                corner.is_kafka,
                got,
                *code,
                words,
                &format!("v{version} {wanted:?}"),
            );
        }
    }
    assert_eq!(corner.client.topic(name).partitions.len(), 3);
}

#[test]
fn l84_the_lowest_and_the_highest_version_grow_a_topic() {
    let mut corner = Corner::new();
    let name = &*corner.another_topic(3, &[]);
    for (version, count) in [(0, 4), (3, 5)] {
        let request = m::CreatePartitionsRequest::default()
            .with_topics(vec![growth(name, count, None)])
            .with_timeout_ms(30_000);
        assert_eq!(corner.call(version, &request).results[0].error_code, 0);
    }
    wait_until("it has grown", || {
        corner.client.topic(name).partitions.len() == 5
    });
    if !corner.is_kafka {
        let request = m::CreatePartitionsRequest::default().with_topics(vec![growth(
            "__transaction_state",
            100,
            None,
        )]);
        let row = corner.call(3, &request).results.remove(0);
        let got = (row.error_code, row.error_message.as_ref());
        check(false, got, 17, &["__transaction_state", "internal"], "LN-9");
    }
}

fn by_name(name: &str) -> DeleteTopicState {
    DeleteTopicState::default().with_name(Some(topic_name(name)))
}

fn by_id(id: uuid::Uuid) -> DeleteTopicState {
    DeleteTopicState::default()
        .with_name(None)
        .with_topic_id(id)
}

#[track_caller]
fn delete(client: &mut Client, topics: Vec<DeleteTopicState>) -> Vec<(i16, Option<StrBytes>)> {
    let request = m::DeleteTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(30_000);
    let rows = client.call(6, &request).responses.into_iter();
    rows.map(|row| (row.error_code, row.error_message))
        .collect()
}

#[test]
fn l85_a_topic_is_named_once_and_in_one_way() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    let id = corner.topic_id(&name);
    let unknown = uuid::Uuid::from_u128(77);
    let cases: [(Vec<DeleteTopicState>, i16, &[&str]); 8] = [
        (vec![by_name(&name).with_topic_id(id)], 42, &["name", "id"]),
        (vec![by_id(uuid::Uuid::nil())], 42, &["name", "id"]),
        (vec![by_name(&name), by_name(&name)], 42, &[&name, "once"]),
        (vec![by_id(id), by_id(id)], 42, &["once"]),
        (vec![by_name(&name), by_id(id)], 42, &["once"]),
        (vec![by_name("no-such")], 3, &["no-such"]),
        (vec![by_name("a/b")], 3, &["a/b"]),
        (vec![by_id(unknown)], 100, &["AAAAAAAAAAAAAAAAAAAATQ"]),
    ];
    for (topics, code, words) in cases {
        let why = format!("{topics:?}");
        let rows = delete(&mut corner, topics);
        assert!(!rows.is_empty(), "{why}");
        for (got, sentence) in rows {
            check(corner.is_kafka, (got, sentence.as_ref()), code, words, &why);
        }
    }
    assert_eq!(
        corner.client.topic(&name).error_code,
        0,
        "it is still there"
    );
    for version in 1..=5 {
        let request = m::DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name("no-such")])
            .with_timeout_ms(30_000);
        let row = corner.call(version, &request).responses.remove(0);
        assert_eq!(row.error_code, 3, "v{version}");
        assert_eq!(row.error_message.is_some(), version >= 5, "v{version}");
    }
}

#[test]
fn l85_topics_stay_where_deletion_is_switched_off() {
    let broker = Broker::start(PROGRAM, &["delete.topic.enable=false"]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let name = corner.topic.clone();
    for version in 1..=5 {
        let request = m::DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name(&name)])
            .with_timeout_ms(30_000);
        let row = corner.call(version, &request).responses.remove(0);
        let code = if version >= 3 { 73 } else { 42 };
        assert_eq!(row.error_code, code, "v{version}");
    }
    let rows = delete(&mut corner, vec![by_name(&name)]);
    let got = (rows[0].0, rows[0].1.as_ref());
    let words: [&str; 3] = [&name, "delete.topic.enable", "true"];
    check(corner.is_kafka, got, 73, &words, "by name");
    assert_eq!(corner.client.topic(&name).error_code, 0);
}
