//! `tally txn`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::produce::produce_well;
use crate::{init, tally, tally_well, write};
use kafka_protocol::messages::InitProducerIdRequest;
use tally_testkit::broker::{Broker, is_reference, left_out};
use tally_testkit::client::{Client, Producer, transactional_id};
use tally_testkit::waiting::wait_until;

/// A broker with one open transaction (`etl-0`, on `orders` 1), one that is committed (`etl-1`) and an id that has had none
/// (`billing`).
fn broker() -> (Broker, Producer) {
    let broker = Broker::start(crate::PROGRAM, &["transaction.state.log.num.partitions=2"]);
    let mut client = broker.client();
    client.create_topic("orders", 2, &[]);
    let open = init(&mut client, "etl-0");
    write(&mut client, "etl-0", open, ("orders", 1), 0);
    let committed = init(&mut client, "etl-1");
    write(&mut client, "etl-1", committed, ("orders", 0), 0);
    assert_eq!(client.end_txn(4, "etl-1", committed, true).0, 0);
    init(&mut client, "billing");
    // Kafka answers EndTxn before.
    wait_until("the second one is committed", || {
        tally_well(&broker, &["txn", "list"]).contains("CompleteCommit")
    });
    (broker, open)
}

/// The first words of the lines behind the headings.
fn firsts(out: &str) -> Vec<&str> {
    let lines = out.lines().skip(1);
    lines
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

#[test]
fn list_shows_where_each_id_stands() {
    let (broker, open) = broker();
    let out = tally_well(&broker, &["txn", "list"]);
    let lines: Vec<&str> = out.lines().collect();
    let headings: Vec<&str> = lines[0]
        .split("  ")
        .filter(|word| !word.is_empty())
        .collect();
    let headings: Vec<&str> = headings.iter().map(|word| word.trim()).collect();
    assert_eq!(
        headings,
        [
            "TRANSACTIONAL ID",
            "PRODUCER",
            "STATE",
            "AGE",
            "TIMEOUT",
            "PARTITIONS",
            "CLIENT"
        ]
    );
    assert_eq!(firsts(&out), ["billing", "etl-0", "etl-1"]);
    let words: Vec<&str> = lines[2].split_whitespace().collect();
    let producer = open.id.to_string();
    assert_eq!(words[..4], ["etl-0", &producer, "e0", "Ongoing"]);
    // Who has it only Tally says.
    let client = match is_reference() {
        true => &["-", "1"][..],
        false => &["127.0.0.1", "tally-testkit", "1"],
    };
    let tail: Vec<&str> = words.iter().rev().take(client.len()).copied().collect();
    assert_eq!(tail, client, "{}", lines[2]);
    assert!(
        lines[1].contains("Empty") && lines[3].contains("CompleteCommit"),
        "{out}"
    );
}

#[test]
fn list_can_be_narrowed() {
    let (broker, open) = broker();
    let listed = |arguments: &[&str]| {
        let out = tally_well(&broker, &[&["txn", "list"], arguments].concat());
        let firsts: Vec<String> = firsts(&out).into_iter().map(str::to_owned).collect();
        firsts
    };
    assert_eq!(listed(&["--state", "Ongoing"]), ["etl-0"]);
    assert_eq!(
        listed(&["--state", "Ongoing", "--state", "Empty"]),
        ["billing", "etl-0"]
    );
    assert_eq!(listed(&["--prefix", "etl-"]), ["etl-0", "etl-1"]);
    assert_eq!(listed(&["--producer", &open.id.to_string()]), ["etl-0"]);
    assert!(!listed(&["--older", "1h"]).contains(&"etl-0".to_owned()));
    let refused = tally(&broker, &["txn", "list", "--state", "Nonsense"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.err.contains("Nonsense is not a state"),
        "{}",
        refused.err
    );
}

#[test]
fn programs_get_json_with_stable_keys() {
    let (broker, open) = broker();
    let out = tally_well(
        &broker,
        &["txn", "list", "--state", "Ongoing", "-o", "jsonl"],
    );
    let line = out.trim_end();
    assert!(!line.contains('\n'), "{out}");
    let begin = format!(
        "{{\"kind\":\"transaction\",\"transactional_id\":\"etl-0\",\"producer_id\":{},\"producer_epoch\":0,\
         \"state\":\"Ongoing\",\"started_ms\":",
        open.id
    );
    assert!(line.starts_with(&begin), "{line}");
    let end = "\"timeout_ms\":60000,\"partitions\":[{\"topic\":\"orders\",\"partition\":1}],";
    let client = match is_reference() {
        true => "\"client_id\":null,\"client_software\":null,\"client_address\":null}",
        false => {
            "\"client_id\":\"tally-testkit\",\"client_software\":null,\"client_address\":\"127.0.0.1:"
        }
    };
    assert!(line.contains(&format!("{end}{client}")), "{line}");
    let out = tally_well(
        &broker,
        &["txn", "list", "--prefix", "nobody", "-o", "json"],
    );
    assert_eq!(out.split_whitespace().collect::<String>(), "[]");
}

#[test]
fn describe_shows_an_id_in_full() {
    let (broker, open) = broker();
    let out = tally_well(&broker, &["txn", "describe", "etl-0", "billing"]);
    assert!(out.contains("state       Ongoing (open for "), "{out}");
    assert!(
        out.contains(&format!("producer    {}, epoch 0\n", open.id)),
        "{out}"
    );
    assert!(out.contains("partition   orders:1\n"), "{out}");
    assert!(
        out.contains("billing\n  state       Empty (no transaction is open)"),
        "{out}"
    );
    let unknown = tally(&broker, &["txn", "describe", "nobody"]);
    assert_eq!(unknown.code, 6);
    assert_eq!(
        unknown.err,
        "tally: nobody: TRANSACTIONAL_ID_NOT_FOUND (105)\n"
    );
}

#[test]
fn producers_shows_what_partitions_remember() {
    let (broker, open) = broker();
    let out = tally_well(&broker, &["txn", "producers", "orders"]);
    assert_eq!(firsts(&out), ["orders:0", "orders:1"]);
    let out = tally_well(&broker, &["txn", "producers", "orders:1", "-o", "jsonl"]);
    let begin = format!(
        "{{\"kind\":\"producer\",\"topic\":\"orders\",\"partition\":1,\"producer_id\":{},\"producer_epoch\":0,\
         \"last_sequence\":0,",
        open.id
    );
    assert!(out.starts_with(&begin), "{out}");
    assert!(out.trim_end().ends_with("\"open_from\":0}"), "{out}");
    let unknown = tally(&broker, &["txn", "producers", "nothing"]);
    assert_eq!(unknown.code, 6);
    assert_eq!(
        unknown.err,
        "tally: topic nothing: UNKNOWN_TOPIC_OR_PARTITION (3)\n"
    );
}

/// What the coordinator still has open is not hanging: it will be ended.
#[test]
fn hanging_leaves_alone_what_a_coordinator_has_open() {
    let (broker, _) = broker();
    assert_eq!(
        tally_well(&broker, &["txn", "hanging"]),
        "no hanging transactions\n"
    );
    let out = tally_well(&broker, &["txn", "find-hanging", "orders", "-o", "jsonl"]);
    assert_eq!(out, "");
}

#[test]
fn abort_ends_a_transaction_and_fences_its_producer() {
    let (broker, open) = broker();
    let unsure = tally(&broker, &["txn", "abort", "etl-0"]);
    assert_eq!(unsure.code, 2);
    assert!(unsure.err.contains("--yes"), "{}", unsure.err);
    let out = tally_well(&broker, &["txn", "abort", "etl-0", "--dry-run"]);
    assert!(out.contains("would be aborted"), "{out}");
    assert_eq!(
        firsts(&tally_well(&broker, &["txn", "list", "--state", "Ongoing"])),
        ["etl-0"]
    );
    let out = tally_well(
        &broker,
        &["txn", "abort", "--prefix", "etl-", "--yes", "-o", "jsonl"],
    );
    assert_eq!(
        out,
        "{\"kind\":\"aborted\",\"transactional_id\":\"etl-0\",\"state_before\":\"Ongoing\",\"done\":true}\n"
    );
    let listed = tally_well(&broker, &["txn", "list", "--state", "Ongoing"]);
    assert_eq!(listed, "no transactional ids\n");
    for (flag, expected) in [
        ("--dry-run", "nothing is open, its producer would be fenced"),
        ("--yes", "nothing was open, its producer is fenced"),
    ] {
        let out = tally_well(&broker, &["txn", "abort", "etl-1", flag]);
        assert!(out.contains(expected), "{out}");
    }
    let mut client = broker.client();
    assert_eq!(client.end_txn(4, "etl-0", open, true).0, 90);
    assert_eq!(client.stable("orders", 1), client.latest("orders", 1));
}

#[test]
fn abort_writes_the_marker_that_nobody_writes() {
    let (broker, open) = broker();
    let (pid, epoch) = (open.id.to_string(), open.epoch.to_string());
    let marker = |partition: &str, flag: &str| {
        let place = ["--partition", partition, flag];
        let producer = ["txn", "abort", "--pid", &pid, "--epoch", &epoch];
        tally(&broker, &[&producer[..], &place[..]].concat())
    };
    let elsewhere = marker("orders:0", "--yes");
    assert_eq!(elsewhere.code, 6, "{}", elsewhere.err);
    assert!(
        elsewhere
            .err
            .contains("has no transaction open on orders:0"),
        "{}",
        elsewhere.err
    );
    assert_eq!(marker("orders", "--yes").code, 2);
    assert_eq!(marker("orders:1", "--dry-run").code, 0);
    let mut client = broker.client();
    assert_eq!(client.stable("orders", 1), 0, "still open");
    assert_eq!(marker("orders:1", "--yes").code, 0);
    assert_eq!(client.stable("orders", 1), 2);
}

#[test]
fn why_names_what_holds_back_a_partition() {
    let (broker, open) = broker();
    let out = tally_well(&broker, &["txn", "why", "orders:1"]);
    let mut lines = out.lines();
    assert_eq!(
        lines.next(),
        Some("orders:1: readable to 0, written to 1: 1 offsets are held back.")
    );
    let cause = lines.next().expect("a cause");
    let begin = format!(
        "Cause   transaction etl-0 (producer {}, epoch 0) has been open since ",
        open.id
    );
    assert!(cause.starts_with(&begin), "{cause}");
    assert!(
        cause.contains(" UTC (") && cause.ends_with(" s), here from 0 on. State: Ongoing."),
        "{cause}"
    );
    assert!(out.contains("Next    it ends by itself in "), "{out}");
    assert!(out.contains("(transaction.timeout.ms=60000)"), "{out}");
    assert!(out.contains("Now     tally txn abort etl-0 --yes"), "{out}");
    let client = "Client  client.id tally-testkit, 127.0.0.1:";
    assert_eq!(out.contains(client), !is_reference(), "{out}");
    let other = tally_well(&broker, &["txn", "why", "orders:0"]);
    assert_eq!(other, "orders:0: all of it is readable, to 2.\n");
    let both = tally_well(&broker, &["txn", "why", "orders", "-o", "jsonl"]);
    let begin = "{\"kind\":\"cause\",\"topic\":\"orders\",\"partition\":1,\"readable_to\":0,\"written_to\":1,\"held_back\":1,\"open_from\":0,";
    assert!(
        both.starts_with(begin) && both.lines().count() == 1,
        "{both}"
    );
    assert!(
        both.contains("\"transactional_id\":\"etl-0\",\"state\":\"Ongoing\""),
        "{both}"
    );
}

/// user-experience.md section 4: who stopped speaking, and who went away.
#[test]
fn why_says_when_the_owner_was_heard_of_last() {
    if is_reference() {
        return left_out("Only Tally says.");
    }
    let broker = Broker::start(crate::PROGRAM, &[]);
    let mut watching = broker.client();
    watching.create_topic("orders", 1, &[]);
    let mut client = broker.client();
    let open = init(&mut client, "etl-0");
    write(&mut client, "etl-0", open, ("orders", 0), 0);
    let asked = || tally_well(&broker, &["txn", "why", "orders:0"]);
    let there = |out: &str| out.contains(", last heard of ") && out.contains(" ago.");
    let out = asked();
    assert!(there(&out) && !out.contains("connection closed"), "{out}");
    let rows = tally_well(&broker, &["txn", "why", "orders:0", "-o", "jsonl"]);
    assert!(rows.contains("\"owner_heard_ago_ms\":"), "{rows}");
    assert!(rows.contains("\"owner_gone_ago_ms\":null"), "{rows}");
    drop(client);
    wait_until("it is gone", || {
        asked().contains(" ago; connection closed ")
    });
    let rows = tally_well(&broker, &["txn", "why", "etl-0", "-o", "jsonl"]);
    assert!(!rows.contains("\"owner_gone_ago_ms\":null"), "{rows}");
}

#[test]
fn why_says_what_happened_to_an_id() {
    if is_reference() {
        return left_out("Only Tally says.");
    }
    let broker = Broker::start(
        crate::PROGRAM,
        &["transaction.abort.timed.out.transaction.cleanup.interval.ms=10"],
    );
    let mut client = broker.client();
    client.create_topic("orders", 1, &[]);
    let fenced = init(&mut client, "etl-0");
    let out = tally_well(&broker, &["txn", "why", "etl-0"]);
    assert!(out.starts_with("etl-0: nothing is noted"), "{out}");
    write(&mut client, "etl-0", fenced, ("orders", 0), 0);
    tally_well(&broker, &["txn", "abort", "etl-0", "--yes"]);
    let out = tally_well(&broker, &["txn", "why", "etl-0"]);
    let newer =
        "ago: a newer instance called InitProducerId while a transaction was open (producer ";
    assert!(
        out.starts_with("etl-0: it was fenced ") && out.contains(newer),
        "{out}"
    );
    assert!(
        out.contains("Code    W2102, also in the broker's log"),
        "{out}"
    );
    assert!(out.contains("Owner   client.id tally, 127.0.0.1:"), "{out}");
    assert!(out.contains("give each its own transactional.id"), "{out}");
    let out = tally_well(&broker, &["txn", "why", "etl-0", "-o", "jsonl"]);
    assert!(
        out.contains("\"state\":\"Empty\",\"reason\":\"W2102 txn.fenced\",\"at_ms\":"),
        "{out}"
    );
    assert!(out.contains("\"owner_client_id\":\"tally\""), "{out}");

    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id("slow")))
        .with_transaction_timeout_ms(1);
    let (_, slow) = client.init_producer_id(5, &request);
    assert_eq!(
        client.add_partitions(3, "slow", slow, &[("orders", 0)]),
        [0]
    );
    wait_until("the transaction has timed out", || {
        tally_well(&broker, &["txn", "why", "slow"]).contains("W2101")
    });
    let out = tally_well(&broker, &["txn", "why", "slow"]);
    assert!(out.contains("open for longer than its timeout"), "{out}");
}

