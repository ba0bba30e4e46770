//! FindCoordinator: G01 to G03, G05, and what a restart shows of a coordinator (G50). G04 needs ACLs, which are not built.

use crate::member::{JOIN, Member, PROGRAM, client};
use kafka_protocol::messages::FindCoordinatorRequest;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, is_not_ready, text, unique};
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

/// The partitions of `__consumer_offsets` that have grown between two looks at their ends.
fn grown(before: &[i64], after: &[i64]) -> Vec<usize> {
    let pairs = before.iter().zip(after).enumerate();
    pairs
        .filter(|(_, (before, after))| after > before)
        .map(|(partition, _)| partition)
        .collect()
}

fn ends(client: &mut Client) -> Vec<i64> {
    (0..50)
        .map(|partition| client.latest("__consumer_offsets", partition))
        .collect()
}

/// GR-5: the partition is the one that Java computes: `Math.abs(hash) % 50`, with 0 for the hash that has no absolute value.
#[test]
fn g05_a_groups_records_are_where_java_looks_for_them() {
    let broker = Broker::start(PROGRAM, &[]);
    let mut client = broker.client();
    client.wait_for_coordinators();
    client.create_topic("t", 1, &[]);
    let cases = [
        ("", 0),
        ("foo", 24),
        // A negative hash.
        ("negative-hash", 24),
        // Hashed as the two UTF-16 units that it is in Java.
        ("\u{1f600}", 49),
        ("\u{1d11e}clef", 28),
        // Java's hash of it is the smallest number.
        ("polygenelubricants", 0),
    ];
    for (group, partition) in cases {
        let before = ends(&mut client);
        assert_eq!(client.commit_offset(group, "t", 0, 1), 0, "{group:?}");
        wait_until("the commit is in the log", || {
            grown(&before, &ends(&mut client)) == [partition]
        });
    }
}

/// GR-11: a coordinator that loads answers a heartbeat with 0 and all else with 14. Here it has loaded before anybody can ask:
/// the first answers after a kill are those of the group, and nothing is to be tried again.
#[test]
fn g50_who_asks_after_a_kill_finds_the_group_loaded() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let group = unique("g");
    broker.client().wait_for_group(&group);
    let mut member = Member::at(broker.address(), &group);
    member.join();
    let id = member.id.clone();
    assert_eq!(member.sync(&[(&id, "mine")]).error_code, 0);
    broker.kill_and_start();
    member.client = broker.client();
    let heartbeat = if is_kafka(&mut member) {
        tally_testkit::waiting::wait_for("the coordinator", || {
            let code = member.heartbeat();
            (!is_not_ready(code)).then_some(code)
        })
    } else {
        member.heartbeat()
    };
    assert_eq!(heartbeat, 0);
    assert_eq!(member.sync(&[]).assignment, &b"mine"[..]);
    let mut other = Member::at(broker.address(), &group);
    assert_eq!(other.join_once(JOIN).error_code, 79);
}

fn is_kafka(member: &mut Member) -> bool {
    member.client.is_apache_kafka()
}
