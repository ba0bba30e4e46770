//! The levels of the broker's log, as DescribeConfigs shows and IncrementalAlterConfigs changes them (KIP-412).
//!
//! A logger is a crate of the broker or a module of one, and `root` is all the others. Levels have Kafka's names. They are
//! not stored: a start begins with what its command line says, as Kafka's does with its file. What writes the log is the
//! caller's; this knows only how to hand it a new filter, in the form of `RUST_LOG`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The logger of everything that has none of its own.
pub(crate) const ROOT: &str = "root";

/// The crates that write to the log.
const CRATES: [&str; 7] = [
    "tally",
    "tally_broker",
    "tally_groups",
    "tally_protocol",
    "tally_shard",
    "tally_storage",
    "tally_transactions",
];

/// Kafka's levels, and what the log calls them. Nothing here is fatal and goes on, so nothing is left of the log then.
const LEVELS: [(&str, &str); 6] = [
    ("DEBUG", "debug"),
    ("ERROR", "error"),
    ("FATAL", "off"),
    ("INFO", "info"),
    ("TRACE", "trace"),
    ("WARN", "warn"),
];

/// Loggers that may have a level of their own: each makes every line of the log dearer.
const LOGGERS_MAX: usize = 1000;

/// Hands a new filter to the log.
type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The levels of the log, and how to change them.
pub struct Loggers {
    /// The filter of the start.
    base: String,
    /// What was set since: Kafka's level by logger.
    levels: Mutex<BTreeMap<String, &'static str>>,
    apply: Apply,
}

impl fmt::Debug for Loggers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loggers")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// Why a level is not set.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LevelError {
    /// No such logger.
    #[error("there is no logger {0}; loggers are root, {crates}, and their modules", crates = CRATES.join(", "))]
    UnknownLogger(String),
    /// No such level.
    #[error(
        "{logger} cannot have the level {level}; levels are DEBUG, ERROR, FATAL, INFO, TRACE and WARN"
    )]
    UnknownLevel {
        /// The logger.
        logger: String,
        /// What was asked for.
        level: String,
    },
    /// All else falls back on it.
    #[error("the root logger must have a level")]
    RootHasNone,
    /// Too many loggers have levels.
    #[error("{LOGGERS_MAX} loggers have levels of their own; delete some")]
    TooMany,
    /// The log does not take it.
    #[error("the log does not take that: {0}")]
    Refused(String),
}

impl Loggers {
    /// Levels over the filter `base`; `apply` hands the log a new filter.
    pub fn new(
        base: impl Into<String>,
        apply: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Loggers {
        Loggers {
            base: base.into(),
            levels: Mutex::new(BTreeMap::new()),
            apply: Box::new(apply),
        }
    }

    /// Levels of a log that cannot be changed and need not.
    #[must_use]
    pub fn fixed() -> Loggers {
        Loggers::new("off", |_| Err("its levels are fixed".to_owned()))
    }

    /// Each logger with its level, by name.
    pub(crate) fn levels(&self) -> BTreeMap<String, &'static str> {
        let mut levels: BTreeMap<String, &'static str> = BTreeMap::new();
        let root = self.base_level(None).unwrap_or("ERROR");
        levels.insert(ROOT.to_owned(), root);
        levels.extend(self.lock().clone());
        let root = levels[ROOT];
        for name in CRATES {
            let own = self.base_level(Some(name)).unwrap_or(root);
            levels.entry(name.to_owned()).or_insert(own);
        }
        levels
    }

    /// Checks changes: `None` takes a logger's own level away.
    pub(crate) fn check(&self, changes: &[(&str, Option<&str>)]) -> Result<(), LevelError> {
        self.changed(&self.lock(), changes).map(drop)
    }

    /// Makes changes, all or none.
    pub(crate) fn alter(&self, changes: &[(&str, Option<&str>)]) -> Result<(), LevelError> {
        let mut levels = self.lock();
        let changed = self.changed(&levels, changes)?;
        let mut filter = self.base.clone();
        for (name, level) in &changed {
            let level = LEVELS.iter().find(|(kafkas, _)| kafkas == level);
            let level = level.map_or("info", |(_, ours)| ours);
            if !filter.is_empty() {
                filter.push(',');
            }
            if name != ROOT {
                filter.push_str(name);
                filter.push('=');
            }
            filter.push_str(level);
        }
        (self.apply)(&filter).map_err(LevelError::Refused)?;
        *levels = changed;
        Ok(())
    }

