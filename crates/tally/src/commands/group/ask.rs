//! What `tally group` asks, and the answers as plain values: of classic groups and of those of KIP-848.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::consumer_group_describe_response::DescribedGroup as ConsumerGroup;
use kafka_protocol::messages::describe_groups_response::DescribedGroup as ClassicGroup;
use kafka_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest,
    OffsetFetchRequest,
};
use tally_protocol::wire::{Malformed, Reader};

use crate::client::{Cluster, Failure, check, text};
use crate::commands::place::Place;

const LIST_NEWEST: i16 = 5;
/// From here on states and types are asked for; an older broker gives all of them.
const LIST_FILTERED: i16 = 4;
const DESCRIBE_NEWEST: i16 = 6;
const CONSUMER_DESCRIBE_NEWEST: i16 = 1;
/// The last version that asks for one group.
const OFFSET_FETCH_NEWEST: i16 = 7;
/// GROUP_ID_NOT_FOUND.
pub(super) const NOT_FOUND: i16 = 69;
/// UNSTABLE_OFFSET_COMMIT.
const PENDING: i16 = 88;

/// A row of ListGroups.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Listed {
    pub(super) group: String,
    /// `classic`, `consumer` ...; empty if the broker does not say.
    pub(super) kind: String,
    pub(super) protocol_type: String,
    pub(super) state: String,
    pub(super) coordinator: i32,
}

/// A group in full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Described {
    pub(super) group: String,
    pub(super) kind: &'static str,
    pub(super) state: String,
    pub(super) protocol_type: String,
    pub(super) assignor: String,
    /// Of a group of KIP-848.
    pub(super) epoch: Option<i32>,
    pub(super) coordinator: i32,
    pub(super) members: Vec<Member>,
}

/// A member of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) host: String,
    pub(super) places: Vec<Place>,
}

/// What a group has committed for a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Committed {
    /// `None` where nothing is committed.
    pub(super) offset: Option<i64>,
    /// Whether the end of a transaction will change it.
    pub(super) is_pending: bool,
}

/// The groups of all coordinators, by name; only these states and types, if there are any.
pub(super) fn list(
    cluster: &mut Cluster,
    states: &[String],
    kinds: &[String],
) -> Result<Vec<Listed>, Failure> {
    let newest = cluster.served().get(&(ApiKey::ListGroups as i16));
    let version = newest.map_or(0, |(_, max)| (*max).min(LIST_NEWEST));
    let mut request = ListGroupsRequest::default();
    if version >= LIST_FILTERED {
        request.states_filter = states.iter().map(|state| text(state)).collect();
    }
    if version >= LIST_NEWEST {
        request.types_filter = kinds.iter().map(|kind| text(kind)).collect();
    }
    let mut listed = Vec::new();
    for broker in cluster.brokers() {
        let answer = cluster.call(broker, LIST_NEWEST, &request)?;
        check("ListGroups", answer.error_code)?;
        listed.extend(answer.groups.into_iter().map(|row| Listed {
            group: row.group_id.to_string(),
            kind: row.group_type.to_string(),
            protocol_type: row.protocol_type.to_string(),
            state: row.group_state.to_string(),
            coordinator: broker,
        }));
    }
    let is_one = |wanted: &[String], is: &str| {
        wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(is))
    };
    listed.retain(|row| is_one(states, &row.state) && is_one(kinds, &row.kind));
    listed.sort();
    listed.dedup();
    Ok(listed)
}

/// Names, types and states of all groups.
pub(crate) fn states(cluster: &mut Cluster) -> Result<Vec<(String, String, String)>, Failure> {
    let rows = list(cluster, &[], &[])?.into_iter();
    Ok(rows.map(|row| (row.group, row.kind, row.state)).collect())
}

/// A group in full; `None` if there is none of that name.
pub(super) fn describe(cluster: &mut Cluster, group: &str) -> Result<Option<Described>, Failure> {
    let broker = cluster.group_coordinator(group)?;
    let key = ApiKey::ConsumerGroupDescribe as i16;
    if cluster.served().contains_key(&key) {
        let request =
            ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(group))]);
        let answer = cluster.call(broker, CONSUMER_DESCRIBE_NEWEST, &request)?;
        if let Some(row) = answer.groups.into_iter().next()
            && row.error_code != NOT_FOUND
        {
            check(format!("group {group}"), row.error_code)?;
            return Ok(Some(consumer(row, broker)));
        }
    }
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
    let answer = cluster.call(broker, DESCRIBE_NEWEST, &request)?;
    let silent = || Failure::Unable(format!("the coordinator says nothing about group {group}"));
    let row = answer.groups.into_iter().next().ok_or_else(silent)?;
    if row.error_code == NOT_FOUND || row.error_code == 0 && row.group_state.as_str() == "Dead" {
        return Ok(None);
    }
    check(format!("group {group}"), row.error_code)?;
    Ok(Some(classic(row, broker)))
}

