//! The broker's life: open the data, recover, listen, stop.

use crate::api::{FetchSessions, Node, Owners, PlainProducerIds};
use crate::config::{BrokerConfig, Durability};
use crate::durability;
use crate::health::Health;
use crate::loggers::Loggers;
use crate::metadata::{
    CONSUMER_OFFSETS, Metadata, OpenError, TRANSACTION_STATE, Topic, system_random,
};
use crate::quotas::Rates;
use crate::server::clock::Clock;
use crate::server::compactor;
use crate::server::foreign::Foreigners;
use crate::server::hanging::{self, WatchSettings};
use crate::server::loading::Loading;
use crate::server::request_memory::RequestMemory;
use crate::server::shards::{Asked, BackgroundWork, PRODUCER_ID_BLOCK, Shards};
use crate::server::sync::{Syncing, SyncingClosed};
use crate::server::{http, listener};
use crate::started::{Opening, Started};
use crate::stopping::StopProgress;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tally_groups as groups;
use tally_protocol::PartitionId;
use tally_protocol::records::transaction_log::TransactionState;
use tally_shard::{
    CompactionSettings, CompactorSettings, Inspected, Inspection, PartitionRole, PartitionSettings,
    RetentionSettings, Shard, ShardMessage, ShardReply, ShardSettings,
};
use tally_storage::{
    Completed, DataDir, FileMetaStore, LogOptions, MetaStore, OpenDirError, SegmentJournal,
    StorageError, SyncJournal, fault_hold,
};
use tally_transactions as transactions;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Shards for each processor: a few more than tasks can run at once, so that two rarely meet at one lock.
const SHARDS_PER_CPU: usize = 4;
/// A long start says so often how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// A test that holds the start or the stop is asked so often whether it still does.
const HOLD_AGAIN: Duration = Duration::from_millis(1);
/// Segments that all shards keep mapped for readers: three maps each, and a process may have 65,530.
const SEGMENT_MAPS_MAX: usize = 4096;
/// More shards than any machine has use for.
const SHARDS_MAX: usize = 4096;

/// Why the broker does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory can't be used.
    #[error(transparent)]
    DataDir(#[from] OpenDirError),
    /// The metadata can't be read or written.
    #[error("metadata: {0}")]
    Metadata(String),
    /// The journal that syncs can't be opened.
    #[error("journal: {0}")]
    Journal(#[source] StorageError),
    /// A thread can't be started.
    #[error("cannot start a thread: {0}")]
    Thread(String),
    /// An address can't be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What went wrong.
        source: std::io::Error,
    },
}

