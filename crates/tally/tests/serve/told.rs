//! What a broker says to people besides its first screen: what a stop leaves open, who does not speak its protocol, and a
//! container's commonest trap.

use kafka_protocol::messages::InitProducerIdRequest;
use rustix::process::Signal;
use tally_testkit::client::{Client, transactional_id};
use tally_testkit::wire::Connection;

use crate::{Served, new_dir, tally};

/// user-experience.md section 12: open transactions outlive the stop, and it says which.
#[test]
fn a_stop_names_the_transactions_that_it_leaves_open() {
    let dir = new_dir();
    let served = Served::start(dir.path(), &[]);
    let mut client = Client::connect(&served.address.to_string());
    client.create_topic("orders", 1, &[]);
    for id in ["etl-3", "billing-7", "ended"] {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(id)))
            .with_transaction_timeout_ms(60_000);
        let (error, producer) = client.init_producer_id(5, &request);
        assert_eq!(error, 0);
        assert_eq!(
            client.add_partitions(3, id, producer, &[("orders", 0)]),
            [0]
        );
        if id == "ended" {
            assert_eq!(client.end_txn(3, id, producer, true).0, 0);
        }
    }
    served.signal(Signal::TERM);
    let (status, screen, log) = served.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    let expected = "\nstopped clean, 2 transactions left open (billing-7, etl-3)\n";
    assert!(screen.ends_with(expected), "{screen}");
}

/// user-experience.md section 11: the commonest mistakes at a plain port, once for each address.
#[test]
fn who_speaks_tls_or_http_to_the_kafka_port_is_named_once() {
    let dir = new_dir();
    let served = Served::start(dir.path(), &[]);
    let hello = [&[22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &[0; 194]].concat();
    for bytes in [&hello[..], b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"].repeat(2) {
        let mut connection = Connection::open(&served.address.to_string());
        connection.send_bytes(bytes);
        assert!(connection.receive_frame().is_none(), "closed");
    }
    let port = served.address.port();
    served.signal(Signal::TERM);
    let (_, _, log) = served.ended();
    for name in ["TLS", "HTTP"] {
        let line = format!(
            "W1101 listener.foreign: 127.0.0.1 speaks {name} to PLAINTEXT listener {port}; "
        );
        assert_eq!(log.matches(&line).count(), 1, "{log}");
    }
    assert!(
        log.contains("set security.protocol=PLAINTEXT there"),
        "{log}"
    );
}

/// user-experience.md section 11: the commonest trap in a container.
#[test]
fn a_container_that_tells_clients_of_localhost_warns() {
    let dir = new_dir();
    let started = |arguments: &[&str]| {
        let lifetime = ["--max-lifetime", "1ms"];
        let data = dir.path().join("data");
        let mut command = tally();
        command
            .args(lifetime)
            .args(arguments)
            .arg("--data")
            .arg(&data);
        let output = command.env("container", "oci").output();
        String::from_utf8(output.expect("tally can be run").stderr).expect("text")
    };
    let warning = "clients outside this container will be told localhost:9092; set KAFKA_ADVERTISED_LISTENERS";
    let log = started(&["--listen", "0.0.0.0:0", "--advertise", "localhost:9092"]);
    assert!(log.contains(warning), "{log}");
    let log = started(&["--listen", "127.0.0.1:0", "--advertise", "localhost:9092"]);
    assert!(!log.contains("outside this container"), "{log}");
}
