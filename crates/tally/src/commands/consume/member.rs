//! A member of a classic consumer group: it joins, is assigned partitions (with `range`, which every client knows), says that
//! it lives, commits and leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    OffsetCommitRequest, SyncGroupRequest, TopicName,
};
use tally_protocol::wire::{Malformed, Reader};

use crate::client::{Cluster, Failure, NOT_YET, check, text};
use crate::commands::group::assigned;
use crate::commands::place::Place;
use crate::output::remark;

const JOIN_NEWEST: i16 = 7;
const SYNC_NEWEST: i16 = 3;
const HEARTBEAT_NEWEST: i16 = 3;
const LEAVE_NEWEST: i16 = 2;
/// The last version that names topics.
const OFFSET_COMMIT_NEWEST: i16 = 8;

/// How long the group waits for a member that says nothing.
const SESSION_TIMEOUT_MS: i32 = 45_000;
/// How long it waits for this one to join again: it looks for it every few hundred milliseconds.
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);
/// Joining waits for the other members, which have as long as they have asked for: Java's default is five minutes.
const JOIN_WAIT: Duration = Duration::from_secs(310);
const PAUSE: Duration = Duration::from_millis(50);
const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";

const REBALANCE_IN_PROGRESS: i16 = 27;
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER: i16 = 25;
const MEMBER_ID_REQUIRED: i16 = 79;
/// The group goes on without this member, or with it under another number: it has to join again.
const JOIN_AGAIN: [i16; 3] = [REBALANCE_IN_PROGRESS, ILLEGAL_GENERATION, UNKNOWN_MEMBER];

/// This process as a member.
#[derive(Debug)]
pub(super) struct Member {
    group: String,
    topics: Vec<String>,
    /// Partitions of the topics, as they were when this member began.
    counts: BTreeMap<String, usize>,
    id: String,
    generation: i32,
    heard_at: Instant,
}

impl Member {
    pub(super) fn new(group: &str, topics: &[String], counts: BTreeMap<String, usize>) -> Member {
        Member {
            group: group.to_owned(),
            topics: topics.to_vec(),
            counts,
            id: String::new(),
            generation: -1,
            heard_at: Instant::now(),
        }
    }

    /// Reads other topics from the next join on.
    pub(super) fn subscribe(&mut self, counts: &BTreeMap<String, usize>) {
        self.topics = counts.keys().cloned().collect();
        self.counts.clone_from(counts);
    }

    /// Joins, or joins again; the partitions that are this member's.
    pub(super) fn join(&mut self, cluster: &mut Cluster) -> Result<Vec<Place>, Failure> {
        cluster.renew(JOIN_WAIT);
        loop {
            let broker = cluster.group_coordinator(&self.group)?;
            let joined = cluster.call(broker, JOIN_NEWEST, &self.join_request())?;
            match joined.error_code {
                0 => {}
                MEMBER_ID_REQUIRED => {
                    self.id = joined.member_id.to_string();
                    continue;
                }
                code => {
                    self.wait_or_fail(cluster, code)?;
                    continue;
                }
            }
            self.id = joined.member_id.to_string();
            self.generation = joined.generation_id;
            let assignments = self.assign(cluster, &joined)?;
            let request = SyncGroupRequest::default()
                .with_group_id(GroupId(text(&self.group)))
                .with_generation_id(self.generation)
                .with_member_id(text(&self.id))
                .with_assignments(assignments);
            let synced = cluster.call(broker, SYNC_NEWEST, &request)?;
            if synced.error_code != 0 {
                self.wait_or_fail(cluster, synced.error_code)?;
                continue;
            }
            self.heard_at = Instant::now();
            return Ok(assigned(&synced.assignment));
        }
    }

    /// After an error that passes: what it says of this member, and a moment of patience.
    fn wait_or_fail(&mut self, cluster: &Cluster, code: i16) -> Result<(), Failure> {
        if code == UNKNOWN_MEMBER {
            self.id.clear();
        }
        let passes = JOIN_AGAIN.contains(&code) || NOT_YET.contains(&code);
        if !passes || Instant::now() + PAUSE > cluster.deadline() {
            return check(format!("group {}", self.group), code);
        }
        std::thread::sleep(PAUSE);
        Ok(())
    }

