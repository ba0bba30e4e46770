//! What an append to a log costs beside a bare `pwrite` of the same bytes: `cargo bench -p tally-storage --bench append`.
//! `TALLY_BENCH_DIR` names the file system to use (default: the directory for temporary files).

#[allow(dead_code, reason = "each benchmark uses what it needs of this")]
#[path = "common/partitions.rs"]
mod partitions;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use partitions::{append, batch, directory, open, partition};
use std::fs::File;
use std::os::unix::fs::FileExt;

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn to_files(group: &mut Group<'_>, partitions: i32, batch: &[u8]) {
    let root = directory();
    let files = (0..partitions).map(|index| File::create(root.path().join(index.to_string())));
    let files: Vec<File> = files.map(|file| file.expect("a file")).collect();
    let step = u64::try_from(batch.len()).expect("a small batch");
    let (mut nth, mut at) = (0, 0);
    group.bench_function(format!("{partitions} partitions, pwrite"), |bench| {
        bench.iter(|| {
            files[nth].write_all_at(batch, at).expect("written");
            nth = (nth + 1) % files.len();
            if nth == 0 {
                at += step;
            }
        });
    });
}

fn to_journal(group: &mut Group<'_>, partitions: i32, batch: &[u8]) {
    let root = directory();
    let mut journal = open(root.path(), partitions);
    let (mut bytes, mut index) = (batch.to_vec(), 0);
    group.bench_function(format!("{partitions} partitions"), |bench| {
        bench.iter(|| {
            let id = partition(index);
            index = (index + 1) % partitions;
            bytes = append(&mut journal, id, std::mem::take(&mut bytes));
        });
    });
}

fn appends(criterion: &mut Criterion) {
    for size in [1 << 10, 16 << 10, 64 << 10] {
        let batch = batch(size);
        let mut group = criterion.benchmark_group(format!("append/{} KiB", size >> 10));
        group.throughput(Throughput::Bytes(
            u64::try_from(batch.len()).expect("small"),
        ));
        // What is written stays: few samples, and short.
        group.sample_size(10);
        group.warm_up_time(std::time::Duration::from_millis(300));
        group.measurement_time(std::time::Duration::from_secs(1));
        for partitions in [1, 8, 256] {
            to_files(&mut group, partitions, &batch);
            to_journal(&mut group, partitions, &batch);
        }
        group.finish();
    }
}

criterion_group!(benches, appends);
criterion_main!(benches);
