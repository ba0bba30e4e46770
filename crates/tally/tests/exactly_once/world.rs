//! The words of the catalogue: `D`, `TD9`, `TD12`, `IPI`, `APT`, `END4`, `END5`, `RC`, `RU`, on a topic and a
//! transactional id of the test's own.

use bytes::Bytes;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, InitProducerIdRequest, ProduceRequest, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, Fetched, ProduceCall, Produced, Producer, unique};
use tally_testkit::verification::Verified;
use tally_testkit::waiting::{wait_for, wait_until};
use tally_testkit::wire::frame;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");

/// What a producer is told: the offset, or the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    At(i64),
    Code(i16),
}

impl From<&Produced> for Answer {
    fn from(produced: &Produced) -> Answer {
        if produced.error == 0 {
            return Answer::At(produced.base_offset);
        }
        assert_eq!(produced.base_offset, -1, "P-29");
        assert_eq!(produced.log_append_time, -1, "P-29");
        Answer::Code(produced.error)
    }
}

/// A test's own corner of a broker: one connection, a topic, a transactional id.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) address: String,
    pub(crate) topic: String,
    pub(crate) id: String,
    /// The broker is Apache Kafka: the deviations D-n are not asked for, and coordinators finish in the background.
    pub(crate) is_kafka: bool,
}

impl World {
    /// On the shared broker, with a topic of one partition.
    #[track_caller]
    pub(crate) fn new() -> World {
        World::with_topic(1, &[])
    }

    #[track_caller]
    pub(crate) fn with_topic(partitions: i32, configs: &[(&str, &str)]) -> World {
        World::at(Broker::shared(PROGRAM), partitions, configs)
    }

    /// On a broker of the test's own.
    #[track_caller]
    pub(crate) fn on(broker: &Broker) -> World {
        World::at(broker.address(), 1, &[])
    }

    #[track_caller]
    fn at(address: &str, partitions: i32, configs: &[(&str, &str)]) -> World {
        let mut client = Client::connect(address);
        let topic = unique("t");
        client.create_topic(&topic, partitions, configs);
        let is_kafka = client.is_apache_kafka();
        World {
            client,
            address: address.to_owned(),
            topic,
            id: unique("x"),
            is_kafka,
        }
    }

    /// After a restart: the same topic and id over a new connection.
    #[track_caller]
    pub(crate) fn reconnect(&mut self, broker: &Broker) {
        self.address = broker.address().to_owned();
        self.client = broker.client();
        // Apache Kafka accepts connections before its partitions take requests.
        wait_until("the partition answers", || {
            let listed = self.client.list_offset((7, 0), &self.topic, 0, -1);
            listed.0 == 0
        });
    }

    /// Another topic.
    #[track_caller]
    pub(crate) fn another_topic(&mut self, partitions: i32, configs: &[(&str, &str)]) -> String {
        let topic = unique("u");
        self.client.create_topic(&topic, partitions, configs);
        topic
    }

    /// Another connection.
    #[track_caller]
    pub(crate) fn another_client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// One record set to t-0 by Produce `version`; in a transaction of the id if `transactional`.
    #[track_caller]
    pub(crate) fn produce_bytes(
        &mut self,
        version: i16,
        is_transactional: bool,
        bytes: Bytes,
    ) -> Produced {
        let (id, topic) = (self.id.clone(), self.topic.clone());
        let call = ProduceCall {
            version,
            acks: -1,
            transactional_id: is_transactional.then_some(&id),
            parts: vec![(&topic, 0, Some(bytes))],
        };
        self.produce(&call).remove(0)
    }

    /// Produce. Kafka verifies by a request of its own, which may meet a coordinator that still completes (V-3), and may be
    /// answered as another test's is (`tally_testkit::verification`): there it is sent until it has its own answer.
    #[track_caller]
    pub(crate) fn produce(&mut self, call: &ProduceCall<'_>) -> Vec<Produced> {
        let asks_again = self.is_kafka && call.transactional_id.is_some();
        let verified = Verified::Produce(call.version);
        wait_for("an answer of its own", || {
            let produced = self.client.produce(call);
            let error = produced[0].error;
            let is_passing = matches!(error, 19 | 51) || verified.is_told_for_another(error);
            (!asks_again || !is_passing).then_some(produced)
        })
    }

