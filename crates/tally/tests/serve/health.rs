//! The health page, from before the recovery to the stop.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;
use tally_testkit::waiting::wait_until;

use crate::{Served, new_dir, tally};

/// The status line and the body.
#[track_caller]
fn get(address: &str, page: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it is served");
    write!(stream, "GET {page} HTTP/1.1\r\n\r\n").expect("a connection");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a connection");
    let (head, body) = response.split_once("\r\n\r\n").expect("a response");
    let line = head.lines().next().expect("a line");
    (line.to_owned(), body.trim_end().to_owned())
}

const OK: &str = "HTTP/1.1 200 OK";
const NOT_YET: &str = "HTTP/1.1 503 Service Unavailable";

#[track_caller]
fn check(address: &str, page: &str, status: &str, body: &str) {
    let expected = (status.to_owned(), body.to_owned());
    assert_eq!(get(address, page), expected, "{page}");
}

#[test]
fn health_is_served_when_asked_for() {
    let dir = new_dir();
    let mut served = Served::start(dir.path(), &["--http", "127.0.0.1:0"]);
    let line = served.line_with("http://");
    let http = line
        .split("http://")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .expect("an address");
    check(http, "/livez", OK, "alive");
    check(http, "/readyz", OK, "ready");
    check(http, "/startupz", OK, "started");
}

/// user-experience.md section 6: the recovery is held after its first partition.
#[test]
fn startupz_says_how_far_the_recovery_is() {
    let dir = new_dir();
    let served = Served::start(dir.path(), &["--topics", "orders:3"]);
    served.signal(Signal::TERM);
    assert!(served.ended().0.success());

    let hold = dir.path().join("hold");
    std::fs::write(&hold, "").expect("a file of ours");
    let mut child = tally()
        .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .arg("--data")
        .arg(dir.path().join("data"))
        .env("TALLY_FAULT", format!("recovery=hold@1:{}", hold.display()))
        .spawn()
        .expect("tally can be run");
    let log = BufReader::new(child.stderr.take().expect("piped"));
    let mut served = Served {
        child: Some(child),
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let mut lines = log.lines().map(|line| line.expect("text"));
    let line = lines
        .find(|line| line.contains("health is served"))
        .expect("a line of the log");
    let (_, http) = line.split_once("address=").expect("an address");

    let held = dir.path().join("hold.held");
    wait_until("the recovery is held", || held.exists());
    check(http, "/livez", OK, "alive");
    check(http, "/readyz", NOT_YET, "{\"reasons\":[\"recovering\"]}");
    let (status, body) = get(http, "/startupz");
    assert_eq!(status, NOT_YET);
    let number = |name: &str| -> u32 {
        let (_, rest) = body.split_once(name).expect("its name");
        let end = rest.find([',', '}']).expect("an end");
        rest[..end].parse().expect("a number")
    };
    let (done, of) = (number("\"partitions_done\":"), number("\"of\":"));
    assert!(0 < done && done < of && of >= 3, "{body}");

    std::fs::remove_file(&hold).expect("a file of ours");
    served.line_with("/readyz");
    check(http, "/startupz", OK, "started");
    check(http, "/readyz", OK, "ready");
    // Until its end, so that it can write.
    let rest = std::thread::spawn(move || lines.count());
    served.signal(Signal::TERM);
    rest.join().expect("it read on");
    let mut child = served.child.take().expect("it runs");
    assert!(child.wait().expect("a child of ours").success());
}
