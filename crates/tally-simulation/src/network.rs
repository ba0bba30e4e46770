//! The broker, its disk, and the connections that lead to it.
//!
//! A connection hands its frames over in order, one at a time, as a real one does. A client that gives up leaves its
//! connection: what it had sent may still arrive, whenever (D-8), or be lost. Answers may be lost too. The disk may fail, be full
//! for a while, and lose its power.

use bytes::Bytes;
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tally_broker::config::{BrokerConfig, Setting};
use tally_broker::simulation::{self, Connection, Reply, SimulatedBroker, Surroundings};
use tally_storage::faults::Installed;
use tally_testkit::seed::Seed;
use tally_testkit::simulated_disk::{Action, Moment, Names, Root, SimulatedDisk};
use tokio::runtime::Runtime;

/// Where the wall clock stands at first, milliseconds since 1970.
pub(crate) const START_MS: i64 = 1_700_000_000_000;

/// In so many milliseconds the broker has fenced everybody after a power cut, and has noted it.
const FENCING_MS: i64 = 300;

/// What a client finds on its connection.
pub(crate) enum Event {
    /// The answer to its request.
    Answer(Bytes),
    /// The connection is gone.
    Gone,
}

/// What a story is about, besides what all of them have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Nothing more.
    Usual,
    /// A write fails, once in a life.
    FailingWrites,
    /// Now and then more time passes than a transaction may take.
    LongTimes,
    /// The power is cut (CR-26, CR-29).
    PowerCuts,
    /// The disk is full for a while.
    FullDisk,
    /// Many requests are stuck on their way.
    SlowNetwork,
}

impl Trouble {
    const ALL: [Trouble; 7] = [
        Trouble::Usual,
        Trouble::FailingWrites,
        Trouble::LongTimes,
        Trouble::PowerCuts,
        Trouble::PowerCuts,
        Trouble::FullDisk,
        Trouble::SlowNetwork,
    ];
}

/// What an answer survives (exactly-once.md 8.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Nothing: when the broker ends, so does the world, and another one begins.
    Memory,
    /// A kill.
    Os,
    /// What is decided survives a power cut, too.
    Commit,
    /// Everything does.
    Always,
}

impl Mode {
    fn choose(seed: &mut Seed) -> Mode {
        match seed.below(20) {
            0..2 => Mode::Memory,
            2..10 => Mode::Os,
            10..15 => Mode::Commit,
            _ => Mode::Always,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Mode::Memory => "memory",
            Mode::Os => "os",
            Mode::Commit => "commit",
            Mode::Always => "always",
        }
    }

    /// Whether there is a journal that syncs; in `os` for topics that ask for it.
    fn syncs(self) -> bool {
        self != Mode::Memory
    }
}

/// What an operator does to the directory of a broker that has died, before the next start.
pub type Intervention = Rc<dyn Fn(&Path) -> Result<(), String>>;

/// What a story is asked to be about, instead of what its seed says.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) trouble: Option<Trouble>,
    pub(crate) mode: Option<Mode>,
    /// Comes between a death that leaves other files than those that were there, and the next start.
    pub(crate) intervention: Option<Intervention>,
}

/// A small journal: it is full now and then, and some ranges are too long for it.
const JOURNAL: (u64, u64) = (128 * 1024, 3000);

type Handling = Pin<Box<dyn Future<Output = (Connection, Reply)>>>;

struct Link {
    /// Sent, and not taken up by the broker yet.
    frames: VecDeque<Vec<u8>>,
    connection: Option<Connection>,
    handling: Option<Handling>,
    /// The client has left it.
    is_left: bool,
    /// Its frames are stuck somewhere for a while.
    is_held: bool,
}

/// A running broker; dropped, it is gone as after kill -9.
struct Life {
    broker: SimulatedBroker,
    runtime: Runtime,
}

