//! A Kafka Connect worker with exactly-once source support: growing files become topics, and these are mirrored.
//!
//! Three FileStreamSource connectors read a file each, line by line, into a topic; a MirrorSource connector reads these topics and writes
//! each into another one. Both keep where they are in the worker's topic of offsets, in the same transaction as the records.
//! On the way the mirror gets fewer tasks: the worker then has the producers of all its former tasks fenced (KIP-618) before it
//! starts the new ones. Every line has to be in both topics once, in the order of its file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::api::{Api, END_TXN, PRODUCE};
use crate::application::{Application, Findings, directory};
use crate::journal::Journal;
use crate::reader;
use crate::rest;
use crate::rng::Rng;

const FILES: usize = 3;
/// The alias of the cluster that is mirrored, which is put in front of the names of its topics.
const ALIAS: &str = "here";
/// Lines of each file that may be written and not be in the mirror yet.
const WINDOW: u64 = 300;
const MIRROR: &str = "mirror";
const TASKS_BEFORE: usize = 3;
const TASKS_AFTER: usize = 2;
/// It changes when one in so many records has been seen.
const CHANGE_AT: u64 = 3;
/// What a worker writes when it has fenced the producers of former tasks.
const FENCED: &str = "Finished fencing out";
/// Between two questions to the worker.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Ports below those that Linux gives to outgoing connections.
const PORTS: std::ops::Range<u64> = 10_000..32_000;

/// What the worker was asked and has not answered yet.
enum Asked {
    Put(usize),
    Change,
    Status,
    Restart,
}

pub(crate) struct Connect {
    lines: u64,
    workdir: PathBuf,
    files: Vec<File>,
    written: u64,
    bootstrap: String,
    port: u16,
    /// Connectors that the worker has taken, of `FILES` and the mirror.
    put: usize,
    /// The mirror was given fewer tasks; and has no more than these.
    changed: bool,
    settled: bool,
    asked: Option<(Asked, JoinHandle<Result<Value>>)>,
    asked_at: Instant,
    /// What the worker said when it last did not do what it was asked.
    refusal: String,
}

impl Connect {
    /// `records` lines in all.
    pub(crate) fn new(records: u64, workdir: &Path) -> Result<Self> {
        let lines = records / FILES as u64;
        ensure!(
            lines * FILES as u64 == records,
            "--records must be a multiple of {FILES}"
        );
        let workdir = directory(workdir, "files")?;
        let files: Result<Vec<File>> = (0..FILES)
            .map(|file| {
                let path = workdir.join(format!("{}.txt", topic(file)));
                let options = OpenOptions::new().create(true).append(true).open(&path);
                options.with_context(|| format!("cannot write {}", path.display()))
            })
            .collect();
        Ok(Self {
            lines,
            files: files?,
            workdir,
            written: 0,
            bootstrap: String::new(),
            port: 0,
            put: 0,
            changed: false,
            settled: false,
            asked: None,
            asked_at: Instant::now(),
            refusal: String::new(),
        })
    }

    fn worker_properties(&self) -> String {
        let (bootstrap, port) = (&self.bootstrap, self.port);
        // The short times: a worker that was killed is missed by its group for so long, and what its tasks had begun to write to
        // the topic of offsets keeps the next one from starting for so long.
        format!(
            "bootstrap.servers={bootstrap}\n\
             group.id=connect-workers\n\
             exactly.once.source.support=enabled\n\
             config.storage.topic=connect-configs\n\
             config.storage.replication.factor=1\n\
             offset.storage.topic=connect-offsets\n\
             offset.storage.replication.factor=1\n\
             offset.storage.partitions=5\n\
             status.storage.topic=connect-status\n\
             status.storage.replication.factor=1\n\
             status.storage.partitions=2\n\
             key.converter=org.apache.kafka.connect.storage.StringConverter\n\
             value.converter=org.apache.kafka.connect.storage.StringConverter\n\
             listeners=http://127.0.0.1:{port}\n\
             plugin.discovery=service_load\n\
             session.timeout.ms=6000\n\
             heartbeat.interval.ms=1500\n\
             producer.transaction.timeout.ms=10000\n\
             scheduled.rebalance.max.delay.ms=0\n\
             reconnect.backoff.max.ms=500\n"
        )
    }

    fn file_connector(&self, file: usize) -> Value {
        json!({
            "connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector",
            "tasks.max": "1",
            "file": self.workdir.join(format!("{}.txt", topic(file))),
            "topic": topic(file),
            "exactly.once.support": "required",
        })
    }

