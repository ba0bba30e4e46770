//! Which segments of a partition may go: by the log start, by size, by time (LR-60 to LR-64).
//!
//! A pure decision: facts in, a [`Plan`] out. It takes the oldest segments only, one after the other, and ends at the
//! first that stays. Nothing at or beyond the high watermark goes (LR-61, C-3); open transactions hold nothing back (C-2).
//! Not here: when it is asked and how segments go.

use tally_protocol::Offset;

/// What a topic says about the age and size of its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Whether records go by time and size at all: `cleanup.policy` contains `delete`.
    pub delete: bool,
    /// How long records are kept, milliseconds; below 0: for ever.
    pub retention_ms: i64,
    /// Bytes that a partition keeps at least; below 0: all.
    pub retention_bytes: i64,
}

impl RetentionSettings {
    /// Keeps everything.
    pub const KEEP_ALL: RetentionSettings = RetentionSettings {
        delete: false,
        retention_ms: -1,
        retention_bytes: -1,
    };
}

/// The partition at this moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// The wall clock, milliseconds since 1970.
    pub(crate) now_ms: i64,
    pub(crate) log_start: Offset,
    pub(crate) high_watermark: Offset,
    /// Of all segments.
    pub(crate) size_bytes: u64,
}

/// A segment that may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// The offset after its last one.
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    /// Its largest timestamp, or when it was written to if there is none, milliseconds since 1970 (LR-62).
    pub(crate) newest_ms: i64,
    /// Appends go into it.
    pub(crate) is_last: bool,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plan {
    /// How many segments go.
    pub(crate) segments: usize,
    /// Where the last of them ends: the log start, if it is not higher already (LR-64).
    pub(crate) log_start: Option<Offset>,
    /// The last segment is among them: another has to begin first (LR-61).
    pub(crate) roll: bool,
    /// There may be more that can go.
    pub(crate) more: bool,
    /// The segment that stays has a timestamp in the future, which keeps it (LR-62).
    pub(crate) from_the_future: Option<i64>,
}

/// Decides about the oldest segments, `at_most` of them.
pub(crate) fn plan(
    settings: &RetentionSettings,
    facts: Facts,
    oldest: impl Iterator<Item = Candidate>,
    at_most: usize,
) -> Plan {
    let mut plan = Plan::default();
    let mut left = facts;
    for segment in oldest {
        if plan.segments == at_most {
            plan.more = true;
            break;
        }
        if !may_go(settings, &left, &segment) {
            let is_future = settings.delete && segment.newest_ms > facts.now_ms;
            if is_future && settings.retention_ms >= 0 && !segment.is_last {
                plan.from_the_future = Some(segment.newest_ms);
            }
            break;
        }
        left.size_bytes = left.size_bytes.saturating_sub(segment.bytes);
        plan.segments += 1;
        plan.log_start = Some(segment.end);
        plan.roll = segment.is_last;
    }
    plan
}

fn may_go(settings: &RetentionSettings, facts: &Facts, segment: &Candidate) -> bool {
    if segment.end > facts.high_watermark || (segment.is_last && segment.bytes == 0) {
        return false;
    }
    if segment.end <= facts.log_start && !segment.is_last {
        return true;
    }
    settings.delete
        && (is_too_much(settings, facts, segment) || is_too_old(settings, facts, segment))
}

/// Without it there is still as much as is to be kept.
fn is_too_much(settings: &RetentionSettings, facts: &Facts, segment: &Candidate) -> bool {
    u64::try_from(settings.retention_bytes)
        .is_ok_and(|kept| facts.size_bytes.saturating_sub(segment.bytes) >= kept)
}

