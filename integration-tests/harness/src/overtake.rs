//! Requests of the old transaction flow that arrive too late, with stock clients (KAFKA-17754).
//!
//! For each kind of request: the client's first transaction has one such request kept back by the proxy; the client gives
//! its connection up, tries again over a new one and goes on to its second transaction; then the old request reaches the
//! broker. Afterwards a reader says what the client was told and is not true. A third transaction shows that the client
//! goes on undisturbed. Before all that the client works for a while with connections that are closed under it, and must
//! not be refused once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::api::{
    ADD_OFFSETS_TO_TXN, ADD_PARTITIONS_TO_TXN, Api, END_TXN, PRODUCE, TXN_OFFSET_COMMIT,
};
use crate::broker::{Broker, Kind};
use crate::holding::{HoldingProxy, Late};
use crate::process::Groups;
use crate::reader;
use crate::steps::{Start, Step, Steps};
use crate::transaction_state::state_of;

/// The requests that can come late.
pub(crate) const CASES: [Api; 5] = [
    END_TXN,
    TXN_OFFSET_COMMIT,
    PRODUCE,
    ADD_PARTITIONS_TO_TXN,
    ADD_OFFSETS_TO_TXN,
];
/// The head of the table.
pub(crate) const HEAD: &str =
    "client          case                       first      late      refused  found";
/// What the broker writes to its log for each request that the guard does not process.
pub(crate) const REFUSAL: &str = "W2103";
const INPUT: &str = "overtaken-in";
const PARTITIONS: i32 = 2;
/// Transactions of the undisturbed part.
const CALM_TRANSACTIONS: usize = 20;
/// A record is given up on after this long in the one case that needs it, before the client tries again by itself.
const IMPATIENT_MS: u32 = 1500;
const PATIENT_MS: u32 = 60_000;
/// For the broker to write a line to its log, or the markers of a transaction.
const LOG_DEADLINE: Duration = Duration::from_secs(60);

/// What a run needs to know.
pub(crate) struct Setup {
    pub(crate) client: String,
    pub(crate) command: String,
    pub(crate) broker: Kind,
    pub(crate) workdir: PathBuf,
    pub(crate) cases: Vec<Api>,
    /// Those that must do damage: a control, or a gap that is known.
    pub(crate) damaging: Vec<Api>,
}

/// What was asked to end a transaction, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Committed,
    Aborted,
    /// A commit was asked for and its outcome never told.
    Unknown,
}

/// A transaction as its client knows it.
#[derive(Debug)]
struct Transaction {
    values: Vec<String>,
    offset: Option<i64>,
    end: End,
}

/// A line of the report.
struct Row {
    case: String,
    /// What the client made of the transaction whose request was kept back.
    first: &'static str,
    late: Option<Late>,
    refused: usize,
    found: Vec<String>,
    /// Steps that failed although nothing was kept back any more.
    disturbed: Vec<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late = match self.late {
            None => "-",
            Some(Late::Answered) => "answered",
            Some(Late::Closed) => "closed",
        };
        let mut found = self.found.clone();
        found.extend(self.disturbed.iter().map(|what| format!("({what})")));
        write!(
            f,
            "{:<25}  {:<9}  {late:<8}  {:>7}  {}",
            self.case,
            self.first,
            self.refused,
            if found.is_empty() {
                "nothing".to_owned()
            } else {
                found.join("; ")
            }
        )
    }
}

struct Run {
    setup: Setup,
    proxy: HoldingProxy,
    groups: Groups,
    broker_address: std::net::SocketAddr,
    bootstrap: String,
}

/// Runs all cases; whether everything is as it must be.
pub(crate) async fn run(setup: Setup) -> Result<bool> {
    let groups = Groups::default();
    let proxy = HoldingProxy::start().await?;
    let kind = match &setup.broker {
        Kind::Tally(path) => Kind::Tally(path.clone()),
        Kind::Reference(command) => Kind::Reference(command.clone()),
    };
    let mut broker = Broker::new(kind, &setup.workdir, proxy.address, &groups);
    let broker_address = broker.start().await?;
    proxy.set_upstream(broker_address);
    // The same broker twice: a client that takes each for a broker of its own has a connection for each.
    let port = proxy.address.port();
    let bootstrap = format!("127.0.0.1:{port},localhost:{port}");
    reader::create(&bootstrap, &[INPUT.to_owned()], PARTITIONS).await?;
    let run = Run {
        setup,
        proxy,
        groups,
        broker_address,
        bootstrap,
    };
    // The first to ask for a group's coordinator has Apache Kafka make it.
    let asked = run.bootstrap.clone();
    tokio::task::spawn_blocking(move || reader::committed_offset(&asked, "warm", INPUT, 0))
        .await??;
    let mut good = true;
    let calm = run.calm().await.context("without anything late")?;
    println!("{:<14}  {calm}", run.setup.client);
    good &= calm.found.is_empty() && calm.disturbed.is_empty() && calm.refused == 0;
    for case in run.setup.cases.clone() {
        let row = run.case(case).await.with_context(|| format!("{case}"))?;
        println!("{:<14}  {row}", run.setup.client);
        good &= if run.setup.damaging.contains(&case) {
            !row.found.is_empty()
        } else {
            row.is_as_it_must_be()
        };
    }
    Ok(good)
}

