//! The one place that reads the clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tally_protocol::Now;

/// Further ahead nothing is waited for: sleepers look again then.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Both clocks, read together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// The monotonic clock counts from here.
    pub(crate) fn start() -> Clock {
        Clock {
            start: Instant::now(),
        }
    }

    /// The time of one event.
    pub(crate) fn now(self) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            monotonic_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// When the monotonic clock shows `deadline_ms`, in the runtime's terms. One millisecond is added, so that whoever
    /// sleeps until then does not wake before it.
    ///
    /// A deadline of another life is one that far away: there are settings of 292 million years.
    pub(crate) fn instant_of(self, deadline_ms: u64) -> tokio::time::Instant {
        let after = Duration::from_millis(deadline_ms.saturating_add(1)).min(FAR);
        tokio::time::Instant::from_std(self.start + after)
    }
}