/// Why the broker did not stop clean: the next start recovers as after a crash.
#[derive(Debug, Error)]
pub enum StopError {
    /// A log could not be completed.
    #[error(transparent)]
    Log(#[from] StorageError),
    /// The mark of a clean stop could not be written.
    #[error("cannot mark the data directory as clean: {0}")]
    Mark(#[from] std::io::Error),
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> StartError {
        StartError::Metadata(error.to_string())
    }
}

/// What there is to say about a broker that has started.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The cluster's id.
    pub cluster_id: String,
    /// The broker's id.
    pub node_id: i32,
    /// Whether the data directory was empty before.
    pub is_new: bool,
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Topics, the internal ones not counted.
    pub topic_count: usize,
    /// Whether the last broker on this data was stopped clean.
    pub was_clean: bool,
    /// Where health is served.
    pub http: Option<SocketAddr>,
}

/// A running broker.
pub struct Broker {
    local_addr: SocketAddr,
    summary: Summary,
    metadata: Arc<Metadata>,
    shards: Arc<Shards>,
    data_dir: Arc<DataDir>,
    syncing: Option<Syncing>,
    syncing_closed: Option<SyncingClosed>,
    keeps_nothing: bool,
    health: Arc<Health>,
    stop: watch::Sender<bool>,
    /// The health page is there for as long as this is.
    page: watch::Sender<bool>,
    stopping: StopProgress,
}

impl Broker {
    /// Opens the data, recovers, and accepts connections. Needs a running tokio runtime. `loggers` is how the levels of the
    /// log are changed. The health page calls it ready when [`Broker::become_ready`] was called.
    pub async fn start(config: BrokerConfig, loggers: Loggers) -> Result<Broker, StartError> {
        let config = Arc::new(config);
        // The port first: a second broker on the same port should not touch any data.
        let listener = bind(&config.listen.to_string()).await?;
        let local_addr = listener
            .local_addr()
            .map_err(|source| listen_error(&config.listen.to_string(), source))?;
        let (stop, stopped) = watch::channel(false);
        let health = Arc::new(Health::default());
        // Before the recovery, of which it tells. If that fails, `page` goes and the page with it.
        let (page, page_gone) = watch::channel(false);
        let http = match &config.http {
            Some(address) => Some(serve_http(&address.to_string(), &health, page_gone).await?),
            None => None,
        };
        let Opened {
            data_dir,
            node,
            syncing,
        } = open_apart(&config, local_addr, loggers, &health).await?;
        let (metadata, shards) = (Arc::clone(&node.metadata), Arc::clone(&node.shards));
        let syncing_closed = match config.durability {
            Durability::Os => Some(start_syncing_closed(&data_dir)?),
            Durability::Memory | Durability::Commit | Durability::Always => None,
        };
        spawn_timers(&shards, syncing.is_some());
        let watched = WatchSettings::of(&metadata.config());
        tokio::spawn(hanging::run(Arc::clone(&shards), watched));
        tokio::spawn(listener::serve(node, listener, stopped));
        health.recovered();
        let summary = Summary {
            cluster_id: metadata.cluster_id().to_owned(),
            node_id: config.node_id,
            is_new: metadata.is_new(),
            data_dir: data_dir.path().to_owned(),
            topic_count: metadata
                .topics()
                .iter()
                .filter(|topic| !topic.internal)
                .count(),
            was_clean: data_dir.was_clean(),
            http,
        };
        Ok(Broker {
            local_addr,
            summary,
            metadata,
            shards,
            data_dir,
            syncing,
            syncing_closed,
            keeps_nothing: config.durability == Durability::Memory,
            health,
            stop,
            page,
            stopping: StopProgress::default(),
        })
    }

    /// Has the health page call it ready: whoever started it has made what clients were promised.
    pub fn become_ready(&self) {
        self.health.serve();
    }

    /// The address of the Kafka listener, with the port that was chosen when 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What there is to say about it.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// How far [`Broker::shutdown`] is, once it runs.
    #[must_use]
    pub fn stop_progress(&self) -> StopProgress {
        self.stopping.clone()
    }

