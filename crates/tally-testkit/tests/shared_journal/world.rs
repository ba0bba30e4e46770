//! Two shards, one journal and a disk with faults, driven by a seed.

use crate::model::{Batch, Disk, Found, HandedOver, Log, Model};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tally_protocol::build::BatchBuilder;
use tally_protocol::{LeaderEpoch, Offset, PartitionId, TopicId, batch};
use tally_storage::{
    DataDir, Durability, Entry, Journal, JournalState, LogOptions, SegmentJournal, StorageError,
    SyncJournal, SyncOptions, Ticket,
};
use tally_testkit::seed::Seed;

/// The partition whose records decide over others; it is never deleted.
const DECISIONS: i32 = 0;
const PARTITIONS: i32 = 5;

/// A topic is never made again under the same id.
fn new_id(index: i32, life: u64) -> PartitionId {
    let mut topic = [7; 16];
    topic[8..].copy_from_slice(&life.to_be_bytes());
    PartitionId {
        topic: TopicId(topic),
        index,
    }
}

pub(crate) fn options(index: i32) -> LogOptions {
    LogOptions {
        segment_bytes: 16 * 1024,
        index_interval_bytes: 500,
        synced_only: index == DECISIONS,
        ..LogOptions::default()
    }
}

/// A small journal, so that halves are turned over often.
pub(crate) fn sync_options(durability: Durability) -> SyncOptions {
    SyncOptions {
        durability,
        journal_bytes: 128 * 1024,
        copied_bytes_max: 6000,
    }
}

/// An opened directory.
pub(crate) struct World {
    pub(crate) model: Rc<RefCell<Model>>,
    pub(crate) dir: Arc<DataDir>,
    pub(crate) sync: Arc<SyncJournal>,
    shards: [SegmentJournal; 2],
    /// A partition is neither open nor gone.
    is_broken: bool,
}

/// A directory, its journal and two shards.
pub(crate) type Opened = (Arc<DataDir>, Arc<SyncJournal>, [SegmentJournal; 2]);

/// Opens a directory with all partitions.
pub(crate) fn open(
    root: &Path,
    ids: &[PartitionId],
    durability: Durability,
) -> Result<Opened, String> {
    let dir = DataDir::open(root).map_err(|error| error.to_string())?;
    let dir = Arc::new(dir);
    let sync = SyncJournal::open(Arc::clone(&dir), sync_options(durability));
    let sync = sync.map_err(|error| error.to_string())?;
    let shard = || SegmentJournal::synced(Arc::clone(&dir), Arc::clone(&sync), durability);
    let mut shards = [shard(), shard()];
    open_partitions(&mut shards, ids).map_err(|error| error.to_string())?;
    Ok((dir, sync, shards))
}

fn open_partitions(
    shards: &mut [SegmentJournal; 2],
    ids: &[PartitionId],
) -> Result<(), StorageError> {
    for id in ids {
        shards[shard_of(id.index)].open_partition(*id, options(id.index))?;
    }
    Ok(())
}

fn shard_of(index: i32) -> usize {
    usize::from(index % 2 == 1)
}

/// What two shards hold.
pub(crate) fn contents(shards: &[SegmentJournal; 2], ids: &[PartitionId]) -> Disk {
    let mut disk = BTreeMap::new();
    for id in ids {
        let (id, shard) = (*id, &shards[shard_of(id.index)]);
        let (start, end) = (shard.log_start(id), shard.log_end(id));
        let mut batches = Vec::new();
        shard
            .visit_batches(id, start, &mut |batch| {
                batches.push((batch.header().base_offset, batch.bytes().to_vec()));
                ControlFlow::Continue(())
            })
            .expect("what was recovered is good");
        disk.insert(
            id,
            Found {
                start,
                end,
                batches,
            },
        );
    }
    disk
}

impl World {
    /// A run in a new directory.
    pub(crate) fn new(root: &Path, durability: Durability) -> World {
        let ids: Vec<_> = (0..PARTITIONS).map(|index| new_id(index, 0)).collect();
        let (dir, sync, shards) = open(root, &ids, durability).expect("a new directory opens");
        let model = Model {
            durability,
            logs: ids.iter().map(|id| (*id, Log::new())).collect(),
            ids,
            lives: 0,
            deleting: Vec::new(),
            handed: Vec::new(),
            synced: 0,
        };
        let model = Rc::new(RefCell::new(model));
        World {
            model,
            dir,
            sync,
            shards,
            is_broken: false,
        }
    }

