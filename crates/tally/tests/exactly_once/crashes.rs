//! Clients that go on over kills of the broker: nothing acknowledged is lost, nothing is there twice, no transaction is
//! torn (X-060, X-292 in small; the main job does it with real clients).

use crate::world::PROGRAM;
use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tally_testkit::batches::Batch;
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, ProduceCall, Producer, transactional_id, unique};
use tally_testkit::waiting::{wait_for, wait_until};

/// Where the broker is at present: it moves at each start.
struct Address(Mutex<String>);

impl Address {
    fn get(&self) -> String {
        self.0.lock().expect("no panic").clone()
    }

    /// A client, as soon as the broker is there.
    fn client(&self) -> Client {
        wait_for("the broker", || Client::try_connect(&self.get()).ok())
    }
}

/// One request that may meet a dead broker: `None` then.
fn produce(client: &mut Client, call: &ProduceCall<'_>) -> Option<Vec<(i16, i64)>> {
    let request = client.produce_request(call);
    let response = client.try_call::<ProduceRequest>(call.version, &request)?;
    let produced = client.produced(call, &response);
    Some(
        produced
            .iter()
            .map(|one| (one.error, one.base_offset))
            .collect(),
    )
}

/// Kills the broker each time the workers have done another `every` steps, until they are done.
fn kill_by_count(
    broker: &mut Broker,
    address: &Address,
    done: &AtomicUsize,
    (every, all): (usize, usize),
) {
    for kill in 1..all / every {
        wait_until("the workers go on", || {
            done.load(Ordering::Relaxed) >= kill * every
        });
        broker.kill_and_start();
        broker
            .address()
            .clone_into(&mut address.0.lock().expect("no panic"));
    }
}

#[test]
fn x060_no_duplicate_and_no_gap_over_kills() {
    const WORKERS: usize = 4;
    const BATCHES: i32 = 150;
    let mut broker = Broker::start(PROGRAM, &[]);
    let address = Address(Mutex::new(broker.address().to_owned()));
    let topic = unique("t");
    broker.client().create_topic(&topic, 1, &[]);
    let done = AtomicUsize::new(0);
    let acknowledged = Mutex::new(BTreeMap::new());
    let work = || {
        let mut client = address.client();
        let a = client.idempotent_producer();
        for sequence in 0..BATCHES {
            let batch = Batch::idempotent(a.id, a.epoch, sequence, 1).encode();
            let call = ProduceCall {
                version: 9,
                acks: -1,
                transactional_id: None,
                parts: vec![(&topic, 0, Some(batch))],
            };
            let offset = loop {
                match produce(&mut client, &call) {
                    Some(results) if results[0].0 == 0 => break results[0].1,
                    Some(results) => assert!(matches!(results[0].0, 3 | 6), "{results:?}"),
                    None => client = address.client(),
                }
            };
            let mut acknowledged = acknowledged.lock().expect("no panic");
            acknowledged.insert(offset, (a.id, sequence));
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        (0..WORKERS).for_each(|_| drop(scope.spawn(work)));
        let all = WORKERS * usize::try_from(BATCHES).expect("positive");
        kill_by_count(&mut broker, &address, &done, (100, all));
    });
    let acknowledged = acknowledged.into_inner().expect("no panic");
    let mut client = broker.client();
    let read = client.read_uncommitted(&topic, 0, 0);
    let stored: BTreeMap<i64, (i64, i32)> = read
        .batches
        .iter()
        .map(|batch| {
            let header = &batch.header;
            (
                batch.base_offset(),
                (header.producer_id.0, header.base_sequence.0),
            )
        })
        .collect();
    assert_eq!(stored.len(), read.batches.len());
    assert_eq!(
        stored, acknowledged,
        "each batch once, where it was said to be"
    );
}

/// One transaction over both partitions, with the value in each. `None`: not acknowledged, whatever became of it.
fn transaction(
    client: &mut Client,
    (id, topic): (&str, &str),
    producer: Producer,
    (sequence, value): (i32, &str),
) -> Option<()> {
    let parts = [(topic, 0), (topic, 1)];
    let added = client.try_add_partitions(3, id, producer, &parts)?;
    if added != [0, 0] {
        return None;
    }
    let mut batch = Batch::transactional(producer.id, producer.epoch, sequence, 1);
    batch.records[0].value = Some(Bytes::copy_from_slice(value.as_bytes()));
    let bytes = batch.encode();
    let call = ProduceCall {
        version: 9,
        acks: -1,
        transactional_id: Some(id),
        parts: parts
            .map(|(topic, p)| (topic, p, Some(bytes.clone())))
            .to_vec(),
    };
    let produced = produce(client, &call)?;
    if produced.iter().any(|(error, _)| *error != 0) {
        return None;
    }
    let error = client.try_end_txn(3, id, producer, true)?;
    (error == 0).then_some(())
}

#[test]
fn x292_no_transaction_is_torn_over_kills() {
    const WORKERS: usize = 3;
    const TRANSACTIONS: usize = 60;
    let mut broker = Broker::start(PROGRAM, &[]);
    if broker.client().is_apache_kafka() {
        return; // On one node its coordinator may answer 51 for a minute after a kill.
    }
    let address = Address(Mutex::new(broker.address().to_owned()));
    let topic = unique("t");
    broker.client().create_topic(&topic, 2, &[]);
    let done = AtomicUsize::new(0);
    let committed = Mutex::new(Vec::new());
    let work = |worker: usize| {
        let id = unique("x");
        let init = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(&id)))
            .with_transaction_timeout_ms(60_000);
        // A new epoch fences whatever was left under way.
        let start = |client: &mut Client| {
            let started = wait_for("a producer", || {
                let response = client.try_call(4, &init);
                if response.is_none() {
                    *client = address.client();
                }
                response.filter(|response| response.error_code == 0)
            });
            Producer {
                id: started.producer_id.0,
                epoch: started.producer_epoch,
            }
        };
        let mut client = address.client();
        let mut producer = start(&mut client);
        let mut sequence = 0;
        for nth in 0..TRANSACTIONS {
            let value = format!("{worker}-{nth}");
            let names = (id.as_str(), topic.as_str());
            if transaction(&mut client, names, producer, (sequence, &value)).is_some() {
                committed.lock().expect("no panic").push(value);
                sequence += 1;
            } else {
                client = address.client();
                producer = start(&mut client);
                sequence = 0;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    let work = &work;
    std::thread::scope(|scope| {
        (0..WORKERS).for_each(|worker| drop(scope.spawn(move || work(worker))));
        kill_by_count(&mut broker, &address, &done, (30, WORKERS * TRANSACTIONS));
    });
    check_whole(&broker, &topic, &committed.into_inner().expect("no panic"));
}

/// Both partitions hold the same values, each once, and all that were acknowledged.
#[track_caller]
fn check_whole(broker: &Broker, topic: &str, committed: &[String]) {
    let mut client = broker.client();
    let mut read = [0, 1].map(|partition| {
        wait_until("all are decided", || {
            client.stable(topic, partition) == client.latest(topic, partition)
        });
        let fetched = client.read_committed(topic, partition, 0);
        let values = fetched.committed().into_iter();
        let value = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        values
            .filter_map(|(_, bytes)| Some(value(bytes?)))
            .collect::<Vec<_>>()
    });
    for values in &mut read {
        values.sort_unstable();
        let count = values.len();
        values.dedup();
        assert_eq!(values.len(), count, "a value is there twice");
    }
    assert_eq!(read[0], read[1], "a torn transaction");
    for value in committed {
        assert!(read[0].contains(value), "{value} was committed and is lost");
    }
}
