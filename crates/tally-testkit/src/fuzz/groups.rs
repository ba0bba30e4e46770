//! The groups of one partition, members of both protocols, and transactions that commit offsets.

use super::choices::Choices;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_groups::{
    AbsentGroup, Command, CommitRequest, ConsumerHeartbeatRequest, ConsumerSettings, Decision,
    DeleteOffsetsRequest, Effect, FetchRequest, Groups, HeartbeatRequest, JoinRequest,
    LeaveRequest, LeavingMember, NewMember, OffsetToCommit, ReplyTo, Response, ReturningMember,
    Settings, SyncRequest, TopicToFetch, Topics, TransactionalCommitRequest,
};
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::{Now, Offset, ProducerEpoch, ProducerId, TopicId};

/// Requests of any members of any epochs with any metadata, markers, topics that come and go, time, logs that refuse, and starts: nothing
/// panics, nobody is answered twice, every record reads back as it was written, and what is stored is what replay of the log gives.
pub fn group_ops(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut world = World::new();
    while let Some(step) = choices.step() {
        world.step(step, &mut choices);
        world.groups.check_invariants();
    }
    world.restart();
}

enum Entry {
    Record(OffsetsRecord, Option<ProducerId>),
    Marker(ProducerId, bool),
}

struct World {
    groups: Groups,
    log: Vec<Entry>,
    topics: Arc<Topics>,
    monotonic_ms: u64,
    asked: u64,
    answered: BTreeSet<u64>,
    /// What members were told of themselves: id and epoch or generation.
    told: BTreeMap<u8, (Arc<str>, i32)>,
}

const GROUPS: [&str; 2] = ["g", "h"];
const TOPICS: [&[(&str, i32)]; 4] = [
    &[],
    &[("t", 3)],
    &[("t", 4), ("u", 2)],
    &[("u", 2), ("v", 1)],
];

fn settings() -> Settings {
    Settings {
        consumer: ConsumerSettings {
            assignment_interval_ms: 0,
            ..ConsumerSettings::default()
        },
        initial_rebalance_delay_ms: 0,
        max_size: 4,
        consumer_max_size: 4,
        ..Settings::default()
    }
}

fn topic_id(name: &str) -> TopicId {
    TopicId([name.as_bytes()[0]; 16])
}

fn instance(choices: &mut Choices<'_>) -> Option<Arc<str>> {
    match choices.below(6) {
        0 => Some(Arc::from("i")),
        1 => Some(Arc::from("j")),
        _ => None,
    }
}

fn text(choices: &mut Choices<'_>) -> Arc<str> {
    String::from_utf8_lossy(choices.bytes()).into()
}

/// Metadata that subscribes to topics, or any bytes.
fn metadata(choices: &mut Choices<'_>) -> Bytes {
    if choices.below(4) == 0 {
        return Bytes::copy_from_slice(choices.bytes());
    }
    let topic = [b't', b'u', b'v'][usize::from(choices.below(3))];
    Bytes::copy_from_slice(&[0, 0, 0, 0, 0, 1, 0, 1, topic, 0xff, 0xff, 0xff, 0xff])
}

impl World {
    fn new() -> World {
        let mut world = World {
            groups: Groups::new(settings(), 7),
            log: Vec::new(),
            topics: Arc::default(),
            monotonic_ms: 1_000,
            asked: 0,
            answered: BTreeSet::new(),
            told: BTreeMap::new(),
        };
        let decision = world.groups.recovered(world.now());
        world.perform(decision, None, None);
        world
    }

    fn now(&self) -> Now {
        Now {
            monotonic_ms: self.monotonic_ms,
            wall_ms: 1_700_000_000_000 + i64::try_from(self.monotonic_ms).expect("a short time"),
        }
    }

    fn end(&self) -> Offset {
        Offset(i64::try_from(self.log.len()).expect("a short log"))
    }

    fn step(&mut self, step: u8, choices: &mut Choices<'_>) {
        match step % 16 {
            0..=2 => self.beat(choices),
            3 | 4 => self.join(choices),
            5 => self.sync(choices),
            6 => {
                let (group, who, (member_id, generation)) = self.member(choices);
                let request = HeartbeatRequest {
                    group,
                    member_id,
                    instance_id: instance(choices),
                    generation,
                };
                self.ask(Command::Heartbeat(request), None, Some(who));
            }
            7 => self.leave(choices),
            8 | 9 => self.commit(choices),
            10 => {
                let producer_id = ProducerId(i64::from(choices.below(3)));
                let commit = choices.flag();
                self.groups.apply_marker(self.end(), producer_id, commit);
                self.log.push(Entry::Marker(producer_id, commit));
            }
            11 => self.fetch(choices),
            12 => self.remove(choices),
            13 => self.pass(u64::from(choices.byte()) * 300),
            14 => {
                let topics = TOPICS[usize::from(choices.below(4))].iter();
                let topics = topics.map(|(name, count)| (Arc::from(*name), topic_id(name), *count));
                self.topics = Arc::new(Topics::new(self.topics.generation() + 1, topics));
                self.groups.note_topics(&self.topics);
            }
            _ => self.restart(),
        }
    }