    fn changed(
        &self,
        levels: &BTreeMap<String, &'static str>,
        changes: &[(&str, Option<&str>)],
    ) -> Result<BTreeMap<String, &'static str>, LevelError> {
        let mut changed = levels.clone();
        for (logger, level) in changes {
            if !is_logger(logger) {
                return Err(LevelError::UnknownLogger((*logger).to_owned()));
            }
            let Some(level) = level else {
                if *logger == ROOT {
                    return Err(LevelError::RootHasNone);
                }
                changed.remove(*logger);
                continue;
            };
            let known = LEVELS.iter().find(|(kafkas, _)| kafkas == level);
            let Some((kafkas, _)) = known else {
                return Err(LevelError::UnknownLevel {
                    logger: (*logger).to_owned(),
                    level: (*level).to_owned(),
                });
            };
            changed.insert((*logger).to_owned(), kafkas);
        }
        if changed.len() > LOGGERS_MAX {
            return Err(LevelError::TooMany);
        }
        Ok(changed)
    }

    /// The level that the filter of the start gives a logger; `None`: the root.
    fn base_level(&self, logger: Option<&str>) -> Option<&'static str> {
        // The last one that names it holds.
        self.base.split(',').rev().find_map(|part| {
            let (target, level) = match part.split_once('=') {
                Some((target, level)) => (Some(target.trim()), level),
                None => (None, part),
            };
            let level = level.trim().to_ascii_lowercase();
            let known = LEVELS.iter().find(|(_, ours)| *ours == level)?;
            (target == logger).then_some(known.0)
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, &'static str>> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `root`, a crate, or a module of one: nothing that the filter would read as anything else.
fn is_logger(name: &str) -> bool {
    let mut words = name.split("::");
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    name == ROOT
        || (words.next().is_some_and(|first| CRATES.contains(&first)) && words.all(is_word))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn loggers(base: &str) -> (Loggers, Arc<Mutex<String>>) {
        let filter = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&filter);
        let loggers = Loggers::new(base, move |new| {
            *seen.lock().unwrap() = new.to_owned();
            Ok(())
        });
        (loggers, filter)
    }

    #[test]
    fn a_level_becomes_a_filter() {
        let (loggers, filter) = loggers("warn,tally_shard=debug");
        let levels = loggers.levels();
        assert_eq!((levels["root"], levels["tally_shard"]), ("WARN", "DEBUG"));
        assert_eq!(levels["tally_broker"], "WARN");
        loggers
            .alter(&[
                ("tally_broker::api", Some("TRACE")),
                ("root", Some("FATAL")),
            ])
            .unwrap();
        assert_eq!(
            *filter.lock().unwrap(),
            "warn,tally_shard=debug,off,tally_broker::api=trace"
        );
        assert_eq!(loggers.levels()["tally_broker::api"], "TRACE");
        assert_eq!(loggers.levels()["tally_broker"], "FATAL");
        loggers.alter(&[("tally_broker::api", None)]).unwrap();
        assert!(!loggers.levels().contains_key("tally_broker::api"));
    }

    #[test]
    fn what_is_no_logger_and_no_level_is_refused() {
        let (loggers, filter) = loggers("info");
        for (changes, message) in [
            (("nope", Some("DEBUG")), "there is no logger nope"),
            (("tally_broker::a,b", Some("DEBUG")), "there is no logger"),
            (("tally_broker::", None), "there is no logger"),
            (("root", None), "the root logger must have a level"),
            (("root", Some("OFF")), "root cannot have the level OFF"),
            (("root", Some("debug")), "root cannot have the level debug"),
        ] {
            let error = loggers.alter(&[("root", Some("WARN")), changes]);
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
            assert!(loggers.check(&[changes]).is_err());
        }
        assert_eq!(*filter.lock().unwrap(), "", "all or none");
    }
}
