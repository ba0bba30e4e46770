//! Accepts connections, up to a limit, until it is told to stop.

use crate::api::Node;
use crate::server::connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Connections served at once, whatever `max.connections` says: each costs a file descriptor and a buffer.
const CONNECTIONS_MAX: usize = 100_000;
/// What to wait after a failed accept (out of file descriptors, say): others have to close first.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(20);

/// Accepts until `stop` changes.
pub(crate) async fn serve(node: Arc<Node>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    // As many as there are connections, and one.
    let open = Arc::new(());
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
                let limit = node.metadata.config().max_connections.min(CONNECTIONS_MAX);
                if Arc::strong_count(&open) > limit {
                    tracing::warn!(%peer, limit, "connection refused: too many connections");
                    continue;
                }
                let slot = Arc::clone(&open);
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                let node = Arc::clone(&node);
                let stop = stop.clone();
                tokio::spawn(async move {
                    connection::serve(node, stream, peer, number, stop).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
