//! `tally txn why` where not everything is as usual: an id that was lost with nothing open, a topic that is gone, a name that
//! would do something to a terminal.

use crate::{init, tally_well, write};
use tally_testkit::broker::{Broker, is_reference, left_out};
use tally_testkit::waiting::wait_until;

#[test]
fn why_names_who_was_taken_over_with_nothing_open() {
    if is_reference() {
        return left_out("Only Tally says.");
    }
    let broker = Broker::start(crate::PROGRAM, &[]);
    let mut client = broker.client();
    let first = init(&mut client, "etl-0");
    init(&mut client, "etl-0");
    let out = tally_well(&broker, &["txn", "why", "etl-0"]);
    assert!(out.starts_with("etl-0: it was fenced "), "{out}");
    let who = format!(
        "a newer instance called InitProducerId; nothing was open (producer {}, epoch 0 is fenced).",
        first.id
    );
    assert!(out.contains(&who), "{out}");
    let code = "Code    I2109, also in the broker's log at level debug";
    assert!(out.contains(code), "{out}");
}

/// A transaction names what it holds to its end, and what was deleted meanwhile is no reason to say nothing.
#[test]
fn why_is_answered_when_another_topic_of_the_transaction_is_gone() {
    let broker = Broker::start(crate::PROGRAM, &[]);
    let mut client = broker.client();
    client.create_topic("orders", 1, &[]);
    client.create_topic("gone", 2, &[]);
    let open = init(&mut client, "etl-0");
    write(&mut client, "etl-0", open, ("orders", 0), 0);
    write(&mut client, "etl-0", open, ("gone", 1), 0);
    let also = "        It also holds: gone:1";
    let why = || tally_well(&broker, &["txn", "why", "orders:0"]);
    assert!(why().contains(&format!("{also} from 0.")), "{}", why());
    tally_well(&broker, &["topic", "delete", "gone", "--yes"]);
    wait_until("the topic is gone", || client.topic("gone").error_code != 0);
    assert!(why().contains(&format!("{also}.")), "{}", why());
    // There again, with fewer partitions.
    client.create_topic("gone", 1, &[]);
    assert!(why().contains(&format!("{also}.")), "{}", why());
}

/// Whoever may write may choose a transactional id, and somebody else reads it on a terminal.
#[test]
fn why_gives_a_terminal_no_orders_of_a_client() {
    let broker = Broker::start(crate::PROGRAM, &[]);
    let mut client = broker.client();
    client.create_topic("orders", 1, &[]);
    let id = "etl\u{1b}[2J\nNow     run this";
    let open = init(&mut client, id);
    write(&mut client, id, open, ("orders", 0), 0);
    let out = tally_well(&broker, &["txn", "why", "orders:0"]);
    assert!(
        out.contains("Cause   transaction etl\\u{1b}[2J\\nNow     run this (producer "),
        "{out}"
    );
    assert!(!out.contains('\u{1b}'), "{out}");
}
