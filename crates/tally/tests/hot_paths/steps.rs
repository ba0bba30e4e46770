//! The hot paths that the gates count (`allocations`, `instructions`), each a list of requests that one client sends one
//! after the other, again and again.
//!
//! The client may cost what it likes: what is counted is the broker, by its thread or by its process.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest,
    SyncGroupRequest,
};
use tally_testkit::batches::{Batch, Record};
use tally_testkit::client::{
    Client, FetchCall, ProduceCall, Producer, group_id, text, topic_name, transactional_id, unique,
};

/// Partitions of a transaction.
const TRANSACTION_PARTITIONS: i32 = 3;

/// How long members may be silent: callgrind is slow.
const SESSION_MS: i32 = 300_000;

/// Something clients do all the time.
pub(crate) struct HotPath {
    /// Its name in the files of limits.
    pub(crate) name: &'static str,
    /// Partitions of its topic.
    partitions: i32,
    /// What is done once, before.
    prepare: fn(&mut Load),
    /// The requests, each with its name.
    pub(crate) steps: &'static [(&'static str, Step)],
}

/// Sends a request and takes its answer.
pub(crate) type Step = fn(&mut Load);

/// All of them.
pub(crate) const HOT_PATHS: [HotPath; 13] = [
    path("produce-170B", 1, nothing, &[("Produce", produce_small)]),
    path("produce-64KB", 1, nothing, &[("Produce", produce_large)]),
    path("produce-8p", 8, nothing, &[("Produce", produce_everywhere)]),
    path("fetch-64KB", 1, produce_large, &[("Fetch", fetch)]),
    path("fetch-64p", 64, produce_everywhere, &[("Fetch", fetch)]),
    path("fetch-nothing", 1, nothing, &[("Fetch", fetch)]),
    path(
        "tv1-3p",
        TRANSACTION_PARTITIONS,
        nothing,
        &[
            ("AddPartitionsToTxn", add_partitions),
            ("Produce", produce_in_transaction),
            ("EndTxn", end_v3),
        ],
    ),
    path(
        "tv2-3p",
        TRANSACTION_PARTITIONS,
        nothing,
        &[("Produce", produce_in_transaction_v12), ("EndTxn", end_v5)],
    ),
    path(
        "tv1-offsets",
        1,
        find_group,
        &[
            ("AddOffsetsToTxn", add_offsets),
            ("TxnOffsetCommit", commit_offset_in_transaction),
            ("EndTxn", end_v3),
        ],
    ),
    path(
        "tv2-offsets",
        1,
        find_group,
        &[
            ("Produce", produce_in_transaction_v12),
            ("TxnOffsetCommit", commit_offset_in_transaction_v5),
            ("EndTxn", end_v5),
        ],
    ),
    path("offsets", 1, find_group, &[("OffsetCommit", commit_offset)]),
    path("heartbeat", 1, join, &[("Heartbeat", heartbeat)]),
    path(
        "consumer-heartbeat",
        1,
        join_as_consumer,
        &[("ConsumerGroupHeartbeat", consumer_heartbeat)],
    ),
];

const fn path(
    name: &'static str,
    partitions: i32,
    prepare: fn(&mut Load),
    steps: &'static [(&'static str, Step)],
) -> HotPath {
    HotPath {
        name,
        partitions,
        prepare,
        steps,
    }
}

impl HotPath {
    /// A client that is ready for the first step.
    pub(crate) fn begin(&self, address: &str) -> Load {
        let mut client = Client::connect(address);
        let topic = unique("hot");
        client.create_topic(&topic, self.partitions, &[]);
        let id = unique("hot-id");
        let request = InitProducerIdRequest::default()
            .with_transactional_id(self.is_transactional().then(|| transactional_id(&id)))
            .with_transaction_timeout_ms(60_000);
        let (error, producer) = client.init_producer_id(4, &request);
        assert_eq!(error, 0, "InitProducerId");
        let mut load = Load {
            client,
            topic,
            partitions: self.partitions,
            id,
            producer,
            sequence: 0,
            member: String::new(),
            generation: 0,
        };
        (self.prepare)(&mut load);
        load
    }

    fn is_transactional(&self) -> bool {
        self.name.starts_with("tv")
    }
}

/// A client and where it stands.
pub(crate) struct Load {
    client: Client,
    topic: String,
    partitions: i32,
    /// Transactional id and group.
    id: String,
    producer: Producer,
    /// Sequence of the next batch, of each partition.
    sequence: i32,
    /// What it is in its group, and since when: a classic group's generation, a member's epoch in the others.
    member: String,
    generation: i32,
}

/// Records of so many bytes each, with the next sequence.
fn batch(load: &Load, count: usize, value_bytes: usize) -> Batch {
    let producer = load.producer;
    let record = || Record {
        timestamp_delta: 0,
        key: None,
        value: Some(Bytes::from(vec![b'x'; value_bytes])),
    };
    Batch {
        records: (0..count).map(|_| record()).collect(),
        ..Batch::idempotent(producer.id, producer.epoch, load.sequence, 0)
    }
}

fn produce(load: &mut Load, version: i16, batch: &Batch, transactional_id: Option<&str>) {
    let bytes = batch.encode();
    let Load { client, topic, .. } = load;
    let call = ProduceCall {
        version,
        acks: -1,
        transactional_id,
        parts: (0..load.partitions)
            .map(|partition| (topic.as_str(), partition, Some(bytes.clone())))
            .collect(),
    };
    let results = client.produce(&call);
    assert!(
        results.iter().all(|result| result.error == 0),
        "{results:?}"
    );
    load.sequence += i32::try_from(batch.records.len()).expect("few records");
}

