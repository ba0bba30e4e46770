//! ListOffsets and leader epochs: L45, L46, L50 to L52.

use crate::corner::{Corner, PROGRAM};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, OffsetForLeaderEpochRequest};
use tally_testkit::batches::{Batch, Codec, now_ms};
use tally_testkit::broker::{Broker, offset_file};
use tally_testkit::client::{Client, FetchCall, topic_name};

#[test]
fn l50_the_ends_of_a_partition() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    for isolation in [0, 1] {
        for (timestamp, expected) in [(-1, (0, 0, -1)), (-2, (0, 0, -1)), (-3, (0, -1, -1))] {
            let got = corner.list_offset((7, isolation), &topic, 0, timestamp);
            assert_eq!(got, expected, "empty, {timestamp}");
        }
    }
    let mut batch = Batch::plain(3);
    let start = now_ms();
    batch.base_timestamp = start;
    batch.records[1].timestamp_delta = 10;
    batch.records[2].timestamp_delta = 5;
    assert_eq!(corner.code(&batch), 0);
    for isolation in [0, 1] {
        for (timestamp, expected) in [(-1, (0, 3, -1)), (-2, (0, 0, -1)), (-3, (0, 1, start + 10))]
        {
            let got = corner.list_offset((7, isolation), &topic, 0, timestamp);
            assert_eq!(got, expected, "filled, {timestamp}");
        }
    }
    for version in 1..=10 {
        assert_eq!(
            corner.list_offset((version, 0), &topic, 0, -1).1,
            3,
            "v{version}"
        );
    }
    assert_eq!(corner.list_offset((8, 0), &topic, 0, -4), (0, 0, -1));
    assert_eq!(corner.list_offset((9, 0), &topic, 0, -5), (0, -1, -1));
}

#[test]
fn l51_by_time() {
    for codec in [Codec::None, Codec::Gzip, Codec::Zstd] {
        let mut corner = Corner::new();
        let start = now_ms() - 1000;
        // Offsets 0..2 at 0, 10, 20; 3..5 at 100, 110, 120.
        for base in [0, 100] {
            let mut batch = Batch::plain(3).compressed(codec);
            batch.base_timestamp = start + base;
            for (nth, record) in (0..).zip(&mut batch.records) {
                record.timestamp_delta = nth * 10;
            }
            assert_eq!(corner.code(&batch), 0);
        }
        let topic = corner.topic.clone();
        for (after, offset, found) in [
            (-50, 0, 0),
            (0, 0, 0),
            (5, 1, 10),
            (20, 2, 20),
            (21, 3, 100),
            (110, 4, 110),
            (120, 5, 120),
        ] {
            let got = corner.list_offset((7, 0), &topic, 0, start + after);
            assert_eq!(got, (0, offset, start + found), "{codec:?} {after}");
        }
        let got = corner.list_offset((7, 0), &topic, 0, start + 121);
        assert_eq!(got, (0, -1, -1), "{codec:?} after the last");
    }
}

#[test]
fn l51_by_time_across_segments() {
    let configs = [
        ("internal.segment.bytes", "300"),
        ("index.interval.bytes", "1"),
    ];
    let mut corner = Corner::with_topic(1, &configs);
    let topic = corner.topic.clone();
    let start = now_ms() - 100_000;
    // Ten batches of two records, 1000 ms apart, in about as many segments; the fifth comes out of order, late.
    for nth in 0..10 {
        let mut batch = Batch::plain(2).compressed(Codec::Gzip);
        batch.base_timestamp = start + if nth == 4 { 0 } else { nth * 1000 };
        batch.records[1].timestamp_delta = 10;
        assert_eq!(corner.code(&batch), 0);
    }
    for nth in (0..10).filter(|nth| *nth != 4) {
        let time = start + nth * 1000;
        for (after, offset, found) in [(-5, 0, 0), (0, 0, 0), (1, 1, 10), (10, 1, 10)] {
            let got = corner.list_offset((7, 0), &topic, 0, time + after);
            assert_eq!(got, (0, nth * 2 + offset, time + found), "{nth} {after}");
        }
    }
    // What would be the fifth's place belongs to the sixth.
    let got = corner.list_offset((7, 0), &topic, 0, start + 3500);
    assert_eq!(got, (0, 10, start + 5000));
    assert_eq!(
        corner.list_offset((7, 0), &topic, 0, start + 9011),
        (0, -1, -1)
    );
    assert_eq!(
        corner.list_offset((7, 0), &topic, 0, -3),
        (0, 19, start + 9010)
    );
}

