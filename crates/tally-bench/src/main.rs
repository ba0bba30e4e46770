//! What `scripts/bench` runs: the floor, the load, and the rounds in which Tally and Apache Kafka are compared with it.
//!
//! Never part of what is released. Only ratios of one run count: the load shares the processors with what it measures, and the
//! machine with everybody else.
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "figures for a person: they are rounded, and printed"
)]

mod cells;
mod engine;
mod floor;
mod frames;
mod histogram;
mod loads;
mod realtime;
mod report;
mod requests;
mod rounds;
mod still;
mod target;
mod waits;

use anyhow::{Context, Result, ensure};
use cells::{Budget, Cell, QUICK_SYNC_MS, ROUNDS_MAX_WITHOUT_BUDGET};
use clap::{Args, Parser, Subcommand};
use report::Results;
use rounds::Rounds;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::{Duration, Instant};
use target::{Kind, Programs, Target, resolve};

#[derive(Parser)]
#[command(name = "tally-bench", about = "Measures brokers; see scripts/bench")]
struct Command {
    #[command(subcommand)]
    subcommand: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Be the floor until standard input ends
    Floor {
        /// Directory for its files
        #[arg(long)]
        data: PathBuf,
        /// HOST:PORT is written here
        #[arg(long)]
        port_file: PathBuf,
    },
    /// Measure
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// The tally binary
    #[arg(long)]
    tally: PathBuf,
    /// The script that starts Apache Kafka
    #[arg(long)]
    kafka: PathBuf,
    /// A new directory for all data
    #[arg(long)]
    directory: PathBuf,
    /// Leave Apache Kafka out
    #[arg(long)]
    no_kafka: bool,
    /// All cells, not only those with a budget
    #[arg(long)]
    full: bool,
    /// Only these cells, or those with one of these in their names; comma between them
    #[arg(long, value_delimiter = ',')]
    cells: Vec<String>,
    /// Rounds of each cell
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a round
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Bytes that Kafka is warmed with, in GB
    #[arg(long, default_value_t = 5.0)]
    warm_gb: f64,
    /// Seconds of transactions that Kafka is warmed with
    #[arg(long, default_value_t = 60)]
    warm_seconds: u64,
    /// Only list the cells
    #[arg(long)]
    list: bool,
    /// Measure a broker that runs already at HOST:PORT instead of Tally, without processor time and memory
    #[arg(long)]
    against: Option<String>,
    /// Let --against be another machine
    #[arg(long)]
    allow_remote: bool,
    /// Write table and picture into this file of documentation and its folder
    #[arg(long)]
    record: Option<PathBuf>,
    /// How this was called, for the record
    #[arg(long, default_value = "tally-bench")]
    called: String,
    /// What was built, for the record
    #[arg(long, default_value = "unknown")]
    commit: String,
}

fn main() -> Result<()> {
    match Command::parse().subcommand {
        Subcommands::Floor { data, port_file } => floor::serve(&data, &port_file),
        Subcommands::Run(run) => run.run(),
    }
}

impl Run {
    fn chosen(&self) -> Vec<Cell> {
        let all = cells::all();
        let is_name = |pattern: &String| all.iter().any(|cell| cell.name == *pattern);
        let is_chosen = |cell: &&Cell| {
            let fits = |pattern: &String| {
                cell.name == *pattern || !is_name(pattern) && cell.name.contains(pattern)
            };
            match self.cells.as_slice() {
                [] => self.full || cell.has_budget,
                patterns => patterns.iter().any(fits),
            }
        };
        all.iter().filter(is_chosen).cloned().collect()
    }

