//! What administrators read: ListTransactions and DescribeTransactions (L-1, L-2).

use std::sync::Arc;

use tally_protocol::records::transaction_log::TransactionState;
use tally_protocol::{Now, ProducerEpoch, ProducerId};

use crate::command::TopicPartition;
use crate::coordinator::TransactionCoordinator;
use crate::transitions;

/// Which ids are listed; the filters are joined by "and" (L-2). Pattern and rights are the broker's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListFilter {
    /// Only these states; `None` for all. Names that mean no state were left out by the broker: an empty list matches nothing.
    pub states: Option<Vec<TransactionState>>,
    /// Only these producer ids; `None` for all.
    pub producer_ids: Option<Vec<ProducerId>>,
    /// Only those begun longer ago than this; `None` for all. Ids in Empty have start -1 and match.
    pub longer_than_ms: Option<i64>,
}

/// One row of ListTransactions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// The id.
    pub transactional_id: Arc<str>,
    /// Its producer id.
    pub producer_id: ProducerId,
    /// Where its transaction stands.
    pub state: TransactionState,
}

/// What DescribeTransactions shows of an id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Where the transaction stands.
    pub state: TransactionState,
    /// The transaction timeout.
    pub timeout_ms: i32,
    /// Wall clock of its start, milliseconds since 1970; -1 in Empty.
    pub start_ms: i64,
    /// The producer id.
    pub producer_id: ProducerId,
    /// The producer epoch.
    pub producer_epoch: ProducerEpoch,
    /// The partitions that have no marker yet (S-5).
    pub partitions: Vec<TopicPartition>,
}

impl TransactionCoordinator {
    /// The ids that match, in the order of their names.
    pub fn list<'a>(
        &'a self,
        now: Now,
        filter: &'a ListFilter,
    ) -> impl Iterator<Item = Listing> + 'a {
        self.hard
            .ids
            .iter()
            .filter(move |(_, value)| {
                let has_state = filter
                    .states
                    .as_ref()
                    .is_none_or(|states| states.contains(&value.state));
                let has_producer = filter
                    .producer_ids
                    .as_ref()
                    .is_none_or(|ids| ids.contains(&value.producer_id));
                let is_old = filter
                    .longer_than_ms
                    .is_none_or(|limit_ms| now.wall_ms.saturating_sub(value.start_ms) > limit_ms);
                has_state && has_producer && is_old && value.state != TransactionState::Dead
            })
            .map(|(id, value)| Listing {
                transactional_id: Arc::clone(id),
                producer_id: value.producer_id,
                state: value.state,
            })
    }

    /// Whether the log has been applied but not been gone on from: nothing may be said yet (14).
    #[must_use]
    pub fn is_loading(&self) -> bool {
        self.soft.needs_recovery
    }

    /// One id; `None` if it is unknown (105).
    #[must_use]
    pub fn describe(&self, transactional_id: &str) -> Option<Description> {
        let value = self.hard.ids.get(transactional_id)?;
        let partitions = match self.soft.completion(transactional_id) {
            Some(completion) => completion
                .in_flight
                .union(&completion.waiting)
                .cloned()
                .collect(),
            None => transitions::partitions_of(value).collect(),
        };
        Some(Description {
            state: value.state,
            timeout_ms: value.timeout_ms,
            start_ms: value.start_ms,
            producer_id: value.producer_id,
            producer_epoch: value.producer_epoch,
            partitions,
        })
    }
}
