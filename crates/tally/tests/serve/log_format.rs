//! `--log-format json`: each line of the log is an object with the same keys.

use rustix::process::Signal;
use serde_json::Value;
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
    let stopping = with("message", "stopping");
    assert_eq!(stopping["fields"]["reason"], "SIGTERM");
}

#[test]
fn other_formats_are_refused() {
    check_refused(&["--log-format", "xml"], "text, json");
}
