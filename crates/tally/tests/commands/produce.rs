//! `tally produce`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use tally_testkit::broker::{Broker, is_reference};
use tally_testkit::client::Client;
use tally_testkit::waiting::wait_until;

use crate::{Came, PROGRAM, came, init, write};

fn broker() -> (Broker, Client) {
    let broker = Broker::start(PROGRAM, &["auto.create.topics.enable=false"]);
    let mut client = broker.client();
    client.create_topic("orders", 3, &[]);
    (broker, client)
}

/// `tally produce ARGUMENTS`, with lines on its standard input.
#[track_caller]
pub(crate) fn produce(broker: &Broker, arguments: &[&str], lines: &str) -> Came {
    let mut child = Command::new(PROGRAM)
        .arg("produce")
        .args(arguments)
        .args(["-b", broker.address()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tally can be run");
    let mut input = child.stdin.take().expect("it was piped");
    // Who refuses to begin reads nothing.
    drop(input.write_all(lines.as_bytes()));
    drop(input);
    came(child.wait_with_output().expect("it ended"))
}

#[track_caller]
pub(crate) fn produce_well(broker: &Broker, arguments: &[&str], lines: &str) -> String {
    let came = produce(broker, arguments, lines);
    assert_eq!(came.code, 0, "{arguments:?}: {}", came.err);
    came.out
}

/// What a reader of what is decided gets, in order.
fn values(client: &mut Client, partition: i32) -> Vec<String> {
    let records = client.read_committed("orders", partition, 0).committed();
    let values = records.into_iter().map(|(_, value)| match value {
        Some(value) => String::from_utf8(value.to_vec()).expect("text"),
        None => "null".to_owned(),
    });
    values.collect()
}

#[test]
fn lines_become_records() {
    let (broker, mut client) = broker();
    let out = produce_well(
        &broker,
        &["orders", "-p", "1", "-o", "jsonl"],
        "a\nb\n\nlast",
    );
    assert_eq!(
        out,
        "{\"kind\":\"produced\",\"topic\":\"orders\",\"partition\":1,\"records\":4,\"first_offset\":0,\"last_offset\":3}\n"
    );
    assert_eq!(values(&mut client, 1), ["a", "b", "", "last"]);
    produce_well(&broker, &["orders", "-p", "1", "--tombstone"], "\nx\n");
    assert_eq!(values(&mut client, 1)[4..], ["null", "x"]);
    assert_eq!(produce_well(&broker, &["orders"], ""), "");
}

#[test]
fn keys_choose_the_partition_that_java_clients_choose() {
    let (broker, mut client) = broker();
    let lines = "f\tone\na\ttwo\nb\tthree\nf\tfour\n";
    produce_well(
        &broker,
        &["orders", "-f", "%k\\t%v\\n", "-z", "zstd"],
        lines,
    );
    // murmur2 of these keys, without its sign, modulo 3.
    assert_eq!(values(&mut client, 0), ["one", "four"]);
    assert_eq!(values(&mut client, 1), ["two"]);
    assert_eq!(values(&mut client, 2), ["three"]);
}

#[test]
fn every_codec_and_every_kind_of_acknowledgement_is_written() {
    let (broker, mut client) = broker();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        produce_well(
            &broker,
            &["orders", "-p", "0", "-z", codec],
            &format!("{codec}\n"),
        );
    }
    for acks in ["all", "1", "0"] {
        let out = produce_well(
            &broker,
            &["orders", "-p", "0", "--acks", acks],
            &format!("{acks}\n"),
        );
        assert!(!out.is_empty());
    }
    produce_well(
        &broker,
        &["orders", "-p", "0", "--idempotent=false"],
        "plain\n",
    );
    wait_until("all is written", || values(&mut client, 0).len() == 9);
    let expected = [
        "none", "gzip", "snappy", "lz4", "zstd", "all", "1", "0", "plain",
    ];
    assert_eq!(values(&mut client, 0), expected);
}

#[test]
fn all_that_is_read_is_one_transaction() {
    let (broker, mut client) = broker();
    let out = produce_well(
        &broker,
        &["orders", "-p", "0", "--txn", "etl", "-o", "jsonl"],
        "a\nb\n",
    );
    let last = out.lines().last().expect("a line");
    assert!(
        last.starts_with("{\"kind\":\"txn\",\"transactional_id\":\"etl\""),
        "{out}"
    );
    assert!(last.ends_with("\"committed\":1,\"aborted\":0}"), "{out}");
    wait_until("the marker is there", || client.stable("orders", 0) == 3);
    assert_eq!(values(&mut client, 0), ["a", "b"]);
    let fetched = client.read_uncommitted("orders", 0, 0);
    assert_eq!(fetched.markers().len(), 1);
}

#[test]
fn transactions_may_be_cut_by_records_and_aborted() {
    let (broker, mut client) = broker();
    let id = ["--transactional-id", "etl", "-o", "jsonl"];
    let cut = ["orders", "-p", "0", "--txn-size", "2"];
    let out = produce_well(&broker, &[&cut[..], &id].concat(), "a\nb\nc\nd\ne\n");
    assert!(out.contains("\"committed\":3,\"aborted\":0}"), "{out}");
    let aborted = ["orders", "-p", "0", "--abort"];
    let out = produce_well(&broker, &[&aborted[..], &id].concat(), "x\n");
    assert!(out.contains("\"committed\":0,\"aborted\":1}"), "{out}");
    wait_until("all is decided", || {
        client.stable("orders", 0) == client.latest("orders", 0)
    });
    assert_eq!(values(&mut client, 0), ["a", "b", "c", "d", "e"]);
    assert_eq!(
        client.latest("orders", 0),
        10,
        "six records and four markers"
    );
}

#[test]
fn a_line_that_is_none_aborts_its_transaction() {
    let (broker, mut client) = broker();
    let came = produce(
        &broker,
        &["orders", "-p", "0", "-f", "%k:%v", "--txn", "etl"],
        "k:v\nnothing\n",
    );
    assert_eq!(came.code, 2);
    assert_eq!(came.err, "tally: line 2: \":\" is missing\n");
    wait_until("nothing is open", || {
        client.stable("orders", 0) == client.latest("orders", 0)
    });
    assert_eq!(values(&mut client, 0), [""; 0]);
}

#[test]
fn a_newer_producer_fences_the_one_before() {
    let (broker, mut client) = broker();
    let before = init(&mut client, "etl");
    write(&mut client, "etl", before, ("orders", 0), 0);
    produce_well(&broker, &["orders", "-p", "0", "--txn", "etl"], "mine\n");
    assert_eq!(client.end_txn(4, "etl", before, true).0, 90);
    wait_until("all is decided", || {
        client.stable("orders", 0) == client.latest("orders", 0)
    });
    assert_eq!(values(&mut client, 0), ["mine"]);
}

#[test]
fn a_java_clients_file_says_how() {
    let (broker, mut client) = broker();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let address = broker.address();
    let text = format!(
        "bootstrap.servers={address}\ncompression.type=lz4\ntransactional.id=from-file\nkey.serializer=x\n"
    );
    std::fs::write(file.path(), text).expect("written");
    let path = file.path().to_str().expect("text");
    let mut child = Command::new(PROGRAM)
        .args([
            "produce",
            "orders",
            "-p",
            "2",
            "--client-config",
            path,
            "-o",
            "jsonl",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tally can be run");
    let input = child.stdin.take();
    input.expect("piped").write_all(b"x\n").expect("taken");
    let came = came(child.wait_with_output().expect("it ended"));
    assert_eq!(came.code, 0, "{}", came.err);
    assert!(
        came.out.contains("\"transactional_id\":\"from-file\""),
        "{}",
        came.out
    );
    // Kafka answers EndTxn before the marker is there.
    wait_until("it is committed", || client.stable("orders", 2) == 2);
    let header = client.read_committed("orders", 2, 0).batches[0].header;
    assert_eq!(header.codec(), 3);
    std::fs::write(file.path(), "security.protocol=SSL\n").expect("written");
    let refused = produce(&broker, &["orders", "--client-config", path], "");
    assert_eq!(refused.code, 2);
    assert!(
        refused.err.contains("security.protocol=SSL is not built"),
        "{}",
        refused.err
    );
}

#[test]
fn what_can_not_be_is_refused() {
    let (broker, _) = broker();
    let cases: [(&[&str], i32, &str); 8] = [
        (
            &["nothing"],
            6,
            "topic nothing (tally topic create nothing makes it): UNKNOWN_TOPIC_OR_PARTITION (3)",
        ),
        (
            &["orders", "-p", "3"],
            2,
            "topic orders has 3 partitions, 0 to 2: there is no 3",
        ),
        (
            &["orders", "--acks", "1", "--txn", "x"],
            2,
            "needs --acks all",
        ),
        (
            &["orders", "--txn", "x", "--idempotent=false"],
            2,
            "need an idempotent producer",
        ),
        (
            &["orders", "-f", "%k%v"],
            2,
            "two fields with nothing between them",
        ),
        (&["orders", "-f", "%z"], 2, "%z is no field"),
        (
            &["orders", "--file", "/nothing/there"],
            2,
            "cannot read /nothing/there",
        ),
        (
            &["orders", "--client-config", "/nothing"],
            2,
            "cannot read /nothing",
        ),
    ];
    for (arguments, code, text) in cases {
        let came = produce(&broker, arguments, "line\n");
        assert_eq!(came.code, code, "{arguments:?}: {}", came.err);
        assert!(came.err.contains(text), "{arguments:?}: {}", came.err);
    }
    let large = "x".repeat(2 << 20);
    let came = produce(&broker, &["orders"], &large);
    assert_eq!(came.code, 6);
    assert!(came.err.contains("MESSAGE_TOO_LARGE (10)"), "{}", came.err);
}

/// The broker closes connections that are idle, and the producer opens others; nothing is lost and nothing is there twice.
#[test]
fn an_idempotent_producer_outlives_its_connections() {
    // Long enough for a test that a busy machine stops between two requests; Kafka also takes a connection for idle while it
    // works on a request of it, and making the topic takes its time.
    let idle_ms = if is_reference() { 5000 } else { 3000 };
    let idle = format!("connections.max.idle.ms={idle_ms}");
    let broker = Broker::start(PROGRAM, &[idle.as_str()]);
    broker.client().create_topic("orders", 1, &[]);
    let mut child = Command::new(PROGRAM)
        .args([
            "produce",
            "orders",
            "-p",
            "0",
            "--timeout",
            "60s",
            "-v",
            "-b",
            broker.address(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tally can be run");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"before\n").expect("taken");
    wait_until("it is written", || broker.client().latest("orders", 0) == 1);
    // One that is idle from now on is closed after those that are idle already. The producer's is not, as long as the answer to
    // what is written is not sent: so a second one, later by all of the time.
    for _ in 0..2 {
        let mut idle = TcpStream::connect(broker.address()).expect("somebody listens");
        assert_eq!(idle.read(&mut [0]).expect("it is closed"), 0);
    }
    input.write_all(b"behind\n").expect("taken");
    drop(input);
    let came = came(child.wait_with_output().expect("it ended"));
    assert_eq!(came.code, 0, "{}", came.err);
    // When a connection counts as idle is another matter in Kafka.
    let was_closed = came.err.contains("trying again");
    assert!(was_closed || is_reference(), "{}", came.err);
    assert_eq!(values(&mut broker.client(), 0), ["before", "behind"]);
}
