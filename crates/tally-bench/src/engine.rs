//! Drives all connections of a load from one thread, so that the load takes as little as possible of the processors that
//! it shares with what it measures.
//!
//! What is due at a given time is sent at that time: the thread sleeps until shortly before and then asks again and again
//! ([`WATCHFUL`]), and how late it was nevertheless is recorded. Latencies count from when a request was due, so a thread that did
//! not get its processor shows in them; [`Record::late`] says how much of them that is.
//!
//! A run has a warm-up that is not counted, a measured time, and an end in which what was begun is finished. Of an answer
//! the first [`HEAD_BYTES`] are kept, the rest is read and dropped.

use crate::histogram::Histogram;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{Timespec, epoll};
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of an answer that its driver sees at most.
const HEAD_BYTES: usize = 64 * 1024;
/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;
/// How long nothing may happen before the run is given up: far beyond every answer.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long before something is due the thread does not sleep any more: what timers and the way back to a processor take.
const WATCHFUL: Duration = Duration::from_micros(100);
/// Overdue requests that are sent before answers are read again.
const BURST_MAX: usize = 64;

/// What was done in the measured time.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Requests, transactions, or whatever the load counts.
    pub(crate) units: u64,
    /// Bytes of batches sent or received.
    pub(crate) bytes: u64,
    /// Requests that had to be sent again because the broker was not ready for them.
    pub(crate) again: u64,
    /// How long a unit took.
    pub(crate) latency: Histogram,
    /// How long its last request took, where it has several.
    pub(crate) last_latency: Histogram,
    /// How long it took from when it was really sent, where it was due at a given time.
    pub(crate) from_sent: Histogram,
    /// How much later than due it was sent.
    pub(crate) late: Histogram,
}

impl Record {
    fn new() -> Record {
        Record {
            units: 0,
            bytes: 0,
            again: 0,
            latency: Histogram::new(),
            last_latency: Histogram::new(),
            from_sent: Histogram::new(),
            late: Histogram::new(),
        }
    }
}

/// What a driver is given when something happens on its connection.
pub(crate) struct Turn<'a> {
    /// Nanoseconds since the run began.
    pub(crate) now: u64,
    /// Bytes to be sent.
    pub(crate) out: &'a mut Vec<u8>,
    /// Where done work is counted.
    pub(crate) record: &'a mut Record,
    /// Nothing new is to be begun.
    pub(crate) is_ending: bool,
}

