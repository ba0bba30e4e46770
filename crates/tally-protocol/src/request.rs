//! Requests. Read by hand here: Produce and Fetch, because they are hot, and ApiVersions, because the codec crate does
//! not know its version 5. All others are read by [`FromBody`].
//!
//! Invariants: the records of a Produce are never copied, they are split off the frame; no count is trusted; unknown
//! tagged fields are skipped, trailing bytes ignored (LR-154).

mod by_crate;
mod write_txn_markers;

pub use by_crate::FromBody;
pub use write_txn_markers::{WritableMarker, WriteTxnMarkersRequest};

use crate::ids::{LeaderEpoch, Offset, TopicId};
use crate::wire::{Malformed, Reader};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;

/// The most topics and partitions one Produce may name: beyond what any cluster holds, and a bound for the memory
/// that a frame of empty entries can ask for.
pub const PRODUCE_PARTITIONS_MAX: usize = 1 << 18;

/// What is reserved at once on the word of a count.
const RESERVE_MAX: usize = 1024;

/// A Produce request, versions 3 to 13.
#[derive(Debug, PartialEq, Eq)]
pub struct ProduceRequest {
    /// The transactional id, or null.
    pub transactional_id: Option<Arc<str>>,
    /// What the client waits for: 0 nothing, 1 the leader, -1 all; other values are refused (P-7).
    pub acks: i16,
    /// How long the broker may wait, milliseconds.
    pub timeout_ms: i32,
    /// The topics, in request order.
    pub topics: Vec<ProduceTopic>,
}

/// The partitions of one topic.
#[derive(Debug, PartialEq, Eq)]
pub struct ProduceTopic {
    /// The name, below version 13.
    pub name: Option<Arc<str>>,
    /// The id, from version 13; else zero.
    pub id: TopicId,
    /// The partitions, in request order.
    pub partitions: Vec<ProducePartition>,
}

/// The records for one partition.
#[derive(Debug, PartialEq, Eq)]
pub struct ProducePartition {
    /// The partition's number.
    pub index: i32,
    /// The records, not looked at; `None` for null.
    pub records: Option<BytesMut>,
}

impl ProduceRequest {
    /// Reads the body of a Produce request; the records are split off it without a copy, each as bytes of its own that
    /// the shard may stamp in place.
    pub fn parse(version: i16, mut body: BytesMut) -> Result<ProduceRequest, Malformed> {
        let flexible = version >= 9;
        let mut reader = Reader::new(&body);
        let transactional_id = reader.nullable_string(flexible)?.map(Arc::from);
        let acks = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let topic_count = reader.array_length(flexible, 3)?;
        let topic_count = topic_count.ok_or(Malformed::BadLength)?;
        let mut elements = topic_count;
        let mut topics = Vec::with_capacity(topic_count.min(RESERVE_MAX));
        for _ in 0..topic_count {
            let (name, id) = read_topic(&mut reader, version, flexible, 13)?;
            let name = name.map(Arc::from);
            let count = reader.array_length(flexible, 6)?;
            let count = count.ok_or(Malformed::BadLength)?;
            elements += count;
            if elements > PRODUCE_PARTITIONS_MAX {
                return Err(Malformed::TooManyElements);
            }
            let mut partitions = Vec::with_capacity(count.min(RESERVE_MAX));
            for _ in 0..count {
                let index = reader.i32()?;
                let records = match reader.nullable_bytes(flexible)? {
                    None => None,
                    Some(records) => {
                        let length = records.len();
                        let start = body.len() - reader.remaining() - length;
                        body.advance(start);
                        let records = body.split_to(length);
                        reader = Reader::new(&body);
                        Some(records)
                    }
                };
                reader.skip_tagged_fields(flexible)?;
                partitions.push(ProducePartition { index, records });
            }
            reader.skip_tagged_fields(flexible)?;
            topics.push(ProduceTopic {
                name,
                id,
                partitions,
            });
        }
        reader.skip_tagged_fields(flexible)?;
        Ok(ProduceRequest {
            transactional_id,
            acks,
            timeout_ms,
            topics,
        })
    }
}

