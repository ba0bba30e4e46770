//! 12.8 Offsets in transactions.

use crate::world::{PROGRAM, World, bumped};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteTopicsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest,
};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, Producer, group_id, is_not_ready, topic_name, unique};
use tally_testkit::verification::Verified;
use tally_testkit::waiting::{wait_for, wait_until};

/// A world with a group whose plain committed offset of t-0 is 5, and a producer.
struct Group {
    world: World,
    group: String,
    a: Producer,
}

impl Group {
    #[track_caller]
    fn new() -> Group {
        Group::of(World::new())
    }

    #[track_caller]
    fn of(mut world: World) -> Group {
        let group = unique("g");
        world.client.wait_for_group(&group);
        let topic = world.topic.clone();
        assert_eq!(world.client.commit_offset(&group, &topic, 0, 5), 0);
        let a = world.ipi();
        Group { world, group, a }
    }

    /// AddOffsetsToTxn.
    #[track_caller]
    fn join(&mut self) {
        let (id, is_kafka) = (self.world.id.clone(), self.world.is_kafka);
        let error = wait_for("AddOffsetsToTxn is not answered by 51", || {
            let client = &mut self.world.client;
            let error = client.add_offsets(3, &id, self.a, &self.group);
            (!is_kafka || error != 51).then_some(error)
        });
        assert_eq!(error, 0);
    }

    /// `TOC` by the version given, t-0 only.
    #[track_caller]
    fn toc(&mut self, version: i16, offset: i64) -> i16 {
        let topic = self.world.topic.clone();
        let request = Client::txn_offset_commit_request(
            &self.world.id,
            self.a,
            &self.group,
            &[(&topic, 0, offset)],
        );
        self.toc_of(version, &request)[0]
    }

    #[track_caller]
    fn toc_of(
        &mut self,
        version: i16,
        request: &kafka_protocol::messages::TxnOffsetCommitRequest,
    ) -> Vec<i16> {
        let is_kafka = self.world.is_kafka;
        let verified = Verified::TxnOffsetCommit(version);
        wait_for("TxnOffsetCommit has an answer of its own", || {
            let errors = self.world.client.txn_offset_commit(version, request);
            let error = errors[0];
            let is_passing =
                error == 51 || is_not_ready(error) || verified.is_told_for_another(error);
            (!is_kafka || !is_passing).then_some(errors)
        })
    }

    /// OffsetFetch v7 with require_stable.
    #[track_caller]
    fn stable(&mut self) -> (i16, i64) {
        let topic = self.world.topic.clone();
        self.world
            .client
            .committed_offset(&self.group, &topic, 0, true)
    }

    /// OffsetFetch v7 without require_stable.
    #[track_caller]
    fn plain(&mut self) -> (i16, i64) {
        let topic = self.world.topic.clone();
        self.world
            .client
            .committed_offset(&self.group, &topic, 0, false)
    }

    /// The committed offset after the end of a transaction (G99): at once; with Apache Kafka, some time.
    #[track_caller]
    fn expect_stable(&mut self, offset: i64) {
        if self.world.is_kafka {
            wait_until("the pending offset is decided", || self.stable().0 == 0);
        }
        assert_eq!(self.stable(), (0, offset));
    }
}

#[test]
fn x220_a_pending_offset_is_unstable() {
    let mut group = Group::new();
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    assert_eq!(group.stable(), (88, -1));
    assert_eq!(group.plain(), (0, 5));
    //
    let a = group.a;
    assert_eq!(group.world.commit4(a), 0);
    group.expect_stable(9);
}

