//! One shard with two data partitions, a partition for transactions and one for groups, on files of its own. Where its
//! durability syncs, nothing is synced but by [`World::sync`], and by those helpers that wait for an answer.

use bytes::BytesMut;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tally_groups as groups;
use tally_producer_state::{Flow, Guard, Marker, Verification};
use tally_protocol::build::BatchBuilder;
use tally_protocol::{
    BatchView, CoordinatorEpoch, ErrorCode, LeaderEpoch, Now, Offset, PartitionId, ProducerEpoch,
    ProducerId, Sequence, TopicId,
};
use tally_shard::{
    AppendOutcome, AppendRefusal, CompactionJob, CompactionSettings, CompactorSettings, Isolation,
    Outbox, Outgoing, Owed, PartitionRole, PartitionSettings, ReadOutcome, ReadRequest, ReplyTo,
    RetentionSettings, Shard, ShardMessage, ShardReply, ShardSettings, WaiterId,
};
use tally_storage::{DataDir, Durability, LogOptions, SegmentJournal, SyncJournal, SyncOptions};
use tally_transactions as transactions;
use tally_transactions::Fence;
use tempfile::TempDir;

/// The partitions of the world.
pub(crate) const DATA: PartitionId = PartitionId {
    topic: TopicId([1; 16]),
    index: 0,
};
pub(crate) const MORE: PartitionId = PartitionId {
    topic: TopicId([1; 16]),
    index: 1,
};
pub(crate) const TRANSACTIONS: PartitionId = PartitionId {
    topic: TopicId([2; 16]),
    index: 0,
};
pub(crate) const GROUPS: PartitionId = PartitionId {
    topic: TopicId([3; 16]),
    index: 0,
};

/// The wall clock at the beginning, and the timestamp of all batches.
pub(crate) const START_MS: i64 = 1_700_000_000_000;
/// Between two passes of retention.
pub(crate) const RETENTION_CHECK_MS: u64 = 300_000;
/// Between two looks for a log to compact.
pub(crate) const COMPACTION_BACKOFF_MS: u64 = 15_000;

/// Where the files are.
enum Home {
    /// They go with the world.
    Own(TempDir),
    Theirs(PathBuf),
}

impl Home {
    fn path(&self) -> &Path {
        match self {
            Home::Own(dir) => dir.path(),
            Home::Theirs(path) => path,
        }
    }
}

/// Memory for the keys of a pass: the least there is.
const KEYS_BYTES: usize = 64 * 1024;

