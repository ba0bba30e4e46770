//! What the connections of a load do: produce, fetch, transactions, and waiting.

use crate::engine::{Driver, Turn};
use crate::frames::Template;
use crate::requests::{self, FetchAsk};
use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use std::collections::VecDeque;
use std::rc::Rc;
use tally_testkit::client::Producer;

/// Codes after which the same request is sent again: the coordinator or the last transaction is not ready yet.
const AGAIN: [i16; 5] = [14, 15, 16, 19, 51];

/// What one producing connection sends: a batch for each partition of a topic in turn.
#[derive(Debug)]
pub(crate) struct ProduceLoad {
    topic: String,
    templates: Vec<Template>,
    batch_bytes: u64,
    records: i32,
}

impl ProduceLoad {
    /// Requests with `batch`, which has `records` records.
    pub(crate) fn new(topic: &str, partitions: i32, batch: &Bytes, records: i32) -> ProduceLoad {
        let templates = (0..partitions).map(|index| {
            let request = requests::produce(topic, None, &[(index, batch)]);
            Template::new(9, &request, std::slice::from_ref(batch))
        });
        ProduceLoad {
            topic: topic.to_owned(),
            templates: templates.collect(),
            batch_bytes: batch.len() as u64,
            records,
        }
    }

    /// Only the requests for one partition.
    pub(crate) fn only(mut self, partition: i32) -> ProduceLoad {
        self.templates = self.templates.split_off(partition.unsigned_abs() as usize);
        self.templates.truncate(1);
        self
    }
}

/// A connection that produces with several requests in flight.
pub(crate) struct Produce {
    load: Rc<ProduceLoad>,
    producer: Producer,
    sequences: Vec<i32>,
    next: usize,
    in_flight_max: usize,
    /// Since when those count that are under way, and when they were sent.
    sent: VecDeque<(u64, u64)>,
    /// Nanoseconds between two requests and when the next is due, where the rate is given.
    pace: Option<(u64, u64)>,
    /// Requests that are still to be sent.
    left: u64,
    is_counted: bool,
}

impl Produce {
    /// As many requests as the broker takes.
    pub(crate) fn new(load: Rc<ProduceLoad>, producer: Producer, in_flight_max: usize) -> Produce {
        let sequences = vec![0; load.templates.len()];
        // Connections begin with different partitions.
        let next = producer.id.unsigned_abs() as usize % load.templates.len();
        Produce {
            load,
            producer,
            sequences,
            next,
            in_flight_max,
            sent: VecDeque::new(),
            pace: None,
            left: u64::MAX,
            is_counted: true,
        }
    }

    /// So many requests in all.
    pub(crate) fn at_most(self, requests: u64) -> Produce {
        Produce {
            left: requests,
            ..self
        }
    }

    /// Somebody else counts what becomes of the records.
    pub(crate) fn uncounted(self) -> Produce {
        Produce {
            is_counted: false,
            ..self
        }
    }

    /// A request every `interval` nanoseconds, beginning `offset` nanoseconds after the start.
    pub(crate) fn paced(self, interval: u64, offset: u64) -> Produce {
        Produce {
            pace: Some((interval, offset)),
            in_flight_max: usize::MAX,
            ..self
        }
    }

    fn send(&mut self, at: u64, turn: &mut Turn<'_>) {
        let index = self.next;
        self.next = (index + 1) % self.load.templates.len();
        let sequence = self.sequences[index];
        self.load.templates[index].put_for(turn.out, self.producer, &[sequence], at);
        self.sequences[index] = sequence + self.load.records;
        self.sent.push_back((at, turn.now));
    }

    fn fill(&mut self, turn: &mut Turn<'_>) {
        let is_sending = !turn.is_ending && self.pace.is_none();
        while is_sending && self.left > 0 && self.sent.len() < self.in_flight_max {
            self.left -= 1;
            self.send(turn.now, turn);
        }
    }
}

impl Driver for Produce {
    fn begin(&mut self, turn: &mut Turn<'_>) {
        self.fill(turn);
    }