impl Row {
    /// Nothing was lost or torn, the client did not notice, and the guard refused what came late or nothing at all: a
    /// late frame that the broker answers is one that it knows by its epoch or its sequence.
    fn is_as_it_must_be(&self) -> bool {
        let refused = usize::from(self.late == Some(Late::Closed));
        self.late.is_some()
            && self.found.is_empty()
            && self.disturbed.is_empty()
            && self.refused == refused
    }
}

impl Run {
    async fn start(&self, name: &str, delivery_timeout_ms: u32) -> Result<Steps> {
        Steps::start(
            &self.groups,
            &Start {
                command: &self.setup.command,
                bootstrap: &self.bootstrap,
                name,
                topic: name,
                input: INPUT,
                group: name,
                delivery_timeout_ms,
                directory: &self.setup.workdir,
            },
        )
        .await
    }

    /// Transactions of a client whose connections are closed now and then, between its requests. A client may need to try
    /// again or to be started again; it must never be refused, and what it was told must be so.
    async fn calm(&self) -> Result<Row> {
        let name = "calm".to_owned();
        reader::create(&self.bootstrap, std::slice::from_ref(&name), PARTITIONS).await?;
        let before = self.refusals()?;
        let mut telling = self.tell(&name, PATIENT_MS).await?;
        for number in 0..CALM_TRANSACTIONS {
            if number % 4 == 1 {
                self.proxy.reset();
            }
            telling.begin().await?;
            let mut done = true;
            for at in 0..4 {
                done = done
                    && telling
                        .send(at % PARTITIONS, &format!("{number}-{at}"))
                        .await?;
                if number % 4 == 2 && at == 1 {
                    self.proxy.reset();
                }
            }
            done = done && telling.offsets(i64::try_from(number)? + 1).await?;
            telling.finish(done && number % 5 != 3).await?;
        }
        let transactions = telling.end().await?;
        let committed = transactions.iter().filter(|t| t.end == End::Committed);
        ensure!(
            committed.count() >= CALM_TRANSACTIONS / 2 && self.proxy.connections() > 5,
            "too little was done"
        );
        Ok(Row {
            case: "nothing late".to_owned(),
            first: "-",
            late: None,
            refused: self.refusals()? - before,
            found: self.judge(&name, &transactions).await?,
            disturbed: Vec::new(),
        })
    }

