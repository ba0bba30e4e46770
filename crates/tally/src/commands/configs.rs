//! The configuration of brokers, topics and groups, as it is asked for and changed over the wire.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::client::{Cluster, Failure, check_told, text};

const DESCRIBE_NEWEST: i16 = 4;
const ALTER_NEWEST: i16 = 1;
const OF_TOPICS: i8 = 2;
const OF_BROKERS: i8 = 4;
const OF_GROUPS: i8 = 32;
const SET: i8 = 0;
const UNSET: i8 = 1;

/// Whose configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Resource {
    kind: i8,
    name: String,
    /// Who is asked: a broker answers for itself alone.
    broker: Option<i32>,
}

impl Resource {
    pub(crate) fn broker(id: i32) -> Resource {
        Resource {
            kind: OF_BROKERS,
            name: id.to_string(),
            broker: Some(id),
        }
    }

    /// What holds for every broker that has nothing of its own.
    pub(crate) fn all_brokers() -> Resource {
        Resource {
            kind: OF_BROKERS,
            name: String::new(),
            broker: None,
        }
    }

    pub(crate) fn topic(name: &str) -> Resource {
        Resource {
            kind: OF_TOPICS,
            name: name.to_owned(),
            broker: None,
        }
    }

    pub(crate) fn group(name: &str) -> Resource {
        Resource {
            kind: OF_GROUPS,
            name: name.to_owned(),
            broker: None,
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            OF_TOPICS => write!(f, "topic {}", self.name),
            OF_GROUPS => write!(f, "group {}", self.name),
            _ if self.name.is_empty() => f.write_str("all brokers"),
            _ => write!(f, "broker {}", self.name),
        }
    }
}

/// A property.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// `None`: there is none, or it is a secret.
    pub(crate) value: Option<String>,
    pub(crate) source: i8,
    pub(crate) is_read_only: bool,
    pub(crate) is_sensitive: bool,
}

/// The source of what nobody has set.
pub(crate) const DEFAULT: i8 = 5;

impl Entry {
    /// Where the value was given, in Kafka's words.
    pub(crate) fn source_name(&self) -> &'static str {
        match self.source {
            1 => "topic",
            2 => "dynamic broker",
            3 => "dynamic default",
            4 => "static broker",
            5 => "default",
            6 => "logger",
            7 => "client metrics",
            8 => "group",
            _ => "unknown",
        }
    }
}

/// The properties with these names, or all, by name.
pub(crate) fn describe(
    cluster: &mut Cluster,
    resource: &Resource,
    names: &[&str],
) -> Result<Vec<Entry>, Failure> {
    let keys = (!names.is_empty()).then(|| names.iter().map(|name| text(name)).collect());
    let request = DescribeConfigsRequest::default().with_resources(vec![
        DescribeConfigsResource::default()
            .with_resource_type(resource.kind)
            .with_resource_name(text(&resource.name))
            .with_configuration_keys(keys),
    ]);
    let broker = asked(cluster, resource)?;
    let answer = cluster.call(broker, DESCRIBE_NEWEST, &request)?;
    let mut entries = Vec::new();
    for result in answer.results {
        check_told(
            resource.to_string(),
            result.error_code,
            result.error_message,
        )?;
        entries.extend(result.configs.into_iter().map(|config| Entry {
            name: config.name.to_string(),
            value: config.value.map(|value| value.to_string()),
            source: config.config_source,
            is_read_only: config.read_only,
            is_sensitive: config.is_sensitive,
        }));
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Sets properties, or with `None` sets them back; with `is_checked` only says whether that would be accepted.
pub(crate) fn alter(
    cluster: &mut Cluster,
    resource: &Resource,
    changes: &[(String, Option<String>)],
    is_checked: bool,
) -> Result<(), Failure> {
    let changes = changes.iter().map(|(name, value)| {
        let operation = if value.is_some() { SET } else { UNSET };
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(operation)
            .with_value(value.as_deref().map(text))
    });
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(resource.kind)
                .with_resource_name(text(&resource.name))
                .with_configs(changes.collect()),
        ])
        .with_validate_only(is_checked);
    let broker = asked(cluster, resource)?;
    let answer = cluster.call(broker, ALTER_NEWEST, &request)?;
    for result in answer.responses {
        check_told(
            resource.to_string(),
            result.error_code,
            result.error_message,
        )?;
    }
    Ok(())
}

fn asked(cluster: &Cluster, resource: &Resource) -> Result<i32, Failure> {
    match resource.broker {
        Some(broker) => Ok(broker),
        None => cluster.any_broker(),
    }
}
