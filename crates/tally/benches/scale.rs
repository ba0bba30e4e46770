//! What very many producers cost: memory for each, the time of a start, and how long the others wait. Run by
//! `scripts/scale`, never by continuous integration: it prints figures and judges nothing.
#![allow(
    clippy::print_stdout,
    reason = "a measurement for a person, not a part of the command"
)]

use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, ProduceCall, transactional_id};

const PARTITIONS: i32 = 100;
/// What an entry remembers (P-31).
const BATCHES: i32 = 5;
const IN_FLIGHT: usize = 8;
/// Requests whose latency is measured, one at a time.
const MEASURED: u64 = 20_000;

fn asked(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |value| value.parse().expect("a number"))
}

fn main() {
    let program = std::env::var("TALLY_BROKER");
    let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_tally").to_owned());
    let producers = asked("TALLY_SCALE_PRODUCERS", 1_000_000);
    let ids = asked("TALLY_SCALE_IDS", 100_000);
    // All entries are looked through every second instead of every ten minutes: its cost is in the latencies.
    let mut broker = Broker::start(&program, &["producer.id.expiration.check.interval.ms=1000"]);
    let mut client = broker.client();
    client.create_topic("scale", PARTITIONS, &[]);
    let empty = anonymous_bytes(&broker);
    println!("{:>9} KiB of memory with nothing in it", empty >> 10);

    let began = Instant::now();
    init_all(&mut client, ids);
    let with_ids = anonymous_bytes(&broker);
    told("transactional ids", ids, with_ids - empty, began.elapsed());

    let began = Instant::now();
    for sequence in 0..BATCHES {
        produce_all(&mut client, producers, sequence);
    }
    let all = anonymous_bytes(&broker);
    let took = began.elapsed();
    told(
        "idempotent producers with five batches",
        producers,
        all - with_ids,
        took,
    );

    latencies(&mut client, producers, ids);
    drop(client);
    let began = Instant::now();
    let is_clean = broker.stop();
    println!(
        "{:>9.2} s to stop, clean: {is_clean}",
        began.elapsed().as_secs_f64()
    );
    time_start(&mut broker, "to start after that");
    broker.kill();
    time_start(&mut broker, "to start after kill -9");
    let started = anonymous_bytes(&broker);
    println!("{:>9} MiB of memory after that start", started >> 20);
    // That they are all still known.
    let mut client = broker.client();
    produce(&mut client, producers - 1, BATCHES - 1);
}

fn told(what: &str, count: u64, bytes: u64, took: Duration) {
    let each = bytes / count.max(1);
    println!(
        "{count:>9} {what}: {each} bytes each, made in {:.1} s",
        took.as_secs_f64()
    );
}

fn time_start(broker: &mut Broker, what: &str) {
    let began = Instant::now();
    broker.start_again();
    println!("{:>9.2} s {what}", began.elapsed().as_secs_f64());
}

/// What the process has of memory that is no file's.
fn anonymous_bytes(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()));
    let status = status.expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        << 10
}

fn init_request(nth: u64) -> InitProducerIdRequest {
    InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(&format!("transactional-id-{nth}"))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1)
}

fn init_all(client: &mut Client, ids: u64) {
    let mut under_way = VecDeque::new();
    for nth in 0..ids {
        if under_way.len() == IN_FLIGHT {
            inited(client, &mut under_way);
        }
        under_way.push_back((**client).send(4, &init_request(nth)));
    }
    while !under_way.is_empty() {
        inited(client, &mut under_way);
    }
}

fn inited(client: &mut Client, under_way: &mut VecDeque<i32>) {
    let id = under_way.pop_front().expect("something is under way");
    let response = (**client).receive::<InitProducerIdRequest>(4, id);
    assert_eq!(response.error_code, 0);
}

fn request(client: &mut Client, producers: &[u64], sequence: i32) -> ProduceRequest {
    let parts = producers.iter().map(|&producer| {
        let id = i64::try_from(producer).expect("few");
        let index = i32::try_from(producer % u64::from(PARTITIONS.unsigned_abs())).expect("few");
        let batch = Batch::idempotent(id, 0, sequence, 1);
        ("scale", index, Some(batch.encode()))
    });
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: None,
        parts: parts.collect(),
    };
    client.produce_request(&call)
}

/// A batch of each producer, a request for as many as there are partitions.
fn produce_all(client: &mut Client, producers: u64, sequence: i32) {
    let mut under_way = VecDeque::new();
    let all: Vec<u64> = (0..producers).collect();
    for some in all.chunks(usize::try_from(PARTITIONS).expect("positive")) {
        if under_way.len() == IN_FLIGHT {
            produced(client, &mut under_way);
        }
        let request = request(client, some, sequence);
        under_way.push_back((**client).send(9, &request));
    }
    while !under_way.is_empty() {
        produced(client, &mut under_way);
    }
}

fn produced(client: &mut Client, under_way: &mut VecDeque<i32>) {
    let id = under_way.pop_front().expect("something is under way");
    let response = (**client).receive::<ProduceRequest>(9, id);
    for row in &response.responses[0].partition_responses {
        assert_eq!(row.error_code, 0);
    }
}

fn produce(client: &mut Client, producer: u64, sequence: i32) {
    let request = request(client, &[producer], sequence);
    let mut under_way = VecDeque::from([(**client).send(9, &request)]);
    produced(client, &mut under_way);
}

/// How long one request takes while all the others are known, one after the other over the whole range.
fn latencies(client: &mut Client, producers: u64, ids: u64) {
    let measured = MEASURED.min(producers);
    let step = producers / measured.max(1);
    let produce = timed(measured, |nth| produce(client, nth * step, BATCHES));
    println!("{produce}: a batch of one of them");
    let measured = MEASURED.min(ids);
    let step = ids / measured.max(1);
    let init = timed(measured, |nth| {
        let mut under_way = VecDeque::from([(**client).send(4, &init_request(nth * step))]);
        inited(client, &mut under_way);
    });
    println!("{init}: a new epoch for one of the ids");
}

fn timed(count: u64, mut ask: impl FnMut(u64)) -> String {
    let mut times: Vec<Duration> = (0..count)
        .map(|nth| {
            let began = Instant::now();
            ask(nth);
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1000].as_secs_f64() * 1000.0;
    format!(
        "{:>9.2} ms half of the time, 99 %: {:.2} ms, 99.9 %: {:.2} ms, longest: {:.2} ms",
        at(500),
        at(990),
        at(999),
        at(1000)
    )
}
