//! What IncrementalAlterConfigs and AlterConfigs share: one resource's changes carried out (log-and-fetch.md 11.5, LR-145).

use crate::api::Node;
use crate::api::topics::waiting_for_the_disk;
use crate::broker::{compaction_settings, log_options, retention_settings};
use crate::config::{Alteration, BrokerConfig, BrokerScope, Operation, ResourceKind, not_honoured};
use crate::loggers::LevelError;
use crate::metadata::{AlterError, AlterMode, Topic};
use std::collections::BTreeSet;
use std::sync::Arc;
use tally_protocol::ErrorCode;
use tally_shard::ShardMessage;

/// Resource type: a topic.
pub(crate) const TOPIC: i8 = 2;
/// Resource type: a broker, or all of them.
pub(crate) const BROKER: i8 = 4;
/// Resource type: the levels of a broker's log.
pub(crate) const BROKER_LOGGER: i8 = 8;
/// Resource type: a subscription to client metrics.
pub(crate) const CLIENT_METRICS: i8 = 16;
/// Resource type: a group.
pub(crate) const GROUP: i8 = 32;

/// What goes wrong, with the sentence that says so.
pub(crate) type Refusal = (ErrorCode, String);

/// The resources that a request names more than once.
pub(crate) fn named_twice<'a>(
    resources: impl Iterator<Item = (i8, &'a str)>,
) -> BTreeSet<(i8, &'a str)> {
    let mut seen = BTreeSet::new();
    resources
        .filter(|resource| !seen.insert(*resource))
        .collect()
}

/// The refusal of a resource that is named twice.
pub(crate) fn refuse_twice(name: &str) -> Refusal {
    let message = format!("the request names {name:?} more than once: name it once");
    (ErrorCode::InvalidRequest, message)
}

/// Changes a resource's settings.
pub(crate) fn alter(
    node: &Node,
    (kind, name): (i8, &str),
    alteration: Alteration<'_>,
    mode: AlterMode,
) -> Result<(), Refusal> {
    if name.is_empty() && [TOPIC, GROUP, CLIENT_METRICS].contains(&kind) {
        return Err(needs_name(kind));
    }
    let resource = |kind| {
        waiting_for_the_disk(|| node.metadata.alter_resource((kind, name), mode, alteration))
    };
    let outcome = match kind {
        TOPIC => waiting_for_the_disk(|| {
            let configure = |topic: &Topic| configure_topic(node, topic);
            node.metadata.alter_topic(name, mode, alteration, configure)
        }),
        BROKER => {
            let scope = broker_scope(node, name)?;
            let configure =
                |config: &BrokerConfig, topics: &[Arc<Topic>]| configure_all(node, config, topics);
            waiting_for_the_disk(|| {
                node.metadata
                    .alter_broker(scope, mode, alteration, configure)
            })
        }
        BROKER_LOGGER => return alter_loggers(node, name, alteration, mode),
        CLIENT_METRICS => resource(ResourceKind::ClientMetrics),
        GROUP => resource(ResourceKind::Group),
        kind => return Err(unknown_type(kind)),
    };
    outcome.map_err(|error: AlterError| (error.code(), error.to_string()))
}

/// The refusal of a resource without a name: only all brokers have defaults in common.
pub(crate) fn needs_name(kind: i8) -> Refusal {
    let message = format!("the name of a resource of type {kind} is empty: give one");
    (ErrorCode::InvalidRequest, message)
}

/// The refusal of a resource type that does not exist.
pub(crate) fn unknown_type(kind: i8) -> Refusal {
    let message = format!(
        "resource type {kind} does not exist; there are 2 (topic), 4 (broker), 8 (broker logger), 16 (client metrics) and 32 (group)"
    );
    (ErrorCode::InvalidRequest, message)
}

/// Whose settings a broker's name stands for: all brokers' when it is empty.
pub(crate) fn broker_scope(node: &Node, name: &str) -> Result<BrokerScope, Refusal> {
    if name.is_empty() {
        return Ok(BrokerScope::Cluster);
    }
    check_own_id(node, name).map(|()| BrokerScope::Own)
}

/// Refuses what is not this broker's number.
pub(crate) fn check_own_id(node: &Node, name: &str) -> Result<(), Refusal> {
    let me = node.config.node_id;
    match name.parse::<i32>() {
        Ok(id) if id == me => Ok(()),
        Ok(_) => {
            let message = format!("broker {name} asked, this is broker {me}: ask for that");
            Err((ErrorCode::InvalidRequest, message))
        }
        Err(_) => {
            let message = format!(
                "a broker is named by its number, and {name:?} is none: this is broker {me}"
            );
            Err((ErrorCode::InvalidRequest, message))
        }
    }
}

/// Tells the owners of a topic's partitions how to keep their logs from now on (LR-145).
fn configure_topic(node: &Node, topic: &Topic) {
    warn_of_what_does_nothing(topic);
    configure_partitions(node, topic);
}

/// What a topic was told is accepted as Apache Kafka accepts it; what does nothing here is said.
pub(crate) fn warn_of_what_does_nothing(topic: &Topic) {
    for name in not_honoured(&topic.overrides) {
        tracing::warn!(topic = %topic.name, property = name, "W2301 config.unused: it is set, and does nothing");
    }
}

fn configure_partitions(node: &Node, topic: &Topic) {
    for id in topic.partition_ids() {
        let message = ShardMessage::Configure {
            log: log_options(topic),
            retention: retention_settings(topic),
            compaction: compaction_settings(topic),
        };
        node.shards.tell(id, message);
    }
}

fn configure_all(node: &Node, config: &BrokerConfig, topics: &[Arc<Topic>]) {
    node.shards
        .set_producer_id_expiration(config.producer_id_expiration_ms);
    for topic in topics {
        configure_partitions(node, topic);
    }
}

/// The levels of the log. Lists there are none, and AlterConfigs has no loggers (as in Kafka).
fn alter_loggers(
    node: &Node,
    name: &str,
    alteration: Alteration<'_>,
    mode: AlterMode,
) -> Result<(), Refusal> {
    let Alteration::Each(changes) = alteration else {
        let message = "levels of loggers are changed by IncrementalAlterConfigs alone".to_owned();
        return Err((ErrorCode::InvalidRequest, message));
    };
    check_own_id(node, name)?;
    let mut levels = Vec::with_capacity(changes.len());
    let mut seen = BTreeSet::new();
    for change in changes {
        let invalid = |what: &str| (ErrorCode::InvalidRequest, format!("{} {what}", change.name));
        if !seen.insert(change.name) {
            return Err(invalid("is named twice: name it once"));
        }
        levels.push(match (change.operation, change.value) {
            (Operation::Delete, _) => (change.name, None),
            (Operation::Set, Some(level)) => (change.name, Some(level)),
            (Operation::Set, None) => {
                return Err(invalid("has no value: give a level, or delete it"));
            }
            (Operation::Append | Operation::Subtract, _) => {
                return Err(invalid("is a logger: its level can be set or deleted"));
            }
        });
    }
    let outcome = match mode {
        AlterMode::Check => node.loggers.check(&levels),
        AlterMode::Apply => node.loggers.alter(&levels),
    };
    outcome.map_err(|error| {
        let code = match error {
            LevelError::RootHasNone => ErrorCode::InvalidRequest,
            LevelError::TooMany => ErrorCode::PolicyViolation,
            LevelError::UnknownLogger(_)
            | LevelError::UnknownLevel { .. }
            | LevelError::Refused(_) => ErrorCode::InvalidConfig,
        };
        (code, error.to_string())
    })
}
