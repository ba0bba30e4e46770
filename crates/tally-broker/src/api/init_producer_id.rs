//! InitProducerId (exactly-once.md 1.8): I-1 to I-4 are checked here, the rest by the coordinator.

use crate::api::Node;
use crate::metadata::Metadata;
use crate::server::shards::PRODUCER_ID_BLOCK;
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProducerId as WireProducerId,
};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tally_transactions::{Command, Response};

/// The ids of producers without a transactional id (I-2).
#[derive(Debug, Default)]
pub(crate) struct PlainProducerIds {
    block: Mutex<Range<i64>>,
}

impl PlainProducerIds {
    /// A new id, of a block that was reserved durably before (I-22).
    fn take(&self, metadata: &Metadata) -> Result<ProducerId, ErrorCode> {
        let mut block = self
            .block
            .lock()
            .expect("a broken invariant ends the process, so no lock is ever poisoned");
        if block.is_empty() {
            *block = metadata
                .reserve_producer_ids(PRODUCER_ID_BLOCK)
                .map_err(|error| {
                    tracing::error!(%error, "no producer ids reserved");
                    ErrorCode::CoordinatorLoadInProgress
                })?;
        }
        let id = block.start;
        block.start += 1;
        Ok(ProducerId(id))
    }
}

pub(crate) async fn handle(
    node: &Node,
    version: i16,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let outcome = init(node, &request).await;
    let mut response = InitProducerIdResponse::default();
    match outcome {
        Ok((producer_id, producer_epoch)) => {
            response.producer_id = WireProducerId(producer_id.0);
            response.producer_epoch = producer_epoch.0;
        }
        Err(code) => {
            let code = match code {
                ErrorCode::ProducerFenced if version < 4 => ErrorCode::InvalidProducerEpoch,
                other => other,
            };
            response.error_code = code.code();
            response.producer_id = WireProducerId(-1);
            response.producer_epoch = -1;
        }
    }
    response
}

async fn init(
    node: &Node,
    request: &InitProducerIdRequest,
) -> Result<(ProducerId, ProducerEpoch), ErrorCode> {
    let (producer_id, producer_epoch) = (
        ProducerId(request.producer_id.0),
        ProducerEpoch(request.producer_epoch),
    );
    if (producer_id == ProducerId::NONE) != (producer_epoch == ProducerEpoch::NONE) {
        return Err(ErrorCode::InvalidRequest);
    }
    let Some(transactional_id) = &request.transactional_id else {
        return Ok((node.producer_ids.take(&node.metadata)?, ProducerEpoch(0)));
    };
    if transactional_id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let transactional_id: Arc<str> = Arc::from(transactional_id.as_str());
    let command = Command::InitProducerId {
        transactional_id: Arc::clone(&transactional_id),
        timeout_ms: request.transaction_timeout_ms,
        expected: (producer_id != ProducerId::NONE).then_some((producer_id, producer_epoch)),
    };
    match node.transaction(&transactional_id, command).await? {
        Response::InitProducerId(pair) => pair,
        _ => Err(ErrorCode::UnknownServerError),
    }
}
