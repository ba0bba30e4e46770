//! What clients that are broken, gone or malicious must not be able to do (B-26): end the broker, make it keep what
//! nobody needs, or make it answer megabytes for bytes.

mod answers;
mod connections;
mod deletion;
mod names;

use tally_testkit::broker::Broker;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");

/// How many sockets the broker has.
fn sockets(broker: &Broker) -> usize {
    let directory = format!("/proc/{}/fd", broker.pid());
    let files = std::fs::read_dir(directory).expect("the broker runs");
    let is_socket = |path: &std::path::Path| {
        std::fs::read_link(path).is_ok_and(|file| file.to_string_lossy().starts_with("socket:"))
    };
    files
        .flatten()
        .filter(|file| is_socket(&file.path()))
        .count()
}

/// What the broker has in memory besides mapped files.
fn anonymous_bytes(broker: &Broker) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()));
    let status = status.expect("the broker runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: usize = kib.and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1024
}
