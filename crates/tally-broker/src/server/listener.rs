//! Accepts connections, up to a limit, until it is told to stop.

use crate::api::Node;
use crate::server::connection;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Connections served at once, whatever `max.connections` says: each costs a file descriptor and a buffer.
const CONNECTIONS_MAX: usize = 100_000;
/// What to wait after a failed accept (out of file descriptors, say): others have to close first.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// Open connections by the address they come from. Addresses without any are not in it.
#[derive(Debug, Default)]
struct Sources(Mutex<BTreeMap<IpAddr, usize>>);

/// A connection that counts; until it is dropped.
#[derive(Debug)]
struct Counted {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Sources {
    /// Counts one more, if there are fewer than `limit` (LR-157).
    fn count(self: &Arc<Self>, source: IpAddr, limit: usize) -> Option<Counted> {
        let source = source.to_canonical();
        let mut counts = self.lock();
        let count = counts.get(&source).copied().unwrap_or(0);
        if count >= limit {
            return None;
        }
        counts.insert(source, count + 1);
        Some(Counted {
            sources: Arc::clone(self),
            source,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        // Nothing that can panic happens under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.sources.lock();
        match counts.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = counts.remove(&self.source),
        }
    }
}

/// Accepts until `stop` changes.
pub(crate) async fn serve(node: Arc<Node>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    // As many as there are connections, and one.
    let open = Arc::new(());
    let sources = Arc::new(Sources::default());
    // Numbered in accept order, from 1 (B-2).
    let numbers = AtomicU64::new(1);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                // The limit may be changed at run time; who is there already may stay.
                let config = node.metadata.config();
                let limit = config.max_connections.min(CONNECTIONS_MAX);
                if Arc::strong_count(&open) > limit {
                    tracing::warn!(%peer, limit, "connection refused: too many connections");
                    continue;
                }
                let own = config
                    .max_connections_per_ip_overrides
                    .get(&peer.ip().to_canonical());
                let limit = own.copied().unwrap_or(config.max_connections_per_ip);
                let Some(counted) = sources.count(peer.ip(), limit) else {
                    tracing::warn!(%peer, limit, "connection refused: too many from this address");
                    continue;
                };
                let slot = Arc::clone(&open);
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                let node = Arc::clone(&node);
                let stop = stop.clone();
                let held = (slot, counted);
                tokio::spawn(connection::serve(node, stream, peer, number, stop, held));
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lr157_connections_are_counted_by_address_while_they_last() {
        let sources = Arc::new(Sources::default());
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let there: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(sources.count(here, 0).is_none());
        let first = sources.count(here, 2).unwrap();
        let second = sources.count(mapped, 2).unwrap();
        assert!(sources.count(here, 2).is_none(), "one address, two names");
        assert!(sources.count(there, 2).is_some());
        drop(first);
        let third = sources.count(here, 2).unwrap();
        assert!(sources.count(here, 2).is_none());
        drop((second, third));
        assert!(sources.lock().is_empty());
    }
}
