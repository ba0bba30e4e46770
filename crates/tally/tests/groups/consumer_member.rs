//! A member of a group of the `consumer` protocol: it says what it has, gives back what it is not told to have.

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use std::collections::{BTreeMap, BTreeSet};
use tally_testkit::broker::Broker;
use tally_testkit::client::{Client, group_id, text, topic_name, unique};
use tally_testkit::waiting::wait_until;
use uuid::Uuid;

/// Version of most requests.
pub(crate) const HEARTBEAT: i16 = 1;

/// Partitions by topic.
pub(crate) type Owned = BTreeMap<Uuid, BTreeSet<i32>>;

#[derive(Debug)]
pub(crate) struct ConsumerMember {
    pub(crate) client: Client,
    pub(crate) group: String,
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) epoch: i32,
    pub(crate) topics: Vec<String>,
    pub(crate) regex: Option<String>,
    pub(crate) assignor: Option<&'static str>,
    pub(crate) owned: Owned,
    /// What it was told last.
    pub(crate) told: Owned,
}

impl ConsumerMember {
    #[track_caller]
    pub(crate) fn new(group: &str, topics: &[&str]) -> ConsumerMember {
        ConsumerMember::at(Broker::shared(crate::member::PROGRAM), group, topics)
    }

    #[track_caller]
    pub(crate) fn at(address: &str, group: &str, topics: &[&str]) -> ConsumerMember {
        ConsumerMember {
            client: Client::connect(address),
            group: group.to_owned(),
            id: unique("m"),
            instance: None,
            epoch: 0,
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            regex: None,
            assignor: None,
            owned: Owned::new(),
            told: Owned::new(),
        }
    }

    pub(crate) fn with_instance(mut self, instance: &str) -> ConsumerMember {
        self.instance = Some(instance.to_owned());
        self
    }

    /// What it would say now: all of it when it joins, only what it has when it is a member.
    pub(crate) fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let owned = self.owned.iter().map(|(topic, partitions)| {
            TopicPartitions::default()
                .with_topic_id(*topic)
                .with_partitions(partitions.iter().copied().collect())
        });
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_member_id(text(&self.id))
            .with_member_epoch(self.epoch)
            .with_instance_id(self.instance.as_deref().map(text))
            .with_rebalance_timeout_ms(-1)
            .with_subscribed_topic_names(None)
            .with_subscribed_topic_regex(None)
            .with_server_assignor(self.assignor.map(text))
            .with_topic_partitions(Some(owned.collect()));
        if self.epoch != 0 {
            return request;
        }
        request
            .with_rebalance_timeout_ms(60_000)
            .with_subscribed_topic_names(Some(
                self.topics.iter().map(|topic| topic_name(topic)).collect(),
            ))
            .with_subscribed_topic_regex(self.regex.as_deref().map(text))
    }

    /// Sends a request as it is; what it learns it keeps.
    #[track_caller]
    pub(crate) fn send(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let response = self.client.call(HEARTBEAT, request);
        if response.error_code == 0 {
            self.epoch = response.member_epoch;
            if let Some(assignment) = &response.assignment {
                let topics = assignment.topic_partitions.iter();
                self.told = topics
                    .map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect()))
                    .collect();
            }
        }
        response
    }

    /// One heartbeat; then it has what it was told and nothing else.
    #[track_caller]
    pub(crate) fn beat(&mut self) -> ConsumerGroupHeartbeatResponse {
        let request = self.request();
        let response = self.send(&request);
        self.owned = self.told.clone();
        response
    }

    /// Joins; it has to succeed.
    #[track_caller]
    pub(crate) fn join(mut self) -> ConsumerMember {
        let response = self.beat();
        assert_eq!(response.error_code, 0, "join: {:?}", response.error_message);
        assert!(self.epoch > 0);
        self
    }

    /// The numbers it has of the one topic.
    pub(crate) fn numbers(&self) -> Vec<i32> {
        self.owned.values().flatten().copied().collect()
    }

    /// Leaves with this epoch; the code.
    #[track_caller]
    pub(crate) fn leave(&mut self, epoch: i32) -> i16 {
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_member_id(text(&self.id))
            .with_member_epoch(epoch)
            .with_instance_id(self.instance.as_deref().map(text))
            .with_rebalance_timeout_ms(-1)
            .with_subscribed_topic_names(None)
            .with_subscribed_topic_regex(None)
            .with_topic_partitions(None);
        self.client.call(HEARTBEAT, &request).error_code
    }
}

/// Lets all of them send heartbeats until each has so many partitions, at one epoch.
#[track_caller]
pub(crate) fn settle(members: &mut [&mut ConsumerMember], counts: &[usize]) {
    wait_until("everybody has its share", || {
        for member in members.iter_mut() {
            let response = member.beat();
            assert_eq!(response.error_code, 0, "{:?}", response.error_message);
        }
        let epoch = members[0].epoch;
        let has = |(member, count): (&&mut ConsumerMember, &usize)| {
            member.numbers().len() == *count && member.epoch == epoch
        };
        members.iter().zip(counts).all(has)
    });
}
