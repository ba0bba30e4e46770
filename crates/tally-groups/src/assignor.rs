//! Who is to have which partition (section 9.7): the assignors of the broker.
//!
//! Invariants: every partition of a topic that somebody subscribes to has exactly one owner; nobody gets a topic that it
//! does not subscribe to; the same input gives the same output.

#[cfg(test)]
mod properties;
mod range;
mod uniform;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::TopicId;
use tally_protocol::records::consumer_group::Partitions;

/// An assignor of the broker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Assignor {
    /// Equal numbers, and as little as possible moves.
    Uniform,
    /// Consecutive partitions of each topic, the same for topics of the same size.
    Range,
}

impl Assignor {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// The assignor of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Assignor> {
        [Assignor::Uniform, Assignor::Range]
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    pub(crate) fn assign(self, input: &Input<'_>) -> Assignments {
        match self {
            Assignor::Uniform => uniform::assign(input),
            Assignor::Range => range::assign(input),
        }
    }
}

/// What an assignor goes by.
#[derive(Debug, Default)]
pub(crate) struct Input<'a> {
    pub(crate) members: BTreeMap<&'a Arc<str>, Wishes<'a>>,
    /// How many partitions each topic has.
    pub(crate) topics: BTreeMap<TopicId, i32>,
}

/// What is to be known of a member.
#[derive(Debug)]
pub(crate) struct Wishes<'a> {
    pub(crate) instance_id: Option<&'a Arc<str>>,
    /// Only topics that are in [`Input::topics`].
    pub(crate) topics: BTreeSet<TopicId>,
    /// What it was to have before.
    pub(crate) before: Option<&'a Partitions>,
}

