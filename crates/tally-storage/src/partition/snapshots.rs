//! The snapshots of a partition: what the batches below an offset amount to, for those who would have to read them all.
//!
//! Invariants: the newest two are kept, and the newest that no cut of the last segment can reach. With durability `commit` and
//! `always` the newest anchor is kept too: a snapshot that is on the disk, as is the log up to it. What lies below the log start
//! can't be read again (D-10), nor the markers that compaction has removed, and a power cut may take every snapshot that was not
//! synced, and those above what it leaves of the log: so the log start moves, and compaction goes, up to an anchor at most.

use super::PartitionLog;
use crate::data_dir::Trust;
use crate::disk::{self, SegmentFile, Sync};
use crate::error::{StorageError, failed};
use crate::segment::{Place, SNAPSHOT, TXN_INDEX};
use std::io;
use tally_protocol::Offset;

/// Snapshots kept besides the anchor and the one that a cut of the last segment can't reach.
const SNAPSHOTS_KEPT: usize = 2;

impl PartitionLog {
    /// Which of the snapshots that were found a power cut leaves. After a kill the file system was synced before anything was
    /// opened; a clean stop has synced the newest. After a power cut nobody can tell: a start may have been killed since that
    /// wrote more than the power left, so all are kept until there is an anchor.
    pub(super) fn find_anchors(&mut self, place: Place<'_>, trust: Trust) {
        if !place.dir.has_journal() {
            return;
        }
        if !place.dir.has_failed() && trust == Trust::Killed {
            self.anchors.extend(&self.snapshots);
        } else if self.rests_on_snapshots() {
            // Older ones may be what is left where the newest is not what it should be.
            self.promised.extend(&self.snapshots);
            if place.dir.has_failed() {
                self.write_snapshots_anew(place);
            } else if trust == Trust::Clean {
                self.anchors.extend(self.snapshots.last());
            }
        }
    }

    /// After a failed sync nobody knows what of a file is on the disk, whatever a later sync says. One that can't be
    /// written now is no anchor; it is kept until there is one.
    fn write_snapshots_anew(&mut self, place: Place<'_>) {
        for at in self.snapshots.clone() {
            let path = place.file(at, SNAPSHOT);
            let written = disk::read(&path).and_then(|bytes| {
                let bytes = bytes.ok_or(io::ErrorKind::NotFound)?;
                disk::replace(&path, &bytes, Sync::Yes)
            });
            match written {
                Ok(()) => _ = self.anchors.insert(at),
                Err(error) => {
                    self.unsynced_for_good.insert(at);
                    tracing::warn!(partition = %place.id, path = %path.display(), %error, "cannot write a snapshot anew");
                }
            }
        }
    }

    /// Whether replaying the log alone would give something else than a snapshot and what follows it.
    fn rests_on_snapshots(&self) -> bool {
        self.log_start > Offset::ZERO || self.checkpoint.gaps_below > Offset::ZERO
    }

    /// Writes a snapshot that is valid at `at`, and drops those that it makes useless.
    pub(crate) fn write_snapshot(
        &mut self,
        place: Place<'_>,
        at: Offset,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        if self.segments.is_empty() {
            return Ok(());
        }
        // A snapshot ends the replay that would find a lost row again.
        for segment in &mut self.segments {
            let path = place.file(segment.base, TXN_INDEX);
            segment.sync_rows(place).map_err(failed("write", path))?;
        }
        self.sum_rows(place, at)
            .map_err(failed("write the row sums of", place.directory()))?;
        let path = place.file(at, SNAPSHOT);
        // What may be on the disk under this name must not give way to what is not.
        let sync = match self.anchors.contains(&at) || self.promised.contains(&at) {
            true => Sync::Yes,
            false => Sync::No,
        };
        disk::replace(&path, bytes, sync).map_err(failed("write", &path))?;
        self.unsynced_for_good.remove(&at);
        if let Err(position) = self.snapshots.binary_search(&at) {
            self.snapshots.insert(position, at);
        }
        self.drop_useless_snapshots(place);
        Ok(())
    }

    /// Keeps the newest ones, the newest that is not above the last segment, as recovery may cut that segment anywhere, and what
    /// a power cut leaves.
    fn drop_useless_snapshots(&mut self, place: Place<'_>) {
        let floor = self.segments.last().map_or(self.log_end, |last| last.base);
        let below = self.snapshots.partition_point(|at| *at <= floor);
        let newest = self.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        let anchor = self.anchor();
        let useless: Vec<Offset> = (0..newest)
            .filter(|at| at + 1 != below)
            .map(|at| self.snapshots[at])
            .filter(|at| Some(*at) != anchor && !self.promised.contains(at))
            .collect();
        for at in useless {
            self.drop_snapshot(place, at);
        }
    }

