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

mod errors;
pub(crate) mod features;
mod for_groups;
mod identity;
mod names;
mod quotas;
mod random;
mod record;
mod settings;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tally_protocol::ids::{CoordinatorEpoch, LeaderEpoch, PartitionId, TopicId};
use tally_storage::{MetaError, MetaStore, Revision};

use crate::config::{BrokerConfig, Overrides, TopicConfig, TopicConfigError};

pub(crate) use self::errors::{CreateTopicError, DeleteTopicError, GrowTopicError, OpenError};
pub(crate) use self::names::{NameError, base64url, check as check_topic_name};
pub(crate) use self::quotas::{Change as QuotaChange, QuotaError};
pub(crate) use self::random::{Random, system_random};
pub(crate) use self::settings::{AlterError, AlterMode};
pub(crate) use self::topics::NewTopic;

use self::features::Finals;
use self::for_groups::ForGroups;
use self::identity::{Identity, internal_topics};
use self::quotas::Quotas;
use self::record::TopicRecord;
use self::settings::Settings;
use self::topics::new_topic_id;

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

/// A random uuid as 22 characters of base64url.
pub(crate) fn new_uuid_text() -> String {
    names::base64url(random::uuid(&mut system_random()))
}