/// A Fetch request, versions 4 to 18. Its strings are slices of the frame: copy what outlives the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// The follower's id, -1 for a consumer.
    pub replica_id: i32,
    /// The follower's epoch, -1 below version 15.
    pub replica_epoch: i64,
    /// The cluster the client believes to talk to.
    pub cluster_id: Option<StrBytes>,
    /// How long to wait for `min_bytes`, milliseconds.
    pub max_wait_ms: i32,
    /// How many bytes to wait for.
    pub min_bytes: i32,
    /// Most bytes of records in the response.
    pub max_bytes: i32,
    /// 0 read_uncommitted, 1 read_committed.
    pub isolation_level: i8,
    /// The session, 0 for none (v7+).
    pub session_id: i32,
    /// The session's epoch, -1 for none (v7+).
    pub session_epoch: i32,
    /// What to fetch.
    pub topics: Vec<FetchTopic>,
    /// What leaves the session (v7+).
    pub forgotten: Vec<ForgottenTopic>,
    /// The client's rack (v11+).
    pub rack_id: StrBytes,
}

/// The partitions to fetch of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopic {
    /// The name, below version 13.
    pub name: Option<StrBytes>,
    /// The id, from version 13; else zero.
    pub id: TopicId,
    /// The partitions, in request order.
    pub partitions: Vec<FetchPartition>,
}

/// A partition to fetch. The fields for followers alone (replica directory, high watermark) are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition's number.
    pub index: i32,
    /// The epoch the client knows, or none (v9+).
    pub current_leader_epoch: LeaderEpoch,
    /// Where to start.
    pub fetch_offset: Offset,
    /// The epoch of the record before, or none (v12+).
    pub last_fetched_epoch: LeaderEpoch,
    /// The follower's log start, -1 for consumers (v5+).
    pub log_start_offset: Offset,
    /// Most bytes for this partition.
    pub max_bytes: i32,
}

/// Partitions that leave a fetch session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgottenTopic {
    /// The name, below version 13.
    pub name: Option<StrBytes>,
    /// The id, from version 13; else zero.
    pub id: TopicId,
    /// The partitions' numbers.
    pub partitions: Vec<i32>,
}

impl FetchRequest {
    /// Reads the body of a Fetch request.
    pub fn parse(version: i16, body: &Bytes) -> Result<FetchRequest, Malformed> {
        let flexible = version >= 12;
        let mut reader = Reader::new(body);
        let replica_id = if version <= 14 { reader.i32()? } else { -1 };
        let mut request = FetchRequest {
            replica_id,
            replica_epoch: -1,
            cluster_id: None,
            max_wait_ms: reader.i32()?,
            min_bytes: reader.i32()?,
            max_bytes: reader.i32()?,
            isolation_level: reader.i8()?,
            session_id: 0,
            session_epoch: -1,
            topics: Vec::new(),
            forgotten: Vec::new(),
            rack_id: StrBytes::new(),
        };
        if version >= 7 {
            request.session_id = reader.i32()?;
            request.session_epoch = reader.i32()?;
        }
        let count = reader.array_length(flexible, 3)?;
        let count = count.ok_or(Malformed::BadLength)?;
        request.topics.reserve(count.min(RESERVE_MAX));
        for _ in 0..count {
            let topic = FetchTopic::read(&mut reader, version, body)?;
            request.topics.push(topic);
        }
        if version >= 7 {
            request.forgotten = ForgottenTopic::read_all(&mut reader, version, body)?;
        }
        if version >= 11 {
            request.rack_id = string_of(body, reader.string(flexible)?)?;
        }
        request.read_tagged_fields(&mut reader, version, body)?;
        Ok(request)
    }

