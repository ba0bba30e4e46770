//! The damage matrix: each kind of file is damaged in each way, one partition for each pair, so that one broker meets them
//! all. `tally verify log` has to name each file; a start has to serve what is good, name what is not, and never hand out
//! anything else for good.

use crate::{PROGRAM, tally};
use bytes::Bytes;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use tally_protocol::BatchView;
use tally_testkit::batches::Batch;
use tally_testkit::broker::{Broker, offset_file, offsets_of_files};
use tally_testkit::client::{Client, FetchCall, ProduceCall, Producer};
use tally_testkit::offline::{Served, copy, files, path, rows, text};
use tempfile::TempDir;

const TOPIC: &str = "matrix";
const TRANSACTIONS: i32 = 12;

/// What is done to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Damage {
    /// A bit of the byte in the middle.
    Flip,
    /// A bit of the second byte of the file: of a base offset, a version, a magic.
    FlipFirst,
    /// The last byte is gone.
    CutByte,
    /// The second half is gone.
    CutHalf,
    Empty,
    /// A page of zeros from the beginning, or as much as there is.
    ZeroPage,
    /// A page of zeros behind the end.
    MoreZeros,
    /// Noise behind the end.
    MoreNoise,
    Removed,
}

const DAMAGES: [Damage; 9] = [
    Damage::Flip,
    Damage::FlipFirst,
    Damage::CutByte,
    Damage::CutHalf,
    Damage::Empty,
    Damage::ZeroPage,
    Damage::MoreZeros,
    Damage::MoreNoise,
    Damage::Removed,
];

impl Damage {
    /// How many batches of a log may be beyond saving.
    pub(crate) fn loses(self) -> usize {
        match self {
            Damage::MoreZeros | Damage::MoreNoise | Damage::FlipFirst => 0,
            Damage::Flip | Damage::CutByte => 1,
            // A segment of this test has a few batches, all within one page.
            Damage::CutHalf | Damage::Empty | Damage::ZeroPage | Damage::Removed => 8,
        }
    }

    fn apply(self, path: &Path) {
        let mut bytes = fs::read(path).expect("the file is there");
        let (len, middle) = (bytes.len(), bytes.len() / 2);
        match self {
            Damage::Flip => bytes[middle] ^= 0x10,
            Damage::FlipFirst => bytes[1.min(len - 1)] ^= 0x01,
            Damage::CutByte => bytes.truncate(len - 1),
            Damage::CutHalf => bytes.truncate(middle),
            Damage::Empty => bytes.clear(),
            Damage::ZeroPage => bytes[..len.min(4096)].fill(0),
            Damage::MoreZeros => bytes.extend_from_slice(&[0; 4096]),
            Damage::MoreNoise => bytes.extend((0..100u8).map(|nth| nth.wrapping_mul(167) | 1)),
            Damage::Removed => return fs::remove_file(path).expect("removed"),
        }
        fs::write(path, bytes).expect("damaged");
    }
}

/// Which file of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The log of the first segment, closed long ago, and of the last one.
    FirstLog,
    LastLog,
    /// Made again from the log.
    FirstIndex,
    LastIndex,
    FirstTimeIndex,
    LastTimeIndex,
    Rows,
    RowSums,
    Snapshot,
    Epochs,
    /// The only one that nothing else tells: its partition stays closed.
    LogStart,
}

const KINDS: [Kind; 11] = [
    Kind::FirstLog,
    Kind::LastLog,
    Kind::FirstIndex,
    Kind::LastIndex,
    Kind::FirstTimeIndex,
    Kind::LastTimeIndex,
    Kind::Rows,
    Kind::RowSums,
    Kind::Snapshot,
    Kind::Epochs,
    Kind::LogStart,
];

/// Where the logs start whose `log-start` is damaged: behind their first batch.
const LOG_START: i64 = 2;

impl Kind {
    fn path(self, partition: &Path) -> PathBuf {
        let of = |kind: &str, last: bool| {
            let all = offsets_of_files(partition, kind);
            let base = if last { all.last() } else { all.first() };
            offset_file(partition, *base.expect("there are some"), kind)
        };
        match self {
            Kind::FirstLog => of("log", false),
            Kind::LastLog => of("log", true),
            Kind::FirstIndex => of("index", false),
            Kind::LastIndex => of("index", true),
            Kind::FirstTimeIndex => of("timeindex", false),
            Kind::LastTimeIndex => of("timeindex", true),
            Kind::Rows => of("txnindex", false),
            Kind::RowSums => partition.join("txn-sums"),
            Kind::Snapshot => of("snapshot", true),
            Kind::Epochs => partition.join("leader-epoch-checkpoint"),
            Kind::LogStart => partition.join("log-start"),
        }
    }

