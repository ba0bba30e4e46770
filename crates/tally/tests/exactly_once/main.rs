//! The catalogue of exactly-once behaviour over the wire, under its numbers (docs/exactly-once.md): raw frames against
//! the real binary. The same tests run against another broker: see `tally_testkit::broker`.

mod admin;
mod committed_offsets;
mod compaction;
mod crash_matrix;
mod crash_modes;
mod crash_points;
mod crashes;
mod delayed;
mod held;
mod idempotent;
mod init_producer_id;
mod log;
mod mutations;
mod operators;
mod power_cuts;
mod restart;
mod rules;
mod tv1;
mod tv2;
mod two_phase;
mod two_phase_kills;
mod world;
