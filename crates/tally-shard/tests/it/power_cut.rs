//! The start after a power cut: nothing that was open before can be committed, and nothing stays open (R-19, CR-29).

use crate::durability::{fetch_offset, fetched, is_committed, latest, transactional_offsets};
use crate::world::{DATA, GROUPS, World};
use tally_groups as groups;
use tally_protocol::{ErrorCode, Offset, ProducerEpoch, ProducerId};
use tally_shard::{Isolation, ShardReply};
use tally_transactions::Fence;

/// What a reader of committed data is shown: the bound, and the aborted transactions by producer and first offset.
fn committed(world: &mut World) -> (i64, Vec<(i64, i64)>) {
    let read = world
        .read_from(Offset::ZERO, Isolation::ReadCommitted, None)
        .expect("read");
    let aborted = read.aborted.iter().map(|(id, first)| (id.0, first.0));
    (read.last_stable_offset.0, aborted.collect())
}

/// An OffsetFetch without any offset.
fn is_empty(reply: &ShardReply) -> bool {
    matches!(
        reply,
        ShardReply::Group(Ok(groups::Response::FetchOffsets(response))) if response.topics.is_empty()
    )
}

#[test]
fn r19_an_open_transaction_is_aborted_by_its_coordinator() {
    for fence in [Fence::Epoch, Fence::ProducerId] {
        let mut world = World::new();
        let pair = world.init();
        world.add(pair, "data");
        world.append(pair, 0, &["a"], true).expect("appended");
        let mut world = world.cut_power(fence);
        world.pass_ms(100);
        assert!(!world.is_fencing());
        // One marker: it is not aborted as an orphan besides.
        let id = pair.0.0;
        assert_eq!(world.log(), [(0, id, 0, false), (1, id, -1, true)]);
        assert_eq!(committed(&mut world), (2, vec![(id, 0)]));
        let code = world.end(pair, true).expect_err("fenced");
        let expected = match fence {
            Fence::Epoch => ErrorCode::InvalidProducerEpoch,
            Fence::ProducerId => ErrorCode::InvalidProducerIdMapping,
        };
        assert!(
            [expected, ErrorCode::ProducerFenced].contains(&code),
            "{code:?}"
        );
    }
}

/// Its Ongoing record is lost: nobody else will ever end it.
#[test]
fn r19_a_transaction_that_no_coordinator_knows_is_aborted() {
    let mut world = World::new();
    let lost = (ProducerId(77), ProducerEpoch(3));
    world.append(lost, 0, &["a"], true).expect("appended");
    world
        .append((ProducerId(8), ProducerEpoch(0)), 0, &["b"], false)
        .expect("appended");
    let mut world = world.cut_power(Fence::ProducerId);
    assert_eq!(committed(&mut world), (3, vec![(77, 0)]));
    let late = world.append(lost, 1, &["c"], false).expect_err("fenced");
    assert_eq!(late.code, ErrorCode::InvalidProducerEpoch);
    // Once is enough.
    let mut world = world.cut_power(Fence::ProducerId);
    assert_eq!(world.log().len(), 3);
}

/// The record of a bump is lost, and data with the higher epoch is not: the marker that the coordinator owes is too old. That
/// of an abort with fence is, too, for data that has its own epoch.
#[test]
fn r19_a_transaction_with_a_lost_epoch_is_aborted() {
    for bumps in [1, 2, 4] {
        let mut world = World::new();
        let pair = world.init();
        world.add(pair, "data");
        let ahead = (pair.0, ProducerEpoch(pair.1.0 + bumps));
        world.append(ahead, 0, &["a"], true).expect("appended");
        let mut world = world.cut_power(Fence::ProducerId);
        world.pass_ms(100);
        assert!(!world.is_fencing());
        assert_eq!(committed(&mut world), (2, vec![(pair.0.0, 0)]), "{bumps}");
    }
}

#[test]
fn r19_offsets_of_a_transaction_that_nobody_knows_are_dropped() {
    let mut world = World::new();
    let lost = (ProducerId(77), ProducerEpoch(3));
    let message = transactional_offsets(&mut world, lost, 9);
    assert!(is_committed(&world.ask(GROUPS, message)));
    let fetch = |world: &mut World| fetched(&world.ask(GROUPS, fetch_offset(true)));
    assert_eq!(fetch(&mut world), (-1, ErrorCode::UnstableOffsetCommit));
    let mut world = world.cut_power(Fence::Epoch);
    let reply = world.ask(GROUPS, fetch_offset(true));
    assert!(is_empty(&reply), "{reply:?}");
    assert_eq!(latest(&mut world, GROUPS, Isolation::ReadCommitted), 2);
}

#[test]
fn r19_a_kill_fences_nobody() {
    let mut world = World::new();
    let pair = world.init();
    world.add(pair, "data");
    world.append(pair, 0, &["a"], true).expect("appended");
    let mut world = world.crash();
    assert_eq!(latest(&mut world, DATA, Isolation::ReadCommitted), 0);
    assert_eq!(world.end(pair, true), Ok(pair));
    assert_eq!(committed(&mut world), (2, vec![]));
}
