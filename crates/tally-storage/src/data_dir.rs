//! The data directory: who has it, which format it has, and how it was left.
//!
//! Invariants: one process has the directory, by a lock that the kernel drops when the process ends however it ends. The
//! mark of a clean shutdown is removed before anything else is opened, so that it only ever speaks of the run before.

use crate::checkpoint::{self, Done, Scope};
use crate::cold::Heat;
use crate::disk::{self, SegmentFile, Sync};
use crate::error::{OpenDirError, StorageError, failed};
use crate::recovery_points::{Point, RecoveryPoints};
use crate::redo;
use crate::sync_journal::Durability;
use crate::tail::{Unsynced, lock};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use tally_protocol::{PartitionId, TopicId};

/// The layout that this version reads and writes.
const FORMAT: u32 = 1;
pub(crate) const LOCK: &str = "lock";
pub(crate) const FORMAT_FILE: &str = "format";
pub(crate) const CLEAN: &str = "clean-shutdown";
pub(crate) const BOOT: &str = "boot-id";
pub(crate) const META: &str = "meta";
pub(crate) const SPARE: &str = "spare";
const TOPICS: &str = "topics";
/// Left behind by a failed sync.
pub(crate) const SUSPECT: &str = "sync-failed";
/// The journal of durability `commit` and `always`.
pub(crate) const JOURNAL: &str = "journal";
/// The end of the name of a partition's directory that is being removed.
const DELETED: &str = ".deleted";

/// An open data directory. The lock is held until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    was_clean: bool,
    power_was_cut: bool,
    /// A journal failed in this run: no clean shutdown any more, and what is opened again is walked.
    failed: AtomicBool,
    /// Segments that were written to and not synced since.
    unsynced: Unsynced,
    heat: Heat,
    /// How far all of them are synced.
    points: RecoveryPoints,
    checkpoint: Mutex<()>,
    /// The journal was opened in this run.
    has_journal: AtomicBool,
    /// The durability of this run, once it is known.
    durability: Mutex<Option<Durability>>,
    /// A sync failed: what the kernel has of the segments is written anew above the recovery points.
    suspect: AtomicBool,
    /// Everything is done that the power cut asks for.
    cut_handled: AtomicBool,
    /// Opened since the power was cut.
    opened: Mutex<BTreeSet<PartitionId>>,
    /// Not to be opened any more, with the reason.
    given_up: Mutex<BTreeMap<PartitionId, String>>,
    /// What a run that was not stopped clean left of these was not looked at either in this one.
    unopened: Mutex<BTreeSet<PartitionId>>,
    _lock: SegmentFile,
}

/// How far the files of a partition can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trust {
    /// Everything was trimmed and synced.
    Clean,
    /// The process ended in the middle of something: sealed segments are whole, the last one may not be.
    Killed,
    /// The system went down with it: any page written since the last sync may be missing.
    PowerCut,
}

impl DataDir {
    /// Opens the directory, makes it where it is missing, and takes its lock.
    pub fn open(path: impl AsRef<Path>) -> Result<DataDir, OpenDirError> {
        let root = path.as_ref().to_owned();
        disk::make_directories(&root).map_err(cannot("create", &root))?;
        let lock = take_lock(&root)?;
        let fresh = check_format(&root)?;
        let (was_clean, power_was_cut) = take_marks(&root, fresh)?;
        let topics = root.join(TOPICS);
        disk::make_directories(&topics).map_err(cannot("create", &topics))?;
        let points = RecoveryPoints::load(&root).map_err(cannot("read", &root))?;
        let suspect = disk::read(&root.join(SUSPECT)).map_err(cannot("read", &root))?;
        let dir = DataDir {
            root,
            was_clean,
            power_was_cut,
            failed: AtomicBool::new(false),
            unsynced: Unsynced::default(),
            heat: Heat::default(),
            points,
            checkpoint: Mutex::new(()),
            has_journal: AtomicBool::new(false),
            durability: Mutex::new(None),
            suspect: AtomicBool::new(suspect.is_some()),
            cut_handled: AtomicBool::new(false),
            opened: Mutex::new(BTreeSet::new()),
            given_up: Mutex::new(BTreeMap::new()),
            unopened: Mutex::new(BTreeSet::new()),
            _lock: lock,
        };
        if !dir.was_clean {
            redo::run(&dir, dir.power_was_cut).map_err(OpenDirError::from)?;
            if dir.is_suspect() {
                // With the power memory is gone too: then there is nothing that could be written.
                let ends = match dir.power_was_cut {
                    true => BTreeMap::new(),
                    false => redo::file_ends(&dir).map_err(OpenDirError::from)?,
                };
                dir.clear_suspicion(&ends).map_err(OpenDirError::from)?;
            }
        }
        Ok(dir)
    }

