//! A coordinator with its log, a clock moved by hand, and partitions that answer when the test says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tally_protocol::records::transaction_log::{
    TransactionRecord, TransactionState, TransactionValue,
};
use tally_protocol::{CoordinatorEpoch, ErrorCode, Now, Offset, ProducerEpoch, ProducerId};
use tally_transactions::{
    Command, Decision, Effect, Fence, Flow, MarkerSet, ProducerIdBlock, ReplyTo, Response,
    Settings, TopicPartition, TransactionCoordinator,
};

/// The id most tests use.
pub(crate) const ID: &str = "x";
/// The wall clock at the start of each test.
pub(crate) const WALL_MS: i64 = 1_700_000_000_000;

pub(crate) struct World {
    pub(crate) core: TransactionCoordinator,
    pub(crate) settings: Settings,
    pub(crate) ids: ProducerIdBlock,
    pub(crate) now: Now,
    /// All that was appended, in order.
    pub(crate) log: Vec<TransactionRecord>,
    /// Answers that were given, in order.
    pub(crate) replies: Vec<(ReplyTo, Response)>,
    /// Markers that were asked for and not answered.
    pub(crate) markers: VecDeque<MarkerSet>,
    epoch: i32,
    next_reply: u64,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> World {
        World {
            core: TransactionCoordinator::new(settings, CoordinatorEpoch(1), 7),
            settings,
            ids: ProducerIdBlock {
                next: 100,
                end: 100_000,
            },
            now: Now {
                monotonic_ms: 1_000_000,
                wall_ms: WALL_MS,
            },
            log: Vec::new(),
            replies: Vec::new(),
            markers: VecDeque::new(),
            epoch: 1,
            next_reply: 0,
        }
    }

    /// A world whose log holds one value of [`ID`], just loaded.
    pub(crate) fn given(value: TransactionValue) -> World {
        World::new().and_given(value)
    }

    pub(crate) fn and_given(mut self, value: TransactionValue) -> World {
        self.log.push(TransactionRecord {
            transactional_id: Arc::from(ID),
            value: Some(value),
        });
        self.restart();
        self
    }

    /// A world whose log holds one value of [`ID`], just loaded after a power cut.
    pub(crate) fn after_power_cut(value: TransactionValue, fence: Fence) -> World {
        World::new().and_given_after_power_cut(value, fence)
    }

    pub(crate) fn and_given_after_power_cut(
        mut self,
        value: TransactionValue,
        fence: Fence,
    ) -> World {
        self.load(value);
        self.restart_after_power_cut(fence);
        self
    }

    /// Applies a record of an earlier life, and no more.
    pub(crate) fn load(&mut self, value: TransactionValue) {
        let record = TransactionRecord {
            transactional_id: Arc::from(ID),
            value: Some(value),
        };
        self.core.apply(Offset(0), &record);
        self.log.push(record);
    }

    /// Asks while the coordinator is loading: its soft state does not exist yet.
    pub(crate) fn ask_loading(&mut self, command: Command) -> Response {
        let to = self.new_reply();
        let decision = self.core.decide(self.now, command, to, &mut self.ids);
        assert_eq!(decision.records, []);
        match decision.effects.into_iter().next() {
            Some(Effect::Reply { response, .. }) => response,
            other => panic!("{other:?} is no answer"),
        }
    }

    /// Loads the coordinator from its log again; markers and answers that were under way are lost.
    pub(crate) fn restart(&mut self) {
        self.load_again();
        let decision = self.core.recovered(self.now);
        self.run(decision);
    }

    /// The same after a power cut.
    pub(crate) fn restart_after_power_cut(&mut self, fence: Fence) {
        self.load_again();
        self.core.power_was_cut(fence);
        let decision = self.core.recovered(self.now);
        self.run(decision);
    }

    fn load_again(&mut self) {
        self.epoch += 1;
        self.markers.clear();
        self.core = TransactionCoordinator::new(self.settings, CoordinatorEpoch(self.epoch), 7);
        for (at, record) in (0..).zip(&self.log) {
            self.core.apply(Offset(at), record);
        }
    }

