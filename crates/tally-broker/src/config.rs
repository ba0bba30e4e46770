//! What the broker was told to do: properties turned into typed fields, once, at start.
//!
//! Invariants: nothing is read that has no row in [`properties`]; a value that is accepted is honoured, or said not to be
//! by a [`Warning`]; a value that would promise something that is not built is refused. Not here: flags, terminals and
//! reading the file (the `tally` crate hands over names, values and texts).
//!
//! From: user-experience of properties (Kafka's names and defaults), log-and-fetch rules 12 and 13, groups rule 14.

mod address;
mod consumer_groups;
mod describe;
mod dynamic;
mod environment;
mod file;
pub mod properties;
pub mod property;
mod resources;
mod topic;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

pub use self::address::Address;
pub(crate) use self::consumer_groups::of_group as consumer_settings_of;
pub use self::describe::{
    ConfigEntry, ConfigSource, ConfigSynonym, describe_broker, describe_cluster_defaults,
    describe_resource, describe_topic,
};
pub use self::dynamic::{
    Alteration, BrokerScope, CHANGEABLE, Change, ChangeError, Dynamic, FOR_MOVES, Operation,
    change, check_broker_changes, check_min_insync, is_changeable,
};
pub use self::environment::{FromEnvironment, read_environment};
pub use self::file::read_properties;
pub use self::resources::ResourceKind;
pub(crate) use self::topic::inherited;
pub use self::topic::{
    CleanupPolicy, Overrides, TimestampType, TopicConfig, TopicConfigError, not_honoured,
};
pub use self::values::Values;

use self::property::Status;
use crate::quotas::Windows;
use tally_groups as groups;

/// How properties are given at start, the weakest first: of one property the strongest counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// In a file.
    File,
    /// By an environment variable.
    Environment,
    /// By a flag.
    CommandLine,
}

/// One property as it was given: `origin` says where, for messages (`--set`, `--listen`, `server.properties:14`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// A name of the table, or an alias of one.
    pub name: String,
    /// Its value, as text.
    pub value: String,
    /// Where it was given.
    pub origin: String,
    /// How it was given.
    pub level: Level,
}

impl Setting {
    /// A property given on the command line by `origin`.
    pub fn new(
        name: impl Into<String>,
        value: impl Into<String>,
        origin: impl Into<String>,
    ) -> Setting {
        Setting {
            name: name.into(),
            value: value.into(),
            origin: origin.into(),
            level: Level::CommandLine,
        }
    }

    /// The same, given in another way.
    #[must_use]
    pub fn at(self, level: Level) -> Setting {
        Setting { level, ..self }
    }
}

/// Why the settings cannot be used. The text is for the person who gave them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such property.
    #[error("{name}: unknown property.{} ({origin})", suggestion.map(|name| format!(" Did you mean {name}?")).unwrap_or_default())]
    Unknown {
        /// What was given.
        name: String,
        /// Where.
        origin: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// The value cannot be used.
    #[error("{name}={value}: {reason} ({origin})")]
    Invalid {
        /// The property.
        name: String,
        /// Its value, hidden when it is a secret.
        value: String,
        /// Where it was given.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// One property was given two values by two names or two ways.
    #[error("{name} is given twice: {first} and {second}")]
    Twice {
        /// The property.
        name: String,
        /// `value (origin)` of one.
        first: String,
        /// `value (origin)` of the other.
        second: String,
    },
}

/// Something a person should know at start, although the broker goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warning {
    /// Known properties that do nothing yet.
    NotYet(Vec<String>),
    /// Real Kafka properties without a meaning here.
    Ignored(Vec<String>),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (names, one, many) = match self {
            Warning::NotYet(names) => (names, "is known but does", "are known but do"),
            Warning::Ignored(names) => (names, "has", "have"),
        };
        let (noun, verb) = if names.len() == 1 {
            ("property", one)
        } else {
            ("properties", many)
        };
        let rest = match self {
            Warning::NotYet(_) => "nothing yet",
            Warning::Ignored(_) => "no meaning here",
        };
        write!(
            f,
            "{} {noun} {verb} {rest} ({})",
            names.len(),
            names.join(", ")
        )
    }
}

