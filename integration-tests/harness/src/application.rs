//! One run of an application that people build on Kafka: it works while it is fed, is broken on the way, and is judged.
//!
//! Progress is the number of records that a read_committed consumer, which lives through all of it, has seen in the application's output. What goes
//! in is a window ahead of that, so that there is work under way whenever something is killed, and a fast machine is hit as
//! often as a slow one. The faults are those of the plan (`plan`), set as traps in the proxy.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::api::Api;
use crate::broker::{Broker, Kind};
use crate::journal::Journal;
use crate::overtake::REFUSAL;
use crate::plan::{Fault, Step};
use crate::process::{Groups, Process, Program};
use crate::proxy::{Proxy, Sprung};
use crate::reader;
use crate::rng::Rng;
use crate::trap::TrapId;

/// Without any progress a run has failed. Generous: a virtual machine starts, and a dead member's time and a dead producer's
/// transaction run out meanwhile.
const PROGRESS_DEADLINE: Duration = Duration::from_secs(150);
/// How long the application may take to end after SIGTERM.
const END_DEADLINE: Duration = Duration::from_secs(60);
/// An application that ends by itself more often than this does not work at all.
const STARTS_MAX: usize = 20;
/// What a killed producer has begun is aborted soon after its time: nobody waits for the next look at all transactions.
const TIMEOUT_CHECK: &str = "transaction.abort.timed.out.transaction.cleanup.interval.ms=1000";
const TICK: Duration = Duration::from_millis(50);
/// The first and the last moment of a fault, in percent of the records.
const FIRST_PERCENT: u64 = 8;
const LAST_PERCENT: u64 = 88;
/// A trap lets at most this many matching requests pass first.
const SKIP_MAX: u64 = 3;
/// Examples of what is wrong that are kept, of each kind.
const EXAMPLES_MAX: usize = 10;

/// What one kind of application is, to those who run it.
pub(crate) trait Application {
    /// The topics whose records are progress; they are made before the first start.
    fn output(&self) -> Vec<String>;
    /// Partitions of each of these.
    fn output_partitions(&self) -> i32;
    /// Records in all of them at the end.
    fn expected(&self) -> u64;
    /// The requests inside a transaction at which something is killed.
    fn targets(&self) -> &'static [Api];
    /// Whether it keeps something on its own disk that it can do without.
    fn has_state(&self) -> bool;
    /// Makes the other topics, and whatever else is there before the first start.
    async fn prepare(&mut self, bootstrap: &str) -> Result<()>;
    /// The arguments of a start, which may follow upon a kill.
    fn arguments(&mut self, bootstrap: &str) -> Result<Vec<String>>;
    /// Called all the time with how much was seen of the output: puts in what is due.
    async fn feed(&mut self, seen: u64, journal: &mut Journal) -> Result<()>;
    /// Takes away what it keeps on its own disk.
    fn wipe(&self) -> Result<()>;
    /// Compares what read_committed reads of everything with what was put in. `logs` are those of its starts.
    fn judge(&self, bootstrap: &str, logs: &[PathBuf], found: &mut Findings) -> Result<()>;
}

/// What a run needs to know.
pub(crate) struct Setup {
    pub(crate) command: String,
    pub(crate) broker: Kind,
    pub(crate) workdir: PathBuf,
    pub(crate) steps: Vec<Step>,
    /// Whether the broker must also stop cleanly when it is asked to.
    pub(crate) expect_clean_stop: bool,
}

/// What is wrong, counted, with examples.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) other: u64,
    pub(crate) examples: Vec<String>,
}

