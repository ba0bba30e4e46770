//! A data directory as the offline commands see it: its partitions with the names of their topics, read and never changed.
//!
//! The metadata may be damaged: then topics have their ids for names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tally_protocol::{PartitionId, TopicId};
use tally_storage::{Holder, Inspection, OpenDirError, read_meta};

/// Where `tally serve` keeps its data unless told otherwise.
pub(crate) const DEFAULT_DATA: &str = "./tally-data";

/// Done.
pub(crate) const EXIT_DONE: u8 = 0;
/// The check found a problem.
pub(crate) const EXIT_FOUND: u8 = 1;
/// Usage, or nothing that can be looked at.
pub(crate) const EXIT_UNUSABLE: u8 = 2;
/// Refused by state: a broker has the directory.
pub(crate) const EXIT_REFUSED: u8 = 6;

/// What the records of a partition mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Data,
    Transactions,
    Offsets,
}

/// A topic of the metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: i32,
}

impl Topic {
    pub(crate) fn role(&self) -> Role {
        role_of(&self.name)
    }
}

pub(crate) fn role_of(topic: &str) -> Role {
    match topic {
        "__transaction_state" => Role::Transactions,
        "__consumer_offsets" => Role::Offsets,
        _ => Role::Data,
    }
}

/// An open data directory.
pub(crate) struct Directory {
    pub(crate) inspection: Inspection,
    pub(crate) topics: BTreeMap<TopicId, Topic>,
    /// The metadata, as it lies there.
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) revision: u64,
    /// What is wrong with the metadata.
    pub(crate) complaints: Vec<String>,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Directory, OpenDirError> {
        Ok(Directory::of(Inspection::open(path)?))
    }

    /// What is looked at.
    pub(crate) fn of(inspection: Inspection) -> Directory {
        let mut directory = Directory {
            inspection,
            topics: BTreeMap::new(),
            values: BTreeMap::new(),
            revision: 0,
            complaints: Vec::new(),
        };
        directory.read_metadata();
        directory
    }

    fn read_metadata(&mut self) {
        let bytes = match std::fs::read(self.inspection.meta_path()) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.complaints.push(format!("cannot be read: {error}"));
                return;
            }
        };
        match read_meta(&bytes) {
            Ok((values, revision)) => {
                self.values = values;
                self.revision = revision.0;
            }
            Err(reason) => {
                self.complaints.push(format!("damaged: {reason}"));
                return;
            }
        }
        for (key, value) in &self.values {
            let Some(name) = key.strip_prefix("topic/").filter(|n| !n.contains('/')) else {
                continue;
            };
            let Some((id, partitions)) = parse_topic(value) else {
                self.complaints
                    .push(format!("{key} is unreadable: {value}"));
                continue;
            };
            let topic = Topic {
                name: name.to_owned(),
                partitions,
            };
            self.topics.insert(id, topic);
        }
    }

    /// The broker that has the directory, for a message.
    pub(crate) fn holder(&self) -> Option<String> {
        match self.inspection.holder() {
            Holder::Nobody => None,
            Holder::Broker(Some(pid)) => Some(format!("process {pid}")),
            Holder::Broker(None) => Some("another process".to_owned()),
        }
    }

    /// `TOPIC:PARTITION`, by the topic's name if there is one.
    pub(crate) fn name(&self, partition: PartitionId) -> String {
        match self.topics.get(&partition.topic) {
            Some(topic) => format!("{}:{}", topic.name, partition.index),
            None => partition.to_string(),
        }
    }

    /// The partition that `TOPIC:PARTITION` names, by the topic's name or id.
    pub(crate) fn find(&self, text: &str) -> Option<PartitionId> {
        let (topic, index) = text.rsplit_once(':')?;
        let index = index.parse().ok().filter(|index| *index >= 0)?;
        let mut topics = self.topics.iter();
        let named = topics.find(|(_, found)| found.name == topic);
        let id = match named {
            Some((id, _)) => *id,
            None => parse_id(topic)?,
        };
        Some(PartitionId { topic: id, index })
    }

    /// What the records of a partition mean.
    pub(crate) fn role(&self, partition: PartitionId) -> Role {
        let topic = self.topics.get(&partition.topic);
        topic.map_or(Role::Data, Topic::role)
    }
}

/// The id and the number of partitions in a topic's value.
fn parse_topic(value: &str) -> Option<(TopicId, i32)> {
    let mut words = value.split(' ');
    if words.next()? != "v1" {
        return None;
    }
    let id = parse_id(words.next()?.strip_prefix("id=")?)?;
    let partitions: i32 = words.next()?.strip_prefix("partitions=")?.parse().ok()?;
    (partitions > 0).then_some((id, partitions))
}

fn parse_id(text: &str) -> Option<TopicId> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut id = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(TopicId(id)).filter(|id| id.to_string() == text)
}

/// The data directory and the partition whose directory this is.
pub(crate) fn home_of(partition: &Path) -> Option<(PathBuf, PartitionId)> {
    let partition = partition.canonicalize().ok()?;
    let topic = partition.parent()?;
    let topics = topic.parent()?;
    let root = topics.parent()?;
    let id = parse_id(topic.file_name()?.to_str()?)?;
    let index = partition.file_name()?.to_str()?.parse().ok()?;
    (topics.file_name()? == "topics").then(|| (root.to_owned(), PartitionId { topic: id, index }))
}

/// The names in a directory, sorted.
pub(crate) fn names(path: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_value_is_read_and_nothing_else() {
        let id = "00000000-0000-0000-0000-000000000007";
        let value = format!("v1 id={id} partitions=6 created=1 internal=0");
        let mut expected = [0; 16];
        expected[15] = 7;
        assert_eq!(parse_topic(&value), Some((TopicId(expected), 6)));
        for bad in [
            "",
            "v2 id=x",
            "v1 id=x partitions=1",
            &format!("v1 id={id} partitions=0"),
            &format!("v1 id={id}"),
        ] {
            assert_eq!(parse_topic(bad), None, "{bad}");
        }
    }
}
