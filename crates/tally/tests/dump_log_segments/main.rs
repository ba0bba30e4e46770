//! Apache Kafka's own DumpLogSegments reads the files that the broker wrote, and says of them what was written.
//!
//! The tool comes from Maven Central: `scripts/dump-log-segments` fetches it and names the jars in
//! `TALLY_TEST_KAFKA_CLASSES`. Without that the test says so and is counted as skipped. Snapshots of producers are Tally's own and no
//! file of that tool's.

mod dumped;
mod writer;

use dumped::{Dumped, Shown};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tally_testkit::batches::{Batch, Codec};
use tally_testkit::broker::{Broker, is_reference, offset_file, offsets_of_files};
use tally_testkit::client::Client;
use writer::{COMPACTED, Line, Row, TOPIC, Writer};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");
const CLASSES: &str = "TALLY_TEST_KAFKA_CLASSES";
/// The files of a segment that Kafka has too.
const KINDS: [&str; 4] = ["log", "index", "timeindex", "txnindex"];

/// The jars of DumpLogSegments; says past the capture of the test program that a test is skipped, where `scripts/test`
/// counts it.
fn classes(test: &str) -> Option<String> {
    let classes = std::env::var(CLASSES).ok();
    if classes.is_none() {
        assert!(
            std::env::var_os("TALLY_TEST_NO_SKIP").is_none(),
            "{CLASSES} is not set: see scripts/dump-log-segments"
        );
        let reason = format!("{CLASSES} is not set: see scripts/dump-log-segments");
        writeln!(std::io::stderr(), "skipped: {test}: {reason}").expect("standard error");
    }
    classes
}

/// Runs the tool over files; its exit code is no part of what it says.
#[track_caller]
fn run(classes: &str, decoder: Option<&str>, files: &[PathBuf]) -> Dumped {
    let names: Vec<&str> = files.iter().filter_map(|file| file.to_str()).collect();
    let output = Command::new("java")
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx128m"])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .args(["-cp", classes, "org.apache.kafka.tools.DumpLogSegments"])
        .args(["--deep-iteration", "--print-data-log"])
        .args(decoder)
        .args(["--files", &names.join(",")])
        .output()
        .expect("java can be run");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Dumped {
        is_well: output.status.success(),
        text: text(output.stdout),
        errors: text(output.stderr),
    }
}

/// All files of a partition that Kafka knows, a segment's side by side.
#[track_caller]
fn files(partition: &Path) -> Vec<PathBuf> {
    let bases = offsets_of_files(partition, "log");
    let all = bases
        .iter()
        .flat_map(|base| KINDS.map(|kind| offset_file(partition, *base, kind)));
    all.filter(|path| path.exists()).collect()
}

/// A broker that wrote all kinds of batches into small segments, and what they are.
fn written() -> (Broker, Writer) {
    let broker = Broker::start(
        PROGRAM,
        &[
            "transaction.state.log.num.partitions=1",
            "offsets.topic.num.partitions=1",
            "log.cleaner.backoff.ms=50",
        ],
    );
    let mut writer = Writer::new(broker.client());
    for codec in [
        Codec::None,
        Codec::Gzip,
        Codec::SnappyRaw,
        Codec::SnappyFramed,
        Codec::Lz4,
        Codec::Zstd,
    ] {
        writer.send(None, 9, Batch::plain(3).compressed(codec));
    }
    let idempotent = writer.client.idempotent_producer();
    for nth in 0..4 {
        let batch = Batch::idempotent(idempotent.id, idempotent.epoch, nth * 2, 2);
        writer.send(None, 9, batch);
    }
    writer.transactions();
    assert_eq!(writer.client.commit_offset("others", TOPIC, 0, 5), 0);
    writer.join("members");
    writer.compact();
    (broker, writer)
}

