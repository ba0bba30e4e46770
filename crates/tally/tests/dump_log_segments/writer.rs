//! Writes into one partition and keeps what it wrote, in the words of DumpLogSegments.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{InitProducerIdRequest, JoinGroupRequest, SyncGroupRequest};
use tally_testkit::batches::{Batch, Codec};
use tally_testkit::client::{Client, ProduceCall, Producer, group_id, text, transactional_id};
use tally_testkit::waiting::wait_until;

pub(crate) const TOPIC: &str = "orders";
/// The topic that is compacted.
pub(crate) const COMPACTED: &str = "prices";
/// Batches of three keys that it gets.
const PRICES: i64 = 20;

/// A subscription, and an assignment, of the consumer protocol: version 0, no topics, no user data.
const NO_TOPICS: [u8; 10] = [0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

fn text_of(bytes: Option<&Bytes>) -> String {
    let bytes = bytes.map(|bytes| &bytes[..]).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a batch has to look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Content {
    pub(crate) base: i64,
    pub(crate) last: i64,
    pub(crate) count: i32,
    pub(crate) sequence: i32,
    pub(crate) producer: (i64, i16),
    pub(crate) is_transactional: bool,
    pub(crate) is_control: bool,
    pub(crate) codec: String,
}

/// A record, or a marker with nothing but its word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    pub(crate) offset: i64,
    pub(crate) key: String,
    pub(crate) payload: String,
}

/// Producer, first offset, offset of the marker, last stable offset behind it.
pub(crate) type Row = (i64, i64, i64, i64);

pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) batches: Vec<Content>,
    pub(crate) records: Vec<Line>,
    pub(crate) aborted: Vec<Row>,
    /// What was written into the compacted topic.
    pub(crate) compacted: Vec<Line>,
    start_ms: i64,
    end: i64,
}

impl Writer {
    pub(crate) fn new(mut client: Client) -> Writer {
        let small = [
            ("internal.segment.bytes", "600"),
            ("index.interval.bytes", "1"),
        ];
        client.create_topic(TOPIC, 1, &small);
        Writer {
            client,
            batches: Vec::new(),
            records: Vec::new(),
            aborted: Vec::new(),
            compacted: Vec::new(),
            start_ms: tally_testkit::batches::now_ms() - 1_000_000,
            end: 0,
        }
    }

    /// Sends a batch, a second younger than the one before.
    #[track_caller]
    pub(crate) fn send(&mut self, id: Option<&str>, version: i16, mut batch: Batch) {
        batch.base_timestamp = self.start_ms + self.end * 1000;
        let call = ProduceCall {
            version,
            acks: -1,
            transactional_id: id,
            parts: vec![(TOPIC, 0, Some(batch.encode()))],
        };
        let produced = self.client.produce(&call).remove(0);
        assert_eq!((produced.error, produced.base_offset), (0, self.end));
        let count = i32::try_from(batch.records.len()).expect("few");
        let codec = match batch.codec {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::SnappyRaw | Codec::SnappyFramed => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        };
        for (offset, record) in (self.end..).zip(&batch.records) {
            self.records.push(Line {
                offset,
                key: text_of(record.key.as_ref()),
                payload: text_of(record.value.as_ref()),
            });
        }
        self.batches.push(Content {
            base: self.end,
            last: self.end + i64::from(count) - 1,
            count,
            sequence: batch.base_sequence,
            producer: (batch.producer_id, batch.producer_epoch),
            is_transactional: id.is_some(),
            is_control: false,
            codec: codec.to_owned(),
        });
        self.end += i64::from(count);
    }

