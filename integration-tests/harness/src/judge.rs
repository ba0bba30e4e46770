//! The judge: compares what is in the topics with what must be there, knowing the data file.
//!
//! Pure: it gets records and gives findings; reading them is `reader.rs`. The k-th output of an hour and its k-th count were
//! written in one transaction, so both carry the same writer; and since the counts are kept with the outputs, a record that
//! is processed twice shows as a double, not as a tear.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::flights::{Flights, PARTITIONS};

/// Findings of a kind that are written out; all are counted.
const EXAMPLES_MAX: usize = 20;

/// A record as it was read, in offset order within its partition.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) partition: usize,
    pub(crate) offset: i64,
    pub(crate) key: String,
    pub(crate) value: String,
    /// Header `writer`; empty on the input topic.
    pub(crate) writer: String,
}

/// Everything the judge looks at.
pub(crate) struct Evidence {
    pub(crate) input: Vec<Record>,
    pub(crate) output: Vec<Record>,
    pub(crate) counts: Vec<Record>,
    /// Per partition of the input: the group's committed offset and the partition's end.
    pub(crate) offsets: Vec<(i64, i64)>,
}

/// How many faults of each kind, and examples in words.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) torn: u64,
    pub(crate) other: u64,
    pub(crate) examples: Vec<String>,
}

impl Findings {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.torn == 0 && self.other == 0
    }

    /// Puts what another look has found beside what is known.
    pub(crate) fn add(&mut self, more: Self) {
        self.lost += more.lost;
        self.doubled += more.doubled;
        self.torn += more.torn;
        self.other += more.other;
        self.examples.extend(more.examples);
    }

    pub(crate) fn other(&mut self, what: String) {
        self.other += 1;
        note(&mut self.examples, self.other, "other", what);
    }

    fn lost(&mut self, what: String) {
        self.lost += 1;
        note(&mut self.examples, self.lost, "lost", what);
    }

    fn doubled(&mut self, what: String) {
        self.doubled += 1;
        note(&mut self.examples, self.doubled, "doubled", what);
    }

    fn torn(&mut self, what: String) {
        self.torn += 1;
        note(&mut self.examples, self.torn, "torn", what);
    }
}

fn note(examples: &mut Vec<String>, number: u64, kind: &str, what: String) {
    if number <= EXAMPLES_MAX as u64 {
        examples.push(format!("{kind}: {what}"));
    }
}

/// Value of the input topic, as far as it is compared.
#[derive(Deserialize)]
struct InputValue {
    index: u64,
    delay: i64,
    distance: i64,
    time: f64,
}

#[derive(Deserialize)]
struct OutputValue {
    index: u64,
    hour: usize,
    late: bool,
}

/// Compares the evidence with the data set.
pub(crate) fn judge(flights: &Flights, evidence: &Evidence) -> Findings {
    let mut findings = Findings::default();
    let sent = flights.sent_by_hour();
    judge_input(flights, &sent, &evidence.input, &mut findings);
    judge_output(flights, &sent, &evidence.output, &mut findings);
    judge_counts(&sent, &evidence.counts, &mut findings);
    judge_pairs(sent.len(), evidence, &mut findings);
    for (partition, (committed, end)) in evidence.offsets.iter().enumerate() {
        if committed != end {
            findings.other(format!(
                "the group's offset in flights-{partition} is {committed}, its end {end}"
            ));
        }
    }
    findings
}

fn judge_input(flights: &Flights, sent: &[Vec<u64>], records: &[Record], findings: &mut Findings) {
    let mut found = Found::default();
    for record in records {
        let Ok(value) = serde_json::from_str::<InputValue>(&record.value) else {
            findings.other(format!(
                "flights {}: no flight: {}",
                place(record),
                record.value
            ));
            continue;
        };
        let expected = flights.get(value.index).filter(|flight| {
            (flight.delay, flight.distance) == (value.delay, value.distance)
                && (flight.time - value.time).abs() < 1e-9
                && is_at_home(record, flight.hour())
        });
        match expected {
            Some(flight) => found.add(flight.hour(), value.index, record),
            None => findings.other(format!(
                "flights {}: not what was sent: {}",
                place(record),
                record.value
            )),
        }
    }
    // Within a partition the order is that of sending across its hours, not only within each.
    let by_partition = |index: &u64| flights.get(*index).map(|flight| flight.hour() % PARTITIONS);
    let mut in_order = vec![Vec::new(); PARTITIONS];
    flights
        .sent()
        .for_each(|index| in_order[by_partition(&index).expect("sent records exist")].push(index));
    let mut read = vec![Vec::new(); PARTITIONS];
    for record in records {
        if let Ok(value) = serde_json::from_str::<InputValue>(&record.value) {
            read[record.partition].push(value.index);
        }
    }
    found.compare("flights", sent, findings);
    for (partition, (expected, read)) in in_order.iter().zip(&read).enumerate() {
        if expected.len() == read.len() && expected != read {
            findings.other(format!(
                "flights-{partition} is not in the order in which it was sent"
            ));
        }
    }
}