    fn answered(&mut self, frame: &[u8], _length: usize, turn: &mut Turn<'_>) -> Result<()> {
        let error = requests::produce_error(frame, &self.load.topic, 1)?;
        ensure!(error == 0, "Produce is answered with error {error}");
        let (since, sent) = self.sent.pop_front().unwrap_or((turn.now, turn.now));
        if self.is_counted {
            turn.record.latency.add(turn.now - since);
            if self.pace.is_some() {
                turn.record.from_sent.add(turn.now - sent);
            }
            turn.record.units += 1;
            turn.record.bytes += self.load.batch_bytes;
        }
        self.fill(turn);
        Ok(())
    }

    fn due(&self) -> Option<u64> {
        self.pace.map(|(_, due)| due)
    }

    fn tick(&mut self, turn: &mut Turn<'_>) {
        let Some((interval, due)) = self.pace else {
            return;
        };
        // From when it was due: who is late because the broker is late has waited.
        self.pace = Some((interval, due + interval));
        if turn.is_ending {
            self.pace = None;
        } else {
            turn.record.late.add(turn.now.saturating_sub(due));
            self.send(due, turn);
        }
    }

    fn is_idle(&self) -> bool {
        self.sent.is_empty()
    }
}

/// Which protocol of transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// Partitions and offsets are announced before (clients up to 3.9).
    Tv1,
    /// KIP-890: they are added as they are used, and each end gives a new epoch.
    Tv2,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    AddPartitions,
    Produce,
    AddOffsets,
    Offsets,
    End,
}

/// A connection that runs one transaction after the other: a batch for each partition of a topic, perhaps an offset, a
/// commit.
pub(crate) struct Transactions {
    flow: Flow,
    topic: String,
    partitions: usize,
    offsets_topic: String,
    steps: Vec<(Step, Template)>,
    at: usize,
    producer: Producer,
    sequence: i32,
    batch_bytes: u64,
    began: u64,
    step_began: u64,
    is_idle: bool,
}

/// What transactions are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransactionLoad<'a> {
    /// Which protocol.
    pub(crate) flow: Flow,
    /// Where the batches go.
    pub(crate) topic: &'a str,
    /// How many partitions of it.
    pub(crate) partitions: i32,
    /// Whether an offset is committed too.
    pub(crate) has_offsets: bool,
    /// A batch of one record.
    pub(crate) batch: &'a Bytes,
}

impl Transactions {
    /// The transactions of one producer.
    pub(crate) fn new(load: &TransactionLoad<'_>, id: &str, producer: Producer) -> Transactions {
        let TransactionLoad {
            flow,
            topic,
            partitions,
            has_offsets,
            batch,
        } = *load;
        let is_tv1 = flow == Flow::Tv1;
        let group = format!("{id}-group");
        let parts: Vec<(i32, &Bytes)> = (0..partitions).map(|index| (index, batch)).collect();
        let batches = vec![batch.clone(); parts.len()];
        let mut steps = Vec::new();
        if is_tv1 {
            let request = requests::add_partitions(id, topic, partitions);
            steps.push((Step::AddPartitions, Template::new(3, &request, &[])));
        }
        let request = requests::produce(topic, Some(id), &parts);
        let version = if is_tv1 { 11 } else { 12 };
        steps.push((Step::Produce, Template::new(version, &request, &batches)));
        if has_offsets && is_tv1 {
            let request = requests::add_offsets(id, &group);
            steps.push((Step::AddOffsets, Template::new(3, &request, &[])));
        }
        if has_offsets {
            let request = requests::offsets(id, &group, topic);
            let version = if is_tv1 { 3 } else { 5 };
            steps.push((Step::Offsets, Template::new(version, &request, &[])));
        }
        let version = if is_tv1 { 4 } else { 5 };
        steps.push((Step::End, Template::new(version, &requests::end(id), &[])));
        Transactions {
            flow,
            topic: topic.to_owned(),
            partitions: parts.len(),
            offsets_topic: topic.to_owned(),
            steps,
            at: 0,
            producer,
            sequence: 0,
            batch_bytes: (batch.len() * parts.len()) as u64,
            began: 0,
            step_began: 0,
            is_idle: true,
        }
    }

