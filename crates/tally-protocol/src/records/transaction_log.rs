//! The records of `__transaction_state` (S-7).
//!
//! Key: int16 0, the transactional id. Value: written as version 1 (flexible), read as 0 or 1. Beside Kafka's tags
//! 0 to 3 the value carries the producer's last epoch in a tag of Tally's own (D-3), which Kafka's tools skip.

use super::RecordError;
use crate::ids::{ProducerEpoch, ProducerId};
use crate::wire::{
    Malformed, Reader, put_array_length, put_no_tagged_fields, put_null_array, put_string,
    put_uvarint,
};
use bytes::BufMut;
use std::collections::BTreeMap;
use std::sync::Arc;

const KEY_VERSION: i16 = 0;
const VALUE_VERSION_MAX: i16 = 1;

const TAG_PREVIOUS_PRODUCER_ID: u32 = 0;
const TAG_NEXT_PRODUCER_ID: u32 = 1;
const TAG_CLIENT_TRANSACTION_VERSION: u32 = 2;
const TAG_NEXT_PRODUCER_EPOCH: u32 = 3;
/// Tally's own tag: far above what Kafka counts up from 0, so that the two never meet.
const TAG_LAST_PRODUCER_EPOCH: u32 = 1_000_000;

/// Bytes of the smallest entry of the partition list: a compact topic name, an empty compact array, no tags.
const TOPIC_BYTES_MIN: usize = 3;

/// What the log says about one transactional id from this record on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRecord {
    /// The id, the key of the record.
    pub transactional_id: Arc<str>,
    /// The id's state; `None` is a tombstone: the id is forgotten.
    pub value: Option<TransactionValue>,
}

/// The state of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionValue {
    /// The producer id in use.
    pub producer_id: ProducerId,
    /// The producer id before the last rotation, or none.
    pub previous_producer_id: ProducerId,
    /// The producer id after the transaction that is being ended; in Ongoing the one with which a prepared transaction is
    /// ended (KIP-939); or none.
    pub next_producer_id: ProducerId,
    /// The epoch of the next producer id; none stands for 0.
    pub next_producer_epoch: ProducerEpoch,
    /// The producer epoch in use.
    pub producer_epoch: ProducerEpoch,
    /// The epoch before the last raise, or none (D-3).
    pub last_producer_epoch: ProducerEpoch,
    /// The transaction timeout the client asked for.
    pub timeout_ms: i32,
    /// Where the transaction stands.
    pub state: TransactionState,
    /// Partitions that lack a marker, by topic; empty in Empty and Complete (S-5).
    pub partitions: BTreeMap<Arc<str>, Vec<i32>>,
    /// Wall clock of the last change, milliseconds since 1970.
    pub last_update_ms: i64,
    /// Wall clock of the move to Ongoing, milliseconds since 1970; -1 in Empty (S-4).
    pub start_ms: i64,
    /// Version of the request that made the last change: 0 or 1 (TV1), 2 (TV2).
    pub client_transaction_version: i16,
}

/// The states of a transaction, with their bytes in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum TransactionState {
    /// No transaction since the id was made or expired.
    Empty = 0,
    /// Partitions or offsets were added.
    Ongoing = 1,
    /// Commit decided; markers are being written.
    PrepareCommit = 2,
    /// Abort decided; markers are being written.
    PrepareAbort = 3,
    /// Committed, all markers written.
    CompleteCommit = 4,
    /// Aborted, all markers written.
    CompleteAbort = 5,
    /// The id expired. Never stored: a tombstone is.
    Dead = 6,
    /// A fence is on its way. Never stored.
    PrepareEpochFence = 7,
}

impl TransactionState {
    /// The byte in the log.
    #[must_use]
    pub const fn code(self) -> i8 {
        self as i8
    }

    /// The state of a byte in the log.
    #[must_use]
    pub const fn from_code(code: i8) -> Option<TransactionState> {
        Some(match code {
            0 => TransactionState::Empty,
            1 => TransactionState::Ongoing,
            2 => TransactionState::PrepareCommit,
            3 => TransactionState::PrepareAbort,
            4 => TransactionState::CompleteCommit,
            5 => TransactionState::CompleteAbort,
            6 => TransactionState::Dead,
            7 => TransactionState::PrepareEpochFence,
            _ => return None,
        })
    }

