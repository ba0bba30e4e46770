//! One life of a broker from a seed: clients at work, a disk that is spoiled, and images of it that are judged.

use crate::clients::{Client, Committer, Transactor, Writer};
use crate::log;
use crate::model::{Crash, Model};
use crate::world::{OFFSETS, Setup, TRANSACTIONS, World};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use tally_protocol::build::BatchBuilder;
use tally_protocol::{Now, Offset, ProducerEpoch, ProducerId, Sequence};
use tally_shard::{RetentionSettings, ShardMessage, ShardReply};
use tally_storage::{Durability, LogOptions};
use tally_testkit::seed::Seed;
use tally_testkit::simulated_disk::{Action, Capture, Event, Names, Root, SimulatedDisk};

/// How often a broker dies in a run.
const LIVES: u64 = 3;
/// What the clients and their surroundings do in a life.
const STEPS: u64 = 70;
/// Images of a life, besides the one that it ends with.
const IMAGES: usize = 3;

/// A mistake that is planted, to see that it is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mistake {
    None,
    /// Syncs of these files do nothing.
    NoSync(&'static str),
    /// Input is not secured before its offset.
    NoInput,
    /// Every so many writes of a log do nothing.
    LostWrite(u64),
}

/// What a run did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) images: u64,
    pub(crate) lines: Vec<String>,
    pub(crate) trace: Vec<String>,
}

struct Client1 {
    client: Box<dyn Client>,
    asked: Option<u64>,
}

struct Run {
    seed: Seed,
    setup: Setup,
    model: Model,
    clients: Vec<Client1>,
    mistake: Mistake,
    report: Report,
    boots: u64,
    /// A fault has hit something that only a start can mend.
    must_restart: Rc<RefCell<bool>>,
    /// Faults were planned for this life.
    spoiled: bool,
}

/// Runs a seed; an error says what did not hold.
pub(crate) fn run(
    seed: u64,
    mode: Durability,
    mistake: Mistake,
) -> Result<Report, (String, Report)> {
    let mut seed = Seed::new(seed);
    let segment_bytes = [1500, 4096, 9000, 20_000][seed.index(4)];
    let retention = if seed.percent(30) {
        RetentionSettings {
            delete: true,
            retention_ms: -1,
            retention_bytes: 6000,
        }
    } else {
        RetentionSettings::KEEP_ALL
    };
    let setup = Setup {
        mode,
        log: LogOptions {
            segment_bytes,
            index_interval_bytes: 300,
            index_max_bytes: 4096,
            ..LogOptions::default()
        },
        retention,
        shards: 1 + seed.index(2),
        secures: mistake != Mistake::NoInput,
    };
    let mut clients: Vec<Box<dyn Client>> = vec![
        Box::new(Writer::new("w0")),
        Box::new(Writer::new("w1")),
        Box::new(Committer::new("gc")),
    ];
    for number in 0..3 {
        let id = format!("t{number}");
        clients.push(Box::new(Transactor::new(&id, seed.percent(50))));
    }
    let mut run = Run {
        seed,
        model: Model {
            retention: setup.retention.delete,
            ..Model::default()
        },
        setup,
        clients: clients
            .into_iter()
            .map(|client| Client1 {
                client,
                asked: None,
            })
            .collect(),
        mistake,
        report: Report::default(),
        boots: 0,
        must_restart: Rc::default(),
        spoiled: false,
    };
    let done = catch_unwind(AssertUnwindSafe(|| run.lives()));
    match done.unwrap_or_else(|_| Err("a panic, see above".to_owned())) {
        Ok(()) => Ok(run.report),
        Err(error) => Err((error, run.report)),
    }
}

impl Run {
    fn say(&mut self, line: String) {
        self.report.lines.push(line);
    }

    fn boot(&mut self) -> String {
        self.boots += 1;
        format!("boot {}", self.boots)
    }

