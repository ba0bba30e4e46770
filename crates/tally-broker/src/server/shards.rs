//! How the shards are driven: a lock each, taken by the task that has a message, never across an `await` and never two
//! together (so there is no lock order). What a shard has for other shards is carried by the same task after it has let
//! go, until nothing is left: the markers of a transaction need no hand-over between threads.
//!
//! A reply that is not there at once is registered under the same lock, so none can be missed. Timers are one task a
//! shard. Where writes are synced, a shard says which ticket it waits for, and a task a shard lets go of what the syncing
//! thread has synced ([`crate::server::sync`]): no task waits for a disk.

use crate::metadata::Metadata;
use crate::server::clock::Clock;
use crate::server::compactor;
use crate::stopping::StopProgress;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tally_producer_state::Marker;
use tally_protocol::{ErrorCode, Now, PartitionId};
use tally_shard::{
    OpenTransaction, Outbox, Outgoing, Owed, PartitionSettings, ReplyTo, Shard, ShardMessage,
    ShardReply, TransactionRequest, WaiterId,
};
use tally_storage::{Cold, Completed, StorageError, SyncJournal, Ticket};
use tally_transactions::{Fence, MarkerSet, TopicPartition};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

/// Producer ids given to a shard, or taken for producers without a transactional id, at a time (I-22).
pub(crate) const PRODUCER_ID_BLOCK: u32 = 1000;
/// How often it is looked whether a power cut is dealt with: nothing waits for it but the next start.
const FENCED_CHECK: Duration = Duration::from_millis(100);
/// Shards whose files are completed at once by a stop: they wait for the file system more than they work.
const STOPPING_THREADS: usize = 8;
/// Replies of a turn for which memory is kept.
const SPARE_MAX: usize = 64;
/// A timer that has nothing to wait for.
const NEVER: u64 = u64::MAX;

/// The shards whose next deadline came before what their timers sleep until.
type Early = Vec<usize>;

/// All shards of this broker.
pub(crate) struct Shards {
    owners: Vec<Owner>,
    metadata: Arc<Metadata>,
    clock: Clock,
    next_reply: AtomicU64,
    waiters: Mutex<HashMap<u64, Arc<Notify>>>,
    stopping: AtomicBool,
    compactor: compactor::Sender,
    /// What syncs writes, where anything does.
    journal: Option<Arc<SyncJournal>>,
}

/// Those who work for the shards, and whom they tell what there is to do.
#[derive(Debug)]
pub(crate) struct BackgroundWork {
    /// Rewrites segments.
    pub(crate) compactor: compactor::Sender,
    /// Syncs writes, where anything does.
    pub(crate) journal: Option<Arc<SyncJournal>>,
}

#[derive(Debug)]
struct Owner {
    owned: Mutex<Owned>,
    timer: Notify,
    sleeping_until: AtomicU64,
    /// Rings when what the shard waits for has been synced.
    synced: Notify,
    /// The first ticket that the shard waits for, or [`NEVER`].
    awaits: AtomicU64,
}

#[derive(Debug)]
struct Owned {
    shard: Shard,
    callers: HashMap<u64, oneshot::Sender<ShardReply>>,
    /// Memory of the last turn's replies, for the next one's.
    spare: Vec<(ReplyTo, ShardReply)>,
    /// The journal is closed: nothing is handled any more.
    closed: bool,
}

/// The answer to a message: there already, to come, or not to come.
#[derive(Debug)]
pub(crate) enum Asked {
    Ready(ShardReply),
    Later(oneshot::Receiver<ShardReply>),
    Never,
}

impl Asked {
    /// Waits for the reply; `None` when the broker is stopping or the shard had to be loaded anew (N9).
    pub(crate) async fn reply(self) -> Option<ShardReply> {
        crate::simulation::pause().await;
        match self {
            Asked::Ready(reply) => Some(reply),
            Asked::Later(receiver) => receiver.await.ok(),
            Asked::Never => None,
        }
    }
}