    /// Kafka's name, as its tools and ListTransactions show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            TransactionState::Empty => "Empty",
            TransactionState::Ongoing => "Ongoing",
            TransactionState::PrepareCommit => "PrepareCommit",
            TransactionState::PrepareAbort => "PrepareAbort",
            TransactionState::CompleteCommit => "CompleteCommit",
            TransactionState::CompleteAbort => "CompleteAbort",
            TransactionState::Dead => "Dead",
            TransactionState::PrepareEpochFence => "PrepareEpochFence",
        }
    }
}

impl TransactionRecord {
    /// The key of the record.
    #[must_use]
    pub fn encode_key(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.transactional_id.len());
        out.put_i16(KEY_VERSION);
        put_string(&mut out, false, &self.transactional_id);
        out
    }

    /// The value of the record; `None` for a tombstone.
    #[must_use]
    pub fn encode_value(&self) -> Option<Vec<u8>> {
        self.value.as_ref().map(TransactionValue::encode)
    }

    /// Reads a record; `Ok(None)` if its key or value has a version that is not known here: skip it.
    pub fn decode(
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Option<TransactionRecord>, RecordError> {
        let mut key = Reader::new(key);
        if key.i16()? != KEY_VERSION {
            return Ok(None);
        }
        let transactional_id = Arc::from(key.string(false)?);
        let value = match value {
            None => None,
            Some(bytes) => match TransactionValue::decode(bytes)? {
                None => return Ok(None),
                some => some,
            },
        };
        Ok(Some(TransactionRecord {
            transactional_id,
            value,
        }))
    }
}

