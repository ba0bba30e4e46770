//! What waits for a sync, and what readers see before it: the two tables of exactly-once.md 8.1, row by row, with the
//! syncing thread's turns taken by hand.

use crate::world::{DATA, GROUPS, TRANSACTIONS, World, batch};
use bytes::Bytes;
use std::sync::Arc;
use tally_groups as groups;
use tally_groups::{AbsentGroup, CommitRequest, FetchRequest, OffsetToCommit};
use tally_producer_state::Marker;
use tally_protocol::{
    CoordinatorEpoch, ErrorCode, Offset, PartitionId, ProducerEpoch, ProducerId, Sequence, TopicId,
};
use tally_shard::{
    Inspected, Inspection, Isolation, OffsetLookup, OffsetQuery, ReplyTo, ShardMessage, ShardReply,
    WaiterId,
};
use tally_storage::Durability;
use tally_transactions as transactions;
use tally_transactions::TopicPartition;

type Pair = (ProducerId, ProducerEpoch);

/// A producer without a transactional id.
const PLAIN: Pair = (ProducerId(7), ProducerEpoch(0));

/// When a write is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answered {
    InPlace,
    Synced,
}

/// Sends a message and says when it is answered, and with what. More than one sync is never waited for.
#[track_caller]
fn answer(
    world: &mut World,
    id: PartitionId,
    message: impl FnOnce(ReplyTo) -> ShardMessage,
) -> (Answered, ShardReply) {
    let to = world.send(id, message);
    if let Some(reply) = world.reply(to) {
        return (Answered::InPlace, reply);
    }
    assert!(world.sync(), "there is nothing to wait for");
    let reply = world.reply(to).expect("one sync is enough");
    (Answered::Synced, reply)
}

/// Checks when a write is answered in the two modes that sync.
#[track_caller]
fn check(
    commit: Answered,
    always: Answered,
    write: impl Fn(&mut World) -> (Answered, ShardReply),
    is_accepted: fn(&ShardReply) -> bool,
) {
    for (durability, expected) in [(Durability::Commit, commit), (Durability::Always, always)] {
        let mut world = World::durable(durability);
        let (answered, reply) = write(&mut world);
        assert!(is_accepted(&reply), "{durability:?}: {reply:?}");
        assert_eq!(answered, expected, "{durability:?}");
    }
}

fn produce(pair: Pair, sequence: i32, value: &str) -> impl FnOnce(ReplyTo) -> ShardMessage {
    let batch = batch(pair, sequence, &[value], false);
    |to| ShardMessage::Append {
        batch,
        guard: None,
        to,
    }
}

fn transaction(command: transactions::Command) -> impl FnOnce(ReplyTo) -> ShardMessage {
    |to| ShardMessage::Transaction { command, to }
}

fn init() -> impl FnOnce(ReplyTo) -> ShardMessage {
    transaction(transactions::Command::InitProducerId {
        transactional_id: Arc::from("t"),
        timeout_ms: 60_000,
        expected: None,
    })
}

fn join(pair: Pair, topic: &str) -> impl FnOnce(ReplyTo) -> ShardMessage {
    transaction(transactions::Command::AddPartitions {
        transactional_id: Arc::from("t"),
        producer_id: pair.0,
        producer_epoch: pair.1,
        partitions: vec![TopicPartition {
            topic: Arc::from(topic),
            partition: 0,
        }],
        flow: transactions::Flow::Tv1,
    })
}

pub(crate) fn end(pair: Pair, commit: bool) -> impl FnOnce(ReplyTo) -> ShardMessage {
    transaction(transactions::Command::EndTxn {
        transactional_id: Arc::from("t"),
        producer_id: pair.0,
        producer_epoch: pair.1,
        commit,
        flow: transactions::Flow::Tv1,
    })
}

fn group(command: groups::Command) -> impl FnOnce(ReplyTo) -> ShardMessage {
    |to| ShardMessage::Group {
        command,
        size_bytes: 1000,
        to,
    }
}

fn offsets(offset: i64) -> Vec<OffsetToCommit> {
    vec![OffsetToCommit {
        topic: Arc::from("data"),
        topic_id: TopicId::ZERO,
        partition: 0,
        offset,
        leader_epoch: -1,
        metadata: Arc::default(),
    }]
}

