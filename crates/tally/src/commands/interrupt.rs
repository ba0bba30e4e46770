//! Ctrl-C and SIGTERM for commands that go on until they are told to stop: the first lets them end in order, the second ends the
//! process.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::output::remark;

/// What a shell says of a process that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// Becomes true with the first signal.
pub(crate) fn watch() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    thread::spawn(move || {
        if let Err(error) = wait(&raised) {
            remark(1, || format!("Ctrl-C ends this at once: {error}"));
        }
    });
    flag
}

fn wait(raised: &AtomicBool) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if raised.swap(true, Ordering::Relaxed) {
                process::exit(INTERRUPTED);
            }
        }
    })
}