    /// The marker that ends the transaction which began at `first`.
    fn marker(&mut self, producer: Producer, first: i64, commit: bool) {
        let word = if commit { "COMMIT" } else { "ABORT" };
        self.batches.push(Content {
            base: self.end,
            last: self.end,
            count: 1,
            sequence: -1,
            producer: (producer.id, producer.epoch),
            is_transactional: true,
            is_control: true,
            codec: "none".to_owned(),
        });
        self.records.push(Line {
            offset: self.end,
            key: String::new(),
            payload: word.to_owned(),
        });
        if !commit {
            // No other transaction is open.
            let stable = self.end + 1;
            self.aborted.push((producer.id, first, self.end, stable));
        }
        self.end += 1;
    }

    #[track_caller]
    fn init(&mut self, id: &str) -> Producer {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(id)))
            .with_transaction_timeout_ms(60_000);
        let (error, producer) = self.client.init_producer_id(5, &request);
        assert_eq!(error, 0);
        producer
    }

    /// Writes the same keys again and again, and waits until compaction has been through what is closed.
    #[track_caller]
    pub(crate) fn compact(&mut self) {
        let configs = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("internal.segment.bytes", "600"),
            ("index.interval.bytes", "1"),
        ];
        self.client.create_topic(COMPACTED, 1, &configs);
        for nth in 0..PRICES {
            let mut batch = Batch::plain(3).with_values(&format!("price-{nth}"));
            // Keys of their own between those that come again: something stays of each segment.
            batch.records[0].key = Some(Bytes::from(format!("once-{nth}")));
            let sent = self.client.produce_one(COMPACTED, 0, batch.encode());
            assert_eq!((sent.error, sent.base_offset), (0, nth * 3));
            for (offset, record) in (nth * 3..).zip(&batch.records) {
                self.compacted.push(Line {
                    offset,
                    key: text_of(record.key.as_ref()),
                    payload: text_of(record.value.as_ref()),
                });
            }
        }
        wait_until("the log is compacted", || {
            let read = self.client.read_uncommitted(COMPACTED, 0, 0);
            read.data_offsets().len() < self.compacted.len() * 2 / 3
        });
    }

    /// Becomes the only member of a classic group.
    #[track_caller]
    pub(crate) fn join(&mut self, group: &str) {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(&NO_TOPICS));
        let join = JoinGroupRequest::default()
            .with_group_id(group_id(group))
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let joined = self.client.call(3, &join);
        assert_eq!(joined.error_code, 0);
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(Bytes::from_static(&NO_TOPICS));
        let sync = SyncGroupRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id)
            .with_assignments(vec![assignment]);
        assert_eq!(self.client.call(2, &sync).error_code, 0);
    }

    /// Transactions of both protocols, committed and aborted, with offsets.
    #[track_caller]
    pub(crate) fn transactions(&mut self) {
        self.client.wait_for_group("readers");
        // The second protocol: an epoch for each transaction, and the marker has the next one.
        let mut second = self.init("second");
        for nth in 0..6 {
            let (first, commit) = (self.end, nth % 3 != 0);
            for sequence in [0, 2] {
                let batch = Batch::transactional(second.id, second.epoch, sequence, 2);
                self.send(Some("second"), 12, batch);
            }
            let offsets =
                Client::txn_offset_commit_request("second", second, "readers", &[(TOPIC, 0, nth)]);
            assert_eq!(self.client.txn_offset_commit(5, &offsets), [0]);
            let (error, next) = self.client.end_txn(5, "second", second, commit);
            assert_eq!(error, 0);
            self.marker(next, first, commit);
            second = next;
        }
        // The first one: one epoch for all.
        let producer = self.init("first");
        for nth in 0..4 {
            let added = self
                .client
                .add_partitions(3, "first", producer, &[(TOPIC, 0)]);
            assert_eq!(added, [0]);
            let (first, commit) = (self.end, nth % 2 == 0);
            let batch = Batch::transactional(producer.id, producer.epoch, nth, 1);
            self.send(Some("first"), 9, batch.compressed(Codec::Zstd));
            assert_eq!(self.client.end_txn(3, "first", producer, commit).0, 0);
            self.marker(producer, first, commit);
        }
    }
}
