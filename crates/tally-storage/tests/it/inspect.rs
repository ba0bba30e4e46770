//! Looking into a directory: it changes nothing, keeps brokers out, and takes whatever bytes there are.

use crate::support::{Disk, PARTITION, SMALL, names};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tally_protocol::{BatchError, Offset};
use tally_storage::{
    BatchAt, DataDir, FileKind, Holder, Inspection, LogOptions, OpenDirError, SegmentReader,
    file_kind,
};

/// Every file below `root` with its bytes.
fn all_files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in names(root) {
        let path = root.join(&name);
        if path.is_dir() {
            for (below, bytes) in all_files(&path) {
                found.insert(format!("{name}/{below}"), bytes);
            }
        } else {
            found.insert(name, fs::read(&path).expect("it is there"));
        }
    }
    found
}

/// Looks at a directory that nobody has, as soon as no process of another test shares its lock from a fork to an exec.
fn open_free(root: &Path) -> Inspection {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let inspection = Inspection::open(root).expect("it can be looked at");
        if inspection.holder() == Holder::Nobody || Instant::now() > deadline {
            return inspection;
        }
        std::thread::yield_now();
    }
}

#[test]
fn looking_changes_nothing_and_keeps_brokers_out() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(SMALL);
    log.fill(5);
    let running = Inspection::open(disk.root()).expect("it can be looked at");
    assert_eq!(running.holder(), Holder::Broker(Some(std::process::id())));
    drop(running);
    log.stop();
    let before = all_files(disk.root());
    let inspection = open_free(disk.root());
    let second = Inspection::open(disk.root()).expect("by two at once");
    assert_eq!(inspection.holder(), Holder::Nobody);
    assert_eq!(second.holder(), Holder::Nobody);
    assert_eq!(inspection.partitions().expect("listed"), [PARTITION]);
    assert_eq!(inspection.partition_path(PARTITION), disk.directory());
    assert!(matches!(
        DataDir::open(disk.root()),
        Err(OpenDirError::AlreadyInUse { .. })
    ));
    assert_eq!(all_files(disk.root()), before);
    drop((inspection, second));
    assert!(disk.try_open().is_ok());
}

#[test]
fn what_is_no_data_directory_is_refused() {
    let disk = Disk::new();
    let refused = Inspection::open(disk.root());
    assert!(matches!(
        refused,
        Err(OpenDirError::UnsupportedFormat { .. })
    ));
    let missing = Inspection::open(disk.root().join("nowhere"));
    assert!(matches!(
        missing,
        Err(OpenDirError::UnsupportedFormat { .. })
    ));
    assert!(names(disk.root()).is_empty(), "nothing was made");
}

#[test]
fn a_segment_is_read_past_a_bad_checksum_and_no_further_than_its_lengths() {
    let disk = Disk::new();
    let (mut log, _) = disk.start(LogOptions::default());
    log.fill(3);
    log.stop();
    let path = disk.file(0, "log");
    let mut bytes = fs::read(&path).expect("the segment");
    let mut reader = SegmentReader::open(&path).expect("opened");
    let mut positions = vec![0];
    while let Ok(BatchAt::Good(view)) = reader.batch_at(positions[positions.len() - 1]) {
        positions.push(positions[positions.len() - 1] + view.bytes().len() as u64);
        if positions[positions.len() - 1] == reader.size() {
            break;
        }
    }
    assert_eq!(positions.len(), 4, "three batches and the end");
    let second = usize::try_from(positions[1]).expect("small");
    bytes[second + 30] ^= 1;
    let third = usize::try_from(positions[2]).expect("small");
    bytes[third + 8] = 0x7f;
    fs::write(&path, &bytes).expect("damaged");
    let mut reader = SegmentReader::open(&path).expect("opened");
    assert!(matches!(reader.batch_at(0), Ok(BatchAt::Good(_))));
    assert!(matches!(
        reader.batch_at(positions[1]),
        Ok(BatchAt::BadCrc(view)) if view.header().base_offset == Offset(2)
    ));
    assert!(matches!(
        reader.batch_at(positions[2]),
        Ok(BatchAt::Broken(BatchError::Incomplete))
    ));
}

#[test]
fn a_file_is_known_by_its_name() {
    for (name, kind) in [
        ("00000000000000000012.log", FileKind::Segment(Offset(12))),
        (
            "00000000000000000012.index",
            FileKind::OffsetIndex(Offset(12)),
        ),
        (
            "00000000000000000012.timeindex",
            FileKind::TimeIndex(Offset(12)),
        ),
        (
            "00000000000000000012.txnindex",
            FileKind::TransactionIndex(Offset(12)),
        ),
        (
            "00000000000000000012.snapshot",
            FileKind::Snapshot(Offset(12)),
        ),
        ("leader-epoch-checkpoint", FileKind::Epochs),
        ("log-start", FileKind::LogStart),
        ("meta", FileKind::Meta),
        ("lock", FileKind::Mark),
        ("spare", FileKind::Spare),
        ("12.log", FileKind::Unknown),
        ("99999999999999999999.log", FileKind::Unknown),
        ("00000000000000000012.log.tmp", FileKind::Unknown),
        ("meta.tmp", FileKind::Unknown),
        ("", FileKind::Unknown),
    ] {
        assert_eq!(file_kind(name), kind, "{name}");
    }
}
