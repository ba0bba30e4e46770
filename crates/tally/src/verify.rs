//! `tally verify log`: checks the data directory of a stopped broker, or a copy of one, and changes nothing unless it is
//! told to repair (see `repair`).
//!
//! What is checked: checksums; offsets contiguous, gaps only where compaction may have been; leader epochs that never fall
//! and are those of `leader-epoch-checkpoint`; sequences of each producer; markers against the decisions in
//! `__transaction_state`; open transactions, and who they belong to; rows of aborted transactions, indexes and snapshots
//! against a replay of the log; records of the coordinators; the metadata.
//!
//! Exit codes: 0 no problem; 1 problems, each with file, position and offset; 2 nothing that can be checked; 6 a broker has
//! the directory.

mod coordinator;
mod files;
mod partition;
mod repair;
mod report;
mod snapshot;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tally_protocol::PartitionId;
use tally_storage::{FileKind, file_kind, read_recovery_points};

use self::coordinator::Decisions;
use self::partition::PartitionCheck;
use self::report::{Class, Mend, Problem, Report};
use crate::args;
use crate::offline::{
    self, DEFAULT_DATA, Directory, EXIT_DONE, EXIT_FOUND, EXIT_REFUSED, EXIT_UNUSABLE, Role,
};
use crate::output::{Rows, complain, remark};

/// Checks what was asked for.
pub(crate) fn run(args: &args::VerifyLog) -> ExitCode {
    args.talk.hold();
    let mut directories = args.directories.clone();
    if directories.is_empty() {
        directories.push(PathBuf::from(DEFAULT_DATA));
    }
    let mut report = Report::new(Rows::new(args.output));
    let mut worst = EXIT_DONE;
    for path in &directories {
        let code = match check_directory(args, path, &mut report) {
            Ok(0) => EXIT_DONE,
            Ok(_) => EXIT_FOUND,
            Err((code, message)) => {
                complain(&message);
                code
            }
        };
        worst = worst.max(code);
    }
    report.finish();
    ExitCode::from(worst)
}

/// Returns how many problems there are, or why nothing can be said.
fn check_directory(
    args: &args::VerifyLog,
    path: &Path,
    report: &mut Report,
) -> Result<u64, (u8, String)> {
    let directory = Directory::open(path).map_err(|error| (EXIT_UNUSABLE, error.to_string()))?;
    if let Some(holder) = directory.holder() {
        let message = format!(
            "{} is in use by {holder}: stop it, or check a copy",
            path.display()
        );
        return Err((EXIT_REFUSED, message));
    }
    if args.repair {
        return repair::run(args, directory, report);
    }
    check(args, &directory, report)
}

/// Checks a directory that nobody writes to; returns how many problems there are.
fn check(
    args: &args::VerifyLog,
    directory: &Directory,
    report: &mut Report,
) -> Result<u64, (u8, String)> {
    let path = directory.inspection.path();
    let cannot = |error: std::io::Error| (EXIT_UNUSABLE, format!("{}: {error}", path.display()));
    let partitions = chosen(args, directory)?;
    report.begin(directory, directory.inspection.is_clean().map_err(cannot)?);
    check_root(directory, report);
    // The coordinators of transactions first: markers are compared with what they decided.
    let (coordinators, others): (Vec<_>, Vec<_>) = partitions
        .into_iter()
        .partition(|id| directory.role(*id) == Role::Transactions);
    let mut decisions = Decisions::new(args.partition.is_none() && !coordinators.is_empty());
    for id in coordinators.into_iter().chain(others) {
        remark(1, || format!("{} is checked", directory.name(id)));
        check_membership(directory, id, report);
        PartitionCheck::new(args, directory, id, report, &mut decisions).run();
    }
    Ok(report.end())
}

fn chosen(args: &args::VerifyLog, directory: &Directory) -> Result<Vec<PartitionId>, (u8, String)> {
    let path = directory.inspection.path();
    let stored = directory.inspection.partitions();
    let stored = stored.map_err(|error| (EXIT_UNUSABLE, format!("{}: {error}", path.display())))?;
    let Some(wanted) = &args.partition else {
        return Ok(stored);
    };
    match directory.find(wanted).filter(|id| stored.contains(id)) {
        Some(id) => Ok(vec![id]),
        None => Err((
            EXIT_UNUSABLE,
            format!("{} has no files of {wanted}", path.display()),
        )),
    }
}