    /// Refuses what cannot be measured before anything is started.
    fn check(&self, cells: &[Cell]) -> Result<()> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        let is_time = |seconds: f64| seconds.is_finite() && (0.01..=3600.0).contains(&seconds);
        ensure!(is_time(self.seconds), "--seconds must be from 0.01 to 3600");
        ensure!(
            self.warm_gb.is_finite() && (0.0..=1000.0).contains(&self.warm_gb),
            "--warm-gb must be from 0 to 1000"
        );
        if let Some(address) = &self.against {
            self.allowed(address)?;
        }
        if cells.iter().any(|cell| cell.processors.is_some()) {
            let taskset = Process::new("taskset").arg("--version").output();
            ensure!(
                taskset.is_ok(),
                "taskset is not installed (util-linux): the cells with 1core and 2cores need it"
            );
        }
        Ok(())
    }

    /// The address of another's broker, if the load may go there.
    fn allowed(&self, address: &str) -> Result<SocketAddr> {
        let address = resolve(address)?;
        ensure!(
            self.allow_remote || address.ip().is_loopback(),
            "{address} is another machine: the load would stop it from doing its work (--allow-remote)"
        );
        Ok(address)
    }

    fn run(&self) -> Result<()> {
        let mut cells = self.chosen();
        ensure!(
            !cells.is_empty(),
            "no cell has such a name; --list shows them"
        );
        if self.list {
            cells.iter().for_each(|cell| println!("{}", cell.name));
            return Ok(());
        }
        self.check(&cells)?;
        let began = Instant::now();
        raise_open_files()?;
        fs::create_dir_all(&self.directory)?;
        let sync_ms = still::sync_ms(&self.directory)?;
        if sync_ms > QUICK_SYNC_MS {
            cells.iter_mut().for_each(without_budgets_of_quick_disks);
        }
        let rounds = Rounds {
            programs: self.programs(),
            rounds: self.rounds,
            seconds: self.seconds,
            targets: self.targets()?,
        };
        rounds.warm(
            (self.warm_gb * 1e9) as u64,
            Duration::from_secs(self.warm_seconds),
        )?;
        let mut results = Results::new();
        for (nth, cell) in cells.iter().enumerate() {
            eprintln!(
                "{:>4.0} s  {}/{} {}",
                began.elapsed().as_secs_f64(),
                nth + 1,
                cells.len(),
                cell.name
            );
            let measured = rounds.measure(cell)?;
            results.push((cell.clone(), measured));
        }
        drop(rounds);
        let (table, missed) = report::table(results.iter());
        let head = self.head(began.elapsed(), sync_ms)?;
        println!("{head}\n{table}\n{missed} budgets missed");
        match &self.record {
            Some(file) => record(file, &head, &results, &self.commit),
            None => Ok(()),
        }
    }

    fn programs(&self) -> Programs {
        Programs {
            tally: self.tally.clone(),
            kafka: self.kafka.clone(),
            directory: self.directory.clone(),
            processors: None,
        }
    }

    fn targets(&self) -> Result<Vec<Target>> {
        let programs = self.programs();
        let mut targets = vec![Target::start(&programs, Kind::Floor, &[])?];
        targets.push(match &self.against {
            Some(address) => Target::other(&programs, self.allowed(address)?),
            None => Target::start(&programs, Kind::Tally, &[])?,
        });
        if !self.no_kafka {
            // Deleted topics leave the disk at once instead of after a minute.
            let settings = ["log.segment.delete.delay.ms=1000"];
            targets.push(Target::start(&programs, Kind::Kafka, &settings)?);
        }
        Ok(targets)
    }

    /// What the figures depend on.
    fn head(&self, took: Duration, sync_ms: f64) -> Result<String> {
        let cpu = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let model = model.map_or("unknown processor", |(_, model)| model);
        let memory = fs::read_to_string("/proc/meminfo")?;
        let kib = memory
            .split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse::<u64>().ok());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cores = std::thread::available_parallelism()?;
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split_whitespace().next().unwrap_or("?");
        let kafka = if self.no_kafka {
            "Kafka not measured".to_owned()
        } else {
            let Run {
                warm_gb,
                warm_seconds,
                ..
            } = self;
            format!(
                "Kafka warmed with {warm_gb} GB of batches and {warm_seconds} s of transactions"
            )
        };
        Ok(format!(
            "`{}`, commit {}; {cores} x {model}, {} GiB, Linux {}; {} rounds of {} s (at most {ROUNDS_MAX_WITHOUT_BUDGET} where there is \
             no budget), medians; {kafka}; compressed batches \
             are decompressed and counted (the default); fdatasync of 4 KiB written over takes {sync_ms:.2} ms; load average at the end {load}; {:.0} minutes.\n",
            self.called,
            self.commit,
            kib.unwrap_or(0) >> 20,
            kernel.trim(),
            self.rounds,
            self.seconds,
            took.as_secs_f64() / 60.0
        ))
    }
}

