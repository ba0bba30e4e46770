//! Simulated parts, builders and a wire client for tests. Never part of a release.
//!
//! - [`wire`]: one connection, frames and typed requests;
//! - [`client`]: the calls that the wire tests make most, as functions;
//! - [`batches`]: record batches with every field open to abuse, and a reader of what a broker returns;
//! - [`broker`]: the real binary as a process, one for all tests of a program or one for a single test;
//! - [`fuzz`]: bodies of the fuzz targets;
//! - [`offline`]: the real binary on a directory that lies there;
//! - [`simulated_disk`]: real files, and what a power cut, a failing or a full disk would leave of them;
//! - [`seed`]: random numbers that are the same in every run;
//! - [`verification`]: refusals by Apache Kafka that are worded for another test's request;
//! - [`waiting`]: waiting for a condition.

#![forbid(unsafe_code)]

pub mod batches;
pub mod broker;
pub mod client;
pub mod fuzz;
pub mod offline;
pub mod seed;
pub mod simulated_disk;
pub mod verification;
pub mod waiting;
pub mod wire;
