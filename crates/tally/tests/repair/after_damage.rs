//! `tally verify log --repair` on a directory of which random files are damaged at random places.
//!
//! A check names what is damaged, or it was of no use to anybody: then a broker serves all there was. After the repair a check finds nothing, a broker
//! starts, and what no damage has touched is there.

use crate::reading::{Held, Reading, copy, served, try_read};
use crate::{PROGRAM, seeds, tally};
use bytes::Bytes;
use kafka_protocol::messages::InitProducerIdRequest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use tally_protocol::BatchView;
use tally_storage::read_offset_index;
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, ProduceCall, transactional_id};
use tally_testkit::offline::{files, path, rows, text};
use tally_testkit::seed::Seed;
use tally_testkit::waiting::wait_for;
use tempfile::TempDir;

/// Damaged copies in each mode.
const SEEDS: u64 = 5;

/// A topic, its partitions, and what makes its segments small.
type Topic = (&'static str, i32, &'static [(&'static str, &'static str)]);

const TOPICS: [Topic; 3] = [
    (
        "small",
        2,
        &[
            ("internal.segment.bytes", "600"),
            ("index.interval.bytes", "1"),
        ],
    ),
    ("cut", 1, &[("internal.segment.bytes", "900")]),
    ("large", 1, &[]),
];

/// Lives of the broker: each has a leader epoch of its own.
const LIVES: i32 = 3;
/// Transactions in each life.
const TRANSACTIONS: i32 = 5;

/// What is damaged, and what of it may be missing.
struct Whole {
    beside: TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
    served: BTreeSet<Held>,
    /// The names of topics, by what their directories are called.
    names: BTreeMap<String, String>,
    durability: &'static str,
    is_clean: bool,
}

impl Whole {
    fn new(durability: &'static str, is_clean: bool) -> Whole {
        let durable = format!("tally.durability={durability}");
        let settings = [
            durable.as_str(),
            "transaction.state.log.num.partitions=1",
            "offsets.topic.num.partitions=1",
        ];
        let mut broker = Broker::start(PROGRAM, &settings);
        let mut client = broker.client();
        for (topic, partitions, configs) in TOPICS {
            client.create_topic(topic, partitions, configs);
        }
        for life in 0..LIVES {
            if life > 0 {
                broker.kill_and_start();
                client = broker.client();
            }
            live(&mut client, life);
        }
        assert_eq!(client.delete_records("cut", 0, 9).0, 0);
        let internal = ["__consumer_offsets", "__transaction_state"];
        let names = TOPICS.iter().map(|(name, ..)| *name).chain(internal);
        let names: Vec<_> = names
            .map(|name| (client.topic_id(name).to_string(), name.to_owned()))
            .collect();
        if is_clean {
            assert!(broker.stop(), "stopped clean");
        } else {
            broker.kill();
        }
        let beside = copy(&broker.data());
        let files = files(&beside.path().join("data"));
        let served = served(&copy(&broker.data()), durability);
        Whole {
            beside,
            files,
            served,
            names: names.into_iter().collect(),
            durability,
            is_clean,
        }
    }
}

/// Transactions over everything, one left open, and batches of nobody between them.
fn live(client: &mut Client, life: i32) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id("teller")))
        .with_transaction_timeout_ms(60_000);
    // The one that the life before has left open is aborted first.
    let producer = wait_for("the id to be free", || {
        let (error, producer) = client.init_producer_id(4, &request);
        (error == 0).then_some(producer)
    });
    let all: Vec<(&str, i32)> = TOPICS
        .iter()
        .flat_map(|(topic, partitions, _)| (0..*partitions).map(|index| (*topic, index)))
        .collect();
    for nth in 0..=TRANSACTIONS {
        let added = client.add_partitions(3, "teller", producer, &all);
        assert!(added.iter().all(|error| *error == 0), "{added:?}");
        let batch = Batch::transactional(producer.id, producer.epoch, nth * 2, 2);
        let call = ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: Some("teller"),
            parts: all
                .iter()
                .map(|(topic, index)| (*topic, *index, Some(batch.encode())))
                .collect(),
        };
        let produced = client.produce(&call);
        assert!(produced.iter().all(|one| one.error == 0));
        let plain = Batch::plain(1 + nth).with_values(&format!("life {life}, {nth}"));
        assert_eq!(client.produce_one("large", 0, plain.encode()).error, 0);
        assert_eq!(
            client.commit_offset("readers", "large", 0, i64::from(nth)),
            0
        );
        if nth < TRANSACTIONS {
            let (error, _) = client.end_txn(3, "teller", producer, nth % 3 != 0);
            assert_eq!(error, 0);
        }
    }
}

