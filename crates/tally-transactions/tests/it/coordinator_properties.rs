//! Laws that hold whatever happens: random lives of two ids with fenced producers, lost markers, a log without room,
//! clocks that jump and kills.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use tally_protocol::records::transaction_log::{TransactionRecord, TransactionState};
use tally_protocol::{CoordinatorEpoch, ErrorCode, Offset, ProducerEpoch, ProducerId};
use tally_transactions::{
    Command, Flow, ReplyTo, Response, Settings, TopicPartition, TransactionCoordinator, TwoPhase,
};

use crate::world::World;

/// Which of the pairs that were handed out for the id speaks: 0 is the newest.
type Who = usize;

#[derive(Clone, Debug)]
enum Step {
    Init {
        id: usize,
        who: Option<Who>,
    },
    /// InitProducerId that keeps an open transaction (KIP-939).
    HandOver {
        id: usize,
        who: Option<Who>,
    },
    Add {
        id: usize,
        who: Who,
        partition: i32,
        flow: Flow,
    },
    End {
        id: usize,
        who: Who,
        commit: bool,
        flow: Flow,
    },
    /// The oldest marker set is answered, the partitions with this code.
    Answer {
        code: ErrorCode,
    },
    Advance {
        ms: u64,
    },
    JumpWallClock {
        ms: i64,
    },
    Restart,
    /// The next decision finds no room in the log.
    Full,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flow = || prop_oneof![Just(Flow::Tv1), Just(Flow::Tv2)];
    let who = || prop_oneof![8 => Just(0usize), 1 => Just(1usize), 1 => Just(2usize)];
    let id = || 0..2usize;
    let code = prop_oneof![
        6 => Just(ErrorCode::None),
        1 => Just(ErrorCode::KafkaStorageError),
        1 => Just(ErrorCode::InvalidProducerEpoch),
        1 => Just(ErrorCode::UnknownTopicOrPartition),
    ];
    let step = prop_oneof![
        2 => (id(), proptest::option::of(who())).prop_map(|(id, who)| Step::Init { id, who }),
        1 => (id(), proptest::option::of(who())).prop_map(|(id, who)| Step::HandOver { id, who }),
        6 => (id(), who(), 0..3i32, flow())
            .prop_map(|(id, who, partition, flow)| Step::Add { id, who, partition, flow }),
        5 => (id(), who(), any::<bool>(), flow())
            .prop_map(|(id, who, commit, flow)| Step::End { id, who, commit, flow }),
        6 => code.prop_map(|code| Step::Answer { code }),
        3 => (0..40_000u64).prop_map(|ms| Step::Advance { ms }),
        1 => (-90_000_000..90_000_000i64).prop_map(|ms| Step::JumpWallClock { ms }),
        1 => Just(Step::Restart),
        1 => Just(Step::Full),
    ];
    proptest::collection::vec(step, 1..80)
}

struct Life {
    world: World,
    /// Pairs that were answered, per id, oldest first.
    pairs: [Vec<(ProducerId, ProducerEpoch)>; 2],
    /// EndTxn requests that were begun in this life of the coordinator and not answered.
    waiting: Vec<(ReplyTo, usize)>,
    is_full: bool,
}

fn name(id: usize) -> Arc<str> {
    Arc::from(format!("id-{id}"))
}

impl Life {
    fn new(settings: Settings, epoch: i16) -> Life {
        let mut world = World::with(settings);
        let mut pairs = [vec![], vec![]];
        for (id, pairs) in (0..).zip(&mut pairs) {
            let mut value = crate::world::value(TransactionState::Empty);
            value.producer_id = ProducerId(i64::from(id));
            value.producer_epoch = ProducerEpoch(epoch);
            value.last_producer_epoch = ProducerEpoch::NONE;
            pairs.push((value.producer_id, value.producer_epoch));
            world.log.push(TransactionRecord {
                transactional_id: name(usize::try_from(id).expect("small")),
                value: Some(value),
            });
        }
        world.restart();
        Life {
            world,
            pairs,
            waiting: Vec::new(),
            is_full: false,
        }
    }

