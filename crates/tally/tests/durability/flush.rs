//! The flush settings of topics at the wire, in `os` (L16, LR-55): that a sync happens is seen by a fault that sits before it.
//! What a power cut leaves is tested with shards on a simulated disk (`flush.rs` of tally-shard).

use crate::PROGRAM;
use crate::transactions::{begin, producer};
use kafka_protocol::messages::{DeleteTopicsRequest, ProduceRequest};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, ProduceCall, topic_name};
use tally_testkit::waiting::wait_until;

/// A broker in `os` with one fault, which sleeps yet.
fn with_fault(settings: &[&str], fault: &str) -> Broker {
    let mut broker = Broker::start(PROGRAM, settings);
    broker.set_faults(&[fault]);
    broker.kill_and_start();
    broker
}

/// Sends a plain batch of one record and does not wait for the answer.
fn send(client: &mut Client, topic: &str) -> i32 {
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: None,
        parts: vec![(topic, 0, Some(Batch::plain(1).encode()))],
    };
    let request = client.produce_request(&call);
    (*client).send(9, &request)
}

/// The answer waits for the sync, nobody else does, and readers see nothing before.
#[test]
fn l16_with_flush_messages_1_the_answer_waits_for_the_sync() {
    let broker = with_fault(&[], "flush=hold@1");
    let mut client = broker.client();
    client.create_topic("synced", 1, &[("flush.messages", "1")]);
    client.create_topic("other", 1, &[]);
    broker.wake(0);
    let mut waiting = broker.client();
    let correlation_id = send(&mut waiting, "synced");
    broker.wait_until_held(0);
    assert_eq!(client.produce_plain("other", 0, 1).base_offset, 0);
    let one = producer(&mut client, "x");
    begin(&mut client, "x", one, "other", 0);
    assert_eq!(client.end_txn(3, "x", one, true).0, 0, "nobody else waits");
    assert_eq!(client.latest("synced", 0), 0, "D-12");
    broker.calm(0);
    let response = waiting.receive::<ProduceRequest>(9, correlation_id);
    let answer = &response.responses[0].partition_responses[0];
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    assert_eq!(client.latest("synced", 0), 1);
}

/// The same for all topics, the coordinators' among them, where the broker says so.
#[test]
fn l16_with_log_flush_interval_messages_1_everything_is_synced_and_works() {
    let mut broker = Broker::start(PROGRAM, &["log.flush.interval.messages=1"]);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    for round in 0..3 {
        let one = producer(&mut client, "x");
        begin(&mut client, "x", one, "t", 0);
        assert_eq!(client.end_txn(3, "x", one, true).0, 0);
        assert_eq!(
            client.read_committed("t", 0, 0).data_offsets().len(),
            round + 1
        );
    }
    broker.kill_and_start();
    let read = broker.client().read_committed("t", 0, 0);
    assert_eq!(read.data_offsets().len(), 3);
    assert!(broker.stop());
}

#[test]
fn lr55_flush_messages_and_flush_ms_have_logs_synced() {
    for config in [("flush.messages", "5"), ("flush.ms", "50")] {
        let mut broker = with_fault(&[], "flush=kill@1");
        let mut client = broker.client();
        client.create_topic("t", 1, &[config]);
        broker.wake(0);
        for offset in 0..5 {
            let call = ProduceCall {
                version: 9,
                acks: 1,
                transactional_id: None,
                parts: vec![("t", 0, Some(Batch::plain(1).encode()))],
            };
            if offset == 4 || config.0 == "flush.ms" {
                // The broker may be gone before it answers.
                let request = client.produce_request(&call);
                (*client).send(9, &request);
                break;
            }
            assert_eq!(client.produce(&call)[0].base_offset, offset);
        }
        broker.wait_for_death();
    }
}

/// A topic that is deleted while its log is being synced is no failure of the disk.
#[test]
fn lr55_a_topic_may_go_while_it_is_synced() {
    let broker = with_fault(&[], "flush=hold@1");
    let mut client = broker.client();
    client.create_topic("synced", 1, &[("flush.messages", "1")]);
    client.create_topic("other", 1, &[("flush.messages", "1")]);
    broker.wake(0);
    let mut waiting = broker.client();
    send(&mut waiting, "synced");
    broker.wait_until_held(0);
    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name("synced")])
        .with_timeout_ms(30_000);
    let deleted = client.call(3, &delete);
    assert_eq!(deleted.responses[0].error_code, 0);
    broker.calm(0);
    assert_eq!(client.produce_plain("other", 0, 1).base_offset, 0);
    wait_until("the topic is gone", || {
        client.topic("synced").error_code == 3
    });
}
