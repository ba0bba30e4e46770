//! What a check found, written as it is found, and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tally_protocol::Offset;

use crate::offline::Directory;
use crate::output::{Format, Rows, Value};

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    /// The log, or what it depends on, does not hold what was written, or contradicts itself.
    Damage,
    /// Something that is made anew from the log is wrong: the next start or the first use repairs it.
    Cache,
}

/// What of `--repair` mends a problem.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Mend {
    /// What mends its file, whatever is wrong with it.
    ByFile,
    /// The segment of this name in the directory of its file is written anew.
    Segment(Offset),
    /// The leader epochs are taken from the batches.
    Epochs,
    /// The log starts there, and not where its file says.
    Start(Offset),
    /// The recovery point is taken back.
    Point,
    /// Nothing: it is not for the files alone to say what is right.
    Nothing,
}

/// One problem.
pub(super) struct Problem<'a> {
    class: Class,
    mend: Mend,
    file: &'a Path,
    position: Option<u64>,
    offset: Option<Offset>,
    what: &'a str,
}

impl<'a> Problem<'a> {
    pub(super) fn new(class: Class, file: &'a Path, what: &'a str) -> Problem<'a> {
        Problem {
            class,
            mend: Mend::ByFile,
            file,
            position: None,
            offset: None,
            what,
        }
    }

    /// With what mends it.
    pub(super) fn mend(mut self, mend: Mend) -> Problem<'a> {
        self.mend = mend;
        self
    }

    /// With the byte of the file.
    pub(super) fn at(mut self, position: u64) -> Problem<'a> {
        self.position = Some(position);
        self
    }

    /// With the offset of the partition.
    pub(super) fn offset(mut self, offset: Offset) -> Problem<'a> {
        self.offset = Some(offset);
        self
    }
}

/// What one partition held.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) segments: u64,
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) markers: u64,
    pub(super) open: u64,
}

/// A transaction that has not ended.
pub(super) struct Open {
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) first: Offset,
    pub(super) owner: Option<String>,
    pub(super) state: Option<&'static str>,
}

pub(super) struct Report {
    /// Nothing is written where a repair only looks again.
    rows: Option<Rows>,
    /// What mends the problems, by file; filled by the checks, emptied by who repairs.
    pub(super) mends: BTreeSet<(PathBuf, Mend)>,
    /// What the files of rows of aborted transactions have to hold.
    pub(super) row_files: BTreeMap<PathBuf, Vec<u8>>,
    directory: PathBuf,
    partitions: u64,
    totals: Totals,
    damage: u64,
    cache: u64,
    in_partition: u64,
}

impl Report {
    pub(super) fn new(rows: Rows) -> Report {
        Report {
            rows: Some(rows),
            mends: BTreeSet::new(),
            row_files: BTreeMap::new(),
            directory: PathBuf::new(),
            partitions: 0,
            totals: Totals::default(),
            damage: 0,
            cache: 0,
            in_partition: 0,
        }
    }

    /// One that writes nothing.
    pub(super) fn silent() -> Report {
        Report {
            rows: None,
            ..Report::new(Rows::new(Format::default()))
        }
    }

    /// Writes a row.
    pub(super) fn row(&mut self, kind: &'static str, cells: Vec<(&'static str, Value)>) {
        if let Some(rows) = &mut self.rows {
            rows.row(kind, cells);
        }
    }

    /// Begins with a directory.
    pub(super) fn begin(&mut self, directory: &Directory, is_clean: bool) {
        self.directory = directory.inspection.path().to_owned();
        self.partitions = 0;
        self.totals = Totals::default();
        (self.damage, self.cache) = (0, 0);
        self.row(
            "directory",
            vec![
                ("path", Value::from(self.directory.display().to_string())),
                ("format", Value::from(directory.inspection.format())),
                ("stopped_cleanly", Value::from(is_clean)),
                (
                    "topics",
                    Value::from(tally_protocol::ids::to_u64(directory.topics.len())),
                ),
            ],
        );
    }

    /// Ends with the directory; returns how many problems it has.
    pub(super) fn end(&mut self) -> u64 {
        let problems = self.damage + self.cache;
        let totals = &self.totals;
        self.row(
            "summary",
            vec![
                ("path", Value::from(self.directory.display().to_string())),
                ("partitions", Value::from(self.partitions)),
                ("segments", Value::from(totals.segments)),
                ("batches", Value::from(totals.batches)),
                ("records", Value::from(totals.records)),
                ("markers", Value::from(totals.markers)),
                ("open_transactions", Value::from(totals.open)),
                ("damage", Value::from(self.damage)),
                ("cache", Value::from(self.cache)),
                ("problems", Value::from(problems)),
            ],
        );
        problems
    }

    /// Ends the output.
    pub(super) fn finish(self) {
        if let Some(rows) = self.rows {
            rows.finish();
        }
    }

    pub(super) fn relative(&self, file: &Path) -> String {
        let file = file.strip_prefix(&self.directory).unwrap_or(file);
        file.display().to_string()
    }

    pub(super) fn problem(&mut self, problem: Problem<'_>) {
        let class = match problem.class {
            Class::Damage => {
                self.damage += 1;
                "damage"
            }
            Class::Cache => {
                self.cache += 1;
                "cache"
            }
        };
        self.in_partition += 1;
        self.mends.insert((problem.file.to_owned(), problem.mend));
        let file = self.relative(problem.file);
        self.row(
            "problem",
            vec![
                ("class", Value::from(class)),
                ("file", Value::from(file)),
                ("position", Value::from(problem.position)),
                ("offset", Value::from(problem.offset.map(|offset| offset.0))),
                ("what", Value::from(problem.what)),
            ],
        );
    }

    /// What else may mend the problem of a file that was named last.
    pub(super) fn mended_by(&mut self, file: &Path, mend: Mend) {
        self.mends.insert((file.to_owned(), mend));
    }

    /// Something worth knowing that is no problem.
    pub(super) fn note(&mut self, file: &Path, what: &str) {
        let file = self.relative(file);
        self.row(
            "note",
            vec![("file", Value::from(file)), ("what", Value::from(what))],
        );
    }

    /// A transaction that has not ended.
    pub(super) fn open(&mut self, partition: &str, open: &Open) {
        self.row(
            "open",
            vec![
                ("partition", Value::from(partition)),
                ("producer_id", Value::from(open.producer_id)),
                ("producer_epoch", Value::from(open.producer_epoch)),
                ("first_offset", Value::from(open.first.0)),
                ("transactional_id", Value::from(open.owner.as_deref())),
                ("state", Value::from(open.state)),
            ],
        );
    }

    /// Ends with a partition.
    pub(super) fn partition(
        &mut self,
        name: &str,
        offsets: (Offset, Option<Offset>),
        held: &Totals,
    ) {
        self.partitions += 1;
        self.totals.segments += held.segments;
        self.totals.batches += held.batches;
        self.totals.records += held.records;
        self.totals.bytes += held.bytes;
        self.totals.markers += held.markers;
        self.totals.open += held.open;
        let problems = std::mem::take(&mut self.in_partition);
        self.row(
            "partition",
            vec![
                ("partition", Value::from(name)),
                ("log_start", Value::from(offsets.0.0)),
                ("log_end", Value::from(offsets.1.map(|end| end.0))),
                ("segments", Value::from(held.segments)),
                ("batches", Value::from(held.batches)),
                ("records", Value::from(held.records)),
                ("bytes", Value::from(held.bytes)),
                ("open_transactions", Value::from(held.open)),
                ("problems", Value::from(problems)),
            ],
        );
    }
}
