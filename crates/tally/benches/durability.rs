//! What each durability mode costs a client: `cargo bench -p tally --bench durability [MODE...]`.
//!
//! Starts the broker once for each mode, on a directory of its own, and lets it answer: single batches, pipelined batches,
//! transactions and offset commits. `TMPDIR` names the file system, `TALLY_BENCH_BROKER` another binary, `TALLY_BENCH_MS`
//! how long each row takes.

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use std::collections::VecDeque;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, ProduceCall, Producer, transactional_id, unique};

/// Partitions of the topic that is written to.
const PARTITIONS: i32 = 8;
/// Batches under way on one connection: what clients allow with idempotence.
const IN_FLIGHT: usize = 5;
const RECORD_BYTES: usize = 1024;
/// Version of Produce: librdkafka's.
const PRODUCE: i16 = 9;
const MODES: [&str; 4] = ["memory", "os", "commit", "always"];

/// What is measured.
struct Row {
    what: &'static str,
    clients: usize,
    work: Work,
}

/// A client's work, done again and again: how long each of what it asked for took.
type Work = fn(&mut Worker, &mut Vec<Duration>);

const ROWS: [Row; 8] = [
    row("produce, one batch at a time", 1, single),
    row("produce, one batch at a time", 16, single),
    row("produce, five batches in flight", 4, pipelined),
    row("transaction of one batch", 1, transaction),
    row("transaction of one batch", 16, transaction),
    row("offset commit", 1, commit),
    row("offset commit", 16, commit),
    row("produce and commit its offset", 8, produce_and_commit),
];

const fn row(what: &'static str, clients: usize, work: Work) -> Row {
    Row {
        what,
        clients,
        work,
    }
}

struct Worker {
    client: Client,
    topic: String,
    partition: i32,
    /// Transactional id and group.
    id: String,
    producer: Producer,
    sequence: i32,
    offset: i64,
    in_flight: VecDeque<(i32, Instant)>,
}

impl Worker {
    fn new(broker: &Broker, topic: &str, partition: i32) -> Worker {
        let mut client = broker.client();
        let id = unique("bench");
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(&id)))
            .with_transaction_timeout_ms(60_000);
        let (error, producer) = client.init_producer_id(4, &request);
        assert_eq!(error, 0);
        client.wait_for_group(&id);
        Worker {
            client,
            topic: topic.to_owned(),
            partition,
            id,
            producer,
            sequence: 0,
            offset: 0,
            in_flight: VecDeque::new(),
        }
    }

    fn request(&mut self, mut batch: Batch, id: Option<&str>) -> ProduceRequest {
        batch.records[0].value = Some(Bytes::from_static(&[b'x'; RECORD_BYTES]));
        self.client.produce_request(&ProduceCall {
            version: PRODUCE,
            acks: -1,
            transactional_id: id,
            parts: vec![(&self.topic, self.partition, Some(batch.encode()))],
        })
    }

    fn produce(&mut self, batch: Batch, id: Option<&str>) {
        let request = self.request(batch, id);
        let response = self.client.call(PRODUCE, &request);
        self.offset = accepted(&response) + 1;
    }
}

/// The offset of an accepted batch.
fn accepted(response: &ProduceResponse) -> i64 {
    let result = &response.responses[0].partition_responses[0];
    assert_eq!(result.error_code, 0);
    result.base_offset
}

/// One batch, answered before the next one is sent.
fn single(worker: &mut Worker, took: &mut Vec<Duration>) {
    let request = worker.request(Batch::plain(1), None);
    let began = Instant::now();
    accepted(&worker.client.call(PRODUCE, &request));
    took.push(began.elapsed());
}

/// As many batches as may be under way.
fn pipelined(worker: &mut Worker, took: &mut Vec<Duration>) {
    let request = worker.request(Batch::plain(1), None);
    let sent = worker.client.send(PRODUCE, &request);
    worker.in_flight.push_back((sent, Instant::now()));
    if worker.in_flight.len() == IN_FLIGHT {
        let (sent, began) = worker.in_flight.pop_front().expect("it is not empty");
        accepted(&worker.client.receive::<ProduceRequest>(PRODUCE, sent));
        took.push(began.elapsed());
    }
}

/// AddPartitionsToTxn, a batch, EndTxn, as librdkafka does.
fn transaction(worker: &mut Worker, took: &mut Vec<Duration>) {
    let began = Instant::now();
    let (id, producer) = (worker.id.clone(), worker.producer);
    let joined = [(worker.topic.as_str(), worker.partition)];
    assert_eq!(worker.client.add_partitions(0, &id, producer, &joined), [0]);
    let batch = Batch::transactional(producer.id, producer.epoch, worker.sequence, 1);
    worker.produce(batch, Some(&id));
    worker.sequence += 1;
    assert_eq!(worker.client.end_txn(1, &id, producer, true).0, 0);
    took.push(began.elapsed());
}

/// An offset of a partition that nobody writes to.
fn commit(worker: &mut Worker, took: &mut Vec<Duration>) {
    let (group, topic) = (worker.id.clone(), worker.topic.clone());
    let began = Instant::now();
    let committed = worker.client.commit_offset(&group, &topic, PARTITIONS, 0);
    took.push(began.elapsed());
    assert_eq!(committed, 0);
}

/// What a consumer costs whose input must be synced with its offset.
fn produce_and_commit(worker: &mut Worker, took: &mut Vec<Duration>) {
    worker.produce(Batch::plain(1), None);
    let (group, topic) = (worker.id.clone(), worker.topic.clone());
    let (partition, offset) = (worker.partition, worker.offset);
    let began = Instant::now();
    let committed = worker
        .client
        .commit_offset(&group, &topic, partition, offset);
    took.push(began.elapsed());
    assert_eq!(committed, 0);
}

fn measure(broker: &Broker, row: &Row, run: Duration) {
    let topic = unique("bench");
    broker.client().create_topic(&topic, PARTITIONS + 1, &[]);
    let begin = Barrier::new(row.clients);
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let clients = (0..PARTITIONS).cycle().take(row.clients).map(|partition| {
            let (begin, topic) = (&begin, &topic);
            scope.spawn(move || {
                let mut worker = Worker::new(broker, topic, partition);
                begin.wait();
                let (began, mut took) = (Instant::now(), Vec::new());
                while began.elapsed() < run {
                    (row.work)(&mut worker, &mut took);
                }
                took
            })
        });
        let clients: Vec<_> = clients.collect();
        let took = clients.into_iter().map(|client| client.join());
        took.flat_map(|took| took.expect("no client fails"))
            .collect()
    });
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    let Row { what, clients, .. } = row;
    let rate = took.len() as f64 / run.as_secs_f64();
    let (p50, p99) = (at(50), at(99));
    println!("  {what:<33} {clients:>3} clients {rate:>9.0}/s   p50 {p50:>9.2?}   p99 {p99:>9.2?}");
}

fn main() {
    let program = std::env::var("TALLY_BENCH_BROKER");
    let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_tally").to_owned());
    let run = std::env::var("TALLY_BENCH_MS").ok();
    let run = run.map_or(3000, |ms| ms.parse().expect("milliseconds"));
    // Cargo adds --bench.
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    for mode in MODES {
        if !named.is_empty() && !named.iter().any(|name| name == mode) {
            continue;
        }
        println!("{mode}");
        let mut broker = Broker::start(&program, &[&format!("tally.durability={mode}")]);
        for row in &ROWS {
            measure(&broker, row, Duration::from_millis(run));
        }
        assert!(broker.stop(), "a clean stop");
    }
}
