//! Which topics there are, who this broker is, and which producer ids are free.
//!
//! Owns the in-memory image of the metadata store and every write to it. Invariants:
//! - What is visible here is durable: a change is committed before the image shows it (N11).
//! - The incarnation is raised durably before anything else happens, so no leader epoch is ever used twice (N5, N12).
//! - A topic's id is never used again (N10), nor is a producer id (I-22): a block is durable before its first id leaves.
//! - The internal topics exist from the first start and keep their partition count, on which the choice of coordinator
//!   hangs (S-6).
//!
//! Keys of the store: `cluster.id`, `node.id`, `incarnation`, `features.epoch`, `producer.ids.next`, `topic/NAME`,
//! `topic/NAME/PROPERTY`, `config/KIND/NAME/PROPERTY` and `quota/ENTITY/QUOTA`. Not here: partitions' data, committed offsets, who may do what.

pub(crate) mod features;
mod for_groups;
mod names;
mod quotas;
mod random;
mod record;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tally_protocol::error_code::ErrorCode;
use tally_protocol::ids::{CoordinatorEpoch, LeaderEpoch, PartitionId, TopicId};
use tally_storage::{MetaError, MetaStore, Revision};

use crate::config::properties::topic_property;
use crate::config::{BrokerConfig, ChangeError, Overrides, TopicConfig, TopicConfigError};

pub(crate) use self::names::{NameError, check as check_topic_name};
pub(crate) use self::quotas::{Change as QuotaChange, QuotaError};
pub(crate) use self::random::{Random, system_random};
pub(crate) use self::settings::{AlterError, AlterMode};

use self::features::Finals;
use self::for_groups::ForGroups;
use self::quotas::Quotas;
use self::record::TopicRecord;
use self::settings::Settings;

/// The topic that holds committed offsets and groups.
pub(crate) const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// The topic that holds the states of transactions.
pub(crate) const TRANSACTION_STATE: &str = "__transaction_state";

/// Most partitions a topic may have. Kafka has a bound per request (10000 new ones); more than that in one topic of one
/// broker is a mistake that would only show as memory.
pub(crate) const PARTITIONS_MAX: i32 = 10_000;

/// A topic as it is now. A change makes a new value.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its id, which data and state are keyed by.
    pub(crate) id: TopicId,
    /// Its partitions are 0 to this, excluded.
    pub(crate) partition_count: i32,
    /// Its effective configuration.
    pub(crate) configs: Arc<TopicConfig>,
    /// The settings it has of its own.
    pub(crate) overrides: Overrides,
    /// Whether the broker writes it and clients may only read it.
    pub(crate) internal: bool,
    leader_epoch: LeaderEpoch,
}

impl Topic {
    /// The leader epoch of its partitions: one more at each start of the broker, 0 at first (LR-80).
    #[must_use]
    pub(crate) fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The partition of this number, if the topic has it.
    #[must_use]
    pub(crate) fn partition_id(&self, index: i32) -> Option<PartitionId> {
        (0..self.partition_count)
            .contains(&index)
            .then_some(PartitionId {
                topic: self.id,
                index,
            })
    }

    /// All its partitions.
    pub(crate) fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        let topic = self.id;
        (0..self.partition_count).map(move |index| PartitionId { topic, index })
    }
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub(crate) struct NewTopic {
    /// Its name.
    pub(crate) name: String,
    /// Its number of partitions.
    pub(crate) partition_count: i32,
    /// Its own settings, checked already by [`TopicConfig::parse`].
    pub(crate) overrides: Overrides,
}

/// Why the metadata cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] MetaError),
    /// A value that this version did not write.
    #[error("metadata {key} is {value:?}, which this version cannot read")]
    Unreadable {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// The data belongs to a broker with another number.
    #[error("this data belongs to node {stored}, but node.id is {configured}")]
    OtherNode {
        /// Whose data it is.
        stored: i32,
        /// What was configured.
        configured: i32,
    },
    /// The data belongs to another cluster.
    #[error("this data belongs to cluster {stored}, but tally.cluster.id is {configured}")]
    OtherCluster {
        /// Whose data it is.
        stored: String,
        /// What was configured.
        configured: String,
    },
    /// What was set at run time does not go together with what is given at start.
    #[error("with what was set at run time: {0}")]
    Dynamic(ChangeError),
    /// A setting of a stored topic is refused now.
    #[error("topic {topic}: {error}")]
    Topic {
        /// The topic.
        topic: String,
        /// What is wrong with its settings.
        error: TopicConfigError,
    },
}