/// What EndTxn has answered is true for the next OffsetFetch on any connection, in both flows, time after time: the offset is
/// neither unstable (88) nor the one before. Apache Kafka writes the markers later and says 88 meanwhile.
#[test]
fn g99_after_the_end_of_a_transaction_its_offsets_are_read_at_once() {
    let mut group = Group::new();
    let mut reader = Client::connect(Broker::shared(PROGRAM));
    let mut expected = 5;
    for round in 0..60 {
        let offset = 100 + round;
        if round % 2 == 0 {
            group.join();
            assert_eq!(group.toc(3, offset), 0);
        } else {
            assert_eq!(group.toc(5, offset), 0);
        }
        let commits = round % 3 != 2;
        let a = group.a;
        match (round % 2 == 0, commits) {
            (true, true) => assert_eq!(group.world.commit4(a), 0),
            (true, false) => assert_eq!(group.world.abort4(a), 0),
            (false, true) => assert_eq!(group.world.commit5(a), (0, bumped(a))),
            (false, false) => assert_eq!(group.world.abort5(a), (0, bumped(a))),
        }
        if round % 2 == 1 {
            group.a = bumped(a);
        }
        if commits {
            expected = offset;
        }
        let (name, topic) = (group.group.clone(), group.world.topic.clone());
        if group.world.is_kafka {
            group.expect_stable(expected);
        }
        for require_stable in [true, false] {
            let seen = reader.committed_offset(&name, &topic, 0, require_stable);
            assert_eq!(seen, (0, expected), "round {round}, {require_stable}");
        }
    }
}

#[test]
fn x222_an_abort_keeps_the_old_offset() {
    let mut group = Group::new();
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    let a = group.a;
    assert_eq!(group.world.abort4(a), 0);
    group.expect_stable(5);
}

#[test]
fn x223_offsets_of_a_group_outside_the_transaction() {
    let mut group = Group::new();
    assert_eq!(group.toc(3, 9), 48);
    assert_eq!(group.toc(4, 9), 120);
    assert_eq!(group.toc(5, 9), 0);
    let a = group.a;
    assert_eq!(group.world.commit5(a), (0, bumped(a)));
    group.expect_stable(9);
}

#[test]
fn x225_a_group_that_nobody_knows() {
    let mut group = Group::new();
    let unknown = unique("h");
    group.world.client.wait_for_group(&unknown);
    let topic = group.world.topic.clone();
    let offsets = [(topic.as_str(), 0, 1)];
    let anonymous = Client::txn_offset_commit_request(&group.world.id, group.a, &unknown, &offsets);
    let member = anonymous.clone().with_generation_id(1);
    assert_eq!(group.toc_of(3, &member), [48]);
    group.group = unknown;
    group.join();
    assert_eq!(group.toc_of(3, &member), [22]);
    assert_eq!(group.toc_of(3, &anonymous), [0]);
    let a = group.a;
    assert_eq!(group.world.commit4(a), 0);
    group.expect_stable(1);
}

#[test]
fn x228_long_metadata_is_refused_for_its_partition_alone() {
    let mut world = World::with_topic(2, &[]);
    let topic = world.topic.clone();
    let id = world.id.clone();
    world.client.wait_for_group(&id);
    let mut group = Group::of(world);
    group.join();
    let offsets = [(topic.as_str(), 0, 1), (topic.as_str(), 1, 1)];
    let mut request =
        Client::txn_offset_commit_request(&group.world.id, group.a, &group.group, &offsets);
    request.topics[0].partitions[0].committed_metadata =
        Some(tally_testkit::client::text(&"m".repeat(5000)));
    assert_eq!(group.toc_of(3, &request), [12, 0]);
    let a = group.a;
    assert_eq!(group.world.abort4(a), 0);
}

#[test]
fn x229_a_plain_commit_after_a_pending_one_stays() {
    let mut group = Group::new();
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    let (name, topic) = (group.group.clone(), group.world.topic.clone());
    assert_eq!(group.world.client.commit_offset(&name, &topic, 0, 7), 0);
    assert_eq!(group.plain(), (0, 7));
    let a = group.a;
    assert_eq!(group.world.commit4(a), 0);
    group.expect_stable(7);
}

#[test]
fn x230_a_pending_commit_after_a_plain_one_wins() {
    let mut group = Group::new();
    let (name, topic) = (group.group.clone(), group.world.topic.clone());
    assert_eq!(group.world.client.commit_offset(&name, &topic, 0, 7), 0);
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    let a = group.a;
    assert_eq!(group.world.commit4(a), 0);
    group.expect_stable(9);
}