/// What each member is to have.
pub(crate) type Assignments = BTreeMap<Arc<str>, Partitions>;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> TopicId {
        TopicId([number; 16])
    }

    fn name(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    /// A member: its id, its instance id, the topics it wants.
    type Member<'a> = (Arc<str>, Option<Arc<str>>, &'a [u8]);

    /// Members with their topics, topics with their sizes, and what was before.
    fn run(
        assignor: Assignor,
        members: &[Member<'_>],
        topics: &[(u8, i32)],
        before: &Assignments,
    ) -> Assignments {
        let topics = topics.iter().map(|(topic, count)| (id(*topic), *count));
        let input = Input {
            members: members
                .iter()
                .map(|(member, instance_id, topics)| {
                    let wishes = Wishes {
                        instance_id: instance_id.as_ref(),
                        topics: topics.iter().map(|topic| id(*topic)).collect(),
                        before: before.get(member),
                    };
                    (member, wishes)
                })
                .collect(),
            topics: topics.collect(),
        };
        let assigned = assignor.assign(&input);
        check(&input, &assigned);
        assigned
    }

    fn check(input: &Input<'_>, assigned: &Assignments) {
        let mut owners = BTreeMap::new();
        for (member, topics) in assigned {
            let wishes = &input.members[member];
            for (topic, partitions) in topics {
                assert!(!partitions.is_empty());
                assert!(wishes.topics.contains(topic), "{member} does not want it");
                for partition in partitions {
                    assert!((0..input.topics[topic]).contains(partition));
                    let other = owners.insert((*topic, *partition), member);
                    assert_eq!(other, None, "two owners");
                }
            }
        }
        let wanted = |topic: &TopicId| input.members.values().any(|w| w.topics.contains(topic));
        for (topic, count) in input.topics.iter().filter(|(topic, _)| wanted(topic)) {
            for partition in 0..*count {
                assert!(owners.contains_key(&(*topic, partition)), "no owner");
            }
        }
    }

    fn count(assigned: &Assignments, member: &str) -> usize {
        let topics = assigned.get(member);
        topics.map_or(0, |topics| topics.values().map(BTreeSet::len).sum())
    }

    fn moved(before: &Assignments, after: &Assignments) -> usize {
        let kept = |(member, topics): (&Arc<str>, &Partitions)| {
            let now = after.get(member);
            topics
                .iter()
                .map(|(topic, partitions)| {
                    let kept = now.and_then(|now| now.get(topic));
                    let kept = kept.map_or(0, |kept| kept.intersection(partitions).count());
                    partitions.len() - kept
                })
                .sum::<usize>()
        };
        before.iter().map(kept).sum()
    }

    #[test]
    fn g126_range_sorts_static_members_first_and_keeps_topics_together() {
        let members = [
            (name("m1"), None, &[1, 2][..]),
            (name("m9"), Some(name("a")), &[1, 2]),
            (name("m0"), None, &[1]),
        ];
        let assigned = run(
            Assignor::Range,
            &members,
            &[(1, 4), (2, 4)],
            &Assignments::new(),
        );
        assert_eq!(assigned["m9"][&id(1)], BTreeSet::from([0, 1]));
        assert_eq!(assigned["m0"][&id(1)], BTreeSet::from([2]));
        assert_eq!(assigned["m1"][&id(1)], BTreeSet::from([3]));
        assert_eq!(assigned["m9"][&id(2)], BTreeSet::from([0, 1]));
        assert_eq!(assigned["m1"][&id(2)], BTreeSet::from([2, 3]));
        let same = [(name("a"), None, &[1, 2][..]), (name("b"), None, &[1, 2])];
        let assigned = run(
            Assignor::Range,
            &same,
            &[(1, 3), (2, 3)],
            &Assignments::new(),
        );
        assert_eq!(assigned["a"][&id(1)], assigned["a"][&id(2)]);
        assert_eq!(assigned["b"][&id(1)], assigned["b"][&id(2)]);
    }

    #[test]
    fn g127_uniform_moves_no_more_than_the_new_members_share() {
        let three = [name("a"), name("b"), name("c")].map(|member| (member, None, &[1, 2, 3][..]));
        let topics = [(1, 10), (2, 10), (3, 10)];
        let before = run(Assignor::Uniform, &three, &topics, &Assignments::new());
        for member in ["a", "b", "c"] {
            assert_eq!(count(&before, member), 10);
        }
        let mut four = three.to_vec();
        four.push((name("d"), None, &[1, 2, 3]));
        let after = run(Assignor::Uniform, &four, &topics, &before);
        assert_eq!(count(&after, "d"), 7);
        assert_eq!(moved(&before, &after), 7);
        let again = run(Assignor::Uniform, &four, &topics, &after);
        assert_eq!(after, again, "nothing moves without a reason");
        let left = run(Assignor::Uniform, &four[1..], &topics, &after);
        assert_eq!(moved(&after, &left), count(&after, "a"));
    }

    #[test]
    fn uniform_balances_what_members_want_in_common() {
        let members = [
            (name("a"), None, &[1][..]),
            (name("b"), None, &[1, 2]),
            (name("c"), None, &[2]),
        ];
        let assigned = run(
            Assignor::Uniform,
            &members,
            &[(1, 6), (2, 2)],
            &Assignments::new(),
        );
        let counts = ["a", "b", "c"].map(|member| count(&assigned, member));
        assert_eq!(counts.iter().sum::<usize>(), 8);
        assert_eq!(counts[2], 2, "{counts:?}");
        assert_eq!(counts[0], 3, "{counts:?}");
        let again = run(Assignor::Uniform, &members, &[(1, 6), (2, 2)], &assigned);
        assert_eq!(assigned, again);
    }

    #[test]
    fn members_without_topics_and_topics_without_partitions_are_no_trouble() {
        for assignor in [Assignor::Uniform, Assignor::Range] {
            let members = [(name("a"), None, &[][..]), (name("b"), None, &[1])];
            let assigned = run(assignor, &members, &[(1, 2)], &Assignments::new());
            assert_eq!(count(&assigned, "a"), 0);
            assert_eq!(count(&assigned, "b"), 2);
            assert!(run(assignor, &[], &[(1, 2)], &Assignments::new()).is_empty());
            let shrunk = run(assignor, &members, &[(1, 1)], &assigned);
            assert_eq!(count(&shrunk, "b"), 1, "a topic made again with less");
        }
    }
}
