//! The finalized features (api-matrix.md 5.1): which there are, and the levels of `group.version` and `transaction.version`,
//! which can be changed while the broker runs.
//!
//! `tally.transaction.version` gives the level until UpdateFeatures sets one, which is stronger and outlives restarts. The
//! epoch rises with every change, so that a client never takes an older answer for a newer one.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use tally_storage::MetaError;

use super::{Metadata, OpenError, record};

/// A feature: what ApiVersions says of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) min: i16,
    pub(crate) max: i16,
}

/// Kafka 4.3.1's level: what web consoles print a Kafka version from.
pub(crate) const METADATA_VERSION: Feature = Feature {
    name: "metadata.version",
    min: 30,
    max: 30,
};

/// Which transaction protocol new clients use; 0 and 1 are the same to them.
pub(crate) const TRANSACTION_VERSION: Feature = Feature {
    name: "transaction.version",
    min: 0,
    max: 2,
};

/// Whether new clients may use the `consumer` group protocol (KIP-848).
pub(crate) const GROUP_VERSION: Feature = Feature {
    name: "group.version",
    min: 0,
    max: 1,
};

/// All of them, by name.
pub(crate) const FEATURES: [Feature; 3] = [GROUP_VERSION, METADATA_VERSION, TRANSACTION_VERSION];

/// The feature of this name.
pub(crate) fn feature(name: &str) -> Option<Feature> {
    FEATURES.into_iter().find(|feature| feature.name == name)
}

/// What is finalized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Finalized {
    pub(crate) group_version: i16,
    pub(crate) transaction_version: i16,
    /// 0 or more, else clients do not use what is finalized.
    pub(crate) epoch: i64,
}

/// The finalized features of this run.
pub(super) struct Finals(RwLock<Finalized>);

impl Finals {
    /// What the store says, else what was given at start.
    pub(super) fn read(
        entries: &BTreeMap<String, String>,
        given: i16,
        epoch: i64,
    ) -> Result<Finals, OpenError> {
        Ok(Finals(RwLock::new(Finalized {
            group_version: stored(entries, record::GROUP_VERSION, GROUP_VERSION)?
                .unwrap_or(GROUP_VERSION.max),
            transaction_version: stored(entries, record::TRANSACTION_VERSION, TRANSACTION_VERSION)?
                .unwrap_or(given),
            epoch,
        })))
    }

    fn get(&self) -> Finalized {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, finalized: Finalized) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = finalized;
    }
}

impl Metadata {
    /// What is finalized now.
    pub(crate) fn finalized(&self) -> Finalized {
        self.finals.get()
    }

    /// The finalized level of `transaction.version`.
    pub(crate) fn transaction_version(&self) -> i16 {
        self.finalized().transaction_version
    }

    /// The finalized level of `group.version`.
    pub(crate) fn group_version(&self) -> i16 {
        self.finalized().group_version
    }

    /// Sets levels; durable on return. What is not given stays; no change when they are that already.
    pub(crate) fn finalize(&self, levels: Levels) -> Result<(), MetaError> {
        let mut writer = self.write();
        let now = self.finalized();
        let next = Finalized {
            group_version: levels.group_version.unwrap_or(now.group_version),
            transaction_version: levels
                .transaction_version
                .unwrap_or(now.transaction_version),
            epoch: now.epoch + 1,
        };
        let put = |key: &str, value: String| (key.to_owned(), Some(value));
        let mut writes = Vec::new();
        if next.group_version != now.group_version {
            let level = next.group_version.to_string();
            writes.push(put(record::GROUP_VERSION, level));
        }
        if next.transaction_version != now.transaction_version {
            let level = next.transaction_version.to_string();
            writes.push(put(record::TRANSACTION_VERSION, level));
        }
        if writes.is_empty() {
            return Ok(());
        }
        writes.push(put(record::FEATURES_EPOCH, next.epoch.to_string()));
        writer.commit(&writes)?;
        self.finals.set(next);
        Ok(())
    }
}

/// New levels of the features that have a choice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Levels {
    pub(crate) group_version: Option<i16>,
    pub(crate) transaction_version: Option<i16>,
}

/// A level that was set and stored.
fn stored(
    entries: &BTreeMap<String, String>,
    key: &str,
    feature: Feature,
) -> Result<Option<i16>, OpenError> {
    let Some(level) = record::number(entries, key)? else {
        return Ok(None);
    };
    match i16::try_from(level) {
        Ok(level) if (feature.min..=feature.max).contains(&level) => Ok(Some(level)),
        _ => Err(record::unreadable(key, &level.to_string())),
    }
}