/// What an answer of the broker promises (exactly-once rule 8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Nothing is kept when the process ends.
    Memory,
    /// Answered from the page cache: survives kill -9, not power loss.
    Os,
    /// Commits, committed offsets and producer epochs are synced, with all that they decide over; other records are
    /// answered from the page cache.
    Commit,
    /// Everything is synced before it is answered.
    Always,
}

impl Durability {
    const ALL: [Durability; 4] = [
        Durability::Memory,
        Durability::Os,
        Durability::Commit,
        Durability::Always,
    ];

    /// The mode of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Durability> {
        Durability::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The name of the mode, as `tally.durability` takes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Os => "os",
            Durability::Commit => "commit",
            Durability::Always => "always",
        }
    }

    /// What it survives, for the banner.
    #[must_use]
    pub const fn promise(self) -> &'static str {
        match self {
            Durability::Memory => "all data is gone when this process ends",
            Durability::Os => "survives kill -9, not power loss",
            Durability::Commit => "a committed transaction survives power loss",
            Durability::Always => "everything acknowledged survives power loss",
        }
    }
}

/// The broker's configuration. Times are milliseconds and sizes bytes, as the field names say.
///
/// Each field is the property of the same name with dots for underscores, unless it says otherwise.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Number of this broker.
    pub node_id: i32,
    /// `tally.cluster.id`: for a new data directory; `None`: whatever the data says.
    pub cluster_id: Option<String>,
    /// `listeners`: the one address to listen on; port 0 chooses.
    pub listen: Address,
    /// `advertised.listeners`, when given: see [`BrokerConfig::advertised`].
    pub advertise: Option<Address>,
    /// `tally.journal.bytes`: the size of the journal, in the modes that have one.
    pub journal_bytes: u64,
    /// `log.dirs`: the data directory.
    pub data_dir: PathBuf,
    /// `tally.http.listeners`; `None` is off.
    pub http: Option<Address>,
    /// `tally.durability`.
    pub durability: Durability,
    /// `tally.shards`; `None`: by the number of cores.
    pub shards: Option<usize>,
    /// `tally.transaction.version`: 0 to 2.
    pub transaction_version: i16,
    /// `unstable.api.versions.enable`, or implied by two-phase commit: InitProducerId 6 is served.
    pub unstable_api_versions: bool,
    /// `transaction.two.phase.commit.enable` (KIP-939).
    pub two_phase_commit: bool,
    /// `tally.transaction.monitor.interval.ms` (B-17).
    pub monitor_interval_ms: u64,
    /// `tally.transaction.monitor.late.ms` (B-17).
    pub monitor_late_ms: u64,
    /// `tally.guard.ordered.sessions` (D-8).
    pub guard_ordered_sessions: bool,
    /// `tally.clamp.replication.factor`.
    pub clamp_replication_factor: bool,
    /// Partitions of a topic that does not say.
    pub num_partitions: i32,
    /// Replicas of a topic that does not say.
    pub default_replication_factor: i32,
    /// Whether Metadata may create topics.
    pub auto_create_topics_enable: bool,
    /// Whether DeleteTopics is allowed.
    pub delete_topic_enable: bool,
    /// Largest batch of a topic that does not say.
    pub message_max_bytes: i32,
    /// Largest request frame.
    pub socket_request_max_bytes: usize,
    /// Bytes of large requests that may wait for their answers; below 1: a share of the machine's memory.
    pub queued_max_request_bytes: i64,
    /// Most bytes in a Fetch response.
    pub fetch_max_bytes: usize,
    /// Most fetch sessions remembered; 0: every fetch is a full one.
    pub fetch_session_slots: usize,
    /// Most connections.
    pub max_connections: usize,
    /// Connections that one address may have.
    pub max_connections_per_ip: usize,
    /// Connections that these addresses may have instead.
    pub max_connections_per_ip_overrides: BTreeMap<IpAddr, usize>,
    /// Idle connections are closed after this; below 0: never.
    pub connections_max_idle_ms: i64,
    /// Shortest session of a group member.
    pub group_min_session_timeout_ms: i32,
    /// Longest session of a group member.
    pub group_max_session_timeout_ms: i32,
    /// Wait for more members in the first rebalance.
    pub group_initial_rebalance_delay_ms: i32,
    /// Most members of a group.
    pub group_max_size: usize,
    /// What holds for a group of the `consumer` protocol that has no numbers of its own.
    pub consumer_groups: groups::ConsumerSettings,
    /// Most members of a group of the `consumer` protocol.
    pub group_consumer_max_size: usize,
    /// The assignors that members may ask for.
    pub group_consumer_assignors: groups::Assignors,
    /// Whether a group with members may change its protocol.
    pub group_consumer_migration_policy: groups::MigrationPolicy,
    /// Longest metadata of a committed offset.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval_ms: u64,
    /// Partitions of `__consumer_offsets` when it is created.
    pub offsets_topic_num_partitions: i32,
    /// Segment size of `__consumer_offsets`.
    pub offsets_topic_segment_bytes: i32,
    /// How often old segments are looked for.
    pub log_retention_check_interval_ms: u64,
    /// How often `flush.ms` is looked at; without a limit each partition is synced at its time.
    pub log_flush_scheduler_interval_ms: u64,
    /// Whether older records of a key go at all.
    pub log_cleaner_enable: bool,
    /// How long compaction waits when there was nothing to do.
    pub log_cleaner_backoff_ms: u64,
    /// Memory for the keys of all passes together.
    pub log_cleaner_dedupe_buffer_size: usize,
    /// Passes at once.
    pub log_cleaner_threads: usize,
    /// Longest transaction a producer may ask for.
    pub transaction_max_timeout_ms: i32,
    /// How long an idle transactional id lives.
    pub transactional_id_expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub transaction_abort_timed_out_interval_ms: u64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    pub transaction_remove_expired_interval_ms: u64,
    /// Partitions of `__transaction_state` when it is created.
    pub transaction_state_log_num_partitions: i32,
    /// Segment size of `__transaction_state`.
    pub transaction_state_log_segment_bytes: i32,
    /// How long a partition remembers an idle producer.
    pub producer_id_expiration_ms: u64,
    /// How often idle producers are forgotten.
    pub producer_id_expiration_check_interval_ms: u64,
    /// `quota.window.num` and `quota.window.size.seconds`.
    pub(crate) quota_windows: Windows,
    /// What a topic has that sets nothing itself.
    pub topic_defaults: Arc<TopicConfig>,
    /// Every property, for DescribeConfigs and for the defaults of topics.
    pub values: Values,
}

