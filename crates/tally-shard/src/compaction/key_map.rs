//! The highest offset of every key of a part of a log, in bounded memory (LR-72).
//!
//! A hash table whose slots point at the keys themselves: a slot is only taken for a key after comparing all of its bytes,
//! so that two keys with one hash are two keys, and no collision can ever remove a record. The hash is keyed with a seed.
//!
//! An entry in `arena`: offset (8 bytes), hash (4), length of the key (4), the key, filled up to a multiple of 8.

use std::hash::{DefaultHasher, Hasher};
use tally_protocol::Offset;
use tally_protocol::ids::{to_u64, to_usize};

const HEAD_BYTES: usize = 16;
const UNIT_BYTES: usize = 8;
/// A slot for so many bytes of memory: what an entry with a key of some ten bytes takes.
const BYTES_A_SLOT: usize = 36;
/// Of ten slots so many may be used (LR-72).
const LOAD_OF_TEN: usize = 9;
/// Less memory than this is of no use.
const LEAST_BYTES: usize = 64 * 1024;

/// The map. Memory is taken at once, and only touched as it is used.
#[derive(Debug)]
pub(crate) struct KeyMap {
    seed: u64,
    /// Where the entry begins, in units, plus one; 0 is a free slot.
    slots: Vec<u32>,
    used: usize,
    arena: Vec<u8>,
    arena_bytes_max: usize,
}

/// There is no room for another key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

impl KeyMap {
    /// A map of about `memory_bytes`.
    pub(crate) fn new(memory_bytes: usize, seed: u64) -> KeyMap {
        let units_max = to_usize(u64::from(u32::MAX - 1));
        let memory_bytes = memory_bytes.clamp(LEAST_BYTES, units_max);
        let slots = memory_bytes / BYTES_A_SLOT;
        let arena_bytes_max = memory_bytes - slots * size_of::<u32>();
        KeyMap {
            seed,
            slots: vec![0; slots],
            used: 0,
            arena: Vec::with_capacity(arena_bytes_max),
            arena_bytes_max,
        }
    }

