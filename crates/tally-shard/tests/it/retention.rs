//! Old segments go; what readers, producers and transactions see of it, over restarts too.

use crate::world::{DATA, START_MS, World, batch};
use tally_protocol::build::BatchBuilder;
use tally_protocol::{ErrorCode, Offset, ProducerEpoch, ProducerId};
use tally_shard::{Isolation, RetentionSettings, ShardMessage, ShardReply, WaiterId};
use tally_storage::LogOptions;

/// A producer without a transaction.
const PLAIN: (ProducerId, ProducerEpoch) = (ProducerId(77), ProducerEpoch(0));
/// The first pass.
const FIRST_MS: u64 = 30_000;
/// Nothing, or a way to stop.
const STOPS: [fn(World) -> World; 3] = [|world| world, World::crash, World::restart];

/// A segment for each batch.
fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 70,
        ..LogOptions::default()
    }
}

fn keep(retention_ms: i64, retention_bytes: i64) -> RetentionSettings {
    RetentionSettings {
        delete: true,
        retention_ms,
        retention_bytes,
    }
}

fn fill(world: &mut World, from: i32, to: i32) {
    for sequence in from..to {
        world
            .append(PLAIN, sequence, &["x"], false)
            .expect("appended");
    }
}

/// Log start, last stable offset, high watermark.
fn offsets(world: &mut World, from: i64) -> (i64, i64, i64) {
    let read = world
        .read_from(Offset(from), Isolation::ReadCommitted, None)
        .expect("in range");
    (
        read.log_start.0,
        read.last_stable_offset.0,
        read.high_watermark.0,
    )
}

#[test]
fn lr61_an_idle_partition_becomes_empty() {
    for options in [small(), LogOptions::default()] {
        let mut world = World::with(options, keep(10_000, -1));
        fill(&mut world, 0, 3);
        world.pass_ms(FIRST_MS - 1);
        assert_eq!(offsets(&mut world, 3), (0, 3, 3));
        world.pass_ms(1);
        assert_eq!(offsets(&mut world, 3), (3, 3, 3));
        let below = world.read_from(Offset(2), Isolation::ReadUncommitted, None);
        assert_eq!(below.err(), Some(ErrorCode::OffsetOutOfRange));
        let next = world.append(PLAIN, 3, &["x"], false).expect("appended");
        assert_eq!((next.base_offset, next.log_start), (Offset(3), Offset(3)));
    }
}

#[test]
fn lr60_by_size_as_much_stays_as_is_to_be_kept() {
    let bytes = i64::try_from(batch(PLAIN, 0, &["x"], false).len()).expect("small");
    for (kept_bytes, log_start) in [(2 * bytes, 3), (2 * bytes + 1, 2), (bytes - 1, 4), (0, 5)] {
        let mut world = World::with(small(), keep(-1, kept_bytes));
        fill(&mut world, 0, 5);
        world.pass_ms(FIRST_MS);
        assert_eq!(offsets(&mut world, 5).0, log_start, "{kept_bytes}");
    }
}

#[test]
fn a_turn_removes_a_few_segments_only() {
    let mut world = World::with(small(), keep(-1, 0));
    fill(&mut world, 0, 40);
    world.pass_ms(FIRST_MS);
    assert_eq!(offsets(&mut world, 40).0, 16);
    world.pass_ms(1);
    assert_eq!(offsets(&mut world, 40).0, 32);
    world.pass_ms(1);
    assert_eq!(offsets(&mut world, 40).0, 40);
    fill(&mut world, 40, 42);
    world.pass_ms(crate::world::RETENTION_CHECK_MS - 2);
    assert_eq!(offsets(&mut world, 42).0, 40, "the next pass is not due");
    // The turn that found nothing more to do ended the last pass.
    world.pass_ms(3);
    assert_eq!(offsets(&mut world, 42).0, 42);
}

#[test]
fn a_waiting_fetch_is_woken_when_the_log_start_moves() {
    let mut world = World::with(small(), keep(10_000, -1));
    fill(&mut world, 0, 2);
    for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
        let waiter = Some(WaiterId(if isolation == Isolation::ReadCommitted {
            1
        } else {
            2
        }));
        world
            .read_from(Offset(2), isolation, waiter)
            .expect("at the end");
    }
    world.pass_ms(FIRST_MS - 1);
    assert_eq!(world.woken, []);
    world.pass_ms(1);
    world.woken.sort_by_key(|waiter| waiter.0);
    assert_eq!(world.woken, [WaiterId(1), WaiterId(2)]);
}

