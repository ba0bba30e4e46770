//! A broker: what its settings are by default and which of them change (section 13), elections and moves (row 11.6).

use super::{BROKER, DELETE, change, check, own_id, would};
use crate::configs::{SET, TOPIC};
use crate::corner::Corner;
use kafka_protocol::messages as m;
use kafka_protocol::messages::alter_partition_reassignments_request as reassign;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use tally_testkit::client::{text, topic_name};
use tally_testkit::waiting::wait_until;

/// Name, default, type, whether it may be set at run time.
type Shown = (&'static str, Option<&'static str>, i8, bool);

/// Section 13 of the rules: what a broker says of the settings that people look for.
const BROKERS: &[Shown] = &[
    ("authorizer.class.name", Some(""), 2, false),
    ("auto.create.topics.enable", Some("true"), 1, false),
    ("auto.leader.rebalance.enable", Some("true"), 1, false),
    ("background.threads", Some("10"), 3, true),
    ("compression.gzip.level", Some("-1"), 3, true),
    ("compression.lz4.level", Some("9"), 3, true),
    ("compression.type", Some("producer"), 2, true),
    ("compression.zstd.level", Some("3"), 3, true),
    (
        "connection.failed.authentication.delay.ms",
        Some("100"),
        3,
        false,
    ),
    ("connections.max.idle.ms", Some("600000"), 5, false),
    ("connections.max.reauth.ms", Some("0"), 5, false),
    ("controlled.shutdown.enable", Some("true"), 1, false),
    ("controller.quota.window.num", Some("11"), 3, false),
    ("controller.quota.window.size.seconds", Some("1"), 3, false),
    ("default.replication.factor", Some("1"), 3, false),
    ("delete.topic.enable", Some("true"), 1, false),
    ("fetch.max.bytes", Some("57671680"), 3, false),
    (
        "group.consumer.assignment.interval.ms",
        Some("1000"),
        3,
        true,
    ),
    ("group.consumer.assignors", Some("uniform,range"), 7, false),
    (
        "group.consumer.heartbeat.interval.ms",
        Some("5000"),
        3,
        false,
    ),
    (
        "group.consumer.migration.policy",
        Some("bidirectional"),
        2,
        false,
    ),
    ("group.consumer.session.timeout.ms", Some("45000"), 3, false),
    (
        "group.coordinator.cached.buffer.max.bytes",
        Some("1048588"),
        3,
        true,
    ),
    ("group.initial.rebalance.delay.ms", Some("3000"), 3, false),
    ("group.max.session.timeout.ms", Some("1800000"), 3, false),
    ("group.max.size", Some("2147483647"), 3, false),
    ("group.min.session.timeout.ms", Some("6000"), 3, false),
    ("log.cleaner.backoff.ms", Some("15000"), 5, true),
    ("log.cleaner.dedupe.buffer.size", Some("134217728"), 5, true),
    ("log.cleaner.delete.retention.ms", Some("86400000"), 5, true),
    ("log.cleaner.enable", Some("true"), 1, false),
    ("log.cleaner.io.buffer.load.factor", Some("0.9"), 6, true),
    ("log.cleaner.io.buffer.size", Some("524288"), 3, true),
    (
        "log.cleaner.io.max.bytes.per.second",
        Some("1.7976931348623157E308"),
        6,
        true,
    ),
    (
        "log.cleaner.max.compaction.lag.ms",
        Some("9223372036854775807"),
        5,
        true,
    ),
    ("log.cleaner.min.cleanable.ratio", Some("0.5"), 6, true),
    ("log.cleaner.min.compaction.lag.ms", Some("0"), 5, true),
    ("log.cleaner.threads", Some("1"), 3, true),
    ("log.cleanup.policy", Some("delete"), 7, true),
    (
        "log.flush.interval.messages",
        Some("9223372036854775807"),
        5,
        true,
    ),
    ("log.flush.interval.ms", None, 5, true),
    (
        "log.flush.offset.checkpoint.interval.ms",
        Some("60000"),
        3,
        false,
    ),
    (
        "log.flush.scheduler.interval.ms",
        Some("9223372036854775807"),
        5,
        false,
    ),
    (
        "log.flush.start.offset.checkpoint.interval.ms",
        Some("60000"),
        3,
        false,
    ),
    ("log.index.interval.bytes", Some("4096"), 3, true),
    ("log.index.size.max.bytes", Some("10485760"), 3, true),
    ("log.local.retention.bytes", Some("-2"), 5, true),
    ("log.local.retention.ms", Some("-2"), 5, true),
    (
        "log.message.timestamp.after.max.ms",
        Some("3600000"),
        5,
        true,
    ),
    (
        "log.message.timestamp.before.max.ms",
        Some("9223372036854775807"),
        5,
        true,
    ),
    ("log.message.timestamp.type", Some("CreateTime"), 2, true),
    ("log.preallocate", Some("false"), 1, true),
    ("log.retention.bytes", Some("-1"), 5, true),
    ("log.retention.check.interval.ms", Some("300000"), 5, false),
    ("log.retention.hours", Some("168"), 3, false),
    ("log.retention.minutes", None, 3, false),
    ("log.retention.ms", None, 5, true),
    ("log.roll.hours", Some("168"), 3, false),
    ("log.roll.jitter.ms", None, 5, true),
    ("log.roll.ms", None, 5, true),
    ("log.segment.bytes", Some("1073741824"), 3, true),
    ("log.segment.delete.delay.ms", Some("60000"), 5, true),
    ("max.connection.creation.rate", Some("2147483647"), 3, true),
    ("max.connections", Some("2147483647"), 3, true),
    ("max.connections.per.ip", Some("2147483647"), 3, true),
    ("max.connections.per.ip.overrides", Some(""), 2, true),
    (
        "max.incremental.fetch.session.cache.slots",
        Some("1000"),
        3,
        false,
    ),
    ("max.request.partition.size.limit", Some("2000"), 3, false),
    ("message.max.bytes", Some("1048588"), 3, true),
    ("min.insync.replicas", Some("1"), 3, true),
    ("num.io.threads", Some("8"), 3, true),
    ("num.network.threads", Some("3"), 3, true),
    ("num.partitions", Some("1"), 3, false),
    ("num.recovery.threads.per.data.dir", Some("2"), 3, true),
    ("num.replica.fetchers", Some("1"), 3, true),
    ("offset.metadata.max.bytes", Some("4096"), 3, false),
    ("offsets.commit.timeout.ms", Some("5000"), 3, false),
    (
        "offsets.retention.check.interval.ms",
        Some("600000"),
        5,
        false,
    ),
    ("offsets.retention.minutes", Some("10080"), 3, false),
    ("offsets.topic.num.partitions", Some("50"), 3, false),
    ("producer.id.expiration.ms", Some("86400000"), 3, true),
    ("queued.max.request.bytes", Some("-1"), 5, false),
    ("queued.max.requests", Some("500"), 3, false),
    ("quota.window.num", Some("11"), 3, false),
    ("quota.window.size.seconds", Some("1"), 3, false),
    ("request.timeout.ms", Some("30000"), 3, false),
    ("sasl.server.max.receive.size", Some("524288"), 3, false),
    ("socket.listen.backlog.size", Some("50"), 3, false),
    ("socket.receive.buffer.bytes", Some("102400"), 3, false),
    ("socket.request.max.bytes", Some("104857600"), 3, false),
    ("socket.send.buffer.bytes", Some("102400"), 3, false),
    ("telemetry.max.bytes", Some("1048576"), 3, false),
    ("transaction.max.timeout.ms", Some("900000"), 3, false),
    (
        "transaction.partition.verification.enable",
        Some("true"),
        1,
        true,
    ),
    (
        "transactional.id.expiration.ms",
        Some("604800000"),
        3,
        false,
    ),
    ("unclean.leader.election.enable", Some("false"), 1, true),
];