impl BrokerConfig {
    /// Turns settings into a configuration. Of the same name given the same way the last one counts.
    pub fn from_settings(
        settings: &[Setting],
    ) -> Result<(BrokerConfig, Vec<Warning>), ConfigError> {
        let config = BrokerConfig::checked(Values::collect(settings)?)?;
        let warnings = warnings(&config.values);
        Ok((config, warnings))
    }

    /// A configuration that can be used, of values that passed their rows' checks.
    fn checked(values: Values) -> Result<BrokerConfig, ConfigError> {
        refuse_what_is_not_built(&values)?;
        let config = BrokerConfig::from_values(values)?;
        config.check_pairs()?;
        Ok(config)
    }

    fn from_values(values: Values) -> Result<BrokerConfig, ConfigError> {
        let topic_defaults = TopicConfig::parse(&values, [])
            .map_err(|error| values.invalid(error.property(), error.to_string()))?
            .0;
        Ok(BrokerConfig {
            node_id: values.int("node.id"),
            cluster_id: cluster_id(&values)?,
            listen: address::listener(&values)?,
            advertise: address::advertised(&values)?,
            data_dir: data_dir(&values)?,
            http: address::http(&values)?,
            durability: durability(&values)?,
            journal_bytes: values.unsigned("tally.journal.bytes"),
            shards: shards(&values),
            transaction_version: values.short("tally.transaction.version"),
            unstable_api_versions: values.boolean("unstable.api.versions.enable")
                || values.boolean("transaction.two.phase.commit.enable"),
            two_phase_commit: values.boolean("transaction.two.phase.commit.enable"),
            monitor_interval_ms: values.unsigned("tally.transaction.monitor.interval.ms"),
            monitor_late_ms: values.unsigned("tally.transaction.monitor.late.ms"),
            guard_ordered_sessions: values.boolean("tally.guard.ordered.sessions"),
            clamp_replication_factor: values.boolean("tally.clamp.replication.factor"),
            num_partitions: values.int("num.partitions"),
            default_replication_factor: values.int("default.replication.factor"),
            auto_create_topics_enable: values.boolean("auto.create.topics.enable"),
            delete_topic_enable: values.boolean("delete.topic.enable"),
            message_max_bytes: values.int("message.max.bytes"),
            socket_request_max_bytes: values.unsigned("socket.request.max.bytes"),
            queued_max_request_bytes: values.long("queued.max.request.bytes"),
            fetch_max_bytes: values.unsigned("fetch.max.bytes"),
            fetch_session_slots: values.unsigned("max.incremental.fetch.session.cache.slots"),
            max_connections: values.unsigned("max.connections"),
            max_connections_per_ip: values.unsigned("max.connections.per.ip"),
            max_connections_per_ip_overrides: address::connection_limits(&values)?,
            connections_max_idle_ms: values.long("connections.max.idle.ms"),
            group_min_session_timeout_ms: values.int("group.min.session.timeout.ms"),
            group_max_session_timeout_ms: values.int("group.max.session.timeout.ms"),
            group_initial_rebalance_delay_ms: values.int("group.initial.rebalance.delay.ms"),
            group_max_size: values.unsigned("group.max.size"),
            consumer_groups: consumer_groups::defaults(&values),
            group_consumer_max_size: values.unsigned("group.consumer.max.size"),
            group_consumer_assignors: consumer_groups::assignors(&values),
            group_consumer_migration_policy: consumer_groups::migration_policy(&values),
            offset_metadata_max_bytes: values.unsigned("offset.metadata.max.bytes"),
            offsets_retention_ms: i64::from(values.int("offsets.retention.minutes")) * 60_000,
            offsets_retention_check_interval_ms: values
                .unsigned("offsets.retention.check.interval.ms"),
            offsets_topic_num_partitions: values.int("offsets.topic.num.partitions"),
            offsets_topic_segment_bytes: values.int("offsets.topic.segment.bytes"),
            log_retention_check_interval_ms: values.unsigned("log.retention.check.interval.ms"),
            log_flush_scheduler_interval_ms: values.unsigned("log.flush.scheduler.interval.ms"),
            log_cleaner_enable: values.boolean("log.cleaner.enable"),
            log_cleaner_backoff_ms: values.unsigned("log.cleaner.backoff.ms"),
            log_cleaner_dedupe_buffer_size: values.unsigned("log.cleaner.dedupe.buffer.size"),
            log_cleaner_threads: values.unsigned("log.cleaner.threads"),
            transaction_max_timeout_ms: values.int("transaction.max.timeout.ms"),
            transactional_id_expiration_ms: i64::from(values.int("transactional.id.expiration.ms")),
            transaction_abort_timed_out_interval_ms: values
                .unsigned("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
            transaction_remove_expired_interval_ms: values
                .unsigned("transaction.remove.expired.transaction.cleanup.interval.ms"),
            transaction_state_log_num_partitions: values
                .int("transaction.state.log.num.partitions"),
            transaction_state_log_segment_bytes: values.int("transaction.state.log.segment.bytes"),
            quota_windows: quota_windows(&values),
            producer_id_expiration_ms: values.unsigned("producer.id.expiration.ms"),
            producer_id_expiration_check_interval_ms: values
                .unsigned("producer.id.expiration.check.interval.ms"),
            topic_defaults: Arc::new(topic_defaults),
            values,
        })
    }

    fn check_pairs(&self) -> Result<(), ConfigError> {
        if self.group_min_session_timeout_ms > self.group_max_session_timeout_ms {
            return Err(self.values.invalid(
                "group.min.session.timeout.ms",
                format!(
                    "exceeds group.max.session.timeout.ms {}",
                    self.group_max_session_timeout_ms
                ),
            ));
        }
        if self.default_replication_factor > 1 && !self.clamp_replication_factor {
            return Err(self.values.invalid(
                "default.replication.factor",
                "there is 1 broker; use 1, or tally.clamp.replication.factor=true".to_owned(),
            ));
        }
        Ok(())
    }

    /// What clients are told to connect to, once the listener is bound: what was given (port 0: the bound port), else the
    /// address that is listened on, or this host's name when that is a wildcard.
    #[must_use]
    pub fn advertised(&self, bound: std::net::SocketAddr) -> Address {
        match &self.advertise {
            Some(given) => Address {
                host: given.host.clone(),
                port: if given.port == 0 {
                    bound.port()
                } else {
                    given.port
                },
            },
            None if bound.ip().is_unspecified() => Address {
                host: address::host_name(),
                port: bound.port(),
            },
            None => Address {
                host: self.listen.host.clone(),
                port: bound.port(),
            },
        }
    }
}

impl Default for BrokerConfig {
    /// What a broker does that is told nothing.
    fn default() -> BrokerConfig {
        BrokerConfig::from_settings(&[])
            .expect("the defaults of the table are valid, as its tests show")
            .0
    }
}

/// Values that promise what is not there: accepting them quietly would be a lie about safety.
fn refuse_what_is_not_built(values: &Values) -> Result<(), ConfigError> {
    let only = [
        ("tally.produce.validation", "full", "only full is built yet"),
        (
            "compression.type",
            "producer",
            "recompression by the broker is not built yet; use producer",
        ),
        (
            "authorizer.class.name",
            "",
            "access control is not built yet, so it would protect nothing",
        ),
    ];
    for (name, built, reason) in only {
        if values.text(name).is_some_and(|value| value != built) {
            return Err(values.invalid(name, reason.to_owned()));
        }
    }
    Ok(())
}

fn cluster_id(values: &Values) -> Result<Option<String>, ConfigError> {
    const NAME: &str = "tally.cluster.id";
    match values.text(NAME) {
        None => Ok(None),
        Some(id) if (1..=255).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Some(id.to_owned()))
        }
        Some(_) => {
            Err(values.invalid(NAME, "must be 1 to 255 visible ASCII characters".to_owned()))
        }
    }
}

