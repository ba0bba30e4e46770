//! The verdict on each batch of a pass (LR-73 to LR-76, C-5 to C-9).
//!
//! A pass shows the batches twice: first those that are not compacted yet, to note the highest offset of each key, then
//! all of them, to be judged. Both times in the order of the log.

use super::key_map::{Full, KeyMap};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use tally_producer_state::{ABORTED_ROW_BYTES, AbortedTransaction, Traces};
use tally_protocol::batch::DELETE_HORIZON_BIT;
use tally_protocol::rewrite::{Unpacked, header_only};
use tally_protocol::{BatchHeader, BatchView, Offset, ProducerId, control, planted};
use tally_storage::{Cleaner, Fate};

/// The aborted transactions of a partition, by producer and first offset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aborted(BTreeMap<(ProducerId, Offset), AbortedTransaction>);

impl Aborted {
    pub(crate) fn add(&mut self, row: AbortedTransaction) {
        self.0.insert((row.producer_id, row.first_offset), row);
    }

    /// The aborted transaction of `producer_id` that `offset` belongs to, its marker included.
    fn holding(&self, producer_id: ProducerId, offset: Offset) -> Option<&AbortedTransaction> {
        let before = self.0.range(..=(producer_id, offset)).next_back();
        let row = before.map(|(_, row)| row)?;
        (row.producer_id == producer_id && row.last_offset >= offset).then_some(row)
    }
}

/// What a pass knows.
#[derive(Debug)]
pub(crate) struct Rules {
    now_ms: i64,
    delete_retention_ms: i64,
    keys: KeyMap,
    /// Records from here on are not in `keys`: all of them stay.
    upto: Offset,
    aborted: Aborted,
    traces: Traces,
    /// The last marker noted of the producers in `traces.epochs`.
    last_markers: BTreeMap<ProducerId, Offset>,
    /// The producers with data since their last marker.
    with_data: BTreeSet<ProducerId>,
    rows: Vec<[u8; ABORTED_ROW_BYTES]>,
}

/// The log and the index of aborted transactions say different things: nothing may be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Inconsistent {
    pub(crate) marker_at: Offset,
}

impl Rules {
    /// Before anything is noted; `upto` is where the pass ends if the keys of all of it find room.
    pub(crate) fn new(
        (now_ms, delete_retention_ms): (i64, i64),
        keys: KeyMap,
        upto: Offset,
        (aborted, traces): (Aborted, Traces),
    ) -> Rules {
        Rules {
            now_ms,
            delete_retention_ms,
            keys,
            upto,
            aborted,
            traces,
            last_markers: BTreeMap::new(),
            with_data: BTreeSet::new(),
            rows: Vec::new(),
        }
    }

    /// Where the keys end: the next pass begins there.
    pub(crate) fn upto(&self) -> Offset {
        self.upto
    }

