//! The clients: each has one request under way, and asks again when the answer is lost or says so, as real ones do.

use crate::model::{Ended, Model, coordinator};
use crate::world::{OFFSETS, World};
use bytes::BytesMut;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tally_groups as groups;
use tally_producer_state::{Guard, Verification};
use tally_protocol::build::BatchBuilder;
use tally_protocol::{ErrorCode, PartitionId, ProducerEpoch, ProducerId, Sequence};
use tally_shard::{AppendOutcome, AppendRefusal, ShardMessage, ShardReply};
use tally_testkit::seed::Seed;
use tally_transactions as transactions;
use tally_transactions::TopicPartition;

type Pair = (ProducerId, ProducerEpoch);

/// Answers after which the same request is sent again.
fn is_passing(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::KafkaStorageError
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::ConcurrentTransactions
    )
}

/// Batches of one client: every value is sent once, under one sequence, however often.
struct Values {
    name: String,
    next: u64,
    sequences: BTreeMap<PartitionId, i32>,
}

/// A batch on its way.
#[derive(Clone)]
struct Batch {
    partition: PartitionId,
    values: Vec<String>,
    sequence: i32,
    padding: usize,
}

impl Values {
    fn new(name: &str) -> Values {
        Values {
            name: name.to_owned(),
            next: 0,
            sequences: BTreeMap::new(),
        }
    }

    fn batch(&mut self, partition: PartitionId, model: &mut Model, seed: &mut Seed) -> Batch {
        let count = 1 + seed.below(3);
        let values: Vec<String> = (0..count)
            .map(|_| {
                self.next += 1;
                format!("{}:{}", self.name, self.next)
            })
            .collect();
        for value in &values {
            model.sent.insert(value.clone(), partition);
        }
        let sequence = self.sequences.entry(partition).or_insert(0);
        let first = *sequence;
        *sequence += i32::try_from(count).expect("small");
        let padding = [0, 10, 200, 900][seed.index(4)];
        Batch {
            partition,
            values,
            sequence: first,
            padding,
        }
    }
}

impl Batch {
    fn bytes(&self, (id, epoch): Pair, transactional: bool, wall_ms: i64) -> BytesMut {
        let mut builder = BatchBuilder::new(wall_ms).producer(id, epoch, Sequence(self.sequence));
        if transactional {
            builder = builder.transactional();
        }
        for value in &self.values {
            let text = format!("{value} {}", "x".repeat(self.padding));
            builder.push(Some(b"key"), Some(text.as_bytes()));
        }
        builder.finish()
    }

    fn placed(&self, outcome: &AppendOutcome) -> Vec<(PartitionId, String, i64)> {
        let offsets = outcome.base_offset.0..;
        let values = self.values.iter().zip(offsets);
        values
            .map(|(value, offset)| (self.partition, value.clone(), offset))
            .collect()
    }
}

fn some_partition(world: &World, seed: &mut Seed) -> (String, i32) {
    let mut choices: Vec<(String, i32)> = Vec::new();
    for name in ["a", "b"] {
        let partitions = world.topics.get(name).map_or(0, |topic| topic.partitions);
        choices.extend((0..partitions).map(|index| (name.to_owned(), index)));
    }
    choices[seed.index(choices.len())].clone()
}

/// Somebody who asks.
pub(crate) trait Client {
    /// The next request, if there is one to make now.
    fn ask(&mut self, world: &mut World, model: &mut Model, seed: &mut Seed) -> Option<u64>;
    /// Its answer; `None`: there will be none.
    fn answered(&mut self, reply: Option<ShardReply>, world: &World, model: &mut Model);
}

/// An idempotent producer.
pub(crate) struct Writer {
    values: Values,
    id: Option<i64>,
    flying: Option<Batch>,
}

impl Writer {
    pub(crate) fn new(name: &str) -> Writer {
        Writer {
            values: Values::new(name),
            id: None,
            flying: None,
        }
    }
}

