//! `tally group lag`: what a group has committed, up to where it could read, and who holds it back.

use std::collections::BTreeMap;

use super::Lag;
use super::ask::{self, Committed};
use super::records::{Count, count};
use crate::client::{Cluster, Failure};
use crate::commands::place::{COMMITTED, EARLIEST, LATEST, Place, UNCOMMITTED, offset_at};
use crate::commands::txn::holders;
use crate::commands::{Common, Done};
use crate::output::{Listing, Value};

pub(super) fn run(lag: &Lag, common: &Common) -> Result<Done, Failure> {
    let mut cluster = common.open()?;
    let groups = if lag.groups.is_empty() {
        let listed = ask::list(&mut cluster, &[], &[])?;
        listed.into_iter().map(|row| row.group).collect()
    } else {
        for group in &lag.groups {
            ask::describe_known(&mut cluster, group)?;
        }
        lag.groups.clone()
    };
    let behind = if lag.records { "LAG RECORDS" } else { "LAG" };
    let mut headings = vec![
        "GROUP",
        "TOPIC:P",
        "COMMITTED",
        "READABLE END",
        "LOG END",
        behind,
        "(OFFSETS)",
        "HELD BACK BY",
        "NOTE",
    ];
    // One group is what the command line says.
    let is_one = lag.groups.len() == 1;
    if is_one {
        headings.remove(0);
    }
    let mut listing = Listing::new(common.output, "lag", &headings);
    for group in &groups {
        for row in rows(&mut cluster, group, lag.records)? {
            let mut cells = row.cells();
            if is_one {
                cells.remove(0);
            }
            listing.row(cells, row.fields());
        }
    }
    listing.finish("nothing is committed");
    Ok(Done::Well)
}

/// How one partition stands for a group.
struct Row {
    group: String,
    place: Place,
    committed: Committed,
    /// `None` for a partition that is no longer there.
    ends: Option<Ends>,
    counted: Option<(Count, Count)>,
    holders: Vec<String>,
}

#[derive(Clone, Copy)]
struct Ends {
    begin: i64,
    readable: i64,
    written: i64,
}

/// What a group has committed, and what its members are assigned and have not committed yet.
fn rows(cluster: &mut Cluster, group: &str, is_counted: bool) -> Result<Vec<Row>, Failure> {
    let mut committed = ask::committed(cluster, group)?;
    let described = ask::describe(cluster, group)?;
    let members = described.into_iter().flat_map(|group| group.members);
    for place in members.flat_map(|member| member.places) {
        committed.entry(place).or_insert(Committed {
            offset: None,
            is_pending: false,
        });
    }
    let mut rows = Vec::new();
    let mut held: BTreeMap<String, BTreeMap<Place, Vec<String>>> = BTreeMap::new();
    for (place, committed) in committed {
        let ends = ends(cluster, &place)?;
        let mut row = Row {
            group: group.to_owned(),
            place,
            committed,
            ends,
            counted: None,
            holders: Vec::new(),
        };
        if let Some(ends) = ends {
            if ends.readable < ends.written {
                let topic = &row.place.topic;
                if !held.contains_key(topic) {
                    held.insert(topic.clone(), holders(cluster, topic)?);
                }
                let of_topic = held.get(topic).and_then(|of| of.get(&row.place));
                row.holders = of_topic.cloned().unwrap_or_default();
            }
            if let Some(offset) = row.committed.offset.filter(|_| is_counted) {
                let from = offset.max(ends.begin);
                let near = count(cluster, &row.place, (from, ends.readable), COMMITTED)?;
                let from = from.max(ends.readable);
                let far = count(cluster, &row.place, (from, ends.written), UNCOMMITTED)?;
                row.counted = Some((near, far));
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

fn ends(cluster: &mut Cluster, place: &Place) -> Result<Option<Ends>, Failure> {
    let leader = match cluster.leader(&place.topic, place.partition) {
        Ok(leader) => leader,
        Err(Failure::Refused { code: 3, .. }) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let mut at = |timestamp, isolation| offset_at(cluster, place, leader, (timestamp, isolation));
    let begin = at(EARLIEST, UNCOMMITTED)?;
    let readable = at(LATEST, COMMITTED)?;
    let written = at(LATEST, UNCOMMITTED)?;
    Ok(Some(Ends {
        begin,
        readable: readable.min(written),
        written,
    }))
}

impl Row {
    /// Offsets behind what is readable, and behind the end of the log.
    fn behind(&self) -> Option<(i64, i64)> {
        let (ends, offset) = self.ends.zip(self.committed.offset)?;
        let to = |end: i64| end.saturating_sub(offset).max(0);
        Some((to(ends.readable), to(ends.written)))
    }

    fn note(&self) -> String {
        let mut notes = Vec::new();
        let Some(ends) = self.ends else {
            return "the partition is gone".to_owned();
        };
        if self.committed.is_pending {
            notes.push("an open transaction commits here".to_owned());
        }
        match self.committed.offset {
            Some(offset) if offset < ends.begin => {
                notes.push(format!("{} are gone: retention", ends.begin - offset));
            }
            Some(offset) if offset > ends.written => notes.push("behind the end".to_owned()),
            _ => {}
        }
        if let Some((near, far)) = self.counted {
            let mut say = |count: i64, what: &str, many: &str| {
                if count > 0 {
                    notes.push(format!("{count} {}", if count == 1 { what } else { many }));
                }
            };
            say(
                far.records,
                "record in an open transaction",
                "records in an open transaction",
            );
            let markers = near.markers + far.markers;
            say(markers, "marker, not a record", "markers, not records");
            say(near.aborted, "record aborted", "records aborted");
        }
        notes.join(", ")
    }

    fn cells(&self) -> Vec<String> {
        let cell = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let behind = self.behind();
        let lag = match self.counted {
            Some((near, _)) => Some(near.records),
            None => behind.map(|(readable, _)| readable),
        };
        vec![
            self.group.clone(),
            self.place.to_string(),
            cell(self.committed.offset),
            cell(self.ends.map(|ends| ends.readable)),
            cell(self.ends.map(|ends| ends.written)),
            cell(lag),
            behind.map_or_else(|| "-".to_owned(), |(_, written)| format!("({written})")),
            if self.holders.is_empty() {
                "-".to_owned()
            } else {
                self.holders.join(" ")
            },
            self.note(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, Value)> {
        let behind = self.behind();
        let near = self.counted.map(|(near, _)| near);
        let far = self.counted.map(|(_, far)| far);
        vec![
            ("group", Value::from(self.group.as_str())),
            ("topic", Value::from(self.place.topic.as_str())),
            ("partition", Value::from(self.place.partition)),
            ("committed", Value::from(self.committed.offset)),
            (
                "readable_end",
                Value::from(self.ends.map(|ends| ends.readable)),
            ),
            ("log_end", Value::from(self.ends.map(|ends| ends.written))),
            ("lag", Value::from(behind.map(|(readable, _)| readable))),
            (
                "lag_offsets",
                Value::from(behind.map(|(_, written)| written)),
            ),
            ("lag_records", Value::from(near.map(|near| near.records))),
            ("open_records", Value::from(far.map(|far| far.records))),
            (
                "aborted_records",
                Value::from(near.map(|near| near.aborted)),
            ),
            (
                "markers",
                Value::from(near.zip(far).map(|(near, far)| near.markers + far.markers)),
            ),
            ("pending", Value::from(self.committed.is_pending)),
            (
                "held_back_by",
                self.holders
                    .iter()
                    .map(|id| Value::from(id.as_str()))
                    .collect(),
            ),
        ]
    }
}
