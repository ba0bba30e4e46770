//! flush.messages and flush.ms (LR-55, R-1, L16): when the log of a partition is synced because its topic says so, and what a
//! power cut leaves then. In `os`, where nothing else is synced.

use crate::durability::{end, latest};
use crate::world::{DATA, MORE, TRANSACTIONS, World, batch};
use std::io;
use tally_protocol::{ErrorCode, PartitionId, ProducerEpoch, ProducerId, Sequence};
use tally_shard::{CompactionSettings, Isolation, ReplyTo, ShardMessage, ShardReply};
use tally_storage::{Durability, LogOptions};
use tally_testkit::simulated_disk::{Action, Root, SimulatedDisk};
use tally_transactions::Fence;

type Pair = (ProducerId, ProducerEpoch);

/// A producer without a transactional id.
const PLAIN: Pair = (ProducerId(7), ProducerEpoch(0));

/// A batch of one record.
fn produce(sequence: i32) -> impl FnOnce(ReplyTo) -> ShardMessage {
    move |to| ShardMessage::Append {
        batch: batch(PLAIN, sequence, &["a value"], false),
        guard: None,
        to,
    }
}

/// Sends a batch, which is answered at once.
#[track_caller]
fn append(world: &mut World, id: PartitionId, sequence: i32) {
    let to = world.send(id, produce(sequence));
    let reply = world.reply(to);
    assert!(
        matches!(reply, Some(ShardReply::Append(Ok(_)))),
        "{reply:?}"
    );
}

/// A broker in `os` on a disk that can lose its power.
fn on_disk(root: &Root) -> World {
    let (log, off) = (LogOptions::default(), CompactionSettings::OFF);
    World::compacted_at(root.path(), log, off, Durability::Os)
}

/// How many records of DATA a power cut leaves that takes all that was not synced.
fn left_by_power_cut(world: &World, disk: &SimulatedDisk) -> usize {
    let image = Root::new("cut");
    disk.capture().only_synced(image.path());
    disk.let_be();
    let _watched = SimulatedDisk::new(image.path(), "two").install();
    let mut found = world.image_after(image.path(), Some(Fence::ProducerId));
    found.log().len()
}

#[test]
fn l16_with_flush_messages_1_what_was_answered_survives_a_power_cut_in_os() {
    for flush_messages in [1, i64::MAX] {
        let root = Root::new("flush");
        let disk = SimulatedDisk::new(root.path(), "one");
        let watched = disk.install();
        disk.on_operation(|_| Action::Go);
        let mut world = on_disk(&root);
        world.flush_after(DATA, flush_messages, u64::MAX);
        for sequence in 0..3 {
            let to = world.send(DATA, produce(sequence));
            if flush_messages == 1 {
                assert!(world.reply(to).is_none(), "it waits for its sync");
                assert!(world.sync(), "there is something to sync");
            }
            let reply = world.reply(to);
            assert!(
                matches!(reply, Some(ShardReply::Append(Ok(_)))),
                "{reply:?}"
            );
        }
        let left = left_by_power_cut(&world, &disk);
        drop(watched);
        assert_eq!(left, if flush_messages == 1 { 3 } else { 0 });
    }
}

/// Who waits for a sync does not hold up those who don't, and the other way round.
#[test]
fn r1_in_os_only_the_topic_with_flush_messages_1_waits() {
    let mut world = World::durable(Durability::Os);
    world.sync_every_append(DATA);
    let first = world.send(DATA, produce(0));
    let copy = world.send(DATA, produce(0));
    append(&mut world, MORE, 0);
    assert!(world.reply(first).is_none());
    assert!(world.reply(copy).is_none(), "P-33: with its original");
    assert_eq!(latest(&mut world, DATA, Isolation::ReadUncommitted), 0);
    let pair = world.init();
    world.add(pair, "more");
    let guard = world.verify(MORE, pair, Sequence(0));
    let batch = batch(pair, 0, &["b"], true);
    let reply = world.ask(MORE, |to| ShardMessage::Append { batch, guard, to });
    assert!(matches!(reply, ShardReply::Append(Ok(_))), "{reply:?}");
    world.end(pair, true).expect("ended without a sync");
    assert!(world.reply(first).is_none(), "nothing was synced so far");
    assert!(world.sync());
    assert!(world.reply(first).is_some() && world.reply(copy).is_some());
    assert_eq!(latest(&mut world, DATA, Isolation::ReadUncommitted), 1);
}

