//! `tally group reset` and `delete`: what changes a group's offsets, or ends it. Its members must be gone: a member would go on
//! from where it is and commit over it.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, GroupId, OffsetCommitRequest, OffsetDeleteRequest, TopicName,
};

use super::ask::{self, NOT_FOUND};
use super::{Delete, Reset};
use crate::client::{Cluster, Failure, check, text};
use crate::commands::place::{EARLIEST, LATEST, Place, UNCOMMITTED, offset_at};
use crate::commands::{Common, Done, now_ms, parse_duration};
use crate::output::{Listing, Value};

/// The last version that names topics.
const OFFSET_COMMIT_NEWEST: i16 = 8;
const OFFSET_DELETE_NEWEST: i16 = 0;
const DELETE_GROUPS_NEWEST: i16 = 2;
/// NON_EMPTY_GROUP.
const NOT_EMPTY: i16 = 68;

/// Where a group is set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum To {
    Earliest,
    Latest,
    Offset(i64),
    /// The first record that is as young.
    Time(i64),
}

fn parse_to(text: &str) -> Result<To, Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "--to {text}: earliest, latest, an offset, an age like 7d, or @MILLISECONDS since 1970"
        ))
    };
    match text {
        "earliest" | "start" => return Ok(To::Earliest),
        "latest" | "end" => return Ok(To::Latest),
        _ => {}
    }
    if let Some(millis) = text.strip_prefix('@') {
        return Ok(To::Time(millis.parse().map_err(|_| wrong())?));
    }
    if let Ok(offset) = text.parse::<i64>() {
        return Some(offset)
            .filter(|offset| *offset >= 0)
            .map(To::Offset)
            .ok_or_else(wrong);
    }
    let age = parse_duration(text).map_err(|_| wrong())?;
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Ok(To::Time(now_ms().saturating_sub(age_ms).max(0)))
}

/// A partition, where its group stands and where it is set to.
struct Step {
    place: Place,
    from: Option<i64>,
    to: i64,
    /// Why it is another offset than was asked for.
    note: &'static str,
}

pub(super) fn reset(reset: &Reset, common: &Common) -> Result<Done, Failure> {
    let to = parse_to(&reset.to)?;
    if !reset.yes && !reset.dry_run {
        return Err(Failure::Usage(
            "this changes what the group reads next: add --yes to do it, --dry-run to see what would be done".to_owned(),
        ));
    }
    let mut cluster = common.open()?;
    must_be_empty(&mut cluster, &reset.group)?;
    let committed = ask::committed(&mut cluster, &reset.group)?;
    if committed.is_empty() && reset.topic.is_empty() {
        let what = format!(
            "group {} has committed nothing: name a --topic",
            reset.group
        );
        return Err(Failure::refused(what, NOT_FOUND));
    }
    let places = if reset.topic.is_empty() {
        committed.keys().cloned().collect()
    } else {
        let mut places = BTreeSet::new();
        for named in &reset.topic {
            places.extend(places_named(&mut cluster, named)?);
        }
        places
    };
    let mut steps = Vec::new();
    for place in places {
        let from = committed.get(&place).and_then(|row| row.offset);
        let (to, note) = target(&mut cluster, &place, to)?;
        steps.push(Step {
            place,
            from,
            to,
            note,
        });
    }
    if reset.yes {
        commit(&mut cluster, &reset.group, &steps)?;
    }
    let headings = ["TOPIC:P", "FROM", "TO", "DONE", "NOTE"];
    let mut listing = Listing::new(common.output, "reset", &headings);
    for step in &steps {
        let cell = |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |o| o.to_string());
        listing.row(
            vec![
                step.place.to_string(),
                cell(step.from),
                step.to.to_string(),
                if reset.yes { "set" } else { "would be set" }.to_owned(),
                step.note.to_owned(),
            ],
            vec![
                ("group", Value::from(reset.group.as_str())),
                ("topic", Value::from(step.place.topic.as_str())),
                ("partition", Value::from(step.place.partition)),
                ("from", Value::from(step.from)),
                ("to", Value::from(step.to)),
                ("done", Value::from(reset.yes)),
                (
                    "note",
                    Value::from((!step.note.is_empty()).then_some(step.note)),
                ),
            ],
        );
    }
    listing.finish("");
    Ok(Done::Well)
}

/// Refuses a group that has members; one that is not there has none.
fn must_be_empty(cluster: &mut Cluster, group: &str) -> Result<(), Failure> {
    let described = ask::describe(cluster, group)?;
    let members = described.map_or(0, |row| row.members.len());
    if members == 0 {
        return Ok(());
    }
    let what = format!("group {group} has members ({members}): stop them first");
    Err(Failure::refused(what, NOT_EMPTY))
}

/// The partitions that `TOPIC` or `TOPIC:PARTITION` means. A topic that is called like a partition is meant as a topic.
fn places_named(cluster: &mut Cluster, named: &str) -> Result<Vec<Place>, Failure> {
    let whole = cluster.topic(named)?;
    let (topic, wanted) = match (&whole, Place::parse(named)) {
        (None, Ok(place)) => (cluster.topic(&place.topic)?, Some(place)),
        _ => (whole, None),
    };
    let name = wanted.as_ref().map_or(named, |place| place.topic.as_str());
    let unknown = || Failure::refused(format!("topic {named}"), 3);
    let topic = topic.ok_or_else(unknown)?;
    let mut places: Vec<Place> = topic
        .partitions
        .iter()
        .map(|row| Place {
            topic: name.to_owned(),
            partition: row.partition_index,
        })
        .collect();
    places.retain(|place| wanted.as_ref().is_none_or(|wanted| wanted == place));
    if places.is_empty() {
        return Err(unknown());
    }
    Ok(places)
}

