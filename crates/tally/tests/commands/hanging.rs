//! A transaction that really hangs, open on its partition and known to no coordinator: found and ended by Apache Kafka's own
//! kafka-transactions, and by `tally txn`.
//!
//! It comes about by the bug that is kept for it (`unasked`, docs/testing.md); in Apache Kafka, which the same test can be run
//! with (`TALLY_TEST_REFERENCE=1`), by leaving out the check that excludes it. Kafka's tool comes from Maven Central: without
//! `TALLY_TEST_KAFKA_CLASSES` (scripts/dump-log-segments --classes) its test says so and is counted as skipped.

use std::io::Write;
use std::process::Command;

use tally_testkit::batches::{Batch, now_ms};
use tally_testkit::broker::{Broker, is_reference};
use tally_testkit::client::{Client, ProduceCall, is_not_ready};
use tally_testkit::waiting::{wait_for, wait_until};

use crate::{PROGRAM, tally, tally_well};

const CLASSES: &str = "TALLY_TEST_KAFKA_CLASSES";
/// Twenty minutes: kafka-transactions takes what is younger than the longest timeout, 15 minutes, for alive.
const AGE_MS: i64 = 20 * 60_000;

/// A broker with two plain records and one of a transaction that hangs; the time of that record.
#[track_caller]
fn hanging() -> (Broker, Client, i64) {
    let settings: &[&str] = if is_reference() {
        &["transaction.partition.verification.enable=false"]
    } else {
        // The broker would end it by itself.
        &["tally.transaction.monitor.interval.ms=3600000"]
    };
    let mut broker = Broker::start(PROGRAM, settings);
    if !is_reference() {
        broker.set_faults(&["unasked=fail@1"]);
        broker.kill_and_start();
        broker.wake(0);
    }
    let mut client = broker.client();
    client.create_topic("orders", 1, &[]);
    wait_until("the partition", || {
        !is_not_ready(client.produce_plain("orders", 0, 1).error)
    });
    let first = client.latest("orders", 0);
    if first < 2 {
        client.produce_plain("orders", 0, 1);
    }
    let mut batch = Batch::transactional(77, 3, 0, 1);
    batch.base_timestamp = now_ms() - AGE_MS;
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some("gone"),
        parts: vec![("orders", 0, Some(batch.encode()))],
    };
    let offset = wait_for("the coordinator", || {
        let produced = &client.produce(&call)[0];
        (!is_not_ready(produced.error)).then_some((produced.error, produced.base_offset))
    });
    assert_eq!(offset, (0, 2));
    if !is_reference() {
        broker.calm(0);
    }
    client.produce_plain("orders", 0, 1);
    assert_eq!(
        client.stable("orders", 0),
        2,
        "it holds up what is behind it"
    );
    (broker, client, batch.base_timestamp)
}

/// What kafka-transactions prints, as words; `None`, which the run counts, where there is no such tool.
#[track_caller]
fn kafka_transactions(broker: &Broker, arguments: &[&str]) -> Option<Vec<Vec<String>>> {
    let Ok(classes) = std::env::var(CLASSES) else {
        assert!(
            std::env::var_os("TALLY_TEST_NO_SKIP").is_none(),
            "{CLASSES} is not set: see scripts/dump-log-segments"
        );
        let name = "kafkas_own_tool_finds_and_ends_a_hanging_transaction";
        let reason = format!("{CLASSES} is not set: see scripts/dump-log-segments");
        writeln!(std::io::stderr(), "skipped: {name}: {reason}").expect("standard error");
        return None;
    };
    let output = Command::new("java")
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m"])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=off")
        .args([
            "-cp",
            &classes,
            "org.apache.kafka.tools.TransactionsCommand",
        ])
        .args(["--bootstrap-server", broker.address()])
        .args(arguments)
        .output()
        .expect("java can be run");
    let out = String::from_utf8(output.stdout).expect("text");
    let err = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    Some(out.lines().map(words).collect())
}

const HEADINGS: [&str; 8] = [
    "Topic",
    "Partition",
    "ProducerId",
    "ProducerEpoch",
    "CoordinatorEpoch",
    "StartOffset",
    "LastTimestamp",
    "Duration(min)",
];

