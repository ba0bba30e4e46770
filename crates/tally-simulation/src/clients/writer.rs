//! An idempotent producer without transactions, which feeds the chains: up to five batches are under way at once, and after a
//! lost connection all that are not answered are sent again, in order (P-31, P-52).
//!
//! Now and then it stops trying, as a client does whose delivery timeout has passed: those batches it never sends again, and goes
//! on with the next epoch at sequence 0 (P-39). What it had sent may still come (P-38).

use super::{Client, is_passing, requests};
use crate::model::{Model, Place, Sent};
use crate::network::{Event, Network};
use crate::port::{CORRELATION_ID, gives_up};
use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use std::collections::{BTreeMap, VecDeque};
use tally_protocol::ErrorCode;
use tally_protocol::ids::to_u64;
use tally_testkit::client::Producer;
use tally_testkit::wire;

/// Batches under way at once: as many as a partition remembers.
const FLIGHT_MAX: usize = 5;
const PRODUCE: i16 = 9;
const INIT: i16 = 4;

/// Where a producer begins that no partition knows: some are about to use the highest sequence (P-42, P-45, P-49).
fn first_sequence(producer_id: i64) -> i32 {
    if producer_id % 3 == 1 {
        i32::MAX - 6
    } else {
        0
    }
}

/// The sequence `count` records later, modulo 2^31.
fn after(sequence: i32, count: usize) -> i32 {
    let count = i32::try_from(count).expect("a small batch");
    sequence.wrapping_add(count) & i32::MAX
}

struct Batch {
    /// Its number among all batches.
    number: u64,
    values: Vec<String>,
    sequence: i32,
    /// The first of the values in the model.
    first: usize,
}

/// The producer.
pub(crate) struct Writer {
    name: String,
    topic: &'static str,
    place: Place,
    link: Option<u64>,
    producer: Option<Producer>,
    /// How often the power had been cut when it got its id ([`Network::plain_cuts`]).
    cuts: u64,
    asks_for_id: bool,
    /// The next sequence of each partition.
    sequences: BTreeMap<Place, i32>,
    /// The first one, of every partition.
    first_sequence: i32,
    /// Not answered well yet, all of one partition.
    queue: VecDeque<Batch>,
    /// How many of them are under way.
    flying: usize,
    /// How many of those that were under way were refused for now: those behind them are, too, unless they had come before.
    refused: usize,
    last: u64,
    batches: u64,
    /// Turns before it connects again.
    resting: u64,
    is_finishing: bool,
}

impl Writer {
    pub(crate) fn new(name: &str, topic: &'static str) -> Writer {
        Writer {
            name: name.to_owned(),
            topic,
            place: (topic, 0),
            link: None,
            producer: None,
            cuts: 0,
            asks_for_id: false,
            sequences: BTreeMap::new(),
            first_sequence: 0,
            queue: VecDeque::new(),
            flying: 0,
            refused: 0,
            last: 0,
            batches: 0,
            resting: 0,
            is_finishing: false,
        }
    }

    fn hear(&mut self, network: &mut Network, model: &mut Model) -> Result<(), String> {
        let Some(link) = self.link else { return Ok(()) };
        match network.event(link) {
            Some(Event::Gone) => self.land(),
            Some(Event::Answer(bytes)) if self.asks_for_id => self.take_id(network, bytes)?,
            Some(Event::Answer(bytes)) => self.take(network, bytes, model)?,
            None if !network.faults || (self.flying == 0 && !self.asks_for_id) => {}
            None if gives_up(network, link) => {
                network.leave(link);
                self.land();
                self.resting = network.seed.below(60);
                if network.seed.percent(30) {
                    self.stop_trying(network);
                }
            }
            None => {}
        }
        Ok(())
    }

    /// The connection is gone, and with it every answer.
    fn land(&mut self) {
        self.link = None;
        self.asks_for_id = false;
        self.flying = 0;
        self.refused = 0;
    }

    fn stop_trying(&mut self, network: &mut Network) {
        let Some(producer) = &mut self.producer else {
            return;
        };
        let (name, count) = (&self.name, self.queue.len());
        network.say(|| format!("{name} stops trying for {count} batches"));
        producer.epoch += 1;
        self.queue.clear();
        self.sequences.clear();
        self.first_sequence = 0;
    }

    fn take_id(&mut self, network: &Network, bytes: Bytes) -> Result<(), String> {
        self.asks_for_id = false;
        let response = wire::decode_response::<InitProducerIdRequest>(INIT, CORRELATION_ID, bytes);
        if response.error_code == 0 {
            self.producer = Some(Producer {
                id: response.producer_id.0,
                epoch: response.producer_epoch,
            });
            self.cuts = network.plain_cuts;
            self.sequences.clear();
            self.first_sequence = first_sequence(response.producer_id.0);
            self.number_anew();
        } else if !is_passing(response.error_code) {
            return Err(format!("{}: no id: {}", self.name, response.error_code));
        }
        Ok(())
    }

