//! Records put into batches of format 2.

use bytes::{BufMut, Bytes, BytesMut};
use tally_protocol::batch::{CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES, TRANSACTIONAL_BIT};
use tally_protocol::compression;
use tally_protocol::wire::{put_varint, put_varlong};

use crate::client::Failure;

/// A record as it was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Record {
    pub(super) topic: Option<String>,
    pub(super) partition: Option<i32>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(super) timestamp_ms: Option<i64>,
}

/// A batch that is being filled.
#[derive(Debug, Default)]
pub(super) struct Batch {
    records: Vec<u8>,
    count: i32,
    first_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

/// Who writes a batch, and what number its first record has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Signature {
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) base_sequence: i32,
    pub(super) is_transactional: bool,
}

impl Batch {
    pub(super) fn count(&self) -> i32 {
        self.count
    }

    pub(super) fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Adds a record; a time of its own is stronger than `now_ms`.
    pub(super) fn push(&mut self, record: &Record, now_ms: i64) -> Result<(), Failure> {
        let timestamp_ms = record.timestamp_ms.unwrap_or(now_ms);
        if self.count == 0 {
            self.first_timestamp_ms = timestamp_ms;
            self.max_timestamp_ms = timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        let mut body = Vec::new();
        body.put_i8(0);
        let delta = timestamp_ms.wrapping_sub(self.first_timestamp_ms);
        put_varlong(&mut body, delta);
        put_varint(&mut body, self.count);
        put_field(&mut body, record.key.as_deref())?;
        put_field(&mut body, record.value.as_deref())?;
        put_varint(&mut body, length(record.headers.len())?);
        for (name, value) in &record.headers {
            put_field(&mut body, Some(name))?;
            put_field(&mut body, value.as_deref())?;
        }
        put_varint(&mut self.records, length(body.len())?);
        self.records.extend_from_slice(&body);
        self.count += 1;
        Ok(())
    }

    /// The whole batch, with its checksum.
    pub(super) fn encode(&self, codec: i16, signature: Signature) -> Result<Bytes, Failure> {
        let unable = |error| Failure::Unable(format!("a batch can't be compressed: {error}"));
        let records = compression::compress(codec, &self.records).map_err(unable)?;
        let size = length(HEADER_BYTES - LENGTH_PREFIX_BYTES + records.len())?;
        let mut batch = BytesMut::with_capacity(HEADER_BYTES + records.len());
        batch.put_i64(0);
        batch.put_i32(size);
        batch.put_i32(-1);
        batch.put_i8(2);
        batch.put_u32(0);
        let transactional = if signature.is_transactional {
            TRANSACTIONAL_BIT
        } else {
            0
        };
        batch.put_i16(codec | transactional);
        batch.put_i32(self.count - 1);
        batch.put_i64(self.first_timestamp_ms);
        batch.put_i64(self.max_timestamp_ms);
        batch.put_i64(signature.producer_id);
        batch.put_i16(signature.producer_epoch);
        batch.put_i32(signature.base_sequence);
        batch.put_i32(self.count);
        batch.extend_from_slice(&records);
        let crc = crc32c::crc32c(&batch[CRC_START..]);
        batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
        Ok(batch.freeze())
    }
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) -> Result<(), Failure> {
    match field {
        Some(bytes) => {
            put_varint(out, length(bytes.len())?);
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
    Ok(())
}

fn length(length: usize) -> Result<i32, Failure> {
    let large = |_| Failure::Usage("a record has 2 GiB or more".to_owned());
    i32::try_from(length).map_err(large)
}

/// The partition that Java clients choose for a key: murmur2 of its bytes. The same key is in one partition, whoever wrote it.
pub(super) fn partition_of(key: &[u8], partitions: i32) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut words = key.chunks_exact(4);
    for word in words.by_ref() {
        let word = u32::from_le_bytes(word.try_into().expect("chunks of four bytes"));
        let mixed = word.wrapping_mul(M);
        let mixed = (mixed ^ mixed >> R).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ mixed;
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (byte, shift) in tail.iter().zip([0, 8, 16]) {
            hash ^= u32::from(*byte) << shift;
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    let positive = i32::try_from(hash & 0x7fff_ffff).unwrap_or(0);
    positive % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::BatchView;
    use tally_protocol::record::Records;

    #[test]
    fn a_batch_reads_back() {
        let mut batch = Batch::default();
        let record = Record {
            key: Some(b"k".to_vec()),
            value: None,
            headers: vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"n".to_vec(), None)],
            timestamp_ms: Some(7),
            ..Record::default()
        };
        batch.push(&record, 5).unwrap();
        batch.push(&Record::default(), 5).unwrap();
        let signature = Signature {
            producer_id: 9,
            producer_epoch: 2,
            base_sequence: 4,
            is_transactional: true,
        };
        for codec in 0..5 {
            let bytes = batch.encode(codec, signature).unwrap();
            let view = BatchView::parse(&bytes).unwrap();
            assert_eq!(view.check_crc(), Ok(()));
            let header = view.header();
            assert_eq!((header.codec(), header.last_sequence().0), (codec, 5));
            assert_eq!((header.base_timestamp, header.max_timestamp), (7, 7));
            assert!(header.is_transactional());
            let block = compression::decompress(codec, view.records(), 1000).unwrap();
            let read: Vec<_> = Records::new(&block, 2).map(Result::unwrap).collect();
            assert_eq!((read[0].key, read[0].value), (Some(&b"k"[..]), None));
            assert_eq!(read[0].headers.count(), 2);
            assert_eq!((read[1].timestamp_delta, read[1].offset_delta), (-2, 1));
        }
    }

    /// The values that Apache Kafka's own tests of its hash have.
    #[test]
    fn keys_go_where_java_clients_put_them() {
        let hash = |key: &str| partition_of(key.as_bytes(), i32::MAX);
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("abc", 479_470_107),
        ] {
            assert_eq!(hash(key), (expected & 0x7fff_ffff) % i32::MAX, "{key}");
        }
    }
}
