//! What readers see of transactions: L50, L58, L59, L60 with the last stable offset.

use crate::corner::{Corner, PROGRAM};
use kafka_protocol::messages::{FetchRequest, InitProducerIdRequest};
use tally_testkit::batches::Batch;
use tally_testkit::broker::{Broker, offset_file, offsets_of_files};
use tally_testkit::client::{Client, FetchCall, ProduceCall, Producer, transactional_id, unique};
use tally_testkit::waiting::wait_until;

/// A transactional producer of the old protocol, in which every step is a request of its own.
struct Transactional {
    id: String,
    producer: Producer,
    sequence: i32,
}

impl Transactional {
    #[track_caller]
    fn new(client: &mut Client) -> Transactional {
        let id = unique("x");
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(&id)))
            .with_transaction_timeout_ms(600_000);
        let (error, producer) = client.init_producer_id(4, &request);
        assert_eq!(error, 0);
        Transactional {
            id,
            producer,
            sequence: 0,
        }
    }

    /// Adds the partition and writes `count` records to it; the offset of the first.
    #[track_caller]
    fn write(&mut self, client: &mut Client, topic: &str, count: i32) -> i64 {
        // The transaction before may still be completed by Apache Kafka (51).
        wait_until("the partition is added", || {
            client.add_partitions(3, &self.id, self.producer, &[(topic, 0)]) == [0]
        });
        let Producer { id, epoch } = self.producer;
        let batch = Batch::transactional(id, epoch, self.sequence, count);
        let call = ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: Some(&self.id),
            parts: vec![(topic, 0, Some(batch.with_values(&self.id).encode()))],
        };
        let produced = client.produce(&call).remove(0);
        assert_eq!(produced.error, 0);
        self.sequence += count;
        produced.base_offset
    }

    #[track_caller]
    fn end(&self, client: &mut Client, commit: bool) {
        wait_until("the transaction ends", || {
            client.end_txn(3, &self.id, self.producer, commit).0 == 0
        });
    }
}

#[test]
fn l50_l58_an_open_transaction_holds_the_last_stable_offset() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    corner.fill(2);
    let mut writer = Transactional::new(&mut corner);
    assert_eq!(writer.write(&mut corner, &topic, 3), 2);
    corner.fill(1);
    for (isolation, end) in [(0, 6), (1, 2)] {
        let got = corner.list_offset((7, isolation), &topic, 0, -1);
        assert_eq!(got, (0, end, -1), "the end, isolation {isolation}");
    }
    // L58: between the last stable offset and the end there is nothing, and no error.
    for from in 2..=6 {
        let read = corner.read_committed(&topic, 0, from);
        assert_eq!((read.error, read.batches.len()), (0, 0), "from {from}");
        assert_eq!((read.high_watermark, read.last_stable_offset), (6, 2));
    }
    assert_eq!(corner.read_committed(&topic, 0, 7).error, 1);
    assert_eq!(corner.read_committed(&topic, 0, 0).data_offsets(), [0, 1]);
    // LR-90: a search ends where reading ends.
    let newest = corner.list_offset((7, 1), &topic, 0, -3);
    assert!(newest.1 < 2, "{newest:?}");
    writer.end(&mut corner, true);
    wait_until("all is stable", || corner.stable(&topic, 0) == 7);
}

/// Three producers with interleaved transactions on one partition, and what a reader of committed records must see.
struct History {
    writers: Vec<Transactional>,
    /// What the open transaction of each has written.
    open: Vec<Vec<i64>>,
    kept: Vec<i64>,
    /// Aborted transactions: producer, first offset, offset of the marker.
    aborted: Vec<(i64, i64, i64)>,
}

impl History {
    #[track_caller]
    fn new(corner: &mut Corner) -> History {
        History {
            writers: (0..3).map(|_| Transactional::new(corner)).collect(),
            open: vec![Vec::new(); 3],
            kept: Vec::new(),
            aborted: Vec::new(),
        }
    }

    #[track_caller]
    fn plain(&mut self, corner: &mut Corner) {
        let base = corner.fill(2);
        self.kept.extend([base, base + 1]);
    }

    #[track_caller]
    fn write(&mut self, corner: &mut Corner, who: usize, count: i32) {
        let topic = corner.topic.clone();
        let base = self.writers[who].write(corner, &topic, count);
        self.open[who].extend(base..base + i64::from(count));
    }

    /// Ends the transaction of `who`, if there is one.
    #[track_caller]
    fn end(&mut self, corner: &mut Corner, who: usize, commit: bool) {
        let offsets = std::mem::take(&mut self.open[who]);
        let Some(first) = offsets.first() else {
            return;
        };
        let before = corner.end();
        self.writers[who].end(corner, commit);
        wait_until("the marker is there", || corner.end() == before + 1);
        if commit {
            self.kept.extend(offsets);
        } else {
            let producer = self.writers[who].producer.id;
            self.aborted.push((producer, *first, before));
        }
    }
}

