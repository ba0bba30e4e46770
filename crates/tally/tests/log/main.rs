//! The catalogue of log, fetch, metadata and connection behaviour over the wire, under its numbers (L01 to L98), and the
//! tests that pin the API table down: raw frames against the real binary.

mod acls;
mod admin;
mod apis;
mod cluster;
mod cold;
mod compaction;
mod configs;
mod connections;
mod corner;
mod fetch;
mod fetch_sessions;
mod hostile;
mod isolation;
mod list_offsets;
mod metadata;
mod monitors;
mod produce;
mod quotas;
mod retention;
mod rules;
mod security;
mod segments;
mod sessions;
mod topics;
mod validation;
