//! `tally consume --group`: both protocols, topics by an expression, and a coordinator that goes away.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, LeaveGroupRequest, UpdateFeaturesRequest,
};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, group_id, text};
use tally_testkit::waiting::wait_until;

use crate::consume::Follower;
use crate::produce::produce_well;
use crate::relay::Relay;
use crate::{PROGRAM, tally, tally_well};

/// Heartbeats come often, so that nothing is waited for.
const SETTINGS: [&str; 4] = [
    "group.initial.rebalance.delay.ms=0",
    "offsets.topic.num.partitions=1",
    "group.consumer.min.heartbeat.interval.ms=100",
    "group.consumer.heartbeat.interval.ms=100",
];

fn broker() -> (Broker, Client) {
    let broker = Broker::start(PROGRAM, &SETTINGS);
    let mut client = broker.client();
    client.create_topic("orders", 2, &[]);
    (broker, client)
}

fn partitions_assigned(broker: &Broker) -> usize {
    let out = tally(broker, &["group", "describe", "readers", "-o", "jsonl"]).out;
    out.matches("\"partitions\":[{\"topic\":").count()
}

fn committed(client: &mut Client, partition: i32) -> i64 {
    client
        .committed_offset("readers", "orders", partition, false)
        .1
}

#[test]
fn a_consumer_group_goes_on_where_it_was() {
    let (broker, mut client) = broker();
    produce_well(&broker, &["orders", "-p", "0"], "a\nb\nc\n");
    let grouped = ["consume", "orders", "-g", "readers"];
    let new = [&grouped[..], &["--group-protocol", "consumer"]].concat();
    assert_eq!(
        tally_well(&broker, &[&new[..], &["-n", "2"]].concat()),
        "a\nb\n"
    );
    assert_eq!(committed(&mut client, 0), 2);
    let out = tally_well(&broker, &["group", "describe", "readers"]);
    assert!(
        out.starts_with("readers   consumer Empty, 0 members"),
        "it has left: {out}"
    );
    assert_eq!(tally_well(&broker, &new), "c\n");
    assert_eq!(tally_well(&broker, &new), "");
    produce_well(&broker, &["orders", "-p", "1"], "d\n");
    // The other protocol, the same offsets.
    assert_eq!(tally_well(&broker, &grouped), "d\n");
    assert_eq!(
        (committed(&mut client, 0), committed(&mut client, 1)),
        (3, 1)
    );
}

#[test]
fn two_members_of_the_consumer_protocol_share_a_topic_and_hand_over() {
    let (broker, mut client) = broker();
    let file = broker.data().join("client.properties");
    fs::write(
        &file,
        "group.protocol=CONSUMER\ngroup.remote.assignor=range\n",
    )
    .expect("written");
    let file = file.to_str().expect("a plain name");
    let grouped = [
        "orders",
        "-g",
        "readers",
        "-f",
        "%p %v\\n",
        "--client-config",
        file,
    ];
    let mut first = Follower::start(&broker, &grouped);
    produce_well(&broker, &["orders", "-p", "0"], "a\n");
    assert_eq!(first.line(), "0 a");
    let mut second = Follower::start(&broker, &grouped);
    wait_until("both have a partition", || {
        partitions_assigned(&broker) == 2
    });
    let out = tally_well(&broker, &["group", "describe", "readers"]);
    assert!(out.contains("range"), "{out}");
    wait_until("what was read is committed", || {
        committed(&mut client, 0) == 1
    });
    assert_eq!(first.interrupt(), 0);
    produce_well(&broker, &["orders", "-p", "0"], "b\n");
    produce_well(&broker, &["orders", "-p", "1"], "c\n");
    let mut lines = [second.line(), second.line()];
    lines.sort();
    assert_eq!(lines, ["0 b", "1 c"], "all of it, nothing twice");
    assert_eq!(second.interrupt(), 0);
    assert_eq!(
        (committed(&mut client, 0), committed(&mut client, 1)),
        (2, 1)
    );
}

#[test]
fn a_member_of_each_protocol_in_one_group() {
    let (broker, mut client) = broker();
    let grouped = ["orders", "-g", "readers", "-f", "%p %v\\n"];
    let new = [&grouped[..], &["--group-protocol", "consumer"]].concat();
    let classic = Follower::start(&broker, &grouped);
    wait_until("it is in", || partitions_assigned(&broker) == 1);
    let mut consumer = Follower::start(&broker, &new);
    wait_until("both have a partition", || {
        partitions_assigned(&broker) == 2
    });
    assert_eq!(classic.interrupt(), 0);
    produce_well(&broker, &["orders", "-p", "0"], "a\n");
    produce_well(&broker, &["orders", "-p", "1"], "b\n");
    let mut lines = [consumer.line(), consumer.line()];
    lines.sort();
    assert_eq!(lines, ["0 a", "1 b"]);
    assert_eq!(consumer.interrupt(), 0);
    assert_eq!(
        (committed(&mut client, 0), committed(&mut client, 1)),
        (1, 1)
    );
}

