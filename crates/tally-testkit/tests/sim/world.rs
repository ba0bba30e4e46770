//! A broker without sockets: shards, metadata and a disk that a test spoils. What the broker does around its shards (opening,
//! carrying messages, topics) is done here in the same order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use tally_groups as groups;
use tally_producer_state::Marker;
use tally_protocol::{CoordinatorEpoch, ErrorCode, LeaderEpoch, Now, Offset, PartitionId, TopicId};
use tally_shard::{
    CompactionSettings, CompactorSettings, Outbox, Outgoing, Owed, PartitionRole,
    PartitionSettings, ReplyTo, RetentionSettings, Shard, ShardMessage, ShardReply, ShardSettings,
};
use tally_storage::faults::Installed;
use tally_storage::{
    DataDir, Durability, FileMetaStore, Journal, LogOptions, MetaStore, Revision, SegmentJournal,
    SyncJournal, SyncOptions,
};
use tally_testkit::simulated_disk::SimulatedDisk;
use tally_transactions as transactions;
use tally_transactions::{Fence, MarkerSet, TopicPartition};

/// The topic of the groups, as transactions name it.
pub(crate) const OFFSETS: &str = "offsets";
/// The topic of the transactions.
pub(crate) const TRANSACTIONS: &str = "transactions";
/// Producer ids reserved at a time.
const BLOCK: i64 = 1000;
const RETENTION_CHECK_MS: u64 = 300_000;

/// What stays the same over the lives of a broker.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) mode: Durability,
    pub(crate) log: LogOptions,
    pub(crate) retention: RetentionSettings,
    pub(crate) shards: usize,
    /// Whether input is secured before its offset: not, to see that it would be found.
    pub(crate) secures: bool,
}

/// A topic, as the metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) partitions: i32,
    created: i32,
}

impl Topic {
    pub(crate) fn partition(&self, index: i32) -> PartitionId {
        PartitionId {
            topic: self.id,
            index,
        }
    }
}

/// The broker.
pub(crate) struct World {
    shards: Vec<Shard>,
    /// In the modes that sync.
    journal: Option<Arc<SyncJournal>>,
    meta: FileMetaStore,
    dir: Arc<DataDir>,
    setup: Setup,
    incarnation: i32,
    revision: Revision,
    pub(crate) topics: BTreeMap<String, Topic>,
    pub(crate) now: Now,
    next_reply: u64,
    /// Requests that are not answered, with their shard.
    asked: BTreeMap<u64, usize>,
    /// Answers that nobody has taken yet; `None`: there will be none.
    answers: BTreeMap<u64, Option<ShardReply>>,
    pub(crate) disk: Rc<SimulatedDisk>,
    _watched: Installed,
}

/// Why there is no broker.
pub(crate) type Failed = String;

fn failed(what: &str) -> impl FnOnce(&dyn std::fmt::Display) -> Failed + '_ {
    move |error| format!("{what}: {error}")
}

impl World {
    /// Starts on what lies below `disk`'s root, as the broker does.
    pub(crate) fn start(
        disk: Rc<SimulatedDisk>,
        root: &Path,
        setup: &Setup,
        now: Now,
    ) -> Result<World, Failed> {
        let watched = disk.install();
        let dir = DataDir::open(root).map_err(|e| failed("directory")(&e))?;
        let dir = Arc::new(dir);
        let meta = FileMetaStore::open(Arc::clone(&dir)).map_err(|e| failed("meta")(&e))?;
        let stored = dir
            .stored_partitions()
            .map_err(|e| failed("partitions")(&e))?;
        let (values, revision) = meta.load().map_err(|e| failed("meta")(&e))?;
        let incarnation = number(&values, "incarnation") + 1;
        let mut world = World {
            shards: Vec::new(),
            journal: None,
            meta,
            dir,
            setup: setup.clone(),
            incarnation,
            revision,
            topics: BTreeMap::new(),
            now,
            next_reply: 1,
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            disk,
            _watched: watched,
        };
        world.load_topics(&values);
        world.commit(&[("incarnation".to_owned(), Some(incarnation.to_string()))])?;
        world.remove_orphans(stored);
        world.open_shards()?;
        Ok(world)
    }

