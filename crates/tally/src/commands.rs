//! The commands that ask a running cluster, over the wire like any client: they work against every broker that speaks the
//! Kafka protocol, and show more of Tally.
//!
//! Exit codes, an interface: 0 done, 1 the check found a problem, 2 usage, 3 cannot connect, 4 not authorised, 5 timed out,
//! 6 refused by the state of things.

pub(crate) mod cluster;
mod configs;
pub(crate) mod consume;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod group;
pub(crate) mod health;
mod interrupt;
mod place;
pub(crate) mod produce;
mod record_format;
pub(crate) mod topic;
pub(crate) mod txn;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{ArgAction, Args};

use crate::client::{ClientConfig, Cluster, Failure};
use crate::output::{self, Format, complain};

/// The flags that all of these commands have.
#[derive(Args, Debug)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) reach: Reach,

    /// How to write it
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        global = true
    )]
    pub(crate) output: Format,
}

impl Common {
    fn open(&self) -> Result<Cluster, Failure> {
        self.reach.open()
    }
}

/// Which cluster, how long it may take and how much is said: also of the commands that have their own way to write.
#[derive(Args, Debug)]
pub(crate) struct Reach {
    /// Brokers to ask first, as HOST:PORT with commas between them; else $TALLY_BOOTSTRAP, $KAFKA_BOOTSTRAP_SERVERS,
    /// bootstrap.servers of --client-config [default: localhost:9092]
    #[arg(short, long, value_name = "HOST:PORT", global = true)]
    bootstrap: Option<String>,

    /// A Java client's properties: bootstrap.servers, client.id, security.protocol, sasl.mechanism, sasl.jaas.config
    #[arg(long, value_name = "FILE", global = true)]
    client_config: Option<PathBuf>,

    /// How long the broker may take: the whole command, or for those that go on each step; 500ms, 10s, 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, global = true)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    talk: Talk,
}

/// How much is said beside the rows.
#[derive(Args, Debug)]
pub(crate) struct Talk {
    /// Only rows: no headings, nothing when there is nothing
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Say on standard error what is asked of whom, or which file is read
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

impl Talk {
    /// Makes it hold.
    pub(crate) fn hold(&self) {
        output::set_talk(if self.quiet {
            output::QUIET
        } else {
            self.verbose
        });
    }
}

impl Reach {
    /// The properties of `--client-config`; none without it.
    pub(crate) fn config(&self) -> Result<ClientConfig, Failure> {
        match &self.client_config {
            Some(path) => ClientConfig::read(path),
            None => Ok(ClientConfig::default()),
        }
    }

    pub(crate) fn open(&self) -> Result<Cluster, Failure> {
        self.talk.hold();
        let config = self.config()?;
        let given = self.bootstrap.clone();
        let variable = |name: &str| std::env::var(name).ok();
        let bootstrap = given
            .or_else(|| variable("TALLY_BOOTSTRAP"))
            .or_else(|| variable("KAFKA_BOOTSTRAP_SERVERS"))
            .or(config.bootstrap);
        let bootstrap = bootstrap.as_deref().unwrap_or("localhost:9092");
        Cluster::open(bootstrap, &config.access, self.timeout)
    }
}

/// How a command ended that did what it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Done {
    /// All is well.
    Well,
    /// The check found a problem.
    Problem,
}

/// Runs a command and says how it ended.
fn finish(outcome: Result<Done, Failure>) -> ExitCode {
    match outcome {
        Ok(Done::Well) => ExitCode::SUCCESS,
        Ok(Done::Problem) => ExitCode::from(crate::client::EXIT_PROBLEM),
        Err(failure) => {
            complain(&failure.to_string());
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Runs `tally man`.
pub(crate) fn man(man: &crate::args::Man) -> ExitCode {
    let shown = man.directory().display();
    let unwritten = |error| Failure::Usage(format!("cannot write into {shown}: {error}"));
    finish(man.write().map(|()| Done::Well).map_err(unwritten))
}

/// Milliseconds since 1970, now.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// `250ms`, `5s`, `2m`, `1h`, `7d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let millis_each = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("must be a number with ms, s, m, h or d, like 10s".to_owned()),
    };
    let millis = digits.parse::<u64>().ok();
    let millis = millis.and_then(|number| number.checked_mul(millis_each));
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{digits} is not a number that is fit for a time"))
}

/// A time as people say it: `0.2 s`, `48 s`, `5 min`, `3 h`, `2 d`.
pub(crate) fn in_words(millis: i64) -> String {
    let millis = millis.max(0);
    match millis {
        0..10_000 if millis % 1000 != 0 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        0..120_000 => format!("{} s", millis / 1000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        7_200_000..172_800_000 => format!("{} h", millis / 3_600_000),
        _ => format!("{} d", millis / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_said() {
        for (text, millis) in [
            ("250ms", 250),
            ("5s", 5000),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in [
            "",
            "5",
            "s",
            "5x",
            "-1s",
            "99999999999999999999s",
            "99999999999999999d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        let said = [
            0,
            200,
            1000,
            48_900,
            119_000,
            300_000,
            7_200_000,
            200_000_000,
        ]
        .map(in_words);
        let expected = [
            "0 s", "0.2 s", "1 s", "48 s", "119 s", "5 min", "2 h", "2 d",
        ];
        assert_eq!(said, expected);
    }
}
