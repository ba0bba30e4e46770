//! The quotas that are set, in the metadata store (log-and-fetch.md section 14.2).
//!
//! | key | value |
//! |---|---|
//! | `quota/ENTITY/QUOTA` | a decimal number |
//!
//! `ENTITY` is `TYPE=NAME`, or `TYPE` for the default; two parts have a comma between them. Of a name everything but letters,
//! digits, `.`, `_` and `-` is written as `%` and two hexadecimal digits for a byte. Invariant: what is seen here is durable.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tally_storage::MetaError;

use super::{AlterMode, Metadata, OpenError, record};
use crate::quotas::entity::{Entity, Quota};
use crate::quotas::table::Table;

const PREFIX: &str = "quota/";

/// Entities that may have quotas: each change writes all metadata anew.
const ENTITIES_MAX: usize = 1000;

/// What is to be changed for one entity; without a value a quota is taken away.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) entity: Entity,
    pub(crate) quotas: BTreeMap<Quota, Option<f64>>,
}

/// Why quotas are not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuotaError {
    /// Too many have some.
    #[error("{ENTITIES_MAX} users, clients and addresses have quotas; take some away")]
    TooMany,
}

/// The quotas of now.
#[derive(Debug)]
pub(super) struct Quotas {
    /// With its number, which rises with every change.
    table: RwLock<(u64, Arc<Table>)>,
    /// The same number, for those who only ask whether there is a newer one.
    generation: AtomicU64,
}

impl Quotas {
    /// Reads what was set.
    pub(super) fn read(entries: &BTreeMap<String, String>) -> Result<Quotas, OpenError> {
        let mut table = Table::default();
        for (key, value) in entries {
            let Some(rest) = key.strip_prefix(PREFIX) else {
                continue;
            };
            let read = || {
                let (entity, quota) = rest.split_once('/')?;
                let (entity, quota) = (read_entity(entity)?, Quota::named(quota)?);
                let value: f64 = value.parse().ok()?;
                let is_right = entity.can_have(quota) && quota.check(value).is_ok();
                is_right.then_some((entity, quota, value))
            };
            let (entity, quota, value) = read().ok_or_else(|| record::unreadable(key, value))?;
            table.set(&entity, quota, Some(value));
        }
        let generation = u64::from(!table.is_empty());
        Ok(Quotas {
            table: RwLock::new((generation, Arc::new(table))),
            generation: AtomicU64::new(generation),
        })
    }
}

impl Metadata {
    /// Rises when quotas change: as long as it stays, what was looked up holds. 0: there never was one.
    #[must_use]
    pub(crate) fn quota_generation(&self) -> u64 {
        self.quotas.generation.load(Ordering::Relaxed)
    }

    /// All quotas, and their generation.
    #[must_use]
    pub(crate) fn quotas(&self) -> (u64, Arc<Table>) {
        let table = self.quotas.table.read();
        let table = table.unwrap_or_else(PoisonError::into_inner);
        (table.0, Arc::clone(&table.1))
    }

    /// Changes quotas, of each entity all or none, and all in one commit; durable on return. What is wrong with each change.
    pub(crate) fn alter_quotas(
        &self,
        changes: &[Change],
        mode: AlterMode,
    ) -> Result<Vec<Result<(), QuotaError>>, MetaError> {
        let mut writer = self.write();
        let (generation, before) = self.quotas();
        let mut after = (*before).clone();
        let mut writes = Vec::new();
        let results = changes
            .iter()
            .map(|change| apply(change, &mut after, &mut writes))
            .collect();
        if mode == AlterMode::Check || writes.is_empty() {
            return Ok(results);
        }
        writer.commit(&writes)?;
        let table = self.quotas.table.write();
        *table.unwrap_or_else(PoisonError::into_inner) = (generation + 1, Arc::new(after));
        self.quotas
            .generation
            .store(generation + 1, Ordering::Relaxed);
        Ok(results)
    }
}

fn apply(
    change: &Change,
    table: &mut Table,
    writes: &mut Vec<(String, Option<String>)>,
) -> Result<(), QuotaError> {
    let entity = &change.entity;
    let sets_one = change.quotas.values().any(Option::is_some);
    if sets_one && !table.has(entity) && table.len() >= ENTITIES_MAX {
        return Err(QuotaError::TooMany);
    }
    for (quota, value) in &change.quotas {
        if table.get(entity, *quota) == *value {
            continue;
        }
        table.set(entity, *quota, *value);
        let key = format!("{PREFIX}{}/{}", entity_word(entity), quota.name());
        writes.push((key, value.map(|value| value.to_string())));
    }
    Ok(())
}

