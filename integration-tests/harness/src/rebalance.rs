//! The ordered-session guard (D-8) while a group is rebalanced, with stock clients of the old transaction flow.
//!
//! Two members of a group read, process and write in transactions; each partition has a transactional id, which goes from
//! member to member with it. Members join, leave and are killed, and connections are closed under them. The broker must
//! not have refused one request, and afterwards the output must be the input: each record once, in order.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStdout;
use tokio::time::Instant;

use crate::broker::{Broker, Kind};
use crate::holding::HoldingProxy;
use crate::journal::Journal;
use crate::overtake::REFUSAL;
use crate::process::{Groups, Process, Program};
use crate::reader;

/// The head of the table.
pub(crate) const HEAD: &str = "client          records  transactions  aborts  assignments  resets  kills  restarts  seconds  refused  found";
const INPUT: &str = "together-in";
const OUTPUT: &str = "together-out";
const GROUP: &str = "together";
const PARTITIONS: i32 = 4;
/// Between two disturbances this many records are committed.
const PROGRESS: u64 = 60;
/// A round of records, one for each partition, is sent this often.
const FEED_EVERY: Duration = Duration::from_millis(25);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a member opens before it joins the group.
const CONNECTIONS: u64 = 2;
/// For progress; a member that was killed holds its partitions for its session timeout of 6 s.
const DEADLINE: Duration = Duration::from_secs(90);
/// A client may come to an end that only another start of it gets over; not again and again.
const RESTARTS_MAX: u64 = 6;
const FLUSH: Duration = Duration::from_secs(60);

/// What a run needs to know.
pub(crate) struct Setup {
    pub(crate) client: String,
    pub(crate) command: String,
    pub(crate) broker: Kind,
    pub(crate) workdir: PathBuf,
}

/// What is done to the members, each once some records have been committed since the one before.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// It joins; both must have been assigned something then.
    Start(usize),
    /// The same, and every connection is closed as soon as it has opened some: in the middle of its joining.
    StartAndReset(usize),
    /// It is asked to leave.
    Leave(usize),
    Kill(usize),
    /// Every connection is closed.
    Reset,
}

const EVENTS: &[Event] = &[
    Event::Start(0),
    Event::Start(1),
    Event::Reset,
    Event::Leave(1),
    Event::StartAndReset(1),
    Event::Kill(0),
    Event::Reset,
    Event::Start(0),
    Event::Leave(1),
    Event::Reset,
    Event::StartAndReset(1),
    Event::Leave(0),
    Event::Start(0),
];

/// What members have said.
#[derive(Default)]
struct Said {
    /// Of each member, what its running process was assigned last.
    assigned: [Vec<String>; 2],
    assignments: u64,
    transactions: u64,
    aborts: u64,
    records: u64,
}

struct Run {
    setup: Setup,
    proxy: HoldingProxy,
    groups: Groups,
    bootstrap: String,
    said: Arc<Mutex<Said>>,
    members: [Option<Process>; 2],
    journal: Journal,
    starts: u64,
    restarts: u64,
}

/// Runs all of it; whether everything is as it must be.
pub(crate) async fn run(setup: Setup) -> Result<bool> {
    let begin = Instant::now();
    let groups = Groups::default();
    let proxy = HoldingProxy::start().await?;
    let kind = match &setup.broker {
        Kind::Tally(path) => Kind::Tally(path.clone()),
        Kind::Reference(command) => Kind::Reference(command.clone()),
    };
    let mut broker = Broker::new(kind, &setup.workdir, proxy.address, &groups);
    proxy.set_upstream(broker.start().await?);
    let port = proxy.address.port();
    // The same broker twice: a client that takes each for a broker of its own has a connection for each.
    let bootstrap = format!("127.0.0.1:{port},localhost:{port}");
    reader::create(
        &bootstrap,
        &[INPUT.to_owned(), OUTPUT.to_owned()],
        PARTITIONS,
    )
    .await?;
    let asked = bootstrap.clone();
    tokio::task::spawn_blocking(move || reader::committed_offset(&asked, "warm", INPUT, 0))
        .await??;
    let mut run = Run {
        journal: Journal::create(&setup.workdir.join("run.log"))?,
        setup,
        proxy,
        groups,
        bootstrap,
        said: Arc::default(),
        members: [None, None],
        starts: 0,
        restarts: 0,
    };
    let (fed, found) = run.disturbed().await?;
    let said = run.said();
    let refused = run.refusals()?;
    let count = |wanted: fn(&Event) -> bool| EVENTS.iter().filter(|event| wanted(event)).count();
    println!(
        "{:<14}  {fed:>7}  {:>12}  {:>6}  {:>11}  {:>6}  {:>5}  {:>8}  {:>7}  {refused:>7}  {}",
        run.setup.client,
        said.transactions,
        said.aborts,
        said.assignments,
        count(|event| matches!(event, Event::Reset | Event::StartAndReset(_))),
        count(|event| matches!(event, Event::Kill(_))),
        run.restarts,
        begin.elapsed().as_secs(),
        if found.is_empty() {
            "nothing".to_owned()
        } else {
            found.join("; ")
        }
    );
    // Nothing is shown by clients that did little.
    ensure!(
        said.aborts > 5 && said.assignments >= 10,
        "too little was done"
    );
    Ok(found.is_empty() && refused == 0)
}

