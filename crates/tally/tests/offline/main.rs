//! `tally dump` and `tally verify log` on directories that the real broker made: whole ones, those of a killed broker, and
//! damaged ones.

mod damage;
mod repair;

use kafka_protocol::messages::InitProducerIdRequest;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tally_testkit::batches::{Batch, Codec};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, ProduceCall, Producer, transactional_id};
use tally_testkit::offline::{files, path, rows, run, text};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");
const TOPIC: &str = "orders";

#[track_caller]
fn tally(arguments: &[&str]) -> Output {
    run(PROGRAM, arguments)
}

fn init(client: &mut Client, id: &str) -> Producer {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(id)))
        .with_transaction_timeout_ms(60_000);
    let (error, producer) = client.init_producer_id(5, &request);
    assert_eq!(error, 0);
    producer
}

fn send(client: &mut Client, id: &str, version: i16, batch: &Batch) {
    let call = ProduceCall {
        version,
        acks: -1,
        transactional_id: Some(id),
        parts: vec![(TOPIC, 0, Some(batch.encode()))],
    };
    assert_eq!(client.produce(&call)[0].error, 0);
}

/// A broker that has seen all there is: plain, idempotent and compressed batches, both protocols of transactions, commits,
/// aborts, offsets in transactions, deleted records, an open transaction.
fn lived() -> Broker {
    let broker = Broker::start(
        PROGRAM,
        &[
            "transaction.state.log.num.partitions=2",
            "offsets.topic.num.partitions=2",
        ],
    );
    let mut client = broker.client();
    client.create_topic(TOPIC, 2, &[("index.interval.bytes", "100")]);
    for codec in [
        Codec::None,
        Codec::Gzip,
        Codec::SnappyRaw,
        Codec::Lz4,
        Codec::Zstd,
    ] {
        let batch = Batch::plain(3).compressed(codec);
        assert_eq!(client.produce_one(TOPIC, 1, batch.encode()).error, 0);
    }
    let producer = client.idempotent_producer();
    for nth in 0..7 {
        let batch = Batch::idempotent(producer.id, producer.epoch, nth * 2, 2);
        assert_eq!(client.produce_one(TOPIC, 0, batch.encode()).error, 0);
    }
    // The second protocol: an epoch for each transaction.
    let mut second = init(&mut client, "second");
    for nth in 0..6 {
        let batch = Batch::transactional(second.id, second.epoch, 0, 2);
        send(&mut client, "second", 12, &batch);
        let offsets =
            Client::txn_offset_commit_request("second", second, "readers", &[(TOPIC, 0, nth)]);
        assert_eq!(client.txn_offset_commit(5, &offsets), [0]);
        let (error, next) = client.end_txn(5, "second", second, nth % 3 != 0);
        assert_eq!(error, 0);
        second = next;
    }
    // The first one: one epoch for all.
    let first = init(&mut client, "first");
    for nth in 0..4 {
        assert_eq!(client.add_partitions(3, "first", first, &[(TOPIC, 0)]), [0]);
        let batch = Batch::transactional(first.id, first.epoch, nth, 1);
        send(&mut client, "first", 9, &batch);
        if nth < 3 {
            assert_eq!(client.end_txn(3, "first", first, nth % 2 == 0).0, 0);
        }
    }
    assert_eq!(client.commit_offset("others", TOPIC, 1, 5), 0);
    assert_eq!(client.delete_records(TOPIC, 1, 6).0, 0);
    broker
}

#[test]
fn a_whole_directory_has_no_problem_and_is_left_as_it_was() {
    let mut broker = lived();
    let data = broker.data();
    assert!(broker.stop(), "stopped clean");
    let before = files(&data);
    for deep in [&[][..], &["--deep"][..]] {
        let arguments = [&["verify", "log", path(&data), "-o", "jsonl"], deep].concat();
        let output = tally(&arguments);
        let found = text(&output);
        assert_eq!(rows(&found, "problem"), [""; 0], "{found}");
        assert_eq!(output.status.code(), Some(0), "{found}");
        let open = rows(&found, "open");
        assert_eq!(open.len(), 1, "{found}");
        assert!(open[0].contains("\"transactional_id\":\"first\",\"state\":\"Ongoing\""));
    }
    tally(&["dump", "--data", path(&data), "orders:0", "--records"]);
    assert_eq!(files(&data), before);
}

