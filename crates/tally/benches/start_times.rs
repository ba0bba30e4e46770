//! How long a start takes with many partitions and with much data, after a clean stop and after kill -9. Run by
//! `scripts/start-times`, never by continuous integration: it prints figures and judges nothing.
#![allow(
    clippy::print_stdout,
    reason = "a measurement for a person, not a part of the command"
)]

use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, ProduceCall};

const IN_FLIGHT: usize = 16;
const BATCH_BYTES: usize = 900_000;

fn asked(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |value| value.parse().expect("a number"))
}

fn main() {
    let program = std::env::var("TALLY_BROKER");
    let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_tally").to_owned());
    let partitions = i32::try_from(asked("TALLY_START_PARTITIONS", 10_000)).expect("partitions");
    let mib = asked("TALLY_START_MIB", 20 * 1024);
    if partitions > 0 {
        measure(
            &program,
            &format!("{partitions} partitions, a batch each"),
            |client| {
                client.create_topic("many", partitions, &[]);
                let batch = Batch::plain(10).encode();
                let places = (0..partitions).map(|index| ("many", index));
                send(client, places, &batch);
            },
        );
    }
    if mib > 0 {
        measure(&program, &format!("{mib} MiB in 4 partitions"), |client| {
            client.create_topic("large", 4, &[]);
            let mut batch = Batch::plain(1);
            batch.records[0].value = Some(Bytes::from(vec![b'x'; BATCH_BYTES]));
            let count = (mib << 20) / u64::try_from(BATCH_BYTES).expect("small");
            let index = |nth| i32::try_from(nth % 4).expect("small");
            send(
                client,
                (0..count).map(|nth| ("large", index(nth))),
                &batch.encode(),
            );
        });
    }
}

/// Fills a broker, then starts it after a clean stop and after a kill.
fn measure(program: &str, what: &str, fill: impl FnOnce(&mut Client)) {
    let mut broker = Broker::start(program, &[]);
    let began = Instant::now();
    let mut client = broker.client();
    fill(&mut client);
    drop(client);
    println!("{what}: written in {:.1} s", seconds(began.elapsed()));
    let began = Instant::now();
    let is_clean = broker.stop();
    let took = seconds(began.elapsed());
    println!("  stopped in {took:.2} s, clean: {is_clean}");
    time_start(&mut broker, "after that stop");
    broker.kill();
    time_start(&mut broker, "after kill -9");
}

fn time_start(broker: &mut Broker, after: &str) {
    let began = Instant::now();
    broker.start_again();
    let took = seconds(began.elapsed());
    let io = std::fs::read_to_string(format!("/proc/{}/io", broker.pid())).unwrap_or_default();
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    let read: u64 = read.and_then(|read| read.parse().ok()).unwrap_or(0);
    let speed = Duration::from_nanos(read).as_secs_f64() / took;
    println!(
        "  {after}: {took:.2} s, {} MiB read, {speed:.2} GB/s",
        read >> 20
    );
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Sends the batch to each place, some at a time.
fn send<'a>(client: &mut Client, places: impl Iterator<Item = (&'a str, i32)>, batch: &Bytes) {
    let mut under_way = VecDeque::new();
    for (topic, index) in places {
        if under_way.len() == IN_FLIGHT {
            receive(client, &mut under_way);
        }
        let call = ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: None,
            parts: vec![(topic, index, Some(batch.clone()))],
        };
        let request = client.produce_request(&call);
        under_way.push_back((**client).send(9, &request));
    }
    while !under_way.is_empty() {
        receive(client, &mut under_way);
    }
}

fn receive(client: &mut Client, under_way: &mut VecDeque<i32>) {
    let id = under_way.pop_front().expect("something is under way");
    let response = (**client).receive::<ProduceRequest>(9, id);
    let row = &response.responses[0].partition_responses[0];
    assert_eq!(row.error_code, 0);
}