/// The metadata, and the small files beside it.
fn check_root(directory: &Directory, report: &mut Report) {
    let root = directory.inspection.path();
    for complaint in &directory.complaints {
        let meta = directory.inspection.meta_path();
        report.problem(Problem::new(Class::Damage, &meta, complaint));
    }
    let names = match offline::names(root) {
        Ok(names) => names,
        Err(error) => {
            return report.problem(Problem::new(Class::Damage, root, &error.to_string()));
        }
    };
    for name in names {
        let path = root.join(&name);
        let bytes = || std::fs::read(&path).unwrap_or_default();
        match name.as_str() {
            "clean-shutdown" if bytes() != b"1\n" => {
                let what = "it is not the mark of a clean stop: the next start takes the run before for killed";
                report.problem(Problem::new(Class::Damage, &path, what));
            }
            "boot-id" if !is_boot_id(&bytes()) => {
                let what = "it is not an id of a run of the kernel: the next start may take it for a power cut";
                report.problem(Problem::new(Class::Cache, &path, what));
            }
            _ if file_kind(&name) == FileKind::RecoveryPoints => {
                check_recovery_points(directory, &path, &bytes(), report);
            }
            "sync-failed" => {
                report.note(
                    &path,
                    "a sync failed: the next start writes what it was for anew",
                );
            }
            _ if path.is_file() && file_kind(&name) == FileKind::Unknown => {
                report.note(&path, "not known to this version, not checked");
            }
            _ => {}
        }
    }
}

/// One of the two may be torn after a kill: then the other one counts.
fn check_recovery_points(directory: &Directory, path: &Path, bytes: &[u8], report: &mut Report) {
    let Some(found) = read_recovery_points(bytes) else {
        let what = "it does not hold recovery points: the other file counts";
        return report.problem(Problem::new(Class::Damage, path, what));
    };
    let newest = offline::names(directory.inspection.path()).unwrap_or_default();
    let newest = newest
        .iter()
        .filter(|name| file_kind(name) == FileKind::RecoveryPoints)
        .filter_map(|name| std::fs::read(path.with_file_name(name)).ok())
        .filter_map(|bytes| read_recovery_points(&bytes))
        .map(|points| points.counter)
        .max();
    if newest > Some(found.counter) {
        return;
    }
    for (id, (offset, segment, position)) in &found.points {
        let partition = directory.inspection.partition_path(*id);
        let names = offline::names(&partition).unwrap_or_default();
        let last = names.iter().rev().find_map(|name| match file_kind(name) {
            FileKind::Segment(base) => Some((base, partition.join(name))),
            _ => None,
        });
        // Closed segments become shorter when they are compacted.
        let Some((base, log)) = last else { continue };
        let size = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        if base < *segment || (base == *segment && size < *position) {
            let what = format!(
                "synced up to offset {offset}, and the log is shorter: see {}",
                path.display()
            );
            report.problem(Problem::new(Class::Damage, &log, &what).mend(Mend::Point));
        }
    }
}

/// 36 characters and a line feed; nothing but the line feed where the kernel does not tell.
fn is_boot_id(bytes: &[u8]) -> bool {
    let Some(id) = bytes.strip_suffix(b"\n") else {
        return false;
    };
    let of_an_id = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    id.is_empty() || (id.len() == 36 && id.iter().all(of_an_id))
}

/// Whether the metadata knows the partition.
fn check_membership(directory: &Directory, id: PartitionId, report: &mut Report) {
    if !directory.complaints.is_empty() {
        return;
    }
    let path = directory.inspection.partition_path(id);
    match directory.topics.get(&id.topic) {
        None => report.note(&path, "its topic is deleted: the next start removes it"),
        Some(topic) if id.index < 0 || id.index >= topic.partitions => {
            let what = format!("{} has {} partitions only", topic.name, topic.partitions);
            report.problem(Problem::new(Class::Damage, &path, &what));
        }
        Some(_) => {}
    }
}
