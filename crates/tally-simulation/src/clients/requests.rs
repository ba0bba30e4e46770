//! The requests of the clients.

use crate::model::{FLUSHED, KEYED, Place, key_of};
use crate::network::{Network, START_MS};
use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, BrokerId, CreateTopicsRequest,
    DescribeTransactionsRequest, EndTxnRequest, FetchRequest, InitProducerIdRequest,
    OffsetFetchRequest, ProduceRequest, ProducerId, TxnOffsetCommitRequest,
};
use tally_testkit::batches::{Batch, Record};
use tally_testkit::client::{Client as Wire, Producer};
use tally_testkit::client::{group_id, topic_name, transactional_id};

/// A batch with these values.
pub(crate) fn batch(
    producer: Producer,
    sequence: i32,
    is_transactional: bool,
    values: &[String],
) -> Bytes {
    let kind = if is_transactional {
        Batch::transactional
    } else {
        Batch::idempotent
    };
    let mut batch = kind(producer.id, producer.epoch, sequence, 0);
    batch.base_timestamp = START_MS;
    batch.records = values
        .iter()
        .map(|value| Record {
            timestamp_delta: 0,
            key: key_of(value).map(Bytes::from),
            value: Some(Bytes::from(value.clone())),
        })
        .collect();
    batch.encode()
}

pub(crate) fn produce((topic, index): Place, id: Option<&str>, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(index)
        .with_records(Some(records));
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_topic_data(vec![topic])
        .with_transactional_id(id.map(transactional_id))
        .with_acks(-1)
        .with_timeout_ms(30_000)
}

pub(crate) fn init(
    id: Option<&str>,
    timeout_ms: i32,
    expected: Option<Producer>,
) -> InitProducerIdRequest {
    let expected = expected.unwrap_or(Producer { id: -1, epoch: -1 });
    InitProducerIdRequest::default()
        .with_transactional_id(id.map(transactional_id))
        .with_transaction_timeout_ms(timeout_ms)
        .with_producer_id(ProducerId(expected.id))
        .with_producer_epoch(expected.epoch)
}

pub(crate) fn add_partition(
    id: &str,
    producer: Producer,
    (topic, index): Place,
) -> AddPartitionsToTxnRequest {
    let topic = AddPartitionsToTxnTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![index]);
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id(id))
        .with_v3_and_below_producer_id(ProducerId(producer.id))
        .with_v3_and_below_producer_epoch(producer.epoch)
        .with_v3_and_below_topics(vec![topic])
}

pub(crate) fn add_offsets(id: &str, producer: Producer, group: &str) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_group_id(group_id(group))
}

pub(crate) fn commit_offsets(
    id: &str,
    producer: Producer,
    group: &str,
    ((topic, index), offset): (Place, i64),
) -> TxnOffsetCommitRequest {
    Wire::txn_offset_commit_request(id, producer, group, &[(topic, index, offset)])
}

pub(crate) fn end(id: &str, producer: Producer, commit: bool) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(ProducerId(producer.id))
        .with_producer_epoch(producer.epoch)
        .with_committed(commit)
}

/// DescribeTransactions.
pub(crate) fn describe(id: &str) -> DescribeTransactionsRequest {
    DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id(id)])
}

/// OffsetFetch v7, of offsets that no transaction may still change.
pub(crate) fn committed(group: &str, (topic, index): Place) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partition_indexes(vec![index]);
    OffsetFetchRequest::default()
        .with_group_id(group_id(group))
        .with_topics(Some(vec![topic]))
        .with_require_stable(true)
}

/// Fetch v12.
pub(crate) fn fetch((topic, index): Place, from: i64, isolation: i8, bytes: i32) -> FetchRequest {
    let part = FetchPartition::default()
        .with_partition(index)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(from)
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(bytes);
    let topic = FetchTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(vec![part]);
    FetchRequest::default()
        .with_topics(vec![topic])
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(bytes)
        .with_isolation_level(isolation)
        .with_session_epoch(-1)
        .with_replica_id(BrokerId(-1))
}

/// Topics; with small segments and flush settings if so wished. The one that is compacted has small ones anyway.
pub(crate) fn create(topics: &[(&str, i32)], network: &Network) -> CreateTopicsRequest {
    let setting = |name: &'static str, value: &'static str| {
        CreatableTopicConfig::default()
            .with_name(name.into())
            .with_value(Some(value.into()))
    };
    let keyed = vec![
        setting("cleanup.policy", "compact"),
        setting("internal.segment.bytes", "600"),
        setting("min.cleanable.dirty.ratio", "0.01"),
    ];
    let topics = topics.iter().map(|(name, partitions)| {
        let mut configs = match *name {
            KEYED => keyed.clone(),
            _ if network.is_small => vec![setting("internal.segment.bytes", "2000")],
            _ => Vec::new(),
        };
        match *name {
            FLUSHED if network.is_flushed => configs.push(setting("flush.messages", "1")),
            "work" if network.is_flushed => configs.push(setting("flush.messages", "3")),
            "list" if network.is_flushed => configs.push(setting("flush.ms", "20")),
            _ => {}
        }
        CreatableTopic::default()
            .with_configs(configs)
            .with_name(topic_name(name))
            .with_num_partitions(*partitions)
            .with_replication_factor(1)
    });
    CreateTopicsRequest::default()
        .with_topics(topics.collect())
        .with_timeout_ms(30_000)
}