    fn pair(&self, id: usize, who: Who) -> (ProducerId, ProducerEpoch) {
        let pairs = &self.pairs[id];
        pairs[pairs.len() - 1 - who.min(pairs.len() - 1)]
    }

    /// Sends a command for `id`, unless the log is full.
    fn send(&mut self, id: usize, command: Command) {
        if std::mem::take(&mut self.is_full) {
            self.world.send_without_room(command);
            return;
        }
        let is_end = matches!(command, Command::EndTxn { .. });
        let to = self.world.send(command);
        if is_end {
            self.waiting.push((to, id));
        }
        if let Some(
            Response::InitProducerId(Ok(pair)) | Response::HandedOver { producer: pair, .. },
        ) = self.world.reply(to)
        {
            self.learn(id, pair);
        }
        self.hear_answers();
    }

    fn learn(&mut self, id: usize, pair: (ProducerId, ProducerEpoch)) {
        if self.pairs[id].last() != Some(&pair) {
            self.pairs[id].push(pair);
        }
    }

    fn hear_answers(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for (to, id) in waiting {
            match self.world.reply(to) {
                None => self.waiting.push((to, id)),
                Some(Response::EndTxn(Ok(pair))) => self.learn(id, pair),
                Some(_) => {}
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Init { id, who } => self.send(
                id,
                Command::InitProducerId {
                    transactional_id: name(id),
                    timeout_ms: 60_000,
                    expected: who.map(|who| self.pair(id, who)),
                },
            ),
            Step::HandOver { id, who } => self.send(
                id,
                Command::InitTwoPhase {
                    transactional_id: name(id),
                    timeout_ms: 60_000,
                    expected: who.map(|who| self.pair(id, who)),
                    two_phase: TwoPhase {
                        is_enabled: false,
                        keeps_prepared: true,
                    },
                },
            ),
            Step::Add {
                id,
                who,
                partition,
                flow,
            } => {
                let (producer_id, producer_epoch) = self.pair(id, who);
                let partitions = vec![TopicPartition {
                    topic: Arc::from("t"),
                    partition,
                }];
                self.send(
                    id,
                    Command::AddPartitions {
                        transactional_id: name(id),
                        producer_id,
                        producer_epoch,
                        partitions,
                        flow,
                    },
                );
            }
            Step::End {
                id,
                who,
                commit,
                flow,
            } => self.end(id, who, commit, flow),
            Step::Answer { code } => {
                if let Some(set) = self.world.markers.pop_front() {
                    self.world.answer(&set, code);
                }
            }
            Step::Advance { ms } => {
                self.world.advance(ms);
                self.world.expire();
            }
            Step::JumpWallClock { ms } => self.world.now.wall_ms += ms,
            Step::Restart => {
                self.world.restart();
                self.waiting.clear();
            }
            Step::Full => self.is_full = true,
        }
        self.hear_answers();
    }

    /// An EndTxn moves the id only if it holds the current pair.
    fn end(&mut self, id: usize, who: Who, commit: bool, flow: Flow) {
        let (producer_id, producer_epoch) = self.pair(id, who);
        let before = &self.world.core.hard_state()[&name(id)];
        let is_handed_over = before.state == TransactionState::Ongoing
            && before.next_producer_id != ProducerId::NONE;
        let current = if is_handed_over {
            (before.next_producer_id, before.next_producer_epoch)
        } else {
            (before.producer_id, before.producer_epoch)
        };
        let records = self.world.log.len();
        self.send(
            id,
            Command::EndTxn {
                transactional_id: name(id),
                producer_id,
                producer_epoch,
                commit,
                flow,
            },
        );
        assert!(
            self.world.log.len() == records || current == (producer_id, producer_epoch),
            "a fenced producer has moved its id"
        );
    }

    /// All faults end; everything comes to rest.
    fn rest(&mut self) {
        self.is_full = false;
        for _ in 0..20 {
            self.world.write_markers();
            self.world.advance(20_000);
            self.world.expire();
        }
        self.hear_answers();
        assert!(self.waiting.is_empty(), "an EndTxn was never answered");
        for (id, value) in self.world.core.hard_state() {
            use TransactionState::{CompleteAbort, CompleteCommit, Empty};
            assert!(
                [Empty, CompleteCommit, CompleteAbort].contains(&value.state),
                "{id} stays in {:?}",
                value.state
            );
        }
    }
}

/// What must hold for the records of any log, read on its own.
fn check_log(log: &[TransactionRecord]) {
    use TransactionState::{CompleteAbort, CompleteCommit, PrepareAbort, PrepareCommit};
    let mut epochs: BTreeMap<ProducerId, ProducerEpoch> = BTreeMap::new();
    let mut states: BTreeMap<Arc<str>, TransactionState> = BTreeMap::new();
    for record in log {
        let value = record.value.as_ref().expect("nothing expires here");
        let epoch = epochs
            .entry(value.producer_id)
            .or_insert(value.producer_epoch);
        assert!(*epoch <= value.producer_epoch, "an epoch fell");
        *epoch = value.producer_epoch;
        let before = states.insert(Arc::clone(&record.transactional_id), value.state);
        match before {
            Some(PrepareCommit) => assert_eq!(value.state, CompleteCommit),
            Some(PrepareAbort) => assert_eq!(value.state, CompleteAbort),
            _ => assert_ne!(value.state, CompleteCommit),
        }
    }
}

/// The replay law: hard state = `apply` over the records.
fn check_replay(world: &World) {
    let mut replayed = TransactionCoordinator::new(world.settings, CoordinatorEpoch(9), 3);
    for (at, record) in (0..).zip(&world.log) {
        replayed.apply(Offset(at), record);
    }
    assert_eq!(replayed.hard_state(), world.core.hard_state());
}

proptest! {
    #[test]
    fn any_life_keeps_the_laws(
        steps in steps(),
        version in 1..=2i16,
        epoch in prop_oneof![Just(0i16), Just(32763), Just(32766)],
    ) {
        let settings = Settings { transaction_version: version, ..Settings::default() };
        let mut life = Life::new(settings, epoch);
        for step in steps {
            life.step(step);
        }
        check_replay(&life.world);
        life.rest();
        check_replay(&life.world);
        check_log(&life.world.log);
    }

    /// A kill after any record: what was decided stays decided, and recovery comes to rest.
    #[test]
    fn a_kill_after_any_record_keeps_the_outcome(steps in steps(), cut in any::<prop::sample::Index>()) {
        let mut life = Life::new(Settings::default(), 32765);
        for step in steps {
            life.step(step);
        }
        let kept = 2 + cut.index(life.world.log.len() - 1);
        life.world.log.truncate(kept);
        let decided: Vec<_> = {
            let mut last = BTreeMap::new();
            for record in &life.world.log {
                last.insert(Arc::clone(&record.transactional_id), record.value.clone());
            }
            last.into_iter().filter_map(|(id, value)| Some((id, value?))).collect()
        };
        life.world.restart();
        life.world.write_markers();
        while life.world.core.next_deadline_ms() <= Some(life.world.now.monotonic_ms) {
            let decision = life.world.core.expire(life.world.now, &mut life.world.ids);
            if decision.records.iter().any(|r| r.value.as_ref().is_some_and(|v| v.state == TransactionState::PrepareAbort)) {
                break; // a timeout, by a wall clock that jumped: another outcome than asked for here
            }
            life.world.run(decision);
        }
        for (id, before) in decided {
            let after = &life.world.core.hard_state()[&id];
            match before.state {
                TransactionState::PrepareCommit => prop_assert_eq!(after.state, TransactionState::CompleteCommit),
                TransactionState::PrepareAbort => prop_assert_eq!(after.state, TransactionState::CompleteAbort),
                state => prop_assert_eq!(after.state, state),
            }
        }
        check_log(&life.world.log);
        check_replay(&life.world);
    }
}