/// Takes those budgets away that are meant for a disk which syncs quickly.
fn without_budgets_of_quick_disks(cell: &mut Cell) {
    let is_kept = |budget: &Budget| {
        !matches!(
            budget,
            Budget::AtLeastWithQuickSync(_) | Budget::AtMostWithQuickSync(_)
        )
    };
    for (_, budgets) in &mut cell.rows {
        budgets.retain(is_kept);
    }
}

/// Ten thousand connections need as many open files, here and in the brokers, which inherit it.
fn raise_open_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("the limit of open files")
}

/// What stands before and behind the table of the cells with a budget, and that of the others.
const BUDGETS: &str = "written by scripts/bench --record";
const OTHERS: &str = "written by scripts/bench --full --record";

/// Puts the tables between their marks in the document, and the picture of what has a budget beside it. A table of which no
/// cell was measured stays as it is: the default run has none of the others.
fn record(file: &Path, head: &str, results: &Results, commit: &str) -> Result<()> {
    let mut document = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    for (name, has_budget) in [(BUDGETS, true), (OTHERS, false)] {
        let some = || results.iter().filter(|it| it.0.has_budget == has_budget);
        if some().next().is_some() {
            let (table, _) = report::table(some());
            document = replaced(&document, name, &format!("{head}\n{table}"))?;
        }
    }
    fs::write(file, document)?;
    let folder = file.with_extension("");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("cost.svg"), report::picture(results, commit))?;
    Ok(())
}

/// The document with another text between two marks.
fn replaced(document: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (
        format!("<!-- {name}: begin -->"),
        format!("<!-- {name}: end -->"),
    );
    let (before, rest) = document
        .split_once(&begin)
        .with_context(|| format!("the document has no {begin}"))?;
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("the document has no {end}"))?;
    Ok(format!("{before}{begin}\n{text}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cells::Metric;
    use rounds::{Figures, Measured};

    /// Figures of the cell with this name.
    fn result(name: &str) -> (Cell, Measured) {
        let cell = cells::all().into_iter().find(|cell| cell.name == name);
        let figures = vec![Figures::from([(Metric::CpuMicros, 7.0)])];
        let kinds = [Kind::Floor, Kind::Tally, Kind::Kafka];
        let measured = kinds.map(|kind| (kind, figures.clone()));
        (cell.expect("a cell"), Measured::from(measured))
    }

    #[test]
    fn a_record_has_the_cells_without_a_budget_apart_and_keeps_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("performance.md");
        let marks = |name: &str| format!("<!-- {name}: begin -->\nold\n<!-- {name}: end -->\n");
        fs::write(
            &file,
            format!("# P\n{}x\n{}", marks(BUDGETS), marks(OTHERS)),
        )
        .expect("written");
        let (with, without) = (result("produce-170B"), result("produce-170B-plain"));
        let results = vec![with.clone(), without];
        record(&file, "first", &results, "c").expect("recorded");
        record(&file, "second", &vec![with], "c").expect("recorded");
        let text = fs::read_to_string(&file).expect("a document");
        let parts: Vec<&str> = text.split("\nx\n").collect();
        assert!(!text.contains("old") && text.starts_with("# P\n"), "{text}");
        assert!(
            parts[0].contains("second") && parts[0].contains("| produce-170B |"),
            "{text}"
        );
        assert!(!parts[0].contains("plain"), "{text}");
        assert!(
            parts[1].contains("first") && parts[1].contains("| produce-170B-plain |"),
            "{text}"
        );
        let picture = fs::read_to_string(directory.path().join("performance/cost.svg"));
        let picture = picture.expect("a picture");
        assert!(
            picture.contains("produce-170B<") && !picture.contains("plain"),
            "{picture}"
        );
    }

    #[test]
    fn a_document_without_a_place_for_the_table_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("performance.md");
        fs::write(&file, "nothing").expect("written");
        let error = record(&file, "head", &vec![result("produce-170B")], "c");
        assert!(error.expect_err("no place").to_string().contains("begin"));
        assert_eq!(fs::read_to_string(&file).expect("there"), "nothing");
    }

    #[test]
    fn every_cell_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            cells::all().into_iter().map(|it| it.name).collect();
        assert_eq!(names.len(), cells::all().len());
    }
}
