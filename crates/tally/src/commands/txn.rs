//! `tally txn`: which transactions there are, what they hold up and why, and the end of those that nobody ends.

mod abort;
mod ask;
mod describe;
mod hanging;
mod health;
mod holding;
mod list;
mod producers;
mod why;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

pub(crate) use self::health::health;
pub(crate) use self::holding::holders;
use super::place::Place;
use super::{Common, finish, now_ms, parse_duration};

/// `tally txn`.
#[derive(Args, Debug)]
pub(crate) struct Txn {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List transactional ids and where their transactions stand
    List(List),
    /// Show transactional ids in full
    Describe(Describe),
    /// Show what partitions remember of their producers
    Producers(Producers),
    /// Find transactions that are open on a partition and that no coordinator will end; exit code 1 if there are any
    #[command(visible_alias = "find-hanging")]
    Hanging(Hanging),
    /// Say what holds back the readers of a topic or a group, or what happened to a transactional id
    Why(Why),
    /// Abort transactions and fence their producers
    Abort(Abort),
}

#[derive(Args, Debug)]
struct List {
    /// Only this state, by Kafka's name (Ongoing, Empty, PrepareCommit ...); may be repeated
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Only those that are open for longer than this: 30s, 5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    older: Option<Duration>,
    /// Only ids that begin like this
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Only this producer id; may be repeated
    #[arg(long, value_name = "PID")]
    producer: Vec<i64>,
}

#[derive(Args, Debug)]
struct Describe {
    /// Transactional ids
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

#[derive(Args, Debug)]
struct Producers {
    /// A topic, or one partition of it
    #[arg(value_name = "TOPIC[:PARTITION]")]
    place: String,
}

#[derive(Args, Debug)]
struct Hanging {
    /// Only these topics [default: all]
    #[arg(value_name = "TOPIC")]
    topics: Vec<String>,
}

#[derive(Args, Debug)]
struct Why {
    /// A topic, one partition of it, a transactional id or a group
    #[arg(value_name = "TOPIC[:PARTITION]|ID|GROUP")]
    what: String,
    /// Say it again every second until nothing is open any more
    #[arg(long)]
    watch: bool,
}

#[derive(Args, Debug)]
struct Abort {
    /// The transactional id
    #[arg(value_name = "ID", required_unless_present_any = ["prefix", "pid"], conflicts_with_all = ["prefix", "pid"])]
    id: Option<String>,
    /// All ids that begin like this and have a transaction open
    #[arg(long, value_name = "PREFIX", conflicts_with = "pid")]
    prefix: Option<String>,
    /// Producer id of a transaction that no coordinator knows (tally txn hanging)
    #[arg(long, value_name = "PID", requires_all = ["epoch", "partition"])]
    pid: Option<i64>,
    /// Its epoch
    #[arg(long, value_name = "EPOCH", requires = "pid")]
    epoch: Option<i16>,
    /// The partition that it holds up
    #[arg(long, value_name = "TOPIC:PARTITION", requires = "pid")]
    partition: Option<String>,
    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Runs `tally txn`.
pub(crate) fn run(txn: &Txn) -> ExitCode {
    let common = &txn.common;
    finish(match &txn.command {
        Command::List(list) => list::run(list, common),
        Command::Describe(describe) => describe::run(&describe.ids, common),
        Command::Producers(producers) => producers::run(&producers.place, common),
        Command::Hanging(hanging) => hanging::run(&hanging.topics, common),
        Command::Why(why) => why::run(why, common),
        Command::Abort(abort) => abort::run(abort, common),
    })
}
