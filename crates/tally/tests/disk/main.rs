//! The disk under the broker: one that is full (a small file system in a mount namespace of the test's own), and files
//! that go while readers still have them.

mod full;
mod mapped;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");
