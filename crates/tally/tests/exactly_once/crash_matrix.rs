//! The broker dies at each numbered write, before it, in the middle of it and after it.
//!
//! One life of a client of each flow is played again and again: a new epoch, a plain idempotent batch, a transaction over two
//! partitions and a group's offsets, its end. The broker dies at the point under test, starts again on its data, and the
//! client does what clients do: it connects and repeats the request. Then the rules: what was committed before stays, what
//! was aborted is never read, no transaction is torn, a repeated batch has its old offset, the next transaction works. All of
//! it is looked at again after the next death.

use crate::world::PROGRAM;
use bytes::Bytes;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest, InitProducerIdRequest,
    ProduceRequest, ProducerId, TxnOffsetCommitRequest,
};
use std::collections::BTreeMap;
use tally_testkit::batches::Batch;
use tally_testkit::broker::{Broker, is_reference, left_out};
use tally_testkit::client::{Client, ProduceCall, Producer, group_id, transactional_id, unique};
use tally_testkit::waiting::{wait_for, wait_until};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    Tv1,
    Tv2,
}

/// What a client does, one request each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Step {
    Init,
    Plain,
    AddPartitions,
    Data(i32),
    AddOffsets,
    Offsets,
    End,
}

impl Flow {
    fn steps(self) -> &'static [Step] {
        match self {
            Flow::Tv1 => &[
                Step::Init,
                Step::Plain,
                Step::AddPartitions,
                Step::Data(0),
                Step::Data(1),
                Step::AddOffsets,
                Step::Offsets,
                Step::End,
            ],
            Flow::Tv2 => &[
                Step::Init,
                Step::Plain,
                Step::Data(0),
                Step::Data(1),
                Step::Offsets,
                Step::End,
            ],
        }
    }
}

/// One transaction of the client.
#[derive(Clone, Copy, Debug)]
struct Turn {
    number: i32,
    commit: bool,
}

impl Turn {
    fn value(self) -> String {
        format!("{}-{}", self.number, self.commit)
    }

    /// The offset that the group commits with it.
    fn offset(self) -> i64 {
        i64::from(self.number) * 100
    }
}

/// A client with its topic, its ids and all it was told.
#[derive(Debug)]
struct Life {
    flow: Flow,
    topic: String,
    id: String,
    group: String,
    client: Client,
    producer: Producer,
    plain: Producer,
    /// The next sequence of the transactional producer; the same on both partitions.
    sequence: i32,
    turns: Vec<Turn>,
    told: BTreeMap<(i32, Step), i64>,
}

impl Life {
    fn begin(broker: &Broker, flow: Flow) -> Life {
        let mut client = broker.client();
        let (topic, id, group) = (unique("t"), unique("x"), unique("g"));
        client.create_topic(&topic, 2, &[]);
        client.wait_for_group(&group);
        let plain = client.idempotent_producer();
        let mut life = Life {
            flow,
            topic,
            id,
            group,
            client,
            producer: Producer { id: -1, epoch: -1 },
            plain,
            sequence: 0,
            turns: Vec::new(),
            told: BTreeMap::new(),
        };
        life.play(None, true);
        life.play(None, false);
        life
    }

    /// A whole turn; with a broker, it dies on the way and is started again.
    fn play(&mut self, mut dying: Option<&mut Broker>, commit: bool) {
        let number = i32::try_from(self.turns.len()).expect("few") + 1;
        let turn = Turn { number, commit };
        for &step in self.flow.steps() {
            wait_until("the step is done", || {
                if let Some(code) = self.attempt(turn, step) {
                    // Loading, moved, markers still out, the coordinator out of reach of a producer.
                    assert!(matches!(code, 0 | 14..=16 | 19 | 51), "{step:?}: {code}");
                    return code == 0;
                }
                let broker = dying.take().expect("nobody wants the broker to die here");
                self.bury(broker);
                self.ask_for_duplicates(turn, step);
                false
            });
        }
        self.turns.push(turn);
        assert!(dying.is_none(), "the broker has not died");
    }

    /// The requests of a turn until nobody answers.
    fn play_to_death(&mut self, broker: &mut Broker) {
        let number = i32::try_from(self.turns.len()).expect("few") + 1;
        let turn = Turn {
            number,
            commit: true,
        };
        for &step in self.flow.steps() {
            match wait_for("an answer or none", || match self.attempt(turn, step) {
                Some(14..=16 | 19 | 51) => None,
                told => Some(told),
            }) {
                Some(code) => assert_eq!(code, 0, "{step:?}"),
                None => return,
            }
        }
        panic!("the broker {} has not died", broker.address());
    }

