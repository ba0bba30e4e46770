//! The one place that reads the clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tally_protocol::Now;
use tokio::time::Instant;

/// Further ahead nothing is waited for: sleepers look again then.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Both clocks, read together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    /// Where the wall clock stood at the start, if it is moved by hand as the runtime's clock is.
    wall_start_ms: Option<i64>,
}

impl Clock {
    /// The monotonic clock counts from here.
    pub(crate) fn start() -> Clock {
        Clock {
            start: Instant::now(),
            wall_start_ms: crate::simulation::wall_ms(),
        }
    }

    /// The time of one event.
    pub(crate) fn now(self) -> Now {
        let monotonic_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wall_ms = match self.wall_start_ms {
            Some(start_ms) => start_ms.saturating_add_unsigned(monotonic_ms),
            None => {
                let wall = SystemTime::now().duration_since(UNIX_EPOCH);
                let wall = i64::try_from(wall.unwrap_or_default().as_millis());
                // For tests: a clock that was set while the broker was down (CR-27).
                wall.unwrap_or(i64::MAX)
                    .saturating_add(tally_storage::fault_clock_ms())
            }
        };
        Now {
            monotonic_ms,
            wall_ms,
        }
    }

    /// When the monotonic clock shows `deadline_ms`, in the runtime's terms. One millisecond is added, so that whoever
    /// sleeps until then does not wake before it.
    ///
    /// A deadline of another life is one that far away: there are settings of 292 million years.
    pub(crate) fn instant_of(self, deadline_ms: u64) -> Instant {
        let after = Duration::from_millis(deadline_ms.saturating_add(1)).min(FAR);
        self.start + after
    }
}
