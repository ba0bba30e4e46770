//! What a shard costs without sockets: a transaction, a read of hot data, and waking fetches that wait:
//! `cargo bench -p tally-shard`. It writes real files, in `TMPDIR`.

#[allow(
    dead_code,
    reason = "the world of the tests, of which this uses a part"
)]
#[path = "../tests/it/world.rs"]
mod world;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tally_protocol::{Offset, ProducerEpoch, ProducerId};
use tally_shard::{Isolation, WaiterId};
use tally_storage::Durability;
use world::World;

/// Bytes of a record's value.
const VALUE: &str = "one hundred bytes, as much as an event of an order has that says who paid how much and when it was done";
/// Who needs no producer state.
const NOBODY: (ProducerId, ProducerEpoch) = (ProducerId::NONE, ProducerEpoch::NONE);
/// Reads that wait at once.
const WAITERS: u64 = 10_000;

/// Begin, add, write, end, by the old flow: one partition, which is what the world has to write to.
fn transactions(criterion: &mut Criterion) {
    for (name, durability) in [("os", Durability::Os), ("commit", Durability::Commit)] {
        let mut world = World::durable(durability);
        let pair = world.init();
        let mut sequence = 0;
        criterion.bench_function(&format!("txn/1 partition, {name}"), |bench| {
            bench.iter(|| {
                world.add(pair, "data");
                let written = world.append(pair, sequence, &[VALUE], true);
                written.expect("the batch is taken");
                sequence += 1;
                world.end(pair, true).expect("the transaction ends");
            });
        });
    }
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

criterion_group!(benches, transactions, appends, reads, wakes);
criterion_main!(benches);