    /// The broker has died: it is started again, and the client connects.
    fn bury(&mut self, broker: &mut Broker) {
        broker.wait_for_death();
        broker.calm_all();
        broker.start_again();
        self.connect(broker);
    }

    fn connect(&mut self, broker: &Broker) {
        self.client = broker.client();
        self.client.wait_for_group(&self.group);
    }

    /// Repeats every batch that was answered and whose transaction is still open (P-32, CR-3).
    fn ask_for_duplicates(&mut self, turn: Turn, failed: Step) {
        let told: Vec<(Step, i64)> = self
            .told
            .iter()
            .filter(|((number, step), _)| *number == turn.number && *step != failed)
            .map(|((_, step), offset)| (*step, *offset))
            .filter(|(step, _)| *step == Step::Plain || failed != Step::End)
            .collect();
        for (step, offset) in told {
            wait_until("the duplicate is answered", || {
                self.attempt(turn, step) == Some(0)
            });
            assert_eq!(self.told[&(turn.number, step)], offset, "{step:?} again");
        }
    }

    /// One request: its code, or `None` if nobody has answered.
    fn attempt(&mut self, turn: Turn, step: Step) -> Option<i16> {
        match step {
            Step::Init => self.init(),
            Step::Plain => {
                let batch = Batch::idempotent(self.plain.id, 0, turn.number - 1, 1);
                self.produce(9, turn, step, (0, batch))
            }
            Step::Data(partition) => {
                let Producer { id, epoch } = self.producer;
                let batch = Batch::transactional(id, epoch, self.sequence, 1);
                let version = match self.flow {
                    Flow::Tv1 => 9,
                    Flow::Tv2 => 12,
                };
                self.produce(version, turn, step, (partition, batch))
            }
            Step::AddPartitions => {
                let parts = [(self.topic.as_str(), 0), (self.topic.as_str(), 1)];
                let codes = self
                    .client
                    .try_add_partitions(3, &self.id, self.producer, &parts)?;
                assert_eq!(codes[0], codes[1]);
                Some(codes[0])
            }
            Step::AddOffsets => {
                let request = AddOffsetsToTxnRequest::default()
                    .with_transactional_id(transactional_id(&self.id))
                    .with_producer_id(ProducerId(self.producer.id))
                    .with_producer_epoch(self.producer.epoch)
                    .with_group_id(group_id(&self.group));
                Some(self.client.try_call(3, &request)?.error_code)
            }
            Step::Offsets => {
                let offsets = [(self.topic.as_str(), 0, turn.offset())];
                let request = Client::txn_offset_commit_request(
                    &self.id,
                    self.producer,
                    &self.group,
                    &offsets,
                );
                let version = match self.flow {
                    Flow::Tv1 => 3,
                    Flow::Tv2 => 5,
                };
                let response = self
                    .client
                    .try_call::<TxnOffsetCommitRequest>(version, &request)?;
                Some(response.topics[0].partitions[0].error_code)
            }
            Step::End => self.end(turn.commit),
        }
    }

