//! What holds of the assignors whatever members want and whatever was before (section 9.7): every partition once, nothing
//! that nobody asked for, balance, and no move without a reason.

use super::{Assignments, Assignor, Input, Wishes};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::TopicId;
use tally_protocol::records::consumer_group::Partitions;

const TOPICS: u8 = 5;

/// Who there is, with the topics that each wants, and how many partitions each topic has.
#[derive(Clone, Debug)]
struct Group {
    /// By number; a member with an odd number is static.
    members: BTreeMap<u8, BTreeSet<u8>>,
    sizes: Vec<i32>,
}

fn topic(number: u8) -> TopicId {
    TopicId([number; 16])
}

fn member(number: u8) -> Arc<str> {
    Arc::from(format!("m{number:03}"))
}

fn groups() -> impl Strategy<Value = Group> {
    let wishes = prop::collection::btree_set(0..TOPICS, 0..=usize::from(TOPICS));
    let members = prop::collection::btree_map(0..40u8, wishes, 1..9);
    let sizes = prop::collection::vec(0..13i32, usize::from(TOPICS));
    (members, sizes).prop_map(|(members, sizes)| Group { members, sizes })
}

/// Everybody wants the same.
fn equal_groups() -> impl Strategy<Value = Group> {
    groups().prop_map(|mut group| {
        let wishes = group.members.values().next().cloned().unwrap_or_default();
        for topics in group.members.values_mut() {
            topics.clone_from(&wishes);
        }
        group
    })
}

/// Member id, instance id, topics.
type Named<'a> = (Arc<str>, Option<Arc<str>>, &'a BTreeSet<u8>);

impl Group {
    fn assign(&self, assignor: Assignor, before: &Assignments) -> Assignments {
        let ids: Vec<Named<'_>> = self
            .members
            .iter()
            .map(|(number, topics)| {
                let instance = (number % 2 == 1).then(|| Arc::from(format!("i{}", 100 - number)));
                (member(*number), instance, topics)
            })
            .collect();
        let members = ids.iter().map(|(id, instance, topics)| {
            let wishes = Wishes {
                instance_id: instance.as_ref(),
                topics: topics.iter().map(|number| topic(*number)).collect(),
                before: before.get(id),
            };
            (id, wishes)
        });
        let sizes = (0..TOPICS).zip(&self.sizes);
        let input = Input {
            members: members.collect(),
            topics: sizes.map(|(number, size)| (topic(number), *size)).collect(),
        };
        assignor.assign(&input)
    }

    fn size(&self, number: u8) -> i32 {
        self.sizes[usize::from(number)]
    }

    /// Every partition that somebody wants, once; nothing else.
    fn check_whole(&self, assigned: &Assignments) {
        let mut given = BTreeSet::new();
        for (number, wanted) in &self.members {
            let Some(topics) = assigned.get(&member(*number)) else {
                continue;
            };
            for (id, partitions) in topics {
                assert!(wanted.contains(&id.0[0]), "{number} does not want {id}");
                assert!(!partitions.is_empty(), "nothing is not named");
                for partition in partitions {
                    assert!(
                        given.insert((*id, *partition)),
                        "{id}-{partition} given twice"
                    );
                }
            }
        }
        let wanted: BTreeSet<u8> = self.members.values().flatten().copied().collect();
        let all = wanted.iter().flat_map(|number| {
            (0..self.size(*number)).map(|partition| (topic(*number), partition))
        });
        assert_eq!(given, all.collect());
        assert!(assigned.len() <= self.members.len());
    }

    fn count(assigned: &Assignments, number: u8) -> usize {
        let topics = assigned.get(&member(number));
        topics.map_or(0, |topics| topics.values().map(BTreeSet::len).sum())
    }

    /// No partition could go from somebody to a member that wants it too and has two fewer.
    fn check_balance(&self, assigned: &Assignments) {
        for from in self.members.keys() {
            for (to, wanted) in &self.members {
                let topics = assigned.get(&member(*from));
                let mut topics = topics.into_iter().flat_map(Partitions::keys);
                if topics.any(|id| wanted.contains(&id.0[0])) {
                    let (has, has_too) =
                        (Group::count(assigned, *from), Group::count(assigned, *to));
                    assert!(has <= has_too + 1, "{from} has {has}, {to} {has_too}");
                }
            }
        }
    }
}

