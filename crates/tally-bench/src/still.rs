//! Cells about brokers to which little happens: memory, idle connections and consumers, starts, and data that is not in
//! memory. Each measures a process of its own that begins with nothing.

use crate::cells::{Load, Metric};
use crate::engine::{Driver, Engine, Limits};
use crate::rounds::{COLD_BATCH, COLD_BYTES, Figures, fill, per_request, run_cold};
use crate::target::{Kind, Programs, Target};
use crate::waits::{Idle, IdleConsumer};
use anyhow::{Context, Result};
use rustix::fs::Advice;
use rustix::io::ReadWriteFlags;
use std::fs::{self, File};
use std::io::IoSliceMut;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tally_testkit::batches::Batch;
use tally_testkit::client::Client;

/// How long a process is left alone before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);
/// Bytes that are written before each sync.
const SYNCED_BYTES: usize = 4096;

/// Whether a load is measured here.
pub(crate) const fn is_still(load: &Load) -> bool {
    matches!(
        load,
        Load::Empty
            | Load::IdlePartitions(_)
            | Load::IdleConnections(_)
            | Load::IdleConsumers(_)
            | Load::IdleProducers(_)
            | Load::Start(_)
            | Load::Tail(_)
    )
}

/// Measures a load; what does not vary is measured once.
pub(crate) fn measure(
    programs: &Programs,
    kind: Kind,
    load: &Load,
    rounds: usize,
) -> Result<Vec<Figures>> {
    let programs = programs.below("own");
    let rounds = if matches!(load, Load::Start(_) | Load::Tail(_)) {
        rounds
    } else {
        1
    };
    (0..rounds).map(|_| once(&programs, kind, load)).collect()
}

fn once(programs: &Programs, kind: Kind, load: &Load) -> Result<Figures> {
    let mut target = Target::start(programs, kind, &[])?;
    std::thread::sleep(SETTLE);
    match *load {
        Load::IdlePartitions(count) => grown(&target, u64::try_from(count)?, || {
            target.new_topic(count);
            Ok(())
        }),
        Load::IdleProducers(count) => {
            let topic = target.new_topic(100);
            let mut client = target.client();
            grown(&target, u64::try_from(count)?, || {
                write_as_many(&mut client, &topic, count)
            })
        }
        Load::IdleConnections(count) => idle_connections(&target, count),
        Load::IdleConsumers(count) => idle_consumers(&target, count),
        Load::Start(partitions) => starts(&mut target, partitions),
        Load::Tail(bytes) => start_after_tail(&mut target, bytes),
        _ => memory(&target),
    }
}

fn memory(target: &Target) -> Result<Figures> {
    let (all, anonymous) = target.memory()?;
    Ok(Figures::from([
        (Metric::MegaBytes, all as f64 / 1e6),
        (Metric::AnonymousMegaBytes, anonymous as f64 / 1e6),
        (Metric::StartMs, target.start.as_secs_f64() * 1e3),
    ]))
}

/// What memory is there for each of `count` things that `make` makes.
fn grown(target: &Target, count: u64, make: impl FnOnce() -> Result<()>) -> Result<Figures> {
    let before = target.memory()?.1;
    make()?;
    std::thread::sleep(SETTLE);
    let mut figures = memory(target)?;
    let more = target.memory()?.1.saturating_sub(before);
    figures.insert(Metric::BytesEach, more as f64 / count as f64);
    Ok(figures)
}

/// A batch of each of `count` idempotent producers, spread over 100 partitions.
fn write_as_many(client: &mut Client, topic: &str, count: i32) -> Result<()> {
    use kafka_protocol::messages::ProduceRequest;
    let all: Vec<i32> = (0..count).collect();
    for some in all.chunks(100) {
        let batches: Vec<_> = some
            .iter()
            .map(|&producer| {
                (
                    producer % 100,
                    Batch::idempotent(i64::from(producer), 0, 0, 1).encode(),
                )
            })
            .collect();
        let parts: Vec<_> = batches
            .iter()
            .map(|(index, batch)| (*index, batch))
            .collect();
        let request = crate::requests::produce(topic, None, &parts);
        let response = client.call::<ProduceRequest>(9, &request);
        let rows = &response.responses[0].partition_responses;
        anyhow::ensure!(rows.iter().all(|row| row.error_code == 0), "{rows:?}");
    }
    Ok(())
}

fn idle_connections(target: &Target, count: usize) -> Result<Figures> {
    let before = target.memory()?.1;
    let drivers = (0..count).map(|_| Box::new(Idle::new()) as Box<dyn Driver>);
    let engine = Engine::connect(target.address, drivers.collect())?;
    let limits = Limits {
        warm_up: Duration::ZERO,
        warm_up_units: 0,
        measured: SETTLE + Duration::from_secs(3),
        bytes_max: u64::MAX,
    };
    let outcome = engine.run(&limits, || Ok(target.memory()?.1 as f64))?;
    let mut figures = memory(target)?;
    let more = outcome.probed.1 - before as f64;
    figures.insert(Metric::BytesEach, more / count as f64);
    Ok(figures)
}