#[test]
fn l86_a_broker_says_what_its_settings_are_by_default() {
    let mut corner = Corner::new();
    let me = own_id(&mut corner).to_string();
    let resource = DescribeConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(text(&me))
        .with_configuration_keys(None);
    let request = m::DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    let shown = corner.call(4, &request).results.remove(0).configs;
    for (name, default, kind, changeable) in BROKERS {
        let row = shown.iter().find(|row| &*row.name == *name);
        let row = row.unwrap_or_else(|| panic!("{name} is not shown"));
        let mut synonyms = row.synonyms.iter();
        let own = synonyms.find(|one| one.source == 5 && &*one.name == *name);
        let value = own.and_then(|one| one.value.as_deref());
        assert_eq!(value, *default, "{name}");
        assert_eq!(
            (row.config_type, !row.read_only),
            (*kind, *changeable),
            "{name}"
        );
        // Set to what it is, where that is something: taken, or refused as what is read at start.
        let Some(value) = default else { continue };
        for whose in ["", me.as_str()] {
            let (code, sentence) = would(&mut corner, (BROKER, whose), (name, SET, Some(value)));
            if *name == MIN_INSYNC && !whose.is_empty() {
                continue; // l86_min_insync_replicas_...
            }
            let expected = if *changeable { 0 } else { 42 };
            let got = (code, sentence.as_ref());
            check(corner.is_kafka, got, expected, &[name, "at start"], name);
        }
    }
}

const MIN_INSYNC: &str = "min.insync.replicas";

