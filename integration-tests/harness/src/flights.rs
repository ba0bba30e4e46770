//! The data set, and what must come out of it.
//!
//! 200,000 flights (npm package vega-datasets 3.2.1, BSD-3-Clause). A flight is known by its index in the file: thousands of them
//! are equal to an earlier one. The file is sorted by time, so it is sent in strides of a prime, which keeps all partitions busy.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Partitions of every topic.
pub(crate) const PARTITIONS: usize = 6;
/// The i-th record sent has the index `STRIDE * i mod number of records`.
const STRIDE: u64 = 7919;
const HOURS: usize = 24;
/// More than this many minutes is late.
const LATE_MINUTES: i64 = 15;

/// A record of the data set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flight {
    pub(crate) delay: i64,
    pub(crate) distance: i64,
    /// Hours since midnight.
    pub(crate) time: f64,
}

impl Flight {
    /// The whole part of the time.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "times of day lie in 0..24, see `load`"
    )]
    pub(crate) fn hour(&self) -> usize {
        self.time as usize
    }

    pub(crate) fn is_late(&self) -> bool {
        self.delay > LATE_MINUTES
    }
}

/// The data set and how much of it is sent.
pub(crate) struct Flights {
    all: Vec<Flight>,
    count: u64,
}

impl Flights {
    /// Reads the file; `count` records of it are sent, which can't be more than there are.
    pub(crate) fn load(path: &Path, count: u64) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut all: Vec<Flight> = Vec::new();
        for line in BufReader::new(file).lines() {
            let flight: Flight = serde_json::from_str(&line?)
                .with_context(|| format!("line {} of {}", all.len() + 1, path.display()))?;
            ensure!(
                (0.0..24.0).contains(&flight.time),
                "line {}: no time of day",
                all.len() + 1
            );
            all.push(flight);
        }
        ensure!(
            count <= all.len() as u64,
            "{} has {} records, not {count}",
            path.display(),
            all.len()
        );
        ensure!(
            !(all.len() as u64).is_multiple_of(STRIDE),
            "a stride of {STRIDE} does not reach every record"
        );
        Ok(Self { all, count })
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Flight> {
        self.all.get(usize::try_from(index).ok()?)
    }

    /// The indices in the order in which they are sent.
    pub(crate) fn sent(&self) -> impl Iterator<Item = u64> + '_ {
        let total = self.all.len() as u64;
        (0..self.count).map(move |i| STRIDE * i % total)
    }

    /// The indices of each hour in the order in which they are sent.
    pub(crate) fn sent_by_hour(&self) -> Vec<Vec<u64>> {
        let mut hours = vec![Vec::new(); HOURS];
        for index in self.sent() {
            hours[self
                .get(index)
                .expect("an index below the number of records")
                .hour()]
            .push(index);
        }
        hours
    }
}

/// Turns the package's JSON array into one object per line.
pub(crate) fn prepare(json: &Path, out: &Path) -> Result<usize> {
    let file = File::open(json).with_context(|| format!("cannot open {}", json.display()))?;
    let flights: Vec<Flight> =
        serde_json::from_reader(BufReader::new(file)).context("not the data set expected")?;
    // The final name only for a complete file: several runs may share the cache.
    let part = out.with_extension(format!("part-{}", std::process::id()));
    let mut writer = BufWriter::new(
        File::create(&part).with_context(|| format!("cannot write {}", part.display()))?,
    );
    for flight in &flights {
        serde_json::to_writer(&mut writer, flight)?;
        writer.write_all(b"\n")?;
    }
    writer.into_inner()?.sync_all()?;
    std::fs::rename(&part, out)?;
    Ok(flights.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> Flights {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/flights.jsonl");
        Flights::load(&path, 600).unwrap()
    }

    #[test]
    fn every_record_of_the_file_is_sent_once() {
        let mut sent: Vec<u64> = fixture().sent().collect();
        assert_ne!(sent, (0..600).collect::<Vec<_>>());
        sent.sort_unstable();
        assert_eq!(sent, (0..600).collect::<Vec<_>>());
    }

    #[test]
    fn hours_divide_what_is_sent_and_keep_its_order() {
        let flights = fixture();
        let by_hour = flights.sent_by_hour();
        assert_eq!(by_hour.iter().map(Vec::len).sum::<usize>(), 600);
        for (hour, indices) in by_hour.iter().enumerate() {
            let expected: Vec<u64> = flights
                .sent()
                .filter(|i| flights.get(*i).unwrap().hour() == hour)
                .collect();
            assert_eq!(*indices, expected);
        }
    }
}
