//! What happens between two steps: markers that a partition does not take, batches held between the coordinator's word and
//! the log, a disk that is full or broken. The steps are kept
//! apart by faults in the real binary (docs/testing.md), so none of this can be asked of Apache Kafka.

use crate::admin::{describe, marker, write};
use crate::world::Answer::{self, At, Code};
use crate::world::{PROGRAM, World, bumped};
use kafka_protocol::messages::ProduceRequest;
use tally_testkit::batches::Batch;
use tally_testkit::broker::{Broker, is_reference, left_out};
use tally_testkit::client::{Client, ProduceCall, Producer};
use tally_testkit::waiting::wait_until;

/// A broker with faults that sleep yet, and a world on it; `None` with Apache Kafka.
#[track_caller]
pub(crate) fn with_faults(partitions: i32, faults: &[&str]) -> Option<(Broker, World)> {
    with_faults_and(&[], partitions, faults)
}

#[track_caller]
fn with_faults_and(settings: &[&str], partitions: i32, faults: &[&str]) -> Option<(Broker, World)> {
    if is_reference() {
        left_out("The points are in Tally.");
        return None;
    }
    let mut broker = Broker::start(PROGRAM, settings);
    broker.set_faults(faults);
    broker.kill_and_start();
    let mut world = World::on(&broker);
    if partitions > 1 {
        world.topic = world.another_topic(partitions, &[]);
    }
    Some((broker, world))
}

/// A batch under way on a connection of its own.
struct Sent {
    client: Client,
    version: i16,
    topic: String,
    id: String,
    bytes: bytes::Bytes,
    correlation_id: i32,
}

impl Sent {
    #[track_caller]
    fn send(world: &World, version: i16, producer: Producer, sequence: i32) -> Sent {
        let batch = Batch::transactional(producer.id, producer.epoch, sequence, 1);
        let mut sent = Sent {
            client: world.another_client(),
            version,
            topic: world.topic.clone(),
            id: world.id.clone(),
            bytes: batch.encode(),
            correlation_id: 0,
        };
        let request = Client::connect(&world.address).produce_request(&sent.call());
        sent.correlation_id = sent.client.send(version, &request);
        sent
    }

    fn call(&self) -> ProduceCall<'_> {
        ProduceCall {
            version: self.version,
            acks: -1,
            transactional_id: Some(&self.id),
            parts: vec![(&self.topic, 0, Some(self.bytes.clone()))],
        }
    }

    #[track_caller]
    fn answer(mut self, world: &mut World) -> Answer {
        let response = self
            .client
            .receive::<ProduceRequest>(self.version, self.correlation_id);
        Answer::from(&world.client.produced(&self.call(), &response)[0])
    }
}

#[test]
fn b17_a_transaction_that_no_coordinator_knows_is_aborted() {
    for (version, is_known) in [(9, false), (12, true)] {
        let settings = ["tally.transaction.monitor.interval.ms=20"];
        let Some((broker, mut world)) = with_faults_and(&settings, 1, &["unasked=fail@1"]) else {
            return;
        };
        // One that is in order, and is left alone.
        let topic = world.another_topic(1, &[]);
        let alive = world.ipi();
        assert_eq!(world.apt_to(3, alive, &[(&topic, 0)]), [0]);
        let own = std::mem::replace(&mut world.topic, topic);
        assert_eq!(world.td9(alive, 0, 1), At(0));
        let in_order = std::mem::replace(&mut world.topic, own);
        // The planted bug: a batch is taken without the coordinator's word.
        broker.wake(0);
        let hanging = if is_known {
            // The coordinator knows the producer, and not the partition.
            alive
        } else {
            Producer { id: 77, epoch: 3 }
        };
        assert_eq!(world.td(version, hanging, 0, 2), At(0));
        broker.calm(0);
        wait_until("the monitor", || world.lso() == 3);
        assert_eq!(world.ru(0).markers(), [(2, hanging.epoch, false)]);
        assert_eq!(world.rc(0).aborted, Some(vec![(hanging.id, 0)]));
        world.topic = in_order;
        assert_eq!(world.lso(), 0, "still open");
        assert_eq!(world.commit4(alive), 0);
        assert_eq!(world.rc(0).committed().len(), 1);
    }
}

#[track_caller]
fn state(world: &mut World) -> String {
    let id = world.id.clone();
    describe(world, &[&id])[0].transaction_state.to_string()
}

#[test]
fn x061_a_device_error_is_not_acknowledged() {
    let Some((broker, mut world)) = with_faults(1, &["append=fail@1"]) else {
        return;
    };
    let a = world.pid();
    assert_eq!(world.d(a, 0, 0, 1), At(0));
    broker.wake(0);
    for _ in 0..3 {
        assert!(matches!(world.d(a, 0, 1, 1), Code(_)));
    }
    assert_eq!(world.leo(), 1, "nothing is read that was not kept");
    broker.calm(0);
    wait_until("the retry", || match world.d(a, 0, 1, 1) {
        At(offset) => offset == 1,
        Code(code) => {
            assert!(matches!(code, 3 | 6 | 56), "{code}");
            false
        }
    });
    assert_eq!(world.d(a, 0, 1, 1), At(1), "once");
    assert_eq!(world.d(a, 0, 0, 1), At(0));
    assert_eq!(world.leo(), 2);
}