#[test]
fn topics_that_match_are_read_also_those_that_come_later() {
    let (broker, mut client) = broker();
    client.create_topic("orders-eu", 1, &[]);
    client.create_topic("other", 1, &[]);
    produce_well(&broker, &["orders", "-p", "0"], "a\n");
    produce_well(&broker, &["orders-eu"], "b\n");
    produce_well(&broker, &["other"], "no\n");
    let sorted = |arguments: &[&str]| {
        let all = [&["consume", "--include", "orders.*"], arguments].concat();
        let mut lines: Vec<String> = tally_well(&broker, &all)
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&[]), ["a", "b"], "alone");
    assert_eq!(sorted(&["-g", "classic"]), ["a", "b"]);
    let new = ["-g", "readers", "--group-protocol", "consumer"];
    assert_eq!(sorted(&new), ["a", "b"]);
    let arguments = [&["--include", "orders.*"], &new[..]].concat();
    let mut follower = Follower::start(&broker, &arguments);
    wait_until("it is in", || partitions_assigned(&broker) == 1);
    client.create_topic("orders-us", 1, &[]);
    produce_well(&broker, &["orders-us"], "c\n");
    assert_eq!(follower.line(), "c");
    assert_eq!(follower.interrupt(), 0);
}

/// Topics that are made and partitions that are added while it runs are read from their first record, also with `-o end`; one that
/// is deleted is left; there need not be any when it begins.
#[track_caller]
fn follows_what_matches(arguments: &[&str]) {
    let (broker, mut client) = broker();
    let all = [&["--include", "late.*", "-o", "end"], arguments].concat();
    let mut follower = Follower::start(&broker, &all);
    client.create_topic("late-0", 1, &[]);
    let reads = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !reads.load(Ordering::Relaxed) {
                produce_well(&broker, &["late-0"], "ready\n");
            }
        });
        let line = follower.line();
        // First of all, or nobody would end it.
        reads.store(true, Ordering::Relaxed);
        assert_eq!(line, "ready");
    });
    let mut next = || loop {
        let line = follower.line();
        if line != "ready" {
            break line;
        }
    };
    for topic in ["late-1", "late-2"] {
        client.create_topic(topic, 1, &[]);
        produce_well(&broker, &[topic], &format!("{topic}\n"));
        assert_eq!(next(), topic);
    }
    tally_well(&broker, &["topic", "alter", "late-2", "-p", "2"]);
    client.wait_for_topic("late-2", 2);
    produce_well(&broker, &["late-2", "-p", "1"], "added\n");
    assert_eq!(next(), "added");
    tally_well(&broker, &["topic", "delete", "late-1", "--yes"]);
    client.create_topic("late-3", 1, &[]);
    produce_well(&broker, &["late-3"], "goes on\n");
    assert_eq!(next(), "goes on");
    assert_eq!(follower.interrupt(), 0);
}

#[test]
fn a_reader_alone_follows_what_matches() {
    follows_what_matches(&[]);
}

#[test]
fn a_classic_member_follows_what_matches() {
    follows_what_matches(&["-g", "readers"]);
}

/// kill -9 of the coordinator and a start on the same data, and a cut of all connections: nothing is lost, and as the group
/// still knows the member nothing is read twice.
#[track_caller]
fn outlives_its_coordinator(protocol: &str) {
    let relay = Relay::new();
    let advertised = format!("advertised.listeners=PLAINTEXT://{}", relay.address());
    let settings = [&SETTINGS[..], &[advertised.as_str()]].concat();
    let mut broker = Broker::start(PROGRAM, &settings);
    relay.point_at(broker.address());
    broker.client().create_topic("orders", 1, &[]);
    let grouped = [
        "orders",
        "-g",
        "readers",
        "--group-protocol",
        protocol,
        "-f",
        "%o %v\\n",
        "--timeout",
        "30s",
    ];
    let mut follower = Follower::start(&broker, &grouped);
    wait_until("it is in", || partitions_assigned(&broker) == 1);
    for round in 0..4 {
        produce_well(&broker, &["orders"], &format!("{round}\n"));
        assert_eq!(follower.line(), format!("{round} {round}"));
        if round % 2 == 0 {
            broker.kill();
            relay.cut();
            broker.start_again();
            relay.point_at(broker.address());
        } else {
            relay.cut();
        }
    }
    produce_well(&broker, &["orders"], "last\n");
    assert_eq!(follower.line(), "4 last");
    let mut client = broker.client();
    wait_until("all is committed", || committed(&mut client, 0) == 5);
    assert_eq!(follower.interrupt(), 0);
    let out = tally_well(&broker, &["group", "describe", "readers"]);
    assert!(out.contains("Empty, 0 members"), "it has left: {out}");
}

