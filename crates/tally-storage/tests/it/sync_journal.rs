//! Durability `commit` and `always`: what is synced, and what a ticket says.

use crate::support::{Disk, PARTITION, SMALL, batch};
use bytes::Bytes;
use std::sync::Arc;
use tally_protocol::{LeaderEpoch, Offset, PartitionId};
use tally_storage::{
    DataDir, Durability, Entry, Journal, JournalGroup, JournalState, LogOptions, SegmentJournal,
    SyncJournal, SyncOptions, Ticket, read_recovery_points, visit_journal,
};

const OTHER: PartitionId = PartitionId {
    index: 4,
    ..PARTITION
};

/// A journal of a megabyte.
const OPTIONS: SyncOptions = SyncOptions {
    durability: Durability::Commit,
    journal_bytes: 1 << 20,
    copied_bytes_max: 8192,
};

struct Shards {
    sync: Arc<SyncJournal>,
    shards: Vec<SegmentJournal>,
}

impl Shards {
    /// Two shards with a partition each.
    fn start(dir: &Arc<DataDir>, durability: Durability, log: LogOptions) -> Shards {
        let sync = SyncJournal::open(
            Arc::clone(dir),
            SyncOptions {
                durability,
                ..OPTIONS
            },
        )
        .expect("the journal opens");
        let shards = [PARTITION, OTHER].map(|id| {
            let mut shard = SegmentJournal::synced(Arc::clone(dir), Arc::clone(&sync), durability);
            shard.open_partition(id, log).expect("the partition opens");
            shard
        });
        let shards = shards.into();
        Shards { sync, shards }
    }

    fn put(&mut self, id: PartitionId, payload: usize) -> Ticket {
        let shard = &mut self.shards[usize::from(id == OTHER)];
        put(shard, id, payload)
    }
}

/// Appends a batch of two records.
pub(crate) fn put(shard: &mut SegmentJournal, id: PartitionId, payload: usize) -> Ticket {
    let base = shard.log_end(id);
    let bytes = Bytes::from(batch(base.0, 2, 1, 1000 + base.0, payload));
    shard.reserve(id, bytes.len()).expect("the disk has room");
    let appended = shard.append(Entry {
        partition: id,
        leader_epoch: LeaderEpoch(1),
        base,
        last: base.plus(1),
        max_timestamp: 1000 + base.0,
        bytes,
    });
    assert_eq!(shard.state(), JournalState::Open);
    appended.ticket
}

#[test]
fn a_ticket_of_always_is_durable_when_a_turn_has_synced_it() {
    let disk = Disk::new();
    let mut shards = Shards::start(&disk.open(), Durability::Always, SMALL);
    let mut before = Ticket(0);
    for round in 0..20 {
        let first = shards.put(PARTITION, 100);
        let second = shards.put(OTHER, 100 + round);
        assert!(before < first && first < second, "tickets rise");
        assert!(shards.shards[0].durable() < first, "not without a turn");
        assert!(shards.sync.turn().expect("synced"), "there was something");
        assert_eq!(shards.shards[0].durable(), second);
        assert!(!shards.sync.turn().expect("nothing"), "nothing is left");
        before = second;
    }
}

#[test]
fn commit_syncs_what_is_handed_over_with_all_before_it() {
    let disk = Disk::new();
    let mut shards = Shards::start(&disk.open(), Durability::Commit, SMALL);
    for _ in 0..100 {
        let ticket = shards.put(PARTITION, 100);
        assert!(
            ticket <= shards.shards[0].durable(),
            "acknowledged in place"
        );
    }
    assert!(
        !shards.sync.turn().expect("nothing"),
        "nothing was handed over"
    );
    let shard = &mut shards.shards[0];
    let some = shard.hand_over(PARTITION, Some(Offset(20)));
    let again = shard.hand_over(PARTITION, Some(Offset(19)));
    assert_eq!(some, again, "one ticket covers both");
    let all = shard.hand_over(PARTITION, None);
    assert!(some <= all && shard.durable() < some);
    assert_eq!(shard.barrier(), all);
    assert!(shards.sync.turn().expect("synced"));
    assert_eq!(shards.shards[0].durable(), all);
    assert_eq!(shards.shards[0].hand_over(PARTITION, None), all);
    assert!(!shards.sync.turn().expect("nothing"), "all is synced");
}