impl Shards {
    /// Takes ownership of the shards; they have no partitions yet.
    pub(crate) fn new(
        shards: Vec<Shard>,
        metadata: Arc<Metadata>,
        clock: Clock,
        work: BackgroundWork,
    ) -> Shards {
        let owners = shards
            .into_iter()
            .map(|shard| Owner {
                owned: Mutex::new(Owned {
                    shard,
                    callers: HashMap::new(),
                    spare: Vec::new(),
                    closed: false,
                }),
                timer: Notify::new(),
                sleeping_until: AtomicU64::new(NEVER),
                synced: Notify::new(),
                awaits: AtomicU64::new(NEVER),
            })
            .collect();
        Shards {
            owners,
            metadata,
            clock,
            next_reply: AtomicU64::new(1),
            waiters: Mutex::new(HashMap::new()),
            stopping: AtomicBool::new(false),
            compactor: work.compactor,
            journal: work.journal,
        }
    }

    /// The time of an event.
    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Opens a partition on its shard; whether a torn end of its log was cut.
    pub(crate) fn open(
        &self,
        id: PartitionId,
        settings: PartitionSettings,
    ) -> Result<bool, StorageError> {
        let mut outbox = Outbox::default();
        lock(self.owner(id))
            .shard
            .open(self.now(), id, settings, &mut outbox)?;
        for (partition, cut) in &outbox.cuts {
            tracing::warn!(%partition, at = %cut.at, bytes = cut.bytes, reason = %cut.reason, "torn tail cut");
        }
        Ok(!outbox.cuts.is_empty())
    }

    /// Once, after the last partition: producer ids for everybody, then what a crash may have swallowed (D-13).
    pub(crate) fn recovered(&self) {
        for index in 0..self.owners.len() {
            self.supply_producer_ids(index);
        }
        for index in 0..self.owners.len() {
            let topics = self.metadata.topics_for_groups();
            self.run(index, |shard, now, outbox| {
                shard.note_topics(topics);
                shard.recovered(now, outbox);
            });
        }
    }

    /// After a power cut, when the last partition has been opened and before [`Shards::recovered`]: has every transactional
    /// producer fenced, and aborts what no coordinator knows of. Returns whether all of it could be begun.
    pub(crate) fn power_was_cut(&self, fence: Fence) -> bool {
        let mut owed = Owed::new();
        for owner in &self.owners {
            for markers in lock(owner).shard.power_was_cut(fence) {
                let named =
                    |name: &TopicPartition| self.metadata.partition_id(&name.topic, name.partition);
                for id in markers.partitions.iter().filter_map(named) {
                    owed.insert((id, markers.producer_id), markers.ends_upto);
                }
            }
        }
        let mut begun = true;
        for owner in &self.owners {
            let mut owned = lock(owner);
            begun &= owned.shard.abort_orphans(self.now(), &owed) && !owned.shard.has_unopened();
        }
        begun
    }

    /// Whether every partition could be opened.
    pub(crate) fn are_open(&self) -> bool {
        let mut owners = self.owners.iter();
        owners.all(|owner| !lock(owner).shard.has_unopened())
    }

    /// Waits until every producer is fenced that has to be; returns whether that was before the end.
    pub(crate) async fn fenced(&self) -> bool {
        while self
            .owners
            .iter()
            .any(|owner| lock(owner).shard.is_fencing())
        {
            if self.is_stopping() {
                return false;
            }
            tokio::time::sleep(FENCED_CHECK).await;
        }
        for owner in &self.owners {
            lock(owner).shard.power_cut_handled();
        }
        true
    }

    /// The transactions that are open on any partition.
    pub(crate) fn open_transactions(&self) -> Vec<OpenTransaction> {
        let mut open = Vec::new();
        for owner in &self.owners {
            open.extend(lock(owner).shard.open_transactions());
        }
        open
    }