/// Partitions that a member had and another one has now.
fn moved(before: &Assignments, after: &Assignments) -> usize {
    let owner = |assigned: &Assignments| -> BTreeMap<(TopicId, i32), Arc<str>> {
        let all = assigned.iter().flat_map(|(id, topics)| {
            topics.iter().flat_map(move |(topic, partitions)| {
                let rows = partitions.iter();
                rows.map(move |partition| ((*topic, *partition), id.clone()))
            })
        });
        all.collect()
    };
    let after = owner(after);
    let before = owner(before);
    let is_other = |(partition, id): &(&(TopicId, i32), &Arc<str>)| {
        after.get(partition).is_some_and(|now| now != *id)
    };
    before.iter().filter(is_other).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_before_every_partition_is_given_once(earlier in groups(), group in groups()) {
        for first in [Assignor::Uniform, Assignor::Range] {
            let before = earlier.assign(first, &Assignments::new());
            earlier.check_whole(&before);
            for assignor in [Assignor::Uniform, Assignor::Range] {
                let after = group.assign(assignor, &before);
                group.check_whole(&after);
                prop_assert_eq!(&after, &group.assign(assignor, &before), "the same again");
            }
        }
    }

    #[test]
    fn uniform_is_balanced_and_moves_nothing_without_a_reason(
        earlier in groups(),
        group in groups(),
    ) {
        let before = earlier.assign(Assignor::Uniform, &Assignments::new());
        let after = group.assign(Assignor::Uniform, &before);
        group.check_balance(&after);
        prop_assert_eq!(&group.assign(Assignor::Uniform, &after), &after, "nothing has changed");
    }

    /// With equal wishes as few as can be: each gives back what it has above its share, and no more.
    #[test]
    fn uniform_moves_as_little_as_can_be(
        group in equal_groups(),
        gone in 0..40u8,
        new in 40..44u8,
    ) {
        let before = group.assign(Assignor::Uniform, &Assignments::new());
        let wishes = group.members.values().next().cloned().unwrap_or_default();
        let total: usize = wishes
            .iter()
            .map(|number| usize::try_from(group.size(*number)).expect("not negative"))
            .sum();
        let mut larger = group.clone();
        larger.members.insert(new, wishes);
        let after = larger.assign(Assignor::Uniform, &before);
        larger.check_whole(&after);
        let counts = larger.members.keys().map(|number| Group::count(&after, *number));
        let (least, most) = (counts.clone().min(), counts.max());
        prop_assert!(most <= least.map(|least| least + 1));
        // The newcomer's share comes from the others: nothing goes between those.
        prop_assert_eq!(moved(&before, &after), Group::count(&after, new));
        prop_assert!(Group::count(&after, new) <= total.div_ceil(larger.members.len()));
        // One leaves: what it had goes to the others, who keep what they have.
        let mut smaller = larger.clone();
        smaller.members.remove(&gone);
        if !smaller.members.is_empty() {
            let last = smaller.assign(Assignor::Uniform, &after);
            smaller.check_whole(&last);
            prop_assert_eq!(moved(&after, &last), Group::count(&after, gone));
        }
    }

    /// Topics of one size whose subscribers are the same are cut alike, into ranges that differ by one at most.
    #[test]
    fn range_cuts_topics_of_one_size_alike(group in groups()) {
        let assigned = group.assign(Assignor::Range, &Assignments::new());
        let of = |number: u8, id: u8| -> Vec<i32> {
            let topics = assigned.get(&member(number));
            let partitions = topics.and_then(|topics| topics.get(&topic(id)));
            partitions.into_iter().flatten().copied().collect()
        };
        for one in 0..TOPICS {
            let wants = |id: u8| {
                let wants = group.members.iter().filter(move |(_, wanted)| wanted.contains(&id));
                wants.map(|(number, _)| *number).collect::<Vec<u8>>()
            };
            let subscribers = wants(one);
            let lengths = subscribers.iter().map(|number| of(*number, one).len());
            prop_assert!(lengths.clone().max() <= lengths.min().map(|least| least + 1));
            for number in &subscribers {
                let range = of(*number, one);
                let is_consecutive = range.windows(2).all(|two| two[0] + 1 == two[1]);
                prop_assert!(is_consecutive, "{:?}", range);
            }
            for other in 0..TOPICS {
                if group.size(one) == group.size(other) && wants(one) == wants(other) {
                    for number in &subscribers {
                        prop_assert_eq!(of(*number, one), of(*number, other));
                    }
                }
            }
        }
    }
}
