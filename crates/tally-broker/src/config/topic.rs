//! What one topic is told to do: its own settings over the broker's.
//!
//! Owns the typed form of a topic's properties and the refusals of CreateTopics (40 with a message, log-and-fetch rules
//! 11.2 and 12). Invariant: settings that [`TopicConfig::parse`] accepted are accepted again when they are read back.

use std::collections::BTreeMap;

use super::Values;
use super::properties::{TOPIC, similar_topic_property, topic_property};
use super::property::{Property, Status, list};

/// The settings that a topic has of its own, by name.
pub type Overrides = BTreeMap<String, String>;

/// What happens to old data of a topic. Both may hold, or neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanupPolicy {
    /// Old segments go.
    pub delete: bool,
    /// Older records of a key go.
    pub compact: bool,
}

/// Whose time a record has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's.
    LogAppendTime,
}

/// A topic's properties, typed. Each field is the property of the same name with dots for underscores.
#[derive(Clone, PartialEq, Debug)]
pub struct TopicConfig {
    /// What happens to old data.
    pub cleanup_policy: CleanupPolicy,
    /// Largest batch.
    pub max_message_bytes: i32,
    /// Whose time a record has.
    pub message_timestamp_type: TimestampType,
    /// How far in the past a timestamp may lie.
    pub message_timestamp_before_max_ms: i64,
    /// How far in the future a timestamp may lie.
    pub message_timestamp_after_max_ms: i64,
    /// Replicas that must have an acks=all write.
    pub min_insync_replicas: i32,
    /// Size of a segment; `internal.segment.bytes` wins when it is set.
    pub segment_bytes: i32,
    /// Longest span of time in a segment.
    pub segment_ms: i64,
    /// Taken off `segment_ms` at random, at most.
    pub segment_jitter_ms: i64,
    /// Largest index of a segment.
    pub segment_index_bytes: i32,
    /// Log bytes between two index entries.
    pub index_interval_bytes: i32,
    /// How long records are kept; -1 is for ever.
    pub retention_ms: i64,
    /// Bytes a partition keeps; -1 is no limit.
    pub retention_bytes: i64,
    /// How long a deletion stays readable after compaction.
    pub delete_retention_ms: i64,
    /// How long a removed segment stays on disk.
    pub file_delete_delay_ms: i64,
    /// Records between two syncs.
    pub flush_messages: i64,
    /// Time between two syncs.
    pub flush_ms: i64,
    /// Shortest time before compaction.
    pub min_compaction_lag_ms: i64,
    /// Longest time before compaction.
    pub max_compaction_lag_ms: i64,
    /// Share that must be uncompacted.
    pub min_cleanable_dirty_ratio: f64,
}

/// Why settings of a topic are refused: INVALID_CONFIG (40) with this text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopicConfigError {
    /// No such property; `removed` when Kafka 4.0 took it out.
    #[error("{name}: unknown topic property.{}", unknown_hint(name))]
    Unknown {
        /// What was given.
        name: String,
    },
    /// The value cannot be used.
    #[error("{name}={value}: {reason}")]
    Invalid {
        /// The property.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// A property without a value.
    #[error("{name} has no value: give one, or leave it out")]
    Null {
        /// The property.
        name: String,
    },
}

impl TopicConfigError {
    /// The property that is at fault.
    #[must_use]
    pub fn property(&self) -> &str {
        match self {
            TopicConfigError::Unknown { name }
            | TopicConfigError::Invalid { name, .. }
            | TopicConfigError::Null { name } => name,
        }
    }
}

/// Properties that Kafka 4.0 removed: refused here too (LN-10).
const REMOVED: [&str; 3] = [
    "message.format.version",
    "message.downconversion.enable",
    "message.timestamp.difference.max.ms",
];

fn unknown_hint(name: &str) -> String {
    if REMOVED.contains(&name) {
        return " Kafka 4.0 removed it.".to_owned();
    }
    similar_topic_property(name)
        .map(|known| format!(" Did you mean {known}?"))
        .unwrap_or_default()
}