fn judge_output(flights: &Flights, sent: &[Vec<u64>], records: &[Record], findings: &mut Findings) {
    let mut found = Found::default();
    for record in records {
        let Ok(value) = serde_json::from_str::<OutputValue>(&record.value) else {
            findings.other(format!(
                "flights-out {}: no output: {}",
                place(record),
                record.value
            ));
            continue;
        };
        let expected = flights.get(value.index).filter(|flight| {
            (flight.hour(), flight.is_late()) == (value.hour, value.late)
                && is_at_home(record, flight.hour())
        });
        match expected {
            Some(flight) => found.add(flight.hour(), value.index, record),
            None => findings.other(format!(
                "flights-out {}: wrong: {} by {}",
                place(record),
                record.value,
                record.writer
            )),
        }
    }
    found.compare("flights-out", sent, findings);
}

fn judge_counts(sent: &[Vec<u64>], records: &[Record], findings: &mut Findings) {
    let mut found = Found::default();
    for record in records {
        match (record.key.parse::<usize>(), record.value.parse::<u64>()) {
            (Ok(hour), Ok(count)) if hour < sent.len() && is_at_home(record, hour) => {
                found.add(hour, count, record)
            }
            _ => findings.other(format!(
                "flights-per-hour {}: wrong: {}={} by {}",
                place(record),
                record.key,
                record.value,
                record.writer
            )),
        }
    }
    let expected: Vec<Vec<u64>> = sent
        .iter()
        .map(|hour| (1..=hour.len() as u64).collect())
        .collect();
    found.compare("flights-per-hour", &expected, findings);
}

/// The k-th output of an hour and its k-th count must be of one transaction.
fn judge_pairs(hours: usize, evidence: &Evidence, findings: &mut Findings) {
    let (outputs, counts) = (by_key(&evidence.output), by_key(&evidence.counts));
    for hour in 0..hours {
        let key = hour.to_string();
        let outputs = outputs.get(key.as_str()).map_or(&[][..], Vec::as_slice);
        let counts = counts.get(key.as_str()).map_or(&[][..], Vec::as_slice);
        for k in 0..outputs.len().max(counts.len()) {
            let (output, count) = (outputs.get(k), counts.get(k));
            let agree = output
                .zip(count)
                .is_some_and(|(o, c)| o.writer == c.writer && !o.writer.is_empty());
            if !agree {
                let who = |record: Option<&&Record>| {
                    record.map_or("nobody".to_owned(), |record| by(record))
                };
                findings.torn(format!(
                    "hour {hour}, number {}: output by {}, count by {}",
                    k + 1,
                    who(output),
                    who(count)
                ));
            }
        }
    }
}

fn by_key(records: &[Record]) -> BTreeMap<&str, Vec<&Record>> {
    let mut keys: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        keys.entry(record.key.as_str()).or_default().push(record);
    }
    keys
}

/// What was found, per hour and in the order of reading: the number that should be there once, and where it is.
#[derive(Default)]
struct Found<'a> {
    by_hour: BTreeMap<usize, Vec<(u64, &'a Record)>>,
}

impl<'a> Found<'a> {
    fn add(&mut self, hour: usize, number: u64, record: &'a Record) {
        self.by_hour.entry(hour).or_default().push((number, record));
    }

    /// Each expected number once, and in this order.
    fn compare(&self, topic: &str, expected: &[Vec<u64>], findings: &mut Findings) {
        for (hour, expected) in expected.iter().enumerate() {
            let found = self.by_hour.get(&hour).map_or(&[][..], Vec::as_slice);
            let mut places: BTreeMap<u64, Vec<&Record>> = BTreeMap::new();
            for (number, record) in found {
                places.entry(*number).or_default().push(record);
            }
            let wanted: BTreeSet<u64> = expected.iter().copied().collect();
            let mut whole = places.len() == expected.len();
            for number in expected {
                if !places.contains_key(number) {
                    whole = false;
                    findings.lost(format!("{topic}, hour {hour}: {number}"));
                }
            }
            for (number, copies) in &places {
                for copy in &copies[1..] {
                    whole = false;
                    let (first, again) = (by(copies[0]), by(copy));
                    findings.doubled(format!(
                        "{topic}, hour {hour}: {number} by {first} and by {again}"
                    ));
                }
                if !wanted.contains(number) && copies.len() == 1 {
                    findings.doubled(format!(
                        "{topic}, hour {hour}: {number} is one too many, by {}",
                        by(copies[0])
                    ));
                }
            }
            if whole && !found.iter().map(|(number, _)| number).eq(expected) {
                findings.other(format!("{topic}, hour {hour}: not in order"));
            }
        }
    }
}

