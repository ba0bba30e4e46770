//! Offsets: where they are, and which leader epoch ends where.

use super::Shard;
use crate::message::{EpochEnd, Isolation, OffsetLookup, OffsetQuery, Unread};
use crate::partition::unread;
use tally_protocol::{ErrorCode, LeaderEpoch, Offset, PartitionId, batch};
use tally_storage::{Slice, StorageError};

impl Shard {
    pub(super) fn find_offset(
        &mut self,
        id: PartitionId,
        query: OffsetQuery,
        isolation: Isolation,
        current_leader_epoch: LeaderEpoch,
    ) -> Result<OffsetLookup, Unread> {
        let partition = self.partitions.get(&id).ok_or_else(|| self.absent(id))?;
        partition.check_leader_epoch(current_leader_epoch)?;
        let log_start = self.journal.log_start(id);
        let upper = match isolation {
            Isolation::ReadUncommitted => partition.high_watermark,
            Isolation::ReadCommitted => partition.last_stable_offset(log_start),
        };
        let batch = match query {
            OffsetQuery::Latest => {
                return Ok(OffsetLookup::At {
                    offset: upper,
                    leader_epoch: partition.settings.leader_epoch,
                });
            }
            OffsetQuery::Earliest => {
                let leader_epoch = self
                    .journal
                    .leader_epoch_at_start(id)
                    .unwrap_or(LeaderEpoch::NONE);
                return Ok(OffsetLookup::At {
                    offset: log_start,
                    leader_epoch,
                });
            }
            OffsetQuery::MaxTimestamp => self.journal.max_timestamp_batch(id, upper),
            OffsetQuery::AtOrAfter(timestamp_ms) => {
                self.journal.find_by_time(id, timestamp_ms, upper)
            }
        };
        let found = batch.and_then(|batch| {
            let Some(batch) = batch else {
                return Ok(OffsetLookup::Nowhere);
            };
            Ok(OffsetLookup::InBatch {
                // The header of `batch` has just been looked at.
                otherwise: self.batch_behind(id, &batch, query, (log_start, upper))?,
                batch,
                log_start,
                upper,
            })
        });
        found.map_err(|error| unread(id, error))
    }

    /// What to look at behind `batch` if the log start lies inside it: its record may be one of those that are gone.
    fn batch_behind(
        &self,
        id: PartitionId,
        batch: &[u8],
        query: OffsetQuery,
        (log_start, upper): (Offset, Offset),
    ) -> Result<Option<Slice>, StorageError> {
        let OffsetQuery::AtOrAfter(timestamp_ms) = query else {
            return Ok(None);
        };
        match batch::parse_header(batch) {
            Ok(header) if header.base_offset < log_start => {
                let from = header.last_offset().next();
                self.journal
                    .find_by_time_from(id, timestamp_ms, from, upper)
            }
            _ => Ok(None),
        }
    }

    pub(super) fn find_epoch_end(
        &self,
        id: PartitionId,
        epoch: LeaderEpoch,
        current_leader_epoch: LeaderEpoch,
    ) -> Result<EpochEnd, ErrorCode> {
        let partition = self.partitions.get(&id).ok_or_else(|| self.absent(id))?;
        partition.check_leader_epoch(current_leader_epoch)?;
        Ok(partition.epoch_end(&self.journal, epoch))
    }
}
