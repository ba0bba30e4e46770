//! `tally serve` as programs and people meet it: flags, exit codes, first screen, port file, signals, health.

mod health;
mod log_format;
mod quotas;
mod told;
mod topic_properties;
mod transactions;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tally_testkit::waiting::wait_for;

fn tally() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    command
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("RUST_LOG");
    command
}

/// A broker on a free port, ready, on data in `dir`.
struct Served {
    child: Option<Child>,
    address: SocketAddr,
}

impl Served {
    #[track_caller]
    fn start(dir: &Path, arguments: &[&str]) -> Served {
        Served::start_with(tally(), dir, arguments)
    }

    /// The same with a command that has an environment of its own.
    #[track_caller]
    fn start_with(mut command: Command, dir: &Path, arguments: &[&str]) -> Served {
        let port_file = dir.join("port");
        std::fs::write(&port_file, "left by an earlier run").expect("a file of ours");
        let mut child = command
            .arg("--data")
            .arg(dir.join("data"))
            .arg("--port-file")
            .arg(&port_file)
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .expect("tally can be run");
        let address = wait_for("the port file", || {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                panic!("tally ended: {status}");
            }
            std::fs::read_to_string(&port_file)
                .ok()
                .and_then(|text| text.trim().parse().ok())
        });
        Served {
            child: Some(child),
            address,
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("it runs"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child of ours");
    }

    /// The first line of the first screen that holds `text`. What was read is not there for [`Served::ended`].
    #[track_caller]
    fn line_with(&mut self, text: &str) -> String {
        let child = self.child.as_mut().expect("it runs");
        let screen = BufReader::new(child.stdout.as_mut().expect("piped"));
        screen
            .lines()
            .map(|line| line.expect("text"))
            .find(|line| line.contains(text))
            .expect("a line of the first screen")
    }

    /// Waits for the end: how it ended, and what it said on both outputs.
    #[track_caller]
    fn ended(mut self) -> (ExitStatus, String, String) {
        let mut child = self.child.take().expect("it runs");
        let status = wait_for("the end of tally", || {
            child.try_wait().expect("a child of ours")
        });
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let mut output = child.stdout.take().expect("piped");
        output.read_to_string(&mut stdout).expect("text");
        let mut errors = child.stderr.take().expect("piped");
        errors.read_to_string(&mut stderr).expect("text");
        (status, stdout, stderr)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill().is_err() || child.wait().is_err();
        }
    }
}

fn new_dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// What `tally` with these arguments says when it refuses to start: code 2, nothing on standard output.
#[track_caller]
fn refusal(arguments: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = tally().args(arguments).output().expect("tally can be run");
    let stderr = String::from_utf8(stderr).expect("text");
    assert_eq!(status.code(), Some(2), "{stderr}");
    assert!(stdout.is_empty(), "{stdout:?}");
    stderr
}

