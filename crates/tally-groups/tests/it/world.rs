//! A broker's part around the core: a clock moved by hand, a log that takes everything, replies kept until asked for.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use tally_groups::{
    AbsentGroup, Command, CommitRequest, ConsumerHeartbeatRequest, ConsumerHeartbeatResponse,
    ConsumerSettings, Decision, Effect, FetchRequest, FetchedOffset, Groups, HeartbeatRequest,
    JoinRequest, JoinResponse, LeaveRequest, LeavingMember, NewMember, OffsetToCommit, ReplyTo,
    Response, ReturningMember, Settings, SyncRequest, SyncResponse, TopicToFetch, Topics,
    TransactionalCommitRequest,
};
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::{ErrorCode, Now, Offset, ProducerEpoch, ProducerId, TopicId};

/// Wall clock at monotonic time 0.
pub(crate) const WALL_START_MS: i64 = 1_700_000_000_000;

/// An entry of the log.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Record(OffsetsRecord, Option<ProducerId>),
    Marker(ProducerId, bool),
}

pub(crate) struct World {
    pub(crate) groups: Groups,
    pub(crate) log: Vec<Entry>,
    pub(crate) topics: Arc<Topics>,
    settings: Settings,
    monotonic_ms: u64,
    asked: u64,
    replies: BTreeMap<u64, Vec<Response>>,
}

/// A request that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked(u64);

pub(crate) fn settings() -> Settings {
    Settings {
        consumer: ConsumerSettings {
            assignment_interval_ms: 0,
            ..ConsumerSettings::default()
        },
        initial_rebalance_delay_ms: 0,
        ..Settings::default()
    }
}

impl World {
    pub(crate) fn new() -> World {
        World::with(settings())
    }

