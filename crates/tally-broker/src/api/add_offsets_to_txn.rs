//! AddOffsetsToTxn: the partition of the offsets topic that owns the group joins the transaction.

use crate::api::{Client, Node};
use crate::metadata::CONSUMER_OFFSETS;
use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use std::sync::Arc;
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tally_shard::Call;
use tally_transactions::{Command, Flow, Response, TopicPartition};

pub(crate) async fn handle(
    node: &Node,
    client: &Client,
    version: i16,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let code = match add(node, client, &request).await {
        ErrorCode::ProducerFenced if version < 2 => ErrorCode::InvalidProducerEpoch,
        code => code,
    };
    AddOffsetsToTxnResponse::default().with_error_code(code.code())
}

async fn add(node: &Node, client: &Client, request: &AddOffsetsToTxnRequest) -> ErrorCode {
    if request.transactional_id.is_empty() {
        return ErrorCode::InvalidRequest;
    }
    let Some((_, partition)) = node.group_partition(request.group_id.as_str()) else {
        return ErrorCode::CoordinatorNotAvailable;
    };
    let transactional_id: Arc<str> = Arc::from(request.transactional_id.as_str());
    let producer_id = ProducerId(request.producer_id.0);
    let producer_epoch = ProducerEpoch(request.producer_epoch);
    let command = Command::AddPartitions {
        transactional_id: Arc::clone(&transactional_id),
        producer_id,
        producer_epoch,
        partitions: vec![TopicPartition {
            topic: Arc::from(CONSUMER_OFFSETS),
            partition,
        }],
        flow: Flow::Tv1,
    };
    // Every version is of the old flow: the new one has no use for this request.
    let speaker = client.speaker(Call::AddOffsets, producer_id, producer_epoch);
    match node
        .transaction_in_order(client, speaker, &transactional_id, command)
        .await
    {
        Ok(Response::AddPartitions(code)) | Err(code) => code,
        Ok(_) => ErrorCode::UnknownServerError,
    }
}
