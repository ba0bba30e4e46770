//! The requests of the load and what is read of their answers, by fixed places: the load must cost less than what it
//! measures.

use crate::frames::{OFFSET_MARK, PRODUCER_MARK};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiVersionsRequest, EndTxnRequest,
    FetchRequest, ProduceRequest, TxnOffsetCommitRequest,
};
use tally_testkit::batches::{Batch, Record};
use tally_testkit::client::{Producer, group_id, text, topic_name, transactional_id};

/// Bytes of a batch that are no value: header, and what a record has around a value of 64 bytes or more.
const AROUND_VALUE: usize = 61 + 9;

/// A batch of `count` records, about `bytes` long in all, of the marked producer or of none. The values do not compress
/// to nothing: words in an order that a seed gives.
pub(crate) fn batch(
    bytes: usize,
    count: usize,
    has_producer: bool,
    is_transactional: bool,
) -> Batch {
    let value_bytes = (bytes.saturating_sub(61) / count)
        .saturating_sub(AROUND_VALUE - 61)
        .max(16);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let records = (0..count).map(|_| Record {
        timestamp_delta: 0,
        key: None,
        value: Some(words(value_bytes, &mut state)),
    });
    let plain = if is_transactional {
        Batch::transactional(PRODUCER_MARK, 0, 0, 0)
    } else if has_producer {
        Batch::idempotent(PRODUCER_MARK, 0, 0, 0)
    } else {
        Batch::plain(0)
    };
    Batch {
        records: records.collect(),
        ..plain
    }
}

fn words(bytes: usize, state: &mut u64) -> Bytes {
    const WORDS: [&str; 8] = [
        "order ",
        "paid ",
        "42.10 ",
        "EUR ",
        "customer ",
        "0x7f ",
        "{\"id\":",
        "null,",
    ];
    let mut text = Vec::with_capacity(bytes + 16);
    while text.len() < bytes {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text.extend_from_slice(WORDS[(*state >> 61) as usize].as_bytes());
        text.extend_from_slice(format!("{:x}", *state >> 44 & 0xFFF).as_bytes());
    }
    text.truncate(bytes);
    Bytes::from(text)
}

/// Produce with acks=all to partitions of one topic.
pub(crate) fn produce(
    topic: &str,
    transaction: Option<&str>,
    parts: &[(i32, &Bytes)],
) -> ProduceRequest {
    let parts = parts.iter().map(|(index, batch)| {
        PartitionProduceData::default()
            .with_index(*index)
            .with_records(Some((*batch).clone()))
    });
    let topic = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_partition_data(parts.collect());
    ProduceRequest::default()
        .with_transactional_id(transaction.map(transactional_id))
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic])
}

/// AddPartitionsToTxn, versions up to 3.
pub(crate) fn add_partitions(id: &str, topic: &str, partitions: i32) -> AddPartitionsToTxnRequest {
    let topic = AddPartitionsToTxnTopic::default()
        .with_name(topic_name(topic))
        .with_partitions((0..partitions).collect());
    AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(transactional_id(id))
        .with_v3_and_below_producer_id(PRODUCER_MARK.into())
        .with_v3_and_below_producer_epoch(0)
        .with_v3_and_below_topics(vec![topic])
}

/// AddOffsetsToTxn.
pub(crate) fn add_offsets(id: &str, group: &str) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(PRODUCER_MARK.into())
        .with_producer_epoch(0)
        .with_group_id(group_id(group))
}

/// TxnOffsetCommit of one partition.
pub(crate) fn offsets(id: &str, group: &str, topic: &str) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(1)
        .with_committed_leader_epoch(-1);
    let topic = TxnOffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    TxnOffsetCommitRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_group_id(group_id(group))
        .with_producer_id(PRODUCER_MARK.into())
        .with_producer_epoch(0)
        .with_generation_id(-1)
        .with_topics(vec![topic])
}

/// EndTxn with a commit.
pub(crate) fn end(id: &str) -> EndTxnRequest {
    EndTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(PRODUCER_MARK.into())
        .with_producer_epoch(0)
        .with_committed(true)
}

/// What a fetch asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchAsk {
    /// First partition.
    pub(crate) first: i32,
    /// How many partitions.
    pub(crate) partitions: i32,
    /// Offset in each of them; a mark to be patched is possible.
    pub(crate) offset: i64,
    /// Bytes of one partition at most.
    pub(crate) bytes_max: i32,
    /// How long to wait for a byte.
    pub(crate) wait_ms: i32,
    /// Fetch session id and epoch; 0 and -1 for none.
    pub(crate) session: (i32, i32),
}

impl FetchAsk {
    /// One partition at the mark, without a session and without waiting.
    pub(crate) const fn marked(partition: i32, bytes_max: i32) -> FetchAsk {
        FetchAsk {
            first: partition,
            partitions: 1,
            offset: OFFSET_MARK,
            bytes_max,
            wait_ms: 0,
            session: (0, -1),
        }
    }
}

