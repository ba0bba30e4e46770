//! Reads of what is on the disk only, and of what is not even there.

use crate::corner::{Corner, PROGRAM};
use std::fs::OpenOptions;
use tally_testkit::broker::{Broker, offset_file};
use tally_testkit::client::FetchCall;

const STORAGE_ERROR: i16 = 56;
const NOT_LEADER: i16 = 6;

/// A log that became shorter under the broker stands for pages that can't be read: they are in no memory, and reading them
/// fails. Through a map that would end the process.
#[test]
fn what_cannot_be_read_is_an_error_of_its_partition_alone() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut corner = Corner::at(broker.address(), 2, &[]);
    if corner.is_kafka {
        return; // Nobody cuts another broker's files.
    }
    let topic = corner.topic.clone();
    let batch = tally_testkit::batches::Batch::plain(3).encode();
    for index in [0, 1] {
        for _ in 0..10 {
            let stored = corner.produce_one(&topic, index, batch.clone());
            assert_eq!(stored.error, 0);
        }
    }
    assert!(broker.stop());
    broker.start_again();
    corner.reconnect(&broker);
    let all: Vec<i64> = (0..30).collect();
    assert_eq!(corner.offsets_from(0, 0), all, "from the disk");
    assert_eq!(corner.offsets_from(1, 0), all);
    let directory = broker.partition(&mut corner, &topic, 0);
    let log = OpenOptions::new()
        .write(true)
        .open(offset_file(&directory, 0, "log"));
    log.and_then(|log| log.set_len(0)).expect("cut");
    let read = corner.read_uncommitted(&topic, 0, 0);
    assert_eq!(read.error, STORAGE_ERROR);
    let mut old = FetchCall::of(&topic, 0, 0, 0);
    for (version, code) in [(5, NOT_LEADER), (6, STORAGE_ERROR)] {
        old.version = version;
        assert_eq!(corner.fetch(&old)[0].error, code, "LR-109, v{version}");
    }
    let (error, _, _) = corner.list_offset((7, 0), &topic, 0, 1);
    assert_eq!(error, STORAGE_ERROR);
    assert_eq!(corner.offsets_from(1, 0), all, "others go on");
    assert_eq!(corner.end(), 30);
}
