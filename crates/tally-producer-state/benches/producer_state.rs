//! What the producer state costs a batch: taken, sent twice, out of order, with one producer and with 100,000; and its
//! snapshot: `cargo bench -p tally-producer-state`.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tally_producer_state::{ProducerStates, Verdict};
use tally_protocol::{BatchHeader, LeaderEpoch, Now, Offset, ProducerEpoch, ProducerId, Sequence};

/// What a hash map's order comes from.
const SEED: u64 = 7;
const NOW: Now = Now {
    monotonic_ms: 1000,
    wall_ms: 1_700_000_000_000,
};

fn header(producer: i64, sequence: i32) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(0),
        batch_length: 49,
        leader_epoch: LeaderEpoch(-1),
        crc: 0,
        attributes: 0,
        last_offset_delta: 0,
        base_timestamp: 0,
        max_timestamp: 77,
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(0),
        base_sequence: Sequence(sequence),
        records_count: 1,
    }
}

/// So many producers with five batches each, the most that is remembered.
fn states(producers: i64) -> ProducerStates {
    let mut states = ProducerStates::new(SEED);
    let batches = (0..5).flat_map(|nth| (0..producers).map(move |producer| (producer, nth)));
    for (offset, (producer, nth)) in (0..).zip(batches) {
        states.apply(Offset(offset), &header(producer, nth), NOW);
    }
    states
}

fn batches(criterion: &mut Criterion) {
    for producers in [1, 100_000] {
        let mut group = criterion.benchmark_group(format!("producer_state/{producers} producers"));
        let mut known = states(producers);
        let producer = producers / 2;
        group.bench_function("sent twice", |bench| {
            let again = header(producer, 2);
            bench.iter(|| {
                let verdict = known.check(black_box(&again), None);
                assert!(matches!(verdict, Verdict::Duplicate { .. }));
            });
        });
        group.bench_function("out of order", |bench| {
            let later = header(producer, 9);
            bench.iter(|| {
                let verdict = known.check(black_box(&later), None);
                assert!(matches!(verdict, Verdict::Refuse(_)));
            });
        });
        let (mut offset, mut sequence) = (5 * producers, 5);
        group.bench_function("taken", |bench| {
            bench.iter(|| {
                let next = header(producer, sequence);
                assert!(matches!(
                    known.check(black_box(&next), None),
                    Verdict::Append
                ));
                known.apply(Offset(offset), &next, NOW);
                offset += 1;
                // What follows the highest sequence is 0 (KIP-98).
                sequence = sequence.checked_add(1).unwrap_or(0);
            });
        });
        group.finish();
    }
}

fn snapshots(criterion: &mut Criterion) {
    let producers = 100_000;
    let known = states(producers);
    let end = Offset(5 * producers);
    let snapshot = known.snapshot(end);
    let mut group = criterion.benchmark_group(format!("producer_state/{producers} producers"));
    group.sample_size(10);
    group.bench_function("written to a snapshot", |bench| {
        bench.iter(|| known.snapshot(end))
    });
    group.bench_function("read from one", |bench| {
        bench
            .iter(|| ProducerStates::restore(black_box(&snapshot), SEED).expect("a good snapshot"));
    });
    group.finish();
}

criterion_group!(benches, batches, snapshots);
criterion_main!(benches);