    fn lives(&mut self) -> Result<(), String> {
        let mut root = Root::new("sim");
        let boot = self.boot();
        let mut disk = SimulatedDisk::new(root.path(), &boot);
        disk.keep_trace();
        let mut now = Now {
            monotonic_ms: 1000,
            wall_ms: 1_700_000_000_000,
        };
        for life in 0..LIVES {
            self.plan_faults(&disk, false);
            let mut world = World::start(Rc::clone(&disk), root.path(), &self.setup, now)?;
            if life == 0 {
                disk.let_be();
                world.create_topic(OFFSETS, 1)?;
                world.create_topic(TRANSACTIONS, 2)?;
                world.create_topic("a", 2)?;
                world.create_topic("b", 1)?;
            }
            disk.let_be();
            for capture in disk.take_captures() {
                if life > 0 {
                    self.judge_capture(&capture)?;
                }
            }
            self.look(&mut world)?;
            let has_faults = self.seed.percent(25);
            self.spoiled = has_faults;
            self.plan_faults(&disk, has_faults);
            self.live(&mut world)?;
            now = world.now;
            now.monotonic_ms += 10;
            now.wall_ms += 10;
            let end = self.seed.below(100);
            if end < 20 {
                self.say(format!("life {life}: a clean stop"));
                self.stop(world, &disk)?;
            } else if end < 60 {
                self.say(format!("life {life}: killed"));
                drop(world);
            } else {
                self.say(format!("life {life}: the power fails"));
                let moment = disk.capture();
                disk.power_off();
                drop(world);
                self.report.trace.extend(disk.trace());
                let next = Root::new("sim");
                let names = self.names();
                moment.power_cut(next.path(), &mut self.seed, names);
                root = next;
                let boot = self.boot();
                disk = SimulatedDisk::new(root.path(), &boot);
                disk.keep_trace();
                self.judge_and_rebase(&disk, &root, now, names)?;
            }
            self.let_go();
        }
        self.report.trace.extend(disk.trace());
        Ok(())
    }

    fn names(&mut self) -> Names {
        if self.seed.percent(50) {
            Names::Any
        } else {
            Names::Ordered
        }
    }

    /// Nobody waits for an answer any more.
    fn let_go(&mut self) {
        self.model.tolerant = false;
        *self.must_restart.borrow_mut() = false;
        for one in &mut self.clients {
            one.asked = None;
        }
    }

    fn stop(&mut self, world: World, disk: &Rc<SimulatedDisk>) -> Result<(), String> {
        let spoiled = self.spoiled;
        let stopped = world.stop();
        for capture in disk.take_captures() {
            self.judge_capture(&capture)?;
        }
        match stopped {
            Ok(()) => self.model.settle(),
            Err(_) if spoiled => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn judge_and_rebase(
        &mut self,
        disk: &Rc<SimulatedDisk>,
        root: &Root,
        now: Now,
        names: Names,
    ) -> Result<(), String> {
        let mut world = World::start(Rc::clone(disk), root.path(), &self.setup, now)?;
        self.model
            .judge(&mut world, self.setup.mode, Crash::Power(names))?;
        // The clients go on as if nothing had happened: where something is lost R-19 keeps them from it.
        self.model.rebase(&mut world, self.setup.mode)
    }

    /// What is to happen to operations: moments are captured, things fail, and the planted mistake is made.
    fn plan_faults(&mut self, disk: &Rc<SimulatedDisk>, has_faults: bool) {
        let mut seed = self.seed.fork();
        let mut images = IMAGES;
        let mistake = self.mistake;
        let fault_at = has_faults.then(|| seed.below(120));
        let must_restart = Rc::clone(&self.must_restart);
        let (mut seen, mut writes) = (0, 0);
        disk.set_space(None);
        if has_faults && seed.percent(30) {
            disk.set_space(Some(disk.used() + seed.below(3_000_000)));
        }
        disk.on_operation(move |event| {
            seen += 1;
            if let Some(action) = mistaken(mistake, event, &mut writes) {
                return action;
            }
            if fault_at == Some(seen) {
                if event.kind != "write" || !event.path.ends_with(".log") {
                    *must_restart.borrow_mut() = true;
                }
                let error = [ErrorKind::Other, ErrorKind::StorageFull][seed.index(2)];
                return match seed.below(2) {
                    0 => Action::Fail(error),
                    _ => Action::Short(seed.index(event.bytes + 1), error),
                };
            }
            let chance = if event.is_sync() { 12 } else { 2 };
            if images > 0 && seed.percent(chance) {
                images -= 1;
                return match event.kind {
                    "write" if seed.percent(60) => Action::CaptureTorn(seed.index(event.bytes + 1)),
                    _ => Action::Capture,
                };
            }
            Action::Go
        });
    }

    fn live(&mut self, world: &mut World) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step(world)?;
            self.judge_captures(world)?;
            self.model.tolerant |= *self.must_restart.borrow();
            self.look(world)?;
        }
        Ok(())
    }

