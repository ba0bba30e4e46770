//! A transaction coordinator, its clients, and partitions that answer when they like.

use super::choices::Choices;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tally_protocol::records::transaction_log::{TransactionRecord, TransactionState};
use tally_protocol::{CoordinatorEpoch, ErrorCode, Now, Offset, ProducerEpoch, ProducerId};
use tally_transactions::{
    Command, Decision, Effect, Flow, MarkerSet, ProducerIdBlock, ReplyTo, Settings, TopicPartition,
    TransactionCoordinator, TwoPhase,
};

/// Commands with any ids, pairs and partitions, answers of partitions with any code, late or twice asked for, clocks that jump, logs
/// without room, and starts: nothing panics, nobody is answered twice, the log makes only legal moves (a decision is never changed,
/// no epoch of a producer id falls), and the hard state is what replay of the log gives.
pub fn transaction_ops(data: &[u8]) {
    let mut choices = Choices::new(data);
    let mut world = World::new(&mut choices);
    while let Some(step) = choices.step() {
        world.step(step, &mut choices);
        world.core.check_invariants();
    }
    world.restart();
    world.check_log();
}

struct World {
    settings: Settings,
    core: TransactionCoordinator,
    ids: ProducerIdBlock,
    now: Now,
    log: Vec<TransactionRecord>,
    markers: VecDeque<MarkerSet>,
    answered: BTreeSet<u64>,
    asked: u64,
    epoch: i32,
}

fn name(choices: &mut Choices<'_>) -> Arc<str> {
    Arc::from(["a", "b", "c"][usize::from(choices.below(3))])
}

fn partitions(choices: &mut Choices<'_>) -> Vec<TopicPartition> {
    let count = choices.below(4);
    let one = |_| TopicPartition {
        topic: Arc::from(["t", "u"][usize::from(choices.below(2))]),
        partition: i32::from(choices.below(3)),
    };
    (0..count).map(one).collect()
}

fn flow(choices: &mut Choices<'_>) -> Flow {
    if choices.flag() { Flow::Tv2 } else { Flow::Tv1 }
}

impl World {
    fn new(choices: &mut Choices<'_>) -> World {
        let settings = Settings {
            transaction_version: 1 + i16::from(choices.flag()),
            ..Settings::default()
        };
        let mut core = TransactionCoordinator::new(settings, CoordinatorEpoch(1), 7);
        let now = Now {
            monotonic_ms: 1_000,
            wall_ms: 1_700_000_000_000,
        };
        let decision = core.recovered(now);
        assert_eq!(decision, Decision::default());
        World {
            settings,
            core,
            ids: ProducerIdBlock { next: 0, end: 0 },
            now,
            log: Vec::new(),
            markers: VecDeque::new(),
            answered: BTreeSet::new(),
            asked: 0,
            epoch: 1,
        }
    }

    fn step(&mut self, step: u8, choices: &mut Choices<'_>) {
        let has_room = step < 240;
        match step % 12 {
            0..=6 => {
                let command = self.command(step % 12, choices);
                self.ask(command, has_room);
            }
            7 | 8 => self.answer_markers(choices),
            9 => {
                let ms = u64::from(choices.byte()) * 500;
                self.now.monotonic_ms += ms;
                self.now.wall_ms += i64::try_from(ms).expect("a short time");
                self.expire(has_room);
            }
            10 => self.now.wall_ms += i64::from(choices.number()) * 1000,
            _ => self.restart(),
        }
    }

    /// A pair: the current one of the id, one around it, or any.
    fn pair(&self, id: &str, choices: &mut Choices<'_>) -> (ProducerId, ProducerEpoch) {
        let value = self.core.hard_state().get(id);
        let current = value.map(|value| (value.producer_id, value.producer_epoch));
        match (choices.below(8), current) {
            (0..=5, Some(pair)) => pair,
            (6, Some((id, epoch))) => (id, ProducerEpoch(epoch.0.saturating_sub(1).max(0))),
            _ => (
                ProducerId(i64::from(choices.number().max(0))),
                ProducerEpoch(choices.short().max(0)),
            ),
        }
    }

