//! One pass over one partition, to be run away from the shard, group by group.

use super::key_map::KeyMap;
use super::rules::{Aborted, Inconsistent, Rules};
use std::ops::ControlFlow;
use tally_producer_state::Traces;
use tally_protocol::{Offset, PartitionId};
use tally_storage::{CleanedSegment, CompactionError, CompactionInput};

/// What a pass is told.
#[derive(Debug)]
pub(crate) struct Order {
    /// The wall clock as it begins, milliseconds since 1970.
    pub(crate) now_ms: i64,
    pub(crate) delete_retention_ms: i64,
    /// Where compaction has not been yet.
    pub(crate) first_dirty: Offset,
    pub(crate) aborted: Aborted,
    pub(crate) traces: Traces,
    pub(crate) keys_bytes: usize,
    pub(crate) seed: u64,
}

/// A pass: [`CompactionJob::run`] takes time and belongs on a thread of its own, then the job goes back to its shard, which
/// takes over what is finished and gives it out again for the next group.
#[derive(Debug)]
pub struct CompactionJob {
    input: CompactionInput,
    order: Option<Order>,
    rules: Option<Rules>,
    groups_done: usize,
    outcome: Option<Result<CleanedSegment, JobError>>,
}

/// Why a pass ends early.
#[derive(Debug)]
pub(crate) enum JobError {
    Storage(CompactionError),
    Inconsistent(Inconsistent),
}

impl From<CompactionError> for JobError {
    fn from(error: CompactionError) -> JobError {
        JobError::Storage(error)
    }
}

impl CompactionJob {
    pub(crate) fn new(input: CompactionInput, order: Order) -> CompactionJob {
        CompactionJob {
            input,
            order: Some(order),
            rules: None,
            groups_done: 0,
            outcome: None,
        }
    }

    /// Whose pass it is.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.input.partition()
    }

    /// Rewrites the next group; notes the keys before the first one.
    pub fn run(&mut self) {
        self.outcome = Some(self.step());
    }

    fn step(&mut self) -> Result<CleanedSegment, JobError> {
        let rules = match (&mut self.rules, self.order.take()) {
            (Some(rules), _) => rules,
            (empty, Some(order)) => empty.insert(note(&self.input, order)?),
            (None, None) => return Err(CompactionError::Stopped.into()),
        };
        let groups = self.input.groups(rules.upto());
        let group = groups.get(self.groups_done).cloned();
        let group = group.ok_or(CompactionError::Gone)?;
        self.groups_done += 1;
        let is_last = self.groups_done == groups.len();
        Ok(self.input.rewrite(group, is_last, rules)?)
    }

    /// What the last run made, and where compaction has come to if it was the last group.
    pub(crate) fn take_outcome(&mut self) -> (Result<CleanedSegment, JobError>, Option<Offset>) {
        let outcome = self.outcome.take();
        let outcome = outcome.unwrap_or_else(|| Err(CompactionError::Stopped.into()));
        let done = self
            .rules
            .as_ref()
            .filter(|rules| self.groups_done == self.input.groups(rules.upto()).len());
        (outcome, done.map(Rules::upto))
    }

    /// How many keys were noted.
    pub(crate) fn key_count(&self) -> usize {
        self.rules.as_ref().map_or(0, Rules::key_count)
    }
}

fn note(input: &CompactionInput, order: Order) -> Result<Rules, JobError> {
    let upto = input
        .segments()
        .last()
        .map_or(Offset::ZERO, |last| last.end);
    let mut rules = Rules::new(
        (order.now_ms, order.delete_retention_ms),
        KeyMap::new(order.keys_bytes, order.seed),
        upto,
        (order.aborted, order.traces),
    );
    let mut refused = None;
    input.visit(order.first_dirty, &mut |batch| match rules.note(batch) {
        Ok(flow) => flow,
        Err(error) => {
            refused = Some(error);
            ControlFlow::Break(())
        }
    })?;
    rules.noted();
    if let Some(error) = refused {
        return Err(JobError::Inconsistent(error));
    }
    input.sync()?;
    Ok(rules)
}
