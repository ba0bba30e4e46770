//! The end of one segment, as seen by those who sync it without the lock of its shard.
//!
//! Invariants: what lies below `written` is whole batches that never change, so that they can be read and synced at any
//! time; a segment with bytes that were not synced is in the list of [`Unsynced`] from before its append returns until a
//! checkpoint takes it; a removed segment is never waited for and never missed.

use crate::data_dir::DataDir;
use crate::disk::{self, SegmentFile};
use crate::partition::EPOCHS;
use crate::segment::{LOG, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tally_protocol::ids::to_u64;
use tally_protocol::{Offset, PartitionId};

/// How far a segment is written: both rise together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes of whole batches.
    pub(crate) size: u64,
    /// The offset after the last of them.
    pub(crate) end: Offset,
}

/// What is known of the bytes of a segment.
#[derive(Clone, Copy)]
struct Reach {
    written: Written,
    /// All below is in a group of the journal that was synced, or below a recovery point.
    journaled: Written,
    /// Where the first batch behind `journaled` begins that decides over others, and where the last such one ends.
    decisive: Option<(Written, u64)>,
}

/// One segment that is written to, or was and is not synced.
pub(crate) struct Tail {
    pub(crate) partition: PartitionId,
    /// The first offset of the segment: its name.
    pub(crate) base: Offset,
    /// `None` for a closed one that is opened again when it is synced.
    file: Option<SegmentFile>,
    reach: Mutex<Reach>,
    /// In the list of unsynced segments.
    listed: AtomicBool,
    /// Its name, or the epochs of its partition, may not be on the disk.
    names_unsynced: AtomicBool,
    /// No more appends come.
    sealed: AtomicBool,
    /// Its files are being removed.
    removed: AtomicBool,
    /// A sync of it failed: what the kernel still has of it may not be on the disk, whatever a later sync says.
    failed: AtomicBool,
}

impl Tail {
    /// A segment whose names may not be on the disk; what is below `journaled` is.
    pub(crate) fn new(
        place: Place<'_>,
        base: Offset,
        file: SegmentFile,
        written: Written,
        journaled: Written,
    ) -> Arc<Tail> {
        Tail::make(place.id, base, Some(file), written, journaled)
    }

    /// A closed segment that is opened when it is synced: it keeps no file open until then.
    pub(crate) fn closed(id: PartitionId, base: Offset, written: Written) -> Arc<Tail> {
        let start = Written { size: 0, end: base };
        let tail = Tail::make(id, base, None, written, start);
        tail.seal();
        tail
    }

    fn make(
        partition: PartitionId,
        base: Offset,
        file: Option<SegmentFile>,
        written: Written,
        journaled: Written,
    ) -> Arc<Tail> {
        Arc::new(Tail {
            partition,
            base,
            file,
            reach: Mutex::new(Reach {
                written,
                journaled,
                decisive: None,
            }),
            listed: AtomicBool::new(false),
            names_unsynced: AtomicBool::new(true),
            sealed: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        })
    }

    /// The file of the segment's batches, of one that is not [`Tail::closed`].
    pub(crate) fn file(&self) -> &SegmentFile {
        let file = self.file.as_ref();
        file.expect("only closed segments that nobody reads or writes are without their file")
    }

    /// How far it is written.
    pub(crate) fn written(&self) -> Written {
        lock(&self.reach).written
    }

    /// How far a recovery point may go once the file is synced, and whether that is all there is. Where `all_journaled`
    /// nothing counts that the journal does not hold; else what decides over others does not (R-11 (a)).
    pub(crate) fn reach(&self, all_journaled: bool) -> (Written, bool) {
        let reach = *lock(&self.reach);
        let upto = match reach.decisive {
            _ if all_journaled => reach.journaled,
            Some((before, _)) if before.size > reach.journaled.size => before,
            Some(_) => reach.journaled,
            None => reach.written,
        };
        (upto, upto.size >= reach.written.size)
    }

    /// Notes that `bytes` follow that decide over others: before they are written.
    pub(crate) fn decides(&self, bytes: usize) {
        let mut reach = lock(&self.reach);
        let (written, end) = (reach.written, reach.written.size + to_u64(bytes));
        let (before, last) = reach.decisive.unwrap_or((written, end));
        reach.decisive = Some((before, last.max(end)));
    }

    /// Notes that a group of the journal was synced that holds the bytes up to here.
    pub(crate) fn set_journaled(&self, upto: Written) {
        let mut reach = lock(&self.reach);
        if upto.size > reach.journaled.size {
            reach.journaled = upto;
        }
        if reach
            .decisive
            .is_some_and(|(_, last)| last <= reach.journaled.size)
        {
            reach.decisive = None;
        }
    }

