//! The calls that the wire tests make most, as functions over one connection. Error codes are the numbers of the wire.

use crate::batches::{Batch, ReadBatch, read_batches};
use crate::waiting::wait_until;
use crate::wire::Connection;
use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiVersionsRequest, ApiVersionsResponse,
    BrokerId, CreateTopicsRequest, DeleteRecordsRequest, DescribeTransactionsRequest,
    EndTxnRequest, FetchRequest, FetchResponse, FindCoordinatorRequest, GroupId,
    InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, ProduceRequest, ProduceResponse, ProducerId, TopicName, TransactionalId,
    TxnOffsetCommitRequest,
};
use kafka_protocol::messages::{delete_records_request, metadata_response};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use uuid::Uuid;

/// No error.
pub const NONE: i16 = 0;

/// Text for the wire.
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A topic's name for the wire.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A transactional id for the wire.
pub fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

/// A group's name for the wire.
pub fn group_id(id: &str) -> GroupId {
    GroupId(text(id))
}

/// A name that no other test and no other run uses.
pub fn unique(prefix: &str) -> String {
    let id = Uuid::from_u128(u128::from(random_bits()) << 64 | u128::from(random_bits()));
    format!("{prefix}-{}", &id.simple().to_string()[..12])
}

fn random_bits() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8)
}

/// A producer id and its epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Producer {
    /// Producer id.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
}

/// A Produce request to be made.
#[derive(Clone, Debug)]
pub struct ProduceCall<'a> {
    /// Version of the request.
    pub version: i16,
    /// -1, 0, 1 or nonsense.
    pub acks: i16,
    /// For transactions.
    pub transactional_id: Option<&'a str>,
    /// Topic, partition, record set.
    pub parts: Vec<(&'a str, i32, Option<Bytes>)>,
}

/// What Produce answers for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Produced {
    /// Error code.
    pub error: i16,
    /// Offset of the first record, or -1.
    pub base_offset: i64,
    /// Milliseconds, or -1.
    pub log_append_time: i64,
    /// First offset of the partition, or -1.
    pub log_start_offset: i64,
    /// Indexes in record_errors.
    pub record_errors: Vec<i32>,
}

/// A Fetch request without a session to be made.
#[derive(Clone, Debug)]
pub struct FetchCall<'a> {
    /// Version of the request.
    pub version: i16,
    /// 0 read_uncommitted, 1 read_committed.
    pub isolation: i8,
    /// How long the broker may wait.
    pub max_wait_ms: i32,
    /// For how many bytes it waits.
    pub min_bytes: i32,
    /// Limit of the response.
    pub max_bytes: i32,
    /// Limit of one partition.
    pub partition_max_bytes: i32,
    /// Topic, partition, offset.
    pub parts: Vec<(&'a str, i32, i64)>,
}

impl<'a> FetchCall<'a> {
    /// All there is of one partition from `offset` on, at once.
    pub fn of(topic: &'a str, partition: i32, offset: i64, isolation: i8) -> FetchCall<'a> {
        FetchCall {
            version: 12,
            isolation,
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 64 << 20,
            partition_max_bytes: 64 << 20,
            parts: vec![(topic, partition, offset)],
        }
    }
}

/// What Fetch answers for one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Error code.
    pub error: i16,
    /// High watermark.
    pub high_watermark: i64,
    /// Last stable offset.
    pub last_stable_offset: i64,
    /// First offset of the partition.
    pub log_start_offset: i64,
    /// Producer id and first offset; `None` for null.
    pub aborted: Option<Vec<(i64, i64)>>,
    /// Whole batches.
    pub batches: Vec<ReadBatch>,
}

impl Fetched {
    /// The data batches' records that a consumer of committed data keeps, by the rules of the Java client (F-8).
    pub fn committed(&self) -> Vec<(i64, Option<Bytes>)> {
        let mut listed = self.aborted.clone().unwrap_or_default();
        listed.sort_by_key(|(_, first)| *first);
        let mut aborted: Vec<i64> = Vec::new();
        let mut kept = Vec::new();
        for batch in &self.batches {
            let last = batch.header.last_offset().0;
            while listed.first().is_some_and(|(_, first)| *first <= last) {
                aborted.push(listed.remove(0).0);
            }
            let producer = batch.header.producer_id.0;
            match batch.marker() {
                Some(false) => aborted.retain(|one| *one != producer),
                Some(true) => {}
                None if batch.header.is_transactional() && aborted.contains(&producer) => {}
                None => kept.extend(batch.records.iter().map(|r| (r.offset, r.value.clone()))),
            }
        }
        kept
    }

