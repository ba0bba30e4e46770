//! One run: starts everything, follows the plan, ends when all is processed, and has it judged.
//!
//! One task owns the plan and the processes and takes events one after the other; the proxy and the readers of the
//! clients' output only send to it. Progress is what the processors say they have committed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, interval};

use crate::api::{Api, END_TXN};
use crate::broker::{Broker, Kind};
use crate::client::{Client, GroupProtocol, Role, Running, Said};
use crate::flights::Flights;
use crate::journal::Journal;
use crate::judge::{Findings, judge};
use crate::overtake::REFUSAL;
use crate::plan::{Control, Fault, PROCESSORS, Step, Target};
use crate::process::Groups;
use crate::proxy::{Proxy, Sprung};
use crate::reader::{self, Monitor};
use crate::trap::TrapId;

/// Without any progress a run has failed. Generous: a dead member's session and a dead producer's transaction time out meanwhile.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(120);
/// How long a processor may take to end after SIGTERM.
const END_DEADLINE: Duration = Duration::from_secs(60);
/// Exit code of a client that wants a fresh process.
const EXIT_FATAL: i32 = 3;
/// A processor that ends by itself more often than this does not work at all.
const STARTS_MAX: u64 = 200;
/// The pace of looking at deadlines and of asking for the group's offsets.
const TICK: Duration = Duration::from_millis(100);
/// A trap is widened when so many percent of the records were committed since it was set.
const PATIENCE_PERCENT: u64 = 3;

/// What a run needs to know.
pub(crate) struct Setup {
    pub(crate) command: String,
    pub(crate) broker: Kind,
    pub(crate) data: PathBuf,
    pub(crate) workdir: PathBuf,
    pub(crate) batch: u64,
    pub(crate) steps: Vec<Step>,
    pub(crate) control: Option<Control>,
    pub(crate) group_protocol: GroupProtocol,
    /// Whether the broker must also stop cleanly when it is asked to.
    pub(crate) expect_clean_stop: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) findings: Findings,
    pub(crate) transactions: u64,
    pub(crate) broker_kills: u64,
    pub(crate) processor_kills: u64,
    /// Answers taken away, by what was asked.
    pub(crate) cuts: BTreeMap<Api, u64>,
}

/// A question for the group's offsets, under way.
type Asked = tokio::task::JoinHandle<Result<Vec<(i64, i64)>>>;

struct Run {
    flights: Arc<Flights>,
    setup: Setup,
    journal: Journal,
    broker: Broker,
    proxy: Proxy,
    client: Client,
    feeder: Option<Running>,
    processors: [Option<Running>; PROCESSORS],
    starts: u64,
    /// Committed records as each start of a processor has told them last; the index is the start.
    committed: Vec<u64>,
    sent: u64,
    fed: bool,
    next_step: usize,
    /// Traps that are set, and the progress at which they were.
    set: Vec<(TrapId, u64)>,
    progress_at: Instant,
    outcome: Outcome,
}

/// Runs the job, breaks it, and judges.
pub(crate) async fn run(flights: Arc<Flights>, setup: Setup) -> Result<Outcome> {
    let (sprung_to, mut sprung) = unbounded_channel();
    let (said_to, mut said) = unbounded_channel();
    let groups = Groups::default();
    let proxy = Proxy::start(sprung_to).await?;
    let client = Client {
        command: setup.command.clone(),
        bootstrap: proxy.address.to_string(),
        data: setup.data.clone(),
        count: flights.count(),
        batch: setup.batch,
        no_idempotence: setup.control == Some(Control::NoIdempotence),
        offsets_first: setup.control == Some(Control::OffsetsFirst),
        group_protocol: setup.group_protocol,
        directory: setup.workdir.clone(),
        groups: groups.clone(),
        said: said_to,
    };
    let mut run = Run {
        journal: Journal::create(&setup.workdir.join("run.log"))?,
        broker: Broker::new(
            match &setup.broker {
                Kind::Tally(path) => Kind::Tally(path.clone()),
                Kind::Reference(command) => Kind::Reference(command.clone()),
            },
            &setup.workdir,
            proxy.address,
            &groups,
        )
        .with_settings(setup.group_protocol.settings()),
        flights,
        setup,
        proxy,
        client,
        feeder: None,
        processors: [const { None }; PROCESSORS],
        starts: 0,
        committed: Vec::new(),
        sent: 0,
        fed: false,
        next_step: 0,
        set: Vec::new(),
        progress_at: Instant::now(),
        outcome: Outcome::default(),
    };
    run.start().await?;
    run.follow(&mut sprung, &mut said).await?;
    run.end(&mut said).await?;
    Ok(run.outcome)
}