#[test]
fn a_killed_brokers_directory_has_no_problem_before_and_after_its_recovery() {
    let mut broker = lived();
    let data = broker.data();
    for _ in 0..2 {
        broker.kill();
        let output = tally(&["verify", "log", path(&data), "-o", "jsonl", "--deep"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        broker.start_again();
        let mut client = broker.client();
        assert_eq!(client.produce_plain(TOPIC, 0, 2).error, 0);
    }
}

#[test]
fn a_running_broker_is_left_alone() {
    let broker = lived();
    let data = broker.data();
    let refused = tally(&["verify", "log", path(&data)]);
    assert_eq!(refused.status.code(), Some(6));
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        reason.contains(&format!("in use by process {}", broker.pid())),
        "{reason}"
    );
    let warned = tally(&["dump", "--data", path(&data), "orders:0"]);
    assert_eq!(warned.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&warned.stderr).contains("is in use by"));
}

#[test]
fn what_is_no_data_directory_is_a_mistake_of_the_caller() {
    let empty = TempDir::new().expect("a directory");
    assert_eq!(
        tally(&["verify", "log", path(empty.path())]).status.code(),
        Some(2)
    );
    assert_eq!(tally(&["dump", path(empty.path())]).status.code(), Some(2));
    assert_eq!(
        tally(&["dump", "--data", path(empty.path()), "a:0"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn dump_shows_what_was_written() {
    let mut broker = lived();
    let data = broker.data();
    assert!(broker.stop(), "stopped clean");
    let dump = |target: &str| {
        let output = tally(&[
            "dump",
            "--data",
            path(&data),
            target,
            "--records",
            "-o",
            "jsonl",
        ]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        text(&output)
    };
    let orders = dump("orders:0");
    let markers = |says: &str| orders.matches(&format!("\"marker\":\"{says}\"")).count();
    assert_eq!((markers("COMMIT"), markers("ABORT")), (6, 3));
    assert_eq!(rows(&orders, "aborted").len(), 3);
    assert!(!rows(&orders, "index").is_empty() && !rows(&orders, "timeindex").is_empty());
    assert!(!rows(&orders, "producer").is_empty() && rows(&orders, "epoch").len() == 1);
    assert_eq!(rows(&orders, "damage"), [""; 0]);
    let compressed = dump("orders:1");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        assert!(
            compressed.contains(&format!("\"codec\":\"{codec}\"")),
            "{codec}"
        );
    }
    assert_eq!(compressed.matches("\"value\":\"value-2\"").count(), 5);
    assert_eq!(
        rows(&compressed, "log start"),
        ["{\"kind\":\"log start\",\"offset\":6}"]
    );
    let states = dump("__transaction_state:0") + &dump_if_any(&data, "__transaction_state:1");
    for state in [
        "Ongoing",
        "PrepareCommit",
        "PrepareAbort",
        "CompleteCommit",
        "CompleteAbort",
    ] {
        assert!(
            states.contains(&format!("\"state\":\"{state}\"")),
            "{state}: {states}"
        );
    }
    let offsets =
        dump_if_any(&data, "__consumer_offsets:0") + &dump_if_any(&data, "__consumer_offsets:1");
    assert!(offsets.contains("\"record\":\"offset\",\"group\":\"others\",\"topic\":\"orders\",\"partition\":1,\"offset\":5"));
    let overview = text(&tally(&["dump", path(&data)]));
    assert!(overview.contains("topic/orders"), "{overview}");
    let overview = text(&tally(&["dump", path(&data), "-o", "jsonl"]));
    assert!(!rows(&overview, "recovery point").is_empty(), "{overview}");
}

/// A batch that is missing whole at the end of a log contradicts nothing in it.
#[test]
fn a_log_that_ends_before_its_recovery_point_is_reported() {
    let mut broker = lived();
    let data = broker.data();
    assert!(broker.stop(), "stopped clean");
    let all = files(&data);
    let longest = all
        .iter()
        .filter(|(name, _)| name.extension().is_some_and(|kind| kind == "log"))
        .max_by_key(|(_, bytes)| bytes.len());
    let (name, bytes) = longest.expect("a segment");
    let mut ends = vec![0];
    while let Some(length) = bytes.get(ends[ends.len() - 1] + 8..) {
        let Some(length) = length.first_chunk() else {
            break;
        };
        let length = usize::try_from(i32::from_be_bytes(*length)).expect("a length");
        ends.push(ends[ends.len() - 1] + 12 + length);
    }
    let cut = &bytes[..ends[ends.len() - 2]];
    fs::write(data.join(name), cut).expect("cut");
    let output = tally(&["verify", "log", path(&data), "-o", "jsonl"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let problems = text(&output);
    assert!(problems.contains("and the log is shorter"), "{problems}");
}

fn dump_if_any(data: &Path, target: &str) -> String {
    let arguments = [
        "dump",
        "--data",
        path(data),
        target,
        "--records",
        "-o",
        "jsonl",
    ];
    text(&tally(&arguments))
}

/// Places where a changed byte says nothing: the process that was there, space for a full disk, the id of a run of the
/// kernel, and the blank at the end of a line.
fn says_nothing(name: &Path, at: usize, bytes: &[u8]) -> bool {
    let name = name
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    match name {
        "lock" | "spare" | "boot-id" => true,
        "format" => at + 1 == bytes.len(),
        _ => false,
    }
}

/// A copy of a directory with one byte changed; what is not changed is linked.
fn damaged(whole: &Path, copy: &Path, all: &BTreeMap<PathBuf, Vec<u8>>, place: (&Path, usize, u8)) {
    for (name, bytes) in all {
        let to = copy.join(name);
        fs::create_dir_all(to.parent().expect("below the copy")).expect("made");
        if name == place.0 {
            let mut bytes = bytes.clone();
            bytes[place.1] ^= place.2;
            fs::write(&to, bytes).expect("written");
        } else if name != Path::new("spare") {
            fs::hard_link(whole.join(name), &to).expect("linked");
        }
    }
}

#[test]
fn a_changed_byte_is_reported_wherever_it_says_something() {
    let mut broker = lived();
    let data = broker.data();
    assert!(broker.stop(), "stopped clean");
    let all = files(&data);
    let copies = TempDir::new_in(data.parent().expect("above")).expect("a directory");
    let total: usize = all
        .values()
        .map(Vec::len)
        .filter(|size| *size < 1 << 20)
        .sum();
    // All bytes of the small files, a part of the large ones; the step is prime to the width of every field.
    let mut places = Vec::new();
    for (name, bytes) in &all {
        let step = if bytes.len() > 400 { 37 } else { 7 };
        for at in (places.len() % step..bytes.len()).step_by(step) {
            if !says_nothing(name, at, bytes) {
                places.push((name, at, 1u8 << (at % 8)));
            }
        }
        // The header of the first batch lies outside the checksum for 21 bytes.
        if name.extension().is_some_and(|kind| kind == "log") {
            places.extend((0..bytes.len().min(24)).map(|at| (name, at, 1u8 << (at % 7))));
        }
    }
    assert!(
        places.len() > 200,
        "{} places in {total} bytes",
        places.len()
    );
    // A copy with nothing changed, so that it is the change that is reported.
    let whole = copies.path().join("whole");
    damaged(&data, &whole, &all, (places[0].0, places[0].1, 0));
    let output = tally(&["verify", "log", path(&whole), "-o", "jsonl"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for (nth, place) in places.iter().enumerate() {
        let copy = copies.path().join(nth.to_string());
        damaged(&data, &copy, &all, (place.0, place.1, place.2));
        let output = tally(&["verify", "log", path(&copy), "-o", "jsonl"]);
        let found = text(&output);
        assert!(
            matches!(output.status.code(), Some(1 | 2)),
            "{place:?} of {} is not reported: {found}",
            all[place.0].len()
        );
        tally(&[
            "dump",
            path(&copy.join(place.0)),
            "--records",
            "-o",
            "jsonl",
        ]);
        fs::remove_dir_all(&copy).expect("removed");
    }
}
