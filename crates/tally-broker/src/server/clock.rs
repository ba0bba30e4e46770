//! The one place that reads the clocks.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tally_protocol::Now;
use tokio::time::Instant;

/// Further ahead nothing is waited for: sleepers look again then.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long the wall clock is taken to be as far from the monotonic one as it was: a wall clock that is set is noticed then.
/// Each reading of a clock costs a request of a few microseconds a hundredth of its time.
const COMPARED_EVERY: Duration = Duration::from_millis(10);

/// Both clocks, read together.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// Nanoseconds of the wall clock when the monotonic one showed zero, as they were last compared.
    wall_at_zero_ns: AtomicI64,
    /// When they are to be compared again, nanoseconds of the monotonic clock.
    compare_at_ns: AtomicU64,
    /// Where the wall clock stood at the start, if it is moved by hand as the runtime's clock is.
    wall_start_ms: Option<i64>,
}

impl Clock {
    /// The monotonic clock counts from here.
    pub(crate) fn start() -> Clock {
        Clock {
            start: Instant::now(),
            wall_at_zero_ns: AtomicI64::new(0),
            compare_at_ns: AtomicU64::new(0),
            wall_start_ms: crate::simulation::wall_ms(),
        }
    }

    /// The time of one event.
    pub(crate) fn now(&self) -> Now {
        let elapsed = self.start.elapsed();
        let monotonic_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let wall_ms = match self.wall_start_ms {
            Some(start_ms) => start_ms.saturating_add_unsigned(monotonic_ms),
            None => {
                // For tests: a clock that was set while the broker was down (CR-27).
                let moved_ms = tally_storage::fault_clock_ms();
                self.wall_ms(elapsed).saturating_add(moved_ms)
            }
        };
        Now {
            monotonic_ms,
            wall_ms,
        }
    }

    /// The wall clock, `elapsed` after the start. Threads that compare at the same time find the same.
    fn wall_ms(&self, elapsed: Duration) -> i64 {
        let elapsed_ns = nanoseconds(elapsed);
        if elapsed_ns.cast_unsigned() >= self.compare_at_ns.load(Ordering::Acquire) {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH);
            let at_zero_ns = nanoseconds(wall.unwrap_or_default()) - elapsed_ns;
            self.wall_at_zero_ns.store(at_zero_ns, Ordering::Relaxed);
            let next_ns = nanoseconds(elapsed.saturating_add(COMPARED_EVERY)).cast_unsigned();
            self.compare_at_ns.store(next_ns, Ordering::Release);
        }
        let wall_ns = self
            .wall_at_zero_ns
            .load(Ordering::Relaxed)
            .saturating_add(elapsed_ns);
        wall_ns.div_euclid(1_000_000)
    }

    /// When the monotonic clock shows `deadline_ms`, in the runtime's terms. One millisecond is added, so that whoever
    /// sleeps until then does not wake before it.
    ///
    /// A deadline of another life is one that far away: there are settings of 292 million years.
    pub(crate) fn instant_of(&self, deadline_ms: u64) -> Instant {
        let after = Duration::from_millis(deadline_ms.saturating_add(1)).min(FAR);
        self.start + after
    }
}

/// 292 years, if there are more.
fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall_now_ms() -> i64 {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(wall.as_millis()).unwrap()
    }

    #[test]
    fn the_wall_clock_is_the_systems() {
        let clock = Clock::start();
        for _ in 0..1000 {
            let before = wall_now_ms();
            let now = clock.now().wall_ms;
            // A clock that is adjusted meanwhile runs a little faster or slower.
            assert!((before - 1..=wall_now_ms() + 1).contains(&now));
        }
    }

    #[test]
    fn a_wall_clock_that_is_set_is_noticed() {
        let clock = Clock::start();
        let at = Duration::from_secs(5);
        let right = clock.wall_ms(at);
        clock
            .wall_at_zero_ns
            .fetch_sub(60_000_000_000, Ordering::Relaxed);
        assert_eq!(clock.wall_ms(at), right - 60_000, "not compared yet");
        let later = clock.wall_ms(at + COMPARED_EVERY);
        assert!((wall_now_ms() - later).abs() <= 30_000, "{later}, {right}");
    }
}
