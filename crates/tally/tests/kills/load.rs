//! Those who write: plain, idempotent and transactional producers, and somebody who makes and deletes topics. Each writes
//! until its connection ends, and knows afterwards what it was told and what it was not.

use crate::ledger::Ledger;
use crate::{Random, TOPIC};
use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, EndTxnRequest, InitProducerIdRequest, ProduceRequest,
    ProducerId,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use tally_testkit::batches::Batch;
use tally_testkit::client::{
    Client, ProduceCall, Produced, Producer, topic_name, transactional_id,
};
use tally_testkit::waiting::wait_until;
use tally_testkit::wire::decode_response;

/// Batches that a producer has under way: what librdkafka and the Java client allow with idempotence.
const IN_FLIGHT: usize = 5;

/// A batch on its way.
#[derive(Clone, Debug)]
struct Sent {
    partition: i32,
    sequence: i32,
    values: Vec<String>,
    bytes: Bytes,
}

/// Names for values that never come twice.
#[derive(Debug)]
struct Names {
    who: u64,
    next: u64,
}

impl Names {
    fn take(&mut self) -> String {
        self.next += 1;
        format!("{}-{}", self.who, self.next)
    }

    /// A batch of a few records, small or large.
    fn batch(
        &mut self,
        random: &mut Random,
        mut batch: impl FnMut(i32) -> Batch,
    ) -> (Batch, Vec<String>) {
        let count = 1 + random.below(4);
        let mut batch = batch(i32::try_from(count).expect("small"));
        let mut names = Vec::new();
        for record in &mut batch.records {
            let name = self.take();
            let padding = if random.below(10) == 0 {
                random.below(30_000)
            } else {
                random.below(200)
            };
            let padding = usize::try_from(padding).expect("small");
            record.value = Some(Bytes::from(format!("{name} {}", "x".repeat(padding))));
            names.push(name);
        }
        (batch, names)
    }
}

fn call<'a>(version: i16, id: Option<&'a str>, partition: i32, bytes: &Bytes) -> ProduceCall<'a> {
    ProduceCall {
        version,
        acks: -1,
        transactional_id: id,
        parts: vec![(TOPIC, partition, Some(bytes.clone()))],
    }
}

/// Sends and does not wait; the correlation id.
fn send(client: &mut Client, sent: &Sent) -> i32 {
    let request = client.produce_request(&call(9, None, sent.partition, &sent.bytes));
    (**client).send(9, &request)
}

/// The next answer, or `None` if there will be none.
fn receive(client: &mut Client, sent: &Sent, correlation_id: i32) -> Option<Produced> {
    let frame = client.receive_frame()?;
    let response = decode_response::<ProduceRequest>(9, correlation_id, frame);
    let call = call(9, None, sent.partition, &sent.bytes);
    Some(client.produced(&call, &response).remove(0))
}