    /// How many keys were noted.
    pub(crate) fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Notes the keys of a batch, the next one of those that are not compacted (C-5). Breaks when there is no more room.
    pub(crate) fn note(&mut self, batch: &BatchView<'_>) -> Result<ControlFlow<()>, Inconsistent> {
        let header = batch.header();
        if header.is_control() {
            self.note_marker(batch)?;
            return Ok(ControlFlow::Continue(()));
        }
        if header.is_transactional() {
            self.with_data.insert(header.producer_id);
            if self.is_aborted(header) && !planted::is("c5") {
                return Ok(ControlFlow::Continue(()));
            }
        }
        let Ok(unpacked) = Unpacked::new(*batch) else {
            // It will be kept as it is.
            return Ok(ControlFlow::Continue(()));
        };
        for record in unpacked.records() {
            let Ok(record) = record else { break };
            let offset = header.base_offset.plus(i64::from(record.offset_delta));
            if let Some(key) = record.key
                && self.keys.put(key, offset) == Err(Full)
            {
                self.upto = offset;
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn note_marker(&mut self, batch: &BatchView<'_>) -> Result<(), Inconsistent> {
        let header = batch.header();
        let Some((commit, _)) = control::parse_marker(batch) else {
            return Ok(());
        };
        let at = header.base_offset;
        let had_data = self.with_data.remove(&header.producer_id);
        let row = self.aborted.holding(header.producer_id, at);
        let is_listed = row.is_some_and(|row| row.last_offset == at);
        if had_data && is_listed == commit {
            return Err(Inconsistent { marker_at: at });
        }
        let trace = (header.producer_id, header.producer_epoch);
        if self.traces.epochs.binary_search(&trace).is_ok() {
            self.last_markers.insert(header.producer_id, at);
        }
        Ok(())
    }

    /// All keys are noted: judging begins at the first batch of the log.
    pub(crate) fn noted(&mut self) {
        self.with_data.clear();
    }

    fn is_aborted(&self, header: &BatchHeader) -> bool {
        self.aborted
            .holding(header.producer_id, header.base_offset)
            .is_some()
    }

    /// LR-75, C-7: a marker goes when nothing of its transaction is left before it, and its horizon has passed.
    fn judge_marker(&mut self, batch: &BatchView<'_>, commit: bool, is_last: bool) -> Fate {
        let header = batch.header();
        let at = header.base_offset;
        let had_data = self.with_data.remove(&header.producer_id);
        let is_beyond = at >= self.upto;
        if had_data || is_beyond {
            let row = self.aborted.holding(header.producer_id, at);
            if let Some(row) = row.filter(|row| !commit && row.last_offset == at) {
                self.rows.push(row.encode());
            }
            return Fate::Keep;
        }
        if self.is_only_trace(header) {
            return Fate::Keep;
        }
        if header.attributes & DELETE_HORIZON_BIT == 0 {
            return self.stamped(batch).map_or(Fate::Keep, Fate::Replace);
        }
        if self.now_ms < header.base_timestamp || is_last {
            return Fate::Keep;
        }
        Fate::Drop
    }

    /// C-8: whether this marker is what tells a live producer's epoch.
    fn is_only_trace(&self, header: &BatchHeader) -> bool {
        let trace = (header.producer_id, header.producer_epoch);
        let last = self.last_markers.get(&header.producer_id);
        self.traces.epochs.binary_search(&trace).is_ok()
            && last.is_none_or(|last| header.base_offset >= *last)
    }

    fn horizon_ms(&self) -> i64 {
        self.now_ms.saturating_add(self.delete_retention_ms)
    }

    fn stamped(&self, batch: &BatchView<'_>) -> Option<Vec<u8>> {
        let unpacked = Unpacked::new(*batch).ok()?;
        unpacked.rewrite(Some(self.horizon_ms()), |_| true).ok()
    }

    fn judge_data(&mut self, batch: &BatchView<'_>, is_last: bool) -> Fate {
        let header = batch.header();
        if header.is_transactional() {
            self.with_data.insert(header.producer_id);
        }
        if header.base_offset >= self.upto {
            return Fate::Keep;
        }
        let is_aborted = header.is_transactional() && self.is_aborted(header);
        if is_aborted || header.records_count == 0 {
            return self.leave(batch, is_last);
        }
        self.judge_records(batch, is_last).unwrap_or_else(|| {
            tracing::warn!(offset = %header.base_offset, "a batch that can't be read is kept by compaction");
            Fate::Keep
        })
    }

    /// LR-73, LR-74; `None` if the batch can't be read or written anew.
    fn judge_records(&self, batch: &BatchView<'_>, is_last: bool) -> Option<Fate> {
        let header = batch.header();
        let has_horizon = header.attributes & DELETE_HORIZON_BIT != 0;
        let deletions_stay = !has_horizon || self.now_ms < header.base_timestamp;
        let unpacked = Unpacked::new(*batch).ok()?;
        let mut stays = Vec::new();
        let mut deletions = false;
        for record in unpacked.records() {
            let record = record.ok()?;
            let offset = header.base_offset.plus(i64::from(record.offset_delta));
            let is_deletion = record.value.is_none();
            let is_wanted = offset >= self.upto
                || record
                    .key
                    .is_some_and(|key| self.keys.get(key).is_none_or(|latest| latest <= offset));
            let stay = is_wanted && (!is_deletion || deletions_stay || offset >= self.upto);
            deletions |= stay && is_deletion;
            stays.push(stay);
        }
        let kept = stays.iter().filter(|stay| **stay).count();
        if kept == 0 {
            return Some(self.leave(batch, is_last));
        }
        // The deletions behind the keys have not been compacted yet, and their time has not begun.
        let is_whole = header.last_offset() < self.upto;
        let stamp = deletions && !has_horizon && is_whole;
        if kept == stays.len() && !stamp {
            return Some(Fate::Keep);
        }
        let mut stays = stays.into_iter();
        let horizon_ms = stamp.then(|| self.horizon_ms());
        let rewritten = unpacked.rewrite(horizon_ms, |_| stays.next().unwrap_or(true));
        rewritten.ok().map(Fate::Replace)
    }

    /// What becomes of a batch without records: C-8.
    fn leave(&self, batch: &BatchView<'_>, is_last: bool) -> Fate {
        let header = batch.header();
        let trace = (header.producer_id, header.base_offset);
        if !is_last && self.traces.batches.binary_search(&trace).is_err() {
            Fate::Drop
        } else if header.records_count == 0 {
            Fate::Keep
        } else {
            Fate::Replace(header_only(batch))
        }
    }
}

impl Cleaner for Rules {
    fn judge(&mut self, batch: &BatchView<'_>, is_last: bool) -> Fate {
        let header = batch.header();
        if !header.is_control() {
            return self.judge_data(batch, is_last);
        }
        match control::parse_marker(batch) {
            Some((commit, _)) => self.judge_marker(batch, commit, is_last),
            None if header.records_count == 0 => self.leave(batch, is_last),
            // M-2: a control record of another type.
            None => Fate::Keep,
        }
    }

    fn take_rows(&mut self) -> Vec<[u8; ABORTED_ROW_BYTES]> {
        std::mem::take(&mut self.rows)
    }
}
