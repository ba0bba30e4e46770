//! InitProducerId (exactly-once.md 1.8): I-1 to I-5 are checked here, the rest by the coordinator. Version 6 is that of
//! two-phase commit (KIP-939): where that is off its flags are answered as Apache Kafka 4.3.1 does (T-1).

use crate::api::{Client, Node};
use crate::metadata::Metadata;
use crate::server::heard::Heard;
use crate::server::shards::PRODUCER_ID_BLOCK;
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProducerId as WireProducerId,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tally_protocol::{ErrorCode, ProducerEpoch, ProducerId};
use tally_transactions::{Command, Response, TwoPhase};

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

/// Ids whose owners are kept in mind.
const OWNERS_MAX: usize = 1000;

/// Who has called InitProducerId for a transactional id last: what a person asks whose producer was fenced.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// Oldest call first; an id is there once.
    last: Mutex<VecDeque<(Arc<str>, Owner)>>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) client_id: Arc<str>,
    pub(crate) software: Arc<str>,
    pub(crate) peer: SocketAddr,
    /// Its connection.
    pub(crate) heard: Arc<Heard>,
}

impl Owners {
    fn note(&self, transactional_id: &Arc<str>, client: &Client) {
        let owner = Owner {
            client_id: Arc::from(client.id()),
            software: Arc::from(client.software()),
            peer: client.peer,
            heard: Arc::clone(&client.heard),
        };
        let mut last = self
            .last
            .lock()
            .expect("a broken invariant ends the process, so no lock is ever poisoned");
        last.retain(|(id, _)| id != transactional_id);
        if last.len() >= OWNERS_MAX {
            last.pop_front();
        }
        last.push_back((Arc::clone(transactional_id), owner));
    }

    /// The last to have called for the id, of those kept in mind.
    pub(crate) fn of(&self, transactional_id: &str) -> Option<Owner> {
        let last = self
            .last
            .lock()
            .expect("a broken invariant ends the process, so no lock is ever poisoned");
        let mut found = last.iter().filter(|(id, _)| **id == *transactional_id);
        found.next().map(|(_, owner)| owner.clone())
    }
}

pub(crate) async fn handle(
    node: &Node,
    client: &Client,
    version: i16,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let outcome = init(node, &request).await;
    let mut response = InitProducerIdResponse::default();
    match outcome {
        Ok(granted) => {
            if let Some(id) = request.transactional_id {
                node.owners.note(&Arc::from(id.as_str()), client);
            }
            response.producer_id = WireProducerId(granted.producer.0.0);
            response.producer_epoch = granted.producer.1.0;
            if let Some((producer_id, producer_epoch)) = granted.ongoing {
                response.ongoing_txn_producer_id = WireProducerId(producer_id.0);
                response.ongoing_txn_producer_epoch = producer_epoch.0;
            }
        }
        Err(code) => {
            if code == ErrorCode::InvalidTransactionTimeout {
                let timeout_ms = request.transaction_timeout_ms;
                node.started.refused_timeout(timeout_ms, client.id());
            }
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

/// What a producer is given.
struct Granted {
    producer: (ProducerId, ProducerEpoch),
    /// The transaction that it may only end (KIP-939).
    ongoing: Option<(ProducerId, ProducerEpoch)>,
}

impl Granted {
    fn of(producer: (ProducerId, ProducerEpoch)) -> Granted {
        Granted {
            producer,
            ongoing: None,
        }
    }
}

async fn init(node: &Node, request: &InitProducerIdRequest) -> Result<Granted, ErrorCode> {
    let (producer_id, producer_epoch) = (
        ProducerId(request.producer_id.0),
        ProducerEpoch(request.producer_epoch),
    );
    if (producer_id == ProducerId::NONE) != (producer_epoch == ProducerEpoch::NONE) {
        return Err(ErrorCode::InvalidRequest);
    }
    let Some(transactional_id) = &request.transactional_id else {
        let producer_id = node.producer_ids.take(&node.metadata)?;
        return Ok(Granted::of((producer_id, ProducerEpoch(0))));
    };
    if transactional_id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    let two_phase = TwoPhase {
        is_enabled: request.enable_2_pc,
        keeps_prepared: request.keep_prepared_txn,
    };
    if two_phase != TwoPhase::default() && !node.config.two_phase_commit {
        return Err(match two_phase.is_enabled {
            true => ErrorCode::TransactionalIdAuthorizationFailed, // I-4
            false => ErrorCode::UnsupportedVersion,                // I-5
        });
    }
    let transactional_id: Arc<str> = Arc::from(transactional_id.as_str());
    let timeout_ms = request.transaction_timeout_ms;
    let expected = (producer_id != ProducerId::NONE).then_some((producer_id, producer_epoch));
    let command = if two_phase == TwoPhase::default() {
        Command::InitProducerId {
            transactional_id: Arc::clone(&transactional_id),
            timeout_ms,
            expected,
        }
    } else {
        Command::InitTwoPhase {
            transactional_id: Arc::clone(&transactional_id),
            timeout_ms,
            expected,
            two_phase,
        }
    };
    match node.transaction(&transactional_id, command).await? {
        Response::InitProducerId(pair) => pair.map(Granted::of),
        Response::HandedOver { producer, ongoing } => Ok(Granted {
            producer,
            ongoing: Some(ongoing),
        }),
        _ => Err(ErrorCode::UnknownServerError),
    }
}