    /// The transactions that the coordinators will end, with the highest epoch that each ends; `None` if one of them can't be read.
    pub(crate) fn held_transactions(&self) -> Option<Owed> {
        let mut held = Owed::new();
        for owner in &self.owners {
            let owed = {
                let owned = lock(owner);
                if owned.shard.has_unopened() {
                    return None;
                }
                owned.shard.owed_markers()
            };
            for markers in owed {
                let named =
                    |name: &TopicPartition| self.metadata.partition_id(&name.topic, name.partition);
                for id in markers.partitions.iter().filter_map(named) {
                    held.insert((id, markers.producer_id), markers.ends_upto);
                }
            }
        }
        Some(held)
    }

    /// Aborts a transaction that no coordinator holds (B-17); `false` if it is not open any more.
    pub(crate) fn abort_hanging(&self, hanging: &OpenTransaction) -> Result<bool, ErrorCode> {
        let mut aborted = Ok(false);
        self.run(self.index_of(hanging.partition), |shard, now, outbox| {
            aborted = shard.abort_hanging(now, hanging, outbox);
        });
        aborted
    }

    /// Hands a message to the owner of `id`.
    pub(crate) fn ask(
        &self,
        id: PartitionId,
        message: impl FnOnce(ReplyTo) -> ShardMessage,
    ) -> Asked {
        let to = ReplyTo(self.next_reply.fetch_add(1, Ordering::Relaxed));
        let message = message(to);
        let index = self.index_of(id);
        let mut outbox = Outbox::default();
        let mut early = Early::new();
        let mut ready = None;
        let mut later = None;
        {
            let owner = &self.owners[index];
            let mut owned = lock(owner);
            if owned.closed {
                return Asked::Never;
            }
            outbox.replies = std::mem::take(&mut owned.spare);
            owned.shard.handle(self.now(), id, message, &mut outbox);
            self.note_waiting(owner, &mut owned, &mut outbox);
            for (reply_to, reply) in outbox.replies.drain(..) {
                if reply_to == to {
                    ready = Some(reply);
                } else {
                    owned.answer(reply_to, reply);
                }
            }
            owned.let_go_after_reload(&outbox);
            if ready.is_none() && !outbox.reloaded {
                let (sender, receiver) = oneshot::channel();
                owned.callers.insert(to.0, sender);
                later = Some(receiver);
            }
            owned.take_back(&mut outbox);
            owner.note_deadline(index, &owned, &outbox, &mut early);
        }
        self.carry(index, outbox, early);
        match (ready, later) {
            (Some(reply), _) => Asked::Ready(reply),
            (None, Some(receiver)) => Asked::Later(receiver),
            (None, None) => Asked::Never,
        }
    }

    /// Hands over a message that has no reply.
    pub(crate) fn tell(&self, id: PartitionId, message: ShardMessage) {
        let index = self.index_of(id);
        self.run(index, |shard, now, outbox| {
            shard.handle(now, id, message, outbox)
        });
    }

    /// Changes how long every shard remembers idle producers.
    pub(crate) fn set_producer_id_expiration(&self, ms: u64) {
        for index in 0..self.owners.len() {
            self.run(index, |shard, _, _| shard.set_producer_id_expiration(ms));
        }
    }

