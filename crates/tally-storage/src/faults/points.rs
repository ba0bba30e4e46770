//! Places with names, and what `TALLY_FAULT` makes of them (exactly-once.md 8.4).
//!
//! `TALLY_FAULT` holds faults, separated by commas: `POINT=ACTION@NTH`, or `POINT=ACTION@NTH:FILE`. With a file the fault is
//! awake only while that file is there: a test puts it there at the moment it means, and takes it away again. Only times at
//! which a fault is awake are counted.
//!
//! | action | where | what happens |
//! |---|---|---|
//! | `kill` | [`point`], [`around`] | the NTH time the process ends, as with `kill -9` |
//! | `fail` | [`fails`] | from the NTH time on the operation fails |
//! | `hold` | [`hold`] | whoever comes the NTH time waits until FILE is gone; `FILE.held` appears when it begins to |

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Fail,
    Hold,
}

/// One fault that was asked for.
#[derive(Debug)]
struct Fault {
    point: String,
    action: Action,
    nth: u64,
    awake_while: Option<PathBuf>,
    reached: AtomicU64,
}

impl Fault {
    fn parse(text: &str) -> Option<Fault> {
        let (point, rest) = text.split_once('=')?;
        let (action, rest) = rest.split_once('@')?;
        let (nth, file) = match rest.split_once(':') {
            Some((nth, file)) => (nth, Some(PathBuf::from(file))),
            None => (rest, None),
        };
        let action = match action {
            "kill" => Action::Kill,
            "fail" => Action::Fail,
            "hold" if file.is_some() => Action::Hold,
            _ => return None,
        };
        Some(Fault {
            point: point.to_owned(),
            action,
            nth: nth.parse().ok().filter(|nth| *nth > 0)?,
            awake_while: file,
            reached: AtomicU64::new(0),
        })
    }

    /// How often the point has been reached, this time included; `None` while the fault sleeps.
    fn count(&self) -> Option<u64> {
        if self.awake_while.as_ref().is_some_and(|file| !file.exists()) {
            return None;
        }
        Some(self.reached.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// The faults of this process. A text that can't be read is a mistake in a test, which must not pass for it.
fn faults() -> &'static [Fault] {
    static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();
    FAULTS.get_or_init(|| {
        let text = std::env::var("TALLY_FAULT").unwrap_or_default();
        let parts = text.split(',').filter(|part| !part.is_empty());
        parts
            .map(|part| {
                Fault::parse(part).unwrap_or_else(|| panic!("TALLY_FAULT: {part} is no fault"))
            })
            .collect()
    })
}

fn wanted(point: &str, action: Action) -> Option<&'static Fault> {
    faults()
        .iter()
        .find(|fault| fault.action == action && fault.point == point)
}

/// A place where the process can be made to die.
pub fn point(name: &str) {
    if is_due(name) {
        die();
    }
}

/// Does `write`, with a place to die before it, `NAME.before`, and one after it, `NAME.after`.
pub fn around<T>(name: &str, write: impl FnOnce() -> T) -> T {
    let sides = !faults().is_empty();
    if sides {
        point(&format!("{name}.before"));
    }
    let done = write();
    if sides {
        point(&format!("{name}.after"));
    }
    done
}

/// Whether what is about to be done has to fail.
#[must_use]
pub fn fails(name: &str) -> bool {
    wanted(name, Action::Fail).is_some_and(|fault| fault.count() >= Some(fault.nth))
}

/// Somebody who is held back at a place.
pub struct Hold(&'static Path);

impl Hold {
    /// Whether it still has to wait.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.0.exists()
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.0).finish()
    }
}

/// Whether whoever is here has to wait.
#[must_use]
pub fn hold(name: &str) -> Option<Hold> {
    let fault = wanted(name, Action::Hold)?;
    let file = fault.awake_while.as_deref()?;
    if fault.count() != Some(fault.nth) {
        return None;
    }
    let mut held = file.as_os_str().to_owned();
    held.push(".held");
    std::fs::write(held, name).expect("the directory of a fault's file can be written to");
    Some(Hold(file))
}

/// A place to die in the life of a file: its name is `WHAT.KIND`, where the kind is the end of the file's name.
pub(crate) fn point_of_file(what: &str, path: &Path) {
    if !faults().is_empty() {
        let kind = path.extension().or_else(|| path.file_name());
        let kind = kind.unwrap_or_default().to_string_lossy();
        point(&format!("{what}.{kind}"));
    }
}

/// How far the wall clock is moved, in milliseconds: `TALLY_FAULT_CLOCK_MS`.
pub fn clock_ms() -> i64 {
    static MOVED: OnceLock<i64> = OnceLock::new();
    *MOVED.get_or_init(|| {
        let moved = std::env::var("TALLY_FAULT_CLOCK_MS").ok();
        moved.and_then(|text| text.parse().ok()).unwrap_or(0)
    })
}

/// Whether this is the time to die here; for a place that leaves something half-done first.
pub(crate) fn is_due(name: &str) -> bool {
    let kills = |fault: &&Fault| fault.action == Action::Kill && fault.point == name;
    // A test may have several of one name, each with a file of its own: all of them count.
    let due = |fault: &&Fault| fault.count() == Some(fault.nth);
    faults().iter().filter(kills).filter(due).count() > 0
}

/// Ends the process as `kill -9` does.
pub(crate) fn die() -> ! {
    let me = rustix::process::getpid();
    while rustix::process::kill_process(me, rustix::process::Signal::KILL).is_ok() {
        std::thread::park();
    }
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_from_its_text() {
        let fault = Fault::parse("marker=fail@2:/a/b").unwrap();
        assert_eq!((fault.point.as_str(), fault.nth), ("marker", 2));
        assert_eq!(fault.action, Action::Fail);
        assert_eq!(fault.awake_while, Some(PathBuf::from("/a/b")));
        assert_eq!(fault.count(), None, "it sleeps");
        assert_eq!(Fault::parse("data.after=kill@1").unwrap().count(), Some(1));
        for wrong in [
            "", "x", "x=kill", "x=kill@0", "x=kill@a", "x=stop@1", "x=hold@1",
        ] {
            assert!(Fault::parse(wrong).is_none(), "{wrong}");
        }
    }
}
