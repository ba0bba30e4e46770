//! How the broker is, as its health page says: shared by the start, the stop and [`crate::server::http`].
//!
//! Invariants: what has recovered stays so; ready is who has recovered and was not told to stop.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Starts as that of a broker that has read nothing yet.
#[derive(Default)]
pub(crate) struct Health {
    is_recovered: AtomicBool,
    is_ready: AtomicBool,
    opened: AtomicUsize,
    of: AtomicUsize,
}

impl Health {
    /// So many partitions are to be opened.
    pub(crate) fn will_open(&self, count: usize) {
        self.of.store(count, Ordering::Relaxed);
    }

    /// One more partition is open: how many are, and of how many.
    pub(crate) fn opened_one(&self) -> (usize, usize) {
        let opened = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
        (opened, self.of.load(Ordering::Relaxed))
    }

    /// Clients are served from here on.
    pub(crate) fn serve(&self) {
        self.is_recovered.store(true, Ordering::Release);
        self.is_ready.store(true, Ordering::Release);
    }

    /// It stops.
    pub(crate) fn stop(&self) {
        self.is_ready.store(false, Ordering::Release);
    }

    /// What `/startupz` says: how far the recovery is, as JSON, until it is over.
    pub(crate) fn started(&self) -> Result<&'static str, String> {
        if self.is_recovered.load(Ordering::Acquire) {
            return Ok("started");
        }
        let (opened, of) = (&self.opened, &self.of);
        Err(format!(
            "{{\"partitions_done\":{},\"of\":{}}}",
            opened.load(Ordering::Relaxed),
            of.load(Ordering::Relaxed)
        ))
    }

    /// What `/readyz` says; the reason why not, as JSON.
    pub(crate) fn ready(&self) -> Result<&'static str, String> {
        if self.is_ready.load(Ordering::Acquire) {
            return Ok("ready");
        }
        let reason = match self.is_recovered.load(Ordering::Acquire) {
            true => "stopping",
            false => "recovering",
        };
        Err(format!("{{\"reasons\":[\"{reason}\"]}}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_recovers_serves_and_stops() {
        let health = Health::default();
        let recovering = Err("{\"reasons\":[\"recovering\"]}".to_owned());
        assert_eq!(
            health.started(),
            Err("{\"partitions_done\":0,\"of\":0}".to_owned())
        );
        assert_eq!(health.ready(), recovering);
        health.will_open(2);
        assert_eq!(health.opened_one(), (1, 2));
        assert_eq!(
            health.started(),
            Err("{\"partitions_done\":1,\"of\":2}".to_owned())
        );
        assert_eq!(health.ready(), recovering);
        health.serve();
        assert_eq!(
            (health.started(), health.ready()),
            (Ok("started"), Ok("ready"))
        );
        health.stop();
        let stopping = Err("{\"reasons\":[\"stopping\"]}".to_owned());
        assert_eq!(
            (health.started(), health.ready()),
            (Ok("started"), stopping)
        );
    }
}
