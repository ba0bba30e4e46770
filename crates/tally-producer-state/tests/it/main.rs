//! The rules of the producer state, case by case, and its laws over random histories.

mod epochs;
mod laws_properties;
mod life;
mod markers;
mod partition;
mod sequences;
mod transactions;
