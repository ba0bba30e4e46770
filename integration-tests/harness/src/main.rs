//! Runs the main job with one client against one broker, breaks it on the way, and judges what is left.
//!
//! `integration-tests/README.md` describes the job, the contract with the client's programs, and the words of the report.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

mod api;
mod application;
mod applications;
mod broker;
mod client;
mod connect;
mod flights;
mod holding;
mod journal;
mod judge;
mod overtake;
mod plan;
mod process;
mod proxy;
mod reader;
mod rebalance;
mod report;
mod rest;
mod rng;
mod run;
mod steps;
mod transaction_state;
mod trap;
mod word_count;

use broker::Kind;
use client::GroupProtocol;
use flights::Flights;
use plan::{Amounts, Control};
use run::Setup;

/// Could not be run at all.
const EXIT_USAGE: u8 = 2;

#[derive(Parser)]
#[command(
    about = "Runs the main job with one client against one broker, breaks it on the way, and judges what is left"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One run of the job
    Run(Box<Options>),
    /// Requests that arrive too late, with one client against one broker
    Overtake(Box<OvertakeOptions>),
    /// The guard while a group is rebalanced, with one client against one broker
    Rebalance(Box<RebalanceOptions>),
    /// An application that people build on Kafka, broken and judged
    #[command(args_override_self = true)]
    Application(Box<applications::Options>),
    /// Turn flights-200k.json into the data file of the job
    PrepareData { json: PathBuf, out: PathBuf },
    /// Print the head of the table that runs print the lines of
    Head,
}

#[derive(Args)]
struct Options {
    /// Name of the client, for the report
    #[arg(long)]
    client: String,
    /// Command line that starts the client's programs
    #[arg(long)]
    cmd: String,
    /// The tally binary
    #[arg(long, required_unless_present = "reference")]
    broker: Option<PathBuf>,
    /// Command that runs another broker, taking --data, --port-file, --advertise and --property
    #[arg(long, conflicts_with = "broker")]
    reference: Option<String>,
    /// The data file, one JSON object per line
    #[arg(long)]
    data: PathBuf,
    /// Directory for the broker's data and all logs; must be new or empty
    #[arg(long)]
    workdir: PathBuf,
    #[arg(long, default_value_t = 20_000)]
    records: u64,
    /// Inputs per transaction at most
    #[arg(long, default_value_t = 200)]
    batch: u64,
    #[arg(long, default_value_t = 2)]
    broker_kills: u64,
    #[arg(long, default_value_t = 3)]
    processor_kills: u64,
    #[arg(long, default_value_t = 5)]
    cuts: u64,
    /// Draws the plan; the time by default
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds after which the run has failed, whatever it has come to
    #[arg(long, default_value_t = 3600)]
    deadline: u64,
    /// Force a fault that the judge must see
    #[arg(long)]
    control: Option<Control>,
    /// The group protocol of the processors, by Kafka's names: consumer is that of KIP-848 (librdkafka, java)
    #[arg(long, value_enum, default_value_t)]
    group_protocol: GroupProtocol,
}

#[derive(Args)]
struct OvertakeOptions {
    /// Name of the client, for the report
    #[arg(long)]
    client: String,
    /// Command line that starts the client's programs
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
    /// Only this request, by its name; may be repeated
    #[arg(long = "late", value_name = "API")]
    late: Vec<String>,
    /// This request must do damage when it comes late: a control, or a gap that is known; may be repeated
    #[arg(long, value_name = "API")]
    damaging: Vec<String>,
    /// Seconds after which the run has failed
    #[arg(long, default_value_t = 600)]
    deadline: u64,
}