/// D-6: what was ended can be read, though in `os` no coordinator waits for a sync of its own.
#[test]
fn d6_in_os_a_transaction_on_a_topic_with_flush_messages_1_ends_when_its_marker_is_synced() {
    let mut world = World::durable(Durability::Os);
    world.sync_every_append(DATA);
    let pair = world.init();
    world.add(pair, "data");
    let guard = world.verify(DATA, pair, Sequence(0));
    let bytes = batch(pair, 0, &["b"], true);
    let to = world.send(DATA, |to| ShardMessage::Append {
        batch: bytes,
        guard,
        to,
    });
    assert!(world.sync());
    assert!(world.reply(to).is_some());
    let to = world.send(TRANSACTIONS, end(pair, true));
    assert!(world.reply(to).is_none(), "its marker is not synced");
    assert!(world.sync());
    assert!(world.reply(to).is_some());
    assert_eq!(latest(&mut world, DATA, Isolation::ReadCommitted), 2);
}

#[test]
fn lr55_after_so_many_records_the_log_is_synced_and_nobody_waits() {
    let root = Root::new("flush");
    let disk = SimulatedDisk::new(root.path(), "one");
    let watched = disk.install();
    let mut world = on_disk(&root);
    world.flush_after(DATA, 3, u64::MAX);
    for sequence in 0..8 {
        append(&mut world, DATA, sequence);
        assert_eq!(world.sync(), sequence % 3 == 2, "after {sequence}");
    }
    let left = left_by_power_cut(&world, &disk);
    drop(watched);
    assert_eq!(left, 6);
}

#[test]
fn lr55_the_oldest_unsynced_record_is_synced_in_time() {
    let mut world = World::durable(Durability::Os);
    world.flush_after(DATA, i64::MAX, 1000);
    append(&mut world, DATA, 0);
    append(&mut world, MORE, 0);
    world.pass_ms(999);
    append(&mut world, DATA, 1);
    assert!(!world.sync(), "it is not time");
    world.pass_ms(1);
    assert!(world.sync());
    world.pass_ms(5000);
    assert!(!world.sync(), "nothing has come since");
    append(&mut world, DATA, 2);
    world.pass_ms(500);
    world.flush_after(DATA, i64::MAX, 100);
    world.pass_ms(100);
    assert!(world.sync(), "a new limit holds for what waits");
}

/// In `commit` the journal takes what the flush settings ask for; in `always` there is nothing left for them to do.
#[test]
fn lr55_where_durability_syncs_flushes_go_through_the_journal() {
    let mut world = World::durable(Durability::Commit);
    world.flush_after(DATA, 2, 1000);
    append(&mut world, DATA, 0);
    assert!(!world.sync());
    append(&mut world, DATA, 1);
    assert!(world.sync());
    append(&mut world, DATA, 2);
    world.pass_ms(1000);
    assert!(world.sync());
    let mut world = World::durable(Durability::Always);
    world.flush_after(DATA, 2, 1000);
    let to = world.send(DATA, produce(0));
    assert!(world.sync() && world.reply(to).is_some());
    world.pass_ms(1000);
    assert!(!world.sync());
}

/// what waited for it is refused, and what is in place is written anew; other answers do not depend on it.
#[test]
fn r5_a_failed_sync_refuses_what_waits_for_it() {
    let root = Root::new("flush");
    let disk = SimulatedDisk::new(root.path(), "one");
    let watched = disk.install();
    let mut world = on_disk(&root);
    world.sync_every_append(DATA);
    let first = world.send(DATA, produce(0));
    assert!(world.sync() && world.reply(first).is_some());
    let lost = world.send(DATA, produce(1));
    let mut fails = true;
    disk.on_operation(move |event| match fails && event.is_sync() {
        true => {
            fails = false;
            Action::Fail(io::ErrorKind::Other)
        }
        false => Action::Go,
    });
    world.sync();
    let refused = |reply: Option<ShardReply>| matches!(reply, Some(ShardReply::Append(Err(refusal))) if refusal.code == ErrorCode::KafkaStorageError);
    disk.let_be();
    let reply = world.reply(lost);
    assert!(refused(reply));
    let again = world.send(DATA, produce(1));
    world.sync();
    assert!(world.reply(again).is_some(), "a retry is taken");
    drop(watched);
}
