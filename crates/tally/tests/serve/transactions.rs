//! What becomes of producers and transactions without their doing is said in the log, under a stable code: each fence and
//! abort, each id and producer that was forgotten, each marker of an operator (B-21), each transaction that hangs or is late (B-17).

use kafka_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use kafka_protocol::messages::{InitProducerIdRequest, WriteTxnMarkersRequest};
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex};
use tally_testkit::batches::Batch;
use tally_testkit::client::{Client, ProduceCall, Producer, topic_name, transactional_id};
use tally_testkit::waiting::wait_until;

use crate::{Served, new_dir};

const SETTINGS: [&str; 6] = [
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=20",
    "transaction.remove.expired.transaction.cleanup.interval.ms=20",
    "transactional.id.expiration.ms=1",
    "producer.id.expiration.ms=1",
    "producer.id.expiration.check.interval.ms=20",
    "transaction.state.log.num.partitions=1",
];

#[track_caller]
fn init(client: &mut Client, id: &str, timeout_ms: i32) -> (i16, Producer) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(id)))
        .with_transaction_timeout_ms(timeout_ms)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    client.init_producer_id(4, &request)
}

/// Begins a transaction of a new producer; again, should the id have expired in between.
#[track_caller]
fn begin(client: &mut Client, id: &str, timeout_ms: i32) -> Producer {
    let mut producer = Producer { id: -1, epoch: -1 };
    wait_until("the transaction begins", || {
        let (code, next) = init(client, id, timeout_ms);
        producer = next;
        code == 0 && client.add_partitions(3, id, next, &[("t", 0)]) == [0]
    });
    producer
}

/// An operator's abort.
#[track_caller]
fn mark(client: &mut Client, producer: Producer) {
    let topic = WritableTxnMarkerTopic::default()
        .with_name(topic_name("t"))
        .with_partition_indexes(vec![0]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(producer.id.into())
        .with_producer_epoch(producer.epoch)
        .with_coordinator_epoch(i32::MAX)
        .with_topics(vec![topic]);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let response = client.call(1, &request);
    let partition = &response.markers[0].topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
}

/// What the broker has written to its log so far.
#[track_caller]
fn log_of(served: &mut Served) -> Arc<Mutex<String>> {
    let errors = served.child.as_mut().expect("it runs").stderr.take();
    let log = Arc::new(Mutex::new(String::new()));
    let (lines, write) = (
        BufReader::new(errors.expect("piped")).lines(),
        Arc::clone(&log),
    );
    // It ends with the broker.
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let mut log = write.lock().expect("no panic");
            log.push_str(&line);
            log.push('\n');
        }
    });
    log
}

/// Waits for a line of the log that holds both.
#[track_caller]
fn wait_for_line(log: &Mutex<String>, code: &str, of: &str) {
    let is_it = |line: &str| line.contains(code) && line.contains(of);
    wait_until(code, || log.lock().expect("no panic").lines().any(is_it));
}

fn flags<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    settings.iter().flat_map(|set| ["--set", set]).collect()
}

#[test]
fn b21_what_befell_a_producer_is_said_in_the_log() {
    let dir = new_dir();
    let mut served = Served::start(dir.path(), &flags(&SETTINGS));
    let log = log_of(&mut served);
    let wait_for_line = |code, of: &str| wait_for_line(&log, code, of);
    let mut client = Client::connect(&served.address.to_string());
    client.create_topic("t", 1, &[]);

    begin(&mut client, "slow", 1);
    wait_for_line(" WARN W2101 txn.timeout: aborted and fenced", "\"slow\"");
    wait_for_line(" INFO I2106 txn.expired: forgotten", "\"slow\"");
    begin(&mut client, "shared", 60_000);
    assert_eq!(init(&mut client, "shared", 60_000).0, 51);
    wait_for_line(" WARN W2102 txn.fenced: aborted and fenced", "\"shared\"");
    let plain = client.idempotent_producer();
    let batch = Batch::idempotent(plain.id, plain.epoch, 0, 1);
    assert_eq!(client.produce_one("t", 0, batch.encode()).error, 0);
    wait_for_line(" INFO I2110 producer.expired: forgotten", "producers=");
    let open = begin(&mut client, "open", 60_000);
    mark(&mut client, open);
    wait_for_line(
        " WARN W2111 txn.marker: written for an operator",
        &format!("producer={}", open.id),
    );
}

#[test]
fn b21_what_a_power_cut_has_fenced_is_said_in_the_log() {
    let dir = new_dir();
    let mut served = Served::start(dir.path(), &[]);
    let mut client = Client::connect(&served.address.to_string());
    client.create_topic("t", 1, &[]);
    begin(&mut client, "open", 60_000);
    let mut child = served.child.take().expect("it runs");
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours");
    // What is on the disk was written in another run of the kernel.
    let boot_id = dir.path().join("data/boot-id");
    std::fs::write(boot_id, "another\n").expect("the broker has written one");

    let mut served = Served::start(dir.path(), &[]);
    let log = log_of(&mut served);
    wait_for_line(&log, " WARN W2104 txn.power_cut: ", "\"open\"");
}

#[test]
fn b21_what_hangs_and_what_is_late_is_said_in_the_log() {
    let dir = new_dir();
    let settings = [
        "tally.transaction.monitor.interval.ms=20",
        "tally.transaction.monitor.late.ms=0",
        // Nobody aborts what has timed out, as if the coordinator were stuck.
        "transaction.max.timeout.ms=1",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms=3600000",
    ];
    // The planted bug: a batch is taken without the coordinator's word.
    let awake = dir.path().join("unasked");
    let mut command = crate::tally();
    command.env("TALLY_FAULT", format!("unasked=fail@1:{}", awake.display()));
    let mut served = Served::start_with(command, dir.path(), &flags(&settings));
    let log = log_of(&mut served);
    let mut client = Client::connect(&served.address.to_string());
    client.create_topic("t", 1, &[]);
    let late = begin(&mut client, "late", 1);
    let send = |client: &mut Client, producer: Producer| {
        let batch = Batch::transactional(producer.id, producer.epoch, 0, 1);
        let call = ProduceCall {
            version: 9,
            acks: -1,
            transactional_id: Some("late"),
            parts: vec![("t", 0, Some(batch.encode()))],
        };
        client.produce(&call)[0].error
    };
    assert_eq!(send(&mut client, late), 0);
    let of = format!("producer={}", late.id);
    wait_for_line(&log, " WARN W2108 txn.late: ", &of);
    std::fs::write(&awake, "").expect("a directory of ours");
    let stray = Producer { id: 77, epoch: 3 };
    assert_eq!(send(&mut client, stray), 0);
    wait_for_line(
        &log,
        "ERROR E2107 txn.hanging: transaction that no coordinator knows aborted",
        "producer=77",
    );
}
