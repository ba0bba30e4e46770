//! `range`: each topic is cut into consecutive ranges, for its subscribers in one order. Topics of the same size with the
//! same subscribers are cut alike, so that joins find the same numbers together.

use super::{Assignments, Input};
use std::collections::BTreeSet;

pub(super) fn assign(input: &Input<'_>) -> Assignments {
    let mut ordered: Vec<_> = input.members.iter().collect();
    // Static members keep their place over restarts; they come first.
    ordered.sort_by_key(|(member, wishes)| {
        (wishes.instance_id.is_none(), wishes.instance_id, **member)
    });
    let mut assigned = Assignments::new();
    for (&topic, &count) in &input.topics {
        let subscribers: Vec<_> = ordered
            .iter()
            .filter(|(_, wishes)| wishes.topics.contains(&topic))
            .collect();
        let Ok(subscriber_count @ 1..) = i32::try_from(subscribers.len()) else {
            continue;
        };
        let (quota, mut extra) = (count / subscriber_count, count % subscriber_count);
        let mut first = 0;
        for (member, _) in subscribers {
            let length = quota + i32::from(extra > 0);
            extra -= 1;
            if length > 0 {
                let range: BTreeSet<i32> = (first..first + length).collect();
                let topics = assigned.entry((**member).clone()).or_default();
                topics.insert(topic, range);
            }
            first += length;
        }
    }
    assigned
}
