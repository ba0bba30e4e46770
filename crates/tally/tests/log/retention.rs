//! Old records go: LR-60 to LR-64 over the wire, with producers and transactions whose records have gone.

use crate::corner::{Corner, PROGRAM};
use kafka_protocol::messages::InitProducerIdRequest;
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, FetchCall, Producer, transactional_id};
use tally_testkit::waiting::wait_until;

const OUT_OF_RANGE: i16 = 1;
/// Each record set of these tests gets a segment of its own.
const SMALL: (&str, &str) = ("internal.segment.bytes", "200");

/// A broker that looks often; one shard, so that a pass over all partitions has an order.
#[track_caller]
fn broker() -> Broker {
    Broker::start(
        PROGRAM,
        &["log.retention.check.interval.ms=20", "tally.shards=1"],
    )
}

#[track_caller]
fn earliest(client: &mut Client, topic: &str) -> i64 {
    let (error, offset, _) = client.list_offset((7, 0), topic, 0, -2);
    assert_eq!(error, 0);
    offset
}

#[track_caller]
fn wait_until_empty(client: &mut Client, topic: &str) {
    wait_until("nothing is left", || {
        earliest(client, topic) == client.latest(topic, 0)
    });
}

#[test]
fn l26_lr61_old_records_go_and_an_idle_partition_becomes_empty() {
    let broker = broker();
    let mut corner = Corner::at(broker.address(), 1, &[("retention.ms", "50")]);
    let topic = corner.topic.clone();
    for base in [0, 3] {
        assert_eq!(corner.fill(3), base);
        wait_until_empty(&mut corner, &topic);
        assert_eq!(corner.end(), base + 3);
    }
    let read = corner.read_uncommitted(&topic, 0, 5);
    assert_eq!((read.error, read.log_start_offset), (OUT_OF_RANGE, -1));
    let read = corner.read_uncommitted(&topic, 0, 6);
    assert_eq!((read.error, read.log_start_offset), (0, 6));
    let (error, at_start) = corner.delete_records(&topic, 0, 2);
    assert_eq!((error, at_start), (0, 6), "LR-64: it only grows");
}

#[test]
fn l27_by_size_the_newest_stay() {
    let broker = broker();
    let configs = [SMALL, ("retention.bytes", "1000")];
    let mut corner = Corner::at(broker.address(), 1, &configs);
    let topic = corner.topic.clone();
    let bytes = i64::try_from(Batch::plain(3).encode().len()).expect("small");
    assert!(bytes > 100 && bytes < 200, "a segment each");
    for _ in 0..40 {
        corner.fill(3);
    }
    let kept = (1000 + bytes - 1) / bytes;
    wait_until("old segments have gone", || {
        earliest(&mut corner, &topic) == 120 - 3 * kept
    });
    assert_eq!(
        corner.offsets_from(0, 120 - 3 * kept),
        (120 - 3 * kept..120).collect::<Vec<_>>()
    );
}

#[test]
fn compacted_topics_and_topics_without_limits_keep_their_records() {
    let broker = broker();
    let compacted = [SMALL, ("cleanup.policy", "compact"), ("retention.ms", "0")];
    let mut corner = Corner::at(broker.address(), 1, &compacted);
    let unlimited = corner.another_topic(1, &[SMALL, ("retention.ms", "-1")]);
    let short = corner.another_topic(1, &[SMALL, ("retention.ms", "0")]);
    for topic in [corner.topic.clone(), unlimited.clone()] {
        for _ in 0..3 {
            assert_eq!(corner.produce_plain(&topic, 0, 3).error, 0);
        }
    }
    // Between the second time and the third there is a whole pass.
    for _ in 0..3 {
        assert_eq!(corner.produce_plain(&short, 0, 3).error, 0);
        wait_until_empty(&mut corner, &short);
    }
    for topic in [corner.topic.clone(), unlimited] {
        assert_eq!(earliest(&mut corner, &topic), 0);
    }
}

#[test]
fn a_waiting_fetch_is_answered_when_its_records_go() {
    let broker = broker();
    let mut corner = Corner::at(broker.address(), 1, &[("retention.ms", "300")]);
    let topic = corner.topic.clone();
    corner.fill(3);
    let call = FetchCall {
        max_wait_ms: 600_000,
        min_bytes: 1_000_000,
        ..FetchCall::of(&topic, 0, 0, 0)
    };
    let read = corner.fetch(&call).remove(0);
    assert_eq!((read.error, read.batches.len()), (OUT_OF_RANGE, 0));
}

#[test]
fn p57_d10_a_producer_goes_on_when_its_records_have_gone_and_the_broker_was_killed() {
    let mut broker = broker();
    let mut corner = Corner::at(broker.address(), 1, &[SMALL, ("retention.ms", "50")]);
    let topic = corner.topic.clone();
    let Producer { id, epoch } = corner.idempotent_producer();
    for sequence in 0..3 {
        assert_eq!(corner.code(&Batch::idempotent(id, epoch, sequence, 1)), 0);
    }
    wait_until_empty(&mut corner, &topic);
    drop(corner);
    broker.kill_and_start();
    let mut client = broker.client();
    assert_eq!(earliest(&mut client, &topic), 3);
    let mut send = |sequence| {
        let records = Batch::idempotent(id, epoch, sequence, 1).encode();
        let produced = client.produce_one(&topic, 0, records);
        (produced.error, produced.base_offset)
    };
    assert_eq!(send(1), (0, 1), "a duplicate");
    assert_eq!(send(5).0, 45, "a gap");
    assert_eq!(send(3), (0, 3));
}

#[test]
fn c2_a_transaction_whose_records_have_gone_ends_as_usual() {
    for commit in [true, false] {
        let mut broker = broker();
        let mut corner = Corner::at(broker.address(), 1, &[("retention.ms", "50")]);
        let topic = corner.topic.clone();
        let id = topic.clone();
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(&id)))
            .with_transaction_timeout_ms(600_000);
        let (error, producer) = corner.init_producer_id(4, &request);
        assert_eq!(error, 0);
        assert_eq!(corner.add_partitions(3, &id, producer, &[(&topic, 0)]), [0]);
        let call = tally_testkit::client::ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: Some(&id),
            parts: vec![(
                &topic,
                0,
                Some(Batch::transactional(producer.id, producer.epoch, 0, 2).encode()),
            )],
        };
        assert_eq!(corner.produce(&call)[0].error, 0);
        wait_until_empty(&mut corner, &topic);
        assert_eq!(corner.stable(&topic, 0), 2, "at the log start");
        drop(corner);
        broker.kill_and_start();
        let mut client = broker.client();
        assert_eq!(client.stable(&topic, 0), 2);
        assert_eq!(client.end_txn(3, &id, producer, commit).0, 0);
        // The marker stands at 2, until it goes too.
        assert_eq!(client.stable(&topic, 0), 3);
        assert_eq!(client.latest(&topic, 0), 3);
    }
}