impl Findings {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.other == 0
    }

    pub(crate) fn other(&mut self, what: String) {
        self.other += 1;
        self.example(what);
    }

    /// Compares a list with what it must be: each once, in order.
    pub(crate) fn compare(&mut self, name: &str, expected: &[String], found: &[String]) {
        if expected == found {
            return;
        }
        let mut left: std::collections::BTreeMap<&str, i64> = std::collections::BTreeMap::new();
        for one in expected {
            *left.entry(one).or_default() += 1;
        }
        for one in found {
            *left.entry(one).or_default() -= 1;
        }
        let lost: Vec<_> = left.iter().filter(|(_, count)| **count > 0).collect();
        let doubled: Vec<_> = left.iter().filter(|(_, count)| **count < 0).collect();
        self.lost += lost.len() as u64;
        self.doubled += doubled.len() as u64;
        for (one, count) in lost.iter().take(EXAMPLES_MAX) {
            self.example(format!("{name}: {one} is missing {count} times"));
        }
        for (one, count) in doubled.iter().take(EXAMPLES_MAX) {
            self.example(format!(
                "{name}: {one} is there {} times too often",
                -**count
            ));
        }
        let at = expected.iter().zip(found).position(|(a, b)| a != b);
        if let Some(at) = at {
            self.other(format!(
                "{name}: number {at} is {}, not {}",
                found[at], expected[at]
            ));
        }
    }

    fn example(&mut self, what: String) {
        if self.examples.len() < EXAMPLES_MAX * 4 {
            self.examples.push(what);
        }
    }
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) findings: Findings,
    pub(crate) broker_kills: u64,
    pub(crate) kills: u64,
    pub(crate) cuts: u64,
    pub(crate) wiped: u64,
}

/// The faults in the order of `faults`, spread over the run and aimed at requests of `apis`, both drawn from the seed.
pub(crate) fn plan(seed: u64, records: u64, faults: &[Fault], apis: &[Api]) -> Vec<Step> {
    let mut rng = Rng::new(seed);
    let count = faults.len() as u64;
    let span = records * (LAST_PERCENT - FIRST_PERCENT) / 100;
    let mut steps = Vec::new();
    for (i, &fault) in faults.iter().enumerate() {
        let length = (span / count.max(1)).max(1);
        steps.push(Step {
            at: records * FIRST_PERCENT / 100 + length * i as u64 + rng.below(length),
            fault,
            target: crate::plan::Target::One(rng.pick(apis)),
            skip: rng.below(SKIP_MAX),
        });
    }
    steps
}

/// The faults that a run has: kills of the broker between those of the application, of which one wipes its state, and cuts.
pub(crate) fn faults(broker_kills: u64, kills: u64, wipe: bool, cuts: u64) -> Vec<Fault> {
    let (mut broker_kills, mut kills, mut cuts) = (broker_kills, kills, cuts);
    let mut faults = Vec::new();
    while broker_kills + kills + cuts > 0 {
        if kills > 0 {
            kills -= 1;
            let last = kills == 0 && wipe;
            faults.push(Fault::KillProcessor(if last { WIPED } else { KEPT }));
        }
        if cuts > 0 {
            cuts -= 1;
            faults.push(Fault::Cut);
        }
        if broker_kills > 0 {
            broker_kills -= 1;
            faults.push(Fault::KillBroker);
        }
    }
    faults
}

/// In place of a processor's number: the application keeps what it has on its disk, or finds nothing there.
const KEPT: usize = 0;
const WIPED: usize = 1;

struct Run<A> {
    application: A,
    setup: Setup,
    journal: Journal,
    groups: Groups,
    broker: Broker,
    proxy: Proxy,
    bootstrap: String,
    sprung: UnboundedReceiver<Sprung>,
    process: Option<Process>,
    logs: Vec<PathBuf>,
    next_step: usize,
    set: Vec<TrapId>,
    outcome: Outcome,
}

/// Runs the application, breaks it, and has it judged.
pub(crate) async fn run<A: Application + Send + 'static>(
    application: A,
    setup: Setup,
) -> Result<Outcome> {
    let (sprung_to, sprung) = unbounded_channel();
    let groups = Groups::default();
    let proxy = Proxy::start(sprung_to).await?;
    let kind = match &setup.broker {
        Kind::Tally(path) => Kind::Tally(path.clone()),
        Kind::Reference(command) => Kind::Reference(command.clone()),
    };
    let mut run = Run {
        application,
        journal: Journal::create(&setup.workdir.join("run.log"))?,
        broker: Broker::new(kind, &setup.workdir, proxy.address, &groups),
        bootstrap: proxy.address.to_string(),
        groups,
        setup,
        proxy,
        sprung,
        process: None,
        logs: Vec::new(),
        next_step: 0,
        set: Vec::new(),
        outcome: Outcome::default(),
    };
    run.broker.set(TIMEOUT_CHECK);
    run.start_broker().await?;
    let (topics, partitions) = (
        run.application.output(),
        run.application.output_partitions(),
    );
    reader::create(&run.bootstrap, &topics, partitions).await?;
    run.application.prepare(&run.bootstrap).await?;
    let watch = Watch::start(&run.bootstrap, &topics, partitions);
    run.start_application()?;
    run.follow(&watch).await?;
    run.end_application().await?;
    drop(watch);
    run.judge().await?;
    Ok(run.outcome)
}