    /// Where the log of such a case starts.
    fn log_start(self) -> i64 {
        if self == Kind::LogStart { LOG_START } else { 0 }
    }

    /// Whether the partition may stay closed.
    fn may_close(self) -> bool {
        self.is_log() || self == Kind::LogStart
    }

    /// Whether the log can do without it.
    pub(crate) fn is_log(self) -> bool {
        matches!(self, Kind::FirstLog | Kind::LastLog)
    }
}

/// The same for every partition: committed and aborted transactions over several segments.
fn fill(client: &mut Client, partitions: i32) {
    let configs = [
        ("internal.segment.bytes", "600"),
        ("index.interval.bytes", "1"),
    ];
    client.create_topic(TOPIC, partitions, &configs);
    let producer = init(client);
    let all: Vec<(&str, i32)> = (0..partitions).map(|index| (TOPIC, index)).collect();
    for nth in 0..TRANSACTIONS {
        let added = client.add_partitions(3, "matrix", producer, &all);
        assert!(added.iter().all(|error| *error == 0), "{added:?}");
        let commit = nth % 3 != 0;
        let word = if commit { "good" } else { "gone" };
        let batch = Batch::transactional(producer.id, producer.epoch, nth * 2, 2).with_values(word);
        let call = ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: Some("matrix"),
            parts: all
                .iter()
                .map(|(topic, index)| (*topic, *index, Some(batch.encode())))
                .collect(),
        };
        let produced = client.produce(&call);
        assert!(produced.iter().all(|one| one.error == 0));
        assert_eq!(client.end_txn(3, "matrix", producer, commit).0, 0);
    }
}

fn init(client: &mut Client) -> Producer {
    crate::init(client, "matrix")
}

/// Whole batches of a partition from an offset on as they are sent, checksums not looked at, and the error that ended the
/// reading.
pub(crate) fn read(client: &mut Client, index: i32, from: i64) -> (Vec<Bytes>, i16) {
    let (mut batches, mut next) = (Vec::new(), from);
    loop {
        let call = FetchCall::of(TOPIC, index, next, 0);
        let request = client.fetch_request(&call);
        let response = client.call(call.version, &request);
        let part = &response.responses[0].partitions[0];
        let mut rest = part.records.clone().unwrap_or_default();
        if part.error_code != 0 || rest.is_empty() {
            return (batches, part.error_code);
        }
        while let Ok(view) = BatchView::parse(&rest) {
            next = view.header().last_offset().next().0;
            batches.push(rest.split_to(view.bytes().len()));
        }
    }
}

/// One broker's data, and which partition has which damage.
pub(crate) struct Matrix {
    pub(crate) data: PathBuf,
    durability: &'static str,
    pub(crate) cases: Vec<(Kind, Damage, PathBuf)>,
    /// Where the log of each partition starts.
    pub(crate) starts: Vec<i64>,
    /// What each partition holds, with one more that nothing happens to.
    pub(crate) batches: Vec<Vec<Bytes>>,
    topic: PathBuf,
    _beside: TempDir,
}

impl Matrix {
    /// Writes everything, ends the broker, and damages.
    pub(crate) fn new(is_clean: bool, durability: &'static str) -> Matrix {
        let pairs = KINDS
            .iter()
            .flat_map(|kind| DAMAGES.map(|damage| (*kind, damage)));
        Matrix::with(pairs.collect(), is_clean, durability)
    }

    /// One to which nothing happens.
    pub(crate) fn whole() -> Matrix {
        Matrix::with(Vec::new(), true, "os")
    }

