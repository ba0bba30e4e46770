//! `tally consume`.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use tally_testkit::broker::Broker;
use tally_testkit::client::Client;
use tally_testkit::waiting::{wait_for, wait_until};

use crate::produce::produce_well;
use crate::{PROGRAM, init, tally, tally_well, write};

fn broker() -> (Broker, Client) {
    let settings = [
        "group.initial.rebalance.delay.ms=0",
        "offsets.topic.num.partitions=1",
    ];
    let broker = Broker::start(PROGRAM, &settings);
    let mut client = broker.client();
    client.create_topic("orders", 2, &[]);
    (broker, client)
}

fn consume(broker: &Broker, arguments: &[&str]) -> String {
    tally_well(broker, &[&["consume"], arguments].concat())
}

#[test]
fn what_is_there_is_read_to_its_end() {
    let (broker, _) = broker();
    produce_well(&broker, &["orders", "-p", "0"], "a\nb\nc\n");
    produce_well(&broker, &["orders", "-p", "1", "-z", "gzip"], "d\n");
    let mut lines: Vec<String> = consume(&broker, &["orders"])
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    assert_eq!(lines, ["a", "b", "c", "d"]);
    assert_eq!(consume(&broker, &["orders", "-p", "1"]), "d\n");
    assert_eq!(
        consume(&broker, &["orders", "-p", "0", "-o", "1"]),
        "b\nc\n"
    );
    assert_eq!(consume(&broker, &["orders", "-p", "0", "-o", "-1"]), "c\n");
    assert_eq!(
        consume(&broker, &["orders", "-p", "0", "-n", "2"]),
        "a\nb\n"
    );
    assert_eq!(consume(&broker, &["orders", "-p", "0,1", "-o", "end"]), "");
    assert_eq!(consume(&broker, &["orders", "-p", "1", "-o", "@1h"]), "d\n");
    let far = tally(&broker, &["consume", "orders", "-p", "1", "-o", "7"]);
    assert_eq!((far.code, far.out.as_str()), (0, ""));
    assert_eq!(far.err, "tally: orders:1 ends at 1, before offset 7\n");
}

#[test]
fn a_form_says_what_is_written() {
    let (broker, _) = broker();
    let form = ["orders", "-p", "0", "-f", "%T %k %h|%v"];
    produce_well(&broker, &form, "17 key a=1,b|x\n");
    let shown = ["orders", "-p", "0", "-f", "%t:%p:%o %T %k=%v %h %K %S%%\\n"];
    assert_eq!(consume(&broker, &shown), "orders:0:0 17 key=x a=1,b 3 1%\n");
    let out = consume(&broker, &["orders", "-p", "0", "-o", "jsonl"]);
    assert!(out.starts_with("{\"kind\":\"record\",\"topic\":\"orders\",\"partition\":0,\"is\":\"record\",\"producer_id\":"), "{out}");
    assert!(
        out.ends_with(
            "\"offset\":0,\"timestamp\":17,\"key\":\"key\",\"value\":\"x\",\"headers\":[{\"name\":\"a\",\"value\":\"1\"},\
             {\"name\":\"b\",\"value\":null}],\"decoded\":null}\n"
        ),
        "{out}"
    );
    let out = consume(&broker, &["orders", "-p", "0", "--meta"]);
    assert!(out.contains("1970-01-01T00:00:00.017Z"), "{out}");
}

#[test]
fn only_what_is_decided_is_read_unless_told_otherwise() {
    let (broker, mut client) = broker();
    let part = ["orders", "-p", "0"];
    produce_well(
        &broker,
        &[&part[..], &["--txn", "etl", "--abort"]].concat(),
        "no\n",
    );
    produce_well(&broker, &[&part[..], &["--txn", "etl"]].concat(), "yes\n");
    wait_until("all is decided", || {
        client.stable("orders", 0) == client.latest("orders", 0)
    });
    let open = init(&mut client, "open");
    write(&mut client, "open", open, ("orders", 0), 0);
    produce_well(&broker, &part, "plain\n");
    let read = |more: &[&str]| consume(&broker, &[&part[..], more].concat());
    assert_eq!(read(&[]), "yes\n");
    assert_eq!(read(&["--committed"]), "yes\n");
    let all = read(&["--uncommitted", "-f", "%o %v\\n"]);
    assert!(
        all.starts_with("0 no\n2 yes\n4 ") && all.ends_with("5 plain\n"),
        "{all}"
    );
    let states = |more: &[&str]| {
        let out = read(&[more, &["-o", "jsonl"]].concat());
        let rows = out.lines().map(|line| {
            let is = line.split("\"is\":\"").nth(1).expect("a state");
            is.split('"').next().expect("a word").to_owned()
        });
        rows.collect::<Vec<_>>()
    };
    assert_eq!(states(&["--show-aborted"]), ["aborted", "record"]);
    assert_eq!(states(&["--show-markers"]), ["ABORT", "record", "COMMIT"]);
    assert_eq!(states(&["--show-markers", "-n", "1"]), ["ABORT", "record"]);
    let both = tally(
        &broker,
        &["consume", "orders", "--uncommitted", "--show-aborted"],
    );
    assert_eq!(both.code, 2);
}

