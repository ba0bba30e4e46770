//! How many bytes a second somebody moves, over the windows of `quota.window.num` and `quota.window.size.seconds` (LR-160).
//!
//! Owns the windows of one rate. Time is handed in. Invariants: there is one window more at most than are looked at; what
//! is older than all of them counts no more, so that a rate that was idle for so long is a new one.

use std::collections::VecDeque;

/// How long is looked back, and in which steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Windows {
    count: u64,
    size_ms: u64,
}

/// What was moved in the last windows, oldest first.
#[derive(Default, Debug)]
pub(crate) struct Rate(VecDeque<Window>);

#[derive(Debug)]
struct Window {
    start_ms: u64,
    last_ms: u64,
    bytes: f64,
}

impl Windows {
    /// So many windows of so many seconds; one of one second at least.
    pub(crate) fn new(count: u64, size_seconds: u64) -> Windows {
        Windows {
            count: count.max(1),
            size_ms: size_seconds.max(1).saturating_mul(1000),
        }
    }

    /// What a limit allows at once to one who has moved nothing for long (LR-103).
    pub(crate) fn bytes_at_once(self, limit: f64) -> f64 {
        let whole = self.size_ms.saturating_mul((self.count - 1).max(1));
        limit * whole as f64 / 1000.0
    }

    fn all_ms(self) -> u64 {
        self.size_ms.saturating_mul(self.count)
    }
}

impl Rate {
    /// Counts what was moved; for how many milliseconds nothing more is to be moved, so that the rate falls to the limit.
    pub(crate) fn charge(&mut self, windows: Windows, now_ms: u64, bytes: f64, limit: f64) -> f64 {
        self.forget_old(windows, now_ms);
        let is_full = |window: &Window| now_ms.saturating_sub(window.start_ms) >= windows.size_ms;
        match self.0.back_mut() {
            Some(window) if !is_full(window) => {
                window.last_ms = now_ms;
                window.bytes += bytes;
            }
            _ => self.0.push_back(Window {
                start_ms: now_ms,
                last_ms: now_ms,
                bytes,
            }),
        }
        self.excess(windows, now_ms, 0.0, limit)
    }

    /// Counts what is about to be moved, unless that is too much: then nothing is counted, and it is to be asked for again
    /// after so many milliseconds.
    ///
    /// To one who has moved nothing for long even a single batch is given that is larger than the limit allows at once: it
    /// could never be had else.
    pub(crate) fn admit(
        &mut self,
        windows: Windows,
        now_ms: u64,
        bytes: f64,
        limit: f64,
    ) -> Result<(), f64> {
        let excess = if self.is_idle(windows, now_ms) {
            0.0
        } else {
            self.excess(windows, now_ms, bytes, limit)
        };
        if excess > 0.0 {
            return Err(excess);
        }
        self.charge(windows, now_ms, bytes, limit);
        Ok(())
    }

    /// Whether nothing is counted any more.
    pub(crate) fn is_idle(&mut self, windows: Windows, now_ms: u64) -> bool {
        self.forget_old(windows, now_ms);
        self.0.is_empty()
    }

    /// `(rate - limit) / limit * window length`, in whole milliseconds; 0 within the limit.
    fn excess(&self, windows: Windows, now_ms: u64, more: f64, limit: f64) -> f64 {
        let bytes: f64 = self.0.iter().map(|window| window.bytes).sum();
        let length_ms = self.length_ms(windows, now_ms) as f64;
        let rate = (bytes + more) * 1000.0 / length_ms;
        ((rate - limit) / limit * length_ms).round().max(0.0)
    }

    /// All windows but the newest count as whole also when there have been fewer so far: else the first bytes of a quiet
    /// client would look like a high rate.
    fn length_ms(&self, windows: Windows, now_ms: u64) -> u64 {
        let oldest = self.0.front().map_or(now_ms, |window| window.start_ms);
        let since_ms = now_ms.saturating_sub(oldest);
        let whole_ms = windows.all_ms() - windows.size_ms;
        let length_ms = if since_ms >= whole_ms {
            since_ms
        } else {
            whole_ms + since_ms % windows.size_ms
        };
        length_ms.max(windows.size_ms)
    }

