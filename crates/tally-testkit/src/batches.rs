//! Record batches of format 2: a builder that lets a test break any field, and a reader that trusts nothing.
//!
//! Written apart from the broker's own code, so that a mistake there does not hide itself.

use bytes::{BufMut, Bytes, BytesMut};
use std::io::{Read, Write};
use tally_protocol::batch::{CONTROL_BIT, CRC_START, HEADER_BYTES, TRANSACTIONAL_BIT};
use tally_protocol::{BatchHeader, BatchView};

/// How records are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// One raw snappy block.
    SnappyRaw,
    /// Snappy blocks in the framing of the Java library.
    SnappyFramed,
    /// An LZ4 frame.
    Lz4,
    /// A zstandard frame.
    Zstd,
}

impl Codec {
    /// The number in the attributes.
    pub const fn id(self) -> i16 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::SnappyRaw | Codec::SnappyFramed => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }
}

/// One record to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Milliseconds after the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
}

/// A batch to send. `encode` makes it right; the `Option` fields and `attributes` make it wrong on purpose.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Producer id, -1 none.
    pub producer_id: i64,
    /// Producer epoch, -1 none.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 none.
    pub base_sequence: i32,
    /// The records.
    pub records: Vec<Record>,
    /// How they are compressed.
    pub codec: Codec,
    /// Further attribute bits.
    pub attributes: i16,
    /// Timestamp of the first record, milliseconds since 1970.
    pub base_timestamp: i64,
    /// The base offset field.
    pub base_offset: i64,
    /// The format field.
    pub magic: i8,
    /// Instead of the right last offset delta.
    pub last_offset_delta: Option<i32>,
    /// Instead of the right count.
    pub records_count: Option<i32>,
    /// Instead of the right maximum.
    pub max_timestamp: Option<i64>,
    /// Instead of the codec's number.
    pub codec_id: Option<i16>,
}

impl Batch {
    /// A plain batch without a producer: `count` records with keys and values of their own.
    pub fn plain(count: i32) -> Batch {
        let records = (0..count)
            .map(|nth| Record {
                timestamp_delta: 0,
                key: Some(Bytes::from(format!("key-{nth}"))),
                value: Some(Bytes::from(format!("value-{nth}"))),
            })
            .collect();
        Batch {
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records,
            codec: Codec::None,
            attributes: 0,
            base_timestamp: now_ms(),
            base_offset: 0,
            magic: 2,
            last_offset_delta: None,
            records_count: None,
            max_timestamp: None,
            codec_id: None,
        }
    }

    /// A batch of an idempotent producer.
    pub fn idempotent(
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        count: i32,
    ) -> Batch {
        Batch {
            producer_id,
            producer_epoch,
            base_sequence,
            ..Batch::plain(count)
        }
    }

    /// A batch of a transaction.
    pub fn transactional(
        producer_id: i64,
        producer_epoch: i16,
        base_sequence: i32,
        count: i32,
    ) -> Batch {
        Batch {
            attributes: TRANSACTIONAL_BIT,
            ..Batch::idempotent(producer_id, producer_epoch, base_sequence, count)
        }
    }

    /// The same batch with other values: `value-N` becomes `VALUE-N`.
    #[must_use]
    pub fn with_values(mut self, value: &str) -> Batch {
        for (nth, record) in self.records.iter_mut().enumerate() {
            record.value = Some(Bytes::from(format!("{value}-{nth}")));
        }
        self
    }

    /// The same batch, compressed.
    #[must_use]
    pub const fn compressed(mut self, codec: Codec) -> Batch {
        self.codec = codec;
        self
    }

    /// The bytes on the wire, checksum right.
    pub fn encode(&self) -> Bytes {
        let mut records = BytesMut::new();
        for (delta, record) in (0i64..).zip(&self.records) {
            put_record(&mut records, delta, record);
        }
        let block = compress(self.codec, &records);
        let count = i32::try_from(self.records.len()).expect("few records");
        let max_timestamp = self
            .records
            .iter()
            .map(|record| self.base_timestamp + record.timestamp_delta)
            .max()
            .unwrap_or(self.base_timestamp);
        let mut batch = BytesMut::with_capacity(HEADER_BYTES + block.len());
        batch.put_i64(self.base_offset);
        batch.put_i32(i32::try_from(49 + block.len()).expect("a small batch"));
        batch.put_i32(-1);
        batch.put_i8(self.magic);
        batch.put_u32(0);
        batch.put_i16(self.attributes | self.codec_id.unwrap_or(self.codec.id()));
        batch.put_i32(self.last_offset_delta.unwrap_or(count - 1));
        batch.put_i64(self.base_timestamp);
        batch.put_i64(self.max_timestamp.unwrap_or(max_timestamp));
        batch.put_i64(self.producer_id);
        batch.put_i16(self.producer_epoch);
        batch.put_i32(self.base_sequence);
        batch.put_i32(self.records_count.unwrap_or(count));
        batch.put_slice(&block);
        let crc = crc32c::crc32c(&batch[CRC_START..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        batch.freeze()
    }

    /// The bytes on the wire with the bits of one byte flipped, so that the checksum is wrong.
    pub fn encode_damaged(&self) -> Bytes {
        let mut bytes = self.encode().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x55;
        Bytes::from(bytes)
    }
}

/// Milliseconds since 1970 by this machine's clock.
pub fn now_ms() -> i64 {
    let since_1970 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since_1970.as_millis()).expect("before the year 292 million")
}

/// A record that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadRecord {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
}

