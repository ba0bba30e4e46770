//! What waits for the journal: replies, messages and what readers may see leave once their ticket is durable.
//!
//! Invariants: nothing leaves before its ticket is durable (N1); what has the same ticket leaves in the order in which it
//! came, so a reply never leaves before the readers' bounds that belong to it. What is durable already does not queue behind
//! what waits for a sync: in `commit` both stand side by side (exactly-once.md 8.1).

use crate::message::{Outgoing, ReplyTo, ShardReply};
use std::collections::VecDeque;
use tally_protocol::{Offset, PartitionId};
use tally_storage::Ticket;

/// Something that happens when a ticket is durable.
#[derive(Debug)]
pub(crate) enum Held {
    /// A reply leaves.
    Reply(ReplyTo, ShardReply),
    /// A message leaves.
    Message(Outgoing),
    /// The partition's high watermark moves.
    HighWatermark(PartitionId, Offset),
    /// The partition is synced up to here: decided transactions below no longer hold readers, and an internal topic is seen
    /// that far (`commit`).
    Synced(PartitionId, Offset),
    /// The partition's log start moves: the log is synced as far as the snapshot of its producers goes.
    LogStart(Raise),
}

/// A log start that is to move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raise {
    pub(crate) id: PartitionId,
    /// Where to, in the end.
    pub(crate) wanted: Offset,
    /// The snapshot that knows the producers of what goes; it moves up to there at most.
    pub(crate) snapshot: Offset,
    /// Who has asked.
    pub(crate) to: Option<ReplyTo>,
}

/// The queues.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// What may happen as soon as the journal is known not to have failed.
    ready: VecDeque<Held>,
    /// What waits for a sync, by ticket.
    later: VecDeque<(Ticket, Held)>,
}

impl Waiting {
    /// Holds `held` until `ticket` is durable; everything up to `durable` is.
    pub(crate) fn hold(&mut self, ticket: Ticket, durable: Ticket, held: Held) {
        if ticket <= durable {
            return self.ready.push_back(held);
        }
        // Nearly always the end: tickets rise, but for a shard that asks for what is under way already.
        let place = self.later.partition_point(|(other, _)| *other <= ticket);
        self.later.insert(place, (ticket, held));
    }

    /// Lets `held` happen with the next release: it stands for what is in place, and no sync.
    pub(crate) fn hold_in_place(&mut self, held: Held) {
        self.ready.push_back(held);
    }

    /// The ticket that is waited for first.
    pub(crate) fn first(&self) -> Option<Ticket> {
        self.later.front().map(|(ticket, _)| *ticket)
    }

    /// Everything that still waits, because it never will be durable.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Held> {
        let later = self.later.drain(..).map(|(_, held)| held);
        self.ready.drain(..).chain(later)
    }

    /// The next thing that may happen now that everything up to `durable` is durable.
    pub(crate) fn release(&mut self, durable: Ticket) -> Option<Held> {
        if let Some(held) = self.ready.pop_front() {
            return Some(held);
        }
        if self.later.front()?.0 > durable {
            return None;
        }
        self.later.pop_front().map(|(_, held)| held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::ErrorCode;

    fn reply(to: u64) -> Held {
        Held::Reply(ReplyTo(to), ShardReply::Read(Err(ErrorCode::None)))
    }

    /// Who is answered when everything up to `durable` is durable.
    #[track_caller]
    fn check(waiting: &mut Waiting, durable: u64, expected: &[u64]) {
        let released = std::iter::from_fn(|| waiting.release(Ticket(durable)));
        let answered: Vec<u64> = released
            .map(|held| match held {
                Held::Reply(ReplyTo(to), _) => to,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(answered, expected);
    }

    #[test]
    fn n1_nothing_leaves_before_its_ticket_is_durable() {
        let mut waiting = Waiting::default();
        waiting.hold(Ticket(1), Ticket(0), reply(1));
        waiting.hold(Ticket(2), Ticket(0), reply(2));
        check(&mut waiting, 0, &[]);
        assert_eq!(waiting.first(), Some(Ticket(1)));
        check(&mut waiting, 1, &[1]);
        check(&mut waiting, 1, &[]);
        check(&mut waiting, 9, &[2]);
        assert_eq!(waiting.first(), None);
    }

    #[test]
    fn what_is_in_place_does_not_queue_behind_a_sync() {
        let mut waiting = Waiting::default();
        waiting.hold(Ticket(7), Ticket(3), reply(1));
        waiting.hold(Ticket(3), Ticket(3), reply(2));
        waiting.hold_in_place(reply(3));
        waiting.hold(Ticket(5), Ticket(3), reply(4));
        waiting.hold(Ticket(7), Ticket(3), reply(5));
        check(&mut waiting, 3, &[2, 3]);
        check(&mut waiting, 6, &[4]);
        check(&mut waiting, 7, &[1, 5]);
    }

    #[test]
    fn n9_everything_is_drained() {
        let mut waiting = Waiting::default();
        waiting.hold(Ticket(7), Ticket(3), reply(1));
        waiting.hold_in_place(reply(2));
        assert_eq!(waiting.drain().count(), 2);
        check(&mut waiting, 9, &[]);
    }
}
