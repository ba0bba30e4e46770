//! Transactional producers of both flows: transfers and lists, or chains that read, process and write.
//!
//! A transaction is a list of requests, one after the other; one that is not answered is made again. An error that asks for it
//! begins the client anew, as a process does that is restarted. Where the client has the transactional id for itself, kept to
//! its timeout, and left no request for an epoch behind, no such error may come (K-1).

use super::reader::given;
use super::{Client, is_passing, requests};
use crate::model::{Model, Outcome, Place, Sent, Transaction};
use crate::network::Network;
use crate::port::{Port, Progress, Response};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, FetchRequest,
    InitProducerIdRequest, OffsetFetchRequest, ProduceRequest, TxnOffsetCommitRequest,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tally_testkit::client::Producer;

/// Longer than anything but the jumps of the clock.
const TIMEOUT_MS: i32 = 5_000;

/// Which requests make a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// With AddPartitionsToTxn and a constant epoch.
    Tv1,
    /// KIP-890.
    Tv2,
}

/// What it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// Transfers between two partitions of `bank`, and lists.
    Append,
    /// From a partition of `in` to `out`, with the offset.
    Chain(i32),
}

/// A transactional producer to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) transactional_id: String,
    pub(crate) flow: Flow,
    pub(crate) work: Work,
    /// Whether there is another one with the same id: they fence each other.
    pub(crate) has_twin: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Init,
    Committed,
    Read(i64),
    Join(Place),
    Send(Place, Vec<String>),
    JoinOffsets,
    Offsets(i64),
    End(bool),
}

/// The producer.
pub(crate) struct Transactor {
    plan: Plan,
    port: Port,
    pair: Option<Producer>,
    expected: Option<Producer>,
    steps: VecDeque<Step>,
    sequences: BTreeMap<Place, i32>,
    joined: BTreeSet<Place>,
    /// The transaction in the model.
    current: Option<usize>,
    /// The first record of the batch under way, in the model's transaction.
    flying: Option<usize>,
    count: u64,
    jumps: u64,
    /// Turns to rest.
    resting: u64,
    is_finishing: bool,
}

impl Transactor {
    pub(crate) fn new(plan: Plan) -> Transactor {
        Transactor {
            plan,
            port: Port::default(),
            pair: None,
            expected: None,
            steps: VecDeque::from([Step::Init]),
            sequences: BTreeMap::new(),
            joined: BTreeSet::new(),
            current: None,
            flying: None,
            count: 0,
            jumps: 0,
            resting: 0,
            is_finishing: false,
        }
    }

    fn group(&self) -> String {
        format!("group of {}", self.plan.transactional_id)
    }

    fn input(&self) -> Place {
        match self.plan.work {
            Work::Chain(partition) => ("in", partition),
            Work::Append => ("in", 0),
        }
    }

    fn value(&mut self, amount: i64) -> String {
        self.count += 1;
        format!("{}/{}/{amount}", self.plan.name, self.count)
    }

    /// The transaction that the model has of this client.
    fn begin(&mut self, network: &Network, model: &mut Model) {
        self.current = Some(model.transactions.len());
        self.jumps = network.jumps;
        model.transactions.push(Transaction {
            writer: self.plan.name.clone(),
            outcome: Outcome::Open,
            sent: Vec::new(),
        });
    }

    fn plan_appends(&mut self, network: &mut Network, model: &mut Model) {
        self.begin(network, model);
        let mut sends = Vec::new();
        if network.seed.percent(50) {
            let amount = i64::try_from(1 + network.seed.below(90)).expect("small");
            let from = i32::from(network.seed.percent(50));
            sends.push((("bank", from), vec![self.value(-amount)]));
            sends.push((("bank", 1 - from), vec![self.value(amount)]));
        } else {
            for _ in 0..1 + network.seed.below(3) {
                let index = i32::try_from(network.seed.below(3)).expect("small");
                let values = (0..=network.seed.below(2)).map(|_| self.value(0));
                sends.push((("list", index), values.collect()));
            }
        }
        self.plan_sends(sends);
        self.plan_end(network);
    }

    fn plan_sends(&mut self, sends: Vec<(Place, Vec<String>)>) {
        for (place, values) in sends {
            if self.plan.flow == Flow::Tv1 && self.joined.insert(place) {
                self.steps.push_back(Step::Join(place));
            }
            self.steps.push_back(Step::Send(place, values));
        }
    }

    fn plan_end(&mut self, network: &mut Network) {
        self.steps.push_back(Step::End(network.seed.percent(80)));
    }

