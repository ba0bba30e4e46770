//! `tally topic create`, `alter`, `delete`, `trim` and `purge`.

use std::time::{Duration, Instant};

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    IncrementalAlterConfigsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{Alter, Create, Delete};
use crate::client::{Cluster, Failure, error_name, text};
use crate::commands::place::{LATEST, Place, UNCOMMITTED, no_such_partition, offset_at};
use crate::commands::{Common, Done, now_ms, parse_duration};
use crate::output::{Listing, Value};

const CREATE_NEWEST: i16 = 7;
const CREATE_PARTITIONS_NEWEST: i16 = 3;
/// The last version that names topics without their ids.
const DELETE_NEWEST: i16 = 5;
const DELETE_RECORDS_NEWEST: i16 = 2;
const ALTER_CONFIGS_NEWEST: i16 = 1;
/// POLICY_VIOLATION: the topic is compacted.
const POLICY_VIOLATION: i16 = 44;
/// OFFSET_OUT_OF_RANGE.
const OUT_OF_RANGE: i16 = 1;
/// TOPIC_ALREADY_EXISTS.
const EXISTS: i16 = 36;
const OF_TOPICS: i8 = 2;
const SET: i8 = 0;
const UNSET: i8 = 1;

pub(super) fn create(create: &Create, common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let configs = create.config.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(&create.topic)))
        .with_num_partitions(create.partitions.unwrap_or(-1))
        .with_replication_factor(-1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(left_ms(&cluster));
    let broker = cluster.any_broker()?;
    let answer = cluster.call(broker, CREATE_NEWEST, &request)?;
    let mut listing = Listing::new(common.output, "created", &["TOPIC", "PARTITIONS", "DONE"]);
    for result in answer.topics {
        let is_there = create.if_not_exists && result.error_code == EXISTS;
        if !is_there {
            accepted(&create.topic, result.error_code, result.error_message)?;
        }
        let done = if is_there { "was there" } else { "created" };
        listing.row(
            vec![
                create.topic.clone(),
                if is_there {
                    "-".to_owned()
                } else {
                    result.num_partitions.to_string()
                },
                done.to_owned(),
            ],
            vec![
                ("topic", Value::from(create.topic.as_str())),
                (
                    "partitions",
                    Value::from((!is_there).then_some(result.num_partitions)),
                ),
                ("created", Value::from(!is_there)),
            ],
        );
    }
    listing.finish("");
    Ok(Done::Well)
}

pub(super) fn alter(alter: &Alter, common: &Common) -> Result<Done, Failure> {
    if alter.partitions.is_none() && alter.config.is_empty() && alter.unset.is_empty() {
        return Err(Failure::Usage(
            "say what to change: -p, --config or --unset".to_owned(),
        ));
    }
    let mut cluster = common.open()?;
    let broker = cluster.any_broker()?;
    let set = alter.config.iter().map(|(name, value)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(SET)
            .with_value(Some(text(value)))
    });
    let unset = alter.unset.iter().map(|name| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(UNSET)
            .with_value(None)
    });
    let configs: Vec<AlterableConfig> = set.chain(unset).collect();
    if !configs.is_empty() {
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(OF_TOPICS)
                .with_resource_name(text(&alter.topic))
                .with_configs(configs),
        ]);
        let answer = cluster.call(broker, ALTER_CONFIGS_NEWEST, &request)?;
        for result in answer.responses {
            accepted(&alter.topic, result.error_code, result.error_message)?;
        }
    }
    if let Some(count) = alter.partitions {
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![
                CreatePartitionsTopic::default()
                    .with_name(TopicName(text(&alter.topic)))
                    .with_count(count)
                    .with_assignments(None),
            ])
            .with_timeout_ms(left_ms(&cluster));
        let answer = cluster.call(broker, CREATE_PARTITIONS_NEWEST, &request)?;
        for result in answer.results {
            accepted(&alter.topic, result.error_code, result.error_message)?;
        }
    }
    let mut listing = Listing::new(common.output, "altered", &["TOPIC", "DONE"]);
    listing.row(
        vec![alter.topic.clone(), "changed".to_owned()],
        vec![("topic", Value::from(alter.topic.as_str()))],
    );
    listing.finish("");
    Ok(Done::Well)
}

pub(super) fn delete(delete: &Delete, common: &Common) -> Result<Done, Failure> {
    sure(delete.yes, "this removes topics for good")?;
    let mut cluster = common.open()?;
    let names = delete.topics.iter().map(|name| TopicName(text(name)));
    let request = DeleteTopicsRequest::default()
        .with_topic_names(names.collect())
        .with_timeout_ms(left_ms(&cluster));
    let broker = cluster.any_broker()?;
    let answer = cluster.call(broker, DELETE_NEWEST, &request)?;
    let mut listing = Listing::new(common.output, "deleted", &["TOPIC", "DONE"]);
    for result in answer.responses {
        let name = result
            .name
            .map_or_else(String::new, |name| name.to_string());
        accepted(&name, result.error_code, result.error_message)?;
        listing.row(
            vec![name.clone(), "deleted".to_owned()],
            vec![("topic", Value::from(name))],
        );
    }
    listing.finish("");
    Ok(Done::Well)
}

