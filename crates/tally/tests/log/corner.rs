//! A test's own corner of the shared broker: a connection and a topic.

use bytes::Bytes;
use std::ops::{Deref, DerefMut};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, ProduceCall, Produced, unique};
use tally_testkit::waiting::wait_until;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");

#[derive(Debug)]
pub(crate) struct Corner {
    pub(crate) client: Client,
    pub(crate) address: String,
    pub(crate) topic: String,
    /// The broker is Apache Kafka: deviations are not asked for.
    pub(crate) is_kafka: bool,
}

impl Deref for Corner {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Corner {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Corner {
    /// With a topic of one partition.
    #[track_caller]
    pub(crate) fn new() -> Corner {
        Corner::with_topic(1, &[])
    }

    #[track_caller]
    pub(crate) fn with_topic(partitions: i32, configs: &[(&str, &str)]) -> Corner {
        Corner::at(Broker::shared(PROGRAM), partitions, configs)
    }

    #[track_caller]
    pub(crate) fn at(address: &str, partitions: i32, configs: &[(&str, &str)]) -> Corner {
        let mut client = Client::connect(address);
        let topic = unique("l");
        client.create_topic(&topic, partitions, configs);
        let is_kafka = client.is_apache_kafka();
        Corner {
            client,
            address: address.to_owned(),
            topic,
            is_kafka,
        }
    }

    /// Another connection.
    #[track_caller]
    pub(crate) fn another_client(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Another topic.
    #[track_caller]
    pub(crate) fn another_topic(&mut self, partitions: i32, configs: &[(&str, &str)]) -> String {
        let topic = unique("m");
        self.client.create_topic(&topic, partitions, configs);
        topic
    }

    /// One record set to partition 0 by the version given.
    #[track_caller]
    pub(crate) fn send(&mut self, version: i16, records: Bytes) -> Produced {
        let call = ProduceCall {
            version,
            acks: -1,
            transactional_id: None,
            parts: vec![(&self.topic, 0, Some(records))],
        };
        self.client.produce(&call).remove(0)
    }

    /// The code for one batch sent to partition 0.
    #[track_caller]
    pub(crate) fn code(&mut self, batch: &Batch) -> i16 {
        self.send(9, batch.encode()).error
    }

    /// Appends `count` records to partition 0; the offset of the first.
    #[track_caller]
    pub(crate) fn fill(&mut self, count: i32) -> i64 {
        let produced = self.send(9, Batch::plain(count).encode());
        assert_eq!(produced.error, 0);
        produced.base_offset
    }

    /// After a restart: the same topic over a new connection, once its partitions answer.
    #[track_caller]
    pub(crate) fn reconnect(&mut self, broker: &Broker) {
        self.address = broker.address().to_owned();
        self.client = broker.client();
        let topic = self.topic.clone();
        // Apache Kafka accepts connections before it knows its topics, and before its partitions take requests.
        wait_until("the topic is known", || {
            self.client.topic(&topic).error_code == 0
        });
        for partition in self.client.topic(&topic).partitions {
            wait_until("the partition answers", || {
                let index = partition.partition_index;
                self.client.list_offset((7, 0), &topic, index, -1).0 == 0
            });
        }
    }

    /// The offsets of all records from the batch on that holds `from`. Apache Kafka reads one segment at a time.
    #[track_caller]
    pub(crate) fn offsets_from(&mut self, partition: i32, from: i64) -> Vec<i64> {
        let topic = self.topic.clone();
        let (mut offsets, mut next) = (Vec::new(), from);
        loop {
            let read = self.client.read_uncommitted(&topic, partition, next);
            assert_eq!(read.error, 0);
            let Some(last) = read.batches.last() else {
                return offsets;
            };
            next = last.header.last_offset().0 + 1;
            offsets.extend(read.data_offsets());
        }
    }

    /// End of partition 0.
    #[track_caller]
    pub(crate) fn end(&mut self) -> i64 {
        let topic = self.topic.clone();
        self.client.latest(&topic, 0)
    }
}

impl Drop for Corner {
    /// Whatever a test did, its connection is still of use.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.client.api_versions(0).error_code, 0);
        }
    }
}
