//! A member of a group of the `consumer` protocol (KIP-848): it says what it has, is told what it is to have, gives back first
//! and takes then.
//!
//! Invariants:
//! - `has` is what the reader reads; it changes only in [`ConsumerMember::join`];
//! - after an answer that may have been lost all is said again, because the coordinator tells an assignment once.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::{
    ApiKey, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, GroupId, TopicName,
};
use uuid::Uuid;

use super::member::commit_request;
use super::membership::{Assigned, Subscription};
use crate::client::{Cluster, Failure, NOT_YET, check, check_told, text};
use crate::commands::place::Place;
use crate::output::remark;

const HEARTBEAT_NEWEST: i16 = 1;
/// Regular expressions came with it.
const HEARTBEAT_WITH_REGEX: i16 = 1;
/// The last version that names topics; the first that takes the epoch of such a member.
const OFFSET_COMMIT_NEWEST: i16 = 9;
/// How long the coordinator waits for what this member is to give back: it looks for it every few hundred milliseconds.
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
/// Until the coordinator has said how often it wants to hear.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often it asks while it has nothing.
const INTERVAL_WITHOUT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);

/// Epochs that mean something else: not a member, and a farewell.
const JOINING: i32 = 0;
const LEAVING: i32 = -1;

const UNKNOWN_TOPIC: i16 = 3;
const UNKNOWN_MEMBER: i16 = 25;
const UNSUPPORTED_VERSION: i16 = 35;
const GROUP_NOT_FOUND: i16 = 69;
const FENCED_EPOCH: i16 = 110;
const STALE_EPOCH: i16 = 113;

/// Partitions by topic.
type Owned = BTreeMap<Uuid, BTreeSet<i32>>;

/// This process as a member.
#[derive(Debug)]
pub(super) struct ConsumerMember {
    group: String,
    subscription: Subscription,
    assignor: Option<String>,
    id: String,
    epoch: i32,
    interval: Duration,
    heard_at: Instant,
    /// What the coordinator wants it to have.
    told: Owned,
    /// What it has.
    has: Owned,
    names: BTreeMap<Uuid, String>,
    /// Whether the next heartbeat says everything.
    says_all: bool,
}

impl ConsumerMember {
    pub(super) fn new(
        group: &str,
        subscription: Subscription,
        assignor: Option<String>,
    ) -> ConsumerMember {
        ConsumerMember {
            group: group.to_owned(),
            subscription,
            assignor,
            id: new_id(),
            epoch: JOINING,
            interval: INTERVAL,
            heard_at: Instant::now(),
            told: Owned::new(),
            has: Owned::new(),
            names: BTreeMap::new(),
            says_all: true,
        }
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }

    /// How often the coordinator wants to hear of it.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Joins if it is no member; takes and gives back what has changed.
    pub(super) fn join(&mut self, cluster: &mut Cluster) -> Result<Assigned, Failure> {
        cluster.renew(Duration::ZERO);
        self.can_be_asked(cluster)?;
        let mut is_anew = false;
        loop {
            if self.epoch == JOINING {
                is_anew = true;
                self.has.clear();
                self.told.clear();
                self.beat(cluster)?;
                if self.epoch == JOINING {
                    self.wait(cluster, NOT_YET[0])?;
                }
            } else if self.told != self.has {
                self.has = self.told.clone();
                self.beat(cluster)?;
            } else {
                let places = self.places(cluster)?;
                return Ok(Assigned { places, is_anew });
            }
        }
    }

    /// Says that it lives, if it is time; whether it still has what it was assigned.
    pub(super) fn is_in(&mut self, cluster: &mut Cluster) -> Result<bool, Failure> {
        let interval = if self.has.is_empty() {
            self.interval.min(INTERVAL_WITHOUT)
        } else {
            self.interval
        };
        if self.epoch != JOINING && self.heard_at.elapsed() >= interval {
            self.beat(cluster)?;
        }
        Ok(self.epoch != JOINING && self.told == self.has)
    }

