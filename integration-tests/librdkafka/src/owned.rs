//! What the group gave this consumer, and what it took away, in the order in which it happened.
//!
//! librdkafka tells it from inside `poll`; the processor acts on it right after that call. A rebalance is an event of
//! its own: the call that served it returns no message.

use std::sync::Mutex;

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};

/// One step of a rebalance, with the partitions concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Given(Vec<i32>),
    Taken(Vec<i32>),
}

/// Collects the changes until the processor asks for them.
#[derive(Default)]
pub(crate) struct Ownership {
    changes: Mutex<Vec<Change>>,
}

impl Ownership {
    pub(crate) fn take_changes(&self) -> Vec<Change> {
        std::mem::take(
            &mut self
                .changes
                .lock()
                .expect("nobody panics while holding this lock"),
        )
    }

    fn note(&self, change: Change) {
        eprintln!("group: {change:?}");
        self.changes
            .lock()
            .expect("nobody panics while holding this lock")
            .push(change);
    }
}

impl ClientContext for Ownership {}

impl ConsumerContext for Ownership {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = |list: &rdkafka::TopicPartitionList| {
            list.elements().iter().map(|e| e.partition()).collect()
        };
        match rebalance {
            Rebalance::Assign(list) => self.note(Change::Given(partitions(list))),
            Rebalance::Revoke(list) => self.note(Change::Taken(partitions(list))),
            Rebalance::Error(error) => eprintln!("rebalance failed: {error}"),
        }
    }
}
