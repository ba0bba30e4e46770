//! One story.

use crate::clients::Client;
use crate::clients::operator::Operator;
use crate::clients::reader::Auditor;
use crate::clients::requests;
use crate::clients::transactor::{Flow, Plan, Transactor, Work};
use crate::clients::writer::Writer;
use crate::judge::{ask, judge};
use crate::model::{Model, TOPICS};
use crate::network::{Intervention, Mode, Network, Trouble, Wanted};
use kafka_protocol::messages::CreateTopicsRequest;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tally_testkit::seed::Seed;

/// What happens before the quiet time.
const STEPS: u64 = 900;
/// What may be needed to come to an end (B-20).
const LAST_STEPS: u64 = 30_000;
/// How many last lines of its story a failure shows.
const SHOWN: usize = 40;

/// What a story came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Transactions that were committed, and answered so.
    pub commits: u64,
    /// Transactions that were aborted on purpose.
    pub aborts: u64,
    /// Records that a reader of committed records finds in the end.
    pub records: u64,
    /// How often the broker died or was restarted.
    pub deaths: u64,
    /// What happened.
    pub story: Vec<String>,
}

/// What did not hold.
#[derive(Debug)]
pub struct Failure {
    /// What.
    pub what: String,
    /// The last that happened.
    pub story: Vec<String>,
}

impl Failure {
    /// What did not hold in the story of `seed`, with the line that tells it again.
    pub fn describe(&self, seed: u64) -> String {
        let story = self.story.join("\n  ");
        format!(
            "seed {seed}: {}\n  {story}\n  {}",
            self.what,
            replay_line(seed)
        )
    }
}

/// The line that tells a story again.
pub fn replay_line(seed: u64) -> String {
    format!("scripts/simulate --seed {seed}")
}

/// Tells the story of a seed.
pub fn run(seed: u64) -> Result<Report, Failure> {
    run_with(seed, Wanted::default())
}

/// The same with power cuts, in a mode, and with what an operator does to what the broker has left each time that it dies in the
/// middle of something or by a power cut.
pub fn run_with_cuts(seed: u64, mode: Mode, intervention: Intervention) -> Result<Report, Failure> {
    let wanted = Wanted {
        trouble: Some(Trouble::PowerCuts),
        mode: Some(mode),
        intervention: Some(intervention),
    };
    run_with(seed, wanted)
}

/// The same, with what is wanted instead of what the seed says.
pub(crate) fn run_with(seed: u64, wanted: Wanted) -> Result<Report, Failure> {
    let mut story = Vec::new();
    let told = catch_unwind(AssertUnwindSafe(|| tell(seed, wanted, &mut story)));
    let what = match told {
        Ok(Ok(mut report)) => {
            report.story = story;
            return Ok(report);
        }
        Ok(Err(what)) => what,
        Err(_) => "a panic, see above".to_owned(),
    };
    let from = story.len().saturating_sub(SHOWN);
    Err(Failure {
        what,
        story: story.split_off(from),
    })
}

fn tell(seed: u64, wanted: Wanted, story: &mut Vec<String>) -> Result<Report, String> {
    let mut network = Network::new(Seed::new(seed), wanted)?;
    let told = live(&mut network);
    *story = std::mem::take(&mut network.story);
    told
}

/// The clients of a world: after the first one they have other names, so that nobody takes old records for theirs.
fn cast(seed: &mut Seed, world: u64) -> Vec<Box<dyn Client>> {
    let named = |name: &str| match world {
        0 => name.to_owned(),
        world => format!("{name} of world {world}"),
    };
    let mut clients: Vec<Box<dyn Client>> = vec![
        Box::new(Auditor::new()),
        Box::new(Operator::new()),
        Box::new(Writer::new(&named("feeder"), "in")),
        Box::new(Writer::new(&named("other feeder"), "in")),
        Box::new(Writer::new(&named("loader"), "work")),
    ];
    let mut add = |name: &str, id: &str, flow, work, has_twin| {
        clients.push(Box::new(Transactor::new(Plan {
            name: named(name),
            transactional_id: id.to_owned(),
            flow,
            work,
            has_twin,
        })));
    };
    add("old", "old", Flow::Tv1, Work::Append, false);
    add("new", "new", Flow::Tv2, Work::Append, false);
    for index in 0..2 {
        let name = format!("worker{index}");
        let flow = if index == 0 { Flow::Tv1 } else { Flow::Tv2 };
        add(&name, &name, flow, Work::Member, false);
    }
    for index in 0..2 {
        let flow = if index == 0 { Flow::Tv1 } else { Flow::Tv2 };
        let (id, has_twin) = (format!("chain{index}"), seed.percent(50));
        add(&id, &id, flow, Work::Chain(index), has_twin);
        if has_twin {
            let name = format!("zombie{index}");
            add(&name, &id, flow, Work::Chain(index), true);
        }
    }
    clients
}

