//! The partitions of a shard: looked up several times for each message, gone through now and then.
//!
//! Invariants: `order` has the keys of `found`. Whoever goes through them does it in the order of their ids, so that what a shard
//! does depends on what it was told alone: simulations are repeated by their seed.

use crate::partition::Partition;
use std::collections::BTreeSet;
use std::ops::{Bound, Index};
use tally_protocol::PartitionId;
use tally_storage::PartitionMap;

/// All partitions that are open.
#[derive(Debug, Default)]
pub(crate) struct Partitions {
    found: PartitionMap<Box<Partition>>,
    order: BTreeSet<PartitionId>,
}

impl Partitions {
    pub(crate) fn get(&self, id: &PartitionId) -> Option<&Partition> {
        self.found.get(id).map(|partition| &**partition)
    }

    pub(crate) fn get_mut(&mut self, id: &PartitionId) -> Option<&mut Partition> {
        self.found.get_mut(id).map(|partition| &mut **partition)
    }

    pub(crate) fn contains_key(&self, id: &PartitionId) -> bool {
        self.found.contains_key(id)
    }

    pub(crate) fn insert(&mut self, id: PartitionId, partition: Partition) {
        self.found.insert(id, Box::new(partition));
        self.order.insert(id);
    }

    pub(crate) fn remove(&mut self, id: &PartitionId) -> Option<Box<Partition>> {
        self.order.remove(id);
        self.found.remove(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PartitionId, &Partition)> {
        self.order.iter().map(|id| (*id, &self[id]))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Partition> {
        self.iter().map(|(_, partition)| partition)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        let mut all: Vec<_> = self.found.iter_mut().collect();
        all.sort_unstable_by_key(|(id, _)| **id);
        all.into_iter().map(|(_, partition)| &mut **partition)
    }

    /// The ids behind `last`, of all if there is none.
    pub(crate) fn after(&self, last: Option<PartitionId>) -> impl Iterator<Item = PartitionId> {
        let begin = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((begin, Bound::Unbounded)).copied()
    }

    /// Takes all of them out.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (PartitionId, Box<Partition>)> + use<> {
        let order = std::mem::take(&mut self.order);
        let mut found = std::mem::take(&mut self.found);
        let with_partition = move |id| Some((id, found.remove(&id)?));
        order.into_iter().filter_map(with_partition)
    }
}

impl Index<&PartitionId> for Partitions {
    type Output = Partition;

    fn index(&self, id: &PartitionId) -> &Partition {
        &self.found[id]
    }
}
