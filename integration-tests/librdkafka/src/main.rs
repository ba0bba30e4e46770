//! The main job on librdkafka, through the rdkafka crate: a feeder and a processor, as `integration-tests/README.md`
//! describes them. Standard output is the protocol with the harness, standard error is a log for people.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod counts;
mod feeder;
mod flights;
mod owned;
mod processor;
mod steps;
mod transaction;

/// Exit code that asks the harness for a fresh process with the same transactional id.
const EXIT_FATAL: u8 = 3;

#[derive(Parser)]
#[command(about = "Feeder and processor of the main job, on librdkafka")]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Write the flights to the input topic, in the agreed order.
    Feeder(feeder::Options),
    /// Read, process and write in transactions, as a member of a group.
    Processor(processor::Options),
    /// Do one transactional step at a time, as told on standard input.
    Steps(steps::Options),
}

/// Why a process cannot go on as it is.
#[derive(Debug)]
pub(crate) enum Stop {
    /// This process is of no more use: fenced, or its state can't be known any more. Exit code 3.
    Fatal(String),
    /// The transaction is to be aborted, the input rewound, and the work done again.
    Abort(String),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().role {
        Role::Feeder(options) => feeder::run(&options),
        Role::Processor(options) => processor::run(&options),
        Role::Steps(options) => steps::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fatal: {error:#}");
            ExitCode::from(EXIT_FATAL)
        }
    }
}