    /// Stops clean, and says so on the health page to the end: no more requests, snapshots and segments written and synced, the mark for a quick start set.
    /// Open transactions stay open, they outlive a restart: their ids are returned, in order.
    pub async fn shutdown(self) -> Result<Vec<String>, StopError> {
        self.health.stop();
        // Nobody may listen any more; then there is nobody to tell.
        self.stop.send_replace(true);
        let shards = Arc::clone(&self.shards);
        let data_dir = Arc::clone(&self.data_dir);
        let closed = tokio::task::spawn_blocking(move || {
            let (syncing, closed) = (self.syncing, self.syncing_closed);
            let end_threads = || {
                if let Some(syncing) = syncing {
                    syncing.stop();
                }
                if let Some(syncing_closed) = closed {
                    syncing_closed.stop();
                }
            };
            let keeps_nothing = self.keeps_nothing;
            let left_open = match keeps_nothing {
                true => Vec::new(),
                false => open_transactional_ids(&self.metadata, &shards),
            };
            close(
                &shards,
                &data_dir,
                keeps_nothing,
                &self.stopping,
                end_threads,
            )?;
            Ok(left_open)
        });
        let outcome = closed.await.expect("closing the journals does not panic");
        drop(self.page);
        outcome
    }
}

/// The ids whose transactions are open. A coordinator that still loads says nothing of its own.
fn open_transactional_ids(metadata: &Metadata, shards: &Shards) -> Vec<String> {
    let topic = metadata.topic(TRANSACTION_STATE);
    let mut ids = Vec::new();
    for id in topic.iter().flat_map(|topic| topic.partition_ids()) {
        let what = Inspection::Transactions(transactions::ListFilter {
            states: Some(vec![TransactionState::Ongoing]),
            ..transactions::ListFilter::default()
        });
        let asked = shards.ask(id, |to| ShardMessage::Inspect { what, to });
        if let Asked::Ready(ShardReply::Inspected(Ok(Inspected::Transactions(found)))) = asked {
            ids.extend(found.iter().map(|one| one.transactional_id.to_string()));
        }
    }
    ids.sort_unstable();
    ids
}

/// Completes and syncs what the shards hold, and marks it as clean; in `memory` removes it.
pub(crate) fn close(
    shards: &Shards,
    data_dir: &DataDir,
    keeps_nothing: bool,
    progress: &StopProgress,
    end_threads: impl FnOnce(),
) -> Result<(), StopError> {
    let completed = shards.shutdown(progress);
    progress.sync();
    pause("stop");
    let outcome = match (completed, keeps_nothing) {
        (Ok(_), true) => Ok(()),
        (Ok(completed), false) => Completed::sync_all(completed),
        (Err(error), _) => Err(error),
    };
    end_threads();
    outcome?;
    if keeps_nothing {
        data_dir.remove_everything()?;
    } else {
        data_dir.mark_clean()?;
    }
    Ok(())
}

fn start_syncing_closed(data_dir: &Arc<DataDir>) -> Result<SyncingClosed, StartError> {
    let started = SyncingClosed::start(Arc::clone(data_dir));
    started.map_err(|error| StartError::Thread(error.to_string()))
}

/// What the shards do by the clock, and the answers that wait for a sync.
pub(crate) fn spawn_timers(shards: &Arc<Shards>, syncs: bool) {
    for index in 0..shards.count() {
        tokio::spawn(Arc::clone(shards).run_timer(index));
        if syncs {
            tokio::spawn(Arc::clone(shards).run_releases(index));
        }
    }
}

/// Data that is open, before anybody is served.
pub(crate) struct Opened {
    pub(crate) data_dir: Arc<DataDir>,
    pub(crate) node: Arc<Node>,
    pub(crate) syncing: Option<Syncing>,
}

/// [`open`] beside the caller, which may give the start up meanwhile: a recovery takes as long as there is to read.
async fn open_apart(
    config: &Arc<BrokerConfig>,
    local_addr: SocketAddr,
    loggers: Loggers,
    health: &Arc<Health>,
) -> Result<Opened, StartError> {
    let (config, health) = (Arc::clone(config), Arc::clone(health));
    let opened = tokio::task::spawn_blocking(move || open(&config, local_addr, loggers, &health));
    opened.await.expect("opening the data does not panic")
}

/// Opens the data and recovers.
pub(crate) fn open(
    config: &Arc<BrokerConfig>,
    local_addr: SocketAddr,
    loggers: Loggers,
    health: &Health,
) -> Result<Opened, StartError> {
    let began = Instant::now();
    let data_dir = Arc::new(durability::open_data_dir(config)?);
    let store = FileMetaStore::open(Arc::clone(&data_dir))
        .map_err(|error| StartError::Metadata(error.to_string()))?;
    let stored = data_dir
        .stored_partitions()
        .map_err(|error| StartError::Metadata(error.to_string()))?;
    check_not_lost(&store, &stored)?;
    let shard_count = shard_count(config);
    let metadata = Arc::new(Metadata::open(
        Box::new(store),
        Arc::clone(config),
        system_random(),
        // A block for each shard, and one for producers without a transactional id.
        u32::try_from(shard_count + 1).unwrap_or(1) * PRODUCER_ID_BLOCK,
    )?);
    remove_orphans(stored, &data_dir, &metadata);
    // With what was set at run time, from here on.
    let live = metadata.config();
    let (shards, syncing, opening) =
        open_shards(shard_count, &live, (&metadata, health), &data_dir)?;
    let node = Arc::new(Node {
        advertised: config.advertised(local_addr),
        config: Arc::clone(config),
        metadata,
        shards,
        producer_ids: PlainProducerIds::default(),
        owners: Owners::default(),
        loggers,
        fetch_sessions: FetchSessions::new(config.fetch_session_slots, random_number()),
        loading: Loading::default(),
        request_memory: Arc::new(RequestMemory::new(config.queued_max_request_bytes)),
        rates: Rates::new(config.quota_windows),
        foreigners: Foreigners::default(),
        started: Started::now(data_dir.was_clean(), opening, began),
    });
    Ok(Opened {
        data_dir,
        node,
        syncing,
    })
}

async fn bind(address: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| listen_error(address, source))
}

