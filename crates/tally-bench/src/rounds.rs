//! Runs the cells: each round lets all programs do the same, in an order that changes, so that what the machine does besides
//! falls on all of them.

use crate::cells::{Cell, Load, Metric, ProduceCell, Rate};
use crate::engine::{Driver, Engine, Limits, Outcome};
use crate::frames::{TIME_MARK, time_in};
use crate::loads::{Fetch, Flow, Produce, ProduceLoad, TransactionLoad, Transactions};
use crate::realtime::RealTime;
use crate::requests::{self, FetchAsk};
use crate::still;
use crate::target::{Kind, Programs, Target};
use crate::waits::Follow;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tally_testkit::batches::Codec;

/// What one program showed in one round.
pub(crate) type Figures = BTreeMap<Metric, f64>;
/// What all rounds of a cell showed.
pub(crate) type Measured = BTreeMap<Kind, Vec<Figures>>;

const WARM_UP: Duration = Duration::from_millis(500);
/// Bytes written in a round at most: more would measure how the machine makes new memory.
const BYTES_MAX: u64 = 600_000_000;
/// A machine that takes longer than this to give a GB of memory (seconds) is asked again: what it has given once it gives
/// faster, for a while.
const NEW_MEMORY_MAX: f64 = 0.8;
const NEW_MEMORY_TRIES: usize = 3;
/// Requests that a connection has under way: what clients with idempotence may have (KIP-98).
const IN_FLIGHT: usize = 5;
/// Bytes of each partition that is read from memory.
const HOT_BYTES: u64 = 64_000_000;
/// Bytes that are read from the disk.
pub(crate) const COLD_BYTES: u64 = 1_000_000_000;

/// All that a run needs.
pub(crate) struct Rounds {
    /// Where the programs are.
    pub(crate) programs: Programs,
    /// How many rounds.
    pub(crate) rounds: usize,
    /// Seconds of a round.
    pub(crate) seconds: f64,
    /// The programs that run all the time.
    pub(crate) targets: Vec<Target>,
}

impl Rounds {
    fn limits(&self, cell: &Cell) -> Limits {
        Limits {
            warm_up: WARM_UP,
            warm_up_units: 0,
            measured: Duration::from_secs_f64(cell.seconds(self.seconds)),
            bytes_max: BYTES_MAX,
        }
    }

