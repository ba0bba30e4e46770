//! Topics that go away under those who use them.

use crate::PROGRAM;
use kafka_protocol::messages::{DeleteTopicsRequest, FetchRequest, InitProducerIdRequest};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{
    Client, FetchCall, ProduceCall, Producer, topic_name, transactional_id, unique,
};
use tally_testkit::waiting::wait_until;

fn delete(client: &mut Client, topic: &str) {
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name(topic)])
        .with_timeout_ms(30_000);
    assert_eq!(client.call(5, &request).responses[0].error_code, 0);
}

fn produce(client: &mut Client, version: i16, id: &str, producer: Producer, topic: &str) -> i16 {
    let batch = Batch::transactional(producer.id, producer.epoch, 0, 1).encode();
    let call = ProduceCall {
        version,
        acks: -1,
        transactional_id: Some(id),
        parts: vec![(topic, 0, Some(batch))],
    };
    client.produce(&call)[0].error
}

/// E-8: a partition that is gone does not hold the transaction up, whether its name is free or taken again.
#[test]
fn e08_a_transaction_ends_without_the_topics_that_are_gone() {
    let mut client = Client::connect(Broker::shared(PROGRAM));
    for made_again in [false, true] {
        for commit in [false, true] {
            let (kept, gone, id) = (unique("h"), unique("h"), unique("x"));
            client.create_topic(&kept, 1, &[]);
            client.create_topic(&gone, 1, &[]);
            let request = InitProducerIdRequest::default()
                .with_transactional_id(Some(transactional_id(&id)))
                .with_transaction_timeout_ms(60_000);
            let (error, producer) = client.init_producer_id(4, &request);
            assert_eq!(error, 0);
            for topic in [&kept, &gone] {
                assert_eq!(produce(&mut client, 12, &id, producer, topic), 0);
            }
            delete(&mut client, &gone);
            if made_again {
                client.create_topic(&gone, 1, &[]);
            }
            let (error, next) = client.end_txn(5, &id, producer, commit);
            assert_eq!((error, next.epoch), (0, producer.epoch + 1));
            let read = client.read_committed(&kept, 0, 0).committed().len();
            assert_eq!(read, usize::from(commit));
            assert_eq!(client.stable(&kept, 0), client.latest(&kept, 0));
            if made_again {
                assert_eq!(client.stable(&gone, 0), client.latest(&gone, 0));
                assert_eq!(produce(&mut client, 12, &id, next, &gone), 0);
                assert_eq!(client.end_txn(5, &id, next, true).0, 0);
                assert_eq!(client.read_committed(&gone, 0, 0).committed().len(), 1);
            }
        }
    }
}

#[test]
fn l64_a_parked_reader_by_id_is_told_that_the_id_is_gone() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    let mut call = FetchCall::of("t", 0, 0, 0);
    (call.version, call.max_wait_ms, call.min_bytes) = (13, i32::MAX, 1);
    let mut reader = broker.client();
    let request = reader.fetch_request(&call);
    let correlation_id = (*reader).send(13, &request);
    let mut other = broker.client();
    // Time enough for the reader to be parked; if it is not, the answer is the same.
    wait_until("requests behind the reader's", || other.latest("t", 0) == 0);
    delete(&mut client, "t");
    let response = reader.receive::<FetchRequest>(13, correlation_id);
    assert_eq!(response.responses[0].partitions[0].error_code, 100);
}

#[test]
fn lr92_a_record_below_the_log_start_is_not_found_by_its_time() {
    let mut client = Client::connect(Broker::shared(PROGRAM));
    let topic = unique("h");
    client.create_topic(&topic, 1, &[]);
    let start = tally_testkit::batches::now_ms() - 10_000;
    for base in [0, 100] {
        let mut batch = Batch::plain(3);
        batch.base_timestamp = start + base;
        // The first record is the latest of its batch.
        batch.records[0].timestamp_delta = 50;
        assert_eq!(client.produce_one(&topic, 0, batch.encode()).error, 0);
    }
    let found = client.list_offset((7, 0), &topic, 0, start + 20);
    assert_eq!(found, (0, 0, start + 50));
    assert_eq!(client.delete_records(&topic, 0, 1), (0, 1));
    let found = client.list_offset((7, 0), &topic, 0, start + 20);
    assert_eq!(found, (0, 3, start + 150));
}

/// The metadata says what there is: what a kill in the middle of a deletion left behind goes with the next start.
#[test]
fn files_of_topics_that_are_gone_are_removed_at_the_start() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    assert_eq!(client.produce_plain("t", 0, 1).error, 0);
    broker.kill();
    let topics = broker.data().join("topics");
    let orphan = topics.join("00000000-0000-0000-0000-0000000000ff/0");
    std::fs::create_dir_all(&orphan).expect("made");
    std::fs::write(orphan.join("00000000000000000000.log"), b"").expect("made");
    broker.start_again();
    assert!(!orphan.exists());
    assert_eq!(broker.client().latest("t", 0), 1);
    // Without its metadata a broker would know no topics: it does not start, and removes nothing.
    assert!(broker.stop());
    std::fs::remove_file(broker.data().join("meta")).expect("removed");
    let before = std::fs::read_dir(&topics).expect("listed").count();
    let started = std::process::Command::new(PROGRAM)
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "off",
            "--data",
        ])
        .arg(broker.data())
        .output()
        .expect("it runs");
    assert!(!started.status.success());
    let said = String::from_utf8_lossy(&started.stderr);
    assert!(said.contains("the file meta is missing"), "{said}");
    assert_eq!(std::fs::read_dir(&topics).expect("listed").count(), before);
}
