//! `tally topic`.

use crate::{PROGRAM, tally, tally_well};
use tally_testkit::broker::{Broker, is_reference};
use tally_testkit::waiting::wait_until;

#[test]
fn topics_are_made_listed_and_removed() {
    let broker = Broker::start(PROGRAM, &["num.partitions=4"]);
    assert_eq!(tally_well(&broker, &["topic", "list"]), "no topics\n");
    let out = tally_well(
        &broker,
        &[
            "topic",
            "create",
            "orders",
            "-p",
            "3",
            "--config",
            "retention.ms=7000",
        ],
    );
    assert!(out.ends_with("orders  3           created\n"), "{out}");
    let out = tally_well(&broker, &["topic", "create", "audit", "-o", "jsonl"]);
    assert_eq!(
        out,
        "{\"kind\":\"created\",\"topic\":\"audit\",\"partitions\":4,\"created\":true}\n"
    );

    let again = tally(&broker, &["topic", "create", "orders"]);
    assert_eq!(again.code, 6);
    assert!(
        again.err.contains("TOPIC_ALREADY_EXISTS (36)"),
        "{}",
        again.err
    );
    let out = tally_well(
        &broker,
        &[
            "topic",
            "create",
            "orders",
            "--if-not-exists",
            "-o",
            "jsonl",
        ],
    );
    assert_eq!(
        out,
        "{\"kind\":\"created\",\"topic\":\"orders\",\"partitions\":null,\"created\":false}\n"
    );
    let wrong = tally(
        &broker,
        &["topic", "create", "x", "--config", "retention.ms=soon"],
    );
    assert_eq!(wrong.code, 6);
    assert!(wrong.err.contains("INVALID_CONFIG (40)"), "{}", wrong.err);

    // Kafka's metadata come a moment after CreateTopics.
    wait_until("both are listed", || {
        let out = tally_well(&broker, &["topic", "list"]);
        let firsts = out.lines().filter_map(|line| line.split(' ').next());
        let names: Vec<&str> = firsts.collect();
        names == ["TOPIC", "audit", "orders"]
    });
    let out = tally_well(&broker, &["topic", "list", "--internal", "-o", "jsonl"]);
    // Kafka makes it when somebody needs it.
    let has_offsets = out.contains("\"topic\":\"__consumer_offsets\"");
    assert!(has_offsets || is_reference(), "{out}");

    assert_eq!(tally(&broker, &["topic", "delete", "audit"]).code, 2);
    tally_well(&broker, &["topic", "delete", "audit", "--yes"]);
    // And Kafka's are without it a moment after DeleteTopics.
    wait_until("it is gone", || {
        let gone = tally(&broker, &["topic", "describe", "audit"]);
        gone.code == 6 && gone.err == "tally: topic audit: UNKNOWN_TOPIC_OR_PARTITION (3)\n"
    });
}

#[test]
fn a_topic_is_shown_and_changed() {
    let broker = Broker::start(PROGRAM, &["node.id=1"]);
    let mut client = broker.client();
    client.create_topic("orders", 1, &[("retention.ms", "7000")]);
    client.produce_plain("orders", 0, 5);
    let out = tally_well(&broker, &["topic", "describe", "orders"]);
    assert!(
        out.starts_with("orders   1 partitions, id ") && out.contains("\n  retention.ms=7000\n"),
        "{out}"
    );
    let change = [
        "--config",
        "cleanup.policy=compact",
        "--unset",
        "retention.ms",
        "-p",
        "2",
    ];
    tally_well(
        &broker,
        &[&["topic", "alter", "orders"][..], &change].concat(),
    );
    // Kafka's broker knows of each change a moment after the answer, and leads the new partition later still.
    client.wait_for_topic("orders", 2);
    let describe = ["topic", "describe", "orders", "-o", "jsonl"];
    wait_until("both changes are there", || {
        let came = tally(&broker, &describe);
        came.code == 0 && came.out.contains("compact") && !came.out.contains("retention.ms")
    });
    let out = tally_well(&broker, &describe);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].contains("\"partitions\":2,"), "{out}");
    let settings = "\"settings\":[{\"name\":\"cleanup.policy\",\"value\":\"compact\"}]}";
    assert!(lines[0].ends_with(settings), "{out}");
    assert_eq!(
        lines[1..],
        [
            "{\"kind\":\"partition\",\"partition\":0,\"leader\":1,\"begin\":0,\"readable_to\":5,\"end\":5}",
            "{\"kind\":\"partition\",\"partition\":1,\"leader\":1,\"begin\":0,\"readable_to\":0,\"end\":0}",
        ]
    );
    assert_eq!(tally(&broker, &["topic", "alter", "orders"]).code, 2);
    let fewer = tally(&broker, &["topic", "alter", "orders", "-p", "1"]);
    assert_eq!(fewer.code, 6);
    assert!(
        fewer.err.contains("INVALID_PARTITIONS (37)"),
        "{}",
        fewer.err
    );
}

#[test]
fn records_are_removed_from_the_beginning() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut client = broker.client();
    client.create_topic("orders", 2, &[]);
    for partition in 0..2 {
        client.produce_plain("orders", partition, 5);
    }
    let trim = ["topic", "trim", "orders:0", "--before", "3"];
    assert_eq!(tally(&broker, &trim).code, 2, "not without --yes");
    let out = tally_well(&broker, &[&trim[..], &["--yes", "-o", "jsonl"]].concat());
    assert_eq!(
        out,
        "{\"kind\":\"trimmed\",\"topic\":\"orders\",\"partition\":0,\"begin\":3}\n"
    );
    let out = tally_well(
        &broker,
        &[
            "topic", "trim", "orders:1", "--before", "7d", "--yes", "-o", "tsv",
        ],
    );
    assert!(
        out.ends_with("trimmed\torders\t1\t0\n"),
        "nothing is that old: {out}"
    );
    let beyond = tally(
        &broker,
        &["topic", "trim", "orders:0", "--before", "9", "--yes"],
    );
    assert_eq!(beyond.code, 6);
    assert_eq!(
        beyond.err,
        "tally: orders:0 ends at 5: there is no offset 9 to remove to (tally topic purge removes all): OFFSET_OUT_OF_RANGE (1)\n"
    );
    for command in [
        &["topic", "purge", "orders:2", "--yes"][..],
        &["txn", "producers", "orders:2"],
    ] {
        let none = tally(&broker, command);
        assert_eq!(none.code, 6);
        let expected = "tally: topic orders has 2 partitions, 0 to 1: there is no orders:2\n";
        assert_eq!(none.err, expected);
    }
    assert!(
        beyond.err.contains("OFFSET_OUT_OF_RANGE (1)"),
        "{}",
        beyond.err
    );
    assert_eq!(
        tally(
            &broker,
            &["topic", "trim", "orders", "--before", "x", "--yes"]
        )
        .code,
        2
    );
    let out = tally_well(&broker, &["topic", "purge", "orders", "--yes"]);
    assert!(out.ends_with("orders:0   5\norders:1   5\n"), "{out}");
    let compacted = ["topic", "create", "table", "--config"];
    tally_well(
        &broker,
        &[&compacted[..], &["cleanup.policy=compact"]].concat(),
    );
    let refused = tally(&broker, &["topic", "purge", "table", "--yes"]);
    let expected = "tally: records of table:0 can't be removed: the cleanup.policy of table has no delete: POLICY_VIOLATION (44)\n";
    assert_eq!((refused.code, refused.err.as_str()), (6, expected));
}
