//! The checks with the rdkafka crate. The contract is in ../../../README.md; `checks` runs them and prints a line for each.
//! Only the crate's blocking calls are used, and a thread of its own for each producer.

mod checks;

use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use checks::{Outcome, expect, restart_broker, texts, until};
use futures_executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(30);

fn main() {
    checks::run(check);
}

/// The check NAME, for `checks::run`.
fn check(client: &Client, name: &str) -> Result<Outcome> {
    match name {
        "group-consume" => client.group_consume(),
        "group-rebalance" => client.group_rebalance(),
        "idempotence" => client.idempotence(),
        "transaction-commit-abort" => client.transaction_commit_abort(),
        "transaction-offsets" => client.transaction_offsets(),
        "seek" => client.seek(),
        "timestamp-lookup" => client.timestamp_lookup(),
        "headers" => client.headers(),
        "large-record" => client.large_record(),
        "empty-record" => client.content("empty", Some(b""), Some(b"")),
        "tombstone" => client.content("tombstone", Some(b"k"), None),
        "admin-topics" => client.admin_topics(),
        "admin-config" => client.admin_config(),
        "reconnect" => return client.reconnect(),
        _ => client.codec(name.strip_prefix("codec-").context("no such check")?),
    }?;
    Ok(Outcome::Passed)
}

/// Hands the end of each delivery to whoever waits for it.
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Sender<Result<()>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let outcome = result
            .as_ref()
            .map(|_| ())
            .map_err(|(error, _)| anyhow!("{error}"));
        // Nobody waits any more when another record has failed.
        drop(waiting.send(outcome));
    }
}

type Sending = ThreadedProducer<Deliveries>;

/// What is sent: partition, key, value, time in milliseconds, headers.
#[derive(Default)]
struct Record {
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    time: Option<i64>,
    headers: Option<OwnedHeaders>,
}

fn records(partition: i32, values: Vec<Vec<u8>>) -> Vec<Record> {
    let record = |value| Record {
        partition,
        value: Some(value),
        ..Record::default()
    };
    values.into_iter().map(record).collect()
}

/// Sends the records and waits until the broker has all of them.
fn deliver(producer: &Sending, topic: &str, records: &[Record]) -> Result<()> {
    let (sender, delivered) = channel();
    for record in records {
        let mut message: BaseRecord<'_, Vec<u8>, Vec<u8>, _> =
            BaseRecord::with_opaque_to(topic, Box::new(sender.clone())).partition(record.partition);
        message.key = record.key.as_ref();
        message.payload = record.value.as_ref();
        message.timestamp = record.time;
        message.headers = record.headers.clone();
        producer.send(message).map_err(|(error, _)| error)?;
    }
    for _ in records {
        delivered.recv_timeout(TIMEOUT).context("a delivery")??;
    }
    Ok(())
}

/// The next record, if one comes in time. Errors that the library mends by itself are none.
fn next(consumer: &BaseConsumer, within: Duration) -> Result<Option<OwnedMessage>> {
    match consumer.poll(within) {
        None => Ok(None),
        Some(Ok(message)) => Ok(Some(message.detach())),
        Some(Err(error))
            if error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::Fatal) =>
        {
            Err(error.into())
        }
        Some(Err(error)) => {
            eprintln!("consumer: {error}");
            Ok(None)
        }
    }
}

/// The next COUNT records; then there must be no further one.
fn take(consumer: &BaseConsumer, count: usize) -> Result<Vec<OwnedMessage>> {
    let mut got = Vec::new();
    until(&format!("{count} records"), || {
        while got.len() < count {
            let Some(message) = next(consumer, Duration::from_millis(200))? else {
                return Ok(false);
            };
            got.push(message);
        }
        Ok(true)
    })?;
    ensure!(
        next(consumer, Duration::from_millis(300))?.is_none(),
        "more than {count} records"
    );
    Ok(got)
}

fn values(messages: &[OwnedMessage]) -> Vec<Vec<u8>> {
    messages
        .iter()
        .map(|message| message.payload().unwrap_or_default().to_vec())
        .collect()
}

fn at(topic: &str, offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, offset)?;
    Ok(list)
}

fn offset_of(list: &TopicPartitionList) -> Option<Offset> {
    list.elements().first().map(|element| element.offset())
}

struct Client {
    bootstrap: String,
    prefix: String,
}