    fn join_request(&self) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text(ASSIGNOR))
            .with_metadata(subscription(&self.topics));
        JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_session_timeout_ms(SESSION_TIMEOUT_MS)
            .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
            .with_member_id(text(&self.id))
            .with_protocol_type(text(PROTOCOL_TYPE))
            .with_protocols(vec![protocol])
    }

    /// What every member gets, if this one is the leader.
    fn assign(
        &self,
        cluster: &mut Cluster,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<SyncGroupRequestAssignment>, Failure> {
        if joined.leader != joined.member_id {
            return Ok(Vec::new());
        }
        let subscriptions = subscriptions(&joined.members);
        let mut counts = self.counts.clone();
        let topics: BTreeSet<&String> = subscriptions.values().flatten().collect();
        for topic in topics {
            if !counts.contains_key(topic) {
                let found = cluster.topic(topic)?;
                let count = found.map_or(0, |found| found.partitions.len());
                counts.insert(topic.clone(), count);
            }
        }
        let shares = range(&subscriptions, &counts);
        let rows = shares.iter().map(|(member, topics)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(assignment(topics))
        });
        Ok(rows.collect())
    }

    /// Says that it lives, if it is time; whether it still has what it was assigned.
    pub(super) fn is_in(&mut self, cluster: &mut Cluster) -> Result<bool, Failure> {
        if self.heard_at.elapsed() < HEARTBEAT_INTERVAL {
            return Ok(true);
        }
        self.heard_at = Instant::now();
        let broker = cluster.group_coordinator(&self.group)?;
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id));
        let code = cluster.call(broker, HEARTBEAT_NEWEST, &request)?.error_code;
        if JOIN_AGAIN.contains(&code) {
            return Ok(false);
        }
        if !NOT_YET.contains(&code) {
            check(format!("group {}", self.group), code)?;
        }
        Ok(true)
    }

    /// Commits; `false` if the group has gone on without this member, and nothing was.
    pub(super) fn commit(
        &mut self,
        cluster: &mut Cluster,
        reached: &BTreeMap<Place, i64>,
    ) -> Result<bool, Failure> {
        let request = commit_request(&self.group, self.generation, &self.id, reached);
        cluster.renew(Duration::ZERO);
        loop {
            let broker = cluster.group_coordinator(&self.group)?;
            let answer = cluster.call(broker, OFFSET_COMMIT_NEWEST, &request)?;
            let mut rows = answer.topics.iter().flat_map(|topic| &topic.partitions);
            let Some(row) = rows.find(|row| row.error_code != 0) else {
                return Ok(true);
            };
            let code = row.error_code;
            if JOIN_AGAIN.contains(&code) {
                remark(1, || {
                    "offsets were not committed: the group has moved on".to_owned()
                });
                return Ok(false);
            }
            let is_late = Instant::now() + PAUSE > cluster.deadline();
            if !NOT_YET.contains(&code) || is_late {
                check(format!("offsets of group {}", self.group), code)?;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Says farewell.
    pub(super) fn leave(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        let request = LeaveGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_member_id(text(&self.id));
        let broker = cluster.group_coordinator(&self.group)?;
        let answer = cluster.call(broker, LEAVE_NEWEST, &request)?;
        check(format!("group {}", self.group), answer.error_code)
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }
}

/// OffsetCommit of a member, of either protocol.
pub(super) fn commit_request(
    group: &str,
    generation: i32,
    id: &str,
    reached: &BTreeMap<Place, i64>,
) -> OffsetCommitRequest {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (place, offset) in reached {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(place.partition)
            .with_committed_offset(*offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text("")));
        topics.entry(&place.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(name)))
            .with_partitions(partitions)
    });
    OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(id))
        .with_topics(topics.collect())
}

