//! The map of partitions that every append and read looks into, several times each.
//!
//! Its hash is a multiplication for each word and has no key. That is enough here: the id of a topic is drawn at random by the
//! broker, never chosen by a client, and partitions are numbered in a row, so nobody can bring keys together that collide.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use tally_protocol::PartitionId;

/// A map by partition.
pub type PartitionMap<V> = HashMap<PartitionId, V, BuildHasherDefault<IdHasher>>;

/// An odd number whose bits are spread well (the golden ratio's).
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// Hashes the words of an id.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        for &byte in rest {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(tally_protocol::ids::to_u64(number));
    }

    fn write_i32(&mut self, number: i32) {
        self.write_u64(u64::from(number.cast_unsigned()));
    }

    fn finish(&self) -> u64 {
        // A product's high bits depend on all bits of its factors, its low ones do not: the map uses both ends.
        self.0 ^ self.0.rotate_left(32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, BuildHasherDefault};
    use tally_protocol::TopicId;

    #[test]
    fn partitions_are_spread() {
        let build = BuildHasherDefault::<IdHasher>::default();
        let (mut low, mut high) = (BTreeSet::new(), BTreeSet::new());
        for topic in 0..64u8 {
            for index in 0..64 {
                // Worse than drawn at random: topics that differ in one byte.
                let mut id = [7; 16];
                id[usize::from(topic % 16)] = topic;
                let topic = TopicId(id);
                let hash = build.hash_one(PartitionId { topic, index });
                low.insert(hash & 0xffff);
                high.insert(hash >> 48);
            }
        }
        // 4096 draws out of 65536 meet about 127 times.
        assert!(low.len() > 3900, "{}", low.len());
        assert!(high.len() > 3900, "{}", high.len());
    }
}