    fn read_tagged_fields(
        &mut self,
        reader: &mut Reader<'_>,
        version: i16,
        body: &Bytes,
    ) -> Result<(), Malformed> {
        reader.tagged_fields(version >= 12, |tag, field| {
            match tag {
                0 => {
                    let cluster_id = field.nullable_string(true)?;
                    self.cluster_id = cluster_id.map(|id| string_of(body, id)).transpose()?;
                }
                1 if version >= 15 => {
                    self.replica_id = field.i32()?;
                    self.replica_epoch = field.i64()?;
                    field.skip_tagged_fields(true)?;
                }
                _ => {}
            }
            Ok(())
        })
    }
}

impl FetchTopic {
    fn read(reader: &mut Reader<'_>, version: i16, body: &Bytes) -> Result<FetchTopic, Malformed> {
        let flexible = version >= 12;
        let (name, id) = read_topic(reader, version, flexible, 13)?;
        let name = name.map(|name| string_of(body, name)).transpose()?;
        let count = reader.array_length(flexible, 16)?;
        let count = count.ok_or(Malformed::BadLength)?;
        let mut partitions = Vec::with_capacity(count);
        for _ in 0..count {
            partitions.push(FetchPartition::read(reader, version)?);
        }
        reader.skip_tagged_fields(flexible)?;
        Ok(FetchTopic {
            name,
            id,
            partitions,
        })
    }
}

impl FetchPartition {
    #[inline]
    fn read(reader: &mut Reader<'_>, version: i16) -> Result<FetchPartition, Malformed> {
        let index = reader.i32()?;
        let current_leader_epoch = if version >= 9 { reader.i32()? } else { -1 };
        let fetch_offset = reader.i64()?;
        let last_fetched_epoch = if version >= 12 { reader.i32()? } else { -1 };
        let log_start_offset = if version >= 5 { reader.i64()? } else { -1 };
        let max_bytes = reader.i32()?;
        reader.skip_tagged_fields(version >= 12)?;
        Ok(FetchPartition {
            index,
            current_leader_epoch: LeaderEpoch(current_leader_epoch),
            fetch_offset: Offset(fetch_offset),
            last_fetched_epoch: LeaderEpoch(last_fetched_epoch),
            log_start_offset: Offset(log_start_offset),
            max_bytes,
        })
    }
}

impl ForgottenTopic {
    fn read_all(
        reader: &mut Reader<'_>,
        version: i16,
        body: &Bytes,
    ) -> Result<Vec<ForgottenTopic>, Malformed> {
        let flexible = version >= 12;
        let count = reader.array_length(flexible, 3)?;
        let count = count.ok_or(Malformed::BadLength)?;
        let mut forgotten = Vec::with_capacity(count.min(RESERVE_MAX));
        for _ in 0..count {
            let (name, id) = read_topic(reader, version, flexible, 13)?;
            let name = name.map(|name| string_of(body, name)).transpose()?;
            let count = reader.array_length(flexible, 4)?;
            let count = count.ok_or(Malformed::BadLength)?;
            let mut partitions = Vec::with_capacity(count);
            for _ in 0..count {
                partitions.push(reader.i32()?);
            }
            reader.skip_tagged_fields(flexible)?;
            forgotten.push(ForgottenTopic {
                name,
                id,
                partitions,
            });
        }
        Ok(forgotten)
    }
}

/// An ApiVersions request, versions 0 to 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiVersionsRequest {
    /// The client's name for its software; empty below version 3.
    pub software_name: String,
    /// The version of that software; empty below version 3.
    pub software_version: String,
    /// The cluster the client believes to talk to (v5+, KIP-1242).
    pub cluster_id: Option<String>,
    /// The broker the client believes to talk to, -1 unknown (v5+, KIP-1242).
    pub node_id: i32,
}

