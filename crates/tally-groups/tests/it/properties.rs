//! Random runs against a model that is too simple to be wrong.

use crate::world::{Asked, Entry, World, commit, join, leaving, offset, rejoin, txn_commit};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use tally_groups::{
    Command, DeleteOffsetsRequest, JoinRequest, OffsetToCommit, Response, SyncRequest,
    TransactionalCommitRequest,
};
use tally_protocol::ErrorCode;
use tally_protocol::records::offsets_log::OffsetsRecord;

/// What may happen to the offset of one of three partitions.
#[derive(Clone, Debug)]
enum OffsetStep {
    Plain { partition: i32 },
    Pending { producer: i64, partition: i32 },
    Marker { producer: i64, commit: bool },
    Delete { partition: i32 },
    DeleteGroup,
    Restart,
}

fn offset_step() -> impl Strategy<Value = OffsetStep> {
    let partition = 0..3i32;
    let producer = 1..4i64;
    prop_oneof![
        3 => partition.clone().prop_map(|partition| OffsetStep::Plain { partition }),
        5 => (producer.clone(), partition.clone())
            .prop_map(|(producer, partition)| OffsetStep::Pending { producer, partition }),
        4 => (producer, any::<bool>())
            .prop_map(|(producer, commit)| OffsetStep::Marker { producer, commit }),
        1 => partition.prop_map(|partition| OffsetStep::Delete { partition }),
        1 => Just(OffsetStep::DeleteGroup),
        1 => Just(OffsetStep::Restart),
    ]
}

/// The visible offset of a partition by its definition: the last record in the order of the log among plain commits and
/// commits whose transaction was committed afterwards, unless a tombstone comes after it; transactional commits before a
/// tombstone never count.
fn visible(log: &[Entry], partition: i32) -> i64 {
    let mut best = -1;
    for (at, entry) in log.iter().enumerate() {
        let Entry::Record(
            OffsetsRecord::Offset {
                partition: of,
                value,
                ..
            },
            producer,
        ) = entry
        else {
            continue;
        };
        if *of != partition {
            continue;
        }
        match (value, producer) {
            (None, _) => best = -1,
            (Some(value), None) => best = value.offset,
            (Some(value), Some(producer)) => {
                let ends = |entry: &Entry| match entry {
                    Entry::Marker(ended, commit) if ended == producer => Some(*commit),
                    Entry::Marker(..) | Entry::Record(..) => None,
                };
                // GR-84: what the record says counts from its own place in the log.
                if log[at..].iter().find_map(ends) == Some(true) {
                    best = value.offset;
                }
            }
        }
    }
    best
}

/// Whether a transactional commit waits for its marker.
fn is_pending(log: &[Entry], partition: i32) -> bool {
    let mut open: BTreeMap<i64, bool> = BTreeMap::new();
    for entry in log {
        match entry {
            Entry::Marker(producer, _) => {
                open.remove(&producer.0);
            }
            Entry::Record(
                OffsetsRecord::Offset {
                    partition: of,
                    value,
                    ..
                },
                producer,
            ) if *of == partition => match (value, producer) {
                (None, _) => open.clear(),
                (Some(_), Some(producer)) => {
                    open.insert(producer.0, true);
                }
                (Some(_), None) => {}
            },
            Entry::Record(..) => {}
        }
    }
    !open.is_empty()
}

fn run_offset_step(world: &mut World, step: &OffsetStep, number: i64) {
    let of = |partition| OffsetToCommit {
        partition,
        ..offset(number)
    };
    match *step {
        OffsetStep::Plain { partition } => {
            let request = tally_groups::CommitRequest {
                offsets: vec![of(partition)],
                ..commit("", -1, 0)
            };
            assert_eq!(world.commit(request), [0]);
            assert_eq!(world.fetch(partition, false).offset, number, "O-10");
        }
        OffsetStep::Pending {
            producer,
            partition,
        } => {
            let request = TransactionalCommitRequest {
                offsets: vec![of(partition)],
                ..txn_commit("", -1, 0)
            };
            assert_eq!(world.txn_commit(producer, request), [0]);
            assert_eq!(world.fetch(partition, true).error.code(), 88, "O-15");
        }
        OffsetStep::Marker { producer, commit } => world.marker(producer, commit),
        OffsetStep::Delete { partition } => {
            world.ask(Command::DeleteOffsets(DeleteOffsetsRequest {
                group: Arc::from("g"),
                partitions: vec![(Arc::from("t"), partition)],
            }));
        }
        OffsetStep::DeleteGroup => {
            let group = Arc::from("g");
            world.ask(Command::DeleteGroup { group });
        }
        OffsetStep::Restart => world.restart(),
    }
}