    /// The next run in a directory that may have lost something.
    pub(crate) fn resume(root: &Path, mut model: Model, durability: Durability) -> World {
        let opened = open(root, &model.ids, durability);
        let (dir, sync, mut shards) = opened.expect("it opens");
        let mut lives = model.lives;
        for id in std::mem::take(&mut model.deleting) {
            // It is there or not.
            let shard = &mut shards[shard_of(id.index)];
            shard.delete_partition(id).expect("deleted");
            lives += 1;
            let new = model.replace(id, new_id(id.index, lives));
            let opened = shard.open_partition(new, options(id.index));
            opened.expect("opens");
        }
        model.begin(&contents(&shards, &model.ids), durability);
        if dir.power_was_cut() {
            dir.power_cut_handled().expect("written");
        }
        let model = Rc::new(RefCell::new(model));
        World {
            model,
            dir,
            sync,
            shards,
            is_broken: false,
        }
    }

    pub(crate) fn contents(&self) -> Disk {
        contents(&self.shards, &self.model.borrow().ids)
    }

    fn id(&self, index: i32) -> PartitionId {
        let position = usize::try_from(index).expect("small");
        self.model.borrow().ids[position]
    }

    fn shard(&mut self, index: i32) -> &mut SegmentJournal {
        &mut self.shards[shard_of(index)]
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.is_broken
            && self
                .shards
                .iter()
                .all(|shard| shard.state() == JournalState::Open)
    }

    /// Something, as the seed says.
    pub(crate) fn step(&mut self, seed: &mut Seed) {
        let index = i32::try_from(seed.index(5)).expect("small");
        let data = 1 + index % (PARTITIONS - 1);
        match seed.below(100) {
            0..30 => self.put(data, seed, false),
            30..38 => self.hand_over(index, None),
            38..44 => {
                let id = self.id(index);
                let end = self.shard(index).log_end(id);
                let upto = Offset(end.0 - i64::try_from(seed.below(4)).expect("small"));
                self.hand_over(index, Some(upto));
            }
            44..60 => self.transaction(seed),
            60..70 => self.commit_offset(data, seed),
            70..86 => self.turn(),
            86..91 => self.checkpoint(),
            91..94 => {
                let id = self.id(index);
                let _refused = self.shard(index).roll(id).is_err();
            }
            94..97 => self.delete_records(data, seed),
            97 => self.delete(data),
            _ => {
                let id = self.id(data);
                let end = self.shard(data).log_end(id);
                let _refused = self.shard(data).write_snapshot(id, end, b"state").is_err();
            }
        }
    }

    pub(crate) fn put(&mut self, index: i32, seed: &mut Seed, control: bool) {
        let size = match seed.below(20) {
            0 => 9000,
            1..4 => seed.below(5000) + 1,
            _ => seed.below(400) + 1,
        };
        let (id, model) = (self.id(index), Rc::clone(&self.model));
        let base = self.shard(index).log_end(id);
        let bytes = make_batch(base, size, seed, control);
        let shard = self.shard(index);
        if shard.reserve(id, bytes.len()).is_err() {
            return;
        }
        {
            let mut model = model.borrow_mut();
            let log = model.logs.get_mut(&id).expect("there");
            log.batches.truncate(log.placed);
            log.batches.push(Batch {
                base,
                end: base.plus(1),
                bytes: bytes.to_vec(),
                decides: control || index == DECISIONS,
            });
        }
        let every = shard.durability() == Durability::Always;
        let appended = shard.append(Entry {
            partition: id,
            leader_epoch: LeaderEpoch(1),
            base,
            last: base,
            max_timestamp: 1_700_000_000_000,
            bytes,
        });
        if shard.log_end(id) == base.plus(1) {
            let mut model = model.borrow_mut();
            model.logs.get_mut(&id).expect("there").placed += 1;
            drop(model);
            if every {
                self.note(appended.ticket, index, base.plus(1));
            }
        }
    }

    fn note(&self, ticket: Ticket, index: i32, end: Offset) {
        if ticket == Ticket(u64::MAX) || ticket == Ticket(0) {
            return;
        }
        let partition = self.id(index);
        let mut model = self.model.borrow_mut();
        model.handed.push(HandedOver {
            ticket: ticket.0,
            partition,
            end,
        });
    }

    fn hand_over(&mut self, index: i32, upto: Option<Offset>) {
        let id = self.id(index);
        let end = self.shard(index).log_end(id);
        let ticket = self.shard(index).hand_over(id, upto);
        let covered = upto.unwrap_or(end).min(end);
        self.note(ticket, index, covered);
    }

