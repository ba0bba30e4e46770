//! A record batch from a client or a disk.

use tally_protocol::batch::{self, BatchView, CRC_START, HEADER_BYTES};
use tally_protocol::control::parse_marker;
use tally_protocol::rewrite::{Unpacked, header_only};
use tally_protocol::validate::{Rules, TimestampType, check_client_batch, only_batch};

/// Batches are parsed, checked as a Produce request has them checked, unpacked and written again: nothing panics, sizes agree, and what
/// was accepted has as many records as it says and is the same after it was unpacked and packed again.
pub fn batch_view(data: &[u8]) {
    look_at(data);
    // A second time with a good checksum, so that what lies behind that check is reached.
    let Ok(header) = batch::parse_header(data) else {
        return;
    };
    let mut mended = data.to_vec();
    let size = header.size_bytes().min(mended.len());
    let crc = crc32c::crc32c(&mended[CRC_START..size]);
    mended[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
    look_at(&mended);
}

fn look_at(data: &[u8]) {
    let Ok(view) = BatchView::parse(data) else {
        return;
    };
    assert_eq!(view.bytes().len(), view.header().size_bytes());
    assert_eq!(
        view.records().len() + HEADER_BYTES,
        view.header().size_bytes()
    );
    let _marker = parse_marker(&view);
    if view.check_crc().is_err() {
        return;
    }
    let mut accepted = false;
    for (compacted, timestamp_type) in [
        (false, TimestampType::CreateTime),
        (true, TimestampType::LogAppendTime),
    ] {
        let rules = Rules {
            request_version: 12,
            max_message_bytes: 1 << 20,
            compacted,
            timestamp_type,
            before_max_ms: i64::MAX,
            after_max_ms: i64::MAX,
        };
        drop(only_batch(Some(data), 12));
        accepted |= check_client_batch(&view, &rules, 1_700_000_000_000).is_ok();
    }
    unpack(view, accepted);
}

fn unpack(view: BatchView<'_>, accepted: bool) {
    let unpacked = match Unpacked::new(view) {
        Ok(unpacked) => unpacked,
        Err(error) => {
            assert!(!accepted, "accepted, and can't be unpacked: {error}");
            return;
        }
    };
    let whole: Result<Vec<_>, _> = unpacked.records().collect();
    let Ok(records) = whole else {
        assert!(!accepted, "accepted, and its records can't be read");
        return;
    };
    if accepted {
        let count = i32::try_from(records.len()).expect("counted in 32 bits");
        assert_eq!(count, view.header().records_count);
    }
    let empty = header_only(&view);
    let empty = BatchView::parse(&empty).expect("a batch without records");
    assert_eq!(empty.header().last_offset(), view.header().last_offset());
    let Ok(again) = unpacked.rewrite(None, |_| true) else {
        return;
    };
    let again = BatchView::parse(&again).expect("a whole batch");
    again.check_crc().expect("its checksum");
    let (before, after) = (view.header(), again.header());
    assert_eq!(before.base_offset, after.base_offset);
    assert_eq!(before.last_offset(), after.last_offset());
    assert_eq!(before.producer_id, after.producer_id);
    if !records.is_empty() {
        let unpacked = Unpacked::new(again).expect("what was packed can be unpacked");
        assert_eq!(unpacked.records().count(), records.len());
    }
}
