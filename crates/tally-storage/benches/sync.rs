//! What synced durability costs: `cargo bench -p tally-storage --bench sync`.
//!
//! `TALLY_BENCH_DIR` names the file system to use (default: the directory for temporary files). In memory there is nothing
//! to be measured: a sync of a tmpfs does nothing.

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]

#[allow(dead_code, reason = "each benchmark uses what it needs of this")]
#[path = "common/partitions.rs"]
mod partitions;

use bytes::Bytes;
use partitions::{directory, partition};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tally_protocol::LeaderEpoch;
use tally_storage::{
    DataDir, Durability, Entry, Journal, LogOptions, SegmentJournal, SyncJournal, SyncOptions,
    Ticket,
};

fn batch(base: i64, size: usize) -> Bytes {
    let mut bytes = vec![7; size];
    let length = i32::try_from(size - 12).expect("a small batch");
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[12..16].copy_from_slice(&1i32.to_be_bytes());
    bytes[16] = 2;
    bytes[21..27].fill(0);
    Bytes::from(bytes)
}

struct Place {
    _root: tempfile::TempDir,
    dir: Arc<DataDir>,
    journal: Arc<SyncJournal>,
}

fn place() -> Place {
    let root = directory();
    let dir = Arc::new(DataDir::open(root.path()).expect("the directory is free"));
    let options = SyncOptions {
        durability: Durability::Always,
        ..SyncOptions::default()
    };
    let journal = SyncJournal::open(Arc::clone(&dir), options).expect("the journal opens");
    Place {
        _root: root,
        dir,
        journal,
    }
}

fn shard(place: &Place, partitions: std::ops::Range<i32>) -> SegmentJournal {
    let (dir, journal) = (Arc::clone(&place.dir), Arc::clone(&place.journal));
    let mut shard = SegmentJournal::synced(dir, journal, Durability::Always);
    for index in partitions {
        let opened = shard.open_partition(partition(index), LogOptions::default());
        opened.expect("the partition opens");
    }
    shard
}

fn append(shard: &mut SegmentJournal, index: i32, size: usize) -> Ticket {
    let id = partition(index);
    let base = shard.log_end(id);
    shard.reserve(id, size).expect("the disk has room");
    let appended = shard.append(Entry {
        partition: id,
        leader_epoch: LeaderEpoch(1),
        base,
        last: base,
        max_timestamp: base.0,
        bytes: batch(base.0, size),
    });
    appended.ticket
}

fn percentile(sorted: &[Duration], hundredths: usize) -> Duration {
    sorted[(sorted.len() - 1) * hundredths / 100]
}

/// One group after the other, each with a batch for each of some partitions.
fn groups(partitions: i32, size: usize, rounds: usize) {
    let place = place();
    let mut shard = shard(&place, 0..partitions);
    let mut took = Vec::with_capacity(rounds);
    let began = Instant::now();
    for _ in 0..rounds {
        for index in 0..partitions {
            append(&mut shard, index, size);
        }
        let began = Instant::now();
        assert!(place.journal.turn().expect("synced"));
        took.push(began.elapsed());
    }
    let all = began.elapsed().as_secs_f64();
    took.sort_unstable();
    let count = f64::from(u32::try_from(rounds).expect("a small count"));
    let bytes = count * f64::from(partitions) * f64::from(u32::try_from(size).expect("small"));
    let what = format!("{partitions} partitions x {size} bytes a group");
    println!(
        "{what:<38} p50 {:>9.2?}  p99 {:>9.2?}  {:>7.0} groups/s  {:>7.1} MB/s",
        percentile(&took, 50),
        percentile(&took, 99),
        count / all,
        bytes / all / 1e6,
    );
}

/// Threads that append 200 bytes and wait until they are durable, and a thread that syncs and takes checkpoints.
fn committers(threads: i32, during: Duration) {
    let place = place();
    let synced = (Mutex::new(Ticket(0)), Condvar::new());
    let over = AtomicBool::new(false);
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                if place.journal.turn().expect("synced") {
                    *synced.0.lock().expect("no panic") = place.journal.synced();
                    synced.1.notify_all();
                } else {
                    place.journal.wait(Duration::from_millis(10));
                }
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                place
                    .journal
                    .wait_for_checkpoint(Duration::from_millis(100));
                place.journal.checkpoint().expect("synced");
            }
        });
        let committers: Vec<_> = (0..threads)
            .map(|index| {
                let (place, synced) = (&place, &synced);
                scope.spawn(move || {
                    let mut shard = shard(place, index..index + 1);
                    let (began, mut took) = (Instant::now(), Vec::new());
                    while began.elapsed() < during {
                        let began = Instant::now();
                        let ticket = append(&mut shard, index, 200);
                        let upto = synced.0.lock().expect("no panic");
                        let waited = synced.1.wait_while(upto, |upto| *upto < ticket);
                        drop(waited.expect("no panic"));
                        took.push(began.elapsed());
                    }
                    took
                })
            })
            .collect();
        let took = committers
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        let took = took.flatten().collect();
        over.store(true, Ordering::Release);
        took
    });
    took.sort_unstable();
    let count = f64::from(u32::try_from(took.len()).expect("a small count"));
    println!(
        "{threads:>3} committers of 200 bytes              p50 {:>9.2?}  p99 {:>9.2?}  {:>7.0} commits/s",
        percentile(&took, 50),
        percentile(&took, 99),
        count / during.as_secs_f64(),
    );
}

fn main() {
    for (partitions, size, rounds) in [
        (1, 4096, 2000),
        (8, 4096, 1000),
        (64, 4096, 300),
        (8, 128 << 10, 200),
        (2, 1 << 20, 200),
    ] {
        groups(partitions, size, rounds);
    }
    for threads in [1, 4, 16, 64] {
        committers(threads, Duration::from_secs(3));
    }
}
