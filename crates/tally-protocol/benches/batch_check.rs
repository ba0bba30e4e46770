//! What it costs to check a batch: the checksum, and all records one by one, of compressed batches after decompression:
//! `cargo bench -p tally-protocol --bench batch_check`.

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tally_protocol::batch::{BatchView, CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use tally_protocol::build::BatchBuilder;
use tally_protocol::compression::{self, GZIP, LZ4, NONE, SNAPPY, ZSTD};
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

/// So many records like an event of an order: text that shrinks to about a quarter, as most batches do.
fn events(records: u64) -> BytesMut {
    let mut batch =
        BatchBuilder::new(NOW_MS).producer(ProducerId(7), ProducerEpoch(0), Sequence(0));
    let mut random = 7_u64;
    for nth in 0..records {
        let mut value = String::new();
        while value.len() < 1000 {
            // Knuth's generator.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (customer, cents) = (random >> 40, random >> 20 & 0xFFFF);
            value += &format!(
                "{{\"order\":{nth},\"customer\":{customer},\"cents\":{cents},\"paid\":true}},"
            );
        }
        batch.push(None, Some(value.as_bytes()));
    }
    batch.finish()
}

/// The batch as a client compresses it.
fn compressed(batch: &[u8], codec: i16) -> Vec<u8> {
    let (header, records) = batch.split_at(HEADER_BYTES);
    let block = compression::compress(codec, records).expect("memory takes everything");
    let mut bytes = [header, &block].concat();
    let length = i32::try_from(bytes.len() - LENGTH_PREFIX_BYTES).expect("a small batch");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[21..23].copy_from_slice(&codec.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[CRC_START..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn codecs(criterion: &mut Criterion) {
    let events = events(64);
    let mut group = criterion.benchmark_group("batch_check/64 x 1000 of text");
    let bytes = u64::try_from(events.len()).expect("a small batch");
    group.throughput(Throughput::Bytes(bytes));
    for (name, codec) in [
        ("none", NONE),
        ("gzip", GZIP),
        ("snappy", SNAPPY),
        ("lz4", LZ4),
        ("zstd", ZSTD),
    ] {
        let batch = compressed(&events, codec);
        let shrunk = batch.len() * 2 < events.len();
        assert!(shrunk || codec == NONE, "{name}: {}", batch.len());
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let view = BatchView::parse(black_box(&batch)).expect("a whole batch");
                check_client_batch(&view, &RULES, NOW_MS).expect("a good batch")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, checks, codecs);
criterion_main!(benches);
