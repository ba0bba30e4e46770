//! The health page: `GET /livez`, `GET /readyz` and `GET /startupz` over HTTP/1.1, nothing else. It is there before the
//! recovery begins.
//!
//! Written by hand, because a web server is a large dependency for three words. Invariants: one request per connection;
//! a request's size, its time and the number of connections are bounded; no request can touch the broker.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::health::Health;

/// Longest request, headers included: probes send a few hundred bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Longest time from accepting to the answer's last byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// What to wait after a failed accept (out of file descriptors, say).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Answers until `stop` changes. `health` is what the pages tell.
pub(crate) async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            _ = stop.changed() => return,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let health = Arc::clone(&health);
                tokio::spawn(async move {
                    match timeout(REQUEST_TIMEOUT, answer(stream, &health)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "HTTP connection failed"),
                        Err(_) => tracing::debug!("HTTP connection too slow"),
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "HTTP connection not accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// The next connection, once there is a slot for it.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn answer(mut stream: TcpStream, health: &Health) -> io::Result<()> {
    let mut request = Vec::with_capacity(512);
    let response = loop {
        if let Some(head) = head_of(&request) {
            break respond(head, health);
        }
        if request.len() >= REQUEST_BYTES_MAX {
            break response(431, "Request Header Fields Too Large", "too large", true);
        }
        let room = REQUEST_BYTES_MAX - request.len();
        if (&mut stream)
            .take(room as u64)
            .read_buf(&mut request)
            .await?
            == 0
        {
            return Ok(());
        }
    };
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

/// The request up to the empty line that ends it, when that is there.
fn head_of(request: &[u8]) -> Option<&[u8]> {
    let end = request
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?;
    Some(&request[..end])
}

fn respond(head: &[u8], health: &Health) -> String {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with(b"HTTP/1.")) {
        return response(400, "Bad Request", "not HTTP/1.1", true);
    }
    let with_body = match method {
        Some(b"GET") => true,
        Some(b"HEAD") => false,
        _ => return response(405, "Method Not Allowed", "only GET and HEAD", true),
    };
    let path = target
        .and_then(|target| target.split(|byte| *byte == b'?').next())
        .unwrap_or_default();
    match path {
        b"/livez" => response(200, "OK", "alive", with_body),
        b"/readyz" => answered(health.ready(), with_body),
        b"/startupz" => answered(health.started(), with_body),
        _ => response(
            404,
            "Not Found",
            "only /livez, /readyz and /startupz are here",
            with_body,
        ),
    }
}

fn answered(answer: Result<&'static str, String>, with_body: bool) -> String {
    match answer {
        Ok(text) => response(200, "OK", text, with_body),
        Err(text) => response(503, "Service Unavailable", &text, with_body),
    }
}

fn response(status: u16, reason: &str, text: &str, with_body: bool) -> String {
    let body = if with_body {
        format!("{text}\n")
    } else {
        String::new()
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}",
        text.len() + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server answers to these bytes.
    async fn ask(request: &[u8], is_ready: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let health = Arc::new(Health::default());
        if is_ready {
            health.recovered();
            health.serve();
        }
        let server = tokio::spawn(serve(listener, health, stopped));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(request).await.unwrap();
        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        stop.send(true).unwrap();
        server.await.unwrap();
        response
    }

    #[track_caller]
    fn check(request: &str, is_ready: bool, expected: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let response = runtime.block_on(ask(request.as_bytes(), is_ready));
        let line = response.lines().next().unwrap_or_default();
        assert_eq!(line, expected, "{request:?}");
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        if !request.starts_with("HEAD") {
            let length = format!("Content-Length: {}", body.len());
            assert!(head.contains(&length), "{response}");
        }
    }

    #[test]
    fn the_pages_say_how_the_broker_is() {
        check("GET /startupz HTTP/1.1\r\n\r\n", true, "HTTP/1.1 200 OK");
        check(
            "GET /startupz HTTP/1.1\r\n\r\n",
            false,
            "HTTP/1.1 503 Service Unavailable",
        );
        check(
            "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
            false,
            "HTTP/1.1 200 OK",
        );
        check("GET /readyz HTTP/1.1\r\n\r\n", true, "HTTP/1.1 200 OK");
        check(
            "GET /readyz?verbose HTTP/1.0\r\n\r\n",
            true,
            "HTTP/1.1 200 OK",
        );
        check(
            "GET /readyz HTTP/1.1\r\n\r\n",
            false,
            "HTTP/1.1 503 Service Unavailable",
        );
        check("HEAD /livez HTTP/1.1\r\n\r\n", true, "HTTP/1.1 200 OK");
    }

    #[test]
    fn anything_else_is_refused() {
        check("GET / HTTP/1.1\r\n\r\n", true, "HTTP/1.1 404 Not Found");
        check(
            "POST /livez HTTP/1.1\r\n\r\n",
            true,
            "HTTP/1.1 405 Method Not Allowed",
        );
        check("GET /livez\r\n\r\n", true, "HTTP/1.1 400 Bad Request");
        check("\r\n\r\n", true, "HTTP/1.1 400 Bad Request");
        let long = "x".repeat(REQUEST_BYTES_MAX);
        check(&long, true, "HTTP/1.1 431 Request Header Fields Too Large");
    }

    #[test]
    fn half_a_request_is_not_answered() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            client.write_all(b"GET /livez").await.unwrap();
            client.shutdown().await.unwrap();
            answer(stream, &Health::default()).await.unwrap();
            let mut response = String::new();
            client.read_to_string(&mut response).await.unwrap();
            assert_eq!(response, "");
        });
    }
}