    fn mirror(&self, tasks: usize) -> Value {
        let bytes = "org.apache.kafka.connect.converters.ByteArrayConverter";
        json!({
            "connector.class": "org.apache.kafka.connect.mirror.MirrorSourceConnector",
            "tasks.max": tasks.to_string(),
            "source.cluster.alias": ALIAS,
            "target.cluster.alias": "there",
            "source.cluster.bootstrap.servers": self.bootstrap,
            "target.cluster.bootstrap.servers": self.bootstrap,
            "topics": "lines-.*",
            "replication.factor": "1",
            "offset-syncs.topic.replication.factor": "1",
            "sync.topic.acls.enabled": "false",
            "source.consumer.isolation.level": "read_committed",
            "key.converter": bytes,
            "value.converter": bytes,
            "exactly.once.support": "required",
        })
    }

    /// What is to be asked next.
    fn next_question(&self, seen: u64) -> (Asked, &'static str, String, Value) {
        let config = |name: &str| format!("/connectors/{name}/config");
        if self.put < FILES {
            let body = self.file_connector(self.put);
            (Asked::Put(self.put), "PUT", config(&topic(self.put)), body)
        } else if self.put == FILES {
            let body = self.mirror(TASKS_BEFORE);
            (Asked::Put(FILES), "PUT", config(MIRROR), body)
        } else if !self.changed && seen >= self.expected() / CHANGE_AT {
            let body = self.mirror(TASKS_AFTER);
            (Asked::Change, "PUT", config(MIRROR), body)
        } else {
            let path = "/connectors?expand=status".to_owned();
            (Asked::Status, "GET", path, Value::Null)
        }
    }

    fn ask(&mut self, what: Asked, method: &'static str, path: String, body: Value) {
        let port = self.port;
        let task = tokio::spawn(async move { rest::ask(port, method, &path, &body).await });
        self.asked = Some((what, task));
        self.asked_at = Instant::now();
    }

    /// Takes an answer. A worker that is away or busy is asked again.
    fn take_answer(&mut self, what: &Asked, answer: Result<Value>, journal: &mut Journal) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let refusal = format!("{error:#}");
                if refusal != self.refusal {
                    journal.write(&format!("worker: {refusal}"));
                    self.refusal = refusal;
                }
                return;
            }
        };
        match what {
            Asked::Put(connector) => self.put = connector + 1,
            Asked::Change => {
                journal.write("the mirror has fewer tasks");
                self.changed = true;
            }
            Asked::Restart => {}
            Asked::Status => {
                if self.changed && !self.settled && running_tasks(&answer) == Some(TASKS_AFTER) {
                    journal.write("the mirror's new tasks run");
                    self.settled = true;
                }
                if let Some((name, trace)) = failed(&answer) {
                    // Whoever runs Kafka Connect has to do that, too.
                    journal.write(&format!("restart {name}, which has failed: {trace}"));
                    let path =
                        format!("/connectors/{name}/restart?includeTasks=true&onlyFailed=true");
                    self.ask(Asked::Restart, "POST", path, Value::Null);
                }
            }
        }
    }

    fn write_lines(&mut self, up_to: u64) -> Result<()> {
        let from = self.written;
        for (number, file) in self.files.iter_mut().enumerate() {
            let text: String = (from..up_to).map(|at| line(number, at) + "\n").collect();
            file.write_all(text.as_bytes())?;
        }
        self.written = up_to;
        Ok(())
    }
}

impl Application for Connect {
    fn output(&self) -> Vec<String> {
        (0..FILES)
            .flat_map(|file| [topic(file), mirrored(file)])
            .collect()
    }

    fn output_partitions(&self) -> i32 {
        1
    }

    fn expected(&self) -> u64 {
        self.lines * FILES as u64 * 2
    }

