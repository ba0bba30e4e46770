//! A cluster as its metadata shows it: which brokers, which topics, who leads and who coordinates.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Request, StrBytes};

use uuid::Uuid;

use super::access::Access;
use super::connection::Connection;
use super::failure::{Failure, check};

const METADATA_NEWEST: i16 = 12;
/// From here on a request names several keys; one is all that is needed, and older brokers know this one.
const FIND_COORDINATOR_NEWEST: i16 = 3;
/// How often a coordinator that is not there yet is asked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR: it will be there soon.
pub(crate) const NOT_YET: [i16; 3] = [14, 15, 16];

/// The kinds of keys.
const OF_GROUPS: i8 = 0;
const OF_TRANSACTIONS: i8 = 1;

/// A cluster that can be asked.
#[derive(Debug)]
pub(crate) struct Cluster {
    access: Access,
    timeout: Duration,
    deadline: Instant,
    bootstrap: Connection,
    /// Addresses by broker id.
    brokers: BTreeMap<i32, String>,
    connections: BTreeMap<i32, Connection>,
    /// Who leads which partition, as far as it was asked; -1 nobody.
    leaders: BTreeMap<(String, i32), i32>,
}

impl Cluster {
    /// Connects to the first of the bootstrap addresses that answers.
    pub(crate) fn open(
        bootstrap: &str,
        access: &Access,
        timeout: Duration,
    ) -> Result<Cluster, Failure> {
        let deadline = Instant::now() + timeout;
        let mut last = Failure::Usage("no bootstrap address was given".to_owned());
        for address in bootstrap.split(',').map(str::trim) {
            if address.is_empty() {
                continue;
            }
            let connection = match Connection::open(&with_port(address), access, deadline) {
                Ok(connection) => connection,
                Err(failure) => {
                    last = failure;
                    continue;
                }
            };
            let mut cluster = Cluster {
                access: access.clone(),
                timeout,
                deadline,
                bootstrap: connection,
                brokers: BTreeMap::new(),
                connections: BTreeMap::new(),
                leaders: BTreeMap::new(),
            };
            cluster.metadata(Some(&[]))?;
            return Ok(cluster);
        }
        Err(last)
    }

    /// When the command's time is over.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// For commands that go on: what comes next may take as long as the whole of another command, and no less than `least`.
    pub(crate) fn renew(&mut self, least: Duration) {
        self.deadline = Instant::now() + self.timeout.max(least);
        let connections = self.connections.values_mut();
        for connection in connections.chain([&mut self.bootstrap]) {
            connection.set_deadline(self.deadline);
        }
    }

    /// Forgets a connection that failed: the next request to that broker opens another.
    pub(crate) fn drop_connection(&mut self, broker: i32) {
        self.connections.remove(&broker);
    }

    /// Forgets all connections but the first, and who leads what: brokers have gone, or may be others by now.
    pub(crate) fn hang_up(&mut self) {
        self.connections.clear();
        self.leaders.clear();
    }

    /// Connects to another of the brokers for what any broker can be asked, if the one that was is gone.
    pub(crate) fn reopen(&mut self) -> Result<(), Failure> {
        let known: Vec<String> = self.brokers.values().cloned().collect();
        let mut addresses = vec![self.bootstrap.address().to_owned()];
        addresses.extend(known);
        let mut last = None;
        for address in addresses {
            match Connection::open(&address, &self.access, self.deadline) {
                Ok(connection) => {
                    self.bootstrap = connection;
                    return Ok(());
                }
                Err(failure) => last = Some(failure),
            }
        }
        Err(last.expect("at least one address was tried"))
    }

    /// The APIs that the bootstrap broker serves, with their oldest and newest version.
    pub(crate) fn served(&self) -> &BTreeMap<i16, (i16, i16)> {
        self.bootstrap.served()
    }