#[test]
fn x231_the_last_pending_commit_counts() {
    let mut group = Group::new();
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    assert_eq!(group.toc(3, 12), 0);
    let a = group.a;
    assert_eq!(group.world.commit4(a), 0);
    group.expect_stable(12);
}

#[test]
fn x235_a_pending_offset_outlives_a_kill() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut group = Group::of(World::on(&broker));
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    broker.kill_and_start();
    group.world.reconnect(&broker);
    let (name, id) = (group.group.clone(), group.world.id.clone());
    group.world.client.wait_for_group(&name);
    assert_eq!(group.stable(), (88, -1));
    let a = group.a;
    wait_until("the transaction coordinator", || {
        group.world.client.find_coordinator(&id, 1) == 0
    });
    wait_until("the commit", || !is_not_ready(group.world.commit4(a)));
    group.expect_stable(9);
}

#[test]
fn x236_an_offset_whose_commit_was_answered_outlives_a_kill_at_once() {
    let mut broker = Broker::start(PROGRAM, &[]);
    let mut group = Group::of(World::on(&broker));
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    let a = group.a;
    assert_eq!(group.world.commit4(a), 0);
    broker.kill_and_start();
    group.world.reconnect(&broker);
    let name = group.group.clone();
    group.world.client.wait_for_group(&name);
    if !group.world.is_kafka {
        // D-6: nothing is left to be done after the answer.
        assert_eq!(group.plain(), (0, 9));
    }
    group.expect_stable(9);
}

#[test]
fn x237_unstable_until_both_producers_end() {
    let mut group = Group::new();
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    let first_id = std::mem::replace(&mut group.world.id, unique("y"));
    let first = group.a;
    group.a = group.world.ipi();
    group.join();
    assert_eq!(group.toc(3, 10), 0);
    let second = group.a;
    assert_eq!(group.world.commit4(second), 0);
    if group.world.is_kafka {
        wait_until("the second is decided", || group.plain() == (0, 10));
    }
    assert_eq!(group.plain(), (0, 10), "G93");
    assert_eq!(group.stable(), (88, -1));
    group.world.id = first_id;
    assert_eq!(group.world.abort4(first), 0);
    group.expect_stable(10);
}

#[test]
fn x239_offsets_of_a_fenced_producer() {
    let mut group = Group::new();
    group.world.ipi();
    assert_eq!(group.toc(3, 9), 47);
    assert_eq!(group.toc(5, 9), 47);
}

#[test]
fn x240_an_unknown_topic_is_refused_alone() {
    let mut group = Group::new();
    group.join();
    let topic = group.world.topic.clone();
    let offsets = [("nope", 0, 1), (topic.as_str(), 0, 9)];
    let request =
        Client::txn_offset_commit_request(&group.world.id, group.a, &group.group, &offsets);
    let response = group.world.client.call(3, &request);
    for part in &response.topics {
        let expected = if &*part.name.0 == "nope" { 3 } else { 0 };
        assert_eq!(part.partitions[0].error_code, expected);
    }
    let a = group.a;
    assert_eq!(group.world.commit4(a), 0);
    group.expect_stable(9);
}

#[test]
fn x242_a_deleted_topic_takes_its_pending_offset_along() {
    let mut group = Group::new();
    group.join();
    let doomed = group.world.another_topic(1, &[]);
    let offsets = [(doomed.as_str(), 0, 9)];
    let request =
        Client::txn_offset_commit_request(&group.world.id, group.a, &group.group, &offsets);
    assert_eq!(group.toc_of(3, &request), [0]);
    assert_eq!(group.toc(3, 8), 0);
    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name(&doomed)])
        .with_timeout_ms(30_000);
    let client = &mut group.world.client;
    assert_eq!(client.call(5, &delete).responses[0].error_code, 0);
    wait_until("the topic is gone", || {
        client.topic(&doomed).error_code == 3
    });
    let a = group.a;
    assert_eq!(group.world.commit4(a), 0);
    group.expect_stable(8);
    if group.world.is_kafka {
        return; // It drops the offset when it comes to it.
    }
    let all = OffsetFetchRequest::default()
        .with_group_id(group_id(&group.group))
        .with_topics(None);
    let response = group.world.client.call(7, &all);
    let names: Vec<&str> = response.topics.iter().map(|t| &*t.name.0).collect();
    assert_eq!(names, [group.world.topic.as_str()]);
}