impl Run {
    async fn start(&mut self) -> Result<()> {
        self.start_broker().await?;
        reader::create_topics(&self.client.bootstrap).await?;
        self.set_due_traps();
        for slot in 0..PROCESSORS {
            self.start_processor(slot)?;
        }
        self.feeder = Some(self.client.start(Role::Feeder, 0)?);
        self.progress_at = Instant::now();
        Ok(())
    }

    async fn start_broker(&mut self) -> Result<()> {
        let address = self.broker.start().await?;
        self.journal.write(&format!("broker at {address}"));
        self.proxy.set_upstream(Some(address));
        Ok(())
    }

    fn start_processor(&mut self, slot: usize) -> Result<()> {
        let start = self.starts;
        ensure!(
            start < STARTS_MAX,
            "processors were started {STARTS_MAX} times"
        );
        self.starts += 1;
        self.committed.push(0);
        self.journal
            .write(&format!("start processor {slot}, instance {start}"));
        self.processors[slot] = Some(self.client.start(Role::Processor(slot), start)?);
        Ok(())
    }

    /// Takes events until the group's offsets have reached the end of the input.
    async fn follow(
        &mut self,
        sprung: &mut UnboundedReceiver<Sprung>,
        said: &mut UnboundedReceiver<Said>,
    ) -> Result<()> {
        let monitor = Arc::new(Monitor::open(&self.client.bootstrap)?);
        let mut asked: Option<Asked> = None;
        let mut tick = interval(TICK);
        loop {
            tokio::select! {
                biased;
                Some(event) = sprung.recv() => self.take_sprung(event).await?,
                Some(event) = said.recv() => self.take_said(event).await?,
                _ = tick.tick() => {
                    self.look_at_deadlines()?;
                    match asked.take() {
                        Some(task) if task.is_finished() => {
                            if let Ok(offsets) = task.await? && self.is_finished(&offsets) {
                                return Ok(());
                            }
                        }
                        Some(task) => asked = Some(task),
                        None if self.fed => {
                            let monitor = Arc::clone(&monitor);
                            asked = Some(tokio::task::spawn_blocking(move || monitor.offsets()));
                        }
                        None => {}
                    }
                }
            }
        }
    }

    fn is_finished(&mut self, offsets: &[(i64, i64)]) -> bool {
        let total: i64 = offsets.iter().map(|(_, end)| *end).sum();
        let enough = u64::try_from(total).is_ok_and(|total| total >= self.flights.count());
        enough && offsets.iter().all(|(committed, end)| committed == end)
    }

    fn look_at_deadlines(&mut self) -> Result<()> {
        if let Some(status) = self.broker.ended() {
            bail!("the broker ended by itself: {status}");
        }
        if self.progress_at.elapsed() > PROGRESS_DEADLINE {
            let (sent, committed) = (self.sent, self.progress());
            bail!("no progress for {PROGRESS_DEADLINE:?}: {sent} sent, {committed} committed");
        }
        Ok(())
    }

    fn progress(&self) -> u64 {
        self.committed.iter().sum()
    }