    pub(crate) fn with(settings: Settings) -> World {
        let mut world = World {
            groups: Groups::new(settings, 7),
            log: Vec::new(),
            topics: Arc::default(),
            settings,
            monotonic_ms: 1_000,
            asked: 0,
            replies: BTreeMap::new(),
        };
        let decision = world.groups.recovered(world.now());
        world.perform(decision, None);
        world
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            monotonic_ms: self.monotonic_ms,
            wall_ms: WALL_START_MS + i64::try_from(self.monotonic_ms).expect("tests are short"),
        }
    }

    pub(crate) fn send(&mut self, command: Command) -> Asked {
        self.send_as(command, None)
    }

    fn send_as(&mut self, command: Command, producer: Option<ProducerId>) -> Asked {
        self.asked += 1;
        let may_write = command.may_write();
        let decision = self.groups.decide(self.now(), command, ReplyTo(self.asked));
        assert!(may_write || decision.records.is_empty());
        self.perform(decision, producer);
        Asked(self.asked)
    }

    fn perform(&mut self, decision: Decision, producer: Option<ProducerId>) {
        for record in decision.records {
            let at = self.end();
            let with_epoch = producer.map(|producer_id| (producer_id, ProducerEpoch(0)));
            self.groups.apply(at, &record, with_epoch);
            self.log.push(Entry::Record(record, producer));
        }
        for effect in decision.effects {
            let Effect::Reply { to, response } = effect;
            self.replies.entry(to.0).or_default().push(response);
        }
        self.groups.check_invariants();
    }

    fn end(&self) -> Offset {
        Offset(i64::try_from(self.log.len()).expect("tests are short"))
    }

    pub(crate) fn marker(&mut self, producer: i64, commit: bool) {
        let producer_id = ProducerId(producer);
        self.groups.apply_marker(self.end(), producer_id, commit);
        self.log.push(Entry::Marker(producer_id, commit));
        self.groups.check_invariants();
    }

    /// Moves the clock, stopping at each deadline on the way.
    pub(crate) fn advance(&mut self, by_ms: u64) {
        let until_ms = self.monotonic_ms + by_ms;
        while let Some(deadline_ms) = self.groups.next_deadline_ms()
            && deadline_ms <= until_ms
        {
            self.monotonic_ms = self.monotonic_ms.max(deadline_ms);
            self.expire();
        }
        self.monotonic_ms = until_ms;
    }

    fn expire(&mut self) {
        let decision = self.groups.expire(self.now());
        self.perform(decision, None);
    }

    /// A crash: what replies were parked is gone, and the log is read again, as bytes.
    pub(crate) fn restart(&mut self) {
        let mut groups = Groups::new(self.settings, 8);
        for (entry, at) in self.log.iter().zip(0..) {
            match entry {
                Entry::Record(record, producer) => {
                    let (key, value) = (record.encode_key(), record.encode_value());
                    let read = OffsetsRecord::decode(&key, value.as_deref());
                    let record = read.expect("it was written").expect("its type is known");
                    let producer = producer.map(|producer_id| (producer_id, ProducerEpoch(0)));
                    groups.apply(Offset(at), &record, producer);
                }
                Entry::Marker(producer_id, commit) => {
                    groups.apply_marker(Offset(at), *producer_id, *commit);
                }
            }
        }
        assert_eq!(
            groups.stored(),
            self.groups.stored(),
            "hard state equals the replay of the log"
        );
        self.groups = groups;
        self.groups.note_topics(&self.topics);
        let decision = self.groups.recovered(self.now());
        self.perform(decision, None);
    }

    /// The log refuses what the group wanted to write.
    pub(crate) fn refuse(&mut self, command: Command) -> Decision {
        self.asked += 1;
        let refused = self.groups.decide(self.now(), command, ReplyTo(self.asked));
        let decision = self.groups.refused(self.now(), "g");
        self.perform(decision, None);
        refused
    }

    pub(crate) fn replies(&mut self, asked: Asked) -> Vec<Response> {
        self.replies.remove(&asked.0).unwrap_or_default()
    }

    /// The one reply; `None` while it is parked.
    #[track_caller]
    pub(crate) fn reply(&mut self, asked: Asked) -> Option<Response> {
        let mut replies = self.replies(asked);
        assert!(replies.len() <= 1, "answered {} times", replies.len());
        replies.pop()
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, command: Command) -> Response {
        let asked = self.send(command);
        self.reply(asked).expect("it is answered at once")
    }

    /// The topics from now on, each with its number of partitions; the first letter is the id.
    pub(crate) fn set_topics(&mut self, topics: &[(&str, i32)]) {
        let topics = topics.iter();
        let topics = topics.map(|(name, count)| (Arc::from(*name), topic_id(name), *count));
        self.topics = Arc::new(Topics::new(self.topics.generation() + 1, topics));
    }

    /// ConsumerGroupHeartbeat, with the topics there are.
    #[track_caller]
    pub(crate) fn beat(&mut self, request: ConsumerHeartbeatRequest) -> ConsumerHeartbeatResponse {
        let request = ConsumerHeartbeatRequest {
            topics: Arc::clone(&self.topics),
            ..request
        };
        match self.ask(Command::ConsumerHeartbeat(Box::new(request))) {
            Response::ConsumerHeartbeat(response) => response,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn join(&mut self, request: JoinRequest) -> JoinResponse {
        let request = JoinRequest {
            topics: Arc::clone(&self.topics),
            ..request
        };
        let asked = self.send(Command::Join(request));
        self.joined(asked)
    }

    #[track_caller]
    pub(crate) fn joined(&mut self, asked: Asked) -> JoinResponse {
        match self.reply(asked) {
            Some(Response::Join(response)) => response,
            other => panic!("no answer to a join: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn synced(&mut self, asked: Asked) -> SyncResponse {
        match self.reply(asked) {
            Some(Response::Sync(response)) => response,
            other => panic!("no answer to a sync: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn sync(&mut self, request: SyncRequest) -> SyncResponse {
        let asked = self.send(Command::Sync(request));
        self.synced(asked)
    }

    #[track_caller]
    pub(crate) fn heartbeat(&mut self, member_id: &str, generation: i32) -> i16 {
        match self.ask(Command::Heartbeat(heartbeat(member_id, generation))) {
            Response::Heartbeat(code) => code.code(),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn commit(&mut self, request: CommitRequest) -> Vec<i16> {
        match self.ask(Command::CommitOffsets(request)) {
            Response::CommitOffsets(codes) => codes.into_iter().map(ErrorCode::code).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn txn_commit(
        &mut self,
        producer: i64,
        request: TransactionalCommitRequest,
    ) -> Vec<i16> {
        let command = Command::CommitTransactionalOffsets(request);
        let asked = self.send_as(command, Some(ProducerId(producer)));
        match self.reply(asked) {
            Some(Response::CommitTransactionalOffsets(codes)) => {
                codes.into_iter().map(ErrorCode::code).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn leave(&mut self, members: Vec<LeavingMember>) -> Vec<i16> {
        let group = Arc::from("g");
        match self.ask(Command::Leave(LeaveRequest { group, members })) {
            Response::Leave(response) => {
                assert_eq!(response.error, ErrorCode::None);
                let codes = response.members.iter().map(|member| member.error.code());
                codes.collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// The committed offset of `t`-0 of group `g`: offset and error.
    #[track_caller]
    pub(crate) fn offset(&mut self, require_stable: bool) -> (i64, i16) {
        let fetched = self.fetch(0, require_stable);
        (fetched.offset, fetched.error.code())
    }

    #[track_caller]
    pub(crate) fn fetch(&mut self, partition: i32, require_stable: bool) -> FetchedOffset {
        let topic = TopicToFetch {
            topic: Arc::from("t"),
            topic_id: TopicId::ZERO,
            partitions: vec![partition],
        };
        let command = Command::FetchOffsets(FetchRequest {
            group: Arc::from("g"),
            topics: Some(vec![topic]),
            require_stable,
            member: None,
        });
        match self.ask(command) {
            Response::FetchOffsets(mut response) => response.topics.remove(0).partitions.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// A member that is alone in a Stable group, with an assignment of its own.
    pub(crate) fn stable(&mut self, member_id: &str) -> JoinResponse {
        let joined = self.join(join(member_id));
        assert_eq!(joined.error, ErrorCode::None);
        let synced = self.sync(sync(member_id, joined.generation, &[(member_id, "all")]));
        assert_eq!(&synced.assignment[..], b"all");
        joined
    }

    /// Two members in a Stable group of generation 2: `m1`, the leader, and `m2`.
    pub(crate) fn stable_pair(&mut self) {
        self.stable("m1");
        self.add_to_stable("m2");
        assert_eq!(self.state(), "Stable");
    }

    /// One more member of a Stable group that `m1` leads and is alone in.
    fn add_to_stable(&mut self, member_id: &str) {
        let newcomer = self.send(Command::Join(join(member_id)));
        let leader = self.join(rejoin("m1"));
        let joined = self.joined(newcomer);
        assert_eq!(joined.generation, leader.generation);
        let newcomer = self.send(Command::Sync(sync(member_id, joined.generation, &[])));
        let assignments = [("m1", "one"), (member_id, "two")];
        self.sync(sync("m1", joined.generation, &assignments));
        self.synced(newcomer);
    }

    pub(crate) fn state(&self) -> &'static str {
        if let Some(description) = self.groups.describe_consumer("g") {
            return description.state.name();
        }
        self.groups
            .describe("g")
            .map_or("absent", |description| description.state.name())
    }

    pub(crate) fn member_ids(&self) -> Vec<String> {
        let description = self.groups.describe("g").expect("the group is there");
        let ids = description.members.iter();
        ids.map(|member| member.member_id.to_string()).collect()
    }
}

/// A new member of group `g` as v3 would make it; its id will be `member_id`.
pub(crate) fn join(member_id: &str) -> JoinRequest {
    JoinRequest {
        group: Arc::from("g"),
        member_id: Arc::default(),
        instance_id: None,
        client_id: Arc::from("c"),
        client_host: Arc::from("/127.0.0.1"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        protocol_type: Arc::from("consumer"),
        protocols: protocols(&["range"]),
        new_member: NewMember::Add,
        returning_member: ReturningMember::ToldToSkipAssignment,
        new_member_id: Arc::from(member_id),
        topics: Arc::default(),
    }
}

/// The id of a topic of this name.
pub(crate) fn topic_id(name: &str) -> TopicId {
    let mut id = [0; 16];
    let bytes = name.as_bytes();
    id[..bytes.len()].copy_from_slice(bytes);
    TopicId(id)
}

/// A heartbeat of group `g` that says nothing new.
pub(crate) fn beat(member_id: &str, member_epoch: i32) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest {
        group: Arc::from("g"),
        member_id: Arc::from(member_id),
        member_epoch,
        instance_id: None,
        rack_id: None,
        client_id: Arc::from("c"),
        client_host: Arc::from("/127.0.0.1"),
        rebalance_timeout_ms: -1,
        subscribed_topics: None,
        subscribed_regex: None,
        assignor: None,
        owned: None,
        topics: Arc::default(),
        settings: ConsumerSettings {
            assignment_interval_ms: 0,
            ..ConsumerSettings::default()
        },
    }
}

/// A known member of group `g`.
pub(crate) fn rejoin(member_id: &str) -> JoinRequest {
    JoinRequest {
        member_id: Arc::from(member_id),
        new_member_id: Arc::from("unused"),
        ..join("unused")
    }
}

/// Protocols of these names, each with its name as metadata.
pub(crate) fn protocols(names: &[&str]) -> Vec<(Arc<str>, Bytes)> {
    let protocol = |name: &&str| (Arc::from(*name), Bytes::copy_from_slice(name.as_bytes()));
    names.iter().map(protocol).collect()
}

/// Consumer metadata that subscribes to these topics.
pub(crate) fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 1];
    let count = u32::try_from(topics.len()).expect("tests are short");
    bytes.extend(count.to_be_bytes());
    for topic in topics {
        let length = u16::try_from(topic.len()).expect("tests are short");
        bytes.extend(length.to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend([0xff; 4]);
    Bytes::from(bytes)
}

pub(crate) fn sync(member_id: &str, generation: i32, assignments: &[(&str, &str)]) -> SyncRequest {
    let assignment = |(member_id, assignment): &(&str, &str)| {
        let bytes = Bytes::copy_from_slice(assignment.as_bytes());
        (Arc::from(*member_id), bytes)
    };
    SyncRequest {
        group: Arc::from("g"),
        member_id: Arc::from(member_id),
        instance_id: None,
        generation,
        protocol_type: None,
        protocol: None,
        assignments: assignments.iter().map(assignment).collect(),
    }
}

pub(crate) fn heartbeat(member_id: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest {
        group: Arc::from("g"),
        member_id: Arc::from(member_id),
        instance_id: None,
        generation,
    }
}

pub(crate) fn leaving(member_id: &str) -> LeavingMember {
    LeavingMember {
        member_id: Arc::from(member_id),
        instance_id: None,
    }
}

/// Offset `offset` of `t`-0.
pub(crate) fn offset(offset: i64) -> OffsetToCommit {
    OffsetToCommit {
        topic: Arc::from("t"),
        topic_id: TopicId([1; 16]),
        partition: 0,
        offset,
        leader_epoch: 5,
        metadata: Arc::from("note"),
    }
}

/// A commit of `t`-0 by a member of `g`; "" and -1: by nobody.
pub(crate) fn commit(member_id: &str, generation: i32, at: i64) -> CommitRequest {
    CommitRequest {
        group: Arc::from("g"),
        member_id: Arc::from(member_id),
        instance_id: None,
        generation,
        on_absent_group: AbsentGroup::GroupIdNotFound,
        retention_ms: None,
        offsets: vec![offset(at)],
    }
}

/// The same in a transaction.
pub(crate) fn txn_commit(member_id: &str, generation: i32, at: i64) -> TransactionalCommitRequest {
    TransactionalCommitRequest {
        group: Arc::from("g"),
        member_id: Arc::from(member_id),
        instance_id: None,
        generation,
        offsets: vec![offset(at)],
    }
}