/// Why a topic is not created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateTopicError {
    /// The name is not allowed, or too like another one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It is there already.
    #[error("topic {0} already exists")]
    Exists(String),
    /// A partition count that no topic may have.
    #[error("{0} partitions asked; a topic has 1 to {PARTITIONS_MAX}")]
    Partitions(i32),
    /// Its settings are refused.
    #[error(transparent)]
    Config(#[from] TopicConfigError),
    /// The store failed; nothing was created.
    #[error(transparent)]
    Store(#[from] Arc<MetaError>),
}

/// The names of topics that are created together: no two may be the same, or too like each other.
#[derive(Default)]
struct TakenNames(BTreeMap<String, String>);

impl TakenNames {
    fn check(&self, name: &str) -> Result<(), CreateTopicError> {
        match self.0.get(&names::canonical(name)) {
            Some(other) if other == name => Err(CreateTopicError::Exists(name.to_owned())),
            Some(other) => Err(NameError::Collides {
                name: name.to_owned(),
                other: other.clone(),
            }
            .into()),
            None => Ok(()),
        }
    }

    fn take(&mut self, name: String) {
        self.0.insert(names::canonical(&name), name);
    }
}

impl CreateTopicError {
    /// What a client is told.
    #[must_use]
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            CreateTopicError::Name(_) => ErrorCode::InvalidTopicException,
            CreateTopicError::Exists(_) => ErrorCode::TopicAlreadyExists,
            CreateTopicError::Partitions(_) => ErrorCode::InvalidPartitions,
            CreateTopicError::Config(_) => ErrorCode::InvalidConfig,
            CreateTopicError::Store(_) => ErrorCode::KafkaStorageError,
        }
    }
}

/// Why a topic is not deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeleteTopicError {
    /// There is no such topic.
    #[error("there is no topic {0}")]
    Unknown(String),
    /// The broker needs it (LN-9).
    #[error("{0} is an internal topic")]
    Internal(String),
    /// The store failed; the topic is still there.
    #[error(transparent)]
    Store(#[from] MetaError),
}

impl DeleteTopicError {
    /// What a client is told, when it asked by name.
    #[must_use]
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            DeleteTopicError::Unknown(_) => ErrorCode::UnknownTopicOrPartition,
            DeleteTopicError::Internal(_) => ErrorCode::InvalidTopicException,
            DeleteTopicError::Store(_) => ErrorCode::KafkaStorageError,
        }
    }
}

/// Why a topic gets no more partitions.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrowTopicError {
    /// There is no such topic.
    #[error("there is no topic {0}")]
    Unknown(String),
    /// Which coordinator is asked hangs on its partition count (LN-9).
    #[error("{0} is an internal topic")]
    Internal(String),
    /// Not more than there are, or more than a topic may have.
    #[error(
        "{wanted} partitions asked; the topic has {count}, and at most {PARTITIONS_MAX} are allowed"
    )]
    Partitions {
        /// What was asked for.
        wanted: i32,
        /// What there is.
        count: i32,
    },
    /// The store failed; the topic is as it was.
    #[error(transparent)]
    Store(#[from] MetaError),
}

impl GrowTopicError {
    /// What a client is told.
    #[must_use]
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            GrowTopicError::Unknown(_) => ErrorCode::UnknownTopicOrPartition,
            GrowTopicError::Internal(_) => ErrorCode::InvalidTopicException,
            GrowTopicError::Partitions { .. } => ErrorCode::InvalidPartitions,
            GrowTopicError::Store(_) => ErrorCode::KafkaStorageError,
        }
    }
}

#[derive(Default)]
struct Image {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    by_id: BTreeMap<TopicId, Arc<Topic>>,
    /// Names with dots as underscores, because two topics may not differ in that alone (11.1).
    by_canonical_name: BTreeMap<String, Arc<str>>,
}

impl Image {
    fn insert(&mut self, topic: Topic) -> Arc<Topic> {
        let topic = Arc::new(topic);
        self.by_canonical_name
            .insert(names::canonical(&topic.name), topic.name.clone());
        self.by_id.insert(topic.id, topic.clone());
        self.by_name.insert(topic.name.clone(), topic.clone());
        topic
    }

    fn remove(&mut self, topic: &Topic) {
        self.by_canonical_name
            .remove(&names::canonical(&topic.name));
        self.by_id.remove(&topic.id);
        self.by_name.remove(&topic.name);
    }
}

/// What only one writer at a time may touch.
struct Writer {
    store: Box<dyn MetaStore + Send + Sync>,
    revision: Revision,
    random: Random,
    /// Reserved with the start of this run and not given out yet.
    spare_producer_ids: Range<i64>,
    next_producer_id: i64,
}

impl Writer {
    fn commit(&mut self, writes: &[(String, Option<String>)]) -> Result<(), MetaError> {
        self.revision = self.store.commit(self.revision, writes)?;
        Ok(())
    }
}

/// The metadata of the broker. Reads are short and take no part in writes; writes are durable when they return.
pub(crate) struct Metadata {
    /// What was given at start, and what has been set since.
    settings: RwLock<Settings>,
    /// Held while settings are changed, until the shards know: the first of the locks.
    alteration: Mutex<()>,
    cluster_id: String,
    incarnation: i64,
    finals: Finals,
    quotas: Quotas,
    is_new: bool,
    image: RwLock<Image>,
    generation: AtomicU64,
    for_groups: ForGroups,
    writer: Mutex<Writer>,
}

