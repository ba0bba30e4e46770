//! `tally txn producers`.

use super::{Place, ask, now_ms};
use crate::client::Failure;
use crate::commands::{Common, Done, in_words};
use crate::output::{Listing, Value};

const HEADINGS: [&str; 6] = [
    "PARTITION",
    "PRODUCER",
    "LAST SEQUENCE",
    "LAST WRITE",
    "COORDINATOR EPOCH",
    "OPEN FROM",
];

pub(super) fn run(place: &str, common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let (topic, partition) = match Place::parse(place) {
        Ok(place) => (place.topic, Some(place.partition)),
        Err(_) => (place.to_owned(), None),
    };
    let now_ms = now_ms();
    let mut listing = Listing::new(common.output, "producer", &HEADINGS);
    for producer in ask::producers(&mut cluster, &topic, partition)? {
        let number = |number: i64| {
            if number < 0 {
                "-".to_owned()
            } else {
                number.to_string()
            }
        };
        let last_ms = producer.last_timestamp_ms;
        listing.row(
            vec![
                producer.place.to_string(),
                format!("{} e{}", producer.producer_id, producer.producer_epoch),
                number(i64::from(producer.last_sequence)),
                if last_ms < 0 {
                    "-".to_owned()
                } else {
                    format!("{} ago", in_words(now_ms.saturating_sub(last_ms)))
                },
                number(i64::from(producer.coordinator_epoch)),
                producer
                    .open_from
                    .map_or_else(|| "-".to_owned(), |from| from.to_string()),
            ],
            vec![
                ("topic", Value::from(producer.place.topic.as_str())),
                ("partition", Value::from(producer.place.partition)),
                ("producer_id", Value::from(producer.producer_id)),
                ("producer_epoch", Value::from(producer.producer_epoch)),
                ("last_sequence", Value::from(producer.last_sequence)),
                ("last_timestamp_ms", Value::from(last_ms)),
                ("coordinator_epoch", Value::from(producer.coordinator_epoch)),
                ("open_from", Value::from(producer.open_from)),
            ],
        );
    }
    listing.finish("no producers are remembered");
    Ok(Done::Well)
}