#[test]
fn l52_special_timestamps_below_their_version() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    for (version, timestamp) in [(6, -3), (7, -4), (8, -5), (10, -6), (7, -7), (1, -3)] {
        let got = corner.list_offset((version, 0), &topic, 0, timestamp);
        assert_eq!(got.0, 35, "v{version} {timestamp}");
    }
    let partition = |_| {
        ListOffsetsPartition::default()
            .with_partition_index(0)
            .with_current_leader_epoch(-1)
            .with_timestamp(-1)
    };
    let twice = ListOffsetsTopic::default()
        .with_name(topic_name(&topic))
        .with_partitions((0..2).map(partition).collect());
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![twice]);
    let response = corner.call(7, &request);
    for part in &response.topics[0].partitions {
        assert_eq!(part.error_code, 42);
    }
    assert_eq!(corner.list_offset((7, 0), "nope", 0, -1).0, 3);
    assert_eq!(corner.list_offset((7, 0), &topic, 1, -1).0, 3);
}

/// OffsetForLeaderEpoch v4: error, epoch, end offset.
#[track_caller]
fn epoch_end(client: &mut Client, topic: &str, current: i32, asked: i32) -> (i16, i32, i64) {
    let partition = OffsetForLeaderPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(current)
        .with_leader_epoch(asked);
    let topic = OffsetForLeaderTopic::default()
        .with_topic(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = OffsetForLeaderEpochRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic]);
    let response = client.call(4, &request);
    let part = &response.topics[0].partitions[0];
    (part.error_code, part.leader_epoch, part.end_offset)
}

#[test]
fn l45_l46_leader_epochs_over_a_restart() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let topic = corner.topic.clone();
    corner.fill(3);
    let first = corner.topic(&topic).partitions[0].leader_epoch;
    assert_eq!(epoch_end(&mut corner, &topic, first, first), (0, first, 3));
    if corner.is_kafka {
        return; // Whether it raises the epoch here is its own business (LR-80).
    }
    assert!(broker.stop());
    broker.start_again();
    corner.client = broker.client();
    let second = corner.topic(&topic).partitions[0].leader_epoch;
    assert!(second > first, "{second} after {first}");
    corner.fill(2);
    for (current, asked, expected) in [
        (-1, second, (0, second, 5)),
        (second, second, (0, second, 5)),
        (second, first, (0, first, 3)),
        (first, first, (74, -1, -1)),
        (second + 1, first, (75, -1, -1)),
        (second, -1, (0, -1, -1)),
        (second, second + 1, (0, -1, -1)),
    ] {
        let got = epoch_end(&mut corner, &topic, current, asked);
        assert_eq!(got, expected, "current {current} asked {asked}");
    }
    let mut with_epoch = |epoch: i32| {
        let mut request = corner.fetch_request(&FetchCall::of(&topic, 0, 0, 0));
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = corner.call(12, &request);
        corner.fetched(12, &response, &topic, 0).error
    };
    assert_eq!(with_epoch(first), 74);
    assert_eq!(with_epoch(second + 1), 75);
    assert_eq!(with_epoch(second), 0);
}

