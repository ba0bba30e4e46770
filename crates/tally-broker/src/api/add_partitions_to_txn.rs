//! AddPartitionsToTxn (exactly-once.md 3.1, 3.2): v0-3 from clients, one transaction; v4-5 from brokers, several, with a
//! verify-only form.

use crate::api::{Client, INTERNAL_TOPICS, Node};
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use std::collections::BTreeMap;
use std::sync::Arc;
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tally_shard::Call;
use tally_transactions::{Command, Flow, Response, TopicPartition};

pub(crate) async fn handle(
    node: &Node,
    client: &Client,
    version: i16,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let mut response = AddPartitionsToTxnResponse::default();
    if version >= 4 {
        for transaction in &request.transactions {
            let mut result = AddPartitionsToTxnResult::default();
            result.transactional_id = transaction.transactional_id.clone();
            result.topic_results = one(node, client, version, transaction).await;
            response.results_by_transaction.push(result);
        }
        return response;
    }
    let mut transaction = AddPartitionsToTxnTransaction::default();
    transaction.transactional_id = request.v3_and_below_transactional_id;
    transaction.producer_id = request.v3_and_below_producer_id;
    transaction.producer_epoch = request.v3_and_below_producer_epoch;
    transaction.topics = request.v3_and_below_topics;
    response.results_by_topic_v3_and_below = one(node, client, version, &transaction).await;
    response
}

/// The partitions of one transaction, and what each is answered.
async fn one(
    node: &Node,
    client: &Client,
    version: i16,
    transaction: &AddPartitionsToTxnTransaction,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let codes = codes(node, client, version, transaction).await;
    results(&transaction.topics, |name, partition| {
        codes.code(version, name, partition)
    })
}

/// One code for all, or one each.
enum Codes {
    All(ErrorCode),
    Each(BTreeMap<(Arc<str>, i32), ErrorCode>),
}

impl Codes {
    fn code(&self, version: i16, name: &str, partition: i32) -> ErrorCode {
        let code = match self {
            Codes::All(code) => *code,
            Codes::Each(codes) => codes
                .get(&(Arc::from(name), partition))
                .copied()
                .unwrap_or(ErrorCode::None),
        };
        match code {
            ErrorCode::ProducerFenced if version < 2 => ErrorCode::InvalidProducerEpoch,
            code => code,
        }
    }
}

/// partitions first, then the id, then what its coordinator says.
async fn codes(
    node: &Node,
    client: &Client,
    version: i16,
    transaction: &AddPartitionsToTxnTransaction,
) -> Codes {
    if let Some(refused) = refused(node, version, &transaction.topics) {
        return Codes::Each(refused);
    }
    if transaction.transactional_id.is_empty() {
        return Codes::All(ErrorCode::InvalidRequest);
    }
    let transactional_id: Arc<str> = Arc::from(transaction.transactional_id.as_str());
    let producer_id = ProducerId(transaction.producer_id.0);
    let producer_epoch = ProducerEpoch(transaction.producer_epoch);
    let partitions = partitions(&transaction.topics);
    let command = if version >= 4 && transaction.verify_only {
        let transactional_id = Arc::clone(&transactional_id);
        Command::VerifyPartitions {
            transactional_id,
            producer_id,
            producer_epoch,
            partitions,
        }
    } else {
        let flow = if version >= 4 { Flow::Tv2 } else { Flow::Tv1 };
        let transactional_id = Arc::clone(&transactional_id);
        Command::AddPartitions {
            transactional_id,
            producer_id,
            producer_epoch,
            partitions,
            flow,
        }
    };
    let response = if version >= 4 {
        node.transaction(&transactional_id, command).await
    } else {
        let speaker = client.speaker(Call::AddPartitions, producer_id, producer_epoch);
        node.transaction_in_order(client, speaker, &transactional_id, command)
            .await
    };
    match response {
        Ok(Response::AddPartitions(code))
        | Ok(Response::VerifyPartitions(Err(code)))
        | Err(code) => Codes::All(code),
        Ok(Response::VerifyPartitions(Ok(codes))) => Codes::Each(
            codes
                .into_iter()
                .map(|(name, code)| ((name.topic, name.partition), code))
                .collect(),
        ),
        Ok(_) => Codes::All(ErrorCode::UnknownServerError),
    }
}

/// one partition that can't join keeps all others out.
fn refused(
    node: &Node,
    version: i16,
    topics: &[AddPartitionsToTxnTopic],
) -> Option<BTreeMap<(Arc<str>, i32), ErrorCode>> {
    let mut any = false;
    let mut codes = BTreeMap::new();
    for topic in topics {
        for &partition in &topic.partitions {
            let name = topic.name.as_str();
            let code = if version < 4 && INTERNAL_TOPICS.contains(&name) {
                ErrorCode::TopicAuthorizationFailed
            } else if node.metadata.partition_id(name, partition).is_none() {
                ErrorCode::UnknownTopicOrPartition
            } else {
                ErrorCode::OperationNotAttempted
            };
            any |= code != ErrorCode::OperationNotAttempted;
            codes.insert((Arc::from(name), partition), code);
        }
    }
    any.then_some(codes)
}

fn partitions(topics: &[AddPartitionsToTxnTopic]) -> Vec<TopicPartition> {
    topics
        .iter()
        .flat_map(|topic| {
            let name: Arc<str> = Arc::from(topic.name.as_str());
            topic
                .partitions
                .iter()
                .map(move |&partition| TopicPartition {
                    topic: Arc::clone(&name),
                    partition,
                })
        })
        .collect()
}

fn results(
    topics: &[AddPartitionsToTxnTopic],
    code: impl Fn(&str, i32) -> ErrorCode,
) -> Vec<AddPartitionsToTxnTopicResult> {
    topics
        .iter()
        .map(|topic| {
            let mut result = AddPartitionsToTxnTopicResult::default();
            result.name = topic.name.clone();
            result.results_by_partition = topic
                .partitions
                .iter()
                .map(|&partition| {
                    AddPartitionsToTxnPartitionResult::default()
                        .with_partition_index(partition)
                        .with_partition_error_code(code(topic.name.as_str(), partition).code())
                })
                .collect();
            result
        })
        .collect()
}
