//! Responses written by hand: Produce and Fetch.
//!
//! Invariants: a frame is complete with its length; the records of a Fetch are not copied, they leave between pieces
//! of framing in one vectored write. A field that a version does not have is left out, whatever its value: the codes
//! of an answer are translated before (api-matrix.md section 8).

use crate::api_table::{FETCH, PRODUCE, lookup};
use crate::error_code::ErrorCode;
use crate::frame::{begin_response, finish_response};
use crate::ids::{LeaderEpoch, Offset, ProducerId, TopicId};
use crate::wire::{
    put_array_length, put_bytes_length, put_no_tagged_fields, put_null_array, put_nullable_string,
    put_string, put_uvarint,
};
use bytes::{BufMut, Bytes, BytesMut};
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

/// The leader of a partition, told with a refusal (KIP-951).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CurrentLeader {
    /// The leader's node id, -1 unknown.
    pub leader_id: i32,
    /// The epoch of its leadership.
    pub leader_epoch: LeaderEpoch,
}

/// Where a node of [`CurrentLeader`] is reached (KIP-951).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The node's id.
    pub node_id: i32,
    /// Its host.
    pub host: Arc<str>,
    /// Its port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<Arc<str>>,
}

/// A Produce response, versions 3 to 13. Nothing is collected for it: `T` goes over the topics, in request order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceResponse<'a, T> {
    /// The topics.
    pub topics: T,
    /// How long the client should keep quiet, milliseconds.
    pub throttle_time_ms: i32,
    /// Leaders named above (v10+).
    pub node_endpoints: &'a [NodeEndpoint],
}

/// The answers for one topic; `P` goes over its partitions, in request order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopicResponse<'a, P> {
    /// The name, sent below version 13.
    pub name: Option<&'a str>,
    /// The id, sent from version 13.
    pub id: TopicId,
    /// The partitions.
    pub partitions: P,
}

/// The answer for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartitionResponse {
    /// The partition's number.
    pub index: i32,
    /// What went wrong, or none.
    pub error_code: ErrorCode,
    /// Offset of the first record, or none.
    pub base_offset: Offset,
    /// The broker's time for a LogAppendTime topic, else -1 (P-30).
    pub log_append_time_ms: i64,
    /// Start of the log, or none if unknown (v5+).
    pub log_start_offset: Offset,
    /// Refused records: index in the batch and why (v8+).
    pub record_errors: Vec<(i32, String)>,
    /// Why the batch was refused (v8+).
    pub error_message: Option<Cow<'static, str>>,
    /// Sent with error 6 (v10+).
    pub current_leader: Option<CurrentLeader>,
}

impl ProducePartitionResponse {
    /// A refusal: no offset, no time (P-29).
    #[must_use]
    pub const fn refusal(index: i32, error_code: ErrorCode) -> ProducePartitionResponse {
        ProducePartitionResponse {
            index,
            error_code,
            base_offset: Offset::NONE,
            log_append_time_ms: -1,
            log_start_offset: Offset::NONE,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }
}

/// Writes a Produce response as a whole frame, its length included. `version` is one that is served.
#[must_use]
pub fn encode_produce<'a, T, P>(
    version: i16,
    correlation_id: i32,
    response: ProduceResponse<'a, T>,
) -> Vec<u8>
where
    T: ExactSizeIterator<Item = ProduceTopicResponse<'a, P>> + Clone,
    P: ExactSizeIterator<Item = &'a ProducePartitionResponse>,
{
    let flexible = version >= 9;
    let api = lookup(PRODUCE).expect("Produce is in the table");
    let room = produce_room(response.topics.clone());
    let mut out = Vec::with_capacity(room);
    begin_response(&mut out, api, version, correlation_id);
    put_array_length(&mut out, flexible, response.topics.len());
    for topic in response.topics {
        put_topic(&mut out, version, flexible, topic.name, topic.id);
        put_array_length(&mut out, flexible, topic.partitions.len());
        for partition in topic.partitions {
            put_produce_partition(&mut out, version, partition);
        }
        put_no_tagged_fields(&mut out, flexible);
    }
    out.put_i32(response.throttle_time_ms);
    put_node_endpoints(&mut out, flexible, version >= 10, response.node_endpoints);
    finish_response(&mut out);
    out
}

