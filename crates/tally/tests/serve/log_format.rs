//! `--log-format json`: each line of the log is an object with the same keys.

use kafka_protocol::messages::InitProducerIdRequest;
use rustix::process::Signal;
use serde_json::Value;
use tally_testkit::client::{Client, transactional_id};
use tally_testkit::wire::Connection;

use crate::{Served, check_refused, new_dir};

const KEYS: [&str; 7] = [
    "code", "event", "fields", "level", "message", "target", "time",
];

#[test]
fn each_line_of_the_log_is_an_object() {
    let dir = new_dir();
    let served = Served::start(dir.path(), &["--log-format", "json"]);
    let mut connection = Connection::open(&served.address.to_string());
    connection.send_bytes(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n");
    assert!(connection.receive_frame().is_none(), "closed");
    be_late(&served);
    served.signal(Signal::TERM);
    let (status, screen, log) = served.ended();
    assert!(status.success(), "{log}");
    assert!(screen.contains("PLAINTEXT"), "for people: {screen}");

    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        let object = line.as_object().expect("an object");
        let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, KEYS, "{line}");
        assert!(line["fields"].is_object(), "{line}");
        let time = line["time"].as_str().expect("text");
        assert!(time.contains('T') && time.ends_with('Z'), "{time}");
    }
    let with = |key: &str, text: &str| {
        let found = lines.iter().find(|line| line[key] == text);
        found.unwrap_or_else(|| panic!("no {key} {text}: {log}"))
    };
    let ready = with("message", "Transitioning from RECOVERY to RUNNING");
    assert_eq!(ready["level"], "INFO");
    assert!(ready["code"].is_null() && ready["event"].is_null());
    let foreign = with("code", "W1101");
    assert_eq!(foreign["level"], "WARN");
    assert_eq!(foreign["event"], "listener.foreign");
    let message = foreign["message"].as_str().expect("text");
    assert!(message.starts_with("127.0.0.1 speaks HTTP"), "{message}");
    let late = with("code", "W2103");
    assert_eq!(late["event"], "request.late");
    assert_eq!(late["fields"]["api"], "AddPartitionsToTxn");
    let stopping = with("message", "stopping");
    assert_eq!(stopping["fields"]["reason"], "SIGTERM");
}

/// A request of the old transaction protocol on a connection that its producer has left (D-8).
fn be_late(served: &Served) {
    let address = served.address.to_string();
    let [mut older, mut newer] = [(); 2].map(|()| Client::connect(&address));
    older.create_topic("orders", 1, &[]);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id("etl")))
        .with_transaction_timeout_ms(60_000);
    let (error, producer) = older.init_producer_id(4, &request);
    assert_eq!(error, 0);
    let places = [("orders", 0)];
    for client in [&mut older, &mut newer] {
        assert_eq!(client.add_partitions(3, "etl", producer, &places), [0]);
    }
    let late = older.try_add_partitions(3, "etl", producer, &places);
    assert_eq!(late, None, "closed");
}

#[test]
fn other_formats_are_refused() {
    check_refused(&["--log-format", "xml"], "text, json");
}
