//! Reads for operators, and the markers that they have written.

use super::Shard;
use crate::coordinator::Hosted;
use crate::inspection::{Inspected, Inspection};
use crate::message::{ReplyTo, ShardReply};
use crate::partition::Partition;
use crate::waiting::Held;
use tally_groups::Groups;
use tally_producer_state::Marker;
use tally_protocol::{ErrorCode, Now, PartitionId};
use tally_transactions::TransactionCoordinator;

impl Shard {
    /// Answers when all that was seen is durable, as every reply does.
    pub(super) fn inspect(&mut self, now: Now, id: PartitionId, what: Inspection, to: ReplyTo) {
        let seen = self.seen(now, id, what);
        self.reply(to, ShardReply::Inspected(seen));
    }

    fn seen(&self, now: Now, id: PartitionId, what: Inspection) -> Result<Inspected, ErrorCode> {
        Ok(match what {
            Inspection::Groups => Inspected::Groups(self.hosted_groups(id)?.list()),
            Inspection::Group(group) => Inspected::Group(self.hosted_groups(id)?.describe(&group)),
            Inspection::ConsumerGroup(group) => {
                Inspected::ConsumerGroup(self.hosted_groups(id)?.describe_consumer(&group))
            }
            Inspection::Transactions(filter) => {
                let coordinator = self.hosted_transactions(id)?;
                Inspected::Transactions(coordinator.list(now, &filter).collect())
            }
            Inspection::Transaction(transactional_id) => {
                let coordinator = self.hosted_transactions(id)?;
                Inspected::Transaction(coordinator.describe(&transactional_id))
            }
            Inspection::Note(transactional_id) => {
                let coordinator = self.hosted_transactions(id)?;
                Inspected::Note(coordinator.note(&transactional_id))
            }
            Inspection::SizeBytes => {
                if !self.partitions.contains_key(&id) {
                    return Err(self.absent(id));
                }
                Inspected::SizeBytes(self.journal.size_bytes(id))
            }
        })
    }

    fn hosted_groups(&self, id: PartitionId) -> Result<&Groups, ErrorCode> {
        match self.partitions.get(&id) {
            Some(Partition {
                hosted: Hosted::Groups(groups),
                ..
            }) => Ok(groups),
            _ => Err(ErrorCode::NotCoordinator),
        }
    }

    fn hosted_transactions(&self, id: PartitionId) -> Result<&TransactionCoordinator, ErrorCode> {
        match self.partitions.get(&id) {
            Some(Partition {
                hosted: Hosted::Transactions(coordinator),
                ..
            }) if coordinator.is_loading() => Err(ErrorCode::CoordinatorLoadInProgress),
            Some(Partition {
                hosted: Hosted::Transactions(coordinator),
                ..
            }) => Ok(coordinator),
            _ => Err(ErrorCode::NotCoordinator),
        }
    }

    /// What is remembered of producers (L-3).
    pub(super) fn describe_producers(&mut self, id: PartitionId, to: ReplyTo) {
        let producers = self
            .partition(id)
            .map(|partition| partition.producers.describe());
        self.reply(to, ShardReply::Producers(producers));
    }

    /// A marker that an operator orders (M-10, L-4); who asked hears of it when it is durable.
    pub(super) fn write_marker(&mut self, now: Now, id: PartitionId, marker: &Marker, to: ReplyTo) {
        let written = self.try_append_marker(now, id, marker);
        let ticket = written.ok().flatten();
        let reply = ShardReply::Marker(written.map(drop));
        match ticket {
            Some(_) => self.hold(ticket, Held::Reply(to, reply)),
            None => self.reply(to, reply),
        }
    }
}
