//! Random histories of groups of the `consumer` protocol (G128): whatever members do, and whenever the broker restarts, a
//! partition has one owner, and when they are left in peace everybody gets its share.

use crate::world::{Entry, World, beat, topic_id};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tally_groups::{Command, ConsumerHeartbeatRequest, Groups};
use tally_protocol::records::consumer_group::{ConsumerGroupRecord, CurrentValue, Partitions};
use tally_protocol::records::offsets_log::OffsetsRecord;
use tally_protocol::{Offset, ProducerEpoch};

const MEMBERS: usize = 5;

/// A client as clients are: it has what it was given, gives back what it was not, and says so with its next heartbeat.
#[derive(Clone, Debug, Default)]
struct Client {
    /// Empty: not a member.
    id: String,
    epoch: i32,
    owned: Partitions,
    /// What it was told last.
    told: Partitions,
    /// Which of the subscriptions it has.
    subscription: usize,
    /// An answer did not come: it says everything again.
    repeats: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Beat { who: usize, lost: bool },
    GiveBack { who: usize },
    Subscribe { who: usize, topics: usize },
    Leave { who: usize },
    Vanish { who: usize },
    Pause { seconds: u64 },
    Topics { which: usize },
    Restart,
    Refuse { who: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..MEMBERS;
    prop_oneof![
        12 => (who.clone(), any::<bool>()).prop_map(|(who, lost)| Step::Beat { who, lost }),
        6 => who.clone().prop_map(|who| Step::GiveBack { who }),
        2 => (who.clone(), 0..SUBSCRIPTIONS.len())
            .prop_map(|(who, topics)| Step::Subscribe { who, topics }),
        1 => who.clone().prop_map(|who| Step::Leave { who }),
        1 => who.clone().prop_map(|who| Step::Vanish { who }),
        2 => (1..30u64).prop_map(|seconds| Step::Pause { seconds }),
        1 => (0..TOPICS.len()).prop_map(|which| Step::Topics { which }),
        1 => Just(Step::Restart),
        1 => who.prop_map(|who| Step::Refuse { who }),
    ]
}

const TOPICS: [&[(&str, i32)]; 4] = [
    &[("t", 5), ("u", 3)],
    &[("t", 7), ("u", 3)],
    &[("u", 3)],
    &[("t", 5), ("u", 3), ("v", 2)],
];

/// Names, and an expression.
const SUBSCRIPTIONS: [(&[&str], &str); 4] = [
    (&["t"], ""),
    (&["t", "u"], ""),
    (&[], "[tv]"),
    (&["u"], ".*"),
];

struct Run {
    world: World,
    clients: Vec<Client>,
    made: usize,
}

impl Run {
    fn new() -> Run {
        let mut world = World::new();
        world.set_topics(TOPICS[0]);
        Run {
            world,
            clients: vec![Client::default(); MEMBERS],
            made: 0,
        }
    }

    /// Every other client is a static member.
    fn instance(who: usize) -> Option<Arc<str>> {
        (who % 2 == 1).then(|| Arc::from(format!("i{who}")))
    }

    fn request(&mut self, who: usize) -> ConsumerHeartbeatRequest {
        let client = &mut self.clients[who];
        if client.id.is_empty() {
            self.made += 1;
            client.id = format!("m{who}-{}", self.made);
            client.subscription = who % 2;
            client.repeats = true;
        }
        let request = ConsumerHeartbeatRequest {
            instance_id: Run::instance(who),
            owned: Some(client.owned.clone()),
            ..beat(&client.id, client.epoch)
        };
        if !client.repeats {
            return request;
        }
        let (names, regex) = SUBSCRIPTIONS[client.subscription];
        ConsumerHeartbeatRequest {
            rebalance_timeout_ms: 20_000,
            subscribed_topics: Some(names.iter().map(|name| Arc::from(*name)).collect()),
            subscribed_regex: Some(Arc::from(regex)),
            ..request
        }
    }

    fn send(&mut self, who: usize, request: ConsumerHeartbeatRequest, lost: bool) {
        let response = self.world.beat(request);
        let client = &mut self.clients[who];
        client.repeats = lost;
        if lost {
            return;
        }
        match response.error.code() {
            0 => {
                client.epoch = response.member_epoch;
                if let Some(told) = response.assignment {
                    client.told = told;
                    // What is new it reads at once; what it is to give back it still has.
                    for (topic, partitions) in &client.told {
                        client.owned.entry(*topic).or_default().extend(partitions);
                    }
                }
            }
            // A static member whose place is taken waits until it is free.
            25 | 110 | 111 | 82 => *client = Client::default(),
            other => panic!("{other}"),
        }
    }