    fn targets(&self) -> &'static [Api] {
        // Where a source is goes by Produce too.
        &[PRODUCE, END_TXN]
    }

    fn has_state(&self) -> bool {
        false
    }

    async fn prepare(&mut self, bootstrap: &str) -> Result<()> {
        self.bootstrap = bootstrap.to_owned();
        Ok(())
    }

    fn arguments(&mut self, _: &str) -> Result<Vec<String>> {
        self.port = free_port()?;
        if let Some((_, task)) = self.asked.take() {
            task.abort();
        }
        let file = self.workdir.join("worker.properties");
        std::fs::write(&file, self.worker_properties())?;
        Ok(vec![file.display().to_string()])
    }

    async fn feed(&mut self, seen: u64, journal: &mut Journal) -> Result<()> {
        // Half of it waits until the mirror has its new tasks, which come after the fencing, however slow that is.
        let limit = if self.settled {
            self.lines
        } else {
            self.lines / 2
        };
        let due = (seen / (FILES as u64 * 2) + WINDOW).min(limit);
        if due > self.written {
            self.write_lines(due)?;
        }
        match self.asked.take() {
            Some((what, task)) if task.is_finished() => {
                self.take_answer(&what, task.await?, journal);
            }
            Some(asked) => self.asked = Some(asked),
            None if self.asked_at.elapsed() > ASK_EVERY => {
                let (what, method, path, body) = self.next_question(seen);
                self.ask(what, method, path, body);
            }
            None => {}
        }
        Ok(())
    }

    fn wipe(&self) -> Result<()> {
        Ok(())
    }

    fn judge(&self, bootstrap: &str, logs: &[PathBuf], found: &mut Findings) -> Result<()> {
        for file in 0..FILES {
            let expected: Vec<String> = (0..self.lines).map(|at| line(file, at)).collect();
            for topic in [topic(file), mirrored(file)] {
                found.compare(
                    &topic,
                    &expected,
                    &reader::read_values(bootstrap, &topic, 1)?,
                );
            }
        }
        let mut rounds = 0;
        for log in logs {
            let text = std::fs::read_to_string(log)?;
            rounds += text.lines().filter(|line| line.contains(FENCED)).count();
        }
        if !self.settled || rounds == 0 {
            let settled = self.settled;
            found.other(format!(
                "{rounds} rounds of fencing; the mirror has settled: {settled}"
            ));
        }
        Ok(())
    }
}

fn topic(file: usize) -> String {
    format!("lines-{file}")
}

fn mirrored(file: usize) -> String {
    format!("{ALIAS}.{}", topic(file))
}

fn line(file: usize, at: u64) -> String {
    format!("file {file} line {at}")
}

/// The first connector of a status answer that has failed or has a task that has, and why.
fn failed(status: &Value) -> Option<(String, String)> {
    status.as_object()?.iter().find_map(|(name, connector)| {
        let status = &connector["status"];
        let tasks = status["tasks"].as_array().into_iter().flatten();
        let mut all = std::iter::once(&status["connector"]).chain(tasks);
        let one = all.find(|one| one["state"] == "FAILED")?;
        let trace = one["trace"].as_str().unwrap_or_default();
        Some((
            name.clone(),
            trace.lines().next().unwrap_or_default().to_owned(),
        ))
    })
}

/// Tasks of the mirror, when all of them run.
fn running_tasks(status: &Value) -> Option<usize> {
    let tasks = status[MIRROR]["status"]["tasks"].as_array()?;
    let all_run = tasks.iter().all(|task| task["state"] == "RUNNING");
    all_run.then_some(tasks.len())
}

/// A port that nobody listens on; a worker that finds it taken all the same ends, and is started again with another one.
fn free_port() -> Result<u16> {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let mut rng = Rng::new(u64::from(seed.subsec_nanos()));
    for _ in 0..100 {
        let port = u16::try_from(PORTS.start + rng.below(PORTS.end - PORTS.start))?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no free port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_task_is_found_with_its_reason() {
        let status = |connector: &str, task: &str| {
            json!({"lines-0": {"status": {
                "connector": {"state": connector},
                "tasks": [{"id": 0, "state": "RUNNING"}, {"id": 1, "state": task, "trace": "why\n at x"}],
            }}})
        };
        assert_eq!(failed(&status("RUNNING", "RUNNING")), None);
        assert_eq!(
            failed(&status("RUNNING", "FAILED")),
            Some(("lines-0".to_owned(), "why".to_owned()))
        );
        assert_eq!(
            failed(&status("FAILED", "RUNNING")),
            Some(("lines-0".to_owned(), String::new()))
        );
        assert_eq!(failed(&json!({})), None);
    }

    #[test]
    fn the_mirror_has_settled_when_all_of_its_tasks_run() {
        let status = |states: &[&str]| {
            let tasks: Vec<Value> = states.iter().map(|state| json!({"state": state})).collect();
            json!({"lines-0": {"status": {"tasks": []}}, "mirror": {"status": {"tasks": tasks}}})
        };
        assert_eq!(running_tasks(&status(&["RUNNING", "RUNNING"])), Some(2));
        assert_eq!(running_tasks(&status(&["RUNNING", "UNASSIGNED"])), None);
        assert_eq!(running_tasks(&json!({})), None);
    }
}
