//! `docs/compatibility.md` is written from the table of APIs and from the results that `scripts/compat-table` has left: this test
//! writes it down again and compares.
//!
//! After a change of either: `TALLY_WRITE_DOCS=1 cargo test -p tally-broker --test compatibility_document`.

use std::fmt::Write;
use std::path::Path;

use kafka_protocol::messages::ApiKey;
use tally_protocol::api_table::{APIS, Api, NEVER, lookup};

const HEAD: &str = "\
# Kafka APIs

Written from the table in `crates/tally-protocol/src/api_table.rs` by the test `compatibility_document`.

What ApiVersions announces, with the versions that are answered. A version outside of them closes the connection, as it
does with Apache Kafka; ApiVersions alone is answered with its own row. Produce is announced from 0 and served from 3:
librdkafka before 2.11.1 turns compression off without that (KAFKA-18659). An API is listed once all its versions are complete.

| Key | API | Announced | Served | Flexible from |
|---:|---|---|---|---|
";

const TAIL: &str = "
## Answered as by an Apache Kafka that has none

| APIs | Reading | Changing |
|---|---|---|
| rules of access, 29 to 31 | 54, as without an authorizer | 54 |
| delegation tokens, 38 to 41 | 64, as on a plain listener | 64 |
| SCRAM credentials, 50 and 51 | none; 91 for a user that is named | what Kafka refuses is refused with its code, setting is 35 |

## What tools and libraries notice

`scripts/tools` compares what every command-line tool of Apache Kafka 4.3.1, and kcat 1.7.1, print. Words of errors are Tally's own; the errors are
the same. Whatever else differs is listed with its reason in `integration-tests/tools/tally`:

- DescribeConfigs shows Tally's own properties (`tally.…`) and some that Kafka hides, and names for a topic's times also the property in
  another unit that holds without it; the topics that the coordinators write have fewer settings of their own.
- Refused, where Kafka takes it: a broker's property that is not known, for all brokers (40), and more partitions of the topics that the
  coordinators write (17), whose keys would be looked for elsewhere. An operation of IncrementalAlterConfigs that does not exist is 42; of Kafka -1.
- ApiVersions is answered up to 5, which Kafka 4.4's clients ask. UnregisterBroker is not served.
- Quotas: `producer_byte_rate` and `consumer_byte_rate` are kept to; the others are kept and shown, and said in the log to do nothing (W2301). At most
  1000 users, clients and addresses have quotas (44 for more), with names of at most 1024 bytes; an ip is an address, no host's name; an entity that
  a request names twice is refused. A batch larger than all windows allow comes once they are empty; from Kafka it never comes.
- `metadata.version` has one level: a data directory has one form of metadata. The quorum's voter has the clients' listener.
- `kafka-features upgrade --release-version` is refused: a release has features for what Tally has not, and the updates of a request hold together
  or not at all. `--feature` takes one. Throttles of `kafka-reassign-partitions` are kept and shown; there is nothing to move that they could slow.

Where transactions differ on purpose is in `docs/exactly-once.md`, section 8.

## What client libraries' own tests say

The suites and checks are described in `integration-tests/README.md`. Known are the failures that `scripts/compat` lists with their reason:

- kafka-python's `test_create_describe_delete_acls` wants an authorizer, and `test_group` waits for a state that its group does not reach: both
  fail with Apache Kafka too.
- Left out with both is what needs several brokers (sarama's tests of following a replica, of moving replicas, and of a coordinator that is
  gone), and what starts containers (sarama's exchange with Java clients).
- Skipped is what a library can't do, or does with another version of Kafka only.

";

/// Written by `scripts/compat-table`.
const RESULTS: &str = include_str!("../../../integration-tests/results.md");

fn range(min: i16, max: i16) -> String {
    if min == max {
        return min.to_string();
    }
    format!("{min} to {max}")
}

fn row(api: &Api) -> String {
    let flexible = match api.flexible_from {
        NEVER => "never".to_owned(),
        version => version.to_string(),
    };
    let announced = range(api.listed_min, api.listed_max(false));
    let served = range(api.min, api.listed_max(false));
    format!(
        "| {} | {} | {announced} | {served} | {flexible} |",
        api.key, api.name
    )
}

fn document() -> String {
    let mut text = HEAD.to_owned();
    for api in APIS {
        writeln!(text, "{}", row(api)).expect("a String takes everything");
    }
    text.push_str(
        "\nNot served, of the APIs that the codec knows; most of them are for brokers and controllers among themselves:\n\n",
    );
    let missing = (0..=i16::from(u8::MAX)).filter(|key| lookup(*key).is_none());
    for key in missing {
        if let Ok(known) = ApiKey::try_from(key) {
            writeln!(text, "- {key} {known:?}").expect("a String takes everything");
        }
    }
    text.push_str(TAIL);
    text.push_str(RESULTS);
    text
}

#[test]
fn the_document_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let expected = document();
    if std::env::var_os("TALLY_WRITE_DOCS").is_some() {
        std::fs::write(&path, &expected).expect("docs can be written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/compatibility.md is there");
    assert!(
        written == expected,
        "docs/compatibility.md is out of date: run this test with TALLY_WRITE_DOCS=1"
    );
}
