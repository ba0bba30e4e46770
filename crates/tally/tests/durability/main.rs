//! What each durability mode keeps and shows (exactly-once.md 8.1), at the wire: each test has brokers of its own.

mod flush;
mod memory;
mod modes;
mod power_cut;
mod transactions;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");
