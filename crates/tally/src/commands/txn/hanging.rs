//! `tally txn hanging`: transactions that are open on a partition and that no coordinator has open (B-17).
//!
//! The partitions are asked first and the coordinators after: a transaction that ends in between is found in neither, and
//! what is found was open on its partition before no coordinator had it. A second look at the partition leaves out what
//! ended meanwhile.

use std::collections::BTreeSet;

use super::ask::{self, Filter, Listed, Producer};
use super::now_ms;
use crate::client::{Cluster, Failure};
use crate::commands::{Common, Done, in_words};
use crate::output::{Listing, Value};

const HEADINGS: [&str; 4] = ["PARTITION", "PRODUCER", "OPEN FROM", "LAST WRITE"];

pub(super) fn run(topics: &[String], common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let found = find(&mut cluster, topics)?;
    let now_ms = now_ms();
    let mut listing = Listing::new(common.output, "hanging", &HEADINGS);
    for producer in &found {
        let from = producer.open_from;
        let last_ms = producer.last_timestamp_ms;
        listing.row(
            vec![
                producer.place.to_string(),
                format!("{} e{}", producer.producer_id, producer.producer_epoch),
                from.map_or_else(|| "-".to_owned(), |from| from.to_string()),
                format!("{} ago", in_words(now_ms.saturating_sub(last_ms))),
            ],
            vec![
                ("topic", Value::from(producer.place.topic.as_str())),
                ("partition", Value::from(producer.place.partition)),
                ("producer_id", Value::from(producer.producer_id)),
                ("producer_epoch", Value::from(producer.producer_epoch)),
                ("open_from", Value::from(from)),
                ("last_timestamp_ms", Value::from(last_ms)),
            ],
        );
    }
    listing.finish("no hanging transactions");
    Ok(if found.is_empty() {
        Done::Well
    } else {
        Done::Problem
    })
}

pub(super) fn find(cluster: &mut Cluster, topics: &[String]) -> Result<Vec<Producer>, Failure> {
    let topics: Vec<String> = if topics.is_empty() {
        let all = cluster.metadata(None)?.topics.into_iter();
        all.filter_map(|topic| topic.name.map(|name| name.to_string()))
            .collect()
    } else {
        topics.to_vec()
    };
    let open = open_on(cluster, &topics)?;
    if open.is_empty() {
        return Ok(open);
    }
    let mut producer_ids: Vec<i64> = open.iter().map(|producer| producer.producer_id).collect();
    producer_ids.sort_unstable();
    producer_ids.dedup();
    let filter = Filter {
        producer_ids,
        ..Filter::default()
    };
    let listed = ask::list(cluster, &filter)?;
    let open = without_coordinator(open, &listed);
    let mut names: Vec<String> = open.iter().map(|found| found.place.topic.clone()).collect();
    names.dedup();
    let still = open_on(cluster, &names)?;
    Ok(in_both(open, &still))
}

/// Those whose producer has nothing open at any coordinator.
fn without_coordinator(mut open: Vec<Producer>, listed: &[Listed]) -> Vec<Producer> {
    let known: BTreeSet<i64> = listed
        .iter()
        .filter(|row| row.state == "Ongoing" || row.state.starts_with("Prepare"))
        .map(|row| row.producer_id)
        .collect();
    open.retain(|producer| !known.contains(&producer.producer_id));
    open
}

/// Those that are the same transaction of the same producer in both.
fn in_both(mut open: Vec<Producer>, still: &[Producer]) -> Vec<Producer> {
    let same = |a: &Producer, b: &Producer| {
        (&a.place, a.producer_id, a.open_from) == (&b.place, b.producer_id, b.open_from)
    };
    open.retain(|producer| still.iter().any(|again| same(producer, again)));
    open
}

fn open_on(cluster: &mut Cluster, topics: &[String]) -> Result<Vec<Producer>, Failure> {
    let mut open = Vec::new();
    for topic in topics {
        let producers = ask::producers(cluster, topic, None)?.into_iter();
        open.extend(producers.filter(|producer| producer.open_from.is_some()));
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::txn::Place;

    fn producer(producer_id: i64, open_from: i64) -> Producer {
        Producer {
            place: Place {
                topic: "t".to_owned(),
                partition: 0,
            },
            producer_id,
            producer_epoch: 0,
            last_sequence: 0,
            last_timestamp_ms: 0,
            coordinator_epoch: 0,
            open_from: Some(open_from),
        }
    }

    #[test]
    fn b17_hanging_is_what_no_coordinator_will_end() {
        let listed = |producer_id, state: &str| Listed {
            id: "x".to_owned(),
            producer_id,
            state: state.to_owned(),
        };
        let listed = [
            listed(1, "Ongoing"),
            listed(2, "PrepareAbort"),
            listed(3, "CompleteCommit"),
        ];
        let open = (1..=4).map(|id| producer(id, 7)).collect();
        let found = without_coordinator(open, &listed);
        assert_eq!(found, [producer(3, 7), producer(4, 7)]);
    }

    #[test]
    fn b17_what_has_ended_meanwhile_is_not_hanging() {
        let open = vec![producer(1, 7), producer(2, 7), producer(3, 7)];
        let still = [producer(1, 7), producer(2, 9)];
        assert_eq!(in_both(open, &still), [producer(1, 7)]);
    }
}
