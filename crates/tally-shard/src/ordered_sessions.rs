//! The ordered-session guard: a request of the old transaction flow that was overtaken is not processed (D-8, B-2, B-3).
//!
//! Before KIP-890 nothing in an EndTxn, AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit or Produce says which of two
//! transactions of the same producer epoch it belongs to. A client that gave up on a request, reconnected and began its
//! next transaction can have the old request, delayed on its way, end or join the wrong one (KAFKA-17754). Connections
//! are numbered in the order in which they were accepted; a request that comes on a lower number than one which this
//! producer has used for the same kind of request was sent before that one, and its sender no longer waits for it.
//!
//! A client may use one connection for its coordinator and another one for its partitions, so kinds are ordered apart. But
//! a connection that carried several kinds for a producer, and was left for a newer one with some of them, was left with
//! all of them: that is what finds a batch that comes after the next transaction has added its partition and before it has
//! sent a batch of its own.
//!
//! Invariants:
//! - it only ever holds back what came on an older connection: a client that speaks on one connection, or on a new one
//!   after each failure, is never refused;
//! - what is remembered is bounded. When very many producers have spoken since, the guard forgets the oldest of them and
//!   lets their requests through, as if it were off for them;
//! - soft state: no connection outlives the process, so a restart has nothing to remember.

use tally_protocol::{PartitionId, ProducerEpoch, ProducerId, SeededMap, planted};

/// Speakers remembered in one generation; there are two, of about 64 bytes for each speaker.
const GENERATION_MAX: usize = 32 * 1024;

/// A kind of request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Call {
    /// A transactional Produce before version 12.
    Produce,
    /// AddPartitionsToTxn before version 4.
    AddPartitions,
    /// AddOffsetsToTxn before version 4.
    AddOffsets,
    /// EndTxn before version 5.
    EndTxn,
    /// TxnOffsetCommit before version 5.
    CommitOffsets,
}

impl Call {
    /// Whether a mistake was planted that lets this kind through.
    fn is_let_through(self) -> bool {
        planted::is("d8")
            || planted::is(match self {
                Call::Produce => "d8 produce",
                Call::AddPartitions => "d8 partitions",
                Call::AddOffsets => "d8 offsets",
                Call::EndTxn => "d8 end",
                Call::CommitOffsets => "d8 commit",
            })
    }
}

/// Who speaks, and on which connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Speaker {
    /// The kind of request.
    pub call: Call,
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch: InitProducerId begins a new order, as it raises the epoch.
    pub producer_epoch: ProducerEpoch,
    /// The number of the connection, in accept order.
    pub connection: u64,
    /// What this connection has carried for the same producer and epoch before.
    pub carried: Calls,
}

/// A set of kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Calls(u8);

impl Calls {
    /// The kinds that a transaction's coordinator is asked.
    const OF_COORDINATOR: [Call; 3] = [Call::AddPartitions, Call::AddOffsets, Call::EndTxn];

    /// With one more.
    #[must_use]
    pub fn with(self, call: Call) -> Calls {
        Calls(self.0 | Calls::bit(call))
    }

    fn has(self, call: Call) -> bool {
        self.0 & Calls::bit(call) != 0
    }

    fn bit(call: Call) -> u8 {
        match call {
            Call::Produce => 1,
            Call::AddPartitions => 2,
            Call::AddOffsets => 4,
            Call::EndTxn => 8,
            Call::CommitOffsets => 16,
        }
    }
}

type Key = (PartitionId, Call, ProducerId, ProducerEpoch);

/// The highest connection that each speaker has used.
#[derive(Debug)]
pub(crate) struct OrderedSessions {
    young: SeededMap<Key, u64>,
    old: SeededMap<Key, u64>,
    generation_max: usize,
    seed: u64,
}

impl OrderedSessions {
    /// Nobody has spoken.
    pub(crate) fn new(seed: u64) -> OrderedSessions {
        OrderedSessions::with_generation_max(seed, GENERATION_MAX)
    }

    fn with_generation_max(seed: u64, generation_max: usize) -> OrderedSessions {
        OrderedSessions {
            young: SeededMap::new(seed),
            old: SeededMap::new(seed),
            generation_max,
            seed,
        }
    }

    /// Notes that `speaker` has spoken to the partition `id`. `false`: it was overtaken by itself on a newer connection.
    pub(crate) fn admit(&mut self, id: PartitionId, speaker: &Speaker) -> bool {
        if self.is_left(id, speaker) {
            return false;
        }
        let key = key(id, speaker, speaker.call);
        if let Some(highest) = self.young.get_mut(&key) {
            if speaker.connection < *highest && !speaker.call.is_let_through() {
                return false;
            }
            *highest = speaker.connection;
            return true;
        }
        let before = self.old.remove(&key);
        if self.young.len() >= self.generation_max {
            self.old = std::mem::replace(&mut self.young, SeededMap::new(self.seed));
        }
        let highest = before.map_or(speaker.connection, |before| before.max(speaker.connection));
        self.young.insert(key, highest);
        highest == speaker.connection || speaker.call.is_let_through()
    }

