//! A client's `steps` program: a transactional producer that does one thing at a time, as it is told.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::ChildStdout;

use crate::process::{Groups, Process, Program};

/// For one step; clients try again for a minute.
const STEP_DEADLINE: Duration = Duration::from_secs(120);
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Done,
    Failed(String),
}

impl Step {
    pub(crate) fn is_done(&self) -> bool {
        *self == Step::Done
    }
}

/// What a program is started with.
pub(crate) struct Start<'a> {
    pub(crate) command: &'a str,
    pub(crate) bootstrap: &'a str,
    pub(crate) name: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) input: &'a str,
    pub(crate) group: &'a str,
    pub(crate) delivery_timeout_ms: u32,
    pub(crate) directory: &'a Path,
}

/// A running program.
pub(crate) struct Steps {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
    input: tokio::process::ChildStdin,
}

impl Steps {
    /// Starts the program and waits until its producer is initialised.
    pub(crate) async fn start(groups: &Groups, start: &Start<'_>) -> Result<Self> {
        let delivery_timeout_ms = start.delivery_timeout_ms.to_string();
        let arguments = [
            "steps",
            "--bootstrap",
            start.bootstrap,
            "--transactional-id",
            start.name,
            "--out",
            start.topic,
            "--in",
            start.input,
            "--group",
            start.group,
            "--delivery-timeout-ms",
            &delivery_timeout_ms,
        ];
        let mut process = Process::start(
            groups,
            &Program {
                command: start.command,
                arguments: arguments.map(str::to_owned).to_vec(),
                directory: start.directory.join(start.name),
                log: start.directory.join(format!("{}.log", start.name)),
                pipe_output: true,
            },
        )?;
        let output = process.child.stdout.take().context("no output")?;
        let input = process.child.stdin.take().context("no input")?;
        let mut steps = Self {
            process,
            lines: BufReader::new(output).lines(),
            input,
        };
        match steps.answer().await? {
            Step::Done => Ok(steps),
            Step::Failed(why) => bail!("{} does not start: {why}", start.name),
        }
    }

    /// Has one step done.
    pub(crate) async fn step(&mut self, line: &str) -> Result<Step> {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .with_context(|| format!("{line}: the program is gone"))?;
        self.answer().await.with_context(|| line.to_owned())
    }

    async fn answer(&mut self) -> Result<Step> {
        loop {
            let line = tokio::time::timeout(STEP_DEADLINE, self.lines.next_line())
                .await
                .map_err(|_| anyhow!("no answer after {STEP_DEADLINE:?}"))??
                .context("the program has ended")?;
            if line == "ok" {
                return Ok(Step::Done);
            }
            if let Some(why) = line.strip_prefix("failed") {
                return Ok(Step::Failed(why.trim().to_owned()));
            }
            // Some libraries write to standard output on their own.
            eprintln!("{line}");
        }
    }

    /// Closes its input, which ends it.
    pub(crate) async fn end(mut self) -> Result<()> {
        drop(self.input);
        if let Ok(status) = tokio::time::timeout(STOP_DEADLINE, self.process.wait()).await {
            status?;
            return Ok(());
        }
        self.process.kill().await
    }
}
