//! Who holds back the readers of a topic, for other commands.

use std::collections::BTreeMap;

use super::Place;
use super::ask::{self, Filter};
use crate::client::{Cluster, Failure};

/// The transactional ids whose transactions are open on the partitions of a topic; `producer N` where no id is known.
pub(crate) fn holders(
    cluster: &mut Cluster,
    topic: &str,
) -> Result<BTreeMap<Place, Vec<String>>, Failure> {
    let producers = ask::producers(cluster, topic, None)?;
    let open: Vec<_> = producers
        .iter()
        .filter(|producer| producer.open_from.is_some())
        .collect();
    let mut holders: BTreeMap<Place, Vec<String>> = BTreeMap::new();
    if open.is_empty() {
        return Ok(holders);
    }
    let filter = Filter {
        producer_ids: open.iter().map(|producer| producer.producer_id).collect(),
        ..Filter::default()
    };
    let listed = ask::list(cluster, &filter)?;
    for producer in open {
        let id = listed
            .iter()
            .find(|row| row.producer_id == producer.producer_id);
        let name = id.map_or_else(
            || format!("producer {}", producer.producer_id),
            |row| row.id.clone(),
        );
        holders
            .entry(producer.place.clone())
            .or_default()
            .push(name);
    }
    Ok(holders)
}