    fn forget_old(&mut self, windows: Windows, now_ms: u64) {
        let is_old = |window: &Window| now_ms.saturating_sub(window.last_ms) >= windows.all_ms();
        while self.0.front().is_some_and(is_old) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: f64 = 1000.0;

    fn defaults() -> Windows {
        Windows::new(11, 1)
    }

    #[test]
    fn lr160_ten_seconds_worth_are_free_and_what_is_more_is_waited_for() {
        let mut rate = Rate::default();
        assert!(rate.charge(defaults(), 500, 10_000.0, LIMIT) <= 0.0);
        // 11,000 bytes in 10 s: a tenth too much, of 10 s.
        let wait = rate.charge(defaults(), 500, 1000.0, LIMIT);
        assert!((wait - 1000.0).abs() < 0.5, "{wait}");
    }

    #[test]
    fn lr160_who_waits_as_told_moves_as_much_as_the_limit_says() {
        let mut rate = Rate::default();
        let (mut now_ms, mut bytes) = (0, 0.0);
        while now_ms < 600_000 {
            let wait = rate.charge(defaults(), now_ms, 5000.0, LIMIT);
            bytes += 5000.0;
            now_ms += 1;
            now_ms += (0..).take_while(|ms| f64::from(*ms) < wait).count() as u64;
        }
        let per_second = bytes * 1000.0 / now_ms as f64;
        assert!((0.9..1.1).contains(&(per_second / LIMIT)), "{per_second}");
    }

    #[test]
    fn lr160_what_is_older_than_all_windows_counts_no_more() {
        let mut rate = Rate::default();
        assert!(rate.charge(defaults(), 0, 1e6, LIMIT) > 0.0);
        assert!(!rate.is_idle(defaults(), 10_999));
        assert!(rate.is_idle(defaults(), 11_000));
        assert!(rate.charge(defaults(), 11_000, 10_000.0, LIMIT) <= 0.0);
    }

    #[test]
    fn lr162_what_is_refused_is_not_counted() {
        let mut rate = Rate::default();
        assert_eq!(rate.admit(defaults(), 0, 8000.0, LIMIT), Ok(()));
        let refused = rate.admit(defaults(), 0, 4000.0, LIMIT);
        assert!(refused.is_err_and(|wait| (wait - 2000.0).abs() < 0.5));
        assert_eq!(rate.admit(defaults(), 0, 2000.0, LIMIT), Ok(()));
        assert!(rate.admit(defaults(), 0, 1000.0, LIMIT).is_err());
    }

    #[test]
    fn lr162_one_large_batch_is_given_to_one_who_had_nothing_for_long() {
        let mut rate = Rate::default();
        assert_eq!(rate.admit(defaults(), 0, 1e9, LIMIT), Ok(()));
        assert!(rate.admit(defaults(), 10_000, 1.0, LIMIT).is_err());
        assert_eq!(rate.admit(defaults(), 11_000, 1e9, LIMIT), Ok(()));
    }

    #[test]
    fn lr160_the_windows_are_few_whatever_comes() {
        let mut rate = Rate::default();
        for now_ms in 0..100_000 {
            rate.charge(defaults(), now_ms, 1.0, LIMIT);
        }
        assert!(rate.0.len() <= 12, "{}", rate.0.len());
    }

    #[test]
    fn lr160_odd_windows_are_no_division_by_nothing() {
        for windows in [Windows::new(0, 0), Windows::new(u64::MAX, u64::MAX)] {
            let mut rate = Rate::default();
            for (now_ms, bytes) in [(u64::MAX, 1.0), (0, f64::MAX), (7, f64::MAX)] {
                assert!(rate.charge(windows, now_ms, bytes, 1e-300) >= 0.0);
            }
            assert!(windows.bytes_at_once(1.0) >= 1.0);
        }
    }
}
