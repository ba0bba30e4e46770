//! What was promised, and what is there: every record has a value of its own.

use crate::{PARTITIONS, TOPIC};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tally_testkit::client::{Client, FetchCall, Fetched};
use tally_testkit::waiting::wait_until;

/// Where a record is.
type Place = (i32, i64);

/// What must be true of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Promise {
    /// It is there once, at this place.
    Kept(Place),
    /// It is there once or not at all.
    Open,
    /// No reader of committed records ever sees it.
    Hidden,
}

/// Everything that is known.
#[derive(Default)]
pub(crate) struct Ledger {
    promises: HashMap<String, Promise>,
    /// Records that readers of committed records were given.
    committed: HashMap<String, Place>,
    /// Where the log was read up to.
    read_to: BTreeMap<i32, i64>,
    promised_since: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl Ledger {
    /// The broker said that these are at consecutive offsets from `base` on.
    pub(crate) fn kept_at(&mut self, partition: i32, base: i64, values: Vec<String>) {
        for (offset, value) in (base..).zip(values) {
            self.promise(value, Promise::Kept((partition, offset)));
        }
        self.count("batches acknowledged");
    }

    /// These were sent, and nobody said anything.
    pub(crate) fn open(&mut self, values: Vec<String>) {
        for value in values {
            self.promise(value, Promise::Open);
        }
        self.count("batches without an answer");
    }

    /// A transaction that was committed.
    pub(crate) fn committed(&mut self, values: Vec<(Place, String)>) {
        for (place, value) in values {
            self.promise(value, Promise::Kept(place));
        }
        self.count("transactions committed");
    }

    /// A transaction that was aborted, or never ended.
    pub(crate) fn aborted(&mut self, values: Vec<String>) {
        for value in values {
            self.promise(value, Promise::Hidden);
        }
        self.count("transactions aborted");
    }

    /// A transaction whose end was asked for and not answered; its offset says that it was committed.
    pub(crate) fn undecided_but_committed(&mut self, values: Vec<(Place, String)>) {
        for (place, value) in values {
            self.promise(value, Promise::Kept(place));
        }
        self.count("unanswered transactions committed");
    }

    /// The same, and its offset says that it was not.
    pub(crate) fn undecided_but_aborted(&mut self, values: Vec<String>) {
        for value in values {
            self.promise(value, Promise::Hidden);
        }
        self.count("unanswered transactions aborted");
    }

    fn promise(&mut self, value: String, promise: Promise) {
        let before = self.promises.insert(value.clone(), promise);
        assert_eq!(before, None, "a value is promised once: {value}");
        self.promised_since.push(value);
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn summary(&self) -> String {
        let counts = self
            .counts
            .iter()
            .map(|(what, count)| format!("{count} {what}"));
        let counts: Vec<String> = counts.collect();
        format!("{} records, {}", self.committed.len(), counts.join(", "))
    }

    /// The run had some of everything.
    pub(crate) fn assert_worth_the_name(&self) {
        for what in [
            "batches acknowledged",
            "batches without an answer",
            "transactions committed",
            "transactions aborted",
        ] {
            assert!(self.counts.contains_key(what), "no {what}");
        }
        let unanswered = self
            .counts
            .keys()
            .filter(|what| what.starts_with("unanswered"));
        assert!(unanswered.count() > 0, "no transaction was hit at its end");
    }

    /// Reads what has come since the last time, and compares it with what was promised since.
    #[track_caller]
    pub(crate) fn read_on(&mut self, client: &mut Client) {
        for partition in 0..PARTITIONS {
            let from = self.read_to.get(&partition).copied().unwrap_or(0);
            let end = stable_end(client, partition);
            let found = read(client, partition, (from, end));
            for (value, place) in found {
                assert!(self.promises.contains_key(&value), "nobody sent {value}");
                let before = self.committed.insert(value.clone(), place);
                assert_eq!(before, None, "{value} is there twice, at {place:?} too");
            }
            self.read_to.insert(partition, end);
        }
        for value in std::mem::take(&mut self.promised_since) {
            self.check(&value);
        }
    }

    #[track_caller]
    fn check(&self, value: &str) {
        let found = self.committed.get(value).copied();
        match self.promises[value] {
            Promise::Kept(place) => assert_eq!(found, Some(place), "{value} is lost"),
            Promise::Hidden => assert_eq!(found, None, "{value} was aborted"),
            Promise::Open => {}
        }
    }

    /// Reads everything once more: what was there before is there still, where it was.
    #[track_caller]
    pub(crate) fn check_whole_log(&self, client: &mut Client) {
        let mut seen = BTreeSet::new();
        for partition in 0..PARTITIONS {
            let end = stable_end(client, partition);
            assert_eq!(
                Some(&end),
                self.read_to.get(&partition),
                "the end of {partition}"
            );
            for (value, place) in read(client, partition, (0, end)) {
                assert_eq!(self.committed.get(&value), Some(&place), "{value}");
                assert!(seen.insert(value), "twice");
            }
        }
        assert_eq!(seen.len(), self.committed.len(), "records");
    }
}

/// The end of a partition once no transaction is open.
#[track_caller]
fn stable_end(client: &mut Client, partition: i32) -> i64 {
    let end = client.latest(TOPIC, partition);
    wait_until("all transactions have ended", || {
        client.stable(TOPIC, partition) == end
    });
    assert_eq!(client.latest(TOPIC, partition), end, "nobody writes");
    end
}

/// Reads from one offset to another: every offset once, in order, checksums good; gives back the committed records.
#[track_caller]
fn read(client: &mut Client, partition: i32, (from, end): (i64, i64)) -> Vec<(String, Place)> {
    let mut committed = Vec::new();
    let mut at = from;
    while at < end {
        let mut call = FetchCall::of(TOPIC, partition, at, 1);
        call.partition_max_bytes = 8 << 20;
        let fetched = client.fetch(&call).remove(0);
        let next = check_row(&fetched, at);
        for (offset, value) in fetched.committed() {
            let value = value.expect("a value");
            let name = value
                .split(|byte| *byte == b' ')
                .next()
                .expect("a first word");
            let name = String::from_utf8(name.to_vec()).expect("a name");
            committed.push((name, (partition, offset)));
        }
        at = next;
    }
    assert_eq!(at, end, "the end of {partition}");
    committed
}

/// The batches of an answer follow each other without a gap from `from` on; the offset after them.
#[track_caller]
fn check_row(fetched: &Fetched, from: i64) -> i64 {
    assert_eq!((fetched.error, fetched.log_start_offset), (0, 0));
    let mut at = from;
    for batch in &fetched.batches {
        assert_eq!(batch.base_offset(), at, "a gap");
        let count = i64::from(batch.header.records_count);
        assert_eq!(batch.header.last_offset().0, at + count - 1);
        at += count;
    }
    assert!(at > from, "nothing at {from}");
    at
}