fn nothing(_load: &mut Load) {}

fn produce_small(load: &mut Load) {
    let batch = batch(load, 1, 100);
    produce(load, 9, &batch, None);
}

fn produce_large(load: &mut Load) {
    let batch = batch(load, 64, 1000);
    produce(load, 9, &batch, None);
}

fn produce_everywhere(load: &mut Load) {
    let batch = batch(load, 1, 1100);
    produce(load, 9, &batch, None);
}

fn produce_as_transaction(load: &mut Load, version: i16) {
    let producer = load.producer;
    let transactional = Batch {
        records: batch(load, 1, 100).records,
        ..Batch::transactional(producer.id, producer.epoch, load.sequence, 0)
    };
    let id = load.id.clone();
    produce(load, version, &transactional, Some(&id));
}

fn produce_in_transaction(load: &mut Load) {
    produce_as_transaction(load, 9);
}

fn produce_in_transaction_v12(load: &mut Load) {
    produce_as_transaction(load, 12);
}

fn fetch(load: &mut Load) {
    let Load { client, topic, .. } = load;
    let call = FetchCall {
        version: 12,
        max_wait_ms: 0,
        min_bytes: 0,
        parts: (0..load.partitions)
            .map(|partition| (topic.as_str(), partition, 0))
            .collect(),
        ..FetchCall::of(topic, 0, 0, 1)
    };
    let request = client.fetch_request(&call);
    let response = client.call(call.version, &request);
    assert_eq!(response.error_code, 0, "Fetch");
}

fn add_partitions(load: &mut Load) {
    let Load { client, topic, .. } = load;
    let partitions: Vec<_> = (0..load.partitions)
        .map(|partition| (topic.as_str(), partition))
        .collect();
    let errors = client.add_partitions(3, &load.id, load.producer, &partitions);
    assert!(errors.iter().all(|&error| error == 0), "{errors:?}");
}

fn end_v3(load: &mut Load) {
    let (error, _) = load.client.end_txn(3, &load.id, load.producer, true);
    assert_eq!(error, 0, "EndTxn");
}

/// The new flow gives a new epoch, and its sequences begin anew.
fn end_v5(load: &mut Load) {
    let (error, producer) = load.client.end_txn(5, &load.id, load.producer, true);
    assert_eq!(error, 0, "EndTxn");
    load.producer = producer;
    load.sequence = 0;
}

fn find_group(load: &mut Load) {
    load.client.wait_for_group(&load.id);
}

fn add_offsets(load: &mut Load) {
    let error = load
        .client
        .add_offsets(3, &load.id, load.producer, &load.id);
    assert_eq!(error, 0, "AddOffsetsToTxn");
}

fn commit_offset_as_transaction(load: &mut Load, version: i16) {
    let offsets = [(load.topic.as_str(), 0, 1)];
    let request = Client::txn_offset_commit_request(&load.id, load.producer, &load.id, &offsets);
    assert_eq!(load.client.txn_offset_commit(version, &request), [0]);
}

fn commit_offset_in_transaction(load: &mut Load) {
    commit_offset_as_transaction(load, 3);
}

/// Who announces no group before (KIP-890).
fn commit_offset_in_transaction_v5(load: &mut Load) {
    commit_offset_as_transaction(load, 5);
}

fn commit_offset(load: &mut Load) {
    let error = load.client.commit_offset(&load.id, &load.topic, 0, 1);
    assert_eq!(error, 0, "OffsetCommit");
}

fn join(load: &mut Load) {
    find_group(load);
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(&[0; 10]));
    let request = JoinGroupRequest::default()
        .with_group_id(group_id(&load.id))
        .with_session_timeout_ms(SESSION_MS)
        .with_rebalance_timeout_ms(SESSION_MS)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let joined = load.client.call(3, &request);
    assert_eq!(joined.error_code, 0, "JoinGroup");
    load.member = joined.member_id.to_string();
    load.generation = joined.generation_id;
    let request = SyncGroupRequest::default()
        .with_group_id(group_id(&load.id))
        .with_generation_id(load.generation)
        .with_member_id(text(&load.member));
    assert_eq!(load.client.call(3, &request).error_code, 0, "SyncGroup");
}

fn heartbeat(load: &mut Load) {
    let request = HeartbeatRequest::default()
        .with_group_id(group_id(&load.id))
        .with_generation_id(load.generation)
        .with_member_id(text(&load.member));
    assert_eq!(load.client.call(3, &request).error_code, 0, "Heartbeat");
}

fn join_as_consumer(load: &mut Load) {
    find_group(load);
    load.member = unique("member");
    let request = consumer_request(load)
        .with_rebalance_timeout_ms(SESSION_MS)
        .with_subscribed_topic_names(Some(vec![topic_name(&load.topic)]))
        .with_topic_partitions(Some(Vec::new()));
    let joined = load.client.call(0, &request);
    assert_eq!(joined.error_code, 0, "ConsumerGroupHeartbeat");
    load.generation = joined.member_epoch;
}

/// A heartbeat that says nothing new.
fn consumer_request(load: &Load) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group_id(&load.id))
        .with_member_id(text(&load.member))
        .with_member_epoch(load.generation)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_topic_partitions(None)
}

fn consumer_heartbeat(load: &mut Load) {
    let request = consumer_request(load);
    let answer = load.client.call(0, &request);
    assert_eq!(answer.error_code, 0, "ConsumerGroupHeartbeat");
    load.generation = answer.member_epoch;
}