fn commit_offset(offset: i64) -> impl FnOnce(ReplyTo) -> ShardMessage {
    group(groups::Command::CommitOffsets(CommitRequest {
        group: Arc::from("g"),
        member_id: Arc::default(),
        instance_id: None,
        generation: -1,
        on_absent_group: AbsentGroup::IllegalGeneration,
        retention_ms: None,
        offsets: offsets(offset),
    }))
}

pub(crate) fn fetch_offset(require_stable: bool) -> impl FnOnce(ReplyTo) -> ShardMessage {
    group(groups::Command::FetchOffsets(FetchRequest {
        group: Arc::from("g"),
        topics: None,
        require_stable,
        member: None,
    }))
}

/// The one offset and code of an OffsetFetch.
#[track_caller]
pub(crate) fn fetched(reply: &ShardReply) -> (i64, ErrorCode) {
    match reply {
        ShardReply::Group(Ok(groups::Response::FetchOffsets(response))) => {
            let offset = &response.topics[0].partitions[0];
            (offset.offset, offset.error)
        }
        other => panic!("{other:?}"),
    }
}

fn is_appended(reply: &ShardReply) -> bool {
    matches!(reply, ShardReply::Append(Ok(_)))
}

fn is_ended(reply: &ShardReply) -> bool {
    matches!(
        reply,
        ShardReply::Transaction(Ok(transactions::Response::EndTxn(Ok(_))))
    )
}

pub(crate) fn is_committed(reply: &ShardReply) -> bool {
    match reply {
        ShardReply::Group(Ok(groups::Response::CommitOffsets(codes))) => codes[0].is_none(),
        ShardReply::Group(Ok(groups::Response::CommitTransactionalOffsets(codes))) => {
            codes[0].is_none()
        }
        _ => false,
    }
}

/// A transaction of one batch on the data partition.
fn begin(world: &mut World) -> Pair {
    let pair = world.init();
    world.add(pair, "data");
    world.append(pair, 0, &["a"], true).expect("appended");
    pair
}

fn bounds(world: &mut World) -> (i64, i64) {
    let read = world.read(Isolation::ReadUncommitted);
    (read.high_watermark.0, read.last_stable_offset.0)
}

/// The high watermark of another partition.
fn high_watermark(world: &mut World, id: PartitionId) -> i64 {
    latest(world, id, Isolation::ReadUncommitted)
}

/// The bound of readers of a partition.
pub(crate) fn latest(world: &mut World, id: PartitionId, isolation: Isolation) -> i64 {
    let reply = world.ask(id, |to| ShardMessage::FindOffset {
        query: OffsetQuery::Latest,
        isolation,
        current_leader_epoch: tally_protocol::LeaderEpoch::NONE,
        to,
    });
    match reply {
        ShardReply::Offset(Ok(OffsetLookup::At { offset, .. })) => offset.0,
        other => panic!("{other:?}"),
    }
}

// The first table: when a write is answered.

#[test]
fn r1_produce_waits_for_its_sync_in_always_alone() {
    let write = |world: &mut World| answer(world, DATA, produce(PLAIN, 0, "a"));
    check(Answered::InPlace, Answered::Synced, write, is_appended);
}

#[test]
fn p33_a_duplicate_waits_as_its_original_does() {
    for durability in [Durability::Commit, Durability::Always] {
        let mut world = World::durable(durability);
        let original = world.send(DATA, produce(PLAIN, 0, "a"));
        let copy = world.send(DATA, produce(PLAIN, 0, "a"));
        let expected = durability == Durability::Commit;
        assert_eq!(world.reply(original).is_some(), expected, "{durability:?}");
        assert_eq!(world.reply(copy).is_some(), expected, "{durability:?}");
        assert_eq!(world.sync(), !expected, "{durability:?}");
        assert_eq!(world.reply(copy).is_some(), !expected, "{durability:?}");
    }
}

