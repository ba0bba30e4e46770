//! `tally cluster`: what a cluster is, who its brokers are, which features are finalised, and its configuration.

mod config;
mod features;
mod show;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(crate) use self::show::{promise, size};
use super::{Common, finish};

/// `tally cluster`.
#[derive(Args, Debug)]
pub(crate) struct ClusterCommand {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show the cluster: its id, its size, what an answer of it promises
    Info,
    /// List the brokers, with what they lead and what they hold on their disks
    Brokers,
    /// List the features that the brokers know and those that are finalised, or raise them
    Features(Features),
    /// Show and change the configuration of brokers, topics and groups
    #[command(subcommand)]
    Config(Config),
}

#[derive(Args, Debug)]
struct Features {
    #[command(subcommand)]
    change: Option<FeatureChange>,
}

#[derive(Subcommand, Debug)]
enum FeatureChange {
    /// Finalise features at a higher level
    Upgrade(Upgrade),
}

#[derive(Args, Debug)]
struct Upgrade {
    /// Features and their levels [default: all that are below what the brokers know]
    #[arg(value_name = "FEATURE=LEVEL", value_parser = parse_level)]
    levels: Vec<(String, i16)>,
    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only have it checked
    #[arg(long)]
    dry_run: bool,
}

#[derive(Subcommand, Debug)]
enum Config {
    /// Show properties: those that are not at their default, or the named ones
    Get(Get),
    /// Set properties
    Set(Set),
    /// Set properties back to what holds without them
    Unset(Unset),
}

/// Whose configuration.
#[derive(Args, Debug)]
#[group(multiple = false)]
struct Whose {
    /// Of this broker [default: of all brokers]
    #[arg(long, value_name = "ID")]
    broker: Option<i32>,
    /// Of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
}

#[derive(Args, Debug)]
struct Get {
    /// Only these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    whose: Whose,
    /// Also those that are at their default
    #[arg(long)]
    all: bool,
}

#[derive(Args, Debug)]
struct Set {
    /// Properties
    #[arg(value_name = "NAME=VALUE", required = true, value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    whose: Whose,
    /// Only have it checked
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
struct Unset {
    /// Properties
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    whose: Whose,
    /// Only have it checked
    #[arg(long)]
    dry_run: bool,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

fn parse_level(text: &str) -> Result<(String, i16), String> {
    let parsed = parse_setting(text).ok();
    parsed
        .and_then(|(name, level)| Some((name, level.parse().ok()?)))
        .ok_or_else(|| "must be FEATURE=LEVEL, like transaction.version=2".to_owned())
}

/// Runs `tally cluster`.
pub(crate) fn run(cluster: &ClusterCommand) -> ExitCode {
    let common = &cluster.common;
    finish(match &cluster.command {
        Command::Info => show::info(common),
        Command::Brokers => show::brokers(common),
        Command::Features(Features { change: None }) => features::list(common),
        Command::Features(Features {
            change: Some(FeatureChange::Upgrade(upgrade)),
        }) => features::upgrade(upgrade, common),
        Command::Config(Config::Get(get)) => config::get(get, common),
        Command::Config(Config::Set(set)) => config::set(set, common),
        Command::Config(Config::Unset(unset)) => config::unset(unset, common),
    })
}
