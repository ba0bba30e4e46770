//! The broker dies around a prepared transaction (KIP-939, T-1): before, in the middle of and after the record that hands it
//! over, before the answer leaves, and at each write of its end. What was prepared stays prepared until its owner has decided,
//! and what was decided stays so, whoever asks after the start.

use crate::crash_points::{dying_at, resurrect};
use crate::two_phase::{NONE, init_when_ready, try_init};
use crate::world::Answer::{At, Code};
use crate::world::{PROGRAM, World, at_epoch, bumped};
use kafka_protocol::messages::{EndTxnRequest, ProducerId};
use tally_testkit::broker::{Broker, is_reference, left_out};
use tally_testkit::client::{Client, Producer, transactional_id, unique};
use tally_testkit::waiting::wait_until;

const TWO_PHASE: [&str; 1] = ["transaction.two.phase.commit.enable=true"];
/// The offset that each transaction here commits for its group.
const OFFSET: i64 = 9;

/// Two records and an offset that nobody has decided on, and their producer.
struct Prepared {
    world: World,
    group: String,
    writer: Producer,
}

impl Prepared {
    /// By Produce 12 and TxnOffsetCommit 5.
    #[track_caller]
    fn on(broker: &Broker) -> Prepared {
        let mut world = World::on(broker);
        let group = unique("g");
        world.client.wait_for_group(&group);
        let (writer, ongoing) = init_when_ready(&mut world, false);
        assert_eq!((ongoing, world.td12(writer, 0, 2)), (NONE, At(0)));
        let offsets = [(world.topic.as_str(), 0, OFFSET)];
        let request = Client::txn_offset_commit_request(&world.id, writer, &group, &offsets);
        assert_eq!(world.client.txn_offset_commit(5, &request), [0]);
        Prepared {
            world,
            group,
            writer,
        }
    }

    #[track_caller]
    fn resurrect(&mut self, broker: &mut Broker) {
        resurrect(broker, &mut self.world);
        self.world.client.wait_for_group(&self.group);
    }

    /// What OffsetFetch says of the group, with `require_stable`.
    fn offset(&mut self) -> (i16, i64) {
        let (group, topic) = (&self.group, &self.world.topic);
        self.world.client.committed_offset(group, topic, 0, true)
    }

    #[track_caller]
    fn is_open(&mut self) {
        assert_eq!((self.world.lso(), self.world.leo()), (0, 2), "still open");
        assert_eq!(self.offset().0, 88);
        assert_eq!(self.world.rc(0).committed(), []);
    }

    /// Decided so on each partition, and its writer is out.
    #[track_caller]
    fn is_ended(&mut self, commit: bool) {
        wait_until("the markers", || self.world.lso() == self.world.leo());
        let records = if commit { 2 } else { 0 };
        assert_eq!(self.world.rc(0).committed().len(), records);
        assert_eq!(self.offset(), (0, if commit { OFFSET } else { -1 }));
        let markers = self.world.ru(0).markers();
        // A marker whose end was not recorded may be there twice (M-8).
        assert!(matches!(markers.len(), 1 | 2), "{markers:?}");
        assert!(
            markers.iter().all(|marker| marker.2 == commit),
            "{markers:?}"
        );
        assert_eq!(self.world.td12(self.writer, 2, 1), Code(47));
    }

    /// EndTxn: the code and the next pair, or nothing if nobody answers.
    fn try_end(&mut self, version: i16, owner: Producer, commit: bool) -> Option<(i16, Producer)> {
        let request = EndTxnRequest::default()
            .with_transactional_id(transactional_id(&self.world.id))
            .with_producer_id(ProducerId(owner.id))
            .with_producer_epoch(owner.epoch)
            .with_committed(commit);
        let response = self.world.client.try_call(version, &request)?;
        let next = Producer {
            id: response.producer_id.0,
            epoch: response.producer_epoch,
        };
        Some((response.error_code, next))
    }

    /// Its owner asks for its end until that is answered; the pair after it.
    #[track_caller]
    fn end(&mut self, version: i16, owner: Producer, commit: bool) -> Producer {
        let mut next = owner;
        wait_until("EndTxn", || {
            let (code, pair) = self.try_end(version, owner, commit).expect("an answer");
            assert!(matches!(code, 0 | 14..=16 | 51), "{code}");
            // The old flow keeps the pair and does not tell it.
            if version == 5 {
                next = pair;
            }
            code == 0
        });
        next
    }

    /// The next transaction of this pair works.
    #[track_caller]
    fn goes_on(&mut self, next: Producer) {
        let end = self.world.leo();
        assert_eq!(self.world.td12(next, 0, 1), At(end));
        assert_eq!(self.world.commit5(next), (0, bumped(next)));
        assert_eq!(self.world.lso(), end + 2);
    }
}

#[test]
fn t1_a_kill_around_the_hand_over_leaves_the_transaction_prepared() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    // Whether the pair that nobody was told of is in the log.
    let points = [
        ("ongoing.before=kill@1", false),
        ("append.torn=kill@1", false),
        ("ongoing.after=kill@1", true),
        ("reply.transaction=kill@1", true),
    ];
    for (point, is_kept) in points {
        for commit in [true, false] {
            let (mut broker, _) = dying_at(point, &TWO_PHASE);
            let mut prepared = Prepared::on(&broker);
            let writer = prepared.writer;
            broker.wake(0);
            assert!(try_init(&mut prepared.world, true, true).is_none());
            prepared.resurrect(&mut broker);
            prepared.is_open();
            let (owner, ongoing) = init_when_ready(&mut prepared.world, true);
            let raised = if is_kept { 2 } else { 1 };
            assert_eq!((owner, ongoing), (at_epoch(writer, raised), writer));
            prepared.is_open();
            // The pair before the owner's is fenced, whoever was told of it.
            let before = at_epoch(owner, owner.epoch - 1);
            assert_eq!(prepared.world.commit5(before).0, 90);
            let version = if commit { 5 } else { 4 };
            let next = prepared.end(version, owner, commit);
            prepared.is_ended(commit);
            prepared.goes_on(next);
        }
    }
}

