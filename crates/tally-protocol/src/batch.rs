//! The record batch, format 2: its header read in place, its stamps written in place.
//!
//! | offset | size | field | in the CRC | set by the broker |
//! |---|---|---|---|---|
//! | 0 | 8 | base_offset | no | always |
//! | 8 | 4 | batch_length: bytes after this field | no | |
//! | 12 | 4 | partition_leader_epoch | no | always |
//! | 16 | 1 | magic = 2 | no | |
//! | 17 | 4 | crc: CRC-32C of 21.. | - | when 21.. changes |
//! | 21 | 2 | attributes: bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon | yes | bit 3 |
//! | 23 | 4 | last_offset_delta | yes | |
//! | 27 | 8 | base_timestamp | yes | |
//! | 35 | 8 | max_timestamp | yes | for LogAppendTime |
//! | 43 | 8 | producer_id, -1 none | yes | |
//! | 51 | 2 | producer_epoch | yes | |
//! | 53 | 4 | base_sequence, -1 none | yes | |
//! | 57 | 4 | records_count | yes | |
//! | 61 | | records, or the compressed block | yes | |
//!
//! All numbers are big-endian. Source: KIP-98, log-and-fetch.md section 2.

use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, to_usize};
use thiserror::Error;

/// Bytes of the header: everything before the records.
pub const HEADER_BYTES: usize = 61;
/// Bytes before `batch_length` starts to count.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the bytes covered by the checksum begin.
pub const CRC_START: usize = 21;
const MAGIC_AT: usize = 16;

/// Attribute bit: timestamps are the broker's (LogAppendTime).
pub const LOG_APPEND_TIME_BIT: i16 = 1 << 3;
/// Attribute bit: the batch belongs to a transaction.
pub const TRANSACTIONAL_BIT: i16 = 1 << 4;
/// Attribute bit: the batch holds a control record.
pub const CONTROL_BIT: i16 = 1 << 5;
/// Attribute bit: base_timestamp is the delete horizon (LR-74).
pub const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Fewer bytes than the header or than `batch_length` says.
    #[error("the batch is cut short")]
    Incomplete,
    /// `batch_length` is below 49, or negative.
    #[error("the batch length is impossible")]
    BadLength,
    /// The format is not 2.
    #[error("the batch has an unsupported format (magic {0})")]
    BadMagic(i8),
    /// The checksum does not match.
    #[error("the batch checksum does not match")]
    BadCrc,
}

/// The header of a batch, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// Epoch of the leader that appended it.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of the bytes from `attributes` on.
    pub crc: u32,
    /// Codec, timestamp type and the transactional and control bits.
    pub attributes: i16,
    /// Offset of the last record minus `base_offset`.
    pub last_offset_delta: i32,
    /// Milliseconds since 1970; -1 none.
    pub base_timestamp: i64,
    /// Milliseconds since 1970; -1 none.
    pub max_timestamp: i64,
    /// The producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record.
    pub base_sequence: Sequence,
    /// Number of records.
    pub records_count: i32,
}

impl BatchHeader {
    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds a control record.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the batch has a producer id.
    #[must_use]
    pub const fn has_producer(&self) -> bool {
        self.producer_id.0 >= 0
    }

    /// The codec id: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd, 5 to 7 unknown.
    #[must_use]
    pub const fn codec(&self) -> i16 {
        self.attributes & 0b111
    }

    /// Offset of the last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as i64)
    }

    /// Sequence of the last record (P-49), or none when the batch has no sequence.
    #[must_use]
    pub const fn last_sequence(&self) -> Sequence {
        if self.base_sequence.0 < 0 {
            Sequence::NONE
        } else {
            self.base_sequence.plus(self.last_offset_delta)
        }
    }

    /// Bytes of the whole batch.
    #[must_use]
    #[allow(
        clippy::cast_sign_loss,
        reason = "`BatchView::parse` refuses a length below 49"
    )]
    pub const fn size_bytes(&self) -> usize {
        to_usize(self.batch_length as u64) + LENGTH_PREFIX_BYTES
    }
}

/// One whole batch, in place.
#[derive(Debug, Clone, Copy)]
pub struct BatchView<'a> {
    bytes: &'a [u8],
    header: BatchHeader,
}

impl<'a> BatchView<'a> {
    /// Reads the first batch of `bytes`, which may go on behind it. The checksum is not looked at: see
    /// [`BatchView::check_crc`].
    pub fn parse(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let header = parse_header(bytes)?;
        let size_bytes = header.size_bytes();
        let bytes = bytes.get(..size_bytes).ok_or(BatchError::Incomplete)?;
        Ok(BatchView { bytes, header })
    }

    /// Checks the CRC-32C: one pass over the whole batch.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        if crc32c::crc32c(&self.bytes[CRC_START..]) == self.header.crc {
            Ok(())
        } else {
            Err(BatchError::BadCrc)
        }
    }

    /// The decoded header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records, or the compressed block that holds them.
    #[must_use]
    pub fn records(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }
}

/// Reads a header from the first 61 bytes of `bytes`; the records may be missing.
pub fn parse_header(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(BatchError::Incomplete);
    };
    let batch_length = i32_at(header, 8);
    if batch_length < 49 {
        return Err(BatchError::BadLength);
    }
    let magic = i8::from_be_bytes([header[MAGIC_AT]]);
    if magic != 2 {
        return Err(BatchError::BadMagic(magic));
    }
    Ok(BatchHeader {
        base_offset: Offset(i64_at(header, 0)),
        batch_length,
        leader_epoch: LeaderEpoch(i32_at(header, 12)),
        crc: u32::from_be_bytes(array_at(header, 17)),
        attributes: i16::from_be_bytes(array_at(header, 21)),
        last_offset_delta: i32_at(header, 23),
        base_timestamp: i64_at(header, 27),
        max_timestamp: i64_at(header, 35),
        producer_id: ProducerId(i64_at(header, 43)),
        producer_epoch: ProducerEpoch(i16::from_be_bytes(array_at(header, 51))),
        base_sequence: Sequence(i32_at(header, 53)),
        records_count: i32_at(header, 57),
    })
}

/// Writes the two fields that the broker sets on every append; both lie outside the checksum (LR-40).
///
/// `batch` starts with a whole header.
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    batch[0..8].copy_from_slice(&base_offset.0.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.0.to_be_bytes());
}

/// Turns `batch` into one with the broker's timestamp: sets bit 3 and max_timestamp, and the checksum anew (LR-35).
///
/// `batch` is exactly one whole batch.
pub fn stamp_log_append_time(batch: &mut [u8], timestamp_ms: i64) {
    let attributes = i16::from_be_bytes([batch[21], batch[22]]) | LOG_APPEND_TIME_BIT;
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp_ms.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Sets max_timestamp to what the records say and takes bit 3 away, and sets the checksum anew (LR-35).
///
/// `batch` is exactly one whole batch.
pub fn stamp_create_time(batch: &mut [u8], max_timestamp_ms: i64) {
    let attributes = i16::from_be_bytes([batch[21], batch[22]]) & !LOG_APPEND_TIME_BIT;
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&max_timestamp_ms.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn array_at<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&header[at..at + N]);
    array
}

fn i32_at(header: &[u8; HEADER_BYTES], at: usize) -> i32 {
    i32::from_be_bytes(array_at(header, at))
}

fn i64_at(header: &[u8; HEADER_BYTES], at: usize) -> i64 {
    i64::from_be_bytes(array_at(header, at))
}