#[test]
fn flush_messages_raises_one_partition_to_always() {
    let disk = Disk::new();
    let log = LogOptions {
        flush_messages: 1,
        ..SMALL
    };
    let mut shards = Shards::start(&disk.open(), Durability::Commit, log);
    let ticket = shards.put(PARTITION, 100);
    assert!(shards.shards[0].durable() < ticket);
    assert!(shards.sync.turn().expect("synced"));
    assert_eq!(shards.shards[0].durable(), ticket);
}

#[test]
fn what_the_journal_and_the_points_hold_can_be_looked_at() {
    let disk = Disk::new();
    let mut shards = Shards::start(&disk.open(), Durability::Always, SMALL);
    for round in 0..4 {
        shards.put(PARTITION, 100);
        shards.put(OTHER, 20_000 * usize::from(round == 2));
        shards.sync.turn().expect("synced");
    }
    let points = |name: &str| {
        let bytes = std::fs::read(disk.root().join(name)).expect("a file");
        read_recovery_points(&bytes).expect("whole")
    };
    let newest = || {
        let both = ["recovery-points-0", "recovery-points-1"].map(points);
        both.into_iter()
            .max_by_key(|file| file.counter)
            .expect("two")
    };
    let before = newest();
    assert_eq!(
        (before.durability, before.first_group),
        (Durability::Always, 1)
    );
    let mut groups = Vec::new();
    visit_journal(&disk.root().join("journal"), &mut |group| {
        groups.push(group)
    })
    .expect("read");
    let numbers: Vec<u64> = groups.iter().map(|group| group.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(
        groups
            .iter()
            .all(|group| group.generation == before.generation)
    );
    let kinds = |group: &JournalGroup| group.entries.iter().map(|entry| entry.kind).collect();
    let kinds: Vec<Vec<&str>> = groups.iter().map(kinds).collect();
    assert_eq!(kinds[0], ["copied", "copied"]);
    assert!(
        kinds[2].contains(&"synced"),
        "more than may be copied: {kinds:?}"
    );
    assert!(shards.sync.checkpoint().expect("synced"));
    let after = newest();
    assert_eq!(after.first_group, 5);
    let end = shards.shards[0].log_end(PARTITION);
    assert_eq!(after.points[&PARTITION].0, end);
    assert_eq!(shards.shards[0].settled(PARTITION), end);
}

/// What is wrong with one partition closes that one; what the journal holds of it waits in its segments until it is mended.
#[test]
fn a_damaged_log_start_closes_its_partition_and_loses_nothing_of_it() {
    for power_is_cut in [false, true] {
        let disk = Disk::new();
        let log_start = disk.directory().join("log-start");
        let mut shards = Shards::start(&disk.open(), Durability::Always, SMALL);
        for _ in 0..3 {
            shards.put(PARTITION, 100);
            shards.put(OTHER, 100);
            shards.sync.turn().expect("synced");
        }
        let moved = shards.shards[0].set_log_start(PARTITION, Offset(2));
        moved.expect("deleted up to there");
        drop(shards);
        let good = std::fs::read(&log_start).expect("it is there");
        std::fs::write(&log_start, b"0\nsomewhere").expect("damaged");
        if power_is_cut {
            disk.forget_boot();
            std::fs::write(disk.file(0, "log"), []).expect("it never reached the disk");
        }
        let dir = disk.open();
        let start = |dir: &Arc<DataDir>| {
            let options = SyncOptions {
                durability: Durability::Always,
                ..OPTIONS
            };
            let sync = SyncJournal::open(Arc::clone(dir), options).expect("the journal opens");
            SegmentJournal::synced(Arc::clone(dir), sync, Durability::Always)
        };
        let mut shard = start(&dir);
        let error = shard.open_partition(PARTITION, SMALL).expect_err("closed");
        assert!(error.to_string().contains("log-start"), "{error}");
        let other = shard.open_partition(OTHER, SMALL).expect("the other opens");
        assert_eq!(other.log_end, Offset(6));
        drop((shard, dir));
        std::fs::write(&log_start, good).expect("mended");
        let mut shard = start(&disk.open());
        let found = shard.open_partition(PARTITION, SMALL).expect("it opens");
        assert_eq!((found.log_start, found.log_end), (Offset(2), Offset(6)));
    }
}
