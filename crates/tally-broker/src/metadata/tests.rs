//! The metadata over a store in memory.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::config::Setting;
use tally_protocol::error_code::ErrorCode;

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
