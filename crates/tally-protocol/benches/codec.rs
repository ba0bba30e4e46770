//! What it costs to take requests apart and to put answers together, and, beside it, the codec crate that does the same:
//! `cargo bench -p tally-protocol --bench codec`.

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use kafka_protocol::messages::fetch_request::{
    FetchPartition as TheirPartition, FetchTopic as TheirTopic,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use kafka_protocol::messages::{FetchRequest as TheirFetch, ProduceRequest as TheirProduce};
use kafka_protocol::messages::{TopicName, TransactionalId};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use std::hint::black_box;
use std::sync::Arc;
use tally_protocol::request::{FetchRequest, ProduceRequest};
use tally_protocol::response::{
    FetchPartitionResponse, FetchResponse, FetchTopicResponse, ProducePartitionResponse,
    ProduceResponse, ProduceTopicResponse, encode_fetch, encode_produce,
};
use tally_protocol::{ErrorCode, Offset, TopicId};

/// Versions that librdkafka speaks.
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
const METADATA: i16 = 12;
/// Bytes of a batch.
const BATCH_BYTES: usize = 170;

fn topic_name() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

fn body(request: &impl Encodable, version: i16) -> BytesMut {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("a legal request");
    body
}

fn produce_body(partitions: i32) -> BytesMut {
    let parts = (0..partitions).map(|index| {
        PartitionProduceData::default()
            .with_index(index)
            .with_records(Some(Bytes::from_static(&[7; BATCH_BYTES])))
    });
    let topic = TopicProduceData::default()
        .with_name(topic_name())
        .with_partition_data(parts.collect());
    let request = TheirProduce::default()
        .with_transactional_id(None::<TransactionalId>)
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    body(&request, PRODUCE)
}

fn fetch_body(partitions: i32) -> Bytes {
    let parts = (0..partitions).map(|index| {
        TheirPartition::default()
            .with_partition(index)
            .with_fetch_offset(1 << 40)
            .with_partition_max_bytes(1 << 20)
    });
    let topic = TheirTopic::default()
        .with_topic(topic_name())
        .with_partitions(parts.collect());
    let request = TheirFetch::default()
        .with_max_wait_ms(500)
        .with_topics(vec![topic]);
    body(&request, FETCH).freeze()
}

fn requests(criterion: &mut Criterion) {
    for partitions in [1, 8] {
        let body = produce_body(partitions);
        let parse = |body| ProduceRequest::parse(PRODUCE, body).expect("a legal request");
        criterion.bench_function(&format!("codec/produce request, {partitions}p"), |bench| {
            bench.iter_batched(|| body.clone(), parse, BatchSize::SmallInput);
        });
        let theirs = |mut body: Bytes| TheirProduce::decode(&mut body, PRODUCE).expect("legal");
        let name = format!("codec/produce request, {partitions}p, codec crate");
        let frozen = body.clone().freeze();
        criterion.bench_function(&name, |bench| {
            bench.iter_batched(|| frozen.clone(), theirs, BatchSize::SmallInput);
        });
    }
    for partitions in [1, 64] {
        let body = fetch_body(partitions);
        criterion.bench_function(&format!("codec/fetch request, {partitions}p"), |bench| {
            bench.iter(|| FetchRequest::parse(FETCH, black_box(&body)).expect("a legal request"));
        });
        let name = format!("codec/fetch request, {partitions}p, codec crate");
        criterion.bench_function(&name, |bench| {
            bench.iter(|| TheirFetch::decode(&mut body.clone(), FETCH).expect("a legal request"));
        });
    }
}

fn produce_parts(partitions: i32) -> Vec<ProducePartitionResponse> {
    let parts = (0..partitions).map(|index| ProducePartitionResponse {
        base_offset: Offset(40),
        ..ProducePartitionResponse::refusal(index, ErrorCode::None)
    });
    parts.collect()
}

fn encode_produced(parts: &[ProducePartitionResponse]) -> Vec<u8> {
    let topic = ProduceTopicResponse {
        name: Some("orders"),
        id: TopicId([0; 16]),
        partitions: parts.iter(),
    };
    let response = ProduceResponse {
        topics: std::iter::once(topic),
        throttle_time_ms: 0,
        node_endpoints: &[],
    };
    encode_produce(PRODUCE, 7, response)
}

fn fetch_answer(partitions: i32) -> FetchResponse<Bytes> {
    let topic = FetchTopicResponse {
        name: Some(Arc::from("orders")),
        id: TopicId([0; 16]),
        partitions: (0..partitions)
            .map(|index| FetchPartitionResponse {
                high_watermark: Offset(40),
                records: vec![Bytes::from_static(&[7; BATCH_BYTES])],
                ..FetchPartitionResponse::refusal(index, ErrorCode::None)
            })
            .collect(),
    };
    FetchResponse {
        throttle_time_ms: 0,
        error_code: ErrorCode::None,
        session_id: 0,
        topics: vec![topic],
        node_endpoints: Vec::new(),
    }
}

fn answers(criterion: &mut Criterion) {
    for partitions in [1, 8] {
        let parts = produce_parts(partitions);
        criterion.bench_function(&format!("codec/produce answer, {partitions}p"), |bench| {
            bench.iter(|| encode_produced(black_box(&parts)));
        });
    }
    for partitions in [1, 64] {
        let answer = fetch_answer(partitions);
        let encode = |answer| encode_fetch(FETCH, 7, answer);
        criterion.bench_function(&format!("codec/fetch answer, {partitions}p"), |bench| {
            bench.iter_batched(|| answer.clone(), encode, BatchSize::SmallInput);
        });
    }
}

/// Metadata has no path of its own: the broker uses the codec crate for it.
fn metadata(criterion: &mut Criterion) {
    const TOPICS: usize = 100;
    let me = BrokerId(1);
    let names: Vec<TopicName> = (0..TOPICS)
        .map(|nth| TopicName(StrBytes::from_string(format!("orders-{nth}"))))
        .collect();
    let wanted = names
        .iter()
        .map(|name| MetadataRequestTopic::default().with_name(Some(name.clone())));
    let request = MetadataRequest::default().with_topics(Some(wanted.collect()));
    let request = body(&request, METADATA).freeze();
    let name = format!("codec/metadata request, {TOPICS} topics, codec crate");
    criterion.bench_function(&name, |bench| {
        bench.iter(|| MetadataRequest::decode(&mut request.clone(), METADATA).expect("legal"));
    });
    let answer = || {
        let topics = names.iter().map(|name| {
            let partition = MetadataResponsePartition::default()
                .with_leader_id(me)
                .with_replica_nodes(vec![me])
                .with_isr_nodes(vec![me]);
            MetadataResponseTopic::default()
                .with_name(Some(name.clone()))
                .with_partitions(vec![partition])
        });
        let broker = MetadataResponseBroker::default()
            .with_node_id(me)
            .with_host(StrBytes::from_static_str("localhost"))
            .with_port(9092);
        let answer = MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_topics(topics.collect());
        body(&answer, METADATA)
    };
    let name = format!("codec/metadata answer, {TOPICS} topics, codec crate");
    criterion.bench_function(&name, |bench| bench.iter(answer));
}

criterion_group!(benches, requests, answers, metadata);
criterion_main!(benches);
