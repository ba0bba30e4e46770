//! A request to the worker's REST interface: HTTP/1.0 (a connection for each, the body up to its end), a few kilobytes of JSON both ways.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A worker answers what changes something only when it has read its own record of that.
const ANSWER_DEADLINE: Duration = Duration::from_secs(90);
/// More than any answer is long.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Asks, and gives the answer's body; an answer that is not 2xx is an error with that body.
pub(crate) async fn ask(port: u16, method: &str, path: &str, body: &Value) -> Result<Value> {
    let answer = tokio::time::timeout(ANSWER_DEADLINE, exchange(port, method, path, body))
        .await
        .with_context(|| format!("{method} {path}: no answer after {ANSWER_DEADLINE:?}"))??;
    let text = String::from_utf8(answer)?;
    let (head, body) = text.split_once("\r\n\r\n").context("not HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    let reason = body.lines().find(|line| line.starts_with('{'));
    ensure!(
        status.starts_with('2'),
        "{method} {path}: {status} {}",
        reason.unwrap_or_default()
    );
    if body.trim().is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_str(body)?)
}

async fn exchange(port: u16, method: &str, path: &str, body: &Value) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(answer)
}