    /// A batch that is not part of a transaction, by Produce v9.
    #[track_caller]
    pub(crate) fn plain(&mut self, batch: &Batch) -> Answer {
        Answer::from(&self.produce_bytes(9, false, batch.encode()))
    }

    /// `D(p,e,s,n)`.
    #[track_caller]
    pub(crate) fn d(&mut self, pid: i64, epoch: i16, sequence: i32, count: i32) -> Answer {
        self.plain(&Batch::idempotent(pid, epoch, sequence, count))
    }

    /// `TD` by the version given.
    #[track_caller]
    pub(crate) fn td(
        &mut self,
        version: i16,
        producer: Producer,
        sequence: i32,
        count: i32,
    ) -> Answer {
        let batch = Batch::transactional(producer.id, producer.epoch, sequence, count);
        Answer::from(&self.produce_bytes(version, true, batch.encode()))
    }

    /// `TD9(p,e,s,n)`.
    #[track_caller]
    pub(crate) fn td9(&mut self, producer: Producer, sequence: i32, count: i32) -> Answer {
        self.td(9, producer, sequence, count)
    }

    /// `TD12(p,e,s,n)`.
    #[track_caller]
    pub(crate) fn td12(&mut self, producer: Producer, sequence: i32, count: i32) -> Answer {
        self.td(12, producer, sequence, count)
    }

    /// `IPI()` for a producer without a transactional id.
    #[track_caller]
    pub(crate) fn pid(&mut self) -> i64 {
        let producer = self.client.idempotent_producer();
        assert_eq!(producer.epoch, 0);
        producer.id
    }

