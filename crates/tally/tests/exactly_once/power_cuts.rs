//! 12.10 What a power cut may leave under `os` (CR-26, CR-29), on files that are cut by hand, and clocks that are set while the
//! broker is down (CR-27). Any subset of pages is the business of the simulations.

use crate::world::Answer::{At, Code};
use crate::world::{PROGRAM, World};
use std::fs;
use std::path::{Path, PathBuf};
use tally_testkit::broker::{Broker, left_out};
use tally_testkit::client::{Client, Producer, is_not_ready, unique};
use tally_testkit::waiting::{wait_for, wait_until};

/// One log for all transactional ids, so that a test finds its own.
const SETTINGS: [&str; 2] = [
    "tally.durability=os",
    "transaction.state.log.num.partitions=1",
];
/// Its start of each batch: base offset, length of what follows.
const HEAD: usize = 12;

/// The one segment of a partition.
#[track_caller]
fn segment(world: &mut World, broker: &Broker, topic: &str) -> PathBuf {
    broker
        .partition(&mut world.client, topic, 0)
        .join(format!("{:020}.log", 0))
}

/// Where the batches of a segment begin, and where the last one ends.
fn batches(bytes: &[u8]) -> Vec<usize> {
    let (mut starts, mut at) = (Vec::new(), 0);
    while let Some(head) = bytes.get(at..at + HEAD) {
        let length = i32::from_be_bytes(head[8..].try_into().expect("four bytes"));
        if length <= 0 {
            break;
        }
        starts.push(at);
        at += HEAD + usize::try_from(length).expect("positive");
    }
    starts.push(at);
    starts
}

/// Takes the last `count` batches away.
#[track_caller]
fn lose(log: &Path, count: usize) {
    let bytes = fs::read(log).expect("readable");
    let starts = batches(&bytes);
    let end = starts[starts.len() - 1 - count];
    fs::write(log, &bytes[..end]).expect("writable");
}

/// Kills the broker, has the disk lose what it may, and starts it in another run of the kernel.
#[track_caller]
fn cut_power(broker: &mut Broker, world: &mut World, lost: &[(&Path, usize)]) {
    broker.kill();
    for (log, count) in lost {
        lose(log, *count);
    }
    fs::write(broker.data().join("boot-id"), "another\n").expect("the broker has written one");
    broker.start_again();
    world.reconnect(broker);
}

/// The answer when the coordinator has finished what a start does.
#[track_caller]
fn end_when_ready(world: &mut World, producer: Producer, commit: bool) -> i16 {
    wait_for("the coordinator", || {
        let code = world.end(4, producer, commit);
        (!is_not_ready(code)).then_some(code)
    })
}

#[track_caller]
fn is_open(world: &mut World) -> bool {
    world.lso() != world.leo()
}

#[test]
fn x285_cr26_a_power_cut_leaves_a_prefix_of_each_partition() {
    let mut broker = Broker::start(PROGRAM, &SETTINGS);
    let mut world = World::on(&broker);
    if world.is_kafka {
        return left_out("Its files are its own business.");
    }
    let other = world.another_topic(1, &[]);
    let (group, a, plain) = (unique("g"), world.ipi(), world.pid());
    world.client.wait_for_group(&group);
    assert_eq!(world.d(plain, 0, 0, 1), At(0));
    assert_eq!(world.d(plain, 0, 1, 1), At(1));
    let topic = world.topic.clone();
    assert_eq!(world.apt_to(3, a, &[(&topic, 0), (&other, 0)]), [0, 0]);
    assert_eq!(world.td9(a, 0, 1), At(2));
    let first = std::mem::replace(&mut world.topic, other.clone());
    assert_eq!(world.td9(a, 0, 1), At(0));
    world.topic = first;
    assert_eq!(world.commit4(a), 0);
    assert_eq!(world.client.commit_offset(&group, &topic, 0, 4), 0);
    let log = segment(&mut world, &broker, &topic);
    // The marker, the data, and one of the plain batches.
    cut_power(&mut broker, &mut world, &[(&log, 3)]);

    assert_eq!(
        end_when_ready(&mut world, a, true),
        49,
        "R-19: another producer id"
    );
    assert_eq!(world.leo(), 1, "what lay before it");
    assert!(!is_open(&mut world));
    let read = world.client.read_committed(&other, 0, 0);
    assert_eq!(
        read.committed().len(),
        1,
        "whole on the partition that lost nothing"
    );
    // The offset is there and points past the end: its reader gets 1 and begins where it is told to.
    world.client.wait_for_group(&group);
    assert_eq!(
        world.client.committed_offset(&group, &topic, 0, true),
        (0, 4)
    );
    assert_eq!(world.rc(4).error, 1);
    // What is known of producers is what the log says.
    assert_eq!(world.d(plain, 0, 0, 1), At(0), "a duplicate");
    assert_eq!(world.d(plain, 0, 2, 1), Code(45));
    assert_eq!(world.d(plain, 0, 1, 1), At(1));
}