/// About the bytes of the frame, errors aside.
fn produce_room<'a, P: ExactSizeIterator>(
    topics: impl Iterator<Item = ProduceTopicResponse<'a, P>>,
) -> usize {
    let topic_room = |topic: ProduceTopicResponse<'a, P>| {
        24 + topic.name.map_or(0, str::len) + 40 * topic.partitions.len()
    };
    48 + topics.map(topic_room).sum::<usize>()
}

fn put_produce_partition(
    out: &mut impl BufMut,
    version: i16,
    partition: &ProducePartitionResponse,
) {
    let flexible = version >= 9;
    out.put_i32(partition.index);
    out.put_i16(partition.error_code.code());
    out.put_i64(partition.base_offset.0);
    out.put_i64(partition.log_append_time_ms);
    if version >= 5 {
        out.put_i64(partition.log_start_offset.0);
    }
    if version >= 8 {
        put_array_length(out, flexible, partition.record_errors.len());
        for (batch_index, message) in &partition.record_errors {
            out.put_i32(*batch_index);
            put_nullable_string(out, flexible, Some(message));
            put_no_tagged_fields(out, flexible);
        }
        put_nullable_string(out, flexible, partition.error_message.as_deref());
    }
    match partition.current_leader {
        Some(leader) if version >= 10 => {
            put_uvarint(out, 1);
            put_current_leader(out, 0, leader);
        }
        _ => put_no_tagged_fields(out, flexible),
    }
}

/// A Fetch response, versions 4 to 18. `T` is a cheap slice of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse<T> {
    /// How long the client should keep quiet, milliseconds.
    pub throttle_time_ms: i32,
    /// What is wrong with the session, or none (v7+).
    pub error_code: ErrorCode,
    /// The session, 0 for none (v7+).
    pub session_id: i32,
    /// The topics.
    pub topics: Vec<FetchTopicResponse<T>>,
    /// Leaders named below (v16+).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// The answers for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopicResponse<T> {
    /// The name, sent below version 13.
    pub name: Option<Arc<str>>,
    /// The id, sent from version 13.
    pub id: TopicId,
    /// The partitions.
    pub partitions: Vec<FetchPartitionResponse<T>>,
}

/// The answer for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchPartitionResponse<T> {
    /// The partition's number.
    pub index: i32,
    /// What went wrong, or none.
    pub error_code: ErrorCode,
    /// The high watermark, or none.
    pub high_watermark: Offset,
    /// The last stable offset, or none.
    pub last_stable_offset: Offset,
    /// Start of the log, or none (v5+).
    pub log_start_offset: Offset,
    /// Where the client's log and this one part: epoch and its end offset (v12+).
    pub diverging_epoch: Option<(LeaderEpoch, Offset)>,
    /// Sent with errors 6 and 74 (v12+).
    pub current_leader: Option<CurrentLeader>,
    /// Producer and first offset of aborted transactions; `None` for read_uncommitted (F-1).
    pub aborted_transactions: Option<Vec<(ProducerId, Offset)>>,
    /// Where to read instead, -1 here (v11+).
    pub preferred_read_replica: i32,
    /// The records, in order: empty if there are none.
    pub records: Vec<T>,
}

impl<T> FetchPartitionResponse<T> {
    /// A refusal: every offset -1, no records (LR-106).
    #[must_use]
    pub const fn refusal(index: i32, error_code: ErrorCode) -> FetchPartitionResponse<T> {
        FetchPartitionResponse {
            index,
            error_code,
            high_watermark: Offset::NONE,
            last_stable_offset: Offset::NONE,
            log_start_offset: Offset::NONE,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }
}

/// A part of a response, to be written in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<T> {
    /// Bytes made for this response.
    Framing(Bytes),
    /// Bytes of the log.
    Records(T),
}

impl<T: Deref<Target = [u8]>> Piece<T> {
    /// The bytes to write.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Piece::Framing(bytes) => bytes,
            Piece::Records(slice) => slice,
        }
    }
}

