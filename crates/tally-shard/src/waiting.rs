//! What waits for the journal: replies, markers' results and the high watermark leave in the order of their tickets.
//!
//! Invariant: tickets enter in rising order, so the queue is a FIFO and "durable up to T" releases a prefix (N1, R2).
//! A reply that wrote nothing waits on the last ticket given out: it may have seen what that ticket stands for.

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
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    queue: VecDeque<(Ticket, Held)>,
}

impl Waiting {
    /// Holds `held` until `ticket` is durable.
    pub(crate) fn hold(&mut self, ticket: Ticket, held: Held) {
        debug_assert!(
            self.queue.back().is_none_or(|(last, _)| *last <= ticket),
            "tickets rise"
        );
        self.queue.push_back((ticket, held));
    }

    /// Everything that still waits, because it never will be durable.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Held> {
        self.queue.drain(..).map(|(_, held)| held)
    }

    /// The next thing that may happen now that everything up to `durable` is durable.
    pub(crate) fn release(&mut self, durable: Ticket) -> Option<Held> {
        if self.queue.front()?.0 > durable {
            return None;
        }
        self.queue.pop_front().map(|(_, held)| held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::ErrorCode;

    fn reply(to: u64) -> Held {
        Held::Reply(ReplyTo(to), ShardReply::Read(Err(ErrorCode::None)))
    }

    #[test]
    fn n1_nothing_leaves_before_its_ticket_is_durable() {
        let mut waiting = Waiting::default();
        waiting.hold(Ticket(1), reply(1));
        waiting.hold(Ticket(2), reply(2));
        assert!(waiting.release(Ticket(0)).is_none());
        assert!(matches!(
            waiting.release(Ticket(1)),
            Some(Held::Reply(ReplyTo(1), _))
        ));
        assert!(waiting.release(Ticket(1)).is_none());
        assert!(matches!(
            waiting.release(Ticket(9)),
            Some(Held::Reply(ReplyTo(2), _))
        ));
    }
}
