//! Fetch sessions (KIP-227) beyond one request after another: order, slots, requests at the same time, topics that come
//! and go (L57, L71, L73, L75, L76, LR-121, LR-124, LR-128).

use crate::corner::{Corner, PROGRAM};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchTopic, ForgottenTopic};
use kafka_protocol::messages::{DeleteTopicsRequest, FetchRequest, FetchResponse};
use tally_testkit::batches::Batch;
use tally_testkit::broker::{Broker, is_reference};
use tally_testkit::client::{Client, FetchCall, topic_name, unique};
use tally_testkit::waiting::wait_until;
use uuid::Uuid;

/// A request of a session over these partitions (topic, partition, offset).
#[track_caller]
fn request(
    client: &mut Client,
    version: i16,
    (id, epoch): (i32, i32),
    parts: &[(&str, i32, i64)],
) -> FetchRequest {
    let mut call = FetchCall::of("", 0, 0, 0);
    call.version = version;
    call.parts = parts.to_vec();
    let request = client.fetch_request(&call);
    request.with_session_id(id).with_session_epoch(epoch)
}

/// Partition, error and number of bytes of all that is answered.
fn answered(response: &FetchResponse) -> Vec<(i32, i16, usize)> {
    let bytes = |records: &Option<Bytes>| records.as_ref().map_or(0, Bytes::len);
    response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|part| (part.partition_index, part.error_code, bytes(&part.records)))
        .collect()
}

/// Which partitions are answered, in order.
fn indexes(response: &FetchResponse) -> Vec<i32> {
    answered(response)
        .iter()
        .map(|(index, ..)| *index)
        .collect()
}

/// A session over partitions 0 and 1 of the corner's topic.
#[track_caller]
fn open(corner: &mut Corner, version: i16) -> i32 {
    let topic = corner.topic.clone();
    let parts = [(topic.as_str(), 0, 0), (topic.as_str(), 1, 0)];
    let full = request(corner, version, (0, 0), &parts);
    let response = corner.call(version, &full);
    assert_eq!(response.error_code, 0);
    assert_eq!(indexes(&response), [0, 1]);
    assert!(response.session_id > 0, "there is room");
    response.session_id
}

/// An incremental request that changes nothing.
#[track_caller]
fn next(client: &mut Client, version: i16, id: i32, epoch: i32) -> FetchResponse {
    let incremental = request(client, version, (id, epoch), &[]);
    client.call(version, &incremental)
}

#[test]
fn l57_whoever_got_records_is_read_last() {
    let mut corner = Corner::with_topic(2, &[]);
    let topic = corner.topic.clone();
    let mut batch = Batch::plain(1);
    batch.records[0].value = Some(Bytes::from(vec![b'x'; 1000]));
    for partition in [0, 1] {
        corner.produce_one(&topic, partition, batch.encode());
    }
    let narrow = |request: FetchRequest| request.with_max_bytes(1000);
    let parts = [(topic.as_str(), 0, 0), (topic.as_str(), 1, 0)];
    let full = narrow(request(&mut corner, 12, (0, 0), &parts));
    let response = corner.call(12, &full);
    let id = response.session_id;
    assert!(answered(&response)[0].2 > 0 && answered(&response)[1].2 == 0);
    for (epoch, first) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        let incremental = narrow(request(&mut corner, 12, (id, epoch), &[]));
        let response = corner.call(12, &incremental);
        assert_eq!(indexes(&response), [first], "at epoch {epoch}");
    }
}

#[test]
fn l70_every_version_with_sessions() {
    for version in 7..=18 {
        let mut corner = Corner::with_topic(2, &[]);
        let topic = corner.topic.clone();
        let id = open(&mut corner, version);
        let response = next(&mut corner, version, id, 1);
        assert_eq!((response.error_code, response.session_id), (0, id));
        assert!(response.responses.is_empty());
        corner.produce_plain(&topic, 1, 1);
        let response = next(&mut corner, version, id, 2);
        assert_eq!(indexes(&response), [1], "version {version}");
        let read = corner.fetched(version, &response, &topic, 1);
        assert_eq!((read.data_offsets(), read.high_watermark), (vec![0], 1));
    }
}

