//! Makes a smaller batch of a batch: what compaction leaves of it (LR-74, LR-76, C-8, C-9).
//!
//! Invariants: base offset, last offset delta, leader epoch, producer and sequence of the batch stay as they are, and so do
//! the offset deltas and timestamps of the records that stay; the codec too, unless no record is left.

use crate::batch::{
    BatchHeader, BatchView, CRC_START, DELETE_HORIZON_BIT, HEADER_BYTES, LENGTH_PREFIX_BYTES,
    LOG_APPEND_TIME_BIT,
};
use crate::compression::{self, CompressionError, compress, decompress};
use crate::record::{RecordView, Records};
use crate::validate::inflated_bytes_max;
use crate::wire::{Malformed, Reader, put_varint, put_varlong, varlong_bytes};
use std::borrow::Cow;
use std::io;
use thiserror::Error;

const CODEC_BITS: i16 = 0b111;

/// Why a batch can't be rewritten; it can still be kept as it is.
#[derive(Debug, Error)]
pub enum RewriteError {
    /// The records can't be decompressed.
    #[error(transparent)]
    Decompression(#[from] CompressionError),
    /// The records are not what the count says.
    #[error("the records of the batch make no sense")]
    Malformed,
    /// They can't be compressed again.
    #[error("the records can't be compressed again: {0}")]
    Compression(#[from] io::Error),
    /// The result would not fit into a batch, or could not be read within the limits.
    #[error("the rewritten batch would be too large")]
    TooLarge,
}

impl From<Malformed> for RewriteError {
    fn from(_: Malformed) -> RewriteError {
        RewriteError::Malformed
    }
}

/// A batch with its records unpacked.
#[derive(Debug)]
pub struct Unpacked<'a> {
    view: BatchView<'a>,
    block: Cow<'a, [u8]>,
}

impl<'a> Unpacked<'a> {
    /// Unpacks a batch, within the limits under which it was produced.
    pub fn new(view: BatchView<'a>) -> Result<Unpacked<'a>, RewriteError> {
        let limit_bytes = if view.header().codec() == compression::NONE {
            usize::MAX
        } else {
            inflated_bytes_max(view.records().len())
        };
        let block = decompress(view.header().codec(), view.records(), limit_bytes)?;
        Ok(Unpacked { view, block })
    }

    /// The records.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.block, self.view.header().records_count)
    }

    /// When a record was made, or appended: milliseconds since 1970.
    #[must_use]
    pub fn timestamp_ms(&self, record: &RecordView<'_>) -> i64 {
        let header = self.view.header();
        if header.attributes & LOG_APPEND_TIME_BIT != 0 {
            header.max_timestamp
        } else {
            header.base_timestamp.saturating_add(record.timestamp_delta)
        }
    }

