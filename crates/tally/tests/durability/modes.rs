//! `commit` and `always` on the real binary: they serve as `os` does, keep over a kill what they have answered, and a start
//! after a power cut does what is left to do. What a power cut itself leaves of their files is tested on a simulated disk.

use crate::PROGRAM;
use crate::power_cut::{cut_power, wait_until_handled};
use crate::transactions::{begin, producer};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, ProduceCall, Producer, is_not_ready};
use tally_testkit::waiting::{wait_for, wait_until};

const SYNCED: [&str; 2] = ["tally.durability=commit", "tally.durability=always"];

/// The code of EndTxn once its coordinator is there.
#[track_caller]
fn commit(client: &mut Client, id: &str, producer: Producer) -> i16 {
    wait_for("the coordinator", || {
        let code = client.end_txn(3, id, producer, true).0;
        (!is_not_ready(code)).then_some(code)
    })
}

/// A committed transaction, an aborted one, a plain record and an offset; all of them answered.
#[track_caller]
fn write(client: &mut Client) {
    let one = producer(client, "x");
    begin(client, "x", one, "t", 0);
    assert_eq!(commit(client, "x", one), 0);
    // D-6: what was answered is there for whoever asks next.
    assert_eq!(client.read_committed("t", 0, 0).data_offsets(), [0]);
    begin(client, "x", one, "t", 1);
    assert_eq!(client.end_txn(3, "x", one, false).0, 0);
    assert_eq!(client.produce_plain("t", 0, 1).base_offset, 4);
    assert_eq!(client.latest("t", 0), 5, "acks=all has waited for it");
    client.wait_for_group("g");
    assert_eq!(client.commit_offset("g", "t", 0, 5), 0);
    assert_eq!(client.committed_offset("g", "t", 0, true), (0, 5));
}

#[track_caller]
fn check(client: &mut Client) {
    let read = client.read_committed("t", 0, 0);
    assert_eq!((read.high_watermark, read.last_stable_offset), (5, 5));
    let kept: Vec<i64> = read.committed().iter().map(|(offset, _)| *offset).collect();
    assert_eq!(kept, [0, 4]);
    client.wait_for_group("g");
    assert_eq!(client.committed_offset("g", "t", 0, true), (0, 5));
}

#[test]
fn r1_what_was_answered_outlives_kills_and_stops() {
    for mode in SYNCED {
        let mut broker = Broker::start(PROGRAM, &[mode]);
        let mut client = broker.client();
        client.create_topic("t", 1, &[]);
        write(&mut client);
        broker.kill_and_start();
        check(&mut broker.client());
        assert!(broker.stop(), "{mode}");
        broker.start_again();
        check(&mut broker.client());
    }
}

/// What one mode has kept is there in every other one, after a kill and after a stop.
#[test]
fn r1_the_mode_may_change_with_each_start() {
    let mut broker = Broker::start(PROGRAM, &["tally.durability=os"]);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    write(&mut client);
    for (mode, kills) in [
        ("commit", true),
        ("always", true),
        ("os", true),
        ("always", false),
        ("commit", false),
        ("os", false),
    ] {
        if kills {
            broker.kill();
        } else {
            assert!(broker.stop());
        }
        broker.set(&format!("tally.durability={mode}"));
        broker.start_again();
        check(&mut broker.client());
    }
}

/// acks=0 waits for nothing, and is there when it is synced.
#[test]
fn r3_without_acknowledgement_nobody_waits() {
    for mode in SYNCED {
        let broker = Broker::start(PROGRAM, &[mode]);
        let mut client = broker.client();
        client.create_topic("t", 1, &[]);
        for acks in [0, 1, -1] {
            let call = ProduceCall {
                version: 9,
                acks,
                transactional_id: None,
                parts: vec![("t", 0, Some(Batch::plain(1).encode()))],
            };
            if acks == 0 {
                let request = client.produce_request(&call);
                (*client).send(9, &request);
                wait_until("the record is seen", || client.latest("t", 0) == 1);
            } else {
                assert_eq!(client.produce(&call)[0].error, 0, "{mode}");
            }
        }
        assert_eq!(client.latest("t", 0), 3, "{mode}");
    }
}

#[test]
fn r19_in_commit_an_open_transaction_is_fenced_after_a_power_cut() {
    let mut broker = Broker::start(PROGRAM, &["tally.durability=commit"]);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    let (open, done) = (producer(&mut client, "open"), producer(&mut client, "done"));
    begin(&mut client, "open", open, "t", 0);
    begin(&mut client, "done", done, "t", 0);
    assert_eq!(client.end_txn(3, "done", done, true).0, 0);
    cut_power(&mut broker);
    let mut client = broker.client();
    for (id, old) in [("open", open), ("done", done)] {
        let code = commit(&mut client, id, old);
        assert!([47, 90].contains(&code), "{id}: {code}");
        let new = producer(&mut client, id);
        assert_eq!(new.id, old.id);
        assert!(new.epoch > old.epoch + 1);
    }
    let read = client.read_committed("t", 0, 0);
    assert_eq!(read.last_stable_offset, read.high_watermark);
    let kept: Vec<i64> = read.committed().iter().map(|(offset, _)| *offset).collect();
    assert_eq!(kept, [1]);
    wait_until_handled(&broker);
}

/// Nothing that was answered can be missing, so what was begun can be ended.
#[test]
fn r19_in_always_an_open_transaction_goes_on_after_a_power_cut() {
    let mut broker = Broker::start(PROGRAM, &["tally.durability=always"]);
    let mut client = broker.client();
    client.create_topic("t", 1, &[]);
    let open = producer(&mut client, "open");
    begin(&mut client, "open", open, "t", 0);
    cut_power(&mut broker);
    wait_until_handled(&broker);
    let mut client = broker.client();
    assert_eq!(commit(&mut client, "open", open), 0);
    assert_eq!(client.read_committed("t", 0, 0).data_offsets(), [0]);
}

/// N9, R-5: what waited for a sync that fails is refused, and what is tried again is done once when the disk is good again.
#[test]
fn r5_a_failed_sync_is_not_acknowledged() {
    for mode in SYNCED {
        let mut broker = Broker::start(PROGRAM, &[mode]);
        broker.set_faults(&["journal.sync=fail@1"]);
        broker.kill_and_start();
        let mut client = broker.client();
        client.create_topic("t", 2, &[]);
        client.wait_for_group("g");
        assert_eq!(client.commit_offset("g", "t", 0, 0), 0);
        let pair = producer(&mut client, "x");
        begin(&mut client, "x", pair, "t", 0);
        broker.wake(0);
        let code = client.end_txn(3, "x", pair, true).0;
        assert!(code != 0, "{mode}: {code}");
        for _ in 0..3 {
            let code = client.commit_offset("g", "t", 0, 1);
            assert!(code != 0, "{mode}: {code}");
        }
        if mode.ends_with("always") {
            let code = client.produce_plain("t", 1, 1).error;
            assert!(code != 0, "{mode}: {code}");
        }
        broker.calm(0);
        wait_until("the transaction is committed", || {
            commit(&mut client, "x", pair) == 0
        });
        wait_until("the offset is taken", || {
            client.commit_offset("g", "t", 0, 1) == 0
        });
        broker.kill_and_start();
        let mut client = broker.client();
        let read = client.read_committed("t", 0, 0);
        assert_eq!(read.last_stable_offset, read.high_watermark);
        assert_eq!(read.committed().len(), 1, "{mode}: once");
        client.wait_for_group("g");
        assert_eq!(client.committed_offset("g", "t", 0, true), (0, 1));
    }
}
