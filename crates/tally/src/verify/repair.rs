//! `tally verify log --repair`: mends what the check has found.
//!
//! What is damaged leaves the log and is kept beside it; what is made from the log is made again. Nothing is guessed: the metadata,
//! records of coordinators that contradict each other, transactions that nobody ends and a log's start that no other file
//! tells stay as they are, and the exit code says so.
//!
//! Rounds: logs first, then what is compared with them, because a check of a damaged log says little of the rest. After each
//! round the directory is checked again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tally_producer_state::ProducerStates;
use tally_protocol::{Offset, PartitionId};
use tally_storage::{
    Damaged, EpochsAround, FileKind, OpenDirError, Part, Repair, SegmentPlan, epochs_of, file_kind,
    log_path, plan_segment, read_epochs, read_log_start,
};

use super::report::{Mend, Report};
use crate::args;
use crate::offline::{self, Directory, EXIT_REFUSED, EXIT_UNUSABLE};
use crate::output::{Value, complain};

/// Logs, then their epochs and rows, then what these have shown; one more never was of use.
const ROUNDS: usize = 4;

/// What is done to one file.
enum Work {
    /// A segment is written anew or cut; if it is cut, what lies behind it goes too.
    Segment(Offset, SegmentPlan, Vec<String>),
    Point,
    /// Both files of recovery points.
    Points,
    /// The file gets these bytes.
    Write(Vec<u8>),
    Epochs(Vec<Offset>, Offset),
    Indexes(Offset),
    Aside,
}

struct Step {
    partition: Option<PartitionId>,
    file: PathBuf,
    work: Work,
}

