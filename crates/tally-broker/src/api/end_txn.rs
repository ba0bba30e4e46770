//! EndTxn (exactly-once.md 3.4): v0-4 follow the old flow's rules, v5 those of KIP-890.

use crate::api::{Client, Node};
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId as WireProducerId};
use std::sync::Arc;
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tally_shard::Call;
use tally_transactions::{Command, Flow, Response};

pub(crate) async fn handle(
    node: &Node,
    client: &Client,
    version: i16,
    request: EndTxnRequest,
) -> EndTxnResponse {
    let mut response = EndTxnResponse::default();
    match end(node, client, version, &request).await {
        Ok((producer_id, producer_epoch)) if version >= 5 => {
            response.producer_id = WireProducerId(producer_id.0);
            response.producer_epoch = producer_epoch.0;
        }
        Ok(_) => {}
        Err(code) => {
            let code = match code {
                ErrorCode::ProducerFenced if version < 2 => ErrorCode::InvalidProducerEpoch,
                other => other,
            };
            response.error_code = code.code();
        }
    }
    response
}

async fn end(
    node: &Node,
    client: &Client,
    version: i16,
    request: &EndTxnRequest,
) -> Result<(ProducerId, ProducerEpoch), ErrorCode> {
    if request.transactional_id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let transactional_id: Arc<str> = Arc::from(request.transactional_id.as_str());
    let producer_id = ProducerId(request.producer_id.0);
    let producer_epoch = ProducerEpoch(request.producer_epoch);
    let command = Command::EndTxn {
        transactional_id: Arc::clone(&transactional_id),
        producer_id,
        producer_epoch,
        commit: request.committed,
        flow: if version >= 5 { Flow::Tv2 } else { Flow::Tv1 },
    };
    let response = if version >= 5 {
        node.transaction(&transactional_id, command).await?
    } else {
        let speaker = client.speaker(Call::EndTxn, producer_id, producer_epoch);
        node.transaction_in_order(client, speaker, &transactional_id, command)
            .await?
    };
    match response {
        Response::EndTxn(pair) => pair,
        _ => Err(ErrorCode::UnknownServerError),
    }
}
