//! L21: the real binary, killed with -9 under load again and again. After each start everything that was acknowledged is
//! there at its offset, nothing is there twice, no offset is missing, checksums hold, producers go on where they were,
//! and transactions are whole or not there.
//!
//! `scripts/kill-loop` runs it for as long as one likes. The kill comes after a number of acknowledgements that follows
//! from the seed, as do the loads; what the processes and threads make of it differs from run to run.

mod ledger;
mod load;

use ledger::Ledger;
use load::{Idempotent, Plain, Topics, Transactions};
use std::sync::atomic::{AtomicU64, Ordering};
use tally_testkit::broker::{Broker, is_reference};
use tally_testkit::client::Client;
use tally_testkit::waiting::wait_until;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tally");
/// The topic that all write to.
const TOPIC: &str = "log";
const PARTITIONS: i32 = 4;
/// Segments are closed every few rounds, indexes have many entries.
const CONFIGS: [(&str, &str); 2] = [
    ("internal.segment.bytes", "400000"),
    ("index.interval.bytes", "500"),
];
/// Rounds between two looks at the whole log.
const WHOLE_LOG_EVERY: u64 = 50;

/// A source of numbers that all follow from one.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// For a part of the run that is named by three numbers.
    pub(crate) fn of(seed: u64, round: u64, who: u64) -> Random {
        let mut random = Random(seed ^ round.rotate_left(20) ^ who.rotate_left(44));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A partition.
    pub(crate) fn partition(&mut self) -> i32 {
        i32::try_from(self.below(4)).expect("small") % PARTITIONS
    }
}

/// Everybody who writes, over all rounds.
struct Writers {
    plain: Vec<Plain>,
    idempotent: Vec<Idempotent>,
    transactions: Vec<Transactions>,
    topics: Topics,
}

impl Writers {
    #[track_caller]
    fn new(client: &mut Client) -> Writers {
        Writers {
            plain: (0..2).map(Plain::new).collect(),
            idempotent: (2..4).map(|who| Idempotent::new(client, who)).collect(),
            transactions: (4..7).map(|who| Transactions::new(client, who)).collect(),
            topics: Topics::default(),
        }
    }

    /// All write until the broker is gone, which it is after `kill_after` acknowledgements.
    fn write_until_killed(
        &mut self,
        broker: &mut Broker,
        (seed, round): (u64, u64),
        kill_after: u64,
    ) {
        let address = broker.address().to_owned();
        let acknowledged = AtomicU64::new(0);
        let (address, count) = (address.as_str(), &acknowledged);
        let random = |who| Random::of(seed, round, who);
        std::thread::scope(|scope| {
            for one in &mut self.plain {
                let random = random(one.who());
                scope.spawn(move || one.write(address, random, count));
            }
            for one in &mut self.idempotent {
                let random = random(one.who());
                scope.spawn(move || one.write(address, random, count));
            }
            for one in &mut self.transactions {
                let random = random(one.who());
                scope.spawn(move || one.write(address, random, count));
            }
            let topics = &mut self.topics;
            scope.spawn(move || topics.change(address, count));
            wait_until("acknowledgements", || {
                acknowledged.load(Ordering::Relaxed) >= kill_after
            });
            broker.kill();
        });
    }

    /// Brings everything that was under way to an end, and hands what is known to the ledger.
    #[track_caller]
    fn settle(&mut self, client: &mut Client, ledger: &mut Ledger) {
        for one in &mut self.plain {
            one.settle(ledger);
        }
        for one in &mut self.idempotent {
            one.settle(client, ledger);
        }
        for one in &mut self.transactions {
            one.settle(client, ledger);
        }
        self.topics.check(client);
    }
}

/// What the environment asks for, or what continuous integration can afford.
fn asked(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |value| value.parse().expect("a number"))
}

#[test]
fn l21_nothing_is_lost_or_doubled_over_kills() {
    if is_reference() {
        return; // Half a minute a round, and files that it does not sync.
    }
    let rounds = asked("TALLY_KILL_ROUNDS", 50);
    let seed = asked("TALLY_KILL_SEED", 20_261_121);
    let durability = std::env::var("TALLY_KILL_DURABILITY").unwrap_or_else(|_| "os".to_owned());
    eprintln!("seed {seed}, {rounds} rounds, durability {durability}");
    let durability = format!("tally.durability={durability}");
    let mut broker = Broker::start(PROGRAM, &[&durability]);
    let mut client = broker.client();
    client.create_topic(TOPIC, PARTITIONS, &CONFIGS);
    let mut writers = Writers::new(&mut client);
    let mut ledger = Ledger::default();
    for round in 0..rounds {
        let mut random = Random::of(seed, round, 99);
        let kill_after = 20 + random.below(300);
        writers.write_until_killed(&mut broker, (seed, round), kill_after);
        broker.start_again();
        client = broker.client();
        writers.settle(&mut client, &mut ledger);
        ledger.read_on(&mut client);
        if (round + 1) % WHOLE_LOG_EVERY == 0 {
            eprintln!("round {}: {}", round + 1, ledger.summary());
            // A clean stop in between: the next start trusts what this one wrote.
            drop(client);
            assert!(broker.stop());
            broker.start_again();
            client = broker.client();
            ledger.check_whole_log(&mut client);
        }
    }
    ledger.check_whole_log(&mut client);
    eprintln!("{rounds} rounds: {}", ledger.summary());
    if rounds >= 50 {
        ledger.assert_worth_the_name();
    }
}