impl TopicConfig {
    /// Checks a topic's own settings and puts them over the broker's. Also gives back the settings as they are to be
    /// kept.
    pub fn parse<'a>(
        broker: &Values,
        settings: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<(TopicConfig, Overrides), TopicConfigError> {
        let mut overrides = Overrides::new();
        for (name, value) in settings {
            let (row, value) = check(name, value)?;
            overrides.insert(row.name.to_owned(), value.to_owned());
        }
        let config = TopicConfig::effective(broker, &overrides);
        if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
            return Err(TopicConfigError::Invalid {
                name: "min.compaction.lag.ms".to_owned(),
                value: config.min_compaction_lag_ms.to_string(),
                reason: format!(
                    "exceeds max.compaction.lag.ms {}",
                    config.max_compaction_lag_ms
                ),
            });
        }
        Ok((config, overrides))
    }

    fn effective(broker: &Values, overrides: &Overrides) -> TopicConfig {
        let of = Effective { broker, overrides };
        let cleanup_policy = of.text("cleanup.policy");
        TopicConfig {
            cleanup_policy: CleanupPolicy {
                delete: list(&cleanup_policy).any(|item| item == "delete"),
                compact: list(&cleanup_policy).any(|item| item == "compact"),
            },
            max_message_bytes: of.number("max.message.bytes"),
            message_timestamp_type: match of.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            message_timestamp_before_max_ms: of.number("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: of.number("message.timestamp.after.max.ms"),
            min_insync_replicas: of.number("min.insync.replicas"),
            segment_bytes: match overrides.get("internal.segment.bytes") {
                Some(_) => of.number("internal.segment.bytes"),
                None => of.number("segment.bytes"),
            },
            segment_ms: of.number("segment.ms"),
            segment_jitter_ms: of.number("segment.jitter.ms"),
            segment_index_bytes: of.number("segment.index.bytes"),
            index_interval_bytes: of.number("index.interval.bytes"),
            retention_ms: of.number("retention.ms"),
            retention_bytes: of.number("retention.bytes"),
            delete_retention_ms: of.number("delete.retention.ms"),
            file_delete_delay_ms: of.number("file.delete.delay.ms"),
            flush_messages: of.number("flush.messages"),
            flush_ms: of.number("flush.ms"),
            min_compaction_lag_ms: of.number("min.compaction.lag.ms"),
            max_compaction_lag_ms: of.number("max.compaction.lag.ms"),
            min_cleanable_dirty_ratio: of.number("min.cleanable.dirty.ratio"),
        }
    }
}

/// Which of a topic's own settings do nothing, so far or for good, for a warning in the log.
pub fn not_honoured(overrides: &Overrides) -> impl Iterator<Item = &str> {
    overrides
        .keys()
        .map(String::as_str)
        .filter(|name| topic_property(name).is_some_and(|row| row.status != Status::Honoured))
}

/// Names of all topic properties that are shown.
pub(super) fn shown() -> impl Iterator<Item = &'static Property> {
    TOPIC
        .iter()
        .filter(|row| !row.name.starts_with("internal."))
}

/// The value of a topic's property that the topic does not set: the strongest broker property that was given, else the
/// default of the last one that has any; hours and minutes become milliseconds.
pub(crate) fn inherited(row: &Property, broker: &Values) -> Option<String> {
    let given = row
        .synonyms
        .iter()
        .find_map(|name| broker.set_text(name).map(|value| (*name, value)));
    let default = || {
        row.synonyms
            .iter()
            .rev()
            .find_map(|name| broker.text(name).map(|value| (*name, value)))
    };
    match given.or_else(default) {
        Some((name, value)) => Some(in_unit_of(row.name, name, value)),
        None => row.default.map(str::to_owned),
    }
}

/// A broker's value in the unit of the topic's property. Values below 0 mean "no limit" in every unit.
fn in_unit_of(topic_name: &str, broker_name: &str, value: &str) -> String {
    if !topic_name.ends_with(".ms") {
        return value.to_owned();
    }
    let unit_ms: i64 = if broker_name.ends_with(".hours") {
        3_600_000
    } else if broker_name.ends_with(".minutes") {
        60_000
    } else {
        return value.to_owned();
    };
    match value.parse::<i64>() {
        Ok(number) if number >= 0 => number.saturating_mul(unit_ms).to_string(),
        _ => value.to_owned(),
    }
}

struct Effective<'a> {
    broker: &'a Values,
    overrides: &'a Overrides,
}

