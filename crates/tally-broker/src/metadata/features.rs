//! The finalized features (api-matrix.md 5.1): which there are, and the level of `transaction.version`, which can be changed
//! while the broker runs.
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

/// All of them, by name.
pub(crate) const FEATURES: [Feature; 2] = [METADATA_VERSION, TRANSACTION_VERSION];

/// The feature of this name.
pub(crate) fn feature(name: &str) -> Option<Feature> {
    FEATURES.into_iter().find(|feature| feature.name == name)
}

/// What is finalized.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Finalized {
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
        let stored = record::number(entries, record::TRANSACTION_VERSION)?;
        let transaction_version = match stored.map(i16::try_from) {
            None => given,
            Some(Ok(level))
                if (TRANSACTION_VERSION.min..=TRANSACTION_VERSION.max).contains(&level) =>
            {
                level
            }
            Some(_) => {
                return Err(record::unreadable(
                    record::TRANSACTION_VERSION,
                    &stored.unwrap_or_default().to_string(),
                ));
            }
        };
        Ok(Finals(RwLock::new(Finalized {
            transaction_version,
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

    /// Sets the level of `transaction.version`; durable on return. No change when it is that already.
    pub(crate) fn finalize_transaction_version(&self, level: i16) -> Result<(), MetaError> {
        let mut writer = self.write();
        let now = self.finalized();
        if now.transaction_version == level {
            return Ok(());
        }
        let next = Finalized {
            transaction_version: level,
            epoch: now.epoch + 1,
        };
        let put = |key: &str, value: String| (key.to_owned(), Some(value));
        writer.commit(&[
            put(
                record::TRANSACTION_VERSION,
                next.transaction_version.to_string(),
            ),
            put(record::FEATURES_EPOCH, next.epoch.to_string()),
        ])?;
        self.finals.set(next);
        Ok(())
    }
}
