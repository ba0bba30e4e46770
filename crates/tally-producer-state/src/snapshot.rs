//! Snapshots: the hard state at one offset, so that a start replays only what came after (P-60 to P-63).
//!
//! A cache, never needed for correctness: whatever is wrong with one, an older one or the whole log gives the
//! same state. All numbers big-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic "TPST" |
//! | 4 | 2 | version = 1 |
//! | 6 | 4 | CRC-32C of all that follows |
//! | 10 | 8 | valid_at: the first offset that is not in it |
//! | 18 | 4 | number of entries |
//! | 22 | | entries by ascending producer id |
//!
//! An entry:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | producer_id |
//! | 8 | 2 | producer_epoch |
//! | 10 | 4 | coordinator_epoch, -1 none |
//! | 14 | 8 | first offset of the open transaction, -1 none |
//! | 22 | 8 | last append, wall clock in ms (D-2) |
//! | 30 | 8 | largest timestamp of the last data batch, -1 none |
//! | 38 | 1 | number of remembered batches, 0 to 5 (D-1) |
//! | 39 | | batches, the oldest first: base sequence 4, last sequence 4, base offset 8, last offset 8, max timestamp 8, aborted 1 (D-14) |

use crate::entry::{Entry, REMEMBERED_BATCHES, RememberedBatch};
use crate::states::ProducerStates;
use bytes::{Buf, BufMut};
use std::collections::BTreeMap;
use tally_protocol::{CoordinatorEpoch, Offset, ProducerEpoch, ProducerId, Sequence, planted};
use thiserror::Error;

const MAGIC: [u8; 4] = *b"TPST";
const VERSION: u16 = 1;
const CRC_START: usize = 10;
const ENTRY_BYTES: usize = 39;
const BATCH_BYTES: usize = 33;

/// Why a snapshot can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SnapshotError {
    /// The bytes end too early.
    #[error("the snapshot is cut short")]
    Truncated,
    /// Something else lies where a snapshot should be.
    #[error("not a snapshot of producer states")]
    BadMagic,
    /// Written by another version.
    #[error("snapshot version {0} is not supported")]
    UnsupportedVersion(u16),
    /// The checksum does not match.
    #[error("the snapshot's checksum does not match")]
    BadCrc,
    /// The checksum matches, but the content can't be: a program error wrote it.
    #[error("the snapshot contradicts itself: {0}")]
    Impossible(&'static str),
}

