//! One transactional step at a time, as the harness says: `begin`, `send PARTITION VALUE`, `offsets N`, `commit`, `abort`.
//! Each is answered with `ok`, or `failed` and why.

use std::io::BufRead;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const STEP_DEADLINE: Duration = Duration::from_secs(60);
/// A request without an answer is given up after this long, and its connection with it.
const REQUEST_TIMEOUT_MS: &str = "2500";

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    transactional_id: String,
    #[arg(long = "out")]
    output: String,
    #[arg(long = "in")]
    input: String,
    #[arg(long)]
    group: String,
    #[arg(long)]
    delivery_timeout_ms: String,
}

/// Keeps what became of the last record.
#[derive(Default)]
struct Deliveries(Mutex<Option<Result<(), String>>>);

impl Deliveries {
    fn take(&self) -> Option<Result<(), String>> {
        self.0.lock().ok()?.take()
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Ok(mut last) = self.0.lock() {
            *last = Some(match result {
                Ok(_) => Ok(()),
                Err((error, _)) => Err(error.to_string()),
            });
        }
    }
}

struct Steps<'a> {
    options: &'a Options,
    producer: ThreadedProducer<Deliveries>,
    consumer: BaseConsumer,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", &options.bootstrap)
        .set("client.id", &options.transactional_id)
        .set("transactional.id", &options.transactional_id)
        .set("socket.timeout.ms", REQUEST_TIMEOUT_MS)
        .set("message.timeout.ms", &options.delivery_timeout_ms)
        .set("linger.ms", "0")
        .set("reconnect.backoff.max.ms", "500")
        .set("metadata.recovery.strategy", "none")
        .create_with_context(Deliveries::default())?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &options.bootstrap)
        .set("group.id", &options.group)
        .create()?;
    let steps = Steps {
        options,
        producer,
        consumer,
    };
    steps.retried(|| steps.producer.init_transactions(CALL_TIMEOUT))?;
    println!("ok");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match steps.step(&line) {
            Ok(()) => println!("ok"),
            Err(error) => println!("failed {error:#}"),
        }
    }
    Ok(())
}

impl Steps<'_> {
    fn step(&self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["begin"] => self.producer.begin_transaction().map_err(Into::into),
            ["send", partition, value] => self.send(partition.parse()?, value),
            ["offsets", offset] => self.offsets(offset.parse()?),
            ["commit"] => self.retried(|| self.producer.commit_transaction(CALL_TIMEOUT)),
            ["abort"] => self.retried(|| self.producer.abort_transaction(CALL_TIMEOUT)),
            _ => bail!("not understood: {line}"),
        }
    }

    fn send(&self, partition: i32, value: &str) -> Result<()> {
        let record: BaseRecord<'_, str, str> = BaseRecord::to(&self.options.output)
            .partition(partition)
            .payload(value);
        self.producer.send(record).map_err(|(error, _)| error)?;
        self.producer.flush(STEP_DEADLINE)?;
        self.producer
            .context()
            .take()
            .context("no delivery report")?
            .map_err(|why| anyhow!(why))
    }

    fn offsets(&self, offset: i64) -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&self.options.input, 0, Offset::Offset(offset))?;
        let group = self
            .consumer
            .group_metadata()
            .context("no group metadata")?;
        self.retried(|| {
            self.producer
                .send_offsets_to_transaction(&offsets, &group, CALL_TIMEOUT)
        })
    }

    /// Makes a call again for as long as librdkafka says that this is of use.
    fn retried(&self, mut call: impl FnMut() -> KafkaResult<()>) -> Result<()> {
        let deadline = Instant::now() + STEP_DEADLINE;
        loop {
            match call() {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(why))
                    if why.is_retriable() && Instant::now() < deadline =>
                {
                    eprintln!("again: {why}");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