    fn load_topics(&mut self, values: &BTreeMap<String, String>) {
        for (name, value) in values {
            let Some(name) = name.strip_prefix("topic/") else {
                continue;
            };
            let mut numbers = value.split(' ').map(|n| n.parse().expect("a number"));
            let mut next = || numbers.next().expect("three numbers");
            let (id, partitions, created) = (next(), next(), next());
            let topic = Topic {
                id: topic_id(id),
                partitions,
                created,
            };
            self.topics.insert(name.to_owned(), topic);
        }
    }

    fn remove_orphans(&self, stored: Vec<PartitionId>) {
        let known: BTreeSet<TopicId> = self.topics.values().map(|topic| topic.id).collect();
        let mut journal = SegmentJournal::new(Arc::clone(&self.dir));
        for id in stored {
            if !known.contains(&id.topic) {
                let _tried_again_at_the_next_start = journal.delete_partition(id).is_err();
            }
        }
    }

    fn open_shards(&mut self) -> Result<(), Failed> {
        let settings = ShardSettings {
            transactions: transactions::Settings::default(),
            groups: groups::Settings::default(),
            coordinator_epoch: CoordinatorEpoch(self.incarnation),
            seed: 7,
            producer_id_expiration_ms: 86_400_000,
            producer_id_expiration_check_ms: 600_000,
            flush_check_ms: u64::MAX,
            retention_check_ms: RETENTION_CHECK_MS,
            compactor: CompactorSettings {
                enabled: false,
                backoff_ms: 15_000,
                keys_bytes: 1 << 20,
            },
        };
        self.journal = self.open_journal()?;
        for _ in 0..self.setup.shards {
            let dir = Arc::clone(&self.dir);
            let journal = match &self.journal {
                Some(journal) => SegmentJournal::synced(dir, Arc::clone(journal), self.setup.mode),
                None => SegmentJournal::new(dir),
            };
            assert!(journal.prefix_ordered());
            self.shards.push(Shard::new(settings.clone(), journal));
        }
        for (name, topic) in self.topics.clone() {
            for index in 0..topic.partitions {
                self.open_partition(&name, &topic, index)?;
            }
        }
        for index in 0..self.shards.len() {
            self.supply_ids(index);
        }
        self.fence_after_power_cut();
        for index in 0..self.shards.len() {
            let now = self.now;
            self.turn(index, |shard, outbox| shard.recovered(now, outbox));
        }
        // The broker does this beside its work.
        for _ in 0..100 {
            if !self.shards.iter().any(Shard::is_fencing) {
                break;
            }
            self.pass_ms(100);
        }
        if self.shards.iter().any(Shard::is_fencing) {
            return Err("ids stay unfenced".to_owned());
        }
        self.sync();
        self.dir
            .power_cut_handled()
            .map_err(|e| failed("boot id")(&e))
    }

    fn open_journal(&self) -> Result<Option<Arc<SyncJournal>>, Failed> {
        match self.setup.mode {
            Durability::Memory | Durability::Os => Ok(None),
            Durability::Commit | Durability::Always => {
                let options = SyncOptions {
                    durability: self.setup.mode,
                    journal_bytes: 128 * 1024,
                    copied_bytes_max: 3000,
                };
                let opened = SyncJournal::open(Arc::clone(&self.dir), options);
                opened.map(Some).map_err(|e| failed("journal")(&e))
            }
        }
    }

