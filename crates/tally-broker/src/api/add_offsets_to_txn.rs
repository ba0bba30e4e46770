//! AddOffsetsToTxn: the partition of the offsets topic that owns the group joins the transaction.

use crate::api::Node;
use crate::metadata::CONSUMER_OFFSETS;
use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use std::sync::Arc;
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tally_transactions::{Command, Flow, Response, TopicPartition};

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let code = match add(node, &request).await {
        ErrorCode::ProducerFenced if version < 2 => ErrorCode::InvalidProducerEpoch,
        code => code,
    };
    AddOffsetsToTxnResponse::default().with_error_code(code.code())
}

async fn add(node: &Node, request: &AddOffsetsToTxnRequest) -> ErrorCode {
    if request.transactional_id.is_empty() {
        return ErrorCode::InvalidRequest;
    }
    let Some((_, partition)) = node.group_partition(request.group_id.as_str()) else {
        return ErrorCode::CoordinatorNotAvailable;
    };
    let transactional_id: Arc<str> = Arc::from(request.transactional_id.as_str());
    let command = Command::AddPartitions {
        transactional_id: Arc::clone(&transactional_id),
        producer_id: ProducerId(request.producer_id.0),
        producer_epoch: ProducerEpoch(request.producer_epoch),
        partitions: vec![TopicPartition {
            topic: Arc::from(CONSUMER_OFFSETS),
            partition,
        }],
        flow: Flow::Tv1,
    };
    match node.transaction(&transactional_id, command).await {
        Ok(Response::AddPartitions(code)) | Err(code) => code,
        Ok(_) => ErrorCode::UnknownServerError,
    }
}