#[test]
fn l71_after_every_error_the_session_or_a_new_one_goes_on() {
    let mut corner = Corner::with_topic(2, &[]);
    let topic = corner.topic.clone();
    let id = open(&mut corner, 13);
    let wrong_epoch = next(&mut corner, 13, id, 7);
    assert_eq!((wrong_epoch.error_code, wrong_epoch.session_id), (71, 0));
    let by_name = next(&mut corner, 12, id, 1);
    assert_eq!((by_name.error_code, by_name.session_id), (106, 0));
    assert!(by_name.responses.is_empty());
    let unharmed = next(&mut corner, 13, id, 1);
    assert_eq!((unharmed.error_code, unharmed.session_id), (0, id));
    let again = request(&mut corner, 12, (id, 0), &[(&topic, 0, 0)]);
    let response = corner.call(12, &again);
    assert_eq!(response.error_code, 0);
    let new = response.session_id;
    assert!(new > 0 && new != id);
    assert_eq!(next(&mut corner, 13, id, 2).error_code, 70);
    assert_eq!(next(&mut corner, 12, new, 1).error_code, 0);
    assert_eq!(next(&mut corner, 12, 0, 1).error_code, 70);
}

#[test]
fn l73_without_a_slot_there_is_no_session() {
    if is_reference() {
        // Apache Kafka divides its slots among several caches: two slots are none in each.
        return;
    }
    let broker = Broker::start(PROGRAM, &["max.incremental.fetch.session.cache.slots=2"]);
    let mut corner = Corner::at(broker.address(), 2, &[]);
    let first = open(&mut corner, 12);
    let second = open(&mut corner, 12);
    let topic = corner.topic.clone();
    let full = request(&mut corner, 12, (0, 0), &[(&topic, 0, 0), (&topic, 1, 0)]);
    for _ in 0..2 {
        let response = corner.call(12, &full);
        assert_eq!((response.error_code, response.session_id), (0, 0));
        assert_eq!(indexes(&response), [0, 1], "a full answer");
    }
    assert_eq!(next(&mut corner, 12, first, 1).error_code, 0);
    assert_eq!(next(&mut corner, 12, second, 1).error_code, 0);
    // A slot that is given back is free at once.
    let close = request(&mut corner, 12, (first, -1), &[]);
    assert_eq!(corner.call(12, &close).error_code, 0);
    open(&mut corner, 12);
}

#[test]
fn l75_a_topic_that_comes_later_is_found() {
    let mut corner = Corner::new();
    let later = unique("later");
    let topic = corner.topic.clone();
    let full = request(&mut corner, 12, (0, 0), &[(&topic, 0, 0), (&later, 0, 0)]);
    let response = corner.call(12, &full);
    assert_eq!(answered(&response), [(0, 0, 0), (0, 3, 0)]);
    let id = response.session_id;
    let response = next(&mut corner, 12, id, 1);
    assert_eq!(answered(&response), [(0, 3, 0)], "told each time");
    corner.create_topic(&later, 1, &[]);
    let response = next(&mut corner, 12, id, 2);
    assert_eq!(answered(&response), [(0, 0, 0)], "and when it is over");
    assert_eq!(&*response.responses[0].topic.0, &later);
    assert_eq!(answered(&next(&mut corner, 12, id, 3)), []);
}

#[test]
fn l75_a_topic_that_is_deleted_is_told_of() {
    for (version, error) in [(12, 3), (13, 100)] {
        let mut corner = Corner::with_topic(2, &[]);
        let id = open(&mut corner, version);
        let delete = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic_name(&corner.topic)])
            .with_timeout_ms(10_000);
        assert_eq!(corner.call(4, &delete).responses[0].error_code, 0);
        // Apache Kafka remembers the name that the id once had, and says that the name is unknown.
        let error = if corner.is_kafka { 3 } else { error };
        // It also needs a moment until nobody knows the topic any more.
        let mut epoch = 0;
        wait_until("both partitions are errors", || {
            epoch += 1;
            let response = next(&mut corner, version, id, epoch);
            let codes = answered(&response);
            codes.iter().map(|(_, code, _)| *code).eq([error, error])
        });
    }
}

