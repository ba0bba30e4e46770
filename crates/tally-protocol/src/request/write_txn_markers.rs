//! WriteTxnMarkers requests. The codec crate knows version 1 only; version 2 adds the rule by which the epoch is checked
//! (KIP-1228), so both are read here.

use super::FromBody;
use crate::api_table::WRITE_TXN_MARKERS;
use crate::schema::check_body;
use crate::wire::{Malformed, Reader};
use crate::{CoordinatorEpoch, ProducerEpoch, ProducerId};
use bytes::Bytes;
use std::sync::Arc;

/// A WriteTxnMarkers request, versions 1 and 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteTxnMarkersRequest {
    /// In the request's order.
    pub markers: Vec<WritableMarker>,
}

/// A marker for some partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WritableMarker {
    /// Whose transaction ends.
    pub producer_id: ProducerId,
    /// The marker's epoch.
    pub producer_epoch: ProducerEpoch,
    /// COMMIT or ABORT.
    pub commit: bool,
    /// Topics by name, with numbers of partitions.
    pub topics: Vec<(Arc<str>, Vec<i32>)>,
    /// Epoch of the coordinator that has decided (M-5).
    pub coordinator_epoch: CoordinatorEpoch,
    /// The rule of M-4; 0 in version 1.
    pub transaction_version: i8,
}

impl FromBody for WriteTxnMarkersRequest {
    const KEY: i16 = WRITE_TXN_MARKERS;

    fn from_body(version: i16, body: &Bytes) -> Result<WriteTxnMarkersRequest, Malformed> {
        check_body(WRITE_TXN_MARKERS, version, body)?;
        let mut reader = Reader::new(body);
        let mut markers = Vec::new();
        for _ in 0..count(&mut reader)? {
            markers.push(marker(version, &mut reader)?);
        }
        reader.skip_tagged_fields(true)?;
        Ok(WriteTxnMarkersRequest { markers })
    }
}

fn marker(version: i16, reader: &mut Reader<'_>) -> Result<WritableMarker, Malformed> {
    let producer_id = ProducerId(reader.i64()?);
    let producer_epoch = ProducerEpoch(reader.i16()?);
    let commit = reader.u8()? != 0;
    let mut topics = Vec::new();
    for _ in 0..count(reader)? {
        let name = Arc::from(reader.string(true)?);
        let mut partitions = Vec::new();
        for _ in 0..count(reader)? {
            partitions.push(reader.i32()?);
        }
        reader.skip_tagged_fields(true)?;
        topics.push((name, partitions));
    }
    let coordinator_epoch = CoordinatorEpoch(reader.i32()?);
    let transaction_version = if version >= 2 { reader.i8()? } else { 0 };
    reader.skip_tagged_fields(true)?;
    Ok(WritableMarker {
        producer_id,
        producer_epoch,
        commit,
        topics,
        coordinator_epoch,
        transaction_version,
    })
}

fn count(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    reader.array_length(true, 1)?.ok_or(Malformed::BadLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One marker of producer 7, epoch 3, COMMIT, for t-0 and t-2, by coordinator epoch 5.
    fn body(version: i16) -> Bytes {
        let mut body = vec![2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 3, 1, 2, 2, b't', 3];
        body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 5]);
        if version >= 2 {
            body.push(2);
        }
        body.extend_from_slice(&[0, 0]);
        Bytes::from(body)
    }

    #[test]
    fn m10_version_two_says_which_rule_holds() {
        for version in 1..=2 {
            let request = WriteTxnMarkersRequest::from_body(version, &body(version)).unwrap();
            let expected = WritableMarker {
                producer_id: ProducerId(7),
                producer_epoch: ProducerEpoch(3),
                commit: true,
                topics: vec![(Arc::from("t"), vec![0, 2])],
                coordinator_epoch: CoordinatorEpoch(5),
                transaction_version: if version >= 2 { 2 } else { 0 },
            };
            assert_eq!(request.markers, [expected], "v{version}");
        }
    }
}