impl Effective<'_> {
    fn text(&self, name: &str) -> String {
        let row = topic_property(name).expect("only names of the table are asked for");
        match self.overrides.get(name) {
            Some(own) => own.clone(),
            None => inherited(row, self.broker).unwrap_or_default(),
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> T {
        self.text(name).parse().unwrap_or_else(|_| {
            panic!("{name} was checked to be a number of this type by its row in the table")
        })
    }
}

fn check<'a>(
    name: &str,
    value: Option<&'a str>,
) -> Result<(&'static Property, &'a str), TopicConfigError> {
    let Some(row) = topic_property(name) else {
        return Err(TopicConfigError::Unknown {
            name: name.to_owned(),
        });
    };
    let Some(value) = value.map(str::trim) else {
        return Err(TopicConfigError::Null {
            name: name.to_owned(),
        });
    };
    let invalid = |reason: String| TopicConfigError::Invalid {
        name: name.to_owned(),
        value: value.to_owned(),
        reason,
    };
    row.check(value).map_err(invalid)?;
    if row.name == "compression.type" && value != "producer" {
        let reason = "recompression by the broker is not built yet; use producer";
        return Err(invalid(reason.to_owned()));
    }
    if row.name.ends_with(".throttled.replicas") && !is_replica_list(value) {
        return Err(invalid("must be PARTITION:BROKER,... or *".to_owned()));
    }
    Ok((row, value))
}

/// `*`, or pairs of numbers: nothing else may get into what is stored.
fn is_replica_list(value: &str) -> bool {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    value == "*"
        || list(value).all(|item| {
            item.split_once(':')
                .is_some_and(|(partition, broker)| is_number(partition) && is_number(broker))
        })
}

#[cfg(test)]
mod tests {
    use super::super::{BrokerConfig, Setting};
    use super::*;

    fn broker(pairs: &[(&str, &str)]) -> BrokerConfig {
        let settings: Vec<Setting> = pairs
            .iter()
            .map(|(name, value)| Setting::new(*name, *value, "--set"))
            .collect();
        BrokerConfig::from_settings(&settings).unwrap().0
    }

    #[track_caller]
    fn check_refused(name: &str, value: &str, message: &str) {
        let outcome = TopicConfig::parse(&broker(&[]).values, [(name, Some(value))]);
        assert_eq!(
            outcome.err().map(|error| error.to_string()).as_deref(),
            Some(message)
        );
    }

    #[test]
    fn a_topic_stands_on_the_broker_and_overrides_it() {
        let broker = broker(&[
            ("message.max.bytes", "2000"),
            ("log.retention.minutes", "2"),
        ]);
        let own = [
            ("max.message.bytes", Some("3000")),
            ("cleanup.policy", Some("compact")),
        ];
        let (config, overrides) = TopicConfig::parse(&broker.values, own).unwrap();
        assert_eq!(broker.topic_defaults.max_message_bytes, 2000);
        assert_eq!(broker.topic_defaults.retention_ms, 120_000);
        assert_eq!(config.max_message_bytes, 3000);
        assert_eq!(
            config.cleanup_policy,
            CleanupPolicy {
                delete: false,
                compact: true
            }
        );
        assert_eq!(overrides.len(), 2);
    }

    #[test]
    fn milliseconds_are_stronger_than_minutes_and_hours() {
        let both = [("log.retention.ms", "5"), ("log.retention.hours", "1")];
        assert_eq!(broker(&both).topic_defaults.retention_ms, 5);
        assert_eq!(
            broker(&[("log.retention.hours", "-1")])
                .topic_defaults
                .retention_ms,
            -1
        );
        assert_eq!(
            broker(&[("log.roll.hours", "2")]).topic_defaults.segment_ms,
            7_200_000
        );
        assert_eq!(broker(&[]).topic_defaults.flush_ms, i64::MAX);
    }

    #[test]
    fn refused_settings_say_why() {
        check_refused(
            "retension.ms",
            "1",
            "retension.ms: unknown topic property. Did you mean retention.ms?",
        );
        check_refused(
            "message.format.version",
            "2.0",
            "message.format.version: unknown topic property. Kafka 4.0 removed it.",
        );
        check_refused(
            "compression.type",
            "zstd",
            "compression.type=zstd: recompression by the broker is not built yet; use producer",
        );
        check_refused(
            "segment.bytes",
            "1",
            "segment.bytes=1: must be at least 1048576",
        );
        check_refused(
            "remote.storage.enable",
            "true",
            "remote.storage.enable=true: must be one of false",
        );
        let lags = [
            ("min.compaction.lag.ms", Some("9")),
            ("max.compaction.lag.ms", Some("8")),
        ];
        let error = TopicConfig::parse(&broker(&[]).values, lags).unwrap_err();
        assert_eq!(
            error.to_string(),
            "min.compaction.lag.ms=9: exceeds max.compaction.lag.ms 8"
        );
    }

    #[test]
    fn tests_may_have_small_segments() {
        let own = [("internal.segment.bytes", Some("4096"))];
        let (config, _) = TopicConfig::parse(&broker(&[]).values, own).unwrap();
        assert_eq!(config.segment_bytes, 4096);
    }
}