fn is_too_old(settings: &RetentionSettings, facts: &Facts, segment: &Candidate) -> bool {
    settings.retention_ms >= 0
        && facts.now_ms.saturating_sub(segment.newest_ms) > settings.retention_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_000_000;

    /// Segments of ten offsets each, from their bytes and their ages.
    fn segments(all: &[(u64, i64)]) -> Vec<Candidate> {
        let ends = (1..).map(|nth: i64| Offset(nth * 10));
        ends.zip(all)
            .enumerate()
            .map(|(nth, (end, (bytes, age_ms)))| Candidate {
                end: if *bytes == 0 { Offset(end.0 - 10) } else { end },
                bytes: *bytes,
                newest_ms: NOW_MS - age_ms,
                is_last: nth + 1 == all.len(),
            })
            .collect()
    }

    fn settings(retention_ms: i64, retention_bytes: i64) -> RetentionSettings {
        RetentionSettings {
            delete: true,
            retention_ms,
            retention_bytes,
        }
    }

    fn decide(
        settings: &RetentionSettings,
        (log_start, high_watermark): (i64, i64),
        all: &[(u64, i64)],
        at_most: usize,
    ) -> Plan {
        let facts = Facts {
            now_ms: NOW_MS,
            log_start: Offset(log_start),
            high_watermark: Offset(high_watermark),
            size_bytes: all.iter().map(|(bytes, _)| bytes).sum(),
        };
        plan(settings, facts, segments(all).into_iter(), at_most)
    }

    /// How many segments go, of all that are durable.
    #[track_caller]
    fn check(settings: RetentionSettings, all: &[(u64, i64)], expected: usize) {
        let plan = decide(&settings, (0, 1000), all, 100);
        assert_eq!(plan.segments, expected, "{settings:?} {all:?}");
        assert_eq!(plan.roll, expected == all.len() && expected > 0);
        assert_eq!(plan.log_start.is_some(), expected > 0);
        assert!(!plan.more);
    }

    #[test]
    fn lr60_by_time() {
        let all = [(5, 300), (5, 200), (5, 100)];
        check(settings(300, -1), &all, 0);
        check(settings(299, -1), &all, 1);
        check(settings(100, -1), &all, 2);
        check(settings(99, -1), &all, 3);
        check(settings(0, -1), &all, 3);
        check(settings(-1, -1), &all, 0);
        check(settings(100, -1), &[(5, 50), (5, 300), (5, 300)], 0);
        check(settings(0, -1), &[], 0);
    }

    #[test]
    fn lr60_by_size() {
        let all = [(10, 0), (20, 0), (30, 0)];
        check(settings(-1, 60), &all, 0);
        check(settings(-1, 51), &all, 0);
        check(settings(-1, 50), &all, 1);
        check(settings(-1, 31), &all, 1);
        check(settings(-1, 30), &all, 2);
        check(settings(-1, 0), &all, 3);
        check(settings(-1, -1), &all, 0);
    }

    #[test]
    fn lr60_both_rules_together() {
        check(
            settings(100, 20),
            &[(10, 200), (10, 0), (10, 0), (10, 0)],
            2,
        );
        check(settings(100, 1000), &[(10, 200), (10, 0)], 1);
    }

    #[test]
    fn lr61_an_empty_last_segment_stays() {
        check(settings(0, 0), &[(0, 500)], 0);
        check(settings(0, 0), &[(5, 500), (0, 500)], 1);
    }

    #[test]
    fn lr61_c3_nothing_beyond_the_high_watermark() {
        let all = [(5, 500), (5, 500), (5, 500)];
        for (high_watermark, expected) in [(0, 0), (9, 0), (10, 1), (19, 1), (29, 2), (30, 3)] {
            let plan = decide(&settings(0, 0), (0, high_watermark), &all, 100);
            assert_eq!(plan.segments, expected, "{high_watermark}");
        }
    }

    #[test]
    fn lr60_what_lies_below_the_log_start_goes_whatever_the_policy() {
        let all = [(5, 0), (5, 0), (5, 0)];
        for (log_start, expected) in [(0, 0), (9, 0), (10, 1), (25, 2), (30, 2)] {
            let plan = decide(&RetentionSettings::KEEP_ALL, (log_start, 30), &all, 100);
            assert_eq!(plan.segments, expected, "{log_start}");
        }
    }

    #[test]
    fn compacted_topics_keep_their_records_whatever_their_age_and_size() {
        let compact = RetentionSettings {
            delete: false,
            ..settings(0, 0)
        };
        check(compact, &[(5, 500), (5, 500)], 0);
    }

    #[test]
    fn lr62_a_timestamp_in_the_future_keeps_a_segment() {
        let all = [(5, 500), (5, -1), (5, 500)];
        let plan = decide(&settings(0, -1), (0, 30), &all, 100);
        assert_eq!((plan.segments, plan.from_the_future), (1, Some(NOW_MS + 1)));
        let unlimited = decide(&settings(-1, -1), (0, 30), &all[1..], 100);
        assert_eq!(unlimited.from_the_future, None);
    }

    #[test]
    fn a_turn_takes_a_few_only() {
        let all = [(5, 500); 5];
        let first = decide(&settings(0, -1), (0, 50), &all, 2);
        assert_eq!((first.segments, first.more, first.roll), (2, true, false));
        assert_eq!(first.log_start, Some(Offset(20)));
        let last = decide(&settings(0, -1), (0, 50), &all, 5);
        assert_eq!((last.segments, last.more, last.roll), (5, false, true));
    }
}
