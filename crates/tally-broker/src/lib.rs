//! The broker as a library: sockets, Kafka APIs, routing to shards, metadata, configuration.
//!
//! Requests become [`tally_shard::ShardMessage`]s, results become responses of the request's version. The rules of
//! exactly-once are not here: this crate may refuse early, it never decides.

#![forbid(unsafe_code)]

mod api;
mod broker;
pub mod config;
mod durability;
mod health;
mod loggers;
mod metadata;
mod quotas;
mod server;
#[cfg(feature = "simulation")]
pub mod simulation;
#[cfg(not(feature = "simulation"))]
#[path = "no_simulation.rs"]
mod simulation;
mod started;
mod stopping;

pub use broker::{Broker, StartError, StopError, Summary};
pub use loggers::Loggers;
pub use stopping::StopProgress;
