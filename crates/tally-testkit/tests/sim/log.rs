//! What can be read of a partition, and what it means: the transactions, the last stable offset and the producers are worked
//! out here from the batches alone, to be compared with what the broker says.

use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use tally_producer_state::{Marker, ProducerDescription, ProducerStates};
use tally_protocol::record::Records;
use tally_protocol::{
    BatchHeader, BatchView, LeaderEpoch, Now, Offset, PartitionId, ProducerId, control,
};
use tally_shard::{Isolation, ReadOutcome, ReadRequest, ShardMessage, ShardReply};

/// One batch.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) header: BatchHeader,
    /// The values of its records; those of coordinators are not looked into.
    pub(crate) values: Vec<String>,
    /// The end that its marker says: commit or not.
    pub(crate) marker: Option<Marker>,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
}

/// What a reader sees.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) start: i64,
    /// The high watermark.
    pub(crate) end: i64,
    pub(crate) stable: i64,
    pub(crate) batches: Vec<Batch>,
}

/// Checks that hold always; the text says what does not.
pub(crate) type Check<T> = Result<T, String>;

/// Reads the whole partition as read_uncommitted does.
pub(crate) fn read(world: &mut World, id: PartitionId, max_bytes: usize) -> Check<Log> {
    let mut log = Log::default();
    let first = fetch(world, id, None, Isolation::ReadUncommitted, max_bytes)?;
    (log.start, log.end) = (first.log_start.0, first.high_watermark.0);
    log.stable = first.last_stable_offset.0;
    let mut at = log.start;
    while at < log.end {
        let read = fetch(world, id, Some(at), Isolation::ReadUncommitted, max_bytes)?;
        let batches = parse(&read)?;
        if batches.is_empty() {
            return Err(format!("{id}: nothing at {at}, below {}", log.end));
        }
        for batch in batches {
            let (base, last) = (batch.header.base_offset.0, batch.header.last_offset().0);
            let first = log.batches.is_empty();
            if base != at && !(first && base < at && last >= at) {
                return Err(format!("{id}: a gap: batch at {base}, expected {at}"));
            }
            at = last + 1;
            log.batches.push(batch);
        }
    }
    if at != log.end {
        return Err(format!("{id}: batches end at {at}, the log at {}", log.end));
    }
    Ok(log)
}

fn fetch(
    world: &mut World,
    id: PartitionId,
    from: Option<i64>,
    isolation: Isolation,
    max_bytes: usize,
) -> Check<ReadOutcome> {
    let mut from = from.unwrap_or(0);
    for _ in 0..3 {
        let request = ReadRequest {
            from: Offset(from),
            max_bytes,
            first_whole: true,
            isolation,
            current_leader_epoch: LeaderEpoch::NONE,
            last_fetched_epoch: LeaderEpoch::NONE,
            waiter: None,
            wanted_bytes: 1,
        };
        match world.ask_now(id, |to| ShardMessage::Read { request, to }) {
            Some(ShardReply::Read(Ok(read))) => return Ok(read),
            Some(ShardReply::Read(Err(tally_protocol::ErrorCode::OffsetOutOfRange))) => {
                from = log_start(world, id)?;
            }
            // Its shard begins anew after a failure of another one.
            Some(ShardReply::Read(Err(tally_protocol::ErrorCode::NotLeaderOrFollower))) => {}
            other => return Err(format!("{id}: read at {from}: {other:?}")),
        }
    }
    Err(format!(
        "{id}: out of range at its own log start, or not served"
    ))
}

/// The first offset of a partition.
pub(crate) fn log_start(world: &mut World, id: PartitionId) -> Check<i64> {
    let asked = world.ask_now(id, |to| ShardMessage::FindOffset {
        query: tally_shard::OffsetQuery::Earliest,
        isolation: Isolation::ReadUncommitted,
        current_leader_epoch: LeaderEpoch::NONE,
        to,
    });
    match asked {
        Some(ShardReply::Offset(Ok(tally_shard::OffsetLookup::At { offset, .. }))) => Ok(offset.0),
        other => Err(format!("{id}: no log start: {other:?}")),
    }
}

fn parse(read: &ReadOutcome) -> Check<Vec<Batch>> {
    let mut batches = Vec::new();
    for slice in &read.slices {
        let mut rest: &[u8] = slice;
        while !rest.is_empty() {
            let view = BatchView::parse(rest).map_err(|e| format!("no batch: {e}"))?;
            let at = view.header().base_offset;
            view.check_crc()
                .map_err(|e| format!("batch at {at}: {e}"))?;
            batches.push(batch(&view)?);
            rest = &rest[view.bytes().len()..];
        }
    }
    Ok(batches)
}

fn batch(view: &BatchView<'_>) -> Check<Batch> {
    let header = *view.header();
    let mut values = Vec::new();
    for record in Records::new(view.records(), header.records_count) {
        let record = record.map_err(|e| format!("record in {}: {e:?}", header.base_offset))?;
        let value = String::from_utf8_lossy(record.value.unwrap_or_default());
        let value = value.split(' ').next().unwrap_or_default();
        values.push(value.to_owned());
    }
    let marker = control::parse_marker(view).map(|(commit, coordinator_epoch)| Marker {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        coordinator_epoch,
        commit,
        transaction_version: 0,
    });
    Ok(Batch {
        header,
        values,
        marker,
        bytes: view.bytes().to_vec(),
    })
}

