//! Transactional producers of both flows: transfers and lists, or chains that read, process and write.
//!
//! A transaction is a list of requests, one after the other; one that is not answered is made again. An error that asks for it
//! begins the client anew, as a process does that is restarted. Where the client has the transactional id for itself, kept to
//! its timeout, and left no request for an epoch behind, no such error may come (K-1), unless the power was cut: then one has to
//! come.
//!
//! Some give a batch up, and abort; of the old flow some keep their epoch then, where the guard can tell their late batch (D-8).
//! Those that share an id, and members of the group, pause in the middle of whatever they do.

use super::member::{GroupStep, Membership, is_rebalance};
use super::reader::given;
use super::{Client, is_passing, requests};
use crate::model::{KEYED, Model, Outcome, Place, REBORN, Sent, Transaction};
use crate::network::{Mode, Network, Trouble};
use crate::port::{Port, Progress, Response};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest,
    FetchRequest, InitProducerIdRequest, OffsetFetchRequest, ProduceRequest,
    TxnOffsetCommitRequest,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tally_protocol::ErrorCode;
use tally_testkit::client::Producer;

/// Longer than anything but the jumps of the clock.
const TIMEOUT_MS: i32 = 5_000;
/// The pair of who has none.
const NOBODY: Producer = Producer { id: -1, epoch: -1 };
/// No code of the protocol: a transaction is open that this client has not begun.
const BEGUN_BY_NOBODY: i16 = i16::MAX;
/// No code of the protocol: what was begun before a power cut must not be committed after it.
const COMMITTED_AFTER_A_CUT: i16 = i16::MAX - 1;

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
    /// The same from `work` to `done`, as one of a group.
    Member,
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
    /// What the coordinator thinks of it, between two transactions.
    Look,
    Group(GroupStep),
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
    /// [`Model::births`] when it sent the last batch of each partition for the first time.
    births: BTreeMap<Place, u64>,
    joined: BTreeSet<Place>,
    /// The transaction in the model.
    current: Option<usize>,
    /// The first record of the batch under way, in the model's transaction.
    flying: Option<usize>,
    /// The connection that carried a request to the coordinator for the current pair.
    known_on: Option<u64>,
    /// It has given a batch up: where that came to is not known (D-14).
    is_doubtful: bool,
    membership: Membership,
    input: Place,
    count: u64,
    jumps: u64,
    /// How often the power had been cut when it got its pair ([`Network::plain_cuts`]).
    cuts: u64,
    /// The same of [`Network::fences`], when it asked for it: the answer may have been under way as the broker died.
    fences: u64,
    /// The same when it asked for a pair last.
    init_fences: u64,
    /// How often the power had been cut when it first asked for the end of its transaction.
    end_cuts: Option<u64>,
    /// The same when it asked where its group had come to.
    read_cuts: u64,
    /// How often the power had been cut, in any mode, when its transaction began.
    begin_cuts: u64,
    /// Turns to rest.
    resting: u64,
    is_finishing: bool,
}

impl Transactor {
    pub(crate) fn new(plan: Plan) -> Transactor {
        let input = match plan.work {
            Work::Chain(partition) => ("in", partition),
            Work::Append | Work::Member => ("work", 0),
        };
        Transactor {
            plan,
            port: Port::default(),
            pair: None,
            expected: None,
            steps: VecDeque::from([Step::Init]),
            sequences: BTreeMap::new(),
            births: BTreeMap::new(),
            joined: BTreeSet::new(),
            current: None,
            flying: None,
            known_on: None,
            is_doubtful: false,
            membership: Membership::default(),
            input,
            count: 0,
            jumps: 0,
            cuts: 0,
            fences: 0,
            init_fences: 0,
            end_cuts: None,
            begin_cuts: 0,
            read_cuts: 0,
            resting: 0,
            is_finishing: false,
        }
    }

    /// After a power cut another one: where the old one had come to is not promised (CR-26).
    fn group(&self, network: &Network) -> String {
        group_of(self.plan.work, &self.plan.transactional_id, network.cuts)
    }

    fn value(&mut self, amount: i64) -> String {
        self.count += 1;
        format!("{}/{}/{amount}", self.plan.name, self.count)
    }

    fn keyed_value(&mut self, key: u64) -> String {
        self.count += 1;
        format!("{}/{}/k{key}", self.plan.name, self.count)
    }