impl<A: Application + Send + 'static> Run<A> {
    async fn start_broker(&mut self) -> Result<()> {
        let address = self.broker.start().await?;
        self.journal.write(&format!("broker at {address}"));
        self.proxy.set_upstream(Some(address));
        Ok(())
    }

    fn start_application(&mut self) -> Result<()> {
        let start = self.logs.len();
        ensure!(start < STARTS_MAX, "it was started {STARTS_MAX} times");
        let log = self.setup.workdir.join(format!("application.{start}.log"));
        self.journal.write(&format!("start {start}"));
        self.process = Some(Process::start(
            &self.groups,
            &Program {
                command: &self.setup.command,
                arguments: self.application.arguments(&self.bootstrap)?,
                directory: self.setup.workdir.join("application"),
                log: log.clone(),
                pipe_output: false,
            },
        )?);
        self.logs.push(log);
        Ok(())
    }

    /// Until all output is there.
    async fn follow(&mut self, watch: &Watch) -> Result<()> {
        let expected = self.application.expected();
        let mut progress = (0, Instant::now());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(event) = self.sprung.recv() => {
                    self.take_sprung(event).await?;
                    continue;
                }
                _ = tick.tick() => {}
            }
            let seen = watch.seen.load(Ordering::Relaxed);
            if seen != progress.0 {
                progress = (seen, Instant::now());
                self.journal.write(&format!("{seen} of {expected}"));
            }
            if seen >= expected {
                return Ok(());
            }
            ensure!(
                progress.1.elapsed() < PROGRESS_DEADLINE,
                "no progress for {PROGRESS_DEADLINE:?}: {seen} of {expected}"
            );
            self.set_due_traps(seen);
            self.application.feed(seen, &mut self.journal).await?;
            self.look_at_processes().await?;
        }
    }

    fn set_due_traps(&mut self, seen: u64) {
        while let Some(step) = self
            .setup
            .steps
            .get(self.next_step)
            .filter(|step| step.at <= seen)
        {
            self.journal
                .write(&format!("set trap {} {step:?}", self.next_step));
            self.proxy.set_trap(self.next_step, step);
            self.set.push(self.next_step);
            self.next_step += 1;
        }
    }

    async fn look_at_processes(&mut self) -> Result<()> {
        if let Some(status) = self.broker.ended() {
            bail!("the broker ended by itself: {status}");
        }
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        if let Some(status) = process.child.try_wait()? {
            process.wait().await?;
            let start = self.logs.len() - 1;
            self.outcome
                .findings
                .other(format!("start {start} ended by itself: {status}"));
            self.start_application()?;
        }
        Ok(())
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
                self.proxy.set_trap(trap, &self.setup.steps[trap]);
                return Ok(());
            }
        };
        self.set.retain(|set| *set != trap);
        let (api, version, client) = (request.api, request.version, &request.client_id);
        self.journal.write(&format!(
            "trap {trap}: {fault:?} at {api} v{version} of {client}"
        ));
        match fault {
            Fault::KillBroker => {
                self.proxy.set_upstream(None);
                self.broker.kill().await?;
                self.outcome.broker_kills += 1;
                self.start_broker().await?;
            }
            Fault::KillProcessor(state) => {
                if let Some(process) = self.process.take() {
                    process.kill().await?;
                }
                self.outcome.kills += 1;
                if state == WIPED {
                    self.application.wipe()?;
                    self.outcome.wiped += 1;
                }
                self.start_application()?;
            }
            Fault::Cut => self.outcome.cuts += 1,
            Fault::KillAllAfterAnswer => bail!("no plan of an application has that"),
        }
        Ok(())
    }

    async fn end_application(&mut self) -> Result<()> {
        self.journal.write("all is there");
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.terminate();
        match tokio::time::timeout(END_DEADLINE, process.wait()).await {
            Ok(status) => {
                let status = status?;
                // 143: a virtual machine that ran its shutdown hooks after SIGTERM.
                if !matches!(status.code(), Some(0 | 143)) {
                    self.outcome
                        .findings
                        .other(format!("it ended with {status} after SIGTERM"));
                }
            }
            Err(_) => {
                process.kill().await?;
                self.outcome
                    .findings
                    .other("it does not end after SIGTERM".to_owned());
            }
        }
        Ok(())
    }

    /// Kills the broker once more, and judges what the one started after it has.
    async fn judge(&mut self) -> Result<()> {
        self.proxy.set_upstream(None);
        self.broker.kill().await?;
        self.start_broker().await?;
        let found = &mut self.outcome.findings;
        let (application, bootstrap, logs) = (&self.application, &self.bootstrap, &self.logs);
        // Nothing else is left to be done on this thread meanwhile.
        tokio::task::block_in_place(|| application.judge(bootstrap, logs, found))?;
        let log = std::fs::read_to_string(self.setup.workdir.join("broker.log"))?;
        let refused = log.lines().filter(|line| line.contains(REFUSAL)).count();
        if refused > 0 {
            found.other(format!("{refused} requests were taken for late ones"));
        }
        // A run that was not broken as planned proves nothing.
        for trap in self
            .set
            .iter()
            .copied()
            .chain(self.next_step..self.setup.steps.len())
        {
            let step = self.setup.steps[trap];
            found.other(format!(
                "step {trap} of the plan never came about: {step:?}"
            ));
        }
        if self.setup.expect_clean_stop {
            let status = self.broker.stop().await?;
            if !status.success() {
                found.other(format!("the broker stopped with {status} after SIGTERM"));
            }
        }
        Ok(())
    }
}