/// Keeps of each key the last record that counts, as compaction does once nothing is pending (GR-123).
fn compacted(log: &[Entry]) -> Vec<Option<Entry>> {
    let mut last = BTreeMap::new();
    for (at, entry) in log.iter().enumerate() {
        if let Entry::Record(record, producer) = entry {
            let aborted = producer.is_some_and(|producer| {
                let ends = |entry: &Entry| match entry {
                    Entry::Marker(ended, commit) if *ended == producer => Some(*commit),
                    Entry::Marker(..) | Entry::Record(..) => None,
                };
                log[at..].iter().find_map(ends) != Some(true)
            });
            if !aborted {
                last.insert(record.encode_key(), at);
            }
        }
    }
    let keep = |(at, entry): (usize, &Entry)| match entry {
        Entry::Record(record, _) => {
            (last.get(&record.encode_key()) == Some(&at)).then(|| entry.clone())
        }
        Entry::Marker(..) => Some(entry.clone()),
    };
    log.iter().enumerate().map(keep).collect()
}

proptest! {
    #[test]
    fn gr84_visible_offsets_follow_the_log(steps in prop::collection::vec(offset_step(), 1..60)) {
        let mut world = World::new();
        for (step, number) in steps.iter().zip(100..) {
            run_offset_step(&mut world, step, number);
            for partition in 0..3 {
                let expected = visible(&world.log, partition);
                prop_assert_eq!(world.fetch(partition, false).offset, expected);
                let pending = is_pending(&world.log, partition);
                let stable = world.fetch(partition, true);
                prop_assert_eq!(stable.error == ErrorCode::UnstableOffsetCommit, pending);
                if !pending {
                    prop_assert_eq!(stable.offset, expected);
                }
            }
        }
        world.restart();
    }

    #[test]
    fn g100_gr123_a_compacted_log_says_the_same(steps in prop::collection::vec(offset_step(), 1..60)) {
        let mut world = World::new();
        for (step, number) in steps.iter().zip(100..) {
            run_offset_step(&mut world, step, number);
        }
        for producer in 1..4 {
            world.marker(producer, producer % 2 == 0);
        }
        let mut groups = tally_groups::Groups::new(crate::world::settings(), 9);
        for (entry, at) in compacted(&world.log).into_iter().zip(0..) {
            let at = tally_protocol::Offset(at);
            match entry {
                Some(Entry::Record(record, producer)) => {
                    let producer = producer.map(|id| (id, tally_protocol::ProducerEpoch(0)));
                    groups.apply(at, &record, producer);
                }
                Some(Entry::Marker(producer, commit)) => groups.apply_marker(at, producer, commit),
                None => {}
            }
        }
        prop_assert_eq!(groups.stored(), world.groups.stored());
    }

    #[test]
    fn gr36_a_partition_has_one_owner_in_a_generation(
        steps in prop::collection::vec((any::<u8>(), 0..4usize), 1..300),
        delay in prop_oneof![Just(0), Just(500)],
    ) {
        let mut clients = Clients::new(delay);
        for (what, who) in steps {
            clients.step(what, who);
        }
        clients.world.restart();
    }
}

/// Clients that join, assign, commit, fall silent and leave as they like. Half of them are static.
struct Clients {
    world: World,
    clients: Vec<Client>,
    made: u32,
    /// Who owns what, by generation, as told by SyncGroup.
    owners: BTreeMap<(i32, u8), Arc<str>>,
    /// The highest generation that anyone was told of by SyncGroup.
    generation: i32,
}

#[derive(Clone, Default)]
struct Client {
    member_id: Arc<str>,
    generation: i32,
    /// The members, if it leads.
    members: Vec<Arc<str>>,
    waits: Option<Asked>,
    phase: Phase,
}

#[derive(Clone, Copy, Default)]
enum Phase {
    #[default]
    Join,
    Sync,
    Poll,
}

const PARTITIONS: u8 = 4;

impl Clients {
    fn new(initial_rebalance_delay_ms: i32) -> Clients {
        Clients {
            world: World::with(tally_groups::Settings {
                initial_rebalance_delay_ms,
                ..crate::world::settings()
            }),
            clients: vec![Client::default(); 4],
            made: 0,
            owners: BTreeMap::new(),
            generation: 0,
        }
    }

    fn instance_of(who: usize) -> Option<Arc<str>> {
        (who % 2 == 1).then(|| Arc::from(format!("i{who}")))
    }

    fn step(&mut self, what: u8, who: usize) {
        self.collect(who);
        match what % 32 {
            0..=19 => self.go_on(who),
            20 => self.join(who),
            21..=23 => self.sync(who),
            24..=25 => self.commit(who),
            26 => {
                let member_id = self.clients[who].member_id.clone();
                self.world.leave(vec![leaving(&member_id)]);
            }
            27 => self.clients[who] = Client::default(),
            28 => {
                for client in &mut self.clients {
                    client.waits = None;
                }
                self.world.restart();
            }
            _ => self.world.advance(u64::from(what) * 40),
        }
        for who in 0..self.clients.len() {
            self.collect(who);
        }
    }