#[test]
fn l46_the_ends_of_leader_epochs() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let topic = corner.topic.clone();
    if corner.is_kafka {
        return; // Which epochs there are is its own business (LR-80).
    }
    let mut epochs = Vec::new();
    // Records in the first, third and fourth epoch, none in the second: 0..3, -, 3..5, 5..6.
    for count in [3, 0, 2, 1] {
        epochs.push(corner.topic(&topic).partitions[0].leader_epoch);
        if count > 0 {
            corner.fill(count);
        }
        broker.kill_and_start();
        corner.reconnect(&broker);
    }
    let last = corner.topic(&topic).partitions[0].leader_epoch;
    let [first, second, third, fourth] = epochs[..] else {
        panic!("four epochs");
    };
    for (asked, expected) in [
        (last, (0, last, 6)),
        (fourth, (0, fourth, 6)),
        (third, (0, third, 5)),
        (second, (0, first, 3)),
        (first, (0, first, 3)),
        (first - 1, (0, first - 1, 0)),
        (last + 1, (0, -1, -1)),
        (-1, (0, -1, -1)),
    ] {
        // A topic's first epoch may be the lowest there is.
        if asked >= -1 {
            let got = epoch_end(&mut corner, &topic, -1, asked);
            let expected = if asked == -1 { (0, -1, -1) } else { expected };
            assert_eq!(got, expected, "asked {asked}");
        }
    }
    assert_eq!(epoch_end(&mut corner, "nope", -1, 0).0, 3);
    // What is deleted has no epochs: the one that covers the start begins there.
    assert_eq!(corner.delete_records(&topic, 0, 4), (0, 4));
    for (asked, expected) in [(first, (0, first, 4)), (third, (0, third, 5))] {
        assert_eq!(epoch_end(&mut corner, &topic, -1, asked), expected);
    }
}

#[test]
fn l47_a_reader_of_records_that_were_cut_is_told_where_it_diverges() {
    // With a journal what is torn off is put back.
    let mut broker = Broker::start(PROGRAM, &["tally.durability=os"]);
    let mut corner = Corner::at(broker.address(), 1, &[]);
    let topic = corner.topic.clone();
    corner.fill(3);
    corner.fill(3);
    let read = corner.topic(&topic).partitions[0].leader_epoch;
    let log = offset_file(&broker.partition(&mut corner, &topic, 0), 0, "log");
    broker.kill();
    let size = std::fs::metadata(&log).expect("the log").len();
    let file = std::fs::OpenOptions::new().write(true).open(&log);
    file.expect("the log").set_len(size - 1).expect("cut");
    broker.start_again();
    corner.reconnect(&broker);
    let now = corner.topic(&topic).partitions[0].leader_epoch;
    assert!(now > read, "LR-80: at least after a start that cut records");
    assert_eq!(corner.fill(2), 3);
    // The reader has seen 0..6 of the epoch before, of which 3..6 are other records now.
    for at in [4, 5] {
        let mut request = corner.fetch_request(&FetchCall::of(&topic, 0, at, 0));
        request.topics[0].partitions[0].last_fetched_epoch = read;
        let response = corner.call(12, &request);
        let part = &response.responses[0].partitions[0];
        assert_eq!(part.error_code, 0, "at {at}");
        let diverging = &part.diverging_epoch;
        assert_eq!(
            (diverging.epoch, diverging.end_offset),
            (read, 3),
            "at {at}"
        );
        assert!(
            part.records
                .as_ref()
                .is_none_or(|records| records.is_empty())
        );
    }
    let mut request = corner.fetch_request(&FetchCall::of(&topic, 0, 3, 0));
    request.topics[0].partitions[0].last_fetched_epoch = read;
    let response = corner.call(12, &request);
    let fetched = corner.fetched(12, &response, &topic, 0);
    assert_eq!(
        fetched.data_offsets(),
        [3, 4],
        "up to there it is the same log"
    );
}

#[test]
fn l47_a_reader_of_another_history_is_told_where_it_diverges() {
    let mut corner = Corner::new();
    corner.fill(3);
    let topic = corner.topic.clone();
    let epoch = corner.topic(&topic).partitions[0].leader_epoch;
    let mut request = corner.fetch_request(&FetchCall::of(&topic, 0, 3, 0));
    request.topics[0].partitions[0].last_fetched_epoch = epoch;
    let response = corner.call(12, &request);
    let part = &response.responses[0].partitions[0];
    assert_eq!(part.error_code, 0);
    assert_eq!(part.diverging_epoch.end_offset, -1, "the same history");
    // A position behind the end of that epoch: the records were lost here.
    request.topics[0].partitions[0].fetch_offset = 3;
    request.topics[0].partitions[0].last_fetched_epoch = epoch + 1;
    let response = corner.call(12, &request);
    let part = &response.responses[0].partitions[0];
    assert_eq!(part.error_code, 1, "an epoch that never was");
}
