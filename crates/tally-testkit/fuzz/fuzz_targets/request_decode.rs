//! The shell of a fuzz target: its body is in tally-testkit.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| tally_testkit::fuzz::request_decode(data));