impl Client for Writer {
    fn ask(&mut self, world: &mut World, model: &mut Model, seed: &mut Seed) -> Option<u64> {
        if self.id.is_none() {
            self.id = world.producer_id().ok();
            self.values.sequences.clear();
        }
        let pair = (ProducerId(self.id?), ProducerEpoch(0));
        if self.flying.is_none() {
            let (topic, index) = some_partition(world, seed);
            let partition = world.partition_id(&topic, index)?;
            self.flying = Some(self.values.batch(partition, model, seed));
        }
        let flying = self.flying.as_ref()?;
        let batch = flying.bytes(pair, false, world.now.wall_ms);
        Some(world.ask(flying.partition, |to| ShardMessage::Append {
            batch,
            guard: None,
            to,
        }))
    }

    fn answered(&mut self, reply: Option<ShardReply>, _: &World, model: &mut Model) {
        let Some(ShardReply::Append(outcome)) = reply else {
            return;
        };
        match outcome {
            Ok(outcome) => {
                let flying = self.flying.take().expect("it was sent");
                model.produced.extend(flying.placed(&outcome));
            }
            Err(AppendRefusal { code, .. }) if is_passing(code) => {}
            Err(AppendRefusal { code, .. }) => {
                self.flying = None;
                if code != ErrorCode::UnknownTopicOrPartition {
                    self.id = None;
                }
            }
        }
    }
}

/// Commits offsets without a transaction.
pub(crate) struct Committer {
    group: String,
    flying: Option<i64>,
    last: i64,
    /// What is there of the input.
    input: i64,
}

impl Committer {
    pub(crate) fn new(group: &str) -> Committer {
        Committer {
            group: group.to_owned(),
            flying: None,
            last: 0,
            input: 0,
        }
    }
}

fn may<'a>(model: &'a mut Model, group: &str) -> &'a mut Vec<i64> {
    let key = (group.to_owned(), 0);
    model.offsets.entry(key).or_insert_with(|| vec![-1])
}

/// An offset is asked for, once more perhaps.
fn may_be(model: &mut Model, group: &str, offset: i64) {
    let may = may(model, group);
    if !may.contains(&offset) {
        may.push(offset);
    }
}

fn offset_to_commit(world: &World, offset: i64) -> groups::OffsetToCommit {
    groups::OffsetToCommit {
        topic: Arc::from("a"),
        topic_id: world.topics["a"].id,
        partition: 0,
        offset,
        leader_epoch: -1,
        metadata: Arc::from("m"),
    }
}

impl Client for Committer {
    fn ask(&mut self, world: &mut World, model: &mut Model, seed: &mut Seed) -> Option<u64> {
        if self.flying.is_none() {
            self.last += 1 + i64::try_from(seed.below(3)).expect("small");
            self.flying = Some(self.last);
        }
        may_be(model, &self.group, self.flying?);
        self.input = model.input_of(world, self.flying?);
        world.secure(world.partition_id("a", 0)?, self.flying?);
        let command = groups::Command::CommitOffsets(groups::CommitRequest {
            group: Arc::from(&*self.group),
            member_id: Arc::from(""),
            instance_id: None,
            generation: -1,
            on_absent_group: groups::AbsentGroup::IllegalGeneration,
            retention_ms: None,
            offsets: vec![offset_to_commit(world, self.flying?)],
        });
        let id = world.partition_id(OFFSETS, 0)?;
        Some(world.ask(id, |to| ShardMessage::Group {
            command,
            size_bytes: 200,
            to,
        }))
    }

    fn answered(&mut self, reply: Option<ShardReply>, _: &World, model: &mut Model) {
        if let Some(ShardReply::Group(Ok(groups::Response::CommitOffsets(codes)))) = reply {
            assert_eq!(codes, [ErrorCode::None]);
            *may(model, &self.group) = vec![self.flying.take().expect("it was sent")];
            model.input = model.input.max(self.input);
        }
    }
}

enum Step {
    Append { topic: String, index: i32 },
    Offsets(i64),
    End(bool),
}