#[test]
fn kafkas_own_dump_reads_what_was_written() {
    let Some(classes) = classes("kafkas_own_dump_reads_what_was_written") else {
        return;
    };
    let (mut broker, mut writer) = written();
    let partition = broker.partition(&mut writer.client, TOPIC, 0);
    let internal = |client: &mut Client, topic| files(&broker.partition(client, topic, 0));
    let offsets = internal(&mut writer.client, "__consumer_offsets");
    let states = internal(&mut writer.client, "__transaction_state");
    let compacted = broker.partition(&mut writer.client, COMPACTED, 0);
    // What a killed broker leaves: indexes with room behind their last entries.
    broker.kill();
    check(
        &run(&classes, None, &files(&partition)),
        &partition,
        &writer,
    );
    broker.start_again();
    assert!(broker.stop() || is_reference(), "stopped clean");
    check(
        &run(&classes, None, &files(&partition)),
        &partition,
        &writer,
    );
    check_compacted(
        &run(&classes, None, &files(&compacted)),
        &compacted,
        &writer,
    );
    check_offsets(&run(&classes, Some("--offsets-decoder"), &offsets));
    check_states(&run(&classes, Some("--transaction-log-decoder"), &states));
    check_that_damage_shows(&classes, &partition);
}

/// Compares what the tool says of a partition with what was written into it.
#[track_caller]
fn check(dumped: &Dumped, partition: &Path, writer: &Writer) {
    assert_eq!(dumped.complaints(), [""; 0], "{}", dumped.text);
    let bases = offsets_of_files(partition, "log");
    assert!(bases.len() > 3, "segments were closed: {bases:?}");
    let found = collect(dumped, partition);
    let begins = |base: &i64| found.shown.iter().any(|batch| batch.base == *base);
    assert!(bases.iter().all(begins), "{bases:?}");
    let shown: Vec<_> = found.shown.iter().map(Shown::content).collect();
    assert_eq!(shown, writer.batches, "{}", dumped.text);
    assert_eq!(found.records, writer.records, "{}", dumped.text);
    assert_eq!(found.rows, writer.aborted, "{}", dumped.text);
    let Found { indexed, timed, .. } = found;
    assert!(indexed > 5 && timed > 5, "{indexed} and {timed} entries");
}

/// What the tool says of all segments of a partition.
#[derive(Default)]
struct Found {
    shown: Vec<Shown>,
    records: Vec<Line>,
    rows: Vec<Row>,
    indexed: usize,
    timed: usize,
}

/// Takes its words together, and compares each entry of an index with the batch that it leads to.
#[track_caller]
fn collect(dumped: &Dumped, partition: &Path) -> Found {
    let mut found = Found::default();
    for base in offsets_of_files(partition, "log") {
        let section = |kind| dumped.section(&offset_file(partition, base, kind));
        let batches = section("log").batches();
        found.records.extend(section("log").records());
        for (offset, position) in section("index").pairs("offset", "position") {
            found.indexed += 1;
            let is_there = |batch: &&Shown| batch.position == position;
            let batch = batches.iter().find(is_there).expect("a batch is there");
            assert_eq!(batch.last, offset);
        }
        for (timestamp, offset) in section("timeindex").pairs("timestamp", "offset") {
            // The tool shows the room behind the last entry as an entry without a timestamp at the segment's beginning.
            if (timestamp, offset) == (0, base) {
                continue;
            }
            found.timed += 1;
            let is_there = |batch: &&Shown| batch.last == offset;
            let batch = batches.iter().find(is_there).expect("a batch is there");
            assert_eq!(batch.timestamp, timestamp);
        }
        found.rows.extend(section("txnindex").rows());
        found.shown.extend(batches);
    }
    found
}

/// Of a compacted log the tool finds fault with the gaps alone; the newest record of each key is there, others are gone.
#[track_caller]
fn check_compacted(dumped: &Dumped, partition: &Path, writer: &Writer) {
    let gaps = |line: &&str| line.starts_with("Non-consecutive offsets") || line.starts_with("  ");
    let complaints = dumped.complaints();
    let others: Vec<_> = complaints.iter().filter(|line| !gaps(line)).collect();
    assert_eq!(others, [&""; 0], "{}", dumped.text);
    assert!(complaints.len() > others.len(), "gaps: {}", dumped.text);
    let found = collect(dumped, partition);
    let newest = |records: &[Line]| -> BTreeMap<String, Line> {
        let by_key = records.iter().map(|line| (line.key.clone(), line.clone()));
        by_key.collect()
    };
    let left = found.records;
    assert_eq!(newest(&left), newest(&writer.compacted), "{}", dumped.text);
    assert!(left.len() < writer.compacted.len(), "{}", dumped.text);
    assert!(left.iter().all(|line| writer.compacted.contains(line)));
}

