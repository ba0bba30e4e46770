//! A snapshot of the producers against a replay of the log.
//!
//! What a replay cannot know is not asked: when a producer last wrote by the broker's clock, and which producers were
//! forgotten since they had been silent for long. A replay that does not begin with the partition's first batch, or that
//! meets gaps, knows less than the snapshot: what it does know has to agree.

use std::collections::BTreeMap;

use tally_producer_state::{BatchView, ProducerStates, ProducerView};
use tally_protocol::ProducerId;

/// How much a replay knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Knowledge {
    /// Every batch since the partition was made, or since a snapshot that was taken over.
    All,
    /// Batches at the beginning, or in between, are gone.
    Some,
}

/// The first difference that can't be, if there is one.
pub(super) fn difference(
    replayed: &ProducerStates,
    stored: &ProducerStates,
    knowledge: Knowledge,
) -> Option<String> {
    let mut stored: BTreeMap<ProducerId, ProducerView> =
        stored.view().map(|view| (view.producer_id, view)).collect();
    for replayed in replayed.view() {
        let id = replayed.producer_id;
        match stored.remove(&id) {
            None if replayed.open_transaction.is_some() => {
                return Some(format!(
                    "it lacks producer {id}, which has an open transaction"
                ));
            }
            // It may have been silent for so long that it was forgotten (P-56).
            None => {}
            Some(stored) => {
                if let Some(field) = differs(&replayed, &stored, knowledge) {
                    return Some(format!(
                        "the {field} of producer {id} is not what the log says"
                    ));
                }
            }
        }
    }
    match stored.first_key_value() {
        Some((id, _)) if knowledge == Knowledge::All => {
            Some(format!("it has producer {id}, which never wrote here"))
        }
        _ => None,
    }
}

fn differs(
    replayed: &ProducerView,
    stored: &ProducerView,
    knowledge: Knowledge,
) -> Option<&'static str> {
    let knows_all = knowledge == Knowledge::All;
    if replayed.producer_epoch != stored.producer_epoch
        && (knows_all || replayed.producer_epoch > stored.producer_epoch)
    {
        return Some("epoch");
    }
    let open_agrees = match (replayed.open_transaction, stored.open_transaction) {
        (Some(replayed), Some(stored)) => replayed == stored || (!knows_all && stored < replayed),
        (None, Some(_)) => !knows_all,
        (Some(_), None) => false,
        (None, None) => true,
    };
    if !open_agrees {
        return Some("open transaction");
    }
    if replayed.producer_epoch != stored.producer_epoch {
        return None;
    }
    // A producer that was forgotten and came back has fewer batches and no coordinator epoch: the newest still agree.
    if stored.coordinator_epoch > replayed.coordinator_epoch && knows_all {
        return Some("coordinator epoch");
    }
    let (last, kept) = match (replayed.batches.last(), stored.batches.last()) {
        (Some(last), Some(kept)) => (last, kept),
        (None, Some(_)) if knows_all => return Some("remembered batches"),
        (_, None) | (None, Some(_)) => return None,
    };
    if replayed.last_timestamp != stored.last_timestamp && last == kept {
        return Some("last timestamp");
    }
    (!agree(&replayed.batches, &stored.batches, knows_all)).then_some("remembered batches")
}

/// Whether one list is the end of the other; where the replay does not know all, whether the snapshot has all that it has.
fn agree(replayed: &[BatchView], stored: &[BatchView], knows_all: bool) -> bool {
    if knows_all {
        return replayed.ends_with(stored);
    }
    let oldest = stored.first().map(|batch| batch.base_offset);
    let newer = replayed
        .iter()
        .filter(|batch| oldest.is_none_or(|oldest| batch.base_offset >= oldest));
    let same = |a: &BatchView, b: &BatchView| {
        // Whether it was aborted is only known to who saw the transaction begin.
        a.base_offset == b.base_offset && a.last_sequence == b.last_sequence
    };
    newer
        .into_iter()
        .all(|batch| stored.iter().any(|kept| same(kept, batch)))
}
