//! The client's programs: the feeder and the processors, started again after a kill, and what they print.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc::UnboundedSender;

use crate::process::{Groups, Process, Program};

pub(crate) const INPUT: &str = "flights";
pub(crate) const OUTPUT: &str = "flights-out";
pub(crate) const COUNTS: &str = "flights-per-hour";
pub(crate) const GROUP: &str = "flights-processors";
/// One transaction in so many is aborted on purpose.
const ABORT_EVERY: &str = "10";

/// Which of the client's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Feeder,
    Processor(usize),
}

/// What a client process says or does. `start` tells the starts of a run apart.
#[derive(Debug)]
pub(crate) enum Said {
    Line {
        role: Role,
        start: u64,
        line: String,
    },
    /// Its output is closed: it has ended or is about to.
    Closed { role: Role, start: u64 },
}

/// How the members of the processors' group share out, by Kafka's names.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum GroupProtocol {
    #[default]
    Classic,
    /// KIP-848: the coordinator does.
    Consumer,
}

impl GroupProtocol {
    /// What the broker is told: sessions as short as those that the processors ask for in the classic protocol, where it is
    /// theirs to say.
    pub(crate) fn settings(self) -> &'static [&'static str] {
        match self {
            GroupProtocol::Classic => &[],
            GroupProtocol::Consumer => &[
                "group.consumer.min.session.timeout.ms=6000",
                "group.consumer.session.timeout.ms=6000",
                "group.consumer.min.heartbeat.interval.ms=1000",
                "group.consumer.heartbeat.interval.ms=1000",
            ],
        }
    }
}

/// How the client's programs are called.
pub(crate) struct Client {
    pub(crate) command: String,
    pub(crate) bootstrap: String,
    pub(crate) data: PathBuf,
    pub(crate) count: u64,
    /// Inputs per transaction at most.
    pub(crate) batch: u64,
    pub(crate) no_idempotence: bool,
    pub(crate) offsets_first: bool,
    pub(crate) group_protocol: GroupProtocol,
    pub(crate) directory: PathBuf,
    pub(crate) groups: Groups,
    pub(crate) said: UnboundedSender<Said>,
}

/// A running program of the client.
pub(crate) struct Running {
    pub(crate) start: u64,
    process: Process,
}

impl Client {
    pub(crate) fn start(&self, role: Role, start: u64) -> Result<Running> {
        let name = match role {
            Role::Feeder => "feeder".to_owned(),
            Role::Processor(slot) => format!("processor-{slot}"),
        };
        let mut process = Process::start(
            &self.groups,
            &Program {
                command: &self.command,
                arguments: match role {
                    Role::Feeder => self.feeder_arguments(),
                    Role::Processor(slot) => self.processor_arguments(slot, start),
                },
                directory: self.directory.join(&name),
                log: self.directory.join(format!("{name}.{start}.log")),
                pipe_output: true,
            },
        )?;
        let output = process
            .child
            .stdout
            .take()
            .ok_or_else(|| anyhow!("the output of {name} is not piped"))?;
        let said = self.said.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // The run may be over already.
                said.send(Said::Line { role, start, line }).ok();
            }
            said.send(Said::Closed { role, start }).ok();
        });
        Ok(Running { start, process })
    }

    fn feeder_arguments(&self) -> Vec<String> {
        let data = self.data.display().to_string();
        let mut arguments = words(&[
            "feeder",
            "--bootstrap",
            &self.bootstrap,
            "--topic",
            INPUT,
            "--data",
            &data,
        ]);
        arguments.extend(["--count".to_owned(), self.count.to_string()]);
        if self.no_idempotence {
            arguments.push("--no-idempotence".to_owned());
        }
        arguments
    }

    fn processor_arguments(&self, slot: usize, start: u64) -> Vec<String> {
        let mut arguments = words(&[
            "processor",
            "--bootstrap",
            &self.bootstrap,
            "--group",
            GROUP,
        ]);
        arguments.extend(["--transactional-id".to_owned(), format!("{GROUP}-{slot}")]);
        arguments.extend(words(&["--in", INPUT, "--out", OUTPUT, "--counts", COUNTS]));
        arguments.extend(["--instance".to_owned(), start.to_string()]);
        arguments.extend(["--batch".to_owned(), self.batch.to_string()]);
        arguments.extend(words(&["--abort-every", ABORT_EVERY]));
        if self.offsets_first {
            arguments.push("--offsets-first".to_owned());
        }
        if self.group_protocol == GroupProtocol::Consumer {
            arguments.extend(words(&["--group-protocol", "consumer"]));
        }
        arguments
    }
}

impl Running {
    pub(crate) async fn kill(self) -> Result<()> {
        self.process.kill().await
    }

    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        self.process.wait().await
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The last lines of a log, for a run that failed.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
