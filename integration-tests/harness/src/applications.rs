//! The command line of one application's run: which one, how it is broken, and its line in the end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::application::{self, Application, Outcome, Setup};
use crate::connect::Connect;
use crate::word_count::WordCount;
use crate::{empty_directory, interrupted, kind, report, seed_of_now};

/// The applications there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    WordCount,
    Connect,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WordCount => "word-count",
            Self::Connect => "connect",
        })
    }
}

#[derive(Args)]
pub(crate) struct Options {
    /// Which application
    name: Name,
    /// Command line that starts it
    #[arg(long)]
    cmd: String,
    /// The tally binary
    #[arg(long, required_unless_present = "reference")]
    broker: Option<PathBuf>,
    /// Command that runs another broker, taking --data, --port-file, --advertise and --property
    #[arg(long, conflicts_with = "broker")]
    reference: Option<String>,
    /// Directory for the broker's data and all logs; must be new or empty
    #[arg(long)]
    workdir: PathBuf,
    /// What goes in
    #[arg(long)]
    records: u64,
    #[arg(long, default_value_t = 1)]
    broker_kills: u64,
    /// kill -9 of the application
    #[arg(long, default_value_t = 2)]
    kills: u64,
    /// Answers that are taken away
    #[arg(long, default_value_t = 0)]
    cuts: u64,
    /// Draws the plan; the time by default
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds after which the run has failed, whatever it has come to
    #[arg(long, default_value_t = 600)]
    deadline: u64,
}

/// Runs it and prints its line; whether all is as it must be.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let workdir = empty_directory(&options.workdir)?;
    let seed = options.seed.map_or_else(seed_of_now, Ok)?;
    let begin = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = one(options, seed, &workdir) => outcome,
            () = tokio::time::sleep(Duration::from_secs(options.deadline)) => bail!("not done after {} s", options.deadline),
            () = interrupted() => bail!("interrupted"),
        }
    });
    // What is still blocked in a call of librdkafka is not waited for.
    runtime.shutdown_background();
    let name = options.name.to_string();
    let about = report::About {
        client: &name,
        records: options.records,
        seed,
        control: None,
        time: begin.elapsed(),
    };
    match outcome {
        Ok(outcome) => Ok(report::print_application(&about, &outcome, &workdir)),
        Err(error) => {
            report::print_logs(&workdir);
            eprintln!("{error:#} (seed {seed}, logs in {})", workdir.display());
            Ok(false)
        }
    }
}

async fn one(options: &Options, seed: u64, workdir: &Path) -> Result<Outcome> {
    match options.name {
        Name::WordCount => {
            let words = WordCount::new(seed, options.records, workdir)?;
            broken(options, seed, workdir, words).await
        }
        Name::Connect => {
            let files = Connect::new(options.records, workdir)?;
            broken(options, seed, workdir, files).await
        }
    }
}

async fn broken<A: Application + Send + 'static>(
    options: &Options,
    seed: u64,
    workdir: &Path,
    application: A,
) -> Result<Outcome> {
    let faults = application::faults(
        options.broker_kills,
        options.kills,
        application.has_state(),
        options.cuts,
    );
    let steps = application::plan(seed, application.expected(), &faults, application.targets());
    let setup = Setup {
        command: options.cmd.clone(),
        broker: kind(options.broker.as_deref(), options.reference.as_deref())?,
        workdir: workdir.to_owned(),
        steps,
        expect_clean_stop: options.broker.is_some(),
    };
    application::run(application, setup).await
}
