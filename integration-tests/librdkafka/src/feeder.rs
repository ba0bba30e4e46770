//! The feeder: writes every flight once, in the agreed order, and tells how many the broker has acknowledged.
//!
//! With idempotence on, librdkafka keeps the order and drops the copies of its own retries; the broker's part is to
//! answer a repeated batch with its old offset. A delivery that fails for good ends the process: nothing may be left out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use crate::flights::{self, InputValue, PARTITIONS, hour_of};

/// Prime, and no divisor of the number of records: walks through all of them, in and out of every hour.
const STRIDE: u64 = 7919;
/// Progress is printed after this many acknowledgements.
const PRINT_EVERY: u64 = 250;
/// Longer than any run: a broker that is down for a while must not make the feeder give up.
const DELIVERY_TIMEOUT_MS: &str = "3600000";

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    data: PathBuf,
    /// How many records to send
    #[arg(long)]
    count: u64,
    /// The negative control: retries without sequence numbers
    #[arg(long)]
    no_idempotence: bool,
}

/// Counts acknowledgements; they are reported from inside `poll`.
#[derive(Default)]
struct Acknowledged {
    count: AtomicU64,
    failed: AtomicBool,
}

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        match delivery {
            Ok(_) => {
                let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
                if count.is_multiple_of(PRINT_EVERY) {
                    println!("sent {count}");
                }
            }
            Err((error, _)) => {
                eprintln!("delivery failed: {error}");
                self.failed.store(true, Ordering::Relaxed);
            }
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let flights = flights::load(&options.data)?;
    let total = flights.len() as u64;
    let producer = producer(options)?;
    for i in 0..options.count {
        let index = STRIDE * i % total;
        let flight = &flights[usize::try_from(index)?];
        let value = InputValue {
            index,
            delay: flight.delay,
            distance: flight.distance,
            time: flight.time,
        };
        send(&producer, &options.topic, &value)?;
    }
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(100));
        stop_when_failed(&producer)?;
    }
    let acknowledged = producer.context().count.load(Ordering::Relaxed);
    if acknowledged != options.count {
        bail!(
            "{acknowledged} of {} records are acknowledged",
            options.count
        );
    }
    println!("done {acknowledged}");
    Ok(())
}

fn producer(options: &Options) -> Result<BaseProducer<Acknowledged>> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", &options.bootstrap)
        .set("client.id", "feeder")
        .set(
            "enable.idempotence",
            if options.no_idempotence {
                "false"
            } else {
                "true"
            },
        )
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("message.timeout.ms", DELIVERY_TIMEOUT_MS)
        // The broker comes back within a second or two; the client's own pauses should not be longer.
        .set("reconnect.backoff.max.ms", "500")
        .set("retry.backoff.ms", "50")
        .set("queue.buffering.max.messages", "10000")
        .create_with_context(Acknowledged::default())?;
    Ok(producer)
}

/// Queues one record, waiting for room as long as it takes.
fn send(producer: &BaseProducer<Acknowledged>, topic: &str, value: &InputValue) -> Result<()> {
    let hour = hour_of(value.time);
    let key = hour.to_string();
    let payload = serde_json::to_string(value)?;
    let partition = i32::try_from(hour % PARTITIONS)?;
    let mut record = BaseRecord::to(topic)
        .partition(partition)
        .key(&key)
        .payload(&payload);
    loop {
        producer.poll(Duration::ZERO);
        stop_when_failed(producer)?;
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(100));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

fn stop_when_failed(producer: &BaseProducer<Acknowledged>) -> Result<()> {
    if let Some((code, reason)) = producer.client().fatal_error() {
        bail!("fatal error {code}: {reason}");
    }
    if producer.context().failed.load(Ordering::Relaxed) {
        bail!("a delivery failed for good");
    }
    Ok(())
}