impl TransactionValue {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.put_i16(VALUE_VERSION_MAX);
        out.put_i64(self.producer_id.0);
        out.put_i16(self.producer_epoch.0);
        out.put_i32(self.timeout_ms);
        out.put_i8(self.state.code());
        if self.state == TransactionState::Empty && self.partitions.is_empty() {
            put_null_array(&mut out, true);
        } else {
            put_array_length(&mut out, true, self.partitions.len());
            for (topic, indexes) in &self.partitions {
                put_string(&mut out, true, topic);
                put_array_length(&mut out, true, indexes.len());
                for index in indexes {
                    out.put_i32(*index);
                }
                put_no_tagged_fields(&mut out, true);
            }
        }
        out.put_i64(self.last_update_ms);
        out.put_i64(self.start_ms);
        self.encode_tags(&mut out);
        out
    }

    /// Tagged fields are left out while they hold their default, as Kafka does.
    fn encode_tags(&self, out: &mut Vec<u8>) {
        let previous = self.previous_producer_id != ProducerId::NONE;
        let next = self.next_producer_id != ProducerId::NONE;
        let client = self.client_transaction_version != 0;
        let last = self.last_producer_epoch != ProducerEpoch::NONE;
        let next_epoch = self.next_producer_epoch != ProducerEpoch::NONE;
        let given = [previous, next, client, next_epoch, last];
        let count = given.map(u32::from).iter().sum();
        put_uvarint(out, count);
        if previous {
            put_tag(
                out,
                TAG_PREVIOUS_PRODUCER_ID,
                &self.previous_producer_id.0.to_be_bytes(),
            );
        }
        if next {
            put_tag(
                out,
                TAG_NEXT_PRODUCER_ID,
                &self.next_producer_id.0.to_be_bytes(),
            );
        }
        if client {
            let version = self.client_transaction_version.to_be_bytes();
            put_tag(out, TAG_CLIENT_TRANSACTION_VERSION, &version);
        }
        if next_epoch {
            let epoch = self.next_producer_epoch.0.to_be_bytes();
            put_tag(out, TAG_NEXT_PRODUCER_EPOCH, &epoch);
        }
        if last {
            put_tag(
                out,
                TAG_LAST_PRODUCER_EPOCH,
                &self.last_producer_epoch.0.to_be_bytes(),
            );
        }
    }

    fn decode(bytes: &[u8]) -> Result<Option<TransactionValue>, RecordError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        if !(0..=VALUE_VERSION_MAX).contains(&version) {
            return Ok(None);
        }
        let flexible = version >= 1;
        let producer_id = ProducerId(reader.i64()?);
        let producer_epoch = ProducerEpoch(reader.i16()?);
        let timeout_ms = reader.i32()?;
        let state = reader.i8()?;
        let state = TransactionState::from_code(state)
            .ok_or(RecordError::UnknownTransactionState(state))?;
        let mut value = TransactionValue {
            producer_id,
            previous_producer_id: ProducerId::NONE,
            next_producer_id: ProducerId::NONE,
            next_producer_epoch: ProducerEpoch::NONE,
            producer_epoch,
            last_producer_epoch: ProducerEpoch::NONE,
            timeout_ms,
            state,
            partitions: decode_partitions(&mut reader, flexible)?,
            last_update_ms: reader.i64()?,
            start_ms: reader.i64()?,
            client_transaction_version: 0,
        };
        reader.tagged_fields(flexible, |tag, field| {
            match tag {
                TAG_PREVIOUS_PRODUCER_ID => value.previous_producer_id = ProducerId(field.i64()?),
                TAG_NEXT_PRODUCER_ID => value.next_producer_id = ProducerId(field.i64()?),
                TAG_CLIENT_TRANSACTION_VERSION => value.client_transaction_version = field.i16()?,
                TAG_NEXT_PRODUCER_EPOCH => value.next_producer_epoch = ProducerEpoch(field.i16()?),
                TAG_LAST_PRODUCER_EPOCH => value.last_producer_epoch = ProducerEpoch(field.i16()?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(Some(value))
    }
}

fn decode_partitions(
    reader: &mut Reader<'_>,
    flexible: bool,
) -> Result<BTreeMap<Arc<str>, Vec<i32>>, Malformed> {
    let mut partitions = BTreeMap::new();
    let count = reader.array_length(flexible, TOPIC_BYTES_MIN)?.unwrap_or(0);
    for _ in 0..count {
        let topic = Arc::from(reader.string(flexible)?);
        let index_count = reader.array_length(flexible, 4)?.unwrap_or(0);
        let mut indexes = Vec::with_capacity(index_count);
        for _ in 0..index_count {
            indexes.push(reader.i32()?);
        }
        reader.skip_tagged_fields(flexible)?;
        partitions.insert(topic, indexes);
    }
    Ok(partitions)
}

fn put_tag(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_uvarint(out, tag);
    put_uvarint(
        out,
        u32::try_from(bytes.len()).expect("the fields here have 8 bytes at most"),
    );
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ongoing() -> TransactionRecord {
        TransactionRecord {
            transactional_id: Arc::from("pay"),
            value: Some(TransactionValue {
                producer_id: ProducerId(7),
                previous_producer_id: ProducerId(6),
                next_producer_id: ProducerId(8),
                next_producer_epoch: ProducerEpoch::NONE,
                producer_epoch: ProducerEpoch(3),
                last_producer_epoch: ProducerEpoch(2),
                timeout_ms: 60_000,
                state: TransactionState::Ongoing,
                partitions: BTreeMap::from([(Arc::from("in"), vec![0, 2])]),
                last_update_ms: 258,
                start_ms: 257,
                client_transaction_version: 2,
            }),
        }
    }

    fn empty() -> TransactionRecord {
        TransactionRecord {
            transactional_id: Arc::from("pay"),
            value: Some(TransactionValue {
                producer_id: ProducerId(7),
                previous_producer_id: ProducerId::NONE,
                next_producer_id: ProducerId::NONE,
                next_producer_epoch: ProducerEpoch::NONE,
                producer_epoch: ProducerEpoch(0),
                last_producer_epoch: ProducerEpoch::NONE,
                timeout_ms: 1,
                state: TransactionState::Empty,
                partitions: BTreeMap::new(),
                last_update_ms: 258,
                start_ms: -1,
                client_transaction_version: 0,
            }),
        }
    }

    #[test]
    fn s7_key_is_version_zero_and_a_classic_string() {
        assert_eq!(ongoing().encode_key(), [0, 0, 0, 3, b'p', b'a', b'y']);
    }

    #[test]
    fn s7_empty_value_has_a_null_partition_list_and_no_tags() {
        let expected = [
            &[0, 1][..],               // version
            &[0, 0, 0, 0, 0, 0, 0, 7], // producer id
            &[0, 0],                   // producer epoch
            &[0, 0, 0, 1],             // timeout
            &[0],                      // status
            &[0],                      // partitions: null
            &[0, 0, 0, 0, 0, 0, 1, 2], // last update
            &[0xff; 8],                // start
            &[0],                      // tags
        ]
        .concat();
        assert_eq!(empty().encode_value().unwrap(), expected);
    }

    #[test]
    fn s7_value_holds_kafkas_tags_and_tallys_own_behind_them() {
        let expected = [
            &[0, 1][..],
            &[0, 0, 0, 0, 0, 0, 0, 7],
            &[0, 3],
            &[0, 0, 0xea, 0x60],
            &[1],
            &[2, 3, b'i', b'n', 3, 0, 0, 0, 0, 0, 0, 0, 2, 0],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0, 0, 0, 0, 0, 0, 1, 1],
            &[4],
            &[0, 8, 0, 0, 0, 0, 0, 0, 0, 6],
            &[1, 8, 0, 0, 0, 0, 0, 0, 0, 8],
            &[2, 2, 0, 2],
            &[0xc0, 0x84, 0x3d, 2, 0, 2], // 1000000
        ]
        .concat();
        assert_eq!(ongoing().encode_value().unwrap(), expected);
    }

    #[test]
    fn records_read_back_as_they_were() {
        let tombstone = TransactionRecord {
            transactional_id: Arc::from("pay"),
            value: None,
        };
        assert_eq!(tombstone.encode_value(), None);
        for record in [ongoing(), empty(), tombstone] {
            let (key, value) = (record.encode_key(), record.encode_value());
            assert_eq!(
                TransactionRecord::decode(&key, value.as_deref()),
                Ok(Some(record))
            );
        }
    }

    #[test]
    fn s7_version_zero_is_read() {
        let value = [
            &[0, 0][..],
            &[0, 0, 0, 0, 0, 0, 0, 7],
            &[0, 3],
            &[0, 0, 0xea, 0x60],
            &[1],
            &[
                0, 0, 0, 1, 0, 2, b'i', b'n', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2,
            ],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0, 0, 0, 0, 0, 0, 1, 1],
        ]
        .concat();
        let mut expected = ongoing();
        let inner = expected.value.as_mut().unwrap();
        inner.previous_producer_id = ProducerId::NONE;
        inner.next_producer_id = ProducerId::NONE;
        inner.last_producer_epoch = ProducerEpoch::NONE;
        inner.client_transaction_version = 0;
        assert_eq!(
            TransactionRecord::decode(&expected.encode_key(), Some(&value)),
            Ok(Some(expected))
        );
    }

    #[test]
    fn s8_unknown_versions_are_skipped_and_broken_bytes_refused() {
        let record = ongoing();
        let (key, value) = (record.encode_key(), record.encode_value().unwrap());
        assert_eq!(TransactionRecord::decode(&[0, 1, 0, 0], None), Ok(None));
        let mut newer = value.clone();
        newer[1] = 2;
        assert_eq!(TransactionRecord::decode(&key, Some(&newer)), Ok(None));
        let mut bad_state = value.clone();
        bad_state[16] = 8;
        assert_eq!(
            TransactionRecord::decode(&key, Some(&bad_state)),
            Err(RecordError::UnknownTransactionState(8))
        );
        for end in 0..value.len() {
            assert!(TransactionRecord::decode(&key, Some(&value[..end])).is_err());
        }
        for end in 0..key.len() {
            assert!(TransactionRecord::decode(&key[..end], None).is_err());
        }
    }

    #[test]
    fn every_state_has_its_byte() {
        for code in 0..8 {
            assert_eq!(TransactionState::from_code(code).unwrap().code(), code);
        }
        assert_eq!(TransactionState::from_code(-1), None);
    }
}
