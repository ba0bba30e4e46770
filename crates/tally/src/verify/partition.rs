//! One partition: its segments from the first byte to the last, and what lies beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tally_producer_state::{
    AbortedTransaction, Flow, Marker, MarkerVerdict, ProducerStates, Refusal, Verdict, Verification,
};
use tally_protocol::ids::to_u64;
use tally_protocol::{BatchHeader, BatchView, Now, Offset, PartitionId, Sequence, control};
use tally_storage::{
    BatchAt, FileKind, SegmentReader, TRANSACTION_ROW_BYTES, file_kind, is_placeholder,
    read_epochs, read_log_start,
};

use super::coordinator::{Decisions, Owner};
use super::files::{self, EpochCheck, Indexes, Rows, check_rows};
use super::report::{Class, Mend, Open, Problem, Report, Totals};
use super::snapshot::{self, Knowledge};
use crate::args;
use crate::decode::{each_record, last_offset};
use crate::offline::{self, Directory, Role};

/// The time is no part of what is compared.
const NOW: Now = Now {
    monotonic_ms: 0,
    wall_ms: 0,
};

/// The files of a partition's directory.
#[derive(Default)]
struct Listing {
    segments: Vec<Offset>,
    snapshots: Vec<Offset>,
    beside: Vec<(Offset, String)>,
}

/// A partition that is being checked.
pub(super) struct PartitionCheck<'a> {
    report: &'a mut Report,
    decisions: &'a mut Decisions,
    directory: &'a Directory,
    id: PartitionId,
    path: PathBuf,
    role: Role,
    deep: bool,
    is_clean: bool,
    /// Compaction may have taken batches away from the segments that begin below it; never from the last.
    gaps_below: Offset,
    /// Batches are gone: what a replay says is not all.
    has_gaps: bool,
    /// The producers as a replay has them.
    states: ProducerStates,
    knowledge: Knowledge,
    /// Whether `states` can be compared with anything: nothing was damaged since it was known.
    is_known: bool,
    snapshots: BTreeMap<Offset, ProducerStates>,
    newest_snapshot: Offset,
    /// Where the log starts; nothing if the file can't be read that says it.
    start: Option<Offset>,
    /// Where the first batch begins.
    first: Option<Offset>,
    /// Where the next batch has to begin.
    expected: Option<Offset>,
    /// The segment that was walked last.
    before: Option<Offset>,
    held: Totals,
}

/// The segment that is being walked.
struct Segment<'s> {
    base: Offset,
    next: Option<Offset>,
    path: &'s Path,
    /// Offsets may be missing in it.
    gaps: bool,
    /// Its rows of aborted transactions, with whether the replay knew all that was open.
    rows: Vec<(AbortedTransaction, bool)>,
    /// The replay was known all through it.
    rows_known: bool,
    /// The whole of it was read.
    is_whole: bool,
}

