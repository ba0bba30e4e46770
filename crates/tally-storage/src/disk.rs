//! Every call that touches a file.
//!
//! Nothing else in the crate opens, writes, syncs, renames or removes, so that a disk with faults can be put here: each call
//! goes through the module `faults`, which is nothing in a release.
//! A name that must never be seen half-written is written under another name, synced where it says so, and renamed.

use crate::faults::{self, Kind, Seen};
use rustix::fs::{FallocateFlags, RawDir};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The end of the name of a file that is being written.
pub(crate) const UNFINISHED: &str = ".tmp";

/// Bytes of names that are asked for at a time: those of a partition come at once.
const NAMES_BYTES: usize = 4096;

/// Whether a write under another name is on the disk when [`replace`] returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// The bytes and the name survive a power cut.
    Yes,
    /// They survive the end of the process.
    No,
}

/// One open file of a partition.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    file: File,
    seen: Seen,
}

/// Where bytes can be sent that nobody wants: the pages come into the cache and are looked at no further.
fn nowhere() -> Option<&'static File> {
    static NOWHERE: OnceLock<Option<File>> = OnceLock::new();
    let open = || OpenOptions::new().write(true).open("/dev/null").ok();
    NOWHERE.get_or_init(open).as_ref()
}

impl SegmentFile {
    /// Makes a file that is not there yet.
    pub(crate) fn create(path: &Path) -> io::Result<SegmentFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        SegmentFile::open_with(path, Kind::Create, &options)
    }

    /// Opens a file to read and write it.
    pub(crate) fn open(path: &Path) -> io::Result<SegmentFile> {
        let mut options = OpenOptions::new();
        SegmentFile::open_with(path, Kind::Open, options.read(true).write(true))
    }

    /// Opens a file to read it alone.
    pub(crate) fn open_to_read(path: &Path) -> io::Result<SegmentFile> {
        let mut options = OpenOptions::new();
        SegmentFile::open_with(path, Kind::Open, options.read(true))
    }

    /// Opens a file to write it, makes it where it is missing.
    pub(crate) fn open_or_create(path: &Path) -> io::Result<SegmentFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        SegmentFile::open_with(path, Kind::OpenOrCreate, &options)
    }

    fn open_with(path: &Path, kind: Kind<'_>, options: &OpenOptions) -> io::Result<SegmentFile> {
        let file = faults::on_path(path, kind, || options.open(path))?;
        Ok(SegmentFile {
            file,
            seen: Seen::new(path),
        })
    }

    /// What observers call it.
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// The file for a memory map.
    pub(crate) fn for_map(&self) -> &File {
        &self.file
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Writes all of `bytes` at `at`; on an error any part of them may be there.
    pub(crate) fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        faults::on_file(self, Kind::Write { at, bytes }, || {
            self.file.write_all_at(bytes, at)
        })
    }

    /// Fills `buffer` from `at`; less than its length only at the end of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        faults::on_file(self, Kind::Read, || self.fill(buffer, at))
    }

    fn fill(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        let mut at = at;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], at) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    at += tally_protocol::ids::to_u64(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Has the page cache read `from..upto`, and waits for it; copies nothing. `false` where the system can't: then it is to be
    /// read. A file that ends before is an error.
    pub(crate) fn bring_in(&self, from: u64, upto: u64) -> io::Result<bool> {
        let Some(nowhere) = nowhere() else {
            return Ok(false);
        };
        faults::on_file(self, Kind::Read, || {
            let mut at = from;
            while at < upto {
                let wanted = tally_protocol::ids::to_usize(upto - at);
                match rustix::fs::sendfile(nowhere, &self.file, Some(&mut at), wanted) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return Ok(false),
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(true)
        })
    }

    /// Takes disk space for `from..upto` without changing the size of the file. Where the file system can't, writes may
    /// still meet a full disk.
    pub(crate) fn reserve(&self, from: u64, upto: u64) -> io::Result<()> {
        faults::on_file(self, Kind::Reserve { from, upto }, || {
            match self.fallocate(FallocateFlags::KEEP_SIZE, from, upto) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                other => other.map_err(io::Error::from),
            }
        })
    }

    /// Makes the file `upto` bytes long, with disk space behind every byte and zeros where there was nothing: a store
    /// into a map of a hole on a full disk would be a signal, not an error.
    pub(crate) fn allocate(&self, from: u64, upto: u64) -> io::Result<()> {
        let taken = faults::on_file(self, Kind::Allocate { from, upto }, || {
            match self.fallocate(FallocateFlags::empty(), from, upto) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
                other => other.map(|()| true).map_err(io::Error::from),
            }
        })?;
        if taken {
            Ok(())
        } else {
            self.write_zeros(from, upto)
        }
    }

    fn fallocate(&self, flags: FallocateFlags, from: u64, upto: u64) -> rustix::io::Result<()> {
        if upto <= from {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.file, flags, from, upto - from) {
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn write_zeros(&self, from: u64, upto: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut at = from;
        while at < upto {
            let piece = (upto - at).min(tally_protocol::ids::to_u64(ZEROS.len()));
            self.write_at(&ZEROS[..tally_protocol::ids::to_usize(piece)], at)?;
            at += piece;
        }
        Ok(())
    }

    /// Cuts the file at `size`, and gives back the space reserved behind it.
    pub(crate) fn truncate(&self, size: u64) -> io::Result<()> {
        faults::on_file(self, Kind::Truncate { size }, || self.file.set_len(size))
    }

    /// Makes the file look as if it had been written to at a time, milliseconds since 1970.
    pub(crate) fn set_modified_ms(&self, modified_ms: i64) -> io::Result<()> {
        let since = Duration::from_millis(u64::try_from(modified_ms).unwrap_or(0));
        faults::on_file(self, Kind::SetModified, || {
            self.file.set_modified(UNIX_EPOCH + since)
        })
    }

    /// Brings the bytes and the size of the file to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        faults::on_file(self, Kind::Sync, || self.file.sync_data())
    }

    /// Brings everything of the file system that holds this file to its disk.
    pub(crate) fn sync_file_system(&self) -> io::Result<()> {
        faults::on_file(self, Kind::SyncFileSystem, || {
            Ok(rustix::fs::syncfs(&self.file)?)
        })
    }
}