    /// The bell of a connection's fetches: rings when one of them should look again.
    pub(crate) fn register_waiter(&self, waiter: WaiterId) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        lock_plain(&self.waiters).insert(waiter.0, Arc::clone(&bell));
        bell
    }

    /// Forgets the bell.
    pub(crate) fn forget_waiter(&self, waiter: WaiterId) {
        lock_plain(&self.waiters).remove(&waiter.0);
    }

    /// Lets go of what has been synced, on every shard that waits for it; everything when the sync has failed, which they
    /// then find out.
    pub(crate) fn synced(&self, upto: Ticket) {
        // The other half is in `note_waiting`: either this sees what the shard awaits, or the shard sees what is synced.
        fence(Ordering::SeqCst);
        for owner in &self.owners {
            let awaits = owner.awaits.load(Ordering::Relaxed);
            if awaits != NEVER && awaits <= upto.0 {
                owner.synced.notify_one();
            }
        }
    }

    /// Lets go of what one shard has been waiting for, for as long as the broker runs.
    pub(crate) async fn run_releases(self: Arc<Self>, index: usize) {
        while !self.is_stopping() {
            self.owners[index].synced.notified().await;
            self.run(index, |shard, now, outbox| shard.synced(now, outbox));
        }
    }

    /// What a shard still waits for is told to the syncing thread; what has been synced meanwhile is let go.
    fn note_waiting(&self, owner: &Owner, owned: &mut Owned, outbox: &mut Outbox) {
        let Some(journal) = &self.journal else { return };
        loop {
            let awaits = owned.shard.awaits();
            let number = awaits.map_or(NEVER, |ticket| ticket.0);
            owner.awaits.store(number, Ordering::Relaxed);
            // The other half is in `synced`.
            fence(Ordering::SeqCst);
            match awaits {
                Some(ticket) if ticket <= journal.synced() => {
                    owned.shard.synced(self.now(), outbox);
                }
                _ => return,
            }
        }
    }

    /// How many shards there are, with a timer each.
    pub(crate) fn count(&self) -> usize {
        self.owners.len()
    }

    /// Does what is due on one shard, for as long as the broker runs.
    pub(crate) async fn run_timer(self: Arc<Self>, index: usize) {
        let owner = &self.owners[index];
        while !self.is_stopping() {
            let deadline = {
                let owned = lock(owner);
                let deadline = owned.shard.next_deadline_ms().unwrap_or(NEVER);
                // Under the lock, as `wake_timer` is: an earlier deadline that comes now is compared with this one.
                owner.sleeping_until.store(deadline, Ordering::Release);
                deadline
            };
            if deadline <= self.now().monotonic_ms {
                self.run(index, |shard, now, outbox| shard.expire(now, outbox));
                // Much may be due: others want the processor, and the shard, in between.
                tokio::task::yield_now().await;
                continue;
            }
            if deadline == NEVER {
                owner.timer.notified().await;
            } else {
                let due = self.clock.instant_of(deadline);
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = owner.timer.notified() => {}
                }
            }
        }
    }

    /// Stops answering and completes the journals, some at once. Everybody who still waits is let go.
    pub(crate) fn shutdown(&self, progress: &StopProgress) -> Result<Vec<Completed>, StorageError> {
        self.stopping.store(true, Ordering::Release);
        let next = AtomicUsize::new(0);
        let complete = || {
            let mut completed = Vec::new();
            while let Some(owner) = self.owners.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut owned = lock(owner);
                owned.closed = true;
                owned.callers.clear();
                completed.push(owned.shard.complete(&|| progress.step())?);
            }
            Ok::<_, StorageError>(completed)
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..STOPPING_THREADS)
                .map(|_| scope.spawn(complete))
                .collect();
            let mut all = Vec::with_capacity(self.owners.len());
            for thread in threads {
                let completed = thread.join();
                all.extend(
                    completed.expect("a panic ends the process, so no thread has ended by one")?,
                );
            }
            Ok(all)
        })
    }

    /// Whether [`Shards::shutdown`] has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The number of the shard that owns a partition.
    pub(crate) fn index_of(&self, id: PartitionId) -> usize {
        // N3: a fixed hash of (topic id, partition).
        let mut topic = [0; 8];
        topic.copy_from_slice(&id.topic.0[8..]);
        let mixed = (u64::from_be_bytes(topic) ^ u64::from(id.index.unsigned_abs()))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            >> 32;
        tally_protocol::ids::to_usize(mixed) % self.owners.len()
    }

    fn owner(&self, id: PartitionId) -> &Owner {
        &self.owners[self.index_of(id)]
    }

    /// One turn of a shard, and everything that follows from it.
    fn run(&self, index: usize, turn: impl FnOnce(&mut Shard, Now, &mut Outbox)) {
        let mut early = Early::new();
        let outbox = self.turn(index, turn, &mut early);
        self.carry(index, outbox, early);
    }

    /// One turn of a shard under its lock; replies are given out, the rest is returned.
    fn turn(
        &self,
        index: usize,
        turn: impl FnOnce(&mut Shard, Now, &mut Outbox),
        early: &mut Early,
    ) -> Outbox {
        let mut outbox = Outbox::default();
        let owner = &self.owners[index];
        let mut owned = lock(owner);
        if owned.closed {
            return outbox;
        }
        outbox.replies = std::mem::take(&mut owned.spare);
        turn(&mut owned.shard, self.now(), &mut outbox);
        self.note_waiting(owner, &mut owned, &mut outbox);
        for (to, reply) in outbox.replies.drain(..) {
            owned.answer(to, reply);
        }
        owned.let_go_after_reload(&outbox);
        owned.take_back(&mut outbox);
        owner.note_deadline(index, &owned, &outbox, early);
        outbox
    }

    /// Carries what left shard `origin` to where it belongs, until nothing is left. Then the timers hear of the deadlines that
    /// are still `early`.
    fn carry(&self, origin: usize, outbox: Outbox, mut early: Early) {
        if outbox.is_empty() {
            return;
        }
        let mut queue = VecDeque::from([(origin, outbox)]);
        while let Some((origin, outbox)) = queue.pop_front() {
            self.wake(&outbox);
            for job in outbox.jobs {
                // Nobody takes it while the broker stops: its shard is closed, too.
                self.compactor.send(job).ok();
            }
            for message in outbox.messages {
                match message {
                    Outgoing::ToPartition(id, message) => {
                        queue.push_back(self.deliver(id, message, &mut early));
                    }
                    Outgoing::Markers { coordinator, set } => {
                        queue.extend(self.send_markers(coordinator, set, &mut early));
                    }
                    Outgoing::Secure {
                        coordinator,
                        request,
                    } => queue.extend(self.secure(coordinator, request, &mut early)),
                    Outgoing::ProducerIds => self.supply_producer_ids(origin),
                    Outgoing::Load(cold) => load_aside(cold),
                }
            }
        }
        for index in early {
            let owner = &self.owners[index];
            owner.wake_timer(&lock(owner));
        }
    }

    fn deliver(
        &self,
        id: PartitionId,
        message: ShardMessage,
        early: &mut Early,
    ) -> (usize, Outbox) {
        let index = self.index_of(id);
        let handle =
            |shard: &mut Shard, now, outbox: &mut Outbox| shard.handle(now, id, message, outbox);
        (index, self.turn(index, handle, early))
    }

    /// Has the data of a transaction survive its commit, then goes on with that (E-7). A partition that is gone has nothing
    /// to lose (E-8).
    fn secure(
        &self,
        coordinator: PartitionId,
        request: Box<TransactionRequest>,
        early: &mut Early,
    ) -> Vec<(usize, Outbox)> {
        let mut turns = Vec::with_capacity(request.secured.len() + 1);
        for TopicPartition { topic, partition } in &request.secured {
            if let Some(id) = self.metadata.partition_id(topic, *partition) {
                turns.push(self.deliver(id, ShardMessage::Secure { upto: None }, early));
            }
        }
        turns.push(self.deliver(coordinator, ShardMessage::Secured(request), early));
        turns
    }

    /// Sends each marker to its partition (N8). A partition that is gone is reported as such: it does not hold the
    /// transaction up (E-8).
    fn send_markers(
        &self,
        coordinator: PartitionId,
        set: MarkerSet,
        early: &mut Early,
    ) -> Vec<(usize, Outbox)> {
        let marker = Marker {
            producer_id: set.producer_id,
            producer_epoch: set.producer_epoch,
            coordinator_epoch: set.coordinator_epoch,
            commit: set.commit != tally_protocol::planted::is("e6"),
            transaction_version: set.transaction_version,
        };
        let mut turns = Vec::with_capacity(set.partitions.len());
        let mut gone = Vec::new();
        for (nth, name) in set.partitions.into_iter().enumerate() {
            if nth == 1 && tally_protocol::planted::is("e5") {
                continue;
            }
            match self.metadata.partition_id(&name.topic, name.partition) {
                Some(id) => {
                    let transactional_id = Arc::clone(&set.transactional_id);
                    let message = ShardMessage::AppendMarker {
                        marker,
                        coordinator,
                        transactional_id,
                        ending: set.ending,
                        name,
                    };
                    turns.push(self.deliver(id, message, early));
                }
                None => gone.push((name, ErrorCode::UnknownTopicOrPartition)),
            }
        }
        if !gone.is_empty() {
            let message = ShardMessage::MarkersWritten {
                transactional_id: set.transactional_id,
                producer_id: set.producer_id,
                producer_epoch: set.producer_epoch,
                ending: set.ending,
                results: gone,
            };
            turns.push(self.deliver(coordinator, message, early));
        }
        turns
    }

    fn supply_producer_ids(&self, index: usize) {
        match self.metadata.reserve_producer_ids(PRODUCER_ID_BLOCK) {
            Ok(_) if tally_protocol::planted::is("i22") => {
                lock(&self.owners[index]).shard.supply_producer_ids(0..1000);
            }
            Ok(ids) => lock(&self.owners[index]).shard.supply_producer_ids(ids),
            // I-22: while no block is available the coordinator answers 14.
            Err(error) => tracing::error!(%error, "no producer ids reserved"),
        }
    }

    fn wake(&self, outbox: &Outbox) {
        if outbox.wakes.is_empty() {
            return;
        }
        let waiters = lock_plain(&self.waiters);
        for waiter in &outbox.wakes {
            if let Some(bell) = waiters.get(&waiter.0) {
                bell.notify_one();
            }
        }
    }
}

