//! Transaction markers: the control batches that end a transaction on a partition (M-1 to M-3).
//!
//! Key: version int16 0, type int16 (0 ABORT, 1 COMMIT). Value: version int16 0, coordinator epoch int32. The batch
//! has 78 bytes and takes one offset.

use crate::batch::BatchView;
use crate::build::BatchBuilder;
use crate::ids::{CoordinatorEpoch, ProducerEpoch, ProducerId, Sequence};
use crate::record::Records;
use crate::wire::Reader;
use bytes::BytesMut;

/// Bytes of a marker batch.
pub const MARKER_BATCH_BYTES: usize = 78;

const TYPE_ABORT: i16 = 0;
const TYPE_COMMIT: i16 = 1;

/// What a marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkerFields {
    /// The producer whose transaction ends.
    pub producer_id: ProducerId,
    /// The epoch the marker carries.
    pub producer_epoch: ProducerEpoch,
    /// Commit, or abort.
    pub commit: bool,
    /// Epoch of the coordinator that decided.
    pub coordinator_epoch: CoordinatorEpoch,
    /// Wall clock, milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// The marker as a batch, ready to be stamped and appended.
#[must_use]
pub fn marker_batch(fields: &MarkerFields) -> BytesMut {
    let mut key = [0; 4];
    let kind = if fields.commit {
        TYPE_COMMIT
    } else {
        TYPE_ABORT
    };
    key[2..].copy_from_slice(&kind.to_be_bytes());
    let mut value = [0; 6];
    value[2..].copy_from_slice(&fields.coordinator_epoch.0.to_be_bytes());
    let room = MARKER_BATCH_BYTES - crate::batch::HEADER_BYTES;
    let mut builder = BatchBuilder::with_capacity(fields.timestamp_ms, room)
        .producer(fields.producer_id, fields.producer_epoch, Sequence::NONE)
        .transactional()
        .control();
    builder.push(Some(&key), Some(&value));
    builder.finish()
}

/// Whether the marker commits, and its coordinator's epoch. `None` if the batch is not a transaction marker: no control
/// batch, another control type, or not readable. Higher versions of key and value are read as version 0 (M-2).
#[must_use]
pub fn parse_marker(batch: &BatchView<'_>) -> Option<(bool, CoordinatorEpoch)> {
    let header = batch.header();
    if !header.is_control() || header.codec() != 0 {
        return None;
    }
    let record = Records::new(batch.records(), 1).next()?.ok()?;
    let mut key = Reader::new(record.key?);
    let key_version = key.i16().ok()?;
    let commit = match key.i16().ok()? {
        TYPE_ABORT => false,
        TYPE_COMMIT => true,
        _ => return None,
    };
    let mut value = Reader::new(record.value?);
    let value_version = value.i16().ok()?;
    if key_version < 0 || value_version < 0 {
        return None;
    }
    Some((commit, CoordinatorEpoch(value.i32().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(commit: bool) -> MarkerFields {
        MarkerFields {
            producer_id: ProducerId(9),
            producer_epoch: ProducerEpoch(4),
            commit,
            coordinator_epoch: CoordinatorEpoch(6),
            timestamp_ms: 1000,
        }
    }

    #[test]
    fn m1_a_marker_is_one_record_of_78_bytes() {
        let batch = marker_batch(&fields(true));
        assert_eq!(batch.len(), MARKER_BATCH_BYTES);
        let view = BatchView::parse(&batch).unwrap();
        assert_eq!(view.check_crc(), Ok(()));
        let header = view.header();
        assert_eq!(header.attributes, 0x30);
        assert_eq!(header.base_sequence, Sequence::NONE);
        assert_eq!((header.records_count, header.last_offset_delta), (1, 0));
        assert_eq!((header.base_timestamp, header.max_timestamp), (1000, 1000));
        assert_eq!(
            view.records(),
            [32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 6, 0]
        );
    }

    #[test]
    fn m1_markers_read_back() {
        for commit in [true, false] {
            let batch = marker_batch(&fields(commit));
            let view = BatchView::parse(&batch).unwrap();
            assert_eq!(parse_marker(&view), Some((commit, CoordinatorEpoch(6))));
        }
    }

    fn control_batch(key: &[u8], value: Option<&[u8]>) -> BytesMut {
        let mut builder = BatchBuilder::new(0).control();
        builder.push(Some(key), value);
        builder.finish()
    }

    #[test]
    fn m2_unknown_types_are_no_markers_and_higher_versions_are_read() {
        let cases: [(&[u8], Option<&[u8]>, _); 5] = [
            (&[0, 0, 0, 2], Some(&[0; 6]), None),
            (
                &[0, 3, 0, 1],
                Some(&[0, 7, 0, 0, 0, 2, 9]),
                Some((true, CoordinatorEpoch(2))),
            ),
            (&[0, 0, 0, 1], None, None),
            (&[0, 0, 0, 1], Some(&[0, 0, 0]), None),
            (&[0, 0, 0], Some(&[0; 6]), None),
        ];
        for (key, value, expected) in cases {
            let batch = control_batch(key, value);
            assert_eq!(parse_marker(&BatchView::parse(&batch).unwrap()), expected);
        }
        let mut data = BatchBuilder::new(0);
        data.push(Some(&[0, 0, 0, 1]), Some(&[0; 6]));
        assert_eq!(
            parse_marker(&BatchView::parse(&data.finish()).unwrap()),
            None
        );
    }
}