    fn number_anew(&mut self) {
        let mut next = self.first_sequence;
        for batch in &mut self.queue {
            batch.sequence = next;
            next = after(next, batch.values.len());
        }
        self.sequences.insert(self.place, next);
    }

    /// The answer to the first batch under way.
    fn take(
        &mut self,
        network: &mut Network,
        bytes: Bytes,
        model: &mut Model,
    ) -> Result<(), String> {
        let response = wire::decode_response::<ProduceRequest>(PRODUCE, CORRELATION_ID, bytes);
        let part = &response.responses[0].partition_responses[0];
        let (code, base) = (part.error_code, part.base_offset);
        self.flying -= 1;
        if code == 0 {
            // Behind a refused one it is a duplicate, or the judge will find it out of order.
            let Some(batch) = self.queue.remove(self.refused) else {
                return Err(format!("{}: nothing was sent", self.describe()));
            };
            let sent = &mut model.plain[batch.first..][..batch.values.len()];
            for (at, sent) in (base..).zip(sent) {
                sent.offset = Some(at);
                sent.cuts = network.plain_cuts;
            }
            self.come_back();
            return Ok(());
        }
        let is_behind = code == ErrorCode::OutOfOrderSequenceNumber.code() && self.refused > 0;
        if !is_passing(code) && !is_behind {
            if network.plain_cuts == self.cuts {
                return Err(format!("{} is refused with {code}", self.describe()));
            }
            // What it had been told is gone; it begins anew.
            let name = &self.name;
            network.say(|| format!("{name} is refused with {code}"));
            self.producer = None;
            if let Some(link) = self.link {
                network.leave(link);
            }
            self.land();
            return Ok(());
        }
        self.refused += 1;
        self.come_back();
        Ok(())
    }

    /// What was refused is sent again when the last that was under way has come back.
    fn come_back(&mut self) {
        if self.flying == 0 {
            self.refused = 0;
        }
    }

    fn make(&mut self, network: &mut Network, model: &mut Model) {
        if self.queue.is_empty() {
            self.place = (self.topic, i32::from(network.seed.percent(50)));
        }
        for _ in 0..=network.seed.index(FLIGHT_MAX) {
            let first = model.plain.len();
            let mut values = Vec::new();
            for _ in 0..=network.seed.below(2) {
                self.last += 1;
                let value = format!("{}/{}", self.name, self.last);
                model.plain.push(Sent {
                    place: self.place,
                    value: value.clone(),
                    offset: None,
                    cuts: network.plain_cuts,
                    births: 0,
                });
                values.push(value);
            }
            let first_sequence = self.first_sequence;
            let next = self.sequences.entry(self.place).or_insert(first_sequence);
            let sequence = *next;
            *next = after(sequence, values.len());
            self.batches += 1;
            self.queue.push_back(Batch {
                number: self.batches,
                values,
                sequence,
                first,
            });
        }
    }

    fn send(&mut self, network: &mut Network) {
        let Some(producer) = self.producer else {
            if !self.asks_for_id {
                self.asks_for_id = true;
                let link = *self.link.get_or_insert_with(|| network.connect());
                let request = requests::init(None, 60_000, None);
                network.send(link, &wire::frame(INIT, CORRELATION_ID, &request));
            }
            return;
        };
        if self.refused > 0 {
            return;
        }
        for batch in self.queue.iter().skip(self.flying) {
            // The first batch of an epoch flies alone: were it refused, a partition that knows nothing of the producer would take
            // the one behind it (P-42).
            let is_behind_first = self.flying > 0 && self.queue[0].sequence == self.first_sequence;
            // Five batches behind one that has no answer yet nobody knows any more whether it was written (P-31).
            let is_far_behind = batch.number - self.queue[0].number >= to_u64(FLIGHT_MAX);
            if self.flying == FLIGHT_MAX || is_behind_first || is_far_behind {
                return;
            }
            let records = requests::batch(producer, batch.sequence, false, &batch.values);
            let request = requests::produce(self.place, None, records);
            let link = *self.link.get_or_insert_with(|| network.connect());
            network.send(link, &wire::frame(PRODUCE, CORRELATION_ID, &request));
            self.flying += 1;
        }
    }
}

impl Client for Writer {
    fn step(&mut self, network: &mut Network, model: &mut Model) -> Result<(), String> {
        self.hear(network, model)?;
        if self.resting > 0 {
            self.resting -= 1;
            return Ok(());
        }
        if self.queue.len() < FLIGHT_MAX && !self.is_finishing && network.seed.percent(20) {
            self.make(network, model);
        }
        self.send(network);
        Ok(())
    }

    fn finish(&mut self) {
        self.is_finishing = true;
    }

    fn is_done(&self) -> bool {
        self.is_finishing && self.queue.is_empty()
    }

    fn describe(&self) -> String {
        let queue: Vec<_> = self.queue.iter().map(|batch| &batch.values).collect();
        format!("{} with {queue:?}, {} under way", self.name, self.flying)
    }
}
