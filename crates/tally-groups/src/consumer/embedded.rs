//! The formats that classic consumers put into JoinGroup and SyncGroup, read and written when they share a group with
//! members of the `consumer` protocol (section 9.8).
//!
//! | subscription | since version |
//! |---|---|
//! | version i16; topics; user data | 0 |
//! | owned partitions: topic, partition numbers | 1 |
//! | generation i32 | 2 |
//! | rack, nullable | 3 |
//!
//! An assignment is: version i16; topics with partition numbers; user data. Big-endian, classic lengths. The bytes come from
//! clients: whatever they are, reading them ends in a value or in `None`.

use crate::topics::Topics;
use bytes::{BufMut, Bytes};
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_protocol::records::consumer_group::{PartitionEpochs, Partitions};
use tally_protocol::wire::{Malformed, Reader, put_array_length, put_string};

/// The last version of an assignment.
const ASSIGNMENT_MAX: i16 = 3;
/// Bytes of the smallest topic with partitions.
const TOPIC_BYTES_MIN: usize = 6;

/// Topics by name, with partition numbers.
type Named = Vec<(Arc<str>, Vec<i32>)>;

/// What a classic consumer asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Subscription {
    pub(super) version: i16,
    pub(super) topics: BTreeSet<Arc<str>>,
    pub(super) owned: Named,
    pub(super) rack_id: Option<Arc<str>>,
}

impl Subscription {
    pub(super) fn parse(bytes: &[u8]) -> Option<Subscription> {
        Subscription::read(&mut Reader::new(bytes)).ok()
    }

    fn read(reader: &mut Reader<'_>) -> Result<Subscription, Malformed> {
        let version = reader.i16()?;
        if version < 0 {
            return Err(Malformed::UnknownVersion);
        }
        let count = reader.array_length(false, 2)?.unwrap_or(0);
        let mut topics = BTreeSet::new();
        for _ in 0..count {
            topics.insert(Arc::from(reader.string(false)?));
        }
        reader.nullable_bytes(false)?;
        let owned = if version >= 1 {
            partitions(reader)?
        } else {
            Vec::new()
        };
        if version >= 2 {
            reader.i32()?;
        }
        let rack_id = if version >= 3 {
            reader.nullable_string(false)?.map(Arc::from)
        } else {
            None
        };
        Ok(Subscription {
            version,
            topics,
            owned,
            rack_id,
        })
    }

    /// What it says that it has, of the topics that are there.
    pub(super) fn owned_ids(&self, topics: &Topics) -> Partitions {
        with_ids(&self.owned, topics)
    }
}

fn with_ids(named: &[(Arc<str>, Vec<i32>)], topics: &Topics) -> Partitions {
    let mut all = Partitions::new();
    for (name, partitions) in named {
        if let Some(topic) = topics.get(name)
            && !partitions.is_empty()
        {
            all.entry(topic.id).or_default().extend(partitions);
        }
    }
    all
}

fn partitions(reader: &mut Reader<'_>) -> Result<Named, Malformed> {
    let count = reader.array_length(false, TOPIC_BYTES_MIN)?.unwrap_or(0);
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let name = Arc::from(reader.string(false)?);
        let count = reader.array_length(false, 4)?.unwrap_or(0);
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            numbers.push(reader.i32()?);
        }
        topics.push((name, numbers));
    }
    Ok(topics)
}

/// What a leader has assigned. `None` if it cannot be read, or says more than partitions: the assignor that wrote it keeps
/// something there that the broker would lose.
pub(super) fn parse_assignment(bytes: &[u8], topics: &Topics) -> Option<Partitions> {
    if bytes.is_empty() {
        return Some(Partitions::new());
    }
    let mut reader = Reader::new(bytes);
    if reader.i16().ok()? < 0 {
        return None;
    }
    let named = partitions(&mut reader).ok()?;
    let user_data = match reader.remaining() {
        0 => None,
        _ => reader.nullable_bytes(false).ok()?,
    };
    user_data
        .is_none_or(<[u8]>::is_empty)
        .then(|| with_ids(&named, topics))
}

/// An assignment in the version of a member's subscription. Topics that are gone are left out.
pub(super) fn assignment(assigned: &PartitionEpochs, version: i16, topics: &Topics) -> Bytes {
    let named: Vec<_> = assigned
        .iter()
        .filter_map(|(id, partitions)| Some((topics.name_of(*id)?, partitions)))
        .filter(|(_, partitions)| !partitions.is_empty())
        .collect();
    let mut out = Vec::with_capacity(64);
    out.put_i16(version.clamp(0, ASSIGNMENT_MAX));
    put_array_length(&mut out, false, named.len());
    for (name, partitions) in named {
        put_string(&mut out, false, name);
        put_array_length(&mut out, false, partitions.len());
        for partition in partitions.keys() {
            out.put_i32(*partition);
        }
    }
    out.put_i32(-1);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tally_protocol::TopicId;

    fn topics() -> Topics {
        Topics::new(1, [(Arc::from("t"), TopicId([1; 16]), 4)])
    }

    #[test]
    fn subscriptions_of_every_version_are_read() {
        let zero = [0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];
        let owned = [0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 3];
        let three = [
            &[0, 3][..],
            &zero[2..],
            &owned,
            &[0, 0, 0, 9],
            &[0, 1, b'r'],
        ]
        .concat();
        let subscription = Subscription::parse(&zero).unwrap();
        assert_eq!(subscription.topics, BTreeSet::from([Arc::from("t")]));
        assert!(subscription.owned.is_empty());
        let subscription = Subscription::parse(&three).unwrap();
        assert_eq!(subscription.rack_id.as_deref(), Some("r"));
        let expected = Partitions::from([(TopicId([1; 16]), BTreeSet::from([3]))]);
        assert_eq!(subscription.owned_ids(&topics()), expected);
        for end in 0..three.len() {
            assert_eq!(Subscription::parse(&three[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written() {
        let assigned = BTreeMap::from([(TopicId([1; 16]), BTreeMap::from([(1, 5), (2, 5)]))]);
        let bytes = assignment(&assigned, 3, &topics());
        let read = parse_assignment(&bytes, &topics()).unwrap();
        assert_eq!(read, super::super::heartbeat::numbers(&assigned));
        assert_eq!(parse_assignment(&[], &topics()), Some(Partitions::new()));
        for end in 1..bytes.len() - 4 {
            assert_eq!(parse_assignment(&bytes[..end], &topics()), None, "{end}");
        }
        let mut with_data = bytes[..bytes.len() - 4].to_vec();
        with_data.extend([0, 0, 0, 1, 9]);
        assert_eq!(parse_assignment(&with_data, &topics()), None);
    }
}
