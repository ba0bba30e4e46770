//! Fetch: L55 to L64, L29.

use crate::corner::Corner;
use bytes::Bytes;
use kafka_protocol::messages::{DeleteTopicsRequest, FetchRequest};
use std::time::{Duration, Instant};
use tally_testkit::batches::Batch;
use tally_testkit::client::{FetchCall, topic_name};

/// A batch with one value of that many bytes.
fn large(bytes: usize) -> Batch {
    let mut batch = Batch::plain(1);
    batch.records[0].value = Some(Bytes::from(vec![b'x'; bytes]));
    batch
}

#[test]
fn l55_an_empty_answer_comes_after_the_wait() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    call.max_wait_ms = 100;
    call.min_bytes = 1;
    let start = Instant::now();
    let read = corner.fetch(&call).remove(0);
    assert!(read.batches.is_empty());
    assert!(start.elapsed() >= Duration::from_millis(95), "it waited");
}

#[test]
fn l55_an_append_wakes_a_waiting_reader() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let mut reader = corner.another_client();
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    call.max_wait_ms = 20_000;
    call.min_bytes = 1;
    let request = reader.fetch_request(&call);
    let start = Instant::now();
    let correlation_id = (*reader).send(12, &request);
    corner.fill(2);
    let response = reader.receive::<FetchRequest>(12, correlation_id);
    let read = reader.fetched(12, &response, &topic, 0);
    assert_eq!(read.data_offsets(), [0, 1]);
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn l56_the_first_batch_is_returned_whole() {
    let configs = [("max.message.bytes", "4000000")];
    let mut corner = Corner::with_topic(2, &configs);
    let topic = corner.topic.clone();
    let batch = large(2 << 20).encode();
    for partition in [0, 1] {
        let produced = corner.produce_one(&topic, partition, batch.clone());
        assert_eq!(produced.error, 0);
    }
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    call.max_bytes = 1 << 20;
    call.partition_max_bytes = 1 << 20;
    call.parts = vec![(&topic, 0, 0), (&topic, 1, 0)];
    let read = corner.fetch(&call);
    assert_eq!(read[0].batches.len(), 1);
    assert!(read[1].batches.is_empty());
    assert_eq!(read[1].error, 0);
}

#[test]
fn l57_partitions_are_read_in_the_order_of_the_request() {
    let mut corner = Corner::with_topic(2, &[]);
    let topic = corner.topic.clone();
    for partition in [0, 1] {
        corner.produce_one(&topic, partition, large(1000).encode());
    }
    for order in [[0, 1], [1, 0]] {
        let mut call = FetchCall::of(&topic, 0, 0, 0);
        call.max_bytes = 1000;
        call.parts = order
            .map(|partition| (topic.as_str(), partition, 0))
            .to_vec();
        let read = corner.fetch(&call);
        assert_eq!(read[0].batches.len(), 1, "{order:?}");
        assert!(read[1].batches.is_empty(), "{order:?}");
    }
}

#[test]
fn l58_offsets_out_of_range() {
    let mut corner = Corner::new();
    corner.fill(5);
    let topic = corner.topic.clone();
    assert_eq!(corner.delete_records(&topic, 0, 2), (0, 2));
    for (offset, error) in [
        (-1, 1),
        (0, 1),
        (1, 1),
        (2, 0),
        (5, 0),
        (6, 1),
        (i64::MAX, 1),
    ] {
        let read = corner.read_uncommitted(&topic, 0, offset);
        assert_eq!(read.error, error, "at {offset}");
        if error != 0 {
            assert_eq!((read.high_watermark, read.last_stable_offset), (-1, -1));
            assert_eq!(read.log_start_offset, -1);
            assert!(read.batches.is_empty());
        }
    }
    let mut call = FetchCall::of(&topic, 0, 6, 0);
    call.max_wait_ms = 20_000;
    call.min_bytes = 1;
    let start = Instant::now();
    assert_eq!(corner.fetch(&call)[0].error, 1);
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "an error does not wait"
    );
}