impl<'a> PartitionCheck<'a> {
    pub(super) fn new(
        args: &args::VerifyLog,
        directory: &'a Directory,
        id: PartitionId,
        report: &'a mut Report,
        decisions: &'a mut Decisions,
    ) -> PartitionCheck<'a> {
        let topic = directory.topics.get(&id.topic);
        PartitionCheck {
            report,
            decisions,
            directory,
            id,
            path: directory.inspection.partition_path(id),
            role: directory.role(id),
            deep: args.deep,
            is_clean: directory.inspection.is_clean().unwrap_or(false),
            gaps_below: match args.compacted || topic.is_none() {
                true => Offset(i64::MAX),
                false => Offset::ZERO,
            },
            has_gaps: false,
            states: ProducerStates::new(0),
            knowledge: Knowledge::All,
            is_known: true,
            snapshots: BTreeMap::new(),
            newest_snapshot: Offset::ZERO,
            start: Some(Offset::ZERO),
            first: None,
            expected: None,
            before: None,
            held: Totals::default(),
        }
    }

    fn problem(&mut self, class: Class, file: &Path, what: &str) {
        self.report.problem(Problem::new(class, file, what));
    }

    /// A problem of a batch.
    fn batch_problem(&mut self, segment: &Segment<'_>, at: (u64, Option<Offset>), what: &str) {
        self.batch_damage(segment, at, what, Mend::Nothing);
    }

    /// A problem of a batch, and what mends it.
    fn batch_damage(
        &mut self,
        segment: &Segment<'_>,
        at: (u64, Option<Offset>),
        what: &str,
        mend: Mend,
    ) {
        let problem = Problem::new(Class::Damage, segment.path, what).at(at.0);
        let problem = match at.1 {
            Some(offset) => problem.offset(offset),
            None => problem,
        };
        self.report.problem(problem.mend(mend));
    }

    /// Something is missing from here on: what a replay would say of producers is not known.
    fn lose_track(&mut self) {
        self.is_known = false;
        if self.role == Role::Transactions {
            self.decisions.distrust();
        }
    }

    pub(super) fn run(mut self) {
        let listing = match offline::names(&self.path) {
            Ok(names) => self.sort(names),
            Err(error) => {
                let path = self.path.clone();
                return self.problem(Class::Damage, &path, &error.to_string());
            }
        };
        self.start = self.log_start(&listing);
        let first = listing.segments.first().copied();
        let log_start = self.start.or(first).unwrap_or(Offset::ZERO);
        let epochs_path = self.path.join("leader-epoch-checkpoint");
        let stored = self.stored_epochs(&epochs_path, &listing);
        let mut epochs = EpochCheck::new(&epochs_path, stored);
        self.read_snapshots(&listing);
        if listing
            .segments
            .first()
            .is_some_and(|base| *base > Offset::ZERO)
        {
            self.knowledge = Knowledge::Some;
        }
        for (at, base) in listing.segments.iter().enumerate() {
            let next = listing.segments.get(at + 1).copied();
            self.segment(*base, next, &mut epochs);
        }
        self.compare_snapshots(None);
        self.row_sums(&listing);
        self.end(log_start, &listing, &epochs);
    }

    fn sort(&mut self, names: Vec<String>) -> Listing {
        let mut listing = Listing::default();
        for name in names {
            match file_kind(&name) {
                FileKind::Segment(base) => listing.segments.push(base),
                FileKind::Snapshot(at) => listing.snapshots.push(at),
                FileKind::OffsetIndex(base)
                | FileKind::TimeIndex(base)
                | FileKind::TransactionIndex(base) => listing.beside.push((base, name)),
                FileKind::Epochs | FileKind::LogStart => {}
                FileKind::Mark if name == "txn-sums" => {}
                FileKind::Mark if name == "cleaner-checkpoint" => self.checkpoint(&name),
                FileKind::Mark if name == "swap" => {
                    let path = self.path.join(&name);
                    self.gaps_below = Offset(i64::MAX);
                    self.report
                        .note(&path, "compacted segments are not all in their places: the next start goes on with that");
                }
                FileKind::Meta
                | FileKind::RecoveryPoints
                | FileKind::Journal
                | FileKind::Mark
                | FileKind::Spare
                | FileKind::Unknown => {
                    let path = self.path.join(&name);
                    self.report
                        .note(&path, "not known to this version, not checked");
                }
            }
        }
        for (base, name) in &listing.beside {
            if !listing.segments.contains(base) {
                let path = self.path.join(name);
                // The log of a segment goes last, when all its other files have gone; only a power cut may keep others alone.
                match self.directory.inspection.unsynced_from(self.id) {
                    Ok(None) => {
                        let what =
                            "the segment that it belongs to is missing: what was in that is lost";
                        self.problem(Class::Damage, &path, what);
                    }
                    _ => self
                        .report
                        .note(&path, "its segment is gone: the next start removes it"),
                }
            }
        }
        listing
    }

    fn log_start(&mut self, listing: &Listing) -> Option<Offset> {
        let first = listing.segments.first().copied().unwrap_or(Offset::ZERO);
        let path = self.path.join("log-start");
        let Ok(bytes) = std::fs::read(&path) else {
            return Some(first);
        };
        match read_log_start(&bytes) {
            Some(offset) => {
                if format!("0\n{offset}\n").as_bytes() != bytes {
                    self.problem(Class::Damage, &path, "it is not as a broker writes it");
                }
                Some(offset.max(first))
            }
            None => {
                self.problem(Class::Damage, &path, "it does not hold an offset");
                None
            }
        }
    }

    fn stored_epochs(
        &mut self,
        path: &Path,
        listing: &Listing,
    ) -> Option<Vec<(tally_protocol::LeaderEpoch, Offset)>> {
        let Ok(bytes) = std::fs::read(path) else {
            if !listing.segments.is_empty() && self.is_clean {
                self.problem(Class::Cache, path, "the leader epochs are missing");
            }
            return None;
        };
        let stored = read_epochs(&bytes);
        let text = stored.as_ref().map(|stored| {
            let lines = stored
                .iter()
                .map(|(epoch, start)| format!("{epoch} {start}\n"));
            format!("0\n{}\n{}", stored.len(), lines.collect::<String>())
        });
        if text.is_none_or(|text| text.as_bytes() != bytes) {
            self.problem(
                Class::Cache,
                path,
                "it does not hold leader epochs as a broker writes them",
            );
            return None;
        }
        stored
    }

    fn read_snapshots(&mut self, listing: &Listing) {
        for at in &listing.snapshots {
            let path = self.path.join(format!("{:020}.snapshot", at.0));
            let bytes = std::fs::read(&path).unwrap_or_default();
            match ProducerStates::restore(&bytes, 0) {
                Ok((states, valid_at)) if valid_at == *at => {
                    self.snapshots.insert(*at, states);
                    self.newest_snapshot = *at;
                }
                Ok((_, valid_at)) => {
                    let what = format!("it is a snapshot of offset {valid_at}");
                    self.problem(Class::Cache, &path, &what);
                }
                Err(error) => self.problem(Class::Cache, &path, &error.to_string()),
            }
        }
    }

    /// How far compaction has been: two offsets.
    fn checkpoint(&mut self, name: &str) {
        let path = self.path.join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let numbers = text.strip_prefix("0\n").unwrap_or_default().lines();
        let numbers: Vec<i64> = numbers.filter_map(|line| line.parse().ok()).collect();
        match numbers[..] {
            [_, gaps_below] => self.gaps_below = self.gaps_below.max(Offset(gaps_below)),
            _ => self.problem(Class::Damage, &path, "it does not hold two offsets"),
        }
    }

    /// The checksums of the rows of aborted transactions. After a kill they may be behind: the next start sees to that.
    fn row_sums(&mut self, listing: &Listing) {
        let path = self.path.join("txn-sums");
        // A file that is missing has no line, and needs none if there are no rows.
        let bytes = std::fs::read(&path).unwrap_or_else(|_| b"0\n".to_vec());
        let mut rows = Vec::new();
        for base in &listing.segments {
            let file = self.path.join(format!("{:020}.txnindex", base.0));
            let bytes = std::fs::read(file).unwrap_or_default();
            rows.extend_from_slice(bytes.as_chunks::<TRANSACTION_ROW_BYTES>().0);
        }
        let what = files::wrong_sums(&bytes, &rows, &listing.snapshots);
        if let Some(what) = what.filter(|_| self.is_clean) {
            self.problem(Class::Cache, &path, what);
        }
    }

    fn segment(&mut self, base: Offset, next: Option<Offset>, epochs: &mut EpochCheck<'_>) {
        let file = |kind: &str| self.path.join(format!("{:020}.{kind}", base.0));
        let (path, offsets, times, rows) = (
            file("log"),
            file("index"),
            file("timeindex"),
            file("txnindex"),
        );
        let mut reader = match SegmentReader::open(&path) {
            Ok(reader) => reader,
            Err(error) => {
                self.lose_track();
                self.expected = next;
                return self.problem(Class::Damage, &path, &error.to_string());
            }
        };
        let gaps = self.gaps_below > base && next.is_some();
        let mut segment = Segment {
            base,
            next,
            path: &path,
            gaps,
            rows: Vec::new(),
            rows_known: self.is_known,
            is_whole: true,
        };
        self.begin_segment(&segment);
        let mut indexes = Indexes::new(base, &offsets, &times);
        self.walk(&mut reader, &mut segment, (&mut indexes, epochs));
        self.before = Some(base);
        self.held.segments += 1;
        self.held.bytes += reader.size();
        let is_complete = self.is_clean || next.is_some();
        if segment.is_whole {
            indexes.end(self.report, reader.size(), is_complete);
        }
        self.end_segment(&segment);
        if segment.rows_known && segment.is_whole {
            let end = next.or(self.expected).unwrap_or(Offset(i64::MAX));
            let rewritten_from = if self.is_clean {
                Offset(i64::MAX)
            } else {
                self.newest_snapshot
            };
            let expected = Rows {
                replayed: &segment.rows,
                span: (base, end),
                log_start: self.start.unwrap_or(Offset(i64::MAX)),
                gaps: self.has_gaps || self.knowledge == Knowledge::Some,
                rewritten_from,
            };
            if let Some(mended) = check_rows(self.report, &rows, &expected) {
                self.report.row_files.insert(rows, mended);
            }
        }
    }

    fn note_gap(&mut self) {
        self.has_gaps = true;
        if self.role == Role::Transactions {
            self.decisions.thin();
        }
    }

    fn begin_segment(&mut self, segment: &Segment<'_>) {
        match self.expected {
            Some(expected) if expected != segment.base => {
                if expected >= self.gaps_below || expected > segment.base {
                    let what = format!("the segment before ends at offset {expected}");
                    let mend = match self.before.filter(|_| expected < segment.base) {
                        Some(before) => Mend::Segment(before),
                        None => Mend::Nothing,
                    };
                    self.batch_damage(segment, (0, Some(segment.base)), &what, mend);
                    self.lose_track();
                }
                self.note_gap();
            }
            Some(_) | None => {}
        }
        self.expected = Some(segment.base);
    }

    fn end_segment(&mut self, segment: &Segment<'_>) {
        let Some(next) = segment.next else {
            return;
        };
        if !segment.is_whole {
            // Whatever is wrong with it is told: the next one is looked at by its own name.
            self.expected = Some(next);
        }
    }

    fn walk(
        &mut self,
        reader: &mut SegmentReader,
        segment: &mut Segment<'_>,
        beside: (&mut Indexes<'_>, &mut EpochCheck<'_>),
    ) {
        let (indexes, epochs) = beside;
        let mut position = 0;
        while position < reader.size() {
            let size = reader.size();
            let reason = match reader.batch_at(position) {
                Ok(BatchAt::Good(view)) => {
                    let bytes = to_u64(view.bytes().len());
                    if self.header(segment, position, view.header(), epochs) {
                        indexes.batch(self.report, position, view.header());
                        self.content(segment, position, &view);
                    } else {
                        segment.is_whole = false;
                        segment.rows_known = false;
                        self.lose_track();
                    }
                    position += bytes;
                    continue;
                }
                Ok(BatchAt::BadCrc(view)) => {
                    let (bytes, header) = (to_u64(view.bytes().len()), *view.header());
                    let what = "the batch checksum does not match";
                    let at = (position, Some(header.base_offset));
                    self.batch_damage(segment, at, what, Mend::Segment(segment.base));
                    self.skip(segment, &header);
                    position += bytes;
                    continue;
                }
                Ok(BatchAt::Broken(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            let cut = if self.is_clean {
                ""
            } else {
                ", the next start cuts them"
            };
            let what = format!(
                "{reason}; {} bytes from here are unreadable{cut}",
                size - position
            );
            let mend = Mend::Segment(segment.base);
            self.batch_damage(segment, (position, self.expected), &what, mend);
            segment.is_whole = false;
            segment.rows_known = false;
            self.lose_track();
            self.expected = None;
            return;
        }
    }

    /// Goes on behind a batch whose bytes are damaged, as far as its header can be believed.
    fn skip(&mut self, segment: &mut Segment<'_>, header: &BatchHeader) {
        segment.is_whole = false;
        segment.rows_known = false;
        self.lose_track();
        self.expected = match self.expected {
            Some(expected) if expected == header.base_offset && header.last_offset_delta >= 0 => {
                Some(Offset(last_offset(header).saturating_add(1)))
            }
            _ => None,
        };
    }

    /// Where the batch lies; returns whether what it holds can be believed.
    fn header(
        &mut self,
        segment: &Segment<'_>,
        position: u64,
        header: &BatchHeader,
        epochs: &mut EpochCheck<'_>,
    ) -> bool {
        let at = (position, Some(header.base_offset));
        let begins_log = self.held.batches == 0;
        self.held.batches += 1;
        let expected = self.expected.unwrap_or(header.base_offset);
        let follows = if segment.gaps {
            header.base_offset >= expected
        } else {
            header.base_offset == expected
        };
        let end = last_offset(header).saturating_add(1);
        let fits = segment.next.is_none_or(|next| end <= next.0)
            && (end - 1).saturating_sub(segment.base.0) <= i64::from(i32::MAX)
            && header.base_offset >= segment.base;
        if !follows || !fits || header.last_offset_delta < 0 {
            let what = format!(
                "the batch has the offsets {} to {}, expected {expected}",
                header.base_offset,
                end - 1
            );
            self.batch_damage(segment, at, &what, Mend::Segment(segment.base));
            self.expected = None;
            return false;
        }
        self.first.get_or_insert(header.base_offset);
        self.expected = Some(Offset(end));
        let full = header.records_count == header.last_offset_delta.saturating_add(1);
        if header.base_offset != expected {
            self.note_gap();
        } else if !full && self.role == Role::Transactions {
            self.decisions.thin();
        }
        let thinned = (0..=header.last_offset_delta).contains(&header.records_count);
        let sound = full || (segment.gaps && thinned) || is_placeholder(header);
        if !sound {
            let what = format!("the batch says it has {} records", header.records_count);
            self.batch_problem(segment, at, &what);
        }
        if let Some(what) = epochs.batch(header, begins_log, segment.gaps) {
            // It is that batch, the one before it, or the file: what the segments do not show is the file.
            self.batch_damage(segment, at, &what, Mend::Segment(segment.base));
            if let Some(before) = self.before.filter(|_| epochs.is_falling) {
                self.report.mended_by(segment.path, Mend::Segment(before));
            }
            if !epochs.is_falling {
                self.report.mended_by(segment.path, Mend::Epochs);
            }
        }
        true
    }

    /// What the batch holds.
    fn content(&mut self, segment: &mut Segment<'_>, position: u64, view: &BatchView<'_>) {
        let header = view.header();
        self.compare_snapshots(Some(header.base_offset));
        if is_placeholder(header) && !segment.gaps {
            return self.placeholder(segment, header);
        }
        self.held.records += u64::try_from(header.records_count).unwrap_or(0);
        if self.deep || self.role != Role::Data || header.is_control() {
            self.records(segment, position, view);
        }
        if header.is_control() {
            self.marker(segment, position, view);
        } else if header.has_producer() && self.is_known {
            self.data(segment, position, header);
        }
    }

    /// What was here is lost: what a replay says of producers is not all, until a snapshot says it.
    fn placeholder(&mut self, segment: &mut Segment<'_>, header: &BatchHeader) {
        let what = format!(
            "the offsets {} to {} are lost: a repair has put an empty batch in their place",
            header.base_offset,
            header.last_offset()
        );
        self.report.note(segment.path, &what);
        segment.rows_known = false;
        self.lose_track();
        // A snapshot of an offset among the lost ones does not know what came behind it.
        let lost = header.base_offset.next()..header.last_offset().next();
        self.snapshots.retain(|at, _| !lost.contains(at));
    }

    fn records(&mut self, segment: &Segment<'_>, position: u64, view: &BatchView<'_>) {
        let header = *view.header();
        let count = self.directory.topics.get(&self.id.topic);
        let place = (self.id.index, count.map_or(1, |topic| topic.partitions));
        let role = if header.is_control() {
            Role::Data
        } else {
            self.role
        };
        let (decisions, mut before, mut wrong) = (&mut *self.decisions, -1, None);
        let mut found = 0;
        let read = each_record(view, |record| {
            found += 1;
            let rises =
                record.offset_delta > before && record.offset_delta <= header.last_offset_delta;
            before = record.offset_delta;
            let what = if rises {
                decisions.record(role, record, place).err()
            } else {
                Some("the records' offsets are out of order".to_owned())
            };
            wrong = wrong.take().or(what);
        });
        if let Some(what) = read.err().map(|error| error.to_string()).or(wrong) {
            self.batch_problem(segment, (position, Some(header.base_offset)), &what);
        }
    }

    fn marker(&mut self, segment: &mut Segment<'_>, position: u64, view: &BatchView<'_>) {
        let header = view.header();
        let at = (position, Some(header.base_offset));
        let Some((commit, coordinator_epoch)) = control::parse_marker(view) else {
            if !segment.gaps {
                let what = format!(
                    "a control batch of an unknown type at offset {}",
                    header.base_offset
                );
                self.report.note(segment.path, &what);
            }
            return;
        };
        self.held.markers += 1;
        let producer = (header.producer_id, header.producer_epoch);
        if self.decisions.contradicts(producer.0, producer.1, commit) {
            let says = if commit { "COMMIT" } else { "ABORT" };
            let what = format!(
                "the marker of producer {} epoch {} says {says}, its coordinator decided otherwise",
                producer.0, producer.1
            );
            self.batch_problem(segment, at, &what);
        }
        if !self.is_known {
            return;
        }
        let marker = Marker {
            producer_id: producer.0,
            producer_epoch: producer.1,
            coordinator_epoch,
            commit,
            transaction_version: 0,
        };
        if let MarkerVerdict::Refuse(refusal) = self.states.check_marker(&marker) {
            let what = format!(
                "the marker of producer {} would be refused: {refusal:?}",
                producer.0
            );
            self.batch_problem(segment, at, &what);
        }
        let row = self.states.apply_marker(header.base_offset, &marker, NOW);
        self.states.high_watermark(header.base_offset.next());
        let knows_all = self.knowledge == Knowledge::All;
        segment.rows.extend(row.map(|row| (row, knows_all)));
    }

    /// A batch of a producer: it has to be one that the partition would take.
    fn data(&mut self, segment: &Segment<'_>, position: u64, header: &BatchHeader) {
        if !self.has_gaps {
            let verdict = self.verdict(header);
            let what = match verdict {
                Verdict::Append => None,
                Verdict::Duplicate { base_offset, .. } => Some(format!(
                    "it is written a second time, first at offset {base_offset}"
                )),
                Verdict::Refuse(refusal) => Some(format!("it would be refused: {refusal:?}")),
            };
            if let Some(what) = what {
                let what = format!(
                    "the batch of producer {} epoch {} sequence {}: {what}",
                    header.producer_id, header.producer_epoch, header.base_sequence
                );
                self.batch_problem(segment, (position, Some(header.base_offset)), &what);
            }
        }
        self.states.apply(header.base_offset, header, NOW);
    }

    fn verdict(&mut self, header: &BatchHeader) -> Verdict {
        if header.producer_epoch.0 < 0 {
            return Verdict::Refuse(Refusal::InvalidProducerEpoch);
        }
        if !header.is_transactional() {
            return self.states.check(header, None);
        }
        let (id, epoch) = (header.producer_id, header.producer_epoch);
        // Without the rules of the second protocol's start: a transaction's first batch may have been deleted.
        let asked = self
            .states
            .begin_verification(id, epoch, Sequence::NONE, Flow::Tv1, NOW);
        match asked {
            Verification::NotNeeded => self.states.check(header, None),
            Verification::Needed(guard) => self.states.check(header, Some(guard)),
            Verification::Refuse(refusal) => Verdict::Refuse(refusal),
        }
    }

    /// Compares the snapshots at or below an offset, or all that are left, with what is replayed so far.
    fn compare_snapshots(&mut self, upto: Option<Offset>) {
        while let Some(at) = self.snapshots.first_key_value().map(|(at, _)| *at)
            && upto.is_none_or(|upto| at <= upto)
        {
            let Some(stored) = self.snapshots.remove(&at) else {
                return;
            };
            let path = self.path.join(format!("{:020}.snapshot", at.0));
            let end = self.expected.unwrap_or(at);
            if upto.is_none() && at > end {
                let what = format!("the log ends at offset {end}, before it");
                let problem = Problem::new(Class::Cache, &path, &what);
                self.report.problem(problem.mend(self.mends_end()));
                continue;
            }
            let knowledge = if self.has_gaps {
                Knowledge::Some
            } else {
                self.knowledge
            };
            let differs = self
                .is_known
                .then(|| snapshot::difference(&self.states, &stored, knowledge))
                .flatten();
            if let Some(what) = differs {
                self.report
                    .problem(Problem::new(Class::Cache, &path, &what).offset(at));
            } else if !self.is_known || self.knowledge == Knowledge::Some {
                // It knows more than the replay: on with what it says.
                self.states = stored;
                self.is_known = true;
                self.knowledge = Knowledge::All;
            }
        }
    }

    fn end(mut self, log_start: Offset, listing: &Listing, epochs: &EpochCheck<'_>) {
        if let Some(end) = self.expected {
            epochs.end(self.report, end, self.is_clean);
            // Where the file of the log start can't be read, the leader epochs are all that says it.
            if self.start.is_some() {
                self.check_start(log_start, end, epochs);
            }
        } else if listing.segments.is_empty() {
            self.expected = Some(log_start);
        }
        if self.is_known {
            self.open_transactions();
        }
        let name = self.directory.name(self.id);
        self.report
            .partition(&name, (log_start, self.expected), &self.held);
    }

    /// The log start against the log's end and the first leader epoch, which begins there too: or, where compaction has taken
    /// the first batches and the epochs were made again of the others, with the first that is left.
    fn check_start(&mut self, log_start: Offset, end: Offset, epochs: &EpochCheck<'_>) {
        let path = self.path.join("log-start");
        if log_start > end {
            let what = format!("the log starts at offset {log_start}, behind its end at {end}");
            // A log that was stopped clean reaches its start: it is the file that is damaged, and the epochs tell what it said.
            let told = epochs.stored.as_ref().and_then(|stored| stored.first());
            let mend = match told {
                Some((_, start)) if self.is_clean && *start <= end => Mend::Start(*start),
                _ => self.mends_end(),
            };
            let problem = Problem::new(Class::Damage, &path, &what);
            return self.report.problem(problem.mend(mend));
        }
        let Some((_, start)) = epochs.stored.as_ref().and_then(|stored| stored.first()) else {
            return;
        };
        let first = self.first.unwrap_or(log_start);
        if *start > log_start.max(first) || (self.is_clean && *start < log_start) {
            let what =
                format!("the log starts at offset {log_start}, its first leader epoch at {start}");
            let problem = Problem::new(Class::Damage, &path, &what);
            self.report
                .problem(problem.offset(log_start).mend(Mend::Epochs));
        }
    }

    /// What mends a log that ends before something says it does. After a power cut that is no damage of the log.
    fn mends_end(&self) -> Mend {
        let unsynced = self.directory.inspection.unsynced_from(self.id);
        match self.before.filter(|_| matches!(unsynced, Ok(None))) {
            Some(last) => Mend::Segment(last),
            None => Mend::ByFile,
        }
    }

    fn open_transactions(&mut self) {
        let name = self.directory.name(self.id);
        let topic = self.directory.topics.get(&self.id.topic);
        let topic = topic.map_or(String::new(), |topic| topic.name.clone());
        let open: Vec<_> = self.states.open_transactions().collect();
        for (producer, epoch, first) in open {
            self.held.open += 1;
            let owner = self.decisions.owner(producer, &topic, self.id.index);
            let (owner, is_hanging) = match owner {
                Owner::Unknown => (None, false),
                Owner::Known(id, state) => (Some((id, state)), false),
                Owner::Hanging(owner) => (owner, true),
            };
            let (id, state) = owner.map_or((None, None), |(id, state)| (Some(id), Some(state)));
            if is_hanging {
                let what = format!(
                    "the transaction of producer {producer} is hanging: no coordinator will end it"
                );
                let path = self.path.clone();
                let problem = Problem::new(Class::Damage, &path, &what).offset(first);
                self.report.problem(problem.mend(Mend::Nothing));
            }
            let open = Open {
                producer_id: producer.0,
                producer_epoch: epoch.0,
                first,
                owner: id,
                state,
            };
            self.report.open(&name, &open);
        }
    }
}
