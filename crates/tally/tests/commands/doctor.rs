//! `tally doctor`.

use std::process::Command;

use tally_testkit::broker::Broker;

use crate::{PROGRAM, init, tally, tally_well, write};

fn broker(settings: &[&str]) -> Broker {
    let broker = Broker::start(PROGRAM, settings);
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
    assert_eq!(
        checks,
        [
            "reach",
            "topics",
            "durability",
            "log dirs",
            "transactions",
            "hanging",
            "groups",
            "disk",
            "files"
        ]
    );
    for (level, check) in &levels {
        // Whatever the disk of the test machine is like.
        let is_free = matches!(check.as_str(), "log dirs" | "disk" | "files");
        assert!(level == "ok" || is_free, "{check} in {out}");
    }
    assert!(out.contains("fdatasync p50"), "{out}");
    let out = tally_well(&broker, &["doctor"]);
    assert!(out.contains("survives kill -9, not a power cut"), "{out}");
}

#[test]
fn what_is_lost_or_late_or_idle_is_a_warning() {
    let broker = broker(&[
        "tally.guard.ordered.sessions=false",
        "tally.memory.limit=1000000",
    ]);
    let mut client = broker.client();
    client.wait_for_group("slow");
    assert_eq!(client.commit_offset("slow", "orders", 0, 1), 0);
    assert_eq!(client.delete_records("orders", 0, 3), (0, 3));
    let out = tally_well(&broker, &["doctor", "-o", "jsonl"]);
    for (check, text) in [
        ("guard", "can end another transaction"),
        ("properties", "tally.memory.limit"),
        (
            "groups",
            "slow on orders:0 (2 offsets) is gone by retention",
        ),
    ] {
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
    let settings = ["advertised.listeners=PLAINTEXT://127.0.0.1:1"];
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
