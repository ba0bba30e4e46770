//! Records of groups of the `consumer` protocol as columns.

use super::{Fields, bytes, unless_negative};
use crate::output::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::TopicId;
use tally_protocol::records::consumer_group::{
    ClassicValue, ConsumerGroupRecord, CurrentValue, MemberPhase, SubscriptionValue,
};

/// The columns of one record; a tombstone has none but those of its key.
pub(super) fn fields(group: &str, record: &ConsumerGroupRecord) -> Fields {
    let (kind, key, value) = match record {
        ConsumerGroupRecord::Epoch(value) => {
            let value = value.map(|value| {
                vec![
                    ("epoch", Value::from(value.epoch)),
                    ("metadata_hash", Value::from(value.metadata_hash)),
                ]
            });
            ("consumer_group", None, value)
        }
        ConsumerGroupRecord::Member(id, value) => {
            let value = value.as_ref().map(subscription);
            ("consumer_member", Some(("member_id", id)), value)
        }
        ConsumerGroupRecord::TargetEpoch(value) => {
            let value = value.map(|value| {
                vec![
                    ("assignment_epoch", Value::from(value.epoch)),
                    ("assignment_timestamp", unless_negative(value.timestamp)),
                ]
            });
            ("consumer_target", None, value)
        }
        ConsumerGroupRecord::Target(id, value) => {
            let value = value
                .as_ref()
                .map(|target| vec![("partitions", numbers(target))]);
            ("consumer_target_member", Some(("member_id", id)), value)
        }
        ConsumerGroupRecord::Current(id, value) => {
            let value = value.as_ref().map(current);
            ("consumer_current_member", Some(("member_id", id)), value)
        }
        ConsumerGroupRecord::Regex(regex, value) => {
            let value = value.as_ref().map(|value| {
                vec![
                    ("topics", names(&value.topics)),
                    ("version", Value::from(value.version)),
                    ("timestamp", unless_negative(value.timestamp)),
                ]
            });
            ("consumer_regex", Some(("regex", regex)), value)
        }
    };
    let mut fields = vec![("record", Value::from(kind)), ("group", Value::from(group))];
    fields.extend(key.map(|(name, key)| (name, Value::from(&**key))));
    match value {
        None => fields.push(("value", Value::Null)),
        Some(value) => fields.extend(value),
    }
    fields
}

fn names(names: &BTreeSet<Arc<str>>) -> Value {
    Value::List(names.iter().map(|name| Value::from(&**name)).collect())
}

fn numbers(topics: &BTreeMap<TopicId, BTreeSet<i32>>) -> Value {
    let topics = topics.iter().map(|(topic, partitions)| {
        let partitions = partitions.iter().map(|number| Value::from(*number));
        Value::Object(vec![
            ("topic_id", Value::from(topic.to_string())),
            ("partitions", Value::List(partitions.collect())),
        ])
    });
    Value::List(topics.collect())
}

fn with_epochs(topics: &BTreeMap<TopicId, BTreeMap<i32, i32>>) -> Value {
    let topics = topics.iter().map(|(topic, partitions)| {
        let numbers = partitions.keys().map(|number| Value::from(*number));
        let epochs = partitions.values().map(|epoch| Value::from(*epoch));
        Value::Object(vec![
            ("topic_id", Value::from(topic.to_string())),
            ("partitions", Value::List(numbers.collect())),
            ("epochs", Value::List(epochs.collect())),
        ])
    });
    Value::List(topics.collect())
}

fn subscription(value: &SubscriptionValue) -> Fields {
    let mut fields = vec![
        (
            "group_instance_id",
            Value::from(value.instance_id.as_deref()),
        ),
        ("rack_id", Value::from(value.rack_id.as_deref())),
        ("client_id", Value::from(&*value.client_id)),
        ("client_host", Value::from(&*value.client_host)),
        ("topics", names(&value.topics)),
        ("regex", Value::from(value.regex.as_deref())),
        (
            "rebalance_timeout_ms",
            Value::from(value.rebalance_timeout_ms),
        ),
        ("assignor", Value::from(value.assignor.as_deref())),
    ];
    fields.extend(
        value
            .classic
            .as_ref()
            .map(|value| ("classic", classic(value))),
    );
    fields
}

fn classic(value: &ClassicValue) -> Value {
    let protocols = value.protocols.iter().map(|(name, metadata)| {
        Value::Object(vec![
            ("name", Value::from(&**name)),
            ("metadata", bytes(metadata, true)),
        ])
    });
    Value::Object(vec![
        ("session_timeout_ms", Value::from(value.session_timeout_ms)),
        ("protocols", Value::List(protocols.collect())),
    ])
}

fn current(value: &CurrentValue) -> Fields {
    let phase = match value.phase {
        MemberPhase::Stable => "stable",
        MemberPhase::Unrevoked => "unrevoked_partitions",
        MemberPhase::Unreleased => "unreleased_partitions",
        MemberPhase::Unknown => "unknown",
    };
    vec![
        ("member_epoch", Value::from(value.epoch)),
        ("previous_member_epoch", Value::from(value.previous_epoch)),
        ("state", Value::from(phase)),
        ("assigned", with_epochs(&value.assigned)),
        ("revoking", with_epochs(&value.revoking)),
    ]
}
