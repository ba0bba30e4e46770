//! Shards with real files: what a client would see, over restarts.

mod restart;
mod transactions;
mod world;
