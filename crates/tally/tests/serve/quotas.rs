//! A quota that is kept and does nothing is said in the log (W2301): one of another kind than those that are kept to, and one
//! of a user whom nobody can be. Of those that hold nothing is said. No name makes a line of its own.

use kafka_protocol::messages::AlterClientQuotasRequest;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use rustix::process::Signal;
use tally_testkit::client::{Client, text};

use crate::{Served, new_dir};

fn entry((kind, name): (&str, &str), quota: &str) -> EntryData {
    let entity = EntityData::default()
        .with_entity_type(text(kind))
        .with_entity_name(Some(text(name)));
    let op = OpData::default().with_key(text(quota)).with_value(1000.0);
    EntryData::default()
        .with_entity(vec![entity])
        .with_ops(vec![op])
}

#[test]
fn lr166_a_quota_that_is_set_in_vain_is_said_in_the_log() {
    let dir = new_dir();
    let served = Served::start(dir.path(), &[]);
    let mut client = Client::connect(&served.address.to_string());
    let entries = vec![
        entry(("client-id", "kept"), "producer_byte_rate"),
        entry(("user", "ANONYMOUS"), "consumer_byte_rate"),
        entry(("client-id", "vain-a"), "request_percentage"),
        entry(("client-id", "vain-b"), "controller_mutation_rate"),
        entry(("ip", "127.0.0.9"), "connection_creation_rate"),
        entry(("user", "vain-c"), "consumer_byte_rate"),
        entry(("client-id", "x\nW9999 forged"), "request_percentage"),
    ];
    let request = AlterClientQuotasRequest::default().with_entries(entries);
    let checked = request.clone().with_validate_only(true);
    for request in [checked, request] {
        let response = client.call(1, &request);
        let mut codes = response.entries.iter().map(|entry| entry.error_code);
        assert!(codes.all(|code| code == 0), "{response:?}");
    }
    served.signal(Signal::TERM);
    let (_, _, log) = served.ended();
    let said: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("W2301 config.unused"))
        .filter_map(|line| line.split("entity=").nth(1))
        .collect();
    assert_eq!(
        said,
        [
            "\"client-id vain-a\" quota=\"request_percentage\"",
            "\"client-id vain-b\" quota=\"controller_mutation_rate\"",
            "\"ip 127.0.0.9\" quota=\"connection_creation_rate\"",
            "\"user vain-c\" quota=\"consumer_byte_rate\"",
            "\"client-id x\\nW9999 forged\" quota=\"request_percentage\"",
        ],
        "{log}"
    );
}