    /// Commits; `false` if the group has gone on without this member, and nothing was.
    pub(super) fn commit(
        &mut self,
        cluster: &mut Cluster,
        reached: &BTreeMap<Place, i64>,
    ) -> Result<bool, Failure> {
        cluster.renew(Duration::ZERO);
        loop {
            if self.epoch == JOINING {
                return Ok(false);
            }
            let broker = cluster.group_coordinator(&self.group)?;
            let request = commit_request(&self.group, self.epoch, &self.id, reached);
            let answer = cluster.call(broker, OFFSET_COMMIT_NEWEST, &request)?;
            let rows = answer.topics.iter().flat_map(|topic| &topic.partitions);
            // A topic that is gone has no offsets to keep; the next assignment is without it.
            let mut wrong = rows.filter(|row| ![0, UNKNOWN_TOPIC].contains(&row.error_code));
            let Some(row) = wrong.next() else {
                return Ok(true);
            };
            match row.error_code {
                UNKNOWN_MEMBER | FENCED_EPOCH => self.fenced(),
                STALE_EPOCH => {
                    let epoch = self.epoch;
                    self.beat(cluster)?;
                    if self.epoch == epoch {
                        remark(1, || {
                            "offsets were not committed: the partitions are another's".to_owned()
                        });
                        return Ok(false);
                    }
                }
                code => self.wait(cluster, code)?,
            }
        }
    }

    /// Says farewell.
    pub(super) fn leave(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        if self.epoch == JOINING {
            return Ok(());
        }
        let broker = cluster.group_coordinator(&self.group)?;
        let request = self.request().with_member_epoch(LEAVING);
        let answer = cluster.call(broker, HEARTBEAT_NEWEST, &request)?;
        check(format!("group {}", self.group), answer.error_code)
    }