    /// Whether the producer has asked its coordinator, which `id` is, on a newer connection for something that it used to
    /// ask on this one.
    pub(crate) fn is_left(&self, id: PartitionId, speaker: &Speaker) -> bool {
        if speaker.call.is_let_through() {
            return false;
        }
        let mut carried = Calls::OF_COORDINATOR
            .into_iter()
            .filter(|call| speaker.carried.has(*call));
        carried.any(|call| {
            let key = key(id, speaker, call);
            let highest = self.young.get(&key).or_else(|| self.old.get(&key));
            highest.is_some_and(|highest| speaker.connection < *highest)
        })
    }
}

fn key(id: PartitionId, speaker: &Speaker, call: Call) -> Key {
    (id, call, speaker.producer_id, speaker.producer_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::TopicId;

    const ID: PartitionId = PartitionId {
        topic: TopicId([7; 16]),
        index: 0,
    };

    fn speaker(call: Call, producer: i64, epoch: i16, connection: u64) -> Speaker {
        Speaker {
            call,
            producer_id: ProducerId(producer),
            producer_epoch: ProducerEpoch(epoch),
            connection,
            carried: Calls::default(),
        }
    }

    #[test]
    fn d8_an_older_connection_is_held_back_and_the_newer_one_goes_on() {
        let mut guard = OrderedSessions::new(1);
        assert!(guard.admit(ID, &speaker(Call::EndTxn, 1, 0, 5)));
        assert!(guard.admit(ID, &speaker(Call::EndTxn, 1, 0, 5)));
        assert!(guard.admit(ID, &speaker(Call::EndTxn, 1, 0, 8)));
        assert!(!guard.admit(ID, &speaker(Call::EndTxn, 1, 0, 5)));
        assert!(guard.admit(ID, &speaker(Call::EndTxn, 1, 0, 8)));
    }

    #[test]
    fn d8_kinds_producers_and_epochs_are_ordered_by_themselves() {
        let mut guard = OrderedSessions::new(1);
        assert!(guard.admit(ID, &speaker(Call::EndTxn, 1, 0, 9)));
        assert!(guard.admit(ID, &speaker(Call::AddPartitions, 1, 0, 5)));
        assert!(guard.admit(ID, &speaker(Call::EndTxn, 2, 0, 5)));
        assert!(guard.admit(ID, &speaker(Call::EndTxn, 1, 1, 5)));
        let other = PartitionId { index: 1, ..ID };
        assert!(guard.admit(other, &speaker(Call::EndTxn, 1, 0, 5)));
    }

    #[test]
    fn d8_a_connection_that_was_left_for_one_kind_was_left_for_all_that_it_carried() {
        let mut guard = OrderedSessions::new(1);
        let carried = Calls::default().with(Call::AddPartitions);
        let batch = |connection, carried| Speaker {
            carried,
            ..speaker(Call::Produce, 1, 0, connection)
        };
        assert!(guard.admit(ID, &speaker(Call::AddPartitions, 1, 0, 5)));
        assert!(!guard.is_left(ID, &batch(5, carried)));
        assert!(guard.admit(ID, &speaker(Call::EndTxn, 1, 0, 8)));
        assert!(!guard.is_left(ID, &batch(5, carried)), "not for this kind");
        assert!(guard.admit(ID, &speaker(Call::AddPartitions, 1, 0, 8)));
        assert!(guard.is_left(ID, &batch(5, carried)));
        assert!(!guard.is_left(ID, &batch(8, carried)));
        let apart = batch(5, Calls::default().with(Call::Produce));
        assert!(
            !guard.is_left(ID, &apart),
            "a connection for its partitions alone"
        );
        let late = Speaker {
            carried,
            ..speaker(Call::AddOffsets, 1, 0, 5)
        };
        assert!(!guard.admit(ID, &late));
    }

    #[test]
    fn d8_what_is_remembered_is_bounded_and_who_speaks_stays() {
        let mut guard = OrderedSessions::with_generation_max(1, 10);
        assert!(guard.admit(ID, &speaker(Call::Produce, 0, 0, 9)));
        for producer in 1..100 {
            assert!(guard.admit(ID, &speaker(Call::Produce, producer, 0, 9)));
            assert!(!guard.admit(ID, &speaker(Call::Produce, 0, 0, 8)));
            assert!(guard.young.len() <= 10 && guard.old.len() <= 10);
        }
        assert!(
            guard.admit(ID, &speaker(Call::Produce, 1, 0, 8)),
            "forgotten"
        );
    }
}
