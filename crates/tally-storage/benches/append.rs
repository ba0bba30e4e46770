//! What an append to a log costs beside a bare `pwrite` of the same bytes: `cargo bench -p tally-storage --bench append`.
//! `TALLY_BENCH_DIR` names the file system to use (default: the directory for temporary files).

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tally_protocol::build::BatchBuilder;
use tally_protocol::{LeaderEpoch, PartitionId, TopicId};
use tally_storage::{DataDir, Entry, Journal, LogOptions, SegmentJournal};

fn partition(index: i32) -> PartitionId {
    PartitionId {
        topic: TopicId([1; 16]),
        index,
    }
}

fn directory() -> tempfile::TempDir {
    let place = std::env::var_os("TALLY_BENCH_DIR");
    let place = place.map_or_else(std::env::temp_dir, Into::into);
    tempfile::tempdir_in(place).expect("a directory")
}

fn batch(bytes: usize) -> Vec<u8> {
    let mut batch = BatchBuilder::with_capacity(1_700_000_000_000, bytes);
    batch.push(None, Some(&vec![b'x'; bytes - 80]));
    batch.finish().to_vec()
}

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
    let dir = DataDir::open(root.path()).expect("the directory is free");
    let mut journal = SegmentJournal::new(Arc::new(dir));
    for index in 0..partitions {
        let opened = journal.open_partition(partition(index), LogOptions::default());
        opened.expect("the partition opens");
    }
    let (mut bytes, mut index) = (batch.to_vec(), 0);
    group.bench_function(format!("{partitions} partitions"), |bench| {
        bench.iter(|| {
            let id = partition(index);
            index = (index + 1) % partitions;
            let base = journal.log_end(id);
            journal.reserve(id, bytes.len()).expect("the disk has room");
            // Stamped as a shard does: the next append needs bytes of its own.
            bytes[..8].copy_from_slice(&base.0.to_be_bytes());
            let taken = Bytes::from(std::mem::take(&mut bytes));
            journal.append(Entry {
                partition: id,
                leader_epoch: LeaderEpoch(1),
                base,
                last: base,
                max_timestamp: base.0,
                bytes: taken.clone(),
            });
            bytes = taken.try_into_mut().expect("nobody else has it").into();
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
