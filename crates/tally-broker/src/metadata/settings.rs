//! What is set at run time: of the broker, of topics, of groups and of subscriptions to client metrics (log-and-fetch rule
//! 11.5), kept in the metadata store.
//!
//! | key | value |
//! |---|---|
//! | `config/broker/ID/PROPERTY`, `config/broker//PROPERTY` | one setting of this broker, of all brokers |
//! | `config/group/NAME/PROPERTY`, `config/client-metrics/NAME/PROPERTY` | one setting of a group, of a subscription |
//!
//! Properties contain no `/`; names of groups and subscriptions may. Invariants: a change is durable before anybody sees
//! it; one change is carried to the shards before the next is made, so that they hear of them in order; the topics'
//! configurations always stand on the broker's newest. Shards are told without the writer's lock, which a shard may want.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use tally_protocol::ErrorCode;
use tally_storage::MetaError;

use super::{Metadata, NameError, OpenError, Topic, names, record};
use crate::config::properties::topic_property;
use crate::config::{
    Alteration, BrokerConfig, BrokerScope, ChangeError, Dynamic, Overrides, ResourceKind,
    TopicConfig, TopicConfigError, change, check_broker_changes, check_min_insync,
};

const PREFIX: &str = "config/";
const BROKER: &str = "broker";

/// Groups and subscriptions that may have settings of their own: each change writes all metadata anew.
const RESOURCES_MAX: usize = 1000;

/// The broker's configuration as it is now, and the settings of what is neither topic nor broker.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) config: Arc<BrokerConfig>,
    resources: BTreeMap<(ResourceKind, String), Overrides>,
}

/// Whether a change is made or only checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AlterMode {
    /// It is made.
    Apply,
    /// It is checked.
    Check,
}

/// Why settings are not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AlterError {
    /// There is no such topic.
    #[error("there is no topic {0}")]
    UnknownTopic(String),
    /// A topic has another name than that.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The changes make no sense.
    #[error(transparent)]
    Change(ChangeError),
    /// The broker's settings cannot be those.
    #[error(transparent)]
    Broker(ChangeError),
    /// The settings of a subscription to client metrics cannot be those.
    #[error(transparent)]
    Subscription(ChangeError),
    /// A topic's settings cannot be those.
    #[error(transparent)]
    Topic(#[from] TopicConfigError),
    /// A topic could not live with what the broker would give it.
    #[error("topic {topic}: {error}")]
    OtherTopic {
        /// The topic.
        topic: String,
        /// What is wrong.
        error: TopicConfigError,
    },
    /// The coordinators read their topics from the start.
    #[error("cleanup.policy of the internal topic {0} has to be compact")]
    Internal(String),
    /// Too many groups or subscriptions have settings.
    #[error("{RESOURCES_MAX} groups and subscriptions have settings of their own; delete some")]
    TooMany,
    /// The store failed; nothing has changed.
    #[error(transparent)]
    Store(#[from] MetaError),
}

impl AlterError {
    /// What a client is told.
    #[must_use]
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            AlterError::UnknownTopic(_) => ErrorCode::UnknownTopicOrPartition,
            AlterError::Name(_) => ErrorCode::InvalidTopicException,
            AlterError::Change(ChangeError::Twice(_) | ChangeError::Null(_) | ChangeError::Static(_))
            // As Kafka answers: what is wrong with a broker's value is an invalid request.
            | AlterError::Broker(_)
            | AlterError::Subscription(_)
            | AlterError::OtherTopic { .. } => ErrorCode::InvalidRequest,
            AlterError::Change(_) | AlterError::Topic(_) | AlterError::Internal(_) => {
                ErrorCode::InvalidConfig
            }
            AlterError::TooMany => ErrorCode::PolicyViolation,
            AlterError::Store(_) => ErrorCode::KafkaStorageError,
        }
    }
}