    /// Offsets of the records in data batches.
    pub fn data_offsets(&self) -> Vec<i64> {
        let data = self.batches.iter().filter(|b| b.marker().is_none());
        data.flat_map(|b| b.records.iter().map(|r| r.offset))
            .collect()
    }

    /// The markers: offset, producer epoch, whether it commits.
    pub fn markers(&self) -> Vec<(i64, i16, bool)> {
        let marker = |batch: &ReadBatch| {
            let commit = batch.marker()?;
            Some((batch.base_offset(), batch.header.producer_epoch.0, commit))
        };
        self.batches.iter().filter_map(marker).collect()
    }
}

/// A connection with the calls.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    topic_ids: BTreeMap<String, Uuid>,
}

impl Deref for Client {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Client {
    /// Connects to `HOST:PORT`.
    #[track_caller]
    pub fn connect(address: &str) -> Client {
        Client {
            connection: Connection::open(address),
            topic_ids: BTreeMap::new(),
        }
    }

    /// Connects to `HOST:PORT`, if something listens there.
    pub fn try_connect(address: &str) -> std::io::Result<Client> {
        Ok(Client {
            connection: Connection::try_open(address)?,
            topic_ids: BTreeMap::new(),
        })
    }

    /// ApiVersions.
    #[track_caller]
    pub fn api_versions(&mut self, version: i16) -> ApiVersionsResponse {
        let mut request = ApiVersionsRequest::default();
        if version >= 3 {
            request = request
                .with_client_software_name(text("tally-testkit"))
                .with_client_software_version(text("1"));
        }
        self.call(version, &request)
    }

    /// Whether this is Apache Kafka, by a feature that only a broker with a Raft controller shows. The tests of Tally's
    /// deviations ask (exactly-once.md 0.4).
    #[track_caller]
    pub fn is_apache_kafka(&mut self) -> bool {
        let versions = self.api_versions(4);
        let mut features = versions.supported_features.iter();
        features.any(|feature| &*feature.name == "kraft.version")
    }

    /// Creates a topic and waits until it can be used.
    #[track_caller]
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        let error = self.try_create_topic(name, partitions, configs);
        assert_eq!(error, NONE, "creating {name}");
        self.wait_for_topic(name, partitions);
    }

    /// Waits until a topic has so many partitions and all of them answer: Apache Kafka's broker hears of both a moment after
    /// the controller has answered.
    #[track_caller]
    pub fn wait_for_topic(&mut self, name: &str, partitions: i32) {
        wait_until("the topic has leaders", || {
            let topic = self.topic(name);
            topic.error_code == NONE
                && i32::try_from(topic.partitions.len()) == Ok(partitions)
                && topic.partitions.iter().all(|p| p.error_code == NONE)
        });
        // Apache Kafka tells of leaders before they take requests.
        for partition in 0..partitions {
            wait_until("the partition answers", || {
                self.list_offset((7, 0), name, partition, -1).0 == NONE
            });
        }
    }