/// A refusal promises nothing, so it has nothing to wait for.
#[test]
fn a_refused_batch_is_answered_at_once() {
    let mut world = World::durable(Durability::Always);
    world.send(DATA, produce(PLAIN, 0, "a"));
    let gap = world.send(DATA, produce(PLAIN, 7, "b"));
    assert!(matches!(
        world.reply(gap),
        Some(ShardReply::Append(Err(refusal))) if refusal.code == ErrorCode::OutOfOrderSequenceNumber
    ));
}

#[test]
fn r1_flush_messages_1_raises_one_topic_to_always() {
    let mut world = World::durable(Durability::Commit);
    world.sync_every_append(DATA);
    let (answered, reply) = answer(&mut world, DATA, produce(PLAIN, 0, "a"));
    assert!(is_appended(&reply));
    assert_eq!(answered, Answered::Synced);
    world.send(DATA, produce(PLAIN, 1, "b"));
    assert_eq!(bounds(&mut world), (1, 1), "D-12");
    world.sync();
    assert_eq!(bounds(&mut world), (2, 2));
}

#[test]
fn r13_joining_a_transaction_waits_for_nothing() {
    let write = |world: &mut World| {
        let pair = world.init();
        answer(world, TRANSACTIONS, join(pair, "data"))
    };
    check(Answered::InPlace, Answered::InPlace, write, |reply| {
        let joined = transactions::Response::AddPartitions(ErrorCode::None);
        matches!(reply, ShardReply::Transaction(Ok(response)) if *response == joined)
    });
}

#[test]
fn r1_offsets_in_a_transaction_wait_for_their_sync_in_always_alone() {
    let write = |world: &mut World| {
        let pair = world.init();
        let message = transactional_offsets(world, pair, 9);
        answer(world, GROUPS, message)
    };
    check(Answered::InPlace, Answered::Synced, write, is_committed);
}

/// TxnOffsetCommit, its group having joined.
pub(crate) fn transactional_offsets(
    world: &mut World,
    pair: Pair,
    offset: i64,
) -> impl FnOnce(ReplyTo) -> ShardMessage + use<> {
    world.add(pair, "offsets");
    let guard = world.verify(GROUPS, pair, Sequence::NONE);
    move |to| ShardMessage::TransactionalOffsets {
        command: groups::Command::CommitTransactionalOffsets(groups::TransactionalCommitRequest {
            group: Arc::from("g"),
            member_id: Arc::default(),
            instance_id: None,
            generation: -1,
            offsets: offsets(offset),
        }),
        producer_id: pair.0,
        producer_epoch: pair.1,
        guard,
        size_bytes: 1000,
        to,
    }
}

#[test]
fn i20_init_producer_id_is_answered_when_it_is_synced() {
    let write = |world: &mut World| answer(world, TRANSACTIONS, init());
    check(Answered::Synced, Answered::Synced, write, |reply| {
        matches!(
            reply,
            ShardReply::Transaction(Ok(transactions::Response::InitProducerId(Ok(_))))
        )
    });
}

/// Data, decision, markers and Complete are one group: the contract of the prefix-ordered journal.
#[test]
fn r11_a_commit_is_answered_after_one_sync() {
    let write = |world: &mut World| {
        let pair = begin(world);
        assert!(!world.sync(), "nothing was handed over before");
        answer(world, TRANSACTIONS, end(pair, true))
    };
    check(Answered::Synced, Answered::Synced, write, is_ended);
}

#[test]
fn r11_an_abort_is_answered_after_one_sync() {
    let write = |world: &mut World| {
        let pair = begin(world);
        answer(world, TRANSACTIONS, end(pair, false))
    };
    check(Answered::Synced, Answered::Synced, write, is_ended);
}

/// The retry of an answered EndTxn must not be answered before what it repeats is synced.
#[test]
fn r17_a_repeated_end_waits_as_the_first_one_does() {
    for durability in [Durability::Commit, Durability::Always] {
        let mut world = World::durable(durability);
        let pair = begin(&mut world);
        let first = world.send(TRANSACTIONS, end(pair, true));
        let again = world.send(TRANSACTIONS, end(pair, true));
        assert!(world.reply(first).is_none() && world.reply(again).is_none());
        assert!(world.sync());
        assert!(world.reply(first).is_some_and(|reply| is_ended(&reply)));
        assert!(world.reply(again).is_some_and(|reply| is_ended(&reply)));
    }
}