    fn plan_chain(
        &mut self,
        records: Vec<(i64, String)>,
        network: &mut Network,
        model: &mut Model,
    ) {
        let count = 1 + network.seed.index(3);
        let taken: Vec<(i64, String)> = records.into_iter().take(count).collect();
        let Some((last, _)) = taken.last() else {
            self.resting = 10;
            return;
        };
        let after = last + 1;
        self.begin(network, model);
        let mut sends = Vec::new();
        for (_, value) in taken {
            let index = i32::from(network.seed.percent(50));
            // Each attempt has outputs of its own, so that they can be told apart.
            let output = format!("{value}|{}", self.value(0));
            sends.push((("out", index), vec![output]));
        }
        self.plan_sends(sends);
        if self.plan.flow == Flow::Tv1 {
            self.steps.push_back(Step::JoinOffsets);
        }
        self.steps.push_back(Step::Offsets(after));
        self.plan_end(network);
    }

    fn next(&mut self) {
        self.steps.pop_front();
    }

    /// Makes the request of the first step.
    fn ask(&mut self, network: &mut Network, model: &mut Model) {
        let Some(step) = self.steps.front().cloned() else {
            return;
        };
        let id = self.plan.transactional_id.clone();
        let id = id.as_str();
        let group = self.group();
        let input = self.input();
        let is_tv2 = self.plan.flow == Flow::Tv2;
        let port = &mut self.port;
        let pair = self.pair.unwrap_or(Producer { id: -1, epoch: -1 });
        match step {
            Step::Init => {
                let version = if is_tv2 { 5 } else { 4 };
                let request = requests::init(Some(id), TIMEOUT_MS, self.expected);
                port.ask(network, version, &request);
            }
            Step::Committed => port.ask(network, 7, &requests::committed(&group, input)),
            Step::Read(from) => {
                port.ask(network, 12, &requests::fetch(input, from, 1, 1 << 20));
            }
            Step::Join(place) => {
                port.ask(network, 3, &requests::add_partition(id, pair, place));
            }
            Step::Send(place, values) => {
                if self.flying.is_none() {
                    self.flying = Some(note(model, self.current, place, &values));
                }
                let sequence = self.sequences.get(&place).copied().unwrap_or(0);
                let records = requests::batch(pair, sequence, true, &values);
                let version = if is_tv2 { 12 } else { 9 };
                let request = requests::produce(place, Some(id), records);
                self.port.ask(network, version, &request);
            }
            Step::JoinOffsets => {
                port.ask(network, 3, &requests::add_offsets(id, pair, &group));
            }
            Step::Offsets(offset) => {
                let version = if is_tv2 { 5 } else { 3 };
                let request = requests::commit_offsets(id, pair, &group, (input, offset));
                port.ask(network, version, &request);
            }
            Step::End(commit) => {
                if commit && let Some(current) = self.current {
                    model.transactions[current].outcome = Outcome::Unknown;
                }
                let version = if is_tv2 { 5 } else { 3 };
                port.ask(network, version, &requests::end(id, pair, commit));
            }
        }
    }

    /// Takes the answer to the first step; the code it says, if that is not 0.
    fn take(&mut self, response: Response, network: &mut Network, model: &mut Model) -> i16 {
        let Some(step) = self.steps.front().cloned() else {
            return 0;
        };
        let code = match step {
            Step::Init => {
                let response = response.of::<InitProducerIdRequest>();
                if response.error_code == 0 {
                    self.start(response.producer_id.0, response.producer_epoch, model);
                }
                response.error_code
            }
            Step::Committed => return self.position(response),
            Step::Read(from) => match given(&response.of::<FetchRequest>(), from) {
                Ok(given) => {
                    self.next();
                    self.plan_chain(given.records, network, model);
                    return 0;
                }
                Err(code) => code,
            },
            Step::Join(_) => {
                let response = response.of::<AddPartitionsToTxnRequest>();
                let topic = &response.results_by_topic_v3_and_below[0];
                topic.results_by_partition[0].partition_error_code
            }
            Step::Send(place, values) => {
                let response = response.of::<ProduceRequest>();
                let part = &response.responses[0].partition_responses[0];
                if part.error_code == 0 {
                    self.sent(place, values.len(), part.base_offset, model);
                }
                part.error_code
            }
            Step::JoinOffsets => response.of::<AddOffsetsToTxnRequest>().error_code,
            Step::Offsets(_) => {
                let response = response.of::<TxnOffsetCommitRequest>();
                response.topics[0].partitions[0].error_code
            }
            Step::End(commit) => {
                let response = response.of::<EndTxnRequest>();
                if response.error_code == 0 {
                    self.ended(commit, model);
                    self.raise(response.producer_id.0, response.producer_epoch);
                }
                response.error_code
            }
        };
        if code == 0 {
            self.next();
        }
        code
    }