    fn with(pairs: Vec<(Kind, Damage)>, is_clean: bool, durability: &'static str) -> Matrix {
        let durable = format!("tally.durability={durability}");
        let settings = [durable.as_str(), "transaction.state.log.num.partitions=1"];
        let mut broker = Broker::start(PROGRAM, &settings);
        let mut client = broker.client();
        // One partition more, which nothing happens to.
        let partitions = i32::try_from(pairs.len()).expect("few") + 1;
        fill(&mut client, partitions);
        let starts = pairs.iter().map(|(kind, _)| kind.log_start());
        let starts: Vec<i64> = starts.chain([0]).collect();
        for (index, start) in (0..).zip(&starts).filter(|(_, start)| **start > 0) {
            assert_eq!(client.delete_records(TOPIC, index, *start), (0, *start));
        }
        let batches: Vec<_> = (0..partitions)
            .zip(&starts)
            .map(|(index, start)| read(&mut client, index, *start).0)
            .collect();
        let expected = 2 * usize::try_from(TRANSACTIONS).expect("few");
        let is_whole = |(batches, start): (&Vec<Bytes>, &i64)| {
            batches.len() == expected - usize::from(*start > 0)
        };
        assert!(batches.iter().zip(&starts).all(is_whole));
        let directory = broker.partition(&mut client, TOPIC, 0);
        let topic = directory.parent().expect("the topic's").to_owned();
        if is_clean {
            assert!(broker.stop(), "stopped clean");
        } else {
            broker.kill();
        }
        let beside = TempDir::new().expect("a directory");
        let data = beside.path().join("data");
        copy(&broker.data(), &data);
        let below = topic.strip_prefix(broker.data()).expect("below the data");
        let topic = data.join(below);
        let cases = pairs
            .into_iter()
            .enumerate()
            .map(|(index, (kind, damage))| {
                let file = kind.path(&topic.join(index.to_string()));
                damage.apply(&file);
                (kind, damage, file)
            });
        let cases = cases.collect();
        Matrix {
            cases,
            data,
            durability,
            starts,
            batches,
            topic,
            _beside: beside,
        }
    }

    /// The directory of a partition.
    pub(crate) fn partition(&self, index: usize) -> PathBuf {
        self.topic.join(index.to_string())
    }

    /// Compares what a partition hands out with what was written into it. Damage of a log may end it, or stop the reading with an
    /// error; a batch that a checksum covers may come with that checksum wrong, which a client looks at. Everything else is
    /// as it was.
    fn check_reads(&self, served: &Served) {
        let mut client = Client::connect(&served.address);
        let outcomes: Vec<_> = (0..)
            .zip(&self.starts)
            .map(|(index, start)| read(&mut client, index, *start))
            .collect();
        let log = served.log();
        let mut wrong = String::new();
        let whole = self.batches.iter().zip(&outcomes);
        for ((kind, damage, file), (all, (batches, error))) in self.cases.iter().zip(whole) {
            if batches == all && *error == 0 {
                continue;
            }
            let has_good = batches.iter().all(|batch| {
                let view = BatchView::parse(batch).expect("a batch");
                all.contains(batch) || (kind.is_log() && view.check_crc().is_err())
            });
            let is_told = batches.len() == all.len() || is_named(&log, file);
            if !kind.may_close() || !has_good || !is_told {
                let bases: Vec<i64> = batches.iter().map(|batch| base(batch)).collect();
                let line = format!(
                    "{kind:?} {damage:?} {}: error {error}, good {has_good}, told {is_told}, {bases:?}",
                    file.display()
                );
                writeln!(wrong, "{line}").expect("a text");
            }
        }
        assert_eq!(wrong, "", "{log}");
        assert_eq!(
            outcomes.last(),
            self.batches.last().map(|all| (all.clone(), 0)).as_ref()
        );
    }
}

fn base(batch: &[u8]) -> i64 {
    BatchView::parse(batch)
        .expect("a batch")
        .header()
        .base_offset
        .0
}

