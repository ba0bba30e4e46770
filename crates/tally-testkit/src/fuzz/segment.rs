//! A segment whose end is to be found.

use super::place::{Left, OPTIONS, append, bases, with_place};
use std::fs;
use std::ops::ControlFlow;
use tally_protocol::batch::{self, BatchView, CRC_START};
use tally_protocol::{LeaderEpoch, Offset, PartitionId};
use tally_storage::{LogOptions, SegmentJournal};

/// A segment of any bytes is opened: recovery keeps exactly the good batches at its beginning, says so again when it is asked
/// again, and the log goes on behind them.
///
/// The first byte of the input says how: bit 0 a compacted log, bits 1 and 2 how the run before ended, bit 3 that
/// checksums are set right first, without which no change of a batch would get behind them.
pub fn segment_recovery(data: &[u8]) {
    let Some((how, log)) = data.split_first() else {
        return;
    };
    let mut log = log.to_vec();
    if how & 8 != 0 {
        mend(&mut log);
    }
    let left = match how >> 1 & 3 {
        0 => Left::Clean,
        1 => Left::PowerCut,
        _ => Left::Killed,
    };
    let options = LogOptions {
        gaps_below: Offset(i64::from(how & 1) * i64::MAX),
        ..OPTIONS
    };
    let (size, end) = good_prefix(&log, options.gaps_below > Offset::ZERO);
    with_place(left, |place| {
        let id = place.partition(&[(format!("{:020}.log", 0), &log)]);
        for _ in 0..2 {
            let recovered = place.journal.open_partition(id, options);
            let recovered = recovered.expect("it can be read");
            assert_eq!(recovered.log_end.0, end);
            let stored = fs::read(place.directory(id).join(format!("{:020}.log", 0)));
            assert_eq!(stored.expect("the segment"), log[..size]);
            assert_eq!(replay(&place.journal, id), bases(&log[..size]));
            place.journal.forget_partition(id);
        }
        let recovered = place.journal.open_partition(id, options).expect("again");
        assert_eq!(recovered.cut, None);
        // Offsets count to 2^63; nobody gets there but by damage that keeps its checksum.
        if end < i64::MAX / 2 {
            let epoch = last_epoch(&log[..size]);
            append(&mut place.journal, id, epoch, 1_700_000_000_000);
            let mut expected = bases(&log[..size]);
            expected.push(end);
            assert_eq!(replay(&place.journal, id), expected);
        }
        place.journal.delete_partition(id).expect("removed");
    });
}

/// Sets the checksum of each batch that has a length.
fn mend(log: &mut [u8]) {
    let mut at = 0;
    while let Ok(header) = batch::parse_header(&log[at..]) {
        let Some(batch) = log[at..].get_mut(..header.size_bytes()) else {
            return;
        };
        let crc = crc32c::crc32c(&batch[CRC_START..]);
        batch[17..CRC_START].copy_from_slice(&crc.to_be_bytes());
        at += header.size_bytes();
    }
}

/// What R-8 says of these bytes, in a second wording: how many of them are good, and the offset behind.
fn good_prefix(log: &[u8], compacted: bool) -> (usize, i64) {
    let (mut size, mut end, mut epoch) = (0, 0i64, i32::MIN);
    while let Ok(view) = BatchView::parse(&log[size..]) {
        let header = view.header();
        let begins = header.base_offset.0;
        let follows = begins == end || (compacted && begins > end);
        let last = begins.checked_add(i64::from(header.last_offset_delta));
        let fits = last.is_some_and(|last| last >= begins && last <= i64::from(i32::MAX));
        let rises = header.leader_epoch.0 >= epoch;
        if view.check_crc().is_err() || !follows || !fits || !rises {
            break;
        }
        size += view.bytes().len();
        end = header.last_offset().next().0;
        epoch = header.leader_epoch.0;
    }
    (size, end)
}

fn last_epoch(mut log: &[u8]) -> LeaderEpoch {
    let mut epoch = LeaderEpoch(0);
    while let Ok(view) = BatchView::parse(log) {
        epoch = view.header().leader_epoch;
        log = &log[view.bytes().len()..];
    }
    epoch
}

fn replay(journal: &SegmentJournal, id: PartitionId) -> Vec<i64> {
    let mut bases = Vec::new();
    let visited = journal.visit_batches(id, Offset(0), &mut |view| {
        bases.push(view.header().base_offset.0);
        ControlFlow::Continue(())
    });
    visited.expect("what was kept can be replayed");
    bases
}
