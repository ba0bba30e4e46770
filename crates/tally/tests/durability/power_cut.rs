//! The start after a power cut. What the disk may lose is another matter, and tested on a simulated one; here nothing is
//! lost, and the broker can't know that.

use crate::PROGRAM;
use crate::transactions::{begin, producer};
use std::fs;
use tally_testkit::broker::Broker;
use tally_testkit::client::{is_not_ready, unique};
use tally_testkit::waiting::{wait_for, wait_until};

/// Kills the broker and starts it as after a power cut: another run of the kernel.
#[track_caller]
pub(crate) fn cut_power(broker: &mut Broker) {
    broker.kill();
    let id = broker.data().join("boot-id");
    fs::write(&id, "another\n").expect("the broker has written one");
    broker.start_again();
}

/// Waits until the broker has noted that the power cut is dealt with.
#[track_caller]
pub(crate) fn wait_until_handled(broker: &Broker) {
    let id = broker.data().join("boot-id");
    wait_until("the power cut is dealt with", || {
        fs::read_to_string(&id).is_ok_and(|text| text != "another\n")
    });
}

#[test]
fn r19_after_a_power_cut_nothing_begun_before_is_committed() {
    let mut broker = Broker::start(PROGRAM, &["tally.durability=os"]);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    let (open, done) = (unique("open"), unique("done"));
    let first = producer(&mut client, &open);
    begin(&mut client, &open, first, "t", 0);
    let second = producer(&mut client, &done);
    begin(&mut client, &done, second, "t", 0);
    assert_eq!(client.end_txn(3, &done, second, true).0, 0);
    cut_power(&mut broker);

    let mut client = broker.client();
    for (id, old) in [(&open, first), (&done, second)] {
        // 3.4 would repeat the answer to the second one, of whose next transaction nothing might be left.
        let code = wait_for("the coordinator", || {
            let code = client.end_txn(3, id, old, true).0;
            (!is_not_ready(code)).then_some(code)
        });
        assert_eq!(code, 49, "another producer id");
        let new = producer(&mut client, id);
        assert_ne!(new.id, old.id);
    }
    let read = client.read_committed("t", 0, 0);
    assert_eq!(
        read.last_stable_offset, read.high_watermark,
        "nothing is open"
    );
    let kept: Vec<i64> = read.committed().iter().map(|(offset, _)| *offset).collect();
    assert_eq!(kept, [1]);
    wait_until_handled(&broker);

    // A kill after it is no power cut.
    let third = producer(&mut client, &open);
    begin(&mut client, &open, third, "t", 0);
    broker.kill_and_start();
    let code = wait_for("the coordinator", || {
        let code = broker.client().end_txn(3, &open, third, true).0;
        (!is_not_ready(code)).then_some(code)
    });
    assert_eq!(code, 0);
}