/// The subscription of a consumer, version 0: topics, no user data.
fn subscription(topics: &[String]) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend(count(topics.len()));
    for topic in topics {
        put_text(&mut bytes, topic);
    }
    bytes.extend((-1i32).to_be_bytes());
    Bytes::from(bytes)
}

/// An assignment, version 0.
fn assignment(topics: &BTreeMap<String, Vec<i32>>) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend(count(topics.len()));
    for (topic, partitions) in topics {
        put_text(&mut bytes, topic);
        bytes.extend(count(partitions.len()));
        bytes.extend(partitions.iter().flat_map(|index| index.to_be_bytes()));
    }
    bytes.extend((-1i32).to_be_bytes());
    Bytes::from(bytes)
}

fn count(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes()
}

/// Names of topics have at most 249 bytes.
fn put_text(bytes: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).unwrap_or(i16::MAX);
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// The topics of each member. One whose subscription can't be read gets nothing: the bytes are another client's.
fn subscriptions(members: &[JoinGroupResponseMember]) -> BTreeMap<String, BTreeSet<String>> {
    let rows = members.iter().map(|member| {
        let topics = topics_of(&member.metadata).unwrap_or_default();
        (member.member_id.to_string(), topics)
    });
    rows.collect()
}

fn topics_of(bytes: &[u8]) -> Result<BTreeSet<String>, Malformed> {
    let mut reader = Reader::new(bytes);
    reader.i16()?;
    let mut topics = BTreeSet::new();
    for _ in 0..reader.i32()? {
        let length = usize::try_from(reader.i16()?).map_err(|_| Malformed::BadLength)?;
        topics.insert(String::from_utf8_lossy(reader.take(length)?).into_owned());
    }
    Ok(topics)
}

type Assigned = BTreeMap<String, BTreeMap<String, Vec<i32>>>;

/// Of each topic every subscriber gets a stretch of partitions, the first ones one more where it does not come out even.
fn range(
    subscriptions: &BTreeMap<String, BTreeSet<String>>,
    counts: &BTreeMap<String, usize>,
) -> Assigned {
    let mut assigned: Assigned = subscriptions
        .keys()
        .map(|member| (member.clone(), BTreeMap::new()))
        .collect();
    for (topic, partitions) in counts {
        let members: Vec<&String> = subscriptions
            .iter()
            .filter(|(_, topics)| topics.contains(topic))
            .map(|(member, _)| member)
            .collect();
        let mut next = 0;
        for (at, member) in members.iter().enumerate() {
            let share = partitions / members.len() + usize::from(at < partitions % members.len());
            let stretch = (next..next + share).filter_map(|index| i32::try_from(index).ok());
            let stretch: Vec<i32> = stretch.collect();
            next += share;
            if let Some(topics) = assigned.get_mut(*member).filter(|_| share > 0) {
                topics.insert(topic.clone(), stretch);
            }
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_gives_stretches() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let subscriptions = BTreeMap::from([
            ("a".to_owned(), names(&["t", "u"])),
            ("b".to_owned(), names(&["t"])),
            ("c".to_owned(), names(&[])),
        ]);
        let counts = BTreeMap::from([("t".to_owned(), 3), ("u".to_owned(), 1)]);
        let assigned = range(&subscriptions, &counts);
        let of = |member: &str| format!("{:?}", assigned[member]);
        assert_eq!(of("a"), "{\"t\": [0, 1], \"u\": [0]}");
        assert_eq!(of("b"), "{\"t\": [2]}");
        assert_eq!(of("c"), "{}");
    }

    #[test]
    fn subscriptions_are_read_as_they_were_written() {
        let topics = ["in".to_owned(), "out".to_owned()];
        let bytes = subscription(&topics);
        assert_eq!(topics_of(&bytes), Ok(topics.into_iter().collect()));
        for end in 0..bytes.len() - 4 {
            assert!(topics_of(&bytes[..end]).is_err(), "{end}");
        }
    }
}
