//! `tally group`.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{JoinGroupRequest, SyncGroupRequest};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, group_id, text};
use tally_testkit::waiting::wait_until;

use crate::{init, tally, tally_well, write};

/// `orders` with two partitions: three records in the first; one, a commit marker, and one of an open transaction (`etl-0`)
/// in the second. The group `billing` has committed 1 in both.
fn broker() -> Broker {
    let settings = [
        "group.initial.rebalance.delay.ms=0",
        "offsets.topic.num.partitions=1",
        "node.id=1",
    ];
    let broker = Broker::start(crate::PROGRAM, &settings);
    let mut client = broker.client();
    client.create_topic("orders", 2, &[]);
    client.produce_plain("orders", 0, 3);
    let committed = init(&mut client, "etl-1");
    write(&mut client, "etl-1", committed, ("orders", 1), 0);
    assert_eq!(client.end_txn(4, "etl-1", committed, true).0, 0);
    wait_until("the marker is there", || client.stable("orders", 1) == 2);
    let open = init(&mut client, "etl-0");
    write(&mut client, "etl-0", open, ("orders", 1), 0);
    client.wait_for_coordinators();
    for partition in 0..2 {
        assert_eq!(client.commit_offset("billing", "orders", partition, 1), 0);
    }
    broker
}

/// A member of the group that has both partitions of `orders`; it is one as long as nobody asks for its heartbeat.
fn join(client: &mut Client, group: &str) {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(&[0; 10]));
    let mut request = JoinGroupRequest::default()
        .with_group_id(group_id(group))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let unnamed = client.call(7, &request);
    request.member_id = unnamed.member_id;
    let joined = client.call(7, &request);
    assert_eq!(joined.error_code, 0);
    let assignment = b"\0\0\0\0\0\x01\0\x06orders\0\0\0\x02\0\0\0\0\0\0\0\x01\xff\xff\xff\xff";
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(assignment));
    let request = SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id)
        .with_assignments(vec![assignment]);
    assert_eq!(client.call(3, &request).error_code, 0);
}

#[test]
fn list_shows_groups_and_can_be_narrowed() {
    let broker = broker();
    let out = tally_well(&broker, &["group", "list", "-o", "jsonl"]);
    assert_eq!(
        out,
        "{\"kind\":\"group\",\"group\":\"billing\",\"type\":\"classic\",\"protocol_type\":null,\"state\":\"Empty\",\
         \"coordinator\":1}\n"
    );
    let out = tally_well(&broker, &["group", "list"]);
    assert!(out.starts_with("GROUP    TYPE"), "{out}");
    assert!(!tally_well(&broker, &["group", "list", "-q"]).contains("TYPE"));
    let none = |flag: &str, value: &str| {
        let out = tally_well(&broker, &["group", "list", flag, value]);
        out == "no groups\n"
    };
    assert!(none("--state", "Stable") && !none("--state", "empty"));
    assert!(none("--type", "consumer") && !none("--type", "classic"));
    assert!(none("--prefix", "x") && !none("--prefix", "bill"));
}

#[test]
fn describe_shows_members_and_what_they_have() {
    let broker = broker();
    let mut client = broker.client();
    join(&mut client, "billing");
    let out = tally_well(&broker, &["group", "describe", "billing"]);
    assert!(
        out.starts_with("billing   classic Stable, 1 member, assignor range, coordinator 1\n"),
        "{out}"
    );
    assert!(out.contains("orders:0 orders:1"), "{out}");
    let out = tally_well(&broker, &["group", "describe", "billing", "-o", "jsonl"]);
    assert!(
        out.contains("\"assignor\":\"range\",\"epoch\":null,\"coordinator\":1,\"members\":1}\n"),
        "{out}"
    );
    assert!(
        out.contains("\"client_id\":\"tally-testkit\",\"host\":\"/127.0.0.1\",\"partitions\":[{\"topic\":\"orders\",\"partition\":0},"),
        "{out}"
    );
    let unknown = tally(&broker, &["group", "describe", "nobody"]);
    assert_eq!(unknown.code, 6);
    assert_eq!(
        unknown.err,
        "tally: group nobody: GROUP_ID_NOT_FOUND (69)\n"
    );
}

#[test]
fn lag_names_who_holds_a_group_back() {
    let broker = broker();
    let out = tally_well(&broker, &["group", "lag", "billing"]);
    let words: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(words[1], ["orders:0", "1", "3", "3", "2", "(2)", "-"]);
    assert_eq!(words[2], ["orders:1", "1", "2", "3", "1", "(2)", "etl-0"]);
    let out = tally_well(&broker, &["group", "offsets"]);
    assert!(out.starts_with("GROUP    TOPIC:P"), "{out}");
    let unknown = tally(&broker, &["group", "lag", "nobody"]);
    assert_eq!(unknown.code, 6, "{}", unknown.err);
}

