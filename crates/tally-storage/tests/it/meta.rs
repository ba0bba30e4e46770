//! The metadata file: compare-and-set, and what damage does.

use crate::support::Disk;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tally_storage::{FileMetaStore, MetaError, MetaStore, Revision};

fn write(key: &str, value: &str) -> (String, Option<String>) {
    (key.to_owned(), Some(value.to_owned()))
}

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn meta_file(disk: &Disk) -> PathBuf {
    disk.root().join("meta")
}

#[test]
fn n11_a_commit_needs_the_newest_revision() {
    let disk = Disk::new();
    let store = FileMetaStore::open(disk.open()).expect("no metadata yet");
    assert_eq!(store.load().expect("loads"), (BTreeMap::new(), Revision(0)));
    let first = store.commit(Revision(0), &[write("a", "1"), write("b", "2")]);
    assert_eq!(first.expect("committed"), Revision(1));
    match store.commit(Revision(0), &[write("a", "lost")]) {
        Err(MetaError::Conflict { expected, found }) => {
            assert_eq!((expected, found), (Revision(0), Revision(1)));
        }
        other => panic!("{other:?}"),
    }
    let second = store.commit(
        Revision(1),
        &[("a".to_owned(), None), write("c", "new\nline = ü")],
    );
    assert_eq!(second.expect("committed"), Revision(2));
    drop(store);

    let store = FileMetaStore::open(disk.open()).expect("the file is good");
    let expected = values(&[("b", "2"), ("c", "new\nline = ü")]);
    assert_eq!(store.load().expect("loads"), (expected, Revision(2)));
}

#[test]
fn every_damaged_byte_and_every_cut_is_noticed() {
    let disk = Disk::new();
    let store = FileMetaStore::open(disk.open()).expect("no metadata yet");
    store
        .commit(Revision(0), &[write("topic", "one")])
        .expect("committed");
    drop(store);
    let good = std::fs::read(meta_file(&disk)).expect("the file is there");
    let dir = disk.open();
    let refused = |bytes: &[u8]| {
        std::fs::write(meta_file(&disk), bytes).expect("written");
        let opened = FileMetaStore::open(Arc::clone(&dir));
        matches!(opened, Err(MetaError::Corrupt { .. }))
    };
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(refused(&bad), "byte {at} changed");
        assert!(refused(&good[..at]), "cut at {at}");
    }
    assert!(!refused(&good));
}

#[test]
fn a_file_that_was_being_written_is_ignored() {
    let disk = Disk::new();
    let store = FileMetaStore::open(disk.open()).expect("no metadata yet");
    store
        .commit(Revision(0), &[write("a", "1")])
        .expect("committed");
    drop(store);
    std::fs::write(disk.root().join("meta.tmp"), b"half").expect("written");
    let store = FileMetaStore::open(disk.open()).expect("the file is good");
    assert_eq!(
        store.load().expect("loads"),
        (values(&[("a", "1")]), Revision(1))
    );
    let again = store.commit(Revision(1), &[write("a", "2")]);
    assert_eq!(again.expect("committed"), Revision(2));
}

#[test]
fn r5_after_a_failed_write_the_store_answers_nothing() {
    let disk = Disk::new();
    let store = FileMetaStore::open(disk.open()).expect("no metadata yet");
    // A directory where the unfinished file would go.
    std::fs::create_dir(disk.root().join("meta.tmp")).expect("made");
    let failed = store.commit(Revision(0), &[write("a", "1")]);
    assert!(matches!(failed, Err(MetaError::Io { .. })), "{failed:?}");
    assert!(store.load().is_err());
}
