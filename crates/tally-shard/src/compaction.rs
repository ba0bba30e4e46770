//! Which records of a compacted log may go, and which log is compacted next (log-and-fetch.md section 6, C-4 to C-10).
//!
//! Pure decisions: facts and batches in, verdicts out. How segments are read, rewritten and swapped is the business of
//! `tally_storage`; when a pass begins and what becomes of it that of the shard.
//!
//! Invariants: nothing at or above the last stable offset is looked at (C-4); a record only goes if a later one of its key
//! stays, if its transaction was aborted, or if it is a deletion whose time has passed.

mod job;
mod key_map;
mod rules;

pub use job::CompactionJob;
pub(crate) use job::{JobError, Order};
pub(crate) use rules::Aborted;

use tally_protocol::Offset;

/// What a topic says about the compaction of its partitions.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CompactionSettings {
    /// Whether older records of a key go at all: `cleanup.policy` contains `compact`.
    pub compact: bool,
    /// How long a deletion stays readable after its first compaction, milliseconds.
    pub delete_retention_ms: i64,
    /// Shortest time before a record is compacted, milliseconds.
    pub min_lag_ms: i64,
    /// Longest time before a record is compacted, milliseconds; `i64::MAX`: no limit.
    pub max_lag_ms: i64,
    /// Share of the log that must not be compacted yet before it is compacted.
    pub min_dirty_ratio: f64,
}

impl CompactionSettings {
    /// Keeps all records.
    pub const OFF: CompactionSettings = CompactionSettings {
        compact: false,
        delete_retention_ms: 86_400_000,
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        min_dirty_ratio: 0.5,
    };
}

/// What the broker says about compaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactorSettings {
    /// Whether there is any.
    pub enabled: bool,
    /// How long to wait when there was nothing to do, milliseconds.
    pub backoff_ms: u64,
    /// Memory for the keys of one pass.
    pub keys_bytes: usize,
}

/// The log of a partition at this moment.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The wall clock, milliseconds since 1970.
    pub(crate) now_ms: i64,
    /// Where compaction has not been.
    pub(crate) first_dirty: Offset,
    /// Nothing at or above it may be touched: the last stable offset, or what is settled on the disk if that is lower.
    pub(crate) stable: Offset,
    /// The closed segments, oldest first.
    pub(crate) sealed: Vec<Segment>,
    /// The timestamp of the first batch of the first segment that is not compacted; below 0: none.
    pub(crate) oldest_dirty_ms: i64,
}

/// A closed segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    /// Its largest timestamp, or when it was written to if there is none. Only asked for if there is a shortest time.
    pub(crate) newest_ms: i64,
}

/// A log that is to be compacted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Candidate {
    /// The share that is not compacted: the dirtiest log comes first.
    pub(crate) dirty_ratio: f64,
    /// Where the pass ends, always at the end of a segment.
    pub(crate) upto: Offset,
}

