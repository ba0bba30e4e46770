//! `tally explain`: what a word of the protocol, of the configuration or of the log means, and what to do. Asks nobody.

mod errors;
mod words;

use std::process::ExitCode;

use clap::Args;
use tally_broker::config::properties::{BROKER, CLIENT_METRICS, GROUP, TOPIC, broker_property};
use tally_broker::config::property::{Property, Range, Status, closest};

use super::{Done, Talk, finish};
use crate::client::{Failure, error_name};
use crate::output::{Format, Rows, Value};

/// `tally explain`.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// An error by its name or number, a property, a state of a transaction or a group, or a code of the log (W2101)
    #[arg(value_name = "WORD", required = true, allow_negative_numbers = true)]
    words: Vec<String>,
    /// How to write it
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    talk: Talk,
}

/// What is known of a word.
struct Meaning {
    kind: &'static str,
    name: String,
    text: String,
    /// What to do; empty if nothing is to be done.
    remedy: String,
    details: Vec<(&'static str, String)>,
}

/// Runs `tally explain`.
pub(crate) fn run(explain: &Explain) -> ExitCode {
    explain.talk.hold();
    finish(look_up(explain))
}

fn look_up(explain: &Explain) -> Result<Done, Failure> {
    let mut found = Vec::new();
    for word in &explain.words {
        let meanings = meanings(word);
        if meanings.is_empty() {
            let similar = similar(word)
                .map_or_else(String::new, |similar| format!(". Did you mean {similar}?"));
            return Err(Failure::Usage(format!(
                "{word}: nothing is known by this name{similar}"
            )));
        }
        found.extend(meanings);
    }
    let mut rows = Rows::new(explain.output);
    for (at, meaning) in found.iter().enumerate() {
        if explain.output == Format::Table {
            if at > 0 {
                rows.line("");
            }
            rows.line(&format!("{}  ({})", meaning.name, meaning.kind));
            rows.line(&format!("  {}", meaning.text));
            if !meaning.remedy.is_empty() {
                rows.line(&format!("  To do: {}", meaning.remedy));
            }
            for (name, value) in &meaning.details {
                rows.line(&format!("  {name}: {value}"));
            }
            continue;
        }
        let details = meaning.details.iter();
        let details = details.map(|(name, value)| (*name, Value::from(value.as_str())));
        let remedy = (!meaning.remedy.is_empty()).then_some(meaning.remedy.as_str());
        rows.row(
            "meaning",
            vec![
                ("what", Value::from(meaning.kind)),
                ("name", Value::from(meaning.name.as_str())),
                ("text", Value::from(meaning.text.as_str())),
                ("remedy", Value::from(remedy)),
                ("details", Value::Object(details.collect())),
            ],
        );
    }
    rows.finish();
    Ok(Done::Well)
}

/// All that a word may mean.
fn meanings(word: &str) -> Vec<Meaning> {
    let mut meanings: Vec<Meaning> = errors::find(word).into_iter().map(of_error).collect();
    let named = words::WORDS.iter();
    let named = named.filter(|row| row.name.eq_ignore_ascii_case(word) || alias(row.name, word));
    meanings.extend(named.map(|row| Meaning {
        kind: row.kind,
        name: row.name.to_owned(),
        text: row.text.to_owned(),
        remedy: row.remedy.to_owned(),
        details: Vec::new(),
    }));
    if let Some(row) = broker_property(word) {
        meanings.push(of_property("property of the broker", word, row));
    }
    for (kind, table) in [
        ("property of a topic", TOPIC),
        ("property of a group", GROUP),
        ("property of client metrics", CLIENT_METRICS),
    ] {
        let rows = table.iter().filter(|row| row.name == word);
        meanings.extend(rows.map(|row| of_property(kind, word, row)));
    }
    meanings
}

/// `W2101 txn.timeout` goes by both of its words.
fn alias(name: &str, word: &str) -> bool {
    name.split(' ').any(|part| part.eq_ignore_ascii_case(word))
}

fn of_error(row: &errors::Row) -> Meaning {
    let again = if row.is_retriable() {
        "yes, clients do so by themselves"
    } else {
        "no"
    };
    Meaning {
        kind: "error",
        name: error_name(row.code),
        text: row.text.to_owned(),
        remedy: row.remedy.to_owned(),
        details: vec![("may be tried again", again.to_owned())],
    }
}

fn of_property(kind: &'static str, name: &str, row: &Property) -> Meaning {
    let status = match row.status {
        Status::Honoured => "it does what it says",
        Status::NotYet => "known, and does nothing so far",
        Status::Ignored => "accepted, and has no meaning here",
    };
    let mut details = vec![
        ("type", format!("{:?}", row.kind).to_lowercase()),
        ("default", row.default.unwrap_or("none").to_owned()),
    ];
    let allowed = match row.range {
        Range::Any => None,
        Range::Between(min, i64::MAX) => Some(format!("at least {min}")),
        Range::Between(min, max) => Some(format!("{min} to {max}")),
        Range::Ratio => Some("0 to 1".to_owned()),
        Range::OneOf(values) => Some(values.join(", ")),
        Range::SomeOf(values) => Some(format!("some of {}", values.join(", "))),
    };
    details.extend(allowed.map(|allowed| ("allowed", allowed)));
    if !row.synonyms.is_empty() {
        details.push(("taken from", row.synonyms.join(", ")));
    }
    details.push(("status", status.to_owned()));
    Meaning {
        kind,
        name: name.to_owned(),
        text: row.text.to_owned(),
        remedy: String::new(),
        details,
    }
}

fn similar(word: &str) -> Option<String> {
    let tables = [BROKER, TOPIC, GROUP, CLIENT_METRICS];
    let properties = tables.into_iter().flatten().map(|row| row.name.to_owned());
    let words = words::WORDS.iter();
    let words = words.flat_map(|row| row.name.split(' ').map(str::to_owned));
    let errors = errors::ROWS.iter().map(|row| errors::name(row.code));
    let names: Vec<String> = properties.chain(words).chain(errors).collect();
    let names = names.iter().map(String::as_str);
    let upper = word.to_ascii_uppercase();
    let known: Vec<&str> = names.collect();
    closest(word, known.iter().copied())
        .or_else(|| closest(&upper, known.iter().copied()))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_meanings() {
        let names = |word: &str| -> Vec<String> {
            let found = meanings(word);
            found.into_iter().map(|meaning| meaning.name).collect()
        };
        for word in ["90", "PRODUCER_FENCED", "producer_fenced", "ProducerFenced"] {
            assert_eq!(names(word), ["PRODUCER_FENCED (90)"], "{word}");
        }
        assert_eq!(names("-1"), ["UNKNOWN_SERVER_ERROR (-1)"]);
        assert_eq!(names("w2101"), ["W2101 txn.timeout"]);
        assert_eq!(names("txn.timeout"), ["W2101 txn.timeout"]);
        assert_eq!(names("retention.ms"), ["retention.ms"]);
        assert_eq!(names("Empty").len(), 2, "of a transaction and of a group");
        assert!(names("nonsense").is_empty());
        assert_eq!(similar("retension.ms").as_deref(), Some("retention.ms"));
        assert_eq!(
            similar("produce_fenced").as_deref(),
            Some("PRODUCER_FENCED")
        );
    }
}
