//! How the groups of a cluster are, for `tally doctor`.

use super::ask;
use crate::client::{Cluster, Failure};
use crate::commands::place::{EARLIEST, UNCOMMITTED, offset_at};

/// What there is to say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Health {
    pub(crate) groups: usize,
    /// Between two assignments.
    pub(crate) rebalancing: Vec<String>,
    /// What a group has not read and can't read any more: retention was faster.
    pub(crate) lost: Vec<String>,
}

/// Looks at all of them.
pub(crate) fn health(cluster: &mut Cluster) -> Result<Health, Failure> {
    let listed = ask::list(cluster, &[], &[])?;
    let mut health = Health {
        groups: listed.len(),
        ..Health::default()
    };
    for row in listed {
        if row.state.ends_with("Rebalance") {
            health
                .rebalancing
                .push(format!("{} ({})", row.group, row.state));
        }
        // Share and streams groups keep offsets of their own.
        if !matches!(row.kind.as_str(), "" | "classic" | "consumer") {
            continue;
        }
        for (place, offset, code) in ask::offsets(cluster, &row.group, false)? {
            if code != 0 || offset < 0 {
                continue;
            }
            let leader = match cluster.leader(&place.topic, place.partition) {
                Ok(leader) => leader,
                // The topic is gone, or nobody leads it: that is said elsewhere.
                Err(Failure::Refused { .. }) => continue,
                Err(failure) => return Err(failure),
            };
            let begin = offset_at(cluster, &place, leader, (EARLIEST, UNCOMMITTED))?;
            if offset < begin {
                let lost = begin - offset;
                health
                    .lost
                    .push(format!("{} on {place} ({lost} offsets)", row.group));
            }
        }
    }
    Ok(health)
}
