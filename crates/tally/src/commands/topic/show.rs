//! `tally topic list` and `describe`.

use kafka_protocol::messages::DescribeConfigsRequest;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;

use crate::client::{Cluster, Failure, check, text};
use crate::commands::place::{COMMITTED, EARLIEST, LATEST, Place, UNCOMMITTED, offset_at};
use crate::commands::{Common, Done};
use crate::output::{Format, Listing, Rows, Value};

const DESCRIBE_CONFIGS_NEWEST: i16 = 4;
/// The kind of resource that a topic is.
const OF_TOPICS: i8 = 2;
/// The source of a setting that was given to the topic itself.
const FROM_TOPIC: i8 = 1;

pub(super) fn list(internal: bool, common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let mut topics = cluster.metadata(None)?.topics;
    topics.retain(|topic| internal || !topic.is_internal);
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let mut listing = Listing::new(common.output, "topic", &["TOPIC", "PARTITIONS", "ID"]);
    for topic in &topics {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        let id = topic.topic_id.to_string();
        listing.row(
            vec![
                name.to_owned(),
                topic.partitions.len().to_string(),
                id.clone(),
            ],
            vec![
                ("topic", Value::from(name)),
                ("partitions", Value::from(count(topic))),
                ("topic_id", Value::from(id)),
                ("internal", Value::from(topic.is_internal)),
            ],
        );
    }
    listing.finish("no topics");
    Ok(Done::Well)
}

fn count(topic: &MetadataResponseTopic) -> i64 {
    i64::try_from(topic.partitions.len()).unwrap_or(i64::MAX)
}

pub(super) fn describe(name: &str, common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let unknown = || Failure::refused(format!("topic {name}"), 3);
    let topic = cluster.topic(name)?.ok_or_else(unknown)?;
    let settings = settings(&mut cluster, name)?;
    let mut rows = Rows::new(common.output);
    rows.line(&format!(
        "{name}   {} partitions, id {}",
        count(&topic),
        topic.topic_id
    ));
    for (key, value) in &settings {
        rows.line(&format!("  {key}={value}"));
    }
    if common.output != Format::Table {
        let settings = settings.iter().map(|(key, value)| {
            Value::Object(vec![
                ("name", Value::from(key.as_str())),
                ("value", Value::from(value.as_str())),
            ])
        });
        rows.row(
            "topic",
            vec![
                ("topic", Value::from(name)),
                ("partitions", Value::from(count(&topic))),
                ("topic_id", Value::from(topic.topic_id.to_string())),
                ("internal", Value::from(topic.is_internal)),
                ("settings", settings.collect()),
            ],
        );
    }
    for partition in &topic.partitions {
        let place = Place {
            topic: name.to_owned(),
            partition: partition.partition_index,
        };
        let leader = partition.leader_id.0;
        let mut at =
            |timestamp, isolation| offset_at(&mut cluster, &place, leader, (timestamp, isolation));
        let begin = at(EARLIEST, UNCOMMITTED)?;
        let readable = at(LATEST, COMMITTED)?;
        let end = at(LATEST, UNCOMMITTED)?;
        rows.row(
            "partition",
            vec![
                ("partition", Value::from(place.partition)),
                ("leader", Value::from(leader)),
                ("begin", Value::from(begin)),
                ("readable_to", Value::from(readable.min(end))),
                ("end", Value::from(end)),
            ],
        );
    }
    rows.finish();
    Ok(Done::Well)
}

/// The settings that were given to the topic itself.
fn settings(cluster: &mut Cluster, name: &str) -> Result<Vec<(String, String)>, Failure> {
    let request = DescribeConfigsRequest::default().with_resources(vec![
        DescribeConfigsResource::default()
            .with_resource_type(OF_TOPICS)
            .with_resource_name(text(name))
            .with_configuration_keys(None),
    ]);
    let broker = cluster.any_broker()?;
    let answer = cluster.call(broker, DESCRIBE_CONFIGS_NEWEST, &request)?;
    let mut settings = Vec::new();
    for result in answer.results {
        check(format!("settings of {name}"), result.error_code)?;
        let own = result.configs.into_iter();
        settings.extend(
            own.filter(|config| config.config_source == FROM_TOPIC)
                .map(|config| {
                    let value = config
                        .value
                        .map_or_else(String::new, |value| value.to_string());
                    (config.name.to_string(), value)
                }),
        );
    }
    Ok(settings)
}
