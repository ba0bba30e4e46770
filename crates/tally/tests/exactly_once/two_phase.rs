//! Two-phase commit (KIP-939): the fields of InitProducerId 6 where it is off, as Apache Kafka 4.3.1 answers them (X-085, T-1), and
//! prepared transactions where it is on, which Kafka 4.3.1 has not. The broker's deaths around them are in `two_phase_kills`.

use crate::power_cuts::has_looked;
use crate::world::Answer::{At, Code};
use crate::world::{PROGRAM, World, at_epoch, bumped};
use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::InitProducerIdResponse;
use kafka_protocol::protocol::{Decodable, Encodable};
use tally_testkit::broker::{Broker, is_reference, left_out};
use tally_testkit::client::{Client, Producer, unique};
use tally_testkit::waiting::{wait_for, wait_until};
use tally_testkit::wire::frame_of;

/// InitProducerId 6: the code, the pair, and the pair of the transaction that is open; nothing if nobody answers.
pub(crate) fn try_init(
    world: &mut World,
    enable: bool,
    keep: bool,
) -> Option<(i16, Producer, Producer)> {
    let mut body = BytesMut::new();
    // The codec crate knows the request to version 5: the flags stand in front of the tags.
    let request = world.ipi_request(None);
    request.encode(&mut body, 5).expect("encodes");
    body.truncate(body.len() - 1);
    body.put_slice(&[u8::from(enable), u8::from(keep), 0]);
    world.client.send_bytes(&frame_of(22, 6, 2, 7, &body));
    let mut frame = world.client.receive_frame()?.slice(5..);
    let response = InitProducerIdResponse::decode(&mut frame, 6).expect("decodes");
    Some((
        response.error_code,
        Producer {
            id: response.producer_id.0,
            epoch: response.producer_epoch,
        },
        Producer {
            id: response.ongoing_txn_producer_id.0,
            epoch: response.ongoing_txn_producer_epoch,
        },
    ))
}

#[track_caller]
fn init(world: &mut World, enable: bool, keep: bool) -> (i16, Producer, Producer) {
    try_init(world, enable, keep).expect("an answer")
}

/// As soon as the coordinator is loaded and nothing is under way.
#[track_caller]
pub(crate) fn init_when_ready(world: &mut World, keep: bool) -> (Producer, Producer) {
    wait_for("InitProducerId", || {
        let (code, producer, ongoing) = init(world, true, keep);
        assert!(matches!(code, 0 | 14..=16 | 51), "{code}");
        (code == 0).then_some((producer, ongoing))
    })
}

pub(crate) const NONE: Producer = Producer { id: -1, epoch: -1 };

#[test]
fn x085_t1_version_six_with_two_phase_commit_off() {
    let broker = Broker::start(PROGRAM, &["unstable.api.versions.enable=true"]);
    let mut world = World::on(&broker);
    let versions = world.client.api_versions(4);
    let row = versions.api_keys.iter().find(|row| row.api_key == 22);
    assert_eq!(row.expect("listed").max_version, 6);
    let id = world.id.clone();
    wait_until("the coordinator", || {
        world.client.find_coordinator(&id, 1) == 0
    });
    let (plain, _, ongoing) = wait_for("the coordinator is loaded", || {
        let answer = init(&mut world, false, false);
        (!matches!(answer.0, 14..=16)).then_some(answer)
    });
    assert_eq!((plain, ongoing), (0, NONE));
    assert_eq!(init(&mut world, true, false), (53, NONE, NONE));
    assert_eq!(init(&mut world, true, true).0, 53);
    assert_eq!(init(&mut world, false, true), (35, NONE, NONE));
}

#[test]
fn t1_a_prepared_transaction_outlives_its_producer_and_the_broker() {
    if is_reference() {
        return left_out("Kafka 4.3.1 refuses keep_prepared_txn.");
    }
    for commit in [true, false] {
        let mut broker = Broker::start(PROGRAM, &["transaction.two.phase.commit.enable=true"]);
        let mut world = World::on(&broker);
        let (a, ongoing) = init_when_ready(&mut world, false);
        assert_eq!(ongoing, NONE);
        assert_eq!(world.td12(a, 0, 2), At(0));
        // The producer is gone, and the broker with it; then its successor too.
        for life in 1..=2 {
            broker.kill_and_start();
            world.reconnect(&broker);
            let (owner, ongoing) = init_when_ready(&mut world, true);
            assert_eq!((owner, ongoing), (at_epoch(a, life), a));
        }
        let owner = at_epoch(a, 2);
        assert_eq!(world.lso(), 0, "still open");
        // Its writer and the first successor can't end it, and nothing joins it.
        for stale in [a, bumped(a)] {
            assert_eq!(world.commit5(stale).0, 90);
            assert_eq!(world.abort4(stale), 90);
        }
        assert_eq!(world.td12(owner, 0, 1), Code(48));
        let ended = if commit {
            world.commit5(owner)
        } else {
            world.abort5(owner)
        };
        assert_eq!(ended, (0, at_epoch(a, 3)));
        assert_eq!((world.lso(), world.leo()), (3, 3));
        assert_eq!(world.rc(0).committed().len(), if commit { 2 } else { 0 });
        assert_eq!(world.ru(0).markers(), [(2, 1, commit)]);
        // The writer is fenced, the next transaction goes on.
        assert_eq!(world.td12(a, 2, 1), Code(47));
        assert_eq!(world.td12(at_epoch(a, 3), 0, 1), At(3));
        assert_eq!(world.commit5(at_epoch(a, 3)).0, 0);
    }
}