#[test]
fn l59_committed_records_only_over_interleaved_transactions() {
    let broker = Broker::start(PROGRAM, &[]);
    let configs = [
        ("internal.segment.bytes", "1000"),
        ("index.interval.bytes", "200"),
    ];
    let mut corner = Corner::at(broker.address(), 1, &configs);
    let topic = corner.topic.clone();
    let mut history = History::new(&mut corner);
    let mut random = 12_345u64;
    let mut below = |limit: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((random >> 33) % limit).expect("small")
    };
    for _ in 0..60 {
        match (below(4), below(3)) {
            (3, _) => history.plain(&mut corner),
            (who, 0) => history.end(&mut corner, who, below(2) == 0),
            (who, count) => history.write(&mut corner, who, i32::try_from(count).expect("small")),
        }
    }
    for who in 0..3 {
        history.end(&mut corner, who, who == 1);
    }
    history.kept.sort_unstable();
    assert!(history.aborted.len() > 3 && history.kept.len() > 20);
    let directory = broker.partition(&mut corner.client, &topic, 0);
    assert!(offsets_of_files(&directory, "log").len() > 5);
    let end = corner.end();
    wait_until("all is stable", || corner.stable(&topic, 0) == end);
    for from in 0..end {
        for size in [1 << 20, 600] {
            check_read(&mut corner, from, size, &history);
        }
    }
}

/// One fetch: the list of aborted transactions is exact, and a consumer that goes by it keeps the committed records.
#[track_caller]
fn check_read(corner: &mut Corner, from: i64, size: i32, history: &History) {
    let topic = corner.topic.clone();
    let mut call = FetchCall::of(&topic, 0, from, 1);
    call.partition_max_bytes = size;
    let read = corner.fetch(&call).remove(0);
    assert_eq!(read.error, 0);
    let last = read
        .batches
        .last()
        .expect("something")
        .header
        .last_offset()
        .0;
    let first = read.batches[0].base_offset();
    let committed: Vec<i64> = read.committed().iter().map(|(offset, _)| *offset).collect();
    let expected: Vec<i64> = history
        .kept
        .iter()
        .copied()
        .filter(|at| (first..=last).contains(at))
        .collect();
    assert_eq!(committed, expected, "from {from} to {last}");
    let mut told = read.aborted.expect("a list");
    told.sort_by_key(|(_, first)| *first);
    let mut overlap: Vec<(i64, i64)> = history
        .aborted
        .iter()
        .filter(|(_, first, marker)| *marker >= from && *first <= last)
        .map(|(producer, first, _)| (*producer, *first))
        .collect();
    overlap.sort_by_key(|(_, first)| *first);
    if corner.is_kafka {
        // Its list goes up to the next entry of the index: longer than it need be.
        told.retain(|(_, first)| *first <= last);
    }
    assert_eq!(told, overlap, "from {from} to {last}");
}

#[test]
fn l60_readers_wake_when_their_own_end_moves() {
    let mut corner = Corner::new();
    let topic = corner.topic.clone();
    let mut writer = Transactional::new(&mut corner);
    let park = |corner: &Corner, isolation: i8, from: i64| {
        let mut reader = corner.another_client();
        let mut call = FetchCall::of(&topic, 0, from, isolation);
        (call.max_wait_ms, call.min_bytes) = (25_000, 1);
        let request = reader.fetch_request(&call);
        let sent = (*reader).send(12, &request);
        (reader, sent)
    };
    let (mut committed, committed_id) = park(&corner, 1, 0);
    let (mut uncommitted, uncommitted_id) = park(&corner, 0, 0);
    assert_eq!(writer.write(&mut corner, &topic, 2), 0);
    // The high watermark has moved: this one has its answer.
    let response = uncommitted.receive::<FetchRequest>(12, uncommitted_id);
    let read = uncommitted.fetched(12, &response, &topic, 0);
    assert_eq!(
        (read.data_offsets(), read.last_stable_offset),
        (vec![0, 1], 0)
    );
    // A marker of its own moves the end for readers of everything, and the stable end for the other.
    let (mut behind, behind_id) = park(&corner, 0, 2);
    writer.end(&mut corner, true);
    let response = behind.receive::<FetchRequest>(12, behind_id);
    assert_eq!(behind.fetched(12, &response, &topic, 0).markers().len(), 1);
    let response = committed.receive::<FetchRequest>(12, committed_id);
    let read = committed.fetched(12, &response, &topic, 0);
    assert_eq!(read.data_offsets(), [0, 1]);
    assert_eq!(read.last_stable_offset, 3);
}

#[test]
fn f9_damaged_rows_of_aborted_transactions_are_made_again() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut corner = Corner::at(broker.address(), 3, &[]);
    if corner.is_kafka {
        return; // Its rows have no checksum.
    }
    let topic = corner.topic.clone();
    let mut rows = Vec::new();
    for partition in 0..3 {
        let mut writer = Transactional::new(&mut corner);
        corner
            .client
            .add_partitions(3, &writer.id, writer.producer, &[(&topic, partition)]);
        let batch = Batch::transactional(writer.producer.id, writer.producer.epoch, 0, 2);
        let call = ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: Some(&writer.id),
            parts: vec![(&topic, partition, Some(batch.encode()))],
        };
        assert_eq!(corner.produce(&call)[0].error, 0);
        writer.end(&mut corner, false);
        writer.sequence += 2;
        let directory = broker.partition(&mut corner, &topic, partition);
        rows.push(offset_file(&directory, 0, "txnindex"));
    }
    assert!(broker.stop());
    std::fs::remove_file(&rows[0]).expect("removed");
    std::fs::write(&rows[1], b"").expect("emptied");
    let mut bytes = std::fs::read(&rows[2]).expect("rows");
    bytes[9] ^= 1;
    std::fs::write(&rows[2], bytes).expect("written");
    broker.start_again();
    corner.reconnect(&broker);
    for partition in 0..3 {
        let read = corner.read_committed(&topic, partition, 0);
        assert_eq!(read.committed(), [], "partition {partition}");
        assert_eq!(read.aborted.expect("a list").len(), 1);
    }
}
