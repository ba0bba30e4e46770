//! What operators look at: reads of the state that a partition keeps, which change nothing.
//!
//! A partition answers for itself alone; a list for the whole cluster asks every partition of the internal topic.

use std::sync::Arc;
use tally_groups::{ConsumerGroupDescription, GroupDescription, GroupListing};
use tally_transactions::{Description, ListFilter, Listing, Note};

/// What to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Inspection {
    /// The groups hosted here (GR-100).
    Groups,
    /// One group (GR-101).
    Group(Arc<str>),
    /// One group of the `consumer` protocol (GR-102).
    ConsumerGroup(Arc<str>),
    /// The transactional ids hosted here that match (L-2).
    Transactions(ListFilter),
    /// One transactional id (L-1).
    Transaction(Arc<str>),
    /// Why this id was last fenced, aborted or forgotten (B-21).
    Note(Arc<str>),
    /// How much of the disk the log takes.
    SizeBytes,
}

/// What was seen. The variant follows from the [`Inspection`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Inspected {
    /// In order of name.
    Groups(Vec<GroupListing>),
    /// `None`: there is no such group.
    Group(Option<GroupDescription>),
    /// `None`: there is no such group of the `consumer` protocol.
    ConsumerGroup(Option<ConsumerGroupDescription>),
    /// In order of id.
    Transactions(Vec<Listing>),
    /// `None`: there is no such id (105).
    Transaction(Option<Description>),
    /// `None`: nothing happened to it in this life of the broker.
    Note(Option<Note>),
    /// Bytes of batches.
    SizeBytes(u64),
}
