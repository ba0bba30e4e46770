//! The target assignment: when it is made anew, by which assignor, and what of it is written.

use super::{ConsumerGroup, ConsumerSettings, Draft};
use crate::assignor::{Assignments, Assignor, Input, Wishes};
use crate::groups::Settings;
use crate::topics::Topics;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::Now;
use tally_protocol::records::consumer_group::{ConsumerGroupRecord, Partitions, TargetEpochValue};

impl ConsumerGroup {
    /// Whether there is an epoch without an assignment, and enough time has passed since the last one. The first is never
    /// delayed.
    pub(super) fn assignment_is_due(&self, now: Now, settings: &ConsumerSettings) -> bool {
        if self.epoch() <= self.target_epoch() {
            return false;
        }
        let Some(target) = self.target_epoch.filter(|target| target.epoch > 0) else {
            return true;
        };
        let since_ms = now.wall_ms.saturating_sub(target.timestamp);
        // A clock that was set back must not hold everything up.
        since_ms < 0 || since_ms >= i64::from(settings.assignment_interval_ms)
    }

    /// The assignor that most members asked for, else the first there is; of several the one that is first in the list.
    pub(super) fn assignor(&self, settings: &Settings) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for (_, subscription) in self.subscriptions() {
            let named = subscription.assignor.as_deref();
            if let Some(assignor) = named.and_then(Assignor::of_name) {
                *votes.entry(assignor).or_default() += 1;
            }
        }
        let offered = settings.assignors.iter();
        let offered = offered.filter(|assignor| votes.contains_key(assignor));
        // `max_by_key` takes the last of several.
        offered
            .rev()
            .max_by_key(|assignor| votes[assignor])
            .unwrap_or_else(|| settings.assignors.first())
    }

    /// What the assignor says for the group as it is.
    fn assign(&self, assignor: Assignor, topics: &Topics) -> Assignments {
        let mut input = Input::default();
        for (id, subscription) in self.subscriptions() {
            let mut wanted = BTreeSet::new();
            for topic in self.topics_of(subscription) {
                if let Some(topic) = topics.get(topic) {
                    wanted.insert(topic.id);
                    input.topics.insert(topic.id, topic.partitions);
                }
            }
            let wishes = Wishes {
                instance_id: subscription.instance_id.as_ref(),
                topics: wanted,
                before: self.target(id).map(|target| &**target),
            };
            input.members.insert(id, wishes);
        }
        assignor.assign(&input)
    }
}

impl Draft<'_> {
    /// Makes the target of the group's epoch.
    pub(super) fn make_target(&mut self, now: Now, settings: &Settings, topics: &Topics) {
        let mut assigned = self.assign(self.assignor(settings), topics);
        let ids: Vec<Arc<str>> = self.member_ids().cloned().collect();
        for id in ids {
            let target = assigned.remove(&id).unwrap_or_default();
            let is_same = match self.target(&id) {
                Some(before) => **before == target,
                None => target.is_empty(),
            };
            if !is_same {
                self.write_target(id, target);
            }
        }
        let epoch = self.epoch();
        self.write(ConsumerGroupRecord::TargetEpoch(Some(TargetEpochValue {
            epoch,
            timestamp: now.wall_ms,
        })));
    }

    pub(super) fn write_target(&mut self, member_id: Arc<str>, target: Partitions) {
        self.write(ConsumerGroupRecord::Target(member_id, Some(target)));
    }
}