/// Writes a Fetch response as pieces that make up one whole frame, its length included. The first piece is framing; no
/// piece is empty. `version` is one that is served.
///
/// # Panics
/// If the frame has 2 GiB or more: `fetch.max.bytes` bounds it far below.
#[must_use]
pub fn encode_fetch<T: Deref<Target = [u8]>>(
    version: i16,
    correlation_id: i32,
    response: FetchResponse<T>,
) -> Vec<Piece<T>> {
    let flexible = version >= 12;
    let api = lookup(FETCH).expect("Fetch is in the table");
    let mut framing = BytesMut::with_capacity(fetch_room(&response));
    begin_response(&mut framing, api, version, correlation_id);
    let mut out = Pieces::new(framing);
    out.framing.put_i32(response.throttle_time_ms);
    if version >= 7 {
        out.framing.put_i16(response.error_code.code());
        out.framing.put_i32(response.session_id);
    }
    put_array_length(&mut out.framing, flexible, response.topics.len());
    for topic in response.topics {
        let framing = &mut out.framing;
        put_topic(framing, version, flexible, topic.name.as_deref(), topic.id);
        put_array_length(framing, flexible, topic.partitions.len());
        for partition in topic.partitions {
            put_fetch_partition(&mut out, version, partition);
        }
        put_no_tagged_fields(&mut out.framing, flexible);
    }
    let endpoints = &response.node_endpoints;
    put_node_endpoints(&mut out.framing, flexible, version >= 16, endpoints);
    out.finish()
}

/// About the bytes of the framing.
fn fetch_room<T>(response: &FetchResponse<T>) -> usize {
    let topics = response.topics.iter();
    let room = topics.map(|topic| {
        let partitions = topic.partitions.iter();
        let rows = partitions.map(|partition| {
            64 + partition
                .aborted_transactions
                .as_ref()
                .map_or(0, |rows| 17 * rows.len())
        });
        24 + topic.name.as_ref().map_or(0, |name| name.len()) + rows.sum::<usize>()
    });
    48 + room.sum::<usize>()
}

fn put_fetch_partition<T: Deref<Target = [u8]>>(
    out: &mut Pieces<T>,
    version: i16,
    partition: FetchPartitionResponse<T>,
) {
    let flexible = version >= 12;
    let framing = &mut out.framing;
    framing.put_i32(partition.index);
    framing.put_i16(partition.error_code.code());
    framing.put_i64(partition.high_watermark.0);
    framing.put_i64(partition.last_stable_offset.0);
    if version >= 5 {
        framing.put_i64(partition.log_start_offset.0);
    }
    match &partition.aborted_transactions {
        None => put_null_array(framing, flexible),
        Some(rows) => {
            put_array_length(framing, flexible, rows.len());
            for (producer_id, first_offset) in rows {
                framing.put_i64(producer_id.0);
                framing.put_i64(first_offset.0);
                put_no_tagged_fields(framing, flexible);
            }
        }
    }
    if version >= 11 {
        framing.put_i32(partition.preferred_read_replica);
    }
    let size = partition.records.iter().map(|slice| slice.len()).sum();
    put_bytes_length(framing, flexible, size);
    out.put_records(partition.records);
    if !flexible {
        return;
    }
    let framing = &mut out.framing;
    let count = u32::from(partition.diverging_epoch.is_some())
        + u32::from(partition.current_leader.is_some());
    put_uvarint(framing, count);
    if let Some((epoch, end_offset)) = partition.diverging_epoch {
        put_uvarint(framing, 0);
        put_uvarint(framing, 13);
        framing.put_i32(epoch.0);
        framing.put_i64(end_offset.0);
        put_no_tagged_fields(framing, true);
    }
    if let Some(leader) = partition.current_leader {
        put_current_leader(framing, 1, leader);
    }
}

/// Framing that is cut wherever records go in.
struct Pieces<T> {
    /// What has been cut; the first place is kept for `head`.
    done: Vec<Piece<T>>,
    /// The first framing piece, whose length field waits for the end.
    head: Option<BytesMut>,
    /// The framing being written.
    framing: BytesMut,
    /// Bytes in `done` and `head`.
    size_bytes: usize,
}

impl<T: Deref<Target = [u8]>> Pieces<T> {
    fn new(framing: BytesMut) -> Pieces<T> {
        Pieces {
            done: Vec::new(),
            head: None,
            framing,
            size_bytes: 0,
        }
    }

    fn put_records(&mut self, slices: Vec<T>) {
        for slice in slices {
            if !slice.is_empty() {
                self.cut();
                self.size_bytes += slice.len();
                self.done.push(Piece::Records(slice));
            }
        }
    }