/// Where the first step of the plan stands.
enum At {
    Init,
    Join,
    Begin,
    Verify(Guard),
    Append(Option<Guard>),
    End,
}

/// A transactional producer.
pub(crate) struct Transactor {
    id: String,
    is_v2: bool,
    values: Values,
    pair: Option<Pair>,
    plan: VecDeque<Step>,
    at: At,
    flying: Option<Batch>,
    /// What was appended in this transaction.
    placed: Vec<(PartitionId, String, i64)>,
    offset: Option<i64>,
    last_offset: i64,
    /// What was there of its input.
    input: i64,
    has_joined: bool,
    /// The number under which the model keeps the end that was asked for.
    ending: Option<usize>,
}

impl Transactor {
    pub(crate) fn new(id: &str, is_v2: bool) -> Transactor {
        Transactor {
            id: id.to_owned(),
            is_v2,
            values: Values::new(id),
            pair: None,
            plan: VecDeque::new(),
            at: At::Init,
            flying: None,
            placed: Vec::new(),
            offset: None,
            last_offset: 0,
            input: 0,
            has_joined: false,
            ending: None,
        }
    }

    fn group(&self) -> String {
        format!("g-{}", self.id)
    }

    fn flow(&self) -> transactions::Flow {
        if self.is_v2 {
            transactions::Flow::Tv2
        } else {
            transactions::Flow::Tv1
        }
    }

    /// Begins anew; what becomes of the transaction is the coordinator's business.
    fn start_over(&mut self) {
        self.at = At::Init;
        self.plan.clear();
        self.flying = None;
    }

    fn make_plan(&mut self, world: &World, seed: &mut Seed) {
        for _ in 0..1 + seed.below(3) {
            let (topic, index) = some_partition(world, seed);
            self.plan.push_back(Step::Append { topic, index });
        }
        if seed.percent(40) {
            self.last_offset += 1;
            self.plan.push_back(Step::Offsets(self.last_offset));
        }
        self.plan.push_back(Step::End(seed.percent(70)));
        self.at = At::Join;
    }

    /// The name of the partition of the first step.
    fn target(&self) -> Option<TopicPartition> {
        let (topic, partition) = match self.plan.front()? {
            Step::Append { topic, index } => (topic.as_str(), *index),
            Step::Offsets(_) => (OFFSETS, 0),
            Step::End(_) => return None,
        };
        Some(TopicPartition {
            topic: Arc::from(topic),
            partition,
        })
    }

    fn next_step(&mut self) {
        self.plan.pop_front();
        self.flying = None;
        self.at = match self.plan.front() {
            Some(Step::End(_)) => At::End,
            _ => At::Join,
        };
    }

    fn command(&self, command: transactions::Command, world: &mut World) -> u64 {
        let id = coordinator(world, &self.id);
        world.ask(id, |to| ShardMessage::Transaction { command, to })
    }

    fn ask_end(&mut self, pair: Pair, world: &mut World, model: &mut Model) -> Option<u64> {
        let Some(Step::End(commit)) = self.plan.front() else {
            return None;
        };
        let commit = *commit;
        if self.ending.is_none() {
            self.ending = Some(model.ending.len() + model.ended.len() * 1000 + 1);
        }
        if commit && let Some(offset) = self.offset {
            may_be(model, &self.group(), offset);
        }
        let number = self.ending?;
        model.ending.insert(number, self.placed.clone());
        let command = transactions::Command::EndTxn {
            transactional_id: Arc::from(&*self.id),
            producer_id: pair.0,
            producer_epoch: pair.1,
            commit,
            flow: self.flow(),
        };
        Some(self.command(command, world))
    }

