//! `tally txn why` of a producer that lost its id with nothing open: no line of a warning, and a reason all the same.

use crate::{init, tally_well};
use tally_testkit::broker::{Broker, is_reference, left_out};

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