    /// Goes on reading where the group has come to.
    fn position(&mut self, response: Response) -> i16 {
        let response = response.of::<OffsetFetchRequest>();
        let part = response.topics.first().map(|topic| &topic.partitions[0]);
        match part {
            Some(part) if part.error_code == 0 => {
                self.steps[0] = Step::Read(part.committed_offset.max(0));
                0
            }
            Some(part) => part.error_code,
            None => response.error_code,
        }
    }

    /// E-1: in the new flow each end raises the epoch.
    fn raise(&mut self, id: i64, epoch: i16) {
        if self.plan.flow == Flow::Tv2 {
            self.pair = Some(Producer { id, epoch });
            self.sequences.clear();
        }
    }

    fn start(&mut self, id: i64, epoch: i16, model: &mut Model) {
        self.given_up(model);
        self.pair = Some(Producer { id, epoch });
        self.expected = None;
        self.sequences.clear();
        self.joined.clear();
    }

    fn sent(&mut self, place: Place, count: usize, base: i64, model: &mut Model) {
        if let (Some(current), Some(first)) = (self.current, self.flying.take()) {
            let sent = &mut model.transactions[current].sent[first..][..count];
            for (at, sent) in (base..).zip(sent) {
                sent.offset = Some(at);
            }
        }
        let count = i32::try_from(count).expect("a small batch");
        *self.sequences.entry(place).or_default() += count;
    }

    fn ended(&mut self, commit: bool, model: &mut Model) {
        if let Some(current) = self.current.take() {
            model.transactions[current].outcome = if commit {
                Outcome::Committed
            } else {
                Outcome::Aborted
            };
        }
        if commit {
            model.commits += 1;
        } else {
            model.aborts += 1;
        }
        self.joined.clear();
    }

    /// Nothing more is done for the transaction: unless its commit was asked for, it must be aborted.
    fn given_up(&mut self, model: &mut Model) {
        if let Some(current) = self.current.take() {
            let transaction = &mut model.transactions[current];
            if transaction.outcome == Outcome::Open {
                transaction.outcome = Outcome::Aborted;
            }
        }
        self.flying = None;
    }

    fn refused(
        &mut self,
        code: i16,
        network: &mut Network,
        model: &mut Model,
    ) -> Result<(), String> {
        let is_late = self.current.is_some() && network.jumps > self.jumps;
        if !(self.plan.has_twin || self.port.is_haunted || is_late) {
            return Err(format!("{} is refused with {code}", self.describe()));
        }
        network.say(|| format!("{} is refused with {code}", self.describe()));
        self.given_up(model);
        self.expected = None;
        self.steps = VecDeque::from([Step::Init]);
        self.resting = network.seed.below(80);
        Ok(())
    }

    fn plan_more(&mut self, network: &mut Network, model: &mut Model) {
        if network.seed.percent(4) {
            // KIP-360: a client that is not sure of its sequences asks for another epoch by itself.
            self.expected = self.pair;
            self.steps.push_back(Step::Init);
            return;
        }
        match self.plan.work {
            Work::Append => self.plan_appends(network, model),
            Work::Chain(_) => self.steps.push_back(Step::Committed),
        }
    }
}

/// Notes what is sent; returns the number of its first record.
fn note(model: &mut Model, current: Option<usize>, place: Place, values: &[String]) -> usize {
    let Some(current) = current else { return 0 };
    let sent = &mut model.transactions[current].sent;
    let first = sent.len();
    sent.extend(values.iter().map(|value| Sent {
        place,
        value: value.clone(),
        offset: None,
    }));
    first
}

impl Client for Transactor {
    fn step(&mut self, network: &mut Network, model: &mut Model) -> Result<(), String> {
        match self.port.progress(network) {
            Progress::Waiting => return Ok(()),
            Progress::Idle => {}
            Progress::Lost => {
                let (name, what) = (self.plan.name.clone(), self.steps.front().cloned());
                network.say(|| format!("{name}: {what:?}: no answer"));
            }
            Progress::Answered(response) => {
                let what = self.steps.front().cloned();
                let code = self.take(response, network, model);
                let name = self.plan.name.clone();
                network.say(|| format!("{name}: {what:?}: {code}"));
                if code != 0 && !is_passing(code) {
                    return self.refused(code, network, model);
                }
            }
        }
        if self.resting > 0 {
            self.resting -= 1;
            return Ok(());
        }
        if self.steps.is_empty() {
            if self.is_finishing {
                return Ok(());
            }
            self.plan_more(network, model);
        }
        self.ask(network, model);
        Ok(())
    }

    fn finish(&mut self) {
        self.is_finishing = true;
    }

    fn is_done(&self) -> bool {
        self.is_finishing && self.steps.is_empty()
    }

    fn describe(&self) -> String {
        let (name, flow) = (&self.plan.name, self.plan.flow);
        format!(
            "{name} ({flow:?}), {:?}, at {:?}",
            self.pair,
            self.steps.front()
        )
    }
}