    /// Sets the traps that are due, and widens those that have waited for long.
    fn set_due_traps(&mut self) {
        let progress = self.progress();
        while let Some(step) = self
            .setup
            .steps
            .get(self.next_step)
            .filter(|step| step.at <= progress)
        {
            self.journal.write(&format!(
                "{progress} committed: set trap {} {step:?}",
                self.next_step
            ));
            self.proxy.set_trap(self.next_step, step);
            self.set.push((self.next_step, progress));
            self.next_step += 1;
        }
        let patience = (self.flights.count() * PATIENCE_PERCENT / 100).max(1);
        for (trap, since) in &mut self.set {
            if progress - *since > patience {
                self.proxy.widen_trap(*trap);
                *since = progress;
            }
        }
    }

    async fn take_said(&mut self, event: Said) -> Result<()> {
        match event {
            Said::Line { role, start, line } => self.take_line(role, start, &line),
            Said::Closed {
                role: Role::Feeder, ..
            } => self.feeder_ended().await?,
            Said::Closed {
                role: Role::Processor(slot),
                start,
            } => {
                if self.processors[slot]
                    .as_ref()
                    .is_some_and(|running| running.start == start)
                {
                    self.processor_ended(slot).await?;
                }
            }
        }
        Ok(())
    }

    fn take_line(&mut self, role: Role, start: u64, line: &str) {
        let mut words = line.split_whitespace();
        match (
            role,
            words.next(),
            words.next().and_then(|word| word.parse::<u64>().ok()),
        ) {
            (Role::Processor(slot), Some("committed"), Some(count)) => {
                let at = usize::try_from(start).expect("starts are few");
                self.committed[at] = count;
                self.progress_at = Instant::now();
                self.journal
                    .write(&format!("processor {slot}/{start}: {line}"));
                self.set_due_traps();
            }
            (Role::Processor(slot), Some("aborted"), None) => {
                self.journal
                    .write(&format!("processor {slot}/{start}: {line}"));
            }
            (Role::Feeder, Some("sent" | "done"), Some(count)) => {
                self.sent = count;
                self.progress_at = Instant::now();
            }
            _ => self
                .journal
                .write(&format!("{role:?}/{start} said: {line}")),
        }
    }

    async fn feeder_ended(&mut self) -> Result<()> {
        let Some(mut feeder) = self.feeder.take() else {
            return Ok(());
        };
        let status = feeder.wait().await?;
        self.journal
            .write(&format!("feeder ended: {status}, {} sent", self.sent));
        ensure!(
            status.success() && self.sent == self.flights.count(),
            "the feeder ended: {status}, {} sent",
            self.sent
        );
        self.fed = true;
        Ok(())
    }

    /// A processor ended without being killed by this run.
    async fn processor_ended(&mut self, slot: usize) -> Result<()> {
        let Some(mut running) = self.processors[slot].take() else {
            return Ok(());
        };
        let status = running.wait().await?;
        self.journal.write(&format!(
            "processor {slot}/{} ended: {status}",
            running.start
        ));
        if status.code() != Some(EXIT_FATAL) {
            self.outcome.findings.other(format!(
                "processor {slot}, instance {} ended: {status}",
                running.start
            ));
        }
        self.start_processor(slot)
    }

    async fn take_sprung(&mut self, event: Sprung) -> Result<()> {
        let (trap, fault, request) = match event {
            Sprung::Passed {
                trap,
                fault,
                request,
            }
            | Sprung::Taken {
                trap,
                fault,
                request,
            } => (trap, fault, request),
            Sprung::Missed { trap } => {
                self.journal
                    .write(&format!("trap {trap} missed: the broker went away first"));
                let step = Step {
                    skip: 0,
                    ..self.setup.steps[trap]
                };
                self.proxy.set_trap(trap, &step);
                return Ok(());
            }
        };
        self.set.retain(|(set, _)| *set != trap);
        let (api, version, client) = (request.api, request.version, &request.client_id);
        self.journal.write(&format!(
            "trap {trap}: {fault:?} at {api} v{version} of {client}"
        ));
        match fault {
            Fault::Cut => *self.outcome.cuts.entry(api).or_default() += 1,
            Fault::KillBroker => self.kill_broker().await?,
            Fault::KillProcessor(slot) => self.kill_processor(slot).await?,
            Fault::KillAllAfterAnswer => {
                for slot in 0..PROCESSORS {
                    self.kill_processor(slot).await?;
                }
            }
        }
        Ok(())
    }

