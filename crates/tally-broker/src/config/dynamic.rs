//! What may be set at run time, and how a set of settings is changed: AlterConfigs and IncrementalAlterConfigs without the
//! wire (log-and-fetch rules 11.5 and 13, "Dynamic").
//!
//! Invariants: a change is taken whole or not at all; what is set passed the check of its row; a property that the broker
//! reads at start alone is refused, because accepting it would say that it holds.

use std::collections::BTreeSet;

use super::properties::{broker_property, similar_broker_property};
use super::property::{Kind, Property, list};
use super::{BrokerConfig, ConfigError, Overrides};

/// What was set at run time, by name.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Dynamic {
    /// For all brokers.
    pub cluster: Overrides,
    /// For this broker: stronger.
    pub own: Overrides,
}

/// Whose settings of a broker are changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BrokerScope {
    /// All brokers'.
    Cluster,
    /// This one's.
    Own,
}

/// The broker's properties that may be set at run time, by name: Kafka's, without those of listeners and Java classes,
/// which take a restart here.
pub const CHANGEABLE: &[&str] = &[
    "background.threads",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "follower.fetch.last.tiered.offset.enable",
    "follower.replication.throttled.rate",
    "group.consumer.assignment.interval.ms",
    "group.coordinator.cached.buffer.max.bytes",
    "group.share.assignment.interval.ms",
    "group.streams.assignment.interval.ms",
    "leader.replication.throttled.rate",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.delete.retention.ms",
    "log.cleaner.io.buffer.load.factor",
    "log.cleaner.io.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    "log.cleaner.max.compaction.lag.ms",
    "log.cleaner.min.cleanable.ratio",
    "log.cleaner.min.compaction.lag.ms",
    "log.cleaner.threads",
    "log.cleanup.policy",
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "log.index.interval.bytes",
    "log.index.size.max.bytes",
    "log.local.retention.bytes",
    "log.local.retention.ms",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.type",
    "log.preallocate",
    "log.retention.bytes",
    "log.retention.ms",
    "log.roll.jitter.ms",
    "log.roll.ms",
    "log.segment.bytes",
    "log.segment.delete.delay.ms",
    "max.connection.creation.rate",
    "max.connections",
    "max.connections.per.ip",
    "max.connections.per.ip.overrides",
    "message.max.bytes",
    "min.insync.replicas",
    "num.io.threads",
    "num.network.threads",
    "num.recovery.threads.per.data.dir",
    "num.replica.fetchers",
    "producer.id.expiration.ms",
    "remote.fetch.max.wait.ms",
    "remote.list.offsets.request.timeout.ms",
    "remote.log.index.file.cache.total.size.bytes",
    "remote.log.manager.copier.thread.pool.size",
    "remote.log.manager.copy.max.bytes.per.second",
    "remote.log.manager.expiration.thread.pool.size",
    "remote.log.manager.fetch.max.bytes.per.second",
    "remote.log.manager.follower.thread.pool.size",
    "remote.log.reader.threads",
    "replica.alter.log.dirs.io.max.bytes.per.second",
    "share.coordinator.cached.buffer.max.bytes",
    "transaction.partition.verification.enable",
    "unclean.leader.election.enable",
];

/// Those that a tool sets for the time of a move (`kafka-reassign-partitions --throttle`): nobody is shown them before and after.
pub const FOR_MOVES: [&str; 3] = [
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// Whether a broker's property may be set at run time.
#[must_use]
pub fn is_changeable(name: &str) -> bool {
    CHANGEABLE.binary_search(&name).is_ok()
}

/// What is done to one setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// It gets this value.
    Set,
    /// It is no longer set.
    Delete,
    /// A list gets these items too.
    Append,
    /// A list loses these items.
    Subtract,
}

impl Operation {
    /// The operation of this number on the wire.
    #[must_use]
    pub fn of_code(code: i8) -> Option<Operation> {
        Some(match code {
            0 => Operation::Set,
            1 => Operation::Delete,
            2 => Operation::Append,
            3 => Operation::Subtract,
            _ => return None,
        })
    }
}