    /// What a client does that behaves.
    fn go_on(&mut self, who: usize) {
        let client = self.clients[who].clone();
        if client.waits.is_some() {
            return;
        }
        match client.phase {
            Phase::Join => self.join(who),
            Phase::Sync => self.sync(who),
            Phase::Poll => match self.world.heartbeat(&client.member_id, client.generation) {
                0 => {}
                27 => self.clients[who].phase = Phase::Join,
                _ => self.clients[who] = Client::default(),
            },
        }
    }

    fn join(&mut self, who: usize) {
        self.made += 1;
        let client = &self.clients[who];
        let request = if client.member_id.is_empty() {
            join(&format!("m{who}-{}", self.made))
        } else {
            rejoin(&client.member_id)
        };
        let request = JoinRequest {
            instance_id: Clients::instance_of(who),
            ..request
        };
        let asked = self.world.send(Command::Join(request));
        self.clients[who].waits = Some(asked);
    }

    fn sync(&mut self, who: usize) {
        let client = &self.clients[who];
        let mut given: BTreeMap<&Arc<str>, Vec<u8>> = BTreeMap::new();
        if !client.members.is_empty() {
            for partition in 0..PARTITIONS {
                let member = &client.members[usize::from(partition) % client.members.len()];
                given.entry(member).or_default().push(partition);
            }
        }
        let assignments = given
            .into_iter()
            .map(|(member, partitions)| (member.clone(), Bytes::from(partitions)));
        let request = SyncRequest {
            group: Arc::from("g"),
            member_id: client.member_id.clone(),
            instance_id: Clients::instance_of(who),
            generation: client.generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments.collect(),
        };
        let asked = self.world.send(Command::Sync(request));
        self.clients[who].waits = Some(asked);
    }

    /// Whoever commits is a member, and of no generation before the last that was assigned.
    fn commit(&mut self, who: usize) {
        let client = self.clients[who].clone();
        if client.member_id.is_empty() {
            return;
        }
        let codes = self
            .world
            .commit(commit(&client.member_id, client.generation, 1));
        if codes == [0] {
            let live = self.world.groups.describe("g").expect("it was there");
            let is_member = |id: &Arc<str>| live.members.iter().any(|m| m.member_id == *id);
            assert!(is_member(&client.member_id));
            assert!(client.generation >= self.last_generation());
        }
    }

    /// The last generation that was assigned, or in which the group became Empty.
    fn last_generation(&self) -> i32 {
        let generation = |entry: &Entry| match entry {
            Entry::Record(OffsetsRecord::Group { value, .. }, _) => {
                Some(value.as_ref().map_or(0, |value| value.generation))
            }
            Entry::Record(..) | Entry::Marker(..) => None,
        };
        self.world
            .log
            .iter()
            .rev()
            .find_map(generation)
            .unwrap_or(0)
    }

    fn collect(&mut self, who: usize) {
        let Some(asked) = self.clients[who].waits else {
            return;
        };
        let Some(response) = self.world.reply(asked) else {
            return;
        };
        self.clients[who].waits = None;
        match response {
            Response::Join(response) if response.error.is_none() => {
                let client = &mut self.clients[who];
                client.phase = Phase::Sync;
                client.member_id = response.member_id;
                client.generation = response.generation;
                let ids = response.members.into_iter().map(|m| m.member_id);
                client.members = if response.skip_assignment {
                    Vec::new()
                } else {
                    ids.collect()
                };
            }
            Response::Join(response) => {
                if response.error != ErrorCode::RebalanceInProgress {
                    self.clients[who] = Client::default();
                }
            }
            Response::Sync(response) if response.error.is_none() => {
                self.clients[who].phase = Phase::Poll;
                self.owned(who, &response.assignment);
            }
            Response::Sync(response) => {
                self.clients[who].phase = Phase::Join;
                if response.error != ErrorCode::RebalanceInProgress {
                    self.clients[who] = Client::default();
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A static member that restarts takes over from its older self, which is fenced: owners are compared by who they
    /// are, not by their ids.
    fn owned(&mut self, who: usize, partitions: &[u8]) {
        let generation = self.clients[who].generation;
        let name: Arc<str> = match Clients::instance_of(who) {
            Some(instance_id) => instance_id,
            None => self.clients[who].member_id.clone(),
        };
        assert!(
            generation >= self.generation,
            "an assignment of generation {generation} after one of {}",
            self.generation
        );
        self.generation = generation;
        for &partition in partitions {
            let owner = self
                .owners
                .entry((generation, partition))
                .or_insert_with(|| name.clone());
            assert_eq!(*owner, name, "{partition} in generation {generation}");
        }
    }
}