    /// Notes an append whose last byte is in place; returns whether the segment has to be listed.
    #[must_use]
    pub(crate) fn advance(&self, at: Written) -> bool {
        lock(&self.reach).written = at;
        // Read after the lock was let go: whoever took it off the list before that sees this append, see `Unsynced::take`.
        !self.is_listed()
    }

    /// Whether it is in the list of unsynced segments.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// Notes that a name beside the segment was written.
    pub(crate) fn name_written(&self) {
        self.names_unsynced.store(true, Ordering::Release);
    }

    /// Notes that no more appends come.
    pub(crate) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Whether no more appends come.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Notes that the files go: before the first of them does.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// Whether the files go or are gone.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Whether a sync of it failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Brings the batches to the disk, and all names that lead to them. Never a second time after it has failed.
    pub(crate) fn sync(self: &Arc<Tail>, dir: &DataDir) -> io::Result<()> {
        if self.has_failed() {
            return Err(io::Error::other("an earlier sync of it failed"));
        }
        let synced = self.sync_file(dir).and_then(|()| self.sync_names(dir));
        if synced.is_err() {
            self.fail(dir);
        }
        synced
    }

    fn sync_file(&self, dir: &DataDir) -> io::Result<()> {
        if let Some(file) = &self.file {
            return file.sync();
        }
        let place = Place::unmapped(dir, self.partition);
        match SegmentFile::open(&place.file(self.base, LOG)).and_then(|file| file.sync()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_removed() => Ok(()),
            other => other,
        }
    }

    /// Notes that a sync failed. It stays listed, so that no recovery point passes it before its bytes are written anew.
    pub(crate) fn fail(self: &Arc<Tail>, dir: &DataDir) {
        self.failed.store(true, Ordering::Release);
        dir.unsynced().list(self);
    }

    /// Whether its names may not be on the disk; from here on they are taken to be.
    pub(crate) fn take_names(&self) -> bool {
        self.names_unsynced.swap(false, Ordering::AcqRel)
    }

