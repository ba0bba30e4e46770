//! What the run has been told, and what a disk may therefore hold after it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use tally_protocol::{Offset, PartitionId};
use tally_storage::Durability;

/// One appended batch.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) bytes: Vec<u8>,
    /// It decides over others: a control batch, or any of the partition of decisions.
    pub(crate) decides: bool,
}

/// One partition.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) batches: Vec<Batch>,
    /// Batches whose append has returned.
    pub(crate) placed: usize,
    /// The log start asked for, and the one that is certain.
    pub(crate) start_asked: Offset,
    pub(crate) start: Offset,
}

impl Log {
    pub(crate) fn new() -> Log {
        Log {
            batches: Vec::new(),
            placed: 0,
            start_asked: Offset::ZERO,
            start: Offset::ZERO,
        }
    }

    pub(crate) fn placed_end(&self) -> Offset {
        match self.placed {
            0 => self
                .batches
                .first()
                .map_or(self.start_asked, |first| first.base),
            placed => self.batches[placed - 1].end,
        }
    }
}

/// Bytes that were handed over.
#[derive(Clone, Debug)]
pub(crate) struct HandedOver {
    pub(crate) ticket: u64,
    pub(crate) partition: PartitionId,
    pub(crate) end: Offset,
}

/// Everything that is known at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) durability: Durability,
    /// The partitions there are, by their number.
    pub(crate) ids: Vec<PartitionId>,
    pub(crate) logs: BTreeMap<PartitionId, Log>,
    /// How many partitions took the place of deleted ones.
    pub(crate) lives: u64,
    /// Partitions that were deleted in this run, with what they held.
    pub(crate) deleting: Vec<PartitionId>,
    pub(crate) handed: Vec<HandedOver>,
    /// Everything up to this ticket was said to be synced.
    pub(crate) synced: u64,
}

/// What was found of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) batches: Vec<(Offset, Vec<u8>)>,
}

pub(crate) type Disk = BTreeMap<PartitionId, Found>;

impl Model {
    /// What is wrong with a disk that was found.
    pub(crate) fn check(&self, found: &Disk, was_killed: bool) -> Result<(), String> {
        for (id, log) in &self.logs {
            if self.deleting.contains(id) {
                continue;
            }
            let found = &found[id];
            self.check_contents(*id, log, found, was_killed)?;
        }
        self.check_synced(found)?;
        self.check_order(found)
    }

    fn check_contents(
        &self,
        id: PartitionId,
        log: &Log,
        found: &Found,
        was_killed: bool,
    ) -> Result<(), String> {
        let Found {
            start,
            end,
            batches,
        } = found;
        if *start < log.start || *start > log.start_asked.max(log.start) {
            // Where the log start was not asked for, it is that of the first segment.
            return Err(format!(
                "{id} starts at {start}, not in {}..={}",
                log.start, log.start_asked
            ));
        }
        if was_killed && *end < log.placed_end() {
            return Err(format!(
                "{id} ends at {end} after a kill, {} was in place",
                log.placed_end()
            ));
        }
        let ends_somewhere = *end == *start || log.batches.iter().any(|batch| batch.end == *end);
        if !ends_somewhere {
            return Err(format!("{id} ends at {end}, within a batch"));
        }
        let wanted: Vec<(Offset, Vec<u8>)> = log
            .batches
            .iter()
            .filter(|batch| batch.end > *start && batch.end <= *end)
            .map(|batch| (batch.base, batch.bytes.clone()))
            .collect();
        match wanted == *batches {
            true => Ok(()),
            false => Err(format!(
                "{id} from {start} to {end} holds other batches than were written"
            )),
        }
    }

    fn survives(&self, handed: &HandedOver, found: &Disk) -> bool {
        if !self.logs.contains_key(&handed.partition) || self.deleting.contains(&handed.partition) {
            return true;
        }
        let found = &found[&handed.partition];
        found.end >= handed.end || found.start >= handed.end
    }

    fn check_synced(&self, found: &Disk) -> Result<(), String> {
        for handed in &self.handed {
            if handed.ticket <= self.synced && !self.survives(handed, found) {
                return Err(format!(
                    "{handed:?} was synced (up to ticket {}), and is not there: {}",
                    self.synced,
                    ends(found)
                ));
            }
        }
        Ok(())
    }

    /// What is there that was handed over late means that all is there that was handed over before.
    fn check_order(&self, found: &Disk) -> Result<(), String> {
        let lost = self
            .handed
            .iter()
            .filter(|handed| !self.survives(handed, found));
        let Some(first_lost) = lost.map(|handed| handed.ticket).min() else {
            return Ok(());
        };
        for (id, log) in &self.logs {
            if self.deleting.contains(id) {
                continue;
            }
            let kept = Log::kept(log, &found[id]);
            for batch in kept.filter(|batch| batch.decides || self.durability == Durability::Always)
            {
                let covers =
                    |handed: &&HandedOver| handed.partition == *id && handed.end >= batch.end;
                let ticket = self
                    .handed
                    .iter()
                    .filter(covers)
                    .map(|handed| handed.ticket)
                    .min();
                if ticket.is_none_or(|ticket| ticket > first_lost) && !self.is_old(*id, batch) {
                    return Err(format!(
                        "{id} has the batch at {}, handed over with {ticket:?}, and {first_lost} is lost: {}",
                        batch.base,
                        ends(found)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether the batch was there when this run began.
    fn is_old(&self, id: PartitionId, batch: &Batch) -> bool {
        self.handed
            .iter()
            .any(|handed| handed.ticket == 0 && handed.partition == id && handed.end >= batch.end)
    }

    /// A partition is deleted, and another takes its place.
    pub(crate) fn replace(&mut self, old: PartitionId, new: PartitionId) -> PartitionId {
        self.lives += 1;
        self.logs.remove(&old);
        self.logs.insert(new, Log::new());
        let ids = self.ids.iter_mut().filter(|id| **id == old);
        ids.for_each(|id| *id = new);
        new
    }

    /// Goes on from a disk that was found: what it holds is there to stay.
    pub(crate) fn begin(&mut self, found: &Disk, durability: Durability) {
        self.durability = durability;
        self.synced = 0;
        self.handed.clear();
        for (id, log) in &mut self.logs {
            let Found { start, end, .. } = found[id];
            log.batches.retain(|batch| batch.end <= end);
            if log.batches.last().is_some_and(|last| last.end < end) || start == end {
                log.batches.clear();
            }
            log.placed = log.batches.len();
            log.start = start;
            log.start_asked = start;
            self.handed.push(HandedOver {
                ticket: 0,
                partition: *id,
                end,
            });
        }
    }
}

impl Log {
    fn kept<'a>(log: &'a Log, found: &Found) -> impl Iterator<Item = &'a Batch> + use<'a> {
        let (start, end) = (found.start, found.end);
        log.batches
            .iter()
            .filter(move |batch| batch.end > start && batch.end <= end)
    }
}

fn ends(found: &Disk) -> String {
    let mut text = String::new();
    for (id, found) in found {
        write!(text, "{} {}..{}; ", id.index, found.start, found.end).expect("a string");
    }
    text
}