#[test]
fn compacted_topics_and_the_logs_of_coordinators_are_left_alone() {
    let compact = RetentionSettings {
        delete: false,
        ..keep(0, 0)
    };
    let mut world = World::with(small(), compact);
    fill(&mut world, 0, 3);
    world.pass_ms(FIRST_MS);
    assert_eq!(offsets(&mut world, 0), (0, 3, 3));

    for stop in STOPS {
        let mut world = World::with(small(), keep(0, 0));
        let old = world.init();
        world.init();
        world.pass_ms(FIRST_MS);
        let mut world = stop(world);
        let new = world.init();
        assert_eq!((new.0, new.1.0), (old.0, old.1.0 + 2));
    }
}

#[test]
fn c2_an_open_transaction_holds_nothing_back_and_is_decided_as_usual() {
    for stop in STOPS {
        for commit in [false, true] {
            let mut world = World::with(small(), keep(10_000, -1));
            let pair = world.init();
            world.add(pair, "data");
            world.append(pair, 0, &["a"], true).expect("appended");
            fill(&mut world, 0, 2);
            assert_eq!(offsets(&mut world, 0), (0, 0, 3));
            world.pass_ms(FIRST_MS);
            assert_eq!(offsets(&mut world, 3), (3, 3, 3));

            let mut world = stop(world);
            assert_eq!(offsets(&mut world, 3), (3, 3, 3));
            fill(&mut world, 2, 3);
            assert_eq!(offsets(&mut world, 3), (3, 3, 4), "still open");
            world.append(pair, 1, &["b"], true).expect("appended");
            assert_eq!(world.end(pair, commit), Ok(pair));
            assert_eq!(offsets(&mut world, 3), (3, 6, 6));

            let mut world = stop(world);
            let read = world
                .read_from(Offset(3), Isolation::ReadCommitted, None)
                .expect("in range");
            let named = if commit {
                vec![]
            } else {
                vec![(pair.0, Offset(0))]
            };
            assert_eq!(read.aborted, named);
            assert_eq!(read.log_start, Offset(3));
        }
    }
}

#[test]
fn p57_d10_producers_are_remembered_when_all_they_wrote_is_gone() {
    for stop in STOPS {
        for options in [small(), LogOptions::default()] {
            let mut world = World::with(options, keep(10_000, -1));
            fill(&mut world, 0, 7);
            world.pass_ms(FIRST_MS);
            let mut world = stop(world);
            assert_eq!(offsets(&mut world, 7), (7, 7, 7));
            for sequence in 2..7 {
                let again = world
                    .append(PLAIN, sequence, &["x"], false)
                    .expect("recognised");
                assert_eq!(again.base_offset, Offset(i64::from(sequence)));
            }
            let gap = world.append(PLAIN, 9, &["x"], false).expect_err("a gap");
            assert_eq!(gap.code, ErrorCode::OutOfOrderSequenceNumber);
            let next = world.append(PLAIN, 7, &["x"], false).expect("appended");
            assert_eq!(next.base_offset, Offset(7));
            // Once more, with what came behind the log start.
            let mut world = stop(world);
            let again = world.append(PLAIN, 6, &["x"], false).expect("recognised");
            assert_eq!(again.base_offset, Offset(6));
            let next = world.append(PLAIN, 8, &["x"], false).expect("appended");
            assert_eq!((next.base_offset, next.log_start), (Offset(8), Offset(7)));
        }
    }
}

#[test]
fn lr62_without_timestamps_the_age_of_the_file_counts() {
    let mut world = World::with(small(), keep(10_000, -1));
    let mut builder = BatchBuilder::new(-1);
    builder.push(None, Some(b"x"));
    let batch = builder.finish();
    let reply = world.ask(DATA, |to| ShardMessage::Append {
        batch,
        guard: None,
        to,
    });
    assert!(matches!(reply, ShardReply::Append(Ok(_))), "{reply:?}");
    // The clock of these tests is years behind the file system's.
    world.pass_ms(FIRST_MS);
    assert_eq!(offsets(&mut world, 0).0, 0);
    let century_ms = 100 * 365 * 86_400_000;
    assert!(START_MS < i64::MAX - century_ms);
    world.skip_ms(century_ms.unsigned_abs());
    world.turn();
    assert_eq!(offsets(&mut world, 1).0, 1);
}