fn idle_consumers(target: &Target, count: usize) -> Result<Figures> {
    let partitions = 100;
    let topic = target.new_topic(partitions);
    let drivers = (0..partitions)
        .cycle()
        .take(count)
        .map(|partition| Box::new(IdleConsumer::new(&topic, partition)) as Box<dyn Driver>);
    let engine = Engine::connect(target.address, drivers.collect())?;
    let limits = Limits {
        warm_up: Duration::from_secs(3),
        warm_up_units: 0,
        measured: Duration::from_secs(5),
        bytes_max: u64::MAX,
    };
    let outcome = engine.run(&limits, || target.cpu_seconds())?;
    let mut figures = per_request(&outcome, false);
    figures.extend(memory(target)?);
    Ok(figures)
}

fn starts(target: &mut Target, partitions: i32) -> Result<Figures> {
    use kafka_protocol::messages::ProduceRequest;
    let topic = target.new_topic(partitions);
    let batch = Batch::plain(10).encode();
    let mut client = target.client();
    let all: Vec<i32> = (0..partitions).collect();
    for some in all.chunks(100) {
        let parts: Vec<_> = some.iter().map(|&index| (index, &batch)).collect();
        client.call::<ProduceRequest>(9, &crate::requests::produce(&topic, None, &parts));
    }
    drop(client);
    let ms = |target: &Target| target.start.as_secs_f64() * 1e3;
    target.stop()?;
    target.start_again()?;
    let clean = ms(target);
    let cpu = target.cpu_seconds()? * 1e3;
    target.kill()?;
    target.start_again()?;
    Ok(Figures::from([
        (Metric::StartMs, clean),
        (Metric::StartCpuMs, cpu),
        (Metric::StartAfterKillMs, ms(target)),
    ]))
}

/// A start after kill -9: everything is behind the last sync, unless the broker has synced by itself meanwhile.
fn start_after_tail(target: &mut Target, bytes: u64) -> Result<Figures> {
    fill(target, 1, COLD_BATCH, bytes)?;
    target.kill()?;
    target.start_again()?;
    let ms = target.start.as_secs_f64() * 1e3;
    Ok(Figures::from([(Metric::StartAfterKillMs, ms)]))
}

/// Milliseconds of an `fdatasync` of a file that is written over, as a journal is: half of them were faster.
pub(crate) fn sync_ms(directory: &Path) -> Result<f64> {
    use std::os::unix::fs::FileExt;
    const TIMES: u64 = 100;
    let path = directory.join("sync");
    let file = File::create(&path)?;
    file.write_all_at(&vec![7; TIMES as usize * SYNCED_BYTES], 0)?;
    file.sync_all()?;
    let mut took = Vec::new();
    for nth in 0..TIMES {
        file.write_all_at(&[1; SYNCED_BYTES], nth * SYNCED_BYTES as u64)?;
        let began = Instant::now();
        file.sync_data()?;
        took.push(began.elapsed());
    }
    fs::remove_file(&path)?;
    took.sort_unstable();
    Ok(took[took.len() / 2].as_secs_f64() * 1e3)
}

/// Reads what has been dropped from memory. Tally is stopped for that, because mapped pages stay; the floor maps nothing.
pub(crate) fn cold(programs: &Programs, running: &Target, bytes_max: i32) -> Result<Figures> {
    let mut own = match running.kind {
        Kind::Tally => Some(Target::start(&programs.below("own"), Kind::Tally, &[])?),
        _ => None,
    };
    let data = own.as_ref().unwrap_or(running).data();
    fill(own.as_ref().unwrap_or(running), 1, COLD_BATCH, COLD_BYTES)?;
    if let Some(own) = &mut own {
        own.stop()?;
    }
    let resident = drop_from_memory(&data)?;
    if let Some(own) = &mut own {
        own.start_again()?;
    }
    let target = own.as_ref().unwrap_or(running);
    let faults = target.worker_faults()?;
    let mut figures = per_request(&run_cold(target, bytes_max)?, true);
    let faults = target.worker_faults()?.saturating_sub(faults);
    figures.insert(Metric::WorkerFaults, faults as f64);
    figures.insert(Metric::Resident, resident);
    if own.is_none() {
        running.delete_topic();
    }
    Ok(figures)
}

/// Syncs all files and lets the kernel forget their pages; the share that it kept.
fn drop_from_memory(directory: &Path) -> Result<f64> {
    let (mut kept, mut looked) = (0u64, 0u64);
    for path in files(directory)? {
        let file = File::open(&path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        let length = file.metadata()?.len();
        for position in (0..length).step_by(1 << 20) {
            looked += 1;
            kept += u64::from(is_resident(&file, position)?);
        }
    }
    Ok(kept as f64 / looked.max(1) as f64)
}

/// Whether a byte can be read without waiting for the disk.
fn is_resident(file: &File, position: u64) -> Result<bool> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    match rustix::io::preadv2(file, &mut buffers, position, ReadWriteFlags::NOWAIT) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(error) => Err(error).context("preadv2"),
    }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    Ok(found)
}