    /// Sends a command and runs what was decided; the answer comes at once, later, or never.
    pub(crate) fn send(&mut self, command: Command) -> ReplyTo {
        let to = self.new_reply();
        let decision = self.core.decide(self.now, command, to, &mut self.ids);
        self.run(decision);
        to
    }

    /// As `send`, but the log has no room: nothing of the decision happens (S-2).
    pub(crate) fn send_without_room(&mut self, command: Command) -> Decision {
        let to = self.new_reply();
        let decision = self.core.decide(self.now, command, to, &mut self.ids);
        self.core.check_invariants();
        decision
    }

    /// Sends a command that is answered at once.
    pub(crate) fn ask(&mut self, command: Command) -> Response {
        let to = self.send(command);
        self.reply(to).expect("this command is answered at once")
    }

    pub(crate) fn reply(&self, to: ReplyTo) -> Option<Response> {
        let mut given = self.replies.iter().filter(|(whom, _)| *whom == to);
        let first = given.next().map(|(_, response)| response.clone());
        assert!(given.next().is_none(), "{to:?} was answered twice");
        first
    }

    /// Appends, applies, and takes the effects.
    pub(crate) fn run(&mut self, decision: Decision) {
        for record in &decision.records {
            let at = i64::try_from(self.log.len()).expect("short logs");
            self.log.push(record.clone());
            self.core.apply(Offset(at), record);
        }
        for effect in decision.effects {
            match effect {
                Effect::Reply { to, response } => self.replies.push((to, response)),
                Effect::WriteMarkers(set) => self.markers.push_back(set),
            }
        }
        self.core.check_invariants();
    }

    /// The first markers asked for and not answered.
    pub(crate) fn take_markers(&mut self) -> MarkerSet {
        self.markers.pop_front().expect("markers were asked for")
    }

    /// Answers a marker set, each partition with `code`.
    pub(crate) fn answer(&mut self, set: &MarkerSet, code: ErrorCode) {
        let partitions = set.partitions.iter().map(|p| (p.clone(), code)).collect();
        self.send(Command::MarkersWritten {
            transactional_id: Arc::clone(&set.transactional_id),
            producer_id: set.producer_id,
            producer_epoch: set.producer_epoch,
            ending: set.ending,
            partitions,
        });
    }

    /// All partitions write the markers they were asked for.
    pub(crate) fn write_markers(&mut self) {
        while let Some(set) = self.markers.pop_front() {
            self.answer(&set, ErrorCode::None);
        }
    }

    /// Both clocks move on.
    pub(crate) fn advance(&mut self, by_ms: u64) {
        self.now.monotonic_ms += by_ms;
        self.now.wall_ms += i64::try_from(by_ms).expect("short times");
    }

    /// Does what is due until nothing is.
    pub(crate) fn expire(&mut self) {
        let mut rounds = 0;
        while self
            .core
            .next_deadline_ms()
            .is_some_and(|at_ms| at_ms <= self.now.monotonic_ms)
        {
            let decision = self.core.expire(self.now, &mut self.ids);
            self.run(decision);
            rounds += 1;
            assert!(rounds < 1000, "expire is due again and again");
        }
    }

    pub(crate) fn value(&self) -> &TransactionValue {
        &self.core.hard_state()[ID]
    }

    pub(crate) fn state(&self) -> TransactionState {
        self.value().state
    }

    /// The current pair of [`ID`].
    pub(crate) fn pair(&self) -> (i64, i16) {
        (self.value().producer_id.0, self.value().producer_epoch.0)
    }

    fn new_reply(&mut self) -> ReplyTo {
        self.next_reply += 1;
        ReplyTo(self.next_reply)
    }
}

