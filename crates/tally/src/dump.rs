//! `tally dump`: shows what the files of a data directory hold, without a broker and without changing anything.
//!
//! Exit codes: 0 shown; 1 something in it could not be read; 2 nothing there to show. Damage is a row of its own; what can
//! be shown around it is shown.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tally_producer_state::{AbortedTransaction, ProducerStates};
use tally_protocol::ids::to_u64;
use tally_protocol::{Offset, PartitionId};
use tally_storage::{
    BatchAt, FileKind, SegmentReader, TRANSACTION_ROW_BYTES, file_kind, read_epochs,
    read_log_start, read_meta, read_offset_index, read_recovery_points, read_time_index,
    visit_journal,
};

use crate::args;
use crate::decode;
use crate::offline::{self, DEFAULT_DATA, Directory, EXIT_DONE, EXIT_FOUND, EXIT_UNUSABLE, Role};
use crate::output::{Rows, Value, complain, remark};

/// Bytes of an unknown file that `--raw` shows.
const RAW_BYTES_MAX: usize = 64 * 1024;

/// Shows what was asked for.
pub(crate) fn run(args: &args::Dump) -> ExitCode {
    match dump(args) {
        Ok(false) => ExitCode::from(EXIT_DONE),
        Ok(true) => ExitCode::from(EXIT_FOUND),
        Err(message) => {
            complain(&message);
            ExitCode::from(EXIT_UNUSABLE)
        }
    }
}

/// What is to be shown.
enum Target {
    Directory(Box<Directory>),
    Partition(Box<Directory>, PartitionId),
    File(PathBuf, Role),
}

fn dump(args: &args::Dump) -> Result<bool, String> {
    args.talk.hold();
    let target = find_target(args)?;
    let mut dump = Dump {
        args,
        rows: Rows::new(args.output),
        damaged: false,
    };
    match target {
        Target::Directory(directory) => {
            warn_if_running(&directory);
            dump.directory(&directory);
        }
        Target::Partition(directory, partition) => {
            warn_if_running(&directory);
            dump.partition(&directory, partition);
        }
        Target::File(path, role) => dump.file(&path, role),
    }
    dump.rows.finish();
    Ok(dump.damaged)
}

fn find_target(args: &args::Dump) -> Result<Target, String> {
    let data = args
        .data
        .clone()
        .unwrap_or_else(|| PathBuf::from(DEFAULT_DATA));
    let Some(target) = &args.target else {
        return Ok(Target::Directory(Box::new(open(&data)?)));
    };
    let path = Path::new(target);
    if path.is_dir() {
        return Ok(match offline::home_of(path) {
            Some((root, partition)) => Target::Partition(Box::new(open(&root)?), partition),
            None => Target::Directory(Box::new(open(path)?)),
        });
    }
    if path.is_file() {
        let home = path.parent().and_then(offline::home_of);
        let home = home.and_then(|(root, id)| Some((Directory::open(&root).ok()?, id)));
        let role = home.map_or(Role::Data, |(directory, id)| {
            warn_if_running(&directory);
            directory.role(id)
        });
        return Ok(Target::File(path.to_owned(), role));
    }
    let directory = open(&data)?;
    match directory.find(target) {
        Some(partition) => Ok(Target::Partition(Box::new(directory), partition)),
        None => Err(format!(
            "{target} is no file, no directory, and no TOPIC:PARTITION of {}",
            data.display()
        )),
    }
}

fn open(path: &Path) -> Result<Directory, String> {
    Directory::open(path).map_err(|error| error.to_string())
}

fn warn_if_running(directory: &Directory) {
    if let Some(holder) = directory.holder() {
        complain(&format!(
            "{} is in use by {holder}: files change while they are read, and what seems damaged may only be unfinished",
            directory.inspection.path().display()
        ));
    }
}

struct Dump<'a> {
    args: &'a args::Dump,
    rows: Rows,
    damaged: bool,
}