#[test]
fn x288_cr29_what_was_open_is_aborted_whatever_is_left_of_it() {
    // Batches that are lost of the transaction log and of the data.
    let cases = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (2, 1)];
    for (flow, (of_log, of_data)) in [9, 12].into_iter().flat_map(|f| cases.map(|c| (f, c))) {
        let mut broker = Broker::start(PROGRAM, &SETTINGS);
        let mut world = World::on(&broker);
        if world.is_kafka {
            return left_out("Its files are its own business.");
        }
        let a = world.ipi();
        if flow == 9 {
            assert_eq!(world.apt(a), 0);
        }
        assert_eq!(world.td(flow, a, 0, 1), At(0));
        assert_eq!(world.td(flow, a, 1, 1), At(1));
        let topic = world.topic.clone();
        let data = segment(&mut world, &broker, &topic);
        let log = segment(&mut world, &broker, "__transaction_state");
        cut_power(&mut broker, &mut world, &[(&log, of_log), (&data, of_data)]);
        let case = format!("flow {flow}, lost {of_log} and {of_data}");
        let code = end_when_ready(&mut world, a, true);
        assert!([47, 48, 49, 90].contains(&code), "{case}: {code}");
        wait_until("nothing is open", || !is_open(&mut world));
        assert_eq!(world.rc(0).committed(), [], "{case}");
        let (code, b) = world.ipi_as(None);
        assert_eq!(code, 0);
        assert_ne!(b.id, a.id, "{case}: a pair that nobody holds");
        let at = world.leo();
        if flow == 9 {
            assert_eq!(world.apt(b), 0);
        }
        assert_eq!(world.td(flow, b, 0, 1), At(at), "{case}");
        assert_eq!(world.end(if flow == 9 { 4 } else { 5 }, b, true), 0);
        assert_eq!(world.rc(0).committed().len(), 1, "{case}");
    }
}

#[test]
fn x286_cr27_the_clock_is_set_while_the_broker_is_down() {
    const TWO_HOURS_MS: i64 = 7_200_000;
    for (by_ms, is_late) in [(TWO_HOURS_MS, true), (-TWO_HOURS_MS, false)] {
        let mut broker = Broker::start(PROGRAM, &SETTINGS);
        let mut world = World::on(&broker);
        if world.is_kafka {
            return left_out("Its clock is the machine's.");
        }
        let a = world.ipi();
        assert_eq!(world.apt(a), 0);
        assert_eq!(world.td9(a, 0, 1), At(0));
        broker.kill();
        broker.set_clock(by_ms);
        broker.start_again();
        world.reconnect(&broker);
        if is_late {
            wait_until("it times out", || !is_open(&mut world));
            assert_eq!(end_when_ready(&mut world, a, true), 90);
            assert_eq!(world.rc(0).committed(), []);
        } else {
            wait_until("the reaper has looked", || {
                has_looked(&mut world.another_client())
            });
            assert!(is_open(&mut world), "set back, it only lasts longer");
            assert_eq!(end_when_ready(&mut world, a, true), 0);
            assert_eq!(world.rc(0).committed().len(), 1);
        }
    }
}

/// Whether a transaction with a short timeout that begins now has been aborted meanwhile.
pub(crate) fn has_looked(client: &mut Client) -> bool {
    use kafka_protocol::messages::InitProducerIdRequest;
    let id = unique("short");
    let topic = unique("t");
    client.create_topic(&topic, 1, &[]);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(tally_testkit::client::transactional_id(&id)))
        .with_transaction_timeout_ms(1);
    let (error, short) = client.init_producer_id(4, &request);
    if error != 0 || client.add_partitions(3, &id, short, &[(&topic, 0)]) != [0] {
        return false;
    }
    wait_until("a short one times out", || {
        client.add_partitions(3, &id, short, &[(&topic, 0)]) == [90]
    });
    true
}
