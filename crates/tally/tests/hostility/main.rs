//! What clients that are broken, gone or malicious must not be able to do (B-26): end the broker, make it keep what
//! nobody needs, or make it answer megabytes for bytes.

mod names;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");