    /// Data in two partitions, then the decision, then its markers.
    fn transaction(&mut self, seed: &mut Seed) {
        let first = 1 + i32::try_from(seed.index(4)).expect("small");
        let second = 1 + first % (PARTITIONS - 1);
        for index in [first, second] {
            self.put(index, seed, false);
            self.hand_over(index, None);
        }
        if !self.is_open() {
            return;
        }
        self.put(DECISIONS, seed, false);
        self.hand_over(DECISIONS, None);
        for index in [first, second] {
            if self.is_open() {
                self.put(index, seed, true);
                self.hand_over(index, None);
            }
        }
    }

    /// The data below an offset, then the offset; the record is in place before the data is handed over.
    fn commit_offset(&mut self, data: i32, seed: &mut Seed) {
        self.put(data, seed, false);
        self.put(DECISIONS, seed, false);
        if seed.percent(20) {
            self.checkpoint();
        }
        self.hand_over(data, None);
        self.hand_over(DECISIONS, None);
    }

    pub(crate) fn turn(&mut self) {
        let _failed = self.sync.turn().is_err();
        self.note_synced();
    }

    pub(crate) fn checkpoint(&mut self) {
        let _failed = self.sync.checkpoint().is_err();
    }

    fn note_synced(&mut self) {
        if self.is_open() {
            let synced = self.shards[0].durable().0;
            self.model.borrow_mut().synced = synced;
        }
    }

    fn delete_records(&mut self, index: i32, seed: &mut Seed) {
        let (id, model) = (self.id(index), Rc::clone(&self.model));
        let (start, end) = (
            self.shard(index).log_start(id),
            self.shard(index).log_end(id),
        );
        if end == start || end == Offset(0) {
            return;
        }
        let some = seed.below(u64::try_from(end.0 - start.0).expect("positive") + 1);
        let to = start.plus(i64::try_from(some).expect("small"));
        let log_asked = |asked: Offset| {
            let mut model = model.borrow_mut();
            let log = model.logs.get_mut(&id).expect("there");
            log.start_asked = log.start_asked.max(asked);
        };
        log_asked(to);
        if self.shard(index).set_log_start(id, to).is_ok() {
            let mut model = self.model.borrow_mut();
            let log = model.logs.get_mut(&id).expect("there");
            log.start = log.start.max(to);
        }
    }

    fn delete(&mut self, index: i32) {
        let id = self.id(index);
        self.model.borrow_mut().deleting.push(id);
        if self.shard(index).delete_partition(id).is_err() {
            self.is_broken = true;
            return;
        }
        let new = {
            let mut model = self.model.borrow_mut();
            let life = model.lives + 1;
            model.deleting.clear();
            model.replace(id, new_id(index, life))
        };
        // An empty partition has no file that could fail.
        let opened = self.shard(index).open_partition(new, options(index));
        opened.expect("opens");
    }

    /// After a failure: both shards begin again (N9). `false` while the disk does not let them.
    pub(crate) fn start_over(&mut self) -> bool {
        if self.is_broken {
            return false;
        }
        self.shards.iter_mut().for_each(SegmentJournal::start_over);
        if !self.is_open() || open_partitions(&mut self.shards, &self.model.borrow().ids).is_err() {
            return false;
        }
        let found = self.contents();
        let mut model = self.model.borrow_mut();
        let at_least = model.check(&found, false);
        at_least.expect("what was synced is there after a failure");
        let durability = model.durability;
        model.begin(&found, durability);
        drop(model);
        true
    }

    /// Ends as if killed, and starts again.
    pub(crate) fn restart(self, root: &Path) -> World {
        let model = self.model.borrow().clone();
        drop(self);
        let durability = model.durability;
        World::resume(root, model, durability)
    }

    pub(crate) fn stop_cleanly(mut self) -> Model {
        self.shards
            .iter_mut()
            .for_each(|shard| shard.shutdown().expect("synced"));
        self.dir.mark_clean().expect("marked");
        self.model.borrow().clone()
    }
}

fn make_batch(base: Offset, size: u64, seed: &mut Seed, control: bool) -> Bytes {
    let mut builder = BatchBuilder::new(1_700_000_000_000);
    let value: Vec<u8> = (0..size)
        .map(|_| u8::try_from(seed.below(256)).expect("a byte"))
        .collect();
    builder.push(None, Some(&value));
    let mut bytes = builder.finish();
    if control {
        bytes[22] |= 0b11_0000;
        let checksum = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    }
    batch::stamp(&mut bytes, base, LeaderEpoch(1));
    Bytes::from(bytes)
}
