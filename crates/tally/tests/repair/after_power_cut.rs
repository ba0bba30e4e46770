//! `tally verify log --repair` on what power cuts and kills leave (the operator's first reaction, and the wrong one if it cost anything).
//!
//! The simulated broker lives its stories on a disk that loses its power; each time that it has died, the real binary repairs
//! the directory before the next start. The judge of the story then says whether anything that was promised is lost, doubled or
//! torn. And what a start serves after a repair is all that a start without one would serve.

use crate::reading::{copy, served};
use crate::{seeds, tally};
use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;
use std::rc::Rc;
use tally_simulation::{Mode, run_with_cuts};
use tally_testkit::offline::{Quiet, files, path, quiet, rows, text};

/// Stories in each mode, from seed 0 on.
const SEEDS: u64 = 4;
/// One in so many images is also started, repaired and not.
const COMPARED: u64 = 4;

/// What is said of a marker that was not synced, whose coordinator's record the power cut took.
const DECIDED_OTHERWISE: &str = "its coordinator decided otherwise";

/// Repairs a directory; the files that say how the run before ended stay as they are.
fn repair(data: &Path, durability: &str) -> Result<(), String> {
    let run = |data: &Path| fs::read(data.join("boot-id")).ok();
    let before = run(data);
    let repaired = tally(&["verify", "log", path(data), "--repair", "-o", "jsonl"]);
    let told = text(&repaired);
    let code = repaired.status.code();
    if !matches!(code, Some(0 | 1)) {
        let errors = String::from_utf8_lossy(&repaired.stderr);
        return Err(format!("the repair ended with {code:?}: {errors}{told}"));
    }
    if run(data) != before {
        return Err("the next start would not know that the power was cut".to_owned());
    }
    // What was never synced is whole and nobody's, until the start cuts it. And what a power cut has taken of a coordinator's
    // log in `os` no file knows.
    let is_excused = |row: &str| row.contains("hanging") || row.contains(DECIDED_OTHERWISE);
    let again = problems(data);
    if let Some(row) = again.iter().find(|row| !is_excused(row)) {
        return Err(format!("left by the repair: {row}\n{told}"));
    }
    if durability != "os" && again.iter().any(|row| row.contains(DECIDED_OTHERWISE)) {
        let started = copy(data);
        served(&started, durability);
        let left = problems(&started.path().join("data"));
        if let Some(row) = left.iter().find(|row| row.contains(DECIDED_OTHERWISE)) {
            return Err(format!("left by the start: {row}\n{told}"));
        }
    }
    Ok(())
}

fn problems(data: &Path) -> Vec<String> {
    let told = text(&tally(&["verify", "log", path(data), "-o", "jsonl"]));
    let found = rows(&told, "problem");
    found.into_iter().map(str::to_owned).collect()
}

/// What the interventions into the stories of a test have met.
#[derive(Default)]
struct Met {
    images: Cell<u64>,
    mended: Cell<u64>,
    /// No program begins while the story goes on: it would have a copy of the lock of the story's directory for a moment.
    quiet: RefCell<Option<Quiet>>,
}

impl Met {
    /// An operator repairs what a death of the broker has left.
    fn intervene(&self, data: &Path, durability: &str) -> Result<(), String> {
        drop(self.quiet.take());
        self.images.set(self.images.get() + 1);
        let is_compared = self.images.get().is_multiple_of(COMPARED);
        let plain = is_compared.then(|| copy(data));
        let before = files(data);
        repair(data, durability)?;
        self.mended
            .set(self.mended.get() + u64::from(files(data) != before));
        if let Some(plain) = plain {
            let without = served(&plain, durability);
            let with = served(&copy(data), durability);
            if let Some((topic, index, base, _)) = without.difference(&with).next() {
                return Err(format!("the repair has lost {topic}:{index} at {base}"));
            }
        }
        self.quiet.replace(Some(quiet()));
        Ok(())
    }
}

/// Tells stories: some, and those that have shown something once.
fn check(mode: Mode, durability: &'static str, told_more: &[u64]) {
    let met = Rc::new(Met::default());
    let (mut told, mut stories) = (String::new(), 0);
    for seed in seeds(SEEDS, told_more) {
        stories += 1;
        let intervening = Rc::clone(&met);
        let intervention = Rc::new(move |data: &Path| intervening.intervene(data, durability));
        met.quiet.replace(Some(quiet()));
        let ended = run_with_cuts(seed, mode, intervention);
        drop(met.quiet.take());
        if let Err(failure) = ended {
            told += &format!("{durability}, {}\n", failure.describe(seed));
        }
    }
    assert_eq!(told, "");
    let (images, mended) = (met.images.get(), met.mended.get());
    assert!(images >= stories, "{images} images");
    assert!(mended > 0, "something was torn");
}

#[test]
fn a_repair_after_a_power_cut_in_os_loses_nothing_that_a_start_would_find() {
    // 33: leader epochs that are made again of a compacted log.
    check(Mode::Os, "os", &[33]);
}

#[test]
fn a_repair_after_a_power_cut_in_commit_loses_nothing_that_was_promised() {
    // 21 and 35: a segment that begins behind the end of the one before.
    check(Mode::Commit, "commit", &[21, 35]);
}

#[test]
fn a_repair_after_a_power_cut_in_always_loses_nothing_that_was_promised() {
    check(Mode::Always, "always", &[]);
}
