//! The records of the job: how the data file is read and how a flight looks as a message.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Partitions of every topic of the job.
pub(crate) const PARTITIONS: u32 = 6;
/// A flight is late when it is delayed by more than this many minutes.
const LATE_MINUTES: i64 = 15;

/// One line of the data file.
#[derive(Deserialize)]
pub(crate) struct Flight {
    pub(crate) delay: i64,
    pub(crate) distance: i64,
    /// Hours since midnight.
    pub(crate) time: f64,
}

/// Value of a message of the input topic.
#[derive(Serialize, Deserialize)]
pub(crate) struct InputValue {
    pub(crate) index: u64,
    pub(crate) delay: i64,
    pub(crate) distance: i64,
    pub(crate) time: f64,
}

/// Value of a message of the output topic.
#[derive(Serialize)]
pub(crate) struct OutputValue {
    pub(crate) index: u64,
    pub(crate) hour: u32,
    pub(crate) late: bool,
}

/// The whole part of the time of day.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times of day lie in 0..24"
)]
pub(crate) fn hour_of(time: f64) -> u32 {
    time as u32
}

impl InputValue {
    pub(crate) fn hour(&self) -> u32 {
        hour_of(self.time)
    }

    pub(crate) fn is_late(&self) -> bool {
        self.delay > LATE_MINUTES
    }
}

/// Reads the data file, one JSON object per line.
pub(crate) fn load(path: &Path) -> Result<Vec<Flight>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut flights = Vec::new();
    for line in BufReader::new(file).lines() {
        flights.push(
            serde_json::from_str(&line?)
                .with_context(|| format!("line {} is no flight", flights.len()))?,
        );
    }
    Ok(flights)
}
