//! A transaction from its first request to its marker.

use crate::world::World;
use tally_protocol::{ErrorCode, Offset};
use tally_shard::Isolation;

#[test]
fn a_committed_transaction_is_readable_when_the_answer_is_there() {
    let mut world = World::new();
    let pair = world.init();
    assert_eq!(world.add(pair, "data"), ErrorCode::None);
    assert_eq!(
        world
            .append(pair, 0, &["a", "b"], true)
            .expect("appended")
            .base_offset,
        Offset(0)
    );
    let before = world.read(Isolation::ReadCommitted);
    assert_eq!(before.last_stable_offset, Offset(0));
    assert!(before.slices.is_empty());
    assert_eq!(world.end(pair, true), Ok(pair));
    let after = world.read(Isolation::ReadCommitted);
    assert_eq!(
        (after.last_stable_offset, after.high_watermark),
        (Offset(3), Offset(3))
    );
    assert!(after.aborted.is_empty());
    assert_eq!(
        world.log(),
        [(0, pair.0.0, 0, false), (2, pair.0.0, -1, true)]
    );
}

#[test]
fn f05_an_aborted_transaction_is_named_to_readers() {
    let mut world = World::new();
    let pair = world.init();
    world.add(pair, "data");
    world.append(pair, 0, &["a"], true).expect("appended");
    assert_eq!(world.end(pair, false), Ok(pair));
    assert_eq!(
        world.read(Isolation::ReadCommitted).aborted,
        [(pair.0, Offset(0))]
    );
    assert!(world.read(Isolation::ReadUncommitted).aborted.is_empty());
}

#[test]
fn v05_a_batch_without_its_verification_is_refused() {
    let mut world = World::new();
    let pair = world.init();
    let guard = world.verify(crate::world::DATA, pair, tally_protocol::Sequence(0));
    assert!(guard.is_some());
    let batch = crate::world::batch(pair, 0, &["a"], true);
    let reply = world.ask(crate::world::DATA, |to| tally_shard::ShardMessage::Append {
        batch,
        guard: None,
        to,
    });
    match reply {
        tally_shard::ShardReply::Append(Err(refusal)) => {
            assert_eq!(refusal.code, ErrorCode::InvalidTxnState)
        }
        other => panic!("{other:?}"),
    }
    assert!(world.log().is_empty());
}

#[test]
fn p33_a_duplicate_gets_the_offset_of_the_original() {
    let mut world = World::new();
    let pair = world.init();
    let first = world.append(pair, 0, &["a", "b"], false).expect("appended");
    world.append(pair, 2, &["c"], false).expect("appended");
    let again = world
        .append(pair, 0, &["a", "b"], false)
        .expect("recognised");
    assert_eq!(again.base_offset, first.base_offset);
    assert_eq!(world.log().len(), 2);
    let gap = world.append(pair, 5, &["d"], false).expect_err("a gap");
    assert_eq!(gap.code, ErrorCode::OutOfOrderSequenceNumber);
}