impl Run {
    /// The events one after the other, over a stream of records that does not stop; how many records there were, and
    /// what is wrong with the output.
    async fn disturbed(&mut self) -> Result<(usize, Vec<String>)> {
        let ended = Arc::new(AtomicBool::new(false));
        let (bootstrap, until) = (self.bootstrap.clone(), Arc::clone(&ended));
        let feeder = tokio::task::spawn_blocking(move || feed(&bootstrap, &until));
        for &event in EVENTS {
            self.journal.write(&format!("{event:?}"));
            self.carry_out(event)
                .await
                .with_context(|| format!("{event:?}"))?;
            self.journal.write("done");
            let goal = self.said().records + PROGRESS;
            self.wait(
                &format!("{PROGRESS} more records after {event:?}"),
                |said| said.records >= goal,
            )
            .await?;
        }
        self.journal.write("no more records");
        ended.store(true, Ordering::Relaxed);
        let rounds = feeder.await??;
        self.processed(rounds).await?;
        for member in 0..2 {
            self.leave(member).await?;
        }
        self.journal.write("all have left");
        let bootstrap = self.bootstrap.clone();
        let values = tokio::task::spawn_blocking(move || {
            reader::read_values(&bootstrap, OUTPUT, PARTITIONS)
        })
        .await??;
        let partitions = usize::try_from(PARTITIONS)?;
        Ok((rounds * partitions, compare(rounds, &values)))
    }

    async fn carry_out(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Start(member) | Event::StartAndReset(member) => {
                let goal = self.proxy.connections() + CONNECTIONS;
                self.start(member)?;
                if matches!(event, Event::StartAndReset(_)) {
                    while self.proxy.connections() < goal {
                        self.look_after_members()?;
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                    self.proxy.reset();
                }
                let both = self.members.iter().all(Option::is_some);
                self.wait("a share for each member", |said| {
                    !said.assigned[member].is_empty()
                        && (!both || said.assigned.iter().all(|share| !share.is_empty()))
                })
                .await?;
            }
            Event::Leave(member) => self.leave(member).await?,
            Event::Kill(member) => {
                if let Some(process) = self.members[member].take() {
                    process.kill().await?;
                }
                self.said().assigned[member].clear();
            }
            Event::Reset => self.proxy.reset(),
        }
        Ok(())
    }

    fn start(&mut self, member: usize) -> Result<()> {
        self.starts += 1;
        let name = format!("member-{member}-{}", self.starts);
        let directory = &self.setup.workdir;
        let arguments = [
            "member",
            "--bootstrap",
            &self.bootstrap,
            "--transactional-id",
            GROUP,
            "--group",
            GROUP,
            "--in",
            INPUT,
            "--out",
            OUTPUT,
        ];
        let mut process = Process::start(
            &self.groups,
            &Program {
                command: &self.setup.command,
                arguments: arguments.map(str::to_owned).to_vec(),
                directory: directory.join(&name),
                log: directory.join(format!("{name}.log")),
                pipe_output: true,
            },
        )?;
        let output = process.child.stdout.take().context("no output")?;
        tokio::spawn(listen(output, member, Arc::clone(&self.said)));
        self.said().assigned[member].clear();
        self.members[member] = Some(process);
        Ok(())
    }

    /// Asks a member to leave; it must end by itself and in order.
    async fn leave(&mut self, member: usize) -> Result<()> {
        let mut process = self.members[member].take().context("it is not there")?;
        process.terminate();
        let status = tokio::time::timeout(DEADLINE, process.wait())
            .await
            .context("it does not leave")??;
        // Fatal errors happen at any time, also now.
        ensure!(
            matches!(status.code(), Some(0 | 3)),
            "it left with {status}"
        );
        self.said().assigned[member].clear();
        Ok(())
    }