impl Client {
    fn config(&self, more: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("reconnect.backoff.max.ms", "500");
        for (name, value) in more {
            config.set(*name, *value);
        }
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.config(&[]).create()?)
    }

    fn topic(&self, name: &str, partitions: i32) -> Result<String> {
        let topic = format!("{}-{name}", self.prefix);
        let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        for result in block_on(self.admin()?.create_topics([&new], &options()))? {
            result.map_err(|(_, code)| anyhow!("creating: {code}"))?;
        }
        Ok(topic)
    }

    fn producer(&self, more: &[(&str, &str)]) -> Result<Sending> {
        let common = [
            ("acks", "all"),
            ("message.max.bytes", "2000000"),
            ("linger.ms", "20"),
        ];
        let producer: Sending = self
            .config(&[&common, more].concat())
            .create_with_context(Deliveries)?;
        if more.iter().any(|(name, _)| *name == "transactional.id") {
            producer.init_transactions(TIMEOUT)?;
        }
        Ok(producer)
    }

    fn send(&self, topic: &str, records: &[Record]) -> Result<()> {
        deliver(&self.producer(&[])?, topic, records)
    }

    fn consumer(&self, group: &str, isolation: &str) -> Result<BaseConsumer> {
        let options = [
            ("group.id", group),
            ("isolation.level", isolation),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
            ("heartbeat.interval.ms", "300"),
            ("session.timeout.ms", "10000"),
            ("fetch.wait.max.ms", "200"),
        ];
        Ok(self.config(&options).create()?)
    }

    fn member(&self, topic: &str) -> Result<BaseConsumer> {
        let consumer = self.consumer(topic, "read_committed")?;
        consumer.subscribe(&[topic])?;
        Ok(consumer)
    }

    fn read(&self, topic: &str, count: usize, isolation: &str) -> Result<Vec<OwnedMessage>> {
        let consumer = self.consumer("none", isolation)?;
        consumer.assign(&at(topic, Offset::Beginning)?)?;
        take(&consumer, count)
    }

    fn codec(&self, name: &str) -> Result<()> {
        let topic = self.topic(&format!("codec-{name}"), 1)?;
        let producer = self.producer(&[("compression.type", name)])?;
        deliver(&producer, &topic, &records(0, texts(0..200)))?;
        expect(
            "values",
            &values(&self.read(&topic, 200, "read_committed")?),
            &texts(0..200),
        )
    }

    fn group_consume(&self) -> Result<()> {
        let topic = self.topic("group", 3)?;
        for (partition, first) in [(0, 0), (1, 50), (2, 100)] {
            self.send(&topic, &records(partition, texts(first..first + 50)))?;
        }
        let consumer = self.member(&topic)?;
        let got: BTreeSet<_> = values(&take(&consumer, 150)?).into_iter().collect();
        expect("values", &got, &texts(0..150).into_iter().collect())?;
        consumer.commit_consumer_state(CommitMode::Sync)?;
        drop(consumer);
        self.send(&topic, &records(1, texts(150..160)))?;
        let got = take(&self.member(&topic)?, 10)?;
        expect("values after the commit", &values(&got), &texts(150..160))
    }

    fn group_rebalance(&self) -> Result<()> {
        let topic = self.topic("rebalance", 4)?;
        let producer = self.producer(&[])?;
        let mut seen = BTreeSet::new();
        let mut sent = 0;
        let mut more = || -> Result<usize> {
            for partition in 0..4 {
                deliver(
                    &producer,
                    &topic,
                    &records(partition, texts(sent..sent + 10)),
                )?;
                sent += 10;
            }
            Ok(sent)
        };
        let mut drain = |consumer: &BaseConsumer| -> Result<usize> {
            while let Some(message) = next(consumer, Duration::from_millis(100))? {
                seen.insert(message.payload().unwrap_or_default().to_vec());
            }
            Ok(seen.len())
        };
        let mut shares = |wanted: usize, consumers: &[&BaseConsumer]| {
            until(&format!("{wanted} partitions for each"), || {
                let mut all = true;
                for consumer in consumers {
                    drain(consumer)?;
                    all &= consumer.assignment()?.count() == wanted;
                }
                Ok(all)
            })
        };
        let first = self.member(&topic)?;
        shares(4, &[&first])?;
        more()?;
        let second = self.member(&topic)?;
        shares(2, &[&first, &second])?;
        more()?;
        shares(2, &[&first, &second])?;
        drop(second);
        let sent = more()?;
        shares(4, &[&first])?;
        until("every record", || Ok(drain(&first)? == sent))
    }

    fn idempotence(&self) -> Result<()> {
        let topic = self.topic("idempotence", 1)?;
        let producer = self.producer(&[("enable.idempotence", "true")])?;
        deliver(&producer, &topic, &records(0, texts(0..500)))?;
        expect(
            "values",
            &values(&self.read(&topic, 500, "read_committed")?),
            &texts(0..500),
        )
    }

    fn transaction_commit_abort(&self) -> Result<()> {
        let topic = self.topic("transaction", 1)?;
        let producer = self.producer(&[("transactional.id", &topic)])?;
        for (first, commits) in [(0, true), (5, false), (10, true)] {
            producer.begin_transaction()?;
            deliver(&producer, &topic, &records(0, texts(first..first + 5)))?;
            end(&producer, commits)?;
        }
        let committed = values(&self.read(&topic, 10, "read_committed")?);
        expect(
            "read_committed",
            &committed,
            &[texts(0..5), texts(10..15)].concat(),
        )?;
        expect(
            "read_uncommitted",
            &values(&self.read(&topic, 15, "read_uncommitted")?),
            &texts(0..15),
        )
    }

    fn transaction_offsets(&self) -> Result<()> {
        let (topic, out) = (self.topic("offsets-in", 1)?, self.topic("offsets-out", 1)?);
        self.send(&topic, &records(0, texts(0..20)))?;
        let consumer = self.member(&topic)?;
        take(&consumer, 20)?;
        let producer = self.producer(&[("transactional.id", &topic)])?;
        for (offset, commits) in [(10, true), (20, false)] {
            producer.begin_transaction()?;
            deliver(
                &producer,
                &out,
                &records(0, vec![offset.to_string().into_bytes()]),
            )?;
            let group = consumer.group_metadata().context("the group's metadata")?;
            producer.send_offsets_to_transaction(
                &at(&topic, Offset::Offset(offset))?,
                &group,
                TIMEOUT,
            )?;
            end(&producer, commits)?;
        }
        let committed = consumer.committed_offsets(at(&topic, Offset::Invalid)?, TIMEOUT)?;
        expect(
            "committed offset",
            &offset_of(&committed),
            &Some(Offset::Offset(10)),
        )?;
        expect(
            "output",
            &values(&self.read(&out, 1, "read_committed")?),
            &vec![b"10".to_vec()],
        )
    }

    fn seek(&self) -> Result<()> {
        let topic = self.topic("seek", 1)?;
        self.send(&topic, &records(0, texts(0..100)))?;
        let consumer = self.consumer("none", "read_committed")?;
        consumer.assign(&at(&topic, Offset::Beginning)?)?;
        take(&consumer, 100)?;
        for (offset, rest) in [(42, 58), (99, 1), (7, 93), (0, 100)] {
            consumer.seek(&topic, 0, Offset::Offset(offset), TIMEOUT)?;
            let got = take(&consumer, rest)?;
            expect(
                "offset",
                &got.first().map(OwnedMessage::offset),
                &Some(offset),
            )?;
        }
        Ok(())
    }

    fn timestamp_lookup(&self) -> Result<()> {
        let topic = self.topic("timestamps", 1)?;
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let base = now - 100_000;
        let stamped = |i: i64| Record {
            value: Some(b"x".to_vec()),
            time: Some(base + i * 1000),
            ..Record::default()
        };
        self.send(&topic, &(0..10).map(stamped).collect::<Vec<_>>())?;
        let consumer = self.consumer("none", "read_committed")?;
        let found = [
            (0, Offset::Offset(0)),
            (4500, Offset::Offset(5)),
            (9000, Offset::Offset(9)),
            (10_000, Offset::End),
        ];
        for (after, offset) in found {
            let times = at(&topic, Offset::Offset(base + after))?;
            let found = consumer.offsets_for_times(times, TIMEOUT)?;
            expect(
                &format!("offset {after} ms later"),
                &offset_of(&found),
                &Some(offset),
            )?;
        }
        expect(
            "ends",
            &consumer.fetch_watermarks(&topic, 0, TIMEOUT)?,
            &(0, 10),
        )
    }

    fn one(&self, name: &str, record: Record) -> Result<OwnedMessage> {
        let topic = self.topic(name, 1)?;
        self.send(&topic, &[record])?;
        self.read(&topic, 1, "read_committed")?
            .pop()
            .context("a record")
    }

    fn headers(&self) -> Result<()> {
        let binary: Vec<u8> = (0..=255).collect();
        let headers: [(&str, Option<&[u8]>); 5] = [
            ("a", Some(b"1")),
            ("a", Some(b"2")),
            ("empty", Some(b"")),
            ("null", None),
            ("binary", Some(&binary)),
        ];
        let mut sent = OwnedHeaders::new();
        for (key, value) in headers {
            sent = sent.insert(Header { key, value });
        }
        let got = self.one(
            "headers",
            Record {
                value: Some(b"x".to_vec()),
                headers: Some(sent),
                ..Record::default()
            },
        )?;
        let got = got.headers().context("headers")?;
        let got: Vec<_> = got
            .iter()
            .map(|header| (header.key, header.value))
            .collect();
        expect("headers", &got, &headers.to_vec())
    }

    fn large_record(&self) -> Result<()> {
        // Numbers of a simple generator: what can't be compressed.
        let mut state = 7_u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        let value: Vec<u8> = (0..900_000).map(|_| number()).collect();
        let got = self.one(
            "large",
            Record {
                value: Some(value.clone()),
                ..Record::default()
            },
        )?;
        expect("same value", &(got.payload() == Some(&value)), &true)
    }

    fn content(&self, name: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<()> {
        let owned = |content: Option<&[u8]>| content.map(<[u8]>::to_vec);
        let got = self.one(
            name,
            Record {
                key: owned(key),
                value: owned(value),
                ..Record::default()
            },
        )?;
        expect("key and value", &(got.key(), got.payload()), &(key, value))
    }

    fn admin_topics(&self) -> Result<()> {
        let topic = self.topic("admin", 3)?;
        let admin = self.admin()?;
        let partitions = || -> Result<Option<usize>> {
            let metadata = admin.inner().fetch_metadata(None, TIMEOUT)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            Ok(found.map(|found| found.partitions().len()))
        };
        expect("partitions", &partitions()?, &Some(3))?;
        for result in block_on(admin.delete_topics(&[&topic], &options()))? {
            result.map_err(|(_, code)| anyhow!("deleting: {code}"))?;
        }
        until("the topic's end", || Ok(partitions()?.is_none()))
    }

    fn admin_config(&self) -> Result<()> {
        let topic = self.topic("config", 1)?;
        let admin = self.admin()?;
        let resource = ResourceSpecifier::Topic(&topic);
        let alter = AlterConfig::new(resource).set("retention.ms", "123456");
        for result in block_on(admin.alter_configs([&alter], &options()))? {
            result.map_err(|(_, code)| anyhow!("altering: {code}"))?;
        }
        for result in block_on(admin.describe_configs([&resource], &options()))? {
            let described = result?;
            let value = described
                .get("retention.ms")
                .and_then(|entry| entry.value.clone());
            expect("retention.ms", &value, &Some("123456".to_owned()))?;
        }
        Ok(())
    }

    fn reconnect(&self) -> Result<Outcome> {
        let topic = self.topic("reconnect", 1)?;
        let producer = self.producer(&[("enable.idempotence", "true")])?;
        let consumer = self.member(&topic)?;
        deliver(&producer, &topic, &records(0, texts(0..10)))?;
        take(&consumer, 10)?;
        consumer.commit_consumer_state(CommitMode::Sync)?;
        if !restart_broker()? {
            return Ok(Outcome::Skipped("this broker can't be restarted"));
        }
        deliver(&producer, &topic, &records(0, texts(10..20)))?;
        expect("values", &values(&take(&consumer, 10)?), &texts(10..20))?;
        expect(
            "all values",
            &values(&self.read(&topic, 20, "read_committed")?),
            &texts(0..20),
        )?;
        Ok(Outcome::Passed)
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT))
}

fn end(producer: &Sending, commits: bool) -> Result<()> {
    if commits {
        producer.commit_transaction(TIMEOUT)?
    } else {
        producer.abort_transaction(TIMEOUT)?
    }
    Ok(())
}
