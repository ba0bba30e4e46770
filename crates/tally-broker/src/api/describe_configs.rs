//! DescribeConfigs (log-and-fetch.md 11.5) of topics and of this broker, from the property table.

use crate::api::Node;
use crate::api::topics::text;
use crate::config::{ConfigEntry, describe_broker, describe_topic};
use crate::metadata::CreateTopicError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use std::collections::BTreeSet;
use tally_protocol::ErrorCode;

/// Resource type: a topic.
const TOPIC: i8 = 2;
/// Resource type: a broker.
const BROKER: i8 = 4;
/// Resource types that exist but have nothing to show yet: broker loggers, client metrics, groups.
const EMPTY: [i8; 3] = [8, 16, 32];

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
        .filter(|resource| seen.insert((resource.resource_type, resource.resource_name.as_str())))
        .map(|resource| describe(node, resource, &shown))
        .collect();
    DescribeConfigsResponse::default().with_results(results)
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
            let keys = resource.configuration_keys.as_deref();
            result.configs = entries
                .iter()
                .filter(|entry| {
                    keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == entry.name))
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
    match resource.resource_type {
        TOPIC => match node.metadata.topic(name) {
            Some(topic) => Ok(describe_topic(&node.config, &topic.overrides)),
            None => Err(match node.metadata.check_new_name(name) {
                Err(error @ CreateTopicError::Name(_)) => (error.code(), error.to_string()),
                _ => (
                    ErrorCode::UnknownTopicOrPartition,
                    format!("there is no topic {name}"),
                ),
            }),
        },
        // The cluster's defaults: only what was changed at run time, and nothing can be yet.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER if name.parse() == Ok(node.config.node_id) => Ok(describe_broker(&node.config)),
        BROKER => {
            let message = format!(
                "broker {name} asked, this is broker {}",
                node.config.node_id
            );
            Err((ErrorCode::InvalidRequest, message))
        }
        kind if EMPTY.contains(&kind) => Ok(Vec::new()),
        kind => Err((
            ErrorCode::InvalidRequest,
            format!("resource type {kind} does not exist"),
        )),
    }
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
