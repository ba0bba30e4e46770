//! Topics are made, grown and deleted: each change is one commit, durable before anybody sees it (N11).

use super::random::Random;
use super::record::{self, TopicRecord};
use super::{
    CreateTopicError, DeleteTopicError, GrowTopicError, Metadata, NameError, PARTITIONS_MAX, Topic,
    names, random, topic_with_config,
};
use crate::config::Overrides;
use std::collections::BTreeMap;
use std::sync::Arc;
use tally_protocol::ids::{PartitionId, TopicId};
use tally_protocol::planted;

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

impl Metadata {
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
            id: if planted::is("l85") {
                TopicId([new.name.as_bytes()[0]; 16])
            } else {
                new_topic_id(random, |id| self.topic_by_id(id).is_none())
            },
            name: new.name,
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
                name: name.to_owned(),
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
}

/// A random id that no topic has, and that is none of those with a meaning (all zero, and Kafka's metadata topic: one).
pub(super) fn new_topic_id(random: &mut Random, is_free: impl Fn(TopicId) -> bool) -> TopicId {
    loop {
        let id = TopicId(random::uuid(random));
        if is_free(id) {
            return id;
        }
    }
}
