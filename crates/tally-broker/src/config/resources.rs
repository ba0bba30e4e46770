//! What a group or a subscription to client metrics may set of its own: rows like a topic's, and the checks that rows
//! cannot express (KIP-848, KIP-714; log-and-fetch rule 11.5).
//!
//! Tally keeps and shows these settings. Those of `consumer` groups follow the broker's bounds; those of share and streams
//! groups and of client metrics are for protocols that are not offered.

use super::dynamic::ChangeError;
use super::properties::{CLIENT_METRICS, GROUP};
use super::property::{Property, list};
use super::{ConfigSource, Overrides, Values};

/// What has settings of its own besides topics and brokers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ResourceKind {
    /// A subscription to client metrics.
    ClientMetrics,
    /// A group.
    Group,
}

impl ResourceKind {
    /// The rows of its properties.
    #[must_use]
    pub const fn rows(self) -> &'static [Property] {
        match self {
            ResourceKind::ClientMetrics => CLIENT_METRICS,
            ResourceKind::Group => GROUP,
        }
    }

    /// What DescribeConfigs names as the source of its own settings.
    #[must_use]
    pub const fn source(self) -> ConfigSource {
        match self {
            ResourceKind::ClientMetrics => ConfigSource::ClientMetrics,
            ResourceKind::Group => ConfigSource::Group,
        }
    }

    /// The row of a property.
    #[must_use]
    pub fn row(self, name: &str) -> Option<&'static Property> {
        self.rows().iter().find(|row| row.name == name)
    }

    /// Checks settings as a whole.
    pub fn check(self, own: &Overrides, broker: &Values) -> Result<(), ChangeError> {
        for (name, value) in own {
            let Some(row) = self.row(name) else {
                let known = self.rows().iter().map(|row| row.name);
                return Err(ChangeError::Unknown {
                    name: name.clone(),
                    suggestion: super::property::closest(name, known),
                });
            };
            let checked = row.check(value).and_then(|()| match self {
                ResourceKind::ClientMetrics => check_pattern(name, value),
                ResourceKind::Group => check_bounds(name, value, broker),
            });
            checked.map_err(|reason| ChangeError::Invalid {
                name: name.clone(),
                value: value.clone(),
                reason,
            })?;
        }
        match self {
            ResourceKind::ClientMetrics => Ok(()),
            ResourceKind::Group => check_sessions(own, broker),
        }
    }
}

/// Who reports once a session at most is taken for gone: a session is longer than the time between two heartbeats.
fn check_sessions(own: &Overrides, broker: &Values) -> Result<(), ChangeError> {
    for kind in ["consumer", "share", "streams"] {
        let session = format!("{kind}.session.timeout.ms");
        let heartbeat = format!("{kind}.heartbeat.interval.ms");
        if !own.contains_key(&session) && !own.contains_key(&heartbeat) {
            continue;
        }
        let of = |name: &String| {
            let inherited = || broker.text(&format!("group.{name}")).map(str::to_owned);
            let value = own.get(name).cloned().or_else(inherited)?;
            value.parse::<i64>().ok()
        };
        if let (Some(longest), Some(between)) = (of(&session), of(&heartbeat))
            && longest <= between
        {
            return Err(ChangeError::Invalid {
                name: session,
                value: longest.to_string(),
                reason: format!("must be more than {heartbeat} {between}"),
            });
        }
    }
    Ok(())
}

/// What a subscription may match clients by.
const MATCHED: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// `match` is a list of NAME=PATTERN. Whether a pattern is one is not looked at: nothing is matched by it.
fn check_pattern(name: &str, value: &str) -> Result<(), String> {
    if name != "match" {
        return Ok(());
    }
    let is_one = |item: &str| {
        item.split_once('=')
            .is_some_and(|(key, pattern)| MATCHED.contains(&key.trim()) && !pattern.is_empty())
    };
    match list(value).find(|item| !is_one(item)) {
        Some(item) => Err(format!(
            "{item} is not NAME=PATTERN with a name of {}",
            MATCHED.join(", ")
        )),
        None => Ok(()),
    }
}

/// A group's value lies between the broker's `group.KIND.min.X` and `group.KIND.max.X`, where there are such.
fn check_bounds(name: &str, value: &str, broker: &Values) -> Result<(), String> {
    let Some((kind, rest)) = name.split_once('.') else {
        return Ok(());
    };
    let Ok(number) = value.parse::<i64>() else {
        return Ok(());
    };
    let bound = |which: &str| {
        let of = match rest {
            "num.standby.replicas" => "standby.replicas",
            rest => rest,
        };
        let property = format!("group.{kind}.{which}.{of}");
        let limit = broker.text(&property)?.parse::<i64>().ok()?;
        Some((property, limit))
    };
    match (bound("min"), bound("max")) {
        (Some((property, min)), _) if number < min => {
            Err(format!("must be at least {property} {min}"))
        }
        (_, Some((property, max))) if number > max => {
            Err(format!("must be at most {property} {max}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::BrokerConfig;
    use super::*;

    #[track_caller]
    fn check(kind: ResourceKind, name: &str, value: &str, expected: Result<(), &str>) {
        let own = Overrides::from([(name.to_owned(), value.to_owned())]);
        let outcome = kind.check(&own, &BrokerConfig::default().values);
        let outcome = outcome.map_err(|error| error.to_string());
        assert_eq!(outcome, expected.map_err(str::to_owned), "{name}={value}");
    }

    #[test]
    fn a_group_keeps_the_brokers_bounds() {
        let group = ResourceKind::Group;
        check(group, "consumer.session.timeout.ms", "46000", Ok(()));
        check(
            group,
            "consumer.session.timeout.ms",
            "1",
            Err(
                "consumer.session.timeout.ms=1: must be at least group.consumer.min.session.timeout.ms 45000",
            ),
        );
        check(
            group,
            "consumer.heartbeat.interval.ms",
            "15001",
            Err(
                "consumer.heartbeat.interval.ms=15001: must be at most group.consumer.max.heartbeat.interval.ms 15000",
            ),
        );
        check(
            group,
            "streams.num.standby.replicas",
            "3",
            Err(
                "streams.num.standby.replicas=3: must be at most group.streams.max.standby.replicas 2",
            ),
        );
        check(group, "share.auto.offset.reset", "earliest", Ok(()));
        check(
            group,
            "consumer.sesion.timeout.ms",
            "1",
            Err(
                "consumer.sesion.timeout.ms: unknown property. Did you mean consumer.session.timeout.ms?",
            ),
        );
    }

    #[test]
    fn a_subscription_names_what_it_matches() {
        let metrics = ResourceKind::ClientMetrics;
        check(
            metrics,
            "match",
            "client_id=a.*,client_source_port=1",
            Ok(()),
        );
        check(metrics, "match", "", Ok(()));
        check(
            metrics,
            "interval.ms",
            "10",
            Err("interval.ms=10: must be at least 100"),
        );
        assert!(
            metrics
                .check(
                    &Overrides::from([("match".into(), "nope=x".into())]),
                    &BrokerConfig::default().values
                )
                .is_err()
        );
    }
}