/// One change of one setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change<'a> {
    /// The property.
    pub name: &'a str,
    /// What is done to it.
    pub operation: Operation,
    /// The value; none for a deletion.
    pub value: Option<&'a str>,
}

/// How settings are changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alteration<'a> {
    /// What is not named stays as it is (IncrementalAlterConfigs).
    Each(&'a [Change<'a>]),
    /// What is not named is no longer set (AlterConfigs).
    All(&'a [Change<'a>]),
}

impl<'a> Alteration<'a> {
    /// The changes.
    #[must_use]
    pub const fn changes(self) -> &'a [Change<'a>] {
        match self {
            Alteration::Each(changes) | Alteration::All(changes) => changes,
        }
    }
}

/// Why settings are not changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// A property is named twice.
    #[error("{0} is named twice: name it once")]
    Twice(String),
    /// Nothing to set, append or take away.
    #[error("{0} has no value: give one, or delete it")]
    Null(String),
    /// Append and subtract are for lists.
    #[error("{0} is not a list: it can be set or deleted, not appended to or subtracted from")]
    NotAList(String),
    /// All brokers have it in common.
    #[error(
        "min.insync.replicas cannot be changed for one broker: set it for all brokers (with an empty name), or for a topic"
    )]
    OneBrokersMinInsync,
    /// All brokers always have it.
    #[error("min.insync.replicas cannot be deleted for all brokers: set it to 1, the default")]
    NoMinInsync,
    /// It holds from start to stop.
    #[error("{0} cannot be changed at run time: give it at start")]
    Static(String),
    /// No such property.
    #[error("{name}: unknown property.{}", suggestion.map(|name| format!(" Did you mean {name}?")).unwrap_or_default())]
    Unknown {
        /// What was named.
        name: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// The value cannot be used.
    #[error("{name}={value}: {reason}")]
    Invalid {
        /// The property.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What results cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

const MIN_INSYNC: &str = "min.insync.replicas";
/// Longest value: what a string of the oldest requests can carry (11.5).
const VALUE_BYTES_MAX: usize = 32_767;

/// Applies changes to the settings that a thing has of its own. `row` finds a property, `inherited` gives the value that
/// holds while the thing sets none. Values are not checked here: what results is, as a whole.
pub fn change(
    own: &Overrides,
    alteration: Alteration<'_>,
    row: impl Fn(&str) -> Option<&'static Property>,
    inherited: impl Fn(&Property) -> Option<String>,
) -> Result<Overrides, ChangeError> {
    let changes = alteration.changes();
    let mut seen = BTreeSet::new();
    if let Some(twice) = changes.iter().find(|change| !seen.insert(change.name)) {
        return Err(ChangeError::Twice(twice.name.to_owned()));
    }
    let mut changed = match alteration {
        Alteration::Each(_) => own.clone(),
        Alteration::All(_) => Overrides::new(),
    };
    for one in changes {
        let name = one.name.to_owned();
        let value = match (one.operation, one.value) {
            (Operation::Delete, _) => {
                changed.remove(one.name);
                continue;
            }
            (_, None) => return Err(ChangeError::Null(name)),
            (Operation::Set, Some(value)) => value.trim().to_owned(),
            (Operation::Append | Operation::Subtract, Some(value)) => {
                let row = row(one.name).filter(|row| row.kind == Kind::List);
                let row = row.ok_or_else(|| ChangeError::NotAList(name.clone()))?;
                let old = own.get(one.name).cloned().or_else(|| inherited(row));
                merged(&old.unwrap_or_default(), one.operation, value)
            }
        };
        if value.len() > VALUE_BYTES_MAX {
            return Err(ChangeError::Invalid {
                name,
                value: format!("{}...", value.chars().take(20).collect::<String>()),
                reason: format!("must have at most {VALUE_BYTES_MAX} bytes"),
            });
        }
        changed.insert(name, value);
    }
    Ok(changed)
}

/// A list with items more, each once, or fewer.
fn merged(old: &str, operation: Operation, items: &str) -> String {
    let mut result: Vec<&str> = list(old).collect();
    for item in list(items) {
        if operation == Operation::Subtract {
            result.retain(|one| *one != item);
        } else if !result.contains(&item) {
            result.push(item);
        }
    }
    result.join(",")
}

/// Refuses changes of what a broker reads at start alone, and of what it does not know.
pub fn check_broker_changes(changes: &[Change<'_>]) -> Result<(), ChangeError> {
    for one in changes {
        let name = one.name;
        match broker_property(name) {
            Some(_) if is_changeable(name) => {}
            Some(_) => return Err(ChangeError::Static(name.to_owned())),
            // What does not exist can be taken away: it may stem from another version.
            None if one.operation == Operation::Delete => {}
            None => {
                return Err(ChangeError::Unknown {
                    name: name.to_owned(),
                    suggestion: similar_broker_property(name),
                });
            }
        }
    }
    Ok(())
}

/// What `min.insync.replicas` may be changed to, where KIP-966 has its rule: one value for all brokers, which is always there.
pub fn check_min_insync(
    scope: BrokerScope,
    alteration: Alteration<'_>,
    own: &Overrides,
) -> Result<(), ChangeError> {
    let changes = alteration.changes();
    let change = changes.iter().find(|one| one.name == MIN_INSYNC);
    let is_left_out = matches!(alteration, Alteration::All(_)) && own.contains_key(MIN_INSYNC);
    match (scope, change) {
        (BrokerScope::Own, Some(_)) => Err(ChangeError::OneBrokersMinInsync),
        (BrokerScope::Cluster, Some(one)) if one.operation == Operation::Delete => {
            Err(ChangeError::NoMinInsync)
        }
        (BrokerScope::Cluster, None) if is_left_out => Err(ChangeError::NoMinInsync),
        _ => Ok(()),
    }
}

/// Checks settings of the run time by their rows.
fn check_values(settings: &Overrides) -> Result<(), ChangeError> {
    for (name, value) in settings {
        let Some(row) = broker_property(name) else {
            continue;
        };
        row.check(value).map_err(|reason| ChangeError::Invalid {
            name: name.clone(),
            value: value.clone(),
            reason,
        })?;
    }
    Ok(())
}

impl Dynamic {
    /// Without what this version does not know, may not change, or can no longer use; the names of those. Another version
    /// may have written them.
    #[must_use]
    pub fn usable(self) -> (Dynamic, Vec<String>) {
        let mut refused = Vec::new();
        let mut keep = |settings: Overrides| -> Overrides {
            let is_usable = |name: &str, value: &str| {
                is_changeable(name)
                    && broker_property(name).is_some_and(|row| row.check(value).is_ok())
            };
            let (usable, rest): (Overrides, Overrides) = settings
                .into_iter()
                .partition(|(name, value)| is_usable(name, value));
            refused.extend(rest.into_keys());
            usable
        };
        let usable = Dynamic {
            cluster: keep(self.cluster),
            own: keep(self.own),
        };
        (usable, refused)
    }
}

impl BrokerConfig {
    /// This configuration with other settings of the run time.
    pub fn with_dynamic(&self, dynamic: Dynamic) -> Result<BrokerConfig, ChangeError> {
        check_values(&dynamic.cluster)?;
        check_values(&dynamic.own)?;
        Ok(BrokerConfig::checked(self.values.with_dynamic(dynamic))?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties::topic_property;
    use super::*;

    fn own() -> Overrides {
        Overrides::from([("cleanup.policy".into(), "compact".into())])
    }

    #[track_caller]
    fn check(changes: &[(&str, Operation, Option<&str>)], expected: Result<&[(&str, &str)], &str>) {
        let changes: Vec<Change<'_>> = changes
            .iter()
            .map(|&(name, operation, value)| Change {
                name,
                operation,
                value,
            })
            .collect();
        let inherited = |_: &Property| Some("delete".to_owned());
        let outcome = change(
            &own(),
            Alteration::Each(&changes),
            topic_property,
            inherited,
        );
        let expected = expected
            .map(|pairs| {
                pairs
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect::<Overrides>()
            })
            .map_err(str::to_owned);
        assert_eq!(outcome.map_err(|error| error.to_string()), expected);
    }

    #[test]
    fn l86_operations() {
        use Operation::{Append, Delete, Set, Subtract};
        let policy = "cleanup.policy";
        check(&[], Ok(&[(policy, "compact")]));
        check(
            &[(policy, Set, Some(" delete "))],
            Ok(&[(policy, "delete")]),
        );
        check(&[(policy, Delete, None)], Ok(&[]));
        check(&[(policy, Delete, Some("x"))], Ok(&[]));
        check(
            &[(policy, Append, Some("delete, compact"))],
            Ok(&[(policy, "compact,delete")]),
        );
        check(&[(policy, Subtract, Some("compact"))], Ok(&[(policy, "")]));
        check(
            &[("leader.replication.throttled.replicas", Append, Some("0:1"))],
            Ok(&[
                (policy, "compact"),
                ("leader.replication.throttled.replicas", "delete,0:1"),
            ]),
        );
        check(
            &[("retention.ms", Append, Some("1"))],
            Err(
                "retention.ms is not a list: it can be set or deleted, not appended to or subtracted from",
            ),
        );
        check(
            &[(policy, Set, None)],
            Err("cleanup.policy has no value: give one, or delete it"),
        );
        check(
            &[(policy, Set, Some("x")), (policy, Delete, None)],
            Err("cleanup.policy is named twice: name it once"),
        );
    }

    #[test]
    fn values_have_a_longest_length() {
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        let name = "leader.replication.throttled.replicas";
        let one = Change {
            name,
            operation: Operation::Append,
            value: Some(&long),
        };
        let all = Alteration::All(std::slice::from_ref(&one));
        let outcome = change(&Overrides::new(), all, topic_property, |_| None);
        assert!(matches!(outcome, Err(ChangeError::Invalid { .. })));
    }

    #[test]
    fn what_can_be_changed_is_in_the_table() {
        assert!(CHANGEABLE.is_sorted());
        for name in CHANGEABLE {
            let row = broker_property(name).expect("a row");
            assert!(!row.is_sensitive(), "{name}: secrets would be stored");
        }
    }

    #[track_caller]
    fn check_broker(name: &str, operation: Operation, expected: Result<(), &str>) {
        let one = Change {
            name,
            operation,
            value: Some("1"),
        };
        let outcome = check_broker_changes(&[one]).map_err(|error| error.to_string());
        assert_eq!(outcome, expected.map_err(str::to_owned));
    }

    #[test]
    fn the_broker_does_not_take_what_it_reads_at_start() {
        check_broker("message.max.bytes", Operation::Set, Ok(()));
        check_broker("no.such", Operation::Delete, Ok(()));
        check_broker(
            "num.partitions",
            Operation::Set,
            Err("num.partitions cannot be changed at run time: give it at start"),
        );
        check_broker(
            "log.retension.ms",
            Operation::Set,
            Err("log.retension.ms: unknown property. Did you mean log.retention.ms?"),
        );
    }

    #[test]
    fn this_brokers_settings_are_the_strongest() {
        let start = [super::super::Setting::new(
            "message.max.bytes",
            "10",
            "--set",
        )];
        let config = BrokerConfig::from_settings(&start).unwrap().0;
        let name = || "message.max.bytes".to_owned();
        let cluster = Overrides::from([(name(), "20".to_owned())]);
        let own = Overrides::from([(name(), "30".to_owned())]);
        let max = |dynamic: Dynamic| config.with_dynamic(dynamic).unwrap();
        let none = max(Dynamic::default());
        assert_eq!(none.topic_defaults.max_message_bytes, 10);
        let default = Dynamic {
            cluster: cluster.clone(),
            own: Overrides::new(),
        };
        assert_eq!(max(default).topic_defaults.max_message_bytes, 20);
        let both = max(Dynamic { cluster, own });
        assert_eq!(
            (
                both.topic_defaults.max_message_bytes,
                both.message_max_bytes
            ),
            (30, 30)
        );
        let bad = Dynamic {
            cluster: Overrides::from([(name(), "x".to_owned())]),
            own: Overrides::new(),
        };
        let error = config.with_dynamic(bad.clone()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message.max.bytes=x: must be a whole number"
        );
        let (usable, refused) = bad.usable();
        assert_eq!((usable, refused), (Dynamic::default(), vec![name()]));
    }
}
