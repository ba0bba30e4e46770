//! Batches sent and acknowledged, one request per broker at a time.
//!
//! Invariants:
//! - an idempotent producer sends a batch again, with its sequence, until it is answered or the time is over: nothing is written
//!   twice and nothing is left out;
//! - one that is not sends nothing again that may have been written;
//! - a transaction is ended as it was asked for, or aborted as far as that can still be done.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    InitProducerIdRequest, MetadataRequest, ProduceRequest, ProducerId as WireProducerId,
    TopicName, TransactionalId,
};

use super::Settings;
use super::batch::{Batch, Record, Signature, partition_of};
use super::transaction::Transactions;
use crate::client::{Cluster, Failure, NOT_YET, text};
use crate::commands::now_ms;
use crate::commands::place::Place;
use crate::output::remark;

/// The last version in which partitions have to be added to a transaction first, and topics have names.
const PRODUCE_NEWEST: i16 = 11;
const INIT_PRODUCER_ID_NEWEST: i16 = 4;
const METADATA_NEWEST: i16 = 12;
/// A batch is sent when it is as large; `max.message.bytes` is about twice that by default.
const BATCH_BYTES: usize = 512 << 10;
/// Before something is tried again.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// DUPLICATE_SEQUENCE_NUMBER: it was written before.
const WRITTEN_BEFORE: i16 = 46;
/// Nothing was written, and it may be different in a moment: a leader that moves, a disk that is full, too few replicas.
const TRY_AGAIN: [i16; 8] = [3, 5, 6, 14, 16, 19, 56, 74];
/// It may have been written: REQUEST_TIMED_OUT, NETWORK_EXCEPTION, NOT_ENOUGH_REPLICAS_AFTER_APPEND.
const MAYBE_WRITTEN: [i16; 3] = [7, 13, 20];
/// The highest sequence; the next one is 0.
const SEQUENCES: i64 = 1 << 31;

/// Whose acknowledgement is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Acks {
    All,
    Leader,
    Nobody,
}

impl Acks {
    fn code(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::Leader => 1,
            Acks::Nobody => 0,
        }
    }
}

/// What was written to a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Written {
    pub(super) records: i64,
    /// -1: not known.
    pub(super) first_offset: i64,
    pub(super) last_offset: i64,
}

/// A batch under way.
struct Parcel {
    count: i32,
    bytes: bytes::Bytes,
}

/// Sends records.
pub(super) struct Sender {
    cluster: Cluster,
    acks: Acks,
    codec: i16,
    /// Id and epoch of an idempotent producer.
    producer: Option<(i64, i16)>,
    transactions: Option<Transactions>,
    partitions: BTreeMap<String, i32>,
    /// Where records without a key go until their batch is full.
    sticky: BTreeMap<String, i32>,
    filling: BTreeMap<Place, Batch>,
    sequences: BTreeMap<Place, i32>,
    written: BTreeMap<Place, Written>,
}

impl Sender {
    /// Gets the producer id that the settings ask for.
    pub(super) fn open(mut cluster: Cluster, settings: &Settings) -> Result<Sender, Failure> {
        let mut producer = None;
        let mut transactions = None;
        if let Some(id) = &settings.transactional_id {
            let broker = cluster.coordinator(id)?;
            let timeout_ms = settings.transaction_timeout_ms;
            let (producer_id, epoch) = init(&mut cluster, broker, Some((id, timeout_ms)))?;
            producer = Some((producer_id, epoch));
            transactions = Some(Transactions::new(id, producer_id, epoch));
        } else if settings.is_idempotent {
            let broker = cluster.any_broker()?;
            producer = Some(init(&mut cluster, broker, None)?);
        }
        Ok(Sender {
            cluster,
            acks: settings.acks,
            codec: settings.codec,
            producer,
            transactions,
            partitions: BTreeMap::new(),
            sticky: BTreeMap::new(),
            filling: BTreeMap::new(),
            sequences: BTreeMap::new(),
            written: BTreeMap::new(),
        })
    }

    /// How many partitions a topic has; it must be there.
    pub(super) fn partitions(&mut self, topic: &str) -> Result<i32, Failure> {
        if let Some(count) = self.partitions.get(topic) {
            return Ok(*count);
        }
        let found = self.cluster.topic(topic)?;
        let count = found.and_then(|found| i32::try_from(found.partitions.len()).ok());
        let unknown = || {
            let what = format!("topic {topic} (tally topic create {topic} makes it)");
            Failure::refused(what, 3)
        };
        let count = count.filter(|count| *count > 0).ok_or_else(unknown)?;
        self.partitions.insert(topic.to_owned(), count);
        Ok(count)
    }