impl Step {
    /// The files that are put aside because the log ends before them: nothing of them is mended.
    fn goes(&self) -> Vec<PathBuf> {
        match &self.work {
            Work::Segment(_, _, behind) => {
                let behind = behind.iter();
                behind.map(|name| self.file.with_file_name(name)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether other files of the partition can only be judged when this is done.
    fn is_first(&self) -> bool {
        match &self.work {
            Work::Segment(..) => true,
            Work::Write(_) => !has_kind(&self.file, |kind| {
                matches!(kind, FileKind::TransactionIndex(_))
            }),
            Work::Point | Work::Points | Work::Epochs(..) | Work::Indexes(_) | Work::Aside => false,
        }
    }
}

type Refused = (u8, String);

/// Checks, says what it does, does it, and checks again; returns how many problems are left.
pub(super) fn run(
    args: &args::VerifyLog,
    directory: Directory,
    report: &mut Report,
) -> Result<u64, Refused> {
    let root = directory.inspection.path().to_owned();
    let found = super::check(args, &directory, report)?;
    if !directory.complaints.is_empty() {
        complain(
            "nothing is repaired: meta says what all the rest is, and is not guessed; put a copy of it back",
        );
        return Ok(found);
    }
    let mut steps = plan(args, &directory, report)?;
    tell(report, &steps);
    if args.dry_run || steps.is_empty() {
        left(report, &root, (0, found), None);
        return Ok(found);
    }
    let unusable = |error: std::io::Error| (EXIT_UNUSABLE, format!("{}: {error}", root.display()));
    // The lock of those who look is in the way of the one who repairs.
    drop(directory);
    let mut repair = Repair::open(&root).map_err(refused)?;
    if !repair.was_clean() {
        // The journal has mended what it could.
        (_, steps) = look_again(args, &repair)?;
    }
    let (mut done, mut problems) = (0, found);
    for _ in 0..ROUNDS {
        for step in &steps {
            work(&mut repair, step).map_err(|error| {
                let file = step.file.display();
                (EXIT_UNUSABLE, format!("{file} cannot be repaired: {error}"))
            })?;
            done += 1;
        }
        (problems, steps) = look_again(args, &repair)?;
        if steps.is_empty() {
            break;
        }
        tell(report, &steps);
    }
    let aside = repair.aside().exists().then(|| repair.aside().to_owned());
    repair.finish().map_err(unusable)?;
    left(report, &root, (done, problems), aside.as_deref());
    Ok(problems)
}

fn refused(error: OpenDirError) -> Refused {
    let code = match error {
        OpenDirError::AlreadyInUse { .. } => EXIT_REFUSED,
        _ => EXIT_UNUSABLE,
    };
    (code, error.to_string())
}

fn look_again(args: &args::VerifyLog, repair: &Repair) -> Result<(u64, Vec<Step>), Refused> {
    let directory = Directory::of(repair.inspection().map_err(refused)?);
    let mut silent = Report::silent();
    let problems = super::check(args, &directory, &mut silent)?;
    let steps = plan(args, &directory, &mut silent)?;
    Ok((problems, steps))
}

/// Ends with what became of the directory.
fn left(report: &mut Report, root: &Path, (done, problems): (u64, u64), aside: Option<&Path>) {
    report.row(
        "repaired",
        vec![
            ("path", Value::from(root.display().to_string())),
            ("steps", Value::from(done)),
            ("problems_left", Value::from(problems)),
            (
                "kept_in",
                Value::from(aside.map(|path| path.display().to_string())),
            ),
        ],
    );
}

/// Says what is done.
fn tell(report: &mut Report, steps: &[Step]) {
    for step in steps {
        let file = report.relative(&step.file);
        let lines = match &step.work {
            Work::Segment(_, plan, behind) => said(plan, behind),
            Work::Point => vec!["its end counts as synced, and nothing behind it".to_owned()],
            Work::Points | Work::Write(_) => vec!["written anew".to_owned()],
            Work::Epochs(..) | Work::Indexes(_) => vec!["made again from the log".to_owned()],
            Work::Aside => vec!["put aside: a start makes it again, or does without it".to_owned()],
        };
        for what in lines {
            let cells = vec![
                ("file", Value::from(file.clone())),
                ("what", Value::from(what)),
            ];
            report.row("repair", cells);
        }
    }
}

fn said(plan: &SegmentPlan, behind: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for part in &plan.parts {
        match part {
            Part::Keep(_) => {}
            Part::Renumber(range, offset) => lines.push(format!(
                "the batch at position {} gets its offset {offset} back",
                range.start
            )),
            Part::Date(range, epoch) => lines.push(format!(
                "the batch at position {} gets its leader epoch {epoch} back",
                range.start
            )),
            Part::Lose(range, offsets) if offsets.is_empty() => lines.push(format!(
                "{} bytes from position {} are put aside",
                range.end - range.start,
                range.start
            )),
            Part::Lose(range, offsets) if range.is_empty() => lines.push(format!(
                "an empty batch takes the offsets {} to {}",
                offsets.start,
                offsets.end - 1
            )),
            Part::Lose(range, offsets) => lines.push(format!(
                "{} bytes from position {} are put aside; the offsets {} to {} are empty",
                range.end - range.start,
                range.start,
                offsets.start,
                offsets.end - 1
            )),
            Part::Cut(range) if range.is_empty() => {
                lines.push(format!("the log ends at position {}", range.start));
            }
            Part::Cut(range) => lines.push(format!(
                "{} bytes from position {} are put aside, and the log ends there",
                range.end - range.start,
                range.start
            )),
        }
    }
    if !behind.is_empty() {
        lines.push(format!("{} files behind it are put aside", behind.len()));
    }
    lines
}

fn work(repair: &mut Repair, step: &Step) -> std::io::Result<()> {
    match &step.work {
        Work::Segment(base, plan, behind) => {
            for name in behind {
                repair.put_aside(&step.file.with_file_name(name))?;
            }
            let partition = step.partition.expect("a segment is of a partition");
            repair.mend_segment(partition, (&step.file, *base), plan)
        }
        Work::Point => repair.lower_point(step.partition.expect("a point is of a partition")),
        Work::Points => repair.write_points(&step.file),
        Work::Write(bytes) => repair.replace(&step.file, bytes),
        Work::Epochs(bases, log_start) => {
            let directory = step.file.parent().unwrap_or(&step.file);
            repair.make_epochs(directory, bases, *log_start)
        }
        Work::Indexes(base) => repair.make_indexes(&step.file, *base),
        Work::Aside => repair.put_aside(&step.file),
    }
}

fn has_kind(file: &Path, test: impl Fn(FileKind) -> bool) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| test(file_kind(name)))
}

/// What mends the problems of a report, by file; where the log of a partition is mended, that comes alone.
fn plan(
    args: &args::VerifyLog,
    directory: &Directory,
    report: &mut Report,
) -> Result<Vec<Step>, Refused> {
    let mut steps: Vec<Step> = Vec::new();
    for (file, mend) in std::mem::take(&mut report.mends) {
        let step = step(args, directory, report, &file, mend).map_err(|error| {
            (
                EXIT_UNUSABLE,
                format!("{} cannot be read: {error}", file.display()),
            )
        })?;
        let Some(step) = step else { continue };
        let is_same = |other: &Step| {
            other.file == step.file
                && std::mem::discriminant(&other.work) == std::mem::discriminant(&step.work)
        };
        if !steps.iter().any(is_same) {
            steps.push(step);
        }
    }
    let first: BTreeSet<PartitionId> = steps
        .iter()
        .filter(|step| step.is_first())
        .filter_map(|step| step.partition)
        .collect();
    steps.retain(|step| step.is_first() || step.partition.is_none_or(|id| !first.contains(&id)));
    let going: BTreeSet<PathBuf> = steps.iter().flat_map(Step::goes).collect();
    steps.retain(|step| !going.contains(&step.file));
    Ok(steps)
}

fn step(
    args: &args::VerifyLog,
    directory: &Directory,
    report: &Report,
    file: &Path,
    mend: Mend,
) -> std::io::Result<Option<Step>> {
    let home = file.parent().unwrap_or(file);
    let partition = offline::home_of(home).map(|(_, id)| id);
    let of = |file: PathBuf, work| {
        Some(Step {
            partition,
            file,
            work,
        })
    };
    let name = file
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let kind = file_kind(name);
    let Some(id) = partition else {
        let work = match kind {
            FileKind::RecoveryPoints => Some(Work::Points),
            _ if matches!(name, "clean-shutdown" | "boot-id") => Some(Work::Aside),
            _ => None,
        };
        let work = work.filter(|_| mend == Mend::ByFile);
        return Ok(work.and_then(|work| of(file.to_owned(), work)));
    };
    let starts_at = |start: Offset| {
        let text = format!("0\n{start}\n");
        of(file.to_owned(), Work::Write(text.into_bytes()))
    };
    let log = Log::read(args, directory, home)?;
    Ok(match (mend, kind) {
        (Mend::Nothing, _) => None,
        (Mend::Segment(base), _) => {
            segment(&log, directory, id, base)?.and_then(|work| of(log_path(home, base), work))
        }
        (Mend::Point, _) => of(file.to_owned(), Work::Point),
        (Mend::Start(start), _) => starts_at(start),
        (Mend::Epochs, _) | (Mend::ByFile, FileKind::Epochs) => {
            let path = home.join("leader-epoch-checkpoint");
            of(path, Work::Epochs(log.bases(), log.start))
        }
        (
            Mend::ByFile,
            FileKind::OffsetIndex(base)
            | FileKind::TimeIndex(base)
            | FileKind::TransactionIndex(base),
        ) if !log.bases().contains(&base) => of(file.to_owned(), Work::Aside),
        (Mend::ByFile, FileKind::OffsetIndex(base) | FileKind::TimeIndex(base)) => {
            of(log_path(home, base), Work::Indexes(base))
        }
        (Mend::ByFile, FileKind::TransactionIndex(_)) => report
            .row_files
            .get(file)
            .and_then(|bytes| of(file.to_owned(), Work::Write(bytes.clone()))),
        (Mend::ByFile, FileKind::Snapshot(_)) => of(file.to_owned(), Work::Aside),
        (Mend::ByFile, FileKind::LogStart) => log.told_start(directory, home)?.and_then(starts_at),
        (Mend::ByFile, FileKind::Mark) if name == "txn-sums" => of(file.to_owned(), Work::Aside),
        (Mend::ByFile, FileKind::Mark) if name == "cleaner-checkpoint" => {
            // All closed segments may lack offsets, and nothing is known to be compacted.
            let last = log.bases().last().copied().unwrap_or(Offset::ZERO);
            of(
                file.to_owned(),
                Work::Write(format!("0\n0\n{last}\n").into_bytes()),
            )
        }
        (Mend::ByFile, _) => None,
    })
}

/// What becomes of a segment, if it can be mended.
fn segment(
    log: &Log,
    directory: &Directory,
    id: PartitionId,
    base: Offset,
) -> std::io::Result<Option<Work>> {
    let bases = log.bases();
    let next = bases.iter().find(|other| **other > base).copied();
    let unsynced = directory.inspection.unsynced_from(id)?;
    let home = directory.inspection.partition_path(id);
    let path = log_path(&home, base);
    let around = |other: Option<&Offset>| match other {
        Some(other) => epochs_of(&log_path(&home, *other)),
        None => Ok(None),
    };
    let epochs = EpochsAround {
        before: around(bases.iter().rfind(|other| **other < base))?.map(|(_, last)| last),
        after: around(next.as_ref())?.map(|(first, _)| first),
        stored: std::fs::read(home.join("leader-epoch-checkpoint"))
            .ok()
            .and_then(|bytes| read_epochs(&bytes))
            .unwrap_or_default(),
        is_all: directory.inspection.is_clean()?,
    };
    let damaged = Damaged {
        log: &path,
        base,
        next,
        known_end: log.known_end,
        gaps: log.gaps_below > base && next.is_some(),
        keeps: unsynced.is_none_or(|unsynced| base < unsynced),
        epochs: &epochs,
    };
    let plan = plan_segment(&damaged)?;
    if plan.is_nothing() {
        return Ok(None);
    }
    let is_cut = matches!(plan.parts.last(), Some(Part::Cut(_)));
    let behind = match next {
        Some(next) if is_cut => log.files_from(next),
        _ => Vec::new(),
    };
    Ok(Some(Work::Segment(base, plan, behind)))
}

/// What the names and the small files of a partition's directory say.
struct Log {
    names: Vec<String>,
    start: Offset,
    /// It is known to have gone on up to here.
    known_end: Offset,
    gaps_below: Offset,
}

impl Log {
    fn read(args: &args::VerifyLog, directory: &Directory, home: &Path) -> std::io::Result<Log> {
        let names = offline::names(home)?;
        let stored = std::fs::read(home.join("log-start")).unwrap_or_default();
        let stored = read_log_start(&stored).unwrap_or(Offset::ZERO);
        let snapshots = names.iter().filter_map(|name| match file_kind(name) {
            FileKind::Snapshot(at) => {
                let bytes = std::fs::read(home.join(name)).ok()?;
                let (_, valid_at) = ProducerStates::restore(&bytes, 0).ok()?;
                (valid_at == at).then_some(at)
            }
            _ => None,
        });
        let known_end = snapshots.max().unwrap_or(Offset::ZERO).max(stored);
        let checkpoint = std::fs::read_to_string(home.join("cleaner-checkpoint"));
        let checkpoint = checkpoint.unwrap_or_default();
        let gaps_below = checkpoint.lines().nth(2).and_then(|line| line.parse().ok());
        let is_known =
            offline::home_of(home).is_some_and(|(_, id)| directory.topics.contains_key(&id.topic));
        let mut log = Log {
            names,
            start: stored,
            known_end,
            gaps_below: match args.compacted || !is_known || home.join("swap").exists() {
                true => Offset(i64::MAX),
                false => Offset(gaps_below.unwrap_or(0)),
            },
        };
        log.start = log
            .start
            .max(log.bases().first().copied().unwrap_or(Offset::ZERO));
        Ok(log)
    }

    /// The names of the segments, in order.
    fn bases(&self) -> Vec<Offset> {
        let names = self.names.iter();
        let bases = names.filter_map(|name| match file_kind(name) {
            FileKind::Segment(base) => Some(base),
            _ => None,
        });
        bases.collect()
    }

    /// The files of the segments from one on.
    fn files_from(&self, from: Offset) -> Vec<String> {
        let is_behind = |name: &&String| {
            matches!(
                file_kind(name),
                FileKind::Segment(base)
                    | FileKind::OffsetIndex(base)
                    | FileKind::TimeIndex(base)
                    | FileKind::TransactionIndex(base) if base >= from
            )
        };
        self.names.iter().filter(is_behind).cloned().collect()
    }

    /// Where the log starts, by its own file or, after a clean stop, by its leader epochs.
    fn told_start(&self, directory: &Directory, home: &Path) -> std::io::Result<Option<Offset>> {
        let stored = std::fs::read(home.join("log-start")).unwrap_or_default();
        if let Some(start) = read_log_start(&stored) {
            return Ok(Some(start));
        }
        if !directory.inspection.is_clean()? {
            return Ok(None);
        }
        let epochs = std::fs::read(home.join("leader-epoch-checkpoint")).unwrap_or_default();
        let first = read_epochs(&epochs).and_then(|epochs| epochs.first().copied());
        Ok(first.map(|(_, start)| start.max(self.start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_segment_names_bytes_and_offsets() {
        let plan = SegmentPlan {
            parts: vec![
                Part::Keep(0..100),
                Part::Lose(100..170, 4..6),
                Part::Renumber(170..240, Offset(6)),
                Part::Cut(240..250),
            ],
        };
        let lines = said(&plan, &["00000000000000000008.log".to_owned()]);
        assert_eq!(
            lines,
            [
                "70 bytes from position 100 are put aside; the offsets 4 to 5 are empty",
                "the batch at position 170 gets its offset 6 back",
                "10 bytes from position 240 are put aside, and the log ends there",
                "1 files behind it are put aside",
            ]
        );
    }
}