    fn init(&mut self) -> Option<i16> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(&self.id)))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(self.producer.id))
            .with_producer_epoch(self.producer.epoch);
        let response = self.client.try_call(4, &request)?;
        if response.error_code == 0 {
            let next = Producer {
                id: response.producer_id.0,
                epoch: response.producer_epoch,
            };
            // I-15: a repeated request has not raised the epoch twice.
            assert_eq!(next.epoch, self.producer.epoch + 1, "the next epoch");
            assert!(self.producer.id == -1 || next.id == self.producer.id);
            (self.producer, self.sequence) = (next, 0);
        }
        Some(response.error_code)
    }

    fn produce(
        &mut self,
        version: i16,
        turn: Turn,
        step: Step,
        (partition, mut batch): (i32, Batch),
    ) -> Option<i16> {
        batch.records[0].value = Some(Bytes::from(turn.value()));
        let id = self.id.clone();
        let topic = self.topic.clone();
        let call = ProduceCall {
            version,
            acks: -1,
            transactional_id: (step != Step::Plain).then_some(&id),
            parts: vec![(&topic, partition, Some(batch.encode()))],
        };
        let request = self.client.produce_request(&call);
        let response = self.client.try_call::<ProduceRequest>(version, &request)?;
        let produced = &self.client.produced(&call, &response)[0];
        if produced.error == 0 {
            self.told.insert((turn.number, step), produced.base_offset);
        }
        Some(produced.error)
    }

    fn end(&mut self, commit: bool) -> Option<i16> {
        let version = match self.flow {
            Flow::Tv1 => 4,
            Flow::Tv2 => 5,
        };
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(&self.id))
            .with_producer_id(ProducerId(self.producer.id))
            .with_producer_epoch(self.producer.epoch)
            .with_committed(commit);
        let response = self.client.try_call(version, &request)?;
        if response.error_code == 0 {
            match self.flow {
                Flow::Tv1 => self.sequence += 1,
                Flow::Tv2 => {
                    assert_eq!(response.producer_id.0, self.producer.id);
                    // E-1: raised once, however often it was asked.
                    assert_eq!(response.producer_epoch, self.producer.epoch + 1);
                    (self.producer.epoch, self.sequence) = (response.producer_epoch, 0);
                }
            }
        }
        Some(response.error_code)
    }

    /// The rules, on everything that was ever done.
    fn check(&mut self) {
        for partition in [0, 1] {
            wait_until("all is decided", || {
                self.client.stable(&self.topic, partition)
                    == self.client.latest(&self.topic, partition)
            });
            let read = self.client.read_committed(&self.topic, partition, 0);
            let mut expected = Vec::new();
            for turn in &self.turns {
                if partition == 0 {
                    expected.push((self.told[&(turn.number, Step::Plain)], turn.value()));
                }
                if turn.commit {
                    let step = Step::Data(partition);
                    expected.push((self.told[&(turn.number, step)], turn.value()));
                }
            }
            let committed = read.committed().into_iter().map(|(offset, value)| {
                let value = value.expect("a value").to_vec();
                (offset, String::from_utf8(value).expect("text"))
            });
            assert_eq!(committed.collect::<Vec<_>>(), expected, "{partition}");
            self.check_batches(partition);
        }
        let commits = self.turns.iter().rev().find(|turn| turn.commit);
        let committed = commits.expect("the first turn").offset();
        assert_eq!(
            self.client
                .committed_offset(&self.group, &self.topic, 0, true),
            (0, committed)
        );
    }

    /// Each batch is there once, and each transaction has at least its marker.
    fn check_batches(&mut self, partition: i32) {
        let read = self.client.read_uncommitted(&self.topic, partition, 0);
        let mut batches = Vec::new();
        for batch in &read.batches {
            if batch.marker().is_none() {
                let header = &batch.header;
                let key = (header.producer_id, header.producer_epoch);
                batches.push((key, header.base_sequence));
            }
        }
        let all = batches.len();
        batches.sort_unstable();
        batches.dedup();
        assert_eq!(batches.len(), all, "a batch is there twice");
        let of_a_turn = if partition == 0 { 2 } else { 1 };
        assert_eq!(all, self.turns.len() * of_a_turn, "a batch is missing");
        assert!(read.markers().len() >= self.turns.len());
    }
}

/// Dies at each of these points, in both flows, in a turn that ends so.
#[track_caller]
fn dies_at(points: &[&str], commit: bool) {
    for flow in [Flow::Tv1, Flow::Tv2] {
        dies_in(flow, points, commit);
    }
}

#[track_caller]
fn dies_in(flow: Flow, points: &[&str], commit: bool) {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut life = Life::begin(&broker, flow);
    for point in points {
        // On standard error, which a failing test shows: where it was.
        eprintln!("{flow:?}, commit {commit}: {point}");
        broker.set_faults(&[point]);
        broker.kill_and_start();
        life.connect(&broker);
        life.check();
        broker.wake(0);
        life.play(Some(&mut broker), commit);
        life.check();
        life.play(None, true);
        life.check();
    }
}

/// Dies at all of these points, one after the other, with these settings; the points are armed together, so each start but the
/// first is that after a death.
#[track_caller]
pub(crate) fn dies_once_at_each(settings: &[&str], flow: Flow, points: &[&str], commit: bool) {
    let mut broker = Broker::start(PROGRAM, settings);
    broker.set_faults(points);
    broker.kill_and_start();
    let mut life = Life::begin(&broker, flow);
    for (index, point) in points.iter().enumerate() {
        eprintln!("{settings:?}, {flow:?}, commit {commit}: {point}");
        broker.wake(index);
        life.play(Some(&mut broker), commit);
        life.check();
    }
    life.play(None, true);
    life.check();
}

