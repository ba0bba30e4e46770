//! What a shard costs without sockets: a transaction, a read of hot data, and waking fetches that wait:
//! `cargo bench -p tally-shard`. It writes real files, in `TMPDIR`.

#[allow(
    dead_code,
    reason = "the world of the tests, of which this uses a part"
)]
#[path = "../tests/it/world.rs"]
mod world;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::time::{Duration, Instant};
use tally_protocol::{Offset, PartitionId, ProducerEpoch, ProducerId, Sequence};
use tally_shard::{Isolation, ShardMessage, ShardReply, WaiterId};
use tally_storage::Durability;
use world::{World, batch};

/// Bytes of a record's value.
const VALUE: &str = "one hundred bytes, as much as an event of an order has that says who paid how much and when it was done";
/// Who needs no producer state.
const NOBODY: (ProducerId, ProducerEpoch) = (ProducerId::NONE, ProducerEpoch::NONE);
/// Transactions that were aborted, of which a reader is told.
const ABORTED: usize = 1000;
/// Reads that wait at once.
const WAITERS: u64 = 10_000;
/// From a partition to the next that gets batches.
const STRIDE: usize = 100;

/// Begin, add, write, end, by the old flow: a batch for each partition, and an AddPartitionsToTxn of its own.
fn transactions(criterion: &mut Criterion) {
    for (name, durability) in [("os", Durability::Os), ("commit", Durability::Commit)] {
        for count in [1, 3, 64] {
            let mut world = World::durable(durability);
            let pair = world.init();
            // The world has the first two.
            let parts = (2..2 + count).map(|index| (world.open_data(index), format!("p{index}")));
            let parts: Vec<(PartitionId, String)> = parts.collect();
            let mut sequence = 0;
            criterion.bench_function(&format!("txn/{count} partitions, {name}"), |bench| {
                bench.iter(|| {
                    for (id, topic) in &parts {
                        world.add(pair, topic);
                        write(&mut world, *id, pair, sequence);
                    }
                    sequence += 1;
                    world.end(pair, true).expect("the transaction ends");
                });
            });
        }
    }
}

/// A transactional batch, verified as the broker does it (V-1).
fn write(world: &mut World, id: PartitionId, pair: (ProducerId, ProducerEpoch), sequence: i32) {
    let guard = world.verify(id, pair, Sequence(sequence));
    let batch = batch(pair, sequence, &[VALUE], true);
    let reply = world.ask(id, |to| ShardMessage::Append { batch, guard, to });
    assert!(matches!(reply, ShardReply::Append(Ok(_))), "{reply:?}");
}

fn appends(criterion: &mut Criterion) {
    let mut world = World::new();
    criterion.bench_function("append/a batch of one record", |bench| {
        bench.iter(|| world.append(NOBODY, -1, &[VALUE], false).expect("taken"));
    });
}

fn reads(criterion: &mut Criterion) {
    let mut world = World::new();
    for _ in 0..1000 {
        world.append(NOBODY, -1, &[VALUE], false).expect("taken");
    }
    for (name, isolation) in [
        ("read_uncommitted", Isolation::ReadUncommitted),
        ("read_committed", Isolation::ReadCommitted),
    ] {
        criterion.bench_function(&format!("fetch_plan/hot, {name}"), |bench| {
            bench.iter(|| world.read_from(Offset(500), isolation, None).expect("read"));
        });
    }
}

/// A Fetch of many partitions, one batch of each, as the broker asks its shards.
fn many(criterion: &mut Criterion) {
    const PARTITIONS: i32 = 64;
    let mut world = World::new();
    // The world has the first two.
    let parts: Vec<PartitionId> = (2..2 + PARTITIONS)
        .map(|index| world.open_data(index))
        .collect();
    for id in &parts {
        append_to(&mut world, *id);
    }
    criterion.bench_function(
        &format!("fetch_plan/hot, {PARTITIONS} partitions"),
        |bench| {
            bench.iter(|| {
                for id in &parts {
                    let read = world.read_of(*id, Offset::ZERO, Isolation::ReadUncommitted, None);
                    assert!(!read.expect("read").slices.is_empty());
                }
            });
        },
    );
}