    fn look(&mut self, world: &mut World) -> Result<(), String> {
        let logs = self.model.read(world)?;
        // Reading may make a shard begin anew: such a moment knows nothing of what is read then.
        self.judge_captures(world)?;
        self.model.learn(world, logs)
    }

    fn judge_captures(&mut self, world: &World) -> Result<(), String> {
        for capture in world.disk.take_captures() {
            self.judge_capture(&capture)?;
        }
        Ok(())
    }

    fn step(&mut self, world: &mut World) -> Result<(), String> {
        match self.seed.below(100) {
            0..60 => self.client_step(world),
            60..79 => _ = world.sync(),
            79 => world.checkpoint(),
            80..86 => {
                let disk = Rc::clone(&world.disk);
                disk.write_back(&mut self.seed);
            }
            86..93 => world.pass_ms(1 + self.seed.below(50)),
            93 => world.pass_ms(11_000),
            94 => world.pass_ms(300_000),
            95..98 => self.delete_records(world),
            _ => self.delete_topic(world),
        }
        Ok(())
    }

    fn client_step(&mut self, world: &mut World) {
        let at = self.seed.index(self.clients.len());
        let one = &mut self.clients[at];
        if let Some(asked) = one.asked {
            match world.answer(asked) {
                Some(reply) => {
                    one.asked = None;
                    one.client.answered(reply, world, &mut self.model);
                }
                None => return,
            }
        }
        one.asked = one.client.ask(world, &mut self.model, &mut self.seed);
    }

    fn delete_records(&mut self, world: &mut World) {
        let partitions = world.topics["a"].partitions;
        let index =
            i32::try_from(self.seed.below(u64::from(partitions.unsigned_abs()))).expect("small");
        let id = world.topics["a"].partition(index);
        let end = self.model.mirror.get(&id).and_then(|mirror| mirror.last());
        let end = end.map_or(0, |last| last.header.last_offset().0 + 1);
        let before = self.seed.below(u64::try_from(end).expect("an offset") + 1);
        let before = i64::try_from(before).expect("an offset");
        let known = self.model.starts.entry(id).or_insert((0, 0));
        known.1 = known.1.max(before);
        world.ask_now(id, |to| ShardMessage::DeleteRecords {
            before: Some(Offset(before)),
            to,
        });
    }

    fn delete_topic(&mut self, world: &mut World) {
        let done = if world.topics.contains_key("b") {
            world.delete_topic("b")
        } else {
            world.create_topic("b", 1)
        };
        if done.is_err() {
            *self.must_restart.borrow_mut() = true;
        }
    }

    /// Makes images of a moment and judges what recovery makes of them.
    fn judge_capture(&mut self, capture: &Capture) -> Result<(), String> {
        let crash = if self.seed.percent(40) {
            Crash::Kill
        } else {
            Crash::Power(self.names())
        };
        self.judge_image(capture, crash, crash, 0)
            .map_err(|error| format!("{crash:?} before {}: {error}", capture.before.text))
    }

