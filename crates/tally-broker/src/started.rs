//! How the start went, and which timeouts were refused since: what `tally doctor` tells, in an answer to DescribeCluster.
//!
//! Invariant: one row is kept of what was refused, whoever asks and however often.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tally_protocol::start_note::{CLIENT_ID_BYTES_MAX, StartNote};

/// What opening the partitions came to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Opening {
    pub(crate) opened: usize,
    pub(crate) unopened: usize,
    /// Whose log lost a torn end.
    pub(crate) cut: usize,
}

/// Kept for as long as the broker runs.
pub(crate) struct Started {
    was_clean: bool,
    opening: Opening,
    recovery: Duration,
    at: Instant,
    refused: Mutex<RefusedTimeouts>,
}

#[derive(Default)]
struct RefusedTimeouts {
    count: u64,
    last_ms: i32,
    last_client_id: String,
}

impl Started {
    /// Now, after a recovery that began then.
    pub(crate) fn now(was_clean: bool, opening: Opening, began: Instant) -> Started {
        let at = Instant::now();
        Started {
            was_clean,
            opening,
            recovery: at.saturating_duration_since(began),
            at,
            refused: Mutex::default(),
        }
    }

    /// A client asked for a transaction timeout that is not allowed (I-6).
    pub(crate) fn refused_timeout(&self, timeout_ms: i32, client_id: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.count += 1;
        refused.last_ms = timeout_ms;
        let mut kept = String::new();
        for letter in client_id.chars() {
            if kept.len() + letter.len_utf8() > CLIENT_ID_BYTES_MAX {
                break;
            }
            kept.push(letter);
        }
        refused.last_client_id = kept;
    }

    /// What a person may know.
    pub(crate) fn note(&self) -> StartNote {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        StartNote {
            was_clean: self.was_clean,
            ready_ago_ms: millis(self.at.elapsed()),
            recovery_ms: millis(self.recovery),
            opened: count(self.opening.opened),
            unopened: count(self.opening.unopened),
            cut: count(self.opening.cut),
            refused_timeouts: refused.count,
            refused_timeout_ms: refused.last_ms,
            refused_client_id: refused.last_client_id.clone(),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusal_is_kept_and_all_are_counted() {
        let started = Started::now(false, Opening::default(), Instant::now());
        assert_eq!(started.note().refused_timeouts, 0);
        started.refused_timeout(3_600_000, "flink-sink");
        started.refused_timeout(0, &"\u{e9}".repeat(200));
        let note = started.note();
        assert_eq!((note.refused_timeouts, note.refused_timeout_ms), (2, 0));
        assert_eq!(note.refused_client_id.len(), 254, "whole characters");
    }
}