fn durability(values: &Values) -> Result<Durability, ConfigError> {
    let name = values.text("tally.durability").unwrap_or_default();
    Durability::named(name)
        .ok_or_else(|| values.invalid("tally.durability", "is not a mode".to_owned()))
}

fn data_dir(values: &Values) -> Result<PathBuf, ConfigError> {
    let mut directories = property::list(values.text("log.dirs").unwrap_or_default());
    match (directories.next(), directories.next()) {
        (Some(directory), None) => Ok(PathBuf::from(directory)),
        (None, _) => Err(values.invalid("log.dirs", "must name a directory".to_owned())),
        (Some(_), Some(_)) => Err(values.invalid(
            "log.dirs",
            "more than one data directory is not built yet".to_owned(),
        )),
    }
}

fn shards(values: &Values) -> Option<usize> {
    let count = usize::try_from(values.int("tally.shards")).unwrap_or(0);
    (count > 0).then_some(count)
}

fn quota_windows(values: &Values) -> Windows {
    let number = |name| u64::try_from(values.int(name)).unwrap_or(1);
    Windows::new(
        number("quota.window.num"),
        number("quota.window.size.seconds"),
    )
}

/// One warning per status, so that a whole file of properties does not flood the first screen.
fn warnings(values: &Values) -> Vec<Warning> {
    let named = |status| -> Vec<String> {
        values
            .given()
            .filter(|(name, _)| {
                properties::broker_property(name).is_some_and(|row| row.status == status)
            })
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    [
        Warning::NotYet(named(Status::NotYet)),
        Warning::Ignored(named(Status::Ignored)),
    ]
    .into_iter()
    .filter(|warning| match warning {
        Warning::NotYet(names) | Warning::Ignored(names) => !names.is_empty(),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Vec<Setting> {
        pairs
            .iter()
            .map(|(name, value)| Setting::new(*name, *value, "--set"))
            .collect()
    }

    #[track_caller]
    fn config(pairs: &[(&str, &str)]) -> (BrokerConfig, Vec<String>) {
        let (config, warnings) = BrokerConfig::from_settings(&settings(pairs)).unwrap();
        (config, warnings.iter().map(ToString::to_string).collect())
    }

    #[track_caller]
    fn check_refused(pairs: &[(&str, &str)], message: &str) {
        let error = BrokerConfig::from_settings(&settings(pairs)).err();
        assert_eq!(
            error.map(|error| error.to_string()).as_deref(),
            Some(message)
        );
    }

    #[test]
    fn nothing_given_is_kafkas_defaults_on_loopback() {
        let (config, warnings) = config(&[]);
        assert_eq!(config.node_id, 1);
        assert_eq!(config.listen.to_string(), "127.0.0.1:9092");
        assert_eq!(config.http, None);
        assert_eq!(config.data_dir, PathBuf::from("./tally-data"));
        assert_eq!(config.num_partitions, 1);
        assert_eq!(config.message_max_bytes, 1_048_588);
        assert_eq!(config.topic_defaults.segment_bytes, 1 << 30);
        assert_eq!(config.topic_defaults.retention_ms, 604_800_000);
        assert!(warnings.is_empty());
    }

    #[test]
    fn old_names_and_short_names_are_the_same_property() {
        let (config, _) = config(&[
            ("broker.id", "7"),
            ("segment.bytes", "2097152"),
            ("log.dir", "/data"),
        ]);
        assert_eq!(config.node_id, 7);
        assert_eq!(config.topic_defaults.segment_bytes, 2_097_152);
        assert_eq!(config.data_dir, PathBuf::from("/data"));
        check_refused(
            &[("broker.id", "7"), ("node.id", "8")],
            "node.id is given twice: 7 (--set) and 8 (--set)",
        );
    }

    #[test]
    fn the_last_of_one_name_counts() {
        let (config, _) = config(&[("num.partitions", "2"), ("num.partitions", " 3 ")]);
        assert_eq!(config.num_partitions, 3);
    }

    #[test]
    fn a_stronger_level_wins_whatever_the_order_and_the_name() {
        let given = [
            Setting::new("node.id", "3", "--node-id"),
            Setting::new("num.partitions", "2", "f:1").at(Level::File),
            Setting::new("broker.id", "1", "f:2").at(Level::File),
            Setting::new("num.partitions", "4", "f:3").at(Level::File),
            Setting::new("node.id", "2", "environment KAFKA_NODE_ID").at(Level::Environment),
        ];
        let (config, _) = BrokerConfig::from_settings(&given).unwrap();
        assert_eq!(config.node_id, 3);
        assert_eq!(config.num_partitions, 4);
        assert_eq!(config.values.origin("num.partitions"), Some("f:3"));
        assert_eq!(config.values.origin("node.id"), Some("--node-id"));
    }

    #[test]
    fn two_names_for_one_property_in_a_file_are_refused() {
        let given = [
            Setting::new("broker.id", "1", "f:1").at(Level::File),
            Setting::new("node.id", "2", "f:2").at(Level::File),
        ];
        assert_eq!(
            BrokerConfig::from_settings(&given).unwrap_err().to_string(),
            "node.id is given twice: 1 (f:1) and 2 (f:2)"
        );
    }

    #[test]
    fn a_cluster_id_is_what_fits_in_a_line() {
        let (named, _) = config(&[("tally.cluster.id", "4L6g3nShT-eMCtK--X86sw")]);
        assert_eq!(named.cluster_id.as_deref(), Some("4L6g3nShT-eMCtK--X86sw"));
        check_refused(
            &[("tally.cluster.id", "a b")],
            "tally.cluster.id=a b: must be 1 to 255 visible ASCII characters (--set)",
        );
    }

    #[test]
    fn a_flag_and_a_setting_that_disagree_are_refused() {
        let given = [
            Setting::new("node.id", "1", "--node-id"),
            Setting::new("node.id", "2", "--set"),
        ];
        assert!(matches!(
            BrokerConfig::from_settings(&given),
            Err(ConfigError::Twice { .. })
        ));
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        check_refused(
            &[("log.retension.ms", "1")],
            "log.retension.ms: unknown property. Did you mean log.retention.ms? (--set)",
        );
        check_refused(&[("x", "1")], "x: unknown property. (--set)");
        check_refused(
            &[("num.partitions", "0")],
            "num.partitions=0: must be at least 1 (--set)",
        );
        check_refused(
            &[("compression.type", "zstd")],
            "compression.type=zstd: recompression by the broker is not built yet; use producer (--set)",
        );
        check_refused(
            &[
                ("ssl.key.password", "secret"),
                ("group.min.session.timeout.ms", "2000000"),
            ],
            "group.min.session.timeout.ms=2000000: exceeds group.max.session.timeout.ms 1800000 (--set)",
        );
        check_refused(
            &[("default.replication.factor", "3")],
            "default.replication.factor=3: there is 1 broker; use 1, or tally.clamp.replication.factor=true (--set)",
        );
    }

    #[test]
    fn every_mode_of_durability_has_its_name() {
        for mode in Durability::ALL {
            assert_eq!(Durability::named(mode.name()), Some(mode));
        }
    }

    #[test]
    fn properties_without_effect_are_said_in_one_line_each() {
        let (_, warnings) = config(&[
            ("broker.rack", "r1"),
            ("log.segment.delete.delay.ms", "1"),
            ("num.io.threads", "8"),
            ("process.roles", "broker,controller"),
            ("controller.quorum.voters", "1@localhost:9093"),
            ("auto.create.topics.enable", "false"),
        ]);
        assert_eq!(
            warnings,
            [
                "1 property is known but does nothing yet (broker.rack)",
                "4 properties have no meaning here (controller.quorum.voters, log.segment.delete.delay.ms, num.io.threads, process.roles)",
            ]
        );
    }

    #[test]
    fn the_advertised_address_follows_the_listener() {
        let bound = |text: &str| text.parse().unwrap();
        let (default, _) = config(&[("listeners", "127.0.0.1:0")]);
        assert_eq!(
            default.advertised(bound("127.0.0.1:4000")).to_string(),
            "127.0.0.1:4000"
        );
        let (given, _) = config(&[("advertised.listeners", "PLAINTEXT://broker.example:0")]);
        assert_eq!(
            given.advertised(bound("127.0.0.1:4000")).to_string(),
            "broker.example:4000"
        );
        let (all, _) = config(&[("listeners", "PLAINTEXT://:9092")]);
        let told = all.advertised(bound("0.0.0.0:9092"));
        assert_eq!(told.host, address::host_name());
    }
}