    /// A member: as it was told, or as nobody is.
    fn member(&self, choices: &mut Choices<'_>) -> (Arc<str>, u8, (Arc<str>, i32)) {
        let who = choices.below(6);
        let group = Arc::from(GROUPS[usize::from(who % 2)]);
        let told = self.told.get(&who).cloned();
        let member = match (choices.below(8), told) {
            (0..=5, Some(told)) => told,
            (6, Some((id, _))) => (id, choices.number()),
            (7, _) => (text(choices), choices.number()),
            _ => (Arc::default(), -1),
        };
        (group, who, member)
    }

    fn beat(&mut self, choices: &mut Choices<'_>) {
        let (group, who, (member_id, epoch)) = self.member(choices);
        let is_new = member_id.is_empty() || epoch < 0;
        let names = ["t", "u", "v"];
        let tells = is_new || choices.below(3) == 0;
        let owned = choices.below(3);
        let request = ConsumerHeartbeatRequest {
            group,
            member_id: if is_new {
                Arc::from(format!("member {who}"))
            } else {
                member_id
            },
            member_epoch: if is_new { 0 } else { epoch },
            instance_id: instance(choices),
            rack_id: None,
            client_id: Arc::from("c"),
            client_host: Arc::from("/127.0.0.1"),
            rebalance_timeout_ms: if tells { 5_000 } else { -1 },
            subscribed_topics: tells.then(|| {
                let count = usize::from(choices.below(4));
                names[..count].iter().map(|name| Arc::from(*name)).collect()
            }),
            subscribed_regex: None,
            assignor: (choices.below(8) == 0).then(|| Arc::from("range")),
            owned: (tells || owned > 0).then(|| {
                let mine = (0..i32::from(owned)).collect();
                BTreeMap::from([(topic_id("t"), mine)])
            }),
            topics: Arc::clone(&self.topics),
            settings: settings().consumer,
        };
        self.ask(
            Command::ConsumerHeartbeat(Box::new(request)),
            None,
            Some(who),
        );
    }

    fn join(&mut self, choices: &mut Choices<'_>) {
        let (group, who, (member_id, _)) = self.member(choices);
        let names = ["range", "roundrobin"];
        let count = 1 + usize::from(choices.below(2));
        let protocols = names[..count].iter();
        let protocols = protocols
            .map(|name| (Arc::from(*name), metadata(choices)))
            .collect();
        let request = JoinRequest {
            group,
            member_id,
            instance_id: instance(choices),
            client_id: Arc::from("c"),
            client_host: Arc::from("/127.0.0.1"),
            session_timeout_ms: 6_000 + i32::from(choices.byte()) * 10,
            rebalance_timeout_ms: 8_000,
            protocol_type: Arc::from(
                ["consumer", "consumer", "connect"][usize::from(choices.below(3))],
            ),
            protocols,
            new_member: [NewMember::Add, NewMember::AskToReturn][usize::from(choices.below(2))],
            returning_member: if choices.flag() {
                ReturningMember::ToldOldLeader
            } else {
                ReturningMember::ToldToSkipAssignment
            },
            new_member_id: Arc::from(format!("new {}", self.asked)),
            topics: Arc::clone(&self.topics),
        };
        self.ask(Command::Join(request), None, Some(who));
    }

    fn sync(&mut self, choices: &mut Choices<'_>) {
        let (group, who, (member_id, generation)) = self.member(choices);
        let mut assignments = vec![(Arc::clone(&member_id), metadata(choices))];
        if choices.flag() {
            assignments.push((text(choices), metadata(choices)));
        }
        let request = SyncRequest {
            group,
            member_id,
            instance_id: instance(choices),
            generation,
            protocol_type: choices.flag().then(|| Arc::from("consumer")),
            protocol: choices.flag().then(|| Arc::from("range")),
            assignments,
        };
        self.ask(Command::Sync(request), None, Some(who));
    }

    fn leave(&mut self, choices: &mut Choices<'_>) {
        let (group, who, (member_id, _)) = self.member(choices);
        let members = vec![LeavingMember {
            member_id,
            instance_id: instance(choices),
        }];
        self.told.remove(&who);
        self.ask(
            Command::Leave(LeaveRequest { group, members }),
            None,
            Some(who),
        );
    }