    fn ask_append(
        &mut self,
        pair: Pair,
        guard: Option<Guard>,
        world: &mut World,
        model: &Model,
    ) -> Option<u64> {
        if let Some(Step::Offsets(offset)) = self.plan.front() {
            self.input = model.input_of(world, *offset);
            world.secure(world.partition_id("a", 0)?, *offset);
            let command =
                groups::Command::CommitTransactionalOffsets(groups::TransactionalCommitRequest {
                    group: Arc::from(self.group()),
                    member_id: Arc::from(""),
                    instance_id: None,
                    generation: -1,
                    offsets: vec![offset_to_commit(world, *offset)],
                });
            let id = world.partition_id(OFFSETS, 0)?;
            return Some(world.ask(id, |to| ShardMessage::TransactionalOffsets {
                command,
                producer_id: pair.0,
                producer_epoch: pair.1,
                guard,
                size_bytes: 200,
                to,
            }));
        }
        let flying = self.flying.as_ref()?;
        let batch = flying.bytes(pair, true, world.now.wall_ms);
        Some(world.ask(flying.partition, |to| ShardMessage::Append {
            batch,
            guard,
            to,
        }))
    }

    fn ask_join(&mut self, pair: Pair, verify: bool, world: &mut World) -> u64 {
        let (transactional_id, (producer_id, producer_epoch)) = (Arc::from(&*self.id), pair);
        let partitions = vec![self.target().expect("a step with a partition")];
        let command = if verify {
            transactions::Command::VerifyPartitions {
                transactional_id,
                producer_id,
                producer_epoch,
                partitions,
            }
        } else {
            self.has_joined = true;
            transactions::Command::AddPartitions {
                transactional_id,
                producer_id,
                producer_epoch,
                partitions,
                flow: self.flow(),
            }
        };
        self.command(command, world)
    }

    fn ask_begin(&mut self, pair: Pair, world: &mut World) -> Option<u64> {
        let target = self.target()?;
        let (id, base_sequence) = match &self.flying {
            Some(batch) => (batch.partition, Sequence(batch.sequence)),
            None => (world.partition_id(&target.topic, 0)?, Sequence::NONE),
        };
        let flow = if self.is_v2 {
            tally_producer_state::Flow::Tv2
        } else {
            tally_producer_state::Flow::Tv1
        };
        Some(world.ask(id, |to| ShardMessage::BeginVerification {
            producer_id: pair.0,
            producer_epoch: pair.1,
            base_sequence,
            flow,
            to,
        }))
    }

    fn began_anew(&mut self, pair: Pair, model: &mut Model) {
        // What was not told to end is aborted by now; what was may have ended either way.
        if self.ending.take().is_none() && !self.placed.is_empty() {
            model.ended.push(Ended {
                commit: false,
                values: std::mem::take(&mut self.placed),
            });
        }
        self.begin(pair, model);
    }

    fn begin(&mut self, pair: Pair, model: &mut Model) {
        if self.pair != Some(pair) {
            self.values.sequences.clear();
        }
        self.pair = Some(pair);
        model.ids.insert(self.id.clone(), (pair.0.0, pair.1.0));
        self.placed.clear();
        self.plan.clear();
        self.offset = None;
        self.has_joined = false;
        self.ending = None;
        self.at = At::Join;
    }

    fn ended(&mut self, pair: Pair, model: &mut Model) {
        let Some(Step::End(commit)) = self.plan.pop_front() else {
            return;
        };
        if let Some(number) = self.ending {
            model.ending.remove(&number);
        }
        model.ended.push(Ended {
            commit,
            values: std::mem::take(&mut self.placed),
        });
        if commit && let Some(offset) = self.offset {
            *may(model, &self.group()) = vec![offset];
            model.input = model.input.max(self.input);
        }
        self.begin(pair, model);
    }

    fn refused(&mut self, code: ErrorCode) {
        match code {
            code if is_passing(code) => {}
            ErrorCode::UnknownTopicOrPartition => self.next_step(),
            _ => self.start_over(),
        }
    }

