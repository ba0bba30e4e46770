//! `uniform`: numbers of partitions that differ by at most one where subscriptions allow it, and as few moves as possible.
//!
//! Members that all want the same get a quota each and keep what they had up to it. Otherwise members keep what they had,
//! what is free goes to the subscriber with least, and partitions move one by one from who has at least two more than
//! another subscriber has. Each such move makes the numbers more equal, so it ends; the rounds are bounded all the same.

use super::{Assignments, Input};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_protocol::TopicId;
use tally_protocol::records::consumer_group::Partitions;

/// Looks at all partitions when subscriptions differ; a few are enough.
const ROUNDS_MAX: usize = 32;

pub(super) fn assign(input: &Input<'_>) -> Assignments {
    let mut wishes = input.members.values().map(|wishes| &wishes.topics);
    let Some(first) = wishes.next() else {
        return Assignments::new();
    };
    if wishes.all(|topics| topics == first) {
        equal_wishes(input, first)
    } else {
        different_wishes(input)
    }
}

fn equal_wishes(input: &Input<'_>, topics: &BTreeSet<TopicId>) -> Assignments {
    let sizes = topics.iter().filter_map(|topic| input.topics.get(topic));
    let total: usize = sizes
        .map(|&count| usize::try_from(count).unwrap_or(0))
        .sum();
    let quota = total / input.members.len();
    // So many members have one more than the others.
    let mut extra = total % input.members.len();
    let mut taken: BTreeMap<TopicId, BTreeSet<i32>> = BTreeMap::new();
    let mut assigned = Assignments::new();
    let mut rooms: Vec<(&Arc<str>, usize)> = Vec::with_capacity(input.members.len());
    for (member, wishes) in &input.members {
        let mut kept = Partitions::new();
        let mut count = 0;
        for (topic, partition) in valid_before(input, wishes.before, topics) {
            if taken
                .get(&topic)
                .is_some_and(|taken| taken.contains(&partition))
            {
                continue;
            }
            if count == quota && extra > 0 {
                extra -= 1;
            } else if count >= quota {
                break;
            }
            taken.entry(topic).or_default().insert(partition);
            kept.entry(topic).or_default().insert(partition);
            count += 1;
        }
        rooms.push((*member, count));
        if !kept.is_empty() {
            assigned.insert((*member).clone(), kept);
        }
    }
    let mut free = topics.iter().flat_map(|topic| {
        let taken = taken.get(topic);
        let is_free = move |partition: &i32| taken.is_none_or(|taken| !taken.contains(partition));
        let count = input.topics.get(topic).copied().unwrap_or(0);
        (0..count)
            .filter(is_free)
            .map(move |partition| (*topic, partition))
    });
    for (member, count) in rooms {
        let mut wanted = quota.saturating_sub(count);
        if count <= quota && extra > 0 {
            extra -= 1;
            wanted += 1;
        }
        for (topic, partition) in free.by_ref().take(wanted) {
            let topics = assigned.entry(member.clone()).or_default();
            topics.entry(topic).or_default().insert(partition);
        }
    }
    assigned
}

/// What a member had of what there is now.
fn valid_before<'a>(
    input: &'a Input<'_>,
    before: Option<&'a Partitions>,
    topics: &'a BTreeSet<TopicId>,
) -> impl Iterator<Item = (TopicId, i32)> + 'a {
    let wanted = before.into_iter().flatten();
    let wanted = wanted.filter(|(topic, _)| topics.contains(topic));
    wanted.flat_map(|(&topic, partitions)| {
        let count = input.topics.get(&topic).copied().unwrap_or(0);
        partitions
            .range(..count)
            .map(move |&partition| (topic, partition))
    })
}

/// Members by number, what each has, and who has what.
struct Board<'a> {
    members: Vec<&'a Arc<str>>,
    counts: Vec<usize>,
    owners: BTreeMap<(TopicId, i32), usize>,
    subscribers: BTreeMap<TopicId, Vec<usize>>,
}

impl Board<'_> {
    fn give(&mut self, partition: (TopicId, i32), member: usize) {
        self.counts[member] += 1;
        if let Some(before) = self.owners.insert(partition, member) {
            self.counts[before] -= 1;
        }
    }

    /// The subscriber that has least; of several the first.
    fn poorest(&self, topic: TopicId) -> Option<usize> {
        let subscribers = self.subscribers.get(&topic)?.iter().copied();
        subscribers.min_by_key(|&member| self.counts[member])
    }
}

fn different_wishes(input: &Input<'_>) -> Assignments {
    let mut board = Board {
        members: input.members.keys().copied().collect(),
        counts: vec![0; input.members.len()],
        owners: BTreeMap::new(),
        subscribers: BTreeMap::new(),
    };
    for (member, wishes) in input.members.values().enumerate() {
        for &topic in &wishes.topics {
            board.subscribers.entry(topic).or_default().push(member);
        }
        for partition in valid_before(input, wishes.before, &wishes.topics) {
            if !board.owners.contains_key(&partition) {
                board.give(partition, member);
            }
        }
    }
    // Topics that few want first: who wants them has least choice.
    let mut topics: Vec<(usize, TopicId, i32)> = board
        .subscribers
        .iter()
        .map(|(&topic, subscribers)| (subscribers.len(), topic))
        .map(|(wanted, topic)| {
            (
                wanted,
                topic,
                input.topics.get(&topic).copied().unwrap_or(0),
            )
        })
        .collect();
    topics.sort_unstable();
    for &(_, topic, count) in &topics {
        for partition in (0..count).map(|partition| (topic, partition)) {
            if !board.owners.contains_key(&partition)
                && let Some(member) = board.poorest(topic)
            {
                board.give(partition, member);
            }
        }
    }
    for _ in 0..ROUNDS_MAX {
        if !even_out(&mut board, &topics) {
            break;
        }
    }
    let mut assigned = Assignments::new();
    for (&(topic, partition), &member) in &board.owners {
        let topics = assigned.entry(board.members[member].clone()).or_default();
        topics.entry(topic).or_default().insert(partition);
    }
    assigned
}

/// One look at all partitions; false if none had to move.
fn even_out(board: &mut Board<'_>, topics: &[(usize, TopicId, i32)]) -> bool {
    let mut moved = false;
    for &(_, topic, count) in topics {
        for partition in (0..count).map(|partition| (topic, partition)) {
            let (Some(&owner), Some(poorest)) =
                (board.owners.get(&partition), board.poorest(topic))
            else {
                continue;
            };
            if board.counts[owner] > board.counts[poorest] + 1 {
                board.give(partition, poorest);
                moved = true;
            }
        }
    }
    moved
}