    /// What the cluster says of these topics, or of all.
    pub(crate) fn metadata(
        &mut self,
        topics: Option<&[&str]>,
    ) -> Result<MetadataResponse, Failure> {
        let wanted = topics.map(|names| {
            let topics = names
                .iter()
                .map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(text(name)))));
            topics.collect()
        });
        let request = MetadataRequest::default()
            .with_topics(wanted)
            .with_allow_auto_topic_creation(false);
        let answer = self.bootstrap.call(METADATA_NEWEST, &request)?;
        self.brokers = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id.0, format!("{}:{}", broker.host, broker.port)))
            .collect();
        for topic in &answer.topics {
            for partition in &topic.partitions {
                let name = topic.name.as_ref().map_or("", |name| name.as_str());
                let place = (name.to_owned(), partition.partition_index);
                self.leaders.insert(place, partition.leader_id.0);
            }
        }
        Ok(answer)
    }

    /// Who leads a partition, as it was said last or is asked now.
    pub(crate) fn leader(&mut self, topic: &str, partition: i32) -> Result<i32, Failure> {
        let place = (topic.to_owned(), partition);
        if !self.leaders.contains_key(&place) {
            self.topic(topic)?;
        }
        let what = || format!("{topic}:{partition}");
        match self.leaders.get(&place) {
            // UNKNOWN_TOPIC_OR_PARTITION.
            None => Err(Failure::refused(what(), 3)),
            // LEADER_NOT_AVAILABLE.
            Some(-1) => {
                self.forget_leader(topic, partition);
                Err(Failure::refused(what(), 5))
            }
            Some(leader) => Ok(*leader),
        }
    }

    /// Has the leader of a partition asked for anew.
    pub(crate) fn forget_leader(&mut self, topic: &str, partition: i32) {
        self.leaders.remove(&(topic.to_owned(), partition));
    }

    /// One topic; `None` if there is none of that name.
    pub(crate) fn topic(&mut self, name: &str) -> Result<Option<MetadataResponseTopic>, Failure> {
        let answer = self.metadata(Some(&[name]))?;
        match answer.topics.into_iter().next() {
            // UNKNOWN_TOPIC_OR_PARTITION, INVALID_TOPIC_EXCEPTION.
            Some(topic) if matches!(topic.error_code, 3 | 17) => Ok(None),
            Some(topic) => {
                check(format!("topic {name}"), topic.error_code)?;
                Ok(Some(topic))
            }
            None => Ok(None),
        }
    }

    /// The names of the topics with these ids, as far as there are any.
    pub(crate) fn topic_names(&mut self, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>, Failure> {
        let wanted = ids.iter().map(|id| {
            MetadataRequestTopic::default()
                .with_topic_id(*id)
                .with_name(None)
        });
        let request = MetadataRequest::default()
            .with_topics(Some(wanted.collect()))
            .with_allow_auto_topic_creation(false);
        let answer = self.bootstrap.call(METADATA_NEWEST, &request)?;
        let topics = answer.topics.into_iter();
        let named = topics.filter_map(|topic| Some((topic.topic_id, topic.name?.to_string())));
        Ok(named.collect())
    }

    /// The ids of all brokers.
    pub(crate) fn brokers(&self) -> Vec<i32> {
        self.brokers.keys().copied().collect()
    }

    /// A broker for what every broker can be asked.
    pub(crate) fn any_broker(&self) -> Result<i32, Failure> {
        let first = self.brokers.keys().next().copied();
        first.ok_or_else(|| Failure::Unable("the cluster has no brokers".to_owned()))
    }

    /// Asks the broker that answered first, in a version that is at most `newest`.
    pub(crate) fn call_any<R: Request>(
        &mut self,
        newest: i16,
        request: &R,
    ) -> Result<R::Response, Failure> {
        self.bootstrap.call(newest, request)
    }

    /// Asks one broker, in a version that is at most `newest`.
    pub(crate) fn call<R: Request>(
        &mut self,
        broker: i32,
        newest: i16,
        request: &R,
    ) -> Result<R::Response, Failure> {
        self.connection(broker)?.call(newest, request)
    }

    /// Sends what nobody answers.
    pub(crate) fn tell<R: Request>(
        &mut self,
        broker: i32,
        newest: i16,
        request: &R,
    ) -> Result<(), Failure> {
        self.connection(broker)?.tell(newest, request)
    }

    /// The brokers that there is a connection to.
    pub(crate) fn connected(&self) -> Vec<i32> {
        self.connections.keys().copied().collect()
    }

    fn connection(&mut self, broker: i32) -> Result<&mut Connection, Failure> {
        if !self.connections.contains_key(&broker) {
            let address = self.brokers.get(&broker).ok_or_else(|| {
                Failure::Unable(format!("broker {broker} is not among those of the cluster"))
            })?;
            let connection = Connection::open(address, &self.access, self.deadline)?;
            self.connections.insert(broker, connection);
        }
        Ok(self
            .connections
            .get_mut(&broker)
            .expect("it was put there above"))
    }

    /// The broker that coordinates a transactional id; waits for one that is only about to.
    pub(crate) fn coordinator(&mut self, id: &str) -> Result<i32, Failure> {
        self.coordinator_of(OF_TRANSACTIONS, id)
    }

    /// The same of a group.
    pub(crate) fn group_coordinator(&mut self, group: &str) -> Result<i32, Failure> {
        self.coordinator_of(OF_GROUPS, group)
    }

    fn coordinator_of(&mut self, kind: i8, key: &str) -> Result<i32, Failure> {
        let request = FindCoordinatorRequest::default()
            .with_key(text(key))
            .with_key_type(kind);
        loop {
            let answer = self.bootstrap.call(FIND_COORDINATOR_NEWEST, &request)?;
            let is_late = Instant::now() + PAUSE > self.deadline;
            if NOT_YET.contains(&answer.error_code) && !is_late {
                std::thread::sleep(PAUSE);
                continue;
            }
            check(format!("the coordinator of {key}"), answer.error_code)?;
            let address = format!("{}:{}", answer.host, answer.port);
            self.brokers.insert(answer.node_id.0, address);
            return Ok(answer.node_id.0);
        }
    }
}

/// A string for the wire.
pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn with_port(address: &str) -> String {
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port {
        address.to_owned()
    } else {
        format!("{address}:9092")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_gets_kafkas() {
        assert_eq!(with_port("h"), "h:9092");
        assert_eq!(with_port("h:1"), "h:1");
        assert_eq!(with_port("[::1]:1"), "[::1]:1");
    }

    #[test]
    fn nobody_there_is_said() {
        let open = |address| Cluster::open(address, &Access::default(), Duration::from_secs(5));
        let failure = open("127.0.0.1:1").expect_err("nobody");
        assert_eq!(failure.exit_code(), 3);
        let failure = open(" , ").expect_err("no address");
        assert_eq!(failure.exit_code(), 2);
    }
}
