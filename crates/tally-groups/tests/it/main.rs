//! The groups of one partition, from outside: commands in, records and replies out. Tests carry the numbers of
//! docs/groups.md (GR, G) and docs/exactly-once.md (O).

mod consumer;
mod consumer_classic;
mod consumer_offsets;
mod consumer_properties;
mod join;
mod matrix;
mod membership;
mod offsets;
mod properties;
mod rebalance;
mod recovery;
mod retention;
mod rules;
mod static_members;
mod transactional_offsets;
mod world;
