//! What an append, a read and a start cost, without network and above the kernel: `cargo bench -p tally-storage`.
//!
//! `TALLY_BENCH_DIR` names the file system to use (default: the directory for temporary files).

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

#[allow(dead_code, reason = "each benchmark uses what it needs of this")]
#[path = "common/partitions.rs"]
mod partitions;

use partitions::{batch, directory, open, partition};
use std::time::{Duration, Instant};
use tally_protocol::Offset;
use tally_storage::{DataDir, SegmentJournal};

const TOTAL: usize = 512 << 20;

fn report(what: &str, took: Duration, count: usize, bytes: usize) {
    let each = took / u32::try_from(count).expect("a small count");
    let per_gib = took.as_secs_f64() * f64::from(1 << 30) / bytes.max(1) as f64;
    println!("{what:<44} {each:>10.2?} each {per_gib:>8.3} s/GiB");
}

fn append(journal: &mut SegmentJournal, partitions: i32, size: usize, total: usize) -> usize {
    let mut bytes = batch(size);
    let count = total / size;
    for (_, index) in (0..count).zip((0..partitions).cycle()) {
        bytes = partitions::append(journal, partition(index), bytes);
    }
    count
}

fn appends(partitions: i32, size: usize) {
    let root = directory();
    let mut journal = open(root.path(), partitions);
    let total = if size < 4096 { TOTAL / 8 } else { TOTAL };
    let began = Instant::now();
    let count = append(&mut journal, partitions, size, total);
    let what = format!("append {size} bytes, {partitions} partitions");
    report(&what, began.elapsed(), count, total);
}

fn reads(size: usize, max_bytes: usize) {
    let root = directory();
    let mut journal = open(root.path(), 1);
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
    let mut empty = open(root.path(), partitions);
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
    let mut killed = open(root.path(), partitions);
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
    drop(open(root.path(), partitions));
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
