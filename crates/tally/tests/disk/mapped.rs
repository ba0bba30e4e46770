//! L30: answers that are on their way hold on to what they were made of. Records are sent from the mapped log, so a file
//! that was cut or unmapped under them would end the process with SIGBUS; only the broker itself could do that, and here
//! it does everything to its files that it ever does.

use crate::PROGRAM;
use bytes::Bytes;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{DeleteTopicsRequest, FetchRequest, IncrementalAlterConfigsRequest};
use tally_testkit::batches::Batch;
use tally_testkit::broker::{Broker, is_reference, offsets_of_files};
use tally_testkit::client::{Client, FetchCall, text, topic_name};
use tally_testkit::waiting::wait_until;

const BATCHES: i64 = 40;

/// More than the buffers of a connection hold, in segments of a megabyte.
#[track_caller]
fn fill(client: &mut Client, topic: &str, configs: &[(&str, &str)]) {
    let size = ("segment.bytes", "1048576");
    let configs: Vec<(&str, &str)> = configs.iter().copied().chain([size]).collect();
    client.create_topic(topic, 1, &configs);
    let mut batch = Batch::plain(1);
    batch.base_timestamp = 1_000_000;
    batch.records[0].value = Some(Bytes::from(vec![b'x'; 500_000]));
    let bytes = batch.encode();
    for _ in 0..BATCHES {
        assert_eq!(client.produce_one(topic, 0, bytes.clone()).error, 0);
    }
}

/// Asks for all of it, and reads nothing yet.
#[track_caller]
fn ask(broker: &Broker, topic: &str) -> (Client, i32) {
    let mut reader = broker.client();
    let call = FetchCall::of(topic, 0, 0, 0);
    let request = reader.fetch_request(&call);
    let sent = (*reader).send(12, &request);
    (reader, sent)
}

/// The first byte of an answer says that its records were found.
#[track_caller]
fn wait_for_answers(readers: &[(Client, i32)]) {
    for (reader, _) in readers {
        wait_until("an answer has begun", || reader.has_bytes());
    }
}

#[track_caller]
fn read_all(readers: Vec<(Client, i32)>, topic: &str) {
    for (mut reader, sent) in readers {
        let response = reader.receive::<FetchRequest>(12, sent);
        let read = reader.fetched(12, &response, topic, 0);
        let expected: Vec<i64> = (0..BATCHES).collect();
        assert_eq!(read.data_offsets(), expected, "checksums and all");
    }
}

/// IncrementalAlterConfigs: retention.ms=1000.
#[track_caller]
fn keep_for_a_second(client: &mut Client, topic: &str) {
    let config = AlterableConfig::default()
        .with_name(text("retention.ms"))
        .with_value(Some(text("1000")));
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(client.call(1, &request).responses[0].error_code, 0);
}

#[test]
fn l30_open_answers_outlive_their_segments() {
    if is_reference() {
        return; // It reads one segment at a time.
    }
    let broker = Broker::start(
        PROGRAM,
        &[
            "log.retention.check.interval.ms=20",
            "log.segment.delete.delay.ms=0",
        ],
    );
    let mut client = broker.client();
    for (topic, what) in [
        ("deleted", "the topic is deleted"),
        ("records", "its records are deleted"),
        ("retained", "its records are too old"),
    ] {
        // Old enough at once, where anybody looks at the age.
        fill(&mut client, topic, &[("retention.ms", "-1")]);
        let directory = broker.partition(&mut client, topic, 0);
        assert!(offsets_of_files(&directory, "log").len() > 10);
        let readers: Vec<_> = (0..3).map(|_| ask(&broker, topic)).collect();
        wait_for_answers(&readers);
        match topic {
            "deleted" => {
                let request = DeleteTopicsRequest::default()
                    .with_topic_names(vec![topic_name(topic)])
                    .with_timeout_ms(30_000);
                assert_eq!(client.call(5, &request).responses[0].error_code, 0);
                wait_until(what, || !directory.exists());
            }
            "records" => {
                assert_eq!(client.delete_records(topic, 0, BATCHES), (0, BATCHES));
                wait_until(what, || offsets_of_files(&directory, "log").len() == 1);
            }
            _ => {
                keep_for_a_second(&mut client, topic);
                wait_until(what, || {
                    client.list_offset((7, 0), topic, 0, -2).1 == BATCHES
                });
            }
        }
        read_all(readers, topic);
    }
    assert_eq!(client.api_versions(0).error_code, 0, "the process lives");
}