    /// Opens a directory of a run that keeps nothing: whatever another such run has left is removed.
    pub fn open_empty(path: impl AsRef<Path>) -> Result<DataDir, OpenDirError> {
        let root = path.as_ref().to_owned();
        disk::make_directories(&root).map_err(cannot("create", &root))?;
        let lock = take_lock(&root)?;
        remove_all_but_the_lock(&root).map_err(cannot("empty", &root))?;
        drop(lock);
        DataDir::open(root)
    }

    /// Removes everything: the last thing of a run that keeps nothing.
    pub fn remove_everything(&self) -> io::Result<()> {
        remove_all_but_the_lock(&self.root)?;
        disk::remove_directory(&self.root)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whether the run before ended with [`DataDir::mark_clean`], or there was none.
    #[must_use]
    pub fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// Whether the run before did not end cleanly and the system may have gone down with it: the kernel's boot id
    /// differs from the one stored then, or cannot be read.
    #[must_use]
    pub fn power_was_cut(&self) -> bool {
        self.power_was_cut
    }

    /// The durability of the run whose power was cut, if it was.
    #[must_use]
    pub fn power_cut_of(&self) -> Option<Durability> {
        self.power_was_cut.then(|| self.points.durability())
    }

    /// Notes that everything a power cut asks for is done: all partitions are opened, and R-19 is applied and durable.
    /// Until then, and however often the process is killed meanwhile, each start asks for it again.
    pub fn power_cut_handled(&self) -> io::Result<()> {
        if let Some(durability) = *lock(&self.durability) {
            self.points.update(|next| next.durability = durability)?;
        }
        write_boot_id(&self.root)?;
        self.cut_handled.store(true, Ordering::Release);
        Ok(())
    }

    /// Leaves the mark of a clean shutdown: the last thing before the process ends, after every journal's `shutdown`.
    /// Refused once a journal has failed. A run that ends before a power cut is dealt with leaves none, and the next one
    /// goes on with that as after a kill: else transactions from before could be committed. Nor does one that could not
    /// open a partition of a killed run, or one whose sync has failed: the mark would vouch for files that nobody has looked at.
    pub fn mark_clean(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("a journal failed during this run"));
        }
        // The journal holds nothing.
        self.points.update(|next| next.begin(0))?;
        let has_unopened = !lock(&self.unopened).is_empty();
        if !has_unopened {
            disk::remove_if_present(&self.root.join(SUSPECT))?;
        }
        if self.power_was_cut && !self.cut_handled.load(Ordering::Acquire) {
            tracing::warn!(
                "stopped before a power cut was dealt with: the next start goes on with it"
            );
            return Ok(());
        }
        write_boot_id(&self.root)?;
        disk::sync_directory(&self.root.join(TOPICS))?;
        if has_unopened {
            tracing::warn!(
                "partitions were not opened: the next start looks at the files as after a kill"
            );
            return Ok(());
        }
        disk::replace(&self.root.join(CLEAN), b"1\n", Sync::Yes)
    }

    /// The partitions that have files, in order: those of topics that nobody knows any more can be deleted.
    pub fn stored_partitions(&self) -> io::Result<Vec<PartitionId>> {
        let found = list_partitions(&self.root)?;
        let topics = self.root.join(TOPICS);
        for topic in disk::names(&topics)?.unwrap_or_default() {
            if parse_topic(&topic).is_none() {
                continue;
            }
            for name in disk::names(&topics.join(&topic))?.unwrap_or_default() {
                if name.ends_with(DELETED) {
                    disk::remove_directory(&topics.join(&topic).join(&name))?;
                }
            }
            disk::remove_directory_if_empty(&topics.join(&topic));
        }
        Ok(found)
    }

    /// Where the journal is.
    pub(crate) fn journal_path(&self) -> PathBuf {
        self.root.join(JOURNAL)
    }

    /// Where the metadata is.
    pub(crate) fn meta_path(&self) -> PathBuf {
        DataDir::meta_path_in(&self.root)
    }

    /// Where the metadata of `root` is.
    pub(crate) fn meta_path_in(root: &Path) -> PathBuf {
        root.join(META)
    }

    /// Where the space is that is kept for the metadata on a full disk.
    pub(crate) fn spare_path(&self) -> PathBuf {
        self.root.join(SPARE)
    }

    /// Where the files of `partition` are.
    pub(crate) fn partition_path(&self, partition: PartitionId) -> PathBuf {
        DataDir::partition_path_in(&self.root, partition)
    }

    /// Where the files of `partition` are below `root`.
    pub(crate) fn partition_path_in(root: &Path, partition: PartitionId) -> PathBuf {
        let mut path = root.join(TOPICS);
        path.push(partition.topic.to_string());
        path.push(partition.index.to_string());
        path
    }

    /// Removes the files of `partition`. The name goes first, so that a partition is never seen half-removed.
    pub(crate) fn remove_partition(&self, partition: PartitionId) -> io::Result<()> {
        lock(&self.unopened).remove(&partition);
        self.unsynced.forget(partition);
        self.points.forget(partition);
        let path = self.partition_path(partition);
        let doomed = path.with_file_name(format!("{}{DELETED}", partition.index));
        disk::remove_directory(&doomed)?;
        if disk::rename_if_present(&path, &doomed)? {
            if self.has_journal()
                && let Some(topic) = path.parent()
            {
                // with the power the files could come back under the name, below what is written there next.
                disk::sync_directory(topic)?;
            }
            disk::remove_directory(&doomed)?;
        }
        if let Some(topic) = path.parent() {
            disk::remove_directory_if_empty(topic);
        }
        Ok(())
    }

    /// The segments that were written to and not synced since.
    pub(crate) fn unsynced(&self) -> &Unsynced {
        &self.unsynced
    }

    /// How far the segments are synced.
    pub(crate) fn points(&self) -> &RecoveryPoints {
        &self.points
    }

    /// What was appended to all partitions since the start.
    pub(crate) fn heat(&self) -> &Heat {
        &self.heat
    }

    /// Lets the journal be opened once: opening it again would forget what it holds.
    pub(crate) fn take_journal(&self) -> io::Result<()> {
        match self.has_journal.swap(true, Ordering::AcqRel) {
            false => Ok(()),
            true => Err(io::Error::other("it was opened before")),
        }
    }

    /// Lets nobody else take a checkpoint.
    pub(crate) fn one_checkpoint(&self) -> MutexGuard<'_, ()> {
        lock(&self.checkpoint)
    }

    /// Syncs the closed segments that were not, and writes down how far that got, so that a power cut leaves less to be
    /// looked through. For durability `os`, now and then; returns whether there was anything to do. A segment whose sync
    /// fails is never taken for synced.
    pub fn sync_closed(&self) -> Result<bool, StorageError> {
        match checkpoint::run(self, Scope::Closed) {
            Ok(Done::Nothing) => Ok(false),
            Ok(Done::Moved) => Ok(true),
            Ok(Done::NoRoom(error)) => Err(error),
            Err(error) => {
                self.suspect();
                Err(error)
            }
        }
    }

    /// Brings everything of the file system to its disk.
    pub(crate) fn sync_file_system(&self) -> io::Result<()> {
        let synced = SegmentFile::open(&self.root.join(LOCK))?.sync_file_system();
        self.synced(synced)
    }

    /// Says with which durability this run writes. While a power cut is not dealt with, that of the run before counts.
    pub(crate) fn set_durability(&self, durability: Durability) -> io::Result<()> {
        *lock(&self.durability) = Some(durability);
        if self.power_was_cut || self.points.durability() == durability {
            return Ok(());
        }
        self.points.update(|next| next.durability = durability)
    }

    /// Begins a new generation of the journal, in which no group has been written. It has a number that old groups do not
    /// carry, and that nobody can put into his records.
    pub(crate) fn begin_generation(&self) -> io::Result<u64> {
        self.begin_generation_with(|_| {})
    }

    /// The same, and changes the recovery points with it.
    pub(crate) fn begin_generation_with(
        &self,
        change: impl Fn(&mut BTreeMap<PartitionId, Point>),
    ) -> io::Result<u64> {
        let counter = self.points.current().counter;
        let generation = disk::random(counter)?.max(1);
        self.points.update(|next| {
            next.begin(generation);
            change(&mut next.points);
        })?;
        Ok(generation)
    }

    /// Whether a journal failed in this run: what is opened now was perhaps opened before.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Notes that a sync failed: what was not synced before is written anew when it is opened, in this run or, if it ends
    /// before that, in the next one.
    pub(crate) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
        let path = self.root.join(SUSPECT);
        if let Err(error) = disk::replace(&path, b"", Sync::No) {
            tracing::error!(path = %path.display(), %error, "cannot write down that a sync failed");
        }
    }

    /// The outcome of a sync of a segment, which is not tried again as it is.
    pub(crate) fn synced(&self, outcome: io::Result<()>) -> io::Result<()> {
        if outcome.is_err() {
            self.suspect();
        }
        outcome
    }

    /// Whether a sync failed whose bytes may still be in memory alone.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// Writes anew what a failed sync may have left in memory alone, up to these ends.
    pub(crate) fn clear_suspicion(
        &self,
        ends: &BTreeMap<PartitionId, Point>,
    ) -> Result<(), StorageError> {
        redo::rewrite(self, ends);
        self.suspect.store(false, Ordering::Release);
        if !lock(&self.given_up).is_empty() {
            // The next start tries again.
            return Ok(());
        }
        let path = self.root.join(SUSPECT);
        disk::remove_if_present(&path).map_err(failed("remove", &path))
    }

    /// Notes that all that lies below these ends is on the disk. Partitions that were not looked at since a power cut may
    /// hold what must not be taken.
    pub(crate) fn cover(&self, ends: &BTreeMap<PartitionId, Point>) -> Result<(), StorageError> {
        let opened = lock(&self.opened).clone();
        let given_up = lock(&self.given_up).clone();
        redo::cover(self, ends, |id| {
            !given_up.contains_key(&id) && (!self.power_was_cut || opened.contains(&id))
        })
    }

    /// Lets a partition not be opened in this run.
    pub(crate) fn give_up(&self, partition: PartitionId, reason: String) {
        lock(&self.given_up).insert(partition, reason);
        self.distrust();
    }

    /// Why a partition can't be opened in this run.
    pub(crate) fn given_up(&self, partition: PartitionId) -> Option<String> {
        lock(&self.given_up).get(&partition).cloned()
    }

    /// Notes that a partition can't be opened. One that a clean run has left is as that left it, unless a sync has failed since.
    pub(crate) fn note_unopened(&self, partition: PartitionId) {
        if !self.was_clean() || self.is_suspect() {
            lock(&self.unopened).insert(partition);
        }
    }

    /// Notes that what a power cut left of a partition was looked at.
    pub(crate) fn note_opened(&self, partition: PartitionId) {
        lock(&self.unopened).remove(&partition);
        if self.power_was_cut {
            lock(&self.opened).insert(partition);
        }
    }

    /// Whether segments that were closed are synced within seconds.
    pub(crate) fn has_journal(&self) -> bool {
        self.has_journal.load(Ordering::Acquire)
    }

    /// How far files of a partition can be trusted that are opened now.
    pub(crate) fn trust(&self, partition: PartitionId) -> Trust {
        if self.power_was_cut && !lock(&self.opened).contains(&partition) {
            Trust::PowerCut
        } else if self.was_clean && !self.failed.load(Ordering::Acquire) {
            Trust::Clean
        } else {
            Trust::Killed
        }
    }

    /// Notes that a journal failed.
    pub(crate) fn distrust(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

fn cannot(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenDirError {
    move |source| OpenDirError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

fn take_lock(root: &Path) -> Result<SegmentFile, OpenDirError> {
    let path = root.join(LOCK);
    let Some(lock) = disk::lock(&path).map_err(cannot("lock", &path))? else {
        return Err(OpenDirError::AlreadyInUse {
            path: root.to_owned(),
            pid: lock_holder(&path),
        });
    };
    let pid = format!("{}\n", std::process::id());
    lock.truncate(0)
        .and_then(|()| lock.write_at(pid.as_bytes(), 0))
        .map_err(cannot("write", &path))?;
    Ok(lock)
}

/// Where the lock of `root` is.
pub(crate) fn lock_path(root: &Path) -> PathBuf {
    root.join(LOCK)
}

/// The process that wrote itself into the lock.
pub(crate) fn lock_holder(lock: &Path) -> Option<u32> {
    let holder = disk::read(lock).ok()??;
    String::from_utf8(holder).ok()?.trim().parse().ok()
}

/// What the `format` file of `root` says, if this version reads it; for those who only look.
pub(crate) fn readable_format(root: &Path) -> Result<String, OpenDirError> {
    let path = root.join(FORMAT_FILE);
    let found = disk::read(&path).map_err(cannot("read", &path))?;
    let found = found.map_or_else(
        || "(missing)".to_owned(),
        |bytes| String::from_utf8_lossy(&bytes).trim().to_owned(),
    );
    if found.parse() == Ok(FORMAT) {
        return Ok(found);
    }
    Err(OpenDirError::UnsupportedFormat {
        path: root.to_owned(),
        found,
        supported: FORMAT,
    })
}

/// Whether the mark of a clean shutdown is there.
pub(crate) fn has_clean_mark(root: &Path) -> io::Result<bool> {
    Ok(disk::read(&root.join(CLEAN))?.is_some_and(|mark| mark == b"1\n"))
}

/// The partitions that have files, in order.
pub(crate) fn list_partitions(root: &Path) -> io::Result<Vec<PartitionId>> {
    let mut found = Vec::new();
    let topics = root.join(TOPICS);
    for topic in disk::names(&topics)?.unwrap_or_default() {
        let Some(id) = parse_topic(&topic) else {
            continue;
        };
        for name in disk::names(&topics.join(&topic))?.unwrap_or_default() {
            if let Ok(index) = name.parse() {
                found.push(PartitionId { topic: id, index });
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn remove_all_but_the_lock(root: &Path) -> io::Result<()> {
    for name in disk::names(root)?.unwrap_or_default() {
        let path = root.join(&name);
        if name == LOCK {
            continue;
        }
        match disk::names(&path) {
            Ok(Some(_)) => disk::remove_directory(&path)?,
            Ok(None) | Err(_) => disk::remove_if_present(&path)?,
        }
    }
    Ok(())
}

/// Returns whether the directory is new.
fn check_format(root: &Path) -> Result<bool, OpenDirError> {
    let path = root.join(FORMAT_FILE);
    let Some(bytes) = disk::read(&path).map_err(cannot("read", &path))? else {
        let has_data = disk::names(root)
            .map_err(cannot("list", root))?
            .unwrap_or_default()
            .iter()
            .any(|name| name == META || name == TOPICS);
        if has_data {
            return Err(OpenDirError::UnsupportedFormat {
                path: root.to_owned(),
                found: "(missing)".to_owned(),
                supported: FORMAT,
            });
        }
        let text = format!("{FORMAT}\n");
        disk::replace(&path, text.as_bytes(), Sync::Yes).map_err(cannot("write", &path))?;
        return Ok(true);
    };
    let found = String::from_utf8_lossy(&bytes).trim().to_owned();
    if found.parse() == Ok(FORMAT) {
        Ok(false)
    } else {
        Err(OpenDirError::UnsupportedFormat {
            path: root.to_owned(),
            found,
            supported: FORMAT,
        })
    }
}

/// Takes the mark of a clean shutdown away. Returns whether the run before was clean and whether the system may have gone
/// down with it.
fn take_marks(root: &Path, fresh: bool) -> Result<(bool, bool), OpenDirError> {
    let clean = root.join(CLEAN);
    let was_clean = has_clean_mark(root).map_err(cannot("read", &clean))?;
    let boot = root.join(BOOT);
    let same_boot = is_same_boot(root).map_err(cannot("read", &boot))?;
    let was_clean = was_clean || fresh;
    if was_clean {
        // Before the mark goes: a run that is killed from here on belongs to this boot.
        write_boot_id(root).map_err(cannot("write", &boot))?;
    }
    disk::remove_if_present(&clean).map_err(cannot("remove", &clean))?;
    disk::sync_directory(root).map_err(cannot("sync", root))?;
    Ok((was_clean, !was_clean && !same_boot))
}

/// Whether the kernel has run since the directory was last used.
fn is_same_boot(root: &Path) -> io::Result<bool> {
    let before = disk::read(&root.join(BOOT))?;
    Ok(match (disk::boot_id(), before) {
        (Some(now), Some(before)) => before.trim_ascii_end() == now.as_bytes(),
        _ => false,
    })
}

/// Whether the next start has to deal with a power cut.
pub(crate) fn lost_power(root: &Path) -> io::Result<bool> {
    Ok(!has_clean_mark(root)? && !is_same_boot(root)?)
}

/// Stores the id of this run of the kernel, unless it is there.
fn write_boot_id(root: &Path) -> io::Result<()> {
    let path = root.join(BOOT);
    let text = format!("{}\n", disk::boot_id().unwrap_or_default());
    if disk::read(&path)?.is_some_and(|before| before == text.as_bytes()) {
        return Ok(());
    }
    disk::replace(&path, text.as_bytes(), Sync::Yes)
}

/// A topic's id from the name of its directory.
fn parse_topic(name: &str) -> Option<TopicId> {
    let mut id = [0; 16];
    let digits: Vec<u8> = name.bytes().filter(|byte| *byte != b'-').collect();
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(TopicId(id)).filter(|id| id.to_string() == name)
}
