//! The commands that ask a running cluster, against the real binary: what people see, what programs get, how they end.

mod cluster;
mod consume;
mod consume_group;
mod doctor;
mod exit_codes;
mod explain;
mod group;
mod hanging;
mod produce;
mod relay;
mod topic;
mod txn;
mod txn_why;

use std::process::{Command, Output};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, ProduceCall, Producer, transactional_id};

use kafka_protocol::messages::InitProducerIdRequest;
use tally_testkit::batches::Batch;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");

/// What a command came to.
pub(crate) struct Came {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

#[track_caller]
fn came(output: Output) -> Came {
    let err = String::from_utf8(output.stderr).expect("text");
    assert!(!err.contains("panicked"), "{err}");
    Came {
        code: output.status.code().expect("it ended by itself"),
        out: String::from_utf8(output.stdout).expect("text"),
        err,
    }
}

/// `tally ARGUMENTS -b BROKER`.
#[track_caller]
pub(crate) fn tally(broker: &Broker, arguments: &[&str]) -> Came {
    let address = broker.address().to_string();
    let output = Command::new(PROGRAM)
        .args(arguments)
        .args(["-b", &address])
        .output();
    came(output.expect("tally can be run"))
}

/// The same, of a command that must do what it is asked for; its output.
#[track_caller]
pub(crate) fn tally_well(broker: &Broker, arguments: &[&str]) -> String {
    let came = tally(broker, arguments);
    assert_eq!(came.code, 0, "{arguments:?}: {}", came.err);
    came.out
}

/// A producer of a transactional id, in the old flow.
#[track_caller]
pub(crate) fn init(client: &mut Client, id: &str) -> Producer {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(id)))
        .with_transaction_timeout_ms(60_000);
    let (error, producer) = client.init_producer_id(5, &request);
    assert_eq!(error, 0);
    producer
}

/// One record in a transaction of the old flow, which is left open.
#[track_caller]
pub(crate) fn write(
    client: &mut Client,
    id: &str,
    producer: Producer,
    (topic, partition): (&str, i32),
    sequence: i32,
) {
    let added = client.add_partitions(3, id, producer, &[(topic, partition)]);
    assert_eq!(added, [0]);
    let batch = Batch::transactional(producer.id, producer.epoch, sequence, 1);
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some(id),
        parts: vec![(topic, partition, Some(batch.encode()))],
    };
    assert_eq!(client.produce(&call)[0].error, 0);
}

#[test]
fn nobody_there_is_exit_code_3() {
    let output = Command::new(PROGRAM)
        .args(["txn", "list", "-b", "127.0.0.1:1"])
        .output();
    let came = came(output.expect("tally can be run"));
    assert_eq!(came.code, 3, "{}", came.err);
    assert!(
        came.err.starts_with("tally: cannot reach 127.0.0.1:1"),
        "{}",
        came.err
    );
}

#[test]
fn the_brokers_address_may_come_from_the_environment() {
    let broker = Broker::start(PROGRAM, &[]);
    let output = Command::new(PROGRAM)
        .args(["txn", "list"])
        .env("TALLY_BOOTSTRAP", broker.address())
        .output();
    let came = came(output.expect("tally can be run"));
    assert_eq!(
        (came.code, came.out.as_str()),
        (0, "no transactional ids\n")
    );
}