    /// The batch with only the records that `keep` holds for, asked in their order; with `horizon_ms` it is stamped with
    /// that delete horizon (LR-74).
    pub fn rewrite(
        &self,
        horizon_ms: Option<i64>,
        mut keep: impl FnMut(&RecordView<'_>) -> bool,
    ) -> Result<Vec<u8>, RewriteError> {
        let header = self.view.header();
        let mut kept = Vec::with_capacity(self.block.len());
        let mut count = 0;
        let mut max_timestamp = i64::MIN;
        let mut records = self.records();
        loop {
            let before = records.rest();
            let Some(record) = records.next() else { break };
            let record = record?;
            if !keep(&record) {
                continue;
            }
            let raw = &before[..before.len() - records.rest().len()];
            match horizon_ms {
                None => kept.extend_from_slice(raw),
                Some(horizon_ms) => put_rebased(&mut kept, raw, header, horizon_ms)?,
            }
            count += 1;
            max_timestamp = max_timestamp.max(self.timestamp_ms(&record));
        }
        if count == 0 {
            return Ok(header_only(&self.view));
        }
        let block = compress(header.codec(), &kept)?;
        if header.codec() != compression::NONE && kept.len() > inflated_bytes_max(block.len()) {
            return Err(RewriteError::TooLarge);
        }
        let mut attributes = header.attributes;
        let mut base_timestamp = header.base_timestamp;
        if let Some(horizon_ms) = horizon_ms {
            attributes |= DELETE_HORIZON_BIT;
            base_timestamp = horizon_ms;
        }
        let fields = Fields {
            attributes,
            base_timestamp,
            max_timestamp,
            count,
        };
        assemble(&self.view, &fields, &block)
    }
}

/// The batch without any record: it stands for its offsets, and for its producer's sequences (P-67, C-8).
#[must_use]
pub fn header_only(view: &BatchView<'_>) -> Vec<u8> {
    let header = view.header();
    let fields = Fields {
        attributes: header.attributes & !(CODEC_BITS | DELETE_HORIZON_BIT),
        base_timestamp: -1,
        max_timestamp: header.max_timestamp,
        count: 0,
    };
    assemble(view, &fields, &[]).expect("a header fits into a batch")
}

/// What differs from the batch before.
struct Fields {
    attributes: i16,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
}

fn assemble(view: &BatchView<'_>, fields: &Fields, block: &[u8]) -> Result<Vec<u8>, RewriteError> {
    let length = HEADER_BYTES - LENGTH_PREFIX_BYTES + block.len();
    let length = i32::try_from(length).map_err(|_| RewriteError::TooLarge)?;
    let mut batch = Vec::with_capacity(HEADER_BYTES + block.len());
    batch.extend_from_slice(&view.bytes()[..HEADER_BYTES]);
    batch.extend_from_slice(block);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[21..23].copy_from_slice(&fields.attributes.to_be_bytes());
    batch[27..35].copy_from_slice(&fields.base_timestamp.to_be_bytes());
    batch[35..43].copy_from_slice(&fields.max_timestamp.to_be_bytes());
    batch[57..61].copy_from_slice(&fields.count.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    Ok(batch)
}

/// Writes the record `raw`, its timestamp counted from `horizon_ms` instead of the batch's base timestamp.
fn put_rebased(
    out: &mut Vec<u8>,
    raw: &[u8],
    header: &BatchHeader,
    horizon_ms: i64,
) -> Result<(), RewriteError> {
    let mut reader = Reader::new(raw);
    reader.varint()?;
    let attributes = reader.i8()?;
    let timestamp_delta = reader.varlong()?;
    let rest = reader.rest();
    let rebased = header
        .base_timestamp
        .wrapping_add(timestamp_delta)
        .wrapping_sub(horizon_ms);
    let length = 1 + varlong_bytes(rebased) + rest.len();
    put_varint(
        out,
        i32::try_from(length).map_err(|_| RewriteError::TooLarge)?,
    );
    out.extend_from_slice(&attributes.to_be_bytes());
    put_varlong(out, rebased);
    out.extend_from_slice(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{parse_header, stamp, stamp_log_append_time};
    use crate::build::BatchBuilder;
    use crate::ids::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};
    use bytes::BytesMut;

    fn batch(codec: i16) -> BytesMut {
        let mut builder = BatchBuilder::new(1000)
            .producer(ProducerId(9), ProducerEpoch(1), Sequence(5))
            .transactional();
        builder.push_at(1000, Some(b"a"), Some(b"1"));
        builder.push_at(1009, Some(b"b"), None);
        builder.push_at(1005, Some(b"c"), Some(b"3"));
        let plain = builder.finish();
        let view = BatchView::parse(&plain).unwrap();
        let fields = Fields {
            attributes: view.header().attributes | codec,
            base_timestamp: 1000,
            max_timestamp: 1009,
            count: 3,
        };
        let block = compress(codec, view.records()).unwrap();
        let mut batch = BytesMut::from(&assemble(&view, &fields, &block).unwrap()[..]);
        stamp(&mut batch, Offset(70), LeaderEpoch(2));
        batch
    }

    /// Key, offset delta and timestamp of every record.
    fn records(bytes: &[u8]) -> Vec<(Vec<u8>, i32, i64)> {
        let view = BatchView::parse(bytes).unwrap();
        assert_eq!(view.bytes().len(), bytes.len());
        assert_eq!(view.check_crc(), Ok(()));
        let unpacked = Unpacked::new(view).unwrap();
        unpacked
            .records()
            .map(|record| {
                let record = record.unwrap();
                let key = record.key.unwrap().to_vec();
                (key, record.offset_delta, unpacked.timestamp_ms(&record))
            })
            .collect()
    }

    #[test]
    fn c9_lr76_a_shrunk_batch_keeps_its_place_and_its_records_theirs() {
        for codec in 0..5 {
            let old = batch(codec);
            let unpacked = Unpacked::new(BatchView::parse(&old).unwrap()).unwrap();
            let new = unpacked
                .rewrite(None, |record| record.key != Some(b"b"))
                .unwrap();
            assert_eq!(
                records(&new),
                [(b"a".to_vec(), 0, 1000), (b"c".to_vec(), 2, 1005)]
            );
            let (old, new) = (parse_header(&old).unwrap(), parse_header(&new).unwrap());
            assert_eq!(new.base_offset, Offset(70));
            assert_eq!(new.last_offset(), Offset(72));
            assert_eq!(new.leader_epoch, LeaderEpoch(2));
            assert_eq!(new.attributes, old.attributes);
            assert_eq!(new.last_sequence(), Sequence(7));
            assert_eq!((new.records_count, new.max_timestamp), (2, 1005));
        }
    }

    #[test]
    fn lr74_a_stamped_batch_keeps_the_times_of_its_records() {
        for codec in 0..5 {
            let old = batch(codec);
            let unpacked = Unpacked::new(BatchView::parse(&old).unwrap()).unwrap();
            for horizon_ms in [0, 5_000_000, i64::MAX] {
                let new = unpacked.rewrite(Some(horizon_ms), |_| true).unwrap();
                assert_eq!(records(&new), records(&old));
                let header = parse_header(&new).unwrap();
                assert_eq!(header.base_timestamp, horizon_ms);
                assert_eq!(header.max_timestamp, 1009);
                assert_eq!(header.attributes & DELETE_HORIZON_BIT, DELETE_HORIZON_BIT);
                // Once more, with the horizon it has.
                let stamped = Unpacked::new(BatchView::parse(&new).unwrap()).unwrap();
                let newer = stamped.rewrite(None, |_| true).unwrap();
                assert_eq!(records(&newer), records(&old));
            }
        }
    }

    #[test]
    fn lr76_log_append_time_stays() {
        let mut old = batch(0);
        stamp_log_append_time(&mut old, 9999);
        let unpacked = Unpacked::new(BatchView::parse(&old).unwrap()).unwrap();
        let new = unpacked
            .rewrite(None, |record| record.key == Some(b"a"))
            .unwrap();
        assert_eq!(records(&new), [(b"a".to_vec(), 0, 9999)]);
        assert_eq!(parse_header(&new).unwrap().max_timestamp, 9999);
    }

    #[test]
    fn p67_nothing_left_is_a_header() {
        for codec in 0..5 {
            let old = batch(codec);
            let view = BatchView::parse(&old).unwrap();
            let new = Unpacked::new(view).unwrap().rewrite(None, |_| false);
            let new = new.unwrap();
            assert_eq!(new, header_only(&view));
            assert_eq!(new.len(), HEADER_BYTES);
            assert_eq!(records(&new), []);
            let header = parse_header(&new).unwrap();
            assert_eq!((header.codec(), header.records_count), (0, 0));
            assert!(header.is_transactional());
            assert_eq!(header.last_offset(), Offset(72));
            assert_eq!(
                (header.base_sequence, header.max_timestamp),
                (Sequence(5), 1009)
            );
        }
    }

    #[test]
    fn what_can_not_be_read_is_an_error() {
        let mut cut = batch(1);
        cut[HEADER_BYTES] ^= 0xff;
        assert!(Unpacked::new(BatchView::parse(&cut).unwrap()).is_err());
        let mut wrong = batch(0);
        wrong[57..61].copy_from_slice(&9i32.to_be_bytes());
        let unpacked = Unpacked::new(BatchView::parse(&wrong).unwrap()).unwrap();
        assert!(unpacked.rewrite(None, |_| true).is_err());
    }
}
