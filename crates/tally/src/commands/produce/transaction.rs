//! The transactions of `tally produce`, in the protocol that every broker with transactions knows (KIP-98): partitions are
//! added, records follow, EndTxn ends.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Instant;

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, ProducerId as WireProducerId, TopicName,
    TransactionalId,
};

use super::sender::PAUSE;
use crate::client::{Cluster, Failure, NOT_YET, check, text};
use crate::commands::place::Place;

/// The last versions of the protocol of KIP-98.
const ADD_PARTITIONS_NEWEST: i16 = 3;
const END_TXN_NEWEST: i16 = 4;
/// CONCURRENT_TRANSACTIONS: the one before is being completed.
const COMPLETING: i16 = 51;
/// OPERATION_NOT_ATTEMPTED: another partition of the request was refused.
const NOT_ATTEMPTED: i16 = 55;

/// The transactions of one producer.
#[derive(Debug)]
pub(super) struct Transactions {
    pub(super) id: String,
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) committed: u64,
    pub(super) aborted: u64,
    /// Partitions in the one that is open.
    places: BTreeSet<Place>,
}

impl Transactions {
    pub(super) fn new(id: &str, producer_id: i64, producer_epoch: i16) -> Transactions {
        Transactions {
            id: id.to_owned(),
            producer_id,
            producer_epoch,
            committed: 0,
            aborted: 0,
            places: BTreeSet::new(),
        }
    }

    /// Adds partitions before records are sent to them.
    pub(super) fn add<'a>(
        &mut self,
        cluster: &mut Cluster,
        places: impl Iterator<Item = &'a Place>,
    ) -> Result<(), Failure> {
        let new: Vec<&Place> = places
            .filter(|place| !self.places.contains(place))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for place in &new {
            let partitions = topics.entry(&place.topic).or_default();
            partitions.push(place.partition);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            AddPartitionsToTxnTopic::default()
                .with_name(TopicName(text(name)))
                .with_partitions(partitions)
        });
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(&self.id)))
            .with_v3_and_below_producer_id(WireProducerId(self.producer_id))
            .with_v3_and_below_producer_epoch(self.producer_epoch)
            .with_v3_and_below_topics(topics.collect());
        self.until_accepted(cluster, |cluster, broker| {
            let answer = cluster.call(broker, ADD_PARTITIONS_NEWEST, &request)?;
            let mut refused = Ok(());
            for topic in &answer.results_by_topic_v3_and_below {
                for row in &topic.results_by_partition {
                    let code = row.partition_error_code;
                    if code == COMPLETING || NOT_YET.contains(&code) {
                        return Ok(Some(code));
                    }
                    if code != 0 && code != NOT_ATTEMPTED {
                        let place = format!("{}:{}", topic.name.as_str(), row.partition_index);
                        refused = check(format!("{place} in a transaction"), code);
                    }
                }
            }
            refused.map(|()| None)
        })?;
        self.places.extend(new.into_iter().cloned());
        Ok(())
    }

    /// Ends what is open.
    pub(super) fn end(&mut self, cluster: &mut Cluster, commits: bool) -> Result<(), Failure> {
        if self.places.is_empty() {
            return Ok(());
        }
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(&self.id)))
            .with_producer_id(WireProducerId(self.producer_id))
            .with_producer_epoch(self.producer_epoch)
            .with_committed(commits);
        // Whatever comes of it, it is not ended twice.
        self.places.clear();
        let id = self.id.clone();
        self.until_accepted(cluster, |cluster, broker| {
            let code = cluster.call(broker, END_TXN_NEWEST, &request)?.error_code;
            if code == COMPLETING || NOT_YET.contains(&code) {
                return Ok(Some(code));
            }
            let what = if commits { "commit" } else { "abort" };
            check(format!("{what} of {id}"), code).map(|()| None)
        })?;
        if commits {
            self.committed += 1;
        } else {
            self.aborted += 1;
        }
        Ok(())
    }

    /// Asks the coordinator until it no longer says `Some(code)`: not yet. A connection that fails is opened again: both requests
    /// say the same however often they come.
    fn until_accepted(
        &self,
        cluster: &mut Cluster,
        mut ask: impl FnMut(&mut Cluster, i32) -> Result<Option<i16>, Failure>,
    ) -> Result<(), Failure> {
        loop {
            let asked = match cluster.coordinator(&self.id) {
                Ok(broker) => ask(cluster, broker).inspect_err(|_| cluster.drop_connection(broker)),
                Err(failure) => Err(failure),
            };
            let trouble = match asked {
                Ok(None) => return Ok(()),
                Ok(Some(code)) => Failure::refused(self.id.clone(), code),
                Err(Failure::Unreachable { address, error }) => {
                    // The next round finds out whether it has come back.
                    drop(cluster.reopen());
                    Failure::Unreachable { address, error }
                }
                Err(failure) => return Err(failure),
            };
            if Instant::now() + PAUSE > cluster.deadline() {
                return Err(trouble);
            }
            thread::sleep(PAUSE);
        }
    }
}