/// The points of an end: before its decision it is open, from then on decided.
fn ends(commit: bool) -> [(String, bool); 10] {
    let word = if commit { "commit" } else { "abort" };
    [
        (format!("prepare_{word}.before=kill@1"), false),
        ("append.torn=kill@1".to_owned(), false),
        (format!("prepare_{word}.after=kill@1"), true),
        ("marker.before=kill@1".to_owned(), true),
        ("marker.after=kill@1".to_owned(), true),
        ("marker.before=kill@2".to_owned(), true),
        ("marker.after=kill@2".to_owned(), true),
        (format!("complete_{word}.before=kill@1"), true),
        (format!("complete_{word}.after=kill@1"), true),
        ("reply.transaction=kill@1".to_owned(), true),
    ]
}

/// A prepared transaction that has been handed over, on a broker that dies at `point` of its end and is started again.
#[track_caller]
fn dies_at_the_end(point: &str, version: i16, commit: bool) -> (Broker, Prepared, Producer) {
    let (mut broker, _) = dying_at(point, &TWO_PHASE);
    let mut prepared = Prepared::on(&broker);
    let (owner, ongoing) = init_when_ready(&mut prepared.world, true);
    assert_eq!(ongoing, prepared.writer);
    broker.wake(0);
    assert_eq!(prepared.try_end(version, owner, commit), None);
    prepared.resurrect(&mut broker);
    (broker, prepared, owner)
}

#[test]
fn t1_an_owner_that_asks_again_after_a_kill_gets_the_end_it_asked_for() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    for commit in [true, false] {
        for (nth, (point, is_decided)) in ends(commit).iter().enumerate() {
            let version = if nth % 2 == 0 { 4 } else { 5 };
            let (_broker, mut prepared, owner) = dies_at_the_end(point, version, commit);
            if !is_decided {
                prepared.is_open();
            }
            let next = prepared.end(version, owner, commit);
            prepared.is_ended(commit);
            let other = prepared.try_end(version, owner, !commit).expect("answered");
            assert_eq!(other.0, 48, "what is decided is not turned");
            prepared.goes_on(next);
        }
    }
}

#[test]
fn t1_a_successor_after_a_kill_finds_it_prepared_or_ended_as_was_decided() {
    if is_reference() {
        return left_out("The points are in Tally.");
    }
    for commit in [true, false] {
        for (nth, (point, is_decided)) in ends(commit).iter().enumerate() {
            let version = if nth % 2 == 0 { 5 } else { 4 };
            let (_broker, mut prepared, owner) = dies_at_the_end(point, version, commit);
            let (successor, ongoing) = init_when_ready(&mut prepared.world, true);
            assert!(successor.epoch > owner.epoch, "{successor:?} {owner:?}");
            assert_eq!(prepared.world.end(4, owner, commit), 90, "the owner is out");
            let (next, decided) = if *is_decided {
                assert_eq!(ongoing, NONE);
                (successor, commit)
            } else {
                // Nobody knows what was asked for: it is the successor's to decide, and it may decide otherwise.
                assert_eq!(ongoing, prepared.writer);
                prepared.is_open();
                (prepared.end(5, successor, !commit), !commit)
            };
            prepared.is_ended(decided);
            prepared.goes_on(next);
        }
    }
}

/// What is prepared is kept as its data is: where a power cut may have taken some of it, it is aborted.
#[test]
fn t1_r19_a_power_cut_leaves_it_prepared_in_always_alone() {
    if is_reference() {
        return left_out("Its log has no such modes.");
    }
    for (mode, is_kept) in [("os", false), ("commit", false), ("always", true)] {
        for is_handed_over in [false, true] {
            let durability = format!("tally.durability={mode}");
            let mut broker = Broker::start(PROGRAM, &[TWO_PHASE[0], &durability]);
            let mut prepared = Prepared::on(&broker);
            let (writer, mut last) = (prepared.writer, prepared.writer);
            if is_handed_over {
                last = init_when_ready(&mut prepared.world, true).0;
            }
            broker.kill();
            let boot_id = broker.data().join("boot-id");
            std::fs::write(&boot_id, "another\n").expect("a directory of ours");
            broker.start_again();
            prepared.world.reconnect(&broker);
            prepared.world.client.wait_for_group(&prepared.group);
            let (owner, ongoing) = init_when_ready(&mut prepared.world, true);
            if is_kept {
                assert_eq!((owner, ongoing), (bumped(last), writer), "{mode}");
                prepared.is_open();
                let next = prepared.end(5, owner, true);
                prepared.is_ended(true);
                prepared.goes_on(next);
                continue;
            }
            assert_eq!(ongoing, NONE, "{mode}: nothing is left to decide");
            for before in [writer, last] {
                let refused = prepared.world.commit5(before).0;
                assert!(matches!(refused, 49 | 90), "{mode}: {refused}");
            }
            wait_until("the abort", || prepared.world.lso() == prepared.world.leo());
            assert_eq!(prepared.world.rc(0).committed(), []);
            assert_eq!(prepared.offset(), (0, -1));
            prepared.goes_on(owner);
        }
    }
}
