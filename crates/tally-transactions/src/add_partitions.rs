//! Partitions join a transaction, or are looked up in it (A-4 to A-8, V-2).

use std::sync::Arc;

use tally_protocol::records::transaction_log::TransactionRecord;
use tally_protocol::{ErrorCode, Now, ProducerEpoch, ProducerId};

use crate::command::{Flow, TopicPartition};
use crate::coordinator::TransactionCoordinator;
use crate::transitions::{self, Phase};

impl TransactionCoordinator {
    /// one code for all partitions; `Ok(None)` if they are all in it already, which costs no record.
    pub(crate) fn add_partitions(
        &self,
        now: Now,
        transactional_id: &Arc<str>,
        producer: (ProducerId, ProducerEpoch),
        partitions: &[TopicPartition],
        flow: Flow,
    ) -> Result<Option<TransactionRecord>, ErrorCode> {
        let Some(value) = self.hard.ids.get(transactional_id) else {
            return Err(ErrorCode::InvalidProducerIdMapping);
        };
        let phase = Phase::of(value);
        if phase == Phase::Ending {
            return Err(ErrorCode::ConcurrentTransactions); // before pid and epoch: the next transaction must wait (B-7)
        }
        if producer == transitions::client_pair(value) && transitions::is_prepared(value) {
            return Err(ErrorCode::InvalidTxnState); // KIP-939: whom it was handed to may only end it
        }
        if value.producer_id != producer.0 {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if value.producer_epoch != producer.1 || transitions::is_prepared(value) {
            return Err(ErrorCode::ProducerFenced);
        }
        if phase == Phase::Ongoing && transitions::contains_all(value, partitions) {
            return Ok(None);
        }
        Ok(Some(TransactionRecord {
            transactional_id: Arc::clone(transactional_id),
            value: Some(transitions::ongoing(value, partitions, flow, now)),
        }))
    }

    /// reads the stored state only.
    pub(crate) fn verify_partitions(
        &self,
        transactional_id: &str,
        producer: (ProducerId, ProducerEpoch),
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<(TopicPartition, ErrorCode)>, ErrorCode> {
        let value = self
            .hard
            .ids
            .get(transactional_id)
            .filter(|value| value.producer_id == producer.0)
            .ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if value.producer_epoch != producer.1 || transitions::is_prepared(value) {
            return Err(ErrorCode::ProducerFenced);
        }
        if Phase::of(value) == Phase::Ending {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let answer = |partition: TopicPartition| {
            let code = if transitions::contains(value, &partition) {
                ErrorCode::None
            } else {
                ErrorCode::TransactionAbortable
            };
            (partition, code)
        };
        Ok(partitions.into_iter().map(answer).collect())
    }
}
