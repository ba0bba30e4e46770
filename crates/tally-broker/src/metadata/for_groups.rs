//! The topics as groups of the `consumer` protocol see them: one value, made again only after topics have changed.

use super::Metadata;
use crate::config::{ResourceKind, consumer_settings_of};
use std::sync::{Arc, Mutex, PoisonError};
use tally_groups::{ConsumerSettings, Topics};

/// The last value that was made.
#[derive(Default)]
pub(super) struct ForGroups(Mutex<Option<Arc<Topics>>>);

impl Metadata {
    /// What holds for this group of the `consumer` protocol.
    pub(crate) fn consumer_settings(&self, group: &str) -> ConsumerSettings {
        let own = self.resource(ResourceKind::Group, group);
        consumer_settings_of(self.config().consumer_groups, &own)
    }

    /// All topics, the internal ones too.
    pub(crate) fn topics_for_groups(&self) -> Arc<Topics> {
        let mut made = self
            .for_groups
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Read first: what is looked up after it is at least as new.
        let generation = self.generation();
        if let Some(topics) = made.as_ref().filter(|made| made.generation() == generation) {
            return Arc::clone(topics);
        }
        let all = self.topics().into_iter();
        let all = all.map(|topic| (Arc::clone(&topic.name), topic.id, topic.partition_count));
        let topics = Arc::new(Topics::new(generation, all));
        *made = Some(Arc::clone(&topics));
        topics
    }
}
