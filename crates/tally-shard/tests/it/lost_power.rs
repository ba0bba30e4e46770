//! A power cut, and a kill, at each moment of a small life: what the second table of exactly-once.md 8.1 says is kept in each
//! mode (CR-25, CR-26, CR-28). The simulation of whole shards does the same with lives of all kinds; this one is always the
//! same, and says which row it is about.

use crate::durability::{fetch_offset, is_committed, latest, transactional_offsets};
use crate::history::small_segments;
use crate::world::{DATA, GROUPS, World, batch};
use std::cell::RefCell;
use std::rc::Rc;
use tally_groups as groups;
use tally_protocol::{Offset, ProducerEpoch, ProducerId, Sequence};
use tally_shard::{CompactionSettings, Isolation, ReplyTo, ShardMessage, ShardReply};
use tally_storage::Durability;
use tally_testkit::seed::Seed;
use tally_testkit::simulated_disk::{Action, Names, Root, SimulatedDisk};
use tally_transactions::Fence;

type Pair = (ProducerId, ProducerEpoch);

/// A producer without a transactional id.
const PLAIN: Pair = (ProducerId(7), ProducerEpoch(0));

/// A batch of one record: its offset, producer and sequence.
type Placed = (i64, i64, i32);

/// What clients know at a moment.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// Appends that were answered.
    appended: Vec<Placed>,
    /// Transactions whose end was answered: committed or not.
    ended: Vec<(Placed, bool)>,
    /// The committed offset that was answered, and the one that was asked for since.
    offsets: Vec<i64>,
    /// The high watermark that a reader was told.
    seen: i64,
    /// The pair of the transactional producer.
    pair: Option<Pair>,
}

/// A broker at work, and what its clients know.
struct Life {
    world: World,
    facts: Rc<RefCell<Facts>>,
}

impl Life {
    /// Asks, and looks at the log while the answer is waited for and when it is there.
    fn ask(
        &mut self,
        id: tally_protocol::PartitionId,
        message: impl FnOnce(ReplyTo) -> ShardMessage,
    ) -> ShardReply {
        let to = self.world.send(id, message);
        loop {
            self.look();
            match self.world.reply(to) {
                Some(reply) => return reply,
                None => assert!(self.world.sync(), "there is something to wait for"),
            }
        }
    }

    fn look(&mut self) {
        let seen = latest(&mut self.world, DATA, Isolation::ReadUncommitted);
        self.facts.borrow_mut().seen = seen;
    }

    fn append(&mut self, pair: Pair, sequence: i32, transactional: bool) -> Placed {
        let guard = match transactional {
            true => self.world.verify(DATA, pair, Sequence(sequence)),
            false => None,
        };
        let batch = batch(pair, sequence, &["a value"], transactional);
        let reply = self.ask(DATA, |to| ShardMessage::Append { batch, guard, to });
        let ShardReply::Append(Ok(outcome)) = reply else {
            panic!("{reply:?}");
        };
        let placed = (outcome.base_offset.0, pair.0.0, sequence);
        self.facts.borrow_mut().appended.push(placed);
        placed
    }

    /// A transaction of one batch and an offset.
    fn transaction(&mut self, offset: i64, commit: bool) {
        let pair = self.world.init();
        self.facts.borrow_mut().pair = Some(pair);
        self.world.add(pair, "data");
        let placed = self.append(pair, 0, true);
        let message = transactional_offsets(&mut self.world, pair, offset);
        let reply = self.ask(GROUPS, message);
        assert!(is_committed(&reply), "{reply:?}");
        if commit {
            self.facts.borrow_mut().offsets.push(offset);
        }
        self.world.end(pair, commit).expect("ended");
        let mut facts = self.facts.borrow_mut();
        facts.ended.push((placed, commit));
        if commit {
            facts.offsets = vec![offset];
        }
    }
}