    /// Adds a record; sends if a batch is full.
    pub(super) fn add(
        &mut self,
        topic: &str,
        wanted: Option<i32>,
        record: &Record,
    ) -> Result<(), Failure> {
        let count = self.partitions(topic)?;
        let partition = match (wanted, &record.key) {
            (Some(partition), _) if partition < count => partition,
            (Some(partition), _) => {
                return Err(Failure::Usage(format!(
                    "topic {topic} has {count} partitions, 0 to {}: there is no {partition}",
                    count - 1
                )));
            }
            (None, Some(key)) => partition_of(key, count),
            (None, None) => *self.sticky.entry(topic.to_owned()).or_insert(0),
        };
        let place = Place {
            topic: topic.to_owned(),
            partition,
        };
        let batch = self.filling.entry(place).or_default();
        batch.push(record, now_ms())?;
        if batch.size_bytes() >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what there is and waits until it is written.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let filling = std::mem::take(&mut self.filling);
        if filling.is_empty() {
            return Ok(());
        }
        self.cluster.renew(Duration::ZERO);
        for (topic, partition) in &mut self.sticky {
            let count = self.partitions.get(topic).copied().unwrap_or(1);
            *partition = (*partition + 1) % count.max(1);
        }
        if let Some(transactions) = &mut self.transactions {
            transactions.add(&mut self.cluster, filling.keys())?;
        }
        let mut parcels = BTreeMap::new();
        for (place, batch) in filling {
            let bytes = batch.encode(self.codec, self.sign(&place, batch.count()))?;
            let count = batch.count();
            parcels.insert(place, Parcel { count, bytes });
        }
        while !parcels.is_empty() {
            let before = parcels.len();
            let trouble = self.send(&mut parcels)?;
            if let Some(trouble) = trouble {
                if Instant::now() + PAUSE > self.cluster.deadline() {
                    return Err(trouble);
                }
                remark(1, || format!("trying again: {trouble}"));
                thread::sleep(PAUSE);
            } else if parcels.len() == before {
                return Err(Failure::Unable("a broker answers nothing".to_owned()));
            }
        }
        Ok(())
    }

    fn sign(&mut self, place: &Place, count: i32) -> Signature {
        let Some((producer_id, producer_epoch)) = self.producer else {
            return Signature {
                producer_id: -1,
                producer_epoch: -1,
                base_sequence: -1,
                is_transactional: false,
            };
        };
        let next = self.sequences.entry(place.clone()).or_insert(0);
        let base_sequence = *next;
        let behind = (i64::from(base_sequence) + i64::from(count)) % SEQUENCES;
        *next = i32::try_from(behind).unwrap_or(0);
        Signature {
            producer_id,
            producer_epoch,
            base_sequence,
            is_transactional: self.transactions.is_some(),
        }
    }

    /// Sends each parcel once and takes away what is written; why some are left, if that may change.
    fn send(&mut self, parcels: &mut BTreeMap<Place, Parcel>) -> Result<Option<Failure>, Failure> {
        let mut trouble = None;
        let mut by_leader: BTreeMap<i32, Vec<Place>> = BTreeMap::new();
        for place in parcels.keys() {
            match self.cluster.leader(&place.topic, place.partition) {
                Ok(leader) => by_leader.entry(leader).or_default().push(place.clone()),
                Err(Failure::Refused { what, code }) if TRY_AGAIN.contains(&code) => {
                    trouble = Some(Failure::Refused { what, code });
                }
                Err(failure) => trouble = Some(self.lost(None, &[], failure)?),
            }
        }
        for (leader, places) in by_leader {
            let request = self.request(parcels, &places);
            if self.acks == Acks::Nobody {
                self.cluster.tell(leader, PRODUCE_NEWEST, &request)?;
                for place in places {
                    if let Some(parcel) = parcels.remove(&place) {
                        self.note(&place, parcel.count, -1);
                    }
                }
                continue;
            }
            let answer = match self.cluster.call(leader, PRODUCE_NEWEST, &request) {
                Ok(answer) => answer,
                Err(failure) => {
                    trouble = Some(self.lost(Some(leader), &places, failure)?);
                    continue;
                }
            };
            for topic in answer.responses {
                for row in topic.partition_responses {
                    let place = Place {
                        topic: topic.name.to_string(),
                        partition: row.index,
                    };
                    let message = row.error_message.map(|message| message.to_string());
                    let code = row.error_code;
                    match self.answered(parcels, &place, (code, row.base_offset)) {
                        Answer::Written => {}
                        Answer::Later => trouble = Some(Failure::refused(place.to_string(), code)),
                        Answer::Refused => {
                            let what = match message.filter(|message| !message.is_empty()) {
                                Some(message) => format!("{place}: {message}"),
                                None => place.to_string(),
                            };
                            return Err(Failure::refused(what, code));
                        }
                    }
                }
            }
        }
        Ok(trouble)
    }