impl Metadata {
    /// Reads the store, raises the incarnation by one, makes what a new store lacks and reserves the first producer ids of
    /// this run, all in one durable commit: a start pays for one sync.
    pub(crate) fn open(
        store: Box<dyn MetaStore + Send + Sync>,
        config: Arc<BrokerConfig>,
        mut random: Random,
        producer_ids: u32,
    ) -> Result<Metadata, OpenError> {
        let (entries, revision) = store.load()?;
        let mut writes = Vec::new();
        let identity = Identity::next(&entries, &config, &mut random, &mut writes)?;
        let mut records = record::read_topics(&entries)?;
        for record in internal_topics(&config, identity.incarnation) {
            if records.iter().all(|(name, _)| *name != record.name) {
                let id = new_topic_id(&mut random, |id| {
                    records.iter().all(|(_, stored)| stored.id != id)
                });
                let record = TopicRecord { id, ..record };
                record.write(&mut writes);
                records.push((record.name.clone(), record));
            }
        }
        let settings = Settings::read(&entries, config)?;
        let finals = Finals::read(
            &entries,
            settings.config.transaction_version,
            identity.features_epoch,
        )?;
        let quotas = Quotas::read(&entries)?;
        let mut image = Image::default();
        for (_, record) in records {
            image.insert(topic_of(record, &settings.config, identity.incarnation)?);
        }
        let first_producer_id = identity.next_producer_id;
        let next_producer_id = first_producer_id + i64::from(producer_ids);
        writes.push((
            record::NEXT_PRODUCER_ID.to_owned(),
            Some(next_producer_id.to_string()),
        ));
        let mut writer = Writer {
            store,
            revision,
            random,
            spare_producer_ids: first_producer_id..next_producer_id,
            next_producer_id,
        };
        writer.commit(&writes)?;
        Ok(Metadata {
            settings: RwLock::new(settings),
            alteration: Mutex::new(()),
            cluster_id: identity.cluster_id,
            incarnation: identity.incarnation,
            finals,
            quotas,
            is_new: identity.is_new,
            image: RwLock::new(image),
            generation: AtomicU64::new(0),
            for_groups: ForGroups::default(),
            writer: Mutex::new(writer),
        })
    }

    /// The cluster's id: 22 characters of base64url (LR-135).
    #[must_use]
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Whether the store was empty before this start.
    #[must_use]
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The epoch of the coordinators of this run; it never falls (M-5).
    #[must_use]
    pub(crate) fn coordinator_epoch(&self) -> CoordinatorEpoch {
        CoordinatorEpoch(epoch(self.incarnation))
    }

    /// How many commits the store has seen. Waits for one that is being made.
    #[must_use]
    pub(crate) fn revision(&self) -> i64 {
        i64::try_from(self.write().revision.0).unwrap_or(i64::MAX)
    }