#[test]
fn m10_an_operators_marker_is_answered_when_it_is_synced() {
    let write = |world: &mut World| {
        let pair = begin(world);
        let marker = Marker {
            producer_id: pair.0,
            producer_epoch: pair.1,
            coordinator_epoch: CoordinatorEpoch(1),
            commit: false,
            transaction_version: 0,
        };
        answer(world, DATA, |to| ShardMessage::WriteMarker { marker, to })
    };
    check(Answered::Synced, Answered::Synced, write, |reply| {
        matches!(reply, ShardReply::Marker(Ok(())))
    });
}

#[test]
fn r1_committed_offsets_are_answered_when_they_are_synced() {
    let write = |world: &mut World| answer(world, GROUPS, commit_offset(5));
    check(Answered::Synced, Answered::Synced, write, is_committed);
}

#[test]
fn r1_deleted_offsets_are_answered_when_that_is_synced() {
    let write = |world: &mut World| {
        answer(world, GROUPS, commit_offset(5));
        let request = groups::DeleteOffsetsRequest {
            group: Arc::from("g"),
            partitions: vec![(Arc::from("data"), 0)],
        };
        answer(
            world,
            GROUPS,
            group(groups::Command::DeleteOffsets(request)),
        )
    };
    check(Answered::Synced, Answered::Synced, write, |reply| {
        matches!(
            reply,
            ShardReply::Group(Ok(groups::Response::DeleteOffsets(response))) if response.error.is_none()
        )
    });
}

#[test]
fn r1_a_deleted_group_is_answered_when_that_is_synced() {
    let write = |world: &mut World| {
        answer(world, GROUPS, commit_offset(5));
        let command = groups::Command::DeleteGroup {
            group: Arc::from("g"),
        };
        answer(world, GROUPS, group(command))
    };
    check(Answered::Synced, Answered::Synced, write, |reply| {
        let done = groups::Response::DeleteGroup(ErrorCode::None);
        matches!(reply, ShardReply::Group(Ok(response)) if *response == done)
    });
}

#[test]
fn r1_group_membership_waits_for_its_sync_in_always_alone() {
    let write = |world: &mut World| {
        let joined = world.ask_and_pass_ms(
            GROUPS,
            group(groups::Command::Join(crate::refusals::join())),
            5_000,
        );
        assert_eq!(joined.len(), 1, "{joined:?}");
        let command = crate::refusals::sync(1, Bytes::from_static(b"assignment"));
        answer(world, GROUPS, group(command))
    };
    check(Answered::InPlace, Answered::Synced, write, |reply| {
        matches!(
            reply,
            ShardReply::Group(Ok(groups::Response::Sync(response))) if response.error.is_none()
        )
    });
}

#[test]
fn r1_what_was_answered_is_there_after_a_kill() {
    for durability in [Durability::Commit, Durability::Always] {
        let mut world = World::durable(durability);
        let pair = begin(&mut world);
        assert_eq!(world.end(pair, true), Ok(pair));
        world.ask(GROUPS, commit_offset(5));
        world.append(PLAIN, 0, &["b"], false).expect("appended");
        let mut world = world.crash();
        assert_eq!(bounds(&mut world), (3, 3), "{durability:?}");
        let reply = world.ask(GROUPS, fetch_offset(true));
        assert_eq!(fetched(&reply), (5, ErrorCode::None), "{durability:?}");
        let again = world.append(PLAIN, 0, &["b"], false).expect("a duplicate");
        assert_eq!(again.base_offset, Offset(2), "{durability:?}");
        let next = world.init();
        assert_eq!((next.0, next.1.0), (pair.0, pair.1.0 + 1));
    }
}

#[test]
fn r1_a_clean_stop_keeps_everything() {
    for durability in [Durability::Commit, Durability::Always] {
        let mut world = World::durable(durability);
        world.append(PLAIN, 0, &["a"], false).expect("appended");
        world.ask(GROUPS, commit_offset(1));
        let mut world = world.restart();
        assert_eq!(bounds(&mut world), (1, 1), "{durability:?}");
        let reply = world.ask(GROUPS, fetch_offset(true));
        assert_eq!(fetched(&reply), (1, ErrorCode::None), "{durability:?}");
    }
}