fn listen_error(address: &str, source: std::io::Error) -> StartError {
    StartError::Listen {
        address: address.to_owned(),
        source,
    }
}

async fn serve_http(
    address: &str,
    health: &Arc<Health>,
    stop: watch::Receiver<bool>,
) -> Result<SocketAddr, StartError> {
    let listener = bind(address).await?;
    let local = listener
        .local_addr()
        .map_err(|source| listen_error(address, source))?;
    tracing::info!(address = %local, "health is served");
    tokio::spawn(http::serve(listener, Arc::clone(health), stop));
    Ok(local)
}

fn shard_count(config: &BrokerConfig) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let count = config.shards.unwrap_or(cpus * SHARDS_PER_CPU);
    count.clamp(1, SHARDS_MAX)
}

fn new_shards(
    count: usize,
    config: &Arc<BrokerConfig>,
    metadata: &Arc<Metadata>,
    data_dir: &Arc<DataDir>,
    journal: Option<&Arc<SyncJournal>>,
) -> Arc<Shards> {
    let maps_max = (SEGMENT_MAPS_MAX / count).max(1);
    let new_journal =
        || durability::segment_journal(config.durability, data_dir, journal).keep_maps(maps_max);
    let shards = (0..count)
        .map(|_| {
            let settings = shard_settings(config, metadata, random_number());
            Shard::new(settings, new_journal())
        })
        .collect();
    let (jobs_in, jobs_out) = compactor::channel();
    let work = BackgroundWork {
        compactor: jobs_in,
        journal: journal.cloned(),
    };
    let shards = Shards::new(shards, Arc::clone(metadata), Clock::start(), work);
    let shards = Arc::new(shards);
    let threads = config.log_cleaner_threads;
    tokio::spawn(compactor::run(Arc::clone(&shards), jobs_out, threads));
    shards
}

/// The shards with all partitions, recovered, and the thread that syncs them in the modes that do.
fn open_shards(
    count: usize,
    config: &Arc<BrokerConfig>,
    (metadata, health): (&Arc<Metadata>, &Health),
    data_dir: &Arc<DataDir>,
) -> Result<(Arc<Shards>, Option<Syncing>, Opening), StartError> {
    let journal = durability::open_journal(config, data_dir);
    let journal = journal.map_err(StartError::Journal)?;
    let shards = new_shards(count, config, metadata, data_dir, journal.as_ref());
    let opening = open_partitions(&shards, metadata, health);
    let fence = durability::fence_after_power_cut(data_dir);
    let handles_cut = match fence {
        Some(fence) => {
            tracing::warn!(
                "the power was cut: transactional producers from before have to begin anew"
            );
            shards.power_was_cut(fence)
        }
        None => data_dir.power_was_cut() && shards.are_open(),
    };
    shards.recovered();
    if handles_cut {
        let data_dir = Arc::clone(data_dir);
        tokio::spawn(durability::note_power_cut_handled(
            Arc::clone(&shards),
            data_dir,
        ));
    }
    let start = |journal| Syncing::start(journal, Arc::clone(&shards));
    let syncing = journal.map(start).transpose();
    let syncing = syncing.map_err(|error| StartError::Thread(error.to_string()))?;
    Ok((shards, syncing, opening))
}

fn random_number() -> u64 {
    let mut bytes = [0; 8];
    system_random()(&mut bytes);
    u64::from_ne_bytes(bytes)
}