/// What is done to a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Vec<(usize, u8)>),
    Noise(Range<usize>, Vec<u8>),
    Zeros(Range<usize>),
    Cut(usize),
    More(Vec<u8>),
    Removed,
}

impl Damage {
    fn choose(seed: &mut Seed, len: usize) -> Damage {
        let noise = |seed: &mut Seed, len: usize| -> Vec<u8> {
            (0..len).map(|_| seed.next_u64().to_le_bytes()[0]).collect()
        };
        if len == 0 {
            return Damage::More(noise(seed, 20));
        }
        let start = seed.index(len);
        let range = start..(start + 1 + seed.index(200)).min(len);
        match seed.below(10) {
            0..4 => {
                let flips = 1 + seed.index(3);
                let bit = |seed: &mut Seed| (seed.index(len), 1 << seed.index(8));
                Damage::Flip((0..flips).map(|_| bit(seed)).collect())
            }
            4 | 5 => Damage::Noise(range.clone(), noise(seed, range.len())),
            6 => Damage::Zeros(range),
            7 => Damage::Cut(start),
            8 => {
                let len = 1 + seed.index(5000);
                Damage::More(match seed.percent(50) {
                    true => vec![0; len],
                    false => noise(seed, len),
                })
            }
            _ => Damage::Removed,
        }
    }

    fn apply(&self, file: &Path) {
        let mut bytes = fs::read(file).expect("a file");
        match self {
            Damage::Flip(places) => places.iter().for_each(|(at, bit)| bytes[*at] ^= bit),
            Damage::Noise(range, noise) => bytes[range.clone()].copy_from_slice(noise),
            Damage::Zeros(range) => bytes[range.clone()].fill(0),
            Damage::Cut(at) => bytes.truncate(*at),
            Damage::More(more) => bytes.extend_from_slice(more),
            Damage::Removed => return fs::remove_file(file).expect("removed"),
        }
        fs::write(file, bytes).expect("damaged");
    }

    /// Whether bytes of a range are not what they were.
    fn touches(&self, range: &Range<usize>) -> bool {
        match self {
            Damage::Flip(places) => places.iter().any(|(at, _)| range.contains(at)),
            Damage::Noise(of, _) | Damage::Zeros(of) => {
                of.start < range.end && range.start < of.end
            }
            Damage::Cut(at) => *at < range.end,
            Damage::More(_) => false,
            Damage::Removed => true,
        }
    }
}

/// The damaged files of a copy.
type Damages = BTreeMap<PathBuf, Damage>;

impl Whole {
    /// Files of each kind are as likely as those of another, and most damages come alone.
    fn choose(&self, seed: &mut Seed) -> Damages {
        let kind = |name: &&PathBuf| {
            let name = name.file_name().and_then(|name| name.to_str());
            let name = name.expect("a name").to_owned();
            name.split_once('.')
                .map_or(name.clone(), |(_, kind)| kind.to_owned())
        };
        let mut kinds: BTreeMap<String, Vec<&PathBuf>> = BTreeMap::new();
        // The ids of topics are others in each run.
        let mut names: Vec<_> = self.files.keys().collect();
        names.sort_by_key(|name| self.readable(name));
        for name in names {
            kinds.entry(kind(&name)).or_default().push(name);
        }
        // What all rests on is not mended, and what means nothing has nothing to lose.
        for kept in ["meta", "format", "lock", "spare"] {
            kinds.remove(kept);
        }
        let kinds: Vec<_> = kinds.into_values().collect();
        let mut damages = Damages::new();
        while damages.is_empty() || seed.percent(25) {
            let of_kind = &kinds[seed.index(kinds.len())];
            let name = of_kind[seed.index(of_kind.len())];
            let damage = Damage::choose(seed, self.files[name].len());
            damages.insert(name.clone(), damage);
        }
        damages
    }

