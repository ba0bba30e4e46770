//! What operators see of a group (GR-102).

use super::ConsumerGroup;
use crate::groups::{GroupState, Settings};
use std::sync::Arc;
use tally_protocol::records::consumer_group::Partitions;

/// A group in ConsumerGroupDescribe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerGroupDescription {
    /// Its state.
    pub state: GroupState,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch of its target assignment.
    pub assignment_epoch: i32,
    /// The assignor in use.
    pub assignor: &'static str,
    /// Its members, by id.
    pub members: Vec<ConsumerMemberDescription>,
}

/// A member in ConsumerGroupDescribe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerMemberDescription {
    /// Its id.
    pub member_id: Arc<str>,
    /// The instance id of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The rack it is in.
    pub rack_id: Option<Arc<str>>,
    /// The epoch it has been moved to.
    pub epoch: i32,
    /// Its client id.
    pub client_id: Arc<str>,
    /// Where it comes from.
    pub client_host: Arc<str>,
    /// The topics it named.
    pub topics: Vec<Arc<str>>,
    /// The regular expression it gave.
    pub regex: Option<Arc<str>>,
    /// What it has.
    pub assigned: Partitions,
    /// What it is to have.
    pub target: Partitions,
    /// Whether it uses the classic protocol.
    pub is_classic: bool,
}

impl ConsumerGroup {
    pub(crate) fn describe(&self, settings: &Settings) -> ConsumerGroupDescription {
        let members = self.subscriptions().map(|(id, subscription)| {
            let current = self.current(id);
            ConsumerMemberDescription {
                member_id: id.clone(),
                instance_id: subscription.instance_id.clone(),
                rack_id: subscription.rack_id.clone(),
                epoch: current.epoch,
                client_id: subscription.client_id.clone(),
                client_host: subscription.client_host.clone(),
                topics: subscription.topics.iter().cloned().collect(),
                regex: subscription.regex.clone(),
                assigned: super::heartbeat::numbers(&current.assigned),
                target: self
                    .target(id)
                    .map_or_else(Partitions::new, |target| (**target).clone()),
                is_classic: subscription.classic.is_some(),
            }
        });
        ConsumerGroupDescription {
            state: self.state(),
            epoch: self.epoch(),
            assignment_epoch: self.target_epoch(),
            assignor: self.assignor(settings).name(),
            members: members.collect(),
        }
    }
}