#[track_caller]
fn check_refused(arguments: &[&str], expected: &str) {
    let stderr = refusal(arguments);
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn bad_flags_and_properties_are_refused() {
    check_refused(&["--port", "9092"], "unexpected argument '--port'");
    check_refused(&["--set", "num.partitions"], "must be KEY=VALUE");
    check_refused(
        &["--set", "num.partition=3"],
        "tally: num.partition: unknown property. Did you mean num.partitions?",
    );
    check_refused(
        &["--listen", "9092"],
        "tally: listeners=9092: must be HOST:PORT (--listen)",
    );
    check_refused(
        &["--durability", "sometimes"],
        "tally: tally.durability=sometimes: must be one of os, commit, always, memory (--durability)",
    );
    check_refused(
        &["--node-id", "x"],
        "tally: node.id=x: must be a whole number (--node-id)",
    );
}

#[test]
fn a_data_directory_that_cannot_be_used_is_refused() {
    let dir = new_dir();
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("a file of ours");
    let data = file.join("data");
    let data = data.to_str().expect("text");
    check_refused(&["--listen", ":0", "--data", data], data);
}

/// Kafka's own example, for a single node, with a change or two.
const SERVER_PROPERTIES: &str = "\
# The role of this server
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
socket.request.max.bytes=104857600
log.dirs=/no/such/directory
num.partitions=5
offsets.topic.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.retention.check.interval.ms=300000
";

/// Flags for where a test listens and keeps its data, which win over a file and the environment.
fn listen_in(dir: &Path) -> Vec<String> {
    let data = dir.join("data").to_str().expect("text").to_owned();
    let flags = ["--data", &data, "--listen", "127.0.0.1:0"];
    flags.map(str::to_owned).to_vec()
}

fn written(dir: &Path, text: &str) -> String {
    let file = dir.join("server.properties");
    std::fs::write(&file, text).expect("a file of ours");
    file.to_str().expect("text").to_owned()
}

#[test]
fn kafkas_file_of_properties_is_taken_as_it_is() {
    let dir = new_dir();
    let file = written(dir.path(), SERVER_PROPERTIES);
    let mut served = Served::start(dir.path(), &[&file]);
    let topics = served.line_with("auto-create");
    assert!(topics.contains("on (5 partitions)"), "{topics}");
    served.signal(Signal::TERM);
    let (status, _, log) = served.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("properties have no meaning here"), "{log}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let dir = new_dir();
    let file = written(
        dir.path(),
        "num.partitions=2\nlog.retention.ms=1\nnode.id=4\n",
    );
    let output = tally()
        .args(listen_in(dir.path()))
        .args([&file, "--print-config", "--set", "node.id=6"])
        .env("KAFKA_LOG_RETENTION_MS", "2")
        .env("KAFKA_NODE_ID", "5")
        .env("KAFKA_HEAP_OPTS", "-Xmx1G")
        .env("KAFKA_SERVICE_HOST", "10.0.0.1")
        .output()
        .expect("tally can be run");
    let log = String::from_utf8(output.stderr).expect("text");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{log}");
    for line in [
        "# environment KAFKA_LOG_RETENTION_MS\nlog.retention.ms=2\n",
        "# --set\nnode.id=6\n",
        "# server.properties:1\nnum.partitions=2\n",
    ] {
        assert!(printed.contains(line), "{line:?} is not in {printed}");
    }
    assert!(
        log.contains("environment: no property is meant by KAFKA_SERVICE_HOST"),
        "{log}"
    );
    assert!(!log.contains("HEAP"), "{log}");
    assert!(!dir.path().join("data").exists(), "nothing was started");
}

#[test]
fn mistakes_in_the_file_and_the_environment_are_refused() {
    let dir = new_dir();
    let file = written(dir.path(), "num.partitions=1\n\nlog.retension.ms=1\n");
    check_refused(
        &[&file],
        "tally: log.retension.ms: unknown property. Did you mean log.retention.ms? (server.properties:3)",
    );
    let missing = dir.path().join("missing");
    check_refused(&[missing.to_str().expect("text")], "tally: cannot read ");
    let output = tally()
        .env("KAFKA_NUM_PARTITION", "1")
        .output()
        .expect("tally can be run");
    assert_eq!(output.status.code(), Some(2));
    let log = String::from_utf8(output.stderr).expect("text");
    assert!(log.contains("(environment KAFKA_NUM_PARTITION)"), "{log}");
}

#[test]
fn a_configuration_is_checked_without_starting() {
    let dir = new_dir();
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("a file of ours");
    let good = tally()
        .args(listen_in(dir.path()))
        .arg("--check-config")
        .output()
        .expect("tally can be run");
    assert_eq!(good.status.code(), Some(0));
    assert_eq!(good.stdout, b"the configuration can be used\n");
    assert!(!dir.path().join("data").exists(), "nothing was made");
    let below_a_file = file.join("data");
    check_refused(
        &[
            "--check-config",
            "--data",
            below_a_file.to_str().expect("text"),
        ],
        "is not a directory",
    );
    check_refused(
        &["--check-config", "--advertise", "no-such-host.invalid:9092"],
        "tally: advertised.listeners: no-such-host.invalid cannot be resolved",
    );
    check_refused(
        &["--check-config", "--set", "num.partitions=0"],
        "num.partitions=0: must be at least 1",
    );
}

#[test]
fn the_data_of_another_cluster_is_refused() {
    let dir = new_dir();
    let mut first = Served::start(dir.path(), &["--set", "tally.cluster.id=first"]);
    let line = first.line_with("cluster");
    assert!(line.contains("cluster first"), "{line}");
    first.signal(Signal::TERM);
    assert!(first.ended().0.success());
    let output = tally()
        .args(listen_in(dir.path()))
        .env("CLUSTER_ID", "second")
        .output()
        .expect("tally can be run");
    assert_eq!(output.status.code(), Some(2));
    let log = String::from_utf8(output.stderr).expect("text");
    assert!(
        log.contains("this data belongs to cluster first, but tally.cluster.id is second"),
        "{log}"
    );
}

#[test]
fn a_taken_port_names_who_has_it() {
    let dir = new_dir();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let data = dir.path().join("data");
    let stderr = refusal(&[
        "--listen",
        &address.to_string(),
        "--data",
        data.to_str().expect("text"),
    ]);
    let expected = format!(
        "tally: port {} is taken by pid {} (",
        address.port(),
        std::process::id()
    );
    assert!(stderr.contains(&expected), "{stderr}");
    assert!(stderr.contains("Use --listen :"), "{stderr}");
    assert!(!data.exists(), "nothing is touched before the port is had");
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let dir = new_dir();
    let first = Served::start(dir.path(), &[]);
    let data = dir.path().join("data");
    let expected = format!("is in use by process {}", first.pid().as_raw_nonzero());
    check_refused(
        &["--listen", ":0", "--data", data.to_str().expect("text")],
        &expected,
    );
}

#[test]
fn the_data_of_another_node_is_refused() {
    let dir = new_dir();
    let first = Served::start(dir.path(), &["--set", "broker.id=7"]);
    first.signal(Signal::TERM);
    assert!(first.ended().0.success());
    let data = dir.path().join("data");
    check_refused(
        &["--listen", ":0", "--data", data.to_str().expect("text")],
        "this data belongs to node 7, but node.id is 1",
    );
}

#[test]
fn the_first_screen_says_how_the_data_was_left() {
    let dir = new_dir();
    let new = Served::start(dir.path(), &[]);
    let listener = format!("PLAINTEXT {}", new.address);
    new.signal(Signal::TERM);
    let (status, screen, log) = new.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    for expected in [
        "node 1  cluster ",
        "data  (new)",
        "os: survives kill -9, not power loss",
        &listener,
        "auto-create on (1 partition)",
        "stop with Ctrl-C\nstopped clean\n",
    ] {
        assert!(screen.contains(expected), "{expected} is not in {screen}");
    }
    assert!(
        log.contains("Transitioning from RECOVERY to RUNNING"),
        "{log}"
    );

    let mut again = Served::start(dir.path(), &[]);
    // The port file comes before the screen, and a kill may come between them.
    let line = again.line_with("(existing");
    assert!(line.contains("(existing, was stopped clean)"), "{line}");
    again.signal(Signal::KILL);
    assert_eq!(again.ended().0.code(), None);

    let recovered = Served::start(dir.path(), &[]);
    recovered.signal(Signal::INT);
    let (status, screen, _) = recovered.ended();
    assert_eq!(status.code(), Some(0));
    assert!(
        screen.contains("(existing, recovered after a crash)"),
        "{screen}"
    );
}

#[test]
fn what_has_no_effect_is_said_at_start() {
    let dir = new_dir();
    let arguments = ["--set", "broker.rack=r1", "--set", "num.io.threads=8"];
    let served = Served::start(dir.path(), &arguments);
    served.signal(Signal::TERM);
    let (_, _, log) = served.ended();
    for expected in [
        "1 property is known but does nothing yet (broker.rack)",
        "1 property has no meaning here (num.io.threads)",
    ] {
        assert!(log.contains(expected), "{log}");
    }
}

#[test]
fn it_ends_with_its_parent_when_asked_to() {
    let dir = new_dir();
    let mut served = Served::start(dir.path(), &["--exit-with-parent"]);
    drop(served.child.as_mut().and_then(|child| child.stdin.take()));
    let (status, screen, log) = served.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(screen.ends_with("stopped clean\n"), "{screen}");
}

#[test]
fn it_ends_after_its_longest_lifetime() {
    let dir = new_dir();
    // Long enough to be ready before, on a busy machine too.
    let served = Served::start(dir.path(), &["--max-lifetime", "4s"]);
    let (status, screen, log) = served.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("--max-lifetime is over"), "{log}");
    assert!(screen.ends_with("stopped clean\n"), "{screen}");
}

