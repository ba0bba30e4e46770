//! What must be the same after kill -9 and after a clean stop (P-65).

use crate::world::{DATA, World};
use tally_protocol::{ErrorCode, Offset};
use tally_shard::{Isolation, ShardMessage, ShardReply};

/// Both ways to stop.
const STOPS: [fn(World) -> World; 2] = [World::crash, World::restart];

#[test]
fn cr03_a_retry_after_a_restart_is_a_duplicate_of_any_of_the_last_five() {
    for stop in STOPS {
        let mut world = World::new();
        let pair = world.init();
        for sequence in 0..7 {
            world
                .append(pair, sequence, &["x"], false)
                .expect("appended");
        }
        let mut world = stop(world);
        for sequence in 2..7 {
            let again = world
                .append(pair, sequence, &["x"], false)
                .expect("recognised");
            assert_eq!(again.base_offset, Offset(i64::from(sequence)));
        }
        let forgotten = world
            .append(pair, 1, &["x"], false)
            .expect_err("only five are remembered");
        assert_eq!(forgotten.code, ErrorCode::OutOfOrderSequenceNumber);
        assert_eq!(
            world
                .append(pair, 7, &["x"], false)
                .expect("appended")
                .base_offset,
            Offset(7)
        );
    }
}

#[test]
fn cr12_an_open_transaction_is_still_open_after_a_restart_and_commits() {
    for stop in STOPS {
        let mut world = World::new();
        let pair = world.init();
        world.add(pair, "data");
        world.append(pair, 0, &["a"], true).expect("appended");
        let mut world = stop(world);
        assert_eq!(
            world.read(Isolation::ReadCommitted).last_stable_offset,
            Offset(0)
        );
        world.append(pair, 1, &["b"], true).expect("appended");
        assert_eq!(world.end(pair, true), Ok(pair));
        assert_eq!(
            world.read(Isolation::ReadCommitted).last_stable_offset,
            Offset(3)
        );
    }
}

#[test]
fn cr16_a_retried_end_after_a_restart_is_answered_again() {
    for stop in STOPS {
        let mut world = World::new();
        let pair = world.init();
        world.add(pair, "data");
        world.append(pair, 0, &["a"], true).expect("appended");
        world.end(pair, true).expect("committed");
        let mut world = stop(world);
        assert_eq!(world.end(pair, true), Ok(pair));
        assert_eq!(world.end(pair, false), Err(ErrorCode::InvalidTxnState));
        assert_eq!(world.log().len(), 2, "no marker is written twice");
    }
}

#[test]
fn cr18_aborted_transactions_are_named_after_a_restart() {
    for stop in STOPS {
        let mut world = World::new();
        let pair = world.init();
        world.add(pair, "data");
        world.append(pair, 0, &["a"], true).expect("appended");
        world.end(pair, false).expect("aborted");
        let mut world = stop(world);
        assert_eq!(
            world.read(Isolation::ReadCommitted).aborted,
            [(pair.0, Offset(0))]
        );
        let mut world = stop(world);
        assert_eq!(
            world.read(Isolation::ReadCommitted).aborted,
            [(pair.0, Offset(0))],
            "and after another one"
        );
    }
}

#[test]
fn i10_a_new_session_after_a_restart_fences_the_old_one() {
    for stop in STOPS {
        let mut world = World::new();
        let old = world.init();
        world.append(old, 0, &["a"], false).expect("appended");
        let mut world = stop(world);
        let new = world.init();
        assert_eq!((new.0, new.1.0), (old.0, old.1.0 + 1));
        world.append(new, 0, &["b"], false).expect("appended");
        let fenced = world.append(old, 1, &["c"], false).expect_err("fenced");
        assert_eq!(fenced.code, ErrorCode::InvalidProducerEpoch);
    }
}

#[test]
fn p62_a_snapshot_from_below_the_log_start_is_of_no_use() {
    let mut world = World::new();
    let pair = world.init();
    world.add(pair, "data");
    world.append(pair, 0, &["a"], true).expect("appended");
    // The snapshot of this stop has the transaction open.
    let mut world = world.restart();
    world.end(pair, true).expect("committed");
    let end = world.read(Isolation::ReadCommitted).high_watermark;
    let deleted = world.ask(DATA, |to| ShardMessage::DeleteRecords {
        before: Some(end),
        to,
    });
    assert!(matches!(deleted, ShardReply::Deleted(Ok(start)) if start == end));
    // The power cut leaves that one, and the log start; the marker is gone.
    world.lose_snapshots_from(2);
    let mut world = world.crash();
    let read = world.read_from(end, Isolation::ReadCommitted, None);
    assert_eq!(read.expect("at the end").last_stable_offset, end);
    let plain = (tally_protocol::ProducerId(9), pair.1);
    world.append(plain, 0, &["c"], false).expect("appended");
    let read = world.read_from(end, Isolation::ReadCommitted, None);
    let read = read.expect("in range");
    assert_eq!(
        (read.last_stable_offset, read.slices.len()),
        (end.next(), 1),
        "nothing is held back for ever"
    );
}

#[test]
fn p64_no_row_outlives_a_log_that_was_lost_whole() {
    let mut world = World::new();
    let pair = world.init();
    world.add(pair, "data");
    world
        .append(pair, 0, &["a", "b", "c"], true)
        .expect("appended");
    world.end(pair, false).expect("aborted");
    // The power cut leaves the row of that, and no record.
    world.lose_records();
    let mut world = world.crash();
    let plain = (tally_protocol::ProducerId(9), pair.1);
    world.append(plain, 0, &["d"], false).expect("appended");
    let pair = world.init();
    world.add(pair, "data");
    world.append(pair, 0, &["e"], true).expect("appended");
    world.end(pair, false).expect("aborted");
    let read = world.read(Isolation::ReadCommitted);
    assert_eq!(read.aborted, [(pair.0, Offset(1))]);
}
