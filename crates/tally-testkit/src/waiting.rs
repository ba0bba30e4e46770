//! Waiting for a condition. The deadline is only ever reached by a test that fails.

use std::time::{Duration, Instant};

/// How long a test waits before it fails.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at a condition that can't call back.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// Asks until there is an answer; panics with `what` after [`DEADLINE`].
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// Waits until `holds` says yes; panics with `what` after [`DEADLINE`].
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}