    fn answered(
        &mut self,
        parcels: &mut BTreeMap<Place, Parcel>,
        place: &Place,
        (code, base_offset): (i16, i64),
    ) -> Answer {
        let may_send_again =
            TRY_AGAIN.contains(&code) || self.producer.is_some() && MAYBE_WRITTEN.contains(&code);
        match code {
            0 | WRITTEN_BEFORE => {
                if let Some(parcel) = parcels.remove(place) {
                    self.note(place, parcel.count, base_offset);
                }
                Answer::Written
            }
            _ if may_send_again => {
                self.cluster.forget_leader(&place.topic, place.partition);
                Answer::Later
            }
            _ => Answer::Refused,
        }
    }

    fn request(&self, parcels: &BTreeMap<Place, Parcel>, places: &[Place]) -> ProduceRequest {
        let mut topics: BTreeMap<&str, Vec<PartitionProduceData>> = BTreeMap::new();
        for place in places {
            let records = parcels.get(place).map(|parcel| parcel.bytes.clone());
            let partition = PartitionProduceData::default()
                .with_index(place.partition)
                .with_records(records);
            topics.entry(&place.topic).or_default().push(partition);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            TopicProduceData::default()
                .with_name(TopicName(text(name)))
                .with_partition_data(partitions)
        });
        let left = self
            .cluster
            .deadline()
            .saturating_duration_since(Instant::now());
        let transactions = self.transactions.as_ref();
        ProduceRequest::default()
            .with_transactional_id(transactions.map(|txn| TransactionalId(text(&txn.id))))
            .with_acks(self.acks.code())
            .with_timeout_ms(i32::try_from(left.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(topics.collect())
    }

    /// A connection failed. What was under way may have been written: only an idempotent producer sends it again.
    fn lost(
        &mut self,
        broker: Option<i32>,
        places: &[Place],
        failure: Failure,
    ) -> Result<Failure, Failure> {
        let is_network = matches!(failure, Failure::Unreachable { .. });
        if self.producer.is_none() || !is_network {
            return Err(failure);
        }
        if let Some(broker) = broker {
            self.cluster.drop_connection(broker);
        }
        for place in places {
            self.cluster.forget_leader(&place.topic, place.partition);
        }
        if let Err(failure) = self.cluster.reopen() {
            remark(1, || failure.to_string());
        }
        Ok(failure)
    }

    fn note(&mut self, place: &Place, count: i32, base_offset: i64) {
        let last = base_offset + i64::from(count) - 1;
        let written = self.written.entry(place.clone()).or_insert(Written {
            records: 0,
            first_offset: base_offset,
            last_offset: -1,
        });
        written.records += i64::from(count);
        if base_offset >= 0 {
            written.last_offset = last;
        }
    }

    /// Ends the transaction, if one is open.
    pub(super) fn end(&mut self, commits: bool) -> Result<(), Failure> {
        match &mut self.transactions {
            Some(transactions) => {
                self.cluster.renew(Duration::ZERO);
                transactions.end(&mut self.cluster, commits)
            }
            None => Ok(()),
        }
    }

    /// After a failure: aborts what is open, if that can still be done. Else its timeout does.
    pub(super) fn give_up(&mut self) {
        if let Err(failure) = self.end(false) {
            remark(1, || {
                format!("the transaction is left to its timeout: {failure}")
            });
        }
    }

    /// Without acknowledgements: waits until the brokers have at least read what was sent. They answer in order.
    pub(super) fn confirm(&mut self) -> Result<(), Failure> {
        if self.acks != Acks::Nobody {
            return Ok(());
        }
        self.cluster.renew(Duration::ZERO);
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        for broker in self.cluster.connected() {
            self.cluster.call(broker, METADATA_NEWEST, &request)?;
        }
        Ok(())
    }

    pub(super) fn written(&self) -> &BTreeMap<Place, Written> {
        &self.written
    }

    pub(super) fn transactions(&self) -> Option<&Transactions> {
        self.transactions.as_ref()
    }
}

enum Answer {
    Written,
    Later,
    Refused,
}

/// InitProducerId, of a transactional id or of nobody's.
fn init(
    cluster: &mut Cluster,
    broker: i32,
    id: Option<(&str, i32)>,
) -> Result<(i64, i16), Failure> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(id.map(|(id, _)| TransactionalId(text(id))))
        .with_transaction_timeout_ms(id.map_or(i32::MAX, |(_, timeout_ms)| timeout_ms))
        .with_producer_id(WireProducerId(-1))
        .with_producer_epoch(-1);
    loop {
        let answer = cluster.call(broker, INIT_PRODUCER_ID_NEWEST, &request)?;
        // CONCURRENT_TRANSACTIONS: the transaction before is being ended.
        let is_pending = answer.error_code == 51 || NOT_YET.contains(&answer.error_code);
        if is_pending && Instant::now() + PAUSE < cluster.deadline() {
            thread::sleep(PAUSE);
            continue;
        }
        let what = id.map_or("a producer id", |(id, _)| id);
        crate::client::check(what, answer.error_code)?;
        return Ok((answer.producer_id.0, answer.producer_epoch));
    }
}
