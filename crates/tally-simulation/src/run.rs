//! One story.

use crate::clients::Client;
use crate::clients::reader::Auditor;
use crate::clients::requests;
use crate::clients::transactor::{Flow, Plan, Transactor, Work};
use crate::clients::writer::Writer;
use crate::judge::{ask, judge};
use crate::model::{Model, TOPICS};
use crate::network::{Network, Trouble};
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
    run_with(seed, None)
}

/// The same, with the trouble that is wanted instead of the seed's.
pub(crate) fn run_with(seed: u64, trouble: Option<Trouble>) -> Result<Report, Failure> {
    let mut story = Vec::new();
    let told = catch_unwind(AssertUnwindSafe(|| tell(seed, trouble, &mut story)));
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

fn tell(seed: u64, trouble: Option<Trouble>, story: &mut Vec<String>) -> Result<Report, String> {
    let mut network = Network::new(Seed::new(seed), trouble)?;
    let told = live(&mut network);
    *story = std::mem::take(&mut network.story);
    told
}

fn cast(seed: &mut Seed) -> Vec<Box<dyn Client>> {
    let mut clients: Vec<Box<dyn Client>> = vec![
        Box::new(Auditor::new()),
        Box::new(Writer::new("feeder", "in")),
        Box::new(Writer::new("other feeder", "in")),
        Box::new(Writer::new("loader", "work")),
    ];
    let mut add = |name: &str, id: &str, flow, work, has_twin| {
        clients.push(Box::new(Transactor::new(Plan {
            name: name.to_owned(),
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

fn live(network: &mut Network) -> Result<Report, String> {
    let mut model = Model::default();
    let mut deaths = 0;
    network.faults = false;
    let created =
        ask(network, 7, &requests::create(&TOPICS, network.is_small))?.of::<CreateTopicsRequest>();
    if let Some(topic) = created.topics.iter().find(|topic| topic.error_code != 0) {
        return Err(format!(
            "{:?} is not made: {}",
            topic.name, topic.error_code
        ));
    }
    network.faults = true;
    let mut seed = network.seed.fork();
    let mut clients = cast(&mut seed);
    for _ in 0..STEPS {
        step(network, &mut clients, &mut model)?;
        deaths += u64::from(something_happens(network)?);
    }
    network.say(|| "quiet times begin".to_owned());
    network.faults = false;
    network.mend();
    network.release();
    if network.has_failed() {
        network.die(false)?;
    }
    for client in &mut clients {
        client.finish();
    }
    come_to_an_end(network, &mut clients, &mut model)?;
    for _ in 0..3 {
        network.pass_ms(20_000);
        network.background(50);
    }
    if network.seed.percent(50) {
        network.restart()?;
    }
    let records = judge(network, &model)?;
    Ok(Report {
        commits: model.commits,
        aborts: model.aborts,
        records,
        deaths,
        story: Vec::new(),
    })
}

fn step(
    network: &mut Network,
    clients: &mut [Box<dyn Client>],
    model: &mut Model,
) -> Result<(), String> {
    let at = network.seed.index(clients.len());
    clients[at].step(network, model)?;
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

fn come_to_an_end(
    network: &mut Network,
    clients: &mut [Box<dyn Client>],
    model: &mut Model,
) -> Result<(), String> {
    for turn in 0..LAST_STEPS {
        step(network, clients, model)?;
        if turn % 20 == 0 {
            network.pass_ms(5);
        }
        if !network.has_ghosts() && clients.iter().all(|client| client.is_done()) {
            return Ok(());
        }
    }
    let stuck = clients.iter().filter(|client| !client.is_done());
    let stuck: Vec<String> = stuck.map(|client| client.describe()).collect();
    Err(format!("no end is found: {}", stuck.join("; ")))
}
