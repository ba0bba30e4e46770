//! ListOffsets (log-and-fetch.md section 8).

use crate::api::Node;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use std::collections::BTreeSet;
use tally_protocol::compression::decompress;
use tally_protocol::record::Records;
use tally_protocol::validate::inflated_bytes_max;
use tally_protocol::{BatchView, ErrorCode, LeaderEpoch, Offset, PartitionId};
use tally_shard::{Isolation, OffsetLookup, OffsetQuery, ShardMessage, ShardReply};
use tally_storage::Slice;

/// The replica id of consumers.
const CONSUMER: i32 = -1;

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    // LR-93: the bound of open transactions is for consumers; tools ask as somebody else.
    let isolation = if request.isolation_level == 1 && request.replica_id.0 == CONSUMER {
        Isolation::ReadCommitted
    } else {
        Isolation::ReadUncommitted
    };
    let named_twice = named_twice(&request);
    let mut response = ListOffsetsResponse::default();
    for topic in &request.topics {
        let mut result = ListOffsetsTopicResponse::default();
        result.name = topic.name.clone();
        for partition in &topic.partitions {
            let name = topic.name.as_str();
            let answer = if named_twice.contains(&(name, partition.partition_index)) {
                Err(ErrorCode::InvalidRequest)
            } else {
                one(node, version, isolation, name, partition).await
            };
            let mut row = ListOffsetsPartitionResponse::default();
            row.partition_index = partition.partition_index;
            row.timestamp = -1;
            row.offset = -1;
            match answer {
                Ok(found) => {
                    row.timestamp = found.timestamp_ms;
                    row.offset = found.offset.0;
                    if version >= 4 {
                        row.leader_epoch = found.leader_epoch.0;
                    }
                }
                Err(code) => row.error_code = code.code(),
            }
            result.partitions.push(row);
        }
        response.topics.push(result);
    }
    response
}

/// What is said of one partition.
struct Found {
    offset: Offset,
    timestamp_ms: i64,
    leader_epoch: LeaderEpoch,
}

impl Found {
    const NOWHERE: Found = Found {
        offset: Offset::NONE,
        timestamp_ms: -1,
        leader_epoch: LeaderEpoch::NONE,
    };
}

/// What a timestamp of the request means in this version: the special ones came one by one.
fn query(version: i16, timestamp: i64) -> Result<Option<OffsetQuery>, ErrorCode> {
    match timestamp {
        -1 => Ok(Some(OffsetQuery::Latest)),
        -2 => Ok(Some(OffsetQuery::Earliest)),
        -3 if version >= 7 => Ok(Some(OffsetQuery::MaxTimestamp)),
        // Earliest local: without tiering the same as earliest.
        -4 if version >= 8 => Ok(Some(OffsetQuery::Earliest)),
        // Latest tiered, earliest pending upload: there is no tiering.
        -5 if version >= 9 => Ok(None),
        -6 if version >= 11 => Ok(None),
        timestamp if timestamp >= 0 => Ok(Some(OffsetQuery::AtOrAfter(timestamp))),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

async fn one(
    node: &Node,
    version: i16,
    isolation: Isolation,
    topic: &str,
    partition: &ListOffsetsPartition,
) -> Result<Found, ErrorCode> {
    let query = query(version, partition.timestamp)?;
    let id: PartitionId = node
        .metadata
        .partition_id(topic, partition.partition_index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let Some(query) = query else {
        return Ok(Found::NOWHERE);
    };
    let current_leader_epoch = LeaderEpoch(partition.current_leader_epoch);
    let message = |to| ShardMessage::FindOffset {
        query,
        isolation,
        current_leader_epoch,
        to,
    };
    match node.ask_the_disk(id, message).await? {
        ShardReply::Offset(Ok(OffsetLookup::At {
            offset,
            leader_epoch,
        })) => Ok(Found {
            offset,
            timestamp_ms: -1,
            leader_epoch,
        }),
        ShardReply::Offset(Ok(OffsetLookup::InBatch {
            batch,
            otherwise,
            log_start,
            upper,
        })) => {
            let batches: Vec<Slice> = [Some(batch.clone()), otherwise.clone()]
                .into_iter()
                .flatten()
                .collect();
            let failed = node.loading.load_slices(std::iter::once(&batches[..]));
            if let Some((_, error)) = failed.await.pop() {
                tracing::error!(partition = %id, %error, "a batch can't be read");
                return Err(ErrorCode::KafkaStorageError);
            }
            let found = find_in_batch(&batch, query, log_start, upper)?;
            match otherwise.filter(|_| found.offset == Offset::NONE) {
                Some(batch) => find_in_batch(&batch, query, log_start, upper),
                None => Ok(found),
            }
        }
        ShardReply::Offset(Ok(OffsetLookup::Nowhere)) => Ok(Found::NOWHERE),
        ShardReply::Offset(Err(ErrorCode::UnknownTopicOrPartition)) => Err(node.absent(id)),
        ShardReply::Offset(Err(code)) => Err(code),
        _ => Err(ErrorCode::NotLeaderOrFollower),
    }
}

/// The record of a batch that answers the query (LR-92); none at or beyond `upper` counts (LR-90).
fn find_in_batch(
    bytes: &[u8],
    query: OffsetQuery,
    log_start: Offset,
    upper: Offset,
) -> Result<Found, ErrorCode> {
    let batch = BatchView::parse(bytes).map_err(|_| ErrorCode::CorruptMessage)?;
    let header = batch.header();
    // The bound under which it was produced.
    let unpacked_bytes_max = inflated_bytes_max(batch.records().len());
    let block = decompress(header.codec(), batch.records(), unpacked_bytes_max)
        .map_err(|_| ErrorCode::CorruptMessage)?;
    let append_time = header.attributes & tally_protocol::batch::LOG_APPEND_TIME_BIT != 0;
    let mut best: Option<(Offset, i64)> = None;
    for record in Records::new(&block, header.records_count) {
        let record = record.map_err(|_| ErrorCode::CorruptMessage)?;
        let offset = header.base_offset.plus(i64::from(record.offset_delta));
        let timestamp_ms = if append_time {
            header.max_timestamp
        } else {
            header.base_timestamp.saturating_add(record.timestamp_delta)
        };
        if offset < log_start {
            continue;
        }
        match query {
            OffsetQuery::AtOrAfter(wanted_ms) if timestamp_ms >= wanted_ms => {
                best = Some((offset, timestamp_ms));
                break;
            }
            OffsetQuery::MaxTimestamp if best.is_none_or(|(_, best_ms)| timestamp_ms > best_ms) => {
                best = Some((offset, timestamp_ms));
            }
            OffsetQuery::AtOrAfter(_)
            | OffsetQuery::MaxTimestamp
            | OffsetQuery::Latest
            | OffsetQuery::Earliest => {}
        }
    }
    Ok(match best.filter(|(offset, _)| *offset < upper) {
        Some((offset, timestamp_ms)) => Found {
            offset,
            timestamp_ms,
            leader_epoch: header.leader_epoch,
        },
        None => Found::NOWHERE,
    })
}

fn named_twice(request: &ListOffsetsRequest) -> BTreeSet<(&str, i32)> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.as_str(), partition.partition_index);
            if !seen.insert(key) {
                twice.insert(key);
            }
        }
    }
    twice
}
