//! `tally doctor`: what is right and what is not, of the cluster and, where its data is on this machine, of the machine.
//!
//! A row is `ok`, `warn` (it works, and somebody should know) or `fail`. Nothing is changed; the disk is tried with a file that has
//! no name any more.

mod bundle;
mod cluster;
mod host;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Common, Done, finish};
use crate::client::Failure;
use crate::output::{Listing, Value};

/// `tally doctor`.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// The data directory, to try its disk [default: the broker's, if it is on this machine]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Also write what was found and what it was found in to an archive, for others to read; without secrets
    #[arg(long, value_name = "FILE.tar.gz")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Finding {
    level: Level,
    /// What was looked at.
    check: &'static str,
    text: String,
}

/// All that was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, check: &'static str, text: impl Into<String>) {
        let text = text.into();
        self.0.push(Finding { level, check, text });
    }

    /// One row: `bad` with what is wrong, if something is, or else what is right.
    fn judge(&mut self, bad: Level, check: &'static str, wrong: &[String], right: String) {
        if wrong.is_empty() {
            self.add(Level::Ok, check, right);
        } else {
            self.add(bad, check, some_of(wrong));
        }
    }

    fn worst(&self) -> Level {
        let levels = self.0.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Ok)
    }
}

/// As many of them as fit a line.
const NAMED_MAX: usize = 5;

fn some_of(names: &[String]) -> String {
    let named = names.iter().take(NAMED_MAX);
    let mut text = named.cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMED_MAX));
    }
    text
}

/// Runs `tally doctor`.
pub(crate) fn run(doctor: &Doctor) -> ExitCode {
    finish(examine(doctor))
}

fn examine(doctor: &Doctor) -> Result<Done, Failure> {
    let common = &doctor.common;
    let mut cluster = common.reach.open()?;
    let mut findings = Findings::default();
    let seen = cluster::examine(&mut cluster, &mut findings)?;
    host::examine(doctor.data.as_deref(), &seen, &mut findings);
    let mut listing = Listing::new(common.output, "finding", &["", "CHECK", "FOUND"]);
    for finding in &findings.0 {
        listing.row(
            vec![
                finding.level.name().to_owned(),
                finding.check.to_owned(),
                finding.text.clone(),
            ],
            fields(finding),
        );
    }
    listing.finish("");
    if let Some(path) = &doctor.bundle {
        bundle::write(path, &mut cluster, &findings.0)?;
    }
    Ok(if findings.worst() == Level::Fail {
        Done::Problem
    } else {
        Done::Well
    })
}

fn fields(finding: &Finding) -> Vec<(&'static str, Value)> {
    vec![
        ("level", Value::from(finding.level.name())),
        ("check", Value::from(finding.check)),
        ("text", Value::from(finding.text.as_str())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_cut_and_the_worst_counts() {
        let names: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        assert_eq!(some_of(&names), "0, 1, 2, 3, 4 and 2 more");
        let mut findings = Findings::default();
        assert_eq!(findings.worst(), Level::Ok);
        findings.judge(Level::Warn, "x", &names, String::new());
        findings.judge(Level::Fail, "y", &[], "fine".to_owned());
        assert_eq!(findings.worst(), Level::Warn);
    }
}