/// Opens `path` for the lock of a data directory and takes the lock; `None` if somebody has it.
pub(crate) fn lock(path: &Path) -> io::Result<Option<SegmentFile>> {
    let file = SegmentFile::open_or_create(path)?;
    match rustix::fs::flock(
        &file.file,
        rustix::fs::FlockOperation::NonBlockingLockExclusive,
    ) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Shares the lock of a data directory with others who only look, changing nothing: `None` where there is no lock file,
/// `Some(None)` if somebody has the lock for himself.
pub(crate) fn share_lock(path: &Path) -> io::Result<Option<Option<SegmentFile>>> {
    let file = match SegmentFile::open_to_read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(
        &file.file,
        rustix::fs::FlockOperation::NonBlockingLockShared,
    ) {
        Ok(()) => Ok(Some(Some(file))),
        Err(Errno::WOULDBLOCK) => Ok(Some(None)),
        Err(error) => Err(error.into()),
    }
}

/// Writes a whole file under another name and renames it to `path`: a reader finds the old bytes or the new ones.
pub(crate) fn replace(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let unfinished = unfinished_name(path);
    faults::point_of_file("replace", path);
    let written =
        write_unfinished(&unfinished, bytes, sync).and_then(|()| rename(&unfinished, path));
    if let Err(error) = written {
        remove_if_present(&unfinished).ok();
        return Err(error);
    }
    faults::point_of_file("renamed", path);
    if sync == Sync::Yes {
        sync_directory(parent(path))?;
    }
    faults::point_of_file("replaced", path);
    Ok(())
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    faults::point_of_file("written", to);
    faults::on_path(from, Kind::Rename { to }, || std::fs::rename(from, to))
}

fn write_unfinished(path: &Path, bytes: &[u8], sync: Sync) -> io::Result<()> {
    let file = SegmentFile::open_or_create(path)?;
    file.truncate(0)?;
    file.write_at(bytes, 0)?;
    if sync == Sync::Yes {
        file.sync()?;
    }
    Ok(())
}

/// The name under which a file is written before it gets its own.
pub(crate) fn unfinished_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// The directory of a file.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("."))
}

/// Makes created, renamed and removed names of a directory survive a power cut.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    faults::on_path(path, Kind::SyncDirectory, || File::open(path)?.sync_all())
}

/// The same for a directory and those above it, up to and with `root`.
pub(crate) fn sync_directory_and_parents(path: &Path, root: &Path) -> io::Result<()> {
    for directory in path.ancestors().take_while(|path| path.starts_with(root)) {
        sync_directory(directory)?;
    }
    Ok(())
}

/// The whole file, or `None` where there is no such file.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match faults::on_path(path, Kind::Read, || read_whole(path)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads as much as the file says that it has, without asking for more: a start reads thousands of small files.
fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    let file = unnoticed(|flags| {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags).open(path)
    })?;
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) if !bytes.is_empty() => Ok(bytes),
        // One that does not say how much it has (those of /proc), or that was cut meanwhile.
        Ok(()) => std::fs::read(path),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => std::fs::read(path),
        Err(error) => Err(error),
    }
}

/// Opens for reading so that the time of the last access stays: noting it is a write. Only a file's owner may ask for that.
fn unnoticed<T>(open: impl Fn(i32) -> io::Result<T>) -> io::Result<T> {
    match open(libc::O_NOATIME) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(0),
        other => other,
    }
}