// The second table: what readers see.

#[test]
fn d12_in_always_nothing_is_seen_before_it_is_synced() {
    let mut world = World::durable(Durability::Always);
    world.send(DATA, produce(PLAIN, 0, "a"));
    let waiter = WaiterId(1);
    let read = world
        .read_from(Offset::ZERO, Isolation::ReadUncommitted, Some(waiter))
        .expect("an empty read");
    assert_eq!((read.high_watermark.0, read.slices.len()), (0, 0));
    assert!(world.woken.is_empty(), "F-4");
    world.sync();
    assert_eq!(world.woken, [waiter]);
    assert_eq!(bounds(&mut world), (1, 1));
}

#[test]
fn d12_in_commit_plain_records_are_seen_in_place() {
    let mut world = World::durable(Durability::Commit);
    world.send(DATA, produce(PLAIN, 0, "a"));
    assert_eq!(bounds(&mut world), (1, 1));
    assert!(!world.sync(), "nothing asks for a sync");
}

#[test]
fn d12_in_commit_internal_topics_are_seen_when_they_are_synced() {
    let mut world = World::durable(Durability::Commit);
    world.send(TRANSACTIONS, init());
    assert_eq!(high_watermark(&mut world, TRANSACTIONS), 0);
    world.sync();
    assert_eq!(high_watermark(&mut world, TRANSACTIONS), 1);
    world.send(GROUPS, commit_offset(5));
    assert_eq!(high_watermark(&mut world, GROUPS), 0);
    world.sync();
    assert_eq!(high_watermark(&mut world, GROUPS), 1);
}

#[test]
fn m12_in_commit_a_decided_transaction_holds_readers_until_its_marker_is_synced() {
    for commit in [true, false] {
        let mut world = World::durable(Durability::Commit);
        let pair = begin(&mut world);
        world.send(DATA, produce(PLAIN, 0, "b"));
        assert_eq!(bounds(&mut world), (2, 0));
        let waiter = WaiterId(1);
        let read = world.read_from(Offset::ZERO, Isolation::ReadCommitted, Some(waiter));
        assert!(read.expect("an empty read").slices.is_empty());
        world.send(TRANSACTIONS, end(pair, commit));
        assert_eq!(
            bounds(&mut world),
            (3, 0),
            "the marker is there, not synced"
        );
        assert!(world.woken.is_empty(), "F-4");
        world.sync();
        assert_eq!(bounds(&mut world), (3, 3));
        assert_eq!(world.woken, [waiter]);
    }
}

#[test]
fn m12_in_always_the_bound_of_committed_data_follows_the_synced_offset() {
    let mut world = World::durable(Durability::Always);
    let pair = begin(&mut world);
    assert_eq!(bounds(&mut world), (1, 0));
    world.send(TRANSACTIONS, end(pair, true));
    assert_eq!(bounds(&mut world), (1, 0));
    world.sync();
    assert_eq!(bounds(&mut world), (2, 2));
}

/// Another shard may have answered EndTxn already, and its client reads at once.
#[test]
fn d06_a_read_after_the_sync_sees_what_was_synced() {
    for durability in [Durability::Commit, Durability::Always] {
        let mut world = World::durable(durability);
        let pair = begin(&mut world);
        world.send(TRANSACTIONS, end(pair, true));
        world.sync_unheard();
        assert_eq!(bounds(&mut world), (2, 2), "{durability:?}");
    }
}

/// An abort by the broker is synced without anybody waiting for an answer: it holds readers.
#[test]
fn m12_a_timeouts_marker_is_synced_in_the_background() {
    let mut world = World::durable(Durability::Commit);
    begin(&mut world);
    world.pass_ms(80_000);
    assert_eq!(bounds(&mut world), (2, 0));
    assert!(world.sync());
    assert_eq!(bounds(&mut world), (2, 2));
}