    /// The path of a file with the topic's name for its id.
    fn readable(&self, name: &Path) -> String {
        let mut readable = path(name).to_owned();
        for (id, topic) in &self.names {
            readable = readable.replace(id, topic);
        }
        readable
    }

    fn damaged(&self, damages: &Damages) -> TempDir {
        let beside = copy(&self.beside.path().join("data"));
        for (name, damage) in damages {
            damage.apply(&beside.path().join("data").join(name));
        }
        beside
    }

    /// The batches that may be missing: those that a damage has touched, and behind them what no index leads to. Where the run of the
    /// kernel is not known all is taken for what a power cut left, and nothing counts behind the first damage of a log.
    fn may_lack(&self, damages: &Damages) -> BTreeSet<Held> {
        let is_cut = decides(damages, "boot-id");
        let is_log = |name: &Path| name.extension().is_some_and(|kind| kind == "log");
        let mut lost = BTreeSet::new();
        for (name, damage) in damages.iter().filter(|(name, _)| is_log(name)) {
            let index = name.with_extension("index");
            let indexed: BTreeSet<usize> = match is_cut || damages.contains_key(&index) {
                true => BTreeSet::new(),
                false => read_offset_index(&self.files[&index])
                    .map(|(_, position)| usize::try_from(position).expect("small"))
                    .collect(),
            };
            let mut is_lost = false;
            for (range, held) in self.batches(name) {
                is_lost &= !indexed.contains(&range.start);
                is_lost |= damage.touches(&range);
                if is_lost {
                    lost.insert(held);
                }
            }
            let behind = self.files.keys().filter(|other| {
                is_cut && is_log(other) && other.parent() == name.parent() && *other > name
            });
            lost.extend(
                behind
                    .flat_map(|other| self.batches(other))
                    .map(|(_, held)| held),
            );
        }
        lost
    }

    /// The batches of a segment of a client's topic, and where they lie.
    fn batches(&self, name: &Path) -> Vec<(Range<usize>, Held)> {
        let mut parts = name
            .iter()
            .skip(1)
            .map(|part| part.to_str().expect("plain"));
        let (topic, index) = (parts.next().expect("a topic"), parts.next().expect("its"));
        let Some(topic) = self.names.get(topic) else {
            return Vec::new();
        };
        let index: i32 = index.parse().expect("a number");
        let bytes = Bytes::from(self.files[name].clone());
        let (mut at, mut found) = (0, Vec::new());
        while let Ok(view) = BatchView::parse(&bytes[at..]) {
            let (range, base) = (at..at + view.bytes().len(), view.header().base_offset.0);
            at = range.end;
            let held = (
                topic.clone(),
                index,
                base,
                bytes.slice(range.start + 16..range.end),
            );
            found.push((range, held));
        }
        found
    }
}

/// Whether a file of this name is damaged: where a log starts, or of which run of the kernel the directory is, it alone may say.
fn decides(damages: &Damages, name: &str) -> bool {
    damages.keys().any(|damaged| damaged.ends_with(name))
}

fn problems(data: &Path) -> (Vec<String>, String) {
    let checked = tally(&["verify", "log", path(data), "--deep", "-o", "jsonl"]);
    let told = text(&checked);
    let found = rows(&told, "problem");
    (found.into_iter().map(str::to_owned).collect(), told)
}