/// The same of a group that must be there.
pub(super) fn describe_known(cluster: &mut Cluster, group: &str) -> Result<Described, Failure> {
    let unknown = || Failure::refused(format!("group {group}"), NOT_FOUND);
    describe(cluster, group)?.ok_or_else(unknown)
}

fn consumer(row: ConsumerGroup, coordinator: i32) -> Described {
    let members = row.members.into_iter().map(|member| {
        let topics = member.assignment.topic_partitions;
        let places = topics.iter().flat_map(|topic| {
            let name = topic.topic_name.to_string();
            places_of(name, &topic.partitions)
        });
        Member {
            id: member.member_id.to_string(),
            instance: member.instance_id.map(|instance| instance.to_string()),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            places: places.collect(),
        }
    });
    Described {
        members: members.collect(),
        group: row.group_id.to_string(),
        kind: "consumer",
        state: row.group_state.to_string(),
        protocol_type: "consumer".to_owned(),
        assignor: row.assignor_name.to_string(),
        epoch: Some(row.group_epoch),
        coordinator,
    }
}

fn classic(row: ClassicGroup, coordinator: i32) -> Described {
    let is_consumers = row.protocol_type.as_str() == "consumer";
    let members = row.members.into_iter().map(|member| Member {
        id: member.member_id.to_string(),
        instance: member
            .group_instance_id
            .map(|instance| instance.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        places: if is_consumers {
            assigned(&member.member_assignment)
        } else {
            Vec::new()
        },
    });
    Described {
        members: members.collect(),
        group: row.group_id.to_string(),
        kind: "classic",
        state: row.group_state.to_string(),
        protocol_type: row.protocol_type.to_string(),
        assignor: row.protocol_data.to_string(),
        epoch: None,
        coordinator,
    }
}

/// The partitions in an assignment that the leader of a classic group of consumers wrote. Nothing if it can't be read: the
/// bytes are a client's.
pub(crate) fn assigned(bytes: &[u8]) -> Vec<Place> {
    let mut places = Vec::new();
    let mut read = || -> Result<(), Malformed> {
        let mut reader = Reader::new(bytes);
        reader.i16()?;
        for _ in 0..reader.i32()? {
            let length = usize::try_from(reader.i16()?).map_err(|_| Malformed::BadLength)?;
            let topic = String::from_utf8_lossy(reader.take(length)?).into_owned();
            for _ in 0..reader.i32()? {
                let partition = reader.i32()?;
                let topic = topic.clone();
                places.push(Place { topic, partition });
            }
        }
        Ok(())
    };
    if read().is_err() {
        return Vec::new();
    }
    places.sort();
    places
}

fn places_of(topic: String, partitions: &[i32]) -> impl Iterator<Item = Place> {
    partitions.iter().map(move |partition| Place {
        topic: topic.clone(),
        partition: *partition,
    })
}

/// What a group has committed: partitions, offsets (-1: none) and errors. With `is_stable` a partition that an open transaction
/// commits to has error 88 and no offset.
pub(crate) fn offsets(
    cluster: &mut Cluster,
    group: &str,
    is_stable: bool,
) -> Result<Vec<(Place, i64, i16)>, Failure> {
    let broker = cluster.group_coordinator(group)?;
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(None)
        .with_require_stable(is_stable);
    let answer = cluster.call(broker, OFFSET_FETCH_NEWEST, &request)?;
    check(format!("group {group}"), answer.error_code)?;
    let rows = answer.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|row| {
            let place = Place {
                topic: topic.name.to_string(),
                partition: row.partition_index,
            };
            (place, row.committed_offset, row.error_code)
        })
    });
    Ok(rows.collect())
}

/// What a group has committed, and what an open transaction will change.
pub(super) fn committed(
    cluster: &mut Cluster,
    group: &str,
) -> Result<BTreeMap<Place, Committed>, Failure> {
    let pending: BTreeSet<Place> = offsets(cluster, group, true)?
        .into_iter()
        .filter_map(|(place, _, code)| (code == PENDING).then_some(place))
        .collect();
    let mut committed = BTreeMap::new();
    for (place, offset, code) in offsets(cluster, group, false)? {
        check(format!("group {group}, {place}"), code)?;
        let is_pending = pending.contains(&place);
        let offset = (offset >= 0).then_some(offset);
        committed.insert(place, Committed { offset, is_pending });
    }
    // Committed for the first time, by a transaction that is still open.
    for place in pending {
        committed.entry(place).or_insert(Committed {
            offset: None,
            is_pending: true,
        });
    }
    Ok(committed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_or_there_is_none() {
        let mut bytes = vec![
            0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 3,
        ];
        let whole: Vec<String> = assigned(&bytes).iter().map(Place::to_string).collect();
        assert_eq!(whole, ["t:3", "t:4"]);
        for end in 0..bytes.len() {
            assert!(assigned(&bytes[..end]).is_empty(), "{end}");
        }
        bytes[2..6].copy_from_slice(&i32::MAX.to_be_bytes());
        assert!(assigned(&bytes).is_empty());
    }
}
