//! The processor: reads flights as a member of a group and writes, in one transaction per batch, an output record and a
//! count for each, and the group's offsets.
//!
//! Invariants:
//! - Only messages of partitions that this process owns now are in the batch, each partition's in order and without a gap.
//! - No call that can rebalance is made between the beginning and the end of a transaction.
//! - The counts in memory are those of the last committed transaction: a batch that is aborted puts the old ones back.
//! - After an abort the position is the committed offset, or the process ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::Stop;
use crate::counts::Counts;
use crate::flights::{InputValue, OutputValue};
use crate::owned::{Change, Ownership};
use crate::transaction::{Output, Transactions};

/// A batch that is not full is processed after this long.
const COLLECT_TIME: Duration = Duration::from_millis(100);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the committed offsets may stay unknown (broker down, transaction of another owner pending).
const OFFSETS_DEADLINE: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    group: String,
    #[arg(long)]
    transactional_id: String,
    #[arg(long = "in")]
    input: String,
    #[arg(long = "out")]
    output: String,
    #[arg(long)]
    counts: String,
    /// Goes into the writer header; another one each time a processor is started
    #[arg(long)]
    instance: String,
    #[arg(long)]
    batch: usize,
    /// Abort each n-th transaction on purpose
    #[arg(long)]
    abort_every: u64,
    /// The negative control: commit the offsets before the outputs are written
    #[arg(long)]
    offsets_first: bool,
    /// The group protocol, by Kafka's names: classic or consumer
    #[arg(long, default_value = "classic")]
    group_protocol: String,
}

/// A message of the input topic, out of librdkafka's hands.
struct Input {
    partition: i32,
    offset: i64,
    key: Vec<u8>,
    value: InputValue,
}

struct Processor<'a> {
    options: &'a Options,
    consumer: BaseConsumer<Ownership>,
    transactions: Transactions,
    counts: Counts,
    batch: Vec<Input>,
    transaction_number: u64,
    committed_records: usize,
    stop: Arc<AtomicBool>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&stop))?;
    let mut processor = Processor {
        options,
        transactions: Transactions::open(&options.bootstrap, &options.transactional_id)?,
        consumer: consumer(options)?,
        counts: Counts::default(),
        batch: Vec::new(),
        transaction_number: 0,
        committed_records: 0,
        stop,
    };
    processor.run()
}

fn consumer(options: &Options) -> Result<BaseConsumer<Ownership>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.bootstrap)
        .set("client.id", &options.transactional_id)
        .set("group.id", &options.group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("reconnect.backoff.max.ms", "500")
        .set("retry.backoff.ms", "50");
    if options.group_protocol == "consumer" {
        // Sessions and heartbeats are the broker's to say.
        config.set("group.protocol", "consumer");
    } else {
        config
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1000");
    }
    let consumer: BaseConsumer<Ownership> = config.create_with_context(Ownership::default())?;
    consumer.subscribe(&[&options.input])?;
    Ok(consumer)
}

