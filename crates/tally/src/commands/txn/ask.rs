//! What `tally txn` asks: the requests of KIP-664, and their answers as plain values.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, ListTransactionsRequest,
    ProducerId as WireProducerId, TopicName, TransactionalId,
};

use tally_protocol::transaction_note::{self, TransactionNote};

use super::Place;
use crate::client::{Cluster, Failure, check, text};
use crate::commands::place::no_such_partition;

const LIST_NEWEST: i16 = 1;
const DESCRIBE_NEWEST: i16 = 0;
const PRODUCERS_NEWEST: i16 = 0;
/// TRANSACTIONAL_ID_NOT_FOUND.
pub(super) const NOT_FOUND: i16 = 105;

/// A row of ListTransactions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) producer_id: i64,
    pub(super) state: String,
}

/// Which rows.
#[derive(Clone, Default, Debug)]
pub(super) struct Filter {
    pub(super) states: Vec<String>,
    pub(super) producer_ids: Vec<i64>,
    pub(super) older_ms: Option<i64>,
    pub(super) prefix: Option<String>,
}

/// What DescribeTransactions says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Described {
    pub(super) id: String,
    pub(super) error: i16,
    pub(super) state: String,
    pub(super) timeout_ms: i32,
    /// `None` where no transaction is.
    pub(super) started_ms: Option<i64>,
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) partitions: Vec<Place>,
    /// What only Tally says: why it was last fenced or aborted, and who has it.
    pub(super) note: Option<TransactionNote>,
}

impl Described {
    /// Whether its transaction has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.state == "Ongoing" || self.state.starts_with("Prepare")
    }
}

/// What a partition remembers of a producer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Producer {
    pub(super) place: Place,
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i32,
    pub(super) last_sequence: i32,
    pub(super) last_timestamp_ms: i64,
    pub(super) coordinator_epoch: i32,
    /// Where its open transaction begins.
    pub(super) open_from: Option<i64>,
}

/// The ids of all coordinators, by name.
pub(super) fn list(cluster: &mut Cluster, filter: &Filter) -> Result<Vec<Listed>, Failure> {
    let request = ListTransactionsRequest::default()
        .with_state_filters(filter.states.iter().map(|state| text(state)).collect())
        .with_producer_id_filters(
            filter
                .producer_ids
                .iter()
                .map(|id| WireProducerId(*id))
                .collect(),
        )
        .with_duration_filter(filter.older_ms.unwrap_or(-1));
    let newest = if filter.older_ms.is_some() {
        LIST_NEWEST
    } else {
        0
    };
    let mut listed = Vec::new();
    for broker in cluster.brokers() {
        let answer = cluster.call(broker, newest, &request)?;
        check("ListTransactions", answer.error_code)?;
        if let Some(state) = answer.unknown_state_filters.first() {
            return Err(Failure::Usage(format!(
                "{state} is not a state of transactions"
            )));
        }
        listed.extend(answer.transaction_states.into_iter().map(|row| Listed {
            id: row.transactional_id.to_string(),
            producer_id: row.producer_id.0,
            state: row.transaction_state.to_string(),
        }));
    }
    // Not by the pattern of version 2: older brokers don't know it.
    if let Some(prefix) = &filter.prefix {
        listed.retain(|row| row.id.starts_with(prefix));
    }
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    listed.dedup();
    Ok(listed)
}

/// Each id in full, in the order asked for; an id that is not known has an error.
pub(super) fn describe(cluster: &mut Cluster, ids: &[String]) -> Result<Vec<Described>, Failure> {
    let mut by_broker: BTreeMap<i32, Vec<&String>> = BTreeMap::new();
    for id in ids {
        let broker = cluster.coordinator(id)?;
        by_broker.entry(broker).or_default().push(id);
    }
    let mut found: BTreeMap<String, Described> = BTreeMap::new();
    for (broker, ids) in by_broker {
        let request = DescribeTransactionsRequest::default()
            .with_transactional_ids(ids.iter().map(|id| TransactionalId(text(id))).collect());
        let answer = cluster.call(broker, DESCRIBE_NEWEST, &request)?;
        for row in answer.transaction_states {
            let mut partitions = Vec::new();
            for topic in &row.topics {
                partitions.extend(topic.partitions.iter().map(|partition| Place {
                    topic: topic.topic.to_string(),
                    partition: *partition,
                }));
            }
            let started_ms = row.transaction_start_time_ms;
            let described = Described {
                id: row.transactional_id.to_string(),
                error: row.error_code,
                state: row.transaction_state.to_string(),
                timeout_ms: row.transaction_timeout_ms,
                started_ms: (started_ms >= 0).then_some(started_ms),
                producer_id: row.producer_id.0,
                producer_epoch: row.producer_epoch,
                partitions,
                note: row
                    .unknown_tagged_fields
                    .get(&transaction_note::TAG)
                    .and_then(|field| TransactionNote::decode(field)),
            };
            found.insert(described.id.clone(), described);
        }
    }
    ids.iter()
        .map(|id| {
            found
                .get(id)
                .cloned()
                .ok_or_else(|| Failure::Unable(format!("the coordinator says nothing about {id}")))
        })
        .collect()
}

/// What the partitions of a topic remember, of one of them or of all.
pub(super) fn producers(
    cluster: &mut Cluster,
    topic: &str,
    partition: Option<i32>,
) -> Result<Vec<Producer>, Failure> {
    let unknown = || Failure::refused(format!("topic {topic}"), 3);
    let found = cluster.topic(topic)?.ok_or_else(unknown)?;
    let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for row in &found.partitions {
        if partition.is_none_or(|wanted| wanted == row.partition_index) {
            let indexes = by_leader.entry(row.leader_id.0).or_default();
            indexes.push(row.partition_index);
        }
    }
    if by_leader.is_empty() {
        let wanted = format!("{topic}:{}", partition.unwrap_or_default());
        return Err(no_such_partition(topic, found.partitions.len(), &wanted));
    }
    let mut producers = Vec::new();
    for (leader, indexes) in by_leader {
        let request = DescribeProducersRequest::default().with_topics(vec![
            TopicRequest::default()
                .with_name(TopicName(text(topic)))
                .with_partition_indexes(indexes),
        ]);
        let answer = cluster.call(leader, PRODUCERS_NEWEST, &request)?;
        for row in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let place = Place {
                topic: topic.to_owned(),
                partition: row.partition_index,
            };
            check(place.to_string(), row.error_code)?;
            producers.extend(row.active_producers.iter().map(|producer| {
                Producer {
                    place: place.clone(),
                    producer_id: producer.producer_id.0,
                    producer_epoch: producer.producer_epoch,
                    last_sequence: producer.last_sequence,
                    last_timestamp_ms: producer.last_timestamp,
                    coordinator_epoch: producer.coordinator_epoch,
                    open_from: (producer.current_txn_start_offset >= 0)
                        .then_some(producer.current_txn_start_offset),
                }
            }));
        }
    }
    producers.sort_by(|a, b| (&a.place, a.producer_id).cmp(&(&b.place, b.producer_id)));
    Ok(producers)
}
