//! The start after a power cut: nothing that was open before can be committed, and nothing stays open (R-19, CR-29).

use crate::durability::{fetch_offset, fetched, is_committed, latest, transactional_offsets};
use crate::world::{DATA, GROUPS, TRANSACTIONS, World};
use std::sync::Arc;
use tally_groups as groups;
use tally_protocol::{ErrorCode, Offset, ProducerEpoch, ProducerId};
use tally_shard::{Isolation, ShardReply};
use tally_transactions as transactions;
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

/// Begins and ends a transaction of one record, as clients of the new flow do; returns their next pair.
fn transact(
    world: &mut World,
    (producer_id, producer_epoch): (ProducerId, ProducerEpoch),
    value: &str,
    commit: bool,
) -> (ProducerId, ProducerEpoch) {
    let transactional_id: Arc<str> = Arc::from("t");
    let begun = world.transaction(transactions::Command::AddPartitions {
        transactional_id: Arc::clone(&transactional_id),
        producer_id,
        producer_epoch,
        partitions: vec![transactions::TopicPartition {
            topic: Arc::from("data"),
            partition: 0,
        }],
        flow: transactions::Flow::Tv2,
    });
    assert_eq!(
        begun,
        transactions::Response::AddPartitions(ErrorCode::None)
    );
    let pair = (producer_id, producer_epoch);
    world.append(pair, 0, &[value], true).expect("appended");
    let ended = world.transaction(transactions::Command::EndTxn {
        transactional_id,
        producer_id,
        producer_epoch,
        commit,
        flow: transactions::Flow::Tv2,
    });
    match ended {
        transactions::Response::EndTxn(Ok(next)) => next,
        other => panic!("{other:?}"),
    }
}

/// The coordinator's log has kept the decision to commit, and not its completion. The marker that is owed commits what it was
/// decided for, and not an aborted transaction before it whose own marker is lost (CR-26).
#[test]
fn r19_an_earlier_transaction_is_not_committed_with_a_later_one() {
    // How many of `aborted`, its marker, `committed`, its marker are lost; what is there then, and whether it is a marker. A
    // marker that finds nothing open is written all the same (D-7).
    for (lost, expected) in [
        (1, vec![(0, false), (1, true), (2, false), (3, true)]),
        (2, vec![(0, false), (1, true), (2, true)]),
        (3, vec![(0, false), (1, true), (2, true)]),
    ] {
        let mut world = World::new();
        let pair = world.init();
        let next = transact(&mut world, pair, "aborted", false);
        transact(&mut world, next, "committed", true);
        assert_eq!(committed(&mut world), (4, vec![(pair.0.0, 0)]));
        world.lose_last(DATA, lost);
        world.lose_last(TRANSACTIONS, 1);
        let mut world = world.cut_power(Fence::Epoch);
        world.pass_ms(100);
        assert!(!world.is_fencing());
        let log = world.log().into_iter();
        let log: Vec<(i64, bool)> = log.map(|(at, _, _, is_marker)| (at, is_marker)).collect();
        assert_eq!(log, expected, "{lost}");
        let end = i64::try_from(log.len()).expect("small");
        assert_eq!(
            committed(&mut world),
            (end, vec![(pair.0.0, 0)]),
            "{lost} lost: only the first is aborted"
        );
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