fn shard_settings(config: &BrokerConfig, metadata: &Metadata, seed: u64) -> ShardSettings {
    ShardSettings {
        transactions: transactions::Settings {
            transaction_max_timeout_ms: config.transaction_max_timeout_ms,
            transactional_id_expiration_ms: config.transactional_id_expiration_ms,
            abort_timed_out_interval_ms: config.transaction_abort_timed_out_interval_ms,
            remove_expired_interval_ms: config.transaction_remove_expired_interval_ms,
            transaction_version: config.transaction_version,
        },
        groups: groups::Settings {
            min_session_timeout_ms: config.group_min_session_timeout_ms,
            max_session_timeout_ms: config.group_max_session_timeout_ms,
            initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
            max_size: config.group_max_size,
            offset_metadata_max_bytes: config.offset_metadata_max_bytes,
            consumer: config.consumer_groups,
            consumer_max_size: config.group_consumer_max_size,
            assignors: config.group_consumer_assignors,
            migration_policy: config.group_consumer_migration_policy,
            offsets_retention_ms: config.offsets_retention_ms,
            offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
        },
        coordinator_epoch: metadata.coordinator_epoch(),
        seed,
        producer_id_expiration_ms: config.producer_id_expiration_ms,
        producer_id_expiration_check_ms: config.producer_id_expiration_check_interval_ms,
        retention_check_ms: config.log_retention_check_interval_ms,
        flush_check_ms: limit_ms(config.log_flush_scheduler_interval_ms),
        compactor: CompactorSettings {
            enabled: config.log_cleaner_enable && config.log_cleaner_threads > 0,
            backoff_ms: config.log_cleaner_backoff_ms,
            keys_bytes: config.log_cleaner_dedupe_buffer_size / config.log_cleaner_threads.max(1),
        },
    }
}

/// Partitions without any metadata: with new metadata they would belong to nobody, and go. Whoever has lost `meta` should
/// not lose the rest of the data too.
fn check_not_lost(store: &FileMetaStore, stored: &[PartitionId]) -> Result<(), StartError> {
    let (entries, _) = store
        .load()
        .map_err(|error| StartError::Metadata(error.to_string()))?;
    if entries.is_empty() && !stored.is_empty() {
        let message = "the file meta is missing, but there are partitions in topics; put it back, or use another directory";
        return Err(StartError::Metadata(message.to_owned()));
    }
    Ok(())
}

/// Removes the files of topics that are gone: a process that was killed between a deletion and its last file leaves some.
fn remove_orphans(stored: Vec<PartitionId>, data_dir: &Arc<DataDir>, metadata: &Metadata) {
    let mut journal = SegmentJournal::new(Arc::clone(data_dir));
    let is_orphan = |id: &PartitionId| metadata.topic_by_id(id.topic).is_none();
    for id in stored.into_iter().filter(is_orphan) {
        match journal.delete_partition(id) {
            Ok(()) => tracing::info!(partition = %id, "files of a deleted topic removed"),
            Err(error) => {
                tracing::warn!(partition = %id, %error, "files of a deleted topic remain");
            }
        }
    }
}

/// Tells how far a long start is.
struct Progress<'a> {
    health: &'a Health,
    told: Mutex<Instant>,
}

impl Progress<'_> {
    fn start(health: &Health, all: usize) -> Progress<'_> {
        health.will_open(all);
        Progress {
            health,
            told: Mutex::new(Instant::now()),
        }
    }

    fn opened(&self) {
        let (opened, of) = self.health.opened_one();
        // Whoever finds somebody else telling has nothing to tell.
        if let Ok(mut told) = self.told.try_lock()
            && told.elapsed() >= PROGRESS_EVERY
        {
            *told = Instant::now();
            tracing::info!(opened, of, "opening partitions");
        }
    }
}

/// For tests: stays here for as long as one of them wants it (`hold` of `TALLY_FAULT`); a release knows nothing of it.
fn pause(point: &str) {
    if let Some(hold) = fault_hold(point) {
        while hold.lasts() {
            std::thread::sleep(HOLD_AGAIN);
        }
    }
}