/// The decoder of `__consumer_offsets` knows every record, and says what was committed and who is in the group.
#[track_caller]
fn check_offsets(dumped: &Dumped) {
    assert_eq!(dumped.complaints(), [""; 0], "{}", dumped.text);
    let says = |group: &str, offset: i64| {
        let key = format!("{{\"group\":\"{group}\",\"topic\":\"{TOPIC}\",\"partition\":0}}");
        let value = format!("\"data\":{{\"offset\":{offset},\"leaderEpoch\":-1,");
        let mut lines = dumped.text.lines();
        lines.any(|line| line.contains(&key) && line.contains(&value))
    };
    assert!(says("others", 5), "{}", dumped.text);
    for nth in 0..6 {
        assert!(says("readers", nth), "offset {nth}: {}", dumped.text);
    }
    let group = "{\"type\":\"2\",\"data\":{\"group\":\"members\"}}";
    let mut lines = dumped.text.lines();
    let is_member =
        |line: &str| line.contains(group) && line.contains("\"protocolType\":\"consumer\"");
    assert!(lines.any(is_member), "{}", dumped.text);
    let markers = |says: &str| {
        dumped
            .text
            .matches(&format!("endTxnMarker: {says} "))
            .count()
    };
    assert_eq!((markers("COMMIT"), markers("ABORT")), (4, 2));
}

/// The decoder of `__transaction_state` says of each transaction which states it had, in which epochs.
#[track_caller]
fn check_states(dumped: &Dumped) {
    assert_eq!(dumped.complaints(), [""; 0], "{}", dumped.text);
    let states = |id: &str| -> Vec<(i64, i64)> {
        let key = format!("\"data\":{{\"transactionalId\":\"{id}\"}}");
        let lines = dumped.text.lines().filter(|line| line.contains(&key));
        let number = |line: &str, name: &str| {
            let (_, rest) = line.split_once(&format!("\"{name}\":")).expect("a field");
            let end = rest.find([',', '}']).expect("its end");
            rest[..end].parse().expect("a number")
        };
        lines
            .map(|line| {
                (
                    number(line, "producerEpoch"),
                    number(line, "transactionStatus"),
                )
            })
            .collect()
    };
    // Empty; then ongoing, prepared to commit or abort, complete.
    let mut first = vec![(0, 0)];
    for commit in [true, false, true, false] {
        let ends = if commit { [2, 4] } else { [3, 5] };
        first.push((0, 1));
        first.extend(ends.map(|status| (0, status)));
    }
    assert_eq!(states("first"), first);
    // Twice ongoing: the partition, and that of the group's offsets.
    let mut second = vec![(0, 0)];
    for nth in 0..6 {
        let ends = if nth % 3 != 0 { [2, 4] } else { [3, 5] };
        second.extend([(nth, 1), (nth, 1)]);
        second.extend(ends.map(|status| (nth + 1, status)));
    }
    assert_eq!(states("second"), second);
}

/// The other way round: the tool complains of a record and of index entries that are wrong, and [`Dumped`] sees it.
#[track_caller]
fn check_that_damage_shows(classes: &str, partition: &Path) {
    let flip = |kind: &str, at: usize| {
        let path = offset_file(partition, 0, kind);
        let mut bytes = fs::read(&path).expect("the file");
        bytes[at] ^= 1;
        fs::write(&path, bytes).expect("written");
        path
    };
    let damaged = [flip("index", 3), flip("timeindex", 7)];
    let dumped = run(classes, None, &damaged);
    assert!(dumped.complaints().len() > 1, "{}", dumped.text);
    let dumped = run(classes, None, &[flip("log", 80)]);
    assert!(!dumped.complaints().is_empty(), "{}", dumped.text);
}