    fn send(&mut self, turn: &mut Turn<'_>) {
        let sequences = vec![self.sequence; self.partitions];
        self.steps[self.at]
            .1
            .put_for(turn.out, self.producer, &sequences, turn.now);
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.at = 0;
        self.is_idle = turn.is_ending;
        if !self.is_idle {
            self.began = turn.now;
            self.step_began = turn.now;
            self.send(turn);
        }
    }
}

impl Driver for Transactions {
    fn begin(&mut self, turn: &mut Turn<'_>) {
        self.start(turn);
    }

    fn answered(&mut self, frame: &[u8], _length: usize, turn: &mut Turn<'_>) -> Result<()> {
        let step = self.steps[self.at].0;
        let error = match step {
            Step::Produce => requests::produce_error(frame, &self.topic, self.partitions)?,
            Step::AddPartitions => requests::partitions_error(frame, &self.topic, self.partitions)?,
            Step::Offsets => requests::partitions_error(frame, &self.offsets_topic, 1)?,
            Step::AddOffsets | Step::End => requests::plain_error(frame)?,
        };
        if AGAIN.contains(&error) {
            turn.record.again += 1;
            self.send(turn);
            return Ok(());
        }
        ensure!(
            error == 0,
            "{step:?} of {:?} is answered with error {error}",
            self.flow
        );
        if step == Step::Produce {
            self.sequence += 1;
        }
        if step != Step::End {
            self.at += 1;
            self.step_began = turn.now;
            self.send(turn);
            return Ok(());
        }
        if self.flow == Flow::Tv2 {
            let next = requests::next_producer(frame)?;
            if next.epoch == self.producer.epoch && next.id == self.producer.id {
                bail!("EndTxn gave no new epoch");
            }
            self.producer = next;
            self.sequence = 0;
        }
        turn.record.units += 1;
        turn.record.bytes += self.batch_bytes;
        turn.record.latency.add(turn.now - self.began);
        turn.record.last_latency.add(turn.now - self.step_began);
        self.start(turn);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.is_idle
    }
}

/// A connection that reads a partition again and again, or the beginnings of many.
pub(crate) struct Fetch {
    topic: String,
    template: Template,
    /// Bytes and records of each batch, and the offset behind the last; none where the same is fetched each time.
    batches: Option<(usize, i64, i64)>,
    offset: i64,
    began: u64,
    is_idle: bool,
}

impl Fetch {
    /// Reads one partition from `offset` to `end` and begins again: batches of `batch_bytes` with `records` records.
    pub(crate) fn whole(
        topic: &str,
        ask: &FetchAsk,
        offset: i64,
        batches: (usize, i64, i64),
    ) -> Fetch {
        Fetch {
            topic: topic.to_owned(),
            template: Template::new(12, &requests::fetch(topic, ask), &[]),
            batches: Some(batches),
            offset,
            began: 0,
            is_idle: true,
        }
    }

    /// The same fetch again and again.
    pub(crate) fn same(topic: &str, ask: &FetchAsk) -> Fetch {
        Fetch {
            batches: None,
            ..Fetch::whole(topic, ask, 0, (0, 0, 0))
        }
    }

    fn send(&mut self, turn: &mut Turn<'_>) {
        self.is_idle = turn.is_ending;
        if !self.is_idle {
            self.began = turn.now;
            self.template.put_at(turn.out, self.offset);
        }
    }
}

impl Driver for Fetch {
    fn begin(&mut self, turn: &mut Turn<'_>) {
        self.send(turn);
    }

