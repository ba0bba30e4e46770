//! `tally topic`: topics listed, made, shown, changed, removed, and cut at their beginning.

mod change;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Common, finish};

/// `tally topic`.
#[derive(Args, Debug)]
pub(crate) struct Topic {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List topics
    List(List),
    /// Show a topic: its partitions, where they begin and end, and the settings that were given to it
    Describe(Describe),
    /// Make a topic
    Create(Create),
    /// Give a topic more partitions or other settings
    Alter(Alter),
    /// Remove topics and all that is in them
    Delete(Delete),
    /// Remove the records at the beginning
    Trim(Trim),
    /// Remove all records; the topic stays
    Purge(Purge),
}

#[derive(Args, Debug)]
struct List {
    /// Also those that brokers keep for themselves
    #[arg(long, visible_alias = "all")]
    internal: bool,
}

#[derive(Args, Debug)]
struct Describe {
    /// The topic
    #[arg(value_name = "TOPIC")]
    topic: String,
}

#[derive(Args, Debug)]
struct Create {
    /// Its name
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// How many partitions [default: the broker's num.partitions]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// A setting; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    config: Vec<(String, String)>,
    /// Do nothing if it is there
    #[arg(long)]
    if_not_exists: bool,
}

#[derive(Args, Debug)]
struct Alter {
    /// The topic
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// How many partitions it is to have, in all
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// A setting; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    config: Vec<(String, String)>,
    /// A setting that goes back to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
}

#[derive(Args, Debug)]
struct Delete {
    /// The topics
    #[arg(value_name = "TOPIC", required = true)]
    topics: Vec<String>,
    /// Do it
    #[arg(long)]
    yes: bool,
}

#[derive(Args, Debug)]
struct Trim {
    /// A topic, or one partition of it
    #[arg(value_name = "TOPIC[:PARTITION]")]
    place: String,
    /// Remove what is before this offset, or older than a time (7d)
    #[arg(long, value_name = "OFFSET|TIME")]
    before: String,
    /// Do it
    #[arg(long)]
    yes: bool,
}

#[derive(Args, Debug)]
struct Purge {
    /// A topic, or one partition of it
    #[arg(value_name = "TOPIC[:PARTITION]")]
    place: String,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// Runs `tally topic`.
pub(crate) fn run(topic: &Topic) -> ExitCode {
    let common = &topic.common;
    finish(match &topic.command {
        Command::List(list) => show::list(list.internal, common),
        Command::Describe(describe) => show::describe(&describe.topic, common),
        Command::Create(create) => change::create(create, common),
        Command::Alter(alter) => change::alter(alter, common),
        Command::Delete(delete) => change::delete(delete, common),
        Command::Trim(trim) => change::trim(&trim.place, &trim.before, trim.yes, common),
        Command::Purge(purge) => change::purge(&purge.place, purge.yes, common),
    })
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}
