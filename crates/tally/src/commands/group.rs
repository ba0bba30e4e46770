//! `tally group`: which groups there are, who is in them, how far behind they are, and their offsets changed.

mod ask;
mod change;
mod health;
mod lag;
mod records;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(crate) use self::ask::{assigned, offsets, states};
pub(crate) use self::health::health;
use super::{Common, finish};

/// `tally group`.
#[derive(Args, Debug)]
pub(crate) struct Group {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List groups
    List(List),
    /// Show groups: their state, their members, and which partitions each has
    Describe(Named),
    /// Show how far groups are behind, and who holds them back
    #[command(visible_alias = "offsets")]
    Lag(Lag),
    /// Set where a group goes on; it must have no members
    #[command(visible_alias = "reset-offsets")]
    Reset(Reset),
    /// Remove groups, or what they have committed for a topic
    Delete(Delete),
}

#[derive(Args, Debug)]
struct List {
    /// Only this state, by Kafka's name (Stable, Empty, PreparingRebalance ...); may be repeated
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Only this type (classic, consumer ...); may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    kind: Vec<String>,
    /// Only groups that begin like this
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
}

#[derive(Args, Debug)]
struct Named {
    /// Groups
    #[arg(value_name = "GROUP", required = true)]
    groups: Vec<String>,
}

#[derive(Args, Debug)]
struct Lag {
    /// Groups [default: all]
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
    /// Count what is behind in records that can be read, not in offsets: reads what the group has not read
    #[arg(long)]
    records: bool,
}

#[derive(Args, Debug)]
struct Reset {
    /// The group
    #[arg(value_name = "GROUP")]
    group: String,
    /// Where to: earliest, latest, an offset, or the first record that is as young as a time (7d, @MILLISECONDS)
    #[arg(long, value_name = "earliest|latest|OFFSET|TIME")]
    to: String,
    /// Only this topic or partition; may be repeated [default: all that the group has committed]
    #[arg(long, value_name = "TOPIC[:PARTITION]")]
    topic: Vec<String>,
    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct Delete {
    /// Groups; they must have no members
    #[arg(value_name = "GROUP", required = true)]
    groups: Vec<String>,
    /// Only what they have committed for this topic or partition, which no member may be subscribed to; may be repeated
    #[arg(long, value_name = "TOPIC[:PARTITION]")]
    topic: Vec<String>,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// Runs `tally group`.
pub(crate) fn run(group: &Group) -> ExitCode {
    let common = &group.common;
    finish(match &group.command {
        Command::List(list) => show::list(list, common),
        Command::Describe(named) => show::describe(&named.groups, common),
        Command::Lag(lag) => lag::run(lag, common),
        Command::Reset(reset) => change::reset(reset, common),
        Command::Delete(delete) => change::delete(delete, common),
    })
}
