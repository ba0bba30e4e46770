//! How the transactions of a cluster are, for `tally doctor`.

use super::ask::{self, Filter, NOT_FOUND};
use super::hanging::find;
use super::list::{LATE_PERCENT, age_ms};
use super::now_ms;
use crate::client::{Cluster, Failure};
use crate::commands::in_words;

/// What there is to say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Health {
    pub(crate) ids: usize,
    pub(crate) open: usize,
    /// Open for most of their timeout.
    pub(crate) late: Vec<String>,
    /// Open, and nobody will end them.
    pub(crate) hanging: Vec<String>,
    pub(crate) longest_timeout_ms: i32,
}

/// Looks at all of them.
pub(crate) fn health(cluster: &mut Cluster) -> Result<Health, Failure> {
    let listed = ask::list(cluster, &Filter::default())?;
    let ids: Vec<String> = listed.into_iter().map(|row| row.id).collect();
    let mut health = Health {
        ids: ids.len(),
        ..Health::default()
    };
    let now_ms = now_ms();
    for row in ask::describe(cluster, &ids)? {
        if row.error == NOT_FOUND {
            continue;
        }
        crate::client::check(row.id.clone(), row.error)?;
        health.longest_timeout_ms = health.longest_timeout_ms.max(row.timeout_ms);
        let Some(age_ms) = age_ms(&row, now_ms) else {
            continue;
        };
        health.open += 1;
        let timeout_ms = i64::from(row.timeout_ms);
        if age_ms.saturating_mul(100) >= timeout_ms.saturating_mul(LATE_PERCENT) {
            let (age, timeout) = (in_words(age_ms), in_words(timeout_ms));
            health.late.push(format!("{} ({age} of {timeout})", row.id));
        }
    }
    let hanging = find(cluster, &[])?;
    health.hanging = hanging
        .iter()
        .map(|producer| format!("{} by producer {}", producer.place, producer.producer_id))
        .collect();
    Ok(health)
}
