//! The numbers that name things, as types that cannot be mistaken for one another.
//!
//! Invariants: an [`Offset`] never means a byte position; arithmetic with rules of its own ([`Sequence`]) lives on
//! the type. Conversions between integer widths that cannot fail on a 64-bit machine have a name here.

use std::cmp::Ordering;
use std::fmt;

const _: () = assert!(
    usize::BITS == 64,
    "Tally runs on 64-bit machines: `to_u64` and `to_usize` rely on it"
);

/// A length in memory as a number for the wire or the disk.
#[must_use]
pub const fn to_u64(length: usize) -> u64 {
    length as u64
}

/// A length or position from the disk as an index into memory.
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits, asserted above"
)]
pub const fn to_usize(length: u64) -> usize {
    length as usize
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The position of a record in a partition, counted from 0.
    Offset(i64)
}
number! {
    /// The id of a producer; unique for ever (I-22).
    ProducerId(i64)
}
number! {
    /// The epoch of a producer: the higher one fences the lower (P-38).
    ProducerEpoch(i16)
}
number! {
    /// The sequence number of a record of a producer on one partition, 0 to 2147483647, then 0 again (P-49, P-51).
    Sequence(i32)
}
number! {
    /// The epoch of a partition's leadership, raised at each start of the broker (LR-80, N5).
    LeaderEpoch(i32)
}
number! {
    /// The epoch of a transaction coordinator, written into its markers; it never falls (M-5).
    CoordinatorEpoch(i32)
}

impl Offset {
    /// No offset: what the wire says where there is none.
    pub const NONE: Offset = Offset(-1);
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);

    /// The offset `count` records further on.
    #[must_use]
    pub const fn plus(self, count: i64) -> Offset {
        Offset(self.0 + count)
    }

    /// The offset after this one.
    #[must_use]
    pub const fn next(self) -> Offset {
        self.plus(1)
    }
}

impl ProducerId {
    /// No producer id: a batch that is not idempotent.
    pub const NONE: ProducerId = ProducerId(-1);
}

impl ProducerEpoch {
    /// No epoch.
    pub const NONE: ProducerEpoch = ProducerEpoch(-1);
    /// The highest epoch a client may hold; the next one exists only in markers that fence or end this one (I-21).
    pub const LAST_FOR_CLIENTS: ProducerEpoch = ProducerEpoch(i16::MAX - 1);

    /// The epoch after this one, at most 32767.
    #[must_use]
    pub const fn next(self) -> ProducerEpoch {
        ProducerEpoch(self.0.saturating_add(1))
    }
}

impl Sequence {
    /// No sequence: control batches and the coordinators' own batches.
    pub const NONE: Sequence = Sequence(-1);

    /// The sequence `count` records further on, modulo 2^31 (P-49).
    #[must_use]
    pub const fn plus(self, count: i32) -> Sequence {
        Sequence(self.0.wrapping_add(count) & i32::MAX)
    }

    /// The sequence after this one; 0 follows 2147483647 (P-45).
    #[must_use]
    pub const fn next(self) -> Sequence {
        self.plus(1)
    }
}

impl LeaderEpoch {
    /// No leader epoch: the client does not ask for the check (LR-82).
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);
}

/// The id of a topic; a topic that is deleted and made again gets a new one (N10).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TopicId(pub [u8; 16]);

/// The order of the bytes, as one number: every map of partitions compares ids many times a request.
impl Ord for TopicId {
    #[inline]
    fn cmp(&self, other: &TopicId) -> Ordering {
        u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
    }
}

impl PartialOrd for TopicId {
    #[inline]
    fn partial_cmp(&self, other: &TopicId) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl TopicId {
    /// The id that names no topic.
    pub const ZERO: TopicId = TopicId([0; 16]);
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A partition: data and state are keyed by it, names are only looked up (N10).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartitionId {
    /// The topic's id.
    pub topic: TopicId,
    /// The partition's number, from 0.
    pub index: i32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.topic, self.index)
    }
}

/// The partition of an internal topic that owns `key`: the Java string hash, its absolute value, modulo the partition
/// count; the absolute value of the smallest number is 0 (S-6, groups.md section 2).
#[must_use]
pub fn coordinator_partition(key: &str, partition_count: i32) -> i32 {
    let hash = key.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    hash.checked_abs().unwrap_or(0) % partition_count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_are_in_the_order_of_their_bytes() {
        let mut ids = Vec::new();
        for at in 0..16 {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut id = [3; 16];
                id[at] = byte;
                ids.push(id);
            }
        }
        for one in &ids {
            for other in &ids {
                assert_eq!(TopicId(*one).cmp(&TopicId(*other)), one.cmp(other));
            }
        }
    }

    #[test]
    fn p49_sequence_wraps_to_zero() {
        assert_eq!(Sequence(i32::MAX).next(), Sequence(0));
        assert_eq!(Sequence(2_147_483_646).plus(3), Sequence(1));
        assert_eq!(Sequence(4).next(), Sequence(5));
    }

    #[test]
    fn s6_coordinator_partition_follows_the_java_string_hash() {
        // "polygenelubricants" is the well-known string whose Java hash is i32::MIN.
        assert_eq!(coordinator_partition("polygenelubricants", 50), 0);
        assert_eq!(coordinator_partition("", 50), 0);
        assert_eq!(coordinator_partition("a", 50), 47);
    }
}