#[test]
fn why_names_what_a_groups_offsets_wait_for() {
    let (broker, open) = broker();
    let mut client = broker.client();
    client.wait_for_coordinators();
    if is_reference() {
        // Of offsets that wait Kafka lists those alone that have been committed before.
        assert_eq!(client.commit_offset("readers", "orders", 0, 3), 0);
    }
    assert_eq!(client.add_offsets(3, "etl-0", open, "readers"), 0);
    let request = Client::txn_offset_commit_request("etl-0", open, "readers", &[("orders", 0, 7)]);
    assert_eq!(client.txn_offset_commit(3, &request), [0]);
    let out = tally_well(&broker, &["txn", "why", "readers"]);
    let begin = "readers: the offsets of orders:0 wait for the end of a transaction.\nCause   transaction etl-0 ";
    assert!(out.starts_with(begin), "{out}");
    assert!(out.contains("It also holds: orders:1 from 0."), "{out}");
    assert_eq!(client.end_txn(4, "etl-0", open, true).0, 0);
    if is_reference() {
        wait_until("the marker, which Kafka writes later", || {
            client.committed_offset("readers", "orders", 0, true) == (0, 7)
        });
    }
    let out = tally_well(&broker, &["txn", "why", "readers"]);
    assert_eq!(out, "readers: no offset waits for a transaction.\n");
    let unknown = tally(&broker, &["txn", "why", "nobody"]);
    assert_eq!(unknown.code, 6);
    assert!(
        unknown
            .err
            .contains("nobody is no topic, no transactional id and no group"),
        "{}",
        unknown.err
    );
}