    /// The newest snapshot that a power cut leaves.
    fn anchor(&self) -> Option<Offset> {
        self.anchors.last().copied()
    }

    /// Keeps a snapshot until it has become an anchor, or a later one has.
    pub(crate) fn promise_snapshot(&mut self, at: Offset) {
        if self.snapshots.binary_search(&at).is_ok() {
            self.promised.insert(at);
        }
    }

    /// Makes an anchor of a snapshot: the caller knows that the log is on the disk up to there.
    pub(crate) fn anchor_snapshot(
        &mut self,
        place: Place<'_>,
        at: Offset,
    ) -> Result<(), StorageError> {
        let path = place.file(at, SNAPSHOT);
        if self.unsynced_for_good.contains(&at) {
            let earlier = io::Error::other("an earlier sync of it failed");
            return Err(failed("sync", path)(earlier));
        }
        if !self.anchors.contains(&at) {
            let synced = SegmentFile::open(&path)
                .and_then(|file| file.sync())
                .and_then(|()| disk::sync_directory(&place.directory()));
            if let Err(error) = synced {
                self.unsynced_for_good.insert(at);
                return Err(failed("sync", path)(error));
            }
        }
        if place.dir.has_journal() {
            self.anchors.insert(at);
            self.promised.retain(|other| *other > at);
            self.drop_useless_snapshots(place);
        }
        Ok(())
    }

    /// The newest snapshot at or above `from` that a power cut could be made to leave, as it leaves the log up to there.
    pub(crate) fn settled_snapshot(&self, place: Place<'_>, from: Offset) -> Option<Offset> {
        let settled = match place.dir.has_journal() {
            true => place.dir.points().get(place.id).offset,
            false => self.log_end,
        };
        let mut newest = self.snapshots.iter().rev().copied();
        let found = newest.find(|at| {
            self.anchors.contains(at) || (*at <= settled && !self.unsynced_for_good.contains(at))
        });
        found.filter(|at| *at >= from)
    }

    /// Keeps a snapshot that the recovery point has not reached yet, so that there is one to make an anchor of when it has.
    pub(crate) fn promise_newest(&mut self, place: Place<'_>) {
        if !place.dir.has_journal() {
            return;
        }
        let settled = place.dir.points().get(place.id).offset;
        if let Some(reached) = self.promised.range(..=settled).next_back().copied() {
            self.promised.retain(|at| *at >= reached);
        }
        let is_next = |at: &Offset| *at > settled;
        if !self.promised.last().is_some_and(is_next) {
            self.promised.extend(self.snapshots.last());
        }
    }

    /// D-10: brings the newest snapshot to the disk before the log start moves, if none is there that knows what will lie below.
    pub(super) fn anchor_at_or_above(
        &mut self,
        place: Place<'_>,
        log_start: Offset,
    ) -> Result<(), StorageError> {
        let newest = self.snapshots.last().copied();
        match newest.filter(|_| self.anchor().is_none_or(|anchor| anchor < log_start)) {
            Some(newest) => self.anchor_snapshot(place, newest),
            None => Ok(()),
        }
    }

    /// Whether the newest snapshot is one that the next run takes for an anchor, and is none yet.
    pub(super) fn wants_anchor(&self, place: Place<'_>) -> Option<Offset> {
        let newest = self.snapshots.last().copied();
        newest.filter(|at| {
            place.dir.has_journal() && self.rests_on_snapshots() && !self.anchors.contains(at)
        })
    }

    /// The offsets of the snapshots, newest first.
    pub(crate) fn snapshots(&self) -> Vec<Offset> {
        self.snapshots.iter().rev().copied().collect()
    }

    /// The bytes of a snapshot.
    pub(crate) fn read_snapshot(place: Place<'_>, at: Offset) -> Result<Vec<u8>, StorageError> {
        let path = place.file(at, SNAPSHOT);
        let bytes = disk::read(&path).map_err(failed("read", &path))?;
        let missing = || failed("read", &path)(io::Error::from(io::ErrorKind::NotFound));
        bytes.ok_or_else(missing)
    }

    /// Removes a snapshot.
    pub(crate) fn drop_snapshot(&mut self, place: Place<'_>, at: Offset) {
        self.snapshots.retain(|kept| *kept != at);
        self.anchors.remove(&at);
        self.promised.remove(&at);
        self.unsynced_for_good.remove(&at);
        let path = place.file(at, SNAPSHOT);
        if let Err(error) = disk::remove_if_present(&path) {
            tracing::warn!(partition = %place.id, path = %path.display(), %error, "cannot remove a snapshot");
        }
    }
}
