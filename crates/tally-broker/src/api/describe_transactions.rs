//! DescribeTransactions (L-1, L-6).

use crate::api::Node;
use crate::api::topics::{text, topic_name};
use bytes::Bytes;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId as WireProducerId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tally_protocol::ErrorCode;
use tally_protocol::records::transaction_log;
use tally_protocol::transaction_note::{self, TransactionNote};
use tally_shard::{Inspected, Inspection};
use tally_transactions::Description;
use tokio::time::Instant;

pub(crate) async fn handle(
    node: &Node,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut response = DescribeTransactionsResponse::default();
    // Named twice is answered once: a few bytes must not ask for all partitions again and again.
    let mut seen = BTreeSet::new();
    let ids = request.transactional_ids.iter();
    for id in ids.filter(|id| seen.insert(*id)) {
        let mut row = match look(node, id).await {
            Ok(description) => described(description),
            Err(code) => TransactionState::default().with_error_code(code.code()),
        };
        row.transactional_id = id.clone();
        if let Some(note) = note(node, id).await {
            let field = Bytes::from(note.encode());
            row.unknown_tagged_fields
                .insert(transaction_note::TAG, field);
        }
        response.transaction_states.push(row);
    }
    response
}

/// B-21: what happened to it, and who has it now, as far as this life of the broker knows.
async fn note(node: &Node, transactional_id: &str) -> Option<TransactionNote> {
    let id = node.transaction_partition(transactional_id)?;
    let what = Inspection::Note(Arc::from(transactional_id));
    let noted = match node.inspect(id, what).await {
        Ok(Inspected::Note(noted)) => noted,
        _ => None,
    };
    let owner = node.owners.of(transactional_id);
    if noted.is_none() && owner.is_none() {
        return None;
    }
    let mut note = TransactionNote::default();
    if let Some(noted) = noted {
        note.reason = noted.reason.code().to_owned();
        note.at_ms = noted.at_ms;
        note.producer_id = noted.producer_id.0;
        note.producer_epoch = noted.producer_epoch.0;
    }
    if let Some(owner) = owner {
        note.client_id = owner.client_id.to_string();
        note.address = owner.peer.to_string();
        note.software = owner.software.to_string();
        let (heard, gone) = owner.heard.ago(Instant::now());
        note.heard_ago_ms = Some(millis(heard));
        note.gone_ago_ms = gone.map(millis);
    }
    Some(note)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

async fn look(node: &Node, transactional_id: &str) -> Result<Description, ErrorCode> {
    if transactional_id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let id = node
        .transaction_partition(transactional_id)
        .ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let what = Inspection::Transaction(Arc::from(transactional_id));
    match node.inspect(id, what).await? {
        // Dead: it is being expired.
        Inspected::Transaction(Some(found))
            if found.state != transaction_log::TransactionState::Dead =>
        {
            Ok(found)
        }
        Inspected::Transaction(_) => Err(ErrorCode::TransactionalIdNotFound),
        _ => Err(ErrorCode::UnknownServerError),
    }
}

fn described(description: Description) -> TransactionState {
    let mut topics: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
    for partition in description.partitions {
        let indexes = topics.entry(partition.topic).or_default();
        indexes.push(partition.partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        TopicData::default()
            .with_topic(topic_name(&topic))
            .with_partitions(partitions)
    });
    TransactionState::default()
        .with_transaction_state(text(description.state.name()))
        .with_transaction_timeout_ms(description.timeout_ms)
        .with_transaction_start_time_ms(description.start_ms)
        .with_producer_id(WireProducerId(description.producer_id.0))
        .with_producer_epoch(description.producer_epoch.0)
        .with_topics(topics.collect())
}
