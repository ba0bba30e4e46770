//! The records of the internal topics, in Kafka's own layouts, so that Kafka's tools and a copied topic stay readable
//! (GN-5, S-7).
//!
//! Keys begin with an int16 that says what the record is; values begin with an int16 version; a null value is a
//! tombstone. A key or value of an unknown version is skipped by the reader, never guessed at (S-8).

pub mod consumer_group;
pub mod offsets_log;
pub mod transaction_log;

use crate::wire::Malformed;
use thiserror::Error;

/// Why a record of an internal topic can't be read: the log is corrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes are not the announced version.
    #[error("the record is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The state byte of a transaction is none of 0 to 7.
    #[error("the transaction state {0} is not known")]
    UnknownTransactionState(i8),
}