/// A batch that was read.
#[derive(Clone, Debug)]
pub struct ReadBatch {
    /// The header.
    pub header: BatchHeader,
    /// The whole batch.
    pub bytes: Bytes,
    /// Its records.
    pub records: Vec<ReadRecord>,
}

impl ReadBatch {
    /// Offset of the first record.
    pub const fn base_offset(&self) -> i64 {
        self.header.base_offset.0
    }

    /// `Some(true)` for a COMMIT marker, `Some(false)` for an ABORT marker, `None` for data.
    pub fn marker(&self) -> Option<bool> {
        if self.header.attributes & CONTROL_BIT == 0 {
            return None;
        }
        let key = self.records.first()?.key.as_ref()?;
        Some(i16::from_be_bytes([key[2], key[3]]) == 1)
    }
}

/// Reads batches one behind the other; a cut one at the end is left out, as a consumer does. Panics on anything wrong.
#[track_caller]
pub fn read_batches(bytes: &Bytes) -> Vec<ReadBatch> {
    let mut batches = Vec::new();
    let mut at = 0;
    while let Ok(view) = BatchView::parse(&bytes[at..]) {
        view.check_crc().expect("the checksum of a stored batch");
        let size = view.bytes().len();
        batches.push(ReadBatch {
            header: *view.header(),
            bytes: bytes.slice(at..at + size),
            records: read_records(&view),
        });
        at += size;
    }
    batches
}

fn read_records(view: &BatchView<'_>) -> Vec<ReadRecord> {
    let header = view.header();
    let block = decompress(header.codec(), view.records());
    let mut rest = block.as_slice();
    let mut records = Vec::new();
    for _ in 0..header.records_count {
        let length = usize::try_from(get_varint(&mut rest)).expect("a length");
        let (mut record, behind) = rest.split_at(length);
        rest = behind;
        record = &record[1..];
        let timestamp_delta = get_varint(&mut record);
        let offset_delta = get_varint(&mut record);
        records.push(ReadRecord {
            offset: header.base_offset.0 + offset_delta,
            timestamp: header.base_timestamp + timestamp_delta,
            key: get_bytes(&mut record),
            value: get_bytes(&mut record),
        });
    }
    assert!(rest.is_empty(), "bytes behind the last record");
    records
}

fn put_record(to: &mut BytesMut, offset_delta: i64, record: &Record) {
    let mut body = BytesMut::new();
    body.put_u8(0);
    put_varint(&mut body, record.timestamp_delta);
    put_varint(&mut body, offset_delta);
    put_bytes(&mut body, record.key.as_ref());
    put_bytes(&mut body, record.value.as_ref());
    put_varint(&mut body, 0);
    put_varint(to, i64::try_from(body.len()).expect("a small record"));
    to.put_slice(&body);
}

fn put_bytes(to: &mut BytesMut, bytes: Option<&Bytes>) {
    let Some(bytes) = bytes else {
        put_varint(to, -1);
        return;
    };
    put_varint(to, i64::try_from(bytes.len()).expect("a small field"));
    to.put_slice(bytes);
}

#[allow(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "the zigzag form is a play of bits"
)]
fn put_varint(to: &mut BytesMut, number: i64) {
    let mut bits = ((number << 1) ^ (number >> 63)) as u64;
    while bits >= 0x80 {
        to.put_u8((bits as u8) | 0x80);
        bits >>= 7;
    }
    to.put_u8(bits as u8);
}

#[allow(
    clippy::cast_possible_wrap,
    reason = "the zigzag form is a play of bits"
)]
fn get_varint(from: &mut &[u8]) -> i64 {
    let mut bits = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = from[0];
        *from = &from[1..];
        bits |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

fn get_bytes(from: &mut &[u8]) -> Option<Bytes> {
    let length = usize::try_from(get_varint(from)).ok()?;
    let (bytes, rest) = from.split_at(length);
    *from = rest;
    Some(Bytes::copy_from_slice(bytes))
}

const FRAMED_SNAPPY: [u8; 16] = [
    0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1,
];

fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let snappy = || {
        snap::raw::Encoder::new()
            .compress_vec(bytes)
            .expect("small input")
    };
    match codec {
        Codec::None => bytes.to_vec(),
        Codec::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).expect("into memory");
            encoder.finish().expect("into memory")
        }
        Codec::SnappyRaw => snappy(),
        Codec::SnappyFramed => {
            let block = snappy();
            let length = u32::try_from(block.len()).expect("small input");
            let mut framed = FRAMED_SNAPPY.to_vec();
            framed.extend_from_slice(&length.to_be_bytes());
            framed.extend_from_slice(&block);
            framed
        }
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).expect("into memory");
            encoder.finish().expect("into memory")
        }
        Codec::Zstd => zstd::encode_all(bytes, 1).expect("into memory"),
    }
}

fn decompress(codec: i16, bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    match codec {
        0 => whole.extend_from_slice(bytes),
        1 => {
            let mut decoder = flate2::read::GzDecoder::new(bytes);
            decoder.read_to_end(&mut whole).expect("a gzip block");
        }
        2 => {
            let block = bytes.get(..8).filter(|start| *start == &FRAMED_SNAPPY[..8]);
            let block = block.map_or(bytes, |_| &bytes[FRAMED_SNAPPY.len() + 4..]);
            whole = snap::raw::Decoder::new()
                .decompress_vec(block)
                .expect("a snappy block");
        }
        3 => {
            let mut decoder = lz4_flex::frame::FrameDecoder::new(bytes);
            decoder.read_to_end(&mut whole).expect("an LZ4 frame");
        }
        4 => whole = zstd::decode_all(bytes).expect("a zstandard frame"),
        other => panic!("codec {other}"),
    }
    whole
}