impl Processor<'_> {
    fn run(&mut self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            self.collect()?;
            if self.batch.is_empty() {
                continue;
            }
            match self.process() {
                Ok(()) => {}
                Err(Stop::Abort(why)) => self.redo(&why)?,
                Err(Stop::Fatal(why)) => bail!(why),
            }
        }
        eprintln!("asked to stop");
        Ok(())
    }

    /// Polls until the batch is full or its time is over; a rebalance is acted upon as soon as the call that served it returns.
    fn collect(&mut self) -> Result<()> {
        let end = Instant::now() + COLLECT_TIME;
        while self.batch.len() < self.options.batch && Instant::now() < end {
            let polled = match self.consumer.poll(Duration::from_millis(20)) {
                None => None,
                Some(Ok(message)) => Some(Input {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().unwrap_or_default().to_vec(),
                    value: serde_json::from_slice(message.payload().unwrap_or_default())
                        .with_context(|| {
                            format!("no flight at {}-{}", message.partition(), message.offset())
                        })?,
                }),
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => bail!("consumer: {code}"),
                Some(Err(error)) => {
                    eprintln!("consumer: {error}");
                    None
                }
            };
            self.follow_group()?;
            self.batch.extend(polled);
        }
        Ok(())
    }

    fn follow_group(&mut self) -> Result<()> {
        for change in self.consumer.context().take_changes() {
            match change {
                Change::Taken(partitions) => {
                    self.batch
                        .retain(|input| !partitions.contains(&input.partition));
                    self.counts.forget(&partitions);
                }
                Change::Given(partitions) => {
                    // Stable offsets first, then the counts: see `Counts::restore`.
                    self.committed_offsets(&partitions)?;
                    self.counts.restore(
                        &self.options.bootstrap,
                        &self.options.counts,
                        &partitions,
                    )?;
                }
            }
        }
        Ok(())
    }

    /// One transaction. An error that asks for an abort leaves it open.
    fn process(&mut self) -> Result<(), Stop> {
        let offsets = self.offsets_of_batch();
        if self.options.offsets_first {
            self.consumer
                .commit(&offsets, CommitMode::Sync)
                .map_err(|e| Stop::Abort(format!("commit: {e}")))?;
        }
        self.transaction_number += 1;
        let options = self.options;
        let writer = format!(
            "{}/{}/{}",
            options.transactional_id, options.instance, self.transaction_number
        );
        let mut counts = self.counts.clone();
        eprintln!(
            "{writer}: {} records, {}",
            self.batch.len(),
            describe(&offsets)
        );
        self.transactions.begin()?;
        for input in &self.batch {
            self.write(input, &writer, &mut counts)?;
        }
        if !options.offsets_first {
            let group = self
                .consumer
                .group_metadata()
                .ok_or_else(|| Stop::Fatal("no group metadata".into()))?;
            self.transactions.send_offsets(&offsets, &group)?;
            if self.transaction_number.is_multiple_of(options.abort_every) {
                return self.abort_on_purpose();
            }
        }
        self.transactions.commit()?;
        self.counts = counts;
        self.committed_records += self.batch.len();
        self.batch.clear();
        println!("committed {}", self.committed_records);
        Ok(())
    }

    fn write(&self, input: &Input, writer: &str, counts: &mut Counts) -> Result<(), Stop> {
        let hour = input.value.hour();
        let value = OutputValue {
            index: input.value.index,
            hour,
            late: input.value.is_late(),
        };
        let value = serde_json::to_string(&value).map_err(|e| Stop::Fatal(e.to_string()))?;
        let count = counts.next(hour).to_string();
        for (topic, value) in [
            (&self.options.output, &value),
            (&self.options.counts, &count),
        ] {
            self.transactions.write(&Output {
                topic,
                partition: input.partition,
                key: &input.key,
                value,
                writer,
            })?;
        }
        Ok(())
    }

    fn abort_on_purpose(&mut self) -> Result<(), Stop> {
        self.transactions.abort()?;
        self.rewind()
            .map_err(|error| Stop::Fatal(format!("rewind: {error:#}")))?;
        println!("aborted");
        Ok(())
    }

    fn redo(&mut self, why: &str) -> Result<()> {
        eprintln!("abort, because {why}");
        match self.transactions.abort() {
            Ok(()) => self.rewind(),
            Err(stop) => Err(anyhow!("{stop:?}")),
        }
    }

    /// The last message of each partition plus one: never the consumer's position, which may be of messages not in the batch.
    fn offsets_of_batch(&self) -> TopicPartitionList {
        let next: BTreeMap<i32, i64> = self
            .batch
            .iter()
            .map(|input| (input.partition, input.offset + 1))
            .collect();
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            offsets
                .add_partition_offset(&self.options.input, partition, Offset::Offset(offset))
                .expect("an offset that a message has had is a valid one");
        }
        offsets
    }

    /// Drops the batch and moves the consumer back to the committed offsets of everything it owns.
    fn rewind(&mut self) -> Result<()> {
        self.batch.clear();
        let owned: Vec<i32> = self
            .consumer
            .assignment()?
            .elements()
            .iter()
            .map(|e| e.partition())
            .collect();
        let mut committed = self.committed_offsets(&owned)?;
        if committed.count() == 0 {
            return Ok(());
        }
        for mut element in committed.elements() {
            // No offset and no error: nothing is committed yet.
            if element.offset() == Offset::Invalid {
                element.set_offset(Offset::Beginning)?;
            }
        }
        eprintln!("rewind to {}", describe(&committed));
        committed = self.consumer.seek_partitions(committed, CALL_TIMEOUT)?;
        for element in committed.elements() {
            element
                .error()
                .with_context(|| format!("seek in partition {}", element.partition()))?;
        }
        Ok(())
    }

    /// The group's offsets, stable ones: read_committed makes librdkafka ask for them, and try again while a transaction's are pending.
    fn committed_offsets(&self, partitions: &[i32]) -> Result<TopicPartitionList> {
        let deadline = Instant::now() + OFFSETS_DEADLINE;
        let mut wanted = TopicPartitionList::new();
        for &partition in partitions {
            wanted.add_partition(&self.options.input, partition);
        }
        if partitions.is_empty() {
            return Ok(wanted);
        }
        loop {
            match self
                .consumer
                .committed_offsets(wanted.clone(), CALL_TIMEOUT)
            {
                Ok(offsets) if offsets.elements().iter().all(|e| e.error().is_ok()) => {
                    return Ok(offsets);
                }
                Ok(offsets) => eprintln!("committed offsets: {}", describe(&offsets)),
                Err(error) => eprintln!("committed offsets: {error}"),
            }
            if Instant::now() > deadline {
                bail!("the committed offsets of {partitions:?} stay unknown");
            }
        }
    }
}

fn describe(offsets: &TopicPartitionList) -> String {
    let one = |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match e.error() {
        Ok(()) => format!("{}@{:?}", e.partition(), e.offset()),
        Err(error) => format!("{}: {error}", e.partition()),
    };
    offsets
        .elements()
        .iter()
        .map(one)
        .collect::<Vec<_>>()
        .join(" ")
}
