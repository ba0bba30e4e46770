//! An idempotent producer without transactions, which feeds the chains.

use super::{Client, is_passing, requests};
use crate::model::{Model, Place, Sent};
use crate::network::Network;
use crate::port::{Port, Progress};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use std::collections::BTreeMap;
use tally_testkit::client::Producer;

struct Flying {
    place: Place,
    values: Vec<String>,
    /// The first of them in the model.
    first: usize,
}

/// The producer.
pub(crate) struct Writer {
    name: String,
    port: Port,
    producer: Option<Producer>,
    sequences: BTreeMap<Place, i32>,
    flying: Option<Flying>,
    last: u64,
    is_finishing: bool,
}

impl Writer {
    pub(crate) fn new(name: &str) -> Writer {
        Writer {
            name: name.to_owned(),
            port: Port::default(),
            producer: None,
            sequences: BTreeMap::new(),
            flying: None,
            last: 0,
            is_finishing: false,
        }
    }

    fn answered(&mut self, code: i16, base: i64, model: &mut Model) -> Result<(), String> {
        if is_passing(code) {
            return Ok(());
        }
        let flying = self.flying.take().ok_or("nothing was sent")?;
        if code != 0 {
            let place = flying.place;
            return Err(format!("{}: {place:?} answers {code}", self.name));
        }
        for (at, sent) in (base..).zip(&mut model.plain[flying.first..][..flying.values.len()]) {
            sent.offset = Some(at);
        }
        let count = i32::try_from(flying.values.len()).expect("a small batch");
        *self.sequences.entry(flying.place).or_default() += count;
        Ok(())
    }

    fn make(&mut self, network: &mut Network, model: &mut Model) -> Flying {
        let place = ("in", i32::from(network.seed.percent(50)));
        let count = 1 + network.seed.below(3);
        let first = model.plain.len();
        let mut values = Vec::new();
        for _ in 0..count {
            self.last += 1;
            let value = format!("{}/{}", self.name, self.last);
            model.plain.push(Sent {
                place,
                value: value.clone(),
                offset: None,
            });
            values.push(value);
        }
        Flying {
            place,
            values,
            first,
        }
    }
}

impl Client for Writer {
    fn step(&mut self, network: &mut Network, model: &mut Model) -> Result<(), String> {
        match self.port.progress(network) {
            Progress::Waiting => return Ok(()),
            Progress::Idle | Progress::Lost => {}
            Progress::Answered(response) if self.producer.is_none() => {
                let response = response.of::<InitProducerIdRequest>();
                if response.error_code == 0 {
                    self.producer = Some(Producer {
                        id: response.producer_id.0,
                        epoch: response.producer_epoch,
                    });
                } else if !is_passing(response.error_code) {
                    return Err(format!("{}: no id: {}", self.name, response.error_code));
                }
            }
            Progress::Answered(response) => {
                let response = response.of::<ProduceRequest>();
                let part = &response.responses[0].partition_responses[0];
                self.answered(part.error_code, part.base_offset, model)?;
            }
        }
        let Some(producer) = self.producer else {
            self.port
                .ask(network, 4, &requests::init(None, 60_000, None));
            return Ok(());
        };
        if self.flying.is_none() {
            if self.is_finishing || network.seed.percent(80) {
                return Ok(());
            }
            self.flying = Some(self.make(network, model));
        }
        if let Some(flying) = &self.flying {
            let sequence = self.sequences.get(&flying.place).copied().unwrap_or(0);
            let records = requests::batch(producer, sequence, false, &flying.values);
            let request = requests::produce(flying.place, None, records);
            self.port.ask(network, 9, &request);
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.is_finishing = true;
    }

    fn is_done(&self) -> bool {
        self.is_finishing && self.flying.is_none()
    }

    fn describe(&self) -> String {
        let flying = self.flying.as_ref().map(|flying| &flying.values);
        format!("{} with {flying:?}", self.name)
    }
}