    /// Rises with every change of topics: as long as it stays, what was looked up after it was read holds.
    #[must_use]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The topic of this name.
    #[must_use]
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.read(|image| image.by_name.get(name).cloned())
    }

    /// The topic of this id.
    #[must_use]
    pub(crate) fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.read(|image| image.by_id.get(&id).cloned())
    }

    /// The id of a partition, if there is such a topic and it has such a partition.
    #[must_use]
    pub(crate) fn partition_id(&self, name: &str, partition: i32) -> Option<PartitionId> {
        self.read(|image| {
            let topic = image.by_name.get(name)?;
            (0..topic.partition_count)
                .contains(&partition)
                .then_some(PartitionId {
                    topic: topic.id,
                    index: partition,
                })
        })
    }

    /// All topics by name, the internal ones too.
    #[must_use]
    pub(crate) fn topics(&self) -> Vec<Arc<Topic>> {
        self.read(|image| image.by_name.values().cloned().collect())
    }

    /// Whether a topic of this name could be created, by its name alone (11.1, 11.2): refused names and names too like
    /// another one, names that are taken.
    pub(crate) fn check_new_name(&self, name: &str) -> Result<(), CreateTopicError> {
        names::check(name)?;
        self.read(|image| {
            if image.by_name.contains_key(name) {
                return Err(CreateTopicError::Exists(name.to_owned()));
            }
            match image.by_canonical_name.get(&names::canonical(name)) {
                Some(other) => Err(NameError::Collides {
                    name: name.to_owned(),
                    other: other.to_string(),
                }
                .into()),
                None => Ok(()),
            }
        })
    }

    /// Creates a topic, as [`Metadata::create_topics`] does.
    #[cfg(test)]
    pub(crate) fn create_topic(
        &self,
        new: NewTopic,
        open: impl FnOnce(&Topic),
    ) -> Result<Arc<Topic>, CreateTopicError> {
        let mut open = Some(open);
        let open = |topic: &Topic| {
            if let Some(open) = open.take() {
                open(topic);
            }
        };
        let mut outcomes = self.create_topics(vec![new], open);
        outcomes.pop().expect("an outcome for each topic")
    }

    /// Creates topics with one commit; each stands for itself. They are durable and visible on return. `open` gets each in
    /// between: nobody sees a partition that is not open, and no deletion comes before.
    pub(crate) fn create_topics(
        &self,
        new: Vec<NewTopic>,
        mut open: impl FnMut(&Topic),
    ) -> Vec<Result<Arc<Topic>, CreateTopicError>> {
        let mut writer = self.write();
        let mut writes = Vec::new();
        let mut taken = TakenNames::default();
        // Under the writer's lock, so that no other creation comes between check and commit.
        let planned: Vec<Result<Topic, CreateTopicError>> = new
            .into_iter()
            .map(|new| {
                taken.check(&new.name)?;
                let name = new.name.clone();
                let topic = self.plan_topic(new, &mut writer.random, &mut writes)?;
                taken.take(name);
                Ok(topic)
            })
            .collect();
        let committed = match writes.is_empty() {
            true => Ok(()),
            false => writer.commit(&writes).map_err(Arc::new),
        };
        planned
            .into_iter()
            .map(|planned| {
                let topic = planned?;
                committed.clone()?;
                open(&topic);
                Ok(self.change(|image| image.insert(topic)))
            })
            .collect()
    }

    /// A topic as it will be, if it can be, and what is to be written for it.
    fn plan_topic(
        &self,
        new: NewTopic,
        random: &mut Random,
        writes: &mut Vec<(String, Option<String>)>,
    ) -> Result<Topic, CreateTopicError> {
        self.check_new_name(&new.name)?;
        if !(1..=PARTITIONS_MAX).contains(&new.partition_count) {
            return Err(CreateTopicError::Partitions(new.partition_count));
        }
        let record = TopicRecord {
            name: new.name,
            id: new_topic_id(random, |id| self.topic_by_id(id).is_none()),
            partition_count: new.partition_count,
            created_incarnation: self.incarnation,
            internal: false,
            overrides: new.overrides,
        };
        let mut own = Vec::new();
        record.write(&mut own);
        let topic = topic_with_config(record, &self.config(), self.incarnation)?;
        writes.append(&mut own);
        Ok(topic)
    }

    /// Whether a topic could have `count` partitions; how many it has now (11.3).
    pub(crate) fn check_growth(&self, name: &str, count: i32) -> Result<i32, GrowTopicError> {
        let Some(topic) = self.topic(name) else {
            return Err(GrowTopicError::Unknown(name.to_owned()));
        };
        if topic.internal {
            return Err(GrowTopicError::Internal(name.to_owned()));
        }
        if count <= topic.partition_count || count > PARTITIONS_MAX {
            return Err(GrowTopicError::Partitions {
                wanted: count,
                count: topic.partition_count,
            });
        }
        Ok(topic.partition_count)
    }

    /// Gives a topic more partitions. `open` is handed the topic as it will be and the new partitions, after they are
    /// durable and before anybody sees them.
    pub(crate) fn grow_topic(
        &self,
        name: &str,
        count: i32,
        open: impl FnOnce(&Topic, Vec<PartitionId>),
    ) -> Result<(), GrowTopicError> {
        let mut writer = self.write();
        // Under the writer's lock, so that no other change comes between check and commit.
        let count_before = self.check_growth(name, count)?;
        let Some(topic) = self.topic(name) else {
            return Err(GrowTopicError::Unknown(name.to_owned()));
        };
        let record = TopicRecord {
            name: name.to_owned(),
            id: topic.id,
            partition_count: count,
            created_incarnation: self.incarnation - i64::from(topic.leader_epoch.0),
            internal: topic.internal,
            overrides: topic.overrides.clone(),
        };
        let mut writes = Vec::new();
        record.write(&mut writes);
        writer.commit(&writes)?;
        let grown = Topic {
            partition_count: count,
            ..(*topic).clone()
        };
        let is_new = |id: &PartitionId| id.index >= count_before;
        open(&grown, grown.partition_ids().filter(is_new).collect());
        self.change(|image| image.insert(grown));
        Ok(())
    }

    /// Deletes a topic: on return it is gone for good from the metadata. Its data is the caller's to remove.
    pub(crate) fn delete_topic(&self, name: &str) -> Result<Arc<Topic>, DeleteTopicError> {
        let mut writer = self.write();
        let Some(topic) = self.topic(name) else {
            return Err(DeleteTopicError::Unknown(name.to_owned()));
        };
        if topic.internal {
            return Err(DeleteTopicError::Internal(name.to_owned()));
        }
        writer.commit(&record::removal(&topic.name, &topic.overrides))?;
        self.change(|image| image.remove(&topic));
        Ok(topic)
    }

    /// Reserves producer ids. They are durable on return and never given again, used or not (I-22).
    pub(crate) fn reserve_producer_ids(&self, count: u32) -> Result<Range<i64>, MetaError> {
        let mut writer = self.write();
        let spare = writer.spare_producer_ids.clone();
        if spare.end - spare.start >= i64::from(count) {
            let end = spare.start + i64::from(count);
            writer.spare_producer_ids.start = end;
            return Ok(spare.start..end);
        }
        let start = writer.next_producer_id;
        let end = start
            .checked_add(i64::from(count))
            .expect("nobody can reserve all 64-bit numbers in blocks of 32 bits");
        writer.commit(&[(record::NEXT_PRODUCER_ID.to_owned(), Some(end.to_string()))])?;
        writer.next_producer_id = end;
        Ok(start..end)
    }

    fn read<T>(&self, look: impl FnOnce(&Image) -> T) -> T {
        // A writer that panicked ended the process (`panic = "abort"`), or is a failed test: the image itself is whole.
        look(&self.image.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Image) -> T) -> T {
        let mut image = self.image.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut image);
        // Before the lock is let go: who reads the new number reads the new image.
        self.generation.fetch_add(1, Ordering::Release);
        changed
    }

    fn write(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("cluster_id", &self.cluster_id)
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

/// Who this broker is in this run.
struct Identity {
    cluster_id: String,
    incarnation: i64,
    features_epoch: i64,
    next_producer_id: i64,
    is_new: bool,
}

impl Identity {
    fn next(
        entries: &BTreeMap<String, String>,
        config: &BrokerConfig,
        random: &mut Random,
        writes: &mut Vec<(String, Option<String>)>,
    ) -> Result<Identity, OpenError> {
        let is_new = !entries.contains_key(record::CLUSTER_ID);
        let stored_node = record::number(entries, record::NODE_ID)?;
        if let Some(stored) = stored_node
            && stored != i64::from(config.node_id)
        {
            return Err(OpenError::OtherNode {
                stored: i32::try_from(stored).unwrap_or(i32::MAX),
                configured: config.node_id,
            });
        }
        let cluster_id = match (entries.get(record::CLUSTER_ID), &config.cluster_id) {
            (Some(stored), Some(configured)) if stored != configured => {
                return Err(OpenError::OtherCluster {
                    stored: stored.clone(),
                    configured: configured.clone(),
                });
            }
            (Some(id), _) | (None, Some(id)) => id.clone(),
            (None, None) => new_cluster_id(random),
        };
        let identity = Identity {
            cluster_id,
            incarnation: record::number(entries, record::INCARNATION)?.unwrap_or(0) + 1,
            features_epoch: record::number(entries, record::FEATURES_EPOCH)?.unwrap_or(0),
            next_producer_id: record::number(entries, record::NEXT_PRODUCER_ID)?.unwrap_or(0),
            is_new,
        };
        let mut put = |key: &str, value: String| writes.push((key.to_owned(), Some(value)));
        put(record::INCARNATION, identity.incarnation.to_string());
        if is_new {
            put(record::CLUSTER_ID, identity.cluster_id.clone());
            put(record::FEATURES_EPOCH, identity.features_epoch.to_string());
        }
        if stored_node.is_none() {
            put(record::NODE_ID, config.node_id.to_string());
        }
        Ok(identity)
    }
}

/// The internal topics as they are created, without their ids, with Kafka's own settings for them.
fn internal_topics(config: &BrokerConfig, incarnation: i64) -> [TopicRecord; 2] {
    let internal = |name: &str, partition_count: i32, segment_bytes: i32| {
        // The broker may want smaller segments for them than a topic may ask for by the name that is shown.
        let property = match topic_property("segment.bytes") {
            Some(row) if row.check(&segment_bytes.to_string()).is_ok() => "segment.bytes",
            _ => "internal.segment.bytes",
        };
        TopicRecord {
            name: name.to_owned(),
            id: TopicId::ZERO,
            partition_count,
            created_incarnation: incarnation,
            internal: true,
            overrides: Overrides::from([
                ("cleanup.policy".to_owned(), "compact".to_owned()),
                (property.to_owned(), segment_bytes.to_string()),
            ]),
        }
    };
    [
        internal(
            CONSUMER_OFFSETS,
            config.offsets_topic_num_partitions,
            config.offsets_topic_segment_bytes,
        ),
        internal(
            TRANSACTION_STATE,
            config.transaction_state_log_num_partitions,
            config.transaction_state_log_segment_bytes,
        ),
    ]
}

fn topic_of(
    record: TopicRecord,
    config: &BrokerConfig,
    incarnation: i64,
) -> Result<Topic, OpenError> {
    let name = record.name.clone();
    topic_with_config(record, config, incarnation)
        .map_err(|error| OpenError::Topic { topic: name, error })
}

fn topic_with_config(
    record: TopicRecord,
    config: &BrokerConfig,
    incarnation: i64,
) -> Result<Topic, TopicConfigError> {
    let configs = if record.overrides.is_empty() {
        config.topic_defaults.clone()
    } else {
        let settings = record
            .overrides
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_str())));
        Arc::new(TopicConfig::parse(&config.values, settings)?.0)
    };
    Ok(Topic {
        name: record.name.into(),
        id: record.id,
        partition_count: record.partition_count,
        configs,
        overrides: record.overrides,
        internal: record.internal,
        leader_epoch: LeaderEpoch(epoch(incarnation - record.created_incarnation)),
    })
}