/// Whether a log is to be compacted now, and how far (LR-70, LR-71).
pub(crate) fn candidate(settings: &CompactionSettings, facts: &Facts) -> Option<Candidate> {
    if !settings.compact {
        return None;
    }
    let (mut clean_bytes, mut dirty_bytes) = (0, 0);
    let mut upto = Offset::ZERO;
    for segment in &facts.sealed {
        let is_dirty = segment.end > facts.first_dirty;
        let is_young = settings.min_lag_ms > 0
            && segment.newest_ms > facts.now_ms.saturating_sub(settings.min_lag_ms);
        if segment.end > facts.stable || (is_dirty && is_young) {
            break;
        }
        upto = segment.end;
        if is_dirty {
            dirty_bytes += segment.bytes;
        } else {
            clean_bytes += segment.bytes;
        }
    }
    if upto <= facts.first_dirty || dirty_bytes == 0 {
        return None;
    }
    let dirty_ratio = ratio(dirty_bytes, clean_bytes + dirty_bytes);
    let is_overdue = settings.max_lag_ms < i64::MAX
        && facts.oldest_dirty_ms >= 0
        && facts.oldest_dirty_ms < facts.now_ms.saturating_sub(settings.max_lag_ms);
    let is_due = dirty_ratio > settings.min_dirty_ratio || is_overdue;
    is_due.then_some(Candidate { dirty_ratio, upto })
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a ratio of sizes: what is lost beyond 2^52 bytes is nothing"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: CompactionSettings = CompactionSettings {
        compact: true,
        ..CompactionSettings::OFF
    };
    const NOW_MS: i64 = 1_000_000;

    /// Closed segments of ten offsets each, from their bytes and their ages.
    fn facts(first_dirty: i64, stable: i64, all: &[(u64, i64)]) -> Facts {
        let sealed: Vec<Segment> = (1..)
            .zip(all)
            .map(|(nth, (bytes, age_ms))| Segment {
                end: Offset(nth * 10),
                bytes: *bytes,
                newest_ms: NOW_MS - age_ms,
            })
            .collect();
        let oldest = sealed.iter().find(|s| s.end > Offset(first_dirty));
        Facts {
            now_ms: NOW_MS,
            first_dirty: Offset(first_dirty),
            stable: Offset(stable),
            oldest_dirty_ms: oldest.map_or(-1, |oldest| oldest.newest_ms),
            sealed,
        }
    }

    #[track_caller]
    fn check(settings: CompactionSettings, facts: &Facts, expected: Option<(f64, i64)>) {
        let found = candidate(&settings, facts).map(|found| (found.dirty_ratio, found.upto.0));
        assert_eq!(found, expected, "{settings:?} {facts:?}");
    }

    #[test]
    fn lr70_only_whole_closed_stable_segments() {
        let all = [(10, 0), (10, 0), (10, 0)];
        check(ON, &facts(0, 100, &all), Some((1.0, 30)));
        check(ON, &facts(0, 30, &all), Some((1.0, 30)));
        check(ON, &facts(0, 29, &all), Some((1.0, 20)));
        check(ON, &facts(0, 9, &all), None);
        check(ON, &facts(0, 100, &[]), None);
        check(CompactionSettings::OFF, &facts(0, 100, &all), None);
    }

    #[test]
    fn lr71_the_dirty_share_decides() {
        let all = [(10, 0), (10, 0), (20, 0), (40, 0)];
        check(ON, &facts(20, 100, &all), Some((0.75, 40)));
        check(ON, &facts(30, 100, &all), None);
        check(ON, &facts(30, 35, &all), None);
        check(ON, &facts(40, 100, &all), None);
        let eager = CompactionSettings {
            min_dirty_ratio: 0.0,
            ..ON
        };
        check(eager, &facts(30, 100, &all), Some((0.5, 40)));
        check(eager, &facts(40, 100, &all), None);
        // A pass that ended inside a segment goes on there.
        check(eager, &facts(35, 100, &all), Some((0.5, 40)));
    }

    #[test]
    fn lr70_the_shortest_time_holds_back_what_is_young_and_all_behind_it() {
        let lag = CompactionSettings {
            min_lag_ms: 100,
            ..ON
        };
        let all = [(10, 300), (10, 200), (10, 99), (10, 300)];
        check(lag, &facts(0, 100, &all), Some((1.0, 20)));
        check(lag, &facts(0, 100, &all[2..]), None);
        let old = [(10, 300), (10, 100)];
        check(lag, &facts(0, 100, &old), Some((1.0, 20)));
        // What is compacted already may be as young as it likes.
        let young_but_clean = [(10, 0), (30, 200)];
        check(lag, &facts(10, 100, &young_but_clean), Some((0.75, 20)));
    }

    #[test]
    fn lr71_the_longest_time_overrules_the_share() {
        let lag = CompactionSettings {
            max_lag_ms: 100,
            ..ON
        };
        check(
            lag,
            &facts(10, 100, &[(90, 500), (10, 101)]),
            Some((0.1, 20)),
        );
        check(lag, &facts(10, 100, &[(90, 500), (10, 100)]), None);
        check(lag, &facts(10, 19, &[(90, 500), (10, 101)]), None);
        check(ON, &facts(10, 100, &[(90, 500), (10, 101)]), None);
    }
}
