//! Per-partition producer state: duplicates, epochs, open transactions, aborted transactions.
//!
//! One [`ProducerStates`] per partition. It decides whether a batch or a marker may be appended ([`ProducerStates::check`],
//! [`ProducerStates::check_marker`]) and learns what was appended ([`ProducerStates::apply`],
//! [`ProducerStates::apply_marker`]); replay of the log calls the same two.
//!
//! Invariants:
//! - a check changes nothing, and a refused batch leaves its entry as it was (P-41);
//! - what `apply` and `apply_marker` leave behind depends on the log alone (P-65), the time of the last append aside;
//! - an epoch never falls, and a producer has at most one open transaction on a partition.
//!
//! Rules: exactly-once.md sections 1, 3.5 and 4. It knows batch headers only, no coordinator and no disk.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod aborted;
mod check;
mod entry;
mod open_txns;
mod sequence;
mod snapshot;
mod states;
mod traces;
mod verification;
mod view;

pub use aborted::{ABORTED_ROW_BYTES, AbortedTransaction, collect_aborted};
pub use check::{Marker, MarkerRefusal, MarkerVerdict, Refusal, Verdict};
pub use snapshot::SnapshotError;
pub use states::{ProducerDescription, ProducerStates};
pub use traces::Traces;
pub use verification::{Flow, Guard, Verification};
pub use view::{BatchView, ProducerView};
