//! Bytes from a network or a disk never panic, whatever they are.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tally_protocol::build::BatchBuilder;
use tally_protocol::control::parse_marker;
use tally_protocol::frame::RequestHead;
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::records::transaction_log::TransactionRecord;
use tally_protocol::request::{FetchRequest, ProduceRequest, parse_api_versions};
use tally_protocol::validate::{
    Rules, TimestampType, check_client_batch, check_client_batch_header, only_batch,
};
use tally_protocol::{ProducerEpoch, ProducerId, Sequence, compression};

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..max)
}

fn rules(compacted: bool, append_time: bool) -> Rules {
    Rules {
        request_version: 12,
        max_message_bytes: 1 << 20,
        compacted,
        timestamp_type: if append_time {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        before_max_ms: 5,
        after_max_ms: i64::MAX,
    }
}

fn batch() -> BytesMut {
    let mut builder = BatchBuilder::new(1000)
        .producer(ProducerId(4), ProducerEpoch(2), Sequence(9))
        .transactional();
    builder.push(Some(b"key"), Some(b"value"));
    builder.push_at(1001, None, Some(&[3; 90]));
    builder.push(Some(b""), None);
    builder.finish()
}

fn set_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

proptest! {
    #[test]
    fn requests(body in bytes(400), version in 0i16..20) {
        drop(RequestHead::parse(&body));
        drop(ProduceRequest::parse(version, BytesMut::from(&body[..])));
        drop(parse_api_versions(version, &body));
        drop(FetchRequest::parse(version, &Bytes::from(body)));
    }

    #[test]
    fn internal_records(key in bytes(60), value in bytes(200), version in 0u8..5, kind in 0u8..18) {
        let key = [&[0, kind][..], &key].concat();
        let value = [&[0, version][..], &value].concat();
        drop(OffsetsRecord::decode(&key, Some(&value)));
        drop(TransactionRecord::decode(&[0, 0, 0, 1, b'i'], Some(&value)));
    }

    #[test]
    fn compressed_blocks(block in bytes(400), codec in 0i16..6) {
        drop(compression::decompress(codec, &block, 1 << 16));
        let framed = [&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"[..], &block].concat();
        drop(compression::decompress(compression::SNAPPY, &framed, 1 << 16));
    }

    /// With the checksum set again, so that the checks behind it are reached.
    #[test]
    fn batches(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        compacted: bool,
        append_time: bool,
        now: i64,
    ) {
        let mut batch = batch();
        for (index, byte) in flips {
            // The length and the format stay, or nothing else would be tested.
            let at = index.index(batch.len() - 17) + 17;
            batch[at] = byte;
        }
        set_crc(&mut batch);
        let rules = rules(compacted, append_time);
        let view = only_batch(Some(&batch), 12);
        if let Ok(view) = view {
            prop_assert!(parse_marker(&view).is_none() || view.header().is_control());
            drop(check_client_batch(&view, &rules, now));
            drop(check_client_batch_header(&view, &rules, now));
        }
        drop(only_batch(Some(&batch[..cut.index(batch.len())]), 12));
    }

    #[test]
    fn random_records_in_a_sound_header(block in bytes(300), count in -2i32..40, codec in 0u8..5) {
        let mut batch = BytesMut::from(&batch()[..61]);
        batch.extend_from_slice(&block);
        let length = u32::try_from(batch.len() - 12).expect("a small batch");
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[22] |= codec;
        batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        set_crc(&mut batch);
        let view = only_batch(Some(&batch), 12).expect("a whole batch");
        drop(check_client_batch(&view, &rules(false, false), 1000));
        prop_assert!(parse_marker(&view).is_none() || view.header().is_control());
    }
}