/// The old flow, with offsets in the transaction and long after its timeout would have come: data and offsets have the end
/// that its owner gives them.
#[test]
fn t1_i24_offsets_are_prepared_too_and_outlive_kills_and_the_timeout() {
    const TEN_DAYS_MS: i64 = 864_000_000;
    if is_reference() {
        return left_out("Kafka 4.3.1 refuses keep_prepared_txn.");
    }
    for commit in [true, false] {
        let mut broker = Broker::start(PROGRAM, &["transaction.two.phase.commit.enable=true"]);
        let mut world = World::on(&broker);
        let group = unique("g");
        world.client.wait_for_group(&group);
        let (a, _) = init_when_ready(&mut world, false);
        assert_eq!((world.apt(a), world.td9(a, 0, 1)), (0, At(0)));
        let (id, topic) = (world.id.clone(), world.topic.clone());
        assert_eq!(world.client.add_offsets(3, &id, a, &group), 0);
        let offsets = Client::txn_offset_commit_request(&id, a, &group, &[(&topic, 0, 9)]);
        assert_eq!(world.client.txn_offset_commit(3, &offsets), [0]);
        broker.kill();
        broker.set_clock(TEN_DAYS_MS);
        broker.start_again();
        world.reconnect(&broker);
        world.client.wait_for_group(&group);
        wait_until("transactions time out", || {
            has_looked(&mut world.another_client())
        });
        let (owner, ongoing) = init_when_ready(&mut world, true);
        assert_eq!((owner, ongoing), (bumped(a), a));
        let stable = world.client.committed_offset(&group, &topic, 0, true);
        assert_eq!((stable.0, world.lso()), (88, 0), "still open");
        // What it has joined is closed to its owner, and to all who spoke for it before.
        let by_owner = Client::txn_offset_commit_request(&id, owner, &group, &[(&topic, 0, 10)]);
        assert_ne!(world.client.txn_offset_commit(3, &by_owner), [0]);
        assert_eq!(world.client.add_offsets(3, &id, a, &group), 90);
        assert_eq!(world.end(4, a, commit), 90);
        assert_eq!(world.end(4, owner, commit), 0);
        broker.kill_and_start();
        world.reconnect(&broker);
        world.client.wait_for_group(&group);
        let expected = if commit { 9 } else { -1 };
        let stable = world.client.committed_offset(&group, &topic, 0, true);
        assert_eq!(stable, (0, expected));
        assert_eq!(world.rc(0).committed().len(), usize::from(commit));
        assert_eq!((world.lso(), world.leo()), (2, 2));
    }
}

#[test]
fn t1_a_producer_that_does_not_keep_it_aborts_it() {
    if is_reference() {
        return left_out("Kafka 4.3.1 refuses keep_prepared_txn.");
    }
    let broker = Broker::start(PROGRAM, &["transaction.two.phase.commit.enable=true"]);
    let mut world = World::on(&broker);
    let (a, _) = init_when_ready(&mut world, false);
    assert_eq!((world.apt(a), world.td9(a, 0, 1)), (0, At(0)));
    let (owner, ongoing) = init_when_ready(&mut world, true);
    assert_eq!((owner, ongoing), (bumped(a), a));
    let (next, ongoing) = init_when_ready(&mut world, false);
    assert_eq!((next, ongoing), (at_epoch(a, 3), NONE));
    assert_eq!((world.lso(), world.leo()), (2, 2));
    assert_eq!(world.rc(0).committed(), []);
    assert_eq!(world.commit5(owner).0, 90);
    assert_eq!(world.td9(next, 0, 1), Code(48));
    assert_eq!((world.apt(next), world.td9(next, 0, 1)), (0, At(2)));
    assert_eq!(world.commit4(next), 0);
}