    /// The transaction that the model has of this client.
    fn begin(&mut self, network: &Network, model: &mut Model) {
        self.current = Some(model.transactions.len());
        self.jumps = network.jumps;
        self.end_cuts = None;
        self.begin_cuts = network.power_cuts;
        model.transactions.push(Transaction {
            writer: self.plan.name.clone(),
            outcome: Outcome::Open,
            cuts: network.cuts,
            shares_epoch: self.plan.flow == Flow::Tv1,
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
                let kind = network.seed.below(10);
                let mut value = || match kind {
                    0..3 => {
                        let key = network.seed.below(3);
                        self.keyed_value(key)
                    }
                    _ => self.value(0),
                };
                let mut values = vec![value()];
                if kind.is_multiple_of(2) {
                    values.push(value());
                }
                let place = match kind {
                    0..3 => (KEYED, index % 2),
                    3..5 => (REBORN, index % 2),
                    _ => ("list", index),
                };
                sends.push((place, values));
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
            let output = format!("{value}|{}|{}", network.cuts, self.value(0));
            let topic = if self.plan.work == Work::Member {
                "done"
            } else {
                "out"
            };
            sends.push(((topic, index), vec![output]));
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
        let group = self.group(network);
        let input = self.input;
        let is_tv2 = self.plan.flow == Flow::Tv2;
        let port = &mut self.port;
        let ends_up_late = matches!(
            step,
            Step::Send(..) | Step::JoinOffsets | Step::Offsets(_) | Step::End(_)
        );
        let asks_coordinator = matches!(step, Step::Join(_) | Step::JoinOffsets | Step::End(_));
        let pair = self.pair.unwrap_or(NOBODY);
        match step {
            Step::Look => port.ask(network, 0, &requests::describe(id)),
            Step::Group(step) => {
                let who = (step, self.plan.name.as_str());
                self.membership.ask(who, port, network);
            }
            Step::Init => {
                self.init_fences = network.fences;
                let request = requests::init(Some(id), TIMEOUT_MS, self.expected);
                port.ask(network, if is_tv2 { 5 } else { 4 }, &request);
            }
            Step::Committed => {
                self.read_cuts = network.plain_cuts;
                port.ask(network, 7, &requests::committed(&group, input));
            }
            Step::Read(from) => {
                port.ask(network, 12, &requests::fetch(input, from, 1, 1 << 20));
            }
            Step::Join(place) => {
                port.ask(network, 3, &requests::add_partition(id, pair, place));
            }
            Step::Send(place, values) => {
                self.send(place, &values, network, model);
            }
            Step::JoinOffsets => {
                port.ask(network, 3, &requests::add_offsets(id, pair, &group));
            }
            Step::Offsets(offset) => {
                let version = if is_tv2 { 5 } else { 3 };
                let mut request = requests::commit_offsets(id, pair, &group, (input, offset));
                if self.plan.work == Work::Member {
                    request.generation_id = self.membership.generation;
                    request.member_id = self.membership.member_id.clone().into();
                }
                port.ask(network, version, &request);
            }
            Step::End(commit) => {
                if commit && let Some(current) = self.current {
                    model.transactions[current].outcome = Outcome::Unknown;
                }
                self.end_cuts.get_or_insert(network.plain_cuts);
                let version = if is_tv2 { 5 } else { 3 };
                port.ask(network, version, &requests::end(id, pair, commit));
            }
        }
        if asks_coordinator {
            self.known_on = self.port.link();
        }
        if ends_up_late {
            self.hold_back(network);
        }
    }

    fn send(&mut self, place: Place, values: &[String], network: &mut Network, model: &mut Model) {
        if self.flying.is_none() {
            self.flying = Some(note(model, self.current, place, values));
        }
        let pair = self.pair.unwrap_or(NOBODY);
        let sequence = self.sequences.get(&place).copied().unwrap_or(0);
        let records = requests::batch(pair, sequence, true, values);
        let version = match self.plan.flow {
            Flow::Tv1 => 9,
            Flow::Tv2 => 12,
        };
        let id = self.plan.transactional_id.as_str();
        let request = requests::produce(place, Some(id), records);
        self.port.ask(network, version, &request);
    }

    /// What can do harm when it comes late is late more often.
    fn hold_back(&self, network: &mut Network) {
        let is_slow = network.trouble == Trouble::SlowNetwork && network.faults;
        if let Some(link) = self.port.link()
            && is_slow
            && network.seed.percent(15)
        {
            network.hold(link);
        }
    }

    /// Takes the answer to the first step; the code it says, if that is not 0.
    fn take(&mut self, response: Response, network: &mut Network, model: &mut Model) -> i16 {
        let Some(step) = self.steps.front().cloned() else {
            return 0;
        };
        let code = match step {
            Step::Look => return self.look(response, network),
            Step::Group(step) => return self.take_group(step, response),
            Step::Init => {
                let response = response.of::<InitProducerIdRequest>();
                if response.error_code == 0 {
                    self.start(response.producer_id.0, response.producer_epoch, model);
                    self.cuts = network.plain_cuts;
                    self.fences = self.init_fences;
                }
                response.error_code
            }
            Step::Committed => return self.position(response),
            Step::Read(from) => match given(&response.of::<FetchRequest>(), from) {
                Ok(_) if self.read_cuts != network.plain_cuts => {
                    self.steps.clear();
                    return 0;
                }
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
                    self.sent(
                        place,
                        values.len(),
                        part.base_offset,
                        network.plain_cuts,
                        model,
                    );
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
                    let now = network.plain_cuts;
                    let is_stale = self.cuts < now && self.end_cuts == Some(now);
                    if commit && is_stale {
                        return COMMITTED_AFTER_A_CUT;
                    }
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
            self.births.clear();
        }
    }

    fn start(&mut self, id: i64, epoch: i16, model: &mut Model) {
        self.given_up(model);
        self.pair = Some(Producer { id, epoch });
        self.expected = None;
        self.sequences.clear();
        self.births.clear();
        self.joined.clear();
        self.known_on = None;
        self.is_doubtful = false;
    }

    /// Between two transactions nobody may have begun one: no late request has (D-8, B-1). In `os` a power cut may have taken
    /// the end of the one before (CR-26); it is open until its producer is fenced.
    fn look(&mut self, response: Response, network: &Network) -> i16 {
        let response = response.of::<DescribeTransactionsRequest>();
        let Some(state) = response.transaction_states.into_iter().next() else {
            return 0;
        };
        self.next();
        let is_undone = network.mode == Mode::Os && self.cuts < network.plain_cuts;
        let is_judged = !self.plan.has_twin && !is_undone;
        if state.error_code == 0 && is_judged && state.transaction_state.as_str() == "Ongoing" {
            return BEGUN_BY_NOBODY;
        }
        0
    }

    fn take_group(&mut self, step: GroupStep, response: Response) -> i16 {
        match self.membership.take(step, response) {
            Ok(Some(then)) => {
                // What was planned for the membership that is lost is dropped.
                self.steps = VecDeque::from([Step::Group(then)]);
                0
            }
            Ok(None) => {
                self.next();
                0
            }
            Err(code) => code,
        }
    }

    /// A batch is not tried again, and its transaction is aborted. Then the epoch is raised, unless the guard will know the batch
    /// by its connection (docs/exactly-once.md section 9).
    fn give_up_batch(&mut self, left: Option<u64>) {
        self.flying = None;
        self.is_doubtful = true;
        self.steps = VecDeque::from([Step::End(false)]);
        if left.is_none() || left != self.known_on {
            self.expected = self.pair;
            self.steps.push_back(Step::Init);
        }
    }

    fn sent(&mut self, place: Place, count: usize, base: i64, cuts: u64, model: &mut Model) {
        if let (Some(current), Some(first)) = (self.current, self.flying.take()) {
            let sent = &mut model.transactions[current].sent[first..][..count];
            for (at, sent) in (base..).zip(sent) {
                sent.offset = Some(at);
                sent.cuts = cuts;
                self.births.insert(place, sent.births);
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
        let is_cut = network.fences > self.fences;
        let is_known = self.plan.has_twin || self.port.is_haunted || is_late || is_cut;
        let is_doubtful = self.is_doubtful && code == ErrorCode::OutOfOrderSequenceNumber.code();
        let is_reborn =
            self.may_be_another_topic(model) && code == ErrorCode::OutOfOrderSequenceNumber.code();
        let is_unjoined =
            self.may_have_lost_its_joining(network) && code == ErrorCode::InvalidTxnState.code();
        let is_wrong = code == BEGUN_BY_NOBODY || code == COMMITTED_AFTER_A_CUT;
        if is_wrong || !(is_known || is_doubtful || is_reborn || is_unjoined) {
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
        let often = match network.trouble {
            Trouble::SlowNetwork => 35,
            _ => 15,
        };
        if network.seed.percent(often) {
            self.steps.push_back(Step::Look);
        }
        match self.plan.work {
            Work::Append => self.plan_appends(network, model),
            Work::Chain(_) => self.steps.push_back(Step::Committed),
            Work::Member => self.plan_membership(network),
        }
    }

    fn plan_membership(&mut self, network: &mut Network) {
        let group = self.group(network);
        if self.membership.group != group {
            self.membership.forget();
            self.membership.group = group;
        }
        if network.seed.percent(4) && self.membership.is_in {
            if network.seed.percent(50) {
                self.steps.push_back(Step::Group(GroupStep::Leave));
                return;
            }
            self.membership.forget();
        }
        if !self.membership.is_in {
            self.steps.push_back(Step::Group(GroupStep::Join));
            return;
        }
        self.steps.push_back(Step::Group(GroupStep::Heartbeat));
        match self.membership.choose(network) {
            Some(place) => {
                self.input = place;
                self.steps.push_back(Step::Committed);
            }
            None => self.resting = 10,
        }
    }

    /// Whether a batch may be sent to another topic than the one before it. That knows nothing of the producer: in the new flow
    /// it takes nothing then but sequence 0 (P-43), in the old one, too, once the marker of a transaction is there that had begun on
    /// the topic before it (P-47).
    fn may_be_another_topic(&self, model: &Model) -> bool {
        let Some(Step::Send(place, _)) = self.steps.front() else {
            return false;
        };
        let is_between = model.births % 2 == 1;
        let before = self.births.get(place);
        place.0 == REBORN && (is_between || before.is_some_and(|births| *births != model.births))
    }

    /// Whether a power cut may have taken what a batch or offsets of the old flow rest on. In `always` that has no sync of its own,
    /// as nothing that rests on it can be synced without it: what comes then is refused.
    fn may_have_lost_its_joining(&self, network: &Network) -> bool {
        let rests_on_it = matches!(self.steps.front(), Some(Step::Send(..) | Step::Offsets(_)));
        rests_on_it
            && self.plan.flow == Flow::Tv1
            && network.mode == Mode::Always
            && network.power_cuts > self.begin_cuts
    }

    /// Whether what is asked for is about the topic that is deleted now and then.
    fn is_about_reborn(&self) -> bool {
        let (Some(Step::Join((topic, _))) | Some(Step::Send((topic, _), _))) = self.steps.front()
        else {
            return false;
        };
        *topic == REBORN
    }

    /// Whether an answer is none of an error: the transaction is aborted, or read again.
    fn goes_on(&mut self, code: i16, network: &Network) -> bool {
        let step = self.steps.front();
        if self.plan.work == Work::Member
            && is_rebalance(code)
            && matches!(step, Some(Step::Offsets(_)))
        {
            self.membership.fall_out(code);
            self.steps = VecDeque::from([Step::End(false)]);
            return true;
        }
        if matches!(step, Some(Step::Read(_))) && code == 1 && network.cuts > 0 {
            self.steps.clear();
            return true;
        }
        false
    }
}

/// The group that a client commits its offsets to.
pub(crate) fn group_of(work: Work, transactional_id: &str, cuts: u64) -> String {
    match work {
        Work::Member => format!("workers, {cuts}"),
        Work::Append | Work::Chain(_) => format!("group of {transactional_id}, {cuts}"),
    }
}

/// Notes what is sent; returns the number of its first record.
fn note(model: &mut Model, current: Option<usize>, place: Place, values: &[String]) -> usize {
    let Some(current) = current else { return 0 };
    let births = model.births;
    let sent = &mut model.transactions[current].sent;
    let first = sent.len();
    sent.extend(values.iter().map(|value| Sent {
        place,
        value: value.clone(),
        offset: None,
        cuts: 0,
        births,
    }));
    first
}

impl Client for Transactor {
    fn step(&mut self, network: &mut Network, model: &mut Model) -> Result<(), String> {
        let link = self.port.link();
        match self.port.progress(network) {
            Progress::Waiting => return Ok(()),
            Progress::Idle => {}
            Progress::Lost => {
                let (name, what) = (self.plan.name.clone(), self.steps.front().cloned());
                network.say(|| format!("{name}: {what:?}: no answer"));
                let is_batch = matches!(what, Some(Step::Send(..))) && self.plan.flow == Flow::Tv1;
                if is_batch && network.faults && network.seed.percent(30) {
                    self.give_up_batch(link);
                }
            }
            Progress::Answered(response) => {
                let what = self.steps.front().cloned();
                let code = self.take(response, network, model);
                let name = self.plan.name.clone();
                network.say(|| format!("{name}: {what:?}: {code}"));
                let is_between = code == 3 && self.is_about_reborn();
                if is_between {
                    // It is deleted, and comes back.
                    self.resting = 1 + network.seed.below(10);
                }
                if code != 0 && !is_passing(code) && !is_between && !self.goes_on(code, network) {
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
        let may_pause = self.plan.has_twin || self.plan.work == Work::Member;
        let often = match self.steps.front() {
            Some(Step::End(_) | Step::Offsets(_)) => 12,
            _ => 3,
        };
        if may_pause && network.faults && network.seed.percent(often) {
            self.resting = 20 + network.seed.below(150);
            return Ok(());
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
