//! The real binary on a directory that lies there: its offline commands, and a broker that is started on it.
//!
//! A program that begins has a copy of all open files of this process until it is really that program, and so of the lock of a
//! directory that a broker within this process has. Where there are such brokers in a test program, they live while they hold
//! [`Quiet`]: no program begins then.

use crate::waiting::wait_for;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Read by those who want no program to begin, written by those who begin one.
static BEGINNINGS: RwLock<()> = RwLock::new(());

/// While it lives [`begin`] waits, in every thread but where it is given back first.
#[derive(Debug)]
pub struct Quiet {
    _guard: RwLockReadGuard<'static, ()>,
}

/// Waits until no program is about to begin, and lets none.
#[must_use]
pub fn quiet() -> Quiet {
    let guard = BEGINNINGS.read().unwrap_or_else(PoisonError::into_inner);
    Quiet { _guard: guard }
}

/// Begins a program; when this returns, it is that program.
pub fn begin(command: &mut Command) -> io::Result<Child> {
    let _alone = BEGINNINGS.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Runs `program` to its end. It must not panic.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = begin(&mut command).and_then(Child::wait_with_output);
    let output = output.expect("it can be run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("panicked"), "{arguments:?}: {errors}");
    output
}

/// What a program has printed.
pub fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The lines of `-o jsonl` of one kind.
pub fn rows<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let start = format!("{{\"kind\":\"{kind}\",");
    text.lines()
        .filter(|line| line.starts_with(&start))
        .collect()
}

/// A path as an argument.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Every file below `root`, by its path from there.
pub fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below").to_owned();
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// A copy of a directory, below one that goes with the last use.
pub fn copy(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        let to = to.join(name);
        fs::create_dir_all(to.parent().expect("below")).expect("made");
        fs::write(to, bytes).expect("written");
    }
}

/// A broker on such a directory, killed at the end at the latest.
#[derive(Debug)]
pub struct Served {
    child: Child,
    /// Where it listens.
    pub address: String,
    log: PathBuf,
}

impl Served {
    /// Starts a broker with settings (`KEY=VALUE`) beside its durability; what it has logged if it ends instead.
    pub fn start(
        program: &str,
        data: &Path,
        durability: &str,
        settings: &[&str],
    ) -> Result<Served, String> {
        let beside = data.parent().expect("above");
        let (port, log) = (beside.join("port"), beside.join("log"));
        let _none = fs::remove_file(&port).is_err();
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "off"])
            .args(["--exit-with-parent", "--data", path(data)])
            .args(["--port-file", path(&port)])
            .args(["--set", "tally.journal.bytes=4194304"])
            .args(["--set", &format!("tally.durability={durability}")])
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a file"));
        let mut child = begin(&mut command).expect("the broker can be run");
        let started = wait_for("the port file, or the end", || {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                assert!(!status.success());
                return Some(None);
            }
            fs::read_to_string(&port).ok().map(Some)
        });
        let read = || fs::read_to_string(&log).expect("its log");
        match started {
            None => Err(read()),
            Some(address) => Ok(Served {
                child,
                address: address.trim().to_owned(),
                log,
            }),
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("its log")
    }

    /// Stops it as an operator does; whether it ended well.
    pub fn stop(mut self) -> bool {
        let asked = run("kill", &[&self.child.id().to_string()]);
        assert!(asked.status.success());
        let status = wait_for("its end", || {
            self.child.try_wait().expect("a child of ours")
        });
        status.success()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _gone = self.child.kill().is_err() || self.child.wait().is_err();
    }
}
