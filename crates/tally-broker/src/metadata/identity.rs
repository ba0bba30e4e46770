//! Who this broker is in this run, and what a first start makes: the cluster's id and the internal topics (N5, N12, S-6).

use super::random::Random;
use super::record::{self, TopicRecord};
use super::{CONSUMER_OFFSETS, OpenError, TRANSACTION_STATE, names, random};
use crate::config::properties::topic_property;
use crate::config::{BrokerConfig, Overrides};
use std::collections::BTreeMap;
use tally_protocol::ids::TopicId;

/// Who this broker is in this run.
pub(super) struct Identity {
    pub(super) cluster_id: String,
    pub(super) incarnation: i64,
    pub(super) features_epoch: i64,
    pub(super) next_producer_id: i64,
    pub(super) is_new: bool,
}

impl Identity {
    pub(super) fn next(
        entries: &BTreeMap<String, String>,
        config: &BrokerConfig,
        random: &mut Random,
        writes: &mut Vec<(String, Option<String>)>,
    ) -> Result<Identity, OpenError> {
        let is_new = !entries.contains_key(record::CLUSTER_ID);
        let stored_node = record::number(entries, record::NODE_ID)?;
        if let Some(stored) = stored_node
            && stored != i64::from(config.node_id)
        {
            return Err(OpenError::OtherNode {
                stored: i32::try_from(stored).unwrap_or(i32::MAX),
                configured: config.node_id,
            });
        }
        let cluster_id = match (entries.get(record::CLUSTER_ID), &config.cluster_id) {
            (Some(stored), Some(configured)) if stored != configured => {
                return Err(OpenError::OtherCluster {
                    stored: stored.clone(),
                    configured: configured.clone(),
                });
            }
            (Some(id), _) | (None, Some(id)) => id.clone(),
            (None, None) => new_cluster_id(random),
        };
        let identity = Identity {
            cluster_id,
            incarnation: record::number(entries, record::INCARNATION)?.unwrap_or(0) + 1,
            features_epoch: record::number(entries, record::FEATURES_EPOCH)?.unwrap_or(0),
            next_producer_id: record::number(entries, record::NEXT_PRODUCER_ID)?.unwrap_or(0),
            is_new,
        };
        let mut put = |key: &str, value: String| writes.push((key.to_owned(), Some(value)));
        put(record::INCARNATION, identity.incarnation.to_string());
        if is_new {
            put(record::CLUSTER_ID, identity.cluster_id.clone());
            put(record::FEATURES_EPOCH, identity.features_epoch.to_string());
        }
        if stored_node.is_none() {
            put(record::NODE_ID, config.node_id.to_string());
        }
        Ok(identity)
    }
}

/// The internal topics as they are created, without their ids, with Kafka's own settings for them.
pub(super) fn internal_topics(config: &BrokerConfig, incarnation: i64) -> [TopicRecord; 2] {
    let internal = |name: &str, partition_count: i32, segment_bytes: i32| {
        // The broker may want smaller segments for them than a topic may ask for by the name that is shown.
        let property = match topic_property("segment.bytes") {
            Some(row) if row.check(&segment_bytes.to_string()).is_ok() => "segment.bytes",
            _ => "internal.segment.bytes",
        };
        TopicRecord {
            name: name.to_owned(),
            id: TopicId::ZERO,
            partition_count,
            created_incarnation: incarnation,
            internal: true,
            overrides: Overrides::from([
                ("cleanup.policy".to_owned(), "compact".to_owned()),
                (property.to_owned(), segment_bytes.to_string()),
            ]),
        }
    };
    [
        internal(
            CONSUMER_OFFSETS,
            config.offsets_topic_num_partitions,
            config.offsets_topic_segment_bytes,
        ),
        internal(
            TRANSACTION_STATE,
            config.transaction_state_log_num_partitions,
            config.transaction_state_log_segment_bytes,
        ),
    ]
}

/// A cluster id that no command line takes for a flag.
fn new_cluster_id(random: &mut Random) -> String {
    loop {
        let id = names::base64url(random::uuid(random));
        if !id.starts_with('-') {
            return id;
        }
    }
}