#[test]
fn what_brokers_keep_is_decoded() {
    let (broker, mut client) = broker();
    client.wait_for_group("readers");
    assert_eq!(client.commit_offset("readers", "orders", 0, 7), 0);
    let out = consume(&broker, &["__consumer_offsets", "-o", "jsonl"]);
    let line = out
        .lines()
        .find(|line| line.contains("readers"))
        .expect("a commit");
    assert!(line.contains("\"decoded\":{\"record\":"), "{line}");
}

#[test]
fn a_group_goes_on_where_it_was() {
    let (broker, mut client) = broker();
    produce_well(&broker, &["orders", "-p", "0"], "a\nb\nc\n");
    let grouped = ["orders", "-g", "readers"];
    assert_eq!(
        consume(&broker, &[&grouped[..], &["-n", "2"]].concat()),
        "a\nb\n"
    );
    assert_eq!(
        client.committed_offset("readers", "orders", 0, false),
        (0, 2)
    );
    assert_eq!(consume(&broker, &grouped), "c\n");
    assert_eq!(consume(&broker, &grouped), "");
    produce_well(&broker, &["orders", "-p", "1"], "d\n");
    assert_eq!(consume(&broker, &grouped), "d\n");
    let out = tally_well(&broker, &["group", "lag", "readers", "-o", "jsonl"]);
    assert_eq!(out.matches("\"lag\":0").count(), 2, "{out}");
    let out = tally_well(&broker, &["group", "describe", "readers"]);
    assert!(
        out.starts_with("readers   classic Empty, 0 members"),
        "it has left: {out}"
    );
}

/// `tally consume --follow`, and what it writes.
pub(crate) struct Follower {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Follower {
    pub(crate) fn start(broker: &Broker, arguments: &[&str]) -> Follower {
        let mut child = Command::new(PROGRAM)
            .args(["consume", "--follow"])
            .args(arguments)
            .args(["-b", broker.address()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tally can be run");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Follower { child, out }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("text");
        line.trim_end().to_owned()
    }

    pub(crate) fn interrupt(mut self) -> i32 {
        let killed = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        assert!(killed.expect("kill can be run").success());
        let status = self.child.wait().expect("it ends");
        status.code().expect("by itself")
    }
}

#[test]
fn following_goes_on_until_it_is_told_to_stop() {
    let (broker, _) = broker();
    produce_well(&broker, &["orders", "-p", "0"], "a\n");
    let mut follower = Follower::start(&broker, &["orders"]);
    assert_eq!(follower.line(), "a");
    produce_well(&broker, &["orders", "-p", "1"], "b\n");
    assert_eq!(follower.line(), "b");
    assert_eq!(follower.interrupt(), 0);
}

#[test]
fn two_members_share_a_topic_and_the_second_takes_over() {
    let (broker, mut client) = broker();
    let grouped = ["orders", "-g", "readers", "-f", "%p %v\\n"];
    let mut first = Follower::start(&broker, &grouped);
    produce_well(&broker, &["orders", "-p", "0"], "a\n");
    assert_eq!(first.line(), "0 a");
    let second = Follower::start(&broker, &grouped);
    let partitions = || {
        let out = tally_well(&broker, &["group", "describe", "readers", "-o", "jsonl"]);
        out.matches("\"partitions\":[{\"topic\":\"orders\",\"partition\":")
            .count()
    };
    wait_until("both have a partition", || partitions() == 2);
    wait_for("what was read is committed", || {
        (client.committed_offset("readers", "orders", 0, false) == (0, 1)).then_some(())
    });
    assert_eq!(first.interrupt(), 0);
    let mut second = second;
    produce_well(&broker, &["orders", "-p", "0"], "b\n");
    assert_eq!(second.line(), "0 b", "nothing is read twice");
    assert_eq!(second.interrupt(), 0);
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let (broker, mut client) = broker();
    let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    produce_well(&broker, &["orders", "-p", "0"], &lines);
    let mut follower = Follower::start(&broker, &["orders", "-g", "readers"]);
    assert_eq!(follower.line(), "line 0");
    let Follower { mut child, out } = follower;
    drop(out);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let (_, committed) = client.committed_offset("readers", "orders", 0, false);
    assert!(
        committed < 20_000,
        "what nobody took is not committed: {committed}"
    );
}

#[test]
fn what_can_not_be_is_refused() {
    let (broker, _) = broker();
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["nothing"],
            6,
            "topic nothing: UNKNOWN_TOPIC_OR_PARTITION (3)",
        ),
        (
            &["orders", "-p", "2"],
            2,
            "topic orders has 2 partitions, 0 to 1: there is no 2",
        ),
        (&["orders", "-p", "x"], 2, "must be numbers and ranges"),
        (
            &["orders", "-o", "soon"],
            2,
            "must be start, end, an offset",
        ),
        (&["orders", "-f", "%v", "-o", "json"], 2, "choose one"),
        (&["orders", "-f", "%q"], 2, "%q is no field"),
    ];
    for (arguments, code, text) in cases {
        let came = tally(&broker, &[&["consume"], arguments].concat());
        assert_eq!(came.code, code, "{arguments:?}: {}", came.err);
        assert!(came.err.contains(text), "{arguments:?}: {}", came.err);
    }
}
