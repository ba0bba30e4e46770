//! Configurations changed while the broker runs: L86, and L06 for what takes effect at once.

use crate::corner::{Corner, PROGRAM};
use kafka_protocol::messages::alter_configs_request as legacy;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest,
};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, text, unique};
use tally_testkit::waiting::wait_until;

pub(crate) const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

pub(crate) const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Property, value.
type Setting<'a> = (&'a str, Option<&'a str>);

/// Property, operation, value.
pub(crate) type Change<'a> = (&'a str, i8, Option<&'a str>);

fn resource(kind: i8, name: &str, changes: &[Change<'_>]) -> AlterConfigsResource {
    let configs = changes.iter().map(|(name, operation, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    });
    AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect())
}

/// IncrementalAlterConfigs with one resource; its error. A refusal has a sentence, a success has none.
#[track_caller]
pub(crate) fn alter(client: &mut Client, kind: i8, name: &str, changes: &[Change<'_>]) -> i16 {
    let mut outcomes = Vec::new();
    for validate_only in [true, false] {
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(vec![resource(kind, name, changes)])
            .with_validate_only(validate_only);
        let response = client.call(1, &request);
        assert_eq!(response.responses.len(), 1);
        let row = &response.responses[0];
        assert_eq!((row.resource_type, &*row.resource_name), (kind, name));
        assert_eq!(row.error_code != 0, row.error_message.is_some());
        outcomes.push(row.error_code);
    }
    assert_eq!(
        outcomes[0], outcomes[1],
        "a check and a change say the same"
    );
    outcomes[1]
}

/// AlterConfigs with one resource; its error.
#[track_caller]
fn replace(client: &mut Client, kind: i8, name: &str, settings: &[Setting<'_>]) -> i16 {
    let configs = settings.iter().map(|(name, value)| {
        legacy::AlterableConfig::default()
            .with_name(text(name))
            .with_value(value.map(text))
    });
    let resource = legacy::AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(2, &request).responses[0].error_code
}

/// DescribeConfigs of one resource: its error and its properties.
#[track_caller]
fn describe(
    client: &mut Client,
    kind: i8,
    name: &str,
) -> (i16, Vec<DescribeConfigsResourceResult>) {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    let mut response = client.call(4, &request);
    let result = response.results.remove(0);
    (result.error_code, result.configs)
}

/// Value and source of one property; `None` when it is not listed.
#[track_caller]
fn shown(client: &mut Client, kind: i8, name: &str, key: &str) -> Option<(String, i8)> {
    let (error, configs) = describe(client, kind, name);
    assert_eq!(error, 0);
    let config = configs.into_iter().find(|config| &*config.name == key)?;
    let value = config.value.as_deref().unwrap_or("null").to_owned();
    Some((value, config.config_source))
}

/// Waits until a property shows this value and source: Apache Kafka's brokers hear of changes from its controller.
#[track_caller]
fn await_shown(client: &mut Client, (kind, name): (i8, &str), key: &str, expected: (&str, i8)) {
    wait_until("the property shows", || {
        shown(client, kind, name, key)
            .is_some_and(|(value, source)| (value.as_str(), source) == expected)
    });
}

#[track_caller]
fn own_id(corner: &mut Corner) -> String {
    let topic = corner.topic.clone();
    corner.client.topic(&topic).partitions[0]
        .leader_id
        .0
        .to_string()
}

#[test]
fn l86_a_topics_settings_change() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    let it = (TOPIC, name.as_str());
    let policy = "cleanup.policy";
    let steps: [(&[Change<'_>], &str, (&str, i8)); 9] = [
        (
            &[("retention.ms", SET, Some("1000000"))],
            "retention.ms",
            ("1000000", 1),
        ),
        (&[("segment.ms", SET, Some("77"))], "segment.ms", ("77", 1)),
        (&[], "retention.ms", ("1000000", 1)),
        (
            &[("retention.ms", DELETE, None)],
            "retention.ms",
            ("604800000", 5),
        ),
        (
            &[(policy, APPEND, Some("compact"))],
            policy,
            ("delete,compact", 1),
        ),
        (
            &[(policy, APPEND, Some("compact"))],
            policy,
            ("delete,compact", 1),
        ),
        (
            &[(policy, SUBTRACT, Some("delete"))],
            policy,
            ("compact", 1),
        ),
        (&[(policy, SET, Some("delete"))], policy, ("delete", 1)),
        (&[(policy, DELETE, Some("ignored"))], policy, ("delete", 5)),
    ];
    for (changes, key, expected) in steps {
        assert_eq!(alter(&mut corner, TOPIC, &name, changes), 0, "{changes:?}");
        await_shown(&mut corner, it, key, expected);
    }
    assert_eq!(
        shown(&mut corner, TOPIC, &name, "segment.ms"),
        Some(("77".to_owned(), 1)),
        "what is not named stays"
    );
}

#[test]
fn l86_a_topics_bad_settings_are_refused_whole() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    let cases: [(&[Change<'_>], i16); 24] = [
        (&[("no.such", SET, Some("1"))], 40),
        (&[("no.such", DELETE, None)], 0),
        (&[("no.such", APPEND, Some("1"))], 40),
        (&[("", SET, Some("1"))], 40),
        (&[("retention.ms", SET, Some("x"))], 40),
        (&[("retention.ms", SET, Some(""))], 40),
        (&[("retention.ms", SET, None)], 42),
        (&[("cleanup.policy", APPEND, None)], 42),
        (&[("retention.ms", APPEND, Some("1"))], 40),
        (&[("retention.ms", SUBTRACT, Some("1"))], 40),
        (
            &[
                ("retention.ms", SET, Some("1")),
                ("retention.ms", SET, Some("2")),
            ],
            42,
        ),
        (
            &[("segment.ms", SET, Some("5")), ("no.such", SET, Some("1"))],
            40,
        ),
        (&[("segment.bytes", SET, Some("1048575"))], 40),
        (&[("segment.bytes", SET, Some("2147483648"))], 40),
        (&[("preallocate", SET, Some("yes"))], 40),
        (&[("min.cleanable.dirty.ratio", SET, Some("1.1"))], 40),
        (&[("compression.type", SET, Some("lzma"))], 40),
        (&[("min.insync.replicas", SET, Some("0"))], 40),
        (&[("cleanup.policy", SET, Some("delete,shred"))], 40),
        (
            &[("leader.replication.throttled.replicas", SET, Some("x"))],
            40,
        ),
        (
            &[("leader.replication.throttled.replicas", APPEND, Some("x"))],
            40,
        ),
        (
            &[
                ("max.compaction.lag.ms", SET, Some("5")),
                ("min.compaction.lag.ms", SET, Some("6")),
            ],
            40,
        ),
        (&[("message.format.version", SET, Some("2.0"))], 40),
        (&[("remote.storage.enable", SET, Some("true"))], 40),
    ];
    let before = describe(&mut corner, TOPIC, &name);
    for (changes, expected) in cases {
        let code = alter(&mut corner, TOPIC, &name, changes);
        assert_eq!(code, expected, "{changes:?}");
    }
    let after = describe(&mut corner, TOPIC, &name);
    assert_eq!(after, before, "nothing of it was kept");
}

#[test]
fn l86_topics_that_have_no_settings() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    for (topic, expected) in [("nope", 3), ("", 42), ("a/b", 17)] {
        let code = alter(
            &mut corner,
            TOPIC,
            topic,
            &[("retention.ms", SET, Some("1"))],
        );
        assert_eq!(code, expected, "{topic:?}");
    }
    if !corner.is_kafka {
        let odd = alter(&mut corner, TOPIC, &name, &[("retention.ms", 4, Some("1"))]);
        assert_eq!(odd, 42, "Apache Kafka says -1");
        let grave = [("cleanup.policy", SET, Some("delete"))];
        assert_eq!(alter(&mut corner, TOPIC, "__consumer_offsets", &grave), 40);
    }
}

#[test]
fn l86_resources_are_changed_each_by_itself() {
    let mut corner = Corner::new();
    let (one, other) = (corner.topic.clone(), corner.another_topic(1, &[]));
    let good = [("retention.ms", SET, Some("5000000"))];
    let bad = [("retention.ms", SET, Some("x"))];
    let resources = vec![resource(TOPIC, &one, &good), resource(TOPIC, &other, &bad)];
    for version in 0..=1 {
        let request = IncrementalAlterConfigsRequest::default().with_resources(resources.clone());
        let response = corner.call(version, &request);
        let mut codes: Vec<(String, i16)> = response
            .responses
            .iter()
            .map(|row| (row.resource_name.to_string(), row.error_code))
            .collect();
        let mut expected = vec![(one.clone(), 0), (other.clone(), 40)];
        codes.sort();
        expected.sort();
        assert_eq!(codes, expected, "v{version}");
    }
    await_shown(&mut corner, (TOPIC, &one), "retention.ms", ("5000000", 1));
    let twice = vec![
        resource(TOPIC, &one, &[("retention.ms", DELETE, None)]),
        resource(TOPIC, &one, &[("segment.ms", SET, Some("9"))]),
    ];
    let request = IncrementalAlterConfigsRequest::default().with_resources(twice);
    let response = corner.call(1, &request);
    let codes: Vec<i16> = response
        .responses
        .iter()
        .map(|row| row.error_code)
        .collect();
    assert_eq!(codes, [42, 42]);
    for kind in [0, 1, 3, 64] {
        assert_eq!(alter(&mut corner, kind, "x", &good), 42, "type {kind}");
    }
}

#[test]
fn l86_the_older_way_replaces_all() {
    let mut corner = Corner::with_topic(1, &[("retention.ms", "777000"), ("segment.ms", "99")]);
    let name = corner.topic.clone();
    let one = [("segment.ms", Some("100"))];
    assert_eq!(replace(&mut corner, TOPIC, &name, &one), 0);
    await_shown(&mut corner, (TOPIC, &name), "segment.ms", ("100", 1));
    await_shown(
        &mut corner,
        (TOPIC, &name),
        "retention.ms",
        ("604800000", 5),
    );
    let cases: [(&[Setting<'_>], i16); 4] = [
        (&[("segment.ms", None)], 42),
        (&[("segment.ms", Some("1")), ("segment.ms", Some("2"))], 42),
        (&[("no.such", Some("1"))], 40),
        (&[("segment.bytes", Some("1"))], 40),
    ];
    for (settings, expected) in cases {
        assert_eq!(replace(&mut corner, TOPIC, &name, settings), expected);
    }
    assert_eq!(replace(&mut corner, TOPIC, "nope", &one), 3);
    assert_eq!(replace(&mut corner, 99, "x", &[]), 42);
    let me = own_id(&mut corner);
    assert_eq!(
        replace(&mut corner, LOGGER, &me, &[("root", Some("INFO"))]),
        42
    );
    assert_eq!(replace(&mut corner, TOPIC, &name, &[]), 0);
    await_shown(&mut corner, (TOPIC, &name), "segment.ms", ("604800000", 5));
}

#[test]
fn l06_a_smaller_batch_limit_holds_from_the_next_produce_on() {
    let mut corner = Corner::new();
    let name = corner.topic.clone();
    let batch = Batch::plain(50);
    let size = batch.encode().len();
    assert_eq!(corner.code(&batch), 0);
    let limit = |bytes: usize| bytes.to_string();
    for (bytes, expected) in [(size - 1, 10), (size, 0), (size - 1, 10)] {
        let value = limit(bytes);
        let change = [("max.message.bytes", SET, Some(value.as_str()))];
        assert_eq!(alter(&mut corner, TOPIC, &name, &change), 0);
        if corner.is_kafka {
            await_shown(
                &mut corner,
                (TOPIC, &name),
                "max.message.bytes",
                (&value, 1),
            );
            wait_until("the log knows", || corner.code(&batch) == expected);
        }
        assert_eq!(corner.code(&batch), expected, "limit {bytes}, batch {size}");
    }
}

/// Tests that change the shared broker would meet each other: this one has its own.
#[test]
fn l86_a_brokers_settings_change_and_outlive_it() {
    let mut broker = Broker::start(PROGRAM, &["message.max.bytes=900000"]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let me = own_id(&mut corner);
    let topic = corner.topic.clone();
    let own = corner.another_topic(1, &[("max.message.bytes", "500")]);
    let key = "message.max.bytes";
    await_shown(&mut corner, (BROKER, &me), key, ("900000", 4));
    assert_eq!(shown(&mut corner, BROKER, "", key), None, "not yet");
    let set = |value| [(key, SET, Some(value))];
    assert_eq!(alter(&mut corner, BROKER, "", &set("800000")), 0);
    await_shown(&mut corner, (BROKER, ""), key, ("800000", 3));
    await_shown(&mut corner, (BROKER, &me), key, ("800000", 3));
    assert_eq!(alter(&mut corner, BROKER, &me, &set("700")), 0);
    await_shown(&mut corner, (BROKER, &me), key, ("700", 2));
    let (_, configs) = describe(&mut corner, BROKER, &me);
    let entry = configs.iter().find(|config| &*config.name == key);
    let chain: Vec<(&str, i8)> = entry
        .expect("listed")
        .synonyms
        .iter()
        .map(|synonym| (synonym.value.as_deref().expect("a value"), synonym.source))
        .collect();
    assert_eq!(
        chain,
        [("700", 2), ("800000", 3), ("900000", 4), ("1048588", 5)]
    );
    await_shown(
        &mut corner,
        (TOPIC, &topic),
        "max.message.bytes",
        ("700", 2),
    );
    await_shown(&mut corner, (TOPIC, &own), "max.message.bytes", ("500", 1));
    let large = Batch::plain(100);
    wait_until("the new limit holds", || corner.code(&large) == 10);
    drop(corner);
    broker.kill_and_start();
    let mut client = broker.client();
    await_shown(&mut client, (BROKER, &me), key, ("700", 2));
    wait_until("the limit is still there", || {
        client.produce_one(&topic, 0, large.encode()).error == 10
    });
    assert_eq!(alter(&mut client, BROKER, &me, &[(key, DELETE, None)]), 0);
    await_shown(&mut client, (BROKER, &me), key, ("800000", 3));
    wait_until("the limit is gone", || {
        client.produce_one(&topic, 0, large.encode()).error == 0
    });
    assert_eq!(alter(&mut client, BROKER, "", &[(key, DELETE, None)]), 0);
    await_shown(&mut client, (BROKER, &me), key, ("900000", 4));
    assert_eq!(shown(&mut client, BROKER, "", key), None);
}

#[test]
fn l86_what_a_broker_does_not_take() {
    let mut corner = Corner::new();
    let me = own_id(&mut corner);
    let cases: [(&str, &[Change<'_>], i16); 13] = [
        (&me, &[("num.partitions", SET, Some("5"))], 42),
        ("", &[("num.partitions", SET, Some("5"))], 42),
        (&me, &[("node.id", SET, Some("9"))], 42),
        ("", &[("log.retention.hours", SET, Some("9"))], 42),
        (&me, &[("log.retention.ms", SET, Some("x"))], 42),
        ("", &[("log.retention.ms", SET, Some("x"))], 42),
        (&me, &[("log.retention.ms", SET, None)], 42),
        (&me, &[("log.retention.ms", APPEND, Some("1"))], 40),
        (
            &me,
            &[
                ("max.connections", SET, Some("1")),
                ("max.connections", DELETE, None),
            ],
            42,
        ),
        ("99", &[("log.retention.ms", SET, Some("1"))], 42),
        ("x", &[("log.retention.ms", SET, Some("1"))], 42),
        ("", &[("listeners", SET, Some("PLAINTEXT://:9"))], 42),
        (&me, &[], 0),
    ];
    for (name, changes, expected) in cases {
        let code = alter(&mut corner, BROKER, name, changes);
        assert_eq!(code, expected, "{name:?} {changes:?}");
    }
    for name in ["99", "x"] {
        assert_eq!(describe(&mut corner, BROKER, name).0, 42, "{name}");
    }
    if !corner.is_kafka {
        let misspelt = [("log.retension.ms", SET, Some("1"))];
        assert_eq!(
            alter(&mut corner, BROKER, &me, &misspelt),
            40,
            "Apache Kafka keeps it"
        );
    }
}

#[test]
fn l86_levels_of_the_log() {
    let mut corner = Corner::new();
    let me = own_id(&mut corner);
    let cases: [(&str, &[Change<'_>], i16); 9] = [
        (&me, &[("root", DELETE, None)], 42),
        (&me, &[("root", SET, Some("OFF"))], 40),
        (&me, &[("root", SET, None)], 42),
        (&me, &[("root", APPEND, Some("WARN"))], 42),
        (&me, &[("no.such.logger", SET, Some("DEBUG"))], 40),
        (&me, &[("no.such.logger", DELETE, None)], 40),
        ("", &[("root", SET, Some("DEBUG"))], 42),
        ("99", &[("root", SET, Some("DEBUG"))], 42),
        ("x", &[("root", SET, Some("DEBUG"))], 42),
    ];
    for (name, changes, expected) in cases {
        let code = alter(&mut corner, LOGGER, name, changes);
        assert_eq!(code, expected, "{name:?} {changes:?}");
    }
    let (_, before) = shown(&mut corner, LOGGER, &me, "root").map_or((String::new(), 0), |it| it);
    assert_eq!(before, 6);
    assert_eq!(
        alter(&mut corner, LOGGER, &me, &[("root", SET, Some("WARN"))]),
        0
    );
    await_shown(&mut corner, (LOGGER, &me), "root", ("WARN", 6));
    if !corner.is_kafka {
        let module = "tally_broker::api";
        let set = [(module, SET, Some("ERROR"))];
        assert_eq!(alter(&mut corner, LOGGER, &me, &set), 0);
        await_shown(&mut corner, (LOGGER, &me), module, ("ERROR", 6));
        assert_eq!(
            alter(&mut corner, LOGGER, &me, &[(module, DELETE, None)]),
            0
        );
        assert_eq!(shown(&mut corner, LOGGER, &me, module), None);
    }
    for name in ["", "99"] {
        assert_eq!(describe(&mut corner, LOGGER, name).0, 42, "{name:?}");
    }
}

#[test]
fn l86_groups_have_settings() {
    let mut corner = Corner::new();
    let name = unique("g/with slash");
    let key = "consumer.session.timeout.ms";
    let cases: [(&[Change<'_>], i16); 6] = [
        (&[(key, SET, Some("x"))], 40),
        (&[(key, SET, Some("1"))], 40),
        (&[("no.such", SET, Some("1"))], 40),
        (&[(key, SET, None)], 42),
        (&[(key, APPEND, Some("1"))], 40),
        (&[(key, SET, Some("46000"))], 0),
    ];
    for (changes, expected) in cases {
        assert_eq!(
            alter(&mut corner, GROUP, &name, changes),
            expected,
            "{changes:?}"
        );
    }
    await_shown(&mut corner, (GROUP, &name), key, ("46000", 8));
    let other = unique("g");
    await_shown(&mut corner, (GROUP, &other), key, ("45000", 5));
    assert_eq!(
        alter(&mut corner, GROUP, "", &[(key, SET, Some("46000"))]),
        42
    );
    assert_eq!(describe(&mut corner, GROUP, "").0, 42);
    let listed = |corner: &mut Corner| {
        let request = ListConfigResourcesRequest::default().with_resource_types(vec![GROUP]);
        let rows = corner.call(1, &request).config_resources;
        rows.iter().any(|row| *row.resource_name == *name)
    };
    assert!(listed(&mut corner));
    assert_eq!(alter(&mut corner, GROUP, &name, &[(key, DELETE, None)]), 0);
    await_shown(&mut corner, (GROUP, &name), key, ("45000", 5));
}

#[test]
fn l86_subscriptions_to_client_metrics_have_settings() {
    let mut corner = Corner::new();
    let name = unique("s");
    let cases: [(&[Change<'_>], i16); 5] = [
        (&[("match", SET, Some("nope=x"))], 40),
        (&[("interval.ms", SET, None)], 42),
        (&[("interval.ms", SET, Some("1000"))], 0),
        (&[("metrics", SET, Some("a,b"))], 0),
        (&[("match", SET, Some("client_id=x.*"))], 0),
    ];
    for (changes, expected) in cases {
        let code = alter(&mut corner, CLIENT_METRICS, &name, changes);
        assert_eq!(code, expected, "{changes:?}");
    }
    let it = (CLIENT_METRICS, name.as_str());
    await_shown(&mut corner, it, "interval.ms", ("1000", 7));
    let bad = alter(
        &mut corner,
        CLIENT_METRICS,
        &name,
        &[("interval.ms", SET, Some("10"))],
    );
    let unknown = alter(
        &mut corner,
        CLIENT_METRICS,
        &name,
        &[("no.such", SET, Some("1"))],
    );
    assert_eq!((bad, unknown), (42, 42), "an invalid request");
    for version in 0..=1 {
        let rows = corner.call(version, &ListConfigResourcesRequest::default());
        let mut rows = rows.config_resources.iter();
        assert!(rows.any(|row| *row.resource_name == *name), "v{version}");
    }
    let all = [
        ("interval.ms", DELETE, None),
        ("metrics", DELETE, None),
        ("match", DELETE, None),
    ];
    assert_eq!(alter(&mut corner, CLIENT_METRICS, &name, &all), 0);
    await_shown(&mut corner, it, "interval.ms", ("300000", 5));
}

#[test]
fn lr145_a_running_log_takes_new_limits() {
    let broker = Broker::start(PROGRAM, &["log.retention.check.interval.ms=20"]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let name = corner.topic.clone();
    corner.fill(3);
    let earliest = |corner: &mut Corner| corner.list_offset((7, 0), &name, 0, -2).1;
    assert_eq!(earliest(&mut corner), 0);
    let limit = [("retention.ms", SET, Some("1"))];
    assert_eq!(alter(&mut corner, TOPIC, &name, &limit), 0);
    wait_until("old records go", || earliest(&mut corner) == 3);
    let back = [("retention.ms", DELETE, None)];
    assert_eq!(alter(&mut corner, TOPIC, &name, &back), 0);
    await_shown(
        &mut corner,
        (TOPIC, &name),
        "retention.ms",
        ("604800000", 5),
    );
    let clock = [("message.timestamp.type", SET, Some("LogAppendTime"))];
    assert_eq!(alter(&mut corner, TOPIC, &name, &clock), 0);
    wait_until("records get the broker's time", || {
        corner.send(9, Batch::plain(1).encode()).log_append_time > 0
    });
    assert!(earliest(&mut corner) >= 3);
}
