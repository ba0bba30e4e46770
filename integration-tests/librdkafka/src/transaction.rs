//! The transactional producer: librdkafka's errors sorted into "call again", "abort and redo" and "start a new process".

use std::time::Duration;

use anyhow::{Result, anyhow};
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::Stop;

/// One call's share; a call that times out is made again, as librdkafka asks for.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than the broker's default, so that what a killed process left open is not waited for long.
const TRANSACTION_TIMEOUT_MS: &str = "20000";

/// A record to be written in the open transaction.
pub(crate) struct Output<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a str,
    /// Names the transaction: `<transactional id>/<instance>/<number>`.
    pub(crate) writer: &'a str,
}

/// A producer with a transactional id, initialised.
pub(crate) struct Transactions {
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Transactions {
    /// Fences whatever process had this id before, and waits until its open transaction is ended.
    pub(crate) fn open(bootstrap: &str, transactional_id: &str) -> Result<Self> {
        let producer: ThreadedProducer<_> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("client.id", transactional_id)
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .set("linger.ms", "5")
            // librdkafka (seen with 2.16.0, in the Python client): with the default, rebootstrap, sending offsets can hang
            // for ever once the only broker's connection is lost: its group coordinator is then a forgotten broker.
            .set("metadata.recovery.strategy", "none")
            .set("reconnect.backoff.max.ms", "500")
            .set("retry.backoff.ms", "50")
            .create()?;
        let transactions = Self { producer };
        until_done("init_transactions", || {
            transactions.producer.init_transactions(CALL_TIMEOUT)
        })
        .map_err(|stop| anyhow!("{stop:?}"))?;
        Ok(transactions)
    }

    pub(crate) fn begin(&self) -> Result<(), Stop> {
        until_done("begin_transaction", || self.producer.begin_transaction())
    }

    pub(crate) fn write(&self, output: &Output<'_>) -> Result<(), Stop> {
        let headers = OwnedHeaders::new().insert(Header {
            key: "writer",
            value: Some(output.writer),
        });
        let mut record = BaseRecord::to(output.topic)
            .partition(output.partition)
            .key(output.key)
            .payload(output.value)
            .headers(headers);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(20));
                }
                Err((error, _)) => return Err(self.sort(format!("send: {error}"))),
            }
        }
    }

    /// All records first, then the offsets: the order does not matter to the broker, but a log reads more easily.
    pub(crate) fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), Stop> {
        until_done("flush", || self.producer.flush(CALL_TIMEOUT))?;
        until_done("send_offsets_to_transaction", || {
            self.producer
                .send_offsets_to_transaction(offsets, group, CALL_TIMEOUT)
        })
    }

    pub(crate) fn commit(&self) -> Result<(), Stop> {
        until_done("commit_transaction", || {
            self.producer.commit_transaction(CALL_TIMEOUT)
        })
    }

    /// An abort that cannot be finished leaves nothing to do but to start again under the same id.
    pub(crate) fn abort(&self) -> Result<(), Stop> {
        until_done("abort_transaction", || {
            self.producer.abort_transaction(CALL_TIMEOUT)
        })
        .map_err(|stop| Stop::Fatal(format!("{stop:?}")))
    }

    fn sort(&self, what: String) -> Stop {
        match self.producer.client().fatal_error() {
            Some((code, reason)) => Stop::Fatal(format!("{what}: {code}: {reason}")),
            None => Stop::Abort(what),
        }
    }
}

/// Makes a call until it is done or librdkafka says that making it again is of no use.
fn until_done(name: &str, mut call: impl FnMut() -> KafkaResult<()>) -> Result<(), Stop> {
    loop {
        let error = match call() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        eprintln!("{name}: {error}");
        match &error {
            KafkaError::Transaction(reason) if reason.is_fatal() => {
                return Err(Stop::Fatal(format!("{name}: {error}")));
            }
            KafkaError::Transaction(reason) if reason.txn_requires_abort() => {
                return Err(Stop::Abort(format!("{name}: {error}")));
            }
            KafkaError::Transaction(reason) if reason.is_retriable() => {}
            KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut) => {}
            _ => return Err(Stop::Fatal(format!("{name}: {error}"))),
        }
    }
}