pub(super) fn trim(place: &str, before: &str, yes: bool, common: &Common) -> Result<Done, Failure> {
    let before = match (before.parse::<i64>(), parse_duration(before)) {
        (Ok(offset), _) if offset >= 0 => Before::Offset(offset),
        (_, Ok(age)) => Before::Age(age),
        _ => {
            let what = format!("--before {before}: an offset, or a time like 7d");
            return Err(Failure::Usage(what));
        }
    };
    remove(place, before, yes, common)
}

pub(super) fn purge(place: &str, yes: bool, common: &Common) -> Result<Done, Failure> {
    remove(place, Before::End, yes, common)
}

/// Up to where records are removed.
#[derive(Clone, Copy)]
enum Before {
    Offset(i64),
    Age(Duration),
    End,
}

fn remove(place: &str, before: Before, yes: bool, common: &Common) -> Result<Done, Failure> {
    sure(yes, "this removes records for good")?;
    let mut cluster = common.open()?;
    let (name, wanted) = match Place::parse(place) {
        Ok(place) => (place.topic, Some(place.partition)),
        Err(_) => (place.to_owned(), None),
    };
    let unknown = || Failure::refused(format!("topic {place}"), 3);
    let topic = cluster.topic(&name)?.ok_or_else(unknown)?;
    let partitions = topic.partitions.iter();
    let partitions = partitions.filter(|row| wanted.is_none_or(|one| one == row.partition_index));
    let places: Vec<(Place, i32)> = partitions
        .map(|row| {
            let partition = row.partition_index;
            let topic = name.clone();
            (Place { topic, partition }, row.leader_id.0)
        })
        .collect();
    if places.is_empty() {
        return Err(no_such_partition(&name, topic.partitions.len(), place));
    }
    let mut listing = Listing::new(common.output, "trimmed", &["PARTITION", "BEGINS AT"]);
    for (place, leader) in places {
        let begin = match (remove_from(&mut cluster, &place, leader, before), before) {
            (
                Err(Failure::Refused {
                    code: OUT_OF_RANGE, ..
                }),
                Before::Offset(offset),
            ) => {
                let end = offset_at(&mut cluster, &place, leader, (LATEST, UNCOMMITTED))?;
                return Err(Failure::Unable(format!(
                    "{place} ends at {end}: there is no offset {offset} to remove to (tally topic purge removes all): {}",
                    error_name(OUT_OF_RANGE)
                )));
            }
            (
                Err(Failure::Refused {
                    code: POLICY_VIOLATION,
                    ..
                }),
                _,
            ) => {
                let why = format!(
                    "records of {place} can't be removed: the cleanup.policy of {name} has no delete"
                );
                return Err(Failure::refused(why, POLICY_VIOLATION));
            }
            (outcome, _) => outcome?,
        };
        listing.row(
            vec![place.to_string(), begin.to_string()],
            vec![
                ("topic", Value::from(place.topic.as_str())),
                ("partition", Value::from(place.partition)),
                ("begin", Value::from(begin)),
            ],
        );
    }
    listing.finish("");
    Ok(Done::Well)
}

/// Removes records of one partition; where it begins then.
fn remove_from(
    cluster: &mut Cluster,
    place: &Place,
    leader: i32,
    before: Before,
) -> Result<i64, Failure> {
    let offset = match before {
        Before::Offset(offset) => offset,
        // The broker's word for its end.
        Before::End => -1,
        Before::Age(age) => {
            let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            let since_ms = now_ms().saturating_sub(age_ms).max(0);
            match offset_at(cluster, place, leader, (since_ms, UNCOMMITTED))? {
                // All of it is older.
                -1 => offset_at(cluster, place, leader, (LATEST, UNCOMMITTED))?,
                offset => offset,
            }
        }
    };
    let request = DeleteRecordsRequest::default()
        .with_topics(vec![
            DeleteRecordsTopic::default()
                .with_name(TopicName(text(&place.topic)))
                .with_partitions(vec![
                    DeleteRecordsPartition::default()
                        .with_partition_index(place.partition)
                        .with_offset(offset),
                ]),
        ])
        .with_timeout_ms(left_ms(cluster));
    let answer = cluster.call(leader, DELETE_RECORDS_NEWEST, &request)?;
    let mut results = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let silent = || Failure::Unable(format!("nothing is said about {place}"));
    let result = results.next().ok_or_else(silent)?;
    accepted(&place.to_string(), result.error_code, None)?;
    Ok(result.low_watermark)
}

fn sure(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        Ok(())
    } else {
        Err(Failure::Usage(format!("{what}: add --yes to do it")))
    }
}

/// The code's name, and what the broker says to it.
fn accepted(what: &str, code: i16, message: Option<StrBytes>) -> Result<(), Failure> {
    if code == 0 {
        return Ok(());
    }
    let what = match message {
        Some(message) if !message.is_empty() => format!("{what}: {message}"),
        _ => what.to_owned(),
    };
    Err(Failure::refused(what, code))
}

/// How long the broker may take.
fn left_ms(cluster: &Cluster) -> i32 {
    let left = cluster.deadline().saturating_duration_since(Instant::now());
    i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
}