/// All brokers have one value, which is always there (Kafka: where eligible leader replicas are on, as in a new cluster).
#[test]
fn l86_min_insync_replicas_are_for_all_brokers_or_for_a_topic() {
    let mut corner = Corner::new();
    let me = own_id(&mut corner).to_string();
    let topic = corner.topic.clone();
    let one = Some("1");
    for (of, operation, value, code, words) in [
        ((BROKER, &*me), SET, one, 40, ["one broker", "empty name"]),
        ((BROKER, &*me), DELETE, None, 40, ["one broker", "topic"]),
        ((BROKER, ""), SET, one, 0, [""; 2]),
        ((BROKER, ""), DELETE, None, 40, ["all brokers", "to 1"]),
        ((TOPIC, &*topic), SET, one, 0, [""; 2]),
        ((TOPIC, &*topic), DELETE, None, 0, [""; 2]),
    ] {
        let (got, sentence) = would(&mut corner, of, (MIN_INSYNC, operation, value));
        let words = [MIN_INSYNC, words[0], words[1]];
        let why = format!("{of:?} {operation}");
        check(
            corner.is_kafka,
            (got, sentence.as_ref()),
            code,
            &words,
            &why,
        );
    }
}

/// What `kafka-reassign-partitions --throttle` sets for the time of a move: shown while it is set, and nobody else's property.
#[test]
fn l87_throttles_of_moves_are_set_shown_and_taken_away() {
    let mut corner = Corner::new();
    let me = own_id(&mut corner).to_string();
    for name in [
        "follower.replication.throttled.rate",
        "leader.replication.throttled.rate",
        "replica.alter.log.dirs.io.max.bytes.per.second",
    ] {
        let mut reader = corner.another_client();
        let mut shown = || {
            let resource = DescribeConfigsResource::default()
                .with_resource_type(BROKER)
                .with_resource_name(text(&me))
                .with_configuration_keys(Some(vec![text(name)]));
            let request = m::DescribeConfigsRequest::default().with_resources(vec![resource]);
            let rows = reader.call(4, &request).results.remove(0).configs;
            let rows = rows.iter().map(|row| {
                let value = row.value.as_deref().map(str::to_owned);
                (value, row.config_source, row.config_type)
            });
            rows.collect::<Vec<_>>()
        };
        assert_eq!(shown(), [], "{name}");
        let mut client = corner.another_client();
        let mut change = |operation, value| {
            let (code, _) = change(&mut client, (BROKER, &me), (name, operation, value), false);
            code
        };
        assert_eq!(change(SET, Some("-1")), 42, "{name}");
        assert_eq!(change(SET, Some("1000")), 0, "{name}");
        let set = [(Some("1000".to_owned()), 2, 5)];
        wait_until("it is shown", || shown() == set);
        assert_eq!(change(DELETE, None), 0, "{name}");
        wait_until("it is gone", || shown().is_empty());
    }
}

#[test]
fn l87_elections_and_moves_say_why_not() {
    let mut corner = Corner::new();
    let (name, me) = (corner.topic.clone(), own_id(&mut corner));
    let is_kafka = corner.is_kafka;
    for (kind, index, code, words) in [
        (0, 0, 84, ["only replica", "leader already"]),
        (0, 9, 3, ["no such", "partition"]),
        (7, 0, 42, ["type 7", "1 (any)"]),
    ] {
        let topic = TopicPartitions::default()
            .with_topic(topic_name(&name))
            .with_partitions(vec![index]);
        let request = m::ElectLeadersRequest::default()
            .with_election_type(kind)
            .with_topic_partitions(Some(vec![topic]));
        let response = corner.call(2, &request);
        let row = &response.replica_election_results[0].partition_result[0];
        let got = (row.error_code, row.error_message.as_ref());
        check(is_kafka, got, code, &words, &format!("{kind} {index}"));
    }
    let moved = |index: i32, replicas: Option<&[i32]>| {
        let ids = |ids: &[i32]| ids.iter().map(|id| m::BrokerId(*id)).collect();
        let partition = reassign::ReassignablePartition::default()
            .with_partition_index(index)
            .with_replicas(replicas.map(ids));
        reassign::ReassignableTopic::default()
            .with_name(topic_name(&name))
            .with_partitions(vec![partition])
    };
    let broker = format!("broker {me}");
    type Case<'a> = (i32, Option<&'a [i32]>, i16, &'a [&'a str]);
    let cases: [Case<'_>; 3] = [
        (0, None, 85, &["nothing to cancel"]),
        (0, Some(&[me, me + 98]), 39, &[&broker, "only one"]),
        (9, Some(&[me]), 3, &["no such partition"]),
    ];
    for version in [0, 1] {
        for (index, replicas, code, words) in cases {
            let request = m::AlterPartitionReassignmentsRequest::default()
                .with_topics(vec![moved(index, replicas)]);
            let row = corner.call(version, &request).responses[0]
                .partitions
                .remove(0);
            let got = (row.error_code, row.error_message.as_ref());
            check(is_kafka, got, code, words, &format!("{index} {replicas:?}"));
        }
    }
    let delete = m::DescribeClusterRequest::default().with_endpoint_type(3);
    let response = corner.call(1, &delete);
    let got = (response.error_code, response.error_message.as_ref());
    check(
        is_kafka,
        got,
        115,
        &["1 (brokers)", "2 (controllers)"],
        "endpoints",
    );
    assert_eq!(
        would(&mut corner, (TOPIC, &name), ("no.such", DELETE, None)).0,
        0
    );
}