    fn cut(&mut self) {
        let framing = self.framing.split();
        self.size_bytes += framing.len();
        if self.head.is_none() {
            self.head = Some(framing);
            self.done.push(Piece::Framing(Bytes::new()));
        } else if !framing.is_empty() {
            self.done.push(Piece::Framing(framing.freeze()));
        }
    }

    fn finish(mut self) -> Vec<Piece<T>> {
        self.cut();
        let mut head = self.head.take().expect("`cut` sets the head");
        let length = i32::try_from(self.size_bytes - 4).expect("responses stay below 2 GiB");
        head[..4].copy_from_slice(&length.to_be_bytes());
        self.done[0] = Piece::Framing(head.freeze());
        self.done
    }
}

fn put_topic(out: &mut impl BufMut, version: i16, flexible: bool, name: Option<&str>, id: TopicId) {
    if version >= 13 {
        out.put_slice(&id.0);
    } else {
        put_string(out, flexible, name.unwrap_or(""));
    }
}

fn put_current_leader(out: &mut impl BufMut, tag: u32, leader: CurrentLeader) {
    put_uvarint(out, tag);
    put_uvarint(out, 9);
    out.put_i32(leader.leader_id);
    out.put_i32(leader.leader_epoch.0);
    put_no_tagged_fields(out, true);
}

/// The tagged fields at the end of both responses: the endpoints are tag 0 of both.
fn put_node_endpoints(
    out: &mut impl BufMut,
    flexible: bool,
    known: bool,
    endpoints: &[NodeEndpoint],
) {
    if !known || endpoints.is_empty() {
        put_no_tagged_fields(out, flexible);
        return;
    }
    let mut field = BytesMut::new();
    put_array_length(&mut field, true, endpoints.len());
    for endpoint in endpoints {
        field.put_i32(endpoint.node_id);
        put_string(&mut field, true, &endpoint.host);
        field.put_i32(endpoint.port);
        put_nullable_string(&mut field, true, endpoint.rack.as_deref());
        put_no_tagged_fields(&mut field, true);
    }
    put_uvarint(out, 1);
    put_uvarint(out, 0);
    // A tagged field is length-prefixed without the + 1 of compact types.
    put_uvarint(
        out,
        u32::try_from(field.len()).expect("a cluster's endpoints are few"),
    );
    out.put_slice(&field);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(records: Vec<Bytes>) -> FetchResponse<Bytes> {
        let partition = FetchPartitionResponse {
            records,
            ..FetchPartitionResponse::refusal(0, ErrorCode::None)
        };
        FetchResponse {
            throttle_time_ms: 0,
            error_code: ErrorCode::None,
            session_id: 0,
            topics: vec![FetchTopicResponse {
                name: Some(Arc::from("t")),
                id: TopicId::ZERO,
                partitions: vec![partition],
            }],
            node_endpoints: Vec::new(),
        }
    }

    #[test]
    fn records_travel_between_pieces_of_framing_uncopied() {
        let records = [
            Bytes::from_static(b"one"),
            Bytes::new(),
            Bytes::from_static(b"two"),
        ];
        let pieces = encode_fetch(12, 7, fetch(records.to_vec()));
        assert_eq!(pieces.len(), 4);
        assert_eq!(pieces[1], Piece::Records(records[0].clone()));
        assert_eq!(pieces[2], Piece::Records(records[2].clone()));
        assert_eq!(pieces[1].bytes().as_ptr(), records[0].as_ptr());
        let size: usize = pieces.iter().map(|piece| piece.bytes().len()).sum();
        let length = size - 4;
        assert_eq!(
            pieces[0].bytes()[..8],
            [0, 0, 0, u8::try_from(length).unwrap(), 0, 0, 0, 7]
        );
        // The last piece: no tags of the partition, the topic and the response.
        assert_eq!(pieces[3].bytes(), [0, 0, 0]);
    }

    #[test]
    fn a_response_without_records_is_one_piece() {
        assert_eq!(encode_fetch(4, 7, fetch(Vec::new())).len(), 1);
        // Classic framing ends with the records: nothing follows them.
        let records = vec![Bytes::from_static(b"one")];
        assert_eq!(encode_fetch(4, 7, fetch(records)).len(), 2);
    }
}
