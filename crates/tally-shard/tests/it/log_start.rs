//! What a log start that moves does not take with it: the producers of the records below it (D-10), whatever the disk does.

use crate::history::small_segments;
use crate::world::{DATA, World, batch};
use tally_protocol::{ErrorCode, Offset, ProducerEpoch, ProducerId};
use tally_shard::{CompactionSettings, ShardMessage, ShardReply};
use tally_storage::{Durability, LogOptions};
use tally_testkit::simulated_disk::{Action, Moment, Root, SimulatedDisk};
use tally_transactions::Fence;

/// Its records are deleted.
const GONE: (ProducerId, ProducerEpoch) = (ProducerId(7), ProducerEpoch(0));
/// It goes on.
const OTHER: (ProducerId, ProducerEpoch) = (ProducerId(8), ProducerEpoch(0));

fn append(world: &mut World, pair: (ProducerId, ProducerEpoch), sequence: i32) -> i64 {
    let placed = world.append(pair, sequence, &["a value"], false);
    placed.expect("appended").base_offset.0
}

fn begin(root: &Root, log: LogOptions, durability: Durability) -> World {
    World::compacted_at(root.path(), log, CompactionSettings::OFF, durability)
}

fn delete(world: &mut World, before: i64) -> Result<Offset, ErrorCode> {
    let before = Some(Offset(before));
    match world.ask(DATA, |to| ShardMessage::DeleteRecords { before, to }) {
        ShardReply::Deleted(deleted) => deleted,
        other => panic!("{other:?}"),
    }
}

/// How the broker went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    Killed,
    PowerCut,
}

/// Starts on what a moment leaves: the producer that is gone from the log is known by its sequence.
fn knows(world: &World, moment: &Moment, down: Down, what: &str) {
    let image = Root::new("down");
    let (boot, fence) = match (down, world.durability()) {
        (Down::Killed, _) => (moment.boot_id().to_owned(), None),
        (Down::PowerCut, Durability::Always) => ("another".to_owned(), None),
        (Down::PowerCut, _) => ("another".to_owned(), Some(Fence::Epoch)),
    };
    match down {
        Down::Killed => moment.killed(image.path()),
        Down::PowerCut => moment.only_synced(image.path()),
    }
    let watched = SimulatedDisk::new(image.path(), &boot).install();
    let mut found = world.image_after(image.path(), fence);
    let again = batch(GONE, 0, &["a value"], false);
    let reply = found.ask(DATA, |to| ShardMessage::Append {
        batch: again,
        guard: None,
        to,
    });
    let is_known =
        matches!(&reply, ShardReply::Append(Ok(outcome)) if outcome.base_offset == Offset::ZERO);
    assert!(is_known, "{down:?} {what}: {reply:?}");
    drop(watched);
}

/// Later snapshots are not synced when they are written: the one that was, and that the log reaches, is not to go before another
/// one is on the disk.
#[test]
fn d10_a_power_cut_forgets_no_producer_whose_records_were_deleted() {
    for durability in [Durability::Always, Durability::Commit] {
        let root = Root::new("below");
        let disk = SimulatedDisk::new(root.path(), "one");
        let watched = disk.install();
        let mut world = begin(&root, small_segments(400), durability);
        append(&mut world, GONE, 0);
        for sequence in 0..12 {
            append(&mut world, OTHER, sequence);
        }
        // What is in place and not synced as the records go: a power cut takes a snapshot from behind it.
        let unsynced = batch(OTHER, 12, &["a value"], false);
        world.send(DATA, |to| ShardMessage::Append {
            batch: unsynced,
            guard: None,
            to,
        });
        assert_eq!(delete(&mut world, 10), Ok(Offset(10)));
        knows(&world, &disk.capture(), Down::PowerCut, "as it is answered");
        for sequence in 13..60 {
            append(&mut world, OTHER, sequence);
            if sequence % 8 == 0 {
                world.checkpoint();
            }
            let what = format!("{durability:?}, after {sequence}");
            knows(&world, &disk.capture(), Down::PowerCut, &what);
        }
        drop(watched);
    }
}

/// Without a snapshot there is nothing that may go: the records stay, and so does what a start makes of them.
#[test]
fn d10_on_a_full_disk_nothing_goes_whose_producers_cannot_be_kept() {
    for durability in [Durability::Os, Durability::Always] {
        let root = Root::new("full");
        let disk = SimulatedDisk::new(root.path(), "one");
        let watched = disk.install();
        let mut world = begin(&root, LogOptions::default(), durability);
        append(&mut world, GONE, 0);
        for sequence in 0..5 {
            append(&mut world, OTHER, sequence);
        }
        disk.set_space(Some(disk.used()));
        disk.on_operation(|_| Action::Capture);
        assert_eq!(delete(&mut world, 3), Err(ErrorCode::KafkaStorageError));
        disk.let_be();
        let start = world
            .read(tally_shard::Isolation::ReadUncommitted)
            .log_start;
        assert_eq!(start, Offset::ZERO, "nothing went");
        for capture in disk.take_captures() {
            knows(&world, &capture.moment, Down::Killed, &capture.before.text);
        }
        disk.set_space(None);
        assert_eq!(delete(&mut world, 3), Ok(Offset(3)));
        knows(&world, &disk.capture(), Down::Killed, "with room again");
        drop(watched);
    }
}

/// What makes room must not need room: up to a snapshot that is there records go without another one.
#[test]
fn d10_a_full_disk_is_emptied_and_at_no_moment_a_producer_is_forgotten() {
    for durability in [Durability::Os, Durability::Always] {
        let root = Root::new("emptied");
        let disk = SimulatedDisk::new(root.path(), "one");
        let watched = disk.install();
        let mut world = begin(&root, small_segments(400), durability);
        append(&mut world, GONE, 0);
        for sequence in 0..30 {
            append(&mut world, OTHER, sequence);
        }
        if durability == Durability::Always {
            world.checkpoint();
        }
        let before = world.segments(DATA);
        disk.set_space(Some(disk.used()));
        disk.on_operation(|_| Action::Capture);
        assert_eq!(delete(&mut world, 31), Ok(Offset(31)), "{durability:?}");
        disk.let_be();
        assert!(world.segments(DATA) < before, "there is room again");
        let captures = disk.take_captures();
        assert!(captures.len() > 10, "{}", captures.len());
        for capture in captures {
            let what = format!("{durability:?}, before {}", capture.before.text);
            knows(&world, &capture.moment, Down::Killed, &what);
            if durability == Durability::Always {
                knows(&world, &capture.moment, Down::PowerCut, &what);
            }
        }
        knows(&world, &disk.capture(), Down::Killed, "in the end");
        drop(watched);
    }
}