    /// The request of `IPI` for the test's id.
    pub(crate) fn ipi_request(&self, expected: Option<Producer>) -> InitProducerIdRequest {
        let expected = expected.unwrap_or(Producer { id: -1, epoch: -1 });
        InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(StrBytes::from_string(
                self.id.clone(),
            ))))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(expected.id.into())
            .with_producer_epoch(expected.epoch)
    }

    /// `IPI(xp,xe)` as it is answered, 51 included.
    #[track_caller]
    pub(crate) fn ipi_once(&mut self, expected: Option<Producer>) -> (i16, Producer) {
        let request = self.ipi_request(expected);
        self.client.init_producer_id(4, &request)
    }

    /// `IPI(xp,xe)`, repeated while the answer is 51.
    #[track_caller]
    pub(crate) fn ipi_as(&mut self, expected: Option<Producer>) -> (i16, Producer) {
        wait_for("InitProducerId is not answered by 51", || {
            let answer = self.ipi_once(expected);
            (answer.0 != 51).then_some(answer)
        })
    }

    /// `IPI()` that succeeds.
    #[track_caller]
    pub(crate) fn ipi(&mut self) -> Producer {
        let (error, producer) = self.ipi_as(None);
        assert_eq!(error, 0, "InitProducerId");
        producer
    }

    /// `APT` with t-0.
    #[track_caller]
    pub(crate) fn apt(&mut self, producer: Producer) -> i16 {
        let topic = self.topic.clone();
        self.apt_to(3, producer, &[(&topic, 0)])[0]
    }

    /// A transaction of the old flow with one record on t-0 and such a timeout. `APT` and `TD9` go out together: the record is there
    /// in time wherever a busy machine stops the test.
    #[track_caller]
    pub(crate) fn begin_for(&mut self, timeout_ms: i32) -> Producer {
        let request = self
            .ipi_request(None)
            .with_transaction_timeout_ms(timeout_ms);
        let (error, a) = self.client.init_producer_id(4, &request);
        assert_eq!(error, 0);
        let (topic, id) = (self.topic.clone(), self.id.clone());
        let call = ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: Some(&id),
            parts: vec![(
                &topic,
                0,
                Some(Batch::transactional(a.id, a.epoch, 0, 1).encode()),
            )],
        };
        let add = Client::add_partitions_request(&id, a, &[(&topic, 0)]);
        let both = [
            frame(3, -3, &add),
            frame(9, -9, &self.client.produce_request(&call)),
        ];
        self.client.send_bytes(&both.concat());
        let added = self.client.receive::<AddPartitionsToTxnRequest>(3, -3);
        let added = &added.results_by_topic_v3_and_below[0].results_by_partition[0];
        let response = self.client.receive::<ProduceRequest>(9, -9);
        let produced = Answer::from(&self.client.produced(&call, &response)[0]);
        assert_eq!((added.partition_error_code, produced), (0, Answer::At(0)));
        a
    }

    /// `APT` with these partitions. Apache Kafka completes after it answers, so 51 is asked again there (D-6).
    #[track_caller]
    pub(crate) fn apt_to(
        &mut self,
        version: i16,
        producer: Producer,
        partitions: &[(&str, i32)],
    ) -> Vec<i16> {
        let is_kafka = self.is_kafka;
        wait_for("AddPartitionsToTxn is not answered by 51", || {
            let errors = self
                .client
                .add_partitions(version, &self.id, producer, partitions);
            (!is_kafka || errors.first() != Some(&51)).then_some(errors)
        })
    }

    /// `END4c` and `END4a`, or an older version.
    #[track_caller]
    pub(crate) fn end(&mut self, version: i16, producer: Producer, commit: bool) -> i16 {
        self.end_pair(version, producer, commit).0
    }

    #[track_caller]
    fn end_pair(&mut self, version: i16, producer: Producer, commit: bool) -> (i16, Producer) {
        let is_kafka = self.is_kafka;
        wait_for("EndTxn is not answered by 51", || {
            let answer = self.client.end_txn(version, &self.id, producer, commit);
            (!is_kafka || answer.0 != 51).then_some(answer)
        })
    }

    /// `END4c`.
    #[track_caller]
    pub(crate) fn commit4(&mut self, producer: Producer) -> i16 {
        self.end(4, producer, true)
    }

    /// `END4a`.
    #[track_caller]
    pub(crate) fn abort4(&mut self, producer: Producer) -> i16 {
        self.end(4, producer, false)
    }

    /// `END5c`: the code and the next pair.
    #[track_caller]
    pub(crate) fn commit5(&mut self, producer: Producer) -> (i16, Producer) {
        self.end_pair(5, producer, true)
    }

    /// `END5a`: the code and the next pair.
    #[track_caller]
    pub(crate) fn abort5(&mut self, producer: Producer) -> (i16, Producer) {
        self.end_pair(5, producer, false)
    }

    /// `RC` on t-0.
    #[track_caller]
    pub(crate) fn rc(&mut self, offset: i64) -> Fetched {
        self.client.read_committed(&self.topic, 0, offset)
    }

    /// `RU` on t-0.
    #[track_caller]
    pub(crate) fn ru(&mut self, offset: i64) -> Fetched {
        self.client.read_uncommitted(&self.topic, 0, offset)
    }

    /// LEO of t-0, which on one node is the high watermark.
    #[track_caller]
    pub(crate) fn leo(&mut self) -> i64 {
        self.client.latest(&self.topic, 0)
    }

    /// LSO of t-0.
    #[track_caller]
    pub(crate) fn lso(&mut self) -> i64 {
        self.client.stable(&self.topic, 0)
    }

    /// Asserts that the LSO of t-0 is `offset`; with Apache Kafka, that it gets there (D-6).
    #[track_caller]
    pub(crate) fn expect_lso(&mut self, offset: i64) {
        if self.is_kafka {
            wait_until("the last stable offset", || self.lso() == offset);
        }
        assert_eq!(self.lso(), offset, "last stable offset");
    }
}

impl Drop for World {
    /// Whatever a test did, its connection is still of use.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.client.api_versions(0).error_code, 0);
        }
    }
}

/// The producer with the next epoch.
pub(crate) const fn bumped(producer: Producer) -> Producer {
    Producer {
        id: producer.id,
        epoch: producer.epoch + 1,
    }
}

/// The producer with another epoch.
pub(crate) const fn at_epoch(producer: Producer, epoch: i16) -> Producer {
    Producer {
        id: producer.id,
        epoch,
    }
}
