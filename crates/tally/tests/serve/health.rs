//! The health page, from before the recovery to the stop.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command};

use rustix::process::Signal;
use tally_testkit::client::Client;
use tally_testkit::waiting::{wait_for, wait_until};

use crate::{Served, new_dir, tally};

/// The lines of a log that still grows.
type Log = Lines<BufReader<ChildStderr>>;

/// The status line and the body.
#[track_caller]
fn get(address: &str, page: &str) -> (String, String) {
    try_get(address, page).expect("it is served")
}

/// The same; nothing where nobody is any more.
fn try_get(address: &str, page: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {page} HTTP/1.1\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    let line = head.lines().next()?;
    Some((line.to_owned(), body.trim_end().to_owned()))
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
    let http = &page_of(&mut served);
    check(http, "/livez", OK, "alive");
    check(http, "/readyz", OK, "ready");
    check(http, "/startupz", OK, "started");
}

/// Its address, as the first screen says.
#[track_caller]
fn page_of(served: &mut Served) -> String {
    let line = served.line_with("http://");
    let (_, rest) = line.split_once("http://").expect("an address");
    let (address, _) = rest.split_once('/').expect("a page");
    address.to_owned()
}

/// Who asks whether to send it clients is told to the end that it stops.
#[test]
fn readyz_says_that_it_stops_until_it_has() {
    let dir = new_dir();
    let hold = dir.path().join("hold");
    std::fs::write(&hold, "").expect("a file of ours");
    let mut command = tally();
    command.env("TALLY_FAULT", format!("stop=hold@1:{}", hold.display()));
    let mut served = Served::start_with(command, dir.path(), &["--http", "127.0.0.1:0"]);
    let http = &page_of(&mut served);
    check(http, "/readyz", OK, "ready");
    served.signal(Signal::TERM);
    let held = dir.path().join("hold.held");
    wait_until("the stop is held", || held.exists());
    check(http, "/readyz", NOT_YET, "{\"reasons\":[\"stopping\"]}");
    check(http, "/startupz", OK, "started");
    std::fs::remove_file(&hold).expect("a file of ours");
    let (status, _, log) = served.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(TcpStream::connect(http).is_err(), "the page goes with it");
}

/// A broker whose `--topics` cannot be made never becomes ready, and no page says that it was.
#[test]
fn readyz_waits_for_the_topics_of_the_start() {
    let dir = new_dir();
    let mut child = tally()
        .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
        .args(["--topics", "orders:300,a/b"])
        .arg("--data")
        .arg(dir.path().join("data"))
        .spawn()
        .expect("tally can be run");
    let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
    let http = page_in(&mut log);
    let mut answers = 0;
    while let Some((status, body)) = try_get(&http, "/readyz") {
        assert_eq!(status, NOT_YET, "{body}");
        answers += 1;
    }
    assert!(answers > 0);
    let rest: Vec<String> = log.map(|line| line.expect("text")).collect();
    let status = child.wait().expect("a child of ours");
    assert_eq!(status.code(), Some(2), "{rest:?}");
    let last = rest.last().expect("it says why");
    assert!(last.starts_with("tally: --topics: a/b: "), "{last}");
}

/// The address of the page, which is in the log before the recovery begins.
#[track_caller]
fn page_in(log: &mut Log) -> String {
    let line = log
        .map(|line| line.expect("text"))
        .find(|line| line.contains("health is served"))
        .expect("a line of the log");
    let (_, address) = line.split_once("address=").expect("an address");
    address.to_owned()
}

/// A broker whose recovery is held after its first partition.
struct Held {
    served: Served,
    log: Log,
    /// Address of its health page.
    http: String,
    /// The recovery goes on when this file goes.
    hold: PathBuf,
}

impl Held {
    #[track_caller]
    fn start(dir: &Path) -> Held {
        let served = Served::start(dir, &["--topics", "orders:3"]);
        served.signal(Signal::TERM);
        assert!(served.ended().0.success());

        let hold = dir.join("hold");
        std::fs::write(&hold, "").expect("a file of ours");
        let mut child = tally()
            .args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .arg("--data")
            .arg(dir.join("data"))
            .env("TALLY_FAULT", format!("recovery=hold@1:{}", hold.display()))
            .spawn()
            .expect("tally can be run");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
        let served = Served {
            child: Some(child),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let http = page_in(&mut log);
        let held = dir.join("hold.held");
        wait_until("the recovery is held", || held.exists());
        Held {
            served,
            log,
            http,
            hold,
        }
    }
}

/// user-experience.md section 6.
#[test]
fn startupz_says_how_far_the_recovery_is() {
    let dir = new_dir();
    let Held {
        mut served,
        log,
        http,
        hold,
    } = Held::start(dir.path());
    check(&http, "/livez", OK, "alive");
    check(&http, "/readyz", NOT_YET, "{\"reasons\":[\"recovering\"]}");
    let asked = Command::new(env!("CARGO_BIN_EXE_tally"))
        .args(["health", "--http", &format!("http://{http}")])
        .output()
        .expect("tally can be run");
    let why = String::from_utf8(asked.stderr).expect("text");
    assert_eq!(asked.status.code(), Some(3), "{why}");
    assert!(
        why.ends_with("it is not ready: {\"reasons\":[\"recovering\"]}\n"),
        "{why}"
    );
    let (status, body) = get(&http, "/startupz");
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
    check(&http, "/startupz", OK, "started");
    check(&http, "/readyz", OK, "ready");
    // Until its end, so that it can write.
    let rest = std::thread::spawn(move || log.count());
    served.signal(Signal::TERM);
    rest.join().expect("it read on");
    let mut child = served.child.take().expect("it runs");
    assert!(child.wait().expect("a child of ours").success());
}

/// A recovery can be done again, so who stops the broker meanwhile does not wait for it.
#[test]
fn a_stop_does_not_wait_for_the_recovery() {
    let dir = new_dir();
    let Held {
        mut served,
        log,
        hold,
        ..
    } = Held::start(dir.path());
    served.signal(Signal::TERM);
    let mut child = served.child.take().expect("it runs");
    let status = wait_for("the end of tally", || {
        child.try_wait().expect("a child of ours")
    });
    assert!(status.success(), "{status}");
    assert!(hold.exists(), "the recovery was held to the end");
    let told = log.map(|line| line.expect("text"));
    let told: Vec<String> = told
        .filter(|line| line.contains("stopped before it was ready"))
        .collect();
    assert_eq!(told.len(), 1);

    let again = Served::start(dir.path(), &[]);
    let mut client = Client::connect(&again.address.to_string());
    assert_eq!(client.topic("orders").partitions.len(), 3);
}