#[test]
fn lag_is_counted_in_records() {
    let broker = broker();
    let out = tally_well(&broker, &["group", "lag", "billing", "--records"]);
    let words: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(words[1], ["orders:0", "1", "3", "3", "2", "(2)", "-"]);
    assert_eq!(words[2][..6], ["orders:1", "1", "2", "3", "0", "(2)"]);
    assert!(
        out.contains("etl-0         1 record in an open transaction, 1 marker, not a record"),
        "{out}"
    );
    let out = tally_well(&broker, &["group", "lag", "--records", "-o", "jsonl"]);
    let last = out.lines().last().expect("a line");
    assert_eq!(
        last,
        "{\"kind\":\"lag\",\"group\":\"billing\",\"topic\":\"orders\",\"partition\":1,\"committed\":1,\"readable_end\":2,\
         \"log_end\":3,\"lag\":1,\"lag_offsets\":2,\"lag_records\":0,\"open_records\":1,\"aborted_records\":0,\"markers\":1,\
         \"pending\":false,\"held_back_by\":[\"etl-0\"]}"
    );
}

#[test]
fn reset_sets_where_a_group_goes_on() {
    let broker = broker();
    let mut client = broker.client();
    let unsure = tally(&broker, &["group", "reset", "billing", "--to", "earliest"]);
    assert_eq!(unsure.code, 2, "{}", unsure.err);
    let out = tally_well(
        &broker,
        &["group", "reset", "billing", "--to", "latest", "--dry-run"],
    );
    assert!(out.contains("would be set"), "{out}");
    assert_eq!(
        client.committed_offset("billing", "orders", 0, false),
        (0, 1)
    );
    let one = ["--topic", "orders:0", "--to", "99", "--yes", "-o", "jsonl"];
    let out = tally_well(
        &broker,
        &[&["group", "reset", "billing"][..], &one].concat(),
    );
    assert_eq!(
        out,
        "{\"kind\":\"reset\",\"group\":\"billing\",\"topic\":\"orders\",\"partition\":0,\"from\":1,\"to\":3,\"done\":true,\
         \"note\":\"the partition ends there\"}\n"
    );
    assert_eq!(
        client.committed_offset("billing", "orders", 0, false),
        (0, 3)
    );
    assert_eq!(
        client.committed_offset("billing", "orders", 1, false),
        (0, 1)
    );
    tally_well(
        &broker,
        &["group", "reset-offsets", "billing", "--to", "@0", "--yes"],
    );
    assert_eq!(
        client.committed_offset("billing", "orders", 1, false),
        (0, 0)
    );
    let fresh = ["group", "reset", "fresh", "--to", "earliest", "--yes"];
    let unknown = tally(&broker, &fresh);
    assert_eq!(unknown.code, 6, "{}", unknown.err);
    assert!(unknown.err.contains("name a --topic"), "{}", unknown.err);
    tally_well(&broker, &[&fresh[..], &["--topic", "orders"]].concat());
    assert_eq!(client.committed_offset("fresh", "orders", 1, false), (0, 0));
    let wrong = tally(
        &broker,
        &["group", "reset", "billing", "--to", "soon", "--yes"],
    );
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    join(&mut client, "billing");
    let live = tally(
        &broker,
        &["group", "reset", "billing", "--to", "0", "--yes"],
    );
    assert_eq!(live.code, 6);
    assert_eq!(
        live.err,
        "tally: group billing has members (1): stop them first: NON_EMPTY_GROUP (68)\n"
    );
}

#[test]
fn delete_removes_groups_and_offsets() {
    let broker = broker();
    let mut client = broker.client();
    assert_eq!(tally(&broker, &["group", "delete", "billing"]).code, 2);
    let out = tally_well(
        &broker,
        &["group", "delete", "billing", "--topic", "orders:1", "--yes"],
    );
    assert!(
        out.contains("orders:1") && !out.contains("orders:0"),
        "{out}"
    );
    assert_eq!(
        client.committed_offset("billing", "orders", 0, false),
        (0, 1)
    );
    assert_eq!(
        client.committed_offset("billing", "orders", 1, false),
        (0, -1)
    );
    join(&mut client, "busy");
    let busy = tally(&broker, &["group", "delete", "busy", "--yes"]);
    assert_eq!(busy.code, 6);
    assert!(
        busy.err.contains("stop them first: NON_EMPTY_GROUP (68)"),
        "{}",
        busy.err
    );
    tally_well(&broker, &["group", "delete", "billing", "--yes"]);
    let gone = tally(&broker, &["group", "delete", "billing", "--yes"]);
    assert_eq!(gone.code, 6);
    assert_eq!(gone.err, "tally: group billing: GROUP_ID_NOT_FOUND (69)\n");
}