    /// Waits for what members say; one that has ended with a fatal error is started again.
    async fn wait(&mut self, what: &str, is_so: impl Fn(&Said) -> bool) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(&self.said()) {
            ensure!(Instant::now() < deadline, "{what}: not after {DEADLINE:?}");
            self.look_after_members()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn look_after_members(&mut self) -> Result<()> {
        for member in 0..2 {
            let Some(process) = &mut self.members[member] else {
                continue;
            };
            let Some(status) = process.child.try_wait()? else {
                continue;
            };
            ensure!(
                status.code() == Some(3),
                "member {member} has ended: {status}"
            );
            self.restarts += 1;
            ensure!(self.restarts <= RESTARTS_MAX, "members end again and again");
            self.start(member)?;
        }
        Ok(())
    }

    /// Waits until the group has come to the end of its input.
    async fn processed(&mut self, rounds: usize) -> Result<()> {
        let end = i64::try_from(rounds)?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let bootstrap = self.bootstrap.clone();
            let offsets = tokio::task::spawn_blocking(move || {
                (0..PARTITIONS)
                    .map(|partition| reader::committed_offset(&bootstrap, GROUP, INPUT, partition))
                    .collect::<Result<Vec<_>>>()
            })
            .await??;
            if offsets.iter().all(|offset| *offset == end) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the group has come to {offsets:?}, the end is {end}");
            }
            self.look_after_members()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Lines of the broker's log that speak of the guard.
    fn refusals(&self) -> Result<usize> {
        let log = std::fs::read_to_string(self.setup.workdir.join("broker.log"))?;
        Ok(log.lines().filter(|line| line.contains(REFUSAL)).count())
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said
            .lock()
            .expect("nobody panics while holding this lock")
    }
}

/// Notes what a member says until its output ends.
async fn listen(output: ChildStdout, member: usize, said: Arc<Mutex<Said>>) {
    let mut lines = BufReader::new(output).lines();
    let mut records = 0;
    while let Ok(Some(line)) = lines.next_line().await {
        let mut said = said.lock().expect("nobody panics while holding this lock");
        if let Some(share) = line.strip_prefix("assigned") {
            said.assignments += 1;
            said.assigned[member] = share
                .trim()
                .split(',')
                .filter(|partition| !partition.is_empty())
                .map(str::to_owned)
                .collect();
        } else if let Some(count) = line
            .strip_prefix("committed ")
            .and_then(|count| count.parse::<u64>().ok())
        {
            said.transactions += 1;
            said.records += count.saturating_sub(records);
            records = records.max(count);
        } else if line == "aborted" {
            said.aborts += 1;
        } else {
            // Some libraries write to standard output on their own.
            eprintln!("{line}");
        }
    }
}

/// Sends a numbered record to each partition now and then, until told to end; how many each has got.
fn feed(bootstrap: &str, ended: &AtomicBool) -> Result<usize> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "feeder")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("reconnect.backoff.max.ms", "500")
        .create::<ThreadedProducer<rdkafka::producer::DefaultProducerContext>>()?;
    let mut rounds = 0;
    while !ended.load(Ordering::Relaxed) {
        for partition in 0..PARTITIONS {
            let value = value(partition, rounds);
            let record = BaseRecord::<(), _>::to(INPUT)
                .partition(partition)
                .payload(&value);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        rounds += 1;
        std::thread::sleep(FEED_EVERY);
    }
    producer.flush(FLUSH)?;
    Ok(rounds)
}

fn value(partition: i32, round: usize) -> String {
    format!("{partition}-{round}")
}

/// What is not there exactly once, or not in its partition's order.
fn compare(rounds: usize, values: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for partition in 0..PARTITIONS {
        let prefix = format!("{partition}-");
        let here: Vec<&String> = values.iter().filter(|v| v.starts_with(&prefix)).collect();
        let expected: Vec<String> = (0..rounds).map(|round| value(partition, round)).collect();
        if here.iter().copied().eq(&expected) {
            continue;
        }
        let missing = expected.iter().filter(|value| !here.contains(value));
        let (missing, distinct) = (missing.count(), {
            let mut sorted = here.clone();
            sorted.sort();
            sorted.dedup();
            sorted.len()
        });
        found.push(format!(
            "partition {partition}: {missing} lost, {} doubled, of {rounds}",
            here.len() - distinct
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of two rounds with something done to partition 1.
    #[track_caller]
    fn check(of_one: &[&str], expected: &[&str]) {
        let mut values: Vec<String> = Vec::new();
        for partition in [0, 2, 3] {
            values.extend((0..2).map(|round| value(partition, round)));
        }
        values.extend(of_one.iter().map(|value| (*value).to_owned()));
        assert_eq!(compare(2, &values), expected);
    }

    #[test]
    fn what_is_there_once_and_in_order_is_no_finding() {
        check(&["1-0", "1-1"], &[]);
    }

    #[test]
    fn what_is_otherwise_is_found() {
        check(&["1-0"], &["partition 1: 1 lost, 0 doubled, of 2"]);
        check(
            &["1-0", "1-1", "1-0"],
            &["partition 1: 0 lost, 1 doubled, of 2"],
        );
        check(&["1-1", "1-0"], &["partition 1: 0 lost, 0 doubled, of 2"]);
    }
}