/// A read_committed consumer on a thread of its own that counts what it sees.
struct Watch {
    seen: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Watch {
    fn start(bootstrap: &str, topics: &[String], partitions: i32) -> Self {
        let watch = Self {
            seen: Arc::default(),
            over: Arc::default(),
        };
        let (seen, over) = (Arc::clone(&watch.seen), Arc::clone(&watch.over));
        let (bootstrap, topics) = (bootstrap.to_owned(), topics.to_vec());
        std::thread::spawn(move || {
            if let Err(error) = reader::count(&bootstrap, &topics, partitions, &seen, &over) {
                eprintln!("watch: {error:#}");
            }
        });
        watch
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A directory of the run's own.
pub(crate) fn directory(workdir: &Path, name: &str) -> Result<PathBuf> {
    let path = workdir.join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{END_TXN, PRODUCE};

    fn strings(of: &[&str]) -> Vec<String> {
        of.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn what_is_missing_there_twice_or_out_of_order_is_found() {
        let expected = strings(&["a", "b", "c"]);
        for (found, counts) in [
            (&["a", "b", "c"][..], (0, 0, 0)),
            (&["a", "c"], (1, 0, 1)),
            (&["a", "b", "b", "c"], (0, 1, 1)),
            (&["a", "c", "b"], (0, 0, 1)),
            (&["a", "b", "c", "c"], (0, 1, 0)),
            (&["a", "b"], (1, 0, 0)),
            (&["a", "b", "x"], (1, 1, 1)),
        ] {
            let mut findings = Findings::default();
            findings.compare("list", &expected, &strings(found));
            assert_eq!(
                (findings.lost, findings.doubled, findings.other),
                counts,
                "{found:?}"
            );
            assert_eq!(findings.is_clean(), found == ["a", "b", "c"]);
        }
    }

    #[test]
    fn a_plan_holds_every_fault_and_wipes_with_the_last_kill() {
        let wanted = faults(1, 2, true, 1);
        assert_eq!(
            wanted,
            [
                Fault::KillProcessor(KEPT),
                Fault::Cut,
                Fault::KillBroker,
                Fault::KillProcessor(WIPED)
            ]
        );
        for seed in 0..200 {
            let steps = plan(seed, 20_000, &wanted, &[PRODUCE, END_TXN]);
            assert_eq!(steps, plan(seed, 20_000, &wanted, &[PRODUCE, END_TXN]));
            assert!(steps.iter().map(|step| step.fault).eq(wanted.clone()));
            assert!(steps.is_sorted_by_key(|step| step.at));
            assert!(
                steps
                    .iter()
                    .all(|step| (1_600..17_600).contains(&step.at) && step.skip < SKIP_MAX)
            );
        }
    }
}
