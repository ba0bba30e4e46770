//! What it costs to check a batch: the checksum, and all records one by one:
//! `cargo bench -p tally-protocol --bench batch_check`.

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tally_protocol::batch::{BatchView, CRC_START};
use tally_protocol::build::BatchBuilder;
use tally_protocol::validate::{Rules, TimestampType, check_client_batch};
use tally_protocol::{ProducerEpoch, ProducerId, Sequence};

const NOW_MS: i64 = 1_700_000_000_000;

const RULES: Rules = Rules {
    request_version: 9,
    max_message_bytes: 1 << 20,
    compacted: false,
    timestamp_type: TimestampType::CreateTime,
    before_max_ms: i64::MAX,
    after_max_ms: 3_600_000,
};

fn batch(records: usize, value_bytes: usize) -> BytesMut {
    let mut batch =
        BatchBuilder::new(NOW_MS).producer(ProducerId(7), ProducerEpoch(0), Sequence(0));
    let value = vec![b'x'; value_bytes];
    (0..records).for_each(|_| batch.push(None, Some(&value)));
    batch.finish()
}

fn checks(criterion: &mut Criterion) {
    for (records, value_bytes) in [(1, 100), (64, 1000), (640, 100)] {
        let batch = batch(records, value_bytes);
        let name = format!("batch_check/{records} x {value_bytes}");
        let mut group = criterion.benchmark_group(name);
        let bytes = u64::try_from(batch.len()).expect("a small batch");
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function("checksum alone", |bench| {
            bench.iter(|| crc32c::crc32c(black_box(&batch[CRC_START..])));
        });
        group.bench_function("checksum and records", |bench| {
            bench.iter(|| {
                let view = BatchView::parse(black_box(&batch)).expect("a whole batch");
                view.check_crc().expect("a good batch");
                check_client_batch(&view, &RULES, NOW_MS).expect("a good batch")
            });
        });
        group.finish();
    }
}

criterion_group!(benches, checks);
criterion_main!(benches);