impl Owner {
    /// Whether the timer sleeps for longer than until the shard's next deadline.
    fn is_early(&self, owned: &Owned) -> bool {
        let deadline = owned.shard.next_deadline_ms();
        deadline.is_some_and(|deadline| deadline < self.sleeping_until.load(Ordering::Acquire))
    }

    /// After a turn: tells the timer of an earlier deadline. While something is still to be carried it waits for that: the
    /// deadline of a completion is gone again when its markers are back, and a timer woken for it would be woken for each
    /// transaction.
    fn note_deadline(&self, index: usize, owned: &Owned, outbox: &Outbox, early: &mut Early) {
        if outbox.is_empty() {
            self.wake_timer(owned);
        } else if self.is_early(owned) && !early.contains(&index) {
            early.push(index);
        }
    }

    /// Tells the timer about a deadline that is earlier than the one it sleeps until.
    fn wake_timer(&self, owned: &Owned) {
        if self.is_early(owned) {
            self.timer.notify_one();
        }
    }
}

impl Owned {
    /// Keeps the memory of the replies, unless there was a storm of them.
    fn take_back(&mut self, outbox: &mut Outbox) {
        debug_assert!(outbox.replies.is_empty(), "replies have been given out");
        if outbox.replies.capacity() <= SPARE_MAX {
            self.spare = std::mem::take(&mut outbox.replies);
        }
    }

    /// Replies that were held inside a coordinator are gone with its memory: whoever waits is told so.
    fn let_go_after_reload(&mut self, outbox: &Outbox) {
        if outbox.reloaded {
            self.callers.clear();
        }
    }

    /// Gives a reply to whoever waits for it; a connection that has gone does not any more.
    fn answer(&mut self, to: ReplyTo, reply: ShardReply) {
        if let Some(caller) = self.callers.remove(&to.0)
            && caller.send(reply).is_err()
        {
            tracing::trace!(reply = to.0, "nobody waits for this reply");
        }
    }
}

/// Whoever needs it looks again.
fn load_aside(cold: Cold) {
    let load = move || {
        if let Err(error) = cold.load() {
            tracing::error!(%error, "a log can't be read");
        }
    };
    match Handle::try_current() {
        Ok(runtime) if !crate::simulation::is_on() => drop(runtime.spawn_blocking(load)),
        _ => load(),
    }
}

fn lock(owner: &Owner) -> MutexGuard<'_, Owned> {
    lock_plain(&owner.owned)
}

fn lock_plain<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("a broken invariant ends the process, so no lock is ever poisoned")
}