impl ProducerStates {
    /// The state as bytes; it holds everything that replay of the log below `valid_at` would rebuild.
    #[must_use]
    pub fn snapshot(&self, valid_at: Offset) -> Vec<u8> {
        let entries = self.entries();
        let mut bytes = Vec::with_capacity(
            22 + entries.len() * (ENTRY_BYTES + BATCH_BYTES * REMEMBERED_BATCHES),
        );
        bytes.put_slice(&MAGIC);
        bytes.put_u16(VERSION);
        bytes.put_u32(0);
        bytes.put_i64(valid_at.0);
        bytes.put_u32(u32::try_from(entries.len()).expect("entries fit in memory"));
        for (producer_id, entry) in entries {
            put_entry(&mut bytes, *producer_id, entry);
        }
        let crc = crc32c::crc32c(&bytes[CRC_START..]);
        bytes[6..10].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The state and the offset from which the log has to be replayed. `seed` as in [`ProducerStates::new`].
    ///
    /// Any bytes may come: the caller drops a snapshot that gives an error and uses an older one (P-61).
    pub fn restore(bytes: &[u8], seed: u64) -> Result<(ProducerStates, Offset), SnapshotError> {
        let content = checked_content(bytes)?;
        let mut content = content;
        let valid_at = Offset(content.try_get_i64().map_err(cut)?);
        let count = content.try_get_u32().map_err(cut)?;
        let mut entries: BTreeMap<ProducerId, Entry> = BTreeMap::new();
        for _ in 0..count {
            let (producer_id, entry) = get_entry(&mut content, valid_at)?;
            if entries
                .last_key_value()
                .is_some_and(|(last, _)| *last >= producer_id)
            {
                return Err(SnapshotError::Impossible("producers out of order"));
            }
            entries.insert(producer_id, entry);
        }
        if content.has_remaining() {
            return Err(SnapshotError::Impossible("more bytes than entries"));
        }
        Ok((ProducerStates::restored(entries, seed), valid_at))
    }
}

fn checked_content(bytes: &[u8]) -> Result<&[u8], SnapshotError> {
    let mut head = bytes.get(..CRC_START).ok_or(SnapshotError::Truncated)?;
    let mut magic = [0; MAGIC.len()];
    head.copy_to_slice(&mut magic);
    if magic != MAGIC {
        return Err(SnapshotError::BadMagic);
    }
    let version = head.get_u16();
    if version != VERSION {
        return Err(SnapshotError::UnsupportedVersion(version));
    }
    let content = &bytes[CRC_START..];
    if crc32c::crc32c(content) != head.get_u32() {
        return Err(SnapshotError::BadCrc);
    }
    Ok(content)
}

fn put_entry(bytes: &mut Vec<u8>, producer_id: ProducerId, entry: &Entry) {
    bytes.put_i64(producer_id.0);
    bytes.put_i16(entry.producer_epoch.0);
    bytes.put_i32(entry.coordinator_epoch.0);
    bytes.put_i64(entry.open_transaction().unwrap_or(Offset::NONE).0);
    bytes.put_i64(entry.last_append_ms);
    bytes.put_i64(entry.last_timestamp);
    let count = entry.batches().count();
    bytes.put_u8(u8::try_from(count).expect("at most five"));
    for batch in entry.batches() {
        bytes.put_i32(batch.base_sequence().0);
        bytes.put_i32(batch.last_sequence().0);
        bytes.put_i64(batch.base_offset.0);
        bytes.put_i64(batch.last_offset().0);
        bytes.put_i64(batch.max_timestamp);
        bytes.put_u8(u8::from(batch.is_aborted()));
    }
}

fn get_entry(content: &mut &[u8], valid_at: Offset) -> Result<(ProducerId, Entry), SnapshotError> {
    let producer_id = ProducerId(content.try_get_i64().map_err(cut)?);
    let producer_epoch = ProducerEpoch(content.try_get_i16().map_err(cut)?);
    if producer_id.0 < 0 || producer_epoch.0 < 0 {
        return Err(SnapshotError::Impossible("an entry without a producer"));
    }
    let mut entry = Entry::new(producer_epoch);
    entry.coordinator_epoch = CoordinatorEpoch(content.try_get_i32().map_err(cut)?);
    let open = Offset(content.try_get_i64().map_err(cut)?);
    if open >= valid_at {
        return Err(SnapshotError::Impossible("a transaction from the future"));
    }
    if open >= Offset::ZERO && !planted::is("p60") {
        entry.open(open);
    }
    entry.last_append_ms = content.try_get_i64().map_err(cut)?;
    entry.last_timestamp = content.try_get_i64().map_err(cut)?;
    let count = content.try_get_u8().map_err(cut)?;
    if usize::from(count) > REMEMBERED_BATCHES {
        return Err(SnapshotError::Impossible("more than five batches"));
    }
    let mut next = Offset::ZERO;
    for _ in 0..count {
        let batch = get_batch(content)?;
        if batch.base_offset < next || batch.last_offset() >= valid_at {
            return Err(SnapshotError::Impossible("a batch out of place"));
        }
        next = batch.last_offset().next();
        entry.remember(batch);
    }
    Ok((producer_id, entry))
}

fn get_batch(content: &mut &[u8]) -> Result<RememberedBatch, SnapshotError> {
    let base_sequence = Sequence(content.try_get_i32().map_err(cut)?);
    let last_sequence = Sequence(content.try_get_i32().map_err(cut)?);
    let base_offset = Offset(content.try_get_i64().map_err(cut)?);
    let last_offset = Offset(content.try_get_i64().map_err(cut)?);
    let max_timestamp = content.try_get_i64().map_err(cut)?;
    let is_aborted = content.try_get_u8().map_err(cut)? != 0;
    let delta = last_offset.0.checked_sub(base_offset.0);
    let Some(delta) = delta.and_then(|delta| i32::try_from(delta).ok()) else {
        return Err(SnapshotError::Impossible("a batch of impossible size"));
    };
    let mut batch = RememberedBatch::new(base_sequence, delta, base_offset, max_timestamp);
    if delta < 0 || base_sequence.0 < 0 || batch.last_sequence() != last_sequence {
        return Err(SnapshotError::Impossible("offsets and sequences differ"));
    }
    if is_aborted {
        batch.mark_aborted();
    }
    Ok(batch)
}

fn cut(_: bytes::TryGetError) -> SnapshotError {
    SnapshotError::Truncated
}
