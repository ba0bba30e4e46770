//! A small Kafka client for the commands: it asks what administrators ask, of any broker that speaks the protocol.
//!
//! Invariants:
//! - one request at a time on a connection; every wait is bounded by the time that the user gives the whole command;
//! - a version that both sides know is chosen for each request, or the command says which request the broker does not know;
//! - lengths and counts from the wire are bounded before memory is allocated for them.

mod access;
mod cluster;
mod connection;
mod failure;
mod reading;

pub(crate) use access::ClientConfig;
pub(crate) use cluster::{Cluster, NOT_YET, text};
pub(crate) use connection::Connection;
pub(crate) use failure::{EXIT_PROBLEM, Failure, check, check_told, error_name};
pub(crate) use reading::{Fetched, Manner, Position, Standing, fetch};