/// A batch of one record of no producer.
fn append_to(world: &mut World, id: PartitionId) {
    let batch = batch(NOBODY, -1, &[VALUE], false);
    let reply = world.ask(id, |to| ShardMessage::Append {
        batch,
        guard: None,
        to,
    });
    assert!(matches!(reply, ShardReply::Append(Ok(_))), "{reply:?}");
}

/// A read of committed records where transactions were aborted: what it returns is the last of them, or all.
fn aborted(criterion: &mut Criterion) {
    let mut world = World::new();
    let pair = world.init();
    let mut last = Offset::ZERO;
    for nth in (0..).take(ABORTED) {
        world.add(pair, "data");
        let written = world.append(pair, nth, &[VALUE], true);
        last = written.expect("the batch is taken").base_offset;
        world.end(pair, false).expect("the transaction ends");
    }
    for (name, from, found) in [("the last", last, 1), ("all", Offset::ZERO, ABORTED)] {
        let name = format!("fetch_plan/{name} of {ABORTED} aborted transactions");
        criterion.bench_function(&name, |bench| {
            bench.iter(|| {
                let read = world.read_from(from, Isolation::ReadCommitted, None);
                assert_eq!(read.expect("read").aborted.len(), found);
            });
        });
    }
}

/// A batch that lets so many reads go.
fn wakes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wake");
    group.sample_size(20);
    let waiting = || {
        let mut world = World::new();
        for waiter in 0..WAITERS {
            let waiter = Some(WaiterId(waiter));
            let read = world.read_from(Offset::ZERO, Isolation::ReadUncommitted, waiter);
            read.expect("it waits");
        }
        world
    };
    group.bench_function(format!("{WAITERS} reads of a partition"), |bench| {
        bench.iter_batched_ref(
            waiting,
            |world| world.append(NOBODY, -1, &[VALUE], false).expect("taken"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// A batch that lets one read go, of those that wait at a partition each. Only the append is timed, not that the read then
/// waits again.
#[allow(
    clippy::disallowed_methods,
    reason = "a benchmark asks what time it is"
)]
fn wakes_of_one(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wake");
    for (name, waiters) in [("nobody", 0), ("one", 1), ("one of 10000", WAITERS)] {
        let mut world = World::new();
        let count = i32::try_from(waiters).expect("a small count").max(1);
        let parts = (2..2 + count).map(|index| world.open_data(index));
        let parts: Vec<PartitionId> = parts.collect();
        // The first batch of a partition makes its files, so only some get batches, and one before.
        let used = (0..parts.len()).step_by(STRIDE);
        let used: Vec<usize> = used.collect();
        let mut ends = vec![Offset::ZERO; parts.len()];
        for &nth in &used {
            append_to(&mut world, parts[nth]);
            ends[nth] = Offset(1);
        }
        let wait = |world: &mut World, nth: usize, end: Offset| {
            let waiter = Some(WaiterId(nth as u64));
            let read = world.read_of(parts[nth], end, Isolation::ReadUncommitted, waiter);
            assert!(read.expect("it waits").slices.is_empty());
        };
        if waiters > 0 {
            (0..parts.len()).for_each(|nth| wait(&mut world, nth, ends[nth]));
        }
        let mut next = used.iter().copied().cycle();
        group.bench_function(format!("a batch that wakes {name}"), |bench| {
            bench.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    let nth = next.next().expect("there is one");
                    let began = Instant::now();
                    append_to(&mut world, parts[nth]);
                    took += began.elapsed();
                    ends[nth] = ends[nth].next();
                    let woken = std::mem::take(&mut world.woken).len();
                    assert_eq!(woken, usize::from(waiters > 0));
                    if waiters > 0 {
                        wait(&mut world, nth, ends[nth]);
                    }
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    transactions,
    appends,
    reads,
    many,
    aborted,
    wakes,
    wakes_of_one
);
criterion_main!(benches);