#[test]
fn x108_while_markers_are_missing_everything_waits() {
    let Some((broker, mut world)) = with_faults(1, &["marker=fail@1"]) else {
        return;
    };
    let a = world.ipi();
    assert_eq!((world.apt(a), world.td9(a, 0, 1)), (0, At(0)));
    broker.wake(0);
    assert_eq!(
        world.commit4(a),
        0,
        "after a second, without its marker (E-4)"
    );
    assert_eq!((world.commit4(a), world.abort4(a)), (51, 51));
    assert_eq!((world.apt(a), world.ipi_once(None).0), (51, 51));
    assert_eq!(world.commit5(a).0, 51);
    assert_eq!(world.rc(0).committed(), [], "nothing is half visible");
    assert_eq!(
        (state(&mut world).as_str(), world.lso()),
        ("PrepareCommit", 0)
    );
    broker.calm(0);
    wait_until("the marker", || world.lso() == 2);
    assert_eq!(world.rc(0).committed().len(), 1);
    wait_until("Complete", || state(&mut world) == "CompleteCommit");
    assert_eq!((world.commit4(a), world.abort4(a)), (0, 48));
}

#[test]
fn x108_the_new_flow_waits_too() {
    let Some((broker, mut world)) = with_faults(1, &["marker=fail@1"]) else {
        return;
    };
    let a = world.ipi();
    assert_eq!(world.td12(a, 0, 1), At(0));
    broker.wake(0);
    assert_eq!(world.abort5(a), (0, bumped(a)));
    for producer in [a, bumped(a)] {
        assert_eq!(world.abort5(producer).0, 51);
        assert_eq!(world.commit5(producer).0, 51);
    }
    assert_eq!(world.td12(bumped(a), 0, 1), Code(51));
    assert_eq!(world.ipi_once(None).0, 51);
    broker.calm(0);
    wait_until("the marker", || world.lso() == 2);
    wait_until("Complete", || state(&mut world) == "CompleteAbort");
    assert_eq!(world.abort5(a), (0, bumped(a)), "the retry");
    assert_eq!(world.rc(0).aborted, Some(vec![(a.id, 0)]));
}

#[test]
fn x116_a_batch_that_the_abort_overtakes_is_refused() {
    for (version, code) in [(9, 48), (11, 48), (12, 47)] {
        let Some((broker, mut world)) = with_faults(1, &["verified=hold@1"]) else {
            return;
        };
        let a = world.ipi();
        if version < 12 {
            assert_eq!(world.apt(a), 0);
        }
        broker.wake(0);
        let held = Sent::send(&world, version, a, 0);
        broker.wait_until_held(0);
        if version < 12 {
            assert_eq!(world.abort4(a), 0);
        } else {
            assert_eq!(world.abort5(a), (0, bumped(a)));
        }
        broker.calm(0);
        assert_eq!(held.answer(&mut world), Code(code), "Produce v{version}");
        assert_eq!((world.lso(), world.leo()), (1, 1), "the marker alone");
    }
}

#[test]
fn x117_the_next_transaction_does_not_let_it_in() {
    let Some((broker, mut world)) = with_faults(2, &["verified=hold@1"]) else {
        return;
    };
    let topic = world.topic.clone();
    let a = world.ipi();
    assert_eq!(world.apt(a), 0);
    broker.wake(0);
    let held = Sent::send(&world, 9, a, 0);
    broker.wait_until_held(0);
    assert_eq!(world.abort4(a), 0);
    assert_eq!(world.apt_to(3, a, &[(&topic, 1)]), [0]);
    broker.calm(0);
    assert_eq!(held.answer(&mut world), Code(48));
    assert_eq!((world.lso(), world.leo()), (1, 1));
    assert_eq!(world.commit4(a), 0);
}

#[test]
fn x118_a_later_batch_does_not_overtake_one_that_is_verified() {
    for version in [9, 12] {
        let Some((broker, mut world)) = with_faults(1, &["verified=hold@1"]) else {
            return;
        };
        let a = world.ipi();
        if version < 12 {
            assert_eq!(world.apt(a), 0);
        }
        // The connection of the later batch is the older one: for the guard of D-8 all is in order.
        broker.wake(0);
        let held = Sent::send(&world, version, a, 0);
        broker.wait_until_held(0);
        assert_eq!(world.td(version, a, 1, 1), Code(45));
        broker.calm(0);
        let mut later = world.another_client();
        assert_eq!(held.answer(&mut world), At(0));
        std::mem::swap(&mut world.client, &mut later);
        assert_eq!(world.td(version, a, 1, 1), At(1));
        assert_eq!(world.leo(), 2);
    }
}