/// A count of starts as an epoch of the wire: two thousand million starts are not reached.
fn epoch(starts: i64) -> i32 {
    i32::try_from(starts).expect("the broker has been started fewer than 2^31 times")
}

/// A random id that no topic has, and that is none of those with a meaning (all zero, and Kafka's metadata topic: one).
fn new_topic_id(random: &mut Random, is_free: impl Fn(TopicId) -> bool) -> TopicId {
    loop {
        let id = TopicId(random::uuid(random));
        if is_free(id) {
            return id;
        }
    }
}

/// A random uuid as 22 characters of base64url.
pub(crate) fn new_uuid_text() -> String {
    names::base64url(random::uuid(&mut system_random()))
}

/// A cluster id that no command line takes for a flag.
fn new_cluster_id(random: &mut Random) -> String {
    loop {
        let id = names::base64url(random::uuid(random));
        if !id.starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::config::Setting;

    type Entries = BTreeMap<String, String>;

    /// A store in memory that outlives its broker and can be told to fail.
    #[derive(Clone, Default)]
    struct Memory {
        entries: Arc<Mutex<(Entries, u64)>>,
        fails: Arc<AtomicBool>,
    }

    impl MetaStore for Memory {
        fn load(&self) -> Result<(Entries, Revision), MetaError> {
            let stored = self.entries.lock().unwrap();
            Ok((stored.0.clone(), Revision(stored.1)))
        }

        fn commit(
            &self,
            expect: Revision,
            writes: &[(String, Option<String>)],
        ) -> Result<Revision, MetaError> {
            if self.fails.load(Ordering::Relaxed) {
                return Err(failure());
            }
            let mut stored = self.entries.lock().unwrap();
            assert_eq!(expect.0, stored.1);
            for (key, value) in writes {
                match value {
                    Some(value) => stored.0.insert(key.clone(), value.clone()),
                    None => stored.0.remove(key),
                };
            }
            stored.1 += 1;
            Ok(Revision(stored.1))
        }
    }

    fn failure() -> MetaError {
        MetaError::Io {
            what: "write",
            path: "meta".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        }
    }

    fn counting_random() -> Random {
        let mut next = 0u8;
        Box::new(move |bytes| {
            next += 1;
            bytes.fill(next);
        })
    }

    fn config(pairs: &[(&str, &str)]) -> Arc<BrokerConfig> {
        let settings: Vec<Setting> = pairs
            .iter()
            .map(|(name, value)| Setting::new(*name, *value, "--set"))
            .collect();
        Arc::new(BrokerConfig::from_settings(&settings).unwrap().0)
    }

    #[track_caller]
    fn open(memory: &Memory, pairs: &[(&str, &str)]) -> Metadata {
        Metadata::open(
            Box::new(memory.clone()),
            config(pairs),
            counting_random(),
            0,
        )
        .unwrap()
    }

    fn new_topic(name: &str) -> NewTopic {
        NewTopic {
            name: name.to_owned(),
            partition_count: 3,
            overrides: Overrides::new(),
        }
    }

    #[track_caller]
    fn check_refused(metadata: &Metadata, name: &str, code: ErrorCode) {
        let error = metadata.create_topic(new_topic(name), |_| {}).unwrap_err();
        assert_eq!(error.code(), code, "{name}: {error}");
    }

    #[test]
    fn a_new_store_gets_an_identity_and_the_internal_topics() {
        let pairs = [
            ("offsets.topic.num.partitions", "5"),
            ("transaction.state.log.segment.bytes", "4096"),
        ];
        let metadata = open(&Memory::default(), &pairs);
        assert!(metadata.is_new());
        assert_eq!(metadata.cluster_id().len(), 22);
        assert_eq!(metadata.coordinator_epoch(), CoordinatorEpoch(1));
        assert_eq!(metadata.finalized().epoch, 0);
        let topics = metadata.topics();
        let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
        assert_eq!(names, [CONSUMER_OFFSETS, TRANSACTION_STATE]);
        assert!(topics.iter().all(|topic| topic.internal));
        assert!(
            topics
                .iter()
                .all(|topic| topic.configs.cleanup_policy.compact)
        );
        assert_eq!(topics[0].partition_count, 5);
        assert_eq!(topics[0].configs.segment_bytes, 104_857_600);
        assert!(topics[0].overrides.contains_key("segment.bytes"));
        assert_eq!(topics[1].configs.segment_bytes, 4096);
        assert_eq!(topics[1].partition_count, 50);
    }

    #[test]
    fn n5_every_start_raises_the_epochs_and_nothing_else() {
        let memory = Memory::default();
        let first = open(&memory, &[]);
        first.create_topic(new_topic("a"), |_| {}).unwrap();
        let again = open(&memory, &[("offsets.topic.num.partitions", "5")]);
        assert!(!again.is_new());
        assert_eq!(again.cluster_id(), first.cluster_id());
        assert_eq!(again.coordinator_epoch(), CoordinatorEpoch(2));
        let offsets = again.topic(CONSUMER_OFFSETS).unwrap();
        assert_eq!(offsets.partition_count, 50, "fixed at the first start");
        assert_eq!(offsets.leader_epoch(), LeaderEpoch(1));
        let id = |partition| again.partition_id(CONSUMER_OFFSETS, partition);
        assert_eq!(id(49).map(|id| id.topic), Some(offsets.id));
        assert_eq!((id(50), id(-1)), (None, None));
        let topic = again.topic("a").unwrap();
        assert_eq!(topic.leader_epoch(), LeaderEpoch(1));
        assert_eq!(topic.id, first.topic("a").unwrap().id);
        again.create_topic(new_topic("b"), |_| {}).unwrap();
        assert_eq!(again.topic("b").unwrap().leader_epoch(), LeaderEpoch(0));
    }

    #[test]
    fn i22_producer_ids_are_never_given_twice() {
        let memory = Memory::default();
        let first = open(&memory, &[]);
        assert_eq!(first.reserve_producer_ids(1000).unwrap(), 0..1000);
        assert_eq!(first.reserve_producer_ids(10).unwrap(), 1000..1010);
        memory.fails.store(true, Ordering::Relaxed);
        assert!(first.reserve_producer_ids(1).is_err());
        memory.fails.store(false, Ordering::Relaxed);
        assert_eq!(first.reserve_producer_ids(1).unwrap(), 1010..1011);
        assert_eq!(
            open(&memory, &[]).reserve_producer_ids(1).unwrap(),
            1011..1012
        );
    }

    #[test]
    fn i22_the_first_producer_ids_are_reserved_with_the_start() {
        let memory = Memory::default();
        let start = || {
            let store = Box::new(memory.clone());
            Metadata::open(store, config(&[]), counting_random(), 20).unwrap()
        };
        let first = start();
        memory.fails.store(true, Ordering::Relaxed);
        assert_eq!(first.reserve_producer_ids(15).unwrap(), 0..15);
        assert_eq!(first.reserve_producer_ids(5).unwrap(), 15..20);
        assert!(
            first.reserve_producer_ids(1).is_err(),
            "more needs the store"
        );
        memory.fails.store(false, Ordering::Relaxed);
        assert_eq!(start().reserve_producer_ids(1).unwrap(), 20..21);
    }

    #[test]
    fn l81_names_are_checked() {
        let metadata = open(&Memory::default(), &[]);
        metadata.create_topic(new_topic("a.b"), |_| {}).unwrap();
        metadata
            .create_topic(new_topic(&"x".repeat(249)), |_| {})
            .unwrap();
        check_refused(&metadata, "a.b", ErrorCode::TopicAlreadyExists);
        check_refused(&metadata, "a_b", ErrorCode::InvalidTopicException);
        check_refused(
            &metadata,
            &"x".repeat(250),
            ErrorCode::InvalidTopicException,
        );
        check_refused(&metadata, ".", ErrorCode::InvalidTopicException);
        check_refused(&metadata, "..", ErrorCode::InvalidTopicException);
        check_refused(&metadata, "", ErrorCode::InvalidTopicException);
        check_refused(&metadata, "a/b", ErrorCode::InvalidTopicException);
        check_refused(&metadata, "ä", ErrorCode::InvalidTopicException);
        metadata.delete_topic("a.b").unwrap();
        metadata.create_topic(new_topic("a_b"), |_| {}).unwrap();
    }

    #[test]
    fn topics_of_one_request_are_one_commit_and_stand_for_themselves() {
        let memory = Memory::default();
        let metadata = open(&memory, &[]);
        let create = |names: &[&str]| {
            let new = names.iter().map(|name| new_topic(name)).collect();
            let mut opened = Vec::new();
            let made = metadata.create_topics(new, |topic| opened.push(topic.name.to_string()));
            let codes = made.iter().map(|made| match made {
                Ok(_) => ErrorCode::None,
                Err(error) => error.code(),
            });
            (codes.collect::<Vec<_>>(), opened)
        };
        let before = memory.entries.lock().unwrap().1;
        let (codes, opened) = create(&["a", "b.c", "b_c", "a", "d/e", "f"]);
        let expected = [
            ErrorCode::None,
            ErrorCode::None,
            ErrorCode::InvalidTopicException,
            ErrorCode::TopicAlreadyExists,
            ErrorCode::InvalidTopicException,
            ErrorCode::None,
        ];
        assert_eq!(codes, expected);
        assert_eq!(opened, ["a", "b.c", "f"]);
        assert_eq!(memory.entries.lock().unwrap().1, before + 1, "one commit");
        assert_eq!(create(&["."]).0, [ErrorCode::InvalidTopicException]);
        assert_eq!(
            memory.entries.lock().unwrap().1,
            before + 1,
            "none for nothing"
        );
        memory.fails.store(true, Ordering::Relaxed);
        let (codes, opened) = create(&["g", "a"]);
        assert_eq!(
            codes,
            [ErrorCode::KafkaStorageError, ErrorCode::TopicAlreadyExists]
        );
        assert!(opened.is_empty() && metadata.topic("g").is_none());
        memory.fails.store(false, Ordering::Relaxed);
        let again = open(&memory, &[]);
        for name in ["a", "b.c", "f"] {
            assert_eq!(
                again.topic(name).unwrap().id,
                metadata.topic(name).unwrap().id
            );
        }
    }

    #[test]
    fn l85_a_topic_made_again_has_a_new_id() {
        let memory = Memory::default();
        let metadata = open(&memory, &[]);
        let old = metadata.create_topic(new_topic("a"), |_| {}).unwrap();
        metadata.delete_topic("a").unwrap();
        assert!(metadata.topic("a").is_none());
        assert!(metadata.topic_by_id(old.id).is_none());
        let new = metadata.create_topic(new_topic("a"), |_| {}).unwrap();
        assert_ne!(new.id, old.id);
        assert_eq!(metadata.topic_by_id(new.id).unwrap().name, new.name);
    }

    #[test]
    fn l85_internal_topics_stay() {
        let metadata = open(&Memory::default(), &[]);
        let error = metadata.delete_topic(CONSUMER_OFFSETS).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidTopicException);
        let error = metadata.delete_topic("none").unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnknownTopicOrPartition);
    }

    #[test]
    fn settings_of_a_topic_survive_and_go_with_it() {
        let memory = Memory::default();
        let metadata = open(&memory, &[]);
        let new = NewTopic {
            overrides: Overrides::from([("cleanup.policy".into(), "compact, delete".into())]),
            ..new_topic("a")
        };
        metadata.create_topic(new, |_| {}).unwrap();
        let again = open(&memory, &[]);
        let topic = again.topic("a").unwrap();
        assert!(topic.configs.cleanup_policy.compact && topic.configs.cleanup_policy.delete);
        assert_eq!(topic.partition_count, 3);
        again.delete_topic("a").unwrap();
        let entries = memory.entries.lock().unwrap().0.clone();
        assert!(
            entries.keys().all(|key| !key.starts_with("topic/a")),
            "{entries:?}"
        );
    }

    #[test]
    fn a_failed_store_changes_nothing() {
        let memory = Memory::default();
        let metadata = open(&memory, &[]);
        metadata.create_topic(new_topic("a"), |_| {}).unwrap();
        memory.fails.store(true, Ordering::Relaxed);
        check_refused(&metadata, "b", ErrorCode::KafkaStorageError);
        assert!(metadata.topic("b").is_none());
        assert!(metadata.delete_topic("a").is_err());
        assert!(metadata.topic("a").is_some());
    }

    #[test]
    fn l84_a_topic_grows_and_stays_the_same_topic() {
        let memory = Memory::default();
        let old = open(&memory, &[])
            .create_topic(new_topic("a"), |_| {})
            .unwrap();
        let metadata = open(&memory, &[]);
        for count in [-1, 0, 2, 3, PARTITIONS_MAX + 1] {
            let error = metadata.check_growth("a", count).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidPartitions, "{count}");
        }
        let grow = |name: &str| metadata.grow_topic(name, 5, |_, _| ());
        let code = |name: &str| grow(name).unwrap_err().code();
        assert_eq!(code("none"), ErrorCode::UnknownTopicOrPartition);
        assert_eq!(code(CONSUMER_OFFSETS), ErrorCode::InvalidTopicException);
        let mut opened = Vec::new();
        let open_new = |topic: &Topic, new: Vec<PartitionId>| {
            assert!(metadata.partition_id("a", 3).is_none(), "seen too early");
            assert_eq!(topic.partition_count, 5);
            opened = new.iter().map(|id| id.index).collect();
        };
        metadata.grow_topic("a", 5, open_new).unwrap();
        assert_eq!(opened, [3, 4]);
        assert!(metadata.partition_id("a", 4).is_some());
        let again = open(&memory, &[]).topic("a").unwrap();
        assert_eq!((again.id, again.partition_count), (old.id, 5));
        assert_eq!(again.leader_epoch(), LeaderEpoch(2));
    }

    #[test]
    fn data_of_another_node_is_refused() {
        let memory = Memory::default();
        drop(open(&memory, &[]));
        let outcome = Metadata::open(
            Box::new(memory),
            config(&[("node.id", "2")]),
            counting_random(),
            0,
        );
        let message = outcome.err().map(|error| error.to_string());
        assert_eq!(
            message.as_deref(),
            Some("this data belongs to node 1, but node.id is 2")
        );
    }
}
