//! The bytes of a group of the journal: what one sync makes durable. Big-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | the characters `TJGR` |
//! | 4 | 4 | CRC-32C of everything from 8 to the end of the entries |
//! | 8 | 8 | generation |
//! | 16 | 8 | number of the group, one more than that of the group before |
//! | 24 | 4 | bytes of the entries |
//! | 28 | 4 | how many there are |
//! | 32 | | the entries, then zeros up to the next 4096 bytes |
//!
//! | offset | size | field of an entry |
//! |---|---|---|
//! | 0 | 4 | kind: 1 the bytes follow, 2 they are synced in the segment, 3 the partition was removed |
//! | 4 | 16 | topic id |
//! | 20 | 4 | partition |
//! | 24 | 8 | name of the segment |
//! | 32 | 4 | position of the first byte in the segment |
//! | 36 | 4 | how many bytes |
//! | 40 | 8 | the offset after the last batch |
//! | 48 | | the bytes (kind 1) |

use tally_protocol::ids::{to_u64, to_usize};
use tally_protocol::{Offset, PartitionId, TopicId};

/// Groups begin at multiples of this, so that no write touches a page of the group before.
pub(crate) const PAGE: u64 = 4096;
const MAGIC: &[u8; 4] = b"TJGR";
/// Magic and checksum.
const CHECKED_FROM: usize = 8;
pub(crate) const HEADER: usize = 32;
pub(crate) const ENTRY: usize = 48;

/// What an entry says of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// They follow.
    Copied,
    /// They were synced in their segment before the group was written.
    Synced,
    /// There are none: the partition was removed.
    Removed,
}

/// An entry without its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) partition: PartitionId,
    pub(crate) segment: Offset,
    pub(crate) position: u64,
    pub(crate) len: u64,
    /// The offset after the last batch.
    pub(crate) end: Offset,
}

impl Entry {
    /// Says that a partition was removed.
    pub(crate) fn removed(partition: PartitionId) -> Entry {
        Entry {
            kind: Kind::Removed,
            partition,
            segment: Offset::ZERO,
            position: 0,
            len: 0,
            end: Offset::ZERO,
        }
    }
}

/// A group that is being made; keeps its memory from one group to the next.
#[derive(Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    count: u32,
}

impl Builder {
    /// Begins a group.
    pub(crate) fn begin(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER, 0);
        self.count = 0;
    }

    /// Adds an entry; returns where its bytes go.
    pub(crate) fn push(&mut self, entry: &Entry) -> &mut [u8] {
        let kind: u32 = match entry.kind {
            Kind::Copied => 1,
            Kind::Synced => 2,
            Kind::Removed => 3,
        };
        let small = |number: u64| {
            let number = u32::try_from(number).expect("positions in a segment are below 2^32");
            number.to_be_bytes()
        };
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&entry.partition.topic.0);
        self.bytes
            .extend_from_slice(&entry.partition.index.to_be_bytes());
        self.bytes.extend_from_slice(&entry.segment.0.to_be_bytes());
        self.bytes.extend_from_slice(&small(entry.position));
        self.bytes.extend_from_slice(&small(entry.len));
        self.bytes.extend_from_slice(&entry.end.0.to_be_bytes());
        self.count += 1;
        let at = self.bytes.len();
        if entry.kind == Kind::Copied {
            self.bytes.resize(at + to_usize(entry.len), 0);
        }
        &mut self.bytes[at..]
    }

    /// Bytes of the group as it will be written.
    pub(crate) fn padded_len(&self) -> u64 {
        to_u64(self.bytes.len()).next_multiple_of(PAGE)
    }

    /// The whole group.
    pub(crate) fn finish(&mut self, generation: u64, number: u64) -> &[u8] {
        let len = self.bytes.len() - HEADER;
        let len = u32::try_from(len).expect("a group is below 2^32 bytes");
        self.bytes[..4].copy_from_slice(MAGIC);
        self.bytes[8..16].copy_from_slice(&generation.to_be_bytes());
        self.bytes[16..24].copy_from_slice(&number.to_be_bytes());
        self.bytes[24..28].copy_from_slice(&len.to_be_bytes());
        self.bytes[28..32].copy_from_slice(&self.count.to_be_bytes());
        let checksum = crc32c::crc32c(&self.bytes[CHECKED_FROM..]);
        self.bytes[4..8].copy_from_slice(&checksum.to_be_bytes());
        let padded = self.bytes.len().next_multiple_of(to_usize(PAGE));
        self.bytes.resize(padded, 0);
        &self.bytes
    }
}