/// What the topics of a running broker are, as `tally topic list -o tsv` says.
fn topics_of(served: &Served) -> Vec<String> {
    let listed = Command::new(env!("CARGO_BIN_EXE_tally"))
        .args(["topic", "list", "-o", "tsv", "-q", "-b"])
        .arg(served.address.to_string())
        .output()
        .expect("tally can be run");
    let text = String::from_utf8(listed.stdout).expect("text");
    let rows = text.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        cells[1..3].join(" ")
    });
    rows.collect()
}

#[test]
fn topics_are_there_when_it_is_ready_and_memory_keeps_nothing() {
    let dir = new_dir();
    let arguments = ["--memory", "--topics", "orders:6,audit:1:compact"];
    let served = Served::start(dir.path(), &arguments);
    assert_eq!(topics_of(&served), ["audit 1", "orders 6"]);
    served.signal(Signal::TERM);
    let (status, screen, log) = served.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    for expected in [
        "MEMORY MODE: all data is gone when this process ends\n",
        "topics      2 ",
    ] {
        assert!(screen.contains(expected), "{screen}");
    }

    let again = Served::start(dir.path(), &["--memory", "--topics", "one"]);
    assert_eq!(topics_of(&again), ["one 1"]);
    drop(again);

    let kept = Served::start(dir.path(), &["--topics", "orders:6"]);
    kept.signal(Signal::TERM);
    assert_eq!(kept.ended().0.code(), Some(0));
    let there = Served::start(dir.path(), &["--topics", "orders:7,new:2"]);
    assert_eq!(
        topics_of(&there),
        ["new 2", "orders 6"],
        "what is there stays as it is"
    );
    drop(there);

    let data = dir.path().join("other");
    let data = data.to_str().expect("text");
    let bad = ["--data", data, "--listen", "127.0.0.1:0", "--topics", "a/b"];
    check_refused(&bad, "--topics: a/b: ");
}

#[test]
fn a_broker_without_topics_keeps_no_logs() {
    let dir = new_dir();
    let served = Served::start(dir.path(), &[]);
    served.signal(Signal::TERM);
    assert!(served.ended().0.success());
    let topics = dir.path().join("data/topics");
    let left = std::fs::read_dir(&topics).map_or(0, Iterator::count);
    assert_eq!(
        left, 0,
        "the partitions of the internal topics cost nothing"
    );
}