/// What the batches of a partition mean.
#[derive(Default)]
pub(crate) struct Meaning {
    /// Transactions without a marker, with their first offsets and epochs.
    pub(crate) open: BTreeMap<ProducerId, (i64, i16)>,
    /// The values that a read_committed reader gets, with their offsets.
    pub(crate) visible: BTreeMap<String, i64>,
    /// The values of committed transactions, behind somebody else's open one too.
    pub(crate) committed: BTreeSet<String>,
}

/// Works it out.
pub(crate) fn meaning<'a>(batches: impl Iterator<Item = &'a Batch>) -> Meaning {
    let mut meaning = Meaning::default();
    let mut undecided: BTreeMap<ProducerId, Vec<(String, i64)>> = BTreeMap::new();
    for batch in batches {
        let header = &batch.header;
        if let Some(marker) = batch.marker {
            meaning.open.remove(&header.producer_id);
            for (value, offset) in undecided.remove(&header.producer_id).unwrap_or_default() {
                if marker.commit {
                    meaning.committed.insert(value.clone());
                    meaning.visible.insert(value, offset);
                }
            }
            continue;
        }
        let offsets = header.base_offset.0..;
        let records = batch.values.iter().cloned().zip(offsets);
        if header.is_transactional() {
            meaning
                .open
                .entry(header.producer_id)
                .or_insert((header.base_offset.0, header.producer_epoch.0));
            undecided
                .entry(header.producer_id)
                .or_default()
                .extend(records);
        } else {
            meaning.visible.extend(records);
        }
    }
    let stable = meaning.open.values().map(|(first, _)| *first).min();
    if let Some(stable) = stable {
        meaning.visible.retain(|_, offset| *offset < stable);
    }
    meaning
}

/// Producers with their epochs, last sequences and the first offsets of their open transactions.
pub(crate) type Producers = BTreeMap<ProducerId, (i16, i32, i64)>;

fn told(producers: Vec<ProducerDescription>) -> Producers {
    let told = producers.into_iter().map(|producer| {
        let start = producer.current_transaction_start.0;
        let (epoch, last) = (producer.producer_epoch.0, producer.last_sequence.0);
        (producer.producer_id, (epoch, last, start))
    });
    told.collect()
}

/// The producers as the broker tells them.
pub(crate) fn told_producers(world: &mut World, id: PartitionId) -> Check<Producers> {
    match world.ask_now(id, |to| ShardMessage::DescribeProducers { to }) {
        Some(ShardReply::Producers(Ok(found))) => Ok(told(found)),
        other => Err(format!("{id}: no producers: {other:?}")),
    }
}

/// The producers as the batches make them.
pub(crate) fn producers<'a>(batches: impl Iterator<Item = &'a Batch>) -> Producers {
    let now = Now {
        monotonic_ms: 0,
        wall_ms: 0,
    };
    let mut states = ProducerStates::new(1);
    for batch in batches {
        if let Some(marker) = batch.marker {
            states.apply_marker(batch.header.base_offset, &marker, now);
        } else if batch.header.has_producer() {
            states.apply(batch.header.base_offset, &batch.header, now);
        }
    }
    told(states.describe())
}

/// What a read_committed client delivers from the log start on, by the rules that clients follow.
pub(crate) fn read_committed(
    world: &mut World,
    id: PartitionId,
    max_bytes: usize,
) -> Check<BTreeMap<String, i64>> {
    let mut delivered = BTreeMap::new();
    let start = log_start(world, id)?;
    let mut at = start;
    loop {
        let read = fetch(world, id, Some(at), Isolation::ReadCommitted, max_bytes)?;
        let mut aborted = read.aborted.clone();
        let mut dropping: BTreeSet<ProducerId> = BTreeSet::new();
        let batches = parse(&read)?;
        if batches.is_empty() {
            if at < read.last_stable_offset.0 {
                return Err(format!(
                    "{id}: nothing at {at}, below the last stable offset"
                ));
            }
            return Ok(delivered);
        }
        for batch in batches {
            let header = &batch.header;
            aborted.retain(|(producer, first)| {
                let begins = *first <= header.last_offset();
                if begins {
                    dropping.insert(*producer);
                }
                !begins
            });
            at = header.last_offset().0 + 1;
            if let Some(marker) = batch.marker {
                if !marker.commit {
                    dropping.remove(&header.producer_id);
                }
                continue;
            }
            if header.is_transactional() && dropping.contains(&header.producer_id) {
                continue;
            }
            for (value, offset) in batch.values.iter().zip(header.base_offset.0..) {
                if offset >= start && delivered.insert(value.clone(), offset).is_some() {
                    return Err(format!("{id}: {value} is delivered twice"));
                }
            }
        }
    }
}
