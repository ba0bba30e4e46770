//! How the broker is, as its health page says: shared by the start, the stop and [`crate::server::http`].
//!
//! Invariants: what has recovered stays so; ready is who has recovered, was said to be ready and was not told to stop.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Starts as that of a broker that has read nothing yet.
#[derive(Default)]
pub(crate) struct Health {
    is_recovered: AtomicBool,
    is_ready: AtomicBool,
    is_stopping: AtomicBool,
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

    /// Clients are answered from here on.
    pub(crate) fn recovered(&self) {
        self.is_recovered.store(true, Ordering::Release);
    }

    /// What clients were promised is there.
    pub(crate) fn serve(&self) {
        self.is_ready.store(true, Ordering::Release);
    }

    /// It stops.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
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
        let is = |what: &AtomicBool| what.load(Ordering::Acquire);
        let reason = if is(&self.is_stopping) {
            "stopping"
        } else if !is(&self.is_recovered) {
            "recovering"
        } else if !is(&self.is_ready) {
            "making topics"
        } else {
            return Ok("ready");
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
        let not_yet = |reason: &str| Err(format!("{{\"reasons\":[\"{reason}\"]}}"));
        assert_eq!(
            health.started(),
            Err("{\"partitions_done\":0,\"of\":0}".to_owned())
        );
        assert_eq!(health.ready(), not_yet("recovering"));
        health.will_open(2);
        assert_eq!(health.opened_one(), (1, 2));
        assert_eq!(
            health.started(),
            Err("{\"partitions_done\":1,\"of\":2}".to_owned())
        );
        assert_eq!(health.ready(), not_yet("recovering"));
        health.recovered();
        assert_eq!(health.started(), Ok("started"));
        assert_eq!(health.ready(), not_yet("making topics"));
        health.serve();
        assert_eq!(
            (health.started(), health.ready()),
            (Ok("started"), Ok("ready"))
        );
        health.stop();
        assert_eq!(
            (health.started(), health.ready()),
            (Ok("started"), not_yet("stopping"))
        );
    }
}
