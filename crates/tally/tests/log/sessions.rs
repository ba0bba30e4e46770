//! Fetch sessions (KIP-227): L70 to L76.

use crate::corner::Corner;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tally_testkit::client::{FetchCall, topic_name};

/// A request of a session: version 12 unless said otherwise.
#[track_caller]
fn session(corner: &mut Corner, id: i32, epoch: i32, parts: &[(i32, i64)]) -> FetchRequest {
    let topic = corner.topic.clone();
    let mut call = FetchCall::of(&topic, 0, 0, 0);
    call.parts = parts
        .iter()
        .map(|(p, at)| (topic.as_str(), *p, *at))
        .collect();
    let request = corner.fetch_request(&call);
    request.with_session_id(id).with_session_epoch(epoch)
}

/// Partitions in a response, with the number of bytes of each.
fn answered(response: &FetchResponse) -> Vec<(i32, usize)> {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    let bytes = |records: &Option<bytes::Bytes>| records.as_ref().map_or(0, bytes::Bytes::len);
    partitions
        .map(|part| (part.partition_index, bytes(&part.records)))
        .collect()
}

/// A session over partitions 0 and 1 of two empty partitions.
#[track_caller]
fn open(corner: &mut Corner) -> i32 {
    let request = session(corner, 0, 0, &[(0, 0), (1, 0)]);
    let response = corner.call(12, &request);
    assert_eq!(response.error_code, 0);
    assert_eq!(answered(&response).len(), 2, "all partitions at first");
    assert!(response.session_id > 0, "a session is given");
    response.session_id
}

#[test]
fn l70_only_what_changed_is_answered() {
    let mut corner = Corner::with_topic(2, &[]);
    let id = open(&mut corner);
    let request = session(&mut corner, id, 1, &[]);
    let response = corner.call(12, &request);
    assert_eq!((response.error_code, response.session_id), (0, id));
    assert_eq!(answered(&response), [], "nothing changed");
    corner.fill(1);
    let request = session(&mut corner, id, 2, &[]);
    let response = corner.call(12, &request);
    let parts = answered(&response);
    assert_eq!(parts.len(), 1);
    assert!(parts[0].0 == 0 && parts[0].1 > 0);
    // The client has not moved its position: the data comes again.
    let request = session(&mut corner, id, 3, &[]);
    assert_eq!(answered(&corner.call(12, &request)).len(), 1);
    // Now it has.
    let request = session(&mut corner, id, 4, &[(0, 1)]);
    assert_eq!(answered(&corner.call(12, &request)), []);
}

#[test]
fn l71_wrong_ids_epochs_and_versions() {
    let mut corner = Corner::with_topic(2, &[]);
    let id = open(&mut corner);
    let unknown = session(&mut corner, id ^ 0x0f0f, 1, &[]);
    assert_eq!(corner.call(12, &unknown).error_code, 70);
    let ahead = session(&mut corner, id, 2, &[]);
    let response = corner.call(12, &ahead);
    assert_eq!((response.error_code, answered(&response).len()), (71, 0));
    let by_id = session(&mut corner, id, 1, &[]);
    assert_eq!(corner.call(13, &by_id).error_code, 106);
    // A new session in place of the old one.
    let again = session(&mut corner, id, 0, &[(0, 0)]);
    let response = corner.call(12, &again);
    assert_eq!(response.error_code, 0);
    assert!(response.session_id > 0 && response.session_id != id);
    let old = session(&mut corner, id, 1, &[]);
    assert_eq!(corner.call(12, &old).error_code, 70);
}

#[test]
fn l72_a_session_without_partitions_ends() {
    let mut corner = Corner::with_topic(2, &[]);
    let id = open(&mut corner);
    let forgotten = ForgottenTopic::default()
        .with_topic(topic_name(&corner.topic))
        .with_partitions(vec![0, 1]);
    let request = session(&mut corner, id, 1, &[]).with_forgotten_topics_data(vec![forgotten]);
    let response = corner.call(12, &request);
    assert_eq!((response.error_code, response.session_id), (0, 0));
    let request = session(&mut corner, id, 2, &[]);
    assert_eq!(corner.call(12, &request).error_code, 70);
}

#[test]
fn l72_a_forgotten_partition_is_no_longer_answered() {
    let mut corner = Corner::with_topic(2, &[]);
    let id = open(&mut corner);
    let forgotten = ForgottenTopic::default()
        .with_topic(topic_name(&corner.topic))
        .with_partitions(vec![0]);
    let request = session(&mut corner, id, 1, &[]).with_forgotten_topics_data(vec![forgotten]);
    assert_eq!(corner.call(12, &request).error_code, 0);
    corner.fill(1);
    let topic = corner.topic.clone();
    corner.produce_plain(&topic, 1, 1);
    let request = session(&mut corner, id, 2, &[]);
    let parts = answered(&corner.call(12, &request));
    assert_eq!(parts.len(), 1);
    assert_eq!(parts[0].0, 1);
}

#[test]
fn l75_an_error_is_told_once_it_is_over() {
    let mut corner = Corner::with_topic(2, &[]);
    let request = session(&mut corner, 0, 0, &[(0, 7), (1, 0)]);
    let response = corner.call(12, &request);
    assert_eq!(response.responses[0].partitions[0].error_code, 1);
    let id = response.session_id;
    assert!(id > 0, "a session is given all the same");
    let request = session(&mut corner, id, 1, &[(0, 0)]);
    let response = corner.call(12, &request);
    let parts = answered(&response);
    assert_eq!(parts, [(0, 0)], "the recovery is reported");
    assert_eq!(response.responses[0].partitions[0].error_code, 0);
}

#[test]
fn l76_a_session_is_not_tied_to_a_connection() {
    let mut corner = Corner::with_topic(2, &[]);
    let id = open(&mut corner);
    corner.fill(1);
    let request = session(&mut corner, id, 1, &[]);
    let mut other = corner.another_client();
    let response = other.call(12, &request);
    assert_eq!(response.error_code, 0);
    assert_eq!(answered(&response).len(), 1);
}

#[test]
fn lr120_epoch_minus_one_closes_the_session() {
    let mut corner = Corner::with_topic(2, &[]);
    let id = open(&mut corner);
    let request = session(&mut corner, id, -1, &[(0, 0)]);
    let response = corner.call(12, &request);
    assert_eq!((response.error_code, response.session_id), (0, 0));
    assert_eq!(answered(&response).len(), 1, "a full answer");
    let request = session(&mut corner, id, 1, &[]);
    assert_eq!(corner.call(12, &request).error_code, 70);
}

#[test]
fn l70_a_session_that_never_was_is_told_so() {
    let mut corner = Corner::with_topic(2, &[]);
    let unknown = session(&mut corner, 77, 1, &[]);
    let response = corner.call(12, &unknown);
    assert_eq!((response.error_code, response.session_id), (70, 0));
    // The client goes on with a full fetch.
    assert!(open(&mut corner) > 0);
}