#[test]
fn x155_a_marker_that_is_written_again_ends_the_transaction() {
    let Some((mut broker, mut world)) = with_faults(1, &["complete_commit.before=kill@1"]) else {
        return;
    };
    let a = world.ipi();
    assert_eq!(world.td12(a, 0, 2), At(0));
    broker.wake(0);
    assert_eq!(world.client.try_end_txn(5, &world.id, a, true), None);
    broker.wait_for_death();
    broker.calm(0);
    broker.start_again();
    world.reconnect(&broker);
    wait_until("Complete", || state(&mut world) == "CompleteCommit");
    assert_eq!(world.lso(), world.leo());
    let markers = world.ru(0).markers();
    assert!(matches!(markers.len(), 1 | 2), "{markers:?}");
    assert!(
        markers
            .iter()
            .all(|marker| (marker.1, marker.2) == (1, true))
    );
    assert_eq!(world.commit5(a), (0, bumped(a)), "the retry");
}

#[test]
fn x156_the_broker_waits_for_the_markers_of_the_transaction_before() {
    let faults = ["marker=fail@1", "join.again=hold@1"];
    let Some((broker, mut world)) = with_faults(1, &faults) else {
        return;
    };
    let a = world.ipi();
    assert_eq!(world.td12(a, 0, 2), At(0));
    broker.wake(0);
    assert_eq!(world.commit5(a), (0, bumped(a)), "markers are still out");
    assert_eq!(world.td12(bumped(a), 0, 1), Code(51), "for longer than V-4");
    broker.wake(1);
    let waiting = Sent::send(&world, 12, bumped(a), 0);
    broker.wait_until_held(1);
    broker.calm(0);
    wait_until("Complete", || state(&mut world) == "CompleteCommit");
    broker.calm(1);
    assert_eq!(waiting.answer(&mut world), At(3), "behind the marker");
    assert_eq!(world.commit5(bumped(a)).0, 0);
}

#[test]
fn x160_a_decision_without_room_is_not_taken() {
    let Some((broker, mut world)) = with_faults(1, &["reserve=fail@1"]) else {
        return;
    };
    let a = world.ipi();
    assert_eq!(world.td12(a, 0, 2), At(0));
    broker.wake(0);
    for _ in 0..2 {
        assert!(matches!(world.commit5(a).0, 15 | 16));
        assert_eq!((state(&mut world).as_str(), world.lso()), ("Ongoing", 0));
    }
    assert_eq!(world.td12(a, 2, 1), Code(56));
    broker.calm(0);
    assert_eq!(world.td12(a, 2, 1), At(2));
    assert_eq!(world.commit5(a), (0, bumped(a)));
    assert_eq!(world.rc(0).committed().len(), 3);
    // The old flow.
    let b = world.ipi();
    assert_eq!((world.apt(b), world.td9(b, 0, 1)), (0, At(4)));
    broker.wake(0);
    assert!(matches!(world.abort4(b), 15 | 16));
    assert_eq!(state(&mut world), "Ongoing");
    broker.calm(0);
    assert_eq!(world.abort4(b), 0);
}

#[test]
fn x161_a_late_marker_does_not_void_the_word_for_the_next_transaction() {
    let Some((broker, mut world)) = with_faults(1, &["verified=hold@1"]) else {
        return;
    };
    let a = world.ipi();
    assert_eq!(world.abort5(a), (0, bumped(a)), "nothing was begun");
    let b = bumped(a);
    broker.wake(0);
    let held = Sent::send(&world, 12, b, 0);
    broker.wait_until_held(0);
    // The marker of the transaction before, as a slow coordinator would send it.
    let late = marker(&world, b, true).with_coordinator_epoch(0);
    assert_eq!(write(&mut world, 2, late, 2), 0);
    broker.calm(0);
    assert_eq!(held.answer(&mut world), At(1));
    assert_eq!(world.lso(), 1);
    assert_eq!(world.commit5(b).0, 0);
}

#[test]
fn x251_partitions_that_have_their_marker_are_not_described() {
    let Some((broker, mut world)) = with_faults(2, &["marker=fail@2"]) else {
        return;
    };
    let (topic, id) = (world.topic.clone(), world.id.clone());
    let a = world.ipi();
    let both = [(topic.as_str(), 0), (topic.as_str(), 1)];
    assert_eq!(world.apt_to(3, a, &both), [0, 0]);
    broker.wake(0);
    assert_eq!(world.commit4(a), 0);
    let rows = describe(&mut world, &[&id]);
    assert_eq!(&*rows[0].transaction_state, "PrepareCommit");
    assert_eq!(rows[0].topics.len(), 1);
    assert_eq!(rows[0].topics[0].partitions, [1]);
    broker.calm(0);
    wait_until("Complete", || state(&mut world) == "CompleteCommit");
}