    /// Brings the names to the disk, and the epochs that recovery would not find again behind a recovery point.
    pub(crate) fn sync_names(&self, dir: &DataDir) -> io::Result<()> {
        if !self.take_names() {
            return Ok(());
        }
        let directory = dir.partition_path(self.partition);
        let synced = sync_file_if_present(&directory.join(EPOCHS))
            .and_then(|()| disk::sync_directory_and_parents(&directory, dir.path()));
        match synced {
            Err(_) if self.is_removed() => Ok(()),
            Err(error) => {
                self.name_written();
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }
}

/// Syncs a file; one that is missing is fine.
pub(crate) fn sync_file_if_present(path: &std::path::Path) -> io::Result<()> {
    match SegmentFile::open(path) {
        Ok(file) => file.sync(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Locks what only changes as a whole: a panic elsewhere leaves it good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The segments of a data directory with bytes that were not synced, in the order of partitions and offsets.
#[derive(Default)]
pub(crate) struct Unsynced {
    tails: Mutex<BTreeMap<(PartitionId, Offset), Arc<Tail>>>,
    /// Those taken off the list that somebody still syncs. Locked after the list.
    under_way: Mutex<Vec<Weak<Tail>>>,
}

impl std::fmt::Debug for Unsynced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unsynced").finish_non_exhaustive()
    }
}

impl Unsynced {
    /// Lists a segment.
    pub(crate) fn list(&self, tail: &Arc<Tail>) {
        let mut tails = lock(&self.tails);
        tail.listed.store(true, Ordering::Release);
        tails.insert((tail.partition, tail.base), Arc::clone(tail));
    }

    /// Lists a segment again, unless another look at the same file was listed meanwhile.
    pub(crate) fn list_again(&self, tail: &Arc<Tail>) {
        let mut tails = lock(&self.tails);
        if tail.is_removed() {
            return;
        }
        tails.entry((tail.partition, tail.base)).or_insert_with(|| {
            tail.listed.store(true, Ordering::Release);
            Arc::clone(tail)
        });
    }

    /// The partitions with a segment whose sync failed.
    pub(crate) fn failed(&self) -> BTreeSet<PartitionId> {
        let tails = lock(&self.tails);
        let failed = tails.values().filter(|tail| tail.has_failed());
        failed.map(|tail| tail.partition).collect()
    }

    /// Takes those off the list that `wanted` holds for. An append from here on lists its segment again.
    pub(crate) fn take(&self, wanted: impl Fn(&Tail) -> bool) -> Vec<Arc<Tail>> {
        let mut tails = lock(&self.tails);
        let mut taken = Vec::new();
        tails.retain(|_, tail| {
            let take = wanted(tail);
            if take {
                tail.listed.store(false, Ordering::Release);
                taken.push(Arc::clone(tail));
            }
            !take
        });
        let mut under_way = lock(&self.under_way);
        under_way.retain(|tail| tail.strong_count() > 0);
        under_way.extend(taken.iter().map(Arc::downgrade));
        taken
    }

    /// Notes a segment that somebody is going to sync beside the list, so that he is told when its files go: before anybody can
    /// remove them.
    pub(crate) fn watch(&self, tail: &Arc<Tail>) {
        let mut under_way = lock(&self.under_way);
        under_way.retain(|other| other.strong_count() > 0);
        if !under_way
            .iter()
            .any(|other| other.as_ptr() == Arc::as_ptr(tail))
        {
            under_way.push(Arc::downgrade(tail));
        }
    }

    /// Notes that the files of those go that are being synced.
    fn remove_under_way(&self, goes: impl Fn(&Tail) -> bool) {
        let under_way = lock(&self.under_way);
        let tails = under_way.iter().filter_map(Weak::upgrade);
        tails
            .filter(|tail| goes(tail))
            .for_each(|tail| tail.remove());
    }

    /// Takes a segment off the list whose files are to be removed.
    pub(crate) fn forget_segment(&self, partition: PartitionId, base: Offset) {
        let mut tails = lock(&self.tails);
        if let Some(tail) = tails.remove(&(partition, base)) {
            tail.listed.store(false, Ordering::Release);
            tail.remove();
        }
        self.remove_under_way(|tail| tail.partition == partition && tail.base == base);
    }

    /// Forgets a partition whose files are to be removed.
    pub(crate) fn forget(&self, partition: PartitionId) {
        let gone = self.take(|tail| tail.partition == partition);
        gone.iter().for_each(|tail| tail.remove());
        self.remove_under_way(|tail| tail.partition == partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_protocol::TopicId;

    fn at(size: u64) -> Written {
        let end = Offset(i64::try_from(size / 10).expect("small"));
        Written { size, end }
    }

    /// A point that covers a marker whose decision the journal does not hold yet would let the marker outlive it.
    #[test]
    fn r11_a_point_does_not_pass_what_decides_before_the_journal_holds_it() {
        let id = PartitionId {
            topic: TopicId([1; 16]),
            index: 0,
        };
        let tail = Tail::closed(id, Offset::ZERO, at(0));
        assert!(tail.advance(at(100)), "it has to be listed");
        assert_eq!(
            tail.reach(false),
            (at(100), true),
            "data depends on nothing"
        );
        assert_eq!(tail.reach(true), (at(0), false), "where all is handed over");
        tail.decides(50);
        let _listed = tail.advance(at(150));
        let _listed = tail.advance(at(180));
        assert_eq!(tail.reach(false), (at(100), false));
        tail.set_journaled(at(120));
        assert_eq!(tail.reach(false), (at(120), false), "a part of it");
        tail.decides(20);
        let _listed = tail.advance(at(200));
        tail.set_journaled(at(180));
        assert_eq!(tail.reach(false), (at(180), false), "not the later one");
        tail.set_journaled(at(200));
        let _listed = tail.advance(at(300));
        assert_eq!(tail.reach(false), (at(300), true));
        assert_eq!(tail.reach(true), (at(200), false));
    }

    /// Else its sync would fail for want of a file, and everything would begin anew.
    #[test]
    fn a_segment_that_goes_while_it_is_synced_is_known_to_go() {
        let id = |index| PartitionId {
            topic: TopicId([1; 16]),
            index,
        };
        let unsynced = Unsynced::default();
        let tails = [(0, 0), (0, 10), (1, 0)].map(|(index, base)| {
            let tail = Tail::closed(id(index), Offset(base), at(10));
            unsynced.list(&tail);
            tail
        });
        assert_eq!(unsynced.take(|_| true).len(), 3);
        let removed = || tails.each_ref().map(|tail| tail.is_removed());
        unsynced.forget_segment(id(0), Offset(10));
        assert_eq!(removed(), [false, true, false]);
        unsynced.forget(id(1));
        assert_eq!(removed(), [false, true, true]);
        unsynced.list_again(&tails[1]);
        assert!(!tails[1].is_listed());
    }
}
