//! Shards with real files: what a client would see, over restarts.

mod compaction;
mod compaction_crash;
mod compaction_races;
mod durability;
mod flush;
mod history;
mod log_start;
mod lost_power;
mod power_cut;
mod refusals;
mod restart;
mod retention;
mod transactions;
mod world;