    fn transaction_answered(&mut self, response: transactions::Response, model: &mut Model) {
        match response {
            transactions::Response::InitProducerId(Ok(pair)) => self.began_anew(pair, model),
            transactions::Response::HandedOver { .. } => panic!("nobody asked for that"),
            transactions::Response::EndTxn(Ok(pair)) => self.ended(pair, model),
            transactions::Response::AddPartitions(ErrorCode::None) => self.at = At::Begin,
            transactions::Response::VerifyPartitions(Ok(partitions)) => {
                let At::Verify(guard) = self.at else { return };
                match partitions[0].1 {
                    ErrorCode::None => self.at = At::Append(Some(guard)),
                    code => self.refused(code),
                }
            }
            transactions::Response::InitProducerId(Err(code))
            | transactions::Response::EndTxn(Err(code))
            | transactions::Response::VerifyPartitions(Err(code))
            | transactions::Response::AddPartitions(code) => self.refused(code),
        }
    }
}

impl Client for Transactor {
    fn ask(&mut self, world: &mut World, model: &mut Model, seed: &mut Seed) -> Option<u64> {
        if self.plan.is_empty() && !matches!(self.at, At::Init) {
            self.make_plan(world, seed);
        }
        if matches!(self.at, At::Init) {
            let command = transactions::Command::InitProducerId {
                transactional_id: Arc::from(&*self.id),
                timeout_ms: 60_000,
                expected: None,
            };
            return Some(self.command(command, world));
        }
        let pair = self.pair?;
        if let (Some(Step::Append { topic, index }), None) = (self.plan.front(), &self.flying) {
            match world.partition_id(topic, *index) {
                Some(partition) => {
                    self.flying = Some(self.values.batch(partition, model, seed));
                }
                None => {
                    self.next_step();
                    return None;
                }
            }
        }
        match self.at {
            At::Init => None,
            At::Join => Some(self.ask_join(pair, false, world)),
            At::Begin => self.ask_begin(pair, world),
            At::Verify(_) => Some(self.ask_join(pair, true, world)),
            At::Append(guard) => self.ask_append(pair, guard, world, model),
            At::End if self.has_joined => self.ask_end(pair, world, model),
            At::End => {
                self.plan.clear();
                None
            }
        }
    }

    fn answered(&mut self, reply: Option<ShardReply>, _: &World, model: &mut Model) {
        match reply {
            None => {
                // Whoever has lost the connection asks for everything again.
                if matches!(self.at, At::Begin | At::Verify(_) | At::Append(_)) {
                    self.at = At::Join;
                }
            }
            Some(ShardReply::Transaction(Ok(response))) => {
                self.transaction_answered(response, model);
            }
            Some(ShardReply::Verification(Ok(verification))) => match verification {
                Verification::NotNeeded => self.at = At::Append(None),
                Verification::Needed(guard) => self.at = At::Verify(guard),
                Verification::Refuse(refusal) => self.refused(refusal.code()),
            },
            Some(ShardReply::Append(Ok(outcome))) => {
                let flying = self.flying.take().expect("it was sent");
                let placed = flying.placed(&outcome);
                model.produced.extend(placed.iter().cloned());
                self.placed.extend(placed);
                self.next_step();
            }
            Some(ShardReply::Append(Err(AppendRefusal { code, .. }))) => self.refused_append(code),
            Some(ShardReply::Group(Ok(groups::Response::CommitTransactionalOffsets(codes)))) => {
                if let (Some(Step::Offsets(offset)), [ErrorCode::None]) =
                    (self.plan.front(), &codes[..])
                {
                    self.offset = Some(*offset);
                    self.next_step();
                } else {
                    self.refused(codes[0]);
                }
            }
            Some(ShardReply::Group(Err(code)) | ShardReply::Verification(Err(code))) => {
                self.refused_append(code);
            }
            Some(ShardReply::Transaction(Err(code))) => self.refused(code),
            Some(other) => panic!("nobody asked: {other:?}"),
        }
    }
}

impl Transactor {
    fn refused_append(&mut self, code: ErrorCode) {
        if is_passing(code) {
            self.at = At::Join;
        } else {
            self.refused(code);
        }
    }
}
