//! What an append, a read and a start cost, without network and above the kernel: `cargo bench -p tally-storage`.
//!
//! `TALLY_BENCH_DIR` names the file system to use (default: the directory for temporary files).

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tally_protocol::{LeaderEpoch, Offset, PartitionId, TopicId};
use tally_storage::{DataDir, Entry, Journal, LogOptions, SegmentJournal};

const TOTAL: usize = 512 << 20;

fn partition(index: i32) -> PartitionId {
    PartitionId {
        topic: TopicId([1; 16]),
        index,
    }
}

fn batch(payload: usize) -> Vec<u8> {
    let mut bytes = vec![7; 61 + payload];
    let length = i32::try_from(49 + payload).expect("a small batch");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[12..16].copy_from_slice(&1i32.to_be_bytes());
    bytes[16] = 2;
    bytes[23..27].copy_from_slice(&0i32.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn directory() -> tempfile::TempDir {
    let place = std::env::var_os("TALLY_BENCH_DIR");
    let place = place.map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(place).expect("a directory")
}

fn journal(root: &tempfile::TempDir, partitions: i32) -> SegmentJournal {
    let dir = DataDir::open(root.path()).expect("the directory is free");
    let mut journal = SegmentJournal::new(Arc::new(dir));
    for index in 0..partitions {
        let opened = journal.open_partition(partition(index), LogOptions::default());
        opened.expect("the partition opens");
    }
    journal
}

fn report(what: &str, took: Duration, count: usize, bytes: usize) {
    let each = took / u32::try_from(count).expect("a small count");
    let per_gib = took.as_secs_f64() * f64::from(1 << 30) / bytes.max(1) as f64;
    println!("{what:<44} {each:>10.2?} each {per_gib:>8.3} s/GiB");
}

fn append(journal: &mut SegmentJournal, partitions: i32, size: usize, total: usize) -> usize {
    let mut bytes = batch(size - 61);
    let count = total / size;
    for (_, index) in (0..count).zip((0..partitions).cycle()) {
        let id = partition(index);
        let base = journal.log_end(id);
        journal.reserve(id, bytes.len()).expect("the disk has room");
        // Stamped as a shard does: the next append needs bytes of its own.
        bytes[..8].copy_from_slice(&base.0.to_be_bytes());
        let taken = Bytes::from(bytes);
        journal.append(Entry {
            partition: id,
            leader_epoch: LeaderEpoch(1),
            base,
            last: base,
            max_timestamp: base.0,
            bytes: taken.clone(),
        });
        bytes = taken.try_into_mut().expect("nobody else has it").into();
    }
    count
}

fn appends(partitions: i32, size: usize) {
    let root = directory();
    let mut journal = journal(&root, partitions);
    let total = if size < 4096 { TOTAL / 8 } else { TOTAL };
    let began = Instant::now();
    let count = append(&mut journal, partitions, size, total);
    let what = format!("append {size} bytes, {partitions} partitions");
    report(&what, began.elapsed(), count, total);
}

fn reads(size: usize, max_bytes: usize) {
    let root = directory();
    let mut journal = journal(&root, 1);
    append(&mut journal, 1, size, 64 << 20);
    for round in ["first", "second"] {
        let (mut next, mut count, mut bytes) = (Offset(0), 0, 0);
        let began = Instant::now();
        loop {
            let read = journal.read(partition(0), next, Offset(i64::MAX), max_bytes, true);
            let read = read.expect("the read works");
            let Some(slice) = read.slices.first() else {
                break;
            };
            (next, count, bytes) = (read.next, count + 1, bytes + slice.len());
        }
        let what = format!("{round} read {max_bytes} of {size}-byte batches");
        report(&what, began.elapsed(), count, bytes);
    }
}

fn starts(partitions: i32) {
    let root = directory();
    let began = Instant::now();
    let mut empty = journal(&root, partitions);
    let count = usize::try_from(partitions).expect("a small count");
    report(
        &format!("open {partitions} empty"),
        began.elapsed(),
        count,
        0,
    );
    append(&mut empty, partitions, 1024, count * 20 * 1024);
    drop(empty);
    let began = Instant::now();
    let mut killed = journal(&root, partitions);
    report(
        &format!("open {partitions} killed, 20 KiB"),
        began.elapsed(),
        count,
        0,
    );
    let began = Instant::now();
    killed.shutdown().expect("synced");
    report("complete and sync them", began.elapsed(), count, 0);
    drop(killed);
    let dir = DataDir::open(root.path()).expect("free");
    dir.mark_clean().expect("marked");
    drop(dir);
    let began = Instant::now();
    drop(journal(&root, partitions));
    report(
        &format!("open {partitions} clean, 20 KiB"),
        began.elapsed(),
        count,
        0,
    );
}

fn main() {
    for (partitions, size) in [(1, 65536), (8, 65536), (256, 65536), (8, 1024), (256, 1024)] {
        appends(partitions, size);
    }
    reads(1024, 65536);
    reads(65536, 1 << 20);
    starts(1000);
}
