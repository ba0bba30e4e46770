//! The topics of the cluster as groups of the `consumer` protocol see them: a value that comes in with commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use tally_protocol::TopicId;

/// All topics at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topics {
    generation: u64,
    by_name: BTreeMap<Arc<str>, Topic>,
    by_id: BTreeMap<TopicId, Arc<str>>,
}

/// A topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Topic {
    pub(crate) id: TopicId,
    pub(crate) partitions: i32,
}

impl Topics {
    /// The topics, each a name, an id and a number of partitions; a later state has a higher `generation`.
    pub fn new(
        generation: u64,
        topics: impl IntoIterator<Item = (Arc<str>, TopicId, i32)>,
    ) -> Topics {
        let mut all = Topics {
            generation,
            ..Topics::default()
        };
        for (name, id, partitions) in topics {
            all.by_id.insert(id, name.clone());
            all.by_name.insert(name, Topic { id, partitions });
        }
        all
    }

    /// Rises with every change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn get(&self, name: &str) -> Option<Topic> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name_of(&self, id: TopicId) -> Option<&Arc<str>> {
        self.by_id.get(&id)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }

    /// A number that changes when a topic among `names` is made, deleted or grows. It is stored, so it must stay the same
    /// over versions: FNV-1a of 64 bits over name, id and partition count, in order of name; 0 for no topic.
    pub(crate) fn hash<'a>(&self, names: impl Iterator<Item = &'a Arc<str>>) -> i64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut count = 0;
        for (name, topic) in names.filter_map(|name| Some((name, self.get(name)?))) {
            count += 1;
            let name = name.bytes().chain([0]);
            let bytes = name.chain(topic.id.0).chain(topic.partitions.to_be_bytes());
            for byte in bytes {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        if count == 0 { 0 } else { hash.cast_signed() }
    }
}