    /// CreateTopics with one topic; its error.
    #[track_caller]
    pub fn try_create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> i16 {
        let configs = configs.iter().map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(text(key))
                .with_value(Some(text(value)))
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000);
        let response = self.call(7, &request);
        response.topics[0].error_code
    }

    /// One topic by Metadata, without creating it.
    #[track_caller]
    pub fn topic(&mut self, name: &str) -> metadata_response::MetadataResponseTopic {
        let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(false);
        let mut response = self.call(12, &request);
        response.topics.remove(0)
    }

    /// The topic's id.
    #[track_caller]
    pub fn topic_id(&mut self, name: &str) -> Uuid {
        if let Some(id) = self.topic_ids.get(name) {
            return *id;
        }
        let id = self.topic(name).topic_id;
        self.topic_ids.insert(name.to_owned(), id);
        id
    }

    /// The request of a [`ProduceCall`].
    #[track_caller]
    pub fn produce_request(&mut self, call: &ProduceCall<'_>) -> ProduceRequest {
        let mut topics: Vec<(&str, Vec<PartitionProduceData>)> = Vec::new();
        for (topic, partition, records) in &call.parts {
            let data = PartitionProduceData::default()
                .with_index(*partition)
                .with_records(records.clone());
            match topics.iter_mut().find(|(name, _)| name == topic) {
                Some((_, partitions)) => partitions.push(data),
                None => topics.push((topic, vec![data])),
            }
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            let topic = TopicProduceData::default().with_partition_data(partitions);
            if call.version >= 13 {
                topic.with_topic_id(self.topic_id(name))
            } else {
                topic.with_name(topic_name(name))
            }
        });
        ProduceRequest::default()
            .with_topic_data(topics.collect())
            .with_transactional_id(call.transactional_id.map(transactional_id))
            .with_acks(call.acks)
            .with_timeout_ms(30_000)
    }

    /// Produce; the results in the order of the parts.
    #[track_caller]
    pub fn produce(&mut self, call: &ProduceCall<'_>) -> Vec<Produced> {
        let request = self.produce_request(call);
        let response = self.call(call.version, &request);
        self.produced(call, &response)
    }

    /// The results of a response in the order of the call's parts.
    #[track_caller]
    pub fn produced(
        &mut self,
        call: &ProduceCall<'_>,
        response: &ProduceResponse,
    ) -> Vec<Produced> {
        let mut results = Vec::new();
        for (name, index, _) in &call.parts {
            let id = if call.version >= 13 {
                self.topic_id(name)
            } else {
                Uuid::nil()
            };
            let topic = response.responses.iter().find(|topic| {
                if call.version >= 13 {
                    topic.topic_id == id
                } else {
                    &*topic.name.0 == *name
                }
            });
            let partitions = &topic.expect("the topic is answered").partition_responses;
            let result = partitions.iter().find(|one| one.index == *index);
            let result = result.expect("the partition is answered");
            results.push(Produced {
                error: result.error_code,
                base_offset: result.base_offset,
                log_append_time: result.log_append_time_ms,
                log_start_offset: result.log_start_offset,
                record_errors: result.record_errors.iter().map(|e| e.batch_index).collect(),
            });
        }
        results
    }

    /// One plain record set by Produce v9 with acks=all.
    #[track_caller]
    pub fn produce_one(&mut self, topic: &str, partition: i32, records: Bytes) -> Produced {
        let call = ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: None,
            parts: vec![(topic, partition, Some(records))],
        };
        self.produce(&call).remove(0)
    }

    /// `count` records without a producer.
    #[track_caller]
    pub fn produce_plain(&mut self, topic: &str, partition: i32, count: i32) -> Produced {
        self.produce_one(topic, partition, Batch::plain(count).encode())
    }

    /// The request of a [`FetchCall`].
    #[track_caller]
    pub fn fetch_request(&mut self, call: &FetchCall<'_>) -> FetchRequest {
        let mut topics: Vec<(&str, Vec<FetchPartition>)> = Vec::new();
        for (topic, partition, offset) in &call.parts {
            let part = FetchPartition::default()
                .with_partition(*partition)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(*offset)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(call.partition_max_bytes);
            match topics.iter_mut().find(|(name, _)| name == topic) {
                Some((_, partitions)) => partitions.push(part),
                None => topics.push((topic, vec![part])),
            }
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            let topic = FetchTopic::default().with_partitions(partitions);
            if call.version >= 13 {
                topic.with_topic_id(self.topic_id(name))
            } else {
                topic.with_topic(topic_name(name))
            }
        });
        let mut request = FetchRequest::default()
            .with_topics(topics.collect())
            .with_max_wait_ms(call.max_wait_ms)
            .with_min_bytes(call.min_bytes)
            .with_max_bytes(call.max_bytes)
            .with_isolation_level(call.isolation)
            .with_session_epoch(-1);
        if call.version < 15 {
            request = request.with_replica_id(BrokerId(-1));
        }
        request
    }

    /// Fetch; the results in the order of the parts.
    #[track_caller]
    pub fn fetch(&mut self, call: &FetchCall<'_>) -> Vec<Fetched> {
        let request = self.fetch_request(call);
        let response = self.call(call.version, &request);
        assert_eq!(response.error_code, NONE, "the whole fetch");
        let mut results = Vec::new();
        for (name, index, _) in &call.parts {
            results.push(self.fetched(call.version, &response, name, *index));
        }
        results
    }

    /// One partition of a response; panics if it is missing.
    #[track_caller]
    pub fn fetched(
        &mut self,
        version: i16,
        response: &FetchResponse,
        name: &str,
        index: i32,
    ) -> Fetched {
        let id = if version >= 13 {
            self.topic_id(name)
        } else {
            Uuid::nil()
        };
        let topic = response.responses.iter().find(|topic| {
            if version >= 13 {
                topic.topic_id == id
            } else {
                &*topic.topic.0 == name
            }
        });
        let partitions = &topic.expect("the topic is answered").partitions;
        let part = partitions.iter().find(|one| one.partition_index == index);
        let part = part.expect("the partition is answered");
        let aborted = part.aborted_transactions.as_ref().map(|list| {
            list.iter()
                .map(|one| (one.producer_id.0, one.first_offset))
                .collect()
        });
        Fetched {
            error: part.error_code,
            high_watermark: part.high_watermark,
            last_stable_offset: part.last_stable_offset,
            log_start_offset: part.log_start_offset,
            aborted,
            batches: read_batches(part.records.as_ref().unwrap_or(&Bytes::new())),
        }
    }

    /// One partition from `offset` on, read_committed.
    #[track_caller]
    pub fn read_committed(&mut self, topic: &str, partition: i32, offset: i64) -> Fetched {
        self.fetch(&FetchCall::of(topic, partition, offset, 1))
            .remove(0)
    }

    /// One partition from `offset` on, read_uncommitted.
    #[track_caller]
    pub fn read_uncommitted(&mut self, topic: &str, partition: i32, offset: i64) -> Fetched {
        self.fetch(&FetchCall::of(topic, partition, offset, 0))
            .remove(0)
    }

    /// ListOffsets of one partition; error, offset, timestamp.
    #[track_caller]
    pub fn list_offset(
        &mut self,
        (version, isolation): (i16, i8),
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> (i16, i64, i64) {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(isolation)
            .with_topics(vec![topic]);
        let response = self.call(version, &request);
        let part = &response.topics[0].partitions[0];
        (part.error_code, part.offset, part.timestamp)
    }

    /// The high watermark.
    #[track_caller]
    pub fn latest(&mut self, topic: &str, partition: i32) -> i64 {
        let (error, offset, _) = self.list_offset((7, 0), topic, partition, -1);
        assert_eq!(error, NONE);
        offset
    }

    /// The last stable offset.
    #[track_caller]
    pub fn stable(&mut self, topic: &str, partition: i32) -> i64 {
        let (error, offset, _) = self.list_offset((7, 1), topic, partition, -1);
        assert_eq!(error, NONE);
        offset
    }

    /// DeleteRecords of one partition; error and low watermark.
    #[track_caller]
    pub fn delete_records(&mut self, topic: &str, partition: i32, before: i64) -> (i16, i64) {
        let partition = delete_records_request::DeleteRecordsPartition::default()
            .with_partition_index(partition)
            .with_offset(before);
        let topic = delete_records_request::DeleteRecordsTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(30_000);
        let response = self.call(2, &request);
        let part = &response.topics[0].partitions[0];
        (part.error_code, part.low_watermark)
    }

    /// InitProducerId without a transactional id; panics on an error.
    #[track_caller]
    pub fn idempotent_producer(&mut self) -> Producer {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000);
        let (error, producer) = self.init_producer_id(4, &request);
        assert_eq!(error, NONE);
        producer
    }

    /// InitProducerId; waits while the coordinator is not ready (14, 15, 16).
    #[track_caller]
    pub fn init_producer_id(
        &mut self,
        version: i16,
        request: &InitProducerIdRequest,
    ) -> (i16, Producer) {
        loop {
            let response = self.call(version, request);
            let producer = Producer {
                id: response.producer_id.0,
                epoch: response.producer_epoch,
            };
            if !is_not_ready(response.error_code) {
                return (response.error_code, producer);
            }
            wait_until("the coordinator is found", || {
                request
                    .transactional_id
                    .as_ref()
                    .is_none_or(|id| self.find_coordinator(&id.0, 1) == NONE)
            });
        }
    }

    /// FindCoordinator v3 of a group (0) or a transactional id (1); its error.
    #[track_caller]
    pub fn find_coordinator(&mut self, key: &str, key_type: i8) -> i16 {
        let request = FindCoordinatorRequest::default()
            .with_key(text(key))
            .with_key_type(key_type);
        self.call(3, &request).error_code
    }

    /// The request of AddPartitionsToTxn up to v3.
    pub fn add_partitions_request(
        id: &str,
        producer: Producer,
        partitions: &[(&str, i32)],
    ) -> AddPartitionsToTxnRequest {
        let topics = partitions.iter().map(|(name, partition)| {
            AddPartitionsToTxnTopic::default()
                .with_name(topic_name(name))
                .with_partitions(vec![*partition])
        });
        AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id(id))
            .with_v3_and_below_producer_id(ProducerId(producer.id))
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(topics.collect())
    }

    /// AddPartitionsToTxn v0-3; the error of each partition in order.
    #[track_caller]
    pub fn add_partitions(
        &mut self,
        version: i16,
        id: &str,
        producer: Producer,
        partitions: &[(&str, i32)],
    ) -> Vec<i16> {
        let errors = self.try_add_partitions(version, id, producer, partitions);
        errors.expect("a response, not the end of the connection")
    }

    /// The same, or `None` if the connection ends.
    #[track_caller]
    pub fn try_add_partitions(
        &mut self,
        version: i16,
        id: &str,
        producer: Producer,
        partitions: &[(&str, i32)],
    ) -> Option<Vec<i16>> {
        let request = Client::add_partitions_request(id, producer, partitions);
        let response = self.try_call(version, &request)?;
        let results = &response.results_by_topic_v3_and_below;
        let error_of = |(name, index): &(&str, i32)| {
            let topics = results.iter().filter(|topic| &*topic.name.0 == *name);
            let mut partitions = topics.flat_map(|topic| &topic.results_by_partition);
            let result = partitions.find(|one| one.partition_index == *index);
            result.expect("answered").partition_error_code
        };
        Some(partitions.iter().map(error_of).collect())
    }

    /// AddPartitionsToTxn v4-5 with one transaction: its error, and the error of each partition in order.
    #[track_caller]
    pub fn verify_partitions(
        &mut self,
        (version, verify_only): (i16, bool),
        id: &str,
        producer: Producer,
        partitions: &[(&str, i32)],
    ) -> (i16, Vec<i16>) {
        let topics = partitions.iter().map(|(name, partition)| {
            AddPartitionsToTxnTopic::default()
                .with_name(topic_name(name))
                .with_partitions(vec![*partition])
        });
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(transactional_id(id))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_verify_only(verify_only)
            .with_topics(topics.collect());
        let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
        let response = self.call(version, &request);
        let mut errors = Vec::new();
        for (name, index) in partitions {
            for topic in &response.results_by_transaction[0].topic_results {
                let partitions = topic.results_by_partition.iter();
                errors.extend(
                    partitions
                        .filter(|one| &*topic.name.0 == *name && one.partition_index == *index)
                        .map(|one| one.partition_error_code),
                );
            }
        }
        (response.error_code, errors)
    }

    /// AddOffsetsToTxn; its error.
    #[track_caller]
    pub fn add_offsets(&mut self, version: i16, id: &str, producer: Producer, group: &str) -> i16 {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(transactional_id(id))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_group_id(group_id(group));
        self.call(version, &request).error_code
    }

    /// EndTxn; its error and the pair, which is -1, -1 below v5.
    #[track_caller]
    pub fn end_txn(
        &mut self,
        version: i16,
        id: &str,
        producer: Producer,
        commit: bool,
    ) -> (i16, Producer) {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(id))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_committed(commit);
        let response = self.call(version, &request);
        let pair = Producer {
            id: response.producer_id.0,
            epoch: response.producer_epoch,
        };
        (response.error_code, pair)
    }

    /// The error of EndTxn, or `None` if the connection ends.
    #[track_caller]
    pub fn try_end_txn(
        &mut self,
        version: i16,
        id: &str,
        producer: Producer,
        commit: bool,
    ) -> Option<i16> {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(id))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_committed(commit);
        Some(self.try_call(version, &request)?.error_code)
    }

    /// The request of TxnOffsetCommit for partitions of one topic.
    pub fn txn_offset_commit_request(
        id: &str,
        producer: Producer,
        group: &str,
        offsets: &[(&str, i32, i64)],
    ) -> TxnOffsetCommitRequest {
        let topics = offsets.iter().map(|(topic, partition, offset)| {
            let partition = TxnOffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(Some(text("")));
            TxnOffsetCommitRequestTopic::default()
                .with_name(topic_name(topic))
                .with_partitions(vec![partition])
        });
        TxnOffsetCommitRequest::default()
            .with_transactional_id(transactional_id(id))
            .with_group_id(group_id(group))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_generation_id(-1)
            .with_member_id(text(""))
            .with_group_instance_id(None)
            .with_topics(topics.collect())
    }

    /// TxnOffsetCommit; the errors in the order of the request.
    #[track_caller]
    pub fn txn_offset_commit(
        &mut self,
        version: i16,
        request: &TxnOffsetCommitRequest,
    ) -> Vec<i16> {
        let response = self.call(version, request);
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|one| one.error_code).collect()
    }

    /// OffsetCommit by nobody's member; its error.
    #[track_caller]
    pub fn commit_offset(&mut self, group: &str, topic: &str, partition: i32, offset: i64) -> i16 {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("")));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id_or_member_epoch(-1)
            .with_member_id(text(""))
            .with_group_instance_id(None)
            .with_topics(vec![topic]);
        let response = self.call(8, &request);
        response.topics[0].partitions[0].error_code
    }

    /// OffsetFetch v7 of one partition; its error and offset.
    #[track_caller]
    pub fn committed_offset(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        require_stable: bool,
    ) -> (i16, i64) {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(vec![partition]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group_id(group))
            .with_topics(Some(vec![topic]))
            .with_require_stable(require_stable);
        let response = self.call(7, &request);
        if response.error_code != NONE {
            return (response.error_code, -1);
        }
        let part = &response.topics[0].partitions[0];
        (part.error_code, part.committed_offset)
    }

    /// Waits until a group has a coordinator that answers.
    #[track_caller]
    pub fn wait_for_group(&mut self, group: &str) {
        wait_until("the group's coordinator", || {
            self.find_coordinator(group, 0) == NONE
                && !is_not_ready(self.committed_offset(group, "none", 0, false).0)
        });
    }

    /// Waits until every coordinator answers, those of groups and those of transactional ids. Apache Kafka makes their topics
    /// when the first one is looked for, and loads their partitions one after the other: until the last is there, lists are
    /// answered by 14, and names that nobody knows by 14 to 16.
    #[track_caller]
    pub fn wait_for_coordinators(&mut self) {
        // Java's hash of a letter is its number: fifty in a row are one name for each of fifty partitions, and of fewer.
        let names: Vec<String> = ('2'..='c').map(String::from).collect();
        let group = |name: &String| {
            OffsetFetchRequestGroup::default()
                .with_group_id(group_id(name))
                .with_member_id(None)
                .with_member_epoch(-1)
                .with_topics(None)
        };
        let groups = OffsetFetchRequest::default().with_groups(names.iter().map(group).collect());
        let ids = names.iter().map(|name| transactional_id(name)).collect();
        let ids = DescribeTransactionsRequest::default().with_transactional_ids(ids);
        wait_until("the coordinators of groups", || {
            let mut rows = self.call(8, &groups).groups.into_iter();
            self.find_coordinator("2", 0) == NONE && rows.all(|row| !is_not_ready(row.error_code))
        });
        wait_until("the coordinators of transactional ids", || {
            let mut rows = self.call(0, &ids).transaction_states.into_iter();
            self.find_coordinator("2", 1) == NONE && rows.all(|row| !is_not_ready(row.error_code))
        });
    }
}

/// Whether a coordinator asks to come back: loading, not available, moved.
pub const fn is_not_ready(error: i16) -> bool {
    matches!(error, 14..=16)
}
