//! `tally explain`, `tally completion`, `tally man` and `tally version`, which ask nobody, and `tally health`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread::JoinHandle;

use crate::{Came, PROGRAM, came};

#[track_caller]
fn alone(arguments: &[&str]) -> Came {
    let output = Command::new(PROGRAM).args(arguments).output();
    came(output.expect("tally can be run"))
}

#[test]
fn words_are_explained() {
    let fenced = alone(&["explain", "90"]);
    assert_eq!(fenced.code, 0, "{}", fenced.err);
    assert!(
        fenced.out.starts_with("PRODUCER_FENCED (90)  (error)\n"),
        "{}",
        fenced.out
    );
    assert!(fenced.out.contains("  To do: "), "{}", fenced.out);
    let both = alone(&["explain", "retention.ms", "W2101", "-o", "jsonl"]);
    let names: Vec<&str> = both
        .out
        .lines()
        .map(|line| line.split("\"name\":\"").nth(1).expect("a name"))
        .map(|rest| rest.split('"').next().expect("a word"))
        .collect();
    assert_eq!(names, ["retention.ms", "W2101 txn.timeout"]);
    assert!(
        both.out.contains("\"default\":\"604800000\"")
            || both.out.contains("\"taken from\":\"log.retention.ms"),
        "{}",
        both.out
    );
    let unknown = alone(&["explain", "retension.ms"]);
    assert_eq!(unknown.code, 2);
    assert_eq!(
        unknown.err,
        "tally: retension.ms: nothing is known by this name. Did you mean retention.ms?\n"
    );
    assert_eq!(alone(&["explain"]).code, 2);
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let came = alone(&["completion", shell]);
        assert_eq!(came.code, 0, "{}", came.err);
        for command in ["produce", "consume", "reset", "doctor", "completion"] {
            assert!(came.out.contains(command), "{command} for {shell}");
        }
    }
    assert_eq!(alone(&["completion", "cmd"]).code, 2);
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("text");
    assert_eq!(alone(&["man", path]).code, 0);
    for page in [
        "tally.1",
        "tally-serve.1",
        "tally-txn-why.1",
        "tally-group-lag.1",
    ] {
        let text = std::fs::read_to_string(directory.path().join(page)).expect("a page");
        assert!(text.contains(".SH NAME"), "{page}");
    }
    let nowhere = alone(&["man", "/nothing/there"]);
    assert_eq!(nowhere.code, 2);
    assert!(
        nowhere.err.contains("cannot write into /nothing/there"),
        "{}",
        nowhere.err
    );
}

#[test]
fn the_version_is_said_to_people_and_programs() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(alone(&["version"]).out, format!("tally {version}\n"));
    let json = format!("{{\"name\":\"tally\",\"version\":\"{version}\"}}\n");
    assert_eq!(alone(&["version", "--json"]).out, json);
}

/// A page that gives one answer.
fn page(answer: &'static str) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody asks");
        let mut request = [0; 1024];
        let length = stream.read(&mut request).expect("a request");
        assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
        stream.write_all(answer.as_bytes()).expect("it is read");
    });
    (address, served)
}

#[test]
fn health_is_ready_or_exit_code_3() {
    let (address, served) = page("HTTP/1.1 200 OK\r\n\r\nready\n");
    let ready = alone(&["health", "--http", &format!("http://{address}/")]);
    assert_eq!(
        (ready.code, ready.out.as_str()),
        (0, "ready\n"),
        "{}",
        ready.err
    );
    served.join().expect("it was asked");
    let (address, served) = page("HTTP/1.1 503 Service Unavailable\r\n\r\n");
    let starting = alone(&["health", "--http", &address]);
    assert_eq!(starting.code, 3);
    assert!(
        starting.err.contains("it is not ready: HTTP/1.1 503"),
        "{}",
        starting.err
    );
    served.join().expect("it was asked");
    assert_eq!(alone(&["health", "--http", "127.0.0.1:1"]).code, 3);
    assert_eq!(alone(&["health", "--http", "nonsense"]).code, 2);
}
