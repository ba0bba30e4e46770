//! Everything the harness itself asks of the broker, through librdkafka as any client would.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{COUNTS, GROUP, INPUT, OUTPUT};
use crate::flights::PARTITIONS;
use crate::judge::{Evidence, Record};
use crate::trap::HARNESS_CLIENT_ID;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Without any record, an open transaction included, which the broker ends after 20 s.
const READ_DEADLINE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

/// What all of the harness's own clients have in common.
pub(crate) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", HARNESS_CLIENT_ID)
        .set("reconnect.backoff.max.ms", "500")
        .set("enable.auto.commit", "false");
    config
}

/// Creates the three topics.
pub(crate) async fn create_topics(bootstrap: &str) -> Result<()> {
    let names = [INPUT, OUTPUT, COUNTS].map(str::to_owned);
    create(bootstrap, &names, i32::try_from(PARTITIONS)?).await
}

/// Creates topics that are not there yet.
pub(crate) async fn create(bootstrap: &str, names: &[String], partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let topics: Vec<_> = names
        .iter()
        .map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1)))
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(CALL_TIMEOUT))
        .operation_timeout(Some(CALL_TIMEOUT));
    for result in admin
        .create_topics(&topics, &options)
        .await
        .context("topics")?
    {
        if let Err((name, code)) = result
            && code != RDKafkaErrorCode::TopicAlreadyExists
        {
            bail!("topic {name}: {code}");
        }
    }
    Ok(())
}

/// The group's committed offset and the partition's end, per partition of the input.
pub(crate) struct Monitor {
    consumer: BaseConsumer,
}

impl Monitor {
    pub(crate) fn open(bootstrap: &str) -> Result<Self> {
        // Uncommitted, so that a transaction's pending offsets give the old ones and no wait.
        let consumer = config(bootstrap)
            .set("group.id", GROUP)
            .set("isolation.level", "read_uncommitted")
            .create()?;
        Ok(Self { consumer })
    }

    pub(crate) fn offsets(&self) -> Result<Vec<(i64, i64)>> {
        offsets_and_ends(&self.consumer, INPUT, i32::try_from(PARTITIONS)?)
    }
}

/// A group's committed offset (0 when there is none) and the end, of each partition of a topic.
pub(crate) fn offsets(
    bootstrap: &str,
    group: &str,
    topic: &str,
    partitions: i32,
) -> Result<Vec<(i64, i64)>> {
    let consumer: BaseConsumer = config(bootstrap)
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .create()?;
    until(READ_DEADLINE, || {
        offsets_and_ends(&consumer, topic, partitions)
    })
}

fn offsets_and_ends(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: i32,
) -> Result<Vec<(i64, i64)>> {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_range(topic, 0, partitions - 1);
    let committed = consumer.committed_offsets(wanted, CALL_TIMEOUT)?;
    let mut offsets = Vec::new();
    for element in committed.elements() {
        element.error()?;
        let (_, end) = consumer.fetch_watermarks(topic, element.partition(), CALL_TIMEOUT)?;
        let committed = if let Offset::Offset(offset) = element.offset() {
            offset
        } else {
            0
        };
        offsets.push((committed, end));
    }
    Ok(offsets)
}

/// Reads all there is to judge.
pub(crate) fn read_all(bootstrap: &str) -> Result<Evidence> {
    let offsets = until(READ_DEADLINE, || Monitor::open(bootstrap)?.offsets())?;
    Ok(Evidence {
        input: read_topic(bootstrap, INPUT)?,
        output: read_topic(bootstrap, OUTPUT)?,
        counts: read_topic(bootstrap, COUNTS)?,
        offsets,
    })
}

/// The values of a topic, as read_committed has them.
pub(crate) fn read_values(bootstrap: &str, topic: &str, partitions: i32) -> Result<Vec<String>> {
    let records = read_partitions(bootstrap, topic, partitions)?;
    Ok(records.into_iter().map(|record| record.value).collect())
}