impl Dump<'_> {
    fn damage(&mut self, file: &Path, position: Option<u64>, reason: &str) {
        self.damaged = true;
        self.rows.row(
            "damage",
            vec![
                ("file", Value::from(file.display().to_string())),
                ("position", Value::from(position)),
                ("reason", Value::from(reason)),
            ],
        );
    }

    fn directory(&mut self, directory: &Directory) {
        let inspection = &directory.inspection;
        let is_clean = inspection.is_clean().unwrap_or(false);
        self.rows.row(
            "directory",
            vec![
                ("path", Value::from(inspection.path().display().to_string())),
                ("format", Value::from(inspection.format())),
                ("stopped_cleanly", Value::from(is_clean)),
                ("in_use_by", Value::from(directory.holder())),
                ("metadata_revision", Value::from(directory.revision)),
            ],
        );
        for complaint in &directory.complaints {
            self.damage(&inspection.meta_path(), None, complaint);
        }
        self.settings(directory.values.iter());
        match inspection.partitions() {
            Ok(partitions) => {
                for partition in partitions {
                    self.summary(directory, partition);
                }
            }
            Err(error) => self.damage(inspection.path(), None, &error.to_string()),
        }
        for name in offline::names(inspection.path()).unwrap_or_default() {
            let path = inspection.path().join(&name);
            if path.is_file() && file_kind(&name) != FileKind::Meta {
                self.file(&path, Role::Data);
            }
        }
    }

    fn settings<'a>(&mut self, values: impl Iterator<Item = (&'a String, &'a String)>) {
        for (name, value) in values {
            self.rows.row(
                "metadata",
                vec![
                    ("name", Value::from(name.as_str())),
                    ("value", Value::from(value.as_str())),
                ],
            );
        }
    }

    fn summary(&mut self, directory: &Directory, partition: PartitionId) {
        let path = directory.inspection.partition_path(partition);
        let names = offline::names(&path).unwrap_or_default();
        let mut segments = 0;
        let mut bytes = 0;
        for name in &names {
            if matches!(file_kind(name), FileKind::Segment(_)) {
                segments += 1;
                bytes += std::fs::metadata(path.join(name)).map_or(0, |metadata| metadata.len());
            }
        }
        self.rows.row(
            "partition",
            vec![
                ("partition", Value::from(directory.name(partition))),
                ("topic_id", Value::from(partition.topic.to_string())),
                ("segments", Value::Number(segments)),
                ("bytes", Value::from(bytes)),
                ("files", Value::from(to_u64(names.len()))),
            ],
        );
    }

    fn partition(&mut self, directory: &Directory, partition: PartitionId) {
        let path = directory.inspection.partition_path(partition);
        let names = match offline::names(&path) {
            Ok(names) => names,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                complain(&format!(
                    "{} has no files: nothing was written to it",
                    directory.name(partition)
                ));
                return;
            }
            Err(error) => return self.damage(&path, None, &error.to_string()),
        };
        let mut files: Vec<(bool, String)> = names
            .into_iter()
            .map(|name| {
                (
                    file_kind(&name) != FileKind::LogStart && file_kind(&name) != FileKind::Epochs,
                    name,
                )
            })
            .collect();
        files.sort();
        for (_, name) in files {
            if self.rows.is_closed() {
                return;
            }
            self.file(&path.join(name), directory.role(partition));
        }
    }

    /// Shows one file by what its name says it is.
    fn file(&mut self, path: &Path, role: Role) {
        remark(1, || format!("{} is read", path.display()));
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let kind = file_kind(&name.unwrap_or_default());
        let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        self.rows.line("");
        self.rows.row(
            "file",
            vec![
                ("path", Value::from(path.display().to_string())),
                ("what", Value::from(what_of(kind))),
                ("bytes", Value::from(size)),
            ],
        );
        if let FileKind::Segment(_) = kind {
            return self.segment(path, role);
        }
        if kind == FileKind::Spare {
            return;
        }
        if kind == FileKind::Journal {
            return self.journal(path);
        }
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return self.damage(path, None, &error.to_string()),
        };
        match kind {
            FileKind::Segment(_) | FileKind::Spare | FileKind::Journal => {}
            FileKind::RecoveryPoints => self.recovery_points(path, &bytes),
            FileKind::OffsetIndex(base) => self.offset_index(base, &bytes),
            FileKind::TimeIndex(base) => self.time_index(base, &bytes),
            FileKind::TransactionIndex(_) => self.transaction_index(path, &bytes),
            FileKind::Snapshot(_) => self.snapshot(path, &bytes),
            FileKind::Epochs => self.epochs(path, &bytes),
            FileKind::LogStart => match read_log_start(&bytes) {
                Some(offset) => self
                    .rows
                    .row("log start", vec![("offset", Value::from(offset.0))]),
                None => self.damage(path, None, "it does not hold an offset"),
            },
            FileKind::Meta => match read_meta(&bytes) {
                Ok((values, _)) => self.settings(values.iter()),
                Err(reason) => self.damage(path, None, reason),
            },
            FileKind::Mark => {
                let text = String::from_utf8_lossy(&bytes);
                let text = Value::from(text.trim_end());
                self.rows.row("mark", vec![("text", text)]);
            }
            FileKind::Unknown if self.args.raw => {
                let shown = &bytes[..bytes.len().min(RAW_BYTES_MAX)];
                self.rows
                    .row("raw", vec![("hex", Value::from(decode::hex(shown)))]);
            }
            FileKind::Unknown => {}
        }
    }

    fn recovery_points(&mut self, path: &Path, bytes: &[u8]) {
        let Some(found) = read_recovery_points(bytes) else {
            return self.damage(path, None, "it does not hold recovery points");
        };
        self.rows.row(
            "recovery points",
            vec![
                ("counter", Value::from(found.counter)),
                (
                    "durability",
                    Value::from(format!("{:?}", found.durability).to_lowercase()),
                ),
                (
                    "generation",
                    Value::from(format!("{:016x}", found.generation)),
                ),
                ("first_group", Value::from(found.first_group)),
            ],
        );
        for (id, (offset, segment, position)) in &found.points {
            self.rows.row(
                "recovery point",
                vec![
                    ("topic_id", Value::from(id.topic.to_string())),
                    ("partition", Value::from(i64::from(id.index))),
                    ("offset", Value::from(offset.0)),
                    ("segment", Value::from(segment.0)),
                    ("position", Value::from(*position)),
                ],
            );
        }
    }

    /// What each half of the journal begins with; groups of older generations count for nothing.
    fn journal(&mut self, path: &Path) {
        let rows = &mut self.rows;
        let shown = visit_journal(path, &mut |group| {
            for entry in &group.entries {
                rows.row(
                    "journal entry",
                    vec![
                        ("position", Value::from(group.position)),
                        (
                            "generation",
                            Value::from(format!("{:016x}", group.generation)),
                        ),
                        ("group", Value::from(group.number)),
                        ("kind", Value::from(entry.kind)),
                        ("topic_id", Value::from(entry.partition.topic.to_string())),
                        ("partition", Value::from(i64::from(entry.partition.index))),
                        ("segment", Value::from(entry.segment.0)),
                        ("segment_position", Value::from(entry.position)),
                        ("bytes", Value::from(entry.bytes)),
                        ("end", Value::from(entry.end.0)),
                    ],
                );
            }
        });
        if let Err(error) = shown {
            self.damage(path, None, &error.to_string());
        }
    }

    fn segment(&mut self, path: &Path, role: Role) {
        let mut reader = match SegmentReader::open(path) {
            Ok(reader) => reader,
            Err(error) => return self.damage(path, None, &error.to_string()),
        };
        let mut position = 0;
        while position < reader.size() && !self.rows.is_closed() {
            let (view, crc_ok) = match reader.batch_at(position) {
                Ok(BatchAt::Good(view)) => (view, true),
                Ok(BatchAt::BadCrc(view)) => (view, false),
                Ok(BatchAt::Broken(error)) => {
                    let left = reader.size() - position;
                    let reason = format!("{error}; {left} bytes from here are not shown");
                    return self.damage(path, Some(position), &reason);
                }
                Err(error) => return self.damage(path, Some(position), &error.to_string()),
            };
            let header = *view.header();
            let wanted = decode::last_offset(&header) >= self.args.from
                && (!self.args.markers || header.is_control());
            if wanted {
                let mut fields = decode::batch(position, &view, crc_ok);
                if self.args.raw {
                    fields.push(("raw", Value::from(decode::hex(view.bytes()))));
                }
                self.rows.row("batch", fields);
            }
            let mut unreadable = None;
            if wanted && self.args.records {
                let rows = &mut self.rows;
                let shown = decode::each_record(&view, |record| {
                    rows.row(
                        "record",
                        decode::record(&header, record, self.args.raw, role),
                    );
                });
                unreadable = shown.err().map(|error| error.to_string());
            }
            if !crc_ok {
                self.damage(path, Some(position), "the batch checksum does not match");
            }
            if let Some(reason) = unreadable {
                self.damage(path, Some(position), &reason);
            }
            position += to_u64(header.size_bytes());
        }
    }

    fn offset_index(&mut self, base: Offset, bytes: &[u8]) {
        for (at, (relative, position)) in read_offset_index(bytes).enumerate() {
            if (relative, position) == (0, 0) {
                // Space behind the last entry: the segment is, or was when it was killed, being written to.
                break;
            }
            let offset = base.plus(i64::from(relative));
            self.rows.row(
                "index",
                vec![
                    ("entry", Value::from(to_u64(at))),
                    ("last_offset", Value::from(offset.0)),
                    ("position", Value::from(position)),
                ],
            );
        }
    }

    fn time_index(&mut self, base: Offset, bytes: &[u8]) {
        for (at, (timestamp, relative)) in read_time_index(bytes).enumerate() {
            if at > 0 && (timestamp, relative) == (0, 0) {
                break;
            }
            let offset = base.plus(i64::from(relative));
            self.rows.row(
                "timeindex",
                vec![
                    ("entry", Value::from(to_u64(at))),
                    ("timestamp", Value::from(timestamp)),
                    ("last_offset", Value::from(offset.0)),
                ],
            );
        }
    }

    fn transaction_index(&mut self, path: &Path, bytes: &[u8]) {
        let (rows, rest) = bytes.as_chunks::<TRANSACTION_ROW_BYTES>();
        for (at, row) in rows.iter().enumerate() {
            match AbortedTransaction::decode(row) {
                Some(row) => self.rows.row("aborted", decode::aborted(&row)),
                None => {
                    let position = to_u64(at * TRANSACTION_ROW_BYTES);
                    self.damage(path, Some(position), "a row of an unknown version");
                }
            }
        }
        if !rest.is_empty() {
            let position = to_u64(bytes.len() - rest.len());
            self.damage(path, Some(position), "the last row is cut short");
        }
    }

    fn snapshot(&mut self, path: &Path, bytes: &[u8]) {
        match ProducerStates::restore(bytes, 0) {
            Ok((states, valid_at)) => {
                self.rows.row(
                    "snapshot",
                    vec![
                        ("valid_at", Value::from(valid_at.0)),
                        ("producers", Value::from(to_u64(states.len()))),
                    ],
                );
                for producer in states.view() {
                    self.rows.row("producer", decode::producer(&producer));
                }
            }
            Err(error) => self.damage(path, None, &error.to_string()),
        }
    }

    fn epochs(&mut self, path: &Path, bytes: &[u8]) {
        let Some(epochs) = read_epochs(bytes) else {
            return self.damage(path, None, "it does not hold leader epochs");
        };
        for (epoch, offset) in epochs {
            self.rows.row(
                "epoch",
                vec![
                    ("leader_epoch", Value::from(epoch.0)),
                    ("first_offset", Value::from(offset.0)),
                ],
            );
        }
    }
}

fn what_of(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Segment(_) => "segment",
        FileKind::OffsetIndex(_) => "offset index",
        FileKind::TimeIndex(_) => "time index",
        FileKind::TransactionIndex(_) => "aborted transactions",
        FileKind::Snapshot(_) => "producers",
        FileKind::Epochs => "leader epochs",
        FileKind::LogStart => "log start",
        FileKind::Meta => "metadata",
        FileKind::RecoveryPoints => "recovery points",
        FileKind::Journal => "journal",
        FileKind::Mark => "mark",
        FileKind::Spare => "space kept for a full disk",
        FileKind::Unknown => "unknown",
    }
}