impl Settings {
    /// Reads what was set, and puts it over what was given at start. What this version cannot use is left alone and said.
    pub(super) fn read(
        entries: &BTreeMap<String, String>,
        config: Arc<BrokerConfig>,
    ) -> Result<Settings, OpenError> {
        let mut dynamic = Dynamic::default();
        let mut resources: BTreeMap<(ResourceKind, String), Overrides> = BTreeMap::new();
        let me = config.node_id.to_string();
        for (key, value) in entries {
            let Some(rest) = key.strip_prefix(PREFIX) else {
                continue;
            };
            let parts = rest
                .split_once('/')
                .and_then(|(kind, rest)| Some((kind, rest.rsplit_once('/')?)));
            let settings = match parts {
                Some((BROKER, ("", _))) => &mut dynamic.cluster,
                Some((BROKER, (name, _))) if name == me => &mut dynamic.own,
                Some((kind, (name, _))) if kind != BROKER => {
                    let kind = kind_of(kind).ok_or_else(|| record::unreadable(key, value))?;
                    resources.entry((kind, name.to_owned())).or_default()
                }
                _ => return Err(record::unreadable(key, value)),
            };
            if let Some((_, (_, property))) = parts {
                settings.insert(property.to_owned(), value.clone());
            }
        }
        if dynamic == Dynamic::default() {
            return Ok(Settings { config, resources });
        }
        let (usable, refused) = dynamic.usable();
        if !refused.is_empty() {
            tracing::warn!(
                properties = refused.join(", "),
                "settings of another version not used"
            );
        }
        let config = config.with_dynamic(usable).map_err(OpenError::Dynamic)?;
        Ok(Settings {
            config: Arc::new(config),
            resources,
        })
    }
}

impl Metadata {
    /// The broker's configuration as it is now: what can be set at run time is read here, each time.
    #[must_use]
    pub(crate) fn config(&self) -> Arc<BrokerConfig> {
        self.settings(|settings| Arc::clone(&settings.config))
    }

    /// The settings of a group or a subscription; empty when it has none.
    #[must_use]
    pub(crate) fn resource(&self, kind: ResourceKind, name: &str) -> Overrides {
        let key = (kind, name.to_owned());
        self.settings(|settings| settings.resources.get(&key).cloned().unwrap_or_default())
    }

    /// Names of the groups or subscriptions that have settings.
    #[must_use]
    pub(crate) fn resources(&self, kind: ResourceKind) -> Vec<String> {
        self.settings(|settings| {
            let of_kind = settings
                .resources
                .keys()
                .filter(|(other, _)| *other == kind);
            of_kind.map(|(_, name)| name.clone()).collect()
        })
    }