/// The key and the partition are those of the hour.
fn is_at_home(record: &Record, hour: usize) -> bool {
    record.key == hour.to_string() && record.partition == hour % PARTITIONS
}

fn place(record: &Record) -> String {
    format!("{}@{}", record.partition, record.offset)
}

fn by(record: &Record) -> String {
    format!("[{}] at {}", record.writer, place(record))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn flights() -> Flights {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/flights.jsonl");
        Flights::load(&path, 300).unwrap()
    }

    /// What a run without any fault leaves behind, ten records per transaction.
    fn perfect(flights: &Flights) -> Evidence {
        let mut evidence = Evidence {
            input: vec![],
            output: vec![],
            counts: vec![],
            offsets: vec![],
        };
        let mut counts = BTreeMap::<usize, u64>::new();
        for (at, index) in flights.sent().enumerate() {
            let flight = flights.get(index).unwrap();
            let hour = flight.hour();
            let count = counts.entry(hour).or_default();
            *count += 1;
            let record = |value: String, writer: String| Record {
                partition: hour % PARTITIONS,
                offset: i64::try_from(at).unwrap(),
                key: hour.to_string(),
                value,
                writer,
            };
            let (delay, distance, time, late) =
                (flight.delay, flight.distance, flight.time, flight.is_late());
            let writer = format!("t/0/{}", at / 10);
            evidence.input.push(record(
                serde_json::json!({"index": index, "delay": delay, "distance": distance, "time": time}).to_string(),
                String::new(),
            ));
            let output =
                serde_json::json!({"index": index, "hour": hour, "late": late}).to_string();
            evidence.output.push(record(output, writer.clone()));
            evidence.counts.push(record(count.to_string(), writer));
        }
        evidence
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Evidence), expected: (u64, u64, u64, u64)) {
        let flights = flights();
        let mut evidence = perfect(&flights);
        change(&mut evidence);
        let found = judge(&flights, &evidence);
        assert_eq!(
            (found.lost, found.doubled, found.torn, found.other),
            expected,
            "{:#?}",
            found.examples
        );
    }

    /// The last output of hour 12 in a list.
    fn last(records: &[Record]) -> usize {
        records
            .iter()
            .rposition(|record| record.key == "12")
            .unwrap()
    }

    #[test]
    fn a_perfect_run_has_no_findings() {
        check(|_| {}, (0, 0, 0, 0));
    }

    #[test]
    fn a_record_lost_with_its_count_is_lost_in_both_topics() {
        check(
            |e| {
                e.output.remove(last(&e.output));
                e.counts.remove(last(&e.counts));
            },
            (2, 0, 0, 0),
        );
    }

    #[test]
    fn a_record_processed_twice_is_doubled() {
        check(
            |e| {
                let again = Record {
                    writer: "t/1/1".into(),
                    ..e.output[last(&e.output)].clone()
                };
                let old: u64 = e.counts[last(&e.counts)].value.parse().unwrap();
                let count = Record {
                    value: (old + 1).to_string(),
                    ..again.clone()
                };
                e.output.push(again);
                e.counts.push(count);
            },
            (0, 2, 0, 0),
        );
    }

    #[test]
    fn a_count_written_twice_is_doubled() {
        check(
            |e| {
                let again = e.counts[last(&e.counts)].clone();
                e.counts.push(again);
            },
            (0, 1, 1, 0),
        );
    }

    #[test]
    fn an_output_without_its_count_is_torn() {
        check(|e| drop(e.counts.remove(last(&e.counts))), (1, 0, 1, 0));
    }

    #[test]
    fn an_output_of_another_transaction_than_its_count_is_torn() {
        check(|e| e.output[7].writer = "t/9/9".into(), (0, 0, 1, 0));
    }

    #[test]
    fn an_input_sent_twice_is_doubled() {
        check(|e| e.input.push(e.input[3].clone()), (0, 1, 0, 0));
    }

    #[test]
    fn order_content_and_offsets_are_looked_at() {
        check(|e| e.offsets = vec![(5, 5), (4, 5)], (0, 0, 0, 1));
        check(|e| e.input[2].value = "{}".into(), (1, 0, 0, 1));
        check(
            |e| {
                let hour: Vec<usize> = (0..e.output.len())
                    .filter(|i| e.output[*i].key == "12")
                    .collect();
                let (a, b) = (
                    e.output[hour[0]].value.clone(),
                    e.output[hour[1]].value.clone(),
                );
                e.output[hour[0]].value = b;
                e.output[hour[1]].value = a;
            },
            (0, 0, 0, 1),
        );
    }
}