    /// R-19, as the broker does it.
    fn fence_after_power_cut(&mut self) {
        let fence = match self.dir.power_cut_of() {
            Some(Durability::Memory | Durability::Os) => Fence::ProducerId,
            Some(Durability::Commit) => Fence::Epoch,
            Some(Durability::Always) | None => return,
        };
        let mut owed = Owed::new();
        for index in 0..self.shards.len() {
            for markers in self.shards[index].power_was_cut(fence) {
                for name in &markers.partitions {
                    if let Some(id) = self.partition_id(&name.topic, name.partition) {
                        owed.insert((id, markers.producer_id), markers.ends_upto);
                    }
                }
            }
        }
        for shard in &mut self.shards {
            assert!(shard.abort_orphans(self.now, &owed), "there is room");
        }
    }

    /// One turn of the syncing thread, and what it lets go of; whether there was anything to sync.
    pub(crate) fn sync(&mut self) -> bool {
        let Some(journal) = self.journal.clone() else {
            return false;
        };
        // A failure is found by the shards.
        let synced = journal.turn().unwrap_or(true);
        for index in 0..self.shards.len() {
            let now = self.now;
            self.turn(index, |shard, outbox| shard.synced(now, outbox));
        }
        synced
    }

    /// What the other thread does now and then.
    pub(crate) fn checkpoint(&mut self) {
        // A failure is found by the shards, or, where nobody waits for a sync, by the next one.
        let _failed = match &self.journal {
            Some(journal) => journal.checkpoint().is_err(),
            None => self.dir.sync_closed().is_err(),
        };
    }

    /// in `commit` what lies below an offset is handed over before the offset is.
    pub(crate) fn secure(&mut self, id: PartitionId, offset: i64) {
        if self.setup.mode == Durability::Commit && self.setup.secures {
            let upto = Some(Offset(offset));
            self.tell(id, ShardMessage::Secure { upto });
        }
    }

    fn open_partition(&mut self, name: &str, topic: &Topic, index: i32) -> Result<(), Failed> {
        let id = topic.partition(index);
        let role = match name {
            OFFSETS => PartitionRole::Groups,
            TRANSACTIONS => PartitionRole::Transactions,
            _ => PartitionRole::Data,
        };
        let settings = PartitionSettings {
            role,
            leader_epoch: LeaderEpoch(self.incarnation - topic.created),
            log: LogOptions {
                synced_only: role != PartitionRole::Data,
                ..self.setup.log
            },
            retention: self.setup.retention,
            compaction: CompactionSettings::OFF,
        };
        let mut outbox = Outbox::default();
        let shard = self.shard_of(id);
        self.shards[shard]
            .open(self.now, id, settings, &mut outbox)
            .map_err(|e| failed("partition")(&e))
    }

    /// Stops cleanly.
    pub(crate) fn stop(mut self) -> Result<(), Failed> {
        for shard in &mut self.shards {
            shard.shutdown().map_err(|e| failed("shutdown")(&e))?;
        }
        self.dir.mark_clean().map_err(|e| failed("mark")(&e))
    }

    fn commit(&mut self, writes: &[(String, Option<String>)]) -> Result<(), Failed> {
        let revision = self.meta.commit(self.revision, writes);
        self.revision = revision.map_err(|e| failed("metadata")(&e))?;
        Ok(())
    }