#[test]
fn x220_every_version_of_the_old_flow() {
    for version in 0..=4 {
        let mut group = Group::new();
        let (id, topic, name) = (
            group.world.id.clone(),
            group.world.topic.clone(),
            group.group.clone(),
        );
        let a = group.a;
        let old = version.min(3);
        let client = &mut group.world.client;
        assert_eq!(client.add_offsets(version, &id, a, &name), 0, "v{version}");
        assert_eq!(client.add_partitions(old, &id, a, &[(&topic, 0)]), [0]);
        assert_eq!(group.toc(version, 9), 0, "v{version}");
        assert_eq!(group.stable(), (88, -1));
        assert_eq!(group.world.end(version, a, true), 0, "v{version}");
        group.expect_stable(9);
    }
}

/// OffsetDelete of t-0: the whole request's code and the partition's.
#[track_caller]
fn delete_offset(group: &mut Group) -> (i16, Option<i16>) {
    let partition = OffsetDeleteRequestPartition::default().with_partition_index(0);
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(topic_name(&group.world.topic))
        .with_partitions(vec![partition]);
    let request = OffsetDeleteRequest::default()
        .with_group_id(group_id(&group.group))
        .with_topics(vec![topic]);
    let response = group.world.client.call(0, &request);
    let partitions = response.topics.first().map(|topic| &topic.partitions[0]);
    (response.error_code, partitions.map(|one| one.error_code))
}

#[test]
fn x232_a_deleted_offset_does_not_come_back() {
    let mut group = Group::new();
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    assert_eq!(delete_offset(&mut group), (0, Some(0)));
    let a = group.a;
    assert_eq!(group.world.commit4(a), 0);
    group.expect_stable(-1);
}

#[test]
fn x233_a_deleted_group_does_not_come_back() {
    let mut group = Group::new();
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(&group.group)]);
    let response = group.world.client.call(2, &request);
    assert_eq!(response.results[0].error_code, 0);
    let a = group.a;
    assert_eq!(group.world.commit4(a), 0);
    group.expect_stable(-1);
}

/// OffsetCommit v2 of offset 5, with a retention of one millisecond.
#[track_caller]
fn commit_for_a_moment(world: &mut World, group: &str, topic: &str) {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(5)
        .with_committed_metadata(Some("".into()));
    let of_topic = OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_retention_time_ms(1)
        .with_topics(vec![of_topic]);
    let response = world.client.call(2, &request);
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
}

#[test]
fn x234_what_is_pending_does_not_expire() {
    let broker = Broker::start(PROGRAM, &["offsets.retention.check.interval.ms=100"]);
    let mut group = Group::of(World::on(&broker));
    let name = group.group.clone();
    let topic = group.world.topic.clone();
    let other = group.world.another_topic(1, &[]);
    group.join();
    assert_eq!(group.toc(3, 9), 0);
    commit_for_a_moment(&mut group.world, &name, &topic);
    // Twice, so that a whole look has come after it.
    for _ in 0..2 {
        commit_for_a_moment(&mut group.world, &name, &other);
        wait_until("the other one expires", || {
            group.world.client.committed_offset(&name, &other, 0, false) == (0, -1)
        });
    }
    assert_eq!(group.plain(), (0, 5), "offset and group stay");
    let a = group.a;
    assert_eq!(group.world.abort4(a), 0);
    wait_until("it expires when nothing is pending", || {
        group.plain() == (0, -1)
    });
}
