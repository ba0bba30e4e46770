//! The one hash map of the pure crates: keyed by a seed that is handed in, and never iterated.
//!
//! Producer ids, group and transactional ids are chosen by clients: an unkeyed fast hash could be attacked, and an
//! iterated hash map would make a run depend on more than its seed.

#![allow(
    clippy::disallowed_types,
    reason = "the one wrapper: it has no iterator, so the order of the map inside can't be seen"
)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};

/// Starts each hash from the same secret number.
#[derive(Clone, Debug)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// A hash map whose hash is keyed by a seed and whose order can't be observed.
#[derive(Clone, Debug)]
pub struct SeededMap<K, V> {
    map: HashMap<K, V, Seeded>,
}

impl<K: Hash + Eq, V> SeededMap<K, V> {
    /// An empty map; allocates nothing.
    #[must_use]
    pub fn new(seed: u64) -> SeededMap<K, V> {
        SeededMap {
            map: HashMap::with_hasher(Seeded(seed)),
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.map.get(key)
    }

    /// The value of `key`, to be changed.
    #[must_use]
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.map.get_mut(key)
    }

    /// Whether `key` is present.
    #[must_use]
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.map.contains_key(key)
    }

    /// Sets the value of `key`; returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.map.insert(key, value)
    }

    /// The place of `key`.
    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        self.map.entry(key)
    }

    /// Removes `key`; returns its value.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.map.remove(key)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}
