//! The transaction coordinator as a replayable state machine.
//!
//! One [`TransactionCoordinator`] owns the transactional ids of one partition of `__transaction_state` (S-6): their
//! producer ids and epochs (`InitProducerId`), the partitions of the open transaction, its outcome, and who must still
//! get a marker. It knows no log, socket, clock or group: it decides, the runner appends, and [`apply`] is the only way
//! its hard state changes, live and in recovery alike.
//!
//! Rule numbers (I-, S-, A-, V-, E-, T-, L-, D-, B-, CR-) are those of `docs/exactly-once.md`.
//!
//! Invariants:
//! - hard state = `apply` over the records of the log, in order; nothing else is needed to continue after a crash;
//! - the epoch of a producer id never falls, and an outcome once prepared is never changed (E-6);
//! - between Prepare and Complete an id answers nothing but 51 to whoever passes its checks (S-1, last row of 3.10);
//! - markers leave after their Prepare, Complete after every marker, the answer of EndTxn after Complete (E-5, D-6).
//!
//! Not here: rights and argument checks (I-1 to I-4, A-1 to A-3, the broker), ordered connections (D-8, the broker),
//! durability of the producer-id blocks (I-22, the caller).
//!
//! [`apply`]: TransactionCoordinator::apply

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod add_partitions;
mod command;
mod coordinator;
mod describe;
mod end_txn;
mod init_producer_id;
mod markers;
mod power_cut;
mod state;
mod timeout;
mod transitions;

pub use command::{
    Command, Decision, Effect, Flow, MarkerSet, ProducerIdBlock, ReplyTo, Response, Settings,
    TopicPartition, TwoPhase,
};
pub use coordinator::TransactionCoordinator;
pub use describe::{Description, ListFilter, Listing};
pub use power_cut::{Fence, OwedMarkers};
pub use state::{Counters, Note, Reason};