/// Lives, and checks what each moment leaves; returns how often something was lost.
fn check(durability: Durability) -> usize {
    let root = Root::new("life");
    let disk = SimulatedDisk::new(root.path(), "one");
    let watched = disk.install();
    let log = small_segments(400);
    let world = World::compacted_at(root.path(), log, CompactionSettings::OFF, durability);
    let facts = Rc::new(RefCell::new(Facts {
        offsets: vec![-1],
        ..Facts::default()
    }));
    let known = Rc::new(RefCell::new(Vec::new()));
    let (now, then) = (Rc::clone(&facts), Rc::clone(&known));
    disk.on_operation(move |_| {
        then.borrow_mut().push(now.borrow().clone());
        Action::Capture
    });
    let mut life = Life { world, facts };
    let seed = &mut Seed::new(3);
    for round in 0..3 {
        life.append(PLAIN, round, false);
        life.transaction(i64::from(round), round != 1);
        if round == 0 {
            life.world.checkpoint();
        }
        disk.write_back(seed);
    }
    let pair = life.world.init();
    life.facts.borrow_mut().pair = Some(pair);
    life.world.add(pair, "data");
    life.append(pair, 0, true);
    life.append(PLAIN, 3, false);
    disk.let_be();
    let captures = disk.take_captures();
    let whole = life.world.log();
    drop(watched);
    let mut lost = 0;
    for (capture, facts) in captures.iter().zip(known.borrow().iter()) {
        let before = &capture.before.text;
        let image = Root::new("killed");
        capture.moment.killed(image.path());
        let watched = SimulatedDisk::new(image.path(), "one").install();
        let mut found = Found::of(life.world.image(image.path()), &whole);
        found.check_all(facts, &format!("{durability:?}, killed before {before}"));
        drop(watched);
        for names in [Names::Ordered, Names::Any] {
            let image = Root::new("cut");
            capture.moment.power_cut(image.path(), seed, names);
            let _watched = SimulatedDisk::new(image.path(), "two").install();
            let fence = match durability {
                Durability::Memory | Durability::Os => Some(Fence::ProducerId),
                Durability::Commit => Some(Fence::Epoch),
                Durability::Always => None,
            };
            let mut found = Found::of(life.world.image_after(image.path(), fence), &whole);
            let what = format!("{durability:?}, {names:?} cut before {before}");
            match durability {
                Durability::Memory | Durability::Os => {}
                Durability::Commit => found.check_decided(facts, &what),
                Durability::Always => found.check_all(facts, &what),
            }
            if fence.is_some() {
                found.check_fenced(facts, &what);
            }
            lost += usize::from(found.end < facts.seen);
        }
    }
    assert!(captures.len() > 60, "{}", captures.len());
    lost
}

/// What a start has made of a moment.
struct Found {
    world: World,
    log: Vec<(i64, i64, i32, bool)>,
    end: i64,
    stable: i64,
    aborted: Vec<(i64, i64)>,
}

impl Found {
    /// In every mode what is found is the beginning of what was there, but for markers that the start has written.
    fn of(mut world: World, whole: &[(i64, i64, i32, bool)]) -> Found {
        // What the start has to write is written, and synced where that is waited for.
        for _ in 0..20 {
            world.pass_ms(100);
            world.checkpoint();
        }
        let log = world.log();
        let is_old = |batch: &&(i64, i64, i32, bool)| !batch.3;
        assert!(
            log.iter().filter(is_old).eq(whole
                .iter()
                .filter(is_old)
                .take(log.iter().filter(is_old).count())),
            "{log:?} is not the beginning of {whole:?}"
        );
        let (end, stable) = (
            latest(&mut world, DATA, Isolation::ReadUncommitted),
            latest(&mut world, DATA, Isolation::ReadCommitted),
        );
        let read = world.read_from(Offset::ZERO, Isolation::ReadCommitted, None);
        let aborted = read.expect("it is read").aborted;
        Found {
            world,
            log,
            end,
            stable,
            aborted: aborted.iter().map(|(id, first)| (id.0, first.0)).collect(),
        }
    }

    fn has(&self, (offset, producer, sequence): Placed) -> bool {
        self.log.contains(&(offset, producer, sequence, false))
    }

    /// CR-25: everything that was answered or seen.
    fn check_all(&mut self, facts: &Facts, what: &str) {
        assert!(self.end >= facts.seen, "{what}: {} {facts:?}", self.end);
        for placed in &facts.appended {
            assert!(self.has(*placed), "{what}: {placed:?} in {:?}", self.log);
        }
        self.check_decided(facts, what);
    }

    /// CR-28: every end that was answered, with its data and its offsets.
    fn check_decided(&mut self, facts: &Facts, what: &str) {
        for (placed, commit) in &facts.ended {
            let (offset, producer, _) = *placed;
            let is_aborted = self.aborted.contains(&(producer, offset));
            let is_there = self.has(*placed) && self.stable > offset;
            assert!(is_there || !commit, "{what}: {placed:?} {:?}", self.log);
            assert!(!is_there || is_aborted != *commit, "{what}: {placed:?}");
        }
        let reply = self.world.ask(GROUPS, fetch_offset(false));
        let ShardReply::Group(Ok(groups::Response::FetchOffsets(response))) = reply else {
            panic!("{what}: {reply:?}");
        };
        let found = response.topics.first();
        let found = found.map_or(-1, |topic| topic.partitions[0].offset);
        assert!(facts.offsets.contains(&found), "{what}: {found} {facts:?}");
    }

    /// nothing is open, and nobody goes on who was there before.
    fn check_fenced(&mut self, facts: &Facts, what: &str) {
        assert!(!self.world.is_fencing(), "{what}");
        assert_eq!(self.stable, self.end, "{what}: {:?}", self.log);
        if let Some(pair) = facts.pair {
            let ended = self.world.end(pair, true);
            assert!(ended.is_err(), "{what}: {ended:?}");
        }
    }
}

#[test]
fn cr25_a_power_cut_in_always_takes_nothing_that_was_answered_or_seen() {
    assert_eq!(check(Durability::Always), 0);
}

#[test]
fn cr26_a_power_cut_in_os_leaves_the_beginning_of_each_log() {
    assert!(check(Durability::Os) > 10, "not all of it");
}

#[test]
fn cr28_a_power_cut_in_commit_takes_nothing_that_was_decided() {
    assert!(check(Durability::Commit) > 10, "plain records go");
}