/// Bytes of a file.
pub(crate) fn size(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

/// When a file was last written to, milliseconds since 1970.
pub(crate) fn modified_ms(path: &Path) -> io::Result<i64> {
    Ok(ms_since_1970(std::fs::metadata(path)?.modified()?))
}

/// The names in a directory, in no order; `None` where there is no such directory.
pub(crate) fn names(path: &Path) -> io::Result<Option<Vec<String>>> {
    let open = |flags| {
        let mut options = OpenOptions::new();
        let flags = flags | libc::O_DIRECTORY;
        options.read(true).custom_flags(flags).open(path)
    };
    let directory = match unnoticed(open) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    names_in(&directory)
}

/// The names in a directory that is open, which may be gone by now.
fn names_in(directory: &File) -> io::Result<Option<Vec<String>>> {
    let mut space = [MaybeUninit::uninit(); NAMES_BYTES];
    let mut entries = RawDir::new(directory, &mut space);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // A name that is not UTF-8 was not written by us: leave it alone.
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(Some(names))
}

/// Makes a directory and those above it.
pub(crate) fn make_directories(path: &Path) -> io::Result<()> {
    if !faults::is_observed() {
        return std::fs::create_dir_all(path);
    }
    // Step by step: a crash may come between two of them.
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|above| !above.exists())
        .collect();
    for one in missing.into_iter().rev() {
        faults::on_path(one, Kind::MakeDirectory, || std::fs::create_dir(one))?;
    }
    Ok(())
}

/// Removes a file; one that is missing is fine.
pub(crate) fn remove_if_present(path: &Path) -> io::Result<()> {
    match faults::on_path(path, Kind::RemoveFile, || std::fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes an empty directory; does nothing when it is missing or not empty.
pub(crate) fn remove_directory_if_empty(path: &Path) {
    faults::on_path(path, Kind::RemoveDirectory, || std::fs::remove_dir(path)).ok();
}

/// Removes a directory with all that is in it; one that is missing is fine.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    let removed = if faults::is_observed() {
        remove_step_by_step(path)
    } else {
        std::fs::remove_dir_all(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove_step_by_step(path: &Path) -> io::Result<()> {
    let entries = std::fs::read_dir(path)?;
    let mut inside = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<PathBuf>>>()?;
    inside.sort();
    for one in inside {
        if one.is_dir() {
            remove_step_by_step(&one)?;
        } else {
            remove_if_present(&one)?;
        }
    }
    faults::on_path(path, Kind::RemoveDirectory, || std::fs::remove_dir(path))
}

/// Renames a file or directory; returns whether it was there.
pub(crate) fn rename_if_present(from: &Path, to: &Path) -> io::Result<bool> {
    match faults::on_path(from, Kind::Rename { to }, || std::fs::rename(from, to)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A number that nobody can guess; in a simulation, which must do the same again, this one.
pub(crate) fn random(simulated: u64) -> io::Result<u64> {
    if faults::is_observed() {
        return Ok(simulated);
    }
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The id of this run of the kernel, if it tells.
pub(crate) fn boot_id() -> Option<String> {
    if let Some(id) = faults::boot_id() {
        return Some(id);
    }
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Milliseconds since 1970, for the age of a segment whose batches have no timestamps (LR-50).
pub(crate) fn wall_ms() -> i64 {
    ms_since_1970(SystemTime::now())
}

fn ms_since_1970(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_file_is_read_whole_whatever_it_says_of_its_size() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        assert_eq!(read(&path).expect("it is missing"), None);
        for content in [&b""[..], b"x", &[7; 100_000]] {
            std::fs::write(&path, content).expect("written");
            assert_eq!(read(&path).expect("it is read").as_deref(), Some(content));
        }
        // Says 0.
        let kernel = read(Path::new("/proc/version")).expect("it is read");
        assert!(kernel.expect("it is there").starts_with(b"Linux"));
        assert!(read(directory.path()).is_err(), "a directory");
    }

    #[test]
    fn a_directory_that_is_removed_while_it_is_listed_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let opened = File::open(directory.path()).expect("it opens");
        directory.close().expect("removed");
        assert_eq!(names_in(&opened).expect("no error"), None);
    }

    #[test]
    fn all_names_of_a_directory_come_however_many_there_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let found = || names(directory.path()).expect("it is listed");
        assert_eq!(found(), Some(Vec::new()));
        let made: BTreeSet<String> = (0..NAMES_BYTES / 8)
            .map(|nth| format!("{nth:020}"))
            .collect();
        for name in &made {
            std::fs::write(directory.path().join(name), "").expect("written");
        }
        let found: BTreeSet<String> = found().expect("it is there").into_iter().collect();
        assert_eq!(found, made);
        let file = directory.path().join(format!("{:020}", 1));
        assert_eq!(
            names(&directory.path().join("missing")).expect("none"),
            None
        );
        assert!(names(&file).is_err(), "a file");
    }
}