/// The value of pid 1 in `state` at epoch 5, reached from epoch 4, with t-0 and t-1 in it if it is open or ending.
pub(crate) fn value(state: TransactionState) -> TransactionValue {
    use TransactionState::{Ongoing, PrepareAbort, PrepareCommit};
    let is_open = [Ongoing, PrepareCommit, PrepareAbort].contains(&state);
    TransactionValue {
        producer_id: ProducerId(1),
        previous_producer_id: ProducerId::NONE,
        next_producer_id: ProducerId::NONE,
        next_producer_epoch: ProducerEpoch::NONE,
        producer_epoch: ProducerEpoch(5),
        last_producer_epoch: ProducerEpoch(4),
        timeout_ms: 60_000,
        state,
        partitions: if is_open {
            BTreeMap::from([(Arc::from("t"), vec![0, 1])])
        } else {
            BTreeMap::new()
        },
        last_update_ms: WALL_MS,
        start_ms: if state == TransactionState::Empty {
            -1
        } else {
            WALL_MS
        },
        client_transaction_version: 2,
    }
}

pub(crate) fn at_epoch(value: TransactionValue, epoch: i16, last: i16) -> TransactionValue {
    TransactionValue {
        producer_epoch: ProducerEpoch(epoch),
        last_producer_epoch: ProducerEpoch(last),
        ..value
    }
}

pub(crate) fn partition(name: &str) -> TopicPartition {
    let (topic, number) = name.rsplit_once('-').expect("topic-number");
    TopicPartition {
        topic: Arc::from(topic),
        partition: number.parse().expect("a number"),
    }
}

pub(crate) fn names(partitions: &[TopicPartition]) -> Vec<String> {
    let name = |p: &TopicPartition| format!("{}-{}", p.topic, p.partition);
    partitions.iter().map(name).collect()
}

pub(crate) fn init() -> Command {
    Command::InitProducerId {
        transactional_id: Arc::from(ID),
        timeout_ms: 60_000,
        expected: None,
    }
}

pub(crate) fn init_with(producer_id: i64, epoch: i16) -> Command {
    Command::InitProducerId {
        transactional_id: Arc::from(ID),
        timeout_ms: 60_000,
        expected: Some((ProducerId(producer_id), ProducerEpoch(epoch))),
    }
}

pub(crate) fn add(pair: (i64, i16), partitions: &[&str], flow: Flow) -> Command {
    Command::AddPartitions {
        transactional_id: Arc::from(ID),
        producer_id: ProducerId(pair.0),
        producer_epoch: ProducerEpoch(pair.1),
        partitions: partitions.iter().map(|name| partition(name)).collect(),
        flow,
    }
}

pub(crate) fn verify(pair: (i64, i16), partitions: &[&str]) -> Command {
    Command::VerifyPartitions {
        transactional_id: Arc::from(ID),
        producer_id: ProducerId(pair.0),
        producer_epoch: ProducerEpoch(pair.1),
        partitions: partitions.iter().map(|name| partition(name)).collect(),
    }
}

pub(crate) fn end(pair: (i64, i16), commit: bool, flow: Flow) -> Command {
    Command::EndTxn {
        transactional_id: Arc::from(ID),
        producer_id: ProducerId(pair.0),
        producer_epoch: ProducerEpoch(pair.1),
        commit,
        flow,
    }
}

/// What a response says, in few characters: a pair, or the number of a code.
pub(crate) fn brief(response: &Response) -> String {
    match response {
        Response::InitProducerId(Ok((id, epoch))) | Response::EndTxn(Ok((id, epoch))) => {
            format!("({id},{epoch})")
        }
        Response::HandedOver { producer, ongoing } => {
            format!(
                "({},{}) for ({},{})",
                producer.0, producer.1, ongoing.0, ongoing.1
            )
        }
        Response::InitProducerId(Err(code))
        | Response::EndTxn(Err(code))
        | Response::VerifyPartitions(Err(code))
        | Response::AddPartitions(code) => code.code().to_string(),
        Response::VerifyPartitions(Ok(partitions)) => {
            let codes: Vec<_> = partitions
                .iter()
                .map(|(_, c)| c.code().to_string())
                .collect();
            codes.join(" ")
        }
    }
}
