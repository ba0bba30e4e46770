//! What it costs to find a batch by its offset and by its time: `cargo bench -p tally-storage --bench lookup`.
//!
//! Offsets come in an order that looks random, so that the index is searched and not only its end. All is in memory.

#[allow(dead_code, reason = "each benchmark uses what it needs of this")]
#[path = "common/partitions.rs"]
mod partitions;

use criterion::{Criterion, criterion_group, criterion_main};
use partitions::{append, batch_at, directory, open_with, partition};
use tally_protocol::Offset;
use tally_storage::{LogOptions, StorageError};

/// Batches of the log, of a KiB each: sixteen entries of the index for 64 of them.
const BATCHES: i64 = 65_536;
/// Coprime to [`BATCHES`]: each offset comes once before one comes again.
const STRIDE: i64 = 40_503;
/// Behind everything.
const END: Offset = Offset(i64::MAX);

/// Asks, and again once what has to be opened first is open.
fn loaded<T>(ask: impl Fn() -> Result<T, StorageError>) -> T {
    loop {
        match ask() {
            Ok(found) => return found,
            Err(StorageError::NotInMemory(cold)) => cold.load().expect("it can be read"),
            Err(error) => panic!("{error}"),
        }
    }
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    group.sample_size(20);
    for (name, segment_bytes) in [("a segment", 1 << 30), ("64 segments", 1 << 20)] {
        let root = directory();
        let options = LogOptions {
            segment_bytes,
            ..LogOptions::default()
        };
        let (mut journal, id) = (open_with(root.path(), 1, options), partition(0));
        for time in 0..BATCHES {
            append(&mut journal, id, batch_at(time, 1 << 10));
        }
        let mut next = 0;
        let mut any = || {
            next = (next + STRIDE) % BATCHES;
            next
        };
        group.bench_function(format!("by offset, {name}"), |bench| {
            bench.iter(|| {
                let from = Offset(any());
                let read = loaded(|| journal.read(id, from, END, 1, true));
                assert_eq!(read.next, from.next());
            });
        });
        group.bench_function(format!("by time, {name}"), |bench| {
            bench.iter(|| {
                let time = any();
                let found = loaded(|| journal.find_by_time(id, time, END));
                let found = found.expect("it is there");
                assert_eq!(
                    found[..8],
                    time.to_be_bytes(),
                    "offset and time are the same"
                );
            });
        });
    }
    group.finish();
}

criterion_group!(benches, lookups);
criterion_main!(benches);