/// Keeps [`IN_FLIGHT`] batches under way until the connection ends. What was not answered is left in `under_way`.
fn pipeline(
    address: &str,
    count: &AtomicU64,
    under_way: &mut VecDeque<Sent>,
    mut make: impl FnMut() -> Sent,
    mut acknowledged: impl FnMut(&Sent, &Produced),
) {
    let Ok(mut client) = Client::try_connect(address) else {
        return;
    };
    let mut ids = VecDeque::new();
    loop {
        while under_way.len() < IN_FLIGHT {
            let sent = make();
            ids.push_back(send(&mut client, &sent));
            under_way.push_back(sent);
        }
        let Some(produced) = receive(&mut client, &under_way[0], ids[0]) else {
            return;
        };
        let sent = under_way.pop_front().expect("it was answered");
        ids.pop_front();
        acknowledged(&sent, &produced);
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A producer without an id: what was not answered is not sent again.
pub(crate) struct Plain {
    names: Names,
    acknowledged: Vec<(Sent, i64)>,
    under_way: VecDeque<Sent>,
}

impl Plain {
    pub(crate) fn new(who: u64) -> Plain {
        Plain {
            names: Names { who, next: 0 },
            acknowledged: Vec::new(),
            under_way: VecDeque::new(),
        }
    }

    pub(crate) fn who(&self) -> u64 {
        self.names.who
    }

    pub(crate) fn write(&mut self, address: &str, mut random: Random, count: &AtomicU64) {
        let Plain {
            names,
            acknowledged,
            under_way,
        } = self;
        let make = || {
            let (batch, values) = names.batch(&mut random, Batch::plain);
            Sent {
                partition: random.partition(),
                sequence: -1,
                values,
                bytes: batch.encode(),
            }
        };
        pipeline(address, count, under_way, make, |sent, produced| {
            assert_eq!(produced.error, 0);
            acknowledged.push((sent.clone(), produced.base_offset));
        });
    }

    pub(crate) fn settle(&mut self, ledger: &mut Ledger) {
        for (sent, base) in self.acknowledged.drain(..) {
            ledger.kept_at(sent.partition, base, sent.values);
        }
        for sent in self.under_way.drain(..) {
            ledger.open(sent.values);
        }
    }
}

/// An idempotent producer, one id for the whole run: what was not answered is sent again as it was.
pub(crate) struct Idempotent {
    names: Names,
    producer: Producer,
    sequences: BTreeMap<i32, i32>,
    acknowledged: Vec<(Sent, i64)>,
    under_way: VecDeque<Sent>,
}

impl Idempotent {
    #[track_caller]
    pub(crate) fn new(client: &mut Client, who: u64) -> Idempotent {
        Idempotent {
            names: Names { who, next: 0 },
            producer: client.idempotent_producer(),
            sequences: BTreeMap::new(),
            acknowledged: Vec::new(),
            under_way: VecDeque::new(),
        }
    }

    pub(crate) fn who(&self) -> u64 {
        self.names.who
    }

    pub(crate) fn write(&mut self, address: &str, mut random: Random, count: &AtomicU64) {
        let Idempotent {
            names,
            producer,
            sequences,
            acknowledged,
            under_way,
        } = self;
        let make = || {
            let partition = random.partition();
            let sequence = sequences.entry(partition).or_default();
            let (batch, values) = names.batch(&mut random, |count| {
                Batch::idempotent(producer.id, producer.epoch, *sequence, count)
            });
            let sent = Sent {
                partition,
                sequence: *sequence,
                values,
                bytes: batch.encode(),
            };
            *sequence += i32::try_from(sent.values.len()).expect("few");
            sent
        };
        pipeline(address, count, under_way, make, |sent, produced| {
            assert_eq!(produced.error, 0, "sequence {}", sent.sequence);
            acknowledged.push((sent.clone(), produced.base_offset));
        });
    }

    /// Sends again what was not answered, and then the last batch of all once more: the broker still knows where it is.
    #[track_caller]
    pub(crate) fn settle(&mut self, client: &mut Client, ledger: &mut Ledger) {
        let mut last = self.acknowledged.last().cloned();
        for (sent, base) in self.acknowledged.drain(..) {
            ledger.kept_at(sent.partition, base, sent.values);
        }
        for sent in self.under_way.drain(..) {
            let id = send(client, &sent);
            let produced = receive(client, &sent, id).expect("an answer");
            assert_eq!(produced.error, 0, "sequence {} again", sent.sequence);
            ledger.kept_at(sent.partition, produced.base_offset, sent.values.clone());
            last = Some((sent, produced.base_offset));
        }
        if let Some((sent, base)) = last {
            let id = send(client, &sent);
            let produced = receive(client, &sent, id).expect("an answer");
            assert_eq!(
                (produced.error, produced.base_offset),
                (0, base),
                "a duplicate"
            );
        }
    }
}

/// How a transaction ended, as far as its producer knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ended {
    Committed,
    Aborted,
    Undecided,
}

/// One transaction.
struct Transaction {
    number: i64,
    values: Vec<(Option<(i32, i64)>, String)>,
    ended: Ended,
}

/// A transactional producer, of the new protocol or the old; each transaction commits an offset too.
pub(crate) struct Transactions {
    names: Names,
    id: String,
    group: String,
    is_new: bool,
    producer: Producer,
    sequences: BTreeMap<i32, i32>,
    number: i64,
    /// The offset that the group has: the number of the last transaction that was committed.
    offset: i64,
    done: Vec<Transaction>,
}

impl Transactions {
    #[track_caller]
    pub(crate) fn new(client: &mut Client, who: u64) -> Transactions {
        let mut new = Transactions {
            names: Names { who, next: 0 },
            id: format!("transactions-{who}"),
            group: format!("group-{who}"),
            is_new: who.is_multiple_of(2),
            producer: Producer { id: -1, epoch: -1 },
            sequences: BTreeMap::new(),
            number: 0,
            offset: -1,
            done: Vec::new(),
        };
        client.wait_for_group(&new.group);
        new.begin(client);
        new
    }

    pub(crate) fn who(&self) -> u64 {
        self.names.who
    }

    /// InitProducerId: what the producer before had open is ended by it.
    #[track_caller]
    fn begin(&mut self, client: &mut Client) {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(&self.id)))
            .with_transaction_timeout_ms(600_000);
        wait_until("a producer id", || {
            let (error, producer) =
                client.init_producer_id(if self.is_new { 5 } else { 4 }, &request);
            self.producer = producer;
            assert!(matches!(error, 0 | 51), "{error}");
            error == 0
        });
        self.sequences.clear();
    }

    pub(crate) fn write(&mut self, address: &str, mut random: Random, count: &AtomicU64) {
        let Ok(mut client) = Client::try_connect(address) else {
            return;
        };
        loop {
            self.number += 1;
            let mut transaction = Transaction {
                number: self.number,
                values: Vec::new(),
                ended: Ended::Aborted,
            };
            let outcome = self.one(&mut client, &mut random, count, &mut transaction);
            self.done.push(transaction);
            if outcome.is_none() {
                return;
            }
        }
    }

    /// One transaction; `None` if the connection ends.
    fn one(
        &mut self,
        client: &mut Client,
        random: &mut Random,
        count: &AtomicU64,
        transaction: &mut Transaction,
    ) -> Option<()> {
        for _ in 0..=random.below(4) {
            self.produce(client, random, transaction)?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.commit_offset(client)?;
        let commit = random.below(4) > 0;
        if commit {
            transaction.ended = Ended::Undecided;
        }
        self.end(client, commit)?;
        if commit {
            transaction.ended = Ended::Committed;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Some(())
    }

    fn produce(
        &mut self,
        client: &mut Client,
        random: &mut Random,
        transaction: &mut Transaction,
    ) -> Option<()> {
        let partition = random.partition();
        if !self.is_new {
            let errors =
                client.try_add_partitions(3, &self.id, self.producer, &[(TOPIC, partition)])?;
            assert_eq!(errors, [0]);
        }
        let Producer { id, epoch } = self.producer;
        let sequence = *self.sequences.entry(partition).or_default();
        let (batch, values) = self.names.batch(random, |count| {
            Batch::transactional(id, epoch, sequence, count)
        });
        let first = transaction.values.len();
        transaction
            .values
            .extend(values.into_iter().map(|value| (None, value)));
        let version = if self.is_new { 12 } else { 9 };
        let call = call(version, Some(&self.id), partition, &batch.encode());
        let request = client.produce_request(&call);
        let response = client.try_call(version, &request)?;
        let produced = client.produced(&call, &response).remove(0);
        assert_eq!(produced.error, 0, "{}", self.id);
        for (offset, (place, _)) in (produced.base_offset..).zip(&mut transaction.values[first..]) {
            *place = Some((partition, offset));
        }
        let count = i32::try_from(batch.records.len()).expect("few");
        self.sequences.insert(partition, sequence + count);
        Some(())
    }

    fn commit_offset(&self, client: &mut Client) -> Option<()> {
        if !self.is_new {
            let request = kafka_protocol::messages::AddOffsetsToTxnRequest::default()
                .with_transactional_id(transactional_id(&self.id))
                .with_producer_id(ProducerId(self.producer.id))
                .with_producer_epoch(self.producer.epoch)
                .with_group_id(tally_testkit::client::group_id(&self.group));
            assert_eq!(client.try_call(3, &request)?.error_code, 0);
        }
        let offsets = [(TOPIC, 0, self.number)];
        let request =
            Client::txn_offset_commit_request(&self.id, self.producer, &self.group, &offsets);
        let response = client.try_call(if self.is_new { 5 } else { 3 }, &request)?;
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
        Some(())
    }

    fn end(&mut self, client: &mut Client, commit: bool) -> Option<()> {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(&self.id))
            .with_producer_id(ProducerId(self.producer.id))
            .with_producer_epoch(self.producer.epoch)
            .with_committed(commit);
        let response = client.try_call(if self.is_new { 5 } else { 3 }, &request)?;
        assert_eq!(response.error_code, 0);
        if self.is_new {
            self.producer = Producer {
                id: response.producer_id.0,
                epoch: response.producer_epoch,
            };
            self.sequences.clear();
        }
        Some(())
    }

    /// A new session ends what was open; then the group's offset says how an undecided transaction ended, and its
    /// records must say the same.
    #[track_caller]
    pub(crate) fn settle(&mut self, client: &mut Client, ledger: &mut Ledger) {
        client.wait_for_group(&self.group);
        self.begin(client);
        let (error, offset) = client.committed_offset(&self.group, TOPIC, 0, true);
        assert_eq!(error, 0);
        for transaction in self.done.drain(..) {
            let names =
                |values: Vec<(_, String)>| values.into_iter().map(|(_, name)| name).collect();
            match transaction.ended {
                Ended::Committed => {
                    self.offset = transaction.number;
                    let values = transaction.values.into_iter();
                    let told =
                        |(place, value): (Option<_>, _)| (place.expect("acknowledged"), value);
                    ledger.committed(values.map(told).collect());
                }
                Ended::Undecided if offset == transaction.number => {
                    self.offset = transaction.number;
                    let values = transaction.values.into_iter();
                    let told =
                        |(place, value): (Option<_>, _)| (place.expect("acknowledged"), value);
                    ledger.undecided_but_committed(values.map(told).collect());
                }
                Ended::Undecided => ledger.undecided_but_aborted(names(transaction.values)),
                Ended::Aborted => ledger.aborted(names(transaction.values)),
            }
        }
        assert_eq!(offset, self.offset, "the offset of {}", self.group);
    }
}

