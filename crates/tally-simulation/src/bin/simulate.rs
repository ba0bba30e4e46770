//! Tells the stories of many seeds, or of one: what `scripts/simulate` runs.
#![allow(
    clippy::print_stdout,
    reason = "a program for people: it says what it found"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tally_simulation::{run, run_many};

/// Seeds between two notes of how far it has come.
const CHUNK: u64 = 500;

struct Options {
    seed: Option<u64>,
    first: u64,
    count: u64,
    state: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        seed: None,
        first: 0,
        count: 1000,
        state: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        let number = || {
            value
                .parse()
                .map_err(|_| format!("{name} {value}: not a number"))
        };
        match name.as_str() {
            "--seed" => options.seed = Some(number()?),
            "--from" => options.first = number()?,
            "--count" => options.count = number()?,
            "--state" => options.state = Some(PathBuf::from(value)),
            _ => return Err(format!("{name}: unknown; see --help")),
        }
    }
    Ok(options)
}

fn tell_one(seed: u64) -> bool {
    match run(seed) {
        Ok(report) => {
            println!("{}", report.story.join("\n"));
            println!(
                "seed {seed} holds: {} commits, {} aborts, {} records, {} deaths",
                report.commits, report.aborts, report.records, report.deaths
            );
            true
        }
        Err(failure) => {
            println!("{}", failure.describe(seed));
            false
        }
    }
}

/// Where an earlier run had come to, and how many seeds had failed by then: who goes on does not forget them.
fn noted(options: &Options) -> Result<(u64, usize), String> {
    let Some(path) = options.state.as_ref().filter(|path| path.exists()) else {
        return Ok((options.first, 0));
    };
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let mut words = text.split_whitespace();
    let next = words.next().and_then(|word| word.parse().ok());
    let failures = words.next().map_or(Some(0), |word| word.parse().ok());
    next.zip(failures)
        .ok_or_else(|| format!("{}: no seed is noted there", path.display()))
}

fn tell_many(options: &Options) -> Result<bool, String> {
    let end = options.first + options.count;
    let (mut next, mut failures) = noted(options)?;
    if next > options.first {
        println!("goes on at seed {next}, {failures} failed before");
    }
    let began = Instant::now();
    while next < end {
        let upto = end.min(next + CHUNK);
        let seeds: Vec<u64> = (next..upto).collect();
        let sum = run_many(&seeds);
        for (seed, failure) in &sum.failures {
            println!("{}", failure.describe(*seed));
        }
        failures += sum.failures.len();
        next = upto;
        if let Some(path) = &options.state {
            let noted = std::fs::write(path, format!("{next} {failures}\n"));
            noted.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let seconds = began.elapsed().as_secs();
        println!("seeds up to {next} of {end}: {failures} failed, {seconds} s");
    }
    Ok(failures == 0)
}

fn main() -> ExitCode {
    let told = options().and_then(|options| match options.seed {
        Some(seed) => Ok(tell_one(seed)),
        None => tell_many(&options),
    });
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            println!("{what}");
            ExitCode::from(2)
        }
    }
}
