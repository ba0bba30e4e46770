//! What a broker serves of a directory.

use crate::PROGRAM;
use bytes::Bytes;
use kafka_protocol::messages::MetadataRequest;
use std::collections::BTreeSet;
use std::path::Path;
use tally_protocol::BatchView;
use tally_testkit::client::{Client, FetchCall};
use tally_testkit::offline::{self, Served};
use tempfile::TempDir;

/// The first offset that there is.
const EARLIEST: i64 = -2;

/// A batch of records: where it is, and all of it behind its leader epoch.
pub(crate) type Held = (String, i32, i64, Bytes);

/// A copy that a broker may have.
pub(crate) fn copy(from: &Path) -> TempDir {
    let beside = TempDir::new().expect("a directory");
    offline::copy(from, &beside.path().join("data"));
    beside
}

/// What was found.
#[derive(Default)]
pub(crate) struct Reading {
    /// Every batch of clients.
    pub(crate) batches: BTreeSet<Held>,
    /// Partitions that answer with an error.
    pub(crate) closed: BTreeSet<(String, i32)>,
}

/// Reads all that a broker serves of a copy; what it has logged if it does not start.
pub(crate) fn try_read(beside: &TempDir, durability: &str) -> Result<Reading, String> {
    let unchanged = [
        // The story's records are years old.
        "log.retention.ms=-1",
        "transactional.id.expiration.ms=2147483647",
        "log.cleaner.enable=false",
    ];
    let broker = Served::start(PROGRAM, &beside.path().join("data"), durability, &unchanged)?;
    let mut client = Client::connect(&broker.address);
    let mut all = Reading::default();
    let every = MetadataRequest::default().with_topics(None);
    let topics = client.call(12, &every).topics;
    // A start itself writes what coordinators keep; the story's judge knows what has to be there.
    for topic in topics.into_iter().filter(|topic| !topic.is_internal) {
        let name = topic.name.expect("topics have names");
        for index in (0..).take(topic.partitions.len()) {
            if !read(&mut client, (&name, index), &mut all.batches) {
                all.closed.insert((name.to_string(), index));
            }
        }
    }
    assert!(broker.stop());
    Ok(all)
}

/// Every batch that a broker serves of a copy, whose partitions are all open.
pub(crate) fn served(beside: &TempDir, durability: &str) -> BTreeSet<Held> {
    let read = try_read(beside, durability);
    let read = read.unwrap_or_else(|log| panic!("it starts: {log}"));
    assert_eq!(read.closed, BTreeSet::new());
    read.batches
}

/// Whether all of the partition can be read.
fn read(client: &mut Client, (topic, index): (&str, i32), all: &mut BTreeSet<Held>) -> bool {
    let (error, mut next, _) = client.list_offset((7, 0), topic, index, EARLIEST);
    if error != 0 {
        return false;
    }
    loop {
        let call = FetchCall::of(topic, index, next, 0);
        let request = client.fetch_request(&call);
        let response = client.call(call.version, &request);
        let part = &response.responses[0].partitions[0];
        if part.error_code != 0 {
            return false;
        }
        let mut rest = part.records.clone().unwrap_or_default();
        if rest.is_empty() {
            return true;
        }
        while let Ok(view) = BatchView::parse(&rest) {
            let header = view.header();
            next = header.last_offset().next().0;
            let held = (topic.to_owned(), index, header.base_offset.0);
            // What ends a transaction is written by the start itself, too.
            let is_of_client = !header.is_control() && header.records_count > 0;
            let batch = rest.split_to(view.bytes().len());
            if is_of_client {
                let (topic, index, base) = held;
                all.insert((topic, index, base, batch.slice(16..)));
            }
        }
    }
}
