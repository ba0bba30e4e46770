//! What Produce and TxnOffsetCommit have in common: the coordinator's word before a partition takes part in a
//! transaction (exactly-once.md 3.5).

use crate::api::{Client, Node};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tally_producer_state as producers;
use tally_producer_state::{Guard, Verification};
use tally_protocol::{ErrorCode, PartitionId, ProducerEpoch, ProducerId, Sequence};
use tally_shard::{Call, ShardMessage, ShardReply};
use tally_transactions as transactions;
use tally_transactions::{Command, Response, TopicPartition};

/// `add.partitions.to.txn.retry.backoff.ms` (V-4).
const RETRY_BACKOFF: Duration = Duration::from_millis(20);
/// `add.partitions.to.txn.retry.backoff.max.ms` over the one above (V-4).
const RETRIES_MAX: u32 = 5;

/// How often [`pause`] looks whether it is over.
const HOLD_AGAIN: Duration = Duration::from_millis(1);

/// Who speaks, for which transaction, under which rules.
#[derive(Debug, Clone)]
pub(crate) struct Participant {
    pub(crate) transactional_id: Arc<str>,
    pub(crate) producer_id: ProducerId,
    pub(crate) producer_epoch: ProducerEpoch,
    /// What it asks for.
    pub(crate) call: Call,
    /// Tv2 adds the partition to the transaction, Tv1 only asks whether it is in (V-2).
    pub(crate) flow: producers::Flow,
}

/// First step: does the partition need the coordinator's word at all (V-1)?
pub(crate) async fn begin(
    node: &Node,
    partition: PartitionId,
    participant: &Participant,
    base_sequence: Sequence,
) -> Result<Option<Guard>, ErrorCode> {
    let message = |to| ShardMessage::BeginVerification {
        producer_id: participant.producer_id,
        producer_epoch: participant.producer_epoch,
        base_sequence,
        flow: participant.flow,
        to,
    };
    match node.ask(partition, message).await {
        Some(ShardReply::Verification(Ok(Verification::NotNeeded))) => Ok(None),
        Some(ShardReply::Verification(Ok(Verification::Needed(guard)))) => Ok(Some(guard)),
        Some(ShardReply::Verification(Ok(Verification::Refuse(refusal)))) => Err(refusal.code()),
        Some(ShardReply::Verification(Err(code))) => Err(code),
        _ => Err(ErrorCode::NotLeaderOrFollower),
    }
}

/// Takes the first step back if `code`, the coordinator's, is for ever: nobody comes back with this producer and epoch.
pub(crate) fn refused(
    node: &Node,
    partition: PartitionId,
    participant: &Participant,
    guard: Guard,
    code: ErrorCode,
) {
    if matches!(
        code,
        ErrorCode::InvalidProducerIdMapping | ErrorCode::ProducerFenced
    ) {
        let dropped = ShardMessage::DropVerification {
            producer_id: participant.producer_id,
            producer_epoch: participant.producer_epoch,
            guard,
        };
        node.shards.tell(partition, dropped);
    }
}

/// Second step: asks the coordinator about `partitions`; one code for each, those of the newest version.
pub(crate) async fn ask_coordinator(
    node: &Node,
    client: &Client,
    participant: &Participant,
    partitions: Vec<TopicPartition>,
) -> Vec<ErrorCode> {
    let count = partitions.len();
    if tally_storage::fault_fails("unasked") {
        // For tests: the bug that would leave a transaction hanging.
        return vec![ErrorCode::None; count];
    }
    let codes = match participant.flow {
        producers::Flow::Tv2 if tally_protocol::planted::is("v2 join") => {
            vec![ErrorCode::None; count]
        }
        producers::Flow::Tv1 if tally_protocol::planted::is("v2 verify") => {
            vec![ErrorCode::None; count]
        }
        producers::Flow::Tv1 => verify(node, client, participant, partitions).await,
        producers::Flow::Tv2 => vec![add(node, participant, partitions).await; count],
    };
    // The gap that V-5 is about.
    pause("verified").await;
    codes
}

/// For tests: stays here for as long as one of them wants it (`hold` of `TALLY_FAULT`); a release knows nothing of it.
async fn pause(point: &str) {
    if let Some(hold) = tally_storage::fault_hold(point) {
        while hold.lasts() {
            tokio::time::sleep(HOLD_AGAIN).await;
        }
    }
}

async fn verify(
    node: &Node,
    client: &Client,
    participant: &Participant,
    partitions: Vec<TopicPartition>,
) -> Vec<ErrorCode> {
    let command = Command::VerifyPartitions {
        transactional_id: Arc::clone(&participant.transactional_id),
        producer_id: participant.producer_id,
        producer_epoch: participant.producer_epoch,
        partitions: partitions.clone(),
    };
    // D-8: after a next transaction has added the partition, only the connection tells its first batch from a late one.
    let speaker = client.speaker(
        participant.call,
        participant.producer_id,
        participant.producer_epoch,
    );
    match node
        .transaction_in_order(client, speaker, &participant.transactional_id, command)
        .await
    {
        Ok(Response::VerifyPartitions(Ok(codes))) => {
            let codes: BTreeMap<TopicPartition, ErrorCode> = codes.into_iter().collect();
            let code = |wanted| codes.get(wanted).copied();
            let missing = ErrorCode::TransactionAbortable;
            let codes = partitions
                .iter()
                .map(|wanted| code(wanted).unwrap_or(missing));
            codes.collect()
        }
        Ok(Response::VerifyPartitions(Err(code))) | Err(code) => vec![code; partitions.len()],
        Ok(_) => vec![ErrorCode::UnknownServerError; partitions.len()],
    }
}

async fn add(node: &Node, participant: &Participant, partitions: Vec<TopicPartition>) -> ErrorCode {
    let mut code = ErrorCode::ConcurrentTransactions;
    for attempt in 0..=RETRIES_MAX {
        if attempt > 0 {
            pause("join.again").await;
            tokio::time::sleep(RETRY_BACKOFF).await;
        }
        let command = Command::AddPartitions {
            transactional_id: Arc::clone(&participant.transactional_id),
            producer_id: participant.producer_id,
            producer_epoch: participant.producer_epoch,
            partitions: partitions.clone(),
            flow: transactions::Flow::Tv2,
        };
        code = match node
            .transaction(&participant.transactional_id, command)
            .await
        {
            Ok(Response::AddPartitions(code)) | Err(code) => code,
            Ok(_) => ErrorCode::UnknownServerError,
        };
        // V-4: markers of the transaction before may still be on their way.
        if code != ErrorCode::ConcurrentTransactions {
            break;
        }
    }
    code
}
