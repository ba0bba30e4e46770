//! `docs/configuration.md` is written from the table of properties: this test writes it down again and compares.
//!
//! After a change of the table: `TALLY_WRITE_DOCS=1 cargo test -p tally-broker --test configuration_document`.

use std::fmt::Write;
use std::path::Path;

use tally_broker::config::CHANGEABLE;
use tally_broker::config::properties::{ALIASES, BROKER, TOPIC};
use tally_broker::config::property::{Kind, Property, Range, Status};

const HEAD: &str = "\
# Properties

Written from the table in `crates/tally-broker/src/config/properties.rs` by the test `configuration_document`.

A property is given, the strongest first, by

1. `tally serve --set KEY=VALUE`; some have a flag of their own (`tally serve --help`);
2. an environment variable, by the rule of Kafka's container image: `KAFKA_LOG_RETENTION_MS` is `log.retention.ms` (`_` for a
   dot, `__` for an underscore, `___` for a hyphen), `TALLY_SHARDS` is `tally.shards`, `CLUSTER_ID` is `tally.cluster.id`;
3. a file in the syntax of Kafka's `server.properties`: `tally serve FILE`. Listeners named in `controller.listener.names` are
   left out.

`tally serve FILE --check-config` checks all of it, addresses and the data directory included, and starts nothing;
`--print-config` prints what was given and where, `--print-config=all` every property. What was set at run time is
stronger than all of these.

Names and defaults are those of Apache Kafka 4.3.1 unless the text says otherwise. A misspelt name is an error. A topic's property
is given with CreateTopics and changed at run time; where the topic does not set it, the broker's property of the second column holds.

- **honoured**: it does what it says.
- **not yet**: it is known and kept, and does nothing so far. The broker says so when it starts, and of a topic's property
  when the topic is made or changed (W2301).
- Properties that mean nothing here are accepted, so that the settings of a Kafka broker can be used as they are; these are
  listed at the end, and the broker says at the start, or when the topic is made or changed, that it ignores them.
";

fn document() -> String {
    let mut text = HEAD.to_owned();
    let own: Vec<&Property> = BROKER
        .iter()
        .filter(|row| row.name.starts_with("tally."))
        .collect();
    let kafkas: Vec<&Property> = BROKER
        .iter()
        .filter(|row| !row.name.starts_with("tally.") && row.status != Status::Ignored)
        .collect();
    section(&mut text, "Tally's own", &own);
    section(&mut text, "Broker", &kafkas);
    aliases(&mut text);
    topics(&mut text);
    changeable(&mut text);
    ignored(&mut text);
    text
}

fn section(text: &mut String, title: &str, rows: &[&Property]) {
    line(text, &format!("\n## {title}\n"));
    line(text, "| Name | Type | Default | Allowed | Status | |");
    line(text, "|---|---|---|---|---|---|");
    for row in rows {
        let cells = [
            format!("`{}`", row.name),
            kind(row.kind).to_owned(),
            value(row.default),
            range(row.range),
            status(row.status).to_owned(),
            row.text.to_owned(),
        ];
        line(text, &format!("| {} |", cells.join(" | ")));
    }
}

fn aliases(text: &mut String) {
    let names: Vec<String> = ALIASES
        .iter()
        .map(|(alias, name)| format!("`{alias}` is `{name}`"))
        .collect();
    line(text, &format!("\nOther names: {}.", names.join(", ")));
}

fn topics(text: &mut String) {
    line(text, "\n## Topics\n");
    line(text, "| Name | Default from | Type | Allowed | Status | |");
    line(text, "|---|---|---|---|---|---|");
    for row in TOPIC {
        let from = if row.synonyms.is_empty() {
            value(row.default)
        } else {
            let names: Vec<String> = row
                .synonyms
                .iter()
                .map(|name| format!("`{name}`"))
                .collect();
            names.join(", ")
        };
        let cells = [
            format!("`{}`", row.name),
            from,
            kind(row.kind).to_owned(),
            range(row.range),
            status(row.status).to_owned(),
            row.text.to_owned(),
        ];
        line(text, &format!("| {} |", cells.join(" | ")));
    }
    line(
        text,
        "\nRemoved in Kafka 4.0 and refused: `message.format.version`, `message.downconversion.enable`, \
         `message.timestamp.difference.max.ms`.",
    );
}

fn changeable(text: &mut String) {
    line(text, "\n## Changed at run time\n");
    line(
        text,
        "IncrementalAlterConfigs and AlterConfigs change every property of a topic, and these of a broker, for this broker or \
         for all (an empty name). They hold at once and after a restart. The strongest comes first: this broker's, all \
         brokers', what was given at start, the default. Others take a restart: they are refused (42).\n",
    );
    for name in CHANGEABLE {
        line(text, &format!("- `{name}`"));
    }
}

fn ignored(text: &mut String) {
    line(text, "\n## Accepted without a meaning\n");
    line(text, "| Name | Why |");
    line(text, "|---|---|");
    for row in BROKER.iter().filter(|row| row.status == Status::Ignored) {
        line(text, &format!("| `{}` | {} |", row.name, row.text));
    }
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{content}").expect("a String takes everything");
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Boolean => "boolean",
        Kind::String => "string",
        Kind::Int => "int",
        Kind::Short => "short",
        Kind::Long => "long",
        Kind::Double => "double",
        Kind::List => "list",
        Kind::Class => "class",
        Kind::Password => "password",
    }
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Honoured => "honoured",
        Status::NotYet => "not yet",
        Status::Ignored => "no meaning here",
    }
}

fn value(value: Option<&str>) -> String {
    match value {
        None => "none".to_owned(),
        Some("") => "empty".to_owned(),
        Some("1.7976931348623157E308" | "9223372036854775807") => "no limit".to_owned(),
        Some(value) => format!("`{value}`"),
    }
}

fn range(range: Range) -> String {
    match range {
        Range::Any => String::new(),
        Range::Between(min, i64::MAX) => format!("at least {min}"),
        Range::Between(min, max) => format!("{min} to {max}"),
        Range::Ratio => "0 to 1".to_owned(),
        Range::OneOf(allowed) => allowed.join(", "),
        Range::SomeOf(allowed) => format!("some of {}", allowed.join(", ")),
    }
}

#[test]
fn the_document_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let expected = document();
    if std::env::var_os("TALLY_WRITE_DOCS").is_some() {
        std::fs::write(&path, &expected).expect("docs can be written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/configuration.md is there");
    assert!(
        written == expected,
        "docs/configuration.md is out of date: run this test with TALLY_WRITE_DOCS=1"
    );
}
