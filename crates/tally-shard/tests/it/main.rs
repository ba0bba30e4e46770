//! Shards with real files: what a client would see, over restarts.

mod compaction;
mod durability;
mod power_cut;
mod refusals;
mod restart;
mod retention;
mod transactions;
mod world;
