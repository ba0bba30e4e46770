//! What a start costs: the tail of a log that nobody had synced is read, and partitions are opened after a clean stop:
//! `cargo bench -p tally-storage --bench recovery`. `TALLY_BENCH_DIR` names the file system to use (default: the directory for
//! temporary files).

#[allow(dead_code, reason = "each benchmark uses what it needs of this")]
#[path = "common/partitions.rs"]
mod partitions;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use partitions::{directory, fill, open, partition};
use std::time::Duration;
use tally_storage::DataDir;

/// Bytes of the tail; criterion says what that makes for a GiB.
const TAIL_BYTES: usize = 64 << 20;
/// Partitions that are opened.
const PARTITIONS: i32 = 1000;

/// After kill -9: all batches since the last sync are read and their checksums checked.
fn tails(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10);
    group.measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Bytes(u64::try_from(TAIL_BYTES).expect("small")));
    for bytes in [1 << 10, 64 << 10] {
        let killed = || {
            let root = directory();
            let mut journal = open(root.path(), 1);
            fill(&mut journal, partition(0), TAIL_BYTES / bytes, bytes);
            root
        };
        let name = format!("tail of 64 MiB, batches of {} KiB", bytes >> 10);
        group.bench_function(name, |bench| {
            bench.iter_batched_ref(
                killed,
                |root| {
                    let journal = open(root.path(), 1);
                    assert!(journal.log_end(partition(0)).0 > 0, "it is all there");
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// After a clean stop: of each partition its files are opened and nothing is read.
fn clean_starts(criterion: &mut Criterion) {
    let root = directory();
    let mut journal = open(root.path(), PARTITIONS);
    (0..PARTITIONS).for_each(|index| fill(&mut journal, partition(index), 1, 1 << 10));
    journal.shutdown().expect("synced");
    drop(journal);
    let mut group = criterion.benchmark_group("recovery");
    group.sample_size(10);
    group.measurement_time(Duration::from_secs(2));
    group.bench_function(format!("{PARTITIONS} partitions, clean"), |bench| {
        // A start takes the mark away.
        let stopped = || {
            let dir = DataDir::open(root.path()).expect("the directory is free");
            dir.mark_clean().expect("marked");
        };
        let started = |()| open(root.path(), PARTITIONS);
        bench.iter_batched(stopped, started, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, tails, clean_starts);
criterion_main!(benches);