    /// Changes a topic's own settings. `configure` gets the changed topic when they are durable.
    pub(crate) fn alter_topic(
        &self,
        name: &str,
        mode: AlterMode,
        alteration: Alteration<'_>,
        configure: impl FnOnce(&Topic),
    ) -> Result<(), AlterError> {
        let _one_at_a_time = self.alteration();
        let mut writer = self.write();
        names::check(name)?;
        let Some(topic) = self.topic(name) else {
            return Err(AlterError::UnknownTopic(name.to_owned()));
        };
        let config = self.config();
        let inherited = |row: &_| crate::config::inherited(row, &config.values);
        let wanted = change(&topic.overrides, alteration, topic_property, inherited)
            .map_err(AlterError::Change)?;
        let pairs = wanted
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_str())));
        let (configs, overrides) = TopicConfig::parse(&config.values, pairs)?;
        let policy = configs.cleanup_policy;
        if topic.internal && (policy.delete || !policy.compact) {
            return Err(AlterError::Internal(name.to_owned()));
        }
        if mode == AlterMode::Check || overrides == topic.overrides {
            return Ok(());
        }
        let key = |property: &str| record::setting_key(name, property);
        writer.commit(&differences(&topic.overrides, &overrides, key))?;
        let changed = Topic {
            configs: Arc::new(configs),
            overrides,
            ..(*topic).clone()
        };
        let changed = self.change(|image| image.insert(changed));
        drop(writer);
        configure(&changed);
        Ok(())
    }

    /// Changes what is set for this broker, or for all. `configure` gets the new configuration and every topic as it is then.
    pub(crate) fn alter_broker(
        &self,
        scope: BrokerScope,
        mode: AlterMode,
        alteration: Alteration<'_>,
        configure: impl FnOnce(&BrokerConfig, &[Arc<Topic>]),
    ) -> Result<(), AlterError> {
        let _one_at_a_time = self.alteration();
        let mut writer = self.write();
        let before = self.config();
        let mut dynamic = before.values.dynamic().clone();
        let (own, name) = match scope {
            BrokerScope::Cluster => (&mut dynamic.cluster, String::new()),
            BrokerScope::Own => (&mut dynamic.own, before.node_id.to_string()),
        };
        check_broker_changes(alteration.changes()).map_err(AlterError::Change)?;
        check_min_insync(scope, alteration, own).map_err(AlterError::Change)?;
        let row = crate::config::properties::broker_property;
        let inherited = |row: &crate::config::property::Property| {
            before.values.text(row.name).map(str::to_owned)
        };
        let wanted = change(own, alteration, row, inherited).map_err(AlterError::Change)?;
        let key = |property: &str| format!("{PREFIX}{BROKER}/{name}/{property}");
        let writes = differences(own, &wanted, key);
        *own = wanted;
        let config = before.with_dynamic(dynamic).map_err(AlterError::Broker)?;
        let topics = self.topics_over(&config)?;
        if mode == AlterMode::Check || writes.is_empty() {
            return Ok(());
        }
        writer.commit(&writes)?;
        let config = Arc::new(config);
        {
            let mut settings = self
                .settings
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            settings.config = Arc::clone(&config);
        }
        let topics: Vec<Arc<Topic>> = self.change(|image| {
            let topics = topics.into_iter();
            topics.map(|topic| image.insert(topic)).collect()
        });
        drop(writer);
        configure(&config, &topics);
        Ok(())
    }

    /// Changes what is set for a group or a subscription to client metrics.
    pub(crate) fn alter_resource(
        &self,
        (kind, name): (ResourceKind, &str),
        mode: AlterMode,
        alteration: Alteration<'_>,
    ) -> Result<(), AlterError> {
        let mut writer = self.write();
        let own = self.resource(kind, name);
        let config = self.config();
        let inherited = |row: &_| crate::config::inherited(row, &config.values);
        let row = |name: &str| kind.row(name);
        let refused = |error| match (kind, &error) {
            // As Kafka answers: what cannot be read as a pattern is a bad setting, all else an invalid request.
            (ResourceKind::ClientMetrics, ChangeError::Invalid { name, .. }) if name != "match" => {
                AlterError::Subscription(error)
            }
            (ResourceKind::ClientMetrics, ChangeError::Unknown { .. }) => {
                AlterError::Subscription(error)
            }
            _ => AlterError::Change(error),
        };
        let wanted = change(&own, alteration, row, inherited).map_err(refused)?;
        kind.check(&wanted, &config.values).map_err(refused)?;
        let key = |property: &str| format!("{PREFIX}{}/{name}/{property}", word_of(kind));
        let writes = differences(&own, &wanted, key);
        let count = self.settings(|settings| settings.resources.len());
        if own.is_empty() && !wanted.is_empty() && count >= RESOURCES_MAX {
            return Err(AlterError::TooMany);
        }
        if mode == AlterMode::Check || writes.is_empty() {
            return Ok(());
        }
        writer.commit(&writes)?;
        let mut settings = self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let of = (kind, name.to_owned());
        if wanted.is_empty() {
            settings.resources.remove(&of);
        } else {
            settings.resources.insert(of, wanted);
        }
        Ok(())
    }

    /// Every topic as it would be over another configuration of the broker.
    fn topics_over(&self, config: &BrokerConfig) -> Result<Vec<Topic>, AlterError> {
        let over = |topic: Arc<Topic>| {
            let pairs = topic
                .overrides
                .iter()
                .map(|(name, value)| (name.as_str(), Some(value.as_str())));
            let configs = match TopicConfig::parse(&config.values, pairs) {
                Ok((configs, _)) => configs,
                Err(error) => {
                    let topic = topic.name.to_string();
                    return Err(AlterError::OtherTopic { topic, error });
                }
            };
            Ok(Topic {
                configs: Arc::new(configs),
                ..(*topic).clone()
            })
        };
        self.topics().into_iter().map(over).collect()
    }

    fn alteration(&self) -> MutexGuard<'_, ()> {
        let alteration = self.alteration.lock();
        alteration.unwrap_or_else(PoisonError::into_inner)
    }

    fn settings<T>(&self, look: impl FnOnce(&Settings) -> T) -> T {
        look(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What turns one set of settings into the other in the store.
fn differences(
    before: &Overrides,
    after: &Overrides,
    key: impl Fn(&str) -> String,
) -> Vec<(String, Option<String>)> {
    let gone = before
        .keys()
        .filter(|name| !after.contains_key(*name))
        .map(|name| (key(name), None));
    let set = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(*value))
        .map(|(name, value)| (key(name), Some(value.clone())));
    gone.chain(set).collect()
}

const fn word_of(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::ClientMetrics => "client-metrics",
        ResourceKind::Group => "group",
    }
}

fn kind_of(word: &str) -> Option<ResourceKind> {
    [ResourceKind::ClientMetrics, ResourceKind::Group]
        .into_iter()
        .find(|kind| word_of(*kind) == word)
}