    /// A coordinator without the protocol is told by its name, not by a number.
    fn can_be_asked(&self, cluster: &Cluster) -> Result<(), Failure> {
        let key = ApiKey::ConsumerGroupHeartbeat as i16;
        let newest = cluster.served().get(&key).map(|(_, newest)| *newest);
        let Some(newest) = newest else {
            return Err(Failure::Unable(
                "the brokers do not know group.protocol=consumer: use classic".to_owned(),
            ));
        };
        let is_regex = matches!(self.subscription, Subscription::Matching(_));
        if is_regex && newest < HEARTBEAT_WITH_REGEX {
            return Err(Failure::Unable(
                "the brokers do not match topics for group.protocol=consumer: name them, or use classic"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn beat(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        let broker = cluster.group_coordinator(&self.group)?;
        let request = self.request();
        self.says_all = true;
        let answer = cluster.call(broker, HEARTBEAT_NEWEST, &request)?;
        match answer.error_code {
            0 => self.heard(&answer),
            UNKNOWN_MEMBER | FENCED_EPOCH => self.fenced(),
            GROUP_NOT_FOUND if self.epoch != JOINING => self.fenced(),
            UNSUPPORTED_VERSION => {
                return Err(Failure::Unable(
                    "the brokers have group.protocol=consumer turned off (group.version): use classic"
                        .to_owned(),
                ));
            }
            code if NOT_YET.contains(&code) => {}
            code => check_told(format!("group {}", self.group), code, answer.error_message)?,
        }
        Ok(())
    }

    fn heard(&mut self, answer: &ConsumerGroupHeartbeatResponse) {
        self.heard_at = Instant::now();
        self.says_all = false;
        if let Some(id) = answer.member_id.as_ref().filter(|id| !id.is_empty()) {
            self.id = id.to_string();
        }
        self.epoch = answer.member_epoch;
        if let Ok(interval_ms @ 1..) = u64::try_from(answer.heartbeat_interval_ms) {
            self.interval = Duration::from_millis(interval_ms);
        }
        if let Some(assignment) = &answer.assignment {
            let topics = assignment.topic_partitions.iter();
            let topics = topics.filter(|topic| !topic.partitions.is_empty());
            self.told = topics
                .map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect()))
                .collect();
        }
    }

    /// The group has gone on without it: what it had is another's.
    fn fenced(&mut self) {
        remark(1, || "the group has gone on without this member".to_owned());
        self.epoch = JOINING;
        self.says_all = true;
    }

    fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let owned = self.has.iter().map(|(topic, partitions)| {
            TopicPartitions::default()
                .with_topic_id(*topic)
                .with_partitions(partitions.iter().copied().collect())
        });
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(text(&self.id))
            .with_member_epoch(self.epoch)
            .with_rebalance_timeout_ms(-1)
            .with_subscribed_topic_names(None)
            .with_topic_partitions(Some(owned.collect()));
        if !self.says_all {
            return request;
        }
        let request = request
            .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
            .with_server_assignor(self.assignor.as_deref().map(text));
        match &self.subscription {
            Subscription::Topics(topics) => {
                let names = topics.iter().map(|topic| TopicName(text(topic)));
                request.with_subscribed_topic_names(Some(names.collect()))
            }
            Subscription::Matching(regex) => request
                .with_subscribed_topic_names(Some(Vec::new()))
                .with_subscribed_topic_regex(Some(text(regex))),
        }
    }

    /// What it has, by the names of the topics. One that is gone has none; the coordinator will take it away.
    fn places(&mut self, cluster: &mut Cluster) -> Result<Vec<Place>, Failure> {
        let unknown: Vec<Uuid> = self
            .has
            .keys()
            .filter(|id| !self.names.contains_key(id))
            .copied()
            .collect();
        if !unknown.is_empty() {
            self.names.extend(cluster.topic_names(&unknown)?);
        }
        let mut places = Vec::new();
        for (id, partitions) in &self.has {
            let Some(topic) = self.names.get(id) else {
                remark(1, || format!("there is no topic {id}"));
                continue;
            };
            places.extend(partitions.iter().map(|partition| Place {
                topic: topic.clone(),
                partition: *partition,
            }));
        }
        places.sort();
        Ok(places)
    }

    /// A moment of patience after a code that passes.
    fn wait(&self, cluster: &Cluster, code: i16) -> Result<(), Failure> {
        if !NOT_YET.contains(&code) || Instant::now() + PAUSE > cluster.deadline() {
            return check(format!("group {}", self.group), code);
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }
}

/// The member's id (KIP-1082). It needs to be unique, not secret: std's hash maps have random keys.
fn new_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    let bytes = Uuid::from_u64_pair(random(), random()).into_bytes();
    uuid::Builder::from_random_bytes(bytes)
        .into_uuid()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::consumer_group_heartbeat_response as answer;

    fn told(epoch: i32, topics: Option<&[(Uuid, &[i32])]>) -> ConsumerGroupHeartbeatResponse {
        let assignment = topics.map(|topics| {
            let rows = topics.iter().map(|(id, partitions)| {
                answer::TopicPartitions::default()
                    .with_topic_id(*id)
                    .with_partitions(partitions.to_vec())
            });
            answer::Assignment::default().with_topic_partitions(rows.collect())
        });
        ConsumerGroupHeartbeatResponse::default()
            .with_member_epoch(epoch)
            .with_heartbeat_interval_ms(700)
            .with_assignment(assignment)
    }

    #[test]
    fn everything_is_said_until_an_answer_has_come_and_again_after_a_loss() {
        let subscription = Subscription::Matching("t.*".to_owned());
        let mut member = ConsumerMember::new("g", subscription, None);
        let first = member.request();
        assert_eq!(
            (first.member_epoch, first.rebalance_timeout_ms),
            (0, 60_000)
        );
        assert_eq!(first.subscribed_topic_regex.as_deref(), Some("t.*"));
        assert_eq!(first.topic_partitions.map(|rows| rows.len()), Some(0));
        let id = Uuid::from_u128(7);
        member.heard(&told(3, Some(&[(id, &[1, 0])])));
        assert_eq!(member.interval(), Duration::from_millis(700));
        let second = member.request();
        assert_eq!((second.member_epoch, second.rebalance_timeout_ms), (3, -1));
        assert_eq!(second.subscribed_topic_regex, None);
        assert_eq!(member.told, Owned::from([(id, BTreeSet::from([0, 1]))]));
        // Nothing about an assignment: it stays.
        member.heard(&told(4, None));
        assert_eq!((member.epoch, member.told.len()), (4, 1));
        member.fenced();
        let third = member.request();
        assert_eq!(
            (third.member_epoch, third.rebalance_timeout_ms),
            (0, 60_000)
        );
    }
}