/// The shard and its files.
pub(crate) struct World {
    dir: Home,
    data_dir: Arc<DataDir>,
    shard: Shard,
    incarnation: i32,
    next_reply: u64,
    now: Now,
    /// Of the data partition and all others.
    log: LogOptions,
    retention: RetentionSettings,
    compaction: CompactionSettings,
    durability: Durability,
    /// How this start fences, if it is one after a power cut.
    cut: Option<Fence>,
    journal: Option<Arc<SyncJournal>>,
    /// Replies that nobody has looked at.
    replies: Vec<(ReplyTo, ShardReply)>,
    /// Commits are stopped before their partitions are secured.
    pub(crate) holds_commits: bool,
    /// Compaction waits for [`World::run_jobs`] and [`World::return_jobs`].
    pub(crate) holds_jobs: bool,
    jobs: Vec<CompactionJob>,
    held_commits: Vec<Outgoing>,
    /// Fetches that were woken.
    pub(crate) woken: Vec<WaiterId>,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(LogOptions::default(), RetentionSettings::KEEP_ALL)
    }

    /// With other settings of the log, for all partitions.
    pub(crate) fn with(log: LogOptions, retention: RetentionSettings) -> World {
        World::begin(log, retention, CompactionSettings::OFF, Durability::Os)
    }

    /// With compaction, of all partitions.
    pub(crate) fn compacted(
        log: LogOptions,
        retention: RetentionSettings,
        compaction: CompactionSettings,
    ) -> World {
        World::begin(log, retention, compaction, Durability::Os)
    }

    /// With a durability of its own.
    pub(crate) fn durable(durability: Durability) -> World {
        World::begin(
            LogOptions::default(),
            RetentionSettings::KEEP_ALL,
            CompactionSettings::OFF,
            durability,
        )
    }

    fn begin(
        log: LogOptions,
        retention: RetentionSettings,
        compaction: CompactionSettings,
        durability: Durability,
    ) -> World {
        let dir = tempfile::tempdir().expect("a temporary directory");
        World::first(Home::Own(dir), log, retention, compaction, durability)
    }

    /// With compaction, on files in a directory of the caller.
    pub(crate) fn compacted_at(
        root: &Path,
        log: LogOptions,
        compaction: CompactionSettings,
        durability: Durability,
    ) -> World {
        let home = Home::Theirs(root.to_owned());
        let keep_all = RetentionSettings::KEEP_ALL;
        World::first(home, log, keep_all, compaction, durability)
    }

    fn first(
        dir: Home,
        log: LogOptions,
        retention: RetentionSettings,
        compaction: CompactionSettings,
        durability: Durability,
    ) -> World {
        let (data_dir, shard, journal) = open(dir.path(), 1, durability);
        let mut world = World {
            dir,
            data_dir,
            shard,
            durability,
            cut: None,
            journal,
            replies: Vec::new(),
            holds_commits: false,
            holds_jobs: false,
            jobs: Vec::new(),
            held_commits: Vec::new(),
            incarnation: 1,
            next_reply: 1,
            now: Now {
                monotonic_ms: 1000,
                wall_ms: START_MS,
            },
            log,
            retention,
            compaction,
            woken: Vec::new(),
        };
        world.recover();
        world
    }

    /// Stops the shard as kill -9 would, and starts again on the same files.
    pub(crate) fn crash(self) -> World {
        self.start_again(|_, _| {})
    }

    /// Stops the shard clean, and starts again.
    pub(crate) fn restart(self) -> World {
        self.start_again(|shard, data_dir| {
            shard.shutdown().expect("a clean stop");
            data_dir.mark_clean().expect("a clean stop");
        })
    }

    /// Stops the shard as kill -9 would, and starts again as after a power cut that has spared everything.
    pub(crate) fn cut_power(mut self, fence: Fence) -> World {
        self.cut = Some(fence);
        let mut world = self.crash();
        world.cut = None;
        world
    }

    /// Whether producers from before a power cut are left to be fenced.
    pub(crate) fn is_fencing(&self) -> bool {
        self.shard.is_fencing()
    }

    /// A world as this one would be after a crash, on other files.
    pub(crate) fn image(&self, root: &Path) -> World {
        self.image_after(root, None)
    }

    /// The same where the crash was a power cut, which fences.
    pub(crate) fn image_after(&self, root: &Path, cut: Option<Fence>) -> World {
        let incarnation = self.incarnation + 1;
        let (data_dir, shard, journal) = open(root, incarnation, self.durability);
        let mut world = World {
            dir: Home::Theirs(root.to_owned()),
            data_dir,
            shard,
            incarnation,
            next_reply: self.next_reply,
            now: self.now,
            log: self.log,
            retention: self.retention,
            compaction: self.compaction,
            durability: self.durability,
            cut,
            journal,
            replies: Vec::new(),
            holds_commits: false,
            holds_jobs: false,
            jobs: Vec::new(),
            held_commits: Vec::new(),
            woken: Vec::new(),
        };
        world.recover();
        world.cut = None;
        world
    }

    fn start_again(mut self, stop: impl FnOnce(&mut Shard, &DataDir)) -> World {
        stop(&mut self.shard, &self.data_dir);
        self.incarnation += 1;
        let World {
            dir,
            data_dir,
            shard,
            journal,
            ..
        } = self;
        // The lock of the directory goes with them.
        drop((shard, journal, data_dir));
        let (data_dir, shard, journal) = open(dir.path(), self.incarnation, self.durability);
        let mut world = World {
            dir,
            data_dir,
            shard,
            journal,
            replies: Vec::new(),
            held_commits: Vec::new(),
            jobs: Vec::new(),
            ..self
        };
        world.recover();
        world
    }

    /// One turn of the syncing thread, and what it lets go of. Returns whether there was anything to sync.
    pub(crate) fn sync(&mut self) -> bool {
        let journal = self.journal.clone().expect("a durability that syncs");
        let synced = journal.turn().unwrap_or(true);
        let mut outbox = Outbox::default();
        self.shard.synced(self.now, &mut outbox);
        let replies = self.carry(outbox);
        self.replies.extend(replies);
        synced
    }

    /// Where the durability syncs: all that was handed over, and then a checkpoint.
    pub(crate) fn checkpoint(&mut self) {
        if let Some(journal) = self.journal.clone() {
            while self.sync() {}
            journal.checkpoint().expect("synced");
        }
    }

    /// One turn of the syncing thread of which the shard has not heard yet.
    pub(crate) fn sync_unheard(&self) {
        let journal = self.journal.as_ref().expect("a durability that syncs");
        assert!(journal.turn().expect("synced"), "something to sync");
    }

    /// Hands over a message and all that follows from it; the reply may come later.
    pub(crate) fn send(
        &mut self,
        id: PartitionId,
        message: impl FnOnce(ReplyTo) -> ShardMessage,
    ) -> ReplyTo {
        let to = ReplyTo(self.next_reply);
        self.next_reply += 1;
        let mut outbox = Outbox::default();
        self.shard.handle(self.now, id, message(to), &mut outbox);
        let replies = self.carry(outbox);
        self.replies.extend(replies);
        to
    }

    /// The reply, if it is there.
    pub(crate) fn reply(&mut self, to: ReplyTo) -> Option<ShardReply> {
        let at = self.replies.iter().position(|(other, _)| *other == to)?;
        Some(self.replies.remove(at).1)
    }

    /// Hands over a message that has no reply.
    pub(crate) fn tell(&mut self, id: PartitionId, message: ShardMessage) {
        self.send(id, |_| message);
    }

    /// Changes a partition as flush.messages=1 does.
    pub(crate) fn sync_every_append(&mut self, id: PartitionId) {
        self.flush_after(id, 1, u64::MAX);
    }

    /// Changes flush.messages and flush.ms of a partition.
    pub(crate) fn flush_after(&mut self, id: PartitionId, flush_messages: i64, flush_ms: u64) {
        let log = LogOptions {
            flush_messages,
            flush_ms,
            ..self.log
        };
        let (retention, compaction) = (self.retention, self.compaction);
        let settings = ShardMessage::Configure {
            log,
            retention,
            compaction,
        };
        self.tell(id, settings);
    }

    /// Appends to a partition whose disk fails now.
    pub(crate) fn append_and_fail(&mut self, id: PartitionId) {
        let pair = (ProducerId::NONE, ProducerEpoch(-1));
        let mut batch = BatchBuilder::new(self.now.wall_ms).producer(pair.0, pair.1, Sequence(-1));
        batch.push(Some(b"key"), Some(b"lost"));
        let batch = batch.finish();
        let reply = self.ask(id, |to| ShardMessage::Append {
            batch,
            guard: None,
            to,
        });
        assert!(matches!(reply, ShardReply::Append(Err(_))), "{reply:?}");
    }

    /// Runs what waits for that, as threads of their own would.
    pub(crate) fn run_jobs(&mut self) -> usize {
        self.jobs.iter_mut().for_each(CompactionJob::run);
        self.jobs.len()
    }

    /// Gives back what waits, as it is.
    pub(crate) fn return_jobs(&mut self) {
        for job in std::mem::take(&mut self.jobs) {
            let partition = job.partition();
            let compacted = ShardMessage::Compacted(Box::new(job));
            self.tell(partition, compacted);
        }
    }

    /// The commits that `holds_commits` has stopped.
    pub(crate) fn take_commits(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.held_commits)
    }

    /// Lets them go on; others are still stopped.
    pub(crate) fn let_go(&mut self, messages: Vec<Outgoing>) {
        let outbox = Outbox {
            messages,
            ..Outbox::default()
        };
        let replies = self.carry(outbox);
        self.replies.extend(replies);
    }

    /// Lets all of them go on, and those that come.
    pub(crate) fn let_commits_go(&mut self) {
        self.holds_commits = false;
        let held = self.take_commits();
        self.let_go(held);
    }

    /// How many commits are stopped.
    pub(crate) fn held_commits(&self) -> usize {
        self.held_commits.len()
    }

    /// Moves the clock; what is due meanwhile is done at its time.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        let until_ms = self.now.monotonic_ms + ms;
        while let Some(due_ms) = self.shard.next_deadline_ms().filter(|due| *due <= until_ms) {
            self.move_clock(due_ms.max(self.now.monotonic_ms));
            self.turn();
        }
        self.move_clock(until_ms);
    }

    fn move_clock(&mut self, to_ms: u64) {
        let passed = to_ms - self.now.monotonic_ms;
        self.now.monotonic_ms = to_ms;
        self.now.wall_ms += i64::try_from(passed).expect("a short time");
    }

    /// Moves the clock and does nothing.
    pub(crate) fn skip_ms(&mut self, ms: u64) {
        self.move_clock(self.now.monotonic_ms + ms);
    }

    /// Hands over a message whose reply may come later, lets `ms` pass, and returns all replies.
    pub(crate) fn ask_and_pass_ms(
        &mut self,
        id: PartitionId,
        message: impl FnOnce(ReplyTo) -> ShardMessage,
        ms: u64,
    ) -> Vec<ShardReply> {
        let to = ReplyTo(self.next_reply);
        self.next_reply += 1;
        let mut outbox = Outbox::default();
        self.shard.handle(self.now, id, message(to), &mut outbox);
        let mut replies = self.carry(outbox);
        self.skip_ms(ms);
        let mut outbox = Outbox::default();
        self.shard.expire(self.now, &mut outbox);
        replies.extend(self.carry(outbox));
        replies.into_iter().map(|(_, reply)| reply).collect()
    }

    /// The directory of a partition.
    pub(crate) fn directory(&self, id: PartitionId) -> std::path::PathBuf {
        let topic = self.dir.path().join("topics").join(id.topic.to_string());
        topic.join(id.index.to_string())
    }

    /// The epoch of the coordinators of this run.
    pub(crate) fn coordinator_epoch(&self) -> CoordinatorEpoch {
        CoordinatorEpoch(self.incarnation)
    }

    /// What its acknowledged writes survive.
    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// The time of the next message.
    pub(crate) fn wall_ms(&self) -> i64 {
        self.now.wall_ms
    }

    /// How many segments a partition has, counted by their files.
    pub(crate) fn segments(&self, id: PartitionId) -> usize {
        let mut directories = vec![self.dir.path().to_owned()];
        let (topic, index) = (id.topic.to_string(), id.index.to_string());
        let mut segments = 0;
        while let Some(directory) = directories.pop() {
            let entries = std::fs::read_dir(&directory).expect("a directory of ours");
            for path in entries.flatten().map(|entry| entry.path()) {
                let is_here = directory.ends_with(std::path::Path::new(&topic).join(&index));
                if path.is_dir() {
                    directories.push(path);
                } else if is_here && path.extension().is_some_and(|kind| kind == "log") {
                    segments += 1;
                }
            }
        }
        segments
    }

    /// Removes the snapshots of the data partition from `offset` on, as a power cut may.
    #[expect(
        clippy::disallowed_methods,
        reason = "the disk loses it, not the shard"
    )]
    pub(crate) fn lose_snapshots_from(&self, offset: i64) {
        let topic = self.dir.path().join("topics").join(DATA.topic.to_string());
        let entries = std::fs::read_dir(topic.join("0")).expect("it has files");
        for path in entries.flatten().map(|entry| entry.path()) {
            let at = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            let is_snapshot = path.extension().is_some_and(|kind| kind == "snapshot");
            if is_snapshot && at.is_some_and(|at: i64| at >= offset) {
                std::fs::remove_file(path).expect("removed");
            }
        }
    }

    /// Empties the first segment of the data partition, as a power cut may.
    #[expect(
        clippy::disallowed_methods,
        reason = "the disk loses it, not the shard"
    )]
    pub(crate) fn lose_records(&self) {
        let path = self.directory(DATA).join("00000000000000000000.log");
        std::fs::write(path, b"").expect("emptied");
    }

    /// Cuts the last batches of a partition off, as a power cut may.
    #[expect(
        clippy::disallowed_methods,
        reason = "the disk loses them, not the shard"
    )]
    pub(crate) fn lose_last(&self, id: PartitionId, count: usize) {
        let path = self.directory(id).join("00000000000000000000.log");
        let bytes = std::fs::read(&path).expect("it has a log");
        let (mut ends, mut at) = (vec![0], 0);
        while let Ok(view) = BatchView::parse(&bytes[at..]) {
            at += view.bytes().len();
            ends.push(at);
        }
        let kept = ends[ends.len() - 1 - count];
        std::fs::write(path, &bytes[..kept]).expect("written");
    }

    /// What the timer does once.
    pub(crate) fn turn(&mut self) {
        let mut outbox = Outbox::default();
        self.shard.expire(self.now, &mut outbox);
        self.carry(outbox);
    }

    fn recover(&mut self) {
        let mut outbox = Outbox::default();
        for (id, role) in [
            (DATA, PartitionRole::Data),
            (MORE, PartitionRole::Data),
            (TRANSACTIONS, PartitionRole::Transactions),
            (GROUPS, PartitionRole::Groups),
        ] {
            let leader_epoch = LeaderEpoch(self.incarnation - 1);
            let settings = PartitionSettings {
                role,
                leader_epoch,
                log: self.log,
                retention: self.retention,
                compaction: self.compaction,
            };
            self.shard
                .open(self.now, id, settings, &mut outbox)
                .expect("the partition opens");
        }
        let start = i64::from(self.incarnation) * 1000;
        self.shard.supply_producer_ids(start..start + 1000);
        if let Some(fence) = self.cut {
            let mut owed = Owed::new();
            for markers in self.shard.power_was_cut(fence) {
                let ids = markers
                    .partitions
                    .iter()
                    .map(|name| partition_named(&name.topic));
                owed.extend(ids.map(|id| ((id, markers.producer_id), markers.ends_upto)));
            }
            assert!(self.shard.abort_orphans(self.now, &owed));
        }
        self.shard.recovered(self.now, &mut outbox);
        let replies = self.carry(outbox);
        assert!(replies.is_empty(), "nobody asked");
    }

    /// Opens a data partition beside the two; for transactions it is the topic named `p` and its number.
    #[allow(dead_code, reason = "the benchmark of transactions uses it")]
    pub(crate) fn open_data(&mut self, index: i32) -> PartitionId {
        let id = PartitionId { index, ..DATA };
        let settings = PartitionSettings {
            role: PartitionRole::Data,
            leader_epoch: LeaderEpoch(self.incarnation - 1),
            log: self.log,
            retention: self.retention,
            compaction: self.compaction,
        };
        let mut outbox = Outbox::default();
        let opened = self.shard.open(self.now, id, settings, &mut outbox);
        opened.expect("the partition opens");
        let replies = self.carry(outbox);
        assert!(replies.is_empty(), "nobody asked");
        id
    }

    /// Hands over a message and all that follows from it; returns the reply.
    pub(crate) fn ask(
        &mut self,
        id: PartitionId,
        message: impl FnOnce(ReplyTo) -> ShardMessage,
    ) -> ShardReply {
        let to = self.send(id, message);
        loop {
            match self.reply(to) {
                Some(reply) => return reply,
                None => assert!(self.journal.is_some() && self.sync(), "a reply at once"),
            }
        }
    }

    /// Carries messages as the broker would; the topic named `data` is [`DATA`], `more` is [`MORE`], `offsets` is [`GROUPS`].
    fn carry(&mut self, outbox: Outbox) -> Vec<(ReplyTo, ShardReply)> {
        let mut replies = Vec::new();
        let mut queue = VecDeque::from([outbox]);
        while let Some(outbox) = queue.pop_front() {
            replies.extend(outbox.replies);
            self.woken.extend(outbox.wakes);
            for mut job in outbox.jobs {
                if self.holds_jobs {
                    self.jobs.push(*job);
                    continue;
                }
                job.run();
                let mut next = Outbox::default();
                let (id, message) = (job.partition(), ShardMessage::Compacted(job));
                self.shard.handle(self.now, id, message, &mut next);
                queue.push_back(next);
            }
            for message in outbox.messages {
                let mut next = Outbox::default();
                match message {
                    Outgoing::ToPartition(id, message) => {
                        self.shard.handle(self.now, id, message, &mut next)
                    }
                    Outgoing::ProducerIds => {}
                    held @ Outgoing::Secure { .. } if self.holds_commits => {
                        self.held_commits.push(held);
                    }
                    Outgoing::Secure {
                        coordinator,
                        request,
                    } => {
                        for name in &request.secured {
                            let secure = ShardMessage::Secure { upto: None };
                            let id = partition_named(&name.topic);
                            self.shard.handle(self.now, id, secure, &mut next);
                        }
                        let secured = ShardMessage::Secured(request);
                        self.shard.handle(self.now, coordinator, secured, &mut next);
                    }
                    Outgoing::Load(cold) => cold.load().expect("the files can be read"),
                    Outgoing::Markers { coordinator, set } => {
                        let marker = Marker {
                            producer_id: set.producer_id,
                            producer_epoch: set.producer_epoch,
                            coordinator_epoch: CoordinatorEpoch(self.incarnation),
                            commit: set.commit,
                            transaction_version: set.transaction_version,
                        };
                        for name in set.partitions {
                            let id = partition_named(&name.topic);
                            let transactional_id = Arc::clone(&set.transactional_id);
                            let message = ShardMessage::AppendMarker {
                                marker,
                                coordinator,
                                transactional_id,
                                ending: set.ending,
                                name,
                            };
                            self.shard.handle(self.now, id, message, &mut next);
                        }
                    }
                }
                queue.push_back(next);
            }
        }
        replies
    }

    pub(crate) fn transaction(&mut self, command: transactions::Command) -> transactions::Response {
        match self.ask(TRANSACTIONS, |to| ShardMessage::Transaction { command, to }) {
            ShardReply::Transaction(Ok(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn init(&mut self) -> (ProducerId, ProducerEpoch) {
        let command = transactions::Command::InitProducerId {
            transactional_id: Arc::from("t"),
            timeout_ms: 60_000,
            expected: None,
        };
        match self.transaction(command) {
            transactions::Response::InitProducerId(Ok(pair)) => pair,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn add(
        &mut self,
        (producer_id, producer_epoch): (ProducerId, ProducerEpoch),
        topic: &str,
    ) -> ErrorCode {
        let command = transactions::Command::AddPartitions {
            transactional_id: Arc::from("t"),
            producer_id,
            producer_epoch,
            partitions: vec![transactions::TopicPartition {
                topic: Arc::from(topic),
                partition: 0,
            }],
            flow: transactions::Flow::Tv1,
        };
        match self.transaction(command) {
            transactions::Response::AddPartitions(code) => code,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn end(
        &mut self,
        (producer_id, producer_epoch): (ProducerId, ProducerEpoch),
        commit: bool,
    ) -> Result<(ProducerId, ProducerEpoch), ErrorCode> {
        let command = transactions::Command::EndTxn {
            transactional_id: Arc::from("t"),
            producer_id,
            producer_epoch,
            commit,
            flow: transactions::Flow::Tv1,
        };
        match self.transaction(command) {
            transactions::Response::EndTxn(pair) => pair,
            other => panic!("{other:?}"),
        }
    }

    /// The verification that precedes a transactional append (V-1).
    pub(crate) fn verify(
        &mut self,
        id: PartitionId,
        pair: (ProducerId, ProducerEpoch),
        sequence: Sequence,
    ) -> Option<Guard> {
        let reply = self.ask(id, |to| ShardMessage::BeginVerification {
            producer_id: pair.0,
            producer_epoch: pair.1,
            base_sequence: sequence,
            flow: Flow::Tv1,
            to,
        });
        match reply {
            ShardReply::Verification(Ok(Verification::Needed(guard))) => Some(guard),
            ShardReply::Verification(Ok(Verification::NotNeeded)) => None,
            other => panic!("{other:?}"),
        }
    }

    /// Appends a batch of `values` of a producer.
    pub(crate) fn append(
        &mut self,
        pair: (ProducerId, ProducerEpoch),
        sequence: i32,
        values: &[&str],
        transactional: bool,
    ) -> Result<AppendOutcome, AppendRefusal> {
        let guard = if transactional {
            self.verify(DATA, pair, Sequence(sequence))
        } else {
            None
        };
        let batch = batch(pair, sequence, values, transactional);
        match self.ask(DATA, |to| ShardMessage::Append { batch, guard, to }) {
            ShardReply::Append(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn read(&mut self, isolation: Isolation) -> ReadOutcome {
        self.read_from(Offset::ZERO, isolation, None).expect("read")
    }

    pub(crate) fn read_from(
        &mut self,
        from: Offset,
        isolation: Isolation,
        waiter: Option<WaiterId>,
    ) -> Result<ReadOutcome, ErrorCode> {
        self.read_of(DATA, from, isolation, waiter)
    }

    pub(crate) fn read_of(
        &mut self,
        id: PartitionId,
        from: Offset,
        isolation: Isolation,
        waiter: Option<WaiterId>,
    ) -> Result<ReadOutcome, ErrorCode> {
        let request = ReadRequest {
            from,
            max_bytes: 1 << 20,
            first_whole: true,
            isolation,
            current_leader_epoch: LeaderEpoch::NONE,
            last_fetched_epoch: LeaderEpoch::NONE,
            waiter,
            wanted_bytes: 1,
        };
        loop {
            match self.ask(id, |to| ShardMessage::Read { request, to }) {
                ShardReply::Read(outcome) => return outcome,
                ShardReply::Cold(cold) => cold.load().expect("the log can be read"),
                other => panic!("{other:?}"),
            }
        }
    }

    /// Base offset, producer, sequence and "is a marker" of every batch a reader of everything sees.
    pub(crate) fn log(&mut self) -> Vec<(i64, i64, i32, bool)> {
        let mut log = Vec::new();
        for slice in self.read(Isolation::ReadUncommitted).slices {
            let mut rest: &[u8] = &slice;
            while !rest.is_empty() {
                let view = BatchView::parse(rest).expect("whole batches");
                view.check_crc().expect("good batches");
                let header = view.header();
                log.push((
                    header.base_offset.0,
                    header.producer_id.0,
                    header.base_sequence.0,
                    header.is_control(),
                ));
                rest = &rest[view.bytes().len()..];
            }
        }
        log
    }
}

fn partition_named(topic: &str) -> PartitionId {
    match topic {
        "offsets" => GROUPS,
        "more" => MORE,
        name => match name.strip_prefix('p').map(str::parse) {
            Some(Ok(index)) => PartitionId { index, ..DATA },
            _ => DATA,
        },
    }
}

fn open(
    root: &Path,
    incarnation: i32,
    durability: Durability,
) -> (Arc<DataDir>, Shard, Option<Arc<SyncJournal>>) {
    let data_dir = Arc::new(DataDir::open(root).expect("the data directory opens"));
    let settings = ShardSettings {
        transactions: transactions::Settings::default(),
        groups: groups::Settings::default(),
        coordinator_epoch: CoordinatorEpoch(incarnation),
        seed: 7,
        producer_id_expiration_ms: 86_400_000,
        producer_id_expiration_check_ms: 600_000,
        flush_check_ms: u64::MAX,
        retention_check_ms: RETENTION_CHECK_MS,
        compactor: CompactorSettings {
            enabled: true,
            backoff_ms: COMPACTION_BACKOFF_MS,
            keys_bytes: KEYS_BYTES,
        },
    };
    match durability {
        Durability::Memory => {
            let segments = SegmentJournal::new(Arc::clone(&data_dir));
            (data_dir, Shard::new(settings, segments), None)
        }
        Durability::Os | Durability::Commit | Durability::Always => {
            let options = SyncOptions {
                durability,
                journal_bytes: 1 << 17,
                ..SyncOptions::default()
            };
            let journal = SyncJournal::open(Arc::clone(&data_dir), options);
            let journal = journal.expect("the journal opens");
            let own = (Arc::clone(&data_dir), Arc::clone(&journal));
            let segments = SegmentJournal::synced(own.0, own.1, durability);
            (data_dir, Shard::new(settings, segments), Some(journal))
        }
    }
}

/// A batch as a client sends it.
pub(crate) fn batch(
    (producer_id, producer_epoch): (ProducerId, ProducerEpoch),
    sequence: i32,
    values: &[&str],
    transactional: bool,
) -> BytesMut {
    let mut builder =
        BatchBuilder::new(START_MS).producer(producer_id, producer_epoch, Sequence(sequence));
    if transactional {
        builder = builder.transactional();
    }
    for value in values {
        builder.push(None, Some(value.as_bytes()));
    }
    builder.finish()
}
