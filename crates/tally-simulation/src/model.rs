//! What the clients know: what they sent, what they were told, and how each transaction ended as far as they know.

#[cfg(doc)]
use crate::network::Network;
use std::collections::BTreeMap;

/// A partition.
pub(crate) type Place = (&'static str, i32);

/// How a transaction ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Nobody has asked for its commit: if it is not committed some day, it must be aborted.
    Open,
    /// Its commit was asked for, and nothing more is known.
    Unknown,
    Committed,
    Aborted,
}

/// One record.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) place: Place,
    pub(crate) value: String,
    /// Where it is, once that was answered.
    pub(crate) offset: Option<i64>,
    /// How often the power had been cut when that was answered ([`Network::plain_cuts`]).
    pub(crate) cuts: u64,
    /// [`Model::births`] when it was sent first.
    pub(crate) births: u64,
}

/// A transaction, or what a producer without transactions has sent.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) writer: String,
    pub(crate) outcome: Outcome,
    /// How often the power had been cut when it began ([`Network::cuts`]).
    pub(crate) cuts: u64,
    /// Its epoch is that of the transaction before it.
    pub(crate) shares_epoch: bool,
    pub(crate) sent: Vec<Sent>,
}

/// Everything.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) transactions: Vec<Transaction>,
    /// Records of producers without transactions.
    pub(crate) plain: Vec<Sent>,
    /// What a read_committed reader was given, with its offset, by partition in the order in which it came.
    pub(crate) seen: BTreeMap<Place, Vec<(i64, String)>>,
    /// Raised when the topic [`REBORN`] is about to be deleted, and when there is a new one for sure.
    pub(crate) births: u64,
    /// Transactions that ended as somebody wished.
    pub(crate) commits: u64,
    pub(crate) aborts: u64,
}

/// The topic that is deleted and made again under its name.
pub(crate) const REBORN: &str = "reborn";
/// The topic that is compacted.
pub(crate) const KEYED: &str = "keyed";

/// The topic that syncs each append, in stories that are about that.
pub(crate) const FLUSHED: &str = "in";

/// The partitions of the simulation: `bank` for transfers, `list` for lists, `in` and `out` for the chains, `work` and `done` for
/// those of a group.
pub(crate) const TOPICS: [(&str, i32); 8] = [
    (REBORN, 2),
    (KEYED, 2),
    ("bank", 2),
    ("list", 3),
    ("in", 2),
    ("out", 2),
    ("work", 2),
    ("done", 2),
];

/// The key of a value: its writer's and its own, where it has one.
pub(crate) fn key_of(value: &str) -> Option<String> {
    let mut parts = value.split('/');
    let (writer, key) = (parts.next()?, parts.nth(1)?);
    key.starts_with('k').then(|| format!("{writer}/{key}"))
}

/// Whether a topic is written to without transactions.
pub(crate) fn is_plain(topic: &str) -> bool {
    matches!(topic, "in" | "work")
}

/// All of them.
pub(crate) fn places() -> impl Iterator<Item = Place> {
    let topics = TOPICS.into_iter();
    topics.flat_map(|(topic, partitions)| (0..partitions).map(move |index| (topic, index)))
}
