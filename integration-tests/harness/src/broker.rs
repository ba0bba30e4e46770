//! The broker under test: Tally, or whatever command runs another broker with the same few options.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use crate::process::{Groups, Process, Program};

/// Apache Kafka needs some seconds, on a machine that is busy with other things many.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// Twice what Tally promises.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// How often the port file is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Long enough for all processors to be there, short enough not to be felt.
const REBALANCE_DELAY: &str = "group.initial.rebalance.delay.ms=300";

/// Which broker.
pub(crate) enum Kind {
    /// Path of the `tally` binary.
    Tally(PathBuf),
    /// A command that takes `--data --port-file --advertise --property` and runs in the foreground.
    Reference(String),
}

/// A broker that can be killed and started again on the same data.
pub(crate) struct Broker {
    kind: Kind,
    directory: PathBuf,
    advertise: SocketAddr,
    groups: Groups,
    process: Option<Process>,
    settings: Vec<&'static str>,
}

impl Broker {
    pub(crate) fn new(
        kind: Kind,
        directory: &Path,
        advertise: SocketAddr,
        groups: &Groups,
    ) -> Self {
        Self {
            kind,
            directory: directory.to_owned(),
            advertise,
            groups: groups.clone(),
            process: None,
            settings: vec![REBALANCE_DELAY],
        }
    }

    /// The same with further properties, `KEY=VALUE` each.
    pub(crate) fn with_settings(mut self, settings: &'static [&'static str]) -> Self {
        self.settings.extend(settings);
        self
    }

    /// A property for every start, `KEY=VALUE`.
    pub(crate) fn set(&mut self, setting: &'static str) {
        self.settings.push(setting);
    }

    /// Starts it and waits until it accepts connections; says where.
    pub(crate) async fn start(&mut self) -> Result<SocketAddr> {
        let port_file = self.directory.join("broker.port");
        if port_file.exists() {
            std::fs::remove_file(&port_file)?;
        }
        let command = match &self.kind {
            Kind::Tally(path) => format!("'{}'", path.display()),
            Kind::Reference(command) => command.clone(),
        };
        let program = Program {
            command: &command,
            arguments: self.arguments(&port_file),
            directory: self.directory.clone(),
            log: self.directory.join("broker.log"),
            pipe_output: false,
        };
        let mut process = Process::start(&self.groups, &program)?;
        let address = wait_for_port(&mut process, &port_file).await?;
        self.process = Some(process);
        Ok(address)
    }

    pub(crate) async fn kill(&mut self) -> Result<()> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Asks it to stop and says how it did.
    pub(crate) async fn stop(&mut self) -> Result<ExitStatus> {
        let Some(process) = &mut self.process else {
            bail!("the broker is not running")
        };
        process.terminate();
        match tokio::time::timeout(STOP_DEADLINE, process.wait()).await {
            Ok(status) => status,
            Err(_) => bail!("the broker has not stopped {STOP_DEADLINE:?} after SIGTERM"),
        }
    }

    /// How the broker ended, if it did so by itself, which it never should.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process
            .as_mut()
            .and_then(|process| process.child.try_wait().ok().flatten())
    }

    fn arguments(&self, port_file: &Path) -> Vec<String> {
        let data = self.directory.join("broker-data").display().to_string();
        let port_file = port_file.display().to_string();
        let advertise = self.advertise.to_string();
        let shared = [
            "--data",
            &data,
            "--port-file",
            &port_file,
            "--advertise",
            &advertise,
        ];
        let own: &[&str] = match self.kind {
            Kind::Tally(_) => &[
                "--listen",
                "127.0.0.1:0",
                "--http",
                "off",
                "--exit-with-parent",
            ],
            Kind::Reference(_) => &[],
        };
        let (verb, flag): (&[&str], &str) = match self.kind {
            Kind::Tally(_) => (&["serve"], "--set"),
            Kind::Reference(_) => (&[], "--property"),
        };
        let settings = self.settings.iter().flat_map(|setting| [flag, setting]);
        verb.iter()
            .chain(&shared)
            .chain(own)
            .copied()
            .chain(settings)
            .map(str::to_owned)
            .collect()
    }
}

async fn wait_for_port(process: &mut Process, port_file: &Path) -> Result<SocketAddr> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        if let Ok(text) = std::fs::read_to_string(port_file) {
            return Ok(text.trim().parse()?);
        }
        if let Some(status) = process.child.try_wait()? {
            bail!("the broker ended at its start: {status}");
        }
        if Instant::now() > deadline {
            bail!("the broker is not ready after {START_DEADLINE:?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