/// What the next start finds where nothing is kept: nothing, and a client may begin anew, also under its old names.
#[track_caller]
pub(crate) fn dies_and_forgets(settings: &[&str], flow: Flow, points: &[&str]) {
    let mut broker = Broker::start(PROGRAM, settings);
    broker.set_faults(points);
    broker.kill_and_start();
    for index in 0..points.len() {
        let mut life = Life::begin(&broker, flow);
        broker.wake(index);
        life.play_to_death(&mut broker);
        broker.wait_for_death();
        broker.calm(index);
        broker.start_again();
        life.client = broker.client();
        life.client.wait_for_group(&life.group);
        let topic = life.client.topic(&life.topic);
        assert_eq!(topic.error_code, 3, "the topic");
        let offset = life
            .client
            .committed_offset(&life.group, &life.topic, 0, true);
        assert_eq!(offset, (0, -1), "the group");
        let request = DescribeTransactionsRequest::default()
            .with_transactional_ids(vec![transactional_id(&life.id)]);
        let id = &life.client.call(0, &request).transaction_states[0];
        assert_eq!(id.error_code, 105, "the id");
    }
    Life::begin(&broker, flow).check();
}

#[test]
fn x260_cr1_a_torn_write_never_happened() {
    // Every write of a turn, the coordinators' as well.
    let torn: Vec<String> = (1..=12)
        .map(|nth| format!("append.torn=kill@{nth}"))
        .collect();
    let torn: Vec<&str> = torn.iter().map(String::as_str).collect();
    dies_at(&torn, true);
}

#[test]
fn x261_cr2_a_batch_that_was_not_answered_is_there_once() {
    let points = [
        "data.before=kill@1",
        "data.before=kill@2",
        "data.before=kill@3",
        "data.after=kill@1",
        "data.after=kill@2",
        "data.after=kill@3",
    ];
    dies_at(&points, true);
}

#[test]
fn x266_cr7_x267_cr8_a_new_epoch_is_given_once() {
    let points = [
        "init_producer_id.before=kill@1",
        "init_producer_id.after=kill@1",
    ];
    dies_at(&points, true);
}

#[test]
fn x268_cr9_x269_cr10_a_partition_that_joins_is_known_before_its_data() {
    let points = [
        "ongoing.before=kill@1",
        "ongoing.after=kill@1",
        "ongoing.before=kill@2",
        "ongoing.after=kill@2",
    ];
    dies_at(&points, true);
    dies_in(
        Flow::Tv2,
        &["ongoing.before=kill@3", "ongoing.after=kill@3"],
        true,
    );
}

#[test]
fn x270_cr11_offsets_stay_pending() {
    let points = [
        "pending_offsets.before=kill@1",
        "pending_offsets.after=kill@1",
        "reply.group=kill@1",
    ];
    dies_at(&points, true);
}

#[test]
fn x271_cr12_x272_cr13_a_commit_is_decided_by_its_record() {
    let points = [
        "prepare_commit.before=kill@1",
        "prepare_commit.after=kill@1",
    ];
    dies_at(&points, true);
}

#[test]
fn x273_cr14_x278_cr19_markers_that_are_missing_are_written() {
    // Two partitions and the group's.
    let points = [
        "marker.before=kill@1",
        "marker.after=kill@1",
        "marker.before=kill@2",
        "marker.after=kill@2",
        "marker.before=kill@3",
        "marker.after=kill@3",
    ];
    dies_at(&points, true);
}

#[test]
fn x274_cr15_x275_cr16_the_end_is_answered_again() {
    let points = [
        "complete_commit.before=kill@1",
        "complete_commit.after=kill@1",
    ];
    dies_at(&points, true);
}

#[test]
fn x276_cr17_an_abort_is_decided_by_its_record() {
    let points = [
        "prepare_abort.before=kill@1",
        "prepare_abort.after=kill@1",
        "marker.before=kill@1",
        "marker.before=kill@2",
        "marker.before=kill@3",
        "marker.after=kill@3",
        "complete_abort.before=kill@1",
        "complete_abort.after=kill@1",
    ];
    dies_at(&points, false);
}

#[test]
fn x277_cr18_the_row_of_an_aborted_transaction_is_made_again() {
    let points = [
        "marker.after=kill@1",
        "marker.after=kill@2",
        "row.after=kill@1",
        "row.after=kill@2",
    ];
    dies_at(&points, false);
}

#[test]
fn x283_cr24_what_was_kept_and_not_answered_is_there_once() {
    let points = [
        "reply.append=kill@1",
        "reply.append=kill@2",
        "reply.append=kill@3",
        "reply.transaction=kill@1",
    ];
    dies_at(&points, true);
}