#[test]
fn lr128_an_unknown_id_stays_in_the_session() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let unknown = Uuid::from_u128(0x1234_5678_9abc);
    let mut full = request(&mut corner, 13, (0, 0), &[(&topic, 0, 0)]);
    let partitions = full.topics[0].partitions.clone();
    let stranger = FetchTopic::default()
        .with_topic_id(unknown)
        .with_partitions(partitions);
    full.topics.push(stranger);
    let response = corner.call(13, &full);
    assert_eq!(answered(&response), [(0, 0, 0), (0, 100, 0)]);
    let id = response.session_id;
    for epoch in [1, 2] {
        let response = next(&mut corner, 13, id, epoch);
        assert_eq!(answered(&response), [(0, 100, 0)]);
        assert_eq!(response.responses[0].topic_id, unknown);
    }
    let forgotten = ForgottenTopic::default()
        .with_topic_id(unknown)
        .with_partitions(vec![0]);
    let forget = request(&mut corner, 13, (id, 3), &[]).with_forgotten_topics_data(vec![forgotten]);
    assert_eq!(answered(&corner.call(13, &forget)), []);
}

#[test]
fn l76_a_session_outlives_its_connection() {
    let mut corner = Corner::with_topic(2, &[]);
    let topic = corner.topic.clone();
    let mut other = corner.another_client();
    let full = request(&mut other, 12, (0, 0), &[(&topic, 0, 0), (&topic, 1, 0)]);
    let id = other.call(12, &full).session_id;
    drop(other);
    let response = next(&mut corner, 12, id, 1);
    assert_eq!((response.error_code, response.session_id), (0, id));
}

#[test]
fn lr121_partitions_join_a_session() {
    let mut corner = Corner::with_topic(3, &[]);
    let topic = corner.topic.clone();
    let second = corner.another_topic(1, &[]);
    let id = open(&mut corner, 12);
    let more = [(topic.as_str(), 2, 0), (second.as_str(), 0, 0)];
    let more = request(&mut corner, 12, (id, 1), &more);
    let response = corner.call(12, &more);
    assert_eq!(
        answered(&response),
        [(2, 0, 0), (0, 0, 0)],
        "new ones are news"
    );
    corner.produce_plain(&second, 0, 1);
    let response = next(&mut corner, 12, id, 2);
    assert_eq!(response.responses.len(), 1);
    assert_eq!(&*response.responses[0].topic.0, &second);
}

#[test]
fn lr122_a_log_that_begins_later_is_news() {
    let mut corner = Corner::with_topic(2, &[]);
    let topic = corner.topic.clone();
    corner.fill(3);
    let id = open(&mut corner, 12);
    let ahead = request(&mut corner, 12, (id, 1), &[(&topic, 0, 3)]);
    assert_eq!(answered(&corner.call(12, &ahead)), []);
    assert_eq!(corner.delete_records(&topic, 0, 2), (0, 2));
    let response = next(&mut corner, 12, id, 2);
    assert_eq!(answered(&response), [(0, 0, 0)]);
    assert_eq!(response.responses[0].partitions[0].log_start_offset, 2);
}

#[test]
fn lr122_a_waiting_request_of_a_session_is_woken() {
    let mut corner = Corner::with_topic(2, &[]);
    let topic = corner.topic.clone();
    let id = open(&mut corner, 12);
    let mut reader = corner.another_client();
    let waiting = request(&mut reader, 12, (id, 1), &[])
        .with_max_wait_ms(20_000)
        .with_min_bytes(1);
    let correlation_id = (*reader).send(12, &waiting);
    corner.produce_plain(&topic, 1, 1);
    let response = reader.receive::<FetchRequest>(12, correlation_id);
    assert_eq!((response.session_id, indexes(&response)), (id, vec![1]));
}

#[test]
fn lr124_a_waiting_request_that_was_overtaken_is_refused() {
    let mut corner = Corner::with_topic(2, &[]);
    let topic = corner.topic.clone();
    let id = open(&mut corner, 12);
    let mut reader = corner.another_client();
    let waiting = request(&mut reader, 12, (id, 1), &[])
        .with_max_wait_ms(20_000)
        .with_min_bytes(1);
    let correlation_id = (*reader).send(12, &waiting);
    // Refused until the other one waits.
    wait_until("the next request is accepted", || {
        let response = next(&mut corner, 12, id, 2);
        assert!([0, 71].contains(&response.error_code));
        response.error_code == 0
    });
    corner.produce_plain(&topic, 0, 1);
    let response = reader.receive::<FetchRequest>(12, correlation_id);
    assert_eq!((response.error_code, response.session_id), (71, id));
    assert!(response.responses.is_empty());
    let response = next(&mut corner, 12, id, 3);
    assert_eq!(indexes(&response), [0], "the session goes on");
}