    async fn tell(&self, name: &str, delivery_timeout_ms: u32) -> Result<Telling<'_>> {
        Ok(Telling {
            run: self,
            name: name.to_owned(),
            delivery_timeout_ms,
            program: self.start(name, delivery_timeout_ms).await?,
            transactions: Vec::new(),
            disturbed: Vec::new(),
            restarted: false,
        })
    }

    async fn case(&self, case: Api) -> Result<Row> {
        let name = format!("late-{case}").to_lowercase();
        reader::create(&self.bootstrap, std::slice::from_ref(&name), PARTITIONS).await?;
        let before = self.refusals()?;
        let delivery_timeout_ms = if case == PRODUCE {
            IMPATIENT_MS
        } else {
            PATIENT_MS
        };
        let mut telling = self.tell(&name, delivery_timeout_ms).await?;
        let mut found = Vec::new();
        telling.first(case).await?;
        ensure!(
            self.proxy.keep_no_more() || case == PRODUCE,
            "the client has sent no {case}"
        );
        // What failed there was made to.
        telling.disturbed.clear();
        let first = telling.first_end();
        telling.second(case).await?;
        if case == TXN_OFFSET_COMMIT {
            // Before the third transaction's offset hides it.
            found.extend(self.judge(&name, &telling.transactions).await?);
        }
        if case == ADD_PARTITIONS_TO_TXN || case == ADD_OFFSETS_TO_TXN {
            self.completed(&name).await?;
            self.proxy.deliver().await?;
            if state_of(self.broker_address, &name).await? == "Ongoing" {
                found.push("a transaction is open that nobody began".to_owned());
            }
        }
        telling.third().await?;
        let late = self.proxy.late();
        let disturbed = std::mem::take(&mut telling.disturbed);
        let transactions = telling.end().await?;
        found.extend(self.judge(&name, &transactions).await?);
        let refused = self
            .refusals_since(before, late == Some(Late::Closed))
            .await?;
        Ok(Row {
            case: format!("late {case}"),
            first,
            late,
            refused,
            found,
            disturbed,
        })
    }

    /// Waits until the coordinator has nothing to do for the id: until then Apache Kafka turns away whatever comes (51).
    async fn completed(&self, name: &str) -> Result<()> {
        let deadline = tokio::time::Instant::now() + LOG_DEADLINE;
        while state_of(self.broker_address, name)
            .await?
            .starts_with("Prepare")
        {
            ensure!(
                tokio::time::Instant::now() < deadline,
                "the transaction is never completed"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// What was told and is not so.
    async fn judge(&self, name: &str, transactions: &[Transaction]) -> Result<Vec<String>> {
        let (bootstrap, topic) = (self.bootstrap.clone(), name.to_owned());
        let (values, offset) = tokio::task::spawn_blocking(move || {
            anyhow::Ok((
                reader::read_values(&bootstrap, &topic, PARTITIONS)?,
                reader::committed_offset(&bootstrap, &topic, INPUT, 0)?,
            ))
        })
        .await??;
        Ok(compare(transactions, &values, offset))
    }

    /// Lines of the broker's log that speak of the guard.
    fn refusals(&self) -> Result<usize> {
        let log = std::fs::read_to_string(self.setup.workdir.join("broker.log"))?;
        Ok(log.lines().filter(|line| line.contains(REFUSAL)).count())
    }

    /// The same since a count; a refusal that was seen on the wire is waited for, for the log may come after it.
    async fn refusals_since(&self, before: usize, is_expected: bool) -> Result<usize> {
        let deadline = tokio::time::Instant::now() + LOG_DEADLINE;
        loop {
            let refused = self.refusals()? - before;
            if refused > 0 || !is_expected || matches!(self.setup.broker, Kind::Reference(_)) {
                return Ok(refused);
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "a connection was closed and the log does not say {REFUSAL}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// One client's story of three transactions.
struct Telling<'a> {
    run: &'a Run,
    name: String,
    delivery_timeout_ms: u32,
    program: Steps,
    transactions: Vec<Transaction>,
    disturbed: Vec<String>,
    /// The program could not go on and was started again.
    restarted: bool,
}

impl Telling<'_> {
    /// The transaction whose request is kept back.
    async fn first(&mut self, case: Api) -> Result<()> {
        let proxy = &self.run.proxy;
        if case != PRODUCE {
            proxy.keep_next(case);
        }
        self.begin().await?;
        let mut done = self.send(0, "1-0").await?;
        if case == PRODUCE {
            // An impatient author gives this record up, and with it the transaction.
            proxy.keep_next(case);
            done &= self.send(0, "1-1").await?;
        }
        done = done && (case == PRODUCE || self.offsets(1).await?);
        self.finish(done).await
    }

    /// The one that the late request finds in its place.
    async fn second(&mut self, case: Api) -> Result<()> {
        self.begin().await?;
        if case == PRODUCE {
            self.run.proxy.deliver_before(PRODUCE);
        }
        let mut done = self.send(0, "2-0").await?;
        if case == END_TXN {
            self.run.proxy.deliver().await?;
            // Apache Kafka answers before the markers are written; until then the next record still finds the transaction.
            self.run.completed(&self.name).await?;
        }
        done = done && self.send(0, "2-1").await?;
        done = done && (case == PRODUCE || self.offsets(2).await?);
        if case == TXN_OFFSET_COMMIT {
            self.run.proxy.deliver().await?;
        }
        self.finish(done).await
    }

    /// A plain one.
    async fn third(&mut self) -> Result<()> {
        self.begin().await?;
        let done = self.send(1, "3-0").await? && self.offsets(3).await?;
        self.finish(done).await
    }

    async fn begin(&mut self) -> Result<()> {
        self.transactions.push(Transaction {
            values: Vec::new(),
            offset: None,
            end: End::Aborted,
        });
        self.step("begin".to_owned()).await?;
        Ok(())
    }

    async fn send(&mut self, partition: i32, value: &str) -> Result<bool> {
        self.latest().values.push(value.to_owned());
        self.step(format!("send {partition} {value}")).await
    }

    async fn offsets(&mut self, offset: i64) -> Result<bool> {
        self.latest().offset = Some(offset);
        self.step(format!("offsets {offset}")).await
    }

    /// Commits what is done, aborts what is not; a client that can do neither is started again, as its user would.
    async fn finish(&mut self, done: bool) -> Result<()> {
        if done {
            if self.step("commit".to_owned()).await? {
                self.latest().end = End::Committed;
                return Ok(());
            }
            self.latest().end = End::Unknown;
        }
        if !self.step("abort".to_owned()).await? {
            let fresh = self.run.start(&self.name, self.delivery_timeout_ms).await?;
            std::mem::replace(&mut self.program, fresh).end().await?;
            self.restarted = true;
        }
        Ok(())
    }

    async fn end(self) -> Result<Vec<Transaction>> {
        self.program.end().await?;
        Ok(self.transactions)
    }

    fn first_end(&self) -> &'static str {
        match (self.transactions[0].end, self.restarted) {
            (End::Committed, _) => "committed",
            (_, true) => "restarted",
            (End::Aborted | End::Unknown, false) => "aborted",
        }
    }

    fn latest(&mut self) -> &mut Transaction {
        self.transactions.last_mut().expect("one has begun")
    }

    async fn step(&mut self, line: String) -> Result<bool> {
        let step = self.program.step(&line).await?;
        if let Step::Failed(why) = &step {
            self.disturbed.push(format!("{line}: {why}"));
        }
        Ok(step.is_done())
    }
}

/// What was told and is not so. `offset` is what the group has.
fn compare(transactions: &[Transaction], values: &[String], offset: i64) -> Vec<String> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for value in values {
        *seen.entry(value).or_default() += 1;
    }
    let mut found = Vec::new();
    for transaction in transactions {
        let visible = |value: &&String| seen.contains_key(value.as_str());
        let there = transaction.values.iter().filter(visible).count();
        let all = transaction.values.len();
        let text = transaction.values.join(" ");
        match transaction.end {
            End::Committed if there < all => found.push(format!("lost of {text}: {}", all - there)),
            End::Aborted if there > 0 => {
                found.push(format!("aborted and yet read of {text}: {there}"));
            }
            End::Unknown if there > 0 && there < all => {
                found.push(format!("torn {text}: {there} of {all}"));
            }
            End::Committed | End::Aborted | End::Unknown => {}
        }
    }
    let doubled = seen.iter().filter(|(_, count)| **count > 1);
    found.extend(doubled.map(|(value, count)| format!("{value} is there {count} times")));
    let committed = transactions
        .iter()
        .filter(|transaction| transaction.end == End::Committed)
        .filter_map(|transaction| transaction.offset);
    if let Some(last) = committed.max()
        && last != offset
        && transactions.iter().all(|t| t.end != End::Unknown)
    {
        found.push(format!("offset {last} committed, {offset} there"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(values: &[&str], offset: i64, end: End) -> Transaction {
        Transaction {
            values: values.iter().map(|value| (*value).to_owned()).collect(),
            offset: Some(offset),
            end,
        }
    }

    #[track_caller]
    fn check(second: End, values: &[&str], offset: i64, expected: &[&str]) {
        let transactions = [
            transaction(&["1-0"], 1, End::Committed),
            transaction(&["2-0", "2-1"], 2, second),
        ];
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        assert_eq!(compare(&transactions, &values, offset), expected);
    }

    #[test]
    fn what_is_as_told_is_no_finding() {
        check(End::Committed, &["1-0", "2-0", "2-1"], 2, &[]);
        check(End::Aborted, &["1-0"], 1, &[]);
        check(End::Unknown, &["1-0"], 1, &[]);
        check(End::Unknown, &["1-0", "2-0", "2-1"], 2, &[]);
    }

    #[test]
    fn what_is_otherwise_is_found() {
        check(End::Committed, &["1-0", "2-0"], 2, &["lost of 2-0 2-1: 1"]);
        check(
            End::Aborted,
            &["1-0", "2-0"],
            1,
            &["aborted and yet read of 2-0 2-1: 1"],
        );
        check(End::Unknown, &["1-0", "2-1"], 1, &["torn 2-0 2-1: 1 of 2"]);
        check(
            End::Committed,
            &["1-0", "1-0", "2-0", "2-1"],
            1,
            &["1-0 is there 2 times", "offset 2 committed, 1 there"],
        );
    }
}