/// What there is between two ends of everything.
struct World {
    number: u64,
    clients: Vec<Box<dyn Client>>,
    model: Model,
}

impl World {
    /// Makes the topics, which nobody may have kept.
    fn begin(network: &mut Network) -> Result<World, String> {
        loop {
            let number = network.worlds;
            let faults = std::mem::replace(&mut network.faults, false);
            let request = requests::create(&TOPICS, network);
            let created = ask(network, 7, &request);
            network.faults = faults;
            if number != network.worlds {
                // It ended before it began.
                continue;
            }
            let created = created?.of::<CreateTopicsRequest>();
            if let Some(topic) = created.topics.iter().find(|topic| topic.error_code != 0) {
                return Err(format!(
                    "{:?} is not made: {}",
                    topic.name, topic.error_code
                ));
            }
            let mut seed = network.seed.fork();
            return Ok(World {
                number,
                clients: cast(&mut seed, number),
                model: Model::default(),
            });
        }
    }

    /// Another one, if this one has ended.
    fn go_on(&mut self, network: &mut Network) -> Result<(), String> {
        if self.number == network.worlds {
            return Ok(());
        }
        network.say(|| "another world begins".to_owned());
        let next = World::begin(network)?;
        let ended = std::mem::replace(self, next);
        self.model.commits = ended.model.commits;
        self.model.aborts = ended.model.aborts;
        Ok(())
    }
}

fn live(network: &mut Network) -> Result<Report, String> {
    let mut deaths = 0;
    let mut world = World::begin(network)?;
    for _ in 0..STEPS {
        step(network, &mut world)?;
        deaths += u64::from(something_happens(network)?);
        world.go_on(network)?;
    }
    network.say(|| "quiet times begin".to_owned());
    network.faults = false;
    network.mend();
    network.release();
    if network.has_failed() {
        network.die(false)?;
        world.go_on(network)?;
    }
    for client in &mut world.clients {
        client.finish();
    }
    come_to_an_end(network, &mut world)?;
    for _ in 0..3 {
        network.pass_ms(20_000);
        network.background(50);
    }
    let keeps = network.mode != Mode::Memory;
    if keeps && network.seed.percent(50) {
        network.restart()?;
    }
    let records = judge(network, &world.model)?;
    if !keeps {
        network.restart()?;
        World::begin(network)?;
    }
    Ok(Report {
        commits: world.model.commits,
        aborts: world.model.aborts,
        records,
        deaths,
        story: Vec::new(),
    })
}

fn step(network: &mut Network, world: &mut World) -> Result<(), String> {
    let at = network.seed.index(world.clients.len());
    world.clients[at].step(network, &mut world.model)?;
    for _ in 0..network.seed.below(6) {
        network.step()?;
    }
    Ok(())
}

/// Time passes, and things break; whether the broker was started anew.
fn something_happens(network: &mut Network) -> Result<bool, String> {
    let trouble = network.trouble;
    match network.seed.below(1000) {
        0..40 => {
            let ms = 1 + network.seed.below(60);
            network.pass_ms(ms);
        }
        40 if trouble == Trouble::LongTimes => {
            network.say(|| "a long time passes".to_owned());
            network.pass_ms(16_000);
        }
        41 => {
            network.die(false)?;
            return Ok(true);
        }
        42 => {
            network.restart()?;
            return Ok(true);
        }
        43 | 44 if !network.has_failed() => {
            let countdown = 1 + network.seed.below(60);
            network.die_at(countdown);
        }
        45 if trouble == Trouble::FailingWrites => {
            let countdown = 1 + network.seed.below(20);
            network.fail_at(countdown);
        }
        45 | 46 if trouble == Trouble::FullDisk => network.fill(),
        47..70 if trouble == Trouble::FullDisk => network.make_room(),
        60..100 if trouble == Trouble::PowerCuts => network.write_back(),
        46..60 if network.has_failed() => {
            network.die(false)?;
            return Ok(true);
        }
        _ => {}
    }
    Ok(false)
}

fn come_to_an_end(network: &mut Network, world: &mut World) -> Result<(), String> {
    for turn in 0..LAST_STEPS {
        step(network, world)?;
        if turn % 20 == 0 {
            network.pass_ms(5);
        }
        let clients = &world.clients;
        if !network.has_ghosts() && clients.iter().all(|client| client.is_done()) {
            return Ok(());
        }
    }
    let stuck = world.clients.iter().filter(|client| !client.is_done());
    let stuck: Vec<String> = stuck.map(|client| client.describe()).collect();
    Err(format!("no end is found: {}", stuck.join("; ")))
}
