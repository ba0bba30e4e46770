//! TxnOffsetCommit (exactly-once.md 6.1): offsets that become visible with the transaction.

use crate::api::transaction::{self, Participant};
use crate::api::{Client, Node};
use crate::metadata::CONSUMER_OFFSETS;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use std::sync::Arc;
use tally_groups::{Command, OffsetToCommit, Response, TransactionalCommitRequest};
use tally_producer_state::Flow;
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId, Sequence};
use tally_shard::{Call, ShardMessage, ShardReply};
use tally_transactions::TopicPartition;

/// Bytes that one offset's record takes besides its strings, at most.
const RECORD_BYTES_MAX: usize = 128;

pub(crate) async fn handle(
    node: &Node,
    client: &Client,
    version: i16,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    // O-1: a partition that is not there is answered 3, the others go on.
    let known = |topic: &TxnOffsetCommitRequestTopic,
                 partition: &TxnOffsetCommitRequestPartition| {
        node.metadata
            .partition_id(topic.name.as_str(), partition.partition_index)
            .is_some()
    };
    let offsets = offsets(node, &request, known);
    let count = offsets.len();
    let codes = if offsets.is_empty() {
        Vec::new()
    } else {
        commit(node, client, version, &request, offsets)
            .await
            .unwrap_or_else(|code| vec![code; count])
    };
    let mut codes = codes.into_iter().map(|code| translate(version, code));
    let topics = request
        .topics
        .iter()
        .map(|topic| {
            let mut result = TxnOffsetCommitResponseTopic::default();
            result.name = topic.name.clone();
            for partition in &topic.partitions {
                let code = if known(topic, partition) {
                    codes.next().unwrap_or(ErrorCode::UnknownServerError)
                } else {
                    ErrorCode::UnknownTopicOrPartition
                };
                result.partitions.push(
                    TxnOffsetCommitResponsePartition::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(code.code()),
                );
            }
            result
        })
        .collect();
    TxnOffsetCommitResponse::default().with_topics(topics)
}

/// What of the request is to be committed, in its order.
fn offsets(
    node: &Node,
    request: &TxnOffsetCommitRequest,
    known: impl Fn(&TxnOffsetCommitRequestTopic, &TxnOffsetCommitRequestPartition) -> bool,
) -> Vec<OffsetToCommit> {
    let mut offsets = Vec::new();
    for topic in &request.topics {
        let name: Arc<str> = Arc::from(topic.name.as_str());
        let topic_id = node.metadata.topic(&name).map(|topic| topic.id);
        for partition in topic
            .partitions
            .iter()
            .filter(|partition| known(topic, partition))
        {
            offsets.push(OffsetToCommit {
                topic: Arc::clone(&name),
                topic_id: topic_id.unwrap_or(tally_protocol::TopicId::ZERO),
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: Arc::from(partition.committed_metadata.as_deref().unwrap_or_default()),
            });
        }
    }
    offsets
}

/// O-1 to O-6: the group's partition joins or is verified, then the offsets are appended; one code each.
async fn commit(
    node: &Node,
    client: &Client,
    version: i16,
    request: &TxnOffsetCommitRequest,
    offsets: Vec<OffsetToCommit>,
) -> Result<Vec<ErrorCode>, ErrorCode> {
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    if group.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let (partition, index) = node
        .group_partition(&group)
        .ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let participant = Participant {
        transactional_id: Arc::from(request.transactional_id.as_str()),
        producer_id: ProducerId(request.producer_id.0),
        producer_epoch: ProducerEpoch(request.producer_epoch),
        call: Call::CommitOffsets,
        flow: if version >= 5 { Flow::Tv2 } else { Flow::Tv1 },
    };
    let guard = transaction::begin(node, partition, &participant, Sequence::NONE).await?;
    if let Some(guard) = guard {
        let name = TopicPartition {
            topic: Arc::from(CONSUMER_OFFSETS),
            partition: index,
        };
        let codes = transaction::ask_coordinator(node, client, &participant, vec![name]).await;
        if let Some(code) = codes.into_iter().find(|code| !code.is_none()) {
            transaction::refused(node, partition, &participant, guard, code);
            return Err(code);
        }
    }
    node.secure_input(
        offsets
            .iter()
            .map(|offset| (&*offset.topic, offset.partition, offset.offset)),
    );
    let size_bytes = offsets
        .iter()
        .map(|offset| RECORD_BYTES_MAX + group.len() + offset.topic.len() + offset.metadata.len())
        .sum();
    let command = Command::CommitTransactionalOffsets(TransactionalCommitRequest {
        group,
        member_id: Arc::from(request.member_id.as_str()),
        instance_id: request.group_instance_id.as_deref().map(Arc::from),
        generation: request.generation_id,
        offsets,
    });
    let message = |to| ShardMessage::TransactionalOffsets {
        command,
        producer_id: participant.producer_id,
        producer_epoch: participant.producer_epoch,
        guard,
        size_bytes,
        to,
    };
    let speaker = (version < 5).then(|| {
        client.speaker(
            Call::CommitOffsets,
            participant.producer_id,
            participant.producer_epoch,
        )
    });
    let reply = node.ask_in_order(partition, speaker, message).reply().await;
    match node.unless_overtaken(client, reply) {
        Some(ShardReply::Group(Ok(Response::CommitTransactionalOffsets(codes)))) => Ok(codes),
        Some(ShardReply::Group(Err(code))) => Err(code),
        Some(_) => Err(ErrorCode::UnknownServerError),
        None => Err(ErrorCode::NotCoordinator),
    }
}

/// O-2, O-5 and section 0.2: what a request of this version can be told.
fn translate(version: i16, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if version < 4 => ErrorCode::InvalidTxnState,
        ErrorCode::CoordinatorLoadInProgress if version < 2 => ErrorCode::CoordinatorNotAvailable,
        code => code,
    }
}