    /// Notes that `key` has a record at `offset`; offsets come in ascending order. A key that is too long for any map is
    /// left out: its records are all kept.
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) -> Result<(), Full> {
        let entry_bytes = (HEAD_BYTES + key.len()).next_multiple_of(UNIT_BYTES);
        if entry_bytes > self.arena_bytes_max {
            return Ok(());
        }
        let hash = self.hash(key);
        let slot = match self.find(hash, key) {
            Ok(at) => {
                self.arena[at..at + 8].copy_from_slice(&offset.0.to_ne_bytes());
                return Ok(());
            }
            Err(free) => free,
        };
        let at = self.arena.len();
        let has_slot = (self.used + 1) * 10 <= self.slots.len() * LOAD_OF_TEN;
        if !has_slot || at + entry_bytes > self.arena_bytes_max {
            return Err(Full);
        }
        let length = u32::try_from(key.len()).map_err(|_| Full)?;
        self.slots[slot] = u32::try_from(at / UNIT_BYTES + 1).map_err(|_| Full)?;
        self.used += 1;
        self.arena.extend_from_slice(&offset.0.to_ne_bytes());
        self.arena.extend_from_slice(&hash.to_ne_bytes());
        self.arena.extend_from_slice(&length.to_ne_bytes());
        self.arena.extend_from_slice(key);
        self.arena.resize(at + entry_bytes, 0);
        Ok(())
    }

    /// The highest offset that `key` was put at.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Offset> {
        let at = self.find(self.hash(key), key).ok()?;
        Some(Offset(i64::from_ne_bytes(self.number(at))))
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Where the entry of `key` begins, or the free slot where it belongs.
    fn find(&self, hash: u32, key: &[u8]) -> Result<usize, usize> {
        // Multiplied instead of divided: the hash spread over all slots.
        let spread = (u64::from(hash) * to_u64(self.slots.len())) >> 32;
        let mut slot = to_usize(spread);
        loop {
            let Some(unit) = self.slots[slot].checked_sub(1) else {
                return Err(slot);
            };
            let at = to_usize(u64::from(unit)) * UNIT_BYTES;
            let length = to_usize(u64::from(u32::from_ne_bytes(self.number(at + 12))));
            let same_hash = u32::from_ne_bytes(self.number(at + 8)) == hash;
            if same_hash && self.arena[at + HEAD_BYTES..][..length] == *key {
                return Ok(at);
            }
            slot = (slot + 1) % self.slots.len();
        }
    }

    fn number<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.arena[at..at + N]);
        bytes
    }

    fn hash(&self, key: &[u8]) -> u32 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(key);
        u32::try_from(hasher.finish() >> 32).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lr72_the_highest_offset_of_every_key() {
        let mut map = KeyMap::new(0, 1);
        for offset in 0..3000 {
            let key = format!("key-{}", offset % 700);
            map.put(key.as_bytes(), Offset(offset)).unwrap();
        }
        assert_eq!(map.len(), 700);
        for nth in 0..700 {
            let highest = (0..3000).rev().find(|offset| offset % 700 == nth).unwrap();
            let key = format!("key-{nth}");
            assert_eq!(map.get(key.as_bytes()), Some(Offset(highest)));
        }
        assert_eq!(map.get(b"key-700"), None);
        assert_eq!(map.get(b""), None);
        map.put(b"", Offset(9)).unwrap();
        assert_eq!(map.get(b""), Some(Offset(9)));
    }

    #[test]
    fn lr72_memory_is_bounded_and_a_full_map_still_answers() {
        for length in [0, 1, 8, 100, 5000] {
            let mut map = KeyMap::new(100_000, 1);
            let key = |nth: i64| {
                let mut key = nth.to_be_bytes().to_vec();
                key.resize(8 + length, 7);
                key
            };
            let full = (0..).find(|nth| map.put(&key(*nth), Offset(*nth)).is_err());
            let full = full.unwrap();
            assert!(full > 10, "{length}: {full}");
            assert!(map.arena.len() + map.slots.len() * 4 <= 100_000);
            assert_eq!(map.arena.capacity(), map.arena_bytes_max);
            for nth in 0..full {
                map.put(&key(nth), Offset(nth + 1_000_000)).unwrap();
                assert_eq!(map.get(&key(nth)), Some(Offset(nth + 1_000_000)));
            }
            assert_eq!(map.get(&key(full)), None);
        }
    }

    #[test]
    fn a_key_larger_than_the_map_is_left_out() {
        let mut map = KeyMap::new(0, 1);
        let key = vec![1; LEAST_BYTES];
        assert_eq!(map.put(&key, Offset(1)), Ok(()));
        assert_eq!((map.get(&key), map.len()), (None, 0));
    }

    #[test]
    fn keys_with_one_hash_are_two_keys() {
        let map = KeyMap::new(0, 3);
        // Of 200,000 keys several pairs share 32 bits.
        let mut by_hash: Vec<(u32, u32)> = (0..200_000u32)
            .map(|nth| (map.hash(&nth.to_be_bytes()), nth))
            .collect();
        by_hash.sort_unstable();
        let pairs = by_hash.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        let mut seen = 0;
        for pair in pairs {
            let mut map = KeyMap::new(0, 3);
            let (one, two) = (pair[0].1.to_be_bytes(), pair[1].1.to_be_bytes());
            map.put(&one, Offset(1)).unwrap();
            assert_eq!(map.get(&two), None);
            map.put(&two, Offset(2)).unwrap();
            assert_eq!(
                (map.get(&one), map.get(&two)),
                (Some(Offset(1)), Some(Offset(2)))
            );
            seen += 1;
        }
        assert!(seen > 0, "no two keys met");
    }
}