/// What was served before and is not now, or now and not before.
fn compare(
    whole: &Whole,
    now: &Reading,
    damages: &Damages,
    lost: &BTreeSet<Held>,
) -> Result<(), String> {
    // Another offset in it may be one where the log could start.
    let is_judged = |topic: &str| topic != "cut" || !decides(damages, "log-start");
    let mut closed = now.closed.iter();
    if let Some(closed) = closed.find(|(topic, _)| is_judged(topic)) {
        return Err(format!("closed: {closed:?}"));
    }
    let place = |held: &Held| (held.0.clone(), held.1, held.2);
    let mut foreign = now.batches.difference(&whole.served);
    if let Some(held) = foreign.find(|held| is_judged(&held.0)) {
        return Err(format!("nobody has sent {:?}", place(held)));
    }
    let missing = whole.served.difference(&now.batches);
    let missing: Vec<&Held> = missing.filter(|held| is_judged(&held.0)).collect();
    match missing.iter().find(|held| !lost.contains(held)) {
        Some(held) => Err(format!("lost: {:?} of {}", place(held), missing.len())),
        None => Ok(()),
    }
}

/// One damaged copy, looked at, repaired and started.
fn mend(whole: &Whole, damages: &Damages) -> Result<(), String> {
    let beside = whole.damaged(damages);
    let data = beside.path().join("data");
    let (found, told) = problems(&data);
    if found.is_empty() {
        let read = try_read(&copy(&data), whole.durability)
            .map_err(|log| format!("no problem, and no start: {log}"))?;
        compare(whole, &read, damages, &BTreeSet::new())
            .map_err(|error| format!("no problem is found, {error}: {told}"))?;
    }
    let repaired = tally(&["verify", "log", path(&data), "--repair", "-o", "jsonl"]);
    let repaired = text(&repaired);
    let excused =
        |row: &String| row.contains("hanging") || (!whole.is_clean && row.contains("/log-start\""));
    let left = |found: Vec<String>| found.into_iter().find(|row| !excused(row));
    if let Some(row) = left(problems(&data).0) {
        return Err(format!("left: {row}\n{found:#?}\n{repaired}"));
    }
    // The machine may begin anew before the broker does.
    let rebooted = copy(&data);
    let boot_id = rebooted.path().join("data").join("boot-id");
    fs::write(boot_id, "another\n").expect("written");
    // What is synced of a killed run these alone say.
    let is_told = |name| whole.is_clean || !decides(damages, name);
    let may_reboot = ["journal", "recovery-points-0", "recovery-points-1"]
        .into_iter()
        .all(is_told);
    let rebooted = may_reboot.then_some((&rebooted, " after a reboot"));
    for (beside, when) in rebooted.into_iter().chain([(&beside, "")]) {
        let read =
            try_read(beside, whole.durability).map_err(|log| format!("no start{when}: {log}"))?;
        compare(whole, &read, damages, &whole.may_lack(damages))
            .map_err(|error| format!("{error}{when}\n{found:#?}\n{repaired}"))?;
    }
    match left(problems(&data).0) {
        Some(row) => Err(format!("left by the start: {row}\n{found:#?}\n{repaired}")),
        None => Ok(()),
    }
}

/// A seed that found something: the only segment is gone, and the sums of its rows are left.
const ONCE_FAILED: [u64; 1] = [25];

fn check(durability: &'static str, is_clean: bool) {
    let whole = Whole::new(durability, is_clean);
    let (found, told) = problems(&whole.beside.path().join("data"));
    assert!(found.is_empty(), "{told}");
    let mut wrong = String::new();
    for seed in seeds(SEEDS, &ONCE_FAILED) {
        let damages = whole.choose(&mut Seed::new(seed));
        if let Err(error) = mend(&whole, &damages) {
            wrong += &format!("{durability}, seed {seed}, {damages:?}: {error}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_repair_of_random_damage_after_a_clean_stop_loses_nothing_else() {
    check("os", true);
}

#[test]
fn a_repair_of_random_damage_after_a_kill_loses_nothing_else() {
    check("os", false);
}

#[test]
fn a_repair_of_random_damage_after_a_kill_in_always_loses_nothing_else() {
    check("always", false);
}
