//! `tally cluster`.

use tally_testkit::broker::{Broker, is_reference};
use tally_testkit::waiting::wait_until;

use crate::{PROGRAM, tally, tally_well};

fn broker() -> Broker {
    let internal = [
        "offsets.topic.num.partitions=1",
        "transaction.state.log.num.partitions=1",
    ];
    let broker = Broker::start(PROGRAM, &[&["node.id=4"][..], &internal].concat());
    let mut client = broker.client();
    client.create_topic("orders", 3, &[("retention.ms", "1000")]);
    client.produce_plain("orders", 0, 3);
    broker
}

#[test]
fn info_says_what_the_cluster_promises() {
    let broker = broker();
    let out = tally_well(&broker, &["cluster", "info"]);
    for line in [
        "controller             4\n",
        "partitions             3\n",
        "transaction version    2\n",
    ] {
        assert!(out.contains(line), "{line} of {out}");
    }
    for line in [
        "durability             os: survives kill -9, not a power cut\n",
        "ordered session guard  on: ",
    ] {
        assert_eq!(out.contains(line), !is_reference(), "{line} of {out}");
    }
    let out = tally_well(&broker, &["cluster", "info", "-o", "jsonl"]);
    assert!(
        out.starts_with("{\"kind\":\"cluster\",\"cluster_id\":\""),
        "{out}"
    );
    let promised = match is_reference() {
        true => "\"durability\":null,\"ordered_session_guard\":null}\n",
        false => "\"durability\":\"os\",\"ordered_session_guard\":true}\n",
    };
    assert!(out.ends_with(promised), "{out}");
}

#[test]
fn brokers_shows_what_each_leads_and_holds() {
    let broker = broker();
    let out = tally_well(&broker, &["cluster", "brokers", "-o", "jsonl"]);
    let port = broker.address().rsplit(':').next().expect("a port");
    // Kafka makes its own topics when somebody needs them.
    let leads = if is_reference() { 3 } else { 5 };
    let begin = format!(
        "{{\"kind\":\"broker\",\"broker\":4,\"host\":\"127.0.0.1\",\"port\":{port},\"rack\":null,\"controller\":true,\"leads\":{leads},\
         \"log_dirs\":[{{\"path\":\""
    );
    assert!(out.starts_with(&begin), "{out}");
    assert!(!out.contains("\"size_bytes\":0,"), "{out}");
    let out = tally_well(&broker, &["cluster", "brokers"]);
    assert!(out.contains(broker.address()), "{out}");
}

#[test]
fn features_are_listed_and_raised() {
    let broker = broker();
    let features = |more: &[&str]| tally(&broker, &[&["cluster", "features"], more].concat());
    let out = features(&["-o", "jsonl"]).out;
    let two = "\"feature\":\"transaction.version\",\"min\":0,\"max\":2,\"finalised\":2}";
    assert!(out.contains(two), "{out}");
    let unsure = features(&["upgrade"]);
    assert_eq!(unsure.code, 2, "{}", unsure.err);
    let high = features(&["upgrade", "transaction.version=9", "--dry-run"]);
    assert_eq!(high.code, 6, "{}", high.err);
    assert!(high.err.contains("transaction.version"), "{}", high.err);
    let unknown = features(&["upgrade", "x.version=1", "--yes"]);
    assert_eq!(unknown.code, 6, "{}", unknown.err);
    let wrong = features(&["upgrade", "transaction.version", "--yes"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
}

#[test]
fn properties_are_shown_set_and_set_back() {
    let broker = broker();
    let config =
        |arguments: &[&str]| tally_well(&broker, &[&["cluster", "config"], arguments].concat());
    let out = config(&["get", "-o", "jsonl"]);
    assert!(
        out.contains(
            "\"name\":\"node.id\",\"value\":\"4\",\"source\":\"static broker\",\"read_only\":true"
        ),
        "{out}"
    );
    assert!(!out.contains("\"source\":\"default\""), "{out}");
    let retention = "log.retention.ms";
    let row = |out: &str| {
        let words: Vec<String> = out.split_whitespace().skip(4).map(str::to_owned).collect();
        words.join(" ")
    };
    let set = ["set", "log.retention.ms=5000"];
    config(&[&set[..], &["--dry-run"]].concat());
    assert!(!config(&["get", retention]).contains("5000"));
    // Kafka's own change of a broker is seen a moment after it was answered.
    let becomes = |expected: &str| {
        wait_until(expected, || row(&config(&["get", retention])) == expected);
    };
    config(&set);
    becomes("log.retention.ms 5000 dynamic default");
    config(&["set", "log.retention.ms=6000", "--broker", "4"]);
    becomes("log.retention.ms 6000 dynamic broker");
    config(&["unset", retention, "--broker", "4"]);
    config(&["unset", retention]);
    wait_until("both are unset", || {
        !config(&["get", retention]).contains("dynamic")
    });
    let out = config(&["get", "--topic", "orders"]);
    // Kafka's features set min.insync.replicas for the whole cluster.
    assert!(row(&out).ends_with("retention.ms 1000 topic"), "{out}");
    assert!(
        config(&["get", "--topic", "orders", "--all"])
            .lines()
            .count()
            > 10
    );
    config(&["set", "consumer.session.timeout.ms=50000", "--group", "g"]);
    wait_until("the group's is set", || {
        config(&["get", "--group", "g"]).contains("50000")
    });
}

#[test]
fn what_can_not_be_set_is_refused() {
    let broker = broker();
    let cases: [(&[&str], i32, &str); 5] = [
        (
            &["set", "log.retention.ms=soon"],
            6,
            match is_reference() {
                true => "Invalid value soon for configuration log.retention.ms",
                false => "log.retention.ms=soon: must be a whole number",
            },
        ),
        (&["get", "no.such"], 6, "broker 4 has no property no.such"),
        (&["get", "--topic", "nothing"], 6, "topic nothing"),
        (&["set", "x"], 2, "must be NAME=VALUE"),
        (
            &["get", "--topic", "a", "--broker", "1"],
            2,
            "cannot be used with",
        ),
    ];
    for (arguments, code, text) in cases {
        let came = tally(&broker, &[&["cluster", "config"], arguments].concat());
        assert_eq!(came.code, code, "{arguments:?}: {}", came.err);
        assert!(came.err.contains(text), "{arguments:?}: {}", came.err);
    }
}