/// Opens every partition of every topic. One that can't be opened answers with a storage error; the others serve.
///
/// A thread for each core opens the partitions of its shards, in the order of the topics: nobody waits for a shard's lock.
fn open_partitions(shards: &Shards, metadata: &Metadata, health: &Health) -> Opening {
    let threads = match std::thread::available_parallelism() {
        Ok(cores) if !crate::simulation::is_on() => cores.get().min(shards.count()),
        _ => 1,
    };
    let mut parts: Vec<Vec<(Arc<Topic>, PartitionId)>> = vec![Vec::new(); threads];
    for topic in metadata.topics() {
        for id in topic.partition_ids() {
            parts[shards.index_of(id) % threads].push((Arc::clone(&topic), id));
        }
    }
    let all = parts.iter().map(Vec::len).sum();
    let progress = Progress::start(health, all);
    let (unopened, cut) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let open = |part: Vec<(Arc<Topic>, PartitionId)>| {
        for (topic, id) in part {
            match shards.open(id, partition_settings(&topic)) {
                Ok(was_cut) => {
                    cut.fetch_add(usize::from(was_cut), Ordering::Relaxed);
                }
                Err(error) => {
                    unopened.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(topic = %topic.name, partition = %id, %error, "partition not opened: it answers KAFKA_STORAGE_ERROR");
                }
            }
            progress.opened();
            pause("recovery");
        }
    };
    if threads == 1 {
        parts.into_iter().for_each(&open);
    } else {
        std::thread::scope(|scope| {
            for part in parts {
                scope.spawn(|| open(part));
            }
        });
    }
    let unopened = unopened.into_inner();
    if unopened > 0 {
        tracing::error!(
            unopened,
            "the broker starts without these partitions; nothing of their files was removed"
        );
    }
    Opening {
        opened: all - unopened,
        unopened,
        cut: cut.into_inner(),
    }
}

/// How the partitions of a topic are opened.
pub(crate) fn partition_settings(topic: &Topic) -> PartitionSettings {
    let role = match &*topic.name {
        CONSUMER_OFFSETS => PartitionRole::Groups,
        TRANSACTION_STATE => PartitionRole::Transactions,
        _ => PartitionRole::Data,
    };
    PartitionSettings {
        role,
        leader_epoch: topic.leader_epoch(),
        log: log_options(topic),
        retention: retention_settings(topic),
        compaction: compaction_settings(topic),
    }
}

/// Which older records of a key go.
pub(crate) fn compaction_settings(topic: &Topic) -> CompactionSettings {
    let configs = &topic.configs;
    CompactionSettings {
        compact: configs.cleanup_policy.compact,
        delete_retention_ms: configs.delete_retention_ms,
        min_lag_ms: configs.min_compaction_lag_ms,
        max_lag_ms: configs.max_compaction_lag_ms,
        min_dirty_ratio: configs.min_cleanable_dirty_ratio,
    }
}

/// Which records of a topic go after a while.
pub(crate) fn retention_settings(topic: &Topic) -> RetentionSettings {
    RetentionSettings {
        delete: topic.configs.cleanup_policy.delete,
        retention_ms: topic.configs.retention_ms,
        retention_bytes: topic.configs.retention_bytes,
    }
}

/// A time whose largest value means that there is no limit.
fn limit_ms(ms: u64) -> u64 {
    match ms < i64::MAX.unsigned_abs() {
        true => ms,
        false => u64::MAX,
    }
}

/// How the logs of a topic are kept.
pub(crate) fn log_options(topic: &Topic) -> LogOptions {
    let configs = &topic.configs;
    // What is in the open segment is not compacted: it is closed in time for that.
    let segment_ms = if configs.cleanup_policy.compact {
        configs.segment_ms.min(configs.max_compaction_lag_ms)
    } else {
        configs.segment_ms
    };
    let bytes = |value: i32| u32::try_from(value).unwrap_or(u32::MAX);
    LogOptions {
        segment_bytes: bytes(configs.segment_bytes),
        segment_ms,
        segment_jitter_ms: configs.segment_jitter_ms,
        index_interval_bytes: bytes(configs.index_interval_bytes),
        index_max_bytes: bytes(configs.segment_index_bytes),
        // 1 is the one setting that raises a topic above the broker's mode.
        flush_messages: configs.flush_messages,
        flush_ms: limit_ms(configs.flush_ms.unsigned_abs()),
        // R-11 (a): the records of coordinators decide over others.
        synced_only: topic.internal,
        ..LogOptions::default()
    }
}
