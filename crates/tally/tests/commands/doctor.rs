//! `tally doctor`.

use std::process::Command;

use kafka_protocol::messages::InitProducerIdRequest;
use tally_testkit::broker::{Broker, is_reference, left_out};
use tally_testkit::client::transactional_id;

use crate::{PROGRAM, init, tally, tally_well, write};

fn broker(settings: &[&str]) -> Broker {
    let broker = Broker::start(PROGRAM, &[settings, &["node.id=1"]].concat());
    let mut client = broker.client();
    client.create_topic("orders", 2, &[]);
    client.produce_plain("orders", 0, 5);
    broker
}

/// Level and check of each row.
fn levels(out: &str) -> Vec<(String, String)> {
    let word = |line: &str, key: &str| {
        let rest = line.split(&format!("\"{key}\":\"")).nth(1).expect("a key");
        rest.split('"').next().expect("a word").to_owned()
    };
    out.lines()
        .map(|line| (word(line, "level"), word(line, "check")))
        .collect()
}

#[test]
fn a_broker_that_is_well_is_found_well() {
    let broker = broker(&[]);
    let out = tally_well(&broker, &["doctor", "-o", "jsonl"]);
    let levels = levels(&out);
    let checks: Vec<&str> = levels.iter().map(|(_, check)| check.as_str()).collect();
    let mut expected = vec![
        "reach",
        "topics",
        "durability",
        "log dirs",
        "data",
        "transactions",
        "hanging",
        "groups",
        "disk",
        "files",
    ];
    // What an answer promises, and how it started, only Tally says.
    expected.retain(|check| !["durability", "data"].contains(check) || !is_reference());
    assert_eq!(checks, expected);
    for (level, check) in &levels {
        // Whatever the disk of the test machine is like.
        let is_free = matches!(check.as_str(), "log dirs" | "disk" | "files");
        assert!(level == "ok" || is_free, "{check} in {out}");
    }
    assert!(out.contains("fdatasync p50"), "{out}");
    let out = tally_well(&broker, &["doctor"]);
    let promise = out.contains("survives kill -9, not a power cut");
    assert_eq!(promise, !is_reference(), "{out}");
}

/// user-experience.md section 4: how the last stop was, and who asks for more than is allowed.
#[test]
fn an_unclean_stop_and_refused_timeouts_are_told() {
    if is_reference() {
        return left_out("Only Tally says.");
    }
    let mut broker = broker(&[]);
    let data = |broker: &Broker| {
        let out = tally(broker, &["doctor"]).out;
        let line = out.lines().find(|line| line.contains("  data "));
        line.unwrap_or_else(|| panic!("no data: {out}")).to_owned()
    };
    let line = data(&broker);
    assert!(line.starts_with("ok"), "{line}");
    assert!(
        line.ends_with(", after a clean stop, or as the first start"),
        "{line}"
    );
    broker.kill_and_start();
    let line = data(&broker);
    assert!(line.contains("after an unclean stop"), "{line}");
    let opened = line.split(" partitions opened").next().expect("a count");
    let opened = opened.rsplit(' ').next().expect("a number");
    assert!(opened.parse::<u32>().expect("a number") >= 2, "{line}");

    let mut client = broker.client();
    for (times, timeout_ms, remedy) in [
        (1, 3_600_000, "lower it there, or raise"),
        (2, 0, "it must be more than 0"),
    ] {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id("slow")))
            .with_transaction_timeout_ms(timeout_ms);
        assert_eq!(client.init_producer_id(4, &request).0, 50);
        let out = tally(&broker, &["doctor", "-o", "jsonl"]);
        let told = format!(
            "(INVALID_TRANSACTION_TIMEOUT) {times} times, the last one {timeout_ms} ms for client.id tally-testkit: {remedy}"
        );
        let line = out.out.lines().find(|line| line.contains(&told));
        let line = line.unwrap_or_else(|| panic!("{}", out.out));
        assert!(
            line.contains("\"level\":\"warn\",\"check\":\"timeouts\""),
            "{line}"
        );
        assert_eq!(out.code, 0, "a warning is no failure");
    }
}

#[test]
fn what_is_lost_or_late_or_idle_is_a_warning() {
    let broker = broker(&[
        "tally.guard.ordered.sessions=false",
        "tally.memory.limit=1000000",
    ]);
    let mut client = broker.client();
    client.wait_for_coordinators();
    assert_eq!(client.commit_offset("slow", "orders", 0, 1), 0);
    assert_eq!(client.delete_records("orders", 0, 3), (0, 3));
    let out = tally_well(&broker, &["doctor", "-o", "jsonl"]);
    let all = [
        (
            "groups",
            "slow on orders:0 (2 offsets) is gone by retention",
        ),
        ("guard", "can end another transaction"),
        ("properties", "tally.memory.limit"),
    ];
    // The last two are of Tally alone.
    let checked = if is_reference() { &all[..1] } else { &all[..] };
    for (check, text) in checked {
        let warning = format!("\"level\":\"warn\",\"check\":\"{check}\"");
        let line = out.lines().find(|line| line.contains(&warning));
        assert!(
            line.is_some_and(|line| line.contains(text)),
            "{check}: {out}"
        );
    }
}

#[test]
fn an_address_that_leads_nowhere_is_a_failure() {
    let settings = ["node.id=1", "advertised.listeners=PLAINTEXT://127.0.0.1:1"];
    let broker = Broker::start(PROGRAM, &settings);
    let came = tally(&broker, &["doctor"]);
    assert_eq!(came.code, 1, "{}", came.err);
    assert!(
        came.out
            .contains("broker 1 tells clients 127.0.0.1:1, which can't be reached from here"),
        "{}",
        came.out
    );
}

#[test]
fn the_archive_holds_what_was_found_and_no_secret() {
    let broker = broker(&[]);
    let mut client = broker.client();
    client.wait_for_coordinators();
    let open = init(&mut client, "etl-0");
    write(&mut client, "etl-0", open, ("orders", 1), 0);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("doctor.tar.gz");
    let name = path.to_str().expect("text");
    tally_well(&broker, &["doctor", "--bundle", name]);
    let tar = |arguments: &[&str]| {
        let output = Command::new("tar")
            .args(arguments)
            .output()
            .expect("tar can be run");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(
        tar(&["-tzf", name]).lines().collect::<Vec<_>>(),
        [
            "findings.jsonl",
            "topics.jsonl",
            "apis.jsonl",
            "broker-1-properties.jsonl",
            "groups.jsonl"
        ]
    );
    let properties = tar(&["-xOzf", name, "broker-1-properties.jsonl"]);
    assert!(
        properties.contains(
            "{\"name\":\"delegation.token.secret.key\",\"value\":null,\"redacted\":true,"
        ),
        "{properties}"
    );
    assert!(tar(&["-xOzf", name, "topics.jsonl"]).contains("\"topic\":\"orders\""));
    let nowhere = tally(&broker, &["doctor", "--bundle", "/nothing/there.tar.gz"]);
    assert_eq!(nowhere.code, 2, "{}", nowhere.err);
}
