//! The broker under test, as a process.
//!
//! [`Broker::shared`] is one process for all tests of a program; [`Broker::start`] is one for a single test, which may
//! kill it and start it again on its data. What runs is the `tally` binary that the caller names, unless:
//! - `TALLY_TEST_BROKER=HOST:PORT` points the shared tests at a broker that runs already;
//! - `TALLY_TEST_SET=KEY=VALUE` gives a property to every broker that does not have it from its test, to run tests with
//!   another durability;
//! - `TALLY_TEST_REFERENCE=1` runs `scripts/reference-kafka` instead, to see whether a test asks for what Apache Kafka does.

use crate::client::Client;
use crate::offline::begin;
use crate::waiting::wait_for;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Properties that every broker of the tests gets: nothing waits longer than it has to.
const SETTINGS: [&str; 2] = [
    "group.initial.rebalance.delay.ms=0",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=200",
];

fn owned(settings: &[&str]) -> impl Iterator<Item = String> {
    settings.iter().map(|&setting| setting.to_owned())
}

/// What Apache Kafka gets where it is never started again: its controller takes a broker that is silent for four seconds, as on a
/// busy machine, for dead otherwise (scripts/reference-kafka), and its partitions have no leader for a while.
const PATIENT: &str = "broker.session.timeout.ms=60000";

/// What every broker gets; what comes later wins.
fn everywhere() -> impl Iterator<Item = String> {
    owned(&SETTINGS).chain(std::env::var("TALLY_TEST_SET"))
}

/// Says that this test has no question for Apache Kafka, and why: `scripts/differential` does not count it as answered.
///
/// # Panics
/// If standard error can't be written to.
pub fn left_out(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    // Not by `eprintln!`, which a test that passes keeps to itself.
    writeln!(std::io::stderr(), "left out: {name}: {reason}").expect("standard error");
}

/// A broker process of one test.
#[derive(Debug)]
pub struct Broker {
    program: PathBuf,
    directory: PathBuf,
    settings: Vec<String>,
    faults: Vec<String>,
    clock_ms: i64,
    child: Option<Child>,
    address: String,
}

impl Broker {
    /// The address of the broker that all tests of this program share. `program` is the `tally` binary.
    pub fn shared(program: &str) -> &'static str {
        static ADDRESS: OnceLock<String> = OnceLock::new();
        ADDRESS.get_or_init(|| {
            if let Ok(address) = std::env::var("TALLY_TEST_BROKER") {
                return address;
            }
            let program = program.to_owned();
            let (tell, told) = mpsc::channel();
            // The broker ends with the thread that started it, and a test's thread ends with the test.
            std::thread::spawn(move || {
                let broker = if is_reference() {
                    let broker = Broker::start(&program, &[PATIENT]);
                    broker.client().wait_for_coordinators();
                    broker
                } else {
                    Broker::start(&program, &[])
                };
                tell.send(broker.address.clone()).expect("somebody waits");
                loop {
                    std::thread::park();
                }
            });
            told.recv().expect("the broker starts")
        })
    }

    /// Starts a broker on a new directory, with further settings (`KEY=VALUE`).
    #[track_caller]
    pub fn start(program: &str, settings: &[&str]) -> Broker {
        let mut broker = Broker {
            program: PathBuf::from(program),
            directory: new_directory(),
            settings: everywhere().chain(owned(settings)).collect(),
            faults: Vec::new(),
            clock_ms: 0,
            child: None,
            address: String::new(),
        };
        broker.start_again();
        broker
    }

    /// What the next start is to have of faults, `POINT=ACTION@NTH` each (`tally_storage::faults`). Each sleeps until
    /// [`Broker::wake`] is called with its index.
    pub fn set_faults(&mut self, faults: &[&str]) {
        self.calm_all();
        self.faults = faults.iter().map(|&fault| fault.to_owned()).collect();
    }

    /// Moves the wall clock that the broker sees from its next start on.
    pub fn set_clock(&mut self, by_ms: i64) {
        self.clock_ms = by_ms;
    }

    /// The file that a fault is awake with.
    fn fault_file(&self, index: usize) -> PathBuf {
        self.directory.join(format!("fault-{index}"))
    }

    /// Wakes a fault.
    #[track_caller]
    pub fn wake(&self, index: usize) {
        fs::write(self.fault_file(index), "").expect("a directory of ours");
    }

    /// Puts a fault to sleep: who was held goes on.
    pub fn calm(&self, index: usize) {
        let _absent = fs::remove_file(self.fault_file(index)).is_err();
    }

    /// Puts all faults to sleep.
    pub fn calm_all(&self) {
        (0..self.faults.len()).for_each(|index| self.calm(index));
    }

    /// Waits until somebody is held by a fault.
    #[track_caller]
    pub fn wait_until_held(&self, index: usize) {
        let held = self.fault_file(index).with_extension("held");
        wait_for("somebody is held", || held.exists().then_some(()));
    }

    /// Waits until a fault has killed the broker.
    #[track_caller]
    pub fn wait_for_death(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let status = wait_for("the broker's death", || {
            child.try_wait().expect("a child of ours")
        });
        assert_eq!(status.signal(), Some(9), "killed by its fault: {status}");
    }

    /// Starts the broker on its data and waits until a fault has killed it.
    #[track_caller]
    pub fn start_and_die(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let child = self.command(&self.directory.join("port")).spawn();
        self.child = Some(child.expect("the broker's program can be run"));
        self.wait_for_death();
    }

    /// Starts the broker again on the data it left.
    #[track_caller]
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let port_file = self.directory.join("port");
        let _absent = fs::remove_file(&port_file).is_err();
        let begun = begin(&mut self.command(&port_file));
        let mut child = begun.expect("the broker's program can be run");
        self.address = wait_for("the broker's port file", || {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                panic!("the broker ended: {status}");
            }
            fs::read_to_string(&port_file).ok()
        });
        self.address.truncate(self.address.trim_end().len());
        self.child = Some(child);
    }

    fn command(&self, port_file: &Path) -> Command {
        let data = self.directory.join("data");
        if is_reference() {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/reference-kafka");
            let mut command = Command::new(script);
            command.stderr(Stdio::null());
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            command.arg("--data").arg(data);
            command.arg("--port-file").arg(port_file);
            command.arg("--exit-with-parent");
            // Its retention looks for the first time after half a minute, whatever the interval is.
            command.args(["--property", "log.initial.task.delay.ms=50"]);
            for setting in &self.settings {
                command.args(["--property", setting]);
            }
            return command;
        }
        let mut command = Command::new(&self.program);
        let faults = self.faults.iter().enumerate();
        let faults = faults.map(|(index, f)| format!("{f}:{}", self.fault_file(index).display()));
        command.env("TALLY_FAULT", faults.collect::<Vec<_>>().join(","));
        command.env("TALLY_FAULT_CLOCK_MS", self.clock_ms.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command.args(["serve", "--listen", "127.0.0.1:0", "--http", "off"]);
        command.arg("--exit-with-parent");
        // A new broker writes all of it, in the modes that have it.
        command.args(["--set", "tally.journal.bytes=4194304"]);
        command.arg("--data").arg(data);
        command.arg("--port-file").arg(port_file);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command
    }

    /// Gives the broker another setting (`KEY=VALUE`), from its next start on.
    pub fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Kills the broker at once, as kill -9 does, and waits until it is gone.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
    }

    /// Kills the broker and starts it again on its data.
    #[track_caller]
    pub fn kill_and_start(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Asks the broker to stop, waits until it has, and says whether it ended well.
    #[track_caller]
    pub fn stop(&mut self) -> bool {
        let mut child = self.child.take().expect("it runs");
        let asked = begin(Command::new("kill").arg(child.id().to_string()))
            .and_then(|mut asking| asking.wait());
        assert!(asked.expect("kill can be run").success());
        let status = wait_for("the broker's end", || {
            child.try_wait().expect("a child of ours")
        });
        status.success()
    }

    /// A client of this broker.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The id of the running process.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where the files of a partition are, in the layout of whoever runs.
    #[track_caller]
    pub fn partition(&self, client: &mut Client, topic: &str, index: i32) -> PathBuf {
        if is_reference() {
            return self.data().join("logs").join(format!("{topic}-{index}"));
        }
        let id = client.topic_id(topic).hyphenated().to_string();
        let topics = self.data().join("topics");
        topics.join(id).join(index.to_string())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill().is_err() || child.wait().is_err();
        }
        let _kept = fs::remove_dir_all(&self.directory).is_err();
    }
}