    fn commit(&mut self, choices: &mut Choices<'_>) {
        let (group, who, (member_id, generation)) = self.member(choices);
        let name = ["t", "u"][usize::from(choices.below(2))];
        let offsets = vec![OffsetToCommit {
            topic: Arc::from(name),
            topic_id: topic_id(name),
            partition: i32::from(choices.below(3)),
            offset: i64::from(choices.number()),
            leader_epoch: choices.number(),
            metadata: text(choices),
        }];
        let instance_id = instance(choices);
        if choices.flag() {
            let request = TransactionalCommitRequest {
                group,
                member_id,
                instance_id,
                generation,
                offsets,
            };
            let producer = ProducerId(i64::from(choices.below(3)));
            let command = Command::CommitTransactionalOffsets(request);
            self.ask(command, Some(producer), Some(who));
            return;
        }
        let request = CommitRequest {
            group,
            member_id,
            instance_id,
            generation,
            on_absent_group: if choices.flag() {
                AbsentGroup::IllegalGeneration
            } else {
                AbsentGroup::GroupIdNotFound
            },
            retention_ms: choices.flag().then_some(10_000),
            offsets,
        };
        self.ask(Command::CommitOffsets(request), None, Some(who));
    }

    fn fetch(&mut self, choices: &mut Choices<'_>) {
        let (group, who, member) = self.member(choices);
        let topics = choices.flag().then(|| {
            vec![TopicToFetch {
                topic: Arc::from("t"),
                topic_id: topic_id("t"),
                partitions: vec![i32::from(choices.below(4)), choices.number()],
            }]
        });
        let request = FetchRequest {
            group,
            topics,
            require_stable: choices.flag(),
            member: choices.flag().then_some(member),
        };
        self.ask(Command::FetchOffsets(request), None, Some(who));
    }

    fn remove(&mut self, choices: &mut Choices<'_>) {
        let group: Arc<str> = Arc::from(GROUPS[usize::from(choices.below(2))]);
        let topic: Arc<str> = Arc::from("t");
        let command = match choices.below(3) {
            0 => Command::DeleteGroup { group },
            1 => Command::DeleteOffsets(DeleteOffsetsRequest {
                group,
                partitions: vec![(topic, i32::from(choices.below(3)))],
            }),
            _ => Command::TopicDeleted {
                topic_id: topic_id(&topic),
                topic,
            },
        };
        self.ask(command, None, None);
    }

    fn pass(&mut self, ms: u64) {
        let until = self.monotonic_ms + ms;
        for _ in 0..1000 {
            let due = self.groups.next_deadline_ms().filter(|at| *at <= until);
            let Some(at) = due else {
                self.monotonic_ms = until;
                return;
            };
            self.monotonic_ms = self.monotonic_ms.max(at);
            let decision = self.groups.expire(self.now());
            self.perform(decision, None, None);
        }
        panic!("something is due again and again");
    }

    fn ask(&mut self, command: Command, producer: Option<ProducerId>, who: Option<u8>) {
        self.asked += 1;
        let may_write = command.may_write();
        let decision = self.groups.decide(self.now(), command, ReplyTo(self.asked));
        assert!(may_write || decision.records.is_empty(), "it may not write");
        self.perform(decision, producer, who);
    }

    fn perform(&mut self, decision: Decision, producer: Option<ProducerId>, who: Option<u8>) {
        for record in decision.records {
            let with_epoch = producer.map(|producer_id| (producer_id, ProducerEpoch(0)));
            self.groups.apply(self.end(), &record, with_epoch);
            self.log.push(Entry::Record(record, producer));
        }
        for effect in decision.effects {
            let Effect::Reply { to, response } = effect;
            assert!(self.answered.insert(to.0), "{to:?} is answered twice");
            let told = match response {
                Response::Join(response) => Some((response.member_id, response.generation)),
                Response::ConsumerHeartbeat(response) => {
                    Some((response.member_id, response.member_epoch))
                }
                _ => None,
            };
            if let (Some(who), Some(told)) = (who.filter(|_| to.0 == self.asked), told)
                && !told.0.is_empty()
            {
                self.told.insert(who, told);
            }
        }
    }

    /// A start: what was parked is gone, and the log is read again, as bytes.
    fn restart(&mut self) {
        let mut groups = Groups::new(settings(), 8);
        for (entry, at) in self.log.iter().zip(0..) {
            match entry {
                Entry::Record(record, producer) => {
                    let (key, value) = (record.encode_key(), record.encode_value());
                    let read = OffsetsRecord::decode(&key, value.as_deref());
                    let read = read.expect("it was written").expect("its type is known");
                    assert_eq!(read, *record, "as it was written");
                    let producer = producer.map(|producer_id| (producer_id, ProducerEpoch(0)));
                    groups.apply(Offset(at), &read, producer);
                }
                Entry::Marker(producer_id, commit) => {
                    groups.apply_marker(Offset(at), *producer_id, *commit);
                }
            }
        }
        assert_eq!(groups.stored(), self.groups.stored(), "replay");
        self.groups = groups;
        self.groups.note_topics(&self.topics);
        let decision = self.groups.recovered(self.now());
        self.perform(decision, None, None);
        self.groups.check_invariants();
    }
}