/// Fetch version 12 from one topic; without partitions for a session that has them.
pub(crate) fn fetch(topic: &str, ask: &FetchAsk) -> FetchRequest {
    let parts = (ask.first..ask.first + ask.partitions).map(|index| {
        FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(ask.offset)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(ask.bytes_max)
    });
    let topics = FetchTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(parts.collect());
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(ask.wait_ms)
        .with_min_bytes(i32::from(ask.wait_ms > 0))
        .with_max_bytes(64 << 20)
        .with_session_id(ask.session.0)
        .with_session_epoch(ask.session.1)
        .with_topics(if ask.partitions > 0 {
            vec![topics]
        } else {
            Vec::new()
        })
}

/// Length of a response's header: correlation id, no tags.
const HEADER: usize = 5;

fn i16_at(frame: &[u8], at: usize) -> Result<i16> {
    let bytes = frame
        .get(at..at + 2)
        .context("an answer that is too short")?;
    Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
}

fn i32_at(frame: &[u8], at: usize) -> Result<i32> {
    let bytes = frame
        .get(at..at + 4)
        .context("an answer that is too short")?;
    Ok(i32::from_be_bytes(bytes.try_into()?))
}

fn i64_at(frame: &[u8], at: usize) -> Result<i64> {
    let bytes = frame
        .get(at..at + 8)
        .context("an answer that is too short")?;
    Ok(i64::from_be_bytes(bytes.try_into()?))
}

/// The first error among `count` rows of `stride` bytes, in which the error stands behind a partition's number.
fn first_error(frame: &[u8], at: usize, count: usize, stride: usize) -> Result<i16> {
    for row in 0..count {
        let error = i16_at(frame, at + row * stride + 4)?;
        if error != 0 {
            return Ok(error);
        }
    }
    Ok(0)
}

/// The error of a Produce response, versions 9 to 12, of one topic with fewer than 127 partitions.
pub(crate) fn produce_error(frame: &[u8], topic: &str, partitions: usize) -> Result<i16> {
    first_error(frame, HEADER + 1 + 1 + topic.len() + 1, partitions, 33)
}

/// The error of an AddPartitionsToTxn response (3) or a TxnOffsetCommit response (3 to 5).
pub(crate) fn partitions_error(frame: &[u8], topic: &str, partitions: usize) -> Result<i16> {
    first_error(frame, HEADER + 4 + 1 + 1 + topic.len() + 1, partitions, 7)
}

/// The error of an EndTxn or AddOffsetsToTxn response.
pub(crate) fn plain_error(frame: &[u8]) -> Result<i16> {
    i16_at(frame, HEADER + 4)
}

/// The producer that an EndTxn response of version 5 gives.
pub(crate) fn next_producer(frame: &[u8]) -> Result<Producer> {
    Ok(Producer {
        id: i64_at(frame, HEADER + 6)?,
        epoch: i16_at(frame, HEADER + 14)?,
    })
}

/// What is read of a Fetch response of version 12.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fetched {
    /// Of the response.
    pub(crate) error: i16,
    /// The session it offers.
    pub(crate) session: i32,
    /// Of the first partition: error, bytes of records, and where these begin in the frame.
    pub(crate) first: Option<(i16, usize, usize)>,
}

/// Reads the beginning of a Fetch response.
pub(crate) fn fetched(frame: &[u8], topic: &str) -> Result<Fetched> {
    let error = i16_at(frame, HEADER + 4)?;
    let session = i32_at(frame, HEADER + 6)?;
    let topics = *frame
        .get(HEADER + 10)
        .context("an answer that is too short")?;
    if topics <= 1 {
        return Ok(Fetched {
            error,
            session,
            first: None,
        });
    }
    let partition = HEADER + 10 + 1 + 1 + topic.len() + 1;
    let code = i16_at(frame, partition + 4)?;
    let aborted = partition + 6 + 24;
    let none = frame.get(aborted).is_some_and(|&count| count <= 1);
    ensure!(none, "aborted transactions in a topic without any");
    let (length, at) = varint(frame, aborted + 1 + 4)?;
    let records = usize::try_from(length)?.saturating_sub(1);
    Ok(Fetched {
        error,
        session,
        first: Some((code, records, at)),
    })
}

/// An unsigned varint and where the next byte is.
fn varint(frame: &[u8], mut at: usize) -> Result<(u64, usize)> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = *frame.get(at).context("an answer that is too short")?;
        at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok((value, at));
        }
    }
    anyhow::bail!("a number that is too long")
}

/// Offset of the last record and time of sending of each whole batch.
pub(crate) fn times(records: &[u8], time_at: usize) -> impl Iterator<Item = (i64, u64)> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let length = usize::try_from(i32_at(rest, 8).ok()?).ok()?;
        let batch = rest.get(..12 + length)?;
        rest = &rest[batch.len()..];
        let last = i64_at(batch, 0).ok()? + i64::from(i32_at(batch, 23).ok()?);
        let time = i64_at(batch, time_at).ok()?;
        Some((last, time.unsigned_abs()))
    })
}

/// A whole ApiVersions request.
pub(crate) fn api_versions() -> Vec<u8> {
    let request = ApiVersionsRequest::default()
        .with_client_software_name(text("tally-bench"))
        .with_client_software_version(text("1"));
    tally_testkit::wire::frame(3, 0, &request)
}
