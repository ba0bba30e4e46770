//! Opening a partition: the log is recovered by storage, its state by folding the log's batches (N6, R5).
//!
//! The producers start from the newest snapshot that can be read and replay what follows (P-63); the aborted index is
//! rebuilt over the replayed range (P-64). A coordinator is replayed from the log start: its log holds its whole state.

use crate::coordinator::Hosted;
use crate::message::{PartitionRole, PartitionSettings};
use crate::partition::{Partition, Replayed};
use crate::shard::ShardSettings;
use std::ops::ControlFlow;
use tally_producer_state::{AbortedTransaction, Marker, ProducerStates};
use tally_protocol::{BatchView, Now, Offset, PartitionId, control, planted};
use tally_storage::{Cut, LogOptions, Recovered, SegmentJournal, StorageError};

/// Opens `id`; returns what recovery cut off, if anything.
pub(crate) fn open(
    journal: &mut SegmentJournal,
    id: PartitionId,
    settings: PartitionSettings,
    shard: &ShardSettings,
    now: Now,
) -> Result<(Partition, Option<Cut>), StorageError> {
    let log = LogOptions {
        synced_only: settings.role != PartitionRole::Data,
        ..settings.log
    };
    let recovered = journal.open_partition(id, log)?;
    let mut hosted = Hosted::new(settings.role, shard);
    if recovered.log_end == Offset::ZERO {
        // A power cut can leave rows of a log of which it leaves nothing else (P-64).
        journal.truncate_transaction_rows(id, Offset::ZERO, |_| Offset(i64::MAX))?;
        let replayed = Replayed {
            producers: ProducerStates::new(shard.seed),
            hosted,
            log_end: Offset::ZERO,
        };
        let partition = Partition::new(id, settings, journal.durability(), replayed);
        return Ok((partition, recovered.cut));
    }
    let (mut producers, from) = match settings.role {
        PartitionRole::Data => newest_snapshot(journal, id, &recovered, shard.seed),
        // The hosted coordinator needs the whole log anyway.
        PartitionRole::Transactions | PartitionRole::Groups => {
            (ProducerStates::new(shard.seed), recovered.log_start)
        }
    };
    let snapshot = from;
    let mut from = from.max(recovered.log_start);
    if planted::is("p63") && settings.role == PartitionRole::Data {
        from = recovered.log_end;
    }
    let mut aborted = replay(journal, id, from, &mut producers, &mut hosted, now)?;
    journal.truncate_transaction_rows(id, from, AbortedTransaction::last_offset_of)?;
    if from > recovered.log_start && !journal.transaction_rows_are_intact(id, snapshot) {
        tracing::error!(partition = %id, "the rows of aborted transactions are damaged: made anew from the log");
        from = recovered.log_start;
        aborted = all_aborted(journal, id, from, shard, now)?;
        // Nothing that they say is believed: all of them go.
        journal.truncate_transaction_rows(id, from, |_| Offset(i64::MAX))?;
    }
    if planted::is("p64") {
        aborted.clear();
    }
    for row in aborted {
        journal.append_transaction_row(id, row.last_offset, &row.encode())?;
    }
    if from == recovered.log_start {
        journal.recount_transaction_rows(id, AbortedTransaction::last_offset_of)?;
    }
    let replayed = Replayed {
        producers,
        hosted,
        log_end: recovered.log_end,
    };
    let partition = Partition::new(id, settings, journal.durability(), replayed);
    if from < recovered.log_end {
        partition.write_snapshot(journal, recovered.log_end).ok();
    }
    Ok((partition, recovered.cut))
}

/// The aborted transactions of the whole log. What the snapshot knows of producers is not touched: it knows more than the
/// log, of which the beginning may be gone (D-10).
fn all_aborted(
    journal: &SegmentJournal,
    id: PartitionId,
    log_start: Offset,
    shard: &ShardSettings,
    now: Now,
) -> Result<Vec<AbortedTransaction>, StorageError> {
    let mut producers = ProducerStates::new(shard.seed);
    replay(
        journal,
        id,
        log_start,
        &mut producers,
        &mut Hosted::Nothing,
        now,
    )
}

/// The newest snapshot at or below the log end that can be read, else nothing from the log start (P-61, P-62). One from
/// below the log start is of no use: what lies between is gone, and with it markers that ended its transactions.
fn newest_snapshot(
    journal: &mut SegmentJournal,
    id: PartitionId,
    log: &Recovered,
    seed: u64,
) -> (ProducerStates, Offset) {
    for at in journal.snapshots(id) {
        let restored = (log.log_start..=log.log_end)
            .contains(&at)
            .then(|| journal.read_snapshot(id, at).ok())
            .flatten()
            .and_then(|bytes| ProducerStates::restore(&bytes, seed).ok())
            .filter(|(_, valid_at)| *valid_at == at);
        if let Some((producers, valid_at)) = restored {
            return (producers, valid_at);
        }
        tracing::warn!(partition = %id, %at, "producer snapshot is not usable and is dropped");
        journal.drop_snapshot(id, at);
    }
    (ProducerStates::new(seed), Offset::ZERO)
}

/// Folds the log from `from` on; returns the aborted transactions it met.
fn replay(
    journal: &SegmentJournal,
    id: PartitionId,
    from: Offset,
    producers: &mut ProducerStates,
    hosted: &mut Hosted,
    now: Now,
) -> Result<Vec<AbortedTransaction>, StorageError> {
    let mut aborted = Vec::new();
    journal.visit_batches(id, from, &mut |batch| {
        // The snapshot may lie inside the batch it was taken after; a batch below it is part of it.
        if batch.header().base_offset >= from || batch.header().last_offset() >= from {
            replay_batch(id, &batch, producers, hosted, now, &mut aborted);
        }
        ControlFlow::Continue(())
    })?;
    Ok(aborted)
}

fn replay_batch(
    id: PartitionId,
    batch: &BatchView<'_>,
    producers: &mut ProducerStates,
    hosted: &mut Hosted,
    now: Now,
    aborted: &mut Vec<AbortedTransaction>,
) {
    let header = batch.header();
    if !header.is_control() {
        if header.has_producer() {
            producers.apply(header.base_offset, header, now);
        }
        hosted.replay(id, batch);
        return;
    }
    // M-2: control records of unknown types, and control batches emptied by compaction (P-67), change nothing.
    let Some((commit, coordinator_epoch)) = control::parse_marker(batch) else {
        return;
    };
    let marker = Marker {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        coordinator_epoch,
        commit,
        transaction_version: 0,
    };
    aborted.extend(producers.apply_marker(header.base_offset, &marker, now));
    hosted.replay_marker(header.base_offset, header.producer_id, commit);
}