    fn judge_image(
        &mut self,
        capture: &Capture,
        cut: Crash,
        rules: Crash,
        depth: u32,
    ) -> Result<(), String> {
        let image = Root::new("image");
        let boot = if cut == Crash::Kill {
            capture.moment.killed(image.path());
            capture.moment.boot_id().to_owned()
        } else {
            let Crash::Power(names) = cut else {
                unreachable!("a recovery is cut by one or the other");
            };
            let mut seed = self.seed.fork();
            capture.moment.power_cut(image.path(), &mut seed, names);
            self.boot()
        };
        self.report.images += 1;
        self.say(format!("{cut:?} before {}", capture.before.text));
        let disk = SimulatedDisk::new(image.path(), &boot);
        let wanted = (depth < 2 && self.seed.percent(30)).then(|| self.seed.below(25));
        let mut seen = 0;
        disk.on_operation(move |_: &Event| {
            seen += 1;
            if wanted == Some(seen) {
                Action::Capture
            } else {
                Action::Go
            }
        });
        let now = Now {
            monotonic_ms: 1000,
            wall_ms: 1_700_001_000_000,
        };
        let mut world = World::start(Rc::clone(&disk), image.path(), &self.setup, now)?;
        disk.let_be();
        let inside = disk.take_captures();
        self.model.judge(&mut world, self.setup.mode, rules)?;
        go_on(&mut world)?;
        drop(world);
        // CR-23: and again, from what the first one left.
        for capture in inside {
            let power = Crash::Power(self.names());
            let (cut, rules) = match (self.seed.percent(50), rules) {
                (true, Crash::Kill) => (power, Crash::PowerInRecovery),
                (true, rules) => (power, rules),
                (false, rules) => (Crash::Kill, rules),
            };
            self.judge_image(&capture, cut, rules, depth + 1)
                .map_err(|error| format!("in recovery, before {}: {error}", capture.before.text))?;
        }
        let disk = SimulatedDisk::new(image.path(), &boot);
        let mut world = World::start(disk, image.path(), &self.setup, now)?;
        went_on(&mut world)
    }
}

fn mistaken(mistake: Mistake, event: &Event, writes: &mut u64) -> Option<Action> {
    match mistake {
        Mistake::NoSync(what) => {
            let hit = event.is_sync() && event.path.contains(what);
            hit.then_some(Action::Undo)
        }
        Mistake::LostWrite(every) => {
            let hit = event.kind == "write" && event.path.ends_with(".log");
            *writes += u64::from(hit);
            (hit && writes.is_multiple_of(every)).then_some(Action::Undo)
        }
        Mistake::None | Mistake::NoInput => None,
    }
}

/// The values of [`go_on`].
const AFTER: &str = "after";

/// A recovered broker takes records on every partition.
fn go_on(world: &mut World) -> Result<(), String> {
    let id = world.producer_id()?;
    for (name, partition) in world.partitions() {
        if name == OFFSETS || name == TRANSACTIONS {
            continue;
        }
        let end = log::read(world, partition, 1 << 20)?.end;
        let wall_ms = world.now.wall_ms;
        let mut builder =
            BatchBuilder::new(wall_ms).producer(ProducerId(id), ProducerEpoch(0), Sequence(0));
        builder.push(None, Some(AFTER.as_bytes()));
        let batch = builder.finish();
        let reply = world.ask_now(partition, |to| ShardMessage::Append {
            batch: batch.clone(),
            guard: None,
            to,
        });
        match reply {
            Some(ShardReply::Append(Ok(outcome))) if outcome.base_offset.0 == end => {}
            other => return Err(format!("{partition}: does not go on at {end}: {other:?}")),
        }
    }
    Ok(())
}

/// And keeps them.
fn went_on(world: &mut World) -> Result<(), String> {
    for (name, partition) in world.partitions() {
        if name == OFFSETS || name == TRANSACTIONS {
            continue;
        }
        let log = log::read(world, partition, 1 << 20)?;
        let last = log.batches.last().map(|batch| batch.values.clone());
        if last != Some(vec![AFTER.to_owned()]) {
            return Err(format!("{partition}: what came after is gone: {last:?}"));
        }
    }
    Ok(())
}
