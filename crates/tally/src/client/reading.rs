//! Records read from partitions: Fetch, and which of what it brings counts.
//!
//! Invariant: of the bytes that a broker sends nothing is believed before its checksum was right; a batch that is cut short at
//! the end of an answer is left for the next.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, TopicName};
use tally_protocol::{BatchError, BatchView, control};

use super::cluster::{Cluster, text};
use super::failure::Failure;

/// The last version that names topics without their ids.
const FETCH_NEWEST: i16 = 12;
/// What one answer may bring, for all partitions and for each. A batch that is larger comes alone, but whole.
const ANSWER_BYTES_MAX: i32 = 16 << 20;
const PARTITION_BYTES_MAX: i32 = 4 << 20;

/// Where to read on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// What came of one partition.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) error: i16,
    /// Producer and first offset of transactions that were aborted.
    aborted: Vec<(i64, i64)>,
    records: Bytes,
}

/// What a batch is to a reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Records that count.
    Readable,
    /// Records of a transaction that was aborted.
    Aborted,
    /// The end of a transaction, or another control record.
    Marker(Option<bool>),
}

/// How to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// 0 reads all that is written, 1 only what is decided.
    pub(crate) isolation: i8,
    /// How long the broker may wait for records.
    pub(crate) wait_ms: i32,
}

/// Asks one broker for what comes next in partitions that it leads.
pub(crate) fn fetch(
    cluster: &mut Cluster,
    leader: i32,
    positions: &[Position],
    manner: Manner,
) -> Result<Vec<Fetched>, Failure> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for position in positions {
        let partition = FetchPartition::default()
            .with_partition(position.partition)
            .with_fetch_offset(position.offset)
            .with_partition_max_bytes(PARTITION_BYTES_MAX);
        match topics.last_mut() {
            Some(topic) if topic.topic.as_str() == position.topic => {
                topic.partitions.push(partition);
            }
            _ => topics.push(
                FetchTopic::default()
                    .with_topic(TopicName(text(&position.topic)))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(manner.wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(ANSWER_BYTES_MAX)
        .with_isolation_level(manner.isolation)
        .with_topics(topics);
    let answer = cluster.call(leader, FETCH_NEWEST, &request)?;
    super::failure::check("Fetch", answer.error_code)?;
    let mut fetched = Vec::new();
    for topic in answer.responses {
        for row in topic.partitions {
            let aborted = row.aborted_transactions.unwrap_or_default();
            let mut aborted: Vec<(i64, i64)> = aborted
                .iter()
                .map(|one| (one.producer_id.0, one.first_offset))
                .collect();
            aborted.sort_by_key(|(_, first)| *first);
            fetched.push(Fetched {
                topic: topic.topic.to_string(),
                partition: row.partition_index,
                error: row.error_code,
                aborted,
                records: row.records.unwrap_or_default(),
            });
        }
    }
    Ok(fetched)
}

impl Fetched {
    /// Shows each whole batch that reaches `from` or lies behind it; where to read on. `visit` says whether to go on.
    pub(crate) fn each_batch(
        &self,
        from: i64,
        mut visit: impl FnMut(&BatchView<'_>, Standing) -> Result<bool, Failure>,
    ) -> Result<i64, Failure> {
        let mut next = from;
        let mut rest = &self.records[..];
        let mut aborted = self.aborted.iter().peekable();
        let mut ended_badly: BTreeSet<i64> = BTreeSet::new();
        while !rest.is_empty() {
            let view = match BatchView::parse(rest) {
                Ok(view) => view,
                Err(BatchError::Incomplete) => break,
                Err(error) => return Err(self.broken(next, &error)),
            };
            view.check_crc()
                .map_err(|error| self.broken(next, &error))?;
            rest = &rest[view.bytes().len()..];
            let header = view.header();
            let last = header.last_offset().0;
            while let Some((producer, _)) = aborted.next_if(|(_, first)| *first <= last) {
                ended_badly.insert(*producer);
            }
            let producer = header.producer_id.0;
            let standing = if header.is_control() {
                let commits = control::parse_marker(&view).map(|(commits, _)| commits);
                if commits == Some(false) {
                    ended_badly.remove(&producer);
                }
                Standing::Marker(commits)
            } else if header.is_transactional() && ended_badly.contains(&producer) {
                Standing::Aborted
            } else {
                Standing::Readable
            };
            if last < from {
                continue;
            }
            if !visit(&view, standing)? {
                break;
            }
            next = last.saturating_add(1).max(next);
        }
        Ok(next)
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn broken(&self, at: i64, error: &dyn std::fmt::Display) -> Failure {
        let (topic, partition) = (&self.topic, self.partition);
        Failure::Unable(format!(
            "{topic}:{partition}: what the broker sends at offset {at} or behind it is damaged: {error}"
        ))
    }
}
