//! The catalogue of group behaviour over the wire, under its numbers (G01 to G99): raw frames against the real binary.
//! What needs a clock moved by hand is tested in the core (`tally-groups`).

mod admin;
mod consumer_member;
mod consumer_protocol;
mod coordinator;
mod joining;
mod member;
mod offsets;
mod operators;
mod rebalancing;
mod static_members;
mod versions;
