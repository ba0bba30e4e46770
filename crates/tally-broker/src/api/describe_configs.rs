//! DescribeConfigs (log-and-fetch.md 11.5): of topics, brokers, groups and subscriptions from the table of properties, of
//! loggers from the log.

use crate::api::Node;
use crate::api::altering::{
    BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC, broker_scope, check_own_id, needs_name,
    unknown_type,
};
use crate::api::topics::text;
use crate::config::{
    BrokerScope, ConfigEntry, ConfigSource, ResourceKind, describe_broker,
    describe_cluster_defaults, describe_resource, describe_topic, property::Kind,
};
use crate::metadata::CreateTopicError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use std::collections::BTreeSet;
use tally_protocol::ErrorCode;

pub(crate) fn handle(
    node: &Node,
    version: i16,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let shown = Shown {
        synonyms: request.include_synonyms,
        documentation: version >= 3 && request.include_documentation,
        kinds: version >= 3,
    };
    // A resource that is named twice is answered once: a few bytes must not ask for kilobytes again and again.
    let mut seen = BTreeSet::new();
    let results = request
        .resources
        .iter()
        .filter(|resource| seen.insert(mentioned(resource)))
        .map(|resource| describe(node, resource, &shown))
        .collect();
    DescribeConfigsResponse::default().with_results(results)
}

/// Which resource it is: 1, 01 and +1 are the same broker.
fn mentioned(resource: &DescribeConfigsResource) -> (i8, Option<i32>, &str) {
    let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
    match name.parse() {
        Ok(id) if [BROKER, BROKER_LOGGER].contains(&kind) => (kind, Some(id), ""),
        _ => (kind, None, name),
    }
}

/// What of each property is shown.
struct Shown {
    synonyms: bool,
    documentation: bool,
    kinds: bool,
}

fn describe(
    node: &Node,
    resource: &DescribeConfigsResource,
    shown: &Shown,
) -> DescribeConfigsResult {
    let mut result = DescribeConfigsResult::default();
    result.resource_type = resource.resource_type;
    result.resource_name = resource.resource_name.clone();
    match entries(node, resource) {
        Ok(entries) => {
            // A set: a request may bring millions of them. None are all, as to Kafka.
            let keys: Option<BTreeSet<&str>> = resource
                .configuration_keys
                .as_ref()
                .filter(|keys| !keys.is_empty())
                .map(|keys| keys.iter().map(|key| key.as_str()).collect());
            result.configs = entries
                .iter()
                .filter(|entry| {
                    keys.as_ref()
                        .is_none_or(|keys| keys.contains(entry.name.as_str()))
                })
                .map(|entry| property(entry, shown))
                .collect();
        }
        Err((code, message)) => {
            result.error_code = code.code();
            result.error_message = Some(text(&message));
        }
    }
    result
}

fn entries(
    node: &Node,
    resource: &DescribeConfigsResource,
) -> Result<Vec<ConfigEntry>, (ErrorCode, String)> {
    let name = resource.resource_name.as_str();
    let config = node.metadata.config();
    if name.is_empty() && [GROUP, CLIENT_METRICS, BROKER_LOGGER].contains(&resource.resource_type) {
        return Err(needs_name(resource.resource_type));
    }
    let own = |kind: ResourceKind| {
        let own = node.metadata.resource(kind, name);
        describe_resource(&config, (kind.rows(), kind.source()), &own)
    };
    match resource.resource_type {
        TOPIC => match node.metadata.topic(name) {
            Some(topic) => Ok(describe_topic(&config, &topic.overrides)),
            None => Err(match node.metadata.check_new_name(name) {
                Err(error @ CreateTopicError::Name(_)) => (error.code(), error.to_string()),
                _ => (
                    ErrorCode::UnknownTopicOrPartition,
                    format!("there is no topic {name}"),
                ),
            }),
        },
        BROKER => Ok(match broker_scope(node, name)? {
            BrokerScope::Cluster => describe_cluster_defaults(&config),
            BrokerScope::Own => describe_broker(&config),
        }),
        BROKER_LOGGER => check_own_id(node, name).map(|()| loggers(node)),
        CLIENT_METRICS => Ok(own(ResourceKind::ClientMetrics)),
        GROUP => Ok(own(ResourceKind::Group)),
        kind => Err(unknown_type(kind)),
    }
}

fn loggers(node: &Node) -> Vec<ConfigEntry> {
    let entry = |(name, level): (String, &str)| ConfigEntry {
        name,
        value: Some(level.to_owned()),
        kind: Kind::String,
        source: ConfigSource::BrokerLogger,
        read_only: false,
        sensitive: false,
        documentation: "",
        synonyms: Vec::new(),
    };
    node.loggers.levels().into_iter().map(entry).collect()
}

fn property(entry: &ConfigEntry, shown: &Shown) -> DescribeConfigsResourceResult {
    let mut result = DescribeConfigsResourceResult::default();
    result.name = text(&entry.name);
    result.value = entry.value.as_deref().map(text);
    result.read_only = entry.read_only;
    result.config_source = entry.source.code();
    result.is_sensitive = entry.sensitive;
    if shown.kinds {
        result.config_type = entry.kind.code();
    }
    if shown.documentation {
        result.documentation = Some(text(entry.documentation));
    }
    if shown.synonyms {
        result.synonyms = entry
            .synonyms
            .iter()
            .map(|synonym| {
                DescribeConfigsSynonym::default()
                    .with_name(text(&synonym.name))
                    .with_value(synonym.value.as_deref().map(text))
                    .with_source(synonym.source.code())
            })
            .collect();
    }
    result
}