/// The offset for a partition, within what it holds.
fn target(cluster: &mut Cluster, place: &Place, to: To) -> Result<(i64, &'static str), Failure> {
    let leader = cluster.leader(&place.topic, place.partition)?;
    let mut at = |timestamp| offset_at(cluster, place, leader, (timestamp, UNCOMMITTED));
    match to {
        To::Earliest => Ok((at(EARLIEST)?, "")),
        To::Latest => Ok((at(LATEST)?, "")),
        To::Offset(offset) => {
            let (begin, end) = (at(EARLIEST)?, at(LATEST)?);
            Ok(match offset {
                offset if offset < begin => (begin, "the partition begins there"),
                offset if offset > end => (end, "the partition ends there"),
                offset => (offset, ""),
            })
        }
        To::Time(time_ms) => match at(time_ms)? {
            -1 => Ok((at(LATEST)?, "no record is as young")),
            offset => Ok((offset, "")),
        },
    }
}

fn commit(cluster: &mut Cluster, group: &str, steps: &[Step]) -> Result<(), Failure> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for step in steps {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(step.place.partition)
            .with_committed_offset(step.to)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("")));
        topics.entry(&step.place.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partitions(partitions)
    });
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.collect());
    let broker = cluster.group_coordinator(group)?;
    let answer = cluster.call(broker, OFFSET_COMMIT_NEWEST, &request)?;
    for topic in &answer.topics {
        for row in &topic.partitions {
            let what = format!(
                "group {group}, {}:{}",
                topic.name.as_str(),
                row.partition_index
            );
            check(what, row.error_code)?;
        }
    }
    Ok(())
}

pub(super) fn delete(delete: &Delete, common: &Common) -> Result<Done, Failure> {
    if !delete.yes {
        let what = "this removes what groups have committed for good: add --yes to do it";
        return Err(Failure::Usage(what.to_owned()));
    }
    let mut cluster = common.open()?;
    if !delete.topic.is_empty() {
        return delete_offsets(&mut cluster, delete, common);
    }
    let mut listing = Listing::new(common.output, "deleted", &["GROUP", "DONE"]);
    for group in &delete.groups {
        let broker = cluster.group_coordinator(group)?;
        let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
        let answer = cluster.call(broker, DELETE_GROUPS_NEWEST, &request)?;
        for result in &answer.results {
            check(what_of(group, result.error_code), result.error_code)?;
        }
        listing.row(
            vec![group.clone(), "deleted".to_owned()],
            vec![("group", Value::from(group.as_str()))],
        );
    }
    listing.finish("");
    Ok(Done::Well)
}

/// A group, with what is to be done about the code.
fn what_of(group: &str, code: i16) -> String {
    match code {
        NOT_EMPTY => format!("group {group} has members: stop them first"),
        _ => format!("group {group}"),
    }
}

fn delete_offsets(
    cluster: &mut Cluster,
    delete: &Delete,
    common: &Common,
) -> Result<Done, Failure> {
    let mut listing = Listing::new(common.output, "deleted", &["GROUP", "TOPIC:P", "DONE"]);
    for group in &delete.groups {
        let committed = ask::committed(cluster, group)?;
        let is_named = |place: &Place| {
            let partition = place.to_string();
            let mut names = delete.topic.iter();
            names.any(|name| *name == place.topic || *name == partition)
        };
        // Of topics that are gone too: only the group knows them.
        let places: Vec<Place> = committed.into_keys().filter(is_named).collect();
        if places.is_empty() {
            let what = format!("group {group} has committed nothing for it");
            return Err(Failure::refused(what, NOT_FOUND));
        }
        delete_of(cluster, group, &places)?;
        for place in places {
            listing.row(
                vec![group.clone(), place.to_string(), "deleted".to_owned()],
                vec![
                    ("group", Value::from(group.as_str())),
                    ("topic", Value::from(place.topic.as_str())),
                    ("partition", Value::from(place.partition)),
                ],
            );
        }
    }
    listing.finish("");
    Ok(Done::Well)
}

fn delete_of(cluster: &mut Cluster, group: &str, places: &[Place]) -> Result<(), Failure> {
    let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
    for place in places {
        let partition =
            OffsetDeleteRequestPartition::default().with_partition_index(place.partition);
        topics.entry(&place.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        OffsetDeleteRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partitions(partitions)
    });
    let request = OffsetDeleteRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(topics.collect());
    let broker = cluster.group_coordinator(group)?;
    let answer = cluster.call(broker, OFFSET_DELETE_NEWEST, &request)?;
    check(what_of(group, answer.error_code), answer.error_code)?;
    for topic in &answer.topics {
        for row in &topic.partitions {
            let what = format!(
                "group {group}, {}:{}",
                topic.name.as_str(),
                row.partition_index
            );
            check(what, row.error_code)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_is_read() {
        let read = |text: &str| parse_to(text).ok();
        assert_eq!(read("earliest"), Some(To::Earliest));
        assert_eq!(read("latest"), Some(To::Latest));
        assert_eq!(read("17"), Some(To::Offset(17)));
        assert_eq!(read("@1700000000000"), Some(To::Time(1_700_000_000_000)));
        assert!(matches!(read("7d"), Some(To::Time(_))));
        for wrong in ["", "-1", "@", "@x", "soon", "7x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