fn entity_word(entity: &Entity) -> String {
    let mut word = String::new();
    for (kind, name) in entity.parts() {
        if !word.is_empty() {
            word.push(',');
        }
        word.push_str(kind.name());
        let Some(name) = name else { continue };
        word.push('=');
        for byte in name.bytes() {
            if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
                word.push(char::from(byte));
            } else {
                write!(word, "%{byte:02X}").expect("a String takes everything");
            }
        }
    }
    word
}

fn read_entity(word: &str) -> Option<Entity> {
    let mut parts = Vec::new();
    for part in word.split(',') {
        parts.push(match part.split_once('=') {
            Some((kind, name)) => (kind, Some(read_name(name)?)),
            None => (part, None),
        });
    }
    let parts = parts.iter().map(|(kind, name)| (*kind, name.as_deref()));
    Entity::new(parts).ok()
}

fn read_name(word: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(parts: &[(&str, Option<&str>)]) -> Entity {
        Entity::new(parts.iter().copied()).unwrap()
    }

    #[test]
    fn lr166_whatever_an_entity_is_called_it_is_read_as_it_was_written() {
        for entity in [
            entity(&[("user", None)]),
            entity(&[("user", Some("<default>"))]),
            entity(&[("user", Some("a/b=c,d%e ü\n")), ("client-id", None)]),
            entity(&[("user", Some("%")), ("client-id", Some("user"))]),
            entity(&[("ip", Some("2001:db8::1"))]),
        ] {
            let word = entity_word(&entity);
            assert!(!word.contains(['/', ' ', '\n']), "{word}");
            assert_eq!(read_entity(&word), Some(entity), "{word}");
        }
    }

    #[test]
    fn lr166_quotas_are_read_as_they_were_stored() {
        let mut table = Table::default();
        let mut writes = Vec::new();
        let of = entity(&[("client-id", Some("a b"))]);
        let mut change = Change {
            entity: of.clone(),
            quotas: BTreeMap::from([
                (Quota::ProducerByteRate, Some(1e6)),
                (Quota::RequestPercentage, Some(0.1)),
            ]),
        };
        apply(&change, &mut table, &mut writes).unwrap();
        let entries: BTreeMap<String, String> = writes
            .drain(..)
            .map(|(key, value)| (key, value.unwrap()))
            .collect();
        assert_eq!(
            entries["quota/client-id=a%20b/producer_byte_rate"],
            "1000000"
        );
        let read = Quotas::read(&entries).unwrap();
        assert_eq!(*read.table.read().unwrap().1, table);

        apply(&change, &mut table, &mut writes).unwrap();
        assert!(writes.is_empty(), "nothing has changed");
        change.quotas.values_mut().for_each(|value| *value = None);
        apply(&change, &mut table, &mut writes).unwrap();
        assert!(table.is_empty());
        assert!(
            writes
                .iter()
                .all(|(key, value)| value.is_none() && entries.contains_key(key))
        );
    }

    #[test]
    fn lr166_what_this_version_did_not_write_is_refused() {
        for (key, value) in [
            ("quota/user", "1"),
            ("quota/galaxy=a/producer_byte_rate", "1"),
            ("quota/user=a/producer_bite_rate", "1"),
            ("quota/user=a/producer_byte_rate", "0"),
            ("quota/user=a/producer_byte_rate", "many"),
            ("quota/user=%/producer_byte_rate", "1"),
            ("quota/user=%FF/producer_byte_rate", "1"),
            ("quota/user=a/connection_creation_rate", "1"),
        ] {
            let entries = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            assert!(Quotas::read(&entries).is_err(), "{key} {value}");
        }
    }

    #[test]
    fn lr166_there_are_not_more_entities_than_may_be() {
        let (mut table, mut writes) = (Table::default(), Vec::new());
        let change = |name: String, value| Change {
            entity: entity(&[("user", Some(&name))]),
            quotas: BTreeMap::from([(Quota::ProducerByteRate, value)]),
        };
        for number in 0..ENTITIES_MAX {
            let change = change(number.to_string(), Some(1.0));
            apply(&change, &mut table, &mut writes).unwrap();
        }
        let mut one_more =
            |name: &str, value| apply(&change(name.to_owned(), value), &mut table, &mut writes);
        assert!(one_more("more", Some(1.0)).is_err());
        assert!(one_more("more", None).is_ok());
        assert!(one_more("7", Some(2.0)).is_ok());
        assert!(one_more("8", None).is_ok());
        assert!(one_more("more", Some(1.0)).is_ok());
    }
}