/// A group's committed offset of a partition; 0 when there is none.
pub(crate) fn committed_offset(
    bootstrap: &str,
    group: &str,
    topic: &str,
    partition: i32,
) -> Result<i64> {
    let consumer: BaseConsumer = config(bootstrap)
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .create()?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(topic, partition);
    until(READ_DEADLINE, || {
        let committed = consumer.committed_offsets(wanted.clone(), CALL_TIMEOUT)?;
        let element = &committed.elements()[0];
        element.error()?;
        match element.offset() {
            Offset::Offset(offset) => Ok(offset),
            _ => Ok(0),
        }
    })
}

fn read_topic(bootstrap: &str, topic: &str) -> Result<Vec<Record>> {
    read_partitions(bootstrap, topic, i32::try_from(PARTITIONS)?)
}

fn read_partitions(bootstrap: &str, topic: &str, partitions: i32) -> Result<Vec<Record>> {
    read_with(bootstrap, topic, 0..partitions, record)
}

fn committed_reader(bootstrap: &str) -> Result<BaseConsumer> {
    Ok(config(bootstrap)
        .set("group.id", "judge")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()?)
}

/// Counts the records of the topics as they are committed, until it is told to end.
pub(crate) fn count(
    bootstrap: &str,
    topics: &[String],
    partitions: i32,
    seen: &AtomicU64,
    over: &AtomicBool,
) -> Result<()> {
    let consumer = committed_reader(bootstrap)?;
    let mut start = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..partitions {
            start.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
    }
    consumer.assign(&start)?;
    while !over.load(Ordering::Relaxed) {
        // Errors are the lost connections of a killed broker; one that stays shows as a lack of progress.
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// What is made of each record of these partitions, as read_committed has them.
pub(crate) fn read_with<T>(
    bootstrap: &str,
    topic: &str,
    partitions: Range<i32>,
    make: impl Fn(&BorrowedMessage<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    wait_until_stable(bootstrap, topic, partitions.clone())?;
    let consumer = committed_reader(bootstrap)?;
    let mut start = TopicPartitionList::new();
    for partition in partitions.clone() {
        start.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&start)?;
    let mut records = Vec::new();
    let mut unfinished: Vec<i32> = partitions.collect();
    let mut deadline = Instant::now() + READ_DEADLINE;
    while !unfinished.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                deadline = Instant::now() + READ_DEADLINE;
                records.push(make(&message)?);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unfinished.retain(|p| *p != partition)
            }
            Some(Err(error)) => eprintln!("judge: {topic}: {error}"),
            None if Instant::now() > deadline => {
                bail!("{topic}: the end of {unfinished:?} does not come")
            }
            None => {}
        }
    }
    Ok(records)
}

/// The last stable offset of each partition must be its end: then nothing is open, and the end under read_committed is final.
fn wait_until_stable(bootstrap: &str, topic: &str, partitions: Range<i32>) -> Result<()> {
    let end = |isolation: &str| -> Result<Vec<i64>> {
        let consumer: BaseConsumer = config(bootstrap)
            .set("isolation.level", isolation)
            .create()?;
        partitions
            .clone()
            .map(|p| Ok(consumer.fetch_watermarks(topic, p, CALL_TIMEOUT)?.1))
            .collect()
    };
    until(READ_DEADLINE, || {
        let (stable, all) = (end("read_committed")?, end("read_uncommitted")?);
        if stable == all {
            Ok(())
        } else {
            Err(anyhow!("{topic}: stable up to {stable:?} of {all:?}"))
        }
    })
}

fn record(message: &BorrowedMessage<'_>) -> Result<Record> {
    let text =
        |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let writer = message
        .headers()
        .and_then(|headers| headers.iter().find(|header| header.key == "writer"));
    Ok(Record {
        partition: usize::try_from(message.partition())?,
        offset: message.offset(),
        key: text(message.key()),
        value: text(message.payload()),
        writer: writer.map(|header| text(header.value)).unwrap_or_default(),
    })
}

/// Calls again until it works or the time is over.
fn until<T>(time: Duration, mut call: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + time;
    loop {
        match call() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
