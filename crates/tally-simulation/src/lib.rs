//! A whole broker without sockets, from a seed: one thread, clocks moved by hand, clients that retry and zombies of both flows
//! of transactions, a network that delays, doubles and loses, a disk that fails, processes that die between any two
//! operations on files (exactly-once.md X-292, house-style section 8).
//!
//! [`run`] is one life story. It ends with a quiet time in which everything has to come to an end (B-20), and with the judge:
//! nothing acknowledged is lost, nothing is doubled, torn or out of order, nothing aborted is seen, no offset is committed
//! without its output. The same seed tells the same story: [`Report::story`] can be compared.

#![forbid(unsafe_code)]

mod clients;
mod judge;
mod many;
mod mistakes;
mod model;
mod network;
mod port;
mod run;

pub use many::{Sum, run_many};
pub use mistakes::{MISTAKES, Mistake, found_by};
pub use network::{Intervention, Mode, Trouble};
pub use run::{Failure, Report, replay_line, run, run_with_cuts};