/// The offsets that the files of a partition with this ending (`log`, `snapshot`) are named after, in order.
#[track_caller]
pub fn offsets_of_files(partition: &Path, ending: &str) -> Vec<i64> {
    let names = fs::read_dir(partition).expect("the partition is on the disk");
    let mut offsets: Vec<i64> = names
        .filter_map(|entry| {
            let path = entry.expect("readable").path();
            let stem = path.file_stem()?.to_str()?.parse().ok()?;
            path.extension()
                .is_some_and(|found| found == ending)
                .then_some(stem)
        })
        .collect();
    offsets.sort_unstable();
    offsets
}

/// A file of a partition that is named after an offset.
pub fn offset_file(partition: &Path, offset: i64, ending: &str) -> PathBuf {
    partition.join(format!("{offset:020}.{ending}"))
}

/// Whether Apache Kafka is asked instead of Tally.
pub fn is_reference() -> bool {
    std::env::var_os("TALLY_TEST_REFERENCE").is_some()
}

/// How long a directory is left alone: the broker of a process that has gone is still writing its last bytes.
const SWEPT_AFTER: Duration = Duration::from_secs(300);

/// A directory of this process. Those of processes that are gone are removed: a shared broker outlives every `Drop`.
fn new_directory() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    static SWEPT: OnceLock<()> = OnceLock::new();
    let parent = std::env::temp_dir().join("tally-testkit");
    SWEPT.get_or_init(|| sweep(&parent));
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let directory = parent.join(format!("{}-{number}", std::process::id()));
    fs::create_dir_all(&directory).expect("a temporary directory");
    directory
}

fn sweep(parent: &Path) {
    let Ok(directories) = fs::read_dir(parent) else {
        return;
    };
    for directory in directories.flatten() {
        let name = directory.file_name();
        let owner = name.to_str().and_then(|name| name.split_once('-'));
        let is_left = owner.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists());
        let age = directory
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| modified.elapsed().ok());
        if is_left && age.is_some_and(|age| age > SWEPT_AFTER) {
            let _kept = fs::remove_dir_all(directory.path()).is_err();
        }
    }
}
