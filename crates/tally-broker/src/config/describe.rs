//! Properties as DescribeConfigs lists them: value, where it comes from, what else would have given it.
//!
//! From log-and-fetch rule 11.5. The chain of sources: the topic's or group's own value, what was set at run time for this
//! broker, for all brokers, what was given at start, the default.

use super::properties::BROKER;
use super::property::{Kind, Property};
use super::topic::{self, Overrides};
use super::{BrokerConfig, FOR_MOVES, Values, is_changeable};

/// Where a value comes from, by its number on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i8)]
pub enum ConfigSource {
    /// The topic's own setting.
    Topic = 1,
    /// Set at run time for this broker.
    DynamicBroker = 2,
    /// Set at run time for all brokers.
    DynamicDefaultBroker = 3,
    /// Given to the broker at start.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
    /// A logger's level.
    BrokerLogger = 6,
    /// A subscription's own setting.
    ClientMetrics = 7,
    /// The group's own setting.
    Group = 8,
}

impl ConfigSource {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i8 {
        self as i8
    }
}

/// One way by which a property got or would have got its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigSynonym {
    /// The property that gives it.
    pub name: String,
    /// The value it gives; `None` when it is a secret.
    pub value: Option<String>,
    /// Where that comes from.
    pub source: ConfigSource,
}

/// One property with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigEntry {
    /// The property.
    pub name: String,
    /// The value that holds; `None` when there is none or it is a secret.
    pub value: Option<String>,
    /// Its type.
    pub kind: Kind,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Whether the value is a secret.
    pub sensitive: bool,
    /// What the property is for.
    pub documentation: &'static str,
    /// All that give it a value, the strongest first.
    pub synonyms: Vec<ConfigSynonym>,
}

impl ConfigEntry {
    /// Whether nobody set it (what v0 asks).
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.source == ConfigSource::Default
    }
}

/// A topic's properties, by name.
#[must_use]
pub fn describe_topic(broker: &BrokerConfig, overrides: &Overrides) -> Vec<ConfigEntry> {
    topic::shown()
        .map(|row| topic_entry(row, &broker.values, overrides))
        .collect()
}