/// The first bytes of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) checksum: u32,
    pub(crate) generation: u64,
    pub(crate) number: u64,
    pub(crate) len: u64,
}

impl Header {
    /// Reads the first bytes of a group; `None` if they are not of one.
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Option<Header> {
        let small = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let number = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        bytes.starts_with(MAGIC).then_some(())?;
        Some(Header {
            checksum: small(4)?,
            generation: number(8)?,
            number: number(16)?,
            len: u64::from(small(24)?),
        })
    }

    /// How far the next group is from this one.
    pub(crate) fn stride(&self) -> u64 {
        (to_u64(HEADER) + self.len).next_multiple_of(PAGE)
    }
}

/// Whether a group with its header, without the zeros behind it, is whole.
pub(crate) fn is_whole(header: &Header, bytes: &[u8]) -> bool {
    crc32c::crc32c(&bytes[CHECKED_FROM..]) == header.checksum
}

/// The entries of a whole group with their bytes.
pub(crate) fn entries(bytes: &[u8]) -> impl Iterator<Item = (Entry, &[u8])> {
    let mut rest = &bytes[HEADER.min(bytes.len())..];
    std::iter::from_fn(move || {
        let (head, behind) = rest.split_first_chunk::<ENTRY>()?;
        let small = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?));
        let signed = |at: usize| Some(i64::from_be_bytes(*head.get(at..)?.first_chunk()?));
        let entry = Entry {
            kind: match small(0)? {
                1 => Kind::Copied,
                2 => Kind::Synced,
                3 => Kind::Removed,
                _ => return None,
            },
            partition: PartitionId {
                topic: TopicId(*head.get(4..)?.first_chunk()?),
                index: i32::from_be_bytes(*head.get(20..)?.first_chunk()?),
            },
            segment: Offset(signed(24)?),
            position: u64::from(small(32)?),
            len: u64::from(small(36)?),
            end: Offset(signed(40)?),
        };
        let copied = if entry.kind == Kind::Copied {
            to_usize(entry.len)
        } else {
            0
        };
        let (bytes, behind) = behind.split_at_checked(copied)?;
        rest = behind;
        Some((entry, bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: PartitionId = PartitionId {
        topic: TopicId([5; 16]),
        index: 2,
    };

    fn entry(kind: Kind, position: u64, len: u64) -> Entry {
        Entry {
            kind,
            partition: ID,
            segment: Offset(70),
            position,
            len,
            end: Offset(90),
        }
    }

    /// A removal, ten bytes, and five thousand that are in the segment.
    fn group() -> Vec<u8> {
        let mut group = Builder::default();
        group.begin();
        group.push(&Entry::removed(ID));
        group.push(&entry(Kind::Copied, 100, 10)).fill(7);
        group.push(&entry(Kind::Synced, 110, 5000));
        assert_eq!(group.padded_len(), PAGE);
        group.finish(0xABCD, 12).to_vec()
    }

    fn header(bytes: &[u8]) -> Option<Header> {
        Header::parse(bytes.first_chunk().expect("a page"))
    }

    #[test]
    fn a_group_is_read_back() {
        let bytes = group();
        let header = header(&bytes).expect("a group");
        assert_eq!((header.generation, header.number), (0xABCD, 12));
        assert_eq!(header.stride(), to_u64(bytes.len()));
        let whole = &bytes[..HEADER + to_usize(header.len)];
        assert!(is_whole(&header, whole));
        let found: Vec<_> = entries(whole).collect();
        let wanted = [
            (Entry::removed(ID), &[][..]),
            (entry(Kind::Copied, 100, 10), &[7; 10][..]),
            (entry(Kind::Synced, 110, 5000), &[][..]),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn damage_of_any_byte_is_noticed() {
        let good = group();
        let len = HEADER + to_usize(header(&good).expect("a group").len);
        for at in 0..len {
            let mut bytes = good.clone();
            bytes[at] ^= 0x20;
            let whole = header(&bytes).is_some_and(|header| {
                let end = HEADER + to_usize(header.len);
                bytes
                    .get(..end)
                    .is_some_and(|group| is_whole(&header, group))
            });
            assert!(!whole, "byte {at}");
        }
    }

    #[test]
    fn entries_that_lie_about_their_bytes_end_the_group() {
        let mut group = Builder::default();
        group.begin();
        group.push(&entry(Kind::Copied, 0, 10));
        let mut bytes = group.finish(1, 1).to_vec();
        bytes[HEADER + 36..HEADER + 40].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(entries(&bytes).count(), 0);
    }
}