/// Reads the body of an ApiVersions request of any served version.
pub fn parse_api_versions(version: i16, body: &[u8]) -> Result<ApiVersionsRequest, Malformed> {
    let mut request = ApiVersionsRequest {
        software_name: String::new(),
        software_version: String::new(),
        cluster_id: None,
        node_id: -1,
    };
    let mut reader = Reader::new(body);
    if version >= 3 {
        request.software_name = reader.string(true)?.to_owned();
        request.software_version = reader.string(true)?.to_owned();
    }
    if version >= 5 {
        request.cluster_id = reader.nullable_string(true)?.map(str::to_owned);
        request.node_id = reader.i32()?;
    }
    reader.skip_tagged_fields(version >= 3)?;
    Ok(request)
}

/// A topic by name, or from version `ids_from` by id.
#[inline]
fn read_topic<'a>(
    reader: &mut Reader<'a>,
    version: i16,
    flexible: bool,
    ids_from: i16,
) -> Result<(Option<&'a str>, TopicId), Malformed> {
    if version >= ids_from {
        Ok((None, TopicId(reader.array()?)))
    } else {
        Ok((Some(reader.string(flexible)?), TopicId::ZERO))
    }
}

/// `text`, a part of `body`, as a slice that shares its memory.
fn string_of(body: &Bytes, text: &str) -> Result<StrBytes, Malformed> {
    if text.is_empty() {
        return Ok(StrBytes::new());
    }
    StrBytes::from_utf8(body.slice_ref(text.as_bytes())).map_err(|_| Malformed::BadUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 3: no transactional id, acks -1, one topic "t" with partitions 0 (records 1, 2, 3), 1 (null), 2 (none).
    fn produce_body() -> BytesMut {
        let bytes = [
            &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9][..],
            &[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 3],
            &[0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3],
            &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 2, 0, 0, 0, 0],
        ]
        .concat();
        BytesMut::from(&bytes[..])
    }

    #[test]
    fn records_are_split_off_the_frame_without_a_copy() {
        let body = produce_body();
        let range = body.as_ptr_range();
        let mut request = ProduceRequest::parse(3, body).unwrap();
        assert_eq!((request.acks, request.timeout_ms), (-1, 9));
        let partitions = &mut request.topics[0].partitions;
        let records = partitions[0].records.as_mut().unwrap();
        assert!(range.contains(&records.as_ptr()));
        records[0] = 7;
        assert_eq!(records[..], [7, 2, 3]);
        assert_eq!(partitions[1].records, None);
        assert_eq!(partitions[2].records, Some(BytesMut::new()));
    }

    #[test]
    fn cut_produce_requests_are_refused() {
        let body = produce_body();
        for end in 0..body.len() {
            assert!(ProduceRequest::parse(3, BytesMut::from(&body[..end])).is_err());
        }
    }

    #[test]
    fn a_produce_of_endless_empty_partitions_is_refused() {
        let mut bytes = vec![0, 0, 1, 0, 0, 0, 9, 2, 2, b't'];
        crate::wire::put_uvarint(&mut bytes, 300_001);
        bytes.resize(bytes.len() + 6 * 300_000, 0);
        assert_eq!(
            ProduceRequest::parse(9, BytesMut::from(&bytes[..])),
            Err(Malformed::TooManyElements)
        );
    }

    #[test]
    fn api_versions_five_names_cluster_and_node() {
        let body = [2, b'a', 3, b'1', b'2', 2, b'c', 0, 0, 0, 1, 0];
        let request = parse_api_versions(5, &body).unwrap();
        assert_eq!(request.software_name, "a");
        assert_eq!(request.software_version, "12");
        assert_eq!(request.cluster_id.as_deref(), Some("c"));
        assert_eq!(request.node_id, 1);
        assert!(parse_api_versions(5, &body[..11]).is_err());
        assert_eq!(parse_api_versions(0, &[]).unwrap().node_id, -1);
    }
}
