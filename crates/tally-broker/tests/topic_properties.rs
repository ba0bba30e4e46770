//! What a topic can be told is done, or it is said that it is not: each property of the table that is `honoured` has a test that
//! sets it and sees what it does. This one keeps the list of them whole; what is not honoured is said in the broker's log (W2301,
//! `topic_properties` of the tests of `tally serve`) and in `docs/configuration.md`, which is made from the same table.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tally_broker::config::properties::TOPIC;
use tally_broker::config::property::Status;

/// Honoured properties, and a test of `crates/tally/tests/` that sets each at a broker.
const PROOFS: &[(&str, &str)] = &[
    (
        "cleanup.policy",
        "log/compaction.rs readers_and_all_that_removes_segments_get_along",
    ),
    (
        "compression.type",
        "log/configs.rs l86_a_topics_bad_settings_are_refused_whole",
    ),
    (
        "delete.retention.ms",
        "log/compaction.rs l35_the_last_value_stays_and_a_deletion_until_its_time_has_come",
    ),
    (
        "flush.messages",
        "durability/flush.rs lr55_flush_messages_and_flush_ms_have_logs_synced",
    ),
    (
        "flush.ms",
        "durability/flush.rs lr55_flush_messages_and_flush_ms_have_logs_synced",
    ),
    (
        "index.interval.bytes",
        "log/segments.rs l20_segments_close_when_their_index_is_full",
    ),
    (
        "internal.segment.bytes",
        "log/segments.rs l20_segments_close_by_size_and_begin_at_the_next_offset",
    ),
    (
        "max.compaction.lag.ms",
        "log/compaction.rs l38_compaction_comes_neither_too_early_nor_too_late",
    ),
    ("max.message.bytes", "log/produce.rs l06_the_largest_batch"),
    (
        "message.timestamp.after.max.ms",
        "log/produce.rs l08_timestamps_have_bounds",
    ),
    (
        "message.timestamp.before.max.ms",
        "log/produce.rs l08_timestamps_have_bounds",
    ),
    (
        "message.timestamp.type",
        "log/produce.rs l09_the_brokers_timestamp",
    ),
    (
        "min.cleanable.dirty.ratio",
        "log/compaction.rs l38_compaction_comes_neither_too_early_nor_too_late",
    ),
    (
        "min.compaction.lag.ms",
        "log/compaction.rs l38_compaction_comes_neither_too_early_nor_too_late",
    ),
    (
        "min.insync.replicas",
        "log/produce.rs l12_two_in_sync_replicas_are_not_asked_of_one_node",
    ),
    (
        "retention.bytes",
        "log/retention.rs l27_by_size_the_newest_stay",
    ),
    (
        "retention.ms",
        "log/retention.rs l26_lr61_old_records_go_and_an_idle_partition_becomes_empty",
    ),
    (
        "segment.bytes",
        "exactly_once/log.rs x177_a_transaction_over_three_segments",
    ),
    (
        "segment.index.bytes",
        "log/segments.rs l20_segments_close_when_their_index_is_full",
    ),
    (
        "segment.jitter.ms",
        "log/segments.rs lr50_jitter_closes_segments_earlier_than_their_span",
    ),
    (
        "segment.ms",
        "log/segments.rs l20_segments_close_by_the_time_of_their_records",
    ),
];

/// The text of a test, from its name to the line that ends it.
#[track_caller]
fn body(source: &str, name: &str) -> String {
    let begin = format!("fn {name}(");
    let from = source
        .find(&begin)
        .unwrap_or_else(|| panic!("there is no test {name}"));
    let text = &source[from..];
    let end = text.find("\n}").expect("a function ends");
    text[..end].to_owned()
}

#[test]
fn every_honoured_property_of_a_topic_has_a_test_that_sets_it() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tally/tests");
    let honoured: BTreeSet<&str> = TOPIC
        .iter()
        .filter(|row| row.status == Status::Honoured)
        .map(|row| row.name)
        .collect();
    let proved: BTreeSet<&str> = PROOFS.iter().map(|(property, _)| *property).collect();
    assert_eq!(honoured, proved);
    for (property, test) in PROOFS {
        let (file, name) = test.split_once(' ').expect("FILE NAME");
        let source = fs::read_to_string(tests.join(file)).expect("the file is there");
        assert!(
            body(&source, name).contains(&format!("\"{property}\"")),
            "{name} does not set {property}"
        );
    }
}
