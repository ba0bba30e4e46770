//! This process in a group, whichever of the two protocols it speaks: `classic`, where the members share the partitions out
//! among themselves, or `consumer` (KIP-848), where the coordinator does.
//!
//! Invariant: what a member has is what its last join said, until [`Membership::is_in`] says otherwise.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;

use super::consumer::ConsumerMember;
use super::member::Member;
use crate::client::{Cluster, Failure, check};
use crate::commands::group::offsets;
use crate::commands::place::Place;
use crate::output::remark;

const PAUSE: Duration = Duration::from_millis(50);
/// The coordinator makes assignments now and then, so that many joins need one (`group.consumer.assignment.interval.ms`).
const ASSIGNMENT_WAIT: Duration = Duration::from_secs(10);
/// UNSTABLE_OFFSET_COMMIT: a transaction that will change the offset is open.
const UNSTABLE: i16 = 88;

/// What the members of a group say to each other, by Kafka's names (`group.protocol`).
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    /// The members share out: every client and broker knows it
    Classic,
    /// The coordinator shares out (KIP-848)
    Consumer,
}

/// What a group reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Subscription {
    Topics(Vec<String>),
    /// All whose whole name matches, also those that come later.
    Matching(String),
}

/// What a member has after it has joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Assigned {
    pub(super) places: Vec<Place>,
    /// Whether somebody else may have had them meanwhile; else what it had before and still has is read on where it is.
    pub(super) is_anew: bool,
}

/// A member.
#[derive(Debug)]
pub(super) enum Membership {
    Classic(Member),
    Consumer(ConsumerMember),
}

impl Membership {
    /// Joins, or takes what has changed.
    pub(super) fn join(&mut self, cluster: &mut Cluster) -> Result<Assigned, Failure> {
        match self {
            Membership::Classic(member) => {
                let places = member.join(cluster)?;
                let is_anew = true;
                Ok(Assigned { places, is_anew })
            }
            Membership::Consumer(member) => member.join(cluster),
        }
    }

    /// Reads other topics from the next join on. Where the coordinator shares out it matches too.
    pub(super) fn subscribe(&mut self, counts: &BTreeMap<String, usize>) {
        match self {
            Membership::Classic(member) => member.subscribe(counts),
            Membership::Consumer(_) => {}
        }
    }

    /// What the group has committed; waits for transactions that will change it. `None` if the group has moved on meanwhile.
    pub(super) fn committed(
        &mut self,
        cluster: &mut Cluster,
        places: &[Place],
    ) -> Result<Option<BTreeMap<Place, i64>>, Failure> {
        let group = self.group().to_owned();
        loop {
            cluster.renew(Duration::ZERO);
            let mut committed = BTreeMap::new();
            let mut is_unstable = false;
            for (place, offset, code) in offsets(cluster, &group, true)? {
                if !places.contains(&place) {
                    continue;
                }
                if code == UNSTABLE {
                    is_unstable = true;
                    continue;
                }
                check(format!("group {group}, {place}"), code)?;
                if offset >= 0 {
                    committed.insert(place, offset);
                }
            }
            if !is_unstable {
                return Ok(Some(committed));
            }
            remark(1, || {
                "waits for a transaction that commits offsets".to_owned()
            });
            std::thread::sleep(PAUSE);
            if !self.is_in(cluster)? {
                return Ok(None);
            }
        }
    }

    /// Says that it lives, if it is time; whether it still has what it was assigned.
    pub(super) fn is_in(&mut self, cluster: &mut Cluster) -> Result<bool, Failure> {
        match self {
            Membership::Classic(member) => member.is_in(cluster),
            Membership::Consumer(member) => member.is_in(cluster),
        }
    }

    /// Commits; `false` if the group has gone on without this member, and nothing was.
    pub(super) fn commit(
        &mut self,
        cluster: &mut Cluster,
        reached: &BTreeMap<Place, i64>,
    ) -> Result<bool, Failure> {
        match self {
            Membership::Classic(member) => member.commit(cluster, reached),
            Membership::Consumer(member) => member.commit(cluster, reached),
        }
    }

    /// Leaves, so that nobody waits for it. If that can't be said the group finds out.
    pub(super) fn leave(&mut self, cluster: &mut Cluster) {
        cluster.renew(Duration::ZERO);
        let left = match self {
            Membership::Classic(member) => member.leave(cluster),
            Membership::Consumer(member) => member.leave(cluster),
        };
        if let Err(failure) = left {
            remark(1, || format!("left without a word: {failure}"));
        }
    }

    /// How long what is not its own yet may take to become so: others have to give it back first.
    pub(super) fn share_comes_within(&self) -> Duration {
        match self {
            Membership::Classic(_) => Duration::ZERO,
            Membership::Consumer(member) => (3 * member.interval()).max(ASSIGNMENT_WAIT),
        }
    }

    fn group(&self) -> &str {
        match self {
            Membership::Classic(member) => member.group(),
            Membership::Consumer(member) => member.group(),
        }
    }
}
