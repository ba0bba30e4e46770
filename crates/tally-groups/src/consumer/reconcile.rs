//! The next step of one member towards its target (section 9.4): first it gives back, then it gets what others have given
//! back, and only then it has reached the epoch.

use std::collections::{BTreeMap, BTreeSet};
use tally_protocol::records::consumer_group::{
    CurrentValue, MemberPhase, PartitionEpochs, Partitions,
};
use tally_protocol::{ErrorCode, TopicId};

/// What a step depends on.
pub(super) struct Step<'a> {
    /// The epoch of the target.
    pub(super) target_epoch: i32,
    /// What the member is to have.
    pub(super) target: Option<&'a Partitions>,
    /// The topics it is subscribed to: nothing else of its target counts.
    pub(super) subscribed: &'a BTreeSet<TopicId>,
    /// What the member says that it has; `None`: as before.
    pub(super) reported: Option<&'a Partitions>,
    /// Whether its subscription has changed with this request.
    pub(super) subscription_changed: bool,
    /// Whether nobody else has a partition.
    pub(super) is_free: &'a dyn Fn(TopicId, i32) -> bool,
}

impl Step<'_> {
    /// What the member has after this step.
    pub(super) fn after(&self, current: &CurrentValue) -> Result<CurrentValue, ErrorCode> {
        match current.phase {
            MemberPhase::Stable if current.epoch != self.target_epoch => Ok(self.next(current)),
            MemberPhase::Stable if self.subscription_changed => Ok(self.give_up(current)),
            MemberPhase::Stable => Ok(current.clone()),
            MemberPhase::Unrevoked if !self.still_has(&current.revoking) => Ok(self.next(current)),
            MemberPhase::Unrevoked if self.subscription_changed => Ok(self.give_up(current)),
            MemberPhase::Unrevoked => Ok(current.clone()),
            MemberPhase::Unreleased => Ok(self.next(current)),
            // A later version knows what this means; it has to begin with nothing.
            MemberPhase::Unknown if self.reported.is_some_and(BTreeMap::is_empty) => {
                Ok(self.next(current))
            }
            MemberPhase::Unknown => Err(ErrorCode::FencedMemberEpoch),
        }
    }

    /// Whether the member has not said that it has given all of these back.
    fn still_has(&self, revoking: &PartitionEpochs) -> bool {
        let Some(reported) = self.reported else {
            return true;
        };
        reported.iter().any(|(topic, partitions)| {
            let revoking = revoking.get(topic);
            revoking.is_some_and(|revoking| partitions.iter().any(|p| revoking.contains_key(p)))
        })
    }

    /// Topics that it does not want any more are to be given back now; its epoch stays.
    fn give_up(&self, current: &CurrentValue) -> CurrentValue {
        let mut next = current.clone();
        next.assigned = PartitionEpochs::new();
        for (topic, partitions) in &current.assigned {
            let place = if self.subscribed.contains(topic) {
                &mut next.assigned
            } else {
                &mut next.revoking
            };
            place.entry(*topic).or_default().extend(partitions);
        }
        if next.assigned == current.assigned {
            return next;
        }
        if self.still_has(&next.revoking) {
            next.phase = MemberPhase::Unrevoked;
        } else {
            next.revoking = PartitionEpochs::new();
            next.phase = MemberPhase::Stable;
        }
        next
    }

    fn next(&self, current: &CurrentValue) -> CurrentValue {
        let mut assigned = PartitionEpochs::new();
        let mut revoking = PartitionEpochs::new();
        for (topic, partitions) in &current.assigned {
            for (&partition, &epoch) in partitions {
                let place = if self.is_target(*topic, partition) {
                    &mut assigned
                } else {
                    &mut revoking
                };
                place.entry(*topic).or_default().insert(partition, epoch);
            }
        }
        if !revoking.is_empty() && self.still_has(&revoking) {
            return CurrentValue {
                epoch: current.epoch,
                previous_epoch: current.epoch,
                phase: MemberPhase::Unrevoked,
                assigned,
                revoking,
            };
        }
        let mut phase = MemberPhase::Stable;
        for (&topic, partitions) in self.target.into_iter().flatten() {
            if !self.subscribed.contains(&topic) {
                continue;
            }
            for &partition in partitions {
                let has = assigned.get(&topic);
                if has.is_some_and(|has| has.contains_key(&partition)) {
                    continue;
                }
                if (self.is_free)(topic, partition) {
                    let partitions = assigned.entry(topic).or_default();
                    partitions.insert(partition, self.target_epoch);
                } else {
                    phase = MemberPhase::Unreleased;
                }
            }
        }
        CurrentValue {
            epoch: self.target_epoch,
            previous_epoch: current.epoch,
            phase,
            assigned,
            revoking: PartitionEpochs::new(),
        }
    }

    fn is_target(&self, topic: TopicId, partition: i32) -> bool {
        self.subscribed.contains(&topic)
            && self
                .target
                .and_then(|target| target.get(&topic))
                .is_some_and(|partitions| partitions.contains(&partition))
    }
}
