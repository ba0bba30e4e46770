//! The leader epochs of one partition: which epoch began at which offset (LR-81).
//!
//! Invariants: epochs and offsets both rise strictly. The file is a cache: what it lacks is found again in the batches.

use tally_protocol::{LeaderEpoch, Offset};

/// The epochs, oldest first.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(crate) struct Epochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// All of them, oldest first.
    pub(crate) fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The newest epoch that has written anything.
    pub(crate) fn last(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// Notes that `epoch` wrote a batch at `offset`; returns whether that is news.
    pub(crate) fn note(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        let news = self.last().is_none_or(|last| last < epoch);
        if news {
            // An epoch whose every record was deleted says nothing any more.
            self.cut_end(offset);
            self.entries.push((epoch, offset));
        }
        news
    }

    /// Forgets what began at or after the log's end; returns whether there was any.
    pub(crate) fn cut_end(&mut self, log_end: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(_, start)| *start < log_end);
        self.entries.len() != before
    }

    /// Lets the log begin at `log_start`: the epoch that covers it then begins there.
    pub(crate) fn cut_start(&mut self, log_start: Offset) -> bool {
        let covered = self
            .entries
            .partition_point(|(_, start)| *start <= log_start);
        let Some(covering) = covered.checked_sub(1) else {
            return false;
        };
        let changed = covering > 0 || self.entries[covering].1 != log_start;
        self.entries[covering].1 = log_start;
        self.entries.drain(..covering);
        changed
    }

    /// Where `epoch` ended, as LR-83 says. The current epoch counts as begun at the log's end while it has written
    /// nothing.
    pub(crate) fn end_of(
        &self,
        epoch: LeaderEpoch,
        current: LeaderEpoch,
        log_end: Offset,
    ) -> (LeaderEpoch, Offset) {
        if epoch == LeaderEpoch::NONE || epoch > current {
            return (LeaderEpoch::NONE, Offset::NONE);
        }
        if epoch == current {
            return (epoch, log_end);
        }
        let above = self.entries.partition_point(|(entry, _)| *entry <= epoch);
        let end = self.entries.get(above).map_or(log_end, |(_, start)| *start);
        let found = above.checked_sub(1).map(|at| self.entries[at].0);
        (found.unwrap_or(epoch), end)
    }

    /// The epoch of the first record, if one is known to begin at or before `log_start`.
    pub(crate) fn at_start(&self, log_start: Offset) -> Option<LeaderEpoch> {
        let (epoch, start) = self.entries.first()?;
        (*start <= log_start).then_some(*epoch)
    }

    /// The text of the file: version 0, the number of lines, then `epoch offset`.
    pub(crate) fn encode(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            text.push_str(&format!("{epoch} {start}\n"));
        }
        text
    }

    /// Reads the text; `None` if it is not what `encode` writes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Epochs> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut epochs = Epochs::default();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            let entry = (
                LeaderEpoch(epoch.parse().ok()?),
                Offset(start.parse().ok()?),
            );
            if let Some(last) = epochs.entries.last()
                && (last.0 >= entry.0 || last.1 >= entry.1)
            {
                return None;
            }
            epochs.entries.push(entry);
        }
        (epochs.entries.len() == count).then_some(epochs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let entries = entries.iter();
        Epochs {
            entries: entries
                .map(|(e, o)| (LeaderEpoch(*e), Offset(*o)))
                .collect(),
        }
    }

    #[track_caller]
    fn check_end(epoch: i32, current: i32, expected: (i32, i64)) {
        let found = epochs(&[(2, 0), (4, 10), (7, 25)]).end_of(
            LeaderEpoch(epoch),
            LeaderEpoch(current),
            Offset(40),
        );
        assert_eq!(found, (LeaderEpoch(expected.0), Offset(expected.1)));
    }

    #[test]
    fn lr83_the_end_of_an_epoch() {
        check_end(7, 7, (7, 40));
        check_end(7, 9, (7, 40));
        check_end(9, 9, (9, 40));
        check_end(8, 9, (7, 40));
        check_end(10, 9, (-1, -1));
        check_end(-1, 9, (-1, -1));
        check_end(1, 9, (1, 0));
        check_end(2, 9, (2, 10));
        check_end(3, 9, (2, 10));
        check_end(6, 9, (4, 25));
    }

    #[test]
    fn lr81_both_ends_are_cut_with_the_log() {
        let mut cut = epochs(&[(2, 0), (4, 10), (7, 25)]);
        assert!(cut.cut_start(Offset(12)));
        assert_eq!(cut, epochs(&[(4, 12), (7, 25)]));
        assert!(!cut.cut_start(Offset(12)));
        assert!(cut.cut_end(Offset(25)));
        assert_eq!(cut, epochs(&[(4, 12)]));
        assert!(!cut.cut_start(Offset(3)));
    }

    #[test]
    fn the_text_is_read_back_and_damage_is_noticed() {
        let epochs = epochs(&[(2, 0), (4, 10)]);
        assert_eq!(epochs.encode(), "0\n2\n2 0\n4 10\n");
        assert_eq!(Epochs::decode(b"0\n2\n2 0\n4 10\n"), Some(epochs));
        for bad in [
            "",
            "0\n",
            "1\n0\n",
            "0\n2\n2 0\n",
            "0\n2\n2 5\n4 5\n",
            "0\n1\nx 0\n",
        ] {
            assert_eq!(Epochs::decode(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