    fn answered(&mut self, frame: &[u8], length: usize, turn: &mut Turn<'_>) -> Result<()> {
        let fetched = requests::fetched(frame, &self.topic)?;
        ensure!(
            fetched.error == 0,
            "Fetch is answered with error {}",
            fetched.error
        );
        let Some((error, bytes, _)) = fetched.first else {
            bail!("Fetch is answered without partitions");
        };
        ensure!(
            error == 0,
            "Fetch of a partition is answered with error {error}"
        );
        ensure!(bytes > 0, "Fetch found nothing");
        if let Some((batch_bytes, records, end)) = self.batches {
            turn.record.bytes += bytes as u64;
            self.offset += (bytes / batch_bytes) as i64 * records;
            if self.offset >= end {
                self.offset = 0;
            }
        } else {
            turn.record.bytes += length as u64;
        }
        turn.record.units += 1;
        turn.record.latency.add(turn.now - self.began);
        self.send(turn);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.is_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, Limits, Record};
    use crate::floor;
    use std::time::Duration;

    /// Until so many bytes of batches have been answered.
    fn run(address: std::net::SocketAddr, drivers: Vec<Box<dyn Driver>>, bytes_max: u64) -> Record {
        let limits = Limits {
            warm_up: Duration::ZERO,
            warm_up_units: 0,
            measured: Duration::from_secs(30),
            bytes_max,
        };
        let engine = Engine::connect(address, drivers).unwrap();
        let outcome = engine.run(&limits, || Ok(0.0)).unwrap();
        assert!(outcome.record.bytes >= bytes_max);
        outcome.record
    }

    #[test]
    fn what_the_load_produces_is_what_it_fetches() {
        let directory = tempfile::tempdir().unwrap();
        let address = floor::listen(directory.path()).unwrap();
        let batch = requests::batch(5000, 4, true, false).encode();
        let length = batch.len();
        let load = Rc::new(ProduceLoad::new("t", 1, &batch, 4));
        let producer = Producer { id: 1, epoch: 0 };
        let produce = Produce::new(load, producer, 5).at_most(100);
        let written = run(address, vec![Box::new(produce)], 100 * length as u64);
        assert_eq!((written.units, written.bytes), (100, 100 * length as u64));
        let ask = FetchAsk::marked(0, 12_000);
        let fetch = Fetch::whole("t", &ask, 0, (length, 4, 400));
        let read = run(address, vec![Box::new(fetch)], 1_000_000);
        assert!(
            read.units >= 83,
            "twelve kilobytes at a time: {}",
            read.units
        );
    }

    #[test]
    fn transactions_of_both_flows_end() {
        let directory = tempfile::tempdir().unwrap();
        let address = floor::listen(directory.path()).unwrap();
        let batch = requests::batch(170, 1, true, true).encode();
        for flow in [Flow::Tv1, Flow::Tv2] {
            let load = TransactionLoad {
                flow,
                topic: "t",
                partitions: 3,
                has_offsets: true,
                batch: &batch,
            };
            let drivers = (0..2).map(|id| {
                let transactions = Transactions::new(&load, "id", Producer { id, epoch: 0 });
                Box::new(transactions) as Box<dyn Driver>
            });
            let done = run(address, drivers.collect(), 30 * batch.len() as u64);
            assert!(done.units >= 10);
            assert_eq!(done.again, 0);
        }
    }

    #[test]
    fn latencies_count_from_when_a_request_was_due_and_lateness_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let address = floor::listen(directory.path()).unwrap();
        let batch = requests::batch(170, 1, true, false).encode();
        let load = Rc::new(ProduceLoad::new("t", 1, &batch, 1));
        let producer = Producer { id: 1, epoch: 0 };
        // More than anybody can send: what is due waits ever longer.
        let produce = Produce::new(load, producer, 5).paced(1, 0);
        let done = run(address, vec![Box::new(produce)], 1000 * batch.len() as u64);
        let last = |of: &crate::histogram::Histogram| of.percentile_ms(1.0).unwrap();
        let (all, late, sent) = (last(&done.latency), last(&done.late), last(&done.from_sent));
        assert!(late > 0.0 && sent > 0.0, "{late} {sent}");
        assert!(all >= sent, "{all} {sent}");
    }
}
