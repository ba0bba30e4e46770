//! `tally health`: asks a broker's health page whether it is ready. For the checks of containers, which have no other client.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Done, finish, parse_duration};
use crate::client::Failure;
use crate::output::print;

/// Longest answer that is read: the page has a word, or a reason.
const ANSWER_BYTES_MAX: u64 = 4096;

/// `tally health`.
#[derive(Args, Debug)]
pub(crate) struct Health {
    /// The broker's HTTP port (its --http)
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9610")]
    http: String,
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Runs `tally health`.
pub(crate) fn run(health: &Health) -> ExitCode {
    finish(ask(health))
}

fn ask(health: &Health) -> Result<Done, Failure> {
    let wrong = || Failure::Usage(format!("--http {}: must be http://HOST:PORT", health.http));
    let address = health.http.strip_prefix("http://").unwrap_or(&health.http);
    let address = address.trim_end_matches('/');
    let (_, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    port.parse::<u16>().map_err(|_| wrong())?;
    let unreachable = |error| Failure::Unreachable {
        address: address.to_owned(),
        error,
    };
    let answer = get(address, health.timeout).map_err(unreachable)?;
    if answer.starts_with("HTTP/1.1 200 ") {
        print("ready\n");
        return Ok(Done::Well);
    }
    // The page says why; without one the status has to do.
    let (head, page) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    let why = Some(page.trim()).filter(|page| !page.is_empty());
    Err(unreachable(io::Error::other(format!(
        "it is not ready: {}",
        why.unwrap_or(status)
    ))))
}

fn get(address: &str, timeout: Duration) -> io::Result<String> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, timeout) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                let request =
                    format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes())?;
                let mut answer = Vec::new();
                stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
