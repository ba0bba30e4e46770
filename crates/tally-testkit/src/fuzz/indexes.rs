//! Indexes of a good log.

use super::place::{Left, OPTIONS, Place, append, bases, with_place};
use std::fs;
use tally_protocol::{LeaderEpoch, Offset, PartitionId};
use tally_storage::{SegmentJournal, StorageError};

/// When the first batch of the good log was made; the others follow a second apart.
const START_MS: i64 = 1_700_000_000_000;
/// Batches of the good log, of two records each.
const BATCHES: i64 = 24;

thread_local! {
    static GOOD: Vec<(String, Vec<u8>)> = good_log();
}

/// The files of a log in two segments that was stopped cleanly.
fn good_log() -> Vec<(String, Vec<u8>)> {
    with_place(Left::Clean, |place| {
        let id = place.partition(&[]);
        place
            .journal
            .open_partition(id, OPTIONS)
            .expect("an empty partition");
        for nth in 0..BATCHES {
            append(
                &mut place.journal,
                id,
                LeaderEpoch(0),
                START_MS + nth * 1000,
            );
        }
        place.journal.close_partition(id);
        let names = fs::read_dir(place.directory(id)).expect("its directory");
        let mut files: Vec<(String, Vec<u8>)> = names
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let name = path.file_name().and_then(|name| name.to_str());
                let name = name.expect("a plain name").to_owned();
                (name, fs::read(&path).expect("a file"))
            })
            .collect();
        files.sort();
        place.journal.delete_partition(id).expect("removed");
        files
    })
}

/// Indexes of any bytes lie beside good segments: every read, every search by time and the segments' own figures are what
/// they are with the right ones.
///
/// The first byte of the input says which file: an offset or a time index, of the first or of the last segment (bits 0 and 1), after
/// a clean stop or a kill (bit 2). With bit 3 the rest is places (two bytes) and bits to turn there (one) in the right file, else it
/// is the file.
pub fn index_files(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else {
        return;
    };
    let kind = if how & 1 == 0 { ".index" } else { ".timeindex" };
    let left = if how & 4 == 0 {
        Left::Clean
    } else {
        Left::Killed
    };
    GOOD.with(|good| {
        let indexes: Vec<&String> = good
            .iter()
            .map(|(name, _)| name)
            .filter(|name| name.ends_with(kind))
            .collect();
        assert_eq!(indexes.len(), 2, "two segments");
        let damaged = indexes[usize::from(how >> 1 & 1)];
        let changed = |bytes: &[u8]| {
            if how & 8 == 0 {
                return rest.to_vec();
            }
            let mut bytes = bytes.to_vec();
            for turn in rest.as_chunks::<3>().0 {
                let len = bytes.len();
                let at = usize::from(u16::from_be_bytes([turn[0], turn[1]])) % len;
                bytes[at] ^= turn[2];
            }
            bytes
        };
        let files: Vec<(String, Vec<u8>)> = good
            .iter()
            .map(|(name, bytes)| {
                let is_damaged = name == damaged;
                let bytes = if is_damaged {
                    changed(bytes)
                } else {
                    bytes.clone()
                };
                (name.clone(), bytes)
            })
            .collect();
        let files: Vec<(String, &[u8])> = files
            .iter()
            .map(|(name, bytes)| (name.clone(), bytes.as_slice()))
            .collect();
        with_place(left, |place| check_log(place, &files));
    });
}

fn check_log(place: &mut Place, files: &[(String, &[u8])]) {
    let id = place.partition(files);
    let recovered = place.journal.open_partition(id, OPTIONS);
    let recovered = recovered.expect("indexes are never needed");
    assert_eq!((recovered.log_end.0, recovered.cut), (BATCHES * 2, None));
    check_reads(&place.journal, id, BATCHES);
    append(
        &mut place.journal,
        id,
        LeaderEpoch(0),
        START_MS + BATCHES * 1000,
    );
    check_reads(&place.journal, id, BATCHES + 1);
    place.journal.delete_partition(id).expect("removed");
}

fn check_reads(journal: &SegmentJournal, id: PartitionId, batches: i64) {
    let end = batches * 2;
    for from in (0..end).step_by(3) {
        for (upto, max_bytes) in [(end, 500), ((from / 2 + end / 2).max(from + 1), 1 << 20)] {
            let expected: Vec<i64> = (from / 2..(upto + 1) / 2).map(|nth| nth * 2).collect();
            let read = read(journal, id, (from, upto), max_bytes);
            let read = read.expect("it can be read");
            let first: Vec<i64> = expected.iter().copied().take(read.len()).collect();
            assert_eq!(read, first, "from {from} to {upto}");
            let is_short = read.len() < expected.len() && max_bytes > 500;
            assert!(
                !read.is_empty() && !is_short || expected.is_empty(),
                "{from} {upto}"
            );
        }
    }
    for nth in 0..batches {
        let at_ms = START_MS + nth * 1000;
        for at_ms in [at_ms - 999, at_ms] {
            let found = loaded(|| journal.find_by_time(id, at_ms, Offset(end)));
            let found = found.expect("it can be searched").expect("there is one");
            assert_eq!(bases(&found), [nth * 2], "at {at_ms}");
        }
    }
    let beyond = START_MS + batches * 1000;
    let found = loaded(|| journal.find_by_time(id, beyond, Offset(end)));
    assert!(found.expect("it can be searched").is_none());
    let newest = loaded(|| journal.max_timestamp_batch(id, Offset(end)));
    let newest = newest.expect("it can be searched").expect("there is one");
    assert_eq!(bases(&newest), [end - 2]);
    let segments = loaded(|| journal.segments(id)).expect("their figures");
    let ends: Vec<i64> = segments.iter().map(|segment| segment.end.0).collect();
    assert_eq!(ends.last(), Some(&end));
    for segment in segments {
        let last = START_MS + (segment.end.0 / 2 - 1) * 1000;
        assert_eq!(segment.max_timestamp, last, "of {segment:?}");
    }
}

fn read(
    journal: &SegmentJournal,
    id: PartitionId,
    (from, upto): (i64, i64),
    max_bytes: usize,
) -> Result<Vec<i64>, StorageError> {
    let outcome = loaded(|| journal.read(id, Offset(from), Offset(upto), max_bytes, true))?;
    Ok(outcome
        .slices
        .iter()
        .flat_map(|slice| bases(slice))
        .collect())
}

/// Does what may need the disk: loads what is missing and tries again.
fn loaded<T>(mut attempt: impl FnMut() -> Result<T, StorageError>) -> Result<T, StorageError> {
    // Each lookup needs a few files and pages; one that never has enough goes round in circles.
    for _ in 0..1000 {
        match attempt() {
            Err(StorageError::NotInMemory(cold)) => cold.load()?,
            outcome => return outcome,
        }
    }
    panic!("it never has what it needs");
}