/// Makes topics and deletes every second one.
#[derive(Default)]
pub(crate) struct Topics {
    next: u64,
    there: Vec<String>,
    gone: Vec<String>,
}

impl Topics {
    pub(crate) fn change(&mut self, address: &str, count: &AtomicU64) {
        let Ok(mut client) = Client::try_connect(address) else {
            return;
        };
        // A few a round: each is synced, and takes the disk from the others.
        for _ in 0..3 {
            self.next += 1;
            let name = format!("topic-{}", self.next);
            let topic = CreatableTopic::default()
                .with_name(topic_name(&name))
                .with_num_partitions(1)
                .with_replication_factor(1);
            let request = CreateTopicsRequest::default()
                .with_topics(vec![topic])
                .with_timeout_ms(30_000);
            let Some(response) = client.try_call(7, &request) else {
                return;
            };
            assert_eq!(response.topics[0].error_code, 0);
            count.fetch_add(1, Ordering::Relaxed);
            if self.next.is_multiple_of(4) {
                self.there.push(name);
                continue;
            }
            let request = DeleteTopicsRequest::default()
                .with_topic_names(vec![topic_name(&name)])
                .with_timeout_ms(30_000);
            let Some(response) = client.try_call(5, &request) else {
                return;
            };
            assert_eq!(response.responses[0].error_code, 0);
            self.gone.push(name);
        }
    }

    /// What was made is there, what was deleted is gone.
    #[track_caller]
    pub(crate) fn check(&mut self, client: &mut Client) {
        for name in self.there.iter().rev().take(5) {
            assert_eq!(client.topic(name).error_code, 0, "{name}");
            assert_eq!(client.latest(name, 0), 0);
        }
        for name in self.gone.drain(..) {
            assert_eq!(client.topic(&name).error_code, 3, "{name}");
        }
    }
}
