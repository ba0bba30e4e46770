//! What can be seen of the machine: its disk and the broker's open files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cluster::Seen;
use super::{Findings, Level};
use crate::port_holder::holder_of;

/// How often the disk is tried, and for how long at most.
const PROBES: usize = 200;
const PROBES_TIME: Duration = Duration::from_secs(3);
const PROBE_BYTES: usize = 4096;
/// A sync that takes longer is felt in every commit.
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// From this share of the limit on a word is due.
const FILES_PERCENT_HIGH: u64 = 80;

pub(super) fn examine(data: Option<&Path>, seen: &Seen, findings: &mut Findings) {
    let directory = match data {
        Some(data) => Some(data.to_owned()),
        None => seen
            .directories
            .iter()
            .map(PathBuf::from)
            .find(|directory| directory.is_dir()),
    };
    if let Some(directory) = directory {
        disk(&directory, findings);
    }
    for port in &seen.ports {
        if let Some(holder) = holder_of(*port) {
            files(holder.pid, findings);
        }
    }
}

fn disk(directory: &Path, findings: &mut Findings) {
    let shown = directory.display();
    match probe(directory) {
        Ok(mut times) => {
            times.sort_unstable();
            let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1));
            let (half, most) = (at(50).copied(), at(99).copied());
            let (half, most) = (half.unwrap_or_default(), most.unwrap_or_default());
            let level = if half > SYNC_SLOW {
                Level::Warn
            } else {
                Level::Ok
            };
            let text = format!(
                "{shown}: fdatasync p50 {} p99 {} ({} probes)",
                millis(half),
                millis(most),
                times.len()
            );
            findings.add(level, "disk", text);
        }
        Err(error) => {
            let text = format!("{shown} could not be tried: {error}");
            findings.add(Level::Warn, "disk", text);
        }
    }
}

fn millis(time: Duration) -> String {
    format!("{}.{} ms", time.as_millis(), time.as_micros() % 1000 / 100)
}

/// How long it takes to write and sync a little, again and again. Never empty.
fn probe(directory: &Path) -> io::Result<Vec<Duration>> {
    let mut file = nameless(directory)?;
    let bytes = [0; PROBE_BYTES];
    let began = Instant::now();
    let mut times = Vec::new();
    while times.is_empty() || times.len() < PROBES && began.elapsed() < PROBES_TIME {
        let before = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times.push(before.elapsed());
    }
    Ok(times)
}

/// A file that is gone with this process, whatever becomes of it.
fn nameless(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!(".doctor-{}", std::process::id()));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// The broker's limit of open files, if its process can be looked at.
fn files(pid: u32, findings: &mut Findings) {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(limits) = fs::read_to_string(process.join("limits")) else {
        return;
    };
    let Ok(open) = fs::read_dir(process.join("fd")) else {
        return;
    };
    let open = u64::try_from(open.count()).unwrap_or(u64::MAX);
    let Some(limit) = soft_limit(&limits) else {
        return;
    };
    let is_high = open.saturating_mul(100) >= limit.saturating_mul(FILES_PERCENT_HIGH);
    let level = if is_high { Level::Warn } else { Level::Ok };
    findings.add(
        level,
        "files",
        format!("pid {pid}: limit {limit}, in use {open}"),
    );
}

/// From a table of `/proc/PID/limits`; `None` where there is no limit.
fn soft_limit(limits: &str) -> Option<u64> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(soft_limit(limits), Some(1024));
        assert_eq!(
            soft_limit("Max open files  unlimited  unlimited  files"),
            None
        );
        assert_eq!(soft_limit(""), None);
    }

    #[test]
    fn times_are_said_to_a_tenth() {
        assert_eq!(millis(Duration::from_micros(3149)), "3.1 ms");
    }
}
