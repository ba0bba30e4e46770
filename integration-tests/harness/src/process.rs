//! Child processes: each in a process group of its own, so that a client behind a wrapper script is killed with it, and none
//! outlives the harness.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// The groups that are alive. Dropping it kills them all.
#[derive(Default, Clone)]
pub(crate) struct Groups(Arc<GroupsInner>);

#[derive(Default)]
struct GroupsInner(Mutex<BTreeSet<i32>>);

impl Drop for GroupsInner {
    fn drop(&mut self) {
        for &group in self
            .0
            .lock()
            .expect("nobody panics while holding this lock")
            .iter()
        {
            signal_group(group, Signal::KILL);
        }
    }
}

/// How to start a program: a command line for the shell, so that paths can be quoted, and further arguments as they are.
pub(crate) struct Program<'a> {
    pub(crate) command: &'a str,
    pub(crate) arguments: Vec<String>,
    /// Made when it is not there.
    pub(crate) directory: PathBuf,
    /// Standard error is appended to it; and standard output, unless that is piped.
    pub(crate) log: PathBuf,
    pub(crate) pipe_output: bool,
}

/// A running process. Its standard input is a pipe that stays open as long as it is waited for.
pub(crate) struct Process {
    pub(crate) child: Child,
    group: i32,
    groups: Groups,
}

impl Process {
    pub(crate) fn start(groups: &Groups, program: &Program<'_>) -> Result<Self> {
        std::fs::create_dir_all(&program.directory)?;
        let log = append_to(&program.log)?;
        let output = if program.pipe_output {
            Stdio::piped()
        } else {
            log.try_clone()?.into()
        };
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("exec {} \"$@\"", program.command))
            .arg("sh")
            .args(&program.arguments)
            .current_dir(&program.directory)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.command))?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .ok_or_else(|| anyhow!("no process id"))?;
        groups
            .0
            .0
            .lock()
            .expect("nobody panics while holding this lock")
            .insert(group);
        Ok(Self {
            child,
            group,
            groups: groups.clone(),
        })
    }

    /// kill -9 for the process and what it started.
    pub(crate) async fn kill(mut self) -> Result<()> {
        signal_group(self.group, Signal::KILL);
        self.wait().await?;
        Ok(())
    }

    pub(crate) fn terminate(&self) {
        signal_group(self.group, Signal::TERM);
    }

    /// Waits for the end; what the process has left behind in its group is killed.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        let status = wait_open(&mut self.child).await?;
        signal_group(self.group, Signal::KILL);
        self.groups
            .0
            .0
            .lock()
            .expect("nobody panics while holding this lock")
            .remove(&self.group);
        Ok(status)
    }
}

/// `Child::wait` closes standard input first, which ends a broker that was told to end with its parent: hold on to it.
async fn wait_open(child: &mut Child) -> Result<ExitStatus> {
    let _stdin = child.stdin.take();
    Ok(child.wait().await?)
}

fn signal_group(group: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(group) {
        // Gone already is as good.
        kill_process_group(pid, signal).ok();
    }
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}