    /// Makes a topic with a new id.
    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32) -> Result<(), Failed> {
        let (values, _) = self.meta.load().map_err(|e| failed("meta")(&e))?;
        let next = number(&values, "topics.next") + 1;
        let created = self.incarnation;
        let text = format!("{next} {partitions} {created}");
        self.commit(&[
            ("topics.next".to_owned(), Some(next.to_string())),
            (format!("topic/{name}"), Some(text)),
        ])?;
        let topic = Topic {
            id: topic_id(next),
            partitions,
            created,
        };
        self.topics.insert(name.to_owned(), topic.clone());
        for index in 0..partitions {
            self.open_partition(name, &topic, index)?;
        }
        Ok(())
    }

    /// Deletes a topic with all that is in it.
    pub(crate) fn delete_topic(&mut self, name: &str) -> Result<(), Failed> {
        self.commit(&[(format!("topic/{name}"), None)])?;
        let topic = self.topics.remove(name).expect("it was there");
        for index in 0..topic.partitions {
            self.tell(topic.partition(index), ShardMessage::Delete);
        }
        for index in 0..self.topics[OFFSETS].partitions {
            let message = ShardMessage::TopicDeleted {
                topic: Arc::from(name),
                topic_id: topic.id,
            };
            self.tell(self.topics[OFFSETS].partition(index), message);
        }
        Ok(())
    }

    /// A producer id of nobody, for a producer without transactions (I-22).
    pub(crate) fn producer_id(&mut self) -> Result<i64, Failed> {
        self.reserve_ids(1)
    }

    fn reserve_ids(&mut self, count: i64) -> Result<i64, Failed> {
        let (values, _) = self.meta.load().map_err(|e| failed("meta")(&e))?;
        let next: i64 = values
            .get("ids.next")
            .map_or(0, |text| text.parse().expect("a number"));
        let after = Some((next + count).to_string());
        self.commit(&[("ids.next".to_owned(), after)])?;
        Ok(next)
    }

    fn supply_ids(&mut self, shard: usize) {
        if let Ok(first) = self.reserve_ids(BLOCK) {
            self.shards[shard].supply_producer_ids(first..first + BLOCK);
        }
    }

    /// The partition behind a name.
    pub(crate) fn partition_id(&self, topic: &str, index: i32) -> Option<PartitionId> {
        let topic = self.topics.get(topic)?;
        (index < topic.partitions).then(|| topic.partition(index))
    }

    /// The epoch of everything that is appended to a partition in this life.
    pub(crate) fn leader_epoch(&self, id: PartitionId) -> Option<LeaderEpoch> {
        let topic = self.topics.values().find(|topic| topic.id == id.topic)?;
        Some(LeaderEpoch(self.incarnation - topic.created))
    }

    /// All partitions.
    pub(crate) fn partitions(&self) -> Vec<(String, PartitionId)> {
        let topics = self.topics.iter();
        topics
            .flat_map(|(name, topic)| {
                (0..topic.partitions).map(|index| (name.clone(), topic.partition(index)))
            })
            .collect()
    }

    fn shard_of(&self, id: PartitionId) -> usize {
        let topic = usize::from(id.topic.0[15]);
        (topic + usize::try_from(id.index).expect("small")) % self.shards.len()
    }

    /// Hands over a request; the answer comes by [`World::answer`].
    pub(crate) fn ask(
        &mut self,
        id: PartitionId,
        message: impl FnOnce(ReplyTo) -> ShardMessage,
    ) -> u64 {
        let to = self.next_reply;
        self.next_reply += 1;
        self.asked.insert(to, self.shard_of(id));
        self.tell(id, message(ReplyTo(to)));
        to
    }

    /// The answer to a request, if it is there: `Some(None)` says that there will be none.
    pub(crate) fn answer(&mut self, to: u64) -> Option<Option<ShardReply>> {
        self.answers.remove(&to)
    }

    /// Asks, and syncs until it is answered. What is not in memory is read first, as the broker does.
    pub(crate) fn ask_now(
        &mut self,
        id: PartitionId,
        message: impl Fn(ReplyTo) -> ShardMessage,
    ) -> Option<ShardReply> {
        loop {
            let to = self.ask(id, &message);
            let answer = loop {
                match self.answer(to) {
                    Some(answer) => break answer,
                    None if self.sync() => {}
                    None => break None,
                }
            };
            match answer {
                Some(ShardReply::Cold(cold)) => cold.load().ok()?,
                reply => return reply,
            }
        }
    }

    fn tell(&mut self, id: PartitionId, message: ShardMessage) {
        let now = self.now;
        self.turn(self.shard_of(id), |shard, outbox| {
            shard.handle(now, id, message, outbox);
        });
    }

    /// Lets time pass; what is due meanwhile is done.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.wall_ms += i64::try_from(ms).expect("a short time");
        for index in 0..self.shards.len() {
            for _ in 0..50 {
                let due = self.shards[index].next_deadline_ms();
                if due.is_none_or(|due| due > self.now.monotonic_ms) {
                    break;
                }
                let now = self.now;
                self.turn(index, |shard, outbox| shard.expire(now, outbox));
            }
        }
    }

    /// One turn of a shard, and all that follows from it.
    fn turn(&mut self, index: usize, turn: impl FnOnce(&mut Shard, &mut Outbox)) {
        let mut outbox = Outbox::default();
        turn(&mut self.shards[index], &mut outbox);
        let mut queue = VecDeque::from([(index, outbox)]);
        while let Some((origin, outbox)) = queue.pop_front() {
            self.take_answers(origin, outbox.replies, outbox.reloaded);
            for message in outbox.messages {
                match message {
                    Outgoing::ToPartition(id, message) => {
                        queue.push_back(self.deliver(id, message))
                    }
                    Outgoing::Markers { coordinator, set } => {
                        self.send_markers(coordinator, set, &mut queue);
                    }
                    Outgoing::ProducerIds => self.supply_ids(origin),
                    // Only so that it is there sooner.
                    Outgoing::Load(_) => {}
                    Outgoing::Secure {
                        coordinator,
                        request,
                    } => {
                        for name in &request.secured {
                            if let Some(id) = self.partition_id(&name.topic, name.partition) {
                                let message = ShardMessage::Secure { upto: None };
                                queue.push_back(self.deliver(id, message));
                            }
                        }
                        let message = ShardMessage::Secured(request);
                        queue.push_back(self.deliver(coordinator, message));
                    }
                }
            }
        }
    }

    fn take_answers(&mut self, shard: usize, replies: Vec<(ReplyTo, ShardReply)>, reloaded: bool) {
        for (to, reply) in replies {
            if self.asked.remove(&to.0).is_some() {
                self.answers.insert(to.0, Some(reply));
            }
        }
        if reloaded {
            let Self { asked, answers, .. } = self;
            asked.retain(|to, asked_there| {
                if *asked_there == shard {
                    answers.insert(*to, None);
                }
                *asked_there != shard
            });
        }
    }

    fn deliver(&mut self, id: PartitionId, message: ShardMessage) -> (usize, Outbox) {
        let mut outbox = Outbox::default();
        let shard = self.shard_of(id);
        self.shards[shard].handle(self.now, id, message, &mut outbox);
        (shard, outbox)
    }

    fn send_markers(
        &mut self,
        coordinator: PartitionId,
        set: MarkerSet,
        queue: &mut VecDeque<(usize, Outbox)>,
    ) {
        let marker = Marker {
            producer_id: set.producer_id,
            producer_epoch: set.producer_epoch,
            coordinator_epoch: set.coordinator_epoch,
            commit: set.commit,
            transaction_version: set.transaction_version,
        };
        let written = |results: Vec<(TopicPartition, ErrorCode)>| ShardMessage::MarkersWritten {
            transactional_id: Arc::clone(&set.transactional_id),
            producer_id: set.producer_id,
            producer_epoch: set.producer_epoch,
            ending: set.ending,
            results,
        };
        let mut gone = Vec::new();
        for name in set.partitions.clone() {
            let Some(id) = self.partition_id(&name.topic, name.partition) else {
                gone.push((name, ErrorCode::UnknownTopicOrPartition));
                continue;
            };
            let message = ShardMessage::AppendMarker {
                marker,
                coordinator,
                transactional_id: Arc::clone(&set.transactional_id),
                ending: set.ending,
                name,
            };
            queue.push_back(self.deliver(id, message));
        }
        if !gone.is_empty() {
            queue.push_back(self.deliver(coordinator, written(gone)));
        }
    }
}

fn number(values: &BTreeMap<String, String>, name: &str) -> i32 {
    values
        .get(name)
        .map_or(0, |text| text.parse().expect("a number"))
}

fn topic_id(number: i32) -> TopicId {
    let mut id = [0; 16];
    id[12..].copy_from_slice(&number.to_be_bytes());
    TopicId(id)
}
