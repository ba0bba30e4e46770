//! Real-time scheduling for the load and the programs that it measures, for a while.
//!
//! Who else uses the machine then takes no processor from them, and a thread that something comes for does not wait for the
//! end of another's slice: what is left of a latency is the program's own. For all programs alike, so they can be compared.
//! `chrt` (util-linux) does it, all threads of a process at a time; it takes root, or CAP_SYS_NICE.

use crate::target::Target;
use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Processes that are scheduled so until this goes.
pub(crate) struct RealTime {
    pids: Vec<u32>,
}

impl RealTime {
    /// For this process and those of all programs.
    pub(crate) fn begin(targets: &[&Target]) -> Result<RealTime> {
        let mut begun = RealTime { pids: Vec::new() };
        let programs = targets.iter().filter_map(|target| target.pid());
        for pid in programs.chain([std::process::id()]) {
            // The least of the priorities: in turn with each other, before everybody else.
            schedule(pid, ["--rr", "1"])?;
            begun.pids.push(pid);
        }
        Ok(begun)
    }
}

impl Drop for RealTime {
    fn drop(&mut self) {
        for pid in &self.pids {
            // One that has ended needs nothing.
            let _ended = schedule(*pid, ["--other", "0"]).is_err();
        }
    }
}

fn schedule(pid: u32, [policy, priority]: [&str; 2]) -> Result<()> {
    let mut command = Command::new("chrt");
    command.args(["--all-tasks", policy, "--pid", priority]);
    let done = command.arg(pid.to_string()).output();
    let done = done.context("chrt can't be run (util-linux)")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "real-time scheduling is not to be had: {}",
        said.trim()
    );
    Ok(())
}