    fn command(&self, kind: u8, choices: &mut Choices<'_>) -> Command {
        let transactional_id = name(choices);
        let (producer_id, producer_epoch) = self.pair(&transactional_id, choices);
        match kind {
            0 | 1 => {
                let expected = choices.flag().then_some((producer_id, producer_epoch));
                let timeout_ms = 1 + choices.number().max(0) % 900_000;
                if kind == 0 {
                    return Command::InitProducerId {
                        transactional_id,
                        timeout_ms,
                        expected,
                    };
                }
                let is_enabled = choices.flag();
                Command::InitTwoPhase {
                    transactional_id,
                    timeout_ms,
                    expected,
                    two_phase: TwoPhase {
                        is_enabled,
                        keeps_prepared: choices.flag(),
                    },
                }
            }
            2 | 3 => Command::AddPartitions {
                transactional_id,
                producer_id,
                producer_epoch,
                partitions: partitions(choices),
                flow: flow(choices),
            },
            4 => Command::VerifyPartitions {
                transactional_id,
                producer_id,
                producer_epoch,
                partitions: partitions(choices),
            },
            _ => Command::EndTxn {
                transactional_id,
                producer_id,
                producer_epoch,
                commit: choices.flag(),
                flow: flow(choices),
            },
        }
    }

    fn ask(&mut self, command: Command, has_room: bool) {
        self.asked += 1;
        if self.ids.next == self.ids.end {
            self.ids.end += 4;
        }
        let to = ReplyTo(self.asked);
        let decision = self.core.decide(self.now, command, to, &mut self.ids);
        self.run(decision, has_room);
    }

    /// S-2: where there is no room for its records, nothing of a decision happens.
    fn run(&mut self, decision: Decision, has_room: bool) {
        if !has_room && !decision.records.is_empty() {
            return;
        }
        for record in decision.records {
            let at = i64::try_from(self.log.len()).expect("a short log");
            self.core.apply(Offset(at), &record);
            self.log.push(record);
        }
        for effect in decision.effects {
            match effect {
                Effect::Reply { to, .. } => {
                    assert!(self.answered.insert(to.0), "{to:?} is answered twice");
                }
                Effect::WriteMarkers(set) => self.markers.push_back(set),
            }
        }
    }

    /// M-11: each partition once, in as many commands as one likes, with any code.
    fn answer_markers(&mut self, choices: &mut Choices<'_>) {
        let Some(mut set) = self.markers.pop_front() else {
            return;
        };
        let count = set.partitions.len().min(1 + usize::from(choices.below(4)));
        let now: Vec<TopicPartition> = set.partitions.drain(..count).collect();
        let codes = [
            ErrorCode::None,
            ErrorCode::None,
            ErrorCode::KafkaStorageError,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::InvalidProducerEpoch,
            ErrorCode::NotLeaderOrFollower,
        ];
        let answer = |partition| {
            let code = codes[usize::from(choices.byte()) % codes.len()];
            (partition, code)
        };
        let command = Command::MarkersWritten {
            transactional_id: Arc::clone(&set.transactional_id),
            producer_id: set.producer_id,
            producer_epoch: set.producer_epoch,
            ending: set.ending,
            partitions: now.into_iter().map(answer).collect(),
        };
        if !set.partitions.is_empty() {
            self.markers.push_back(set);
        }
        self.ask(command, true);
    }

    fn expire(&mut self, has_room: bool) {
        for _ in 0..100 {
            let due = self.core.next_deadline_ms();
            if due.is_none_or(|at_ms| at_ms > self.now.monotonic_ms) {
                return;
            }
            let decision = self.core.expire(self.now, &mut self.ids);
            self.run(decision, has_room);
        }
        assert!(!has_room, "something is due again and again");
    }

    /// A start: what was parked or under way is gone.
    fn restart(&mut self) {
        self.epoch += 1;
        self.markers.clear();
        let epoch = CoordinatorEpoch(self.epoch);
        let mut core = TransactionCoordinator::new(self.settings, epoch, 9);
        for (at, record) in (0..).zip(&self.log) {
            core.apply(Offset(at), record);
        }
        assert_eq!(core.hard_state(), self.core.hard_state(), "replay");
        self.core = core;
        let decision = self.core.recovered(self.now);
        self.run(decision, true);
        self.core.check_invariants();
    }

    fn check_log(&self) {
        use TransactionState::{CompleteAbort, CompleteCommit, PrepareAbort, PrepareCommit};
        let mut epochs: BTreeMap<ProducerId, ProducerEpoch> = BTreeMap::new();
        let mut states: BTreeMap<&str, TransactionState> = BTreeMap::new();
        for record in &self.log {
            let id = &*record.transactional_id;
            let Some(value) = &record.value else {
                states.remove(id);
                continue;
            };
            let known = epochs
                .entry(value.producer_id)
                .or_insert(value.producer_epoch);
            assert!(*known <= value.producer_epoch, "an epoch of {id} fell");
            *known = value.producer_epoch;
            match states.insert(id, value.state) {
                Some(PrepareCommit) => assert_eq!(value.state, CompleteCommit, "{id}"),
                Some(PrepareAbort) => assert_eq!(value.state, CompleteAbort, "{id}"),
                _ => assert_ne!(value.state, CompleteCommit, "{id}"),
            }
        }
    }
}
