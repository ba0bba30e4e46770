//! Shards with real files: what a client would see, over restarts.

mod restart;
mod retention;
mod transactions;
mod world;