/// All of it.
pub(crate) struct Network {
    pub(crate) seed: Seed,
    pub(crate) wall_ms: i64,
    /// Whether things go wrong.
    pub(crate) faults: bool,
    /// How often the clock was moved further than a transaction may take.
    pub(crate) jumps: u64,
    /// How often the power was cut.
    pub(crate) power_cuts: u64,
    /// How often it was cut where anything that was answered before may be gone (CR-26): in `os`.
    pub(crate) cuts: u64,
    /// How often it was cut where what decides nothing may be gone (CR-28), and producers are fenced: in `os` and `commit`.
    pub(crate) plain_cuts: u64,
    /// The same, and how often the start after one of them was cut short: then producers are fenced once more.
    pub(crate) fences: u64,
    /// How many worlds have ended: each end of a broker in `memory` is one.
    pub(crate) worlds: u64,
    pub(crate) mode: Mode,
    /// When the start after a power cut is over for sure.
    fenced_by_ms: i64,
    pub(crate) trouble: Trouble,
    /// Segments are small.
    pub(crate) is_small: bool,
    /// Topics have flush settings: of [`crate::model::FLUSHED`] each append is synced, whatever the mode (LR-55, R-1).
    pub(crate) is_flushed: bool,
    /// The disk syncs late: what is answered too early is heard of before it is safe.
    is_late: bool,
    pub(crate) story: Vec<String>,
    links: BTreeMap<u64, Link>,
    events: BTreeMap<u64, VecDeque<Event>>,
    next_link: u64,
    life: Option<Life>,
    watched: Option<Installed>,
    disk: Rc<SimulatedDisk>,
    root: Root,
    settings: Vec<(&'static str, String)>,
    has_crashed: Rc<Cell<bool>>,
    has_failed: Rc<Cell<bool>>,
    intervention: Option<Intervention>,
}

/// The id of a run of the kernel, in its form.
fn boot_id(nth: u64) -> String {
    format!("00000000-0000-4000-8000-{nth:012}")
}

fn config(root: &Root, settings: &[(&'static str, String)]) -> BrokerConfig {
    let dir = root.path().display().to_string();
    let settings = settings.iter().cloned().chain([("log.dirs", dir)]);
    let settings: Vec<Setting> = settings
        .map(|(name, value)| Setting::new(name, value, "the simulation"))
        .collect();
    let config = BrokerConfig::from_settings(&settings);
    config.expect("settings of the table").0
}

impl Network {
    /// Starts a broker on an empty disk.
    pub(crate) fn new(mut seed: Seed, wanted: Wanted) -> Result<Network, String> {
        let trouble = Trouble::ALL[seed.index(Trouble::ALL.len())];
        let trouble = wanted.trouble.unwrap_or(trouble);
        let mode = Mode::choose(&mut seed);
        let mode = wanted.mode.unwrap_or(mode);
        let is_small = seed.percent(30);
        let (shards, cleans) = (1 + seed.below(3), seed.percent(60));
        let is_flushed = seed.index(2) == 0;
        let roll_ms = if is_flushed { 1000 } else { 20_000 };
        let settings = vec![
            ("tally.shards", shards.to_string()),
            ("tally.durability", mode.name().to_owned()),
            ("log.cleaner.enable", cleans.to_string()),
            ("log.cleaner.backoff.ms", "20".to_owned()),
            ("group.min.session.timeout.ms", "50".to_owned()),
            ("group.consumer.min.session.timeout.ms", "50".to_owned()),
            ("group.consumer.session.timeout.ms", "200".to_owned()),
            ("group.consumer.min.heartbeat.interval.ms", "1".to_owned()),
            ("group.consumer.heartbeat.interval.ms", "5".to_owned()),
            ("group.consumer.assignment.interval.ms", "0".to_owned()),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
            ("offsets.topic.num.partitions", "2".to_owned()),
            ("transaction.state.log.num.partitions", "2".to_owned()),
            ("log.roll.ms", roll_ms.to_string()),
        ];
        let root = Root::new("simulation");
        let disk = SimulatedDisk::new(root.path(), &boot_id(0));
        let mut network = Network {
            seed,
            wall_ms: START_MS,
            faults: true,
            jumps: 0,
            power_cuts: 0,
            cuts: 0,
            plain_cuts: 0,
            fences: 0,
            worlds: 0,
            mode,
            fenced_by_ms: 0,
            trouble,
            is_small,
            is_flushed,
            is_late: shards == 2 && matches!(mode, Mode::Os | Mode::Commit),
            story: Vec::new(),
            links: BTreeMap::new(),
            events: BTreeMap::new(),
            next_link: 0,
            life: None,
            watched: Some(disk.install()),
            disk,
            root,
            settings,
            has_crashed: Rc::default(),
            has_failed: Rc::default(),
            intervention: wanted.intervention,
        };
        network.start()?;
        Ok(network)
    }

    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{} {}", self.wall_ms - START_MS, line());
        self.story.push(line);
    }

    fn start(&mut self) -> Result<(), String> {
        simulation::begin(Surroundings {
            seed: self.seed.next_u64(),
            wall_ms: self.wall_ms,
            journal: JOURNAL,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(|error| error.to_string())?;
        let inside = runtime.enter();
        let broker = SimulatedBroker::start(config(&self.root, &self.settings));
        drop(inside);
        let broker = broker.map_err(|error| format!("the broker does not start: {error}"))?;
        self.life = Some(Life { broker, runtime });
        Ok(())
    }

    /// A new connection.
    pub(crate) fn connect(&mut self) -> u64 {
        let life = self.life.as_mut().expect("a broker is running");
        self.next_link += 1;
        let link = Link {
            frames: VecDeque::new(),
            connection: Some(life.broker.connect()),
            handling: None,
            is_left: false,
            is_held: false,
        };
        self.links.insert(self.next_link, link);
        self.next_link
    }

    /// Sends a frame, which begins with its length.
    pub(crate) fn send(&mut self, link: u64, frame: &[u8]) {
        let often = if self.trouble == Trouble::SlowNetwork {
            15
        } else {
            3
        };
        let is_stuck = self.faults && self.seed.percent(often);
        if let Some(link) = self.links.get_mut(&link) {
            link.frames.push_back(frame[4..].to_vec());
            link.is_held |= is_stuck;
        }
    }

    /// Nothing of a connection arrives for a while.
    pub(crate) fn hold(&mut self, link: u64) {
        if let Some(link) = self.links.get_mut(&link) {
            link.is_held = true;
        }
    }

    /// What has happened on a connection since it was asked.
    pub(crate) fn event(&mut self, link: u64) -> Option<Event> {
        let events = self.events.get_mut(&link)?;
        let event = events.pop_front();
        if events.is_empty() {
            self.events.remove(&link);
        }
        event
    }

    /// Whether what was sent is stuck on its way.
    pub(crate) fn is_stuck(&self, link: u64) -> bool {
        let link = self.links.get(&link);
        link.is_some_and(|link| link.is_held && link.handling.is_none())
    }

    /// The client leaves; what it has sent may still arrive.
    pub(crate) fn leave(&mut self, link: u64) {
        let is_lost = self.seed.percent(20);
        if let Some(link) = self.links.get_mut(&link) {
            link.is_left = true;
            if is_lost {
                link.frames.clear();
            }
        }
    }

    /// Whether a frame of a left connection may still arrive.
    pub(crate) fn has_ghosts(&self) -> bool {
        self.links.values().any(|link| link.is_left)
    }

    /// Nothing is held back any more.
    pub(crate) fn release(&mut self) {
        for link in self.links.values_mut() {
            link.is_held = false;
        }
    }

    /// One step of one connection; whether there was any.
    pub(crate) fn step(&mut self) -> Result<bool, String> {
        self.links
            .retain(|_, link| !link.is_left || link.handling.is_some() || !link.frames.is_empty());
        let holds = !self.seed.percent(2);
        let often = if self.is_late && self.faults { 2 } else { 25 };
        if self.mode.syncs() && self.seed.percent(often) {
            self.sync()?;
        }
        let busy: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.handling.is_some() || !link.frames.is_empty())
            .filter(|(_, link)| !(holds && link.is_held))
            .map(|(key, _)| *key)
            .collect();
        if busy.is_empty() {
            self.background(1);
            return Ok(false);
        }
        let key = busy[self.seed.index(busy.len())];
        self.poll(key)?;
        if self.seed.percent(20) {
            self.background(1);
        }
        Ok(true)
    }

    /// What the thread does that syncs; now and then what the one does that takes checkpoints.
    fn sync(&mut self) -> Result<(), String> {
        let takes_checkpoint = self.seed.percent(2);
        let life = self.life.as_mut().expect("a broker is running");
        life.broker.sync();
        if takes_checkpoint {
            life.broker.checkpoint();
        }
        if self.has_crashed.get() {
            return self.die(true);
        }
        Ok(())
    }

    fn poll(&mut self, key: u64) -> Result<(), String> {
        let life = self.life.as_ref().expect("a broker is running");
        let link = self.links.get_mut(&key).expect("it is busy");
        let mut handling = match link.handling.take() {
            Some(handling) => handling,
            None => {
                let frame = link.frames.pop_front().expect("it is busy");
                let mut connection = link.connection.take().expect("it handles nothing");
                Box::pin(async move {
                    let reply = connection.handle(&frame).await;
                    (connection, reply)
                })
            }
        };
        let polled = std::future::poll_fn(|context| Poll::Ready(handling.as_mut().poll(context)));
        let polled = life.runtime.block_on(polled);
        if self.has_crashed.get() {
            drop(handling);
            return self.die(true);
        }
        match polled {
            Poll::Pending => link.handling = Some(handling),
            Poll::Ready((connection, reply)) => {
                link.connection = Some(connection);
                let is_left = link.is_left;
                self.answered(key, is_left, reply);
            }
        }
        Ok(())
    }

    fn answered(&mut self, key: u64, is_left: bool, reply: Reply) {
        let is_cut = self.faults && self.seed.percent(2);
        let event = match reply {
            Reply::Nothing => return,
            Reply::Frame(frame) if !is_cut => Event::Answer(frame),
            Reply::Frame(_) | Reply::Closed(_) => {
                self.links.remove(&key);
                Event::Gone
            }
        };
        if !is_left {
            self.events.entry(key).or_default().push_back(event);
        }
    }

    /// What runs beside the connections gets the processor.
    pub(crate) fn background(&mut self, turns: usize) {
        let life = self.life.as_ref().expect("a broker is running");
        life.runtime.block_on(async {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Moves the clocks.
    pub(crate) fn pass_ms(&mut self, ms: u64) {
        let life = self.life.as_ref().expect("a broker is running");
        life.runtime.block_on(async {
            tokio::time::advance(Duration::from_millis(ms)).await;
            for _ in 0..30 {
                tokio::task::yield_now().await;
            }
        });
        self.wall_ms += i64::try_from(ms).expect("a short time");
        self.jumps += u64::from(ms >= 10_000);
    }

    /// The broker dies before the operation on files that comes so many after this one, perhaps in the middle of a write.
    pub(crate) fn die_at(&mut self, mut countdown: u64) {
        let mut seed = self.seed.fork();
        let has_crashed = Rc::clone(&self.has_crashed);
        self.disk.on_operation(move |event| {
            countdown = countdown.saturating_sub(1);
            if countdown > 0 || has_crashed.get() {
                return Action::Go;
            }
            has_crashed.set(true);
            match event.kind {
                "write" if seed.percent(60) => Action::CaptureTorn(seed.index(event.bytes + 1)),
                _ => Action::Capture,
            }
        });
    }

    /// A write of a log or of the journal that comes so many after this moment fails, or stops half-way; or the sync of one.
    pub(crate) fn fail_at(&mut self, mut countdown: u64) {
        let mut seed = self.seed.fork();
        let has_failed = Rc::clone(&self.has_failed);
        self.disk.on_operation(move |event| {
            let is_data = event.path.ends_with(".log") || event.path.ends_with("journal");
            if !is_data || !matches!(event.kind, "write" | "sync") {
                return Action::Go;
            }
            countdown = countdown.saturating_sub(1);
            if countdown > 0 || has_failed.get() {
                return Action::Go;
            }
            has_failed.set(true);
            let error = [ErrorKind::Other, ErrorKind::StorageFull][seed.index(2)];
            match seed.below(2) {
                _ if event.kind == "sync" => Action::Fail(error),
                0 => Action::Fail(error),
                _ => Action::Short(seed.index(event.bytes + 1), error),
            }
        });
    }

    /// Whether a write has failed in this life.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.get()
    }

    /// The disk has no room any more for what is not reserved.
    pub(crate) fn fill(&mut self) {
        self.say(|| "the disk is full".to_owned());
        let used = self.disk.used();
        self.disk.set_space(Some(used));
    }

    /// There is room again.
    pub(crate) fn make_room(&mut self) {
        self.disk.set_space(None);
    }

    /// Some of what was written comes to the disk by itself.
    pub(crate) fn write_back(&mut self) {
        self.disk.write_back(&mut self.seed);
    }

    /// The disk does what it should.
    pub(crate) fn mend(&mut self) {
        self.disk.let_be();
        self.make_room();
    }

    /// Kills the broker and starts it again: on what it has left, or on what was left at the captured moment.
    pub(crate) fn die(&mut self, captured: bool) -> Result<(), String> {
        let is_cut = self.trouble == Trouble::PowerCuts && self.faults && self.seed.percent(40);
        let captured = captured.then(|| self.disk.take_captures().pop());
        let moment = captured.map(|capture| capture.expect("it was captured").moment);
        let is_in_operation = moment.is_some();
        self.say(|| {
            let how = if is_in_operation {
                " in an operation"
            } else {
                ""
            };
            let by = if is_cut { ", by a power cut" } else { "" };
            format!("the broker dies{how}{by}")
        });
        let moment = if is_cut {
            Some(moment.unwrap_or_else(|| self.disk.capture()))
        } else {
            moment
        };
        if is_cut {
            // Nobody was told any more what was answered last.
            for events in self.events.values_mut() {
                *events = VecDeque::from([Event::Gone]);
            }
        }
        self.let_go();
        self.life = None;
        if is_cut && matches!(self.mode, Mode::Os | Mode::Commit) {
            self.fenced_by_ms = self.wall_ms + FENCING_MS;
        }
        self.worlds += u64::from(self.mode == Mode::Memory);
        self.fences += u64::from(self.wall_ms < self.fenced_by_ms);
        if let Some(moment) = moment {
            self.go_on_from(&moment, is_cut)?;
        }
        self.mend();
        self.has_crashed.set(false);
        self.has_failed.set(false);
        self.start()
    }

    fn go_on_from(&mut self, moment: &Moment, is_cut: bool) -> Result<(), String> {
        let root = Root::new("simulation");
        if is_cut {
            moment.power_cut(root.path(), &mut self.seed, Names::Ordered);
            self.power_cuts += 1;
            self.cuts += u64::from(self.mode == Mode::Os);
            self.plain_cuts += u64::from(matches!(self.mode, Mode::Os | Mode::Commit));
        } else {
            moment.killed(root.path());
        }
        self.watched = None;
        if let Some(intervene) = &self.intervention {
            intervene(root.path())?;
        }
        self.disk = SimulatedDisk::new(root.path(), &self.boot());
        self.watched = Some(self.disk.install());
        self.root = root;
        Ok(())
    }

    /// The run of the kernel: a power cut ends it.
    fn boot(&self) -> String {
        boot_id(self.power_cuts)
    }

    /// Stops the broker cleanly and starts it again.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        self.say(|| "the broker is restarted".to_owned());
        self.let_go();
        self.make_room();
        self.fences += u64::from(self.wall_ms < self.fenced_by_ms);
        self.worlds += u64::from(self.mode == Mode::Memory);
        // A clean stop is done by several threads, which nobody watches; what it leaves is synced.
        self.watched = None;
        if let Some(Life { broker, runtime }) = self.life.take() {
            let stopped = broker.stop();
            drop(runtime);
            if !self.has_failed.get() {
                stopped.map_err(|error| error.to_string())?;
            }
        }
        self.has_crashed.set(false);
        self.has_failed.set(false);
        self.disk = SimulatedDisk::new(self.root.path(), &self.boot());
        self.watched = Some(self.disk.install());
        self.start()
    }

    fn let_go(&mut self) {
        for (key, link) in std::mem::take(&mut self.links) {
            if !link.is_left {
                let events = self.events.entry(key).or_default();
                if !matches!(events.back(), Some(Event::Gone)) {
                    events.push_back(Event::Gone);
                }
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.links.clear();
        self.life = None;
        simulation::end();
    }
}
