//! `memory`: a broker like any other as long as it runs, and nothing left afterwards.

use crate::PROGRAM;
use crate::transactions::{begin, producer};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, unique};

/// Writes a committed transaction and an offset, and reads both.
#[track_caller]
fn write_and_read(client: &mut Client, topic: &str) {
    let (id, group) = (unique("x"), unique("g"));
    let producer = producer(client, &id);
    begin(client, &id, producer, topic, 0);
    assert_eq!(client.end_txn(3, &id, producer, true).0, 0);
    assert_eq!(client.read_committed(topic, 0, 0).data_offsets(), [0]);
    client.wait_for_group(&group);
    assert_eq!(client.commit_offset(&group, topic, 0, 1), 0);
    assert_eq!(client.committed_offset(&group, topic, 0, true), (0, 1));
}

#[test]
fn r1_memory_serves_as_the_others_and_keeps_nothing() {
    let mut broker = Broker::start(PROGRAM, &["tally.durability=memory"]);
    for end in [Broker::kill as fn(&mut Broker), |broker| {
        assert!(broker.stop(), "a clean stop");
    }] {
        let mut client = broker.client();
        client.create_topic("t", 1, &[]);
        write_and_read(&mut client, "t");
        end(&mut broker);
        broker.start_again();
        assert_eq!(broker.client().topic("t").error_code, 3, "gone");
    }
    assert!(broker.stop());
    let left = broker.data().join("memory").exists();
    assert!(!left, "a clean stop leaves no file behind");
}

#[test]
fn r1_memory_leaves_alone_what_another_mode_has_kept() {
    let mut broker = Broker::start(PROGRAM, &["tally.durability=os"]);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    write_and_read(&mut client, "t");
    assert!(broker.stop());
    broker.set("tally.durability=memory");
    broker.start_again();
    assert_eq!(broker.client().topic("t").error_code, 3, "not seen");
    broker.kill();
    broker.set("tally.durability=os");
    broker.start_again();
    let read = broker.client().read_committed("t", 0, 0);
    assert_eq!(read.data_offsets(), [0]);
}