#[test]
fn a_classic_member_outlives_its_coordinator() {
    outlives_its_coordinator("classic");
}

#[test]
fn a_consumer_member_outlives_its_coordinator() {
    outlives_its_coordinator("consumer");
}

/// What an operator, or a session that ends, does to the one member.
#[track_caller]
fn throw_out(broker: &Broker, client: &mut Client, protocol: &str) {
    let out = tally_well(broker, &["group", "describe", "readers", "-o", "jsonl"]);
    let id = out.split("\"member_id\":\"").nth(1).expect("a member");
    let id = id.split('"').next().expect("an id");
    let code = if protocol == "classic" {
        let request = LeaveGroupRequest::default()
            .with_group_id(group_id("readers"))
            .with_member_id(text(id));
        client.call(2, &request).error_code
    } else {
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id("readers"))
            .with_member_id(text(id))
            .with_member_epoch(-1)
            .with_topic_partitions(None);
        client.call(1, &request).error_code
    };
    assert_eq!(code, 0);
}

#[test]
fn a_member_that_was_thrown_out_joins_again() {
    let (broker, mut client) = broker();
    for protocol in ["classic", "consumer"] {
        let grouped = [
            "orders",
            "-g",
            "readers",
            "--group-protocol",
            protocol,
            "-f",
            "%v\\n",
        ];
        let mut follower = Follower::start(&broker, &grouped);
        wait_until("it is in", || partitions_assigned(&broker) == 1);
        produce_well(&broker, &["orders", "-p", "0"], "a\n");
        assert_eq!(follower.line(), "a");
        throw_out(&broker, &mut client, protocol);
        wait_until("it is in again", || partitions_assigned(&broker) == 1);
        produce_well(&broker, &["orders", "-p", "0"], "b\n");
        let mut line = follower.line();
        // What was not committed when it was thrown out may come again.
        while line == "a" {
            line = follower.line();
        }
        assert_eq!(line, "b", "{protocol}");
        assert_eq!(follower.interrupt(), 0);
    }
}

#[test]
fn what_a_group_can_not_be_told_is_refused() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut client = broker.client();
    client.create_topic("orders", 2, &[]);
    let file = broker.data().join("client.properties");
    fs::write(&file, "group.protocol=streams\n").expect("written");
    let file = file.to_str().expect("a plain name");
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["orders", "--group-protocol", "consumer"],
            2,
            "--group <GROUP>",
        ),
        (
            &["orders", "-g", "g", "--group-protocol", "x"],
            2,
            "classic, consumer",
        ),
        (
            &["orders", "-g", "g", "--client-config", file],
            2,
            "group.protocol=streams: must be classic or consumer",
        ),
        (&["--include", "("], 2, "--include (:"),
        (
            &["--include", "nothing"],
            6,
            "no topic matches --include nothing",
        ),
        (
            &["--include", "(", "-g", "g", "--group-protocol", "consumer"],
            6,
            "INVALID_REGULAR_EXPRESSION (128)",
        ),
    ];
    for (arguments, code, text) in cases {
        let came = tally(&broker, &[&["consume"], arguments].concat());
        assert_eq!(came.code, code, "{arguments:?}: {}", came.err);
        assert!(came.err.contains(text), "{arguments:?}: {}", came.err);
    }
    let update = FeatureUpdateKey::default()
        .with_feature(text("group.version"))
        .with_max_version_level(0)
        .with_upgrade_type(2);
    let request = UpdateFeaturesRequest::default()
        .with_timeout_ms(30_000)
        .with_feature_updates(vec![update]);
    assert_eq!(client.call(1, &request).error_code, 0);
    // Kafka's broker hears of it a moment after the answer.
    wait_until("the protocol is switched off", || {
        let features = client.api_versions(3).finalized_features;
        features
            .iter()
            .all(|feature| &*feature.name != "group.version")
    });
    let came = tally(
        &broker,
        &[
            "consume",
            "orders",
            "-g",
            "g",
            "--group-protocol",
            "consumer",
        ],
    );
    assert_eq!(came.code, 6, "{}", came.err);
    assert!(came.err.contains("use classic"), "{}", came.err);
}
