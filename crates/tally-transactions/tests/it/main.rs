//! The coordinator from outside: given records, when a command, then exact records and effects.

mod add_partitions;
mod coordinator_properties;
mod describe;
mod end_txn;
mod init_producer_id;
mod markers;
mod power_cut;
mod recovery;
mod tables;
mod timeout;
mod two_phase;
mod world;
