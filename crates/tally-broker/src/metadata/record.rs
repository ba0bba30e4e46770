//! The metadata as keys and values of the store.
//!
//! | key | value |
//! |---|---|
//! | `cluster.id` | 22 characters of base64url |
//! | `node.id`, `incarnation`, `features.epoch`, `producer.ids.next` | a decimal number |
//! | `features/transaction.version` | the level that UpdateFeatures has set, if it has |
//! | `topic/NAME` | `v1 id=UUID partitions=N created=N internal=0 or 1` |
//! | `topic/NAME/PROPERTY` | one setting of the topic, as it was given |
//!
//! Names of topics and properties contain neither `/` nor spaces. A record of another version is refused, not guessed at.

use std::collections::BTreeMap;

use tally_protocol::ids::TopicId;

use super::OpenError;
use crate::config::Overrides;

pub(super) const CLUSTER_ID: &str = "cluster.id";
pub(super) const NODE_ID: &str = "node.id";
pub(super) const INCARNATION: &str = "incarnation";
pub(super) const FEATURES_EPOCH: &str = "features.epoch";
pub(super) const GROUP_VERSION: &str = "features/group.version";
pub(super) const TRANSACTION_VERSION: &str = "features/transaction.version";
pub(super) const NEXT_PRODUCER_ID: &str = "producer.ids.next";
const TOPIC_PREFIX: &str = "topic/";

/// A topic as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct TopicRecord {
    pub(super) name: String,
    pub(super) id: TopicId,
    pub(super) partition_count: i32,
    pub(super) created_incarnation: i64,
    pub(super) internal: bool,
    pub(super) overrides: Overrides,
}

impl TopicRecord {
    /// Adds what stores this topic.
    pub(super) fn write(&self, writes: &mut Vec<(String, Option<String>)>) {
        let value = format!(
            "v1 id={} partitions={} created={} internal={}",
            self.id,
            self.partition_count,
            self.created_incarnation,
            u8::from(self.internal)
        );
        writes.push((topic_key(&self.name), Some(value)));
        for (property, value) in &self.overrides {
            writes.push((setting_key(&self.name, property), Some(value.clone())));
        }
    }

    fn parse(name: &str, value: &str) -> Option<TopicRecord> {
        let mut words = value.split(' ');
        if words.next()? != "v1" {
            return None;
        }
        let mut field = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let id = uuid::Uuid::try_parse(field("id")?).ok()?;
        let record = TopicRecord {
            name: name.to_owned(),
            id: TopicId(id.into_bytes()),
            partition_count: field("partitions")?.parse().ok()?,
            created_incarnation: field("created")?.parse().ok()?,
            internal: match field("internal")? {
                "0" => false,
                "1" => true,
                _ => return None,
            },
            overrides: Overrides::new(),
        };
        (record.partition_count > 0 && words.next().is_none()).then_some(record)
    }
}

/// What removes a topic from the store.
pub(super) fn removal(name: &str, overrides: &Overrides) -> Vec<(String, Option<String>)> {
    let settings = overrides.keys().map(|property| setting_key(name, property));
    std::iter::once(topic_key(name))
        .chain(settings)
        .map(|key| (key, None))
        .collect()
}

/// All topics of a store, by name.
pub(super) fn read_topics(
    entries: &BTreeMap<String, String>,
) -> Result<Vec<(String, TopicRecord)>, OpenError> {
    let mut topics: BTreeMap<String, TopicRecord> = BTreeMap::new();
    for (key, value) in entries {
        let Some(rest) = key.strip_prefix(TOPIC_PREFIX) else {
            continue;
        };
        // A topic's own key sorts before those of its settings.
        let read = match rest.split_once('/') {
            None => TopicRecord::parse(rest, value).map(|record| {
                topics.insert(rest.to_owned(), record);
            }),
            Some((name, property)) => topics.get_mut(name).map(|record| {
                record.overrides.insert(property.to_owned(), value.clone());
            }),
        };
        read.ok_or_else(|| unreadable(key, value))?;
    }
    Ok(topics.into_iter().collect())
}

/// A number of the store that is not below 0.
pub(super) fn number(
    entries: &BTreeMap<String, String>,
    key: &str,
) -> Result<Option<i64>, OpenError> {
    let Some(value) = entries.get(key) else {
        return Ok(None);
    };
    match value.parse() {
        Ok(number) if number >= 0 => Ok(Some(number)),
        _ => Err(unreadable(key, value)),
    }
}

pub(super) fn unreadable(key: &str, value: &str) -> OpenError {
    OpenError::Unreadable {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn topic_key(name: &str) -> String {
    format!("{TOPIC_PREFIX}{name}")
}

pub(super) fn setting_key(name: &str, property: &str) -> String {
    format!("{TOPIC_PREFIX}{name}/{property}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> TopicRecord {
        TopicRecord {
            name: "a.b-c_1".to_owned(),
            id: TopicId([7; 16]),
            partition_count: 6,
            created_incarnation: 12,
            internal: true,
            overrides: Overrides::from([("cleanup.policy".into(), "compact, delete".into())]),
        }
    }

    fn stored(record: &TopicRecord) -> BTreeMap<String, String> {
        let mut writes = Vec::new();
        record.write(&mut writes);
        writes
            .into_iter()
            .map(|(key, value)| (key, value.unwrap()))
            .collect()
    }

    #[test]
    fn a_topic_is_read_as_it_was_written() {
        let record = topic();
        let topics = read_topics(&stored(&record)).unwrap();
        assert_eq!(topics, [(record.name.clone(), record)]);
    }

    #[test]
    fn removal_leaves_nothing() {
        let record = topic();
        let mut entries = stored(&record);
        for (key, value) in removal(&record.name, &record.overrides) {
            assert_eq!(value, None);
            entries.remove(&key);
        }
        assert!(entries.is_empty());
    }

    #[test]
    fn names_that_begin_alike_do_not_mix() {
        let mut entries = stored(&topic());
        for name in ["a.b", "a.b-c_1-", "a.b-c_1.x"] {
            let record = TopicRecord {
                name: name.to_owned(),
                ..topic()
            };
            entries.extend(stored(&record));
        }
        assert!(
            read_topics(&entries)
                .unwrap()
                .iter()
                .all(|(_, t)| t.overrides.len() == 1)
        );
    }

    #[test]
    fn what_this_version_did_not_write_is_refused() {
        for value in [
            "v2 id=x",
            "v1 id=00000000-0000-0000-0000-000000000001 partitions=0 created=1 internal=0",
            "v1 id=00000000-0000-0000-0000-000000000001 partitions=1 created=1 internal=2",
            "v1 id=00000000-0000-0000-0000-000000000001 partitions=1 created=1 internal=0 x",
            "",
        ] {
            let entries = BTreeMap::from([("topic/a".to_owned(), value.to_owned())]);
            assert!(read_topics(&entries).is_err(), "{value}");
        }
        let orphan = BTreeMap::from([("topic/a/cleanup.policy".to_owned(), "delete".to_owned())]);
        assert!(read_topics(&orphan).is_err());
        let negative = BTreeMap::from([(INCARNATION.to_owned(), "-1".to_owned())]);
        assert!(number(&negative, INCARNATION).is_err());
    }
}
