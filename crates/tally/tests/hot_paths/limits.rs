//! A gate's file of limits: a line for each step of a hot path, `PATH STEP NUMBER...`, and notes on lines with `#`.
//!
//! `TALLY_GATES_RECORD=1` writes the numbers anew: who makes a path dearer says so in a change that others read.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// Path and step.
pub(crate) type Row = (&'static str, &'static str);

/// What was measured, or may be: `N` numbers for each step.
pub(crate) type Rows<const N: usize> = Vec<(Row, [u64; N])>;

/// A file of limits beside the tests.
pub(crate) struct Limits {
    file: PathBuf,
    text: String,
}

impl Limits {
    /// Reads a file of the folder `hot_paths`.
    pub(crate) fn read(name: &str) -> Limits {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hot_paths");
        let file = PathBuf::from(folder).join(name);
        let text = fs::read_to_string(&file).unwrap_or_default();
        Limits { file, text }
    }

    /// What stands behind a note.
    #[allow(dead_code, reason = "one of the two gates has notes that it reads")]
    pub(crate) fn note(&self, name: &str) -> Option<&str> {
        let mut lines = self.text.lines();
        lines.find_map(|line| {
            line.strip_prefix("# ")?
                .strip_prefix(name)?
                .strip_prefix(": ")
        })
    }

    /// Compares: `judge` is given what was measured and what is written, and says what is wrong. With
    /// `TALLY_GATES_RECORD` writes what was measured, below the notes, instead.
    pub(crate) fn check<const N: usize>(
        &self,
        measured: &Rows<N>,
        notes: &[&str],
        judge: impl Fn([u64; N], [u64; N]) -> Option<String>,
    ) {
        if std::env::var_os("TALLY_GATES_RECORD").is_some() {
            fs::write(&self.file, written(measured, notes)).expect("the file can be written");
            return;
        }
        let mut known = self.rows::<N>();
        let mut wrong = Vec::new();
        for ((path, step), found) in measured {
            let verdict = match known.remove(&format!("{path} {step}")) {
                Some(limits) => judge(*found, limits),
                None => Some(format!("{found:?}, without a limit")),
            };
            wrong.extend(verdict.map(|why| format!("{path} {step}: {why}")));
        }
        wrong.extend(
            known
                .keys()
                .map(|row| format!("{row}: not measured any more")),
        );
        assert!(
            wrong.is_empty(),
            "{}\n(TALLY_GATES_RECORD=1 writes {} anew, if that is meant)",
            wrong.join("\n"),
            self.file.display()
        );
    }

    fn rows<const N: usize>(&self) -> BTreeMap<String, [u64; N]> {
        let lines = self.text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let numbers: Option<Vec<u64>> =
                    words.iter().skip(2).map(|word| word.parse().ok()).collect();
                let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
                let numbers = numbers.unwrap_or_else(|| panic!("{}: {line}", self.file.display()));
                (words[..2].join(" "), numbers)
            })
            .collect()
    }
}

fn written<const N: usize>(measured: &Rows<N>, notes: &[&str]) -> String {
    let mut text = String::new();
    for note in notes {
        writeln!(text, "# {note}").expect("a string takes everything");
    }
    for ((path, step), numbers) in measured {
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        writeln!(text, "{path} {step} {}", numbers.join(" ")).expect("a string takes everything");
    }
    text
}
