//! `--include`: which topics match now. With `--follow` that is looked at again and again, as Kafka's consumers renew their
//! metadata, so that topics that are made later are read too, from their first record on.
//!
//! Members of the protocol `consumer` leave it to the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use regex::Regex;

use crate::client::{Cluster, Failure};

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(3);

/// The topics that match.
pub(super) struct Matching {
    regex: Regex,
    /// With the number of their partitions.
    pub(super) counts: BTreeMap<String, usize>,
    /// Those that were not there when the reader began.
    late: BTreeSet<String>,
    looked_at: Instant,
}

impl Matching {
    /// Looks for the first time.
    pub(super) fn begin(include: &str, cluster: &mut Cluster) -> Result<Matching, Failure> {
        let regex = Regex::new(&format!("^(?:{include})$"))
            .map_err(|error| Failure::Usage(format!("--include {include}: {error}")))?;
        let mut matching = Matching {
            regex,
            counts: BTreeMap::new(),
            late: BTreeSet::new(),
            looked_at: Instant::now(),
        };
        matching.look(cluster)?;
        matching.late.clear();
        Ok(matching)
    }

    /// Whether it is time to look again.
    pub(super) fn is_due(&self) -> bool {
        self.looked_at.elapsed() >= INTERVAL
    }

    /// Whether the topic came later: all that it holds is new.
    pub(super) fn is_late(&self, topic: &str) -> bool {
        self.late.contains(topic)
    }

    /// Looks; returns whether anything has changed.
    pub(super) fn look(&mut self, cluster: &mut Cluster) -> Result<bool, Failure> {
        self.looked_at = Instant::now();
        let mut counts = BTreeMap::new();
        for topic in cluster.metadata(None)?.topics {
            let name = topic.name.map_or_else(String::new, |name| name.to_string());
            if topic.is_internal || !self.regex.is_match(&name) {
                continue;
            }
            match (topic.error_code, self.counts.get(&name)) {
                (0, _) => _ = counts.insert(name, topic.partitions.len()),
                // It is there, and can't be read for a moment.
                (_, Some(count)) => _ = counts.insert(name, *count),
                (_, None) => {}
            }
        }
        let new = counts
            .keys()
            .filter(|name| !self.counts.contains_key(*name));
        self.late.extend(new.cloned());
        let has_changed = counts != self.counts;
        self.counts = counts;
        self.late.retain(|name| self.counts.contains_key(name));
        Ok(has_changed)
    }
}