/// The one transaction, which is open for twenty minutes and for as long as the test runs already.
#[track_caller]
fn is_found(found: &[Vec<String>], written_ms: i64) {
    let minutes: i64 = found[1][7].parse().expect("minutes");
    assert!(
        (20..=minutes_since(written_ms)).contains(&minutes),
        "{found:?}"
    );
    let (written, minutes) = (written_ms.to_string(), minutes.to_string());
    let row = ["orders", "0", "77", "3", "-1", "2", &written, &minutes];
    assert_eq!(found, [HEADINGS, row]);
}

fn minutes_since(time_ms: i64) -> i64 {
    (now_ms() - time_ms) / 60_000
}

#[test]
fn kafkas_own_tool_finds_and_ends_a_hanging_transaction() {
    let (broker, mut client, written_ms) = hanging();
    let find = ["find-hanging", "--topic", "orders"];
    let Some(found) = kafka_transactions(&broker, &find) else {
        return;
    };
    is_found(&found, written_ms);
    let broker_id = if is_reference() { "0" } else { "1" };
    let everywhere = kafka_transactions(&broker, &["find-hanging", "--broker-id", broker_id]);
    is_found(&everywhere.expect("there is such a tool"), written_ms);
    let place = ["--topic", "orders", "--partition", "0"];
    let abort = [&["abort"], &place[..], &["--start-offset", "2"]].concat();
    assert_eq!(kafka_transactions(&broker, &abort), Some(Vec::new()));
    is_ended(&mut client);
    let after = kafka_transactions(&broker, &find);
    assert_eq!(after, Some(vec![HEADINGS.map(str::to_owned).to_vec()]));
}

/// The marker is behind all of it: what follows can be read, what it wrote can't.
#[track_caller]
fn is_ended(client: &mut Client) {
    wait_until("the marker", || client.stable("orders", 0) == 5);
    assert_eq!(client.latest("orders", 0), 5);
    let read = client.read_committed("orders", 0, 0);
    assert_eq!(read.aborted, Some(vec![(77, 2)]));
    let offsets: Vec<i64> = read.committed().iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [0, 1, 3]);
}

#[test]
fn txn_hanging_finds_it_and_txn_abort_ends_it() {
    let (broker, mut client, written_ms) = hanging();
    let found = tally(&broker, &["txn", "hanging", "-o", "jsonl"]);
    assert_eq!(found.code, 1, "a problem: {}", found.err);
    let row = format!(
        "{{\"kind\":\"hanging\",\"topic\":\"orders\",\"partition\":0,\"producer_id\":77,\"producer_epoch\":3,\"open_from\":2,\
         \"last_timestamp_ms\":{written_ms}}}\n"
    );
    assert_eq!(found.out, row);
    let shown = tally(&broker, &["txn", "hanging", "orders"]);
    let line = shown.out.lines().nth(1).expect("a row");
    let words: Vec<&str> = line.split_whitespace().collect();
    let minutes: i64 = words[4].parse().expect("minutes");
    assert!(
        (20..=minutes_since(written_ms)).contains(&minutes),
        "{line}"
    );
    let rest = [&words[..4], &words[5..]].concat();
    assert_eq!(rest, ["orders:0", "77", "e3", "2", "min", "ago"]);
    let why = tally_well(&broker, &["txn", "why", "orders:0"]);
    assert!(
        why.contains("tally txn abort --pid 77 --epoch 3 --partition orders:0"),
        "{why}"
    );
    let doctor = tally(&broker, &["doctor"]);
    assert_eq!(doctor.code, 1, "{}", doctor.out);
    assert!(doctor.out.contains("nobody will end it"), "{}", doctor.out);
    let producer = ["txn", "abort", "--pid", "77", "--epoch", "3"];
    let abort = [&producer[..], &["--partition", "orders:0", "--yes"]].concat();
    tally_well(&broker, &abort);
    is_ended(&mut client);
    let after = tally_well(&broker, &["txn", "hanging"]);
    assert_eq!(after, "no hanging transactions\n");
    let again = tally(&broker, &abort);
    assert_eq!(again.code, 6, "{}", again.err);
}
