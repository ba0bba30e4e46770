//! How many records a group is behind, counted: offsets are taken by markers and by what was aborted too.

use crate::client::{Cluster, Failure, Fetched, Manner, Position, Standing, check, fetch};
use crate::commands::place::Place;
use crate::decode::each_record;

/// How long the broker may wait: it has all that is asked for.
const WAIT_MS: i32 = 0;

/// What lies between two offsets of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Count {
    /// Records that count.
    pub(super) records: i64,
    /// Records of transactions that were aborted.
    pub(super) aborted: i64,
    /// Ends of transactions.
    pub(super) markers: i64,
}

/// Counts what lies from one offset up to another, as a reader of this isolation sees it.
pub(super) fn count(
    cluster: &mut Cluster,
    place: &Place,
    (from, to): (i64, i64),
    isolation: i8,
) -> Result<Count, Failure> {
    let mut count = Count::default();
    let mut offset = from;
    let manner = Manner {
        isolation,
        wait_ms: WAIT_MS,
    };
    while offset < to {
        // As much again as the command was given: there may be much to read, and it gets on.
        cluster.renew(std::time::Duration::ZERO);
        let leader = cluster.leader(&place.topic, place.partition)?;
        let position = Position {
            topic: place.topic.clone(),
            partition: place.partition,
            offset,
        };
        let fetched = fetch(cluster, leader, &[position], manner)?;
        let silent = || Failure::Unable(format!("nothing is said about {place}"));
        let fetched = fetched.into_iter().next().ok_or_else(silent)?;
        check(place.to_string(), fetched.error)?;
        let next = add(&fetched, (offset, to), &mut count)?;
        if next <= offset {
            break;
        }
        offset = next;
    }
    Ok(count)
}

fn add(fetched: &Fetched, (from, to): (i64, i64), count: &mut Count) -> Result<i64, Failure> {
    fetched.each_batch(from, |view, standing| {
        let header = view.header();
        let base = header.base_offset.0;
        if base >= to {
            return Ok(false);
        }
        let mut records = i64::from(header.records_count);
        if base < from || header.last_offset().0 >= to {
            records = 0;
            let counted = each_record(view, |record| {
                let offset = base.saturating_add(i64::from(record.offset_delta));
                records += i64::from((from..to).contains(&offset));
            });
            counted.map_err(|error| Failure::Unable(error.to_string()))?;
        }
        match standing {
            Standing::Readable => count.records += records,
            Standing::Aborted => count.aborted += records,
            Standing::Marker(_) => count.markers += records,
        }
        Ok(true)
    })
}