/// Whether a log names a file, or the partition that it belongs to.
fn is_named(log: &str, file: &Path) -> bool {
    let directory = file.parent().expect("the partition's");
    let index = directory.file_name().and_then(|name| name.to_str());
    let topic = directory
        .parent()
        .and_then(|topic| topic.file_name()?.to_str());
    let partition = format!("{}:{}", topic.expect("a topic"), index.expect("an index"));
    let is_one = |line: &str| {
        let mut behind = line
            .match_indices(&partition)
            .map(|(at, _)| &line[at + partition.len()..]);
        behind.any(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    };
    log.contains(path(directory)) || log.lines().any(is_one)
}

#[test]
fn each_damage_of_each_file_is_named_offline() {
    let matrix = Matrix::new(true, "os");
    let output = tally(&["verify", "log", path(&matrix.data), "-o", "jsonl", "--deep"]);
    assert_eq!(output.status.code(), Some(1));
    let found = text(&output);
    let problems = rows(&found, "problem");
    let mut silent = String::new();
    for (kind, damage, file) in &matrix.cases {
        // Without entries an offset index is one of a small segment; without its newest snapshot a log is replayed from before.
        let means_nothing = matches!(
            (kind, damage),
            (Kind::FirstIndex | Kind::LastIndex, Damage::Empty)
                | (Kind::Snapshot, Damage::Removed)
                // The line's end, and a log that was never cut at its beginning.
                | (Kind::LogStart, Damage::CutByte | Damage::Removed)
        );
        if means_nothing {
            continue;
        }
        // What a lost or a cut file leaves is named by what is beside it: the others of its partition.
        let partition = file.parent().expect("the partition's");
        let partition = partition.strip_prefix(&matrix.data).expect("below");
        let partition = format!("\"file\":\"{}/", path(partition));
        if !problems.iter().any(|problem| problem.contains(&partition)) {
            writeln!(silent, "{kind:?} {damage:?} {}", file.display()).expect("a text");
        }
    }
    assert_eq!(silent, "");
}

#[test]
fn no_damage_is_served_for_good_after_a_clean_stop() {
    check_start(&Matrix::new(true, "os"));
}

#[test]
fn no_damage_is_served_for_good_after_a_kill() {
    check_start(&Matrix::new(false, "os"));
}

/// The journal holds bytes of all partitions: what is wrong with one of them is no reason not to start.
#[test]
fn no_damage_is_served_for_good_after_a_kill_in_always() {
    check_start(&Matrix::new(false, "always"));
}

fn check_start(matrix: &Matrix) {
    let served = Served::start(PROGRAM, &matrix.data, matrix.durability, &[]);
    let served = served.expect("one damaged partition stops no other");
    // Twice: what was made again on the way is used then.
    for _ in 0..2 {
        matrix.check_reads(&served);
    }
    served.stop();
}

/// The data of a broker that was stopped clean, and what its one partition holds.
fn stopped() -> (TempDir, Vec<Bytes>) {
    let mut broker = Broker::start(PROGRAM, &["transaction.state.log.num.partitions=1"]);
    let mut client = broker.client();
    fill(&mut client, 1);
    let (batches, _) = read(&mut client, 0, 0);
    assert!(broker.stop(), "stopped clean");
    let beside = TempDir::new().expect("a directory");
    copy(&broker.data(), &beside.path().join("data"));
    (beside, batches)
}

/// What all rests on is not guessed: the start says which file it is, and leaves everything as it was.
#[test]
fn a_damaged_meta_stops_the_start_and_nothing_is_removed() {
    let (whole, _) = stopped();
    for damage in DAMAGES {
        let beside = TempDir::new().expect("a directory");
        let data = beside.path().join("data");
        copy(&whole.path().join("data"), &data);
        damage.apply(&data.join("meta"));
        let topics = files(&data.join("topics"));
        let output = tally(&["verify", "log", path(&data), "-o", "jsonl"]);
        assert_eq!(output.status.code(), Some(1), "{damage:?}");
        let found = text(&output);
        let is_meta = |problem: &&str| problem.contains("\"file\":\"meta\"");
        assert!(
            rows(&found, "problem").iter().any(is_meta),
            "{damage:?}: {found}"
        );
        let Err(log) = Served::start(PROGRAM, &data, "os", &[]) else {
            panic!("{damage:?}: it starts");
        };
        assert!(log.contains("meta"), "{damage:?}: {log}");
        assert_eq!(files(&data.join("topics")), topics, "{damage:?}");
    }
}

/// The mark only spares a walk: a damaged one vouches for nothing.
#[test]
fn a_damaged_mark_of_a_clean_stop_costs_a_walk_and_nothing_else() {
    let (whole, batches) = stopped();
    for damage in DAMAGES {
        let beside = TempDir::new().expect("a directory");
        let data = beside.path().join("data");
        copy(&whole.path().join("data"), &data);
        damage.apply(&data.join("clean-shutdown"));
        let served = Served::start(PROGRAM, &data, "os", &[]).expect("it starts");
        let mut client = Client::connect(&served.address);
        assert_eq!(
            read(&mut client, 0, 0),
            (batches.clone(), 0),
            "{damage:?}: {}",
            served.log()
        );
        assert!(served.stop(), "{damage:?}");
        assert_eq!(
            fs::read(data.join("clean-shutdown")).expect("the next mark"),
            b"1\n"
        );
    }
}
