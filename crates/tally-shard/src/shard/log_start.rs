//! Moving a log start: DeleteRecords and retention.
//!
//! A start replays from the log start on, and must not forget the producers of what lies below (D-10). So a snapshot of them is
//! written first, and the log start moves when nothing can take that snapshot any more: where the mode keeps records over a
//! power cut, when the log is synced up to it, as a snapshot above what a power cut leaves of the log is void. On a full disk
//! a snapshot that is there serves, and the log start goes up to that: what is removed then makes room for another. Where
//! there is none nothing moves (56).

use super::Shard;
use crate::message::{Outbox, ReplyTo, ShardReply};
use crate::waiting::{Held, Raise};
use tally_producer_state::ProducerStates;
use tally_protocol::{ErrorCode, Offset, PartitionId};
use tally_storage::StorageError;

impl Shard {
    pub(super) fn delete_records(&mut self, id: PartitionId, before: Option<Offset>, to: ReplyTo) {
        match self.may_delete(id, before) {
            Ok((log_start, before)) if before <= log_start => {
                self.reply(to, ShardReply::Deleted(Ok(log_start)));
            }
            Ok((_, before)) => {
                if let Err(error) = self.raise_log_start(id, before, Some(to)) {
                    self.not_raised(id, &error, Some(to));
                }
            }
            Err(code) => self.reply(to, ShardReply::Deleted(Err(code))),
        }
    }

    /// The log start, and where it may move.
    fn may_delete(
        &self,
        id: PartitionId,
        before: Option<Offset>,
    ) -> Result<(Offset, Offset), ErrorCode> {
        let partition = self.partitions.get(&id).ok_or(self.absent(id))?;
        let before = before.unwrap_or(partition.high_watermark);
        if before < Offset::ZERO || before > partition.high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        Ok((self.journal.log_start(id), before))
    }

    fn not_raised(&mut self, id: PartitionId, error: &StorageError, to: Option<ReplyTo>) {
        tracing::error!(partition = %id, %error, "log start not raised");
        if let Some(to) = to {
            self.reply(to, ShardReply::Deleted(Err(ErrorCode::KafkaStorageError)));
        }
    }

    /// Keeps the producers, and moves the log start as soon as they are safe. The partition is open.
    pub(super) fn raise_log_start(
        &mut self,
        id: PartitionId,
        wanted: Offset,
        to: Option<ReplyTo>,
    ) -> Result<(), StorageError> {
        let Some(partition) = self.partitions.get_mut(&id) else {
            return Ok(());
        };
        let log_end = partition.log_end;
        let snapshot = match partition.write_snapshot(&mut self.journal, log_end) {
            Ok(()) => log_end,
            Err(error) if error.is_out_of_room() => {
                let above = self.journal.log_start(id).next();
                let found = self.journal.settled_snapshot(id, above);
                let is_good = |at: &Offset| {
                    let bytes = self.journal.read_snapshot(id, *at).ok();
                    let restored = bytes
                        .and_then(|bytes| ProducerStates::restore(&bytes, self.settings.seed).ok());
                    restored.is_some_and(|(_, valid_at)| valid_at == *at)
                };
                found.filter(is_good).ok_or(error)?
            }
            Err(error) => return Err(error),
        };
        partition.raising += 1;
        self.journal.promise_snapshot(id, snapshot);
        let ticket = match self.journal.settled(id) >= snapshot {
            true => None,
            false => Some(self.journal.hand_over(id, None)),
        };
        let raise = Raise {
            id,
            wanted,
            snapshot,
            to,
        };
        self.hold(ticket, Held::LogStart(raise));
        Ok(())
    }

    /// The log is synced up to the snapshot.
    pub(super) fn log_start_may_move(&mut self, raise: Raise, outbox: &mut Outbox) {
        let Raise { id, to, .. } = raise;
        let Some(partition) = self.partitions.get_mut(&id) else {
            if let Some(to) = to {
                let absent = self.absent(id);
                self.reply(to, ShardReply::Deleted(Err(absent)));
            }
            return;
        };
        partition.raising -= 1;
        match self.move_log_start(&raise, outbox) {
            Ok(()) if self.journal.log_start(id) >= raise.wanted => {
                if let Some(to) = to {
                    self.reply(to, ShardReply::Deleted(Ok(raise.wanted)));
                }
            }
            // There may be room for another snapshot now.
            Ok(()) => {
                if let Err(error) = self.raise_log_start(id, raise.wanted, to) {
                    self.not_raised(id, &error, to);
                }
            }
            Err(error) => self.not_raised(id, &error, to),
        }
    }

    fn move_log_start(&mut self, raise: &Raise, outbox: &mut Outbox) -> Result<(), StorageError> {
        let id = raise.id;
        let before = self.journal.log_start(id);
        let upto = raise.wanted.min(raise.snapshot);
        if upto > before {
            // Later ones may have come meanwhile.
            let settled = self.journal.settled_snapshot(id, raise.snapshot);
            let snapshot = settled.unwrap_or(raise.snapshot);
            self.journal.anchor_snapshot(id, snapshot)?;
            self.journal.set_log_start(id, upto)?;
        }
        if let Some(partition) = self.partitions.get_mut(&id)
            && self.journal.log_start(id) > before
        {
            outbox.wakes.extend(partition.take_waiters());
            tracing::debug!(partition = %id, %before, log_start = %self.journal.log_start(id), "records below the log start removed");
        }
        Ok(())
    }
}
