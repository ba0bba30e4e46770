//! A read_committed reader, which filters as clients do (F-8), and an auditor that reads along with everything.

use super::{Client, is_passing, requests};
use crate::model::{Model, Place, REBORN, is_plain, places};
use crate::network::Network;
use crate::port::{Port, Progress};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use std::collections::{BTreeMap, BTreeSet};
use tally_testkit::batches::read_batches;

/// What an answer to a fetch gives to the application.
#[derive(Debug)]
pub(crate) struct Given {
    /// Records with their offsets.
    pub(crate) records: Vec<(i64, String)>,
    /// Where to go on.
    pub(crate) position: i64,
    pub(crate) stable: i64,
    pub(crate) high_watermark: i64,
}

/// Reads the one partition of an answer to a fetch from `from` on; an error is its code.
pub(crate) fn given(response: &FetchResponse, from: i64) -> Result<Given, i16> {
    let part = &response.responses.first().map(|topic| &topic.partitions[0]);
    let Some(part) = part.filter(|_| response.error_code == 0) else {
        return Err(response.error_code);
    };
    if part.error_code != 0 {
        return Err(part.error_code);
    }
    let aborted = part.aborted_transactions.iter().flatten();
    let mut aborted: Vec<(i64, i64)> = aborted
        .map(|one| (one.producer_id.0, one.first_offset))
        .collect();
    let mut given = Given {
        records: Vec::new(),
        position: from,
        stable: part.last_stable_offset,
        high_watermark: part.high_watermark,
    };
    let mut dropping = BTreeSet::new();
    for batch in read_batches(part.records.as_ref().unwrap_or(&bytes::Bytes::new())) {
        let header = &batch.header;
        let last = header.last_offset().0;
        aborted.retain(|(producer, first)| {
            let begins = *first <= last;
            if begins {
                dropping.insert(*producer);
            }
            !begins
        });
        given.position = last + 1;
        if let Some(commit) = batch.marker() {
            if !commit {
                dropping.remove(&header.producer_id.0);
            }
            continue;
        }
        if header.is_transactional() && dropping.contains(&header.producer_id.0) {
            continue;
        }
        for record in batch.records.iter().filter(|record| record.offset >= from) {
            let value = record.value.as_deref().unwrap_or_default();
            let value = String::from_utf8_lossy(value).into_owned();
            given.records.push((record.offset, value));
        }
    }
    Ok(given)
}

/// Reads along with all partitions.
pub(crate) struct Auditor {
    port: Port,
    positions: BTreeMap<Place, i64>,
    current: Option<Place>,
    /// [`Model::births`] when it asked.
    births: u64,
    /// How often the power had been cut when it began to read: the same of all records, and of those that decide nothing.
    cuts: (u64, u64),
    is_finishing: bool,
}

impl Auditor {
    pub(crate) fn new() -> Auditor {
        Auditor {
            port: Port::default(),
            positions: places().map(|place| (place, 0)).collect(),
            current: None,
            births: 0,
            cuts: (0, 0),
            is_finishing: false,
        }
    }
}

impl Client for Auditor {
    fn step(&mut self, network: &mut Network, model: &mut Model) -> Result<(), String> {
        let cuts = (network.cuts, network.plain_cuts);
        if self.cuts != cuts {
            // What was read may be gone: it reads again, and from now on that stays. In `commit` what is committed stays (CR-28).
            let is_lost = |(topic, _): &Place| self.cuts.0 != cuts.0 || is_plain(topic);
            self.positions
                .iter_mut()
                .filter(|(place, _)| is_lost(place))
                .for_each(|(_, position)| *position = 0);
            model.seen.retain(|place, _| !is_lost(place));
            self.cuts = cuts;
            self.current = None;
        }
        if self.births != model.births {
            // It is another topic, or will be: what is still under way may be of either.
            self.births = model.births;
            let of_reborn = self
                .positions
                .iter_mut()
                .filter(|((topic, _), _)| *topic == REBORN);
            of_reborn.for_each(|(_, position)| *position = 0);
            model.seen.retain(|(topic, _), _| *topic != REBORN);
            self.current.take_if(|(topic, _)| *topic == REBORN);
        }
        match self.port.progress(network) {
            Progress::Waiting => return Ok(()),
            Progress::Idle | Progress::Lost => {}
            Progress::Answered(response) => {
                let Some(place) = self.current.take() else {
                    return Ok(());
                };
                let from = self.positions[&place];
                match given(&response.of::<FetchRequest>(), from) {
                    Ok(given) => {
                        self.positions.insert(place, given.position);
                        model.seen.entry(place).or_default().extend(given.records);
                    }
                    Err(code) if is_passing(code) => {}
                    Err(code) => return Err(format!("auditor: {place:?} at {from}: {code}")),
                }
            }
        }
        if self.is_finishing {
            self.current = None;
            return Ok(());
        }
        let choices: Vec<Place> = places().collect();
        let place = choices[network.seed.index(choices.len())];
        if place.0 == REBORN && model.births % 2 == 1 {
            return Ok(());
        }
        let bytes = [1, 200, 1 << 20][network.seed.index(3)];
        let request = requests::fetch(place, self.positions[&place], 1, bytes);
        self.current = Some(place);
        self.port.ask(network, 12, &request);
        Ok(())
    }

    fn finish(&mut self) {
        self.is_finishing = true;
    }

    fn is_done(&self) -> bool {
        self.is_finishing && self.current.is_none()
    }

    fn describe(&self) -> String {
        format!("auditor at {:?}", self.current)
    }
}