#[test]
fn l61_an_error_does_not_keep_back_the_data_of_others() {
    let mut corner = Corner::new();
    corner.fill(1);
    let topic = corner.topic.clone();
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    // Apache Kafka waits for the others when it does not know a partition at all.
    call.max_wait_ms = if corner.is_kafka { 10 } else { 20_000 };
    call.min_bytes = 1 << 20;
    call.parts = vec![(&topic, 0, 0), (&topic, 7, 0), ("nope", 0, 0)];
    let start = Instant::now();
    let read = corner.fetch(&call);
    assert_eq!(read[0].data_offsets(), [0]);
    assert_eq!((read[1].error, read[2].error), (3, 3));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn l62_every_version() {
    let mut corner = Corner::new();
    corner.fill(3);
    let topic = corner.topic.clone();
    for version in 4..=18 {
        let mut call = FetchCall::of(&topic, 0, 0, 1);
        call.version = version;
        let read = corner.fetch(&call).remove(0);
        assert_eq!(read.error, 0, "v{version}");
        assert_eq!(read.data_offsets(), [0, 1, 2], "v{version}");
        assert_eq!((read.high_watermark, read.last_stable_offset), (3, 3));
        let expected = if version >= 5 { 0 } else { -1 };
        assert_eq!(read.log_start_offset, expected);
    }
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    call.version = 13;
    let mut request = corner.fetch_request(&call);
    request.topics[0].topic_id = uuid::Uuid::from_u128(99);
    let response = corner.call(13, &request);
    assert_eq!(response.responses[0].partitions[0].error_code, 100);
}

#[test]
fn l63_a_fetch_in_the_middle_of_a_batch() {
    let mut corner = Corner::new();
    corner.fill(3);
    corner.fill(3);
    let topic = corner.topic.clone();
    let read = corner.read_uncommitted(&topic, 0, 4);
    assert_eq!(read.batches.len(), 1);
    assert_eq!(read.batches[0].base_offset(), 3);
    let read = corner.read_uncommitted(&topic, 0, 2);
    assert_eq!(read.data_offsets(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn l64_a_topic_deleted_under_a_waiting_reader() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let mut reader = corner.another_client();
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    call.max_wait_ms = 20_000;
    call.min_bytes = 1;
    let request = reader.fetch_request(&call);
    let correlation_id = (*reader).send(12, &request);
    // The reader is parked when a second one, sent behind it, is answered: one connection is served in order, two are not.
    assert_eq!(corner.end(), 0);
    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name(&topic)])
        .with_timeout_ms(30_000);
    let response = corner.call(5, &delete);
    assert_eq!(response.responses[0].error_code, 0);
    let start = Instant::now();
    let response = reader.receive::<FetchRequest>(12, correlation_id);
    let error = reader.fetched(12, &response, &topic, 0).error;
    assert!(matches!(error, 3 | 6), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn l29_delete_records() {
    let mut corner = Corner::new();
    corner.fill(5);
    corner.fill(5);
    let topic = corner.topic.clone();
    assert_eq!(corner.delete_records(&topic, 0, 3), (0, 3));
    assert_eq!(corner.list_offset((7, 0), &topic, 0, -2).1, 3);
    assert_eq!(corner.read_uncommitted(&topic, 0, 2).error, 1);
    let read = corner.read_uncommitted(&topic, 0, 3);
    assert_eq!((read.error, read.log_start_offset), (0, 3));
    assert_eq!(
        read.batches[0].base_offset(),
        0,
        "the batch is returned whole"
    );
    assert_eq!(corner.delete_records(&topic, 0, 11).0, 1, "above the end");
    assert_eq!(corner.delete_records(&topic, 0, -1), (0, 10));
    assert_eq!(corner.delete_records("nope", 0, 1).0, 3);
    let compacted = corner.another_topic(1, &[("cleanup.policy", "compact")]);
    assert_eq!(corner.delete_records(&compacted, 0, 0).0, 44);
}

#[test]
fn lr102_small_answers_still_move_forward() {
    let mut corner = Corner::new();
    for _ in 0..20 {
        corner.fill(2);
    }
    let topic = corner.topic.clone();
    for size in [0, 1, 150, 700] {
        let mut at = 0;
        while at < 40 {
            let mut call = FetchCall::of(&topic, 0, at, 0);
            call.partition_max_bytes = size;
            let read = corner.fetch(&call).remove(0);
            assert_eq!(read.batches[0].base_offset(), at, "{size} bytes");
            at = read.data_offsets().last().expect("whole batches") + 1;
        }
    }
}