    fn give_back(&mut self, who: usize) {
        let client = &mut self.clients[who];
        let told = &client.told;
        for (topic, partitions) in &mut client.owned {
            partitions.retain(|partition| told.get(topic).is_some_and(|t| t.contains(partition)));
        }
        client.owned.retain(|_, partitions| !partitions.is_empty());
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Beat { who, lost } => {
                let request = self.request(who);
                self.send(who, request, lost);
            }
            Step::GiveBack { who } => self.give_back(who),
            Step::Subscribe { who, topics } => {
                self.request(who);
                self.clients[who].subscription = topics;
                self.clients[who].repeats = true;
                let request = self.request(who);
                self.send(who, request, false);
            }
            Step::Leave { who } => {
                let client = std::mem::take(&mut self.clients[who]);
                if !client.id.is_empty() {
                    let epoch = if who % 2 == 1 { -2 } else { -1 };
                    self.world.beat(ConsumerHeartbeatRequest {
                        instance_id: Run::instance(who),
                        ..beat(&client.id, epoch)
                    });
                }
            }
            Step::Vanish { who } => self.clients[who] = Client::default(),
            Step::Pause { seconds } => self.world.advance(seconds * 1_000),
            Step::Topics { which } => self.world.set_topics(TOPICS[which]),
            Step::Restart => self.world.restart(),
            Step::Refuse { who } => {
                let client = self.clients[who].clone();
                if !client.id.is_empty() {
                    let request = ConsumerHeartbeatRequest {
                        topics: Arc::clone(&self.world.topics),
                        ..self.request(who)
                    };
                    self.world
                        .refuse(Command::ConsumerHeartbeat(Box::new(request)));
                }
            }
        }
        self.check();
    }

    /// What the log says that each member has.
    fn stored(&self) -> BTreeMap<Arc<str>, CurrentValue> {
        let mut stored = BTreeMap::new();
        for entry in &self.world.log {
            let Entry::Record(OffsetsRecord::Consumer { record, .. }, _) = entry else {
                continue;
            };
            if let ConsumerGroupRecord::Current(id, value) = record {
                match value {
                    Some(value) => stored.insert(id.clone(), value.clone()),
                    None => stored.remove(id),
                };
            }
        }
        stored
    }

    /// Nobody whom the broker knows reads what the broker thinks is somebody else's, or nobody's.
    fn check(&self) {
        let stored = self.stored();
        for client in &self.clients {
            let Some(current) = stored.get(&*client.id) else {
                continue;
            };
            for (topic, partitions) in &client.owned {
                for partition in partitions {
                    let has = |topics: &BTreeMap<_, BTreeMap<i32, i32>>| {
                        let numbers = topics.get(topic);
                        numbers.is_some_and(|numbers| numbers.contains_key(partition))
                    };
                    let known = has(&current.assigned) || has(&current.revoking);
                    assert!(known, "{} reads {topic}-{partition}", client.id);
                }
            }
        }
    }

    /// Everybody behaves for a while: then all is given out, and to nobody twice.
    fn settle(&mut self) {
        for _ in 0..24 {
            for who in 0..MEMBERS {
                let request = self.request(who);
                self.send(who, request, false);
                self.give_back(who);
            }
            self.world.advance(5_000);
            self.check();
        }
        assert_eq!(self.world.state(), "Stable");
        let description = self
            .world
            .groups
            .describe_consumer("g")
            .expect("it is there");
        let mut given = BTreeSet::new();
        for member in &description.members {
            assert_eq!(member.assigned, member.target);
            assert_eq!(member.epoch, description.epoch);
            for (topic, partitions) in &member.assigned {
                for partition in partitions {
                    assert!(given.insert((*topic, *partition)), "given twice");
                }
            }
        }
        for client in &self.clients {
            let member = description.members.iter();
            let mut member = member.filter(|member| *member.member_id == client.id);
            assert_eq!(member.next().map(|m| &m.assigned), Some(&client.owned));
        }
        let wants = |topic: &str| {
            self.clients.iter().any(|client| {
                let (names, regex) = SUBSCRIPTIONS[client.subscription];
                names.contains(&topic) || regex == ".*" || (regex == "[tv]" && topic != "u")
            })
        };
        let wanted = TOPICS[0].iter().filter(|(topic, _)| wants(topic));
        let wanted = wanted.flat_map(|(topic, count)| (0..*count).map(|n| (topic_id(topic), n)));
        assert_eq!(given, wanted.collect(), "what is wanted and there is given");
    }
}

/// What is left of a log when only the last record of each key is kept.
fn compacted(log: &[Entry]) -> Vec<(usize, &OffsetsRecord)> {
    let mut last = BTreeMap::new();
    for (at, entry) in log.iter().enumerate() {
        if let Entry::Record(record, _) = entry {
            last.insert(record.encode_key(), (at, record));
        }
    }
    let mut kept: Vec<_> = last.into_values().collect();
    kept.sort_by_key(|(at, _)| *at);
    kept
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn g128_gr110_a_partition_has_one_owner_and_everybody_gets_its_share(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
        }
        run.world.set_topics(TOPICS[0]);
        run.settle();
        run.world.restart();
    }

    #[test]
    fn gr123_compaction_changes_nothing(
        steps in prop::collection::vec(step(), 1..80),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
        }
        let log = &run.world.log;
        let cut = if log.is_empty() { 0 } else { cut.index(log.len()) };
        let mut kept = compacted(&log[..cut]);
        let rest = log[cut..].iter().enumerate();
        kept.extend(rest.filter_map(|(at, entry)| match entry {
            Entry::Record(record, _) => Some((cut + at, record)),
            Entry::Marker(..) => None,
        }));
        let mut groups = Groups::new(crate::world::settings(), 9);
        for (at, record) in kept {
            let at = Offset(i64::try_from(at).unwrap());
            let nobody: Option<(_, ProducerEpoch)> = None;
            groups.apply(at, record, nobody);
        }
        prop_assert_eq!(groups.stored(), run.world.groups.stored());
    }
}