/// Of a client that says what it is: ours.
#[test]
fn list_names_the_software_of_who_has_the_id() {
    if is_reference() {
        return left_out("Only Tally says.");
    }
    let (broker, _) = broker();
    produce_well(&broker, &["orders", "-p", "0", "--txn", "loader"], "x\n");
    let out = tally_well(&broker, &["txn", "list", "--prefix", "loader"]);
    let software = format!("tally {}  127.0.0.1", env!("CARGO_PKG_VERSION"));
    assert!(out.contains(&software), "{out}");
    let out = tally_well(&broker, &["txn", "why", "loader", "-o", "jsonl"]);
    assert!(
        out.contains("\"owner_client_id\":\"tally\",\"owner_software\":\"tally "),
        "{out}"
    );
}

/// It goes on as long as something is open, and ends with it.
#[test]
fn why_can_be_watched_until_nothing_is_open() {
    let (broker, open) = broker();
    let mut watch = Command::new(crate::PROGRAM)
        .args(["txn", "why", "orders:1", "--watch", "-b", broker.address()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("tally can be run");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut next = |begin: &str| {
        let mut lines = lines.by_ref().map(|line| line.expect("text"));
        assert!(lines.any(|line| line.starts_with(begin)), "{begin}");
    };
    next("Cause   transaction etl-0");
    next("orders:1: readable to 0");
    let mut client = broker.client();
    assert_eq!(client.end_txn(4, "etl-0", open, true).0, 0);
    next("orders:1: all of it is readable, to 2.");
    assert_eq!(watch.wait().expect("it ends").code(), Some(0));
    let well = tally_well(&broker, &["txn", "why", "etl-1", "--watch"]);
    assert!(well.starts_with("etl-1: nothing is noted"), "{well}");
}
