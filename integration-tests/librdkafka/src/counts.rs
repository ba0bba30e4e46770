//! The running counts per hour: kept in memory, restored from the counts topic when a partition is given to this process.
//!
//! An hour belongs to one partition, so the owner of the partition is the only one who counts it.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::flights::PARTITIONS;

/// How long a restore may take. It can have to wait for a dead owner's open transaction, which the broker ends after the
/// transaction timeout (20 s) at the latest, and for a broker that is down.
const RESTORE_DEADLINE: Duration = Duration::from_secs(120);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two questions that the broker cannot hold open for us.
const PAUSE: Duration = Duration::from_millis(20);

/// Running count per hour, of the hours that this process owns.
#[derive(Default, Clone)]
pub(crate) struct Counts {
    by_hour: BTreeMap<u32, u64>,
}

impl Counts {
    /// Counts one more flight of this hour and says how many there are now.
    pub(crate) fn next(&mut self, hour: u32) -> u64 {
        let count = self.by_hour.entry(hour).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn forget(&mut self, partitions: &[i32]) {
        self.by_hour
            .retain(|hour, _| !partitions.contains(&partition_of(*hour)));
    }

    /// Reads the counts of these partitions anew. To be called after their committed offsets are known to be stable: whatever
    /// moved those offsets has then written its counts below the high watermark that is asked for here. A transaction
    /// that is still open below it, or decided but not marked there yet, is waited for.
    pub(crate) fn restore(
        &mut self,
        bootstrap: &str,
        topic: &str,
        partitions: &[i32],
    ) -> Result<()> {
        self.forget(partitions);
        let deadline = Instant::now() + RESTORE_DEADLINE;
        let uncommitted = reader(bootstrap, "read_uncommitted")?;
        let committed = reader(bootstrap, "read_committed")?;
        let mut wanted = Vec::new();
        for &partition in partitions {
            let high_watermark = end_of(&uncommitted, topic, partition, 0, deadline)?;
            // Under read_committed the end is the last stable offset.
            end_of(&committed, topic, partition, high_watermark, deadline)?;
            if high_watermark > 0 {
                wanted.push(partition);
            }
        }
        self.read(&committed, topic, &wanted, deadline)?;
        eprintln!("restored {partitions:?}: {:?}", self.by_hour);
        Ok(())
    }

    /// Reads each partition from its beginning to its end, committed records only.
    fn read(
        &mut self,
        consumer: &BaseConsumer,
        topic: &str,
        partitions: &[i32],
        deadline: Instant,
    ) -> Result<()> {
        let mut start = TopicPartitionList::new();
        for &partition in partitions {
            start.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&start)?;
        let mut unfinished: BTreeSet<i32> = partitions.iter().copied().collect();
        while !unfinished.is_empty() {
            if Instant::now() > deadline {
                bail!("the counts of partitions {unfinished:?} could not be read in time");
            }
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(message)) => self.take(&message)?,
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    unfinished.remove(&partition);
                }
                Some(Err(error)) => eprintln!("restore: {error}"),
            }
        }
        Ok(())
    }

    fn take(&mut self, message: &impl Message) -> Result<()> {
        let text = |bytes: Option<&[u8]>| {
            std::str::from_utf8(bytes.unwrap_or_default()).map(str::to_owned)
        };
        let hour: u32 = text(message.key())?
            .parse()
            .context("a key of the counts topic is no hour")?;
        let count: u64 = text(message.payload())?
            .parse()
            .context("a value of the counts topic is no number")?;
        self.by_hour.insert(hour, count);
        Ok(())
    }
}

fn partition_of(hour: u32) -> i32 {
    i32::try_from(hour % PARTITIONS).expect("less than the number of partitions")
}

/// A consumer that joins no group: librdkafka wants a group id for `assign`, but nothing is ever committed to it.
fn reader(bootstrap: &str, isolation: &str) -> Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "restore")
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .set("reconnect.backoff.max.ms", "500")
        .create()?)
}

/// Asks for the end of a partition, as this consumer's isolation level has it, until it is at least `minimum`.
fn end_of(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    minimum: i64,
    deadline: Instant,
) -> Result<i64> {
    loop {
        match consumer.fetch_watermarks(topic, partition, CALL_TIMEOUT) {
            Ok((_, end)) if end >= minimum => return Ok(end),
            Ok((_, end)) => {
                eprintln!("restore: {topic}-{partition} is stable up to {end} of {minimum}")
            }
            Err(error) => eprintln!("restore: end of {topic}-{partition}: {error}"),
        }
        if Instant::now() > deadline {
            bail!("the end of {topic}-{partition} is not stable up to {minimum} in time");
        }
        thread::sleep(PAUSE);
    }
}
