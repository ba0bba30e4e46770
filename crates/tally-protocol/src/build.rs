//! Builds the broker's own batches: coordinators' records, offsets inside transactions, markers, tests.
//!
//! Always format 2, uncompressed, base offset 0 and leader epoch 0: [`crate::batch::stamp`] sets those two when the
//! batch is appended.

use crate::batch::{CONTROL_BIT, CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES, TRANSACTIONAL_BIT};
use crate::ids::{ProducerEpoch, ProducerId, Sequence};
use crate::record::put_record;
use bytes::{BufMut, BytesMut};

/// Collects records into one batch.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: BytesMut,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    attributes: i16,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: Sequence,
    count: i32,
}

impl BatchBuilder {
    /// An empty batch whose records are stamped `timestamp_ms`, milliseconds since 1970, unless they say otherwise.
    #[must_use]
    pub fn new(timestamp_ms: i64) -> BatchBuilder {
        BatchBuilder::with_capacity(timestamp_ms, 256)
    }

    /// The same, with room for `record_bytes` before it must grow.
    #[must_use]
    pub fn with_capacity(timestamp_ms: i64, record_bytes: usize) -> BatchBuilder {
        let mut bytes = BytesMut::with_capacity(HEADER_BYTES + record_bytes);
        bytes.put_bytes(0, HEADER_BYTES);
        BatchBuilder {
            bytes,
            base_timestamp_ms: timestamp_ms,
            max_timestamp_ms: timestamp_ms,
            attributes: 0,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: Sequence::NONE,
            count: 0,
        }
    }

    /// Names the producer. `base_sequence` is [`Sequence::NONE`] for a coordinator's own batches.
    #[must_use]
    pub const fn producer(
        mut self,
        id: ProducerId,
        epoch: ProducerEpoch,
        base_sequence: Sequence,
    ) -> BatchBuilder {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Sets the transactional bit.
    #[must_use]
    pub const fn transactional(mut self) -> BatchBuilder {
        self.attributes |= TRANSACTIONAL_BIT;
        self
    }

    /// Sets the control bit.
    #[must_use]
    pub const fn control(mut self) -> BatchBuilder {
        self.attributes |= CONTROL_BIT;
        self
    }

    /// Adds a record.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.push_at(self.base_timestamp_ms, key, value);
    }

    /// Adds a record with a time of its own, milliseconds since 1970.
    pub fn push_at(&mut self, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let delta = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        put_record(&mut self.bytes, delta, self.count, key, value);
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.count += 1;
    }

    /// How many records it holds.
    #[must_use]
    pub const fn count(&self) -> i32 {
        self.count
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch so far, header included.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The batch, its checksum set.
    ///
    /// # Panics
    /// If it holds 2 GiB or more: the broker's own batches are bounded far below.
    #[must_use]
    pub fn finish(self) -> BytesMut {
        let mut batch = self.bytes;
        let batch_length = i32::try_from(batch.len() - LENGTH_PREFIX_BYTES)
            .expect("the broker's own batches stay below 2 GiB");
        let mut header = &mut batch[..HEADER_BYTES];
        header.put_i64(0);
        header.put_i32(batch_length);
        header.put_i32(0);
        header.put_i8(2);
        header.put_u32(0);
        header.put_i16(self.attributes);
        header.put_i32(self.count - 1);
        header.put_i64(self.base_timestamp_ms);
        header.put_i64(self.max_timestamp_ms);
        header.put_i64(self.producer_id.0);
        header.put_i16(self.producer_epoch.0);
        header.put_i32(self.base_sequence.0);
        header.put_i32(self.count);
        let crc = crc32c::crc32c(&batch[CRC_START..]);
        batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchView, stamp, stamp_log_append_time};
    use crate::ids::{LeaderEpoch, Offset};
    use crate::record::Records;

    fn batch() -> BytesMut {
        let mut builder = BatchBuilder::new(1000)
            .producer(ProducerId(9), ProducerEpoch(1), Sequence(5))
            .transactional();
        builder.push(Some(b"a"), None);
        builder.push_at(1007, None, Some(b"b"));
        builder.finish()
    }

    #[test]
    fn a_built_batch_reads_back() {
        let batch = batch();
        let view = BatchView::parse(&batch).unwrap();
        assert_eq!(view.check_crc(), Ok(()));
        let header = view.header();
        assert_eq!(header.size_bytes(), batch.len());
        assert_eq!((header.records_count, header.last_offset_delta), (2, 1));
        assert_eq!((header.base_timestamp, header.max_timestamp), (1000, 1007));
        assert_eq!(header.last_sequence(), Sequence(6));
        assert!(header.is_transactional() && !header.is_control());
        let records: Vec<_> = Records::new(view.records(), 2)
            .map(Result::unwrap)
            .collect();
        assert_eq!(records[0].key, Some(&b"a"[..]));
        assert_eq!(
            (records[1].timestamp_delta, records[1].offset_delta),
            (7, 1)
        );
    }

    #[test]
    fn stamps_keep_the_checksum_right() {
        let mut batch = batch();
        stamp(&mut batch, Offset(77), LeaderEpoch(3));
        let view = BatchView::parse(&batch).unwrap();
        assert_eq!(view.check_crc(), Ok(()));
        assert_eq!(view.header().last_offset(), Offset(78));
        assert_eq!(view.header().leader_epoch, LeaderEpoch(3));
        stamp_log_append_time(&mut batch, 5000);
        let view = BatchView::parse(&batch).unwrap();
        assert_eq!(view.check_crc(), Ok(()));
        assert_eq!(view.header().max_timestamp, 5000);
    }
}