    async fn kill_broker(&mut self) -> Result<()> {
        self.proxy.set_upstream(None);
        self.broker.kill().await?;
        self.outcome.broker_kills += 1;
        self.start_broker().await
    }

    async fn kill_processor(&mut self, slot: usize) -> Result<()> {
        if let Some(running) = self.processors[slot].take() {
            running.kill().await?;
            self.outcome.processor_kills += 1;
        }
        self.start_processor(slot)
    }

    /// Ends the processors, kills the broker once more, and judges what the one started after it has.
    async fn end(&mut self, said: &mut UnboundedReceiver<Said>) -> Result<()> {
        self.journal.write("all is processed");
        for slot in 0..PROCESSORS {
            self.end_processor(slot).await?;
        }
        while let Ok(event) = said.try_recv() {
            if let Said::Line { role, start, line } = event {
                self.take_line(role, start, &line);
            }
        }
        self.proxy.set_upstream(None);
        self.broker.kill().await?;
        self.start_broker().await?;
        let bootstrap = self.client.bootstrap.clone();
        let flights = Arc::clone(&self.flights);
        let found = tokio::task::spawn_blocking(move || {
            reader::read_all(&bootstrap).map(|read| judge(&flights, &read))
        })
        .await??;
        self.outcome.findings.add(found);
        self.outcome.transactions = self.proxy.seen(END_TXN);
        self.look_for_refusals()?;
        self.look_for_what_did_not_happen();
        if self.setup.expect_clean_stop {
            match self.broker.stop().await {
                Ok(status) if status.success() => {}
                Ok(status) => self
                    .outcome
                    .findings
                    .other(format!("the broker stopped with {status} after SIGTERM")),
                Err(error) => self.outcome.findings.other(error.to_string()),
            }
        }
        Ok(())
    }

    async fn end_processor(&mut self, slot: usize) -> Result<()> {
        let Some(mut running) = self.processors[slot].take() else {
            return Ok(());
        };
        running.terminate();
        let start = running.start;
        match tokio::time::timeout(END_DEADLINE, running.wait()).await {
            Ok(status) => {
                let status = status?;
                if !status.success() {
                    self.outcome.findings.other(format!(
                        "processor {slot}, instance {start} ended: {status} after SIGTERM"
                    ));
                }
            }
            Err(_) => {
                running.kill().await?;
                self.outcome.findings.other(format!(
                    "processor {slot}, instance {start} does not end after SIGTERM"
                ));
            }
        }
        Ok(())
    }

    /// No client sends on an older connection what it has sent on a newer one: the ordered-session guard refuses nobody.
    fn look_for_refusals(&mut self) -> Result<()> {
        let log = std::fs::read_to_string(self.setup.workdir.join("broker.log"))?;
        let refused = log.lines().filter(|line| line.contains(REFUSAL)).count();
        if refused > 0 {
            self.outcome
                .findings
                .other(format!("{refused} requests were taken for late ones"));
        }
        Ok(())
    }

    /// A run that was not broken as planned proves nothing.
    fn look_for_what_did_not_happen(&mut self) {
        let unset = self.next_step..self.setup.steps.len();
        let left: Vec<TrapId> = self
            .set
            .iter()
            .map(|(trap, _)| *trap)
            .chain(unset)
            .collect();
        for trap in left {
            let step = self.setup.steps[trap];
            // A control needs its fault once, the judge says whether it worked.
            if self.setup.control.is_none() || step.target == Target::PlainProduce {
                self.outcome.findings.other(format!(
                    "step {trap} of the plan never came about: {step:?}"
                ));
            }
        }
    }
}
