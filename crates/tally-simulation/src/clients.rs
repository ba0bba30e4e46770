//! Models of clients: each has one thing to do at a time, and does it again until it is answered, as real ones do.

pub(crate) mod member;
pub(crate) mod operator;
pub(crate) mod reader;
pub(crate) mod requests;
pub(crate) mod transactor;
pub(crate) mod writer;

use crate::model::Model;
use crate::network::Network;
use tally_protocol::ErrorCode;

/// Somebody who works.
pub(crate) trait Client {
    /// Looks at what came, and does what is next. An error is something that must not happen.
    fn step(&mut self, network: &mut Network, model: &mut Model) -> Result<(), String>;

    /// Begins nothing new from now on.
    fn finish(&mut self);

    /// Whether nothing is under way.
    fn is_done(&self) -> bool;

    /// Who it is, and what it is doing.
    fn describe(&self) -> String;
}

/// Answers after which the same is asked again (exactly-once.md section 7).
pub(crate) fn is_passing(code: i16) -> bool {
    [
        ErrorCode::NotLeaderOrFollower,
        ErrorCode::RequestTimedOut,
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotCoordinator,
        ErrorCode::NotEnoughReplicas,
        ErrorCode::ConcurrentTransactions,
        ErrorCode::KafkaStorageError,
        ErrorCode::UnstableOffsetCommit,
    ]
    .iter()
    .any(|passing| passing.code() == code)
}