/// The broker's properties, by name; those under a prefix and those for moves only when they were given.
#[must_use]
pub fn describe_broker(broker: &BrokerConfig) -> Vec<ConfigEntry> {
    let rows = BROKER
        .iter()
        .filter(|row| !row.name.ends_with('*'))
        .filter(|row| !FOR_MOVES.contains(&row.name) || broker.values.text(row.name).is_some())
        .map(|row| broker_entry(row, row.name, &broker.values));
    let under_prefix = broker.values.given().filter_map(|(name, _)| {
        let row = super::properties::broker_property(name)?;
        row.name
            .ends_with('*')
            .then(|| broker_entry(row, name, &broker.values))
    });
    let mut entries: Vec<ConfigEntry> = rows.chain(under_prefix).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

/// What was set at run time for all brokers, by name: what DescribeConfigs shows of the broker without a number.
#[must_use]
pub fn describe_cluster_defaults(broker: &BrokerConfig) -> Vec<ConfigEntry> {
    let cluster = &broker.values.dynamic().cluster;
    let row_of = |name: &String| super::properties::broker_property(name);
    cluster
        .iter()
        .filter_map(|(name, value)| {
            let row = row_of(name)?;
            let value = (!row.is_sensitive()).then(|| value.clone());
            let synonym = ConfigSynonym {
                name: name.clone(),
                value: value.clone(),
                source: ConfigSource::DynamicDefaultBroker,
            };
            Some(ConfigEntry {
                name: name.clone(),
                value,
                kind: row.kind,
                source: ConfigSource::DynamicDefaultBroker,
                read_only: !is_changeable(name),
                sensitive: row.is_sensitive(),
                documentation: row.text,
                synonyms: vec![synonym],
            })
        })
        .collect()
}

/// The properties of a group or of a subscription to client metrics, by name.
#[must_use]
pub fn describe_resource(
    broker: &BrokerConfig,
    (rows, source): (&'static [Property], ConfigSource),
    own: &Overrides,
) -> Vec<ConfigEntry> {
    let entry = |row| own_entry(row, &broker.values, own, source);
    rows.iter().map(entry).collect()
}

fn topic_entry(row: &'static Property, broker: &Values, overrides: &Overrides) -> ConfigEntry {
    own_entry(row, broker, overrides, ConfigSource::Topic)
}

/// A property that may be set for the thing itself, over the broker's.
fn own_entry(
    row: &'static Property,
    broker: &Values,
    own: &Overrides,
    own_source: ConfigSource,
) -> ConfigEntry {
    let own = own.get(row.name);
    let mut inherited: Vec<ConfigSynonym> = row
        .synonyms
        .iter()
        .flat_map(|name| broker_synonyms(name, broker))
        .collect();
    // Set values are stronger than defaults, whichever name they were set by.
    inherited.sort_by_key(|synonym| synonym.source.code());
    let synonyms: Vec<ConfigSynonym> = own
        .map(|value| ConfigSynonym {
            name: row.name.to_owned(),
            value: Some(value.clone()),
            source: own_source,
        })
        .into_iter()
        .chain(inherited)
        .collect();
    let source = synonyms
        .first()
        .map_or(ConfigSource::Default, |synonym| synonym.source);
    ConfigEntry {
        name: row.name.to_owned(),
        value: own.cloned().or_else(|| topic::inherited(row, broker)),
        kind: row.kind,
        source,
        read_only: false,
        sensitive: row.is_sensitive(),
        documentation: row.text,
        synonyms,
    }
}

fn broker_entry(row: &'static Property, name: &str, broker: &Values) -> ConfigEntry {
    // Under a prefix any name may be a secret: what has no row of its own is not shown.
    let sensitive = row.is_sensitive() || row.name.ends_with('*');
    let hide = |value: &str| (!sensitive).then(|| value.to_owned());
    let names = in_units(name).unwrap_or(std::slice::from_ref(&name));
    let is_set = broker.text(name).is_some();
    let synonyms: Vec<ConfigSynonym> = names
        .iter()
        .filter(|_| is_set)
        .flat_map(|name| broker_synonyms(name, broker))
        .map(|synonym| ConfigSynonym {
            value: synonym.value.as_deref().and_then(hide),
            ..synonym
        })
        .collect();
    ConfigEntry {
        name: name.to_owned(),
        value: broker.text(name).and_then(hide),
        kind: row.kind,
        source: synonyms
            .first()
            .map_or(ConfigSource::Default, |synonym| synonym.source),
        read_only: !is_changeable(name),
        sensitive,
        documentation: row.text,
        synonyms,
    }
}

/// The properties that say the same as `name` in units as large or larger: where it is not set, they hold.
fn in_units(name: &str) -> Option<&'static [&'static str]> {
    const UNITS: [&[&str]; 3] = [
        &[
            "log.retention.ms",
            "log.retention.minutes",
            "log.retention.hours",
        ],
        &["log.roll.ms", "log.roll.hours"],
        &["log.roll.jitter.ms", "log.roll.jitter.hours"],
    ];
    UNITS.into_iter().find_map(|units| {
        let at = units.iter().position(|unit| *unit == name)?;
        Some(&units[at..])
    })
}

/// What was set for a broker's property, the strongest first, then its default.
fn broker_synonyms(name: &str, broker: &Values) -> impl Iterator<Item = ConfigSynonym> {
    let dynamic = broker.dynamic();
    let default = super::properties::broker_property(name).and_then(|row| row.default);
    [
        (
            dynamic.own.get(name).map(String::as_str),
            ConfigSource::DynamicBroker,
        ),
        (
            dynamic.cluster.get(name).map(String::as_str),
            ConfigSource::DynamicDefaultBroker,
        ),
        (broker.given_text(name), ConfigSource::StaticBroker),
        (default, ConfigSource::Default),
    ]
    .into_iter()
    .filter_map(|(value, source)| {
        Some(ConfigSynonym {
            name: name.to_owned(),
            value: Some(value?.to_owned()),
            source,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Setting, TopicConfig};
    use super::*;

    fn entry<'a>(entries: &'a [ConfigEntry], name: &str) -> &'a ConfigEntry {
        entries.iter().find(|entry| entry.name == name).unwrap()
    }

    #[test]
    fn a_topic_entry_names_its_whole_chain() {
        let given = [
            Setting::new("message.max.bytes", "2000", "--set"),
            Setting::new("log.retention.hours", "2", "--set"),
        ];
        let broker = BrokerConfig::from_settings(&given).unwrap().0;
        let own = [("max.message.bytes", Some("3000"))];
        let (_, overrides) = TopicConfig::parse(&broker.values, own).unwrap();
        let entries = describe_topic(&broker, &overrides);

        let bytes = entry(&entries, "max.message.bytes");
        assert_eq!(bytes.value.as_deref(), Some("3000"));
        assert_eq!(bytes.source, ConfigSource::Topic);
        let chain: Vec<_> = bytes
            .synonyms
            .iter()
            .map(|s| {
                (
                    s.name.as_str(),
                    s.value.as_deref().unwrap(),
                    s.source.code(),
                )
            })
            .collect();
        assert_eq!(
            chain,
            [
                ("max.message.bytes", "3000", 1),
                ("message.max.bytes", "2000", 4),
                ("message.max.bytes", "1048588", 5)
            ]
        );

        let retention = entry(&entries, "retention.ms");
        assert_eq!(retention.value.as_deref(), Some("7200000"));
        assert_eq!(retention.source, ConfigSource::StaticBroker);
        assert_eq!(
            entry(&entries, "cleanup.policy").source,
            ConfigSource::Default
        );
        assert!(
            entries
                .iter()
                .all(|entry| entry.name != "internal.segment.bytes")
        );
    }

    #[test]
    fn a_broker_entry_names_what_holds_without_it() {
        let names = |given: &[Setting], name: &str| -> Vec<(String, i8)> {
            let broker = BrokerConfig::from_settings(given).unwrap().0;
            let entries = describe_broker(&broker);
            let synonyms = &entry(&entries, name).synonyms;
            synonyms
                .iter()
                .map(|s| (s.name.clone(), s.source.code()))
                .collect()
        };
        let row = |name: &str, source| (name.to_owned(), source);
        let hours = || row("log.retention.hours", 5);
        assert_eq!(names(&[], "log.retention.ms"), []);
        assert_eq!(names(&[], "log.retention.hours"), [hours()]);
        let given = [Setting::new("log.retention.ms", "7200000", "--set")];
        assert_eq!(
            names(&given, "log.retention.ms"),
            [row("log.retention.ms", 4), hours()]
        );
        assert_eq!(names(&given, "log.retention.hours"), [hours()]);
    }

    #[test]
    fn secrets_are_never_shown() {
        let given = [
            Setting::new("ssl.key.password", "secret", "--set"),
            Setting::new("listener.name.a.sasl.jaas.config", "secret", "--set"),
            Setting::new("log.dir", "/data", "--set"),
        ];
        let broker = BrokerConfig::from_settings(&given).unwrap().0;
        let entries = describe_broker(&broker);
        for name in ["ssl.key.password", "listener.name.a.sasl.jaas.config"] {
            let secret = entry(&entries, name);
            assert!(secret.sensitive && secret.value.is_none(), "{name}");
            assert!(secret.synonyms.iter().all(|s| s.value.is_none()), "{name}");
        }
        let dirs = entry(&entries, "log.dirs");
        assert_eq!(dirs.value.as_deref(), Some("/data"));
        assert_eq!(dirs.source, ConfigSource::StaticBroker);
        assert!(entries.is_sorted_by(|a, b| a.name < b.name));
    }
}
