//! Runs the checks one after the other and prints a line for each, as ../../../README.md says.

use std::fmt::Debug;
use std::io::stdin;
use std::ops::Range;
use std::process::exit;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use crate::Client;

const NAMES: [&str; 19] = [
    "codec-none",
    "codec-gzip",
    "codec-snappy",
    "codec-lz4",
    "codec-zstd",
    "group-consume",
    "group-rebalance",
    "idempotence",
    "transaction-commit-abort",
    "transaction-offsets",
    "seek",
    "timestamp-lookup",
    "headers",
    "large-record",
    "empty-record",
    "tombstone",
    "admin-topics",
    "admin-config",
    "reconnect",
];
/// A check that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// How a check ended that did not fail.
pub(crate) enum Outcome {
    Passed,
    /// Why it can't be done.
    Skipped(&'static str),
}

/// Ends the process; the exit code is 1 when a check failed.
pub(crate) fn run(check: fn(&Client, &str) -> Result<Outcome>) -> ! {
    let option = |name: &str| {
        let mut words = std::env::args().skip_while(|word| word != name);
        words.nth(1).unwrap_or_else(|| {
            eprintln!("{name} is missing");
            exit(2)
        })
    };
    let client = Arc::new(Client {
        bootstrap: option("--bootstrap"),
        prefix: option("--prefix"),
    });
    let mut status = 0;
    for name in NAMES {
        let (sender, outcome) = channel();
        let client = Arc::clone(&client);
        // Nobody waits any more for one that hangs.
        thread::spawn(move || drop(sender.send(check(&client, name))));
        match outcome
            .recv_timeout(LIMIT)
            .unwrap_or_else(|error| Err(anyhow!("no end: {error}")))
        {
            Ok(Outcome::Passed) => println!("ok {name}"),
            Ok(Outcome::Skipped(reason)) => println!("skipped {name}: {reason}"),
            Err(error) => {
                status = 1;
                println!("failed {name}: {}", format!("{error:#}").replace('\n', " "));
            }
        }
    }
    exit(status)
}

/// Values that compress well.
pub(crate) fn texts(range: Range<usize>) -> Vec<Vec<u8>> {
    range
        .map(|i| format!("record {i} ").repeat(10).into_bytes())
        .collect()
}

/// An error when GOT is not WANTED.
pub(crate) fn expect<T: PartialEq + Debug>(what: &str, got: &T, wanted: &T) -> Result<()> {
    if got != wanted {
        let short = |value: &T| format!("{value:?}").chars().take(200).collect::<String>();
        bail!("{what}: {} instead of {}", short(got), short(wanted));
    }
    Ok(())
}

/// An error when the condition does not come true.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition()? {
        if Instant::now() > deadline {
            bail!("{what} did not come about");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Returns once the broker was killed and started again; false where it is not ours.
pub(crate) fn restart_broker() -> Result<bool> {
    println!("restart");
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "restarted")
}
