//! FindCoordinator: G01 to G05.

use crate::member::client;
use kafka_protocol::messages::FindCoordinatorRequest;
use tally_testkit::client::text;
use tally_testkit::waiting::wait_until;

#[test]
fn g01_this_broker_is_the_coordinator() {
    let mut client = client();
    client.wait_for_group("g");
    for version in 0..=6 {
        let request = FindCoordinatorRequest::default();
        let (request, is_batch) = if version >= 4 {
            (request.with_coordinator_keys(vec![text("g")]), true)
        } else {
            (request.with_key(text("g")), false)
        };
        let response = client.call(version, &request);
        if is_batch {
            let one = &response.coordinators[0];
            assert_eq!((one.error_code, &*one.key), (0, "g"), "v{version}");
            assert!(one.port > 0 && !one.host.is_empty());
        } else {
            assert_eq!(response.error_code, 0, "v{version}");
            assert!(response.port > 0 && !response.host.is_empty());
        }
    }
}

#[test]
fn g02_each_key_gets_its_answer_in_order() {
    let mut client = client();
    let keys = ["a", "b", "a"];
    let request = FindCoordinatorRequest::default()
        .with_coordinator_keys(keys.iter().map(|key| text(key)).collect());
    let response = client.call(4, &request);
    let answered: Vec<&str> = response.coordinators.iter().map(|one| &*one.key).collect();
    assert_eq!(answered, keys);
}

#[test]
fn g03_key_types() {
    let mut client = client();
    for (version, key_type) in [(5, 2), (6, 2), (4, 7), (4, -1)] {
        let request = FindCoordinatorRequest::default()
            .with_coordinator_keys(vec![text("x")])
            .with_key_type(key_type);
        let response = client.call(version, &request);
        let one = &response.coordinators[0];
        assert_eq!(one.error_code, 42, "v{version} type {key_type}");
        assert_eq!((one.node_id.0, &*one.host, one.port), (-1, "", -1), "GR-4");
    }
    wait_until("a transactional id's coordinator", || {
        client.find_coordinator("x", 1) == 0
    });
}
