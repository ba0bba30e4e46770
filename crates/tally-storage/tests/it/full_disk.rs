//! A disk that is full: a small file system of its own, in a namespace of its own where that is allowed.

use crate::journal::evens;
use crate::support::{Disk, PARTITION, batch, loaded};
use bytes::Bytes;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tally_protocol::{LeaderEpoch, Offset};
use tally_storage::{
    DataDir, Entry, FileMetaStore, Journal, JournalState, LogOptions, MetaError, MetaStore,
    Revision, SegmentJournal,
};

const HERE: &str = "TALLY_TEST_SMALL_DISK";
const CANNOT: i32 = 77;
const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 1 << 20,
    segment_ms: i64::MAX,
    segment_jitter_ms: 0,
    index_interval_bytes: 300,
    index_max_bytes: 1 << 20,
    gaps_below: Offset::ZERO,
    flush_messages: i64::MAX,
    flush_ms: u64::MAX,
    synced_only: false,
};

#[test]
fn n15_a_full_disk_refuses_and_loses_nothing() {
    if let Some(path) = std::env::var_os(HERE) {
        fill_the_disk(&PathBuf::from(path));
        return;
    }
    let disk = Disk::new();
    let script =
        format!("mount -t tmpfs -o size=6m tally \"${HERE}\" || exit {CANNOT}; exec \"$0\" \"$@\"");
    let ran = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().expect("the test's own program"))
        .args([
            "--exact",
            "full_disk::n15_a_full_disk_refuses_and_loses_nothing",
        ])
        .env(HERE, disk.root())
        .output();
    match ran {
        Ok(ran) if ran.status.success() => {}
        Ok(ran) if ran.status.code() == Some(CANNOT) || ran.stderr.starts_with(b"unshare:") => {
            skip(String::from_utf8_lossy(&ran.stderr).trim());
        }
        Ok(ran) => panic!(
            "{}\n{}",
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr)
        ),
        Err(error) => skip(&error.to_string()),
    }
}

/// Says so past the capture of the test program, where `scripts/test` counts it.
fn skip(reason: &str) {
    assert!(
        std::env::var_os("TALLY_TEST_NO_SKIP").is_none(),
        "no small disk here: {reason}"
    );
    let name = "full_disk::n15_a_full_disk_refuses_and_loses_nothing";
    writeln!(std::io::stderr(), "skipped: {name}: {reason}").expect("standard error");
}

/// Appends until there is no room; returns the offset of the log's end.
fn fill(journal: &mut SegmentJournal) -> i64 {
    loop {
        let base = journal.log_end(PARTITION).0;
        let bytes = batch(base, 2, 1, 1000 + base, 3000);
        if let Err(refused) = journal.reserve(PARTITION, bytes.len()) {
            assert_eq!(
                refused.source.kind(),
                std::io::ErrorKind::StorageFull,
                "{refused}"
            );
            assert_eq!(journal.state(), JournalState::Open);
            return base;
        }
        journal.append(Entry {
            partition: PARTITION,
            leader_epoch: LeaderEpoch(1),
            base: Offset(base),
            last: Offset(base + 1),
            max_timestamp: 1000 + base,
            bytes: Bytes::from(bytes),
        });
        assert_eq!(journal.state(), JournalState::Open);
    }
}

fn metadata(path: &Path) -> FileMetaStore {
    let dir = DataDir::open(path.join("metadata")).expect("opened");
    FileMetaStore::open(Arc::new(dir)).expect("the metadata is good")
}

/// Metadata can be changed on a full disk for as long as its spare space lasts; a refusal changes nothing.
fn use_the_spare(meta: &FileMetaStore) {
    let mut revision = meta.load().expect("loads").1;
    let refused = loop {
        let entry = (revision.0.to_string(), Some("v".repeat(10_000)));
        match meta.commit(revision, &[entry]) {
            Ok(next) => revision = next,
            Err(refused) => break refused,
        }
    };
    let is_full = match &refused {
        MetaError::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
        _ => false,
    };
    assert!(is_full, "{refused}");
    assert!(
        revision > Revision(20),
        "there was spare space: {revision:?}"
    );
    let (all, found) = meta.load().expect("still good");
    assert_eq!(found, revision);
    let removed: Vec<_> = all.into_keys().map(|key| (key, None)).collect();
    meta.commit(revision, &removed).expect("it needs less");
}

fn check(journal: &SegmentJournal, from: i64, end: i64) {
    let mut found = Vec::new();
    let visited = journal.visit_batches(PARTITION, Offset(from), &mut |view| {
        view.check_crc().expect("a good batch");
        found.push(view.header().base_offset.0);
        std::ops::ControlFlow::Continue(())
    });
    visited.expect("replay works");
    assert_eq!(found, evens(from, end));
}

fn start(path: &PathBuf) -> SegmentJournal {
    let dir = DataDir::open(path).expect("a full disk can be opened");
    let mut journal = SegmentJournal::new(Arc::new(dir));
    let recovered = journal.open_partition(PARTITION, OPTIONS);
    assert_eq!(recovered.expect("and so can a partition").cut, None);
    journal
}

fn fill_the_disk(path: &PathBuf) {
    let meta = metadata(path);
    let mut journal = start(path);
    let end = fill(&mut journal);
    assert!(end > 2000, "the disk was used up: {end}");
    check(&journal, 0, end);
    // The rest of the space goes to somebody else.
    let other = std::fs::File::create(path.join("other")).expect("a name fits");
    while std::io::Write::write(&mut &other, &[1; 512]).is_ok() {}
    assert_eq!(fill(&mut journal), end);
    drop(journal);

    // Killed; the disk is as full after the start.
    let mut journal = start(path);
    let reserved = fill(&mut journal) - end;
    assert!(reserved < 200, "only what was reserved came free");
    while std::io::Write::write(&mut &other, &[1; 512]).is_ok() {}
    let end = fill(&mut journal);
    check(&journal, 0, end);
    use_the_spare(&meta);
    while std::io::Write::write(&mut &other, &[1; 512]).is_ok() {}
    journal
        .append_transaction_row(PARTITION, Offset(end - 1), &[9; 34])
        .expect("kept in memory");
    assert!(
        journal
            .write_snapshot(PARTITION, Offset(end), b"state")
            .is_err()
    );

    // Deleting records needs a small file: segments go first if they must.
    let segments = loaded(|| journal.segments(PARTITION)).expect("listed");
    let start_at = segments[1].base.0;
    journal
        .set_log_start(PARTITION, Offset(start_at))
        .expect("a full disk can be emptied");
    assert!(
        journal
            .write_snapshot(PARTITION, Offset(end), b"state")
            .is_ok()
    );
    let more = fill(&mut journal);
    assert!(more > end + 200, "{more} after {end}");
    check(&journal, start_at, more);
    drop(journal);
    let mut journal = start(path);
    check(&journal, start_at, more);
    let mut rows = 0;
    journal.visit_transaction_rows(PARTITION, Offset(0), &mut |_| {
        rows += 1;
        std::ops::ControlFlow::Continue(())
    });
    assert_eq!(rows, 1);
    journal.shutdown().expect("completed");
    drop(meta);
    assert!(metadata(path).load().expect("loads").0.is_empty());
}