    /// Makes a virtual machine's compiler do its work before it is measured.
    pub(crate) fn warm(&self, bytes: u64, transactions: Duration) -> Result<()> {
        let Some(kafka) = self
            .targets
            .iter()
            .find(|target| target.kind == Kind::Kafka)
        else {
            return Ok(());
        };
        let batches = Limits {
            warm_up: Duration::ZERO,
            warm_up_units: 0,
            measured: Duration::from_secs(600),
            bytes_max: bytes / 10,
        };
        let began = Instant::now();
        for _ in 0..10 {
            run_produce(kafka, &load_of(65_536, 64), &batches, None)?;
        }
        let small = Limits {
            measured: transactions / 6,
            bytes_max: u64::MAX,
            ..batches
        };
        run_produce(kafka, &load_of(170, 1), &small, None)?;
        for flow in [Flow::Tv1, Flow::Tv2] {
            let half = Limits {
                measured: transactions / 2,
                ..small
            };
            run_transactions(kafka, (flow, 8, 3, false), &half)?;
        }
        eprintln!("Kafka is warm after {:.0} s", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// All rounds of a cell.
    pub(crate) fn measure(&self, cell: &Cell) -> Result<Measured> {
        let mut measured = Measured::new();
        let rounds = cell.rounds(self.rounds);
        let limits = self.limits(cell);
        let own = self.own(cell)?;
        let _kept = cell.load_on.map(OneProcessor::keep).transpose()?;
        let targets: Vec<&Target> = match &own {
            Some(own) => self
                .targets
                .iter()
                .filter(|target| target.kind != own.kind)
                .chain([own])
                .collect(),
            None => self.targets.iter().collect(),
        };
        let takes_part =
            |target: &&Target| target.kind == Kind::Other || cell.kinds.contains(&target.kind);
        let mut targets: Vec<&Target> = targets.into_iter().filter(takes_part).collect();
        if still::is_still(&cell.load) {
            for kind in targets.iter().map(|target| target.kind) {
                let figures = still::measure(&self.programs, kind, &cell.load, rounds)?;
                measured.insert(kind, figures);
            }
            return Ok(measured);
        }
        let realtime = cell.is_realtime.then(|| RealTime::begin(&targets));
        if let Some(Err(error)) = &realtime {
            eprintln!("{} is left out: {error:#}", cell.name);
            return Ok(measured);
        }
        for target in &targets {
            prepare(target, &cell.load)?;
        }
        for round in 0..rounds {
            let count = targets.len().max(1);
            targets.rotate_left((round + 1) % count);
            // Who sets the pace goes first; the others keep their order.
            targets.sort_by_key(|target| is_as_kafka(&cell.load) && target.kind != Kind::Kafka);
            for target in &targets {
                let Some(load) = load_now(&cell.load, target.kind, &measured) else {
                    continue;
                };
                let figures = self.round(target, &load, &limits);
                let figures =
                    figures.with_context(|| format!("{} of {}", cell.name, target.kind.name()))?;
                measured.entry(target.kind).or_default().push(figures);
            }
        }
        for target in &targets {
            if matches!(cell.load, Load::FetchHot { .. } | Load::FetchMany { .. }) {
                target.delete_topic();
            }
        }
        Ok(measured)
    }

    /// Tally as a process of its own, for a cell that has settings of its own.
    fn own(&self, cell: &Cell) -> Result<Option<Target>> {
        if cell.settings.is_empty() && cell.processors.is_none() {
            return Ok(None);
        }
        let programs = Programs {
            processors: cell.processors,
            ..self.programs.below("own")
        };
        Target::start(&programs, Kind::Tally, cell.settings).map(Some)
    }

    fn round(&self, target: &Target, load: &Load, limits: &Limits) -> Result<Figures> {
        if matches!(load, Load::Produce(batches) if batches.records > 1) {
            let mut tries = 1;
            while new_memory_cost() > NEW_MEMORY_MAX && tries < NEW_MEMORY_TRIES {
                tries += 1;
            }
        }
        let figures = match load {
            Load::Produce(load) => {
                per_request(&run_produce(target, load, limits, None)?, load.records > 1)
            }
            Load::PacedProduce(load, rate) => {
                per_request(&run_produce(target, load, limits, Some(*rate))?, false)
            }
            Load::EndToEnd(rate) => {
                let rate = match rate {
                    Rate::Fixed(rate) => Some(*rate),
                    Rate::Saturated | Rate::AsKafka => None,
                };
                per_request(&run_end_to_end(target, rate, limits)?, false)
            }
            Load::FetchHot { bytes_max } => {
                per_request(&run_fetch(target, *bytes_max, limits)?, true)
            }
            Load::FetchMany { partitions } => {
                per_request(&run_fetch_many(target, *partitions, limits)?, false)
            }
            Load::FetchCold { bytes_max } => {
                return still::cold(&self.programs, target, *bytes_max);
            }
            &Load::Transactions {
                flow,
                producers,
                partitions,
                has_offsets,
            } => {
                let what = (flow, producers, partitions, has_offsets);
                per_request(&run_transactions(target, what, limits)?, false)
            }
            _ => Figures::new(),
        };
        Ok(figures)
    }
}

fn is_as_kafka(load: &Load) -> bool {
    matches!(load, Load::EndToEnd(Rate::AsKafka))
}

/// What this program has to do in this round: where Kafka sets the pace, what Kafka just did. `None` if it did nothing.
fn load_now(load: &Load, kind: Kind, measured: &Measured) -> Option<Load> {
    if !is_as_kafka(load) || kind == Kind::Kafka {
        return Some(load.clone());
    }
    let rounds = measured.get(&Kind::Kafka)?;
    let rate = rounds.last()?.get(&Metric::PerSecond)?;
    Some(Load::EndToEnd(Rate::Fixed((rate.round() as u64).max(1))))
}

/// The load on one processor, until this goes.
struct OneProcessor {
    before: CpuSet,
}

impl OneProcessor {
    fn keep(processor: usize) -> Result<OneProcessor> {
        let before = sched_getaffinity(None)?;
        let mut one = CpuSet::new();
        one.set(processor);
        sched_setaffinity(None, &one)
            .with_context(|| format!("the load can't keep to processor {processor}"))?;
        Ok(OneProcessor { before })
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        let _gone = sched_setaffinity(None, &self.before).is_err();
    }
}

const fn load_of(bytes: usize, records: usize) -> ProduceCell {
    ProduceCell {
        bytes,
        records,
        partitions: 8,
        connections: 4,
        is_idempotent: true,
        codec: Codec::None,
    }
}

/// Seconds that a GB of memory costs that this machine has not given out: touches as much as a round will put into the page
/// cache, and gives it back.
fn new_memory_cost() -> f64 {
    let bytes = BYTES_MAX as usize;
    let began = Instant::now();
    let mut memory = Vec::<u8>::with_capacity(bytes);
    memory.resize(bytes, 1);
    std::hint::black_box(&memory);
    began.elapsed().as_secs_f64() / (bytes as f64 / 1e9)
}

/// The figures of a run; the cost is that of a GB or of a unit.
pub(crate) fn per_request(outcome: &Outcome, is_by_bytes: bool) -> Figures {
    let record = &outcome.record;
    let cpu = outcome.probed.1 - outcome.probed.0;
    let units = record.units.max(1) as f64;
    let mut figures = Figures::new();
    if is_by_bytes {
        figures.insert(Metric::CpuPerGb, cpu / (record.bytes.max(1) as f64 / 1e9));
    } else {
        figures.insert(Metric::CpuMicros, cpu / units * 1e6);
    }
    figures.insert(Metric::PerSecond, record.units as f64 / outcome.seconds);
    figures.insert(Metric::Cores, cpu / outcome.seconds);
    figures.insert(Metric::Again, record.again as f64 / units);
    let percentiles = [
        (Metric::P50, record.latency.percentile_ms(0.5)),
        (Metric::P99, record.latency.percentile_ms(0.99)),
        (Metric::P999, record.latency.percentile_ms(0.999)),
        (Metric::EndP99, record.last_latency.percentile_ms(0.99)),
        (Metric::SentP99, record.from_sent.percentile_ms(0.99)),
        (Metric::LateP99, record.late.percentile_ms(0.99)),
    ];
    figures.extend(
        percentiles
            .into_iter()
            .filter_map(|(metric, ms)| Some((metric, ms?))),
    );
    figures
}

fn run(target: &Target, drivers: Vec<Box<dyn Driver>>, limits: &Limits) -> Result<Outcome> {
    Engine::connect(target.address, drivers)?.run(limits, || target.cpu_seconds())
}

fn run_produce(
    target: &Target,
    cell: &ProduceCell,
    limits: &Limits,
    rate: Option<u64>,
) -> Result<Outcome> {
    let topic = target.new_topic(cell.partitions);
    let batch = requests::batch(cell.bytes, cell.records, cell.is_idempotent, false);
    let batch = batch.compressed(cell.codec).encode();
    let records = i32::try_from(cell.records)?;
    let load = Rc::new(ProduceLoad::new(&topic, cell.partitions, &batch, records));
    let producers = target.producers(cell.connections, None);
    let connections = producers.len() as u64;
    let drivers = (0..).zip(producers).map(|(nth, producer)| {
        let driver = Produce::new(Rc::clone(&load), producer, IN_FLIGHT);
        let driver = match rate {
            Some(rate) => driver.paced(
                connections * 1_000_000_000 / rate,
                nth * 1_000_000_000 / rate,
            ),
            None => driver,
        };
        Box::new(driver) as Box<dyn Driver>
    });
    let limits = Limits {
        // Each producer's first batch to a partition makes files and state: once, and not what a request costs.
        warm_up_units: connections * u64::try_from(cell.partitions)?,
        ..*limits
    };
    let outcome = run(target, drivers.collect(), &limits)?;
    target.delete_topic();
    Ok(outcome)
}

fn run_transactions(
    target: &Target,
    (flow, producers, partitions, has_offsets): (Flow, usize, i32, bool),
    limits: &Limits,
) -> Result<Outcome> {
    let topic = target.new_topic(partitions);
    let batch = requests::batch(170, 1, true, true).encode();
    let load = TransactionLoad {
        flow,
        topic: &topic,
        partitions,
        has_offsets,
        batch: &batch,
    };
    let prefix = "bench-transactions";
    if has_offsets && target.kind != Kind::Floor {
        let mut client = target.client();
        (0..producers).for_each(|nth| client.wait_for_group(&format!("{prefix}-{nth}-group")));
    }
    let drivers = (0..)
        .zip(target.producers(producers, Some(prefix)))
        .map(|(nth, producer)| {
            let id = format!("{prefix}-{nth}");
            Box::new(Transactions::new(&load, &id, producer)) as Box<dyn Driver>
        });
    let outcome = run(target, drivers.collect(), limits)?;
    target.delete_topic();
    Ok(outcome)
}

fn run_end_to_end(target: &Target, rate: Option<u64>, limits: &Limits) -> Result<Outcome> {
    let topic = target.new_topic(4);
    let mut batch = requests::batch(1200, 1, true, false);
    let value = batch.records[0]
        .value
        .as_mut()
        .context("a record has a value")?;
    let mut stamped = TIME_MARK.to_be_bytes().to_vec();
    stamped.extend_from_slice(&value[8..]);
    *value = Bytes::from(stamped);
    let batch = batch.encode();
    let time_at = time_in(&batch).context("a batch with a time")?;
    let load = Rc::new(ProduceLoad::new(&topic, 4, &batch, 1));
    let mut drivers: Vec<Box<dyn Driver>> = Vec::new();
    for partition in 0..4 {
        drivers.push(Box::new(Follow::new(&topic, partition, time_at)));
    }
    for producer in target.producers(1, None) {
        let produce = Produce::new(Rc::clone(&load), producer, IN_FLIGHT);
        let produce = match rate {
            Some(rate) => produce.paced(1_000_000_000 / rate, 0),
            None => produce,
        };
        drivers.push(Box::new(produce.uncounted()));
    }
    let outcome = run(target, drivers, limits)?;
    target.delete_topic();
    Ok(outcome)
}

/// Puts there what a cell reads.
fn prepare(target: &Target, load: &Load) -> Result<()> {
    match *load {
        Load::FetchHot { bytes_max } => {
            let (bytes, records) = hot_batch(bytes_max);
            fill(target, 4, (bytes, records), HOT_BYTES)
        }
        Load::FetchMany { partitions } => {
            target.new_topic(partitions);
            for partition in 0..partitions {
                fill_partition(target, partition, (1200, 1), 1)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The batches of what is read: large ones, unless the reads are small.
const fn hot_batch(bytes_max: i32) -> (usize, usize) {
    if bytes_max < 65_536 {
        (1300, 1)
    } else {
        (65_536 - 200, 64)
    }
}

/// Fills partitions with batches, so many bytes each.
pub(crate) fn fill(
    target: &Target,
    partitions: i32,
    batch: (usize, usize),
    bytes: u64,
) -> Result<()> {
    target.new_topic(partitions);
    for partition in 0..partitions {
        fill_partition(target, partition, batch, bytes)?;
    }
    Ok(())
}

fn fill_partition(
    target: &Target,
    partition: i32,
    (bytes, records): (usize, usize),
    total: u64,
) -> Result<()> {
    let batch = requests::batch(bytes, records, true, false).encode();
    let load = ProduceLoad::new(
        &target.topic(),
        partition + 1,
        &batch,
        i32::try_from(records)?,
    );
    let producer = target.producers(1, None).remove(0);
    let driver = Produce::new(Rc::new(load.only(partition)), producer, IN_FLIGHT);
    let count = total.div_ceil(batch.len() as u64);
    let limits = Limits {
        warm_up: Duration::ZERO,
        warm_up_units: 0,
        measured: Duration::from_secs(120),
        bytes_max: count * batch.len() as u64,
    };
    let outcome = run(target, vec![Box::new(driver.at_most(count))], &limits)?;
    ensure!(
        outcome.record.bytes == limits.bytes_max,
        "{} took too long",
        target.kind.name()
    );
    Ok(())
}

/// What a reader of the filled partitions has to know: bytes and records of a batch, and the end of a partition.
pub(crate) fn filled(batch: (usize, usize), bytes: u64) -> (usize, i64, i64) {
    let records = batch.1 as i64;
    let length = requests::batch(batch.0, batch.1, true, false)
        .encode()
        .len();
    let end = bytes.div_ceil(length as u64) as i64 * records;
    (length, records, end)
}

fn run_fetch(target: &Target, bytes_max: i32, limits: &Limits) -> Result<Outcome> {
    let batches = filled(hot_batch(bytes_max), HOT_BYTES);
    let drivers = (0..4).map(|partition| {
        let ask = FetchAsk::marked(partition, bytes_max);
        Box::new(Fetch::whole(&target.topic(), &ask, 0, batches)) as Box<dyn Driver>
    });
    let limits = Limits {
        bytes_max: u64::MAX,
        ..*limits
    };
    run(target, drivers.collect(), &limits)
}

/// Reads one partition once, from its beginning.
pub(crate) fn run_cold(target: &Target, bytes_max: i32) -> Result<Outcome> {
    let ask = FetchAsk::marked(0, bytes_max);
    let fetch = Fetch::whole(&target.topic(), &ask, 0, filled(COLD_BATCH, COLD_BYTES));
    let limits = Limits {
        warm_up: Duration::ZERO,
        warm_up_units: 0,
        measured: Duration::from_secs(60),
        // Not the last answers: they would begin again.
        bytes_max: COLD_BYTES - (4 << 20),
    };
    run(target, vec![Box::new(fetch)], &limits)
}

/// The batches of what is read from the disk.
pub(crate) const COLD_BATCH: (usize, usize) = (65_536 - 200, 64);

fn run_fetch_many(target: &Target, partitions: i32, limits: &Limits) -> Result<Outcome> {
    let drivers = (0..4).map(|_| {
        let ask = FetchAsk {
            partitions,
            offset: 0,
            ..FetchAsk::marked(0, 4096)
        };
        Box::new(Fetch::same(&target.topic(), &ask)) as Box<dyn Driver>
    });
    let limits = Limits {
        bytes_max: u64::MAX,
        ..*limits
    };
    run(target, drivers.collect(), &limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_follows_kafka_does_as_many_as_kafka_did() {
        let load = Load::EndToEnd(Rate::AsKafka);
        let mut measured = Measured::new();
        let rate = |load: Option<Load>| match load {
            Some(Load::EndToEnd(rate)) => Some(rate),
            _ => None,
        };
        let of_kafka = load_now(&load, Kind::Kafka, &measured);
        assert_eq!(rate(of_kafka), Some(Rate::AsKafka));
        assert!(load_now(&load, Kind::Tally, &measured).is_none());
        for done in [4000.0, 5283.4] {
            let figures = Figures::from([(Metric::PerSecond, done)]);
            measured.entry(Kind::Kafka).or_default().push(figures);
        }
        let of_tally = load_now(&load, Kind::Tally, &measured);
        assert_eq!(rate(of_tally), Some(Rate::Fixed(5283)));
        let saturated = load_now(&Load::EndToEnd(Rate::Saturated), Kind::Tally, &measured);
        assert_eq!(rate(saturated), Some(Rate::Saturated));
    }
}