/// The behaviour of one connection.
pub(crate) trait Driver {
    /// Once, at the beginning.
    fn begin(&mut self, turn: &mut Turn<'_>);

    /// An answer has come: its beginning without the length, and its whole length.
    fn answered(&mut self, frame: &[u8], length: usize, turn: &mut Turn<'_>) -> Result<()>;

    /// Something is due at this time (nanoseconds since the beginning).
    fn due(&self) -> Option<u64> {
        None
    }

    /// The time that [`Driver::due`] named has come.
    fn tick(&mut self, _turn: &mut Turn<'_>) {}

    /// Whether nothing is under way.
    fn is_idle(&self) -> bool;
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Not counted.
    pub(crate) warm_up: Duration,
    /// So many units are not counted either, however long they take: what is done once and not again.
    pub(crate) warm_up_units: u64,
    /// Counted.
    pub(crate) measured: Duration,
    /// Bytes after which the measured time ends earlier: files in memory cost another price than new memory does.
    pub(crate) bytes_max: u64,
}

/// A run's end.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// What was done.
    pub(crate) record: Record,
    /// In how many seconds.
    pub(crate) seconds: f64,
    /// What the probe showed at the beginning and at the end of the measured time.
    pub(crate) probed: (f64, f64),
}

struct Connection {
    stream: TcpStream,
    driver: Box<dyn Driver>,
    /// The part of the next answer that is here: its length first.
    head: Vec<u8>,
    /// Bytes of the current answer that are still to come and are dropped.
    skip: usize,
    out: Vec<u8>,
    sent: usize,
    waits_to_write: bool,
}

/// All connections of a load.
pub(crate) struct Engine {
    connections: Vec<Connection>,
    /// Those that do something at a given time.
    paced: Vec<usize>,
    epoll: rustix::fd::OwnedFd,
    began: Instant,
    record: Record,
    is_ending: bool,
    buffer: Vec<u8>,
}

impl Engine {
    /// Connects once for each driver.
    pub(crate) fn connect(address: SocketAddr, drivers: Vec<Box<dyn Driver>>) -> Result<Engine> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let paced = drivers.iter().enumerate();
        let paced = paced.filter(|(_, driver)| driver.due().is_some());
        let paced = paced.map(|(index, _)| index).collect();
        let mut connections = Vec::with_capacity(drivers.len());
        for (index, driver) in drivers.into_iter().enumerate() {
            let stream = TcpStream::connect(address)
                .with_context(|| format!("connection {index} to {address}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN)?;
            connections.push(Connection {
                stream,
                driver,
                head: Vec::new(),
                skip: 0,
                out: Vec::new(),
                sent: 0,
                waits_to_write: false,
            });
        }
        Ok(Engine {
            connections,
            paced,
            epoll,
            began: Instant::now(),
            record: Record::new(),
            is_ending: false,
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Runs the load; `probe` is read at the edges of the measured time.
    pub(crate) fn run(
        mut self,
        limits: &Limits,
        mut probe: impl FnMut() -> Result<f64>,
    ) -> Result<Outcome> {
        self.began = Instant::now();
        for index in 0..self.connections.len() {
            self.turn(index, |driver, turn| {
                driver.begin(turn);
                Ok(())
            })?;
        }
        let warmed = self.began + limits.warm_up;
        while Instant::now() < warmed && self.record.bytes < limits.bytes_max {
            self.step(warmed)?;
        }
        let touched = Instant::now() + SILENCE_MAX;
        while self.record.units < limits.warm_up_units && Instant::now() < touched {
            self.step(touched)?;
        }
        self.record = Record::new();
        let before = probe()?;
        let began = Instant::now();
        let end = began + limits.measured;
        while Instant::now() < end && self.record.bytes < limits.bytes_max {
            self.step(end)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        let after = probe()?;
        let record = self.record.clone();
        self.finish()?;
        Ok(Outcome {
            record,
            seconds,
            probed: (before, after),
        })
    }

    /// Lets what is under way end.
    fn finish(&mut self) -> Result<()> {
        self.is_ending = true;
        let end = Instant::now() + SILENCE_MAX;
        while !self
            .connections
            .iter()
            .all(|connection| connection.driver.is_idle())
        {
            ensure!(Instant::now() < end, "what was begun does not end");
            self.step(end)?;
        }
        Ok(())
    }

    /// Waits for something to happen, until `end` at most, and does what follows from it.
    fn step(&mut self, end: Instant) -> Result<()> {
        let due = self.next_due();
        let now = Instant::now();
        let until = due.map_or(end, |(at, _)| {
            end.min(self.began + Duration::from_nanos(at))
        });
        let wait = until.saturating_duration_since(now).min(SILENCE_MAX);
        let wait = match due {
            Some(_) => wait.saturating_sub(WATCHFUL),
            None => wait,
        };
        let timeout = Timespec {
            tv_sec: wait.as_secs().try_into()?,
            tv_nsec: wait.subsec_nanos().into(),
        };
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 256];
        let (ready, _) = match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        ensure!(
            !ready.is_empty() || wait < SILENCE_MAX,
            "no answer for {SILENCE_MAX:?}"
        );
        for &event in &*ready {
            let (data, flags) = (event.data, event.flags);
            let index = data.u64() as usize;
            if flags.contains(epoll::EventFlags::OUT) {
                self.flush(index)?;
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP) {
                self.read(index)?;
            }
        }
        for _ in 0..BURST_MAX {
            let due = self.next_due();
            let is_due = |at: u64| self.began.elapsed() >= Duration::from_nanos(at);
            let Some((_, index)) = due.filter(|(at, _)| is_due(*at)) else {
                break;
            };
            self.turn(index, |driver, turn| {
                driver.tick(turn);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The time for which something is planned next, and the connection.
    fn next_due(&self) -> Option<(u64, usize)> {
        let due = self.paced.iter().filter_map(|&index| {
            let due = self.connections[index].driver.due()?;
            Some((due, index))
        });
        due.min()
    }

    /// Gives a driver its turn and sends what it has to say.
    fn turn(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut dyn Driver, &mut Turn<'_>) -> Result<()>,
    ) -> Result<()> {
        let connection = &mut self.connections[index];
        let mut turn = Turn {
            now: self.began.elapsed().as_nanos() as u64,
            out: &mut connection.out,
            record: &mut self.record,
            is_ending: self.is_ending,
        };
        act(connection.driver.as_mut(), &mut turn)?;
        self.flush(index)
    }

    fn flush(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        while connection.sent < connection.out.len() {
            match connection.stream.write(&connection.out[connection.sent..]) {
                Ok(written) => connection.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("sending a request"),
            }
        }
        let is_done = connection.sent == connection.out.len();
        if is_done {
            connection.out.clear();
            connection.sent = 0;
        }
        if connection.waits_to_write == is_done {
            connection.waits_to_write = !is_done;
            let mut flags = epoll::EventFlags::IN;
            flags.set(epoll::EventFlags::OUT, !is_done);
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.stream, data, flags)?;
        }
        Ok(())
    }

    /// Reads once: what is left in the socket shows up again.
    fn read(&mut self, index: usize) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.connections[index].stream.read(&mut buffer);
        let result = match read {
            Ok(0) => bail!("the broker closed the connection"),
            Ok(count) => self.take(index, &buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).context("reading an answer"),
        };
        self.buffer = buffer;
        result
    }

    /// Cuts what was read into answers.
    fn take(&mut self, index: usize, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let connection = &mut self.connections[index];
            if connection.skip > 0 {
                let skipped = connection.skip.min(bytes.len());
                connection.skip -= skipped;
                bytes = &bytes[skipped..];
                if connection.skip > 0 {
                    return Ok(());
                }
                self.answer(index)?;
                continue;
            }
            let wanted = match connection.head.first_chunk::<4>() {
                Some(length) => 4 + (i32::from_be_bytes(*length) as usize).min(HEAD_BYTES),
                None => 4,
            };
            let taken = (wanted - connection.head.len()).min(bytes.len());
            connection.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if connection.head.len() < wanted || wanted == 4 {
                continue;
            }
            let length = length_of(&connection.head);
            connection.skip = length.saturating_sub(HEAD_BYTES);
            if connection.skip == 0 {
                self.answer(index)?;
            }
        }
        self.flush(index)
    }

    /// The answer in `head` is whole.
    fn answer(&mut self, index: usize) -> Result<()> {
        let connection = &mut self.connections[index];
        let mut turn = Turn {
            now: self.began.elapsed().as_nanos() as u64,
            out: &mut connection.out,
            record: &mut self.record,
            is_ending: self.is_ending,
        };
        let length = length_of(&connection.head);
        connection
            .driver
            .answered(&connection.head[4..], length, &mut turn)?;
        connection.head.clear();
        Ok(())
    }
}

fn length_of(head: &[u8]) -> usize {
    let length = head
        .first_chunk::<4>()
        .map_or(0, |length| i32::from_be_bytes(*length));
    usize::try_from(length).unwrap_or(0)
}
