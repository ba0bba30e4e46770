//! `tally txn list`.

use tally_protocol::transaction_note::TransactionNote;

use super::ask::{self, Described, Filter};
use super::{List, now_ms};
use crate::client::Failure;
use crate::commands::{Common, Done, in_words};
use crate::output::{Listing, Value};

const HEADINGS: [&str; 8] = [
    "TRANSACTIONAL ID",
    "PRODUCER",
    "STATE",
    "AGE",
    "TIMEOUT",
    "PARTITIONS",
    "CLIENT",
    "",
];
/// The topic in which groups keep their offsets.
pub(super) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// From this share of its timeout on a transaction is marked.
pub(super) const LATE_PERCENT: i64 = 80;

pub(super) fn run(list: &List, common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let filter = Filter {
        states: list.state.clone(),
        producer_ids: list.producer.clone(),
        older_ms: list
            .older
            .map(|older| i64::try_from(older.as_millis()).unwrap_or(i64::MAX)),
        prefix: list.prefix.clone(),
    };
    let mut ids: Vec<String> = ask::list(&mut cluster, &filter)?
        .into_iter()
        .map(|row| row.id)
        .collect();
    ids.dedup();
    let now_ms = now_ms();
    let mut listing = Listing::new(common.output, "transaction", &HEADINGS);
    for row in ask::describe(&mut cluster, &ids)? {
        // Expired since it was listed.
        if row.error == ask::NOT_FOUND {
            continue;
        }
        crate::client::check(row.id.clone(), row.error)?;
        listing.row(cells(&row, now_ms), fields(&row, now_ms));
    }
    listing.finish("no transactional ids");
    Ok(Done::Well)
}

/// How long the transaction has been open; `None` if there is none.
pub(super) fn age_ms(row: &Described, now_ms: i64) -> Option<i64> {
    let is_open = row.state == "Ongoing" || row.state.starts_with("Prepare");
    let started_ms = row.started_ms.filter(|_| is_open)?;
    Some(now_ms.saturating_sub(started_ms).max(0))
}

fn cells(row: &Described, now_ms: i64) -> Vec<String> {
    let age_ms = age_ms(row, now_ms);
    let timeout_ms = i64::from(row.timeout_ms);
    let (groups, topics): (Vec<_>, Vec<_>) = row
        .partitions
        .iter()
        .partition(|place| place.topic == OFFSETS_TOPIC);
    let partitions = match (topics.len(), groups.is_empty()) {
        (0, true) => "-".to_owned(),
        (count, true) => count.to_string(),
        (count, false) => format!("{count} +offsets"),
    };
    let mut late = String::new();
    if let Some(age_ms) = age_ms
        && age_ms.saturating_mul(100) >= timeout_ms.saturating_mul(LATE_PERCENT)
    {
        let left_ms = timeout_ms.saturating_sub(age_ms);
        late = format!("! {} left", in_words(left_ms));
    }
    vec![
        row.id.clone(),
        format!("{} e{}", row.producer_id, row.producer_epoch),
        row.state.clone(),
        age_ms.map_or_else(|| "-".to_owned(), in_words),
        in_words(timeout_ms),
        partitions,
        client(row),
        late,
    ]
}

/// Who has the id: its software, or else its client id, and where it is. Only Tally says.
fn client(row: &Described) -> String {
    let Some(note) = row.note.as_ref().filter(|note| !note.address.is_empty()) else {
        return "-".to_owned();
    };
    let name = if note.software.is_empty() {
        &note.client_id
    } else {
        &note.software
    };
    let host = note.address.rsplit_once(':').map_or("", |(host, _)| host);
    format!("{name}  {host}")
}

pub(super) fn fields(row: &Described, now_ms: i64) -> Vec<(&'static str, Value)> {
    vec![
        ("transactional_id", Value::from(row.id.as_str())),
        ("producer_id", Value::from(row.producer_id)),
        ("producer_epoch", Value::from(row.producer_epoch)),
        ("state", Value::from(row.state.as_str())),
        ("started_ms", Value::from(row.started_ms)),
        ("age_ms", Value::from(age_ms(row, now_ms))),
        ("timeout_ms", Value::from(row.timeout_ms)),
        (
            "partitions",
            row.partitions.iter().map(super::Place::value).collect(),
        ),
        ("client_id", said(row, |note| &note.client_id)),
        ("client_software", said(row, |note| &note.software)),
        ("client_address", said(row, |note| &note.address)),
    ]
}

fn said(row: &Described, part: impl Fn(&TransactionNote) -> &String) -> Value {
    let text = row.note.as_ref().map(part);
    Value::from(text.filter(|text| !text.is_empty()).cloned())
}
