//! When a connection was last heard of, and whether it is gone: what a person asks whose readers wait for a transaction.
//!
//! Invariants: nothing is decided by it; it costs two stores for each time that a connection speaks, and no clock that was not
//! read anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// It speaks just now.
const NOW: u64 = u64::MAX;
/// It is still there.
const THERE: u64 = u64::MAX;

/// Of one connection; times are milliseconds since it was accepted.
#[derive(Debug)]
pub(crate) struct Heard {
    accepted: Instant,
    last: AtomicU64,
    gone: AtomicU64,
}

impl Heard {
    /// Of a connection that is accepted now.
    pub(crate) fn new() -> Heard {
        Heard {
            accepted: Instant::now(),
            last: AtomicU64::new(0),
            gone: AtomicU64::new(THERE),
        }
    }

    fn since_accepted(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.accepted);
        since.as_secs() * 1000 + u64::from(since.subsec_millis())
    }

    /// It has begun to speak.
    pub(crate) fn speaks(&self) {
        self.last.store(NOW, Ordering::Relaxed);
    }

    /// It has no more to say, since then.
    pub(crate) fn is_quiet(&self, since: Instant) {
        self.last
            .store(self.since_accepted(since), Ordering::Relaxed);
    }

    /// It is gone, since then. Who was speaking spoke last then.
    pub(crate) fn is_gone(&self, since: Instant) {
        let since = self.since_accepted(since);
        if self.last.load(Ordering::Relaxed) == NOW {
            self.last.store(since, Ordering::Relaxed);
        }
        self.gone.store(since, Ordering::Relaxed);
    }

    /// How long ago it spoke last, and how long ago it went, if it has.
    pub(crate) fn ago(&self, now: Instant) -> (Duration, Option<Duration>) {
        let now = self.since_accepted(now);
        let ago = |at: u64| Duration::from_millis(now.saturating_sub(at));
        let gone = self.gone.load(Ordering::Relaxed);
        let last = ago(self.last.load(Ordering::Relaxed));
        (last, (gone != THERE).then(|| ago(gone)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_is_heard_and_who_goes_is_gone() {
        let heard = Heard::new();
        let at = |ms: u64| heard.accepted + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        assert_eq!(heard.ago(at(5)), (ms(5), None), "accepted");
        heard.speaks();
        assert_eq!(heard.ago(at(9)), (ms(0), None));
        heard.is_quiet(at(10));
        assert_eq!(heard.ago(at(1_510)), (ms(1_500), None));
        heard.is_gone(at(2_000));
        assert_eq!(heard.ago(at(3_000)), (ms(2_990), Some(ms(1_000))));
        heard.speaks();
        heard.is_gone(at(4_000));
        assert_eq!(heard.ago(at(4_001)), (ms(1), Some(ms(1))), "in a request");
    }
}
