//! The words of these tests.

use kafka_protocol::messages::InitProducerIdRequest;
use tally_testkit::batches::Batch;
use tally_testkit::client::{Client, ProduceCall, Producer, transactional_id};

/// InitProducerId of an id.
#[track_caller]
pub(crate) fn producer(client: &mut Client, id: &str) -> Producer {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(id)))
        .with_transaction_timeout_ms(60_000);
    let (error, producer) = client.init_producer_id(4, &request);
    assert_eq!(error, 0);
    producer
}

/// Begins a transaction with one record on partition 0; returns its offset.
#[track_caller]
pub(crate) fn begin(
    client: &mut Client,
    id: &str,
    producer: Producer,
    topic: &str,
    sequence: i32,
) -> i64 {
    assert_eq!(client.add_partitions(3, id, producer, &[(topic, 0)]), [0]);
    let batch = Batch::transactional(producer.id, producer.epoch, sequence, 1);
    let produced = client.produce(&ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some(id),
        parts: vec![(topic, 0, Some(batch.encode()))],
    });
    assert_eq!(produced[0].error, 0);
    produced[0].base_offset
}