#[derive(Args)]
struct RebalanceOptions {
    /// Name of the client, for the report
    #[arg(long)]
    client: String,
    /// Command line that starts the client's programs
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
    /// Seconds after which the run has failed
    #[arg(long, default_value_t = 240)]
    deadline: u64,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(options) => run(&options),
        Command::Overtake(options) => overtake(&options),
        Command::Rebalance(options) => rebalance(&options),
        Command::Application(options) => applications::run(&options),
        Command::PrepareData { json, out } => flights::prepare(&json, &out).map(|count| {
            println!("{count} records");
            true
        }),
        Command::Head => {
            println!("{}", report::HEAD);
            Ok(true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("harness: {error:#}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    let flights = Arc::new(Flights::load(&options.data, options.records)?);
    let workdir = empty_directory(&options.workdir)?;
    let seed = options.seed.map_or_else(seed_of_now, Ok)?;
    let amounts = Amounts {
        records: options.records,
        broker_kills: options.broker_kills,
        processor_kills: options.processor_kills,
        cuts: options.cuts,
    };
    let setup = Setup {
        command: options.cmd.clone(),
        broker: kind(options.broker.as_deref(), options.reference.as_deref())?,
        data: options.data.canonicalize()?,
        workdir,
        batch: options.batch,
        steps: plan::draw(seed, amounts, options.control),
        control: options.control,
        group_protocol: options.group_protocol,
        expect_clean_stop: options.broker.is_some(),
    };
    eprintln!("{}: seed {seed}", options.client);
    let logs = setup.workdir.clone();
    let begin = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = run::run(flights, setup) => outcome,
            () = tokio::time::sleep(Duration::from_secs(options.deadline)) => bail!("not done after {} s", options.deadline),
            () = interrupted() => bail!("interrupted"),
        }
    });
    // What is still blocked in a call of librdkafka is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(outcome) => {
            let about = report::About {
                client: &options.client,
                records: options.records,
                seed,
                control: options.control,
                time: begin.elapsed(),
            };
            Ok(report::print(&about, &outcome, &logs))
        }
        Err(error) => {
            report::print_logs(&logs);
            eprintln!(
                "{}: {error:#} (seed {seed}, logs in {})",
                options.client,
                logs.display()
            );
            Ok(false)
        }
    }
}

fn kind(broker: Option<&Path>, reference: Option<&str>) -> Result<Kind> {
    Ok(match (broker, reference) {
        (Some(path), _) => Kind::Tally(
            path.canonicalize()
                .with_context(|| format!("no {}", path.display()))?,
        ),
        (None, Some(command)) => Kind::Reference(command.to_owned()),
        (None, None) => bail!("--broker or --reference is needed"),
    })
}

fn cases_named(names: &[String]) -> Result<Vec<api::Api>> {
    let named = |name: &String| {
        let mut cases = overtake::CASES.into_iter();
        cases
            .find(|case| case.to_string() == *name)
            .with_context(|| format!("{name} is none of {:?}", overtake::CASES))
    };
    names.iter().map(named).collect()
}

fn overtake(options: &OvertakeOptions) -> Result<bool> {
    let workdir = empty_directory(&options.workdir)?;
    let setup = overtake::Setup {
        client: options.client.clone(),
        command: options.cmd.clone(),
        broker: kind(options.broker.as_deref(), options.reference.as_deref())?,
        workdir: workdir.clone(),
        cases: if options.late.is_empty() {
            overtake::CASES.to_vec()
        } else {
            cases_named(&options.late)?
        },
        damaging: cases_named(&options.damaging)?,
    };
    println!("{}", overtake::HEAD);
    watched(
        overtake::run(setup),
        options.deadline,
        &options.client,
        &workdir,
    )
}

fn rebalance(options: &RebalanceOptions) -> Result<bool> {
    let workdir = empty_directory(&options.workdir)?;
    let setup = rebalance::Setup {
        client: options.client.clone(),
        command: options.cmd.clone(),
        broker: kind(options.broker.as_deref(), options.reference.as_deref())?,
        workdir: workdir.clone(),
    };
    println!("{}", rebalance::HEAD);
    watched(
        rebalance::run(setup),
        options.deadline,
        &options.client,
        &workdir,
    )
}

/// Runs it until the deadline or a signal; shows the logs where it was not as it must be.
fn watched(
    work: impl Future<Output = Result<bool>>,
    deadline: u64,
    client: &str,
    workdir: &Path,
) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = work => outcome,
            () = tokio::time::sleep(Duration::from_secs(deadline)) => bail!("not done after {deadline} s"),
            () = interrupted() => bail!("interrupted"),
        }
    });
    // What is still blocked in a call of librdkafka is not waited for.
    runtime.shutdown_background();
    if !matches!(outcome, Ok(true)) {
        report::print_logs(workdir);
        eprintln!("logs are in {}", workdir.display());
    }
    if let Err(error) = &outcome {
        eprintln!("{client}: {error:#}");
    }
    Ok(outcome.unwrap_or(false))
}

/// SIGINT or SIGTERM: end all processes that were started, instead of leaving them behind.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

fn seed_of_now() -> Result<u64> {
    Ok(SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs())
}

/// Leftovers of another run would be taken for this one's.
fn empty_directory(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    ensure!(
        std::fs::read_dir(path)?.next().is_none(),
        "{} is not empty",
        path.display()
    );
    Ok(path.canonicalize()?)
}
