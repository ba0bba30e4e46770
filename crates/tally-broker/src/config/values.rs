//! The properties as texts: which were set at run time or given at start, and what holds for the others.
//!
//! Invariant: every name is a row of the table (or stands under one of its prefixes) and every value passed its check,
//! so the typed getters cannot fail.

use std::collections::BTreeMap;

use super::properties::{ALIASES, broker_property, similar_broker_property};
use super::property::parse_boolean;
use super::{ConfigError, Dynamic, Level, Setting};

/// What was given for one property.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Given {
    /// The name that was used: the property's own or an alias.
    name: String,
    value: String,
    origin: String,
    level: Level,
}

/// The broker's properties by name: those changed at run time, those given at start, and the defaults.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Values {
    given: BTreeMap<String, Given>,
    dynamic: Dynamic,
}

impl Values {
    /// Checks each setting against the table and keeps it under its property's own name.
    pub(super) fn collect(settings: &[Setting]) -> Result<Values, ConfigError> {
        let mut given: BTreeMap<String, Given> = BTreeMap::new();
        let mut settings: Vec<&Setting> = settings.iter().collect();
        // Stable: of one level the last one counts.
        settings.sort_by_key(|setting| setting.level);
        for setting in settings {
            let name = ALIASES
                .iter()
                .find(|(alias, _)| *alias == setting.name)
                .map_or(setting.name.as_str(), |(_, name)| *name);
            let next = check(name, setting)?;
            match given.get(name) {
                Some(earlier) if is_conflict(earlier, &next) => {
                    return Err(ConfigError::Twice {
                        name: name.to_owned(),
                        first: format!("{} ({})", earlier.value, earlier.origin),
                        second: format!("{} ({})", next.value, next.origin),
                    });
                }
                _ => {
                    given.insert(name.to_owned(), next);
                }
            }
        }
        Ok(Values {
            given,
            dynamic: Dynamic::default(),
        })
    }

    /// The same with other settings of the run time over it, each checked by its row already.
    pub(super) fn with_dynamic(&self, dynamic: Dynamic) -> Values {
        Values {
            given: self.given.clone(),
            dynamic,
        }
    }

    /// The value of a property, set or default.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.set_text(name)
            .or_else(|| broker_property(name).and_then(|row| row.default))
    }

    /// The value that was set for a property, if one was: at run time for this broker, for all brokers, at start.
    #[must_use]
    pub fn set_text(&self, name: &str) -> Option<&str> {
        let dynamic = self.dynamic.own.get(name);
        dynamic
            .or_else(|| self.dynamic.cluster.get(name))
            .map(String::as_str)
            .or_else(|| self.given_text(name))
    }

    /// The value that was given for a property at start, if one was.
    #[must_use]
    pub fn given_text(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(|given| given.value.as_str())
    }

    /// What was set at run time.
    #[must_use]
    pub fn dynamic(&self) -> &Dynamic {
        &self.dynamic
    }

    /// Where a property was given at start, if it was.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(|given| given.origin.as_str())
    }

    /// What was given, by name: (name, value).
    pub fn given(&self) -> impl Iterator<Item = (&str, &str)> {
        self.given
            .iter()
            .map(|(name, given)| (name.as_str(), given.value.as_str()))
    }

    pub(super) fn int(&self, name: &str) -> i32 {
        self.parsed(name)
    }

    pub(super) fn short(&self, name: &str) -> i16 {
        self.parsed(name)
    }

    pub(super) fn long(&self, name: &str) -> i64 {
        self.parsed(name)
    }

    /// A number whose row allows none below 0.
    pub(super) fn unsigned<T: Unsigned>(&self, name: &str) -> T {
        self.parsed(name)
    }

    pub(super) fn boolean(&self, name: &str) -> bool {
        self.text(name)
            .and_then(parse_boolean)
            .unwrap_or_else(|| unchecked(name))
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> T {
        self.text(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| unchecked(name))
    }

    /// The error for a value that passed its row's check and still cannot be used.
    pub(super) fn invalid(&self, name: &str, reason: String) -> ConfigError {
        let given = self.given.get(name);
        let is_dynamic = self.set_text(name) != self.given_text(name);
        ConfigError::Invalid {
            name: given.map_or(name, |given| &given.name).to_owned(),
            value: self.text(name).unwrap_or_default().to_owned(),
            origin: match given {
                _ if is_dynamic => "set at run time",
                Some(given) => &given.origin,
                None => "default",
            }
            .to_owned(),
            reason,
        }
    }
}

/// Numbers that cannot be below 0.
pub(super) trait Unsigned: std::str::FromStr {}
impl Unsigned for u64 {}
impl Unsigned for usize {}

/// A getter was asked for a property that the table does not have, or by the wrong type: a mistake in this crate.
fn unchecked<T>(name: &str) -> T {
    panic!("{name} has no row with a default of this type in the table of properties")
}

fn check(name: &str, setting: &Setting) -> Result<Given, ConfigError> {
    let Some(row) = broker_property(name) else {
        return Err(ConfigError::Unknown {
            name: setting.name.clone(),
            origin: setting.origin.clone(),
            suggestion: similar_broker_property(name),
        });
    };
    let value = setting.value.trim();
    if let Err(reason) = row.check(value) {
        let shown = if row.is_sensitive() {
            "(hidden)"
        } else {
            value
        };
        return Err(ConfigError::Invalid {
            name: setting.name.clone(),
            value: shown.to_owned(),
            origin: setting.origin.clone(),
            reason,
        });
    }
    Ok(Given {
        name: setting.name.clone(),
        value: value.to_owned(),
        origin: setting.origin.clone(),
        level: setting.level,
    })
}

/// Repeating a name is a correction, and so is what a stronger level says; two names, or two flags, that disagree are a
/// mistake that nobody should guess about.
fn is_conflict(earlier: &Given, next: &Given) -> bool {
    let by_two_flags = next.level == Level::CommandLine && earlier.origin != next.origin;
    earlier.value != next.value
        && earlier.level == next.level
        && (earlier.name != next.name || by_two_flags)
}