#[test]
fn d12_offset_fetch_shows_synced_offsets_alone() {
    for durability in [Durability::Commit, Durability::Always] {
        let mut world = World::durable(durability);
        world.send(GROUPS, commit_offset(5));
        let early = world.send(GROUPS, fetch_offset(false));
        assert!(world.reply(early).is_none(), "{durability:?}");
        world.sync();
        let reply = world.reply(early).expect("synced");
        assert_eq!(fetched(&reply), (5, ErrorCode::None), "{durability:?}");
    }
}

#[test]
fn o15_in_commit_a_pending_offset_is_unstable_from_the_moment_it_is_in_place() {
    let mut world = World::durable(Durability::Commit);
    world.ask(GROUPS, commit_offset(5));
    let pair = world.init();
    let message = transactional_offsets(&mut world, pair, 9);
    world.send(GROUPS, message);
    let reply = world.ask(GROUPS, fetch_offset(true));
    assert_eq!(fetched(&reply), (-1, ErrorCode::UnstableOffsetCommit));
    world.send(TRANSACTIONS, end(pair, true));
    let early = world.send(GROUPS, fetch_offset(true));
    assert!(world.reply(early).is_none(), "its marker is not synced");
    world.sync();
    let reply = world.reply(early).expect("synced");
    assert_eq!(fetched(&reply), (9, ErrorCode::None));
}

/// The id's state as an operator sees it.
fn state_of_transaction(world: &mut World) -> String {
    let what = Inspection::Transaction(Arc::from("t"));
    match world.ask(TRANSACTIONS, |to| ShardMessage::Inspect { what, to }) {
        ShardReply::Inspected(Ok(Inspected::Transaction(Some(found)))) => {
            found.state.name().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

// What has to be synced first (E-7, R-18).

#[test]
fn e7_in_commit_the_data_is_handed_over_before_the_decision() {
    let mut world = World::durable(Durability::Commit);
    let pair = begin(&mut world);
    world.holds_commits = true;
    let to = world.send(TRANSACTIONS, end(pair, true));
    assert_eq!(world.held_commits(), 1);
    assert_eq!(state_of_transaction(&mut world), "Ongoing");
    world.let_commits_go();
    assert!(world.reply(to).is_none());
    assert!(world.sync());
    assert!(world.reply(to).is_some_and(|reply| is_ended(&reply)));
    assert_eq!(state_of_transaction(&mut world), "CompleteCommit");
}

#[test]
fn e7_the_data_is_synced_before_there_is_a_marker() {
    let mut world = World::durable(Durability::Commit);
    begin(&mut world);
    while world.sync() {}
    world.tell(DATA, ShardMessage::Secure { upto: None });
    assert!(world.sync(), "the data was in place alone");
    world.tell(DATA, ShardMessage::Secure { upto: None });
    assert!(!world.sync(), "it has been synced");
}

#[test]
fn e7_partitions_that_join_meanwhile_are_secured_too() {
    let mut world = World::durable(Durability::Commit);
    let pair = begin(&mut world);
    world.holds_commits = true;
    let to = world.send(TRANSACTIONS, end(pair, true));
    assert_eq!(world.add(pair, "more"), ErrorCode::None);
    let held = world.take_commits();
    world.let_go(held);
    assert_eq!(world.held_commits(), 1, "once more, with the new one");
    assert_eq!(state_of_transaction(&mut world), "Ongoing");
    world.let_commits_go();
    assert!(world.sync());
    assert!(world.reply(to).is_some_and(|reply| is_ended(&reply)));
}

#[test]
fn e7_in_always_a_commit_has_nothing_to_secure() {
    let mut world = World::durable(Durability::Always);
    let pair = begin(&mut world);
    world.holds_commits = true;
    world.send(TRANSACTIONS, end(pair, true));
    assert_eq!(world.held_commits(), 0);
}

#[test]
fn r18_in_commit_the_input_is_handed_over_when_it_is_asked_for() {
    let mut world = World::durable(Durability::Commit);
    world.send(DATA, produce(PLAIN, 0, "a"));
    assert!(!world.sync());
    let upto = Some(Offset(1));
    world.tell(DATA, ShardMessage::Secure { upto });
    assert!(world.sync());
    world.tell(DATA, ShardMessage::Secure { upto });
    assert!(!world.sync(), "it has been synced");
}
